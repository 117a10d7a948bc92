"""The loop's way back: rebuild a field's prototypes from what is tagged now, and segment its images again.

Costs one encoder pass for each reference or negative that is new or changed, and one scan of the candidate index. Calibrating
takes milliseconds for each indexed image of references or known to be empty, one pass of the segmenter for any other.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..calibration import scores_of
from ..checks import require_flags, require_names
from ..dataset import (
    INTERRUPTED,
    NEGATIVE_TAG,
    PROTOTYPES_METHOD,
    REFERENCE_TAG,
    REJECTED_FIELD,
    SEGMENTING,
    PastRun,
    SourceSettings,
    StoredPrototypes,
    collect_negatives,
    every_image,
    has_samples,
    image_view,
    label_fields,
    name_of,
    newest_run,
    past_runs,
    require_no_contradictions,
    reusable_prototypes,
    save_prototypes,
    tagged_references,
    turned_before,
    whole_config,
    whole_of,
)
from ..errors import DatasetError, PrototypeFileError
from ..images import PLAIN
from ..matching import PROBABILITIES, SIMILARITIES, MatchSettings, settings_for
from ..models import PRESETS, Models, get_preset
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes, Reference, iter_build_prototypes
from .known_images import iter_use_known
from .records import require_probabilities
from .segmenting import iter_segment
from .settings import SegmentSettings
from .update_report import UpdateReport, report_of

logger = logging.getLogger(__name__)

PROTOTYPES_NAME = "prototypes"
"""Under which prototypes are kept that had no name."""


@dataclass(frozen=True)
class TagSettings:
    """By what references and negatives are known.

    Attributes:
        reference: tag of references, on labels or on whole samples.
        negative: tag of negatives, on labels.
        rejected_field: whose labels are never references.
    """

    reference: str = REFERENCE_TAG
    negative: str = NEGATIVE_TAG
    rejected_field: str = REJECTED_FIELD

    def __post_init__(self) -> None:
        require_names(tag=self.reference, negative_tag=self.negative, rejected_field=self.rejected_field)


def update(
    view: Any,
    label_field: str = "predictions",
    *,
    rejected_field: str = REJECTED_FIELD,
    tag: str = REFERENCE_TAG,
    negative_tag: str = NEGATIVE_TAG,
    model: str | Models | None = None,
    calibrates: bool = True,
    num_workers: int | None = None,
    progress: bool | Watcher | None = None,
) -> UpdateReport:
    """Learn from what is tagged now, and segment again the images that a field's runs were asked for.

    References and negatives are taken from the whole dataset, in every field that holds no predictions. The new prototypes
    replace those of the field's newest run, whose settings are kept: thresholds and the choice of classes by name, limits,
    mask folder, fields of semantic maps and of presence, and whether the index is used. A class that has references for the
    first time is looked for at the default threshold; one without references is dropped. Negatives are mined from images
    tagged `known_empty`.

    Args:
        view: a dataset or view of images; of these, all where a run of the field was of the whole dataset, else those that
            have predictions in it.
        label_field: of the predictions.
        rejected_field: whose labels are never references.
        tag: of references, on labels or on whole samples.
        negative_tag: of negatives, on labels.
        model: preset's name or loaded models; by default the preset of the newest run.
        calibrates: whether to learn from what lies around references, and from images tagged `known_empty`; see
            `refseg.calibrate`.
        num_workers: see `refseg.segment`.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, no run yet, no segmented image in the view, or none of the chosen classes has references; or
            the last run wrote presence, and scores would be similarities.
        NoReferencesError: nothing is tagged as a reference.
        BadReferenceError: an object is both a reference and a negative, or both accepted and rejected.
        ClassWithoutReferencesError: no reference of a class can be used.
    """
    tags = TagSettings(tag, negative_tag, rejected_field)
    work = iter_update(view, label_field, tags, calibrates=calibrates, model=model, num_workers=num_workers)
    return drain(work, progress, "updating")


@dataclass(frozen=True)
class Learnt:
    """Prototypes built from what is tagged, and kept with the dataset.

    Attributes:
        stored: where they are kept.
        prototypes: of every class that has a reference.
        num_reused: references and negatives that had not changed, whose vectors were kept.
    """

    stored: StoredPrototypes
    prototypes: Prototypes
    num_reused: int


def iter_learn(
    view: Any,
    name: str = PROTOTYPES_NAME,
    tags: TagSettings | None = None,
    sources: SourceSettings | None = None,
    *,
    calibrates: bool = True,
    turned: bool | None = None,
) -> Generator[Progress, None, Learnt]:
    """Build prototypes from every reference and negative of a dataset, in place of those kept under a name.

    Args:
        view: a dataset of images, or a view of it, whose dataset counts as a whole.
        name: under which they are kept; what prototypes of this name, else the newest, have in common with them is not
            computed again.
        tags: by what references and negatives are known.
        sources: the model, by default `large`; how images are read, by default as `refseg.build_prototypes` has it; and where
            the candidates of known images come from.
        calibrates: whether to learn from what lies around references, and from images tagged `known_empty`, which are not
            computed again where the index holds them; see `refseg.calibrate` and `refseg.mine_negatives`.
        turned: see `refseg.build_prototypes`; by default as before.

    Raises:
        DatasetError: no images, or the dataset has a run of this name that holds no prototypes.
        NoReferencesError: nothing is tagged as a reference.
        BadReferenceError: an object is both a reference and a negative, or both accepted and rejected.
        ClassWithoutReferencesError: no reference of a class can be used.
    """
    sources = sources or SourceSettings()
    view = image_view(view)
    dataset = whole_of(view)
    references, negatives = _tagged(dataset, tags or TagSettings())
    earlier = reusable_prototypes(dataset, name)
    model = sources.model or "large"
    turned = turned_before(dataset, name) if turned is None else turned
    work = iter_build_prototypes(references, model, earlier, negatives, pixels=sources.pixels, turned=turned)
    prototypes = yield from work
    if calibrates:
        # How images are read is the prototypes' to say from now on.
        prototypes = yield from iter_use_known(dataset, prototypes, sources=replace(sources, model=model, pixels=PLAIN))
    stored = save_prototypes(dataset, prototypes, name, overwrite=True)
    return Learnt(stored, prototypes, 0 if earlier is None else prototypes.num_shared(earlier))


def iter_update(
    view: Any,
    label_field: str = "predictions",
    tags: TagSettings | None = None,
    *,
    model: str | Models | None = None,
    calibrates: bool = True,
    num_workers: int | None = None,
) -> Generator[Progress, None, UpdateReport]:
    """The generator behind update: yields after each reference, each image that is known, and each batch of images.

    Closing it while prototypes are built and calibrated changes nothing; later it is as for `segmenting.iter_segment`, the new
    prototypes being kept.
    """
    require_names(label_field=label_field)
    require_flags(calibrates=calibrates)
    sources = SourceSettings(model, num_workers=num_workers)
    view = image_view(view)
    dataset = whole_of(view)
    run = newest_run(dataset, label_field)
    images = None if run is None else _images_of(view, run)
    if run is None or images is None or not has_samples(images):
        raise DatasetError(
            f"No image of this view of dataset {name_of(dataset)!r} was segmented by RefSeg in the field {label_field!r}: run "
            "segment first."
        )
    name = _name_for(dataset, run)
    references, negatives = _tagged(dataset, tags or TagSettings())
    settings = settings_of(run, {reference.label for reference in references})
    before = _earlier(run)
    turned = turned_before(dataset, name) if before is None else before.turned
    model = model or str(run.config["model"])
    prototypes = yield from iter_build_prototypes(references, model, before, negatives, turned=turned)
    sources = sources_of(run, sources)
    if calibrates:
        chosen = settings_for(get_preset(str(run.config["model"])).as_published, settings.matching)
        same = run.config.get("scores", SIMILARITIES) == (PROBABILITIES if chosen.calibrated else SIMILARITIES)
        mining = SegmentSettings(settings.min_confidence if same else None, matching=settings.matching)
        prototypes = yield from iter_use_known(dataset, prototypes, mining, sources)
    settings, dropped = _readable(settings, run, prototypes)
    save_prototypes(dataset, prototypes, name, overwrite=True)
    # Not by their name, under which another process may have kept its own by now.
    report = yield from iter_segment(images, prototypes, label_field, settings=settings, sources=sources, prototypes_name=name)
    interrupted = run.key if run.state == INTERRUPTED else None
    about = report_of(name, prototypes, before, run.config, report)
    return replace(about, dropped_confidences=dropped, interrupted_run=interrupted)


def _readable(settings: SegmentSettings, run: PastRun, prototypes: Prototypes) -> tuple[SegmentSettings, dict[str, float]]:
    """The settings without least scores that somebody chose on another scale, and these; 0 is the same on every scale.

    Raises:
        DatasetError: the run wrote presence, and scores are no probabilities any more.
    """
    preset = PRESETS.get(prototypes.model)
    require_probabilities(settings, preset, prototypes)
    matching = settings_for(preset is not None and preset.as_published, settings.matching)
    own = {label: least for label, least in settings.own_confidences(prototypes.classes).items() if least}
    if not own or run.config.get("scores", SIMILARITIES) == scores_of(matching, prototypes):
        return settings, {}
    logger.warning("Least scores of the run %r are dropped: its scores were others", run.key)
    return replace(settings, min_confidence=None), own


def settings_of(run: PastRun, classes: set[str]) -> SegmentSettings:
    """The settings of a run, for prototypes of other classes.

    Args:
        run: of segment.
        classes: that now have references.

    Raises:
        DatasetError: the run wrote some classes alone, and none of them, nor any new one, is among these.
    """
    config = run.config
    known = set(config["classes"])
    thresholds = {str(name): float(least) for name, least in config.get("min_confidences") or ()}
    chosen = None
    if thresholds and known - thresholds.keys():
        chosen = tuple(sorted(name for name in classes if name in thresholds or name not in known))
        if not chosen:
            raise DatasetError(
                f"The last run wrote {', '.join(map(repr, sorted(thresholds)))} alone, and no reference shows any of these "
                "now: tag some, or run segment with a new choice of classes."
            )
    # What nobody chose is found anew for the new references. Runs of earlier versions did not tell, or knew one number for all.
    own = dict(config["own_confidences"]) if "own_confidences" in config else thresholds
    least: float | Mapping[str, float] | None = {name: float(value) for name, value in own.items() if name in classes}
    if not least:
        least = None if "own_confidences" in config or thresholds else config.get("min_confidence")
    return SegmentSettings(
        min_confidence=least,
        max_detections=int(config["max_detections"]),
        mask_dir=config.get("mask_dir") or None,
        semantic_field=config.get("semantic_field"),
        presence_field=config.get("presence_field"),
        classes=chosen,
        presence_gate=config.get("presence_gate"),
        matching=MatchSettings.from_mapping(config["matching"]) if config.get("matching") else None,
    )


def sources_of(run: PastRun, asked: SourceSettings) -> SourceSettings:
    """What is asked for, with the index and the tiles of a run."""
    # Runs of earlier versions kept the index's place alone.
    uses_index = run.config.get("index", run.config.get("index_uri") is not None)
    return replace(asked, index=bool(uses_index), tiles=run.config.get("tiles"))


def _images_of(view: Any, run: PastRun) -> Any:
    """The images of a view that the runs of a field were asked for; those that have predictions, where all were of views."""
    dataset, label_field = whole_of(view), run.config["label_field"]
    if any(other.is_whole for other in past_runs(dataset, [SEGMENTING], label_field)):
        return view
    ids = set(view.exists(label_field).values("id")) if dataset.has_field(label_field) else set()
    if run.config.get("preview"):
        # It wrote the best of them alone.
        ids |= set(dataset.load_run_view(run.key).values("id"))
    return view.select(sorted(ids))


def _tagged(dataset: Any, tags: TagSettings) -> tuple[list[Reference], list[Reference]]:
    """The references and the negatives of the whole dataset."""
    whole = every_image(dataset)
    require_no_contradictions(dataset, label_fields(whole), tags.rejected_field)
    references = tagged_references(whole, tags.reference, rejected_field=tags.rejected_field)
    return references, collect_negatives(whole, label_fields(whole), tags.negative)


def _name_for(dataset: Any, run: PastRun) -> str:
    name = str(run.config.get("prototypes_name") or PROTOTYPES_NAME)
    if whole_config(dataset, name).get("method", PROTOTYPES_METHOD) != PROTOTYPES_METHOD:
        # Better said now than after the work.
        raise DatasetError(
            f"The dataset {name_of(dataset)!r} has a run named {name!r} that holds no prototypes: rename it with "
            "dataset.rename_run, so that the new prototypes can have this name."
        )
    return name


def _earlier(run: PastRun) -> Prototypes | None:
    """The prototypes of a run; None where their file is gone, which only costs time."""
    try:
        return Prototypes.load(run.config["prototypes_path"])
    except PrototypeFileError as error:
        logger.warning("No earlier prototypes are reused: %s", error)
        return None
