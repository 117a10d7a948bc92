"""Pieces of the forms, shared by the operators. They run at each keystroke and before each execution, so they stay cheap.

A field that is wrong carries a sentence saying so: the App shows it under the field, Python gets it in the error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types

from ..running import library
from . import allowed_folders
from .selection import collection, shows_frames

OBJECT_TYPES = (fo.Detections, fo.Detection, fo.Polylines, fo.Polyline)


class Form:
    """The inputs of one operator."""

    def __init__(self, ctx: Any, label: str, description: str, action: str | None = None) -> None:
        """Start a form.

        Args:
            ctx: FiftyOne's execution context.
            label: the form's title.
            description: what the operator does, in one or two sentences.
            action: a verb for the choice of images; None where there is no such choice.
        """
        self.ctx = ctx
        self.inputs = types.Object()
        self._view = types.View(label=label, description=description)
        problem = dataset_problem(ctx)
        self.usable = problem is None
        """Whether the other inputs can be asked for at all."""
        if problem is not None:
            self.obstacle("dataset_problem", problem)
        elif action is not None:
            self.inputs.view_target(ctx, action_description=action, require_flat=True)
            if ctx.view._is_patches:
                self.notice("patches", "The open view holds patches: the images that they were cut from are taken, as a whole")

    def done(self) -> types.Property:
        """What resolve_input returns; a place that may not be named is refused even where the form does not ask for it."""
        for name in allowed_folders.PLACES:
            if name not in self.inputs.properties and (problem := allowed_folders.refusal(self.ctx, name)):
                self.obstacle(name, problem)
        return types.Property(self.inputs, view=self._view)

    def value(self, name: str, default: Any = None) -> Any:
        """A parameter; an input that was emptied counts as not given."""
        value = self.ctx.params.get(name)
        return default if value is None or value == "" else value

    def choice(
        self,
        name: str,
        choices: Sequence[str] | Mapping[str, str],
        default: str | None,
        label: str,
        description: str,
        if_none: str,
    ) -> None:
        """A dropdown.

        Args:
            name: of the parameter.
            choices: values, or values and what they are called.
            default: chosen at first.
            label: of the field.
            description: its help.
            if_none: the sentence shown where there is nothing to choose from.
        """
        names = dict(choices) if isinstance(choices, Mapping) else {choice: choice for choice in choices}
        view = types.DropdownView()
        for choice, shown in names.items():
            view.add_choice(choice, label=shown)
        value = self.value(name, default)
        problem = None
        if not names:
            problem = if_none
        elif value is None:
            problem = f"Choose {label.lower()}: {', '.join(map(repr, names))}."
        elif value not in names:
            problem = f"{label} must be one of {', '.join(map(repr, names))}, not {value!r}."
        self._field(name, types.String(), label, description, problem, default=default, required=False, view=view)

    def text(
        self,
        name: str,
        default: str | None,
        label: str,
        description: str,
        problem: str | None = None,
        suggestions: Sequence[str] = (),
    ) -> None:
        """A line of text; optional where it has no default."""
        view = None
        if suggestions:
            view = types.AutocompleteView(allow_user_input=True)
            for suggestion in suggestions:
                view.add_choice(suggestion, label=suggestion)
        value = self.value(name, default)
        if value is not None and not isinstance(value, str):
            problem = f"{label} must be text, not {value!r}."
        self._field(name, types.String(), label, description, problem, default=default, required=False, view=view)

    def place(self, name: str, label: str, description: str) -> bool:
        """An optional folder or address, one of PLACES in allowed_folders; returns whether nothing is wrong with it."""
        place = self.value(name)
        problem = None
        if isinstance(place, str):
            takes_addresses = allowed_folders.PLACES[name]
            is_folder = not (takes_addresses and "://" in place)
            path = os.path.expanduser(place)
            if is_folder and not os.path.isabs(path):
                # A delegated job would look for it in another folder.
                example = ", or give an address such as 's3://bucket/parts'" if takes_addresses else ""
                problem = f"{place!r} is not a whole path: begin with '/'{example}."
            else:
                problem = allowed_folders.refusal(self.ctx, name)
            # Of what may not be named, nothing is told either.
            if problem is None and is_folder and os.path.exists(path) and not os.path.isdir(path):
                problem = f"{place!r} is a file: give a folder."
        self.text(name, None, label, description, problem)
        return problem is None

    def number(
        self,
        name: str,
        default: float | None,
        label: str,
        description: str,
        low: float,
        high: float = float("inf"),
        whole: bool = False,
    ) -> None:
        """A number in [low, high]; optional where it has no default."""
        value = self.value(name, default)
        kind = "a whole number" if whole else "a number"
        wanted = f"{kind} of {low} or more" if high == float("inf") else f"{kind} from {low} to {high}"
        fits = value is None or (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and low <= value <= high
            and (not whole or value == int(value))
        )
        problem = None if fits else f"{label} must be {wanted}, not {value!r}."
        self._field(
            name, types.Number(int=whole, float=not whole), label, description, problem, default=default, required=False
        )

    def switch(self, name: str, default: bool, label: str, description: str, problem: str | None = None) -> bool:
        """A checkbox; returns its value."""
        self._field(name, types.Boolean(), label, description, problem, default=default, required=False)
        return bool(self.value(name, default))

    def header(self, name: str, text: str, description: str) -> None:
        """A title above the inputs that follow."""
        self.inputs.view(name, types.Header(label=text, description=description, divider=True))

    def notice(self, name: str, text: str) -> None:
        """A line that informs."""
        self.inputs.view(name, types.Notice(label=text))

    def warning(self, name: str, text: str) -> None:
        """A line that warns, and lets the user go on."""
        self.inputs.view(name, types.Warning(label=text))

    def obstacle(self, name: str, text: str) -> None:
        """A line that says why the operator cannot be executed."""
        self.inputs.view(name, types.Error(label=text), invalid=True, error_message=text)

    def names(self, name: str, label: str, description: str, known: Sequence[str] | None = None) -> None:
        """An optional list of names; with `known`, of these classes of prototypes alone."""
        value = self.value(name)
        fits = value is None or (isinstance(value, list | tuple) and all(isinstance(item, str) for item in value))
        problem = None if fits else f"{label} must be a list of names, not {value!r}."
        if fits and known is not None:
            problem = next((unknown_class(item, known) for item in value or () if item and item not in known), None)
        self._field(name, types.List(types.String()), label, description, problem, required=False)

    def numbers(self, name: str, label: str, description: str, each: int, most: int | None = None) -> None:
        """An optional list of numbers from 0 to 1, so many for each thing that is named, and at most so many things."""
        value = self.value(name)
        fits = value is None or (
            isinstance(value, list | tuple)
            and all(isinstance(item, int | float) and not isinstance(item, bool) and 0 <= item <= 1 for item in value)
            and len(value) % each == 0
            and len(value) <= each * (most or len(value))
        )
        wanted = f"{each} numbers from 0 to 1" if most == 1 else f"{each} numbers from 0 to 1 for each"
        problem = None if fits else f"{label} must be {wanted}, not {value!r}."
        self._field(name, types.List(types.Number(float=True)), label, description, problem, required=False)

    def _field(self, name: str, kind: Any, label: str, description: str, problem: str | None, **settings: Any) -> None:
        if problem is not None:
            settings |= {"invalid": True, "error_message": problem}
        self.inputs.define_property(name, kind, label=label, description=description, **settings)


def dataset_problem(ctx: Any) -> str | None:
    """Why nothing can be done with what is open, or None."""
    missing = library.problem()
    if missing is not None:
        return missing
    dataset = ctx.dataset
    if dataset is None:
        return "No dataset is open: open one first."
    from refseg.dataset import has_samples

    if not has_samples(dataset):
        return f"The dataset {dataset.name!r} is empty: add images first."
    if shows_frames(ctx):
        return _frames_problem(ctx)
    media = ctx.active_media_type
    if media == "video":
        return (
            f"The dataset {dataset.name!r} holds media of type 'video' here, but RefSeg needs images: open a view of "
            "its frames, dataset.to_frames(sample_frames=True)."
        )
    if media != "image":
        return f"The dataset {dataset.name!r} holds media of type {media!r} here, but RefSeg needs images."
    return None


def _frames_problem(ctx: Any) -> str | None:
    """Why frames cannot be used: only those that lie on disk can."""
    from refseg.dataset import image_view
    from refseg.errors import DatasetError

    try:
        image_view(collection(ctx))
    except DatasetError as error:
        return str(error)
    return None


def object_fields(ctx: Any, kinds: tuple[type, ...] = OBJECT_TYPES) -> list[str]:
    """Names of the fields that hold objects."""
    schema = collection(ctx).get_field_schema(ftype=fo.EmbeddedDocumentField)
    return [name for name, field in schema.items() if field.document_type in kinds]


def unknown_class(name: str, known: Sequence[str]) -> str:
    """What to say of a class that prototypes do not know."""
    return f"The prototypes know no class {name!r}: choose from {', '.join(map(repr, known))}."
