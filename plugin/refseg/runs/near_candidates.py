"""The candidates of a dataset that each reference is most like, by the vectors that prototypes hold: no model is loaded.

All references are looked up in one scan of the index, a second or two for a million candidates.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..checks import names_of, require_whole
from ..dataset import (
    box_iou,
    every_image,
    find_index,
    ids_and_paths,
    image_dataset,
    images_of,
    name_of,
    named_prototypes,
    references_by_id,
)
from ..errors import NoReferencesError
from ..index import Found
from ..printing import one_line
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes, Reference
from .similar import can_search, search_thinned
from .suggestions import cut_out

OWN_IOU = 0.5
"""A candidate of a reference's image whose box overlaps its box by so much is the reference itself."""


@dataclass(frozen=True, eq=False)
class NearCandidate:
    """A candidate that is like a reference.

    Attributes:
        sample_id: of its image.
        filepath: of its image.
        similarity: cosine of its feature and the reference's vector, in [-1, 1].
        bounding_box: x, y, width, height, as shares of the upright image.
        mask: (h, w) bool over the box, at the image's size.
    """

    sample_id: str
    filepath: str
    similarity: float
    bounding_box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]

    __repr__ = one_line


def nearest_candidates(
    dataset: Any,
    prototypes: Prototypes | str,
    reference_ids: Iterable[str],
    number: int = 3,
    *,
    progress: bool | Watcher | None = None,
) -> dict[str, list[NearCandidate]]:
    """The candidates that references, or negatives, are most like, anywhere in a dataset.

    The reference itself is left out, and of candidates that overlap in one image the most similar is taken, as by find_similar.

    Args:
        dataset: that has the index; a view stands for the whole of it.
        prototypes: that hold the vectors, or the name under which the dataset keeps them.
        reference_ids: of references or negatives of these prototypes.
        number: of candidates for each, at most.
        progress: see `refseg.progress.drain`.

    Returns:
        By reference id, the most similar first; a reference whose label is gone is left out. Empty where no index of the
        prototypes' model is there, and where it holds more candidates than are compared one by one and has no vector index.

    Raises:
        DatasetError: no images, unknown prototypes, or a number below one.
        NoReferencesError: the prototypes have no such reference.
        IndexDamagedError: the index cannot be read.

    Example:
        >>> from refseg.runs import nearest_candidates
        >>> found = nearest_candidates(dataset, "parts", prototypes.reference_ids[:2])  # doctest: +SKIP
        >>> [[round(item.similarity, 2) for item in near] for near in found.values()]  # doctest: +SKIP
        [[0.93, 0.91, 0.88], [0.95, 0.93, 0.9]]
    """
    return drain(_iter_nearest(dataset, prototypes, reference_ids, number), progress, "searching")


def _iter_nearest(
    dataset: Any, prototypes: Prototypes | str, reference_ids: Iterable[str], number: int
) -> Generator[Progress, None, dict[str, list[NearCandidate]]]:
    whole = image_dataset(dataset)
    require_whole(1, number=number)
    _, prototypes = named_prototypes(whole, prototypes)
    wanted = _vectors(whole, prototypes, dict.fromkeys(names_of("reference_ids", reference_ids, like="ids")))
    references = references_by_id(every_image(whole), wanted)
    ids = [name for name in wanted if name in references]
    index = find_index(whole, prototypes.model, prototypes.fingerprint, pixels=prototypes.pixels) if ids else None
    if index is None:
        return {}
    held = images_of(every_image(whole), index).held
    if not held or not can_search(index.index, held):
        return {}
    paths = dict(zip(*ids_and_paths(every_image(whole)), strict=True))
    owners = [references[name] for name in ids]

    def is_other(row: int, found: Found) -> bool:
        return paths.get(found.image.sample_id) != owners[row].image or not _is_itself(found, owners[row])

    vectors = F.normalize(torch.stack([wanted[name] for name in ids]).float(), dim=-1)
    nearest = yield from search_thinned(index.index, held, vectors, number, is_other)
    return {name: _shown(found, paths) for name, found in zip(ids, nearest, strict=True)}


def _vectors(dataset: Any, prototypes: Prototypes, ids: Iterable[str]) -> dict[str, torch.Tensor]:
    """(C,) the vector of each of these references or negatives."""
    known = dict(zip(prototypes.reference_ids, prototypes.vectors, strict=True))
    if prototypes.negatives is not None:
        known = dict(zip(prototypes.negatives.ids, prototypes.negatives.vectors, strict=True)) | known
    found = {}
    for name in ids:
        if name not in known:
            raise NoReferencesError(
                f"The prototypes of dataset {name_of(dataset)!r} know no reference or negative with the id {name!r}: choose "
                "one of theirs, or build them again."
            )
        found[name] = known[name]
    return found


def _is_itself(found: Found, reference: Reference) -> bool:
    """Whether a candidate of a reference's image shows the reference."""
    place = cut_out(found.candidate)
    if place is None:
        return False
    height, width = found.candidate.image_hw
    x0, y0, x1, y1 = reference.box
    own = x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height
    return box_iou(place[0], own) >= OWN_IOU


def _shown(nearest: Sequence[Found], paths: Mapping[str, str]) -> list[NearCandidate]:
    """Candidates at their images' sizes; what is too small to be seen there, or gone since, is left out."""
    shown = []
    for found in nearest:
        place, path = cut_out(found.candidate), paths.get(found.image.sample_id)
        if place is not None and path is not None:
            # A cosine of rounded numbers may be a little above 1.
            similarity = min(1.0, max(-1.0, found.score))
            shown.append(NearCandidate(found.image.sample_id, path, similarity, *place))
    return shown
