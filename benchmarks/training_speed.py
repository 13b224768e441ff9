"""Clips a second of the training pipeline against a plain one: `training_speed.py PREPARED [--turns N]`.

The plain one is what a first tutorial shows: a Dataset that shifts, adds noise and computes features clip by clip, a
DataLoader with two workers, float32. Both train the same network, in turns, each turn in a process of its own that
warms up first; medians over the turns are compared. Needs prepared data (`tiny-kws data prepare`).
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tiny_kws.config import CLIP_SAMPLES
from tiny_kws.data.prepared import PreparedData, open_prepared
from tiny_kws.evaluation.clips import processor_name
from tiny_kws.training.networks import DSCNN
from tiny_kws.training.plain import PlainLogMel
from tiny_kws.training.settings import TrainSettings
from tiny_kws.training.trainer import Trainer
from tiny_kws.training_config import TrainConfig

CONFIG = TrainConfig()
STEPS_A_TURN = 15
WARM_UP_STEPS = 6  # as many batches as the plain loop's workers prepare ahead, and two


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """One clip at a time."""

    def __init__(self, data: PreparedData) -> None:
        self.rows = data.rows("training")
        self.bank, self.targets = data.bank, data.targets(self.rows)
        self.noise = torch.from_numpy(data.noise).float() / 32768.0
        self.log_mel = PlainLogMel()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        audio = torch.from_numpy(self.bank[self.rows[index]].astype(np.float32)) / 32768.0
        shift = random.randint(-1600, 1600)  # noqa: S311
        audio = torch.roll(nn.functional.pad(audio, (1600, 1600)), shift)[1600:-1600]
        if random.random() < CONFIG.noise_probability:  # noqa: S311
            start = random.randrange(len(self.noise) - CLIP_SAMPLES)  # noqa: S311
            audio = audio + random.uniform(0, CONFIG.noise_volume) * self.noise[start : start + CLIP_SAMPLES]  # noqa: S311
        return self.log_mel(audio.clamp(-1, 1)[None])[0], int(self.targets[index])


def plain_steps(data: PreparedData) -> Generator[None, None, None]:
    """Training steps of the plain loop, without end."""
    model = DSCNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay)
    loader = DataLoader(PlainDataset(data), CONFIG.batch_size, shuffle=True, num_workers=2, drop_last=True)
    while True:
        for features, targets in loader:
            loss = nn.functional.cross_entropy(model(features), targets, label_smoothing=CONFIG.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def our_steps(data: PreparedData) -> Generator[None, None, None]:
    """Steps of `tiny-kws train`, without end."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(data, folder, TrainSettings(config=CONFIG, device="cpu"))
        trainer.begin()
        generator = torch.Generator().manual_seed(0)
        while True:
            order = torch.randperm(trainer.objective.n_items, generator=generator)
            for batch in order.split(CONFIG.batch_size)[:-1]:
                trainer.step(batch, CONFIG.learning_rate, generator)
                yield


CONTENDERS = {"plain Dataset and DataLoader, float32": plain_steps, "tiny-kws train": our_steps}


def seconds_a_step(name: str, prepared: Path) -> float:
    """Run one contender in this process."""
    steps = CONTENDERS[name](open_prepared(prepared))
    for _ in range(WARM_UP_STEPS):
        next(steps)
    started = time.perf_counter()
    for _ in range(STEPS_A_TURN):
        next(steps)
    taken = time.perf_counter() - started
    steps.close()
    return taken / STEPS_A_TURN


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(arguments.turns):
        for name, taken in seconds.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                taken.append(pool.submit(seconds_a_step, name, arguments.prepared).result())
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    slowest = max(medians.values())
    print("| pipeline | clips/s | times faster |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {CONFIG.batch_size / median:.0f} | {slowest / median:.1f} |")
    print(f"\n{processor_name()}, {torch.get_num_threads()} threads, medians of {arguments.turns} turns.")


if __name__ == "__main__":
    main()
