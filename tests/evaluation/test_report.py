from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from refseg.evaluation.evaluating import evaluate
from tests.evaluation.labels import detection, sample

MakeDataset = Callable[..., Any]


def test_the_report_reads_as_a_table(make_dataset: MakeDataset, tmp_path: Path) -> None:
    found = [detection(0, 0, 20, 20, confidence=0.9)]
    dataset = make_dataset([sample(tmp_path, "1.png", [detection(0, 0, 20, 20)], found)])
    text = str(evaluate(dataset, "predictions", "ground_truth", progress=False))
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("1 prediction, 1 object in 1 image")
    assert ["mask", "1.000", "1.000", "1.000", "1.000", "–", "–"] in lines
    assert ["box", "1.000", "1.000", "1.000", "1.000", "–", "–"] in lines
    assert ["star", "1.000", "1.000"] in lines
    assert "FiftyOne's mask mAP: 1.000 (evaluation 'eval_predictions')" in text
