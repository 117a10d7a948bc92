"""Two classes whose names are odd, references by their tags, and what is learnt of them without the panel."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from refseg.dataset.references import collect_negatives, collect_references
from refseg.dataset.store import save_prototypes
from refseg.prototypes.building import build_prototypes

STAR, TEE = "star.v1", "$tee"


def learn(dataset: fo.Dataset) -> None:
    """Prototypes of what is tagged now, without the panel."""
    references = collect_references(dataset, "ground_truth", tags="reference")
    negatives = collect_negatives(dataset, "ground_truth")
    save_prototypes(dataset, build_prototypes(references, "demo", negatives=negatives, progress=False), "parts", overwrite=True)


def tag(view: Any, name: str, field: str = "ground_truth") -> None:
    view.select_labels(fields=field).tag_labels(name, label_fields=field)
