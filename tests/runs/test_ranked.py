"""The images of a preview: those with the best scores, and no more looked at than must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import refseg.matching.matcher
from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import Candidates
from refseg.dataset.file_states import file_state
from refseg.dataset.index import DatasetIndex, index_for
from refseg.dataset.index_finding import open_index
from refseg.errors import DatasetError
from refseg.matching.ranking import match
from refseg.matching.similarity import Gallery, classify
from refseg.models.loaded import load_models
from refseg.prototypes.prototypes import Prototypes
from tests.dataset.building import build
from tests.forbidden import forbid_models
from tests.runs.test_segmenting import content_of
from tests.trays import PARTS
from tests.trays import segment_all as run

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


def fill_index(dataset: fo.Dataset, packed: list[PackedCandidates]) -> DatasetIndex:
    """The dataset's index, with these candidates for its first samples."""
    index = index_for(dataset, load_models("demo"))
    ids, paths = dataset.values(["id", "filepath"])
    rows = []
    for sample_id, path, candidates in zip(ids, paths, packed, strict=False):
        state = file_state(path)
        assert state is not None
        rows.append((sample_id, state, candidates))
    index.index.append(rows)
    index.index.refresh()
    return index


def draw_candidates(count: int, seed: int) -> Candidates:
    """Discs within discs, the larger ones the better, so that many a best similarity does not survive merging."""
    generator = torch.Generator().manual_seed(seed)
    radius = 3 * 1.5 ** torch.arange(count)[:, None, None]
    center, line = 30 + 4 * torch.rand(count, 2, 1, 1, generator=generator), torch.arange(load_models("demo").grid_side) + 0.5
    square = (line[None, :] - center[:, 0]) ** 2 + (line[:, None] - center[:, 1]) ** 2
    features = torch.randn(count, load_models("demo").feature_width, generator=generator)
    features[:, 0] += 25 * torch.rand(count, generator=generator)  # one direction in common, in which the prototypes lie
    features = F.normalize(features, dim=1).half().float()
    return Candidates(4 * (1 - square / radius**2), torch.linspace(0.5, 0.9, count), features, (96, 128))


def draw_prototypes(seed: int = 0) -> Prototypes:
    """Two classes of one reference each, near the common direction."""
    models = load_models("demo")
    vectors = torch.randn(2, models.feature_width, generator=torch.Generator().manual_seed(seed))
    vectors[:, 0] += 20
    return Prototypes(PARTS, vectors, torch.arange(2), ("a", "b"), "demo", models.fingerprint)


