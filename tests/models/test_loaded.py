from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import refseg.models.loaded as models_module
from refseg.candidates.decoding import decode_points
from refseg.candidates.embedding import embed_images
from refseg.candidates.proposing import encode_patches
from refseg.errors import UnknownModelError, UnsafeCheckpointError
from refseg.models.loaded import PRESETS, default_dtype, get_preset, load_models, unload_models
from refseg.models.presets import DEMO_WEIGHTS

TENSORS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


def build_sam2_tiny() -> torch.nn.Module:
    """SAM 2.1-tiny as the sam2 package builds it, with random weights."""
    import sam2
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.load(Path(sam2.__path__[0]) / PRESETS["tiny"].sam2_config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: torch.nn.Module = instantiate(config.model, _recursive_=True)
    return model


class TestLoad:
    def test_demo(self) -> None:
        models = load_models("demo", device="cpu")
        assert (models.segmenter_side, models.grid_side, models.patches_side) == (320, 80, 32)
        assert models.feature_width == models.dinov2.config.hidden_size
        assert (models.device, models.dtype) == (torch.device("cpu"), torch.float32)
        for model in (models.segmenter, models.dinov2):
            assert not model.training
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
            assert sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
        assert set(models.revisions) == {"sam2", "dinov2"}

    def test_weights_are_the_files(self) -> None:
        models = load_models("demo", device="cpu")
        stored = load_file(DEMO_WEIGHTS / "sam2.safetensors")
        loaded = models.segmenter.sam2.state_dict()
        assert stored.keys() == loaded.keys()
        assert all(torch.equal(stored[name].float(), loaded[name]) for name in stored)

    def test_fingerprint_is_the_encoders(self) -> None:
        models = load_models("demo", device="cpu")
        assert len(models.fingerprint) == 12
        assert int(models.fingerprint, 16) >= 0
        other_segmenter = replace(models, revisions={**models.revisions, "sam2": "0"})
        other_encoder = replace(models, revisions={**models.revisions, "dinov2": "0"})
        other_side = replace(models, preset=replace(models.preset, encoder_side=238))
        assert other_segmenter.fingerprint == models.fingerprint
        assert len({models.fingerprint, other_encoder.fingerprint, other_side.fingerprint}) == 3

    def test_unknown_name(self) -> None:
        with pytest.raises(UnknownModelError, match="'giant'"):
            load_models("giant")

    def test_loaded_once_by_two_threads(self) -> None:
        unload_models()
        together = threading.Barrier(2)
        found: list[object] = []

        def load() -> None:
            together.wait()
            found.append(load_models("demo", device="cpu"))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 2
        assert found[0] is found[1] is load_models("demo", device="cpu")

    def test_unload_forgets(self) -> None:
        first = load_models("demo", device="cpu")
        unload_models()
        assert models_module._loaded == {}
        assert load_models("demo", device="cpu") is not first

    def test_dtype_and_files_are_kept_apart(self, tmp_path: Path) -> None:
        first = load_models("demo", device="cpu")
        half = load_models("demo", device="cpu", dtype=torch.bfloat16)
        assert half is not first
        assert {parameter.dtype for parameter in half.segmenter.parameters()} == {torch.bfloat16}
        assert {parameter.dtype for parameter in first.segmenter.parameters()} == {torch.float32}
        copy = tmp_path / "copy.safetensors"
        copy.write_bytes((DEMO_WEIGHTS / "sam2.safetensors").read_bytes())
        other = load_models("demo", device="cpu", sam2_path=copy)
        assert other is not first
        assert other.revisions == first.revisions
        unload_models()

    def test_segmenter_of_another_model_is_refused_by_name(self, tmp_path: Path) -> None:
        save_file(TENSORS, tmp_path / "other.safetensors")
        with pytest.raises(
            UnsafeCheckpointError, match=r"other\.safetensors belongs to another model than this preset's: Missing"
        ):
            load_models("demo", device="cpu", sam2_path=tmp_path / "other.safetensors")

    def test_segmenter_with_one_tensor_of_another_shape(self, tmp_path: Path) -> None:
        tensors = load_file(DEMO_WEIGHTS / "sam2.safetensors")
        name = next(iter(tensors))
        save_file({**tensors, name: torch.zeros(3, 5, 7)}, tmp_path / "other.safetensors")
        with pytest.raises(UnsafeCheckpointError, match=f"size mismatch for {name}"):
            load_models("demo", device="cpu", sam2_path=tmp_path / "other.safetensors")

    @pytest.mark.parametrize("change", ["lacks", "adds", "shape", "damaged", "config"])
    def test_encoder_of_another_model_is_refused(self, tmp_path: Path, change: str) -> None:
        source = DEMO_WEIGHTS / "dinov2"
        tensors = load_file(source / "model.safetensors")
        config = (source / "config.json").read_text()
        if change == "lacks":
            del tensors["layernorm.weight"]
        elif change == "adds":
            tensors["head.weight"] = torch.zeros(3)
        elif change == "shape":
            tensors["layernorm.weight"] = torch.zeros(3)
        elif change == "config":
            config = "{"
        (tmp_path / "config.json").write_text(config)
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        if change == "damaged":
            (tmp_path / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:5000])
        names = {"lacks": "layernorm.weight", "adds": "head.weight"}
        with pytest.raises(UnsafeCheckpointError, match=names.get(change, "does not hold a DINOv2")):
            load_models("demo", device="cpu", dinov2_path=tmp_path)


