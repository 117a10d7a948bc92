"""From references to prototypes: one vector per reference or negative, one prototype per class (method.md, stage B).

A reference costs one encoder pass over its crop; a box-only one a pass of the segmenter besides. The vectors of all references
are kept with digests of what they were computed from, so that building again computes only what is new or has changed.

Negatives are objects that are taken for a class and are not. A negative named like a class is a negative of that class; any
other is one of every class.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .candidates import decode_boxes, embed_images, encode_patches
from .errors import (
    BadReferenceError,
    ClassWithoutReferencesError,
    ImageError,
    NoReferencesError,
    PrototypeFileError,
    PrototypeMismatchError,
    ShapeError,
)
from .images import encoder_pixels, read_image, segmenter_pixels
from .models import Models, load_models
from .progress import Progress, Watcher, drain

FILE_VERSION = 3
"""1 had no digests, 2 no negatives."""

VECTOR_VERSION = 1
"""To be raised by whoever changes what comes out for a reference, so that no older vector is reused."""

CROP_MARGIN = 1.2
"""Side of the square crop, as a multiple of the box's longer side (method.md B1)."""


@dataclass(frozen=True, eq=False)
class Reference:
    """One labelled object that shows what a class looks like.

    Attributes:
        id: of the label, unique.
        label: its class.
        image: path of the image.
        box: x0, y0, x1, y1 in pixels of the upright image, far edge excluded.
        mask: (h, w) bool, the object inside its box, stretched over the box rounded to pixels; None for a box alone.
    """

    id: str
    label: str
    image: str
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Negatives:
    """Objects that are not what they may be taken for.

    A negative named like a class is a negative of that class; any other is one of every class.

    Attributes:
        vectors: (Q, C) float32 instance vectors, not normalised.
        names: of each, a class or anything else.
        ids: of each.
        digests: of what each vector was computed from, see reference_digest; "" where unknown.
    """

    vectors: Tensor
    names: tuple[str, ...]
    ids: tuple[str, ...]
    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.names) == len(self.ids) == len(self.digests):
            raise ShapeError(
                f"Negatives need one vector, name, id and digest each, but there are {len(self.vectors)}, {len(self.names)}, "
                f"{len(self.ids)} and {len(self.digests)}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, classes: Sequence[str]) -> Tensor:
        """(Q,) int64: the row of the class of each one's name, -1 where no class has it.

        Example:
            >>> Negatives(torch.ones(2, 3), ("nut", "shadow"), ("a", "b"), ("", "")).rows(["gear", "nut"])
            tensor([ 1, -1])
        """
        by_name = {name: row for row, name in enumerate(classes)}
        return torch.tensor([by_name.get(name, -1) for name in self.names], dtype=torch.int64)

    def add(self, other: Negatives) -> Negatives:
        """These and other's together."""
        return Negatives(
            torch.cat([self.vectors, other.vectors]),
            self.names + other.names,
            self.ids + other.ids,
            self.digests + other.digests,
        )

    def remove(self, ids: Iterable[str]) -> Negatives | None:
        """These without some; None where none is left."""
        gone = set(ids)
        keep = [row for row, name in enumerate(self.ids) if name not in gone]
        if not keep:
            return None
        columns = (tuple(column[row] for row in keep) for column in (self.names, self.ids, self.digests))
        return Negatives(self.vectors[keep], *columns)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Classes as the mean of their references, and what is not to be taken for them.

    Attributes:
        classes: K names, in the order of the rows of `matrix`.
        vectors: (R, C) float32 instance vectors, not normalised.
        labels: (R,) int64, the class row of each vector.
        reference_ids: id of each reference.
        model: name of the preset that computed the vectors.
        fingerprint: of its encoder; only candidates of the same encoder can be compared.
        skipped: references and negatives that could not be used, each with the reason.
        digests: of what each vector was computed from, see reference_digest; "" where unknown, () where all are.
        negatives: objects that are none of the classes, or not the one they look like; None without any.
    """

    classes: tuple[str, ...]
    vectors: Tensor
    labels: Tensor
    reference_ids: tuple[str, ...]
    model: str
    fingerprint: str
    skipped: tuple[tuple[str, str], ...] = ()
    digests: tuple[str, ...] = ()
    negatives: Negatives | None = None

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.labels) == len(self.reference_ids):
            raise ShapeError(
                f"Prototypes need one vector, label and id a reference, but there are {len(self.vectors)}, "
                f"{len(self.labels)} and {len(self.reference_ids)}."
            )
        if self.digests and len(self.digests) != len(self.reference_ids):
            raise ShapeError(
                f"Prototypes need one digest a reference or none at all, but there are {len(self.digests)} of "
                f"{len(self.reference_ids)} references."
            )
        if self.negatives is not None and self.negatives.vectors.shape[1:] != self.vectors.shape[1:]:
            raise ShapeError(
                f"Negatives of shape {tuple(self.negatives.vectors.shape)} do not fit references of shape "
                f"{tuple(self.vectors.shape)}: build both with one model."
            )
        for row, name in enumerate(self.classes):
            if not bool((self.labels == row).any()):
                raise ClassWithoutReferencesError(name, ())

    @property
    def matrix(self) -> Tensor:
        """(K, C) float32, unit length: the mean of each class's instance vectors (method.md B3)."""
        return class_prototypes(self.vectors, self.labels, len(self.classes))

    @property
    def negative_matrix(self) -> tuple[Tensor, Tensor] | None:
        """What `refseg.matching.similarities` wants to know of the negatives; None without any.

        (Q, C) float32, unit length, and (Q,) int64: the row of the class that each lowers, -1 where it lowers every one.
        """
        if self.negatives is None:
            return None
        return F.normalize(self.negatives.vectors, dim=-1), self.negatives.rows(self.classes)

    @property
    def shots(self) -> dict[str, int]:
        """Number of references of each class."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}

    @property
    def known_vectors(self) -> dict[tuple[str, str], Tensor]:
        """(C,) float32 vectors of references and negatives by id and digest, without those of unknown digest."""
        vectors = dict(zip(zip(self.reference_ids, self._digest_of_each, strict=True), self.vectors, strict=True))
        if self.negatives is not None:
            keys = zip(self.negatives.ids, self.negatives.digests, strict=True)
            vectors.update(zip(keys, self.negatives.vectors, strict=True))
        return {key: vector for key, vector in vectors.items() if key[1]}

    @property
    def _digest_of_each(self) -> tuple[str, ...]:
        return self.digests or ("",) * len(self.reference_ids)

    def num_shared(self, other: Prototypes) -> int:
        """Number of objects whose vector is the same in other: by the same encoder, from the same object."""
        if other.fingerprint != self.fingerprint:
            return 0
        return len(self.known_vectors.keys() & other.known_vectors.keys())

    def add(self, other: Prototypes) -> Prototypes:
        """These and other's references and negatives together; an object in both is what it is in other.

        Raises:
            PrototypeMismatchError: the two come from different encoders.
        """
        if other.fingerprint != self.fingerprint:
            raise PrototypeMismatchError(
                f"Prototypes of the model {self.model!r} and of {other.model!r} cannot be joined: build both with one model."
            )
        newer = other.reference_ids + (other.negatives.ids if other.negatives is not None else ())
        kept = self.remove(newer, keep_classes=False)
        names = list(self.classes) + [name for name in other.classes if name not in self.classes]
        rows = [names.index(owner.classes[row]) for owner in (kept, other) for row in owner.labels.tolist()]
        used = sorted(set(rows))
        return Prototypes(
            tuple(names[row] for row in used),
            torch.cat([kept.vectors, other.vectors]),
            torch.tensor([used.index(row) for row in rows], dtype=torch.int64),
            kept.reference_ids + other.reference_ids,
            self.model,
            self.fingerprint,
            self.skipped + other.skipped,
            kept._digest_of_each + other._digest_of_each if kept.digests or other.digests else (),
            kept.negatives.add(other.negatives) if kept.negatives and other.negatives else kept.negatives or other.negatives,
        )

    def remove(self, reference_ids: Iterable[str], *, keep_classes: bool = True) -> Prototypes:
        """These without some references or negatives; ids that are not here are ignored.

        Args:
            reference_ids: what to remove, negatives too.
            keep_classes: raise where a class would be left without reference, instead of dropping the class.

        Raises:
            ClassWithoutReferencesError: keep_classes is set and a class would be left empty.
        """
        gone = set(reference_ids)
        keep = [row for row, name in enumerate(self.reference_ids) if name not in gone]
        labels = self.labels[keep]
        if keep_classes:
            classes = self.classes
        else:
            used = sorted(set(labels.tolist()))
            classes = tuple(self.classes[row] for row in used)
            labels = torch.tensor([used.index(row) for row in labels.tolist()], dtype=torch.int64)
        return Prototypes(
            classes,
            self.vectors[keep],
            labels,
            tuple(self.reference_ids[row] for row in keep),
            self.model,
            self.fingerprint,
            self.skipped,
            tuple(self.digests[row] for row in keep) if self.digests else (),
            self.negatives.remove(gone) if self.negatives is not None else None,
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, complete or not at all."""
        from safetensors.torch import save_file

        about = {
            "version": FILE_VERSION,
            "classes": self.classes,
            "reference_ids": self.reference_ids,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "skipped": self.skipped,
            "digests": self.digests,
            "negatives": None,
        }
        tensors = {"vectors": self.vectors.contiguous(), "labels": self.labels.contiguous()}
        if self.negatives is not None:
            own = self.negatives
            about["negatives"] = {"names": own.names, "ids": own.ids, "digests": own.digests}
            tensors["negatives"] = own.vectors.contiguous()
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".part")
        save_file(tensors, draft, metadata={"refseg_prototypes": json.dumps(about)})
        draft.replace(target)

    @classmethod
    def load(cls, path: str | Path) -> Prototypes:
        """Read a file written by save.

        Raises:
            PrototypeFileError: the file is missing, holds something else, or was written by a newer version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                about = json.loads((file.metadata() or {})["refseg_prototypes"])
                if about["version"] > FILE_VERSION:
                    raise PrototypeFileError(
                        f"{path} was written by a newer RefSeg (file version {about['version']}, this one reads up to "
                        f"{FILE_VERSION}): update with `pip install -U fiftyone-refseg`."
                    )
                vectors, labels = file.get_tensor("vectors"), file.get_tensor("labels")
                listed = about["negatives"] if about["version"] > 2 else None
                negatives = None if listed is None else _negatives_of(file.get_tensor("negatives"), listed)
            return cls(
                tuple(about["classes"]),
                vectors,
                labels,
                tuple(about["reference_ids"]),
                about["model"],
                about["fingerprint"],
                tuple((name, reason) for name, reason in about["skipped"]),
                tuple(about["digests"]) if about["version"] > 1 else (),
                negatives,
            )
        except FileNotFoundError as error:
            raise PrototypeFileError(f"There is no prototypes file at {path}.") from error
        except (SafetensorError, KeyError, TypeError, ValueError, OSError, ShapeError, ClassWithoutReferencesError) as error:
            raise PrototypeFileError(f"{path} is not a prototypes file written by RefSeg.") from error


def _negatives_of(vectors: Tensor, listed: dict[str, list[str]]) -> Negatives:
    return Negatives(vectors, tuple(listed["names"]), tuple(listed["ids"]), tuple(listed["digests"]))


def class_prototypes(vectors: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K, C) unit vectors: the mean of each class's un-normalised instance vectors (method.md B3).

    Args:
        vectors: (R, C) float32.
        labels: (R,) int64 in [0, K).
        num_classes: K.
    """
    members = F.one_hot(labels, num_classes).to(vectors.dtype)  # (R, K)
    return F.normalize(members.T @ vectors / members.sum(0)[:, None], dim=-1)


