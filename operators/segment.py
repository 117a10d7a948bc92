"""Find and segment the objects of kept prototypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from .build_index import record_of
from .forms.constants import CHANGED_IDS_IN_RESULT, LABEL_FIELD, MAX_DETECTIONS, SKIPS_IN_RESULT
from .forms.fields import label_field_input, presence_field_input, semantic_field_input
from .forms.form import Form
from .forms.indexes import coverage, find_record
from .forms.inputs import kept_prototypes, prototypes_input
from .forms.matching import (
    calibrated_notice,
    chosen_matching,
    classes_input,
    kept_classes,
    limits_inputs,
    matching_inputs,
    no_probabilities,
    thresholds_input,
)
from .forms.messages import count, skips
from .forms.pixels import given_pixels, pixel_inputs, pixel_params
from .forms.selection import all_images, chosen_classes, target_images
from .running.base import RefSegOperator, Result, Work

if TYPE_CHECKING:
    from refseg.runs import SegmentReport


class Segment(RefSegOperator):
    """Writes instances with masks and scores to a field."""

    title = "Segment"
    summary = "Find and segment the objects that prototypes were built for"
    kept_when_cancelled = "the predictions written so far are kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which prototypes, where to write, and what counts."""
        form = Form(ctx, "Segment", "Find and segment the prototypes' classes in every image", action="Segment")
        if form.usable:
            chosen = prototypes_input(form)
            if chosen is not None:
                classes_input(form, kept_classes(ctx, chosen))
                _index_inputs(form, chosen)
            label_field_input(form)
            limits_inputs(form, MAX_DETECTIONS)
            if chosen is not None:
                calibrated_notice(form, chosen)
                thresholds_input(form, kept_classes(ctx, chosen))
            semantic_field_input(form)
            presence_field_input(form, None if chosen is None else no_probabilities(form, chosen))
            form.place("mask_dir", "Mask folder", "Write masks to files here, not into the database; optional")
            _run_key_input(form)
            if chosen is not None:
                pixel_inputs(form, prototypes=chosen)
                matching_inputs(form, ctx.dataset.get_run_info(chosen).config.model)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Segment with the prototypes chosen, by default the newest."""
        name = ctx.params.get("prototypes") or kept_prototypes(ctx)[-1]
        result: Result = yield from segment(ctx, target_images(ctx), name, chosen_classes(ctx))
        return result

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the new field, of a preview the best images; say how much was found and what was skipped."""
        yield from show(ctx, result, describe(result))

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
        preview: bool = False,
        index: bool = True,
        classes: Sequence[str] | None = None,
        min_confidences: Sequence[tuple[str, float]] | None = None,
        tiles: bool = False,
        presence_gate: float | None = None,
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
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Find and segment the prototypes' classes in every image.

        Args:
            sample_collection: a dataset or view of images.
            prototypes: the name under which the dataset keeps them; by default the newest.
            label_field: where to write; a new field, or one that an earlier run wrote.
            min_confidence: lower scores are not written; by default 0.5 where scores are probabilities, else the preset's.
            max_detections: the best so many of each image.
            semantic_field: also write a `Segmentation` map here.
            mask_dir: write masks to files under this folder instead of into the database.
            run_key: of the FiftyOne run; by default made from the field's name.
            overwrite_labels: write to label_field, semantic_field and presence_field even if their labels are not RefSeg's;
                those of the images are lost.
            preview: rank the indexed images by their best score and write the best hundred alone; nothing is computed.
            index: take candidates from the dataset's index, and add those that are computed; False neither reads nor fills it.
            classes: write only these; all others still compete for candidates.
            min_confidences: pairs of a class and its own min_confidence.
            tiles: look at each image larger than the segmenter's input in overlapping tiles too, for small objects.
            presence_gate: of images that are not indexed, compute only those where a patch has this cosine, 0 to 1, with the
                prototype of a class that is written; the index does not keep any that was spared something.
            negatives: whether what resembles a negative more than its class scores lower; here and below, None is what suits
                the preset.
            background: whether masks that are more like the surroundings of references than like any class are dropped.
            class_similarity: "mean", "nearest" or "clusters", see `refseg.MatchSettings`.
            scenes: whether a class also looks like the masks that show its references in their own images.
            overlaps: "merge" or "diffusion", see `refseg.MatchSettings`.
            second_look: "always", "known" or "never": whether the best masks are looked at again, as crops.
            whiten: whether second looks are compared by what sets them apart from everything else in the dataset.
            calibrated: whether scores are probabilities, where the prototypes know what lies around their references.
            pixel_range: the values of black and white in images of more than 8 bits that do not say it; by default as for
                the references of the prototypes.
            channels: which bands of TIFFs with more than three, counted from 0, are red, green and blue, or the only one; by
                default as for the range, else the first three.
            presence_field: also write the probability that each class is in the image here, as `Classifications`, which needs
                calibrated prototypes.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `run_key`, `label_field`,
            `num_images` (of a preview, images ranked), `num_instances`, `num_written` (images whose predictions or presence
            were not the same already), `num_from_index`, `num_left_out` (images that a preview left out because they are not
            indexed), `lent_by` (the preset whose index served, where it is another one of the same models), `num_gated`
            (images that the presence gate spared, as a whole or in part), `num_protected` (images that stay as they are,
            because no run wrote all of their labels in the field), `num_skipped`, `skipped` (the first hundred: sample id,
            path, reason), `preview`, `best` (of a preview: sample id and best score of each image written, the best first),
            `index_trouble` (why candidates could not be kept, or None), `seconds`, and `changes`: what differs from earlier
            predictions in the same field, as `gained` and `lost` (pairs of a class and a number of objects), `relabelled`
            (earlier class, class and number), `num_samples` and `sample_ids` (the first thousand).
        """
        return self.call(locals(), **pixel_params(pixel_range, channels))


def segment(ctx: Any, images: Any, prototypes: str, classes: Sequence[str] | None = None) -> Work[Result]:
    """Segment as the form says.

    Args:
        ctx: FiftyOne's execution context.
        images: a view of images.
        prototypes: the name of those to look for.
        classes: the only ones to write; None for all.
    """
    from refseg.dataset import SourceSettings
    from refseg.runs import SegmentSettings, iter_segment

    def given(name: str) -> Any:
        return ctx.params.get(name) or None

    gate = ctx.params.get("presence_gate")
    settings = SegmentSettings(
        _min_confidence(ctx, prototypes),
        int(given("max_detections") or MAX_DETECTIONS),
        given("mask_dir"),
        given("semantic_field"),
        bool(given("preview")),
        None if classes is None else tuple(classes),
        presence_gate=None if gate in (None, "") else float(gate),
        matching=chosen_matching(ctx.params, images._root_dataset.get_run_info(prototypes).config.model),
        presence_field=given("presence_field"),
    )
    sources = SourceSettings(
        index=ctx.params.get("index") is not False,
        # Where they are not asked for, the index that there is decides.
        tiles=True if ctx.params.get("tiles") else None,
        pixels=given_pixels(ctx.params),
    )
    report = yield from iter_segment(
        images,
        prototypes,
        given("label_field") or LABEL_FIELD,
        settings=settings,
        sources=sources,
        run_key=given("run_key"),
        overwrite=bool(given("overwrite_labels")),
    )
    return result_of(report, settings.preview)


def result_of(report: SegmentReport, preview: bool = False) -> Result:
    """A run's report as JSON."""
    return {
        "run_key": report.run_key,
        "label_field": report.label_field,
        "num_images": report.num_images,
        "num_instances": report.num_instances,
        "num_written": report.num_written,
        "num_from_index": report.num_from_index,
        "num_left_out": report.num_left_out,
        "num_gated": report.num_gated,
        "num_protected": len(report.protected),
        "num_skipped": len(report.skipped),
        "skipped": [[image.sample_id, image.filepath, image.reason] for image in report.skipped[:SKIPS_IN_RESULT]],
        "preview": preview,
        "best": [list(pair) for pair in report.best],
        "lent_by": report.lent_by,
        "index_trouble": report.index_trouble,
        "seconds": round(report.seconds, 3),
        "changes": {
            **report.changes.as_lists(),
            "num_samples": report.changes.num_samples,
            "sample_ids": list(report.changes.sample_ids[:CHANGED_IDS_IN_RESULT]),
        },
    }


