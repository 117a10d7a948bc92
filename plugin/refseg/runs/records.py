"""What a dataset keeps of a run of segment: its settings before work starts, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ..calibration import labelled_ids, num_mined, scores_of
from ..dataset import Source, name_of, whole_of, write_prototypes
from ..errors import DatasetError
from ..matching import PROBABILITIES, settings_for
from ..models import Preset
from ..names import free_run_key, run_key_from
from ..prototypes import Prototypes
from .changes import Changes
from .settings import SegmentSettings

SEGMENT_METHOD = "refseg/segment"
CHANGES_RECORDED = 10_000
"""Ids of changed samples that the run keeps: a document of MongoDB ends at 16 MB."""


def key_for(dataset: Any, asked: str | None, label_field: str) -> str:
    """The key of a new run: what is asked for, else one made from the field and the time.

    Raises:
        DatasetError: it is no name, or another run has it.
    """
    key = asked or free_run_key(dataset, f"{label_field}_{datetime.now(timezone.utc):%Y%m%d_%H%M%S}")
    if not key.isidentifier():
        raise DatasetError(f"{key!r} cannot name a run: use letters, digits and underscores, such as {run_key_from(key)!r}.")
    if dataset.has_run(key):
        raise DatasetError(f"The dataset {name_of(dataset)!r} has a run named {key!r} already: choose another run key.")
    return key


@contextmanager
def recorded(view: Any, key: str, config: Any, outcome: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Register a run before its work starts, so that even a killed one can be traced, and write down how it ended.

    Args:
        view: whose run it is.
        key: from key_for.
        config: from configure; its state becomes "completed", "cancelled" or "failed".
        outcome: what the run did, asked for in the end.
    """
    view.register_run(key, config)
    config.state = "failed"
    try:
        yield
        config.state = "completed"
    except GeneratorExit:
        config.state = "cancelled"
        raise
    except Exception as error:
        config.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        for name, value in outcome().items():
            setattr(config, name, value)
        whole_of(view).update_run_config(key, config)


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
    """Classes in lists: MongoDB takes no class name as a key. Ids in one text: FiftyOne walks lists when runs are listed."""
    return {"changes": changes.as_lists(), "changed_ids": " ".join(changes.sample_ids[:CHANGES_RECORDED])}


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
        scores=scores_of(matching, prototypes),
        matching=matching.as_dict(),
        max_detections=settings.max_detections,
        mask_dir=settings.mask_dir,
        semantic_field=settings.semantic_field,
        presence_field=settings.presence_field,
        started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
