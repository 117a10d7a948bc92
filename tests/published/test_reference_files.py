from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refseg.coco.files import CocoDataset, CocoImage
from refseg.errors import CocoError
from refseg.published.drawing import Drawer, references_of
from refseg.published.reference_files import depends_on, read_reference_file, reference_file_for

MASK = [[10, 10, 30, 10, 30, 30, 10, 30]]
TARGETS = CocoDataset("targets.json", {}, {5: "cow", 0: "cat"}, ())
POOL = CocoDataset(
    "pool.json",
    {
        9: CocoImage(9, "train2017/000000000009.jpg", (60, 80)),
        12: CocoImage(12, "a/same.jpg", (60, 80)),
        13: CocoImage(13, "b/same.jpg", (60, 80)),
        "x": CocoImage("x", "x.jpg", (60, 80)),
    },
    {5: "cow", 0: "cat"},
    (
        {"id": 1, "image_id": 9, "category_id": 5, "bbox": [10, 10, 20, 20], "segmentation": MASK},
        {"id": 2, "image_id": 9, "category_id": 0, "bbox": [40, 10, 20, 20], "segmentation": [[40, 10, 60, 10, 60, 30]]},
        {
            "id": 3,
            "image_id": 9,
            "category_id": 5,
            "bbox": [0, 0, 60, 60],
            "segmentation": [[0, 0, 60, 0, 60, 60]],
            "iscrowd": 1,
        },
    ),
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def write_content(content: Any) -> Path:
        path = tmp_path / "refs.json"
        path.write_text(json.dumps(content))
        return path

    return write_content


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        (9, 9),
        ("9", 9),
        ("000000000009", 9),
        ("000000000009.jpg", 9),
        ("train2017/000000000009.jpg", 9),
        ("/home/someone/coco/train2017/000000000009.jpg", 9),
        ("datasets/coco/trainval2014/COCO_train2014_000000000009.jpg", 9),
        ("C:\\coco\\train2017\\000000000009.jpg", 9),
        ("a/same.jpg", 12),
        ("/data/b/same.jpg", 13),
        ("x", "x"),
        ("other/x.jpg", "x"),
    ],
)
def test_an_image_is_found_by_id_name_or_path(write: Callable[[Any], Path], tmp_path: Path, name: Any, image_id: Any) -> None:
    read = read_reference_file(write({"cow": [{"image": name, "bbox": [1, 2, 3, 4]}]}), tmp_path, TARGETS, POOL)
    assert read.images == {image_id: POOL.images[image_id]}
    assert read.annotations == ({"id": "cow 1", "image_id": image_id, "category_id": 5, "bbox": [1, 2, 3, 4]},)
    assert read.categories == TARGETS.categories


def test_an_image_the_pool_does_not_know_is_looked_for_in_the_folder(write: Callable[[Any], Path], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "sub" / "new.png")
    content = {"0": [{"image": "sub/new.png", "bbox": [1, 2, 30, 40]}], "cow": []}
    for pool in (POOL, None):
        read = read_reference_file(write(content), tmp_path, TARGETS, pool)
        assert [entry["category_id"] for entry in read.annotations] == [0]
        references, skipped = references_of(read, tmp_path, Drawer(read, None).draw([0], None, 0))
        assert [(one.label, one.box, one.mask) for one in references] == [("cat", (1, 2, 31, 42), None)]
        assert skipped == []


@pytest.mark.parametrize(
    ("name", "box", "mask"),
    [
        ("cow", [10, 10, 20, 20], MASK),
        ("cow", [10.4, 10, 19.6, 20], MASK),
        ("cow", [12, 10, 18, 20], None),
        ("cow", [40, 10, 20, 20], None),  # the cat's
        ("cow", [0, 0, 60, 60], None),  # the crowd's
    ],
)
def test_the_mask_of_a_known_object_is_taken(
    write: Callable[[Any], Path], tmp_path: Path, name: str, box: Any, mask: Any
) -> None:
    read = read_reference_file(write({name: [{"image": 9, "bbox": box}]}), tmp_path, TARGETS, POOL)
    assert read.annotations[0].get("segmentation") == mask
    assert read.annotations[0]["bbox"] == box


