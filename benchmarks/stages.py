"""Time the stages between an image and its instances: read, propose, match.

    python benchmarks/stages.py --model demo --images 20

Draws its own images. Each stage is timed for every image after three that warm up; the table gives the median and the
middle half. Matching uses five random prototypes: its time does not depend on what they look like.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from refseg.candidates import propose
from refseg.demo.world import draw_family, render_scene
from refseg.images import read_image
from refseg.matching import match
from refseg.models import PRESETS, load_models

NUM_WARM_UP = 3
NUM_CLASSES = 5
Answer = TypeVar("Answer")


def write_images(folder: Path, count: int) -> list[Path]:
    """Draw scenes of parts on a tray and write them as JPEG."""
    rng = np.random.default_rng(1)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        scene = render_scene(rng, [draw_family(rng) for _ in range(4)])
        Image.fromarray(scene.image).save(path, quality=95)
    return paths


def timed(work: Callable[[], Answer], seconds: list[float]) -> Answer:
    """Do the work, note how long it took, return its answer."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    answer = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - started)
    return answer


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Time RefSeg's stages.")
    parser.add_argument("--model", default="demo", choices=sorted(PRESETS))
    parser.add_argument("--images", type=int, default=20, help="images that are timed, two or more")
    options = parser.parse_args()

    stages: dict[str, list[float]] = {"read": [], "propose": [], "match": []}
    models = load_models(options.model)
    generator = torch.Generator().manual_seed(1)
    prototypes = torch.nn.functional.normalize(torch.randn(NUM_CLASSES, models.feature_width, generator=generator), dim=1)
    with tempfile.TemporaryDirectory() as folder:
        for path in write_images(Path(folder), NUM_WARM_UP + options.images):
            image = timed(lambda path=path: read_image(path), stages["read"])
            candidates = timed(lambda image=image: propose([image], models)[0], stages["propose"])
            timed(lambda candidates=candidates: match(candidates, prototypes), stages["match"])

    print(f"model {options.model}, {models.device}, {models.dtype}, torch {torch.__version__}, {torch.get_num_threads()}")
    print(f"{options.images} images after {NUM_WARM_UP}; {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"{'stage':<10}{'median ms':>12}{'middle half ms':>20}")
    for name, seconds in stages.items():
        low, middle, high = (1000 * part for part in statistics.quantiles(seconds[NUM_WARM_UP:], n=4))
        print(f"{name:<10}{middle:>12.1f}{low:>12.1f} – {high:.1f}")


if __name__ == "__main__":
    main()
