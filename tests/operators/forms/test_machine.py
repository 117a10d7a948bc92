"""What suits a machine, told without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fiftyone as fo
import pytest

from operators.forms import machine
from operators.forms.inputs import default_model
from operators.forms.machine import SECONDS_ON_CPU, Cost, cost_of, device, fitting_model
from refseg.dataset.store import save_prototypes
from refseg.demo.dataset import build_demo_dataset
from refseg.prototypes.prototypes import Prototypes
from tests.operators.app_panel import context


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    device.cache_clear()
    yield
    device.cache_clear()


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda kind: monkeypatch.setattr(machine, "device", lambda: kind)


class TestDevice:
    def test_agrees_with_torch(self) -> None:
        from refseg.models.loaded import default_device

        assert device() == default_device().type

    def test_hidden_gpus_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
        monkeypatch.setattr(Path, "glob", lambda *_: iter([Path("/dev/nvidia0")]))
        monkeypatch.setattr(machine.importlib.metadata, "version", lambda _: "2.15.0+cu130")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert device() == "cuda"
        for hidden in ("", "-1"):
            device.cache_clear()
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
            assert device() == "cpu"
        device.cache_clear()
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setattr(machine.importlib.metadata, "version", lambda _: "2.15.0+cpu")
        assert device() == "cpu"

    @pytest.mark.parametrize(("kind", "model"), [("cpu", "tiny"), ("cuda", "large"), ("mps", "large")])
    def test_what_fits(self, on: Callable[[str], None], kind: str, model: str) -> None:
        on(kind)
        assert fitting_model() == model


class TestDefaultModel:
    def test_suits_the_images_then_the_machine(
        self, make_dataset: Callable[..., fo.Dataset], tmp_path: Path, on: Callable[[str], None], prototypes: Prototypes
    ) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        on("cpu")
        assert default_model(context(dataset)) == "tiny"
        on("cuda")
        assert default_model(context(dataset)) == "large"
        save_prototypes(dataset, prototypes, "parts")
        assert default_model(context(dataset)) == prototypes.model == "demo"
        trays = build_demo_dataset(tmp_path, name="refseg-test-default-model", num_images=1)
        try:
            assert default_model(context(trays)) == "demo"
        finally:
            trays.delete()


class TestCost:
    def test_what_was_measured_comes_first(self, on: Callable[[str], None]) -> None:
        on("cpu")
        assert cost_of("tiny", {"tiny": 5.0}, {"tiny": 9.0}) == Cost(5.0, "as its last images took")
        assert cost_of("tiny", {}, {"tiny": 9.0}) == Cost(9.0, "as on another dataset")

    def test_another_model_tells_it_in_proportion(self, on: Callable[[str], None]) -> None:
        on("cpu")
        ratio = SECONDS_ON_CPU["large"] / SECONDS_ON_CPU["tiny"]
        assert cost_of("large", {"demo": 0.2, "tiny": 5.0}, {}) == Cost(
            pytest.approx(5.0 * ratio), "from what 'tiny' took here"
        )
        assert cost_of("demo-fast", {"tiny": 5.0}, {"demo": 0.2}).origin == "from what 'demo' took on another dataset"

    def test_else_the_table_does_on_a_processor_alone(self, on: Callable[[str], None]) -> None:
        on("cpu")
        assert cost_of("tiny", {"demo": 0.2}, {}) == Cost(19.7, "from 19.7 s an image on two cores of another CPU")
        assert cost_of("own", {}, {}) is None
        for kind in ("cuda", "mps"):
            on(kind)
            assert cost_of("tiny", {"small": 0.2}, {}) is None
            assert cost_of("tiny", {"tiny": 0.2}, {}) == Cost(0.2, "as its last images took")
