"""Segment a FiftyOne view with prototypes: predictions in bulk, bad images recorded, provenance as a FiftyOne run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..calibration import default_thresholds, labelled_ids, num_mined
from ..candidates import Candidates, PackedCandidates, PresenceGate
from ..checks import names_or_none, require_flags, require_names, require_whole
from ..dataset import (
    Builder,
    DatasetIndex,
    SkippedImage,
    Source,
    ViewImages,
    find_source,
    image_view,
    load_missing,
    name_of,
    named_prototypes,
    newest_run,
    require_samples,
    whole_of,
    write_prototypes,
)
from ..dataset import models_for as models_for
from ..errors import DatasetError
from ..images import PLAIN, PixelSettings, pixel_settings
from ..matching import Instances, Matcher, MatchSettings, Ranking, make_matcher, settings_for
from ..models import Models, Preset
from ..names import free_run_key, run_key_from
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes
from .writing import Changes, SegmentSettings, Writer, check_fields, check_mask_folder, create_fields

logger = logging.getLogger(__name__)

SEGMENT_METHOD = "refseg/segment"
PREVIEWED = 100
"""Images that a preview writes."""
IMAGES_A_LOOK = 64
"""Images that a preview looks at before it asks again whether better ones can follow."""
CHANGES_RECORDED = 10_000
"""Ids of changed samples that the run keeps: a document of MongoDB ends at 16 MB."""


@dataclass(frozen=True)
class SegmentReport:
    """What a run of segment did.

    Attributes:
        run_key: of the FiftyOne run that holds its settings.
        label_field: where the predictions are.
        num_images: images segmented; of a preview, images ranked.
        num_instances: instances found in them; of a preview, instances written.
        num_written: images whose predictions were written; those of all others were the same already.
        num_from_index: images whose candidates came from the index.
        num_left_out: images that a preview left out because they are not indexed.
        skipped: images that could not be read; their earlier predictions stay as they are.
        seconds: wall-clock time, writing included.
        best: of a preview, sample id and best score of each image written, best first.
        index_trouble: why candidates could not be kept in the index, or None.
        changes: what differs from earlier predictions in the same field.
        num_gated: images that the presence gate kept from the segmenter, as a whole or in part; the index does not keep them.
        protected: ids of samples that stay as they are: somebody has labelled objects in the field that no run wrote.
    """

    run_key: str
    label_field: str
    num_images: int
    num_instances: int
    num_written: int
    num_from_index: int
    num_left_out: int
    skipped: tuple[SkippedImage, ...]
    seconds: float
    best: tuple[tuple[str, float], ...] = ()
    index_trouble: str | None = None
    changes: Changes = field(default_factory=Changes)
    num_gated: int = 0
    protected: tuple[str, ...] = ()

    def __str__(self) -> str:
        rate = 1000 * self.seconds / max(1, self.num_images)
        lines = [
            f"{self.num_instances} instances in {self.num_images} images in the field {self.label_field!r} "
            f"({self.seconds:.1f} s, {rate:.1f} ms an image; run {self.run_key!r})",
            f"{self.num_from_index} images came from the index; predictions of {self.num_written} images were written, "
            "all others are as they were",
        ]
        if self.changes.num_samples:
            lines.append(f"Since the last run: {self.changes}, in {self.changes.num_samples} images")
        if self.protected:
            lines.append(
                f"{len(self.protected)} images stay as they are, such as that of the sample {self.protected[0]}: no run wrote "
                "some of their labels in this field; move those to another field, or pass overwrite=True to lose them"
            )
        if self.num_left_out:
            lines.append(f"{self.num_left_out} images are not indexed and were left out: build the index to see them too")
        if self.num_gated:
            lines.append(f"{self.num_gated} images were spared by the presence gate, as a whole or in part, and are not kept")
        if self.index_trouble:
            lines.append(f"Candidates were not kept: {self.index_trouble}")
        lines += [f"skipped {image.filepath}: {image.reason}" for image in self.skipped]
        return "\n".join(lines)


def match_image(
    candidates: Candidates | PackedCandidates, prototypes: Prototypes, models: Models, settings: SegmentSettings
) -> Instances:
    """Instances of one image under the preset's profile."""
    return matcher_for(prototypes, models.preset, settings).match(candidates)


