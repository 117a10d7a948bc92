"""The inspection in the panel: suggestions become references or negatives, references that hurt go, and each step is undone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..forms.constants import REFERENCE_TAG
from ..forms.inspections import done_since, keep_done, kept_inspection, mask_of
from ..forms.selection import collection
from ..inspect_prototypes import as_shown
from . import examples as panel_examples
from .acting import in_turn, send, show_labels, told
from .pictures import HEIGHT, WIDTH
from .settings import STORE

MOST_PICTURES = 6
"""Made for one request."""
CHANGED = ("inspection", "references", "segment")
"""Sections that are sent after a change."""


class Inspecting:
    """Methods of the panel, called by `js/inspect.js`."""

    @told
    def suggestion_pictures(self, ctx: Any) -> Any:
        """Pictures of suggestions by id, each outlined in its surroundings; None where the image cannot be read."""
        from refseg.errors import ImageError
        from refseg.images import as_data_uri, object_picture

        kept = kept_inspection(ctx)
        wanted = list(ctx.params.get("ids") or ())[:MOST_PICTURES]
        found: dict[str, str | None] = dict.fromkeys(wanted)
        for row in (kept or {}).get("suggestions") or ():
            if row["id"] not in found or (path := _path_of(ctx, row["sample_id"])) is None:
                continue
            try:
                picture = object_picture(path, row["box"], mask_of(row), width=WIDTH, height=HEIGHT)
            except ImageError:
                continue
            found[row["id"]] = as_data_uri(picture)
        return found

    @told
    @in_turn
    def take_suggestion(self, ctx: Any) -> Any:
        """Make a suggestion a reference of its class, or a negative of it."""
        import refseg
        from refseg.dataset import SHOWN_FIELD

        inspection, actions = _at_work(ctx)
        row = next((row for row in inspection["suggestions"] or () if row["id"] == ctx.params["id"]), None)
        if row is None or any(action["id"] == row["id"] for action in actions):
            raise ValueError(
                "This suggestion was decided on already, or replaced by a newer inspection: look at the present ones."
            )
        is_negative = bool(ctx.params.get("is_negative"))
        is_new = not collection(ctx).has_field(SHOWN_FIELD)
        label_id = refseg.add_reference(
            collection(ctx), row["sample_id"], row["label"], row["box"], mask_of(row), is_negative=is_negative
        )
        kind = "negative" if is_negative else "reference"
        action = {"kind": kind, "id": row["id"], "label_id": label_id, "sample_id": row["sample_id"], "field": SHOWN_FIELD}
        keep_done(ctx, inspection, [*actions, action])
        _show_changes(ctx, is_new=is_new)
        return True

    @told
    @in_turn
    def drop_reference(self, ctx: Any) -> Any:
        """Take the tag off a reference that hurts."""
        inspection, actions = _at_work(ctx)
        place = {name: ctx.params[name] for name in ("id", "sample_id", "field")}
        panel_examples.remove(ctx, place["field"], place["id"], place["sample_id"])
        keep_done(ctx, inspection, [*actions, {"kind": "remove", **place}])
        _show_changes(ctx)
        return True

    @told
    @in_turn
    def undo_inspected(self, ctx: Any) -> Any:
        """Take back what was done last with the inspection."""
        inspection, actions = _at_work(ctx)
        if not actions:
            raise ValueError("There is nothing to take back since this inspection.")
        _take_back(ctx, actions[-1])
        keep_done(ctx, inspection, actions[:-1])
        _show_changes(ctx)
        return True

    @told
    def inspection_file(self, ctx: Any) -> Any:
        """A picture that the inspection drew, as a file to save."""
        kept = kept_inspection(ctx) or {"files": {}}
        path = kept["files"].get(ctx.params["which"], "")
        try:
            content = as_shown(path)
        except OSError:
            raise ValueError("The picture is not in the dataset's folder any more: inspect again.") from None
        return {"name": Path(path).with_suffix(".jpg").name, "content": content}


def _at_work(ctx: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The inspection, and what was done with it."""
    found = kept_inspection(ctx)
    if found is None:
        raise ValueError("There is no inspection of this dataset yet: press 'Inspect'.")
    return found, done_since(ctx, found)


def _take_back(ctx: Any, action: Mapping[str, Any]) -> None:
    """Undo one action; what is gone since stays gone."""
    if action["kind"] == "remove":
        if (ctx.store(STORE).get(panel_examples.REMOVED) or {}).get("id") == action["id"]:
            panel_examples.restore(ctx)
            return
        view = panel_examples.every_image(ctx).select(action["sample_id"])
        view.select_labels(ids=[action["id"]], fields=action["field"]).tag_labels(REFERENCE_TAG, label_fields=action["field"])
        return
    from refseg.dataset import delete_labels

    delete_labels(collection(ctx), [{name: action[name] for name in ("label_id", "sample_id", "field")}])


def _show_changes(ctx: Any, *, is_new: bool = False) -> None:
    show_labels(ctx, has_new_field=is_new)
    send(ctx, *CHANGED)


def _path_of(ctx: Any, sample_id: str) -> str | None:
    from refseg.dataset import sample_or_none

    sample = sample_or_none(panel_examples.every_image(ctx).select_fields(), sample_id)
    return None if sample is None else str(sample.filepath)
