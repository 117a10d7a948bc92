"""What a dataset keeps of a run of segment: its settings before work starts, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import torch
from PIL import Image

import refseg.candidates.proposing
import refseg.matching.matcher
from refseg.dataset.source_settings import SourceSettings
from refseg.images.reading import file_sha256
from refseg.matching.settings import MatchSettings
from refseg.models.loaded import get_preset, load_models
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.records import SEGMENT_METHOD
from refseg.runs.segmenting import SegmentSettings, iter_segment, matcher_for
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
            "runs.writing.write_values",
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
        monkeypatch.setattr("refseg.runs.writing.write_values", fails)
        with pytest.raises(OSError, match="no space left"):
            work.close()
        config = trays.get_run_info("r").config
        assert (config.state, config.error) == ("failed", "OSError: no space left")

    def test_failed_half_way(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        real, calls = refseg.matching.matcher.rank, []

        def fails_at_the_third(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 3:
                raise RuntimeError("out of memory")
            return real(*arguments, **options)

        monkeypatch.setattr(refseg.matching.matcher, "rank", fails_at_the_third)
        with pytest.raises(RuntimeError, match="out of memory"):
            run(trays, prototypes, run_key="r")
        config = trays.get_run_info("r").config
        assert (config.state, config.num_images) == ("failed", 2)
        assert config.error == "RuntimeError: out of memory"
        trays.reload()
        assert [labels and len(labels) for labels in content_of(trays)] == [2, 2, None, None]
