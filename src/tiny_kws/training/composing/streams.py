"""Short streams to train on, composed in batches: words one after another, fluent speech, noise, rooms.

A network that listens hears more than clips: words cut by the window, what came before a word, speech that never
stops. So it is trained on streams of a few seconds and told, for every answer within them, what there is to be heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...config import SAMPLE_RATE
from ...data.prepared import PreparedData
from ...training_config import StreamRecipe
from ...words import SILENCE
from ..distributed import Ranks, Share
from .sounds import MARGIN, Sounds, add_into

NO_KEYWORD = -1
"""The target of an answer at which no keyword may be heard."""
IGNORED = -2
"""The target of an answer at which a keyword is heard in part."""


@dataclass(frozen=True)
class Streams:
    """A batch of streams and what is to be heard in them.

    `audio` is (batch, samples) in [-1, 1]. `targets` (batch, answers) holds a class, NO_KEYWORD or IGNORED for each
    answer, one at the end of every 20 ms. The clips that were set into the streams are classified as clips are: clip i
    ends with the answer `answers[i]` of stream `rows[i]` and is of class `classes[i]`. They may be a share of a batch:
    in all of it `n_clips` were set in, and a keyword is to be heard at `n_heard` answers.
    """

    audio: Tensor
    targets: Tensor
    rows: Tensor
    answers: Tensor
    classes: Tensor
    n_clips: int
    n_heard: int


class Composer(Sounds):
    """Composes streams from prepared data. `hop` is the time from answer to answer, in samples."""

    recipe: StreamRecipe

    def __init__(self, data: PreparedData, recipe: StreamRecipe, hop: int, device: torch.device) -> None:
        super().__init__(data, recipe, round(recipe.seconds * SAMPLE_RATE) // hop * hop, device)
        self.hop = hop
        self.hard: Tensor | None = None

    @property
    def n_slots(self) -> int:
        """Clips in a stream of single words."""
        return int(self.n_samples / SAMPLE_RATE - 0.1)

    def n_keywords(self, n_streams: int) -> int:
        """How many keywords to set into `n_streams` streams."""
        return round(self._n_word_streams(n_streams) * self.n_slots * self.recipe.keyword_share)

    def _n_word_streams(self, n_streams: int) -> int:
        return n_streams - round(n_streams * self.recipe.fluent_share)

    def negatives(self, n_streams: int, generator: torch.Generator, share: Share | None = None) -> Tensor:
        """Streams without keywords, (n_streams, samples): fluent speech, one other word after another, noise alone."""
        share = share or Share(n_streams)
        n_words = n_streams // 4
        words, noise = share.block(0, n_words), share.block(n_words, n_words)
        fluent = share.block(2 * n_words, n_streams - 2 * n_words)
        clips, starts = self._lay_out(torch.zeros(0, dtype=torch.long), n_words, generator)
        parts = [
            self._words(clips, starts, generator, words)[0],
            torch.zeros(len(noise), self.n_samples, device=self.device),
            self._fluent(fluent, generator),
        ]
        return self._add_noise(self._in_rooms(torch.cat(parts), generator, share), generator, share)

    def keep_hardest(
        self, audio: Tensor, scores: Tensor, share: Share | None = None, ranks: Ranks | None = None
    ) -> None:
        """Keep those of the streams `audio` (n, samples) with the highest `scores` (n,), to be mixed into batches.

        Where each of `ranks` has its `share` of the streams, all keep the same, of all of them.
        """
        share, ranks = share or Share(len(scores)), ranks or Ranks()
        scores = ranks.sum(share.spread(scores))
        kept = scores.topk(min(self.recipe.hard_negatives, len(scores))).indices
        places = share.positions(kept.cpu()).to(audio.device)
        own = places >= 0
        hard = torch.zeros(len(kept), audio.shape[1], dtype=torch.int16, device=audio.device)
        hard[own] = (audio[places[own]] * 32767).round().to(torch.int16)
        self.hard = ranks.sum(hard.view(torch.int32)).view(torch.int16)  # all but one add zeros; Gloo has no int16

    def compose(
        self, keywords: Tensor, n_streams: int, generator: torch.Generator, share: Share | None = None
    ) -> Streams:
        """`n_streams` streams that hold the clips `keywords` (n,), numbers in the composer's own bank, once each."""
        share = share or Share(n_streams)
        n_words = self._n_word_streams(n_streams)
        n_hard = 0 if self.hard is None else round((n_streams - n_words) * self.recipe.hard_negative_share)
        clips, starts = self._lay_out(keywords, n_words, generator)
        words, speeds = self._words(clips, starts, generator, share.block(0, n_words))
        audio = torch.cat([words, self._fluent(share.block(n_words, n_streams - n_words - n_hard), generator)])
        new, old = share.block(0, n_streams - n_hard), share.block(n_streams - n_hard, n_hard)
        audio = self._add_noise(self._in_rooms(audio, generator, new), generator, new)
        if self.hard is not None:
            chosen = old.of(torch.randint(len(self.hard), (n_hard,), generator=generator)).to(self.device)
            again = self.hard[chosen].float() / 32768.0 * old.of(self._gain(n_hard, generator))[:, None]
            audio = torch.cat([audio, again.clamp(-1.0, 1.0)])
        return self._what_is_heard(audio, clips, starts, speeds, share)

    def _lay_out(self, keywords: Tensor, n_streams: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which clip, -1 for none, stands in each slot of each stream, and where it starts, in samples."""
        n_slots = self.n_slots
        pitch, jitter = (self.n_samples - SAMPLE_RATE // 10) // n_slots, SAMPLE_RATE // 10
        assert len(keywords) <= n_streams * n_slots
        n_rest = n_streams * n_slots - len(keywords)
        others = self.others[self._pick(self._by_word, n_rest, generator)]
        others[torch.rand(n_rest, generator=generator) < self.recipe.empty_share] = -1
        order = torch.randperm(n_streams * n_slots, generator=generator)
        clips = torch.cat([keywords, others])[order].reshape(n_streams, n_slots)
        starts = torch.randint(-jitter, jitter + 1, clips.shape, generator=generator) + pitch * torch.arange(n_slots)
        return clips, starts

    def _words(self, clips: Tensor, starts: Tensor, generator: torch.Generator, share: Share) -> tuple[Tensor, Tensor]:
        """Streams of the clips that were laid out, (streams, samples), and the speeds at which all are played."""
        speeds = self._uniform(*self.recipe.speeds, clips.numel(), generator).reshape(clips.shape)
        audio = torch.zeros(len(share), self.n_samples + 2 * MARGIN, device=self.device)
        for slot in range(clips.shape[1]):
            sound = self._clips(share.of(clips[:, slot]), share.of(speeds[:, slot]))
            sound *= share.of(self._gain(len(clips), generator))[:, None]
            add_into(audio, sound, share.of(starts[:, slot]))
        return audio[:, MARGIN : MARGIN + self.n_samples], speeds

    def _what_is_heard(self, audio: Tensor, clips: Tensor, starts: Tensor, speeds: Tensor, share: Share) -> Streams:
        """The streams `audio` with targets of every answer; stream, answer and class of every clip that was set in."""
        ends = (torch.arange(self.n_samples // self.hop) + 1.0) * self.hop
        targets = torch.full((share.total, len(ends)), NO_KEYWORD)
        classes = torch.where(clips >= 0, self.classes[clips.clamp(min=0)], self.vocabulary.column(SILENCE))
        words = self.spans[clips.clamp(min=0)] / speeds[..., None] + starts[..., None]
        is_keyword = self.is_word[classes][..., None]
        begin, end = words[..., 0:1], words[..., 1:2]
        partly = is_keyword & (ends > begin + 0.35 * (end - begin)) & (ends < end + 0.95 * SAMPLE_RATE)
        targets[: len(clips)][partly.any(1)] = IGNORED
        first = end + self.recipe.latency_ms * SAMPLE_RATE / 1000
        latest = torch.minimum(torch.maximum(begin + SAMPLE_RATE, first + 0.07 * SAMPLE_RATE), end + 0.5 * SAMPLE_RATE)
        whole = is_keyword & (ends >= first) & (ends <= latest)
        for slot in range(clips.shape[1]):
            targets[: len(clips)] = torch.where(whole[:, slot], classes[:, slot, None], targets[: len(clips)])
        answers = ((starts + SAMPLE_RATE) / self.hop).round().long() - 1
        rows = share.positions(torch.arange(len(clips)))[:, None].expand_as(clips)
        own = rows >= 0
        return Streams(
            audio,
            targets=share.of(targets).to(self.device),
            rows=rows[own].to(self.device),
            answers=answers.clamp(0, len(ends) - 1)[own].to(self.device),
            classes=classes[own].to(self.device),
            n_clips=clips.numel(),
            n_heard=int((targets >= 0).sum()),
        )
