"""How several builders share the images of one index, and what leases cost one that is alone.

    python -m benchmarks.builders --images 200

Builders are processes with one thread of PyTorch's each, which begin together on the same fresh images: trays like the demo's,
preset `demo`, a FiftyOne dataset of its own that is deleted afterwards. Counted is what each has computed; what is more than
there are images was computed twice. One builder alone is timed with leases and without, in turns, by the processor's time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import refseg
from benchmarks.report import Figure, as_table, at_most, details, seconds_of, spread
from refseg.demo.dataset import build_demo_dataset
from refseg.index import CandidateIndex, FileState, IndexSettings, Leases

NAME = "refseg-builders"
MODEL = "demo"
NUM_TURNS = 5
NUM_ALONE = 16
NUM_LEASES = 30


def build_there(name: str, place: str, start_at: float) -> None:
    """In a process of its own: build, and print how many images were computed and how long that took."""
    import fiftyone as fo

    torch.set_num_threads(1)
    dataset, models = fo.load_dataset(name), refseg.load_models(MODEL)
    time.sleep(max(0.0, start_at - time.time()))
    report = refseg.build_index(dataset, models, uri=place, num_workers=0, progress=False)
    assert report.num_images == len(dataset)
    print("computed", report.num_added, report.seconds)


def share(dataset: Any, place: Path, num_builders: int) -> Figure:
    """So many builders at once on a fresh index."""
    start_at = str(time.time() + 20 + 10 * num_builders)  # after all have loaded their models
    command = [sys.executable, "-m", "benchmarks.builders", "--there", dataset.name, str(place), start_at]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(num_builders)]
    lines = [process.communicate()[0] for process in processes]
    told = [line.split() for text in lines for line in text.splitlines() if line.startswith("computed")]
    computed = [int(words[1]) for words in told]
    repeated = 100 * (sum(computed) - len(dataset)) / len(dataset)
    longest = max(float(words[2]) for words in told)
    detail = f"computed {' + '.join(map(str, computed))} of {len(dataset)} images, {longest:.1f} s"
    return at_most(f"{num_builders} builders at once: computed twice", repeated, 10, "%", detail)


def alone(dataset: Any, folder: Path) -> Figure:
    """One builder, with leases and without."""
    torch.set_num_threads(1)
    models, view = refseg.load_models(MODEL), dataset.limit(NUM_ALONE)
    turns: list[tuple[float, float]] = []
    for turn in range(NUM_TURNS + 1):

        def build(kind: str, turn: int = turn) -> float:
            # Of the processor: whatever else the machine does counts less.
            began = time.process_time()
            refseg.build_index(view, models, uri=folder / f"{kind} {turn}", num_workers=0, progress=False)
            return time.process_time() - began

        with mock.patch.object(CandidateIndex, "leases", return_value=None):
            without = build("without")
        turns.append((build("with"), without))
    more = [100 * (with_leases / without - 1) for with_leases, without in turns[1:]]  # the first one warms up
    detail = f"{NUM_ALONE} images, {NUM_TURNS} turns, min / median / max {spread(more)} %"
    return at_most("one builder alone: more of the processor with leases", statistics.median(more), 3, "%", detail)


def a_lease(folder: Path) -> Figure:
    """Taking a lease of 64 images and ending it, nothing computed."""
    settings = IndexSettings(MODEL, "0" * 12, "0" * 12, {}, False, 64, 32, "benchmark")
    CandidateIndex.create(folder, settings).append([("one", FileState("a", 1, 1), _nothing())])
    leases, names = Leases(str(folder)), [f"{number:024x}" for number in range(64)]

    def once() -> None:
        leases.others()
        leases.take(names)
        leases.settle(names)
        leases.release()

    times = [seconds_of(once)[0] * 1e3 for _ in range(NUM_LEASES)]
    return Figure("a lease, taken and ended", statistics.median(times), "ms", detail=f"min / median / max {spread(times)} ms")


def _nothing() -> Any:
    import pyarrow as pa

    from refseg.candidates import PackedCandidates

    none = pa.array([], pa.binary())
    return PackedCandidates(none, none, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 32), (8, 8), 64)


def measure(num_images: int = 200) -> list[Figure]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        dataset = build_demo_dataset(folder / "images", name=NAME, num_images=num_images)
        dataset.persistent = True
        works: list[Callable[[], Figure]] = [
            lambda: a_lease(folder / "lease"),
            lambda: share(dataset, folder / "two", 2),
            lambda: share(dataset, folder / "four", 4),
            lambda: alone(dataset, folder),
        ]
        try:
            figures = []
            for work in works:
                figures.append(work())
                print(details(figures[-1:]), flush=True)
            return figures
        finally:
            dataset.delete()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure how builders share images.")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--there", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.there:
        name, place, start_at = options.there
        build_there(name, place, float(start_at))
        return
    figures = measure(options.images)
    print(as_table(figures))


if __name__ == "__main__":
    main()
