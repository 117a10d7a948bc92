"""How probable it is that each class is in an image: a field to sort and filter images by, written where it changes.

Costs one read of the field's labels and scores for each portion of a run, and a write for the images where any has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import fiftyone as fo
from torch import Tensor

from ..dataset import every_image, whole_of, write_values
from .changes import SAME_SCORE


def write_presence(
    view: Any, field: str, presence: Mapping[str, Tensor], classes: Sequence[str], told: Collection[str]
) -> list[str]:
    """Write the presence of classes in some images, where it is another than the samples hold; returns the ids of these.

    Args:
        view: whose samples are written to.
        field: holds Classifications.
        presence: (K,) float32 in [0, 1] by sample id, see `refseg.matching.instances.Ranking`.
        classes: name of each of K prototypes' rows.
        told: the classes to write.
    """
    now = {
        sample_id: {name: score for name, score in zip(classes, scores.tolist(), strict=True) if name in told}
        for sample_id, scores in presence.items()
    }
    before = _held(view, field, list(now))
    changed = {sample_id: _labels(scores) for sample_id, scores in now.items() if not _same(before.get(sample_id), scores)}
    write_values(view, field, changed)
    return list(changed)


def _labels(scores: Mapping[str, float]) -> fo.Classifications:
    """One classification for each class, the most probable first."""
    order = sorted(scores, key=lambda name: -scores[name])
    return fo.Classifications(classifications=[fo.Classification(label=name, confidence=scores[name]) for name in order])


def _held(view: Any, field: str, sample_ids: list[str]) -> dict[str, list[tuple[str | None, float | None]]]:
    """Label and confidence of each classification that the samples hold in this field."""
    # Not read through the view, which may hide a part of them.
    selected = every_image(whole_of(view)).select(sample_ids)
    path = f"{field}.classifications"
    ids, labels, scores = selected.values(["id", f"{path}.label", f"{path}.confidence"])
    return {
        sample_id: list(zip(names, confidences, strict=True))
        for sample_id, names, confidences in zip(ids, labels, scores, strict=True)
        if names is not None
    }


def _same(before: Sequence[tuple[str | None, float | None]] | None, now: Mapping[str, float]) -> bool:
    """Whether each class is there once, with its score."""
    if before is None or len(before) != len(now):
        return False
    held = dict(before)
    return all(_near(held.get(name), score) for name, score in now.items())


def _near(before: float | None, now: float) -> bool:
    return before is not None and abs(before - now) <= SAME_SCORE
