"""What a dataset knows of its images: what lies around references, and which images hold none of the classes.

Candidates come from the dataset's index, which takes milliseconds an image; where it does not hold an image they are computed
and kept, one pass of the segmenter an image, and without an index they are computed each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from fiftyone.core.collections import SampleCollection

from ..calibration import (
    FINDS_HELD,
    MAX_MINED,
    Mined,
    Teacher,
    add_mined,
    best_mined,
    choose_shrinkage,
    join_surroundings,
    known_object,
    mine,
    spread,
    without_mined,
)
from ..candidates import Candidates, PackedCandidates
from ..checks import names_or_none, require_kind, require_whole
from ..dataset import (
    ACCEPTED_FIELD,
    EMPTY_TAG,
    DatasetIndex,
    Source,
    SourceSettings,
    every_image,
    find_source,
    ids_and_paths,
    image_dataset,
    image_view,
    iter_candidates,
    name_of,
    named_prototypes,
    object_region,
    objects_of,
    origin_of,
    require_samples,
    sample_or_none,
    save_prototypes,
    views_of_labels,
    whole_of,
)
from ..errors import CandidateIndexError, DatasetError
from ..matching import MatchSettings
from ..models import Models
from ..progress import Progress, Watcher, drain
from ..prototypes import KnownObject, Prototypes, Surroundings, image_key, look_around
from .cohorts import iter_cohort
from .looking import Looker
from .segmenting import matcher_for
from .settings import SegmentSettings

logger = logging.getLogger(__name__)

WHAT = "known images"


def calibrate(
    dataset: Any,
    prototypes: Prototypes | str,
    *,
    empty: Any = None,
    model: str | Models | None = None,
    index: bool | DatasetIndex = True,
    tiles: bool | None = None,
    num_workers: int | None = None,
    progress: bool | Watcher | None = None,
) -> Prototypes:
    """Teach prototypes what lies around their references, and what their dataset is full of.

    Then scores are probabilities, and the best candidates of each image are looked at again. In the images of references,
    candidates that show no reference teach what must score less than references do; the other objects of the fields that hold
    references, and of `accepted`, count neither way. So label all objects of the classes in these images. A reference whose
    label or image is gone is passed over. Candidates of up to 100 other images of the index stand for the dataset; where it
    holds fewer than twelve, so many are computed and kept.

    Args:
        dataset: that holds the labels; a dataset or view of images, whose dataset counts as a whole.
        prototypes: or the name under which the dataset keeps them; then the result takes their place.
        empty: a view of images known to hold no object of any class, up to 200 of which count; those with references do not.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        index: False neither reads nor fills an index; or an index opened by open_index.
        tiles: see `refseg.segment`.
        num_workers: threads that decode images; 0 for none.
        progress: see `refseg.progress.drain`.

    Returns:
        The same prototypes with `surroundings` and `cohort`, those of an earlier calibration replaced; the very same, and a
        warning, where no image of a reference is to be had.

    Raises:
        DatasetError: no images, unknown prototypes, or `empty` is of another dataset.
        PrototypeMismatchError: the model or the index is of another encoder than the one that built the prototypes.
        IndexDamagedError: the dataset's index cannot be read.
    """
    work = iter_calibrate(dataset, prototypes, empty, SourceSettings(model, index, tiles, num_workers))
    return drain(work, progress, "calibrating")


def iter_calibrate(
    dataset: Any,
    prototypes: Prototypes | str,
    empty: Any = None,
    sources: SourceSettings | None = None,
) -> Generator[Progress, None, Prototypes]:
    """The generator behind calibrate: yields after each image; closing it changes no prototypes."""
    dataset = image_dataset(dataset)
    name, prototypes = named_prototypes(dataset, prototypes)
    whole = every_image(dataset)
    views = views_of_labels(whole, prototypes.reference_ids)
    fields = [*views, ACCEPTED_FIELD] if whole.has_field(ACCEPTED_FIELD) and ACCEPTED_FIELD not in views else list(views)
    shown = list(dict.fromkeys(sample_id for view in views.values() for sample_id in view.values("id")))
    blank = _blank(whole, empty, set(shown))
    source = find_source(dataset, prototypes, sources or SourceSettings())
    labelled, wanted = whole.select_fields(fields), set(shown)
    around: dict[str, Surroundings] = {}
    images: dict[str, str] = {}
    looker, teacher = Looker(source, prototypes), Teacher(prototypes, source.preset)

    def look(sample_id: str, candidates: Candidates | PackedCandidates) -> None:
        sample = sample_or_none(labelled, sample_id) if sample_id in wanted else None
        if sample is None and sample_id in wanted:
            logger.warning("A reference's image %s was deleted meanwhile", sample_id)
            return
        path = blank[sample_id] if sample is None else sample.filepath
        objects = [] if sample is None else _objects(sample, fields, prototypes.reference_ids, candidates)
        again = partial(looker.look_at, sample_id, path, candidates)
        looks = teacher.looks(candidates, image_key(path), again)
        around[sample_id] = look_around(candidates, objects, image_key(path), looks)
        images.update((known.id, image_key(path)) for known in objects if known.id)

    yield from _look_at(source, whole, [*shown, *blank], prototypes, look)
    if not images:
        logger.warning("The prototypes are not calibrated: no image that shows one of their references is to be had.")
        return prototypes
    # In one order, wherever candidates came from: what is calibrated twice is the same file.
    parts = [around[sample_id] for sample_id in (*shown, *blank) if sample_id in around]
    cohort = yield from iter_cohort(whole, looker, {*shown, *blank})
    looker.write()
    calibrated = replace(
        prototypes,
        surroundings=join_surroundings(parts),
        cohort=cohort,
        # Files of earlier versions do not know them; without, no image could be left out.
        images=prototypes.images or tuple(images.get(label_id, "") for label_id in prototypes.reference_ids),
    )
    calibrated = choose_shrinkage(calibrated, source.preset)
    if name is not None:
        save_prototypes(dataset, calibrated, name, overwrite=True)
    return calibrated


def mine_negatives(
    view: Any,
    prototypes: Prototypes | str,
    *,
    classes: Sequence[str] | None = None,
    min_confidence: float | Mapping[str, float] | None = None,
    max_negatives: int = MAX_MINED,
    matching: MatchSettings | None = None,
    model: str | Models | None = None,
    index: bool | DatasetIndex = True,
    tiles: bool | None = None,
    num_workers: int | None = None,
    progress: bool | Watcher | None = None,
) -> Prototypes:
    """Make negatives of what is taken for a class in images known not to hold it.

    What `segment` would write there becomes a negative of the class it was taken for, named `mined <sample id> <number>`. Those
    mined before from the same images, for the same classes, are replaced, so that mining again changes nothing. Nobody
    labelled them: `update` and the operator `learn` start from the labels, and mine anew from images tagged `known_empty`.

    Args:
        view: images known not to hold the classes; those that show a reference of one are passed over.
        prototypes: or the name under which the dataset keeps them; then the result takes their place.
        classes: which the images do not hold; by default any.
        min_confidence: see `refseg.segment`.
        max_negatives: mined negatives of a class that are kept, those most confidently taken for it, of almost equal ones one.
        matching: see `refseg.segment`.
        model: preset's name or loaded models; by default the preset that built the prototypes.
        index: False neither reads nor fills an index; or an index opened by open_index.
        tiles: see `refseg.segment`.
        num_workers: threads that decode images; 0 for none.
        progress: see `refseg.progress.drain`.

    Raises:
        DatasetError: no images, an empty view, unknown prototypes or classes, or a limit out of range.
        PrototypeMismatchError: the model or the index is of another encoder than the one that built the prototypes.
        IndexDamagedError: the dataset's index cannot be read.
    """
    settings = SegmentSettings(min_confidence, classes=names_or_none("classes", classes), matching=matching)
    sources = SourceSettings(model, index, tiles, num_workers)
    work = iter_mine_negatives(view, prototypes, settings, sources, max_negatives=max_negatives)
    return drain(work, progress, "mining negatives")


def iter_mine_negatives(
    view: Any,
    prototypes: Prototypes | str,
    settings: SegmentSettings | None = None,
    sources: SourceSettings | None = None,
    *,
    max_negatives: int = MAX_MINED,
) -> Generator[Progress, None, Prototypes]:
    """The generator behind mine_negatives: yields after each image; closing it changes no prototypes.

    Of the settings `min_confidence`, `classes` and `matching` count.
    """
    settings = settings or SegmentSettings()
    view = image_view(view)
    require_samples(view)
    require_whole(1, max_negatives=max_negatives)
    name, prototypes = named_prototypes(view, prototypes)
    settings.require_classes(prototypes.classes)
    # As if nothing had been mined: what a mined negative keeps quiet would not be found again, and would be lost.
    plain = without_mined(prototypes)
    source = find_source(whole_of(view), plain, sources or SourceSettings())
    matcher = matcher_for(plain, source.preset, settings)
    paths = _without_references(view, prototypes, settings.classes)
    looked_at: list[str] = []
    found: list[Mined] = []
    looker = Looker(source, plain)

    def look(sample_id: str, candidates: Candidates | PackedCandidates) -> None:
        looked_at.append(sample_id)
        path = paths[sample_id]
        looked = looker.look_at(sample_id, path, candidates, matcher.pick(candidates), anew=matcher.looks_anew)
        found.append(mine(candidates, matcher, plain.classes, image_key(path), sample_id, looked))
        if len(found) == FINDS_HELD:
            found[:] = [best_mined(found, max_negatives)]

    yield from _look_at(source, view, list(paths), plain, look)
    looker.write()
    mined = add_mined(prototypes, found, matcher, sources=looked_at, classes=settings.classes, max_negatives=max_negatives)
    if name is not None:
        save_prototypes(view, mined, name, overwrite=True)
    return mined


def _look_at(
    source: Source,
    view: Any,
    sample_ids: Sequence[str],
    prototypes: Prototypes,
    look: Callable[[str, Candidates | PackedCandidates], None],
) -> Generator[Progress, None, None]:
    """Look at the candidates of some images of a view, those of the index first; yields after each image."""
    yield Progress(0, len(sample_ids), WHAT)
    with closing(iter_candidates(source, view.select(sample_ids), prototypes)) as every:
        for done, (sample_id, candidates) in enumerate(every, 1):
            if candidates is not None:
                look(sample_id, candidates)
            yield Progress(done, len(sample_ids), WHAT)


def iter_use_known(
    dataset: Any,
    prototypes: Prototypes,
    settings: SegmentSettings | None = None,
    sources: SourceSettings | None = None,
) -> Generator[Progress, None, Prototypes]:
    """Calibrate, and mine negatives, with the images tagged EMPTY_TAG: what follows each time prototypes are built.

    An index that cannot be used is logged, and what needs it is left out: the prototypes are worth keeping all the same.

    Args:
        dataset: a dataset or view of images, whose dataset counts as a whole.
        prototypes: that were built.
        settings: of what is mined: `min_confidence`, `classes` (which the empty images do not hold) and `matching`.
        sources: where candidates come from.
    """
    whole = every_image(whole_of(dataset))
    empty = whole.match_tags(EMPTY_TAG)
    try:
        prototypes = yield from iter_calibrate(whole, prototypes, empty, sources)
        if len(empty):
            prototypes = yield from iter_mine_negatives(empty, prototypes, settings, sources)
    except CandidateIndexError as error:
        logger.warning("Images that are known are left out, the index cannot be used: %s", error)
    return prototypes


def _blank(whole: Any, empty: Any, shown: Collection[str]) -> dict[str, str]:
    """Path of each image known to be empty that counts, by sample id."""
    if empty is None:
        return {}
    require_kind((str, SampleCollection), "a view of the dataset or None", empty=empty)
    empty = image_view(empty)
    if empty._root_dataset != whole._root_dataset:
        raise DatasetError(
            f"The images known to be empty are of the dataset {name_of(empty)!r}, not of {name_of(whole)!r}: give a "
            "view of the same dataset."
        )
    paths = dict(zip(*ids_and_paths(empty), strict=True))
    for sample_id in paths.keys() & shown:
        logger.warning("%s is not empty, it shows a reference", paths.pop(sample_id))
    ids = list(paths)
    return {ids[row]: paths[ids[row]] for row in spread(len(ids))}


def _without_references(view: Any, prototypes: Prototypes, classes: Sequence[str] | None) -> dict[str, str]:
    """Path of each image of a view that shows no reference of the classes, by sample id."""
    names = [prototypes.classes[row] for row in prototypes.labels.tolist()]
    keys = zip(prototypes.images, names, strict=True) if prototypes.images else ()
    shown = {key for key, label in keys if classes is None or label in classes}
    paths = dict(zip(*ids_and_paths(view), strict=True))
    for sample_id, path in list(paths.items()):
        if image_key(path) in shown:
            logger.warning("No negative is mined from %s, it shows a reference", paths.pop(sample_id))
    return paths


def _objects(
    sample: Any, fields: Iterable[str], reference_ids: Collection[str], candidates: Candidates | PackedCandidates
) -> list[KnownObject]:
    """Every labelled object of a sample, of an object and its copies one, those that are no reference without their id."""
    objects = []
    labels = [label for field in fields for label in objects_of(sample[field])]
    # A copy beside its reference would seem to be another object, which is none.
    known = {origin_of(label) for label in labels if label.id in reference_ids}
    for label in labels:
        if label.id not in reference_ids and origin_of(label) in known:
            continue
        known.add(origin_of(label))
        try:
            box, mask = object_region(label, candidates.image_hw)
        except DatasetError as error:
            logger.warning("%s", error)
            continue
        found = known_object(label.id if label.id in reference_ids else "", box, mask, candidates)
        if found is not None:
            objects.append(found)
    return objects
