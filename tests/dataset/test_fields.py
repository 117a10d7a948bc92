"""The fields that RefSeg knows by name, and what its runs have written where."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import pytest

from refseg.dataset.fields import (
    CHANGING,
    INSPECTING,
    PREDICTING,
    SEGMENTING,
    newest_of,
    newest_run,
    object_fields,
    past_runs,
    prediction_fields,
)
from refseg.runs import records, similar
from tests.review.predictions import record, two_images

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> fo.Dataset:
    """Two images with two predictions each."""
    return two_images(make_dataset)


class TestFields:
    def test_names_are_the_runs(self) -> None:
        assert (records.SEGMENT_METHOD, similar.SIMILAR_METHOD, INSPECTING, CHANGING) == PREDICTING
        assert SEGMENTING == records.SEGMENT_METHOD

    def test_runs(self, dataset: fo.Dataset, make_dataset: MakeDataset) -> None:
        record(make_dataset([fo.Sample("b.png")]), "elsewhere")
        record(dataset[:1], min_confidence=0.1, changed_ids=["7f"])
        record(dataset, "similar", "refseg/similar")
        record(dataset, "others", "mine")
        assert prediction_fields(dataset) == {"predictions", "similar"}
        assert [run.config["min_confidence"] for run in past_runs(dataset, [SEGMENTING])] == [0.5, 0.1]
        newest = newest_run(dataset, "predictions")
        assert newest is not None
        assert (newest.key, newest.is_whole, "changed_ids" in newest.config) == ("run_1", False, False)
        assert newest_run(dataset, "others") is None
        assert object_fields(dataset) == ["predictions"]

    def test_the_newest_of_several(self, dataset: fo.Dataset) -> None:
        """Of runs of one moment the one recorded last, as in the list of all."""
        for number in range(3):
            record(dataset, number=number, accepts=number != 2)
        fo.core.odm.get_db_conn().runs.update_many({"_dataset_id": dataset._doc.id}, {"$set": {"timestamp": None}})
        newest = newest_of(dataset, SEGMENTING)
        assert newest == past_runs(dataset, [SEGMENTING])[-1]
        assert newest is not None
        assert newest.config["number"] == 2
        of_setting = newest_of(dataset, SEGMENTING, accepts=True)
        assert of_setting is not None
        assert of_setting.config["number"] == 1
        assert newest_of(dataset, "mine") is None
