"""What an image costs with each preset, beside `tiny`: the App's estimate of a model that no index was built with yet.

    python -m benchmarks.model_costs

Random weights of the real sizes (`benchmarks/random_models.py`) on one drawn scene, one thread, and the processor's time, which
other programs on the machine change little. The ratios go into `operators/forms/machine.py`. Needs neither FiftyOne nor a
download.
"""

from __future__ import annotations

import gc
import time

import torch

from benchmarks.candidate_ways import EXACT, FAST, make_way, markdown
from benchmarks.random_models import draw_pixels, make_random_models
from benchmarks.report import machine

NAMES = ("tiny", "small", "base", "large")


def cost(name: str, way_name: str) -> tuple[float, str]:
    """Seconds of the processor for one image, and the dtype that it ran in."""
    models = make_random_models(name, device="cpu")
    way = make_way(way_name, models)
    pixels = draw_pixels(1, models.segmenter_side)
    started = time.process_time()
    way.run(pixels)
    return time.process_time() - started, str(way.models.dtype).removeprefix("torch.")


def main() -> None:
    """Measure all of them and print a table."""
    torch.set_num_threads(1)
    cost("tiny", EXACT)
    rows, first = [], None
    for way_name in (EXACT, FAST):
        for name in NAMES:
            seconds, dtype = cost(name, way_name)
            first = first or seconds
            rows.append([name, way_name, dtype, f"{seconds:.1f}", f"{seconds / first:.2f}"])
            print(rows[-1], flush=True)
            gc.collect()
    print(f"{machine()}\n\n{markdown(['preset', 'way', 'dtype', 's of the processor', 'of tiny, exact'], rows)}")


if __name__ == "__main__":
    main()
