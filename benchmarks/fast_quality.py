"""What the fast presets cost in quality: recall and AP of `demo-fast` beside those of `demo`.

    python -m benchmarks.fast_quality --seeds 7 101 102

Recall is the share of the exact preset's candidates of predicted IoU above 0.7 that the fast one finds at an IoU of 0.9: on
images of three worlds, at the segmenter's own size and at twice its side, and on the demo's trays. For AP each seed draws 60
trays with six classes, three references each, as `refseg demo` does, and is segmented with both presets from the same
prototypes; images that hold references are left out of the scores. Writes to datasets of its own and deletes them.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import OmegaConf

from benchmarks.equality import FOUND_IOU, SURE_IOU, mask_iou, recall
from benchmarks.report import Figure, as_table, at_least, at_most, machine
from benchmarks.worlds import WORLDS, draw_world
from refseg.candidates import Candidates, propose_from_pixels
from refseg.candidates.clicks import click_decoder
from refseg.candidates.embedding import embed_images
from refseg.candidates.prompts import JUDGED_IOU, prompt_grid, prompts_worth_asking
from refseg.dataset import REFERENCE_TAG, collect_references, sample_references
from refseg.demo.dataset import CLASSES, build_demo_dataset
from refseg.demo.run import SHOTS
from refseg.evaluation import evaluate
from refseg.images import read_image, segmenter_pixels
from refseg.models import PRESETS, Models, load_models
from refseg.models.presets import fast_preset, registered
from refseg.prototypes import build_prototypes
from refseg.runs import segment

SEEDS = (7, 101, 102)
"""The demo's own, and two others."""
MIN_RECALL, MIN_SMALL_RECALL, MAX_AP_LOST, MAX_ASKED = 0.98, 0.95, 0.005, 1 / 3
SIDES = (320, 640)
"""The demo segmenter's own, and twice that."""
SMALL = 32**2
"""Pixels of an image, fewer than which make an object a small one."""
WORLD_NAMES, WORLD_SEED, IMAGES_A_WORLD = ("clear", "cluttered", "small"), 900, 10


@dataclass
class Found:
    """How many good candidates of the exact preset the fast one finds, and how often it asks.

    Attributes:
        again: found again.
        wanted: all of them.
        small_again: of SMALL.
        small_wanted: likewise.
        asked: prompts decoded at full size.
        prompts: of the grid.
    """

    again: int = 0
    wanted: int = 0
    small_again: int = 0
    small_wanted: int = 0
    asked: int = 0
    prompts: int = 0


def measure_recall(side: int, cache: Path, num_images: int = IMAGES_A_WORLD) -> list[Figure]:
    """Recall on images of three worlds with the segmenter at some side, in pixels."""
    found = Found()
    with presets_at(side) as (name, fast_name):
        exact, fast = load_models(name), load_models(fast_name)
        for world in WORLD_NAMES:
            folder = draw_world(WORLDS[world], WORLD_SEED, cache).folder
            for path in sorted(folder.glob("target_*.png"))[:num_images]:
                _add(found, path, exact, fast)
    about = f"at {side} pixels a side, {len(WORLD_NAMES) * num_images} images"
    wanted, small = f"{found.again} of {found.wanted}", f"{found.small_again} of {found.small_wanted}"
    return [
        at_least(f"recall {about}", found.again / found.wanted, MIN_RECALL, "", detail=wanted),
        at_least(f"recall of small ones {about}", found.small_again / found.small_wanted, MIN_SMALL_RECALL, "", detail=small),
        at_most(f"prompts decoded at full size, share, {about}", found.asked / found.prompts, MAX_ASKED, ""),
    ]


@contextmanager
def presets_at(side: int) -> Iterator[tuple[str, str]]:
    """The names of `demo` and `demo-fast` with the segmenter at some side."""
    demo = PRESETS["demo"]
    config = OmegaConf.load(demo.sam2_config)
    config.model.image_size = side
    with tempfile.TemporaryDirectory(prefix="refseg-") as folder:
        file = Path(folder) / "sam2.yaml"
        OmegaConf.save(config, file)
        preset = replace(demo, name=f"demo-at-{side}", sam2_config=str(file))
        with registered(preset, fast_preset(preset)):
            yield preset.name, fast_preset(preset).name


