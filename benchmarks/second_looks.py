"""What second looks cost: the first time, every time after, and when a reference is added.

    python -m benchmarks.second_looks --images 1000

Uses the demo preset and trays like the demo's, indexed, in a FiftyOne dataset of its own that is deleted afterwards. Runs with
one look and with two are compared on the same images, turn by turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import refseg
from benchmarks.report import Figure, as_table, at_most, seconds_of, spread
from refseg.candidates import encode_patches
from refseg.demo.dataset import build_demo_dataset
from refseg.errors import IndexNotFoundError
from refseg.images import encoder_pixels, read_image, segmenter_pixels
from refseg.models import load_models
from refseg.progress import Progress

NAME = "refseg-benchmark-looks"
MODEL = "demo"
SHOTS, REFERENCES = 3, 20
REPEATS = 3
NUM_ENCODED = 60


@torch.inference_mode()
def encoder_pass(paths: list[str]) -> float:
    """Median seconds of the encoder's pass over a whole image, one image at a time."""
    models = load_models(MODEL)
    seconds = []
    for path in paths:
        pixels = encoder_pixels(segmenter_pixels(read_image(path), models.segmenter_side)[None], models.preset.encoder_side)
        seconds.append(seconds_of(lambda pixels=pixels: encode_patches(pixels, models))[0])
    return statistics.median(seconds)


def run(dataset: Any, prototypes: Any, field: str, second_look: bool = True, progress: Any = False) -> Any:
    """Segment every image with probabilities for scores."""
    matching = refseg.MatchSettings(second_look=second_look)
    return refseg.segment(dataset, prototypes, field, matching=matching, progress=progress)


def compare(dataset: Any, prototypes: Any) -> list[Figure]:
    """The first time, and after it with one look and with two."""
    each = 1e3 / len(dataset)
    paths = dataset.limit(NUM_ENCODED).values("filepath")
    run(dataset, prototypes, "once", second_look=False)
    whole = encoder_pass(paths)
    first = run(dataset, prototypes, "twice")
    fields: dict[bool, list[float]] = {True: [], False: []}
    for number in range(REPEATS):
        for second_look, seconds in fields.items():
            # A field of its own each time: what is the same already would not be written.
            seconds.append(run(dataset, prototypes, f"field_{second_look}_{number}", second_look).seconds)
    two, one = (statistics.median(fields[name]) for name in (True, False))
    same = statistics.median(run(dataset, prototypes, "twice").seconds for _ in range(REPEATS))
    looks = (first.seconds - two) / max(1, first.num_looked)
    return [
        at_most(
            "second looks, an image looked at, by the encoder's pass over a whole image",
            looks / whole,
            3.5,
            "×",
            f"{looks * 1e3:.0f} ms against {whole * 1e3:.0f} ms; {first.num_looked} of {len(dataset)} images were looked at, "
            "the others had no plausible candidate",
        ),
        at_most(
            "segment from the index, second looks known, an image",
            two * each,
            5,
            "ms",
            f"min / median / max {spread(fields[True])} s, all predictions written; with one look {one * each:.1f} ms "
            f"({two / one:.2f} ×)",
        ),
        at_most("the same where nothing has changed, an image", same * each, 5, "ms", "nothing is written"),
    ]


def add_reference(dataset: Any, prototypes: Any, spare: str) -> list[Figure]:
    """From one more reference to new predictions that can be read, learning included."""
    answered: list[float] = []

    def watch(step: Progress) -> None:
        if step.label == "second looks" and not answered:
            answered.append(time.perf_counter())

    def again() -> Any:
        dataset.select_labels(ids=[spare], fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        references = refseg.collect_references(dataset, "ground_truth", tags="reference")
        built = refseg.build_prototypes(references, MODEL, reuse=prototypes, progress=False)
        report = run(dataset, refseg.calibrate(dataset, built, progress=False), "twice", progress=watch)
        dataset.values("twice.detections.label", unwind=True)
        return report

    started = time.perf_counter()
    seconds, report = seconds_of(again)
    first = answered[0] - started if answered else seconds
    detail = f"candidates of {report.num_looked} images were looked at anew, {report.num_written} images were written"
    name = f"one reference added to {REFERENCES}, {len(dataset):,} images indexed and looked at"
    told = "what follows are second looks at new candidates, told as still running"
    return [
        at_most(f"{name}, until every image is answered", first, 10, "s", told),
        Figure(f"{name}, until all is done and read", seconds, "s", detail=detail),
    ]


def measure(num_images: int = 1000) -> list[Figure]:
    """Make the dataset, measure, delete it."""
    with tempfile.TemporaryDirectory() as place:
        dataset = build_demo_dataset(Path(place) / "images", name=NAME, num_images=num_images)
        try:
            refseg.sample_references(dataset, "ground_truth", SHOTS)
            refseg.sample_references(dataset, "ground_truth", SHOTS, seed=34, tag="spare")
            tagged = {label.id for label in _labels(dataset, "reference")}
            spare = [label.id for label in _labels(dataset, "spare") if label.id not in tagged]
            more = spare[: REFERENCES - len(tagged)]
            dataset.select_labels(ids=more, fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
            references = refseg.collect_references(dataset, "ground_truth", tags="reference")
            refseg.build_index(dataset, MODEL, progress=None)
            built = refseg.build_prototypes(references, MODEL, progress=False)
            seconds, prototypes = seconds_of(lambda: refseg.calibrate(dataset, built, progress=False))
            detail = f"{len(references)} references; looks again at what lies around them and at 300 candidates of the dataset"
            figures = [Figure("calibrate, the first time", seconds, "s", detail=detail), *compare(dataset, prototypes)]
            figures += add_reference(dataset, prototypes, spare[len(more)])
        finally:
            with suppress(IndexNotFoundError):
                refseg.open_index(dataset, MODEL).delete()
            dataset.delete()
    return figures


def _labels(dataset: Any, tag: str) -> list[Any]:
    view = dataset.select_labels(tags=tag, fields="ground_truth")
    return [label for labels in view.values("ground_truth.detections") for label in labels or ()]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="What second looks cost.")
    parser.add_argument("--images", type=int, default=1000, help="images of the dataset")
    figures = measure(parser.parse_args().images)
    print(as_table(figures))
    for figure in figures:
        print(f"{figure.name}: {figure.detail}")


if __name__ == "__main__":
    main()
