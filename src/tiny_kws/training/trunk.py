"""The trunk for own words: trained on phones and words in running speech, its vectors separate words it never heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import SAMPLE_RATE, FeatureConfig
from ..training_config import TRUNK, CausalCNNConfig, TrunkRecipe
from .augment import augment_features
from .checkpoint import load_weights, read_torch, save_torch
from .devices import keep_freed_memory, wants_bfloat16
from .features import LogMel, feature_stats, normalize
from .networks import CausalCNN, count_macs, count_parameters
from .optimization import scheduled_learning_rate
from .running_speech import PHONES, Batch, SpeechComposer

FEATURES = FeatureConfig(centered=False)
LAST = "trunk.last.pt"
"""The state after the last epoch, in a training's folder."""
WORDS_AT_ONCE = 512
"""The most words of a batch that are classified."""


class TrunkTask(nn.Module):
    """The network, and two classifiers that are dropped after training: one of phones, one of words."""

    def __init__(self, config: CausalCNNConfig, recipe: TrunkRecipe, n_words: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = CausalCNN(config)
        size = config.n_classes
        self.phones = nn.Linear(size, len(PHONES))
        self.words = nn.Sequential(
            nn.Linear(size * recipe.word_bins, recipe.word_size), nn.ReLU(), nn.Linear(recipe.word_size, n_words)
        )

    def vectors(self, features: Tensor) -> Tensor:
        """One vector for each answer, before averaging: (batch, answers, size)."""
        return self.network.fc(self.network.trunk(features).transpose(1, 2))  # type: ignore[no-any-return]

    def losses(self, features: Tensor, batch: Batch, delays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The cross-entropy of phones and of words, and the share of phones that are right."""
        vectors = self.vectors(features)
        step = self.network.frames_per_answer
        ends = step * (1 + torch.arange(vectors.shape[1])) - step // 2 - self.recipe.delay_frames
        told = self.phones(vectors[:, ends >= 0]).float()
        phones = batch.phones[:, ends[ends >= 0]]
        phone_loss = nn.functional.cross_entropy(told.flatten(0, 1), phones.flatten())
        right = (told.argmax(-1) == phones).float().mean()
        return phone_loss, self._word_loss(vectors, batch, delays), right

    def _word_loss(self, vectors: Tensor, batch: Batch, delays: Tensor) -> Tensor:
        per_bin, n_bins = self.network.config.pooled_frames, self.recipe.word_bins
        length = per_bin * n_bins
        stops = (batch.stops + delays) // self.network.frames_per_answer
        kept = stops <= vectors.shape[1]
        padded = nn.functional.pad(vectors, (0, 0, length, 0))
        index = stops[kept][:, None] + torch.arange(length)
        windows = padded[batch.rows[kept][:, None], index]
        bins = windows.reshape(len(windows), n_bins, per_bin, -1).mean(2)
        return nn.functional.cross_entropy(self.words(bins.flatten(1)).float(), batch.words[kept])


class TrunkTrainer:
    """Trains a trunk, saves its state in `folder` after each epoch, and resumes from there exactly."""

    def __init__(
        self, composer: SpeechComposer, recipe: TrunkRecipe, folder: Path, config: CausalCNNConfig = TRUNK
    ) -> None:
        keep_freed_memory()
        torch.manual_seed(recipe.seed)
        self.composer, self.recipe, self.path = composer, recipe, folder / LAST
        folder.mkdir(parents=True, exist_ok=True)
        self.task = TrunkTask(config, recipe, len(composer.number))
        matrices = [p for p in self.task.parameters() if p.dim() > 1]
        vectors = [p for p in self.task.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            fused=True,
        )
        self.log_mel = LogMel(FEATURES, torch.float32)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.autocast = wants_bfloat16("auto", torch.device("cpu"))
        if self.path.exists():
            self._resume()
        else:
            rng = np.random.default_rng(0)
            self.stats = feature_stats(self.log_mel, [composer.compose(rng).audio for _ in range(20)])

    def train(self, report: Callable[[dict[str, float]], None]) -> None:
        """Train the epochs that are left; `report` is called with each one's figures."""
        while self.epoch < self.recipe.epochs:
            began = time.monotonic()
            figures = self._train_epoch()
            self.epoch += 1
            figures |= {"epoch": self.epoch, "seconds": round(time.monotonic() - began, 1)}
            self.history.append(figures)
            self._save()
            report(figures)

    def _train_epoch(self) -> dict[str, float]:
        steps, sums = self.composer.steps(), np.zeros(3)
        generator = torch.Generator().manual_seed(1_000_003 * self.recipe.seed + self.epoch)
        self.task.train()

        def compose(step: int) -> Batch:
            return self.composer.compose(np.random.default_rng((self.recipe.seed, self.epoch, step)))

        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(compose, 0)
            for step in range(steps):
                batch = coming.result()
                coming = ahead.submit(compose, step + 1)
                sums += self._step(batch, scheduled_learning_rate(self.recipe, self.epoch, step, steps), generator)
        phone_loss, word_loss, right = (sums / steps).round(4).tolist()
        return {"phone_loss": phone_loss, "word_loss": word_loss, "phones_right": right}

    def _step(self, batch: Batch, learning_rate: float, generator: torch.Generator) -> list[float]:
        batch = _fewer_words(batch, generator)
        with torch.no_grad():
            features = augment_features(normalize(self.log_mel(batch.audio), self.stats), self.recipe, generator)
        low, high = self.recipe.word_delay
        delays = torch.randint(low, high + 1, (len(batch.words),), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            phone_loss, word_loss, right = self.task.losses(features, batch, delays)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        (phone_loss + self.recipe.word_weight * word_loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.task.parameters(), self.recipe.max_gradient_norm)
        self.optimizer.step()
        return [phone_loss.item(), word_loss.item(), right.item()]

    def _save(self) -> None:
        state = {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "stats": self.stats,
            "recipe": asdict(self.recipe),
            "config": asdict(self.task.network.config),
            "words": list(self.composer.number),
        }
        save_torch(self.path, state)

    def _resume(self) -> None:
        state = read_torch(self.path)
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.history, self.stats = state["epoch"], state["history"], state["stats"]


def _fewer_words(batch: Batch, generator: torch.Generator) -> Batch:
    if len(batch.words) <= WORDS_AT_ONCE:
        return batch
    kept = torch.randperm(len(batch.words), generator=generator)[:WORDS_AT_ONCE]
    return Batch(batch.audio, batch.phones, batch.rows[kept], batch.stops[kept], batch.words[kept])


def save_trunk(last: Path, out: Path) -> None:
    """Save the trunk from a training's last state: the network, its features' statistics, how it was trained."""
    state = read_torch(last)
    network = {
        name.removeprefix("network."): value for name, value in state["task"].items() if name.startswith("network.")
    }
    kept = {name: state[name] for name in ("config", "stats", "recipe", "history")}
    save_torch(out, {"network": network, "n_words": len(state["words"]), **kept})


def read_trunk(path: Path) -> tuple[CausalCNN, dict[str, float], Callable[[Tensor], Tensor]]:
    """Load what `save_trunk` wrote: the network, the statistics of its features, and the front end."""
    state = read_torch(path)
    network = CausalCNN(CausalCNNConfig(**state["config"]))
    load_weights(network, state["network"], str(path))
    log_mel = LogMel(FEATURES)
    return network.eval(), state["stats"], lambda audio: normalize(log_mel(audio), state["stats"])


def trunk_facts(network: CausalCNN, stats: Mapping[str, float]) -> dict[str, Any]:
    """What a bank says about its trunk."""
    frames = SAMPLE_RATE // FEATURES.hop
    look_back = network.look_back_frames * FEATURES.hop + FEATURES.n_fft - FEATURES.hop
    return {
        "hop": network.config.window_frames * FEATURES.hop,
        "size": network.config.n_classes,
        "stats": dict(stats),
        "model_config": asdict(network.config),
        "feature_config": asdict(FEATURES),
        "parameters": count_parameters(network),
        "macs": count_macs(network, torch.zeros(1, 1, FEATURES.n_mels, frames)),
        "look_back": look_back,
    }
