"""Time matching alone: 1,000 images of 200 candidates, and as published a few of 460; C = 1024, 20 classes of 5 shots.

    python -m benchmarks.matching_speed

As published, as the preset `paper` does it, masks are compared at the image's size. There the library's way is timed beside the
straightforward one, image by image, and both have to give the same rows in the same order. The straightforward one resizes
each mask by itself and compares its run-length code with that of every other mask of its label; the library still does so with
images that are smaller than the grid.

Candidates are ellipses of random size on the mask grid of the published models (256), packed as the index keeps them, with
random features that lean towards one class each. Matching is everything up to labels, scores and order; cutting the masks out
at the image's size is timed apart, because it takes as long as there are instances.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.report import Figure, as_table, at_most, details, seconds_of, spread
from refseg.candidates import Candidates, PackedCandidates, grid_boxes, pack
from refseg.matching import Gallery, Ranking, classify, crop_instances, full_size, rank

GRID = 256
WIDTH = 1024
NUM_CANDIDATES = 200
NUM_CLASSES = 20
SHOTS = 5
IMAGE_HW = (768, 1024)
TOGETHER = 40
"""Images classified at once, as many as the index reads at once."""
NUM_PUBLISHED = 460
"""Candidates of an image of the preset `paper`, which keeps near-duplicates."""
NUM_DRAWN = 20
"""Different images; they are matched over and over, with other features each time."""


def draw_masks(rng: np.random.Generator, count: int = NUM_CANDIDATES) -> Tensor:
    """(count, M, M) float32 logits of ellipses that overlap here and there."""
    rows, columns = np.mgrid[:GRID, :GRID].astype(np.float32)
    logits = []
    for _ in range(count):
        radius, squeeze = rng.uniform(4, 50), rng.uniform(0.5, 2)
        y, x = rng.uniform(0, GRID, 2)
        distance = np.sqrt(((rows - y) * squeeze) ** 2 + (columns - x) ** 2)
        logits.append(5 * (1 - distance / radius).clip(-3))
    return torch.tensor(np.array(logits, np.float32))


class Classes:
    """Prototypes, and features that lean towards one of them each."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(1)
        vectors = torch.randn(NUM_CLASSES, SHOTS, WIDTH, generator=self._generator)
        vectors += 2 * torch.randn(NUM_CLASSES, 1, WIDTH, generator=self._generator)
        self.prototypes = F.normalize(vectors.mean(1), dim=1)

    def features(self, count: int = NUM_CANDIDATES) -> Tensor:
        """(count, C)."""
        owner = torch.randint(NUM_CLASSES, (count,), generator=self._generator)
        noise = torch.randn(count, WIDTH, generator=self._generator)
        return F.normalize(self.prototypes[owner] + 0.04 * noise, dim=1)

    def candidates(self, rng: np.random.Generator, count: int = NUM_CANDIDATES) -> Candidates:
        """Of one image."""
        predicted_iou = torch.rand(count, generator=self._generator)
        return Candidates(draw_masks(rng, count), predicted_iou, self.features(count), IMAGE_HW)


def measure(num_images: int = 1000) -> list[Figure]:
    """Match so many images."""
    rng = np.random.default_rng(1)
    classes = Classes()
    prototypes, features = classes.prototypes, classes.features
    drawn = [pack(classes.candidates(rng)) for _ in range(NUM_DRAWN)]
    matching: list[float] = []
    cutting: list[float] = []
    instances = 0
    for first in range(0, num_images, TOGETHER):
        images = [drawn[number % NUM_DRAWN] for number in range(first, min(first + TOGETHER, num_images))]
        block = torch.cat([features() for _ in images])

        def match(
            images: list[PackedCandidates] = images, block: torch.Tensor = block
        ) -> list[tuple[PackedCandidates, Ranking]]:
            classified = classify(block, Gallery(prototypes))
            answers = []
            for number, old in enumerate(images):
                rows = slice(number * NUM_CANDIDATES, (number + 1) * NUM_CANDIDATES)
                candidates = replace(old, features=block[rows])
                answers.append((candidates, rank(candidates, classified.take(rows), min_score=0.3)))
            return answers

        seconds, answers = seconds_of(match)
        matching.append(seconds / len(images))
        candidates, ranking = answers[0]
        seconds, found = seconds_of(lambda c=candidates, r=ranking: crop_instances(c, r))
        cutting.append(seconds / max(1, len(found)))
        instances += len(found)
    detail = f"min / median / max {spread(matching, 1e-3)} ms; {instances / len(cutting):.0f} instances an image"
    return [
        at_most("matching, 200 candidates × 20 classes, C = 1024, an image", np.mean(matching) * 1e3, 2, "ms", detail),
        Figure("cutting one instance out at 768 × 1024", float(np.median(cutting)) * 1e3, "ms", detail=spread(cutting, 1e-3)),
    ]


