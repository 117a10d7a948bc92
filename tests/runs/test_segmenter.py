"""Prototypes as a FiftyOne model: every kind of image it may be given, and apply_model with bad files among good ones."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
import pytest
from PIL import Image

from refseg.candidates.proposing import propose
from refseg.errors import DatasetError
from refseg.images.loading import load_image
from refseg.images.reading import read_image
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.runs.segmenter import ReadImage, Segmenter
from refseg.runs.segmenting import SegmentSettings, matcher_for
from tests.trays import IMAGE_HW, quick_models, tray_samples

MakeDataset = Callable[..., fo.Dataset]


def facts(detections: fo.Detections) -> list[Any]:
    return [(d.label, d.confidence, tuple(d.bounding_box), d.mask.tobytes()) for d in detections.detections]


def test_what_fiftyone_asks(prototypes: Prototypes) -> None:
    model = Segmenter(prototypes)
    assert isinstance(model, fom.Model)
    assert isinstance(model, fom.SupportsGetItem)
    assert model.media_type == "image"
    assert [model.has_logits, model.has_embeddings, model.ragged_batches] == [False, False, False]
    assert model.has_collate_fn
    assert model.transforms is None
    assert model.preprocess
    model.preprocess = False
    assert not model.preprocess


def test_limits_are_checked(prototypes: Prototypes) -> None:
    with pytest.raises(DatasetError, match="max_detections must be a whole number of at least 1, not 0"):
        Segmenter(prototypes, max_detections=0)


def test_every_kind_of_image_is_the_same_answer(trays: fo.Dataset, prototypes: Prototypes) -> None:
    model = Segmenter(prototypes, min_confidence=0.0)
    path = trays.first().filepath
    picture = Image.open(path).convert("RGB")
    expected = facts(model.predict(picture))
    assert len(expected) == 2
    assert facts(model.predict(np.asarray(picture))) == expected
    assert facts(model.predict(load_image(path, model.models.segmenter_side))) == expected


def test_arrays_of_other_modes(trays: fo.Dataset, prototypes: Prototypes) -> None:
    """Grey and RGBA arrays, as FiftyOne's own reader may hand them out."""
    model = Segmenter(prototypes, min_confidence=0.0)
    picture = Image.open(trays.first().filepath).convert("RGB")
    expected = facts(model.predict(picture))
    assert facts(model.predict(np.asarray(picture.convert("RGBA")))) == expected
    assert model.predict(np.asarray(picture.convert("L"))).detections == []  # its candidates are not registered


def test_min_confidence_and_max_detections(trays: fo.Dataset, prototypes: Prototypes) -> None:
    picture = Image.open(trays.first().filepath).convert("RGB")
    both = facts(Segmenter(prototypes, min_confidence=0.0).predict(picture))
    assert facts(Segmenter(prototypes, min_confidence=0.0, max_detections=1).predict(picture)) == both[:1]
    assert facts(Segmenter(prototypes, min_confidence=1.0).predict(picture)) == []


def test_classes_and_thresholds_of_their_own(trays: fo.Dataset, prototypes: Prototypes) -> None:
    picture = Image.open(trays.first().filepath).convert("RGB")
    both = facts(Segmenter(prototypes, min_confidence=0.0).predict(picture))
    for name, _, _, _ in both:
        own = [fact for fact in both if fact[0] == name]
        assert facts(Segmenter(prototypes, min_confidence=0.0, classes=[name]).predict(picture)) == own
        others = {fact[0]: 1.0 for fact in both if fact[0] != name}
        assert facts(Segmenter(prototypes, min_confidence={**others, name: 0.0}).predict(picture)) == own
    with pytest.raises(DatasetError, match="know no class 'gear': choose from 'star', 'tee'"):
        Segmenter(prototypes, classes=["gear"])


def test_negatives_count(trays: fo.Dataset, prototypes: Prototypes) -> None:
    picture = Image.open(trays.first().filepath).convert("RGB")
    plain = Segmenter(prototypes, min_confidence=0.0).predict(picture).detections
    star = prototypes.reference_ids.index("star 0")
    negatives = Negatives(prototypes.vectors[star : star + 1], ("anything",), ("n",), ("",))
    lowered = Segmenter(replace(prototypes, negatives=negatives), min_confidence=0.0).predict(picture).detections
    best = {label.label: label.confidence for label in lowered}
    # The first reference is the star in this very picture.
    assert best.get("star", 0.0) < next(label.confidence for label in plain if label.label == "star")


def test_bad_image_does_not_shift_its_batch(
    trays: fo.Dataset, prototypes: Prototypes, caplog: pytest.LogCaptureFixture
) -> None:
    model = Segmenter(prototypes, min_confidence=0.0)
    side = model.models.segmenter_side
    good = [load_image(path, side) for path in trays.values("filepath")[:2]]
    bad = load_image("nowhere.png", side)
    alone = [facts(answer) for answer in model.predict_all(good)]
    assert alone[0] != alone[1]
    with caplog.at_level(logging.WARNING, "refseg"):
        answers = [facts(answer) for answer in model.predict_all([bad, good[0], bad, good[1]])]
    assert answers == [[], alone[0], [], alone[1]]
    assert caplog.text.count("the file does not exist") == 2
    assert model.predict_all([bad])[0].detections == []
    assert model.predict_all([]) == []


def test_real_segmenter(tmp_path: Path, prototypes: Prototypes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as candidates, then matching; without a threshold on predicted IoU there is always a candidate."""
    monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", -1)
    picture = read_image(tray_samples(tmp_path, 1)[0].filepath)
    models = quick_models()
    (candidates,) = propose([picture], models)
    expected = matcher_for(prototypes, models.preset, SegmentSettings(0.0, 5)).match(candidates)
    written = Segmenter(prototypes, model=models, min_confidence=0.0, max_detections=5).predict(picture).detections
    assert 1 <= len(written) == len(expected) <= 5
    assert [label.confidence for label in written] == expected.scores.tolist()
    for label, mask in zip(written, expected.masks, strict=True):
        np.testing.assert_array_equal(label.mask, mask.numpy())


def test_reader_survives_pickling(trays: fo.Dataset, prototypes: Prototypes) -> None:
    model = Segmenter(prototypes)
    reader = pickle.loads(pickle.dumps(model.build_get_item()))
    assert isinstance(reader, ReadImage)
    assert reader.required_keys == ["filepath"]
    image = reader({"filepath": trays.first().filepath})
    assert image.image_hw == IMAGE_HW
    assert image.pixels.shape == (3, model.models.segmenter_side, model.models.segmenter_side)
    assert model.collate_fn([image, image]) == [image, image]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 2, "num_workers": 1}, {}])
def test_apply_model(trays: fo.Dataset, prototypes: Prototypes, options: dict[str, int]) -> None:
    model = Segmenter(prototypes, min_confidence=0.0)
    view = trays[1:]
    Path(trays.last().filepath).write_bytes(b"")
    view.apply_model(model, "predictions", **{"num_workers": 0, **options}, progress=False)
    expected = [facts(model.predict(read_image(path))) for path in view[:2].values("filepath")]
    values = trays.values("predictions")
    assert values[0] is None
    assert [facts(value) for value in values[1:]] == [*expected, []]
    assert all(len(found) == 2 for found in expected)
