"""How weights are updated: the optimizer, its learning rate, gradient clipping, the moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..training_config import TrainConfig, TrunkRecipe
from .checkpoint import load_weights
from .networks import Network


class Optimization:
    """Updates the weights of `model` and, if the config asks for it, keeps their moving average.

    `optimizer` is AdamW, `average` the averaged model or None.
    """

    def __init__(self, model: Network, config: TrainConfig, device: torch.device) -> None:
        self.model, self._max_norm = model, config.max_gradient_norm
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.average: AveragedModel | None = None
        if config.average_decay:
            # Young averages forget faster: then the first, bad weights do not linger.
            decay = _growing_average(config.average_decay)
            self.average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)

    @property
    def validated(self) -> Network:
        """The network that is validated and saved: the one with averaged weights, if there are any."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """Take one step down the gradient of `loss`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._max_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._max_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state(self) -> dict[str, Any]:
        """What is needed to resume, besides the weights that are validated."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            state |= {"trained_state": self.model.state_dict(), "n_averaged": self.average.n_averaged}
        return state

    def restore(self, last: Mapping[str, Any], where: str) -> None:
        """Resume from the `state` in a checkpoint's dict. Raises ModelError, or torch's own error, if it is damaged."""
        load_weights(self.validated, last["model_state"], where)
        if self.average is not None:
            load_weights(self.model, last["trained_state"], where)
            self.average.n_averaged.copy_(last["n_averaged"])
        self.optimizer.load_state_dict(last["optimizer"])


def scheduled_learning_rate(config: TrainConfig | TrunkRecipe, epoch: int, step: int, steps: int) -> float:
    """The learning rate of a step, one of `steps` in each epoch: it rises at first, then falls along half a cosine."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * (epoch + step / steps) / config.epochs))
    warm_up = min(1.0, (epoch * steps + step + 1) / max(1, config.warmup_steps))
    return config.learning_rate * cosine * warm_up


def _growing_average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average of the weights whose decay grows from 2/21, in the second step, to `decay`."""

    def average(averaged: Sequence[Tensor], new: Sequence[Tensor], n_averaged: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            n = int(n_averaged)
            torch._foreach_lerp_(list(averaged), list(new), 1.0 - min(decay, (n + 1) / (n + 20)))
        else:  # batch norm's count of batches
            torch._foreach_copy_(list(averaged), list(new))

    return average
