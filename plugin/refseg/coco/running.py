"""`refseg coco`: from COCO references and a folder of images to COCO results, scored where ground truth exists. No FiftyOne."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..calibration import add_mined, calibrated_thresholds, default_thresholds, num_mined
from ..candidates import Candidates, PackedCandidates, PresenceGate
from ..errors import CocoError, ImageError, ModelError
from ..images import find_pixels, pixel_settings, read_image_hw
from ..masks import summary_of
from ..matching import (
    NAMES_FILE,
    Matcher,
    holds_maps,
    is_map,
    make_matcher,
    map_paths,
    semantic_map,
    settings_for,
    write_map,
    write_names,
)
from ..models import Models, load_models
from ..outputs import check_outputs, draft_of, require_json, require_replaceable
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes, Reference, build_prototypes, image_key, require_own
from .average_precision import AveragePrecision, evaluate_results, has_masks
from .files import (
    CocoDataset,
    CocoImage,
    ImageId,
    crowds_in,
    group_by_image,
    marked_where_bare,
    read_coco,
    references_in,
    to_listing,
    to_results,
    with_file_sizes,
    write_json,
)
from .frame_hints import framed_image
from .frames import FramedImage, frame_hint
from .images import Proposer, check_scanned, scan
from .job import CocoJob, CocoReport
from .known import KnownImages, Seen, calibrated, find_empty, iter_look

logger = logging.getLogger(__name__)

__all__ = ["CocoJob", "CocoReport", "run_coco"]


def run_coco(job: CocoJob, *, progress: bool | Watcher | None = None) -> CocoReport:
    """Do what `refseg coco` does: build prototypes, learn from images that are known, segment, write, evaluate.

    Unless one least score is given, each class gets a threshold that suits what lies around its references. An image that
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
    if not job.images.is_dir():
        raise CocoError(f"There is no folder of images at {job.images}.")
    shown_file = _read_shown(job, job.references)
    references = references_in(shown_file, job.images)
    negative_file = None if job.negatives is None else _read_shown(job, job.negatives)
    negatives = [] if negative_file is None else _negatives_in(negative_file, job.images)
    targets = scan(job.images) if job.targets is None else _read_targets(job, job.targets)
    files = [shown_file] if negative_file is None else [shown_file, negative_file]
    labels = sorted({reference.label for reference in references})
    empty = () if job.empty is None else find_empty(job.empty, job.images, labels)
    if job.targets is None:
        targets = CocoDataset(targets.source, targets.images, dict(enumerate(labels, 1)), ())
    category_ids = _category_ids(labels, targets)
    targets = _without_some_masks(targets, set(category_ids.values()), strict=job.strict)
    shown_images = [*empty, *(item.image for item in (*references, *negatives))]
    outputs = _outputs_of(job)
    listed_images = (str(job.images / image.file_name) for image in targets.images.values())
    check_outputs(outputs | _outputs_of_maps(job), _inputs_of(job), (*listed_images, *shown_images))
    maps = _check_maps(job, targets, shown_images)
    pictures = dict.fromkeys(maps.values(), "--semantic") | {path: name for name, path in outputs.items()}
    check_scanned(pictures, _scanned_by(job))
    for path in outputs.values():
        _check_writable(path, are_prototypes=path == job.prototypes, is_list=path == job.out)
    paths = [*shown_images, *(str(job.images / image.file_name) for image in targets.images.values())]
    pixels = find_pixels(paths, pixel_settings(job.pixel_range, job.channels))
    models = _load(job)
    prototypes = build_prototypes(
        references,
        models,
        negatives=negatives,
        pixel_range=pixels.pixel_range,
        channels=pixels.channels,
        progress=progress,
    )
    started = time.monotonic()
    proposer = Proposer(models, job.images, job.tiles, job.num_workers, pixels)
    shown, blank, refused = _known(job, references, crowds_in(shown_file, job.images), empty, prototypes, models)
    known = KnownImages(shown, blank, {proposer.path_of(image) for image in targets.images.values()})
    look = iter_look(known, prototypes, lambda taught: _matcher(job, taught, models, 0.0), proposer)
    seen = drain(look, progress) if known.paths else Seen()
    prototypes = _taught(job, prototypes, seen, models)
    if job.prototypes is not None:
        prototypes.save(job.prototypes)
    matcher = _matcher(job, prototypes, models, job.min_score)
    if job.semantic is not None:
        # Before the first map: the names tell the next run whose maps these are.
        write_names(job.semantic, prototypes.classes)
    work = _Work(
        job,
        targets,
        prototypes,
        matcher,
        [category_ids[name] for name in prototypes.classes],
        maps,
        group_by_image(targets.annotations),
    )
    found = drain(_iter_segment(work, proposer, seen.candidates), progress)
    seconds = time.monotonic() - started
    write_json(job.out, found.results)
    unlisted = {name: hw for name, hw in found.sizes.items() if targets.images[name].image_hw is None}
    listed = targets.with_sizes(unlisted).restrict(found.sizes)
    if job.targets is None:
        write_json(job.out.with_suffix(".images.json"), to_listing(list(listed.images.values()), listed.categories))
    mask, box = _scores(listed, found.results, sorted(category_ids.values()))
    hint = frame_hint(found.framed)
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
        thresholds=dict(matcher.thresholds),
        calibrated=_is_calibrated(job, prototypes, models),
        num_empty=seen.num_empty,
        num_mined=num_mined(prototypes.negatives),
        # One file may be named twice.
        left_out=tuple(dict.fromkeys(one for file in (*files, listed) for one in file.left_out)),
        notes=tuple(dict.fromkeys([*(note for file in (*files, listed) for note in file.notes), *([hint] if hint else [])])),
        pixel_range=pixels.pixel_range,
    )
    if job.report is not None:
        write_json(job.report, asdict(report))
    return report


