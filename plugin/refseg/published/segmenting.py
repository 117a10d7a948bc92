"""From an index and prototypes to COCO results, a few images at a time, in any process. No FiftyOne."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..coco import to_results
from ..index import CandidateIndex
from ..masks import ImageId
from ..matching import Matcher, MatchSettings, make_matcher, settings_for
from ..models import Preset
from ..prototypes import Prototypes

IMAGES_A_TASK = 64


@dataclass(frozen=True)
class MatchTask:
    """What candidates are matched with.

    Attributes:
        uri: of the index.
        state: of it, see state_of: an index that has changed is opened anew.
        prototypes: path of their file.
        category_ids: of each class of the prototypes.
        preset: the models', by value: another process does not know what this one has registered.
        matching: how candidates are compared; None as suits the preset.
        max_detections: the best so many of each image.
    """

    uri: str
    state: str
    prototypes: str
    category_ids: tuple[int, ...]
    preset: Preset
    matching: MatchSettings | None
    max_detections: int


def match_images(task: MatchTask, images: Sequence[tuple[str, ImageId]]) -> list[dict[str, Any]]:
    """COCO results of some images, every score counts; images that are not indexed have none.

    Args:
        task: what with.
        images: sample id in the index, and id in the results; a file may be listed as several images.

    Raises:
        IndexDamagedError: the index cannot be read.
    """
    index, matcher = _open_index(task.uri, task.state), _open_matcher(task)
    names: dict[str, list[ImageId]] = {}
    for sample_id, image_id in images:
        names.setdefault(sample_id, []).append(image_id)
    results: list[dict[str, Any]] = []
    for chunk in index.scan(list(names)):
        classified = matcher.classify(chunk.features)
        for number, image in enumerate(chunk.images):
            rows = slice(int(chunk.starts[number]), int(chunk.starts[number + 1]))
            candidates = chunk.candidates(number)
            ranking = matcher.rank(candidates, classified.take(rows))
            instances = matcher.cut(candidates, ranking)
            for image_id in names[image.sample_id]:
                results += to_results(
                    instances, task.category_ids, image_id, candidates.image_hw, as_published=matcher.as_published
                )
    return results


def state_of(index: CandidateIndex) -> str:
    """Changes whenever images were indexed, or indexed again."""
    keys = sorted((image.sample_id, image.key) for image in index.images.values())
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()


@lru_cache(maxsize=1)
def _open_index(uri: str, state: str) -> CandidateIndex:
    return CandidateIndex.open(uri)


@lru_cache(maxsize=2)
def _open_matcher(task: MatchTask) -> Matcher:
    prototypes, preset = Prototypes.load(task.prototypes), task.preset
    settings = settings_for(preset.as_published, task.matching)
    return make_matcher(prototypes, preset, settings, dict.fromkeys(prototypes.classes, 0.0), task.max_detections)
