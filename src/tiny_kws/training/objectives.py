"""What a step of training does: from numbers of training clips to a loss. Single clips, or composed streams."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..data.prepared import PreparedData
from ..training_config import StreamRecipe, TrainConfig, WindowRecipe
from .augment import augment, vary
from .bank import Bank, fetch
from .composing.streams import NO_KEYWORD, Composer
from .composing.windows import WindowComposer
from .distributed import Ranks
from .networks import CausalCNN, Network

Features = Callable[[Tensor], Tensor]
"""Audio (batch, samples) to normalised features (batch, 1, mels, frames)."""
Teacher = Callable[[Tensor], Tensor]
"""Normalised features to logits (batch, classes), without gradients."""


class Recipe(Protocol):
    """One way to train. An epoch is a pass over `n_items`, `per_step` of them at a time.

    Where several processes train together, each is asked for the same steps, draws the same from its generator, and
    works on its share of the rows.
    """

    n_items: int
    per_step: int

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """What is to be done before each epoch, given the network that is kept; draws from `generator`."""

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Loss and accuracy, both scalars, of a step with the training clips `items` (n,); draws from `generator`.

        Those of several processes add up to those of the step.
        """


class ClipRecipe:
    """The reference: single clips, shifted, with background noise; cross-entropy."""

    def __init__(
        self,
        data: PreparedData,
        bank: Bank,
        config: TrainConfig,
        features: Features,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.features, self.device, self.ranks = config, features, device, ranks or Ranks()
        self.bank, self.rows = bank, data.rows("training")
        self.targets = torch.from_numpy(data.targets(self.rows)).to(device)
        self.noise = torch.from_numpy(data.noise).to(device).float() / 32768.0
        self.n_items, self.per_step = len(self.rows), config.batch_size

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Nothing."""

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Recipe.loss`."""
        share = self.ranks.share(len(items))
        items = share.of(items)
        audio = fetch(self.bank, self.rows[items.numpy()], self.device)
        targets = self.targets[items.to(self.device)]
        logits = model(self.features(augment(audio, self.noise, self.config, generator, share))).float()
        return mean_loss(logits, targets, share.total, self.config.label_smoothing), accuracy(
            logits, targets, share.total
        )


class WindowTraining:
    """Composed windows of one second; cross-entropy.

    With a `teacher`, features to logits, a part of the loss is the divergence from what it says (Hinton et al. 2015,
    arXiv:1503.02531). It hears the whole window, of which bands and frames are masked for the network that learns.
    """

    def __init__(
        self,
        data: PreparedData,
        recipe: WindowRecipe,
        config: TrainConfig,
        features: Features,
        device: torch.device,
        ranks: Ranks | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe, self.config, self.features, self.ranks = recipe, config, features, ranks or Ranks()
        self.teacher = teacher
        self.composer = WindowComposer(data, recipe, device)
        self.n_items = len(self.composer.keywords)
        self.per_step = self.composer.n_keywords(config.batch_size)

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Nothing."""

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Recipe.loss`."""
        share = self.ranks.share(self.config.batch_size)
        audio, targets = self.composer.compose(self.composer.keywords[items], share.total, generator, share)
        whole = self.features(audio)
        logits = model(vary(whole, self.recipe, generator, share)).float()
        loss = mean_loss(logits, targets, share.total, self.config.label_smoothing)
        if self.teacher is not None:
            weight = self.config.teacher_weight
            said = self.teacher(whole).float()
            loss = (1 - weight) * loss + weight * divergence(logits, said, share.total, self.config.temperature)
        return loss, accuracy(logits, targets, share.total)


class StreamTraining:
    """Composed streams; every answer within them counts.

    Three terms: cross-entropy at the end of each clip; cross-entropy over the answers at which a keyword is whole in
    the window; and, over the answers at which there is none, the hardest of each stream: -log of the probability that
    it is no keyword.
    """

    def __init__(
        self,
        data: PreparedData,
        recipe: StreamRecipe,
        config: TrainConfig,
        features: Features,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        self.recipe, self.config, self.features, self.ranks = recipe, config, features, ranks or Ranks()
        self.composer = Composer(data, recipe, CausalCNN.HOP, device)
        self.others = list(data.vocabulary.other_columns)
        self.n_items = len(self.composer.keywords)
        self.per_step = self.composer.n_keywords(config.batch_size)

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """Look for hard negatives: streams without keywords in which the network as it is comes near to hear one."""
        assert isinstance(model, CausalCNN)
        if self.recipe.hard_negatives == 0:
            return
        found = []
        size = self.config.batch_size
        share = self.ranks.share(math.ceil(self.recipe.candidates / size) * size)
        with torch.inference_mode():
            for start in range(0, share.total, size):
                audio = self.composer.negatives(size, generator, share.block(start, size))
                heard = self._hardest(self._no_keyword_loss(model.answer_all(self.features(audio)).float()))
                found.append((audio, heard.mean(1)))
        audio, scores = map(torch.cat, zip(*found, strict=True))
        self.composer.keep_hardest(audio, scores, share, self.ranks)

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Recipe.loss`; the accuracy is that at the ends of clips."""
        assert isinstance(model, CausalCNN)
        keywords = self.composer.keywords[items]
        share = self.ranks.share(self.config.batch_size)
        streams = self.composer.compose(keywords, share.total, generator, share)
        features = vary(self.features(streams.audio), self.recipe, generator, share)
        logits = model.answer_all(features).float()
        smoothing = self.config.label_smoothing
        at_clips = logits[streams.rows, streams.answers]
        keyword = streams.targets >= 0
        loss = mean_loss(at_clips, streams.classes, streams.n_clips, smoothing)
        if streams.n_heard:  # a last batch of few keywords may hold none whole, of which there is no mean
            loss = loss + mean_loss(logits[keyword], streams.targets[keyword], streams.n_heard, smoothing)
        none = self._no_keyword_loss(logits)
        none = torch.where(streams.targets == NO_KEYWORD, none, torch.zeros_like(none))
        loss = loss + self.recipe.no_keyword_weight * self._hardest(none).mean() * (len(none) / share.total)
        return loss, accuracy(at_clips, streams.classes, streams.n_clips)

    def _no_keyword_loss(self, logits: Tensor) -> Tensor:
        """Minus the log of the probability that it is no keyword, (..., classes) to (...)."""
        return -torch.logsumexp(logits.log_softmax(-1)[..., self.others], -1)

    def _hardest(self, losses: Tensor) -> Tensor:
        """The largest of the losses (streams, answers) of each stream."""
        return losses.topk(math.ceil(self.recipe.hard_share * losses.shape[1]), 1).values


class MixedTraining:
    """Windows and half as many streams in each step, each with its own loss.

    Streams teach where a word is whole and what is none; windows keep what is known of words.
    """

    def __init__(
        self,
        data: PreparedData,
        windows: WindowRecipe,
        streams: StreamRecipe,
        config: TrainConfig,
        features: Features,
        device: torch.device,
        ranks: Ranks | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.windows = WindowTraining(data, windows, config, features, device, ranks, teacher)
        of_streams = replace(config, batch_size=math.ceil(config.batch_size / 2), label_smoothing=0.0)
        self.streams = StreamTraining(data, streams, of_streams, features, device, ranks)
        self.n_items = self.windows.n_items
        self.per_step = self.windows.per_step + self.streams.per_step

    def begin_epoch(self, model: Network, generator: torch.Generator) -> None:
        """As of streams."""
        self.streams.begin_epoch(model, generator)

    def loss(self, model: Network, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Recipe.loss`; the accuracy is that of windows."""
        n_windows = math.ceil(len(items) * self.windows.per_step / self.per_step)
        loss, accurate = self.windows.loss(model, items[:n_windows], generator)
        return loss + self.streams.loss(model, items[n_windows:], generator)[0], accurate


def mean_loss(logits: Tensor, targets: Tensor, total: int, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of `logits` (n, classes) summed and divided by `total`; the mean, where these are all there are."""
    kind = "mean" if len(targets) else "sum"  # the mean of none is not a number
    loss = nn.functional.cross_entropy(logits, targets, reduction=kind, label_smoothing=label_smoothing)
    return loss * (len(targets) / total)


def divergence(logits: Tensor, said: Tensor, total: int, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of `logits` from the teacher's, both softened, summed and divided by `total`.

    Times the square of the temperature, so that its gradient is of one size with that of a cross-entropy.
    """
    own, other = (torch.log_softmax(values / temperature, -1) for values in (logits, said))
    return nn.functional.kl_div(own, other, reduction="sum", log_target=True) * (temperature**2 / total)


def accuracy(logits: Tensor, targets: Tensor, total: int) -> Tensor:
    """How many of `logits` (n, classes) are right, divided by `total`."""
    return (logits.argmax(1) == targets).float().sum() / total
