"""How far two computations of the same number may lie apart, by dtype."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {
    torch.bool: 0.0,
    torch.int64: 0.0,
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}


class Score(float):
    """A score that equals any within rounding: processors add up a batch of another size in another order."""

    ROUNDING = 1e-6

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(float(self) - float(other)) <= self.ROUNDING

    def __ne__(self, other: object) -> bool:
        return not self == other


def assert_near(actual: Tensor, expected: Tensor, *, at_most: float | None = None) -> None:
    """Fail unless both have one shape, one dtype, and values within the dtype's tolerance (or `at_most`)."""
    tolerance = TOLERANCE[expected.dtype] if at_most is None else at_most
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
