"""The state of an index: from Python, from the App and as a delegated job."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from tests.operators.helpers import call, form_of, named, problems_of, run_delegated, run_in_app, uri
from tests.operators.indexed import notes, opened, records

pytestmark = pytest.mark.usefixtures("true_candidates")


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
                "num_looks": 0,
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
            "Size": f"6 candidates, 0 second looks, {size / 1e3:.0f} KB, {size / 3e3:.0f} KB an image",
            "Location": records(indexed)[0]["uri"],
        }
        assert list(shown["outputs"]["type"]["properties"]) == list(shown["results"])

    def test_damaged_image_is_named(self, indexed: fo.Dataset) -> None:
        index = opened(indexed).index
        bad, name = indexed.first().id, Path(indexed.first().filepath).name
        (chunk,) = index.scan([bad])
        packed = chunk.candidates(0)
        index.append([(bad, index.images[bad].file, dataclasses.replace(packed, features=packed.features * 2))])
        (shown,) = named(run_in_app(indexed, "index_status", {"verify": True, "compact": True}), "show_output")
        assert shown["results"]["Indexed"] == "2 of 4 images"
        assert shown["results"]["Verified"] == (
            f"1 image damaged, no longer counted as indexed: {name}: a feature is not of unit length (sample {bad})"
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
        assert named(messages, "show_output")[0]["results"]["Compacted"] == "0 bytes less"

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
