"""Deleting an index: from Python and from the App."""

from __future__ import annotations

import shutil
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError, Executor

from tests.operators.helpers import app_request, call, form_of, problems_of, run_in_app, uri
from tests.operators.indexed import notes, records

pytestmark = pytest.mark.usefixtures("true_candidates")


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
