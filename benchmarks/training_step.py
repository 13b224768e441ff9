"""Where the time of a training step goes: `training_step.py PREPARED [--model base] [--recipe windows]`.

Prints the median milliseconds of a step's parts over many steps, and the share that is neither forward nor backward:
composing the sound, features, optimizer, moving average. Needs prepared data (`tiny-kws data prepare`).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tiny_kws.cli.training import RECIPES, Network, Recipe
from tiny_kws.data.prepared import open_prepared
from tiny_kws.evaluation.clips import processor_name
from tiny_kws.training.settings import TrainSettings
from tiny_kws.training.trainer import Trainer
from tiny_kws.training_config import CAUSAL_SIZES, CausalCNNConfig, DSCNNConfig

WARM_UP_STEPS = 3


class Clock:
    """Adds up the time spent in functions, by name; `step` ends what belongs to one step."""

    def __init__(self) -> None:
        self.now: dict[str, float] = {}
        self.steps: list[dict[str, float]] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.now[name] = self.now.get(name, 0.0) + time.perf_counter() - started

        return run

    def step(self) -> None:
        self.steps.append(self.now)
        self.now = {}

    def median_ms(self, name: str) -> float:
        return 1000 * statistics.median(step.get(name, 0.0) for step in self.steps[WARM_UP_STEPS:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--model", default="base", choices=[name.value for name in Network])
    parser.add_argument("--recipe", default="windows", choices=[name.value for name in Recipe])
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    config = replace(RECIPES[Recipe(given.recipe)], precision=given.precision, frozen_batch_norm=False)
    network = DSCNNConfig() if given.model == "ds-cnn" else CAUSAL_SIZES.get(given.model, CausalCNNConfig())
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(open_prepared(given.prepared), out, TrainSettings(network, config))
        trainer.begin()
    clock = Clock()
    for name in ("forward", "answer_all"):
        if hasattr(trainer.model, name):
            setattr(trainer.model, name, clock.timed("forward", getattr(trainer.model, name)))
    torch.Tensor.backward = clock.timed("backward", torch.Tensor.backward)  # type: ignore[method-assign]
    objective = trainer.objective
    for part in {id(part): part for part in (objective, *vars(objective).values())}.values():
        if hasattr(part, "features"):
            part.features = clock.timed("features", part.features)
        composer = getattr(part, "composer", None)
        if composer is not None:
            composer.compose = clock.timed("composing", composer.compose)
    optimizer, average = trainer.optimization.optimizer, trainer.optimization.average
    optimizer.step = clock.timed("optimizer", optimizer.step)  # type: ignore[method-assign]
    if average is not None:
        average.update_parameters = clock.timed("average", average.update_parameters)  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    step = clock.timed("step", trainer.step)
    for _ in range(WARM_UP_STEPS + given.steps):
        step(torch.randperm(objective.n_items)[: objective.per_step], 1e-3, generator)
        clock.step()
    total = clock.median_ms("step")
    print(f"{processor_name()}, {given.threads} thread(s), {given.model}, {given.recipe}, bfloat16: {trainer.bfloat16}")
    for name in ("composing", "features", "forward", "backward", "optimizer", "average", "step"):
        print(f"{name:10} {clock.median_ms(name):8.1f} ms  {100 * clock.median_ms(name) / total:5.1f} %")
    outside = 1 - (clock.median_ms("forward") + clock.median_ms("backward")) / total
    speed = 1000 * objective.per_step / total
    print(f"outside forward and backward: {100 * outside:.1f} % of a step; {speed:.0f} keywords/s")


if __name__ == "__main__":
    main()
