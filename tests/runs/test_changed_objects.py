"""What a run gained, lost and relabelled, as labels to look at."""

from __future__ import annotations

import fiftyone as fo
import pytest

import refseg
from refseg.dataset.fields import holds_labels_of_others, prediction_fields, whole_config
from refseg.errors import DatasetError
from refseg.prototypes.prototypes import Prototypes
from refseg.runs import changes
from refseg.runs.records import objects_from_text
from tests.runs.test_changes import run

VIEWS = ("Gained since the run before", "Lost since the run before", "Relabelled since the run before")


def change(trays: fo.Dataset) -> tuple[fo.Detection, fo.Detection, fo.Detection]:
    """Let the next run gain, lose and relabel one object; these."""
    gains, loses, renames, _ = trays
    gained = next(label for label in gains.predictions.detections if label.label == "star")
    gains.predictions.detections.remove(gained)
    lost = fo.Detection(label="$old.one", bounding_box=[0, 0, 0.02, 0.02], run="r")
    loses.predictions.detections.append(lost)
    renamed = next(label for label in renames.predictions.detections if label.label == "tee")
    renamed.label = "$old.one"
    for sample in (gains, loses, renames):
        sample.save()
    return gained, lost, renamed


def shown(trays: fo.Dataset, field: str = "changes") -> list[list[tuple[str, str, str | None]]]:
    trays.reload()
    held = [sample[field] for sample in trays]
    return [[] if one is None else [(x.change, x.label, x.before) for x in one.detections] for one in held]


class TestShowChanges:
    def test_of_every_kind(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        gained, lost, renamed = change(trays)
        run(trays, prototypes, run_key="again")
        found = refseg.show_changes(trays)
        expected = [[("gained", "star", None)], [("lost", "$old.one", None)], [("relabelled", "tee", "$old.one")], []]
        assert shown(trays) == expected
        assert (found.label_field, found.run_key, found.num_samples) == ("changes", "again", 3)
        assert found.counts == {"gained": 1, "lost": 1, "relabelled": 1}
        boxes = [sample.changes.detections[0].bounding_box for sample in trays[:3]]
        for box, label in zip(boxes, (gained, lost, renamed), strict=True):
            assert box == pytest.approx(label.bounding_box, abs=1e-5)
        assert found.saved_views == VIEWS
        kinds = [trays.load_saved_view(name).values("changes.detections.change", unwind=True) for name in VIEWS]
        assert kinds == [["gained"], ["lost"], ["relabelled"]]

    def test_the_next_run_brings_it_up_to_date(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        change(trays)
        run(trays, prototypes)
        refseg.show_changes(trays)
        modified = trays.last().last_modified_at
        sample = trays.first()
        del sample.predictions.detections[0]
        sample.save()
        report = run(trays, prototypes)
        ((kind, label, _),), *rest = shown(trays)
        assert (kind, {label: 1}, rest) == ("gained", report.changes.gained, [[], [], []])
        assert trays.last().last_modified_at == modified
        assert set(trays.values("changes.detections.run", unwind=True)) == {report.run_key}
        run(trays, prototypes)
        assert shown(trays) == [[], [], [], []]

    def test_nobody_asked(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        change(trays)
        run(trays, prototypes)
        trays.reload()
        assert not trays.has_field("changes")
        assert trays.list_saved_views() == []

    def test_a_field_that_was_deleted_stays_away(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        refseg.show_changes(trays)
        trays.delete_sample_field("changes")
        change(trays)
        run(trays, prototypes)
        trays.reload()
        assert not trays.has_field("changes")

    def test_it_is_no_reference_and_no_truth(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        run(trays, prototypes)
        change(trays)
        run(trays, prototypes)
        refseg.show_changes(trays, changes_field="moved")
        assert prediction_fields(trays) == {"predictions", "moved"}
        assert not holds_labels_of_others(trays, "moved")
        with pytest.raises(DatasetError, match="holds predictions, which the next run replaces"):
            refseg.accept(trays, [trays.first().predictions.detections[0].id], accepted_field="moved")

    def test_what_is_not_ours_stays(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match="No run of RefSeg has written to the field 'predictions'"):
            refseg.show_changes(trays)
        run(trays, prototypes)
        with pytest.raises(DatasetError, match=r"The field 'ground_truth' of dataset .* was not written by show_changes"):
            refseg.show_changes(trays, changes_field="ground_truth")
        trays.save_view(VIEWS[1], trays.limit(1))
        assert refseg.show_changes(trays).saved_views == (VIEWS[0], VIEWS[2])
        assert len(trays.load_saved_view(VIEWS[1])) == 1

    def test_so_many_are_noted(self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(changes, "OBJECTS_NOTED", 2)
        run(trays, prototypes)
        report = run(trays, prototypes, max_detections=1)
        assert report.changes.num_lost > 2
        noted = objects_from_text(str(whole_config(trays, report.run_key)["changed_objects"]))
        assert [(one.sample_id, one.change) for one in noted] == [(one.sample_id, "lost") for one in report.changes.objects]
        assert len(noted) == 2
