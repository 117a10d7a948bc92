"""What each section of the panel shows, as JSON, read from FiftyOne alone: no model, no torch, no index is opened.

A section is asked for by itself and in a thread. What it needs of labels comes from `looking`: once a dataset was looked at, a
section of 100,000 images takes some tenths of a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..forms.constants import (
    EMPTY_TAG,
    EVALUATION_METHOD,
    OVERLAPS,
    PROTOTYPES_METHOD,
    REJECTED_FIELD,
    SECOND_LOOKS,
    SIMILARITIES,
)
from ..forms.form import dataset_problem, object_fields
from ..forms.indexes import find_record, record_pixels
from ..forms.matching import default_matching
from ..forms.messages import count, duration
from ..forms.selection import collection
from ..forms.weights import files_of
from ..running.background import can_delegate
from ..running.failures import kept_failures
from ..running.jobs import running_jobs
from . import looking
from . import settings as panel_settings
from .alike import found_similar
from .examples import DRAWN, REMOVED, drawn_from, every_image, only_predictions, selected_others
from .indexing import index
from .inspected import inspection
from .settings import MATCHING, STORE, PanelSettings
from .suggested import suggested
from .telling import Section, describe_evaluation, describe_run, newest, queued
from .thresholds import Thresholds, thresholds

BINS = 20
"""Bars of the score histogram."""
SHOWN_EXAMPLES = 12
"""Crops shown of a class; the row says how many more there are."""
SHOWN_ITEMS = 12
"""Objects of the review queue that the panel knows of in advance."""


def overview(ctx: Any, settings: PanelSettings) -> Section:
    """The choices and what runs now; `problem` says why nothing can be done at all."""
    return {
        "problem": dataset_problem(ctx),
        "dataset": ctx.dataset.name,
        "settings": asdict(settings),
        "matching": _matching(settings),
        "fields": drawn_from(ctx),
        "current_sample": ctx.current_sample,
        "can_delegate": can_delegate(),
        "selection": selection(ctx),
        "similar": found_similar(ctx),
        "jobs": jobs(ctx),
        "failures": kept_failures(ctx),
    }


def selection(ctx: Any) -> Section:
    """How much is selected in the App, how much of that as what not to look for (selected with Alt), and marked as empty."""
    chosen = list(ctx.selected_labels or ()) or list(ctx.selected_samples)
    negatives = sum(item.get("type") == "alt" for item in chosen)
    narrowed = bool(ctx.view._stages) or ctx.view._is_patches
    what = "object" if ctx.selected_labels or ctx.view._is_patches else "image"
    ids = [item["id"] for item in ctx.selected_samples] if what == "image" else []
    return {
        "refusal": _refusal(ctx) if what == "object" and chosen else None,
        "num_marked": int(every_image(ctx).select(ids).match_tags(EMPTY_TAG).count()) if ids else 0,
        "num_references": len(chosen) - negatives,
        "num_negatives": negatives,
        "what": what,
        "view": count(len(ctx.view), "object" if ctx.view._is_patches else "image") if narrowed else None,
    }


def _refusal(ctx: Any) -> str | None:
    """Why nothing can be decided on the selected objects; None where all are predictions."""
    settings = panel_settings.read(ctx)
    try:
        others = selected_others(ctx, settings)
    except ValueError as error:
        return str(error)
    return only_predictions(settings, others) if others else None


def jobs(ctx: Any) -> list[Section]:
    """What runs on the dataset, newest first, and what waits for the delegated service."""
    now = time.time()
    found = [
        {
            "id": job.id,
            "operator": job.operator,
            "label": job.label,
            "fraction": job.done / job.total if job.total else None,
            "done": job.done,
            "total": job.total,
            "step": job.step,
            "text": f"{job.step} {job.done:,} of {job.total:,}" if job.total else "starting",
            "left": None if job.seconds_left is None else duration(job.seconds_left),
            "found": job.found,
            "is_cancelled": job.is_cancelled,
            "seconds": round(now - job.started_at),
        }
        for job in running_jobs(ctx)
    ]
    return found + (queued(ctx, {job["id"] for job in found}) if can_delegate() else [])


def references(ctx: Any, settings: PanelSettings, *, waits: bool = False) -> Section:
    """A row a class: its references, what is known of their quality, and its negatives."""
    tagged = looking.tagged_labels(ctx, settings, waits=waits)
    examples = [_example(label) for label in tagged.labels]
    kept = newest(ctx, PROTOTYPES_METHOD, whole=True)
    quality = {row[0]: row for row in (kept or {}).get("quality") or ()}
    for example in examples:
        _, _, similarity, _, _, problem = quality.get(example["id"], (None,) * 6)
        example |= {"similarity": similarity, "problem": problem}
    names = {example["label"] for example in examples if example["kind"] == "reference"}
    short = ctx.store(STORE).get(DRAWN) or {}
    rows = []
    for name in sorted({*names, *short}):
        shots = [example for example in examples if example["kind"] == "reference" and example["label"] == name]
        negatives = [example for example in examples if example["kind"] == "negative" and example["label"] == name]
        known = [example["similarity"] for example in shots if example["similarity"] is not None]
        rows.append(
            {
                "name": name,
                "shots": len(shots),
                "quality": sum(known) / len(known) if known else None,
                "short": short.get(name),
                "problems": [example["problem"] for example in shots if example["problem"]],
                "examples": sorted(shots, key=lambda example: example["problem"] is None)[:SHOWN_EXAMPLES],
                "num_negatives": len(negatives),
                "negatives": negatives[:SHOWN_EXAMPLES],
            }
        )
    others = [example for example in examples if example["kind"] == "negative" and example["label"] not in {*names, *short}]
    removed = ctx.store(STORE).get(REMOVED)
    return {
        "rows": rows,
        "removed": None if removed is None else f"{'/'.join(removed['tags'])} of {removed['label']}",
        "other_negatives": others[:SHOWN_EXAMPLES],
        "num_other_negatives": len(others),
        "num_references": sum(row["shots"] for row in rows),
        "num_negatives": len(examples) - sum(row["shots"] for row in rows),
        "num_empty": tagged.num_empty,
        "pending": _pending(ctx, examples, kept, tagged.num_empty),
        "calibration": None if kept is None else _calibration(kept),
        "prototypes": None if kept is None else {"name": kept["key"], "model": kept["model"]},
    }


def segment(ctx: Any, settings: PanelSettings) -> Section:
    """Classes with their thresholds, and what the last run found and changed."""
    from refseg.dataset import newest_run

    kept = newest(ctx, PROTOTYPES_METHOD)
    tagged = {label.label for label in _references(ctx, settings)}
    names = sorted(tagged | {row[0] for row in (kept or {}).get("shots") or ()} if tagged else tagged)
    run = newest_run(ctx.dataset, settings.label_field)
    least = thresholds(settings, kept, None if run is None else run.config)
    return {
        "classes": [
            {
                "name": name,
                "threshold": round(least.of(name), 4),
                "origin": least.origin(name),
                "can_be_calibrated": least.is_later or name in least.calibrated,
                "chosen": settings.classes is None or name in settings.classes,
            }
            for name in names
        ],
        "run": None if run is None else describe_run(ctx, run),
    }


def review(ctx: Any, settings: PanelSettings) -> Section:
    """The head of the queue and what was decided so far."""
    found = looking.review(ctx, settings)
    run = None if found is None else found.run
    least = _of_run({} if run is None else run.config)
    is_asked = found is not None and run is not None
    items = found.queue(settings.order, SHOWN_ITEMS) if is_asked else []
    pieces = _pieces(ctx, settings.label_field, items)
    return {
        "num_open": len(found.open) if is_asked else 0,
        "items": [
            {
                "label_id": item.label_id,
                "sample_id": item.sample_id,
                "label": item.label,
                "score": round(item.score, 3),
                "why": _why(item, settings, least),
                "runner_up": item.runner_up,
                "pieces": pieces.get(item.label_id, 1),
            }
            for item in items
        ],
        "classes": sorted({*(found.open.counts if is_asked else ()), *(run.config.get("classes") or () if run else ())}),
        **_decided(found),
    }


def results(ctx: Any, settings: PanelSettings) -> Section:
    """Figures against ground truth where they were measured, and the scores' histogram; decisions are those of `review`."""
    evaluated = newest(ctx, EVALUATION_METHOD, pred_field=settings.label_field)
    found = looking.review(ctx, settings)
    histogram = None
    if found is not None and len(found.scores):
        numbers, _ = np.histogram(found.scores, bins=BINS, range=(0, 1))
        histogram = {"counts": numbers.tolist(), "num": len(found.scores)}
    return {
        "evaluation": None if evaluated is None else describe_evaluation(evaluated),
        "num_reference_images": len({label.sample_id for label in _references(ctx, settings)}),
        "truth_fields": [name for name in object_fields(ctx) if name not in _not_truth(ctx, settings)],
        "histogram": histogram,
        "thresholds": _lines(ctx, settings),
    }


