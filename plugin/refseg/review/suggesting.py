"""Predictions that can be taken as references as they are: of all predictions the most like a reference of their class.

Reads the candidate index where there are predictions, about a second for twenty thousand candidates, and needs no model. A
prediction is suggested where it and a reference are each other's nearest: no reference of any class is more like the
prediction, and no other prediction of any class is more like the reference. What is wrong is rarely both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..calibration import calibrator_for, default_thresholds, scores_of
from ..checks import require_names, require_whole
from ..dataset import (
    ACCEPTED_FIELD,
    EMPTY_TAG,
    REJECTED_FIELD,
    DatasetIndex,
    PastRun,
    every_image,
    find_index,
    image_view,
    images_of,
    name_of,
    named_prototypes,
    newest_run,
    open_index,
    require_pixels,
    whole_of,
)
from ..errors import DatasetError, IndexMismatchError, IndexNotFoundError
from ..index import IndexChunk
from ..insight import MIN_PREDICTED_IOU, preset_of
from ..matching import (
    SIMILARITIES,
    Looked,
    Matcher,
    MatchSettings,
    Nearest,
    find_nearest,
    join_nearest,
    make_matcher,
    settings_for,
)
from ..notebook import plain_page
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes
from .places import Prediction, candidate_rows, find_places, read_predictions, shows
from .queue import review_queue

PER_CLASS = 3


@dataclass(frozen=True)
class SuggestedReference:
    """A prediction that could serve as a reference of its class.

    Attributes:
        sample_id: of its image.
        label_id: of the prediction.
        label: its class.
        score: its confidence in [0, 1].
        similarity: cosine in [-1, 1] of the prediction and the reference.
        reference_id: of the reference that it is nearest to.
        reason: why it is suggested, in a sentence.
    """

    sample_id: str
    label_id: str
    label: str
    score: float
    similarity: float
    reference_id: str
    reason: str

    _repr_html_ = plain_page


def suggest_references(
    view: Any,
    label_field: str = "predictions",
    *,
    prototypes: Prototypes | str | None = None,
    per_class: int = PER_CLASS,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
    progress: bool | Watcher | None = None,
) -> tuple[SuggestedReference, ...]:
    """Predictions that could be references: each is the nearest of all predictions to the reference that is nearest to it.

    They are compared by whitened second looks where the last run took them, else by the features of the index; what nobody has
    looked at again then takes no part. Neither do predictions that show a reference: those at its place, and those of its class
    that overlap it. Not suggested are predictions that are decided on, that show what was tagged as a reference since, that lie
    at the place of a negative or in an image tagged `known_empty`, whose mask is several pieces or has a predicted IoU below
    0.7, or whose score is below what a run writes by default: 0.5 where scores are probabilities.

    Apart from the references of the prototypes, only labels tagged `reference` or `negative` count, and those of images tagged
    `reference`: other tags, which `refseg.update` takes, are not known here.

    Args:
        view: a dataset or view of images to suggest from; they are compared with the predictions of the whole dataset.
        label_field: holds the predictions.
        prototypes: whose references they are compared with, or the name under which the dataset keeps them; by default those of
            the field's last run.
        per_class: at most so many of a class.
        accepted_field: see `accept`.
        rejected_field: see `reject`.
        progress: see `refseg.progress.drain`.

    Returns:
        The best score first; empty where nothing is sure enough. A reference brings one suggestion at most.

    Raises:
        DatasetError: no images, no run that wrote to the field, unknown prototypes, a number below one, or a run whose scores
            are similarities where these prototypes give probabilities, or the other way round.
        IndexNotFoundError: no image that has predictions is indexed.
        IndexDamagedError: the index cannot be read.
        PrototypeFileError: the file of the prototypes is gone or damaged.
        PrototypeMismatchError: the index reads pixels otherwise than the prototypes.

    Example:
        Take all of them, and learn from them::

            found = refseg.suggest_references(dataset)
            refseg.accept(dataset, [item.label_id for item in found], as_references=True)
            refseg.update(dataset)
    """
    work = iter_suggest_references(
        view,
        label_field,
        prototypes=prototypes,
        per_class=per_class,
        accepted_field=accepted_field,
        rejected_field=rejected_field,
    )
    return drain(work, progress, "suggesting references")


def iter_suggest_references(
    view: Any,
    label_field: str = "predictions",
    *,
    prototypes: Prototypes | str | None = None,
    per_class: int = PER_CLASS,
    accepted_field: str = ACCEPTED_FIELD,
    rejected_field: str = REJECTED_FIELD,
) -> Generator[Progress, None, tuple[SuggestedReference, ...]]:
    """The generator behind suggest_references: yields as images are looked at."""
    require_names(label_field=label_field, accepted_field=accepted_field, rejected_field=rejected_field)
    require_whole(1, per_class=per_class)
    view = image_view(view)
    dataset = whole_of(view)
    if prototypes is not None:
        _, prototypes = named_prototypes(dataset, prototypes)
    run = newest_run(dataset, label_field)
    if run is None:
        raise DatasetError(
            f"No run of RefSeg has written to the field {label_field!r} of dataset {name_of(dataset)!r}, so there is nothing "
            "to suggest: run refseg.segment first."
        )
    if prototypes is None:
        prototypes = Prototypes.load(run.config["prototypes_path"])
    queue = review_queue(view, label_field, accepted_field=accepted_field, rejected_field=rejected_field, order="score")
    predictions = read_predictions(every_image(dataset), label_field)
    index, sample_ids = _indexed(dataset, prototypes, run, predictions)
    places = find_places(every_image(dataset), prototypes, rejected_field)
    matcher, least = matcher_of(prototypes, run)
    # Where a reference shows itself, its own prediction would be the nearest, and no other could ever be. Those of references
    # that nobody has learnt from yet, and what is known to be wrong, stay the nearest to others, and are not suggested.
    learnt = {sample_id: [place for place in own if place.kind == "learnt"] for sample_id, own in places.items()}
    free = {
        sample_id: [one for one in own if not shows(one, learnt.get(sample_id, ()))] for sample_id, own in predictions.items()
    }
    pool = yield from _compare(index, sample_ids, free, matcher, prototypes)
    empty = set(every_image(dataset).match_tags(EMPTY_TAG).values("id"))
    is_open = {item.label_id for item in queue if item.sample_id not in empty}
    is_open -= {one.label_id for one in pool.predictions if shows(one, places.get(one.sample_id, ()))}
    return _choose(pool, prototypes, is_open, least, per_class)


class _Pool(NamedTuple):
    """Predictions that were compared, and the references, as rows of the prototypes, that they were compared with."""

    predictions: list[Prediction]
    references: Tensor
    nearest: Nearest


def _indexed(
    dataset: Any, prototypes: Prototypes, run: PastRun, predictions: Collection[str]
) -> tuple[DatasetIndex, list[str]]:
    """The index for these prototypes, and of the images that have predictions those that it holds."""
    index = index_of(dataset, prototypes, run)
    held = [] if index is None else images_of(every_image(dataset), index).held
    sample_ids = [sample_id for sample_id in held if sample_id in predictions]
    if index is None or (predictions and not sample_ids):
        raise IndexNotFoundError(
            f"No image of dataset {name_of(dataset)!r} that has predictions is indexed for the model {prototypes.model!r}, so "
            "they cannot be compared: build the index with "
            f"refseg.build_index(dataset, {prototypes.model!r}), and segment again."
        )
    require_pixels(prototypes, index.index.settings.pixel_settings, f"the index at {index.uri} was built with")
    return index, sample_ids


def index_of(dataset: Any, prototypes: Prototypes, run: PastRun) -> DatasetIndex | None:
    """The index that a run has used; where it used none, or that is gone or another now, the default one."""
    if run.config.get("index_uri"):
        with suppress(IndexNotFoundError, IndexMismatchError):
            index = open_index(dataset, uri=run.config["index_uri"])
            if index.index.settings.encoder == prototypes.fingerprint:
                return index
    return find_index(dataset, prototypes.model, prototypes.fingerprint, run.config.get("tiles"))


def matcher_of(prototypes: Prototypes, run: PastRun) -> tuple[Matcher, dict[str, float]]:
    """Prototypes made ready as a run had them, and the least score of each class that is suggested.

    Raises:
        DatasetError: the scores of the run are not what these prototypes give.
    """
    preset, config = preset_of(prototypes), run.config
    chosen = MatchSettings.from_mapping(config["matching"]) if config.get("matching") else None
    matching = settings_for(preset.as_published, chosen)
    written, now = run.config.get("scores", SIMILARITIES), scores_of(matching, prototypes)
    if written != now:
        raise DatasetError(
            f"The run {run.key!r} wrote {written} as scores, and with these prototypes scores are {now}, so they cannot be "
            "compared: segment again first."
        )
    calibrator = calibrator_for(prototypes, preset, matching)
    least = default_thresholds(prototypes, preset, matching, calibrator)
    for name, own in config.get("min_confidences") or ():
        least[str(name)] = max(float(own), least.get(str(name), 0.0))
    return make_matcher(prototypes, preset, matching, least, calibrator=calibrator), least


def _compare(
    index: DatasetIndex,
    sample_ids: Sequence[str],
    predictions: Mapping[str, Sequence[Prediction]],
    matcher: Matcher,
    prototypes: Prototypes,
) -> Generator[Progress, None, _Pool]:
    """Find the nearest reference of every prediction, and the nearest prediction of every reference."""
    if matcher.second is None or prototypes.looks is None:
        references, keys = torch.arange(len(prototypes.vectors)), prototypes.vectors.float()
    else:
        references = prototypes.looks.any(1).nonzero()[:, 0]  # an object too thin for a second look has zeros
        keys = matcher.second.whitening.apply(prototypes.looks[references].float())
    compared: list[Prediction] = []
    parts = [find_nearest(keys[:0], keys)]
    done = 0
    yield Progress(0, len(sample_ids), "indexed images")
    for chunk in index.index.scan(sample_ids):
        own, queries = _described(index, chunk, predictions, matcher, keys.shape[1])
        compared += own
        parts.append(find_nearest(queries, keys))
        done += len(chunk.images)
        yield Progress(done, len(sample_ids), "indexed images")
    return _Pool(compared, references, join_nearest(parts))


def _described(
    index: DatasetIndex, chunk: IndexChunk, predictions: Mapping[str, Sequence[Prediction]], matcher: Matcher, width: int
) -> tuple[list[Prediction], Tensor]:
    """The predictions on some images that can be compared, and (n, width) their features or whitened second looks."""
    looks = [] if matcher.second is None else index.index.looks.read(chunk.images)
    described: list[Prediction] = []
    vectors = [torch.zeros(0, width)]
    for number, image in enumerate(chunk.images):
        own, candidates = predictions[image.sample_id], chunk.candidates(number)
        rows = candidate_rows(own, candidates)
        if matcher.second is None:
            known = rows >= 0
            vectors.append(candidates.features[rows[known]])
        elif len(looks[number][0]) and bool((rows >= 0).any()):
            # Not those that somebody took for other prototypes.
            known = torch.isin(rows, matcher.pick(candidates))
            seen = Looked(*looks[number]).at(rows[known])
            known[known.clone()] = seen.any(1)
            vectors.append(matcher.second.whitening.apply(seen[seen.any(1)]))
        else:
            continue
        described += [one for one, is_known in zip(own, known.tolist(), strict=True) if is_known]
    return described, torch.cat(vectors)


def _choose(
    pool: _Pool, prototypes: Prototypes, is_open: Collection[str], least: Mapping[str, float], per_class: int
) -> tuple[SuggestedReference, ...]:
    """Those of the compared predictions that can be suggested, the best score first."""
    mutual = pool.nearest.mutual.tolist()
    rows = pool.references[pool.nearest.keys].tolist()
    names = [prototypes.classes[label] for label in prototypes.labels.tolist()]
    found = []
    for one, is_mutual, row, similarity in zip(pool.predictions, mutual, rows, pool.nearest.similarities.tolist(), strict=True):
        is_right = is_mutual and names[row] == one.label
        is_good = (one.predicted_iou or 0.0) >= MIN_PREDICTED_IOU and one.pieces < 2
        if is_right and is_good and one.score >= least[one.label] and one.label_id in is_open:
            reason = (
                f"Of all references it is most like one of {one.label!r} ({similarity:.2f}), and of all predictions it is the "
                "one most like that reference."
            )
            own = (one.sample_id, one.label_id, one.label, one.score, similarity, prototypes.reference_ids[row], reason)
            found.append(SuggestedReference(*own))
    found.sort(key=lambda item: -item.score)
    counts: Counter[str] = Counter()
    chosen = []
    for item in found:
        counts[item.label] += 1
        if counts[item.label] <= per_class:
            chosen.append(item)
    return tuple(chosen)
