"""RefSeg's presets as a source of FiftyOne's model zoo, registered from an archive as from a repository."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fiftyone as fo
import fiftyone.zoo.models as fozm
import pytest

import refseg
from refseg.images.reading import read_image
from refseg.models.presets import PRESETS
from tests.trays import tray_samples

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = json.loads((ROOT / "zoo" / "manifest.json").read_text())


def test_manifest_names_every_preset() -> None:
    assert [model["base_name"] for model in MANIFEST["models"]] == [f"refseg-{name}" for name in PRESETS]
    for model, preset in zip(MANIFEST["models"], PRESETS.values(), strict=True):
        assert model["base_filename"] == f"{preset.name}.json"
        assert (model["size_bytes"] or 0) == (preset.sam2_megabytes + preset.dinov2_megabytes) * 10**6
        assert f"preset {preset.name}," in model["description"]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[str]:
    """The address of an archive of the repository's zoo/."""
    shutil.copytree(ROOT / "zoo", tmp_path / "repository" / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.make_archive(str(tmp_path / "refseg"), "zip", tmp_path, "repository")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/refseg.zip"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_model_of_a_source_is_applied(source: str, make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(tray_samples(tmp_path))
    fozm.register_zoo_model_source(source)
    try:
        assert {f"refseg-{name}" for name in PRESETS} <= set(fozm.list_zoo_models())
        prototypes = refseg.build_prototypes(
            refseg.collect_references(dataset.limit(3), "ground_truth"), "demo", progress=False
        )
        prototypes.save(tmp_path / "parts.safetensors")
        with pytest.raises(ValueError, match="pass prototypes="):
            fozm.load_zoo_model("refseg-demo")
        model = fozm.load_zoo_model("refseg-demo", prototypes=str(tmp_path / "parts.safetensors"), min_confidence=0.0)
        assert isinstance(model, refseg.Segmenter)
        view = dataset.limit(2)
        # The work of loader processes is refseg's own, which they can import.
        view.apply_model(model, "predictions", batch_size=2, num_workers=1)
        found = [sample.predictions.detections for sample in view]
        expected = model.predict_all([read_image(path) for path in view.values("filepath")])
        assert [[one.bounding_box for one in labels] for labels in found] == [
            [one.bounding_box for one in labels.detections] for labels in expected
        ]
        assert sum(map(len, found)) > 0
    finally:
        fozm.delete_zoo_model_source(source)
