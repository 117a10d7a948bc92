"""What both training runs share: a state on disk to go on from, a learning rate, a clock, a running mean of the weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


def cosine_rate(peak: float, step: int, num_steps: int, warm_up: int) -> float:
    """Learning rate at a step: a linear warm-up, then half a cosine down to three hundredths of the peak."""
    return peak * min(1.0, (step + 1) / warm_up) * max(0.03, 0.5 * (1 + math.cos(math.pi * min(1.0, step / num_steps))))


class Average:
    """The running mean of a model's weights, which does better than the weights of any one step."""

    def __init__(self, model: nn.Module, keep: float = 0.995) -> None:
        self.model, self.keep = copy.deepcopy(model).eval(), keep

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step; the first steps count for more, so that the beginning is soon forgotten."""
        keep = min(self.keep, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)


class TrainingState:
    """Models and optimizer in one file, replaced whole, so that a stopped run goes on from its last save."""

    def __init__(self, path: Path, models: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self.path = path
        self.models = models
        self.optimizer = optimizer
        self.seconds = 0.0
        self._started = time.monotonic()

    def load(self) -> int:
        """Read the file where it exists; returns the step to go on from, 0 for a new run."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        for name, model in self.models.items():
            model.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seconds = float(state["seconds"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write the file, complete or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {name: model.state_dict() for name, model in self.models.items()}
        state |= {"optimizer": self.optimizer.state_dict(), "step": step, "seconds": self._elapsed()}
        torch.save(state, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)

    def clock(self) -> str:
        """Minutes spent on this run, earlier sessions included."""
        return f"{self._elapsed() / 60:.1f} min"

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._started
