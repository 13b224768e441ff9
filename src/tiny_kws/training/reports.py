"""What a training reports while it runs: after some steps, and after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """The progress of a training: means over the epoch so far, and the seconds left of the whole training."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    seconds_left: float


@dataclass(frozen=True)
class EpochReport:
    """One line of the history."""

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    learning_rate: float
    clips_per_second: float


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called with reports while a training runs; by default they do nothing."""

    on_step: Callable[[StepReport], None] = lambda report: None
    on_epoch: Callable[[EpochReport], None] = lambda report: None


class RunningMeans:
    """Loss and accuracy over the clips of an epoch so far, and the time it has taken."""

    def __init__(self, device: torch.device) -> None:
        self._total, self._n_clips = torch.zeros(2, device=device), 0
        self._started = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """What is needed to resume."""
        return {"total": self._total.cpu(), "n_clips": self._n_clips, "seconds": self.seconds()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state`."""
        self._total.copy_(state["total"])
        self._n_clips = int(state["n_clips"])
        self._started = time.perf_counter() - float(state["seconds"])

    def add(self, values: Tensor, n_clips: int) -> None:
        self._total += values * n_clips
        self._n_clips += n_clips

    def now(self) -> list[float]:
        means: list[float] = (self._total / self._n_clips).tolist()
        return means

    def seconds(self) -> float:
        return time.perf_counter() - self._started
