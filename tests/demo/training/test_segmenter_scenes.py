from __future__ import annotations

import numpy as np
import pytest
import torch

from refseg.demo.pool import Pool
from refseg.demo.training import segmenter_scenes
from refseg.demo.training.segmenter_scenes import BOXES, CLICKS, covered, draw_shown


@pytest.fixture
def pools() -> dict[str, Pool]:
    ids = np.zeros((1, 1, 320, 400), np.uint8)
    ids[0, 0, 40:160, 30:140], ids[0, 0, 180:300, 200:380] = 1, 2
    images = np.repeat((ids * 80 + 40)[..., None], 3, -1)
    return {"plain": Pool(images, ids), "leaves": Pool(images, ids)}


@pytest.mark.parametrize("side", [160, 320])
def test_prompts_lie_where_they_say(pools, side, monkeypatch):
    monkeypatch.setattr(segmenter_scenes, "photograph_again", lambda rng, picture: picture)
    for seed in range(8):
        shown = draw_shown(np.random.default_rng(seed), pools, side)
        assert shown.picture.shape == (side, side, 3)
        assert shown.labels.shape == (side, side)
        assert shown.points.shape == (CLICKS, 2)
        assert shown.corners.shape == (BOXES, 2, 2)
        assert shown.boxed.min() > 0
        x, y = shown.points.long().T
        assert torch.equal(shown.labels[y, x].long(), shown.clicked)
        for corners, number in zip(shown.corners, shown.boxed, strict=True):
            rows, columns = (shown.labels == number).nonzero().T
            true = torch.tensor([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
            assert ((corners - true).abs() <= 0.1 * (true[1] - true[0]) + 1e-3).all()
        # Bright where the labels are: the picture and its labels were cut, turned and mirrored alike.
        bright = torch.from_numpy(shown.picture.astype(np.float32)).mean(-1)
        assert bright[shown.labels > 0].mean() > bright[shown.labels == 0].mean() + 20


def test_leaves_have_no_clicks_beside_objects(pools):
    assert all((draw_shown(np.random.default_rng(s), {"leaves": pools["leaves"]}, 160).clicked > 0).all() for s in range(4))
    assert any((draw_shown(np.random.default_rng(s), {"plain": pools["plain"]}, 160).clicked == 0).any() for s in range(4))


def test_covered_shares():
    labels = torch.zeros(8, 8, dtype=torch.uint8)
    labels[:4, :6] = 3
    shares = covered(labels, torch.tensor([3, 0]))
    assert shares[0].tolist() == [[1, 0.5], [0, 0]]
    assert shares[1].tolist() == [[0, 0.5], [1, 1]]