def show(ctx: Any, result: Result, text: str) -> Iterator[Any]:
    """Messages that show a run's predictions in the App, of a preview the best images."""
    yield ctx.ops.reload_dataset()
    if result["best"]:
        best = [sample_id for sample_id, _ in result["best"]]
        yield ctx.ops.set_view(view=all_images(ctx).select(best, ordered=True))
    yield ctx.ops.notify(text, variant=variant(result))


def _min_confidence(ctx: Any, prototypes: str) -> float | dict[str, float] | None:
    """One number, one for each class, or None for the preset's."""
    chosen = ctx.params.get("min_confidence")
    general = None if chosen in (None, "") else float(chosen)
    own = {name: float(least) for name, least in ctx.params.get("min_confidences") or ()}
    if not own or general is None:
        return own or general
    return {**dict.fromkeys(kept_classes(ctx, prototypes), general), **own}


def describe(result: Result) -> str:
    """A few sentences on the predictions."""
    found, images = count(result["num_instances"], "instance"), count(result["num_images"], "image")
    where = f"in the field {result['label_field']!r} (run {result['run_key']!r})"
    held, lent_by = result["num_from_index"], result["lent_by"]
    origin = f"the index of {lent_by!r}, which has the same models" if lent_by else "the index"
    if not result["preview"]:
        text = f"{found} in {images}{f' ({held:,} from {origin})' if held else ''}, {where}."
    elif result["best"]:
        text = f"The best {len(result['best']):,} of {images}, best first: {found}, {where}."
    else:
        text = f"None of {images} has an instance above the minimum confidence."
    text += _describe_changes(result)
    if result["num_left_out"]:
        text += f" Left out {count(result['num_left_out'], 'image')} not indexed: run 'Build index' to see them too."
    if result["num_gated"]:
        text += f" The presence gate spared {count(result['num_gated'], 'image')}, as a whole or in part."
    if result["num_protected"]:
        text += (
            f" {count(result['num_protected'], 'image')} stayed as before, because somebody has added labels to this field: "
            "move them to another one, and segment again."
        )
    if result["index_trouble"]:
        text += f" Candidates are not kept: {result['index_trouble']}"
    return text + skips(result["skipped"], result["num_skipped"])


