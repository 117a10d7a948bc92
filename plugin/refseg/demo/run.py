"""`refseg demo`: the whole loop on the demo dataset, with a score and a picture at the end."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..dataset import REFERENCE_TAG, collect_references, sample_references, save_prototypes
from ..evaluation import evaluate, false_positives_per_empty_image
from ..matching import HALF
from ..outputs import replacing, require_json, require_png
from ..printing import counted
from ..progress import Watcher
from ..prototypes import build_prototypes
from ..runs import calibrate, segment
from .dataset import CLASSES, NAME, NUM_IMAGES, SEED, build_demo_dataset
from .overview import draw_overview

SHOTS = 3
EVERY_SCORE = "every_score"
"""Field of what was found below the thresholds too; the App does not show it until somebody ticks it."""


def run_demo(
    out: Path,
    *,
    progress: bool | Watcher | None = None,
    name: str = NAME,
    num_images: int = NUM_IMAGES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Draw the dataset, tag references, build prototypes, calibrate, segment, evaluate; write `report.json`, `overview.png`.

    The images that hold references are left out of the evaluation: scores are of images the prototypes have not seen. Average
    precision is of everything found, which lies in a field of its own; false positives are counted among the predictions.

    Args:
        out: folder for the two files.
        progress: see `refseg.progress.drain`.
        name: of the dataset; one of this name is replaced.
        num_images: trays to draw.
        seed: of what is drawn: another one for other parts on other trays.

    Returns:
        What `report.json` holds.
    """
    require_json(out / "report.json")
    require_png(out / "overview.png")
    print(f"Drawing {num_images} trays of parts…", flush=True)
    dataset = build_demo_dataset(name=name, num_images=num_images, seed=seed)
    sample_references(dataset, "ground_truth", SHOTS)
    references = collect_references(dataset, "ground_truth", tags=REFERENCE_TAG)
    prototypes = build_prototypes(references, "demo", progress=progress)
    prototypes = calibrate(dataset, prototypes, progress=progress)
    save_prototypes(dataset, prototypes, "demo", overwrite=True)
    print(f"{counted(len(references), 'reference')} of {counted(len(prototypes.classes), 'class')}. Segmenting…", flush=True)
    run = segment(dataset, prototypes, "predictions", progress=progress)
    again = segment(dataset, prototypes, "predictions", progress=False)
    from_index = again.seconds / max(1, again.num_images)
    # Average precision takes every score, and nobody wants to look at all of these.
    segment(dataset, prototypes, EVERY_SCORE, min_confidence=0.0, progress=False)
    dataset.app_config.active_fields = fo.ActiveFields(exclude=True, paths=[EVERY_SCORE])
    dataset.save()
    unseen = dataset.match_labels(tags=REFERENCE_TAG, fields="ground_truth", bool=False)
    classes = list(CLASSES)
    scores = evaluate(unseen, EVERY_SCORE, "ground_truth", eval_key="every_score", classes=classes, progress=False)
    evaluate(unseen, "predictions", "ground_truth", eval_key="demo", classes=classes, progress=False)
    report = {
        "mask_ap": scores.mask_ap,
        "mask_ap50": scores.mask_ap50,
        "mask_ap75": scores.mask_ap75,
        "box_ap": scores.box_ap,
        "images": len(dataset),
        "evaluated_images": len(unseen),
        "shots": SHOTS,
        "seconds_per_image": round(run.seconds / max(1, run.num_images - run.num_from_index), 3),
        "seconds_per_image_from_index": round(from_index, 5),
        "false_positives_per_empty_image": false_positives_per_empty_image(unseen, "predictions", "ground_truth", 0.0),
        "threshold": HALF,
        "processor": platform.machine(),
    }
    with replacing(out / "report.json") as draft:
        draft.write_text(json.dumps(report, indent=2) + "\n")
    with replacing(out / "overview.png") as draft:
        draw_overview(dataset, unseen, "demo").save(draft, "PNG")
    print(scores)
    print(
        f"{report['false_positives_per_empty_image']:.2f} false positives an empty image at a probability of 0.5; "
        f"{report['seconds_per_image']} s an image the first time, "
        f"{1000 * from_index:.1f} ms again from the candidate index.\n"
        f"Written: {out / 'report.json'} and {out / 'overview.png'}\n"
        f"See it in the App: fiftyone app launch {dataset.name}"
    )
    return report
