from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refseg.coco.annotations import MASK_LEFT_OUT, read_annotations
from refseg.coco.files import parse_coco
from refseg.coco.json_files import read_json
from refseg.errors import CocoError

SQUARE = [[4, 2, 10, 2, 10, 8, 4, 8]]
SIZES: dict[Any, tuple[int, int] | None] = {7: (12, 20), "a": (12, 20), 8: None}
CLEAN = {"id": 11, "image_id": 7, "category_id": 3, "bbox": [4, 2, 6, 6], "segmentation": SQUARE, "area": 36, "iscrowd": 0}


def read(*entries: Any, **options: Any) -> Any:
    return read_annotations(entries, "f.json", SIZES, [3, 5], **options)


def one(**parts: Any) -> dict[str, Any]:
    """What an entry becomes that differs in these parts."""
    found = read({**CLEAN, **parts})
    assert found.left_out == ()
    return found.kept[0]  # type: ignore[no-any-return]


def test_what_is_in_form_stays_the_very_same() -> None:
    code = {"size": [12, 20], "counts": "d06@0000000n0"}
    for parts in (
        {},
        {"image_id": "a"},
        {"bbox": [4.5, 2, 6, 6.25]},
        {"segmentation": []},
        {"iscrowd": True},
        {"score": "any"},
    ):
        entry = {**CLEAN, **parts}
        assert read(entry).kept[0] is entry
    plain = {key: CLEAN[key] for key in ("image_id", "category_id", "bbox")}
    assert read(plain).kept[0] is plain
    damaged = {**CLEAN, "segmentation": code}
    assert read(damaged).left_out[0].field == "segmentation"


@pytest.mark.parametrize(
    ("parts", "becomes"),
    [
        ({"image_id": 7.0}, {"image_id": 7}),
        ({"image_id": "7"}, {"image_id": 7}),
        ({"category_id": "3"}, {"category_id": 3}),
        ({"category_id": 5.0}, {"category_id": 5}),
        ({"id": 11.0}, {"id": 11}),
        ({"iscrowd": "0"}, {"iscrowd": 0}),
        ({"iscrowd": "false"}, {"iscrowd": 0}),
        ({"iscrowd": None}, {"iscrowd": 0}),
        ({"iscrowd": "1"}, {"iscrowd": 1}),
        ({"ignore": "0"}, {"ignore": 0}),
        ({"area": "36.5"}, {"area": 36.5}),
        ({"bbox": ["4", "2", 6, "6"]}, {"bbox": [4, 2, 6, 6]}),
        ({"bbox": [[4, 2, 6, 6]]}, {"bbox": [4, 2, 6, 6]}),
        ({"bbox": []}, {"bbox": [4, 2, 6, 6]}),
        ({"segmentation": SQUARE[0]}, {"segmentation": SQUARE}),
        ({"segmentation": [[[4, 2], [10, 2], [10, 8], [4, 8]]]}, {"segmentation": SQUARE}),
    ],
)
def test_what_has_one_meaning_is_read(parts: dict[str, Any], becomes: dict[str, Any]) -> None:
    found = one(**parts)
    assert found == {**CLEAN, **becomes}
    assert {key: type(found[key]) for key in becomes if key.endswith("id")} == {
        key: int for key in becomes if key.endswith("id")
    }


def test_reading_changes_no_argument_and_twice_is_once() -> None:
    entries = [{**CLEAN, "iscrowd": "0", "area": -1, "bbox": [0, 0, 0, 0]}, {**CLEAN, "segmentation": "sky"}]
    before = repr(entries)
    first = read(*entries, bad_masks="box")
    assert repr(entries) == before
    again = read(*first.kept, bad_masks="box")
    assert again.kept == first.kept
    assert (again.left_out, again.notes) == ((), ())


