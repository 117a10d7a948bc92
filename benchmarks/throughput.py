"""What share of the bare candidate rate the product keeps, on images of two megapixels.

    python -m benchmarks.throughput --images 200 --model demo

The bare rate is that of `propose_from_pixels` on pixels made before, in batches of the same size, nothing kept. Compared with
it are `build_index`, `segment` without an index, and `segment` that fills one, with FiftyOne's reads and writes; the first and
the last leave near-duplicates out, and so does the bare rate beside them. All take turns on parts of the images, so that
whatever else the machine does hits them alike; every turn includes what a call costs once. What reading, packing, keeping and
writing cost by themselves is measured in one thread. Images are scenes of the demo's world, enlarged, with a camera's grain.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import torch
from PIL import Image

import refseg
from benchmarks.report import Figure, as_table, at_least, details, seconds_of, spread
from refseg.candidates import NEAR_DUPLICATE_IOU, pack, propose_from_pixels
from refseg.demo.dataset import build_demo_dataset, draw_classes, draw_tray
from refseg.images import IMAGES_A_BATCH, read_image, segmenter_pixels
from refseg.index import CandidateIndex, FileState, IndexSettings
from refseg.models import PRESETS, Models, load_models
from refseg.prototypes import Prototypes

NAME = "refseg-throughput"
SIZE = (1632, 1224)
GRAIN = 6
"""Grey levels up and down: noise makes JPEG files as large, and as slow to read, as a camera's."""
NUM_SCENES = 12
NUM_TURNS = 4
NUM_ALONE = 12
"""Images on which each step is timed by itself."""
SHOTS = 3
LEAST_SHARE = 0.9

Ways = dict[str, Callable[[int], object]]
"""What is done with the images of a turn, by name."""


