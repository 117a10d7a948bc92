"""Parts of masks as bits, 64 in a word: a pass over all cells or pixels is then one over an eighth of a byte each.

All parts lie in one array, so that a few calls of numpy serve hundreds of masks. Words are little-endian: the bits of their
bytes, the lowest first, are the cells of a line from left to right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..printing import one_line

Words = NDArray[np.uint64]
Whole = NDArray[np.int64]

BITS = 64
WORD = np.dtype("<u8")
BITS_BELOW: Words = (np.uint64(1) << np.arange(BITS, dtype=WORD)) - np.uint64(1)
"""For each bit those below it; taking these is faster than numpy's shifts by a number for each word."""
_FROM_BIT: Words = ~BITS_BELOW
_ONE = np.uint64(1)


@dataclass(frozen=True)
class BitCrops:
    """Rectangles of bits, one after the other: line after line, each line in words of its own.

    Attributes:
        words: (T,) uint64.
        lines: (n,) int64, lines of each.
        widths: (n,) int64, words a line of each.
    """

    words: Words
    lines: Whole
    widths: Whole

    __repr__ = one_line

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def sizes(self) -> Whole:
        """(n,) int64, words of each."""
        return self.lines * self.widths

    @property
    def starts(self) -> Whole:
        """(n + 1,) int64, the first word of each, and T."""
        return starts_of(self.sizes)

    @property
    def areas(self) -> Whole:
        """(n,) int64, bits of each that are set."""
        sizes, found = self.sizes, np.zeros(len(self), np.int64)
        filled = sizes > 0
        if filled.any():
            found[filled] = np.add.reduceat(count_bits(self.words), self.starts[:-1][filled], dtype=np.int64)
        return found

    def parts(self) -> list[Words]:
        """A view (lines, width) of each."""
        edges = self.starts.tolist()
        sizes = zip(edges, edges[1:], self.widths.tolist(), strict=False)
        return [self.words[start:stop].reshape(-1, max(1, width)) for start, stop, width in sizes]


def starts_of(sizes: NDArray[np.integer]) -> Whole:
    """(n + 1,) int64: where each of n stretches of these sizes begins, and where the last one ends.

    Example:
        >>> starts_of(np.array([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    edges = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=edges[1:])
    return edges


def flip_at(positions: Whole, num_words: int) -> Words:
    """(num_words,) uint64: bits that are 0 at first and change at each of some positions; two changes at one place cancel out.

    Args:
        positions: bits counted from the first word's lowest on, in any order; what lies behind the last word is of no effect.
        num_words: words to be made.

    Example:
        >>> [f"{word:b}" for word in flip_at(np.array([1, 4, 65]), 2).tolist()] == ["1110", "1" * 63 + "0"]
        True
    """
    # One more, for what ends with the last word.
    words = np.zeros(num_words + 1, WORD)
    np.bitwise_xor.at(words, positions >> 6, _FROM_BIT.take(positions & 63))
    # The highest bit of a word tells whether it has an odd number of changes: such a word turns all words behind it.
    words ^= -_changed_before((words >> np.uint64(BITS - 1)).astype(np.uint8)).astype(WORD)
    return words[:num_words]


def _changed_before(changes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n,): 1 where the number of changes, 0 or 1 each, before a place is odd; by halves, as numpy sums up one by one."""
    packed = np.zeros(-(-len(changes) // BITS), WORD)
    packed.view(np.uint8)[: -(-len(changes) // 8)] = np.packbits(changes, bitorder="little")
    after = packed.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        after ^= after << np.uint64(shift)
    turned = np.cumsum(after >> np.uint64(BITS - 1)) & np.uint64(1)
    after[1:] ^= -turned[:-1]
    return np.unpackbits((after ^ packed).view(np.uint8), count=len(changes), bitorder="little")


def set_bits(words: Words) -> Whole:
    """(k,) int64: where bits are set, ascending.

    Example:
        >>> set_bits(np.array([5, 0, 2], np.uint64)).tolist()
        [0, 2, 129]
    """
    octets = np.ascontiguousarray(words).view(np.uint8)
    used = np.flatnonzero(octets != 0)
    found = np.flatnonzero(np.unpackbits(octets[used], bitorder="little").view(np.bool_))
    positions: Whole = (used.take(found >> 3) << 3) + (found & 7)
    return positions


def bits_at(words: Words, places: Words) -> NDArray[np.bool_]:
    """(k,) bool: the bits of words wherever those of places are set, in their order.

    Example:
        >>> bits_at(np.array([0b0110], np.uint64), np.array([0b1101], np.uint64)).tolist()
        [False, True, False]
    """
    octets = np.ascontiguousarray(places).view(np.uint8)
    used = np.flatnonzero(octets != 0)
    own = np.ascontiguousarray(words).view(np.uint8)[used]
    bits, where = (np.unpackbits(some, bitorder="little").view(np.bool_) for some in (own, octets[used]))
    return bits.take(np.flatnonzero(where))


def next_bits(words: Words) -> Words:
    """Each bit's neighbour with the next higher number, in its place."""
    moved = words >> _ONE
    moved[:-1] |= words[1:] << np.uint64(63)
    return moved


def previous_bits(words: Words) -> Words:
    """Each bit's neighbour with the next lower number, in its place."""
    moved = words << _ONE
    moved[1:] |= words[:-1] >> np.uint64(63)
    return moved


def count_bits(words: Words) -> NDArray[np.uint8]:
    """How many bits of each word are set."""
    counts: NDArray[np.uint8] = _COUNT(words)
    return counts


def _count_by_halves(words: Words) -> NDArray[np.uint8]:
    """Sums of neighbouring bits, then of neighbouring pairs, and so on."""
    left = words - ((words >> _ONE) & np.uint64(0x5555555555555555))
    left = (left & np.uint64(0x3333333333333333)) + ((left >> np.uint64(2)) & np.uint64(0x3333333333333333))
    left = (left + (left >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    with np.errstate(over="ignore"):
        counts: NDArray[np.uint8] = ((left * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)
    return counts


# Numpy has its own from 2.0 on.
_COUNT = getattr(np, "bitwise_count", _count_by_halves)
