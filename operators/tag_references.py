"""Tag the labels selected in the App as references or negatives, or take the tag off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types
from fiftyone import ViewField as F

from .forms.constants import NEGATIVE_TAG, REFERENCE_TAG
from .forms.form import Form
from .forms.inputs import reference_field, reference_field_input
from .forms.messages import count
from .forms.selection import all_images, collection, labels_path, selected_label_ids, target_images
from .running.base import RefSegOperator, Result, Work, came_from_app


class TagReferences(RefSegOperator):
    """Marks objects that show what a class looks like, or what is wrongly taken for it.

    Predictions are copied, references to the accepted field and negatives to the rejected one: the next run replaces them.
    """

    title = "Tag references"
    summary = "Tag the selected labels as references or negatives, or take the tag off"
    may_be_delegated = False
    risk = types.RiskLevel.LOW

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button beside an open image, where labels are selected."""
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, types.Button(label="Tag references", prompt=True))

    def resolve_input(self, ctx: Any) -> types.Property:
        """Field, kind, tag, and whether to take it off."""
        form = Form(ctx, "Tag references", "Mark the selected objects as examples of what to look for, or of what it is not")
        if form.usable:
            help_text = "Where the objects are. Select labels in an image, or select images or patches in the grid."
            reference_field_input(form, "Field", help_text)
            _selection_notice(form)
            description = "They show what their class is not or, with a name that no class has, what no class is"
            form.switch("negative", False, "As negatives", description)
            _tag_input(form)
            form.switch("untag", False, "Remove", "Take the tag off instead")
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Add the tag, or take it off."""
        from refseg.errors import DatasetError
        from refseg.progress import Progress

        field = ctx.params.get("field") or reference_field(ctx)
        negative = bool(ctx.params.get("negative", False))
        tag = (ctx.params.get("tag") or _usual_tag(negative)).strip()
        untag = bool(ctx.params.get("untag", False))
        yield Progress(0, 1, "tagging")
        chosen = _chosen_labels(ctx, field)
        if not untag and not chosen.count(labels_path(collection(ctx), field)):
            raise DatasetError(_nothing_to_tag(ctx, field))
        if not untag and _is_predicted(ctx, field):
            chosen, field = _copy(ctx, chosen, field, negative, tag)
        # Counted before, because a view that selects by tag holds other labels afterwards.
        num_labels = int(chosen.count(labels_path(collection(ctx), field)))
        if untag:
            chosen.untag_labels(tag, label_fields=field)
        else:
            chosen.tag_labels(tag, label_fields=field)
            if tag == _usual_tag(negative):
                # An object cannot be both: building prototypes refuses it.
                chosen.untag_labels(_usual_tag(not negative), label_fields=field)
        yield Progress(1, 1, "tagging")
        return {"field": field, "tag": tag, "num_labels": num_labels, "untagged": untag}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new tags and say how many, and where they are."""
        copied = result["field"] != (ctx.params.get("field") or reference_field(ctx))
        # Copies may have made a new field.
        yield ctx.ops.reload_dataset() if copied else ctx.ops.reload_samples()
        did = "Took the tag {!r} off {}." if result["untagged"] else "Tagged as {!r}: {}."
        text = did.format(result["tag"], count(result["num_labels"], "object"))
        if copied:
            text += f" They are copies in the field {result['field']!r}, because the next run replaces the predictions."
        yield ctx.ops.notify(text, variant="success")

    def __call__(
        self,
        sample_collection: Any,
        field: str | None = None,
        label_ids: Sequence[str] | None = None,
        tag: str | None = None,
        untag: bool = False,
        negative: bool = False,
    ) -> Any:
        """Tag objects as references or negatives.

        Predictions are not tagged but copied, as `review` does when it accepts or rejects them: the next run replaces them.

        Args:
            sample_collection: a dataset or view of images.
            field: of the objects; by default `ground_truth`, or the only field of objects.
            label_ids: the objects; by default every object of the field in the collection.
            tag: the tag; by default `reference`, for negatives `negative`.
            untag: take the tag off instead.
            negative: the objects show what their class is not.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `field`, `tag`,
            `num_labels` and `untagged`; where predictions were copied, of the copies.
        """
        return self.call(locals())


def _usual_tag(negative: bool) -> str:
    return NEGATIVE_TAG if negative else REFERENCE_TAG


def _tag_input(form: Form) -> None:
    usual = _usual_tag(bool(form.value("negative", False)))
    tag = form.value("tag", usual)
    problem = None if not isinstance(tag, str) or tag.strip() else "The tag must not be blank."
    form.text("tag", None, "Tag", f"The label tag; {usual!r} where it is left empty", problem)


def _is_predicted(ctx: Any, field: str) -> bool:
    from refseg.dataset import prediction_fields

    return field in prediction_fields(ctx.dataset)


def _nothing_to_tag(ctx: Any, field: str) -> str:
    where = f"the field {field!r} of dataset {ctx.dataset.name!r}"
    if selected_label_ids(ctx, field) is not None:
        return f"None of the objects chosen is in {where}: it may have changed meanwhile, so choose among the present ones."
    return f"The images chosen hold no object in {where}: choose other images or another field."


def _copy(ctx: Any, chosen: Any, field: str, negative: bool, tag: str) -> tuple[Any, str]:
    """Copy predictions to where tags last; returns the copies and the field that holds them."""
    from refseg.review import accept, reject

    ids, samples = chosen.values([f"{labels_path(collection(ctx), field)}.id", "id"])
    predictions = [label_id for own in ids for label_id in own or ()]
    if negative:
        decision = reject(collection(ctx), predictions, field, sample_ids=samples)
    else:
        decision = accept(collection(ctx), predictions, field, as_references=tag == REFERENCE_TAG, sample_ids=samples)
    where = decision.rejected_field if negative else decision.accepted_field
    copies = all_images(ctx).select(samples).filter_labels(where, F("prediction_id").is_in(predictions))
    return copies, where


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
