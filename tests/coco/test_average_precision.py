from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from refseg.coco.annotations import MASK_LEFT_OUT
from refseg.coco.average_precision import evaluate_results, has_masks
from refseg.coco.figures import AveragePrecision, format_table
from refseg.coco.files import CocoDataset, CocoImage, read_coco
from refseg.errors import CocoError

SIDE = 100
KINDS: tuple[Literal["segm", "bbox"], ...] = ("segm", "bbox")


def thing(x: float, y: float, side: float, **about: Any) -> dict[str, Any]:
    outline = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {"bbox": [x, y, side, side], "segmentation": [outline], "area": side * side, "iscrowd": 0, **about}


@pytest.fixture
def world(rng: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results in thirty images; results are near objects or anywhere, with three scores in all."""
    content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 2, "name": "star"}, {"id": 5, "name": "tee"}]
    results = []
    for image_id in rng.permutation(900)[:30].tolist():
        content["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": SIDE, "width": SIDE})
        for x, y in rng.integers(0, 60, (3, 2)).tolist():
            about = {"image_id": image_id, "category_id": int(rng.choice([2, 5]))}
            content["annotations"].append(thing(x, y, 30, id=len(content["annotations"]) + 1, **about))
            for shift in rng.integers(0, 12, 2).tolist():
                score = float(rng.choice([0.25, 0.5, 0.75]))
                results.append(
                    {key: value for key, value in thing(x + shift, y, 30, score=score, **about).items() if key != "area"}
                )
    return content, results


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path


def by_pycocotools(path: Path, results: list[dict[str, Any]], kind: str) -> list[float]:
    """AP, AP50 and AP75 as pycocotools finds them on its own."""
    truth = COCO(str(path))
    # Its loader takes the results of boxes where it finds boxes.
    wanted = [{key: value for key, value in result.items() if kind == "bbox" or key != "bbox"} for result in results]
    for result in wanted:
        if kind == "segm":
            result["segmentation"] = truth.annToRLE(result)
    judge = COCOeval(truth, truth.loadRes(wanted), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return [float(value) for value in judge.stats[:3]]


def figures(path: Path, results: list[dict[str, Any]], kind: Literal["segm", "bbox"]) -> list[float | None]:
    scores = evaluate_results(read_coco(path), results, kind)
    return [scores.ap, scores.ap50, scores.ap75]


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_file_does_not_matter_and_pycocotools_agrees(
    world: tuple[dict[str, Any], list[dict[str, Any]]],
    kind: Literal["segm", "bbox"],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, results = world
    first = figures(write(tmp_path, content), results, kind)
    assert first == pytest.approx(by_pycocotools(tmp_path / "truth.json", results, kind), abs=1e-12)
    order = random.Random(1)
    for _ in range(4):
        for key in ("images", "annotations", "categories"):
            order.shuffle(content[key])
        # Images in another order; those of one image keep theirs, which ranks them where scores are equal.
        place = {image["id"]: row for row, image in enumerate(content["images"])}
        moved = sorted(results, key=lambda result: place[result["image_id"]])
        assert figures(write(tmp_path, content), moved, kind) == pytest.approx(first, abs=1e-12)
        assert by_pycocotools(tmp_path / "truth.json", moved, kind) == pytest.approx(first, abs=1e-12)
    capsys.readouterr()


def test_ids_of_both_kinds_have_one_order(world: tuple[dict[str, Any], list[dict[str, Any]]], tmp_path: Path) -> None:
    content, results = world
    named = {image["id"]: f"image {image['id']}" if n % 2 else image["id"] for n, image in enumerate(content["images"])}
    for image in content["images"]:
        image["id"] = named[image["id"]]
    for entry in (*content["annotations"], *results):
        entry["image_id"] = named[entry["image_id"]]
    first = figures(write(tmp_path, content), results, "bbox")
    content["images"].reverse()
    content["annotations"].reverse()
    assert figures(write(tmp_path, content), results, "bbox") == pytest.approx(first, abs=1e-12)


def test_an_object_without_its_mask_counts_for_boxes_alone(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}
    objects = [thing(0, 0, 40, id=1, image_id=1, category_id=2), thing(50, 50, 40, id=2, image_id=1, category_id=2)]
    objects[1]["segmentation"] = [[50, 50, 90, 90]]
    categories = [{"id": 2, "name": "star"}]
    path = write(tmp_path, {"images": [image], "annotations": objects, "categories": categories})
    truth = read_coco(path, bad_masks="box")
    found = [thing(0, 0, 40, image_id=1, category_id=2, score=0.5)]
    assert has_masks(truth.annotations)
    assert evaluate_results(truth, found, "segm").ap == pytest.approx(1)
    assert evaluate_results(truth, found, "bbox").ap == pytest.approx(51 / 101)
    # What is found in its box counts neither way, however far the box reaches.
    there = [*found, thing(50, 50, 30, image_id=1, category_id=2, score=0.9)]
    for box in ([50, 50, 40, 40], [50, 50, 9e5, 9e5]):
        marked = replace(truth, annotations=(truth.annotations[0], {**truth.annotations[1], "bbox": box}))
        assert evaluate_results(marked, there, "segm").ap == pytest.approx(1)
    # Where none has its mask nothing can be said of masks.
    assert not has_masks([entry for entry in truth.annotations if entry.get(MASK_LEFT_OUT)])
    assert has_masks([])


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
