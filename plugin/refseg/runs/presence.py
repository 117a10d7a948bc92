"""How probable it is that each class is in an image: a field to sort and filter images by, written where it changes.

The field may also hold what people noted: classifications without a confidence, or of labels that no run looked for. These
stay. Of RefSeg's own only the confidence changes, so that ids, tags and other attributes stay too.

Costs one read of the field's labels and scores for each portion of a run, and a read and a write for the images where any has
changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import fiftyone as fo
from torch import Tensor

from ..dataset import SEGMENTING, every_image, past_runs, whole_of, write_values
from .changes import SAME_SCORE

Named = tuple[str | None, float | None]
"""Label and confidence of a classification."""


def classes_told(dataset: Any, field: str) -> frozenset[str]:
    """The classes that the runs with this field of presence knew, those that have no prototype any more too."""
    runs = [run.config for run in past_runs(dataset, [SEGMENTING]) if run.config.get("presence_field") == field]
    return frozenset(str(name) for config in runs for name in config.get("classes") or ())


def write_presence(
    view: Any,
    field: str,
    presence: Mapping[str, Tensor],
    classes: Sequence[str],
    told: Collection[str],
    known: Collection[str],
    *,
    overwrite: bool = False,
) -> list[str]:
    """Write the presence of classes in some images, where it is another than the samples hold; returns the ids of these.

    Args:
        view: whose samples are written to.
        field: holds Classifications.
        presence: (K,) float32 in [0, 1] by sample id, see `refseg.matching.instances.Ranking`.
        classes: name of each of K prototypes' rows.
        told: the classes to write; classifications of the other known ones go.
        known: the classes of RefSeg's own classifications; those of other labels, and those without a confidence, are others'.
        overwrite: classifications of others go too.
    """
    now = {
        sample_id: {name: score for name, score in zip(classes, scores.tolist(), strict=True) if name in told}
        for sample_id, scores in presence.items()
    }
    before = _held(view, field, list(now))
    changed = [sample_id for sample_id, scores in now.items() if not _same(before.get(sample_id, []), scores, known, overwrite)]
    held = _documents(view, field, [sample_id for sample_id in changed if before.get(sample_id)])
    write_values(view, field, {name: _with_scores(held.get(name), now[name], known, overwrite) for name in changed})
    return changed


def _with_scores(
    held: fo.Classifications | None, scores: Mapping[str, float], known: Collection[str], overwrite: bool
) -> fo.Classifications:
    """What a sample holds with the scores of now: RefSeg's own first, the most probable before all, then those of others."""
    labels = fo.Classifications() if held is None else held
    own, others = [], []
    for label in labels.classifications:
        if not _is_own((label.label, label.confidence), known):
            others.append(label)
        elif label.label in scores:
            label.confidence = scores[label.label]
            own.append(label)
    there = {label.label for label in own}
    own += [fo.Classification(label=name, confidence=score) for name, score in scores.items() if name not in there]
    own.sort(key=lambda label: -label.confidence)
    labels.classifications = own if overwrite else own + others
    return labels


def _held(view: Any, field: str, sample_ids: list[str]) -> dict[str, list[Named]]:
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


def _documents(view: Any, field: str, sample_ids: list[str]) -> dict[str, fo.Classifications]:
    """The same with all that was noted on them."""
    if not sample_ids:
        return {}
    return dict(zip(*every_image(whole_of(view)).select(sample_ids).values(["id", field]), strict=True))


def _is_own(held: Named, known: Collection[str]) -> bool:
    """Whether a classification seems to be RefSeg's."""
    label, confidence = held
    return label in known and confidence is not None


def _same(before: Sequence[Named], now: Mapping[str, float], known: Collection[str], overwrite: bool) -> bool:
    """Whether RefSeg's own are those of now, each with its score, and nothing has to go."""
    own = [(label, score) for label, score in before if _is_own((label, score), known)]
    if overwrite and len(own) < len(before):
        return False
    return {label for label, _ in own} == set(now) and all(_near(score, now.get(label or "")) for label, score in own)


def _near(before: float | None, now: float | None) -> bool:
    return before is not None and now is not None and abs(before - now) <= SAME_SCORE