def gate_of(prototypes: Prototypes, settings: SegmentSettings) -> PresenceGate | None:
    """The presence gate that settings ask for, of the classes that they write."""
    if settings.presence_gate is None:
        return None
    rows = [row for row, name in enumerate(prototypes.classes) if settings.classes is None or name in settings.classes]
    return PresenceGate(prototypes.matrix[rows], settings.presence_gate)


def iter_segment(
    view: Any,
    prototypes: Prototypes | str,
    label_field: str = "predictions",
    *,
    model: str | Models | None = None,
    settings: SegmentSettings | None = None,
    index: bool | DatasetIndex = True,
    run_key: str | None = None,
    num_workers: int | None = None,
    pixels: PixelSettings = PLAIN,
    overwrite: bool = False,
) -> Generator[Progress, None, SegmentReport]:
    """The generator behind segment: yields after each batch; closing it writes what is done and marks the run cancelled."""
    started = time.monotonic()
    settings = settings or SegmentSettings()
    require_names(label_field=label_field)
    require_names(or_none=True, run_key=run_key)
    require_flags(overwrite=overwrite)
    require_whole(0, or_none=True, num_workers=num_workers)
    view = image_view(view)
    require_samples(view)
    dataset = whole_of(view)
    name, prototypes = named_prototypes(dataset, prototypes)
    settings.require_classes(prototypes.classes)
    fields = check_fields(dataset, label_field, settings, overwrite=overwrite)
    check_mask_folder(settings)
    key = run_key or free_run_key(dataset, f"{label_field}_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}")
    _check_key(dataset, key)
    source = find_source(dataset, prototypes, model, index, tiles=settings.tiles, creates=not settings.preview, pixels=pixels)
    images = source.images(view)
    if settings.preview and not images.held:
        raise DatasetError("A preview looks at indexed images alone, and none of these is indexed: build the index first.")
    if not settings.preview and images.missing:
        images = load_missing(source, images, view, prototypes)
    matcher = matcher_for(prototypes, source.preset, settings)
    # What others wrote is no earlier answer, from which objects could be lost.
    compares = newest_run(dataset, label_field) is not None and dataset.has_field(label_field)
    config = _configure(view, prototypes, source, label_field, settings, matcher.thresholds)
    config.prototypes_name, config.index = name, index is not False
    writer = Writer(view, label_field, key, prototypes.classes, settings, compares, matcher.map_threshold, overwrite)
    builder = None
    best: list[tuple[str, float]] = []
    num_held = 0
    # Before work starts, so that even a killed run can be traced.
    view.register_run(key, config)
    config.state = "failed"
    try:
        with _noting_errors(config):
            create_fields(dataset, fields, prototypes.classes)
            if settings.preview:
                best = yield from _preview(source, images.held, matcher, writer)
                num_held = len(images.held)
            else:
                if source.models is not None:
                    gate = gate_of(prototypes, settings)
                    builder = Builder(
                        source.index,
                        source.models,
                        num_workers,
                        goes_on=True,
                        tiles=source.tiles,
                        gate=gate,
                        pixels=source.pixels,
                    )
                num_held = yield from _segment_images(source, images, builder, matcher, writer)
            writer.flush()
        config.state = "completed"
    except GeneratorExit:
        config.state = "cancelled"
        raise
    finally:
        skipped = [*images.gone, *([] if builder is None else builder.skipped)]
        # What fails while things are put away must not leave the run as if it were at work, or had gone well.
        try:
            with _noting_errors(config), ExitStack() as ending:
                if builder is not None:
                    ending.callback(builder.close)
                writer.flush()
        finally:
            _record_end(dataset, key, config, writer, builder, skipped, num_held, started)
    for image in skipped:
        logger.warning("Skipped %s: %s", image.filepath, image.reason)
    return SegmentReport(
        run_key=key,
        label_field=label_field,
        num_images=num_held if settings.preview else writer.num_images,
        num_instances=writer.num_instances,
        num_written=writer.num_written,
        num_from_index=num_held,
        num_left_out=len(images.missing) if settings.preview else 0,
        skipped=tuple(skipped),
        seconds=time.monotonic() - started,
        best=tuple(best),
        index_trouble=None if builder is None else builder.trouble,
        changes=writer.changes,
        num_gated=0 if builder is None else builder.num_gated,
        protected=tuple(writer.protected),
    )


