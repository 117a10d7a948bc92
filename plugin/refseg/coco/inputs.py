"""What `refseg coco` reads and where it writes, checked before any work. No FiftyOne."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CocoError, ImageError
from ..images import PixelSettings, find_pixels, pixel_settings, read_image_hw
from ..masks import ImageId, Refusal, summary_of
from ..matching import NAMES_FILE, holds_maps, is_map, map_paths
from ..outputs import check_outputs, draft_of, require_json, require_replaceable
from ..printing import listing
from ..prototypes import Reference, require_own
from .files import CocoDataset, marked_where_bare, read_coco, with_file_sizes
from .images import check_scanned, scan
from .job import CocoJob
from .known import find_empty
from .references import crowds_in, references_in

logger = logging.getLogger(__name__)

NEGATIVE = "negative "
"""With which the ids of negatives begin here: they come from a file that may use the ids of the references' file."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The files of a job, read.

    Attributes:
        references: that show the classes.
        negatives: that show what is none of them.
        crowds: of the references' file.
        empty: paths of images known to hold none of the classes.
        targets: images to be segmented, with their objects where they are known.
        category_ids: of the targets, by class.
        maps: where the map of each target goes; none without maps.
        pixels: how all images are read.
        files: of references and negatives.
    """

    references: Sequence[Reference]
    negatives: Sequence[Reference]
    crowds: Sequence[Reference]
    empty: Sequence[str]
    targets: CocoDataset
    category_ids: Mapping[str, int]
    maps: Mapping[ImageId, Path]
    pixels: PixelSettings
    files: Sequence[CocoDataset]

    def left_out(self, targets: CocoDataset) -> tuple[Refusal, ...]:
        """What cannot be used of the files and of these targets; one file may be named twice."""
        return tuple(dict.fromkeys(one for file in (*self.files, targets) for one in file.left_out))

    def notes(self, targets: CocoDataset, hint: str | None) -> tuple[str, ...]:
        """What was put in place of values that cannot be used, and a hint where there is one."""
        notes = [note for file in (*self.files, targets) for note in file.notes]
        return tuple(dict.fromkeys([*notes, *([hint] if hint else [])]))


def read_inputs(job: CocoJob) -> Inputs:
    """Read the files of a job, and refuse what would stop it later.

    Raises:
        CocoError: see `running.run_coco`.
    """
    if not job.images.is_dir():
        raise CocoError(f"There is no folder of images at {job.images}.")
    shown_file = _read_shown(job, job.references)
    references = references_in(shown_file, job.images)
    negative_file = None if job.negatives is None else _read_shown(job, job.negatives)
    negatives = [] if negative_file is None else _negatives_in(negative_file, job.images)
    labels = sorted({reference.label for reference in references})
    empty = () if job.empty is None else find_empty(job.empty, job.images, labels)
    if job.targets is None:
        found = scan(job.images)
        targets = CocoDataset(found.source, found.images, dict(enumerate(labels, 1)), ())
    else:
        targets = _read_targets(job, job.targets)
    category_ids = _category_ids(labels, targets)
    targets = _without_some_masks(targets, set(category_ids.values()), strict=job.strict)
    shown_images = [*empty, *(item.image for item in (*references, *negatives))]
    listed_images = [str(job.images / image.file_name) for image in targets.images.values()]
    maps = _check_outputs(job, targets, shown_images, listed_images)
    pixels = find_pixels([*shown_images, *listed_images], pixel_settings(job.pixel_range, job.channels))
    return Inputs(
        references,
        negatives,
        crowds_in(shown_file, job.images),
        empty,
        targets,
        category_ids,
        maps,
        pixels,
        [shown_file] if negative_file is None else [shown_file, negative_file],
    )


def _check_outputs(
    job: CocoJob, targets: CocoDataset, shown_images: Sequence[str], listed_images: Sequence[str]
) -> dict[ImageId, Path]:
    """Refuse outputs that would replace what is not theirs, or become inputs of the next run; where maps go."""
    outputs = _outputs_of(job)
    check_outputs(outputs | _outputs_of_maps(job), _inputs_of(job), (*listed_images, *shown_images))
    maps = _check_maps(job, targets, shown_images)
    pictures = dict.fromkeys(maps.values(), "--semantic") | {path: name for name, path in outputs.items()}
    check_scanned(pictures, _scanned_by(job))
    for path in outputs.values():
        _check_writable(path, are_prototypes=path == job.prototypes, is_list=path == job.out)
    return maps


def _read_shown(job: CocoJob, path: Path) -> CocoDataset:
    """A file of objects to be shown."""
    return with_file_sizes(read_coco(path, strict=job.strict), job.images, strict=job.strict)


def _read_targets(job: CocoJob, path: Path) -> CocoDataset:
    """A file of targets; all that may be wrong with its ground truth is found here, before the work."""
    targets = read_coco(path, bad_masks="box", strict=job.strict)
    sizes = {}
    for image_id in dict.fromkeys(entry["image_id"] for entry in targets.annotations):
        image = targets.images[image_id]
        if image.image_hw is None:
            with suppress(ImageError):  # it is skipped when its turn comes, and said
                sizes[image_id] = read_image_hw(job.images / image.file_name)
    return targets.with_sizes(sizes, strict=job.strict)


def _without_some_masks(targets: CocoDataset, category_ids: Collection[int], *, strict: bool) -> CocoDataset:
    """Where some objects of these classes have a mask, those that have none are named, and count by their boxes alone."""
    marked, named = marked_where_bare(targets, category_ids)
    if named and strict:
        raise CocoError(summary_of(named))
    if named:
        logger.warning("%s", summary_of(named))
    return marked


def _negatives_in(negatives: CocoDataset, images: Path) -> list[Reference]:
    return [replace(reference, id=NEGATIVE + reference.id) for reference in references_in(negatives, images)]


def _outputs_of(job: CocoJob) -> dict[str, Path]:
    """Files that are written, apart from maps, by what they are called."""
    listing = None if job.targets is not None else job.out.with_suffix(".images.json")
    named = {
        "--out": job.out,
        "the list of images beside --out": listing,
        "--report": job.report,
        "--prototypes": job.prototypes,
    }
    return {name: path for name, path in named.items() if path is not None}


def _outputs_of_maps(job: CocoJob) -> dict[str, Path]:
    return {} if job.semantic is None else {f"{NAMES_FILE} of --semantic": job.semantic / NAMES_FILE}


def _inputs_of(job: CocoJob) -> dict[str, Path]:
    """Files that are read, apart from images, by what they are called."""
    named = {
        "--references": job.references,
        "--targets": job.targets,
        "--negatives": job.negatives,
        "--empty": job.empty,
        "--sam2-path": job.sam2_path,
        "--dinov2-path": job.dinov2_path,
    }
    # Of a folder of empty images these are what is read, not, for example, an earlier report.
    folder = job.empty is not None and job.empty.is_dir()
    return {name: path for name, path in named.items() if path is not None and not (folder and name == "--empty")}


def _scanned_by(job: CocoJob) -> dict[str, Path]:
    """Folders of which every image is read, by what they are called."""
    named = {"--images": None if job.targets is not None else job.images, "--empty": job.empty}
    return {name: path for name, path in named.items() if path is not None and path.is_dir()}


def _check_maps(job: CocoJob, targets: CocoDataset, others: Sequence[str]) -> dict[ImageId, Path]:
    """Where the map of each target goes; none is to take the place of an image."""
    if job.semantic is None:
        return {}
    if job.semantic.exists() and not job.semantic.is_dir():
        raise CocoError(f"{job.semantic} is a file: name a folder for the maps.")
    images = list(targets.images.values())
    paths = map_paths(job.semantic, [image.file_name for image in images])
    taken = {os.path.realpath(path) for path in (*(str(job.images / image.file_name) for image in images), *others)}
    files = set(map(os.path.realpath, [*_inputs_of(job).values(), *_outputs_of(job).values()]))
    for path in paths:
        if os.path.realpath(path) in taken:
            raise CocoError(f"The map {path} would take the place of an image: choose another folder than that of the images.")
        if os.path.realpath(path) in files:
            raise CocoError(f"The map {path} would take the place of another file that is named: choose another folder.")
        require_replaceable(path, "a map of classes", is_map)
    if not holds_maps(job.semantic):
        held = next((path for path in (job.semantic / NAMES_FILE, *paths) if path.exists()), None)
        if held is not None:
            raise CocoError(f"{held} would be replaced, and is not from an earlier run: choose another folder for the maps.")
    # Two entries may list one file, whose map is the same.
    shared: dict[str, str] = {}
    for image, path in zip(images, paths, strict=True):
        file = os.path.realpath(job.images / image.file_name)
        if shared.setdefault(str(path).lower(), file) == file:
            continue
        raise CocoError(
            f"Two images of {targets.source} would have one map in {job.semantic}, because their names differ in '..' alone: "
            "put them into one folder."
        )
    _check_writable(job.semantic / NAMES_FILE)
    return {image.id: path for image, path in zip(images, paths, strict=True)}


def _category_ids(labels: Sequence[str], targets: CocoDataset) -> dict[str, int]:
    by_name = {name: category_id for category_id, name in targets.categories.items()}
    for label in labels:
        if label not in by_name:
            raise CocoError(
                f"The references show the class {label!r}, which is not in the categories of {targets.source} "
                f"({listing(list(by_name))}): add it there, or leave its references out."
            )
    if not targets.images:
        raise CocoError(f"{targets.source} lists no image to segment.")
    return {label: by_name[label] for label in labels}


def _check_writable(path: Path, *, are_prototypes: bool = False, is_list: bool = False) -> None:
    """Find out before the work that a result cannot be written."""
    if path.is_dir():
        raise CocoError(f"{path} is a folder: name a file to write.")
    if are_prototypes:
        require_own(path)
    else:
        require_json(path, is_list=is_list)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    draft.touch()
    draft.unlink()
