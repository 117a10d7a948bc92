"""The labels of a dataset that are references or negatives, as this process keeps them; see `kept_rows`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..masks import flag_of
from ..printing import one_line
from .copies import MERGED_FROM, without_copies
from .fields import ACCEPTED_FIELD, EMPTY_TAG, NEGATIVE_TAG, REFERENCE_TAG, REJECTED_FIELD, label_fields
from .kept_rows import Content, KeptRows, Rows, keep_rows
from .labels import LIST_FIELDS


class TaggedLabel(NamedTuple):
    """A label that is an example of what to look for, or of what not.

    Attributes:
        label_id: its id.
        sample_id: of its image.
        field: that holds it.
        label: its class.
        is_negative: whether it shows what its class is not.
    """

    label_id: str
    sample_id: str
    field: str
    label: str
    is_negative: bool


@dataclass(frozen=True)
class TaggedLabels:
    """What is tagged in a dataset at one moment.

    Attributes:
        labels: in the order of the dataset's fields, of each field in that of its images, those of tagged images last.
        num_empty: images that are tagged as empty.
    """

    labels: tuple[TaggedLabel, ...]
    num_empty: int


def look_at_tagged(
    dataset: Any,
    *,
    accepted_field: str = ACCEPTED_FIELD,
    slices: Iterable[str] | None = None,
    waits: bool = True,
) -> TaggedLabels | None:
    """Labels tagged as references or negatives, and labels of images tagged as references, but for predictions and crowds.

    Args:
        dataset: a dataset of images, or the view of all frames of one.
        accepted_field: where accepted objects go, which need not be there yet.
        slices: of grouped data, the slices that are looked at.
        waits: however much has to be read, as it has at first; else for a quarter of a second.

    Returns:
        None where that takes longer. Reading goes on beside the caller: ask again.
    """
    fields = label_fields(dataset)
    inner = {name: LIST_FIELDS.get(dataset.get_field(name).document_type.__name__) for name in fields}
    # Fields that a first decision makes are read from the start, or all would have to be read again after it.
    places = tuple(sorted({**dict.fromkeys((accepted_field, REJECTED_FIELD), "detections"), **inner}.items()))
    content = keep_rows(_KeptTags, dataset, places, slices=slices).look(waits=waits)
    return None if content is None else _listed(content, fields)


@dataclass(frozen=True, eq=False)
class _TaggedRows(Rows):
    """T labels; `is_whole` where it is their image that is tagged; `origins` ids of what they were copied from, or None."""

    ids: NDArray[np.object_]
    fields: NDArray[np.object_]
    labels: NDArray[np.object_]
    is_negative: NDArray[np.bool_]
    is_whole: NDArray[np.bool_]
    origins: NDArray[np.object_]

    __repr__ = one_line


class _KeptTags(KeptRows):
    """Args: places are the fields, each with the name of its list, None where it holds one label."""

    def __init__(self, samples: Any, slices: Any, places: tuple[tuple[str, str | None], ...]) -> None:
        super().__init__(samples, slices)
        self._places = places

    @property
    def read_fields(self) -> Mapping[str, Any]:
        # MongoDB leaves out what is not tagged: of millions of labels a few are.
        found = {f"found{number}": _tagged(*place) for number, place in enumerate(self._places)}
        return {"tags": True, **found}

    def read(self, documents: Sequence[Mapping[str, Any]], numbers: NDArray[np.int64]) -> tuple[_TaggedRows, Rows]:
        found = []
        empty = []
        for number, document in zip(numbers.tolist(), documents, strict=True):
            tags = document.get("tags") or ()
            if EMPTY_TAG in tags:
                empty.append(number)
            for place, (field, _) in enumerate(self._places):
                for one in document.get(f"found{place}") or ():
                    is_negative = NEGATIVE_TAG in (one.get("tags") or ())
                    is_skipped = one.get("label") is None or flag_of(one.get("iscrowd")) is not False
                    if not is_skipped and (is_negative or field != REJECTED_FIELD):
                        about = str(one["_id"]), field, str(one["label"])
                        found.append((number, *about, is_negative, REFERENCE_TAG in tags, one.get(MERGED_FROM)))
        columns = list(zip(*found, strict=True)) or [()] * 7
        kinds = (np.int64, object, object, object, bool, bool, object)
        rows = _TaggedRows(*(np.fromiter(column, kind) for column, kind in zip(columns, kinds, strict=True)))
        return rows, Rows(np.array(empty, np.int64))


def _tagged(field: str, inner: str | None) -> Any:
    """MongoDB's expression of the labels of a field that carry one of the tags, or all where the image does."""
    listed: Any = (
        {"$ifNull": [f"${field}.{inner}", []]} if inner else {"$cond": [{"$gt": [f"${field}._id", None]}, [f"${field}"], []]}
    )
    own = {"$setIntersection": [{"$ifNull": ["$$one.tags", []]}, [REFERENCE_TAG, NEGATIVE_TAG]]}
    is_whole = {"$in": [REFERENCE_TAG, {"$ifNull": ["$tags", []]}]}
    chosen = {"$filter": {"input": listed, "as": "one", "cond": {"$or": [{"$ne": [own, []]}, is_whole]}}}
    parts = {name: f"$$one.{name}" for name in ("_id", "label", "tags", "iscrowd", MERGED_FROM)}
    return {"$map": {"input": chosen, "as": "one", "in": parts}}


def _listed(content: Content, fields: Sequence[str]) -> TaggedLabels:
    rows, empty = content.rows
    places = {name: number for number, name in enumerate(fields)}
    order = np.fromiter((places.get(name, -1) for name in rows.fields), np.int64, len(rows.fields))
    chosen = np.lexsort((rows.numbers, rows.is_whole, order))
    labels = [
        TaggedLabel(
            rows.ids[row], str(content.ids[rows.numbers[row]]), rows.fields[row], rows.labels[row], bool(rows.is_negative[row])
        )
        for row in chosen.tolist()
        if order[row] >= 0
    ]
    origins = {rows.ids[row]: str(rows.origins[row]) for row in chosen.tolist() if rows.origins[row] is not None}
    # As `tagged_references` has it: an object that was merged into ground truth counts once.
    one_each = {one.label_id for one in without_copies([one for one in labels if not one.is_negative], _id_of, origins)}
    return TaggedLabels(tuple(one for one in labels if one.is_negative or one.label_id in one_each), len(empty.numbers))


def _id_of(label: TaggedLabel) -> str:
    return label.label_id
