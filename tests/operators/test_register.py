"""Every operator and the panel are declared, load and are asked without torch, and say how risky they are."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
import fiftyone.plugins as fop
import pytest
import yaml

from operators.running.base import RefSegOperator
from refseg.calibration.mining import MAX_MINED
from refseg.dataset.fields import PROTOTYPES_METHOD
from refseg.dataset.indexing import build_index
from refseg.dataset.known_indexes import INDEX_METHOD
from refseg.dataset.store import dataset_folder
from refseg.evaluation.evaluating import EVALUATION_METHOD
from refseg.matching.settings import CHOICES
from refseg.models.loaded import PRESETS
from refseg.runs.records import SEGMENT_METHOD
from refseg.runs.similar import SIMILAR_METHOD
from tests.operators.helpers import PLUGIN, call, uri
from tests.trays import propose_truth

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
NAMES = MANIFEST["operators"]
PANELS = MANIFEST["panels"]
QUICK = ("tag_references", "review", "delete_index", "find_similar", "cancel", "mark_empty", "show_object")


HEAVY = (
    *("torch", "torchvision", "sam2", "transformers", "pycocotools", "lance"),
    *("refseg.runs.segmenting", "refseg.prototypes.prototypes", "refseg.dataset.indexing", "refseg.runs.similar"),
)


def test_manifest() -> None:
    assert MANIFEST["name"] == PLUGIN
    assert (ROOT / MANIFEST["py_entry"]).is_file()
    files = {path.stem for path in (ROOT / "operators").glob("*.py") if "(RefSegOperator)" in path.read_text()}
    assert sorted(NAMES) == sorted(files)
    panels = {path.stem for path in (ROOT / "operators").rglob("*.py") if "foo.Panel)" in path.read_text()}
    assert (panels, PANELS) == ({"panel"}, ["reference_segmentation"])


def test_everything_declared_registers_without_errors() -> None:
    registered = [operator.uri for operator in foo.list_operators() if operator.plugin_name == PLUGIN]
    assert sorted(registered) == sorted(uri(name) for name in [*NAMES, *PANELS])
    assert foo.OperatorRegistry().list_errors() == []


def test_panel_declares_itself() -> None:
    panel = foo.get_operator(uri("reference_segmentation"))
    config = panel.config
    assert isinstance(panel, foo.Panel)
    assert config.kwargs == {}
    # FiftyOne leaves what a panel does out of the list of operators, and takes none for harmless.
    assert (config.unlisted, config.risk_level) == (True, types.RiskLevel.DANGEROUS)
    assert (config.label, config.surfaces, config.allow_multiple) == ("Reference segmentation", "grid modal", False)
    for section in ("References", "Index", "Segment", "Review", "Results"):
        assert f"**{section}**" in config.help_markdown
    told = panel.resolve_panel_config()
    for event in ("dataset", "view", "selected", "selected_labels", "current_sample", "group_slice"):
        assert told[f"on_change_{event}"] == f"{uri('reference_segmentation')}#on_change_{event}"


def test_panels_component_is_in_the_bundle() -> None:
    (plugin,) = [plugin for plugin in fop.list_plugins() if plugin.name == PLUGIN]
    assert plugin.has_js
    bundle = (ROOT / MANIFEST["js_bundle"]).read_text()
    drawn = foo.get_operator(uri("reference_segmentation")).render(foo.ExecutionContext())
    component = drawn.to_json()["view"]["component"]
    assert f'name: "{component}"' in bundle


@pytest.mark.parametrize("name", NAMES)
def test_operator_declares_itself(name: str) -> None:
    operator = foo.get_operator(uri(name))
    config = operator.config
    risks = [types.RiskLevel.HIGH] if name == "delete_index" else [types.RiskLevel.LOW, types.RiskLevel.MEDIUM]
    assert config.risk_level in risks
    assert config.execute_as_generator
    assert config.label != config.name
    assert config.description
    # FiftyOne swallows misspelt settings.
    assert config.kwargs == {}
    assert config.allow_immediate_execution
    assert config.allow_delegated_execution is (name not in QUICK)
    # What can be cancelled says what is kept, in the middle of a sentence.
    kept = operator.kept_when_cancelled
    assert name in QUICK or (kept != RefSegOperator.kept_when_cancelled and kept[0].islower() and kept[-1] != ".")


@pytest.mark.parametrize("name", NAMES)
def test_call_has_an_explicit_signature_and_docstring(name: str) -> None:
    call = type(foo.get_operator(uri(name))).__call__
    parameters = list(inspect.signature(call).parameters.values())[1:]
    assert parameters[0].name == "sample_collection"
    assert all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    text = inspect.getdoc(call) or ""
    assert [p.name for p in parameters if f"\n    {p.name}: " not in text] == []
    assert "Returns:" in text


def test_placements_are_few() -> None:
    placed = {name: foo.get_operator(uri(name)).resolve_placement(foo.ExecutionContext({})) for name in NAMES}
    assert [name for name, placement in placed.items() if placement is not None] == [
        "tag_references",
        "segment_with_references",
        "find_similar",
    ]


@pytest.mark.thorough
def test_nothing_heavy_is_loaded_with_the_operators() -> None:
    code = (
        "import sys, fiftyone.operators as foo\n"
        f"loaded = [o for o in foo.list_operators() if o.plugin_name == {PLUGIN!r}]\n"
        f"assert len(loaded) == {len(NAMES) + len(PANELS)}\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


ASKING = """
import json, os, sys
import pymongo.monitoring

