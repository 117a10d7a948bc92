"""Numbers of images by name: their keys, the fields that hold them, and how they are written."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import fiftyone as fo
import pytest

from refseg.dataset import image_numbers
from refseg.dataset.image_numbers import (
    add_numbers,
    known_numbers,
    name_of_key,
    number_key,
    require_numbers_field,
    write_numbers,
)
from refseg.errors import DatasetError
from tests.at_once import other_process

MakeDataset = Callable[..., fo.Dataset]
WHAT = "the number of objects"


def test_examples() -> None:
    assert doctest.testmod(image_numbers).failed == 0


def test_every_name_comes_back_and_no_two_are_one() -> None:
    names = ["star", "a.b", "a%2Eb", "a%252Eb", "%", "%%", "_", "__", "$", "$.", "id", "%69d", "copy", "ID", "é", "\0", "a b"]
    keys = [number_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert [name_of_key(key) for key in keys] == names
    for key in keys:
        fo.core.odm.validate_field_name(key)
        assert not hasattr(fo.DynamicEmbeddedDocument, key)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> fo.Dataset:
    """Two images."""
    return make_dataset([fo.Sample("a.png"), fo.Sample("b.png")])


def test_numbers_are_added_and_merged(dataset: fo.Dataset) -> None:
    require_numbers_field(dataset, "found", WHAT)
    add_numbers(dataset, "found", ["star"], int, WHAT)
    first, second = dataset.values("id")
    sample = dataset[first]
    write_numbers(dataset, {first: {"found": {"star": 2}}, second: {"found": {"star": 0}}})
    add_numbers(dataset, "found", ["a.b"], int, WHAT)
    assert known_numbers(dataset, "found") == ["star", "a.b"]
    before = dataset.values("last_modified_at")
    write_numbers(dataset, {first: {"found": {"a%2Eb": 1}}})
    assert other_process(dataset).values(["found.star", "found.a%2Eb"]) == ([2, 0], [1, None])
    assert sample.found["a%2Eb"] == 1
    after = dataset.values("last_modified_at")
    assert (after[0] > before[0], after[1] == before[1]) == (True, True)
    write_numbers(dataset, {first: {"found": None}})
    write_numbers(dataset, {first: {"found": {"star": 3}}})
    write_numbers(dataset, {})
    assert other_process(dataset).values("found.star") == [3, 0]
    require_numbers_field(dataset, "found", WHAT)
    with pytest.raises(DatasetError, match="holds something else than their areas"):
        require_numbers_field(dataset, "found", "their areas")


def test_an_image_that_is_gone_is_passed_over(dataset: fo.Dataset) -> None:
    add_numbers(dataset, "found", ["star"], float, WHAT)
    first, second = dataset.values("id")
    dataset.delete_samples([first])
    write_numbers(dataset, {first: {"found": {"star": 2.5}}, second: {"found": {"star": 1.5}}})
    assert dataset.values("found.star") == [1.5]
