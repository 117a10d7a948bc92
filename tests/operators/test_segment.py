"""Segmenting from the index and by preview: from Python and from the App."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import lance
import pytest

from tests.operators.helpers import call, form_of, named, problems_of, run_in_app
from tests.operators.indexed import no_lance, notes, notice, records

pytestmark = pytest.mark.usefixtures("true_candidates")


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
