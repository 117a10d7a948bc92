"""A review as it is kept: always what reading everything anew says, and only what was written since is read again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

from refseg.dataset import kept_rows
from refseg.errors import DatasetError
from refseg.review import kept_review
from refseg.review.decisions import accept, fix, reject, relabel, undo
from refseg.review.kept_review import Review, look_at_review
from refseg.review.queue import review_queue, summarize
from tests.review.predictions import LEFT, RIGHT, ids_of, predicted, record

MakeDataset = Callable[..., fo.Dataset]
NUM_SAMPLES = 6


@pytest.fixture(autouse=True)
def _keep_nothing() -> Iterator[None]:
    yield
    kept_rows._kept.clear()


@pytest.fixture
def shelf(make_dataset: MakeDataset) -> fo.Dataset:
    """Six images of two predictions each, of two classes, many as sure as others."""
    samples = [_sample(number) for number in range(NUM_SAMPLES)]
    dataset = make_dataset()
    dataset.add_samples(samples, dynamic=True, progress=False)
    record(dataset, min_confidence=0.5, min_confidences=[["star", 0.5], ["tee", 0.3]])
    accept(dataset, ids_of(dataset)[:1])
    reject(dataset, ids_of(dataset)[3:4])
    return dataset


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the samples that were read, in order."""
    found: list[str] = []
    real = kept_review._KeptReview.read

    def read(self: Any, documents: Any, numbers: Any) -> Any:
        found.extend(str(document["_id"]) for document in documents)
        return real(self, documents, numbers)

    monkeypatch.setattr(kept_review._KeptReview, "read", read)
    return found


