from __future__ import annotations

from pathlib import Path

import pytest

from refseg.published.classes import VOC_CLASSES, VOC_NOVEL
from refseg.published.layouts.common import LeftOut, missing_files
from refseg.published.layouts.voc import find
from refseg.published.suite import ANY_SHOTS, DrawRule, Problems, Suite

from . import trees


@pytest.fixture
def data(tmp_path: Path) -> Path:
    trees.write_voc(tmp_path)
    return tmp_path


def found(suite: Suite | None) -> Suite:
    assert suite is not None
    return suite


def test_voc_is_read_with_boxes_to_the_pixel(data: Path) -> None:
    problems, left_out = Problems(), LeftOut()
    suite = found(find(data, problems, left_out=left_out))
    assert (problems.found, left_out) == ([], {})
    assert (suite.name, suite.metric, suite.figures, suite.shots) == ("voc-fsod", "voc", ("box AP50",), (1, 2, 3, 5, 10))
    assert suite.folder == data / "VOCdevkit"
    (part,) = suite.parts
    assert part.rule == DrawRule()
    assert part.targets.categories == dict(enumerate(VOC_CLASSES, 1))
    assert {split.key: {part.targets.categories[i] for i in split.category_ids} for split in part.splits} == {
        key: set(names) for key, names in VOC_NOVEL.items()
    }
    parts = [p for picture in trees.targets() for p in picture.parts]
    assert [tuple(entry["bbox"]) for entry in part.targets.annotations] == [p.box for p in parts]
    names = [part.targets.categories[entry["category_id"]] for entry in part.targets.annotations]
    assert names == [trees.VOC_NAMES[p.family] for p in parts]
    assert all("segmentation" not in entry for entry in part.targets.annotations)
    assert part.targets.images["2007_001001"].image_hw == trees.IMAGE_HW
    assert len(part.targets.images) == 10
    pool = part.pools[ANY_SHOTS]
    assert {entry["category_id"] for entry in pool.annotations} == set(range(1, 21))
    assert [pool.images[key].file_name for key in ("2007_000005", "2012_2008_000011")] == [
        "VOC2007/JPEGImages/000005.jpg",
        "VOC2012/JPEGImages/2008_000011.jpg",
    ]
    assert missing_files(suite.folder, [image.file_name for image in pool.images.values()]) == []
    assert len({entry["id"] for entry in pool.annotations}) == len(pool.annotations) == 66


def test_difficult_objects_are_marked_and_never_references(data: Path) -> None:
    targets = found(find(data, Problems())).parts[0].targets
    marked = [entry["image_id"] for entry in targets.annotations if entry["difficult"] == 1]
    assert marked == ["2007_001001", "2007_001010", "2007_001019"]
    path = data / "VOCdevkit/VOC2007/Annotations/000005.xml"
    path.write_text(path.read_text().replace("<difficult>0<", "<difficult>1<"))
    pool = found(find(data, Problems())).parts[0].pools[ANY_SHOTS]
    assert len(pool.annotations) == 63
    assert "2007_000005" not in {entry["image_id"] for entry in pool.annotations}


def test_the_folder_itself_will_do_and_splits_can_be_chosen(data: Path) -> None:
    problems = Problems()
    suite = found(find(data / "VOCdevkit", problems, ["split3"]))
    assert suite.folder == data / "VOCdevkit"
    assert [split.key for split in suite.parts[0].splits] == ["split3"]
    assert find(data, problems, ["split4"]) is None
    assert problems.found == ["There is no split 'split4': choose of split1, split2, split3."]


def test_missing_lists_images_and_annotations_are_named(data: Path) -> None:
    year = data / "VOCdevkit/VOC2007"
    (data / "VOCdevkit/VOC2012/ImageSets/Main/trainval.txt").unlink()
    problems = Problems()
    assert find(data, problems) is None
    assert "VOC2012/ImageSets/Main/trainval.txt" in problems.found[0]
    assert "unpack VOCtrainval_11-May-2012.tar" in problems.found[0]
    trees.write_voc(data)
    (year / "JPEGImages/001004.jpg").unlink()
    (year / "Annotations/001007.xml").unlink()
    problems = Problems()
    assert find(data, problems) is not None
    assert f"1 annotation files cannot be read: {year / 'Annotations/001007.xml'} is missing" in problems.found[0]
    assert "VOC2007/JPEGImages/001004.jpg: unpack VOCtest_06-Nov-2007.tar there." in problems.found[1]


def test_a_truncated_file_is_named(data: Path) -> None:
    path = data / "VOCdevkit/VOC2007/Annotations/001001.xml"
    path.write_text(path.read_text()[:200])
    problems = Problems()
    suite = found(find(data, problems))
    assert "2007_001001" not in suite.parts[0].targets.images
    (problem,) = problems.found
    assert f"1 annotation files cannot be read: {path} (" in problem


def test_single_objects_are_left_out_and_unlisted_sizes_read(data: Path) -> None:
    path = data / "VOCdevkit/VOC2007/Annotations/001001.xml"
    name = trees.VOC_NAMES[trees.targets()[0].parts[0].family]
    other = trees.VOC_NAMES[trees.targets()[0].parts[1].family]
    text = path.read_text().replace(f"<name>{name}<", "<name>unicorn<").replace("<width>320</width>", "")
    cut = text.index(f"<name>{other}<")
    path.write_text(text[:cut] + text[cut:].replace("<xmin>", "<xmin>9", 1))
    problems, left_out = Problems(), LeftOut()
    targets = found(find(data, problems, left_out=left_out)).parts[0].targets
    assert problems.found == []
    assert targets.images["2007_001001"].image_hw == trees.IMAGE_HW
    assert "2007_001001" not in {entry["image_id"] for entry in targets.annotations}
    ((first, second),) = left_out.values()
    assert str(first) == f"{path}: object 1 is of the class 'unicorn', which VOC does not have."
    assert f"{path}: object 2 ({other}) has no usable box, but [9" in str(second)
