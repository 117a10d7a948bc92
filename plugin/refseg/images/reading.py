"""From files to the models' inputs. What can be read becomes 8-bit RGB, upright; what cannot is an ImageError.

Costs one decoded copy of the image. The segmenter's input is resized by Pillow, the encoder's from that by torch: the
two-step resize of method.md A2-A3, needed to match the published numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..regular_files import open_regular
from .files import decode as decode
from .headers import read_image_hw as read_image_hw
from .headers import read_orientation as read_orientation
from .pixels import PLAIN, PixelSettings
from .pixels import to_rgb as to_rgb

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def read_image(
    path: str | os.PathLike[str], admit: Callable[[int], object] | None = None, pixels: PixelSettings = PLAIN
) -> Image.Image:
    """Read a file as an upright 8-bit RGB image.

    The orientation is applied. Values of more than 8 bits are scaled by what their file says, else by the settings' range, else
    by the one in which this image is likely to have been recorded; palettes, grey and CMYK are converted; an alpha channel is
    dropped. A JPEG that lacks its end marker alone is read, and logged.

    Args:
        path: of the file, which is opened once.
        admit: told how many pixels there are before they are decoded; it may wait until there is room for them.
        pixels: how values of more than 8 bits, and more than three bands, are read.

    Raises:
        ImageError: the file is missing, truncated, empty, or of no format that is known.
    """
    return decode(path, pixels, admit=admit).image


def segmenter_pixels(image: Image.Image, side: int) -> Tensor:
    """Stretch an RGB image to the segmenter's square, bicubic as Pillow does it.

    Returns:
        (3, S, S) float32 in [0, 1], not normalised.
    """
    resized = image.resize((side, side), Image.Resampling.BICUBIC)
    # By numpy: torch would start threads of its own for each thread that loads images, which then get in the model's way.
    return torch.from_numpy(np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1)) / np.float32(255))


def encoder_pixels(pixels: Tensor, side: int) -> Tensor:
    """Resize (B, 3, h, w) images in [0, 1] to the encoder's square: bicubic, corners not aligned, no antialias."""
    return F.interpolate(pixels, size=(side, side), mode="bicubic", align_corners=False, antialias=False)


def normalize(pixels: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Subtract a mean of each channel and divide by its deviation, by default ImageNet's; pixels (B, 3, h, w) in [0, 1]."""
    return (pixels - pixels.new_tensor(mean).view(1, 3, 1, 1)) / pixels.new_tensor(std).view(1, 3, 1, 1)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
