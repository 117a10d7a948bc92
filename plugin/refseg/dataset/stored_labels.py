"""Labels and images as MongoDB holds them, where there are too many to make FiftyOne's objects of each.

A mask in a document takes about a tenth of a millisecond. The size of an image comes from its metadata, else from the first
bytes of its file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from fiftyone.core.utils import deserialize_numpy_array
from numpy.typing import NDArray

from ..errors import MaskError
from .connection import patiently
from .label_edits import Document
from .labels import image_hw_of, read_mask

NPY_PREFIX = 10
"""Bytes of NumPy's file format before its head."""
_PLAIN_HEAD = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '\|b1', 'fortran_order': False, "
    rb"'shape': \((?P<height>\d+), (?P<width>\d+)\), \}",
    re.DOTALL,
)
"""Of a mask as FiftyOne writes it: format 1.0, bool, row after row."""


class StoredImage:
    """The size of an image, found no sooner than it is needed.

    Args:
        document: of its sample, with the file's path and the metadata.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        metadata = document.get("metadata") or {}
        self.path = str(document["filepath"])
        self._metadata = SimpleNamespace(height=metadata.get("height"), width=metadata.get("width"))

    @cached_property
    def hw(self) -> tuple[int, int]:
        """Height and width of the upright image.

        Raises:
            ImageError: neither the file nor the metadata tells.
        """
        return image_hw_of(SimpleNamespace(filepath=self.path, metadata=self._metadata))[0]

    @cached_property
    def num_pixels(self) -> int:
        """How many pixels the image has, by its metadata, whose sides may be the wrong way round, else by its file.

        Raises:
            ImageError: neither tells.
        """
        height, width = self._metadata.height, self._metadata.width
        if not height or not width:
            height, width = self.hw
        return int(height) * int(width)


def stored_images(dataset: Any, sample_ids: Iterable[str]) -> dict[str, StoredImage]:
    """The images of these ids that are there, by id; dataset as from whole_of."""
    wanted = {"_id": {"$in": [ObjectId(name) for name in sample_ids]}}
    parts = dict.fromkeys(("filepath", "metadata.height", "metadata.width"), True)
    found = patiently(lambda: list(dataset._dataset._sample_collection.find(wanted, parts)))
    return {str(document["_id"]): StoredImage(document) for document in found}


def stored_mask(label: Document) -> NDArray[np.bool_] | None:
    """The (h, w) bool mask of a Detection as MongoDB holds it; None where it has none.

    Raises:
        MaskError: the mask cannot be read.
    """
    mask: NDArray[np.bool_] | None = _as_detection(label, with_mask=True).mask
    return mask


def as_object(label: Document, *, with_mask: bool = True) -> Any:
    """What `object_region` takes, from a Detection or Polyline as MongoDB holds it, with or without its mask.

    Raises:
        MaskError: its mask cannot be read.
    """
    return fo.Polyline.from_dict(label) if label.get("_cls") == "Polyline" else _as_detection(label, with_mask=with_mask)


def _as_detection(label: Document, *, with_mask: bool) -> SimpleNamespace:
    about: dict[str, Any] = {"id": str(label["_id"]), "label": label.get("label"), "bounding_box": label.get("bounding_box")}
    packed = label.get("mask") if with_mask else None
    try:
        mask = None if packed is None else _unpacked(packed)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise MaskError(about["id"], about["label"], f"its mask cannot be read ({error})") from error
    path = label.get("mask_path") if with_mask else None
    mask = read_mask(SimpleNamespace(**about, mask=mask, mask_path=path))
    return SimpleNamespace(**about, mask=mask, mask_path=None)


def _unpacked(packed: bytes) -> NDArray[Any]:
    """The same as FiftyOne's deserialize_numpy_array; NumPy takes most of its time to read the head of a small array."""
    data = zlib.decompress(packed)
    head = _PLAIN_HEAD.match(data)
    if head is not None:
        height, width = int(head["height"]), int(head["width"])
        begin = NPY_PREFIX + int.from_bytes(head["length"], "little")
        if len(data) == begin + height * width:
            return np.frombuffer(data, np.bool_, offset=begin).reshape(height, width)
    array: NDArray[Any] = deserialize_numpy_array(packed)
    return array
