"""What all layouts need: files read or missed, images looked for, classes chosen and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from ...coco import BadMasks, CocoDataset, mark_bare, read_coco
from ...errors import CocoError, ImageError
from ...images import read_image_hw
from ...masks import Refusal
from ...printing import counted
from ..suite import Problems

LeftOut: TypeAlias = dict[str, list[Refusal]]
"""Annotations that cannot be used, by the file they are in: runs go on without them."""

SHOWN = 3
"""Names of missing files or classes that a message shows."""


def read(
    path: Path,
    problems: Problems,
    left_out: LeftOut | None = None,
    *,
    hint: str = "",
    bad_masks: BadMasks = "leave out",
) -> CocoDataset | None:
    """An annotation file, without the annotations that cannot be used; None, and a problem, where the file cannot.

    Args:
        path: the file.
        problems: takes what is wrong.
        left_out: takes what cannot be used; it is logged in any case.
        hint: where a missing file comes from, a clause.
        bad_masks: see `read_coco`.
    """
    if not require(path, problems, hint):
        return None
    try:
        coco = read_coco(path, bad_masks=bad_masks)
    except CocoError as error:
        problems.add(str(error))
        return None
    note(coco.left_out, str(path), left_out)
    return coco


def require(path: Path, problems: Problems, hint: str = "") -> bool:
    """Whether a file is there; else a problem that says where it comes from."""
    if path.is_file():
        return True
    problems.add(f"There is no file {path}: {hint + '.' if hint else 'is the path right?'}")
    return False


def note(unusable: Sequence[Refusal], source: str, left_out: LeftOut | None) -> None:
    """Record annotations of a file that cannot be used."""
    if unusable and left_out is not None:
        left_out.setdefault(source, []).extend(unusable)


def find_file(places: Sequence[Path]) -> Path | None:
    """The first of several files that is there."""
    return next((place for place in places if place.is_file()), None)


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of some file names, in their order, that are not under a folder. Each folder on the way is listed once."""
    listed: dict[str, frozenset[str]] = {}
    missing = []
    for name in names:
        inner, _, base = name.rpartition("/")
        if inner not in listed:
            listed[inner] = names_in(folder / inner)
        if base not in listed[inner]:
            missing.append(name)
    return missing


def names_in(folder: Path) -> frozenset[str]:
    """What a folder holds; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


def check_targets(folder: Path, targets: CocoDataset, problems: Problems, hint: str = "") -> None:
    """Note target images that are listed and not on disk, and that there are any at all."""
    if not targets.images:
        problems.add(f"{targets.source} lists no image: export it again.")
    missing = missing_files(folder, (image.file_name for image in targets.images.values()))
    if missing:
        problems.add(
            f"{len(missing)} of the {len(targets.images)} target images of {targets.source} are not in {folder}: "
            f"{shorten(missing)}: {hint or 'add them, or take them off the list'}."
        )


def rename(coco: CocoDataset, name_of: Callable[[str], str]) -> CocoDataset:
    """With file names that begin elsewhere."""
    images = {image_id: replace(image, file_name=name_of(image.file_name)) for image_id, image in coco.images.items()}
    return replace(coco, images=images)


def within(folder: str) -> Callable[[str], str]:
    """Puts a folder before a name that has none.

    Example:
        >>> within("val2017")("7.jpg"), within("val2017")("train2017/7.jpg")
        ('val2017/7.jpg', 'train2017/7.jpg')
    """
    return lambda name: name if "/" in name else f"{folder}/{name}"


def of_classes(coco: CocoDataset, category_ids: Collection[int]) -> CocoDataset:
    """Only the annotations of these classes: a pool of a large training set needs no others, which take gigabytes."""
    wanted = frozenset(category_ids)
    return replace(coco, annotations=tuple(entry for entry in coco.annotations if entry["category_id"] in wanted))


def with_masks(coco: CocoDataset, left_out: LeftOut | None = None, *, boxes_count: bool = True) -> CocoDataset:
    """Of a benchmark that is published with masks: objects that have none, which would be the end of the figures of masks.

    Args:
        coco: targets.
        left_out: see `read`.
        boxes_count: such an object counts by its box; else it is left out.
    """
    kept, bare = mark_bare(coco.annotations, coco.source, "has no mask.", boxes_count=boxes_count)
    note(bare, coco.source, left_out)
    return replace(coco, annotations=kept, left_out=(*coco.left_out, *bare))


def with_sizes(folder: Path, targets: CocoDataset, problems: Problems, left_out: LeftOut | None = None) -> CocoDataset:
    """With the height and width of every image: of its file where the annotations list none."""
    sizes, unread = {}, []
    for image_id, image in targets.images.items():
        if image.image_hw is not None:
            continue
        try:
            sizes[image_id] = read_image_hw(folder / image.file_name)
        except ImageError as error:
            unread.append(f"{image.file_name} ({error.reason})")
    if unread:
        problems.add(
            f"{targets.source} lists no height and width for {counted(len(unread), 'image')} that cannot be read either: "
            f"{shorten(unread)}: add the images or their sizes."
        )
    sized = targets.with_sizes(sizes)
    note(sized.left_out[len(targets.left_out) :], targets.source, left_out)
    return sized


def choose(only: Sequence[str] | None, known: Sequence[str], problems: Problems, what: str) -> list[str]:
    """Those of the known names that are asked for, in their order; all by default. Others are a problem."""
    if only is None:
        return list(known)
    unknown = [name for name in dict.fromkeys(only) if name not in known]
    if unknown:
        problems.add(f"There is no {what} {', '.join(map(repr, unknown))}: choose of {', '.join(known)}.")
    chosen = [name for name in known if name in only]
    if not chosen and not unknown:
        problems.add(f"No {what} is chosen: choose of {', '.join(known)}.")
    return chosen


def ids_of_names(names: Sequence[str], coco: CocoDataset, problems: Problems) -> tuple[int, ...]:
    """Category ids of class names, ascending; names that the file does not list are a problem."""
    by_name = {name: category_id for category_id, name in coco.categories.items()}
    unknown = [name for name in dict.fromkeys(names) if name not in by_name]
    if unknown:
        problems.add(
            f"{coco.source} has no class {', '.join(map(repr, unknown))}: choose of {shorten(sorted(by_name), most=100)}."
        )
    return tuple(sorted(by_name[name] for name in set(names) - set(unknown)))


def check_same_classes(pool: CocoDataset, targets: CocoDataset, category_ids: Iterable[int], problems: Problems) -> None:
    """Note classes that are not called the same under one id in the pool as in the targets."""
    check_names(pool, {category_id: targets.categories[category_id] for category_id in category_ids}, problems)


def check_names(coco: CocoDataset, names: Mapping[int, str], problems: Problems) -> None:
    """Note classes that a file does not list under their published id and name."""
    wrong = []
    for category_id, name in names.items():
        found = coco.categories.get(category_id)
        if found != name:
            wrong.append(f"{name!r} has the id {category_id} and is " + ("not listed" if found is None else f"{found!r} there"))
    if wrong:
        problems.add(f"{coco.source} does not list the expected classes: {shorten(wrong, '; ')}: is it the released file?")


def shorten(entries: Sequence[str], separator: str = ", ", most: int = SHOWN) -> str:
    """The first few of a list, for a message.

    Example:
        >>> shorten(["a", "b", "c", "d"])
        'a, b, c, …'
    """
    return separator.join([*entries[:most], *(["…"] if len(entries) > most else [])])
