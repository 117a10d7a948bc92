"""The candidates of a dataset most like one object, without prototypes or thresholds: to look around, or to label faster.

Needs the candidate index and one encoder pass an object. Up to a million candidates every one is compared; beyond that Lance's
vector index answers, which misses a few (`make bench` measures how many).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fiftyone as fo
import torch
from bson import ObjectId

from ..candidates import PackedCandidates, join
from ..checks import class_name, refused, require_names, require_whole
from ..dataset import (
    OBJECT_TYPES,
    DatasetIndex,
    ImageEdit,
    ListEdit,
    add_labels_field,
    check_name,
    claim,
    clear_labels,
    collect_references,
    edit_labels,
    every_image,
    image_view,
    images_of,
    images_that_hold,
    name_of,
    open_index,
    past_runs,
    read_documents,
    require_samples,
    to_detections,
    whole_of,
    write_values,
)
from ..errors import BadReferenceError, ClassWithoutReferencesError, DatasetError, IndexMismatchError, NoReferencesError
from ..index import CandidateIndex, Found, make_vector_index, search_each, search_vectors
from ..matching import Ranking, crop_instances
from ..models import Models, load_models, require_model
from ..notebook import histogram, page
from ..printing import counted, left_out_line
from ..progress import Progress, Watcher, drain
from ..prototypes import Reference, iter_build_prototypes

logger = logging.getLogger(__name__)

SIMILAR_METHOD = "refseg/similar"
UNNAMED = "similar"
"""What candidates are called that are like objects of several classes."""
EXACT_UP_TO = 1_000_000
"""Candidates of a view; more are searched by the vector index."""
MAX_SHARE = 0.5
"""A candidate with this much of its mask inside a more similar one of the same image is left out."""
TIMES_MORE = 8
"""So many times k candidates are looked up at first: several masks of one object count once."""


@dataclass(frozen=True)
class SimilarReport:
    """What find_similar found.

    Attributes:
        label_field: where the candidates are, as detections.
        num_found: at most k.
        label_ids: of the detections, most similar first.
        scores: their cosine similarity to the object.
        num_left_out: images of the view that are not indexed.
        label: class of the object, which the candidates bear too; None where objects of several classes were compared with.
    """

    label_field: str
    num_found: int
    label_ids: tuple[str, ...]
    scores: tuple[float, ...]
    num_left_out: int
    label: str | None = None

    def _repr_html_(self) -> str:
        """How similar what was found is."""
        low = min((0.0, *self.scores))
        steps = [0] * 20
        for score in self.scores:
            steps[min(19, int(20 * (score - low) / (1 - low)))] += 1
        return page(
            f"{counted(self.num_found, 'candidate')} in the field {self.label_field!r}",
            histogram(steps, low, 1, "similarity"),
            f"{counted(self.num_left_out, 'image')} not indexed: build the index to see more." if self.num_left_out else None,
        )

    def __str__(self) -> str:
        lines = [f"{counted(self.num_found, 'candidate')} in the field {self.label_field!r}, the most similar first"]
        if self.num_left_out:
            lines.append(left_out_line(self.num_left_out))
        return "\n".join(lines)


def find_similar(
    view: Any,
    query: Any,
    k: int = 25,
    *,
    label_field: str = "similar",
    model: str | Models | None = None,
    progress: bool | Watcher | None = None,
) -> Any:
    """Find the k candidates of a view that are most like one object, or most like the mean of several.

    They are written as detections to a field of their own, whose earlier content is replaced: with mask, the object's class
    (`similar` where there are objects of several classes), and their similarity as confidence. A candidate that lies by half in
    a more similar one of its image is left out. The object itself is found too where its image is in the view.

    Args:
        view: a dataset or view of images; those not indexed are left out.
        query: a label (Detection or Polyline) of the dataset, its id, or a list of labels or ids.
        k: how many.
        label_field: a new field, or one that find_similar wrote.
        model: of the index to search; by default that of the index used last.
        progress: see `refseg.progress.drain`.

    Returns:
        A view of patches, most similar first.

    Raises:
        DatasetError: no images, a k below one, a field that holds something else, or a view without indexed images.
        NoReferencesError: the dataset has no such label.
        BadReferenceError: the object is too small to be compared.
        IndexNotFoundError: the dataset has no index.
        IndexMismatchError: the index was built by another encoder than the model has now.
    """
    view = image_view(view)
    report = drain(iter_find_similar(view, query, k, label_field=label_field, model=model), progress, "searching")
    return similar_patches(whole_of(view), report)


def iter_find_similar(
    view: Any, query: Any, k: int = 25, *, label_field: str = "similar", model: str | Models | None = None
) -> Generator[Progress, None, SimilarReport]:
    """The generator behind find_similar."""
    view = image_view(view)
    require_samples(view)
    require_whole(1, k=k)
    require_names(label_field=label_field)
    require_model(model, or_none=True)
    dataset = whole_of(view)
    _check_field(dataset, label_field)
    references = _references(every_image(dataset), query)
    index = open_index(dataset, model)
    images = images_of(view, index)
    if not images.held:
        raise DatasetError(f"None of these images is indexed for {index.index.settings.model!r}: build the index first.")
    vector = yield from _describe(references, index, model)
    found = yield from _search(index, images.held, vector, k)
    names = {reference.label for reference in references}
    report = _write(dataset, label_field, found, names.pop() if len(names) == 1 else None, len(images.missing))
    yield Progress(1, 1, "writing")
    return report


def similar_patches(dataset: Any, report: SimilarReport) -> Any:
    """The patches of a report's candidates, most similar first."""
    return every_image(dataset).to_patches(report.label_field).sort_by(f"{report.label_field}.confidence", reverse=True)


