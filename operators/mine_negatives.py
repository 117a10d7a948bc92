"""Make negatives of what is taken for a class in images that are known not to hold it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import EMPTY_TAG, MAX_MINED
from .forms.form import Form
from .forms.inputs import name_of_changed_input, prototypes_input
from .forms.matching import kept_classes
from .forms.messages import count
from .forms.selection import chosen_classes, collection, target_images
from .mark_empty import count_empty
from .running.base import RefSegOperator, Result, Work


class MineNegatives(RefSegOperator):
    """Learns from mistakes that nobody has to point at one by one."""

    title = "Mine negatives"
    summary = "Make negatives of what is taken for a class in images known not to hold it"
    kept_when_cancelled = "the prototypes are as they were, and images computed so far are kept"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which images, which classes they do not hold, and for which prototypes."""
        form = Form(
            ctx,
            "Mine negatives",
            "What is taken for a class in images that do not hold it becomes a negative of this class. Images that are not "
            "indexed are computed.",
            action="Look at",
        )
        if form.usable:
            chosen = prototypes_input(form)
            number = count_empty(ctx)
            help_text = f"Of the images chosen, only those marked as empty: {number:,} in the dataset"
            if form.switch("only_marked", bool(number), "Only images marked as empty", help_text) and not number:
                form.obstacle("none_marked", "No image is marked as empty: run 'Mark as empty' first, or untick this.")
            if chosen is not None:
                help_text = "The images hold none of these; leave it empty for every class"
                form.names("classes", "Classes", help_text, kept_classes(ctx, chosen))
            form.number("min_confidence", None, "Minimum confidence", "Of a mistake that counts; by default as in a run", 0, 1)
            form.number("max_negatives", MAX_MINED, "Most", "Negatives of a class, the most confident first", 1, whole=True)
            if chosen is not None:
                name_of_changed_input(form, chosen)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Look at the images and keep the prototypes with their new negatives."""
        from refseg.calibration import MINED_PREFIX
        from refseg.dataset import count_samples, list_prototypes, load_prototypes, save_prototypes
        from refseg.errors import DatasetError
        from refseg.runs import SegmentSettings, iter_mine_negatives

        source = ctx.params.get("prototypes") or list_prototypes(ctx.dataset)[-1]
        images = target_images(ctx)
        if _only_marked(ctx):
            images = images.match_tags(EMPTY_TAG)
        number = count_samples(images)
        if not number:
            raise DatasetError("None of the images chosen is marked as empty: mark some first, or look at others too.")
        least, most = ctx.params.get("min_confidence"), ctx.params.get("max_negatives")
        classes = chosen_classes(ctx)
        settings = SegmentSettings(
            None if least in (None, "") else float(least), classes=None if classes is None else tuple(classes)
        )
        prototypes = yield from iter_mine_negatives(
            images,
            load_prototypes(ctx.dataset, source),
            settings,
            max_negatives=MAX_MINED if most in (None, "") else int(most),
        )
        name = ctx.params.get("name") or source
        save_prototypes(collection(ctx), prototypes, name, overwrite=True)
        negatives = prototypes.negatives
        mined: Counter[str] = Counter()
        if negatives is not None:
            pairs = zip(negatives.names, negatives.ids, strict=True)
            mined = Counter(label for label, label_id in pairs if label_id.startswith(MINED_PREFIX))
        return {"name": name, "num_images": number, "mined": [[label, mined[label]] for label in prototypes.classes]}

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say how many there are of each class."""
        found = [f"{name} {number}" for name, number in result["mined"] if number]
        images = count(result["num_images"], "image")
        text = f"Mined from {images}: {', '.join(found)}." if found else f"Nothing in {images} is taken for a class."
        yield ctx.ops.notify(f"Prototypes {result['name']!r}: {text}", variant="success" if found else "info")

    def __call__(
        self,
        sample_collection: Any,
        prototypes: str | None = None,
        classes: Sequence[str] | None = None,
        only_marked: bool | None = None,
        min_confidence: float | None = None,
        max_negatives: int = MAX_MINED,
        name: str | None = None,
        overwrite: bool = False,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Make negatives of what is taken for a class in images that are known not to hold it.

        Args:
            sample_collection: a dataset or view of images.
            prototypes: the name under which the dataset keeps them; by default the newest.
            classes: the images hold none of these; by default none of any class.
            only_marked: look only at those tagged `known_empty`; by default where the dataset has any.
            min_confidence: from which a mistake counts; by default as in a run.
            max_negatives: of a class, the most confident first.
            name: what the prototypes with these negatives are called; by default they take the place of the others.
            overwrite: replace other prototypes that are called so.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `name`, `num_images`
            (images looked at) and `mined` (pairs of a class and the number of its mined negatives, earlier ones among them).
        """
        return self.call(locals())


def _only_marked(ctx: Any) -> bool:
    asked = ctx.params.get("only_marked")
    return bool(count_empty(ctx)) if asked is None else bool(asked)