commands = []

class Listener(pymongo.monitoring.CommandListener):
    def started(self, event):
        commands.append(event.command_name)

    def succeeded(self, event):
        pass

    failed = succeeded

pymongo.monitoring.register(Listener())
name, folder, plugin = sys.argv[1:]
opened = []

def hear(event, args):
    if event in ("open", "os.listdir", "os.scandir") and folder in str(args[0]):
        opened.append(str(args[0]))

sys.addaudithook(hear)

import fiftyone.operators as foo
from fiftyone.operators.executor import Executor

def ctx(uri, params):
    request = {"dataset_name": name, "operator_uri": uri, "params": dict(params), "view": []}
    return foo.ExecutionContext(request, executor=Executor(), operator_uri=uri)

asked = 0
for operator in [operator for operator in foo.list_operators() if operator.plugin_name == plugin]:
    if isinstance(operator, foo.Panel):
        made = ctx(operator.uri, {"panel_id": "panel"})
        before = len(commands)
        operator.render(made).to_json()
        rendering = len(commands) - before
        operator.resolve_placement(made)
        for method in ("on_load", "load", "watch", "on_change_selected", "on_change_view"):
            getattr(operator, method)(made)
        told = [one.params for one in made.executor._requests if one.operator_uri == "notify"]
        shown = [path for one in made.executor._requests for path in one.params.get("data") or {}]
        assert (told, "trouble" in shown, "overview" in shown) == ([], False, True), told
        continue
    for params in ({}, {"preview": True}, {"model": "demo"}):
        made = ctx(operator.uri, params)
        operator.resolve_type(made, "inputs").to_json()
        operator.resolve_placement(made)
        operator.resolve_execution_options(made)
        operator.resolve_delegation(made)
        operator.resolve_run_name(made)
        asked += 1
