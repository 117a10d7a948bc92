from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.pool import DRAWS, PAIRS, POOL_HW, load_pool

pytestmark = pytest.mark.slow


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", DRAWS)
def test_pools_are_drawn_once_and_the_same_again(name, tmp_path):
    views = 2 if name in PAIRS else 1
    pool = load_pool(tmp_path / "one", name, 4, workers=2)
    assert pool.images.shape == (4, views, *POOL_HW, 3)
    assert pool.ids.shape == (4, views, *POOL_HW)
    again = load_pool(tmp_path / "two", name, 2, first=2, workers=1)
    assert np.array_equal(again.images, pool.images[2:])
    assert np.array_equal(again.ids, pool.ids[2:])
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()}
    load_pool(tmp_path / "one", name, 4)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").iterdir()} == times
    assert (pool.ids.reshape(4, -1).max(1) > 0).all()
    if views == 2:
        shared = [set(np.unique(pair[0])) & set(np.unique(pair[1])) - {0} for pair in pool.ids]
        assert all(shared), "each pair must have a family that both scenes show"
