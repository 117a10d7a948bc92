"""What models need is imported once somebody begins to choose, and not before."""

from __future__ import annotations

import subprocess
import sys

import fiftyone as fo
import pytest

from operators.running import warming
from refseg.dataset.store import save_prototypes
from refseg.prototypes.prototypes import Prototypes
from tests.operators.app_panel import context
from tests.operators.helpers import call

ENCODER = "transformers.models.dinov2.modeling_dinov2"

ASKING = f"""
import sys, threading
import fiftyone as fo
from tests.operators.app_panel import press

dataset = fo.load_dataset(sys.argv[1])
press(dataset, "on_load")
threads = lambda: [thread for thread in threading.enumerate() if thread.name == "refseg-warming"]
assert not threads() and "torch" not in sys.modules
press(dataset, "choose", {{"changes": {{"shots": 3}}}})
(thread,) = threads()
press(dataset, "choose", {{"changes": {{"shots": 2}}}})
assert threads() in ([thread], [])
from refseg.models import load_models
models = load_models("demo")
thread.join(120)
assert not thread.is_alive()
assert {ENCODER!r} in sys.modules
assert models.dinov2.config.hidden_size
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_begins_with_the_first_choice_and_whoever_loads_waits_for_it(dataset: fo.Dataset) -> None:
    command = [sys.executable, "-c", ASKING, dataset.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("has_prototypes", [False, True])
def test_begins_with_the_panel_where_an_index_waits_for_references(
    parts: fo.Dataset, prototypes: Prototypes, has_index: bool, has_prototypes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_index:
        call("build_index", parts, model="demo")
    if has_prototypes:
        save_prototypes(parts, prototypes, "parts")
    begun = []
    monkeypatch.setattr(warming, "warm_up", lambda: begun.append(True))
    warming.warm_up_for_the_first(context(parts))
    assert begun == [True] * (has_index and not has_prototypes)


def test_that_fails_says_nothing_yet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ImportError("broken")

    monkeypatch.setattr("refseg.models.loaded.import_libraries", fail)
    monkeypatch.setattr(warming, "_thread", None)
    thread = warming.warm_up()
    thread.join(60)
    assert not thread.is_alive()
    assert capfd.readouterr().err == ""
