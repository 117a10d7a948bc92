"""Weights from files: kept with the dataset, loaded by every job, and refused by a sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionError

from operators.forms.weights import files_of, keep_files, using_files, with_files
from refseg.models.loaded import load_models, unload_models
from refseg.models.local_files import files_for
from refseg.models.presets import DEMO_WEIGHTS
from tests.operators.app_panel import context, failures, press, run_job, section
from tests.operators.helpers import call, form_of, named, problems_of, run_in_app

NOTHING = {"sam2_path": None, "dinov2_path": None, "since": 0.0}


@pytest.fixture
def weights(allowed: Path) -> Iterator[Path]:
    """The demo's weights in a folder that a browser may name."""
    folder = allowed / "weights"
    shutil.copytree(DEMO_WEIGHTS, folder)
    yield folder
    unload_models()


@pytest.fixture
def broken(weights: Path) -> str:
    (weights / "broken.safetensors").write_bytes(b"no weights")
    return str(weights / "broken.safetensors")


def use(dataset: fo.Dataset, **paths: Any) -> Any:
    return press(dataset, "use_files", paths)


class TestThePanel:
    def test_keeps_them_for_the_chosen_model(self, parts: fo.Dataset, weights: Path) -> None:
        press(parts, "choose", {"changes": {"model": "demo-fast"}})
        sam2 = str(weights / "sam2.safetensors")
        answer = use(parts, sam2_path=sam2)
        assert answer.result == {"problem": None}
        assert answer.data["index"]["files"] == {"sam2_path": sam2, "dinov2_path": None}
        assert use(parts, dinov2_path=str(weights / "dinov2")).result == {"problem": None}
        # Presets that differ in their prompts share their models.
        found = files_of(context(parts), "demo")
        assert (found["sam2_path"], found["dinov2_path"]) == (sam2, str(weights / "dinov2"))
        assert files_of(context(parts), "tiny") == NOTHING
        use(parts, sam2_path="")
        assert section(parts, "index")["files"] == {"sam2_path": None, "dinov2_path": str(weights / "dinov2")}

    def test_says_what_cannot_be(self, parts: fo.Dataset, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        outside = tmp_path_factory.mktemp("outside") / "sam2.pt"
        outside.write_bytes(b"")
        (weights / "dinov2" / "config.json").unlink()
        for paths, sentence in (
            ({"sam2_path": str(outside)}, "does not lie in a folder that the App may use"),
            ({"dinov2_path": str(outside.parent)}, "does not lie in a folder that the App may use"),
            ({"sam2_path": "sam2.pt"}, "'sam2.pt' is not a whole path: begin with '/'."),
            ({"sam2_path": 7}, "7 is not a whole path"),
            ({"sam2_path": str(weights)}, f"There is no file at '{weights}': give a SAM 2 checkpoint"),
            ({"dinov2_path": str(weights / "dinov2")}, "lacks config.json: give one of DINOv2 that save_pretrained wrote."),
        ):
            assert sentence in use(parts, **paths).result["problem"], paths
        assert files_of(context(parts), "demo") == NOTHING

    def test_a_segmenter_of_transformers_is_a_folder(self, parts: fo.Dataset, weights: Path) -> None:
        folder = weights / "dinov2"
        assert section(parts, "index")["weights"]["sam2_path"][0] == "SAM 2 checkpoint"
        press(parts, "choose", {"changes": {"model": "edge"}})
        assert section(parts, "index")["weights"]["sam2_path"][0] == "Segmenter folder"
        problem = use(parts, sam2_path=str(weights / "sam2.safetensors")).result["problem"]
        assert problem.endswith(
            "lacks config.json and model.safetensors: give one of the segmenter of 'edge' that save_pretrained wrote."
        )
        assert use(parts, sam2_path=str(folder)).result == {"problem": None}
        assert files_of(context(parts), "edge-fast")["sam2_path"] == str(folder)

    @pytest.mark.thorough
    def test_an_index_of_other_weights_is_not_counted(self, parts: fo.Dataset, weights: Path) -> None:
        press(parts, "choose", {"changes": {"model": "demo"}})

        def counted() -> tuple[int, int, bool]:
            shown = section(parts, "index")
            (label,) = (choice["label"] for choice in shown["models"] if choice["name"] == "demo")
            return shown["num_indexed"], shown["num_images"], label.endswith("all indexed")

        number = len(parts)
        assert counted() == (0, number, False)
        run_job(parts, "index")
        assert counted() == (number, number, True)
        use(parts, sam2_path=str(weights / "sam2.safetensors"))
        assert counted() == (0, number, False)
        # They are the same weights, in another place.
        assert run_job(parts, "index").notes[0][0] == "success"
        assert counted() == (number, number, True)

    def test_jobs_load_them(self, parts: fo.Dataset, weights: Path, broken: str) -> None:
        press(parts, "choose", {"changes": {"model": "demo"}})
        use(parts, sam2_path=broken)
        assert run_job(parts, "index").notes == []
        assert failures(parts)["index"]["text"].startswith(f"{broken} is not a complete safetensors file")
        # Those of before were of other weights.
        assert run_job(parts, "learn").notes == []
        assert failures(parts)["references"]["text"].startswith(f"{broken} is not a complete safetensors file")
        use(parts, sam2_path=str(weights / "sam2.safetensors"))
        assert run_job(parts, "learn").notes[0][0] == "success"
        assert section(parts, "references")["pending"] is None
        use(parts, sam2_path="")
        assert section(parts, "references")["pending"] == "weights from other files"


class TestOperators:
    def test_keep_what_they_are_given(self, parts: fo.Dataset, weights: Path, broken: str) -> None:
        with pytest.raises(ExecutionError, match="is not a complete safetensors file"):
            call("build_index", parts, model="demo", sam2_path=broken)
        assert files_of(context(parts), "demo")["sam2_path"] == broken
        # Whatever comes next loads them too, with or without a model's name.
        with pytest.raises(ExecutionError, match="is not a complete safetensors file"):
            call("build_prototypes", parts, model="demo")
        call("build_prototypes", parts, model="demo", sam2_path="", name="parts")
        assert files_of(context(parts), "demo")["sam2_path"] is None
        with pytest.raises(ExecutionError, match="sam2_path are files of a model: say which, as model"):
            call("build_index", parts, sam2_path=str(weights / "sam2.safetensors"))

    def test_forms_ask_for_them_behind_a_switch(self, parts: fo.Dataset, weights: Path, broken: str) -> None:
        assert "sam2_path" not in form_of(parts, "build_index", {"model": "demo"})
        form = form_of(parts, "build_index", {"model": "demo", "without_download": True, "sam2_path": str(weights)})
        assert problems_of(form)["sam2_path"].startswith("There is no file at")
        # What was typed before the switch was turned off again does not count.
        (note,) = named(
            run_in_app(parts, "build_index", {"model": "demo", "without_download": False, "sam2_path": broken}), "notify"
        )
        assert note["variant"] == "success"


def test_each_step_by_itself(parts: fo.Dataset, weights: Path) -> None:
    """FiftyOne may take the next one in another thread, and what runs between two steps must not load them."""
    ctx = context(parts)
    keep_files(ctx, "demo", {"sam2_path": str(weights / "sam2.safetensors")})

    def work() -> Any:
        yield files_for("demo")[0]
        yield files_for("demo-fast")[0]
        return files_for("demo")[0]

    wanted, steps = str(weights / "sam2.safetensors"), with_files(ctx, work())
    assert next(steps) == wanted
    assert files_for("demo") == (None, None)
    assert next(steps) == wanted
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == wanted
    with using_files(ctx):
        revision = load_models("demo").revisions["sam2"]
    assert revision == load_models("demo").revisions["sam2"]


def test_of_another_dataset(make_dataset: Callable[..., fo.Dataset], parts: fo.Dataset, weights: Path) -> None:
    keep_files(context(parts), "demo", {"sam2_path": str(weights / "sam2.safetensors")})
    assert files_of(context(make_dataset([fo.Sample("a.png")])), "demo") == NOTHING
