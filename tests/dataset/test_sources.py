"""An opened index as the source of candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import pytest

from refseg.dataset.index_finding import open_index
from refseg.dataset.known_indexes import index_records
from refseg.errors import IndexMismatchError, PrototypeMismatchError
from refseg.models.loaded import load_models
from refseg.prototypes.prototypes import Prototypes
from tests.dataset.building import build
from tests.forbidden import forbid_models
from tests.trays import segment_all as run

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


class TestHandle:
    def test_an_opened_index(
        self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(trays, uri=tmp_path / "mine")
        index = open_index(trays)
        build(trays)  # uses the same place; another index is used last:
        build(trays, exact=True)
        forbid_models(monkeypatch)
        report = run(trays, prototypes, index=index)
        assert report.num_from_index == 4
        assert trays.get_run_info(report.run_key).config.index_uri == str(tmp_path / "mine")

    def test_what_it_lacks_is_computed_into_it(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        build(trays[:1], uri=tmp_path / "mine", exact=True)
        index = open_index(trays)
        report = run(trays, prototypes, index=index)
        assert (report.num_from_index, report.num_images) == (1, 4)
        assert open_index(trays, uri=tmp_path / "mine").status().num_indexed == 4

    def test_what_was_built_since_it_was_opened_counts(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[:1])
        index = open_index(trays)
        build(trays)
        assert run(trays, prototypes, index=index).num_from_index == 4

    def test_it_may_have_been_compacted_since(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[:2])
        build(trays)
        index = open_index(trays)
        open_index(trays).compact()
        assert run(trays, prototypes, index=index).num_instances == 8

    def test_of_another_encoder(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays)
        index = open_index(trays)
        other = dataclasses.replace(prototypes, fingerprint="f" * 12)
        with pytest.raises(
            PrototypeMismatchError, match=rf"encoder f{{12}}\), but the index at {index.uri} holds candidates of 'demo'"
        ):
            run(trays, other, index=index)
        assert not trays.has_field("predictions")

    def test_of_another_dataset(self, trays: fo.Dataset, make_dataset: MakeDataset, prototypes: Prototypes) -> None:
        build(trays)
        other = make_dataset([fo.Sample(trays.first().filepath)])
        with pytest.raises(IndexMismatchError, match=f"is not one of the dataset {other.name!r}"):
            run(other, prototypes, index=open_index(trays))
        assert not other.has_field("predictions")


class TestOfTheSameModels:
    def test_serves_prototypes_whose_preset_has_no_index(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = build(trays, load_models("demo-fast"))
        assert prototypes.model == "demo"
        forbid_models(monkeypatch)
        report = run(trays, prototypes)
        assert (report.num_from_index, report.lent_by) == (4, "demo-fast")
        assert "The index of 'demo-fast' served" in str(report)
        config = trays.get_run_info(report.run_key).config
        assert (config.index_uri, config.model) == (built.uri, "demo-fast")

    def test_what_it_lacks_is_computed_into_it(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        built = build(trays[:3], load_models("demo-fast"))
        report = run(trays, prototypes)
        assert (report.num_images, report.num_from_index, report.lent_by) == (4, 3, "demo-fast")
        assert [record["uri"] for record in index_records(trays)] == [built.uri]
        assert open_index(trays, "demo-fast").status().num_indexed == 4

    def test_whoever_names_a_model_gets_its_own(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays, load_models("demo-fast"))
        report = run(trays, prototypes, model="demo")
        assert (report.num_from_index, report.lent_by) == (0, None)
        assert open_index(trays, "demo").status().num_indexed == 4
