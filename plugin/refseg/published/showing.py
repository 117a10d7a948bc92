"""What people look at of a finished run: pictures, and predictions and references in its FiftyOne dataset."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence

from ..dataset_index import DatasetIndex
from ..progress import Progress, labelled
from ..prototypes import Prototypes
from ..runs import iter_segment
from ..writing import SegmentSettings
from .datasets import REFERENCES_FIELD, TargetSamples, show_maps, show_references
from .drawing import references_of
from .episode_sheets import write_episode_sheets
from .episodes import class_maps
from .job import Run, group_of
from .ledger import Ledger
from .sheets import write_sheets

PREDICTIONS_FIELD = "predictions"


def shown_run(runs: Sequence[Run]) -> Run:
    """The run that pictures and the dataset show: the first seed's with the most shots."""
    return max(runs, key=lambda run: (-run.seed, float("inf") if run.shots is None else run.shots))


def iter_show(ledger: Ledger, run: Run, index: DatasetIndex, targets: TargetSamples) -> Generator[Progress, None, None]:
    """Pictures of one run, and its predictions and references in the dataset."""
    job, suite = ledger.plan.job, ledger.plan.suite
    keys = group_of(run.part, run.split)
    several = len(run.part.splits) > 1
    suffix = f"_{run.split.key}" if several else ""
    out = job.out / "pictures" / ("-".join(keys) or "all")
    title = f"{suite.title} {' '.join(keys)}, {run.shown_shots}, {job.model}"
    results = json.loads(ledger.path("detections", run, ".json").read_text(encoding="utf-8"))
    if run.episodes:
        yield Progress(0, 1, "pictures")
        write_episode_sheets(run.part.targets, results, suite.folder, out, title)
        names = run.part.targets.categories
        show_maps(targets, class_maps(results, list(names)), list(names.values()), f"{PREDICTIONS_FIELD}{suffix}")
        return
    yield Progress(0, 1, "pictures")
    write_sheets(run.part.targets, run.split.category_ids, results, suite.folder, ledger.threshold, out, title)
    references, _ = references_of(run.pool, suite.folder, run.draw)
    show_references(targets.dataset, references, f"{REFERENCES_FIELD}{suffix}")
    prototypes = Prototypes.load(ledger.path("prototypes", run, ".safetensors"))
    settings = SegmentSettings(min_confidence=ledger.threshold, max_detections=suite.max_detections, matching=job.matching)
    field_name = f"{PREDICTIONS_FIELD}{suffix}"
    yield from labelled(
        iter_segment(targets.view, prototypes, field_name, model=ledger.models, settings=settings, index=index),
        f"{field_name}: ",
    )
