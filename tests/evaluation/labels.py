"""Objects and predictions in images of one side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from PIL import Image

SIDE = 100


def detection(x0: int, y0: int, x1: int, y1: int, label: str = "star", *, side: int = SIDE, **rest: Any) -> Any:
    """A filled rectangle, as a Detection with a mask."""
    mask = rest.pop("mask", np.ones((y1 - y0, x1 - x0), bool))
    box = rest.pop("bounding_box", [x0 / side, y0 / side, (x1 - x0) / side, (y1 - y0) / side])
    return fo.Detection(label=label, bounding_box=box, mask=mask, **rest)


def sample(folder: Path, name: str, truth: list[Any], found: list[Any] | None, *, save: bool = True) -> Any:
    path = folder / name
    if save:
        Image.new("RGB", (SIDE, SIDE)).save(path)
    answer = fo.Sample(filepath=str(path), ground_truth=fo.Detections(detections=truth))
    answer["predictions"] = None if found is None else fo.Detections(detections=found)
    return answer
