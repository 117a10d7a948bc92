"""Searching an index: exactly, and by its vector index."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F

from refseg.candidates.packing import PackedCandidates
from refseg.index.candidate_index import CandidateIndex
from refseg.index.search import make_vector_index, num_partitions, search_all, search_each, search_vectors
from refseg.index.tables import FileState, IndexSettings
from refseg.progress import drain

WIDTH = 32


class TestVectorIndex:
    """On synthetic features: images of ten candidates in clusters."""

    @pytest.fixture
    def index(self, tmp_path: Path) -> CandidateIndex:
        generator = torch.Generator().manual_seed(1)
        centers = torch.randn(20, WIDTH, generator=generator)
        index = CandidateIndex.create(tmp_path / "index", IndexSettings("m", "f", "e", {}, False, 8, WIDTH, "d"))
        images = []
        for number in range(60):
            owners = torch.randint(20, (10,), generator=generator)
            features = F.normalize(centers[owners] + 0.5 * torch.randn(10, WIDTH, generator=generator), dim=1)
            text = pa.array([b"01o1"] * 10, pa.binary())
            boxes = torch.zeros(10, 4)
            packed = PackedCandidates(text, text, boxes, torch.full((10,), 0.9), features, (80, 80), 8)
            images.append((f"s{number}", FileState(f"{number}.png", 1, 1), packed))
        index.append(images)
        index.refresh()
        return index

    def test_finds_what_the_exact_scan_finds(self, index: CandidateIndex) -> None:
        assert not index.has_vector_index
        make_vector_index(index)
        assert index.has_vector_index
        vector = next(index.scan()).features[3].float()
        exact = drain(search_all(index, vector, 20), False)
        found = search_vectors(index, vector, 20)
        assert [item.image.sample_id for item in exact[:1]] == [item.image.sample_id for item in found[:1]]
        assert exact[0].score == pytest.approx(1, abs=1e-3)
        held = {(item.image.sample_id, round(item.score, 2)) for item in exact}
        assert len(held & {(item.image.sample_id, round(item.score, 2)) for item in found}) >= 0.9 * len(held)

    def test_exact_scan_is_brute_force(self, index: CandidateIndex) -> None:
        vector = F.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(2)), dim=0)
        found = drain(search_all(index, vector, 30), False)
        every = torch.cat([chunk.features @ vector for chunk in index.scan()])
        torch.testing.assert_close(torch.tensor([item.score for item in found]), every.topk(30).values)
        for item in found:
            assert float(item.candidate.features[0] @ vector) == pytest.approx(item.score, abs=1e-6)

    def test_several_vectors_in_one_scan(self, index: CandidateIndex) -> None:
        vectors = F.normalize(torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(3)), dim=1)
        wanted = ["s1", "s5", "s20", "s40"]
        steps: list[int] = []
        found = drain(search_each(index, vectors, 7, wanted), lambda step: steps.append(step.done))
        assert [len(near) for near in found] == [7] * 5
        assert steps == sorted(set(steps)), "one scan"
        for vector, near in zip(vectors, found, strict=True):
            alone = drain(search_all(index, vector, 7, wanted), False)
            assert [item.image for item in near] == [item.image for item in alone]
            for item, other in zip(near, alone, strict=True):
                assert item.score == pytest.approx(other.score, abs=1e-6)
                assert torch.equal(item.candidate.features, other.candidate.features)
        assert drain(search_each(index, vectors[:0], 7), False) == []

    def test_subset(self, index: CandidateIndex) -> None:
        make_vector_index(index)
        vector = next(index.scan()).features[0].float()
        wanted = {"s1", "s2", "s3"}
        for found in (drain(search_all(index, vector, 600, wanted), False), search_vectors(index, vector, 600, wanted)):
            assert {item.image.sample_id for item in found} == wanted
            assert len(found) == 30

    def test_candidates_added_later_are_found_too(self, index: CandidateIndex) -> None:
        make_vector_index(index)
        feature = F.normalize(-next(index.scan()).features[:1].float(), dim=1)
        text = pa.array([b"01o1"], pa.binary())
        packed = PackedCandidates(text, text, torch.zeros(1, 4), torch.ones(1), feature, (80, 80), 8)
        index.append([("late", FileState("late.png", 1, 1), packed)])
        index.refresh()
        assert search_vectors(index, feature[0], 3)[0].image.sample_id == "late"
        index.compact()
        assert search_vectors(index, feature[0], 3)[0].image.sample_id == "late"

    def test_forgotten_images_are_not_found(self, index: CandidateIndex) -> None:
        make_vector_index(index)
        vector = next(index.scan(["s5"])).features[0].float()
        assert search_vectors(index, vector, 5)[0].image.sample_id == "s5"
        index.forget(["s5"])
        assert "s5" not in {item.image.sample_id for item in search_vectors(index, vector, 50)}
        assert "s5" not in {item.image.sample_id for item in drain(search_all(index, vector, 50), False)}


def test_partitions_grow_with_the_index() -> None:
    assert [num_partitions(number) for number in (0, 100, 1_000_000, 10**9)] == [1, 1, 122, 4096]
