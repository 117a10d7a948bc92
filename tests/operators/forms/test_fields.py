"""Forms on the fields that are written."""

from __future__ import annotations

import fiftyone as fo
import numpy as np

from tests.operators.helpers import form_of, problems_of


def test_a_tick_allows_what_would_lose_labels(with_prototypes: fo.Dataset) -> None:
    params = {"label_field": "ground_truth", "overwrite_labels": True}
    assert problems_of(form_of(with_prototypes, "segment", params)) == {}
    with_prototypes.set_values("drawn", [fo.Segmentation(mask=np.ones((2, 2), np.uint8))] * len(with_prototypes))
    params = {"semantic_field": "drawn"}
    form = form_of(with_prototypes, "segment", params)
    assert problems_of(form)["semantic_field"].startswith("The labels in the field 'drawn' are not RefSeg's")
    assert "overwrite_labels" in form
    assert problems_of(form_of(with_prototypes, "segment", {**params, "overwrite_labels": True})) == {}
    assert problems_of(form_of(with_prototypes, "build_prototypes", {"name": "parts", "overwrite": True})) == {}
