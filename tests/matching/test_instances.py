"""What instances say of themselves."""

from __future__ import annotations

from dataclasses import replace

import torch

from refseg.matching.ranking import match
from refseg.matching.similarity import Gallery
from tests.synthetic import make_candidates, make_matrix


def test_pieces_of_each_mask() -> None:
    """Of masks at the image's size, in their order."""
    found = match(make_candidates(), Gallery(make_matrix()), max_detections=3)
    assert found.pieces == (1, 1, 1)
    two = torch.ones(6, 9, dtype=torch.bool)
    two[:, 4] = False
    island = two.clone()
    island[1:, 5:] = False
    assert replace(found, masks=(two, found.masks[1], island)).pieces == (2, 1, 1)
    assert replace(found, masks=()).pieces == ()
