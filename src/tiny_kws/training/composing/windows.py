"""Windows of one second to train on, composed in batches: a keyword, another word, fluent speech, or no word at all."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import CLIP_SAMPLES, SAMPLE_RATE
from ...data.prepared import PreparedData
from ...training_config import WindowRecipe
from ...words import SILENCE, UNKNOWN
from ..distributed import Share
from .sounds import Sounds, resampled


class WindowComposer(Sounds):
    """Composes windows from prepared data."""

    recipe: WindowRecipe

    def __init__(self, data: PreparedData, recipe: WindowRecipe, device: torch.device) -> None:
        super().__init__(data, recipe, CLIP_SAMPLES, device)

    def n_keywords(self, n_windows: int) -> int:
        """How many of `n_windows` hold a keyword."""
        return max(1, round(n_windows * self.recipe.keyword_share))

    def compose(
        self, keywords: Tensor, n_windows: int, generator: torch.Generator, share: Share | None = None
    ) -> tuple[Tensor, Tensor]:
        """`n_windows` windows, (windows, samples) in [-1, 1], and their classes, (windows,).

        They hold the clips `keywords` (n,), numbers in the composer's own bank, once each. With a `share`, only its
        rows are given.
        """
        share = share or Share(n_windows)
        n_others, n_fluent = round(n_windows * self.recipe.other_share), round(n_windows * self.recipe.fluent_share)
        clips = torch.cat([keywords, self.others[self._pick(self._by_word, n_others, generator)]])
        n_silent = n_windows - len(clips) - n_fluent
        silent = share.block(n_windows - n_silent, n_silent)
        audio = torch.cat([
            self._single(clips, generator, share.block(0, len(clips))),
            self._fluent(share.block(len(clips), n_fluent), generator),
            torch.zeros(len(silent), self.n_samples, device=self.device),
        ])  # fmt: skip
        without_clip = torch.tensor(
            [self.vocabulary.column(UNKNOWN)] * n_fluent + [self.vocabulary.column(SILENCE)] * n_silent
        )
        classes = share.of(torch.cat([self.classes[clips], without_clip])).to(self.device)
        return self._add_noise(self._in_rooms(audio, generator, share), generator, share), classes

    def _single(self, clips: Tensor, generator: torch.Generator, share: Share) -> Tensor:
        """One clip in each window, (windows, samples), off its middle by up to `shift_ms`, but its word whole."""
        shift_ms = self.recipe.shift_ms
        speeds = self._uniform(*self.recipe.speeds, len(clips), generator)
        shift = self._uniform(-shift_ms, shift_ms, len(clips), generator) * (SAMPLE_RATE / 1000)
        starts = ((self.n_samples - CLIP_SAMPLES / speeds) / 2 + shift).round()  # else even unchanged speeds blur
        begin, end = (self.spans[clips] / speeds[:, None]).T
        starts = torch.where(
            end - begin < self.n_samples, starts.clamp(-begin.floor(), self.n_samples - end.ceil()), starts
        )
        gain = share.of(self._gain(len(clips), generator))
        sound = self._recorded(share.of(clips)).mul_(gain[:, None])
        return resampled(sound, share.of(starts), share.of(speeds), self.n_samples)
