"""Candidates and prototypes made of seeded random numbers, and what holds of every answer about them."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from refseg.candidates.packing import PackedCandidates, pack
from refseg.candidates.proposing import Candidates
from refseg.matching.instances import Instances, Ranking
from refseg.prototypes.cohort import Cohort
from refseg.prototypes.negatives import Negatives
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Shapes, Surroundings
from tests.candidates.test_packing import make_blobs
from tests.upsampling import upsample

GRID = 16
WIDTH = 8


def random_unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def make_candidates(count: int = 30, seed: int = 0, image_hw: tuple[int, int] = (48, 64)) -> Candidates:
    """Random ellipses on the grid; the predicted IoU of each differs."""
    generator = torch.Generator().manual_seed(seed)
    center = (torch.rand(count, 2, 1, 1, generator=generator) * 0.6 + 0.2) * GRID
    radius = (torch.rand(count, 2, 1, 1, generator=generator) * 0.2 + 0.12) * GRID
    line = torch.arange(GRID) + 0.5
    logits = 4 * (
        1 - ((line[None, :] - center[:, 0]) / radius[:, 0]) ** 2 - ((line[:, None] - center[:, 1]) / radius[:, 1]) ** 2
    )
    predicted_iou = 0.4 + 0.6 * torch.rand(count, generator=generator)
    return Candidates(logits, predicted_iou, random_unit(generator, count, WIDTH), image_hw)


def make_matrix(count: int = 3, seed: int = 1) -> Tensor:
    return random_unit(torch.Generator().manual_seed(seed), count, WIDTH)


def take(candidates: Candidates, rows: Tensor) -> Candidates:
    return Candidates(candidates.logits[rows], candidates.predicted_iou[rows], candidates.features[rows], candidates.image_hw)


def box_mask(x0: int, y0: int, x1: int, y1: int, side: int = GRID) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def make_spots(count: int = 60, seed: int = 0, image_hw: tuple[int, int] = (96, 128)) -> Candidates:
    """Uneven masks of every size all over a grid of 64 × 64 cells, so that some lie beside and some within others."""
    blobs = make_blobs(count, seed=seed, image_hw=image_hw)
    generator = torch.Generator().manual_seed(seed + 100)
    center, line = 64 * torch.rand(count, 2, 1, 1, generator=generator), torch.arange(64) + 0.5
    radius = 4 + 16 * torch.rand(count, 1, 1, generator=generator)
    square = (line[None, :] - center[:, 0]) ** 2 + (line[:, None] - center[:, 1]) ** 2
    return replace(blobs, logits=0.3 * blobs.logits + 4 * (1 - square / radius**2))


def whole_masks(found: Instances, image_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) bool: each mask at its place in the image."""
    whole = torch.zeros(len(found), *image_hw, dtype=torch.bool)
    for canvas, mask, (x0, y0, x1, y1) in zip(whole, found.masks, found.boxes.tolist(), strict=True):
        canvas[y0:y1, x0:x1] = mask
    return whole


def rank_all(candidates: Candidates | PackedCandidates) -> Ranking:
    """Every candidate in its order, of one label and score."""
    count = len(candidates)
    zeros = torch.zeros(count, dtype=torch.int64)
    return Ranking(torch.arange(count), zeros, torch.ones(count), torch.linspace(0, 1, count), torch.arange(count) + 10)


