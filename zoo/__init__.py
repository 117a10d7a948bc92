"""RefSeg's presets as a source of FiftyOne's model zoo; all that runs is `refseg`'s own, so that loader workers find it.

foz.register_zoo_model_source("https://github.com/refseg/refseg")
model = foz.load_zoo_model("refseg-large", prototypes="parts.safetensors")
dataset.apply_model(model, "predictions")
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

# The manifest's name is that of the module in which FiftyOne loads this file: `refseg` would hide the library.
PREFIX = "refseg-"


def download_model(model_name: str, model_path: str) -> None:
    """Fetch the weights of a preset, and note which they are.

    Args:
        model_name: of the manifest, such as "refseg-large".
        model_path: where the note goes; the weights lie where RefSeg keeps them.

    Raises:
        refseg.errors.ModelUnavailableError: they cannot be downloaded.
    """
    _require_library()
    from refseg import load_models

    models = load_models(model_name.removeprefix(PREFIX))
    Path(model_path).write_text(json.dumps({"preset": models.preset.name, "revisions": dict(models.revisions)}, indent=1))


def load_model(model_name: str, model_path: str, prototypes: Any = None, **options: Any) -> Any:
    """A FiftyOne model that finds the prototypes' classes.

    Args:
        model_name: of the manifest.
        model_path: not needed.
        prototypes: `refseg.Prototypes`, or the path of a file of them.
        **options: see `refseg.Segmenter`.

    Raises:
        ValueError: without prototypes: they say what to look for.
    """
    _require_library()
    from refseg import Prototypes, Segmenter

    if prototypes is None:
        raise ValueError(
            f"{model_name} looks for what prototypes show: pass prototypes=, those that refseg.build_prototypes returns or a "
            "file that they were saved to."
        )
    if not isinstance(prototypes, Prototypes):
        prototypes = Prototypes.load(prototypes)
    return Segmenter(prototypes, model=model_name.removeprefix(PREFIX), **options)


def _require_library() -> None:
    if importlib.util.find_spec("refseg") is None:
        raise ModuleNotFoundError(
            "RefSeg's library is not installed here. Type: SAM2_BUILD_CUDA=0 pip install --no-build-isolation "
            '"fiftyone-refseg @ git+https://github.com/refseg/refseg"',
            name="refseg",
        )