def classes_asked_for(ctx: Any, settings: PanelSettings) -> list[str] | None:
    """The classes that the last run was to write, where it was not to write all it knew; None where every class counts."""
    from refseg.dataset import newest_run

    run = newest_run(ctx.dataset, settings.label_field)
    config: Mapping[str, Any] = {} if run is None else run.config
    written = [str(name) for name, _ in config.get("min_confidences") or ()]
    return written if written and set(written) < set(config.get("classes") or ()) else None


SECTIONS = {
    "references": references,
    "index": index,
    "segment": segment,
    "suggested": suggested,
    "review": review,
    "results": results,
    "inspection": inspection,
}


def _pieces(ctx: Any, label_field: str, items: Sequence[Any]) -> dict[str, int]:
    """Of how many pieces masks are, by label id; those of one are left out."""
    from refseg.dataset import read_documents

    sample_ids = {item.sample_id for item in items}
    found = read_documents(collection(ctx), sample_ids, [label_field], ["_id", "pieces"]) if items else ()
    labels = [label for _, lists in found for label in lists[label_field] if (label.get("pieces") or 1) > 1]
    return {str(label["_id"]): int(label["pieces"]) for label in labels}


def _example(label: Any) -> Section:
    kind = "negative" if label.is_negative else "reference"
    return {"id": label.label_id, "sample_id": label.sample_id, "field": label.field, "label": label.label, "kind": kind}


