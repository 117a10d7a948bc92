"""What a dataset keeps of a run of segment: its settings before work starts, and how it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image
from pymongo.errors import AutoReconnect

import refseg.candidates.proposing
import refseg.matching.matcher
import refseg.runs.writing
from refseg.dataset.fields import newest_run, whole_config
from refseg.dataset.indexing import build_index
from refseg.dataset.run_records import update_run
from refseg.dataset.source_settings import SourceSettings
from refseg.dataset.store import save_prototypes
from refseg.images.reading import file_sha256
from refseg.matching.settings import MatchSettings
from refseg.models.loaded import get_preset, load_models
from refseg.processes import SECONDS_UNTIL_GONE
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.records import SEGMENT_METHOD
from refseg.runs.segmenting import SegmentSettings, iter_segment, matcher_for
from tests.at_once import ANSWER_SECONDS, servers
from tests.kept import KeptDataset
from tests.runs.test_segmenting import content_of
from tests.trays import IMAGE_HW, PARTS, candidates_of, whole_mask
from tests.trays import segment_all as run

pytestmark = pytest.mark.usefixtures("two_images_a_batch")


class TestProvenance:
    def test_run(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        report = run(
            trays[1:],
            prototypes,
            min_confidence=0.25,
            max_detections=5,
            mask_dir=str(tmp_path),
            semantic_field="map",
            run_key="r",
        )
        assert report.run_key == "r"
        config = trays.get_run_info("r").config
        assert (config.method, config.state) == (SEGMENT_METHOD, "completed")
        assert (config.label_field, config.semantic_field) == ("predictions", "map")
        assert (config.min_confidence, config.max_detections, config.mask_dir) == (0.25, 5, str(tmp_path))
        assert config.min_confidences == [["star", 0.25], ["tee", 0.25]]
        assert (config.prototypes_name, config.index, config.negative_ids) == (None, True, [])
        assert config.changes == {"gained": [], "lost": [], "relabelled": []}
        assert config.changed_ids == ""
        assert config.classes == list(PARTS)
        assert config.reference_ids == list(prototypes.reference_ids)
        assert (config.num_images, config.num_instances, config.skipped) == (3, report.num_instances, [])
        models = load_models("demo")
        assert (config.model, config.revisions, config.dtype) == ("demo", models.revisions, str(models.dtype))
        assert {len(revision) for revision in config.revisions.values()} == {64}
        assert file_sha256(config.prototypes_path) == config.prototypes_sha256
        stored = Prototypes.load(config.prototypes_path)
        torch.testing.assert_close(stored.vectors, prototypes.vectors, rtol=0, atol=0)

    def test_view_of_the_run(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays[1:3], prototypes)
        assert trays.load_run_view(report.run_key).values("id") == trays[1:3].values("id")

    def test_recorded_before_work_starts(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        work = iter_segment(trays, prototypes, run_key="r", sources=SourceSettings(num_workers=0))
        step = next(work)
        assert (step.done, step.total, step.label) == (0, 4, "images")
        assert trays.get_run_info("r").config.state == "running"
        work.close()

    def test_keys_of_their_own(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        keys = [run(trays[:1], prototypes).run_key for _ in range(3)]
        assert len(set(keys)) == 3
        assert trays.list_runs(method=SEGMENT_METHOD) == sorted(keys)
        assert all(key.startswith("predictions_") for key in keys)

    def test_how_candidates_were_compared(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """All that a later run needs to do the same: the settings, the thresholds given and those that counted."""
        matching = MatchSettings(class_similarity="nearest", overlaps="diffusion", background=True)
        report = run(trays, prototypes, matching=matching, min_confidence={"star": 0.125})
        config = trays.get_run_info(report.run_key).config
        assert MatchSettings.from_mapping(config.matching) == matching
        assert config.own_confidences == [["star", 0.125]]
        assert config.min_confidences == [["star", 0.125], ["tee", get_preset("demo").min_confidence]]
        models, settings = load_models("demo"), SegmentSettings({"star": 0.125}, matching=matching)
        for sample in trays:
            pixels = refseg.candidates.proposing.segmenter_pixels(
                Image.open(sample.filepath).convert("RGB"), models.segmenter_side
            )
            masks = np.array([whole_mask(label) for label in sample.ground_truth.detections])
            expected = matcher_for(prototypes, models.preset, settings).match(candidates_of(pixels, masks, IMAGE_HW, models))
            found = [label.confidence for label in sample.predictions.detections]
            assert found == pytest.approx(expected.scores.tolist(), abs=1e-3)

    def test_cancelled_half_way(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        settings = SegmentSettings(min_confidence=0.0)
        work = iter_segment(trays, prototypes, settings=settings, run_key="r", sources=SourceSettings(num_workers=0))
        assert [next(work).done, next(work).done] == [0, 2]
        assert trays.count("predictions.detections") == 0  # nothing written yet: writes are bulk
        work.close()
        config = trays.get_run_info("r").config
        assert (config.state, config.num_images, config.num_instances) == ("cancelled", 2, 4)
        trays.reload()
        assert [labels and len(labels) for labels in content_of(trays)] == [2, 2, None, None]

    @pytest.mark.parametrize(
        "what",
        [
            "runs.segmenting.create_fields",
            "runs.segmenting.segment_images",
            "dataset.builder.Builder.close",
            "runs.writing.write_detections",
        ],
    )
    def test_no_failure_leaves_a_run_at_work(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise OSError(f"{what} fails")

        monkeypatch.setattr(f"refseg.{what}", fails)
        with pytest.raises(OSError, match=f"{what} fails"):
            run(trays, prototypes, run_key="r")
        config = trays.get_run_info("r").config
        assert (config.state, config.error) == ("failed", f"OSError: {what} fails")

    def test_failure_while_cancelled(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise OSError("no space left")

        work = iter_segment(
            trays, prototypes, settings=SegmentSettings(min_confidence=0.0), run_key="r", sources=SourceSettings(num_workers=0)
        )
        assert [next(work).done, next(work).done] == [0, 2]
        assert trays.get_run_info("r").config.state == "running"
        monkeypatch.setattr("refseg.runs.writing.write_detections", fails)
        with pytest.raises(OSError, match="no space left"):
            work.close()
        config = trays.get_run_info("r").config
        assert (config.state, config.error) == ("failed", "OSError: no space left")

    def test_failed_half_way(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        real, calls = refseg.matching.matcher.rank_batch, []

        def fails_at_the_third(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 3:
                raise RuntimeError("out of memory")
            return real(*arguments, **options)

        monkeypatch.setattr(refseg.matching.matcher, "rank_batch", fails_at_the_third)
        with pytest.raises(RuntimeError, match="out of memory"):
            run(trays, prototypes, run_key="r")
        config = trays.get_run_info("r").config
        assert (config.state, config.num_images) == ("failed", 2)
        assert config.error == "RuntimeError: out of memory"
        trays.reload()
        assert [labels and len(labels) for labels in content_of(trays)] == [2, 2, None, None]


class TestAtWork:
    def state(self, dataset: fo.Dataset) -> str | None:
        found = newest_run(dataset, "predictions")
        assert found is not None
        return found.state

    def begin(self, dataset: fo.Dataset, prototypes: Prototypes) -> Generator[Any, None, Any]:
        work = iter_segment(dataset, prototypes, run_key="r", sources=SourceSettings(num_workers=0))
        next(work)
        return work

    def test_it_says_how_far_it_got(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.runs.records.SECONDS_A_BEAT", 0.0)
        work = self.begin(trays, prototypes)
        assert self.state(trays) == "running"
        next(work)
        assert trays.get_run_info("r").config.progress == [2, 4, "images"]
        update_run(trays, "r", {"heard_at": "2020-01-01T00:00:00+00:00"})
        assert self.state(trays) == "interrupted", "nothing was heard of it for long"
        next(work)
        assert self.state(trays) == "running", "it was only slow"
        work.close()
        assert self.state(trays) == "cancelled"

    def test_it_does_not_say_so_at_every_step(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        work = self.begin(trays, prototypes)
        next(work)
        assert "progress" not in whole_config(trays, "r")
        work.close()

    def test_a_database_that_is_gone_for_a_moment(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails(*_: Any) -> None:
            raise AutoReconnect("no server")

        work = self.begin(trays, prototypes)
        with monkeypatch.context() as patch:
            patch.setattr("refseg.runs.records.SECONDS_A_BEAT", 0.0)
            patch.setattr("refseg.runs.records.update_run", fails)
            next(work)
        assert "The run r goes on, but could not say so: no server" in caplog.messages
        assert [step.done for step in work] == [4]
        assert self.state(trays) == "completed"

    def test_of_another_machine(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        work = self.begin(trays, prototypes)
        update_run(trays, "r", {"process": {"host": "elsewhere", "pid": 2**22 + 1, "started_at": 1.0}})
        heard = datetime.now(timezone.utc) - timedelta(seconds=SECONDS_UNTIL_GONE - 60)
        update_run(trays, "r", {"heard_at": heard.isoformat()})
        assert self.state(trays) == "running"
        update_run(trays, "r", {"heard_at": (heard - timedelta(seconds=60)).isoformat()})
        assert self.state(trays) == "interrupted"
        work.close()

    def test_of_an_earlier_version(self, trays: fo.Dataset) -> None:
        """It said when it began, and no more."""
        about = {"method": SEGMENT_METHOD, "label_field": "predictions", "state": "running"}
        now = datetime.now(timezone.utc)
        trays.register_run("new", trays.init_run(**about, started_at=now.isoformat(timespec="seconds")))
        assert self.state(trays) == "running"
        trays.register_run("old", trays.init_run(**about, started_at=(now - timedelta(days=1)).isoformat(timespec="seconds")))
        assert self.state(trays) == "interrupted"

    def test_a_killed_one(self, kept_five: KeptDataset, prototypes: Prototypes) -> None:
        """It is told as interrupted at once, what it wrote holds, and the next run answers the rest."""
        trays = kept_five.put_back()
        trays.persistent = True
        build_index(trays, "demo", num_workers=0, progress=False)
        stored = save_prototypes(trays, prototypes, "parts")
        killed = servers.Process(target=segment_and_die, args=(trays.name, stored.name))
        killed.start()
        killed.join(ANSWER_SECONDS)
        assert killed.exitcode == -signal.SIGKILL
        assert self.state(trays) == "interrupted"
        trays.reload()
        assert len(trays.exists("predictions")) == 2
        assert trays.count("predictions.detections") > 0
        report = run(trays, "parts")
        assert self.state(trays) == "completed"
        assert report.num_instances == trays.count("predictions.detections")
        assert report.changes.num_samples == 0, "no object that the killed run had written is gained again"
        trays.persistent = False


def segment_and_die(name: str, prototypes: str) -> None:
    """Segment a dataset an image a write, and be killed after the second."""
    real, written = refseg.runs.writing.write_detections, list[str]()

    def write_and_die(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        written.extend(arguments[2])
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    refseg.runs.writing.PIXELS_A_WRITE = 1
    refseg.runs.writing.write_detections = write_and_die
    run(fo.load_dataset(name), prototypes)
