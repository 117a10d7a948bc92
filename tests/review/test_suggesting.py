"""Suggested references: mutual nearest neighbours by an independent computation, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from numpy.typing import NDArray

import refseg
from refseg import SuggestedReference
from refseg.dataset.index_finding import open_index
from refseg.errors import DatasetError, IndexNotFoundError, PrototypeFileError
from refseg.matching.whitening import fit_whitening
from refseg.prototypes.prototypes import Prototypes
from refseg.review.places import Prediction, candidate_rows
from tests.kept import KeptDataset, kept_trays
from tests.trays import whole_mask

QUIET: dict[str, Any] = {"num_workers": 0, "progress": False}
NUM_TRAYS = 20
"""With two candidates each, enough of a dataset to whiten by."""
NUM_REFERENCES = 3
MANY = 99


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptDataset]:
    """Indexed trays whose objects are their candidates; the first three show references; predictions are by the first look."""

    def prepare(dataset: fo.Dataset) -> tuple[Prototypes, Prototypes]:
        tag(dataset[:NUM_REFERENCES])
        refseg.build_index(dataset, "demo", **QUIET)
        references = refseg.collect_references(dataset, "ground_truth", tags="reference")
        plain = refseg.build_prototypes(references, "demo", progress=False)
        calibrated = refseg.calibrate(dataset, plain, **QUIET)
        refseg.segment(dataset, plain, **QUIET)
        return plain, calibrated

    with kept_trays(tmp_path_factory.mktemp("trays"), NUM_TRAYS, prepare) as trays:
        yield trays


@pytest.fixture
def trays(kept: KeptDataset, monkeypatch: pytest.MonkeyPatch) -> fo.Dataset:
    return kept.put_back(monkeypatch)


@pytest.fixture
def plain(kept: KeptDataset) -> Prototypes:
    """Not calibrated."""
    return kept.made[0]


@pytest.fixture
def calibrated(kept: KeptDataset) -> Prototypes:
    return kept.made[1]


def tag(view: Any) -> None:
    view.select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")


def suggested(dataset: Any, **options: Any) -> tuple[SuggestedReference, ...]:
    return refseg.suggest_references(dataset, **{"per_class": MANY, "progress": False, **options})


def prediction(dataset: fo.Dataset, item: SuggestedReference) -> fo.Detection:
    (label,) = (one for one in dataset[item.sample_id].predictions.detections if one.id == item.label_id)
    return label


def change(dataset: fo.Dataset, item: SuggestedReference, name: str, value: Any) -> None:
    dataset.set_label_values(f"predictions.detections.{name}", {item.label_id: value}, dynamic=True)


def note(
    dataset: fo.Dataset, sample_id: str, label: str, box: list[float], tag: str = "reference", field: str = "notes"
) -> None:
    """A reference or a negative that no prototypes know yet."""
    sample = dataset[sample_id]
    sample[field] = fo.Detections(detections=[fo.Detection(label=label, bounding_box=box, tags=[tag])])
    sample.save()


def configure(dataset: fo.Dataset, **values: Any) -> None:
    """Change what the only run has recorded; None takes it out."""
    (key,) = dataset.list_runs(method="refseg/segment")
    config = dataset.get_run_info(key).config
    for name, value in values.items():
        delattr(config, name) if value is None else setattr(config, name, value)
    dataset.update_run_config(key, config)


def object_of(sample: fo.Sample, label: fo.Detection) -> int:
    """The number of the labelled object that a prediction shows, which is that of its candidate."""
    own = whole_mask(label)
    return int(np.argmax([(own & whole_mask(truth)).sum() for truth in sample.ground_truth.detections]))


def by_loops(
    dataset: fo.Dataset, field: str, prototypes: Prototypes, keys: NDArray[Any], vectors: dict[tuple[str, int], NDArray[Any]]
) -> dict[str, tuple[str, float]]:
    """Reference and cosine of each prediction that is a mutual nearest neighbour, of what shows no reference."""
    pool = []
    for sample in dataset[NUM_REFERENCES:]:
        for label in sample[field].detections:
            pool.append((label, vectors[sample.id, object_of(sample, label)]))
    cosines = np.array([[vector @ key / np.linalg.norm(vector) / np.linalg.norm(key) for key in keys] for _, vector in pool])
    found = {}
    for row, (label, _) in enumerate(pool):
        nearest = int(np.argmax(cosines[row]))
        same = prototypes.classes[int(prototypes.labels[nearest])] == label.label
        if same and all(cosines[other, nearest] < cosines[row, nearest] for other in range(len(pool)) if other != row):
            found[label.id] = prototypes.reference_ids[nearest], float(cosines[row, nearest])
    return found


def assert_found(
    found: tuple[SuggestedReference, ...], expected: dict[str, tuple[str, float]], dataset: Any, field: str
) -> None:
    assert {item.label_id: item.reference_id for item in found} == {name: own for name, (own, _) in expected.items()}
    labels = {label.id: (sample.id, label) for sample in dataset for label in sample[field].detections}
    for item in found:
        sample_id, label = labels[item.label_id]
        assert (item.sample_id, item.label, item.score) == (sample_id, label.label, label.confidence)
        assert item.similarity == pytest.approx(expected[item.label_id][1], abs=1e-3)
        assert item.reason == (
            f"Of all references it is most like one of {item.label!r} ({item.similarity:.2f}), and of all predictions it is "
            "the one most like that reference."
        )
    scores = [item.score for item in found]
    assert scores == sorted(scores, reverse=True)


class TestMutualNeighbours:
    def test_by_first_looks(self, trays: fo.Dataset, plain: Prototypes) -> None:
        vectors = {}
        for chunk in open_index(trays).index.scan():
            for number, image in enumerate(chunk.images):
                for row, feature in enumerate(chunk.candidates(number).features.numpy()):
                    vectors[image.sample_id, row] = feature
        expected = by_loops(trays, "predictions", plain, plain.vectors.numpy(), vectors)
        assert 2 <= len(expected) <= len(plain.reference_ids)
        assert_found(suggested(trays), expected, trays, "predictions")

    def test_by_whitened_second_looks(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        refseg.segment(trays, calibrated, "twice", **QUIET)
        cohort, looks = calibrated.cohort, calibrated.looks
        assert cohort is not None
        assert cohort.looks is not None
        assert looks is not None
        whitening = fit_whitening(cohort.looks.float())
        assert whitening is not None
        tables, vectors = open_index(trays).index, {}
        images = list(tables.images.values())
        for image, (rows, own) in zip(images, tables.looks.read(images), strict=True):
            for row, look in zip(rows.tolist(), whitening.apply(own).numpy(), strict=True):
                vectors[image.sample_id, row] = look
        expected = by_loops(trays, "twice", calibrated, whitening.apply(looks.float()).numpy(), vectors)
        found = suggested(trays, label_field="twice")
        assert_found(found, expected, trays, "twice")
        assert found
        firsts = suggested(trays)
        assert {item.similarity for item in found}.isdisjoint(item.similarity for item in firsts)

    def test_a_few_of_each_class_and_of_a_view(self, trays: fo.Dataset) -> None:
        every = suggested(trays)
        assert suggested(trays, per_class=1) == tuple(
            next(item for item in every if item.label == name) for name in dict.fromkeys(item.label for item in every)
        )
        assert refseg.suggest_references(trays, progress=False) == suggested(trays, per_class=3)
        chosen = every[-1]
        # Compared with the predictions of the whole dataset all the same.
        assert suggested(trays.select(chosen.sample_id)) == tuple(item for item in every if item.sample_id == chosen.sample_id)

    def test_prototypes_by_name_and_others(self, trays: fo.Dataset, plain: Prototypes) -> None:
        refseg.save_prototypes(trays, plain, "parts", overwrite=True)
        every = suggested(trays)
        assert suggested(trays, prototypes="parts") == suggested(trays, prototypes=plain) == every
        dropped = every[0].reference_id
        assert dropped not in {item.reference_id for item in suggested(trays, prototypes=plain.remove([dropped]))}

    def test_all_can_be_accepted_and_none_is_left(self, trays: fo.Dataset) -> None:
        found = suggested(trays)
        refseg.accept(trays, [item.label_id for item in found], as_references=True)
        assert sorted(trays.values("accepted.detections.label", unwind=True)) == sorted(item.label for item in found)
        assert set(trays.values("accepted.detections.tags", unwind=True)) == {"reference"}
        # The old references have brought what they could; the new ones are yet to be learnt from.
        assert suggested(trays) == ()


class TestLeftOut:
    @pytest.mark.parametrize("kind", ["accept", "reject", "relabel"])
    def test_decided(self, trays: fo.Dataset, kind: str) -> None:
        first, *others = suggested(trays)
        more = {"label": "gear"} if kind == "relabel" else {}
        getattr(refseg, kind)(trays, [first.label_id], **more)
        assert suggested(trays) == tuple(others), "it is still the most like its reference, so no other takes its place"

    def test_decided_in_a_field_of_another_name(self, trays: fo.Dataset) -> None:
        every = suggested(trays)
        refseg.accept(trays, [every[0].label_id], accepted_field="checked")
        assert suggested(trays) == every
        assert suggested(trays, accepted_field="checked") == every[1:]

    def test_on_a_reference_of_its_class(self, trays: fo.Dataset) -> None:
        first = suggested(trays)[0]
        x, y, width, height = prediction(trays, first).bounding_box
        beside = [x + 0.9 * width, y + 0.9 * height, width, height]
        note(trays, first.sample_id, first.label, beside)
        assert first.label_id not in {item.label_id for item in suggested(trays)}
        note(trays, first.sample_id, "gear", beside)
        assert first in suggested(trays)
        # At the very place it shows that reference, whatever it is called.
        note(trays, first.sample_id, "gear", [x, y, width, height])
        assert first.label_id not in {item.label_id for item in suggested(trays)}

    @pytest.mark.parametrize("whole", [False, True])
    def test_on_a_reference_that_nobody_has_learnt_from_yet(self, trays: fo.Dataset, whole: bool) -> None:
        every = suggested(trays)
        image = trays.select(every[0].sample_id)
        image.tag_samples("reference") if whole else tag(image)
        # It stays the most like the old reference, so no other takes its place.
        assert suggested(trays) == tuple(item for item in every if item.sample_id != every[0].sample_id)

    def test_on_a_negative(self, trays: fo.Dataset) -> None:
        first, *others = suggested(trays)
        box = prediction(trays, first).bounding_box
        x, y, width, height = box
        note(trays, first.sample_id, first.label, [x + 0.5 * width, y, width, height], "negative")
        assert suggested(trays) == (first, *others), "it lies beside the negative"
        for name in (first.label, "dirt"):
            note(trays, first.sample_id, name, box, "negative")
            assert suggested(trays) == tuple(others), "it is still the most like its reference, so no other takes its place"
        trays.delete_sample_field("notes")
        note(trays, first.sample_id, "dirt", box, "negative", "rejected")
        assert suggested(trays) == tuple(others)

    def test_in_images_known_to_be_empty(self, trays: fo.Dataset) -> None:
        every = suggested(trays)
        trays.select(every[0].sample_id).tag_samples("known_empty")
        assert suggested(trays) == tuple(item for item in every if item.sample_id != every[0].sample_id)

    def test_masks_of_several_pieces(self, trays: fo.Dataset) -> None:
        first, *others = suggested(trays)
        change(trays, first, "pieces", 2)
        assert suggested(trays) == tuple(others)

    def test_masks_that_the_segmenter_doubts(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        every = suggested(trays)
        sure = {item for item in every if prediction(trays, item).predicted_iou > 0.85}
        assert 0 < len(sure) < len(every)
        monkeypatch.setattr("refseg.review.suggesting.MIN_PREDICTED_IOU", 0.85)
        assert set(suggested(trays)) == sure

    def test_low_scores(self, trays: fo.Dataset, plain: Prototypes) -> None:
        """Below what a run writes by default, 0.7 for similarities of the demo preset, and below what the last run wrote."""
        refseg.segment(trays, plain, min_confidence=0.0, **QUIET)
        first, *others = suggested(trays)
        for score, is_left in ((0.69, False), (0.71, True)):
            change(trays, first, "confidence", score)
            assert (first.label_id in {item.label_id for item in suggested(trays)}) is is_left
            assert {item.label_id for item in suggested(trays)} >= {item.label_id for item in others}
        refseg.segment(trays, plain, min_confidence=0.8, **QUIET)
        first = suggested(trays)[0]
        change(trays, first, "confidence", 0.79)
        assert first.label_id not in {item.label_id for item in suggested(trays)}

    def test_low_probabilities(self, trays: fo.Dataset, calibrated: Prototypes) -> None:
        refseg.segment(trays, calibrated, min_confidence=0.0, **QUIET)
        first = suggested(trays)[0]
        for score, is_left in ((0.49, False), (0.51, True)):
            change(trays, first, "confidence", score)
            assert (first.label_id in {item.label_id for item in suggested(trays)}) is is_left

    def test_labels_that_somebody_changed(self, trays: fo.Dataset) -> None:
        """They are cut from no candidate, so nothing is known to compare them by."""
        first = suggested(trays)[0]
        x, y, width, height = prediction(trays, first).bounding_box
        change(trays, first, "bounding_box", [x + 0.1, y, width, height])
        assert first.label_id not in {item.label_id for item in suggested(trays)}

    def test_images_that_are_not_indexed(self, trays: fo.Dataset) -> None:
        first = suggested(trays)[0]
        path = Path(trays[first.sample_id].filepath)
        moved = path.rename(path.with_name("moved.png"))
        try:
            assert first.label_id not in {item.label_id for item in suggested(trays)}
        finally:
            moved.rename(path)


class TestCandidates:
    @pytest.mark.parametrize(("cells_a_pixel", "most"), [(0.5, 1.5), (3, 3)])
    def test_boxes_lie_on_whole_pixels(self, trays: fo.Dataset, cells_a_pixel: float, most: float) -> None:
        chunk = next(iter(open_index(trays).index.scan()))
        candidates = chunk.candidates(0)
        side = candidates.grid_side
        candidates = replace(candidates, image_hw=(round(side / cells_a_pixel), side * 9))
        x0, y0, x1, y1 = candidates.boxes[1].tolist()
        for apart, row in ((0, 1), (most - 0.1, 1), (most + 0.1, -1)):
            box = ((x0 + apart) / side, y0 / side, (x1 + 1 - x0) / side, (y1 + 1 - y0) / side)
            one = Prediction("a", "b", "star", 0.9, box, float(candidates.predicted_iou[1]), 1)
            assert candidate_rows([one], candidates).tolist() == [row]


class TestIndex:
    def test_that_of_the_run(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        every = suggested(trays)
        monkeypatch.setattr("refseg.review.suggesting.find_index", lambda *_: None)
        assert suggested(trays) == every

    @pytest.mark.parametrize("uri", [None, "/nowhere"])
    def test_the_default_one_where_that_is_gone(self, trays: fo.Dataset, uri: str | None) -> None:
        every = suggested(trays)
        configure(trays, index_uri=uri)
        assert suggested(trays) == every


class TestRefused:
    @pytest.mark.parametrize("recorded", ["similarities", "probabilities", None])
    def test_scores_of_another_scale(
        self, trays: fo.Dataset, plain: Prototypes, calibrated: Prototypes, recorded: str | None
    ) -> None:
        configure(trays, scores=recorded)
        # Runs of earlier versions, which do not say it, wrote similarities.
        written = recorded or "similarities"
        now = "probabilities" if written == "similarities" else "similarities"
        prototypes = calibrated if now == "probabilities" else plain
        text = rf"^The run '\w+' wrote {written} as scores, and with these .* scores are {now}, .*: segment again first\.$"
        with pytest.raises(DatasetError, match=text):
            suggested(trays, prototypes=prototypes)

    def test_no_run(self, trays: fo.Dataset) -> None:
        with pytest.raises(
            DatasetError, match=r"^No run of RefSeg has written to the field 'ground_truth' of .*segment first\.$"
        ):
            suggested(trays, label_field="ground_truth")

    def test_no_index(self, trays: fo.Dataset, make_dataset: Callable[..., fo.Dataset]) -> None:
        copy = trays.clone()
        try:
            text = r"^No image of .* is indexed for the model 'demo', .*build_index\(dataset, 'demo'\), and segment again\.$"
            with pytest.raises(IndexNotFoundError, match=text):
                suggested(copy)
        finally:
            copy.delete()

    def test_prototypes(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="keeps no prototypes named 'none'"):
            suggested(trays, prototypes="none")
        configure(trays, prototypes_path="/nowhere.safetensors")
        with pytest.raises(PrototypeFileError, match="There is no prototypes file at /nowhere"):
            suggested(trays)

    def test_numbers(self, trays: fo.Dataset) -> None:
        with pytest.raises(DatasetError, match="per_class must be a whole number of at least 1, not 0"):
            suggested(trays, per_class=0)

    def test_nothing_to_suggest_from(self, trays: fo.Dataset) -> None:
        trays.clear_sample_field("predictions")
        assert suggested(trays) == ()
