"""The dataset of a part: made once, used again, never somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from refseg.progress import drain
from refseg.prototypes.vectors import Reference
from refseg.published.datasets import find_dataset, iter_dataset, iter_predictions, show_maps, show_references
from refseg.published.job import BenchmarkJob, Plan
from refseg.published.planning import make_plan
from tests.published import trees


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    trees.write_coco_2017(folder)
    return folder


@pytest.fixture
def clean() -> Iterator[None]:
    before = set(fo.list_datasets())
    yield
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


def plan_of(data: Path, out: Path, **chosen: Any) -> Plan:
    return make_plan(BenchmarkJob("coco-fsod", data, out, model="demo", shots=(1,), **chosen))


def open_part(plan: Plan) -> Any:
    return drain(iter_dataset(plan.suite, plan.suite.parts[0], plan.job), False)


@pytest.mark.usefixtures("clean")
class TestDataset:
    def test_grows_with_what_is_asked_for(self, data: Path, tmp_path: Path) -> None:
        few = open_part(plan_of(data, tmp_path, limit=3))
        assert len(few.dataset) == 3
        every = open_part(plan_of(data, tmp_path))
        assert every.dataset.name == few.dataset.name
        assert len(every.dataset) == 10
        assert few.sample_ids.items() <= every.sample_ids.items()
        again = open_part(plan_of(data, tmp_path, limit=3))
        assert len(again.view) == 3
        assert len(again.dataset) == 10

    def test_ground_truth_is_that_of_the_file(self, data: Path, tmp_path: Path) -> None:
        plan = plan_of(data, tmp_path)
        targets, found = plan.suite.parts[0].targets, open_part(plan)
        for image in targets.images.values():
            sample = found.dataset[found.sample_ids[image.id]]
            own = [entry for entry in targets.annotations if entry["image_id"] == image.id]
            assert len(sample.ground_truth.detections) == len(own)
            for label, entry in zip(sample.ground_truth.detections, own, strict=True):
                height, width = image.image_hw or (0, 0)
                x, y, w, h = entry["bbox"]
                box = np.array(label.bounding_box) * [width, height, width, height]
                assert np.abs(box - [x, y, w, h]).max() <= 1.01
                assert label.mask.shape == (round(box[3]), round(box[2]))
                assert label.mask.sum() == pytest.approx(entry["area"], rel=0.1)
                assert label.label == targets.categories[entry["category_id"]]

    def test_somebody_elses_is_left_alone(self, data: Path, tmp_path: Path) -> None:
        own = fo.Dataset("refseg-coco-fsod")
        found = open_part(plan_of(data, tmp_path))
        assert found.dataset.name == "refseg-coco-fsod-2"
        assert len(own) == 0

    def test_a_reference_becomes_a_target(self, data: Path, tmp_path: Path) -> None:
        plan = plan_of(data, tmp_path, limit=3)
        few = open_part(plan)
        all_targets = plan_of(data, tmp_path).suite.parts[0].targets
        other = next(image for image in all_targets.images.values() if image.id not in few.sample_ids)
        path = str(plan.suite.folder / other.file_name)
        reference = Reference("7", "dog", path, (10.0, 20.0, 50.0, 60.0), np.ones((40, 40), bool))
        inside = Reference("8", "cat", str(few.dataset.first().filepath), (0.0, 0.0, 30.0, 30.0))
        broken = Reference("9", "cat", str(tmp_path / "none.jpg"), (0.0, 0.0, 30.0, 30.0))
        show_references(few.dataset, [reference, inside, broken], "references")
        assert len(few.dataset) == 4
        assert few.dataset.match_tags("reference").values("filepath") == [path]
        assert few.dataset.count("references.detections") == 2
        show_references(few.dataset, [reference], "references")
        assert few.dataset.count("references.detections") == 1
        every = open_part(plan_of(data, tmp_path))
        assert len(every.dataset) == 10
        assert every.dataset.match_tags("target").count() == 10

    def test_ground_truth_that_has_changed_is_renewed(self, data: Path, tmp_path: Path) -> None:
        plan = plan_of(data, tmp_path, limit=4)
        part = plan.suite.parts[0]
        found = open_part(plan)
        image_id = part.targets.annotations[0]["image_id"]
        fewer = tuple(entry for entry in part.targets.annotations if entry["image_id"] != image_id)
        changed = replace(part, targets=replace(part.targets, annotations=fewer))
        again = drain(iter_dataset(plan.suite, changed, plan.job), False)
        assert again.sample_ids == found.sample_ids
        counts = {name: len(again.dataset[sample].ground_truth.detections) for name, sample in again.sample_ids.items()}
        assert counts[image_id] == 0
        assert sum(counts.values()) == len(fewer) > 0

    def test_a_file_may_be_listed_twice_and_by_a_detour(self, data: Path, tmp_path: Path) -> None:
        plan = plan_of(data, tmp_path, limit=2)
        part = plan.suite.parts[0]
        first, second = part.targets.images.values()
        again = replace(first, id=999, file_name=f"val2017/../{first.file_name}")
        several = replace(part, targets=replace(part.targets, images={first.id: first, second.id: second, 999: again}))
        found = drain(iter_dataset(plan.suite, several, plan.job), False)
        assert found.sample_ids[999] == found.sample_ids[first.id]
        assert len(found.dataset) == len(found.view) == 2

    def test_predictions_replace_those_before(self, data: Path, tmp_path: Path) -> None:
        plan = plan_of(data, tmp_path, limit=2)
        targets, found = plan.suite.parts[0].targets, open_part(plan)
        first, second = targets.images
        result = {"category_id": 18, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.8}
        results = [{**result, "image_id": first}, {**result, "image_id": second}, {**result, "image_id": first, "score": 0.2}]
        for given, counts in ((results, [1, 1]), (results[1:], [0, 1])):
            drain(iter_predictions(found, targets, given, 0.5, "predictions"), False)
            samples = [found.dataset[found.sample_ids[image_id]] for image_id in (first, second)]
            assert [len(sample.predictions.detections) for sample in samples] == counts
        (label,) = samples[1].predictions.detections
        assert (label.label, label.confidence) == ("dog", 0.8)
        assert label.bounding_box == pytest.approx([10 / 320, 20 / 240, 30 / 320, 40 / 240])

    def test_names_that_fiftyone_takes_for_one(self, tmp_path: Path) -> None:
        paths = trees.write_custom(tmp_path / "own")
        names = []
        for stem in ("targets", "Targets", "targets!"):
            file = paths.targets.with_name(f"{stem}.json")
            file.write_text(paths.targets.read_text())
            job = BenchmarkJob("custom", paths.images, tmp_path, "demo", references=str(paths.references), targets=file)
            names.append(open_part(make_plan(job)).dataset.name)
        assert names == ["refseg-custom-targets", "refseg-custom-targets-2", "refseg-custom-targets-3"]
        assert find_dataset(make_plan(job).suite, make_plan(job).suite.parts[0], job).others == tuple(names[:2])

    def test_maps(self, data: Path, tmp_path: Path) -> None:
        found = open_part(plan_of(data, tmp_path, limit=2))
        first, second = found.sample_ids
        canvas = np.zeros((240, 320), np.uint16)
        canvas[:9] = 2
        for maps in ({first: canvas, second: canvas}, {second: canvas}):
            show_maps(found, maps, ["dog", "cat"], "maps")
            shown = {image_id: found.dataset[sample_id].maps for image_id, sample_id in found.sample_ids.items()}
            assert {image_id for image_id, value in shown.items() if value is not None} == set(maps)
            assert (shown[second].mask == canvas).all()
        assert found.dataset.mask_targets["maps"] == {1: "dog", 2: "cat"}
