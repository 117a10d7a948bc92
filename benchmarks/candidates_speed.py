"""Seconds an image from pixels to candidates: the published code path, the library's exact one and its fast one, side by side.

    make bench-candidates                                    # both models below, on the CPU
    python -m benchmarks.candidates_speed --model demo       # one of them

Runs `tiny` with random weights of the real sizes (`benchmarks/random_models.py`) on drawn scenes, which needs no download, and
`demo` with its own weights on images of the three worlds of `benchmarks/worlds.py`. Only there does recall mean something: a
random segmenter's masks are no objects. The baseline is float32 whatever --dtype says; it runs on the first image alone where
its weights are random, because that takes minutes. The other ways run once to warm up, and then the ways take turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.baseline import StageClock
from benchmarks.candidate_ways import (
    BASELINE,
    DTYPES,
    EXACT,
    FAST,
    MARGINS,
    PRESET_NAMES,
    WAYS,
    equality_figures,
    kept_figure,
    make_way,
    markdown,
    recall_figures,
    stage_table,
    time_generator,
    time_once,
    time_stages,
)
from benchmarks.equality import compare
from benchmarks.random_models import KEPT_SHARE, copy_models, draw_pixels, make_random_models, set_kept_share
from benchmarks.report import Figure, as_table, at_least, machine, spread
from refseg.candidates import Candidates
from refseg.images import read_image, segmenter_pixels
from refseg.models import Models, load_models

NUM_IMAGES = {"demo": 6, "tiny": 3}
"""The models that are measured by default, each on so many images."""
TURNS = 3
"""Of each way with each image where an image takes seconds; 1 where it takes minutes."""
GENERATOR_TIMES = 10
"""The exact way is to be so many times faster than SAM 2's own automatic mask generator."""
WORLD_SEED = 11
"""The first that `benchmarks/quality.py` reports on."""
H200_ROW = ["large, random weights, H200", "not measured here: run `python -m benchmarks.gpu`", *["–"] * 4]


@dataclass(frozen=True)
class Subject:
    """Models and the images they are measured on.

    Attributes:
        name: of the preset.
        plain: in float32, for the baseline.
        models: the same weights, for the library's ways.
        pixels: (B, 3, S, S).
        trained: the weights are, and the images hold objects; an image takes seconds.
    """

    name: str
    plain: Models
    models: Models
    pixels: Tensor
    trained: bool

    @property
    def about(self) -> str:
        """For people."""
        weights = "" if self.trained else " sizes, random weights"
        return f"{self.name}{weights}, {self.models.device}"


@dataclass(frozen=True)
class Measured:
    """What was measured of one subject.

    Attributes:
        seconds: of each turn with each image, by way.
        stages: seconds an image of each stage, by way.
        found: candidates of each image, by way; of the first image alone where the baseline is slow.
        dtypes: in which each way ran.
        generator: seconds of SAM 2's own automatic mask generator, as often as the exact way ran; on the first image alone
            where weights are random.
    """

    seconds: dict[str, list[float]]
    stages: dict[str, dict[str, float]]
    found: dict[str, list[Candidates]]
    dtypes: dict[str, str]
    generator: list[float]


def random_subject(name: str, num_images: int, device: str | None, dtype: torch.dtype) -> Subject:
    """A preset with random weights of the real sizes, on drawn scenes."""
    plain = make_random_models(name, device=device, kept_share=None)
    pixels = draw_pixels(num_images, plain.segmenter_side)
    set_kept_share(plain, KEPT_SHARE, pixels[:1])
    return Subject(name, plain, plain if dtype == torch.float32 else copy_models(plain, dtype=dtype), pixels, False)


