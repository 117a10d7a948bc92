"""k-means: centres worked by hand, invariances, degenerate inputs."""

from __future__ import annotations

import torch

from refseg.prototypes.clusters import find_clusters, nearest


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


class TestFindClusters:
    def test_largest_part_first(self) -> None:
        blobs = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
        features = blobs.repeat_interleave(torch.tensor([5, 30, 12]), 0) + 0.1 * torch.randn(47, 2, generator=seeded())
        centers = find_clusters(features, 3, seeded())
        torch.testing.assert_close(centers, blobs[[1, 2, 0]], atol=0.2, rtol=0)
        assert torch.bincount(nearest(features, centers)).tolist() == [30, 12, 5]

    def test_centers_are_the_means_of_their_parts(self) -> None:
        features = torch.randn(80, 5, generator=seeded())
        centers = find_clusters(features, 4, seeded())
        rows = nearest(features, centers)
        for row in range(4):
            torch.testing.assert_close(features[rows == row].mean(0), centers[row])

    def test_same_seed_same_parts_and_no_global_state(self) -> None:
        features = torch.randn(80, 5, generator=seeded())
        state = torch.get_rng_state()
        assert torch.equal(find_clusters(features, 4, seeded(7)), find_clusters(features, 4, seeded(7)))
        assert torch.equal(torch.get_rng_state(), state)

    def test_fewer_different_patches_than_parts(self) -> None:
        features = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2)
        assert find_clusters(features, 5, seeded()).tolist() == [[1.0, 0.0], [0.0, 1.0]]
        assert find_clusters(features[:1], 4, seeded()).tolist() == [[1.0, 0.0]]

    def test_as_many_clusters_as_points_are_the_points(self) -> None:
        features = torch.randn(6, 3, generator=seeded())
        centers = find_clusters(features, 6, seeded(1))
        assert sorted(centers.tolist()) == sorted(features.tolist())

    def test_rounds_are_limited(self) -> None:
        features = torch.randn(200, 4, generator=seeded())
        first = find_clusters(features, 5, seeded(), max_rounds=0)
        assert all((features == center).all(1).any() for center in first)
        settled = find_clusters(features, 5, seeded())

        def spread(centers: torch.Tensor) -> float:
            return float(torch.cdist(features, centers).min(1).values.square().sum())

        assert spread(settled) < spread(find_clusters(features, 5, seeded(), max_rounds=1)) < spread(first)

    def test_leaves_its_argument(self) -> None:
        features = torch.randn(30, 4, generator=seeded())
        copy = features.clone()
        find_clusters(features, 3, seeded())
        assert torch.equal(features, copy)


class TestNearest:
    def test_by_hand(self) -> None:
        centers = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
        assert nearest(torch.tensor([[4.0, 3.0], [6.0, 3.0], [10.0, 0.0]]), centers).tolist() == [0, 1, 1]

    def test_of_nothing(self) -> None:
        assert nearest(torch.zeros(0, 2), torch.ones(3, 2)).tolist() == []
