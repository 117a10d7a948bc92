"""The published code path, and the library against it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.baseline import (
    DECODER,
    ENCODER,
    POOLING,
    SEGMENTER_ENCODER,
    StageClock,
    eager_encoder,
    pool_by_upsampling,
    propose_as_published,
    roll_out,
)
from benchmarks.equality import compare
from benchmarks.random_models import ask_at, copy_models, draw_pixels
from refseg.candidates.proposing import Candidates, propose_from_pixels
from refseg.errors import ModelError, ShapeError
from refseg.models.loaded import Models, load_models
from tests.tolerance import assert_near

POINTS = 6


@pytest.fixture(scope="module")
def models() -> Models:
    return ask_at(load_models("demo", device="cpu", dtype=torch.float32), POINTS)


@pytest.fixture(scope="module")
def pixels(models: Models) -> Tensor:
    return draw_pixels(1, models.segmenter_side)


@pytest.fixture(scope="module")
def baseline(models: Models, pixels: Tensor) -> Candidates:
    return propose_as_published(pixels[0], models)


class TestProposeAsPublished:
    @pytest.mark.parametrize("add_no_memory", [True, False])
    def test_the_library_gives_the_same_candidates(
        self, models: Models, pixels: Tensor, baseline: Candidates, add_no_memory: bool
    ) -> None:
        asked = replace(models, preset=replace(models.preset, add_no_memory=add_no_memory, clean_masks=False, vote_masks=False))
        expected = baseline if add_no_memory else propose_as_published(pixels[0], asked)
        exact = propose_from_pixels(pixels, [(models.segmenter_side,) * 2], asked)[0]
        found = compare(exact, expected)
        assert 4 <= found.num_pairs < POINTS**2
        assert found.num_strays == 0
        assert found.min_iou >= 0.99
        assert found.feature_excess <= 1e-4
        assert found.iou_difference <= 1e-4
        if not add_no_memory:
            other = compare(exact, baseline)
            assert other.num_strays > 0 or other.iou_difference > 1e-3

    def test_stages_are_most_of_the_time(self, models: Models, pixels: Tensor) -> None:
        clock, whole = StageClock(models.device), StageClock(models.device)
        with whole("all"):
            propose_as_published(pixels[0], ask_at(models, 2), encoder=eager_encoder(models), clock=clock)
        assert list(clock.seconds) == [SEGMENTER_ENCODER, DECODER, ENCODER, POOLING]
        assert min(clock.seconds.values()) > 0
        assert 0.5 * whole.seconds["all"] < sum(clock.seconds.values()) <= whole.seconds["all"]

    def test_other_dtypes_are_refused(self, models: Models, pixels: Tensor) -> None:
        with pytest.raises(ModelError, match=r"runs in float32, but the models are in torch\.bfloat16"):
            propose_as_published(pixels[0], copy_models(models, dtype=torch.bfloat16))

    def test_other_shapes_are_refused(self, models: Models, pixels: Tensor) -> None:
        with pytest.raises(ShapeError, match=r"of shape \(3, 320, 320\), not \(1, 3, 320, 320\)"):
            propose_as_published(pixels, models)


def test_eager_encoder_hands_out_maps_and_leaves_the_models_alone(models: Models) -> None:
    encoder = eager_encoder(models)
    some = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answer = encoder(some, output_attentions=True)
        expected = models.dinov2(some).last_hidden_state
    config = models.dinov2.config
    assert [maps.shape for maps in answer.attentions] == [(1, config.num_attention_heads, 17, 17)] * config.num_hidden_layers
    assert_near(answer.last_hidden_state, expected, at_most=1e-4)
    assert config._attn_implementation == "sdpa"
    assert encoder.layernorm.weight.data_ptr() == models.dinov2.layernorm.weight.data_ptr()


class TestRollOut:
    def test_by_hand(self) -> None:
        even = torch.tensor([[[[0.5, 0.5], [0.5, 0.5]]]])  # with identity and scaled: ¾ and ¼
        heads = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]])  # likewise: (1, 0) and (¼, ¾)
        assert_near(roll_out((heads, even)), torch.tensor([[0.8125, 0.1875], [0.4375, 0.5625]]))

    def test_rows_sum_to_one(self) -> None:
        generator = torch.Generator().manual_seed(0)
        maps = tuple(torch.rand(1, 3, 7, 7, generator=generator).softmax(-1) for _ in range(4))
        assert_near(roll_out(maps).sum(1), torch.ones(7))


class TestPoolByUpsampling:
    def test_by_hand(self) -> None:
        # Two patches a side, a feature that is 1 on the left and one that is 1 on the right; four cells a side.
        patches = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        masks[0, :, 0], masks[1, :, 1] = True, True  # the second column of cells is at ¼ of the way: (¾, ¼)
        pooled = pool_by_upsampling(masks, patches)
        length = 10**0.5
        assert_near(pooled, torch.tensor([[1.0, 0.0], [3 / length, 1 / length], [0.0, 0.0]]))

    def test_no_masks(self) -> None:
        assert pool_by_upsampling(torch.zeros(0, 4, 4, dtype=torch.bool), torch.ones(4, 3)).shape == (0, 3)
