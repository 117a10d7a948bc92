"""Find what is like the selected objects, without prototypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import NUM_SIMILAR, SIMILAR_FIELD, SIMILAR_METHOD
from .forms.form import Form, object_fields
from .forms.indexes import index_records
from .forms.inputs import no_index
from .forms.messages import count
from .forms.selection import all_images, collection, images_of, picked_label_ids
from .running.base import RefSegOperator, Result, Work, came_from_app
from .running.in_app import show_fields


class FindSimilar(RefSegOperator):
    """Shows the candidates most like the selected objects."""

    title = "Find similar"
    summary = "Show the objects of the indexed images that are most like the selected ones"
    may_be_delegated = False

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button beside an open image, where labels are selected."""
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, types.Button(label="Find similar", prompt=True))

    def resolve_input(self, ctx: Any) -> types.Property:
        """What is selected, how many, and where they go."""
        form = Form(ctx, "Find similar", "Show the candidates most like the selected objects, or most like their mean")
        if form.usable:
            _selection_line(form)
            form.number("k", NUM_SIMILAR, "How many", "Candidates to show", 1, whole=True)
            _field_input(form)
            _model_input(form)
            if came_from_app(ctx) and ctx.view._stages and not ctx.view._is_patches:
                form.switch("in_view", False, "In this view alone", "Look in the images of the current view, not in all images")
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Search, and write what was found."""
        from refseg.runs import iter_find_similar

        report = yield from iter_find_similar(
            images_of(ctx, ctx.flatten_group_slices(images_of(ctx, ctx.view)))
            if ctx.params.get("in_view")
            else all_images(ctx),
            picked_label_ids(ctx, object_fields(ctx)),
            int(ctx.params.get("k") or NUM_SIMILAR),
            label_field=ctx.params.get("label_field") or SIMILAR_FIELD,
            model=ctx.params.get("model") or None,
        )
        return {
            "label_field": report.label_field,
            "num_found": report.num_found,
            "label_ids": list(report.label_ids),
            "scores": list(report.scores),
            "num_left_out": report.num_left_out,
            "label": report.label,
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the candidates as patches, best first, each with its similarity; say how alike they are."""
        from refseg.runs import SimilarReport, similar_patches

        yield ctx.ops.reload_dataset()
        yield ctx.ops.close_sample()
        report = SimilarReport(
            result["label_field"],
            result["num_found"],
            tuple(result["label_ids"]),
            tuple(result["scores"]),
            result["num_left_out"],
            result["label"],
        )
        yield ctx.ops.set_view(view=similar_patches(collection(ctx), report))
        yield show_fields(ctx, [report.label_field, f"{report.label_field}.confidence"])
        yield ctx.ops.notify(describe(result), variant="warning" if result["num_left_out"] else "success")

    def __call__(
        self,
        sample_collection: Any,
        label_ids: Sequence[str],
        k: int = NUM_SIMILAR,
        label_field: str = SIMILAR_FIELD,
        model: str | None = None,
    ) -> Any:
        """Find the candidates most like some objects; `refseg.find_similar` returns them as patches.

        Args:
            sample_collection: a dataset or view of images to look in; those not indexed are left out.
            label_ids: the objects, from whatever fields and images of the dataset.
            k: how many candidates.
            label_field: where to write them; a new field, or one that an earlier search wrote.
            model: of the index to search; by default that of the index used last.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `label_field`, `num_found`,
            `label_ids` (of the detections written, most similar first), `scores` (their cosine similarity), `num_left_out`
            (images that are not indexed) and `label` (class of the objects, None where they are of several).
        """
        return self.call(locals(), in_view=True)


def describe(result: Result) -> str:
    """One or two sentences on what was found."""
    text = "Nothing was found."
    if result["num_found"]:
        best, worst = result["scores"][0], result["scores"][-1]
        text = f"{count(result['num_found'], 'candidate')}, the most similar first: similarity {best:.2f} to {worst:.2f}."
    if result["num_left_out"]:
        text += f" Left out {count(result['num_left_out'], 'image')} not indexed: run 'Build index' to see them too."
    return text


def _selection_line(form: Form) -> None:
    ids = picked_label_ids(form.ctx, object_fields(form.ctx))
    if ids:
        form.notice("selection", f"Selected: {count(len(ids), 'object')}")
    else:
        form.obstacle("selection", "No object is selected: select one in an image, or patches in the grid.")


def _field_input(form: Form) -> None:
    dataset = form.ctx.dataset
    own = {dataset.get_run_info(key).config.label_field for key in dataset.list_runs(method=SIMILAR_METHOD)}
    field = form.value("label_field", SIMILAR_FIELD)
    problem = None
    if isinstance(field, str) and (not field.isidentifier() or field.startswith("_")):
        problem = f"{field!r} cannot name a field: use letters, digits and underscores, and begin with a letter."
    elif isinstance(field, str) and collection(form.ctx).get_field(field) is not None and field not in own:
        problem = f"The field {field!r} was not written by 'Find similar', and would be cleared: choose another name."
    description = "A new field, or one of an earlier search, whose content is replaced"
    form.text("label_field", SIMILAR_FIELD, "Field", description, problem, sorted(own))


def _model_input(form: Form) -> None:
    models = list(dict.fromkeys(record.model for record in reversed(index_records(form.ctx))))
    if len(models) != 1 or form.value("model", models[0]) != models[0]:
        default = next(iter(models), None)
        form.choice("model", models, default, "Model", "Of the index to search", no_index(form.ctx))
