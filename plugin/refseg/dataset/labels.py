"""Between FiftyOne's labels (relative xywh boxes, cropped masks) and the library's (xyxy pixels of the upright image)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import fiftyone as fo
import numpy as np
from bson import ObjectId
from fiftyone.core.utils import serialize_numpy_array
from numpy.typing import NDArray
from PIL import Image

from ..errors import DatasetError, ImageError, LabelError, MaskError
from ..images import read_image_hw
from ..masks import MAX_SIDES, as_mask, flag_of, read_mask_file

if TYPE_CHECKING:
    from ..matching import Instances

OBJECT_TYPES = (fo.Detections, fo.Detection, fo.Polylines, fo.Polyline)
LIST_FIELDS = {"Detections": "detections", "Polylines": "polylines"}
Box: TypeAlias = tuple[float, float, float, float]
NO_BOX: Box = (0.0, 0.0, 0.0, 0.0)
"""Overlaps nothing."""
MIN_POINTS = 3
"""A shape of fewer points has no area."""
PIECES = "pieces"
"""Attribute of a prediction whose mask has more than one large piece: their number."""
MASK_PIXELS_IN_DOCUMENT = 100_000_000
"""Mask pixels of one image beyond this go to files: compressed they take about a hundredth, and a document ends at 16 MB."""
MASK_BYTES_IN_DOCUMENT = 1 << 18
"""A mask in a file that takes more than this when compressed is not brought into a document: of these few would fill it."""


def require_object_field(view: Any, field: str) -> type:
    """The label type of a field of objects.

    Raises:
        DatasetError: the field does not exist or holds no objects; the message lists the fields that do.
    """
    return _require_kind(view, field, OBJECT_TYPES, "objects", "label some objects first")


def require_predictions(view: Any, field: str) -> None:
    """Refuse a field that cannot hold predictions.

    Raises:
        DatasetError: the field does not exist or holds no Detections; the message lists the fields that do.
    """
    _require_kind(view, field, (fo.Detections,), "predictions", "segment the dataset first")


def _require_kind(view: Any, field: str, accepted: Collection[type], needed: str, otherwise: str) -> type:
    schema = view.get_field_schema(embedded_doc_type=None)
    kinds = {name: getattr(entry, "document_type", None) for name, entry in schema.items()}
    kind = kinds.get(field)
    if kind in accepted:
        assert isinstance(kind, type)
        return kind
    usable = [name for name, other in kinds.items() if other in accepted]
    what = f"holds {kind.__name__ if kind else 'no labels'}" if field in schema else "does not exist"
    hint = f"choose one of {', '.join(map(repr, usable))}" if usable else otherwise
    raise DatasetError(f"The field {field!r} of dataset {view._root_dataset.name!r} {what}, but {needed} are needed: {hint}.")


def objects_of(value: Any) -> list[Any]:
    """The Detection or Polyline objects of a field's value, none for an empty one."""
    if value is None:
        return []
    for name in LIST_FIELDS.values():
        if hasattr(value, name):
            return list(getattr(value, name) or [])
    return [value]


def is_crowd(label: Any) -> bool:
    """Whether a label stands for no single object.

    Raises:
        LabelError: its attribute `iscrowd` is neither yes nor no.
    """
    value = label.get_attribute_value("iscrowd", False)
    flag = flag_of(value)
    if flag is None:
        raise _unusable(label, f"its attribute iscrowd is {value!r}, neither yes nor no")
    return flag


def relative_box(label: Any) -> Box:
    """x, y, width and height of a Detection or Polyline, as shares of its image.

    Raises:
        LabelError: there is no box, or none that has an area and lies in the image.
    """
    if isinstance(label, fo.Polyline):
        return _box_of_shapes(label)
    try:
        x, y, w, h = (float(value) for value in label.bounding_box)
    except (TypeError, ValueError):
        raise _unusable(label, f"its bounding box is {label.bounding_box!r}, not four numbers") from None
    if not all(map(math.isfinite, (x, y, w, h))):
        raise _unusable(label, "its bounding box is not finite")
    if w > MAX_SIDES or h > MAX_SIDES:
        raise _unusable(label, f"its bounding box is {w:g} × {h:g} times as large as its image")
    if w <= 0 or h <= 0 or x >= 1 or y >= 1 or x + w <= 0 or y + h <= 0:
        raise _unusable(label, "its box is empty or lies outside the image")
    return x, y, w, h


