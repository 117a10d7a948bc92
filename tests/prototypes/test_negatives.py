"""Negatives as a value: each stays together with its name, id, digest and image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from refseg.errors import ShapeError
from refseg.prototypes.negatives import Negatives
from tests.synthetic import make_negatives


class TestNegatives:
    def test_rows(self) -> None:
        negatives = make_negatives("nut", "dust", "gear", "nut")
        assert negatives.rows(("gear", "nut")).tolist() == [1, -1, 0, 1]
        assert negatives.rows(()).tolist() == [-1] * 4
        assert negatives.rows(("gear",)).dtype == torch.int64

    def test_add_and_remove_keep_each_together(self) -> None:
        first, second = make_negatives("nut", "dust"), replace(make_negatives("gear", first=60), images=("a",))
        both = first.add(second)
        assert len(both) == 3
        assert (both.names, both.images) == (("nut", "dust", "gear"), ("", "", "a"))
        assert torch.equal(both.vectors, torch.cat([first.vectors, second.vectors]))
        left = both.remove(["negative-50", "unheard of"])
        assert left is not None
        assert (left.names, left.ids) == (("dust", "gear"), ("negative-51", "negative-60"))
        assert (left.digests, left.images) == (("digest-51", "digest-60"), ("", "a"))
        assert torch.equal(left.vectors, both.vectors[1:])
        assert len(first) == 2

    def test_remove_of_all_leaves_none(self) -> None:
        negatives = make_negatives("nut", "dust")
        assert negatives.remove(negatives.ids) is None

    def test_image_of_each(self) -> None:
        negatives = make_negatives("nut", "dust")
        assert (negatives.images, negatives.image_of_each) == ((), ("", ""))
        assert replace(negatives, images=("a", "b")).image_of_each == ("a", "b")

    def test_disagreeing_parts_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"one vector, name, id and digest each, but there are 2, 1, 1 and 1"):
            Negatives(torch.zeros(2, 5), ("a",), ("a",), ("a",))
        with pytest.raises(ShapeError, match=r"one image each or none at all, but 2 have 1"):
            replace(make_negatives("a", "b"), images=("x",))
