"""References drawn from a set of objects, as the published few-shot benchmark draws them. No FiftyOne.

The objects are grouped once, a second or two for the 860,000 of COCO's train2017; each draw after that takes milliseconds.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from pycocotools import mask as mask_utils

from ..coco import CocoDataset, CocoImage, group_by_image, objects_of
from ..dataset import draw_one_each, is_whole
from ..errors import CocoError
from ..masks import annotation_rle
from ..prototypes import Reference
from .suite import Draw, DrawRule

logger = logging.getLogger(__name__)

Annotation: TypeAlias = dict[str, Any]


class Drawer:
    """Draws references from one pool, as often as one likes.

    With a rule, at most one object of a class comes from an image; crowds and objects that the rule passes over are not drawn,
    nor those of images whose size the pool does not list, since their distance to the border is unknown. The first
    of a seed's many shots are those of fewer, a class's draw does not depend on the other classes asked for, and the order
    of the file does not matter. Without a rule, a class's objects are taken in the order of the file, crowds apart.

    Args:
        pool: objects to draw from.
        rule: which of them may be drawn.
    """

    def __init__(self, pool: CocoDataset, rule: DrawRule | None) -> None:
        self.pool = pool
        self.rule = rule
        self._suitable: dict[int, list[list[Annotation]]] = {}

    def draw(self, category_ids: Sequence[int], shots: int | None, seed: int) -> Draw:
        """Draw references of some classes.

        Args:
            category_ids: of the classes, in the order wanted.
            shots: references a class; None for all there are, with a rule one of each image.
            seed: of the draw; without a rule it does not matter.

        Raises:
            CocoError: a shot count below one.
        """
        if shots is not None and shots < 1:
            raise CocoError(f"At least one shot a class is needed, not {shots}.")
        drawn: list[Annotation] = []
        short: dict[str, int] = {}
        relaxed: list[str] = []
        for category_id in category_ids:
            name = self.pool.categories.get(category_id, str(category_id))
            objects = self._listed.get(category_id, [])
            if self.rule is None:
                chosen = objects[:shots]
            else:
                groups = self._groups(category_id, self.rule)
                if not groups and objects and self.rule.relaxed:
                    groups = _by_image(objects)
                    relaxed.append(name)
                # A seed is made of numbers from 0 on, and nothing keeps a file from giving a class a negative id.
                chosen = draw_one_each(groups, shots, (seed, category_id % 2**32))
            drawn += chosen
            if len(chosen) < (shots or 1):
                short[name] = len(chosen)
        return Draw(tuple(drawn), short, tuple(relaxed))

    @cached_property
    def _listed(self) -> dict[int, list[Annotation]]:
        """Objects by class, crowds apart."""
        listed: dict[int, list[Annotation]] = defaultdict(list)
        for annotation in self.pool.annotations:
            if not annotation.get("iscrowd"):
                listed[annotation["category_id"]].append(annotation)
        return listed

    def _groups(self, category_id: int, rule: DrawRule) -> list[list[Annotation]]:
        """A class's suitable objects by image."""
        if category_id not in self._suitable:
            whole = [entry for entry in self._listed.get(category_id, []) if _is_suitable(entry, self.pool, rule)]
            self._suitable[category_id] = _by_image(whole)
        return self._suitable[category_id]


def references_of(pool: CocoDataset, folder: Path, draw: Draw) -> tuple[list[Reference], list[tuple[str, str]]]:
    """What was drawn, as references with masks cut out, and the id and reason of each whose mask or image cannot be used.

    An image that is missing or broken is left to `build_prototypes`, which records its references as skipped.

    Args:
        pool: that was drawn from.
        folder: that its file names are relative to.
        draw: from `Drawer`.
    """
    references: list[Reference] = []
    skipped: list[tuple[str, str]] = []
    seen: set[str] = set()
    for position, annotation in enumerate(draw.annotations):
        name = str(annotation.get("id", f"#{position}"))
        # Files joined from several often give one id twice, and a reference is told apart by its id.
        name = f"{name}#{position}" if name in seen else name
        seen.add(name)
        try:
            references += objects_of(pool, folder, [{**annotation, "id": name}])
        except CocoError as error:
            skipped.append((name, str(error)))
            logger.warning("A reference is left out: %s", error)
    return references, skipped


def _by_image(annotations: Sequence[Annotation]) -> list[list[Annotation]]:
    """Objects of each image, both in an order that does not depend on the file's."""
    groups = group_by_image(annotations)
    return [sorted(groups[image_id], key=_order) for image_id in sorted(groups, key=_order)]


def _is_suitable(annotation: Annotation, pool: CocoDataset, rule: DrawRule) -> bool:
    image = pool.images[annotation["image_id"]]
    xywh = annotation.get("bbox") or _box_of_mask(annotation, image, pool.source)
    if image.image_hw is None or not xywh:
        return False
    x, y, w, h = xywh
    return is_whole((x, y, x + w, y + h), image.image_hw, rule.min_side, rule.border)


def _box_of_mask(annotation: Annotation, image: CocoImage, source: str) -> list[float] | None:
    try:
        code = None if image.image_hw is None else annotation_rle(annotation, image.image_hw, source)
    except CocoError as error:
        logger.warning("No reference is drawn from it: %s", error)
        return None
    return None if code is None else [float(value) for value in mask_utils.toBbox(code)]


def _order(item: Any) -> tuple[int, Any]:
    """Sorts images by their ids and objects by theirs, numbers before texts; objects without id by their boxes."""
    value = item.get("id", item.get("bbox") or []) if isinstance(item, dict) else item
    if isinstance(value, list):
        return 2, value
    return (1, value) if isinstance(value, str) else (0, value)
