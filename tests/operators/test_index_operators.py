"""The operators around the candidate index: from Python, from the App and as delegated jobs.

Candidates are the labelled objects, features and all that follows are real.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import lance
import pytest
from fiftyone.operators.executor import ExecutionError, Executor

import refseg.dataset.indexing
from operators.forms.indexes import Coverage
from refseg.dataset.index import DatasetIndex
from refseg.dataset.index_finding import open_index
from refseg.dataset.index_place import IndexPlace
from refseg.dataset.index_records import index_records
from refseg.dataset.store import dataset_folder
from tests.operators.helpers import (
    app_request,
    broken,
    call,
    form_of,
    named,
    problems_of,
    run_delegated,
    run_in_app,
    uri,
)
from tests.operators.test_register import HEAVY
from tests.trays import propose_truth

Notes = list[dict[str, Any]]


@pytest.fixture
def parts(parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Four images whose candidates are their two labelled objects, computed one image at a time."""
    propose_truth(monkeypatch, parts)
    monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", {"cpu": 1, "mps": 1, "cuda": 1})
    return parts


@pytest.fixture
def indexed(with_prototypes: fo.Dataset) -> fo.Dataset:
    """The same with prototypes and an index of the first three images."""
    call("build_index", with_prototypes.limit(3))
    with_prototypes.reload()
    return with_prototypes


def notes(messages: list[dict]) -> Notes:
    return named(messages, "notify")


def notice(dataset: fo.Dataset, operator: str, params: dict[str, Any] | None = None, **more: Any) -> str:
    """What the form says about the index, without the time."""
    return form_of(dataset, operator, params, **more)["coverage"]["view"]["label"]


def records(dataset: fo.Dataset) -> list[dict[str, Any]]:
    dataset.reload()
    return index_records(dataset)


def opened(dataset: fo.Dataset) -> DatasetIndex:
    dataset.reload()
    return open_index(dataset)


def picked(sample: fo.Sample, number: int = 0, field: str = "ground_truth") -> dict[str, Any]:
    """A label as the App names a selected one."""
    return {"label_id": sample[field].detections[number].id, "sample_id": sample.id, "field": field}


