"""What a segmenter is to RefSeg, and SAM 2 as the `sam2` package builds it, which is one.

Whichever model it is, its prompts and masks go through SAM 2's own prompt encoder and mask decoder, so that clicks, boxes and
the prompt grid are decoded in one way: see `refseg.candidates.clicks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import UnsafeCheckpointError
from ..images import normalize
from .presets import Preset
from .weights import read_checkpoint


class PromptedSegmenter(Protocol):
    """A model that draws masks where it is asked: a torch module, as far as RefSeg knows it."""

    @property
    def prompt_encoder(self) -> Any:
        """`sam2.modeling.sam.prompt_encoder.PromptEncoder`; it knows S, and the side of the coarse embedding."""
        ...

    @property
    def mask_decoder(self) -> Any:
        """`sam2.modeling.sam.mask_decoder.MaskDecoder`."""
        ...

    @property
    def no_memory(self) -> Tensor:
        """(C,) what the publishers' image predictors add to each position of the coarse embedding."""
        ...

    def embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What the mask decoder needs of images; no_memory is not added yet.

        Args:
            pixels: (B, 3, S, S) float32 in [0, 1], on the segmenter's device; it normalises them itself.

        Returns:
            The (B, C, M/4, M/4) coarse embedding, and the projected (B, C/8, M, M) and (B, C/4, M/2, M/2) fine ones, in the
            dtype of the weights.
        """
        ...


class Sam2Segmenter(nn.Module):
    """SAM 2 of the `sam2` package; see PromptedSegmenter.

    Args:
        sam2: `sam2.modeling.sam2_base.SAM2Base`.
    """

    def __init__(self, sam2: Any) -> None:
        super().__init__()
        self.sam2 = sam2

    @property
    def prompt_encoder(self) -> Any:
        """See PromptedSegmenter."""
        return self.sam2.sam_prompt_encoder

    @property
    def mask_decoder(self) -> Any:
        """See PromptedSegmenter."""
        return self.sam2.sam_mask_decoder

    @property
    def no_memory(self) -> Tensor:
        """See PromptedSegmenter."""
        found: Tensor = self.sam2.no_mem_embed
        return found.flatten()

    def embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See PromptedSegmenter."""
        dtype = self.no_memory.dtype
        # SAM 2's neck answers in float32 whatever the weights are.
        levels = [level.to(dtype) for level in self.sam2.image_encoder(normalize(pixels).to(dtype))["backbone_fpn"]]
        return levels[2], (self.mask_decoder.conv_s0(levels[0]), self.mask_decoder.conv_s1(levels[1]))


def make_sam2(preset: Preset) -> nn.Module:
    """A preset's SAM 2 with the weights its package starts training from.

    Raises:
        UnsafeCheckpointError: the preset's file is no configuration.
    """
    import sam2
    from hydra.utils import instantiate
    from omegaconf import DictConfig, OmegaConf

    path = Path(preset.sam2_config)
    config = OmegaConf.load(path if path.is_absolute() else Path(sam2.__path__[0]) / path)
    if not isinstance(config, DictConfig):
        raise UnsafeCheckpointError(f"{path} is not a SAM 2 configuration.")
    # What sam2's own build_sam2 sets for images: a single mask that is not stable gives way to the best of three.
    config.model.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    model: nn.Module = instantiate(config.model, _recursive_=True)
    return model


def read_sam2(preset: Preset, checkpoint: Path) -> Sam2Segmenter:
    """A preset's SAM 2 with the weights of a checkpoint.

    Raises:
        UnsafeCheckpointError: it holds something other than this model's tensors.
    """
    tensors = read_checkpoint(checkpoint)
    model = make_sam2(preset)
    load_tensors(model, tensors, checkpoint)
    return Sam2Segmenter(model)


def load_tensors(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put all of a module's tensors into it.

    Raises:
        UnsafeCheckpointError: one is missing, left over or of another shape; the message names the source and the first.
    """
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise UnsafeCheckpointError(f"{source} belongs to another model than this preset's: {first[:200]}") from error


def move_segmenter(segmenter: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a segmenter to a device and a dtype, in place; the frequencies that encode positions stay in float32.

    SAM 2 computes positions in float32 whatever its weights are, and in half precision a click would be pixels off.
    """
    positions = segmenter.prompt_encoder.pe_layer
    frequencies = positions.positional_encoding_gaussian_matrix
    segmenter.to(device, dtype)
    positions.positional_encoding_gaussian_matrix = frequencies.to(device)
    return segmenter
