from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.world.camera import photograph, photograph_again, relight

PICTURE = np.random.default_rng(0).integers(40, 200, (48, 64, 3)).astype(np.uint8)


def test_a_photograph_is_of_the_scene() -> None:
    canvas = np.zeros((48, 64, 3), np.float32)
    canvas[:, 32:] = 0.8
    picture = photograph(np.random.default_rng(1), canvas)
    assert picture.dtype == np.uint8
    assert picture[:, :28].mean() < 20 < 100 < picture[:, 36:].mean()


@pytest.mark.parametrize("seed", range(12))
def test_photographs_again_keep_their_shape_and_leave_the_picture_alone(seed: int) -> None:
    before = PICTURE.copy()
    again = photograph_again(np.random.default_rng(seed), PICTURE)
    assert again.shape == PICTURE.shape
    assert again.dtype == np.uint8
    assert np.array_equal(PICTURE, before)


def test_some_lose_their_colours() -> None:
    def is_grey(picture: np.ndarray) -> bool:
        return bool(np.ptp(picture.astype(int), axis=-1).mean() < 3)

    always = [is_grey(photograph_again(np.random.default_rng(seed), PICTURE, grey=1.0)) for seed in range(30)]
    never = [is_grey(photograph_again(np.random.default_rng(seed), PICTURE, grey=0.0)) for seed in range(30)]
    assert np.mean(always) > 0.5
    assert np.mean(never) < 0.15


def test_other_light_keeps_colours() -> None:
    grey = np.full((48, 64, 3), 100, np.uint8)
    lit = [relight(np.random.default_rng(seed), grey) for seed in range(40)]
    assert 0.2 < np.mean([not np.array_equal(picture, grey) for picture in lit]) < 0.6
    assert all(np.ptp(picture.astype(int), axis=-1).max() == 0 for picture in lit)
