"""Build prototypes from references and keep them with the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from .forms.constants import NEGATIVE_TAG, PROTOTYPES_NAME, REFERENCE_TAG
from .forms.form import Form
from .forms.inputs import build_inputs, default_model, default_name, default_source, reference_field
from .forms.messages import count, listing
from .forms.pixels import given_pixels, pixel_inputs, pixel_params
from .forms.selection import all_images, chosen_classes, collection, labels_path, selected_label_ids, target_images
from .running.base import RefSegOperator, Result, Work

if TYPE_CHECKING:
    from refseg.dataset import StoredPrototypes
    from refseg.prototypes import Prototypes


class BuildPrototypes(RefSegOperator):
    """Turns references into one prototype per class."""

    title = "Build prototypes"
    summary = "Learn what to look for from references, and keep it with the dataset"
    kept_when_cancelled = "no prototypes were kept, and earlier ones are as they were"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which references, which model, and a name."""
        form = Form(ctx, "Build prototypes", "Turn references into one prototype per class", action="Take references from")
        if form.usable:
            model = build_inputs(form)
            # The index is only looked at to calibrate.
            pixel_inputs(form, model=model if form.value("calibrates", True) else None)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Collect, build, keep."""
        result: Result = yield from build(ctx, target_images(ctx))
        return result

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say what was built and which references were left out."""
        yield ctx.ops.notify(describe(result), variant="warning" if result["skipped"] else "success")

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
        negative_tag: str = NEGATIVE_TAG,
        calibrates: bool = True,
        turned: bool | None = None,
        pixel_range: Sequence[float] | None = None,
        channels: Sequence[int] | None = None,
        sam2_path: str | None = None,
        dinov2_path: str | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Build prototypes and keep them with the dataset.

        Args:
            sample_collection: a dataset or view of images that hold the references.
            field: of the references; by default `ground_truth`, or the only field of objects.
            tag: references carry it, or their samples do; None for every object.
            label_ids: only these objects, whatever their tags.
            classes: only these.
            model: a preset's name; by default that of the newest prototypes kept, else `large` where there is a GPU and `tiny`
                where there is none.
            name: what the prototypes are called.
            overwrite: replace prototypes of this name.
            negative_tag: labels of the field with this tag are negatives: objects that are taken for a class and are not. One
                that is named like a class is a negative of that class; any other is one of every class.
            calibrates: learn what scores mean from the images of references and those tagged `known_empty`, and make
                negatives of what is taken for a class in the latter; images that are not indexed are computed.
            turned: look at references turned and mirrored too, see `refseg.build_prototypes`; None as before.
            pixel_range: the values of black and white in images of more than 8 bits that do not say it; by default as in the
                index used last, or for earlier prototypes, else found from the images of the references.
            channels: which bands of TIFFs with more than three, counted from 0, are red, green and blue, or the only one; by
                default as for the range, else the first three.
            sam2_path: a SAM 2 checkpoint, or a folder for `edge` and `sam3`, to load instead of the download; kept with the
                dataset for this model, "" for the download again.
            dinov2_path: the same, a folder that `save_pretrained` wrote.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `name`, `model`, `path`,
            `sha256`, `shots` (pairs of a class and its number of references), `num_negatives`, `num_mined` (negatives from
            images known to be empty), `thresholds` (pairs of a class and the least score written), `num_learnt` (right answers
            that probabilities were learnt from), `reused` (the number of references and negatives that have not changed since
            an earlier build, whose vectors were kept) and `skipped` (pairs of an id and a reason).
        """
        return self.call(locals(), **pixel_params(pixel_range, channels), **source_params(tag, label_ids))


def source_params(tag: str | None, label_ids: Sequence[str] | None) -> dict[str, Any]:
    """The form's choice of references, from a caller in Python."""
    if label_ids is not None:
        return {"source": "selection", "label_ids": label_ids, "tag": None}
    return {"source": "all"} if tag is None else {"source": "tag", "tag": tag}


