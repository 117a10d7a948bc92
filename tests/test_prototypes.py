from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from refseg import prototypes as prototypes_module
from refseg.building import build_prototypes, iter_build_prototypes
from refseg.candidates import encode_patches
from refseg.demo.world import draw_family, render_scene
from refseg.errors import (
    BadReferenceError,
    ClassWithoutReferencesError,
    ImageError,
    NoReferencesError,
    PrototypeFileError,
    PrototypeMismatchError,
    ShapeError,
    UnknownModelError,
)
from refseg.images import encoder_pixels
from refseg.models import Models, load_models
from refseg.negatives import Negatives
from refseg.progress import Progress
from refseg.prototypes import Prototypes, class_prototypes
from refseg.reference_vectors import Reference, crop_corners, crop_weights, instance_vector, reference_digest
from tests.tolerance import assert_near

Answer = Callable[[Tensor], list[Tensor]]

EMPTY_BOX = "its box is empty or lies outside the image"
EMPTY_MASK = "its mask is empty"
TOO_SMALL = "it is too small or too thin to cover a single patch"


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models("demo", device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Reference]:
    """Six objects in two images, of classes of 1, 2 and 3 shots."""
    folder = tmp_path_factory.mktemp("references")
    rng = np.random.default_rng(11)
    found = []
    for number in range(2):
        families = [draw_family(rng) for _ in range(3)]
        scene = render_scene(rng, families, (150, 200), max_overlap=0.0)
        assert len(scene.families) == 3
        path = folder / f"{number}.png"
        Image.fromarray(scene.image).save(path)
        for mask in scene.masks:
            ys, xs = mask.nonzero()
            x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
            label = ("gear", "nut", "nut", "ring", "ring", "ring")[len(found)]
            found.append(Reference(f"label-{len(found)}", label, str(path), (x0, y0, x1, y1), mask[y0:y1, x0:x1]))
    return found


@pytest.fixture(scope="module")
def built(references: list[Reference], models: Models) -> Prototypes:
    return build_prototypes(references, models)


def make_prototypes(
    labels: list[int], *, classes: tuple[str, ...] = ("gear", "nut"), first: int = 0, **other: object
) -> Prototypes:
    vectors = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(first))
    ids = tuple(f"label-{first + row}" for row in range(len(labels)))
    return Prototypes(classes, vectors, torch.tensor(labels), ids, "demo", "f00", **other)


def make_negatives(*names: str, first: int = 50, width: int = 5) -> Negatives:
    vectors = torch.randn(len(names), width, generator=torch.Generator().manual_seed(first))
    ids = tuple(f"negative-{first + row}" for row in range(len(names)))
    return Negatives(vectors, names, ids, tuple(f"digest-{first + row}" for row in range(len(names))))


def vector_of(prototypes: Prototypes, reference_id: str) -> Tensor:
    return prototypes.vectors[prototypes.reference_ids.index(reference_id)]


def assert_same(found: Prototypes, expected: Prototypes) -> None:
    """Bit for bit, whatever the digests."""
    assert torch.equal(found.vectors, expected.vectors)
    assert torch.equal(found.labels, expected.labels)
    for name in ("classes", "reference_ids", "model", "fingerprint", "skipped"):
        assert getattr(found, name) == getattr(expected, name)
    assert_same_negatives(found.negatives, expected.negatives)


def assert_same_negatives(found: Negatives | None, expected: Negatives | None) -> None:
    """Bit for bit."""
    if found is None or expected is None:
        assert found is expected
        return
    assert torch.equal(found.vectors, expected.vectors)
    assert (found.names, found.ids, found.digests) == (expected.names, expected.ids, expected.digests)


