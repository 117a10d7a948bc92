"""The App's part of RefSeg in FiftyOne's plugins folder: put there, looked at, taken away."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import PluginError
from .requirements import declared, install_line, unmet
from .version import VERSION

NAME = "@refseg/reference-segmentation"
PARTS = ("fiftyone.yml", "requirements.txt", "LICENSE", "NOTICE", "operators", "skills", "zoo")
"""What FiftyOne needs of a checkout."""

NEXT = (
    "All is well. Open a dataset in the App, press + beside the tabs and choose 'Reference segmentation'; an App that is open "
    "already is to be reloaded."
)


@dataclass(frozen=True)
class Found:
    """The plugin in FiftyOne's folder.

    Attributes:
        folder: where it lies; a link where it was linked.
        version: that its fiftyone.yml says.
    """

    folder: Path
    version: str

    @property
    def kind(self) -> str:
        """How it came there, for people."""
        return f"linked to {self.folder.resolve()}" if self.folder.is_symlink() else "copied"


def source() -> Path:
    """The folder of the App's part: in the wheel beside the library, or the repository of an editable install.

    Raises:
        PluginError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_plugin", package.parents[1]):
        if _version_in(folder) is not None:
            return folder
    raise PluginError("The App's part is not in this installation of RefSeg: install it again from its repository.")


def plugins_folder() -> Path:
    """FiftyOne's plugins folder, by its own configuration.

    Raises:
        PluginError: FiftyOne cannot be imported.
    """
    try:
        import fiftyone as fo
    except ModuleNotFoundError as error:
        raise PluginError(f"FiftyOne cannot be imported ({error}): type pip install fiftyone") from error
    except Exception as error:
        raise PluginError(f"FiftyOne cannot be imported ({type(error).__name__}: {error}).") from error
    return Path(fo.config.plugins_dir)


def found_in(folder: Path) -> list[Found]:
    """Every plugin of our name in a plugins folder, however deep FiftyOne finds it."""
    return sorted(_search(folder), key=lambda one: one.folder)


