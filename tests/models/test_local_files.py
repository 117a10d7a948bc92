"""Weights from files within a block."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from refseg.errors import DatasetError, ModelUnavailableError
from refseg.models.loaded import load_models
from refseg.models.local_files import files_for, local_weights
from refseg.models.presets import DEMO_WEIGHTS


def test_presets_are_loaded_from_them(tmp_path: Path) -> None:
    gone = tmp_path / "gone.safetensors"
    with local_weights({"demo": (gone, None)}):
        for name in ("demo", "demo-fast"):
            with pytest.raises(ModelUnavailableError, match="There is no SAM 2 checkpoint at"):
                load_models(name)
        # What load_models is given itself comes first.
        own = shutil.copyfile(DEMO_WEIGHTS / "sam2.safetensors", tmp_path / "own.safetensors")
        assert load_models("demo", sam2_path=own).preset.name == "demo"
    assert load_models("demo").preset.name == "demo"


def test_blocks_end_and_nest() -> None:
    with local_weights({"tiny": ("/a", None), "base": ("/b", "/c")}):
        with local_weights({"tiny": (None, "/d")}):
            assert (files_for("tiny"), files_for("base-fast")) == ((None, "/d"), ("/b", "/c"))
            seen: list[Any] = []
            thread = threading.Thread(target=lambda: seen.append(files_for("tiny")))
            thread.start()
            thread.join()
            assert seen == [(None, None)]
        assert files_for("tiny-fast") == ("/a", None)
    assert files_for("tiny") == (None, None)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (None, "files must be a mapping of a preset's name to two paths, not None"),
        ({7: (None, None)}, "files must be a list of presets' names"),
        ({"tiny": "/a"}, r"files\['tiny'\] must be a pair of a SAM 2 checkpoint and a DINOv2 folder"),
        ({"tiny": (None,)}, r"files\['tiny'\] must be a pair"),
        ({"tiny": (7, None)}, "sam2_path must be a path, not 7"),
    ],
)
def test_bad_input(files: Any, text: str) -> None:
    with pytest.raises(DatasetError, match=text), local_weights(files):
        pass
