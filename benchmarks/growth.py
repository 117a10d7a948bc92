"""Scan and score indexes of ten thousand to ten million candidates, and see what the vector index misses.

    python -m benchmarks.growth --largest 10000000

Candidates are synthetic: features of width 1024 that lie in 5,000 clusters, 200 candidates an image. Every index is written,
opened in a process of its own, and its candidates are all compared with 20 prototypes, the best score of each image kept: what
a preview does first. Ten million take 21 GB of disk for the time of the benchmark; what does not fit is left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from benchmarks.report import Figure, as_table, at_most, seconds_of

WIDTH = 1024
AN_IMAGE = 200
NUM_CLASSES = 20
NUM_CLUSTERS = 5000
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
A_BLOCK = 50_000
BYTES_A_CANDIDATE = 2150
RECALL_SIZE = 1_000_000
NUM_QUERIES = 20
NEAREST = 100


def blocks(num_candidates: int) -> Iterator[torch.Tensor]:
    """(n, 1024) float32 unit features, A_BLOCK at a time; the same ones for every size."""
    generator = torch.Generator().manual_seed(2)
    # Features of real models fill a few hundred dimensions, not all of them.
    axes = torch.randn(160, WIDTH, generator=generator) / 160**0.5
    centers = torch.randn(NUM_CLUSTERS, 160, generator=generator)
    for start in range(0, num_candidates, A_BLOCK):
        number = min(A_BLOCK, num_candidates - start)
        owners = torch.randint(NUM_CLUSTERS, (number,), generator=generator)
        yield F.normalize((centers[owners] + torch.randn(number, 160, generator=generator)) @ axes, dim=1)


def write(folder: Path, num_candidates: int) -> None:
    """Write an index of so many candidates."""
    from refseg.candidates import PackedCandidates
    from refseg.index import CandidateIndex, FileState, IndexSettings

    settings = IndexSettings("synthetic", "0" * 12, "0" * 12, {}, False, 256, WIDTH, "benchmark")
    index = CandidateIndex.create(folder, settings)
    one_cell = b"01o_2"  # the code of a mask whose first cell alone is filled
    number = 0
    for block in blocks(num_candidates):
        images = []
        for features in block.split(AN_IMAGE):
            n = len(features)
            text = pa.array([one_cell] * n, pa.binary())
            packed = PackedCandidates(text, text, torch.zeros(n, 4), torch.full((n,), 0.9), features, (480, 640), 256)
            images.append((str(number), FileState(str(number), 1, 1), packed))
            number += 1
        index.append(images)


def scan(folder: Path) -> dict[str, float]:
    """Open an index, score everything in it, and say how long it took and how much memory."""
    import resource

    from refseg.index import CandidateIndex
    from refseg.matching import Gallery, classify

    prototypes = F.normalize(torch.randn(NUM_CLASSES, WIDTH, generator=torch.Generator().manual_seed(3)), dim=1)
    gallery = Gallery(prototypes)
    opening, index = seconds_of(lambda: CandidateIndex.open(folder))

    def score() -> int:
        best: dict[str, float] = {}
        for chunk in index.scan(features_only=True):
            scores = classify(chunk.features, gallery).scores
            tops = np.maximum.reduceat(scores.numpy(), chunk.starts[:-1])
            best.update(zip((image.sample_id for image in chunk.images), tops.tolist(), strict=True))
        return len(best)

    seconds, images = seconds_of(score)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "open_seconds": opening,
        "scan_seconds": seconds,
        "images": images,
        "peak_bytes": memory,
        "bytes": index.num_bytes,
    }


def recall(folder: Path) -> dict[str, float]:
    """Compare the vector index with the exact scan: the share of the 100 nearest that it finds."""
    from refseg.index import CandidateIndex, make_vector_index, search_all, search_vectors
    from refseg.progress import drain

    index = CandidateIndex.open(folder)
    making, _ = seconds_of(lambda: make_vector_index(index))
    queries = next(blocks(NUM_QUERIES))
    exact_seconds, vector_seconds, shares = [], [], []
    for query in queries:
        # The scan tells every candidate by image and row; the vector index by its score alone, so scores are compared.
        seconds, exact = seconds_of(lambda query=query: drain(search_all(index, query, NEAREST), False))
        exact_seconds.append(seconds)
        seconds, found = seconds_of(lambda query=query: search_vectors(index, query, NEAREST))
        vector_seconds.append(seconds)
        worst = exact[-1].score - 1e-3
        shares.append(sum(item.score >= worst for item in found) / NEAREST)
    return {
        "build_seconds": making,
        "exact_seconds": float(np.median(exact_seconds)),
        "vector_seconds": float(np.median(vector_seconds)),
        "recall": float(np.mean(shares)),
        "worst_recall": min(shares),
    }


def measure(largest: int = SIZES[-1], folder: Path | None = None) -> list[Figure]:
    """Write, scan and delete one index after the other."""
    figures: list[Figure] = []
    times: dict[int, float] = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for size in (size for size in SIZES if size <= largest):
            free = shutil.disk_usage(place).free
            needed = 1.2 * size * BYTES_A_CANDIDATE
            if free < needed:
                print(f"{size:,} candidates need {needed / 1e9:.0f} GB, {free / 1e9:.0f} are free: left out")
                continue
            index = Path(place) / str(size)
            writing, _ = seconds_of(lambda index=index, size=size: write(index, size))
            answer = _in_a_process("scan", index)
            times[size] = answer["scan_seconds"]
            detail = (
                f"{answer['bytes'] / 1e9:.2f} GB, written in {writing:.0f} s, opened in {answer['open_seconds']:.2f} s, "
                f"peak memory {answer['peak_bytes'] / 1e9:.2f} GB"
            )
            name = f"scan and score {size:,} candidates"
            if size == SIZES[-1]:
                figures.append(at_most(name, times[size], 120, "s", detail))
                figures.append(at_most("the same: peak memory", answer["peak_bytes"] / 1e9, 4, "GB"))
            else:
                figures.append(Figure(name, times[size], "s", detail=detail))
            if size == RECALL_SIZE:
                found = _in_a_process("recall", index)
                detail = (
                    f"worst of {NUM_QUERIES} queries {found['worst_recall']:.2f}; built in {found['build_seconds']:.0f} s; "
                    f"a query {found['vector_seconds'] * 1e3:.0f} ms, by exact scan {found['exact_seconds'] * 1e3:.0f} ms"
                )
                figures.append(
                    Figure("vector index: share of the 100 nearest of a million found", found["recall"], "", detail=detail)
                )
            shutil.rmtree(index)
    if len(times) > 2:
        sizes = sorted(times)[1:]
        each = [times[size] / size * 1e6 for size in sizes]
        # Linear: a candidate takes as long in a large index as in a small one.
        figures.append(
            at_most(
                f"time a candidate, {sizes[-1]:,} against {sizes[0]:,}",
                each[-1] / each[0],
                2,
                "×",
                ", ".join(f"{size:,}: {value:.2f} µs" for size, value in zip(sizes, each, strict=True)),
            )
        )
    return figures


def _in_a_process(work: str, folder: Path) -> dict[str, float]:
    """So that the memory of one measurement is not that of another."""
    command = [sys.executable, "-m", "benchmarks.growth", "--work", work, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Scan growing indexes.")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="candidates of the largest index")
    parser.add_argument("--folder", type=Path, help="where to write; by default the system's temporary folder")
    parser.add_argument("--work", choices=("scan", "recall"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps({"scan": scan, "recall": recall}[options.work](options.folder)))
    else:
        print(as_table(measure(options.largest, options.folder)))


if __name__ == "__main__":
    main()
