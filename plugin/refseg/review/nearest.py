"""The references that a prediction is most like, to be shown beside it: by what the candidate index holds, without a model.

The first prediction of a run takes some tenths of a second, in which prototypes and index are opened; these are kept, and each
further one takes milliseconds: one image's candidates are read and compared with the references of two classes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import require_names, require_whole
from ..dataset import DatasetIndex, PastRun, image_dataset, newest_run, read_documents
from ..errors import DatasetError, RefSegError
from ..matching import Looked, Matcher
from ..notebook import page, table
from ..printing import one_line
from ..prototypes import Prototypes
from .places import Prediction, as_prediction, candidate_rows
from .suggesting import index_of, matcher_of

DATASETS_KEPT = 4
By = Literal["second look", "first look"]


@dataclass(frozen=True)
class LikeReferences:
    """The references that one prediction is most like.

    Attributes:
        by: whether second looks were compared, as the run did where it took one, or features of the index.
        classes: the class of the prediction and the runner-up, each with reference ids and cosines in [-1, 1], the most like
            first.
    """

    by: By
    classes: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]

    def _repr_html_(self) -> str:
        """Each class with its references, the most like first."""
        rows = [(name, label_id, cosine) for name, found in self.classes for label_id, cosine in found]
        return page(f"Most alike by {self.by}", table(["class", "reference", "cosine"], rows))


@dataclass(frozen=True, eq=False)
class _Known:
    """What a run compared with.

    Attributes:
        run_key: of the run.
        prototypes: of the run.
        index: that holds its candidates; None where there is none.
        matcher: None where the prototypes give other scores by now.
    """

    run_key: str
    prototypes: Prototypes
    index: DatasetIndex | None
    matcher: Matcher | None

    __repr__ = one_line


_kept: OrderedDict[str, _Known] = OrderedDict()
_lock = threading.Lock()


def like_references(
    dataset: Any,
    places: Mapping[str, str],
    label_field: str = "predictions",
    *,
    number: int = 3,
    among: Collection[str] | None = None,
) -> dict[str, LikeReferences]:
    """The references of its class, and of its runner-up, that each prediction is most like.

    Args:
        dataset: a FiftyOne dataset, or a view of one, which stands for the whole.
        places: of predictions: the sample id by label id.
        label_field: holds the predictions.
        number: of references a class, at most.
        among: ids of references that can be shown; None for all of the run's.

    Returns:
        By label id; empty where no run, no prototypes or no index are left. A prediction is left out whose image is not
        indexed, or whose label somebody has changed, so that nothing tells which candidate it was.

    Raises:
        DatasetError: no dataset, or one without images.
        IndexDamagedError: the index cannot be read.
    """
    require_names(label_field=label_field)
    require_whole(1, number=number)
    whole = image_dataset(dataset)
    run = newest_run(whole, label_field)
    known = None if run is None else _known(whole, run)
    if known is None or known.index is None:
        return {}
    predictions: dict[str, list[tuple[Prediction, str | None]]] = {}
    attributes = ("_id", "label", "confidence", "bounding_box", "predicted_iou", "pieces", "runner_up")
    for sample_id, lists in read_documents(whole, set(places.values()), [label_field], attributes):
        for one in lists[label_field]:
            if str(one["_id"]) in places:
                predictions.setdefault(sample_id, []).append((as_prediction(sample_id, one), one.get("runner_up")))
    found: dict[str, LikeReferences] = {}
    for chunk in known.index.index.scan(list(predictions)):
        for position, image in enumerate(chunk.images):
            candidates = chunk.candidates(position)
            own = predictions[image.sample_id]
            rows = candidate_rows([one for one, _ in own], candidates)
            looked = None if known.matcher is None or known.matcher.second is None else known.index.index.looks.read([image])[0]
            for (one, runner_up), row in zip(own, rows.tolist(), strict=True):
                if row >= 0:
                    names = [name for name in dict.fromkeys([one.label, runner_up]) if name in known.prototypes.classes]
                    found[one.label_id] = _like(known, candidates.features[row], row, looked, names, number, among)
    return found


def _like(
    known: _Known,
    feature: Tensor,
    row: int,
    looked: tuple[Tensor, Tensor] | None,
    names: Sequence[str],
    number: int,
    among: Collection[str] | None,
) -> LikeReferences:
    """The references of some classes that a candidate is most like."""
    prototypes = known.prototypes
    by: By = "first look"
    query, keys, usable = feature.float(), prototypes.vectors.float(), torch.ones(len(prototypes.labels), dtype=torch.bool)
    second = None if known.matcher is None else known.matcher.second
    if second is not None and looked is not None and len(looked[0]) and prototypes.looks is not None:
        seen = Looked(*looked).at(torch.tensor([row]))
        if bool(seen.any()):
            by, usable = "second look", prototypes.looks.any(1)
            query, keys = second.whitening.apply(seen.float())[0], second.whitening.apply(prototypes.looks.float())
    similarity = F.normalize(keys, dim=-1) @ F.normalize(query, dim=-1)
    if among is not None:
        usable = usable & torch.tensor([one in among for one in prototypes.reference_ids])
    classes = []
    for name in names:
        own = ((prototypes.labels == prototypes.classes.index(name)) & usable).nonzero()[:, 0]
        best = own[similarity[own].argsort(descending=True, stable=True)[:number]].tolist()
        classes.append((name, tuple((prototypes.reference_ids[one], float(similarity[one])) for one in best)))
    return LikeReferences(by, tuple(classes))


def _known(dataset: Any, run: PastRun) -> _Known | None:
    """What a run compared with, kept from the last time; None where its prototypes are gone."""
    name = str(dataset._root_dataset._doc.id)
    with _lock:
        known = _kept.get(name)
        if known is None or known.run_key != run.key:
            made = _made(dataset, run)
            if made is None:
                return None
            known = _kept[name] = made
        _kept.move_to_end(name)
        while len(_kept) > DATASETS_KEPT:
            _kept.popitem(last=False)
    return known


def _made(dataset: Any, run: PastRun) -> _Known | None:
    try:
        prototypes = Prototypes.load(run.config["prototypes_path"])
        index = index_of(dataset, prototypes, run)
    except (RefSegError, KeyError):
        return None
    try:
        matcher = matcher_of(prototypes, run)[0]
    except DatasetError:
        matcher = None
    return _Known(run.key, prototypes, index, matcher)
