"""What segmenting again costs where everything is known: candidates, second looks, and what the samples hold.

    python -m benchmarks.segment_again --images 10000

A few trays like the demo's are indexed and looked at twice; a large dataset then holds links to their files, and an index of
the same candidates and looks for each. So an image costs what it costs in a real dataset of that size; no model is needed. Two
sets of prototypes, of 20 references and of one fewer, take turns: every score is then another one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo

import refseg
from benchmarks.report import Figure, as_table, at_most, details, spread
from refseg.dataset.file_states import file_state
from refseg.dataset.index import index_for
from refseg.demo.dataset import build_demo_dataset
from refseg.errors import IndexNotFoundError
from refseg.index import FileState
from refseg.models import load_models

NAME = "refseg-benchmark-again"
MODEL = "demo"
REFERENCES = 20
NUM_DRAWN = 60
REPEATS = 3
IMAGES_A_WRITE = 2000
WITH_WRITES, WITHOUT = 2.0, 0.5
"""Milliseconds an image that are asked for."""


def draw(folder: Path) -> tuple[Any, list[Any]]:
    """A small dataset, indexed and looked at twice with two sets of prototypes, and these."""
    small = build_demo_dataset(folder / "drawn", name=f"{NAME}-drawn", num_images=NUM_DRAWN)
    ids = small.values("ground_truth.detections.id", unwind=True)[:REFERENCES]
    refseg.build_index(small, MODEL, progress=False)
    sets = []
    for number in (REFERENCES, REFERENCES - 1):
        references = refseg.collect_references(small, "ground_truth", label_ids=ids[:number])
        built = refseg.build_prototypes(references, MODEL, progress=False)
        sets.append(refseg.calibrate(small, built, progress=False))
        refseg.segment(small, sets[-1], "predictions", progress=False)
    return small, sets


def spread_out(small: Any, folder: Path, num_images: int) -> Any:
    """A dataset of so many images that are those of a small one over and over, with an index of the same candidates."""
    folder.mkdir()
    drawn, samples = small.values(["id", "filepath"]), []
    for number in range(num_images):
        path = folder / f"tray_{number:06d}.png"
        os.symlink(drawn[1][number % len(drawn[1])], path)
        samples.append(fo.Sample(str(path)))
    dataset = fo.Dataset(NAME, persistent=True, overwrite=True)
    dataset.add_samples(samples, progress=False)
    own, known = refseg.open_index(small, MODEL).index, {}
    for chunk in own.scan():
        for number, (image, seen) in enumerate(zip(chunk.images, own.looks.read(chunk.images), strict=True)):
            known[image.sample_id] = chunk.candidates(number), seen, image.file.orientation
    target = index_for(dataset, load_models(MODEL)).index
    every = list(zip(*dataset.values(["id", "filepath"]), strict=True))
    for start in range(0, num_images, IMAGES_A_WRITE):
        some = range(start, min(start + IMAGES_A_WRITE, num_images))
        packed = [known[drawn[0][number % len(drawn[0])]] for number in some]
        states = [_state(every[number][1], found[2]) for number, found in zip(some, packed, strict=True)]
        rows = zip(some, states, packed, strict=True)
        target.append([(every[number][0], state, found[0]) for number, state, found in rows])
    target.refresh()
    for start in range(0, num_images, IMAGES_A_WRITE):
        some = range(start, min(start + IMAGES_A_WRITE, num_images))
        pairs = [(target.images[every[number][0]], known[drawn[0][number % len(drawn[0])]][1]) for number in some]
        target.looks.append([(image, *seen) for image, seen in pairs])
    return dataset


def _state(path: str, orientation: int) -> FileState:
    state = file_state(path)
    assert state is not None
    return replace(state, orientation=orientation)


def compare(dataset: Any, sets: list[Any], repeats: int = REPEATS) -> list[Figure]:
    """Every image written for the first time, every image written again, and none."""
    wall: dict[str, list[float]] = {"first": [], "again": [], "same": []}
    busy: dict[str, list[float]] = {"first": [], "again": [], "same": []}
    written: dict[str, int] = {}

    def run(kind: str, prototypes: Any, field: str) -> None:
        started = time.process_time()
        report = refseg.segment(dataset, prototypes, field, progress=False)
        busy[kind].append((time.process_time() - started) * 1e3 / len(dataset))
        wall[kind].append(report.seconds * 1e3 / len(dataset))
        written[kind] = report.num_written
        print(f"{kind}: {wall[kind][-1]:.2f} ms an image, {busy[kind][-1]:.2f} ms of cores", file=sys.stderr, flush=True)
        assert not report.num_looked

    for number in range(repeats):
        field = f"predictions_{number}"
        run("first", sets[0], field)
        run("same", sets[0], field)
        run("again", sets[1], field)
        dataset.delete_sample_field(field)
    names = {
        "first": ("segment from the index, looks known, every image written the first time, an image", WITH_WRITES),
        "again": ("the same, every score another than before, an image", WITH_WRITES),
        "same": ("the same, nothing has changed, an image", WITHOUT),
    }
    return [
        at_most(
            name,
            statistics.median(wall[kind]),
            limit,
            "ms",
            f"min / median / max {spread(wall[kind])} ms, {spread(busy[kind])} ms of this process's cores; "
            f"{written[kind]} of {len(dataset)} images written",
        )
        for kind, (name, limit) in names.items()
    ]


def measure(num_images: int = 10_000, repeats: int = REPEATS) -> list[Figure]:
    """Make the datasets, measure, delete them."""
    with tempfile.TemporaryDirectory() as place:
        made = []
        try:
            small, sets = draw(Path(place))
            made.append(small)
            made.append(spread_out(small, Path(place) / "links", num_images))
            return compare(made[-1], sets, repeats)
        finally:
            for dataset in made:
                with suppress(IndexNotFoundError):
                    refseg.open_index(dataset, MODEL).delete()
                dataset.delete()


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="What segmenting again costs.")
    parser.add_argument("--images", type=int, default=10_000, help="images of the dataset")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="times that each is measured")
    given = parser.parse_args()
    figures = measure(given.images, given.repeats)
    print(as_table(figures))
    print(details(figures))


if __name__ == "__main__":
    main()