@pytest.mark.slow
class TestOfficialLayouts:
    """Random weights in the layouts the publishers use: what a download brings, without the download."""

    @pytest.mark.thorough
    def test_tiny_loads_and_runs(self, tmp_path: Path) -> None:
        from transformers import Dinov2Config, Dinov2Model

        torch.save({"model": build_sam2_tiny().state_dict()}, tmp_path / "sam2.1_hiera_tiny.pt")
        # facebook/dinov2-small by its own config.json; image_size is that of its position embeddings.
        config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
        Dinov2Model(config).save_pretrained(tmp_path / "dinov2-small")

        models = load_models(
            "tiny", device="cpu", sam2_path=tmp_path / "sam2.1_hiera_tiny.pt", dinov2_path=tmp_path / "dinov2-small"
        )
        try:
            assert (models.segmenter_side, models.grid_side, models.patches_side, models.feature_width) == (1024, 256, 37, 384)
            generator = torch.Generator().manual_seed(0)
            patches = encode_patches(torch.rand(1, 3, 518, 518, generator=generator), models)
            assert patches.shape == (1, 37 * 37, 384)
            embeddings = embed_images(torch.rand(1, 3, 1024, 1024, generator=generator), models)
            assert embeddings.coarse.shape == (1, 256, 64, 64)
            points = torch.tensor([[100.0, 100.0], [900.0, 100.0], [512.0, 512.0], [0.0, 1023.0]])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -float("inf"))
                logits, predicted = decode_points(points, embeddings, 0, models)
            assert logits.shape == (4, 256, 256)
            assert predicted.shape == (4,)
            assert bool(patches.isfinite().all() and logits.isfinite().all() and predicted.isfinite().all())
        finally:
            unload_models()

    def test_another_size_is_refused_by_name(self, tmp_path: Path) -> None:
        torch.save({"model": build_sam2_tiny().state_dict()}, tmp_path / "sam2.1_hiera_tiny.pt")
        dinov2 = DEMO_WEIGHTS / "dinov2"
        with pytest.raises(UnsafeCheckpointError, match=r"sam2.1_hiera_tiny\.pt belongs to another model than this preset's"):
            load_models("small", device="cpu", sam2_path=tmp_path / "sam2.1_hiera_tiny.pt", dinov2_path=dinov2)


class TestFastPresets:
    @pytest.fixture
    def cpu_computes(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bool]], None]]:
        yield lambda found: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
        unload_models()

    @pytest.mark.parametrize(
        ("name", "found"), [("demo-fast", torch.bfloat16), ("demo", torch.float32), ("paper", torch.float32)]
    )
    def test_dtype_where_the_processor_computes_bfloat16(self, cpu_computes: Any, name: str, found: torch.dtype) -> None:
        cpu_computes({"avx2": True, "avx512_bf16": True})
        assert default_dtype(get_preset(name), torch.device("cpu")) == found

    def test_dtype_where_it_does_not(self, cpu_computes: Any) -> None:
        cpu_computes({"avx2": True, "avx512_bf16": False})
        assert default_dtype(get_preset("demo-fast"), torch.device("cpu")) == torch.float32

    @pytest.mark.parametrize(
        ("name", "found"), [("large-fast", torch.bfloat16), ("large", torch.bfloat16), ("paper", torch.float32)]
    )
    def test_dtype_on_cuda(self, name: str, found: torch.dtype) -> None:
        assert default_dtype(get_preset(name), torch.device("cuda")) == found

    def test_share_weights_and_lock_with_the_exact_preset(self, cpu_computes: Any) -> None:
        cpu_computes({"avx512_bf16": False})
        exact, fast = load_models("demo", device="cpu"), load_models("demo-fast", device="cpu")
        assert fast.segmenter is exact.segmenter
        assert fast.dinov2 is exact.dinov2
        assert fast.lock is exact.lock
        assert (fast.preset.name, fast.preset.adaptive_prompts) == ("demo-fast", True)
        assert fast.fingerprint == exact.fingerprint
        assert load_models("demo-fast", device="cpu") is fast


def test_positions_of_clicks_stay_in_float32() -> None:
    half = load_models("demo", device="cpu", dtype=torch.bfloat16)
    plain = load_models("demo", device="cpu", dtype=torch.float32)
    found, expected = (models.segmenter.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix for models in (half, plain))
    assert torch.equal(found, expected)
    unload_models()
