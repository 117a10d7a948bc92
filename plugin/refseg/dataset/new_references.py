"""Labels for objects that somebody has shown: references, or negatives, in a field of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from ..checks import class_name, require_flags, require_list_of_numbers, require_names
from ..errors import DatasetError
from ..masks import as_mask
from .fields import NEGATIVE_TAG, REFERENCE_TAG, require_own_field
from .label_edits import ImageEdit, ListEdit, edit_labels, read_documents
from .labels import relative_box
from .views import add_labels_field, image_dataset, require_image

SHOWN_FIELD = "references"


def add_reference(
    dataset: Any,
    sample_id: str,
    label: str,
    bounding_box: Sequence[float],
    mask: NDArray[np.bool_] | None = None,
    *,
    field: str = SHOWN_FIELD,
    is_negative: bool = False,
) -> str:
    """Label an object and tag it as a reference, or as a negative.

    Args:
        dataset: a dataset of images, a view of it, or its name.
        sample_id: of the image.
        label: what the object is, or, of a negative, what it is not.
        bounding_box: x, y, width and height, as shares of the upright image.
        mask: (h, w) bool over the box; without one the segmenter makes it of the box when prototypes are built.
        field: a new field, or one of Detections that no run writes to.
        is_negative: give it the tag `negative` instead of `reference`.

    Returns:
        The id of the new label.

    Raises:
        DatasetError: no such image, a blank name, a box or mask that shows nothing, or a field that cannot serve.

    Example:
        found = refseg.segment_prompt(dataset, sample_id, [(0.4, 0.6)])
        refseg.add_reference(dataset, sample_id, "bolt", found[0].bounding_box, found[0].mask)
    """
    require_names(sample_id=sample_id, label=label, field=field)
    require_flags(is_negative=is_negative)
    require_list_of_numbers(4, bounding_box=bounding_box)
    whole = image_dataset(dataset)
    require_own_field(whole, field)
    require_image(whole, sample_id)
    shown = fo.Detection(
        label=class_name(label),
        bounding_box=[float(number) for number in bounding_box],
        tags=[NEGATIVE_TAG if is_negative else REFERENCE_TAG],
    )
    relative_box(shown)
    if mask is not None:
        shown.mask = _mask(mask)
    add_labels_field(whole, field, fo.Detections(detections=[shown]))
    document = shown.to_mongo().to_dict()

    def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
        seen = read_documents(whole, ids, [field], ["_id", "label", "decision"])
        return {name: ImageEdit({field: ListEdit(lists[field], added=[document])}) for name, lists in seen}

    edit_labels(whole, [sample_id], edits_of)
    return str(shown.id)


def _mask(given: Any) -> NDArray[np.bool_]:
    try:
        mask = as_mask(np.asarray(given))
    except ValueError as error:
        raise DatasetError(f"The mask cannot be used: {error}.") from error
    if not mask.any():
        raise DatasetError("The mask shows nothing: it has no pixel of the object.")
    return mask
