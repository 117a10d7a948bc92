from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from refseg.coco.files import CocoDataset, CocoImage
from refseg.coco.json_files import write_json
from refseg.errors import CocoError
from refseg.published.scoring import ground_truth_file, score
from refseg.published.suite import Federated, Part, Split

HW = (120, 160)
CLASSES = {0: "zero", 3: "cow", 7: "cat", 11: "never"}
SPLIT = Split("all", tuple(CLASSES))


def part_of(*annotations: dict[str, Any], federated: Any = None, images: Any = (1, 2, 3)) -> Part:
    listed = {image_id: CocoImage(image_id, f"{image_id}.jpg", HW) for image_id in images}
    targets = CocoDataset("truth.json", listed, CLASSES, annotations)
    return Part("", targets, (SPLIT,), {}, federated=federated)


def thing(x0: int, y0: int, x1: int, y1: int, *, image: Any = 1, of: int = 3, **rest: Any) -> dict[str, Any]:
    """An object, or, with a score, a detection."""
    mask = np.zeros(HW, np.uint8)
    mask[y0:y1, x0:x1] = 1
    mask[y0 : y0 + (y1 - y0) // 3, x0 : x0 + (x1 - x0) // 3] = 0
    code = mask_utils.encode(np.asfortranarray(mask))
    shape = {"size": list(HW), "counts": code["counts"].decode()}
    return {"image_id": image, "category_id": of, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": shape, **rest}


def box_of(*args: int, **rest: Any) -> dict[str, Any]:
    bare = thing(*args, **rest)
    del bare["segmentation"]
    return bare


def random_things(rng: np.random.Generator, images: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Objects of three classes, some of them crowds, and detections near and far, some with equal scores."""
    objects: list[dict[str, Any]] = []
    found = []
    for image in images:
        for _ in range(rng.integers(1, 7)):
            x, y, w, h = (int(value) for value in rng.integers([0, 0, 6, 6], [90, 60, 70, 60]))
            of = int(rng.choice([0, 3, 7]))
            objects.append(thing(x, y, x + w, y + h, image=image, of=of, id=len(objects), iscrowd=int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 4)):
                dx, dy = (int(value) for value in rng.integers(-4, 5, 2))
                near = (max(0, x + dx), max(0, y + dy), min(160, x + w), min(120, y + h + dy))
                found.append(thing(*near, image=image, of=of, score=round(float(rng.random()), 2)))
        for _ in range(4):
            x, y, w, h = (int(value) for value in rng.integers([0, 0, 6, 6], [90, 60, 70, 60]))
            found.append(
                thing(x, y, x + w, y + h, image=image, of=int(rng.choice([*CLASSES])), score=round(float(rng.random()), 2))
            )
    return objects, found


def plain_pycocotools(truth: Path, results: Path, iou_type: str) -> list[float | None]:
    """AP, AP50, AP75, small, medium and large, from the two files alone."""
    index = COCO(str(truth))
    entries = json.loads(results.read_text())
    if iou_type == "segm":
        # As detectron2 does: with boxes, pycocotools would take these for the sizes of masks.
        for entry in entries:
            del entry["bbox"]
        evaluator = COCOeval(index, index.loadRes(entries), iou_type)
    else:
        evaluator = COCOeval(index, index.loadRes(str(results)), iou_type)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return [None if value == -1 else float(value) for value in evaluator.stats[:6]]


def voc_loop(objects: list[dict[str, Any]], found: list[dict[str, Any]], of: int) -> float:
    """VOC 2007's average precision of one class, from its development kit's description."""
    taken: set[int] = set()
    hits: list[bool] = []
    for entry in sorted((entry for entry in found if entry["category_id"] == of), key=lambda entry: -entry["score"]):
        near = [
            (mask_utils.iou([entry["bbox"]], [o["bbox"]], [0])[0, 0], o) for o in objects if o["image_id"] == entry["image_id"]
        ]
        iou, nearest = max(near, key=lambda pair: pair[0], default=(0, None))
        if iou > 0.5 and nearest is not None and nearest["difficult"]:
            continue
        hits.append(bool(iou > 0.5 and nearest is not None and nearest["id"] not in taken))
        taken |= {nearest["id"]} if hits[-1] and nearest is not None else set()
    right = np.cumsum(hits)
    recall, precision = right / sum(not o["difficult"] for o in objects), right / np.arange(1, len(hits) + 1)
    return float(np.mean([max(precision[recall >= step / 10], default=0) for step in range(11)]))


class TestCoco:
    @pytest.mark.parametrize("images", [tuple(range(1, 13)), tuple(f"{n:02}" for n in range(12))], ids=["numbers", "texts"])
    def test_the_figures_are_those_of_plain_pycocotools(self, rng: np.random.Generator, tmp_path: Path, images: Any) -> None:
        objects, found = random_things(rng, images)
        part = part_of(*objects, images=images)
        scores = score(part, SPLIT, found, "coco", 100)
        write_json(tmp_path / "truth.json", ground_truth_file(part, SPLIT))
        write_json(tmp_path / "results.json", found)
        for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
            expected = plain_pycocotools(tmp_path / "truth.json", tmp_path / "results.json", iou_type)
            names = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")
            assert [scores.figures[f"{kind} {name}"] for name in names] == pytest.approx(expected)
            assert 0.1 < (scores.figures[f"{kind} AP"] or 0) < 0.9

    def test_by_hand_with_a_class_each_that_is_found_missed_and_absent(self) -> None:
        part = part_of(thing(0, 0, 40, 40, of=0), thing(0, 0, 40, 40, of=3), thing(0, 0, 9, 9, of=7, iscrowd=1))
        scores = score(part, SPLIT, [thing(0, 0, 40, 40, of=0, score=0.5), thing(0, 0, 9, 9, of=11, score=0.9)], "coco", 100)
        assert scores.figures["mask AP"] == scores.figures["box AP50"] == pytest.approx(0.5)
        assert scores.figures["box AP small"] is None
        assert {name: values["mask AP"] for name, values in scores.per_class.items()} == {
            "zero": pytest.approx(1),
            "cow": 0,
            "cat": None,  # a crowd alone
            "never": None,
        }

    def test_nothing_found_and_nothing_to_find(self) -> None:
        assert score(part_of(thing(0, 0, 40, 40)), SPLIT, [], "coco", 100).figures["mask AP"] == 0
        nothing = score(part_of(), SPLIT, [thing(0, 0, 40, 40, score=0.5)], "coco", 100)
        assert set(nothing.figures.values()) == {None}
        assert set(nothing.per_class) == set(CLASSES.values())

    def test_masks_count_where_every_object_has_one(self) -> None:
        found = [thing(0, 0, 40, 40, score=0.5)]
        figures = score(part_of(thing(0, 0, 40, 40), box_of(50, 50, 60, 60)), SPLIT, found, "coco", 100).figures
        assert "mask AP" not in figures
        assert figures["box AP50"] == pytest.approx(51 / 101)
        # An object of a class outside the split does not need one.
        part = part_of(thing(0, 0, 40, 40), box_of(50, 50, 60, 60, of=7))
        assert score(part, Split("cow", (3,)), found, "coco", 100).figures["mask AP50"] == pytest.approx(1)

    def test_a_limit_holds_for_an_image_and_class(self) -> None:
        part = part_of(thing(0, 0, 40, 40), thing(0, 0, 40, 40, of=7))
        wrong = [thing(80, 80, 99, 99, score=0.9), thing(80, 80, 99, 99, of=7, score=0.9)]
        found = [*wrong, thing(0, 0, 40, 40, score=0.5), thing(0, 0, 40, 40, of=7, score=0.5)]
        assert score(part, SPLIT, found, "coco", 1).figures["box AP"] == 0
        assert score(part, SPLIT, found, "coco", 2).figures["box AP"] == pytest.approx(0.5)

    def test_groups_get_a_figure(self) -> None:
        part = part_of(thing(0, 0, 40, 40), thing(0, 0, 40, 40, of=7))
        split = Split("s", (3, 7), {"a": (3,), "b": (3, 7), "c": (11,)})
        figures = score(part, split, [thing(0, 0, 40, 40, score=0.5)], "coco", 100).figures
        assert [figures[f"{kind} AP{key}"] for kind in ("box", "mask") for key in "abc"] == [
            pytest.approx(1),
            pytest.approx(0.5),
            None,
        ] * 2


class TestVoc:
    def test_by_hand(self) -> None:
        # Four objects; right, wrong, right: precision 1 up to recall 1/4, then 2/3 up to 1/2.
        part = part_of(*(box_of(x, 0, x + 30, 30, image=image) for image in (1, 2) for x in (0, 50)))
        found = [
            thing(0, 0, 30, 30, score=0.9),
            thing(90, 90, 99, 99, score=0.8),
            thing(50, 0, 80, 24, score=0.7),
        ]
        figures = score(part, SPLIT, found, "voc", 100).figures
        assert figures["box AP50"] == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # recall 0, 0.1, 0.2 and 0.3, 0.4, 0.5
        assert figures["box AP50 (COCO)"] == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
        assert figures["box AP"] is not None
        assert set(figures) == {"box AP50", "box AP50 (COCO)", "box AP"}

    def test_a_difficult_object_is_neither_missed_nor_wrong_nor_a_crowd(self) -> None:
        easy, difficult = box_of(0, 0, 30, 30), box_of(60, 60, 100, 100, difficult=1)
        right = thing(0, 0, 30, 30, score=0.5)

        def ap50(*found: dict[str, Any]) -> float | None:
            return score(part_of(easy, difficult), SPLIT, found, "voc", 100).figures["box AP50"]

        assert ap50(right) == pytest.approx(1)
        assert ap50(right, thing(60, 60, 100, 100, score=0.9), thing(60, 60, 100, 98, score=0.8)) == pytest.approx(1)
        # Inside it, at an IoU of a quarter: in a crowd that would not count, here it is wrong.
        assert ap50(right, thing(60, 60, 80, 80, score=0.9)) == pytest.approx(0.5)
        assert score(part_of(difficult), SPLIT, [right], "voc", 100).figures["box AP50"] is None
        # To COCO's rules the word means nothing.
        assert score(part_of(easy, difficult), SPLIT, [right], "coco", 100).figures["box AP50"] == pytest.approx(51 / 101)

    def test_a_crowd_stays_a_crowd(self) -> None:
        part = part_of(box_of(0, 0, 30, 30), box_of(60, 60, 100, 100, iscrowd=1, difficult=1))
        found = [thing(0, 0, 30, 30, score=0.5), thing(60, 60, 80, 80, score=0.9)]
        assert score(part, SPLIT, found, "voc", 100).figures["box AP50"] == pytest.approx(1)

    def test_the_figure_is_that_of_a_plain_loop(self, rng: np.random.Generator) -> None:
        objects, found = random_things(rng, range(1, 25))
        for entry in objects:
            entry |= {"iscrowd": 0, "difficult": int(rng.random() < 0.2)}
        for entry in found:
            entry["bbox"] = (np.array(entry["bbox"], float) + rng.random(4) / 10).tolist()
        part = part_of(*objects, images=range(1, 25))
        expected = [voc_loop([o for o in objects if o["category_id"] == of], found, of) for of in (0, 3, 7)]
        scores = score(part, SPLIT, found, "voc", 1000)
        assert [scores.per_class[CLASSES[of]]["box AP50"] for of in (0, 3, 7)] == pytest.approx(expected)
        assert scores.figures["box AP50"] == pytest.approx(np.mean(expected))
        # A detection may fall on a second object by COCO's rules alone.
        assert abs((scores.figures["box AP50"] or 0) - (scores.figures["box AP50 (COCO)"] or 0)) > 0.001

    def test_a_detection_of_a_taken_object_is_wrong(self) -> None:
        part = part_of(box_of(0, 0, 30, 30), box_of(10, 0, 40, 30))
        found = [thing(0, 0, 30, 30, score=0.9), thing(4, 0, 34, 30, score=0.8)]  # IoU with the second 24 / 36
        figures = score(part, SPLIT, found, "voc", 100).figures
        assert figures["box AP50"] == pytest.approx(6 / 11)
        assert figures["box AP50 (COCO)"] == pytest.approx(1)


class TestLvis:
    RIGHT = thing(0, 0, 40, 40, score=0.5)
    WRONG = thing(80, 80, 110, 110, score=0.9)

    def ap(self, *found: dict[str, Any], federated: Any, limit: int = 300) -> float | None:
        return score(part_of(thing(0, 0, 40, 40), federated=federated), SPLIT, found, "lvis", limit).figures["mask AP"]

    def test_detections_count_where_the_class_was_looked_for(self) -> None:
        elsewhere = {**self.WRONG, "image_id": 2}
        absent = {2: Federated(frozenset({3}), frozenset())}
        other = {2: Federated(frozenset({7}), frozenset())}
        assert self.ap(self.RIGHT, self.WRONG, federated=None) == pytest.approx(0.5)  # where it is present
        assert self.ap(self.RIGHT, elsewhere, federated=absent) == pytest.approx(0.5)
        assert self.ap(self.RIGHT, elsewhere, federated=other) == pytest.approx(1)

    def test_unmatched_ones_do_not_count_where_objects_may_be_unmarked(self) -> None:
        def incomplete(of: int, image: int = 1) -> dict[int, Federated]:
            return {image: Federated(frozenset(), frozenset({of}))}

        assert self.ap(self.RIGHT, self.WRONG, federated=incomplete(3)) == pytest.approx(1)
        assert self.ap(self.RIGHT, self.WRONG, federated=incomplete(7)) == pytest.approx(0.5)
        assert self.ap(self.RIGHT, self.WRONG, federated=incomplete(3, image=2)) == pytest.approx(0.5)
        assert self.ap(self.WRONG, federated=incomplete(3)) == 0  # the object there is still missed

    def test_the_limit_holds_over_all_classes(self) -> None:
        others = [thing(80, 80, 99, 99, of=of, score=0.9) for of in (0, 7, 11)]
        assert self.ap(*others, self.RIGHT, federated=None, limit=4) == pytest.approx(1)
        assert self.ap(*others, self.RIGHT, federated=None, limit=3) == 0

    def test_area_is_the_annotations(self) -> None:
        part = part_of(thing(0, 0, 40, 40, area=5.0))
        figures = score(part, SPLIT, [self.RIGHT], "lvis", 300).figures
        assert figures["mask AP small"] == pytest.approx(1)
        assert figures["mask AP medium"] is None


def test_a_ground_truth_file_is_complete_and_changes_nothing() -> None:
    polygon = [[0, 0, 20, 0, 20, 10, 0, 10]]
    objects = (
        {"id": "a", "image_id": 1, "category_id": 3, "segmentation": polygon},
        box_of(1, 2, 11, 22, of=7, id=5, difficult=1, extra="x"),
        box_of(1, 2, 11, 22, of=0, id=6, iscrowd=True, area=7.5),
        box_of(1, 2, 11, 22, of=11, id=7),
    )
    federated = {2: Federated(frozenset({7, 3}), frozenset({0}))}
    split = Split("s", (3, 7, 0), {"r": (3,), "f": (0, 7)})
    part = part_of(*objects, federated=federated)
    before = json.dumps(part.targets.annotations)
    content = ground_truth_file(part, split)
    assert json.dumps(part.targets.annotations) == before
    assert content["annotations"] == [
        {"image_id": 1, "category_id": 3, "segmentation": polygon, "bbox": [0, 0, 20, 10], "area": 200, "iscrowd": 0, "id": 1},
        {"image_id": 1, "category_id": 7, "difficult": 1, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0, "id": 2},
        {"image_id": 1, "category_id": 0, "bbox": [1, 2, 10, 20], "area": 7.5, "iscrowd": 1, "id": 3},
    ]
    assert content["categories"] == [
        {"id": 3, "name": "cow", "frequency": "r"},
        {"id": 7, "name": "cat", "frequency": "f"},
        {"id": 0, "name": "zero", "frequency": "f"},
    ]
    shown = {"height": 120, "width": 160}
    assert content["images"][:2] == [
        {"id": 1, "file_name": "1.jpg", **shown, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        {"id": 2, "file_name": "2.jpg", **shown, "neg_category_ids": [3, 7], "not_exhaustive_category_ids": [0]},
    ]
    plain = ground_truth_file(part_of(*objects[1:]), split)
    assert [annotation["id"] for annotation in plain["annotations"]] == [5, 6]
    assert set(plain["images"][0]) == {"id", "file_name", "height", "width"}
    assert "frequency" not in plain["categories"][0]


@pytest.mark.parametrize("bad", [{"id": 0}, {"id": 6}, {"id": True}, {}])
def test_ids_that_pycocotools_cannot_use_are_replaced(bad: dict[str, Any]) -> None:
    part = part_of(box_of(0, 0, 9, 9, id=6), {**box_of(0, 0, 9, 9), **bad})
    assert [annotation["id"] for annotation in ground_truth_file(part, SPLIT)["annotations"]] == [1, 2]


def test_what_cannot_be_scored_is_said() -> None:
    empty = part_of({"id": 4, "image_id": 1, "category_id": 3})
    for call in (lambda: score(empty, SPLIT, [], "coco", 100), lambda: ground_truth_file(empty, SPLIT)):
        with pytest.raises(CocoError, match=r"truth\.json: the annotation 4 has neither"):
            call()
    with pytest.raises(CocoError, match=r"does not list the category ids \[4, 99\] of the split 's'"):
        score(part_of(), Split("s", (99, 3, 4)), [], "coco", 100)
    with pytest.raises(CocoError, match="belongs to the image 9"):
        score(part_of(), SPLIT, [thing(0, 0, 9, 9, image=9, score=1.0)], "coco", 100)
    sizeless = CocoDataset("truth.json", {1: CocoImage(1, "1.jpg")}, CLASSES, (box_of(0, 0, 9, 9),))
    with pytest.raises(CocoError, match=r"no height and width for the image 1\.jpg"):
        score(Part("", sizeless, (SPLIT,), {}), SPLIT, [], "voc", 100)
    with pytest.raises(CocoError, match="mean IoU is gathered episode by episode"):
        score(part_of(), SPLIT, [], "miou", 100)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"size": [160, 120]}, r"made for the size \[160, 120\]"),
        ({"size": None}, "code of the size None"),
        ({"counts": "1"}, "damaged run-length code"),
        ({"counts": "ü"}, "damaged run-length code"),
        ({"counts": [19200, 1]}, "damaged run-length code"),
    ],
)
def test_one_bad_mask_among_many_is_found(shape: dict[str, Any], words: str) -> None:
    part = part_of(thing(0, 0, 40, 40))
    found = [thing(0, 0, 40, 40, score=0.5, id=number) for number in range(5)]
    found[3]["segmentation"] = found[3]["segmentation"] | shape
    with pytest.raises(CocoError, match=f"annotation 3 .*{words}"):
        score(part, SPLIT, found, "coco", 100)


def test_masks_may_be_written_in_every_way_coco_knows() -> None:
    polygon = [[0, 0, 40, 0, 40, 40, 0, 40]]
    square = np.zeros(HW, np.uint8)
    square[:40, :40] = 1
    code = mask_utils.encode(np.asfortranarray(square))
    runs = np.diff(np.flatnonzero(np.diff(square.T.ravel(), prepend=0, append=0)), prepend=0, append=square.size)
    ways = (
        polygon,
        code,
        {"size": list(HW), "counts": code["counts"].decode()},
        {"size": list(HW), "counts": runs.tolist()},
    )
    for truth in ways:
        for shape in ways:
            found = [{**box_of(0, 0, 40, 40), "segmentation": shape, "score": 1.0}]
            figures = score(part_of({**box_of(0, 0, 40, 40), "segmentation": truth}), SPLIT, found, "coco", 100).figures
            assert figures["mask AP"] == pytest.approx(1)
