from __future__ import annotations

import numpy as np
import pytest
import torch

from refseg.demo.pool import Pool
from refseg.demo.training import encoder, measures

LABELS = np.zeros((1, 1, 64, 64), np.uint8)
LABELS[0, 0, 8:24, 8:24], LABELS[0, 0, 32:60, 32:60] = 1, 2
SCENES = Pool(np.zeros((1, 1, 64, 64, 3), np.uint8), LABELS)


def test_segmenter_figures_of_made_up_answers(monkeypatch):
    """A perfect mask for object 1, three quarters of object 2, and a click on the tray that answers with object 1."""
    labels = torch.from_numpy(LABELS[0, 0])
    most = (labels == 2).clone()
    most[53:] = False
    masks = torch.stack([labels == 1, most, labels == 1])
    points = torch.tensor([[10.0, 10], [40, 40], [2, 2]])
    monkeypatch.setattr(measures, "_answers", lambda *arguments: (masks, torch.tensor([0.9, 0.7, 0.8]), points))
    figures = measures.measure_segmenter(None, SCENES, side=64)
    assert figures["best_iou"] == pytest.approx((1 + 21 / 28) / 2, abs=1e-3)
    assert figures["recall_50"] == 1
    assert figures["recall_75"] == 0.5
    # The third mask is a repeat of the first, which was surer.
    assert figures["left_iou"] == pytest.approx(figures["best_iou"])
    assert figures["left_75"] == 0.5
    assert figures["kept_on_tray"] == pytest.approx(1 / 3)
    assert figures["rank_correlation_all"] > 0.4
    assert figures["masks"] == 3


def test_no_answer_at_all_is_zero(monkeypatch):
    nothing = torch.zeros(0, 64, 64, dtype=torch.bool), torch.zeros(0), torch.zeros(0, 2)
    monkeypatch.setattr(measures, "_answers", lambda *arguments: nothing)
    figures = measures.measure_segmenter(None, SCENES, side=64)
    zero = ("best_iou", "left_iou", "recall_50", "left_75", "rank_correlation", "kept_on_tray")
    assert [figures[name] for name in zero] == [0] * len(zero)


def test_an_encoder_that_sees_colours_tells_coloured_families_apart(monkeypatch):
    rng = np.random.default_rng(0)
    ids = np.zeros((6, 2, 320, 400), np.uint8)
    images = np.full((6, 2, 320, 400, 3), 127, np.uint8)
    for pair in range(6):
        for family in range(1, 4):
            color = rng.integers(0, 255, 3)
            for view in range(2):
                y, x = 20 + 100 * (family - 1), 40 + 180 * view
                ids[pair, view, y : y + 80, x : x + 80] = family
                images[pair, view, y : y + 80, x : x + 80] = color

    def colors_of_patches(model, pictures):
        side = pictures[0].shape[0] // 14
        patches = np.stack(pictures).reshape(len(pictures), side, 14, side, 14, 3).mean((2, 4))
        return torch.from_numpy(patches.reshape(len(pictures), -1, 3) - 127).float()

    monkeypatch.setattr(encoder, "patch_features", colors_of_patches)
    seeing = measures.measure_encoder(None, Pool(images, ids))
    assert seeing["first_accuracy"] > 0.9
    assert seeing["second_accuracy"] > 0.9
    assert seeing["first_auc"] > 0.9
    monkeypatch.setattr(
        encoder, "patch_features", lambda model, pictures: torch.rand(len(pictures), (pictures[0].shape[0] // 14) ** 2, 3)
    )
    blind = measures.measure_encoder(None, Pool(images, ids))
    assert blind["first_accuracy"] < 0.4
