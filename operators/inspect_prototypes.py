"""Look at kept prototypes: their references as the encoder sees them, what they are worth, and what would help."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from .forms.form import Form
from .forms.inputs import kept_prototypes
from .forms.inspections import keep_inspection
from .forms.messages import count, listing
from .forms.selection import all_images, chosen_classes, collection
from .running.base import RefSegOperator, Result, Work, came_from_app

if TYPE_CHECKING:
    from PIL import Image

    from refseg.insight import PrototypeReport

ROWS_A_SHEET = 240
"""References on one sheet: a picture of 36,000 pixels' height, about four megabytes for the App."""
SHOTS_SHOWN = 40
NUM_PARTS = 4
NUM_SUGGESTIONS = 12
SUGGESTIONS_FIELD = "suggestions"


class InspectPrototypes(RefSegOperator):
    """Shows each reference's crop, patch features and parts, which look like mistakes or hurt, and what to label next."""

    title = "Inspect prototypes"
    summary = "See what the encoder sees in each reference, which of them hurt, and what to label next"
    kept_when_cancelled = "no sheet was written"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which prototypes and classes; what is known of their references already."""
        form = Form(
            ctx,
            "Inspect prototypes",
            "Show each reference's crop, features and parts, how it fits, and what would help",
        )
        if form.usable:
            name = prototypes_input(form, "Whose references are shown")
            _classes_input(form, name)
            form.number("num_parts", NUM_PARTS, "Parts", "That the objects of a class are divided into", 1, 8, whole=True)
            _suggestions_input(form)
            if name is not None:
                _known_problems(form, name)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Draw the sheet and the report, write both under the dataset's folder, and the report's fields where asked for."""
        from refseg.dataset import dataset_folder, load_prototypes, whole_config
        from refseg.insight import reference_quality, why_it_hurts
        from refseg.progress import Progress
        from refseg.runs import inspection_sheet, iter_inspect, iter_inspect_references, write_fields

        name = ctx.params.get("prototypes") or kept_prototypes(ctx)[-1]
        prototypes = load_prototypes(ctx.dataset, name)
        classes = chosen_classes(ctx)
        num_parts = int(ctx.params.get("num_parts") or NUM_PARTS)
        shots = max(1, min(SHOTS_SHOWN, ROWS_A_SHEET // len(classes or prototypes.classes)))
        found = yield from iter_inspect_references(
            all_images(ctx), prototypes, classes=classes, num_parts=num_parts, max_references=shots
        )
        wanted = ctx.params.get("num_suggestions")
        num_suggestions = NUM_SUGGESTIONS if wanted is None else int(wanted)
        report = yield from iter_inspect(prototypes, all_images(ctx), num_suggestions=num_suggestions)
        yield Progress(0, 1, "sheet")
        folder = dataset_folder(ctx.dataset) / "inspection"
        path = _sheet_path(folder, name, classes, num_parts)
        picture_path = dataset_folder(ctx.dataset) / "reports" / f"{name}.png"
        _save(inspection_sheet(found.references), path)
        _save(report.picture(), picture_path)
        written = write_fields(report, collection(ctx), SUGGESTIONS_FIELD) if ctx.params.get("write_fields") else None
        sha256 = whole_config(ctx.dataset, name).get("sha256")
        keep_inspection(ctx, name, sha256, report, {"report": str(picture_path), "references": str(path)})
        yield Progress(1, 1, "sheet")
        chosen = set(classes or prototypes.classes)
        quality = [list(astuple(item)) for item in reference_quality(prototypes) if item.label in chosen]
        return {
            "prototypes": name,
            "path": str(path),
            "num_shown": len(found.references),
            "num_left_out": found.num_left_out,
            "quality": quality,
            "names": {item.id: item.place for item in report.references if item.label in chosen},
            "skipped": [list(pair) for pair in found.skipped],
            "picture": str(picture_path),
            "report": str(report),
            "confused": None if report.confusion is None else str(report.confusion),
            "hurting": [[item.id, item.label, item.f1_change, why_it_hurts(item), item.place] for item in report.hurting],
            "notes": list(report.notes),
            "suggestions": _suggestion_rows(report),
            "written": None if written is None else asdict(written),
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show the report, the sheet and, where they were written, the suggestions; say which references look like mistakes.

        The pictures are shown where somebody filled the form; the panel has a view of its own for what was found.
        """
        if result["written"] is not None:
            from refseg.runs import suggestion_patches

            yield ctx.ops.reload_dataset()
            if result["suggestions"]:
                yield ctx.ops.set_view(view=suggestion_patches(collection(ctx), result["written"]["label_field"]))
        if came_from_app(ctx):
            yield ctx.ops.show_output(*_shown(result))
        is_fine = not _problems(result["quality"], result["names"]) and not result["hurting"]
        text = describe(result) if came_from_app(ctx) else describe_briefly(result)
        yield ctx.ops.notify(text, variant="success" if is_fine else "warning")

    def __call__(
        self,
        sample_collection: Any,
        prototypes: str | None = None,
        classes: Sequence[str] | None = None,
        num_parts: int = NUM_PARTS,
        num_suggestions: int = NUM_SUGGESTIONS,
        write_fields: bool = False,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Draw the references of kept prototypes as the encoder sees them, and report what they are worth: `refseg.inspect`.

        Args:
            sample_collection: the dataset.
            prototypes: the name under which the dataset keeps them; by default the newest.
            classes: only these, with the negatives that count for them.
            num_parts: parts that the objects of a class are divided into.
            num_suggestions: candidates of the index to suggest as references, at most.
            write_fields: write the report to the labels of references and the suggestions to the field `suggestions`, in place
                of what was written before; `refseg.delete_fields` takes it back.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `prototypes`, `path` (of
            the sheet, a PNG file), `num_shown`, `num_left_out` (references beyond the forty of a class that are least like it),
            `quality` (a row for each reference: id, class, similarity to the others of its class, nearest other class,
            similarity to that, problem; None where there is none), `names` (what each is called, by id) and `skipped` (pairs of
            an id and a reason). Of the report it holds `picture` (a PNG file), `report` (the whole text), `confused` (a
            sentence or None), `hurting` (a row for each reference that hurts: id, class, by how much F1 is higher without it,
            a sentence, what it is called), `notes`, `suggestions` (a row for each: sample id, class, score, expected change,
            reason; None where none could be looked for) and `written` (what was written where, or None).
        """
        return self.call(locals())


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
    problems = _problems(result["quality"], result["names"])
    text = f"Prototypes {result['prototypes']!r}: {count(result['num_shown'], 'reference')} shown, "
    if problems:
        verb = "looks" if len(problems) == 1 else "look"
        text += f"{len(problems):,} {verb} like a mistake: {listing(problems)}."
    else:
        text += "none looks like a mistake."
    if result["num_left_out"]:
        text += f" Not shown: {result['num_left_out']:,} that are more like the others of their class."
    if result["skipped"]:
        reasons = listing([f"{reason} ({label_id})" for label_id, reason in result["skipped"]])
        text += f" Left out {count(len(result['skipped']), 'reference')}: {reasons}."
    if result["hurting"]:
        text += f" References that hurt: {listing([_hurting(row) for row in result['hurting']])}."
    if result["confused"]:
        text += f" Most confused: {result['confused']}."
    return text


def describe_briefly(result: Result) -> str:
    """The same in one sentence, where the rest is shown beside it."""
    wrong = {row[0] for row in result["quality"] if row[5]} | {row[0] for row in result["hurting"]}
    verb = "hurts or looks" if len(wrong) == 1 else "hurt or look"
    found = f"{count(len(wrong), 'reference')} {verb} like a mistake" if wrong else "no reference hurts"
    suggested = f", {count(len(result['suggestions']), 'suggestion')}" if result["suggestions"] else ""
    return f"Inspected the prototypes {result['prototypes']!r}: {found}{suggested}."


def _hurting(row: Sequence[Any]) -> str:
    return f"{row[4]}, {row[3]}"


def _suggestion_rows(report: PrototypeReport) -> list[list[Any]] | None:
    if report.suggestions is None:
        return None
    return [[item.sample_id, item.label, item.score, item.expected_change, item.reason] for item in report.suggestions]


def _problems(quality: Sequence[Sequence[Any]], names: Mapping[str, str]) -> list[str]:
    return [f"{names.get(row[0]) or f'one of {row[1]!r}'} is {row[5]}" for row in quality if row[5]]


def _classes_input(form: Form, prototypes: str | None) -> None:
    form.names("classes", "Classes", "Only these; leave it empty for every class")
    given = form.value("classes")
    if prototypes is not None and isinstance(given, list | tuple):
        known = classes_of(form.ctx, prototypes)
        unknown = [name for name in given if name and name not in known]
        if unknown:
            text = f"The prototypes have no class {unknown[0]!r}: choose of {', '.join(map(repr, known))}."
            form.obstacle("unknown_class", text)


def _suggestions_input(form: Form) -> None:
    description = "Candidates of the index to suggest as the next references, at most; 0 for none"
    form.number("num_suggestions", NUM_SUGGESTIONS, "Suggestions", description, 0, whole=True)
    problem = None
    if form.value("write_fields") and not _may_write(collection(form.ctx)):
        problem = f"The field {SUGGESTIONS_FIELD!r} was not written by this operator, and would be cleared: rename it first."
    description = "Note on each reference's label how it fares, and show the suggestions, in place of those written before"
    form.switch("write_fields", False, "Write fields", description, problem)


def _may_write(dataset: Any) -> bool:
    from refseg.dataset import INSPECTING, past_runs

    return dataset.get_field(SUGGESTIONS_FIELD) is None or bool(past_runs(dataset, [INSPECTING], SUGGESTIONS_FIELD))


def _known_problems(form: Form, prototypes: str) -> None:
    rows = getattr(form.ctx.dataset.get_run_info(prototypes).config, "quality", None)
    if rows is None:
        form.notice("problems", "These prototypes were kept before references were judged: build them again to have that.")
    elif problems := _problems(rows, {}):
        form.warning("problems", f"Look at {count(len(problems), 'reference')} again: {listing(problems)}.")
    else:
        form.notice("problems", f"None of {count(len(rows), 'reference')} looks like a mistake.")


def _sheet_path(folder: Path, name: str, classes: list[str] | None, num_parts: int) -> Path:
    """One file for each choice, replaced when it is made again."""
    choice = hashlib.sha256(json.dumps([classes, num_parts]).encode()).hexdigest()[:8]
    return folder / f"{name}_{choice}.png"


def _save(page: Image.Image, path: Path) -> None:
    """Write a PNG file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part.png")
    page.save(draft)
    draft.replace(path)


def as_shown(path: str) -> str:
    """A PNG file as a JPEG, which takes a tenth of the size, as the address of itself."""
    from PIL import Image

    from refseg.images import as_data_uri, as_jpeg

    with Image.open(path) as page:
        return as_data_uri(as_jpeg(page.convert("RGB")))


def _shown(result: Result) -> tuple[Any, dict[str, str]]:
    """What the App shows, and its values."""
    outputs = types.Object()
    values = {"picture": as_shown(result["picture"]), "sheet": as_shown(result["path"]), "path": result["path"]}
    sentences = {
        "hurting": ("References that hurt", "; ".join(_hurting(row) for row in result["hurting"])),
        "confused": ("Most confused", result["confused"]),
        "notes": ("Notes", "; ".join(result["notes"])),
    }
    for name, (label, text) in sentences.items():
        if text:
            outputs.str(name, label=label)
            values[name] = text
    outputs.str("picture", label="Report", view=types.ImageView(width="100%", alt="What the prototypes are worth"))
    outputs.str("sheet", label="References", view=types.ImageView(width="100%", alt="References as the encoder sees them"))
    outputs.str("path", label="File")
    shown = types.Property(outputs, view=types.View(label="Inspect prototypes"))
    return shown.to_json(), values
