"""What prototypes are worth: classes and references by hand, what is confused, what is said without surroundings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from refseg.calibration.probability import calibrator_for
from refseg.cli import main
from refseg.insight.assessment import assess, find_confusion
from refseg.insight.findings import Confusion
from refseg.insight.quality import reference_quality
from refseg.insight.report import CALIBRATE
from refseg.matching.settings import HALF, MatchSettings
from refseg.models.loaded import get_preset
from refseg.prototypes.prototypes import Prototypes
from tests.insight.angles import ODD, at, make_prototypes


def probability(prototypes: Prototypes, similarity: float, row: int) -> float:
    """As a run would write it."""
    calibrator = calibrator_for(prototypes, get_preset("demo"), MatchSettings())
    assert calibrator is not None
    return float(calibrator.probability(torch.tensor([similarity]), torch.tensor([row])))


class TestWithSurroundings:
    def test_classes(self, mistaken: Prototypes) -> None:
        report = assess(mistaken)
        quality = reference_quality(mistaken)
        star, tee = report.classes
        assert (star.label, star.num_references, tee.label, tee.num_references) == ("star", 4, "tee", 3)
        assert star.similarity == pytest.approx(sum(item.similarity or 0 for item in quality[:4]) / 4)
        assert {item.label: item.threshold for item in report.classes} == {"star": HALF, "tee": HALF}
        # Two of four stars are found, one just falls short, one is taken for a tee, and two strangers are taken for stars.
        assert star.f1 == pytest.approx(2 * 2 / (4 + 4))
        assert tee.f1 == pytest.approx(2 * 3 / (4 + 3))
        torch.testing.assert_close(torch.tensor(report.between), mistaken.matrix @ mistaken.matrix.T)

    def test_references(self, mistaken: Prototypes) -> None:
        report = assess(mistaken)
        odd = next(item for item in report.references if item.id == ODD)
        assert (odd.label, odd.won, odd.hurts) == ("star", "tee", True)
        tees = F.normalize(mistaken.vectors[4:].mean(0), dim=0)
        assert odd.score == pytest.approx(probability(mistaken, float(torch.tensor(at(88)) @ tees), 1), abs=2e-3)
        assert odd.problem is not None
        assert report.hurting == (odd,)
        good = report.references[0]
        assert (good.won, good.hurts, good.filepath, good.box) == ("star", False, "", None)
        others = F.normalize(mistaken.vectors[1:4].mean(0), dim=0)
        assert good.score == pytest.approx(probability(mistaken, float(torch.tensor(at(0)) @ others), 0), abs=2e-3)

    def test_without_the_odd_one_nothing_hurts(self, mistaken: Prototypes) -> None:
        report = assess(mistaken.remove([ODD]))
        assert report.hurting == ()
        assert "No reference hurts." in str(report)
        assert [item.f1 for item in report.classes] == [1, 1]

    def test_class_taken_most_often(self, mistaken: Prototypes) -> None:
        confusion = assess(mistaken).confusion
        assert confusion is not None
        assert (confusion.label, confusion.other, confusion.num_taken, confusion.num_scored) == ("star", "tee", 1, 4)
        assert str(confusion) == "'star' is most often taken for 'tee': 1 of 4 references"

    def test_class_taken_most_nearly(self) -> None:
        angles = [0.0, 10.0, 90.0, 80.0]
        confusion = assess(make_prototypes(angles, [0, 0, 1, 1], [0.0, 30.0, 90.0, 80.0])).confusion
        assert confusion is not None
        # The star at 30 degrees: 30 from the other star, 55 from the tees' mean.
        margin = math.cos(math.radians(30)) - math.cos(math.radians(55))
        assert confusion.margin == pytest.approx(margin, abs=1e-3)
        assert str(confusion) == f"'star' is most nearly taken for 'tee': right by {margin:.2f} where it is closest"

    def test_reference_that_no_candidate_shows(self, mistaken: Prototypes) -> None:
        assert mistaken.surroundings is not None
        report = assess(dataclasses.replace(mistaken, surroundings=mistaken.surroundings.remove(["r0"])))
        assert (report.references[0].score, report.references[0].won) == (None, None)
        assert report.notes == (
            "no candidate shows 1 of the references, such as 'star' (r0): the segmenter does not find such objects whole",
        )

    def test_settings_are_used(self, mistaken: Prototypes) -> None:
        reports = [assess(mistaken, MatchSettings(class_similarity=kind)) for kind in ("mean", "nearest")]
        assert reports[0].references[0].score != reports[1].references[0].score


class TestWithoutSurroundings:
    def test_what_needs_them_is_none(self) -> None:
        report = assess(make_prototypes([0.0, 60.0, 90.0], [0, 0, 1]))
        assert [(item.threshold, item.f1) for item in report.classes] == [(None, None)] * 2
        assert [item.similarity for item in report.classes] == [pytest.approx(0.5), None]
        assert {(item.score, item.won, item.f1_change, item.hurts) for item in report.references} == {(None,) * 4}
        assert report.notes == (CALIBRATE,)
        assert "calibrate first: refseg.calibrate(dataset, prototypes)" in str(report)
        assert "hurt" not in str(report)

    def test_most_alike_prototypes(self) -> None:
        report = assess(make_prototypes([0.0, 60.0], [0, 1]))
        assert report.confusion == Confusion("star", "tee", None, None, None, pytest.approx(0.5))
        assert str(report.confusion) == "'star' and 'tee' have the prototypes most alike: cosine 0.50"

    def test_one_class(self) -> None:
        assert assess(make_prototypes([0.0, 10.0], [0, 0])).confusion is None
        assert find_confusion(("star",), torch.ones(1, 1)) is None

    def test_references_in_one_image(self) -> None:
        alone = make_prototypes([0.0, 90.0], [0, 1], [0.0, 90.0])
        report = assess(alone)
        assert [item.threshold for item in report.classes] == [None, None]
        assert report.notes == ("no class has references in two images: label objects in more images",)


class TestForms:
    def test_command(self, mistaken: Prototypes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file, picture = tmp_path / "p.safetensors", tmp_path / "new" / "picture.jpg"
        mistaken.save(file)
        assert main(["inspect", str(file), "--out", str(picture)]) == 0
        assert capsys.readouterr().out == f"{assess(mistaken)}\n"
        with Image.open(picture) as page:
            assert page.format == "PNG"
        assert main(["inspect", str(tmp_path / "none")]) == 2
        assert capsys.readouterr().err.startswith("refseg: error: There is no prototypes file at")
        assert main(["inspect"]) == 2
        assert "SAFETENSORS" in capsys.readouterr().err