class _Plain(Candidates):
    """Candidates whose masks are made of their logits anew for whatever is asked of them."""

    @property
    def filled(self) -> Tensor:
        return self.masks.flatten(1).any(1)

    def boxes_of(self, rows: Tensor) -> Tensor:
        return grid_boxes(self.logits[rows] > 0)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Within it each mask is resized by itself, whatever the size of its image is."""
    with mock.patch.object(full_size, "fits", return_value=False):
        yield


def measure_published(num_images: int = 8) -> list[Figure]:
    """Match so many images as the preset `paper` does, in the library's way and in the straightforward one by turns.

    Raises:
        RuntimeError: they give different rows, or scores further apart than rounding moves them.
    """
    rng, classes = np.random.default_rng(1), Classes()
    gallery = Gallery(classes.prototypes)
    ranked: dict[str, list[tuple[float, float]]] = {"packed": [], "logits": []}
    cutting: list[float] = []
    furthest, kept = 0.0, 0
    for _ in range(num_images):
        drawn = classes.candidates(rng, NUM_PUBLISHED)
        plain = _Plain(drawn.logits, drawn.predicted_iou, drawn.features, IMAGE_HW)
        packed = pack(drawn)
        for kind, given, straightforward in (("packed", packed, packed), ("logits", drawn, plain)):
            seconds, ranking = seconds_of(lambda g=given: rank(g, classify(g.features, gallery), as_published=True))
            with one_by_one():
                other, expected = seconds_of(
                    lambda g=straightforward: rank(g, classify(g.features, gallery), as_published=True)
                )
            apart = float((ranking.scores - expected.scores).abs().max()) if torch.equal(ranking.rows, expected.rows) else 1.0
            if apart > 1e-6:
                raise RuntimeError(f"Matched from {kind}, rankings differ by {apart} instead of by rounding alone.")
            furthest, kept = max(furthest, apart), kept + len(ranking)
            ranked[kind].append((seconds, other))
        cutting.append(seconds_of(lambda g=packed, r=ranking: crop_instances(g, r))[0])
    figures = []
    for kind, pairs in ranked.items():
        ours, others = (list(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(other / own for own, other in pairs)
        name = f"matching as published, {NUM_PUBLISHED} candidates × {NUM_CLASSES} classes, {kind}, an image"
        detail = (
            f"min / median / max {spread(ours, 1e-3)} ms against {spread(others, 1e-3)} ms one by one, {ratio:.1f} ×; "
            f"{kept / (2 * num_images):.0f} masks an image compared, scores at most {furthest:.0e} apart"
        )
        figures.append(at_most(name, statistics.median(ours) * 1e3, 50, "ms", detail))
        figures.append(Figure(f"{name}: times as fast as one by one", ratio, "×"))
    name = "cutting out the 100 best of these at 768 × 1024, packed"
    return [*figures, Figure(name, statistics.median(cutting) * 1e3, "ms", detail=f"{spread(cutting, 1e-3)} ms")]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Time matching.")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--published", type=int, default=8, help="images matched as published")
    options = parser.parse_args()
    figures = [*measure(options.images), *measure_published(options.published)]
    print(f"{as_table(figures)}\n\n{details(figures)}")


if __name__ == "__main__":
    main()
