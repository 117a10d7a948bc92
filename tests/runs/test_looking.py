"""Second looks in runs on a real dataset: computed once, kept in the index, told of, and left out where nobody can look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
import torch

from refseg import MatchSettings, Segmenter, calibrate, inspect, segment
from refseg.dataset.index_finding import open_index
from refseg.dataset.indexing import build_index
from refseg.dataset.references import collect_references
from refseg.dataset.source_settings import SourceSettings
from refseg.dataset.sources import Source, find_source
from refseg.errors import IndexWriteError, ModelUnavailableError
from refseg.index.looks import Looks
from refseg.matching.second_look import Looked
from refseg.progress import Progress
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs import looking, ranked
from refseg.runs.cohorts import FEWEST_IMAGES, iter_cohort
from refseg.runs.looking import Looker, part
from tests.kept import KeptDataset, kept_trays
from tests.synthetic import assert_same

QUIET: dict[str, Any] = {"num_workers": 0, "progress": False}
NUM_TRAYS = 20
"""With two candidates each, enough of a dataset to whiten by."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Indexed trays whose candidates are the objects labelled; those of the first three are references, and calibrated."""

    def prepare(dataset: fo.Dataset) -> Prototypes:
        dataset[:3].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
        build_index(dataset, "demo", **QUIET)
        references = collect_references(dataset, "ground_truth", tags="reference")
        return calibrate(dataset, build_prototypes(references, "demo", progress=False), **QUIET)

    with kept_trays(tmp_path_factory.mktemp("trays"), NUM_TRAYS, prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


@pytest.fixture
def calibrated(kept: KeptDataset) -> Prototypes:
    return kept.made


def answers(dataset: fo.Dataset, field: str = "predictions") -> list[list[tuple[str, float]]]:
    return [
        [(label.label, round(label.confidence, 5)) for label in sample[field].detections] for sample in dataset.iter_samples()
    ]


def presence(dataset: fo.Dataset) -> list[dict[str, float]]:
    return [{label.label: label.confidence for label in sample.presence.classifications} for sample in dataset.iter_samples()]


def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelUnavailableError("demo", "no weights")

    monkeypatch.setattr(looking, "models_for", refuse)


class TestCalibrate:
    def test_looks_at_what_a_run_would_look_at(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        around, cohort = calibrated.surroundings, calibrated.cohort
        assert around is not None
        assert around.looks is not None
        assert bool(around.looks.any(1).all()), "two candidates an image: both are among the best"
        assert cohort is not None
        assert (len(cohort), cohort.num_images) == (2 * NUM_TRAYS - 6, NUM_TRAYS - 3), "of all but the images of references"
        assert len(open_index(trays).index.looks) == 2 * NUM_TRAYS, "kept for the runs to come"

    def test_prototypes_calibrated_before_are_calibrated_as_others(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        clear_looks(trays)
        assert_same(calibrate(trays, calibrated, **QUIET), calibrated)

    def test_suggestions_need_no_looks(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        """An index without any, though the prototypes look twice."""
        clear_looks(trays)
        assert inspect(calibrated, trays, progress=False).suggestions is not None
        open_index(trays).index.delete()
        build_index(trays, "demo", **QUIET)
        assert not list(Path(open_index(trays).uri).glob("looks*"))
        assert inspect(calibrated, trays, progress=False).suggestions is not None

    def test_again_is_the_same_without_looking(
        self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        no_models(monkeypatch)
        assert_same(calibrate(trays, calibrated, **QUIET), calibrated)

    def test_a_dataset_of_a_few_candidates_is_not_looked_at(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        few = trays[:12].clone()
        try:
            source = find_source(trays, calibrated, SourceSettings())
            assert drain_cohort(few, Looker(source, calibrated)) is None
        finally:
            few.delete()

    def test_a_file_keeps_it_all(self, calibrated: Prototypes, tmp_path: Path) -> None:
        calibrated.save(tmp_path / "p.safetensors")
        assert_same(Prototypes.load(tmp_path / "p.safetensors"), calibrated)

    def test_without_an_index_there_is_no_cohort(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        alone = calibrate(trays, calibrated, index=False, **QUIET)
        assert alone.cohort is None
        assert alone.surroundings is not None
        assert alone.surroundings.looks is not None

    def test_other_images_are_computed_where_the_index_holds_none(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        """Who calibrates before anything is indexed gets a cohort all the same."""
        open_index(trays).index.delete()
        early = calibrate(trays, calibrated, **QUIET)
        assert open_index(trays).status().num_indexed == 3 + FEWEST_IMAGES
        assert early.cohort is None, "12 trays of two candidates are too little"
        build_index(trays[:19], "demo", **QUIET)
        before = open_index(trays).status().num_indexed
        late = calibrate(trays, calibrated, **QUIET)
        assert late.cohort is not None
        assert open_index(trays).status().num_indexed == before, "there were enough"
        build_index(trays, "demo", **QUIET)
        assert_same(calibrate(trays, calibrated, **QUIET), calibrated)

    def test_the_cohort_grows_with_the_dataset(self, trays: fo.Dataset) -> None:
        """Those chosen before stay chosen, so that their looks are known."""
        prototypes = build_prototypes(collect_references(trays, "ground_truth", tags="reference"), "demo", progress=False)
        source = find_source(trays, prototypes, SourceSettings())
        assert source.index is not None
        before = drain_cohort(trays[:17], Looker(source, prototypes))
        after = drain_cohort(trays, Looker(source, prototypes))
        assert (before.num_images, after.num_images) == (17, NUM_TRAYS)
        known = {tuple(row) for row in after.features.tolist()}
        assert all(tuple(row) in known for row in before.features.tolist())


def drain_cohort(view: Any, looker: Looker) -> Any:
    work = iter_cohort(view, looker)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


class TestSegment:
    def test_looks_once(self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        first = segment(trays, calibrated, **QUIET)
        # The cohort holds every candidate of trays of two.
        assert (first.num_looked, first.num_unseen, first.look_trouble) == (0, 0, None)
        found = answers(trays)
        no_models(monkeypatch)
        again = segment(trays, calibrated, **QUIET)
        assert (again.num_looked, again.num_unseen, again.num_written) == (0, 0, 0)
        assert answers(trays) == found

    def test_images_that_nobody_has_looked_at(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        clear_looks(trays)
        steps: list[Progress] = []
        report = segment(trays, calibrated, num_workers=0, progress=steps.append)
        assert report.num_looked == NUM_TRAYS
        assert "Candidates of 20 images were looked at again" in str(report)
        assert report.num_images == NUM_TRAYS, "each counts once, though it is answered twice"
        assert report.num_instances == sum(map(len, answers(trays)))
        assert {step.label for step in steps} == {"images", "second looks"}
        found = answers(trays)
        assert segment(trays, calibrated, **QUIET).num_written == 0
        assert answers(trays) == found

    def test_the_most_promising_image_comes_first(
        self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the order in which the index keeps them: somebody waits for the first objects."""
        clear_looks(trays)
        hopes: dict[str, float] = {}
        seen: list[str] = []
        real_again, real_look = ranked._look_again, looking.look_at_file

        def look_again(source: Source, waiting: dict[str, float], *about: Any) -> Any:
            hopes.update(waiting)
            return real_again(source, waiting, *about)

        def look(path: str, *about: Any) -> Looked | None:
            seen.append(path)
            return real_look(path, *about)

        monkeypatch.setattr(ranked, "_look_again", look_again)
        monkeypatch.setattr(looking, "look_at_file", look)
        segment(trays, calibrated, **QUIET)
        ids, paths = trays.values(["id", "filepath"])
        found = [hopes[ids[paths.index(path)]] for path in seen]
        assert len(found) == NUM_TRAYS
        assert found == sorted(found, reverse=True)
        assert [hopes[sample_id] for sample_id in ids] != found

    def test_is_the_same_without_an_index(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        segment(trays, calibrated, **QUIET)
        report = segment(trays, calibrated, "alone", index=False, **QUIET)
        assert report.num_looked == NUM_TRAYS
        for own, other in zip(answers(trays), answers(trays, "alone"), strict=True):
            assert [label for label, _ in own] == [label for label, _ in other]
            assert [score for _, score in own] == pytest.approx([score for _, score in other], abs=2e-3)

    def test_is_what_the_model_for_apply_model_answers(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        segment(trays, calibrated, **QUIET)
        trays.apply_model(Segmenter(calibrated), "applied", batch_size=4, num_workers=0, progress=False)
        for own, other in zip(answers(trays), answers(trays, "applied"), strict=True):
            assert [label for label, _ in own] == [label for label, _ in other]
            assert [score for _, score in own] == pytest.approx([score for _, score in other], abs=2e-3)

    def test_known_ones_alone(self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        clear_looks(trays)
        no_models(monkeypatch)
        report = segment(trays, calibrated, matching=MatchSettings(second_look="known"), **QUIET)
        assert (report.num_looked, report.num_unseen, report.look_trouble) == (0, 0, None)
        assert len(open_index(trays).index.looks) == 0

    def test_never(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        segment(trays, calibrated, **QUIET)
        segment(trays, calibrated, "once", matching=MatchSettings(second_look=False), **QUIET)
        assert answers(trays, "once") != answers(trays)

    def test_models_that_are_not_to_be_had(
        self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first look alone answers, and the report says so."""
        clear_looks(trays)
        no_models(monkeypatch)
        report = segment(trays, calibrated, **QUIET)
        assert (report.num_images, report.num_looked, report.num_unseen) == (NUM_TRAYS, 0, NUM_TRAYS)
        assert "20 images are answered by the first look alone" in str(report)
        assert report.look_trouble is not None
        assert "no weights" in report.look_trouble

    def test_an_image_that_is_gone(self, trays: fo.Dataset, calibrated: Prototypes, tmp_path: Path) -> None:
        """Its candidates are indexed no more, so it is skipped; the others are answered."""
        clear_looks(trays)
        sample = trays.last()
        Path(sample.filepath).rename(tmp_path / "moved.png")
        try:
            report = segment(trays, calibrated, **QUIET)
        finally:
            (tmp_path / "moved.png").rename(sample.filepath)
        assert report.num_looked == NUM_TRAYS - 1

    def test_cancelled_between_the_looks(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        """Every image is answered, some by the first look; changes are told of both, and the next run goes on."""
        from refseg.runs.segmenting import iter_segment

        segment(trays, calibrated, **QUIET)
        clear_looks(trays)
        work = iter_segment(trays, calibrated)
        for step in work:
            if step.label == "second looks" and step.done == 3:
                break
        work.close()
        assert trays.get_run_info(trays.list_runs(method="refseg/segment")[-1]).config.state == "cancelled"
        assert 0 < len(open_index(trays).index.looks) < 2 * NUM_TRAYS
        assert all(sample.predictions is not None for sample in trays)
        report = segment(trays, calibrated, **QUIET)
        assert 0 < report.num_looked < NUM_TRAYS

    def test_a_full_disk_costs_no_answer(
        self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clear_looks(trays)

        def refuse(*_: object) -> None:
            raise IndexWriteError("No space left")

        monkeypatch.setattr(Looks, "append", refuse)
        report = segment(trays, calibrated, **QUIET)
        assert report.num_looked == NUM_TRAYS
        assert "No space left" in str(report)

    def test_scores_are_counted_as_they_are_in_the_end(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        """First looks are answers too, and others follow; what stays as it was counts as well."""
        for again in (False, True):
            if not again:
                clear_looks(trays)
            report = segment(trays, calibrated, min_confidence=0.0, **QUIET)
            assert report.num_looked == (0 if again else NUM_TRAYS)
            counted: Counter[tuple[str, int]] = Counter()
            for sample in trays.iter_samples():
                counted.update((label.label, min(9, int(10 * label.confidence))) for label in sample.predictions.detections)
            assert counted == Counter(
                {(label, tenth): n for label, tenths in report.scores.items() for tenth, n in enumerate(tenths) if n}
            )
            assert sum(map(sum, report.scores.values())) == report.num_instances > 0

    def test_changes_are_told_once(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        """The answer that is written first is no answer of an earlier run."""
        segment(trays, calibrated, **QUIET)
        clear_looks(trays)
        assert segment(trays, calibrated, **QUIET).changes.num_samples == 0

    def test_presence_is_told_by_second_looks(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        """What the first looks have told is written over."""
        options: dict[str, Any] = {"presence_field": "presence", "min_confidence": 0.0, **QUIET}
        segment(trays, calibrated, matching=MatchSettings(second_look=False), **options)
        first = presence(trays)
        clear_looks(trays)
        assert segment(trays, calibrated, **options).num_looked == NUM_TRAYS
        found = presence(trays)
        assert all(own["star"] != other["star"] for own, other in zip(found, first, strict=True))
        for own, image in zip(found, answers(trays), strict=True):
            chance = {name: 1 - math.prod(1 - score for label, score in image if label == name) for name in ("star", "tee")}
            assert own == pytest.approx(chance, abs=1e-4)
        assert segment(trays, calibrated, **options).num_written == 0

    def test_preview_takes_what_is_known(
        self, trays: fo.Dataset, calibrated: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segment(trays, calibrated, **QUIET)
        no_models(monkeypatch)
        report = segment(trays, calibrated, "preview", preview=True, **QUIET)
        assert report.num_images == NUM_TRAYS
        best = dict(report.best)
        scores = {sample.id: max((label.confidence for label in sample.predictions.detections), default=0) for sample in trays}
        for sample_id, score in best.items():
            assert score == pytest.approx(scores[sample_id], abs=1e-5)


def clear_looks(dataset: fo.Dataset) -> None:
    looks = open_index(dataset).index.looks
    looks.remove(looks.keys)


class TestPart:
    def test_by_hand(self) -> None:
        known = Looked(torch.tensor([1, 4, 6]), torch.arange(3.0)[:, None])
        found = part(torch.tensor([6, 2, 1]), known)
        assert found.known is not None
        assert found.known.rows.tolist() == [1, 6], "what was looked at for other prototypes does not count"
        assert found.known.looks.flatten().tolist() == [0.0, 2.0]
        assert found.missing.tolist() == [2]

    def test_of_nothing(self) -> None:
        rows = torch.tensor([3, 1])
        for known in (
            None,
            Looked(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)),
            Looked(torch.tensor([9]), torch.ones(1, 4)),
        ):
            found = part(rows, known)
            assert found.known is None
            assert found.missing.tolist() == [3, 1]
