"""Show where in images the encoder sees a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types

from .forms.constants import SKIPS_IN_RESULT
from .forms.form import Form
from .forms.inputs import kept_prototypes
from .forms.messages import count, skips
from .forms.selection import collection, target_images
from .inspect_prototypes import classes_of, prototypes_input
from .running.base import RefSegOperator, Result, Work
from .running.in_app import show_fields

DETAILS = {"smooth": "smoothed", "patches": "on the patch grid, as the encoder sees it"}
MANY_IMAGES = 500
"""More take minutes on a CPU, and megabytes of the database: the form says so."""


class ShowHeatmap(RefSegOperator):
    """Writes heatmaps of the similarity to one class."""

    title = "Show heatmap"
    summary = "Show where in images the encoder sees a class of prototypes"
    kept_when_cancelled = "the heatmaps written so far are kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which class, in which images, and where to write."""
        description = "Show how alike each place of an image and a class are; best for some selected images"
        form = Form(ctx, "Show heatmap", description, action="Show it in")
        if form.usable:
            name = prototypes_input(form, "Of which the class is one")
            classes = classes_of(ctx, name) if name is not None else []
            first = classes[0] if classes else None
            if name is not None:
                form.choice("label", classes, first, "Class", "What to look for", "")
            _field_input(form, form.value("label", first))
            form.choice("detail", DETAILS, "smooth", "Drawn", "How the values of patches are drawn", "")
            _amount_line(form)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Compute the heatmaps and write them."""
        from refseg.runs import iter_similarity_heatmap

        name = ctx.params.get("prototypes") or kept_prototypes(ctx)[-1]
        label = ctx.params.get("label") or classes_of(ctx, name)[0]
        report = yield from iter_similarity_heatmap(
            target_images(ctx),
            name,
            label,
            field=ctx.params.get("field") or None,
            smooth=(ctx.params.get("detail") or "smooth") == "smooth",
        )
        return {
            "field": report.field,
            "label": report.label,
            "num_images": report.num_images,
            "value_range": None if report.lowest is None else [report.lowest, report.highest],
            "num_skipped": len(report.skipped),
            "skipped": [[image.sample_id, image.filepath, image.reason] for image in report.skipped[:SKIPS_IN_RESULT]],
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Switch the field on, in colours; say what was skipped."""
        yield ctx.ops.reload_dataset()
        yield show_fields(ctx, [result["field"]], in_colours=result["field"])
        yield ctx.ops.notify(describe(result), variant="warning" if result["num_skipped"] else "success")

    def __call__(
        self,
        sample_collection: Any,
        label: str | None = None,
        prototypes: str | None = None,
        field: str | None = None,
        detail: str = "smooth",
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Write heatmaps of the similarity of each patch of an image and a class.

        Args:
            sample_collection: a dataset or view of images.
            label: the class; by default the first of the prototypes.
            prototypes: the name under which the dataset keeps them; by default the newest.
            field: where to write; by default `heatmap_` and the class's name.
            detail: "smooth", or "patches" for one value a patch, as the encoder sees it.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `field`, `label`,
            `num_images` (that have a heatmap now), `value_range` (the least and the greatest of their values, on a scale from 0
            to 1; None without any), `num_skipped` and `skipped` (the first hundred: sample id, path, reason).
        """
        return self.call(locals())


def describe(result: Result) -> str:
    """One or two sentences on the heatmaps."""
    text = f"Heatmaps of {result['label']!r} for {count(result['num_images'], 'image')} in the field {result['field']!r}"
    if result["value_range"] is not None:
        least, greatest = result["value_range"]
        text += f", from {least:.2f} to {greatest:.2f} on a scale from 0 to 1"
    text += "."
    return text + skips(result["skipped"], result["num_skipped"])


def _field_input(form: Form, label: str | None) -> None:
    field = form.value("field")
    schema = collection(form.ctx).get_field_schema(ftype=fo.EmbeddedDocumentField)
    own = [name for name, entry in schema.items() if entry.document_type is fo.Heatmap]
    problem = None
    if isinstance(field, str) and (not field.isidentifier() or field.startswith("_")):
        problem = f"{field!r} cannot name a field: use letters, digits and underscores, and begin with a letter."
    elif isinstance(field, str) and collection(form.ctx).get_field(field) is not None and field not in own:
        problem = f"The field {field!r} holds something else than heatmaps: choose another, or a new name."
    named = f", by default one named after {label!r}" if label else ""
    form.text("field", None, "Field", f"A new field, or one of heatmaps, replaced in these images{named}", problem, own)


def _amount_line(form: Form) -> None:
    number = len(target_images(form.ctx))
    if number > MANY_IMAGES:
        text = f"{number:,} images go through the encoder, and each keeps its map: select some images, or narrow the view."
        form.warning("amount", text)
    else:
        form.notice("amount", f"{count(number, 'image')}")
