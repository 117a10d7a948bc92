"""Find and segment the objects of kept prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from .base import RefSegOperator, Result, Work
from .constants import LABEL_FIELD, MAX_DETECTIONS, SKIPS_IN_RESULT
from .forms import Form, kept_prototypes, label_field_input, limits_inputs
from .messages import count, listing
from .selection import target_images


class Segment(RefSegOperator):
    """Writes instances with masks and scores to a field."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name, label and how it may run."""
        return foo.OperatorConfig(
            name="segment",
            label="Segment",
            description="Find and segment the objects that prototypes were built for",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which prototypes, where to write, and what counts."""
        form = Form(ctx, "Segment", "Find and segment the prototypes' classes in every image", action="Segment")
        if form.usable:
            kept = kept_prototypes(ctx)
            missing = f"The dataset {ctx.dataset.name!r} keeps no prototypes yet: run 'Build prototypes' first."
            newest = kept[-1] if kept else None
            form.choice("prototypes", kept, newest, "Prototypes", "What to look for", missing)
            label_field_input(form)
            limits_inputs(form, MAX_DETECTIONS)
            form.text("semantic_field", None, "Semantic map", "Also write one map of classes an image to this field; optional")
            form.text("mask_dir", None, "Mask folder", "Write masks to files here, not into the database; optional")
            _run_key_input(form)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Segment with the prototypes chosen, by default the newest."""
        name = ctx.params.get("prototypes") or kept_prototypes(ctx)[-1]
        result: Result = yield from segment(ctx, target_images(ctx), name)
        return result

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new field; say how much was found and what was skipped."""
        yield ctx.ops.reload_dataset()
        yield ctx.ops.notify(describe(result), variant="warning" if result["num_skipped"] else "success")

    def __call__(
        self,
        sample_collection: Any,
        prototypes: str | None = None,
        label_field: str = LABEL_FIELD,
        min_confidence: float | None = None,
        max_detections: int = MAX_DETECTIONS,
        semantic_field: str | None = None,
        mask_dir: str | None = None,
        run_key: str | None = None,
        overwrite_labels: bool = False,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Find and segment the prototypes' classes in every image.

        Args:
            sample_collection: a dataset or view of images.
            prototypes: the name under which the dataset keeps them; by default the newest.
            label_field: where to write; a new field, or one that an earlier run wrote.
            min_confidence: lower scores are not written; by default the preset's.
            max_detections: the best so many of each image.
            semantic_field: also write a `Segmentation` map here.
            mask_dir: write masks to files under this folder instead of into the database.
            run_key: of the FiftyOne run; by default made from the field's name.
            overwrite_labels: write to label_field even if its labels are not RefSeg's; those of the images are lost.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `run_key`, `label_field`,
            `num_images`, `num_instances`, `num_skipped`, `skipped` (the first hundred: sample id, path, reason) and `seconds`.
        """
        params = {
            "prototypes": prototypes,
            "label_field": label_field,
            "min_confidence": min_confidence,
            "max_detections": max_detections,
            "semantic_field": semantic_field,
            "mask_dir": mask_dir,
            "run_key": run_key,
            "overwrite_labels": overwrite_labels,
        }
        return self.call(sample_collection, params, delegate, delegation_target)


def segment(ctx: Any, images: Any, prototypes: str) -> Work[Result]:
    """Segment as the form says.

    Args:
        ctx: FiftyOne's execution context.
        images: a view of images.
        prototypes: the name of those to look for.
    """
    from refseg.runs import SegmentSettings, iter_segment

    chosen = ctx.params.get("min_confidence")
    settings = SegmentSettings(
        None if chosen in (None, "") else float(chosen),
        int(ctx.params.get("max_detections") or MAX_DETECTIONS),
        ctx.params.get("mask_dir") or None,
        ctx.params.get("semantic_field") or None,
    )
    report = yield from iter_segment(
        images,
        prototypes,
        ctx.params.get("label_field") or LABEL_FIELD,
        settings=settings,
        run_key=ctx.params.get("run_key") or None,
        # The App's server has many threads, of which a fork would copy the locks; a delegated job has a process of its own.
        num_workers=None if ctx.delegated else 0,
    )
    return {
        "run_key": report.run_key,
        "label_field": report.label_field,
        "num_images": report.num_images,
        "num_instances": report.num_instances,
        "num_skipped": len(report.skipped),
        "skipped": [[image.sample_id, image.filepath, image.reason] for image in report.skipped[:SKIPS_IN_RESULT]],
        "seconds": round(report.seconds, 3),
    }


def describe(result: Result) -> str:
    """One or two sentences on the predictions."""
    found, images = count(result["num_instances"], "instance"), count(result["num_images"], "image")
    text = f"{found} in {images}, in the field {result['label_field']!r} (run {result['run_key']!r})."
    if result["num_skipped"]:
        skips = listing([f"{path}: {reason}" for _, path, reason in result["skipped"]], result["num_skipped"])
        text += f" Skipped {count(result['num_skipped'], 'image')}: {skips}."
    return text


def _run_key_input(form: Form) -> None:
    key = form.value("run_key")
    problem = None
    if isinstance(key, str) and not key.isidentifier():
        problem = f"{key!r} cannot name a run: use letters, digits and underscores, and begin with a letter."
    elif isinstance(key, str) and form.ctx.dataset.has_run(key):
        problem = f"The dataset has a run named {key!r} already: choose another name."
    form.text("run_key", None, "Run", "Under which settings and skipped images are kept; optional", problem)
