"""The sounds of training, made in batches: clips at drawn speeds, fluent speech, rooms around them, noise under them.

Every draw comes from the generator passed in, on the CPU, so that a seed means the same on every device. Where a batch
is shared with other processes, all of it is drawn and the sound of a `Share` of its rows is made.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...config import CLIP_SAMPLES, SAMPLE_RATE
from ...data.mixing import room_response
from ...data.prepared import EXTRA, Pcm, PreparedData, to_float, to_pcm
from ...data.spans import find_word
from ...errors import DataError
from ...training_config import SoundRecipe
from ...words import SILENCE, UNKNOWN, is_word
from ..bank import fetch, on_device
from ..distributed import Share

Size = int | tuple[int, ...]
MARGIN = 2 * CLIP_SAMPLES  # silence around a row while it is composed, so that no word needs to be cut
ROOM_TAPS = SAMPLE_RATE // 2
BABBLE_SAMPLES = 120 * SAMPLE_RATE
WORDS_PER_SECOND = 4  # drawn at once for fluent speech: most often enough
SPLICE_GAP = -0.01  # seconds between two parts of words that are made one
CLEAN_SPEECH_RMS = 0.08  # of fluent speech before its drawn level


class Sounds:
    """What rows of `n_samples` samples are made from: banks of words, noises and rooms, on `device`.

    `keywords` holds the rows of its own bank that are keywords, `others` those of other words; both are training clips
    in which a word can be found. Raises DataError if there are no such clips of keywords, or of other words.
    """

    def __init__(self, data: PreparedData, recipe: SoundRecipe, n_samples: int, device: torch.device) -> None:
        self.recipe, self.n_samples, self.device = recipe, n_samples, device
        rows = [i for i, clip in enumerate(data.clips) if clip.split in ("training", EXTRA) and clip.label != SILENCE]
        spans = [find_word(to_float(data.bank[i])) for i in rows]
        found = [(i, span) for i, span in zip(rows, spans, strict=True) if span is not None]
        kinds = {data.clips[i].label == UNKNOWN for i, _ in found}
        if len(kinds) < 2:
            raise DataError(
                f"{data.folder}: found a word in {len(found)} of {len(rows)} training clips, expected keywords and "
                "other words among them; train on clips, or prepare more"
            )
        rows_found = np.array([i for i, _ in found], np.intp)
        self._bank = on_device(data.bank, rows_found, device)
        self._rows = np.arange(len(found)) if isinstance(self._bank, Tensor) else rows_found
        self.spans = torch.tensor([span for _, span in found])
        clips = [data.clips[i] for i, _ in found]
        self.vocabulary = data.vocabulary
        self.is_word = torch.tensor([is_word(label) for label in self.vocabulary.labels])
        """By class: whether it is a word."""
        self.classes = torch.tensor([self.vocabulary.column(clip.label) for clip in clips])
        self.keywords = torch.nonzero(self.is_word[self.classes])[:, 0]
        self.others = torch.nonzero(self.classes == self.vocabulary.column(UNKNOWN))[:, 0]
        self._by_word = _cumulative(_balanced([clips[i].word for i in self.others.tolist()], recipe.rare_word_clips))
        noises = self._noises(data)
        # Each goes on with its own beginning, so that a stretch may start anywhere in it.
        self.noise = torch.from_numpy(
            np.concatenate([np.resize(noise, len(noise) + self.n_samples) for noise, _ in noises])
        ).to(device)
        self._noise_lengths = torch.tensor([len(noise) for noise, _ in noises])
        stored = self._noise_lengths + self.n_samples
        self._noise_starts = torch.cumsum(stored, 0) - stored
        self._by_noise = _cumulative(np.array([weight for _, weight in noises]))
        measured = [room_response(to_float(room)) for room in data.material("rooms")]
        self.rooms = _room_spectra(measured, recipe.made_rooms, self.n_samples).to(device)
        self._n_measured = len(measured)
        self.speech = torch.from_numpy(np.concatenate([np.zeros(0, np.int16), *data.material("speech")])).to(device)

    def _recorded(self, clips: Tensor) -> Tensor:
        """Clips as they were recorded, (n, 16000) in [-1, 1]."""
        return fetch(self._bank, self._rows[clips.numpy()], self.device)

    def _clips(self, clips: Tensor, speeds: Tensor) -> Tensor:
        """Clips at `speeds`, (n, samples); zeros for clip -1."""
        sound = _at_speed(self._recorded(clips.clamp(min=0)), speeds)
        return sound * (clips >= 0).to(self.device)[:, None]

    def _noises(self, data: PreparedData) -> list[tuple[Pcm, float]]:
        """What is laid under words, and how often each is drawn against the others.

        A recording counts by its length; a quarter of them all is the task's own background noise. Each is there at the
        `noise_speeds`; then babble has its share.
        """
        noises = [data.noise, *data.material("noise")]
        weights = [max(1.0, len(noise) / (5 * SAMPLE_RATE)) for noise in noises]
        weights[0] = max(1.0, sum(weights[1:]) / 3)
        found = [
            (_sped(noise, speed), weight)
            for speed in self.recipe.noise_speeds
            for noise, weight in zip(noises, weights, strict=True)
        ]
        share = self.recipe.babble_share
        if share > 0:
            found.append((self._babble(), sum(weight for _, weight in found) * share / (1 - share)))
        return found

    def _babble(self) -> Pcm:
        """Other words end to end in the voices of three to eight people at once, a new mixture each row."""
        generator = torch.Generator().manual_seed(0)
        n_rows = max(1, BABBLE_SAMPLES // self.n_samples)
        row_of = torch.arange(n_rows).repeat_interleave(torch.randint(3, 9, (n_rows,), generator=generator))
        # All of them at once would take a gigabyte.
        voices = torch.cat([self._end_to_end(Share(len(rows)), generator) for rows in torch.split(row_of, 64)])
        voices *= self._gain(len(row_of), generator)[:, None]
        mixed = torch.zeros(n_rows, self.n_samples, device=self.device).index_add_(0, row_of.to(self.device), voices)
        return to_pcm((mixed / mixed.abs().max()).flatten().cpu().numpy())

    def _fluent(self, share: Share, generator: torch.Generator) -> Tensor:
        """Fluent speech, (streams, samples): words end to end, and running speech in half, where there is any."""
        n_running = share.total // 2 if len(self.speech) else 0
        n_words = share.total - n_running
        words = self._end_to_end(share.block(0, n_words), generator)
        audio = torch.cat([words, self._running(share.block(n_words, n_running), generator)])
        return audio * share.of(self._gain(share.total, generator))[:, None]

    def _running(self, share: Share, generator: torch.Generator) -> Tensor:
        """Stretches of running speech, (streams, samples)."""
        offsets = share.of((torch.rand(share.total, generator=generator) * len(self.speech)).long())
        index = offsets.to(self.device)[:, None] + torch.arange(self.n_samples, device=self.device)
        return self.speech[index % max(1, len(self.speech))].float() / 32768.0

    def _end_to_end(self, share: Share, generator: torch.Generator) -> Tensor:
        """Other words end to end as in fluent speech, (streams, samples).

        A `spliced_share` of them begins with the first half of a keyword or more, and goes on without a gap in the rest
        of another word, as *awful* begins with *off*: it is no keyword.
        """
        shape = share.total, math.ceil(WORDS_PER_SECOND * self.n_samples / SAMPLE_RATE)
        audio = torch.zeros(len(share), self.n_samples + 2 * MARGIN, device=self.device)
        at = torch.randint(-SAMPLE_RATE // 3, SAMPLE_RATE // 3, (share.total,), generator=generator)
        while bool((at < self.n_samples).any()):
            clips = self.others[self._pick(self._by_word, shape, generator)]
            drawn = torch.rand(shape, generator=generator) < self.recipe.spliced_share
            begins = torch.zeros(shape, dtype=torch.bool)
            for i in range(shape[1] - 1):
                begins[:, i] = drawn[:, i] & ~begins[:, i - 1]
            goes_on = begins.roll(1, 1)
            keywords = self.keywords[torch.randint(len(self.keywords), shape, generator=generator)]
            clips = torch.where(begins, keywords, clips)
            speeds = self._uniform(*self.recipe.fluent_speeds, shape, generator)
            begin, end = (self.spans[clips] / speeds[..., None]).round().long().unbind(-1)
            cut = ((end - begin) * self._uniform(0.1, 0.5, shape, generator)).long()
            begin, end = begin + goes_on * cut, end - begins * cut
            pauses = torch.rand(shape, generator=generator) < self.recipe.pause_share
            gap = torch.where(
                pauses, self._uniform(0.1, 0.5, shape, generator), self._uniform(-0.03, 0.06, shape, generator)
            )
            gap[begins] = SPLICE_GAP
            ends = at[:, None] + (end - begin + (gap * SAMPLE_RATE).long()).cumsum(1)
            starts = torch.cat([at[:, None], ends[:, :-1]], 1).clamp(max=self.n_samples)
            at = ends[:, -1]
            words = self._cut_out(*map(share.of, (clips, speeds, begin, end)))
            add_into(audio, words, share.of(starts))
        return audio[:, MARGIN : MARGIN + self.n_samples]

    def _cut_out(self, clips: Tensor, speeds: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """The words of clips (...) at `speeds`, from `begin` to `end` at that speed, at one level; (..., samples)."""
        lengths = (end - begin).flatten()
        recorded, n_out = self._recorded(clips.flatten()), int(lengths.max()) if len(lengths) else 0
        sound = resampled(recorded, -begin.flatten(), speeds.flatten(), n_out)
        lengths = lengths.to(self.device).clamp(min=1)
        sound *= torch.arange(n_out, device=self.device) < lengths[:, None]
        rms = torch.linalg.vector_norm(sound, dim=1) / lengths.sqrt()
        sound *= (CLEAN_SPEECH_RMS / rms.clamp(min=1e-4))[:, None]
        return sound.reshape(*clips.shape, n_out)

    def _in_rooms(self, audio: Tensor, generator: torch.Generator, share: Share | None = None) -> Tensor:
        """A share of the streams (batch, samples) as heard in a room; half of these rooms measured, half made up."""
        share = share or Share(len(audio))
        inside = torch.nonzero(torch.rand(share.total, generator=generator) < self.recipe.room_share)[:, 0]
        measured = torch.rand(len(inside), generator=generator) < (0.5 if self._n_measured else 0.0)
        drawn = torch.rand(len(inside), generator=generator)
        made = self._n_measured + drawn * (len(self.rooms) - self._n_measured)
        rooms = torch.where(measured, drawn * self._n_measured, made).long()
        inside = share.positions(inside)
        inside, rooms = inside[inside >= 0], rooms[inside >= 0]
        if len(inside) == 0:
            return audio
        inside, n_fft = inside.to(self.device), _n_fft(self.n_samples)
        spectra = torch.fft.rfft(audio[inside], n_fft) * self.rooms[rooms.to(self.device)]
        audio = audio.clone()
        audio[inside] = torch.fft.irfft(spectra, n_fft)[:, : self.n_samples]
        return audio

    def _add_noise(self, audio: Tensor, generator: torch.Generator, share: Share | None = None) -> Tensor:
        """Noise under the streams (batch, samples): at a drawn SNR, at a drawn faint level, or none; then clipped.

        A stream without any sound gets noise at a drawn level.
        """
        share = share or Share(len(audio))
        n_streams = share.total
        which = self._pick(self._by_noise, n_streams, generator)
        offsets = (torch.rand(n_streams, generator=generator) * self._noise_lengths[which]).long()
        starts = share.of(self._noise_starts[which] + offsets).to(self.device)
        noise = self.noise.unfold(0, self.n_samples, 1)[starts].float().div_(32768.0)
        noise_rms = _rms(noise).clamp(min=1e-4)
        loud = _active_rms(audio)
        ratio = _from_db(self._uniform(*self.recipe.snr_db, n_streams, generator))
        at_snr = loud * share.of(ratio).to(self.device).reciprocal()
        faint = noise_rms * share.of(self._uniform(0.0, 0.1, n_streams, generator)).to(self.device)
        alone = share.of(_from_db(self._uniform(-60.0, -12.0, n_streams, generator))).to(self.device)
        kind = share.of(torch.rand(n_streams, generator=generator)).to(self.device)
        rms = torch.where(kind < self.recipe.noise_share, at_snr, faint)
        rms = torch.where(loud > 0, rms, alone)
        rms = torch.where(kind > 1.0 - self.recipe.clean_share, torch.zeros_like(rms), rms)
        return torch.addcmul(audio, noise, (rms / noise_rms)[:, None]).clamp_(-1.0, 1.0)

    def _pick(self, cumulative: Tensor, count: Size, generator: torch.Generator) -> Tensor:
        """`count` indices drawn by weight."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.searchsorted(cumulative, drawn).clamp(max=len(cumulative) - 1)

    def _gain(self, count: int, generator: torch.Generator) -> Tensor:
        return _from_db(self._uniform(*self.recipe.level_db, count, generator)).to(self.device)

    @staticmethod
    def _uniform(low: float, high: float, count: Size, generator: torch.Generator) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)


