"""Copy accepted objects to a field of ground truth, but for those that are there already; or take that back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types

from .forms.constants import ACCEPTED_FIELD, MERGE_IOU, REFERENCE_FIELD, REJECTED_FIELD
from .forms.form import Form, object_fields
from .forms.messages import count
from .forms.selection import collection, target_images
from .running.base import RefSegOperator, Result, Work

IN_RESULT = 100
MOST_TAKEN_BACK = 50_000
"""Objects that a result names, so that they can be taken back: one of more would not fit into the database."""


class MergeAccepted(RefSegOperator):
    """Makes ground truth of what was accepted."""

    title = "Merge accepted into a field"
    summary = "Copy accepted objects to a field of ground truth, but for those that are there already"
    kept_when_cancelled = "what was merged is kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """From which field to which, and when two objects are one."""
        form = Form(
            ctx,
            "Merge accepted into a field",
            "Copy accepted objects to a field of ground truth. What is there already is not added again; where an object of "
            "another class lies, nothing is added, and you are told. The accepted objects stay.",
            action="Merge",
        )
        if form.usable and ctx.params.get("written") is not None:
            _written_notice(form)
        elif form.usable:
            names = _accepted_fields(ctx)
            default = ACCEPTED_FIELD if ACCEPTED_FIELD in names else None
            missing = f"The dataset {ctx.dataset.name!r} holds no accepted objects yet: accept some predictions first."
            form.choice("accepted_field", names, default, "Accepted", "The field that holds accepted objects", missing)
            _into_input(form, form.value("accepted_field", default))
            _iou_input(form)
            description = "Also add what overlaps an object of another class by so much, such as a part of a whole"
            form.switch("add_conflicting", False, "Add to other classes", description)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Merge, or take a merge back."""
        from refseg.progress import Progress
        from refseg.review import iter_merge_accepted, undo_merge

        if ctx.params.get("written") is not None:
            merged = _from_written(ctx.params["written"])
            yield Progress(0, 1, "taking back")
            number = undo_merge(collection(ctx), merged)
            yield Progress(1, 1, "taking back")
            return {**_result_of(merged), "num_removed": number}
        iou = ctx.params.get("iou")
        report = yield from iter_merge_accepted(
            target_images(ctx),
            ctx.params.get("into") or REFERENCE_FIELD,
            accepted_field=ctx.params.get("accepted_field") or ACCEPTED_FIELD,
            iou=MERGE_IOU if iou is None else iou,
            add_conflicting=bool(ctx.params.get("add_conflicting", False)),
        )
        return {**_result_of(report), "num_removed": None}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the labels and say what was added."""
        # The first merge may make a new field.
        yield ctx.ops.reload_dataset()
        if result["num_removed"] is not None:
            stays = len(result["written"]["added"]) - result["num_removed"]
            text = f"Took {count(result['num_removed'], 'object')} out of {result['into']!r}."
            text += f" {count(stays, 'object')} that somebody has changed or removed since: left alone." if stays else ""
            yield ctx.ops.notify(text, variant="success" if result["num_removed"] else "info")
            return
        doubtful = result["num_conflicting"] or result["num_left_out"]
        variant = "warning" if doubtful else "success" if result["num_added"] else "info"
        yield ctx.ops.notify(result["text"], variant=variant)

    def __call__(
        self,
        sample_collection: Any,
        into: str = REFERENCE_FIELD,
        accepted_field: str = ACCEPTED_FIELD,
        iou: float = MERGE_IOU,
        add_conflicting: bool = False,
        written: Mapping[str, Any] | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Copy accepted objects to a field of ground truth; see `refseg.merge_accepted`.

        Args:
            sample_collection: a dataset or view of images.
            into: a new field, or one of Detections that no run writes to.
            accepted_field: where accepted objects are.
            iou: from which on two objects are one: of their masks where both have one, else of their boxes.
            add_conflicting: add what overlaps an object of another class too.
            written: take a merge back instead: the `written` of its result. Objects that somebody has changed since stay.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `into`, `accepted_field`,
            `num_images`, `num_accepted`, `num_added`, `num_there`, `num_conflicting`, `num_negative`, `num_left_out`, `classes`
            (class and objects added), `conflicts` (the first hundred: sample, accepted label and its class, other label and its
            class, IoU), `left_out` (the first hundred: sample, label, reason), `text`, `written` (None where more than 50,000
            objects were added) and `num_removed` (objects taken back; None where nothing was to be).
        """
        return self.call(locals())


