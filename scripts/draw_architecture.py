"""Draw docs/architecture.svg: the packages as pyproject.toml stacks them, what each takes and gives, and three paths.

python scripts/draw_architecture.py
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # Python 3.10 has it with mypy and pytest.

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "architecture.svg"
PATHS = {
    "an image": ("#1f77b4", ("dataset", "images", "candidates", "index", "matching", "runs")),
    "a reference": ("#2ca02c", ("dataset", "images", "prototypes", "calibration", "insight", "dataset")),
    "a decision": ("#d62728", ("review", "dataset", "prototypes", "runs")),
}
"""Colour and packages of each path, as docs/architecture.md tells them."""
PURPOSES = {
    "cli": "the commands",
    "published": "public benchmarks → figures",
    "demo": "a world → dataset, models",
    "plugin": "the App's part → FiftyOne",
    "arguments": "what commands have in common",
    "evaluation": "two fields → COCO's figures",
    "runs": "view, prototypes → predictions",
    "review": "predictions → decisions",
    "dataset": "datasets, views and labels → references, and the candidates of their images",
    "coco": "COCO files → results, average precision",
    "insight": "prototypes → what helps them, what hurts",
    "calibration": "images whose objects are known → thresholds, negatives",
    "matching": "candidates and prototypes → ranked instances with labels and scores",
    "shards": "images → parts of an index, by many workers",
    "prototypes": "references → one prototype a class",
    "index": "candidates of many images → those of some",
    "candidates": "pixels → masks that may be objects, each with a feature and a predicted IoU",
    "models": "a preset's name → segmenter and encoder on a device",
    "masks": "run lengths, polygons, pictures → boolean arrays, boxes",
    "images": "a path → an upright image of eight-bit RGB",
    "progress": "bars, cancelling",
    "outputs": "files that commands write",
    "checks": "what a public function accepts",
    "notebook": "reports → HTML",
    "errors": "what is wrong",
    "printing": "values, short",
    "names": "keys, folders",
    "failpoints": "where tests kill",
    "processes": "who is still there",
    "regular_files": "no pipes",
    "requirements": "what is missing",
    "version": "one number",
}
PACKAGES = [name for name in PURPOSES if (ROOT / "plugin" / "refseg" / name).is_dir()]
FIRST_OF_FIFTYONE = "dataset"
FACES = {"module": ("#f2f2f2", "#bbbbbb"), "package": ("#e8f0fb", "#7f9fcf"), "outside": ("#fff3e0", "#e0a050")}
WIDTH, HEIGHT, GAP = 10.0, 0.78, 0.16


def layers() -> list[list[str]]:
    """The packages of each floor, the lowest first, as import-linter is told."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip() for name in floor.split("|")] for floor in reversed(floors)]


def draw() -> str:
    """The figure as SVG."""
    floors = layers()
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "refseg", "font.family": "sans-serif", "font.size": 9}
    figure, axes = plt.subplots(figsize=(9.6, 0.55 * (len(floors) + 2)))
    axes.set(xlim=(-2.2, 11.2), ylim=(-0.1, len(floors) + 1.2))
    axes.axis("off")
    levels: dict[str, float] = {}
    for level, names in enumerate(floors):
        width = WIDTH / len(names)
        for column, name in enumerate(names):
            _box(axes, name, PURPOSES[name], column * width, level, width - GAP)
            levels[name] = level + HEIGHT / 2
    begins = next(level for level, names in enumerate(floors) if FIRST_OF_FIFTYONE in names)
    line = begins - (1 - HEIGHT) / 2
    axes.plot((-2.2, 11.2), (line, line), "--", color="#888888", linewidth=1)
    axes.text(11.2, line + 0.08, "FiftyOne", color="#666666", ha="right", va="bottom")
    axes.text(11.2, line - 0.08, "no FiftyOne", color="#666666", ha="right", va="top")
    top = len(floors) + 0.2
    _box(axes, "operators", "what FiftyOne's App loads: it imports the library, and nothing imports it", 0, top, WIDTH - GAP)
    for row, (what, (color, names)) in enumerate(PATHS.items()):
        _path(axes, [levels[name] for name in names], color, -1.95 + 0.65 * row, top + 0.35, what)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _box(axes: Any, name: str, purpose: str, x: float, y: float, width: float) -> None:
    face, edge = FACES["outside" if name == "operators" else "package" if name in PACKAGES else "module"]
    axes.add_patch(FancyBboxPatch((x, y), width, HEIGHT, "round,pad=0,rounding_size=0.1", fc=face, ec=edge))
    axes.text(x + 0.12, y + 0.55, name, weight="bold", va="center")
    axes.text(x + 0.12, y + 0.22, purpose, va="center", fontsize=7.5, color="#333333")


def _path(axes: Any, levels: list[float], color: str, x: float, top: float, what: str) -> None:
    """A lane beside the packages, with a numbered stop at the floor of each."""
    axes.plot((x, x), (min(levels), max(levels)), color=color, linewidth=1.2, alpha=0.5)
    stops: dict[float, list[str]] = {}
    for number, level in enumerate(levels, 1):
        stops.setdefault(level, []).append(str(number))
    shape = {"boxstyle": "round,pad=0.3", "fc": color, "ec": "none"}
    for level, numbers in stops.items():
        axes.text(x, level, "·".join(numbers), color="white", ha="center", va="center", fontsize=8, bbox=shape)
    axes.text(x, top, f"Path of\n{what}", color=color, ha="center", va="center", fontsize=7.5, rotation=90)


if __name__ == "__main__":
    OUT.write_text(draw())
    print(OUT)
