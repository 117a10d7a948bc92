from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

import refseg
import refseg.candidates.proposing
import refseg.candidates.tiles
from refseg.candidates.packing import PackedCandidates
from refseg.candidates.prompts import prompt_grid
from refseg.candidates.proposing import Candidates
from refseg.cli import main
from refseg.coco.average_precision import evaluate_results
from refseg.coco.files import read_coco
from refseg.coco.frames import turned_boxes
from refseg.coco.images import scan
from refseg.coco.job import CocoJob
from refseg.demo.dataset import SEED
from refseg.demo.world import Scene, draw_family, render_scene
from refseg.errors import CocoError
from refseg.images.reading import read_image, segmenter_pixels
from refseg.masks.rle import annotation_rle, decode_mask
from refseg.matching.settings import PUBLISHED, MatchSettings, settings_for
from refseg.models.loaded import PRESETS, Models, load_models
from refseg.printing import counted
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import image_key
from tests.insight.angles import make_prototypes as make_angled
from tests.pipes import WatchedPipe
from tests.trays import candidates_of

CLASSES = ("star", "tee")
NUM_IMAGES = 4
BOX_ONLY = ["bbox"]
Run = Callable[..., int]


def compressed(mask: np.ndarray) -> dict[str, Any]:
    code = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    values = np.concatenate([[False], mask.T.flatten()])
    edges = np.flatnonzero(values[1:] != values[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *edges, mask.size]).tolist()}


def polygon(mask: np.ndarray) -> list[list[int]]:
    """The outline's leftmost and rightmost pixels of each row: right for parts without notches, near enough for others."""
    rows = mask.any(1).nonzero()[0]
    left = [(int(mask[y].argmax()), int(y)) for y in rows]
    right = [(mask.shape[1] - int(mask[y, ::-1].argmax()), int(y) + 1) for y in rows]
    return [[value for point in [*left, *right[::-1]] for value in point]]


def annotate(scenes: list[Scene]) -> dict[str, Any]:
    """A COCO file of all objects; masks in the three forms by turns."""
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        for mask, family in zip(scene.masks, scene.families, strict=True):
            ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            box = [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
            form = (polygon, compressed, uncompressed)[len(annotations) % 3]
            about = {"id": len(annotations), "image_id": 10 + number, "category_id": 1 + family % 2, "iscrowd": 0}
            annotations.append({**about, "bbox": box, "area": int(mask.sum()), "segmentation": form(mask)})
    height, width = scenes[0].ids.shape
    return {
        "images": [{"id": 10 + n, "file_name": f"sub/{n}.png", "height": height, "width": width} for n in range(len(scenes))],
        "categories": [{"id": 1 + row, "name": name} for row, name in enumerate(CLASSES)],
        "annotations": annotations,
    }


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of images and the COCO content of all their objects."""
    rng = np.random.default_rng(4)
    families = [draw_family(rng, [name]) for name in CLASSES] * 2
    drawn = [render_scene(rng, families, (120, 160), radius=(0.1, 0.14), max_overlap=0.0) for _ in range(NUM_IMAGES)]
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    for number, scene in enumerate(drawn):
        Image.fromarray(scene.image).save(folder / "sub" / f"{number}.png")
    return folder, annotate(drawn)


@pytest.fixture
def content(scenes: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """A copy of the COCO content, to be changed."""
    copy: dict[str, Any] = json.loads(json.dumps(scenes[1]))
    return copy


@pytest.fixture
def run(scenes: tuple[Path, dict[str, Any]], content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `refseg coco` in this process, on the content as it is by then; a dictionary as argument becomes a file."""
    # Formats are tested here, not the models: each of a few prompts gives a candidate, whatever the segmenter thinks of it.
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1.0)
    monkeypatch.setattr("refseg.candidates.decoding.prompt_grid", lambda per_side, side: prompt_grid(5, side))

    def call(*more: str, references: Any = None, targets: Any = None, images: Path | None = None) -> int:
        arguments = ["coco", "--images", str(images or scenes[0]), "--model", "demo", "--out", str(tmp_path / "results.json")]
        for name, value in (("references", references or content), ("targets", targets)):
            if isinstance(value, dict):
                (tmp_path / f"{name}.json").write_text(json.dumps(value))
                value = tmp_path / f"{name}.json"
            if value is not None:
                arguments += [f"--{name}", str(value)]
        return main([*arguments, "--workers", "0", "--quiet", *more])

    return call


def loaded(tmp_path: Path, listing: Any) -> Any:
    """The results as pycocotools loads them."""
    (tmp_path / "index.json").write_text(json.dumps(listing))
    return COCO(str(tmp_path / "index.json")).loadRes(str(tmp_path / "results.json"))


