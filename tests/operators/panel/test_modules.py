"""The panel's JavaScript modules: each is loaded, and each name that one imports is given by another and used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from refseg.plugin import PARTS

PANEL = Path(__file__).parents[3] / "operators" / "panel"
MODULES = sorted((PANEL / "js").glob("*.js"))
IMPORT = re.compile(r'^import \{ ([^}]*) \} from "\./([a-z_]+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async function|function|const) (?:\{ ([^}]*) \}|([^;\n]*))", re.MULTILINE)


def exported(module: Path) -> set[str]:
    """Names after `export function`, `export const a = …, b = …` and `export const { a, b: c } = …`."""
    names: set[str] = set()
    for several, one in EXPORT.findall(module.read_text(encoding="utf-8")):
        if several:
            names |= {item.split(":")[-1].strip() for item in several.split(",")}
        else:
            names |= {re.split(r"[ (]", one)[0], *re.findall(r'", ([A-Z]+) = "', one)}
    return names


def test_all_are_fetched_before_the_first_is_run() -> None:
    fetched = re.search(r"const MODULES = \[([^\]]*)\]", (PANEL / "panel.js").read_text(encoding="utf-8"))
    assert fetched is not None
    assert re.findall(r'"([a-z_]+)"', fetched[1]) == [module.stem for module in MODULES]
    assert "operators" in PARTS


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_what_is_imported_is_there_and_used(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    statements = IMPORT.findall(text)
    assert len(statements) == len(re.findall(r"^import ", text, re.MULTILINE))
    code = IMPORT.sub("", text)
    for names, source in statements:
        wanted = set(names.split(", "))
        assert wanted - exported(PANEL / "js" / f"{source}.js") == set(), source
        assert {name for name in wanted if not re.search(rf"\b{name}\b", code)} == set()
    for name in ("h", "mui", "useState", "useEffect", "useRef", "useCallback", "useRecoilValue"):
        if re.search(rf"(?<![\w.]){name}[.(]", code):
            assert re.search(rf"\b{name}\b", " ".join(names for names, _ in statements)), name


def test_sections_call_what_is_imported() -> None:
    """A name of another module that is used without being imported would fail in the browser alone."""
    everything = {name: module.stem for module in MODULES for name in exported(module)}
    for module in MODULES:
        text = module.read_text(encoding="utf-8")
        known = {name for names, _ in IMPORT.findall(text) for name in names.split(", ")} | exported(module)
        code = re.sub(r'"[^"\n]*"|`[^`]*`|//.*|/\*.*?\*/', "", IMPORT.sub("", text), flags=re.DOTALL)
        own = set(re.findall(r"(?:const|let|function) \[?\{?([\w, ]+)", code))
        own = {name.strip() for names in own for name in names.split(",")}
        used = {name for name in everything if re.search(rf"(?<![\w.\"]){name}\(", code)}
        assert used - known - own == set(), module.stem
