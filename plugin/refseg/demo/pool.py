"""A pool of training scenes, drawn ahead by worker processes and kept on disk as plain arrays.

Scenes come in pairs: both of a pair show the same families, newly placed, turned, lit and photographed, so that the encoder
can be asked to recognise in one what it was shown in the other. 2,000 pairs take about a minute on two cores and 3 GB.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .world import NOVEL_PARTS, TRAINING_PARTS, Family, Scene, draw_family, mutate_family, render_scene

POOL_HW = (320, 400)
MAX_FAMILIES = 7
LOOK_ALIKES = 0.2
"""Share of families drawn as a look-alike of another one in the same scene."""


@dataclass(frozen=True)
class Pool:
    """Scenes of one pool.

    Attributes:
        images: (P, 2, H, W, 3) uint8, P pairs.
        ids: (P, 2, H, W) uint8; 0 is background, f + 1 the object of family f in either scene of the pair.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.uint8]


def draw_families(rng: np.random.Generator, parts: tuple[str, ...]) -> list[Family]:
    """Draw two to MAX_FAMILIES families for one tray, some of them look-alikes of another."""
    families = [draw_family(rng, parts)]
    for _ in range(int(rng.integers(1, MAX_FAMILIES))):
        like = rng.random() < LOOK_ALIKES
        families.append(mutate_family(rng, families[-1], parts) if like else draw_family(rng, parts))
    return families


def draw_pair(seed: tuple[int, int], parts: tuple[str, ...] = TRAINING_PARTS) -> list[Scene]:
    """Draw two scenes of the same families."""
    rng = np.random.default_rng(seed)
    families = draw_families(rng, parts)
    low = float(rng.uniform(0.055, 0.1))
    return [render_scene(rng, families, POOL_HW, radius=(low, low * 2)) for _ in range(2)]


def _pair_arrays(seed: tuple[int, int], parts: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pair = draw_pair(seed, parts)
    ids = []
    for scene in pair:
        lookup = np.array([0, *(family + 1 for family in scene.families)], np.uint8)
        ids.append(lookup[scene.ids])
    return np.stack([scene.image for scene in pair]), np.stack(ids)


def load_pool(folder: Path, seed: int, num_pairs: int, *, novel: bool = False, workers: int = 2) -> Pool:
    """Open the pool in this folder; draw it first where it is not there yet.

    Args:
        folder: where `images.npy` and `ids.npy` are kept.
        seed: of the families and scenes; another seed or size needs another folder.
        num_pairs: how many pairs to draw.
        novel: draw the novel part types instead: for measuring only, never for training.
        workers: processes to draw with.
    """
    paths = folder / "images.npy", folder / "ids.npy"
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        parts = NOVEL_PARTS if novel else TRAINING_PARTS
        images = np.lib.format.open_memmap(folder / "images.tmp", "w+", dtype=np.uint8, shape=(num_pairs, 2, *POOL_HW, 3))
        ids = np.lib.format.open_memmap(folder / "ids.tmp", "w+", dtype=np.uint8, shape=(num_pairs, 2, *POOL_HW))
        with ProcessPoolExecutor(workers) as executor:
            seeds = [(seed, number) for number in range(num_pairs)]
            drawn = executor.map(_pair_arrays, seeds, [parts] * num_pairs, chunksize=16)
            for number, (pair_images, pair_ids) in enumerate(drawn):
                images[number], ids[number] = pair_images, pair_ids
        images.flush()
        ids.flush()
        (folder / "images.tmp").rename(paths[0])
        (folder / "ids.tmp").rename(paths[1])
    return Pool(np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r"))
