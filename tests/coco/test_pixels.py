"""`refseg coco` on images that are not of 8 bits, not upright, or of odd names."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from refseg import cli
from refseg.coco.files import read_coco
from refseg.coco.json_files import as_json
from refseg.prototypes.prototypes import Prototypes
from tests.trays import draw_trays


def write_world(folder: Path, orientation: int = 1) -> tuple[Path, dict[str, Any]]:
    """Two trays of 12 bits and five bands, of which 4, 2 and 0 show what there is, stored in some orientation."""
    folder.mkdir()
    images, annotations = [], []
    for number, scene in enumerate(draw_trays(2), 1):
        rgb = scene.image.astype(np.uint16) * 16
        empty = np.zeros_like(rgb[..., 0])
        bands = np.stack([rgb[..., 2], empty, rgb[..., 1], empty, rgb[..., 0]], -1)
        stored = np.ascontiguousarray(np.rot90(bands, 1) if orientation == 6 else bands)
        tags = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(folder / f"{number}.tif", stored, photometric="minisblack", planarconfig="contig", extratags=tags)
        height, width = scene.image.shape[:2]
        images.append({"id": number, "file_name": f"{number}.tif", "height": height, "width": width})
        for mask in scene.masks:
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box})
    return folder, {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "part"}]}


def run(folder: Path, content: dict[str, Any], *more: str) -> dict[str, Any]:
    references = folder.parent / "references.json"
    references.write_text(as_json(content), encoding="utf-8")
    out, report = folder.parent / "out.json", folder.parent / "report.json"
    files = ["--images", str(folder), "--references", str(references), "--out", str(out), "--report", str(report)]
    kept = ["--prototypes", str(folder.parent / "p.safetensors")]
    assert cli.main(["coco", *files, *kept, "--model", "demo", "--workers", "0", "--min-score", "0", "--quiet", *more]) == 0
    written: dict[str, Any] = json.loads(report.read_text())
    return written


def vectors(folder: Path) -> np.ndarray:
    return Prototypes.load(folder.parent / "p.safetensors").vectors.numpy()


def test_bands_depth_and_orientation_are_those_of_eight_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same pictures as PNGs of 8 bits give the same vectors, whatever the way in which they are stored."""
    folder, content = write_world(tmp_path / "turned", 6)
    report = run(folder, content, "--channels", "4", "2", "0", "--pixel-range", "0", "4080")
    assert (report["pixel_range"], report["skipped_images"], report["num_images"]) == ([0, 4080], [], 2)
    assert "Pixels of more than 8 bits run from 0 to 4080" in capsys.readouterr().out
    found = vectors(folder)
    assert run(folder, content, "--channels", "4", "2", "0")["pixel_range"] == [0, 4095]
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, scene in enumerate(draw_trays(2), 1):
        Image.fromarray(scene.image).save(plain / f"{number}.tif")
    assert run(plain, content)["pixel_range"] is None
    np.testing.assert_allclose(found, vectors(plain), atol=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
def test_names_that_are_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, scene in zip(("a.png", "gr\udcfc\udcdfe.png"), draw_trays(2), strict=True):
        Image.fromarray(scene.image).save(folder / "a", "PNG")
        os.rename(folder / "a", folder / name)
    (folder / "kapu\udce9.png").write_text("no image")
    square, polygon = [20, 20, 60, 60], [[20, 20, 80, 20, 80, 80, 20, 80]]
    content = {
        "images": [{"id": 1, "file_name": "gr\udcfc\udcdfe.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": square, "segmentation": polygon}],
        "categories": [{"id": 1, "name": "größe"}],
    }
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(shown, "utf-8", write_through=True))
    report = run(folder, content, "--semantic", str(tmp_path / "maps"))
    assert [path for path, _ in report["skipped_images"]] == [str(folder / "kapu\udce9.png")]
    assert rb"kapu\udce9.png" in shown.getvalue()
    listed = read_coco(tmp_path / "out.images.json")
    assert [image.file_name for image in listed.images.values()] == ["a.png", "gr\udcfc\udcdfe.png"]
    assert all((folder / image.file_name).is_file() for image in listed.images.values())
    assert listed.categories == {1: "größe"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pixel-range", "5", "5"], "two numbers"),
        (["--channels", "0", "1"], "one or three bands"),
        (["--channels", "-1"], "whole number|expected"),
        (["--pixel-range", "1"], "expected 2 arguments"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    folder, content = write_world(tmp_path / "images")
    (tmp_path / "r.json").write_text(json.dumps(content))
    files = ["--images", str(folder), "--references", str(tmp_path / "r.json"), "--out", str(tmp_path / "out.json")]
    assert cli.main(["coco", *files, "--model", "demo", *arguments]) == 2
    assert any(word in capsys.readouterr().err for word in words.split("|"))
    assert not (tmp_path / "out.json").exists()
