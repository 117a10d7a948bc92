"""Labels that were copied from one field to another, and show the same object: of these one teaches, not both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from fiftyone import ViewField as F

from .labels import LIST_FIELDS

MERGED_FROM = "merged_from"
"""Attribute of a label that was copied to another field: id of the label that it shows the object of."""

Item = TypeVar("Item")


def origin_of(label: Any) -> str:
    """The id of the label that one was copied from, its own where it is no copy."""
    return str(label.get_attribute_value(MERGED_FROM, None) or label.id)


def origins_of(dataset: Any, fields: Iterable[str], label_ids: Sequence[str]) -> dict[str, str]:
    """Of those of some labels that are copies, by id, the id of the label that each was copied from.

    Args:
        dataset: a dataset or view of images.
        fields: of objects; those whose labels cannot be copies cost nothing.
        label_ids: that are asked for.
    """
    found: dict[str, str] = {}
    for field in fields:
        inner = LIST_FIELDS.get(dataset.get_field(field).document_type.__name__)
        path = f"{field}.{inner}" if inner else field
        if label_ids and inner and dataset.get_field(f"{path}.{MERGED_FROM}") is not None:
            copies = dataset.match_labels(ids=list(label_ids), fields=field)
            copies = copies.filter_labels(field, F(MERGED_FROM) != None)  # noqa: E711
            ids, origins = copies.values([f"{path}.id", f"{path}.{MERGED_FROM}"], unwind=True)
            found.update(zip(ids, map(str, origins), strict=True))
    return {name: found[name] for name in label_ids if name in found}


def without_copies(items: Sequence[Item], id_of: Callable[[Item], str], origins: Mapping[str, str]) -> list[Item]:
    """Items of which no two show one object: not the copy where the label itself is there, of its copies the first.

    Args:
        items: such as references.
        id_of: gives the id of the label of one.
        origins: as from origins_of.

    Example:
        >>> without_copies(["copy", "b", "a", "other"], str, {"copy": "a", "other": "c"})
        ['b', 'a', 'other']
    """
    whole = {id_of(item) for item in items} - origins.keys()
    seen: set[str] = set()
    kept = []
    for item in items:
        name = id_of(item)
        origin = origins.get(name, name)
        if origin in seen or (name in origins and origin in whole):
            continue
        seen.add(origin)
        kept.append(item)
    return kept
