"""The demo dataset: what it holds, and that a seed settles it."""

import numpy as np
import pytest

from refseg.dataset.labels import object_region, objects_of
from refseg.demo.dataset import CLASSES, IMAGE_HW, build_demo_dataset, draw_classes, draw_tray
from refseg.demo.world import NOVEL_PARTS, TRAINING_PARTS
from refseg.images.reading import read_image

NUM_IMAGES = 9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    made = build_demo_dataset(tmp_path_factory.mktemp("data"), name="refseg-demo-test", num_images=NUM_IMAGES)
    yield made
    made.delete()


def test_a_third_is_empty(dataset):
    assert len(dataset) == NUM_IMAGES
    empty = dataset.match_tags("empty")
    assert len(empty) == NUM_IMAGES // 3
    assert empty.count("ground_truth.detections") == 0
    assert dataset.match_tags("empty", bool=False).count("ground_truth.detections") >= NUM_IMAGES


def test_classes_are_novel(dataset):
    assert set(dataset.distinct("ground_truth.detections.label")) <= set(CLASSES)
    assert set(CLASSES) <= set(NOVEL_PARTS)
    assert not set(NOVEL_PARTS) & set(TRAINING_PARTS)
    assert len(NOVEL_PARTS) >= 6


def test_masks_are_tight_and_on_the_image(dataset):
    for sample in dataset:
        image = read_image(sample.filepath)
        assert (image.height, image.width) == IMAGE_HW
        for label in objects_of(sample.ground_truth):
            box, mask = object_region(label, IMAGE_HW)
            assert mask.shape == (round(box[3] - box[1]), round(box[2] - box[0]))
            for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
                assert edge.any()


def test_same_seed_same_tray():
    scenes = []
    for _ in range(2):
        rng = np.random.default_rng(4)
        scenes.append(draw_tray(rng, draw_classes(rng), empty=False)[0])
    assert np.array_equal(scenes[0].image, scenes[1].image)
    assert np.array_equal(scenes[0].ids, scenes[1].ids)
