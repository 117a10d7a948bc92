"""CD-FSOD's six datasets as they are released: COCO files of 1, 5 and 10 shots and of the test images, boxes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...coco import CocoDataset
from ..classes import CD_FSOD
from ..suite import Part, Problems, Split, Suite
from .common import LeftOut, check_targets, choose, names_in, read, rename, with_sizes

SHOTS = (1, 5, 10)
FOLDERS = ("images", "JPEGImages", "")
"""Where images lie that are neither in train nor in test; "" is the dataset's own folder."""


def find(data: Path, problems: Problems, only: Sequence[str] | None = None, *, left_out: LeftOut | None = None) -> Suite | None:
    """CD-FSOD: a part for each dataset, with the references of its own files.

    The segmentation of every annotation is removed: in many of these files it is the box once more.

    Args:
        data: folder with a folder for each dataset.
        problems: takes what is missing.
        only: names of datasets; by default all six.
        left_out: takes what cannot be used and is left out.
    """
    parts = []
    for name in choose(only, list(CD_FSOD), problems, "dataset"):
        if not (data / name).is_dir():
            problems.add(f"There is no folder {data / name}: add the dataset, or leave {name} out.")
            continue
        part = _part(data, name, problems, left_out)
        if part is not None:
            parts.append(part)
    return Suite("cd-fsod", "CD-FSOD", data, tuple(parts), SHOTS, "coco", ("box AP",)) if parts else None


def _part(data: Path, name: str, problems: Problems, left_out: LeftOut | None) -> Part | None:
    hint = f"take {name}'s annotations of the CD-FSOD release"
    targets = read(data / name / "annotations" / "test.json", problems, left_out, hint=hint, bad_masks="ignore")
    pools = {}
    for shot in SHOTS:
        pool = read(data / name / "annotations" / f"{shot}_shot.json", problems, left_out, hint=hint, bad_masks="ignore")
        if pool is not None:
            pools[shot] = _place(pool, data, name, ("train", *FOLDERS, "test"))
    if targets is None:
        return None
    shown = {entry["category_id"] for coco in (targets, *pools.values()) for entry in coco.annotations}
    # Some tools list a class of no object, such as a background: it is none.
    classes = tuple(sorted(targets.categories if len(targets.categories) == CD_FSOD[name] else shown))
    if len(classes) != CD_FSOD[name]:
        problems.add(
            f"{targets.source} has {len(targets.categories)} classes, but {name} is published with {CD_FSOD[name]}: "
            "take the file of the CD-FSOD release."
        )
    targets = _place(targets, data, name, ("test", *FOLDERS, "train"))
    check_targets(data, targets, problems, f"add them to {data / name / 'test'}")
    targets = with_sizes(data, targets, problems, left_out)
    for pool in pools.values():
        _compare(pool, targets, problems)
    if not pools:
        return None
    return Part(name, targets, (Split("all", classes),), pools, rule=None)


def _place(coco: CocoDataset, data: Path, name: str, folders: Sequence[str]) -> CocoDataset:
    """With file names relative to the folder of all datasets: each in the first of these folders that has the file."""
    listed = {folder: names_in(data / name / folder) for folder in folders}

    def place(file_name: str) -> str:
        path = PurePosixPath(file_name.replace("\\", "/"))
        if len(path.parts) > 1 and not path.is_absolute() and (data / name / path).is_file():
            return f"{name}/{path}"
        found = next((folder for folder in folders if path.name in listed[folder]), folders[0])
        return str(PurePosixPath(name, found, path.name))

    return rename(coco, place)


def _compare(pool: CocoDataset, targets: CocoDataset, problems: Problems) -> None:
    """Note where two files do not give the same classes the same ids."""
    differing = sorted(
        {
            name
            for category_id in {*pool.categories, *targets.categories}
            for name in (pool.categories.get(category_id), targets.categories.get(category_id))
            if name is not None and pool.categories.get(category_id) != targets.categories.get(category_id)
        }
    )
    if differing:
        problems.add(
            f"{pool.source} and {targets.source} disagree on the id of {', '.join(map(repr, differing))}: "
            "take both files of one release."
        )
