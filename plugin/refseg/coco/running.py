"""`refseg coco`: from COCO references and a folder of images to COCO results, scored where ground truth exists. No FiftyOne."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..calibration import add_mined, calibrator_for, default_thresholds, num_mined
from ..candidates import Candidates, PackedCandidates, PresenceGate
from ..errors import CocoError, ModelError
from ..images import PixelSettings
from ..masks import ImageId
from ..matching import (
    Matcher,
    look_at_file,
    make_matcher,
    semantic_map,
    settings_for,
    write_map,
    write_names,
)
from ..models import Models, load_models
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes, Reference, build_prototypes, image_key
from .average_precision import evaluate_results, has_masks
from .figures import AveragePrecision
from .files import CocoDataset, CocoImage, group_by_image, to_listing, to_results
from .frame_hints import framed_image
from .frames import FramedImage, frame_hint
from .images import Proposer
from .inputs import NEGATIVE, Inputs, read_inputs
from .job import CocoJob, CocoReport
from .json_files import write_json
from .known import KnownImages, Seen, calibrated, iter_look

logger = logging.getLogger(__name__)

__all__ = ["CocoJob", "CocoReport", "run_coco"]


def run_coco(job: CocoJob, *, progress: bool | Watcher | None = None) -> CocoReport:
    """Do what `refseg coco` does: build prototypes, learn from images that are known, segment, write, evaluate.

    Scores are probabilities, learnt from what lies around references, unless the job says otherwise. An image that
    cannot be read, or is not of the size its entry lists, is skipped and reported; it does not count in the scores. An
    annotation that cannot be used is left out and reported; a target's whose mask alone cannot counts by its box.

    Args:
        job: files and settings.
        progress: see `refseg.progress.drain`.

    Raises:
        CocoError: a file is malformed, no image is to be had, a class of the references is none of the targets, or what is
            written would take the place of what is read. Where the job is strict: an annotation cannot be used.
        BadReferenceError: there are no references, or none of a class is usable.
        ModelError: the model is not to be had.
    """
    inputs = read_inputs(job)
    models = _load(job)
    prototypes = build_prototypes(
        inputs.references,
        models,
        negatives=inputs.negatives,
        pixel_range=inputs.pixels.pixel_range,
        channels=inputs.pixels.channels,
        turned=job.turned,
        progress=progress,
    )
    started = time.monotonic()
    proposer = Proposer(models, job.images, job.tiles, job.num_workers, inputs.pixels)
    shown, blank, refused = _known(job, inputs.references, inputs.crowds, inputs.empty, prototypes, models)
    known = KnownImages(shown, blank, {proposer.path_of(image) for image in inputs.targets.images.values()})
    look = iter_look(known, prototypes, lambda taught: _matcher(job, taught, models, 0.0), proposer)
    seen = drain(look, progress, "calibrating") if known.paths else Seen()
    prototypes = _taught(job, prototypes, seen, models)
    if job.prototypes is not None:
        prototypes.save(job.prototypes)
    if job.semantic is not None:
        # Before the first map: the names tell the next run whose maps these are.
        write_names(job.semantic, prototypes.classes)
    work = _work_of(job, inputs, prototypes, _matcher(job, prototypes, models, job.min_score), proposer)
    found = drain(_iter_segment(work, seen.candidates), progress, "segmenting")
    seconds = time.monotonic() - started
    listed = _write_results(job, inputs, found)
    mask, box = _scores(listed, found.results, sorted(inputs.category_ids.values()))
    report = CocoReport(
        out=str(job.out),
        model=job.model,
        shots=prototypes.shots,
        num_images=len(found.sizes),
        num_instances=len(found.results),
        seconds=seconds,
        skipped_images=tuple(dict.fromkeys((*refused, *seen.skipped, *found.skipped))),
        skipped_references=tuple((_what(name), reason) for name, reason in prototypes.skipped),
        mask=mask,
        box=box,
        num_gated=found.num_gated,
        thresholds=dict(work.matcher.thresholds),
        calibrated=_is_calibrated(job, prototypes, models),
        num_empty=seen.num_empty,
        num_mined=num_mined(prototypes.negatives),
        left_out=inputs.left_out(listed),
        notes=inputs.notes(listed, frame_hint(found.framed)),
        pixel_range=inputs.pixels.pixel_range,
    )
    if job.report is not None:
        write_json(job.report, asdict(report))
    return report


def _work_of(job: CocoJob, inputs: Inputs, prototypes: Prototypes, matcher: Matcher, proposer: Proposer) -> _Work:
    ids = [inputs.category_ids[name] for name in prototypes.classes]
    truth = group_by_image(inputs.targets.annotations)
    return _Work(job, inputs.targets, prototypes, matcher, ids, proposer, inputs.maps, truth)


def _write_results(job: CocoJob, inputs: Inputs, found: _Found) -> CocoDataset:
    """Write the results, and the list of images where none was given; the targets that were segmented, with their sizes."""
    write_json(job.out, found.results)
    targets = inputs.targets
    unlisted = {name: hw for name, hw in found.sizes.items() if targets.images[name].image_hw is None}
    listed = targets.with_sizes(unlisted).restrict(found.sizes)
    if job.targets is None:
        write_json(job.out.with_suffix(".images.json"), to_listing(list(listed.images.values()), listed.categories))
    return listed


@dataclass(frozen=True, eq=False)
class _Work:
    """What there is to segment, and with what."""

    job: CocoJob
    targets: CocoDataset
    prototypes: Prototypes
    matcher: Matcher
    category_ids: Sequence[int]
    proposer: Proposer
    maps: Mapping[ImageId, Path]
    truth: Mapping[ImageId, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def eyes(self) -> tuple[Models, PixelSettings]:
        """What looks again at candidates, and how images are read."""
        return self.proposer.models, self.proposer.pixels


@dataclass
class _Found:
    """What segmenting has brought so far."""

    results: list[dict[str, Any]] = field(default_factory=list)
    sizes: dict[ImageId, tuple[int, int]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    num_gated: int = 0
    framed: list[FramedImage] = field(default_factory=list)

    def add(self, image: CocoImage, candidates: Candidates | PackedCandidates, work: _Work) -> None:
        """Match one image."""
        looked = look_at_file(work.proposer.path_of(image), candidates, work.matcher.to_look_at(candidates), *work.eyes)
        instances = work.matcher.match(candidates, looked)
        self.num_gated += candidates.gated
        self.sizes[image.id] = candidates.image_hw
        as_published = work.matcher.as_published
        results = to_results(instances, work.category_ids, image.id, candidates.image_hw, as_published=as_published)
        self.results += results
        if image.id in work.truth:
            self._add_framed(image, candidates, results, work)
        if image.id in work.maps:
            canvas = semantic_map(instances, candidates.image_hw, work.matcher.map_threshold)
            write_map(work.maps[image.id], canvas, len(work.prototypes.classes))

    def _add_framed(
        self,
        image: CocoImage,
        candidates: Candidates | PackedCandidates,
        results: Sequence[Mapping[str, Any]],
        work: _Work,
    ) -> None:
        """Note what is needed to tell whether annotations were made on the image as it is stored."""
        framed = framed_image(work.job.images / image.file_name, candidates.image_hw, work.truth[image.id], results)
        if framed is None:
            return
        rows = candidates.filled.nonzero()[:, 0]
        (height, width), side = candidates.image_hw, candidates.grid_side
        cells = candidates.boxes_of(rows) + torch.tensor([0, 0, 1, 1])
        boxes = cells * torch.tensor([width, height, width, height]) / side
        self.framed.append(replace(framed, candidates=boxes.numpy()))


def _iter_segment(work: _Work, proposed: Mapping[str, PackedCandidates]) -> Generator[Progress, None, _Found]:
    """Segment all targets; of some the candidates are known by the path of their image."""
    proposer = work.proposer
    images = list(work.targets.images.values())
    found, waiting = _Found(), []
    for image in images:
        candidates = proposed.get(proposer.path_of(image))
        if candidates is None or image.image_hw not in (None, candidates.image_hw):
            waiting.append(image)
        else:
            found.add(image, candidates, work)
    done = len(images) - len(waiting)
    yield Progress(done, len(images), "images")
    gate = None if work.job.presence_gate is None else PresenceGate(work.prototypes.matrix, work.job.presence_gate)
    with closing(proposer.propose(waiting, gate)) as batches:
        for batch in batches:
            for one in batch:
                if one.candidates is None:
                    found.skipped.append((one.path, one.error))
                else:
                    found.add(one.image, one.candidates, work)
            done += len(batch)
            yield Progress(done, len(images), "images")
    if not found.sizes:
        path, reason = found.skipped[0]
        raise CocoError(f"No image of {len(images)} can be segmented; the first is {path}: {reason}.")
    order = {image.id: row for row, image in enumerate(images)}
    found.results.sort(key=lambda result: order[result["image_id"]])
    found.sizes = dict(sorted(found.sizes.items(), key=lambda item: order[item[0]]))
    return found


def _matcher(job: CocoJob, prototypes: Prototypes, models: Models, min_score: float | None) -> Matcher:
    """Prototypes made ready, with one least score for all classes or with that of each."""
    matching = settings_for(models.preset.as_published, job.matching)
    calibrator = calibrator_for(prototypes, models.preset, matching)
    if min_score is None:
        thresholds = default_thresholds(prototypes, models.preset, matching, calibrator)
    else:
        thresholds = dict.fromkeys(prototypes.classes, min_score)
    return make_matcher(
        prototypes,
        models.preset,
        matching,
        thresholds,
        job.max_detections,
        is_chosen=min_score is not None,
        calibrator=calibrator,
    )


def _known(
    job: CocoJob,
    references: Sequence[Reference],
    crowds: Sequence[Reference],
    empty: Sequence[str],
    prototypes: Prototypes,
    models: Models,
) -> tuple[dict[str, list[Reference]], list[str], list[tuple[str, str]]]:
    """Objects in the images of references that are of use, images known to be empty, and those of them that are not."""
    shown: dict[str, list[Reference]] = {}
    for item in references:
        shown.setdefault(item.image, []).append(item)
    keys = {image_key(path) for path in shown}
    refused = [(path, "it shows a reference, so it is not empty") for path in empty if image_key(path) in keys]
    blank = [path for path in empty if image_key(path) not in keys]
    if not settings_for(models.preset.as_published, job.matching).calibrated:
        return {}, blank, refused
    used = {path: items for path, items in shown.items() if any(item.id in prototypes.reference_ids for item in items)}
    for crowd in crowds:
        if crowd.image in used:
            used[crowd.image].append(crowd)
    return used, blank, refused


def _is_calibrated(job: CocoJob, prototypes: Prototypes, models: Models) -> bool:
    """Whether scores are probabilities that were learnt."""
    matching = settings_for(models.preset.as_published, job.matching)
    return matching.calibrated and prototypes.surroundings is not None


def _taught(job: CocoJob, prototypes: Prototypes, seen: Seen, models: Models) -> Prototypes:
    """The prototypes with all that was learnt from images that are known."""
    prototypes = calibrated(prototypes, seen)
    matcher = _matcher(job, prototypes, models, job.min_score)
    return add_mined(prototypes, [mined.above(matcher.thresholds) for mined in seen.mined], matcher)


def _what(name: str) -> str:
    return name if name.startswith(NEGATIVE) else f"reference {name}"


def _load(job: CocoJob) -> Models:
    if job.device is not None:
        try:
            torch.zeros(1, device=torch.device(job.device))
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"The device {job.device!r} is not to be had: {str(error).splitlines()[0]}") from error
    return load_models(job.model, device=job.device, sam2_path=job.sam2_path, dinov2_path=job.dinov2_path)


def _scores(
    seen: CocoDataset, results: Sequence[dict[str, Any]], category_ids: Sequence[int]
) -> tuple[AveragePrecision | None, AveragePrecision | None]:
    counted = [annotation for annotation in seen.annotations if annotation["category_id"] in category_ids]
    if not counted:
        return None, None
    box = evaluate_results(seen, results, "bbox", categories=category_ids)
    return (evaluate_results(seen, results, "segm", categories=category_ids) if has_masks(counted) else None), box
