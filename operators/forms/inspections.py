"""The last inspection of a dataset's prototypes, kept with the dataset: small, so that the panel shows it again at once.

What was done with it since is kept beside it, because the operator writes the one and the panel the other.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from fiftyone.core.utils import deserialize_numpy_array, serialize_numpy_array
from numpy.typing import NDArray

if TYPE_CHECKING:
    from refseg.insight import PrototypeReport, Suggestion

STORE = "refseg_inspection"
REPORT, DONE = "report", "done"

MOST_CLASSES = 40
"""With more, those are kept whose prototypes are most like another's: a matrix of more cells cannot be read."""
MOST_ROWS = 24
"""References that hurt, and suggestions, that are kept."""
MOST_MASK_CHARACTERS = 300_000
"""A mask that takes more is left out, and its box stands for it: MongoDB refuses documents of more than 16 MB."""


def keep_inspection(ctx: Any, name: str, sha256: str | None, report: PrototypeReport, files: Mapping[str, str]) -> None:
    """Keep a report in the place of the one before.

    Args:
        ctx: FiftyOne's execution context.
        name: of the prototypes.
        sha256: of their file.
        report: from `refseg.inspect`.
        files: paths of the pictures that were drawn, by what they show.
    """
    from refseg.insight import why_it_hurts

    rows = _most_alike(report.between)
    names = [report.classes[row].label for row in rows]
    hurting = [[item.id, item.label, why_it_hurts(item)] for item in report.hurting]
    known = {item.id for item in report.hurting}
    wrong = [[item.id, item.label, f"it is {item.problem}"] for item in report.references if item.problem]
    shown = [*hurting, *(row for row in wrong if row[0] not in known)]
    suggestions = report.suggestions
    kept = {
        "id": uuid.uuid4().hex,
        "made_at": datetime.now(timezone.utc).isoformat(),
        "prototypes": name,
        "sha256": sha256,
        "classes": [
            [item.label, item.num_references, _rounded(item.similarity), _rounded(item.threshold), _rounded(item.f1)]
            for item in (report.classes[row] for row in rows)
        ],
        "num_classes": len(report.classes),
        "between": [[_rounded(report.between[row][column]) for column in rows] for row in rows],
        "names": names,
        "confused": None if report.confusion is None else str(report.confusion),
        "references": shown[:MOST_ROWS],
        "num_scored": sum(item.hurts is not None for item in report.references),
        "suggestions": None if suggestions is None else [_suggestion(item) for item in suggestions[:MOST_ROWS]],
        "notes": list(report.notes),
        "files": dict(files),
    }
    ctx.store(STORE).set(REPORT, kept)


def kept_inspection(ctx: Any) -> dict[str, Any] | None:
    """What was kept last, or None."""
    found: dict[str, Any] | None = ctx.store(STORE).get(REPORT)
    return found


def done_since(ctx: Any, inspection: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was done with an inspection, in order: of one before nothing counts."""
    found = ctx.store(STORE).get(DONE) or {}
    return list(found["actions"]) if found.get("inspection") == inspection["id"] else []


def keep_done(ctx: Any, inspection: Mapping[str, Any], actions: Sequence[Mapping[str, Any]]) -> None:
    """Keep what was done with it."""
    ctx.store(STORE).set(DONE, {"inspection": inspection["id"], "actions": [dict(action) for action in actions]})


def mask_of(row: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """The mask of a kept suggestion, (h, w) bool over its box; None where it was too large to be kept."""
    packed = row.get("mask")
    return None if packed is None else deserialize_numpy_array(packed, ascii=True).astype(bool)


def _suggestion(item: Suggestion) -> dict[str, Any]:
    packed = serialize_numpy_array(np.ascontiguousarray(item.mask), ascii=True)
    return {
        "id": uuid.uuid4().hex,
        "sample_id": item.sample_id,
        "label": item.label,
        "score": _rounded(item.score),
        "change": _rounded(item.expected_change),
        "reason": item.reason,
        "box": [float(number) for number in item.box],
        "mask": packed if len(packed) <= MOST_MASK_CHARACTERS else None,
    }


def _most_alike(between: Sequence[Sequence[float]]) -> list[int]:
    """Rows of the classes to keep, in their order."""
    number = len(between)
    if number <= MOST_CLASSES:
        return list(range(number))
    matrix = np.array(between, float)
    np.fill_diagonal(matrix, -np.inf)
    return sorted(np.argsort(-matrix.max(1), kind="stable")[:MOST_CLASSES].tolist())


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
