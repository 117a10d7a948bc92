"""References and negatives as they are kept, against a plain loop over all labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset import kept_rows
from refseg.dataset.fields import label_fields
from refseg.dataset.labels import objects_of
from refseg.dataset.tagged_labels import TaggedLabel, look_at_tagged
from refseg.masks import flag_of

MakeDataset = Callable[..., fo.Dataset]
BOX = [0, 0, 0.5, 0.5]


@pytest.fixture(autouse=True)
def _keep_nothing() -> Iterator[None]:
    yield
    kept_rows._kept.clear()


def _label(name: str | None, *tags: str, **about: Any) -> fo.Detection:
    return fo.Detection(label=name, bounding_box=BOX, tags=list(tags), **about)


@pytest.fixture
def shelf(make_dataset: MakeDataset) -> fo.Dataset:
    """Every kind of field, tag and flag."""
    many = [_label("a", "reference"), _label("b"), _label("a", "negative"), _label("c", "reference", "negative")]
    crowds = [_label("a", "reference", iscrowd=flag) for flag in (True, 1, "yes", "maybe", False, None)]
    lines = [fo.Polyline(label="l", points=[[(0, 0), (1, 1), (0, 1)]], tags=["reference"]), fo.Polyline(label="l", points=[])]
    samples = [
        fo.Sample("0.png", truth=fo.Detections(detections=many), one=_label("o", "reference")),
        fo.Sample("1.png", truth=fo.Detections(detections=[*crowds, _label(None, "reference")]), tags=["known_empty"]),
        fo.Sample("2.png", lanes=fo.Polylines(polylines=lines), line=lines[0].copy(), tags=["reference"]),
        fo.Sample("3.png", tags=["reference", "other"], truth=fo.Detections(detections=[_label("w"), _label("w", "negative")])),
        fo.Sample("4.png", rejected=fo.Detections(detections=[_label("r", "reference"), _label("r", "negative")])),
        fo.Sample("5.png", predictions=fo.Detections(detections=[_label("p", "reference")])),
        fo.Sample("6.png", truth=fo.Detections(detections=[])),
    ]
    dataset = make_dataset(samples)
    dataset.register_run("run", dataset.init_run(method="refseg/segment", label_field="predictions"))
    return dataset


def expected(dataset: fo.Dataset) -> list[TaggedLabel]:
    found = []
    for field in label_fields(dataset):
        for is_whole in (False, True):
            for sample in dataset:
                if ("reference" in sample.tags) != is_whole or not sample.has_field(field):
                    continue
                for label in objects_of(sample[field]):
                    is_negative = "negative" in label.tags
                    is_wanted = is_negative or (field != "rejected" and (is_whole or "reference" in label.tags))
                    is_crowd = flag_of(label["iscrowd"] if label.has_attribute("iscrowd") else None) is not False
                    if is_wanted and label.label is not None and not is_crowd:
                        found.append(TaggedLabel(label.id, sample.id, field, label.label, is_negative))
    return found


def require_same(dataset: fo.Dataset) -> None:
    dataset.reload()
    found = look_at_tagged(dataset)
    assert found is not None
    assert list(found.labels) == expected(dataset)
    assert found.num_empty == len(dataset.match_tags("known_empty"))


def _first_decision(dataset: fo.Dataset) -> None:
    sample = dataset.last()
    sample["accepted"] = fo.Detections(detections=[_label("n", "reference")])
    sample.save()


CHANGES: dict[str, Callable[[fo.Dataset], Any]] = {
    "nothing": lambda dataset: None,
    "tag labels": lambda dataset: dataset[:1].tag_labels("reference", label_fields="truth"),
    "untag labels": lambda dataset: dataset.untag_labels("reference", label_fields="truth"),
    "tag a sample": lambda dataset: dataset[:1].tag_samples("reference"),
    "untag a sample": lambda dataset: dataset[2:4].untag_samples("reference"),
    "mark as empty": lambda dataset: dataset[4:6].tag_samples("known_empty"),
    "a first decision": _first_decision,
    "delete a sample": lambda dataset: dataset.delete_samples([dataset.first()]),
    "delete a field": lambda dataset: dataset.delete_sample_field("truth"),
    "rename a field": lambda dataset: dataset.rename_sample_field("lanes", "other"),
    "a run over a field": lambda dataset: dataset.register_run(
        "second", dataset.init_run(method="refseg/segment", label_field="truth")
    ),
    "delete a run": lambda dataset: dataset.delete_run("run"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.sampled(2)
def test_after_each_change(shelf: fo.Dataset, change: str) -> None:
    require_same(shelf)
    CHANGES[change](shelf)
    require_same(shelf)


def test_what_there_is(shelf: fo.Dataset) -> None:
    found = look_at_tagged(shelf)
    assert found is not None
    assert [(item.field, item.label, item.is_negative) for item in found.labels] == [
        *(("truth", "a", False), ("truth", "a", True), ("truth", "c", True), ("truth", "a", False), ("truth", "a", False)),
        *(("truth", "w", False), ("truth", "w", True), ("one", "o", False)),
        *(("lanes", "l", False), ("lanes", "l", False), ("line", "l", False), ("rejected", "r", True)),
    ]
    assert found.num_empty == 1


def test_slices(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    dataset.add_group_field("group", default="left")
    group = fo.Group()
    for side in ("left", "right"):
        labels = fo.Detections(detections=[_label(side, "reference")])
        dataset.add_sample(fo.Sample(f"{side}.png", group=group.element(side), truth=labels))
    for slices in (["left"], ["right"], ["left", "right"]):
        found = look_at_tagged(dataset, slices=slices)
        assert found is not None
        assert [item.label for item in found.labels] == slices