NEGATIVE = "negative "
"""With which the ids of negatives begin here: they come from a file that may use the ids of the references' file."""


@dataclass(frozen=True, eq=False)
class _Work:
    """What there is to segment, and with what."""

    job: CocoJob
    targets: CocoDataset
    prototypes: Prototypes
    matcher: Matcher
    category_ids: Sequence[int]
    maps: Mapping[ImageId, Path]
    truth: Mapping[ImageId, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


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
        instances = work.matcher.match(candidates)
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


def _iter_segment(
    work: _Work, proposer: Proposer, proposed: Mapping[str, PackedCandidates]
) -> Generator[Progress, None, _Found]:
    """Segment all targets; of some the candidates are known by the path of their image."""
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
        raise CocoError(f"None of the {len(images)} images can be segmented; the first is {path}: {reason}.")
    order = {image.id: row for row, image in enumerate(images)}
    found.results.sort(key=lambda result: order[result["image_id"]])
    found.sizes = dict(sorted(found.sizes.items(), key=lambda item: order[item[0]]))
    return found


def _matcher(job: CocoJob, prototypes: Prototypes, models: Models, min_score: float | None) -> Matcher:
    """Prototypes made ready, with one least score for all classes or with that of each."""
    matching = settings_for(models.preset.as_published, job.matching)
    if min_score is None:
        thresholds = default_thresholds(prototypes, models.preset, matching)
    else:
        thresholds = dict.fromkeys(prototypes.classes, min_score)
    is_chosen = min_score is not None
    return make_matcher(prototypes, models.preset, matching, thresholds, job.max_detections, is_chosen=is_chosen)


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
    if job.min_score is not None or not settings_for(models.preset.as_published, job.matching).calibrated:
        return {}, blank, refused
    used = {path: items for path, items in shown.items() if any(item.id in prototypes.reference_ids for item in items)}
    for crowd in crowds:
        if crowd.image in used:
            used[crowd.image].append(crowd)
    return used, blank, refused


def _is_calibrated(job: CocoJob, prototypes: Prototypes, models: Models) -> bool:
    """Whether classes have thresholds of their own: this needs references of a class in two images."""
    matching = settings_for(models.preset.as_published, job.matching)
    default = models.preset.typical_threshold
    return job.min_score is None and bool(calibrated_thresholds(prototypes, matching, default=default))


def _taught(job: CocoJob, prototypes: Prototypes, seen: Seen, models: Models) -> Prototypes:
    """The prototypes with all that was learnt from images that are known."""
    prototypes = calibrated(prototypes, seen)
    matcher = _matcher(job, prototypes, models, job.min_score)
    return add_mined(prototypes, [mined.above(matcher.thresholds) for mined in seen.mined], matcher.gallery)


def _read_shown(job: CocoJob, path: Path) -> CocoDataset:
    """A file of objects to be shown."""
    return with_file_sizes(read_coco(path, strict=job.strict), job.images, strict=job.strict)


def _read_targets(job: CocoJob, path: Path) -> CocoDataset:
    """A file of targets; all that may be wrong with its ground truth is found here, before the work."""
    targets = read_coco(path, bad_masks="box", strict=job.strict)
    sizes = {}
    for image_id in dict.fromkeys(entry["image_id"] for entry in targets.annotations):
        image = targets.images[image_id]
        if image.image_hw is None:
            with suppress(ImageError):  # it is skipped when its turn comes, and said
                sizes[image_id] = read_image_hw(job.images / image.file_name)
    return targets.with_sizes(sizes, strict=job.strict)


def _without_some_masks(targets: CocoDataset, category_ids: Collection[int], *, strict: bool) -> CocoDataset:
    """Where some objects of these classes have a mask, those that have none are named, and count by their boxes alone."""
    marked, named = marked_where_bare(targets, category_ids)
    if named and strict:
        raise CocoError(summary_of(named))
    if named:
        logger.warning("%s", summary_of(named))
    return marked


def _negatives_in(negatives: CocoDataset, images: Path) -> list[Reference]:
    return [replace(reference, id=NEGATIVE + reference.id) for reference in references_in(negatives, images)]


def _outputs_of(job: CocoJob) -> dict[str, Path]:
    """Files that are written, apart from maps, by what they are called."""
    listing = None if job.targets is not None else job.out.with_suffix(".images.json")
    named = {
        "--out": job.out,
        "the list of images beside --out": listing,
        "--report": job.report,
        "--prototypes": job.prototypes,
    }
    return {name: path for name, path in named.items() if path is not None}


def _outputs_of_maps(job: CocoJob) -> dict[str, Path]:
    return {} if job.semantic is None else {f"{NAMES_FILE} of --semantic": job.semantic / NAMES_FILE}


def _inputs_of(job: CocoJob) -> dict[str, Path]:
    """Files that are read, apart from images, by what they are called."""
    named = {
        "--references": job.references,
        "--targets": job.targets,
        "--negatives": job.negatives,
        "--empty": job.empty,
        "--sam2-path": job.sam2_path,
        "--dinov2-path": job.dinov2_path,
    }
    # Of a folder of empty images these are what is read, not, for example, an earlier report.
    folder = job.empty is not None and job.empty.is_dir()
    return {name: path for name, path in named.items() if path is not None and not (folder and name == "--empty")}


def _scanned_by(job: CocoJob) -> dict[str, Path]:
    """Folders of which every image is read, by what they are called."""
    named = {"--images": None if job.targets is not None else job.images, "--empty": job.empty}
    return {name: path for name, path in named.items() if path is not None and path.is_dir()}


def _what(name: str) -> str:
    return name if name.startswith(NEGATIVE) else f"reference {name}"


def _check_maps(job: CocoJob, targets: CocoDataset, others: Sequence[str]) -> dict[ImageId, Path]:
    """Where the map of each target goes; none is to take the place of an image."""
    if job.semantic is None:
        return {}
    if job.semantic.exists() and not job.semantic.is_dir():
        raise CocoError(f"{job.semantic} is a file: name a folder for the maps.")
    images = list(targets.images.values())
    paths = map_paths(job.semantic, [image.file_name for image in images])
    taken = {os.path.realpath(path) for path in (*(str(job.images / image.file_name) for image in images), *others)}
    files = set(map(os.path.realpath, [*_inputs_of(job).values(), *_outputs_of(job).values()]))
    for path in paths:
        if os.path.realpath(path) in taken:
            raise CocoError(f"The map {path} would take the place of an image: choose another folder than that of the images.")
        if os.path.realpath(path) in files:
            raise CocoError(f"The map {path} would take the place of another file that is named: choose another folder.")
        require_replaceable(path, "a map of classes", is_map)
    if not holds_maps(job.semantic):
        held = next((path for path in (job.semantic / NAMES_FILE, *paths) if path.exists()), None)
        if held is not None:
            raise CocoError(f"{held} would be replaced, and is not from an earlier run: choose another folder for the maps.")
    if len({str(path).lower() for path in paths}) < len(paths):
        raise CocoError(
            f"Two images of {targets.source} would have one map in {job.semantic}, because their names differ in '..' alone: "
            "put them into one folder."
        )
    _check_writable(job.semantic / NAMES_FILE)
    return {image.id: path for image, path in zip(images, paths, strict=True)}


def _category_ids(labels: Sequence[str], targets: CocoDataset) -> dict[str, int]:
    by_name = {name: category_id for category_id, name in targets.categories.items()}
    for label in labels:
        if label not in by_name:
            raise CocoError(
                f"The references show the class {label!r}, which is not in the categories of {targets.source} "
                f"({', '.join(by_name)}): add it there, or leave its references out."
            )
    if not targets.images:
        raise CocoError(f"{targets.source} lists no image to segment.")
    return {label: by_name[label] for label in labels}


def _check_writable(path: Path, *, are_prototypes: bool = False, is_list: bool = False) -> None:
    """Find out before the work that a result cannot be written."""
    if path.is_dir():
        raise CocoError(f"{path} is a folder: name a file to write.")
    if are_prototypes:
        require_own(path)
    else:
        require_json(path, is_list=is_list)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    draft.touch()
    draft.unlink()


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