def install(folder: Path, *, links: bool = False) -> Found:
    """Put the App's part into a plugins folder, in place of an earlier one of RefSeg's.

    Args:
        folder: FiftyOne's plugins folder; made where it is missing.
        links: link the App's part instead of copying it, so that it changes as the source does.

    Raises:
        PluginError: something else lies where the plugin is to go, or the same plugin lies elsewhere in the folder.
    """
    origin, target = source(), folder / NAME
    elsewhere = [one for one in found_in(folder) if one.folder != target]
    if elsewhere:
        raise PluginError(
            f"FiftyOne has this plugin already, in {elsewhere[0].folder} (version {elsewhere[0].version}): remove it first "
            "with refseg plugin remove."
        )
    # A link that leads nowhere is one of ours whose source is gone.
    if target.exists() and _version_in(target) is None:
        raise PluginError(f"{target} is not RefSeg's plugin: move it away first.")
    _require_ours(target, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if links:
            draft.symlink_to(origin, target_is_directory=True)
        else:
            _copy(origin, draft)
        _take_away(target, folder)
        draft.rename(target)
    finally:
        if draft.is_symlink():
            draft.unlink()
        shutil.rmtree(draft, ignore_errors=True)
    return Found(target, VERSION)


def remove(folder: Path) -> list[Found]:
    """Take every plugin of our name out of a plugins folder; of a link, only the link."""
    gone = found_in(folder)
    for one in gone:
        _take_away(one.folder, folder)
    return gone


def problems(folder: Path, where: str = "") -> list[str]:
    """What keeps the plugin from working, a sentence each with what to type; empty where all is well.

    Args:
        folder: a plugins folder.
        where: how the folder was named to the command, such as " --folder plugins".
    """
    here = found_in(folder)
    told = []
    if not here:
        told.append(f"The App's part is not in {folder}: type refseg plugin install{where}")
    elif len(here) > 1:
        again = f"type refseg plugin remove{where}, then refseg plugin install{where}"
        told.append(f"FiftyOne finds the plugin {len(here)} times, such as in {here[1].folder}: {again}")
    elif here[0].version != VERSION:
        told.append(
            f"The App's part is of version {here[0].version}, the library of {VERSION}: type refseg plugin install{where}"
        )
    missing = unmet(declared())
    told += [f"{one}: type {install_line([one.requirement])}" for one in missing]
    return told


def _search(folder: Path) -> Iterator[Found]:
    # As FiftyOne looks: through links, not into hidden folders, nor below a plugin.
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(root)
        folders[:] = [] if place in seen else [name for name in folders if not name.startswith(".")]
        seen.add(place)
        if {"fiftyone.yml", "fiftyone.yaml"} & set(files):
            folders[:] = []
            version = _version_in(Path(root))
            if version is not None:
                yield Found(Path(root), version)


def _version_in(folder: Path) -> str | None:
    """The version of our plugin in a folder; None where it holds none of this name."""
    try:
        lines = (folder / "fiftyone.yml").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    about = {name: value.strip().strip("\"'") for name, _, value in (line.partition(":") for line in lines)}
    return about.get("version", "unknown") if about.get("name") == NAME else None


def _copy(origin: Path, target: Path) -> None:
    for name in PARTS:
        part, kept = origin / name, target / name
        if part.is_dir():
            shutil.copytree(part, kept, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(part, kept)


def _take_away(target: Path, folder: Path) -> None:
    """Remove a plugin from a plugins folder; of a link the link alone."""
    _require_ours(target, folder)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        shutil.rmtree(target)


def _require_ours(target: Path, folder: Path) -> None:
    """Refuse to remove what nobody but its owner should.

    Raises:
        PluginError: it is somebody's working copy or a source tree, or lies elsewhere and only a folder above it is linked.
    """
    if target.is_symlink() or not target.exists():
        return
    if (target / ".git").exists():
        raise PluginError(f"{target} is a git working copy, which is not removed: move it out of FiftyOne's plugins folder.")
    if any((target / name).exists() for name in ("pyproject.toml", "setup.py")) and not _is_download(target, folder):
        raise PluginError(f"{target} is a source tree, which is not removed: move it out of FiftyOne's plugins folder.")
    if not target.resolve().is_relative_to(folder.resolve()):
        raise PluginError(f"{target} is reached through a link of a folder above it: remove that link.")


def _is_download(target: Path, folder: Path) -> bool:
    """Whether it lies where `fiftyone plugins download` puts it."""
    return target == folder / NAME


def describe(folder: Path) -> str:
    """What is where, in lines for people."""
    lines = [f"library      {VERSION} in {Path(__file__).resolve().parent}"]
    here = found_in(folder)
    lines += [f"App's part   {one.version} in {one.folder} ({one.kind})" for one in here] or [f"App's part   not in {folder}"]
    lines.append(f"Python       {sys.executable}")
    return "\n".join(lines)


def add_plugin(commands: Any) -> None:
    """Add the subcommand `plugin` to those of `refseg`."""
    about = "Put the App's part of RefSeg into FiftyOne's plugins folder, say whether all is well there, or take it away."
    parser = commands.add_parser("plugin", help="put RefSeg into the FiftyOne App", description=about)
    actions = parser.add_subparsers(dest="action", required=True, metavar="install | status | remove")
    install = actions.add_parser("install", help="put it there, in place of an earlier version", description=about)
    install.add_argument("--link", action="store_true", help="link it instead of copying it, for those who change its code")
    status = actions.add_parser("status", help="what is where, what is missing, and what to type", description=about)
    taken = actions.add_parser("remove", help="take it away; the library stays", description=about)
    for action in (install, status, taken):
        action.add_argument("--folder", type=Path, metavar="DIR", help="by default FiftyOne's plugins folder")


def run_plugin(arguments: argparse.Namespace) -> int:
    """Run the subcommand; the exit code is 1 where something is missing."""
    folder = arguments.folder or plugins_folder()
    is_fiftyones = arguments.folder is None
    if arguments.action == "remove":
        gone = remove(folder)
        print("\n".join(f"Removed {one.folder}" for one in gone) or f"The App's part is not in {folder}.")
        return 0
    if arguments.action == "install":
        installed = install(folder, links=arguments.link)
        print(f"{NAME} {installed.version} is {installed.kind} in {installed.folder}.")
    else:
        print(describe(folder))
    wrong = problems(folder, "" if is_fiftyones else f" --folder {shlex.quote(str(arguments.folder))}")
    if is_fiftyones and _is_disabled():
        wrong.append(f"FiftyOne has the plugin disabled: type fiftyone plugins enable {NAME}")
    print("\n".join(wrong) or (NEXT if is_fiftyones else f"FiftyOne looks there with FIFTYONE_PLUGINS_DIR={folder.absolute()}"))
    return 1 if wrong else 0


def _is_disabled() -> bool:
    import fiftyone.plugins as fop

    return NAME in fop.list_disabled_plugins()
