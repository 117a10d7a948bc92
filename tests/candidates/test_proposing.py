from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from refseg.candidates.decoding import ImageEmbeddings, decode_boxes, decode_points, embed_images
from refseg.candidates.grids import (
    drop_near_duplicates,
    grid_boxes,
    interpolation_matrix,
    patch_weights,
    pool_features,
    share_in_groups,
    shares_of,
)
from refseg.candidates.prompts import prompt_grid
from refseg.candidates.proposing import Candidates, encode_patches, propose, propose_from_pixels
from refseg.demo.world import draw_family, render_scene
from refseg.errors import ShapeError
from refseg.images.reading import MEAN, STD, encoder_pixels, segmenter_pixels
from refseg.models.loaded import Models, load_models
from tests.synthetic import GRID, box_mask
from tests.tolerance import assert_near

SIDE = 256


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models("demo", device="cpu", dtype=torch.float32)


def make_image(seed: int, image_hw: tuple[int, int] = (120, 160)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(render_scene(rng, [draw_family(rng) for _ in range(4)], image_hw).image)


def embed(image: Image.Image, models: Models) -> ImageEmbeddings:
    return embed_images(segmenter_pixels(image, SIDE)[None], models)


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask at 5 × 5 points: what is tested does not depend on their number, the time it takes does."""
    monkeypatch.setattr("refseg.candidates.decoding.prompt_grid", lambda per_side, side: prompt_grid(5, side))


@pytest.fixture
def keep_every_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may depend on how sure of its masks a segmenter is."""
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)


