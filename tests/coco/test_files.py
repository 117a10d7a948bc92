from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from refseg.coco.files import CocoImage, read_coco, to_listing, to_results
from refseg.coco.json_files import write_json
from refseg.coco.references import references_in
from refseg.errors import CocoError
from refseg.matching.instances import Instances

WIDTH, HEIGHT = 20, 12
SQUARE = [[4, 2, 10, 2, 10, 8, 4, 8]]  # x 4-9, y 2-7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON: .* line 1, column 2"),
        ("[]", "holds a JSON list, not an annotation file: is it a file of results"),
        ("{}", "has no list 'images'"),
        ('{"images": {}}', "has a malformed list 'images'"),
        ('{"images": [{"file_name": "a.png"}]}', "image at position 0 of 'images' lacks an 'id'"),
        ('{"images": []}', "has no list 'categories'"),
        ('{"images": [], "categories": [{"id": 1}]}', "category at position 0 of 'categories' lacks"),
        ('{"images": [], "categories": [{"id": 1, "name": " "}]}', "category at position 0 of 'categories' lacks"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "two categories with .* 'a'"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "categories": []}',
            "two images with the id 1",
        ),
    ],
)
def test_a_malformed_file_is_said_in_words(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "refs.json"
    path.write_text(text)
    with pytest.raises(CocoError, match=words) as caught:
        read_coco(path)
    assert str(path) in str(caught.value)


def test_of_categories_of_one_name_the_only_one_in_use_is_taken(write: Callable[..., Path]) -> None:
    parent = {"id": 0, "name": "star", "supercategory": "none"}
    star, tee = {"id": 3, "name": "star", "supercategory": "star"}, {"id": "5", "name": "tee", "supercategory": "star"}
    # By its objects, whose ids may be texts; without any by what it says of itself.
    for objects in ([{"bbox": [0, 0, 5, 5], "category_id": "3"}], []):
        coco = read_coco(write(*objects, categories=[parent, star, tee]))
        assert coco.categories == {3: "star", 5: "tee"}
        assert "the category 'star' is listed 2 times" in coco.notes[0]
    both = [{"bbox": [0, 0, 5, 5], "category_id": number} for number in (0, 3)]
    with pytest.raises(CocoError, match=r"two categories with the name 'star' \(0, 3\): join them"):
        read_coco(write(*both, categories=[parent, star, tee]))
    with pytest.raises(CocoError, match="two categories with the id 3"):
        read_coco(write(categories=[star, {**tee, "id": 3.0}]))


def test_ids_of_images_are_matched_whatever_type_they_have(write: Callable[..., Path], folder: Path) -> None:
    for listed, used in (("7", 7), (7, "7"), (7.0, 7), (7, 7.0), ("000007", 7)):
        images = [{"id": listed, "file_name": "a.png", "width": "20", "height": 12.0}]
        coco = read_coco(write({"bbox": [0, 0, 5, 5], "image_id": used}, images=images))
        (image,) = coco.images.values()
        assert (image.id, image.image_hw, coco.annotations[0]["image_id"]) == (listed, (12, 20), listed)
        assert len(references_in(coco, folder)) == 1
    with pytest.raises(CocoError, match="two images with the id 7"):
        read_coco(write(images=[{"id": 7, "file_name": "a.png"}, {"id": 7.0, "file_name": "b.png"}]))


def test_a_missing_or_binary_file_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match="There is no COCO file at"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(CocoError, match="cannot be read"):
        read_coco(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.png")
    with pytest.raises(CocoError, match="is not a JSON text in UTF-8"):
        read_coco(tmp_path / "picture.png")


def instances(*boxes: tuple[int, int, int, int], labels: list[int], scores: list[float]) -> Instances:
    masks = tuple(torch.ones(y1 - y0, x1 - x0, dtype=torch.bool) for x0, y0, x1, y1 in boxes)
    return Instances(
        masks,
        torch.tensor(boxes, dtype=torch.int64).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores, dtype=torch.float32),
        torch.arange(len(boxes)),
        margins=torch.tensor(scores, dtype=torch.float32),
        runners_up=torch.full((len(boxes),), -1),
    )


def test_results_load_in_pycocotools(write: Callable[..., Path], tmp_path: Path) -> None:
    found = instances((4, 2, 10, 8), (0, 0, 3, 2), labels=[1, 0], scores=[0.75, 0.5])
    results = to_results(found, [3, 5], 7, (HEIGHT, WIDTH))
    write_json(tmp_path / "new" / "results.json", results)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]
    index = COCO(str(write({"bbox": [4, 2, 6, 6], "segmentation": SQUARE, "area": 36, "iscrowd": 0})))
    loaded = index.loadRes(str(tmp_path / "new" / "results.json"))
    first, second = loaded.loadAnns(loaded.getAnnIds())
    assert (first["category_id"], first["bbox"], first["score"]) == (5, [4, 2, 6, 6], 0.75)
    assert (second["category_id"], second["bbox"], second["area"]) == (3, [0, 0, 3, 2], 6)
    assert mask_utils.area(first["segmentation"]) == 36
    assert to_results(instances(labels=[], scores=[]), [3, 5], 7, (HEIGHT, WIDTH)) == []


def test_a_listing_is_a_coco_file(tmp_path: Path) -> None:
    write_json(tmp_path / "images.json", to_listing([CocoImage(1, "sub/ü.png", (4, 6))], {1: "star ★"}))
    coco = read_coco(tmp_path / "images.json")
    assert coco.images == {1: CocoImage(1, "sub/ü.png", (4, 6))}
    assert coco.categories == {1: "star ★"}
    assert coco.annotations == ()
