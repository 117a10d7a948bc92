"""The three ways to candidates that are measured side by side: the published code path, the library's exact and its fast one.

Everything runs on the models' device; the library's ways end with the candidates on the CPU, as their callers get them, the
baseline's stay where they are.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.baseline import (
    DECODER,
    ENCODER,
    POOLING,
    SEGMENTER_ENCODER,
    StageClock,
    eager_encoder,
    propose_as_published,
    synchronize,
)
from benchmarks.equality import FOUND_IOU, SURE_IOU, Equality, recall
from benchmarks.random_models import copy_models
from benchmarks.report import Figure, at_least, at_most
from refseg.candidates import (
    MIN_PREDICTED_IOU,
    Candidates,
    decode_grid,
    embed_images,
    encode_patches,
    pool_features,
    propose_from_pixels,
)
from refseg.images import encoder_pixels
from refseg.models import PRESETS, Models, Sam2Segmenter, default_dtype

BASELINE, EXACT, FAST = "baseline", "exact", "fast"
WAYS = (BASELINE, EXACT, FAST)
TO_CPU = "to the CPU"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""In which the library's ways can be measured."""
MARGINS = {torch.float32: 1e-3, torch.bfloat16: 1e-2}
"""Distance of predicted IoU from the threshold within which a candidate may be missing."""
MASK_IOU = 0.99
"""Mask IoU that counts as equal."""
MILLIONTHS = "millionths"
PRESET_NAMES = sorted(name for name, preset in PRESETS.items() if not preset.adaptive_prompts and not preset.is_of_transformers)
"""Presets to measure, of the `sam2` package; those of adaptive prompts are the fast way of these."""
FEATURE_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""Largest difference of a feature's component that counts as equal, beyond its rounding to half precision."""


@dataclass(frozen=True)
class Way:
    """One way to candidates, with the models it runs on.

    Attributes:
        name: one of WAYS.
        models: baseline: float32.
        run: from (B, 3, S, S) pixels to the candidates of each image.
        run_timed: the same with a clock that is told how long each stage took.
    """

    name: str
    models: Models
    run: Callable[[Tensor], list[Candidates]]
    run_timed: Callable[[Tensor, StageClock], list[Candidates]]


def make_way(name: str, models: Models) -> Way:
    """One of WAYS on some models.

    The exact one asks at every prompt of the grid. The fast one is what a user gets of the preset's fast variant: it asks as
    `refseg.candidates.prompts` says, and on a processor that computes in bfloat16 it does so, whatever the dtype of the models.
    """
    if name == BASELINE:
        run = partial(_baseline, models=models, encoder=eager_encoder(models))
        return Way(name, models, run, run)
    # The baseline leaves masks as they are.
    asked = replace(models, preset=replace(models.preset, adaptive_prompts=name == FAST, clean_masks=False, vote_masks=False))
    if name == FAST and asked.device.type == "cpu":
        asked = copy_models(asked, dtype=default_dtype(asked.preset, asked.device))
    return Way(name, asked, partial(_library, models=asked), partial(_library_by_stages, models=asked))


def time_once(way: Way, pixels: Tensor, clock: StageClock | None = None) -> tuple[float, list[Candidates]]:
    """Seconds for all these images, and their candidates; an accelerator is waited for.

    Args:
        way: what to time.
        pixels: (B, 3, S, S).
        clock: told how long each stage took.
    """
    device = way.models.device
    synchronize(device)
    started = time.perf_counter()
    found = way.run(pixels) if clock is None else way.run_timed(pixels, clock)
    synchronize(device)
    return time.perf_counter() - started, found


def time_generator(models: Models, image: Tensor) -> float:
    """Seconds that the `sam2` package's own automatic mask generator takes for the masks of an image, without any feature.

    It is asked at the preset's prompts, and left at its defaults otherwise.

    Args:
        models: float32.
        image: (3, S, S) in [0, 1].
    """
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    sam2 = cast(Sam2Segmenter, models.segmenter).sam2
    generator = SAM2AutomaticMaskGenerator(sam2, models.preset.points_per_side, output_mode="uncompressed_rle")
    array = (255 * image).byte().permute(1, 2, 0).cpu().numpy()
    synchronize(models.device)
    started = time.perf_counter()
    generator.generate(array)
    synchronize(models.device)
    return time.perf_counter() - started


def time_stages(way: Way, pixels: Tensor, rounds: int = 1) -> dict[str, float]:
    """Median seconds an image of each stage; their sum exceeds the whole where an accelerator would overlap them."""
    clocks = []
    for _ in range(rounds):
        clock = StageClock(way.models.device)
        way.run_timed(pixels, clock)
        clocks.append(clock.seconds)
    return {stage: statistics.median(seconds[stage] for seconds in clocks) / len(pixels) for stage in clocks[0]}


