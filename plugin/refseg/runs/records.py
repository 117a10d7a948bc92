"""What a dataset keeps of a run of segment: its settings before work starts, and how it ended."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pymongo.errors import PyMongoError

from ..calibration import labelled_ids, num_mined, scores_of
from ..dataset import (
    RUNNING,
    SEGMENTING,
    Source,
    claim,
    name_of,
    register,
    update_run,
    whole_config,
    whole_of,
    write_prototypes,
)
from ..errors import DatasetError
from ..failpoints import reach
from ..matching import PROBABILITIES, settings_for
from ..models import Preset
from ..names import run_key_from
from ..processes import Process
from ..progress import Progress
from ..prototypes import Prototypes
from .changes import ChangedObject, Changes
from .settings import SegmentSettings

logger = logging.getLogger(__name__)

SEGMENT_METHOD = SEGMENTING
SECONDS_A_BEAT = 10.0
"""A run at work writes no more often than so that it is, and how far it got."""
CHANGES_RECORDED = 10_000
"""Ids of changed samples that the run keeps: a document of MongoDB ends at 16 MB."""


def check_key(dataset: Any, key: str | None) -> None:
    """Refuse a key for a new run before its work: one that is no name, or that of another run.

    Raises:
        DatasetError: see above.
    """
    if not key:
        return
    if not key.isidentifier():
        raise DatasetError(f"{key!r} cannot name a run: use letters, digits and underscores, such as {run_key_from(key)!r}.")
    if whole_config(dataset, key):
        raise _taken(dataset, key)


def _taken(dataset: Any, key: str) -> DatasetError:
    return DatasetError(f"The dataset {name_of(dataset)!r} has a run named {key!r} already: choose another run key.")


@dataclass
class RunRecord:
    """The record of a run at work.

    Attributes:
        dataset: that keeps it.
        key: its key.
        outcome: what the run did so far.
    """

    dataset: Any
    key: str
    outcome: Callable[[], Mapping[str, Any]] = dict
    _beat_at: float = field(default_factory=time.monotonic)

    def followed(self, work: Generator[Progress, None, None]) -> Generator[Progress, None, None]:
        """The work, whose steps tell others every few seconds that it goes on."""
        with closing(work):
            for step in work:
                if time.monotonic() - self._beat_at >= SECONDS_A_BEAT:
                    self._beat(step)
                yield step

    def _beat(self, step: Progress) -> None:
        self._beat_at = time.monotonic()
        try:
            update_run(self.dataset, self.key, {"heard_at": _now(), "progress": [step.done, step.total, step.label]})
        except PyMongoError as error:
            logger.warning("The run %s goes on, but could not say so: %s", self.key, error)


@contextmanager
def recorded(view: Any, asked: str | None, config: Any) -> Iterator[RunRecord]:
    """Register a run before its work starts, so that even a killed one can be traced, and write down how it ended.

    Its key is what is asked for, else one made from the field and the time; of several processes each gets one of its own.

    Args:
        view: whose run it is.
        asked: see check_key.
        config: from configure; its state becomes "completed", "cancelled" or "failed".

    Raises:
        DatasetError: another process has taken the key that is asked for.
    """
    key = asked or claim(view, f"{config.label_field}_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}", config)
    if asked and not register(view, asked, config):
        raise _taken(view, asked)
    reach("run.record")
    record = RunRecord(whole_of(view), key)
    ended: dict[str, Any] = {"state": "failed"}
    try:
        yield record
        ended["state"] = "completed"
    except GeneratorExit:
        ended["state"] = "cancelled"
        raise
    except Exception as error:
        ended["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        update_run(record.dataset, key, {**ended, **record.outcome(), "heard_at": _now()})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def require_probabilities(settings: SegmentSettings, preset: Preset | None, prototypes: Prototypes) -> None:
    """Refuse to write presence where scores are similarities.

    Args:
        settings: of a run.
        preset: how it matches where the settings do not say it; None for one that is not known.
        prototypes: that it segments with.

    Raises:
        DatasetError: there is a field for presence, and scores are no probabilities.
    """
    matching = settings_for(preset is not None and preset.as_published, settings.matching)
    if not settings.presence_field or scores_of(matching, prototypes) == PROBABILITIES:
        return
    if matching.calibrated:
        raise DatasetError(
            "Presence is a probability, and scores of prototypes that are not calibrated are similarities: calibrate them "
            "first, with refseg.calibrate(dataset, prototypes) or calibrates=True, or leave presence_field out."
        )
    raise DatasetError(
        "Presence is a probability, and scores are similarities where matching is not calibrated, as in the preset 'paper': "
        "pass matching=refseg.MatchSettings() and prototypes from refseg.calibrate(dataset, prototypes), or leave "
        "presence_field out."
    )


def changes_as_config(changes: Changes) -> dict[str, Any]:
    """Classes in lists: MongoDB takes no class name as a key. Ids and objects in one text: FiftyOne walks lists of runs."""
    return {
        "changes": changes.as_lists(),
        "changed_ids": " ".join(changes.sample_ids[:CHANGES_RECORDED]),
        "changed_objects": objects_as_text(changes.objects),
    }


def objects_as_text(objects: Sequence[ChangedObject]) -> str:
    """Changed objects as JSON: some 80 bytes each, and boxes to a hundred-thousandth of the image."""
    rows = [[one.change, one.label, one.before, one.box and [round(value, 5) for value in one.box]] for one in objects]
    of_images: dict[str, list[Any]] = {}
    for one, row in zip(objects, rows, strict=True):
        of_images.setdefault(one.sample_id, []).append(row)
    return json.dumps(of_images, ensure_ascii=False, separators=(",", ":"))


def objects_from_text(text: str) -> tuple[ChangedObject, ...]:
    """The inverse of objects_as_text.

    Example:
        >>> objects_from_text(objects_as_text([ChangedObject("1", "lost", "nut", None, (0.25, 0.5, 0.1, 0.2))]))
        (ChangedObject(sample_id='1', change='lost', label='nut', before=None, box=(0.25, 0.5, 0.1, 0.2)),)
    """
    return tuple(
        ChangedObject(sample_id, change, label, before, tuple(box) if box else None)
        for sample_id, rows in json.loads(text).items()
        for change, label, before, box in rows
    )


def configure(
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
        state=RUNNING,
        process=Process.current().as_dict(),
        heard_at=_now(),
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
        scores=scores_of(matching, prototypes),
        matching=matching.as_dict(),
        max_detections=settings.max_detections,
        mask_dir=None if settings.mask_folder is None else str(settings.mask_folder),
        semantic_field=settings.semantic_field,
        presence_field=settings.presence_field,
        started_at=_now(),
    )
