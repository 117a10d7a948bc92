"""Counts and areas as fields of a dataset: their values, what the App can do with them, and what counting again changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.fields as fof
import numpy as np
import pytest
from fiftyone import ViewField as F
from PIL import Image

from refseg.errors import DatasetError
from refseg.evaluation.counting import iter_write_counts, write_counts
from refseg.evaluation.counts_report import ClassCounts
from tests.at_once import other_process
from tests.evaluation.labels import SIDE, detection, sample

MakeDataset = Callable[..., fo.Dataset]
FIELDS = ("predictions_counts", "predictions_areas", "predictions_area_shares")


@pytest.fixture
def dataset(make_dataset: MakeDataset, tmp_path: Path) -> fo.Dataset:
    """Two stars and a bolt; nothing found; never segmented; a star without a mask."""
    half = np.zeros((10, 20), bool)
    half[:5] = True
    found: list[list[Any] | None] = [
        [
            detection(0, 0, 10, 10, confidence=0.9),
            detection(20, 20, 40, 30, mask=half, confidence=0.6),
            detection(50, 50, 60, 90, "M4 bolt", confidence=0.5),
        ],
        [],
        None,
        [detection(0, 0, 30, 10, mask=None, confidence=0.7)],
    ]
    return make_dataset([sample(tmp_path, f"{number}.png", [], labels) for number, labels in enumerate(found)])


def numbers(dataset: Any, name: str = FIELDS[0]) -> list[dict[str, float] | None]:
    """The numbers of each image, as another process reads them."""
    values = other_process(dataset).values(name)
    return [None if one is None else {key: one[key] for key in one.field_names} for one in values]


def test_values(dataset: fo.Dataset) -> None:
    report = write_counts(dataset, progress=False)
    assert numbers(dataset) == [{"M4 bolt": 1, "star": 2}, {"M4 bolt": 0, "star": 0}, None, {"M4 bolt": 0, "star": 1}]
    areas = [{"M4 bolt": 400.0, "star": 200.0}, {"M4 bolt": 0.0, "star": 0.0}, None, {"M4 bolt": 0.0, "star": 300.0}]
    for found, expected, scale in ((FIELDS[1], areas, 1.0), (FIELDS[2], areas, SIDE**2)):
        for one, other in zip(numbers(dataset, found), expected, strict=True):
            assert one == (None if other is None else pytest.approx({key: value / scale for key, value in other.items()}))
    assert report.fields == FIELDS
    assert report.classes == (
        ClassCounts("M4 bolt", "M4 bolt", 1, 1, 400.0),
        ClassCounts("star", "star", 3, 2, pytest.approx(500)),
    )
    assert (report.num_images, report.num_without_labels, report.num_written, report.num_objects) == (4, 1, 3, 4)
    assert (report.by_box, report.not_measured, report.skipped) == ((), (), ())


def test_fiftyone_filters_and_plots_them(dataset: fo.Dataset) -> None:
    write_counts(dataset, progress=False)
    schema = dataset.get_field_schema(flat=True)
    assert isinstance(schema["predictions_counts.M4 bolt"], fof.IntField)
    assert isinstance(schema["predictions_areas.star"], fof.FloatField)
    assert "'predictions'" in schema["predictions_counts"].description
    assert len(dataset.match(F("predictions_counts.star") >= 1)) == 2
    assert (dataset.sum("predictions_counts.star"), dataset.bounds("predictions_counts.star")) == (3, (0, 2))
    assert sum(dataset.histogram_values("predictions_areas.M4 bolt", bins=4)[0]) == 3
    # A sample that holds them can be copied.
    assert dataset.first().copy().predictions_counts["M4 bolt"] == 1


def test_again_it_writes_what_has_changed(dataset: fo.Dataset) -> None:
    first = dataset.first()
    write_counts(dataset, progress=False)
    before = other_process(dataset).values("last_modified_at")
    assert write_counts(dataset, progress=False).num_written == 0
    assert other_process(dataset).values("last_modified_at") == before
    # Stars have vanished; what was never segmented is, what was is not any more.
    first.predictions.detections = first.predictions.detections[2:]
    first.save()
    second, third = dataset.skip(1).limit(2)
    second.predictions, third.predictions = None, fo.Detections()
    second.save()
    third.save()
    last = dataset.last()
    last.predictions = fo.Detections()
    last.save()
    report = write_counts(dataset, progress=False)
    assert report.num_written == 4
    assert numbers(dataset) == [{"M4 bolt": 1, "star": 0}, None, {"M4 bolt": 0, "star": 0}, {"M4 bolt": 0, "star": 0}]
    assert report.classes[1] == ClassCounts("star", "star", 0, 0, 0.0)
    # A sample in memory sees it.
    assert first.predictions_counts.star == 0


def test_names_that_no_field_can_have(make_dataset: MakeDataset, tmp_path: Path) -> None:
    names = ["a.b", "a%2Eb", "$x", "$filepath", "_cls", "copy", "to_dict", "id", "über 5 µm", " ", "", "a\nb"]
    labels = [detection(0, 0, 10, 10, name) for name in names for _ in range(1 + names.index(name))]
    dataset = make_dataset([sample(tmp_path, "a.png", [], labels)])
    report = write_counts(dataset, progress=False)
    (held,) = numbers(dataset)
    assert held is not None
    usable = [name for name in names if name.strip()]
    assert {row.label: held[row.key] for row in report.classes} == {name: 1 + names.index(name) for name in usable}
    assert {row.label: row.key for row in report.classes if row.label != row.key} == {
        "a.b": "a%2Eb",
        "a%2Eb": "a%252Eb",
        "$x": "%24x",
        "$filepath": "%24filepath",
        "_cls": "%5Fcls",
        "copy": "%63opy",
        "to_dict": "%74o_dict",
        "id": "%69d",
    }
    assert report.num_without_class == 10 + 11
    assert dataset.first().copy().predictions_counts["a%2Eb"] == 1
    # Classes counted before are known by their keys.
    dataset.set_values("predictions", [fo.Detections()])
    again = write_counts(dataset, progress=False)
    assert [(row.label, row.num_objects) for row in again.classes] == [(name, 0) for name in sorted(usable)]


def test_only_what_is_sure_and_what_is_asked_for(dataset: fo.Dataset) -> None:
    report = write_counts(dataset, min_confidence=0.6, classes="star", progress=False)
    assert numbers(dataset) == [{"star": 2}, {"star": 0}, None, {"star": 1}]
    assert [row.label for row in report.classes] == ["star"]
    # What is counted of one class leaves others as they are.
    write_counts(dataset, min_confidence=0.7, classes=["M4 bolt", "nut"], progress=False)
    nothing = {"M4 bolt": 0, "nut": 0}
    assert numbers(dataset) == [{"star": 2, **nothing}, {"star": 0, **nothing}, None, {"star": 1, **nothing}]
    write_counts(dataset, min_confidence=0.61, progress=False)
    assert numbers(dataset) == [{"star": 1, **nothing}, {"star": 0, **nothing}, None, {"star": 1, **nothing}]


def test_objects_without_a_confidence_count(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset([sample(tmp_path, "a.png", [detection(0, 0, 10, 10)], [])])
    write_counts(dataset, "ground_truth", min_confidence=1.0, prefix="truth", progress=False)
    assert numbers(dataset, "truth_counts") == [{"star": 1}]


def test_views(dataset: fo.Dataset) -> None:
    """Other images keep their numbers; what the view hides is not counted; the classes are the dataset's."""
    report = write_counts(dataset.skip(3), progress=False)
    assert numbers(dataset) == [None, None, None, {"M4 bolt": 0, "star": 1}]
    assert (report.num_images, report.num_written) == (1, 1)
    shown = dataset.filter_labels("predictions", F("confidence") > 0.8, only_matches=False)
    write_counts(shown.limit(2), progress=False)
    assert numbers(dataset)[:2] == [{"M4 bolt": 0, "star": 1}, {"M4 bolt": 0, "star": 0}]