def segment(
    view: Any,
    prototypes: Prototypes | str,
    label_field: str = "predictions",
    *,
    model: str | Models | None = None,
    min_confidence: float | Mapping[str, float] | None = None,
    max_detections: int = 100,
    mask_dir: str | os.PathLike[str] | None = None,
    semantic_field: str | None = None,
    preview: bool = False,
    classes: Sequence[str] | None = None,
    index: bool | DatasetIndex = True,
    tiles: bool | None = None,
    presence_gate: float | None = None,
    run_key: str | None = None,
    matching: MatchSettings | None = None,
    num_workers: int | None = None,
    pixel_range: tuple[float, float] | None = None,
    channels: Sequence[int] | None = None,
    overwrite: bool = False,
    progress: bool | Watcher | None = None,
) -> SegmentReport:
    """Find and segment the prototypes' classes in every image of a view.

    Candidates of images that the dataset's index holds come from there; those of all others are computed and added to it.
    Predictions are `Detections` with tight boolean masks, label, confidence, boxes on whole pixels, and the attributes
    `predicted_iou`, `margin` (by how much the class beat the second-best one), `runner_up` (that one) and `run`; those of an
    earlier run on the same image and field are replaced, unless they are the same: then nothing is written, and `run` names the
    run that wrote them. The report says which objects were gained, lost or relabelled. An image that cannot be read is skipped,
    recorded on the run, and reported; one in which somebody has added labels to the field stays as it is, and is reported.

    Args:
        view: a dataset or view of images.
        prototypes: or the name under which the dataset keeps them.
        label_field: where to write; a new field, or one of Detections that an earlier run wrote.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        min_confidence: lower scores are not written; by default the threshold calibrated for each class, or else the preset's.
            A mapping gives the classes that it names their own.
        max_detections: the best so many of each image.
        mask_dir: write masks to PNG files under this folder (`mask_path`) instead of into the database.
        semantic_field: also write a `Segmentation` map here; 0 is background, class k of the prototypes is k + 1.
        preview: rank the indexed images by their best score and write the best hundred alone; nothing is computed.
        classes: write only these, or this one; all others still compete for candidates. By default every class.
        index: False neither reads nor fills an index, and keeps near-duplicate candidates; or an index opened by open_index.
        tiles: look at each image larger than the segmenter's input in overlapping tiles too, for small objects; they have an
            index of their own. False never does; by default the index used last decides, and without an index there are none.
        presence_gate: spare the segmenter images, or tiles, in which no patch has this cosine, 0 to 1, with the prototype of a
            class that is written: for rare classes. It counts for images that are not indexed, and those with anything spared
            are not added to the index.
        run_key: of the FiftyOne run; by default made from the field's name.
        matching: how candidates are compared with prototypes; by default as suits the preset.
        num_workers: threads that decode images; 0 for none.
        pixel_range: see `refseg.build_index`; by default that of the prototypes, or of the index.
        channels: see `refseg.build_index`; by default those of the prototypes, or of the index.
        overwrite: write to label_field and semantic_field even if they hold labels that no run of RefSeg wrote; those of the
            images are lost.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, a field of another type or with labels of others, a limit out of range, unknown
            prototypes or classes, or a preview of images none of which is indexed.
        PrototypeMismatchError: the model or the index is of another encoder than the one that built the prototypes, or reads
            pixels of more than 8 bits otherwise.
        IndexMismatchError: the index given is of another dataset or model, or its tiles are not those asked for.
        IndexNotFoundError: the index given was deleted.
        IndexDamagedError: the dataset's index cannot be read.
    """
    chosen = names_or_none("classes", classes)
    settings = SegmentSettings(
        min_confidence, max_detections, mask_dir, semantic_field, preview, chosen, presence_gate, tiles, matching
    )
    work = iter_segment(
        view,
        prototypes,
        label_field,
        model=model,
        settings=settings,
        index=index,
        run_key=run_key,
        num_workers=num_workers,
        pixels=pixel_settings(pixel_range, channels),
        overwrite=overwrite,
    )
    return drain(work, progress)


