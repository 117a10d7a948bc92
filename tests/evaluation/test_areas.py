"""Areas of objects, each worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from bson import ObjectId
from PIL import Image

from refseg.dataset.stored_labels import StoredImage
from refseg.errors import ImageError, LabelError
from refseg.evaluation.areas import area_of

HW = (60, 80)
"""Height and width of the images."""


def stored(path: str = "none.png", *, hw: tuple[int, int] | None = HW) -> StoredImage:
    """An image that is known by its metadata alone."""
    metadata = None if hw is None else {"height": hw[0], "width": hw[1]}
    return StoredImage({"filepath": path, "metadata": metadata})


def document(box: Any, mask: Any = None, **attributes: Any) -> dict[str, Any]:
    """A Detection as MongoDB has it."""
    if isinstance(mask, np.ndarray):
        mask = fo.Detection(mask=mask).to_dict()["mask"]
    return {"_id": ObjectId(), "_cls": "Detection", "label": "star", "bounding_box": box, "mask": mask, **attributes}


def half(height: int, width: int) -> np.ndarray:
    """A mask whose left half is set."""
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


BOX = [10 / 80, 20 / 60, 8 / 80, 6 / 60]
"""8 pixels wide and 6 high."""


@pytest.mark.parametrize(
    ("mask", "area"),
    [
        (half(6, 8), 24.0),
        # A pixel of rounding on each side changes nothing, a mask of another size is stretched.
        (half(7, 8), 28.0),
        (half(60, 80), 24.0),
        (np.ones((3, 4), bool), 48.0),
        (np.zeros((6, 8), bool), 0.0),
        (half(6, 8).astype(float), 24.0),
        (None, 48.0),
    ],
)
def test_inside_the_image(mask: Any, area: float) -> None:
    found = area_of(document(BOX, mask), stored())
    assert found == (pytest.approx(area), "")


def test_the_image_is_not_read_where_its_metadata_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even its first bytes; which side is which does not matter."""
    monkeypatch.setattr("refseg.dataset.labels.read_image_hw", lambda path: pytest.fail("the file is opened"))
    for hw in (HW, HW[::-1]):
        assert area_of(document(BOX), stored(hw=hw))[0] == pytest.approx(48)


def test_without_metadata_the_file_tells(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (80, 60)).save(path)
    assert area_of(document(BOX), stored(str(path), hw=None))[0] == pytest.approx(48)
    with pytest.raises(ImageError, match=r"none\.png"):
        area_of(document(BOX), stored(hw=None))


@pytest.mark.parametrize(
    ("box", "mask", "area"),
    [
        ([-4 / 80, 0, 8 / 80, 6 / 60], None, 24.0),
        ([-4 / 80, 0, 8 / 80, 6 / 60], half(6, 8), 0.0),
        ([76 / 80, 57 / 60, 8 / 80, 6 / 60], np.ones((6, 8), bool), 12.0),
        # The mask of a whole image needs no box.
        ([], half(*HW), 2400.0),
    ],
)
def test_beyond_the_image_nothing_counts(box: Any, mask: Any, area: float) -> None:
    assert area_of(document(box, mask), stored()) == (pytest.approx(area), "")


def test_a_polyline_has_the_area_that_it_surrounds() -> None:
    square = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    for points, area in (([square], 40 * 30), ([square[:3]], 40 * 30 / 2)):
        line = fo.Polyline(label="star", points=points, closed=True, filled=True).to_dict()
        assert area_of(line, stored())[0] == pytest.approx(area, rel=0.06)


def test_masks_in_files(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(half(6, 8)).save(path)
    assert area_of(document(BOX, mask_path=str(path)), stored()) == (24.0, "")


@pytest.mark.parametrize("box", [BOX, [-4 / 80, 0, 8 / 80, 6 / 60]])
def test_what_cannot_be_read_counts_by_its_box(tmp_path: Path, box: Any) -> None:
    area = area_of(document(box), stored())[0]
    gone = str(tmp_path / "gone.png")
    assert area_of(document(box, mask_path=gone), stored()) == (area, f"its mask's file {gone} does not exist")
    damaged, reason = area_of(document(box, b"no mask"), stored())
    assert damaged == area
    assert reason.startswith("its mask cannot be read (")


@pytest.mark.parametrize("box", [None, [0.1, 0.1, 0.0, 0.1], [1.5, 0, 0.1, 0.1], ["a"] * 4, [float("nan")] * 4])
def test_an_object_without_a_place(box: Any) -> None:
    for mask in (None, b"no mask"):
        with pytest.raises(LabelError):
            area_of(document(box, mask), stored())