def assert_consistent(found: Instances, candidates: Candidates) -> None:
    """What holds of every answer."""
    height, width = candidates.image_hw
    assert found.boxes.shape == (len(found), 4)
    assert found.boxes.dtype == found.labels.dtype == found.rows.dtype == torch.int64
    assert found.scores.dtype == torch.float32
    assert len(found) == len(found.boxes) == len(found.labels) == len(found.scores) == len(found.rows)
    assert len(found) == len(found.margins) == len(found.runners_up)
    assert bool((found.scores.diff() <= 0).all())
    for mask, (x0, y0, x1, y1), row in zip(found.masks, found.boxes.tolist(), found.rows, strict=True):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert mask.shape == (y1 - y0, x1 - x0)
        # Tight: each side of the box touches the mask; whole: nothing of the mask lies outside the box.
        assert all(bool(edge.any()) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
        whole = torch.zeros(height, width, dtype=torch.bool)
        whole[y0:y1, x0:x1] = mask
        assert torch.equal(whole, upsample(candidates.logits[row][None], candidates.image_hw)[0])


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
    for name in ("classes", "reference_ids", "model", "fingerprint", "skipped", "images", "image_names"):
        assert getattr(found, name) == getattr(expected, name)
    assert (found.background is None) == (expected.background is None)
    assert found.background is None or expected.background is None or torch.equal(found.background, expected.background)
    assert_same_tensor(found.looks, expected.looks)
    assert (found.cohort is None) == (expected.cohort is None)
    if found.cohort is not None and expected.cohort is not None:
        assert found.cohort.num_images == expected.cohort.num_images
        assert_same_tensor(found.cohort.features, expected.cohort.features)
        assert_same_tensor(found.cohort.looks, expected.cohort.looks)
    assert_same_surroundings(found.surroundings, expected.surroundings)
    assert_same_negatives(found.negatives, expected.negatives)


def assert_same_negatives(found: Negatives | None, expected: Negatives | None) -> None:
    """Bit for bit."""
    if found is None or expected is None:
        assert found is expected
        return
    assert torch.equal(found.vectors, expected.vectors)
    assert (found.names, found.ids, found.digests) == (expected.names, expected.ids, expected.digests)
    assert found.image_of_each == expected.image_of_each
    assert_same_tensor(found.looks, expected.looks)


def assert_same_tensor(found: Tensor | None, expected: Tensor | None) -> None:
    """Bit for bit, of the same type; or None, both."""
    if found is None or expected is None:
        assert found is expected
        return
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def assert_same_surroundings(found: Surroundings | None, expected: Surroundings | None) -> None:
    """Bit for bit."""
    if found is None or expected is None:
        assert found is expected
        return
    assert found.features.dtype == expected.features.dtype
    assert torch.equal(found.features, expected.features)
    assert (found.images, found.shown, found.part_of_each) == (expected.images, expected.shown, expected.part_of_each)
    assert_same_tensor(found.looks, expected.looks)
    assert (found.shapes is None) == (expected.shapes is None)
    if found.shapes is not None and expected.shapes is not None:
        assert found.shapes.codes == expected.shapes.codes
        for name in ("boxes", "predicted_iou", "sides"):
            assert_same_tensor(getattr(found.shapes, name), getattr(expected.shapes, name))


def make_full(
    images: str, *, labels: str = "", first: int = 0, classes: tuple[str, ...] = ("gear", "nut", "ring")
) -> Prototypes:
    """Prototypes of which everything is known.

    Args:
        images: a letter for each reference, the key of its image.
        labels: a digit for each, the row of its class; by default 0, 1, 2, 0, 1, …
        first: number of the first reference, and the seed.
        classes: names of the rows.
    """
    generator = torch.Generator().manual_seed(first)
    rows = torch.tensor([int(row) for row in labels] or [row % len(classes) for row in range(len(images))])
    vectors = F.one_hot(rows, WIDTH) + 0.3 * torch.randn(len(images), WIDTH, generator=generator)
    ids = tuple(f"label-{first + row}" for row in range(len(images)))
    # In each image a negative and two strangers, and one candidate for each of its references.
    keys = sorted(set(images))
    negatives = random_unit(generator, len(keys), WIDTH) * 3
    strangers = random_unit(generator, 2 * len(keys), WIDTH)
    seen = F.normalize(vectors + 0.3 * torch.randn(len(images), WIDTH, generator=generator), dim=-1)
    return Prototypes(
        classes,
        vectors * (1 + torch.rand(len(images), 1, generator=generator)),
        rows,
        ids,
        "demo",
        "f00",
        digests=tuple(f"digest of {name}" for name in ids),
        negatives=Negatives(
            negatives,
            tuple((*classes, "anything")[row % (len(classes) + 1)] for row in range(len(keys))),
            tuple(f"negative-{first}-{key}" for key in keys),
            tuple(f"digest-{first}-{key}" for key in keys),
            tuple(keys),
        ),
        images=tuple(images),
        background=random_unit(generator, len(images), 8, WIDTH).half(),
        surroundings=Surroundings(
            torch.cat([seen, strangers]).half(), (*images, *keys, *keys), (*ids, *[""] * (2 * len(keys)))
        ),
        image_names=tuple(f"{letter}.png" for letter in images),
    )


def seen_twice(full: Prototypes, noise: float = 0.2, seed: int = 9) -> Prototypes:
    """The same with second looks at everything, twice as wide, and a cohort of candidates of no class; rounded as files are."""
    generator = torch.Generator().manual_seed(seed)

    def look(vectors: Tensor) -> Tensor:
        doubled = torch.cat([vectors, vectors.flip(1)], 1).float()
        return F.normalize(doubled + noise * torch.randn(doubled.shape, generator=generator), dim=-1).half()

    around, negatives = full.surroundings, full.negatives
    cohort = random_unit(generator, 60, WIDTH).half()
    return replace(
        full,
        looks=look(F.normalize(full.vectors, dim=-1)),
        cohort=Cohort(cohort, look(cohort), 20),
        surroundings=None if around is None else replace(around, looks=look(around.features), shapes=make_shapes(len(around))),
        negatives=None if negatives is None else replace(negatives, looks=look(F.normalize(negatives.vectors, dim=-1))),
    )


def make_shapes(number: int) -> Shapes:
    """So many squares of two cells a side, each apart from the seven after it."""
    logits = torch.full((number, GRID, GRID), -5.0)
    for row in range(number):
        top, left = row % 8 // 4 * 6, row % 4 * 4
        logits[row, top : top + 2, left : left + 2] = 5.0
    packed = pack(Candidates(logits, torch.linspace(0.9, 0.5, number), torch.zeros(number, WIDTH), (GRID, GRID)))
    sides = torch.full((number,), GRID, dtype=torch.int32)
    return Shapes(tuple(packed.codes.to_pylist()), packed.boxes.int(), packed.predicted_iou, sides)


def without_image(prototypes: Prototypes, image: str) -> Prototypes:
    """As if an image had never been shown: without its references and negatives, and without classes that are then empty."""
    negatives = prototypes.negatives
    ids = [name for name, key in zip(prototypes.reference_ids, prototypes.images, strict=True) if key == image]
    if negatives is not None:
        ids += [name for name, key in zip(negatives.ids, negatives.images, strict=True) if key == image]
    return prototypes.remove(ids, keep_classes=False)
