"""How long the panel takes over large datasets: each section, a decision, and the next object after it.

    python -m benchmarks.panel_speed --images 10000 100000

The datasets are synthetic, without image files: every sample has three labelled objects and two predictions with masks, sixty
labels are references, and a thousand predictions are decided. They are written past FiftyOne's checks in seconds and deleted
afterwards. Each press goes through FiftyOne as it does over HTTP. A first look is one in which nothing was read before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from fiftyone.operators.executor import execute_or_delegate_operator

from benchmarks.report import Figure, as_table, at_most

NAME = "refseg-benchmark-panel"
PANEL = "@refseg/reference-segmentation/reference_segmentation"
SECTIONS = ("references", "index", "segment", "suggested", "review", "results")
SIZES = (10_000, 100_000)
MOST_MS = {10_000: 100, 100_000: 300}
"""What a section may take at most, once its dataset was looked at."""
CLASSES = ("bracket", "bolt", "gear", "washer")
OBJECTS, PREDICTIONS = 3, 2
SHOTS, NUM_DECIDED = 15, 1000
SAMPLES_A_WRITE = 5000
REPEATS = 5


def make_dataset(num_images: int, name: str = NAME) -> Any:
    """A dataset as reviewing leaves it: references, predictions of one run, decisions on some of them."""
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset = fo.Dataset(name)
    # The first sample goes through FiftyOne, so that schema and documents are its own.
    mask = np.pad(np.ones((40, 40), bool), 4)
    objects = [fo.Detection(label=CLASSES[0], bounding_box=[0, 0, 0.1, 0.1], mask=mask) for _ in range(OBJECTS)]
    about = {"confidence": 0.5, "predicted_iou": 0.9, "margin": 0.1, "runner_up": CLASSES[1], "run": "run"}
    found = [fo.Detection(label=CLASSES[0], bounding_box=[0, 0, 0.1, 0.1], mask=mask, **about) for _ in range(PREDICTIONS)]
    sample = fo.Sample("0.png", ground_truth=fo.Detections(detections=objects), predictions=fo.Detections(detections=found))
    dataset.add_samples([sample], dynamic=True, progress=False)
    rows = dataset._sample_collection
    one = rows.find_one({})
    rows.delete_many({})
    documents = _documents(one, num_images, np.random.default_rng(7))
    for start in range(0, num_images, SAMPLES_A_WRITE):
        rows.insert_many([next(documents) for _ in range(min(SAMPLES_A_WRITE, num_images - start))], ordered=False)
    dataset.reload()
    _record_runs(dataset)
    return dataset


def press(dataset: Any, method: str, **params: Any) -> Any:
    """Press a button of the panel; the sections that come back, by name."""
    request = {"dataset_name": dataset.name, "operator_uri": PANEL, "view": []}
    request["params"] = {"__method__": method, "panel_id": "panel", **params}
    answer = asyncio.run(execute_or_delegate_operator(PANEL, json.loads(json.dumps(request))))
    answer.raise_exceptions()
    sent = [one["params"] for one in answer.executor.to_json()["requests"]]
    problems = [one["message"] for one in sent if one.get("variant") == "error"]
    if problems:
        raise RuntimeError(problems[0])
    return {name: value for one in sent for name, value in one.get("data", {}).items()}


def measure_size(num_images: int) -> list[Figure]:
    """Make a dataset of so many images, measure, delete it."""
    import refseg

    dataset = make_dataset(num_images)
    most = MOST_MS.get(num_images, 300)
    about = f", {num_images:,} images"
    try:
        figures = []
        for name in SECTIONS:
            cold = _milliseconds(lambda name=name: until_read(dataset, name))
            warm = _median(lambda name=name: press(dataset, "load", sections=[name]))
            figures += [Figure(f"{name}, first look{about}", cold, "ms"), at_most(f"{name}{about}", warm, most, "ms")]
        decided = []
        for kind in ("accept", "reject", "accept", "reject", "accept"):
            item = until_read(dataset, "review")["items"][0]
            decided.append(_milliseconds(lambda kind=kind, item=item: press(dataset, "decide", kind=kind, item=item)))
        figures.append(at_most(f"a decision, and the next object{about}", statistics.median(decided), most, "ms"))
        item = until_read(dataset, "review")["items"][0]
        # Somebody else decides; the panel's next look must see it.
        refseg.accept(dataset, [item["label_id"]], sample_ids=[item["sample_id"]])
        elsewhere = _milliseconds(lambda: until_read(dataset, "review"))
        figures.append(at_most(f"review after a decision elsewhere{about}", elsewhere, most, "ms"))
        figures.append(Figure(f"refseg.review_queue{about}", _milliseconds(lambda: refseg.review_queue(dataset)), "ms"))
        return figures
    finally:
        dataset.delete()


def measure(sizes: tuple[int, ...] = SIZES) -> list[Figure]:
    """All sizes, the smallest first."""
    with plugin():
        # FiftyOne itself, and the modules of the plugin, are loaded before anything is timed.
        warm_up = make_dataset(100)
        press(warm_up, "on_load")
        press(warm_up, "load")
        warm_up.delete()
        return [figure for number in sizes for figure in measure_size(number)]


def _documents(one: dict[str, Any], num_images: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Samples as MongoDB holds them, like this one."""
    now = datetime.now(timezone.utc)
    for number in range(num_images):
        document = {**one, "_id": ObjectId(), "filepath": f"/none/{number}.png", "created_at": now, "last_modified_at": now}
        for field, length in (("ground_truth", OBJECTS), ("predictions", PREDICTIONS)):
            like = one[field]["detections"][0]
            labels = []
            for row in range(length):
                corner = rng.random(2) * 0.8
                label = {**like, "_id": ObjectId(), "label": CLASSES[int(rng.integers(len(CLASSES)))], "tags": []}
                label["bounding_box"] = [*corner.tolist(), 0.1 + 0.05 * row, 0.1]
                if field == "predictions":
                    label |= {"confidence": 0.5 + rng.random() / 2, "margin": rng.random() / 2}
                labels.append(label)
            document[field] = {**one[field], "detections": labels}
        if number < SHOTS * len(CLASSES):
            document["ground_truth"]["detections"][0] |= {"tags": ["reference"], "label": CLASSES[number % len(CLASSES)]}
        yield document


