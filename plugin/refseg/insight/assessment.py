"""What prototypes are worth: classes, references, and what is confused, from the prototypes alone.

Needs no image and no model. Without surroundings milliseconds; with them see `refseg.insight.removal`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import torch
from torch import Tensor

from ..calibration import LeftOut, calibrator_for, leave_one_out
from ..matching import HALF, MatchSettings, settings_for
from ..models import PRESETS, Preset
from ..prototypes import Prototypes
from .findings import ClassReport, Confusion, ReferenceReport
from .quality import ReferenceQuality, reference_quality
from .removal import Scored, class_f1, f1_changes, score_surroundings
from .report import CALIBRATE, PrototypeReport

UNKNOWN_THRESHOLD = 0.5
"""Where a later version made the preset."""
LEAST_SHARE = 0.2
"""A reference hurts when F1 without it is higher by so much of one of the others: less is chance."""


def assess(prototypes: Prototypes, matching: MatchSettings | None = None) -> PrototypeReport:
    """What prototypes are worth, without a dataset and so without suggestions.

    Args:
        prototypes: of any number of classes. What is told of scores needs surroundings, which `refseg.calibrate` adds.
        matching: how candidates are compared; by default as the preset's.
    """
    settings = settings_of(prototypes, matching)
    quality = reference_quality(prototypes)
    matrix = prototypes.matrix
    between = matrix @ matrix.T
    around = None if prototypes.surroundings is None else prototypes.surroundings.whole
    scored: Scored | None = None
    changes: list[float | None] = [None] * len(quality)
    if around is not None and len(around):
        scored = score_surroundings(prototypes, around, settings)
        changes = f1_changes(prototypes, around, settings, scored)
    found = None if scored is None else _left_out(prototypes, settings)
    threshold = None if found is None or not bool((found.truth >= 0).any()) else default_threshold(prototypes, settings)
    classes = tuple(_class_report(prototypes, row, quality, found, threshold) for row in range(len(prototypes.classes)))
    return PrototypeReport(
        classes,
        tuple(tuple(values) for values in between.tolist()),
        _reference_reports(prototypes, quality, found, changes),
        find_confusion(prototypes.classes, between, scored),
        notes=_notes(prototypes, scored, threshold),
    )


def settings_of(prototypes: Prototypes, matching: MatchSettings | None) -> MatchSettings:
    """What was chosen, else what is the default of the preset that built the prototypes."""
    preset = PRESETS.get(prototypes.model)
    return settings_for(preset is not None and preset.as_published, matching)


def default_threshold(prototypes: Prototypes, settings: MatchSettings) -> float:
    """The score from which on an answer counts where nobody says otherwise."""
    is_probability = settings.calibrated and prototypes.surroundings is not None
    return HALF if is_probability else preset_of(prototypes).typical_threshold


def preset_of(prototypes: Prototypes) -> Preset:
    """The preset that built prototypes; where a later version did, any that looks twice stands for it."""
    return PRESETS.get(prototypes.model) or replace(PRESETS["large"], typical_threshold=UNKNOWN_THRESHOLD)


def _left_out(prototypes: Prototypes, settings: MatchSettings) -> LeftOut:
    """What is found in the images of references as if each had never been shown, with the scores that a run would write."""
    preset = preset_of(prototypes)
    found, calibrator = leave_one_out(prototypes, preset, settings), calibrator_for(prototypes, preset, settings)
    if calibrator is None:
        return found
    return replace(found, scores=calibrator.probability(found.scores, found.labels))


def find_confusion(classes: Sequence[str], between: Tensor, scored: Scored | None = None) -> Confusion | None:
    """The class whose references are most often taken for another, or, where none is, most nearly.

    Args:
        classes: K names.
        between: (K, K) cosines of the prototypes.
        scored: their surroundings; without any, the two classes whose prototypes are most alike.

    Returns:
        None where there is one class.
    """
    if len(classes) < 2:
        return None
    pairs = [] if scored is None else _taken_for(scored)
    if not pairs:
        alike = between.masked_fill(torch.eye(len(classes), dtype=torch.bool), -2.0)
        row, column = divmod(int(alike.argmax()), len(classes))
        return Confusion(classes[row], classes[column], None, None, None, float(alike[row, column]))
    best: Confusion | None = None
    for row, column in sorted({(row, column) for row, column, _ in pairs}):
        margins = [margin for own, other, margin in pairs if (own, other) == (row, column)]
        num_scored = sum(own == row for own, _, _ in pairs)
        num_taken = sum(margin < 0 for margin in margins)
        item = Confusion(classes[row], classes[column], num_taken, num_scored, min(margins), float(between[row, column]))
        if best is None or _rank(item) > _rank(best):
            best = item
    return best


def _rank(item: Confusion) -> tuple[int, float]:
    return item.num_taken or 0, -(item.margin or 0.0)


def _taken_for(scored: Scored) -> list[tuple[int, int, float]]:
    """For each scored reference its class's row, that of the other class it is most like, and by how much its own is ahead."""
    rows = (scored.counted & (scored.truth >= 0)).nonzero()[:, 0]
    # What the background wins is taken for no class.
    similar = scored.final[rows]
    rows, similar = rows[similar.any(1)], similar[similar.any(1)]
    truth = scored.truth[rows]
    own = similar.gather(1, truth[:, None])[:, 0]
    others, columns = similar.scatter(1, truth[:, None], -1.0).max(1)
    return list(zip(truth.tolist(), columns.tolist(), (own - others).tolist(), strict=True))


def _class_report(
    prototypes: Prototypes, row: int, quality: Sequence[ReferenceQuality], found: LeftOut | None, threshold: float | None
) -> ClassReport:
    label = prototypes.classes[row]
    own = [item.similarity for item in quality if item.label == label and item.similarity is not None]
    f1 = None if found is None or threshold is None else class_f1(found, row, threshold)
    return ClassReport(label, prototypes.shots[label], fmean(own) if own else None, threshold, f1)


def _reference_reports(
    prototypes: Prototypes, quality: Sequence[ReferenceQuality], found: LeftOut | None, changes: Sequence[float | None]
) -> tuple[ReferenceReport, ...]:
    won: dict[str, tuple[float, int]] = {}
    if found is not None:
        won = dict(zip(found.shown, zip(found.scores.tolist(), found.labels.tolist(), strict=True), strict=True))
    reports = []
    names = prototypes.image_names or ("",) * len(quality)
    for item, change, image_name in zip(quality, changes, names, strict=True):
        score, row = won.get(item.id, (None, -1))
        winner = prototypes.classes[row] if score else None
        hurts = None if change is None else change > LEAST_SHARE / (prototypes.shots[item.label] - 1)
        found_so = score, winner, change, hurts, item.problem
        reports.append(ReferenceReport(item.id, item.label, item.similarity, *found_so, image_name=image_name))
    return tuple(reports)


def _notes(prototypes: Prototypes, scored: Scored | None, threshold: float | None) -> tuple[str, ...]:
    if scored is None:
        return (CALIBRATE,)
    if threshold is None:
        return ("no class has references in two images: label objects in more images",)
    shown = set(scored.shown)
    unseen = [prototypes.name_of(row) for row, name in enumerate(prototypes.reference_ids) if name not in shown]
    if not unseen:
        return ()
    text = f"no candidate shows {len(unseen)} of the references, such as {unseen[0]}"
    return (f"{text}: the segmenter does not find such objects whole",)
