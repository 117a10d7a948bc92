"""From a preset's name to a segmenter (such as SAM 2) and an encoder (DINOv2) on a device, loaded once per process.

`demo` takes half a second and 10 MB; `large` takes some ten seconds and 2.5 GB. Imports without FiftyOne; only downloading a
SAM 2 checkpoint needs it.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import threading
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from ..checks import refused, require_kind, require_names, require_paths
from ..errors import ModelError
from ..images import file_sha256
from .local_files import files_for
from .presets import PRESETS, Preset, get_preset, register_preset, registered
from .pretrained import read_dinov2
from .segmenters import PromptedSegmenter, move_segmenter, read_sam2
from .transformers_segmenters import read_segmenter
from .weights import WEIGHTS_FILE, find_dinov2_folder, find_segmenter

__all__ = [
    "PRESETS",
    "Models",
    "Preset",
    "default_dtype",
    "get_preset",
    "load_models",
    "register_preset",
    "registered",
    "require_model",
    "unload_models",
]

logger = logging.getLogger(__name__)

LIBRARIES = (
    *("hydra.utils", "sam2.modeling.sam2_base", "sam2.modeling.backbones.image_encoder"),
    "transformers.models.dinov2.modeling_dinov2",
)

_lock = threading.RLock()
_loaded: dict[tuple[Preset, str, str, str, str], Models] = {}


@dataclass(frozen=True, eq=False)
class Models:
    """A segmenter and an encoder, ready to run.

    Attributes:
        preset: their settings.
        segmenter: a torch module in eval mode.
        dinov2: `transformers.Dinov2Model` in eval mode.
        device: where both are.
        dtype: in which both run.
        revisions: what exactly was loaded: SHA-256 of the weights of the segmenter, whichever it is, as `sam2`, and of the
            encoder as `dinov2`.
        lock: held while the models run; one batch at a time keeps memory bounded.
    """

    preset: Preset
    segmenter: PromptedSegmenter
    dinov2: Any
    device: torch.device
    dtype: torch.dtype
    revisions: dict[str, str]
    lock: threading.RLock

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"Models({self.preset.name!r} on {self.device}, {dtype}; encoder {self.fingerprint})"

    @property
    def segmenter_side(self) -> int:
        """S, pixels."""
        return int(self.segmenter.prompt_encoder.input_image_size[0])

    @property
    def grid_side(self) -> int:
        """M, cells of the mask grid, four a position of the segmenter's embedding: S / 4 for SAM 2, S / 3.5 for SAM 3."""
        return 4 * int(self.segmenter.prompt_encoder.image_embedding_size[0])

    @property
    def patches_side(self) -> int:
        """G, patches of the encoder."""
        return self.preset.encoder_side // self.patch_size

    @property
    def patch_size(self) -> int:
        """Pixels a side of one patch of the encoder."""
        return int(self.dinov2.config.patch_size)

    @property
    def look_side(self) -> int:
        """Pixels a side of a crop that is looked at again: half the encoder's side, in whole patches."""
        return self.patches_side // 2 * self.patch_size

    @property
    def look_width(self) -> int:
        """D, values of a second look: twice C."""
        return 2 * self.feature_width

    @property
    def feature_width(self) -> int:
        """C."""
        return int(self.dinov2.config.hidden_size)

    @property
    def feature_dtype(self) -> torch.dtype:
        """To which pooled features are rounded: half precision, as most indexes keep them, or float32, as published."""
        return torch.float32 if self.preset.as_published else torch.float16

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with the encoder: prototypes of one fit features of the same only."""
        name = f"{self.revisions['dinov2']} {self.preset.encoder_side}"
        return hashlib.sha256(name.encode()).hexdigest()[:12]


def load_models(
    name: str = "large",
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    sam2_path: str | Path | None = None,
    dinov2_path: str | Path | None = None,
) -> Models:
    """Load a preset, or hand out the one this process has loaded already.

    Args:
        name: `demo`, `tiny`, `small`, `base`, `large`, `edge`, `sam3` or `paper`; with `-fast` behind any but the last, asked
            at fewer prompts; or what `register_preset` was told.
        device: such as "cuda:1"; by default CUDA, MPS or the CPU, the first there is.
        dtype: see default_dtype.
        sam2_path: the segmenter's weights instead of the download: a checkpoint of SAM 2, or for `edge` and `sam3` a
            `save_pretrained` folder; see `refseg.models.local_weights` for where models are loaded by others.
        dinov2_path: a `save_pretrained` folder to use instead of the download.

    Raises:
        UnknownModelError: no preset has this name.
        ModelUnavailableError: weights are missing and cannot be downloaded.
        UnsafeCheckpointError: a file holds something other than this model's tensors.
    """
    require_names(name=name)
    require_paths(or_none=True, sam2_path=sam2_path, dinov2_path=dinov2_path)
    require_kind((torch.dtype, NoneType), "a torch.dtype or None", dtype=dtype)
    preset = get_preset(name)
    if sam2_path is None and dinov2_path is None:
        sam2_path, dinov2_path = files_for(name)
    place = parse_device(device)
    return _load(preset, place, dtype or default_dtype(preset, place), sam2_path, dinov2_path)


def require_model(model: object, *, or_none: bool = False) -> None:
    """Refuse what is neither the name of a preset, known or not, nor loaded models.

    Raises:
        ModelError: it is something else.
    """
    if isinstance(model, Models) or (or_none and model is None) or (isinstance(model, str) and model):
        return
    raise refused("model", f"a preset's name or loaded models{' or None' if or_none else ''}", model, ModelError)


def _load(
    preset: Preset, place: torch.device, kind: torch.dtype, sam2_path: str | Path | None, dinov2_path: str | Path | None
) -> Models:
    # The preset, not its name: another may have been registered under the name since.
    key = (preset, str(place), str(kind), str(sam2_path), str(dinov2_path))
    with _lock:
        if key not in _loaded and preset.adaptive_prompts:
            exact = _load(preset.exact, place, kind, sam2_path, dinov2_path)
            _loaded[key] = replace(exact, preset=preset)
        if key not in _loaded:
            weights, folder = find_segmenter(preset, sam2_path), find_dinov2_folder(preset, dinov2_path)
            segmenter: Any = read_segmenter(preset, weights) if preset.is_of_transformers else read_sam2(preset, weights)
            _loaded[key] = Models(
                preset,
                move_segmenter(segmenter, place, kind).eval(),
                read_dinov2(folder).to(place, kind).eval(),
                place,
                kind,
                {
                    "sam2": file_sha256(weights / WEIGHTS_FILE if weights.is_dir() else weights),
                    "dinov2": file_sha256(folder / WEIGHTS_FILE),
                },
                threading.RLock(),
            )
        return _loaded[key]


def import_libraries() -> None:
    """Import what loading a model imports, which takes longer than reading a small one.

    Of two threads that import transformers at once one fails, so whoever else imports it here holds the same lock.
    """
    with _lock:
        for name in LIBRARIES:
            import_module(name)


def unload_models() -> None:
    """Forget every loaded model and give its memory back."""
    with _lock:
        _loaded.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parse_device(name: str | None) -> torch.device:
    """The device of this name, or the default one.

    Raises:
        ModelError: torch knows no such device, or this machine has none.
    """
    require_kind((str, NoneType), "a device's name or None", error=ModelError, device=name)
    if not name:
        return default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"There is no device {name!r} on this machine: choose 'cuda', 'mps' or 'cpu'.") from error
    return device


def default_device() -> torch.device:
    """CUDA, MPS or the CPU: the first there is."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def default_dtype(preset: Preset, device: torch.device) -> torch.dtype:
    """In which a preset's models run unless told otherwise.

    bfloat16 on CUDA, and for the encoders of presets with adaptive prompts on a processor that computes in it; float32
    elsewhere, and always for `paper`. Its candidates differ a little: where two of the three masks of a prompt are nearly as
    good, the other may win. An index does not part the two.
    """
    if not preset.half:
        return torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if preset.adaptive_prompts and _cpu_computes_bfloat16() else torch.float32
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _cpu_computes_bfloat16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):  # came with a later version than the earliest we accept
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
