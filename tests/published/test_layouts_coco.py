from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg.coco.average_precision import has_masks
from refseg.coco.files import CocoDataset
from refseg.masks.rle import annotation_rle, decode_mask
from refseg.published.classes import COCO_20I_FOLDS, COCO_NAMES, COCO_NOVEL_IDS, TOY
from refseg.published.layouts.coco import find_20i, find_fsod, find_toy
from refseg.published.layouts.common import LeftOut, missing_files
from refseg.published.suite import ANY_SHOTS, DrawRule, Problems, Suite

from . import trees


@pytest.fixture
def coco_2017(tmp_path: Path) -> Path:
    trees.write_coco_2017(tmp_path)
    return tmp_path


@pytest.fixture
def coco_2014(tmp_path: Path) -> Path:
    trees.write_coco_2014(tmp_path)
    return tmp_path


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def found(suite: Suite | None) -> Suite:
    assert suite is not None
    return suite


def assert_drawn(coco: CocoDataset, image_id: int, parts: tuple[trees.Part, ...]) -> None:
    """The annotations of an image are these objects: boxes to the pixel, masks but for the outline's rounding."""
    entries = [entry for entry in coco.annotations if entry["image_id"] == image_id]
    assert [tuple(entry["bbox"]) for entry in entries] == [part.box for part in parts]
    for entry, part in zip(entries, parts, strict=True):
        code = annotation_rle(entry, trees.IMAGE_HW, coco.source)
        assert code is not None
        mask = decode_mask(code)
        assert np.logical_and(mask, part.mask).sum() > 0.9 * np.logical_or(mask, part.mask).sum()
        assert trees.NOVEL[part.family] == entry["category_id"]


def test_fsod_reads_coco_2017(coco_2017: Path) -> None:
    problems, left_out = Problems(), LeftOut()
    suite = found(find_fsod(coco_2017, problems, left_out=left_out))
    assert (problems.found, left_out) == ([], {})
    assert (suite.name, suite.metric, suite.figures) == ("coco-fsod", "coco", ("box AP", "mask AP"))
    assert (suite.folder, suite.shots, suite.max_detections) == (coco_2017, (1, 2, 3, 5, 10, 30), 100)
    (part,) = suite.parts
    assert (part.key, part.rule, part.federated) == ("", DrawRule(), None)
    assert [(split.key, split.category_ids, split.groups) for split in part.splits] == [("novel", COCO_NOVEL_IDS, {})]
    assert part.targets.categories == COCO_NAMES
    assert len(part.targets.images) == 10
    assert part.targets.images[139].file_name == "val2017/000000000139.jpg"
    for scene in (0, 1, trees.EMPTY_TARGET):
        assert_drawn(part.targets, trees.TARGET_IDS[scene], trees.targets()[scene].parts)
    (crowd,) = [entry for entry in part.targets.annotations if entry["iscrowd"]]
    assert crowd["image_id"] == trees.TARGET_IDS[trees.CROWD_TARGET]
    pool = part.pools[ANY_SHOTS]
    assert missing_files(coco_2017, [image.file_name for image in pool.images.values()]) == []
    for scene, image_id in trees.SHOT_IDS.items():
        assert_drawn(pool, image_id, trees.shots()[scene].parts)


def test_the_drawn_tree_has_two_images_with_a_suitable_object_of_each_class() -> None:
    suitable = [{part.family for part in picture.parts if part.suits} for picture in trees.shots()]
    assert min(sum(family in families for families in suitable) for family in range(20)) >= 2
    assert {len(picture.parts) for number, picture in enumerate(trees.targets()) if number != trees.EMPTY_TARGET} == {2, 3, 4}


def test_fsod_looks_for_all_or_for_named_classes(coco_2017: Path) -> None:
    problems = Problems()
    (everything,) = found(find_fsod(coco_2017, problems, ["all"])).parts[0].splits
    assert (everything.key, everything.category_ids) == ("all", tuple(COCO_NAMES))
    part = found(find_fsod(coco_2017, problems, ["zebra", "bird"])).parts[0]
    assert [(split.key, split.category_ids) for split in part.splits] == [("chosen", (16, 24))]
    assert {entry["category_id"] for entry in part.pools[ANY_SHOTS].annotations} == {16}
    assert len({entry["category_id"] for entry in part.targets.annotations}) > 2
    assert problems.found == []
    assert find_fsod(coco_2017, problems, ["unicorn"]) is None
    assert find_fsod(coco_2017, problems, []) is None
    assert "has no class 'unicorn': choose of airplane, apple, " in problems.found[0]
    assert "No class is chosen" in problems.found[1]


def test_fsod_names_all_that_is_missing(tmp_path: Path) -> None:
    problems = Problems()
    assert find_fsod(tmp_path, problems) is None
    assert problems.found == [
        f"There is no file {tmp_path / 'annotations/instances_train2017.json'}: unpack annotations_trainval2017.zip there.",
        f"There is no file {tmp_path / 'annotations/instances_val2017.json'}: unpack annotations_trainval2017.zip there.",
    ]


def test_fsod_names_missing_images_and_goes_on(coco_2017: Path) -> None:
    for image_id in (139, 424):
        (coco_2017 / f"val2017/{image_id:012d}.jpg").unlink()
    problems = Problems()
    assert find_fsod(coco_2017, problems) is not None
    assert problems.found == [
        f"2 of the 10 target images of {coco_2017 / 'annotations/instances_val2017.json'} are not in {coco_2017}: "
        "val2017/000000000139.jpg, val2017/000000000424.jpg: unpack val2017.zip there."
    ]


