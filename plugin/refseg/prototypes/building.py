"""Building prototypes from references: only what is new or has changed is computed.

A reference costs one encoder pass over its crop, eight where it is turned; a box-only one a pass of the segmenter besides.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import NoneType

import torch
from torch import Tensor

from ..checks import require_items, require_kind
from ..errors import BadReferenceError, ClassWithoutReferencesError, ImageError, NoReferencesError
from ..images import PLAIN, PixelSettings, find_pixels, pixel_settings, read_image
from ..models import Models, load_models, require_model
from ..printing import object_name
from ..progress import Progress, Watcher, drain
from .negatives import Negatives, joined_looks
from .prototypes import Prototypes, require_prototypes
from .surroundings import image_key
from .vectors import Reference, ReferenceVector, reference_digest, reference_vector, segmenter_embeddings


def iter_build_prototypes(
    references: Sequence[Reference],
    model: str | Models = "large",
    reuse: Prototypes | None = None,
    negatives: Sequence[Reference] = (),
    *,
    drops_classes: bool = False,
    pixels: PixelSettings = PLAIN,
    turned: bool | None = None,
) -> Generator[Progress, None, Prototypes]:
    """The generator behind build_prototypes: yields after each reference and negative.

    With drops_classes, a class none of whose references can be used is left out, and only an error where no other is left.
    """
    require_items(Reference, "a list of references", references=references, negatives=negatives)
    if reuse is not None:
        require_prototypes(reuse=reuse)
    require_kind((bool, NoneType), "True, False or None", turned=turned)
    require_model(model)
    if not references:
        raise NoReferencesError("There are no references: label an object of each class and select or tag it.")
    models = load_models(model) if isinstance(model, str) else model
    _check_named(references)
    _check_apart(references, negatives)
    known = reuse.known_vectors if reuse is not None and reuse.fingerprint == models.fingerprint else {}
    turned = (reuse is not None and reuse.turned) if turned is None else turned
    objects = [*references, *negatives]
    pixels = _pixels_of(objects, reuse, pixels)
    negative_ids = {item.id for item in negatives}
    used: list[_Used] = []
    skipped: list[tuple[str, str]] = []
    by_image = groupby(sorted(objects, key=lambda item: item.image), key=lambda item: item.image)
    done = 0
    yield Progress(0, len(objects), "references")
    for _, group in by_image:
        members = list(group)
        # Before the image is read: if it changes meanwhile, the next build sees another digest.
        keys = [(item.id, reference_digest(item, models, pixels, turned=turned) or "") for item in members]
        vectors = [_usable(known.get(key), key[0] in negative_ids, models) for key in keys]
        outcomes = _image_vectors(members, vectors, models, pixels, turned)
        for item, (_, digest), outcome in zip(members, keys, outcomes, strict=True):
            if isinstance(outcome, str):
                skipped.append((item.id, f"{object_name(item.label, item.image)}: {outcome}"))
            else:
                used.append(_Used(item, outcome, digest))
            done += 1
            yield Progress(done, len(objects), "references")
    shown = [item for item in used if item.reference.id not in negative_ids]
    others = [item for item in used if item.reference.id in negative_ids]
    classes = _classes_of(references, shown, skipped, drops_classes)
    return Prototypes(
        classes,
        torch.stack([item.vectors.vector for item in shown]),
        torch.tensor([classes.index(item.reference.label) for item in shown], dtype=torch.int64),
        tuple(item.reference.id for item in shown),
        models.preset.name,
        models.fingerprint,
        tuple(skipped),
        tuple(item.digest for item in shown),
        _gather_negatives(others) if others else None,
        tuple(image_key(item.reference.image) for item in shown),
        torch.stack([item.background for item in shown]),
        pixels=pixels,
        looks=_looks_of(shown),
        turned=turned,
        image_names=tuple(os.path.basename(item.reference.image) for item in shown),
    )


def build_prototypes(
    references: Sequence[Reference],
    model: str | Models = "large",
    *,
    negatives: Sequence[Reference] = (),
    reuse: Prototypes | None = None,
    pixel_range: tuple[float, float] | None = None,
    channels: Sequence[int] | None = None,
    turned: bool | None = None,
    progress: bool | Watcher | None = None,
) -> Prototypes:
    """Build one prototype per class from its references.

    Classes may have different numbers of references. A reference or negative that cannot be used (an unreadable image, an
    object too small or too thin to cover a patch) is left out and listed in `Prototypes.skipped`.

    Args:
        references: from `collect_references`, or your own.
        model: a preset's name, or loaded models.
        negatives: objects like those of a class that are none. One named like a class is a negative of that class; any other is
            one of every class. What resembles it more than the class scores lower.
        reuse: prototypes of an earlier build by the same encoder, or they are ignored: a reference or negative whose image, box
            and mask have not changed since takes its vector from there. The result is the one of a build from nothing.
        pixel_range: see `refseg.build_index`; by default that of the dataset's index where the references come from a dataset
            that has one, or of the earlier prototypes, else it is found from all images of that dataset, or of the references.
        channels: see `refseg.build_index`; by default as those of pixel_range.
        turned: look at each object turned by quarters and mirrored too, and take the mean: eight passes instead of one. It may
            help where objects lie any way up, in pictures from above or through a microscope, and hurts where left and right
            tell classes apart. By default as reuse was built, else False.
        progress: see `refseg.progress.drain`.

    Raises:
        NoReferencesError: there are none.
        ClassWithoutReferencesError: none of a class's references can be used.
        BadReferenceError: an object is both a reference and a negative, or a reference has no class.
        DatasetError: a range of pixels or channels that cannot be.
    """
    pixels = pixel_settings(pixel_range, channels)
    work = iter_build_prototypes(references, model, reuse, negatives, pixels=pixels, turned=turned)
    return drain(work, progress, "building prototypes")


def _pixels_of(objects: Sequence[Reference], reuse: Prototypes | None, given: PixelSettings) -> PixelSettings:
    """How the images of references are read: as was given, else as in their dataset's index, else as before, else anew."""
    earlier = [item.pixels for item in objects] + ([] if reuse is None else [reuse.pixels])
    pixel_range = next((one.pixel_range for one in (given, *earlier) if one.pixel_range is not None), None)
    channels = next((one.channels for one in (given, *earlier) if one.channels is not None), None)
    paths = {item.image for item in objects}.union(*{item.beside for item in objects})
    return find_pixels(paths, PixelSettings(pixel_range, channels))


