"""Short streams to train on, composed in batches: words one after another, fluent speech, noise, rooms.

A network that listens hears more than clips: words cut by the window, sound before a word, speech that never stops. So
it is trained on streams of a few seconds, with a target for every answer within them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import SAMPLE_RATE
from ...data.prepared import PreparedData
from ...training_config import StreamRecipe
from ...words import SILENCE
from .acoustics import add_into
from .composer import Composer

NO_KEYWORD = -1
"""The target of an answer at which no keyword may be heard."""
IGNORED = -2
"""The target of an answer at which a keyword is heard in part."""


@dataclass(frozen=True)
class Streams:
    """A batch of streams and their targets.

    `audio` is (batch, samples) in [-1, 1]. `targets` (batch, answers) holds a class, NO_KEYWORD or IGNORED for each
    answer, one at the end of every hop. The clips that were set into the streams are classified as clips are: clip i
    ends with the answer `answers[i]` of stream `rows[i]` and is of class `classes[i]`.
    """

    audio: Tensor
    targets: Tensor
    rows: Tensor
    answers: Tensor
    classes: Tensor


class StreamComposer(Composer):
    """Composes streams from prepared data. `hop` is the time from answer to answer, in samples.

    Streams are longer in proportion where the window is longer than a second.
    """

    recipe: StreamRecipe

    def __init__(self, data: PreparedData, recipe: StreamRecipe, hop: int, device: torch.device) -> None:
        n_samples = round(recipe.seconds * max(SAMPLE_RATE, data.window))
        super().__init__(data, recipe, n_samples // hop * hop, device)
        self.hop = hop
        self.hard_negatives: Tensor | None = None

    @property
    def n_slots(self) -> int:
        """Clips in a stream of single words."""
        return int(self.n_samples / self.window - 0.1)

    def n_keywords(self, n_streams: int) -> int:
        """How many keywords to set into `n_streams` streams."""
        return round(self._n_word_streams(n_streams) * self.n_slots * self.recipe.keyword_share)

    def _n_word_streams(self, n_streams: int) -> int:
        return n_streams - round(n_streams * self.recipe.fluent_share)

    def negatives(self, n_streams: int, generator: torch.Generator) -> Tensor:
        """Streams without keywords, (n_streams, samples): fluent speech, one other word after another, noise alone."""
        n_words = n_streams // 4
        clips, starts = self._lay_out(torch.zeros(0, dtype=torch.long), n_words, generator)
        parts = [
            self._words(clips, starts, generator)[0],
            torch.zeros(n_words, self.n_samples, device=self.device),
            self._fluent_speech(n_streams - 2 * n_words, generator),
        ]
        return self._add_noise(self._in_rooms(torch.cat(parts), generator), generator)

    def keep_hardest(self, audio: Tensor, scores: Tensor) -> None:
        """Keep the streams of `audio` (n, samples) with the highest `scores` (n,), to be mixed into batches."""
        kept = scores.topk(min(self.recipe.hard_negatives, len(scores))).indices
        self.hard_negatives = (audio[kept] * 32767).round().to(torch.int16)

    def compose(self, keywords: Tensor, n_streams: int, generator: torch.Generator) -> Streams:
        """`n_streams` streams that hold the clips `keywords` (n,), numbers in the composer's own bank, once each."""
        n_words = self._n_word_streams(n_streams)
        n_hard = 0
        if self.hard_negatives is not None:
            n_hard = round((n_streams - n_words) * self.recipe.hard_negative_share)
        clips, starts = self._lay_out(keywords, n_words, generator)
        words, speeds = self._words(clips, starts, generator)
        audio = torch.cat([words, self._fluent_speech(n_streams - n_words - n_hard, generator)])
        audio = self._add_noise(self._in_rooms(audio, generator), generator)
        if self.hard_negatives is not None:
            audio = torch.cat([audio, self._draw_hard_negatives(self.hard_negatives, n_hard, generator)])
        return self._with_targets(audio, clips, starts, speeds)

    def _draw_hard_negatives(self, kept: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Some of the streams that were kept, each at a drawn level, (count, samples)."""
        chosen = torch.randint(len(kept), (count,), generator=generator).to(self.device)
        again = kept[chosen].float() / 32768.0 * self._draw_gains(count, generator)[:, None]
        return again.clamp(-1.0, 1.0)

    def _lay_out(self, keywords: Tensor, n_streams: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The clip in each slot of each stream, -1 for none, and where it starts, in samples."""
        n_slots = self.n_slots
        pitch, jitter = (self.n_samples - SAMPLE_RATE // 10) // n_slots, SAMPLE_RATE // 10
        assert len(keywords) <= n_streams * n_slots
        n_rest = n_streams * n_slots - len(keywords)
        others = self.others[self._draw_weighted(self._by_word, n_rest, generator)]
        others[torch.rand(n_rest, generator=generator) < self.recipe.empty_share] = -1
        order = torch.randperm(n_streams * n_slots, generator=generator)
        clips = torch.cat([keywords, others])[order].reshape(n_streams, n_slots)
        starts = torch.randint(-jitter, jitter + 1, clips.shape, generator=generator) + pitch * torch.arange(n_slots)
        return clips, starts

    def _words(self, clips: Tensor, starts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Streams of the clips that were laid out, (streams, samples), and the speeds at which all are played."""
        speeds = self._draw(*self.recipe.speeds, clips.numel(), generator).reshape(clips.shape)
        audio = torch.zeros(len(clips), self.n_samples + 2 * self.margin, device=self.device)
        for slot in range(clips.shape[1]):
            sound = self._clips_at_speeds(clips[:, slot], speeds[:, slot])
            sound *= self._draw_gains(len(clips), generator)[:, None]
            add_into(audio, sound, starts[:, slot] + self.margin)
        return audio[:, self.margin : self.margin + self.n_samples], speeds

    def _with_targets(self, audio: Tensor, clips: Tensor, starts: Tensor, speeds: Tensor) -> Streams:
        """The streams `audio` with a target for each answer; stream, answer and class of each clip set into them."""
        classes = torch.where(clips >= 0, self.classes[clips.clamp(min=0)], self.vocabulary.column(SILENCE))
        spans = self.spans[clips.clamp(min=0)] / speeds[..., None] + starts[..., None]
        targets = torch.full((len(audio), self.n_samples // self.hop), NO_KEYWORD)
        targets[: len(clips)] = self._targets(classes, spans)
        answers = ((starts + self.window) / self.hop).round().long() - 1
        rows = torch.arange(len(clips))[:, None].expand_as(clips)
        return Streams(
            audio,
            targets=targets.to(self.device),
            rows=rows.flatten().to(self.device),
            answers=answers.clamp(0, targets.shape[1] - 1).flatten().to(self.device),
            classes=classes.flatten().to(self.device),
        )

    def _targets(self, classes: Tensor, spans: Tensor) -> Tensor:
        """The targets (streams, answers) for words of `classes` (streams, slots) at `spans` (streams, slots, 2)."""
        ends = (torch.arange(self.n_samples // self.hop) + 1.0) * self.hop
        is_keyword = self.is_word[classes][..., None]
        begin, end = spans[..., 0:1], spans[..., 1:2]
        partly = is_keyword & (ends > begin + 0.35 * (end - begin)) & (ends < end + 0.95 * self.window)
        targets = torch.where(partly.any(1), IGNORED, NO_KEYWORD)
        first = end + self.recipe.latency_ms * SAMPLE_RATE / 1000
        latest = torch.minimum(torch.maximum(begin + self.window, first + 0.07 * SAMPLE_RATE), end + 0.5 * SAMPLE_RATE)
        whole = is_keyword & (ends >= first) & (ends <= latest)
        for slot in range(classes.shape[1]):
            targets = torch.where(whole[:, slot], classes[:, slot, None], targets)
        return targets