def matcher_for(prototypes: Prototypes, preset: Preset, settings: SegmentSettings) -> Matcher:
    """Prototypes made ready as these settings say.

    Raises:
        DatasetError: the settings name a class that the prototypes do not know.
    """
    matching = settings_for(preset.as_published, settings.matching)
    thresholds = settings.thresholds(prototypes.classes, default_thresholds(prototypes, preset, matching))
    is_chosen = settings.min_confidence is not None
    return make_matcher(prototypes, preset, matching, thresholds, settings.max_detections, is_chosen=is_chosen)


def _segment_images(
    source: Source, images: ViewImages, builder: Builder | None, matcher: Matcher, writer: Writer
) -> Generator[Progress, None, int]:
    """Returns how many images came from the index."""
    total, done = len(images.held) + len(images.missing), 0
    yield Progress(0, total, "images")
    for sample_id, candidates, ranking in _ranked(source, images.held, matcher):
        writer.add(sample_id, candidates, ranking)
        done += 1
        if done % IMAGES_A_LOOK == 0:
            writer.flush_if_due()
            yield Progress(done, total, "images")
    writer.flush()
    if done and done % IMAGES_A_LOOK:
        yield Progress(done, total, "images")
    if builder is not None:
        with closing(builder.compute(images.missing)) as batches:
            for batch in batches:
                for computed in batch:
                    if computed.candidates is not None:
                        ranking = matcher.rank(computed.candidates)
                        writer.add(computed.image.sample_id, computed.candidates, ranking)
                writer.flush_if_due()
                done += len(batch)
                yield Progress(done, total, "images")
        for sample_id, candidates, ranking in _ranked(source, builder.done_elsewhere, matcher):
            writer.add(sample_id, candidates, ranking)
    return len(images.held) + (0 if builder is None else len(builder.done_elsewhere))


def _ranked(source: Source, sample_ids: Sequence[str], matcher: Matcher) -> Iterator[tuple[str, PackedCandidates, Ranking]]:
    """The indexed images among these, ranked."""
    if source.index is None:
        return
    for chunk in source.index.index.scan(sample_ids):
        classified = matcher.classify(chunk.features.float())
        for number, image in enumerate(chunk.images):
            rows = slice(int(chunk.starts[number]), int(chunk.starts[number + 1]))
            candidates = chunk.candidates(number)
            yield image.sample_id, candidates, matcher.rank(candidates, classified.take(rows))


def _preview(
    source: Source, sample_ids: Sequence[str], matcher: Matcher, writer: Writer
) -> Generator[Progress, None, list[tuple[str, float]]]:
    """Write the images with the best scores, and return them, best first.

    The best similarity in an image bounds its best score: images are looked at in the order of this bound, until no bound is
    above the worst score that would be written.
    """
    assert source.index is not None
    bounds: dict[str, float] = {}
    yield Progress(0, len(sample_ids), "images")
    for chunk in source.index.index.scan(sample_ids, features_only=True):
        scores = matcher.bounds(matcher.classify(chunk.features.float()))
        for number, image in enumerate(chunk.images):
            own = scores[int(chunk.starts[number]) : int(chunk.starts[number + 1])]
            bounds[image.sample_id] = float(own.max()) if len(own) else 0.0
        yield Progress(len(bounds), len(sample_ids), "images")
    order = sorted(bounds, key=lambda name: -bounds[name])
    found: list[tuple[float, str, PackedCandidates, Ranking]] = []
    for start in range(0, len(order), IMAGES_A_LOOK):
        look = order[start : start + IMAGES_A_LOOK]
        if not bounds[look[0]] or (len(found) == PREVIEWED and bounds[look[0]] <= found[-1][0]):
            break
        for sample_id, candidates, ranking in _ranked(source, look, matcher):
            if len(ranking):
                found.append((float(ranking.scores[0]), sample_id, candidates, ranking))
        found = sorted(found, key=lambda item: -item[0])[:PREVIEWED]
        yield Progress(min(start + IMAGES_A_LOOK, len(order)), len(order), "best images")
    for _, sample_id, candidates, ranking in found:
        writer.add(sample_id, candidates, ranking)
    writer.flush()
    return [(sample_id, score) for score, sample_id, _, _ in found]


