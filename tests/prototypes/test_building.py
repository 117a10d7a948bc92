"""Building prototypes: from real images by the demo models, and what is computed anew when something has changed."""

from __future__ import annotations

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
from torch import Tensor

from refseg.candidates.crops import crop_corners, crop_weights, instance_vector
from refseg.candidates.proposing import encode_patches
from refseg.errors import BadReferenceError, ClassWithoutReferencesError, ImageError, NoReferencesError, UnknownModelError
from refseg.images.reading import encoder_pixels, read_image
from refseg.models.loaded import Models
from refseg.progress import Progress
from refseg.prototypes import building
from refseg.prototypes import vectors as reference_vectors
from refseg.prototypes.building import build_prototypes, iter_build_prototypes
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import image_key
from refseg.prototypes.vectors import Reference, reference_vector
from tests.synthetic import assert_same, vector_of
from tests.tolerance import assert_near

Answer = Callable[[Tensor], list[Tensor]]
LOOKS = 2
"""Passes of the encoder that a reference costs: its crop, and a second look at it alone."""


EMPTY_BOX = "its box is empty or lies outside the image"
EMPTY_MASK = "its mask is empty"
TOO_SMALL = "it is too small or too thin to cover a single patch"


def named(reference: Reference, reason: str) -> str:
    """What is said of a reference that cannot be used."""
    return f"{reference.label!r} in {Path(reference.image).name}: {reason}"


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
            side = models.preset.encoder_side
            features = encode_patches(encoder_pixels(pixels, side), models)[0]
            crop = torch.from_numpy(whole[top:bottom, left:right].copy())[None, None]
            fine = F.interpolate(crop, size=(side, side), mode="bilinear", align_corners=False)[0, 0]
            weights = fine[::14, ::14].flatten()  # nearest, from pixels to patches of 14
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
            ((60, 20, 60.4, 50), np.ones((30, 1), bool), "its box is smaller than a pixel"),
            ((float("nan"), 20, 40, 50), np.ones((30, 20), bool), "its box is not finite"),
            ((10, 20, float("inf"), 50), np.ones((30, 20), bool), "its box is not finite"),
            ((10, 20, 40, 50), np.zeros((30, 30), bool), EMPTY_MASK),
            ((10, 20, 40, 50), np.zeros((0, 0), bool), EMPTY_MASK),
            ((-30, 20, 30, 50), np.repeat([[True, False]], 30, 0).repeat(30, 1), EMPTY_MASK),  # its object is outside
            ((20, 20, 120, 120), np.arange(10000).reshape(100, 100) == 2121, TOO_SMALL),
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
        assert found.skipped == (("bad", named(bad, reason)),)
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
        assert all(reason.startswith("'gear' in a.jpg: ") and why in reason for _, reason in found.skipped)
        assert found.reference_ids == ("label-0",)

    def test_class_without_a_usable_reference_is_named(
        self, references: list[Reference], models: Models, tmp_path: Path
    ) -> None:
        gone = Reference("gone", "washer", str(tmp_path / "a.png"), (0, 0, 9, 9))
        empty = Reference("empty", "washer", references[0].image, (10, 20, 40, 50), np.zeros((30, 30), bool))
        with pytest.raises(ClassWithoutReferencesError, match="'washer' has no usable reference") as caught:
            build_prototypes([*references, gone, empty], models)
        assert caught.value.label == "washer"
        assert sorted(caught.value.reasons) == [
            f"{named(empty, EMPTY_MASK)} (empty)",
            f"{named(gone, 'the file does not exist')} (gone)",
        ]

    def test_no_references(self, models: Models) -> None:
        with pytest.raises(NoReferencesError, match="There are no references: label an object of each class"):
            build_prototypes([], models)

    def test_unknown_model(self, references: list[Reference]) -> None:
        with pytest.raises(UnknownModelError, match="'enormous'"):
            build_prototypes(references, "enormous")

    @pytest.mark.parametrize("label", ["a.b", "$price", "⚙️ gear", "x" * 300])
    def test_any_label(self, references: list[Reference], models: Models, label: str, tmp_path: Path) -> None:
        found = build_prototypes([replace(references[0], label=label)], models)
        assert found.shots == {label: 1}
        found.save(tmp_path / "a.safetensors")
        assert Prototypes.load(tmp_path / "a.safetensors").classes == (label,)

    def test_turned_stays_turned(self, references: list[Reference], models: Models, tmp_path: Path) -> None:
        plain = build_prototypes(references[:1], models, progress=False)
        turned = build_prototypes(references[:1], models, turned=True, reuse=plain, progress=False)
        assert (plain.turned, turned.turned) == (False, True)
        assert not torch.equal(turned.vectors, plain.vectors), "a vector of before was taken"
        turned.save(tmp_path / "turned.safetensors")
        kept = Prototypes.load(tmp_path / "turned.safetensors")
        again = build_prototypes(references[:2], models, reuse=kept, progress=False)
        assert again.turned
        assert_same(again, build_prototypes(references[:2], models, turned=True, progress=False))
        assert kept.remove([]).turned
        assert plain.add(turned).turned
        assert not build_prototypes(references[:1], models, reuse=kept, turned=False, progress=False).turned

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

            monkeypatch.setattr(reference_vectors, "decode_boxes", decode)
            return asked

        return replace_answer

    def test_mask_is_the_segmenters(self, references: list[Reference], models: Models, answer: Answer) -> None:
        # The answer is the left half of the image of 200 × 150 pixels.
        logits = torch.ones(80, 80)
        logits[:, 40:] = -1.0
        asked = answer(logits)
        box = (60.0, 45.0, 140.0, 90.0)
        found = build_prototypes([Reference("box", "gear", references[0].image, box)], models)
        # The prompt is in pixels of the segmenter's 320 × 320.
        assert [boxes.tolist() for boxes in asked] == [[pytest.approx([96.0, 96.0, 224.0, 192.0])]]

        left, top, right, bottom = crop_corners(box, (150, 200))
        with Image.open(references[0].image) as image:
            pixels = torch.from_numpy(np.array(image.crop((left, top, right, bottom)))).permute(2, 0, 1)[None] / 255
        side = models.preset.encoder_side
        features = encode_patches(encoder_pixels(pixels, side), models)[0]
        half = (torch.arange(200) < 100).expand(150, -1)
        expected = instance_vector(features, crop_weights(half[top:bottom, left:right], side, models.patches_side))
        assert expected is not None
        assert_near(found.vectors[0], expected, at_most=1e-4)

    def test_empty_answer_is_skipped(self, references: list[Reference], models: Models, answer: Answer) -> None:
        answer(-torch.ones(80, 80))
        bad = Reference("box", "gear", references[0].image, (10, 20, 40, 50))
        assert build_prototypes([bad, references[0]], models).skipped == (("box", named(bad, EMPTY_MASK)),)

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
            models.segmenter.sam2.image_encoder.register_forward_hook(lambda *_: seen.append("sam2")),
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
            assert passes == ["dinov2"] * LOOKS
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

        monkeypatch.setattr(building, "read_image", no_reading)
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
    @pytest.mark.sampled(2)
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
        assert passes == ["dinov2"] * LOOKS * (1 + others)
        assert found.num_shared(earlier) == 5 - others
        assert_same(found, build_prototypes(wanted, models))

    def test_of_another_encoder_is_ignored(self, own: list[Reference], models: Models, passes: list[str]) -> None:
        earlier = build_prototypes(own[:3], models)
        other = replace(models, revisions={**models.revisions, "dinov2": "another"})
        passes.clear()
        found = build_prototypes(own[:3], other, reuse=earlier)
        assert passes == ["dinov2"] * LOOKS * 3
        assert found.fingerprint == other.fingerprint != earlier.fingerprint
        assert found.num_shared(earlier) == 0

    def test_box_alone_follows_the_segmenter(
        self, own: list[Reference], models: Models, passes: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What the segmenter answers is not the point; that its image encoder is not run is.
        monkeypatch.setattr(reference_vectors, "decode_boxes", lambda *_: torch.ones(1, 80, 80))
        wanted = [*own, replace(own[0], id="box", mask=None)]
        earlier = build_prototypes(wanted, models)
        passes.clear()
        assert_same(build_prototypes(wanted, models, reuse=earlier), earlier)
        assert passes == []
        other = replace(models, revisions={**models.revisions, "sam2": "another"})
        assert other.fingerprint == models.fingerprint
        assert build_prototypes(wanted, other, reuse=earlier).num_shared(earlier) == 6
        assert passes == ["sam2", *["dinov2"] * LOOKS]

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
        assert passes == ["dinov2"] * LOOKS
        assert found.skipped == (("empty", named(empty, EMPTY_MASK)),)
        assert torch.equal(vector_of(found, "gone"), vector_of(found, "label-0"))

    def test_image_that_cannot_be_read_any_more_spares_what_is_known(
        self, own: list[Reference], models: Models, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        earlier = build_prototypes(own[:1], models)

        def fail(path: str, **_: object) -> Image.Image:
            raise ImageError(path, "the image cannot be read (permission denied)")

        monkeypatch.setattr(building, "read_image", fail)
        found = build_prototypes([own[0], replace(own[1], label="gear")], models, reuse=earlier)
        assert found.reference_ids == ("label-0",)
        assert found.skipped == (
            ("label-1", named(replace(own[1], label="gear"), "the image cannot be read (permission denied)")),
        )

    def test_after_add_remove_and_a_file(self, own: list[Reference], models: Models, passes: list[str], tmp_path: Path) -> None:
        grown = build_prototypes(own[:4], models).add(build_prototypes(own[3:], models)).remove(["label-1"])
        grown.save(tmp_path / "a.safetensors")
        passes.clear()
        found = build_prototypes(own, models, reuse=Prototypes.load(tmp_path / "a.safetensors"))
        assert passes == ["dinov2"] * LOOKS
        assert_same(found, build_prototypes(own, models))

    def test_without_digests_nothing_is_reused(self, own: list[Reference], models: Models, passes: list[str]) -> None:
        fresh = build_prototypes(own[:2], models)
        for digests in ((), ("", fresh.digests[1])):
            earlier = replace(fresh, digests=digests)
            passes.clear()
            assert_same(build_prototypes(own[:2], models, reuse=earlier), fresh)
            assert passes == ["dinov2"] * LOOKS * (2 - sum(map(bool, digests)))


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
        assert found.negatives.images == (built.images[1], built.images[4])

    def test_change_no_prototype(self, built: Prototypes, references: list[Reference], models: Models) -> None:
        negative = replace(references[0], id="negative", box=(5, 5, 60, 70), mask=np.ones((65, 55), bool))
        found = build_prototypes(references, models, negatives=[negative])
        assert torch.equal(found.matrix, built.matrix)
        assert found.reference_ids == built.reference_ids
        assert built.negatives is None

    def test_unusable_ones_are_listed(self, references: list[Reference], models: Models, tmp_path: Path) -> None:
        gone = replace(references[0], id="gone", image=str(tmp_path / "gone.png"))
        empty = replace(references[0], id="empty", mask=np.zeros((3, 3), bool))
        found = build_prototypes(references, models, negatives=[gone, empty])
        assert found.negatives is None
        assert dict(found.skipped) == {
            "gone": named(gone, "the file does not exist"),
            "empty": named(empty, EMPTY_MASK),
        }

    def test_do_not_stand_for_a_class(self, references: list[Reference], models: Models) -> None:
        bad = replace(references[0], id="bad", label="nut", mask=np.zeros((3, 3), bool))
        with pytest.raises(
            ClassWithoutReferencesError, match=r"'nut' has no usable reference: 'nut' in 0\.png: its mask is empty \(bad\)"
        ) as caught:
            build_prototypes([references[0], bad], models, negatives=[references[1]])
        assert caught.value.reasons == (named(bad, f"{EMPTY_MASK} (bad)"),)

    def test_a_blank_class_is_refused(self, references: list[Reference], models: Models) -> None:
        with pytest.raises(BadReferenceError, match=r"an object without a class in .*\(label-1\): name its class"):
            build_prototypes([references[0], replace(references[1], label=" ")], models)

    @pytest.mark.parametrize(("rows", "more"), [([1], ""), ([1, 2], r" \(and 1 more\)")])
    def test_both_at_once_is_refused(self, references: list[Reference], models: Models, rows: list[int], more: str) -> None:
        what = rf"The object 'nut' in {Path(references[1].image).name} \(label-1\){more}"
        words = rf"{what} is both a reference and a negative: take one of the two tags off it\."
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
        assert len(passes) == LOOKS * 6
        earlier.save(tmp_path / "a.safetensors")
        shown, others = [references[row] for row in (0, 1, 5)], [references[row] for row in (2, 3, 4)]
        fresh = build_prototypes(shown, models, negatives=others)
        passes.clear()
        found = build_prototypes(shown, models, negatives=others, reuse=Prototypes.load(tmp_path / "a.safetensors"))
        # What surrounds it was not kept of the one that was a negative and is a reference now.
        assert passes == ["dinov2"] * LOOKS
        assert_same(found, fresh)
        assert found.num_shared(earlier) == earlier.num_shared(found) == 6

    def test_of_unknown_digest_are_computed(self, references: list[Reference], models: Models, passes: list[str]) -> None:
        earlier = build_prototypes(references[:4], models, negatives=references[4:])
        assert earlier.negatives is not None
        unknown = replace(earlier, negatives=replace(earlier.negatives, digests=("", earlier.negatives.digests[1])))
        passes.clear()
        found = build_prototypes(references[:4], models, negatives=references[4:], reuse=unknown)
        assert passes == ["dinov2"] * LOOKS
        assert_same(found, earlier)
        assert found.num_shared(unknown) == 5


class TestWhatSurrounds:
    def test_each_reference_has_its_image_and_background(
        self, built: Prototypes, references: list[Reference], models: Models
    ) -> None:
        keys = {reference.id: image_key(reference.image) for reference in references}
        assert built.images == tuple(keys[name] for name in built.reference_ids)
        names = {reference.id: Path(reference.image).name for reference in references}
        assert built.image_names == tuple(names[name] for name in built.reference_ids)
        assert len(set(built.images)) == 2
        assert built.background is not None
        assert built.background.shape == (6, reference_vectors.BACKGROUND_VECTORS, models.feature_width)
        assert built.background.dtype == torch.float16
        for reference in references[::4]:
            found = reference_vector(read_image(reference.image), reference, models)
            assert not isinstance(found, str)
            assert found.background is not None
            row = built.reference_ids.index(reference.id)
            assert_near(built.background[row].float(), found.background, at_most=2e-3)
        assert built.surroundings is None

    def test_of_unknown_background_are_computed_anew(
        self, built: Prototypes, references: list[Reference], models: Models
    ) -> None:
        """As of a file of an earlier version: the vectors are known, what surrounds them is not."""
        seen: list[str] = []
        handle = models.dinov2.register_forward_hook(lambda *_: seen.append("dinov2"))
        try:
            assert_same(build_prototypes(references, models, reuse=replace(built, images=())), built)
            assert seen == []
            assert_same(build_prototypes(references, models, reuse=replace(built, background=None, images=())), built)
            assert seen == ["dinov2"] * LOOKS * 6
        finally:
            handle.remove()
