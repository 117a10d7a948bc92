"""What does not belong together is told in a sentence before any weights are downloaded, and what is gone, as gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.zoo as foz
import pytest
import torch

import refseg
from refseg.errors import (
    IndexMismatchError,
    IndexNotFoundError,
    ModelUnavailableError,
    PrototypeMismatchError,
    UnknownModelError,
)
from refseg.models.loaded import PRESETS, load_models
from refseg.prototypes.prototypes import Prototypes
from tests.trays import tray_samples

Ways = dict[str, Callable[..., Any]]
QUIET: dict[str, Any] = {"num_workers": 0, "progress": False}
WAYS: Ways = {
    "segment": lambda dataset, prototypes, model: refseg.segment(dataset, prototypes, model=model, **QUIET),
    "without an index": lambda dataset, prototypes, model: refseg.segment(
        dataset, prototypes, model=model, index=False, **QUIET
    ),
    "calibrate": lambda dataset, prototypes, model: refseg.calibrate(dataset, prototypes, model=model, **QUIET),
    "mine_negatives": lambda dataset, prototypes, model: refseg.mine_negatives(dataset, prototypes, model=model, **QUIET),
    "Segmenter": lambda dataset, prototypes, model: refseg.Segmenter(prototypes, model=model),
    "heatmap": lambda dataset, prototypes, model: refseg.similarity_heatmap(
        dataset, prototypes, prototypes.classes[0], model=model, **QUIET
    ),
    "inspect_references": lambda dataset, prototypes, model: refseg.inspect_references(
        dataset, prototypes, model=model, progress=False
    ),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """This machine has no weights but the demo's, and gets none; the downloads that were asked for."""
    from huggingface_hub import constants

    found: list[str] = []

    def download(name: str, **options: Any) -> None:
        found.append(name)
        raise ConnectionError("no network")

    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "zoo"))
    monkeypatch.setattr(foz, "download_zoo_model", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return found


@pytest.fixture
def trays(make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    return make_dataset(tray_samples(tmp_path, 2))


@pytest.fixture
def indexed(trays: fo.Dataset) -> refseg.DatasetIndex:
    refseg.build_index(trays, "demo", **QUIET)
    return refseg.open_index(trays)


def built_by(model: str) -> Prototypes:
    """Prototypes as if another machine had built them."""
    return Prototypes(("nut",), torch.ones(1, 8), torch.zeros(1, dtype=torch.int64), ("id",), model, "0" * 12)


def test_weights_are_out_of_reach(asked: list[str]) -> None:
    with pytest.raises(ModelUnavailableError):
        load_models("large")
    assert asked == ["segment-anything-2.1-hiera-large-image-torch"]


@each_way
def test_a_model_of_another_encoder(
    way: Callable[..., Any], trays: fo.Dataset, prototypes: Prototypes, asked: list[str]
) -> None:
    for by, model in ((prototypes, "large"), (built_by("large"), "tiny"), (built_by("paper"), "base-fast")):
        told = f"^These prototypes were built by '{by.model}' .*, not by '{model}'"
        with pytest.raises(PrototypeMismatchError, match=told) as caught:
            way(trays, by, model)
        assert str(caught.value).endswith(": build them again with the model that is to use them.")
    assert asked == []
    assert trays.list_runs() == []


@each_way
def test_a_model_that_is_none(way: Callable[..., Any], trays: fo.Dataset, asked: list[str]) -> None:
    with pytest.raises(UnknownModelError, match="'huge'"):
        way(trays, built_by("large"), "huge")
    assert asked == []


@each_way
def test_a_model_of_the_same_encoder_is_tried(way: Callable[..., Any], trays: fo.Dataset, asked: list[str]) -> None:
    with pytest.raises(ModelUnavailableError):
        way(trays, built_by("large"), "paper")
    assert asked == [PRESETS["paper"].sam2_zoo_name]


def test_an_index_of_another_model(
    trays: fo.Dataset, prototypes: Prototypes, indexed: refseg.DatasetIndex, asked: list[str]
) -> None:
    for work in (refseg.segment, refseg.calibrate, refseg.mine_negatives):
        with pytest.raises(PrototypeMismatchError, match=r"^These prototypes were built by 'large' .* candidates of 'demo'"):
            work(trays, built_by("large"), index=indexed, **QUIET)
        with pytest.raises(PrototypeMismatchError, match=r"^These prototypes were built by 'demo' .*, not by 'large'"):
            work(trays, prototypes, model="large", index=indexed, **QUIET)
        # Its candidates would have been taken for those of the other.
        with pytest.raises(IndexMismatchError, match=r"holds candidates of 'demo', not of 'demo-fast': leave the"):
            work(trays, prototypes, model="demo-fast", index=indexed, **QUIET)
    with pytest.raises(IndexNotFoundError, match="has no candidate index for the model 'large'"):
        refseg.find_similar(trays, trays.first().ground_truth.detections[0], model="large")
    assert asked == []
    assert trays.list_runs(method="refseg/segment") == []


def test_an_index_elsewhere_of_another_model(trays: fo.Dataset, tmp_path: Path, asked: list[str]) -> None:
    place = tmp_path / "index"
    refseg.build_index(trays, "demo", uri=place, **QUIET)
    with pytest.raises(IndexMismatchError, match="was built for the model 'demo', not 'large': choose another place"):
        refseg.build_index(trays, "large", uri=place, **QUIET)
    with pytest.raises(IndexMismatchError, match="was built for the model 'demo', not 'paper'"):
        refseg.build_index(trays, "paper", uri=place, **QUIET)
    assert asked == []
    assert refseg.build_index(trays, "demo", uri=place, **QUIET).num_added == 0
    with pytest.raises(ModelUnavailableError):
        refseg.build_index(trays, "large", uri=tmp_path / "other", **QUIET)


def test_the_weights_decide_where_names_tell_nothing(trays: fo.Dataset, prototypes: Prototypes) -> None:
    for by in (built_by("demo"), built_by("of another machine")):
        with pytest.raises(PrototypeMismatchError, match=r"built by '.*' \(encoder 000000000000\), not by 'demo' \(encoder"):
            refseg.segment(trays, by, model="demo", **QUIET)
    renamed = replace(prototypes, model="of another machine")
    assert refseg.segment(trays, renamed, model="demo", **QUIET).num_images == 2


class TestADeletedIndex:
    def test_is_told_to_be_gone(self, trays: fo.Dataset, prototypes: Prototypes, indexed: refseg.DatasetIndex) -> None:
        other = refseg.open_index(trays)
        indexed.delete()
        indexed.delete()
        for index in (indexed, other):
            for ask in (index.status, index.verify, index.compact):
                with pytest.raises(IndexNotFoundError, match=f"^There is no candidate index at {index.uri}: build one first.$"):
                    ask()
            for work in (refseg.segment, refseg.calibrate):
                with pytest.raises(IndexNotFoundError, match=r"^There is no candidate index at"):
                    work(trays, prototypes, index=index, **QUIET)
        assert trays.list_runs(method="refseg/segment") == []
        assert not Path(indexed.uri).exists()

    def test_built_again_it_is_there(self, trays: fo.Dataset, indexed: refseg.DatasetIndex) -> None:
        indexed.delete()
        refseg.build_index(trays, "demo", **QUIET)
        assert indexed.status().num_indexed == 2

    def test_half_of_one_is_damage(self, indexed: refseg.DatasetIndex) -> None:
        shutil.rmtree(Path(indexed.uri) / "images.lance")
        with pytest.raises(refseg.errors.IndexDamagedError, match="cannot be read"):
            indexed.status()
