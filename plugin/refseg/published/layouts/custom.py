"""Any two COCO files: one of references, one of targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...coco import CocoDataset, has_masks, marked_where_bare, with_file_sizes
from ..suite import ANY_SHOTS, Part, Problems, Split, Suite
from .common import LeftOut, check_targets, ids_of_names, note, read, shorten, with_sizes


def find(
    images: Path,
    references: Path,
    targets: Path,
    problems: Problems,
    classes: Sequence[str] | None = None,
    *,
    left_out: LeftOut | None = None,
) -> Suite | None:
    """A benchmark of one's own. The two files may number their classes differently: names decide.

    Args:
        images: folder that the file names of both files are relative to.
        references: COCO file.
        targets: COCO file; images without height and width are opened to learn them.
        problems: takes what is missing.
        classes: names; by default all that the references show.
        left_out: takes what cannot be used and is left out.
    """
    if not images.is_dir():
        problems.add(f"There is no folder of images {images}: is the path right?")
    pool = read(references, problems, left_out)
    found = read(targets, problems, left_out, bad_masks="box")
    if pool is None or found is None:
        return None
    check_targets(images, found, problems)
    found = with_sizes(images, found, problems, left_out)
    sized = with_file_sizes(pool, images)
    note(sized.left_out[len(pool.left_out) :], pool.source, left_out)
    pool = sized
    shown = {pool.categories[entry["category_id"]] for entry in pool.annotations}
    unknown = sorted(shown - set(found.categories.values())) if classes is None else []
    if unknown:
        problems.add(
            f"{found.source} has no class {shorten([repr(name) for name in unknown])}, which {pool.source} has references of: "
            "add it there, or choose classes."
        )
    category_ids = ids_of_names(sorted(shown - set(unknown)) if classes is None else classes, found, problems)
    if not category_ids:
        problems.add(f"{pool.source} and {found.source} share no class to look for: give the classes the same names.")
        return None
    found, bare = marked_where_bare(found, category_ids)
    note(bare, found.source, left_out)
    split = Split("all" if classes is None else "chosen", category_ids)
    masks = has_masks(entry for entry in found.annotations if entry["category_id"] in category_ids)
    figures = ("box AP", "mask AP") if masks else ("box AP",)
    part = Part("", found, (split,), {ANY_SHOTS: _renumber(pool, found)}, rule=None)
    return Suite("custom", "Own data", images, (part,), (ANY_SHOTS,), "coco", figures)


def _renumber(pool: CocoDataset, targets: CocoDataset) -> CocoDataset:
    """References with the targets' category ids; those of classes that the targets do not have are left out."""
    number_of = {name: category_id for category_id, name in targets.categories.items()}
    new = {old: number_of[name] for old, name in pool.categories.items() if name in number_of}
    known = [entry for entry in pool.annotations if entry["category_id"] in new]
    kept = tuple({**entry, "category_id": new[entry["category_id"]]} for entry in known)
    return replace(pool, categories=dict(targets.categories), annotations=kept)
