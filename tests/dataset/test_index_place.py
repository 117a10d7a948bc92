"""Which index is meant, and where: folders whole, addresses as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refseg.dataset.index_place import IndexPlace, whole_uri
from refseg.errors import DatasetError, IndexNotFoundError


def test_folders_become_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert whole_uri("parts") == whole_uri(Path("parts")) == str(tmp_path / "parts")
    assert whole_uri("~/parts") == "/home/someone/parts"
    assert whole_uri("s3://bucket/parts") == "s3://bucket/parts"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"uri": 3}, "uri"), ({"exact": "no"}, "exact"), ({"tiles": 2}, "tiles"), ({"storage_options": []}, "storage_options")],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(DatasetError, match=named):
        IndexPlace(**wrong)


def test_nothing_lies_there(tmp_path: Path) -> None:
    assert IndexPlace().read_pixels() is None
    assert IndexPlace(tmp_path / "none").read_pixels() is None
    with pytest.raises(IndexNotFoundError):
        IndexPlace().open_at(tmp_path / "none")
