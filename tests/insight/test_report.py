"""What is said of prototypes: as text and as rows."""

from __future__ import annotations

import csv
import io

from refseg.insight.assessment import assess
from refseg.prototypes.prototypes import Prototypes


class TestForms:
    def test_text(self, mistaken: Prototypes) -> None:
        lines = str(assess(mistaken)).splitlines()
        assert lines[0] == "class  references  similarity  threshold    F1"
        assert lines[1].split()[:2] == ["star", "4"]
        assert lines[1].split()[-2:] == ["0.50", f"{assess(mistaken).classes[0].f1:.2f}"]
        assert "Most confused: 'star' is most often taken for 'tee': 1 of 4 references." in lines
        hurting = lines[lines.index("References that hurt:") + 1]
        assert hurting.startswith("  'star' (r2): without it F1 of the other references of 'star' is 0.")
        assert hurting.endswith("higher; it is itself taken for 'tee' (0.81)")

    def test_rows(self, mistaken: Prototypes) -> None:
        report = assess(mistaken)
        references = report.as_rows()
        assert [row["id"] for row in references] == list(mistaken.reference_ids)
        assert references[2]["hurts"] is True
        assert [row["f1"] for row in report.as_rows("classes")] == [item.f1 for item in report.classes]
        pairs = report.as_rows("similarities")
        assert [(row["label"], row["other"]) for row in pairs[:2]] == [("star", "star"), ("star", "tee")]
        assert pairs[1]["similarity"] == report.between[0][1]
        assert report.as_rows("suggestions") == []
        out = io.StringIO()
        writer = csv.DictWriter(out, list(references[0]))
        writer.writerows(references)
        assert out.getvalue().count("\n") == 7