def test_a_coco_file_gets_the_ids_of_the_targets(write: Callable[[Any], Path], tmp_path: Path) -> None:
    Image.new("RGB", (80, 60)).save(tmp_path / "same.jpg")  # several of the pool's images are called so, in folders
    own = [[1, 1, 9, 1, 9, 9]]
    content = {
        "images": [{"id": 77, "file_name": "COCO_train2014_000000000009.jpg"}, {"id": 9, "file_name": "same.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}, {"id": 3, "name": "gnu"}],
        "annotations": [
            {"id": 4, "image_id": 77, "category_id": 2, "bbox": [10, 10, 20, 20]},
            {"id": 5, "image_id": 9, "category_id": 1, "bbox": [10, 10, 20, 20]},
            {"id": 6, "image_id": 77, "category_id": 2, "segmentation": own},
        ],
    }
    read = read_reference_file(write(content), tmp_path, TARGETS, POOL)
    assert [entry["category_id"] for entry in read.annotations] == [5, 0, 5]
    # The pool lends the name of the image and the mask, but not to the image 9 of this file, which is another.
    assert read.images[77] == CocoImage(77, "train2017/000000000009.jpg", (60, 80))
    assert read.images[9].file_name == "same.jpg"
    assert [entry.get("segmentation") for entry in read.annotations] == [MASK, None, own]
    alone = read_reference_file(write(content), tmp_path, TARGETS, None)
    assert alone.images[77].file_name == "COCO_train2014_000000000009.jpg"
    content["annotations"][0]["category_id"] = 3
    with pytest.raises(
        CocoError, match=r"refs\.json: the annotation 4 is of the class 'gnu', none of the targets' classes, .*cat, cow"
    ):
        read_reference_file(write(content), tmp_path, TARGETS, POOL)


GOOD = {"image": 9, "bbox": [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"gnu": [GOOD]}, r"refs\.json: the class 'gnu' is none of the targets' classes"),
        (
            {"cow": [GOOD, {"image": "no.jpg", "bbox": [1, 2, 3, 4]}]},
            r"refs\.json: entry 2 of the class 'cow' shows the image 'no\.jpg'",
        ),
        ({"cow": [{"image": 10, "bbox": [1, 2, 3, 4]}]}, r"entry 1 of the class 'cow' shows the image 10, found neither"),
        ({"cow": [{"image": "", "bbox": [1, 2, 3, 4]}]}, "entry 1 of the class 'cow' needs an 'image'"),
        ({"cow": [{"image": "same.jpg", "bbox": [1, 2, 3, 4]}]}, r"may be any of a/same\.jpg, b/same\.jpg"),
        ({"cow": ["000000000009.jpg"]}, "entry 1 of the class 'cow' needs an 'image'"),
        ({"cow": [{"image": True, "bbox": [1, 2, 3, 4]}]}, "entry 1 of the class 'cow' needs an 'image'"),
        ({"cow": [{"image": 9}]}, "entry 1 of the class 'cow' has the bbox None"),
        ({"cow": [{"image": 9, "bbox": [1, 2, 0, 4]}]}, r"has the bbox \[1, 2, 0, 4\]"),
        ({"cow": [{"image": 9, "bbox": [1, 2, "3,0", 4]}]}, "x, y, width and height"),
        ({"cow": GOOD}, "neither a COCO file nor lists"),
        ([GOOD], "neither a COCO file nor lists"),
        ({}, "lists no object"),
        ({"cow": []}, "lists no object"),
        ({"images": [{"id": 1}], "annotations": [], "categories": []}, "lacks an 'id' or a 'file_name'"),
    ],
)
def test_what_cannot_be_used_is_named(write: Callable[[Any], Path], tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(CocoError, match=words):
        read_reference_file(write(content), tmp_path, TARGETS, POOL)


def test_an_entry_that_cannot_be_used_does_not_stop_the_others(write: Callable[[Any], Path], tmp_path: Path) -> None:
    entries = [GOOD, {"image": 9, "bbox": [1, 2, 3]}, {"image": "9", "bbox": ["5", 6.0, 7, 8]}]
    read = read_reference_file(write({"cow": entries}), tmp_path, TARGETS, POOL)
    assert [(entry["id"], entry["bbox"]) for entry in read.annotations] == [("cow 1", [1, 2, 3, 4]), ("cow 3", [5, 6, 7, 8])]
    (refused,) = read.left_out
    assert (refused.annotation, refused.field, refused.value) == ("entry 2 of the class 'cow'", "bbox", "[1, 2, 3]")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match=r"no\.json"):
        read_reference_file(tmp_path / "no.json", tmp_path, TARGETS, None)


def test_names_of_files() -> None:
    assert reference_file_for("s{seed}/{shots}.json", 5, 33) == Path("s33/5.json")
    assert reference_file_for("{shots}.json", None, 33) == Path("all.json")
    assert reference_file_for("a{b}.json", 5, 33) == Path("a{b}.json")
    assert not depends_on("shots/seed.json", "shots")
    assert depends_on("{seed}", "seed")
