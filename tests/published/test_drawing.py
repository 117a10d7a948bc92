from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refseg.coco.files import CocoDataset, CocoImage
from refseg.errors import CocoError
from refseg.published.drawing import Drawer, references_of
from refseg.published.suite import Draw, DrawRule

HW = (200, 300)
CLASSES = {0: "zero", 3: "cow", 7: "cat"}


def entry(
    number: int, image_id: int | str, *, box: tuple[float, ...] = (20, 20, 50, 50), of: int = 3, **rest: Any
) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": of, "bbox": list(box), **rest}


def pool_of(*annotations: dict[str, Any], sizes: dict[Any, Any] | None = None) -> CocoDataset:
    ids = dict.fromkeys(annotation["image_id"] for annotation in annotations)
    images = {image_id: CocoImage(image_id, f"{image_id}.png", (sizes or {}).get(image_id, HW)) for image_id in ids}
    return CocoDataset("pool.json", images, CLASSES, annotations)


def ids_of(draw: Draw) -> list[Any]:
    return [annotation["id"] for annotation in draw.annotations]


@pytest.fixture
def herd() -> CocoDataset:
    """Three objects of each of three classes in each of twelve images."""
    return pool_of(*(entry(9 * image + number, image, of=(0, 3, 7)[number % 3]) for image in range(12) for number in range(9)))


