"""Two classes whose names are odd, references by their tags, and what is learnt of them without the panel."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

import refseg
from refseg.dataset.references import collect_negatives, collect_references
from refseg.dataset.store import save_prototypes
from refseg.prototypes.building import build_prototypes
from tests.operators.app_panel import choose

STAR, TEE = "star.v1", "$tee"


def learn(dataset: fo.Dataset) -> None:
    """Prototypes of what is tagged now, without the panel."""
    references = collect_references(dataset, "ground_truth", tags="reference")
    negatives = collect_negatives(dataset, "ground_truth")
    save_prototypes(dataset, build_prototypes(references, "demo", negatives=negatives, progress=False), "parts", overwrite=True)


def index_and_choose(dataset: fo.Dataset) -> None:
    """An index for the demo's models, which the panel is to use."""
    refseg.build_index(dataset, "demo", num_workers=0, progress=False)
    choose(dataset, model="demo")


def tag(view: Any, name: str, field: str = "ground_truth") -> None:
    view.select_labels(fields=field).tag_labels(name, label_fields=field)
