"""Weights from files: which a dataset's jobs load in the place of a download, kept with the dataset by model.

Whatever loads a model by its name within `with_files` gets them, in the server and in the delegated service alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, TypeVar

from .allowed_folders import refusal
from .constants import FAST, MODELS_OF_FOLDERS

STORE = "refseg_weights"
PLACES_OF_WEIGHTS = ("sam2_path", "dinov2_path")
FOLDER_FILES = ("config.json", "model.safetensors")

Report = TypeVar("Report")


def named_weights(model: str) -> dict[str, tuple[str, str]]:
    """What `sam2_path` and `dinov2_path` are of a model: what they are called in forms, and what they have to be."""
    folder = "A folder that save_pretrained wrote"
    checkpoint = ("SAM 2 checkpoint", "A .pt or .safetensors file")
    return {
        "sam2_path": ("Segmenter folder", folder) if model in MODELS_OF_FOLDERS else checkpoint,
        "dinov2_path": ("DINOv2 folder", folder),
    }


def files_of(ctx: Any, model: str) -> dict[str, Any]:
    """What is kept for a model, or its variant that is asked at fewer prompts.

    Returns:
        `sam2_path` and `dinov2_path`, each None where it is downloaded, and `since`, seconds since the epoch, 0 for always.
    """
    kept = ctx.store(STORE).get(model.removesuffix(FAST)) or {}
    return {"sam2_path": None, "dinov2_path": None, "since": 0.0, **kept}


def keep_files(ctx: Any, model: str, given: Mapping[str, str | None]) -> None:
    """Keep files for a model from now on.

    Args:
        ctx: FiftyOne's execution context.
        model: a preset's name.
        given: a path by `sam2_path` or `dinov2_path`; None or "" for the download.
    """
    before = files_of(ctx, model)
    after = before | {name: os.path.expanduser(path) if path else None for name, path in given.items()}
    if after != before:
        ctx.store(STORE).set(model.removesuffix(FAST), after | {"since": time.time()})


def keep_given_files(ctx: Any) -> None:
    """Keep what an operator's parameters name for its model, an empty text for the download.

    Raises:
        refseg.errors.DatasetError: one cannot be used, or no model is named.
    """
    from refseg.errors import DatasetError

    given = {name: ctx.params[name] for name in PLACES_OF_WEIGHTS if ctx.params.get(name) is not None}
    if not given or ctx.params.get("without_download") is False:
        # What was typed before the form's switch was turned off again does not count.
        return
    for name in given:
        if problem := problem_of(ctx, name, ctx.params.get("model")):
            raise DatasetError(problem)
    if not ctx.params.get("model"):
        raise DatasetError(f"{' and '.join(given)} are files of a model: say which, as model.")
    keep_files(ctx, ctx.params["model"], given)


def problem_of(ctx: Any, name: str, model: str | None) -> str | None:
    """Why the file or folder that a parameter names for a model cannot be used, in one sentence.

    Returns:
        None where it can, or none is named.
    """
    place = ctx.params.get(name)
    if place is None or place == "":
        return None
    if not isinstance(place, str) or not os.path.isabs(os.path.expanduser(place)):
        return f"{place!r} is not a whole path: begin with '/'."
    # Of what may not be named, nothing is told either.
    if refused := refusal(ctx, name):
        return refused
    path = Path(os.path.expanduser(place))
    if name == "sam2_path" and model not in MODELS_OF_FOLDERS:
        return None if path.is_file() else f"There is no file at {place!r}: give a SAM 2 checkpoint, .pt or .safetensors."
    missing = [file for file in FOLDER_FILES if not (path / file).is_file()]
    if not missing:
        return None
    whose = "DINOv2" if name == "dinov2_path" else f"the segmenter of {model!r}"
    return f"The folder {place!r} lacks {' and '.join(missing)}: give one of {whose} that save_pretrained wrote."


def using_files(ctx: Any) -> AbstractContextManager[None]:
    """Within it models that are loaded by their names come from the files kept with the context's dataset."""
    from refseg.models import local_weights

    store = ctx.store(STORE)
    kept = {name: store.get(name) or {} for name in store.list_keys()}
    return local_weights({name: (about.get("sam2_path"), about.get("dinov2_path")) for name, about in kept.items()})


def with_files(ctx: Any, work: Generator[Any, None, Report]) -> Generator[Any, None, Report]:
    """The same work with these files. Each step by itself, because FiftyOne may take the next one in another thread."""
    with closing(work):
        while True:
            with using_files(ctx):
                try:
                    step = next(work)
                except StopIteration as end:
                    report: Report = end.value
                    return report
            yield step
