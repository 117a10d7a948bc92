"""Figures of an evaluation as its record holds them, as tables that fit into the panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SIDE = 6
"""Classes in the confusion table: those with the most mistakes among them."""


def class_rows(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each class of ground truth or of the predictions; evaluations of earlier versions know no precision."""
    box = {name: (masks, boxes) for name, masks, boxes in config.get("per_class") or ()}
    without = set(config.get("without_references") or ())
    known = {row[0]: row for row in config.get("classes") or ()}
    taken = _taken_for(config.get("numbers") or ())
    rows = []
    for name, (mask_ap, box_ap) in box.items():
        _, mask_ap50, box_ap50, num_truth, num_found, num_predictions, _, precision, recall = known.get(
            name, (name, *[None] * 8)
        )
        rows.append(
            {
                "name": name,
                "ap": box_ap if config.get("mask_ap") is None else mask_ap,
                "ap50": box_ap50 if config.get("mask_ap") is None else mask_ap50,
                "box_ap": box_ap,
                "precision": precision,
                "recall": recall,
                "num_truth": num_truth,
                "num_found": num_found,
                "num_predictions": num_predictions,
                "taken_for": taken.get(name),
                "has_reference": name not in without,
            }
        )
    return rows


def confusion_table(numbers: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
    """What objects are, a row each, and what they were taken for, a column each; None where nothing was compared.

    Args:
        numbers: what objects are, what they were taken for, and how many there are; None for "nothing" in either place.

    Returns:
        `names` of the classes that are shown, `num_hidden` of others, `cells` of each row, `most`, the pair most confused, and
        `rest`, the mistakes between classes that are not shown.
    """
    if not numbers:
        return None
    counts = {(truth, predicted): number for truth, predicted, number in numbers}
    mistakes: Counter[str] = Counter()
    for (truth, predicted), number in counts.items():
        for name in (truth, predicted):
            if name is not None:
                # Those that are confused with others before those that were only missed.
                mistakes[name] += (1000 * number if None not in (truth, predicted) else number) if truth != predicted else 0
    names = sorted(name for name, _ in sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))[:SIDE])
    shown = [*names, None]
    confused = [
        (number, truth, predicted)
        for (truth, predicted), number in counts.items()
        if None not in (truth, predicted) and truth != predicted
    ]
    most = max(confused, key=lambda row: row[0], default=None)
    held = {(truth, predicted) for truth in shown for predicted in shown}
    return {
        "names": names,
        "num_hidden": len(mistakes) - len(names),
        "cells": [[counts.get((truth, predicted), 0) for predicted in shown] for truth in shown],
        "most": None if most is None else {"number": most[0], "truth": most[1], "predicted": most[2]},
        "rest": sum(number for number, truth, predicted in confused if (truth, predicted) not in held),
    }


def _taken_for(numbers: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """For each class the other one that its objects were taken for most often, with how many there are."""
    found: dict[str, list[Any]] = {}
    for truth, predicted, number in numbers:
        if None not in (truth, predicted) and truth != predicted and number > found.get(truth, [None, 0])[1]:
            found[truth] = [predicted, number]
    return found
