"""What a benchmark comes to on this machine, and all that is missing for it, found before a long run starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..calibration import spread
from ..coco import CocoDataset
from ..errors import BenchmarkError, CocoError
from ..images import find_pixels, pixel_settings, read_image_hw
from ..masks import summary_of
from ..models import get_preset, missing_weights, parse_device, wrong_weights
from ..printing import as_size, counted
from .checking import NAMED, check_disk, check_out, check_references, index_bytes
from .drawing import Drawer
from .job import BenchmarkJob, Plan, Run, group_of
from .joining import RESULTS_FILE
from .layouts import cd_fsod, coco, custom, lvis, voc
from .layouts.common import LeftOut, note, shorten
from .miou import EpisodeDrawer
from .reference_files import depends_on, read_reference_file, reference_file_for
from .suite import ANY_SHOTS, Draw, DrawRule, Part, Problems, Split, Suite

DRAW_ANY = DrawRule(min_side=0, border=0, relaxed=True)
"""Of one's own references, where fewer are asked for than there are: any, at most one of a class in an image."""
EPISODES = 1000
"""Of a fold of `coco-20i`, as in the literature."""


def make_plan(job: BenchmarkJob) -> Plan:
    """Read the annotations, draw the references of all runs, and check everything that can be checked without a model.

    Raises:
        BenchmarkError: something is missing; the message names all of it.
        UnknownModelError: no preset has this name.
        ModelError: there is no such device.
        DatasetError: a range of pixels or channels that cannot be.
    """
    given = pixel_settings(job.pixel_range, job.channels)
    # Without links: samples, and what was done, are found again by their paths.
    job = replace(job, data=Path(os.path.realpath(job.data.expanduser())), out=job.out.expanduser())
    preset = get_preset(job.model)
    parse_device(job.device)
    problems = Problems()
    notes: list[str] = []
    _check_numbers(job, problems)
    left_out: LeftOut = {}
    suite = find_suite(job, problems, left_out)
    runs: list[Run] = []
    if suite is not None and not problems.found:
        suite = replace(suite, parts=tuple(_limited(part, job, suite) for part in suite.parts))
        if job.name == "custom" and job.shots:
            suite = replace(suite, parts=tuple(replace(part, rule=DRAW_ANY) for part in suite.parts))
        for part in suite.parts:
            notes += [note for coco in (part.targets, *part.pools.values()) for note in coco.notes]
            runs += _runs_of(part, job, suite, problems, notes, left_out)
        if suite.metric == "miou":
            suite, runs = _queries_alone(suite, runs)
        check_references(suite, runs, problems)
    estimate = 0
    if suite is not None:
        estimate, held = index_bytes(suite, preset, job, notes)
        check_disk(job, max(0, estimate - held), suite, runs, problems)
    check_out(job, suite, runs, problems)
    for refused in left_out.values() if job.strict else ():
        problems.add(summary_of(refused))
    for sentence in wrong_weights(preset, job.sam2_path, job.dinov2_path):
        problems.add(sentence)
    missing = missing_weights(preset, job.sam2_path, job.dinov2_path)
    if problems.found:
        lines = [*problems.found, *missing]
        many = f"{len(lines)} things are" if len(lines) > 1 else "one thing is"
        raise BenchmarkError(
            "\n".join([f"The benchmark {job.name!r} cannot start, {many} missing:", *(f"  - {x}" for x in lines)])
        )
    assert suite is not None
    pixels = {part.key: find_pixels(_paths_of(part, runs, suite), given) for part in suite.parts}
    return Plan(job, suite, tuple(runs), tuple(dict.fromkeys(notes)), left_out, estimate, tuple(missing), pixels)


def _paths_of(part: Part, runs: Sequence[Run], suite: Suite) -> Iterator[str]:
    """All images of a part: its targets, and all that show a reference, drawn or not, so that every draw reads them alike."""
    pools = {id(run.pool): run.pool for run in runs if run.part.key == part.key}
    names = {image.file_name for image in part.targets.images.values()}
    for pool in pools.values():
        names |= {pool.images[annotation["image_id"]].file_name for annotation in pool.annotations}
    return (str(suite.folder / name) for name in names)


