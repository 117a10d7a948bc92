"""What can be found out before a long run: references and their images, disk, and the right to write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CocoError
from ..index import bytes_per_image, free_bytes
from ..models import Preset, get_preset
from ..outputs import require_json, require_png
from ..printing import as_size
from .datasets import find_dataset
from .job import BenchmarkJob, Run, group_of
from .layouts.common import missing_files, shorten
from .reference_files import reference_file_for
from .suite import Problems, Suite

FILES = ("results.json", "table.md", "shots.png")
FOLDERS = ("runs", "detections", "ground_truth", "prototypes", "pictures")
"""What a benchmark writes to its folder."""
NAMED = 5
"""Classes that a message names of many."""
BYTES_A_RESULT = 330
"""Of a detection in a results file."""


def check_references(suite: Suite, runs: Sequence[Run], problems: Problems) -> None:
    """Each class has one at least, and their images are there."""
    wanted: dict[str, None] = {}
    for run in runs:
        without = sorted(name for name, number in run.draw.short.items() if not number)
        relaxed = run.part.rule is not None and run.part.rule.relaxed
        if without and (not relaxed or len(without) == len(run.split.category_ids)):
            where = " ".join(group_of(run.part, run.split))
            problems.add(f"{where}: no object can serve as a reference for {shorten(without, most=NAMED)}: add some.")
        for annotation in run.draw.annotations:
            wanted[run.pool.images[annotation["image_id"]].file_name] = None
    if suite.metric == "miou" and runs:
        wanted |= dict.fromkeys(image.file_name for image in suite.parts[0].targets.images.values())
    gone = missing_files(suite.folder, wanted)
    if gone:
        problems.add(f"Images of references are not in {suite.folder} ({len(gone)} of them): {shorten(gone)}.")


def index_bytes(suite: Suite, preset: Preset, job: BenchmarkJob, notes: list[str]) -> tuple[int, int]:
    """Estimate of what the candidates of all targets take on disk, and what is there already."""
    held = 0
    for part in suite.parts:
        known = find_dataset(suite, part, job)
        held += known.index_bytes(preset.name)
        if not known.exists and known.others:
            others = ", ".join(map(repr, known.others))
            notes.append(f"Of other folders, and not used: {others}. {known.name!r} is made, with an index of its own.")
    return bytes_per_image(preset) * sum(len(part.targets.images) for part in suite.parts), held


def check_disk(job: BenchmarkJob, index_bytes: int, suite: Suite, runs: Sequence[Run], problems: Problems) -> None:
    """There is room for the rest of the index, and of the results."""
    import fiftyone as fo

    results = sum(len(run.part.targets.images) for run in runs if not run.episodes) * suite.max_detections * BYTES_A_RESULT
    # A vector in full and eight of its surroundings in halves.
    prototypes = sum(len(run.draw.annotations) for run in runs) * 20 * get_preset(job.model).feature_width
    there = sum(path.stat().st_size for path in job.out.rglob("*") if path.is_file())
    for what, folder, needed in (
        ("the candidate index", Path(fo.config.default_dataset_dir), index_bytes),
        ("the results", job.out, max(0, results + prototypes - there)),
    ):
        free = free_bytes(str(folder))
        if free is not None and free < needed and not job.insist:
            problems.add(
                f"{folder} has {as_size(free)} left, and {what} may take {as_size(needed)} more: free some, or run fewer "
                "images, shots or seeds, or insist (--insist)."
            )


def check_out(job: BenchmarkJob, suite: Suite | None, runs: Sequence[Run], problems: Problems) -> None:
    """Results can be written, and not over anything that is read."""
    for path in _inputs_of(job, runs):
        if _would_be_taken(job.out, path):
            problems.add(f"{path} would be written over by what goes to {job.out}: name another folder as --out.")
    for image in _images_in(job.out, suite):
        problems.add(f"The image {image} lies where pictures or results go: name another folder than {job.out} as --out.")
        break
    for check, name in ((require_json, "results.json"), (require_png, "shots.png")):
        try:
            check(job.out / name)
        except CocoError as error:
            problems.add(str(error))
    place = _existing(job.out)
    if not place.is_dir():
        problems.add(f"{place} is a file: name a folder as --out.")
    elif not os.access(place, os.W_OK):
        problems.add(f"{place} cannot be written to: name another folder as --out.")


def _inputs_of(job: BenchmarkJob, runs: Sequence[Run]) -> list[Path]:
    """Files that are read, apart from images and those of a released benchmark."""
    paths = {Path(run.pool.source) for run in runs}
    paths |= {path for path in (job.targets, job.sam2_path) if path is not None}
    if job.references is not None:
        paths |= {reference_file_for(job.references, run.shots, run.seed) for run in runs} or {Path(job.references)}
    return sorted(path for path in paths if path.is_file())


def _would_be_taken(out: Path, path: Path) -> bool:
    """Whether a file is one that a benchmark writes, or in a folder of those; links count as what they lead to."""
    place, folder = Path(os.path.realpath(path)), Path(os.path.realpath(out))
    return place in {folder / name for name in FILES} or any(folder / name in place.parents for name in FOLDERS)


def _images_in(out: Path, suite: Suite | None) -> Iterator[str]:
    """Images of targets or references that lie in a folder of what is written."""
    if suite is None:
        return
    folder, home = Path(os.path.realpath(out)), Path(os.path.realpath(suite.folder))
    for place in (folder / name for name in FOLDERS):
        if place.is_relative_to(home) or home.is_relative_to(place):
            begin = "" if home.is_relative_to(place) else f"{place.relative_to(home).as_posix()}/"
            for coco in (coco for part in suite.parts for coco in (part.targets, *part.pools.values())):
                yield from (image.file_name for image in coco.images.values() if image.file_name.startswith(begin))


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())
