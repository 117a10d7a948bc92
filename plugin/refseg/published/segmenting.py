"""From an index and prototypes to COCO results, a few images at a time, in any process. No FiftyOne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..coco import ImageId, to_results
from ..index import CandidateIndex
from ..match_settings import MatchSettings, settings_for
from ..matcher import Matcher, make_matcher
from ..models import get_preset
from ..prototypes import Prototypes

IMAGES_A_TASK = 64


@dataclass(frozen=True)
class MatchTask:
    """What candidates are matched with.

    Attributes:
        uri: of the index.
        num_indexed: images in it: an index that has grown is opened anew.
        prototypes: path of their file.
        category_ids: of each class of the prototypes.
        preset: the name of the models'.
        matching: how candidates are compared; None as suits the preset.
        max_detections: the best so many of each image.
    """

    uri: str
    num_indexed: int
    prototypes: str
    category_ids: tuple[int, ...]
    preset: str
    matching: MatchSettings | None
    max_detections: int


def match_images(task: MatchTask, images: Sequence[tuple[str, ImageId]]) -> list[dict[str, Any]]:
    """COCO results of some images, every score counts; images that are not indexed have none.

    Args:
        task: what with.
        images: sample id in the index, and id in the results.

    Raises:
        IndexDamagedError: the index cannot be read.
    """
    index, matcher = _open_index(task.uri, task.num_indexed), _open_matcher(task)
    names = dict(images)
    results: list[dict[str, Any]] = []
    for chunk in index.scan(list(names)):
        classified = matcher.classify(chunk.features.float())
        for number, image in enumerate(chunk.images):
            rows = slice(int(chunk.starts[number]), int(chunk.starts[number + 1]))
            candidates = chunk.candidates(number)
            ranking = matcher.rank(candidates, classified.take(rows))
            instances = matcher.cut(candidates, ranking)
            results += to_results(instances, task.category_ids, names[image.sample_id], candidates.image_hw)
    return results


@lru_cache(maxsize=1)
def _open_index(uri: str, num_indexed: int) -> CandidateIndex:
    return CandidateIndex.open(uri)


@lru_cache(maxsize=2)
def _open_matcher(task: MatchTask) -> Matcher:
    prototypes, preset = Prototypes.load(task.prototypes), get_preset(task.preset)
    settings = settings_for(preset.as_published, task.matching)
    return make_matcher(prototypes, preset, settings, dict.fromkeys(prototypes.classes, 0.0), task.max_detections)
