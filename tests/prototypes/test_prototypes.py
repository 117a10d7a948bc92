"""Prototypes as a value: class means by hand, adding, removing, and what does not fit together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refseg.errors import ClassWithoutReferencesError, PrototypeError, PrototypeMismatchError, ShapeError
from refseg.prototypes.means import class_prototypes
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Surroundings
from tests.synthetic import (
    WIDTH,
    assert_same_negatives,
    assert_same_surroundings,
    make_full,
    make_negatives,
    make_prototypes,
    vector_of,
)
from tests.tolerance import assert_near


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

    @pytest.mark.parametrize(
        ("classes", "words"),
        [(("nut", "nut"), "Two classes of the prototypes are named 'nut': join"), (("nut", "\t"), "has a blank name: give")],
    )
    def test_names_that_tell_no_class_are_refused(self, classes: tuple[str, ...], words: str) -> None:
        with pytest.raises(PrototypeError, match=words):
            make_prototypes([0, 1], classes=classes)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_not_finite_are_refused(self, value: float) -> None:
        first = make_prototypes([0, 1])
        vectors = first.vectors.clone()
        vectors[1, 2] = value
        with pytest.raises(PrototypeError, match=r"Vectors of references hold a number of 'nut' \(label-1\) .*NaN or infinite"):
            replace(first, vectors=vectors)
        with pytest.raises(PrototypeError, match=r"Vectors of negatives hold a number of 'nut' \(n\) .*NaN or infinite"):
            Negatives(vectors[1:], ("nut",), ("n",), ("",))
        with pytest.raises(PrototypeError, match=r"Features of surroundings hold a number in row 1 .*NaN or infinite"):
            Surroundings(vectors.half(), ("i", "j"), ("", ""))

    def test_tensors_of_another_type_are_refused(self) -> None:
        first = make_prototypes([0, 1])
        with pytest.raises(PrototypeError, match=r"Vectors of references must be floating-point numbers, not torch\.int64"):
            replace(first, vectors=first.vectors.long())
        with pytest.raises(ShapeError, match=r"labels int64 of shape \(R,\), not \(2, 5\) and torch\.float32 of \(2,\)"):
            replace(first, labels=first.labels.float())

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
        left = first.remove(["label-2"], keep_classes=False)
        assert first.negatives is not None
        assert left.negatives is not None
        assert first.negatives.rows(first.classes).tolist() == [1, -1]
        assert left.negatives.rows(left.classes).tolist() == [-1, -1]

    def test_disagreeing_negatives_are_refused(self) -> None:
        with pytest.raises(
            ShapeError, match=r"Negatives of shape \(1, 4\) do not fit references of shape \(2, 5\): build both"
        ):
            make_prototypes([0, 1], negatives=make_negatives("nut", width=4))

    def test_class_without_vector_is_refused(self) -> None:
        with pytest.raises(ClassWithoutReferencesError, match="'nut'"):
            make_prototypes([0, 0])


class TestWhatSurrounds:
    def test_follows_its_references(self) -> None:
        first, second = make_full("aabbcc"), make_full("ddee", first=10)
        assert first.background is not None
        assert second.background is not None
        both = first.add(second)
        assert both.images == (*"aabbcc", *"ddee")
        assert both.background is not None
        assert torch.equal(both.background, torch.cat([first.background, second.background]))
        assert both.surroundings is not None
        assert both.surroundings.images == (*"aabbccabcabc", *"ddeedede")
        left = both.remove(["label-1", "label-12"])
        assert left.images == (*"abbcc", *"dde")
        assert left.image_names == tuple(f"{letter}.png" for letter in left.images)
        assert left.background is not None
        rows = [row for row in range(10) if row not in (1, 8)]
        assert torch.equal(left.background, both.background[rows])
        assert left.surroundings is not None
        assert set(left.surroundings.shown) == {"", *left.reference_ids}

    def test_what_is_added_again_is_as_in_the_newer_ones(self) -> None:
        """All references of one are in the other: nothing of the older one is left, and nothing of the newer is lost."""
        first, second = make_full("aabbcc"), replace(make_full("ddeeff"), digests=tuple("uvwxyz"))
        both = first.add(second)
        assert (both.images, both.digests) == (tuple("ddeeff"), tuple("uvwxyz"))
        assert both.background is not None
        assert second.background is not None
        assert torch.equal(both.background, second.background)
        assert first.add(replace(second, images=(), background=None)).images == ()

    @pytest.mark.parametrize("name", ["images", "image_names", "background", "surroundings"])
    def test_beside_ones_that_lack_it(self, name: str) -> None:
        """Of some references alone it is of no use, but surroundings are of those images that they are of."""
        first, second = make_full("aabbcc"), make_full("ddee", first=10)
        unknown = {"images": (), "image_names": (), "background": None, "surroundings": None}
        older = replace(second, **{name: unknown[name]})
        for both in (first.add(older), older.add(first)):
            assert set(both.reference_ids) == {*first.reference_ids, *second.reference_ids}
            if name == "surroundings":
                assert_same_surroundings(both.surroundings, first.surroundings)
            else:
                assert getattr(both, name) == unknown[name]
            for other in unknown.keys() - {name}:
                assert getattr(both, other) is not None
                assert len(getattr(both, other)) > 0
        assert getattr(older.remove(["label-10"], keep_classes=False), name) == unknown[name]
        assert first.add(older).num_shared(first) == 9
        assert first.add(older).num_shared(older) == 6

    def test_surroundings_that_are_known_to_be_none_stay_known(self) -> None:
        nothing = Surroundings(torch.zeros(0, WIDTH).half(), (), ())
        first, second = replace(make_full("aab"), surroundings=nothing), replace(make_full("ccd", first=10), surroundings=None)
        for both in (first.add(second), second.add(first)):
            assert both.surroundings is not None
            assert len(both.surroundings) == 0

    def test_known_vectors_have_the_background_of_references(self) -> None:
        full = make_full("aabbcc")
        assert full.background is not None
        known = full.known_vectors
        assert len(known) == full.num_shared(full) == 9
        for row, name in enumerate(full.reference_ids):
            vector = known[name, f"digest of {name}"]
            assert torch.equal(vector.vector, full.vectors[row])
            assert vector.background is not None
            assert torch.equal(vector.background, full.background[row].float())
        assert known["negative-0-b", "digest-0-b"].background is None
        bare = replace(full, background=None).known_vectors
        assert [vector.background for vector in bare.values()] == [None] * 9

    @pytest.mark.parametrize(
        ("parts", "words"),
        [
            ({"images": ("a",)}, "one image a reference or none at all, but there are 1 of 3 references"),
            ({"image_names": ("a.png",)}, "one image name a reference or none at all, but there are 1 of 3 references"),
            ({"background": torch.zeros(2, 8, WIDTH)}, "one background a reference or none at all, but there are 2 of 3 ref"),
            ({"background": torch.zeros(0, 8, WIDTH)}, "one background a reference or none at all, but there are 0 of 3 ref"),
            (
                {"background": torch.zeros(3, 8, 4)},
                r"Backgrounds of shape \(3, 8, 4\) do not fit references of shape \(3, 8\): build both with one model",
            ),
            (
                {"surroundings": Surroundings(torch.zeros(1, 4), ("a",), ("",))},
                r"Surroundings of shape \(1, 4\) do not fit references of shape \(3, 8\): build both with one model",
            ),
            (
                {"labels": torch.tensor([0, 1, 3])},
                r"Prototypes of 3 classes need labels from 0 to 2, but there are \[0, 1, 3\]",
            ),
            ({"labels": torch.tensor([0, 1, -1])}, r"need labels from 0 to 2, but there are \[-1, 0, 1\]"),
        ],
    )
    def test_disagreeing_parts_are_refused(self, parts: dict[str, object], words: str) -> None:
        with pytest.raises(ShapeError, match=words):
            replace(make_full("aab"), **parts)
