"""Weights: found here or downloaded, and read as nothing but tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from refseg.errors import ModelUnavailableError, UnsafeCheckpointError
from refseg.models.loaded import PRESETS, load_models
from refseg.models.weights import find_dinov2_folder, find_segmenter, missing_weights, read_checkpoint, wrong_weights

TENSORS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}


class Payload:
    """Unpickled by a careless reader it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


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
        assert find_segmenter(PRESETS["tiny"], str(tmp_path / "a.pt")) == tmp_path / "a.pt"

    def test_a_missing_local_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailableError, match=r"There is no SAM 2 checkpoint at .*a\.pt: give the path of a \.pt"):
            find_segmenter(PRESETS["tiny"], tmp_path / "a.pt")
        with pytest.raises(ModelUnavailableError, match="There is no SAM 2 checkpoint"):
            find_segmenter(PRESETS["tiny"], tmp_path)

    def test_an_incomplete_local_folder_is_told_what_it_lacks(self, tmp_path: Path) -> None:
        with pytest.raises(ModelUnavailableError, match=r"lacks config\.json and model\.safetensors: give a folder written by"):
            find_dinov2_folder(PRESETS["tiny"], tmp_path)
        (tmp_path / "config.json").touch()
        with pytest.raises(ModelUnavailableError, match=r"lacks model\.safetensors"):
            find_dinov2_folder(PRESETS["tiny"], tmp_path)
        (tmp_path / "model.safetensors").touch()
        assert find_dinov2_folder(PRESETS["tiny"], str(tmp_path)) == tmp_path

    def test_demo_needs_no_network(self, offline: list[str]) -> None:
        assert find_segmenter(PRESETS["demo"], None).is_file()
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