@pytest.mark.parametrize(
    ("parts", "field", "value"),
    [
        ({"image_id": 9}, "image_id", "9"),
        ({"image_id": None}, "image_id", "None"),
        ({"image_id": True}, "image_id", "True"),
        ({"image_id": [7]}, "image_id", "[7]"),
        ({"category_id": None}, "category_id", "None"),
        ({"category_id": "star"}, "category_id", "'star'"),
        ({"category_id": 3.5}, "category_id", "3.5"),
        ({"iscrowd": "maybe"}, "iscrowd", "'maybe'"),
        ({"iscrowd": 2}, "iscrowd", "2"),
        ({"segmentation": "sky"}, "segmentation", "'sky'"),
        ({"segmentation": [[]]}, "segmentation", "[[]]"),
        ({"segmentation": None, "bbox": None}, "bbox", "None"),
        ({"segmentation": None, "bbox": [0, 0, 0, 0]}, "bbox", "[0, 0, 0, 0]"),
        ({"segmentation": None, "bbox": [1, 2, 3, 4, 0.5]}, "bbox", "[1, 2, 3, 4, 0.5]"),
        ({"segmentation": None, "bbox": {"x": 1}}, "bbox", "{'x': 1}"),
        ({"segmentation": None, "bbox": [20, 0, 5, 5]}, "bbox", "[20, 0, 5, 5]"),
    ],
)
@pytest.mark.parametrize("bad_masks", ["leave out", "box"])
def test_anything_else_is_left_out_with_field_and_value(parts: dict[str, Any], field: str, value: str, bad_masks: Any) -> None:
    found = read(CLEAN, {**CLEAN, "id": 12, **parts}, {**CLEAN, "id": 13}, bad_masks=bad_masks)
    (refused,) = found.left_out
    assert (refused.source, refused.annotation, refused.field, refused.value) == ("f.json", "12", field, value)
    by_box = bad_masks == "box" and field == "segmentation"
    assert refused.mask_alone == by_box
    assert [entry["id"] for entry in found.kept] == ([11, 12, 13] if by_box else [11, 13])


def test_what_is_no_object_is_left_out_by_its_place() -> None:
    found = read(CLEAN, None, "x", {"bbox": [1, 1, 2, 2], "category_id": 3})
    assert [refused.annotation for refused in found.left_out] == ["#1", "#2", "#3"]
    assert found.kept == (CLEAN,)


def test_a_box_that_is_none_becomes_that_of_the_mask_and_is_said_once() -> None:
    bad: list[Any] = [[0, 0, 0, 0], [4, 2, -6, 6], ["x", 1, 2, 3], [30, 30, 5, 5], [1, 2, 3, 4, 5]]
    found = read(*({**CLEAN, "id": n, "bbox": box} for n, box in enumerate(bad)), CLEAN)
    assert [entry["bbox"] for entry in found.kept] == [[4, 2, 6, 6]] * 6
    (note,) = found.notes
    assert "5 annotations have a bbox that is no box" in note
    assert "the annotation 0 with [0, 0, 0, 0]" in note


@pytest.mark.parametrize("area", [-36, 0, float("nan"), float("inf"), "n/a", [36], True])
def test_an_area_that_is_none_is_taken_away_and_said_once(area: Any) -> None:
    found = read({**CLEAN, "area": area}, {**CLEAN, "area": area}, {**CLEAN, "area": None}, CLEAN)
    assert ["area" in entry for entry in found.kept] == [False, False, False, True]
    (note,) = found.notes
    assert "2 annotations have an area that is no number of pixels" in note


def test_of_images_of_unknown_size_it_is_told_later() -> None:
    far = {**CLEAN, "image_id": 8, "segmentation": [[4, 2, 900, 2, 10, 8]]}
    bare = {key: value for key, value in CLEAN.items() if key != "bbox"} | {"image_id": 8, "segmentation": SQUARE[0]}
    flat = {**far, "id": 12, "segmentation": [4, 2, 9]}
    found = read(far, bare, flat, bad_masks="box")
    assert [refused.annotation for refused in found.left_out] == ["12"]
    assert found.kept == (
        far,
        {**bare, "segmentation": SQUARE},
        {**{k: flat[k] for k in flat if k != "segmentation"}, MASK_LEFT_OUT: True},
    )
    later = read_annotations(found.kept, "f.json", {8: (12, 20)}, [3, 5], bad_masks="box")
    assert [refused.annotation for refused in later.left_out] == ["11"]
    assert [entry["bbox"] for entry in later.kept] == [[4, 2, 6, 6]] * 3
    assert ["segmentation" in entry for entry in later.kept] == [False, True, False]


SLIVER = [[4.1, 2.1, 4.3, 2.1, 4.3, 2.3, 4.1, 2.3]]
LINE = [[2, 2, 8, 5, 14, 8]]


