"""The range of pixels and the bands: asked for where they matter, checked by the library, and carried to every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
import tifffile
from fiftyone.operators.executor import ExecutionError

from refseg.dataset.store import load_prototypes, save_prototypes
from refseg.demo.world import Scene
from refseg.prototypes.prototypes import Prototypes
from tests.kept import KeptDataset
from tests.operators.app_panel import choose, press, run_job, section
from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri

ASKING = ["build_index", "build_prototypes", "segment_with_references", "learn", "segment"]
SCALE = 16
"""Values of the deep images for one of eight bits."""
RANGE = (0, 255 * SCALE)
CHANNELS = (1, 2, 3)
READ = {"pixel_range": RANGE, "channels": CHANNELS}


@pytest.fixture
def parts(kept_parts: KeptDataset, make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """A dataset of each test's own: what its files hold is remembered for a while."""
    return make_dataset([sample.copy() for sample in kept_parts.put_back()])


@pytest.fixture
def deep(parts: fo.Dataset, scenes: list[tuple[Path, Scene]], tmp_path: Path) -> fo.Dataset:
    """The same images in TIFFs of 12 bits, behind a band of noise: read rightly they are what they were."""
    rng = np.random.default_rng(3)
    for sample, (_, scene) in zip(parts, scenes, strict=True):
        noise = rng.integers(0, RANGE[1], (*scene.image.shape[:2], 1), dtype=np.uint16)
        bands = np.concatenate([noise, scene.image.astype(np.uint16) * SCALE], axis=2)
        sample.filepath = str(tmp_path / f"{Path(sample.filepath).stem}.tif")
        tifffile.imwrite(sample.filepath, bands, photometric="minisblack", planarconfig="contig")
        sample.save()
    return parts


def kept_pixels(dataset: fo.Dataset, name: str = "prototypes") -> str:
    return str(load_prototypes(dataset, name).pixels)


def indexes(dataset: fo.Dataset) -> list[list]:
    dataset.reload()
    return [dataset.get_run_info(key).config.pixels for key in dataset.list_runs(method="refseg/index")]


