"""What lies around references: which candidates show one, which overlap nothing that is known, and which count neither way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from refseg.candidates.packing import pack
from refseg.candidates.proposing import Candidates
from refseg.errors import ShapeError
from refseg.prototypes import surroundings
from refseg.prototypes.surroundings import KnownObject, Surroundings, image_key, look_around
from tests.synthetic import GRID, WIDTH, box_mask, make_spots, random_unit

IMAGE_HW = (32, 32)


def around(images: str, shown: tuple[str, ...], seed: int = 0) -> Surroundings:
    return Surroundings(random_unit(torch.Generator().manual_seed(seed), len(images), WIDTH).half(), tuple(images), shown)


class TestSurroundings:
    def test_add_replaces_images_in_both(self) -> None:
        first, second = around("aab", ("x", "", "")), around("bcc", ("y", "", "z"), seed=1)
        both = first.add(second)
        assert len(both) == 5
        assert (both.images, both.shown) == (tuple("aabcc"), ("x", "", "y", "", "z"))
        assert torch.equal(both.features, torch.cat([first.features[:2], second.features]))
        assert both.features.dtype == torch.float16

    def test_remove(self) -> None:
        first = around("aab", ("x", "", "y"))
        left = first.remove({"x", "unheard of"})
        assert (left.images, left.shown) == (tuple("ab"), ("", "y"))
        assert torch.equal(left.features, first.features[1:])
        assert len(first.remove(["x", "y"])) == 1
        assert len(first) == 3

    def test_of_nothing(self) -> None:
        nothing, some = Surroundings(torch.zeros(0, WIDTH).half(), (), ()), around("ab", ("", ""))
        assert len(nothing.add(nothing)) == len(nothing.remove({"x"})) == 0
        for both in (nothing.add(some), some.add(nothing)):
            assert both.images == ("a", "b")
            assert torch.equal(both.features, some.features)

    def test_disagreeing_parts_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"one feature, image and reference each, but there are 2, 1 and 3"):
            Surroundings(torch.zeros(2, WIDTH), ("a",), ("", "", ""))


def candidates_of_boxes(boxes: list[tuple[tuple[int, int, int, int], float]]) -> Candidates:
    """Boxes on the grid, each with its predicted IoU."""
    masks = torch.stack([box_mask(*box) for box, _ in boxes]) if boxes else torch.zeros(0, GRID, GRID)
    logits = torch.where(masks.bool(), 5.0, -5.0)
    features = random_unit(torch.Generator().manual_seed(3), len(boxes), WIDTH)
    return Candidates(logits, torch.tensor([iou for _, iou in boxes]), features, IMAGE_HW)


def known(name: str, *box: int) -> KnownObject:
    """An object whose box is given in cells of the grid; a cell is two pixels."""
    return KnownObject(name, box_mask(*(2 * side for side in box), side=32))


# Objects: a reference in the upper left corner, and something labelled below it.
SCENE = [
    ((0, 0, 6, 6), 0.7),  # shows the reference
    ((0, 0, 6, 5), 0.9),  # shows it too, and the segmenter thinks better of it
    ((0, 0, 3, 3), 0.95),  # a part of it
    ((10, 10, 14, 14), 0.6),  # free
    ((10, 10, 14, 13), 0.8),  # free in the same place, and better
    ((5, 0, 15, 2), 0.5),  # a tenth of it lies in the reference
    ((5, 0, 16, 2), 0.4),  # less than a tenth
    ((0, 10, 4, 14), 0.5),  # shows what is labelled and no reference
]


class TestLookAround:
    @pytest.mark.parametrize("packed", [False, True])
    def test_by_hand(self, packed: bool) -> None:
        candidates = candidates_of_boxes(SCENE)
        found = look_around(
            pack(candidates) if packed else candidates, [known("a", 0, 0, 6, 6), known("", 0, 10, 4, 14)], "image"
        )
        assert found.shown == ("a", "", "", "")
        assert found.part_of_each == ("", "a", "", "a"), "what is less or more than the reference is no stranger"
        assert found.images == ("image",) * 4
        assert found.features.dtype == torch.float16
        assert torch.equal(found.features, candidates.features[[1, 2, 4, 5]].half())
        assert torch.equal(found.whole.features, candidates.features[[1, 4]].half())

    def test_several_references_and_one_that_nothing_shows(self) -> None:
        candidates = candidates_of_boxes(SCENE)
        objects = [known("low", 0, 10, 4, 14), known("missed", 7, 12, 9, 15), known("a", 0, 0, 6, 6)]
        found = look_around(candidates, objects, "image")
        assert found.whole.shown == ("low", "a", "")
        assert torch.equal(found.whole.features, candidates.features[[7, 1, 4]].half())

    def test_of_no_reference_everything_in_a_place_of_its_own(self) -> None:
        """As in an image that is known to be empty: the best of each place, best first."""
        candidates = candidates_of_boxes(SCENE)
        found = look_around(candidates, (), "image")
        assert found.shown == ("",) * 5
        assert torch.equal(found.features, candidates.features[[2, 1, 4, 5, 7]].half())

    def test_an_object_like_no_candidate_is_still_no_stranger(self) -> None:
        candidates = candidates_of_boxes(SCENE)
        found = look_around(candidates, [KnownObject("", torch.ones(IMAGE_HW, dtype=torch.bool))], "image")
        assert len(found) == 0
        assert found.features.shape == (0, WIDTH)

    def test_no_more_than_so_many_of_an_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        candidates = candidates_of_boxes(SCENE)
        monkeypatch.setattr(surroundings, "MAX_AN_IMAGE", 2)
        assert torch.equal(look_around(candidates, (), "image").features, candidates.features[[2, 1]].half())
        assert look_around(candidates, [known("a", 0, 0, 6, 6)], "image").shown == ("a", "", "")

    def test_is_a_loop_over_pairs(self) -> None:
        """The candidate that stands for a reference, and that strangers overlap nothing: on uneven masks."""
        spots = make_spots(40, image_hw=(64, 64))
        objects = [KnownObject(str(row), spots.masks[row]) for row in (3, 17, 30)]
        found = look_around(spots, objects, "image")
        assert [name for name in found.shown if name] == ["3", "17", "30"]
        for name, part, feature in zip(found.shown, found.part_of_each, found.features, strict=True):
            (row,) = (spots.features.half() == feature).all(1).nonzero()[:, 0].tolist()
            overlaps = [spots.masks[row] & known.mask for known in objects]
            if name:
                mask = spots.masks[int(name)]
                ious = [float((one & mask).sum() / (one | mask).sum()) for one in spots.masks]
                assert row == max((i for i in range(40) if ious[i] >= 0.5), key=lambda i: float(spots.predicted_iou[i]))
            else:
                assert max(float(shared.sum() / spots.masks[row].sum()) for shared in overlaps) < 0.1 or part
        assert "" in found.shown

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("objects", [(), (known("a", 0, 0, 6, 6),)], ids=len)
    def test_of_nothing(self, packed: bool, objects: tuple[KnownObject, ...]) -> None:
        nothing = candidates_of_boxes([])
        found = look_around(pack(nothing) if packed else nothing, objects, "image")
        assert (len(found), found.features.shape, found.features.dtype) == (0, (0, WIDTH), torch.float16)


def test_image_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = image_key(str(tmp_path / "a.png"))
    assert len(key) == 12
    assert int(key, 16) >= 0
    monkeypatch.chdir(tmp_path)
    assert image_key("a.png") == image_key(f"../{tmp_path.name}/a.png") == key != image_key("b.png")


def test_image_key_of_names_that_are_no_text() -> None:
    assert len({image_key(name) for name in ("/a/\ud800.png", "/a/gr\udcfc.png", "/a/gr.png")}) == 3
