"""Cameras: what becomes of a scene on its way to a picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .outlines import Array


def photograph(rng: np.random.Generator, canvas: Array) -> NDArray[np.uint8]:
    """What a camera makes of the scene: uneven light, colour cast, blur, noise."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = ((x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)) * rng.uniform(0, 0.5)
    lit: Any = canvas * (1 + slope[..., None]) * (rng.uniform(0.75, 1.15) * rng.uniform(0.95, 1.05, 3))
    if rng.random() < 0.03:
        lit = np.repeat(lit.mean(-1, keepdims=True), 3, -1)
    lit = lit + rng.normal(0, rng.uniform(0.004, 0.02), lit.shape)
    picture = Image.fromarray((np.clip(lit, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.1))))
    return np.asarray(picture)


def photograph_again(rng: np.random.Generator, picture: NDArray[np.uint8], grey: float = 0.25) -> NDArray[np.uint8]:
    """What drawn pictures have too little of: one channel, little contrast, a negative, hard light, glare, noise, blur, JPEG.

    Args:
        rng: the only source of chance.
        picture: (H, W, 3).
        grey: how often the picture loses its colours.
    """
    out = picture.astype(np.float32) / 255
    if rng.random() < grey:
        out = np.repeat((out * rng.dirichlet(np.ones(3))).sum(-1, keepdims=True), 3, -1)
    if rng.random() < 0.08:
        out = 1 - out
    if rng.random() < 0.4:
        out = _toned(rng, out)
    if rng.random() < 0.5:
        out = _unevenly_lit(rng, out)
    if rng.random() < 0.3:
        out = out + rng.normal(0, rng.uniform(0.01, 0.07), (*out.shape[:2], 1 if rng.random() < 0.5 else 3))
    shot = Image.fromarray((np.clip(out, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.2:
        shot = shot.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2))))
    if rng.random() < 0.25:
        buffer = io.BytesIO()
        shot.save(buffer, "JPEG", quality=int(rng.integers(30, 90)))
        shot = Image.open(buffer).convert("RGB")
    return np.asarray(shot)


def relight(rng: np.random.Generator, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same picture in slightly other light, its colours kept, for two pictures in five."""
    if rng.random() > 0.4:
        return picture
    gain = rng.uniform(0.85, 1.1) + rng.uniform(0, 0.4) * _ramp(rng, *picture.shape[:2])
    return np.asarray(np.clip(picture * gain[..., None], 0, 255), np.uint8)


def _toned(rng: np.random.Generator, out: Any) -> Any:
    """Less contrast about the mean, another gamma, and for some so dark that little is left."""
    mean = out.mean((0, 1), keepdims=True)
    out = np.clip(mean + (out - mean) * rng.uniform(0.25, 1.2), 0, 1) ** rng.uniform(0.6, 1.6)
    return out * rng.uniform(0.25, 0.6) if rng.random() < 0.15 else out


def _unevenly_lit(rng: np.random.Generator, out: Any) -> Any:
    height, width = out.shape[:2]
    out = out * (rng.uniform(0.7, 1.1) + rng.uniform(0, 1) * _ramp(rng, height, width))[..., None]
    if rng.random() < 0.25:  # a lamp's reflection
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        far = np.hypot(y - rng.random(), x - rng.random()) / rng.uniform(0.1, 0.5)
        out = out + (rng.uniform(0.1, 0.6) * np.exp(-(far**2)))[..., None]
    return out


def _ramp(rng: np.random.Generator, height: int, width: int) -> Any:
    """(height, width) slope in a random direction, about 0 in the middle and half at the edges."""
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    return x * np.cos(angle) + y * np.sin(angle)