class TestWithARule:
    def test_draws_are_nested(self, herd: CocoDataset) -> None:
        drawer = Drawer(herd, DrawRule())
        most = ids_of(drawer.draw([3], 10, 33))
        assert len({number // 9 for number in most}) == 10  # one object an image
        for shots in (1, 2, 3, 5):
            assert ids_of(drawer.draw([3], shots, 33)) == most[:shots]
        assert sorted(number // 9 for number in ids_of(drawer.draw([3], None, 33))) == list(range(12))

    def test_seeds_differ_and_repeat(self, herd: CocoDataset) -> None:
        draws = {seed: ids_of(Drawer(herd, DrawRule()).draw([0, 3, 7], 3, seed)) for seed in (33, 34)}
        assert draws[33] != draws[34]
        assert ids_of(Drawer(herd, DrawRule()).draw([0, 3, 7], 3, 33)) == draws[33]

    def test_other_classes_and_their_order_do_not_matter(self, herd: CocoDataset) -> None:
        drawer = Drawer(herd, DrawRule())
        alone = {key: ids_of(drawer.draw([key], 2, 33)) for key in CLASSES}
        assert ids_of(drawer.draw([7, 0, 3], 2, 33)) == alone[7] + alone[0] + alone[3]
        # The classes lie in the same images: were their draws tied together, these would be the same ones.
        assert len({tuple(number // 9 for number in drawn) for drawn in alone.values()}) > 1

    def test_the_order_of_the_file_does_not_matter(self, herd: CocoDataset) -> None:
        shuffled = list(herd.annotations)
        random.Random(0).shuffle(shuffled)
        other = replace(herd, annotations=tuple(shuffled))
        assert ids_of(Drawer(other, DrawRule()).draw([3, 7], 5, 1)) == ids_of(Drawer(herd, DrawRule()).draw([3, 7], 5, 1))

    def test_ids_may_be_numbers_and_texts_or_none(self) -> None:
        mixed = [entry(1, 10), entry(2, "b"), entry(3, 2), {**entry(4, "b"), "id": "x"}, entry(5, "b", box=(30, 30, 40, 40))]
        del mixed[-1]["id"]
        drawn = Drawer(pool_of(*mixed), DrawRule()).draw([3], 5, 1)
        turned = Drawer(pool_of(*mixed[::-1]), DrawRule()).draw([3], 5, 1)
        assert drawn == turned
        assert {annotation["image_id"] for annotation in drawn.annotations} == {10, "b", 2}

    @pytest.mark.parametrize(
        ("box", "fits"),
        [
            ((10, 10, 32, 32), True),
            ((258, 158, 32, 32), True),
            ((9, 50, 40, 40), False),
            ((50, 9, 40, 40), False),
            ((251, 50, 40, 40), False),
            ((50, 151, 40, 40), False),
            ((50, 50, 31, 40), False),
            ((50, 50, 40, 31), False),
        ],
    )
    def test_size_and_border(self, box: tuple[float, ...], fits: bool) -> None:
        drawn = Drawer(pool_of(entry(1, 1, box=box)), DrawRule()).draw([3], 1, 33)
        assert ids_of(drawn) == ([1] if fits else [])
        assert drawn.short == ({} if fits else {"cow": 0})
        assert Drawer(pool_of(entry(1, 1, box=box)), DrawRule(min_side=31, border=9)).draw([3], 1, 33).short == {}

    def test_crowds_and_images_of_unknown_size_are_passed_over(self) -> None:
        pool = pool_of(entry(1, 1, iscrowd=1), entry(2, 2), entry(3, 3), sizes={2: None})
        drawn = Drawer(pool, DrawRule()).draw([3, 0], 2, 33)
        assert ids_of(drawn) == [3]
        assert drawn.short == {"cow": 1, "zero": 0}

    def test_without_bbox_the_mask_says_where_an_object_is(self) -> None:
        def masked(number: int, x0: int, x1: int) -> dict[str, Any]:
            return {**entry(number, number), "bbox": [], "segmentation": [[x0, 20, x1, 20, x1, 60, x0, 60]]}

        broken = {**masked(3, 20, 60), "segmentation": {"size": [1, 1], "counts": [1]}}
        pool = pool_of(masked(1, 20, 60), masked(2, 20, 40), broken)
        assert ids_of(Drawer(pool, DrawRule()).draw([3], 3, 33)) == [1]

    def test_a_class_without_suitable_objects_may_be_drawn_from_the_others(self) -> None:
        small = [entry(number, number, box=(0, 0, 9, 9)) for number in range(1, 4)]
        pool = pool_of(*small, entry(4, 4, box=(0, 0, 9, 9), iscrowd=1), entry(5, 5, of=7), entry(6, 6, box=(0, 0, 9, 9), of=7))
        drawn = Drawer(pool, DrawRule(relaxed=True)).draw([0, 3, 7], 2, 33)
        assert drawn.relaxed == ("cow",)
        assert set(ids_of(drawn)[:2]) < {1, 2, 3}
        assert ids_of(drawn)[2:] == [5]
        assert drawn.short == {"zero": 0, "cat": 1}
        assert Drawer(pool, DrawRule()).draw([0, 3, 7], 2, 33).short == {"zero": 0, "cow": 0, "cat": 1}


def test_without_a_rule_the_file_decides() -> None:
    pool = pool_of(
        entry(5, 9, box=(0, 0, 1, 1)), entry(6, 9, iscrowd=1), entry(2, 9), entry(1, 1, of=0), entry(3, 8), sizes={8: None}
    )
    drawer = Drawer(pool, None)
    assert ids_of(drawer.draw([3, 0], None, 33)) == [5, 2, 3, 1]
    assert drawer.draw([3, 7], None, 33).short == {"cat": 0}
    drawn = drawer.draw([0, 3, 7, -4], 2, 1)
    assert ids_of(drawn) == [1, 5, 2]
    assert drawn.short == {"zero": 1, "cat": 0, "-4": 0}
    with pytest.raises(CocoError, match="At least one shot a class"):
        drawer.draw([3], 0, 33)


def test_a_negative_class_id_is_drawn_too() -> None:
    assert ids_of(Drawer(pool_of(entry(1, 1, of=-4)), DrawRule()).draw([-4], 1, 33)) == [1]


def test_references_of_a_draw(tmp_path: Path) -> None:
    for name in (1, 2):
        Image.new("RGB", (300, 200)).save(tmp_path / f"{name}.png")
    square = [[20, 20, 70, 20, 70, 70, 20, 70]]
    pool = pool_of(
        entry(4, 1, segmentation=square),
        entry(4, 2),  # an id twice
        entry(5, 1, segmentation={"size": [5, 5], "counts": [25]}),
        entry(6, 3),  # an image that is not there
    )
    references, skipped = references_of(pool, tmp_path, Drawer(pool, None).draw([3], None, 33))
    assert [(one.id, one.label, Path(one.image).name) for one in references] == [
        ("4", "cow", "1.png"),
        ("4#1", "cow", "2.png"),
        ("6", "cow", "3.png"),
    ]
    first, second, _ = references
    assert first.box == second.box == (20, 20, 70, 70)
    assert first.mask is not None
    assert np.asarray(first.mask).shape == (50, 50)
    assert np.asarray(first.mask).all()
    assert second.mask is None
    assert [name for name, _ in skipped] == ["5"]
    assert "is made for the size [5, 5]" in skipped[0][1]
