"""What a training step does: from the numbers of training clips to a loss, on clips, windows, streams or both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..data.prepared import PreparedData
from ..training_config import StreamRecipe, TrainConfig, WindowRecipe
from .augment import augment, augment_features
from .bank import Bank, fetch
from .composing.streams import NO_KEYWORD, StreamComposer
from .composing.windows import WindowComposer
from .networks import CausalCNN, Network

Features = Callable[[Tensor], Tensor]
"""Audio (batch, samples) to normalised features (batch, 1, mels, frames)."""
Teacher = Callable[[Tensor], Tensor]
"""Normalised features to logits (batch, classes), without gradients."""


class Objective(Protocol):
    """One way to train. An epoch is a pass over `n_items`, `per_step` of them at a time."""

    n_items: int
    per_step: int

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Prepare an epoch with the network that is validated; draws from `generator`."""

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Loss and accuracy, both scalars, of a step with the training clips `items` (n,); draws from `generator`."""


class ClipObjective:
    """The reference: single clips, shifted, with background noise; cross-entropy."""

    def __init__(
        self, data: PreparedData, bank: Bank, config: TrainConfig, features: Features, device: torch.device
    ) -> None:
        self.config, self.features, self.device = config, features, device
        self.bank, self.rows = bank, data.rows("training")
        self.targets = torch.from_numpy(data.targets(self.rows)).to(device)
        self.noise = torch.from_numpy(data.noise).to(device).float() / 32768.0
        self.n_items, self.per_step = len(self.rows), config.batch_size

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Nothing."""

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Objective.loss`."""
        audio = fetch(self.bank, self.rows[items.numpy()], self.device)
        targets = self.targets[items.to(self.device)]
        logits = model(self.features(augment(audio, self.noise, self.config, generator))).float()
        return _cross_entropy(logits, targets, self.config.label_smoothing), accuracy(logits, targets)


class WindowObjective:
    """Composed windows; cross-entropy.

    With a `teacher`, a function from features to logits, part of the loss is the divergence from its logits (Hinton et
    al. 2015, arXiv:1503.02531). The teacher sees the whole window; for the network that learns, bands and frames are
    masked.
    """

    def __init__(
        self,
        data: PreparedData,
        recipe: WindowRecipe,
        config: TrainConfig,
        features: Features,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe, self.config, self.features, self.teacher = recipe, config, features, teacher
        self.composer = WindowComposer(data, recipe, device)
        self.n_items = len(self.composer.keywords)
        self.per_step = self.composer.n_keywords(config.batch_size)

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Nothing."""

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Objective.loss`."""
        config = self.config
        audio, targets = self.composer.compose(self.composer.keywords[items], config.batch_size, generator)
        whole = self.features(audio)
        logits = model(augment_features(whole, self.recipe, generator)).float()
        loss = _cross_entropy(logits, targets, config.label_smoothing)
        if self.teacher is not None:
            weight, teacher_logits = config.teacher_weight, self.teacher(whole).float()
            loss = (1 - weight) * loss + weight * divergence(logits, teacher_logits, config.temperature)
        return loss, accuracy(logits, targets)


class StreamObjective:
    """Composed streams; every answer within them counts, one each `hop` samples.

    Three terms: cross-entropy at the end of each clip; cross-entropy over the answers at which a whole keyword is in
    the window; and, over the answers without a keyword, the hardest of each stream: -log of the probability that it is
    not a keyword.
    """

    def __init__(
        self,
        data: PreparedData,
        recipe: StreamRecipe,
        config: TrainConfig,
        features: Features,
        hop: int,
        device: torch.device,
    ) -> None:
        self.recipe, self.config, self.features = recipe, config, features
        self.composer = StreamComposer(data, recipe, hop, device)
        self.others = list(data.vocabulary.other_columns)
        self.n_items = len(self.composer.keywords)
        self.per_step = self.composer.n_keywords(config.batch_size)

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Look for hard negatives: streams without keywords in which the network almost hears one."""
        assert isinstance(model, CausalCNN)
        if self.recipe.hard_negatives == 0:
            return
        found = []
        with torch.inference_mode():
            for _ in range(math.ceil(self.recipe.candidates / self.config.batch_size)):
                audio = self.composer.negatives(self.config.batch_size, generator)
                losses = self._hardest(self._no_keyword_loss(model.answer_all(self.features(audio)).float()))
                found.append((audio, losses.mean(1)))
        self.composer.keep_hardest(*map(torch.cat, zip(*found, strict=True)))

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Objective.loss`; the accuracy is that at the ends of clips."""
        assert isinstance(model, CausalCNN)
        streams = self.composer.compose(self.composer.keywords[items], self.config.batch_size, generator)
        features = augment_features(self.features(streams.audio), self.recipe, generator)
        logits = model.answer_all(features).float()
        smoothing = self.config.label_smoothing
        at_clips = logits[streams.rows, streams.answers]
        keyword = streams.targets >= 0
        loss = _cross_entropy(at_clips, streams.classes, smoothing)
        if bool(keyword.any()):  # a last batch of few keywords may hold none whole, of which there is no mean
            loss = loss + _cross_entropy(logits[keyword], streams.targets[keyword], smoothing)
        none = self._no_keyword_loss(logits)
        none = torch.where(streams.targets == NO_KEYWORD, none, torch.zeros_like(none))
        loss = loss + self.recipe.no_keyword_weight * self._hardest(none).mean()
        return loss, accuracy(at_clips, streams.classes)

    def _no_keyword_loss(self, logits: Tensor) -> Tensor:
        """Minus the log of the probability that it is not a keyword, (..., classes) to (...)."""
        return -torch.logsumexp(logits.log_softmax(-1)[..., self.others], -1)

    def _hardest(self, losses: Tensor) -> Tensor:
        """The largest of the losses (streams, answers) of each stream."""
        return losses.topk(math.ceil(self.recipe.hard_share * losses.shape[1]), 1).values


class MixedObjective:
    """Windows and half as many streams in each step, each with its own loss.

    Streams teach when a word is complete and what is not a keyword; windows preserve what is known about words.
    """

    def __init__(
        self,
        data: PreparedData,
        windows: WindowRecipe,
        streams: StreamRecipe,
        config: TrainConfig,
        features: Features,
        hop: int,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        self.windows = WindowObjective(data, windows, config, features, device, teacher)
        of_streams = replace(config, batch_size=math.ceil(config.batch_size / 2), label_smoothing=0.0)
        self.streams = StreamObjective(data, streams, of_streams, features, hop, device)
        self.n_items = self.windows.n_items
        self.per_step = self.windows.per_step + self.streams.per_step

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """As for streams."""
        self.streams.begin_epoch(model, generator)

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Objective.loss`; the accuracy is that of windows."""
        n_windows = math.ceil(len(items) * self.windows.per_step / self.per_step)
        loss, accurate = self.windows.loss(model, items[:n_windows], generator)
        return loss + self.streams.loss(model, items[n_windows:], generator)[0], accurate


def _cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of `logits` (n, classes) from the teacher's, both softened, on average.

    It is multiplied by the square of the temperature, so that its gradient is as large as that of a cross-entropy.
    """
    own, teachers = (torch.log_softmax(values / temperature, -1) for values in (logits, teacher_logits))
    return nn.functional.kl_div(own, teachers, reduction="sum", log_target=True) * (temperature**2 / len(logits))


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """The share of `logits` (n, classes) that are right."""
    return (logits.argmax(1) == targets).float().mean()
