from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.world import draw_family, plain_tray, rich_tray


@pytest.mark.parametrize("tray", [plain_tray, rich_tray])
@pytest.mark.parametrize("seed", range(8))
def test_trays_fill_the_picture_with_or_without_parts(tray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for families in ([], [draw_family(rng)]):
        canvas = tray(rng, 60, 90, families)
        assert canvas.shape == (60, 90, 3)
        assert canvas.dtype == np.float32
        assert np.isfinite(canvas).all()
        assert 0 < canvas.mean() < 1.2


def test_a_plain_tray_stands_off_from_the_parts() -> None:
    rng = np.random.default_rng(0)
    far = []
    for _ in range(40):
        family = draw_family(rng)
        far.append(float(np.abs(plain_tray(rng, 20, 20, [family]).mean((0, 1)) - family.color).max()))
    assert np.quantile(far, 0.1) > 0.2


def test_rich_trays_are_of_many_kinds_some_hardly_standing_off() -> None:
    rng = np.random.default_rng(0)
    family = draw_family(rng)
    trays = [rich_tray(rng, 40, 40, [family]) for _ in range(60)]
    far = [float(np.abs(tray.mean((0, 1)) - family.color).max()) for tray in trays]
    assert min(far) < 0.12
    assert max(far) > 0.4
    assert np.ptp([tray.std((0, 1)).max() for tray in trays]) > 0.05
