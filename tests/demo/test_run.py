"""`refseg demo` on a few images: the report, the picture, the dataset. Accuracy is what `make demo` is for."""

import json

import fiftyone as fo
import pytest
from PIL import Image

from refseg.dataset import REFERENCE_TAG
from refseg.demo.dataset import CLASSES
from refseg.demo.run import SHOTS, run_demo
from refseg.errors import CocoError


@pytest.mark.slow
def test_run_demo_writes_a_report_and_a_picture(tmp_path, capsys):
    report = run_demo(tmp_path, progress=False, name="refseg-demo-run", num_images=24)
    try:
        assert json.loads((tmp_path / "report.json").read_text()) == report
        for key in ("mask_ap", "mask_ap50", "box_ap", "seconds_per_image", "false_positives_per_empty_image"):
            assert report[key] >= 0, key
        assert report["images"] == 24
        assert 0 < report["evaluated_images"] < 24, "images with references must be left out"
        with Image.open(tmp_path / "overview.png") as picture:
            assert picture.width > 1000
        dataset = fo.load_dataset("refseg-demo-run")
        tagged = dataset.select_labels(tags=REFERENCE_TAG, fields="ground_truth")
        shots = tagged.count_values("ground_truth.detections.label")
        # So few images do not hold three whole objects of every class.
        assert shots.keys() == set(CLASSES)
        assert set(shots.values()) <= {2, SHOTS}
        assert dataset.has_evaluation("demo")
        least = dataset.bounds("predictions.detections.confidence")[0]
        assert least >= report["threshold"], "what the App opens with is what was found"
        assert dataset.bounds("every_score.detections.confidence")[0] < least
        assert (dataset.app_config.active_fields.exclude, dataset.app_config.active_fields.paths) == (True, ["every_score"])
        assert "See it in the App" in capsys.readouterr().out
    finally:
        fo.delete_dataset("refseg-demo-run")


def test_run_demo_replaces_no_other_file(tmp_path):
    for name in ("report.json", "overview.png"):
        (tmp_path / name).write_text("notes")
        with pytest.raises(CocoError, match=f"{name} exists and is not a"):
            run_demo(tmp_path, progress=False, name="refseg-demo-none")
        (tmp_path / name).unlink()
    assert not fo.dataset_exists("refseg-demo-none")
