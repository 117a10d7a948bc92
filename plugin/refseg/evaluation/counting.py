"""How many objects of each class an image holds, and how large they are together, as fields to sort, filter and plot by.

Reading the masks takes most of the time, about a tenth of a millisecond each; images are not read. Only what has changed is
written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from ..checks import names_or_none, require_flags, require_names, share_of
from ..dataset import (
    LIST_FIELDS,
    Document,
    StoredImage,
    add_numbers,
    count_samples,
    every_image,
    holds_numbers,
    image_view,
    in_chunks,
    known_numbers,
    newest_run,
    number_key,
    require_numbers_field,
    require_object_field,
    require_samples,
    whole_of,
    write_numbers,
)
from ..errors import DatasetError, ImageError, LabelError
from ..masks import flag_of
from ..progress import Progress, Watcher, drain
from .areas import area_of
from .counts_report import ClassCounts, CountsReport

COUNTS, AREAS, SHARES = "counts", "areas", "area_shares"
_WHAT = {
    COUNTS: (int, "the number of objects of each class in {!r}"),
    AREAS: (float, "the area in pixels of the objects of each class in {!r}"),
    SHARES: (float, "the area of the objects of each class in {!r} as a share of the image"),
}
_ATTRIBUTES = ("_id", "_cls", "label", "confidence", "iscrowd")
_SHAPE = ("bounding_box", "mask", "mask_path", "points", "closed", "filled")
SAME_AREA = 1e-6
"""Relative difference of areas that is not worth a write."""

Values = dict[str, "dict[str, float] | None"]
"""Of one image by kind, numbers by class; None where there are none."""


def write_counts(
    view: Any,
    field: str = "predictions",
    *,
    min_confidence: float | None = None,
    classes: Sequence[str] | None = None,
    areas: bool = True,
    prefix: str | None = None,
    progress: bool | Watcher | None = None,
) -> CountsReport:
    """Write how many objects of each class each image holds, and how large they are together.

    Three fields of numbers, one for each class, which the App's sidebar filters and its histograms plot:
    `predictions_counts.bolt` is how many, `predictions_areas.bolt` their total area in pixels of the upright image, and
    `predictions_area_shares.bolt` that area as a share of the image. Objects that overlap both count whole. An image that holds
    none of a class has 0, one whose field is empty, as before it is segmented, has None. Classes are those of the field in the
    whole dataset, those that its latest run looked for, and those counted before. Counting again replaces the numbers.

    The area of an object is that of its mask; of one without a mask, or whose mask cannot be read, that of its box; of a
    polyline what it surrounds. A class whose name no field can have is written with percent signs: "a.b" is `a%2Eb`, see
    `ClassCounts.key`.

    Args:
        view: a dataset or view of images; objects that it hides are not counted.
        field: of Detections, Detection, Polylines or Polyline.
        min_confidence: count objects from this confidence on, and those without one.
        classes: these alone, or this one; numbers of others stay as they are.
        areas: False leaves areas and shares out, and takes those of before away; no mask is read, which is quicker.
        prefix: how the new fields' names begin; by default as the counted field is called.
        progress: see `refseg.progress.drain`.

    Returns:
        What was counted; print it for a summary.

    Raises:
        DatasetError: no images, an empty view, no such field, an argument out of range, or a field of such a name that was not
            written here.

    Example:
        >>> import refseg
        >>> report = refseg.write_counts(dataset)  # doctest: +SKIP
        >>> crowded = dataset.match(F("predictions_counts.bolt") >= 10)  # doctest: +SKIP
    """
    work = iter_write_counts(view, field, min_confidence=min_confidence, classes=classes, areas=areas, prefix=prefix)
    return drain(work, progress)


def iter_write_counts(
    view: Any,
    field: str = "predictions",
    *,
    min_confidence: float | None = None,
    classes: Sequence[str] | None = None,
    areas: bool = True,
    prefix: str | None = None,
) -> Generator[Progress, None, CountsReport]:
    """The generator behind write_counts: yields after some hundred images; when it is closed, what is written stays."""
    require_names(field=field)
    require_names(or_none=True, prefix=prefix)
    require_flags(areas=areas)
    least = None if min_confidence is None else share_of("min_confidence", min_confidence)
    chosen = names_or_none("classes", classes)
    if chosen is not None and not any(map(_is_name, chosen)):
        raise DatasetError("No class is named in classes: name one, or leave it out to count all of them.")
    view = image_view(view)
    require_samples(view)
    kind = require_object_field(view, field).__name__
    whole = whole_of(view)
    fields = {key: f"{field if prefix is None else prefix}_{key}" for key in _WHAT}
    dropped = {} if areas else {key: fields.pop(key) for key in (AREAS, SHARES)}
    stale = [name for key, name in dropped.items() if holds_numbers(whole, name, _WHAT[key][1].format(field))]
    for key, name in fields.items():
        require_numbers_field(whole, name, _WHAT[key][1].format(field))
    names = sorted(set(filter(_is_name, chosen or _classes_of(whole, field, kind, fields))))
    for key, name in fields.items():
        add_numbers(whole, name, names, _WHAT[key][0], _WHAT[key][1].format(field))
    counting = _Counting(field, LIST_FIELDS.get(kind), fields, names, least, stale)
    total = count_samples(view)
    yield Progress(0, total, "images")
    for documents in in_chunks(view._aggregate(post_pipeline=[{"$project": counting.projection}])):
        write_numbers(whole, counting.changes(documents))
        yield Progress(min(counting.num_images, total), total, "images")
    yield Progress(total, total, "images")
    return counting.report()


class _Counting:
    """Numbers of the images that have been looked at, and their sums.

    Args:
        field: whose objects are counted.
        inner: name of its list of labels; None where it holds one label.
        fields: that are written, by kind.
        names: the classes.
        least: confidence from which on objects count.
        stale: fields that are emptied.
    """

    def __init__(
        self,
        field: str,
        inner: str | None,
        fields: Mapping[str, str],
        names: Sequence[str],
        least: float | None,
        stale: Sequence[str] = (),
    ) -> None:
        self._field, self._inner, self._fields, self._least, self._stale = field, inner, fields, least, stale
        self._keys = {name: number_key(name) for name in names}
        self._objects: Counter[str] = Counter()
        self._images: Counter[str] = Counter()
        self._areas: Counter[str] = Counter()
        self.num_images = self._num_without_labels = self._num_written = self._num_without_class = self._num_crowds = 0
        self._by_box: list[tuple[str, str, str]] = []
        self._not_measured: list[tuple[str, str, str]] = []
        self._skipped: list[tuple[str, str]] = []

    @property
    def projection(self) -> dict[str, bool]:
        """What is read of an image."""
        path = f"{self._field}.{self._inner}" if self._inner else self._field
        attributes = (*_ATTRIBUTES, *_SHAPE) if AREAS in self._fields else _ATTRIBUTES
        about = ("filepath", "metadata.width", "metadata.height", f"{self._field}._cls")
        return dict.fromkeys((*about, *(f"{path}.{name}" for name in attributes), *self._fields.values(), *self._stale), True)

    def changes(self, documents: Sequence[Document]) -> dict[str, dict[str, Any]]:
        """By sample id and field the numbers of some images that are others than they hold."""
        changed = {}
        for document in documents:
            self.num_images += 1
            now = {self._fields[kind]: self._by_key(numbers) for kind, numbers in self._count(document).items()}
            now |= dict.fromkeys(self._stale)
            if not all(_same(document.get(name), numbers) for name, numbers in now.items()):
                changed[str(document["_id"])] = now
        self._num_written += len(changed)
        return changed

    def report(self) -> CountsReport:
        """What was counted."""
        has_areas = AREAS in self._fields
        rows = [
            ClassCounts(name, key, self._objects[name], self._images[name], float(self._areas[name]) if has_areas else None)
            for name, key in self._keys.items()
        ]
        return CountsReport(
            self._field,
            self._fields[COUNTS],
            self._fields.get(AREAS),
            self._fields.get(SHARES),
            self._least,
            tuple(rows),
            self.num_images,
            self._num_without_labels,
            self._num_written,
            self._num_without_class,
            self._num_crowds,
            tuple(self._by_box),
            tuple(self._not_measured),
            tuple(self._skipped),
        )

    def _count(self, document: Document) -> Values:
        held = document.get(self._field)
        if not isinstance(held, dict):
            self._num_without_labels += 1
            return dict.fromkeys(self._fields)
        labels = [label for label in self._labels(held) if self._is_counted(label)]
        counts = Counter(label["label"] for label in labels)
        self._objects.update(counts)
        self._images.update(counts.keys())
        values: Values = {COUNTS: {name: counts[name] for name in self._keys}}
        return {**values, **self._measured(labels, StoredImage(document))} if AREAS in self._fields else values

    def _labels(self, held: Document) -> list[Document]:
        labels = [held] if self._inner is None else held.get(self._inner) or []
        return [label for label in labels if isinstance(label, dict)]

    def _is_counted(self, label: Document) -> bool:
        name, confidence = label.get("label"), label.get("confidence")
        if flag_of(label.get("iscrowd")) is not False:
            self._num_crowds += 1
            return False
        if not _is_name(name):
            self._num_without_class += 1
            return False
        return name in self._keys and (self._least is None or confidence is None or confidence >= self._least)

    def _measured(self, labels: Sequence[Document], image: StoredImage) -> Values:
        sums = dict.fromkeys(self._keys, 0.0)
        try:
            for label in labels:
                sums[label["label"]] += self._measure(label, image)
            shares = {name: area and area / image.num_pixels for name, area in sums.items()}
        except ImageError as error:
            self._skipped.append((error.path, error.reason))
            return {AREAS: None, SHARES: None}
        self._areas.update(sums)
        return {AREAS: sums, SHARES: shares}

    def _measure(self, label: Document, image: StoredImage) -> float:
        label_id = str(label["_id"])
        try:
            area, reason = area_of(label, image)
        except LabelError as error:
            self._not_measured.append((image.path, label_id, error.reason))
            return 0.0
        if reason:
            self._by_box.append((image.path, label_id, reason))
        return area

    def _by_key(self, numbers: Mapping[str, float] | None) -> dict[str, float] | None:
        return None if numbers is None else {self._keys[name]: number for name, number in numbers.items()}


def _classes_of(whole: Any, field: str, kind: str, fields: Mapping[str, str]) -> list[Any]:
    """The classes that a field has in its whole dataset, that its latest run looked for, and that were counted before."""
    inner = LIST_FIELDS.get(kind)
    found = list(every_image(whole).distinct(f"{field}.{inner}.label" if inner else f"{field}.label"))
    run = newest_run(whole, field)
    found += [] if run is None else run.config.get("classes") or ()
    return found + [name for other in fields.values() for name in known_numbers(whole, other)]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _same(held: Any, now: Mapping[str, float] | None) -> bool:
    """Whether an image holds these numbers already; others beside them do not matter."""
    if now is None or not isinstance(held, dict):
        return held is None and now is None
    return all(key in held and _near(held[key], number) for key, number in now.items())


def _near(held: Any, now: float) -> bool:
    return isinstance(held, int | float) and abs(held - now) <= SAME_AREA * abs(now)