def find_suite(job: BenchmarkJob, problems: Problems, left_out: LeftOut) -> Suite | None:
    """The benchmark of a job as it lies on this machine; None where what is missing leaves nothing to go on with.

    Args:
        job: what was asked.
        problems: takes what is missing.
        left_out: takes annotations that cannot be used.
    """
    if not job.data.is_dir():
        problems.add(f"There is no folder {job.data}: give the one that the data was unpacked to as --data.")
        return None
    if job.name == "custom":
        if job.references is None or job.targets is None:
            problems.add("Two COCO files are needed: --references with the objects to show, --targets with those to find.")
            return None
        classes = None if job.classes in (("all",), ("novel",)) else job.classes
        return custom.find(job.data, Path(job.references), job.targets, problems, classes=classes, left_out=left_out)
    finders: dict[str, Callable[[], Suite | None]] = {
        "coco-fsod": lambda: coco.find_fsod(job.data, problems, classes=job.classes, left_out=left_out),
        "lvis": lambda: lvis.find(job.data, problems, left_out=left_out),
        "voc-fsod": lambda: voc.find(job.data, problems, only=job.only, left_out=left_out),
        "cd-fsod": lambda: cd_fsod.find(job.data, problems, only=job.only, left_out=left_out),
        "coco-20i": lambda: coco.find_20i(job.data, problems, only=job.only, left_out=left_out),
        "toy": lambda: coco.find_toy(job.data, problems, left_out=left_out),
    }
    if job.name not in finders:
        problems.add(f"There is no benchmark {job.name!r}: its name is one of {', '.join((*finders, 'custom'))}.")
        return None
    return finders[job.name]()


def _check_numbers(job: BenchmarkJob, problems: Problems) -> None:
    for what, values in (("shots", job.shots or ()), ("seeds", (job.num_seeds,)), ("limit", (job.limit,))):
        for value in values:
            if value is not None and value < 1:
                problems.add(f"--{what} must be 1 or more, not {value}.")


def _limited(part: Part, job: BenchmarkJob, suite: Suite) -> Part:
    """A part of fewer images; episodes are limited by their number instead."""
    images = list(part.targets.images.values())
    if job.limit is None or suite.metric == "miou" or len(images) <= job.limit:
        return part
    chosen = [images[row] for row in spread(len(images), job.limit)]
    return replace(part, targets=part.targets.restrict({image.id: image.image_hw for image in chosen if image.image_hw}))


def _runs_of(part: Part, job: BenchmarkJob, suite: Suite, problems: Problems, notes: list[str], left_out: LeftOut) -> list[Run]:
    """By split, then seed, the largest number of shots first."""
    given = job.references if job.name != "custom" else None
    fixed = part.rule is None and given is None
    seeds = job.seeds
    if len(seeds) > 1 and (fixed or (given is not None and not depends_on(given, "seed"))):
        notes.append("The references are given, not drawn: more seeds would change nothing, one is run.")
        seeds = seeds[:1]
    shots: list[int | None] = sorted(job.shots or suite.shots, reverse=True)  # type: ignore[assignment]
    if job.name == "custom" and job.shots is None:
        shots = []
    if given is not None and job.shots is None and not depends_on(given, "shots"):
        shots = []
    pools = _Pools(part, suite, given, left_out)
    runs = []
    for split in part.splits:
        for seed in seeds:
            for number in shots or [None]:
                run = pools.run(split, number, seed, job, problems, notes)
                if run is not None:
                    runs.append(run)
                    # Of the most shots: fewer are short of no more.
                    notes += _shortages(run) if number == (shots or [None])[0] else []
    return runs


class _Pools:
    """What references of a part are drawn from, grouped once for all runs."""

    def __init__(self, part: Part, suite: Suite, given: str | None, left_out: LeftOut) -> None:
        self._part, self._suite, self._given, self._left_out = part, suite, given, left_out
        self._drawers: dict[str, Drawer] = {}
        self._files: dict[Path, CocoDataset] = {}
        self._episodes: EpisodeDrawer | None = None

    def run(
        self, split: Split, shots: int | None, seed: int, job: BenchmarkJob, problems: Problems, notes: list[str]
    ) -> Run | None:
        """One run, or None where its references are not to be had."""
        part = self._part
        if self._suite.metric == "miou":
            try:
                return self._run_of_episodes(split, shots or 1, seed, job, notes)
            except CocoError as error:
                problems.add(str(error))
                return None
        if self._given is not None:
            file = reference_file_for(self._given, shots, seed)
            try:
                if file not in self._files:
                    pool = part.pools.get(ANY_SHOTS)
                    read = read_reference_file(file, self._suite.folder, part.targets, pool)
                    self._files[file] = read
                    if str(file) not in self._left_out:  # parts share their files
                        note(read.left_out, str(file), self._left_out)
                    notes += read.notes
            except CocoError as error:
                problems.add(str(error))
                return None
            drawer = self._drawers.setdefault(str(file), Drawer(self._files[file], None))
            return Run(part, split, shots, seed, self._files[file], drawer.draw(split.category_ids, shots, seed))
        key = shots if shots in part.pools else ANY_SHOTS
        if key not in part.pools:
            known = ", ".join(map(str, sorted(part.pools)))
            problems.add(
                f"{part.key or self._suite.name} has references for {known} shots, not for {shots}: choose from these."
            )
            return None
        assert key is not None
        drawer = self._drawers.setdefault(str(key), Drawer(part.pools[key], part.rule))
        return Run(part, split, shots, seed, part.pools[key], drawer.draw(split.category_ids, shots, seed))

    def _run_of_episodes(self, split: Split, shots: int, seed: int, job: BenchmarkJob, notes: list[str]) -> Run:
        pool = self._part.pools[ANY_SHOTS]
        self._episodes = self._episodes or EpisodeDrawer(pool)
        most = max(job.shots or self._suite.shots)
        asked = [number for number in split.category_ids if self._episodes.num_images(number) > most]
        if len(asked) < len(split.category_ids):
            few = [pool.categories[number] for number in split.category_ids if number not in asked]
            notes.append(
                f"{split.key}: not asked for, because they are in fewer than {most + 1} images: {shorten(few, most=NAMED)}."
            )
        episodes = self._episodes.draw(asked, shots, seed, min(EPISODES, job.limit or EPISODES))
        shown = {(support, episode.category_id) for episode in episodes for support in episode.supports}
        chosen = [
            annotation
            for annotation in pool.annotations
            if (annotation["image_id"], annotation["category_id"]) in shown and not annotation.get("iscrowd")
        ]
        return Run(self._part, split, shots, seed, pool, Draw(tuple(chosen)), tuple(episodes))


