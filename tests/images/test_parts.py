"""A part of an image is what the whole image shows there, however its file is turned and stored, at the cost of the part."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from refseg.errors import ImageError
from refseg.images import files, png_strips
from refseg.images.files import decode, decode_part
from refseg.images.parts import GAP, Wanted
from refseg.images.pixels import to_rgb
from refseg.images.png_strips import PngStrips

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 411, 277
MODES = ["1", "L", "LA", "P", "RGB", "RGBA"]


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """Soft blots of colour, so that half a pixel is no matter, with one in a hundred pixels that is."""
    rng = np.random.default_rng(3)
    blots = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return blots.filter(ImageFilter.GaussianBlur(3))


def stored(scene: Image.Image, mode: str, path: Path, orientation: int) -> None:
    image = scene
    if mode in ("LA", "RGBA"):
        image = scene.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(image.size))  # dropped, whatever is below
    elif mode != "RGB":
        image = scene.quantize(200) if mode == "P" else scene.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


WINDOWS = [(0, 0, 1, 1), (0.3, 0.2, 0.4, 0.5), (0.9, 0.8, 1, 1), (0, 0.5, 0.1, 1)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "mode"), [("a.png", mode) for mode in MODES] + [("a.tif", "RGB"), ("a.jpg", "RGB")])
@pytest.mark.sampled(4)
def test_shows_what_the_whole_image_does(tmp_path: Path, scene: Image.Image, name: str, mode: str, orientation: int) -> None:
    path = tmp_path / name
    stored(scene, mode, path, orientation)
    whole = decode(path)
    height, width = whole.image_hw
    for window in WINDOWS:
        x0, y0, x1, y1 = window[0] * width, window[1] * height, window[2] * width, window[3] * height
        for scale in (0.02, 0.11, 0.3, 1.0, 2.0):
            wanted = Wanted((x0, y0, x1, y1), scale)
            found = decode_part(path, lambda _, wanted=wanted: wanted)
            assert found.image_hw == whole.image_hw
            left, top, right, bottom = found.box
            assert (left <= x0, top <= y0, right >= x1, bottom >= y1) == (True,) * 4
            across, down = found.image.width / (right - left), found.image.height / (bottom - top)
            # No coarser than it has to be; a JPEG at a scale of its own.
            assert min(across, down) >= min(1.0, scale if name.endswith("jpg") else scale * GAP)
            if mode == "1":
                continue
            size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
            inside = (
                *(max(0, (x0 - left) * across), max(0, (y0 - top) * down)),
                *(min(found.image.width, (x1 - left) * across), min(found.image.height, (y1 - top) * down)),
            )
            shown = found.image.resize(size, Image.Resampling.BICUBIC, box=inside)
            expected = whole.image.resize(size, Image.Resampling.BICUBIC, box=(x0, y0, x1, y1), reducing_gap=GAP)
            # The smallest pictures are of a pixel or two, which lie elsewhere by a fraction; a JPEG's own scales are coarse.
            most = 15 if name.endswith("jpg") else 6 if scale < 0.1 else 2.5
            assert np.abs(np.asarray(shown).astype(int) - np.asarray(expected)).mean() < most


def png_of(image: Image.Image, *, idat: int = 0, late: tuple[bytes, bytes] | None = None) -> bytes:
    """A PNG whose image lies in chunks of so many bytes."""
    stream = BytesIO()
    image.save(stream, "PNG")
    content, out, body = stream.getvalue(), b"\x89PNG\r\n\x1a\n", b""
    place = 8
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            body += content[place + 8 : place + 8 + length]
        else:
            if kind == b"IEND":
                for start in range(0, len(body), idat or len(body)):
                    out += chunk(b"IDAT", body[start : start + (idat or len(body))])
            out += content[place : place + 12 + length]
        place += 12 + length
    return out


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def joined(content: bytes, multiple: int = 1) -> Image.Image:
    strips = list(PngStrips(BytesIO(content)).strips(multiple))
    whole = Image.new(strips[0][1].mode, (strips[0][1].width, strips[-1][0] + strips[-1][1].height))
    if strips[0][1].mode == "P":
        whole.putpalette(strips[0][1].getpalette() or [])
    for top, strip in strips:
        assert top % multiple == 0
        whole.paste(strip, (0, top))
    return whole


class TestPngStrips:
    @pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
    @pytest.mark.parametrize("idat", [0, 1, 7, 1000])
    def test_together_they_are_the_image(
        self, scene: Image.Image, mode: str, idat: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noise = np.random.default_rng(1).integers(0, 256, (61, 47, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        image.paste(scene.resize((47, 30)), (0, 20))  # rows of every filter
        image = image.quantize(256) if mode == "P" else image.convert(mode)
        monkeypatch.setattr(png_strips, "BYTES_READ", 100)
        for size in (1, 200, 900, 1 << 20):
            monkeypatch.setattr(png_strips, "BYTES_A_STRIP", size)
            for multiple in (1, 4, 100):
                found = joined(png_of(image, idat=idat), multiple)
                assert found.mode == mode
                np.testing.assert_array_equal(np.asarray(to_rgb(found)), np.asarray(to_rgb(image)))

    def test_transparent_colours_are_dropped(self, tmp_path: Path, scene: Image.Image) -> None:
        for mode, transparency in (("P", bytes(range(200))), ("RGB", (10, 20, 30)), ("L", 7)):
            image = scene.quantize(200) if mode == "P" else scene.convert(mode)
            image.save(tmp_path / "a.png", transparency=transparency)
            found = decode_part(tmp_path / "a.png", lambda _: Wanted((0, 0, WIDTH, HEIGHT), 1.0))
            np.testing.assert_array_equal(np.asarray(found.image), np.asarray(decode(tmp_path / "a.png").image))

    @pytest.mark.parametrize("mode", ["1", "I;16", "RGB"])
    def test_others_are_left_to_pillow(self, scene: Image.Image, mode: str) -> None:
        image = scene.convert("L").convert(mode) if mode != "I;16" else Image.fromarray(np.zeros((5, 5), np.uint16))
        content = png_of(image)
        if mode == "RGB":  # interlaced, as its header says
            header = content[16:28] + b"\x01"
            content = content[:8] + chunk(b"IHDR", header) + content[33:]
        assert not PngStrips(BytesIO(content)).is_plain

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_a_truncated_file_is_refused(self, tmp_path: Path, scene: Image.Image, share: float) -> None:
        content = png_of(scene, idat=500)
        (tmp_path / "a.png").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ImageError, match="the image cannot be read"):
            decode_part(tmp_path / "a.png", lambda _: Wanted((0, 0, WIDTH, HEIGHT), 0.1))

    def test_a_damaged_file_is_refused(self, tmp_path: Path, scene: Image.Image) -> None:
        content = bytearray(png_of(scene))
        at = content.index(b"IDAT") + 500
        content[at : at + 400] = bytes(400)
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ImageError, match=r"the image cannot be read \(broken"):
            decode_part(tmp_path / "a.png", lambda _: Wanted((0, 0, WIDTH, HEIGHT), 0.1))

    def test_an_image_that_ends_too_soon_is_refused(self, tmp_path: Path) -> None:
        rows = zlib.compress(b"\0" * 4 * 5)
        header = struct.pack(">IIBBBBB", 3, 9, 8, 0, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ImageError, match="the image cannot be read"):
            decode_part(tmp_path / "a.png", lambda _: Wanted((0, 0, 3, 9), 1.0))


def test_room_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Pillow fails and another reader takes over: who asked twice would wait for himself."""
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8)).save(tmp_path / "a.tif")

    def fail(*_: object) -> Image.Image:
        raise OSError("-2")

    monkeypatch.setattr(files, "_load", fail)
    asked: list[int] = []
    assert decode(tmp_path / "a.tif", admit=asked.append).image_hw == (6, 8)
    assert asked == [48]


PROGRAM = """
import resource, sys
from PIL import Image
from refseg.images.thumbnails import crop_thumbnail
Image.init()
crop_thumbnail(sys.argv[1], [0, 0, 1, 1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for box in ([0, 0, 1, 1], [0.4, 0.4, 0.1, 0.1], [0.9, 0.9, 0.01, 0.01]):
    crop_thumbnail(sys.argv[2], box)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
@pytest.mark.parametrize(("name", "most"), [("a.png", 40), ("turned.png", 40), ("whole.bmp", 64 + 40)])
def test_memory_stays_within_what_is_said(tmp_path: Path, name: str, most: int) -> None:
    """A picture of 16 megapixels: 64 MB as Pillow holds it; it was held two or three times."""
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    ramp = Image.linear_gradient("L").resize((4000, 4000))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.merge("RGB", [ramp] * 3) if name == "whole.bmp" else Image.merge("RGBA", [ramp] * 4)
    picture.save(tmp_path / name, **({"exif": exif} if name == "turned.png" else {}), compress_level=1)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "small.png"), str(tmp_path / name)]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    assert int(done.stdout) < most
