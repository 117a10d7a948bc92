"""The menu of models: size, time for the images that are missing, and where the time is known from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import pytest

from operators.forms import machine, models
from operators.forms.models import model_choices
from refseg.dataset import seconds_elsewhere
from refseg.models.presets import PRESETS
from tests.operators.app_panel import context
from tests.operators.helpers import form_of


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, models):
        monkeypatch.setattr(module, "device", lambda: "cpu")


def record(dataset: fo.Dataset, model: str, num_images: int, seconds: float | None, **more: Any) -> None:
    """As a build records its index."""
    about = {
        "uri": f"/indexes/{model}",
        "model": model,
        "exact": False,
        "encoder": "e",
        "fingerprint": "f",
        "num_images": num_images,
        "num_candidates": 1,
        "num_bytes": 1000 * num_images,
        "seconds_per_image": seconds,
        "clean_masks": True,
        "dataset_id": str(dataset._doc.id),
        "updated_at": f"2026-01-0{1 + len(dataset.list_runs())}",
        **more,
    }
    dataset.register_run(f"index_{len(dataset.list_runs())}", dataset.init_run(method="refseg/index", **about))


@pytest.mark.usefixtures("on_cpu")
def test_each_preset_has_its_size_and_time(make_dataset: Callable[..., fo.Dataset]) -> None:
    dataset = make_dataset([fo.Sample(f"{number}.png") for number in range(100)])
    record(dataset, "tiny", 40, 6.0)
    record(dataset, "demo", 100, 0.2)
    found = {choice.name: choice for choice in model_choices(context(dataset))}
    assert list(found) == list(PRESETS)
    # 60 images are missing.
    assert found["tiny"].label == "tiny · 244 MB · about 6 min on this CPU"
    assert found["tiny"].about.endswith(". Time as its last images took")
    assert found["demo"].label == "demo · no download · all indexed"
    assert "Time" not in found["demo"].about
    assert found["large"].label.startswith("large · 2.1 GB · about ")
    assert found["large"].about.endswith(". Time from what 'tiny' took here")
    assert found["edge"].label == "edge · 144 MB · time on this CPU unknown"
    assert "56.0 mIoU in one click, SAM 2.1 63.3" in found["edge"].about
    assert "Meta's SAM License" in found["sam3"].about
    shown = form_of(dataset, "build_index")["model"]["view"]["choices"]
    assert [choice["value"] for choice in shown] == list(PRESETS)
    assert found["tiny"].label in [choice["label"] for choice in shown]


def test_nothing_is_invented(make_dataset: Callable[..., fo.Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, models):
        monkeypatch.setattr(module, "device", lambda: "cuda")
    monkeypatch.setattr("refseg.dataset.seconds_elsewhere", lambda _: {}, raising=False)
    choices = {choice.name: choice.label for choice in model_choices(context(make_dataset([fo.Sample("a.png")])))}
    assert choices["large"] == "large · 2.1 GB · time on this GPU unknown"


def test_what_other_datasets_took(make_dataset: Callable[..., fo.Dataset]) -> None:
    one, other = make_dataset([fo.Sample("a.png")]), make_dataset([fo.Sample("a.png")])
    record(other, "base", 5, 9.0)
    record(other, "base", 5, 8.0)
    record(other, "small", 5, None)
    record(other, "tiny", 5, 80.0, tiles=True)
    found = seconds_elsewhere(one)
    assert found["base"] == 8.0
    assert 80.0 not in found.values()
    assert seconds_elsewhere(other).get("base") != 8.0
