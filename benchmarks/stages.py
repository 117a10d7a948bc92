"""Time the stages between an image and its instances: read, propose, pack, match.

    python -m benchmarks.stages --model demo --images 20

Draws its own images. Each stage is timed for every image after three that warm up; the table gives medians. Matching uses five
random prototypes: its time does not depend on what they look like.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.report import Figure, as_table, seconds_of, spread
from refseg.candidates import NEAR_DUPLICATE_IOU, pack, propose
from refseg.demo.world import draw_family, render_scene
from refseg.images import read_image
from refseg.matching import Gallery, match
from refseg.models import PRESETS, load_models

NUM_WARM_UP = 3
NUM_CLASSES = 5


def write_images(folder: Path, count: int) -> list[Path]:
    """Draw scenes of parts on a tray and write them as JPEG."""
    rng = np.random.default_rng(1)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        scene = render_scene(rng, [draw_family(rng) for _ in range(4)])
        Image.fromarray(scene.image).save(path, quality=95)
    return paths


def measure(model: str = "demo", num_images: int = 20) -> list[Figure]:
    """Time each stage on so many images, two or more."""
    stages: dict[str, list[float]] = {"read": [], "propose": [], "pack": [], "match": []}
    models = load_models(model)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(NUM_CLASSES, models.feature_width, generator=generator)
    gallery = Gallery(torch.nn.functional.normalize(vectors, dim=1))
    with tempfile.TemporaryDirectory() as folder:
        for path in write_images(Path(folder), NUM_WARM_UP + num_images):
            seconds, image = seconds_of(lambda path=path: read_image(path))
            stages["read"].append(seconds)
            seconds, found = seconds_of(lambda image=image: propose([image], models, max_iou=NEAR_DUPLICATE_IOU))
            stages["propose"].append(seconds)
            seconds, packed = seconds_of(lambda found=found: pack(found[0]))
            stages["pack"].append(seconds)
            seconds, _ = seconds_of(lambda packed=packed: match(packed, gallery))
            stages["match"].append(seconds)
    figures = []
    for name, all_seconds in stages.items():
        timed = all_seconds[NUM_WARM_UP:]
        detail = f"min / median / max {spread(timed, 1e-3)} ms; {models.device}, {models.dtype}"
        figures.append(Figure(f"{name}, preset {model}, an image", statistics.median(timed) * 1e3, "ms", detail=detail))
    return figures


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Time RefSeg's stages.")
    parser.add_argument("--model", default="demo", choices=sorted(PRESETS))
    parser.add_argument("--images", type=int, default=20, help="images that are timed, two or more")
    options = parser.parse_args()
    print(as_table(measure(options.model, options.images)))


if __name__ == "__main__":
    main()