class TestPreview:
    @pytest.fixture
    def drawn(self, make_dataset: MakeDataset, tmp_path: Path) -> tuple[fo.Dataset, list[PackedCandidates]]:
        """Sixteen images and candidates made up for them; the third has none."""
        samples = []
        for number in range(16):
            path = tmp_path / f"{number}.png"
            Image.new("RGB", (128, 96), (number, 0, 0)).save(path)
            samples.append(fo.Sample(str(path)))
        packed = [pack(draw_candidates(0 if number == 2 else 3 + number % 4, number)) for number in range(16)]
        return make_dataset(samples), packed

    @staticmethod
    def best_by_brute_force(
        dataset: fo.Dataset, packed: list[PackedCandidates], prototypes: Prototypes
    ) -> list[tuple[float, str]]:
        """Every image matched to the end."""
        found = []
        for sample_id, candidates in zip(dataset.values("id"), packed, strict=False):
            instances = match(candidates, Gallery(prototypes.matrix))
            if len(instances):
                found.append((float(instances.scores[0]), sample_id))
        return sorted(found, reverse=True)

    def test_merging_lowers_best_scores_here(self, drawn: Any) -> None:
        """What the tests below stand on: the order of the bounds is not that of the scores."""
        dataset, packed = drawn
        prototypes = draw_prototypes()
        bounds = {
            sample_id: float(classify(candidates.features, Gallery(prototypes.matrix)).scores.max())
            for sample_id, candidates in zip(dataset.values("id"), packed, strict=True)
            if len(candidates)
        }
        scores = {sample_id: score for score, sample_id in self.best_by_brute_force(dataset, packed, prototypes)}
        assert sum(scores[sample_id] < bounds[sample_id] - 0.02 for sample_id in scores) >= 4
        assert sorted(scores, key=lambda name: -scores[name])[:5] != sorted(bounds, key=lambda name: -bounds[name])[:5]

    @pytest.mark.parametrize(("previewed", "look"), [(1, 1), (3, 1), (3, 4), (5, 64), (100, 3)])
    @pytest.mark.parametrize("seed", range(2))
    def test_writes_the_images_with_the_best_scores(
        self, drawn: Any, monkeypatch: pytest.MonkeyPatch, previewed: int, look: int, seed: int
    ) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", previewed)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", look)
        forbid_models(monkeypatch)
        prototypes = draw_prototypes(seed)
        index = fill_index(dataset, packed)
        expected = self.best_by_brute_force(dataset, packed, prototypes)[:previewed]
        report = run(dataset, prototypes, preview=True, index=index)
        assert [sample_id for sample_id, _ in report.best] == [sample_id for _, sample_id in expected]
        assert [score for _, score in report.best] == pytest.approx([score for score, _ in expected], abs=1e-5)
        assert (report.num_images, report.num_written, report.num_left_out) == (16, len(expected), 0)
        chosen = {sample_id for _, sample_id in expected}
        for sample in dataset:
            assert (sample.predictions is not None) == (sample.id in chosen)
        assert report.num_instances == dataset.count("predictions.detections")

    def test_looks_no_further_than_it_must(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 2)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 2)
        real, looked_at = refseg.matching.matcher.rank_batch, []

        def rank_batch(batch: Any, *arguments: Any, **options: Any) -> Any:
            looked_at.extend(batch.images)
            return real(batch, *arguments, **options)

        monkeypatch.setattr("refseg.matching.matcher.rank_batch", rank_batch)
        run(dataset, draw_prototypes(), preview=True, index=fill_index(dataset, packed))
        assert 2 <= len(looked_at) < 16

    def test_is_what_a_whole_run_writes(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 4)
        fill_index(dataset, packed)
        preview = run(dataset, draw_prototypes(), "preview", preview=True)
        run(dataset, draw_prototypes(), "whole")
        chosen = dataset.select([sample_id for sample_id, _ in preview.best])
        assert content_of(chosen, "preview", with_run=False) == content_of(chosen, "whole", with_run=False)
        best = [sample.whole.detections[0].confidence for sample in dataset.select([x for x, _ in preview.best], ordered=True)]
        assert best == pytest.approx([score for _, score in preview.best], abs=1e-6)
        assert best == sorted(best, reverse=True)

    def test_a_least_confidence_leaves_images_out(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        prototypes = draw_prototypes()
        expected = self.best_by_brute_force(dataset, packed, prototypes)
        index = fill_index(dataset, packed)
        least = (expected[4][0] + expected[5][0]) / 2
        report = run(dataset, prototypes, preview=True, index=index, min_confidence=least)
        assert [sample_id for sample_id, _ in report.best] == [sample_id for _, sample_id in expected[:5]]
        assert min(dataset.values("predictions.detections.confidence", unwind=True)) >= least
        nothing = run(dataset, prototypes, "none", preview=True, index=index, min_confidence=1.0)
        assert (nothing.best, nothing.num_written, nothing.num_instances) == ((), 0, 0)

    @pytest.mark.parametrize("part", PARTS)
    def test_least_confidences_of_their_own(self, drawn: Any, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The best similarity in an image may be one of a class that is not written at all."""
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 3)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 1)
        prototypes, index = draw_prototypes(), fill_index(dataset, packed)
        run(dataset, prototypes, "every", index=index)
        best = {
            sample.id: max((label.confidence for label in sample.every.detections if label.label == part), default=0.0)
            for sample in dataset
        }
        expected = sorted((name for name in best if best[name]), key=lambda name: -best[name])[:3]
        for options in ({"classes": [part]}, {"min_confidence": {PARTS[1 - PARTS.index(part)]: 1.0, part: 0.0}}):
            report = run(dataset, prototypes, f"preview_{len(options)}", preview=True, index=index, **options)
            assert [name for name, _ in report.best] == expected
            assert [score for _, score in report.best] == pytest.approx([best[name] for name in expected], abs=1e-6)

    def test_images_not_indexed_are_left_out_and_counted(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        forbid_models(monkeypatch)
        fill_index(dataset, packed[:10])
        report = run(dataset, draw_prototypes(), preview=True)
        assert (report.num_images, report.num_from_index, report.num_left_out) == (10, 10, 6)
        assert {sample_id for sample_id, _ in report.best} <= set(dataset[:10].values("id"))
        assert len(report.best) == 9
        assert "6 images are not indexed and were left out: build the index to see them too" in str(report)
        assert len(open_index(dataset).index.images) == 10

    def test_is_recorded(self, drawn: Any) -> None:
        dataset, packed = drawn
        fill_index(dataset, packed)
        report = run(dataset, draw_prototypes(), preview=True)
        config = dataset.get_run_info(report.run_key).config
        assert (config.state, config.preview, config.num_written) == ("completed", True, report.num_written)

    def test_the_same_again_writes_nothing(self, drawn: Any) -> None:
        dataset, packed = drawn
        fill_index(dataset, packed)
        first, second = (run(dataset, draw_prototypes(), preview=True) for _ in range(2))
        assert (first.num_written, second.num_written) == (15, 0)
        assert second.best == first.best

    def test_progress(self, drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        dataset, packed = drawn
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 10)
        fill_index(dataset, packed)
        steps: list[Any] = []
        run(dataset, draw_prototypes(), preview=True, progress=steps.append)
        assert [(step.done, step.total, step.label) for step in steps] == [
            (0, 16, "images"),
            (16, 16, "images"),
            (10, 16, "best images"),
            (16, 16, "best images"),
        ]

    @pytest.mark.parametrize("index", [True, False])
    def test_nothing_indexed(self, trays: fo.Dataset, prototypes: Prototypes, index: bool) -> None:
        with pytest.raises(DatasetError, match="none of these is indexed: build the index first"):
            run(trays, prototypes, preview=True, index=index)
        assert not trays.has_field("predictions")
        assert trays.list_runs() == []

    def test_none_of_the_view_indexed(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[:2])
        with pytest.raises(DatasetError, match="none of these is indexed: build the index first"):
            run(trays[2:], prototypes, preview=True)
