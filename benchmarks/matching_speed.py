"""Time matching alone: 1,000 images of 200 candidates, features of width 1024, 20 classes of 5 shots.

    python -m benchmarks.matching_speed

Candidates are ellipses of random size on the mask grid of the published models (256), packed as the index keeps them, with
random features that lean towards one class each. Matching is everything up to labels, scores and order; cutting the masks out
at the image's size is timed apart, because it takes as long as there are instances.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.report import Figure, as_table, at_most, seconds_of, spread
from refseg.candidates import Candidates, PackedCandidates, pack
from refseg.matching import Gallery, Ranking, classify, crop_instances, rank

GRID = 256
WIDTH = 1024
NUM_CANDIDATES = 200
NUM_CLASSES = 20
SHOTS = 5
IMAGE_HW = (768, 1024)
TOGETHER = 40
"""Images classified at once, as many as the index reads at once."""
NUM_DRAWN = 20
"""Different images; they are matched over and over, with other features each time."""


def draw_masks(rng: np.random.Generator) -> torch.Tensor:
    """(N, M, M) logits of ellipses that overlap here and there."""
    rows, columns = np.mgrid[:GRID, :GRID].astype(np.float32)
    logits = []
    for _ in range(NUM_CANDIDATES):
        radius, squeeze = rng.uniform(4, 50), rng.uniform(0.5, 2)
        y, x = rng.uniform(0, GRID, 2)
        distance = np.sqrt(((rows - y) * squeeze) ** 2 + (columns - x) ** 2)
        logits.append(5 * (1 - distance / radius).clip(-3))
    return torch.tensor(np.array(logits))


def measure(num_images: int = 1000) -> list[Figure]:
    """Match so many images."""
    rng = np.random.default_rng(1)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(NUM_CLASSES, SHOTS, WIDTH, generator=generator) + 2 * torch.randn(
        NUM_CLASSES, 1, WIDTH, generator=generator
    )
    prototypes = F.normalize(vectors.mean(1), dim=1)

    def features() -> torch.Tensor:
        owner = torch.randint(NUM_CLASSES, (NUM_CANDIDATES,), generator=generator)
        return F.normalize(prototypes[owner] + 0.04 * torch.randn(NUM_CANDIDATES, WIDTH, generator=generator), dim=1)

    drawn = [
        pack(Candidates(draw_masks(rng), torch.rand(NUM_CANDIDATES, generator=generator), features(), IMAGE_HW))
        for _ in range(NUM_DRAWN)
    ]
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


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Time matching.")
    parser.add_argument("--images", type=int, default=1000)
    print(as_table(measure(parser.parse_args().images)))


if __name__ == "__main__":
    main()
