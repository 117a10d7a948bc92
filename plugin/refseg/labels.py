"""Between FiftyOne's labels (relative xywh boxes, cropped masks) and the library's (xyxy pixels of the upright image)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DatasetError

if TYPE_CHECKING:
    from .instances import Instances

OBJECT_TYPES = (fo.Detections, fo.Detection, fo.Polylines, fo.Polyline)
LIST_FIELDS = {"Detections": "detections", "Polylines": "polylines"}
MASK_PIXELS_IN_DOCUMENT = 100_000_000
"""Mask pixels of one image beyond this go to files: compressed they take about a hundredth, and a document ends at 16 MB."""


def require_samples(view: Any) -> None:
    """Refuse an empty view.

    Raises:
        DatasetError: there is no sample in it.
    """
    if len(view) == 0:
        raise DatasetError(f"The view of dataset {view._root_dataset.name!r} is empty: choose at least one image.")


def require_object_field(view: Any, field: str) -> type:
    """The label type of a field of objects.

    Raises:
        DatasetError: the field does not exist or holds no objects; the message lists the fields that do.
    """
    schema = view.get_field_schema(embedded_doc_type=None)
    kinds = {name: getattr(entry, "document_type", None) for name, entry in schema.items()}
    kind = kinds.get(field)
    if kind in OBJECT_TYPES:
        assert isinstance(kind, type)
        return kind
    usable = [name for name, other in kinds.items() if other in OBJECT_TYPES]
    what = f"holds {kind.__name__ if kind else 'no labels'}" if field in schema else "does not exist"
    hint = f"choose one of {', '.join(map(repr, usable))}" if usable else "label some objects first"
    raise DatasetError(f"The field {field!r} of dataset {view._root_dataset.name!r} {what}, but objects are needed: {hint}.")


def objects_of(value: Any) -> list[Any]:
    """The Detection or Polyline objects of a field's value, none for an empty one."""
    if value is None:
        return []
    for name in LIST_FIELDS.values():
        if hasattr(value, name):
            return list(getattr(value, name) or [])
    return [value]


def object_region(label: Any, image_hw: tuple[int, int]) -> tuple[tuple[float, float, float, float], NDArray[np.bool_] | None]:
    """Box and mask of one FiftyOne object.

    Args:
        label: a Detection or Polyline.
        image_hw: height and width of the upright image, pixels.

    Returns:
        The box, xyxy pixels, and the (h, w) bool mask over it, or None where the object is only a box.

    Raises:
        DatasetError: the mask's file cannot be read.
    """
    height, width = image_hw
    if isinstance(label, fo.Polyline):
        label = label.to_detection(frame_size=(width, height))
    x, y, w, h = label.bounding_box
    box = (x * width, y * height, (x + w) * width, (y + h) * height)
    try:
        mask = label.get_mask()
    except Exception as error:  # whatever the reader of mask files raises
        raise DatasetError(f"The mask of the label {label.id} cannot be read from {label.mask_path}: {error}") from error
    if mask is None:
        return box, None
    flat = np.asarray(mask)
    return box, np.asarray((flat if flat.ndim == 2 else flat.any(-1)) > 0)


def to_detections(
    instances: Instances,
    classes: Sequence[str],
    predicted_iou: Sequence[float],
    image_hw: tuple[int, int],
    run_key: str,
    mask_folder: Path | None = None,
) -> fo.Detections:
    """Instances of one image as FiftyOne labels.

    Besides label and confidence each holds `predicted_iou`; `margin`, by how much its class beat the second-best one, which is
    `runner_up` (None where there is one class alone); and `run`.

    Args:
        instances: from `refseg.matching.match`.
        classes: name of each prototype's row.
        predicted_iou: of each instance, from the segmenter.
        image_hw: height and width of the upright image.
        run_key: written on each label, so that it can be traced to its settings.
        mask_folder: write masks to PNG files here instead of into the document.
    """
    height, width = image_hw
    labels = []
    for mask, box, row, score, quality, margin, runner_up in zip(
        instances.masks,
        instances.boxes.tolist(),
        instances.labels.tolist(),
        instances.scores.tolist(),
        predicted_iou,
        instances.margins.tolist(),
        instances.runners_up.tolist(),
        strict=True,
    ):
        x0, y0, x1, y1 = box
        label = fo.Detection(
            label=classes[row],
            bounding_box=[x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
            confidence=score,
            predicted_iou=quality,
            margin=margin,
            runner_up=None if runner_up < 0 else classes[runner_up],
            run=run_key,
        )
        if mask_folder is None:
            label.mask = mask.numpy()
        else:
            mask_folder.mkdir(parents=True, exist_ok=True)
            path = mask_folder / f"{label.id}.png"
            Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(path)
            label.mask_path = str(path)
        labels.append(label)
    return fo.Detections(detections=labels)


def needs_files(instances: Instances) -> bool:
    """Whether the masks of one image are too many bytes for its document."""
    return sum(mask.numel() for mask in instances.masks) > MASK_PIXELS_IN_DOCUMENT
