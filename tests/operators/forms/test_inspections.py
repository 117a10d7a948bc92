"""What is kept of an inspection: small, however large the report is."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import numpy as np
import pytest

from operators.forms import inspections
from operators.forms.inspections import (
    MOST_CLASSES,
    MOST_ROWS,
    done_since,
    keep_done,
    keep_inspection,
    kept_inspection,
    mask_of,
)
from refseg.insight.findings import ClassReport, ReferenceReport, Suggestion
from refseg.insight.report import PrototypeReport
from tests.operators.app_panel import context


def report_of(num_classes: int, num_rows: int, mask: np.ndarray) -> PrototypeReport:
    """Classes of which the last is most like the first."""
    names = [f"$c.{number}" for number in range(num_classes)]
    between = np.full((num_classes, num_classes), 0.1) + np.eye(num_classes) * 0.9
    between[0, -1] = between[-1, 0] = 0.8
    classes = tuple(ClassReport(name, 3, 0.5, 0.5, 1 / 3) for name in names)
    references = tuple(
        ReferenceReport(str(number), names[0], 0.5, 0.4, names[0], 0.2, hurts=True, problem=None) for number in range(num_rows)
    )
    box = (0.1, 0.2, 0.3, 0.4)
    suggestions = tuple(Suggestion("5" * 24, "a.png", names[0], 0.4, box, 0.3, "why", 0.9, mask) for _ in range(num_rows))
    return PrototypeReport(classes, tuple(map(tuple, between.tolist())), references, None, suggestions)


@pytest.fixture
def dataset(make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    return make_dataset([fo.Sample("a.png")])


def test_much_is_cut(dataset: fo.Dataset) -> None:
    ctx = context(dataset)
    assert kept_inspection(ctx) is None
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    keep_inspection(ctx, "parts", "5a", report_of(MOST_CLASSES + 60, MOST_ROWS + 5, mask), {"report": "/a.png"})
    found = kept_inspection(context(dataset))
    assert found is not None
    assert (found["num_classes"], len(found["classes"]), len(found["between"])) == (
        MOST_CLASSES + 60,
        MOST_CLASSES,
        MOST_CLASSES,
    )
    # The two that are most alike are among them, in their order.
    assert [found["classes"][number][0] for number in (0, -1)] == ["$c.0", f"$c.{MOST_CLASSES + 59}"]
    assert found["between"][0][-1] == 0.8
    assert (len(found["references"]), len(found["suggestions"])) == (MOST_ROWS, MOST_ROWS)
    assert found["classes"][0][-1] == 0.333
    assert len({row["id"] for row in found["suggestions"]}) == MOST_ROWS
    np.testing.assert_array_equal(mask_of(found["suggestions"][0]), mask)


def test_a_mask_that_takes_too_much_is_left_out(dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspections, "MOST_MASK_CHARACTERS", 100)
    mask = np.random.default_rng(3).random((40, 40)) > 0.5
    keep_inspection(context(dataset), "parts", None, report_of(2, 1, mask), {})
    found = kept_inspection(context(dataset))
    assert found is not None
    assert mask_of(found["suggestions"][0]) is None


def test_what_was_done_belongs_to_one_inspection(dataset: fo.Dataset) -> None:
    ctx = context(dataset)
    mask = np.ones((2, 2), bool)
    keep_inspection(ctx, "parts", None, report_of(2, 1, mask), {})
    first = kept_inspection(ctx)
    assert first is not None
    keep_done(ctx, first, [{"kind": "reference", "id": "7f"}])
    assert done_since(ctx, first) == [{"kind": "reference", "id": "7f"}]
    keep_inspection(ctx, "parts", None, report_of(2, 1, mask), {})
    second = kept_inspection(ctx)
    assert second is not None
    assert done_since(ctx, second) == []