def _references(ctx: Any, settings: PanelSettings) -> list[Any]:
    return [label for label in looking.tagged_labels(ctx, settings).labels if not label.is_negative]


def _matching(settings: PanelSettings) -> Section:
    """How candidates are compared with references: what is chosen, what would be by default, and what there is to choose."""
    defaults = {name: value for name, value in default_matching(settings.model).items() if name in MATCHING}
    choices = {"class_similarity": SIMILARITIES, "overlaps": OVERLAPS, "second_look": SECOND_LOOKS}
    return {
        "chosen": {**defaults, **settings.matching},
        "defaults": defaults,
        "choices": {
            name: [[value, text.partition(": ")[2]] for value, text in texts.items()] for name, texts in choices.items()
        },
    }


def _calibration(kept: Mapping[str, Any]) -> Section | None:
    """From what the thresholds of prototypes come, "" where they were not calibrated; None where the model wants none."""
    if not default_matching(kept["model"])["calibrated"]:
        return None
    shown, around = kept.get("num_shown") or 0, kept.get("num_surroundings") or 0
    text = ""
    if kept.get("num_learnt"):
        mined = f"; {count(kept['num_mined'], 'negative')} mined" if kept.get("num_mined") else ""
        text = f"Scores are probabilities, learnt from {count(shown, 'reference')} and {count(around, 'surrounding')}{mined}"
    elif shown or around:
        text = "Scores are probabilities as on other datasets: no class has references in two images"
    return {"text": text, "is_calibrated": bool(kept.get("num_learnt"))}


