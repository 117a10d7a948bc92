"""What building an index by many workers costs, and what the driver of a large one needs.

    python -m benchmarks.many_workers --images 300 --made-up 1000000

With models: trays like the demo's, preset `demo`, a FiftyOne dataset of its own that is deleted afterwards; one process on one
core, one worker of Ray's on one core, and two, in turns. The rate is that after the first shard has come, so that starting Ray
and importing PyTorch do not count. Without models: shards of made-up images, one candidate each, written as workers write them
and committed as the driver does. How much memory its process holds, and how long a commit takes, is told at each tenth.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import torch

import refseg
from benchmarks.report import Figure, as_table, at_least, at_most, details, spread
from refseg.candidates import PackedCandidates
from refseg.dataset import IndexPlace, iter_build_index
from refseg.demo.dataset import build_demo_dataset
from refseg.index import CandidateIndex, FileState, ImageFile, IndexedImage, IndexSettings, write_candidates
from refseg.shards import Committer, Records, Shard, connected
from refseg.shards.on_ray import IMAGES_A_SHARD
from refseg.shards.shard import name_of_shard

NAME, MODEL = "refseg-many-workers", "demo"
NUM_TURNS = 2
MAX_MEMORY = 2000.0
"""Megabytes of the driver."""


def rate(view: Any, models: Any, place: Path, **options: Any) -> float:
    """Images a second, from the first that are done to the last."""
    marks: list[tuple[float, int]] = []
    for step in iter_build_index(view, models, IndexPlace(place), **options):
        if step.done and "image" in step.label and (not marks or step.done > marks[-1][1]):
            marks.append((time.monotonic(), step.done))
    (began, first), (ended, last) = marks[0], marks[-1]
    return (last - first) / (ended - began)


def compare(dataset: Any, folder: Path) -> list[Figure]:
    """One process, one worker and two."""
    torch.set_num_threads(1)
    models = refseg.load_models(MODEL)
    ways: dict[str, dict[str, Any]] = {
        "one process": {"num_workers": 0},
        "one worker": {"engine": "ray", "num_workers": 1, "cores": 1},
        "two workers": {"engine": "ray", "num_workers": 2, "cores": 1},
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    part = len(dataset) // NUM_TURNS
    with connected(num_cpus=2):
        for turn in range(NUM_TURNS):
            view = dataset[turn * part : (turn + 1) * part]
            for name, options in ways.items():
                found[name].append(rate(view, models, folder / f"{name} {turn}", **options))
                print(name, f"{found[name][-1]:.3f} images a second", flush=True)
    one, alone, two = (found[name] for name in ("one worker", "one process", "two workers"))
    more = [100 * (local / ray - 1) for local, ray in zip(alone, one, strict=True)]
    times = [both / single for both, single in zip(two, one, strict=True)]
    return [
        at_most("one worker: longer than one process", statistics.median(more), 15, "%", f"turns {spread(more)} %"),
        at_least("two workers of one core against one", statistics.median(times), 1.8, "×", f"turns {spread(times)}"),
    ]


def commit_made_up(num_images: int, folder: Path) -> list[Figure]:
    """The driver's memory, and its commits."""
    settings = IndexSettings(MODEL, "0" * 12, "0" * 12, {}, False, 8, 8, "benchmark")
    index = CandidateIndex.create(folder, settings)
    committer, process = Committer(index), psutil.Process()
    packed = _one_candidate()
    start, tenth = process.memory_info().rss, max(1, num_images // 10)
    seconds: list[float] = []
    for first in range(0, num_images, IMAGES_A_SHARD):
        numbers = range(first, min(first + IMAGES_A_SHARD, num_images))
        committer.add(_shard(index, numbers, packed))
        began = time.monotonic()
        if committer.commit_if_due():
            seconds.append(time.monotonic() - began)
        if (first + IMAGES_A_SHARD) % tenth < IMAGES_A_SHARD:
            held = (process.memory_info().rss - start) / 1e6
            print(
                f"{numbers[-1] + 1:,} images: {held:,.0f} MB more, commits {[f'{one:.2f}' for one in seconds[-3:]]} s",
                flush=True,
            )
    committer.commit()
    index.refresh()
    held = (process.memory_info().rss - start) / 1e6
    assert len(index.images) == num_images
    third = max(1, len(seconds) // 3)
    early, late = statistics.median(seconds[:third]), statistics.median(seconds[-third:])
    return [
        at_most(f"the driver's memory at {num_images:,} made-up images", held, MAX_MEMORY, "MB"),
        Figure("a commit of 200 shards, of the last third against the first", late / early, "×", detail=f"{spread(seconds)} s"),
    ]


def _shard(index: CandidateIndex, numbers: Sequence[int], packed: PackedCandidates) -> Shard:
    files = [ImageFile(f"{number:024x}", f"/made/up/{number}.jpg", FileState(f"{number}.jpg", 1, number)) for number in numbers]
    rows = [IndexedImage(file.sample_id, secrets.randbits(62), file.state, packed.image_hw, 1, 1) for file in files]
    fragments, version = write_candidates(index.uri, index.settings, rows, [packed] * len(rows))
    shard = Shard(name_of_shard(files), tuple(rows), fragments, version)
    Records(index.uri).keep(shard)
    return shard


def _one_candidate() -> PackedCandidates:
    code, edge = pa.array([b"\0"], pa.binary()), pa.array([b"\0"], pa.binary())
    return PackedCandidates(code, edge, torch.zeros(1, 4), torch.zeros(1), torch.ones(1, 8), (8, 8), 8)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure how workers share the building of an index.")
    parser.add_argument("--images", type=int, default=300, help="0 for none")
    parser.add_argument("--made-up", type=int, default=1_000_000, help="0 for none")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.made_up:
            figures += commit_made_up(options.made_up, folder / "made-up")
        if options.images:
            (folder / "images").mkdir()
            dataset = build_demo_dataset(folder / "images", name=NAME, num_images=options.images)
            try:
                figures += compare(dataset, folder)
            finally:
                dataset.delete()
    print(as_table(figures))
    print(details(figures))


if __name__ == "__main__":
    main()
