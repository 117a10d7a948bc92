"""Values print as one line that a person can read, whatever they hold."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import refseg
from refseg.candidates.packing import PackedCandidates
from refseg.candidates.proposing import Candidates
from refseg.index.candidate_index import CandidateIndex
from refseg.matching.instances import Instances
from refseg.models.loaded import Models
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings
from refseg.prototypes.vectors import Reference
from tests.index.test_candidate_index import make_index


def make_prototypes(shots: dict[str, int], **more: object) -> Prototypes:
    labels = [row for row, number in enumerate(shots.values()) for _ in range(number)]
    ids = tuple(f"id-{number}" for number in range(len(labels)))
    return Prototypes(tuple(shots), torch.ones(len(labels), 1024), torch.tensor(labels), ids, "large", "f" * 12, **more)


def make_candidates(number: int, gated: bool = False) -> Candidates:
    return Candidates(torch.ones(number, 64, 64), torch.ones(number), torch.ones(number, 384), (160, 200), gated)


def packed(number: int) -> PackedCandidates:
    nothing = pa.array([b""] * number, pa.binary())
    return PackedCandidates(
        nothing, nothing, torch.ones(number, 4), torch.ones(number), torch.ones(number, 384), (160, 200), 256
    )


NEGATIVES = Negatives(torch.ones(3, 1024), ("nut", "shadow", "nut"), ("a", "b", "c"), ("", "", ""))
AROUND = Surroundings(torch.ones(3, 1024).half(), ("i", "j", "j"), ("id-0", "", ""))
MANY = {f"class {number}": 2 for number in range(80)}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            make_prototypes({"nut": 3, "gear": 5}, skipped=(("x", "too thin"),)),
            "Prototypes(2 classes: nut 3, gear 5; model 'large', width 1024; 1 skipped)",
        ),
        (
            make_prototypes({"nut\n": 1}, negatives=NEGATIVES, surroundings=AROUND),
            "Prototypes(1 class: nut 1; model 'large', width 1024; 3 negatives; calibrated)",
        ),
        (
            make_prototypes(MANY),
            "Prototypes(80 classes: class 0 2, class 1 2, class 2 2, class 3 2, class 4 2, class 5 2 and 74 more; "
            "model 'large', width 1024)",
        ),
        (NEGATIVES, "Negatives(3: nut 2, shadow 1; width 1024)"),
        (AROUND, "Surroundings(3 candidates of 2 images: 1 show references)"),
        (
            Reference("65a", "nut", "/data/a.png", (1, 2.5, 10, 20), np.ones((18, 9), bool)),
            "Reference('nut', '65a', with a mask at 1, 2.5, 10, 20 in /data/a.png)",
        ),
        (
            Reference("65a", "nut", f"/data/{'deep/' * 40}a.png", (0, 0, 10, 20)),
            "Reference('nut', '65a', by its box at 0, 0, 10, 20 in "
            "/data/deep/deep/deep/deep/de … ep/deep/deep/deep/deep/a.png)",
        ),
        (make_candidates(12), "Candidates(12 masks of 64 × 64 cells; image of 200 × 160 pixels; features of width 384)"),
        (
            make_candidates(0, True),
            "Candidates(0 masks of 64 × 64 cells; image of 200 × 160 pixels; features of width 384; gated)",
        ),
        (packed(1), "PackedCandidates(1 mask of 256 × 256 cells; image of 200 × 160 pixels; features of width 384)"),
        (
            Instances((torch.ones(2, 2),) * 2, *(torch.ones(2, *shape) for shape in ((4,), (), (), (), (), ()))),
            "Instances(masks=tuple of 2, boxes=float32 (2, 4), labels=float32 (2,), scores=float32 (2,), rows=float32 (2,), "
            "margins=float32 (2,), runners_up=float32 (2,))",
        ),
    ],
)
def test_lines(value: object, line: str) -> None:
    assert repr(value) == str(value) == line


def test_index(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", range(4))
    assert repr(index) == f"CandidateIndex(4 images with 6 candidates; model 'demo'; {tmp_path / 'index'})"
    assert isinstance(index, CandidateIndex)
    (chunk,) = index.scan()
    assert repr(chunk) == "IndexChunk(6 candidates of 4 images; model 'demo')"


def test_models(models: Models) -> None:
    assert repr(models) == f"Models('demo' on cpu, float32; encoder {models.fingerprint})"


def test_whatever_holds_numbers_says_how_it_prints() -> None:
    """A dataclass's own way would print them all."""
    checked = set()
    for found in pkgutil.walk_packages(refseg.__path__, "refseg."):
        if found.name.startswith("refseg.demo") or found.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(found.name)).items():
            if dataclasses.is_dataclass(kind) and kind.__module__ == found.name and not name.startswith("_"):
                numbers = [field.name for field in dataclasses.fields(kind) if _holds_numbers(str(field.type))]
                if numbers and any(field.repr for field in dataclasses.fields(kind) if field.name in numbers):
                    checked.add(name)
                    # What dataclasses make wraps another function.
                    assert not hasattr(kind.__repr__, "__wrapped__"), name
    assert {"Prototypes", "Candidates", "PackedCandidates", "Instances", "Gallery"} <= checked


def _holds_numbers(annotation: str) -> bool:
    return any(kind in annotation for kind in ("Tensor", "NDArray", "BinaryArray"))
