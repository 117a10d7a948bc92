"""Show an object that has no label yet, by points on it or a box around it: its mask becomes a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from .forms.form import Form
from .forms.indexes import index_records
from .forms.inputs import default_model
from .forms.selection import collection
from .running.base import RefSegOperator, Result, Work

BY_INDEX = "a mask of the index"
BY_MODEL = "a mask that the model made"


class ShowObject(RefSegOperator):
    """Labels the object that a prompt shows, with its mask."""

    title = "Show an object"
    summary = "Label an object as a reference by points on it or a box around it; the panel does the same by clicks"
    may_be_delegated = False
    risk = types.RiskLevel.LOW

    def resolve_input(self, ctx: Any) -> types.Property:
        """In which image, where, and what it is."""
        form = Form(
            ctx,
            "Show an object",
            "Label an object in one image by where it is; in the panel, 'Show an object' does the same by clicks in a picture.",
        )
        if form.usable:
            sample_id = _sample_id(ctx)
            if sample_id is None:
                form.obstacle("image", "No image is open and none is selected: open one, or select it in the grid.")
            label = form.value("label")
            nameless = None if isinstance(label, str) and label.strip() else "Name the object: the class that it is one of."
            form.text("label", None, "Class", "What the object is; of a negative, what it is not", nameless)
            xy = "x and y of each, as shares of the upright image's width and height: 0.4, 0.6 is left of and below the middle"
            form.numbers("points", "Points on it", xy, 2)
            form.numbers("beside", "Points beside it", "On what does not belong to it, likewise", 2)
            form.numbers("box", "Box around it", "x and y of its upper left corner, width and height, likewise", 4, most=1)
            if not form.value("points") and not form.value("box"):
                form.obstacle("prompt", "Say where the object is: give points on it, or a box around it.")
            form.number("choice", 0, "Mask", "Of the masks that fit, best first: 0 for the best", low=0, whole=True)
            form.switch("negative", False, "As a negative", "It shows what its class is not")
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Find its mask and label it."""
        import refseg
        from refseg.dataset import SHOWN_FIELD
        from refseg.errors import DatasetError
        from refseg.progress import Progress

        sample_id, chosen = _sample_id(ctx), int(ctx.params.get("choice") or 0)
        yield Progress(0, 1, "finding the object")
        masks = refseg.segment_prompt(
            collection(ctx),
            sample_id,
            _pairs(ctx.params.get("points")),
            beside=_pairs(ctx.params.get("beside")),
            box=ctx.params.get("box") or None,
            model=None if index_records(ctx) else default_model(ctx),
        )
        if chosen >= len(masks):
            raise DatasetError(f"Mask {chosen} was asked for, but {len(masks)} fit there, from 0 to {len(masks) - 1}.")
        found, is_new = masks[chosen], not collection(ctx).has_field(SHOWN_FIELD)
        label_id = refseg.add_reference(
            collection(ctx),
            sample_id,
            ctx.params["label"].strip(),
            found.bounding_box,
            found.mask,
            is_negative=bool(ctx.params.get("negative", False)),
        )
        yield Progress(1, 1, "finding the object")
        return {
            "sample_id": sample_id,
            "field": SHOWN_FIELD,
            "label_id": label_id,
            "bounding_box": list(found.bounding_box),
            "origin": found.origin,
            "pieces": found.pieces,
            "num_masks": len(masks),
            "is_new_field": is_new,
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the label, and say where its mask comes from."""
        yield ctx.ops.reload_dataset() if result["is_new_field"] else ctx.ops.reload_samples()
        kind = "negative" if ctx.params.get("negative") else "reference"
        text = f"Added a {kind} of {ctx.params['label'].strip()!r}: {BY_INDEX if result['origin'] == 'index' else BY_MODEL}."
        if result["pieces"] > 1:
            text += f" It has {result['pieces']} large pieces: look whether it is one object."
        yield ctx.ops.notify(text, variant="warning" if result["pieces"] > 1 else "success")

    def __call__(
        self,
        sample_collection: Any,
        sample_id: str,
        label: str,
        points: Sequence[Sequence[float]] = (),
        beside: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        choice: int = 0,
        negative: bool = False,
    ) -> Any:
        """Label an object by points on it or a box around it, as a reference or a negative.

        Args:
            sample_collection: a dataset or view of images.
            sample_id: of the image.
            label: what the object is, or, of a negative, what it is not.
            points: x and y of each, as shares of the upright image's width and height.
            beside: points on what does not belong to the object, likewise.
            box: x and y of the upper left corner, width and height, likewise.
            choice: among the masks that fit, best first.
            negative: the object shows what its class is not.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `sample_id`, `field` and
            `label_id` of the new label, its `bounding_box`, `origin` ("index" or "model"), `pieces` (large ones of its mask:
            several may be several objects), `num_masks` (that fit) and `is_new_field`.
        """
        points, beside = _flat(points), _flat(beside)
        return self.call(locals())


def _sample_id(ctx: Any) -> str | None:
    """Of the image named by a caller, else the one that is open, else the only one selected."""
    selected = ctx.selected if ctx.selected and len(ctx.selected) == 1 and not ctx.view._is_patches else ()
    found = ctx.params.get("sample_id") or ctx.current_sample or next(iter(selected), None)
    return found if isinstance(found, str) else None


def _pairs(numbers: Sequence[float] | None) -> list[tuple[float, float]]:
    numbers = numbers or ()
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _flat(points: Any) -> Any:
    """Pairs as the form's list of numbers; what is no pairs is left for the form to refuse."""
    try:
        return [number for x, y in points for number in (x, y)]
    except (TypeError, ValueError):
        return points
