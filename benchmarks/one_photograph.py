"""What the benchmarks on single real photographs share: the COCO file, the product's answer, what candidates hold, pictures.

Masks of whole photographs are (H, W) bool and travel as COCO's run-length codes. Instances are entries of a COCO results file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as mask_utils

from refseg.candidates import PackedCandidates, pack, propose, propose_tiles
from refseg.coco import CocoJob, read_json, run_coco, write_json
from refseg.images import WRONG, DrawnObject
from refseg.masks import compressed, decode_mask, encode_crop
from refseg.matching import rank
from refseg.matching.cropping import full_size_codes
from refseg.matching.similarity import Classified
from refseg.models import Models

FILE_NAME = "photograph.png"
IMAGE_ID = CATEGORY_ID = 1
"""What `refseg coco` itself gives the only image of a folder and the only class of the references."""


@dataclass(frozen=True)
class Held:
    """The candidates of one photograph.

    Attributes:
        codes: of the N masks at the photograph's size.
        left: (n,) int64 rows of those that the NMS of matching leaves where all of them are of one class.
    """

    codes: Sequence[Mapping[str, Any]]
    left: NDArray[np.int64]

    def best(self, objects: Sequence[Mapping[str, Any]], *, after_nms: bool = False) -> NDArray[np.float64]:
        """(O,) the IoU of each object's code with the candidate that shows it best, 0 without any candidate."""
        codes = [self.codes[row] for row in self.left] if after_nms else self.codes
        return overlaps(codes, objects).max(0, initial=0.0)


def as_coco(masks: Sequence[NDArray[np.bool_]], image_hw: tuple[int, int], label: str) -> dict[str, Any]:
    """Objects of one class in the photograph, as a COCO file holds them."""
    annotations = []
    for number, mask in enumerate(masks, 1):
        code = encode_crop(mask, (0, 0), image_hw)
        about = {"id": number, "image_id": IMAGE_ID, "category_id": CATEGORY_ID, "iscrowd": 0, "area": int(mask.sum())}
        shape = {"size": list(image_hw), "counts": code["counts"].decode("ascii")}
        annotations.append(about | {"bbox": mask_utils.toBbox(code).tolist(), "segmentation": shape})
    height, width = image_hw
    return {
        "images": [{"id": IMAGE_ID, "file_name": FILE_NAME, "height": height, "width": width}],
        "categories": [{"id": CATEGORY_ID, "name": label}],
        "annotations": annotations,
    }


def find_like(
    photograph: Image.Image, shown: Sequence[NDArray[np.bool_]], label: str, model: str, *, tiles: bool
) -> list[dict[str, Any]]:
    """What `refseg coco` finds in a photograph of which some objects are shown, the best score first.

    The photograph lies in the folder of images, as a user's would: the objects that were shown can be found again too.
    """
    with tempfile.TemporaryDirectory(prefix="refseg-") as place:
        images, references, out = (Path(place) / name for name in ("photographs", "references.json", "results.json"))
        images.mkdir()
        photograph.save(images / FILE_NAME)
        write_json(references, as_coco(shown, (photograph.height, photograph.width), label))
        run_coco(CocoJob(images, references, out, model=model, tiles=tiles), progress=False)
        found: list[dict[str, Any]] = read_json(out)
    return found


def hold(photograph: Image.Image, models: Models, *, tiles: bool) -> Held:
    """The candidates that `refseg coco` makes of a photograph, near-duplicates and all."""
    candidates = propose_tiles(photograph, models, fine=True) if tiles else pack(propose([photograph], models)[0], fine=True)
    codes = full_size_codes(candidates, torch.arange(len(candidates)))
    return Held(codes, rank(candidates, _one_class(candidates)).rows.numpy())


def overlaps(codes: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(N, L) IoU of masks, known by their codes."""
    if not codes or not others:
        return np.zeros((len(codes), len(others)))
    return np.asarray(mask_utils.iou(list(codes), list(others), [0] * len(others)))


def as_drawn(mask: NDArray[np.bool_], color: int, caption: str = "") -> DrawnObject:
    """An (H, W) bool mask of the whole photograph, to be drawn."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return DrawnObject(box, mask[box[1] : box[3], box[0] : box[2]], color, caption)


def draw_found(found: Sequence[Mapping[str, Any]], colors: Sequence[int], word: str = "") -> list[DrawnObject]:
    """Instances to be drawn with their scores, wrong ones with a word too; the best come last, on top."""
    captions = [f"{entry['score']:.2f}{word if color == WRONG else ''}" for entry, color in zip(found, colors, strict=True)]
    shapes = [entry["segmentation"] for entry in found]
    masks = [decode_mask(compressed(shape, shape["size"])) for shape in shapes]
    return [as_drawn(*parts) for parts in zip(masks, colors, captions, strict=True)][::-1]


def _one_class(candidates: PackedCandidates) -> Classified:
    """As if all were of one class and equally like it: what the NMS leaves is then a matter of predicted IoU alone."""
    count = len(candidates)
    rows, alike = torch.zeros(count, dtype=torch.int64), torch.ones(count)
    return Classified(alike, rows, alike, rows - 1)