def random_candidates(count: int, seed: int = 0) -> Candidates:
    """Noise on a grid of 12 × 12 cells."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 12, 12, generator=generator) + torch.linspace(-1, 1, count)[:, None, None]
    return Candidates(logits, torch.rand(count, generator=generator), torch.ones(count, 3), (5, 7))


class TestCandidates:
    def test_masks_are_where_logits_are_positive(self) -> None:
        logits = torch.tensor([[[1.0, 0.0], [-1.0, 2.0]]])
        found = Candidates(logits, torch.ones(1), torch.ones(1, 3), (5, 7))
        assert found.masks.tolist() == [[[True, False], [False, True]]]
        assert len(found) == 1

    @pytest.mark.parametrize("counts", [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
    def test_disagreeing_parts_are_refused(self, counts: tuple[int, int, int]) -> None:
        with pytest.raises(ShapeError, match="there are {}, {} and {}".format(*counts)):
            Candidates(torch.zeros(counts[0], 4, 4), torch.zeros(counts[1]), torch.zeros(counts[2], 3), (5, 7))

    def test_filled_are_those_with_a_cell(self) -> None:
        logits = torch.full((3, 4, 4), -1.0)
        logits[1, 2, 3], logits[2] = 1.0, 0.0
        assert Candidates(logits, torch.ones(3), torch.ones(3, 3), (5, 7)).filled.tolist() == [False, True, False]

    def test_parts_of_some_masks(self) -> None:
        candidates = random_candidates(6)
        rows = torch.tensor([4, 1, 1])
        assert candidates.grid_side == 12
        assert torch.equal(candidates.logits_of(rows), candidates.logits[rows])
        for box, row in zip(candidates.boxes_of(rows).tolist(), rows, strict=True):
            ys, xs = candidates.masks[row].nonzero().T
            assert box == [xs.min(), ys.min(), xs.max(), ys.max()]

    def test_crops_are_slices(self) -> None:
        candidates = random_candidates(6)
        crops = candidates.crops(torch.tensor([4, 1]), [(2, 3, 7, 12), (0, 0, 1, 1)])
        assert torch.equal(crops[0], candidates.logits[4, 3:12, 2:7])
        assert torch.equal(crops[1], candidates.logits[1, :1, :1])

    def test_shares_are_those_of_its_masks(self) -> None:
        candidates = random_candidates(9)
        rows, groups = torch.tensor([8, 2, 5, 0]), torch.tensor([1, 0, 1, 1])
        wanted = torch.tensor([True, True, False, True])
        masks = candidates.masks[rows]
        expected = share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).numpy(), groups, wanted)
        np.testing.assert_array_equal(candidates.shares(rows, groups, wanted), expected)

    def test_of_nothing(self) -> None:
        nothing = random_candidates(0)
        rows = torch.zeros(0, dtype=torch.int64)
        assert nothing.boxes_of(rows).shape == (0, 4)
        assert nothing.crops(rows, []) == []
        assert nothing.shares(rows, rows, rows.bool()).shape == (0, 0)


def share_plainly(masks: Tensor, groups: Tensor, wanted: Tensor) -> list[list[float]]:
    """Pair by pair."""
    count = len(masks)
    answer = [[0.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(count):
            alone = int((groups == groups[i]).sum()) == 1
            if wanted[i] and groups[i] == groups[j] and not alone and masks[i].any():
                answer[i][j] = float((masks[i] & masks[j]).sum() / masks[i].sum())
    return answer


class TestShares:
    def test_by_hand(self) -> None:
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        masks[0, :2], masks[1, 1] = True, True  # eight cells, and four of which all lie in them; the third is empty
        assert shares_of(masks, masks).tolist() == [[1, 0.5, 0], [1, 1, 0], [0, 0, 0]]

    def test_of_nothing(self) -> None:
        masks = torch.ones(3, 4, 4, dtype=torch.bool)
        assert shares_of(masks[:0], masks).shape == (0, 3)
        assert shares_of(masks, masks[:0]).shape == (3, 0)

    @pytest.mark.parametrize("seed", range(3))
    def test_in_groups_are_a_loop_over_pairs(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        masks = random_candidates(14, seed).masks
        masks[3] = False
        groups = torch.randint(0, 5, (14,), generator=generator) * 7 - 3
        wanted = torch.rand(14, generator=generator) > 0.4
        found = share_in_groups(lambda some, others: shares_of(masks[some], masks[others]).numpy(), groups, wanted)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, share_plainly(masks, groups, wanted), rtol=0, atol=1e-6)
        assert (found > 0).any()

    def test_in_groups_asks_for_nothing_it_does_not_need(self) -> None:
        asked: list[tuple[list[int], list[int]]] = []

        def share(some: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
            asked.append((some.tolist(), others.tolist()))
            return np.ones((len(some), len(others)), np.float32)

        groups, wanted = torch.tensor([0, 1, 0, 1, 2]), torch.tensor([True, False, True, False, True])
        found = share_in_groups(share, groups, wanted)
        assert asked == [([0, 2], [0, 2])]  # none of group 1 is wanted, and 2 has one member
        assert found.tolist() == [[1, 0, 1, 0, 0], [0] * 5, [1, 0, 1, 0, 0], [0] * 5, [0] * 5]

    def test_in_groups_of_nothing(self) -> None:
        none = torch.zeros(0, dtype=torch.int64)
        assert share_in_groups(lambda some, others: np.zeros((0, 0), np.float32), none, none.bool()).shape == (0, 0)


def drop_plainly(masks: Tensor, predicted_iou: Tensor, max_iou: float) -> list[int]:
    """One mask after the other, best first; of equally good ones the first."""
    kept: list[int] = []
    for row in sorted(range(len(masks)), key=lambda row: -float(predicted_iou[row])):
        for other in kept:
            both, either = int((masks[row] & masks[other]).sum()), int((masks[row] | masks[other]).sum())
            if either and both / either >= max_iou:
                break
        else:
            kept.append(row)
    return sorted(kept)


def families(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Masks of which several are nearly the same, and predicted IoUs of which several are equal."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(count // 4, 20, 20, generator=generator) > 0.5
    masks = first[torch.randint(0, len(first), (count,), generator=generator)]
    # The more cells are flipped the less two of a family agree: from 0.88 to 1.
    flips = torch.rand(count, 20, 20, generator=generator) < 0.03 * torch.rand(count, 1, 1, generator=generator)
    return masks ^ flips, torch.randint(0, 6, (count,), generator=generator) / 6


class TestDropNearDuplicates:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("max_iou", [0.9, 0.95, 1.0])
    def test_is_a_greedy_loop(self, seed: int, max_iou: float) -> None:
        masks, predicted = families(40, seed)
        found = drop_near_duplicates(masks, predicted, max_iou)
        assert found.dtype == torch.int64
        assert found.tolist() == drop_plainly(masks, predicted, max_iou)
        if max_iou < 1:
            assert 10 <= len(found) < 40

    def test_of_equally_good_ones_the_first_stays(self) -> None:
        masks = torch.ones(3, 4, 4, dtype=torch.bool)
        assert drop_near_duplicates(masks, torch.tensor([0.5, 0.5, 0.5]), 0.95).tolist() == [0]
        assert drop_near_duplicates(masks, torch.tensor([0.5, 0.6, 0.6]), 0.95).tolist() == [1]

    def test_what_a_dropped_mask_resembles_stays(self) -> None:
        # Twenty cells in a row, each mask two cells further: 18 / 22 for neighbours, 16 / 24 for the ends.
        masks = torch.zeros(3, 1, 24, dtype=torch.bool)
        for row in range(3):
            masks[row, 0, 2 * row : 2 * row + 20] = True
        assert drop_near_duplicates(masks, torch.tensor([0.9, 0.8, 0.7]), 0.8).tolist() == [0, 2]
        assert drop_near_duplicates(masks, torch.tensor([0.8, 0.9, 0.7]), 0.8).tolist() == [1]

    def test_an_iou_of_just_the_limit_nearly_coincides(self) -> None:
        masks = torch.zeros(2, 1, 20, dtype=torch.bool)
        masks[0, 0], masks[1, 0, :19] = True, True
        assert drop_near_duplicates(masks, torch.tensor([0.9, 0.8]), 0.95).tolist() == [0]
        masks[1, 0, 18] = False
        assert drop_near_duplicates(masks, torch.tensor([0.9, 0.8]), 0.95).tolist() == [0, 1]

    def test_empty_masks_stay(self) -> None:
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        assert drop_near_duplicates(masks, torch.tensor([0.5, 0.9, 0.7]), 0.95).tolist() == [0, 1, 2]

    def test_order_of_the_masks_permutes_the_rows(self) -> None:
        masks, _ = families(40, 9)
        predicted = torch.rand(40, generator=torch.Generator().manual_seed(9))
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
        found = drop_near_duplicates(masks, predicted, 0.95)
        permuted = drop_near_duplicates(masks[order], predicted[order], 0.95)
        assert sorted(order[permuted].tolist()) == found.tolist()
        assert bool((permuted.diff() > 0).all())

    def test_changes_nothing_it_was_given(self) -> None:
        masks, predicted = families(40, 2)
        before = masks.clone(), predicted.clone()
        drop_near_duplicates(masks, predicted, 0.95)
        assert torch.equal(masks, before[0])
        assert torch.equal(predicted, before[1])

    def test_of_nothing(self) -> None:
        assert drop_near_duplicates(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0), 0.95).shape == (0,)


class TestPromptGrid:
    def test_row_major_from_corner_to_corner(self) -> None:
        points = prompt_grid(3, 101)
        assert points.tolist() == [[x, y] for y in (0.5, 50.5, 100.5) for x in (0.5, 50.5, 100.5)]
        assert points.dtype == torch.float32

    @pytest.mark.parametrize(("per_side", "side"), [(16, 256), (32, 1024)])
    def test_shape(self, per_side: int, side: int) -> None:
        points = prompt_grid(per_side, side)
        assert points.shape == (per_side**2, 2)
        assert points.max() == side - 0.5


class TestPooling:
    def test_interpolation_by_hand(self) -> None:
        expected = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
        assert_near(interpolation_matrix(2, 4), expected)

    @pytest.mark.parametrize(("patches_side", "grid_side"), [(37, 256), (16, 64), (5, 3), (1, 8)])
    def test_interpolation_upsamples_one_axis(self, patches_side: int, grid_side: int) -> None:
        values = torch.randn(patches_side, patches_side, generator=torch.Generator().manual_seed(0))
        axis = interpolation_matrix(patches_side, grid_side)
        expected = F.interpolate(
            values[None, None], size=(grid_side, grid_side), mode="bilinear", align_corners=False, antialias=True
        )[0, 0]
        assert_near(axis @ values @ axis.T, expected)
        assert_near(axis.sum(1), torch.ones(grid_side))

    def test_weights_add_up_to_the_mask(self) -> None:
        masks = torch.rand(6, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.7
        assert_near(patch_weights(masks, 16).sum(1), masks.flatten(1).sum(1).float(), at_most=1e-3)

    def test_weights_of_one_patch_are_the_area(self) -> None:
        mask = torch.zeros(1, 8, 8, dtype=torch.bool)
        mask[0, 2:4, 1:6] = True
        assert_near(patch_weights(mask, 1), torch.tensor([[10.0]]))

    @pytest.mark.parametrize(("patches_side", "grid_side"), [(37, 256), (16, 64)])
    def test_adjoint_is_upsampling_and_averaging(self, patches_side: int, grid_side: int) -> None:
        generator = torch.Generator().manual_seed(2)
        features = torch.randn(patches_side**2, 12, generator=generator)
        coarse = torch.randn(10, 1, 9, 9, generator=generator)
        masks = F.interpolate(coarse, size=(grid_side, grid_side), mode="bicubic", align_corners=False)[:, 0] > 0.3
        single = torch.zeros_like(masks[:1])
        single[0, grid_side // 3, -1] = True
        masks = torch.cat([masks, single, torch.ones_like(single)])

        square = features.T.reshape(1, 12, patches_side, patches_side)
        full = F.interpolate(square, size=(grid_side, grid_side), mode="bilinear", align_corners=False, antialias=True)[0]
        literal = torch.stack([F.normalize(full[:, mask].mean(1), dim=0) for mask in masks])
        assert_near(pool_features(masks, features), literal, at_most=1e-5)

    def test_are_of_unit_length_and_permute_with_the_masks(self) -> None:
        generator = torch.Generator().manual_seed(2)
        masks = torch.rand(5, 64, 64, generator=generator) > 0.5
        features = torch.randn(256, 7, generator=generator)
        found = pool_features(masks, features)
        assert_near(found.norm(dim=1), torch.ones(5))
        order = torch.tensor([3, 0, 4, 2, 1])
        assert_near(pool_features(masks[order], features), found[order])

    def test_half_precision_features_are_pooled_in_float32(self) -> None:
        features = torch.randn(16, 7, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
        masks = torch.ones(1, 8, 8, dtype=torch.bool)
        found = pool_features(masks, features)
        assert found.dtype == torch.float32
        assert_near(found, pool_features(masks, features.float()))

    def test_empty_mask_has_no_direction(self) -> None:
        assert pool_features(torch.zeros(1, 8, 8, dtype=torch.bool), torch.ones(16, 3)).tolist() == [[0, 0, 0]]

    def test_of_nothing(self) -> None:
        assert pool_features(torch.zeros(0, 8, 8, dtype=torch.bool), torch.ones(16, 3)).shape == (0, 3)

    def test_patches_must_be_a_square(self) -> None:
        with pytest.raises(ShapeError, match="square of patches, but there are 17"):
            pool_features(torch.ones(1, 8, 8, dtype=torch.bool), torch.ones(17, 3))


class TestEncodePatches:
    def test_are_the_encoders_patch_tokens(self, models: Models) -> None:
        pixels = encoder_pixels(segmenter_pixels(make_image(0), SIDE)[None], models.preset.encoder_side)
        found = encode_patches(pixels, models)
        assert found.shape == (1, models.patches_side**2, models.feature_width)
        normalized = torch.stack([(pixels[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
        with torch.no_grad():
            tokens = models.dinov2(normalized).last_hidden_state
        assert tokens.shape[1] == models.patches_side**2 + 1  # the class token comes first
        assert_near(found, tokens[:, 1:])

    def test_are_row_major(self, models: Models) -> None:
        # A change in the lower left corner moves the token of that corner most.
        side = models.preset.encoder_side
        plain = torch.full((1, 3, side, side), 0.5)
        marked = plain.clone()
        marked[:, :, -14:, :14] = torch.rand(3, 14, 14, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            patch_embeddings = models.dinov2.embeddings.patch_embeddings
            moved = (patch_embeddings(marked) - patch_embeddings(plain)).norm(dim=-1)[0]
        assert int(moved.argmax()) == models.patches_side * (models.patches_side - 1)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """Of the segmenter's side, so that no resize comes between two ways of running it."""
    return make_image(4, (SIDE, SIDE))