def instance_vector(patch_features: Tensor, weights: Tensor) -> Tensor | None:
    """The weighted mean of patch features (method.md B2), or None where the weights sum to 0.

    Args:
        patch_features: (G², C), row-major.
        weights: (G²,) in [0, 1].
    """
    total = weights.sum()
    if not total > 0:
        return None
    return (weights.to(patch_features.dtype) @ patch_features) / total


def crop_corners(box: Sequence[float], image_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The square around a box, cut at the image's border (method.md B1).

    Args:
        box: x0, y0, x1, y1 in pixels.
        image_hw: height and width of the image.

    Returns:
        x0, y0, x1, y1 in whole pixels, far edge excluded, at least one pixel wide and high.

    Example:
        >>> crop_corners((10, 10, 30, 20), (100, 100))
        (8, 3, 32, 27)
    """
    x0, y0, x1, y1 = box
    half = max(x1 - x0, y1 - y0) * CROP_MARGIN / 2
    center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = image_hw
    left = min(max(0, int(center_x - half)), width - 1)
    top = min(max(0, int(center_y - half)), height - 1)
    right, bottom = min(width, int(center_x + half)), min(height, int(center_y + half))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def reference_digest(reference: Reference, models: Models) -> str | None:
    """Sixteen hexadecimal digits that change with whatever a reference's vector depends on, apart from the encoder.

    The image counts by its path, size and time of change; it is not opened. The label does not count, so a reference keeps
    its vector when it is relabelled.

    Args:
        reference: one labelled object.
        models: whose number format computes the vector, and whose segmenter finds the mask of a box.

    Returns:
        The digest, or None where there is no such file.
    """
    try:
        file = os.stat(reference.image)
    except (OSError, ValueError):
        return None
    if reference.mask is None:
        region = ["the segmenter's", models.revisions["sam2"]]
    else:
        mask = np.asarray(reference.mask, bool)
        region = [*map(str, mask.shape), hashlib.sha256(mask.tobytes()).hexdigest()]
    box = [float(side) for side in reference.box]
    path = os.path.abspath(reference.image)
    about = [VECTOR_VERSION, path, file.st_size, file.st_mtime_ns, box, region, str(models.dtype)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def iter_build_prototypes(
    references: Sequence[Reference],
    model: str | Models = "large",
    reuse: Prototypes | None = None,
    negatives: Sequence[Reference] = (),
) -> Generator[Progress, None, Prototypes]:
    """The generator behind build_prototypes: yields after each reference and negative."""
    models = load_models(model) if isinstance(model, str) else model
    if not references:
        raise NoReferencesError("There are no references: label an object of each class and select or tag it.")
    _check_apart(references, negatives)
    known = reuse.known_vectors if reuse is not None and reuse.fingerprint == models.fingerprint else {}
    objects = [*references, *negatives]
    used: list[_Used] = []
    skipped: list[tuple[str, str]] = []
    by_image = groupby(sorted(objects, key=lambda item: item.image), key=lambda item: item.image)
    done = 0
    yield Progress(0, len(objects), "references")
    for _, group in by_image:
        members = list(group)
        # Before the image is read: if it changes meanwhile, the next build sees another digest.
        keys = [(item.id, reference_digest(item, models) or "") for item in members]
        outcomes = _image_vectors(members, [known.get(key) for key in keys], models)
        for item, (_, digest), outcome in zip(members, keys, outcomes, strict=True):
            if isinstance(outcome, str):
                skipped.append((item.id, outcome))
            else:
                used.append(_Used(item, outcome, digest))
            done += 1
            yield Progress(done, len(objects), "references")
    negative_ids = {item.id for item in negatives}
    shown = [item for item in used if item.reference.id not in negative_ids]
    others = [item for item in used if item.reference.id in negative_ids]
    classes = tuple(sorted({reference.label for reference in references}))
    for name in classes:
        if not any(item.reference.label == name for item in shown):
            of_class = {reference.id for reference in references if reference.label == name}
            raise ClassWithoutReferencesError(name, [f"{i}: {why}" for i, why in skipped if i in of_class])
    return Prototypes(
        classes,
        torch.stack([item.vector for item in shown]),
        torch.tensor([classes.index(item.reference.label) for item in shown], dtype=torch.int64),
        tuple(item.reference.id for item in shown),
        models.preset.name,
        models.fingerprint,
        tuple(skipped),
        tuple(item.digest for item in shown),
        _gather_negatives(others) if others else None,
    )


def build_prototypes(
    references: Sequence[Reference],
    model: str | Models = "large",
    *,
    negatives: Sequence[Reference] = (),
    reuse: Prototypes | None = None,
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
        progress: see `refseg.progress.drain`.

    Raises:
        NoReferencesError: there are none.
        ClassWithoutReferencesError: none of a class's references can be used.
        BadReferenceError: an object is both a reference and a negative.
    """
    return drain(iter_build_prototypes(references, model, reuse, negatives), progress)


def _check_apart(references: Sequence[Reference], negatives: Sequence[Reference]) -> None:
    ids = {reference.id for reference in references}
    both = [negative for negative in negatives if negative.id in ids]
    if both:
        more = f" (and {len(both) - 1} more)" if len(both) > 1 else ""
        raise BadReferenceError(
            f"The object {both[0].id} ({both[0].label!r}){more} is both a reference and a negative: take one of the two tags "
            "off it."
        )


@dataclass(frozen=True)
class _Used:
    """A reference or negative, its (C,) vector, and the digest of what this was computed from."""

    reference: Reference
    vector: Tensor
    digest: str


def _gather_negatives(items: Sequence[_Used]) -> Negatives:
    return Negatives(
        torch.stack([item.vector for item in items]),
        tuple(item.reference.label for item in items),
        tuple(item.reference.id for item in items),
        tuple(item.digest for item in items),
    )


def _image_vectors(members: Sequence[Reference], known: Sequence[Tensor | None], models: Models) -> list[Tensor | str]:
    """Vector of each reference in one image, or why it cannot be used; the image is opened for those not known."""
    outcomes: list[Tensor | str] = [vector for vector in known if vector is not None]
    if len(outcomes) == len(members):
        return outcomes
    try:
        image = read_image(members[0].image)
    except ImageError as error:
        return [error.reason if vector is None else vector for vector in known]
    with models.lock:
        return [
            _reference_vector(image, reference, models) if vector is None else vector
            for reference, vector in zip(members, known, strict=True)
        ]


@torch.inference_mode()
def _reference_vector(image: Image.Image, reference: Reference, models: Models) -> Tensor | str:
    """(C,) float32 on the CPU, or the reason why the reference cannot be used."""
    x0, y0, x1, y1 = reference.box
    if not all(map(math.isfinite, reference.box)):
        return "its box is not finite"
    if not (x1 > x0 and y1 > y0) or x1 <= 0 or y1 <= 0 or x0 >= image.width or y0 >= image.height:
        return "its box is empty or lies outside the image"
    if reference.mask is None:
        mask = mask_of_box(image, reference.box, models)
    else:
        mask = paste_mask(reference.mask, reference.box, (image.height, image.width))
    if not mask.any():
        return "its mask is empty"
    corners = crop_corners(reference.box, (image.height, image.width))
    left, top, right, bottom = corners
    pixels = torch.from_numpy(np.array(image.crop(corners))).permute(2, 0, 1)[None].float() / 255
    features = encode_patches(encoder_pixels(pixels.to(models.device), models.preset.encoder_side), models)[0]
    weights = crop_weights(mask[top:bottom, left:right], models.preset.encoder_side, models.patches_side)
    vector = instance_vector(features.float().cpu(), weights)
    return "it is too small or too thin to cover a single patch" if vector is None else vector


def crop_weights(mask: Tensor, encoder_side: int, patches_side: int) -> Tensor:
    """Weight of each patch of a crop: the mask bilinear to E × E, then nearest to G × G (method.md B1).

    Args:
        mask: (h, w) bool, the crop's pixels.
        encoder_side: E.
        patches_side: G.

    Returns:
        (G²,) float32 in [0, 1], row-major.
    """
    fine = F.interpolate(mask[None, None].float(), size=(encoder_side, encoder_side), mode="bilinear", align_corners=False)
    return F.interpolate(fine, size=(patches_side, patches_side), mode="nearest").flatten()


def paste_mask(mask: NDArray[np.bool_], box: Sequence[float], image_hw: tuple[int, int]) -> Tensor:
    """(H, W) bool: the mask stretched over its box, rounded to whole pixels."""
    height, width = image_hw
    x0, y0 = round(box[0]), round(box[1])
    w, h = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
    if mask.shape != (h, w):
        if not mask.size:
            return torch.zeros(height, width, dtype=torch.bool)
        stretched = Image.fromarray(mask.astype(np.uint8) * 255).resize((w, h), Image.Resampling.NEAREST)
        mask = np.asarray(stretched) > 0
    whole = torch.zeros(height, width, dtype=torch.bool)
    top, left, bottom, right = max(0, y0), max(0, x0), min(height, y0 + h), min(width, x0 + w)
    if bottom > top and right > left:
        whole[top:bottom, left:right] = torch.from_numpy(mask[top - y0 : bottom - y0, left - x0 : right - x0].copy())
    return whole


def mask_of_box(image: Image.Image, box: Sequence[float], models: Models) -> Tensor:
    """(H, W) bool: the segmenter's single answer to the box as a prompt."""
    side = models.segmenter_side
    pixels = segmenter_pixels(image, side)[None].to(models.device)
    scale = torch.tensor([side / image.width, side / image.height] * 2)
    prompt = (torch.tensor(box, dtype=torch.float32) * scale)[None].to(models.device)
    logits = decode_boxes(prompt, embed_images(pixels, models), 0, models)
    full = F.interpolate(logits[None].float().cpu(), size=(image.height, image.width), mode="bilinear", align_corners=False)
    return full[0, 0] > 0