class TestForms:
    @pytest.mark.parametrize("name", ASKING)
    def test_photographs_are_asked_nothing(self, name: str, with_prototypes: fo.Dataset) -> None:
        assert not {"pixel_range", "channels"} & form_of(with_prototypes, name).keys()

    @pytest.mark.parametrize("name", ASKING[:-1])
    def test_deep_images_and_bands_are(self, name: str, deep: fo.Dataset) -> None:
        form = form_of(deep, name)
        assert problems_of(form) == {}
        described = form["pixel_range"]["view"]["description"], form["channels"]["view"]["description"]
        assert described[0].endswith("such as 0 4095; by default what all images suggest")
        assert described[1].endswith("such as 3 2 1; by default the first three")

    def test_each_only_where_it_matters(self, make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> None:
        values = np.zeros((8, 8, 4), np.uint8)
        tifffile.imwrite(tmp_path / "bands.tif", values, photometric="minisblack", planarconfig="contig")
        tifffile.imwrite(tmp_path / "deep.tif", values[..., 0].astype(np.uint16))
        for file, expected in (("bands.tif", {"channels"}), ("deep.tif", {"pixel_range"}), ("gone.tif", set())):
            dataset = make_dataset([fo.Sample(str(tmp_path / file)), fo.Sample("photograph.jpg")])
            assert {"pixel_range", "channels"} & form_of(dataset, "build_index").keys() == expected

    def test_files_are_opened_once_a_while(self, deep: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        form_of(deep, "build_index")
        import refseg.images.pixel_ranges

        monkeypatch.setattr(refseg.images.pixel_ranges, "pixel_needs", lambda paths: pytest.fail("files were opened again"))
        assert "channels" in form_of(deep, "build_index")

    @pytest.mark.parametrize("name", ASKING)
    @pytest.mark.parametrize(
        ("field", "given", "words"),
        [
            ("pixel_range", "0", "pixel_range must be two numbers, of black and the higher one of white, not (0,)."),
            ("pixel_range", "low, high", "pixel_range must be two numbers, of black and the higher one of white, not"),
            ("pixel_range", "4095 0", "pixel_range must be two numbers, of black and the higher one of white, not (4"),
            ("pixel_range", "0 nan", "pixel_range must be two numbers, of black and the higher one of white, not (0"),
            ("channels", "1 2", "channels must be one or three bands, counted from 0, not (1, 2)."),
            ("channels", "0 1 -2", "channels must be one or three bands, counted from 0, not (0, 1, -2)."),
            ("channels", "red", "channels must be one or three bands, counted from 0, not ('red',)."),
        ],
    )
    @pytest.mark.sampled(3)
    def test_what_cannot_be(self, with_prototypes: fo.Dataset, name: str, field: str, given: str, words: str) -> None:
        problem = problems_of(form_of(with_prototypes, name, {field: given}))[field]
        assert problem.startswith(words)
        assert problem.count(".") == 1
        with pytest.raises(ExecutionError, match="must be"):
            foo.get_operator(uri(name))(with_prototypes, **{field: given})

    @pytest.mark.parametrize("given", ["0 4080", "0, 4080", "(0, 4080.0)", "[0 4080]", " 0   4.08e3 "])
    def test_how_numbers_may_be_typed(self, deep: fo.Dataset, given: str) -> None:
        call("build_prototypes", deep, model="demo", calibrates=False, pixel_range=given, channels="1,2,3")
        assert kept_pixels(deep) == "pixel_range=(0, 4080), channels=(1, 2, 3)"


class TestMismatches:
    def test_of_prototypes(self, deep: fo.Dataset) -> None:
        call("build_prototypes", deep, model="demo", calibrates=False, **READ)
        form = form_of(deep, "segment", {"pixel_range": "0 1000", "channels": "0 1 2"})
        what = "The prototypes 'prototypes' were built with pixel_range=(0, 4080), channels=(1, 2, 3)"
        told = f"{what}: leave this empty, or build them anew with this."
        assert problems_of(form) == dict.fromkeys(("pixel_range", "channels"), told)
        assert problems_of(form_of(deep, "segment", {"pixel_range": "0 4080", "channels": "1 2 3"})) == {}
        form = form_of(deep, "segment")
        assert form["pixel_range"]["view"]["description"].endswith("by default 0 4080, as before")
        assert form["channels"]["view"]["description"].endswith("by default 1 2 3, as before")

    def test_prototypes_may_be_of_other_images(self, deep: fo.Dataset, prototypes: Prototypes) -> None:
        save_prototypes(deep, prototypes, "parts")
        assert "channels_of_references" not in form_of(deep, "segment")
        form = form_of(deep, "segment", {"channels": "1 2 3"})
        assert problems_of(form) == {}
        assert form["channels_of_references"]["view"]["label"] == (
            "The prototypes 'parts' were built with no channels chosen: if their references have more than three bands too, "
            "build them anew with these."
        )

    def test_those_of_an_earlier_version_do_not_tell(self, deep: fo.Dataset, prototypes: Prototypes) -> None:
        save_prototypes(deep, prototypes, "parts")
        config = deep.get_run_info("parts").config
        del config.pixels
        deep.update_run_config("parts", config)
        assert problems_of(form_of(deep, "segment", {"pixel_range": "0 4080", "channels": "1 2 3"})) == {}

    def test_of_the_index(self, deep: fo.Dataset) -> None:
        call("build_index", deep[:1], model="demo", pixel_range=RANGE)
        for name in ("build_prototypes", "learn", "segment_with_references"):
            params = {"model": "demo", "pixel_range": "0 1000", "channels": "1 2 3"}
            problems = problems_of(form_of(deep, name, params))
            # The first three bands, which nobody chose, are others than those asked for too.
            what = "The index for the model 'demo' was built with pixel_range=(0, 4080), channels=(0, 1, 2)"
            told = f"{what}: leave this empty, or run 'Build index' with this first."
            assert problems == dict.fromkeys(("pixel_range", "channels"), told)
        # Nothing is compared with the index where nothing is calibrated.
        assert problems_of(form_of(deep, "build_prototypes", {**params, "calibrates": False})) == {}
        call("build_index", deep[:1], model="demo", pixel_range=(0, 1000), channels=CHANNELS)
        assert problems_of(form_of(deep, "learn", params)) == {}

    def test_of_both_is_a_sentence_of_the_run(self, deep: fo.Dataset) -> None:
        call("build_prototypes", deep, model="demo", calibrates=False, **READ)
        call("build_index", deep[:1], model="demo", pixel_range=(0, 1000), channels=CHANNELS)
        (note,) = named(run_in_app(deep, "segment"), "notify")
        assert note["variant"] == "error"
        assert note["message"].startswith(
            "These prototypes were built with pixel_range=(0, 4080), channels=(1, 2, 3), but the index at "
        )
        assert "\n" not in note["message"]


class TestRuns:
    def test_read_rightly_they_are_the_images_of_eight_bits(
        self,
        deep: fo.Dataset,
        make_dataset: Callable[..., fo.Dataset],
        scenes: list[tuple[Path, Scene]],
        prototypes: Prototypes,
    ) -> None:
        call("build_prototypes", deep[:1], model="demo", calibrates=False, **READ)
        found = load_prototypes(deep, "prototypes")
        np.testing.assert_array_equal(np.asarray(found.matrix), np.asarray(prototypes.matrix))
        # Prototypes of eight bits leave it to the run.
        plain = make_dataset([fo.Sample(str(path)) for path, _ in scenes])
        boxes = []
        for dataset, read in ((plain, {}), (deep, READ)):
            save_prototypes(dataset, prototypes, "parts")
            assert call("segment", dataset, "parts", index=False, **read)["num_instances"] > 0
            boxes.append(dataset.values("predictions.detections.bounding_box"))
        assert boxes[0] == boxes[1]

    @pytest.mark.thorough
    def test_in_every_step(self, deep: fo.Dataset) -> None:
        result = call("segment_with_references", deep, model="demo", evaluate=False, **READ)
        assert result["segmentation"]["num_instances"] > 0
        assert kept_pixels(deep) == "pixel_range=(0, 4080), channels=(1, 2, 3)"
        # Calibrating has made the index, as the prototypes are.
        assert indexes(deep) == [[list(RANGE), list(CHANNELS)]]
        assert call("segment", deep, **READ)["num_from_index"] == len(deep)
        assert call("segment", deep)["num_from_index"] == len(deep)
        call("learn", deep, model="demo", only_prototypes=True)
        assert kept_pixels(deep) == "pixel_range=(0, 4080), channels=(1, 2, 3)"

    def test_the_index_follows_prototypes(self, deep: fo.Dataset) -> None:
        call("build_prototypes", deep, model="demo", calibrates=False, **READ)
        assert call("build_index", deep)["num_added"] == len(deep)
        assert indexes(deep) == [[list(RANGE), list(CHANNELS)]]
        assert call("build_index", deep)["num_added"] == 0
        coverage = form_of(deep, "build_index")["coverage"]["view"]["label"]
        assert coverage == "All 4 images are indexed: only files that have changed are computed again."
        # Another one, of which nothing is there yet.
        coverage = form_of(deep, "build_index", {"channels": "0 1 2"})["coverage"]["view"]["label"]
        assert coverage.startswith("None of the 4 images is indexed yet")

    def test_learn_and_delegated_jobs(self, deep: fo.Dataset) -> None:
        execution = foo.get_operator(uri("learn"))(deep, model="demo", only_prototypes=True, delegate=True, **READ)
        assert run_delegated(execution).run_state == "completed"
        deep.reload()
        assert kept_pixels(deep) == "pixel_range=(0, 4080), channels=(1, 2, 3)"
        execution = foo.get_operator(uri("build_index"))(deep, model="demo", delegate=True)
        assert run_delegated(execution).run_state == "completed"
        assert indexes(deep) == [[list(RANGE), list(CHANNELS)]]


class TestPanel:
    def test_its_index_and_runs_stay_with_what_was_said(self, deep: fo.Dataset) -> None:
        choose(deep, model="demo")
        call("learn", deep, model="demo", only_prototypes=True, **READ)
        assert run_job(deep, "index").data["index"]["num_indexed"] == len(deep)
        assert run_job(deep, "segment").data["segment"]["run"]["state"] == "completed"
        assert indexes(deep) == [[list(RANGE), list(CHANNELS)]]

    @pytest.mark.thorough
    def test_another_range_is_to_be_learnt(self, deep: fo.Dataset) -> None:
        choose(deep, model="demo")
        call("learn", deep, model="demo", only_prototypes=True, calibrates=False, **READ)
        assert section(deep, "references")["pending"] is None
        call("build_index", deep, model="demo", pixel_range=(0, 2000), channels=CHANNELS)
        assert section(deep, "references")["pending"] == "how the index reads pixels"
        answer = run_job(deep, "segment")
        assert [variant for variant, _ in answer.notes] == ["success"]
        assert answer.data["references"]["pending"] is None
        assert kept_pixels(deep) == "pixel_range=(0, 2000), channels=(1, 2, 3)"
        assert press(deep, "load").notes == []
