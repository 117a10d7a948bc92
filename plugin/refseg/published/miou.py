"""COCO-20i's protocol: episodes of one class with some references, and the mean IoU of its semantic maps. No FiftyOne.

Sources: Min et al., Hypercorrelation Squeeze for Few-Shot Segmentation (arXiv 2104.01538), section 5, and Tian et al., PFENet
(arXiv 2008.01449), section 4.1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coco import CocoDataset
from ..errors import CocoError, ShapeError
from ..masks import ImageId, annotation_rle, decode_mask
from .scoring import Scores


@dataclass(frozen=True)
class Episode:
    """One query.

    Attributes:
        category_id: of the class that is looked for.
        query: the image it is looked for in.
        supports: other images that show it, one for each shot.
    """

    category_id: int
    query: ImageId
    supports: tuple[ImageId, ...]


class EpisodeDrawer:
    """Draws the episodes of a fold: a class with equal chances, then a query image and as many others as there are shots.

    An image where the class is a crowd alone is not drawn. Class and query of an episode are the same for all numbers of
    shots, and the first references of many shots are those of fewer. Neither the order of the file nor that of the classes
    matters.

    Args:
        pool: images and their objects, grouped once.
    """

    def __init__(self, pool: CocoDataset) -> None:
        self.pool = pool
        found: dict[int, set[ImageId]] = defaultdict(set)
        for annotation in pool.annotations:
            if not annotation.get("iscrowd"):
                found[annotation["category_id"]].add(annotation["image_id"])
        self._images = {key: sorted(ids, key=lambda value: (isinstance(value, str), value)) for key, ids in found.items()}

    def num_images(self, category_id: int) -> int:
        """Images that may be drawn for a class."""
        return len(self._images.get(category_id, ()))

    def draw(self, category_ids: Sequence[int], shots: int, seed: int, count: int) -> list[Episode]:
        """Draw episodes.

        Args:
            category_ids: classes of the fold.
            shots: references an episode.
            seed: of the draw.
            count: episodes; 1,000 a fold in the literature.

        Raises:
            CocoError: no class, no shot, or a class in too few images.
        """
        if shots < 1 or not category_ids:
            raise CocoError(f"Episodes need at least one class and one shot, not {len(category_ids)} and {shots}.")
        images = {key: self._images.get(key, []) for key in sorted(category_ids)}
        few = [f"{self.pool.categories.get(key, key)} in {len(ids)}" for key, ids in images.items() if len(ids) <= shots]
        if few:
            source = self.pool.source
            raise CocoError(f"{source}: {shots} shots need each class in {shots + 1} images, but it shows {', '.join(few)}.")
        episodes = []
        for number in range(count):
            rng = np.random.default_rng((seed, number))
            category_id = list(images)[rng.integers(len(images))]
            order = rng.permutation(len(images[category_id]))[: shots + 1]
            query, *supports = (images[category_id][row] for row in order)
            episodes.append(Episode(category_id, query, tuple(supports)))
        return episodes


def group_annotations(coco: CocoDataset) -> dict[tuple[ImageId, int], list[dict[str, Any]]]:
    """The objects of each image and class, crowds too."""
    grouped: dict[tuple[ImageId, int], list[dict[str, Any]]] = defaultdict(list)
    for annotation in coco.annotations:
        grouped[annotation["image_id"], annotation["category_id"]].append(annotation)
    return dict(grouped)


def class_mask(
    coco: CocoDataset,
    grouped: Mapping[tuple[ImageId, int], Sequence[Mapping[str, Any]]],
    image_id: ImageId,
    category_id: int,
) -> NDArray[np.bool_]:
    """The pixels of all objects of a class in an image, crowds too; where classes overlap, pixels are of both.

    Args:
        coco: images, with their height and width.
        grouped: its objects, from `group_annotations`.
        image_id: of the image.
        category_id: of the class.

    Returns:
        (H, W) bool.

    Raises:
        CocoError: the image's size is unknown, an object has no mask, or one that does not fit the image.
    """
    image = coco.images[image_id]
    if image.image_hw is None:
        raise CocoError(f"{coco.source} lists no height and width for the image {image.file_name}: add them.")
    whole = np.zeros(image.image_hw, bool)
    for annotation in grouped.get((image_id, category_id), []):
        if not annotation.get("segmentation"):
            what = f"the annotation {annotation.get('id')!r}"
            raise CocoError(f"{coco.source}: {what} has a box alone, but a semantic map needs its mask: add it.")
        code = annotation_rle(annotation, image.image_hw, coco.source)
        if code is not None:
            whole |= decode_mask(code)
    return whole


@dataclass(frozen=True)
class Overlap:
    """What one query's prediction has in common with the truth.

    Attributes:
        intersection: pixels in both.
        union: pixels in either.
        pixels: of the image.
    """

    intersection: int
    union: int
    pixels: int


def overlap_of(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Overlap:
    """Compare two masks of one image.

    Args:
        predicted: (H, W) bool.
        truth: (H, W) bool.

    Raises:
        ShapeError: they are of different sizes.

    Example:
        >>> overlap_of(np.array([[True, True, False]]), np.array([[False, True, False]]))
        Overlap(intersection=1, union=2, pixels=3)
    """
    if predicted.shape != truth.shape:
        raise ShapeError(f"A predicted mask has {predicted.shape} pixels, but the truth {truth.shape}.")
    return Overlap(int((predicted & truth).sum()), int((predicted | truth).sum()), predicted.size)


class MeanIou:
    """Gathers the overlaps of a fold's episodes.

    The IoU of a class is that of all its episodes' pixels together, "mIoU" the mean over classes. "FB-IoU" is the mean of
    two such IoUs, those of foreground and background whatever the class.

    Args:
        names: of the classes, by category id; those that no episode asks for do not count.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = dict(names)
        self._sums = {category_id: [0, 0, 0] for category_id in names}  # intersection, union, pixels

    def add(self, category_id: int, overlap: Overlap) -> None:
        """Count one episode of a class of the fold."""
        added = (overlap.intersection, overlap.union, overlap.pixels)
        self._sums[category_id] = [value + more for value, more in zip(self._sums[category_id], added, strict=True)]

    def figures(self) -> Scores:
        """The scores so far, over the classes that an episode asked for."""
        sums = {key: counts for key, counts in self._sums.items() if counts[2]}
        per_class = {self.names[key]: {"IoU": _ratio(counts[0], counts[1])} for key, counts in sums.items()}
        measured = [values["IoU"] for values in per_class.values() if values["IoU"] is not None]
        intersection, union, pixels = (sum(counts[place] for counts in sums.values()) for place in range(3))
        foreground, background = _ratio(intersection, union), _ratio(pixels - union, pixels - intersection)
        both = None if foreground is None or background is None else (foreground + background) / 2
        return Scores({"mIoU": sum(measured) / len(measured) if measured else None, "FB-IoU": both}, per_class)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