def test_a_folder_without_targets(
    run: Run, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, told = tmp_path / "made" / "p.safetensors", tmp_path / "told.json"
    assert run("--min-score", "0", "--prototypes", str(saved), "--report", str(told)) == 0
    out, err = capsys.readouterr()
    listing = json.loads((tmp_path / "results.images.json").read_text())
    expected = [{"id": n + 1, "file_name": f"sub/{n}.png", "height": 120, "width": 160} for n in range(NUM_IMAGES)]
    assert listing["images"] == expected
    assert listing["categories"] == content["categories"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert f"{len(results)} instances in {NUM_IMAGES} images" in out
    assert err == ""
    index = loaded(tmp_path, listing)
    for result in index.dataset["annotations"]:
        # The box is tight around the mask, in whole-image pixels.
        assert result["segmentation"]["size"] == [120, 160]
        assert mask_utils.toBbox(result["segmentation"]).tolist() == result["bbox"]
        assert 0 <= result["score"] <= 1
        assert result["category_id"] in (1, 2)
    assert {result["image_id"] for result in results} <= {1, 2, 3, 4}
    assert Prototypes.load(saved).classes == CLASSES
    report = json.loads(told.read_text())
    assert (report["num_images"], report["num_instances"], report["model"]) == (NUM_IMAGES, len(results), "demo")
    assert sum(report["shots"].values()) == len(content["annotations"])
    assert (report["mask"], report["box"], report["skipped_images"]) == (None, None, [])


def test_targets_keep_their_ids_and_are_scored(
    run: Run,
    content: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    references = json.loads(json.dumps(content))
    references["annotations"] = [
        {key: value for key, value in a.items() if key != "segmentation"}
        for a in references["annotations"]
        if a["image_id"] == 10
    ]
    assert len(references["annotations"]) >= 2
    # The targets know the classes by other ids, in another order, and a third that nobody asks for.
    content["categories"] = [{"id": 7, "name": "other"}, {"id": 8, "name": "tee"}, {"id": 9, "name": "star"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = {1: 9, 2: 8}[annotation["category_id"]]
    content["images"] = content["images"][1:3]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in (11, 12)]
    content["annotations"].append({"id": 999, "image_id": 11, "category_id": 7, "bbox": [0, 0, 5, 5]})
    told = tmp_path / "told.json"
    assert run("--min-score", "0", "--report", str(told), references=references, targets=content) == 0
    out = capsys.readouterr().out
    assert not (tmp_path / "results.images.json").exists()
    results = json.loads((tmp_path / "results.json").read_text())
    assert {r["image_id"] for r in results} <= {11, 12}
    assert {r["category_id"] for r in results} <= {8, 9}
    loaded(tmp_path, content)
    monkeypatch.setattr(refseg.candidates.tiles, "propose_from_pixels", three_squares)
    labels = []
    for categories, numbers in (
        (content["categories"], {8: "tee", 9: "star"}),
        (references["categories"], {1: "star", 2: "tee"}),
    ):
        targets = {"images": content["images"], "categories": categories}
        assert run("--min-score", "0", references=references, targets=targets) == 0
        found = json.loads((tmp_path / "results.json").read_text())
        labels.append([numbers[r["category_id"]] for r in found])
    assert labels[0] == labels[1]
    assert labels[0]
    report = json.loads(told.read_text())
    for kind in ("mask", "box"):
        assert set(report[kind]["per_class"]) == {"star", "tee"}
        assert 0 <= report[kind]["ap"] <= report[kind]["ap50"] <= 1
    assert [line.split()[0] for line in out.splitlines() if line][2:] == ["AP", "mask", "box", "mask", "tee", "star"]


def test_box_ground_truth_is_scored_by_boxes(run: Run, content: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    targets = json.loads(json.dumps(content))
    targets["images"] = targets["images"][:1]
    targets["annotations"] = [a for a in targets["annotations"] if a["image_id"] == 10]
    for annotation in targets["annotations"]:
        del annotation["segmentation"]
    assert run(targets=targets) == 0
    out = capsys.readouterr().out
    assert "box" in out
    assert "mask" not in out


def test_targets_without_annotations_are_not_scored(
    run: Run, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = {"images": content["images"][:1], "categories": content["categories"]}
    assert run("--min-score", "1", targets=targets) == 0
    assert "0 instances in 1 image " in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text()) == []


def three_squares(
    pixels: torch.Tensor, sizes: list[tuple[int, int]], models: Models, *, max_iou: None = None, gate: None = None
) -> list[Candidates]:
    """Candidates of each image: three squares, each with a feature and its opposite, of which one is like some class."""
    logits = torch.full((6, models.grid_side, models.grid_side), -1.0)
    for row in range(6):
        start = row // 2 * 16
        logits[row, start : start + 12, start : start + 12] = 1
    feature = torch.nn.functional.normalize(torch.linspace(-1, 1, models.feature_width), dim=0)
    features = torch.stack([feature, -feature] * 3)
    return [Candidates(logits, torch.linspace(0.9, 0.5, 6), features, image_hw) for image_hw in sizes]


def test_limits_on_number_and_score(run: Run, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refseg.candidates.tiles, "propose_from_pixels", three_squares)
    targets = {"images": content["images"][:2], "categories": content["categories"]}

    def results(*arguments: str) -> list[list[float]]:
        assert run("--no-calibration", *arguments, targets=targets) == 0
        found = json.loads((tmp_path / "results.json").read_text())
        return [[r["score"] for r in found if r["image_id"] == image_id] for image_id in (10, 11)]

    every = results("--min-score", "0")
    assert all(len(scores) >= 3 and scores == sorted(scores, reverse=True) for scores in every)
    assert results("--min-score", "0", "--max-detections", "2") == [scores[:2] for scores in every]
    limit = every[0][1]
    assert results("--min-score", repr(limit)) == [[s for s in scores if s >= limit] for scores in every]
    default = PRESETS["demo"].min_confidence
    assert results() == [[s for s in scores if s >= default] for scores in every]


def test_tiles_and_presence_gate(
    run: Run, content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = {"images": content["images"][:2], "categories": content["categories"]}
    looked_at, real = [], refseg.candidates.tiles.propose_tiles

    def propose_tiles(image: Image.Image, models: Models, **options: Any) -> PackedCandidates:
        looked_at.append(image.size)
        return real(image, models, **options)

    monkeypatch.setattr(refseg.candidates.tiles, "propose_tiles", propose_tiles)
    report = str(tmp_path / "report.json")
    asked = ((("--tiles",), 0), (("--presence-gate", "1"), 2), (("--tiles", "--presence-gate", "1"), 2))
    for arguments, num_gated in asked:
        looked_at.clear()
        assert run("--min-score", "0", "--no-calibration", "--report", report, *arguments, targets=targets) == 0
        told = json.loads(Path(report).read_text())
        assert (told["num_images"], told["num_gated"]) == (2, num_gated)
        assert (told["num_instances"] > 0) == (num_gated == 0)
        assert ("2 of them were spared by the presence gate" in capsys.readouterr().out) == (num_gated == 2)
        assert looked_at == ([(160, 120)] * 2 if "--tiles" in arguments else [])
    assert run("--presence-gate", "1.5") == 2
    assert "--presence-gate: '1.5' is not a number between 0 and 1" in capsys.readouterr().err


def told_of(tmp_path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    return report


@pytest.fixture
def propose_objects(monkeypatch: pytest.MonkeyPatch, scenes: tuple[Path, dict[str, Any]]) -> list[tuple[int, int]]:
    """Candidates are the labelled objects of each image, and its upper left corner; the sizes of what is looked at are kept."""
    models = load_models("demo")
    truth: dict[bytes, np.ndarray] = {}
    for image in scenes[1]["images"]:
        own = [a for a in scenes[1]["annotations"] if a["image_id"] == image["id"]]
        masks = [decode_mask(annotation_rle(a, (120, 160), "test") or {}) for a in own]
        corner = np.zeros((120, 160), bool)
        corner[:20, :20] = True
        pixels = segmenter_pixels(read_image(scenes[0] / image["file_name"]), models.segmenter_side)
        truth[pixels.numpy().tobytes()] = np.array([*masks, corner])
    looked_at: list[tuple[int, int]] = []

    @torch.inference_mode()
    def propose(
        pixels: torch.Tensor, sizes: list[tuple[int, int]], models: Models, *, max_iou: None = None, gate: Any = None
    ) -> list[Candidates]:
        looked_at.extend(sizes)
        nothing = np.zeros((0, 120, 160), bool)
        return [
            candidates_of(row, truth.get(row.numpy().tobytes(), nothing), hw, models)
            for row, hw in zip(pixels, sizes, strict=True)
        ]

    monkeypatch.setattr(refseg.candidates.tiles, "propose_from_pixels", propose)
    return looked_at


class TestKnownImages:
    def test_thresholds_are_calibrated(
        self,
        run: Run,
        scenes: tuple[Path, dict[str, Any]],
        tmp_path: Path,
        propose_objects: list[Any],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        told, saved = ("--report", str(tmp_path / "told.json")), tmp_path / "p.safetensors"
        assert run(*told, "--prototypes", str(saved)) == 0
        # Each image is looked at once, though all show references and all are segmented.
        assert len(propose_objects) == NUM_IMAGES
        report, prototypes = told_of(tmp_path), Prototypes.load(saved)
        default = PRESETS["demo"].min_confidence
        assert report["calibrated"] is True
        assert report["thresholds"] == dict.fromkeys(CLASSES, 0.5)
        assert prototypes.surroundings is not None
        assert set(prototypes.surroundings.shown) <= {*prototypes.reference_ids, ""}
        assert len(set(prototypes.surroundings.images)) == NUM_IMAGES
        results = json.loads((tmp_path / "results.json").read_text())
        names = dict(enumerate(CLASSES, 1))
        assert all(one["score"] >= report["thresholds"][names[one["category_id"]]] for one in results)
        assert [one["image_id"] for one in results] == sorted(one["image_id"] for one in results)
        least = ", ".join(f"{name} {value:.2f}" for name, value in report["thresholds"].items())
        assert f"\nScores are probabilities; least scores: {least}\n" in capsys.readouterr().out
        # Candidates that are held until their image is segmented give what those that are computed again do.
        monkeypatch.setattr("refseg.coco.known.MAX_HELD", 1)
        assert run(*told) == 0
        assert len(propose_objects) == NUM_IMAGES + 2 * NUM_IMAGES - 1
        assert told_of(tmp_path)["thresholds"] == report["thresholds"]
        assert json.loads((tmp_path / "results.json").read_text()) == results
        assert run(*told, "--no-calibration") == 0
        assert told_of(tmp_path)["thresholds"] == dict.fromkeys(CLASSES, default)
        # A folder named from where one is.
        monkeypatch.chdir(scenes[0].parent)
        assert run(*told, images=Path(scenes[0].name)) == 0
        assert told_of(tmp_path)["thresholds"] == pytest.approx(report["thresholds"])
        assert told_of(tmp_path)["skipped_images"] == []

    def test_crowds_are_no_strangers(self, run: Run, content: dict[str, Any], tmp_path: Path, propose_objects: Any) -> None:
        saved = tmp_path / "p.safetensors"
        strangers = []
        for crowded in (False, True):
            if crowded:
                box = {"id": 900, "image_id": 10, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 30, 30]}
                content["annotations"].append({**box, "segmentation": [[0, 0, 30, 0, 30, 30, 0, 30]]})
                content["annotations"].append({**box, "id": 901, "segmentation": {"size": [1, 1], "counts": [5]}})
            assert run("--prototypes", str(saved)) == 0
            surroundings = Prototypes.load(saved).surroundings
            assert surroundings is not None
            strangers.append(surroundings.shown.count(""))
        assert strangers[0] - strangers[1] == 1

    def test_empty_images_and_negatives(
        self,
        run: Run,
        scenes: tuple[Path, dict[str, Any]],
        content: dict[str, Any],
        tmp_path: Path,
        propose_objects: Any,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        told, saved = ("--report", str(tmp_path / "told.json")), tmp_path / "p.safetensors"
        # One image is said to be empty; two are not looked at as references show in them.
        references = {**content, "annotations": [a for a in content["annotations"] if a["image_id"] in (10, 11)]}
        empty = {"images": content["images"][1:3], "categories": [], "annotations": []}
        (tmp_path / "empty.json").write_text(json.dumps(empty))
        arguments = (*told, "--min-score", "0", "--prototypes", str(saved), "--empty", str(tmp_path / "empty.json"))
        assert run(*arguments, references=references) == 0
        out, err = capsys.readouterr()
        report, negatives = told_of(tmp_path), Prototypes.load(saved).negatives
        assert negatives is not None
        assert (report["num_empty"], report["num_mined"]) == (1, len(negatives))
        assert report["num_mined"] > 0
        assert f"{counted(len(negatives), 'negative was', 'negatives were')} mined from 1 image known to be empty" in out
        assert all(name.startswith("mined ") and "2.png" in name for name in negatives.ids)
        assert "1.png: it shows a reference, so it is not empty" in err
        # The same by a folder, beside an object that is labelled as a negative, whose id a reference has too.
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "a b.png").write_bytes((scenes[0] / "sub" / "2.png").read_bytes())
        others = [{**a, "id": references["annotations"][0]["id"]} for a in content["annotations"] if a["image_id"] == 13][:1]
        (tmp_path / "others.json").write_text(json.dumps({**content, "annotations": others}))
        arguments = (*told, "--prototypes", str(saved), "--empty", str(tmp_path / "empty"))
        assert run(*arguments, "--negatives", str(tmp_path / "others.json"), references=references) == 0
        both = Prototypes.load(saved)
        assert both.negatives is not None
        assert both.negatives.ids[0] == f"negative {others[0]['id']}"
        assert both.negatives.names[0] == CLASSES[others[0]["category_id"] - 1]
        assert all("a b.png" in name for name in both.negatives.ids[1:])
        assert len(both.reference_ids) == len(references["annotations"])
        # Calibration knows the empty image too.
        assert both.surroundings is not None
        assert image_key(str(tmp_path / "empty" / "a b.png")) in both.surroundings.images

    def test_bad_places(
        self, run: Run, content: dict[str, Any], tmp_path: Path, propose_objects: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "nothing").mkdir()
        files = {"full": content, "none": {**content, "images": [], "annotations": []}, "bare": {**content, "annotations": []}}
        files["odd"] = {**content, "annotations": [{**content["annotations"][0], "category_id": "unknown"}]}
        for name, text in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(text))
        for words, option, place in (
            ("There is no image under", "--empty", "nothing"),
            ("There is no COCO file at", "--empty", "gone"),
            ("lists an object of the class 'star' in sub/0.png, which is not empty then", "--empty", "full.json"),
            ("lists no image known to be empty", "--empty", "none.json"),
            ("may list objects of the classes in images that are to be empty", "--empty", "odd.json"),
            ("has no annotation of a single object", "--negatives", "bare.json"),
            ("There is no COCO file at", "--negatives", "gone"),
        ):
            fails(capsys, run(option, str(tmp_path / place)), words)
        assert propose_objects == []
        # An empty image that cannot be read is left out.
        (tmp_path / "nothing" / "x.png").write_bytes(b"no image")
        assert run("--empty", str(tmp_path / "nothing"), "--min-score", "0.5") == 0
        assert "x.png: this is not an image" in capsys.readouterr().err

    def test_how_it_is_matched(
        self,
        run: Run,
        tmp_path: Path,
        propose_objects: Any,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        asked: list[MatchSettings | None] = []
        given: tuple[str, ...] = ()

        def run_coco(job: CocoJob, **options: Any) -> Any:
            assert job.turned == ("--turned" in given)
            asked.append(job.matching)
            raise CocoError("enough")

        monkeypatch.setattr("refseg.coco.run_coco", run_coco)
        plain = settings_for(False)
        for arguments, expected in (
            ((), None),
            (("--turned",), None),
            (("--no-background",), replace(plain, background=False)),
            (("--background", "--overlaps", "diffusion"), replace(plain, background=True, overlaps="diffusion")),
            (("--class-similarity", "clusters"), replace(plain, class_similarity="clusters")),
            (("--no-scenes",), replace(plain, scenes=False)),
            (("--no-calibration",), replace(plain, calibrated=False)),
            (("--model", "paper", "--background"), replace(PUBLISHED, background=True)),
        ):
            given = arguments
            assert run(*arguments) == 2
            assert asked.pop() == expected
        capsys.readouterr()
        for words, arguments in (
            ("argument --overlaps: invalid choice: 'pile' (choose from", ("--overlaps", "pile")),
            ("argument --class-similarity: invalid choice: 'far'", ("--class-similarity", "far")),
        ):
            fails(capsys, run(*arguments), words)
        assert asked == []

    def test_a_least_score_changes_no_score(self, run: Run, tmp_path: Path, propose_objects: Any) -> None:
        found = []
        for arguments in ((), ("--min-score", "0.5"), ("--min-score", "0.2")):
            assert run(*arguments) == 0
            found.append(json.loads((tmp_path / "results.json").read_text()))
        assert found[0] == found[1]
        assert found[0] == [one for one in found[2] if one["score"] >= 0.5]

    def test_settings_reach_the_matcher(self, run: Run, tmp_path: Path, propose_objects: Any) -> None:
        scores = []
        for arguments in ((), ("--overlaps", "diffusion"), ("--class-similarity", "nearest")):
            assert run("--min-score", "0", "--no-calibration", *arguments) == 0
            scores.append([one["score"] for one in json.loads((tmp_path / "results.json").read_text())])
        assert scores[2] != scores[0]


class TestSemanticMaps:
    def test_one_for_each_image(self, run: Run, content: dict[str, Any], tmp_path: Path, propose_objects: Any) -> None:
        folder = tmp_path / "maps"
        targets = {"images": content["images"][:2], "categories": content["categories"]}
        assert run("--min-score", "0.3", "--semantic", str(folder), targets=targets) == 0
        names = json.loads((folder / "classes.json").read_text())
        assert names == {"0": "background", "1": "star", "2": "tee"}
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == ["sub/0.png", "sub/1.png"]
        results = json.loads((tmp_path / "results.json").read_text())
        for image_id, name in ((10, "sub/0.png"), (11, "sub/1.png")):
            expected = np.zeros((120, 160), int)
            for one in sorted((r for r in results if r["image_id"] == image_id), key=lambda r: r["score"]):
                expected[decode_mask(annotation_rle(one, (120, 160), "test") or {})] = one["category_id"]
            with Image.open(folder / name) as read:
                assert read.mode == "L"
                np.testing.assert_array_equal(np.asarray(read), expected)
            assert set(np.unique(expected)) == {0, 1, 2}

    def test_no_image_is_overwritten(
        self,
        run: Run,
        scenes: tuple[Path, dict[str, Any]],
        content: dict[str, Any],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        propose_objects: Any,
    ) -> None:
        fails(capsys, run("--semantic", str(scenes[0])), "0.png would take the place of an image: choose another folder")
        (tmp_path / "file").write_text("")
        fails(capsys, run("--semantic", str(tmp_path / "file")), "file is a file: name a folder for the maps")
        (tmp_path / "maps" / "sub").mkdir(parents=True)
        for kind, mode in (("JPEG", "L"), ("PNG", "RGB")):
            Image.new(mode, (4, 4)).save(tmp_path / "maps" / "sub" / "0.png", kind)
            fails(capsys, run("--semantic", str(tmp_path / "maps")), "0.png exists and is not a map of classes")
        assert propose_objects == []

    def test_none_goes_where_the_next_run_looks_for_images(
        self,
        run: Run,
        scenes: tuple[Path, dict[str, Any]],
        content: dict[str, Any],
        tmp_path: Path,
        capsys: Any,
        propose_objects: Any,
    ) -> None:
        images = tmp_path / "images"
        shutil.copytree(scenes[0], images)
        maps = str(images / "sub" / "maps")
        fails(
            capsys, run("--semantic", maps, images=images), "where the next run would take it for one of the images of --images"
        )
        fails(capsys, run("--out", str(images / "x.png"), images=images), "--out would write")
        given = ("--targets", str(tmp_path / "references.json"))
        fails(capsys, run("--semantic", maps, "--empty", str(images), *given, images=images), "the images of --empty")
        assert propose_objects == []
        # Of images that a file lists the next run reads no others.
        for _ in range(2):
            assert run("--min-score", "0.3", "--semantic", maps, targets=content, images=images) == 0
        assert len(list(Path(maps).rglob("*.png"))) == len(content["images"])
        assert len(scan(images).images) == len(content["images"])

    def test_somebodys_masks_are_not_replaced(self, run: Run, content: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
        """Grey pictures, named like the images; what an earlier run wrote is."""
        mine = tmp_path / "masks" / "sub" / "1.png"
        mine.parent.mkdir(parents=True)
        Image.new("L", (4, 4), 7).save(mine)
        kept = mine.read_bytes()
        fails(capsys, run("--semantic", str(tmp_path / "masks")), "1.png would be replaced, and is not from an earlier run")
        assert mine.read_bytes() == kept
        given = ("--min-score", "0.3", "--semantic", str(tmp_path / "maps"))
        assert run(*given, targets=content) == run(*given, targets=content) == 0

    def test_two_entries_of_one_file_share_its_map(self, run: Run, content: dict[str, Any], tmp_path: Path) -> None:
        targets = {"images": [*content["images"][:1], {**content["images"][0], "id": 99}], "categories": content["categories"]}
        assert run("--min-score", "0.3", "--semantic", str(tmp_path / "maps"), targets=targets) == 0
        assert len(list((tmp_path / "maps").rglob("*.png"))) == 1

    def test_two_images_never_share_a_map(self, run: Run, content: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
        targets = json.loads(json.dumps(content))
        targets["images"][0]["file_name"] = "../" + targets["images"][1]["file_name"]
        fails(capsys, run("--semantic", str(tmp_path / "maps"), targets=targets), "would have one map in")


def test_only_files_of_their_kind_are_replaced(
    run: Run, scenes: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: Any
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes((scenes[0] / "sub" / "0.png").read_bytes())
    notes = tmp_path / "notes.txt"
    notes.write_text("kept")
    for name, what in (("--out", "a list of results"), ("--report", "a JSON file"), ("--prototypes", "a prototypes file")):
        for path in (photo, notes):
            fails(capsys, run(name, str(path)), f"{path.name} exists and is not {what}, which would take its place")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "classes.json").write_text("star, tee")
    fails(capsys, run("--semantic", str(tmp_path / "maps")), "classes.json would be replaced, and is not from an earlier")
    # A list does not take the place of annotations that this run does not read.
    (tmp_path / "other.json").write_text('{"annotations": []}')
    fails(capsys, run("--out", str(tmp_path / "other.json")), "other.json exists and is not a list of results")
    assert photo.read_bytes() == (scenes[0] / "sub" / "0.png").read_bytes()
    assert notes.read_text() == "kept"


def test_bad_images_are_skipped_and_listed(
    run: Run,
    scenes: tuple[Path, dict[str, Any]],
    content: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number in range(2):
        (folder / "sub" / f"{number}.png").write_bytes((scenes[0] / "sub" / f"{number}.png").read_bytes())
    (folder / "sub" / "2.png").write_bytes((scenes[0] / "sub" / "2.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("no image")
    content["images"][1]["width"] = 99
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 11]
    content["images"].append({"id": 99, "file_name": "sub/4.png"})
    told = tmp_path / "told.json"
    with WatchedPipe(folder / "sub" / "4.png"):
        assert run("--report", str(told), targets=content, images=folder) == 0
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("refseg: skipped")]
    for name, words in (
        ("1.png", "is listed with 99×120 pixels, but the upright image has 160×120"),
        ("2.png", "the image cannot be read"),
        ("3.png", "the file does not exist"),
        ("4.png", "the file cannot be read (it is a pipe, not a file)"),
    ):
        assert any(name in line and words in line for line in lines)
    report = json.loads(told.read_text())
    assert report["num_images"] == 1
    assert len(report["skipped_images"]) == 4
    reasons = dict(report["skipped_references"])
    for annotation in content["annotations"]:
        if annotation["image_id"] == 13:
            what = f"{CLASSES[annotation['category_id'] - 1]!r} in 3.png: the file does not exist"
            assert reasons[f"reference {annotation['id']}"] == what
            assert f"refseg: skipped {what} (reference {annotation['id']})" in lines
    # The same folder without targets: what can be read is segmented, and the ids of the others are not given away.
    assert (
        run(images=folder, references={**content, "images": [content["images"][0]], "annotations": content["annotations"][:2]})
        == 0
    )
    listing = json.loads((tmp_path / "results.images.json").read_text())
    assert [(image["id"], image["file_name"]) for image in listing["images"]] == [(1, "sub/0.png"), (2, "sub/1.png")]


def test_crowds_show_no_object(run: Run, content: dict[str, Any], tmp_path: Path) -> None:
    targets = {"images": content["images"][:1], "categories": content["categories"]}
    for annotation in content["annotations"][1:]:
        annotation["iscrowd"] = int(annotation["image_id"] != 10)
    told = tmp_path / "told.json"
    assert run("--report", str(told), targets=targets) == 0
    shown = [a for a in content["annotations"] if not a["iscrowd"]]
    assert sum(json.loads(told.read_text())["shots"].values()) == len(shown) < len(content["annotations"])


def fails(capsys: pytest.CaptureFixture[str], code: int, words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds these words."""
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("refseg: error: ")
    assert words in line


def test_errors_are_one_line(run: Run, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("{oops")
    (tmp_path / "file").write_text("")
    empty = tmp_path / "empty"
    empty.mkdir()
    unknown = {**content, "categories": [{"id": 1, "name": "star"}, {"id": 2, "name": "moon"}]}
    damaged = json.loads(json.dumps(content))
    damaged["annotations"][0]["segmentation"] = {"size": [120, 160], "counts": [5]}
    homeless = json.loads(json.dumps(content))
    homeless["annotations"][2]["image_id"] = 99
    cases: list[tuple[int, str]] = []
    for words, call in {
        "bad.json is not JSON": lambda: run(references=tmp_path / "bad.json"),
        "There is no COCO file at": lambda: run(references=tmp_path / "none.json"),
        "has no list 'images'": lambda: run(references={"annotations": []}),
        "has no annotation of a single object": lambda: run(references={**content, "annotations": []}),
        "the class 'tee', which is not in the categories of": lambda: run(targets=unknown),
        "lists no image to segment": lambda: run(targets={**content, "images": [], "annotations": []}),
        "damaged run-length code": lambda: run("--strict", targets=damaged),
        "which is not in 'images'": lambda: run("--strict", references=homeless),
        "There is no folder of images": lambda: run(images=tmp_path / "none"),
        "There is no model preset 'huge'": lambda: run("--model", "huge"),
        "The device 'warp:9' is not to be had": lambda: run("--device", "warp:9"),
        "There is no SAM 2 checkpoint at": lambda: run("--sam2-path", str(tmp_path / "none.pt")),
        "is a folder: name a file": lambda: run("--report", str(tmp_path)),
        "file: File exists": lambda: run("--report", str(tmp_path / "file" / "report.json")),
        "'2' is not a number between 0 and 1": lambda: run("--min-score", "2"),
        "argument --min-score: 'x' is not a number": lambda: run("--min-score", "x"),
        "'0' is not a whole number of 1 or more": lambda: run("--max-detections", "0"),
        "'two' is not a whole number of 0 or more": lambda: run("--workers", "two"),
        "unrecognized arguments: --nonsense (see refseg": lambda: run("--nonsense"),
        "the following arguments are required: --images": lambda: main(["coco"]),
        "the following arguments are required: coco": lambda: main([]),
        "invalid choice: 'fly'": lambda: main(["fly"]),
    }.items():
        cases.append((call(), words))
        fails(capsys, *cases[-1])
    assert not (tmp_path / "results.json").exists()


def as_crowd(annotation: dict[str, Any]) -> dict[str, Any]:
    """A crowd that fills the box of an annotation."""
    x, y, w, h = annotation["bbox"]
    return {**annotation, "iscrowd": 1, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


def test_what_cannot_be_used_is_left_out_and_listed(
    run: Run, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references, targets = json.loads(json.dumps(content)), json.loads(json.dumps(content))
    references["annotations"][0]["segmentation"] = "sky"
    references["annotations"][1]["iscrowd"] = "0"
    # Of targets a mask alone may be left out; the sizes of their images are those of the files.
    for image in targets["images"]:
        image["height"] = image["width"] = -1
    targets["annotations"][0]["segmentation"] = [[]]
    targets["annotations"][1]["segmentation"] = [[1, 1, 5000, 1, 9, 9]]
    targets["annotations"][2] |= {"segmentation": None, "bbox": [0, 0, 0, 0]}
    targets["annotations"][3] |= {"bbox": [0, 0, 0, 0], "area": -1}
    told = ("--report", str(tmp_path / "told.json"), "--min-score", "0")
    assert run(*told, references=references, targets=targets) == 0
    report, out = told_of(tmp_path), capsys.readouterr().out
    assert sum(report["shots"].values()) == len(content["annotations"]) - 1
    listed = [(Path(one["source"]).name, one["annotation"], one["field"], one["mask_alone"]) for one in report["left_out"]]
    assert listed == [
        ("references.json", "0", "segmentation", False),
        ("targets.json", "0", "segmentation", True),
        ("targets.json", "2", "bbox", False),
        ("targets.json", "1", "segmentation", True),
    ]
    assert report["left_out"][0]["value"] == "'sky'"
    assert "2 annotations cannot be used and are left out: " in out
    assert "2 annotations have no usable mask and count by their box alone: " in out
    assert [note.split(": ", 1)[1].split(";")[0] for note in report["notes"]] == [
        "the width or height of 4 images is no number of pixels: what the file says is used",
        "1 annotation has an area that is no number of pixels, it is computed from the mask or box",
        "1 annotation has a bbox that is no box of its image, that of the mask is used instead",
    ]
    assert all(note in out for note in report["notes"])
    # The figures are those of a file without the faults, and without the object that has no place. Where masks are compared,
    # what is found in the boxes of the two that have none does not count.
    results = json.loads((tmp_path / "results.json").read_text())
    for kind, iou_type, crowds in (("mask", "segm", (0, 1)), ("box", "bbox", ())):
        kept = [as_crowd(a) if n in crowds else a for n, a in enumerate(content["annotations"]) if n != 2]
        (tmp_path / "right.json").write_text(json.dumps({**content, "annotations": kept}))
        right = evaluate_results(read_coco(tmp_path / "right.json"), results, iou_type)  # type: ignore[arg-type]
        assert report[kind]["ap"] == pytest.approx(right.ap, abs=1e-12)
    assert run(*told, "--strict", references=content, targets=targets) == 2
    fails(capsys, 2, "annotation 0 cannot be read: its mask has no polygon of three points or more")


def test_exporters_parent_category_is_ignored(run: Run, content: dict[str, Any], tmp_path: Path) -> None:
    content["categories"].insert(0, {"id": 0, "name": "tee", "supercategory": "none"})
    told = ("--report", str(tmp_path / "told.json"), "--min-score", "0")
    assert run(*told, targets=content) == 0
    report = told_of(tmp_path)
    assert set(report["shots"]) == set(CLASSES)
    assert [note.split(": ", 1)[1] for note in report["notes"]] == [
        "the category 'tee' is listed 2 times; [0] without an object ignored, 2 taken."
    ] * 2
    assert {one["category_id"] for one in json.loads((tmp_path / "results.json").read_text())} <= {1, 2}


def test_nothing_is_written_over_what_is_read(
    run: Run, scenes: tuple[Path, dict[str, Any]], content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    files = {name: folder / f"{name}.json" for name in ("refs", "targets", "negatives", "empty", "classes", "x.images")}
    for name, path in files.items():
        path.write_text(json.dumps({**content, "annotations": []} if name == "empty" else content))
    (tmp_path / "link.json").symlink_to(files["targets"])
    (folder / "picture.png").write_bytes((scenes[0] / "sub" / "0.png").read_bytes())
    pictures = {**content, "images": [{"id": 1, "file_name": str(folder / "picture.png")}], "annotations": []}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refs, targets = str(files["refs"]), str(files["targets"])
    for words, more in (
        ("--out would be written over what --references names", ("--out", refs)),
        ("--out would be written over what --targets names", ("--out", targets)),
        ("--out would be written over what --targets names", ("--out", str(tmp_path / "link.json"))),
        ("--report would be written over what --negatives names", ("--report", str(files["negatives"]))),
        ("--prototypes would be written over what --empty names", ("--prototypes", str(files["empty"]))),
        ("--out and --report are one file", ("--report", str(tmp_path / "results.json"))),
        ("--report and --prototypes are one file", ("--report", str(tmp_path / "r"), "--prototypes", str(tmp_path / "r"))),
        (
            "classes.json of --semantic would be written over what --targets",
            ("--targets", str(files["classes"]), "--semantic", str(folder)),
        ),
    ):
        given = ("--targets", targets, "--negatives", str(files["negatives"]), "--empty", str(files["empty"]))
        fails(capsys, run(*given, *more, references=files["refs"]), words)
    beside = ("--out", str(folder / "x.json"))
    fails(
        capsys, run(*beside, references=files["x.images"]), "the list of images beside --out would be written over what --ref"
    )
    over = ("--report", str(folder / "picture.png"))
    fails(capsys, run(*over, targets=pictures, references=files["refs"]), "--report would be written over the image")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    saved = tmp_path / "p.safetensors"
    saved.write_bytes(b"prototypes")
    fails(capsys, main(["inspect", str(saved), "--out", str(saved)]), "--out would be written over what the file of prototypes")
    assert saved.read_bytes() == b"prototypes"
    fails(capsys, main(["inspect", str(saved), "--out", str(files["refs"])]), "refs.json exists and is not a PNG")


def test_inspect_names_class_and_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of four stars one is a tee; an image's name is kept in the file, and where it is not the class is named all the same."""
    angles = [0.0, 5.0, 88.0, -5.0, 90.0, 85.0, 95.0]
    mistaken = make_angled(angles, [0, 0, 0, 0, 1, 1, 1], angles, {"i4": 40.0, "i5": 38.0})
    told = []
    for names in (tuple(f"tray_{number}.png" for number in range(7)), ()):
        replace(mistaken, image_names=names).save(tmp_path / "p.safetensors")
        assert main(["inspect", str(tmp_path / "p.safetensors")]) == 0
        told.append(capsys.readouterr().out)
    assert "  'star' in tray_2.png (r2): without it F1 of the other references of 'star' is " in told[0]
    assert "  'star' in tray_2.png (r2) is more like 'tee'" in told[0]
    assert told[1] == told[0].replace(" in tray_2.png", "")
    assert not re.search(r"^\s*r\d", told[0], re.MULTILINE)


def test_annotations_of_stored_images_are_hinted_at(
    run: Run,
    scenes: tuple[Path, dict[str, Any]],
    content: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(refseg.candidates.tiles, "propose_from_pixels", three_squares)
    exif = Image.Exif()
    exif[0x0112] = 3
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("sub/0.png", "sub/1.png", "sub/2.png", "sub/3.png"):
        (folder / name).write_bytes((scenes[0] / name).read_bytes())
    Image.new("RGB", (160, 120)).save(folder / "turned.jpg", exif=exif)
    # Where the candidates are in the upright image, of 160 by 120 pixels.
    side = load_models("demo").grid_side
    found = np.array([(16 * row, 16 * row, 16 * row + 12, 16 * row + 12) for row in range(3)]) / side * [160, 120, 160, 120]
    told = ("--report", str(tmp_path / "told.json"), "--min-score", "0")
    for orientation, hints in ((3, 1), (1, 0)):
        boxes = turned_boxes(found, orientation, (120, 160))
        objects = [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for n, (x0, y0, x1, y1) in enumerate(boxes.tolist())
        ]
        image = {"id": 1, "file_name": "turned.jpg", "height": 120, "width": 160}
        targets = {"images": [image], "categories": content["categories"], "annotations": objects}
        assert run(*told, targets=targets, images=folder) == 0
        assert len(told_of(tmp_path)["notes"]) == hints
        assert ("Turn the annotations too, or remove the tag" in capsys.readouterr().out) == bool(hints)


def test_an_empty_folder_is_an_error(
    run: Run, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(images=tmp_path / "empty") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("refseg: error: There is no image under")
    assert run(images=tmp_path / "empty", targets=content) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "The class 'star' has no usable reference" in last
    assert "the file does not exist" in last


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["--version"], f"refseg {refseg.__version__}"), (["coco", "--help"], "--references JSON")):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
        assert words in capsys.readouterr().out


def test_demo_is_told_where_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Path, Any, int]] = []
    module = types.ModuleType("refseg.demo.run")
    module.run_demo = lambda out, *, progress, seed: calls.append((out, progress, seed))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "refseg.demo.run", module)
    assert main(["demo"]) == 0
    assert main(["demo", "--out", str(tmp_path), "--quiet", "--seed", "101"]) == 0
    assert calls == [(Path("demo"), True, SEED), (tmp_path, False, 101)]
    assert main(["demo", "--seed", "-1"]) == 2


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = types.ModuleType("refseg.demo.run")

    def run_demo(out: Path, *, progress: Any, seed: int) -> None:
        raise KeyboardInterrupt

    module.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "refseg.demo.run", module)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "refseg: interrupted\n"


@pytest.mark.slow
def test_the_installed_command_works_without_fiftyone(
    scenes: tuple[Path, dict[str, Any]], content: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "refs.json").write_text(json.dumps(content))
    targets = {"images": content["images"], "categories": content["categories"]}
    (tmp_path / "targets.json").write_text(json.dumps(targets))
    # A loader that fails stands where FiftyOne would be: importing it at all ends the run.
    (tmp_path / "fiftyone.py").write_text("raise SystemExit('refseg coco imported fiftyone')\n")
    arguments = ["coco", "--images", scenes[0], "--references", "refs.json", "--targets", "targets.json"]
    arguments += ["--model", "demo", "--device", "cpu", "--out", "results.json", "--workers", "1", "--no-calibration"]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from refseg.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # A pipe is no terminal: a line for each part of the work, and no bar.
    parts = ("building prototypes: 16 of 16 references", "segmenting: 4 of 4 images")
    assert [line.partition(" (100 %)")[0] for line in done.stderr.splitlines()] == list(parts)
    assert done.returncode == 0
    assert f"in {NUM_IMAGES} images written to results.json" in done.stdout
    assert isinstance(json.loads((tmp_path / "results.json").read_text()), list)
    bad = subprocess.run(
        [sys.executable, "-m", "refseg", "coco"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("refseg: error: the following arguments are required: --images")
    assert bad.stderr.count("\n") == 1


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_a_target_without_a_mask_among_others_is_named(run: Run, content: dict[str, Any], tmp_path: Path, nothing: Any) -> None:
    targets = json.loads(json.dumps(content))
    targets["annotations"][1]["segmentation"] = nothing
    assert run("--report", str(tmp_path / "told.json"), "--min-score", "0", targets=targets) == 0
    report = told_of(tmp_path)
    (one,) = report["left_out"]
    assert (one["annotation"], one["mask_alone"], one["reason"]) == (
        str(content["annotations"][1].get("id", "#1")),
        True,
        "has no mask, as others of its file have.",
    )
    results = json.loads((tmp_path / "results.json").read_text())
    kept = [as_crowd(entry) if number == 1 else entry for number, entry in enumerate(content["annotations"])]
    (tmp_path / "right.json").write_text(json.dumps({**content, "annotations": kept}))
    assert report["mask"]["ap"] == pytest.approx(
        evaluate_results(read_coco(tmp_path / "right.json"), results, "segm").ap, abs=1e-12
    )
    assert report["box"]["ap"] is not None
