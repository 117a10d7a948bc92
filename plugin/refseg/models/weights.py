"""Where weights come from, and the refusal of anything that is not weights.

SAM 2 checkpoints come from FiftyOne's model zoo, DINOv2 from the Hugging Face hub at a pinned revision, or either from a
local path. Nothing is unpickled: checkpoints are read with `weights_only=True` or as safetensors.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelUnavailableError, UnsafeCheckpointError
from .presets import Preset

logger = logging.getLogger(__name__)

DINOV2_FILES = ("config.json", "model.safetensors")


def find_sam2_checkpoint(preset: Preset, path: str | Path | None) -> Path:
    """The SAM 2 checkpoint of a preset; downloads it into FiftyOne's model zoo folder where it is not there yet.

    Args:
        preset: whose checkpoint.
        path: a local file to use instead.

    Raises:
        ModelUnavailableError: the file is missing, or the download failed.
    """
    local = path if path is not None else preset.sam2_file
    if local is not None:
        if not Path(local).is_file():
            raise ModelUnavailableError(
                f"There is no SAM 2 checkpoint at {local}: give the path of a .pt or .safetensors file."
            )
        return Path(local)
    import fiftyone.zoo as foz

    try:
        if not foz.is_zoo_model_downloaded(preset.sam2_zoo_name):
            logger.info("Downloading SAM 2 for the preset %s (%d MB)", preset.name, preset.sam2_megabytes)
        _, downloaded = foz.download_zoo_model(preset.sam2_zoo_name)
    except Exception as error:  # the zoo raises whatever its downloader does
        raise ModelUnavailableError(
            f"The preset {preset.name!r} needs the SAM 2 checkpoint {preset.sam2_zoo_name!r} ({preset.sam2_megabytes} MB), "
            "which is not on this machine and could not be downloaded: connect to the internet once, or give a local file "
            "as sam2_path; the preset 'demo' needs no download."
        ) from error
    return Path(downloaded)


def find_dinov2_folder(preset: Preset, path: str | Path | None) -> Path:
    """The folder with `config.json` and `model.safetensors` of a preset's encoder; downloads it where needed.

    Args:
        preset: whose encoder.
        path: a local `save_pretrained` folder to use instead.

    Raises:
        ModelUnavailableError: the folder is missing or incomplete, or the download failed.
    """
    local = path if path is not None else preset.dinov2_repository if preset.dinov2_revision is None else None
    if local is not None:
        missing = [name for name in DINOV2_FILES if not (Path(local) / name).is_file()]
        if missing:
            raise ModelUnavailableError(
                f"The DINOv2 folder {local} lacks {' and '.join(missing)}: give a folder written by save_pretrained."
            )
        return Path(local)
    from huggingface_hub import constants, get_session

    download = _dinov2_download(preset)
    cached = _cached_dinov2(preset)
    if cached is not None:
        return cached
    logger.info("Downloading DINOv2 for the preset %s (%d MB)", preset.name, preset.dinov2_megabytes)
    try:
        # Asked once and without the client's retries, which would take 25 seconds to say that there is no network.
        get_session().head(constants.ENDPOINT, timeout=10)
        return Path(str(download()))
    except Exception as error:  # the hub client has a dozen ways to say that there is no network
        raise ModelUnavailableError(
            f"The preset {preset.name!r} needs {preset.dinov2_repository} ({preset.dinov2_megabytes} MB), which is not on this "
            "machine and could not be downloaded: connect to the internet once, or give a local folder as dinov2_path; the "
            "preset 'demo' needs no download."
        ) from error


def wrong_weights(preset: Preset, sam2_path: str | Path | None, dinov2_path: str | Path | None) -> list[str]:
    """A sentence for each of a preset's two models that is to be on this machine, and is not."""
    wrong = []
    if sam2_path is not None or preset.sam2_file is not None:
        wrong += _complaint(find_sam2_checkpoint, preset, sam2_path)
    if dinov2_path is not None or preset.dinov2_revision is None:
        wrong += _complaint(find_dinov2_folder, preset, dinov2_path)
    return wrong


def missing_weights(preset: Preset, sam2_path: str | Path | None, dinov2_path: str | Path | None) -> list[str]:
    """A sentence for each of a preset's two models that is to be downloaded; downloads nothing."""
    missing = []
    if sam2_path is None and preset.sam2_file is None:
        import fiftyone.zoo as foz

        if not foz.is_zoo_model_downloaded(preset.sam2_zoo_name):
            missing.append(_not_here(preset, f"the SAM 2 checkpoint {preset.sam2_zoo_name!r}", preset.sam2_megabytes))
    if dinov2_path is None and preset.dinov2_revision is not None and _cached_dinov2(preset) is None:
        missing.append(_not_here(preset, preset.dinov2_repository, preset.dinov2_megabytes))
    return missing


def _complaint(find: Callable[[Preset, str | Path | None], Path], preset: Preset, path: str | Path | None) -> list[str]:
    try:
        find(preset, path)
    except ModelUnavailableError as error:
        return [str(error)]
    return []


def _not_here(preset: Preset, what: str, megabytes: int) -> str:
    return f"The preset {preset.name!r} needs {what}, which is not on this machine yet: {megabytes} MB are to be downloaded."


def _dinov2_download(preset: Preset) -> Callable[..., str]:
    from huggingface_hub import snapshot_download

    download: Callable[..., str] = partial(
        snapshot_download, preset.dinov2_repository, revision=preset.dinov2_revision, allow_patterns=list(DINOV2_FILES)
    )
    return download


def _cached_dinov2(preset: Preset) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(str(_dinov2_download(preset)(local_files_only=True)))
    except LocalEntryNotFoundError:
        return None
    # An interrupted download leaves a folder with some of them.
    return cached if all((cached / name).is_file() for name in DINOV2_FILES) else None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint of tensors: safetensors, or Meta's `{"model": {name: tensor}}`.

    Raises:
        UnsafeCheckpointError: it holds anything but tensors by name, or is damaged.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise UnsafeCheckpointError(f"{path} is not a complete safetensors file ({error}): get it again.") from error
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{path} holds more than tensors and was not opened: use a checkpoint from its publisher, or safetensors."
        ) from error
    except Exception as error:  # bytes that are no checkpoint end in anything from KeyError to struct.error
        raise UnsafeCheckpointError(f"{path} is not a complete checkpoint ({error}): get it again.") from error
    if isinstance(content, dict) and set(content) == {"model"}:
        content = content["model"]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UnsafeCheckpointError(
            f"{path} holds more than tensors and was refused: a checkpoint is a dictionary of tensors, alone or under 'model'."
        )
    return {str(name): value for name, value in content.items()}
