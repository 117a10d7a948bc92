"""Heatmaps: values, where they are written, what is skipped and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import refseg
import refseg.runs.heatmaps as heatmaps
from refseg.candidates.proposing import encode_patches
from refseg.errors import DatasetError, PrototypeMismatchError
from refseg.images.reading import encoder_pixels, read_image, segmenter_pixels
from refseg.models.loaded import load_models
from refseg.progress import Progress
from refseg.prototypes.prototypes import Prototypes
from tests.trays import IMAGE_HW, whole_mask

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def trays(five_trays: fo.Dataset) -> fo.Dataset:
    return five_trays


class TestValues:
    def test_cosine_of_each_patch_and_the_prototype(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        refseg.similarity_heatmap(trays, prototypes, "tee", num_workers=0, progress=False)
        models = load_models("demo")
        side = models.patches_side
        pixels = segmenter_pixels(read_image(trays.first().filepath), models.segmenter_side)[None]
        with torch.inference_mode():
            features = encode_patches(encoder_pixels(pixels, models.preset.encoder_side), models)[0].float()
        cosine = F.cosine_similarity(features, prototypes.matrix[1][None], dim=1).clamp(min=0).view(side, side)
        heatmap = trays.first().heatmap_tee
        assert heatmap.map.shape == (4 * side, 4 * side)
        assert heatmap.map.dtype == np.float32
        assert heatmap.range == [0, 1]
        assert 0 <= heatmap.map.min() < heatmap.map.max() <= 1
        # The four finer values around a patch's middle lie an eighth of a patch from it: their mean is nearly the patch's own.
        middles = heatmap.map.reshape(side, 4, side, 4)[:, 1:3, :, 1:3].mean((1, 3))
        assert np.corrcoef(middles.ravel(), cosine.numpy().ravel())[0, 1] > 0.98
        ramp = cosine[None, None]
        expected = F.interpolate(ramp, scale_factor=4, mode="bilinear", align_corners=False)[0, 0].numpy()
        np.testing.assert_allclose(heatmap.map, expected, atol=0.5 / 255 + 1e-3)

    def test_one_value_a_patch(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        refseg.similarity_heatmap(trays, prototypes, "tee", field="fine", num_workers=0, progress=False)
        report = refseg.similarity_heatmap(trays, prototypes, "tee", smooth=False, num_workers=0, progress=False)
        side = load_models("demo").patches_side
        for sample in trays:
            assert sample.heatmap_tee.map.shape == (side, side)
            middles = sample.fine.map.reshape(side, 4, side, 4)[:, 1:3, :, 1:3].mean((1, 3))
            assert np.corrcoef(middles.ravel(), sample.heatmap_tee.map.ravel())[0, 1] > 0.98
        every = np.stack([sample.heatmap_tee.map for sample in trays])
        assert (report.lowest, report.highest) == (every.min(), every.max())
        with pytest.raises(DatasetError, match="smooth"):
            refseg.similarity_heatmap(trays, prototypes, "tee", smooth="yes", progress=False)

    @pytest.mark.parametrize(("label", "other"), [("star", "tee"), ("tee", "star")])
    def test_brightest_on_the_class(self, trays: fo.Dataset, prototypes: Prototypes, label: str, other: str) -> None:
        report = refseg.similarity_heatmap(trays, prototypes, label, num_workers=0, progress=False)
        assert (report.field, report.label, report.num_images, report.skipped) == (f"heatmap_{label}", label, 5, ())
        assert str(report) == f"5 heatmaps of '{label}' in the field 'heatmap_{label}'"
        means: dict[str, list[float]] = {"star": [], "tee": []}
        for sample in trays:
            whole = torch.from_numpy(sample[report.field].map)[None, None]
            values = F.interpolate(whole, size=IMAGE_HW, mode="bilinear")[0, 0].numpy()
            for detection in sample.ground_truth.detections:
                means[detection.label].append(float(values[whole_mask(detection)].mean()))
        assert np.mean(means[label]) > np.mean(means[other]) + 0.1


class TestWriting:
    def test_only_the_view_is_written_and_again(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        refseg.similarity_heatmap(trays[:2], prototypes, "star", field="where", num_workers=0, progress=False)
        assert [heatmap is not None for heatmap in trays.values("where")] == [True, True, False, False, False]
        before = trays.first()["where"].map
        refseg.similarity_heatmap(trays[:1], prototypes, "tee", field="where", num_workers=0, progress=False)
        trays.reload()
        assert (trays.first()["where"].map != before).any()

    def test_by_name_in_several_writes(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heatmaps, "IMAGES_A_WRITE", 2)
        refseg.save_prototypes(trays, prototypes, "kept")
        steps: list[Progress] = []
        refseg.similarity_heatmap(trays, "kept", "star", num_workers=0, progress=steps.append)
        assert len(trays.exists("heatmap_star")) == 5
        assert (steps[0], steps[-1]) == (Progress(0, 5, "images"), Progress(5, 5, "images"))

    def test_closed_early_keeps_what_was_written(
        self, trays: fo.Dataset, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heatmaps, "IMAGES_A_WRITE", 1)
        work = heatmaps.iter_similarity_heatmap(trays, prototypes, "star", num_workers=0)
        while next(work).done == 0:
            pass
        work.close()
        assert 0 < len(trays.exists("heatmap_star")) < 5

    def test_class_with_a_name_that_no_field_can_have(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        renamed = Prototypes(
            ("a.b $", "tee"),
            *(prototypes.vectors, prototypes.labels, prototypes.reference_ids, "demo", prototypes.fingerprint),
        )
        report = refseg.similarity_heatmap(trays[:1], renamed, "a.b $", num_workers=0, progress=False)
        assert report.field == "heatmap_a_b"


class TestBadInput:
    def test_unreadable_images_are_skipped(self, trays: fo.Dataset, prototypes: Prototypes, tmp_path: Path) -> None:
        sample = trays.first()
        Path(sample.filepath).write_bytes(b"no image")
        Path(trays.last().filepath).unlink()
        report = refseg.similarity_heatmap(trays, prototypes, "star", num_workers=0, progress=False)
        assert report.num_images == 3
        assert [(image.sample_id, image.reason) for image in report.skipped] == [
            (sample.id, "this is not an image that can be read"),
            (trays.last().id, "the file does not exist"),
        ]
        assert [heatmap is not None for heatmap in trays.values("heatmap_star")] == [False, True, True, True, False]
        assert f"skipped {sample.filepath}" in str(report)

    def test_no_readable_image_at_all(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for path in trays.values("filepath"):
            Path(path).unlink()
        report = refseg.similarity_heatmap(trays, prototypes, "star", num_workers=0, progress=False)
        assert (report.num_images, len(report.skipped)) == (0, 5)

    def test_unknown_class_lists_the_known(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match=r"no class 'gear': choose one of 'star', 'tee'"):
            refseg.similarity_heatmap(trays, prototypes, "gear")
        assert not trays.has_field("heatmap_gear")

    def test_field_of_another_type(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        for field in ("ground_truth", "tags"):
            with pytest.raises(DatasetError, match=f"The field '{field}' .* holds no heatmaps"):
                refseg.similarity_heatmap(trays, prototypes, "star", field=field)
        with pytest.raises(DatasetError, match="cannot name a field"):
            refseg.similarity_heatmap(trays, prototypes, "star", field="a.b")

    def test_empty_view(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        with pytest.raises(DatasetError, match="is empty"):
            refseg.similarity_heatmap(trays.match_tags("none"), prototypes, "star")

    def test_another_encoder(self, trays: fo.Dataset, prototypes: Prototypes) -> None:
        other = Prototypes(prototypes.classes, prototypes.vectors, prototypes.labels, prototypes.reference_ids, "demo", "x")
        with pytest.raises(PrototypeMismatchError):
            refseg.similarity_heatmap(trays, other, "star")
