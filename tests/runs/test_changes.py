"""What a run says it has changed: objects gained, lost and relabelled, against what the samples held."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from refseg.dataset.source_settings import SourceSettings
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.changes import SAME_OBJECT_IOU, Changes, pair_objects
from refseg.runs.segmenting import SegmentSettings, iter_segment
from tests.trays import PARTS
from tests.trays import segment_all as run


def counts(changes: Changes) -> tuple[dict[str, int], dict[str, int], dict[tuple[str, str], int]]:
    return changes.gained, changes.lost, changes.relabelled


class TestPairObjects:
    def test_first_of_its_label_then_of_any(self) -> None:
        here, near = [0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.3]
        before = [("nut", near), ("gear", here)]
        # The gear lies nearer to what is now a nut, but it still has a gear of its own.
        assert pair_objects(before, [("nut", here), ("gear", here)]) == {0: 0, 1: 1}
        assert pair_objects(before, [("nut", here), ("ring", here)]) == {0: 0, 1: 1}
        assert pair_objects(before, [("ring", here), ("nut", near)]) == {1: 0, 0: 1}

    def test_the_best_score_chooses_first(self) -> None:
        box = [0.1, 0.1, 0.4, 0.4]
        assert pair_objects([("nut", box)], [("nut", [0.1, 0.1, 0.4, 0.3]), ("nut", box)]) == {0: 0}

    def test_iou_of_a_half_counts(self) -> None:
        whole = [0.0, 0.0, 0.5, 0.5]
        assert pair_objects([("nut", whole)], [("nut", [0.0, 0.0, 0.5, 0.25])]) == {0: 0}
        assert pair_objects([("nut", whole)], [("nut", [0.0, 0.0, 0.5, 0.24])]) == {}

    @pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0)])
    def test_of_nothing(self, sizes: tuple[int, int]) -> None:
        before, now = ([("nut", [0.0, 0.0, 0.5, 0.5])] * size for size in sizes)
        assert pair_objects(before, now) == {}

    def test_without_box_or_label(self) -> None:
        box = [0.0, 0.0, 0.5, 0.5]
        assert pair_objects([("nut", None), (None, box)], [("nut", box)]) == {0: 1}

    @pytest.mark.parametrize("seed", range(20))
    def test_is_a_loop_over_pairs(self, seed: int) -> None:
        rng = np.random.default_rng(seed)

        def draw(count: int) -> list[tuple[str, list[float]]]:
            boxes = np.concatenate([rng.uniform(0, 0.3, (count, 2)), rng.uniform(0.2, 0.6, (count, 2))], 1)
            return [("abc"[rng.integers(3)], box) for box in boxes.tolist()]

        before, now = draw(9), draw(11)
        taken: dict[int, int] = {}
        for same_label in (True, False):
            for new, (name, (x, y, w, h)) in enumerate(now):
                best = (0.0, -1)
                for old, (other, (a, b, c, d)) in enumerate(before):
                    if old not in taken.values() and new not in taken and (name == other) == same_label:
                        corners = [torch.tensor([[x, y, x + w, y + h]]), torch.tensor([[a, b, a + c, b + d]])]
                        best = max(best, (float(box_iou(*corners)), old))
                if best[0] >= SAME_OBJECT_IOU:
                    taken[new] = best[1]
        assert pair_objects(before, now) == taken
        assert len(taken) > 2


class TestChanges:
    def test_the_first_run_changes_nothing(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        report = run(trays, prototypes)
        assert report.changes == Changes()
        assert "Since" not in str(report)

    def test_nor_does_the_same_again(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        assert run(trays, prototypes).changes == Changes()

    def test_of_every_kind(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        ids = trays.values("id")
        gains, loses, renames, moves = trays
        star = next(label for label in gains.predictions.detections if label.label == "star")
        gains.predictions.detections.remove(star)
        loses.predictions.detections.append(fo.Detection(label="$old.one", bounding_box=[0, 0, 0.02, 0.02], run="r"))
        tee = next(label for label in renames.predictions.detections if label.label == "tee")
        tee.label = "$old.one"
        x, y, w, h = moves.predictions.detections[0].bounding_box
        moves.predictions.detections[0].bounding_box = [x + 0.2 * w, y, w, h]
        for sample in (gains, loses, renames, moves):
            sample.save()
        report = run(trays, prototypes, run_key="again")
        assert counts(report.changes) == ({"star": 1}, {"$old.one": 1}, {("$old.one", "tee"): 1})
        assert report.changes.sample_ids == tuple(ids[:3])
        assert report.num_written == 4  # a box that was moved is written again, and is the same object
        assert str(report.changes) == "1 object gained (star), 1 lost ($old.one), 1 relabelled ($old.one \u2192 tee)"
        assert f"Since the last run: {report.changes}, in 3 images" in str(report)
        config = fo.load_dataset(trays.name).get_run_info("again").config
        assert config.changes == {"gained": [["star", 1]], "lost": [["$old.one", 1]], "relabelled": [["$old.one", "tee", 1]]}
        assert config.changed_ids.split() == ids[:3]

    def test_a_sample_never_segmented_does_not_count(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays[:2], prototypes, min_confidence=1.0)
        report = run(trays, prototypes)
        # No prediction was an answer, so what is found there now is gained.
        assert counts(report.changes) == ({"star": 2, "tee": 2}, {}, {})
        assert report.changes.sample_ids == tuple(trays[:2].values("id"))

    def test_labels_of_others_are_no_earlier_answer(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        trays.clone_sample_field("ground_truth", "predictions")
        report = run(trays, prototypes, overwrite=True)
        assert (report.changes, report.num_written) == (Changes(), 4)
        assert set(trays.distinct("predictions.detections.run")) == {report.run_key}

    def test_labels_that_others_have_added_count(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        """They have neither score nor predicted IoU, and one has no label and another no box."""
        run(trays, prototypes)
        trays.set_values("predictions", trays.values("ground_truth"))
        sample = trays.first()
        sample.predictions.detections += [fo.Detection(bounding_box=[0, 0, 0.02, 0.02]), fo.Detection(label="boxless")]
        sample.save()
        assert run(trays, prototypes).protected == tuple(trays.values("id"))
        report = run(trays, prototypes, overwrite=True)
        labels = trays.values("predictions.detections.label"), trays.values("ground_truth.detections.label")
        relabelled = sum(sorted(now) != sorted(before) for now, before in zip(*labels, strict=True))
        assert report.changes.lost == {"unlabelled": 1, "boxless": 1}
        assert (report.changes.gained, report.changes.num_relabelled) == ({}, relabelled)

    @pytest.mark.parametrize("kind", ["mask_dir", "semantic_field"])
    def test_where_all_is_written_again(self, trays: fo.Dataset, prototypes: Prototypes, kind: str, tmp_path: Path) -> None:
        options = {"mask_dir": str(tmp_path / "masks")} if kind == "mask_dir" else {"semantic_field": "map"}
        assert run(trays, prototypes, **options).changes == Changes()
        same = run(trays, prototypes, **options)
        assert (same.num_written, same.changes) == (4, Changes())
        sample = trays.first()
        del sample.predictions.detections[1]
        sample.save()
        report = run(trays, prototypes, **options)
        assert (report.num_written, report.changes.num_gained, report.changes.sample_ids) == (4, 1, (sample.id,))

    def test_a_preview_counts_what_it_writes(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("refseg.runs.ranked.PREVIEWED", 2)
        run(trays, prototypes, max_detections=1)
        report = run(trays, prototypes, preview=True)
        assert report.changes.num_gained == report.changes.num_samples == 2
        assert set(report.changes.sample_ids) == {sample_id for sample_id, _ in report.best}

    def test_a_class_that_is_not_written_any_more_is_lost(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        tees = trays.count_values("predictions.detections.label")["tee"]
        assert counts(run(trays, prototypes, classes=["star"]).changes) == ({}, {"tee": tees}, {})

    def test_what_a_cancelled_run_changed_is_recorded(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(trays, prototypes, max_detections=1)
        monkeypatch.setattr("refseg.runs.ranked.IMAGES_A_LOOK", 1)
        work = iter_segment(
            trays, prototypes, settings=SegmentSettings(0.0), run_key="r", sources=SourceSettings(num_workers=0)
        )
        for _ in range(3):
            next(work)
        work.close()
        config = trays.get_run_info("r").config
        assert config.state == "cancelled"
        assert sum(number for _, number in config.changes["gained"]) == len(config.changed_ids.split()) == 2

    def test_so_many_ids_are_recorded(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.runs.records.CHANGES_RECORDED", 3)
        run(trays, prototypes)
        report = run(trays, prototypes, max_detections=1)
        assert report.changes.num_samples == report.changes.num_lost == 4
        config = trays.get_run_info(report.run_key).config
        assert config.changed_ids.split() == list(report.changes.sample_ids[:3])


class TestWords:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            (Changes(), "no object gained, lost or relabelled"),
            (
                Changes({"tee": 4, "star": 8}, {"tee": 3}, {("star", "tee"): 1}),
                "12 objects gained (star 8, tee 4), 3 lost (tee), 1 relabelled (star \u2192 tee)",
            ),
            (Changes(lost={PARTS[0]: 1}), "1 object lost (star)"),
            (
                Changes(relabelled={("star", "tee"): 1, ("tee", "star"): 2}),
                "3 objects relabelled (tee \u2192 star 2, star \u2192 tee 1)",
            ),
        ],
    )
    def test_text(self, changes: Changes, text: str) -> None:
        assert str(changes) == text

    def test_numbers(self) -> None:
        changes = Changes({"a": 2, "b": 3}, {"a": 1}, {("a", "b"): 4}, ("x", "y"))
        numbers = changes.num_gained, changes.num_lost, changes.num_relabelled, changes.num_samples
        assert numbers == (5, 1, 4, 2)
