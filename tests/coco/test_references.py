"""References out of a COCO file: their masks and boxes, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from refseg.coco.files import read_coco, with_file_sizes
from refseg.coco.references import read_references, references_in
from refseg.errors import CocoError, NoReferencesError
from tests.masks.test_rle import runs_of

WIDTH, HEIGHT = 20, 12
SQUARE = [[4, 2, 10, 2, 10, 8, 4, 8]]  # x 4-9, y 2-7


def square_mask() -> np.ndarray:
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[2:8, 4:10] = True
    return whole


@pytest.mark.parametrize("kind", ["polygon", "list", "string"])
def test_a_mask_lies_where_it_is_whatever_its_box(write: Callable[..., Path], folder: Path, kind: str) -> None:
    counts: Any = runs_of(square_mask())
    if kind == "string":
        counts = mask_utils.encode(np.asfortranarray(square_mask().astype(np.uint8)))["counts"].decode()
    shape: Any = SQUARE if kind == "polygon" else {"size": [HEIGHT, WIDTH], "counts": counts}
    # The box is a pixel larger than the mask on the left, and cuts three off it at the bottom.
    path = write({"segmentation": shape, "bbox": [3, 2, 7, 3]})
    (reference,) = read_references(path, folder)
    assert (reference.id, reference.label, reference.image) == ("11", "star", str(folder / "a.png"))
    assert reference.box == (3, 2, 10, 5)
    assert reference.mask_box == (4, 2, 10, 8)
    assert reference.mask is not None
    assert reference.mask.shape == (6, 6)
    whole = reference.whole_mask((HEIGHT, WIDTH))
    assert whole is not None
    np.testing.assert_array_equal(whole.numpy(), square_mask())


def test_without_bbox_the_box_is_that_of_the_mask(write: Callable[..., Path], folder: Path) -> None:
    (reference,) = read_references(write({"segmentation": SQUARE}), folder)
    assert reference.box == (4, 2, 10, 8)
    assert reference.mask is not None
    assert reference.mask.shape == (6, 6)
    assert reference.mask.all()


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_without_mask_a_reference_is_a_box(write: Callable[..., Path], folder: Path, nothing: Any) -> None:
    (reference,) = read_references(write({"bbox": [1.5, 2, 4, 5], "segmentation": nothing}), folder)
    assert reference.box == (1.5, 2, 5.5, 7)
    assert reference.mask is None


def test_a_mask_is_cut_at_the_border(write: Callable[..., Path], folder: Path) -> None:
    outside = [[15, 8, 25, 8, 25, 16, 15, 16]]
    (reference,) = read_references(write({"segmentation": outside, "bbox": [15, 8, 10, 8]}), folder)
    assert reference.box == (15, 8, WIDTH, HEIGHT)
    assert reference.mask is not None
    assert reference.mask.shape == (4, 5)
    assert reference.mask.all()


def test_crowds_are_left_out_and_logged(write: Callable[..., Path], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write({"bbox": [0, 0, 5, 5]}, {"bbox": [0, 0, 9, 9], "iscrowd": 1}, {"bbox": [1, 1, 5, 5], "category_id": 5})
    assert [(r.id, r.label) for r in read_references(path, folder)] == [("11", "star"), ("13", "tee")]
    assert "1 crowd annotation is left out" in caplog.text


def test_only_crowds_or_nothing_is_no_references(write: Callable[..., Path], folder: Path) -> None:
    for path in (write({"bbox": [0, 0, 9, 9], "iscrowd": 1}), write(), write(annotations=None)):
        with pytest.raises(NoReferencesError, match=r"refs\.json has no annotation of a single object"):
            read_references(path, folder)


def test_a_missing_image_is_left_to_the_builder(write: Callable[..., Path], folder: Path) -> None:
    images = [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "gone.png"}]
    path = write({"bbox": [0, 0, 5, 5]}, {"bbox": [1, 1, 5, 5], "image_id": 8}, images=images)
    references = read_references(path, folder)
    assert [r.image for r in references] == [str(folder / "a.png"), str(folder / "gone.png")]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"image_id": 9, "bbox": [0, 0, 5, 5]}, "annotation 11 belongs to the image 9, which is not in 'images'"),
        ({"category_id": 9, "bbox": [0, 0, 5, 5]}, "annotation 11 has the category 9, which is not in 'categories'"),
        ({"bbox": [0, 0, 5]}, r"annotation 11 has the bbox \[0, 0, 5\]"),
        ({"bbox": [0, 0, 5, -1]}, "annotation 11 has the bbox"),
        ({"bbox": [0, 0, 5, float("nan")]}, "annotation 11 has the bbox"),
        ({}, "annotation 11 has neither"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 11 cannot be read: its mask has no polygon of three points"),
        ({"segmentation": [[]], "bbox": [1, 1, 5, 5]}, "annotation 11 cannot be read: its mask has no polygon of three points"),
        ({"bbox": [0, 0, 0, 0]}, r"annotation 11 has the bbox \[0, 0, 0, 0\]"),
        ({"bbox": [30, 0, 5, 5]}, r"annotation 11 has the bbox \[30, 0, 5, 5\], which lies outside its image of 20×12"),
        ({"bbox": [0, 0, 5, 5], "iscrowd": "perhaps"}, "annotation 11 has the flag 'perhaps' as 'iscrowd'"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "annotation 11 .* has a polygon that is not a list of"),
        ({"segmentation": [[1, 2, 3, 4, 5, "six"]]}, "annotation 11 .* has a polygon that is not a list of"),
        # Unchecked this one makes pycocotools ask for more memory than there is.
        ({"segmentation": [[1, 2, 1e9, 4, 5, 6]]}, "annotation 11 .* lies far outside its image of 20×12 pixels"),
        ({"segmentation": "sky"}, "annotation 11 .* is neither polygons nor"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": [240]}}, r"made for the size \[20, 12\] .* is \[12, 20\]"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3, 2]}}, "damaged run-length code.* add up to 20×12"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, 241]}}, "damaged run-length code"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "08"}}, "damaged run-length code"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "zz\n"}}, "damaged run-length code"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "`"}}, "damaged run-length code"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": None}}, "damaged run-length code"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_bad_annotation_is_named_and_does_not_stop_the_others(
    write: Callable[..., Path],
    folder: Path,
    annotation: dict[str, Any],
    words: str,
    listed: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Whether a mask fits is told when the size of the image is known: by the file or from the image.
    sizes = {} if listed else {"images": [{"id": 7, "file_name": "a.png"}]}
    path = write(annotation, {"bbox": [1, 1, 5, 5]}, **sizes)
    assert [reference.id for reference in read_references(path, folder)] == ["12"]
    assert re.search(words, caplog.text)
    with pytest.raises(CocoError, match=words):
        read_references(path, folder, strict=True)
    with pytest.raises(NoReferencesError, match=f"that can be used.*{words}"):
        read_references(write(annotation, **sizes), folder)


def test_ids_that_are_no_names_get_one(write: Callable[..., Path], folder: Path) -> None:
    ids: list[Any] = [4, 4, None, 4.0, "4", "#2", [], float("nan")]
    path = write(*({"bbox": [0, 0, 5, 5], "id": name} for name in ids))
    coco = with_file_sizes(read_coco(path), folder)
    assert [reference.id for reference in references_in(coco, folder)] == ["4", "4#1", "#2", "4#3", "4#4", "#2#5", "#6", "#7"]
    assert "6 annotations have no id, or that of another" in coco.notes[0]
    assert coco.left_out == ()


def test_references_of_an_image_of_another_size_are_left_out(
    write: Callable[..., Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (9, 9)).save(folder / "b.png")
    images = [{"id": 7, "file_name": "a.png", "width": 12, "height": 20}, {"id": 8, "file_name": "b.png"}]
    path = write({"bbox": [0, 0, 5, 5]}, {"bbox": [0, 0, 5, 5], "image_id": 8}, images=images)
    assert [reference.id for reference in read_references(path, folder)] == ["12"]
    words = r"a\.png is listed with 12×20 pixels, but the upright image has 20×12"
    assert re.search(words, caplog.text)
    with pytest.raises(CocoError, match=words):
        read_references(path, folder, strict=True)