def _sample(number: int) -> fo.Sample:
    labels = [predicted("star", LEFT, 0.6 + number % 2 / 10, 0.1), predicted("tee", RIGHT, 0.8, 0.1)]
    return fo.Sample(f"{number}.png", predictions=fo.Detections(detections=labels))


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what was just written count as written long ago."""
    monkeypatch.setattr(kept_rows, "UNSETTLED_MS", -3_600_000)


def look(dataset: Any) -> Review:
    found = look_at_review(dataset)
    assert found is not None
    return found


def require_same(dataset: Any) -> None:
    """What is kept says what reading everything says, in the same order."""
    found = look(dataset)
    for order in ("teaching", "score"):
        expected = review_queue(dataset, order=order)  # type: ignore[arg-type]
        assert found.queue(order, len(expected) + 1) == expected
        for number in (1, 2, 5):
            assert found.queue(order, number) == expected[:number]
    assert len(found.open) == len(expected)
    assert found.summary == summarize(dataset)
    assert sorted(found.scores) == sorted(dataset.values("predictions.detections.confidence", unwind=True))


def _edit(dataset: fo.Dataset) -> None:
    sample = dataset.last()
    sample.predictions.detections[0].label = "gear"
    sample.predictions.detections[1].confidence = 0.31
    sample.save()


def _replace_one(dataset: fo.Dataset) -> None:
    dataset.delete_samples([dataset.skip(2).first()])
    dataset.add_samples([_sample(7)], progress=False)


def _behind(dataset: fo.Dataset) -> None:
    """As a machine writes whose clock is behind."""
    dataset._sample_collection.update_one(
        {"_id": dataset.last()._id},
        {"$set": {"predictions.detections.0.label": "gear", "last_modified_at": datetime.utcnow() - timedelta(hours=1)}},
    )


CHANGES: dict[str, Callable[[fo.Dataset], Any]] = {
    "nothing": lambda dataset: None,
    "accept": lambda dataset: accept(dataset, ids_of(dataset)[5:6]),
    "reject": lambda dataset: reject(dataset, ids_of(dataset)[6:8]),
    "relabel": lambda dataset: relabel(dataset, ids_of(dataset)[5:6], "gear"),
    "fix": lambda dataset: fix(dataset, ids_of(dataset)[5]),
    "move": lambda dataset: reject(dataset, ids_of(dataset)[:1]),
    "undo": lambda dataset: undo(dataset, accept(dataset, ids_of(dataset)[5:6])),
    "edit": _edit,
    "tags": lambda dataset: dataset[3:4].tag_samples("x"),
    "label tags": lambda dataset: dataset[3:4].tag_labels("x", label_fields="predictions"),
    "delete a sample": lambda dataset: dataset.delete_samples([dataset.skip(1).first()]),
    "delete the first": lambda dataset: dataset.delete_samples([dataset.first()]),
    "delete all": lambda dataset: dataset.clear(),
    "delete labels": lambda dataset: dataset.delete_labels(ids=ids_of(dataset)[4:6], fields="predictions"),
    "delete decisions": lambda dataset: dataset.delete_labels(ids=ids_of(dataset, "accepted"), fields="accepted"),
    "add samples": lambda dataset: dataset.add_samples([_sample(7), _sample(8)], progress=False),
    "replace one": _replace_one,
    "clock behind": _behind,
    "clear a field": lambda dataset: dataset.clear_sample_field("accepted"),
    "delete a field": lambda dataset: dataset.delete_sample_field("accepted"),
    "rename a field": lambda dataset: dataset.rename_sample_field("accepted", "other"),
    "save a view": lambda dataset: dataset.filter_labels("predictions", F("label") == "star").save(),
    "keep a view": lambda dataset: dataset[2:5].keep(),
    "a new run": lambda dataset: record(dataset, min_confidence=0.55),
}


@pytest.mark.parametrize("change", CHANGES)
class TestAlwaysTrue:
    @pytest.mark.sampled(2)
    def test_few_samples(self, shelf: fo.Dataset, change: str) -> None:
        require_same(shelf)
        CHANGES[change](shelf)
        shelf.reload()
        require_same(shelf)

    @pytest.mark.sampled(4)
    def test_more_than_are_read_at_once(self, shelf: fo.Dataset, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """By a thread, that compares all times."""
        monkeypatch.setattr(kept_rows, "FEW", 0)
        monkeypatch.setattr(kept_rows, "COMPARED_AT_ONCE", 0)
        monkeypatch.setattr(kept_rows, "SAMPLES_A_CHUNK", 2)
        require_same(shelf)
        settle(monkeypatch)
        look(shelf)
        CHANGES[change](shelf)
        shelf.reload()
        require_same(shelf)


class TestWhatIsReadAgain:
    def test_nothing_where_nothing_was_written(
        self, shelf: fo.Dataset, read_again: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settle(monkeypatch)
        first = look(shelf)
        assert read_again == shelf.values("id")
        assert look(shelf) is first
        assert read_again == shelf.values("id")

    def test_the_image_of_a_decision(self, shelf: fo.Dataset, read_again: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        settle(monkeypatch)
        look(shelf)
        del read_again[:]
        accept(shelf, ids_of(shelf)[5:6])
        require_same(shelf)
        assert read_again == [shelf.skip(2).first().id]

    def test_the_first_decision_of_a_dataset(
        self, dataset: fo.Dataset, read_again: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It makes the field."""
        settle(monkeypatch)
        look(dataset)
        del read_again[:]
        accept(dataset, ids_of(dataset)[:1])
        dataset.reload()
        require_same(dataset)
        assert read_again == [dataset.first().id]

    @pytest.mark.parametrize("at_once", [0, 100])
    def test_of_many_those_that_changed(
        self, shelf: fo.Dataset, read_again: list[str], monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(kept_rows, "COMPARED_AT_ONCE", at_once)
        settle(monkeypatch)
        look(shelf)
        del read_again[:]
        _replace_one(shelf)
        _edit(shelf)
        require_same(shelf)
        assert read_again == [shelf.last().id]

    def test_again_what_may_have_been_written_within_the_same_millisecond(self, shelf: fo.Dataset) -> None:
        sample = shelf.last()
        shelf._sample_collection.update_one({"_id": sample._id}, {"$set": {"last_modified_at": datetime.utcnow()}})
        look(shelf)
        # The time stays what it is.
        shelf._sample_collection.update_one({"_id": sample._id}, {"$set": {"predictions.detections.0.confidence": 0.99}})
        require_same(shelf)

    def test_a_dataset_without_the_index(self, shelf: fo.Dataset) -> None:
        """As old versions of FiftyOne made them."""
        shelf._sample_collection.drop_index("last_modified_at_1")
        look(shelf)
        assert "last_modified_at_1" in shelf._sample_collection.index_information()
        shelf._sample_collection.drop_index("last_modified_at_1")
        accept(shelf, ids_of(shelf)[5:6])
        require_same(shelf)

    def test_samples_whose_time_was_never_noted(self, shelf: fo.Dataset) -> None:
        shelf._sample_collection.update_many({}, {"$unset": {"last_modified_at": True}})
        look(shelf)
        accept(shelf, ids_of(shelf)[5:6])
        require_same(shelf)

    def test_forgetting(self, shelf: fo.Dataset, read_again: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        settle(monkeypatch)
        look(shelf)
        kept_rows.forget_rows(shelf)
        look(shelf)
        assert read_again == shelf.values("id") * 2

    def test_so_many_tables_are_kept(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept_rows, "TABLES_KEPT", 2)
        for name in ("accepted", "good", "better"):
            assert look_at_review(shelf, accepted_field=name) is not None
        assert [key[-2] for key in kept_rows._kept] == ["good", "better"]

    def test_at_one_moment_mongodb_is_asked_once(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        settle(monkeypatch)
        asked = []
        real = kept_rows.KeptRows._read_stamp
        monkeypatch.setattr(kept_rows.KeptRows, "_read_stamp", lambda self: (asked.append(1), real(self))[1])
        for name in ("accepted", "good"):
            look_at_review(shelf, accepted_field=name)
        del asked[:]
        with kept_rows.at_one_moment():
            for name in ("accepted", "good", "accepted"):
                look_at_review(shelf, accepted_field=name)
        assert len(asked) == 1
        # What is written later is seen at another moment, and by who finds it within this one.
        with kept_rows.at_one_moment():
            look(shelf)
            accept(shelf, ids_of(shelf)[5:6])
            require_same(shelf)


class TestBesideTheCaller:
    def test_who_does_not_wait_is_told_so(self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        may_read = threading.Event()
        real = kept_review._KeptReview.read

        def read(self: Any, documents: Any, numbers: Any) -> Any:
            assert may_read.wait(60)
            return real(self, documents, numbers)

        monkeypatch.setattr(kept_review._KeptReview, "read", read)
        monkeypatch.setattr(kept_rows, "PATIENCE", 0.0)
        assert look_at_review(shelf, waits=False) is None
        assert look_at_review(shelf, waits=False) is None
        # What is written meanwhile is not missed.
        accept(shelf, ids_of(shelf)[5:6])
        may_read.set()
        require_same(shelf)
        assert look_at_review(shelf, waits=False) is not None

    def test_an_error_reaches_who_asks_and_the_next_look_tries_again(
        self, shelf: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(kept_review._KeptReview, "read", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                look_at_review(shelf)
        require_same(shelf)

    def test_several_who_ask_at_once(self, shelf: fo.Dataset) -> None:
        found: list[Review | None] = []
        threads = [threading.Thread(target=lambda: found.append(look_at_review(shelf))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == len(threads)
        assert {len(one.open) for one in found if one is not None} == {len(review_queue(shelf))}
        assert None not in found


class TestFields:
    def test_no_predictions(self, shelf: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match=r"'others'.* does not exist"):
            look_at_review(shelf, "others")
        shelf.add_sample_field("one", fo.EmbeddedDocumentField, embedded_doc_type=fo.Polylines)
        with pytest.raises(DatasetError, match=r"'one' of dataset .* holds Polylines, but predictions are needed"):
            look_at_review(shelf, "one")

    def test_a_field_of_another_kind_under_the_name_of_decisions(self, shelf: fo.Dataset) -> None:
        shelf.delete_sample_field("accepted")
        shelf.add_sample_field("accepted", fo.StringField)
        shelf.set_values("accepted", ["a"] * NUM_SAMPLES)
        require_same(shelf)

    def test_slices_of_groups(self, dataset: fo.Dataset, make_dataset: MakeDataset) -> None:
        grouped = make_dataset()
        grouped.add_group_field("group", default="left")
        for _ in range(2):
            group = fo.Group()
            pair = [_sample(number) for number in range(2)]
            for sample, side in zip(pair, ("left", "right"), strict=True):
                sample["group"] = group.element(side)
            grouped.add_samples(pair, dynamic=True, progress=False)
        for slices in (["left"], ["right"], ["left", "right"]):
            found = look_at_review(grouped, slices=slices)
            assert found is not None
            expected = review_queue(grouped.select_group_slices(slices))
            assert found.queue("teaching", 100) == expected
            assert len(expected) == 4 * len(slices)
