"""Compare predictions with ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types

from .forms.constants import REFERENCE_FIELD, SKIPS_IN_RESULT
from .forms.fields import segmented_fields
from .forms.form import Form, object_fields
from .forms.inputs import no_objects
from .forms.messages import count, listing
from .forms.selection import chosen_classes, target_images
from .running.base import RefSegOperator, Result, Work

EVALUATION_PANEL = "model_evaluation_panel_builtin"
FIGURES = (
    *("mask_ap", "mask_ap50", "mask_ap75", "mask_ap_small", "mask_ap_medium", "mask_ap_large"),
    *("box_ap", "box_ap50", "box_ap75", "box_ap_small", "box_ap_medium", "box_ap_large"),
    *("fiftyone_mask_ap", "num_images", "num_ground_truth", "num_predictions", "eval_key"),
)


class Evaluate(RefSegOperator):
    """Average precision by COCO's rules, and an evaluation to browse in the App."""

    title = "Evaluate"
    summary = "Compare predictions with ground truth by COCO's rules"
    kept_when_cancelled = "no unfinished evaluation is left"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which fields, and the evaluation's name."""
        form = Form(
            ctx,
            "Evaluate",
            "Compare predictions with ground truth. Images that hold references count too, unless the view leaves them out.",
            action="Evaluate",
        )
        if form.usable:
            _prediction_input(form)
            ground_truth_input(form, "gt_field", form.value("pred_field", default_predictions(ctx)))
            eval_key_input(form)
            form.names("classes", "Classes", "Evaluate these alone; leave it empty for every class")
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Evaluate the two fields."""
        pred_field = ctx.params.get("pred_field") or default_predictions(ctx)
        gt_field = ctx.params.get("gt_field") or default_ground_truth(ctx, pred_field)
        result: Result = yield from evaluate(ctx, target_images(ctx), pred_field, gt_field)
        return result

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say the figures and open FiftyOne's panel on them."""
        yield from show_evaluation(ctx, result, describe(result))

    def __call__(
        self,
        sample_collection: Any,
        pred_field: str | None = None,
        gt_field: str | None = None,
        eval_key: str | None = None,
        classes: Sequence[str] | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Compare predictions with ground truth by COCO's rules.

        Args:
            sample_collection: a dataset or view of images.
            pred_field: Detections with confidence; by default the field last segmented.
            gt_field: the objects that are there; by default `ground_truth`, or the first other field of objects.
            eval_key: where the App finds FiftyOne's evaluation; by default made from pred_field. An earlier one is replaced.
            classes: evaluate these alone; by default all in either field.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds COCO's figures (`mask_ap`,
            `mask_ap50`, …, `box_ap`, …), `fiftyone_mask_ap`, `num_images`, `num_ground_truth`, `num_predictions`, `eval_key`,
            `per_class` (class, mask AP, box AP), `num_skipped` and `skipped` (the first hundred: path and reason),
            `num_left_out` and `left_out` (the first hundred labels: path, id and reason), `without_references` (classes of
            ground truth that the predictions' run had no reference of) and `remarks`.
        """
        return self.call(locals())


def evaluate(ctx: Any, images: Any, pred_field: str, gt_field: str) -> Work[Result]:
    """Evaluate as the form says."""
    from refseg.evaluation import iter_evaluate

    report = yield from iter_evaluate(
        images,
        pred_field,
        gt_field,
        eval_key=ctx.params.get("eval_key") or None,
        classes=chosen_classes(ctx),
    )
    return {
        **{name: getattr(report, name) for name in FIGURES},
        "per_class": [[name, scores["mask_ap"], scores["box_ap"]] for name, scores in report.per_class.items()],
        "num_skipped": len(report.skipped),
        "skipped": [list(pair) for pair in report.skipped[:SKIPS_IN_RESULT]],
        "num_left_out": len(report.left_out),
        "left_out": [list(entry) for entry in report.left_out[:SKIPS_IN_RESULT]],
        "without_references": list(report.without_references),
        "remarks": [*report.notes, *([report.hint] if report.hint else [])],
    }


def show_evaluation(ctx: Any, result: Result, text: str) -> Iterator[Any]:
    """Messages that show an evaluation in the App."""
    yield ctx.ops.reload_dataset()
    if result["eval_key"] is not None:
        yield ctx.ops.open_panel(EVALUATION_PANEL)
    doubtful = result["num_skipped"] or result["num_left_out"] or result["remarks"]
    yield ctx.ops.notify(text, variant="warning" if doubtful else "success")


def describe(result: Result) -> str:
    """One or two sentences on the figures."""
    masks = [f"mask AP {_figure(result['mask_ap'])} (AP50 {_figure(result['mask_ap50'])})"]
    figures = ", ".join([*(masks if result["mask_ap"] is not None else []), f"box AP {_figure(result['box_ap'])}"])
    text = f"{figures} on {count(result['num_images'], 'image')}."
    if result["eval_key"] is not None:
        text += f" Evaluation {result['eval_key']!r}."
    if result["num_skipped"]:
        skips = listing([f"{path}: {reason}" for path, reason in result["skipped"]], result["num_skipped"])
        text += f" Left out {count(result['num_skipped'], 'image')}: {skips}."
    if result["num_left_out"]:
        reasons = [f"in {path} {reason} ({label_id})" for path, label_id, reason in result["left_out"]]
        labels = listing(reasons, result["num_left_out"])
        text += f" Left out {count(result['num_left_out'], 'label')}: {labels}."
    if result["without_references"]:
        text += f" Without a reference, so never found: {', '.join(result['without_references'])}."
    return " ".join([text, *result["remarks"]])


def ground_truth_input(form: Form, name: str, pred_field: str | None) -> None:
    """What is really there."""
    ctx = form.ctx
    others = [field for field in object_fields(ctx) if field != pred_field]
    default = default_ground_truth(ctx, pred_field)
    missing = no_objects(ctx)
    if object_fields(ctx):
        missing = f"No field but {pred_field!r} holds objects, so there is nothing to compare the predictions with."
    form.choice(name, others, default, "Ground truth", "The objects that are really there", missing)


def eval_key_input(form: Form) -> None:
    """What the evaluation is called."""
    key = form.value("eval_key")
    problem = None
    if isinstance(key, str) and (not key.isidentifier() or key.startswith("_")):
        problem = f"{key!r} cannot name an evaluation: use letters, digits and underscores, and begin with a letter."
    description = "What the evaluation is called; by default made from the predictions' field. An earlier one is replaced."
    form.text("eval_key", None, "Evaluation", description, problem)


def default_predictions(ctx: Any) -> str | None:
    """The field last segmented, or any of detections besides ground truth."""
    others = [field for field in object_fields(ctx, (fo.Detections,)) if field != REFERENCE_FIELD]
    return next(iter([*segmented_fields(ctx), *others]), None)


def default_ground_truth(ctx: Any, pred_field: str | None) -> str | None:
    """`ground_truth`, or the first other field of objects."""
    fields = [field for field in object_fields(ctx) if field != pred_field]
    return REFERENCE_FIELD if REFERENCE_FIELD in fields else next(iter(fields), None)


def _prediction_input(form: Form) -> None:
    ctx = form.ctx
    fields = object_fields(ctx, (fo.Detections,))
    missing = f"No field of dataset {ctx.dataset.name!r} holds detections: run 'Segment' first."
    form.choice("pred_field", fields, default_predictions(ctx), "Predictions", "Detections with a confidence", missing)


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