def _check_key(dataset: Any, key: str) -> None:
    if not key.isidentifier():
        raise DatasetError(f"{key!r} cannot name a run: use letters, digits and underscores, such as {run_key_from(key)!r}.")
    if dataset.has_run(key):
        raise DatasetError(f"The dataset {name_of(dataset)!r} has a run named {key!r} already: choose another run key.")


@contextmanager
def _noting_errors(config: Any) -> Iterator[None]:
    """Note on a run's config what fails inside."""
    try:
        yield
    except Exception as error:
        config.state, config.error = "failed", f"{type(error).__name__}: {error}"
        raise


def _record_end(
    dataset: Any,
    key: str,
    config: Any,
    writer: Writer,
    builder: Builder | None,
    skipped: Sequence[SkippedImage],
    num_held: int,
    started: float,
) -> None:
    """Write down how a run ended and what it did."""
    config.num_images, config.num_instances = writer.num_images, writer.num_instances
    config.num_written, config.num_from_index = writer.num_written, num_held
    config.num_protected = len(writer.protected)
    _record_changes(config, writer.changes)
    config.num_skipped, config.num_gated = len(skipped), 0 if builder is None else builder.num_gated
    config.skipped = [[image.sample_id, image.filepath, image.reason] for image in skipped[:CHANGES_RECORDED]]
    config.seconds = round(time.monotonic() - started, 3)
    dataset.update_run_config(key, config)


def _record_changes(config: Any, changes: Changes) -> None:
    """Classes in lists: MongoDB takes no class name as a key. Ids in one text: FiftyOne walks lists when runs are listed."""
    config.changes = changes.as_lists()
    config.changed_ids = " ".join(changes.sample_ids[:CHANGES_RECORDED])


def _configure(
    view: Any,
    prototypes: Prototypes,
    source: Source,
    label_field: str,
    settings: SegmentSettings,
    thresholds: Mapping[str, float],
) -> Any:
    """What the run says of itself."""
    dataset = whole_of(view)
    stored = write_prototypes(dataset, prototypes)
    default, chosen = source.preset.min_confidence, settings.min_confidence
    matching = settings_for(source.preset.as_published, settings.matching)
    tables = None if source.index is None else source.index.index
    return dataset.init_run(
        method=SEGMENT_METHOD,
        state="running",
        label_field=label_field,
        classes=list(prototypes.classes),
        prototypes_path=stored.path,
        prototypes_sha256=stored.sha256,
        reference_ids=list(prototypes.reference_ids),
        negative_ids=list(labelled_ids(prototypes.negatives)),
        num_mined=num_mined(prototypes.negatives),
        model=source.preset.name,
        revisions=source.revisions,
        dtype=None if source.models is None else str(source.models.dtype),
        index_uri=None if tables is None else tables.uri,
        exact=tables is None or tables.settings.exact,
        tiles=source.tiles,
        pixels=source.pixels.as_lists(),
        presence_gate=settings.presence_gate,
        preview=settings.preview,
        min_confidence=default if chosen is None else None if isinstance(chosen, Mapping) else chosen,
        min_confidences=[list(pair) for pair in thresholds.items()],
        own_confidences=[list(pair) for pair in settings.own_confidences(prototypes.classes).items()],
        calibrated=matching.calibrated and prototypes.surroundings is not None,
        matching=matching.as_dict(),
        max_detections=settings.max_detections,
        mask_dir=settings.mask_dir,
        semantic_field=settings.semantic_field,
        started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
