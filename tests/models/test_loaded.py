from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import refseg.models.loaded as models_module
from refseg.candidates.decoding import decode_points, embed_images
from refseg.candidates.proposing import encode_patches
from refseg.errors import ModelUnavailableError, UnknownModelError, UnsafeCheckpointError
from refseg.models.loaded import PRESETS, default_dtype, get_preset, load_models, unload_models
from refseg.models.presets import DEMO_WEIGHTS
from refseg.models.weights import find_dinov2_folder, find_sam2_checkpoint, missing_weights, read_checkpoint, wrong_weights

TENSORS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


class Payload:
    """Unpickled by a careless reader it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No name but this machine's own is found; returns the names that were looked up."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def refuse(host: Any, *rest: Any, **options: Any) -> Any:
        if host in (None, "localhost", "127.0.0.1", "::1"):  # FiftyOne's database
            return look_up(host, *rest, **options)
        asked.append(str(host))
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


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


class TestReadCheckpoint:
    def assert_same(self, found: dict[str, Tensor]) -> None:
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)

    @pytest.mark.parametrize("content", [{"model": TENSORS}, TENSORS])
    def test_torch(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "a.pt")
        self.assert_same(read_checkpoint(tmp_path / "a.pt"))

    def test_older_torch(self, tmp_path: Path) -> None:
        torch.save({"model": TENSORS}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
        self.assert_same(read_checkpoint(tmp_path / "a.pt"))

    def test_safetensors(self, tmp_path: Path) -> None:
        save_file(TENSORS, tmp_path / "a.safetensors")
        self.assert_same(read_checkpoint(tmp_path / "a.safetensors"))

    @pytest.mark.parametrize("older", [False, True])
    def test_a_pickled_object_is_refused_and_never_runs(self, tmp_path: Path, older: bool) -> None:
        torch.save(
            {"model": TENSORS, "extra": Payload(tmp_path / "ran")}, tmp_path / "a.pt", _use_new_zipfile_serialization=not older
        )
        with pytest.raises(
            UnsafeCheckpointError, match="holds more than tensors and was not opened: use a checkpoint from its"
        ):
            read_checkpoint(tmp_path / "a.pt")
        assert not (tmp_path / "ran").exists()
        # The payload is live: a careless reader runs it.
        torch.load(tmp_path / "a.pt", weights_only=False)
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "content",
        [
            {"model": {**TENSORS, "epoch": 3}},
            {"model": TENSORS, "epoch": 3},
            {**TENSORS, "name": "sam2"},
            {"model": {"deeper": TENSORS}},
            {"model": [TENSORS["layer.bias"]]},
            {"model": {}},
            {},
            [TENSORS["layer.bias"]],
            TENSORS["layer.bias"],
            None,
        ],
    )
    def test_anything_but_named_tensors_is_refused(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UnsafeCheckpointError, match=r"holds more than tensors and was refused: .* dictionary of tensors"):
            read_checkpoint(tmp_path / "a.pt")

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_truncated_file_is_refused(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = tmp_path / f"a{suffix}"
        if suffix == ".pt":
            torch.save({"model": TENSORS}, path)
        else:
            save_file(TENSORS, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnsafeCheckpointError, match=r"is not a complete .*: get it again"):
            read_checkpoint(path)

    @pytest.mark.parametrize("text", [b"<html>Not Found</html>", b"hello world", b"version https://git-lfs.github.com/spec/v1"])
    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_text_is_refused(self, tmp_path: Path, text: bytes, suffix: str) -> None:
        """What a failed download leaves: an error page, a pointer."""
        (tmp_path / f"a{suffix}").write_bytes(text)
        with pytest.raises(UnsafeCheckpointError):
            read_checkpoint(tmp_path / f"a{suffix}")


class TestFind:
    def test_a_local_checkpoint_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "a.pt").touch()
        assert find_sam2_checkpoint(PRESETS["tiny"], str(tmp_path / "a.pt")) == tmp_path / "a.pt"

    def test_a_missing_local_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailableError, match=r"There is no SAM 2 checkpoint at .*a\.pt: give the path of a \.pt"):
            find_sam2_checkpoint(PRESETS["tiny"], tmp_path / "a.pt")
        with pytest.raises(ModelUnavailableError, match="There is no SAM 2 checkpoint"):
            find_sam2_checkpoint(PRESETS["tiny"], tmp_path)

    def test_an_incomplete_local_folder_is_told_what_it_lacks(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailableError, match=r"lacks config\.json and model\.safetensors: give a folder written by"):
            find_dinov2_folder(PRESETS["tiny"], tmp_path)
        (tmp_path / "config.json").touch()
        with pytest.raises(ModelUnavailableError, match=r"lacks model\.safetensors"):
            find_dinov2_folder(PRESETS["tiny"], tmp_path)
        (tmp_path / "model.safetensors").touch()
        assert find_dinov2_folder(PRESETS["tiny"], str(tmp_path)) == tmp_path

    def test_demo_needs_no_network(self, offline: list[str]) -> None:
        assert find_sam2_checkpoint(PRESETS["demo"], None).is_file()
        assert (find_dinov2_folder(PRESETS["demo"], None) / "model.safetensors").is_file()
        assert offline == []


class TestOffline:
    def assert_helpful(self, error: ModelUnavailableError, *words: str) -> None:
        message = str(error)
        assert message.endswith("the preset 'demo' needs no download.")
        assert "\n" not in message
        assert message.count(". ") == 0  # one sentence
        for word in ("'tiny'", "not on this machine and could not be downloaded", "connect to the internet once", *words):
            assert word in message

    def test_sam2(self, offline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import fiftyone as fo

        monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path))
        with pytest.raises(ModelUnavailableError) as caught:
            load_models("tiny")
        self.assert_helpful(caught.value, "segment-anything-2.1-hiera-tiny-image-torch", "156 MB", "sam2_path")
        assert len(offline) > 0
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    @pytest.fixture
    def hub_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty cache of the hub's client."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    def test_dinov2(self, offline: list[str], hub_folder: Path, tmp_path: Path) -> None:
        save_file(TENSORS, tmp_path / "sam2.safetensors")
        with pytest.raises(ModelUnavailableError) as caught:
            load_models("tiny", sam2_path=tmp_path / "sam2.safetensors")
        self.assert_helpful(caught.value, "facebook/dinov2-small", "88 MB", "dinov2_path")
        # Asked once: the client's own retries would take 25 seconds.
        assert len(offline) == 1

    def test_what_is_missing_is_said_without_a_download(
        self, offline: list[str], hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fiftyone as fo

        monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "zoo"))
        sam2, dinov2 = missing_weights(PRESETS["tiny"], None, None)
        assert "'segment-anything-2.1-hiera-tiny-image-torch', which is not on this machine yet: 156 MB" in sam2
        assert "facebook/dinov2-small, which is not on this machine yet: 88 MB" in dinov2
        assert wrong_weights(PRESETS["tiny"], None, None) == []
        sam2, dinov2 = wrong_weights(PRESETS["tiny"], tmp_path / "a.pt", tmp_path)
        assert "There is no SAM 2 checkpoint at" in sam2
        assert "lacks config.json" in dinov2
        assert missing_weights(PRESETS["tiny"], tmp_path / "a.pt", tmp_path) == []
        assert missing_weights(PRESETS["demo"], None, None) == []
        folder = hub_folder / "models--facebook--dinov2-small" / "snapshots" / str(PRESETS["tiny"].dinov2_revision)
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        (tmp_path / "a.pt").touch()
        assert len(missing_weights(PRESETS["tiny"], tmp_path / "a.pt", None)) == 1
        (folder / "model.safetensors").touch()
        assert missing_weights(PRESETS["tiny"], tmp_path / "a.pt", None) == []
        assert offline == []

    def test_dinov2_when_the_client_is_told_to_stay_offline(self, hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelUnavailableError) as caught:
            find_dinov2_folder(PRESETS["tiny"], None)
        self.assert_helpful(caught.value, "facebook/dinov2-small")

    def test_dinov2_of_an_earlier_download(self, offline: list[str], hub_folder: Path) -> None:
        preset = PRESETS["tiny"]
        folder = hub_folder / "models--facebook--dinov2-small" / "snapshots" / str(preset.dinov2_revision)
        folder.mkdir(parents=True)
        (folder / "config.json").touch()
        # The download was interrupted after its first file.
        with pytest.raises(ModelUnavailableError):
            find_dinov2_folder(preset, None)
        (folder / "model.safetensors").touch()
        offline.clear()
        assert find_dinov2_folder(preset, None) == folder
        assert offline == []


class TestLoad:
    def test_demo(self) -> None:
        models = load_models("demo", device="cpu")
        assert (models.segmenter_side, models.grid_side, models.patches_side) == (256, 64, 22)
        assert models.feature_width == models.dinov2.config.hidden_size
        assert (models.device, models.dtype) == (torch.device("cpu"), torch.float32)
        for model in (models.sam2, models.dinov2):
            assert not model.training
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
            assert sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
        assert set(models.revisions) == {"sam2", "dinov2"}

    def test_weights_are_the_files(self) -> None:
        models = load_models("demo", device="cpu")
        stored = load_file(DEMO_WEIGHTS / "sam2.safetensors")
        loaded = models.sam2.state_dict()
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
        assert {parameter.dtype for parameter in half.sam2.parameters()} == {torch.bfloat16}
        assert {parameter.dtype for parameter in first.sam2.parameters()} == {torch.float32}
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
        assert fast.sam2 is exact.sam2
        assert fast.dinov2 is exact.dinov2
        assert fast.lock is exact.lock
        assert (fast.preset.name, fast.preset.adaptive_prompts) == ("demo-fast", True)
        assert fast.fingerprint == exact.fingerprint
        assert load_models("demo-fast", device="cpu") is fast


def test_positions_of_clicks_stay_in_float32() -> None:
    half = load_models("demo", device="cpu", dtype=torch.bfloat16)
    plain = load_models("demo", device="cpu", dtype=torch.float32)
    found, expected = (models.sam2.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix for models in (half, plain))
    assert torch.equal(found, expected)
    unload_models()