def name_found(dataset: Any, label_field: str, label_ids: Iterable[str], label: str) -> None:
    """Name the class of candidates that find_similar wrote; whoever accepts them accepts them as that.

    Args:
        dataset: a FiftyOne dataset, or a view of it.
        label_field: that find_similar wrote.
        label_ids: of the candidates; those that were replaced meanwhile are left out.
        label: the class.

    Raises:
        DatasetError: a blank name, or a field that find_similar did not write.
    """
    require_names(label_field=label_field, label=label)
    whole = whole_of(dataset)
    if label_field not in _own_fields(whole):
        raise DatasetError(
            f"The field {label_field!r} of dataset {name_of(whole)!r} was not written by find_similar: choose one that was."
        )
    name = class_name(label)
    by_image = images_that_hold(whole, label_field, label_ids)

    def edits_of(ids: Iterable[str]) -> dict[str, ImageEdit]:
        edits = {}
        for sample_id, lists in read_documents(whole, ids, [label_field], ["_id", "label", "decision"]):
            wanted = set(by_image[sample_id])
            there = [one for one in lists[label_field] if str(one["_id"]) in wanted and one.get("label") != name]
            changed = {one["_id"]: {"label": name} for one in there}
            edits[sample_id] = ImageEdit({label_field: ListEdit(lists[label_field], changed=changed)})
        return edits

    edit_labels(whole, by_image, edits_of)


def _references(dataset: Any, query: Any) -> list[Reference]:
    queries = query if isinstance(query, list | tuple | set) else [query]
    if not queries or not all(isinstance(item, str | fo.Label) for item in queries):
        raise refused("query", "a label of the dataset, its id, or a list of these", query)
    ids = {item if isinstance(item, str) else str(getattr(item, "id", item)) for item in queries}
    usable = [name for name in ids if ObjectId.is_valid(name)]
    schema = dataset.get_field_schema(ftype=fo.EmbeddedDocumentField)
    fields = [name for name, entry in schema.items() if entry.document_type in OBJECT_TYPES]
    references: list[Reference] = []
    for name in fields:
        try:
            references += collect_references(dataset, name, label_ids=usable) if usable else []
        except NoReferencesError:
            continue
    missing = ids - {reference.id for reference in references}
    if missing:
        raise NoReferencesError(
            f"The dataset {name_of(dataset)!r} has no labelled object with the id {sorted(missing)[0]!r}: choose a detection "
            "or polyline that is saved in it."
        )
    return references


def _describe(
    references: Sequence[Reference], index: DatasetIndex, model: str | Models | None
) -> Generator[Progress, None, torch.Tensor]:
    models = model if isinstance(model, Models) else load_models(index.index.settings.model)
    if models.fingerprint != index.index.settings.encoder:
        raise IndexMismatchError(
            f"The index at {index.uri} was built by another encoder than that of {models.preset.name!r} now: build it again."
        )
    # One class of them all: only their mean is asked for.
    together = [replace(item, label="query") for item in references]
    try:
        prototypes = yield from iter_build_prototypes(together, models, pixels=index.index.settings.pixel_settings)
    except ClassWithoutReferencesError as error:
        raise BadReferenceError(f"The chosen object cannot be compared with others ({'; '.join(error.reasons)}).") from error
    return prototypes.matrix[0]


def _search(
    index: DatasetIndex, sample_ids: Sequence[str], vector: torch.Tensor, k: int
) -> Generator[Progress, None, list[Found]]:
    tables = index.index
    if not can_search(tables, sample_ids):
        yield Progress(0, 1, "vector index, once")
        make_vector_index(tables)
    (found,) = yield from search_thinned(tables, sample_ids, vector[None], k)
    return found


