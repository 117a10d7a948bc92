"""How much room an index takes is known before the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from refseg.errors import IndexSpaceError, IndexWriteError
from refseg.index.space import IMAGES_THAT_TELL, Room, bytes_per_image, free_bytes, room_for
from refseg.models.loaded import load_models
from refseg.models.presets import PRESETS, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_an_estimate(name: str) -> None:
    preset = get_preset(name)
    assert 1e4 < bytes_per_image(preset) < 5e6
    assert bytes_per_image(preset, exact=True) > bytes_per_image(preset) or preset.as_published


def test_estimates() -> None:
    assert bytes_per_image(get_preset("large")) == (88 * (2 * 1024 + 1300))
    assert bytes_per_image(get_preset("paper")) == bytes_per_image(get_preset("paper"), exact=True) == 512 * (4 * 1024 + 5000)


@pytest.mark.parametrize(("name", "width"), [("tiny", 384), ("small", 384), ("base", 768), ("large", 1024), ("paper", 1024)])
def test_width_is_known_without_weights(name: str, width: int) -> None:
    assert get_preset(name).feature_width == width


def test_width_of_a_folder_is_that_of_its_models() -> None:
    assert get_preset("demo").feature_width == load_models("demo").feature_width


def test_free_where_a_folder_will_be(tmp_path: Path) -> None:
    free = free_bytes(str(tmp_path / "not" / "there"))
    assert free is not None
    assert abs(free - shutil.disk_usage(tmp_path).free) < 1e9
    assert free_bytes(f"file://{tmp_path}") is not None
    assert free_bytes("s3://bucket/parts") is None


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    assert isinstance(free_bytes(str(tmp_path / ("a" * 300))), int)


def test_room(tmp_path: Path) -> None:
    large = get_preset("large")
    small, huge = room_for(str(tmp_path), 10, large), room_for(str(tmp_path), 10**12, large)
    assert small.needed == 10 * bytes_per_image(large)
    assert small.fits
    small.require()
    assert not huge.fits
    with pytest.raises(IndexSpaceError, match=r"of 1,000,000,000,000 images will take about .* GB, .* free, at .*insist=True"):
        huge.require()
    assert issubclass(IndexSpaceError, IndexWriteError)


def test_what_is_held_tells_what_will_be() -> None:
    preset = get_preset("large")
    assert room_for("/", 10, preset, held=(IMAGES_THAT_TELL, 1000 * IMAGES_THAT_TELL)).needed == 10_000
    assert room_for("/", 10, preset, held=(IMAGES_THAT_TELL - 1, 1000)).needed == 10 * bytes_per_image(preset)


def test_tiles_take_at_least_so_much() -> None:
    preset = get_preset("large")
    assert str(room_for("s3://b", 1000, preset, tiles=True)) == "at least 294.6 MB"
    assert str(room_for("s3://b", 1000, preset, tiles=True, held=(100, 10**9))) == "about 10.0 GB"


def test_object_stores_have_room() -> None:
    room = room_for("s3://bucket/parts", 10**12, get_preset("large"))
    assert room.free is None
    assert room.fits
    assert str(Room("s3://b", 1, 2_500_000_000, None)) == "about 2.5 GB"
    assert str(Room("/x", 1, 2_500_000_000, 10**9)) == "about 2.5 GB, 1.0 GB free"
