"""Every preset goes every way from images to predictions, with small random weights in place of its own.

Whatever is in PRESETS is walked: a preset that is added needs nothing here. What the weights find is of no matter; that each
way ends, under names that FiftyOne takes, is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from PIL import Image

import refseg
from refseg.cli import main
from refseg.dataset.known_indexes import index_records
from refseg.models.loaded import PRESETS, get_preset
from tests.operators.app_panel import choose, run_job
from tests.operators.helpers import call, run_delegated, uri
from tests.small_models import small_presets
from tests.small_segmenters import can_be

NAMES = tuple(name for name, preset in PRESETS.items() if can_be(preset.sam2_config))
CLASSES = ("nut", "gear")
IMAGE_HW = (48, 64)
NUM_IMAGES = 3
OBJECTS = ((4, 6, 24, 30), (34, 10, 58, 40))
"""xyxy pixels of one object of each class, in every image."""
LEAST = 0.0
"""Of the score: with random weights anything is found."""

OF_EACH_KIND = ("demo", "demo-fast", "tiny", "large-fast", "paper", "edge", "sam3")
"""The others differ from one of these in sizes alone, which Python and the command line are asked about."""

each_preset = pytest.mark.parametrize("name", NAMES)
each_kind = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OF_EACH_KIND else [pytest.mark.thorough]) for name in NAMES]
)


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with small_presets(tmp_path_factory.mktemp("weights")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two objects each, and the same as COCO files of references and targets."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(9)
    annotations = []
    for number in range(NUM_IMAGES):
        pixels = rng.integers(100, 140, (*IMAGE_HW, 3))
        for row, (x0, y0, x1, y1) in enumerate(OBJECTS):
            pixels[y0:y1, x0:x1, row] += 100
            about = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": row + 1, "iscrowd": 0}
            outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            box, area = [x0, y0, x1 - x0, y1 - y0], (x1 - x0) * (y1 - y0)
            annotations.append({**about, "bbox": box, "area": area, "segmentation": outline})
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    height, width = IMAGE_HW
    images = [{"id": n + 1, "file_name": f"{n}.png", "height": height, "width": width} for n in range(NUM_IMAGES)]
    categories = [{"id": row + 1, "name": name} for row, name in enumerate(CLASSES)]
    for name, chosen in (("references", images[:1]), ("targets", images)):
        ids = {image["id"] for image in chosen}
        own = [annotation for annotation in annotations if annotation["image_id"] in ids]
        (folder / f"{name}.json").write_text(json.dumps({"images": chosen, "annotations": own, "categories": categories}))
    return folder


@pytest.fixture
def dataset(make_dataset: Callable[..., fo.Dataset], folder: Path) -> fo.Dataset:
    """Images with objects in `ground_truth`; those of the first are references."""
    height, width = IMAGE_HW
    samples = []
    for number in range(NUM_IMAGES):
        objects = []
        for label, (x0, y0, x1, y1) in zip(CLASSES, OBJECTS, strict=True):
            box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
            mask = np.ones((y1 - y0, x1 - x0), bool)
            tags = [] if number else ["reference"]
            objects.append(fo.Detection(label=label, bounding_box=box, mask=mask, tags=tags))
        samples.append(fo.Sample(str(folder / f"{number}.png"), ground_truth=fo.Detections(detections=objects)))
    return make_dataset(samples)


def only_record(dataset: fo.Dataset) -> dict[str, Any]:
    """The record of the dataset's one index."""
    (record,) = index_records(dataset)
    return record


