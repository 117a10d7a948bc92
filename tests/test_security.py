"""What SECURITY.md promises of the code that is released."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from operators.forms.allowed_folders import PLACES, VARIABLE

ROOT = Path(__file__).resolve().parent.parent
RELEASED = sorted(path for part in ("plugin/refseg", "operators", "zoo") for path in (ROOT / part).rglob("*.py"))

NEVER = {"eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load", "yaml.load", "joblib.load", "shelve.open"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal"}
NEEDED = {
    "torch.load": ("weights_only", True),
    "from_pretrained": ("use_safetensors", True),
}
FORBIDDEN = {"shell", "allow_pickle", "trust_remote_code"}


def breaches(source: str) -> Iterator[str]:
    """Calls that would run what they read."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        loads = name.rpartition(".")[2] in ("load", "loads", "Unpickler")
        if name in NEVER or (loads and name.partition(".")[0] in PICKLES):
            yield ast.unparse(node)
        for call, (word, value) in NEEDED.items():
            if name == call or name.endswith(f".{call}"):
                found = given.get(word)
                if not isinstance(found, ast.Constant) or found.value is not value:
                    yield f"{ast.unparse(node)} without {word}={value}"
        yield from (f"{word} in {ast.unparse(node)}" for word in FORBIDDEN & given.keys())


@pytest.mark.parametrize(
    "source",
    [
        *("pickle.load(file)", "dill.loads(data)", "pickle.Unpickler(file).load()", "eval(text)", "torch.load(path)"),
        *("torch.load(path, weights_only=False)", "Dinov2Model.from_pretrained(folder)", "np.load(path, allow_pickle=True)"),
        *("subprocess.run(line, shell=True)", "AutoModel.from_pretrained(a, use_safetensors=True, trust_remote_code=True)"),
    ],
)
def test_a_breach_is_found(source: str) -> None:
    assert list(breaches(source))


def test_nothing_that_is_read_is_run() -> None:
    assert len(RELEASED) > 150
    found = [f"{path.relative_to(ROOT)}: {one}" for path in RELEASED for one in breaches(path.read_text(encoding="utf-8"))]
    assert found == []


def test_places_and_their_variable_are_described() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert all(f"`{name}`" in text for name in (*PLACES, VARIABLE))
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