def test_fsod_names_classes_under_other_ids(coco_2017: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][1]["name"] = "bike"

    edit(coco_2017 / "annotations/instances_val2017.json", rename)
    problems = Problems()
    find_fsod(coco_2017, problems)
    assert "'bicycle' has the id 2 and is 'bike' there" in problems.found[0]
    assert (
        "instances_train2017.json does not list the expected classes: 'bike' has the id 2 and is 'bicycle'" in problems.found[1]
    )


def test_fsod_leaves_out_single_annotations_or_their_masks(coco_2017: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = [[0, 0, 9e9, 0, 9, 9]]
        content["annotations"][1]["category_id"] = 12
        del content["annotations"][2]["segmentation"]

    edit(coco_2017 / "annotations/instances_val2017.json", spoil)
    problems, left_out = Problems(), LeftOut()
    suite = found(find_fsod(coco_2017, problems, left_out=left_out))
    assert problems.found == []
    objects = {entry["id"]: entry for entry in suite.parts[0].targets.annotations}
    # Two of them are found by their boxes; what masks are worth is told of the others.
    assert {5001, 5002, 5003} & set(objects) == {5001, 5003}
    assert {number for number, entry in objects.items() if not entry.get("segmentation")} == {5001, 5003}
    assert suite.figures == ("box AP", "mask AP")
    assert has_masks(objects.values())
    (refused,) = left_out.values()
    assert [(one.annotation, one.field, one.mask_alone) for one in refused] == [
        ("5001", "segmentation", True),
        ("5002", "category_id", False),
        ("5003", "segmentation", True),
    ]
    assert ["far outside" in str(refused[0]), "has no mask" in str(refused[2])] == [True] * 2


def test_toy_takes_the_largest_object_and_ten_targets(tmp_path: Path) -> None:
    trees.write_toy(tmp_path)
    problems = Problems()
    suite = found(find_toy(tmp_path, problems))
    assert problems.found == []
    assert (suite.name, suite.shots, suite.figures) == ("toy", (1,), ("box AP", "mask AP"))
    (part,) = suite.parts
    assert part.rule is None
    assert [split.category_ids for split in part.splits] == [(9, 16)]
    assert tuple(part.targets.images) == TOY.targets
    assert {entry["image_id"] for entry in part.targets.annotations} <= set(TOY.targets)
    assert list(part.pools) == [1]
    by_class = {COCO_NAMES[entry["category_id"]]: entry for entry in part.pools[1].annotations}
    assert {name: entry["image_id"] for name, entry in by_class.items()} == TOY.references
    birds = [part.box for part in trees.toy()[TOY.references["bird"]].parts]
    assert (
        tuple(by_class["bird"]["bbox"]) == max(birds, key=lambda box: box[2] * box[3]) != min(birds, key=lambda b: b[2] * b[3])
    )


def test_toy_takes_no_crowd_and_needs_its_images(tmp_path: Path) -> None:
    trees.write_toy(tmp_path)
    path = tmp_path / "annotations/instances_train2017.json"

    def crowd(content: dict[str, Any]) -> None:
        content["annotations"][0]["iscrowd"] = 1

    edit(path, crowd)
    pool = found(find_toy(tmp_path, Problems())).parts[0].pools[1]
    assert [entry["id"] for entry in pool.annotations if entry["category_id"] == 16] == [700_001]
    edit(path, lambda content: content.update(annotations=[]))
    problems = Problems()
    assert find_toy(tmp_path, problems) is None
    assert "has no boat in the image 101435" in problems.found[0]
    assert "has no bird in the image 429819" in problems.found[1]
    edit(path, lambda content: content.update(images=content["images"][1:-1]))
    problems = Problems()
    assert find_toy(tmp_path, problems) is None
    assert "does not list the images 429819, 460598 of the toy set" in problems.found[0]


def test_20i_reads_coco_2014_in_four_folds(coco_2014: Path) -> None:
    problems = Problems()
    suite = found(find_20i(coco_2014, problems))
    assert problems.found == []
    assert (suite.name, suite.metric, suite.figures, suite.shots) == ("coco-20i", "miou", ("mIoU",), (1, 5))
    (part,) = suite.parts
    assert [(split.key, split.category_ids) for split in part.splits] == [
        (f"fold{i}", fold) for i, fold in enumerate(COCO_20I_FOLDS)
    ]
    assert part.targets.images[42].file_name == "val2014/COCO_val2014_000000000042.jpg"
    assert part.pools[ANY_SHOTS] == part.targets
    shown = {entry["category_id"] for entry in part.targets.annotations}
    assert all(len(shown & set(fold)) >= 4 for fold in COCO_20I_FOLDS)
    for scene, image_id in trees.IDS_2014.items():
        assert_drawn(part.targets, image_id, trees.shots()[scene].parts)


def test_20i_takes_some_folds_and_names_what_is_missing(coco_2014: Path) -> None:
    problems = Problems()
    suite = found(find_20i(coco_2014, problems, ["fold2", "fold0"]))
    assert [split.key for split in suite.parts[0].splits] == ["fold0", "fold2"]
    assert find_20i(coco_2014, problems, ["fold4"]) is None
    (coco_2014 / "annotations/instances_val2014.json").unlink()
    assert find_20i(coco_2014, problems) is None
    assert problems.found == [
        "There is no fold 'fold4': choose of fold0, fold1, fold2, fold3.",
        f"There is no file {coco_2014 / 'annotations/instances_val2014.json'}: unpack annotations_trainval2014.zip there.",
    ]
