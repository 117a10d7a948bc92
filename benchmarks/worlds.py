"""Synthetic worlds to measure quality on: four difficulties, drawn afresh from seeds, their candidates kept between runs.

A *draw* of a world is one set of six classes with a pool of images to take references from, some images known to be empty, and
target images, half of them empty; of the world *mostly empty* one class, and 300 target images of which 15 hold it. Drawing
takes seconds; the candidates of its 132 images about two minutes on two cores, and for tiles six. They are kept in the cache
folder and only computed again by other code or weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from refseg.candidates import NEAR_DUPLICATE_IOU, pack, propose, propose_tiles
from refseg.coco import CocoDataset, read_coco, read_references, write_json
from refseg.demo.dataset import CLASSES, IMAGE_HW
from refseg.demo.world import NOVEL_PARTS, TRAINING_PARTS, Family, Scene, draw_family, mutate_family, render_scene
from refseg.images import read_image
from refseg.index import CandidateIndex, FileState, IndexSettings
from refseg.masks import encode_mask
from refseg.models import Models
from refseg.progress import Progress, drain
from refseg.prototypes import Reference

NUM_SHOWN, NUM_KNOWN_EMPTY, NUM_FULL, NUM_EMPTY = 72, 12, 24, 24
"""Images to take references from, known to be empty, with objects to be found, and without any."""
IMAGES_A_WRITE = 12
VERSION = 1
"""To be raised when the same seed draws something else."""


@dataclass(frozen=True)
class World:
    """How hard a world is.

    Attributes:
        name: of the difficulty.
        radius: smallest and largest radius of an object, as a share of the image's longer side.
        num_others: fewest and most objects of no class in an image; two more where it holds no class.
        look_alikes: families made from each class by changing one of its traits; they lie about in most images. 0 for strangers
            that are drawn anew for each image.
        max_overlap: see `render_scene`.
        num_classes: of CLASSES, the first.
        num_full: target images with objects of a class.
        num_empty: target images without any.
    """

    name: str
    radius: tuple[float, float]
    num_others: tuple[int, int]
    look_alikes: int
    max_overlap: float
    num_classes: int = len(CLASSES)
    num_full: int = NUM_FULL
    num_empty: int = NUM_EMPTY


WORLDS = {
    world.name: world
    for world in (
        World("clear", (0.085, 0.14), (1, 3), 0, 0.05),
        World("cluttered", (0.075, 0.12), (2, 4), 2, 0.3),
        World("small", (0.028, 0.045), (2, 5), 0, 0.05),
        World("mostly empty", (0.085, 0.14), (1, 3), 0, 0.05, num_classes=1, num_full=15, num_empty=285),
    )
}


@dataclass(frozen=True)
class Draw:
    """One draw of a world, on disk.

    Attributes:
        world: its difficulty.
        seed: of the draw.
        folder: holds the images, and a COCO file for each role.
    """

    world: World
    seed: int
    folder: Path

    def listing(self, role: str) -> CocoDataset:
        """Images and objects of a role: "shown", "known_empty" or "target"."""
        return read_coco(self.folder / f"{role}.json")

    def references(self) -> list[Reference]:
        """Every object of the images that references are taken from."""
        return read_references(self.folder / "shown.json", self.folder)


def draw_world(world: World, seed: int, cache: Path) -> Draw:
    """Draw a world, or find it in the cache."""
    folder = cache / f"{world.name.replace(' ', '-')}-{seed}-v{VERSION}"
    if not (folder / "target.json").exists():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        rng = np.random.default_rng((seed, list(WORLDS).index(world.name)))
        classes = [draw_family(rng, (name,)) for name in CLASSES[: world.num_classes]]
        others = [mutate_family(rng, family, NOVEL_PARTS) for family in classes for _ in range(world.look_alikes)]
        turns = _turns(rng, world.num_classes)
        _write(part, "shown", [_draw_scene(rng, world, classes, others, next(turns)) for _ in range(NUM_SHOWN)])
        _write(part, "known_empty", [_draw_scene(rng, world, classes, others, []) for _ in range(NUM_KNOWN_EMPTY)])
        full = [_draw_scene(rng, world, classes, others, _some(rng, world)) for _ in range(world.num_full)]
        _write(part, "target", full + [_draw_scene(rng, world, classes, others, []) for _ in range(world.num_empty)])
        part.rename(folder)
    return Draw(world, seed, folder)


def _turns(rng: np.random.Generator, num_classes: int) -> Iterator[list[int]]:
    """Three different classes at a time, or as many as there are, each as often as the others."""
    while True:
        order = rng.permutation(num_classes).tolist()
        yield from (order[start : start + 3] for start in range(0, num_classes, 3))


def _some(rng: np.random.Generator, world: World) -> list[int]:
    """Two to four objects; of a rare class one."""
    if world.num_classes == 1:
        return [0]
    return [int(row) for row in rng.integers(0, world.num_classes, int(rng.integers(2, 5)))]


def _draw_scene(
    rng: np.random.Generator, world: World, classes: list[Family], others: list[Family], wanted: list[int]
) -> tuple[Scene, list[str | None]]:
    """A scene, and for each labelled object its class, None for one of no class."""
    number = int(rng.integers(world.num_others[0], world.num_others[1] + 1)) + (0 if wanted else 2)
    strange = tuple(part for part in NOVEL_PARTS if part not in CLASSES) + TRAINING_PARTS
    if others:
        strangers = [others[int(row)] for row in rng.integers(0, len(others), number)]
    else:
        strangers = [draw_family(rng, strange) for _ in range(number)]
    families = [classes[row] for row in wanted] + strangers
    names = [*(CLASSES[row] for row in wanted), *(None for _ in strangers)]
    order = rng.permutation(len(families))
    drawn = [families[i] for i in order]
    scene = render_scene(rng, drawn, IMAGE_HW, radius=world.radius, max_overlap=world.max_overlap)
    return scene, [names[order[row]] for row in scene.families]


def _write(folder: Path, role: str, scenes: list[tuple[Scene, list[str | None]]]) -> None:
    images, annotations = [], []
    for number, (scene, names) in enumerate(scenes, 1):
        name = f"{role}_{number:03d}.png"
        Image.fromarray(scene.image).save(folder / name)
        height, width = scene.ids.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for mask, label in zip(scene.masks, names, strict=True):
            if label is not None:
                annotations.append(_annotation(len(annotations) + 1, number, label, mask))
    categories = [{"id": row, "name": label} for row, label in enumerate(CLASSES, 1)]
    write_json(folder / f"{role}.json", {"images": images, "categories": categories, "annotations": annotations})


def _annotation(number: int, image: int, label: str, mask: Any) -> dict[str, Any]:
    rows, columns = np.nonzero(mask)
    x0, y0, x1, y1 = (int(value) for value in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    code = encode_mask(mask[y0:y1, x0:x1], (x0, y0, x1, y1), mask.shape)
    return {
        "id": number,
        "image_id": image,
        "category_id": CLASSES.index(label) + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {**code, "counts": code["counts"].decode()},
    }


def open_candidates(draw: Draw, models: Models, *, tiles: bool = False, progress: bool | None = None) -> CandidateIndex:
    """The candidates of every image of a draw, by file name; computed where they are not kept yet."""
    settings = IndexSettings(
        models.preset.name,
        models.fingerprint,
        models.fingerprint,
        models.revisions,
        False,
        models.grid_side,
        models.feature_width,
        f"{draw.world.name} {draw.seed}",
        tiles,
        clean_masks=models.preset.clean_masks,
    )
    kind = f"{'tiles' if tiles else 'whole'}-{'clean' if models.preset.clean_masks else 'raw'}"
    kind += "-voted" if models.preset.vote_masks else ""
    index = CandidateIndex.create(draw.folder / f"{kind}-{models.fingerprint}-{models.preset.encoder_side}", settings)
    missing = sorted(path for path in draw.folder.glob("*.png") if path.name not in index.images)
    drain(_iter_propose(missing, models, index), progress)
    index.refresh()
    return index


def _iter_propose(paths: list[Path], models: Models, index: CandidateIndex) -> Generator[Progress, None, None]:
    for start in range(0, len(paths), IMAGES_A_WRITE):
        some = paths[start : start + IMAGES_A_WRITE]
        yield Progress(start, len(paths), "images")
        images = [read_image(path) for path in some]
        if index.settings.tiles:
            found = [propose_tiles(image, models, max_iou=NEAR_DUPLICATE_IOU) for image in images]
        else:
            found = [pack(one) for one in propose(images, models, max_iou=NEAR_DUPLICATE_IOU)]
        index.append([(path.name, FileState(path.name, 0, 0), one) for path, one in zip(some, found, strict=True)])
