"""Bits in words, against plain lists of bits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from refseg.candidates import bit_crops
from refseg.candidates.bit_crops import (
    WORD,
    BitCrops,
    bits_at,
    count_bits,
    flip_at,
    next_bits,
    previous_bits,
    set_bits,
    starts_of,
)


def bits_of(words: NDArray[np.uint64]) -> list[int]:
    """Bit by bit, by Python's own integers."""
    return [word >> bit & 1 for word in words.tolist() for bit in range(64)]


def some_words(rng: np.random.Generator, count: int = 7) -> NDArray[np.uint64]:
    words = rng.integers(0, 2**64, count, dtype=np.uint64).astype(WORD)
    words[count // 2] = 0
    return words


@pytest.mark.parametrize("count", [0, 1, 2, 9, 300])
def test_flips_are_a_running_sum(rng: np.random.Generator, count: int) -> None:
    positions = rng.integers(0, 5 * 64, count)
    found = bits_of(flip_at(positions, 5))
    changes = np.bincount(positions, minlength=5 * 64)
    assert found == (np.cumsum(changes) % 2).tolist()


def test_what_is_behind_the_last_word_changes_nothing() -> None:
    assert bits_of(flip_at(np.array([3, 128]), 2)) == [0] * 3 + [1] * 125
    assert flip_at(np.array([0]), 0).tolist() == []


def test_set_bits_are_found_in_order(rng: np.random.Generator) -> None:
    words = some_words(rng)
    assert set_bits(words).tolist() == [place for place, bit in enumerate(bits_of(words)) if bit]
    assert set_bits(words[:0]).tolist() == []


def test_bits_where_others_are_set(rng: np.random.Generator) -> None:
    words, places = some_words(rng), some_words(rng)
    expected = [bool(bit) for bit, is_asked in zip(bits_of(words), bits_of(places), strict=True) if is_asked]
    assert bits_at(words, places).tolist() == expected


def test_neighbours(rng: np.random.Generator) -> None:
    words = some_words(rng)
    bits = bits_of(words)
    assert bits_of(next_bits(words)) == [*bits[1:], 0]
    assert bits_of(previous_bits(words)) == [0, *bits[:-1]]


def test_counts_with_and_without_numpys_own(rng: np.random.Generator) -> None:
    words = np.append(some_words(rng, 100), np.array([0, 2**64 - 1], WORD))
    expected = [word.bit_count() for word in words.tolist()]
    assert count_bits(words).tolist() == expected
    assert bit_crops._count_by_halves(words).tolist() == expected


def test_crops_have_areas_and_parts_of_their_own(rng: np.random.Generator) -> None:
    lines, widths = np.array([2, 0, 3, 1, 0]), np.array([2, 3, 1, 0, 0])
    words = some_words(rng)
    crops = BitCrops(words, lines, widths)
    assert (len(crops), crops.sizes.tolist(), crops.starts.tolist()) == (5, [4, 0, 3, 0, 0], [0, 4, 4, 7, 7, 7])
    assert crops.areas.tolist() == [sum(bits_of(words[:4])), 0, sum(bits_of(words[4:])), 0, 0]
    parts = crops.parts()
    assert [part.size for part in parts] == [4, 0, 3, 0, 0]
    assert parts[0].tolist() == words[:4].reshape(2, 2).tolist()
    assert parts[2].tolist() == words[4:].reshape(3, 1).tolist()


def test_no_crops() -> None:
    nothing = np.zeros(0, np.int64)
    crops = BitCrops(np.zeros(0, WORD), nothing, nothing)
    assert (len(crops), crops.areas.tolist(), crops.parts(), starts_of(nothing).tolist()) == (0, [], [], [0])
