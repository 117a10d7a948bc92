"""Look at the references of kept prototypes as the encoder sees them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from .base import RefSegOperator, Result, Work
from .forms import Form, kept_prototypes
from .messages import count, listing
from .selection import all_images, chosen_classes

ROWS_A_SHEET = 240
"""References on one sheet: a picture of 36,000 pixels' height, about four megabytes for the App."""
SHOTS_SHOWN = 40
NUM_PARTS = 4


class InspectPrototypes(RefSegOperator):
    """Shows each reference's crop, patch features and parts, and which references look like mistakes."""

    kept_when_cancelled = "no sheet was written"

    @property
    def config(self) -> foo.OperatorConfig:
        """Name, label and how it may run."""
        return foo.OperatorConfig(
            name="inspect_prototypes",
            label="Inspect prototypes",
            description="See what the encoder sees in each reference, and which references look like mistakes",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which prototypes and classes; what is known of their references already."""
        form = Form(ctx, "Inspect prototypes", "Show each reference's crop, features and parts, and how it fits its class")
        if form.usable:
            name = prototypes_input(form, "Whose references are shown")
            _classes_input(form, name)
            form.number("num_parts", NUM_PARTS, "Parts", "That the objects of a class are divided into", 1, 8, whole=True)
            if name is not None:
                _known_problems(form, name)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Draw the sheet and write it under the dataset's folder."""
        from refseg.inspection import inspection_sheet, iter_inspect_references
        from refseg.progress import Progress
        from refseg.quality import reference_quality
        from refseg.store import dataset_folder, load_prototypes

        name = ctx.params.get("prototypes") or kept_prototypes(ctx)[-1]
        prototypes = load_prototypes(ctx.dataset, name)
        classes = chosen_classes(ctx)
        num_parts = int(ctx.params.get("num_parts") or NUM_PARTS)
        shots = max(1, min(SHOTS_SHOWN, ROWS_A_SHEET // len(classes or prototypes.classes)))
        found = yield from iter_inspect_references(
            all_images(ctx), prototypes, classes=classes, num_parts=num_parts, max_references=shots
        )
        yield Progress(0, 1, "sheet")
        path = _sheet_path(dataset_folder(ctx.dataset) / "inspection", name, classes, num_parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part.png")
        inspection_sheet(found.references).save(draft)
        draft.replace(path)
        yield Progress(1, 1, "sheet")
        chosen = set(classes or prototypes.classes)
        quality = [list(astuple(item)) for item in reference_quality(prototypes) if item.label in chosen]
        return {
            "prototypes": name,
            "path": str(path),
            "num_shown": len(found.references),
            "num_left_out": found.num_left_out,
            "quality": quality,
            "skipped": [list(pair) for pair in found.skipped],
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the sheet; say how many references look like mistakes."""
        yield ctx.ops.show_output(*_shown(result))
        yield ctx.ops.notify(describe(result), variant="warning" if _problems(result["quality"]) else "success")

    def __call__(
        self,
        sample_collection: Any,
        prototypes: str | None = None,
        classes: Sequence[str] | None = None,
        num_parts: int = NUM_PARTS,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Draw the references of kept prototypes as the encoder sees them.

        Args:
            sample_collection: the dataset.
            prototypes: the name under which the dataset keeps them; by default the newest.
            classes: only these, with the negatives that count for them.
            num_parts: parts that the objects of a class are divided into.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `prototypes`, `path` (of
            the sheet, a PNG file), `num_shown`, `num_left_out` (references beyond the forty of a class that are least like it),
            `quality` (a row for each reference: id, class, similarity to the others of its class, nearest other class,
            similarity to that, problem; None where there is none) and `skipped` (pairs of an id and a reason).
        """
        params = {
            "prototypes": prototypes,
            "classes": None if classes is None else list(classes),
            "num_parts": num_parts,
        }
        return self.call(sample_collection, params, delegate, delegation_target)


def prototypes_input(form: Form, description: str) -> str | None:
    """Which of the dataset's prototypes; returns the name chosen, None where there are none of this name."""
    kept = kept_prototypes(form.ctx)
    missing = f"The dataset {form.ctx.dataset.name!r} keeps no prototypes yet: run 'Build prototypes' first."
    newest = kept[-1] if kept else None
    form.choice("prototypes", kept, newest, "Prototypes", description, missing)
    name = form.value("prototypes", newest)
    return name if name in kept else None


def classes_of(ctx: Any, prototypes: str) -> list[str]:
    """The classes of kept prototypes, from their record alone."""
    return [label for label, _ in ctx.dataset.get_run_info(prototypes).config.shots]


def describe(result: Result) -> str:
    """One or two sentences on the references."""
    problems = _problems(result["quality"])
    text = f"Prototypes {result['prototypes']!r}: {count(result['num_shown'], 'reference')} shown, "
    if problems:
        verb = "looks" if len(problems) == 1 else "look"
        text += f"{len(problems):,} {verb} like a mistake: {listing(problems)}."
    else:
        text += "none looks like a mistake."
    if result["num_left_out"]:
        text += f" Not shown: {result['num_left_out']:,} that are more like the others of their class."
    if result["skipped"]:
        reasons = listing([f"{label_id}: {reason}" for label_id, reason in result["skipped"]])
        text += f" Left out {count(len(result['skipped']), 'reference')}: {reasons}."
    return text


def _problems(quality: Sequence[Sequence[Any]]) -> list[str]:
    return [f"one of {row[1]!r} is {row[5]}" for row in quality if row[5]]


def _classes_input(form: Form, prototypes: str | None) -> None:
    form.names("classes", "Classes", "Only these; leave it empty for every class")
    given = form.value("classes")
    if prototypes is not None and isinstance(given, list | tuple):
        known = classes_of(form.ctx, prototypes)
        unknown = [name for name in given if name and name not in known]
        if unknown:
            text = f"The prototypes have no class {unknown[0]!r}: choose of {', '.join(map(repr, known))}."
            form.obstacle("unknown_class", text)


def _known_problems(form: Form, prototypes: str) -> None:
    rows = getattr(form.ctx.dataset.get_run_info(prototypes).config, "quality", None)
    if rows is None:
        form.notice("problems", "These prototypes were kept before references were judged: build them again to have that.")
    elif problems := _problems(rows):
        form.warning("problems", f"Look at {count(len(problems), 'reference')} again: {listing(problems)}.")
    else:
        form.notice("problems", f"None of {count(len(rows), 'reference')} looks like a mistake.")


def _sheet_path(folder: Path, name: str, classes: list[str] | None, num_parts: int) -> Path:
    """One file for each choice, replaced when it is made again."""
    choice = hashlib.sha256(json.dumps([classes, num_parts]).encode()).hexdigest()[:8]
    return folder / f"{name}_{choice}.png"


def _shown(result: Result) -> tuple[Any, dict[str, str]]:
    """What the App shows, and its values: the sheet as a JPEG, which takes a tenth of the file's size."""
    from PIL import Image

    from refseg.thumbnails import as_data_uri, as_jpeg

    with Image.open(result["path"]) as sheet:
        picture = as_jpeg(sheet.convert("RGB"))
    outputs = types.Object()
    outputs.str("sheet", label="References", view=types.ImageView(width="100%", alt="References as the encoder sees them"))
    outputs.str("path", label="File")
    shown = types.Property(outputs, view=types.View(label="Inspect prototypes"))
    return shown.to_json(), {"sheet": as_data_uri(picture), "path": result["path"]}
