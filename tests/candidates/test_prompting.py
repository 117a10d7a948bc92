"""Prompts of several clicks and boxes against `SAM2ImagePredictor` of the sam2 package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from refseg.candidates.cleaning import clean_masks
from refseg.candidates.embedding import embed_images
from refseg.candidates.prompting import decode_prompt
from refseg.images.reading import segmenter_pixels
from refseg.models.loaded import Models, load_models
from tests.candidates.test_decoding import predictor_for
from tests.candidates.test_proposing import make_image
from tests.tolerance import assert_near

SIDE = 320


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return make_image(4, (SIDE, SIDE))


@pytest.fixture(scope="module")
def models() -> Models:
    """The preset `demo`, which leaves masks as the package's decoder gives them."""
    models = load_models("demo")
    return replace(models, preset=replace(models.preset, clean_masks=False))


@pytest.fixture(scope="module")
def predictor(models: Models, image: Image.Image) -> Any:
    return predictor_for(models, image)


@pytest.mark.parametrize(
    ("on", "beside", "box", "count"),
    [
        ([[128.0, 99.0]], [], None, 3),
        ([[128.0, 99.0], [200.0, 240.0]], [], None, 1),
        ([[128.0, 99.0]], [[10.0, 20.0]], None, 1),
        ([], [], [100.0, 120.0, 250.0, 255.0], 1),
        ([[128.0, 140.0]], [[10.0, 20.0]], [100.0, 120.0, 250.0, 255.0], 1),
    ],
    ids=["a click", "two clicks", "one beside", "a box", "a box and clicks"],
)
def test_answers_are_the_predictors(
    models: Models, image: Image.Image, predictor: Any, on: list[Any], beside: list[Any], box: list[float] | None, count: int
) -> None:
    embeddings = embed_images(segmenter_pixels(image, SIDE)[None], models)
    tensors = [torch.tensor(points, dtype=torch.float32).reshape(-1, 2) for points in (on, beside)]
    logits, predicted = decode_prompt(*tensors, None if box is None else torch.tensor(box), embeddings, 0, models)
    assert logits.shape == (count, SIDE // 4, SIDE // 4)
    assert predicted.tolist() == sorted(predicted.tolist(), reverse=True)
    points = np.array([*on, *beside], np.float32).reshape(-1, 2)
    marks = np.array([1] * len(on) + [0] * len(beside))
    clicks = {"point_coords": points, "point_labels": marks} if len(points) else {}
    boxed = None if box is None else np.array(box)
    _, scores, low_res = predictor.predict(**clicks, box=boxed, multimask_output=count == 3)
    order = scores.argsort()[::-1]
    assert_near(predicted, torch.from_numpy(scores[order].copy()), at_most=1e-4)
    # The predictor cuts its logits at ±32.
    assert_near(logits.clamp(-32, 32), torch.from_numpy(low_res[order].copy()), at_most=1e-3)


def test_masks_are_clean_where_the_preset_wants_them_so(models: Models, image: Image.Image) -> None:
    embeddings = embed_images(segmenter_pixels(image, SIDE)[None], models)
    click, none = torch.tensor([[128.0, 99.0]]), torch.empty(0, 2)
    plain, _ = decode_prompt(click, none, None, embeddings, 0, models)
    cleaning = replace(models, preset=replace(models.preset, clean_masks=True))
    clean, _ = decode_prompt(click, none, None, embeddings, 0, cleaning)
    assert torch.equal(clean, clean_masks(plain))