def can_search(tables: CandidateIndex, sample_ids: Sequence[str]) -> bool:
    """Whether the candidates of these images, which the index holds, can be searched before a vector index is made."""
    return tables.has_vector_index or _num_candidates(tables, sample_ids) <= EXACT_UP_TO


def search_thinned(
    tables: CandidateIndex,
    sample_ids: Sequence[str],
    vectors: torch.Tensor,
    k: int,
    is_wanted: Callable[[int, Found], bool] = lambda number, found: True,
) -> Generator[Progress, None, list[list[Found]]]:
    """For each vector the candidates most like it, of those that overlap in one image the most similar.

    Args:
        tables: that can be searched, see can_search.
        sample_ids: of images that it holds.
        vectors: (V, C) float32, unit length.
        k: at most so many of each.
        is_wanted: of the number of a vector and a candidate; what it refuses still hides what lies in it.
    """
    total = _num_candidates(tables, sample_ids)
    wanted = k * TIMES_MORE
    while True:
        if total <= EXACT_UP_TO:
            every = yield from search_each(tables, vectors, wanted, sample_ids)
        else:
            every = [search_vectors(tables, vector, wanted, set(sample_ids)) for vector in vectors]
        kept = [[item for item in _thin_out(found) if is_wanted(number, item)] for number, found in enumerate(every)]
        if all(len(found) >= k for found in kept) or wanted >= total:
            return [found[:k] for found in kept]
        wanted *= 4


def _num_candidates(tables: CandidateIndex, sample_ids: Iterable[str]) -> int:
    return sum(tables.images[name].num_candidates for name in sample_ids)


def _thin_out(found: Sequence[Found]) -> list[Found]:
    """Of candidates that overlap in one image the most similar: those that lie by half or more in a better one are dropped."""
    kept: list[Found] = []
    by_image: dict[str, list[Found]] = {}
    for item in found:
        by_image.setdefault(item.image.sample_id, []).append(item)
    for members in by_image.values():
        ordered = sorted(members, key=lambda item: -item.score)
        every = torch.arange(len(ordered))
        together = join([item.candidate for item in ordered])
        shares = together.shares(every, torch.zeros_like(every), torch.ones(len(ordered), dtype=torch.bool))
        chosen: list[int] = []
        for row in range(len(ordered)):
            if not any(shares[row, better] >= MAX_SHARE for better in chosen):
                chosen.append(row)
        kept += [ordered[row] for row in chosen]
    return sorted(kept, key=lambda item: -item.score)


def _write(dataset: Any, label_field: str, found: Sequence[Found], label: str | None, num_left_out: int) -> SimilarReport:
    if dataset.has_field(label_field):
        clear_labels(dataset, label_field)
    else:
        add_labels_field(dataset, label_field, fo.Detections())
    by_image: dict[str, list[Any]] = {}
    written: list[tuple[float, str]] = []
    for item in found:
        first, score = torch.zeros(1, dtype=torch.int64), torch.tensor([item.score])
        one = Ranking(first, first, score, margins=score, runners_up=first - 1)
        candidate: PackedCandidates = item.candidate
        instances = crop_instances(candidate, one, 1)
        detections = to_detections(
            instances, [label or UNNAMED], candidate.predicted_iou.tolist(), candidate.image_hw, "similar"
        )
        by_image.setdefault(item.image.sample_id, []).extend(detections.detections)
        written += [(item.score, detection.id) for detection in detections.detections]
    values = {sample_id: fo.Detections(detections=labels) for sample_id, labels in by_image.items()}
    write_values(dataset, label_field, values, dynamic=True)
    scores = tuple(score for score, _ in written)
    _record(dataset, label_field, label, scores)
    return SimilarReport(label_field, len(written), tuple(name for _, name in written), scores, num_left_out, label)


def _check_field(dataset: Any, label_field: str) -> None:
    if not dataset.has_field(label_field):
        check_name(dataset, label_field)
    elif label_field not in _own_fields(dataset):
        raise DatasetError(
            f"The field {label_field!r} of dataset {name_of(dataset)!r} was not written by find_similar, and would be cleared: "
            "choose another field."
        )


def _own_fields(dataset: Any) -> set[str]:
    return {str(run.config["label_field"]) for run in past_runs(dataset, [SIMILAR_METHOD])}


def _record(dataset: Any, label_field: str, label: str | None, scores: Sequence[float]) -> None:
    own = {"method": SIMILAR_METHOD, "label_field": label_field}
    about = {"label": label, "num_found": len(scores), "score_range": [min(scores), max(scores)] if scores else None}
    claim(dataset, f"similar_{label_field}", dataset.init_run(**own, **about), replaces=own)