def test_classes_that_the_run_looked_for_have_zeros(dataset: fo.Dataset) -> None:
    dataset.register_run("run", dataset.init_run(method="refseg/segment", label_field="predictions", classes=["star", "gear"]))
    write_counts(dataset, progress=False)
    assert numbers(dataset)[1] == {"M4 bolt": 0, "gear": 0, "star": 0}


def test_counts_alone(dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a look at any mask; areas of before would be wrong."""
    monkeypatch.setattr("refseg.evaluation.counting.area_of", lambda *_: pytest.fail("a mask is read"))
    report = write_counts(dataset, areas=False, progress=False)
    assert (report.fields, report.classes[1].area) == (FIELDS[:1], None)
    assert numbers(dataset)[0] == {"M4 bolt": 1, "star": 2}
    assert not dataset.has_field(FIELDS[1])
    monkeypatch.undo()
    write_counts(dataset, progress=False)
    assert write_counts(dataset, areas=False, progress=False).num_written == 3
    assert numbers(dataset, FIELDS[1]) == numbers(dataset, FIELDS[2]) == [None] * 4


def test_crowds_and_what_cannot_be_measured(make_dataset: MakeDataset, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.png")
    labels = [
        detection(0, 0, 10, 10, iscrowd=True),
        detection(0, 0, 10, 10, mask=None, mask_path=gone),
        fo.Detection(label="star", bounding_box=[2, 2, 0.1, 0.1]),
    ]
    missing = sample(tmp_path, "missing.png", [], [detection(0, 0, 10, 10)], save=False)
    dataset = make_dataset([sample(tmp_path, "a.png", [], labels), missing])
    report = write_counts(dataset, progress=False)
    assert numbers(dataset) == [{"star": 2}, {"star": 1}]
    assert numbers(dataset, FIELDS[1]) == [{"star": pytest.approx(100)}, None]
    path = str(tmp_path / "a.png")
    assert report.num_crowds == 1
    assert report.by_box == ((path, labels[1].id, f"its mask's file {gone} does not exist"),)
    assert [(entry[0], entry[1]) for entry in report.not_measured] == [(path, labels[2].id)]
    assert [entry[0] for entry in report.skipped] == [str(tmp_path / "missing.png")]
    assert report.classes == (ClassCounts("star", "star", 3, 2, pytest.approx(100)),)


@pytest.mark.parametrize("kind", ["Polylines", "Polyline", "Detection"])
def test_other_fields_of_objects(make_dataset: MakeDataset, tmp_path: Path, kind: str) -> None:
    points = [[(0.1, 0.1), (0.5, 0.1), (0.5, 0.3), (0.1, 0.3)]]
    line = fo.Polyline(label="star", points=points, closed=True, filled=True)
    value = {"Polylines": fo.Polylines(polylines=[line]), "Polyline": line, "Detection": detection(0, 0, 40, 20)}[kind]
    one, other = (sample(tmp_path, f"{number}.png", [], None) for number in range(2))
    one["shape"] = value
    dataset = make_dataset([one, other])
    write_counts(dataset, "shape", progress=False)
    assert numbers(dataset, "shape_counts") == [{"star": 1}, None]
    (area,) = [found["star"] for found in numbers(dataset, "shape_areas") if found]
    assert area == pytest.approx(800, rel=0.1)


def test_the_size_of_images_as_stored(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """A picture that is turned by its file has other sides, and as many pixels."""
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(path, exif=exif)
    label = fo.Detection(label="star", bounding_box=[0.5, 0.25, 0.5, 0.5])
    dataset = make_dataset([fo.Sample(str(path), predictions=fo.Detections(detections=[label]))])
    for metadata in (None, fo.ImageMetadata(width=80, height=60), fo.ImageMetadata(width=60, height=80)):
        dataset.set_values("metadata", [metadata])
        write_counts(dataset, progress=False)
        assert numbers(dataset, FIELDS[1]) == [{"star": pytest.approx(1200)}]
        assert numbers(dataset, FIELDS[2]) == [{"star": pytest.approx(0.25)}]


def test_refused(dataset: fo.Dataset) -> None:
    dataset.add_sample_field("mine_counts", fo.IntField)
    for options, words in (
        ({"prefix": "mine"}, "holds something else than the number of objects of each class in 'predictions', and would be"),
        ({"prefix": "_no"}, "'_no_counts' cannot name a field"),
        ({"field": "nothing"}, "'nothing' .* does not exist, but objects are needed"),
        ({"field": "filepath"}, "'filepath' .* holds no labels, but objects are needed"),
        ({"classes": []}, "No class is named in classes"),
        ({"min_confidence": 1.5}, "min_confidence must be a number from 0 to 1"),
    ):
        with pytest.raises(DatasetError, match=words):
            write_counts(dataset, progress=False, **options)  # type: ignore[arg-type]
    write_counts(dataset, progress=False)
    with pytest.raises(DatasetError, match=r"holds something else than .* in 'ground_truth'"):
        write_counts(dataset, "ground_truth", prefix="predictions", progress=False)
    counts = dataset.get_field(FIELDS[0])
    counts.read_only = True
    counts.save()
    with pytest.raises(DatasetError, match=r"'predictions_counts' .* is read-only"):
        write_counts(dataset, progress=False)


def test_a_clone_can_be_counted_again(dataset: fo.Dataset) -> None:
    """It has the fields, and no run that tells of them."""
    write_counts(dataset, progress=False)
    clone = dataset.limit(2).clone()
    try:
        assert write_counts(clone, progress=False).num_written == 0
    finally:
        clone.delete()


def test_progress_ends_at_the_total(dataset: fo.Dataset) -> None:
    steps = list(iter_write_counts(dataset))
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert (steps[0].done, steps[-1].done, steps[-1].total) == (0, 4, 4)


def test_the_summary(dataset: fo.Dataset) -> None:
    assert str(write_counts(dataset, min_confidence=0.6, progress=False)) == (
        "3 objects of confidence 0.6 and more in 3 images, now in predictions_counts, predictions_areas, "
        "predictions_area_shares\n"
        "M4 bolt  0 objects in 0 images, 0 pixels\n"
        "star     3 objects in 2 images, 500 pixels\n"
        "1 image without labels in 'predictions': no numbers there"
    )