def _result_of(report: Any) -> Result:
    names = (
        "into",
        "accepted_field",
        "num_images",
        "num_accepted",
        "num_added",
        "num_there",
        "num_conflicting",
        "num_negative",
    )
    rows = [[one.sample_id, one.label_id, one.digest] for one in report.added]
    written = {"into": report.into, "accepted_field": report.accepted_field, "added": rows}
    return {
        **{name: getattr(report, name) for name in names},
        "num_left_out": len(report.left_out),
        "classes": [[name, number] for name, number in report.classes.items()],
        "conflicts": [list(asdict(one).values())[:6] for one in report.conflicts[:IN_RESULT]],
        "left_out": [list(entry) for entry in report.left_out[:IN_RESULT]],
        "text": report.describe(),
        "written": written if len(rows) <= MOST_TAKEN_BACK else None,
    }


def _from_written(written: Mapping[str, Any]) -> Any:
    """What was merged, from a result's `written`.

    Raises:
        refseg.errors.DatasetError: it is something else.
    """
    from refseg.errors import DatasetError
    from refseg.review import MergeReport

    try:
        added = [
            {"sample_id": sample_id, "label_id": label_id, "accepted_id": "", "label": "", "digest": digest}
            for sample_id, label_id, digest in written["added"]
        ]
        return MergeReport(written["into"], written["accepted_field"], added)
    except (DatasetError, KeyError, TypeError, ValueError):
        raise DatasetError("To take a merge back, give the 'written' of its result.") from None


def _accepted_fields(ctx: Any) -> list[str]:
    """Fields of detections that may hold accepted objects."""
    from refseg.dataset import prediction_fields

    others = {*prediction_fields(ctx.dataset), REJECTED_FIELD, REFERENCE_FIELD}
    return [name for name in object_fields(ctx, (fo.Detections,)) if name not in others]


def _into_input(form: Form, accepted_field: Any) -> None:
    from refseg.dataset import prediction_fields

    chosen = form.value("into", REFERENCE_FIELD)
    predicted = prediction_fields(form.ctx.dataset)
    existing = collection(form.ctx).get_field(chosen) if isinstance(chosen, str) else None
    problem = None
    if isinstance(chosen, str) and (not chosen.isidentifier() or chosen.startswith("_")):
        problem = f"{chosen!r} cannot name a field: use letters, digits and underscores, and begin with a letter."
    elif chosen == accepted_field:
        problem = "Accepted objects are in this field already: choose another one to merge them into."
    elif chosen in predicted:
        problem = f"The field {chosen!r} holds predictions, which the next run replaces: choose another field."
    elif chosen == REJECTED_FIELD:
        problem = f"The field {chosen!r} holds rejected objects: choose another field."
    elif existing is not None and getattr(existing, "document_type", None) is not fo.Detections:
        problem = f"The field {chosen!r} holds something else than detections: choose another, or a new name."
    known = [
        name for name in object_fields(form.ctx, (fo.Detections,)) if name not in {*predicted, accepted_field, REJECTED_FIELD}
    ]
    description = "A new field, or one of detections: copies of accepted objects go there"
    form.text("into", REFERENCE_FIELD, "Into", description, problem, known)


def _iou_input(form: Form) -> None:
    value = form.value("iou", MERGE_IOU)
    description = "From this IoU on two objects of a class are one, and the accepted one is not added"
    form.number("iou", MERGE_IOU, "Overlap", description, 0, 1)
    if value == 0:
        form.obstacle("no_overlap", "The overlap must be above 0, or every accepted object would count as there already.")


def _written_notice(form: Form) -> None:
    from refseg.errors import DatasetError

    try:
        merged = _from_written(form.ctx.params["written"])
    except DatasetError as error:
        form.obstacle("written", str(error))
    else:
        form.notice("written", f"To be taken out of {merged.into!r}: {count(merged.num_added, 'object')}")