@each_preset
def test_from_python(name: str, dataset: fo.Dataset) -> None:
    report = refseg.build_index(dataset, name, num_workers=0, progress=False)
    assert (report.num_images, report.num_added, report.skipped) == (NUM_IMAGES, NUM_IMAGES, ())
    assert report.num_candidates > 0
    record = only_record(dataset)
    assert (record["model"], record["exact"], record["uri"]) == (name, get_preset(name).as_published, report.uri)
    index = refseg.open_index(dataset, name)
    assert index.status().num_indexed == NUM_IMAGES
    assert index.verify(progress=False).damaged == ()

    references = refseg.collect_references(dataset, "ground_truth", tags="reference")
    prototypes = refseg.build_prototypes(references, name, progress=False)
    assert (prototypes.model, prototypes.shots) == (name, {"gear": 1, "nut": 1})
    refseg.save_prototypes(dataset, prototypes, "kept")
    found = refseg.segment(dataset, "kept", min_confidence=LEAST, num_workers=0, progress=False)
    assert (found.num_images, found.num_from_index, found.skipped) == (NUM_IMAGES, NUM_IMAGES, ())
    assert found.num_instances == dataset.count("predictions.detections") > 0
    assert dataset.get_run_info(found.run_key).config.model == name

    dataset[1:2].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
    updated = refseg.update(dataset, num_workers=0, progress=False)
    assert (len(updated.references_added), updated.num_reused, updated.skipped) == (2, 2, ())
    assert updated.segmentation.num_from_index == NUM_IMAGES
    assert refseg.load_prototypes(dataset, "kept").shots == {"gear": 2, "nut": 2}
    assert only_record(dataset)["key"] == record["key"]
    index.delete()
    assert index_records(dataset) == []


@each_preset
def test_from_the_command_line(name: str, folder: Path, tmp_path: Path) -> None:
    arguments = ["coco", "--images", str(folder), "--references", str(folder / "references.json")]
    arguments += ["--targets", str(folder / "targets.json"), "--out", str(tmp_path / "results.json")]
    assert main([*arguments, "--model", name, "--min-score", "0", "--workers", "0", "--quiet"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert {result["image_id"] for result in results} <= {1, 2, 3}
    assert {result["category_id"] for result in results} <= {1, 2}
    assert len(results) > 0


@each_kind
def test_benchmark(name: str, folder: Path, tmp_path: Path) -> None:
    arguments = ["benchmark", "custom", "--data", str(folder), "--references", str(folder / "references.json")]
    arguments += [
        "--targets",
        str(folder / "targets.json"),
        "--out",
        str(tmp_path / "out"),
        "--model",
        name,
        "--processes",
        "1",
    ]
    try:
        assert main([*arguments, "--quiet"]) == 0
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        (run,) = results["runs"]
        assert run["figures"]["mask AP"] is not None
        assert results["settings"]["model"] == name
        (made,) = [key for key in fo.list_datasets() if key.startswith("refseg-custom")]
        assert only_record(fo.load_dataset(made))["model"] == name
    finally:
        for key in fo.list_datasets():
            if key.startswith("refseg-custom"):
                fo.delete_dataset(key)


@each_kind
def test_operators(name: str, dataset: fo.Dataset) -> None:
    assert call("build_index", dataset, model=name)["num_added"] == NUM_IMAGES
    assert call("build_prototypes", dataset, model=name, name="kept")["model"] == name
    found = call("segment", dataset, prototypes="kept", min_confidence=LEAST)
    assert (found["num_images"], found["num_from_index"]) == (NUM_IMAGES, NUM_IMAGES)
    assert found["num_instances"] > 0
    dataset.reload()
    dataset[1:2].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
    assert len(call("update", dataset)["references_added"]) == 2
    learnt = call("learn", dataset, model=name, label_field="learnt", min_confidence=LEAST)
    assert learnt["prototypes"]["model"] == name
    assert learnt["segmentation"]["num_from_index"] == NUM_IMAGES
    assert only_record(dataset)["num_images"] == NUM_IMAGES


@each_kind
def test_the_panels_build(name: str, dataset: fo.Dataset) -> None:
    choose(dataset, model=name)
    shown = run_job(dataset, "index")
    assert [kind for kind, _ in shown.notes] == ["success"]
    assert only_record(dataset)["model"] == name


@each_kind
def test_a_delegated_run(name: str, dataset: fo.Dataset) -> None:
    operator = foo.get_operator(uri("segment_with_references"))
    done = run_delegated(operator(dataset, model=name, min_confidence=LEAST, evaluate=False, delegate=True))
    assert done.run_state == "completed", done.result.error
    dataset.reload()
    assert dataset.count("predictions.detections") > 0
    assert only_record(dataset)["num_images"] == NUM_IMAGES