@pytest.fixture(scope="module")
def predictor(models: Models, image: Image.Image) -> Any:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it scripts its resize, which torch discourages by now
        predictor = SAM2ImagePredictor(models.sam2)
    # The package writes the sizes for an input of 1024 pixels into the class.
    predictor._bb_feat_sizes = [(SIDE // scale, SIDE // scale) for scale in (4, 8, 16)]
    predictor.set_image(np.array(image))
    return predictor


class TestDecode:
    """Against `SAM2ImagePredictor` of the sam2 package, which the default presets must agree with."""

    @pytest.mark.usefixtures("keep_every_mask")
    def test_points_are_the_predictors_best_of_three(self, models: Models, image: Image.Image, predictor: Any) -> None:
        points = torch.tensor([[10.0, 20.0], [128.0, 99.0], [200.0, 240.0], [255.0, 0.0]])
        logits, predicted = decode_points(points, embed(image, models), 0, models)
        assert logits.shape == (4, 64, 64)
        for point, found, iou in zip(points.numpy(), logits, predicted, strict=True):
            _, scores, low_res = predictor.predict(point[None], np.ones(1), multimask_output=True)
            best = scores.argmax()
            assert float(iou) == pytest.approx(float(scores[best]), abs=1e-4)
            # The predictor cuts its logits at ±32.
            assert_near(found.clamp(-32, 32), torch.from_numpy(low_res[best]), at_most=1e-3)

    def test_boxes_are_the_predictors_single_answer(self, models: Models, image: Image.Image, predictor: Any) -> None:
        boxes = torch.tensor([[10.0, 20.0, 90.0, 70.0], [100.0, 120.0, 250.0, 255.0]])
        logits = decode_boxes(boxes, embed(image, models), 0, models)
        assert logits.shape == (2, 64, 64)
        for box, found in zip(boxes.numpy(), logits, strict=True):
            _, _, low_res = predictor.predict(box=box, multimask_output=False)
            assert_near(found.clamp(-32, 32), torch.from_numpy(low_res[0]), at_most=1e-3)

    @pytest.mark.usefixtures("keep_every_mask")
    def test_prompts_a_batch_do_not_matter(self, models: Models, image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
        points, embeddings = prompt_grid(3, SIDE), embed(image, models)
        at_once = decode_points(points, embeddings, 0, models)
        monkeypatch.setattr("refseg.candidates.decoding.PROMPTS_A_BATCH", {"cpu": 4})  # 4, 4 and a last batch of 1
        in_parts = decode_points(points, embeddings, 0, models)
        assert_near(in_parts[0], at_once[0], at_most=1e-3)
        assert_near(in_parts[1], at_once[1], at_most=1e-4)

    def test_masks_above_the_limit_are_kept_in_order(
        self, models: Models, image: Image.Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        points, embeddings = prompt_grid(4, SIDE), embed(image, models)
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)
        every_logits, every_iou = decode_points(points, embeddings, 0, models)
        limit = float(every_iou.sort().values[8])
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", limit)
        logits, predicted = decode_points(points, embeddings, 0, models)
        keep = every_iou > limit
        assert 0 < int(keep.sum()) < len(points)
        assert torch.equal(predicted, every_iou[keep])
        assert torch.equal(logits, every_logits[keep])

    def test_profile_paper_leaves_out_the_no_memory_embedding(self, models: Models, image: Image.Image) -> None:
        from dataclasses import replace

        paper = replace(models, preset=replace(models.preset, add_no_memory=False))
        difference = embed(image, models).coarse - embed(image, paper).coarse
        assert_near(difference, models.sam2.no_mem_embed.detach().reshape(1, -1, 1, 1).expand_as(difference), at_most=1e-5)


class TestPropose:
    @pytest.mark.usefixtures("keep_every_mask")
    def test_shapes_and_sizes(self, models: Models) -> None:
        (found,) = propose([make_image(0, (50, 90))], models)
        count = models.preset.points_per_side**2
        assert len(found) == count
        assert found.logits.shape == (count, 64, 64)
        assert found.predicted_iou.shape == (count,)
        assert found.features.shape == (count, models.feature_width)
        assert found.image_hw == (50, 90)
        for tensor in (found.logits, found.predicted_iou, found.features):
            assert tensor.dtype == torch.float32
            assert tensor.device.type == "cpu"
            assert not tensor.requires_grad
        lengths = found.features.norm(dim=1)[found.masks.flatten(1).any(1)]
        assert_near(lengths, torch.ones_like(lengths), at_most=5e-4)  # half precision
        assert_near(found.features, found.features.half().float(), at_most=0)

    @pytest.mark.usefixtures("keep_every_mask", "few_prompts")
    def test_two_images_at_once_are_each_alone(self, models: Models) -> None:
        images = [make_image(1), make_image(2, (200, 90))]
        together = propose(images, models)
        for image, found in zip(images, together, strict=True):
            (alone,) = propose([image], models)
            assert found.image_hw == alone.image_hw == (image.height, image.width)
            assert_near(found.predicted_iou, alone.predicted_iou, at_most=1e-4)
            assert_near(found.features, alone.features, at_most=1e-4)
            assert_near(found.logits, alone.logits, at_most=1e-2)

    @pytest.mark.usefixtures("keep_every_mask", "few_prompts")
    def test_features_are_pooled_over_the_masks(self, models: Models) -> None:
        image = make_image(3)
        (found,) = propose([image], models)
        pixels = segmenter_pixels(image, SIDE)[None]
        patches = encode_patches(encoder_pixels(pixels, models.preset.encoder_side), models)[0]
        assert_near(found.features, pool_features(found.masks, patches), at_most=1e-4)

    @pytest.mark.usefixtures("few_prompts")
    def test_no_surviving_mask_is_an_answer(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 1.1)
        for found in propose([make_image(1), make_image(2)], models):
            assert len(found) == 0
            assert found.logits.shape == (0, 64, 64)
            assert found.predicted_iou.shape == (0,)
            assert found.features.shape == (0, models.feature_width)

    @pytest.mark.usefixtures("few_prompts")
    def test_gradients_stay_as_they_were(self, models: Models) -> None:
        propose([make_image(1)], models)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        parameters = [*models.sam2.parameters(), *models.dinov2.parameters()]
        assert all(parameter.grad is None for parameter in parameters)
        # The cached interpolation must not be an inference tensor: training pools with it too.
        assert not interpolation_matrix(models.patches_side, models.grid_side).is_inference()

    @pytest.mark.usefixtures("keep_every_mask", "few_prompts")
    def test_from_pixels_is_from_images(self, models: Models) -> None:
        image = make_image(5)
        (found,) = propose([image], models)
        pixels: Tensor = segmenter_pixels(image, SIDE)[None]
        (same,) = propose_from_pixels(pixels, [(120, 160)], models)
        assert torch.equal(found.logits, same.logits)
        assert torch.equal(found.features, same.features)
        assert same.image_hw == (120, 160)

    @pytest.mark.usefixtures("keep_every_mask")
    def test_near_duplicates_are_those_dropped_from_all(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.candidates.decoding.prompt_grid", lambda per_side, side: prompt_grid(8, side))
        image = make_image(6)
        (every,) = propose([image], models)
        (found,) = propose([image], models, max_iou=0.95)
        kept = drop_near_duplicates(every.masks, every.predicted_iou, 0.95)
        assert 1 < len(found) == len(kept) < len(every)
        assert torch.equal(found.logits, every.logits[kept])
        assert torch.equal(found.predicted_iou, every.predicted_iou[kept])
        assert_near(found.features, every.features[kept], at_most=1e-3)  # half precision


class TestGridBoxes:
    def test_is_a_loop_over_pixels(self) -> None:
        masks = torch.rand(20, 9, 13, generator=torch.Generator().manual_seed(0)) > 0.97
        masks = masks[masks.flatten(1).any(1)]
        for mask, box in zip(masks, grid_boxes(masks).tolist(), strict=True):
            inside = mask.nonzero().tolist()
            ys, xs = [y for y, _ in inside], [x for _, x in inside]
            assert box == [min(xs), min(ys), max(xs), max(ys)]

    def test_full_and_single_pixel(self) -> None:
        single = box_mask(3, 5, 4, 6)
        full = torch.ones(GRID, GRID, dtype=torch.bool)
        assert grid_boxes(torch.stack([single, full])).tolist() == [[3, 5, 3, 5], [0, 0, 15, 15]]

    def test_of_nothing(self) -> None:
        assert grid_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)


def test_images_that_do_not_fit_together_are_looked_at_one_by_one(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.stack([segmenter_pixels(make_image(seed), SIDE) for seed in (3, 4, 5)])
    sizes = [(120, 160), (60, 80), (30, 40)]
    expected = propose_from_pixels(pixels, sizes, models)
    seen: list[int] = []

    def embed_few(some: Tensor, models: Models) -> ImageEmbeddings:
        seen.append(len(some))
        if len(some) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return embed_images(some, models)

    monkeypatch.setattr("refseg.models.batch_sizes._sizes", {})
    monkeypatch.setattr("refseg.candidates.proposing.embed_images", embed_few)
    found = propose_from_pixels(pixels, sizes, models)
    assert seen == [3, 1, 1, 1]
    assert [one.image_hw for one in found] == sizes
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        assert_near(one.predicted_iou, other.predicted_iou, at_most=1e-4)
