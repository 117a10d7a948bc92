"""Numbers of each image by name, such as one for each class, as fields that FiftyOne's App filters and draws.

A field holds an embedded document of numbers, which the sidebar shows as a group, and declares each of them. Names that a
number of a document cannot have are written with percent signs, as in addresses: "a.b" is `a%2Eb`. No two names become one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote

import fiftyone as fo
from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from ..errors import DatasetError
from .connection import patiently
from .fields import check_name
from .label_edits import collection_of, tell_copies
from .views import add_labels_field, name_of, stored_field

WRITER = "refseg"
"""Key of a field's info under which it says what RefSeg writes there."""

_UNFIT = re.compile(r"[%.$\x00]")
_TAKEN = frozenset([*dir(fo.DynamicEmbeddedDocument), "id", "pk"])
"""A number of such a name would hide what the document can do, and copying its sample would fail."""

Numbers = Mapping[str, float]


def number_key(name: str) -> str:
    """The key of a number in its document.

    Example:
        >>> number_key("M4 bolt"), number_key("a.b"), number_key("$x"), number_key("_c"), number_key("copy")
        ('M4 bolt', 'a%2Eb', '%24x', '%5Fc', '%63opy')
    """
    key = _UNFIT.sub(_escaped, name)
    return _escaped(key) + key[1:] if key.startswith("_") or key in _TAKEN else key


def name_of_key(key: str) -> str:
    """The name that number_key made a key of.

    Example:
        >>> name_of_key("a%2Eb"), name_of_key(number_key("50%25 copper"))
        ('a.b', '50%25 copper')
    """
    return unquote(key)


def known_numbers(dataset: Any, field: str) -> list[str]:
    """The names of the numbers that a field declares; none where there is no such field. dataset as from whole_of."""
    held = stored_field(dataset, field)
    return [] if held is None else [name_of_key(key) for key in held.get_field_schema()]


def holds_numbers(dataset: Any, field: str, what: str) -> bool:
    """Whether a field is there that was made for these numbers, given as to add_numbers; dataset as from whole_of."""
    held = stored_field(dataset, field)
    return held is not None and (held.info or {}).get(WRITER) == what


def require_numbers_field(dataset: Any, field: str, what: str) -> None:
    """Refuse a field that is there and was not made for these numbers, or cannot be written.

    Args:
        dataset: as from whole_of.
        field: its name.
        what: the numbers, as given to add_numbers.

    Raises:
        DatasetError: it is another's, or read-only, or its name cannot be one.
    """
    held = stored_field(dataset, field)
    if held is None:
        check_name(dataset, field)
        return
    if not holds_numbers(dataset, field, what):
        raise DatasetError(
            f"The field {field!r} of dataset {name_of(dataset)!r} holds something else than {what}, and would be replaced: "
            "choose another prefix, or rename that field."
        )
    if held.read_only:
        raise DatasetError(
            f"The field {field!r} of dataset {name_of(dataset)!r} is read-only: choose another prefix, or set its read_only to "
            "False and save it."
        )


def add_numbers(dataset: Any, field: str, names: Iterable[str], kind: type, what: str) -> None:
    """Give a dataset a field of numbers, or one that is there the numbers it lacks; dataset as from whole_of.

    Args:
        dataset: as from whole_of.
        field: its name.
        names: of the numbers.
        kind: int or float.
        what: the numbers, in words: shown by the App, and told by the field's info.
    """
    example = fo.DynamicEmbeddedDocument(**{number_key(name): kind() for name in names})
    add_labels_field(dataset, field, example, description=f"{what[0].upper()}{what[1:]}", info={WRITER: what})


def write_numbers(dataset: Any, values: Mapping[str, Mapping[str, Numbers | None]]) -> None:
    """Write numbers of some images, all fields of an image by one update.

    Args:
        dataset: as from whole_of.
        values: by sample id and field, numbers by key; None empties the field. Numbers that are not named stay as they are.

    Raises:
        DatasetError: MongoDB did not take them.
    """
    if not values:
        return
    now = datetime.now(timezone.utc)
    updates = {
        name: [{"$set": {"last_modified_at": now, **{field: _merged(field, one) for field, one in fields.items()}}}]
        for name, fields in values.items()
    }
    requests = [UpdateOne({"_id": ObjectId(name)}, update) for name, update in updates.items()]
    try:
        patiently(lambda: collection_of(dataset).bulk_write(requests, ordered=False))
    except PyMongoError as error:
        raise DatasetError(
            f"MongoDB did not take the numbers of images of the dataset {name_of(dataset)!r} ({error}): what was written "
            "before is kept, run again to write the rest."
        ) from error
    tell_copies(dataset, updates)


def _merged(field: str, numbers: Numbers | None) -> Any:
    # As a literal, because a class may be called "$name"; a document that is null counts as an empty one.
    kind = fo.DynamicEmbeddedDocument.__name__
    return None if numbers is None else {"$mergeObjects": [f"${field}", {"$literal": {**numbers, "_cls": kind}}]}


def _escaped(found: re.Match[str] | str) -> str:
    return f"%{ord(found[0]):02X}"
