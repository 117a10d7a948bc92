"""`refseg coco`: from COCO references and a folder of images to COCO results, scored where ground truth exists. No FiftyOne."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .average_precision import AveragePrecision, evaluate_results, format_table, has_masks
from .building import build_prototypes
from .candidates import Candidates, PresenceGate, propose_from_pixels
from .coco import CocoDataset, CocoImage, ImageId, read_coco, read_references, size_mismatch, to_listing, to_results, write_json
from .errors import CocoError, ModelError
from .loading import IMAGES_A_BATCH, LoadedImage, load_batches, stack_pixels
from .match_settings import MatchSettings, settings_for
from .matcher import Matcher, default_thresholds, make_matcher
from .models import Models, load_models
from .packing import PackedCandidates
from .progress import Progress, Watcher, drain
from .prototypes import Prototypes
from .rle import annotation_rle
from .tiles import propose_tiles

IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class CocoJob:
    """What `refseg coco` is asked to do.

    Attributes:
        images: folder of the images of references and targets.
        references: COCO file with the objects to show.
        out: where the COCO results go.
        targets: COCO file of the images to segment; by default all under `images`.
        report: where the report goes as JSON.
        prototypes: where the prototypes go.
        model: the preset's name.
        device: see `refseg.load_models`.
        sam2_path: see `refseg.load_models`.
        dinov2_path: see `refseg.load_models`.
        min_score: lower scores are left out; by default the threshold calibrated for each class, or else the preset's.
        max_detections: the best so many of each image.
        num_workers: threads that decode images; 0 for none.
        tiles: look at each image larger than the segmenter's input in overlapping tiles too.
        presence_gate: spare the segmenter images, or tiles, in which no patch has this cosine with a prototype.
        matching: how candidates are compared with prototypes; by default as suits the preset.
    """

    images: Path
    references: Path
    out: Path
    targets: Path | None = None
    report: Path | None = None
    prototypes: Path | None = None
    model: str = "large"
    device: str | None = None
    sam2_path: Path | None = None
    dinov2_path: Path | None = None
    min_score: float | None = None
    max_detections: int = 100
    num_workers: int | None = None
    tiles: bool = False
    presence_gate: float | None = None
    matching: MatchSettings | None = None


@dataclass(frozen=True)
class CocoReport:
    """What was done.

    Attributes:
        out: the results file.
        model: the preset.
        shots: references of each class.
        num_images: images segmented.
        num_instances: entries of the results file.
        seconds: for segmenting, models loaded.
        skipped_images: path and reason of each image that could not be read.
        skipped_references: annotation id and reason of each reference that could not be used.
        mask: scores of masks; None without ground truth masks.
        box: scores of boxes; None without ground truth.
        num_gated: images that the presence gate kept from the segmenter, as a whole or in part.
    """

    out: str
    model: str
    shots: dict[str, int]
    num_images: int
    num_instances: int
    seconds: float
    skipped_images: tuple[tuple[str, str], ...]
    skipped_references: tuple[tuple[str, str], ...]
    mask: AveragePrecision | None = None
    box: AveragePrecision | None = None
    num_gated: int = 0

    def __str__(self) -> str:
        each = self.seconds / max(1, self.num_images)
        text = (
            f"{self.num_instances} instances in {self.num_images} images written to {self.out} "
            f"({self.seconds:.1f} s, {each:.2f} s an image)"
        )
        if self.num_gated:
            text += f"; {self.num_gated} of them were spared by the presence gate, as a whole or in part"
        return text if self.box is None else f"{text}\n\n{format_table(self.mask, self.box)}"


def run_coco(job: CocoJob, *, progress: bool | Watcher | None = None) -> CocoReport:
    """Do what `refseg coco` does: build prototypes, segment, write, evaluate.

    An image that cannot be read, or is not of the size its entry lists, is skipped and reported; it does not count in the
    scores.

    Args:
        job: files and settings.
        progress: see `refseg.progress.drain`.

    Raises:
        CocoError: a file is malformed, no image is to be had, or a class of the references is none of the targets.
        BadReferenceError: there are no references, or none of a class is usable.
        ModelError: the model is not to be had.
    """
    if not job.images.is_dir():
        raise CocoError(f"There is no folder of images at {job.images}.")
    references = read_references(job.references, job.images)
    targets = _scan(job.images) if job.targets is None else read_coco(job.targets)
    labels = sorted({reference.label for reference in references})
    if job.targets is None:
        targets = CocoDataset(targets.source, targets.images, dict(enumerate(labels, 1)), ())
    category_ids = _category_ids(labels, targets)
    _check_masks(targets)
    for path in (job.out, job.report, job.prototypes):
        _check_writable(path)
    models = _load(job)
    prototypes = build_prototypes(references, models, progress=progress)
    if job.prototypes is not None:
        prototypes.save(job.prototypes)
    started = time.monotonic()
    found = drain(
        _iter_segment(job, targets, prototypes, [category_ids[name] for name in prototypes.classes], models), progress
    )
    seconds = time.monotonic() - started
    write_json(job.out, found.results)
    seen = targets.restrict(found.sizes)
    if job.targets is None:
        write_json(job.out.with_suffix(".images.json"), to_listing(list(seen.images.values()), seen.categories))
    mask, box = _scores(seen, found.results, sorted(category_ids.values()))
    report = CocoReport(
        out=str(job.out),
        model=job.model,
        shots=prototypes.shots,
        num_images=len(found.sizes),
        num_instances=len(found.results),
        seconds=seconds,
        skipped_images=tuple(found.skipped),
        skipped_references=tuple((f"reference {name}", reason) for name, reason in prototypes.skipped),
        mask=mask,
        box=box,
        num_gated=found.num_gated,
    )
    if job.report is not None:
        write_json(job.report, asdict(report))
    return report


@dataclass
class _Found:
    """What segmenting has brought so far."""

    results: list[dict[str, Any]] = field(default_factory=list)
    sizes: dict[ImageId, tuple[int, int]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    num_gated: int = 0


def _iter_segment(
    job: CocoJob, targets: CocoDataset, prototypes: Prototypes, category_ids: Sequence[int], models: Models
) -> Generator[Progress, None, _Found]:
    images = list(targets.images.values())
    paths = [str(job.images / image.file_name) for image in images]
    found = _Found()
    matcher = _matcher(job, prototypes, models)
    yield Progress(0, len(images), "images")
    batch_size = IMAGES_A_BATCH[models.device.type]
    done = 0
    loading = load_batches(paths, models.segmenter_side, batch_size=batch_size, num_workers=job.num_workers, tiles=job.tiles)
    with closing(loading) as batches:
        for batch in batches:
            good = []
            for loaded in batch:
                reason = _unusable(loaded, images[loaded.index])
                if reason is None:
                    good.append(loaded)
                else:
                    found.skipped.append((paths[loaded.index], reason))
            _segment_batch(good, images, job, prototypes, matcher, category_ids, models, found)
            done += len(batch)
            yield Progress(done, len(images), "images")
    if not found.sizes:
        path, reason = found.skipped[0]
        raise CocoError(f"None of the {len(images)} images can be segmented; the first is {path}: {reason}.")
    return found


def _segment_batch(
    batch: Sequence[LoadedImage],
    images: Sequence[CocoImage],
    job: CocoJob,
    prototypes: Prototypes,
    matcher: Matcher,
    category_ids: Sequence[int],
    models: Models,
    found: _Found,
) -> None:
    if not batch:
        return
    gate = None if job.presence_gate is None else PresenceGate(prototypes.matrix, job.presence_gate)
    proposed = _propose(batch, job.tiles, gate, models)
    found.num_gated += sum(candidates.gated for candidates in proposed)
    for loaded, candidates in zip(batch, proposed, strict=True):
        instances = matcher.match(candidates)
        image_id = images[loaded.index].id
        found.sizes[image_id] = loaded.image_hw
        found.results += to_results(instances, category_ids, image_id, loaded.image_hw)


def _matcher(job: CocoJob, prototypes: Prototypes, models: Models) -> Matcher:
    matching = settings_for(models.preset.as_published, job.matching)
    thresholds = default_thresholds(prototypes, models.preset, matching)
    if job.min_score is not None:
        thresholds = dict.fromkeys(prototypes.classes, job.min_score)
    return make_matcher(prototypes, models.preset, matching, thresholds, job.max_detections)


def _propose(
    batch: Sequence[LoadedImage], tiles: bool, gate: PresenceGate | None, models: Models
) -> Sequence[Candidates | PackedCandidates]:
    if tiles:
        pictures = [loaded.image for loaded in batch if loaded.image is not None]
        return [propose_tiles(picture, models, gate=gate, fine=True) for picture in pictures]
    return propose_from_pixels(stack_pixels(batch), [loaded.image_hw for loaded in batch], models, gate=gate)


def _unusable(loaded: LoadedImage, image: CocoImage) -> str | None:
    """Why an image is skipped: results must fit the size that the targets' masks are made for."""
    if loaded.error is not None:
        return loaded.error
    if image.image_hw is not None and image.image_hw != loaded.image_hw:
        return size_mismatch(image, loaded.image_hw)
    return None


def _scan(folder: Path) -> CocoDataset:
    """Every image file under a folder, by path, with ids from 1."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        raise CocoError(f"There is no image under {folder}.")
    names = [path.relative_to(folder).as_posix() for path in files]
    return CocoDataset(str(folder), {row: CocoImage(row, name) for row, name in enumerate(names, 1)}, {}, ())


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


def _check_masks(targets: CocoDataset) -> None:
    """Find out before the work that ground truth cannot be used."""
    for annotation in targets.annotations:
        image_hw = targets.images[annotation["image_id"]].image_hw
        if image_hw is not None:
            annotation_rle(annotation, image_hw, targets.source)


def _check_writable(path: Path | None) -> None:
    """Find out before the work that a result cannot be written."""
    if path is None:
        return
    if path.is_dir():
        raise CocoError(f"{path} is a folder: name a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
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
