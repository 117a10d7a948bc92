from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refseg.coco.average_precision import has_masks
from refseg.coco.files import CocoDataset, CocoImage, read_coco
from refseg.errors import CocoError
from refseg.published.layouts.common import (
    LeftOut,
    check_names,
    check_targets,
    choose,
    ids_of_names,
    missing_files,
    read,
    with_masks,
    with_sizes,
)
from refseg.published.suite import Problems

HW = (12, 20)
GOOD = {"image_id": 7, "category_id": 3, "bbox": [4, 2, 6, 6]}
BAD: dict[str, dict[str, Any]] = {
    "which is not in 'images'": {**GOOD, "image_id": 9},
    "which is not in 'categories'": {**GOOD, "category_id": 9},
    "has the bbox": {**GOOD, "bbox": [0, 0, 5]},
    "has neither a 'bbox' nor a 'segmentation'": {"image_id": 7, "category_id": 3},
}


def write(folder: Path, *annotations: dict[str, Any], **image: Any) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": HW[0], "width": HW[1], **image}],
        "categories": [{"id": 3, "name": "star"}, {"id": 5, "name": "tee"}],
        "annotations": [{"id": 11 + i, **annotation} for i, annotation in enumerate(annotations)],
    }
    path = folder / "file.json"
    path.write_text(json.dumps(content))
    return path


def test_annotations_that_cannot_be_used_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, *BAD.values(), GOOD)
    with pytest.raises(CocoError, match="annotation 11 belongs to the image 9"):
        read_coco(path, strict=True)
    coco = read_coco(path)
    assert [entry["id"] for entry in coco.annotations] == [15]
    for words, refused, number in zip(BAD, coco.left_out, range(11, 15), strict=True):
        assert words in str(refused)
        assert str(refused).startswith(f"{path}: the annotation {number} ")
    assert [refused.field for refused in coco.left_out] == ["image_id", "category_id", "bbox", "bbox"]
    assert [refused.value for refused in coco.left_out] == ["9", "9", "[0, 0, 5]", "None"]
    problems, recorded = Problems(), LeftOut()
    assert read(path, problems, recorded) is not None
    assert problems.found == []
    assert recorded == {str(path): list(coco.left_out)}
    assert "4 annotations cannot be used and are left out" in caplog.text


def test_without_fault_nothing_is_recorded(tmp_path: Path) -> None:
    recorded = LeftOut()
    read(write(tmp_path, GOOD), Problems(), recorded)
    assert recorded == {}


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    problems = Problems()
    assert read(tmp_path / "none.json", problems, hint="unpack it there") is None
    (tmp_path / "half.json").write_text('{"images": [')
    assert read(tmp_path / "half.json", problems) is None
    assert problems.found[0] == f"There is no file {tmp_path / 'none.json'}: unpack it there."
    assert "half.json is not JSON" in problems.found[1]


def test_the_url_names_an_image_without_file_name(tmp_path: Path) -> None:
    path = write(tmp_path, file_name=None, coco_url="http://images.cocodataset.org/val2017/000000397133.jpg")
    assert read_coco(path).images[7].file_name == "val2017/000000397133.jpg"
    with pytest.raises(CocoError, match="lacks an 'id' or a 'file_name'"):
        read_coco(write(tmp_path, file_name=None))


