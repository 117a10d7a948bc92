from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from refseg.errors import CocoError
from refseg.outputs import check_outputs, is_png, replacing, require_json


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as draft:
        draft.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    def fail() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_outputs_are_not_inputs_however_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = tmp_path / "refs.json"
    read.write_text("{}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.json").symlink_to(read)
    (tmp_path / "linked").symlink_to(tmp_path)
    os.link(read, tmp_path / "hard.json")
    monkeypatch.chdir(tmp_path)
    inputs = {"--references": read, "--targets": tmp_path / "none.json"}
    same = ("refs.json", "sub/../refs.json", "link.json", "linked/refs.json", "hard.json")
    for name in same:
        with pytest.raises(CocoError, match="--out would be written over what --references names"):
            check_outputs({"--report": Path("other.json"), "--out": Path(name)}, inputs)
    check_outputs({"--out": Path("sub/refs.json"), "--report": Path("report.json")}, inputs)


def test_outputs_are_not_each_other(tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path)
    with pytest.raises(CocoError, match="--out and --report are one file"):
        check_outputs({"--out": tmp_path / "a.json", "--report": tmp_path / "linked" / "a.json"}, {})


def test_folders_of_inputs_and_images(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").touch()
    (tmp_path / "1.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "1.png")
    folder = {"--dinov2-path": tmp_path / "weights"}
    with pytest.raises(CocoError, match="--prototypes would be written over what --dinov2-path names"):
        check_outputs({"--prototypes": tmp_path / "weights" / "model.safetensors"}, folder)
    check_outputs({"--prototypes": tmp_path / "weights" / "mine.safetensors"}, folder)
    for out in ("1.png", "link.png"):
        with pytest.raises(CocoError, match="--out would be written over the image"):
            check_outputs({"--out": tmp_path / out}, {}, [tmp_path / "0.png", str(tmp_path / "1.png")])
    check_outputs({"--out": tmp_path / "2.png"}, {}, [tmp_path / "1.png"])


def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(CocoError, match=r"pipe\.json is a pipe or a device"), replacing(pipe) as draft:
        draft.write_text("new")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    with replacing(link) as draft:
        draft.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_only_a_file_of_its_kind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    for content, is_kept in (
        (b"\xff\xd8photo", True),
        (b"notes", True),
        (b"", False),
        (b"\xef\xbb\xbf {}", False),
        (b"[1]", False),
    ):
        path.write_bytes(content)
        if is_kept:
            with pytest.raises(CocoError, match=r"photo\.jpg exists and is not a JSON file, .*: name another file"):
                require_json(path)
        else:
            require_json(path)
    require_json(tmp_path / "none.json")
    path.write_bytes(b"notes")
    (tmp_path / "link.json").symlink_to(path)
    with pytest.raises(CocoError, match=r"link\.json exists and is not a JSON file"):
        require_json(tmp_path / "link.json")


def test_what_a_png_is(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a", "PNG")
    Image.new("RGB", (2, 2)).save(tmp_path / "b.png", "JPEG")
    assert [is_png(tmp_path / name) for name in ("a", "b.png")] == [True, False]
