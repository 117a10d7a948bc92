"""Places that a browser may name, and that no parameter of an operator or of the panel names one unchecked."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError, Executor, execute_or_delegate_operator

from operators.forms.allowed_folders import PLACES, VARIABLE, refusal, require_allowed
from operators.panel.settings import PanelSettings
from operators.running import background
from refseg.errors import DatasetError
from tests.operators.app_panel import context
from tests.operators.helpers import app_request, call, form_of, named, problems_of, run_delegated, run_in_app, uri

ROOT = Path(__file__).resolve().parents[3]
OPERATORS = [path.stem for path in sorted((ROOT / "operators").glob("*.py")) if path.stem != "__init__"]
PLACE_WORDS = "uri|url|path|dir|directory|folder|file|filename|place|location|address|weights|out|output"
NAMES_A_PLACE = re.compile(rf"(^|_)({PLACE_WORDS})s?(_|$)")
READERS = ("get", "pop", "given", "value", "text", "place", "choice")
"""Functions of forms and operators whose first argument is a parameter's name."""


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the server that is not allowed; the variable is not set."""
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "outside"


def asked(params: dict[str, Any], **more: Any) -> foo.ExecutionContext:
    """A context as a request over HTTP makes it."""
    return foo.ExecutionContext({"operator_uri": uri("segment"), "params": params, **more}, executor=Executor())


def is_refused(place: Any, name: str = "uri") -> bool:
    return refusal(asked({name: place}), name) is not None


class TestRefusal:
    def test_is_one_sentence_that_says_what_to_do(self, outside: Path) -> None:
        assert refusal(asked({"mask_dir": str(outside)}), "mask_dir") == (
            f"'{outside}' does not lie in a folder that the App may use ({fo.config.default_dataset_dir}): name one in these, "
            "or let the server's owner add it to the environment variable REFSEG_ALLOWED_FOLDERS and start FiftyOne again."
        )

    @pytest.mark.parametrize("place", [None, ""])
    def test_nothing_named(self, place: Any) -> None:
        assert not is_refused(place)

    def test_python_is_free(self, outside: Path) -> None:
        ctx = foo.ExecutionContext({"params": {"uri": str(outside), "mask_dir": "anywhere"}}, executor=Executor())
        require_allowed(ctx)

    @pytest.mark.parametrize("name", PLACES)
    def test_fiftyones_own_folder(self, name: str) -> None:
        own = Path(fo.config.default_dataset_dir)
        assert not is_refused(str(own / "masks" / "new"), name)
        assert is_refused(f"{own}-beside", name)
        assert is_refused(str(own / ".." / "masks"), name)

    def test_named_folders(self, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one, other = outside / "one", outside / "other"
        monkeypatch.setenv(VARIABLE, os.pathsep.join([str(one), f" {other}/ ", "relative", ""]))
        for place in (one, one / "deep" / "er", other, other / "x"):
            assert not is_refused(str(place))
        for place in (outside, f"{one}2", one / ".." / "three", "relative", os.path.abspath("relative"), os.getcwd(), "/"):
            assert is_refused(str(place))

    def test_links_are_followed(self, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real, linked = outside / "real", outside / "linked"
        real.mkdir(parents=True)
        linked.symlink_to(real)
        (real / "etc").symlink_to("/etc")
        monkeypatch.setenv(VARIABLE, str(linked))
        assert not is_refused(str(real / "x"))
        assert not is_refused(str(linked / "x"))
        assert is_refused(str(linked / "etc" / "x"))
        assert is_refused(str(linked / ".." / "x"))

    def test_home(self, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(outside))
        assert is_refused("~/masks")
        monkeypatch.setenv(VARIABLE, "~")
        assert not is_refused("~/masks")
        assert is_refused("~nobody-is-called-so/masks")

    @pytest.mark.parametrize("place", ["/\0", "/bad\ud800", 7, ["/etc"], {"a": 1}, b"/etc", True])
    def test_what_is_no_folder(self, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "/etc")
        assert is_refused(place)

    def test_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert is_refused("s3://bucket/parts")
        monkeypatch.setenv(VARIABLE, os.pathsep.join(["/one", "s3://bucket/parts", "gs://other/", "/two"]))
        for place in ("s3://bucket/parts", "s3://bucket/parts/index", "gs://other", "gs://other/x", "/one/x", "/two/x"):
            assert not is_refused(place)
        for place in (
            *("s3://bucket", "s3://bucket/parts2", "s3://bucket/parts/../x", "s3://bucket/parts/%2e%2E/x", "az://bucket/parts"),
            *("s3://bucket/parts/..%2Fx", "gs://other/a/..\\b", "gs://others/x", "/three/s3://bucket/parts"),
        ):
            assert is_refused(place)
        assert is_refused("s3://bucket/parts/masks", "mask_dir")

    @pytest.mark.parametrize("address", ["file:///one/x", "FILE:///one/x", "file-object-store:///one/x"])
    def test_folders_are_not_named_as_addresses(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, os.pathsep.join(["/one", "file:///one", "file-object-store:///one"]))
        assert is_refused(address)


def words_read(tree: ast.AST) -> Iterator[str]:
    """Texts by which a module reads parameters: of `get`, forms' inputs and subscripts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            # Of results and records a module reads what it likes.
            found = [node.slice] if ast.unparse(node.value).endswith("params") else []
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            of = ast.unparse(node.func)
            found = node.args[:1] if name in READERS and ("config" not in of and "result" not in of) else []
        else:
            found = []
        yield from (one.value for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str))


