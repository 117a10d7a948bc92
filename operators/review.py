"""Accept, reject or rename predictions: they are copied to label fields, from which the next update learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types

from .forms.constants import ACCEPTED_FIELD, LABEL_FIELD, REJECTED_FIELD
from .forms.form import Form, object_fields
from .forms.messages import count
from .forms.selection import collection, selected_label_ids
from .running.base import RefSegOperator, Result, Work

DECISIONS = {
    "accept": "Accept: it is right",
    "reject": "Reject: it is not what it was taken for",
    "relabel": "Rename: it is something else",
    "fix": "Accept, to correct its outline by hand",
}
UNDO = {"undo": "Undo a decision"}
DONE = {
    "accept": "Accepted {}, now in the field {!r}.",
    "reject": "Rejected {}, now in the field {!r}.",
    "relabel": "Renamed {}, now in the field {!r}.",
    "fix": "Accepted {}, now in the field {!r}: correct the outline there.",
}


class Review(RefSegOperator):
    """Decides on predictions."""

    title = "Review predictions"
    summary = "Accept, reject or rename the selected predictions"
    may_be_delegated = False
    risk = types.RiskLevel.LOW

    def resolve_input(self, ctx: Any) -> types.Property:
        """What to decide, on which predictions, and where it is written."""
        form = Form(ctx, "Review predictions", "Decide on the selected predictions. They stay; what you decide is a label.")
        if form.usable:
            choices = {**DECISIONS, **UNDO} if ctx.params.get("written") is not None else DECISIONS
            form.choice("decision", choices, "accept", "Decision", "What the selected predictions are", "")
            if form.value("decision", "accept") == "undo":
                _written_notice(form)
            else:
                _decision_inputs(form)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Decide, or take a decision back."""
        from refseg.progress import Progress

        yield Progress(0, 1, "deciding")
        decision, undone = _undo(ctx) if ctx.params.get("decision") == "undo" else (_decide(ctx), False)
        yield Progress(1, 1, "deciding")
        written = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(decision).items()}
        return {
            "kind": decision.kind,
            "field": decision.label_field,
            "num_predictions": len(decision.prediction_ids),
            "written": written,
            "undone": undone,
            "replaced": decision.describe_replaced(),
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the labels and say what was done."""
        # The first decision makes a new field.
        yield ctx.ops.reload_dataset()
        if ctx.params.get("decision") == "undo":
            nothing = "There was nothing to undo: its labels are gone, or decided on anew."
            text = "The decision is undone." if result["undone"] else nothing
            yield ctx.ops.notify(text, variant="success" if result["undone"] else "info")
            return
        where = result["written"]["rejected_field" if result["kind"] == "reject" else "accepted_field"]
        text = DONE[result["kind"]].format(count(result["num_predictions"], "prediction"), where)
        yield ctx.ops.notify(f"{text} {result['replaced']}".rstrip(), variant="success")

    def __call__(
        self,
        sample_collection: Any,
        decision: str = "accept",
        label_ids: Sequence[str] | None = None,
        field: str | None = None,
        label: str | None = None,
        as_references: bool = False,
        accepted_field: str = ACCEPTED_FIELD,
        rejected_field: str = REJECTED_FIELD,
        written: Mapping[str, Any] | None = None,
    ) -> Any:
        """Decide on predictions.

        Args:
            sample_collection: a dataset of images, or a view of it.
            decision: "accept", "reject", "relabel", "fix" (one prediction, whose accepted copy you correct) or "undo".
            label_ids: the predictions; for "undo" none.
            field: that holds them; by default that of the selection, else `predictions`, else the one that
                the latest run wrote.
            label: what the objects are, for "relabel".
            as_references: give accepted copies the label tag `reference`.
            accepted_field: where accepted predictions are copied to.
            rejected_field: where rejected predictions are copied to, with the label tag `negative`.
            written: for "undo", the `written` of the decision's result.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `kind`, `field`,
            `num_predictions`, `written` (what `undo` wants to know: the fields, the ids of labels, predictions and samples, and
            the labels that were replaced), `undone`, and `replaced`, what had been decided before, in a sentence.
        """
        return self.call(locals())


def predicted_fields(ctx: Any) -> list[str]:
    """Fields of detections that runs of RefSeg have filled, the latest first."""
    from refseg.dataset import CHANGING, PREDICTING, past_runs

    detections = object_fields(ctx, (fo.Detections,))
    methods = [method for method in PREDICTING if method != CHANGING]
    written = [str(run.config["label_field"]) for run in reversed(past_runs(ctx.dataset, methods))]
    return [name for name in dict.fromkeys(written) if name in detections]


def decided_field(ctx: Any, names: Sequence[str]) -> str | None:
    """The field to decide in, unless told otherwise: that of the selection, `predictions`, or that of the latest run."""
    selected = {label.get("field") for label in ctx.selected_labels} | {getattr(ctx.view, "patches_field", None)}
    return next((name for name in [*sorted(selected, key=str), LABEL_FIELD, *names] if name in names), None)


def _decide(ctx: Any) -> Any:
    from refseg.review import decisions

    kind = ctx.params.get("decision") or "accept"
    field = ctx.params.get("field") or decided_field(ctx, predicted_fields(ctx))
    chosen = selected_label_ids(ctx, field) or []
    options: dict[str, Any] = {
        "accepted_field": ctx.params.get("accepted_field") or ACCEPTED_FIELD,
        "rejected_field": ctx.params.get("rejected_field") or REJECTED_FIELD,
        "sample_ids": [label["sample_id"] for label in ctx.selected_labels or () if label.get("sample_id")],
    }
    if kind == "reject":
        return decisions.reject(collection(ctx), chosen, field, **options)
    options["as_references"] = bool(ctx.params.get("as_references", False))
    if kind == "relabel":
        return decisions.relabel(collection(ctx), chosen, ctx.params["label"], field, **options)
    if kind == "fix":
        return decisions.fix(collection(ctx), chosen[0], field, **options)
    return decisions.accept(collection(ctx), chosen, field, **options)


def _undo(ctx: Any) -> tuple[Any, bool]:
    from refseg.review import Decision, undo

    decision = Decision(**ctx.params["written"])
    return decision, undo(collection(ctx), decision)


def _decision_inputs(form: Form) -> None:
    ctx, kind = form.ctx, form.value("decision", "accept")
    names = predicted_fields(ctx)
    missing = f"The dataset {ctx.dataset.name!r} holds no predictions yet: run 'Segment' first."
    default = decided_field(ctx, names)
    form.choice("field", names, default, "Predictions", "The field that holds them", missing)
    field = form.value("field", default)
    _selection_line(form, field, kind)
    if kind == "relabel":
        label = form.value("label")
        problem = None if isinstance(label, str) and label.strip() else "Give the name of what the object is."
        form.text("label", None, "Class", "What the selected objects are", problem, _class_names(ctx, field))
    if kind != "reject":
        form.switch("as_references", False, "As references", "The next update learns from them what the class looks like")
        _target_input(form, "accepted_field", ACCEPTED_FIELD, "Accepted", field, names)
    if kind in ("reject", "relabel"):
        _target_input(form, "rejected_field", REJECTED_FIELD, "Rejected", field, names)


def _selection_line(form: Form, field: Any, kind: Any) -> None:
    chosen = selected_label_ids(form.ctx, field) or []
    if not chosen:
        form.obstacle("selection", "No prediction is selected: select some in an image, or patches in the grid.")
    elif kind == "fix" and len(chosen) > 1:
        form.obstacle("selection", f"One prediction at a time is corrected by hand, not {len(chosen)}: select one.")
    else:
        form.notice("selection", f"Selected: {count(len(chosen), 'prediction')}")


def _class_names(ctx: Any, field: Any) -> list[str]:
    """Names that the latest run of the field knows."""
    from refseg.dataset import newest_run

    run = newest_run(ctx.dataset, field) if isinstance(field, str) else None
    return [] if run is None else [str(name) for name in run.config.get("classes") or ()]


def _target_input(form: Form, name: str, default: str, label: str, field: Any, predicted: Sequence[str]) -> None:
    chosen = form.value(name, default)
    targets = {"accepted_field": ACCEPTED_FIELD, "rejected_field": REJECTED_FIELD}
    others = [form.value(other, usual) for other, usual in targets.items() if other != name]
    existing = collection(form.ctx).get_field(chosen) if isinstance(chosen, str) else None
    problem = None
    if isinstance(chosen, str) and (not chosen.isidentifier() or chosen.startswith("_")):
        problem = f"{chosen!r} cannot name a field: use letters, digits and underscores, and begin with a letter."
    elif chosen in predicted or chosen == field:
        problem = f"The field {chosen!r} holds predictions, which the next run replaces: choose another field."
    elif existing is not None and getattr(existing, "document_type", None) is not fo.Detections:
        problem = f"The field {chosen!r} holds something else than detections: choose another, or a new name."
    elif chosen in others:
        problem = "Accepted and rejected labels need fields of their own: choose another name for one of them."
    form.text(name, default, label, "A new field, or one of detections: copies of the selected predictions go there", problem)


def _written_notice(form: Form) -> None:
    from refseg.review import Decision

    written = form.ctx.params.get("written")
    names = {field.name for field in fields(Decision)}
    required = {"kind", "label_field", "accepted_ids", "rejected_ids", "prediction_ids"}
    if not isinstance(written, dict) or not required <= written.keys() <= names:
        form.obstacle("selection", "To undo a decision, give the 'written' of its result.")
    else:
        number, earlier = len(written["accepted_ids"]) + len(written["rejected_ids"]), len(written.get("replaced") or ())
        back = f"; to be brought back: {count(earlier, 'label')}" if earlier else ""
        form.notice("selection", f"To be removed: {count(number, 'label')}{back}")
