"""Twice as large a file is twice the work, told by the steps that the interpreter takes in RefSeg's own code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PIL import Image

import refseg
from refseg.coco.files import parse_coco, with_file_sizes
from refseg.coco.inputs import marked_where_bare
from refseg.coco.references import references_in
from refseg.masks import rle

OWN = str(Path(refseg.__file__).parent)
SMALL = 60


def steps_of(action: Callable[[], Any]) -> int:
    """How many bytecodes of RefSeg's an action runs."""
    number = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal number
        if not frame.f_code.co_filename.startswith(OWN):
            return None
        frame.f_trace_opcodes = True
        number += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return number


def document(number: int, kind: str) -> dict[str, Any]:
    categories = [{"id": row, "name": f"c{row}"} for row in range(number)]
    entries = [
        {"id": row, "image_id": 1, "category_id": row, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]}
        for row in range(number)
    ]
    for row, (category, entry) in enumerate(zip(categories, entries, strict=True)):
        if kind == "twins":
            category["name"] = f"c{row // 2}"
            entry["category_id"] = row // 2 * 2
        elif kind == "one id":
            entry["id"] = 7
        elif kind == "texts":
            entry |= {"id": str(row), "image_id": "1", "category_id": str(row), "bbox": ["1", "1", "5", "5"]}
        elif kind == "refused":
            entry |= {"bbox": None, "segmentation": [[1, 1]]}
        elif kind == "half of them bare" and row % 2:
            del entry["segmentation"]
    images = [{"id": 1, "file_name": "a.png"}]
    return {"images": images, "categories": categories, "annotations": entries}


@pytest.mark.parametrize("kind", ["plain", "twins", "one id", "texts", "refused", "half of them bare"])
def test_work_grows_with_the_file(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (20, 12)).save(tmp_path / "a.png")

    def read(number: int) -> None:
        found = with_file_sizes(parse_coco(document(number, kind), "a.json"), tmp_path)
        marked_where_bare(found, found.categories.keys())
        if found.annotations:
            references_in(found, tmp_path)

    read(2)  # what is imported and kept at first
    small, large = (steps_of(lambda number=number: read(number)) for number in (SMALL, 2 * SMALL))
    assert 1.5 < large / small < 2.5


def test_many_classes_of_one_name_each() -> None:
    """Half of them say that they are the class of objects; all else that is done with them is too little to hide the rest."""

    def read(number: int) -> None:
        categories = [
            {"id": row, "name": f"c{row // 2}", "supercategory": f"c{row // 2}" if row % 2 else "none"} for row in range(number)
        ]
        assert len(parse_coco({"images": [], "categories": categories}, "a.json").categories) == number // 2

    small, large = (steps_of(lambda number=number: read(number)) for number in (200, 400))
    assert 1.5 < large / small < 2.5


def test_masks_are_decoded_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (20, 12)).save(tmp_path / "a.png")
    given: list[int] = []
    decode = rle.run_lengths

    def counting(codes: Any) -> Any:
        given.append(len(codes))
        return decode(codes)

    monkeypatch.setattr(rle, "run_lengths", counting)
    references = references_in(parse_coco(document(1100, "plain"), "a.json"), tmp_path)
    assert all(reference.mask is not None and reference.mask.all() for reference in references)
    assert given == [512, 512, 76]
