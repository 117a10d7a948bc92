"""Patches as colours: axes worked by hand, invariances, degenerate inputs."""

from __future__ import annotations

import pytest
import torch

from refseg.insight.patch_colors import principal_colors


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


class TestPrincipalColors:
    def test_axes_in_the_order_of_their_variance(self) -> None:
        line = torch.arange(-5.0, 6.0)
        features = torch.zeros(121, 5)
        features[:, 3] = 10 * line.repeat(11)
        features[:, 1] = -4 * line.repeat_interleave(11)
        colors = principal_colors(features, torch.ones(121, dtype=torch.bool))
        assert colors.shape == (121, 3)
        # The 2nd and 98th percentiles of eleven values of eleven each are the first and the last. An axis points to where its
        # largest entry grows, and what does not vary lies in the middle.
        scale = (torch.arange(11) / 10).tolist()
        assert colors[:11, 0].tolist() == pytest.approx(scale, abs=1e-4)
        assert colors[::11, 1].tolist() == pytest.approx(scale[::-1], abs=1e-4)
        assert colors[:, 2].tolist() == [0.5] * 121

    def test_background_changes_nothing_inside(self) -> None:
        features = torch.randn(60, 8, generator=seeded())
        inside = torch.arange(60) < 40
        other = features.clone()
        other[40:] *= 100
        torch.testing.assert_close(principal_colors(features, inside)[:40], principal_colors(other, inside)[:40])

    def test_order_does_not_matter(self) -> None:
        features = torch.randn(50, 6, generator=seeded())
        order = torch.randperm(50, generator=seeded(1))
        every = torch.ones(50, dtype=torch.bool)
        torch.testing.assert_close(
            principal_colors(features[order], every), principal_colors(features, every)[order], atol=1e-4, rtol=0
        )

    @pytest.mark.parametrize("number", [1, 3])
    def test_equal_patches_are_grey(self, number: int) -> None:
        colors = principal_colors(torch.ones(number, 4), torch.ones(number, dtype=torch.bool))
        assert colors.tolist() == [[0.5] * 3] * number
