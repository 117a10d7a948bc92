"""Which candidates around references are looked at again, so that calibration sees what a run would see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..candidates import Candidates, PackedCandidates
from ..matching import Galleries, Looked, MatchSettings, classify, pick
from ..models import Preset
from ..prototypes import Prototypes
from .mining import without_mined

MORE = 4
"""So many more than in a run: once the surroundings are known, others may be the best."""

Look = Callable[[Tensor], Looked | None]
"""Looks again at some rows of the candidates of an image."""


class Teacher:
    """Looks again at what a run would look at in images of references, with them and as if each had never been shown.

    Args:
        prototypes: of the references.
        preset: how many candidates of an image are looked at again.
    """

    def __init__(self, prototypes: Prototypes, preset: Preset) -> None:
        self._most = preset.second_looks + MORE if preset.second_looks and prototypes.looks is not None else 0
        # As if nothing had been learnt: who calibrates twice gets the same twice.
        plain = replace(without_mined(prototypes), surroundings=None, cohort=None)
        self._galleries = Galleries(plain, MatchSettings())
        self._width = 0 if prototypes.looks is None else prototypes.looks.shape[1]

    def looks(
        self, candidates: Candidates | PackedCandidates, image: str, look: Look
    ) -> Callable[[Tensor, int], Tensor] | None:
        """As `refseg.prototypes.look_around` takes it; None where nobody looks twice.

        Args:
            candidates: of the image.
            image: its key.
            look: looks again.
        """
        if not self._most:
            return None

        def at(rows: Tensor, num_shown: int) -> Tensor:
            picked = [rows[:num_shown]]
            for without in ("", image) if num_shown else ("",):
                picked.append(pick(candidates, classify(candidates.features, self._galleries.make(without)), self._most))
            every = torch.cat(picked)
            wanted = rows[torch.isin(rows, every)]
            looked = look(wanted)
            return torch.zeros(len(rows), self._width) if looked is None else looked.at(rows)

        return at
