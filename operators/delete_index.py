"""Delete a candidate index and the dataset's record of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators.types as types

from .forms.form import Form
from .forms.indexes import IndexRecord, index_records
from .forms.inputs import index_input
from .forms.messages import count, duration, listing, size
from .running.base import RefSegOperator, Result, Work
from .running.jobs import running_jobs

USERS = ("build_index", "segment", "segment_with_references", "index_status")
"""Operators that may be using an index while they run."""


class DeleteIndex(RefSegOperator):
    """Gives back the space of an index."""

    title = "Delete index"
    summary = "Delete a candidate index; predictions, prototypes and images stay"
    may_be_delegated = False
    risk = types.RiskLevel.HIGH

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which index, and whether that is meant."""
        form = Form(ctx, "Delete index", "Delete a candidate index. Predictions, prototypes and images stay.")
        if form.usable:
            record = index_input(form, proposes=False)
            if record is not None:
                _confirm_input(form, record)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Delete the index chosen, whatever state it is in."""
        from refseg.dataset import delete_index
        from refseg.progress import Progress

        yield Progress(0, 1, "deleting")
        records = {record.key: record for record in index_records(ctx)}
        record = records[ctx.params.get("index") or next(iter(records))]
        delete_index(ctx.dataset, record.key)
        yield Progress(1, 1, "deleting")
        return {
            "index": record.key,
            "uri": record.uri,
            "model": record.model,
            "exact": record.exact,
            "num_images": record.num_images,
            "num_bytes": record.num_bytes,
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say what is gone."""
        kind = f"{result['model']!r}, near-duplicates kept" if result["exact"] else repr(result["model"])
        text = f"Deleted the index ({kind}) of {count(result['num_images'], 'image')}, {size(result['num_bytes'])}."
        yield ctx.ops.notify(text, variant="success")

    def __call__(self, sample_collection: Any, index: str | None = None) -> Any:
        """Delete a candidate index, without asking. Predictions, prototypes and images stay.

        Args:
            sample_collection: the dataset, or a view of it.
            index: the key of the run that records it; needed where the dataset has several.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `index`, `uri`, `model`,
            `exact`, `num_images` and `num_bytes`, the last two as they were recorded.
        """
        return self.call(locals(), confirm=True)


def _confirm_input(form: Form, record: IndexRecord) -> None:
    number, each = record.num_images, record.seconds_per_image
    description = f"The candidates of {count(number, 'image')}, {size(record.num_bytes)}, for the model {record.model!r}"
    if each:
        description += f"; computing them again takes about {duration(each * number)}"
    problem = None if form.value("confirm", False) else "Tick 'Delete' to confirm."
    form.switch("confirm", False, "Delete", description, problem)
    users = [job.label for job in running_jobs(form.ctx) if job.operator in USERS]
    if users:
        form.warning("in_use", f"May be in use: {listing(users)} is running on this dataset. Cancel it first, or wait.")
