from __future__ import annotations

import pytest
import torch

from refseg.demo.training.segmenter_losses import EMBEDDING, dense_loss, gaze_loss, mask_loss, token_loss

FIRST = torch.zeros(64)
FIRST[:16] = 1
SECOND = torch.zeros(64)
SECOND[32:64] = 1
OBJECTS = torch.stack([FIRST, SECOND]) > 0.5


def logits_of(*masks: torch.Tensor) -> torch.Tensor:
    """(1, K, 64), sure of each mask."""
    return torch.stack([20 * mask - 10 for mask in masks])[None]


def test_measured_iou_is_with_the_clicked_object():
    logits = logits_of(FIRST, SECOND, 0 * FIRST)
    _, measured = mask_loss(logits, torch.zeros(1, 3), FIRST[None], torch.tensor([1]), OBJECTS)
    assert measured[0].tolist() == pytest.approx([1, 0, 0], abs=1e-4)


def test_beside_all_objects_it_is_with_the_best_one():
    half = SECOND.clone()
    half[:48] = 0
    logits = logits_of(FIRST, half, 0 * FIRST)
    both = torch.cat([logits, logits])
    target = torch.stack([FIRST, 0 * FIRST])
    _, measured = mask_loss(both, torch.zeros(2, 3), target, torch.tensor([1, 0]), OBJECTS)
    assert measured[0].tolist() == pytest.approx([1, 0, 0], abs=1e-4)
    assert measured[1].tolist() == pytest.approx([1, 0.5, 0], abs=1e-4)


def test_beside_objects_too_small_for_the_cells_it_is_zero():
    target = torch.stack([FIRST, 0 * FIRST])
    logits = torch.cat([logits_of(FIRST, FIRST, FIRST)] * 2)
    _, measured = mask_loss(logits, torch.zeros(2, 3), target, torch.tensor([1, 0]), OBJECTS[:0])
    assert measured[1].tolist() == [0, 0, 0]


def test_a_right_mask_and_a_right_prediction_cost_least():
    def cost(mask: torch.Tensor, iou: float) -> float:
        logits = logits_of(mask, mask, mask)
        return float(mask_loss(logits, torch.full((1, 3), iou), FIRST[None], torch.tensor([1]), OBJECTS)[0])

    assert cost(FIRST, 1.0) < 0.01
    assert cost(FIRST, 0.0) == pytest.approx(cost(FIRST, 1.0) + 8, abs=0.01)
    assert cost(SECOND, 0.0) > cost(FIRST, 1.0) + 1


def test_the_best_of_three_masks_counts_most():
    right, wrong = logits_of(FIRST, SECOND, SECOND), logits_of(SECOND, SECOND, SECOND)
    iou = torch.tensor([[1.0, 0, 0]])
    one = mask_loss(right, iou, FIRST[None], torch.tensor([1]), OBJECTS)[0]
    none = mask_loss(wrong, 0 * iou, FIRST[None], torch.tensor([1]), OBJECTS)[0]
    assert one < 0.5 * none


def test_clicks_beside_all_objects_teach_no_mask():
    logits = torch.zeros(2, 3, 64, requires_grad=True)
    loss, _ = mask_loss(logits, torch.zeros(2, 3), torch.stack([FIRST, 0 * FIRST]), torch.tensor([1, 0]), OBJECTS)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


def test_dense_loss_wants_objects_apart_and_in_front():
    torch.manual_seed(0)
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, :4], labels[0, 6:] = 1, 2
    maps = torch.zeros(1, EMBEDDING + 1, 8, 8)
    maps[0, 0][labels[0] == 1], maps[0, 1][labels[0] == 2], maps[0, 2][labels[0] == 0] = 1, 1, 1
    maps[0, EMBEDDING] = torch.where(labels[0] > 0, 9.0, -9.0)
    good = dense_loss(maps, labels)
    mixed = maps.clone()
    mixed[0, :EMBEDDING] = 0
    mixed[0, 0] = 1
    assert good < 0.6 * dense_loss(mixed, labels)
    assert good < dense_loss(torch.cat([maps[:, :EMBEDDING], -maps[:, EMBEDDING:]], 1), labels) - 5


def test_token_loss_is_zero_for_the_truth():
    embedding = torch.nn.functional.normalize(torch.rand(EMBEDDING, 64), dim=0)
    mean = torch.nn.functional.normalize(embedding[:, :16].mean(1), dim=0)
    points = torch.tensor([[0.25, 0.75]])
    told = torch.cat([mean, points[0]])[None, None].expand(1, 3, -1)
    assert token_loss(told, points, embedding, FIRST[None]) == pytest.approx(0, abs=1e-5)
    assert token_loss(-told, points, embedding, FIRST[None]) > 2


def test_gaze_loss_wants_looks_on_the_object():
    def looks(position: int, tokens: int) -> tuple[torch.Tensor, ...]:
        look = torch.zeros(1, tokens, 4)
        look[:, :, position] = 1
        return (look, look, look)

    assert gaze_loss(looks(0, 7), FIRST[None]) == pytest.approx(0, abs=1e-3)
    assert gaze_loss(looks(1, 7), FIRST[None]) > 20
    # Of a box the first attention is left out, and so are its corners.
    assert gaze_loss(looks(1, 8), FIRST[None]) == pytest.approx(float(gaze_loss(looks(1, 7), FIRST[None])) * 2 / 3, rel=0.01)
