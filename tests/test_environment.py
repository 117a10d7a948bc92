"""The ground the other tests stand on: FiftyOne works, and nothing of the user's is touched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import fiftyone.constants as foc
import fiftyone.core.odm as foo
import numpy as np
import pytest

from tests.private_mongod import PrivateMongod, find_mongod

TORCH_HALF = ("models", "candidates.packing", "prototypes.prototypes", "matching.matcher", "index.candidate_index")


def server_options() -> dict[str, object]:
    """How the mongod that FiftyOne talks to was started."""
    return foo.get_db_client().admin.command("getCmdLineOpts")["parsed"]


def test_database_is_the_sessions_own(session_folder: Path) -> None:
    running_in = Path(server_options()["storage"]["dbPath"])
    assert running_in == session_folder / "mongo"
    assert running_in != Path(foc.DEFAULT_DB_DIR)
    assert Path(foc.FIFTYONE_CONFIG_DIR) not in running_in.parents


@pytest.mark.parametrize("setting", ["database_dir", "default_dataset_dir", "dataset_zoo_dir", "model_zoo_dir", "plugins_dir"])
def test_folders_are_the_sessions_own(setting: str, session_folder: Path) -> None:
    assert Path(getattr(fo.config, setting)).parent == session_folder


def test_nothing_is_reported_home() -> None:
    assert fo.config.do_not_track is True


def test_dataset_round_trips(make_dataset: Callable[..., fo.Dataset], rng: np.random.Generator) -> None:
    mask = rng.random((5, 7)) > 0.5
    detection = fo.Detection(label="gear", bounding_box=[0.1, 0.2, 0.7, 0.5], mask=mask, confidence=0.25)
    sample = fo.Sample(filepath="image.png", tags=["reference"])
    sample["ground_truth"] = fo.Detections(detections=[detection])
    dataset = make_dataset([sample])

    dataset.reload()
    found = dataset.match_tags("reference").first()["ground_truth"].detections[0]

    assert found.label == "gear"
    assert found.bounding_box == [0.1, 0.2, 0.7, 0.5]
    assert found.confidence == 0.25
    np.testing.assert_array_equal(found.mask, mask)
    assert not dataset.persistent


def test_datasets_of_one_test_differ_and_are_deleted(request: pytest.FixtureRequest) -> None:
    before = set(fo.list_datasets())
    make = request.getfixturevalue("make_dataset")
    names = {make().name, make().name}
    assert len(names) == 2
    assert set(fo.list_datasets()) - before == names


def test_no_dataset_is_left_by_other_tests() -> None:
    assert [name for name in fo.list_datasets() if name.startswith("refseg-test-")] == []


def test_a_second_session_has_a_server_of_its_own(tmp_path: Path) -> None:
    executable = find_mongod()
    assert executable is not None
    second = PrivateMongod(executable, tmp_path)
    try:
        assert second.is_running
        assert second.uri != os.environ["FIFTYONE_DATABASE_URI"]
        socket.create_connection(("127.0.0.1", second.port), timeout=10).close()
    finally:
        second.stop()
    assert not second.is_running


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mongod did not start"):
        PrivateMongod(Path(sys.executable), tmp_path)


def test_torch_half_imports_without_fiftyone() -> None:
    # None in sys.modules makes every import of fiftyone fail, as on a machine without it.
    code = "import sys; sys.modules['fiftyone'] = None\n" + "\n".join(f"import refseg.{name}" for name in TORCH_HALF)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_repository_is_where_plugins_are_found(session_folder: Path) -> None:
    link = Path(fo.config.plugins_dir) / "refseg"
    assert link.is_symlink()
    assert (link / "pyproject.toml").samefile(Path(__file__).parent.parent / "pyproject.toml")


def test_mongod_is_new_enough_for_fiftyone() -> None:
    version = foo.get_db_client().server_info()["version"]
    assert tuple(int(part) for part in version.split(".")[:2]) >= (6, 0)
