"""How much slower an index is built where as many programs as there are cores compute beside it.

    python -m benchmarks.crowded --model demo --images 24

With a fair share of each core a build takes twice as long. It takes many times as long where its threads wait for each other
within every operation. A part of the images alone, and a part beside busy loops, take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fiftyone as fo

import refseg
from benchmarks.report import Figure, as_table, at_most, details, seconds_of, spread
from benchmarks.throughput import write_images
from refseg.models import load_models

NAME = "refseg-crowded"
NUM_TURNS = 3
MOST_TIMES = 2.5
BUSY_LOOP = "while True: pass"


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many programs that compute all the time, within a `with` block."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def slow_down(model: str, num_images: int, num_loops: int) -> list[Figure]:
    """Build parts of an index alone and beside busy loops, in turns."""
    models = load_models(model)
    with tempfile.TemporaryDirectory() as place:
        paths = write_images(Path(place), 2 * NUM_TURNS * num_images + num_images)
        dataset = fo.Dataset(NAME, overwrite=True)
        try:
            dataset.add_samples([fo.Sample(filepath=path) for path in paths], progress=False)
            parts = iter([dataset[start : start + num_images] for start in range(0, len(paths), num_images)])

            def build() -> float:
                return seconds_of(lambda: refseg.build_index(next(parts), models, progress=False))[0]

            build()  # warms up
            alone, crowded = [], []
            for _ in range(NUM_TURNS):
                alone.append(build())
                with busy_loops(num_loops):
                    crowded.append(build())
            refseg.open_index(dataset).delete()
        finally:
            dataset.delete()
    ratios = [slow / quick for slow, quick in zip(crowded, alone, strict=True)]
    each = 1e3 / num_images
    return [
        Figure("build_index alone, an image", statistics.median(alone) * each, "ms", detail=spread(alone, 1 / each)),
        Figure("beside busy loops, an image", statistics.median(crowded) * each, "ms", detail=spread(crowded, 1 / each)),
        at_most(f"{num_loops} busy loops beside it: times as long", statistics.median(ratios), MOST_TIMES, "×", spread(ratios)),
    ]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Time a build alone and beside busy loops.")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", type=int, default=24, help="of each part; there are seven")
    parser.add_argument("--loops", type=int, default=os.cpu_count() or 1, help="by default as many as there are cores")
    options = parser.parse_args()
    figures = slow_down(options.model, options.images, options.loops)
    print(f"{as_table(figures)}\n\n{details(figures)}")


if __name__ == "__main__":
    main()
