"""Every operator is declared, loads without errors and without torch, and says how risky it is."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import fiftyone.operators as foo
import fiftyone.operators.types as types
import pytest
import yaml

from operators.base import RefSegOperator
from refseg.dataset_index import INDEX_METHOD
from refseg.models import PRESETS
from refseg.runs import SEGMENT_METHOD
from refseg.similar import SIMILAR_METHOD
from refseg.store import PROTOTYPES_METHOD
from tests.operators.helpers import PLUGIN, uri

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
NAMES = MANIFEST["operators"]
QUICK = ("tag_references", "review", "delete_index", "find_similar", "cancel")


HEAVY = (
    *("torch", "torchvision", "sam2", "transformers", "pycocotools", "lance"),
    *("refseg.runs", "refseg.prototypes", "refseg.indexing", "refseg.similar"),
)


def test_manifest() -> None:
    assert MANIFEST["name"] == PLUGIN
    assert MANIFEST["fiftyone"]["version"] == ">=1.22"
    assert (ROOT / MANIFEST["py_entry"]).is_file()
    files = {path.stem for path in (ROOT / "operators").glob("*.py") if "(RefSegOperator)" in path.read_text()}
    assert sorted(NAMES) == sorted(files)


def test_manifest_has_the_librarys_version() -> None:
    import refseg

    assert MANIFEST["version"] == refseg.__version__


def test_each_declared_operator_registers_without_errors() -> None:
    registered = [operator.uri for operator in foo.list_operators() if operator.plugin_name == PLUGIN]
    assert sorted(registered) == sorted(uri(name) for name in NAMES)
    assert foo.OperatorRegistry().list_errors() == []


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


def test_nothing_heavy_is_loaded_with_the_operators() -> None:
    code = (
        "import sys, fiftyone.operators as foo\n"
        f"loaded = [o for o in foo.list_operators() if o.plugin_name == {PLUGIN!r}]\n"
        f"assert len(loaded) == {len(NAMES)}\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_repeated_constants_are_the_librarys() -> None:
    from operators import constants
    from refseg.references import REFERENCE_TAG

    assert constants.PROTOTYPES_METHOD == PROTOTYPES_METHOD
    assert constants.SEGMENT_METHOD == SEGMENT_METHOD
    assert constants.INDEX_METHOD == INDEX_METHOD
    assert constants.SIMILAR_METHOD == SIMILAR_METHOD
    assert constants.REFERENCE_TAG == REFERENCE_TAG
    assert list(constants.MODELS) == list(PRESETS)
    assert list(constants.MODELS_THAT_KEEP_DUPLICATES) == [name for name, preset in PRESETS.items() if preset.as_published]


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.sam2_megabytes])
def test_download_sizes_are_the_presets(name: str) -> None:
    from operators.constants import MODELS

    gigabytes = (PRESETS[name].sam2_megabytes + PRESETS[name].dinov2_megabytes) / 1000
    assert f"downloads {gigabytes:.1f} GB" in MODELS[name]


def test_defaults_are_the_librarys() -> None:
    import refseg
    from operators import constants

    def default(function: object, name: str) -> object:
        return inspect.signature(function).parameters[name].default  # type: ignore[arg-type]

    assert default(refseg.build_prototypes, "model") == constants.MODEL
    assert default(refseg.segment, "label_field") == constants.LABEL_FIELD
    assert default(refseg.segment, "max_detections") == constants.MAX_DETECTIONS
    assert default(refseg.find_similar, "k") == constants.NUM_SIMILAR
    assert default(refseg.find_similar, "label_field") == constants.SIMILAR_FIELD
    assert default(refseg.sample_references, "seed") == constants.SEED
    assert default(refseg.sample_references, "min_side") == constants.MIN_SIDE
    assert default(refseg.sample_references, "border") == constants.BORDER


@pytest.mark.parametrize("name", ["indexes", "jobs", "messages"])
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"operators.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
