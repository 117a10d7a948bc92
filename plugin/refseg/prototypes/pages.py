"""Prototypes as a notebook shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..notebook import Html, bars, details, facts, heading, matrix, page
from ..printing import counted

if TYPE_CHECKING:
    from .prototypes import Prototypes


def prototypes_page(prototypes: Prototypes) -> str:
    """References a class as bars, how alike the classes are as a coloured table, and what else the prototypes know."""
    shots, matrix_of = prototypes.shots, prototypes.matrix
    known = prototypes.surroundings
    alike = matrix(list(shots), (matrix_of @ matrix_of.T).tolist()) if len(shots) > 1 else Html()
    return page(
        f"Prototypes of {counted(len(shots), 'class')}",
        heading("References"),
        bars({name: float(number) for name, number in shots.items()}),
        Html(heading("Cosine of the prototypes") + alike) if alike else None,
        facts(
            {
                "model": f"{prototypes.model}, width {prototypes.vectors.shape[-1]}",
                "negatives": 0 if prototypes.negatives is None else len(prototypes.negatives),
                "calibrated": "no: scores are similarities" if known is None else f"by {counted(len(known), 'candidate')}",
                "pixels": None if prototypes.pixels.is_plain else str(prototypes.pixels),
                "looked at": "turned and mirrored too" if prototypes.turned else None,
            }
        ),
        details(f"{counted(len(prototypes.skipped), 'object')} skipped", [f"{why} ({one})" for one, why in prototypes.skipped]),
    )