def _record_runs(dataset: Any) -> None:
    """A run of segment and the prototypes behind it, and decisions on some of its predictions."""
    import refseg

    tagged = dataset.match_labels(fields="ground_truth", tags="reference")
    columns = tagged.values("ground_truth.detections.id"), tagged.values("ground_truth.detections.tags")
    references = [ids[0] for ids, _ in zip(*columns, strict=True)]
    shots = [[name, SHOTS] for name in CLASSES]
    prototypes = dataset.init_run(
        method="refseg/prototypes",
        model="demo",
        shots=shots,
        reference_ids=references,
        negative_ids=[],
        skipped=[],
        thresholds=[[name, 0.5] for name in CLASSES],
        quality=[[one, CLASSES[0], 0.8, None, None, None] for one in references],
        num_learnt=1,
        num_shown=len(references),
        num_surroundings=100,
        num_empty=0,
    )
    dataset.register_run("prototypes", prototypes)
    run = dataset.init_run(
        method="refseg/segment",
        state="completed",
        label_field="predictions",
        classes=list(CLASSES),
        min_confidence=0.5,
        model="demo",
        reference_ids=references,
        started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    dataset.register_run("run", run)
    sample_ids, label_ids = dataset.limit(NUM_DECIDED).values(["id", "predictions.detections.id"])
    half = len(sample_ids) // 2
    chosen = [ids[0] for ids in label_ids]
    refseg.accept(dataset, chosen[:half], sample_ids=sample_ids[:half])
    refseg.reject(dataset, chosen[half:], sample_ids=sample_ids[half:])


@contextmanager
def plugin() -> Iterator[None]:
    """Let FiftyOne load this repository's plugin and no other."""
    before = fo.config.plugins_dir
    fo.config.plugins_dir = str(Path(__file__).parent.parent)
    try:
        yield
    finally:
        fo.config.plugins_dir = before


def until_read(dataset: Any, name: str) -> Any:
    """A section, asked for until it shows its numbers, as the browser does."""
    while True:
        shown = press(dataset, "load", sections=[name])[name]
        if not shown.get("is_reading"):
            return shown
        time.sleep(0.01)


def _milliseconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _median(work: Callable[[], Any]) -> float:
    return statistics.median(_milliseconds(work) for _ in range(REPEATS))


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Measure the panel over large datasets.")
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES), help="images of each dataset")
    options = parser.parse_args()
    print(as_table(measure(tuple(options.images))))


if __name__ == "__main__":
    main()
