"""Segmenting from the index: the same answers as without it, no model where none is needed, no write where nothing changed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pyarrow as pa
import pytest
from PIL import Image

from refseg.dataset.index import index_for
from refseg.dataset.index_finding import open_index
from refseg.dataset.known_indexes import index_records
from refseg.dataset.references import collect_references
from refseg.dataset.source_settings import SourceSettings
from refseg.errors import IndexDamagedError
from refseg.index.tables import FileState
from refseg.models.loaded import Models, load_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenting import SegmentSettings, iter_segment
from tests.dataset.building import build
from tests.forbidden import forbid_models
from tests.runs.test_segmenting import content_of
from tests.trays import PARTS, quick_models, tray_samples, whole_mask
from tests.trays import segment_all as run

pytestmark = pytest.mark.usefixtures("two_images_a_batch")

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture(scope="module")
def models() -> Models:
    """The demo preset asked at 100 points an image instead of 256."""
    demo = load_models("demo")
    return dataclasses.replace(demo, preset=dataclasses.replace(demo.preset, points_per_side=10))


class TestSameAnswers:
    """On candidates of the demo segmenter itself, of images made larger than its mask grid."""

    @pytest.mark.parametrize("as_published", [False, True])
    def test_an_exact_index_answers_as_no_index(
        self,
        make_dataset: MakeDataset,
        tmp_path: Path,
        models: Models,
        as_published: bool,
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 3))
        models = dataclasses.replace(models, preset=dataclasses.replace(models.preset, as_published=as_published))
        prototypes = build_prototypes(collect_references(dataset[:2], "ground_truth"), "demo", progress=False)
        without = run(dataset, prototypes, "without", model=models, index=False)
        assert index_records(dataset) == []
        build(dataset, models, exact=True)
        kept = run(dataset, prototypes, "kept", model=models, index=open_index(dataset))
        assert (without.num_from_index, kept.num_from_index) == (0, 3)
        assert kept.num_instances == without.num_instances > 8
        for sample in dataset:
            own, other = sample.kept.detections, sample.without.detections
            assert [label.label for label in own] == [label.label for label in other]
            for label, expected in zip(own, other, strict=True):
                if as_published:
                    # Masks are merged at the image's size, where packed ones differ by some pixels; shares go in by a root.
                    assert label.confidence**2 == pytest.approx(expected.confidence**2, abs=0.02)
                else:
                    assert label.confidence == pytest.approx(expected.confidence, abs=1e-6)
                assert label.predicted_iou == expected.predicted_iou
                mask, truth = whole_mask(label), whole_mask(expected)
                assert (mask & truth).sum() / (mask | truth).sum() >= 0.98

    def test_without_near_duplicates_the_best_answers_stay(
        self, make_dataset: MakeDataset, tmp_path: Path, models: Models
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 2))
        prototypes = build_prototypes(collect_references(dataset, "ground_truth"), "demo", progress=False)
        run(dataset, prototypes, "every", model=models, index=False)
        run(dataset, prototypes, "fewer", model=models)
        assert not open_index(dataset).index.settings.exact
        for sample in dataset:
            best = {part: max(x.confidence for x in sample.every.detections if x.label == part) for part in PARTS}
            for part in PARTS:
                found = max(x.confidence for x in sample.fewer.detections if x.label == part)
                assert found == pytest.approx(best[part], abs=0.05)

    def test_the_run_that_computes_and_the_one_that_reads_write_the_same(
        self, make_dataset: MakeDataset, tmp_path: Path, models: Models
    ) -> None:
        dataset = make_dataset(tray_samples(tmp_path, 3))
        prototypes = build_prototypes(collect_references(dataset[:2], "ground_truth"), "demo", progress=False)
        computed = run(dataset, prototypes, "computed", model=models)
        read = run(dataset, prototypes, "read", model=models)
        assert (computed.num_from_index, read.num_from_index) == (0, 3)
        assert content_of(dataset, "read", with_run=False) == content_of(dataset, "computed", with_run=False)
        assert any(content_of(dataset, "read"))


class TestFromIndex:
    def test_the_second_run_loads_no_model(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run(trays, prototypes, "first")
        forbid_models(monkeypatch)
        second = run(trays, prototypes, "second")
        assert (first.num_from_index, second.num_from_index, second.num_images) == (0, 4, 4)
        assert (second.num_instances, second.num_written, second.index_trouble) == (8, 4, None)
        assert content_of(trays, "second", with_run=False) == content_of(trays, "first", with_run=False)
        assert "4 images came from the index" in str(second)

    def test_after_building_the_first_run_loads_no_model(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(trays)
        forbid_models(monkeypatch)
        report = run(trays, prototypes)
        assert (report.num_from_index, report.num_instances) == (4, 8)

    def test_is_recorded(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes, "first")
        report = run(trays, prototypes, "second")
        config = trays.get_run_info(report.run_key).config
        assert (config.index_uri, config.exact, config.preview) == (open_index(trays).uri, False, False)
        assert (config.num_images, config.num_instances, config.num_written, config.num_from_index) == (4, 8, 4, 4)
        assert (config.revisions, config.dtype) == (load_models("demo").revisions, None)
        without = run(trays, prototypes, "third", index=False)
        config = trays.get_run_info(without.run_key).config
        assert (config.index_uri, config.exact, config.num_from_index) == (None, True, 0)

    def test_part_of_a_dataset(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays)
        report = run(trays[1:3], prototypes)
        assert (report.num_images, report.num_from_index, report.num_instances) == (2, 2, 4)
        assert [value is None for value in trays.values("predictions")] == [True, False, False, True]

    def test_the_rest_is_computed_and_kept(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        build(trays[1:3])
        report = run(trays, prototypes)
        assert (report.num_images, report.num_from_index, report.num_instances, report.num_written) == (4, 2, 8, 4)
        assert open_index(trays).status().num_indexed == 4
        assert run(trays, prototypes, "again").num_from_index == 4

    def test_a_changed_image_is_computed_again(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        path = Path(trays.values("filepath")[1])
        Image.new("RGB", (90, 70), (9, 9, 9)).save(path)
        report = run(trays, prototypes)
        assert (report.num_from_index, report.num_images, report.num_written) == (3, 4, 1)
        assert [len(labels) for labels in content_of(trays)] == [2, 0, 2, 2]

    def test_an_image_that_cannot_be_read_any_more_is_named(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        before = content_of(trays)
        sample = trays[1:2].first()
        Path(sample.filepath).unlink()
        for _ in range(2):
            report = run(trays, prototypes, max_detections=1)
            assert [(image.sample_id, image.reason) for image in report.skipped] == [(sample.id, "the file does not exist")]
            assert (report.num_images, report.num_from_index) == (3, 3)
        assert content_of(trays)[1] == before[1]

    def test_progress(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        build(trays[:2])
        steps: list[Any] = []
        run(trays, prototypes, progress=steps.append)
        assert [(step.done, step.total, step.label) for step in steps] == [(0, 4, "images"), (2, 4, "images"), (4, 4, "images")]
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 1)
        steps.clear()
        run(trays, prototypes, progress=steps.append)
        assert [step.done for step in steps] == [0, 1, 2, 3, 4]

    def test_cancelled_half_way(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        settings = SegmentSettings(min_confidence=0.0)
        work = iter_segment(trays, prototypes, settings=settings, run_key="r", sources=SourceSettings(num_workers=0))
        assert [next(work).done, next(work).done] == [0, 2]
        work.close()
        config = trays.get_run_info("r").config
        assert (config.state, config.num_images, config.num_written) == ("cancelled", 2, 2)
        assert open_index(trays).index.images.keys() == set(trays[:2].values("id"))
        report = run(trays, prototypes)
        assert (report.num_from_index, report.num_written) == (2, 2)

    def test_candidates_computed_by_another_builder_meanwhile(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        monkeypatch.setattr("refseg.dataset.builder.BATCHES_A_LEASE", 1)
        work = iter_segment(
            trays, prototypes, settings=SegmentSettings(min_confidence=0.0), run_key="r", sources=SourceSettings(num_workers=0)
        )
        assert [next(work).done, next(work).done] == [0, 2]
        build(trays)
        assert [step.done for step in work] == [4]
        assert [len(labels) for labels in content_of(trays)] == [2, 2, 2, 2]
        config = trays.get_run_info("r").config
        assert (config.num_images, config.num_from_index, config.num_instances) == (4, 2, 8)

    def test_without_an_index_none_is_made(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays, prototypes, index=False)
        assert (report.num_from_index, report.num_images) == (0, 4)
        assert index_records(trays) == []

    def test_without_an_index_none_is_read(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        shutil.rmtree(Path(report.uri) / "candidates.lance")  # not even opened
        assert run(trays, prototypes, index=False).num_instances == 8

    def test_an_index_of_other_settings_serves_while_it_is_complete(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it lacks is computed with the preset as it is, into an index of its own: candidates are never mixed."""
        other = build(trays, quick_models())
        with monkeypatch.context() as patch:
            forbid_models(patch)
            assert run(trays, prototypes, "complete").num_from_index == 4
        sample = trays.first()
        sample.filepath = str(shutil.copy(sample.filepath, f"{sample.filepath}.copy.png"))
        sample.save()
        report = run(trays, prototypes, "own")
        assert (report.num_from_index, report.num_images) == (0, 4)
        assert open_index(trays).uri != other.uri
        assert open_index(trays).status().num_indexed == 4
        assert run(trays, prototypes, "again").num_from_index == 4

    def test_grouped_images(self, dataset: fo.Dataset, trays: fo.Dataset, prototypes: Prototypes) -> None:
        dataset.add_group_field("group", default="left")
        group = fo.Group()
        left, right = trays.values("filepath")[:2]
        dataset.add_samples(
            [fo.Sample(left, group=group.element("left")), fo.Sample(right, group=group.element("right"))], progress=False
        )
        flat = dataset.select_group_slices(media_type="image")
        assert run(flat, prototypes).num_written == 2
        again = run(flat, prototypes)
        assert (again.num_from_index, again.num_written, again.num_instances) == (2, 0, 4)


