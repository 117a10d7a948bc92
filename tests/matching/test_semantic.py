"""Maps of classes: what lies on top, how many bits, and where each goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refseg.matching.instances import Instances
from refseg.matching.semantic import map_paths, semantic_map, write_map


def instances(*placed: tuple[tuple[int, int, int, int], int, float]) -> Instances:
    """Instances of a full rectangle each, less its first pixel, as (box, label row, score)."""
    masks = []
    for (x0, y0, x1, y1), _, _ in placed:
        mask = torch.ones(y1 - y0, x1 - x0, dtype=torch.bool)
        mask[0, 0] = False
        masks.append(mask)
    scores = torch.tensor([score for _, _, score in placed])
    return Instances(
        tuple(masks),
        torch.tensor([box for box, _, _ in placed], dtype=torch.int64).reshape(-1, 4),
        torch.tensor([row for _, row, _ in placed], dtype=torch.int64),
        scores,
        torch.arange(len(placed)),
        margins=scores,
        runners_up=torch.full((len(placed),), -1),
    )


class TestSemanticMap:
    def test_best_score_on_top(self) -> None:
        canvas = semantic_map(instances(((0, 0, 4, 4), 1, 0.9), ((2, 0, 6, 4), 0, 0.8)), (5, 7))
        expected = np.zeros((5, 7), int)
        expected[:4, 2:6] = 1
        expected[0, 2] = 0
        expected[:4, :4] = 2
        # The first pixel of each is left out of its mask: nothing lies under (0, 0), the second's corner lies under the first.
        expected[0, 0] = 0
        np.testing.assert_array_equal(canvas, expected)

    def test_many_classes(self) -> None:
        assert semantic_map(instances(((0, 0, 2, 2), 999, 0.9)), (2, 2)).tolist() == [[0, 1000], [1000, 1000]]

    def test_none(self) -> None:
        canvas = semantic_map(instances(), (5, 7))
        assert canvas.shape == (5, 7)
        assert not canvas.any()


@pytest.mark.parametrize(("num_classes", "mode"), [(255, "L"), (256, "I;16")])
def test_a_map_comes_back(tmp_path: Path, num_classes: int, mode: str) -> None:
    canvas = np.array([[0, num_classes], [1, 2]], np.uint16)
    write_map(tmp_path / "new" / "a.png", canvas, num_classes)
    with Image.open(tmp_path / "new" / "a.png") as read:
        assert read.mode == mode
        np.testing.assert_array_equal(np.asarray(read), canvas)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_paths_stay_in_the_folder_and_apart() -> None:
    names = ["a/1.jpg", "b/1.jpg", "/far/away/2.tif", "../../3.png", "4.JPG", "4.png", "no_ending"]
    paths = [path.as_posix() for path in map_paths(Path("maps"), names)]
    assert paths == [
        "maps/a/1.png",
        "maps/b/1.png",
        "maps/far/away/2.png",
        "maps/3.png",
        "maps/4.JPG.png",
        "maps/4.png.png",
        "maps/no_ending.png",
    ]
    assert map_paths(Path("maps"), []) == []
