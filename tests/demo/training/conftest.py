from __future__ import annotations

import pytest

from refseg.demo.pool import Pool, load_pool


@pytest.fixture(scope="package")
def pools(tmp_path_factory) -> dict[str, Pool]:
    folder = tmp_path_factory.mktemp("pools")
    return {name: load_pool(folder, name, 6, workers=2) for name in ("plain", "rich", "leaves", "crowds")}