def test_missing_files_keep_their_order(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "0.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["b/2.jpg", "a/2.jpg", "c/1.jpg", "0.jpg", "1.jpg", "a/1.jpg", "a/3.jpg"]
    assert missing_files(tmp_path, names) == ["b/2.jpg", "c/1.jpg", "1.jpg", "a/3.jpg"]
    assert missing_files(tmp_path / "none", ["a.jpg"]) == ["a.jpg"]
    assert missing_files(tmp_path, []) == []


def test_missing_targets_are_counted_and_the_first_named(tmp_path: Path) -> None:
    images: dict[Any, CocoImage] = {number: CocoImage(number, f"{number}.jpg", HW) for number in range(6)}
    (tmp_path / "0.jpg").touch()
    problems = Problems()
    check_targets(tmp_path, CocoDataset("val.json", images, {}, ()), problems, "unpack it")
    check_targets(tmp_path, CocoDataset("none.json", {}, {}, ()), problems)
    assert problems.found == [
        f"5 of the 6 target images of val.json are not in {tmp_path}: 1.jpg, 2.jpg, 3.jpg, …: unpack it.",
        "none.json lists no image: export it again.",
    ]


def dataset(*annotations: dict[str, Any]) -> CocoDataset:
    listed = tuple({"id": 11 + i, "image_id": 7, "category_id": 3, **entry} for i, entry in enumerate(annotations))
    return CocoDataset("val.json", {7: CocoImage(7, "a.png", HW)}, {3: "star", 5: "tee"}, listed)


SQUARE = [[4, 2, 10, 2, 10, 8, 4, 8]]
UNUSABLE: dict[str, Any] = {
    "lies far outside its image": [[4, 2, 100, 2, 10, 8]],
    "lies far outside": [[4, 2, -100, 2, 10, 8]],
    "has a polygon that is not a list of x, y": [[4, 2, 10, 2, 10, 8, 4]],
    "polygon that is not a list": [[4, 2, 10, "two", 10, 8]],
    "is not a list of x, y, x, y": [[4, 2, 10, float("nan"), 10, 8]],
    "is made for the size": {"size": [20, 12], "counts": [240]},
    "is a damaged run-length code": {"size": [12, 20], "counts": [3, 2]},
    "is neither polygons nor": "sky",
}


@pytest.mark.parametrize("words", UNUSABLE)
@pytest.mark.parametrize("listed", [True, False])
def test_an_object_whose_mask_does_not_fit_counts_by_its_box(tmp_path: Path, words: str, listed: bool) -> None:
    Image.new("RGB", (HW[1], HW[0])).save(tmp_path / "a.png")
    whole = {"size": [12, 20], "counts": [40, 10, 190]}
    objects = ({**GOOD, "segmentation": UNUSABLE[words]}, {**GOOD, "segmentation": SQUARE}, {**GOOD, "segmentation": whole})
    path = write(tmp_path, *objects, **({} if listed else {"width": None}))
    problems, recorded = Problems(), LeftOut()
    coco = read(path, problems, recorded, bad_masks="box")
    assert coco is not None
    sized = with_sizes(tmp_path, coco, problems, recorded)
    assert problems.found == []
    assert [("segmentation" in entry, entry["bbox"]) for entry in sized.annotations] == [
        (n > 0, GOOD["bbox"]) for n in range(3)
    ]
    (refused,) = recorded[str(path)]
    assert (refused.annotation, refused.field, refused.mask_alone) == ("11", "segmentation", True)
    assert words in str(refused)
    # As a reference it shows nothing.
    shown = read(path, problems, recorded)
    assert shown is not None
    assert [entry["id"] for entry in with_sizes(tmp_path, shown, problems).annotations] == [12, 13]


def test_an_object_without_mask_counts_by_its_box_or_not_at_all() -> None:
    coco = dataset({"bbox": [4, 2, 6, 6], "segmentation": None}, {"bbox": [4, 2, 6, 6], "segmentation": SQUARE})
    recorded = LeftOut()
    box, mask = with_masks(coco, recorded).annotations
    assert not has_masks(coco.annotations)
    assert has_masks([box, mask])
    assert mask is coco.annotations[1]
    assert [(one.annotation, one.reason, one.mask_alone) for one in recorded["val.json"]] == [("11", "has no mask.", True)]
    assert with_masks(coco, boxes_count=False).annotations == (mask,)


def test_sizes_are_of_the_file_where_none_are_listed(tmp_path: Path) -> None:
    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    images: dict[Any, CocoImage] = {1: CocoImage(1, "a.png"), 2: CocoImage(2, "b.png"), 3: CocoImage(3, "gone.png", HW)}
    problems = Problems()
    sized = with_sizes(tmp_path, CocoDataset("val.json", images, {}, ()), problems)
    assert [image.image_hw for image in sized.images.values()] == [(5, 9), None, HW]
    assert len(problems.found) == 1
    assert "for 1 image that cannot be read either: b.png (this is not an image that can be read)" in problems.found[0]


def test_choices_keep_the_known_order_and_name_what_is_unknown() -> None:
    problems = Problems()
    assert choose(None, ["a", "b", "c"], problems, "split") == ["a", "b", "c"]
    assert choose(["c", "a"], ["a", "b", "c"], problems, "split") == ["a", "c"]
    assert problems.found == []
    assert choose(["x", "a", "y", "x"], ["a", "b", "c"], problems, "split") == ["a"]
    assert choose([], ["a", "b"], problems, "split") == []
    assert problems.found == ["There is no split 'x', 'y': choose of a, b, c.", "No split is chosen: choose of a, b."]


def test_classes_are_found_by_name_or_named_as_missing() -> None:
    problems = Problems()
    assert ids_of_names(["tee", "star", "tee"], dataset(), problems) == (3, 5)
    assert problems.found == []
    assert ids_of_names(["tea", "star"], dataset(), problems) == (3,)
    check_names(dataset(), {3: "star", 5: "bow", 6: "key"}, problems)
    assert problems.found == [
        "val.json has no class 'tea': choose of star, tee.",
        "val.json does not list the expected classes: 'bow' has the id 5 and is 'tee' there; 'key' has the id 6 and is not "
        "listed: is it the released file?",
    ]
