"""How the images of a dataset are read: a range of pixels and bands, found once, kept, and never mixed with others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import tifffile
from PIL import Image

from refseg.dataset.index_finding import open_index
from refseg.dataset.index_settings import settings_of
from refseg.dataset.known_indexes import index_records
from refseg.dataset.references import collect_references
from refseg.dataset.store import save_prototypes
from refseg.errors import IndexMismatchError, PrototypeMismatchError
from refseg.images import files as image_files
from refseg.images.pixels import PLAIN, PixelSettings
from refseg.images.reading import read_image
from refseg.models.loaded import load_models
from refseg.prototypes.building import build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenter import Segmenter
from refseg.runs.segmenting import segment
from tests.dataset.building import build, save_deep
from tests.trays import draw_trays


@pytest.fixture
def deep(make_dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    """Two pictures of a camera of 12 bits, one of them dark."""
    masks = draw_trays(1)[0].masks
    objects = [[fo.Detection.from_mask(mask, label="part") for mask in masks] for _ in range(2)]
    paths = [save_deep(tmp_path / "a.png", 900), save_deep(tmp_path / "b.png", 4000)]
    return make_dataset(
        [fo.Sample(path, ground_truth=fo.Detections(detections=each)) for path, each in zip(paths, objects, strict=True)]
    )


def features_of(dataset: fo.Dataset, number: int) -> np.ndarray:
    index = open_index(dataset).index
    (chunk,) = index.scan([dataset.values("id")[number]])
    return chunk.features.numpy()


class TestRange:
    def test_found_once_and_kept_for_later_images(
        self, deep: fo.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(image_files, "_said_to_cut", set())
        with caplog.at_level(logging.WARNING, "refseg"):
            build(deep)
        assert [record.getMessage() for record in caplog.records if "assumed" in record.getMessage()] == [
            "2 images have pixels of more than 8 bits without a word on what is white: they are assumed to run from 0 to 4095, "
            "as those of 2 do; pixel_range= says otherwise"
        ]
        (record,) = index_records(deep)
        assert record["pixels"] == [[0.0, 4095.0], None]
        models = load_models("demo")
        assert record["fingerprint"] == settings_of(deep, models, pixels=PixelSettings((0, 4095))).fingerprint
        assert record["fingerprint"] != settings_of(deep, models).fingerprint
        caplog.clear()
        deep.add_sample(fo.Sample(save_deep(tmp_path / "bright.png", 60000)))
        with caplog.at_level(logging.WARNING, "refseg"):
            assert build(deep).num_added == 1
        (record,) = caplog.records
        assert record.getMessage() == (
            f"Most values of {tmp_path / 'bright.png'} lie beyond the range of pixels from 0 to 4095, so that little is seen "
            "of it, and perhaps of other images: pixel_range= gives another to references and index"
        )
        assert len(index_records(deep)) == 1

    def test_what_was_given_once_holds_until_something_else_is(self, deep: fo.Dataset) -> None:
        build(deep, pixel_range=(0, 8000))
        assert build(deep).num_added == 0
        build(deep, channels=(2, 1, 0))
        # What was found for other bands says nothing of these.
        assert [record["pixels"] for record in index_records(deep)] == [[[0.0, 8000.0], None], [[0.0, 4095.0], [2, 1, 0]]]
        assert build(deep).num_added == 0
        assert len(index_records(deep)) == 2

    def test_an_index_is_read_as_prototypes_were(self, deep: fo.Dataset) -> None:
        prototypes = build_prototypes(collect_references(deep, "ground_truth"), "demo", pixel_range=(0, 8000), progress=False)
        save_prototypes(deep, prototypes, "parts")
        build(deep)
        assert [record["pixels"][0] for record in index_records(deep)] == [[0.0, 8000.0]]

    def test_eight_bits_have_the_fingerprint_they_always_had(self, photos: fo.Dataset) -> None:
        build(photos)
        (record,) = index_records(photos)
        assert record["pixels"] is None
        assert record["fingerprint"] == settings_of(photos, load_models("demo"), pixels=PLAIN).fingerprint

    def test_what_is_given_is_what_the_models_see(self, deep: fo.Dataset, tmp_path: Path) -> None:
        """As if the pictures had been turned into 8 bits before."""
        build(deep, pixel_range=(0, 4095))
        seen = features_of(deep, 1)
        by_hand = fo.Dataset()
        try:
            values = np.asarray(Image.open(deep.last().filepath)).astype(np.float64)
            Image.fromarray((values * 255 / 4095).round().astype(np.uint8)).save(tmp_path / "hand.png")
            by_hand.add_sample(fo.Sample(str(tmp_path / "hand.png")))
            build(by_hand)
            np.testing.assert_allclose(seen, features_of(by_hand, 0), atol=2e-3)
        finally:
            by_hand.delete()
        build(deep, pixel_range=(0, 65535))
        assert sorted(record["pixels"][0][1] for record in index_records(deep)) == [4095, 65535]

    def test_images_that_join_others_of_eight_bits(self, photos: fo.Dataset, tmp_path: Path) -> None:
        build(photos)
        photos.add_sample(fo.Sample(save_deep(tmp_path / "deep.png", 4000)))
        assert build(photos).num_added == 3
        records = index_records(photos)
        assert [record["pixels"] for record in records] == [None, [[0.0, 4095.0], None]]
        assert build(photos).num_added == 0
        assert open_index(photos).status().num_indexed == 3

    def test_a_place_that_was_chosen_is_not_left(self, photos: fo.Dataset, tmp_path: Path) -> None:
        build(photos, uri=tmp_path / "own")
        photos.add_sample(fo.Sample(save_deep(tmp_path / "deep.png", 4000)))
        with pytest.raises(IndexMismatchError, match=r"of images of 8 bits, and some now have more.*pixel_range=\(0, 4095\)"):
            build(photos, uri=tmp_path / "own")

    def test_references_take_that_of_their_datasets_index(self, deep: fo.Dataset) -> None:
        build(deep)
        dark = deep.limit(1)
        references = collect_references(dark, "ground_truth")
        prototypes = build_prototypes(references, "demo", progress=False)
        assert prototypes.pixels == PixelSettings((0, 4095))
        assert segment(deep, prototypes, progress=False).num_from_index == 2
        assert deep.get_run_info(deep.list_runs()[-1]).config.pixels == [[0.0, 4095.0], None]

    def test_without_an_index_references_take_that_of_their_whole_dataset(self, deep: fo.Dataset) -> None:
        dark = deep.limit(1)
        references = collect_references(dark, "ground_truth")
        prototypes = build_prototypes(references, "demo", progress=False)
        assert prototypes.pixels == PixelSettings((0, 4095))
        segment(deep, prototypes, index=False, progress=False)
        assert deep.get_run_info(deep.list_runs()[-1]).config.pixels == [[0.0, 4095.0], None]
        alone = [replace(reference, beside=()) for reference in references]
        assert build_prototypes(alone, "demo", progress=False).pixels == PixelSettings((0, 1023))

    def test_without_an_index_a_view_takes_that_of_its_whole_dataset(self, photos: fo.Dataset, deep: fo.Dataset) -> None:
        prototypes = build_prototypes(collect_references(photos, "ground_truth"), "demo", progress=False)
        assert prototypes.pixels == PLAIN
        segment(deep.limit(1), prototypes, index=False, run_key="one", progress=False)
        assert deep.get_run_info("one").config.pixels == [[0.0, 4095.0], None]

    def test_another_than_that_of_the_index_is_refused(self, deep: fo.Dataset) -> None:
        build(deep)
        references = collect_references(deep, "ground_truth")
        other = build_prototypes(references, "demo", pixel_range=(0, 1023), progress=False)
        with pytest.raises(
            PrototypeMismatchError,
            match=r"built with pixel_range=\(0, 1023\), but the index at .* pixel_range=\(0, 4095\): build them again with "
            r"refseg.build_prototypes\(references, 'demo', pixel_range=\(0, 4095\)\)",
        ):
            segment(deep, other, progress=False)
        with pytest.raises(PrototypeMismatchError, match="the images are to be read with"):
            segment(deep, other, index=False, pixel_range=(0, 4095), progress=False)
        with pytest.raises(PrototypeMismatchError, match="the images are to be read with"):
            Segmenter(other, pixel_range=(0, 4095))
        with pytest.raises(IndexMismatchError, match=r"was built with pixel_range=\(0, 4095\), not with"):
            segment(deep, replace(other, pixels=PLAIN), index=open_index(deep), pixel_range=(0, 9), progress=False)

    def test_an_index_of_other_bands_is_not_compared(self, photos: fo.Dataset, tmp_path: Path) -> None:
        """One of the first three bands, and prototypes of others; where no image has more than three there is no choice."""
        references = collect_references(photos, "ground_truth")
        prototypes = replace(build_prototypes(references, "demo", progress=False), pixels=PixelSettings(channels=(3, 2, 1)))
        build(photos)
        assert segment(photos, prototypes, progress=False).num_from_index == 2
        bands = np.dstack([draw_trays(1)[0].image, draw_trays(1)[0].image[..., :1]])
        tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="rgb")
        photos.add_sample(fo.Sample(str(tmp_path / "bands.tif")))
        build(photos)
        plain = open_index(photos)
        with pytest.raises(PrototypeMismatchError, match=r"with channels=\(3, 2, 1\), but .* shows the first three bands"):
            segment(photos, prototypes, index=plain, progress=False)
        assert segment(photos, prototypes, progress=False).num_from_index == 0
        assert [record["pixels"] for record in index_records(photos)] == [None, [None, [3, 2, 1]]]
        assert segment(photos, prototypes, progress=False).num_from_index == 3

    def test_of_prototypes_holds_for_images_without_an_index(self, deep: fo.Dataset) -> None:
        references = collect_references(deep, "ground_truth")
        prototypes = build_prototypes(references, "demo", pixel_range=(0, 8000), progress=False)
        segment(deep, prototypes, index=False, run_key="none", progress=False)
        assert deep.get_run_info("none").config.pixels == [[0.0, 8000.0], None]
        segment(deep, prototypes, run_key="own", progress=False)
        assert [record["pixels"][0] for record in index_records(deep)] == [[0.0, 8000.0]]
        model = Segmenter(prototypes)
        item = model.build_get_item()({"filepath": deep.first().filepath})
        plain = read_image(deep.first().filepath, pixels=PixelSettings((0, 8000)))
        assert item.pixels is not None
        assert abs(float(item.pixels.mean()) * 255 - np.asarray(plain).mean()) < 1

    def test_vectors_of_another_are_not_reused(self, deep: fo.Dataset) -> None:
        references = collect_references(deep, "ground_truth")
        first = build_prototypes(references, "demo", pixel_range=(0, 4095), progress=False)
        again = build_prototypes(references, "demo", reuse=first, progress=False)
        assert again.pixels == first.pixels
        assert again.digests == first.digests
        other = build_prototypes(references, "demo", reuse=first, pixel_range=(0, 65535), progress=False)
        assert not set(other.digests) & set(first.digests)

    def test_file_of_prototypes(self, deep: fo.Dataset, tmp_path: Path) -> None:
        references = collect_references(deep, "ground_truth")
        built = build_prototypes(references, "demo", pixel_range=(0, 4095), channels=(2, 1, 0), progress=False)
        built.save(tmp_path / "a.safetensors")
        assert Prototypes.load(tmp_path / "a.safetensors").pixels == PixelSettings((0, 4095), (2, 1, 0))
        assert built.remove([built.reference_ids[0]]).pixels == built.pixels
        plain = replace(built, pixels=PLAIN)
        assert built.add(plain).pixels == plain.add(built).pixels == built.pixels
        with pytest.raises(PrototypeMismatchError, match="cannot be joined: build both with the same"):
            built.add(replace(built, pixels=PixelSettings((0, 255))))
