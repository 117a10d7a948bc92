from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refseg.published.layouts.common import missing_files
from refseg.published.layouts.lvis import find
from refseg.published.suite import ANY_SHOTS, DrawRule, Federated, Problems

from . import trees


@pytest.fixture
def data(tmp_path: Path) -> Path:
    trees.write_lvis(tmp_path)
    return tmp_path


def minival(data: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data / "annotations/lvis_v1_minival.json").read_text())
    return content


def test_lvis_is_read_with_its_groups_and_what_is_known_of_each_image(data: Path) -> None:
    problems = Problems()
    suite = find(data, problems)
    assert suite is not None
    assert problems.found == []
    assert (suite.name, suite.metric, suite.shots, suite.max_detections) == ("lvis", "lvis", (10,), 300)
    kinds = ("AP", "APr", "APc", "APf")
    assert suite.figures == (*(f"box {kind}" for kind in kinds), *(f"mask {kind}" for kind in kinds))
    (part,) = suite.parts
    assert part.rule == DrawRule(relaxed=True)
    (split,) = part.splits
    assert split.category_ids == (3, 12, 45, 190, 700, 1203)
    assert split.groups == {"r": (700, 1203), "c": (45, 190), "f": (3, 12)}
    assert part.federated is not None
    assert set(part.federated) == set(part.targets.images)
    # Of the six families the first image shows that of class 3 alone; its list of absent classes is cut after one.
    assert part.federated[139] == Federated(frozenset({12}), frozenset({3}))
    assert part.targets.images[139].file_name == "val2017/000000000139.jpg"
    boxes = [tuple(entry["bbox"]) for entry in part.targets.annotations]
    assert boxes == [p.box for picture in trees.targets() for p in picture.of(trees.LVIS_FAMILIES)]
    pool = part.pools[ANY_SHOTS]
    assert pool.images[trees.SHOT_IDS[trees.LVIS_LATE_TRAIN]].file_name.startswith("val2017/")
    assert missing_files(data, [image.file_name for image in pool.images.values()]) == []
    assert len(pool.annotations) == sum(len(picture.of(trees.LVIS_FAMILIES)) for picture in trees.shots())


@pytest.mark.parametrize("url", [True, False])
def test_a_bare_file_name_gets_its_folder(data: Path, url: bool) -> None:
    content = minival(data)
    for image in content["images"]:
        image["file_name"] = image["coco_url"].split("/")[-1]
        if not url:
            del image["coco_url"]
    moved = data / "val2017/000000000139.jpg"
    if not url:
        moved.rename(data / "train2017/000000000139.jpg")
    (data / "annotations/lvis_v1_minival.json").unlink()
    (data / "lvis").mkdir()
    (data / "lvis/lvis_v1_minival_inserted_image_name.json").write_text(json.dumps(content))
    problems = Problems()
    suite = find(data, problems)
    assert suite is not None
    assert problems.found == []
    names = [image.file_name for image in suite.parts[0].targets.images.values()]
    assert names[:2] == [f"{'val2017' if url else 'train2017'}/000000000139.jpg", "val2017/000000000424.jpg"]


def test_what_the_release_has_and_a_file_lacks_is_named(data: Path) -> None:
    content = minival(data)
    del content["categories"][0]["frequency"]
    del content["images"][1]["neg_category_ids"]
    content["categories"][5]["name"] = "courgette"
    (data / "annotations/lvis_v1_minival.json").write_text(json.dumps(content))
    (data / "val2017/000000000424.jpg").unlink()
    problems = Problems()
    assert find(data, problems) is not None
    assert [words in sentence for words, sentence in zip(
        (
            "1 of the 10 target images",
            "'courgette' has the id 1203 and is 'zucchini' there",
            "lists no 'frequency' (r, c or f) of 1 class: air_conditioner",
            "'not_exhaustive_category_ids' of 1 image: 424",
        ),
        problems.found,
        strict=True,
    )] == [True] * 4  # fmt: skip


def test_both_files_are_missed(tmp_path: Path) -> None:
    problems = Problems()
    assert find(tmp_path, problems) is None
    assert "There is no lvis_v1_train.json in" in problems.found[0]
    assert "There is no lvis_v1_minival.json or lvis_v1_minival_inserted_image_name.json in" in problems.found[1]
