"""Runs in episodes, as COCO-20i asks for: each image is searched for one class, with references of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from ..candidates import PackedCandidates
from ..dataset import DatasetIndex
from ..masks import ImageId, decode_mask
from ..matching import MatchSettings, make_matcher, semantic_map
from ..models import Preset
from ..progress import Progress
from ..prototypes import Prototypes
from .job import Run
from .miou import MeanIou, class_mask, group_annotations, overlap_of
from .scoring import Scores

IMAGES_A_STEP = 16


def iter_episodes(
    run: Run,
    prototypes: Prototypes | None,
    index: DatasetIndex,
    sample_ids: Mapping[ImageId, str],
    preset: Preset,
    matching: MatchSettings,
    min_score: float,
    label: str,
) -> Generator[Progress, None, tuple[list[dict[str, Any]], Scores]]:
    """Answer every episode: yields after some images.

    The references of an episode are all objects of its class in its support images, crowds apart.

    Args:
        run: its episodes.
        prototypes: of the references of all of them; None where none can be used.
        index: of the query images.
        sample_ids: in it, by the id of the image.
        preset: of the models.
        matching: how candidates are compared.
        min_score: least score of an instance that becomes a part of the map.
        label: of the progress.

    Returns:
        An entry for each episode, in order: image, class, supports, the map as a run-length code, and its IoU; and the scores.
        In an image that could not be read, or is not of its listed size, nothing is found.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    for number, episode in enumerate(run.episodes):
        if episode.query in sample_ids and prototypes is not None:
            asked[sample_ids[episode.query]].append(number)
    references = _by_support(run)
    found: dict[int, NDArray[np.bool_]] = {}
    yield Progress(0, len(asked), label)
    done = 0
    for chunk in index.index.scan(list(asked)):
        for number, image in enumerate(chunk.images):
            candidates = chunk.candidates(number)
            for position in asked[image.sample_id]:
                episode = run.episodes[position]
                ids = {name for support in episode.supports for name in references[support, episode.category_id]}
                found[position] = _find(candidates, prototypes, ids, preset, matching, min_score)
            done += 1
            if done % IMAGES_A_STEP == 0:
                yield Progress(done, len(asked), label)
    yield Progress(len(asked), len(asked), label)
    return _compare(run, found)


def _find(
    candidates: PackedCandidates,
    prototypes: Prototypes | None,
    reference_ids: set[str],
    preset: Preset,
    matching: MatchSettings,
    min_score: float,
) -> NDArray[np.bool_]:
    """(H, W) bool: where the class of some references is found; nowhere, where none of them can be used."""
    assert prototypes is not None
    own = prototypes.remove([name for name in prototypes.reference_ids if name not in reference_ids], keep_classes=False)
    if not own.classes:
        return np.zeros(candidates.image_hw, bool)
    matcher = make_matcher(own, preset, matching, dict.fromkeys(own.classes, min_score))
    mask: NDArray[np.bool_] = semantic_map(matcher.match(candidates), candidates.image_hw) > 0
    return mask


def _by_support(run: Run) -> dict[tuple[ImageId, int], list[str]]:
    """The ids of the references of each support image and class."""
    found: dict[tuple[ImageId, int], list[str]] = defaultdict(list)
    for annotation in run.draw.annotations:
        found[annotation["image_id"], annotation["category_id"]].append(str(annotation["id"]))
    return found


def _compare(run: Run, found: Mapping[int, NDArray[np.bool_]]) -> tuple[list[dict[str, Any]], Scores]:
    targets = run.part.targets
    grouped, meter = group_annotations(targets), MeanIou(targets.categories)
    answers = []
    for number, episode in enumerate(run.episodes):
        truth = class_mask(targets, grouped, episode.query, episode.category_id)
        mask = found.get(number, np.zeros_like(truth))
        overlap = overlap_of(mask, truth)
        meter.add(episode.category_id, overlap)
        code = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        answers.append(
            {
                "image_id": episode.query,
                "category_id": episode.category_id,
                "supports": list(episode.supports),
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
                "iou": overlap.intersection / overlap.union if overlap.union else None,
            }
        )
    return answers, meter.figures()


def class_maps(answers: Sequence[Mapping[str, Any]], category_ids: Sequence[int]) -> dict[ImageId, NDArray[np.uint16]]:
    """What was found in each image as one map: 0 is background, k + 1 the class at k of these ids; the first episode on top."""
    maps: dict[ImageId, NDArray[np.uint16]] = {}
    for answer in answers:
        mask = answer_mask(answer)
        canvas = maps.setdefault(answer["image_id"], np.zeros(mask.shape, np.uint16))
        canvas[mask & (canvas == 0)] = category_ids.index(answer["category_id"]) + 1
    return maps


def answer_mask(answer: Mapping[str, Any]) -> NDArray[np.bool_]:
    """(H, W) bool: what was found in an episode."""
    code = answer["segmentation"]
    return decode_mask({"size": code["size"], "counts": code["counts"].encode("ascii")})
