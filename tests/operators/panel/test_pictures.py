"""Pictures of objects in the panel."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import pytest

from tests.operators.app_panel import label_of, press
from tests.operators.panel.shelf import loaded

MakeDataset = Callable[..., fo.Dataset]


class TestPictures:
    @pytest.mark.parametrize("large", [False, True])
    def test_of_labels(self, shelf: fo.Dataset, large: bool) -> None:
        sample = shelf.first()
        places = [label_of(sample, 1), label_of(sample, 2, "predictions")]
        wanted = [{"id": place["label_id"], "field": place["field"], "sample_id": place["sample_id"]} for place in places]
        found = press(shelf, "pictures", {"wanted": wanted, "large": large}).result
        assert set(found) == {place["label_id"] for place in places}
        assert all(picture.startswith("data:image/") for picture in found.values())

    def test_what_is_gone_or_cannot_be_read_is_left_out(self, shelf: fo.Dataset, make_dataset: MakeDataset) -> None:
        place = label_of(shelf.first())
        here = {"id": place["label_id"], "field": "ground_truth", "sample_id": place["sample_id"]}
        wanted = [
            here,
            here | {"id": "0" * 24},
            here | {"id": "1" * 24, "sample_id": "0" * 24},
            here | {"id": "2", "field": "no"},
        ]
        assert list(press(shelf, "pictures", {"wanted": wanted}).result) == [here["id"]]
        sample = shelf.first()
        sample.filepath = "/nowhere/gone.png"
        sample.save()
        answer = press(shelf, "pictures", {"wanted": [here]})
        assert (answer.result, answer.notes) == ({}, [])
        assert press(shelf, "pictures").result == {}

    def test_only_so_many_at_once(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded("pictures"), "MOST", 1)
        sample = shelf.first()
        wanted = [{"id": label.id, "field": "ground_truth", "sample_id": sample.id} for label in sample.ground_truth.detections]
        assert list(press(shelf, "pictures", {"wanted": wanted}).result) == [wanted[0]["id"]]
