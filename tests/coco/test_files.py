from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from refseg.coco.average_precision import AveragePrecision, evaluate_results, format_table, has_masks
from refseg.coco.files import CocoDataset, CocoImage, read_coco, to_listing, to_results, with_file_sizes
from refseg.coco.json_files import write_json
from refseg.coco.references import read_references, references_in
from refseg.errors import CocoError, NoReferencesError
from refseg.masks.rle import annotation_rle, decode_mask, encode_mask
from refseg.matching.instances import Instances

WIDTH, HEIGHT = 20, 12
SQUARE = [[4, 2, 10, 2, 10, 8, 4, 8]]  # x 4-9, y 2-7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Writes a COCO file: one image, two categories, these annotations; keywords replace its parts."""

    def write_file(*annotations: dict[str, Any], **parts: Any) -> Path:
        content: dict[str, Any] = {
            "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
            "categories": [{"id": 3, "name": "star"}, {"id": 5, "name": "tee"}],
            "annotations": [{"id": 11 + i, "image_id": 7, "category_id": 3, **a} for i, a in enumerate(annotations)],
        }
        content.update(parts)
        path = folder / "refs.json"
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return path

    return write_file


def square_mask() -> np.ndarray:
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[2:8, 4:10] = True
    return whole


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, column by column, background first: the plain loop."""
    runs, last = [0], False
    for value in mask.T.flatten().tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    return runs


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
    assert "1 crowd annotations are left out" in caplog.text


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
    ("text", "words"),
    [
        ("{", "is not JSON: .* line 1, column 2"),
        ("[]", "holds a JSON list, not an annotation file: is it a file of results"),
        ("{}", "has no list 'images'"),
        ('{"images": {}}', "has a malformed list 'images'"),
        ('{"images": [{"file_name": "a.png"}]}', "image at position 0 of 'images' lacks an 'id'"),
        ('{"images": []}', "has no list 'categories'"),
        ('{"images": [], "categories": [{"id": 1}]}', "category at position 0 of 'categories' lacks"),
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


def test_run_lengths_agree_with_pycocotools_and_come_back(rng: np.random.Generator) -> None:
    for share in (0.0, 0.1, 0.5, 1.0):
        mask = rng.random((31, 47)) < share
        code = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(decode_mask(code), mask)
        text = {"segmentation": {"size": [31, 47], "counts": code["counts"].decode()}}
        plain = {"segmentation": {"size": [31, 47], "counts": runs_of(mask)}}
        for annotation in (text, plain):
            checked = annotation_rle(annotation, (31, 47), "refs.json")
            assert checked is not None
            assert checked["counts"] == code["counts"]


def test_encode_mask_places_cuts_and_stretches() -> None:
    mask = np.array([[True, False], [True, True]])
    whole = decode_mask(encode_mask(mask, (2.4, 0.6, 4.4, 2.6), (4, 5)))
    assert np.argwhere(whole).tolist() == [[1, 2], [2, 2], [2, 3]]
    # One pixel of difference is rounding: pixels stay as they are. Beyond the border they are cut.
    whole = decode_mask(encode_mask(mask, (4, 3, 7, 6), (4, 5)))
    assert np.argwhere(whole).tolist() == [[3, 4]]
    whole = decode_mask(encode_mask(mask, (0, 0, 4, 4), (4, 5)))
    assert whole.sum() == 12
    assert not whole[:2, 2:].any()
    assert decode_mask(encode_mask(np.zeros((0, 0), bool), (1, 1, 2, 2), (4, 5))).sum() == 0


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


def truth_of(*annotations: dict[str, Any]) -> CocoDataset:
    images: dict[Any, CocoImage] = {"x": CocoImage("x", "x.png", (200, 200)), "y": CocoImage("y", "y.png", (200, 200))}
    entries = tuple({"image_id": "x", "category_id": 3, **annotation} for annotation in annotations)
    return CocoDataset("truth.json", images, {3: "star", 5: "tee"}, entries)


def rectangle(x0: int, y0: int, x1: int, y1: int, **rest: Any) -> dict[str, Any]:
    return {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]], **rest}


def result(x0: int, y0: int, x1: int, y1: int, **rest: Any) -> dict[str, Any]:
    return {"image_id": "x", "category_id": 3, "score": 0.5, **rectangle(x0, y0, x1, y1), **rest}


def test_average_precision_by_hand() -> None:
    # A small object, found exactly, and a large one, found with IoU 0.8 after a false positive of higher score.
    truth = truth_of(rectangle(0, 0, 20, 20, id=0), rectangle(50, 50, 150, 150, id=1))
    found = [
        result(0, 0, 20, 20, score=0.9),
        result(0, 150, 40, 190, score=0.8),
        result(50, 50, 150, 130, score=0.7),
    ]
    for iou_type in ("segm", "bbox"):
        scores = evaluate_results(truth, found, iou_type)  # type: ignore[arg-type]
        # Recall up to 0.5 (51 of 101 points) at precision 1, then 50 points at 2/3 for the 7 IoUs up to 0.8, else 0.
        hit, miss = (51 + 50 * 2 / 3) / 101, 51 / 101
        assert scores.ap50 == scores.ap75 == pytest.approx(hit)
        assert scores.ap == pytest.approx((7 * hit + 3 * miss) / 10)
        # By size: the false positive of 1600 pixels is medium, where there is no object at all.
        assert scores.small == pytest.approx(1)
        assert scores.medium is None
        assert scores.large == pytest.approx(0.7)
        assert scores.per_class == {"star": scores.ap, "tee": None}


def test_the_order_of_results_does_not_matter_and_none_is_zero() -> None:
    truth = truth_of(rectangle(0, 0, 20, 20), rectangle(50, 50, 90, 90, category_id=5))
    found = [result(0, 0, 20, 19, score=0.4), result(50, 50, 90, 85, score=0.6, category_id=5)]
    assert evaluate_results(truth, found, "segm") == evaluate_results(truth, found[::-1], "segm")
    assert evaluate_results(truth, [], "segm").ap == 0
    assert evaluate_results(truth_of(), found, "segm").ap is None


def test_classes_can_be_left_out() -> None:
    truth = truth_of(rectangle(0, 0, 20, 20), {"bbox": [50, 50, 9, 9], "category_id": 5})
    found = [result(0, 0, 20, 20), result(50, 50, 90, 85, category_id=5)]
    scores = evaluate_results(truth, found, "segm", categories=[3])
    assert scores.ap == pytest.approx(1)
    assert scores.per_class == {"star": scores.ap}


def test_predictions_in_a_crowd_do_not_count() -> None:
    crowd = rectangle(100, 100, 200, 200, iscrowd=1)
    found = [result(110, 110, 140, 140, score=0.9), result(0, 0, 20, 20)]
    assert evaluate_results(truth_of(rectangle(0, 0, 20, 20), crowd), found, "segm").ap == pytest.approx(1)
    assert evaluate_results(truth_of(rectangle(0, 0, 20, 20)), found, "segm").ap == pytest.approx(0.5)


def test_the_size_of_a_detected_mask_is_its_own() -> None:
    # A thin diagonal detection: 200 pixels of mask in a box of 40,000. As false positive it belongs to the small ones.
    diagonal = mask_utils.encode(np.asfortranarray(np.eye(200, dtype=np.uint8)))
    truth = truth_of(rectangle(0, 0, 100, 100))
    found = [result(0, 0, 100, 100, score=0.5), {**result(0, 0, 200, 200, score=0.9), "segmentation": diagonal}]
    scores = evaluate_results(truth, found, "segm")
    assert scores.large == pytest.approx(1)
    assert scores.ap == pytest.approx(0.5)


def test_what_cannot_be_compared_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    truth = truth_of(rectangle(0, 0, 20, 20), {"bbox": [50, 50, 9, 9], "id": 8})
    assert not has_masks(truth.annotations)
    with pytest.raises(CocoError, match="the annotation 8 has no mask"):
        evaluate_results(truth, [], "segm")
    assert evaluate_results(truth, [result(0, 0, 20, 20)], "bbox").ap50 == pytest.approx(51 / 101)
    with pytest.raises(CocoError, match=r"belongs to the image 'z', which truth\.json does not list"):
        evaluate_results(truth, [result(0, 0, 20, 20, image_id="z")], "bbox")
    sizeless = CocoDataset("truth.json", {"x": CocoImage("x", "x.png")}, {3: "star"}, truth.annotations)
    with pytest.raises(CocoError, match=r"lists no height and width for the image x\.png"):
        evaluate_results(sizeless, [], "bbox")
    assert capsys.readouterr().out == ""


def test_evaluating_changes_no_argument() -> None:
    truth, found = truth_of(rectangle(0, 0, 20, 20)), [result(0, 0, 20, 20)]
    before = json.dumps([truth.annotations, found])
    evaluate_results(truth, found, "segm")
    assert json.dumps([truth.annotations, found]) == before


def test_the_table_has_a_row_for_masks_where_there_are_any() -> None:
    scores = AveragePrecision(0.5, 0.75, 0.6, None, 0.4, 0.5, {"star": 0.5, "a long class name": None})
    text = format_table(scores, scores)
    assert [line.split()[0] for line in text.splitlines() if line.strip()] == ["AP", "mask", "box", "mask", "star", "a"]
    assert text.splitlines()[-1].split()[-2:] == ["–", "–"]
