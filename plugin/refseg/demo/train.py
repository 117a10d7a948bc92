"""`python -m refseg.demo.train segmenter|encoder`: make the demo preset's weights again, from nothing but drawn scenes."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from .pool import load_pool

WEIGHTS = Path(__file__).parent / "weights"
STEPS = {"segmenter": 3000, "encoder": 1560}
NUM_PAIRS = 2200


def main(argv: list[str] | None = None) -> None:
    """Draw the pool, train to the given step, write the weights; a stopped run goes on from its last save."""
    parser = argparse.ArgumentParser(prog="python -m refseg.demo.train", description=main.__doc__)
    parser.add_argument("model", choices=sorted(STEPS), help="what to train")
    parser.add_argument("--work", type=Path, default=Path("demo-training"), help="folder for scenes and saved states")
    parser.add_argument("--steps", type=int, help="steps in all (default: those of the weights in the repository)")
    parser.add_argument("--pairs", type=int, default=NUM_PAIRS, help="pairs of scenes in the pool")
    parser.add_argument("--threads", type=int, default=1, help="cores to use; train both models beside each other")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(options.out / f"{options.model}.log")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    torch.set_num_threads(options.threads)
    held_out = load_pool(options.work / "novel", 900, 40, novel=True)
    pool = load_pool(options.work / "pool", 1, options.pairs)
    steps = options.steps or STEPS[options.model]
    state = options.work / f"{options.model}.pt"
    if options.model == "segmenter":
        from .train_segmenter import save_segmenter, train_segmenter

        save_segmenter(train_segmenter(state, pool, held_out, steps), options.out)
    else:
        from .train_encoder import save_encoder, train_encoder

        save_encoder(train_encoder(state, pool, held_out, steps), options.out)


if __name__ == "__main__":
    main()
