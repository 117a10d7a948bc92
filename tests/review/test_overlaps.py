"""IoU of labels of one image, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset.stored_labels import StoredImage
from refseg.review.overlaps import Overlaps

WHOLE = np.ones((10, 10), bool)


def label(x: float, y: float, mask: Any = None, side: float = 0.1, **attributes: Any) -> dict[str, Any]:
    """A square of a tenth of an image's side."""
    return fo.Detection(label="star", bounding_box=[x, y, side, side], mask=mask, **attributes).to_dict()


def half(*, left: bool) -> np.ndarray:
    mask = np.zeros((10, 10), bool)
    mask[:, slice(None, 5) if left else slice(5, None)] = True
    return mask


@pytest.fixture
def overlaps(tmp_path: Path) -> Overlaps:
    """Of an image of 100 by 100 pixels."""
    path = tmp_path / "a.png"
    Image.new("L", (100, 100)).save(path)
    return Overlaps(StoredImage({"filepath": str(path)}))


@pytest.mark.parametrize(
    ("one", "other", "iou"),
    [
        (label(0.1, 0.1, WHOLE), label(0.1, 0.1, WHOLE), 1),
        (label(0.1, 0.1, WHOLE), label(0.1, 0.1, half(left=True)), 1 / 2),
        (label(0.1, 0.1, half(left=False)), label(0.1, 0.1, half(left=True)), 0),
        (label(0.1, 0.1, WHOLE), label(0.15, 0.1, WHOLE), 1 / 3),
        # Without a mask on one side, boxes are compared.
        (label(0.1, 0.1, half(left=True)), label(0.1, 0.1), 1),
        (label(0.1, 0.1), label(0.15, 0.1), 1 / 3),
        (label(0.1, 0.1, np.zeros((10, 10), bool)), label(0.1, 0.1, WHOLE), 1),
        (label(0.1, 0.1, mask_path="/gone.png"), label(0.15, 0.1, WHOLE), 1 / 3),
        # A mask of another size is stretched over its box.
        (label(0.1, 0.1, np.ones((2, 2), bool)), label(0.1, 0.1, half(left=True)), 1 / 2),
        (label(0.1, 0.1, WHOLE), label(0.7, 0.7, WHOLE), 0),
        (label(0.1, 0.1), fo.Detection(label="star").to_dict(), 0),
    ],
)
def test_iou(overlaps: Overlaps, one: Any, other: Any, iou: float) -> None:
    assert overlaps.iou(one, other) == overlaps.iou(other, one) == pytest.approx(iou)


def test_the_mask_of_a_whole_image_needs_no_box(overlaps: Overlaps) -> None:
    whole = np.zeros((100, 100), bool)
    whole[10:20, 10:20] = True
    bare = fo.Detection(label="star", mask=whole).to_dict()
    assert overlaps.has_place(bare)
    assert overlaps.iou(bare, label(0.1, 0.1, WHOLE)) == 1
    assert not overlaps.has_place(fo.Detection(label="star").to_dict())


def test_images_without_a_size_compare_boxes() -> None:
    overlaps = Overlaps(StoredImage({"filepath": "/gone.png"}))
    assert overlaps.iou(label(0.1, 0.1, WHOLE), label(0.1, 0.1, half(left=True))) == 1


def test_masks_are_read_where_boxes_overlap_and_once(overlaps: Overlaps, monkeypatch: pytest.MonkeyPatch) -> None:
    from refseg.review import overlaps as module

    read: list[Any] = []
    whole = module.object_region
    monkeypatch.setattr(module, "object_region", lambda one, hw: read.append(one.id) or whole(one, hw))
    first, near, far = label(0.1, 0.1, WHOLE), label(0.15, 0.1, WHOLE), label(0.7, 0.7, WHOLE)
    for _ in range(2):
        for other in (near, far):
            overlaps.iou(first, other)
    assert sorted(read) == sorted(str(one["_id"]) for one in (first, near))
