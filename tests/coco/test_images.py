"""Which images a folder holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from refseg.coco.images import check_scanned, scan
from refseg.errors import CocoError


def put(path: Path, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(path, kind)


def names(folder: Path) -> list[str]:
    found = scan(folder)
    assert list(found.images) == list(range(1, len(found.images) + 1))
    return [image.file_name for image in found.images.values()]


def test_suffixes_of_any_case(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.Tiff", "f.png", "sub/g.webp", "h.tga", "i.pbm", "j.mpo"):
        put(tmp_path / name)
    for name in ("notes.txt", "labels.json", "._a.jpg", "sub/._g.webp", "jpg"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "folder.png").mkdir()
    expected = ["a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.Tiff", "f.png", "h.tga", "i.pbm", "j.mpo", "sub/g.webp"]
    assert names(tmp_path) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_folders_and_files(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "deep" / "a.png")
    put(tmp_path / "elsewhere" / "b.png")
    put(tmp_path / "images" / "c.png")
    (tmp_path / "images" / "day").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "images" / "d.png").symlink_to(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "images" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "images" / "gone").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    assert names(tmp_path / "images") == ["c.png", "d.png", "day/b.png", "day/deep/a.png"]
    (tmp_path / "link").symlink_to(tmp_path / "images", target_is_directory=True)
    assert names(tmp_path / "link") == names(tmp_path / "images")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_what_is_no_file_is_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "none.png")
    assert names(tmp_path) == ["a.png"]
    assert sorted(line.rpartition("/")[2] for line in caplog.messages) == [
        "b.png is passed over: it leads to no file",
        "c.png is passed over: it leads to no file",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_a_circle(tmp_path: Path) -> None:
    put(tmp_path / "a" / "one.png")
    put(tmp_path / "b" / "two.png")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a", target_is_directory=True)
    assert names(tmp_path) == ["a/one.png", "a/other/two.png", "b/back/one.png", "b/two.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/gr\xfc\xdfe.png")
    assert names(tmp_path) == ["gr\udcfc\udcdfe.png"]


def test_none(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match="There is no image under"):
        scan(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_no_picture_is_written_where_images_are_looked_for(tmp_path: Path) -> None:
    images, maps = tmp_path / "images", tmp_path / "maps"
    put(images / "day" / "a.png")
    maps.mkdir()
    (tmp_path / "link").symlink_to(images, target_is_directory=True)
    for place in (
        images,
        images / "new",
        images / "day" / "new" / "newer",
        tmp_path / "link" / "day",
        images / "day" / ".." / "x",
    ):
        with pytest.raises(CocoError, match=r"--semantic would write .*a\.png into .*images of --images: choose a place"):
            check_scanned({place / "a.png": "--semantic"}, {"--images": images})
    check_scanned({images / "results.json": "--out", images / "p.safetensors": "--prototypes"}, {"--images": images})
    with pytest.raises(CocoError, match="--out would write"):
        check_scanned({images / "results.JPG": "--out"}, {"--images": images})
    outside = {maps / "a.png": "--semantic", tmp_path / "a.png": "--semantic", tmp_path / "images2" / "a.png": "--semantic"}
    check_scanned(outside, {"--images": images})
    # By this link the next run comes to the maps too.
    (images / "seen").symlink_to(maps, target_is_directory=True)
    with pytest.raises(CocoError, match="--semantic would write"):
        check_scanned(outside, {"--images": images})
