"""What the panel's buttons share: what is sent to the App, what a job is asked for, and decisions."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict
from typing import Any, TypeVar

from ..forms.constants import PROTOTYPES_METHOD, REJECTED_FIELD
from ..forms.matching import default_matching
from ..forms.selection import collection
from ..running import background, library
from . import looking
from . import sections as panel_sections
from . import settings as panel_settings
from .telling import newest

DECISIONS_KEPT = 50
"""Decisions that can be undone."""
OBJECTS_KEPT = 50_000
"""And so many objects in all of them, some 100 bytes each: what is kept together ends at 16 MB."""
DECIDED = ("review", "references", "suggested")
"""Sections that a decision changes."""


_review_lock = threading.Lock()
_has_turn: ContextVar[bool] = ContextVar("has_turn", default=False)

logger = logging.getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])


def let_alt_select(ctx: Any) -> None:
    """Let the App tell what is selected with Alt from what is selected without."""
    ctx.ops.set_sample_selection_style(default="green-checkmark", alt="red-checkmark")
    ctx.ops.set_label_selection_style(default="dashed-green", alt="dashed-red")


@contextmanager
def reviewing(ctx: Any) -> Iterator[None]:
    """Decide, or tell what was decided, one request after the other: a slower one would send what was true before a decision.

    The dataset is loaded anew, because a decision may have given it a field since the request began.
    """
    if _has_turn.get():
        yield
        return
    with _review_lock:
        token = _has_turn.set(True)
        try:
            ctx.dataset.reload()
            yield
        finally:
            _has_turn.reset(token)


def in_turn(method: Method) -> Method:
    """The same method, which decides and tells what was decided before another request does either."""

    @functools.wraps(method)
    def call(self: Any, ctx: Any) -> Any:
        with reviewing(ctx):
            return method(self, ctx)

    return call  # type: ignore[return-value]


def told(method: Method) -> Method:
    """The same method on a dataset object of its own, with errors as what the section says whose button was pressed.

    Where nobody pressed anything, as an event of the App, the panel says it above its sections.
    """

    @functools.wraps(method)
    def call(self: Any, ctx: Any) -> Any:
        missing = library.problem()
        if missing is not None:
            ctx.panel.set_data("overview", {"problem": missing})
            return None
        from refseg.errors import RefSegError

        try:
            background.isolate(ctx)
            return method(self, ctx)
        except (RefSegError, ValueError) as error:
            text = str(error)
        except Exception as error:
            logger.exception("The panel's %s failed", method.__name__)
            text = f"This failed ({type(error).__name__}: {error}). The server's log has the details."
        trouble = {"text": text, "at": time.time()}
        if not method.__name__.startswith("on_"):
            return {"trouble": trouble}
        ctx.panel.set_data("trouble", trouble)
        return None

    call.is_called = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def send(ctx: Any, *names: str) -> None:
    """Send sections to the App as they are now."""
    from refseg.dataset import at_one_moment

    settings = panel_settings.read(ctx)
    with at_one_moment(), reviewing(ctx) if {"review", "suggested"}.intersection(names) else nullcontext():
        for name in names:
            try:
                shown = panel_sections.SECTIONS[name](ctx, settings)
            except looking.StillReadingError:
                # The browser asks again.
                shown = {"is_reading": True}
            ctx.panel.set_data(name, shown)


def send_overview(ctx: Any) -> None:
    """Send what stands above the sections."""
    problem = panel_sections.dataset_problem(ctx)
    if problem is not None:
        has_frames = ctx.dataset is not None and ctx.dataset.media_type == "video"
        ctx.panel.set_data("overview", {"problem": problem, "way_out": "frames" if has_frames else None})
    else:
        ctx.panel.set_data("overview", panel_sections.overview(ctx, panel_settings.read(ctx)))


def job_of(ctx: Any, name: str) -> tuple[str, dict[str, Any]]:
    """The operator behind a button, and its parameters."""
    settings = panel_settings.read(ctx)
    if name == "index":
        return "build_index", {"model": settings.model}
    if name == "update":
        return "update", {"label_field": settings.label_field}
    if name == "evaluate":
        return "evaluate", {"pred_field": settings.label_field, "classes": panel_sections.classes_asked_for(ctx, settings)}
    if name == "suggest":
        return "suggest_references", {"field": settings.label_field, "accepted_field": settings.accepted_field}
    if name == "inspect":
        return "inspect_prototypes", {}
    if name not in ("calibrate", "learn", "preview", "segment"):
        raise ValueError(f"There is no job {name!r}.")
    if name == "calibrate":
        return "calibrate", {}
    shown = panel_sections.references(ctx, settings, waits=True)
    kept, known = shown["prototypes"], [entry["name"] for entry in shown["rows"]]
    if name != "learn" and known and settings.classes is not None and not set(known) & set(settings.classes):
        # None named would mean all of them.
        raise ValueError("No class is ticked: tick at least one.")
    writing = {
        "label_field": settings.label_field,
        "classes": [name for name in settings.classes or () if name in known],
        "min_confidences": [[name, least] for name, least in settings.thresholds if name in known],
        **settings.matching,
    }
    builds = name == "learn" or kept is None or kept["model"] != settings.model or bool(shown["pending"])
    presence_field = _presence_field(ctx, settings, builds=builds)
    if presence_field is not None:
        writing["presence_field"] = presence_field
    if kept is not None and not builds:
        # Nothing new to learn, so no model need be loaded: from an index it takes seconds.
        return "segment", {"prototypes": kept["name"], "preview": name == "preview", **writing}
    return "learn", {"model": settings.model, "preview": name == "preview", "only_prototypes": name == "learn", **writing}


def _presence_field(ctx: Any, settings: panel_settings.PanelSettings, *, builds: bool) -> str | None:
    """Where the newest run of the predictions wrote presence; None where it did not, or scores would be similarities.

    Args:
        ctx: FiftyOne's execution context.
        settings: of the panel.
        builds: prototypes are built first, which calibrates them.
    """
    from refseg.dataset import newest_run

    run = newest_run(ctx.dataset, settings.label_field)
    if run is None or not default_matching(settings.model)["calibrated"]:
        return None
    if not builds and not (newest(ctx, PROTOTYPES_METHOD) or {}).get("thresholds"):
        return None
    return run.config.get("presence_field")


def decide_on(
    ctx: Any,
    kind: str,
    label_ids: list[str],
    sample_ids: list[str] | None,
    label: str | None,
    *,
    as_references: bool | str | None = None,
    label_field: str | None = None,
) -> str:
    """Decide on predictions, and keep the decision so that it can be undone.

    Where nobody says whether accepted ones become references, they do if that is chosen: but for masks of several pieces, which
    may show several objects, and for what is renamed, which the model has not understood yet.

    They are those of the field where predictions go, or of another label_field.

    Returns:
        What had been decided on them before, in a sentence; empty where nothing was.
    """
    import refseg

    settings = panel_settings.read(ctx)
    if as_references is None:
        chosen = {"accept": "whole", "fix": True}.get(kind, False)
        as_references = chosen if settings.as_references else False
    where = {"label_field": label_field or settings.label_field, "sample_ids": sample_ids}
    keeps = {
        "accepted_field": settings.accepted_field,
        "as_references": as_references,
    }
    if kind == "accept":
        decision = refseg.accept(collection(ctx), label_ids, **where, **keeps)
    elif kind == "reject":
        decision = refseg.reject(collection(ctx), label_ids, **where, rejected_field=REJECTED_FIELD)
    elif kind == "relabel":
        if not label:
            raise ValueError("Choose the class that it belongs to.")
        decision = refseg.relabel(collection(ctx), label_ids, label, **where, **keeps, rejected_field=REJECTED_FIELD)
    elif kind == "fix":
        decision = refseg.fix(collection(ctx), label_ids[0], **where, **keeps)
    else:
        raise ValueError(f"There is no decision {kind!r}.")
    store = ctx.store(panel_settings.STORE)
    kept = [*(store.get("decisions") or []), asdict(decision)][-DECISIONS_KEPT:]
    while len(kept) > 1 and sum(len(one["prediction_ids"]) for one in kept) > OBJECTS_KEPT:
        del kept[0]
    store.set("decisions", kept)
    return decision.describe_replaced()


def show_labels(ctx: Any, *, has_new_field: bool) -> None:
    """Let the App read labels again that were added, changed or taken away; it does not know a field that is new."""
    if has_new_field:
        ctx.ops.reload_dataset()
        ctx.dataset.reload()
    else:
        ctx.ops.reload_samples()


def clear_selection(ctx: Any) -> None:
    """Select nothing."""
    ctx.ops.clear_selected_labels()
    ctx.ops.clear_selected_samples()


def open_sample(
    ctx: Any, sample_id: str, label_id: str | None = None, field: str | None = None, *, to_annotate: bool = False
) -> None:
    """Open an image, with a label selected where one is named; or with the App's own tools to correct labels."""
    ctx.trigger("open_sample", {"id": sample_id, "mode": "annotate" if to_annotate else "explore"})
    if label_id is not None:
        ctx.ops.set_selected_labels([{"label_id": label_id, "sample_id": sample_id, "field": field}])
