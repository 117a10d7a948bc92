from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from refseg.coco.annotations import MASK_LEFT_OUT
from refseg.coco.average_precision import evaluate_results, has_masks
from refseg.coco.files import read_coco

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