def build(ctx: Any, images: Any) -> Work[Result]:
    """Collect references and negatives as the form says, build prototypes, keep them.

    Objects that prototypes of the same name, or else the newest, were built from cost nothing again.

    Args:
        ctx: FiftyOne's execution context.
        images: where to look for references, unless they are a selection, and for negatives.
    """
    from refseg.dataset import collect_references, reusable_prototypes, save_prototypes, turned_before
    from refseg.prototypes import iter_build_prototypes
    from refseg.runs import iter_use_known

    field = ctx.params.get("field") or reference_field(ctx)
    source = ctx.params.get("source") or default_source(ctx)
    chosen = source == "selection"
    where = all_images(ctx) if chosen else images
    negatives = _negatives(ctx, where, field)
    references = collect_references(
        where,
        field,
        tags=(ctx.params.get("tag") or REFERENCE_TAG) if source == "tag" else None,
        label_ids=selected_label_ids(ctx, field) or [] if chosen else None,
        classes=chosen_classes(ctx),
    )
    if source == "all":
        apart = {negative.id for negative in negatives}
        references = [reference for reference in references if reference.id not in apart]
    earlier = reusable_prototypes(ctx.dataset, ctx.params.get("name"))
    model = ctx.params.get("model") or default_model(ctx)
    turned = ctx.params.get("turned")
    turned = turned_before(ctx.dataset, ctx.params.get("name")) if turned is None else bool(turned)
    given = {"pixels": given_pixels(ctx.params), "turned": turned}
    prototypes = yield from iter_build_prototypes(references, model, earlier, negatives, **given)
    num_reused = 0 if earlier is None else prototypes.num_shared(earlier)
    if ctx.params.get("calibrates", True):
        prototypes = yield from iter_use_known(collection(ctx), prototypes)
    name = ctx.params.get("name") or default_name(ctx)
    stored = save_prototypes(collection(ctx), prototypes, name, overwrite=bool(ctx.params.get("overwrite", False)))
    return result_of(ctx.dataset, stored, prototypes, num_reused)


def result_of(dataset: Any, stored: StoredPrototypes, prototypes: Prototypes, num_reused: int) -> Result:
    """Kept prototypes as JSON."""
    config = dataset.get_run_info(stored.name).config
    return {
        "name": stored.name,
        "model": prototypes.model,
        "path": stored.path,
        "sha256": stored.sha256,
        "shots": [[label, number] for label, number in prototypes.shots.items()],
        "num_negatives": len(config.negative_ids),
        "num_mined": config.num_mined,
        "thresholds": config.thresholds,
        "num_learnt": config.num_learnt,
        "reused": num_reused,
        "skipped": [list(pair) for pair in prototypes.skipped],
    }


def _negatives(ctx: Any, images: Any, field: str) -> list[Any]:
    """Negatives in a field; where classes are chosen, without those of the others, which would count for every class."""
    from refseg.dataset import collect_negatives

    tag = ctx.params.get("negative_tag") or NEGATIVE_TAG
    negatives = collect_negatives(images, [field], tag)
    classes = chosen_classes(ctx)
    if not negatives or classes is None:
        return negatives
    others = images.exclude_labels(tags=tag, fields=field).distinct(f"{labels_path(collection(ctx), field)}.label")
    return [negative for negative in negatives if negative.label in classes or negative.label not in others]


def describe(result: Result) -> str:
    """One or two sentences on the prototypes."""
    used = sum(number for _, number in result["shots"])
    reused = f" ({result['reused']:,} reused)" if result["reused"] else ""
    negatives = f" and {count(result['num_negatives'], 'negative')}" if result["num_negatives"] else ""
    shown = f"{count(len(result['shots']), 'class')} from {count(used, 'reference')}{negatives}{reused}"
    text = f"Prototypes {result['name']!r}: {shown}."
    if result["num_mined"]:
        text += f" {count(result['num_mined'], 'negative')} from images known to be empty."
    if result["num_learnt"]:
        text += " Scores are probabilities."
    if result["skipped"]:
        skips = listing([f"{reason} ({label_id})" for label_id, reason in result["skipped"]])
        text += f" Left out {count(len(result['skipped']), 'object')}: {skips}."
    return text
