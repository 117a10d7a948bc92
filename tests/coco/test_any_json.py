"""Whatever JSON a file holds, its reader returns or refuses it in a sentence: documents made up, and valid ones mutated."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from refseg.coco.annotations import BadMasks
from refseg.coco.average_precision import evaluate_results
from refseg.coco.files import CocoDataset, parse_coco, read_coco, with_file_sizes
from refseg.coco.references import crowds_in, references_in
from refseg.errors import CocoError, NoReferencesError
from refseg.masks.rle import encode_crop

WIDTH, HEIGHT = 20, 12
HUGE = 10**400
"""A whole number that is no float."""
EACH = settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

CODE = encode_crop(np.ones((3, 3), bool), (1, 1), (HEIGHT, WIDTH))["counts"].decode()
VALID: dict[str, Any] = {
    "info": {"year": 2026},
    "images": [
        {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        {"id": "8", "file_name": "a.png"},
        {"id": 9, "coco_url": "http://x/val/gone.png", "width": "20", "height": 12.0},
    ],
    "categories": [
        {"id": 3, "name": "star", "supercategory": "shape"},
        {"id": "5", "name": "tee"},
        {"id": 6, "name": "star", "supercategory": "star"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 2, 6, 6], "segmentation": [[4, 2, 10, 2, 10, 8]], "area": 18},
        {"id": 2, "image_id": 8, "category_id": "5", "bbox": ["1", "2", "3", "4"], "iscrowd": "0"},
        {"id": 3, "image_id": 7, "category_id": 3, "segmentation": {"size": [12, 20], "counts": [100, 20, 120]}, "iscrowd": 1},
        {"id": 4, "image_id": 8, "category_id": 5, "bbox": [1, 1, 3, 3], "segmentation": {"size": [12, 20], "counts": CODE}},
        {"image_id": 8, "category_id": 5, "rotation": 0.5, "ignore": 0, "segmentation": [[[1, 1], [3, 1], [3, 3]]]},
        {"id": 6, "image_id": "8", "category_id": 3, "bbox": [4, 2, 6, 6.5], "segmentation": [[4, 2, 10, 2.5, 10, 8]]},
    ],
}
KEYS = sorted({*VALID, "size", "counts", *(key for name in list(VALID)[1:] for entry in VALID[name] for key in entry)})

NUMBERS = st.one_of(
    st.integers(-3, 30),
    st.floats(),
    st.sampled_from([0, -1, 1 << 31, 1 << 62, 1 << 63, -(1 << 63), HUGE, -HUGE, 1e308, -0.0, 5e-324]),
)
ODD_TEXTS = ["", " ", "a.png", "7", "07", "1e999", "nan", "9" * 99, "9" * 5000, "\0", "\ud800", "/", "..", CODE, CODE[:-1]]
TEXTS = st.one_of(st.text(st.characters(codec="utf-8"), max_size=5), st.sampled_from(ODD_TEXTS))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document: what holds it, and its key or position."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The valid document, with some of its values replaced, removed or doubled."""
    document = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["number", "value", "remove", "double"])):
            case "number":
                holder[key] = draw(NUMBERS)
            case "value":
                holder[key] = draw(VALUES)
            case "remove":
                del holder[key]
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
    return document


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Hundreds of documents are worth no line each."""
    logging.getLogger("refseg").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("refseg").setLevel(logging.NOTSET)


def tolerantly(action: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What an action gives; None where it refuses."""
    try:
        return action(*given, **named)
    except (CocoError, NoReferencesError):
        return None


def use(content: Any, folder: Path) -> None:
    """Read a document in each way, and do with it what commands do."""
    for bad_masks in get_args(BadMasks):
        tolerantly(parse_coco, content, "a.json", bad_masks=bad_masks, strict=True)
        read = tolerantly(parse_coco, content, "a.json", bad_masks=bad_masks)
        if read is not None:
            check(read)
            shown = with_file_sizes(read, folder)
            check(shown)
            tolerantly(references_in, shown, folder)
            tolerantly(crowds_in, shown, folder)
            for iou_type in ("bbox", "segm"):
                tolerantly(evaluate_results, shown, [], iou_type)


def check(read: CocoDataset) -> None:
    """What everybody relies on who is given a dataset."""
    for entry in read.annotations:
        assert entry["image_id"] in read.images
        assert entry["category_id"] in read.categories
        assert entry.get("bbox") or entry.get("segmentation")


@EACH
@given(content=mutated())
def test_a_valid_document_mutated(folder: Path, content: Any) -> None:
    use(content, folder)


@EACH
@given(content=VALUES)
@example(content=[])
@example(content={"images": [], "categories": [], "annotations": []})
def test_any_document(folder: Path, content: Any) -> None:
    use(content, folder)


def test_the_valid_document_is_read(folder: Path) -> None:
    read = parse_coco(VALID, "a.json")
    assert (len(read.annotations), read.left_out) == (6, ())
    assert len(references_in(with_file_sizes(read, folder), folder)) == 5


@EACH
@given(text=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value).encode())))
@example(text=b"[" * 100_000)
@example(text=b"[" * 100_000 + b"]" * 100_000)
@example(text=b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
@example(text=b'{"images": ' + b"9" * 1_000_000 + b"}")
@example(text=b'{"images": [{"id": -Infinity, "file_name": NaN}]}')
@example(text=b'{"images": [{"id": 1e999, "file_name": "a.png"}], "categories": []}')
@example(text=b"\xff\xfe{\x00}\x00")
def test_any_file(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(text)
    tolerantly(read_coco, path)


@pytest.mark.parametrize("depth", [300, 900, 5_000, 100_000])
@pytest.mark.parametrize("place", ["bbox", "segmentation", "image_id", "category_id", "iscrowd", "area", "rotation"])
def test_values_nested_deeply(tmp_path: Path, folder: Path, depth: int, place: str) -> None:
    document = copy.deepcopy(VALID)
    document["annotations"][0][place] = "DEEP"
    path = tmp_path / "deep.json"
    path.write_text(json.dumps(document).replace('"DEEP"', "[" * depth + "]" * depth))
    read = tolerantly(read_coco, path)
    if read is not None:
        check(read)
        tolerantly(references_in, with_file_sizes(read, folder), folder)


@pytest.mark.parametrize(
    "number", [HUGE, -HUGE, 1 << 64, 1e308, float("inf"), float("nan")], ids=["huge", "-huge", "long", "far", "inf", "nan"]
)
@pytest.mark.sampled(3)
def test_numbers_beyond_all_pictures(folder: Path, number: float) -> None:
    """One at each place: what cannot be used is left out, and what can be is read all the same."""
    for row in range(len(list(places(VALID)))):
        document = copy.deepcopy(VALID)
        holder, key = list(places(document))[row]
        holder[key] = number
        use(document, folder)