class TestEveryParameter:
    def test_that_names_a_place_is_known(self) -> None:
        read = {field.name for field in fields(PanelSettings)}
        read |= {word for path in (ROOT / "operators").rglob("*.py") for word in words_read(ast.parse(path.read_text()))}
        for operator in OPERATORS:
            read |= set(inspect.signature(type(foo.get_operator(uri(operator))).__call__).parameters)
        assert {"label_field", "prototypes", "tag", "wanted"} <= read
        assert {name for name in read if NAMES_A_PLACE.search(name)} == set(PLACES)

    @pytest.mark.parametrize("name", PLACES)
    @pytest.mark.parametrize("operator", OPERATORS)
    @pytest.mark.sampled(4)
    def test_is_refused_outside_and_taken_inside(
        self, parts: fo.Dataset, outside: Path, monkeypatch: pytest.MonkeyPatch, operator: str, name: str
    ) -> None:
        request = app_request(parts, operator, {name: str(outside), "model": "demo"})
        sentence = refusal(asked({name: str(outside)}), name)
        if operator != "cancel":
            assert problems_of(form_of(parts, operator, request["params"]))[name] == sentence
        # Whoever goes past the form gets no further.
        found = foo.get_operator(uri(operator))
        monkeypatch.setattr(type(found), "work", lambda *_: pytest.fail("it has begun"))
        stream = found.execute(foo.ExecutionContext(request, executor=Executor(), operator_uri=uri(operator)))
        sent = named([message.to_json()["body"] for message in stream], "notify")
        assert [(note["message"], note["variant"]) for note in sent] == [(sentence, "error")]

        monkeypatch.setenv(VARIABLE, str(outside.parent))
        assert name not in problems_of(form_of(parts, operator, request["params"]))
        require_allowed(asked(request["params"]))


class TestEndToEnd:
    def test_nothing_is_told_of_what_may_not_be_named(self, parts: fo.Dataset, outside: Path) -> None:
        outside.write_text("a secret")
        form = form_of(parts, "build_index", {"model": "demo", "uri": str(outside)})
        assert problems_of(form) == {"uri": refusal(asked({"uri": str(outside)}), "uri")}
        assert "room" not in form

    def test_a_form_that_does_not_ask_for_it(self, with_prototypes: fo.Dataset, outside: Path) -> None:
        with pytest.raises(ExecutionError, match="does not lie in a folder that the App may use"):
            run_in_app(with_prototypes, "learn", {"model": "demo", "mask_dir": str(outside)})
        assert not outside.exists()

    def test_masks_and_index_in_a_folder_that_is_allowed(
        self, indexed: fo.Dataset, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(outside))
        for operator, params in (
            ("build_index", {"model": "demo", "uri": str(outside / "index")}),
            ("segment", {"prototypes": "parts", "mask_dir": str(outside / "masks"), "min_confidence": 0.0}),
        ):
            (note,) = named(run_in_app(indexed, operator, params), "notify")
            assert note["variant"] == "success", note
        indexed.reload()
        paths = [path for found in indexed.values("predictions.detections.mask_path") for path in found]
        assert paths
        assert all(Path(path).is_relative_to(outside / "masks") for path in paths)
        assert (outside / "index" / "images.lance").is_dir()
        # What a run recorded stays usable when the folder is no longer allowed, by an update or a run that names nothing.
        monkeypatch.delenv(VARIABLE)
        (note,) = named(run_in_app(indexed, "build_index", {"model": "demo"}), "notify")
        assert note["variant"] == "success", note

    def test_from_python(self, with_prototypes: fo.Dataset, true_candidates: None, outside: Path) -> None:
        given = {"prototypes": "parts", "index": False, "min_confidence": 0.0}
        call("segment", with_prototypes.limit(1), mask_dir=str(outside), **given)
        assert list(outside.rglob("*.png"))
        with pytest.raises(ExecutionError, match="'masks' is not a whole path: begin with '/'"):
            call("segment", with_prototypes.limit(1), mask_dir="masks", **given)

    def test_a_delegated_job_looks_at_its_own_machine(
        self, with_prototypes: fo.Dataset, outside: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        params = {"prototypes": "parts", "mask_dir": str(outside)}
        with pytest.raises(ExecutionError, match=VARIABLE):
            queue(with_prototypes, params)
        monkeypatch.setenv(VARIABLE, str(outside))
        queued = queue(with_prototypes, params)
        monkeypatch.delenv(VARIABLE)
        done = run_delegated(queued)
        assert done.run_state == "failed"
        assert VARIABLE in str(done.result.to_json())
        assert not outside.exists()

    def test_the_panel(self, with_prototypes: fo.Dataset, outside: Path) -> None:
        with pytest.raises(DatasetError, match=VARIABLE):
            background.start(context(with_prototypes), uri("build_index"), {"model": "demo", "uri": str(outside)})


def queue(dataset: fo.Dataset, params: dict[str, Any]) -> Any:
    """Queue a segmentation as the App does."""
    request = app_request(dataset, "segment", params, request_delegation=True)
    answer = asyncio.run(execute_or_delegate_operator(uri("segment"), request))
    answer.raise_exceptions()
    return answer
