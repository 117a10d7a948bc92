"""Learn from everything that is tagged in the dataset, and segment with it at once: what the panel's buttons do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from . import build_prototypes, segment
from .forms.constants import LABEL_FIELD, MAX_DETECTIONS, PROTOTYPES_NAME
from .forms.fields import label_field_input, presence_field_input
from .forms.form import Form
from .forms.inputs import calibrates_input, default_model, model_input, turned_input
from .forms.matching import limits_inputs, matching_inputs, no_probabilities_of_new
from .forms.pixels import given_pixels, pixel_inputs, pixel_params
from .forms.selection import all_images, chosen_classes, target_images
from .running.base import RefSegOperator, Result, Work


class Learn(RefSegOperator):
    """Builds prototypes from every reference and negative of the dataset, and segments with them."""

    title = "Learn and segment"
    summary = "Learn from every object tagged as reference or negative, in whatever field, and segment"
    kept_when_cancelled = "prototypes that were finished and the predictions written so far are kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which images, which model, where to write and what counts."""
        form = Form(
            ctx,
            "Learn and segment",
            "Learn from every object tagged 'reference' or 'negative', in whatever field, and segment with that. Only what is "
            "new since the last time costs time.",
            action="Segment",
        )
        if form.usable:
            model_input(form)
            calibrates_input(form)
            turned_input(form, PROTOTYPES_NAME)
            pixel_inputs(form, model=form.value("model", default_model(ctx)))
            if not form.switch("only_prototypes", False, "Only learn", "Build the prototypes, and segment nothing"):
                label_field_input(form)
                limits_inputs(form, MAX_DETECTIONS)
                model = form.value("model", default_model(ctx))
                presence_field_input(form, no_probabilities_of_new(form, model))
                form.names("classes", "Classes", "Write only these; leave it empty for every class")
                form.switch("preview", False, "Preview", "Write the best hundred of the indexed images alone")
                matching_inputs(form, model)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Learn, and segment unless only the prototypes are asked for."""
        from refseg.progress import labelled

        if ctx.params.get("only_prototypes"):
            learnt = yield from _learn(ctx)
            return {"prototypes": learnt, "segmentation": None}
        learnt = yield from labelled(_learn(ctx), "1 of 2, ")
        work = segment.segment(ctx, target_images(ctx), learnt["name"], chosen_classes(ctx))
        found = yield from labelled(work, "2 of 2, ")
        return {"prototypes": learnt, "segmentation": found}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say what was learnt and found; show the predictions."""
        learnt, found = result["prototypes"], result["segmentation"]
        text = build_prototypes.describe(learnt)
        if found is None:
            yield ctx.ops.notify(text, variant="warning" if learnt["skipped"] else "success")
        else:
            yield from segment.show(ctx, found, f"{text} {segment.describe(found)}")

    def __call__(
        self,
        sample_collection: Any,
        model: str | None = None,
        label_field: str = LABEL_FIELD,
        classes: Sequence[str] | None = None,
        min_confidence: float | None = None,
        min_confidences: Sequence[tuple[str, float]] | None = None,
        max_detections: int = MAX_DETECTIONS,
        preview: bool = False,
        only_prototypes: bool = False,
        overwrite_labels: bool = False,
        calibrates: bool = True,
        turned: bool | None = None,
        negatives: bool | None = None,
        background: bool | None = None,
        class_similarity: str | None = None,
        scenes: bool | None = None,
        overlaps: str | None = None,
        second_look: str | None = None,
        whiten: bool | None = None,
        calibrated: bool | None = None,
        pixel_range: Sequence[float] | None = None,
        channels: Sequence[int] | None = None,
        presence_field: str | None = None,
        sam2_path: str | None = None,
        dinov2_path: str | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Build prototypes from every reference and negative of the dataset, and segment with them.

        References are labels tagged `reference`, negatives labels tagged `negative`, in every field but those of predictions.
        The prototypes take the place of those kept as `prototypes`; others stay as they are. Images tagged `known_empty` teach
        them what to keep quiet about.

        Args:
            sample_collection: a dataset or view of images to segment; references may lie anywhere in the dataset.
            model: a preset's name; by default that of the newest prototypes kept, else `large` where there is a GPU and `tiny`
                where there is none.
            label_field: where to write; a new field, or one that an earlier run wrote.
            classes: write only these; all others still compete for candidates.
            min_confidence: lower scores are not written; by default 0.5 where scores are probabilities, else the preset's.
            min_confidences: pairs of a class and its own min_confidence.
            max_detections: the best so many of each image.
            preview: rank the indexed images by their best score and write the best hundred alone.
            only_prototypes: segment nothing.
            overwrite_labels: write to label_field and presence_field even if their labels are not RefSeg's; those of the images
                are lost.
            calibrates: learn what scores mean from the images of references and those tagged `known_empty`; those that are
                not indexed are computed.
            turned: look at references turned and mirrored too, see `refseg.build_prototypes`; None as before.
            negatives: whether what resembles a negative more than its class scores lower; here and below, None is what suits
                the preset.
            background: whether masks that are more like the surroundings of references than like any class are dropped.
            class_similarity: "mean", "nearest" or "clusters", see `refseg.MatchSettings`.
            scenes: whether a class also looks like the masks that show its references in their own images.
            overlaps: "merge" or "diffusion", see `refseg.MatchSettings`.
            second_look: "always", "known" or "never": whether the best masks are looked at again, as crops.
            whiten: whether second looks are compared by what sets them apart from everything else in the dataset.
            calibrated: whether scores are probabilities, where the prototypes know what lies around their references.
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
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `prototypes`, the result of
            the operator `build_prototypes`, and `segmentation`, that of `segment`, or None.
        """
        return self.call(locals(), **pixel_params(pixel_range, channels))


def _learn(ctx: Any) -> Work[Result]:
    from refseg.dataset import SourceSettings
    from refseg.runs import iter_learn

    sources = SourceSettings(ctx.params.get("model") or default_model(ctx), pixels=given_pixels(ctx.params))
    chosen = {"calibrates": bool(ctx.params.get("calibrates", True)), "turned": ctx.params.get("turned")}
    learnt = yield from iter_learn(all_images(ctx), PROTOTYPES_NAME, sources=sources, **chosen)
    return build_prototypes.result_of(ctx.dataset, learnt.stored, learnt.prototypes, learnt.num_reused)
