"""Arguments that several subcommands of `refseg` have in common. Nothing heavy is imported."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from .errors import RefSegError
from .matching import CHOICES, MatchSettings, settings_for

STRICT_HELP = "stop where an annotation cannot be used; by default it is left out and listed"


class UsageError(RefSegError):
    """An argument that cannot be."""


def add_model_arguments(group: argparse._ArgumentGroup, default: str) -> None:
    """Which models, and where they are."""
    presets = "demo, tiny, small, base, large, edge, sam3, paper, or any but the last with -fast behind it (%(default)s)"
    group.add_argument("--model", default=default, metavar="PRESET", help=presets)
    group.add_argument("--device", metavar="NAME", help="such as cuda:1; by default CUDA, MPS or the CPU")
    sam2_help = "a SAM 2 checkpoint, or for edge and sam3 a folder, instead of the download"
    group.add_argument("--sam2-path", type=Path, metavar="PATH", help=sam2_help)
    group.add_argument("--dinov2-path", type=Path, metavar="DIR", help="a DINOv2 folder instead of the download")


def add_pixel_arguments(group: argparse._ArgumentGroup) -> None:
    """How images of more than 8 bits, or more than three bands, are read."""
    range_help = "values of black and white in images of more than 8 bits that do not say it; by default found from all of them"
    group.add_argument("--pixel-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=range_help)
    channels_help = "bands of TIFFs with more than three, counted from 0: for red, green and blue, or one; by default 0 1 2"
    group.add_argument("--channels", type=whole_number, nargs="+", metavar="BAND", help=channels_help)


def pixels_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was said of pixels, as fields of a job; None where nothing was, or the subcommand does not ask."""
    given = vars(arguments)
    return {name: None if given.get(name) is None else tuple(given[name]) for name in ("pixel_range", "channels")}


def add_matching_arguments(group: argparse._ArgumentGroup) -> None:
    """How candidates are compared with prototypes."""
    background_help = "drop masks that are more like the surroundings of references than like any class"
    group.add_argument("--background", action=argparse.BooleanOptionalAction, help=background_help)
    similarity_help = "with which references of a class a mask is compared: their mean, the nearest three, or groups of them"
    group.add_argument("--class-similarity", choices=CHOICES["class_similarity"], help=similarity_help)
    overlaps_help = "what a mask loses that lies in better ones: as published, or along chains of masks"
    group.add_argument("--overlaps", choices=CHOICES["overlaps"], help=overlaps_help)
    look_help = "look at the best masks of each image again, as crops, and score them by that, where scores are probabilities"
    group.add_argument("--second-look", action=argparse.BooleanOptionalAction, help=look_help)
    whiten_help = "compare second looks by what sets them apart from everything else in the images"
    group.add_argument("--whiten", action=argparse.BooleanOptionalAction, help=whiten_help)


MATCHING = ("background", "class_similarity", "scenes", "overlaps", "second_look", "whiten")


def matching_of(arguments: argparse.Namespace) -> MatchSettings | None:
    """What was chosen, on top of what suits the preset; None where nothing was."""
    given = vars(arguments)
    keys = {name: name for name in MATCHING} | {"calibrated": "calibration"}
    chosen: dict[str, Any] = {name: given[key] for name, key in keys.items() if given.get(key) is not None}
    if not chosen:
        return None
    from .models import get_preset

    return replace(settings_for(get_preset(arguments.model).as_published), **chosen)


def score(text: str) -> float:
    """A number between 0 and 1, as an argument."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def count(text: str) -> int:
    """A whole number of 1 or more, as an argument."""
    return _at_least(text, 1)


def whole_number(text: str) -> int:
    """A whole number of 0 or more, as an argument."""
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return value
