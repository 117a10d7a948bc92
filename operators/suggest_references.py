"""Find predictions that can be taken as references as they are; they are kept for the panel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import ACCEPTED_FIELD, NUM_SUGGESTED, REJECTED_FIELD, SUGGESTED_STORE
from .forms.form import Form
from .forms.indexes import find_record
from .forms.messages import count
from .forms.selection import all_images, target_images
from .review import decided_field, predicted_fields
from .running.base import RefSegOperator, Result, Work, came_from_app


class SuggestReferences(RefSegOperator):
    """Suggests predictions that are, of all, the most like a reference of their class."""

    title = "Suggest references"
    summary = "Find predictions that could be references as they are: of all predictions the most like a reference"
    kept_when_cancelled = "nothing was suggested"
    risk = types.RiskLevel.LOW

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which predictions, and how many."""
        form = Form(
            ctx,
            "Suggest references",
            "Find predictions that could be references: each is, of all predictions, the most like the reference that "
            "it is most like itself. Nothing is accepted by this.",
            "Suggest from",
        )
        if form.usable:
            names = predicted_fields(ctx)
            missing = f"The dataset {ctx.dataset.name!r} holds no predictions yet: run 'Segment' first."
            default = decided_field(ctx, names)
            form.choice("field", names, default, "Predictions", "The field that holds them", missing)
            form.number("per_class", NUM_SUGGESTED, "How many", "Of each class, at most", 1, whole=True)
            form.text("accepted_field", ACCEPTED_FIELD, "Accepted", "The field of objects that are accepted already")
            _index_line(form, form.value("field", default))
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Compare predictions with references, and keep what is suggested."""
        from refseg.dataset import newest_run
        from refseg.review import iter_suggest_references

        field = ctx.params.get("field") or decided_field(ctx, predicted_fields(ctx))
        found = yield from iter_suggest_references(
            target_images(ctx),
            field,
            per_class=int(ctx.params.get("per_class") or NUM_SUGGESTED),
            accepted_field=ctx.params.get("accepted_field") or ACCEPTED_FIELD,
            rejected_field=REJECTED_FIELD,
        )
        rows = [asdict(item) for item in found]
        run = newest_run(ctx.dataset, field)
        ctx.store(SUGGESTED_STORE).set(field, {"run": None if run is None else run.key, "rows": rows})
        return {"field": field, "num_found": len(rows), "suggestions": rows}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show them as patches where somebody filled the form, and say how many there are."""
        rows = result["suggestions"]
        if rows and came_from_app(ctx):
            images = all_images(ctx).select(sorted({row["sample_id"] for row in rows}))
            patches = images.to_patches(result["field"]).select([row["label_id"] for row in rows], ordered=True)
            yield ctx.ops.set_view(view=patches)
        yield ctx.ops.notify(describe(result), variant="success" if rows else "info")

    def __call__(
        self,
        sample_collection: Any,
        field: str | None = None,
        per_class: int = NUM_SUGGESTED,
        accepted_field: str = ACCEPTED_FIELD,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Suggest predictions as references; `refseg.suggest_references` says what is suggested. `review` accepts them.

        Args:
            sample_collection: a dataset or view of images to suggest from.
            field: that holds the predictions; by default that of the selection, else `predictions`, else the one that
                the latest run wrote.
            per_class: at most so many of a class.
            accepted_field: where accepted predictions are; they are not suggested.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `field`, `num_found` and
            `suggestions`, the best score first, each with `label_id`, `sample_id`, `label`, `score`, `similarity`,
            `reference_id` and `reason`.
        """
        return self.call(locals())


def describe(result: Result) -> str:
    """One sentence on what was found."""
    if not result["num_found"]:
        return "No prediction is sure enough to be suggested as a reference."
    classes = {row["label"] for row in result["suggestions"]}
    return f"{count(result['num_found'], 'suggested reference')} of {count(len(classes), 'class')}: use those that are right."


def _index_line(form: Form, field: Any) -> None:
    from refseg.dataset import newest_run

    run = newest_run(form.ctx.dataset, field) if isinstance(field, str) else None
    if run is not None and "model" in run.config and find_record(form.ctx, str(run.config["model"]), borrows=True) is None:
        model = run.config["model"]
        form.obstacle(
            "index", f"Predictions are compared by the index, and there is none for {model!r}: run 'Build index' first."
        )
