"""Which images an operator takes: names, dynamic groups and patches; of frames see test_frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionError

from refseg.dataset.store import save_prototypes
from refseg.prototypes.prototypes import Prototypes
from tests.operators.helpers import call, form_of, problems_of, run_in_app

MakeDataset = Callable[..., fo.Dataset]
QUICK = {"prototypes": "trays", "min_confidence": 0.0}
FORMS = ["build_index", "build_prototypes", "evaluate", "find_similar", "sample_references", "segment", "update"]


@pytest.fixture
def scenes(trays: fo.Dataset, prototypes: Prototypes) -> fo.Dataset:
    """Four trays of two scenes, and prototypes of them."""
    trays.set_values("scene", ["a", "b", "a", "b"])
    save_prototypes(trays, prototypes, "trays")
    return trays


@pytest.fixture(scope="session")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Prototypes:
    """Two references of each class of the trays."""
    from tests.trays import tray_prototypes

    return tray_prototypes(tmp_path_factory.mktemp("references"))


def test_names(scenes: fo.Dataset) -> None:
    assert call("segment", scenes.name, **QUICK)["num_images"] == 4
    with pytest.raises(
        ExecutionError, match=r"^There is no dataset named 'nowhere': pass a dataset, a view, or one of the names"
    ):
        call("segment", "nowhere", **QUICK)
    with pytest.raises(ExecutionError, match=r"a dataset's name is needed, not list"):
        call("segment", [scenes.first()], **QUICK)


@pytest.mark.parametrize("options", [{}, {"order_by": "filepath"}, {"flat": True}])
@pytest.mark.thorough
def test_dynamic_groups(scenes: fo.Dataset, options: dict[str, Any]) -> None:
    view = scenes.group_by("scene", **options)
    assert call("build_index", view, model="demo")["num_images"] == 4
    assert call("segment", view, **QUICK)["num_images"] == 4
    assert call("evaluate", view, pred_field="predictions", gt_field="ground_truth")["num_images"] == 4
    for name in FORMS:
        assert "dataset_problem" not in problems_of(form_of(scenes, name, view=view)), name
    run_in_app(scenes, "segment", {**QUICK, "label_field": "again"}, view=view)
    assert scenes.count("again") == 4


def test_patches_stand_for_their_images(scenes: fo.Dataset) -> None:
    view = scenes.limit(2).to_patches("ground_truth")
    assert "patches" not in form_of(scenes, "segment", view=scenes.limit(2))
    form = form_of(scenes, "segment", view=view)
    assert "the images that they were cut from" in form["patches"]["view"]["label"]
    run_in_app(scenes, "segment", QUICK, view=view)
    assert scenes.count("predictions") == 2
