"""Keys, fields and folders made from names that cannot be any."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import refseg
from refseg.dataset.known_indexes import index_records
from refseg.models.loaded import PRESETS, get_preset, registered
from refseg.names import folder_from, run_key_from
from tests.small_models import small_presets

MakeDataset = Callable[..., fo.Dataset]


@pytest.mark.parametrize("names", [("螺母", "垫圈"), ("größe", "grüße"), ("a 螺 b", "a 垫 b"), ("Ελλάδα", "Россия")])
def test_names_that_lose_letters_stay_apart(names: tuple[str, str]) -> None:
    first, second = (run_key_from(f"heatmap_{name}") for name in names)
    assert first != second
    for key in (first, second):
        assert key.isidentifier()
        assert key.isascii()
        assert key.startswith("heatmap_")
    assert run_key_from(f"heatmap_{names[0]}") == first


def test_an_undecodable_name_makes_a_key() -> None:
    assert run_key_from("bad\udcff").isidentifier()


@pytest.mark.parametrize("text", ["demo-a22ab9b22678", "large-fast-a22ab9b22678", "v1.2-0f"])
def test_a_folder_that_can_be_is_called_so(text: str) -> None:
    assert folder_from(text) == text


@pytest.mark.parametrize(
    ("text", "begin"), [("../../etc-0f", "etc_0f_"), (".hidden-0f", "hidden_0f_"), ("my parts/2-0f", "my_parts_2_0f_")]
)
def test_a_folder_that_cannot_be(text: str, begin: str) -> None:
    assert re.fullmatch(f"{begin}[0-9a-f]{{6}}", folder_from(text))
    assert folder_from(text) != folder_from(text.replace("-", "."))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = np.random.default_rng(1).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.thorough
def test_presets_of_any_name_are_indexed_beside_each_other(make_dataset: MakeDataset, picture: str, tmp_path: Path) -> None:
    dataset = make_dataset([fo.Sample(picture)])
    with small_presets(tmp_path, [PRESETS["demo"]]):
        names = ["my parts/2", "my-parts-2", "../my_parts_2", "我的", "零件"]
        with registered(*(replace(get_preset("demo"), name=name) for name in names)):
            for name in names * 2:
                refseg.build_index(dataset, name, num_workers=0, progress=False)
            records = index_records(dataset)
            assert sorted(record["model"] for record in records) == sorted(names)
            assert len({record["uri"] for record in records}) == len(names)
            parent = {Path(record["uri"]).parent for record in records}
            assert len(parent) == 1
            for name in names:
                assert refseg.open_index(dataset, name).index.settings.model == name


def test_evaluations_of_fields_of_like_names_stay_apart(make_dataset: MakeDataset, picture: str) -> None:
    def one(confidence: float | None = None) -> fo.Detections:
        return fo.Detections(detections=[fo.Detection(label="a", bounding_box=[0, 0, 0.5, 0.5], confidence=confidence)])

    fields = ("found-1", "found_1", "найдено", "trouvé")
    sample = fo.Sample(picture, ground_truth=one(), **{field: one(0.5) for field in fields})
    dataset = make_dataset([sample])
    for _ in range(2):
        keys = [refseg.evaluate(dataset, field, "ground_truth", progress=False).eval_key for field in fields]
        assert keys[:2] == ["eval_found_1", "eval_found_1_2"]
        assert keys[3] == "eval_trouve"
        assert len(set(keys)) == len(dataset.list_evaluations()) == 4
        recorded = [dataset.get_run_info(key).config.pred_field for key in dataset.list_runs(method="refseg/evaluation")]
        assert sorted(recorded) == sorted(fields)
