"""Galleries: what each setting makes of prototypes, and what is left of them without one image."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg.matching.gallery import Galleries, make_gallery
from refseg.matching.settings import PUBLISHED, ClassSimilarity, MatchSettings
from refseg.matching.similarity import similarities
from refseg.prototypes.prototypes import Prototypes
from tests.synthetic import WIDTH, make_full, random_unit, without_image
from tests.tolerance import assert_near

SETTINGS = [
    MatchSettings(background=background, class_similarity=kind, negatives=negatives)
    for kind in get_args(ClassSimilarity)
    for background in (False, True)
    for negatives in (False, True)
]


def features(count: int = 50) -> Tensor:
    return random_unit(torch.Generator().manual_seed(4), count, WIDTH)


def plain(kind: str, **other: object) -> MatchSettings:
    """One thing at a time."""
    return MatchSettings(**{"class_similarity": kind, "negatives": False, "background": False, "scenes": False, **other})


class TestMakeGallery:
    def test_of_the_published_settings_is_one_prototype_a_class(self) -> None:
        full = make_full("abcabc")
        gallery = make_gallery(full, PUBLISHED)
        assert_near(gallery.vectors, full.matrix)
        assert (gallery.labels, gallery.background, gallery.num_classes) == (None, None, 3)

    def test_negatives(self) -> None:
        full = make_full("abcd")
        assert full.negatives is not None
        negatives = make_gallery(full, plain("mean", negatives=True)).negatives
        assert negatives is not None
        assert_near(negatives[0], F.normalize(full.negatives.vectors, dim=1))
        assert negatives[1].tolist() == [0, 1, 2, -1]
        assert make_gallery(full, plain("mean")).negatives is None
        assert make_gallery(replace(full, negatives=None)).negatives is None

    def test_nearest_is_the_mean_of_the_three_most_similar_references(self) -> None:
        full = make_full("abcdefghij", labels="0000012220")  # six, one and three shots
        found = similarities(features(), make_gallery(full, plain("nearest")))
        units = F.normalize(full.vectors, dim=1)
        for feature, row in zip(features(), found.tolist(), strict=True):
            for number, members in enumerate(([0, 1, 2, 3, 4, 9], [5], [6, 7, 8])):
                best = sorted((float(feature @ units[member]) for member in members), reverse=True)[:3]
                assert row[number] == pytest.approx(max(0.0, sum(best) / len(best)), abs=1e-5)

    def test_clusters_are_one_for_three_references_and_four_at_most(self) -> None:
        full = make_full("abc" * 7, labels="0" + "1" * 3 + "2" * 4 + "3" * 13, classes=("a", "b", "c", "d"))
        gallery = make_gallery(full, plain("clusters"))
        assert gallery.labels is not None
        assert torch.bincount(gallery.labels).tolist() == [1, 1, 2, 4]
        assert gallery.num_averaged == 1
        assert_near(gallery.vectors.norm(dim=1), torch.ones(8))
        assert_near(gallery.vectors[0], F.normalize(full.vectors[0], dim=0))

    def test_clusters_keep_two_kinds_of_one_class_apart(self) -> None:
        kinds = torch.eye(2, WIDTH)[[0, 0, 0, 1, 1, 1]]
        both = Prototypes(("part",), kinds, torch.zeros(6).long(), tuple("abcdef"), "demo", "f00")
        feature = torch.eye(2, WIDTH)[1:]
        assert float(similarities(feature, make_gallery(both, plain("clusters")))) == pytest.approx(1.0)
        assert float(similarities(feature, make_gallery(both, plain("mean")))) == pytest.approx(0.5**0.5)

    def test_background_are_unit_vectors_and_rows_of_zeros_none(self) -> None:
        full = make_full("abcabc")
        assert full.background is not None
        gallery = make_gallery(full, plain("mean", background=True))
        assert gallery.background is not None
        assert gallery.background.shape == (3 * 8, WIDTH)
        assert gallery.background.dtype == torch.float32
        assert_near(gallery.background.norm(dim=1), torch.ones(24))
        one = torch.zeros_like(full.background)
        one[4, 0, 2] = 1.0
        alone = make_gallery(replace(full, background=one), plain("mean", background=True))
        assert alone.background is not None
        assert torch.equal(alone.background, torch.eye(WIDTH)[2:3])
        nothing = make_gallery(replace(full, background=torch.zeros_like(one)), plain("mean", background=True))
        expected = similarities(features(), make_gallery(full, plain("mean")))
        assert torch.equal(similarities(features(), nothing), expected)
        assert make_gallery(replace(full, background=None), plain("mean", background=True)).background is None

    def test_scenes_join_what_shows_the_references(self) -> None:
        """By hand: the mean of both directions; of a class that no candidate shows, that of its crops alone."""
        full = make_full("abcabc")
        assert full.surroundings is not None
        rows = [row for row, name in enumerate(full.surroundings.shown) if name in ("label-0", "label-3")]
        seen = F.normalize(full.surroundings.features[rows].float().mean(0), dim=0)
        found = make_gallery(full, plain("mean", scenes=True)).vectors
        assert_near(found[0], F.normalize(full.matrix[0] + seen, dim=0))
        assert not torch.allclose(found, full.matrix, atol=0.01)
        others = replace(full, surroundings=full.surroundings.remove(["label-1", "label-4"]))
        assert_near(make_gallery(others, plain("mean", scenes=True)).vectors, torch.stack([found[0], full.matrix[1], found[2]]))
        assert_near(make_gallery(replace(full, surroundings=None), plain("mean", scenes=True)).vectors, full.matrix)
        assert_near(make_gallery(full, plain("mean")).vectors, full.matrix)

    def test_scenes_are_more_vectors_to_be_near_to(self) -> None:
        full = make_full("abcabc")
        gallery = make_gallery(full, plain("nearest", scenes=True))
        assert gallery.labels is not None
        assert torch.bincount(gallery.labels).tolist() == [4, 4, 4]
        assert_near(gallery.vectors.norm(dim=1), torch.ones(12), at_most=1e-3)

    @pytest.mark.parametrize("kind", ["mean", "nearest"])
    def test_order_of_the_references_does_not_matter(self, kind: str) -> None:
        """Of clusters it may: k-means begins at random references."""
        settings = MatchSettings(class_similarity=kind)
        full = make_full("abcdef")
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        ids = tuple(full.reference_ids[row] for row in order)
        turned = replace(full, vectors=full.vectors[order], labels=full.labels[order], reference_ids=ids)
        found = similarities(features(), make_gallery(turned, settings))
        assert_near(found, similarities(features(), make_gallery(full, settings)))

    def test_is_always_the_same(self) -> None:
        full, settings = make_full("abcabcabcabc"), plain("clusters", background=True)
        first, second = make_gallery(full, settings), make_gallery(full, settings)
        assert torch.equal(first.vectors, second.vectors)
        assert first.background is not None
        assert second.background is not None
        assert torch.equal(first.background, second.background)


class TestWithoutAnImage:
    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_is_as_if_the_image_had_never_been_shown(self, settings: MatchSettings) -> None:
        # All references of "ring" lie in b, where one of "gear" lies too; a and d hold several of one class.
        full = make_full("aabbcddbe", labels="001220021")
        galleries = Galleries(full, settings)
        whole = similarities(features(), galleries.make())
        for image in ("a", "b", "c", "d", "e", "unheard of"):
            left = without_image(full, image)
            # A class that is gone still has its row, and its negatives are still its own.
            found, expected = (similarities(features(), one) for one in (galleries.make(image), make_gallery(left, settings)))
            own = [full.classes.index(name) for name in left.classes]
            if left.classes == full.classes or not settings.negatives:
                assert_near(found[:, own], expected)
            gone = [row for row in range(3) if row not in own]
            assert not bool(found[:, gone].any())
            assert torch.equal(found, whole) == (image == "unheard of")
        assert torch.equal(similarities(features(), galleries.make()), whole)

    def test_a_class_without_reference_elsewhere_has_no_vector(self) -> None:
        gallery = Galleries(make_full("abb", labels="012"), plain("mean")).make("a")
        assert gallery.labels is not None
        assert (gallery.labels.tolist(), gallery.num_classes) == ([1, 2], 3)

    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_the_only_image(self, settings: MatchSettings) -> None:
        gallery = Galleries(make_full("aaa"), settings).make("a")
        assert gallery.negatives is None
        assert similarities(features(), gallery).tolist() == [[0.0] * 3] * 50

    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_of_unknown_images_nothing_is_left_out(self, settings: MatchSettings) -> None:
        full = make_full("abcabc")
        assert full.negatives is not None
        older = replace(full, images=(), negatives=replace(full.negatives, images=()))
        galleries = Galleries(older, settings)
        assert torch.equal(similarities(features(), galleries.make("a")), similarities(features(), galleries.make()))
