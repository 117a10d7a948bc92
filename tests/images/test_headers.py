"""What a file says of its image without being decoded."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from refseg.errors import ImageError
from refseg.images.reading import read_image, read_image_hw, read_orientation
from tests.images.test_files import blocks, exif_of


def test_orientation_that_is_none(tmp_path: Path) -> None:
    for value in (0, 9, 77):
        Image.fromarray(blocks()).save(tmp_path / "a.jpg", exif=exif_of(value))
        assert (read_orientation(tmp_path / "a.jpg"), read_image_hw(tmp_path / "a.jpg")) == (1, (48, 80))


def test_damaged_exif_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(blocks()).save(stream, "JPEG", exif=exif_of(6))
    (tmp_path / "a.jpg").write_bytes(stream.getvalue().replace(b"MM\0*", b"XX\0*").replace(b"II*\0", b"XX*\0"))
    assert (read_orientation(tmp_path / "a.jpg"), read_image(tmp_path / "a.jpg").size) == (1, (80, 48))


def test_header_of_a_png_is_read_without_its_pixels(tmp_path: Path) -> None:
    Image.fromarray(blocks()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"IDAT") + 4
    (tmp_path / "a.png").write_bytes(content[:start] + bytes(20) + content[start + 20 :])
    assert read_image_hw(tmp_path / "a.png") == (48, 80)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "a.png")