@torch.inference_mode()
def _add(found: Found, path: Path, exact: Models, fast: Models) -> None:
    image = read_image(path)
    pixels = segmenter_pixels(image, exact.segmenter_side)[None]
    mine, theirs = (propose_from_pixels(pixels, [(image.height, image.width)], models)[0] for models in (fast, exact))
    sure = theirs.masks[theirs.predicted_iou > SURE_IOU]
    hit = mask_iou(sure, mine.masks).amax(1) >= FOUND_IOU if len(mine) else torch.zeros(len(sure), dtype=torch.bool)
    small = _pixels_of(sure, theirs) < SMALL
    found.again, found.wanted = found.again + int(hit.sum()), found.wanted + len(sure)
    found.small_again, found.small_wanted = found.small_again + int((hit & small).sum()), found.small_wanted + int(small.sum())
    points, judge = prompt_grid(fast.preset.points_per_side, fast.segmenter_side), click_decoder(fast, halved=True)
    terms = judge.terms_of(embed_images(pixels, fast).halved(), 0)
    masks, judged, rows = judge.decode(points, terms, JUDGED_IOU)
    found.asked += len(prompts_worth_asking(masks > 0, judged[rows]))
    found.prompts += len(points)


def _pixels_of(masks: torch.Tensor, candidates: Candidates) -> torch.Tensor:
    """(N,) area in pixels of the image of (N, M, M) masks."""
    height, width = candidates.image_hw
    return masks.flatten(1).sum(1) * (height * width / candidates.grid_side**2)


def measure(seeds: Sequence[int] = SEEDS) -> list[Figure]:
    """Segment the dataset of each seed with both presets, and compare."""
    exact, fast = load_models("demo"), load_models("demo-fast")
    lost, again, wanted, figures = [], 0, 0, []
    for seed in seeds:
        folder = Path(tempfile.mkdtemp(prefix="refseg-"))
        dataset = build_demo_dataset(folder, seed=seed, name=f"refseg-fast-quality-{seed}")
        try:
            sample_references(dataset, "ground_truth", SHOTS)
            prototypes = build_prototypes(
                collect_references(dataset, "ground_truth", tags=REFERENCE_TAG), exact, progress=False
            )
            unseen = dataset.match_labels(tags=REFERENCE_TAG, fields="ground_truth", bool=False)
            scores = []
            for field, models in (("exact", exact), ("fast", fast)):
                segment(unseen, prototypes, field, model=models, min_confidence=0.0, index=False, progress=False)
                scores.append(evaluate(unseen, field, "ground_truth", classes=list(CLASSES), progress=False).mask_ap)
            found = [_recall(path, exact, fast) for path in unseen.values("filepath")]
        finally:
            dataset.delete()
            shutil.rmtree(folder)
        again += sum(hits for hits, _ in found)
        wanted += sum(all_of_them for _, all_of_them in found)
        lost.append(scores[0] - scores[1])
        figures.append(Figure(f"mask AP of demo-fast, seed {seed}", scores[1], "", detail=f"demo: {scores[0]:.3f}"))
        print(f"seed {seed}: mask AP {scores[1]:.3f}, exact {scores[0]:.3f}", flush=True)
    name = f"recall of candidates of predicted IoU > {SURE_IOU} at IoU ≥ {FOUND_IOU}, {again} of {wanted}"
    return [
        *figures,
        at_least(name, again / wanted, MIN_RECALL, ""),
        at_least(f"mask AP gained by the fast preset, mean of {len(seeds)} seeds", -statistics.mean(lost), -MAX_AP_LOST, ""),
    ]


def _recall(path: str, exact: Models, fast: Models) -> tuple[int, int]:
    pixels = segmenter_pixels(read_image(path), exact.segmenter_side)[None]
    mine, theirs = (propose_from_pixels(pixels, [(1, 1)], models)[0] for models in (fast, exact))
    return recall(mine, theirs)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Compare the quality of demo-fast with that of demo.")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of trays; none for recall in the worlds alone")
    parser.add_argument("--sides", type=int, nargs="*", default=SIDES, help="of the segmenter, for recall in the worlds")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "refseg" / "quality", help="of drawn worlds")
    options = parser.parse_args()
    figures = [figure for side in options.sides for figure in measure_recall(side, options.cache)]
    figures += measure(options.seeds) if options.seeds else []
    dtypes = {name: str(load_models(name).dtype).removeprefix("torch.") for name in ("demo", "demo-fast")}
    print(f"{machine()}\n{dtypes}\n\n{as_table(figures)}")


if __name__ == "__main__":
    main()