def no_lance(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an App whose server has not used an index yet."""
    monkeypatch.delitem(sys.modules, "lance")


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


class TestCoverage:
    """What forms say about the index."""

    @pytest.mark.parametrize(
        ("coverage", "words"),
        [
            (Coverage(1000, 1000, 0, 0.5), "All 1,000 images are indexed: segmenting takes seconds."),
            (Coverage(50_000, 50_000, 0, 0.5), "All 50,000 images are indexed: segmenting takes a few milliseconds each."),
            (Coverage(None, None, 0, None), "All images chosen are indexed: segmenting takes a few milliseconds each."),
            (Coverage(1, 1, 0, 0.5), "The image is indexed: segmenting takes seconds."),
            (Coverage(0, 0, 0, 0.5), "There are no images in it."),
            (Coverage(1000, 812, 188, 0.64), "812 of 1,000 images are indexed; the other 188 take about 2 min."),
            (Coverage(1000, 999, 1, 0.64), "999 of 1,000 images are indexed; the other 1 takes about 1 s."),
            (Coverage(1000, 812, 188, None), "812 of 1,000 images are indexed; the other 188 are computed once and kept."),
            (Coverage(1000, 0, 1000, None), "None of the 1,000 images is indexed yet: each is computed once and kept."),
            (
                Coverage(1000, 0, 1000, 9.0),
                "None of the 1,000 images is indexed yet: each is computed once and kept, about 2.5 h in all.",
            ),
            (Coverage(None, 0, 90, 9.0), "None of the images chosen is indexed yet: each is computed once and kept."),
            (Coverage(1, 0, 1, 9.0), "The image is not indexed yet: it is computed once and kept, about 9 s."),
            (Coverage(300, None, 188, 0.64), "Up to 188 of the 300 images are not indexed yet: 2 min at most."),
            (Coverage(None, None, 188, None), "Up to 188 of the images chosen are not indexed yet."),
        ],
    )
    def test_words(self, coverage: Coverage, words: str) -> None:
        assert coverage.describe_segment() == words

    @pytest.mark.parametrize("operator", ["segment", "segment_with_references", "build_index"])
    def test_whole_dataset(self, operator: str, with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        words = "None of the 4 images is indexed yet: each is computed once and kept."
        assert notice(with_prototypes, operator) == words
        call("build_index", with_prototypes.limit(3))
        assert notice(with_prototypes, operator).startswith("3 of 4 images are indexed; the other 1 takes about ")
        with monkeypatch.context() as without:
            no_lance(without)
            assert notice(with_prototypes, operator).startswith("3 of 4 images are indexed; the other 1 takes about ")
        call("build_index", with_prototypes)
        assert notice(with_prototypes, operator).startswith("All 4 images are indexed: ")

    def test_images_chosen(self, indexed: fo.Dataset) -> None:
        view = indexed.skip(2)
        assert notice(indexed, "segment", view=view).startswith("1 of 2 images are indexed; the other 1 takes about ")
        chosen = [indexed.last().id]
        text = notice(indexed, "segment", {"view_target": "SELECTED_SAMPLES"}, selected=chosen)
        assert text.startswith("The image is not indexed yet: it is computed once and kept, about ")
        patches = indexed.limit(2).to_patches("ground_truth")
        assert notice(indexed, "segment", view=patches) == "All 2 images are indexed: segmenting takes seconds."

    def test_images_chosen_before_an_index_was_used_here(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        no_lance(monkeypatch)
        assert notice(indexed, "segment", view=indexed.skip(2)).startswith("Up to 1 of the 2 images are not indexed yet: ")
        call("build_index", indexed)
        no_lance(monkeypatch)
        assert notice(indexed, "segment", view=indexed.skip(2)) == "All 2 images are indexed: segmenting takes seconds."

    def test_more_images_than_are_compared(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds = type(foo.get_operator(uri("segment"))).resolve_input.__globals__
        loaded = sys.modules[kinds["coverage"].__module__]
        monkeypatch.setattr(loaded, "IMAGES_COMPARED", 1)
        assert notice(indexed, "segment", view=indexed.skip(2)).startswith("Up to 1 of the images chosen are not indexed yet: ")

    def test_forgotten_images_do_not_count(self, indexed: fo.Dataset) -> None:
        opened(indexed).index.forget([indexed.first().id])
        assert notice(indexed, "segment", view=indexed.limit(3)).startswith("2 of 3 images are indexed; the other 1 takes")

    def test_folder_that_is_gone_holds_nothing(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.rmtree(records(indexed)[0]["uri"])
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet: each is computed once and kept, ")
        no_lance(monkeypatch)
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet: each is computed once and kept, ")

    def test_table_that_cannot_be_read_is_taken_at_its_records_word(self, indexed: fo.Dataset) -> None:
        for path in Path(records(indexed)[0]["uri"]).glob("images.lance/data/*"):
            path.write_bytes(b"")
        assert notice(indexed, "segment").startswith("3 of 4 images are indexed; the other 1 takes about ")

    def test_prototypes_of_another_encoder(self, indexed: fo.Dataset) -> None:
        config = indexed.get_run_info("parts").config
        config.fingerprint = "another"
        indexed.update_run_config("parts", config)
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet")

    def test_clone_has_no_index_of_its_own(self, indexed: fo.Dataset) -> None:
        clone = indexed.clone()
        try:
            assert notice(clone, "segment").startswith("None of the 4 images is indexed yet")
            assert "index" in problems_of(form_of(clone, "delete_index"))
        finally:
            clone.delete()

    def test_slices_of_groups(
        self, make_dataset: Callable[..., fo.Dataset], parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = make_dataset()
        dataset.add_group_field("group", default="left")
        samples = []
        for path in parts.values("filepath")[:2]:
            group = fo.Group()
            samples += [fo.Sample(path, group=group.element(name)) for name in ("left", "right")]
        dataset.add_samples(samples, progress=False)
        assert notice(dataset, "build_index", {"model": "demo"}).startswith("None of the 2 images is indexed yet")
        call("build_index", dataset, model="demo")
        assert notice(dataset, "build_index", {"model": "demo"}).startswith("All 2 images are indexed")
        assert notice(dataset, "build_index", {"model": "demo"}, group_slice="right").startswith("None of the 2 images")
        no_lance(monkeypatch)
        # The index holds as many images as there are groups, but each group has two.
        assert notice(dataset, "build_index", {"model": "demo"}, group_slice="right").startswith("Up to 2 of the 2 images")

    def test_forms_load_nothing_heavy(self, indexed: fo.Dataset) -> None:
        names = ["segment", "segment_with_references", "build_index", "index_status", "delete_index", "find_similar"]
        code = (
            "import sys, fiftyone as fo\n"
            "from tests.operators.helpers import form_of\n"
            f"dataset = fo.load_dataset({indexed.name!r})\n"
            f"forms = [form_of(dataset, name, view=dataset.limit(2)) for name in {names!r}]\n"
            "assert all(forms) and not any('dataset_problem' in form for form in forms)\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules])"
        )
        indexed.persistent = True
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == "[]"


class TestSegment:
    def test_index_is_read_and_filled(self, indexed: fo.Dataset) -> None:
        first = call("segment", indexed, "parts", min_confidence=0.0)
        assert (first["num_images"], first["num_from_index"], first["num_written"]) == (4, 3, 4)
        assert (first["preview"], first["best"], first["num_left_out"], first["index_trouble"]) == (False, [], 0, None)
        messages = run_in_app(indexed, "segment", {"min_confidence": 0.0, "run_key": "again"})
        text = (
            f"{first['num_instances']} instances in 4 images (4 from the index), in the field 'predictions' (run 'again'). "
            "Nothing has changed since the last run."
        )
        assert notes(messages) == [{"message": text, "variant": "success"}]
        again = indexed.get_run_info("again").config
        assert (again.num_from_index, again.num_written) == (4, 0)

    def test_without_the_index(self, with_prototypes: fo.Dataset) -> None:
        text = notice(with_prototypes, "segment", {"index": False})
        assert text == "Each of 4 images is computed, and nothing is kept."
        result = call("segment", with_prototypes, "parts", index=False)
        assert (result["num_images"], result["num_from_index"]) == (4, 0)
        assert records(with_prototypes) == []
        run_in_app(with_prototypes, "segment", {"index": False})
        assert records(with_prototypes) == []
        call("build_index", with_prototypes)
        text = notice(with_prototypes, "segment", {"index": False})
        assert text.startswith("Each of 4 images is computed, about ")
        assert text.endswith(" in all, and nothing is kept.")

    def test_preview_from_python(self, indexed: fo.Dataset) -> None:
        result = call("segment", indexed, "parts", min_confidence=0.0, preview=True)
        assert (result["preview"], result["num_images"], result["num_left_out"]) == (True, 3, 1)
        assert [sample_id for sample_id, _ in result["best"]] != []
        scores = [score for _, score in result["best"]]
        assert scores == sorted(scores, reverse=True)
        indexed.reload()
        assert set(indexed.exists("predictions").values("id")) == {sample_id for sample_id, _ in result["best"]}

    def test_preview_in_the_app_shows_the_best_first(self, indexed: fo.Dataset) -> None:
        params = {"preview": True, "min_confidence": 0.0, "run_key": "best"}
        assert notice(indexed, "segment", params) == "3 of 4 images are indexed and ranked, which takes seconds."
        messages = run_in_app(indexed, "segment", params)
        order = [message["operator_uri"] for message in messages if message["operator_uri"] != "set_progress"]
        assert order == ["reload_dataset", "set_view", "notify"]
        indexed.reload()
        scores = {
            sample.id: max(label.confidence for label in sample.predictions.detections)
            for sample in indexed.exists("predictions")
        }
        stages = named(messages, "set_view")[0]["view"]
        view = fo.DatasetView._build(indexed, stages)
        assert view.values("id") == sorted(scores, key=lambda name: -scores[name])
        (note,) = notes(messages)
        assert note["variant"] == "warning"
        assert note["message"].startswith("The best 3 of 3 images, best first: ")
        assert note["message"].endswith(" Left out 1 image not indexed: run 'Build index' to see them too.")

    def test_preview_that_finds_nothing(self, indexed: fo.Dataset) -> None:
        messages = run_in_app(indexed, "segment", {"preview": True, "min_confidence": 1.0}, view=indexed.limit(3))
        assert named(messages, "set_view") == []
        text = "None of 3 images has an instance above the minimum confidence."
        assert notes(messages) == [{"message": text, "variant": "success"}]

    def test_preview_of_images_that_are_not_indexed(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        view = indexed.skip(3)
        sentence = "A preview looks at indexed images alone, and none of these is indexed yet: run 'Build index' first."
        form = form_of(indexed, "segment", {"preview": True}, view=view)
        assert problems_of(form) == {"preview": sentence}
        assert "coverage" not in form
        # Where the form cannot know it, the library says so.
        no_lance(monkeypatch)
        assert problems_of(form_of(indexed, "segment", {"preview": True}, view=view)) == {}
        (note,) = notes(run_in_app(indexed, "segment", {"preview": True}, view=view))
        assert note["variant"] == "error"
        assert note["message"].startswith("A preview looks at indexed images alone, and none of these is indexed")

    def test_full_disk(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        real = lance.write_dataset

        def write_dataset(*arguments: Any, mode: str, **options: Any) -> Any:
            if mode == "append":
                raise OSError("No space left on device")
            return real(*arguments, mode=mode, **options)

        monkeypatch.setattr(lance, "write_dataset", write_dataset)
        (note,) = notes(run_in_app(indexed, "segment", {"min_confidence": 0.0}))
        assert note["variant"] == "warning"
        assert "instances in 4 images (3 from the index)" in note["message"]
        assert " Candidates are not kept: Nothing more can be written to the candidate index" in note["message"]


class TestIndexStatus:
    def test_from_python(self, indexed: fo.Dataset) -> None:
        size = opened(indexed).index.num_bytes
        assert call("index_status", indexed) == {
            "status": {
                "uri": records(indexed)[0]["uri"],
                "model": "demo",
                "exact": False,
                "num_samples": 4,
                "num_indexed": 3,
                "num_changed": 0,
                "num_deleted": 0,
                "num_candidates": 6,
                "num_unread_rows": 0,
                "num_bytes": size,
                "tiles": False,
                "bytes_per_image": size // 3,
            },
            "verify": None,
            "bytes_given_back": None,
        }

    def test_in_the_app_is_there_to_be_read(self, indexed: fo.Dataset) -> None:
        assert form_of(indexed, "index_status")["chosen"]["view"]["label"].startswith("demo: 3 images, ")
        messages = run_in_app(indexed, "index_status")
        (shown,) = named(messages, "show_output")
        size = opened(indexed).index.num_bytes
        assert shown["results"] == {
            "Model": "demo",
            "Indexed": "3 of 4 images",
            "Size": f"6 candidates, {size / 1e3:.0f} KB, {size / 3e3:.0f} KB an image",
            "Location": records(indexed)[0]["uri"],
        }
        assert list(shown["outputs"]["type"]["properties"]) == list(shown["results"])

    def test_damaged_image_is_named(self, indexed: fo.Dataset) -> None:
        index = opened(indexed).index
        bad = indexed.first().id
        (chunk,) = index.scan([bad])
        packed = chunk.candidates(0)
        index.append([(bad, index.images[bad].file, dataclasses.replace(packed, features=packed.features * 2))])
        (shown,) = named(run_in_app(indexed, "index_status", {"verify": True, "compact": True}), "show_output")
        assert shown["results"]["Indexed"] == "2 of 4 images"
        assert shown["results"]["Verified"] == (
            f"1 image damaged, no longer counted as indexed: {bad}: a feature is not of unit length"
        )
        result = call("index_status", indexed, verify=True)
        assert result["verify"] == {"num_images": 2, "num_candidates": 4, "num_damaged": 0, "damaged": []}
        (shown,) = named(run_in_app(indexed, "index_status", {"verify": True}), "show_output")
        assert shown["results"]["Verified"] == "every candidate of 2 images is sound"

    def test_what_changed_and_what_is_left_over(self, indexed: fo.Dataset, tmp_path: Path) -> None:
        indexed.delete_samples(indexed.first().id)
        sample = indexed.first()
        sample.filepath = shutil.copy(sample.filepath, str(tmp_path / "other.png"))
        sample.save()
        messages = run_in_app(indexed, "index_status")
        lines = named(messages, "show_output")[0]["results"]
        assert lines["Indexed"] == "1 of 3 images"
        assert lines["Changed"] == "1 file changed or gone since: build the index again to renew them"
        assert lines["Left over"] == (
            "1 image no longer in the dataset, 0 candidates of no image: compacting gives their space back"
        )
        result = call("index_status", indexed, compact=True)
        assert result["bytes_given_back"] != 0
        assert result["status"]["num_deleted"] == 0
        messages = run_in_app(indexed, "index_status", {"compact": True})
        assert named(messages, "show_output")[0]["results"]["Compacted"] == "0 bytes given back"

    def test_one_of_several(self, indexed: fo.Dataset) -> None:
        call("build_index", indexed.limit(1), exact=True)
        first, second = [record["key"] for record in records(indexed)]
        choices = form_of(indexed, "index_status")["index"]["view"]["choices"]
        assert [choice["value"] for choice in choices] == [first, second]
        assert choices[1]["label"].startswith("demo, near-duplicates kept: 1 image, ")
        assert call("index_status", indexed)["status"]["exact"] is True
        assert call("index_status", indexed, index=first)["status"]["exact"] is False
        lines = named(run_in_app(indexed, "index_status"), "show_output")[0]["results"]
        assert lines["Model"] == "demo, near-duplicates kept"
        sentence = f"Index must be one of {first!r}, {second!r}, not 'mine'."
        assert problems_of(form_of(indexed, "index_status", {"index": "mine"})) == {"index": sentence}

    def test_unknown_where_there_is_one_alone(self, indexed: fo.Dataset) -> None:
        problem = problems_of(form_of(indexed, "index_status", {"index": "mine"}))["index"]
        assert problem.endswith("not 'mine'.")

    def test_damaged_tables_are_a_sentence(self, indexed: fo.Dataset) -> None:
        for path in Path(records(indexed)[0]["uri"]).glob("images.lance/data/*"):
            path.write_bytes(b"")
        (note,) = notes(run_in_app(indexed, "index_status"))
        assert note["variant"] == "error"
        assert note["message"].endswith("delete it and build it again.")

    def test_delegated(self, indexed: fo.Dataset) -> None:
        done = run_delegated(foo.get_operator(uri("index_status"))(indexed, verify=True, delegate=True))
        assert done.run_state == "completed"
        assert done.result.result["verify"]["num_images"] == 3


class TestDeleteIndex:
    def test_from_python(self, indexed: fo.Dataset) -> None:
        (record,) = records(indexed)
        result = call("delete_index", indexed)
        assert result == {
            "index": record["key"],
            **{name: record[name] for name in ("uri", "model", "exact", "num_images", "num_bytes")},
        }
        assert records(indexed) == []
        assert not Path(record["uri"]).exists()
        assert indexed.has_run("parts")

    def test_in_the_app_it_must_be_confirmed(self, indexed: fo.Dataset) -> None:
        form = form_of(indexed, "delete_index")
        assert problems_of(form) == {"confirm": "Tick 'Delete' to confirm."}
        description = form["confirm"]["view"]["description"]
        (record,) = records(indexed)
        text = f"The candidates of 3 images, {record['num_bytes'] / 1e3:.0f} KB, for the model 'demo'; computing them again"
        assert description.startswith(text)
        with pytest.raises(ExecutionError, match="Tick 'Delete' to confirm"):
            run_in_app(indexed, "delete_index")
        assert len(records(indexed)) == 1
        messages = run_in_app(indexed, "delete_index", {"confirm": True})
        text = f"Deleted the index ('demo') of 3 images, {record['num_bytes'] / 1e3:.0f} KB."
        assert notes(messages) == [{"message": text, "variant": "success"}]
        assert records(indexed) == []

    def test_one_of_several_must_be_chosen(self, indexed: fo.Dataset) -> None:
        call("build_index", indexed.limit(1), exact=True)
        first, second = records(indexed)
        problems = problems_of(form_of(indexed, "delete_index", {"confirm": True}))
        assert problems == {"index": f"Choose index: {first['key']!r}, {second['key']!r}."}
        with pytest.raises(ExecutionError, match="Choose index"):
            call("delete_index", indexed)
        assert call("delete_index", indexed, index=first["key"])["exact"] is False
        assert [record["key"] for record in records(indexed)] == [second["key"]]
        assert not Path(first["uri"]).exists()
        assert Path(second["uri"]).exists()

    @pytest.mark.parametrize("how", ["gone", "damaged"])
    def test_record_goes_whatever_became_of_the_tables(self, indexed: fo.Dataset, how: str) -> None:
        place = Path(records(indexed)[0]["uri"])
        if how == "gone":
            shutil.rmtree(place)
        else:
            for path in place.glob("*.lance/_versions/*"):
                path.write_bytes(b"")
        run_in_app(indexed, "delete_index", {"confirm": True})
        assert records(indexed) == []
        assert not place.exists()
        assert call("build_index", indexed.limit(1))["num_added"] == 1

    def test_strangers_files_stay(self, parts: fo.Dataset, tmp_path: Path) -> None:
        other = tmp_path / "notes.txt"
        other.write_text("mine")
        call("build_index", parts.limit(1), model="demo", uri=str(tmp_path))
        call("delete_index", parts)
        assert list(tmp_path.iterdir()) == [other]

    def test_running_job_is_warned_of(self, indexed: fo.Dataset) -> None:
        operator = foo.get_operator(uri("segment"))
        request = app_request(indexed, "segment")
        stream = operator.execute(foo.ExecutionContext(request, executor=Executor(), operator_uri=operator.uri))
        next(stream)
        form = form_of(indexed, "delete_index", {"confirm": True})
        assert form["in_use"]["view"]["label"] == (
            "May be in use: Segment is running on this dataset. Cancel it first, or wait."
        )
        assert problems_of(form) == {}
        stream.close()
        assert "in_use" not in form_of(indexed, "delete_index")


class TestFindSimilar:
    def test_from_python(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        result = call("find_similar", indexed, [label.id], k=2)
        assert (result["label_field"], result["num_found"], result["num_left_out"]) == ("similar", 2, 1)
        assert result["scores"] == sorted(result["scores"], reverse=True)
        indexed.reload()
        # The object itself is its own best likeness.
        assert indexed.first().similar.detections[0].id == result["label_ids"][0]
        assert indexed.first().similar.detections[0].label == label.label

    def test_from_python_in_a_view(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        result = call("find_similar", indexed[1:3], [label.id], label_field="alike")
        assert (result["num_found"], result["num_left_out"]) == (4, 0)
        indexed.reload()
        assert indexed.exists("alike").values("id") == indexed[1:3].values("id")

    def test_labels_selected_in_the_app(self, indexed: fo.Dataset) -> None:
        chosen = [picked(indexed.first())]
        assert form_of(indexed, "find_similar", selected_labels=chosen)["selection"]["view"]["label"] == "Selected: 1 object"
        messages = run_in_app(indexed, "find_similar", {"k": 3}, selected_labels=chosen)
        order = [message["operator_uri"] for message in messages if message["operator_uri"] != "set_progress"]
        assert order == ["reload_dataset", "close_sample", "set_view", "notify"]
        indexed.reload()
        view = fo.DatasetView._build(indexed, named(messages, "set_view")[0]["view"])
        scores = view.values("similar.confidence")
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        (note,) = notes(messages)
        assert note == {
            "message": f"3 candidates, the most similar first: similarity {scores[0]:.2f} to {scores[-1]:.2f}. "
            "Left out 1 image not indexed: run 'Build index' to see them too.",
            "variant": "warning",
        }

    def test_patches_selected_in_the_app(self, indexed: fo.Dataset) -> None:
        patches = indexed.to_patches("ground_truth")
        chosen = patches.values("id")[:2]
        form = form_of(indexed, "find_similar", view=patches, selected=chosen)
        assert form["selection"]["view"]["label"] == "Selected: 2 objects"
        assert "in_view" not in form
        call("build_index", indexed)
        messages = run_in_app(indexed, "find_similar", {"k": 8}, view=patches.limit(2), selected=chosen)
        (note,) = notes(messages)
        # All images are searched, not those of the patches alone.
        assert note["message"].startswith("8 candidates, ")
        # What was found is searched for in turn.
        indexed.reload()
        view = fo.DatasetView._build(indexed, named(messages, "set_view")[0]["view"])
        messages = run_in_app(indexed, "find_similar", {"k": 8}, view=view, selected=view.values("id")[:1])
        assert notes(messages)[0]["message"].startswith("8 candidates, ")

    def test_view_open_in_the_app(self, indexed: fo.Dataset) -> None:
        chosen = [picked(indexed.first())]
        view = indexed[1:3]
        assert form_of(indexed, "find_similar", view=view, selected_labels=chosen)["in_view"]["default"] is False
        assert "in_view" not in form_of(indexed, "find_similar", selected_labels=chosen)
        for in_view, images in ((False, 3), (True, 2)):
            run_in_app(indexed, "find_similar", {"in_view": in_view}, view=view, selected_labels=chosen)
            indexed.reload()
            assert len(indexed.exists("similar.detections.id").match(fo.ViewField("similar.detections").length() > 0)) == images

    def test_labels_of_several_fields(self, indexed: fo.Dataset) -> None:
        call("segment", indexed, min_confidence=0.0)
        indexed.reload()
        sample = indexed.first()
        chosen = [picked(sample), picked(sample, field="predictions"), {**picked(sample), "field": "weather"}]
        form = form_of(indexed, "find_similar", selected_labels=chosen)
        assert form["selection"]["view"]["label"] == "Selected: 2 objects"

    def test_nothing_selected(self, indexed: fo.Dataset) -> None:
        sentence = "No object is selected: select one in an image, or patches in the grid."
        assert problems_of(form_of(indexed, "find_similar")) == {"selection": sentence}
        # Selected images say nothing of which object is meant.
        assert problems_of(form_of(indexed, "find_similar", selected=[indexed.first().id])) == {"selection": sentence}
        with pytest.raises(ExecutionError, match="No object is selected"):
            call("find_similar", indexed, [])

    def test_unknown_label_is_a_sentence(self, indexed: fo.Dataset) -> None:
        (note,) = notes(run_in_app(indexed, "find_similar", {"label_ids": ["0" * 24]}))
        assert note["variant"] == "error"
        assert "has no labelled object with the id" in note["message"]

    def test_field_of_an_earlier_search_is_offered(self, indexed: fo.Dataset) -> None:
        label = indexed.first().ground_truth.detections[0]
        call("find_similar", indexed, [label.id], label_field="alike")
        params = {"label_ids": [label.id], "label_field": "alike"}
        form = form_of(indexed, "find_similar", params)
        assert problems_of(form) == {}
        assert [choice["value"] for choice in form["label_field"]["view"]["choices"]] == ["alike"]

    def test_model_is_asked_for_where_there_are_several(self, indexed: fo.Dataset) -> None:
        params = {"label_ids": [indexed.first().ground_truth.detections[0].id]}
        assert "model" not in form_of(indexed, "find_similar", params)
        config = indexed.get_run_info(records(indexed)[0]["key"]).config
        facts = {name: getattr(config, name) for name in ("dataset_id", "uri", "exact", "fingerprint", "encoder")}
        counts = {"num_images": 1, "num_candidates": 1, "num_bytes": 1, "seconds_per_image": None, "updated_at": "2020"}
        indexed.register_run("older", indexed.init_run(method="refseg/index", model="tiny", **facts, **counts))
        form = form_of(indexed, "find_similar", params)
        assert [choice["value"] for choice in form["model"]["view"]["choices"]] == ["demo", "tiny"]
        assert form["model"]["default"] == "demo"
        problems = problems_of(form_of(indexed, "find_similar", {**params, "model": "large"}))
        assert problems == {"model": "Model must be one of 'demo', 'tiny', not 'large'."}


def test_an_index_lies_in_the_datasets_folder(indexed: fo.Dataset) -> None:
    assert Path(records(indexed)[0]["uri"]).is_relative_to(dataset_folder(indexed))
