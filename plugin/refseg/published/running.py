"""Running a benchmark: index once, then for each seed and number of shots prototypes, results and scores. It can be resumed.

Costs one pass of the models over the targets, an encoder pass for each new reference, and for each run a scan of the index: on
one core some 50 ms an image, 300 ms with profile `paper`, which compares masks at their full size.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ..checks import require_kind
from ..coco import frame_hint, framed_images, size_mismatch, write_json
from ..dataset import DatasetIndex, index_records, iter_build_index, open_index
from ..errors import BenchmarkError, ClassWithoutReferencesError, NoReferencesError
from ..images import PixelSettings
from ..masks import ImageId
from ..matching import settings_for
from ..models import load_models
from ..outputs import replacing
from ..progress import Progress, Watcher, drain, duration, labelled, require_progress
from ..prototypes import Prototypes, iter_build_prototypes
from ..regular_files import read_regular_text
from .crew import make_crew
from .datasets import TargetSamples, iter_dataset
from .drawing import references_of
from .episodes import iter_episodes
from .job import BenchmarkJob, Plan, Run, group_of
from .joining import RESULTS_FILE
from .ledger import Ledger
from .pages import benchmark_page
from .planning import make_plan, settings_of
from .plots import draw_shots
from .scoring import Scores, ground_truth_file, score
from .segmenting import IMAGES_A_TASK, MatchTask, match_images, state_of
from .showing import iter_show, shown_run
from .suite import Metric, Part, Split
from .summary import summarise
from .tables import as_table

logger = logging.getLogger(__name__)

TABLE_FILE, PLOT_FILE = "table.md", "shots.png"
VECTORS_HELD = 5000
"""References whose vectors are held for later runs: 100 MB at a width of 1,024."""


@dataclass(frozen=True)
class BenchmarkReport:
    """What a benchmark came to.

    Attributes:
        results: what `results.json` holds.
        out: folder of that file, `table.md`, `shots.png`, the results of every run, and pictures.
    """

    results: dict[str, Any]
    out: Path

    @property
    def datasets(self) -> list[str]:
        """Names of the FiftyOne datasets, to be opened."""
        return list(self.results["datasets"])

    def _repr_html_(self) -> str:
        """Our figures beside the published ones, and how they grow with the number of references."""
        return benchmark_page(str(self), self.out / PLOT_FILE)

    def __str__(self) -> str:
        lines = [as_table(self.results), f"Written to {self.out}: {RESULTS_FILE}, {TABLE_FILE}, {PLOT_FILE}, pictures/"]
        lines += self.results["hints"]
        lines += [f"See it in the App: fiftyone app launch {name}" for name in self.datasets]
        return "\n".join(lines)


def run_benchmark(job: BenchmarkJob, *, progress: bool | Watcher | None = None) -> BenchmarkReport:
    """Check a benchmark, run what is not done yet, score it, and put it beside what is published.

    Args:
        job: what to run.
        progress: see `refseg.progress.drain`.

    Raises:
        BenchmarkError: something is missing; the message names all of it.
        ModelError: the model is not to be had.
    """
    require_kind(BenchmarkJob, "a refseg.BenchmarkJob", error=BenchmarkError, job=job)
    require_progress(progress)
    return drain(iter_benchmark(make_plan(job)), progress)


def iter_benchmark(plan: Plan) -> Generator[Progress, None, BenchmarkReport]:
    """The generator behind run_benchmark: yields all the time; what is done stays done when it is closed."""
    started = time.monotonic()
    job, suite = plan.job, plan.suite
    models = load_models(job.model, device=job.device, sam2_path=job.sam2_path, dinov2_path=job.dinov2_path)
    ledger = Ledger(plan, models)
    waiting = sum(len(run.part.targets.images) for run in plan.runs if ledger.finished(run) is None)
    with make_crew(job.num_processes, waiting) as crew:
        for _, runs in groupby(plan.runs, key=lambda run: run.part.key):
            yield from _iter_part(ledger, list(runs), crew)
    done = [ledger.done[run.tag] for run in plan.runs]
    results = {
        "benchmark": suite.name,
        "title": suite.title,
        "label": job.out.name,
        "model": job.model,
        "figures": list(suite.figures),
        "settings": settings_of(plan),
        "revisions": models.revisions,
        **ledger.made_with,
        "seconds": {**ledger.seconds, "this_call": round(time.monotonic() - started, 1)},
        "datasets": ledger.datasets,
        "num_images": plan.num_images,
        "skipped_images": ledger.skipped_images,
        "left_out": {source: [asdict(one) for one in refused] for source, refused in plan.left_out.items()},
        "notes": list(plan.notes),
        "hints": _hints(ledger) if suite.name == "custom" else [],
        "runs": done,
        "summary": summarise(done, suite.figures),
    }
    write_json(job.out / RESULTS_FILE, results)
    with replacing(job.out / TABLE_FILE) as draft:
        draft.write_text(as_table(results) + "\n", encoding="utf-8")
    draw_shots([results], job.out / PLOT_FILE)
    return BenchmarkReport(results, job.out)


def _hints(ledger: Ledger) -> list[str]:
    """What may be wrong with annotations that somebody else has not run before."""
    plan, hints = ledger.plan, []
    for part in plan.suite.parts:
        run = next((run for run in plan.runs if run.part.key == part.key), None)
        if run is not None:
            results = json.loads(read_regular_text(ledger.path("detections", run)))
            hints.append(frame_hint(framed_images(part.targets, plan.suite.folder, results)))
    return [hint for hint in hints if hint]


@dataclass(frozen=True)
class _Place:
    """Where the runs of a part find their images and write what they give."""

    ledger: Ledger
    targets: TargetSamples
    index: DatasetIndex
    crew: Executor


def _iter_part(ledger: Ledger, runs: Sequence[Run], crew: Executor) -> Generator[Progress, None, None]:
    """All runs on one set of images."""
    plan, part = ledger.plan, runs[0].part
    targets = yield from iter_dataset(plan.suite, part, plan.job)
    index = yield from _iter_index(ledger, targets, plan.pixels_of(part))
    place = _Place(ledger, _of_listed_size(ledger, part, targets, index), index, crew)
    for split in part.splits:
        write_json(ledger.ground_truth(part, split), ground_truth_file(part, split))
    pending: list[tuple[Run, dict[str, Any], Future[tuple[Scores, float]]]] = []
    vectors: Prototypes | None = None
    try:
        for run in runs:
            kept = ledger.finished(run)
            if kept is not None:
                ledger.done[run.tag] = kept
                continue
            label = _label(ledger, run)
            prototypes, facts = yield from _iter_prototypes(ledger, run, vectors, label)
            vectors = _joined(vectors, prototypes)
            work = _iter_answers if run.episodes else _iter_results
            scoring = yield from work(place, run, prototypes, facts, label)
            pending.append((run, facts, scoring))
            while pending and pending[0][2].done():
                _keep(ledger, *pending.pop(0))
        for number in range(len(pending)):
            yield Progress(number, number + len(pending), "runs scored")
            _keep(ledger, *pending.pop(0))
    finally:
        # Whatever ended the work: what is scored is done.
        for waiting in pending:
            if waiting[2].done() and not waiting[2].cancelled() and waiting[2].exception() is None:
                _keep(ledger, *waiting)
    for split in part.splits:
        yield from iter_show(ledger, shown_run([run for run in runs if run.split is split]), targets)


def _label(ledger: Ledger, run: Run) -> str:
    """Which run this is, and how long all that are left will take if they take as long as those before."""
    runs = ledger.plan.runs
    number = runs.index(run)
    left = ""
    if ledger.done:
        each = sum(sum(record["seconds"].values()) for record in ledger.done.values()) / len(ledger.done)
        left = f" ({duration(each * (len(runs) - number))} left in all)"
    return (
        f"run {number + 1}/{len(runs)}{left} {' '.join([*group_of(run.part, run.split), run.shown_shots])}, seed {run.seed}: "
    )


def _iter_index(ledger: Ledger, targets: TargetSamples, pixels: PixelSettings) -> Generator[Progress, None, DatasetIndex]:
    """The candidate index of the targets, with all of them in it."""
    work = iter_build_index(
        targets.view,
        ledger.models,
        num_workers=ledger.plan.job.num_workers,
        pixels=pixels,
        as_before=False,
        insist=True,  # The plan has looked at the disk for all of it.
    )
    report = yield from labelled(work, "index: ")
    if report.num_images == 0 and report.skipped:
        first = report.skipped[0]
        raise BenchmarkError(
            f"No target image of {len(report.skipped)} can be read; the first is {first.filepath}: {first.reason}."
        )
    index = open_index(targets.dataset, ledger.models, uri=report.uri)
    facts = next(record for record in index_records(targets.dataset) if record["uri"] == index.uri)
    ledger.datasets[targets.dataset.name] = {
        "index": report.uri,
        "seconds": round(report.seconds, 2),
        "seconds_per_image": facts["seconds_per_image"],
        **({"pixels": facts["pixels"]} if facts["pixels"] else {}),
        "num_images": report.num_images,
        "num_added": report.num_added,
        "num_candidates": report.num_candidates,
        "num_bytes": report.num_bytes,
    }
    ledger.skipped_images += [[image.filepath, image.reason] for image in report.skipped]
    return index


def _of_listed_size(ledger: Ledger, part: Part, targets: TargetSamples, index: DatasetIndex) -> TargetSamples:
    """Without images that are not of the size their entries list: in those, masks and boxes lie elsewhere."""
    usable = {}
    for image in part.targets.images.values():
        sample_id = targets.sample_ids[image.id]
        indexed = index.index.images.get(sample_id)
        if indexed is None or indexed.image_hw == image.image_hw:
            usable[image.id] = sample_id
        else:
            path = str(ledger.plan.suite.folder / image.file_name)
            ledger.skipped_images.append([path, size_mismatch(image, indexed.image_hw)])
            logger.warning("Skipped %s: %s", *ledger.skipped_images[-1])
    return replace(targets, sample_ids=usable)


def _joined(vectors: Prototypes | None, newer: Prototypes | None) -> Prototypes | None:
    """All vectors that later runs may use again, or the newest alone where these are many: draws of large pools share few."""
    if vectors is None or newer is None:
        return newer or vectors
    return vectors.add(newer) if len(vectors.vectors) + len(newer.vectors) <= VECTORS_HELD else newer


def _iter_prototypes(
    ledger: Ledger, run: Run, reuse: Prototypes | None, label: str
) -> Generator[Progress, None, tuple[Prototypes | None, dict[str, Any]]]:
    """The prototypes of a run, in a file; a class whose references cannot be used is left out, and said. None without any."""
    started = time.monotonic()
    path = ledger.path("prototypes", run)
    references, skipped = references_of(run.pool, ledger.plan.suite.folder, run.draw)
    prototypes = None
    if path.is_file():  # of a run that was interrupted after they were built
        reuse = _joined(reuse, Prototypes.load(path))
    try:
        pixels = ledger.plan.pixels_of(run.part)
        work = iter_build_prototypes(references, ledger.models, reuse, drops_classes=True, pixels=pixels)
        prototypes = yield from labelled(work, label)
        prototypes.save(path)
    except (ClassWithoutReferencesError, NoReferencesError) as error:
        logger.warning("%s: no reference can be used, so nothing is found: %s", run.tag, error)
        skipped.append(("all", str(error)))
    shots = {} if prototypes is None else prototypes.shots
    names = {run.pool.categories[annotation["category_id"]] for annotation in run.draw.annotations}
    facts: dict[str, Any] = {
        "part": run.part.key,
        "split": run.split.key,
        "shots": run.shots or max(shots.values(), default=1),
        "seed": run.seed,
        "digest": ledger.digest(run),
        "references": shots,
        "short": {**run.draw.short, **dict.fromkeys(sorted(names - set(shots)), 0)},
        "skipped_references": [list(pair) for pair in (*skipped, *(() if prototypes is None else prototypes.skipped))],
        "seconds": {"prototypes": round(time.monotonic() - started, 2)},
        **ledger.made_with,
    }
    return prototypes, facts


def _iter_results(
    place: _Place, run: Run, prototypes: Prototypes | None, facts: dict[str, Any], label: str
) -> Generator[Progress, None, Future[tuple[Scores, float]]]:
    """Write the results file of a run, and have it scored."""
    started = time.monotonic()
    ledger, suite = place.ledger, place.ledger.plan.suite
    results: list[dict[str, Any]] = []
    if prototypes is not None:
        ids = {name: category_id for category_id, name in run.part.targets.categories.items()}
        task = MatchTask(
            place.index.uri,
            state_of(place.index.index),
            str(ledger.path("prototypes", run)),
            tuple(ids[name] for name in prototypes.classes),
            ledger.models.preset,
            ledger.plan.job.matching,
            suite.max_detections,
        )
        images: list[tuple[str, ImageId]] = [(sample_id, image_id) for image_id, sample_id in place.targets.sample_ids.items()]
        # One file's images stay together.
        images.sort(key=lambda pair: pair[0])
        pieces = [images[start : start + IMAGES_A_TASK] for start in range(0, len(images), IMAGES_A_TASK)]
        yield Progress(0, len(images), f"{label}images")
        for number, found in enumerate(place.crew.map(match_images, [task] * len(pieces), pieces), 1):
            results += found
            yield Progress(min(number * IMAGES_A_TASK, len(images)), len(images), f"{label}images")
    path = ledger.path("detections", run)
    write_json(path, results)
    facts["num_detections"] = len(results)
    facts["seconds"]["matching"] = round(time.monotonic() - started, 2)
    # It may go to another process: without what scoring does not need.
    part = replace(run.part, pools={})
    return place.crew.submit(score_file, part, run.split, str(path), suite.metric, suite.max_detections)


def score_file(part: Part, split: Split, path: str, metric: Metric, max_detections: int) -> tuple[Scores, float]:
    """The scores of a file of results, and the seconds they took: of exactly what was written."""
    started = time.monotonic()
    results = json.loads(read_regular_text(path))
    return score(part, split, results, metric, max_detections), time.monotonic() - started


def _iter_answers(
    place: _Place, run: Run, prototypes: Prototypes | None, facts: dict[str, Any], label: str
) -> Generator[Progress, None, Future[tuple[Scores, float]]]:
    """Write the answers to a run's episodes, which are scored one by one."""
    started = time.monotonic()
    ledger = place.ledger
    preset = ledger.models.preset
    matching = settings_for(preset.as_published, ledger.plan.job.matching)
    sample_ids = place.targets.sample_ids
    work = iter_episodes(run, prototypes, place.index, sample_ids, preset, matching, ledger.threshold, f"{label}images")
    answers, scores = yield from work
    write_json(ledger.path("detections", run), answers)
    facts["num_episodes"] = len(run.episodes)
    facts["seconds"]["matching"] = round(time.monotonic() - started, 2)
    scoring: Future[tuple[Scores, float]] = Future()
    scoring.set_result((scores, 0.0))
    return scoring


def _keep(ledger: Ledger, run: Run, facts: dict[str, Any], scoring: Future[tuple[Scores, float]]) -> None:
    """Write down a run that is done: from here on it is not repeated."""
    scores, seconds = scoring.result()
    facts["seconds"]["scoring"] = round(seconds, 2)
    files = {"detections": ledger.path("detections", run), "ground_truth": ledger.ground_truth(run.part, run.split)}
    names = {name: path.relative_to(ledger.plan.job.out).as_posix() for name, path in files.items()}
    ledger.keep(run, {**facts, **asdict(scores), **names})
