"""Small trays of parts with exact masks, and candidates made of those masks.

The demo segmenter need not find anything on images this small. Where a test is about matching and writing, `propose_truth` puts
the ground truth in its place; features, prototypes, matching and labels stay the real ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from refseg.candidates.grids import pool_features
from refseg.candidates.proposing import Candidates, encode_patches
from refseg.demo.world import Scene, draw_family, render_scene
from refseg.images.reading import encoder_pixels, read_image, segmenter_pixels
from refseg.models.loaded import Models, load_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.vectors import Reference
from refseg.runs.segmenting import SegmentReport, segment

if TYPE_CHECKING:
    import fiftyone as fo

PARTS = ("star", "tee")
IMAGE_HW = (160, 200)


def draw_trays(num_images: int = 4, *, seed: int = 33) -> list[Scene]:
    """Scenes with one whole object of each of PARTS."""
    rng = np.random.default_rng(seed)
    families = [draw_family(rng, [part]) for part in PARTS]
    scenes = []
    while len(scenes) < num_images:
        scene = render_scene(rng, families, IMAGE_HW, radius=(0.14, 0.18), max_overlap=0.0)
        if len(scene.families) == len(PARTS):
            scenes.append(scene)
    return scenes


def tray_samples(folder: Path, num_images: int = 4, *, labels: Sequence[str] = PARTS, seed: int = 33) -> list[fo.Sample]:
    """Trays as samples with exact masks in `ground_truth`, the classes of PARTS called by these labels."""
    import fiftyone as fo

    samples = []
    for number, scene in enumerate(draw_trays(num_images, seed=seed)):
        path = folder / f"tray_{number}.png"
        Image.fromarray(scene.image).save(path)
        objects = [
            fo.Detection.from_mask(mask, label=labels[family]) for mask, family in zip(scene.masks, scene.families, strict=True)
        ]
        samples.append(fo.Sample(str(path), ground_truth=fo.Detections(detections=objects)))
    return samples


def tray_prototypes(folder: Path, num_images: int = 2) -> Prototypes:
    """Prototypes of the demo preset from the objects of the first trays, without a dataset."""
    references = []
    for number, scene in enumerate(draw_trays(num_images)):
        path = folder / f"reference_{number}.png"
        Image.fromarray(scene.image).save(path)
        for family, mask in zip(scene.families, scene.masks, strict=True):
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            tight = mask[box[1] : box[3], box[0] : box[2]]
            references.append(Reference(f"{PARTS[family]} {number}", PARTS[family], str(path), box, tight))
    return build_prototypes(references, "demo", progress=False)


def draw_references(folder: Path) -> list[Reference]:
    """Six objects in two images of any parts, of classes of 1, 2 and 3 shots."""
    rng = np.random.default_rng(11)
    found = []
    for number in range(2):
        families = [draw_family(rng) for _ in range(3)]
        scene = render_scene(rng, families, (150, 200), max_overlap=0.0)
        assert len(scene.families) == 3
        path = folder / f"{number}.png"
        Image.fromarray(scene.image).save(path)
        for mask in scene.masks:
            ys, xs = mask.nonzero()
            x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
            label = ("gear", "nut", "nut", "ring", "ring", "ring")[len(found)]
            found.append(Reference(f"label-{len(found)}", label, str(path), (x0, y0, x1, y1), mask[y0:y1, x0:x1]))
    return found


def quick_models() -> Models:
    """The demo preset asked at 36 points an image instead of 256."""
    models = load_models("demo")
    return dataclasses.replace(models, preset=dataclasses.replace(models.preset, points_per_side=6))


def whole_mask(detection: fo.Detection, image_hw: tuple[int, int] = IMAGE_HW) -> NDArray[np.bool_]:
    """(H, W) bool: a detection's mask at its place in the image."""
    height, width = image_hw
    x, y, _, _ = detection.bounding_box
    left, top = round(x * width), round(y * height)
    mask = np.asarray(detection.get_mask()) > 0
    whole = np.zeros(image_hw, bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole


def candidates_of(pixels: Tensor, masks: NDArray[np.bool_], image_hw: tuple[int, int], models: Models) -> Candidates:
    """Candidates with these masks, on an image as the segmenter gets it.

    Args:
        pixels: (3, S, S) float32 in [0, 1].
        masks: (N, H, W) bool, original image.
        image_hw: height and width of the original image.
        models: their encoder computes the features.
    """
    side = models.grid_side
    small = [np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.NEAREST)) for mask in masks]
    grid = torch.from_numpy(np.array(small, bool).reshape(-1, side, side))
    on_device = pixels[None].to(models.device)
    features = encode_patches(encoder_pixels(on_device, models.preset.encoder_side), models)[0].float().cpu()
    pooled = pool_features(grid, features).half().float()
    return Candidates(torch.where(grid, 10.0, -10.0), torch.linspace(0.9, 0.8, len(grid)), pooled, image_hw)


def propose_truth(monkeypatch: pytest.MonkeyPatch, dataset: fo.Dataset, field: str = "ground_truth") -> None:
    """Let every readable image of a dataset have its labelled objects as candidates; all other images have none."""
    side = load_models("demo").segmenter_side
    truth: dict[bytes, NDArray[np.bool_]] = {}
    for sample in dataset:
        if sample[field] is not None and sample[field].detections:
            image = read_image(sample.filepath)
            masks = [whole_mask(detection, (image.height, image.width)) for detection in sample[field].detections]
            truth[segmenter_pixels(image, side).numpy().tobytes()] = np.array(masks)

    @torch.inference_mode()
    def propose_from_pixels(
        pixels: Tensor, sizes: Sequence[tuple[int, int]], models: Models, *, max_iou: float | None = None, gate: None = None
    ) -> list[Candidates]:
        return [
            candidates_of(row, truth.get(row.numpy().tobytes(), np.zeros((0, *image_hw), bool)), image_hw, models)
            for row, image_hw in zip(pixels, sizes, strict=True)
        ]

    monkeypatch.setattr("refseg.dataset.builder.propose_from_pixels", propose_from_pixels)
    monkeypatch.setattr("refseg.runs.segmenter.propose_from_pixels", propose_from_pixels)


def segment_all(view: Any, prototypes: Any, label_field: str = "predictions", **options: Any) -> SegmentReport:
    """segment, in this process, whatever the score."""
    return segment(view, prototypes, label_field, **{"min_confidence": 0.0, "num_workers": 0, "progress": False, **options})
