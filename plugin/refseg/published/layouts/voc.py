"""VOCdevkit as it unpacks: 2007 and 2012, one XML file an image, boxes alone. Reading all 21,500 files takes seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ...coco import CocoDataset, CocoImage
from ...masks import ImageId, Refusal, refusal, summary_of
from ...regular_files import open_regular, read_regular_text
from ..classes import VOC_CLASSES, VOC_NOVEL
from ..suite import ANY_SHOTS, Part, Problems, Split, Suite
from .common import LeftOut, check_targets, choose, note, shorten, with_sizes

logger = logging.getLogger(__name__)

CATEGORIES = dict(enumerate(VOC_CLASSES, 1))
"""Name by id: VOC's own files have no ids."""
POOL = (("2007", "trainval"), ("2012", "trainval"))
TARGETS = (("2007", "test"),)
ARCHIVES = {
    ("2007", "trainval"): "VOCtrainval_06-Nov-2007.tar",
    ("2007", "test"): "VOCtest_06-Nov-2007.tar",
    ("2012", "trainval"): "VOCtrainval_11-May-2012.tar",
}


def find(data: Path, problems: Problems, only: Sequence[str] | None = None, *, left_out: LeftOut | None = None) -> Suite | None:
    """VOC: references of trainval 2007 and 2012, targets of test 2007.

    An image's id is its year and its name: "2007_000001". Objects marked difficult are never in the pool; in the targets they
    are annotations with "difficult": 1.

    Args:
        data: the folder VOCdevkit, or the one it lies in.
        problems: takes what is missing.
        only: of "split1" … "split3"; by default all.
        left_out: takes what cannot be used and is left out.
    """
    chosen = choose(only, list(VOC_NOVEL), problems, "split")
    folder = data / "VOCdevkit" if (data / "VOCdevkit").is_dir() else data
    pool = _read(folder, POOL, problems, left_out, difficult=False)
    targets = _read(folder, TARGETS, problems, left_out, difficult=True)
    if pool is None or targets is None or not chosen:
        return None
    check_targets(folder, targets, problems, f"unpack {ARCHIVES[TARGETS[0]]} there")
    targets = with_sizes(folder, targets, problems, left_out)
    number_of = {name: number for number, name in CATEGORIES.items()}
    splits = tuple(Split(key, tuple(sorted(number_of[name] for name in VOC_NOVEL[key]))) for key in chosen)
    part = Part("", targets, splits, {ANY_SHOTS: pool})
    return Suite("voc-fsod", "Pascal VOC", folder, (part,), (1, 2, 3, 5, 10), "voc", ("box AP50",))


@dataclass
class _Read:
    """What the files of some image sets hold."""

    images: dict[ImageId, CocoImage] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    unusable: list[Refusal] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def _read(
    folder: Path, sets: Sequence[tuple[str, str]], problems: Problems, left_out: LeftOut | None, *, difficult: bool
) -> CocoDataset | None:
    """Image sets as one dataset; None where the list of one is missing."""
    read, complete = _Read(), True
    for year, chosen in sets:
        root = folder / f"VOC{year}"
        names = _names(root / "ImageSets" / "Main" / f"{chosen}.txt", ARCHIVES[year, chosen], problems)
        complete = complete and names is not None
        for name in names or ():
            _read_file(root / "Annotations" / f"{name}.xml", f"{year}_{name}", f"VOC{year}/JPEGImages/{name}.jpg", read)
    if read.broken:
        problems.add(
            f"{len(read.broken)} annotation files cannot be read: {shorten(read.broken, '; ')}: "
            "unpack them from the archive again."
        )
    source = f"{folder} ({', '.join(f'VOC{year} {chosen}' for year, chosen in sets)})"
    if read.unusable:
        logger.warning("%s", summary_of(read.unusable))
    note(read.unusable, source, left_out)
    kept = [annotation for annotation in read.annotations if difficult or not annotation["difficult"]]
    return CocoDataset(source, read.images, dict(CATEGORIES), tuple(kept), tuple(read.unusable)) if complete else None


def _names(path: Path, archive: str, problems: Problems) -> list[str] | None:
    try:
        lines = read_regular_text(path).splitlines()
    except (OSError, UnicodeDecodeError):
        problems.add(f"There is no list of images {path} that can be read: unpack {archive} beside the folder VOCdevkit.")
        return None
    return [line.split()[0] for line in lines if line.split()]


def _read_file(path: Path, image_id: str, file_name: str, read: _Read) -> None:
    try:
        with open_regular(path) as stream:
            tree = ElementTree.parse(stream).getroot()
    except FileNotFoundError:
        read.broken.append(f"{path} is missing")
        return
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        read.broken.append(f"{path} ({error})")
        return
    height, width = _number(tree, "size/height"), _number(tree, "size/width")
    image_hw = (int(height), int(width)) if height and width and height >= 1 and width >= 1 else None
    read.images[image_id] = CocoImage(image_id, file_name, image_hw)
    for position, entry in enumerate(tree.findall("object"), 1):
        label = (entry.findtext("name") or "").strip()
        if label not in VOC_CLASSES:
            reason = f"is of the class {label!r}, which VOC does not have."
            read.unusable.append(refusal(str(path), f"object {position}", "name", label, reason))
            continue
        corners = [_number(entry, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
        box = _xywh(corners)
        if box is None:
            reason = f"({label}) has no usable box, but {corners}."
            read.unusable.append(refusal(str(path), f"object {position}", "bndbox", corners, reason))
            continue
        read.annotations.append(
            {
                "id": len(read.annotations) + 1,
                "image_id": image_id,
                "category_id": VOC_CLASSES.index(label) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "difficult": int(_number(entry, "difficult") == 1),
            }
        )


def _xywh(corners: Sequence[float | None]) -> list[float] | None:
    """x, y, width and height, from 0, of corners that count from 1 and both belong to the box; None where there is no box."""
    known = [corner for corner in corners if corner is not None]
    if len(known) < 4 or known[2] < known[0] or known[3] < known[1]:
        return None
    x0, y0, x1, y1 = known
    return [x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1]


def _number(element: ElementTree.Element, path: str) -> float | None:
    try:
        value = float(element.findtext(path) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
