"""Which minimum confidence suits the demo preset: F1 and false positives by threshold, on trays of other seeds than the demo's.

    python benchmarks/demo_confidence.py --seeds 101 102 103

For each seed three references a class, then new trays, a third of them empty. A prediction is right when it has the class of an
object not yet taken and a mask of IoU 0.5 with it. Prints a table and the threshold with the best F1 over all seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from refseg.candidates import propose
from refseg.demo.dataset import CLASSES, draw_classes, draw_tray
from refseg.demo.world import Family
from refseg.matching import make_gallery, match
from refseg.models import Models, load_models
from refseg.prototypes import Prototypes, Reference, build_prototypes

SHOTS = 3
THRESHOLDS = np.arange(0.3, 0.95, 0.05)


def show_references(rng: np.random.Generator, families: list[Family], models: Models) -> Prototypes:
    """Prototypes of SHOTS references a class, from trays drawn for it."""
    references: list[Reference] = []
    counts = dict.fromkeys(CLASSES, 0)
    with tempfile.TemporaryDirectory() as folder:
        while min(counts.values()) < SHOTS:
            scene, names = draw_tray(rng, families, empty=False)
            path = Path(folder) / f"{len(references)}.png"
            Image.fromarray(scene.image).save(path)
            for mask, name in zip(scene.masks, names, strict=True):
                if name is not None and counts[name] < SHOTS:
                    counts[name] += 1
                    rows, columns = np.nonzero(mask)
                    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                    box = (float(x0), float(y0), float(x1), float(y1))
                    reference_id = f"{name} {counts[name]}"
                    references.append(Reference(reference_id, name, str(path), box, mask[y0:y1, x0:x1].copy()))
        return build_prototypes(references, models, progress=False)


def judge_tray(
    rng: np.random.Generator, families: list[Family], empty: bool, prototypes: Prototypes, models: Models
) -> tuple[NDArray[np.float32], NDArray[np.bool_], int, bool]:
    """Scores, whether each is right, how many objects there are, and whether the tray is empty."""
    scene, names = draw_tray(rng, families, empty=empty)
    truth = [(mask, name) for mask, name in zip(scene.masks, names, strict=True) if name is not None]
    found = match(propose([Image.fromarray(scene.image)], models)[0], make_gallery(prototypes))
    taken: set[int] = set()
    right = []
    for mask, box, label in zip(found.masks, found.boxes.tolist(), found.labels.tolist(), strict=True):
        whole = np.zeros(scene.ids.shape, bool)
        whole[box[1] : box[3], box[0] : box[2]] = mask.numpy()
        hits = [
            number
            for number, (other, name) in enumerate(truth)
            if number not in taken
            and name == prototypes.classes[label]
            and (whole & other).sum() / max(1, (whole | other).sum()) >= 0.5
        ]
        taken.update(hits[:1])
        right.append(bool(hits))
    return found.scores.numpy(), np.array(right, bool), len(truth), not truth


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--images", type=int, default=24, help="trays a seed")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    models = load_models("demo")
    judged = []
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        families = draw_classes(rng)
        prototypes = show_references(rng, families, models)
        judged += [judge_tray(rng, families, number % 3 == 2, prototypes, models) for number in range(options.images)]
    objects = sum(count for _, _, count, _ in judged)
    empty = max(1, sum(is_empty for *_, is_empty in judged))
    print("confidence  precision  recall     F1  false positives an empty tray")
    best = (0.0, 0.0)
    for threshold in THRESHOLDS:
        right = sum(int(hit[score >= threshold].sum()) for score, hit, _, _ in judged)
        kept = sum(int((score >= threshold).sum()) for score, _, _, _ in judged)
        wrong_on_empty = sum(int((score >= threshold).sum()) for score, _, _, is_empty in judged if is_empty)
        precision, recall = right / max(1, kept), right / max(1, objects)
        f1 = 2 * right / max(1, kept + objects)
        best = max(best, (f1, float(threshold)))
        print(f"{threshold:10.2f} {precision:10.3f} {recall:7.3f} {f1:6.3f} {wrong_on_empty / empty:6.2f}")
    print(
        f"best F1 {best[0]:.3f} at {best[1]:.2f}, over {objects} objects on {len(judged)} trays of {len(options.seeds)} seeds"
    )


if __name__ == "__main__":
    main()
