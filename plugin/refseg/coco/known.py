"""What `refseg coco` learns from images that are known: those of references, and those that hold none of the classes.

Costs one pass of the segmenter an image. No FiftyOne.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..calibration import FINDS_HELD, Mined, Teacher, best_mined, join_surroundings, known_object, mine, spread
from ..candidates import PackedCandidates, pack
from ..errors import CocoError
from ..masks import summary_of
from ..matching import Matcher, look_at_file
from ..progress import Progress
from ..prototypes import KnownObject, Prototypes, Reference, Surroundings, image_key, look_around
from .files import CocoImage, read_coco
from .images import Proposer, scan

MAX_HELD = 200
"""Images of references whose candidates are held until they are segmented themselves: each takes a few megabytes."""


@dataclass(frozen=True)
class KnownImages:
    """Images of which is known what they hold.

    Attributes:
        shown: objects in the images of references, by path; crowds have no id. None where thresholds are not to be calibrated.
        empty: path of each image that holds none of the classes.
        held: paths of images whose candidates will be asked for again.
    """

    shown: Mapping[str, Sequence[Reference]]
    empty: Sequence[str]
    held: Collection[str] = ()

    @property
    def paths(self) -> list[str]:
        """Of all images to be looked at."""
        return [*self.shown, *self.empty]


@dataclass
class Seen:
    """What was seen in them.

    Attributes:
        surroundings: by path.
        mined: what was taken for a class in an empty image, whatever its score.
        candidates: of images that will be asked for again, by path.
        skipped: path and reason of each image that could not be looked at.
        num_empty: images known to be empty that were.
    """

    surroundings: dict[str, Surroundings] = field(default_factory=dict)
    mined: list[Mined] = field(default_factory=list)
    candidates: dict[str, PackedCandidates] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    num_empty: int = 0


def find_empty(place: Path, images: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Path of each image known to hold none of some classes.

    Args:
        place: a folder, or a COCO file of images in the folder of images.
        images: that folder.
        classes: of the references.

    Raises:
        CocoError: there is no such place, no image in it, or the file lists an object of one of the classes, or one
            that cannot be read.
    """
    if place.is_dir():
        return tuple(str(place / image.file_name) for image in scan(place).images.values())
    listed = read_coco(place, bad_masks="box")
    unread = [refused for refused in listed.left_out if not refused.mask_alone]
    if unread:
        raise CocoError(f"{place} may list objects of the classes in images that are to be empty: {summary_of(unread)}")
    for annotation in listed.annotations:
        label = listed.categories[annotation["category_id"]]
        if label in classes:
            name = listed.images[annotation["image_id"]].file_name
            raise CocoError(f"{place} lists an object of the class {label!r} in {name}, which is not empty then: leave it out.")
    if not listed.images:
        raise CocoError(f"{place} lists no image known to be empty.")
    return tuple(str(images / image.file_name) for image in listed.images.values())


def iter_look(
    known: KnownImages, prototypes: Prototypes, make_matcher: Callable[[Prototypes], Matcher], proposer: Proposer
) -> Generator[Progress, None, Seen]:
    """Look at images that are known: yields after each batch.

    Args:
        known: the images.
        prototypes: of the references.
        make_matcher: makes prototypes ready, with thresholds of 0.
        proposer: makes candidates.
    """
    seen = Seen()
    counted = {known.empty[row] for row in spread(len(known.empty))} if known.shown else set()
    paths, done = known.paths, 0
    matcher: Matcher | None = None
    yield Progress(0, len(paths), "known images")
    # These paths begin where the program was started, not in the folder of images.
    proposer = replace(proposer, folder=Path())
    teacher = Teacher(prototypes, proposer.models.preset)
    with closing(proposer.propose([CocoImage(path, path) for path in paths])) as batches:
        for batch in batches:
            for proposed in batch:
                path = str(proposed.image.id)
                if proposed.candidates is None:
                    seen.skipped.append((path, proposed.error))
                    continue
                candidates = proposed.candidates
                packed = candidates if isinstance(candidates, PackedCandidates) else pack(candidates, fine=True)
                if path in known.shown or path in counted:
                    again = partial(look_at_file, path, packed, models=proposer.models, pixels=proposer.pixels)
                    looks = teacher.looks(packed, image_key(path), again)
                    objects = _objects(packed, known.shown.get(path, ()), prototypes)
                    seen.surroundings[path] = look_around(packed, objects, image_key(path), looks)
                if path in known.held and len(seen.candidates) < MAX_HELD:
                    seen.candidates[path] = packed
                if path not in known.shown:
                    # All images of references come first: what they taught decides what is taken for a class.
                    matcher = matcher or make_matcher(calibrated(prototypes, seen))
                    seen.num_empty += 1
                    looked = look_at_file(path, packed, matcher.to_look_at(packed), proposer.models, proposer.pixels)
                    seen.mined.append(mine(packed, matcher, prototypes.classes, image_key(path), path, looked))
                    if len(seen.mined) == FINDS_HELD:
                        seen.mined = [best_mined(seen.mined)]
            done += len(batch)
            yield Progress(done, len(paths), "known images")
    return seen


def calibrated(prototypes: Prototypes, seen: Seen) -> Prototypes:
    """The prototypes with what was seen around their references; the very same where nothing was."""
    if not any(name for around in seen.surroundings.values() for name in around.shown):
        return prototypes
    return replace(prototypes, surroundings=join_surroundings(list(seen.surroundings.values())))


def _objects(packed: PackedCandidates, objects: Sequence[Reference], prototypes: Prototypes) -> list[KnownObject]:
    known = [known_object(_id_of(item, prototypes), item.extent, item.mask, packed) for item in objects]
    return [item for item in known if item is not None]


def _id_of(item: Reference, prototypes: Prototypes) -> str:
    return item.id if item.id in prototypes.reference_ids else ""
