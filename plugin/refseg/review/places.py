"""Where predictions lie in their images: on references and negatives, and on the candidates that they were cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..candidates import PackedCandidates
from ..dataset import (
    NEGATIVE_TAG,
    NO_BOX,
    REFERENCE_TAG,
    SAME_PLACE,
    box_iou,
    is_box,
    label_fields,
    labels_in,
    objects_of,
    relative_box,
    views_of_labels,
)
from ..errors import LabelError
from ..prototypes import Prototypes
from .rows import projection

SAME_IOU = 1e-6
CELLS_APART = 1.5
"""A prediction is cut from the candidate of its predicted IoU whose box lies nearest, by so many cells or one pixel at most."""

Box = tuple[float, float, float, float]
"""Relative x, y, width, height."""


class Prediction(NamedTuple):
    """What is compared of a prediction."""

    label_id: str
    sample_id: str
    label: str
    score: float
    box: Box
    predicted_iou: float | None
    pieces: int


class Place(NamedTuple):
    """Where a reference is, which the prototypes know ("learnt") or which was tagged since, or a negative."""

    label: str
    box: Box
    kind: Literal["learnt", "reference", "negative"]


def read_predictions(dataset: Any, label_field: str) -> dict[str, list[Prediction]]:
    """The predictions of a field, by sample id."""
    attributes = ("_id", "label", "confidence", "bounding_box", "predicted_iou", "pieces")
    found: dict[str, list[Prediction]] = {}
    for document in dataset._aggregate(post_pipeline=[{"$project": projection(label_field, attributes)}]):
        for one in labels_in(document, label_field):
            sample_id = str(document["_id"])
            found.setdefault(sample_id, []).append(as_prediction(sample_id, one))
    return found


def as_prediction(sample_id: str, label: Mapping[str, Any]) -> Prediction:
    """A prediction as MongoDB holds it."""
    box = label.get("bounding_box")
    place: Box = (box[0], box[1], box[2], box[3]) if is_box(box) else NO_BOX
    about = label.get("confidence") or 0.0, place, label.get("predicted_iou"), int(label.get("pieces") or 1)
    return Prediction(str(label["_id"]), sample_id, str(label.get("label")), *about)


def find_places(dataset: Any, prototypes: Prototypes, rejected_field: str) -> dict[str, list[Place]]:
    """Where references and negatives are, by sample id: references of the prototypes, and what is tagged.

    Args:
        dataset: every image of a dataset.
        prototypes: whose references are learnt.
        rejected_field: no label of it is a reference by its tag.
    """
    known = set(prototypes.reference_ids)
    views = list(views_of_labels(dataset, known).items())
    of_samples = dataset.match_tags(REFERENCE_TAG).values("id")
    for field in label_fields(dataset):
        of_labels = dataset.match_labels(tags=[REFERENCE_TAG, NEGATIVE_TAG], fields=field).values("id")
        views.append((field, dataset.select(sorted({*of_labels, *of_samples}))))
    places: dict[str, list[Place]] = {}
    for field, view in views:
        for sample in view.select_fields(field).iter_samples(progress=False):
            for label in objects_of(sample[field]):
                kind = _kind_of(label, sample.tags, known, field == rejected_field)
                if kind is not None:
                    with suppress(LabelError):  # it has no place in its image, so nothing lies there
                        places.setdefault(sample.id, []).append(Place(str(label.label), relative_box(label), kind))
    return places


def _kind_of(
    label: Any, sample_tags: Sequence[str], known: set[str], is_rejected: bool
) -> Literal["learnt", "reference", "negative"] | None:
    if label.id in known:
        return "learnt"
    # What is marked as a negative is none of the references that its image as a whole is tagged to hold.
    tags = {*label.tags, *(() if NEGATIVE_TAG in label.tags else sample_tags)}
    if REFERENCE_TAG in tags and not is_rejected:
        return "reference"
    return "negative" if NEGATIVE_TAG in label.tags else None


def shows(prediction: Prediction, places: Sequence[Place]) -> bool:
    """Whether a prediction shows what lies at one of the places of its image, or a part of a reference of its class."""
    for place in places:
        iou = box_iou(prediction.box, place.box)
        is_part = iou > 0 and place.label == prediction.label and place.kind != "negative"
        if iou >= SAME_PLACE or is_part:
            return True
    return False


def candidate_rows(predictions: Sequence[Prediction], candidates: PackedCandidates) -> Tensor:
    """(n,) int64: the candidate that each prediction was cut from; -1 where there is none, or the label was changed."""
    if not predictions or not len(candidates):
        return torch.full((len(predictions),), -1)
    quality = torch.tensor([np.nan if one.predicted_iou is None else one.predicted_iou for one in predictions])
    boxes = torch.tensor([one.box for one in predictions]) * candidates.grid_side
    boxes[:, 2:] += boxes[:, :2]
    cells = candidates.boxes + torch.tensor([0, 0, 1, 1])  # boxes of candidates end with their last cell
    apart = (boxes[:, None] - cells).abs().amax(2)  # (n, N)
    is_same = (quality[:, None] - candidates.predicted_iou).abs() <= SAME_IOU
    distances, rows = torch.where(is_same, apart, torch.inf).min(1)
    # Boxes of predictions lie on whole pixels, which in a small image are larger than cells.
    most = max(CELLS_APART, candidates.grid_side / min(candidates.image_hw))
    return torch.where(distances <= most, rows, -1)
