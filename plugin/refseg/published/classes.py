"""Every class list, split and image id of the published benchmarks, with its source. Values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

COCO_NAMES: Mapping[int, str] = {
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    5: "airplane",
    6: "bus",
    7: "train",
    8: "truck",
    9: "boat",
    10: "traffic light",
    11: "fire hydrant",
    13: "stop sign",
    14: "parking meter",
    15: "bench",
    16: "bird",
    17: "cat",
    18: "dog",
    19: "horse",
    20: "sheep",
    21: "cow",
    22: "elephant",
    23: "bear",
    24: "zebra",
    25: "giraffe",
    27: "backpack",
    28: "umbrella",
    31: "handbag",
    32: "tie",
    33: "suitcase",
    34: "frisbee",
    35: "skis",
    36: "snowboard",
    37: "sports ball",
    38: "kite",
    39: "baseball bat",
    40: "baseball glove",
    41: "skateboard",
    42: "surfboard",
    43: "tennis racket",
    44: "bottle",
    46: "wine glass",
    47: "cup",
    48: "fork",
    49: "knife",
    50: "spoon",
    51: "bowl",
    52: "banana",
    53: "apple",
    54: "sandwich",
    55: "orange",
    56: "broccoli",
    57: "carrot",
    58: "hot dog",
    59: "pizza",
    60: "donut",
    61: "cake",
    62: "chair",
    63: "couch",
    64: "potted plant",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    73: "laptop",
    74: "mouse",
    75: "remote",
    76: "keyboard",
    77: "cell phone",
    78: "microwave",
    79: "oven",
    80: "toaster",
    81: "sink",
    82: "refrigerator",
    84: "book",
    85: "clock",
    86: "vase",
    87: "scissors",
    88: "teddy bear",
    89: "hair drier",
    90: "toothbrush",
}
"""The 80 classes of COCO 2014 and 2017 by id, which has gaps. Source: instances_val2017.json of the release."""

COCO_NOVEL_IDS = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)
"""The classes of VOC, novel in COCO-FSOD. Source: Kang et al., Few-shot Object Detection via Feature Reweighting, ICCV 2019."""

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""In the order of the development kit. Source: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010."""

VOC_TO_COCO: Mapping[str, str] = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's names of VOC's classes, where they differ."""

VOC_NOVEL: Mapping[str, tuple[str, ...]] = {
    "split1": ("bird", "bus", "cow", "motorbike", "sofa"),
    "split2": ("aeroplane", "bottle", "cow", "horse", "sofa"),
    "split3": ("boat", "cat", "motorbike", "sheep", "sofa"),
}
"""Novel classes of the three splits. Source: Kang et al., Few-shot Object Detection via Feature Reweighting, ICCV 2019, 4.1."""

COCO_20I_FOLDS: tuple[tuple[int, ...], ...] = tuple(tuple(sorted(COCO_NAMES)[fold::4]) for fold in range(4))
"""COCO ids of each fold: every fourth class. Source: Nguyen and Todorovic, Feature Weighting and Boosting for Few-Shot
Segmentation, ICCV 2019."""

CD_FSOD: Mapping[str, int] = {"ArTaxOr": 7, "clipart1k": 20, "DIOR": 20, "FISH": 1, "NEU-DET": 6, "UODD": 3}
"""Classes of each dataset, in the order of the published tables. Source: Fu et al., Cross-Domain Few-Shot Object Detection via
Enhanced Open-Set Object Detector, ECCV 2024, arXiv 2402.03094, 3."""

LVIS_GROUPS: Mapping[str, str] = {"r": "rare", "c": "common", "f": "frequent"}
"""By the values of 'frequency': in 1–10, 11–100 and more images of the training set. Source: Gupta et al., LVIS, CVPR 2019,
arXiv 1908.03195."""
LVIS_COUNTS: Mapping[str, int] = {"r": 337, "c": 461, "f": 405}
"""Classes of each group of LVIS v1. Source: its release, lvis_v1_train.json."""
LVIS_NUM_CLASSES = 1203
"""Of LVIS v1."""


@dataclass(frozen=True)
class Toy:
    """The two-class set.

    Attributes:
        references: image with the one reference of each class, by COCO's name.
        targets: images to segment.
    """

    references: Mapping[str, int]
    targets: tuple[int, ...]


TOY = Toy(
    references={"bird": 429819, "boat": 101435},
    targets=(98636, 361948, 456065, 42279, 517410, 439274, 407180, 459673, 481301, 460598),
)
"""Ids of images of COCO train2017. Source: the two-class example published with arXiv 2507.02798."""