def _of_run(config: Mapping[str, Any]) -> Thresholds:
    """The least scores that a run wrote."""
    return Thresholds(float(config.get("min_confidence") or 0.0), dict(config.get("min_confidences") or ()))


def _lines(ctx: Any, settings: PanelSettings) -> list[Section]:
    """The different least scores, lowest first, each with those of the newest prototypes' classes that it is of."""
    from refseg.dataset import newest_run

    kept, run = newest(ctx, PROTOTYPES_METHOD), newest_run(ctx.dataset, settings.label_field)
    least = thresholds(settings, kept, None if run is None else run.config)
    lines: dict[float, list[str]] = {}
    for name in [row[0] for row in (kept or {}).get("shots") or ()] or [name for name, _ in settings.thresholds]:
        lines.setdefault(round(least.of(name), 2), []).append(name)
    if not lines:
        return [{"value": least.default, "names": []}]
    return [{"value": value, "names": sorted(lines[value])} for value in sorted(lines)]


def _is_index_read_otherwise(ctx: Any, kept: Mapping[str, Any]) -> bool:
    """Whether a run would refuse to compare the index with these prototypes, because pixels were read in two ways."""
    from refseg.images import PixelSettings

    record = find_record(ctx, kept["model"], borrows=True)
    return record is not None and not record_pixels(record).fits(PixelSettings.from_lists(kept.get("pixels")))


def _pending(ctx: Any, examples: list[Section], kept: Mapping[str, Any] | None, num_empty: int) -> str | None:
    """What the newest prototypes do not know yet."""
    if not examples:
        return None
    skipped = {row[0] for row in (kept or {}).get("skipped") or ()}
    parts = []
    for kind, ids in (("reference", (kept or {}).get("reference_ids")), ("negative", (kept or {}).get("negative_ids"))):
        now = {example["id"] for example in examples if example["kind"] == kind}
        before = set(ids or ())
        new, gone = len(now - before - skipped), len(before - now)
        parts += [f"{count(new, f'new {kind}')}"] * bool(new) + [f"{count(gone, kind)} taken away"] * bool(gone)
    # Prototypes that are not calibrated know no empty image, and nothing is missing where that was wanted.
    if kept is None or kept.get("num_shown") or kept.get("num_surroundings"):
        new = num_empty - ((kept or {}).get("num_empty") or 0)
        parts += [count(new, "new empty image")] * (new > 0) + [f"{count(-new, 'empty image')} taken away"] * (new < 0)
    if kept is not None and files_of(ctx, kept["model"])["since"] > kept["at"]:
        parts.append("weights from other files")
    if kept is not None and _is_index_read_otherwise(ctx, kept):
        parts.append("how the index reads pixels")
    return ", ".join(parts) or None


def _why(item: Any, settings: PanelSettings, least: Thresholds) -> str:
    """Why the queue asks about an object."""
    if settings.order == "score":
        return "By score, best first"
    threshold = least.of(item.label)
    if item.runner_up is None or item.score - threshold <= item.margin + 1e-6:
        return (
            f"Just above the minimum score, {threshold:.2f}" if item.score - threshold < 0.1 else "The least sure of the rest"
        )
    return f"Nearly as much like {item.runner_up!r}: {item.margin:.2f} apart"


def _decided(found: Any) -> Section:
    from refseg.review import ReviewSummary

    summary = ReviewSummary(()) if found is None else found.summary
    return {
        "num_accepted": summary.num_accepted,
        "num_rejected": summary.num_rejected,
        "num_relabelled": summary.num_relabelled,
        "num_fixed": summary.num_fixed,
        "acceptance_rate": summary.acceptance_rate,
        "corrections_per_hundred": summary.corrections_per_hundred,
    }


def _not_truth(ctx: Any, settings: PanelSettings) -> set[str]:
    from refseg.dataset import prediction_fields

    return {settings.label_field, REJECTED_FIELD, *prediction_fields(ctx.dataset)}
