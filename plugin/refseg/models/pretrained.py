"""Folders that `save_pretrained` of transformers wrote: read as nothing but tensors, offline, or refused by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelUnavailableError, UnsafeCheckpointError


def read_dinov2(folder: Path) -> nn.Module:
    """The encoder of a folder, in float32.

    Raises:
        UnsafeCheckpointError: the folder holds something else, or tensors are missing or left over.
    """
    model, report = read_pretrained("Dinov2Model", folder, "DINOv2", attn_implementation="sdpa")
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]} - {"embeddings.mask_token"})
    if wrong:
        raise UnsafeCheckpointError(f"{folder} belongs to another model than DINOv2: it lacks or adds {wrong[0]!r}.")
    return model


def read_pretrained(class_name: str, folder: Path, what: str, **options: Any) -> tuple[nn.Module, dict[str, Any]]:
    """A model of transformers from a folder, in float32.

    Args:
        class_name: of the model, in transformers.
        folder: with `config.json` and `model.safetensors`.
        what: the model's name for people.
        **options: of `from_pretrained`.

    Returns:
        The model, and what transformers reports of tensors that are missing or left over.

    Raises:
        ModelUnavailableError: the installed transformers has no such model.
        UnsafeCheckpointError: the folder cannot be read as one.
    """
    from safetensors import SafetensorError

    model_class: Any = class_of(class_name, what)
    try:
        loaded: Any = _without_bars(
            lambda: model_class.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise UnsafeCheckpointError(f"{folder} does not hold a {what} that can be read: {error}") from error
    model, report = loaded
    assert isinstance(model, nn.Module)
    return model, report


def class_of(class_name: str, what: str) -> Any:
    """A class of transformers by its name.

    Raises:
        ModelUnavailableError: the installed version has none.
    """
    transformers = importlib.import_module("transformers")
    try:
        return getattr(transformers, class_name)
    except AttributeError as error:
        raise ModelUnavailableError(
            f"{what} needs a later transformers than {transformers.__version__}: type `pip install --upgrade transformers`."
        ) from error


def _without_bars(read: Callable[[], Any]) -> Any:
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar of a hundredth of a second
    try:
        return read()
    finally:
        if shows_bars:
            logging.enable_progress_bar()
