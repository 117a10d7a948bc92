"""Pools of training scenes, drawn ahead by worker processes and kept on disk as plain arrays.

| pool | what | a draw |
| --- | --- | --- |
| `novel` | plain trays of the novel part types, for measuring alone | a pair |
| `plain` | plain trays, most outlines from the grammar | a pair |
| `rich` | textures, pieces and any ground | a pair |
| `leaves` | objects over objects everywhere | one scene |
| `crowds` | many alike objects side by side, as coins and cells lie | one scene |

Both scenes of a pair show the same families, newly placed, turned, lit and photographed, so that the encoder can be asked to
recognise in one what it was shown in the other. Drawing takes 30 to 100 ms a scene, and a scene 0.5 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .world import (
    NOVEL_PARTS,
    Family,
    Scene,
    draw_family,
    draw_grammar_family,
    draw_rich_family,
    mutate_family,
    mutate_rich_family,
    plain_tray,
    render_crowd,
    render_scene,
    rich_tray,
)

POOL_HW = (320, 400)
MAX_FAMILIES = 7
LOOK_ALIKES = 0.2
"""Share of families drawn as a look-alike of another one in the same scene."""

Draw = Callable[[np.random.Generator], list[Scene]]
FamilyDraw = Callable[[np.random.Generator], Family]
LookAlike = Callable[[np.random.Generator, Family], Family]


@dataclass(frozen=True)
class Pool:
    """Scenes of one pool.

    Attributes:
        images: (P, V, H, W, 3) uint8: P draws of V scenes.
        ids: (P, V, H, W) uint8; 0 is background. In pairs f + 1 is the object of family f in either scene; elsewhere i + 1 is
            object i.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.uint8]


def draw_families(rng: np.random.Generator, draw: FamilyDraw, look_alike: LookAlike) -> list[Family]:
    """Draw two to MAX_FAMILIES families for one tray, some of them look-alikes of another."""
    families = [draw(rng)]
    for _ in range(int(rng.integers(1, MAX_FAMILIES))):
        like = rng.random() < LOOK_ALIKES
        families.append(look_alike(rng, families[-1]) if like else draw(rng))
    return families


def draw_novel(rng: np.random.Generator) -> list[Scene]:
    """Two plain trays of the same families of novel types."""

    def look_alike(rng: np.random.Generator, family: Family) -> Family:
        return mutate_family(rng, family, NOVEL_PARTS)

    families = draw_families(rng, lambda rng: draw_family(rng, NOVEL_PARTS), look_alike)
    low = float(rng.uniform(0.055, 0.1))
    return [render_scene(rng, families, POOL_HW, radius=(low, low * 2)) for _ in range(2)]


def draw_plain(rng: np.random.Generator) -> list[Scene]:
    """Two plain trays of the same training families."""

    def look_alike(rng: np.random.Generator, family: Family) -> Family:
        return mutate_family(rng, family)

    families = draw_families(rng, draw_grammar_family, look_alike)
    low = float(np.exp(rng.uniform(np.log(0.045), np.log(0.11))))
    return [render_scene(rng, families, POOL_HW, radius=(low, low * 2)) for _ in range(2)]


def draw_rich(rng: np.random.Generator) -> list[Scene]:
    """Two scenes of the same rich families on any ground."""
    families = draw_families(rng, draw_rich_family, mutate_rich_family)
    low = float(np.exp(rng.uniform(np.log(0.045), np.log(0.16))))
    return [render_scene(rng, families, POOL_HW, radius=(low, low * 2), tray=rich_tray) for _ in range(2)]


def draw_leaves(rng: np.random.Generator) -> list[Scene]:
    """Objects over objects everywhere, every bit in view labelled."""
    families = draw_families(rng, draw_rich_family, mutate_rich_family)
    number = int(rng.integers(8, 34))
    chosen = [families[int(row)] for row in rng.integers(0, len(families), number)]
    if rng.random() < 0.7:  # otherwise several of each
        chosen = [draw_rich_family(rng) for _ in range(number)]
    low = float(np.exp(rng.uniform(np.log(0.05), np.log(0.2))))
    return [render_scene(rng, chosen, POOL_HW, radius=(low, low * 2.2), max_overlap=1, min_visible=0, tray=rich_tray)]


def draw_crowd(rng: np.random.Generator) -> list[Scene]:
    """Many objects of few families side by side, half of them simple and round, from 12 pixels to a third of the image."""
    families = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        if rng.random() < 0.5:
            families.append(draw_family(rng, ("disc", "blob", "capsule", "ring", "half disc")))
        else:
            families.append(draw_rich_family(rng))
    radius = float(np.exp(rng.uniform(np.log(7), np.log(70))))
    tray = rich_tray if rng.random() < 0.75 else plain_tray
    spacing, variety = float(rng.uniform(1.5, 2.8)), float(rng.uniform(0.02, 0.2))
    return [render_crowd(rng, families, POOL_HW, radius=radius, spacing=spacing, variety=variety, tray=tray)]


DRAWS: dict[str, tuple[int, Draw]] = {
    "novel": (900, draw_novel),
    "plain": (13, draw_plain),
    "rich": (11, draw_rich),
    "leaves": (12, draw_leaves),
    "crowds": (14, draw_crowd),
}
"""Seed and way to draw each pool."""
PAIRS = ("novel", "plain", "rich")


def load_pool(folder: Path, name: str, number: int, *, first: int = 0, workers: int = 2) -> Pool:
    """Open a pool in this folder; draw it first where it is not there yet.

    Args:
        folder: where `<name>-<first>-<number>_images.npy` and `…_ids.npy` are kept.
        name: of DRAWS.
        number: of draws.
        first: number of the first one: another gives other scenes.
        workers: processes to draw with.
    """
    stem = f"{name}-{first}-{number}"
    paths = folder / f"{stem}_images.npy", folder / f"{stem}_ids.npy"
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        views = 2 if name in PAIRS else 1
        drafts = [path.with_suffix(".tmp") for path in paths]
        images = np.lib.format.open_memmap(drafts[0], "w+", dtype=np.uint8, shape=(number, views, *POOL_HW, 3))
        ids = np.lib.format.open_memmap(drafts[1], "w+", dtype=np.uint8, shape=(number, views, *POOL_HW))
        with ProcessPoolExecutor(workers) as executor:
            drawn = executor.map(_arrays, [name] * number, range(first, first + number), chunksize=16)
            for row, (some_images, some_ids) in enumerate(drawn):
                images[row], ids[row] = some_images, some_ids
        images.flush()
        ids.flush()
        for draft, path in zip(drafts, paths, strict=True):
            draft.rename(path)
    return Pool(np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r"))


def _arrays(name: str, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    seed, draw = DRAWS[name]
    scenes = draw(np.random.default_rng((seed, number)))
    ids = []
    for scene in scenes:
        owners = [row + 1 for row in scene.families] if name in PAIRS else range(1, len(scene.families) + 1)
        ids.append(np.array([0, *owners], np.uint8)[scene.ids])
    return np.stack([scene.image for scene in scenes]), np.stack(ids)
