"""One reader of instance masks as people store them: arrays of any kind, and picture files. No FiftyOne, no torch.

Editors and exporters write the same mask as one bit, as grey, in colour, with a palette, or with an alpha channel that is
opaque everywhere, or that is the mask itself.
"""

from __future__ import annotations

import os
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..images import Samples, in_machine_order, is_deep, plain_values, range_of, samples_of
from ..regular_files import open_regular

SOFT_THRESHOLD = 0.5
"""Above which a mask of shares, 0 to 1, holds a pixel."""
MOST_CHANNELS = 4
LOSSY = {"JPEG", "MPO", "JPEG2000", "AVIF", "HEIF"}
"""Formats that may leave traces around an object. JPEG 2000 counts whole: a file that was cut to a size does not say so."""
LOSSY_IN_TIFF = {"jpeg", "tiff_jpeg", "webp"}
TRACES = 32
"""Of 255: compression changes an even picture by less."""
FAINT = 8
"""Brightness that compression may make of black; a mask that is no brighter is lost in what surrounds it."""


def as_mask(values: Any) -> NDArray[np.bool_]:
    """The pixels that a stored mask holds.

    Args:
        values: (h, w), (1, h, w), or (h, w, c) with one channel, grey and alpha, colours, or colours and alpha. What is not 0
            is the mask; of floats up to 1 what is above SOFT_THRESHOLD. Alpha counts where it differs from pixel to pixel.

    Returns:
        (h, w) bool.

    Raises:
        ValueError: the array has another shape, or holds no numbers.

    Example:
        >>> opaque = np.full((1, 2, 4), 255, np.uint8)
        >>> opaque[0, 0, :3] = 0
        >>> as_mask(opaque).tolist(), as_mask([[0.2, 0.7]]).tolist()
        ([[False, True]], [[False, True]])
    """
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise ValueError("it holds no numbers")
    if array.ndim == 3 and array.shape[0] == 1 and array.shape[2] > MOST_CHANNELS:
        array = array[0]
    if array.ndim == 3 and array.shape[2] in (1, 3):
        return np.asarray(_is_set(array).any(-1))
    if array.ndim == 3 and array.shape[2] in (2, 4):
        colours, alpha = np.asarray(_is_set(array[..., :-1]).any(-1)), array[..., -1]
        if not alpha.size or (alpha == alpha.flat[0]).all():
            return colours
        opaque = _is_set(alpha)
        is_plain = (array[..., :-1] == array[:1, :1, :-1]).all()
        return opaque if is_plain else colours & opaque
    if array.ndim != 2:
        raise ValueError(f"it has the shape {array.shape}, not (height, width)")
    return _is_set(array)


def read_mask_file(path: str | os.PathLike[str]) -> NDArray[np.bool_]:
    """The mask in a picture file, (h, w) bool.

    The numbers of a palette count, 0 for background, unless all of its colours are greys, which then count themselves. Where
    compression may have left traces around the object, as in a JPEG and a WebP that is not lossless, what is brighter, or more
    opaque, than half of the most counts.

    Raises:
        OSError: the file is missing or no picture.
        ValueError: its pixels are no mask.
    """
    try:
        with open_regular(path) as stream, in_machine_order(Image.open(stream)) as image:
            samples = samples_of(image, os.fspath(path)) if image.format == "TIFF" else Samples()
            has_traces = _is_lossy(image)
            image.load()
            if has_traces:
                return _without_traces(image)
            if image.mode == "PA":
                return as_mask(np.asarray(image)[..., 0])
            if image.mode == "P" and _is_grey(image):
                return as_mask(np.asarray(image.convert("L")))
            return as_mask(_lit_values(image, samples))
    except UnidentifiedImageError as error:
        raise OSError("it is no picture that can be read") from error
    except (SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error


def _is_lossy(opened: Image.Image) -> bool:
    """Whether an opened file, not loaded yet, may not hold what was saved to it."""
    if opened.format == "WEBP":
        return not _is_lossless_webp(opened.fp)  # type: ignore[attr-defined]
    if opened.format == "TIFF":
        return opened.info.get("compression") in LOSSY_IN_TIFF
    return opened.format in LOSSY


def _is_lossless_webp(stream: IO[bytes]) -> bool:
    """Whether the first picture of a WebP is stored without loss: in a chunk VP8L, else it is in one that is called VP8."""
    stream.seek(12)
    while len(head := stream.read(8)) == 8:
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        # The chunks of an animation's picture lie in one that begins with where it goes.
        stream.seek(16 if kind == b"ANMF" else length + length % 2, os.SEEK_CUR)
    return False


def _lit_values(image: Image.Image, samples: Samples) -> NDArray[Any]:
    """The values of a loaded picture, more of them where it is brighter: Pillow sees to that up to eight bits alone."""
    if not samples.is_inverted:
        return np.asarray(image)
    values = plain_values(image, samples)
    return np.asarray(range_of(values)[1] - values.astype(np.float64))


def _without_traces(image: Image.Image) -> NDArray[np.bool_]:
    """The mask in a picture that compression has changed a little."""
    if is_deep(image.mode):
        values = np.asarray(image)
        return np.asarray(values > values.max(initial=0) / 2)
    bright = np.asarray(image.convert("RGB")).max(-1)
    colours = np.asarray(bright > bright.max() / 2)
    if bright.max() < FAINT:
        # Of a JPEG in two numbers, such as 0 and 1, good quality leaves enough, but for some pixels that it makes brighter.
        is_lost = image.format in ("WEBP", "AVIF", "HEIF") or np.ptp(bright) == 0
        colours = np.zeros_like(colours) if is_lost else np.asarray(bright > 0)
    if not image.has_transparency_data:
        return colours
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    if np.ptp(alpha) < TRACES:
        return colours
    opaque = np.asarray(alpha > alpha.max() / 2)
    return opaque if np.ptp(bright) < TRACES else colours & opaque


def _is_set(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind != "f":
        return np.asarray(values != 0)
    known = np.nan_to_num(values)
    is_share = bool(known.size) and known.max() <= 1
    return np.asarray(known > SOFT_THRESHOLD if is_share else known > 0)


def _is_grey(image: Image.Image) -> bool:
    """Whether every colour that the picture uses is a grey."""
    used = np.unique(np.asarray(image))
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours = colours[used[used < len(colours)]]
    return bool((colours == colours[:, :1]).all())
