"""The parts of windows and streams, in batches: words at drawn speeds, fluent speech, rooms, noise.

Every draw comes from the generator passed in, on the CPU, so that a seed means the same on every device.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...config import SAMPLE_RATE
from ...data.mixing import at_speed, room_response
from ...data.prepared import EXTRA, Pcm, PreparedData, to_float, to_pcm
from ...errors import DataError
from ...training_config import SoundRecipe
from ...words import SILENCE, UNKNOWN, is_word
from ..bank import fetch, on_device
from .acoustics import (
    active_rms,
    add_into,
    clips_at_speeds,
    from_db,
    heard_in,
    resampled,
    rms_of,
    room_spectra,
)

Size = int | tuple[int, ...]
BABBLE_SAMPLES = 120 * SAMPLE_RATE
WORDS_PER_SECOND = 4  # drawn at once for fluent speech: most often enough
SPLICE_GAP = -0.01  # seconds between two parts of words that are made one
CLEAN_SPEECH_RMS = 0.08  # of fluent speech before its drawn level


class Composer:
    """Composes rows of `n_samples` samples from banks of words, noises and rooms, on `device`.

    Clips are named by their numbers in the composer's own bank of training clips in which a word was found: `keywords`
    holds those of keywords, `others` those of other words. Raises DataError if it finds no keywords or no other words.
    """

    def __init__(self, data: PreparedData, recipe: SoundRecipe, n_samples: int, device: torch.device) -> None:
        self.recipe, self.n_samples, self.device = recipe, n_samples, device
        self.window, self.vocabulary = data.window, data.vocabulary
        self.margin = 2 * data.window  # before and after a row while it is composed, so that no word needs to be cut
        rows = _rows_with_words(data)
        self._bank = on_device(data.bank, rows, device)
        self._rows = np.arange(len(rows)) if isinstance(self._bank, Tensor) else rows
        self.spans = torch.from_numpy(data.spans[rows].astype(np.int64))
        self.is_word = torch.tensor([is_word(label) for label in self.vocabulary.labels])
        """Whether each class is a word."""
        self.classes = torch.from_numpy(data.targets(rows))
        self.keywords = torch.nonzero(self.is_word[self.classes])[:, 0]
        self.others = torch.nonzero(self.classes == self.vocabulary.column(UNKNOWN))[:, 0]
        other_words = [data.clips[row].word for row in rows[self.others.numpy()]]
        self._by_word = _cumulative(_balanced(other_words, recipe.rare_word_clips))
        self._set_noises(self._weighted_noises(data))
        measured = [room_response(to_float(room)) for room in data.material("rooms")]
        self.rooms = room_spectra(measured, recipe.made_rooms, self.n_samples).to(device)
        self._n_measured = len(measured)
        self.speech = torch.from_numpy(np.concatenate([np.zeros(0, np.int16), *data.material("speech")])).to(device)

    def _recorded(self, clips: Tensor) -> Tensor:
        """Clips as they were recorded, (n, window) in [-1, 1]."""
        return fetch(self._bank, self._rows[clips.numpy()], self.device)

    def _clips_at_speeds(self, clips: Tensor, speeds: Tensor) -> Tensor:
        """Clips at `speeds`, (n, samples); zeros for clip -1."""
        sound = clips_at_speeds(self._recorded(clips.clamp(min=0)), speeds)
        return sound * (clips >= 0).to(self.device)[:, None]

    def _weighted_noises(self, data: PreparedData) -> list[tuple[Pcm, float]]:
        """The noises to mix under words, and how often each is drawn.

        A recording counts by its length; the task's own background noise makes up a quarter. Each is there at all
        `noise_speeds`; babble has its share besides.
        """
        noises = [data.noise, *data.material("noise")]
        weights = [max(1.0, len(noise) / (5 * SAMPLE_RATE)) for noise in noises]
        weights[0] = max(1.0, sum(weights[1:]) / 3)
        found = [
            (at_speed(noise, speed), weight)
            for speed in self.recipe.noise_speeds
            for noise, weight in zip(noises, weights, strict=True)
        ]
        share = self.recipe.babble_share
        if share > 0:
            found.append((self._babble(), sum(weight for _, weight in found) * share / (1 - share)))
        return found

    def _set_noises(self, noises: list[tuple[Pcm, float]]) -> None:
        # Each goes on with its own beginning, so that a stretch may start anywhere in it.
        longer = [np.resize(noise, len(noise) + self.n_samples) for noise, _ in noises]
        self.noise = torch.from_numpy(np.concatenate(longer)).to(self.device)
        self._noise_lengths = torch.tensor([len(noise) for noise, _ in noises])
        stored = self._noise_lengths + self.n_samples
        self._noise_starts = torch.cumsum(stored, 0) - stored
        self._by_noise = _cumulative(np.array([weight for _, weight in noises]))

    def _babble(self) -> Pcm:
        """Other words end to end in the voices of three to eight people at once, a new mixture each row."""
        generator = torch.Generator().manual_seed(0)
        n_rows = max(1, BABBLE_SAMPLES // self.n_samples)
        row_of = torch.arange(n_rows).repeat_interleave(torch.randint(3, 9, (n_rows,), generator=generator))
        # All of them at once would take a gigabyte.
        voices = torch.cat([self._words_end_to_end(len(rows), generator) for rows in torch.split(row_of, 64)])
        voices *= self._draw_gains(len(row_of), generator)[:, None]
        mixed = torch.zeros(n_rows, self.n_samples, device=self.device).index_add_(0, row_of.to(self.device), voices)
        return to_pcm((mixed / mixed.abs().max()).flatten().cpu().numpy())

    def _fluent_speech(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Fluent speech, (rows, samples): words end to end, and running speech, where there is any."""
        n_running = int(n_rows * self.recipe.running_share) if len(self.speech) else 0
        words = self._words_end_to_end(n_rows - n_running, generator)
        audio = torch.cat([words, self._running_speech(n_running, generator)])
        return audio * self._draw_gains(n_rows, generator)[:, None]

    def _running_speech(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Stretches of running speech, (rows, samples)."""
        offsets = (torch.rand(n_rows, generator=generator) * len(self.speech)).long()
        index = offsets.to(self.device)[:, None] + torch.arange(self.n_samples, device=self.device)
        return self.speech[index % max(1, len(self.speech))].float() / 32768.0

    def _words_end_to_end(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Other words end to end as in fluent speech, (rows, samples).

        A `spliced_share` of them begins with at least the first half of a keyword and continues without a gap in the
        rest of another word, as *awful* begins with *off*. Such a word is not a keyword.
        """
        shape = n_rows, math.ceil(WORDS_PER_SECOND * self.n_samples / SAMPLE_RATE)
        audio = torch.zeros(n_rows, self.n_samples + 2 * self.margin, device=self.device)
        at = torch.randint(-SAMPLE_RATE // 3, SAMPLE_RATE // 3, (n_rows,), generator=generator)
        while bool((at < self.n_samples).any()):
            clips, begins = self._draw_words(shape, generator)
            speeds = self._draw(*self.recipe.fluent_speeds, shape, generator)
            begin, end = (self.spans[clips] / speeds[..., None]).round().long().unbind(-1)
            cut = ((end - begin) * self._draw(0.1, 0.5, shape, generator)).long()
            begin, end = begin + begins.roll(1, 1) * cut, end - begins * cut
            gap = self._draw_gaps(shape, generator)
            gap[begins] = SPLICE_GAP
            ends = at[:, None] + (end - begin + (gap * SAMPLE_RATE).long()).cumsum(1)
            starts = torch.cat([at[:, None], ends[:, :-1]], 1).clamp(max=self.n_samples)
            at = ends[:, -1]
            add_into(audio, self._cut_out(clips, speeds, begin, end), starts + self.margin)
        return audio[:, self.margin : self.margin + self.n_samples]

    def _draw_words(self, shape: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clips of other words, (rows, words), and which of them are keywords that the next word is spliced to."""
        clips = self.others[self._draw_weighted(self._by_word, shape, generator)]
        drawn = torch.rand(shape, generator=generator) < self.recipe.spliced_share
        begins = torch.zeros(shape, dtype=torch.bool)
        for i in range(shape[1] - 1):
            begins[:, i] = drawn[:, i] & ~begins[:, i - 1]
        keywords = self.keywords[torch.randint(len(self.keywords), shape, generator=generator)]
        return torch.where(begins, keywords, clips), begins

    def _draw_gaps(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Seconds between words, (rows, words): a pause after the `pause_share` of them, next to nothing otherwise."""
        pauses = torch.rand(shape, generator=generator) < self.recipe.pause_share
        return torch.where(pauses, self._draw(0.1, 0.5, shape, generator), self._draw(-0.03, 0.06, shape, generator))

    def _cut_out(self, clips: Tensor, speeds: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """The words of clips (...) at `speeds`, from `begin` to `end` at that speed, at one level; (..., samples)."""
        lengths = (end - begin).flatten()
        recorded, n_out = self._recorded(clips.flatten()), int(lengths.max())
        sound = resampled(recorded, -begin.flatten(), speeds.flatten(), n_out)
        lengths = lengths.to(self.device).clamp(min=1)
        sound *= torch.arange(n_out, device=self.device) < lengths[:, None]
        rms = torch.linalg.vector_norm(sound, dim=1) / lengths.sqrt()
        sound *= (CLEAN_SPEECH_RMS / rms.clamp(min=1e-4))[:, None]
        return sound.reshape(*clips.shape, n_out)

    def _in_rooms(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """A share of the rows (batch, samples), as heard in rooms, half of them measured, half synthetic."""
        inside = torch.nonzero(torch.rand(len(audio), generator=generator) < self.recipe.room_share)[:, 0]
        measured = torch.rand(len(inside), generator=generator) < (0.5 if self._n_measured else 0.0)
        drawn = torch.rand(len(inside), generator=generator)
        made = self._n_measured + drawn * (len(self.rooms) - self._n_measured)
        rooms = torch.where(measured, drawn * self._n_measured, made).long()
        if len(inside) == 0:
            return audio
        inside = inside.to(self.device)
        audio = audio.clone()
        audio[inside] = heard_in(audio[inside], self.rooms[rooms.to(self.device)])
        return audio

    def _add_noise(self, audio: Tensor, generator: torch.Generator) -> Tensor:
        """Mix noise under the rows (batch, samples) at a drawn SNR, at a drawn faint level, or not at all; then clip.

        A row without any sound gets noise at a drawn level.
        """
        n_rows = len(audio)
        which = self._draw_weighted(self._by_noise, n_rows, generator)
        offsets = (torch.rand(n_rows, generator=generator) * self._noise_lengths[which]).long()
        starts = (self._noise_starts[which] + offsets).to(self.device)
        noise = self.noise.unfold(0, self.n_samples, 1)[starts].float().div_(32768.0)
        noise_rms = rms_of(noise).clamp(min=1e-4)
        loud = active_rms(audio)
        ratio = from_db(self._draw(*self.recipe.snr_db, n_rows, generator))
        at_snr = loud * ratio.to(self.device).reciprocal()
        faint = noise_rms * self._draw(0.0, 0.1, n_rows, generator).to(self.device)
        alone = from_db(self._draw(-60.0, -12.0, n_rows, generator)).to(self.device)
        kind = torch.rand(n_rows, generator=generator).to(self.device)
        rms = torch.where(kind < self.recipe.noise_share, at_snr, faint)
        rms = torch.where(loud > 0, rms, alone)
        rms = torch.where(kind > 1.0 - self.recipe.clean_share, torch.zeros_like(rms), rms)
        return torch.addcmul(audio, noise, (rms / noise_rms)[:, None]).clamp_(-1.0, 1.0)

    def _draw_gains(self, count: int, generator: torch.Generator) -> Tensor:
        """Factors of amplitudes, (count,), of levels drawn from `level_db`."""
        return from_db(self._draw(*self.recipe.level_db, count, generator)).to(self.device)

    @staticmethod
    def _draw_weighted(cumulative: Tensor, count: Size, generator: torch.Generator) -> Tensor:
        """`count` indices drawn by weight."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.searchsorted(cumulative, drawn).clamp(max=len(cumulative) - 1)

    @staticmethod
    def _draw(low: float, high: float, count: Size, generator: torch.Generator) -> Tensor:
        """Numbers drawn evenly from `low` to `high`."""
        return low + (high - low) * torch.rand(count, generator=generator)


def _rows_with_words(data: PreparedData) -> npt.NDArray[np.intp]:
    """Rows of the bank to compose from: training clips with a word. Raises DataError if a kind is missing."""
    rows = [i for i, clip in enumerate(data.clips) if clip.split in ("training", EXTRA) and clip.label != SILENCE]
    found = [i for i in rows if data.spans[i, 0] >= 0]
    if len({data.clips[i].label == UNKNOWN for i in found}) < 2:
        raise DataError(
            f"{data.folder}: found a word in {len(found)} of {len(rows)} training clips, expected keywords and "
            "other words among them; train on clips, or prepare more"
        )
    return np.array(found, np.intp)


def _balanced(words: list[str], rare: int) -> npt.NDArray[np.float64]:
    """Weights by which all words are equally likely; a word with fewer than `rare` clips counts by its clips."""
    _, index, counts = np.unique(words, return_inverse=True, return_counts=True)
    weights: npt.NDArray[np.float64] = 1.0 / np.maximum(counts, rare)[index]
    return weights


def _cumulative(weights: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.cumsum(weights) / weights.sum())