def _describe_changes(result: Result) -> str:
    """A sentence on what differs from the last run, "" where there was none."""
    from refseg.runs import Changes

    changes = result["changes"]
    if not changes["num_samples"]:
        # A preview that finds nothing writes nothing, whether or not there was a run before.
        is_empty_preview = result["preview"] and not result["best"]
        is_the_same = result["num_images"] and not result["num_written"] and not is_empty_preview
        return " Nothing has changed since the last run." if is_the_same else ""
    counted = Changes(
        dict(changes["gained"]), dict(changes["lost"]), {(old, new): number for old, new, number in changes["relabelled"]}
    )
    return f" Since the last run: {counted}, in {count(changes['num_samples'], 'image')}."


def variant(result: Result) -> str:
    """The colour of a notification."""
    wanting = ("num_skipped", "num_protected", "num_left_out", "index_trouble")
    return "warning" if any(result[name] for name in wanting) else "success"


def _index_inputs(form: Form, prototypes: Any) -> None:
    """Preview and index, and how long the run will take with them."""
    previews, uses_index = bool(form.value("preview", False)), bool(form.value("index", True))
    config = form.ctx.dataset.get_run_info(prototypes).config
    model, encoder = config.model, config.fingerprint
    if form.value("tiles", False):
        record = record_of(form.ctx, model, tiles=True, encoder=encoder, borrows=True)
    else:
        record = find_record(form.ctx, model, encoder=encoder, borrows=True)
    covered = coverage(form.ctx, record)
    problem = None
    if previews and not uses_index:
        problem = "A preview looks at indexed images alone: tick 'Use the index'."
    elif previews and covered.num_indexed == 0:
        problem = "A preview looks at indexed images alone, and none of these is indexed yet: run 'Build index' first."
    description = "Rank the images by their best score, and write and show the best hundred alone"
    form.switch("preview", False, "Preview", description, problem)
    form.switch("index", True, "Use the index", "Compute only images that are not indexed, and add them to the index")
    form.switch("tiles", False, "Tiles", "Look at large images in overlapping tiles too, for small objects, kept apart")
    description = (
        "Compute only images where a spot is this similar to a class: for rare ones. Optional, 0 to 1; not kept in the index"
    )
    form.number("presence_gate", None, "Presence gate", description, 0, 1)
    if not uses_index:
        text = covered.describe_without()
    elif previews:
        text = covered.describe_preview()
    else:
        text = covered.describe_segment()
    if problem is None:
        form.notice("coverage", text)


def _run_key_input(form: Form) -> None:
    key = form.value("run_key")
    problem = None
    if isinstance(key, str) and not key.isidentifier():
        problem = f"{key!r} cannot name a run: use letters, digits and underscores, and begin with a letter."
    elif isinstance(key, str) and form.ctx.dataset.has_run(key):
        problem = f"The dataset has a run named {key!r} already: choose another name."
    form.text("run_key", None, "Run", "Under which settings and skipped images are kept; optional", problem)