class TestTrouble:
    def test_an_index_that_cannot_be_written_stops_nothing(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A file lies where Lance wants to make a folder."""
        monkeypatch.setattr("refseg.dataset.builder.SECONDS_A_WRITE", 0.0)
        index = index_for(trays, load_models("demo"))
        blocked = Path(index.uri, "candidates.lance", "data")
        assert not blocked.exists()
        blocked.write_text("in the way")
        report = run(trays, prototypes)
        assert (report.num_images, report.num_instances, report.num_written, report.num_from_index) == (4, 8, 4, 0)
        assert report.index_trouble is not None
        assert report.index_trouble.startswith(f"Nothing more can be written to the candidate index at {index.uri}")
        assert f"Candidates were not kept: {report.index_trouble}" in str(report)
        assert caplog.text.count("Candidates are no longer kept") == 1  # not tried again with each batch
        assert trays.get_run_info(report.run_key).config.state == "completed"
        blocked.unlink()
        again = run(trays, prototypes)
        assert (again.index_trouble, again.num_from_index, again.num_written) == (None, 0, 0)
        assert run(trays, prototypes).num_from_index == 4

    def test_a_damaged_row_is_named(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """The tables can be read, but one mask is no mask."""
        build(trays)
        index = open_index(trays)
        bad = trays.values("id")[2]
        (chunk,) = index.index.scan([bad])
        packed = chunk.candidates(0)
        codes = [code[:-1] for code in packed.codes.to_pylist()]
        damaged = dataclasses.replace(packed, codes=pa.array(codes, pa.binary()))
        state: FileState = index.index.images[bad].file
        index.index.append([(bad, state, damaged)])
        with pytest.raises(IndexDamagedError, match=Path(trays[bad].filepath).name):
            run(trays, prototypes)

    def test_a_damaged_index_is_refused_before_anything_is_touched(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        for path in Path(report.uri, "images.lance", "data").iterdir():
            path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(IndexDamagedError, match=r"cannot be read .*: delete it and build it again"):
            run(trays, prototypes)
        assert not trays.has_field("predictions")

    def test_damaged_candidates_are_refused_before_anything_is_touched(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        index = open_index(trays)
        for path in Path(report.uri, "candidates.lance", "data").iterdir():
            path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(IndexDamagedError, match=r"cannot be read .*: delete it and build it again"):
            run(trays, prototypes, index=index, run_key="r")
        assert not trays.has_run("r")
        assert not trays.has_field("predictions")

    def test_candidates_damaged_meanwhile_fail_the_run_which_says_so(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = build(trays)
        work = iter_segment(trays, prototypes, run_key="r", sources=SourceSettings(num_workers=0))
        next(work)
        for path in Path(report.uri, "candidates.lance", "data").iterdir():
            path.unlink()
        with pytest.raises(
            IndexDamagedError, match=f"The candidate index at {report.uri} cannot be read .*: delete it and build"
        ):
            list(work)
        config = trays.get_run_info("r").config
        assert (config.state, config.num_written) == ("failed", 0)
        assert config.error.startswith(f"IndexDamagedError: The candidate index at {report.uri} cannot be read")
