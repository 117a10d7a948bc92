"""Small real datasets: scenes of two classes, and trays whose candidates are the ground truth.

FiftyOne is imported inside the fixtures: pytest reads this file before the settings of this session are made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from refseg.demo.world import NOVEL_PARTS, Scene, draw_family, render_scene

if TYPE_CHECKING:
    import fiftyone as fo

    from refseg.prototypes.prototypes import Prototypes
    from tests.kept import KeptDataset

NUM_IMAGES = 4


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Scene]]:
    """Scenes of two classes; each image holds both."""
    rng = np.random.default_rng(33)
    families = [draw_family(rng, [part]) for part in NOVEL_PARTS[:2]]
    folder = tmp_path_factory.mktemp("scenes")
    drawn = []
    for number in range(NUM_IMAGES):
        scene = render_scene(rng, families, (240, 320), radius=(0.12, 0.17), max_overlap=0.0)
        path = folder / f"{number}.png"
        Image.fromarray(scene.image).save(path)
        drawn.append((path, scene))
    return drawn


@pytest.fixture(scope="module")
def kept_parts(tmp_path_factory: pytest.TempPathFactory, scenes: list[tuple[Path, Scene]]) -> Iterator[KeptDataset]:
    """Four images with exact masks in `ground_truth`; the labels of the first two carry the tag `reference`."""
    import fiftyone as fo

    from tests.kept import KeptDataset
    from tests.trays import truth_of

    samples = []
    for number, (path, scene) in enumerate(scenes):
        labels = [
            fo.Detection.from_mask(mask, label=NOVEL_PARTS[family])
            for mask, family in zip(scene.masks, scene.families, strict=True)
        ]
        for label in labels:
            label.tags = ["reference"] if number < 2 else []
        samples.append(fo.Sample(str(path), ground_truth=fo.Detections(detections=labels)))
    dataset = fo.Dataset()
    dataset.add_samples(samples, progress=False)
    yield KeptDataset(dataset, scenes[0][0].parent, tmp_path_factory.mktemp("copies") / "parts", truth_of(dataset))
    dataset.delete()


@pytest.fixture
def parts(kept_parts: KeptDataset) -> fo.Dataset:
    """The same, as it was made."""
    return kept_parts.put_back()


@pytest.fixture(scope="session")
def prototypes(scenes: list[tuple[Path, Scene]]) -> Prototypes:
    """One reference a class, from the first scene, by the demo preset."""
    from refseg.prototypes.building import build_prototypes
    from refseg.prototypes.vectors import Reference

    path, scene = scenes[0]
    references = []
    for mask, family in zip(scene.masks, scene.families, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        label = NOVEL_PARTS[family]
        references.append(Reference(label, label, str(path), (x0, y0, x1, y1), mask[y0:y1, x0:x1]))
    return build_prototypes(references, "demo")


@pytest.fixture
def with_prototypes(parts: fo.Dataset, prototypes: Prototypes) -> fo.Dataset:
    """The same with prototypes of the demo preset, kept as `parts`."""
    from refseg.dataset.store import save_prototypes

    save_prototypes(parts, prototypes, "parts")
    return parts


@pytest.fixture
def predicted(parts: fo.Dataset) -> fo.Dataset:
    """Predictions as a run of segment writes them: the ground truth, under its own name."""
    import fiftyone as fo

    values = {}
    for sample in parts:
        copies = [label.copy() for label in sample.ground_truth.detections]
        for label in copies:
            label.confidence, label.tags = 0.8, []
        values[sample.id] = fo.Detections(detections=copies)
    parts.add_sample_field("predictions", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    parts.set_values("predictions", values, key_field="id")
    run = parts.init_run(
        method="refseg/segment", label_field="predictions", classes=sorted(NOVEL_PARTS[:2]), min_confidence=0.5
    )
    parts.register_run("run", run)
    return parts


@pytest.fixture
def true_candidates(kept_parts: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidates of the four images are their two labelled objects, computed one image at a time."""
    assert kept_parts.truth is not None
    kept_parts.truth.propose(monkeypatch)
    monkeypatch.setattr("refseg.dataset.builder.IMAGES_A_BATCH", {"cpu": 1, "mps": 1, "cuda": 1})


@pytest.fixture
def indexed(with_prototypes: fo.Dataset, true_candidates: None) -> fo.Dataset:
    """The same with prototypes and an index of the first three images."""
    from tests.operators.helpers import call

    call("build_index", with_prototypes.limit(3))
    with_prototypes.reload()
    return with_prototypes


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's folder, which a browser may name too."""
    monkeypatch.setenv("REFSEG_ALLOWED_FOLDERS", str(tmp_path))
    return tmp_path


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each step, however quick, be noted and shown: in the module that FiftyOne loads, and in the one imported here."""
    import fiftyone.operators as foo

    from operators.running import base
    from tests.operators.helpers import uri

    kinds = type(foo.get_operator(uri("segment"))).__mro__
    loaded = next(sys.modules[kind.__module__] for kind in kinds if kind.__name__ == "RefSegOperator")
    for module in (base, loaded):
        monkeypatch.setattr(module, "SECONDS_BETWEEN_DATABASE_WRITES", 0.0)
        monkeypatch.setattr(module, "SECONDS_BETWEEN_MESSAGES", 0.0)


@pytest.fixture(scope="module")
def true_trays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Four trays with a star and a tee each, whose names hold a dot and a dollar sign."""
    from tests.kept import kept_trays
    from tests.operators.panel.tagging import STAR, TEE

    with kept_trays(tmp_path_factory.mktemp("trays"), labels=(STAR, TEE)) as kept:
        yield kept
