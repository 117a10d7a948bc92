"""The App's part in a plugins folder: copied, linked, looked at, taken away, and never something else's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refseg import plugin
from refseg.cli import main
from refseg.errors import PluginError
from refseg.plugin import NAME, NEXT, PARTS, Found, found_in, install, remove, source
from refseg.version import VERSION

ROOT = Path(__file__).resolve().parent.parent


def test_source_is_the_repository_here() -> None:
    assert source() == ROOT


class TestInstall:
    def test_copies(self, tmp_path: Path) -> None:
        found = install(tmp_path / "new" / "plugins")
        assert found == Found(tmp_path / "new" / "plugins" / NAME, VERSION)
        assert found.kind == "copied"
        assert sorted(path.name for path in found.folder.iterdir()) == sorted(PARTS)
        assert (found.folder / "operators" / "panel" / "panel.js").is_file()
        assert not list(found.folder.rglob("__pycache__"))

    def test_links(self, tmp_path: Path) -> None:
        found = install(tmp_path, links=True)
        assert found.folder.resolve() == ROOT
        assert found.kind == f"linked to {ROOT}"
        assert found_in(tmp_path) == [found]

    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("second", [False, True])
    def test_takes_the_place_of_an_earlier_one(self, tmp_path: Path, first: bool, second: bool) -> None:
        install(tmp_path, links=first)
        if not first:
            (tmp_path / NAME / "operators" / "gone.py").touch()
        found = install(tmp_path, links=second)
        assert found_in(tmp_path) == [found]
        assert found.folder.is_symlink() is second
        assert not (found.folder / "operators" / "gone.py").exists()
        assert (ROOT / "operators" / "segment.py").is_file()

    def test_not_beside_the_same_plugin(self, tmp_path: Path) -> None:
        shutil.copytree(install(tmp_path / "a").folder, tmp_path / "b" / "downloaded")
        with pytest.raises(PluginError, match=r"has this plugin already, in .*downloaded .*refseg plugin remove"):
            install(tmp_path / "b")

    def test_not_over_something_else(self, tmp_path: Path) -> None:
        (tmp_path / NAME).mkdir(parents=True)
        (tmp_path / NAME / "mine.txt").touch()
        with pytest.raises(PluginError, match="is not RefSeg's plugin"):
            install(tmp_path)
        assert (tmp_path / NAME / "mine.txt").exists()

    def test_not_over_a_link_to_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "plugins" / NAME).parent.mkdir(parents=True)
        (tmp_path / "plugins" / NAME).symlink_to(tmp_path / "mine", target_is_directory=True)
        with pytest.raises(PluginError, match="is not RefSeg's plugin"):
            install(tmp_path / "plugins")
        (tmp_path / "mine").rmdir()
        assert install(tmp_path / "plugins").kind == "copied"

    def test_nothing_is_left_of_one_that_failed(self, tmp_path: Path) -> None:
        folder = install(tmp_path).folder
        (folder / ".git").mkdir()
        with pytest.raises(PluginError, match="git working copy"):
            install(tmp_path)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]


class TestRemove:
    @pytest.mark.parametrize("links", [False, True])
    def test_takes_it_away(self, tmp_path: Path, links: bool) -> None:
        found = install(tmp_path, links=links)
        assert remove(tmp_path) == [found]
        assert found_in(tmp_path) == remove(tmp_path) == []
        assert (ROOT / "fiftyone.yml").is_file()

    def test_keeps_a_working_copy(self, tmp_path: Path) -> None:
        folder = install(tmp_path).folder
        (folder / ".git").mkdir()
        with pytest.raises(PluginError, match="is a git working copy"):
            remove(tmp_path)
        assert (folder / "fiftyone.yml").is_file()

    def test_keeps_a_source_tree(self, tmp_path: Path) -> None:
        folder = install(tmp_path / "plugins").folder
        tree = folder.rename(tmp_path / "plugins" / "unpacked")
        (tree / "pyproject.toml").touch()
        with pytest.raises(PluginError, match="is a source tree, which is not removed"):
            remove(tmp_path / "plugins")
        with pytest.raises(PluginError, match="is a source tree, which is not removed"):
            remove(tree)
        assert (tree / "fiftyone.yml").is_file()

    def test_a_download_is_taken_away_whole(self, tmp_path: Path) -> None:
        folder = install(tmp_path).folder
        (folder / "pyproject.toml").touch()
        remove(tmp_path)
        assert not folder.exists()

    def test_keeps_what_lies_behind_a_linked_folder(self, tmp_path: Path) -> None:
        folder = install(tmp_path / "elsewhere").folder
        (tmp_path / "plugins").mkdir()
        (tmp_path / "plugins" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        with pytest.raises(PluginError, match="remove that link"):
            remove(tmp_path / "plugins")
        assert (folder / "fiftyone.yml").is_file()


class TestCommand:
    def test_install_status_remove(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        where = ["--folder", str(tmp_path)]
        there = f"FIFTYONE_PLUGINS_DIR={tmp_path}"
        assert main(["plugin", "install", *where]) == 0
        assert (
            capsys.readouterr().out == f"{NAME} {VERSION} is copied in {tmp_path / NAME}.\nFiftyOne looks there with {there}\n"
        )
        assert main(["plugin", "status", *where]) == 0
        told = capsys.readouterr().out
        assert f"App's part   {VERSION} in {tmp_path / NAME} (copied)" in told
        assert sys.executable in told
        assert main(["plugin", "remove", *where]) == 0
        assert capsys.readouterr().out == f"Removed {tmp_path / NAME}\n"
        assert main(["plugin", "remove", *where]) == 0
        assert capsys.readouterr().out == f"The App's part is not in {tmp_path}.\n"
        assert main(["plugin", "status", *where]) == 1
        assert f"The App's part is not in {tmp_path}: type refseg plugin install --folder {tmp_path}" in capsys.readouterr().out

    def test_status_of_another_version_and_of_two(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        about = install(tmp_path).folder / "fiftyone.yml"
        about.write_text(about.read_text().replace(f'version: "{VERSION}"', 'version: "0.0.1"'))
        assert main(["plugin", "status", "--folder", str(tmp_path)]) == 1
        assert (
            f"The App's part is of version 0.0.1, the library of {VERSION}: type refseg plugin install"
            in capsys.readouterr().out
        )
        shutil.copytree(about.parent, tmp_path / "again")
        assert main(["plugin", "status", "--folder", str(tmp_path)]) == 1
        assert "FiftyOne finds the plugin 2 times" in capsys.readouterr().out

    def test_status_says_what_is_missing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plugin, "declared", lambda: ["no-such-library>=2"])
        assert main(["plugin", "install", "--folder", str(tmp_path)]) == 1
        assert "no-such-library is not installed: type SAM2_BUILD_CUDA=0" in capsys.readouterr().out

    def test_disabled_in_fiftyone(self, capsys: pytest.CaptureFixture[str]) -> None:
        import fiftyone.plugins as fop

        assert main(["plugin", "status"]) == 0
        assert NEXT in capsys.readouterr().out
        fop.disable_plugin(NAME)
        try:
            assert main(["plugin", "status"]) == 1
            assert f"FiftyOne has the plugin disabled: type fiftyone plugins enable {NAME}" in capsys.readouterr().out
        finally:
            fop.enable_plugin(NAME)

    def test_folders_that_link_in_a_circle(self, tmp_path: Path) -> None:
        found = install(tmp_path)
        (tmp_path / "round").mkdir()
        (tmp_path / "round" / "again").symlink_to(tmp_path, target_is_directory=True)
        assert found_in(tmp_path)[0] == found

    def test_error_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / NAME).mkdir(parents=True)
        assert main(["plugin", "install", "--folder", str(tmp_path)]) == 2
        assert capsys.readouterr().err.startswith(f"refseg: error: {tmp_path / NAME} is not RefSeg's plugin")


@pytest.mark.slow
def test_fiftyone_finds_what_was_installed(tmp_path: Path) -> None:
    """FiftyOne's own commands, in processes whose plugins folder is the one that was installed to."""
    environment = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(tmp_path)}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", "from fiftyone.core.cli import main; main()", *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    install(tmp_path)
    assert NAME in run("plugins", "list", "--names-only")
    listed = run("operators", "list", "--names-only").partition(NAME)[2]
    assert {"segment", "build_index", "cancel"} <= set(listed.split())
    assert "reference-segmentation" in run("skills", "list", "--plugin", NAME)


@pytest.mark.parametrize("module", ["lazy_loader", "packaging"])
def test_command_without_a_library_says_which(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from refseg.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"refseg: error: {module} is not installed, which RefSeg needs. Type: ")
    assert done.stderr.strip().endswith(f'-m pip install "{module.replace("_", "-")}"')
