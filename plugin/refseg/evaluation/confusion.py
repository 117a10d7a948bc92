"""Which objects were found, missed and taken for others: what precision, recall and the confusion table are made of.

COCO's average precision asks each class by itself. Here a prediction first finds an object of its own class, as there, and what
is left over of both is compared across classes: a gear that was taken for a star is one mistake of two classes, not two.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

MATCHING_IOU = 0.5
PLACES_A_CELL = 300
"""Objects of a cell that are named; of more their number is told."""
CELLS_KEPT = 100
"""The most frequent cells are kept with a dataset, with some 50 bytes for each object that they name."""

Entry = Mapping[str, Any]
Key = tuple[str | None, str | None]


@dataclass(frozen=True)
class Cell:
    """Objects of one class that were taken for one class.

    Attributes:
        truth: what they are; None where there is no object.
        predicted: what they were taken for; None where they were not found.
        number: how many there are.
        places: sample id and label id of the first PLACES_A_CELL: of the predictions, of what was not found the objects.
    """

    truth: str | None
    predicted: str | None
    number: int
    places: tuple[tuple[str, str], ...] = ()

    @property
    def is_confusion(self) -> bool:
        """Whether an object of one class was taken for another."""
        return None not in (self.truth, self.predicted) and self.truth != self.predicted


@dataclass
class Confusion:
    """Counts of objects.

    Attributes:
        numbers: objects by what they are and what they were taken for.
        places: of the first of each.
    """

    numbers: Counter[Key] = field(default_factory=Counter)
    places: dict[Key, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, truth: str | None, predicted: str | None, sample_id: str, label_id: str) -> None:
        """Count one object."""
        self.numbers[truth, predicted] += 1
        named = self.places.setdefault((truth, predicted), [])
        if len(named) < PLACES_A_CELL:
            named.append((sample_id, label_id))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The most frequent first."""
        return tuple(Cell(*key, number, tuple(self.places[key])) for key, number in self.numbers.most_common())

    def of_class(self, name: str) -> tuple[int, int, int]:
        """Objects of a class that there are, those that were found, and predictions of it."""
        there = sum(number for (truth, _), number in self.numbers.items() if truth == name)
        predicted = sum(number for (_, other), number in self.numbers.items() if other == name)
        return there, self.numbers[name, name], predicted


def find_confusion(
    truth: Sequence[Entry], predictions: Sequence[Entry], names: Mapping[int, str], least: Mapping[str, float], *, masked: bool
) -> Confusion:
    """Match predictions with objects in every image.

    The best scores come first, and an object is found once, from an IoU of 0.5 on. A prediction in a crowd of its class counts
    neither as right nor as wrong.

    Args:
        truth: entries with `id`, `image_id`, `category_id`, `bbox`, `iscrowd`, and `segmentation` where there is a mask.
        predictions: entries with `score` instead of `iscrowd`.
        names: of the classes.
        least: predictions of a class with a lower score do not count; all of a class that is not named do.
        masked: compare masks where both have one, and boxes otherwise.
    """
    found = Confusion()
    objects, guesses = _by_image(truth), _by_image(predictions)
    for image_id in dict.fromkeys([*objects, *guesses]):
        own = [one for one in guesses.get(image_id, ()) if one["score"] >= least.get(names[one["category_id"]], 0.0)]
        own.sort(key=lambda one: -one["score"])
        there = objects.get(image_id, [])
        for thing, guess in _pairs(there, own, masked=masked):
            known = thing if guess is None else guess
            assert known is not None
            is_, taken_for = (None if one is None else names[one["category_id"]] for one in (thing, guess))
            found.add(is_, taken_for, str(image_id), str(known["id"]))
    return found


def cells_as_text(cells: Sequence[Cell]) -> str:
    """The most frequent cells as JSON, to be kept with a dataset."""
    rows = [[cell.truth, cell.predicted, cell.number, " ".join(map(":".join, cell.places))] for cell in cells[:CELLS_KEPT]]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def cells_from_text(text: str) -> tuple[Cell, ...]:
    """The inverse of cells_as_text.

    Example:
        >>> cells_from_text(cells_as_text([Cell("nut", None, 1, (("5", "7"),))]))
        (Cell(truth='nut', predicted=None, number=1, places=(('5', '7'),)),)
    """
    return tuple(
        Cell(truth, predicted, number, tuple((sample, label) for sample, label in (one.split(":") for one in places.split())))
        for truth, predicted, number, places in json.loads(text)
    )


def _pairs(there: Sequence[Entry], own: Sequence[Entry], *, masked: bool) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Objects with the predictions that fall on them, and those of both that are left over."""
    ious = _ious(own, there, masked=masked)
    same = np.array([[one["category_id"] == other["category_id"] for other in there] for one in own], bool).reshape(ious.shape)
    crowd = np.array([bool(one.get("iscrowd")) for one in there], bool)
    in_crowd = ((ious >= MATCHING_IOU) & same & crowd).any(1)
    partner: dict[int, int] = {}
    for allowed, left in ((same, range(len(own))), (~same, np.flatnonzero(~in_crowd).tolist())):
        for row in left:
            near = np.where(allowed[row] & ~crowd, ious[row], 0.0)
            near[list(partner.values())] = 0.0
            if row not in partner and near.size and near.max() >= MATCHING_IOU:
                partner[row] = int(near.argmax())
    for row, guess in enumerate(own):
        if row in partner:
            yield there[partner[row]], guess
        elif not in_crowd[row]:
            yield None, guess
    taken = set(partner.values())
    yield from ((thing, None) for number, thing in enumerate(there) if number not in taken and not crowd[number])


def _ious(own: Sequence[Entry], there: Sequence[Entry], *, masked: bool) -> NDArray[np.float64]:
    """(n, k) IoU of predictions and objects; of crowds the share of the prediction inside."""
    if not own or not there:
        return np.zeros((len(own), len(there)))
    crowds = [int(bool(one.get("iscrowd"))) for one in there]
    boxes = [np.array([one["bbox"] for one in entries], float).reshape(-1, 4) for entries in (own, there)]
    ious = np.array(mask_utils.iou(*boxes, crowds), float)
    if masked:
        rows, columns = ([n for n, one in enumerate(entries) if one.get("segmentation")] for entries in (own, there))
        if rows and columns:
            codes = [own[n]["segmentation"] for n in rows], [there[n]["segmentation"] for n in columns]
            ious[np.ix_(rows, columns)] = mask_utils.iou(*codes, [crowds[n] for n in columns])
    return ious


def _by_image(entries: Sequence[Entry]) -> dict[Any, list[Entry]]:
    grouped: dict[Any, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry["image_id"], []).append(entry)
    return grouped