def write_images(folder: Path, count: int, size: tuple[int, int] = SIZE, suffix: str = ".jpg") -> list[str]:
    """Trays of this width and height, each with grain of its own."""
    rng = np.random.default_rng(11)
    classes = draw_classes(rng)
    scenes = [Image.fromarray(draw_tray(rng, classes, empty=False)[0].image) for _ in range(min(count, NUM_SCENES))]
    paths = [folder / f"{number:05}{suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        enlarged = np.asarray(scenes[number % len(scenes)].resize(size, Image.Resampling.BICUBIC))
        grain = rng.integers(-GRAIN, GRAIN + 1, (*enlarged.shape[:2], 1), np.int16)
        Image.fromarray((enlarged + grain).clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return [str(path) for path in paths]


def tray_prototypes(folder: Path, models: Models) -> Prototypes:
    """Of the demo's classes, from a few trays of their own."""
    dataset = build_demo_dataset(folder, name=f"{NAME}-references", num_images=40)
    try:
        refseg.sample_references(dataset, "ground_truth", SHOTS)
        references = refseg.collect_references(dataset, "ground_truth", tags="reference")
        return refseg.build_prototypes(references, models, progress=False)
    finally:
        dataset.delete()


def propose_all(pixels: Sequence[torch.Tensor], models: Models, max_iou: float | None) -> None:
    """Candidates of pixels made before, a batch at a time; nothing is kept."""
    size = IMAGES_A_BATCH[models.device.type]
    for start in range(0, len(pixels), size):
        batch = torch.stack(list(pixels[start : start + size]))
        propose_from_pixels(batch, [SIZE[::-1]] * len(batch), models, max_iou=max_iou)


def take_turns(ways: Ways, num_turns: int, images_a_turn: int) -> dict[str, list[float]]:
    """Images a second of each way in each turn; each turn begins with another way."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(num_turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            seconds, _ = seconds_of(lambda name=name, turn=turn: ways[name](turn))
            rates[name].append(images_a_turn / seconds)
    return rates


def steps_alone(paths: Sequence[str], models: Models, folder: Path) -> list[Figure]:
    """What each step around the models costs by itself, in one thread."""
    side = models.segmenter_side
    reading, resizing, packing = [], [], []
    packed = []
    for path in paths:
        seconds, image = seconds_of(lambda path=path: read_image(path))
        reading.append(seconds)
        seconds, pixels = seconds_of(lambda image=image: segmenter_pixels(image, side))
        resizing.append(seconds)
        found = propose_from_pixels(pixels[None], [SIZE[::-1]], models, max_iou=NEAR_DUPLICATE_IOU)[0]
        seconds, one = seconds_of(lambda found=found: pack(found))
        packing.append(seconds)
        packed.append(one)
    settings = IndexSettings("alone", "", "", {}, False, models.grid_side, models.feature_width, "benchmark")
    index = CandidateIndex.create(folder / "alone", settings)
    rows = [(str(number), FileState(str(number), 1, 1), one) for number, one in enumerate(packed)]
    keeping = [seconds_of(lambda row=row: index.append([row]))[0] for row in rows]
    named = {"decode": reading, "resize": resizing, "pack": packing, "append to the index, by itself": keeping}
    return [
        Figure(f"{name}, an image", statistics.median(times) * 1e3, "ms", detail=f"min / median / max {spread(times, 1e-3)} ms")
        for name, times in named.items()
    ]


def shares(rates: dict[str, list[float]]) -> list[Figure]:
    """Each way's rate as a share of the bare rate of the same turn."""
    pairs = {
        "build_index": "bare, near-duplicates dropped",
        "segment without an index": "bare",
        "segment that fills an index": "bare, near-duplicates dropped",
    }
    figures = [
        Figure(name, statistics.median(rates[name]), "images/s", detail=f"min / median / max {spread(rates[name])}")
        for name in rates
    ]
    for name, bare in pairs.items():
        found = [rate / other for rate, other in zip(rates[name], rates[bare], strict=True)]
        detail = f"min / median / max of the turns {spread(found)}"
        figures.append(at_least(f"{name} / {bare}", statistics.median(found), LEAST_SHARE, "", detail))
    return figures


def make_ways(
    datasets: Sequence[Any], pixels: Sequence[torch.Tensor], models: Models, prototypes: Prototypes, part: int
) -> Ways:
    """The ways that are compared; each works on images `part * turn` and those after."""
    built, filled = datasets

    def part_of(items: Any, turn: int) -> Any:
        return items[turn * part : (turn + 1) * part]

    def segment(dataset: Any, field: str, turn: int, index: bool) -> object:
        return refseg.segment(part_of(dataset, turn), prototypes, field, model=models, index=index, progress=False)

    return {
        "bare": lambda turn: propose_all(part_of(pixels, turn), models, None),
        "bare, near-duplicates dropped": lambda turn: propose_all(part_of(pixels, turn), models, NEAR_DUPLICATE_IOU),
        "build_index": lambda turn: refseg.build_index(part_of(built, turn), models, progress=False),
        "segment without an index": lambda turn: segment(built, "without", turn, False),
        "segment that fills an index": lambda turn: segment(filled, "filled", turn, True),
    }


def measure(model: str = "demo", num_images: int = 200, num_turns: int = NUM_TURNS) -> list[Figure]:
    """Make the images and two datasets of them, measure, delete them."""
    models = load_models(model)
    part = max(1, num_images // num_turns)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = write_images(folder, part * num_turns)
        prototypes = tray_prototypes(folder / "trays", models)
        pixels = [segmenter_pixels(read_image(path), models.segmenter_side) for path in paths]
        datasets = [fo.Dataset(f"{NAME}-{name}", overwrite=True) for name in ("built", "filled")]
        try:
            for dataset in datasets:
                dataset.add_samples([fo.Sample(filepath=path) for path in paths], progress=False)
            ways = make_ways(datasets, pixels, models, prototypes, part)
            propose_all(pixels[: 2 * IMAGES_A_BATCH[models.device.type]], models, NEAR_DUPLICATE_IOU)  # warm-up
            figures = shares(take_turns(ways, num_turns, part))
            seconds, _ = seconds_of(lambda: refseg.segment(datasets[0], prototypes, "from_index", model=models, progress=False))
            written = Figure("segment from the index: match and write, an image", seconds / len(paths) * 1e3, "ms")
            for dataset in datasets:
                refseg.open_index(dataset, models).delete()
            return [*figures, *steps_alone(paths[:NUM_ALONE], models, folder), written]
        finally:
            for dataset in datasets:
                dataset.delete()


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Compare what the product reaches with the bare candidate rate.")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="demo", choices=sorted(PRESETS))
    parser.add_argument("--turns", type=int, default=NUM_TURNS, help="parts of the images that all ways are measured on")
    options = parser.parse_args()
    figures = measure(options.model, options.images, options.turns)
    print(as_table(figures), details(figures), sep="\n")


if __name__ == "__main__":
    main()
