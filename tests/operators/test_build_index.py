"""Building an index: from Python, from the App and as a delegated job."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError, Executor

import refseg.dataset.indexing
from refseg.dataset.index_place import IndexPlace
from refseg.dataset.store import dataset_folder
from tests.operators.helpers import app_request, broken, call, form_of, named, run_delegated, run_in_app, uri
from tests.operators.indexed import notes, notice, opened, records

pytestmark = pytest.mark.usefixtures("true_candidates")


class TestBuildIndex:
    def test_from_python(self, with_prototypes: fo.Dataset) -> None:
        result = call("build_index", with_prototypes)
        assert result == {
            "uri": records(with_prototypes)[0]["uri"],
            "num_images": 4,
            "num_added": 4,
            "num_candidates": 8,
            "num_bytes": opened(with_prototypes).index.num_bytes,
            "bytes_per_image": result["num_bytes"] // 4,
            "num_skipped": 0,
            "num_vanished": 0,
            "skipped": [],
            "seconds": result["seconds"],
        }
        assert result["seconds"] > 0
        # The model of the newest prototypes.
        assert records(with_prototypes)[0]["model"] == "demo"
        assert call("build_index", with_prototypes)["num_added"] == 0

    def test_in_the_app(self, parts: fo.Dataset, tmp_path: Path) -> None:
        path = broken(parts, tmp_path)
        chosen = parts.values("id")[1:]
        messages = run_in_app(parts, "build_index", {"model": "demo", "view_target": "SELECTED_SAMPLES"}, selected=chosen)
        steps = named(messages, "set_progress")
        assert steps[0] == {"label": "images: 0 of 3", "progress": 0.0}
        assert steps[-1] == {"label": "images: 3 of 3", "progress": 1.0}
        (note,) = notes(messages)
        assert note["variant"] == "warning"
        assert note["message"].startswith("2 images in the index, 2 images added in ")
        assert "an image. Skipped 1 image: " + path in note["message"]
        assert set(opened(parts).index.images) == set(chosen[:2])

    def test_nothing_new_in_the_app(self, indexed: fo.Dataset) -> None:
        messages = run_in_app(indexed, "build_index", view=indexed.limit(3))
        size = records(indexed)[0]["num_bytes"]
        assert notes(messages) == [
            {
                "message": f"3 images in the index, none added; {size / 1e3:.0f} KB, {size / 3e3:.0f} KB an image.",
                "variant": "success",
            }
        ]

    def test_delegated(self, parts: fo.Dataset) -> None:
        done = run_delegated(foo.get_operator(uri("build_index"))(parts.limit(2), model="demo", delegate=True))
        assert done.run_state == "completed"
        assert done.status.label == "images: 2 of 2"
        assert done.result.result["num_added"] == 2

    @pytest.mark.usefixtures("every_step")
    def test_cancelled_half_way_it_goes_on_where_it_was(self, parts: fo.Dataset) -> None:
        operator = foo.get_operator(uri("build_index"))
        request = app_request(parts, "build_index", {"model": "demo"})
        stream = operator.execute(foo.ExecutionContext(request, executor=Executor(), operator_uri=operator.uri))
        next(message for message in stream if message.body.params.get("progress", 0) >= 0.5)
        assert len(call("cancel", parts)["cancelled"]) == 1
        rest = [message.to_json()["body"] for message in stream]
        text = "Build index was cancelled; the images done so far are kept, and the next build goes on from there."
        assert notes(rest) == [{"message": text, "variant": "info"}]
        assert list(opened(parts).index.images) == parts.values("id")[:2]
        assert notice(parts, "build_index", {"model": "demo"}).startswith("2 of 4 images are indexed; the other 2 take about ")
        result = call("build_index", parts, model="demo")
        assert (result["num_added"], result["num_images"]) == (2, 4)

    def test_file_contents(self, parts: fo.Dataset, tmp_path: Path) -> None:
        for sample in parts:
            sample.filepath = shutil.copy(sample.filepath, tmp_path)
            sample.save()
        call("build_index", parts, model="demo", content_hash=True)
        os.utime(parts.first().filepath, (1, 1))
        assert call("build_index", parts, model="demo", content_hash=True)["num_added"] == 0
        os.utime(parts.first().filepath, (2, 2))
        assert call("build_index", parts, model="demo")["num_added"] == 1

    def test_near_duplicates(self, indexed: fo.Dataset) -> None:
        assert call("build_index", indexed.limit(1), exact=True)["num_added"] == 1
        assert [record["exact"] for record in records(indexed)] == [False, True]
        assert notice(indexed, "build_index", {"exact": True}).startswith("1 of 4 images are indexed; the other 3 take")
        assert notice(indexed, "build_index").startswith("3 of 4 images are indexed; the other 1 takes")

    def test_model_that_keeps_near_duplicates_is_not_asked(self, parts: fo.Dataset) -> None:
        assert "exact" in form_of(parts, "build_index", {"model": "large"})
        assert "exact" not in form_of(parts, "build_index", {"model": "paper"})

    def test_unticked_box_leaves_the_choice_to_the_preset(self, parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[bool | None] = []
        real = refseg.dataset.indexing.iter_build_index

        def iter_build_index(view: Any, model: str, place: IndexPlace, **options: Any) -> Any:
            asked.append(place.exact)
            return real(view, model, place, **options)

        monkeypatch.setattr(refseg.dataset, "iter_build_index", iter_build_index)
        for exact in (False, True):
            call("build_index", parts.limit(1), model="demo", exact=exact)
        assert asked == [None, True]

    @pytest.mark.usefixtures("allowed")
    def test_location(self, indexed: fo.Dataset, tmp_path: Path) -> None:
        place = str(tmp_path / "there")
        form = form_of(indexed, "build_index", {"uri": place})
        before = records(indexed)[0]["uri"]
        assert form["elsewhere"]["view"]["label"].startswith(f"The dataset's index for the model 'demo' lies at {before}.")
        assert call("build_index", indexed, uri=place)["uri"] == place
        assert [record["uri"] for record in records(indexed)] == [place]
        form = form_of(indexed, "build_index", {"uri": f"{place}/"})
        assert "elsewhere" not in form
        assert form["uri"]["view"]["description"].endswith(f"by default {place}")

    def test_place_of_another_index(self, indexed: fo.Dataset) -> None:
        place = records(indexed)[0]["uri"]
        messages = run_in_app(indexed, "build_index", {"uri": place, "exact": True})
        text = f"The candidate index at {place} was built for exact False, not True: choose another place for this one."
        assert notes(messages) == [{"message": text, "variant": "error"}]


def test_an_index_lies_in_the_datasets_folder(indexed: fo.Dataset) -> None:
    assert Path(records(indexed)[0]["uri"]).is_relative_to(dataset_folder(indexed))


class TestRoom:
    def test_form_says_what_it_takes(self, parts: fo.Dataset) -> None:
        about = form_of(parts, "build_index", {"model": "large"})["room"]["view"]["label"]
        assert re.fullmatch(r"It will take about [\d.]+ MB, [\d.,]+ GB free\.", about)
        assert "insist" not in form_of(parts, "build_index", {"model": "large"})

    def test_form_asks_whether_to_begin_anyway(self, parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: 1000)
        form = form_of(parts, "build_index", {"model": "demo"})
        assert form["room"]["invalid"]
        assert "1 KB free: free some space" in str(form["room"])
        assert not form_of(parts, "build_index", {"model": "demo", "insist": True})["room"]["invalid"]
        with pytest.raises(ExecutionError, match="free some space"):
            call("build_index", parts, model="demo")
        assert call("build_index", parts.limit(1), model="demo", insist=True)["num_added"] == 1

    @pytest.mark.usefixtures("allowed")
    def test_another_location_begins_with_nothing(
        self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        call("build_index", indexed)
        monkeypatch.setattr("refseg.index.space.free_bytes", lambda place: 1000)
        assert "room" not in form_of(indexed, "build_index", {"model": "demo"})
        form = form_of(indexed, "build_index", {"model": "demo", "uri": str(tmp_path / "there")})
        assert form["room"]["invalid"]
        assert "insist" in form

    @pytest.mark.usefixtures("allowed")
    def test_a_name_that_no_file_can_have(self, parts: fo.Dataset, tmp_path: Path) -> None:
        assert "room" in form_of(parts, "build_index", {"model": "demo", "uri": str(tmp_path / ("a" * 300))})


class TestEngine:
    def test_is_asked_for_where_ray_is(self, parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        form = form_of(parts, "build_index", {"model": "demo"})
        assert [choice["value"] for choice in form["engine"]["view"]["choices"]] == ["local", "ray"]
        assert "num_workers" not in form
        assert "num_workers" in form_of(parts, "build_index", {"model": "demo", "engine": "ray"})
        assert form_of(parts, "build_index", {"model": "demo", "engine": "mars"})["engine"]["invalid"]
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert "engine" not in form_of(parts, "build_index", {"model": "demo"})

    def test_reaches_the_library(self, parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        told: dict[str, Any] = {}
        real = refseg.dataset.indexing.iter_build_index

        def iter_build_index(*arguments: Any, engine: str, num_workers: int | None, **options: Any) -> Any:
            told.update(engine=engine, num_workers=num_workers)
            return real(*arguments, **options)

        monkeypatch.setattr("refseg.dataset.iter_build_index", iter_build_index)
        call("build_index", parts, model="demo", engine="ray", num_workers=2)
        assert told == {"engine": "ray", "num_workers": 2}
        call("build_index", parts, model="demo")
        assert told == {"engine": "local", "num_workers": None}
