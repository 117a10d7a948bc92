"""Every door through which files come in opens plain files alone: who opens a pipe would wait for ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from refseg.images.files import decode
from refseg.matching.semantic import NAMES_FILE
from refseg.regular_files import open_regular, read_regular
from tests.doors import ANSWERING, REFUSING

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 240
"""Nobody needs as long; who does waits for ever."""
KINDS = {
    "pipe": "it is a pipe, not a file",
    "link": "it is a pipe, not a file",
    "zero": "it is a device, not a file",
    "socket": "it is a socket, not a file",
    "folder": "it is a folder, not a file",
}
ERRORS = {
    **dict.fromkeys(("decode", "own_range", "read_header", "thumbnail", "tiff"), "ImageError"),
    **dict.fromkeys(("json", "coco"), "CocoError"),
    "prototypes": "PrototypeFileError",
}

Outcome = tuple[str, Any]


def outcomes(doors: Iterable[str], paths: Iterable[Path]) -> dict[tuple[str, str], Outcome]:
    """What each door said of each path, by door and name: the type of the error or "", and the error or answer."""
    command = [sys.executable, "-m", "tests.doors", json.dumps(list(doors)), *map(str, paths)]
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=SECONDS, check=True)
    except subprocess.TimeoutExpired as error:
        last = (error.stdout or b"").decode().splitlines()[-1:]
        pytest.fail(f"it waits for ever: {last}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(line[0], Path(line[1]).stem): (line[2], line[3]) for line in lines if len(line) == 4}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Outcome]:
    folder = tmp_path_factory.mktemp("doors")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "broken.png").symlink_to(folder / "none.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / NAMES_FILE)
    os.mkfifo(folder / "config.json")
    here = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{here}/socket.png")  # the whole address may be longer than 108 bytes
    os.close(here)
    names = [*KINDS, "broken", "circle"]
    found = outcomes([*REFUSING, *ANSWERING], [folder / f"{name}.png" for name in names])
    assert (folder / "pipe.png").is_fifo()
    return found


@pytest.mark.parametrize("door", REFUSING)
def test_what_is_no_file_is_refused_in_a_sentence(said: dict[tuple[str, str], Outcome], door: str) -> None:
    for name, words in KINDS.items():
        error, text = said[door, name]
        assert error == ERRORS.get(door, "IsADirectoryError" if name == "folder" else "OSError")
        assert words in text
        assert f"{name}.png" in text


@pytest.mark.parametrize("door", REFUSING)
def test_links_that_lead_nowhere_are_refused(said: dict[tuple[str, str], Outcome], door: str) -> None:
    assert said[door, "broken"][0] == ({**ERRORS, "tiff": "FileNotFoundError"}.get(door, "FileNotFoundError"))
    assert said[door, "circle"][0] == ERRORS.get(door, "OSError")


def test_an_image_is_a_skip_with_its_reason(said: dict[tuple[str, str], Outcome]) -> None:
    for name, words in KINDS.items():
        assert said["load_image", name] == ("", f"the file cannot be read ({words})")
    assert said["load_image", "broken"] == ("", "it is a link to a file that does not exist")
    assert said["load_image", "circle"] == ("", "the file cannot be read (Too many levels of symbolic links)")


def test_who_asks_whether_gets_an_answer(said: dict[tuple[str, str], Outcome]) -> None:
    for name in KINDS:
        assert said["needs_range", name] == ("", False)
        assert said["pixel_needs", name] == ("", [False, False])
        assert said["find_pixels", name] == ("", True)
        assert said["holds_maps", name] == ("", False)
        assert said["feature_width", name] == ("", 1024)
        assert said["require_own", name] == ("", None)
        # Nothing is read to know the state of what is no file.
        assert said["file_state", name] == ("", "")


def test_nothing_is_written_over_what_is_no_file(said: dict[tuple[str, str], Outcome]) -> None:
    for name in ("pipe", "link", "zero", "socket"):
        error, text = said["write_json", name]
        assert error == "CocoError"
        assert "is a pipe or a device" in text


def test_plain_files_are_opened_whatever_leads_to_them(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 200).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    os.link(tmp_path / "a.png", tmp_path / "hard.png")
    for name in ("link.png", "hard.png"):
        assert decode(tmp_path / name).image_hw == (2, 3)
        with open_regular(tmp_path / name) as stream:
            assert stream.read(4) == b"\x89PNG"


def test_what_is_open_is_asked_and_not_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads to a file when it is looked at, and to a device when it is opened."""
    (tmp_path / "a.txt").write_text("a")
    plain = os.stat(tmp_path / "a.txt")
    monkeypatch.setattr(os, "stat", lambda *_, **__: plain)
    with pytest.raises(OSError, match="it is a device, not a file"):
        read_regular("/dev/null")