@pytest.mark.parametrize("shape", [SLIVER, LINE, SLIVER + LINE], ids=["in a pixel", "a line", "both"])
def test_a_mask_that_shows_no_pixel_is_none(shape: Any) -> None:
    """pycocotools draws nothing of it, so that nothing could be found there."""
    found = read({**CLEAN, "segmentation": shape}, bad_masks="box")
    assert found.kept == ({**{key: CLEAN[key] for key in CLEAN if key != "segmentation"}, MASK_LEFT_OUT: True},)
    (named,) = found.left_out
    assert (named.annotation, named.field, named.mask_alone) == ("11", "segmentation", True)
    assert "shows no pixel of its image of 20×12" in named.reason
    assert read({**CLEAN, "segmentation": shape}).kept == ()
    assert read({**CLEAN, "segmentation": [*shape, *SQUARE]}, bad_masks="box").left_out == ()


def test_a_box_around_what_shows_no_pixel_is_one_all_the_same() -> None:
    found = read({**CLEAN, "segmentation": LINE, "bbox": None}, bad_masks="box")
    assert (found.kept[0]["bbox"], found.kept[0][MASK_LEFT_OUT]) == ([2, 2, 12, 6], True)
    flat = [[2, 5, 8, 5, 14, 5]]
    assert read({**CLEAN, "segmentation": flat, "bbox": None}, bad_masks="box").kept == ()
    far = [[30, 30, 31, 31, 32, 32]]
    assert read({**CLEAN, "segmentation": far, "bbox": None}, bad_masks="box").kept == ()


def test_shares_of_the_sides_are_no_pixels() -> None:
    shares = {"bbox": [0.2, 0.1, 0.5, 0.25], "segmentation": [[0.2, 0.1, 0.7, 0.1, 0.7, 0.35]]}
    assert read({**CLEAN, **shares}, bad_masks="box").kept == ()
    found = read({**CLEAN, "bbox": shares["bbox"], "segmentation": None}, bad_masks="box")
    assert found.kept == ()
    assert str(found.left_out[0]).startswith(
        "f.json: the annotation 11 has the bbox [0.2, 0.1, 0.5, 0.25], in shares of its image's sides, but pixels are needed."
    )
    assert one(bbox=shares["bbox"])["bbox"] == CLEAN["bbox"]
    # One pixel in the corner is an object.
    assert one(bbox=[0, 0, 1, 1])["bbox"] == [0, 0, 1, 1]


def test_boxes_that_are_turned_are_said() -> None:
    box = {key: CLEAN[key] for key in ("id", "image_id", "category_id", "bbox")}
    plain = [{**box, "rotation": 0}, {**box, "attributes": {"occluded": False, "rotation": 0.0}}, {**CLEAN, "rotation": 30}]
    assert read(*plain).notes == ()
    assert read(*plain).kept == tuple(plain)
    found = read({**box, "rotation": 30.5}, {**box, "attributes": {"rotation": "12"}})
    (note,) = found.notes
    assert "2 annotations have a box that is said to be turned, which is taken as if it were not" in note
    assert "the annotation 11 with 30.5" in note


def test_masks_may_be_of_no_account() -> None:
    found = read({**CLEAN, "segmentation": "sky"}, CLEAN, {**CLEAN, "bbox": [0, 0, 0, 0]}, bad_masks="ignore")
    assert ["segmentation" in entry for entry in found.kept] == [False, False]
    assert [refused.field for refused in found.left_out] == ["bbox"]


@pytest.mark.parametrize("value", ["1" * 5000, 10**400])
@pytest.mark.parametrize("field", ["area", "category_id", "image_id"])
def test_numbers_of_thousands_of_digits_are_refused_or_left_to_the_mask(value: object, field: str) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 12}],
        "categories": [{"id": 1, "name": "star"}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0, field: value}],
    }
    coco = parse_coco(content, "refs.json")
    if field == "area":
        (entry,) = coco.annotations
        assert "area" not in entry
        assert "area that is no number" in coco.notes[0]
    else:
        assert [(one.annotation, one.field) for one in coco.left_out] == [("7", field)]


def test_a_bare_number_of_thousands_of_digits_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "x": ' + "1" * 5000 + "}")
    with pytest.raises(CocoError, match=r"a\.json holds a number that cannot be read"):
        read_json(tmp_path / "a.json")
