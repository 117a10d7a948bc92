"""Segment a FiftyOne view with prototypes: predictions in bulk, bad images recorded, provenance as a FiftyOne run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from ..calibration import calibrator_for, default_thresholds
from ..candidates import PresenceGate
from ..checks import names_or_none, require_flags, require_names
from ..dataset import (
    Builder,
    DatasetIndex,
    Source,
    SourceSettings,
    ViewImages,
    find_source,
    image_view,
    load_missing,
    named_prototypes,
    newest_run,
    require_samples,
    whole_of,
)
from ..errors import DatasetError
from ..images import pixel_settings
from ..index import SkippedImage
from ..matching import Matcher, MatchSettings, make_matcher, settings_for
from ..models import PRESETS, Models, Preset
from ..progress import Progress, Report, Watcher, drain, told_otherwise
from ..prototypes import Prototypes
from .changed_objects import renew_changes
from .looking import Looker
from .ranked import preview_images, segment_images
from .records import CHANGES_RECORDED, changes_as_config, check_key, configure, recorded, require_probabilities
from .segment_report import SegmentReport
from .settings import SegmentSettings, check_mask_folder
from .writing import Writer, check_fields, create_fields

logger = logging.getLogger(__name__)


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
    settings: SegmentSettings | None = None,
    sources: SourceSettings | None = None,
    run_key: str | None = None,
    overwrite: bool = False,
    prototypes_name: str | None = None,
) -> Generator[Progress, None, SegmentReport]:
    """The generator behind segment: yields after each batch; closing it writes what is done and marks the run cancelled.

    Prototypes that are given themselves may have been kept under a `prototypes_name`, which the run's record then tells.
    """
    started = time.monotonic()
    settings, sources = settings or SegmentSettings(), sources or SourceSettings()
    require_names(label_field=label_field)
    require_names(or_none=True, run_key=run_key)
    require_flags(overwrite=overwrite)
    view = image_view(view)
    require_samples(view)
    dataset = whole_of(view)
    name, prototypes = named_prototypes(dataset, prototypes)
    settings.require_classes(prototypes.classes)
    fields = check_fields(dataset, label_field, settings, overwrite=overwrite)
    check_mask_folder(settings)
    check_key(dataset, run_key)
    require_probabilities(settings, PRESETS.get(sources.preset_for(prototypes.model)), prototypes)
    source = find_source(dataset, prototypes, sources, creates=not settings.preview)
    # Again, because an index that was given may be of another preset.
    require_probabilities(settings, source.preset, prototypes)
    images = _images_for(source, view, prototypes, settings)
    matcher = matcher_for(prototypes, source.preset, settings)
    config = configure(view, prototypes, source, label_field, settings, matcher.thresholds)
    config.prototypes_name, config.index = name or prototypes_name, sources.index is not False
    # What others wrote is no earlier answer, from which objects could be lost.
    compares = newest_run(dataset, label_field) is not None and dataset.has_field(label_field)
    with recorded(view, run_key, config) as record:
        writer = Writer(view, label_field, record.key, prototypes.classes, settings, compares, matcher.map_threshold, overwrite)
        work = _Work(source, images, matcher, writer, started, Looker(source, prototypes))
        record.outcome = work.outcome
        with closing(work):
            create_fields(dataset, fields, prototypes.classes)
            yield from record.followed(work.run(_builder_for(source, prototypes, settings)))
    return work.report()


def _images_for(source: Source, view: Any, prototypes: Prototypes, settings: SegmentSettings) -> ViewImages:
    """The images of a view, by whether they are indexed; models are loaded where some are to be computed."""
    images = source.images(view)
    if settings.preview and not images.held:
        raise DatasetError("A preview looks at indexed images alone, and none of these is indexed: build the index first.")
    return load_missing(source, images, view, prototypes) if images.missing and not settings.preview else images


def _builder_for(source: Source, prototypes: Prototypes, settings: SegmentSettings) -> Builder | None:
    """What computes the images that are not indexed; None where nothing is to be computed."""
    if settings.preview or source.models is None:
        return None
    return source.builder(gate_of(prototypes, settings))


@dataclass
class _Work:
    """Finding, matching and writing, and what came of it.

    Attributes:
        source: of candidates.
        images: to be segmented.
        matcher: of the prototypes.
        writer: of predictions.
        started: when the run began, by time.monotonic.
        looker: looks again at candidates.
        builder: of images that are not indexed; None where there is none to compute.
        best: of a preview, sample id and best score of each image written.
        num_held: images that came from the index.
    """

    source: Source
    images: ViewImages
    matcher: Matcher
    writer: Writer
    started: float
    looker: Looker
    builder: Builder | None = None
    best: Sequence[tuple[str, float]] = ()
    num_held: int = 0

    def run(self, builder: Builder | None) -> Generator[Progress, None, None]:
        """Yields after each batch; all is written when it ends."""
        self.builder = builder
        if self.writer.settings.preview:
            self.best = yield from self._told(
                preview_images(self.source, self.images.held, self.matcher, self.writer, self.looker)
            )
            self.num_held = len(self.images.held)
        else:
            about = self.source, self.images, builder, self.matcher, self.writer, self.looker
            self.num_held = yield from self._told(segment_images(*about))
        self.writer.flush()

    def _told(self, work: Generator[Progress, None, Report]) -> Generator[Progress, None, Report]:
        """The same work, which tells how many objects are written."""
        return told_otherwise(work, lambda step: replace(step, found=self.writer.num_instances))

    def close(self) -> None:
        """Write what is done, also after an error."""
        try:
            self.writer.flush()
            self.writer.settle()
            renew_changes(whole_of(self.writer.view), self.writer.label_field, self.writer.run_key, self.writer.changes.objects)
        finally:
            if self.builder is not None:
                self.builder.close()
            self.looker.write()

    @property
    def skipped(self) -> tuple[SkippedImage, ...]:
        """Images that could not be read."""
        return (*self.images.gone, *(() if self.builder is None else self.builder.skipped))

    def outcome(self) -> dict[str, Any]:
        """What the run did, for its record."""
        skipped = self.skipped[:CHANGES_RECORDED]
        return {
            "num_images": self.writer.num_images,
            "num_instances": self.writer.num_instances,
            "num_written": len(self.writer.written),
            "num_from_index": self.num_held,
            "num_protected": len(self.writer.protected),
            **changes_as_config(self.writer.changes),
            "num_skipped": len(self.skipped),
            "num_gated": 0 if self.builder is None else self.builder.num_gated,
            "num_looked": self.looker.num_looked,
            "skipped": [[image.sample_id, image.filepath, image.reason] for image in skipped],
            "seconds": round(time.monotonic() - self.started, 3),
        }

    def report(self) -> SegmentReport:
        """What the run did, for who asked for it."""
        for image in self.skipped:
            logger.warning("Skipped %s: %s", image.filepath, image.reason)
        is_preview = self.writer.settings.preview
        return SegmentReport(
            run_key=self.writer.run_key,
            label_field=self.writer.label_field,
            num_images=self.num_held if is_preview else self.writer.num_images,
            num_instances=self.writer.num_instances,
            num_written=len(self.writer.written),
            num_from_index=self.num_held,
            num_left_out=len(self.images.missing) if is_preview else 0,
            skipped=self.skipped,
            seconds=time.monotonic() - self.started,
            best=tuple(self.best),
            index_trouble=None if self.builder is None else self.builder.trouble,
            changes=self.writer.changes,
            num_gated=0 if self.builder is None else self.builder.num_gated,
            protected=tuple(self.writer.protected),
            num_looked=self.looker.num_looked,
            num_unseen=self.looker.num_unseen,
            look_trouble=self.looker.trouble,
            first_protected=self.writer.first_protected,
            scores=self.writer.scores,
            lent_by=self.source.lent_by,
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
    presence_field: str | None = None,
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
    `predicted_iou`, `margin` (by how much the class beat the second-best one), `runner_up` (that one), `run`, and where a mask
    has more than one large piece their number, `pieces`. Those of an earlier run on the same image and field are replaced,
    unless they are the same: then nothing is written, and `run` names the run that wrote them. The report says which objects
    were gained, lost or relabelled. An image that cannot be read is skipped, recorded on the run, and reported; one in which
    somebody has added labels to the field stays as it is, and is reported.

    Args:
        view: a dataset or view of images.
        prototypes: or the name under which the dataset keeps them.
        label_field: where to write; a new field, or one of Detections that an earlier run wrote.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        min_confidence: lower scores are not written; by default 0.5 where scores are probabilities, else the preset's one.
            A mapping gives the classes that it names their own.
        max_detections: the best so many of each image.
        mask_dir: write masks to PNG files under this folder (`mask_path`) instead of into the database. Those of predictions
            that are replaced are removed, unless a label points to them.
        semantic_field: also write a `Segmentation` map here; 0 is background, class k of the prototypes is k + 1.
        presence_field: also write the probability that each class is in the image here, as `Classifications`, the most probable
            first: that any instance of the class is right, those below its min_confidence too, 1 − ∏(1 − score). It is never
            less than the best score; 0 where there is no instance, or where presence_gate spared the image. Scores must be
            probabilities: the prototypes need `refseg.calibrate`. Of earlier runs' classifications the confidence alone is
            changed, those of classes that are not written go; classifications of other labels, or without a confidence, stay.
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
        overwrite: write to label_field, semantic_field and presence_field even if they hold labels that no run of RefSeg
            wrote; those of the images are lost.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, a field of another type or with labels of others, a limit out of range, unknown
            prototypes or classes, a preview of images none of which is indexed, a field for presence where scores are
            similarities, or no room for masks in files.
        PrototypeFileError: the prototypes cannot be kept with the run.
        PrototypeMismatchError: the model or the index is of another encoder than the one that built the prototypes, or reads
            pixels of more than 8 bits otherwise.
        IndexMismatchError: the index given is of another dataset or model, or its tiles are not those asked for.
        IndexNotFoundError: the index given was deleted.
        IndexDamagedError: the dataset's index cannot be read.
    """
    chosen = names_or_none("classes", classes)
    settings = SegmentSettings(
        min_confidence, max_detections, mask_dir, semantic_field, preview, chosen, presence_gate, matching, presence_field
    )
    sources = SourceSettings(model, index, tiles, num_workers, pixel_settings(pixel_range, channels))
    work = iter_segment(view, prototypes, label_field, settings=settings, sources=sources, run_key=run_key, overwrite=overwrite)
    return drain(work, progress, "segmenting")


def matcher_for(prototypes: Prototypes, preset: Preset, settings: SegmentSettings) -> Matcher:
    """Prototypes made ready as these settings say.

    Raises:
        DatasetError: the settings name a class that the prototypes do not know.
    """
    matching = settings_for(preset.as_published, settings.matching)
    calibrator = calibrator_for(prototypes, preset, matching)
    matcher = make_matcher(
        prototypes,
        preset,
        matching,
        settings.thresholds(prototypes.classes, default_thresholds(prototypes, preset, matching, calibrator)),
        settings.max_detections,
        is_chosen=settings.min_confidence is not None,
        calibrator=calibrator,
    )
    return replace(matcher, tells_presence=bool(settings.presence_field))
