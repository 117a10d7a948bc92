"""What the tables of an index say of themselves."""

from __future__ import annotations

import pyarrow as pa
import pytest

from refseg.index.tables import FORMAT, METADATA_KEY, images_schema, read_settings
from tests.index.test_candidate_index import SETTINGS


class TestSettings:
    def test_survive_the_schema(self) -> None:
        assert read_settings(images_schema(SETTINGS)) == (FORMAT, SETTINGS)

    @pytest.mark.parametrize("about", [None, b"no json", b"[]", b"{}", b'{"format": 1}', b'{"format": "one"}'])
    def test_of_another_table(self, about: bytes | None) -> None:
        metadata = {b"other": b"{}"} if about is None else {METADATA_KEY: about}
        assert read_settings(pa.schema([("a", pa.int64())], metadata=metadata)) == (0, None)