def _check_named(references: Sequence[Reference]) -> None:
    nameless = next((reference for reference in references if not reference.label.strip()), None)
    if nameless is not None:
        where = object_name(None, nameless.image, nameless.id)
        raise BadReferenceError(f"Among the references is {where}: name its class, or leave it out.")


def _check_apart(references: Sequence[Reference], negatives: Sequence[Reference]) -> None:
    ids = {reference.id for reference in references}
    both = [negative for negative in negatives if negative.id in ids]
    if both:
        more = f" (and {len(both) - 1} more)" if len(both) > 1 else ""
        first = object_name(both[0].label, both[0].image, both[0].id)
        raise BadReferenceError(
            f"The object {first}{more} is both a reference and a negative: take one of the two tags off it."
        )


def _classes_of(
    references: Sequence[Reference], used: Sequence[_Used], skipped: Sequence[tuple[str, str]], drops_classes: bool
) -> tuple[str, ...]:
    """The classes of references by name, each with one that can be used; others may be dropped as long as one is left."""
    usable = {item.reference.label for item in used}
    classes = sorted({reference.label for reference in references})
    if drops_classes:
        classes = sorted(usable) or classes
    for name in classes:
        if name not in usable:
            of_class = {reference.id for reference in references if reference.label == name}
            raise ClassWithoutReferencesError(name, [f"{why} ({i})" for i, why in skipped if i in of_class])
    return tuple(classes)


@dataclass(frozen=True)
class _Used:
    """A reference or negative, its vectors, and the digest of what these were computed from."""

    reference: Reference
    vectors: ReferenceVector
    digest: str

    @property
    def background(self) -> Tensor:
        assert self.vectors.background is not None
        return self.vectors.background.half()


def _gather_negatives(items: Sequence[_Used]) -> Negatives:
    return Negatives(
        torch.stack([item.vectors.vector for item in items]),
        tuple(item.reference.label for item in items),
        tuple(item.reference.id for item in items),
        tuple(item.digest for item in items),
        tuple(image_key(item.reference.image) for item in items),
        _looks_of(items),
    )


def _looks_of(items: Sequence[_Used]) -> Tensor | None:
    """(n, D) float16; None where the preset looks once."""
    parts = [(None if item.vectors.look is None else item.vectors.look[None], 1) for item in items]
    looks = joined_looks(*parts)
    return None if looks is None else looks.half()


def _image_vectors(
    members: Sequence[Reference],
    known: Sequence[ReferenceVector | None],
    models: Models,
    pixels: PixelSettings,
    turned: bool,
) -> list[ReferenceVector | str]:
    """Vectors of each reference in one image, or why it cannot be used; the image is opened for those not known."""
    outcomes: list[ReferenceVector | str] = [vector for vector in known if vector is not None]
    if len(outcomes) == len(members):
        return outcomes
    try:
        image = read_image(members[0].image, pixels=pixels)
    except ImageError as error:
        return [error.reason if vector is None else vector for vector in known]
    with models.lock:
        boxes = sum(reference.mask is None and vector is None for reference, vector in zip(members, known, strict=True))
        embeddings = segmenter_embeddings(image, models) if boxes > 1 else None
        return [
            reference_vector(image, reference, models, embeddings, turned=turned) if vector is None else vector
            for reference, vector in zip(members, known, strict=True)
        ]


def _usable(known: ReferenceVector | None, is_negative: bool, models: Models) -> ReferenceVector | None:
    """Of a reference the background must be known too, and a second look where the preset takes one: old files lack both."""
    if known is None or (known.look is None and models.preset.second_looks):
        return None
    return known if is_negative or known.background is not None else None
