"""Small trays of parts with exact masks, and candidates made of those masks.

The demo segmenter need not find anything on images this small. Where a test is about matching and writing, `propose_truth` puts
the ground truth in its place; features, prototypes, matching and labels stay the real ones.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from io import BytesIO
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
    return [copy.deepcopy(scene) for scene, _ in _drawn(num_images, seed)]


@functools.cache
def _drawn(num_images: int, seed: int) -> list[tuple[Scene, bytes]]:
    """Scenes and their images as PNG files, drawn once a session: hundreds of tests begin with them."""
    rng = np.random.default_rng(seed)
    families = [draw_family(rng, [part]) for part in PARTS]
    drawn = []
    while len(drawn) < num_images:
        scene = render_scene(rng, families, IMAGE_HW, radius=(0.14, 0.18), max_overlap=0.0)
        if len(scene.families) == len(PARTS):
            file = BytesIO()
            Image.fromarray(scene.image).save(file, "png")
            drawn.append((scene, file.getvalue()))
    return drawn


def tray_samples(folder: Path, num_images: int = 4, *, labels: Sequence[str] = PARTS, seed: int = 33) -> list[fo.Sample]:
    """Trays as samples with exact masks in `ground_truth`, the classes of PARTS called by these labels."""
    import fiftyone as fo

    samples = []
    for number, (scene, file) in enumerate(_drawn(num_images, seed)):
        path = folder / f"tray_{number}.png"
        path.write_bytes(file)
        objects = [
            fo.Detection.from_mask(mask, label=labels[family]) for mask, family in zip(scene.masks, scene.families, strict=True)
        ]
        samples.append(fo.Sample(str(path), ground_truth=fo.Detections(detections=objects)))
    return samples


def tray_prototypes(folder: Path, num_images: int = 2) -> Prototypes:
    """Prototypes of the demo preset from the objects of the first trays, without a dataset."""
    references = []
    for number, (scene, file) in enumerate(_drawn(num_images, 33)):
        path = folder / f"reference_{number}.png"
        path.write_bytes(file)
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


class Truth:
    """The labelled objects of some images, to be taken for their candidates."""

    def __init__(self, masks: dict[bytes, NDArray[np.bool_]]) -> None:
        self._masks = masks
        self._known: dict[tuple[Any, ...], tuple[Models, Candidates]] = {}

    def propose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let every image have its labelled objects as candidates, and all other images none."""

        @torch.inference_mode()
        def propose_from_pixels(
            pixels: Tensor, sizes: Sequence[tuple[int, int]], models: Models, *, max_iou: float | None = None, gate: None = None
        ) -> list[Candidates]:
            return [self._candidates(row, image_hw, models) for row, image_hw in zip(pixels, sizes, strict=True)]

        monkeypatch.setattr("refseg.candidates.tiles.propose_from_pixels", propose_from_pixels)
        monkeypatch.setattr("refseg.runs.segmenter.propose_from_pixels", propose_from_pixels)

    def _candidates(self, pixels: Tensor, image_hw: tuple[int, int], models: Models) -> Candidates:
        look = pixels.numpy().tobytes()
        masks = self._masks.get(look, np.zeros((0, *image_hw), bool))
        # The models are kept too: no others can then have the same identity.
        key = look, image_hw, models.preset, id(models.dinov2)
        if key not in self._known:
            self._known[key] = models, candidates_of(pixels, masks, image_hw, models)
        return copy.deepcopy(self._known[key][1])


def truth_of(dataset: fo.Dataset, field: str = "ground_truth") -> Truth:
    """Of every readable image of a dataset that has labelled objects."""
    side = load_models("demo").segmenter_side
    truth: dict[bytes, NDArray[np.bool_]] = {}
    for sample in dataset:
        if sample[field] is not None and sample[field].detections:
            image = read_image(sample.filepath)
            masks = [whole_mask(detection, (image.height, image.width)) for detection in sample[field].detections]
            truth[segmenter_pixels(image, side).numpy().tobytes()] = np.array(masks)
    return Truth(truth)


def propose_truth(monkeypatch: pytest.MonkeyPatch, dataset: fo.Dataset, field: str = "ground_truth") -> None:
    """Let every readable image of a dataset have its labelled objects as candidates; all other images have none."""
    truth_of(dataset, field).propose(monkeypatch)


def segment_all(view: Any, prototypes: Any, label_field: str = "predictions", **options: Any) -> SegmentReport:
    """segment, in this process, whatever the score."""
    return segment(view, prototypes, label_field, **{"min_confidence": 0.0, "num_workers": 0, "progress": False, **options})
