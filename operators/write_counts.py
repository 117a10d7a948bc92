"""Write how many objects of each class are in each image, and how large they are, as fields to filter and plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from .forms.fields import segmented_fields
from .forms.form import Form, object_fields
from .forms.inputs import no_objects
from .forms.messages import count, listing
from .forms.selection import chosen_classes, target_images
from .running.base import RefSegOperator, Result, Work

CLASSES_TOLD = 6
NOTES_IN_RESULT = 100


class WriteCounts(RefSegOperator):
    """Counts the objects of a field, and adds their areas up."""

    title = "Count objects"
    summary = "Write how many objects of each class each image holds, and their total area, as fields to filter and plot"
    kept_when_cancelled = "the images that are counted keep their numbers"
    risk = types.RiskLevel.LOW

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which objects, and what is written of them."""
        form = Form(
            ctx,
            "Count objects",
            "Write how many objects of each class each image holds, and their total area, in pixels and as a share of the "
            "image. The sidebar filters by these numbers, and the panel Histograms plots them. Images without objects get 0.",
            action="Count",
        )
        if form.usable:
            default = default_counted(ctx)
            form.choice("field", object_fields(ctx), default, "Objects", "The field whose objects are counted", no_objects(ctx))
            form.number(
                "min_confidence", None, "Least confidence", "Count objects from this confidence on; empty for all", 0, 1
            )
            form.names("classes", "Classes", "Count these alone; leave it empty for every class")
            form.switch("areas", True, "Areas", "Also add up areas, of masks or else of boxes; without, it is quicker")
            _prefix_input(form, form.value("field", default))
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Count."""
        from refseg.evaluation import iter_write_counts

        report = yield from iter_write_counts(
            target_images(ctx),
            ctx.params.get("field") or default_counted(ctx),
            min_confidence=ctx.params.get("min_confidence"),
            classes=chosen_classes(ctx),
            areas=bool(ctx.params.get("areas", True)),
            prefix=ctx.params.get("prefix") or None,
        )
        return {
            "field": report.field,
            "fields": list(report.fields),
            "num_images": report.num_images,
            "num_without_labels": report.num_without_labels,
            "num_written": report.num_written,
            "num_objects": report.num_objects,
            "classes": [[row.label, row.key, row.num_objects, row.num_images, row.area] for row in report.classes],
            "notes": report.notes()[:NOTES_IN_RESULT],
            "is_doubtful": bool(report.by_box or report.not_measured or report.skipped),
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new fields and say what was counted."""
        yield ctx.ops.reload_dataset()
        yield ctx.ops.notify(describe(result), variant="warning" if result["is_doubtful"] else "success")

    def __call__(
        self,
        sample_collection: Any,
        field: str | None = None,
        min_confidence: float | None = None,
        classes: Sequence[str] | None = None,
        areas: bool = True,
        prefix: str | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Write how many objects of each class each image holds, and their areas; see `refseg.write_counts`.

        Args:
            sample_collection: a dataset or view of images.
            field: whose objects are counted; by default the one last segmented, or the first field of objects.
            min_confidence: count objects from this confidence on, and those without one.
            classes: these alone; numbers of others stay as they are.
            areas: also write the total area of each class, in pixels and as a share of the image.
            prefix: how the new fields' names begin; by default as the counted field is called.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `field`, `fields` (those
            written), `num_images`, `num_without_labels`, `num_written`, `num_objects`, `classes` (class, its key in the fields,
            objects, images, area in pixels), `notes` and `is_doubtful` (whether some areas could not be measured by masks).
        """
        return self.call(locals())


def default_counted(ctx: Any) -> str | None:
    """The field last segmented, or the first of objects."""
    return next(iter([*segmented_fields(ctx), *object_fields(ctx)]), None)


def describe(result: Result) -> str:
    """One or two sentences on what was counted."""
    counted = result["num_images"] - result["num_without_labels"]
    text = (
        f"Counted {count(result['num_objects'], 'object')} in {count(counted, 'image')}, now in {', '.join(result['fields'])}."
    )
    most = sorted(result["classes"], key=lambda row: -row[2])[:CLASSES_TOLD]
    if most:
        text += " " + ", ".join(f"{label}: {number:,}" for label, _, number, _, _ in most)
        rest = len(result["classes"]) - len(most)
        text += f" and {count(rest, 'more class')}." if rest else "."
    if result["notes"]:
        text += f" Note: {listing(result['notes'])}."
    return text


def _prefix_input(form: Form, field: Any) -> None:
    prefix = form.value("prefix")
    problem = None
    if isinstance(prefix, str) and (not prefix.isidentifier() or prefix.startswith("_")):
        problem = f"{prefix!r} cannot begin the names of fields: use letters, digits and underscores, and begin with a letter."
    shown = prefix if isinstance(prefix, str) and problem is None else field
    description = f"The new fields are {shown}_counts, {shown}_areas and {shown}_area_shares"
    form.text("prefix", None, "Names begin with", description, problem)
