from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from refseg.published.classes import CD_FSOD
from refseg.published.layouts.cd_fsod import find
from refseg.published.layouts.common import LeftOut, missing_files
from refseg.published.suite import Problems, Suite

from . import trees


@pytest.fixture
def data(tmp_path: Path) -> Path:
    trees.write_cd_fsod(tmp_path)
    return tmp_path


def found(suite: Suite | None) -> Suite:
    assert suite is not None
    return suite


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_six_datasets_are_read_without_segmentation(data: Path) -> None:
    problems, left_out = Problems(), LeftOut()
    suite = found(find(data, problems, left_out=left_out))
    assert (problems.found, left_out) == ([], {})
    assert (suite.name, suite.metric, suite.figures, suite.shots) == ("cd-fsod", "coco", ("box AP",), (1, 5, 10))
    assert [part.key for part in suite.parts] == list(CD_FSOD)
    for part in suite.parts:
        assert part.rule is None
        assert [len(split.category_ids) for split in part.splits] == [CD_FSOD[part.key]]
        assert list(part.pools) == [1, 5, 10]
        assert len(part.pools[1].annotations) == CD_FSOD[part.key]
        for coco in (part.targets, *part.pools.values()):
            assert missing_files(data, [image.file_name for image in coco.images.values()]) == []
            assert all("segmentation" not in entry for entry in coco.annotations)
    dior = suite.parts[2]
    assert dior.targets.images[1].file_name == "DIOR/test/dior_test_0000.jpg"
    assert dior.pools[1].images[0].file_name == "DIOR/train/dior_0000.jpg"
    boxes = [tuple(entry["bbox"]) for entry in dior.targets.annotations]
    assert boxes == [p.box for picture in trees.targets()[:3] for p in picture.parts]
    assert (min(suite.parts[0].targets.categories), min(suite.parts[1].targets.categories)) == (0, 1)


@pytest.mark.parametrize("folder", ["images", "JPEGImages", "", "train"])
def test_images_may_lie_elsewhere(data: Path, folder: str) -> None:
    root = data / "UODD"
    (root / folder).mkdir(exist_ok=True)
    for path in (root / "test").iterdir():
        path.rename(root / folder / path.name)
    problems = Problems()
    (part,) = found(find(data, problems, ["UODD"])).parts
    assert problems.found == []
    assert part.targets.images[1].file_name == "/".join(filter(None, ["UODD", folder, "uodd_test_0000.jpg"]))


@pytest.mark.parametrize("prefix", ["./test/", "test\\", "/home/someone/UODD/", "{data}/UODD/test/", "test2024/"])
def test_file_names_may_carry_a_folder(data: Path, prefix: str) -> None:
    path = data / "UODD/annotations/test.json"
    content = load(path)
    for image in content["images"]:
        image["file_name"] = prefix.format(data=data) + image["file_name"]
    path.write_text(json.dumps(content))
    problems = Problems()
    (part,) = found(find(data, problems, ["UODD"])).parts
    assert problems.found == []
    assert part.targets.images[1].file_name == "UODD/test/uodd_test_0000.jpg"


def test_missing_datasets_files_and_images_are_named(data: Path) -> None:
    shutil.rmtree(data / "FISH")
    (data / "UODD/annotations/5_shot.json").unlink()
    (data / "DIOR/annotations/test.json").unlink()
    (data / "NEU-DET/test/neu-det_test_0001.jpg").unlink()
    problems = Problems()
    suite = found(find(data, problems))
    assert [part.key for part in suite.parts] == ["ArTaxOr", "clipart1k", "NEU-DET", "UODD"]
    assert list(suite.parts[-1].pools) == [1, 10]
    assert [words in sentence for words, sentence in zip(
        (
            f"There is no file {data / 'DIOR/annotations/test.json'}: take DIOR's annotations",
            f"There is no folder {data / 'FISH'}: add the dataset, or leave FISH out",
            "NEU-DET/test/neu-det_test_0001.jpg: add them to",
            f"There is no file {data / 'UODD/annotations/5_shot.json'}",
        ),
        problems.found,
        strict=True,
    )] == [True] * 4  # fmt: skip


def test_a_missing_dataset_may_be_left_out(data: Path) -> None:
    shutil.rmtree(data / "FISH")
    problems = Problems()
    assert [part.key for part in found(find(data, problems, ["UODD", "DIOR"])).parts] == ["DIOR", "UODD"]
    assert problems.found == []
    assert find(data, problems, ["fish"]) is None
    assert problems.found == [f"There is no dataset 'fish': choose of {', '.join(CD_FSOD)}."]


def test_another_number_of_classes_or_other_ids_are_named(data: Path) -> None:
    path = data / "UODD/annotations/test.json"
    content = load(path)
    content["categories"].append({"id": 9, "name": "whale"})
    content["annotations"].append({**content["annotations"][0], "id": 999, "category_id": 9})
    content["categories"][0]["name"], content["categories"][1]["name"] = "class 1", "class 0"
    path.write_text(json.dumps(content))
    problems = Problems()
    find(data, problems, ["UODD"])
    assert f"{path} has 4 classes, but UODD is published with 3" in problems.found[0]
    assert "1_shot.json and" in problems.found[1]
    assert "disagree on the id of 'class 0', 'class 1', 'whale'" in problems.found[1]
    assert len(problems.found) == 4


def test_an_annotation_with_a_polygon_alone_is_left_out(data: Path) -> None:
    path = data / "FISH/annotations/1_shot.json"
    content = load(path)
    (entry,) = content["annotations"]
    content["annotations"].append({**{key: entry[key] for key in entry if key != "bbox"}, "id": 77})
    path.write_text(json.dumps(content))
    left_out = LeftOut()
    (part,) = found(find(data, Problems(), ["FISH"], left_out=left_out)).parts
    assert len(part.pools[1].annotations) == 1
    (refused,) = left_out.pop(str(path))
    assert left_out == {}
    assert str(refused) == f"{path}: the annotation 77 has no 'bbox'. (bbox: None)"


def test_no_mask_is_looked_at(data: Path) -> None:
    path = data / "FISH/annotations/1_shot.json"
    content = load(path)
    content["annotations"][0]["segmentation"] = "the box once more"
    path.write_text(json.dumps(content))
    left_out = LeftOut()
    (part,) = found(find(data, Problems(), ["FISH"], left_out=left_out)).parts
    assert left_out == {}
    assert ["segmentation" in entry for entry in part.pools[1].annotations] == [False]


def test_a_class_of_no_object_is_none(data: Path) -> None:
    for path in (data / "UODD" / "annotations").iterdir():
        content = load(path)
        content["categories"].append({"id": 0, "name": "background"})
        path.write_text(json.dumps(content))
    problems = Problems()
    suite = find(data, problems, ["UODD"])
    assert suite is not None
    assert problems.found == []
    (split,) = suite.parts[0].splits
    assert len(split.category_ids) == 3
    assert 0 not in split.category_ids
