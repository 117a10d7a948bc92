"""Segmenters of transformers: RefSeg's answers are theirs, and what is not theirs is refused by a sentence."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from refseg.candidates.clicks import click_decoder
from refseg.candidates.decoding import decode_boxes, decode_points
from refseg.candidates.embedding import ImageEmbeddings, embed_images
from refseg.candidates.prompting import decode_prompt
from refseg.candidates.proposing import propose
from refseg.candidates.tiles import propose_tiles
from refseg.errors import ModelUnavailableError, UnsafeCheckpointError
from refseg.models import pretrained
from refseg.models.loaded import PRESETS, Models, load_models, registered, unload_models
from refseg.models.presets import DEMO_WEIGHTS, Preset
from refseg.models.pretrained import class_of
from refseg.models.segmenters import move_segmenter
from refseg.models.transformers_segmenters import KINDS, read_segmenter
from refseg.models.weights import TIMM, WEIGHTS_FILE, find_segmenter, missing_weights, wrong_weights
from tests.small_segmenters import GRID_SIDE, SIDES, WIDTH, make_model, require_kind, write_folder
from tests.tolerance import assert_near

MEANS = {"sam3_tracker": (0.5, 0.5, 0.5)}
DEVIATIONS = {"sam3_tracker": (0.5, 0.5, 0.5)}
each_kind = pytest.mark.parametrize("kind", KINDS)


def preset_of(kind: str, folder: Path | None = None) -> Preset:
    """A preset of such a segmenter and the demo's encoder."""
    return replace(
        PRESETS["demo"],
        name=f"own-{kind}",
        sam2_config=kind,
        sam2_file=None if folder is None else str(folder),
        points_per_side=4,
        clean_masks=False,
        vote_masks=False,
    )


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of small models, each written once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        require_kind(kind)
        if kind not in made:
            made[kind] = write_folder(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def theirs(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """The models that were written."""

    def model(kind: str) -> Any:
        require_kind(kind)
        return make_model(kind)

    return model


@pytest.fixture(scope="module")
def ours(folder_of: Callable[[str], Path]) -> Callable[[str], Models]:
    """The same as RefSeg reads them, without an encoder."""
    made: dict[str, Models] = {}

    def models(kind: str) -> Models:
        if kind not in made:
            preset = preset_of(kind)
            segmenter = read_segmenter(preset, folder_of(kind)).eval()
            place = torch.device("cpu")
            made[kind] = Models(preset, segmenter, None, place, torch.float32, {}, threading.RLock())
        return made[kind]

    return models


def pixels_for(kind: str, count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIDES[kind], SIDES[kind], generator=torch.Generator().manual_seed(5))


def normal(kind: str, pixels: Tensor) -> Tensor:
    """As the model's image processor hands pixels to it."""
    mean = torch.tensor(MEANS.get(kind, (0.485, 0.456, 0.406)))[:, None, None]
    return (pixels - mean) / torch.tensor(DEVIATIONS.get(kind, (0.229, 0.224, 0.225)))[:, None, None]


def processor_of(kind: str) -> Any:
    """The class that makes pixels for the model in transformers."""
    import transformers

    names = (
        ("Sam3ImageProcessor", "Sam3ImageProcessorFast")
        if kind == "sam3_tracker"
        else ("Sam2ImageProcessor", "Sam2ImageProcessorFast")
    )
    return next(getattr(transformers, name) for name in names if hasattr(transformers, name))


@torch.inference_mode()
def embedded(kind: str, models: Models) -> tuple[ImageEmbeddings, list[Tensor]]:
    """RefSeg's embeddings of two images, and those of the second in the form that transformers takes."""
    found = embed_images(pixels_for(kind), models)
    return found, [found.fine[0][1:], found.fine[1][1:], found.coarse[1:]]


class TestAnswers:
    @each_kind
    def test_sides(self, kind: str, ours: Callable[[str], Models]) -> None:
        models = ours(kind)
        assert (models.segmenter_side, models.grid_side) == (SIDES[kind], GRID_SIDE)

    @each_kind
    def test_pixels_are_normalised_as_their_processor_does(self, kind: str, ours: Callable[[str], Models]) -> None:
        processor = processor_of(kind)
        assert tuple(processor.image_mean) == pytest.approx(MEANS.get(kind, (0.485, 0.456, 0.406)))
        assert tuple(processor.image_std) == pytest.approx(DEVIATIONS.get(kind, (0.229, 0.224, 0.225)))

    @each_kind
    @torch.inference_mode()
    def test_embeddings(self, kind: str, ours: Callable[[str], Models], theirs: Callable[[str], Any]) -> None:
        models = ours(kind)
        finest, finer, coarse = theirs(kind).get_image_embeddings(normal(kind, pixels_for(kind)))
        found = embed_images(pixels_for(kind), models)
        assert_near(found.fine[0], finest, at_most=1e-4)
        assert_near(found.fine[1], finer, at_most=1e-4)
        assert found.coarse.shape == (2, WIDTH, GRID_SIDE // 4, GRID_SIDE // 4)
        if kind == "sam3_tracker":
            # transformers adds it to a fourth level, which it drops; Meta's own predictor adds it to this one.
            coarse = coarse + theirs(kind).no_memory_embedding.reshape(1, -1, 1, 1)
        assert_near(found.coarse, coarse, at_most=1e-4)

    @each_kind
    @torch.inference_mode()
    def test_three_masks_of_a_click(self, kind: str, ours: Callable[[str], Models], theirs: Callable[[str], Any]) -> None:
        models = ours(kind)
        embeddings, levels = embedded(kind, models)
        for x, y in ((3.0, 5.0), (20.0, 41.0), (55.0, 0.0)):
            click = torch.tensor([[x, y]])
            answer = theirs(kind)(
                image_embeddings=levels, input_points=click[None, None], input_labels=torch.ones(1, 1, 1, dtype=torch.int)
            )
            logits, predicted = decode_prompt(click, click[:0], None, embeddings, 1, models)
            order = answer.iou_scores[0, 0].argsort(descending=True)
            assert logits.shape == (3, GRID_SIDE, GRID_SIDE)
            assert_near(logits, answer.pred_masks[0, 0, order], at_most=1e-4)
            assert_near(predicted, answer.iou_scores[0, 0, order], at_most=1e-5)

    @each_kind
    @torch.inference_mode()
    def test_the_grid_of_clicks(self, kind: str, ours: Callable[[str], Models], theirs: Callable[[str], Any]) -> None:
        models = ours(kind)
        embeddings, levels = embedded(kind, models)
        points = torch.rand(9, 2, generator=torch.Generator().manual_seed(1)) * SIDES[kind]
        answer = theirs(kind)(
            image_embeddings=levels, input_points=points[None, :, None], input_labels=torch.ones(1, 9, 1, dtype=torch.int)
        )
        scores, best = answer.iou_scores[0].max(1)
        logits, predicted = decode_points(points, embeddings, 1, models)
        assert_near(logits, answer.pred_masks[0, torch.arange(9), best], at_most=1e-4)
        assert_near(predicted, scores, at_most=1e-5)

    @each_kind
    @torch.inference_mode()
    def test_half_the_side(self, kind: str, ours: Callable[[str], Models]) -> None:
        judge = click_decoder(ours(kind), halved=True)
        embeddings, _ = embedded(kind, ours(kind))
        logits, predicted, _ = judge.decode(torch.tensor([[9.0, 9.0]]), judge.terms_of(embeddings.halved(), 0), 0.0)
        assert logits.shape == (1, GRID_SIDE // 2, GRID_SIDE // 2)
        assert bool(logits.isfinite().all() and predicted.isfinite().all())

    @each_kind
    @torch.inference_mode()
    def test_boxes(self, kind: str, ours: Callable[[str], Models], theirs: Callable[[str], Any]) -> None:
        models = ours(kind)
        embeddings, levels = embedded(kind, models)
        boxes = torch.tensor([[3.0, 4.0, 30.0, 25.0], [10.0, 8.0, 50.0, 55.0]])
        answer = theirs(kind)(image_embeddings=levels, input_boxes=boxes[None], multimask_output=False)
        assert_near(decode_boxes(boxes, embeddings, 1, models), answer.pred_masks[0, :, 0], at_most=1e-4)

    @each_kind
    @torch.inference_mode()
    def test_a_box_and_clicks(self, kind: str, ours: Callable[[str], Models], theirs: Callable[[str], Any]) -> None:
        models = ours(kind)
        embeddings, levels = embedded(kind, models)
        on, beside = torch.tensor([[12.0, 14.0], [20.0, 9.0]]), torch.tensor([[40.0, 41.0]])
        box = torch.tensor([3.0, 4.0, 30.0, 25.0])
        answer = theirs(kind)(
            image_embeddings=levels,
            input_points=torch.cat([on, beside])[None, None],
            input_labels=torch.tensor([[[1, 1, 0]]]),
            input_boxes=box[None, None],
            multimask_output=False,
        )
        logits, predicted = decode_prompt(on, beside, box, embeddings, 1, models)
        assert_near(logits, answer.pred_masks[0, 0], at_most=1e-4)
        assert_near(predicted, answer.iou_scores[0, 0], at_most=1e-5)

    @each_kind
    def test_in_half_precision(self, kind: str, folder_of: Callable[[str], Path]) -> None:
        segmenter = read_segmenter(preset_of(kind), folder_of(kind)).eval()
        frequencies = segmenter.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.clone()  # type: ignore[union-attr, operator]
        half = move_segmenter(segmenter, torch.device("cpu"), torch.bfloat16)
        assert torch.equal(half.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, frequencies)
        with torch.inference_mode():
            coarse, fine = half.embed(pixels_for(kind))
        assert {level.dtype for level in (coarse, *fine)} == {torch.bfloat16}


class TestPresets:
    @each_kind
    @pytest.mark.thorough
    def test_a_registered_preset_proposes(self, kind: str, folder_of: Callable[[str], Path]) -> None:
        exact = preset_of(kind, folder_of(kind))
        fast = replace(exact, name=f"{exact.name}-fast", adaptive_prompts=True)
        image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 300, 3), np.uint8))
        with registered(exact, fast):
            for name in (exact.name, fast.name):
                models = load_models(name, device="cpu", dtype=torch.float32)
                (found,) = propose([image], models)
                assert len(found) > 0
                assert (found.grid_side, found.image_hw) == (GRID_SIDE, (40, 300))
            tiled = propose_tiles(image, models)
            # A cell has four pixels of the image, whatever the segmenter shrinks its tiles to.
            assert tiled.grid_side == 300 // 4
            assert load_models(exact.name, device="cpu").revisions.keys() == {"sam2", "dinov2"}
        unload_models()

    @each_kind
    def test_a_path_comes_before_the_presets_folder(self, kind: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
        folder = folder_of(kind)
        assert find_segmenter(preset_of(kind, tmp_path), folder) == find_segmenter(preset_of(kind, folder), None) == folder
        (sentence,) = wrong_weights(preset_of(kind, tmp_path), None, None)
        assert sentence == (
            f"The segmenter folder {tmp_path} lacks config.json and model.safetensors: give a folder written by "
            "save_pretrained."
        )


@pytest.fixture
def copy_of(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A folder that may be changed."""
    return lambda kind: Path(shutil.copytree(folder_of(kind), tmp_path / kind))


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(edit(described) or described))


def edit_tensors(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


class TestFolders:
    def assert_refused(self, kind: str, folder: Path, match: str) -> None:
        with pytest.raises(UnsafeCheckpointError, match=match) as caught:
            read_segmenter(preset_of(kind), folder)
        assert str(folder) in str(caught.value)

    @each_kind
    def test_another_model_is_refused_by_name(self, kind: str, folder_of: Callable[[str], Path]) -> None:
        folder_of(kind)
        self.assert_refused(kind, DEMO_WEIGHTS / "dinov2", "its config.json says 'dinov2'")

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": 7}'])
    def test_no_configuration(self, text: str, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("sam2")
        (folder / "config.json").write_text(text)
        self.assert_refused("sam2", folder, "config.json")

    @each_kind
    def test_a_tensor_that_is_missing_or_of_another_shape(self, kind: str, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of(kind)
        edit_tensors(folder, lambda tensors: tensors.pop(next(name for name in tensors if name.endswith("iou_token.weight"))))
        self.assert_refused(kind, folder, "it lacks 'mask_decoder.iou_token.weight'")

        def reshape(tensors: dict[str, Tensor]) -> None:
            prefix = "tracker_model." if any(name.startswith("tracker_model.") for name in tensors) else ""
            tensors[f"{prefix}mask_decoder.iou_token.weight"] = torch.zeros(3, 5)

        edit_tensors(folder, reshape)
        self.assert_refused(kind, folder, "does not hold")

    def test_damaged(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("sam2")
        (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:5000])
        self.assert_refused("sam2", folder, "does not hold a SAM 2 that can be read")

    def test_positions_in_two_ways_are_refused_and_once_is_enough(self, copy_of: Callable[[str], Path]) -> None:
        folder, name = copy_of("sam2"), "shared_image_embedding.positional_embedding"
        edit_tensors(folder, lambda tensors: tensors[name].add_(1))
        self.assert_refused("sam2", folder, "encodes positions of images and of clicks in two ways")
        edit_tensors(folder, lambda tensors: tensors.pop(name))
        whole = load_file(folder / WEIGHTS_FILE)["prompt_encoder.shared_embedding.positional_embedding"]
        segmenter: Any = read_segmenter(preset_of("sam2"), folder)
        assert torch.equal(segmenter.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, whole)

    def test_a_decoder_of_other_layers(self, copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("sam2")
        edit_config(folder, lambda config: config["mask_decoder_config"].update(iou_head_depth=4))
        self.assert_refused("sam2", folder, "it lacks 'mask_decoder.iou_prediction_head.layers.1.bias'")

    @pytest.mark.parametrize(
        "change",
        [
            {"model_args": {"features_only": True, "checkpoint_path": "weights.pth"}},
            {"architecture": "hf-hub:somebody/model"},
            {"model_type": "resnet"},
        ],
    )
    def test_what_timm_might_unpickle_or_fetch_is_refused(self, change: dict[str, Any], copy_of: Callable[[str], Path]) -> None:
        folder = copy_of("edgetam")
        edit_config(folder, lambda config: config["vision_config"]["backbone_config"].update(change))
        self.assert_refused("edgetam", folder, "its image encoder is another")

    def test_the_whole_video_model_of_sam3(self, copy_of: Callable[[str], Path], ours: Callable[[str], Models]) -> None:
        """As facebook/sam3 is laid out: the tracker beside a detector, both under names of their own."""
        folder = copy_of("sam3_tracker")
        assert {name.partition(".")[0] for name in load_file(folder / WEIGHTS_FILE)} <= {
            "tracker_model",
            "tracker_neck",
            "detector_model",
        }
        edit_tensors(
            folder,
            lambda tensors: tensors.update(
                {
                    "detector_model.detr_decoder.query_embed.weight": torch.zeros(3, 5),
                    "tracker_model.memory_attention.layer_norm.weight": torch.zeros(3),
                    "tracker_model.no_object_pointer": torch.zeros(1, 3),
                }
            ),
        )

        def as_video(config: dict[str, Any]) -> dict[str, Any]:
            own = {**config, "model_type": "sam3_tracker_video"}
            return {"model_type": "sam3_video", "detector_config": {"model_type": "sam3"}, "tracker_config": own}

        edit_config(folder, as_video)
        segmenter: Any = read_segmenter(preset_of("sam3_tracker"), folder)
        expected: Any = ours("sam3_tracker").segmenter
        for name, tensor in segmenter.state_dict().items():
            assert torch.equal(tensor, expected.state_dict()[name]), name

    def test_without_timm(self, offline: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "timm" else find(name, *rest))
        with pytest.raises(ModelUnavailableError) as caught:
            load_models("edge")
        (sentence,) = wrong_weights(PRESETS["edge"], None, None)
        assert offline == []  # nothing is downloaded that would be of no use
        assert str(caught.value) == sentence
        assert sentence == (
            f"The preset 'edge' needs the package timm, which is not installed: type `pip install \"{TIMM}\"`, "
            "or install fiftyone-refseg[edge]."
        )

    def test_with_an_older_transformers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        older = SimpleNamespace(__version__="4.56.0")
        monkeypatch.setattr(pretrained.importlib, "import_module", lambda _: older)
        with pytest.raises(ModelUnavailableError, match=r"SAM 3 needs a later transformers than 4\.56\.0: type `pip install"):
            class_of("Sam3TrackerModel", "SAM 3")


class TestDownload:
    @pytest.fixture(autouse=True)
    def hub_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """An empty cache of the hub's client."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    @pytest.mark.parametrize(
        ("name", "repository", "size"), [("edge", "yonigozlan/EdgeTAM-hf", "56 MB"), ("sam3-fast", "facebook/sam3", "3440 MB")]
    )
    def test_offline(self, name: str, repository: str, size: str, offline: list[str]) -> None:
        with pytest.raises(ModelUnavailableError) as caught:
            load_models(name)
        message = str(caught.value)
        assert message.startswith(
            f"The preset {PRESETS[name].exact_name!r} needs {repository} ({size}), which is not on this machine and could not"
        )
        assert message.endswith("or give a local folder as sam2_path; the preset 'demo' needs no download.")
        assert len(offline) == 1  # asked once

    def test_what_is_missing_is_said(self, offline: list[str]) -> None:
        edge, _ = missing_weights(PRESETS["edge"], None, None)
        assert edge.endswith("EdgeTAM-hf, which is not on this machine yet: 56 MB are to be downloaded.")
        sam3, dinov2 = missing_weights(PRESETS["sam3"], None, None)
        assert sam3.endswith(
            "3440 MB are to be downloaded, once you accept Meta's SAM License at https://huggingface.co/facebook/sam3 and log "
            "in with `hf auth login`."
        )
        assert "facebook/dinov2-large" in dinov2
        assert missing_weights(PRESETS["sam3"], "/a/folder", "/another") == []
        assert offline == []

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_gated_model_says_what_to_do(self, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub
        from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

        def refuse(*_: Any, **options: Any) -> str:
            if options.get("local_files_only"):
                raise LocalEntryNotFoundError("nothing here")
            response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
            try:
                raise GatedRepoError("Access to model facebook/sam3 is restricted", response=response)
            except GatedRepoError as error:
                raise LocalEntryNotFoundError("an error happened while trying to locate the files on the Hub") from error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=lambda *_, **__: None))
        with pytest.raises(ModelUnavailableError) as caught:
            find_segmenter(PRESETS["sam3"], None)
        assert str(caught.value) == (
            "The preset 'sam3' needs facebook/sam3 (3440 MB), which is given only to whom the hub knows: accept Meta's SAM "
            "License at https://huggingface.co/facebook/sam3 and log in with `hf auth login`."
        )
        # Whatever the hub's reason, nobody has to accept anything for this one.
        with pytest.raises(ModelUnavailableError, match="could not be downloaded"):
            find_segmenter(PRESETS["edge"], None)

    def test_an_earlier_download_is_taken(self, offline: list[str], hub_folder: Path) -> None:
        repository = hub_folder / "models--yonigozlan--EdgeTAM-hf"
        folder = repository / "snapshots" / ("a" * 40)
        folder.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
        for name in ("config.json", WEIGHTS_FILE):
            (folder / name).touch()
        assert find_segmenter(PRESETS["edge"], None) == folder
        assert offline == []
