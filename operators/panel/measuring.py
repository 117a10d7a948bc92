"""What figures are made of, shown in the grid: objects of a class or of a cell, what was left out, and what a run changed."""

from __future__ import annotations

from typing import Any

from fiftyone import ViewField as F

from ..forms.constants import EVALUATION_METHOD
from ..forms.messages import count
from ..forms.selection import collection
from . import settings as panel_settings
from .acting import clear_selection, send_overview, told
from .examples import every_image
from .telling import newest

MOST_IMAGES = 500
"""Images whose objects of a class are shown as patches."""
GRID = "Samples"
"""What FiftyOne calls the grid among its panels."""


class Measuring:
    """Methods of the panel, called by `js/results.js` and `js/changes.js`."""

    @told
    def show_class(self, ctx: Any) -> Any:
        """The objects of a class as patches: those that are there, and those that were predicted."""
        config, name = _evaluation(ctx), ctx.params["name"]
        fields = [config["gt_field"], config["pred_field"]]
        is_own = F("label") == name
        images = every_image(ctx)
        for field in fields:
            images = images.filter_labels(field, is_own, only_matches=False)
        images = images.match((F(_path(ctx, fields[0])).length() > 0) | (F(_path(ctx, fields[1])).length() > 0))
        view = images.limit(MOST_IMAGES)
        key = config.get("eval_key")
        if key and ctx.dataset.has_evaluation(key):
            patches = view.to_evaluation_patches(key)
        else:
            has_truth = len(view.match(F(_path(ctx, fields[0])).length() > 0).limit(1)) > 0
            patches = view.to_patches(fields[0] if has_truth else fields[1])
        if not len(patches):
            raise ValueError(f"There is no object of the class {name!r} any more: evaluate again.")
        if len(images.limit(MOST_IMAGES + 1)) > MOST_IMAGES:
            ctx.ops.notify(
                f"These are the objects in the first {MOST_IMAGES} images that hold any of {name!r}.", variant="info"
            )
        _show(ctx, patches, *fields)
        return True

    @told
    def show_cell(self, ctx: Any) -> Any:
        """The objects of one class that were taken for one class, as patches: of what was not found the objects themselves."""
        from refseg.dataset import whole_config
        from refseg.evaluation import cells_from_text

        config, wanted = _evaluation(ctx), (ctx.params.get("truth"), ctx.params.get("predicted"))
        text = whole_config(ctx.dataset, config["key"]).get("cells") or "[]"
        cell = next((one for one in cells_from_text(text) if (one.truth, one.predicted) == wanted), None)
        if cell is None or not cell.places:
            raise ValueError("The evaluation does not name these objects: evaluate again.")
        field = config["gt_field" if cell.predicted is None else "pred_field"]
        images = every_image(ctx).select([sample_id for sample_id, _ in cell.places])
        # Without other fields: FiftyOne crops a patch to all labels that are shown, of which theirs would be everywhere.
        view = images.to_patches(field).select([label_id for _, label_id in cell.places])
        number = len(view)
        if not number:
            raise ValueError("These objects are not there any more, since predictions were written again: evaluate again.")
        if number < cell.number:
            ctx.ops.notify(f"These are {number:,} of {count(cell.number, 'object')}.", variant="info")
        _show(ctx, view, field)
        return True

    @told
    def show_left_out(self, ctx: Any) -> Any:
        """The images that an evaluation left out, because they cannot be read."""
        from refseg.dataset import whole_config

        rows = whole_config(ctx.dataset, _evaluation(ctx)["key"]).get("skipped") or ()
        if not rows:
            raise ValueError("The evaluation left out no image.")
        _show(ctx, every_image(ctx).select([row[0] for row in rows]))
        return True

    @told
    def show_changes(self, ctx: Any) -> Any:
        """The objects that the last run gained, lost or relabelled, or one kind of them; returns the field, to be coloured."""
        import refseg
        from refseg.dataset import newest_run, whole_config
        from refseg.runs import kind_of_change

        settings, kind = panel_settings.read(ctx), ctx.params.get("kind")
        run = newest_run(ctx.dataset, settings.label_field)
        ids = [] if run is None else (whole_config(ctx.dataset, run.key).get("changed_ids") or "").split()
        if not ids:
            raise ValueError("The last run changed no object.")
        field = _changes_field(ctx, settings.label_field)
        shown = refseg.show_changes(collection(ctx), settings.label_field, field)
        ctx.dataset.reload()
        if not shown.num_samples:
            # A run of an earlier version names the images alone.
            _show(ctx, every_image(ctx).select(ids, ordered=True))
            return {"field": field}
        images = every_image(ctx)
        if kind is None:
            view = images.match(F(f"{field}.detections").length() > 0)
        else:
            view = images.filter_labels(field, kind_of_change(kind))
        if not len(view):
            raise ValueError(f"The last run {kind} no object.")
        # The App learns of a new field with the view: to reload the dataset at the same moment would be a race.
        _show(ctx, view, field)
        send_overview(ctx)
        return {"field": field}


def _evaluation(ctx: Any) -> dict[str, Any]:
    """The newest evaluation of the chosen field.

    Raises:
        ValueError: there is none.
    """
    found = newest(ctx, EVALUATION_METHOD, pred_field=panel_settings.read(ctx).label_field)
    if found is None:
        raise ValueError("Nothing was measured yet: press 'Evaluate' first.")
    return found


def _path(ctx: Any, field: str) -> str:
    from refseg.dataset import LIST_FIELDS

    kind = collection(ctx).get_field(field).document_type.__name__
    return f"{field}.{LIST_FIELDS[kind]}" if kind in LIST_FIELDS else field


def _changes_field(ctx: Any, label_field: str) -> str:
    """The field that shows what runs change: the one that does already, else `changes`, where that is nobody's."""
    from refseg.dataset import CHANGING, newest_of
    from refseg.runs import shown_changes

    record = shown_changes(ctx.dataset, label_field)
    if record is not None:
        return str(record.config["label_field"])
    is_taken = collection(ctx).has_field("changes") and newest_of(ctx.dataset, CHANGING, label_field="changes") is None
    return f"changes_of_{label_field}" if is_taken else "changes"


def _show(ctx: Any, view: Any, *fields: str) -> None:
    """Show a view in the grid, which may lie behind another panel, with the labels of these fields alone."""
    clear_selection(ctx)
    ctx.ops.set_view(view=view)
    if fields:
        ctx.ops.set_active_fields(fields=list(fields))
    if ctx.current_sample is None:
        ctx.ops.open_panel(GRID, is_active=True)
