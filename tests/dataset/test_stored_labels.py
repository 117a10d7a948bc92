"""Labels and images as MongoDB holds them, read as FiftyOne's own objects are."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from refseg.dataset.labels import object_region, read_mask
from refseg.dataset.stored_labels import StoredImage, as_object, stored_mask
from refseg.errors import MaskError

SQUARE = [[(0.1, 0.1), (0.6, 0.1), (0.6, 0.6), (0.1, 0.6)]]


@pytest.mark.parametrize(
    "label",
    [
        fo.Detection(label="star", bounding_box=[0.1, 0.2, 0.3, 0.4], mask=np.eye(6, dtype=bool)),
        fo.Detection(label="star", bounding_box=[0.1, 0.2, 0.3, 0.4]),
        fo.Detection(label="star", mask=np.eye(20, dtype=bool)),
        fo.Polyline(label="star", points=SQUARE, closed=True, filled=True),
    ],
)
def test_the_same_region(label: Any) -> None:
    (box, mask), (other_box, other_mask) = object_region(label, (20, 20)), object_region(as_object(label.to_dict()), (20, 20))
    assert box == other_box
    assert np.array_equal(mask, other_mask) if mask is not None else other_mask is None


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(6, 4, dtype=bool),
        np.asfortranarray(np.eye(6, 4, dtype=bool)),
        np.eye(6, 4, dtype=np.uint8) * 255,
        np.eye(6, 4),
        np.eye(6, 4, dtype=bool)[:, ::2],
        np.ones((700, 1300), bool),
    ],
)
def test_masks_of_every_kind_are_as_fiftyone_reads_them(mask: Any) -> None:
    held = fo.Detection(label="star", bounding_box=[0.1, 0.2, 0.3, 0.4], mask=mask)
    assert np.array_equal(stored_mask(held.to_dict()), read_mask(fo.Detection.from_dict(held.to_dict())))


def test_masks(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.eye(6, dtype=bool)).save(path)
    held = fo.Detection(label="star", bounding_box=[0.1, 0.2, 0.3, 0.4], mask_path=str(path)).to_dict()
    assert np.array_equal(stored_mask(held), np.eye(6, dtype=bool))
    assert as_object(held, with_mask=False).mask is None
    short = zlib.compress(zlib.decompress(fo.Detection(mask=np.eye(6, dtype=bool)).to_dict()["mask"])[:-3])
    for damage in ({"mask": b"x"}, {"mask": short}, {"mask_path": str(tmp_path / "gone.png")}):
        with pytest.raises(MaskError) as caught:
            stored_mask({**held, **damage})
        assert (caught.value.label_id, caught.value.label) == (str(held["_id"]), "star")


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (8, 6)).save(path)
    assert (StoredImage({"filepath": str(path)}).hw, StoredImage({"filepath": str(path)}).num_pixels) == ((6, 8), 48)
    told = StoredImage({"filepath": str(path), "metadata": {"height": 10, "width": 10}})
    # The file is right about its sides; metadata is enough for their product.
    assert (told.hw, told.num_pixels) == ((6, 8), 100)
