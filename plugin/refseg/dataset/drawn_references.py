"""References drawn at random from labelled objects, and why a class got fewer than asked for."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, TypeAlias

from fiftyone import ViewField as F

from ..checks import names_or_none, require_names, require_numbers, require_whole
from ..errors import ImageError, LabelError
from ..images import crop_picture, read_image_hw
from ..notebook import PICTURES, bars, details, gallery, page
from ..printing import counted, object_name
from .fields import REFERENCE_TAG
from .labels import LIST_FIELDS, object_box, objects_of, require_object_field
from .references import single_objects, tag_references
from .sampling import draw_one_each, unsuitable
from .views import image_view, require_samples

logger = logging.getLogger(__name__)

Place: TypeAlias = tuple[str, tuple[float, float, float, float]]
"""Path of an image, and x, y, width, height in it as shares of the upright image."""


@dataclass(frozen=True)
class SampledReferences:
    """What sample_references drew.

    Attributes:
        label_ids: for each class the ids of the labels drawn, now tagged.
        short: for each class with too few suitable objects, how many were found.
        left_out: id of each label that cannot be read, and in words what it is and why.
        places: for the id of each label drawn the path of its image, and its box: x, y, width, height as shares of the upright
            image.
        passed_over: for each class how many objects could not serve, by reason: "border", "small", "crowd", "unreadable", or
            "same image", where another of the class in the image could.
    """

    label_ids: dict[str, list[str]]
    short: dict[str, int]
    left_out: tuple[tuple[str, str], ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict, repr=False)
    passed_over: dict[str, dict[str, int]] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """Crops of what was drawn, as many of each class."""
        # A row of each class's first, then of each one's second: all classes are seen where not all references are.
        rows = zip_longest(*([(label, one) for one in ids] for label, ids in self.label_ids.items()))
        drawn = [pair for row in rows for pair in row if pair is not None]
        pictures = []
        for label, label_id in drawn[:PICTURES]:
            path, box = self.places.get(label_id, ("", None))
            pictures.append(crop_picture(path, box, label, os.path.basename(path) or label_id))
        return page(
            f"{counted(len(drawn), 'reference')} of {counted(len(self.label_ids), 'class')} drawn and tagged",
            gallery(pictures, len(drawn)),
            bars({label: len(ids) for label, ids in self.label_ids.items()}) if len(drawn) > PICTURES else None,
            *self.describe_short()[:PICTURES],
            details(f"{counted(len(self.left_out), 'label')} left out", [f"{why} ({one})" for one, why in self.left_out]),
        )

    def describe_short(self) -> tuple[str, ...]:
        """A sentence for each class that has fewer references than asked for, with the reasons.

        Example:
            >>> drawn = SampledReferences({"nut": ["1"]}, {"nut": 1}, passed_over={"nut": {"small": 2, "crowd": 1}})
            >>> drawn.describe_short()
            ("'nut' has 1 reference: 2 other objects are too small, 1 is a crowd.",)
        """
        return tuple(_describe_short(name, number, self.passed_over.get(name, {})) for name, number in self.short.items())


def sample_references(
    view: Any,
    field: str,
    shots: int,
    *,
    seed: int = 33,
    tag: str = REFERENCE_TAG,
    min_side: float = 32,
    border: float = 10,
    classes: Sequence[str] | None = None,
) -> SampledReferences:
    """Draw and tag some references of each class, by the rule of the published few-shot benchmark (method.md).

    At most one object of a class comes from one image; crowds, boxes with a side under min_side pixels and boxes nearer than
    border pixels to the image's edge are passed over. The tag is first taken off every label of these classes in the view,
    so that drawing twice does not mix two draws.

    Args:
        view: a dataset or view of images.
        field: holds Detections or Polylines.
        shots: references a class.
        seed: of the draw; the same seed and labels give the same references.
        tag: the label tag to write.
        min_side: pixels.
        border: pixels.
        classes: by default every class in the field.

    Raises:
        DatasetError: no images, an empty view, no such field, or a shot count below one.
    """
    require_names(field=field, tag=tag)
    require_whole(1, shots=shots)
    require_whole(0, seed=seed)
    require_numbers(0, min_side=min_side, border=border)
    classes = names_or_none("classes", classes)
    view = image_view(view)
    require_samples(view)
    require_object_field(view, field)
    left_out: list[tuple[str, str]] = []
    over: dict[str, Counter[str]] = {}
    suitable, places = _suitable(view, field, min_side, border, left_out, over)
    names = sorted({str(name) for name in view.distinct(f"{_label_path(view, field)}.label")} if classes is None else classes)
    drawn: dict[str, list[str]] = {}
    short: dict[str, int] = {}
    for number, name in enumerate(names):
        by_sample = suitable.get(name, {})
        drawn[name] = draw_one_each([sorted(by_sample[sample]) for sample in sorted(by_sample)], shots, (seed, number))
        if len(drawn[name]) < shots:
            short[name] = len(drawn[name])
            found = counted(short[name], "suitable object", "suitable objects in different images")
            logger.warning("The class %r has %s, not %d", name, found, shots)
    _clear_tag(view, field, tag, names)
    every = [label_id for ids in drawn.values() for label_id in ids]
    if every:
        tag_references(view, every, field, tag)
    passed_over = {name: dict(over[name]) for name in names if name in over}
    kept = {label_id: places[label_id] for label_id in every}
    return SampledReferences({name: ids for name, ids in drawn.items() if ids}, short, tuple(left_out), kept, passed_over)


def _label_path(view: Any, field: str) -> str:
    inner = LIST_FIELDS.get(require_object_field(view, field).__name__)
    return f"{field}.{inner}" if inner else field


_WHY = {
    "border": ("is too near the edge of its image", "are too near the edge of their image"),
    "small": ("is too small", "are too small"),
    "crowd": ("is a crowd", "are crowds"),
    "unreadable": ("cannot be read", "cannot be read"),
    "same image": ("is in an image with another one", "are in images with another one"),
}


def _describe_short(name: str, number: int, passed_over: Mapping[str, int]) -> str:
    said = [f"{passed_over[why]} {texts[passed_over[why] > 1]}" for why, texts in _WHY.items() if passed_over.get(why)]
    if not said:
        return f"{name!r} has {counted(number, 'reference')}: there are no other objects of it."
    first, _, rest = said[0].partition(" ")
    said[0] = f"{counted(int(first), 'other object')} {rest}"
    return f"{name!r} has {counted(number, 'reference')}: {', '.join(said)}."


def _suitable(
    view: Any, field: str, min_side: float, border: float, left_out: list[tuple[str, str]], over: dict[str, Counter[str]]
) -> tuple[dict[str, dict[str, list[str]]], dict[str, Place]]:
    """For each class and sample id the ids of the objects that can serve, and the place of each of these.

    `left_out` gets the labels that cannot be read, `over` counts by class and reason what is passed over.
    """
    found: dict[str, dict[str, list[str]]] = {}
    places: dict[str, Place] = {}
    for sample in view.select_fields(field).iter_samples(progress=False):
        every = objects_of(sample[field])
        labels = single_objects(sample.filepath, every)
        single = {label.id for label in labels}
        for label in every:
            if label.id not in single and (label.label or "").strip():
                over.setdefault(label.label, Counter())["crowd"] += 1
        if not labels:
            continue
        try:
            height, width = read_image_hw(sample.filepath)
        except ImageError as error:
            logger.warning("No reference is drawn from %s", error)
            for label in labels:
                over.setdefault(label.label, Counter())["unreadable"] += 1
            continue
        for label in labels:
            try:
                box = object_box(label, (height, width))
            except LabelError as error:
                logger.warning("%s: %s", sample.filepath, error)
                left_out.append((label.id, f"{object_name(label.label, sample.filepath)}: {error.reason}"))
                over.setdefault(label.label, Counter())["unreadable"] += 1
                continue
            why = unsuitable(box, (height, width), min_side, border)
            if why is None and sample.id in found.setdefault(label.label, {}):
                over.setdefault(label.label, Counter())["same image"] += 1
            if why is None:
                found[label.label].setdefault(sample.id, []).append(label.id)
                x0, y0, x1, y1 = box
                places[label.id] = sample.filepath, (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height)
            else:
                over.setdefault(label.label, Counter())[why] += 1
    return found, places


def _clear_tag(view: Any, field: str, tag: str, classes: Sequence[str]) -> None:
    tagged = view.select_labels(tags=tag, fields=field)
    if len(tagged):
        tagged.filter_labels(field, F("label").is_in(list(classes))).untag_labels(tag, label_fields=field)
