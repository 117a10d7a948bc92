"""The engine against the published implementation's own answers (arXiv 2507.02798), stages B2 to C5.

The cases in tests/golden are numbers alone, which the published implementation computed in float32 on a CPU from synthetic
inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from refseg.candidates.crops import instance_vector
from refseg.candidates.grids import pool_features
from refseg.candidates.proposing import Candidates
from refseg.matching.instances import Instances
from refseg.matching.ranking import match
from refseg.matching.similarity import Gallery
from refseg.prototypes.means import class_prototypes
from tests.tolerance import assert_near

CASES = [Path(__file__).parent / "golden" / f"core_case_{number}.npz" for number in (1, 2)]
GRID = 256
MIN_PREDICTED_IOU = 0.4

pytestmark = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)


@dataclass(frozen=True)
class Case:
    inputs: dict[str, np.ndarray]
    candidates: Candidates
    prototypes: Tensor

    @property
    def masks(self) -> list[dict[str, object]]:
        """The published masks as COCO RLE."""
        size = [int(side) for side in self.inputs["hw"]]
        return [{"size": size, "counts": str(counts).encode()} for counts in self.inputs["out_rle"]]


def ellipse_logits(ellipses: np.ndarray) -> Tensor:
    """(N, 256, 256) of (cx, cy, a, b, s): s·(1 − ((x − cx)/a)² − ((y − cy)/b)²), cut at ±20."""
    center = (np.arange(GRID) + 0.5) / GRID
    x, y = center[None, None, :], center[None, :, None]
    cx, cy, a, b, s = (column[:, None, None] for column in ellipses.T)
    logits = np.clip(s * (1 - ((x - cx) / a) ** 2 - ((y - cy) / b) ** 2), -20, 20)
    return torch.from_numpy(logits.astype(np.float32))


def read_case(path: Path) -> Case:
    with np.load(path, allow_pickle=False) as stored:
        inputs = {name: stored[name] for name in stored.files}
    references = torch.from_numpy(inputs["ref_features"]).float()
    weights = torch.from_numpy(inputs["ref_masks"]).float()
    num_classes, shots = references.shape[:2]
    vectors = [instance_vector(references[k, r], weights[k, r]) for k in range(num_classes) for r in range(shots)]
    labels = torch.arange(num_classes).repeat_interleave(shots)
    predicted_iou = torch.from_numpy(inputs["pred_iou"]).float()
    keep = predicted_iou > MIN_PREDICTED_IOU
    logits = ellipse_logits(inputs["ellipses"])[keep]
    features = pool_features(logits > 0, torch.from_numpy(inputs["patch_features"]).float())
    height, width = (int(side) for side in inputs["hw"])
    candidates = Candidates(logits, predicted_iou[keep], features, (height, width))
    return Case(inputs, candidates, class_prototypes(torch.stack(vectors), labels, num_classes))


def to_rle(instances: Instances, image_hw: tuple[int, int]) -> list[dict[str, object]]:
    answer = []
    for mask, (x0, y0, x1, y1) in zip(instances.masks, instances.boxes.tolist(), strict=True):
        whole = np.zeros(image_hw, np.uint8, order="F")
        whole[y0:y1, x0:x1] = mask.numpy()
        answer.append(coco_mask.encode(whole))
    return answer


def test_prototypes_are_the_published_ones(path: Path) -> None:
    case = read_case(path)
    assert_near(case.prototypes, torch.from_numpy(case.inputs["prototypes"]).float(), at_most=1e-6)


def test_profile_paper_is_the_published_answer(path: Path) -> None:
    case = read_case(path)
    found = match(case.candidates, Gallery(case.prototypes), max_detections=int(case.inputs["num_out"]), as_published=True)
    assert len(found) == len(case.inputs["out_scores"]) > 0
    np.testing.assert_array_equal(found.labels.numpy(), case.inputs["out_labels"])
    np.testing.assert_allclose(found.scores.numpy(), case.inputs["out_scores"], rtol=0, atol=1e-4)
    # The order: ours is descending, and pair by pair the masks below are the published ones.
    assert bool((found.scores.diff() <= 0).all())
    ours = to_rle(found, case.candidates.image_hw)
    overlaps = coco_mask.iou(ours, case.masks, [0] * len(case.masks))
    assert overlaps.diagonal().min() >= 0.999
    # The published boxes name the last pixel, ours the one after it.
    np.testing.assert_allclose(found.boxes.numpy() - np.array([0, 0, 1, 1]), case.inputs["out_boxes"], atol=0)
    np.testing.assert_allclose([int(mask.sum()) for mask in found.masks], case.inputs["out_areas"], rtol=1e-3)


def test_merge_on_the_mask_grid_moves_scores_by_less_than_a_hundredth(path: Path) -> None:
    case = read_case(path)
    found = match(case.candidates, Gallery(case.prototypes), max_detections=int(case.inputs["num_out"]))
    overlaps = coco_mask.iou(to_rle(found, case.candidates.image_hw), case.masks, [0] * len(case.masks))
    pairs = [(ours, int(theirs)) for ours, theirs in enumerate(overlaps.argmax(1)) if overlaps[ours].max() >= 0.999]
    # One or two may change places at the end of the list.
    assert len(pairs) >= len(case.masks) - 2
    assert len({theirs for _, theirs in pairs}) == len(pairs)
    for ours, theirs in pairs:
        assert int(found.labels[ours]) == case.inputs["out_labels"][theirs]
        assert float(found.scores[ours]) == pytest.approx(float(case.inputs["out_scores"][theirs]), abs=0.01)
