"""What an image costs with each preset, beside `tiny`: the App's estimate of a model that no index was built with yet.

    python -m benchmarks.model_costs

Random weights of the real sizes (`benchmarks/random_models.py`) on one drawn scene, one thread, and the processor's time, which
other programs on the machine change little. The decoder is the same in all presets, and how often it is asked depends on what
random weights keep: it is measured with `tiny`, the encoders with each. The ratios go into `operators/forms/machine.py`. Needs
neither FiftyOne nor a download.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.candidate_ways import EXACT, FAST, make_way, markdown
from benchmarks.random_models import draw_pixels, make_random_models
from benchmarks.report import machine
from refseg.candidates import embed_images, encode_patches
from refseg.images import encoder_pixels
from refseg.models import Models

NAMES = ("tiny", "small", "base", "large")


def processor_seconds(work: Callable[[], Any]) -> float:
    """Of the processor, by all threads of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


@torch.inference_mode()
def encoders(models: Models) -> float:
    """Seconds of both encoders for one image."""
    pixels = draw_pixels(1, models.segmenter_side)
    with models.lock:
        return processor_seconds(
            lambda: (
                embed_images(pixels, models),
                encode_patches(encoder_pixels(pixels, models.preset.encoder_side), models),
            )
        )


def main() -> None:
    """Measure all of them and print a table."""
    torch.set_num_threads(1)
    tiny = make_random_models("tiny", device="cpu")
    pixels = draw_pixels(1, tiny.segmenter_side)
    ways = [make_way(name, tiny) for name in (EXACT, FAST)]
    encoders(tiny)
    whole = {way.name: processor_seconds(lambda way=way: way.run(pixels)) for way in ways}  # type: ignore[misc]
    own, rows = encoders(tiny), []
    for name in NAMES:
        models = tiny if name == "tiny" else make_random_models(name, device="cpu", kept_share=None)
        seconds = encoders(models)
        totals = {way: whole[way] - own + seconds for way in whole}
        rows.append([name, f"{seconds:.1f}", *(f"{total:.1f} ({total / whole[EXACT]:.2f})" for total in totals.values())])
        print(rows[-1], flush=True)
        del models
        gc.collect()
    print(f"{machine()}\n\n{markdown(['preset', 'encoders, s', 'exact, s (of tiny)', 'fast, s (of tiny, exact)'], rows)}")


if __name__ == "__main__":
    main()