class TestInstanceVector:
    def test_by_hand(self) -> None:
        features = torch.tensor([[1.0, 0.0], [3.0, 4.0], [9.0, 9.0]])
        found = instance_vector(features, torch.tensor([0.5, 0.25, 0.0]))
        assert found is not None
        assert_near(found, torch.tensor([(0.5 + 0.75) / 0.75, 1.0 / 0.75]))

    def test_is_a_loop_over_patches(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features, weights = torch.randn(49, 6, generator=generator), torch.rand(49, generator=generator)
        total, mean = 0.0, torch.zeros(6)
        for feature, weight in zip(features, weights, strict=True):
            total += float(weight)
            mean += float(weight) * feature
        found = instance_vector(features, weights)
        assert found is not None
        assert_near(found, mean / total)

    def test_permuted_patches(self) -> None:
        generator = torch.Generator().manual_seed(0)
        features, weights = torch.randn(49, 6, generator=generator), torch.rand(49, generator=generator)
        order = torch.randperm(49, generator=generator)
        found, permuted = instance_vector(features, weights), instance_vector(features[order], weights[order])
        assert found is not None
        assert permuted is not None
        assert_near(permuted, found)

    def test_no_weight_no_vector(self) -> None:
        assert instance_vector(torch.ones(4, 2), torch.zeros(4)) is None


class TestClassPrototypes:
    def test_by_hand_with_unequal_shots(self) -> None:
        # Not normalised before the mean: the long vector weighs more.
        vectors = torch.tensor([[8.0, 0.0], [0.0, 6.0], [0.0, -3.0]])
        found = class_prototypes(vectors, torch.tensor([1, 1, 0]), 2)
        assert_near(found, torch.tensor([[0.0, -1.0], [0.8, 0.6]]))

    def test_is_a_loop_over_classes(self) -> None:
        generator = torch.Generator().manual_seed(0)
        vectors, labels = torch.randn(20, 6, generator=generator), torch.arange(20) % 3
        found = class_prototypes(vectors, labels, 3)
        for row in range(3):
            mean = sum(vector for vector, label in zip(vectors, labels, strict=True) if label == row)
            assert isinstance(mean, Tensor)
            assert_near(found[row], mean / mean.norm())

    def test_order_of_the_references_does_not_matter(self) -> None:
        generator = torch.Generator().manual_seed(0)
        vectors, labels = torch.randn(20, 6, generator=generator), torch.arange(20) % 3
        order = torch.randperm(20, generator=generator)
        assert_near(class_prototypes(vectors[order], labels[order], 3), class_prototypes(vectors, labels, 3))


class TestCropCorners:
    @pytest.mark.parametrize(
        ("box", "corners"),
        [
            ((40, 40, 60, 50), (38, 33, 62, 57)),  # 24 a side around (50, 45)
            ((40, 40, 45, 45), (39, 39, 45, 45)),  # 42.5 ± 3: truncated, not rounded
            ((0, 0, 10, 20), (0, 0, 17, 22)),  # cut at the border
            ((90, 60, 100, 80), (83, 58, 100, 80)),
            ((-20, 30, 10, 40), (0, 17, 13, 53)),  # a box that reaches out of the image
            ((0, 0, 0.5, 0.5), (0, 0, 1, 1)),  # never less than a pixel
            ((99.6, 79.6, 99.9, 79.9), (99, 79, 100, 80)),
        ],
    )
    def test_by_hand(self, box: tuple[float, ...], corners: tuple[int, ...]) -> None:
        assert crop_corners(box, (80, 100)) == corners

    def test_stay_in_the_image_and_hold_the_box(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(500):
            height, width = (int(side) for side in rng.integers(1, 200, 2))
            (x0, x1), (y0, y1) = sorted(rng.uniform(-50, width + 50, 2)), sorted(rng.uniform(-50, height + 50, 2))
            left, top, right, bottom = crop_corners((x0, y0, x1, y1), (height, width))
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            if x1 - x0 > 12 and y1 - y0 > 12 and min(x0, y0) >= 0 and x1 <= width and y1 <= height:
                assert left <= x0
                assert top <= y0
                assert right >= int(x1)
                assert bottom >= int(y1)


class TestCropWeights:
    def test_whole_and_half(self) -> None:
        mask = torch.zeros(50, 80, dtype=torch.bool)
        assert torch.equal(crop_weights(~mask, 224, 16), torch.ones(256))
        mask[:, :40] = True
        expected = torch.zeros(16, 16)
        expected[:, :8] = 1.0
        # Column 8 is pixel 112 of 224: at 112.5·80/224 − 0.5 = 39.679 of 80, and pixel 39 is the mask's last.
        expected[:, 8] = 40 - (112.5 * 80 / 224 - 0.5)
        assert_near(crop_weights(mask, 224, 16), expected.flatten())

    def test_is_row_major(self) -> None:
        mask = torch.zeros(40, 40, dtype=torch.bool)
        mask[:10] = True
        assert crop_weights(mask, 56, 4).reshape(4, 4)[0].sum() > 2
        assert crop_weights(mask, 56, 4).reshape(4, 4)[2:].sum() == 0

    @pytest.mark.parametrize("hw", [(1, 1), (1, 500), (300, 7)])
    def test_any_crop_gives_weights_in_bounds(self, hw: tuple[int, int]) -> None:
        weights = crop_weights(torch.rand(*hw, generator=torch.Generator().manual_seed(0)) > 0.5, 224, 16)
        assert weights.shape == (256,)
        assert weights.dtype == torch.float32
        assert 0 <= weights.min() <= weights.max() <= 1

    def test_a_single_pixel_off_the_samples_is_lost(self) -> None:
        # Patch centres are not looked at: nearest takes pixels 0, 14, 28, … of 224; pixel 37 of 240 lands on 34 and 35.
        mask = torch.zeros(240, 240, dtype=torch.bool)
        mask[37, 37] = True
        assert crop_weights(mask, 224, 16).sum() == 0


class TestBuild:
    def test_shapes_and_names(self, built: Prototypes, models: Models) -> None:
        assert built.classes == ("gear", "nut", "ring")
        assert built.shots == {"gear": 1, "nut": 2, "ring": 3}
        assert built.vectors.shape == (6, models.feature_width)
        assert built.matrix.shape == (3, models.feature_width)
        assert built.vectors.dtype == torch.float32
        assert built.labels.dtype == torch.int64
        assert_near(built.matrix.norm(dim=1), torch.ones(3))
        assert (built.model, built.fingerprint, built.skipped) == ("demo", models.fingerprint, ())
        assert not built.vectors.requires_grad
        assert not built.vectors.is_inference()

    def test_vector_is_crop_encode_and_average(self, built: Prototypes, references: list[Reference], models: Models) -> None:
        for reference in references:
            with Image.open(reference.image) as image:
                picture = np.asarray(image)
            x0, y0, x1, y1 = (int(side) for side in reference.box)
            half, cx, cy = max(x1 - x0, y1 - y0) * 0.6, (x0 + x1) / 2, (y0 + y1) / 2
            left, top = max(0, int(cx - half)), max(0, int(cy - half))
            right, bottom = min(200, int(cx + half)), min(150, int(cy + half))
            whole = np.zeros(picture.shape[:2], np.float32)
            whole[y0:y1, x0:x1] = reference.mask
            pixels = torch.from_numpy(picture[top:bottom, left:right].copy()).permute(2, 0, 1)[None] / 255
            features = encode_patches(encoder_pixels(pixels, 224), models)[0]
            crop = torch.from_numpy(whole[top:bottom, left:right].copy())[None, None]
            fine = F.interpolate(crop, size=(224, 224), mode="bilinear", align_corners=False)[0, 0]
            weights = fine[::14, ::14].flatten()  # nearest, from 224 to 16
            expected = (weights[:, None] * features).sum(0) / weights.sum()
            assert_near(vector_of(built, reference.id), expected, at_most=1e-4)

    def test_order_of_the_references_does_not_matter(
        self, built: Prototypes, references: list[Reference], models: Models
    ) -> None:
        permuted = build_prototypes([references[row] for row in (4, 1, 5, 0, 3, 2)], models)
        assert permuted.classes == built.classes
        assert_near(permuted.matrix, built.matrix)

    def test_one_at_a_time_is_all_at_once(self, built: Prototypes, references: list[Reference], models: Models) -> None:
        grown = build_prototypes(references[:1], models)
        for reference in references[1:]:
            grown = grown.add(build_prototypes([reference], models))
        assert grown.classes == built.classes
        assert grown.shots == built.shots
        assert_near(grown.matrix, built.matrix)

    def test_mask_of_another_size_is_stretched_over_the_box(
        self, built: Prototypes, references: list[Reference], models: Models
    ) -> None:
        mask = references[0].mask
        assert mask is not None
        doubled = replace(references[0], mask=np.kron(mask, np.ones((2, 2), bool)))
        assert_near(vector_of(build_prototypes([doubled], models), "label-0"), vector_of(built, "label-0"), at_most=1e-4)

    def test_box_that_reaches_out_of_the_image(self, references: list[Reference], models: Models) -> None:
        reference = Reference("out", "gear", references[0].image, (-20, -10, 40, 30), np.ones((40, 60), bool))
        inside = replace(reference, box=(-20, -10, 40, 30), mask=np.ones((4, 6), bool))
        first, second = build_prototypes([reference], models), build_prototypes([inside], models)
        assert bool(first.vectors.isfinite().all())
        assert_near(first.vectors, second.vectors)

    def test_boxes_are_of_the_upright_image(
        self, built: Prototypes, references: list[Reference], models: Models, tmp_path: Path
    ) -> None:
        reference = references[0]
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise, so it is stored turned the other way
        with Image.open(reference.image) as image:
            image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
        turned = replace(reference, image=str(tmp_path / "turned.png"))
        assert_near(vector_of(build_prototypes([turned], models), "label-0"), vector_of(built, "label-0"))

    @pytest.mark.parametrize(
        ("box", "mask", "reason"),
        [
            ((300, 20, 340, 50), np.ones((30, 40), bool), EMPTY_BOX),
            ((-50, 20, 0, 50), np.ones((30, 50), bool), EMPTY_BOX),
            ((10, 160, 40, 190), np.ones((30, 30), bool), EMPTY_BOX),
            ((40, 20, 40, 50), np.ones((30, 1), bool), EMPTY_BOX),
            ((60, 20, 40, 50), np.ones((30, 20), bool), EMPTY_BOX),
            ((float("nan"), 20, 40, 50), np.ones((30, 20), bool), "its box is not finite"),
            ((10, 20, float("inf"), 50), np.ones((30, 20), bool), "its box is not finite"),
            ((10, 20, 40, 50), np.zeros((30, 30), bool), EMPTY_MASK),
            ((10, 20, 40, 50), np.zeros((0, 0), bool), EMPTY_MASK),
            ((-30, 20, 30, 50), np.repeat([[True, False]], 30, 0).repeat(30, 1), EMPTY_MASK),  # its object is outside
            ((20, 20, 120, 120), np.arange(10000).reshape(100, 100) == 1717, TOO_SMALL),
        ],
    )
    def test_unusable_reference_is_skipped_by_id(
        self,
        references: list[Reference],
        models: Models,
        box: tuple[float, float, float, float],
        mask: np.ndarray,
        reason: str,
    ) -> None:
        bad = Reference("bad", "gear", references[0].image, box, mask)
        found = build_prototypes([bad, references[0]], models)
        assert found.skipped == (("bad", reason),)
        assert found.reference_ids == ("label-0",)

    @pytest.mark.parametrize(
        ("content", "why"),
        [(None, "does not exist"), (b"", "not an image"), (b"\xff\xd8\xff\xe0 cut off", "cannot be read")],
    )
    def test_unreadable_image_is_skipped_by_id(
        self, references: list[Reference], models: Models, tmp_path: Path, content: bytes | None, why: str
    ) -> None:
        path = tmp_path / "a.jpg"
        if content is not None:
            path.write_bytes(content)
        lost = [Reference(name, "gear", str(path), (0, 0, 9, 9), np.ones((9, 9), bool)) for name in ("one", "two")]
        found = build_prototypes([*lost, references[0]], models)
        assert [name for name, _ in found.skipped] == ["one", "two"]
        assert all(why in reason for _, reason in found.skipped)
        assert found.reference_ids == ("label-0",)

    def test_class_without_a_usable_reference_is_named(
        self, references: list[Reference], models: Models, tmp_path: Path
    ) -> None:
        gone = Reference("gone", "washer", str(tmp_path / "a.png"), (0, 0, 9, 9))
        empty = Reference("empty", "washer", references[0].image, (10, 20, 40, 50), np.zeros((30, 30), bool))
        with pytest.raises(ClassWithoutReferencesError, match="'washer' has no usable reference") as caught:
            build_prototypes([*references, gone, empty], models)
        assert caught.value.label == "washer"
        assert sorted(caught.value.reasons) == ["empty: its mask is empty", "gone: the file does not exist"]

    def test_no_references(self, models: Models) -> None:
        with pytest.raises(NoReferencesError, match="There are no references: label an object of each class"):
            build_prototypes([], models)

    def test_unknown_model(self, references: list[Reference]) -> None:
        with pytest.raises(UnknownModelError, match="'enormous'"):
            build_prototypes(references, "enormous")

    @pytest.mark.parametrize("label", ["a.b", "$price", "⚙️ gear", "", "x" * 300])
    def test_any_label(self, references: list[Reference], models: Models, label: str, tmp_path: Path) -> None:
        found = build_prototypes([replace(references[0], label=label)], models)
        assert found.shots == {label: 1}
        found.save(tmp_path / "a.safetensors")
        assert Prototypes.load(tmp_path / "a.safetensors").classes == (label,)

    def test_progress_counts_references(self, references: list[Reference], models: Models, tmp_path: Path) -> None:
        gone = Reference("gone", "gear", str(tmp_path / "a.png"), (0, 0, 9, 9))
        seen: list[Progress] = []
        build_prototypes([*references[:2], gone], models, progress=seen.append)
        assert seen == [Progress(done, 3, "references") for done in range(4)]

    def test_stops_between_references(self, references: list[Reference], models: Models) -> None:
        work = iter_build_prototypes(references, models)
        assert next(work) == Progress(0, 6, "references")
        next(work)
        work.close()


class TestBoxOnly:
    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Answer:
        """Replace the segmenter's answer, on which no test may depend; returns the boxes it is asked."""

        def replace_answer(logits: Tensor) -> list[Tensor]:
            asked: list[Tensor] = []

            def decode(boxes: Tensor, *rest: object) -> Tensor:
                asked.append(boxes)
                return logits[None]

            monkeypatch.setattr(prototypes_module, "decode_boxes", decode)
            return asked

        return replace_answer

    def test_mask_is_the_segmenters(self, references: list[Reference], models: Models, answer: Answer) -> None:
        # The answer is the left half of the image of 200 × 150 pixels.
        logits = torch.ones(64, 64)
        logits[:, 32:] = -1.0
        asked = answer(logits)
        box = (60.0, 45.0, 140.0, 90.0)
        found = build_prototypes([Reference("box", "gear", references[0].image, box)], models)
        # The prompt is in pixels of the segmenter's 256 × 256.
        assert [boxes.tolist() for boxes in asked] == [[pytest.approx([76.8, 76.8, 179.2, 153.6])]]

        left, top, right, bottom = crop_corners(box, (150, 200))
        with Image.open(references[0].image) as image:
            pixels = torch.from_numpy(np.array(image.crop((left, top, right, bottom)))).permute(2, 0, 1)[None] / 255
        features = encode_patches(encoder_pixels(pixels, 224), models)[0]
        half = (torch.arange(200) < 100).expand(150, -1)
        expected = instance_vector(features, crop_weights(half[top:bottom, left:right], 224, 16))
        assert expected is not None
        assert_near(found.vectors[0], expected, at_most=1e-4)

    def test_empty_answer_is_skipped(self, references: list[Reference], models: Models, answer: Answer) -> None:
        answer(-torch.ones(64, 64))
        bad = Reference("box", "gear", references[0].image, (10, 20, 40, 50))
        assert build_prototypes([bad, references[0]], models).skipped == (("box", EMPTY_MASK),)

    def test_the_segmenter_itself_answers_or_says_why(self, references: list[Reference], models: Models) -> None:
        alone = replace(references[0], id="box", mask=None)
        found = build_prototypes([alone, references[0]], models)
        assert ("box" in found.reference_ids) != ("box" in dict(found.skipped))
        assert bool(found.vectors.isfinite().all())


class TestReuse:
    @pytest.fixture
    def own(self, references: list[Reference], tmp_path: Path) -> list[Reference]:
        """The same references in copies of the images, which a test may change."""
        for path in {reference.image for reference in references}:
            shutil.copy2(path, tmp_path)
        return [replace(reference, image=str(tmp_path / Path(reference.image).name)) for reference in references]

    @pytest.fixture
    def passes(self, models: Models) -> Iterator[list[str]]:
        """Names of the models that were run, one for each pass of their image encoders."""
        seen: list[str] = []
        handles = [
            models.dinov2.register_forward_hook(lambda *_: seen.append("dinov2")),
            models.sam2.image_encoder.register_forward_hook(lambda *_: seen.append("sam2")),
        ]
        yield seen
        for handle in handles:
            handle.remove()

    def test_one_added_costs_one_pass(self, own: list[Reference], models: Models, passes: list[str]) -> None:
        # Of another image and of one of the three's: what is new may come first or in the midst of them.
        for added in (own[5], own[1]):
            three = [own[0], own[2], own[4]]
            earlier = build_prototypes(three, models)
            fresh = build_prototypes([*three, added], models)
            passes.clear()
            found = build_prototypes([*three, added], models, reuse=earlier)
            assert passes == ["dinov2"]
            assert_same(found, fresh)
            assert found.digests == fresh.digests
            assert found.num_shared(earlier) == 3

    def test_one_removed_costs_none(
        self, own: list[Reference], models: Models, passes: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        earlier = build_prototypes(own, models)
        left = [own[3], own[1], own[0], own[5]]  # another order too
        fresh = build_prototypes(left, models)
        passes.clear()

        def no_reading(path: str) -> Image.Image:
            raise AssertionError(f"{path} was opened")

        monkeypatch.setattr(prototypes_module, "read_image", no_reading)
        steps: list[Progress] = []
        found = build_prototypes(left, models, reuse=earlier, progress=steps.append)
        assert passes == []
        assert_same(found, fresh)
        assert found.num_shared(earlier) == 4
        assert steps == [Progress(done, 4, "references") for done in range(5)]

    def test_relabelled_keeps_its_vector(self, own: list[Reference], models: Models, passes: list[str]) -> None:
        earlier = build_prototypes(own, models)
        relabelled = [replace(own[0], label="washer"), *own[1:]]
        passes.clear()
        found = build_prototypes(relabelled, models, reuse=earlier)
        assert passes == []
        assert found.shots == {"nut": 2, "ring": 3, "washer": 1}
        assert_same(found, build_prototypes(relabelled, models))

    @pytest.mark.parametrize("change", ["mask", "mask's shape", "box", "image", "time", "path", "id"])
    def test_changed_is_computed_anew(
        self, own: list[Reference], models: Models, passes: list[str], change: str, tmp_path: Path
    ) -> None:
        earlier = build_prototypes(own, models)
        first, path = own[0], Path(own[0].image)
        assert first.mask is not None
        status = path.stat()
        others = 0  # in the same file
        if change == "mask":
            mask = first.mask.copy()
            mask[: len(mask) // 2] = False
            first = replace(first, mask=mask)
        elif change == "mask's shape":
            first = replace(first, mask=first.mask.reshape(1, -1))  # the same bytes
        elif change == "box":
            x0, y0, x1, y1 = first.box
            first = replace(first, box=(x0, y0, x1, y1 + 0.25))
        elif change == "image":
            Image.fromarray(np.asarray(Image.open(path))[:, :, ::-1].copy()).save(path)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert path.stat().st_size != status.st_size
            others = 2
        elif change == "time":
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
            others = 2
        elif change == "path":
            (tmp_path / "deeper").mkdir()
            first = replace(first, image=str(shutil.copy2(path, tmp_path / "deeper")))
        else:
            first = replace(first, id="another")
        wanted = [first, *own[1:]]
        passes.clear()
        found = build_prototypes(wanted, models, reuse=earlier)
        assert passes == ["dinov2"] * (1 + others)
        assert found.num_shared(earlier) == 5 - others
        assert_same(found, build_prototypes(wanted, models))

    def test_of_another_encoder_is_ignored(self, own: list[Reference], models: Models, passes: list[str]) -> None:
        earlier = build_prototypes(own[:3], models)
        other = replace(models, revisions={**models.revisions, "dinov2": "another"})
        passes.clear()
        found = build_prototypes(own[:3], other, reuse=earlier)
        assert passes == ["dinov2"] * 3
        assert found.fingerprint == other.fingerprint != earlier.fingerprint
        assert found.num_shared(earlier) == 0

    def test_box_alone_follows_the_segmenter(
        self, own: list[Reference], models: Models, passes: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What the segmenter answers is not the point; that its image encoder is not run is.
        monkeypatch.setattr(prototypes_module, "decode_boxes", lambda *_: torch.ones(1, 64, 64))
        wanted = [*own, replace(own[0], id="box", mask=None)]
        earlier = build_prototypes(wanted, models)
        passes.clear()
        assert_same(build_prototypes(wanted, models, reuse=earlier), earlier)
        assert passes == []
        other = replace(models, revisions={**models.revisions, "sam2": "another"})
        assert other.fingerprint == models.fingerprint
        assert build_prototypes(wanted, other, reuse=earlier).num_shared(earlier) == 6
        assert passes == ["sam2", "dinov2"]

    def test_unusable_references_are_tried_again(
        self, own: list[Reference], models: Models, passes: list[str], tmp_path: Path
    ) -> None:
        empty = replace(own[0], id="empty", mask=np.zeros((3, 3), bool))
        gone = replace(own[0], id="gone", image=str(tmp_path / "gone.png"))
        earlier = build_prototypes([own[0], empty, gone], models)
        assert [name for name, _ in earlier.skipped] == ["empty", "gone"]
        shutil.copy2(own[0].image, gone.image)
        passes.clear()
        found = build_prototypes([own[0], empty, gone], models, reuse=earlier)
        assert passes == ["dinov2"]
        assert found.skipped == (("empty", EMPTY_MASK),)
        assert torch.equal(vector_of(found, "gone"), vector_of(found, "label-0"))

    def test_image_that_cannot_be_read_any_more_spares_what_is_known(
        self, own: list[Reference], models: Models, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        earlier = build_prototypes(own[:1], models)

        def fail(path: str) -> Image.Image:
            raise ImageError(path, "the image cannot be read (permission denied)")

        monkeypatch.setattr(prototypes_module, "read_image", fail)
        found = build_prototypes([own[0], replace(own[1], label="gear")], models, reuse=earlier)
        assert found.reference_ids == ("label-0",)
        assert found.skipped == (("label-1", "the image cannot be read (permission denied)"),)

    def test_after_add_remove_and_a_file(self, own: list[Reference], models: Models, passes: list[str], tmp_path: Path) -> None:
        grown = build_prototypes(own[:4], models).add(build_prototypes(own[3:], models)).remove(["label-1"])
        grown.save(tmp_path / "a.safetensors")
        passes.clear()
        found = build_prototypes(own, models, reuse=Prototypes.load(tmp_path / "a.safetensors"))
        assert passes == ["dinov2"]
        assert_same(found, build_prototypes(own, models))

    def test_without_digests_nothing_is_reused(self, own: list[Reference], models: Models, passes: list[str]) -> None:
        fresh = build_prototypes(own[:2], models)
        for digests in ((), ("", fresh.digests[1])):
            earlier = replace(fresh, digests=digests)
            passes.clear()
            assert_same(build_prototypes(own[:2], models, reuse=earlier), fresh)
            assert passes == ["dinov2"] * (2 - sum(map(bool, digests)))


class TestBuildWithNegatives:
    def test_are_encoded_as_references_are(self, built: Prototypes, references: list[Reference], models: Models) -> None:
        negatives = [replace(references[4], label="shadow"), references[1]]
        found = build_prototypes([references[row] for row in (0, 2, 3, 5)], models, negatives=negatives)
        assert (found.classes, found.shots) == (built.classes, {"gear": 1, "nut": 1, "ring": 2})
        assert found.negatives is not None
        # By image, as references are.
        assert (found.negatives.ids, found.negatives.names) == (("label-1", "label-4"), ("nut", "shadow"))
        for name, vector in zip(found.negatives.ids, found.negatives.vectors, strict=True):
            assert torch.equal(vector, vector_of(built, name))
            assert name not in found.reference_ids
        assert found.negatives.digests == (built.digests[1], built.digests[4])
        assert found.negative_matrix is not None
        vectors, rows = found.negative_matrix
        assert rows.tolist() == [1, -1]
        assert_near(vectors, F.normalize(found.negatives.vectors, dim=1))

    def test_change_no_prototype(self, built: Prototypes, references: list[Reference], models: Models) -> None:
        negative = replace(references[0], id="negative", box=(5, 5, 60, 70), mask=np.ones((65, 55), bool))
        found = build_prototypes(references, models, negatives=[negative])
        assert torch.equal(found.matrix, built.matrix)
        assert found.reference_ids == built.reference_ids
        assert (built.negatives, built.negative_matrix) == (None, None)

    def test_unusable_ones_are_listed(self, references: list[Reference], models: Models, tmp_path: Path) -> None:
        gone = replace(references[0], id="gone", image=str(tmp_path / "gone.png"))
        empty = replace(references[0], id="empty", mask=np.zeros((3, 3), bool))
        found = build_prototypes(references, models, negatives=[gone, empty])
        assert found.negatives is None
        assert dict(found.skipped) == {"gone": "the file does not exist", "empty": EMPTY_MASK}

    def test_do_not_stand_for_a_class(self, references: list[Reference], models: Models) -> None:
        bad = replace(references[0], id="bad", label="nut", mask=np.zeros((3, 3), bool))
        with pytest.raises(
            ClassWithoutReferencesError, match="'nut' has no usable reference: bad: its mask is empty"
        ) as caught:
            build_prototypes([references[0], bad], models, negatives=[references[1]])
        assert caught.value.reasons == ("bad: its mask is empty",)

    @pytest.mark.parametrize(("rows", "more"), [([1], ""), ([1, 2], r" \(and 1 more\)")])
    def test_both_at_once_is_refused(self, references: list[Reference], models: Models, rows: list[int], more: str) -> None:
        words = rf"The object label-1 \('nut'\){more} is both a reference and a negative: take one of the two tags off it\."
        with pytest.raises(BadReferenceError, match=words):
            build_prototypes(references, models, negatives=[references[row] for row in rows])

    def test_progress_counts_them(self, references: list[Reference], models: Models) -> None:
        seen: list[Progress] = []
        build_prototypes(references[:2], models, negatives=references[4:5], progress=seen.append)
        assert seen == [Progress(done, 3, "references") for done in range(4)]


class TestReuseOfNegatives:
    @pytest.fixture
    def passes(self, models: Models) -> Iterator[list[str]]:
        """One entry for each pass of the encoder."""
        seen: list[str] = []
        handle = models.dinov2.register_forward_hook(lambda *_: seen.append("dinov2"))
        yield seen
        handle.remove()

    def test_a_vector_serves_either_way(
        self, references: list[Reference], models: Models, passes: list[str], tmp_path: Path
    ) -> None:
        earlier = build_prototypes(references[:4], models, negatives=references[4:])
        assert len(passes) == 6
        earlier.save(tmp_path / "a.safetensors")
        shown, others = [references[row] for row in (0, 1, 5)], [references[row] for row in (2, 3, 4)]
        fresh = build_prototypes(shown, models, negatives=others)
        passes.clear()
        found = build_prototypes(shown, models, negatives=others, reuse=Prototypes.load(tmp_path / "a.safetensors"))
        assert passes == []
        assert_same(found, fresh)
        assert found.num_shared(earlier) == earlier.num_shared(found) == 6

    def test_of_unknown_digest_are_computed(self, references: list[Reference], models: Models, passes: list[str]) -> None:
        earlier = build_prototypes(references[:4], models, negatives=references[4:])
        assert earlier.negatives is not None
        unknown = replace(earlier, negatives=replace(earlier.negatives, digests=("", earlier.negatives.digests[1])))
        passes.clear()
        found = build_prototypes(references[:4], models, negatives=references[4:], reuse=unknown)
        assert passes == ["dinov2"]
        assert_same(found, earlier)
        assert found.num_shared(unknown) == 5


class TestReferenceDigest:
    def test_is_sixteen_digits_and_always_the_same(
        self, references: list[Reference], models: Models, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = references[0]
        digest = reference_digest(first, models)
        assert digest is not None
        assert len(digest) == 16
        assert int(digest, 16) >= 0
        assert first.mask is not None
        monkeypatch.chdir(Path(first.image).parent)
        again = replace(
            first,
            image=Path(first.image).name,
            box=tuple(np.array(first.box, np.float32)),
            mask=np.asfortranarray(first.mask),
            label="nut",
        )
        assert reference_digest(again, models) == digest

    def test_tells_references_and_models_apart(self, references: list[Reference], models: Models) -> None:
        alone = replace(references[0], mask=None)
        narrow = replace(models, dtype=torch.bfloat16)
        segmenter = replace(models, revisions={**models.revisions, "sam2": "another"})
        found = [reference_digest(reference, models) for reference in (*references, alone)]
        found += [reference_digest(references[0], narrow), reference_digest(alone, segmenter)]
        assert len(set(found)) == len(found)
        assert reference_digest(references[0], segmenter) == found[0]

    @pytest.mark.parametrize("path", ["nowhere/a.png", "", "a\0.png"])
    def test_no_file(self, references: list[Reference], models: Models, path: str) -> None:
        assert reference_digest(replace(references[0], image=path), models) is None

    @pytest.mark.parametrize("side", [float("nan"), float("inf")])
    def test_odd_box(self, references: list[Reference], models: Models, side: float) -> None:
        assert reference_digest(replace(references[0], box=(0, 0, side, 5)), models) is not None


class TestEditing:
    def test_add_joins_classes_and_references(self) -> None:
        first, second = make_prototypes([0, 1]), make_prototypes([0, 1, 1], classes=("nut", "ring"), first=10)
        both = first.add(second)
        assert both.classes == ("gear", "nut", "ring")
        assert both.shots == {"gear": 1, "nut": 2, "ring": 2}
        assert both.reference_ids == first.reference_ids + second.reference_ids
        for part in (first, second):
            for name, label in zip(part.reference_ids, part.labels.tolist(), strict=True):
                row = both.reference_ids.index(name)
                assert torch.equal(both.vectors[row], vector_of(part, name))
                assert both.classes[int(both.labels[row])] == part.classes[label]

    def test_add_replaces_a_reference_in_both(self) -> None:
        first = make_prototypes([0, 0, 1])
        newer = Prototypes(("nut",), torch.full((1, 5), 7.0), torch.tensor([0]), ("label-1",), "demo", "f00")
        both = first.add(newer)
        assert both.reference_ids == ("label-0", "label-2", "label-1")
        assert both.shots == {"gear": 1, "nut": 2}
        assert vector_of(both, "label-1").tolist() == [7.0] * 5

    def test_add_drops_a_class_whose_last_reference_moved(self) -> None:
        first = make_prototypes([0, 1])
        newer = Prototypes(("nut",), torch.ones(1, 5), torch.tensor([0]), ("label-0",), "demo", "f00")
        both = first.add(newer)
        assert both.classes == ("nut",)
        assert both.shots == {"nut": 2}

    def test_add_keeps_what_both_skipped(self) -> None:
        first = make_prototypes([0, 1], skipped=(("x", "too thin"),))
        second = make_prototypes([0, 1], first=10, skipped=(("y", "empty"),))
        assert first.add(second).skipped == (("x", "too thin"), ("y", "empty"))

    def test_digests_follow_their_references(self) -> None:
        first = make_prototypes([0, 0, 1], digests=("a", "b", "c"))
        second = make_prototypes([0, 1], first=2, digests=("d", "e"))
        assert first.add(second).digests == ("a", "b", "d", "e")
        assert first.remove(["label-1"]).digests == ("a", "c")

    def test_unknown_digests_stay_unknown(self) -> None:
        known, unknown = make_prototypes([0, 1], digests=("a", "b")), make_prototypes([0, 1], first=10)
        assert unknown.digests == ()
        assert known.add(unknown).digests == ("a", "b", "", "")
        assert unknown.add(known).digests == ("", "", "a", "b")
        assert unknown.add(make_prototypes([0, 1], first=20)).digests == ()
        assert unknown.remove(["label-10"], keep_classes=False).digests == ()
        assert known.add(unknown).num_shared(known) == 2
        assert known.add(unknown).num_shared(unknown) == 0

    def test_add_of_another_encoder_is_refused(self) -> None:
        other = replace(make_prototypes([0, 1], first=10), model="large", fingerprint="f01")
        with pytest.raises(PrototypeMismatchError, match="'demo' and of 'large' cannot be joined: build both with one model"):
            make_prototypes([0, 1]).add(other)

    def test_remove(self) -> None:
        first = make_prototypes([0, 0, 1])
        left = first.remove(["label-1", "unheard of"])
        assert left.reference_ids == ("label-0", "label-2")
        assert left.shots == {"gear": 1, "nut": 1}
        assert torch.equal(left.vectors, first.vectors[[0, 2]])
        assert first.shots == {"gear": 2, "nut": 1}

    def test_remove_of_nothing_changes_nothing(self) -> None:
        first = make_prototypes([0, 0, 1])
        left = first.remove([])
        assert torch.equal(left.matrix, first.matrix)
        assert left.reference_ids == first.reference_ids

    def test_add_after_remove_is_where_it_began(self) -> None:
        first = make_prototypes([0, 0, 1])
        alone = Prototypes(("gear",), first.vectors[1:2], torch.tensor([0]), ("label-1",), "demo", "f00")
        again = first.remove(["label-1"]).add(alone)
        assert again.shots == first.shots
        assert_near(again.matrix, first.matrix)

    def test_remove_that_empties_a_class(self) -> None:
        first = make_prototypes([0, 0, 1])
        with pytest.raises(ClassWithoutReferencesError, match="'nut'"):
            first.remove(["label-2"])
        left = first.remove(["label-0", "label-1"], keep_classes=False)
        assert left.classes == ("nut",)
        assert left.labels.tolist() == [0]

    @pytest.mark.parametrize("counts", [(1, 2, 2), (2, 1, 2), (2, 2, 1)])
    def test_disagreeing_parts_are_refused(self, counts: tuple[int, int, int]) -> None:
        ids = tuple(str(row) for row in range(counts[2]))
        with pytest.raises(ShapeError, match="there are {}, {} and {}".format(*counts)):
            Prototypes(("gear",), torch.zeros(counts[0], 5), torch.zeros(counts[1]).long(), ids, "demo", "f00")

    def test_digests_of_another_number_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="one digest a reference or none at all, but there are 1 of 2 references"):
            make_prototypes([0, 1], digests=("a",))

    def test_add_joins_negatives(self) -> None:
        first = make_prototypes([0, 1], negatives=make_negatives("nut", "dust"))
        second = make_prototypes([0, 1], first=10, negatives=make_negatives("nut", first=60))
        plain = make_prototypes([0, 1], first=20)
        assert first.negatives is not None
        both = first.add(second).negatives
        assert both is not None
        assert both.ids == ("negative-50", "negative-51", "negative-60")
        assert both.names == ("nut", "dust", "nut")
        assert both.digests == ("digest-50", "digest-51", "digest-60")
        assert torch.equal(both.vectors[:2], first.negatives.vectors)
        assert_same_negatives(first.add(plain).negatives, first.negatives)
        assert_same_negatives(plain.add(first).negatives, first.negatives)
        assert plain.add(make_prototypes([0, 1], first=10)).negatives is None

    def test_add_takes_the_newer_role_of_an_object(self) -> None:
        first = make_prototypes([0, 0, 1], negatives=make_negatives("nut"))
        reference = Prototypes(("nut",), torch.ones(1, 5), torch.tensor([0]), ("negative-50",), "demo", "f00")
        both = first.add(reference)
        assert both.shots == {"gear": 2, "nut": 2}
        assert both.negatives is None
        turned = Negatives(torch.ones(1, 5), ("gear",), ("label-1",), ("d",))
        both = first.add(make_prototypes([0, 1], first=10, negatives=turned))
        assert both.shots == {"gear": 2, "nut": 2}
        assert "label-1" not in both.reference_ids
        assert both.negatives is not None
        assert both.negatives.ids == ("negative-50", "label-1")

    def test_remove_takes_negatives_too(self) -> None:
        first = make_prototypes([0, 0, 1], negatives=make_negatives("nut", "dust", "gear"))
        left = first.remove(["negative-51", "label-1"])
        assert left.reference_ids == ("label-0", "label-2")
        assert left.negatives is not None
        assert first.negatives is not None
        assert (left.negatives.ids, left.negatives.names) == (("negative-50", "negative-52"), ("nut", "gear"))
        assert torch.equal(left.negatives.vectors, first.negatives.vectors[[0, 2]])
        assert first.remove(first.negatives.ids).negatives is None
        assert_same_negatives(first.remove(["label-0"]).negatives, first.negatives)

    def test_a_negative_of_a_class_that_is_gone_is_one_of_every_class(self) -> None:
        first = make_prototypes([0, 0, 1], negatives=make_negatives("nut", "dust"))
        assert first.negative_matrix is not None
        assert first.negative_matrix[1].tolist() == [1, -1]
        left = first.remove(["label-2"], keep_classes=False)
        assert left.negative_matrix is not None
        assert left.negative_matrix[1].tolist() == [-1, -1]

    def test_disagreeing_negatives_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"one vector, name, id and digest each, but there are 2, 1, 1 and 1"):
            Negatives(torch.zeros(2, 5), ("a",), ("a",), ("a",))
        with pytest.raises(
            ShapeError, match=r"Negatives of shape \(1, 4\) do not fit references of shape \(2, 5\): build both"
        ):
            make_prototypes([0, 1], negatives=make_negatives("nut", width=4))

    def test_class_without_vector_is_refused(self) -> None:
        with pytest.raises(ClassWithoutReferencesError, match="'nut'"):
            make_prototypes([0, 0])


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        first = make_prototypes([0, 1, 1], classes=("a.b $", "⚙️"), skipped=(("x", "too thin"), ("y", "its mask is empty")))
        first.save(tmp_path / "deep" / "er" / "a.safetensors")
        again = Prototypes.load(str(tmp_path / "deep" / "er" / "a.safetensors"))
        assert_same(again, first)
        assert again.digests == ()
        assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.safetensors"]

    def test_of_real_references(self, built: Prototypes, tmp_path: Path) -> None:
        built.save(tmp_path / "a.safetensors")
        again = Prototypes.load(tmp_path / "a.safetensors")
        assert torch.equal(again.matrix, built.matrix)
        assert again.digests == built.digests
        assert len(set(again.digests)) == 6

    def test_of_negatives(self, tmp_path: Path) -> None:
        first = make_prototypes([0, 1, 1], negatives=make_negatives("a.b $", "nut", "⚙️"))
        first.save(tmp_path / "a.safetensors")
        again = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(again, first)
        assert again.negatives is not None
        again.remove(["negative-50"]).save(tmp_path / "a.safetensors")
        left = Prototypes.load(tmp_path / "a.safetensors").negatives
        assert left is not None
        assert left.ids == ("negative-51", "negative-52")

    def test_of_version_2(self, tmp_path: Path) -> None:
        # As the version before negatives wrote it.
        about = (
            '{"version": 2, "classes": ["gear", "nut"], "reference_ids": ["label-0", "label-1", "label-2"], "model": "demo", '
            '"fingerprint": "f00", "skipped": [], "digests": ["a", "b", "c"]}'
        )
        expected = make_prototypes([0, 1, 1], digests=("a", "b", "c"))
        tensors = {"vectors": expected.vectors, "labels": expected.labels}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": about})
        found = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(found, expected)
        assert found.digests == ("a", "b", "c")

    @pytest.mark.parametrize("listed", [{"names": ["a"]}, {"names": ["a"], "ids": ["x"], "digests": []}, ["a"], 3])
    def test_negatives_that_disagree(self, tmp_path: Path, listed: object) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1], negatives=make_negatives("a")).save(path)
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["refseg_prototypes"])
        save_file(load_file(path), path, metadata={"refseg_prototypes": json.dumps({**about, "negatives": listed})})
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(path)

    def test_of_version_1(self, tmp_path: Path) -> None:
        # As release 0.1.0 wrote it.
        about = (
            '{"version": 1, "classes": ["gear", "nut"], "reference_ids": ["label-0", "label-1", "label-2"], "model": "demo", '
            '"fingerprint": "f00", "skipped": [["x", "too thin"]]}'
        )
        expected = make_prototypes([0, 1, 1], skipped=(("x", "too thin"),))
        tensors = {"vectors": expected.vectors, "labels": expected.labels}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": about})
        found = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(found, expected)
        assert found.digests == ()

    @pytest.mark.parametrize(("key", "value"), [("digests", ["a"]), ("reference_ids", ["x"]), ("classes", ["a", "b", "c"])])
    def test_parts_that_disagree(self, tmp_path: Path, key: str, value: list[str]) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["refseg_prototypes"])
        save_file(load_file(path), path, metadata={"refseg_prototypes": json.dumps({**about, key: value})})
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(path)

    def test_save_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        make_prototypes([0, 1, 1]).save(path)
        assert Prototypes.load(path).shots == {"gear": 1, "nut": 2}

    def test_save_of_removed_rows(self, tmp_path: Path) -> None:
        make_prototypes([0, 1, 1]).remove(["label-1"]).save(tmp_path / "a.safetensors")
        assert Prototypes.load(tmp_path / "a.safetensors").reference_ids == ("label-0", "label-2")

    def test_interrupted_save_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)

        def full_disk(tensors: object, target: Path, **options: object) -> None:
            Path(target).write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr("safetensors.torch.save_file", full_disk)
        with pytest.raises(OSError, match="No space"):
            make_prototypes([0, 1, 1]).save(path)
        assert Prototypes.load(path).shots == {"gear": 1, "nut": 1}

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(PrototypeFileError, match=r"There is no prototypes file at .*a\.safetensors"):
            Prototypes.load(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 8, b'{"classes": []}'])
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(PrototypeFileError, match="is not a prototypes file written by RefSeg"):
            Prototypes.load(tmp_path / "a.safetensors")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PrototypeFileError):
            Prototypes.load(tmp_path)

    def test_truncated(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        whole = path.read_bytes()
        for length in range(0, len(whole), 37):
            path.write_bytes(whole[:length])
            with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
                Prototypes.load(path)

    def test_other_tensors(self, tmp_path: Path) -> None:
        save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("about", [[], 3, {"version": 1}, {"version": "new"}, {"version": 1, "classes": 3}])
    def test_odd_header(self, tmp_path: Path, about: object) -> None:
        tensors = {"vectors": torch.zeros(1, 2), "labels": torch.zeros(1, dtype=torch.int64)}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": json.dumps(about)})
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(tmp_path / "a.safetensors")

    def test_newer_version(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        save_file(load_file(path), path, metadata={"refseg_prototypes": json.dumps({"version": 4, "news": True})})
        with pytest.raises(PrototypeFileError, match=r"newer RefSeg \(file version 4, this one reads up to 3\): update"):
            Prototypes.load(path)
