"""From a FiftyOne view to references: choose labelled objects by tag, id or selection, or draw some of each class."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from bson import ObjectId

from ..checks import names_of, names_or_none, require_names
from ..errors import ImageError, LabelError, NoReferencesError
from ..images import files_without_range, read_image_hw
from ..printing import counted
from ..prototypes import Reference
from .copies import origins_of, without_copies
from .fields import NEGATIVE_TAG as NEGATIVE_TAG
from .fields import REFERENCE_TAG as REFERENCE_TAG
from .fields import REJECTED_FIELD, every_image, label_fields, object_fields
from .index_pixels import ids_and_paths
from .known_indexes import pixels_of_index
from .labels import (
    has_box,
    is_crowd,
    object_region,
    objects_of,
    require_object_field,
)
from .views import image_dataset, image_view, name_of, whole_of

logger = logging.getLogger(__name__)


def collect_references(
    view: Any,
    field: str,
    *,
    tags: str | Sequence[str] | None = None,
    label_ids: Iterable[str] | None = None,
    classes: Sequence[str] | None = None,
) -> list[Reference]:
    """References from a field of detections or polylines.

    Masks are taken from the document, from `mask_path` or from polylines; an object without one is a box reference, for which
    the segmenter's mask of the box is used later. Crowds are left out.

    Args:
        view: a dataset or view of images.
        field: holds Detections, Detection, Polylines or Polyline.
        tags: an object counts when it carries one of these tags, or its sample does and it is not tagged `negative`.
        label_ids: only these objects, such as the App's selection, or this one.
        classes: only these classes, or this one.

    Returns:
        One reference per object, in the view's order. Without tags and label_ids: every object of the view.

    Raises:
        DatasetError: no images, no such field, a field of another type, or an argument of another kind.
        NoReferencesError: nothing matches.
    """
    require_names(field=field)
    view = image_view(view)
    require_object_field(view, field)
    wanted_tags = set(names_or_none("tags", tags, like="tags") or ())
    if tags is not None and not wanted_tags:
        raise NoReferencesError("No tag is named, so no object carries it: name one, or leave the choice of tags out.")
    wanted_ids = None if label_ids is None else _usable_ids(names_of("label_ids", label_ids, like="ids"))
    classes = names_or_none("classes", classes)
    selected = _narrow(view, field, wanted_tags, wanted_ids)

    def is_wanted(sample: Any, label: Any) -> bool:
        # What is marked as a negative is none of the references that its image as a whole is tagged to hold.
        whole = bool(wanted_tags & set(sample.tags)) and NEGATIVE_TAG not in label.tags
        tagged = not wanted_tags or whole or bool(wanted_tags & set(label.tags))
        named = classes is None or label.label in classes
        return tagged and named and (wanted_ids is None or label.id in wanted_ids)

    references = _collect(selected, field, is_wanted)
    if not references:
        asked = f" with the tag {' or '.join(sorted(map(repr, wanted_tags)))}" if wanted_tags else ""
        raise NoReferencesError(
            f"No object in the field {field!r} of dataset {name_of(view)!r}{asked} can serve as a reference: tag or "
            "select at least one labelled object of each class."
        )
    return references


def collect_negatives(view: Any, fields: str | Sequence[str], tag: str = NEGATIVE_TAG) -> list[Reference]:
    """Objects that are taken for a class and are none of it, for `build_prototypes(negatives=…)`.

    A negative named like a class is a negative of that class; any other is one of every class. Crowds are left out.

    Args:
        view: a dataset or view of images.
        fields: one or several, of Detections, Detection, Polylines or Polyline.
        tag: that the labels themselves carry; the tags of their samples do not count.

    Returns:
        One per object, in the view's order; empty where nothing is tagged.

    Raises:
        DatasetError: no images, no such field, or a field of another type.
    """
    view = image_view(view)
    negatives: list[Reference] = []
    for field in [fields] if isinstance(fields, str) else fields:
        require_object_field(view, field)
        tagged = view.match_labels(tags=tag, fields=field).select_fields(field)
        negatives += _collect(tagged, field, lambda _, label: tag in label.tags)
    return negatives


def tagged_references(dataset: Any, tag: str = REFERENCE_TAG, *, rejected_field: str = REJECTED_FIELD) -> list[Reference]:
    """Every reference of a dataset, from all of its fields of objects; of an object and its copies one.

    Args:
        dataset: a dataset or view of images.
        tag: that the labels, or their samples, carry.
        rejected_field: holds what is no example of anything, and is left out, as predictions are: a run replaces them.

    Raises:
        DatasetError: no images.
        NoReferencesError: no object carries the tag.
    """
    dataset = image_view(dataset)
    fields = [field for field in label_fields(dataset) if field != rejected_field]
    references: list[Reference] = []
    for field in fields:
        try:
            references += collect_references(dataset, field, tags=tag)
        except NoReferencesError:
            continue
    if not references:
        where = f" (looked in {', '.join(map(repr, fields))})" if fields else ""
        raise NoReferencesError(
            f"No object of dataset {name_of(dataset)!r} carries the tag {tag!r}{where}: tag some of each class, or accept "
            "predictions as references."
        )
    # An image that is tagged as a whole holds accepted objects, and copies of them that were merged into ground truth.
    origins = origins_of(dataset, fields, [reference.id for reference in references])
    return without_copies(references, lambda reference: reference.id, origins)


def views_of_labels(dataset: Any, ids: Iterable[str]) -> dict[str, Any]:
    """The fields of objects in which labels of these ids are, and of each the view of the samples that hold any.

    Args:
        dataset: a dataset or view of images.
        ids: those of no label, or of one that is gone, are passed over.
    """
    usable = [name for name in ids if ObjectId.is_valid(name)]
    fields = object_fields(dataset) if usable else []
    views = {field: dataset.match_labels(ids=usable, fields=field) for field in fields}
    return {field: view for field, view in views.items() if len(view)}


def references_by_id(dataset: Any, ids: Iterable[str]) -> dict[str, Reference]:
    """The labels of these ids as references, from whatever fields of objects they are in; those that are gone are left out."""
    wanted = list(ids)
    found: dict[str, Reference] = {}
    for field, view in views_of_labels(dataset, wanted).items():
        try:
            references = collect_references(view, field, label_ids=wanted)
        except NoReferencesError:
            continue
        found.update({reference.id: reference for reference in references})
    return found


def tag_references(view: Any, label_ids: Iterable[str], field: str, tag: str = REFERENCE_TAG) -> int:
    """Tag labels as references.

    Args:
        view: a dataset, or a view of it, whose dataset counts as a whole.
        label_ids: the labels.
        field: the field that holds them.
        tag: the tag to add.

    Returns:
        How many labels carry the tag now among those asked for.

    Raises:
        DatasetError: no images, or the field holds no objects.
    """
    require_names(field=field, tag=tag)
    ids = sorted(_usable_ids(names_of("label_ids", label_ids, like="ids")))
    # Labels are named by their ids, so that patches can stand for the images that they were cut from.
    view = every_image(image_dataset(view))
    require_object_field(view, field)
    if not ids:
        return 0
    chosen = view.select_labels(ids=ids, fields=field)
    chosen.tag_labels(tag, label_fields=field)
    return int(chosen.count_label_tags(label_fields=field).get(tag, 0))


def _collect(selected: Any, field: str, is_wanted: Callable[[Any, Any], bool]) -> list[Reference]:
    """References of the named objects, crowds apart, for which is_wanted(sample, label) holds."""
    references: list[Reference] = []
    num_boxless = 0
    for sample in selected.iter_samples(progress=False):
        wanted = [label for label in objects_of(sample[field]) if is_wanted(sample, label)]
        chosen = single_objects(sample.filepath, wanted)
        if chosen:
            found = _references_of(sample.filepath, chosen)
            num_boxless += sum(not (item.problem or has_box(label)) for item, label in zip(found, chosen, strict=True))
            references += found
    if num_boxless:
        boxless = counted(num_boxless, "object has", "objects have")
        logger.warning("%s a mask and no box in the field %r: the mask's own was used", boxless, field)
    whole = whole_of(selected)
    pixels = pixels_of_index(whole)
    beside: tuple[str, ...] = ()
    if pixels.pixel_range is None and files_without_range((item.image for item in references), first=True):
        # Those of the references alone may be darker than all others.
        beside = tuple(ids_and_paths(whole)[1])
    is_plain = pixels.is_plain and not beside
    return references if is_plain else [replace(item, pixels=pixels, beside=beside) for item in references]


def _usable_ids(ids: Iterable[str]) -> set[str]:
    """Those that can be ids of labels: no label has another."""
    return {name for name in ids if ObjectId.is_valid(name)}


def _narrow(view: Any, field: str, tags: set[str], label_ids: set[str] | None) -> Any:
    """The samples that can hold a wanted object: spares decoding all others."""
    if label_ids is not None:
        view = view.match_labels(ids=list(label_ids), fields=field)
    if tags:
        tagged = view.match_labels(tags=list(tags), fields=field).values("id")
        tagged += view.match_tags(list(tags)).values("id")
        view = view.select(sorted(set(tagged)))
    return view.select_fields(field)


def _references_of(path: str, labels: Sequence[Any]) -> list[Reference]:
    references = []
    try:
        image_hw = read_image_hw(path)
    except ImageError as error:
        # Left to the builder, which records it as a skip by id: nothing is lost by one bad image.
        logger.warning("A reference image cannot be read: %s", error)
        return [Reference(label.id, label.label, path, (0, 0, 1, 1)) for label in labels]
    for label in labels:
        try:
            box, mask = object_region(label, image_hw)
        except LabelError as error:
            logger.warning("%s: %s", path, error)
            references.append(Reference(label.id, label.label, path, (0, 0, 1, 1), problem=error.reason))
            continue
        references.append(Reference(label.id, label.label, path, box, mask))
    return references


def single_objects(path: str, labels: Iterable[Any]) -> list[Any]:
    """The labels that show one object of a class each; those that cannot be told are left out, and logged."""
    kept = []
    for label in labels:
        try:
            if not (label.label or "").strip():
                raise LabelError(label.id, label.label, "it has no class: name it or remove it")
            if not is_crowd(label):
                kept.append(label)
        except LabelError as error:
            logger.warning("%s: %s", path, error)
    return kept
