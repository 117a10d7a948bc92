"""What the fast presets cost in quality: AP and recall of `demo-fast` beside those of `demo`, on the demo's kind of dataset.

    python -m benchmarks.fast_quality --seeds 7 101 102

Each seed draws 60 trays with six classes, three references each, as `refseg demo` does, and is segmented with both presets from
the same prototypes; images that hold references are left out of the scores. Recall is the share of the exact preset's
candidates of predicted IoU above 0.7 that the fast one finds at an IoU of 0.9. Writes to datasets of its own and deletes them.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.equality import FOUND_IOU, SURE_IOU, recall
from benchmarks.report import Figure, as_table, at_least, machine
from refseg.candidates import propose_from_pixels
from refseg.dataset import REFERENCE_TAG, collect_references, sample_references
from refseg.demo.dataset import CLASSES, build_demo_dataset
from refseg.demo.run import SHOTS
from refseg.evaluation import evaluate
from refseg.images import read_image, segmenter_pixels
from refseg.models import Models, load_models
from refseg.prototypes import build_prototypes
from refseg.runs import segment

SEEDS = (7, 101, 102)
"""The demo's own, and two others."""
MIN_RECALL, MAX_AP_LOST = 0.97, 0.01


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
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args()
    figures = measure(options.seeds)
    dtypes = {name: str(load_models(name).dtype).removeprefix("torch.") for name in ("demo", "demo-fast")}
    print(f"{machine()}\n{dtypes}\n\n{as_table(figures)}")


if __name__ == "__main__":
    main()
