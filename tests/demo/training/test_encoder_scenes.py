from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.pool import Pool
from refseg.demo.training.encoder_scenes import ERASED, draw_crops, draw_step


@pytest.fixture
def pool() -> Pool:
    """Two pairs of trays: family 1 is red and family 2 green, in other places on either scene."""
    ids = np.zeros((2, 2, 320, 400), np.uint8)
    ids[:, 0, 40:160, 30:140], ids[:, 0, 180:300, 200:380] = 1, 2
    ids[:, 1, 150:290, 30:160], ids[:, 1, 20:140, 220:330] = 1, 2
    images = np.full((2, 2, 320, 400, 3), 20, np.uint8)
    images[ids == 1], images[ids == 2] = (200, 20, 20), (20, 200, 20)
    return Pool(images, ids)


def seen(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean colour under patch weights."""
    side = round(len(weights) ** 0.5)
    patches = picture.reshape(side, 14, side, 14, 3).mean((1, 3)).reshape(-1, 3)
    return (patches * weights[:, None]).sum(0) / weights.sum()


@pytest.mark.parametrize("side", [224, 308])
def test_places_are_where_the_families_are(pool, side):
    step = draw_step(np.random.default_rng(0), pool, [0, 1], side, augment=False)
    assert len(step.scenes) == 4
    assert len(step.first) == len(step.second) == len(step.families) == 4
    for places in (step.first, step.second):
        for (row, weights), (_, family, _) in zip(places, step.families, strict=True):
            color = seen(step.scenes[row], weights)
            assert color.argmax() == family - 1
            assert color.max() > 150
    for row, weights in step.tray:
        assert seen(step.scenes[row], weights).max() < 60


def test_crops_show_their_family_whole_and_erased(pool):
    rng = np.random.default_rng(0)
    step = draw_step(rng, pool, [0, 1], 224, augment=False)
    for erased in (False, True):
        crops = draw_crops(rng, pool, step, 3, 154, augment=False, erased=erased)
        assert len(crops.families) == len(crops.of) == 3
        for row, pair in zip(crops.families, crops.of, strict=True):
            for crop in pair:
                assert crop.picture.shape == (154, 154, 3)
                assert seen(crop.picture, crop.weights).argmax() == step.families[row][1] - 1
                assert (tuple(crop.picture[2, 2]) == (ERASED,) * 3) == erased


def test_augmented_steps_still_show_both_instances_alike(pool):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        step = draw_step(rng, pool, [0], 224)
        crops = draw_crops(rng, pool, step, 2, 154)
        for row, (one, other) in zip(crops.families, crops.of, strict=True):
            first, weights = step.first[row]
            colors = [seen(step.scenes[first], weights), seen(one.picture, one.weights), seen(other.picture, other.weights)]
            assert len({int(color.argmax()) for color in colors}) == 1, "colour channels must be exchanged alike"
