"""What the candidate index saves: segmenting from it against segmenting without it, on the same images in one run.

    python -m benchmarks.resegment --images 1000 --compared 60

Uses the demo preset and trays like the demo's, in a FiftyOne dataset of its own that is deleted afterwards. Measures

- compute: from image files to instances without the index, and from the index to the same instances;
- the same with FiftyOne's reads and writes, by `refseg.segment`;
- what a curator waits for after adding one reference to an indexed dataset, until the predictions can be read;
- the size of the index at the width of the largest encoder, and what dropping near-duplicates does to the score.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import refseg
from benchmarks.report import Figure, as_table, at_least, at_most, seconds_of, spread
from refseg.candidates import NEAR_DUPLICATE_IOU, Candidates, pack, propose, propose_from_pixels
from refseg.demo.dataset import CLASSES, build_demo_dataset
from refseg.evaluation import evaluate
from refseg.images import IMAGES_A_BATCH, load_batches, read_image, stack_pixels
from refseg.index import CandidateIndex, FileState, IndexSettings
from refseg.matching import classify, crop_instances, make_gallery, match, rank
from refseg.models import Models, load_models
from refseg.prototypes import Prototypes

NAME = "refseg-benchmark"
MODEL = "demo"
SHOTS = 3
REPEATS = 5
LARGE_WIDTH, LARGE_GRID, LARGE_POINTS = 1024, 256, 32
NUM_SIZED = 20


def compute_without(paths: list[str], prototypes: Prototypes, models: Models) -> int:
    """From files to instances; returns how many."""
    least, number, gallery = models.preset.min_confidence, 0, make_gallery(prototypes)
    for batch in load_batches(paths, models.segmenter_side, batch_size=IMAGES_A_BATCH[models.device.type]):
        sizes = [image.image_hw for image in batch]
        for candidates in propose_from_pixels(stack_pixels(batch), sizes, models):
            number += len(match(candidates, gallery, min_score=least))
    return number


def compute_from(index: CandidateIndex, sample_ids: list[str], prototypes: Prototypes, least: float) -> int:
    """From the index to instances; returns how many."""
    number = 0
    gallery = make_gallery(prototypes)
    for chunk in index.scan(sample_ids):
        classified = classify(chunk.features, gallery)
        for position in range(len(chunk.images)):
            rows = slice(int(chunk.starts[position]), int(chunk.starts[position + 1]))
            candidates = chunk.candidates(position)
            number += len(crop_instances(candidates, rank(candidates, classified.take(rows), min_score=least)))
    return number


def compare(dataset: Any, prototypes: Prototypes, num_compared: int) -> list[Figure]:
    """The same images with and without the index."""
    models = load_models(MODEL)
    view = dataset.limit(num_compared)
    sample_ids, paths = view.values(["id", "filepath"])
    compute_without(paths[:4], prototypes, models)
    slow, num_slow = seconds_of(lambda: compute_without(paths, prototypes, models))
    index = refseg.open_index(dataset, MODEL).index
    least = models.preset.min_confidence
    compute_from(index, sample_ids, prototypes, least)
    runs = [seconds_of(lambda: compute_from(index, sample_ids, prototypes, least)) for _ in range(REPEATS)]
    fast = statistics.median(seconds for seconds, _ in runs)
    each = f"an image: {slow / len(paths) * 1e3:.0f} ms without, {fast / len(paths) * 1e3:.2f} ms from the index"
    detail = f"{each}; {num_slow} and {runs[0][1]} instances in {len(paths)} images"
    slow_writing = refseg.segment(view, prototypes, "without", index=False, progress=False).seconds
    # A field of its own each time: what is the same already would not be written.
    written = [refseg.segment(view, prototypes, f"from_{number}", progress=False).seconds for number in range(REPEATS)]
    fast_writing = statistics.median(written)
    with_writes = (
        f"an image: {slow_writing / len(paths) * 1e3:.0f} ms without, {fast_writing / len(paths) * 1e3:.1f} ms from the index "
        f"(min / median / max of all {spread(written)} s)"
    )
    return [
        at_least("segment again from the index, compute", slow / fast, 100, "×", detail),
        at_least("the same with FiftyOne's writes", slow_writing / fast_writing, 30, "×", with_writes),
    ]


def add_reference(dataset: Any, prototypes: Prototypes) -> Figure:
    """From one more reference to new predictions that can be read."""
    refseg.segment(dataset, prototypes, "predictions", progress=False)
    known = set(prototypes.reference_ids)
    fresh = dataset.match_labels(fields="ground_truth", tags="spare").first()
    one = next(label.id for label in fresh.ground_truth.detections if "spare" in label.tags and label.id not in known)

    def again() -> tuple[Any, int]:
        dataset.select_labels(ids=[one], fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        references = refseg.collect_references(dataset, "ground_truth", tags="reference")
        built = refseg.build_prototypes(references, MODEL, reuse=prototypes, progress=False)
        report = refseg.segment(dataset, built, "predictions", progress=False)
        return report, len(dataset.values("predictions.detections.label", unwind=True))

    seconds, (report, number) = seconds_of(again)
    detail = f"{report.num_written} of {report.num_images} images were written, {number} instances read back"
    return at_most(f"one reference added, {len(dataset):,} indexed images, until readable", seconds, 10, "s", detail)


def sizes(dataset: Any, prototypes: Prototypes, folder: Path) -> list[Figure]:
    """Bytes an image at the width and grid of the largest preset, and the score with and without near-duplicates."""
    paths = dataset.limit(NUM_SIZED).values("filepath")
    models = load_models(MODEL)
    settings = IndexSettings("size", "", "", {}, False, LARGE_GRID, LARGE_WIDTH, "benchmark")
    index = CandidateIndex.create(folder / "size", settings)
    # The demo's own features, turned into the larger space: as many different numbers as a larger encoder gives.
    turn = torch.randn(models.feature_width, LARGE_WIDTH, generator=torch.Generator().manual_seed(4))
    asked = with_points(models, LARGE_POINTS)
    images, counts = [], []
    for number, path in enumerate(paths):
        found = propose([read_image(path)], asked, max_iou=NEAR_DUPLICATE_IOU)[0]
        logits = F.interpolate(found.logits[None], size=(LARGE_GRID, LARGE_GRID), mode="bilinear", align_corners=False)[0]
        features = F.normalize(found.features @ turn, dim=1)
        wide = Candidates(logits, found.predicted_iou, features, found.image_hw)
        counts.append(len(wide))
        images.append((str(number), FileState(path, 1, 1), pack(wide)))
    index.append(images)
    index.refresh()
    per_image = index.num_bytes / len(images)
    detail = (
        f"{statistics.mean(counts):.0f} candidates an image of {LARGE_POINTS}² prompts, grid {LARGE_GRID}, "
        f"{index.num_bytes / sum(counts) / 1e3:.2f} KB a candidate"
    )
    refseg.segment(dataset, prototypes, "dropped", min_confidence=0.0, progress=False)
    exact = folder / "exact"
    refseg.build_index(dataset, MODEL, uri=exact, exact=True, progress=False)
    handle = refseg.open_index(dataset, MODEL, uri=exact)
    refseg.segment(dataset, prototypes, "kept", min_confidence=0.0, index=handle, progress=False)
    scores = [
        evaluate(dataset, field, "ground_truth", classes=list(CLASSES), progress=False).mask_ap for field in ("dropped", "kept")
    ]
    return [
        at_most("index at C = 1024, an image", per_image / 1e3, 300, "KB", detail),
        at_most(
            "mask AP without near-duplicates, apart from exact",
            abs(scores[0] - scores[1]),
            0.005,
            "",
            f"{scores[0]:.4f} without, {scores[1]:.4f} exact, {len(dataset)} images",
        ),
    ]


def with_points(models: Models, per_side: int) -> Models:
    """The same models, asked at another grid of prompts."""
    from dataclasses import replace

    return replace(models, preset=replace(models.preset, points_per_side=per_side))


def measure(num_images: int = 1000, num_compared: int = 60) -> list[Figure]:
    """Make the dataset, measure, delete it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset = build_demo_dataset(folder / "images", name=NAME, num_images=num_images)
        try:
            refseg.sample_references(dataset, "ground_truth", SHOTS)
            refseg.sample_references(dataset, "ground_truth", SHOTS, seed=34, tag="spare")
            references = refseg.collect_references(dataset, "ground_truth", tags="reference")
            prototypes = refseg.build_prototypes(references, MODEL, progress=False)
            report = refseg.build_index(dataset, MODEL, progress=None)
            built = Figure(
                "index built, demo preset, an image",
                report.seconds / report.num_added * 1e3,
                "ms",
                detail=f"{report.num_added} images, {report.bytes_per_image / 1e3:.1f} KB an image",
            )
            figures = [built, *compare(dataset, prototypes, num_compared), add_reference(dataset, prototypes)]
            part = dataset.limit(num_compared).clone(f"{NAME}-part")
            try:
                figures += sizes(part, prototypes, folder)
            finally:
                part.delete()
            refseg.open_index(dataset, MODEL).delete()
        finally:
            dataset.delete()
    return figures


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Compare segmenting with and without the index.")
    parser.add_argument("--images", type=int, default=1000, help="images of the indexed dataset")
    parser.add_argument("--compared", type=int, default=60, help="of these, images segmented without the index too")
    options = parser.parse_args()
    figures = measure(options.images, options.compared)
    print(as_table(figures))
    for figure in figures:
        print(f"{figure.name}: {figure.detail}")


if __name__ == "__main__":
    main()