heavy = [name for name in HEAVY if name in sys.modules]
print(json.dumps({"asked": asked, "heavy": heavy, "opened": opened, "rendering": rendering, "commands": len(commands)}))
"""


def test_nothing_heavy_is_loaded_when_forms_and_panel_are_asked(
    with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a dataset with prototypes, an index, predictions and an evaluation, so that everything has something to say."""
    propose_truth(monkeypatch, with_prototypes)
    build_index(with_prototypes, "demo", num_workers=0, progress=False)
    call("segment", with_prototypes, "parts", min_confidence=0.0)
    call("evaluate", with_prototypes, "predictions", "ground_truth")
    folder = str(dataset_folder(with_prototypes))
    assert any(path.suffix == ".lance" for path in Path(folder).rglob("*"))
    code = ASKING.replace("HEAVY", repr(HEAVY))
    command = [sys.executable, "-c", code, with_prototypes.name, folder, PLUGIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert (said["heavy"], said["opened"], said["rendering"]) == ([], [], 0)
    # The listener hears, and every operator was asked.
    assert said["commands"] > 0
    assert said["asked"] == 3 * len(NAMES)


def test_repeated_constants_are_the_librarys() -> None:
    from operators.forms import constants
    from operators.forms.machine import SECONDS_ON_CPU
    from refseg.dataset import fields
    from refseg.dataset.references import REFERENCE_TAG
    from refseg.demo.dataset import MARK
    from refseg.models.presets import FAST

    assert constants.PROTOTYPES_METHOD == PROTOTYPES_METHOD
    assert constants.SEGMENT_METHOD == SEGMENT_METHOD
    assert constants.INDEX_METHOD == INDEX_METHOD
    assert constants.SIMILAR_METHOD == SIMILAR_METHOD
    assert constants.EVALUATION_METHOD == EVALUATION_METHOD
    assert constants.REFERENCE_TAG == REFERENCE_TAG
    assert constants.NEGATIVE_TAG == fields.NEGATIVE_TAG
    assert constants.EMPTY_TAG == fields.EMPTY_TAG
    assert constants.MAX_MINED == MAX_MINED
    assert {"class_similarity": tuple(constants.SIMILARITIES), "overlaps": tuple(constants.OVERLAPS)} == CHOICES
    assert list(constants.MODELS_AS_PUBLISHED) == [name for name, preset in PRESETS.items() if preset.as_published]
    assert (constants.ACCEPTED_FIELD, constants.REJECTED_FIELD) == (fields.ACCEPTED_FIELD, fields.REJECTED_FIELD)
    assert list(constants.MODELS) == list(PRESETS)
    assert (constants.FAST, constants.DEMO_MARK) == (FAST, MARK)
    assert list(constants.MODELS_OF_FOLDERS) == [name for name, preset in PRESETS.items() if preset.is_of_transformers]
    # Nobody has measured those of transformers yet.
    assert set(SECONDS_ON_CPU) == set(PRESETS) - set(constants.MODELS_OF_FOLDERS)
    assert list(constants.MODELS_THAT_KEEP_DUPLICATES) == [name for name, preset in PRESETS.items() if preset.as_published]


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.sam2_megabytes])
def test_download_sizes_are_the_presets(name: str) -> None:
    from operators.forms.constants import MODELS

    gigabytes = (PRESETS[name].sam2_megabytes + PRESETS[name].dinov2_megabytes) / 1000
    assert f"downloads {gigabytes:.1f} GB" in MODELS[name]


def test_defaults_are_the_librarys() -> None:
    import refseg
    from operators.forms import constants

    def default(function: object, name: str) -> object:
        return inspect.signature(function).parameters[name].default  # type: ignore[arg-type]

    assert default(refseg.build_prototypes, "model") == constants.MODEL
    assert default(refseg.segment, "label_field") == constants.LABEL_FIELD
    assert default(refseg.segment, "max_detections") == constants.MAX_DETECTIONS
    assert default(refseg.find_similar, "k") == constants.NUM_SIMILAR
    assert default(refseg.find_similar, "label_field") == constants.SIMILAR_FIELD
    assert default(refseg.merge_accepted, "iou") == constants.MERGE_IOU
    assert default(refseg.sample_references, "seed") == constants.SEED
    assert default(refseg.sample_references, "min_side") == constants.MIN_SIDE
    assert default(refseg.sample_references, "border") == constants.BORDER


@pytest.mark.parametrize("name", ["forms.indexes", "running.jobs", "forms.messages"])
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"operators.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
