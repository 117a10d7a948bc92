"""From files to the models' inputs. Whatever Pillow can open becomes 8-bit RGB, upright; what it cannot is an ImageError.

Costs one decoded copy of the image. The segmenter's input is resized by Pillow, the encoder's from that by torch: the
two-step resize of method.md A2-A3, needed to match the published numbers.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import ImageError

# A large photograph is no attack: only Pillow's error, at twice this size, counts. Set once for the process, because
# warnings.catch_warnings is not safe in the threads that decode images.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Pillow keeps an image in blocks of 16 MB, which the C library keeps for each thread once they are free: a large image a thread
# would stay in memory. Blocks beyond 32 MB go back to the system. Smaller images take no more than they need in either case.
Image.core.set_block_size(max(Image.core.get_block_size(), 64 << 20))  # type: ignore[attr-defined]

ORIENTATION = 0x0112
"""The EXIF tag."""
ROWS_A_STRIP = 256
"""Of a 16-bit or floating image, converted at once: in between a pixel takes eight bytes, several times over."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def read_image(path: str | os.PathLike[str], admit: Callable[[int], object] | None = None) -> Image.Image:
    """Read a file as an upright 8-bit RGB image.

    The EXIF orientation is applied. 16-bit and floating images are scaled to 8 bit by their type's range (floats by 1);
    palettes, grey and CMYK are converted; an alpha channel is dropped.

    Args:
        path: of the file, which is opened once.
        admit: told how many pixels there are before they are decoded; it may wait until there is room for them.

    Raises:
        ImageError: the file is missing, truncated, empty, or of no format Pillow knows.
    """
    name = os.fspath(path)
    try:
        with Image.open(name) as opened:
            if admit is not None:
                admit(opened.width * opened.height)
            opened.load()
            # Where nothing is to be turned exif_transpose makes a copy all the same.
            turned = opened.getexif().get(ORIENTATION, 1) != 1
            upright: Image.Image = ImageOps.exif_transpose(opened) if turned else opened
            return to_rgb(upright)
    except FileNotFoundError as error:
        raise ImageError(name, "the file does not exist") from error
    except UnidentifiedImageError as error:
        raise ImageError(name, "this is not an image that can be read") from error
    except (OSError, ValueError, RuntimeError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(name, f"the image cannot be read ({error})") from error


def read_image_hw(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width of the upright image, from its header alone.

    Raises:
        ImageError: the file is missing or no image.
    """
    name = os.fspath(path)
    try:
        with Image.open(name) as opened:
            turned = opened.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return (opened.width, opened.height) if turned else (opened.height, opened.width)
    except FileNotFoundError as error:
        raise ImageError(name, "the file does not exist") from error
    except (OSError, ValueError, RuntimeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(name, "this is not an image that can be read") from error


def read_orientation(path: str | os.PathLike[str]) -> int:
    """EXIF's orientation of a file, 1 to 8: how its pixels are to be turned; 1 where it says nothing.

    Raises:
        ImageError: the file is missing or no image.
    """
    name = os.fspath(path)
    try:
        with Image.open(name) as opened:
            value = opened.getexif().get(ORIENTATION, 1)
            return value if value in range(1, 9) else 1
    except (OSError, ValueError, RuntimeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(name, "this is not an image that can be read") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to RGB; see read_image for how."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        scale = 255.0 if image.mode == "F" else 255.0 / 65535.0
        grey = np.empty(values.shape, np.uint8)
        for rows in (slice(start, start + ROWS_A_STRIP) for start in range(0, len(values), ROWS_A_STRIP)):
            strip = np.nan_to_num(values[rows].astype(np.float64)) * scale
            grey[rows] = np.clip(strip, 0, 255).round()
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("LA", "PA", "La"):
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


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


def normalize(pixels: Tensor) -> Tensor:
    """Subtract the ImageNet mean and divide by its deviation; pixels (B, 3, h, w) in [0, 1]."""
    mean = pixels.new_tensor(MEAN).view(1, 3, 1, 1)
    std = pixels.new_tensor(STD).view(1, 3, 1, 1)
    return (pixels - mean) / std


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
