from __future__ import annotations

from itertools import chain

from refseg.published.classes import (
    CD_FSOD,
    COCO_20I_FOLDS,
    COCO_NAMES,
    COCO_NOVEL_IDS,
    LVIS_COUNTS,
    LVIS_GROUPS,
    LVIS_NUM_CLASSES,
    TOY,
    VOC_CLASSES,
    VOC_NOVEL,
    VOC_TO_COCO,
)


def test_coco_has_80_classes_with_the_gaps_of_the_release() -> None:
    assert len(COCO_NAMES) == len(set(COCO_NAMES.values())) == 80
    assert list(COCO_NAMES) == sorted(COCO_NAMES)
    assert set(range(1, 91)) - set(COCO_NAMES) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert (COCO_NAMES[1], COCO_NAMES[44], COCO_NAMES[90]) == ("person", "bottle", "toothbrush")


def test_novel_classes_are_those_of_voc() -> None:
    assert len(set(COCO_NOVEL_IDS)) == len(COCO_NOVEL_IDS) == 20
    assert {COCO_NAMES[number] for number in COCO_NOVEL_IDS} == {VOC_TO_COCO.get(name, name) for name in VOC_CLASSES}


def test_voc_has_three_splits_of_five_of_its_classes() -> None:
    assert len(set(VOC_CLASSES)) == len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert list(VOC_NOVEL) == ["split1", "split2", "split3"]
    for names in VOC_NOVEL.values():
        assert len(set(names) & set(VOC_CLASSES)) == len(names) == 5
    # Known from the tables of every paper on these splits: sofa is in all three, cow in two, cat in the last.
    assert ["sofa" in names for names in VOC_NOVEL.values()] == [True, True, True]
    assert ["cow" in names for names in VOC_NOVEL.values()] == [True, True, False]
    assert ["cat" in names for names in VOC_NOVEL.values()] == [False, False, True]


def test_folds_part_the_80() -> None:
    assert [len(fold) for fold in COCO_20I_FOLDS] == [20] * 4
    assert sorted(chain(*COCO_20I_FOLDS)) == list(COCO_NAMES)
    # The first of each fold, by hand: person, airplane, boat | bicycle, bus | car, train | motorcycle, truck.
    assert [fold[:2] for fold in COCO_20I_FOLDS] == [(1, 5), (2, 6), (3, 7), (4, 8)]
    assert COCO_20I_FOLDS[0][2] == 9
    # Past the gap at 12: the 17th class is the dog's neighbour, horse 18th.
    assert [COCO_NAMES[fold[4]] for fold in COCO_20I_FOLDS] == ["dog", "horse", "sheep", "cow"]


def test_cd_fsod_lvis_and_the_toy_set() -> None:
    assert list(CD_FSOD.items()) == [
        ("ArTaxOr", 7),
        ("clipart1k", 20),
        ("DIOR", 20),
        ("FISH", 1),
        ("NEU-DET", 6),
        ("UODD", 3),
    ]
    assert sum(LVIS_COUNTS.values()) == LVIS_NUM_CLASSES == 1203
    assert list(LVIS_COUNTS) == list(LVIS_GROUPS) == ["r", "c", "f"]
    assert dict(TOY.references) == {"bird": 429819, "boat": 101435}
    assert len(set(TOY.targets) - set(TOY.references.values())) == 10
