"""Teach kept prototypes what else is to be seen in the images of their references, so that scores are probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import EMPTY_TAG
from .forms.form import Form
from .forms.inputs import name_of_changed_input, prototypes_input
from .forms.messages import count
from .forms.selection import collection
from .mark_empty import count_empty
from .running.base import RefSegOperator, Result, Work


class Calibrate(RefSegOperator):
    """Finds the threshold of each class that suits its references best."""

    title = "Calibrate thresholds"
    summary = "Find the minimum confidence that suits each class, from the images of its references"
    kept_when_cancelled = "the prototypes are as they were, and images computed so far are kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which prototypes, and what the calibrated ones are called."""
        form = Form(
            ctx,
            "Calibrate thresholds",
            "Find the minimum confidence of each class from what else is to be seen in the images of its references. Images "
            "that are not indexed are computed.",
        )
        if form.usable:
            chosen = prototypes_input(form)
            if chosen is not None:
                name_of_changed_input(form, chosen)
                form.notice("empty", _describe_empty(count_empty(ctx)))
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Look at the images and keep the calibrated prototypes."""
        from refseg.dataset import every_image, list_prototypes, load_prototypes, save_prototypes
        from refseg.runs import iter_calibrate

        source = ctx.params.get("prototypes") or list_prototypes(ctx.dataset)[-1]
        images = every_image(collection(ctx))
        before = load_prototypes(ctx.dataset, source)
        prototypes = yield from iter_calibrate(images, before, images.match_tags(EMPTY_TAG))
        name = ctx.params.get("name") or source
        save_prototypes(collection(ctx), prototypes, name, overwrite=True)
        config = ctx.dataset.get_run_info(name).config
        return {
            "name": name,
            "thresholds": config.thresholds,
            "num_learnt": config.num_learnt,
            "num_shown": config.num_shown,
            "num_surroundings": config.num_surroundings,
            "num_empty": config.num_empty,
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say what was learnt, or why nothing was."""
        if result["num_learnt"]:
            counted = f"{count(result['num_shown'], 'reference')} and {count(result['num_surroundings'], 'mask')} around them"
            text = f"Prototypes {result['name']!r}: scores are probabilities, learnt from {counted}."
        else:
            text = (
                f"Nothing was learnt for the prototypes {result['name']!r}: this needs a class with references in two images "
                "that can be read, and masks found on them. Scores are read as on other datasets."
            )
        yield ctx.ops.notify(text, variant="success" if result["num_learnt"] else "warning")

    def __call__(
        self,
        sample_collection: Any,
        prototypes: str | None = None,
        name: str | None = None,
        overwrite: bool = False,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Calibrate the thresholds of kept prototypes.

        Images tagged `known_empty` count too: whatever is found there is none of the classes. Candidates come from the index of
        the dataset; for images that it does not hold they are computed.

        Args:
            sample_collection: the dataset, or a view of it.
            prototypes: the name under which the dataset keeps them; by default the newest.
            name: what the calibrated ones are called; by default they take the place of the others.
            overwrite: replace other prototypes that are called so.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `name`, `thresholds` (pairs
            of a class and a number), `num_learnt` (right answers that probabilities were learnt from; 0 where no class has
            references in two images), `num_shown` (references found among the
            candidates), `num_surroundings` (candidates that show none) and `num_empty` (images known to be empty).
        """
        return self.call(locals())


def _describe_empty(number: int) -> str:
    if not number:
        return "No image is marked as empty: some that hold no object of any class make the thresholds surer ('Mark as empty')"
    return f"{count(number, 'image')} marked as empty will be looked at too"
