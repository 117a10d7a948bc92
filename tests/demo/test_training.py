"""The demo models' training: a few steps of each, saved, resumed, written, and loaded as the preset loads them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from refseg.candidates.proposing import encode_patches
from refseg.demo import train_encoder, train_segmenter
from refseg.demo.pool import POOL_HW, load_pool
from refseg.demo.train_state import cosine_rate
from refseg.models.loaded import load_models, unload_models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return load_pool(tmp_path_factory.mktemp("pool"), seed=3, num_pairs=8, workers=2)


@pytest.fixture(scope="module")
def held_out(pool):
    """Two of them: to measure on each image costs as much as a step."""
    return replace(pool, images=pool.images[:2], ids=pool.ids[:2])


@pytest.fixture(autouse=True)
def _forget_models():
    yield
    unload_models()


def test_pool_is_drawn_once_and_shows_the_same_families_twice(pool, tmp_path):
    assert pool.images.shape == (8, 2, *POOL_HW, 3)
    assert pool.ids.shape == (8, 2, *POOL_HW)
    again = load_pool(tmp_path, seed=3, num_pairs=8, workers=1)
    assert np.array_equal(again.images, pool.images)
    shared = [set(np.unique(pair[0])) & set(np.unique(pair[1])) - {0} for pair in pool.ids]
    assert all(shared), "each pair must have a family that both scenes show"


def test_segmenter_trains_resumes_and_is_loaded(pool, held_out, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    state = tmp_path / "segmenter.pt"
    model = train_segmenter.train_segmenter(state, pool, held_out, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert torch.load(state, weights_only=True)["step"] == 1
    resumed = train_segmenter.train_segmenter(state, pool, held_out, 2)
    moved = [name for name, tensor in resumed.state_dict().items() if not torch.equal(tensor, before[name])]
    assert any("sam_mask_decoder" in name for name in moved)
    assert any("image_encoder" in name for name in moved)
    assert "recall_50" in caplog.text
    train_segmenter.save_segmenter(resumed, tmp_path)
    loaded = load_models("demo", device="cpu", sam2_path=tmp_path / "sam2.safetensors")
    for name, tensor in loaded.sam2.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name].half().float()), name


def test_segmenter_is_small():
    millions = sum(parameter.numel() for parameter in train_segmenter.build_segmenter().parameters()) / 1e6
    assert millions <= 4


def test_encoder_trains_resumes_and_is_loaded(pool, tmp_path):
    state = tmp_path / "encoder.pt"
    train_encoder.train_encoder(state, pool, pool, 1)
    model = train_encoder.train_encoder(state, pool, pool, 2)
    assert torch.load(state, weights_only=True)["step"] == 2
    assert sum(parameter.numel() for parameter in model.parameters()) <= 4e6
    picture = np.zeros((train_encoder.SIDE, train_encoder.SIDE, 3), np.uint8)
    with torch.inference_mode():
        expected = train_encoder.patch_features(model, [picture])
    train_encoder.save_encoder(model, tmp_path)
    models = load_models("demo", device="cpu", dinov2_path=tmp_path / "dinov2")
    models = replace(models, preset=replace(models.preset, encoder_side=train_encoder.SIDE))
    features = encode_patches(torch.zeros(1, 3, train_encoder.SIDE, train_encoder.SIDE), models)
    assert features.shape == (1, train_encoder.PATCHES**2, 160)
    assert torch.allclose(features, expected, atol=0.05), "half precision costs more than it may"


def test_contrast_is_lower_for_agreeing_vectors():
    vectors = torch.eye(6, 8)
    tray = torch.eye(8)[6:]
    slope = torch.tensor(2.0), torch.tensor(-4.0)
    agreeing = train_encoder.contrast(vectors, vectors, tray, *slope)
    shuffled = train_encoder.contrast(vectors, vectors.roll(1, 0), tray, *slope)
    assert agreeing < shuffled


def test_rate_warms_up_and_falls():
    rates = [cosine_rate(1.0, step, 100, warm_up=10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], abs=0.05)
    assert rates[-1] == pytest.approx(0.03, abs=0.01)
