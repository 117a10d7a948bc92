"""A few steps of the encoder's training: saved, resumed, written, and loaded as the preset loads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refseg.candidates.proposing import encode_patches
from refseg.demo.training import encoder, measures
from refseg.models import PRESETS
from refseg.models.loaded import load_models, unload_models

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    unload_models()


@pytest.fixture
def small_pictures(monkeypatch):
    """The loop is the same whatever the pictures' size; what the sides are is a test of its own."""
    small = encoder.Shapes(scenes=(112,), crop=56, pairs=2, crops=3)
    monkeypatch.setattr(encoder, "SMALL", small)
    monkeypatch.setattr(encoder, "LARGE", replace(small, scenes=(112, 154)))
    monkeypatch.setattr(measures, "SCENE_SIDE", 112)
    monkeypatch.setattr(measures, "CROP_SIDE", 56)


@pytest.mark.usefixtures("small_pictures")
@pytest.mark.thorough
def test_it_trains_resumes_and_is_loaded(pools, tmp_path):
    state, held_out = tmp_path / "encoder.pt", pools["plain"]
    encoder.train_encoder(state, pools, held_out, 1)
    model = encoder.train_encoder(state, pools, held_out, 2, save_in=tmp_path)
    assert torch.load(state, weights_only=True)["step"] == 2
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4e6
    side = 224
    with torch.inference_mode():
        expected = encoder.patch_features(model, [np.zeros((side, side, 3), np.uint8)])
    models = load_models("demo", device="cpu", dinov2_path=tmp_path / "dinov2")
    models = replace(models, preset=replace(models.preset, encoder_side=side))
    features = encode_patches(torch.zeros(1, 3, side, side), models)
    assert features.shape == (1, (side // 14) ** 2, 160)
    assert torch.allclose(features, expected, atol=0.05), "half precision costs more than it may"
    assert next(model.parameters()).dtype == torch.float32, "writing must leave the model as it is"


@pytest.mark.usefixtures("small_pictures")
@pytest.mark.thorough
def test_a_run_begins_with_weights_that_are_there(pools, tmp_path):
    begun = encoder.build_encoder()
    encoder.save_encoder(begun, tmp_path)
    trained = encoder.train_encoder(tmp_path / "s.pt", pools, pools["plain"], 1, weights=tmp_path / "dinov2", rate=1e-9)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(tensor, begun.state_dict()[name].half().float(), atol=1e-4, rtol=1e-3)


@pytest.mark.thorough
def test_the_last_steps_show_what_the_model_is_asked(pools, tmp_path, monkeypatch):
    shown = []

    def step_loss(rng, model, slope, pool, shapes):
        shown.append(shapes)
        return sum(parameter.sum() for parameter in model.parameters()) * 0

    monkeypatch.setattr(encoder, "step_loss", step_loss)
    monkeypatch.setattr(encoder, "measure_encoder", lambda *_: {})
    encoder.train_encoder(tmp_path / "s.pt", pools, pools["plain"], 5)
    assert shown == [encoder.SMALL] * 3 + [encoder.LARGE] * 2
    assert max(encoder.LARGE.scenes) == PRESETS["demo"].encoder_side


@pytest.mark.parametrize("shapes", [encoder.SMALL, encoder.LARGE])
@pytest.mark.thorough
def test_a_step_learns_from_scenes_and_crops(pools, shapes):
    model = encoder.build_encoder()
    slope = torch.nn.ParameterDict({"scale": torch.tensor(2.0), "offset": torch.tensor(-4.0)})
    few = replace(shapes, pairs=2, crops=3)
    loss = encoder.step_loss(np.random.default_rng(1), model, slope, pools["plain"], few)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(
        parameter.grad.abs().sum() > 0
        for name, parameter in model.named_parameters()
        if "attention" in name and name.endswith("weight")
    )


def test_contrast_is_lower_for_agreeing_vectors():
    vectors = torch.eye(6, 8)
    tray = torch.eye(8)[6:]
    slope = torch.tensor(2.0), torch.tensor(-4.0)
    agreeing = encoder.contrast(vectors, vectors, tray, *slope)
    shuffled = encoder.contrast(vectors, vectors.roll(1, 0), tray, *slope)
    assert agreeing < shuffled
    some = encoder.contrast(vectors, vectors[[4, 1]], tray, *slope, torch.tensor([4, 1]))
    assert some < encoder.contrast(vectors, vectors[[4, 1]], tray, *slope, torch.tensor([1, 4]))


def test_places_are_weighted_means_at_unit_length():
    features = torch.tensor([[[3.0, 0], [0, 4]], [[1, 1], [5, 5]]])
    pooled = encoder.pool_places(features, [(0, np.array([4, 3], np.float32)), (1, np.array([0, 1], np.float32))])
    torch.testing.assert_close(pooled, torch.tensor([[0.5**0.5, 0.5**0.5], [0.5**0.5, 0.5**0.5]]))
