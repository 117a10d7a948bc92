"""The review queue as the panel shows it: worked out once a run, shortened with each decision.

Kept in this process alone and only to be quick: the decisions themselves are labels of the dataset, from which the queue can be
worked out again at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from ..forms.constants import REJECTED_FIELD
from ..forms.form import object_fields
from ..forms.selection import all_images, collection
from .settings import PanelSettings

if TYPE_CHECKING:
    from refseg.review import QueueItem

SECONDS_KEPT = 60
"""After which it is worked out again, for decisions made elsewhere."""
QUEUES_KEPT = 8

_Key = tuple[Any, ...]
_lock = threading.Lock()
_queues: dict[_Key, tuple[float, list[QueueItem]]] = {}


def open_items(ctx: Any, settings: PanelSettings) -> list[QueueItem]:
    """Predictions that nobody has decided on yet, the one to be shown next first."""
    from refseg.dataset import newest_run
    from refseg.review import review_queue

    run = newest_run(ctx.dataset, settings.label_field)
    if run is None or settings.label_field not in object_fields(ctx, (fo.Detections,)):
        return []
    shown = ctx.dataset.group_slice if ctx.dataset.media_type == "group" else collection(ctx)._dataset.name
    key = (*_place(ctx, settings), shown, run.key, settings.accepted_field, settings.order)
    with _lock:
        held = _queues.get(key)
    if held is not None and time.monotonic() - held[0] < SECONDS_KEPT:
        return held[1]
    items = review_queue(
        all_images(ctx),
        settings.label_field,
        accepted_field=settings.accepted_field,
        rejected_field=REJECTED_FIELD,
        order=settings.order,
    )
    with _lock:
        _queues[key] = time.monotonic(), items
        while len(_queues) > QUEUES_KEPT:
            _queues.pop(next(iter(_queues)))
    return items


def drop(ctx: Any, settings: PanelSettings, label_ids: Iterable[str]) -> None:
    """Take decided predictions out."""
    gone = set(label_ids)
    with _lock:
        for key, (made_at, items) in list(_queues.items()):
            if key[:2] == _place(ctx, settings):
                _queues[key] = made_at, [item for item in items if item.label_id not in gone]


def forget(ctx: Any, settings: PanelSettings) -> None:
    """Work the queue out again when it is next asked for."""
    with _lock:
        for key in [key for key in _queues if key[:2] == _place(ctx, settings)]:
            del _queues[key]


def _place(ctx: Any, settings: PanelSettings) -> tuple[str, str]:
    return str(ctx.dataset._doc.id), settings.label_field