def add_into(audio: Tensor, sound: Tensor, starts: Tensor) -> None:
    """Add `sound` (batch, ..., length) into `audio` (batch, samples with margins), each at its start (batch, ...)."""
    index = (starts + MARGIN).to(audio.device)[..., None] + torch.arange(sound.shape[-1], device=audio.device)
    audio.scatter_add_(1, index.flatten(1), sound.flatten(1))


def _sped(recording: Pcm, speed: float) -> Pcm:
    """A recording (samples,) played at `speed`, by linear interpolation."""
    if speed == 1.0:
        return recording
    at = np.arange(0, len(recording) - 1, speed)
    sped: Pcm = np.interp(at, np.arange(len(recording)), recording).round().astype(np.int16)
    return sped


def _at_speed(clips: Tensor, speeds: Tensor) -> Tensor:
    """Clips (batch, samples) played at `speeds` (batch,), by linear interpolation, padded to the slowest."""
    n_out = int(clips.shape[1] / float(speeds.min())) if len(speeds) else clips.shape[1]
    return resampled(clips, torch.zeros_like(speeds), speeds, n_out)


def resampled(clips: Tensor, starts: Tensor, speeds: Tensor, n_out: int) -> Tensor:
    """Clips (batch, samples) that begin at `starts` and are played at `speeds`, both (batch,); (batch, n_out).

    Linear interpolation; zero before and after.
    """
    scale = speeds * (2 / (clips.shape[1] - 1))
    first, scale = (values[:, None].to(clips.device) for values in (-1 - starts * scale, scale))
    grid = torch.zeros(len(clips), n_out, 2, device=clips.device)
    torch.addcmul(first, scale, torch.arange(n_out, device=clips.device, dtype=grid.dtype), out=grid[..., 0])
    # A picture one sample high: the fastest interpolation there is, by half.
    return nn.functional.grid_sample(clips[:, None, None], grid[:, None], align_corners=True)[:, 0, 0]


