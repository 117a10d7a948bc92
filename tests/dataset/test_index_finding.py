"""Opening the index that a dataset has."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset.index_finding import find_index, open_index
from refseg.dataset.known_indexes import index_records
from refseg.errors import IndexMismatchError, IndexNotFoundError
from refseg.models.loaded import PRESETS, load_models
from tests.dataset.building import build
from tests.trays import quick_models

pytestmark = pytest.mark.usefixtures("two_images_a_batch")


class TestOpen:
    def test_needs_no_models(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        build(trays)

        def fail(*arguments: Any, **options: Any) -> Any:
            raise AssertionError("models were loaded")

        monkeypatch.setattr("refseg.dataset.indexing.load_models", fail)
        index = open_index(trays)
        assert index.index.settings.model == "demo"
        assert index.status().num_indexed == 4
        assert repr(index) == f"<index of {trays.name!r} for 'demo' at {index.uri}>"

    @pytest.mark.parametrize("model", ["demo", "models"])
    def test_by_model(self, trays: fo.Dataset, model: str) -> None:
        report = build(trays)
        assert open_index(trays, load_models("demo") if model == "models" else model).uri == report.uri

    def test_of_a_view(self, trays: fo.Dataset) -> None:
        build(trays)
        assert open_index(trays[:1]).status().num_samples == 4

    def test_there_is_none(self, trays: fo.Dataset) -> None:
        with pytest.raises(IndexNotFoundError, match=f"The dataset {trays.name!r} has no candidate index: build one"):
            open_index(trays)

    def test_there_is_none_for_this_model(self, trays: fo.Dataset) -> None:
        build(trays)
        with pytest.raises(
            IndexNotFoundError, match=r"has no candidate index for the model 'large' \(it has one of 'demo'\): build one"
        ):
            open_index(trays, "large")
        with pytest.raises(IndexNotFoundError, match="has no candidate index"):
            open_index(trays, exact=True)

    def test_there_is_none_at_this_place(self, trays: fo.Dataset, tmp_path: Path) -> None:
        build(trays)
        with pytest.raises(IndexNotFoundError, match=f"There is no candidate index at {tmp_path / 'nowhere'}"):
            open_index(trays, uri=tmp_path / "nowhere")

    def test_of_another_model_at_this_place(self, trays: fo.Dataset) -> None:
        report = build(trays)
        with pytest.raises(IndexMismatchError, match="was built for the model 'demo', not 'large'"):
            open_index(trays, "large", uri=report.uri)

    def test_of_another_dataset_at_this_place(self, trays: fo.Dataset, dataset: fo.Dataset) -> None:
        report = build(trays)
        with pytest.raises(IndexMismatchError, match="was built for the dataset"):
            open_index(dataset, uri=report.uri)


class TestFind:
    def test_the_kind_that_the_preset_makes_comes_first(self, trays: fo.Dataset) -> None:
        """Of an index with near-duplicates and one without."""
        encoder = load_models("demo").fingerprint
        assert find_index(trays, "demo", encoder) is None
        exact = build(trays, exact=True)
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == exact.uri
        plain = build(trays)
        build(trays, exact=True)
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == plain.uri

    def test_of_one_kind_the_one_used_last(self, trays: fo.Dataset) -> None:
        encoder = load_models("demo").fingerprint
        uris = [build(trays, model).uri for model in ("demo", quick_models(), "demo")]
        assert uris[0] == uris[2] != uris[1]
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == uris[0]
        build(trays, quick_models())
        found = find_index(trays, "demo", encoder)
        assert found is not None
        assert found.uri == uris[1]

    def test_only_of_this_encoder(self, trays: fo.Dataset) -> None:
        build(trays)
        assert find_index(trays, "demo", "0" * 12) is None
        assert find_index(trays, "large", load_models("demo").fingerprint) is None

    def test_only_of_masks_as_the_preset_wants_them(
        self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An earlier version has left them as they are, and its record says nothing of them."""
        models = load_models("demo")
        raw = dataclasses.replace(models, preset=dataclasses.replace(models.preset, clean_masks=False))
        earlier = build(trays, raw)
        (record,) = index_records(trays)
        config = trays.get_run_info(record["key"]).config
        del config.clean_masks
        trays.update_run_config(record["key"], config)
        with caplog.at_level(logging.WARNING, "refseg"):
            assert find_index(trays, "demo", models.fingerprint) is None
        assert "An index of 'demo' of masks that were not cleaned is not used" in caplog.text
        own = build(trays)
        assert own.num_added == own.num_images
        found = find_index(trays, "demo", models.fingerprint)
        assert found is not None
        assert found.uri == own.uri != earlier.uri
        monkeypatch.setitem(PRESETS, "demo", raw.preset)
        found = find_index(trays, "demo", models.fingerprint)
        assert found is not None
        assert found.uri == earlier.uri

    def test_a_record_whose_index_is_gone(self, trays: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        plain, exact = build(trays), build(trays, exact=True)
        shutil.rmtree(plain.uri)
        with caplog.at_level(logging.WARNING, "refseg"):
            found = find_index(trays, "demo", load_models("demo").fingerprint)
        assert found is not None
        assert found.uri == exact.uri
        assert "names an index that is gone" in caplog.text

    def test_what_lies_at_a_recorded_place_now_is_looked_at(self, trays: fo.Dataset, tmp_path: Path) -> None:
        """The folder was removed by hand, and an index of another encoder was built there."""
        models = load_models("demo")
        build(trays, uri=tmp_path / "index")
        shutil.rmtree(tmp_path / "index")
        newer = dataclasses.replace(models, revisions={**models.revisions, "dinov2": "0" * 64})
        build(trays, newer, uri=tmp_path / "index")
        found = find_index(trays, "demo", models.fingerprint)
        assert found is None or found.index.settings.encoder == models.fingerprint


class TestOfTheSameModels:
    """`demo` and `demo-fast` have the same features, and differ in how many masks they find."""

    @pytest.mark.parametrize(("held", "asked"), [("demo", "demo-fast"), ("demo-fast", "demo")])
    def test_either_serves_the_other(self, trays: fo.Dataset, held: str, asked: str, caplog: pytest.LogCaptureFixture) -> None:
        report = build(trays, load_models(held))
        with caplog.at_level(logging.INFO, "refseg"):
            found = find_index(trays, asked, load_models(asked).fingerprint)
        assert found is not None
        assert (found.uri, found.index.settings.model) == (report.uri, held)
        assert f"There is no index of {asked!r}, and that of {held!r} serves as well" in caplog.text

    def test_its_own_comes_first(self, trays: fo.Dataset) -> None:
        own = build(trays[:1], load_models("demo-fast"))
        build(trays)
        found = find_index(trays, "demo-fast", load_models("demo").fingerprint)
        assert found is not None
        assert found.uri == own.uri

    def test_unless_its_own_is_asked_for(self, trays: fo.Dataset) -> None:
        build(trays)
        assert find_index(trays, "demo-fast", load_models("demo").fingerprint, borrows=False) is None

    def test_only_of_the_same_encoder(self, trays: fo.Dataset) -> None:
        build(trays)
        assert find_index(trays, "demo-fast", "0" * 12) is None
