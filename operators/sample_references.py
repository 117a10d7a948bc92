"""Draw and tag some references of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import BORDER, MIN_SIDE, REFERENCE_TAG, SEED, SHOTS
from .forms.form import Form
from .forms.inputs import reference_field, reference_field_input, tag_input
from .forms.messages import count, listing
from .forms.selection import chosen_classes, target_images
from .running.base import RefSegOperator, Result, Work


class SampleReferences(RefSegOperator):
    """Chooses references at random, the same ones for the same seed."""

    title = "Sample references"
    summary = "Draw and tag the same number of references of each class"
    kept_when_cancelled = "references tagged by then keep their tag"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Where, how many, and which objects are suitable."""
        form = Form(
            ctx,
            "Sample references",
            "Draw references of each class at random, at most one of a class from one image, and tag them. "
            "The tag is first taken off the other objects of these classes.",
            action="Draw from",
        )
        if form.usable:
            reference_field_input(form, "Field", "Where the labelled objects are")
            form.number("shots", SHOTS, "Shots", "References a class", 1, whole=True)
            tag_input(form)
            form.names("classes", "Classes", "Only these; leave it empty for every class")
            form.number("seed", SEED, "Seed", "The same seed draws the same references", 0, whole=True)
            form.number("min_side", MIN_SIDE, "Smallest side", "Boxes with a shorter side are passed over, pixels", 0)
            form.number("border", BORDER, "Border", "Boxes nearer to the image's edge are passed over, pixels", 0)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Draw and tag."""
        from refseg.dataset import sample_references
        from refseg.progress import Progress

        def given(name: str, default: Any) -> Any:
            value = ctx.params.get(name)
            return default if value is None or value == "" else value

        tag = given("tag", REFERENCE_TAG).strip()
        yield Progress(0, 1, "drawing references")
        drawn = sample_references(
            target_images(ctx),
            ctx.params.get("field") or reference_field(ctx),
            int(given("shots", SHOTS)),
            seed=int(given("seed", SEED)),
            tag=tag,
            min_side=given("min_side", MIN_SIDE),
            border=given("border", BORDER),
            classes=chosen_classes(ctx),
        )
        yield Progress(1, 1, "drawing references")
        return {
            "tag": tag,
            "label_ids": [[name, ids] for name, ids in drawn.label_ids.items()],
            "short": [[name, number] for name, number in drawn.short.items()],
            "reasons": list(drawn.describe_short()),
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the tags; say which classes fell short."""
        yield ctx.ops.reload_samples()
        number = sum(len(ids) for _, ids in result["label_ids"])
        text = f"Tagged {count(number, 'reference')} of {count(len(result['label_ids']), 'class')} as {result['tag']!r}."
        if result["short"]:
            text += " Fewer suitable objects than asked for: " + listing([reason.rstrip(".") for reason in result["reasons"]])
        yield ctx.ops.notify(text, variant="warning" if result["short"] else "success")

    def __call__(
        self,
        sample_collection: Any,
        field: str | None = None,
        shots: int = SHOTS,
        seed: int = SEED,
        tag: str = REFERENCE_TAG,
        classes: Sequence[str] | None = None,
        min_side: float = MIN_SIDE,
        border: float = BORDER,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Draw and tag references of each class.

        Args:
            sample_collection: a dataset or view of images.
            field: of the objects; by default `ground_truth`, or the only field of objects.
            shots: references a class.
            seed: of the draw.
            tag: the label tag to write; it is first taken off the other objects of these classes.
            classes: by default every class.
            min_side: boxes with a shorter side are passed over, pixels.
            border: boxes nearer to the image's edge are passed over, pixels.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `tag`, `label_ids`
            (pairs of a class and the ids drawn), `short` (pairs of a class with too few suitable objects and their number) and
            `reasons` (a sentence for each of those).
        """
        return self.call(locals())
