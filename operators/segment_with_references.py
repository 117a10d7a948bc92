"""The whole loop in one job: prototypes from references, masks across the images, figures.

Not a FiftyOne pipeline: one that runs immediately shows no progress, ends after FiftyOne's time limit, and returns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from . import build_prototypes, evaluate, segment
from .forms.constants import LABEL_FIELD, MAX_DETECTIONS, NEGATIVE_TAG, PROTOTYPES_NAME, REFERENCE_TAG
from .forms.fields import label_field_input, presence_field_input
from .forms.form import Form
from .forms.indexes import coverage, find_record
from .forms.inputs import build_inputs
from .forms.matching import limits_inputs, no_probabilities_of_new
from .forms.pixels import pixel_inputs, pixel_params
from .forms.selection import all_images, target_images
from .running.base import RefSegOperator, Result, Work


class SegmentWithReferences(RefSegOperator):
    """Builds prototypes, segments with them and evaluates."""

    title = "Segment with references"
    summary = "Build prototypes from references, segment with them, and evaluate"
    kept_when_cancelled = "the steps that were finished and the predictions written so far are kept"

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button above the grid."""
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, types.Button(label="Segment with references", prompt=True)
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """What the three steps ask, once."""
        form = Form(
            ctx,
            "Segment with references",
            "Find objects like the references in every image. References may lie anywhere in the dataset.",
            action="Segment",
        )
        if form.usable:
            model = build_inputs(form)
            form.notice("coverage", coverage(ctx, find_record(ctx, model, by_files=True, borrows=True)).describe_segment())
            label_field_input(form)
            limits_inputs(form, MAX_DETECTIONS)
            presence_field_input(form, no_probabilities_of_new(form, model))
            pixel_inputs(form, model=model)
            if form.switch("evaluate", True, "Evaluate", "Compare the predictions with ground truth afterwards"):
                evaluate.ground_truth_input(form, "gt_field", form.value("label_field", LABEL_FIELD))
                evaluate.eval_key_input(form)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """The three steps, one after the other; what is done stays done where a later one fails."""
        from refseg.progress import labelled

        steps = 3 if ctx.params.get("evaluate", True) else 2
        images = target_images(ctx)
        built = yield from labelled(build_prototypes.build(ctx, all_images(ctx)), f"1 of {steps}, ")
        found = yield from labelled(segment.segment(ctx, images, built["name"]), f"2 of {steps}, ")
        measured = None
        if steps == 3:
            pred_field = found["label_field"]
            gt_field = ctx.params.get("gt_field") or evaluate.default_ground_truth(ctx, pred_field)
            work = evaluate.evaluate(ctx, images, pred_field, gt_field)
            measured = yield from labelled(work, f"3 of {steps}, ")
        return {"prototypes": built, "segmentation": found, "evaluation": measured}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new field and the figures."""
        built, found, measured = result["prototypes"], result["segmentation"], result["evaluation"]
        text = f"{build_prototypes.describe(built)} {segment.describe(found)}"
        if measured is not None:
            yield from evaluate.show_evaluation(ctx, measured, f"{text} {evaluate.describe(measured)}")
        else:
            yield ctx.ops.reload_dataset()
            yield ctx.ops.notify(text, variant="warning" if built["skipped"] else segment.variant(found))

    def __call__(
        self,
        sample_collection: Any,
        field: str | None = None,
        tag: str | None = REFERENCE_TAG,
        label_ids: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        model: str | None = None,
        name: str = PROTOTYPES_NAME,
        overwrite: bool = False,
        label_field: str = LABEL_FIELD,
        min_confidence: float | None = None,
        max_detections: int = MAX_DETECTIONS,
        overwrite_labels: bool = False,
        evaluate: bool = True,
        gt_field: str | None = None,
        eval_key: str | None = None,
        negative_tag: str = NEGATIVE_TAG,
        calibrates: bool = True,
        turned: bool | None = None,
        pixel_range: Sequence[float] | None = None,
        channels: Sequence[int] | None = None,
        presence_field: str | None = None,
        sam2_path: str | None = None,
        dinov2_path: str | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Build prototypes from references, segment with them, and evaluate.

        Args:
            sample_collection: a dataset or view of images: those to segment. References may lie anywhere in its dataset.
            field: of the references; by default `ground_truth`, or the only field of objects.
            tag: references carry it, or their samples do; None for every object.
            label_ids: only these objects are references, whatever their tags.
            classes: only these.
            model: a preset's name; by default that of the newest prototypes kept, else `large` where there is a GPU and `tiny`
                where there is none.
            name: what the prototypes are called.
            overwrite: replace prototypes of this name.
            label_field: where to write; a new field, or one that an earlier run wrote.
            min_confidence: lower scores are not written; by default 0.5 where scores are probabilities, else the preset's.
            max_detections: the best so many of each image.
            overwrite_labels: write to label_field and presence_field even if their labels are not RefSeg's; those of the images
                are lost.
            evaluate: compare the predictions with ground truth; classes without a reference count as not found.
            gt_field: the objects that are there; by default `ground_truth`, or the first other field of objects.
            eval_key: where the App finds FiftyOne's evaluation; by default made from label_field. An earlier one is replaced.
            negative_tag: labels of the field with this tag are negatives: what resembles them more than its class scores lower.
            calibrates: learn what scores mean from the images of references and those tagged `known_empty`; those that are
                not indexed are computed.
            turned: look at references turned and mirrored too, see `refseg.build_prototypes`; None as before.
            pixel_range: the values of black and white in images of more than 8 bits that do not say it; by default as in the
                index used last, or for earlier prototypes, else found from the images of the references.
            channels: which bands of TIFFs with more than three, counted from 0, are red, green and blue, or the only one; by
                default as for the range, else the first three.
            presence_field: also write the probability that each class is in the image here, as `Classifications`.
            sam2_path: a SAM 2 checkpoint, or a folder for `edge` and `sam3`, to load instead of the download; kept with the
                dataset for this model, "" for the download again.
            dinov2_path: the same, a folder that `save_pretrained` wrote.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `prototypes`,
            `segmentation` and `evaluation`, each as its own operator returns it; the last is None where not asked for.
        """
        return self.call(locals(), **pixel_params(pixel_range, channels), **build_prototypes.source_params(tag, label_ids))
