"""Random models: of the real sizes, the same each time, and keeping the share that is asked for."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from packaging.version import Version

from benchmarks.baseline import propose_as_published
from benchmarks.candidate_ways import PRESET_NAMES
from benchmarks.random_models import _make_dinov2, ask_at, copy_models, draw_pixels, make_random_models, set_kept_share
from refseg.models.loaded import PRESETS
from refseg.models.segmenters import make_sam2


@pytest.mark.skipif(Version(torch.__version__) < Version("2.6"), reason="older ones build no SAM 2 without memory")
@pytest.mark.parametrize("name", [name for name in PRESET_NAMES if name != "demo"])
def test_sizes_are_those_of_the_downloads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS[name]
    # Of these numbers SAM 2 asks the values while it is made.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        megabytes = [
            4e-6 * sum(part.numel() for part in model.parameters()) for model in (make_sam2(preset), _make_dinov2(preset))
        ]
    # A checkpoint holds a little besides the parameters.
    assert megabytes == pytest.approx([preset.sam2_megabytes, preset.dinov2_megabytes], rel=0.005)


def test_same_seed_same_weights_and_nothing_else_is_seeded() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (make_random_models("demo", device="cpu", seed=seed, kept_share=None) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for part in ("segmenter", "dinov2"):
        weights = [next(iter(getattr(models, part).parameters())) for models in (first, second, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
    assert first.revisions != other.revisions


@pytest.mark.thorough
def test_kept_share_is_about_what_was_asked_for() -> None:
    models = ask_at(make_random_models("demo", device="cpu", kept_share=None), 8)
    pixels = draw_pixels(1, models.segmenter_side, seed=3)
    untouched = propose_as_published(pixels[0], ask_at(models, 3))
    assert len(untouched) == 9
    assert (untouched.predicted_iou - 0.5).abs().max() < 0.1
    for share in (0.2, 0.6):
        set_kept_share(models, share, pixels)
        kept = propose_as_published(pixels[0], models)
        assert len(kept) / 64 == pytest.approx(share, abs=0.15)
        assert kept.predicted_iou.std() > 0.03
        assert 0.01 < kept.masks.float().mean() < 0.99


def test_copies_share_nothing() -> None:
    models = make_random_models("demo", device="cpu", kept_share=None)
    copied = copy_models(models, dtype=torch.bfloat16)
    assert (copied.dtype, models.dtype) == (torch.bfloat16, torch.float32)
    assert next(iter(copied.segmenter.parameters())).dtype == torch.bfloat16
    assert next(iter(models.segmenter.parameters())).dtype == torch.float32
