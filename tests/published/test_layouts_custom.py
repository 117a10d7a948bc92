from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refseg.coco.annotations import MASK_LEFT_OUT
from refseg.published.layouts.common import LeftOut
from refseg.published.layouts.custom import find
from refseg.published.suite import ANY_SHOTS, Problems, Suite

from . import trees


@pytest.fixture
def paths(tmp_path: Path) -> trees.CustomPaths:
    return trees.write_custom(tmp_path)


def look(paths: trees.CustomPaths, problems: Problems, **options: Any) -> Suite | None:
    return find(paths.images, paths.references, paths.targets, problems, **options)


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_names_decide_and_sizes_come_from_the_files(paths: trees.CustomPaths) -> None:
    problems = Problems()
    suite = look(paths, problems)
    assert suite is not None
    assert problems.found == []
    assert (suite.name, suite.folder, suite.shots) == ("custom", paths.images, (ANY_SHOTS,))
    assert suite.figures == ("box AP", "mask AP")
    (part,) = suite.parts
    assert part.rule is None
    assert [(split.key, split.category_ids) for split in part.splits] == [("all", (1, 2, 3))]
    assert {image.image_hw for image in part.targets.images.values()} == {trees.IMAGE_HW}
    pool = part.pools[ANY_SHOTS]
    assert pool.categories == part.targets.categories == {1: "pin", 2: "washer", 3: "spring"}
    first = trees.shots()[0].parts
    assert [p.family for p in first] == [0, 1, 2]
    entries = [entry for entry in pool.annotations if entry["image_id"] == 0]
    assert [(pool.categories[e["category_id"]], tuple(e["bbox"])) for e in entries] == [
        ("washer", first[0].box),
        ("spring", first[1].box),
        ("pin", first[2].box),
    ]
    assert [entry["category_id"] for entry in load(paths.references)["annotations"][:3]] == [5, 6, 9]


def test_classes_can_be_chosen(paths: trees.CustomPaths) -> None:
    problems = Problems()
    suite = look(paths, problems, classes=["spring", "pin"])
    assert suite is not None
    assert [(split.key, split.category_ids) for split in suite.parts[0].splits] == [("chosen", (1, 3))]
    assert look(paths, problems, classes=["gear"]) is None
    assert "targets.json has no class 'gear': choose of pin, spring, washer." in problems.found[0]


def test_a_class_that_the_targets_do_not_know_is_named(paths: trees.CustomPaths) -> None:
    content = load(paths.references)
    content["categories"][0]["name"] = "ring"
    content["categories"].append({"id": 77, "name": "never shown"})
    paths.references.write_text(json.dumps(content))
    problems = Problems()
    suite = look(paths, problems)
    assert suite is not None
    assert suite.parts[0].splits[0].category_ids == (1, 3)
    (problem,) = problems.found
    assert "targets.json has no class 'ring', which" in problem
    problems = Problems()
    assert look(paths, problems, classes=["pin"]) is not None
    assert problems.found == []


def test_targets_without_masks_have_boxes_alone(paths: trees.CustomPaths) -> None:
    content = load(paths.targets)
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    paths.targets.write_text(json.dumps(content))
    left_out = LeftOut()
    suite = look(paths, Problems(), left_out=left_out)
    assert suite is not None
    assert suite.figures == ("box AP",)
    assert left_out == {}
    assert len(suite.parts[0].targets.annotations) == len(content["annotations"])


def test_a_target_without_a_mask_among_others_counts_by_its_box(paths: trees.CustomPaths) -> None:
    content = load(paths.targets)
    content["annotations"][0]["segmentation"] = []
    paths.targets.write_text(json.dumps(content))
    left_out = LeftOut()
    suite = look(paths, Problems(), left_out=left_out)
    assert suite is not None
    assert suite.figures == ("box AP", "mask AP")
    ((named,),) = left_out.values()
    assert (named.annotation, named.mask_alone) == (str(content["annotations"][0]["id"]), True)
    marked = [entry for entry in suite.parts[0].targets.annotations if entry.get(MASK_LEFT_OUT)]
    assert [entry["id"] for entry in marked] == [content["annotations"][0]["id"]]


def test_a_target_with_a_bad_mask_and_bad_references_are_listed(paths: trees.CustomPaths) -> None:
    content = load(paths.targets)
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    paths.targets.write_text(json.dumps(content))
    shown = load(paths.references)
    shown["annotations"][0]["bbox"] = shown["annotations"][0]["segmentation"] = "none"
    shown["images"][1] |= {"width": 31, "height": 7}
    paths.references.write_text(json.dumps(shown))
    left_out = LeftOut()
    suite = look(paths, Problems(), left_out=left_out)
    assert suite is not None
    assert suite.figures == ("box AP", "mask AP")
    (part,) = suite.parts
    assert len(part.targets.annotations) == len(content["annotations"])
    assert [one.mask_alone for one in left_out[str(paths.targets)]] == [True]
    turned = [entry for entry in shown["annotations"] if entry["image_id"] == shown["images"][1]["id"]]
    fields = [one.field for one in left_out[str(paths.references)]]
    assert fields == ["segmentation", *["width, height"] * len(turned)]
    assert len(part.pools[ANY_SHOTS].annotations) == len(shown["annotations"]) - len(fields)


def test_missing_files_and_images_are_named(paths: trees.CustomPaths, tmp_path: Path) -> None:
    (paths.images / "targets_1.jpg").unlink()
    problems = Problems()
    assert look(paths, problems) is not None
    assert "1 of the 3 target images" in problems.found[0]
    assert "targets_1.jpg (the file does not exist)" in problems.found[1]
    problems = Problems()
    assert find(tmp_path / "none", tmp_path / "a.json", tmp_path / "b.json", problems) is None
    assert problems.found == [
        f"There is no folder of images {tmp_path / 'none'}: is the path right?",
        f"There is no file {tmp_path / 'a.json'}: is the path right?",
        f"There is no file {tmp_path / 'b.json'}: is the path right?",
    ]
