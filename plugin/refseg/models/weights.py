"""Where weights come from, and the refusal of anything that is not weights.

SAM 2 checkpoints come from FiftyOne's model zoo, DINOv2 and segmenters of transformers from the Hugging Face hub, or either
from a local path. Nothing is unpickled: checkpoints are read with `weights_only=True` or as safetensors.
"""

from __future__ import annotations

import importlib.util
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelUnavailableError, UnsafeCheckpointError
from .presets import Preset

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
PRETRAINED_FILES = ("config.json", WEIGHTS_FILE)
"""What is needed of a folder that `save_pretrained` wrote."""
TIMM = "timm>=1.0.23,<2"
"""What EdgeTAM's image encoder needs: the extra `edge` of pyproject.toml."""


def find_segmenter(preset: Preset, path: str | Path | None) -> Path:
    """The weights of a preset's segmenter; downloads them where they are not here yet.

    Args:
        preset: whose segmenter.
        path: a local checkpoint, or for a segmenter of transformers a `save_pretrained` folder, to use instead.

    Returns:
        A file, or a folder with `config.json` and `model.safetensors` for a segmenter of transformers.

    Raises:
        ModelUnavailableError: the file or folder is missing or incomplete, the download failed, or a package is missing without
            which it would be of no use.
    """
    require_timm(preset)
    local = path if path is not None else preset.sam2_file
    if preset.is_of_transformers:
        return _whole_folder(local, "segmenter") if local is not None else _from_hub(_segmenter_of(preset))
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
    return _whole_folder(local, "DINOv2") if local is not None else _from_hub(_encoder_of(preset))


def wrong_weights(preset: Preset, sam2_path: str | Path | None, dinov2_path: str | Path | None) -> list[str]:
    """A sentence for each of a preset's two models that cannot be used, or is to be on this machine and is not."""
    wrong = []
    if sam2_path is not None or preset.sam2_file is not None:
        wrong += _complaint(lambda: find_segmenter(preset, sam2_path))
    else:
        wrong += _complaint(lambda: require_timm(preset))
    if dinov2_path is not None or preset.dinov2_revision is None:
        wrong += _complaint(lambda: find_dinov2_folder(preset, dinov2_path))
    return wrong


def missing_weights(preset: Preset, sam2_path: str | Path | None, dinov2_path: str | Path | None) -> list[str]:
    """A sentence for each of a preset's two models that is to be downloaded; downloads nothing."""
    missing = []
    if sam2_path is None and preset.sam2_file is None and not preset.is_of_transformers:
        import fiftyone.zoo as foz

        if not foz.is_zoo_model_downloaded(preset.sam2_zoo_name):
            missing.append(_not_here(preset, f"the SAM 2 checkpoint {preset.sam2_zoo_name!r}", preset.sam2_megabytes))
    on_hub = []
    if sam2_path is None and preset.sam2_file is None and preset.is_of_transformers:
        on_hub.append(_segmenter_of(preset))
    if dinov2_path is None and preset.dinov2_revision is not None:
        on_hub.append(_encoder_of(preset))
    for one in on_hub:
        if one.cached() is None:
            missing.append(_not_here(preset, one.repository, one.megabytes, one.condition))
    return missing


def require_timm(preset: Preset) -> None:
    """Refuse a preset whose image encoder needs timm where that is not installed.

    Raises:
        ModelUnavailableError: it is not.
    """
    if preset.sam2_config == "edgetam" and importlib.util.find_spec("timm") is None:
        raise ModelUnavailableError(
            f'The preset {preset.name!r} needs the package timm, which is not installed: type `pip install "{TIMM}"`, '
            "or install fiftyone-refseg[edge]."
        )


def _complaint(look: Callable[[], object]) -> list[str]:
    try:
        look()
    except ModelUnavailableError as error:
        return [str(error)]
    return []


def _not_here(preset: Preset, what: str, megabytes: int, condition: str = "") -> str:
    needs = f"The preset {preset.name!r} needs {what}, which is not on this machine yet"
    return f"{needs}: {megabytes} MB are to be downloaded{condition and f', once you {condition}'}."


@dataclass(frozen=True)
class _OnHub:
    """A model on the Hugging Face hub.

    Attributes:
        preset: whose it is.
        repository: its name there.
        revision: a commit or branch.
        megabytes: size of the download.
        argument: by which callers give a folder instead.
        licence: that must be accepted there first; None for none.
    """

    preset: Preset
    repository: str
    revision: str | None
    megabytes: int
    argument: str
    licence: str | None = None

    @property
    def condition(self) -> str:
        """What a person has to do before the download; empty where it is nothing."""
        if self.licence is None:
            return ""
        return f"accept {self.licence} at https://huggingface.co/{self.repository} and log in with `hf auth login`"

    @property
    def download(self) -> Callable[..., str]:
        """Fetch what is needed of it; returns the folder."""
        from huggingface_hub import snapshot_download

        download: Callable[..., str] = partial(
            snapshot_download, self.repository, revision=self.revision, allow_patterns=list(PRETRAINED_FILES)
        )
        return download

    def cached(self) -> Path | None:
        """The folder of an earlier download."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            cached = Path(str(self.download(local_files_only=True)))
        except LocalEntryNotFoundError:
            return None
        # An interrupted download leaves a folder with some of them.
        return cached if all((cached / name).is_file() for name in PRETRAINED_FILES) else None


def _segmenter_of(preset: Preset) -> _OnHub:
    assert preset.sam2_repository is not None
    about = preset.sam2_repository, preset.sam2_revision, preset.sam2_megabytes
    return _OnHub(preset, *about, "sam2_path", preset.sam2_licence)


def _encoder_of(preset: Preset) -> _OnHub:
    return _OnHub(preset, preset.dinov2_repository, preset.dinov2_revision, preset.dinov2_megabytes, "dinov2_path")


def _whole_folder(place: str | Path, what: str) -> Path:
    missing = [name for name in PRETRAINED_FILES if not (Path(place) / name).is_file()]
    if missing:
        raise ModelUnavailableError(
            f"The {what} folder {place} lacks {' and '.join(missing)}: give a folder written by save_pretrained."
        )
    return Path(place)


def _from_hub(model: _OnHub) -> Path:
    """The folder of a model, downloaded where it is not here yet."""
    from huggingface_hub import constants, get_session

    cached = model.cached()
    if cached is not None:
        return cached
    logger.info("Downloading %s for the preset %s (%d MB)", model.repository, model.preset.name, model.megabytes)
    try:
        # Asked once and without the client's retries, which would take 25 seconds to say that there is no network.
        get_session().head(constants.ENDPOINT, timeout=10)
        return Path(str(model.download()))
    except Exception as error:  # the hub client has a dozen ways to say that there is no network
        needs = f"The preset {model.preset.name!r} needs {model.repository} ({model.megabytes} MB), which "
        if model.licence is not None and _is_refusal(error):
            raise ModelUnavailableError(f"{needs}is given only to whom the hub knows: {model.condition}.") from error
        raise ModelUnavailableError(
            f"{needs}is not on this machine and could not be downloaded: connect to the internet once, or give a local folder "
            f"as {model.argument}; the preset 'demo' needs no download."
        ) from error


def _is_refusal(error: BaseException | None) -> bool:
    """Whether an error of the hub's client, or one that led to it, says that this person may not have a file."""
    while error is not None:
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            return True
        error = error.__cause__ or error.__context__
    return False


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
