"""Profile `paper` from pixels to detections, against what the published implementation answers on two photographs.

The folder that $REFSEG_GOLDEN names holds `photos/`: photographs that scikit-image ships, small weights, references as a COCO
file, and arrays that the published implementation computed in float32 on a CPU. Without the folder these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from refseg.calibration.probability import calibrator_for, default_thresholds
from refseg.candidates.clicks import click_decoder
from refseg.candidates.crops import crop_corners, crop_weights
from refseg.candidates.decoding import least_predicted_iou
from refseg.candidates.embedding import embed_images
from refseg.candidates.packing import PackedCandidates
from refseg.candidates.prompts import prompt_grid
from refseg.candidates.proposing import Candidates, encode_patches, propose
from refseg.coco.references import read_references
from refseg.coco.running import CocoJob, run_coco
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index
from refseg.images.reading import encoder_pixels, read_image, segmenter_pixels
from refseg.matching.instances import Instances
from refseg.matching.matcher import make_matcher
from refseg.matching.settings import settings_for
from refseg.models.loaded import PRESETS, Models, load_models, registered, unload_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import segment
from tests.tolerance import assert_near

FOLDER = Path(os.environ.get("REFSEG_GOLDEN", "/nonexistent")) / "photos"
PHOTOS = ("astronaut", "coffee")
PRESET = "golden-paper"
SIDE, ENCODER_SIDE = 256, 224

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="$REFSEG_GOLDEN names no folder with photos/")


@dataclass(frozen=True)
class Answer:
    """What the published implementation answers on one photograph; boxes run to the last pixel."""

    inputs: dict[str, Any]

    @property
    def image_hw(self) -> tuple[int, int]:
        height, width = self.inputs["hw"]
        return int(height), int(width)

    @property
    def masks(self) -> list[dict[str, Any]]:
        return [{"size": list(self.image_hw), "counts": str(counts).encode()} for counts in self.inputs["out_rle"]]

    def check(
        self,
        labels: Sequence[int],
        scores: Sequence[float],
        published_boxes: Sequence[Sequence[float]],
        masks: Sequence[dict[str, Any]],
    ) -> None:
        """Fail unless these are the published answers, in their order."""
        assert list(labels) == self.inputs["out_labels"].tolist()
        np.testing.assert_allclose(scores, self.inputs["out_scores"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(published_boxes, self.inputs["out_boxes"], rtol=0, atol=1e-6)
        ious = coco_mask.iou(list(masks), self.masks, [0] * len(self.masks))
        assert ious.diagonal().min() >= 0.9999

    def check_instances(self, found: Instances) -> None:
        boxes = found.boxes.numpy() - np.array([0, 0, 1, 1])
        places = [
            mask_at(mask.numpy(), box, self.image_hw) for mask, box in zip(found.masks, found.boxes.tolist(), strict=True)
        ]
        self.check(found.labels.tolist(), found.scores.tolist(), boxes.tolist(), places)


def mask_at(mask: NDArray[np.bool_], box: Sequence[int], image_hw: tuple[int, int]) -> dict[str, Any]:
    whole = np.zeros(image_hw, np.uint8, order="F")
    whole[box[1] : box[1] + mask.shape[0], box[0] : box[0] + mask.shape[1]] = mask
    code: dict[str, Any] = coco_mask.encode(whole)
    return code


@pytest.fixture(scope="module")
def small_paper() -> Iterator[str]:
    """The preset `paper` with the small weights, registered like any other."""
    preset = replace(
        PRESETS["paper"],
        name=PRESET,
        sam2_config=str(FOLDER / "weights" / "sam2.yaml"),
        sam2_zoo_name=None,
        sam2_file=str(FOLDER / "weights" / "sam2.safetensors"),
        dinov2_repository=str(FOLDER / "weights" / "dinov2"),
        dinov2_revision=None,
        encoder_side=ENCODER_SIDE,
    )
    with registered(preset):
        yield PRESET
    unload_models()


@pytest.fixture(scope="module")
def models(small_paper: str) -> Models:
    return load_models(small_paper, device="cpu")


@pytest.fixture(scope="module")
def prototypes(models: Models) -> Prototypes:
    return build_prototypes(read_references(FOLDER / "references.json", FOLDER), models, progress=False)


@pytest.fixture(params=PHOTOS)
def photo(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def answer(photo: str) -> Answer:
    return read_answer(photo)


def read_answer(photo: str) -> Answer:
    with np.load(FOLDER / f"{photo}.npz", allow_pickle=False) as stored:
        return Answer({name: stored[name] for name in stored.files})


def pixels_of(photo: str) -> Tensor:
    return segmenter_pixels(read_image(FOLDER / f"{photo}.png"), SIDE)[None]


def kept_clicks(photo: str, models: Models) -> list[tuple[float, float]]:
    """The clicks whose masks are candidates, in the order of the candidates."""
    decoder, points = click_decoder(models), prompt_grid(models.preset.points_per_side, SIDE)
    _, _, rows = decoder.decode(
        points, decoder.terms_of(embed_images(pixels_of(photo), models), 0), least_predicted_iou(models.preset)
    )
    return as_keys(points[rows].numpy())


def as_keys(points: NDArray[np.float32]) -> list[tuple[float, float]]:
    return [(round(x, 3), round(y, 3)) for x, y in points.tolist()]


def matcher_of(prototypes: Prototypes, models: Models) -> Callable[[Candidates | PackedCandidates], Instances]:
    """What a run of this preset does where nobody chose anything."""
    settings = settings_for(models.preset.as_published)
    calibrator = calibrator_for(prototypes, models.preset, settings)
    thresholds = default_thresholds(prototypes, models.preset, settings, calibrator)
    return make_matcher(prototypes, models.preset, settings, thresholds).match


def test_patch_features(photo: str, answer: Answer, models: Models) -> None:
    ours = encode_patches(encoder_pixels(pixels_of(photo), ENCODER_SIDE), models)[0]
    assert_near(ours, torch.from_numpy(answer.inputs["patch_features"]), at_most=1e-5)


def test_the_same_clicks_give_the_same_candidates(photo: str, answer: Answer, models: Models) -> None:
    clicks, theirs = kept_clicks(photo, models), as_keys(answer.inputs["points"])
    assert set(clicks) == set(theirs)
    (candidates,) = propose([read_image(FOLDER / f"{photo}.png")], models)
    rows = torch.tensor([clicks.index(click) for click in theirs])
    assert len(rows) == len(candidates)
    assert_near(candidates.features[rows], torch.from_numpy(answer.inputs["features"]), at_most=1e-5)
    assert_near(candidates.predicted_iou[rows], torch.from_numpy(answer.inputs["pred_iou"]), at_most=1e-5)
    assert candidates.masks[rows].flatten(1).sum(1).tolist() == answer.inputs["mask_areas"].tolist()


def test_references(answer: Answer, models: Models, prototypes: Prototypes) -> None:
    references = sorted(read_references(FOLDER / "references.json", FOLDER), key=lambda item: item.id)
    theirs = zip(
        answer.inputs["instance_vectors"].reshape(4, -1), answer.inputs["reference_weights"].reshape(4, -1), strict=True
    )
    for reference, (vector, weights) in zip(references, theirs, strict=True):
        row = prototypes.reference_ids.index(reference.id)
        assert_near(prototypes.vectors[row], torch.from_numpy(vector), at_most=1e-5)
        image = read_image(reference.image)
        image_hw = image.height, image.width
        left, top, right, bottom = crop_corners(reference.box, image_hw)
        mask = reference.whole_mask(image_hw)
        assert mask is not None
        ours = crop_weights(mask[top:bottom, left:right], ENCODER_SIDE, models.patches_side)
        assert_near(ours, torch.from_numpy(weights), at_most=1e-6)


def test_detections(photo: str, answer: Answer, models: Models, prototypes: Prototypes) -> None:
    (candidates,) = propose([read_image(FOLDER / f"{photo}.png")], models)
    answer.check_instances(matcher_of(prototypes, models)(candidates))


def photos_in(make_dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    return make_dataset([fo.Sample(filepath=str(FOLDER / f"{photo}.png")) for photo in PHOTOS])


def test_through_an_exact_index(
    make_dataset: Callable[..., fo.Dataset], models: Models, prototypes: Prototypes, tmp_path: Path
) -> None:
    dataset = photos_in(make_dataset)
    build_index(dataset, models, uri=tmp_path / "index", progress=False)
    index = open_index(dataset).index
    assert index.settings.exact
    names = dict(zip(*dataset.values(["id", "filepath"]), strict=True))
    for chunk in index.scan():
        for number, image in enumerate(chunk.images):
            answer = read_answer(Path(names[image.sample_id]).stem)
            candidates = chunk.candidates(number)
            # Less those whose masks are empty.
            assert len(candidates) == (answer.inputs["mask_areas"] > 0).sum()
            answer.check_instances(matcher_of(prototypes, models)(candidates))


def test_segment_writes_the_published_answers(
    make_dataset: Callable[..., fo.Dataset], models: Models, prototypes: Prototypes
) -> None:
    dataset = photos_in(make_dataset)
    for from_index in (False, True):
        report = segment(dataset, prototypes, "predictions", model=models, progress=False)
        assert report.num_from_index == (len(PHOTOS) if from_index else 0)
        for sample in dataset:
            answer = read_answer(Path(sample.filepath).stem)
            height, width = answer.image_hw
            found = sample.predictions.detections
            boxes = np.array([label.bounding_box for label in found]) * [width, height, width, height]
            corners = boxes[:, :2].round().astype(int)
            answer.check(
                [prototypes.classes.index(label.label) for label in found],
                [label.confidence for label in found],
                # Here boxes enclose their masks.
                np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1], 1).tolist(),
                [mask_at(label.mask, corner, answer.image_hw) for label, corner in zip(found, corners.tolist(), strict=True)],
            )
        dataset.clear_sample_field("predictions")


def test_the_command_line_writes_the_published_answers(small_paper: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in FOLDER.glob("*.png"):
        shutil.copy(path, photos)
    content = json.loads((FOLDER / "references.json").read_text())
    listed = [{"id": 7 + row, "file_name": f"{photo}.png"} for row, photo in enumerate(PHOTOS)]
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps({"images": listed, "categories": content["categories"], "annotations": []}))
    job = CocoJob(
        images=photos,
        references=FOLDER / "references.json",
        targets=targets,
        out=tmp_path / "results.json",
        model=small_paper,
        device="cpu",
    )
    report = run_coco(job, progress=False)
    assert report.thresholds == {"alpha": 0.0, "beta": 0.0}
    results = json.loads(job.out.read_text())
    for row, photo in enumerate(PHOTOS):
        found = [entry for entry in results if entry["image_id"] == 7 + row]
        read_answer(photo).check(
            [entry["category_id"] - 1 for entry in found],
            [entry["score"] for entry in found],
            [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in found)],
            [{"size": entry["segmentation"]["size"], "counts": entry["segmentation"]["counts"].encode()} for entry in found],
        )
