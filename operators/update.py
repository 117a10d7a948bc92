"""Learn from what was tagged and reviewed, and segment again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators.types as types

from . import segment
from .forms.constants import NEGATIVE_TAG, REFERENCE_TAG, REJECTED_FIELD
from .forms.fields import segmented_fields
from .forms.form import Form
from .forms.inputs import calibrates_input, negative_tag_input, tag_input
from .forms.messages import count, listing
from .forms.selection import target_images
from .running.base import RefSegOperator, Result, Work


class Update(RefSegOperator):
    """Rebuilds a field's prototypes from the present references and negatives, and segments its images again."""

    title = "Update predictions"
    summary = "Learn from what is tagged as reference and as negative now, and segment again"
    kept_when_cancelled = "prototypes that were finished and the predictions written so far are kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which predictions, and what marks references and negatives."""
        description = "Learn from the present references and negatives, and segment the same images again"
        form = Form(ctx, "Update predictions", description, action="Update")
        if form.usable:
            known = segmented_fields(ctx)
            missing = f"The dataset {ctx.dataset.name!r} holds no predictions yet: run 'Segment' first."
            description = "The settings of its last run are kept"
            form.choice("label_field", known, known[0] if known else None, "Predictions", description, missing)
            tag_input(form)
            negative_tag_input(form)
            if form.value("negative_tag", NEGATIVE_TAG) == form.value("tag", REFERENCE_TAG):
                form.obstacle("same_tag", "References and negatives need different tags.")
            calibrates_input(form)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Build, keep, segment."""
        from refseg.runs import TagSettings, iter_update

        tags = TagSettings(
            (ctx.params.get("tag") or REFERENCE_TAG).strip(),
            (ctx.params.get("negative_tag") or NEGATIVE_TAG).strip(),
            ctx.params.get("rejected_field") or REJECTED_FIELD,
        )
        report = yield from iter_update(
            target_images(ctx),
            ctx.params.get("label_field") or segmented_fields(ctx)[0],
            tags,
            calibrates=bool(ctx.params.get("calibrates", True)),
        )
        return {
            "prototypes": report.prototypes_name,
            "classes": list(report.classes),
            "classes_added": list(report.classes_added),
            "classes_dropped": list(report.classes_dropped),
            "references_added": list(report.references_added),
            "references_removed": list(report.references_removed),
            "negatives_added": list(report.negatives_added),
            "negatives_removed": list(report.negatives_removed),
            "num_mined": report.num_mined,
            "reused": report.num_reused,
            "skipped": [list(pair) for pair in report.skipped],
            "dropped_confidences": [list(pair) for pair in report.dropped_confidences.items()],
            "growth": None if report.growth is None else list(report.growth),
            "interrupted_run": report.interrupted_run,
            "segmentation": segment.result_of(report.segmentation),
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new predictions; say what was learned and what changed."""
        yield ctx.ops.reload_dataset()
        warns = result["skipped"] or result["classes_dropped"] or result["dropped_confidences"]
        variant = "warning" if warns else segment.variant(result["segmentation"])
        yield ctx.ops.notify(describe(result), variant=variant)

    def __call__(
        self,
        sample_collection: Any,
        label_field: str | None = None,
        tag: str = REFERENCE_TAG,
        negative_tag: str = NEGATIVE_TAG,
        rejected_field: str = REJECTED_FIELD,
        calibrates: bool = True,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Learn from what is tagged now, and segment again the images that the runs of a field were asked for.

        Args:
            sample_collection: a dataset or view of images; those that no run was asked for are left alone.
            label_field: of the predictions; by default the one that the latest run wrote.
            tag: of references, on labels or on whole samples.
            negative_tag: of negatives, on labels.
            rejected_field: whose labels are never references.
            calibrates: learn what scores mean from the images of references and those tagged `known_empty`, and make
                negatives of what is taken for a class in the latter; images that are not indexed are computed.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `prototypes` (their name),
            `classes`, `classes_added`, `classes_dropped`, `references_added`, `references_removed`, `negatives_added`,
            `negatives_removed` (ids), `num_mined` (negatives from images known to be empty), `reused` (how many references and
            negatives had not changed), `skipped` (pairs of an id and a reason), `dropped_confidences` (pairs of a class and a
            least score that counts no more, because scores mean something else now), `growth` (other images in the index before
            and now, where it has grown by half, or None), `interrupted_run` (key of the last run where its process ended before
            it did, or None) and `segmentation`, the result of the operator `segment`.
        """
        return self.call(locals())


def describe(result: Result) -> str:
    """A few sentences on what was learned and what changed."""
    parts = [
        f"{count(len(result[f'{kind}s_{change}']), kind)} {change}"
        for kind in ("reference", "negative")
        for change in ("added", "removed")
        if result[f"{kind}s_{change}"]
    ]
    text = f"Prototypes {result['prototypes']!r}: {', '.join(parts) if parts else 'the same references and negatives'}."
    if result["num_mined"]:
        text += f" {count(result['num_mined'], 'negative')} from images known to be empty."
    if result["classes_added"]:
        text += f" New: {listing(list(map(repr, result['classes_added'])))}."
    if result["classes_dropped"]:
        text += f" Without references now, so no longer looked for: {listing(list(map(repr, result['classes_dropped'])))}."
    if result["skipped"]:
        reasons = listing([f"{reason} ({label_id})" for label_id, reason in result["skipped"]])
        text += f" Left out {count(len(result['skipped']), 'reference')}: {reasons}."
    if result["dropped_confidences"]:
        chosen = listing([f"{name} {least:g}" for name, least in result["dropped_confidences"]])
        text += f" Least scores that count no more, because scores mean something else now: {chosen}."
    if result["growth"]:
        before, now = result["growth"]
        text += f" The index has grown from {before:,} other images to {now:,}, and scores may have moved."
    if result["interrupted_run"]:
        text += f" The last run, {result['interrupted_run']!r}, was interrupted; its images are answered now."
    return f"{text} {segment.describe(result['segmentation'])}"
