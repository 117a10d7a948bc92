"""How images of more than 8 bits, or more than three bands, are read: asked for only where a dataset has some.

A look at the headers of a few files tells, once in a while: forms are made anew at each keystroke.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .constants import PROTOTYPES_METHOD
from .indexes import find_record, index_records, record_pixels
from .selection import collection, every_sample, shows_frames

if TYPE_CHECKING:
    from refseg.images import PixelSettings

    from .form import Form

FILES_LOOKED_AT = 24
"""Drawn at random: a dataset's images are mostly of one kind."""
SECONDS_KEPT = 60
"""After which a dataset that needed neither setting is looked at again."""
FIRST_THREE = (0, 1, 2)
"""The bands that are shown where none are chosen."""

Needs = tuple[bool, bool]
"""Whether some images need a range of pixels, and some a choice of bands."""

_looks: dict[tuple[str, bool, int], tuple[float, Needs]] = {}


def pixel_params(pixel_range: Sequence[float] | None, channels: Sequence[int] | None) -> dict[str, str | None]:
    """The form's two lines of text, from a caller in Python."""
    return {"pixel_range": _as_text(pixel_range), "channels": _as_text(channels)}


def given_pixels(params: Mapping[str, Any]) -> PixelSettings:
    """What the parameters say of pixels; plain where they say nothing.

    Raises:
        DatasetError: they say what cannot be.
    """
    from refseg.images import pixel_settings

    return pixel_settings(_numbers(params.get("pixel_range")), _numbers(params.get("channels")))  # type: ignore[arg-type]


def index_pixels(ctx: Any) -> PixelSettings:
    """How an index will be built, by what the App can tell: the library itself keeps to what was before.

    Raises:
        DatasetError: the parameters say what cannot be.
    """
    return given_pixels(ctx.params).after(_kept_pixels(ctx))


def pixel_inputs(form: Form, *, prototypes: str | None = None, model: str | None = None) -> None:
    """The range of pixels and the bands, where the dataset's images need them, or anything was said of them already.

    Args:
        form: to add to.
        prototypes: that the images are compared with, whose references were read in one way.
        model: of the index that is compared with the prototypes to be built.
    """
    has_deep, has_bands = _needs(form.ctx)
    held = [*_held_prototypes(form.ctx, prototypes), *_held_index(form.ctx, model, has_bands)]
    kept = held[0].pixels if prototypes is not None and held else _kept_pixels(form.ctx)
    if has_deep or kept.pixel_range is not None or form.value("pixel_range") is not None:
        default = "what all images suggest" if kept.pixel_range is None else "{:g} {:g}, as before".format(*kept.pixel_range)
        description = "Values of black and white where images of more than 8 bits do not say it, such as 0 4095; by default "
        form.text("pixel_range", None, "Pixel range", description + default, _problem(form, "pixel_range", held))
    if has_bands or kept.channels is not None or form.value("channels") is not None:
        default = "the first three" if kept.channels is None else f"{_as_text(kept.channels)}, as before"
        description = "Bands for red, green and blue, or one to be shown grey, counted from 0, such as 3 2 1; by default "
        form.text("channels", None, "Channels", description + default, _problem(form, "channels", held))
        if prototypes is not None and kept.channels is None and has_bands and form.value("channels") is not None:
            form.warning(
                "channels_of_references",
                f"The prototypes {prototypes!r} were built with no channels chosen: if their references have more than three "
                "bands too, build them anew with these.",
            )


@dataclass(frozen=True)
class _Held:
    """What the images will be compared with: its name and verb, how it was read, and how it would come to be read otherwise."""

    what: str
    pixels: PixelSettings
    otherwise: str


def _held_prototypes(ctx: Any, name: str | None) -> list[_Held]:
    from refseg.images import PixelSettings

    config = None if name is None else ctx.dataset.get_run_info(name).config
    # Those kept by an earlier version do not tell, and the run does.
    if not hasattr(config, "pixels"):
        return []
    return [_Held(f"The prototypes {name!r} were built", PixelSettings.from_lists(config.pixels), "build them anew with this")]


def _held_index(ctx: Any, model: str | None, has_bands: bool) -> list[_Held]:
    record = None if model is None else find_record(ctx, model, borrows=True)
    if record is None:
        return []
    pixels = record_pixels(record)
    if has_bands and pixels.channels is None:
        # What nobody chose are the first three, and these are not what was chosen.
        pixels = replace(pixels, channels=FIRST_THREE)
    return [_Held(f"The index for the model {record.model!r} was built", pixels, "run 'Build index' with this first")]


def _problem(form: Form, name: str, held: Sequence[_Held]) -> str | None:
    """What is wrong with one of the two, or None."""
    from refseg.errors import DatasetError

    if not isinstance(form.value(name), str):
        return None
    try:
        given = given_pixels({name: form.value(name)})
    except DatasetError as error:
        return str(error)
    for one in held:
        if not one.pixels.fits(given):
            return f"{one.what} with {one.pixels}: leave this empty, or {one.otherwise}."
    return None


def _kept_pixels(ctx: Any) -> PixelSettings:
    """How the dataset's images were read before: by the index used last that says so, else for the newest prototypes."""
    from refseg.dataset import past_runs
    from refseg.images import PixelSettings

    said = [record.pixels for record in index_records(ctx) if record.pixels]
    if not said:
        said = [run.config.get("pixels") for run in past_runs(ctx.dataset, [PROTOTYPES_METHOD])]
    return PixelSettings.from_lists(said[-1] if said else None)


def _needs(ctx: Any) -> Needs:
    """What some images of the dataset need; the answer of a moment ago is taken again, one that found a need for good."""
    from refseg.images import pixel_needs

    dataset = collection(ctx)
    key = str(ctx.dataset._doc.id), shows_frames(ctx), dataset._dataset._sample_collection.estimated_document_count()
    seen, needs = _looks.get(key, (0.0, (False, False)))
    if not any(needs) and (key not in _looks or time.monotonic() - seen > SECONDS_KEPT):
        paths = every_sample(ctx).mongo([{"$sample": {"size": FILES_LOOKED_AT}}]).values("filepath")
        needs = pixel_needs(paths)
        _looks[key] = time.monotonic(), needs
    return needs


def _as_text(values: Any) -> str | None:
    """Numbers as one types them; what is something else is left for the form to refuse."""
    if values is None or isinstance(values, str):
        return values
    try:
        return " ".join(map(str, values))
    except TypeError:
        return str(values)


def _numbers(text: Any) -> list[Any] | None:
    """The numbers of a line, with or without commas and brackets; words among them stay words."""
    if not isinstance(text, str) or not text.strip():
        return None
    return [_number(word) for word in text.strip().strip("()[]").replace(",", " ").split()]


def _number(word: str) -> float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