def _rms(sound: Tensor) -> Tensor:
    """Root mean square over the last dimension, in one pass."""
    rms: Tensor = torch.linalg.vector_norm(sound, dim=-1) / sound.shape[-1] ** 0.5
    return rms


def _active_rms(audio: Tensor) -> Tensor:
    """Level of the louder parts of streams (batch, samples): of frames of 20 ms within 30 dB of the loudest."""
    power = _rms(audio.unfold(1, SAMPLE_RATE // 50, SAMPLE_RATE // 50)).square()
    active = (power > power.amax(1, keepdim=True) * 1e-3).float()
    return ((power * active).sum(1) / active.sum(1).clamp(min=1)).sqrt()


def _room_spectra(measured: list[npt.NDArray[np.float32]], n_made: int, n_samples: int) -> Tensor:
    """Spectra of room responses, measured and made up, to multiply those of streams with."""
    rng = np.random.default_rng(0)
    rooms = [np.pad(room[:ROOM_TAPS], (0, max(0, ROOM_TAPS - len(room)))) for room in measured]
    rooms += [made_room(rng) for _ in range(n_made)]
    spectra: Tensor = torch.fft.rfft(torch.from_numpy(np.stack(rooms)), _n_fft(n_samples))
    return spectra


def made_room(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A room response from statistics, (8000,) with energy 1: direct sound, then noise that decays exponentially.

    Reverberation time 0.12 to 0.9 s, direct-to-reverberant ratio -6 to 10 dB, high frequencies dampened by a draw.
    After Polack 1988.
    """
    t = np.arange(ROOM_TAPS) / SAMPLE_RATE
    tail = rng.standard_normal(ROOM_TAPS) * 10 ** (-3 * t / rng.uniform(0.12, 0.9))
    tail *= 0.3 + 0.7 * np.minimum(1.0, t / 0.02)
    tail[: int(rng.uniform(20, 160))] = 0.0
    response = tail / np.sqrt(np.square(tail).sum()) * 10 ** (-rng.uniform(-6, 10) / 20)
    response[0] += 1.0
    response = np.convolve(response, [1.0, -rng.uniform(0.0, 0.5)])[:ROOM_TAPS]
    unit: npt.NDArray[np.float32] = (response / np.sqrt(np.square(response).sum())).astype(np.float32)
    return unit


def _n_fft(n_samples: int) -> int:
    """A length that is fast to transform, for a stream and a room response after it: a power of two or three of one."""
    n_needed = n_samples + ROOM_TAPS
    power = int(2 ** np.ceil(np.log2(n_needed)))
    return power * 3 // 4 if power * 3 // 4 >= n_needed else power


def _balanced(words: list[str], rare: int) -> npt.NDArray[np.float64]:
    """Weights that draw every word alike; a word of under `rare` clips counts by its clips."""
    _, index, counts = np.unique(words, return_inverse=True, return_counts=True)
    weights: npt.NDArray[np.float64] = 1.0 / np.maximum(counts, rare)[index]
    return weights


def _cumulative(weights: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.cumsum(weights) / weights.sum())


def _from_db(level_db: Tensor) -> Tensor:
    return 10 ** (level_db / 20)