def _shortages(run: Run) -> list[str]:
    """What is to be said of classes with too few references."""
    where = " ".join(group_of(run.part, run.split))
    notes = []
    fewer = {name: number for name, number in run.draw.short.items() if number}
    if fewer:
        listed = shorten([f"{name} {number}" for name, number in sorted(fewer.items())], most=NAMED)
        notes.append(f"{where}: fewer than {counted(run.shots or 0, 'reference')} for {listed}; those there are were used.")
    if run.draw.relaxed:
        some = counted(len(run.draw.relaxed), "class has", "classes have")
        notes.append(f"{where}: {some} no object of the size asked for; smaller ones were drawn.")
    return notes


def _queries_alone(suite: Suite, runs: Sequence[Run]) -> tuple[Suite, list[Run]]:
    """The targets of episodes are the images that these ask about."""
    sizes = {}
    targets = suite.parts[0].targets
    for run in runs:
        for episode in run.episodes:
            image_hw = targets.images[episode.query].image_hw
            sizes[episode.query] = image_hw or read_image_hw(suite.folder / targets.images[episode.query].file_name)
    part = replace(suite.parts[0], targets=targets.restrict(sizes))
    return replace(suite, parts=(part,)), [replace(run, part=part) for run in runs]


def settings_of(plan: Plan) -> dict[str, Any]:
    """What was chosen, as `results.json` keeps it: no path but those that name files of references and targets."""
    job = plan.job
    return {
        "model": job.model,
        "shots": None if job.shots is None else list(job.shots),
        "seeds": list(job.seeds),
        "limit": job.limit,
        "classes": None if job.classes is None else list(job.classes),
        "only": None if job.only is None else list(job.only),
        "references": job.references,
        "targets": None if job.targets is None else str(job.targets),
        "min_score": job.min_score,
        "matching": None if job.matching is None else job.matching.as_dict(),
        "max_detections": plan.suite.max_detections,
        "pixels": {part.key: plan.pixels_of(part).as_lists() for part in plan.suite.parts},
    }


def describe_plan(plan: Plan) -> str:
    """What is about to be done, in a few lines."""
    classes = [len(split.category_ids) for part in plan.suite.parts for split in part.splits]
    shots = sorted({run.shots for run in plan.runs if run.shots is not None})
    head = [
        counted(plan.num_images, "image"),
        f"{min(classes)} to {max(classes)} classes" if min(classes) < max(classes) else counted(classes[0], "class"),
        f"{counted(len(plan.runs), 'run')} of {', '.join(map(str, shots)) or 'all'} references a class",
        counted(len({run.seed for run in plan.runs}), "seed"),
        f"preset {plan.job.model!r}",
        f"about {as_size(plan.index_bytes)} for the candidate index",
    ]
    notes = [*plan.notes, *plan.downloads, *_said_of_pixels(plan)]
    refused = [one for members in plan.left_out.values() for one in members]
    if refused:
        notes += [f"{line} {RESULTS_FILE} will list all." for line in summary_of(refused).splitlines()]
    return "\n".join([f"{plan.suite.title}: {', '.join(head)}", *(f"  - {note}" for note in notes)])


def _said_of_pixels(plan: Plan) -> list[str]:
    """How images that need it are read, part by part."""
    said = ((part.key, plan.pixels_of(part)) for part in plan.suite.parts)
    return [f"{f'{key}: ' if key else ''}Images are read with {pixels}." for key, pixels in said if not pixels.is_plain]
