"""Without the library, with an older one, or with something missing, everything says so and what to type."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

import refseg
from operators.running import library
from refseg import requirements
from refseg.plugin import install
from refseg.version import VERSION
from tests.operators.app_panel import press
from tests.operators.helpers import uri
from tests.operators.test_register import NAMES

MISSING = "no-such-library is not installed"


@pytest.fixture
def something_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "declared", lambda: ["no-such-library>=2"])
    monkeypatch.setattr(requirements, "_found_well", set())


def test_nothing_is_wrong_here() -> None:
    assert library.problem() is None
    library.require()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The App's part in a folder of its own, in a Python that cannot import the library."""
    if "site-packages" in str(refseg.__file__):
        pytest.skip("what the library needs lies in the same folder, and would be hidden with it")
    folder = install(tmp_path).folder
    monkeypatch.setattr(library, "FOLDER", folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "refseg").is_dir()])
    # Its modules stay: to be loaded anew, they would take the places of those that other tests hold.
    monkeypatch.delitem(sys.modules, "refseg")
    return folder


class TestProblem:
    def test_no_library(self, elsewhere: Path) -> None:
        assert library.problem() == (
            "RefSeg's library is not installed where FiftyOne runs. Type: "
            f"SAM2_BUILD_CUDA=0 {sys.executable} -m pip install --upgrade --no-build-isolation "
            '"fiftyone-refseg @ git+https://github.com/refseg/refseg" — and start FiftyOne again.'
        )
        with pytest.raises(library.LibraryProblemError, match="is not installed where FiftyOne runs"):
            library.require()

    def test_library_in_the_plugins_own_folder(self, elsewhere: Path) -> None:
        beside = elsewhere / "plugin" / "refseg"
        beside.mkdir(parents=True)
        source = Path(library.__file__).parents[2] / "plugin" / "refseg"
        for name in ("version.py", "requirements.py"):
            shutil.copy(source / name, beside)
        (beside / "__init__.py").write_text("from .version import VERSION as __version__\n")
        assert library.problem() is None
        assert sys.path[-1] == str(elsewhere / "plugin")

    def test_other_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = install(tmp_path).folder
        about = folder / "fiftyone.yml"
        about.write_text(about.read_text().replace(f'version: "{VERSION}"', 'version: "0.0.1"'))
        monkeypatch.setattr(library, "FOLDER", folder)
        assert library.problem() == (
            f"The App's part of RefSeg is of version 0.0.1, the library of version {VERSION}. Type: "
            f"{sys.executable} -m refseg plugin install — and start FiftyOne again."
        )

    def test_older_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of a version that knows nothing of requirements, nor of the command `refseg plugin`."""
        monkeypatch.setattr(refseg, "__version__", "0.1.0")
        monkeypatch.setitem(sys.modules, "refseg.requirements", None)
        told = library.problem()
        assert told is not None
        assert told.startswith(
            f"The App's part of RefSeg is of version {VERSION}, the library of version 0.1.0. Type: SAM2_BUILD"
        )
        assert "--upgrade --no-build-isolation" in told

    def test_a_folder_of_that_name_is_no_library(
        self, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "clones" / "refseg" / "docs").mkdir(parents=True)
        # Not by syspath_prepend, which would put this list in the place of the one that the fixture gives back.
        sys.path.insert(0, str(tmp_path / "clones"))
        importlib.invalidate_caches()
        assert "is not installed where FiftyOne runs" in str(library.problem())


@pytest.mark.usefixtures("something_missing")
class TestSomethingMissing:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_operator_says_it(self, name: str, make_dataset: Callable[..., fo.Dataset]) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        with pytest.raises(ExecutionError, match=MISSING) as raised:
            foo.execute_operator(uri(name), {"dataset": dataset}, params={})
        assert "--no-build-isolation" in str(raised.value)
        ctx = foo.ExecutionContext({"dataset_name": dataset.name, "params": {}}, operator_uri=uri(name))
        told = foo.get_operator(uri(name)).resolve_input(ctx).to_json()
        assert MISSING in str(told)

    def test_called_from_python_it_is_a_sentence(self, make_dataset: Callable[..., fo.Dataset]) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        with pytest.raises(ExecutionError) as raised:
            foo.get_operator(uri("build_index"))(dataset)
        assert str(raised.value).startswith(f"RefSeg cannot run here: {MISSING}. Type: ")

    def test_panel_shows_it(self, make_dataset: Callable[..., fo.Dataset]) -> None:
        dataset = make_dataset([fo.Sample("a.png")])
        for event in ("on_load", "on_change_view", "load", "watch", "start"):
            answer = press(dataset, event)
            assert (answer.result, answer.notes) == (None, [])
            assert MISSING in answer.data["overview"]["problem"]