def object_region(label: Any, image_hw: tuple[int, int]) -> tuple[Box, NDArray[np.bool_] | None]:
    """Box and mask of one FiftyOne object.

    Args:
        label: a Detection or Polyline; a closed line holds what it surrounds.
        image_hw: height and width of the upright image, pixels.

    Returns:
        The box, xyxy pixels, and the (h, w) bool mask over it, or None where the object is only a box. Where the bounding box
        is none, the mask of a whole image has a box of its own.

    Raises:
        LabelError: the label has no place in its image.
        MaskError: its mask cannot be read.
    """
    height, width = image_hw
    if isinstance(label, fo.Polyline):
        label = _as_detection(label, image_hw)
    mask = read_mask(label)
    try:
        x, y, w, h = relative_box(label)
    except LabelError:
        if mask is None or mask.shape != image_hw or not mask.any():
            raise
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x0, y0, x1, y1 = (int(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        return (float(x0), float(y0), float(x1), float(y1)), mask[y0:y1, x0:x1]
    return (x * width, y * height, (x + w) * width, (y + h) * height), mask


def object_box(label: Any, image_hw: tuple[int, int]) -> Box:
    """The box of one FiftyOne object, xyxy pixels, as object_region gives it; a mask is read only where there is no box."""
    height, width = image_hw
    if has_box(label):
        x, y, w, h = relative_box(label)
        return x * width, y * height, (x + w) * width, (y + h) * height
    return object_region(label, image_hw)[0]


def has_box(label: Any) -> bool:
    """Whether a label has a box in its image, apart from its mask."""
    try:
        relative_box(label)
    except LabelError:
        return False
    return True


def is_box(value: Any) -> TypeGuard[Sequence[float]]:
    """Whether a stored bounding box is four finite numbers."""
    try:
        return len(value) == 4 and all(math.isfinite(number) for number in value)
    except TypeError:
        return False


def read_mask(label: Any) -> NDArray[np.bool_] | None:
    """The (h, w) bool mask of a Detection, from its document or its file; None where it has none.

    Raises:
        MaskError: the mask cannot be read.
    """
    try:
        if label.mask is None and label.mask_path is None:
            return None
        mask = read_mask_file(label.mask_path) if label.mask is None else as_mask(label.mask)
        if not mask.size:
            raise ValueError("it has no pixels")
        return mask
    except FileNotFoundError as error:
        raise _bad_mask(label, f"its mask's file {label.mask_path} does not exist") from error
    except (OSError, ValueError) as error:
        where = f" from {label.mask_path}" if label.mask is None else ""
        reason = getattr(error, "strerror", None) or error
        raise _bad_mask(label, f"its mask cannot be read{where} ({reason})") from error


def with_own_mask(document: dict[str, Any]) -> dict[str, Any]:
    """A label as MongoDB holds it, with the mask of its file in it, so that nobody who removes the file takes it away.

    A label whose file cannot be read, or is very large, stays as it is.
    """
    path = document.get("mask_path")
    if document.get("mask") is not None or not path:
        return document
    try:
        mask = serialize_numpy_array(read_mask_file(path))
    except (OSError, ValueError):
        return document
    return document if len(mask) > MASK_BYTES_IN_DOCUMENT else {**document, "mask": mask, "mask_path": None}


def image_hw_of(sample: Any) -> tuple[tuple[int, int], bool]:
    """Height and width of a sample's upright image, and whether its metadata says otherwise.

    Metadata counts where the file cannot be read: importers, and older versions of FiftyOne, write the size of the image as it
    is stored, before it is turned.

    Raises:
        ImageError: neither the file nor the metadata tells.
    """
    about = sample.metadata
    height, width = getattr(about, "height", None), getattr(about, "width", None)
    known = (int(height), int(width)) if height and width else None
    try:
        found = read_image_hw(sample.filepath)
    except ImageError:
        if known is None:
            raise
        return known, False
    return found, known not in (None, found)


def _as_detection(label: Any, image_hw: tuple[int, int]) -> Any:
    _, _, w, h = _box_of_shapes(label)
    height, width = image_hw
    if round(w * width) < 1 or round(h * height) < 1:
        raise _bad_mask(label, f"it is smaller than a pixel of its image of {width}×{height}")
    drawn = fo.Polyline(
        label=label.label,
        points=[shape for shape in label.points if len(shape) >= MIN_POINTS],
        closed=label.closed,
        filled=label.filled or label.closed,
    )
    detection = drawn.to_detection(frame_size=(width, height))
    detection.id = label.id
    return detection


def _box_of_shapes(label: Any) -> Box:
    try:
        shapes = [np.asarray(shape, float).reshape(-1, 2) for shape in label.points if len(shape) >= MIN_POINTS]
    except (TypeError, ValueError):
        raise _unusable(label, "its points are not lists of x and y") from None
    if not shapes:
        raise _unusable(label, f"it has no shape of {MIN_POINTS} points or more")
    points = np.concatenate(shapes)
    if not np.isfinite(points).all():
        raise _unusable(label, "its points are not finite")
    if np.abs(points).max() > MAX_SIDES:
        raise _unusable(label, "its points lie far outside the image")
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    if x0 >= 1 or y0 >= 1 or x1 <= 0 or y1 <= 0 or x0 == x1 or y0 == y1:
        raise _unusable(label, "it has no area in the image")
    return x0, y0, x1 - x0, y1 - y0


def _unusable(label: Any, reason: str) -> LabelError:
    return LabelError(str(label.id), label.label, reason)


def _bad_mask(label: Any, reason: str) -> MaskError:
    return MaskError(str(label.id), label.label, reason)


def to_detections(
    instances: Instances,
    classes: Sequence[str],
    predicted_iou: Sequence[float],
    image_hw: tuple[int, int],
    run_key: str,
    mask_folder: Path | None = None,
) -> fo.Detections:
    """Instances of one image as FiftyOne labels; see to_document."""
    return fo.Detections.from_dict(to_document(instances, classes, predicted_iou, image_hw, run_key, mask_folder))


def to_document(
    instances: Instances,
    classes: Sequence[str],
    predicted_iou: Sequence[float],
    image_hw: tuple[int, int],
    run_key: str,
    mask_folder: Path | None = None,
) -> dict[str, Any]:
    """Instances of one image as MongoDB holds FiftyOne's Detections: to make these of them first takes ten times as long.

    Besides label and confidence each holds `predicted_iou`; `margin`, by how much its class beat the second-best one, which is
    `runner_up` (None where there is one class alone); and `run`. Where a mask has more than one large piece,
    `pieces` is their number; see `refseg.candidates.count_pieces`.

    Args:
        instances: from `refseg.matching.ranking.match`.
        classes: name of each prototype's row.
        predicted_iou: of each instance, from the segmenter.
        image_hw: height and width of the upright image.
        run_key: written on each label, so that it can be traced to its settings.
        mask_folder: write masks to PNG files here instead of into the document.
    """
    height, width = image_hw
    labels = []
    for mask, box, row, score, quality, margin, runner_up, pieces in zip(
        instances.masks,
        instances.boxes.tolist(),
        instances.labels.tolist(),
        instances.scores.tolist(),
        predicted_iou,
        instances.margins.tolist(),
        instances.runners_up.tolist(),
        instances.pieces,
        strict=True,
    ):
        x0, y0, x1, y1 = box
        label_id = ObjectId()
        label = {
            "_id": label_id,
            "_cls": "Detection",
            "attributes": {},
            "tags": [],
            "label": classes[row],
            "bounding_box": [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
            **_mask_values(mask.numpy(), label_id, mask_folder),
            "confidence": score,
            "predicted_iou": quality,
            "margin": margin,
            "runner_up": None if runner_up < 0 else classes[runner_up],
            "run": run_key,
        }
        if pieces > 1:
            label[PIECES] = pieces
        labels.append(label)
    return {"_cls": "Detections", "detections": labels}


def _mask_values(mask: NDArray[np.bool_], label_id: ObjectId, folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"mask": serialize_numpy_array(mask)}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label_id}.png"
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return {"mask_path": str(path)}


def prediction_example() -> fo.Detections:
    """Labels with every attribute of predictions of one piece, so that a field of them knows all from the start."""
    numbers = {"confidence": 0.0, "predicted_iou": 0.0, "margin": 0.0}
    return fo.Detections(detections=[fo.Detection(label="", bounding_box=[0.0] * 4, runner_up="", run="", **numbers)])


def needs_files(instances: Instances) -> bool:
    """Whether the masks of one image are too many bytes for its document."""
    return sum(mask.numel() for mask in instances.masks) > MASK_PIXELS_IN_DOCUMENT
