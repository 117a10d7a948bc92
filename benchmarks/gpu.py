"""Images a second from pixels to candidates on an accelerator: the published code path, the library's exact and its fast one.

    python -m benchmarks.gpu                                  # preset large, random weights of the real sizes
    python -m benchmarks.gpu --model demo --batches 1 2       # quick, also on a CPU

Needs neither FiftyOne nor a download. The library's ways run at several image batches in the preset's own dtype there (bfloat16
on CUDA), and the best batch within 12 GB counts; the baseline runs as published, in float32, one image at a time. Each is
warmed up, waited for, and repeated; tables give medians. Candidates are equal where `benchmarks/equality.py` finds them so: in
float32 with the random weights, in the dtype that is timed with the demo's trained ones, since rounding moves random masks by
whole cells.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.candidate_ways import (
    BASELINE,
    DTYPES,
    EXACT,
    FAST,
    MARGINS,
    PRESET_NAMES,
    Way,
    equality_figures,
    kept_figure,
    make_way,
    markdown,
    recall_figures,
    stage_table,
    time_once,
    time_stages,
)
from benchmarks.equality import compare
from benchmarks.random_models import KEPT_SHARE, ask_at, copy_models, draw_pixels, make_random_models, set_kept_share
from benchmarks.report import Figure, as_table, at_most, machine, spread
from refseg.candidates import Candidates
from refseg.errors import ModelMemoryError
from refseg.models import BatchKey, Models, default_dtype, forget_sizes, get_preset, load_models, parse_device, size_of

BATCHES = (1, 2, 4, 8, 16)
REPEATS = 5
WARM_UPS = 2
MEMORY_GB = 12
NUM_EQUAL = 4
"""Most images that equality is checked on."""
MANY = 2**30
"""More than any batch: where a smaller size is remembered, a batch was halved."""


@dataclass(frozen=True)
class Run:
    """One way at one batch.

    Attributes:
        way: its name.
        dtype: in which it ran.
        batch: images at once.
        seconds: an image, of each repeat.
        peak_bytes: of GPU memory, weights included; None where torch does not count it.
        num_candidates: mean of the images.
    """

    way: str
    dtype: torch.dtype
    batch: int
    seconds: list[float]
    peak_bytes: int | None
    num_candidates: float

    @property
    def images_a_second(self) -> float:
        """By the median."""
        return 1 / statistics.median(self.seconds)

    @property
    def fits(self) -> bool:
        """Whether the peak is within MEMORY_GB; True where it is not known."""
        return self.peak_bytes is None or self.peak_bytes <= MEMORY_GB * 1e9


def time_batch(way: Way, pixels: Tensor, repeats: int, held: int = 0) -> Run:
    """Time one way on a batch of images, after warming up.

    Args:
        way: which.
        pixels: (B, 3, S, S), already made: reading and resizing images is not timed, their way to the device is.
        repeats: how often.
        held: bytes of GPU memory that something else holds, such as the baseline's float32 weights.
    """
    device = way.models.device
    for _ in range(WARM_UPS):
        time_once(way, pixels)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    found: list[Candidates] = []
    for _ in range(repeats):
        found = []  # the last repeat's candidates would be counted otherwise
        taken, found = time_once(way, pixels)
        seconds.append(taken / len(pixels))
    peak = torch.cuda.max_memory_allocated(device) - held if device.type == "cuda" else None
    return Run(way.name, way.models.dtype, len(pixels), seconds, peak, statistics.mean(map(len, found)))


def time_batches(way: Way, pixels: Tensor, batches: Iterable[int], repeats: int, held: int = 0) -> list[Run]:
    """Time one way at rising batches, until one does not fit into the device's memory; see time_batch."""
    runs = []
    for batch in sorted(batches):
        forget_sizes()
        try:
            run = time_batch(way, pixels[:batch], repeats, held)
        except (torch.OutOfMemoryError, ModelMemoryError):
            run = None
        # The library goes on with smaller batches by itself: what was timed then is another batch.
        if run is None or any(size_of(BatchKey.of(what, way.models), MANY) < MANY for what in ("images", "prompts")):
            print(f"{way.name}: a batch of {batch} images does not fit into memory.", flush=True)
            break
        runs.append(run)
    forget_sizes()
    return runs


def best_run(runs: Sequence[Run]) -> Run:
    """The fastest of those that fit into MEMORY_GB; of all where none does."""
    return max([run for run in runs if run.fits] or runs, key=lambda run: run.images_a_second)


def run_table(runs: Sequence[Run], baseline: Run) -> str:
    """All runs as a Markdown table."""
    head = [
        "way",
        "dtype",
        "images at once",
        "images/s",
        "× baseline",
        "ms an image: min / median / max",
        "peak GB",
        "candidates",
    ]
    rows = []
    for run in runs:
        peak = "–" if run.peak_bytes is None else f"{run.peak_bytes / 1e9:.2f}"
        rate, ratio = f"{run.images_a_second:.3g}", f"{run.images_a_second / baseline.images_a_second:.2f}"
        name = str(run.dtype).removeprefix("torch.")
        rows.append([run.way, name, str(run.batch), rate, ratio, spread(run.seconds, 1e-3), peak, f"{run.num_candidates:.0f}"])
    return markdown(head, rows)


