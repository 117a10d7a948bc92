"""Tag the labels selected in the App as references, or take the tag off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from .base import RefSegOperator, Result, Work, came_from_app
from .constants import REFERENCE_TAG
from .forms import Form, reference_field, reference_field_input, tag_input
from .messages import count
from .selection import all_images, labels_path, selected_label_ids, target_images


class TagReferences(RefSegOperator):
    """Marks objects that show what a class looks like."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name, label and how it may run."""
        return foo.OperatorConfig(
            name="tag_references",
            label="Tag references",
            description="Tag the selected labels as references, or take the tag off",
            dynamic=True,
            execute_as_generator=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button beside an open image, where labels are selected."""
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, types.Button(label="Tag references", prompt=True))

    def resolve_input(self, ctx: Any) -> types.Property:
        """Field, tag, and whether to take it off."""
        form = Form(ctx, "Tag references", "Mark the selected objects as examples of what to look for")
        if form.usable:
            help_text = "Where the objects are. Select labels in an image, or select images or patches in the grid."
            reference_field_input(form, "Field", help_text)
            _selection_notice(form)
            tag_input(form)
            form.switch("untag", False, "Remove", "Take the tag off instead")
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Add the tag, or take it off."""
        from refseg.progress import Progress

        field = ctx.params.get("field") or reference_field(ctx)
        tag = (ctx.params.get("tag") or REFERENCE_TAG).strip()
        untag = bool(ctx.params.get("untag", False))
        yield Progress(0, 1, "tagging")
        chosen = _chosen_labels(ctx, field)
        # Counted before, because a view that selects by tag holds other labels afterwards.
        num_labels = int(chosen.count(labels_path(ctx.dataset, field)))
        if untag:
            chosen.untag_labels(tag, label_fields=field)
        else:
            chosen.tag_labels(tag, label_fields=field)
        yield Progress(1, 1, "tagging")
        return {"field": field, "tag": tag, "num_labels": num_labels, "untagged": untag}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new tags and say how many."""
        yield ctx.ops.reload_samples()
        did = "Took the tag {!r} off {}." if result["untagged"] else "Tagged as {!r}: {}."
        yield ctx.ops.notify(did.format(result["tag"], count(result["num_labels"], "object")), variant="success")

    def __call__(
        self,
        sample_collection: Any,
        field: str | None = None,
        label_ids: Sequence[str] | None = None,
        tag: str = REFERENCE_TAG,
        untag: bool = False,
    ) -> Any:
        """Tag objects as references.

        Args:
            sample_collection: a dataset or view of images.
            field: of the objects; by default `ground_truth`, or the only field of objects.
            label_ids: the objects; by default every object of the field in the collection.
            tag: the tag.
            untag: take the tag off instead.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `field`, `tag`,
            `num_labels` and `untagged`.
        """
        ids = None if label_ids is None else list(label_ids)
        return self.call(sample_collection, {"field": field, "label_ids": ids, "tag": tag, "untag": untag})


def _selection_notice(form: Form) -> None:
    """Says what will be tagged; in the App a selection is needed, so that no click tags a whole dataset."""
    ctx = form.ctx
    field = form.value("field", reference_field(ctx))
    ids = selected_label_ids(ctx, field)
    if ids is not None:
        chosen = f"Selected: {count(len(ids), 'object')}"
    elif ctx.selected and not ctx.view._is_patches:
        chosen = f"Selected: every object in {count(len(ctx.selected), 'image')}"
    elif came_from_app(ctx):
        problem = f"Nothing is selected in the field {field!r}: select labels in an image, or images in the grid."
        form.inputs.view("selection", types.Error(label=problem), invalid=True, error_message=problem)
        return
    else:
        return
    form.inputs.view("selection", types.Notice(label=chosen))


def _chosen_labels(ctx: Any, field: str) -> Any:
    ids = selected_label_ids(ctx, field)
    if ids is not None:
        return all_images(ctx).select_labels(ids=ids, fields=field)
    if ctx.selected:
        return all_images(ctx).select(ctx.selected)
    return target_images(ctx)
