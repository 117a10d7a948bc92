"""What a dataset records of its indexes."""

from __future__ import annotations

import fiftyone as fo
import pytest

from refseg.dataset.index_settings import settings_of
from refseg.dataset.indexing import iter_build_index
from refseg.dataset.known_indexes import INDEX_METHOD, index_records
from refseg.models.loaded import load_models
from tests.dataset.building import build

pytestmark = pytest.mark.usefixtures("two_images_a_batch")


class TestRecord:
    def test_run(self, trays: fo.Dataset) -> None:
        report = build(trays)
        (record,) = index_records(trays)
        settings = settings_of(trays, load_models("demo"))
        assert trays.list_runs(method=INDEX_METHOD) == [record["key"]] == [f"index_demo_{settings.fingerprint}"]
        assert (
            record.items()
            >= {
                "uri": report.uri,
                "model": "demo",
                "exact": False,
                "fingerprint": settings.fingerprint,
                "encoder": load_models("demo").fingerprint,
                "num_images": 4,
                "num_candidates": 8,
                "num_bytes": report.num_bytes,
            }.items()
        )
        assert 0 < record["seconds_per_image"] < 60

    def test_is_renewed(self, trays: fo.Dataset) -> None:
        build(trays[:2])
        (before,) = index_records(trays)
        build(trays)
        (after,) = index_records(trays)
        assert (before["num_images"], after["num_images"]) == (2, 4)
        assert after["num_bytes"] > before["num_bytes"]
        assert after["updated_at"] >= before["updated_at"]
        build(trays)
        assert index_records(trays)[0]["seconds_per_image"] == after["seconds_per_image"]

    def test_nothing_computed_has_no_seconds(self, trays: fo.Dataset) -> None:
        work = iter_build_index(trays, "demo", num_workers=0)
        next(work)
        work.close()
        (record,) = index_records(trays)
        assert (record["num_images"], record["seconds_per_image"]) == (0, None)

    def test_other_runs_are_none_of_it(self, trays: fo.Dataset) -> None:
        trays.register_run("mine", trays.init_run(method="me/mine"))
        assert index_records(trays) == []

    def test_survives_a_reload(self, trays: fo.Dataset) -> None:
        report = build(trays)
        trays.reload()
        assert index_records(fo.load_dataset(trays.name))[0]["uri"] == report.uri
