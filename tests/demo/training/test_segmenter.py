"""A few steps of the segmenter's training: saved, resumed, written, and loaded as the preset loads it."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from refseg.demo.training import segmenter
from refseg.demo.training.segmenter_model import save_segmenter
from refseg.models.loaded import load_models, unload_models

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(segmenter, "QUARTERS_A_STEP", 1)
    monkeypatch.setattr(segmenter, "IMAGES_A_STEP", 1)
    yield
    unload_models()


@pytest.mark.thorough
def test_it_trains_resumes_and_is_loaded(pools, held_out, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    state = tmp_path / "segmenter.pt"
    first = segmenter.train_segmenter(state, pools, held_out, 2, every=1, save_in=tmp_path)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    assert torch.load(state, weights_only=True)["step"] == 2
    resumed = segmenter.train_segmenter(state, pools, held_out, 4, save_in=tmp_path)
    assert torch.load(state, weights_only=True)["step"] == 4
    moved = [name for name, tensor in resumed.state_dict().items() if not torch.equal(tensor, before[name])]
    assert any("sam_mask_decoder" in name for name in moved)
    assert any("image_encoder" in name for name in moved)
    assert "recall_75" in caplog.text
    loaded = load_models("demo", device="cpu", sam2_path=tmp_path / "sam2.safetensors")
    for name, tensor in loaded.segmenter.sam2.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name].half().float()), name


@pytest.mark.thorough
def test_a_run_begins_with_weights_that_are_there(pools, held_out, tmp_path):
    begun = segmenter.build_segmenter()
    save_segmenter(begun, tmp_path)
    trained = segmenter.train_segmenter(
        tmp_path / "state.pt", pools, held_out, 1, weights=tmp_path / "sam2.safetensors", rate=1e-9
    )
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(tensor, begun.state_dict()[name].half().float(), atol=1e-4, rtol=1e-3)


@pytest.mark.thorough
def test_a_stopped_run_ends_where_a_whole_one_does(pools, held_out, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "measure_segmenter", lambda *_: {})
    whole = segmenter.train_segmenter(tmp_path / "whole.pt", pools, held_out, 3, every=1)
    halves = torch.load(tmp_path / "whole.pt", weights_only=True)
    assert halves["step"] == 3

    measured = []

    def measure(model, pool):
        measured.append(1)
        if len(measured) == 3:  # after the save of step 2
            raise KeyboardInterrupt
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "measure_segmenter", measure)
        with pytest.raises(KeyboardInterrupt):
            segmenter.train_segmenter(tmp_path / "stopped.pt", pools, held_out, 3, every=1)
    resumed = segmenter.train_segmenter(tmp_path / "stopped.pt", pools, held_out, 3, every=1)
    for name, tensor in resumed.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], msg=name)


@pytest.fixture
def held_out(pools):
    """One draw: to measure on an image costs as much as a step."""
    plain = pools["plain"]
    return replace(plain, images=plain.images[:1], ids=plain.ids[:1])