def demo_subject(num_images: int, device: str | None, dtype: torch.dtype, cache: Path) -> Subject:
    """The demo preset on images with objects, of each world in turn."""
    from benchmarks.worlds import WORLDS, draw_world

    plain, models = load_models("demo", device=device, dtype=torch.float32), load_models("demo", device=device, dtype=dtype)
    draws = [draw_world(world, WORLD_SEED, cache) for world in WORLDS.values()]
    files = [sorted(image.file_name for image in draw.listing("target").images.values()) for draw in draws]
    turns = [(number % len(draws), number // len(draws)) for number in range(num_images)]
    images = [read_image(draws[world].folder / files[world][number]) for world, number in turns]
    pixels = torch.stack([segmenter_pixels(image, models.segmenter_side) for image in images])
    return Subject("demo", plain, models, pixels, True)


def measure(subject: Subject, only: Sequence[str] = WAYS, turns: int = TURNS) -> Measured:
    """Time some ways in turns, image by image.

    Args:
        subject: models and images.
        only: which of WAYS.
        turns: with each image; 1 where weights are random.
    """
    ways = [make_way(name, subject.plain if name == BASELINE else subject.models) for name in only]
    seconds: dict[str, list[float]] = {name: [] for name in only}
    found: dict[str, list[Candidates]] = {name: [] for name in only}
    clocks: dict[str, StageClock] = {}
    generator: list[float] = []
    for way in ways:
        if subject.trained or way.name != BASELINE:
            time_once(way, subject.pixels[:1])
    for number, image in enumerate(subject.pixels.split(1)):
        for turn in range(turns if subject.trained else 1):
            for way in ways:
                if way.name == BASELINE and number > 0 and not subject.trained:
                    continue
                # The baseline's stages are watched while it is timed, so that its minutes need not be spent twice.
                clock = clocks.setdefault(way.name, StageClock(way.models.device)) if way.name == BASELINE else None
                taken, answer = time_once(way, image, clock)
                seconds[way.name].append(taken)
                found[way.name] += answer if turn == 0 else []
            if EXACT in only and (subject.trained or number == 0):
                generator.append(time_generator(subject.plain, image[0]))
    stages = {
        way.name: {stage: total / len(seconds[way.name]) for stage, total in clocks[way.name].seconds.items()}
        if way.name in clocks
        else time_stages(way, subject.pixels[:1])
        for way in ways
    }
    dtypes = {way.name: str(way.models.dtype).removeprefix("torch.") for way in ways}
    return Measured(seconds, stages, found, dtypes, generator)


def judge(subject: Subject, measured: Measured) -> list[Figure]:
    """Equality of the exact way, recall of the fast one, and how many prompts were kept; what the measured ways allow."""
    about, dtype = subject.about, subject.models.dtype
    exact, baseline, fast = (measured.found.get(name, []) for name in (EXACT, BASELINE, FAST))
    figures = [kept_figure(about, exact, subject.models)] if exact else []
    if measured.generator:
        own = measured.seconds[EXACT][: len(measured.generator)]
        ratio = statistics.median(measured.generator) / statistics.median(own)
        name = f"{about}: exact, against SAM 2's own automatic mask generator, which makes masks alone"
        detail = f"{spread(measured.generator)} s; {len(own)} runs of each"
        figures.append(at_least(name, ratio, GENERATOR_TIMES, "×", detail=detail))
    if exact and baseline:
        # The baseline may have fewer images than the exact way.
        pairs = zip(exact, baseline, strict=False)
        equalities = [compare(mine, theirs, margin=MARGINS[dtype]) for mine, theirs in pairs]
        figures += equality_figures(about, equalities, dtype, MARGINS[dtype])
    return [*figures, *recall_figures(about, fast, exact)] if exact and fast else figures


def table_row(subject: Subject, measured: Measured) -> list[str]:
    """Median seconds an image of each way with their spread, and how many times faster than the way before it is.

    Where weights are random, the share of prompts that is kept, and with it the time, differs by image: only the first, which
    all ways have seen, is compared.
    """
    cells = [subject.about]
    for number, name in enumerate(WAYS):
        seconds = measured.seconds.get(name)
        dtype = measured.dtypes.get(name, "")
        cells.append(f"{statistics.median(seconds):.4g} ({spread(seconds)}; {len(seconds)}) {dtype}" if seconds else "–")
        if number:
            before = measured.seconds.get(WAYS[number - 1])
            compared = (before, seconds) if subject.trained else (before and before[:1], seconds and seconds[:1])
            both = before and seconds
            cells.append(f"{statistics.median(compared[0]) / statistics.median(compared[1]):.2f} ×" if both else "–")
    return cells


def main() -> None:
    """Run the benchmark and print its tables."""
    options = _parser().parse_args()
    dtype, only = DTYPES[options.dtype], [name for name in WAYS if name in options.only]
    rows, rest = [], []
    for name in [options.model] if options.model else NUM_IMAGES:
        num_images = options.images or NUM_IMAGES.get(name, NUM_IMAGES["tiny"])
        print(f"{name} …", flush=True)
        if name == "demo":
            subject = demo_subject(num_images, options.device, dtype, options.cache)
        else:
            subject = random_subject(name, num_images, options.device, dtype)
        measured = measure(subject, only)
        rows.append(table_row(subject, measured))
        rest.append(f"\nWhere the time goes: {subject.about}\n\n{stage_table(measured.stages)}\n")
        rest.append(as_table(judge(subject, measured)))
    if not torch.cuda.is_available():
        rows.append(H200_ROW)
        print("No accelerator: run `python -m benchmarks.gpu` on one.")
    print(
        f"{machine()}\n\nSeconds an image: median (min / median / max; runs), and how many times faster than the way before\n"
    )
    print(markdown(["models, device", BASELINE, EXACT, "", FAST, ""], rows))
    print("\n".join(rest))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time three ways from pixels to candidates.")
    parser.add_argument("--model", choices=PRESET_NAMES, help="one preset instead of tiny and demo")
    parser.add_argument("--images", type=int, help="by default 3 with random weights, 6 with the demo's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32", help="of the library's ways")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, help="leave the other ways out")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "refseg" / "quality", help="of drawn worlds")
    return parser


if __name__ == "__main__":
    main()
