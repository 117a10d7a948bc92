"""What was found, missed and taken for something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from refseg.evaluation import confusion
from refseg.evaluation.confusion import Cell, cells_as_text, cells_from_text
from refseg.evaluation.evaluating import evaluate
from refseg.evaluation.report import EvaluationReport
from tests.evaluation.labels import detection, sample

MakeDataset = Callable[..., Any]

HERE, THERE, BESIDE = (0, 0, 20, 20), (60, 0, 80, 20), (0, 60, 20, 80)


def judged(make_dataset: MakeDataset, folder: Path, truth: list[Any], found: list[Any]) -> tuple[fo.Dataset, EvaluationReport]:
    dataset = make_dataset([sample(folder, "1.png", truth, found)])
    return dataset, evaluate(dataset, "predictions", "ground_truth", progress=False)


def numbers(report: EvaluationReport) -> dict[tuple[str | None, str | None], int]:
    return {(cell.truth, cell.predicted): cell.number for cell in report.cells}


class TestCells:
    def test_of_every_kind(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        truth = [detection(*HERE, "nut"), detection(*THERE, "nut"), detection(*BESIDE, "pin")]
        found = [
            detection(*HERE, "nut", confidence=0.6),
            detection(*THERE, "gear", confidence=0.9),
            detection(40, 40, 50, 50, "gear", confidence=0.8),
        ]
        dataset, report = judged(make_dataset, tmp_path, truth, found)
        assert numbers(report) == {("nut", "nut"): 1, ("nut", "gear"): 1, (None, "gear"): 1, ("pin", None): 1}
        places = {(cell.truth, cell.predicted): cell.places for cell in report.cells}
        image = dataset.first()
        assert places["nut", "gear"] == ((image.id, image.predictions.detections[1].id),)
        assert places["pin", None] == ((image.id, image.ground_truth.detections[2].id),)
        assert [(one.name, one.precision, one.recall) for one in report.classes] == [
            ("gear", 0.0, None),
            ("nut", 1.0, 0.5),
            ("pin", None, 0.0),
        ]
        assert "Most confused: nut taken for gear 1" in str(report)

    def test_the_own_class_comes_first(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        """A better prediction of another class at the same place takes no object away, and is nothing but wrong."""
        found = [detection(*HERE, "gear", confidence=0.9), detection(*HERE, "nut", confidence=0.5)]
        _, report = judged(make_dataset, tmp_path, [detection(*HERE, "nut")], found)
        assert numbers(report) == {("nut", "nut"): 1, (None, "gear"): 1}

    def test_an_object_is_found_once(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        found = [detection(*HERE, "nut", confidence=score) for score in (0.5, 0.9)]
        dataset, report = judged(make_dataset, tmp_path, [detection(*HERE, "nut")], found)
        assert numbers(report) == {("nut", "nut"): 1, (None, "nut"): 1}
        right = next(cell for cell in report.cells if cell.truth == "nut")
        assert right.places[0][1] == dataset.first().predictions.detections[1].id

    def test_masks_are_compared_where_there_are_any(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        thin = detection(*HERE, "nut", confidence=0.5)
        thin.mask = thin.mask.copy()
        thin.mask[1:-1, 1:-1] = False
        thin.mask[0], thin.mask[-1] = True, True
        _, report = judged(make_dataset, tmp_path, [detection(*HERE, "nut")], [thin])
        assert numbers(report) == {(None, "nut"): 1, ("nut", None): 1}

    def test_crowds_do_not_count(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        crowd = detection(0, 0, 50, 50, "nut", iscrowd=True)
        found = [detection(*HERE, "nut", confidence=0.5), detection(*HERE, "gear", confidence=0.5)]
        _, report = judged(make_dataset, tmp_path, [crowd, detection(*THERE, "nut")], found)
        assert numbers(report) == {(None, "gear"): 1, ("nut", None): 1}

    def test_the_figures_are_those_of_fiftyone(self, make_dataset: MakeDataset, tmp_path: Path, rng: Any) -> None:
        from tests.evaluation.test_evaluating import perturbed_scenes

        dataset = make_dataset(perturbed_scenes(tmp_path, rng, 8))
        report = evaluate(dataset, "predictions", "ground_truth", progress=False)
        found = dataset.count_values("predictions.detections.eval_predictions")
        missed = dataset.count_values("ground_truth.detections.eval_predictions")
        assert sum(one.num_found for one in report.classes) == found["tp"]
        assert sum(one.num_predictions for one in report.classes) == found["tp"] + found["fp"]
        assert sum(one.num_truth - one.num_found for one in report.classes) == missed["fn"]
        assert report.confused

    def test_scores_below_those_of_the_run_do_not_count(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        found = [detection(*HERE, "nut", confidence=0.6), detection(*THERE, "nut", confidence=0.4)]
        dataset = make_dataset([sample(tmp_path, "1.png", [detection(*HERE, "nut")], found)])
        config = dataset.init_run(
            method="refseg/segment", label_field="predictions", classes=["nut"], min_confidences=[["nut", 0.5]]
        )
        dataset.register_run("run", config)
        (nut,) = evaluate(dataset, "predictions", "ground_truth", progress=False).classes
        assert (nut.num_predictions, nut.precision, nut.least) == (1, 1.0, 0.5)


class TestWhatIsLeftOut:
    def test_classes_and_images(self, make_dataset: MakeDataset, tmp_path: Path) -> None:
        truth = [detection(*HERE, "nut"), detection(*THERE, "pin"), detection(*BESIDE, "pin")]
        found = [detection(*HERE, "nut", confidence=0.6)]
        dataset = make_dataset([sample(tmp_path, f"{number}.png", truth, found) for number in range(3)])
        report = evaluate(dataset[:1], "predictions", "ground_truth", classes=["nut"], progress=False)
        assert (report.not_compared, report.num_outside) == ((("pin", 2),), 2)
        assert numbers(report) == {("nut", "nut"): 1}


class TestText:
    def test_there_and_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cells = Cell('a "b"', None, 2, (("1", "2"), ("1", "3"))), Cell(None, "$c", 1)
        assert cells_from_text(cells_as_text(cells)) == cells
        monkeypatch.setattr(confusion, "CELLS_KEPT", 1)
        assert cells_from_text(cells_as_text(cells)) == cells[:1]

    def test_so_many_places(self, make_dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(confusion, "PLACES_A_CELL", 1)
        truth = [detection(*HERE, "nut"), detection(*THERE, "nut")]
        _, report = judged(make_dataset, tmp_path, truth, [detection(*BESIDE, "nut", confidence=0.5)])
        missed = next(cell for cell in report.cells if cell.predicted is None)
        assert (missed.number, len(missed.places)) == (2, 1)
