"""Fields that other processes added: they are known, and kept."""

from __future__ import annotations

import fiftyone as fo
import pytest

from refseg.dataset.schema import add_field, refresh
from refseg.dataset.views import add_labels_field, open_collection
from tests.at_once import at_once, other_process

EXAMPLE = fo.Detections(detections=[fo.Detection(label="", bounding_box=[0.0] * 4, decision="", margin=0.0)])


def test_a_field_is_that_of_fiftyone(dataset: fo.Dataset) -> None:
    """What FiftyOne would have made of the same labels."""
    add_field(dataset, "mine", EXAMPLE)
    dataset.add_sample(fo.Sample("a.png", theirs=EXAMPLE), dynamic=True)
    schema = dataset.get_field_schema(flat=True)
    mine, theirs = ({path[len(name) :]: type(schema[path]) for path in schema if name in path} for name in ("mine", "theirs"))
    assert mine == theirs
    assert ".detections.decision" in mine
    assert dataset.get_field("mine").created_at is not None


def test_an_older_object_takes_no_field_away(dataset: fo.Dataset) -> None:
    older = other_process(dataset)
    add_field(dataset, "first", EXAMPLE)
    add_field(older, "second", fo.Detections())
    assert {"first", "second"} <= set(other_process(dataset).get_field_schema())
    assert {"first", "second"} <= set(older.get_field_schema())


def test_one_that_is_there_gets_the_attributes_it_lacks(dataset: fo.Dataset) -> None:
    dataset.add_sample_field("mine", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("mine.detections.note", fo.StringField)
    add_field(dataset, "mine", EXAMPLE)
    known = other_process(dataset).get_field_schema(flat=True)
    assert {"mine.detections.note", "mine.detections.decision", "mine.detections.margin"} <= set(known)


def test_a_field_of_another_kind_is_refused(dataset: fo.Dataset) -> None:
    dataset.add_sample_field("mine", fo.BooleanField)
    with pytest.raises(ValueError, match="mine"):
        add_field(dataset, "mine", EXAMPLE)


def test_fields_and_runs_of_others_are_known(dataset: fo.Dataset) -> None:
    older = other_process(dataset)
    dataset.add_sample_field("note", fo.StringField)
    dataset.register_run("theirs", dataset.init_run(method="mine"))
    assert not older.has_field("note")
    refresh(older)
    assert older.has_field("note")
    assert older.has_run("theirs")
    dataset.delete_sample_field("note")
    assert not open_collection(older).has_field("note")


def test_a_view_is_of_its_dataset_as_it_is_now(dataset: fo.Dataset) -> None:
    dataset.add_sample(fo.Sample("a.png"))
    view = other_process(dataset).limit(1)
    dataset.add_sample_field("note", fo.StringField)
    assert open_collection(view).has_field("note")


def add_fields(dataset: fo.Dataset, prefix: str) -> None:
    for number in range(6):
        add_labels_field(dataset, f"{prefix}{number}", EXAMPLE)


def test_two_processes_at_once(dataset: fo.Dataset) -> None:
    dataset.persistent = True
    assert at_once(add_fields, dataset.name, ("a",), ("b",)) == [None, None]
    known = other_process(dataset).get_field_schema(flat=True)
    wanted = {f"{prefix}{number}.detections.decision" for prefix in "ab" for number in range(6)}
    assert wanted <= set(known)


def test_samples_in_memory_learn_new_fields(dataset: fo.Dataset) -> None:
    """Whoever holds a sample while a run adds a field can read it, as with FiftyOne's own."""
    dataset.add_sample(fo.Sample("a.png"))
    sample = dataset.first()
    sample["tags"] = ["not saved"]
    add_field(dataset, "mine", EXAMPLE)
    dataset.set_values("mine", [EXAMPLE.copy()])
    assert sample.mine.detections[0].decision == ""
    other = other_process(dataset)
    other.add_sample_field("theirs", fo.StringField)
    other.add_sample_field("mine.detections.note", fo.StringField)
    refresh(dataset)
    assert sample.theirs is None
    assert dataset.get_field("mine.detections.note") is not None
    other.delete_sample_field("theirs")
    refresh(dataset)
    assert not dataset.has_field("theirs")
