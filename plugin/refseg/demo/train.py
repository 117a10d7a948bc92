"""`python -m refseg.demo.train segmenter|encoder`: train the demo preset's models on nothing but drawn scenes."""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .pool import load_pool

WEIGHTS = Path(__file__).parent / "weights"
POOLS = {
    "segmenter": {"plain": 2000, "rich": 1000, "leaves": 1200, "crowds": 1500},
    "encoder": {"plain": 2000, "rich": 1000},
}
STEPS = {"segmenter": 6000, "encoder": 4000}
RATES = {"segmenter": 5e-4, "encoder": 4e-4}
NUM_NOVEL = 40


def main(argv: list[str] | None = None) -> None:
    """Draw the pools, train until the rate has come down, write the weights; a stopped run goes on from its last save."""
    parser = argparse.ArgumentParser(prog="python -m refseg.demo.train", description=main.__doc__)
    parser.add_argument("model", choices=sorted(STEPS), help="what to train")
    parser.add_argument("--from-nothing", action="store_true", help="begin with random weights, not with those that are there")
    parser.add_argument("--work", type=Path, default=Path("demo-training"), help="folder for scenes and saved states")
    parser.add_argument("--steps", type=int, help=f"steps of this run, over which the rate comes down (default: {STEPS})")
    parser.add_argument("--rate", type=float, help=f"highest learning rate (default: {RATES})")
    parser.add_argument("--seed", type=int, default=1, help="of what the steps show; another one for another run")
    parser.add_argument("--share", type=float, default=1.0, help="size of the pools, as a share of their full size")
    parser.add_argument("--first", type=int, default=0, help="number of the pools' first scene; another gives other scenes")
    parser.add_argument("--threads", type=int, default=1, help="cores to use; train both models beside each other")
    parser.add_argument("--every", type=int, default=500, help="steps between saves and measurements")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for weights and log")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(options.out / f"{options.model}.log")]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
    torch.set_num_threads(options.threads)
    held_out = load_pool(options.work, "novel", NUM_NOVEL)
    sizes = POOLS[options.model]
    pools = {name: load_pool(options.work, name, round(n * options.share), first=options.first) for name, n in sizes.items()}
    command = " ".join(sys.argv[1:] if argv is None else argv)
    logging.info("python -m refseg.demo.train %s · PyTorch %s, %s", command, torch.__version__, _processor())
    settings: dict[str, Any] = {
        "rate": options.rate or RATES[options.model],
        "seed": options.seed,
        "every": options.every,
        "save_in": options.out,
    }
    train, weights = _training(options.model)
    state = options.work / f"{options.model}-{options.seed}.pt"
    begin = None if options.from_nothing else weights
    train(state, pools, held_out, options.steps or STEPS[options.model], weights=begin, **settings)


def _training(model: str) -> tuple[Callable[..., Any], Path]:
    if model == "segmenter":
        from .training.segmenter import train_segmenter

        return train_segmenter, WEIGHTS / "sam2.safetensors"
    from .training.encoder import train_encoder

    return train_encoder, WEIGHTS / "dinov2"


def _processor() -> str:
    """The processor's name as Linux tells it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
