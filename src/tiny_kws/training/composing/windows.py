"""Windows to train on, composed in batches: a keyword, another word, fluent speech, or no word at all."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import SAMPLE_RATE
from ...data.prepared import PreparedData
from ...training_config import WindowRecipe
from ...words import SILENCE, UNKNOWN
from .acoustics import resampled
from .composer import Composer


class WindowComposer(Composer):
    """Composes windows from prepared data, as long as its clips."""

    recipe: WindowRecipe

    def __init__(self, data: PreparedData, recipe: WindowRecipe, device: torch.device) -> None:
        super().__init__(data, recipe, data.window, device)

    def n_keywords(self, n_windows: int) -> int:
        """How many of `n_windows` hold a keyword."""
        return max(1, round(n_windows * self.recipe.keyword_share))

    def compose(self, keywords: Tensor, n_windows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`n_windows` windows, (windows, samples) in [-1, 1], and their classes, (windows,).

        They hold the clips `keywords` (n,), numbers in the composer's own bank, once each.
        """
        n_others, n_fluent = round(n_windows * self.recipe.other_share), round(n_windows * self.recipe.fluent_share)
        clips = torch.cat([keywords, self.others[self._draw_weighted(self._by_word, n_others, generator)]])
        n_silent = n_windows - len(clips) - n_fluent
        audio = torch.cat([
            self._single_words(clips, generator),
            self._fluent_speech(n_fluent, generator),
            torch.zeros(n_silent, self.n_samples, device=self.device),
        ])  # fmt: skip
        fluent, silent = (
            torch.full((count,), self.vocabulary.column(label))
            for label, count in ((UNKNOWN, n_fluent), (SILENCE, n_silent))
        )
        classes = torch.cat([self.classes[clips], fluent, silent]).to(self.device)
        return self._add_noise(self._in_rooms(audio, generator), generator), classes

    def _single_words(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """One clip in each window, (windows, samples), up to `shift_ms` off the middle, but with its whole word."""
        shift_ms = self.recipe.shift_ms
        speeds = self._draw(*self.recipe.speeds, len(clips), generator)
        shift = self._draw(-shift_ms, shift_ms, len(clips), generator) * (SAMPLE_RATE / 1000)
        starts = ((self.n_samples - self.window / speeds) / 2 + shift).round()  # else even unchanged speeds blur
        begin, end = (self.spans[clips] / speeds[:, None]).T
        starts = torch.where(
            end - begin < self.n_samples, starts.clamp(-begin.floor(), self.n_samples - end.ceil()), starts
        )
        sound = self._recorded(clips).mul_(self._draw_gains(len(clips), generator)[:, None])
        return resampled(sound, starts, speeds, self.n_samples)