def equality(about: str, plain: Models, models: Models, pixels: Tensor) -> list[Figure]:
    """Exact candidates, all images at once, against the baseline's; and how many of them the fast way finds again.

    Args:
        about: which models.
        plain: in float32.
        models: the same weights in any dtype.
        pixels: (B, 3, S, S).
    """
    baseline = make_way(BASELINE, plain).run(pixels)
    exact, fast = make_way(EXACT, models).run(pixels), make_way(FAST, models).run(pixels)
    about += f", {str(models.dtype).removeprefix('torch.')}"
    margin = MARGINS[models.dtype]
    found = [compare(mine, theirs, margin=margin) for mine, theirs in zip(exact, baseline, strict=True)]
    kept = kept_figure(about, exact, models)
    return [kept, *equality_figures(about, found, models.dtype, margin), *recall_figures(about, fast, exact)]


def measure(plain: Models, pixels: Tensor, dtype: torch.dtype, batches: Sequence[int], repeats: int) -> None:
    """Measure the three ways with some models and print their tables.

    Args:
        plain: in float32.
        pixels: (B, 3, S, S), as many as the largest batch.
        dtype: of the library's ways.
        batches: images at once to try.
        repeats: of each measurement.
    """
    figures = equality(plain.preset.name, plain, plain, pixels[:NUM_EQUAL])
    as_published = make_way(BASELINE, plain)
    baseline = time_batch(as_published, pixels[:1], repeats)
    runs = [baseline, time_batch(make_way(EXACT, plain), pixels[:1], repeats)]
    stages = {f"{BASELINE}, batch 1": time_stages(as_published, pixels[:1], repeats)}
    held = torch.cuda.memory_allocated(plain.device) if plain.device.type == "cuda" else 0
    models = copy_models(plain, dtype=dtype)
    best = {}
    for way in (make_way(EXACT, models), make_way(FAST, models)):
        found = time_batches(way, pixels, batches, repeats, held)
        best[way.name] = best_run(found)
        runs += found
        some = pixels[: best[way.name].batch]
        stages[f"{way.name}, batch {len(some)}"] = time_stages(way, some, repeats)
    runs.append(time_batch(as_published, pixels[:1], repeats))
    for way_name, run in best.items():
        ratio = run.images_a_second / baseline.images_a_second
        figures.append(Figure(f"{way_name}, batch {run.batch}, the best in {MEMORY_GB} GB", run.images_a_second, "images/s"))
        figures.append(Figure(f"{way_name} against the baseline", ratio, "×"))
        if run.peak_bytes is not None:
            figures.append(at_most(f"{way_name}: peak GPU memory there", run.peak_bytes / 1e9, MEMORY_GB, "GB"))
    print(f"{run_table(runs, baseline)}\n\nThe baseline is the first row; the last is the same once more.\n")
    print(f"Where the time goes, each stage waited for\n\n{stage_table(stages)}\n\n{as_table(figures)}\n")


def prepare(name: str, device: torch.device, num_images: int, points_per_side: int | None = None) -> tuple[Models, Tensor]:
    """A preset's models in float32, `demo` with its own weights and every other with random ones, and images for them."""
    if name == "demo":
        plain = load_models("demo", device=str(device), dtype=torch.float32)
    else:
        plain = make_random_models(name, device=device, kept_share=None)
    pixels = draw_pixels(num_images, plain.segmenter_side)
    if name != "demo":
        set_kept_share(plain, KEPT_SHARE, pixels[:NUM_EQUAL])
    return ask_at(plain, points_per_side or plain.preset.points_per_side), pixels


def main() -> None:
    """Run the benchmark and print its tables."""
    options = _parser().parse_args()
    device, points = parse_device(options.device), options.points
    if device.type == "cpu":
        print("No accelerator: these are the numbers of a CPU, in float32 by default.")
    print(f"{machine()}; {device}")
    if device.type == "cuda":
        matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        print(f"TF32 in float32, as torch sets it: matrix products {matmul}, convolutions {convolution}")
    dtype = DTYPES[options.dtype] if options.dtype else default_dtype(get_preset(options.model), device)
    plain, pixels = prepare(options.model, device, max(options.batches), points)
    measure(plain, pixels, dtype, options.batches, options.repeats)
    plain, pixels = prepare("demo", device, min(NUM_EQUAL, max(options.batches)), points)
    print(as_table(equality("demo, trained weights", plain, copy_models(plain, dtype=torch.bfloat16), pixels)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time three ways from pixels to candidates on an accelerator.")
    parser.add_argument("--model", choices=PRESET_NAMES, default="large")
    parser.add_argument("--device", help="by default CUDA, MPS or the CPU, the first there is")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="of the library's ways; by default the preset's on the device")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="images at once")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--points", type=int, help="prompts a side; by default the preset's")
    return parser


if __name__ == "__main__":
    main()
