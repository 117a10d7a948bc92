"""What the benchmarks on real photographs share: files that the product reads, its answers, and IoU by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from benchmarks.one_photograph import FILE_NAME, Held, as_coco, draw_found, find_like, hold, overlaps
from refseg.candidates import propose
from refseg.coco import read_references, write_json
from refseg.images import RIGHT, WRONG
from refseg.masks import encode_crop
from refseg.models import load_models

HW = (20, 30)


def square(x: int, y: int, width: int, height: int, image_hw: tuple[int, int] = HW) -> NDArray[np.bool_]:
    mask = np.zeros(image_hw, bool)
    mask[y : y + height, x : x + width] = True
    return mask


def code(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return encode_crop(mask, (0, 0), mask.shape)


def test_product_reads_the_references(tmp_path: Path) -> None:
    masks = [square(2, 3, 5, 4), square(10, 0, 20, 20)]
    masks[0][4, 4] = False
    Image.new("RGB", HW[::-1]).save(tmp_path / FILE_NAME)
    write_json(tmp_path / "references.json", as_coco(masks, HW, "coin"))
    first, second = read_references(tmp_path / "references.json", tmp_path, strict=True)
    assert (first.label, second.label) == ("coin", "coin")
    assert (first.box, second.box) == ((2, 3, 7, 7), (10, 0, 30, 20))
    np.testing.assert_array_equal(first.mask, masks[0][3:7, 2:7])


def test_overlaps() -> None:
    left, right, both = (code(mask) for mask in (square(0, 0, 4, 5), square(4, 0, 4, 5), square(0, 0, 8, 5)))
    assert overlaps([left, both], [left, right]).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert overlaps([], [left, right]).shape == (0, 2)
    assert overlaps([left], []).shape == (1, 0)


def test_best_candidate_of_each_object() -> None:
    objects = [code(square(0, 0, 4, 5)), code(square(4, 0, 4, 5)), code(square(20, 10, 5, 5))]
    held = Held([code(square(0, 0, 8, 5)), code(square(4, 0, 4, 5))], np.array([0]))
    assert held.best(objects).tolist() == [0.5, 1.0, 0.0]
    assert held.best(objects, after_nms=True).tolist() == [0.5, 0.5, 0.0]
    assert Held([], np.array([], np.int64)).best(objects).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.thorough
def test_candidates_of_a_photograph(tiles: bool) -> None:
    models = load_models("demo")
    photograph = Image.fromarray(data.coins()).convert("RGB").resize((500, 400))
    held = hold(photograph, models, tiles=tiles)
    whole = int(propose([photograph], models)[0].filled.sum())
    assert (len(held.codes) > whole) if tiles else (len(held.codes) == whole)
    assert 0 < len(held.left) < len(held.codes)
    assert len(set(held.left.tolist())) == len(held.left)
    assert held.left.max() < len(held.codes)
    assert all(tuple(one["size"]) == (photograph.height, photograph.width) for one in held.codes)


def test_found_by_the_product() -> None:
    photograph = Image.fromarray(data.coins()).convert("RGB")
    shown = square(186, 105, 40, 39, (photograph.height, photograph.width))
    found = find_like(photograph, [shown], "coin", "demo", tiles=False)
    scores = [entry["score"] for entry in found]
    assert found
    assert scores == sorted(scores, reverse=True)
    # The preset's threshold, and no other: calibration needs two images.
    assert min(scores) >= load_models("demo").preset.min_confidence
    assert overlaps([entry["segmentation"] for entry in found], [code(shown)]).shape == (len(found), 1)


def test_best_instances_lie_on_top() -> None:
    entries = [{"score": score, "segmentation": code(square(x, 0, 4, 5))} for score, x in ((0.91, 0), (0.72, 8))]
    # As they stand in a results file.
    entries[1]["segmentation"]["counts"] = entries[1]["segmentation"]["counts"].decode()
    last, first = draw_found(entries, [RIGHT, WRONG], " no coin")
    assert (last.color, last.caption, last.box) == (WRONG, "0.72 no coin", (8, 0, 12, 5))
    assert (first.color, first.caption, first.box) == (RIGHT, "0.91", (0, 0, 4, 5))
    assert first.mask.all()