def stage_table(stages: Mapping[str, Mapping[str, float]]) -> str:
    """Where the time goes, in seconds an image, as a Markdown table with a column for each way."""
    names = list(dict.fromkeys(stage for seconds in stages.values() for stage in seconds))
    rows = [[stage, *(_seconds(found.get(stage)) for found in stages.values())] for stage in names]
    return markdown(["stage, s an image", *stages], [*rows, ["sum", *(_seconds(sum(f.values())) for f in stages.values())]])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def equality_figures(about: str, equalities: Sequence[Equality], dtype: torch.dtype, margin: float) -> list[Figure]:
    """What `compare` found for some images, against the limits of the dtype."""
    pairs = sum(found.num_pairs for found in equalities)
    detail = f"{len(equalities)} images, {pairs} pairs, {sum(found.num_alone for found in equalities)} alone"
    strays = sum(found.num_strays for found in equalities)
    share = sum(found.iou_share * found.num_pairs for found in equalities) / pairs if pairs else math.nan

    def worst(name: str) -> float:
        return max(float(getattr(found, name)) for found in equalities)

    shared = [
        Figure(f"{about}: candidates that both have", pairs, "", detail=detail),
        at_most(f"{about}: candidates only one has, {margin:g} or more from q = {MIN_PREDICTED_IOU}", strays, 0, ""),
        Figure(f"{about}: farthest from it that only one has", 1e6 * worst("farthest_alone"), MILLIONTHS),
        at_least(f"{about}: smallest mask IoU", min(found.min_iou for found in equalities), MASK_IOU, ""),
        Figure(f"{about}: masks of IoU ≥ {MASK_IOU}", 100 * share, "%"),
    ]
    excess = f"{about}: the same beyond rounding to half precision"
    equal_excess = f"{excess}, where masks have IoU ≥ {MASK_IOU}"
    return [
        *shared,
        Figure(f"{about}: largest feature difference", 1e6 * worst("feature_difference"), MILLIONTHS),
        at_most(excess, 1e6 * worst("feature_excess"), 1e6 * FEATURE_LIMITS[dtype], MILLIONTHS),
        Figure(equal_excess, 1e6 * worst("feature_excess_of_equal"), MILLIONTHS),
        Figure(f"{about}: largest difference of predicted IoU", 1e6 * worst("iou_difference"), MILLIONTHS),
    ]


def kept_figure(about: str, exact: Sequence[Candidates], models: Models) -> Figure:
    """The share of the prompts that the exact way keeps: with random weights, how near that is to what was set."""
    kept = statistics.mean(map(len, exact)) / models.preset.points_per_side**2
    return Figure(f"{about}: prompts kept by the exact way", 100 * kept, "%")


def recall_figures(about: str, fast: Sequence[Candidates], exact: Sequence[Candidates]) -> list[Figure]:
    """How many good exact candidates the fast way finds again, in all images together, and how many it has in all."""
    counts = [recall(quick, slow) for quick, slow in zip(fast, exact, strict=True)]
    again, wanted = (sum(column) for column in zip(*counts, strict=True))
    name = f"{about}: recall of the fast way (exact q > {SURE_IOU}, IoU ≥ {FOUND_IOU}), {again} of {wanted}"
    each = sum(map(len, fast)) / max(1, sum(map(len, exact)))
    return [
        Figure(name, again / wanted if wanted else math.nan, ""),
        Figure(f"{about}: candidates of the fast way for each exact one", each, ""),
    ]


def _baseline(pixels: Tensor, clock: StageClock | None = None, *, models: Models, encoder: nn.Module) -> list[Candidates]:
    return [propose_as_published(image, models, encoder=encoder, clock=clock) for image in pixels]


def _library(pixels: Tensor, models: Models) -> list[Candidates]:
    return propose_from_pixels(pixels, [(models.segmenter_side, models.segmenter_side)] * len(pixels), models)


@torch.inference_mode()
def _library_by_stages(pixels: Tensor, clock: StageClock, models: Models) -> list[Candidates]:
    """What `propose_from_pixels` does with a batch that fits, one stage after the other."""
    with models.lock:
        on_device = pixels.to(models.device)
        with clock(ENCODER):
            patches = encode_patches(encoder_pixels(on_device, models.preset.encoder_side), models)
        with clock(SEGMENTER_ENCODER):
            embeddings = embed_images(on_device, models)
        answer = []
        for row in range(len(pixels)):
            with clock(DECODER):
                logits, predicted_iou = decode_grid(embeddings, row, models)
            with clock(POOLING):
                features = pool_features(logits > 0, patches[row])
            with clock(TO_CPU):
                parts = [part.cpu().float() for part in (logits, predicted_iou, features.half())]
            answer.append(Candidates(parts[0], parts[1], parts[2], (models.segmenter_side, models.segmenter_side)))
        return answer


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
