"""Short streams to train on, composed in batches: words one after another, fluent speech, noise, rooms.

A network that listens hears more than clips: words cut by the window, what came before a word, speech that never
stops. So it is trained on streams of a few seconds and told, for every answer within them, what there is to be heard.
Every draw comes from the generator passed in, on the CPU, so that a seed means the same on every device. Where a batch
is shared with other processes, all of it is drawn and the sound of a `Share` of its streams is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import CLIP_SAMPLES, LABELS, SAMPLE_RATE, SILENCE, UNKNOWN, StreamRecipe
from ..errors import DataError
from ..evaluation.mixing import find_word, room_response
from .dataset import EXTRA, PreparedData, to_float
from .ranks import Ranks, Share

NO_KEYWORD = -1
"""The target of an answer at which no keyword may be heard."""
IGNORED = -2
"""The target of an answer at which a keyword is heard in part."""

MARGIN = 2 * CLIP_SAMPLES  # silence around a stream while it is composed, so that no word needs to be cut
ROOM_TAPS = SAMPLE_RATE // 2
CLEAN_SPEECH_RMS = 0.08  # of fluent speech before its drawn level


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


class Composer:
    """Composes streams from prepared data. `hop` is the time from answer to answer, in samples.

    Banks lie on `device`; `keywords` holds the rows of the training keywords in which a word can be found.
    Raises DataError if there are no such clips of keywords, or of other words.
    """

    def __init__(self, data: PreparedData, recipe: StreamRecipe, hop: int, device: torch.device) -> None:
        self.recipe, self.hop, self.device = recipe, hop, device
        self.n_samples = round(recipe.seconds * SAMPLE_RATE) // hop * hop
        rows = [i for i, clip in enumerate(data.clips) if clip.split in ("training", EXTRA) and clip.label != SILENCE]
        spans = [find_word(to_float(data.bank[i])) for i in rows]
        found = [(i, span) for i, span in zip(rows, spans, strict=True) if span is not None]
        kinds = {data.clips[i].label == UNKNOWN for i, _ in found}
        if len(kinds) < 2:
            raise DataError(
                f"{data.folder}: found a word in {len(found)} of {len(rows)} training clips, expected keywords and "
                "other words among them; train on clips, or prepare more"
            )
        self.bank = torch.from_numpy(data.bank[[i for i, _ in found]]).to(device)
        self.spans = torch.tensor([span for _, span in found], device=device)
        clips = [data.clips[i] for i, _ in found]
        self.classes = torch.tensor([LABELS.index(clip.label) for clip in clips])
        self.keywords = torch.nonzero(self.classes > LABELS.index(UNKNOWN))[:, 0]
        self.others = torch.nonzero(self.classes == LABELS.index(UNKNOWN))[:, 0]
        self._by_word = _cumulative(_balanced([clips[i].word for i in self.others.tolist()], recipe.rare_word_clips))
        noises = [data.noise, *data.material("noise")]
        self.noise = torch.from_numpy(np.concatenate(noises)).to(device)
        lengths = torch.tensor([len(noise) for noise in noises])
        self._noise_starts, self._noise_lengths = (torch.cumsum(lengths, 0) - lengths), lengths
        weights = [max(1.0, len(noise) / (5 * SAMPLE_RATE)) for noise in noises]
        weights[0] = max(1.0, sum(weights[1:]) / 3)  # the task's own background noise: a quarter
        self._by_noise = _cumulative(np.array(weights))
        measured = [room_response(to_float(room)) for room in data.material("rooms")]
        self.rooms = _room_spectra(measured, recipe.made_rooms, self.n_samples).to(device)
        self._n_measured = len(measured)
        self.speech = torch.from_numpy(np.concatenate([np.zeros(0, np.int16), *data.material("speech")])).to(device)
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
            _add(audio, sound, share.of(starts[:, slot]))
        return audio[:, MARGIN : MARGIN + self.n_samples], speeds

    def _clips(self, clips: Tensor, speeds: Tensor) -> Tensor:
        """Clips at `speeds`, (n, samples); zeros for clip -1."""
        sound = _at_speed(self.bank[clips.clamp(min=0).to(self.device)].float() / 32768.0, speeds)
        return sound * (clips >= 0).to(self.device)[:, None]

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
        index = (offsets[:, None] + torch.arange(self.n_samples)) % max(1, len(self.speech))
        return self.speech[index.to(self.device)].float() / 32768.0

    def _end_to_end(self, share: Share, generator: torch.Generator) -> Tensor:
        """Other words end to end as in fluent speech, (streams, samples)."""
        n_streams = share.total
        audio = torch.zeros(len(share), self.n_samples + 2 * MARGIN, device=self.device)
        at = torch.randint(-SAMPLE_RATE // 3, SAMPLE_RATE // 3, (n_streams,), generator=generator)
        while bool((at < self.n_samples).any()):
            clips = self.others[self._pick(self._by_word, n_streams, generator)]
            speeds = self._uniform(*self.recipe.fluent_speeds, n_streams, generator)
            begin, end = (self.spans[clips.to(self.device)].cpu() / speeds[:, None]).round().long().T
            sound = self._clips(share.of(clips), share.of(speeds))
            n = torch.arange(sound.shape[1], device=self.device)
            first, last = (share.of(values)[:, None].to(self.device) for values in (begin, end))
            inside = (n >= first) & (n < last)
            sound = sound * inside
            rms = (sound.square().sum(1) / inside.sum(1).clamp(min=1)).sqrt().clamp(min=1e-4)
            _add(audio, sound * (CLEAN_SPEECH_RMS / rms)[:, None], share.of((at - begin).clamp(max=self.n_samples)))
            pauses = torch.rand(n_streams, generator=generator) < self.recipe.pause_share
            gap = torch.where(
                pauses, self._uniform(0.1, 0.5, n_streams, generator), self._uniform(-0.03, 0.06, n_streams, generator)
            )
            at = at + (end - begin) + (gap * SAMPLE_RATE).long()
        return audio[:, MARGIN : MARGIN + self.n_samples]

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
        which, offsets = share.of(which), share.of(offsets)
        index = (offsets[:, None] + torch.arange(self.n_samples)) % self._noise_lengths[which, None]
        noise = self.noise[(index + self._noise_starts[which, None]).to(self.device)].float() / 32768.0
        noise_rms = noise.square().mean(1).sqrt().clamp(min=1e-4)
        loud = _active_rms(audio)
        ratio = _from_db(self._uniform(*self.recipe.snr_db, n_streams, generator))
        at_snr = loud * share.of(ratio).to(self.device).reciprocal()
        faint = noise_rms * share.of(self._uniform(0.0, 0.1, n_streams, generator)).to(self.device)
        alone = share.of(_from_db(self._uniform(-60.0, -12.0, n_streams, generator))).to(self.device)
        kind = share.of(torch.rand(n_streams, generator=generator)).to(self.device)
        rms = torch.where(kind < self.recipe.noise_share, at_snr, faint)
        rms = torch.where(loud > 0, rms, alone)
        rms = torch.where(kind > 1.0 - self.recipe.clean_share, torch.zeros_like(rms), rms)
        return torch.clamp(audio + noise * (rms / noise_rms)[:, None], -1.0, 1.0)

    def _what_is_heard(self, audio: Tensor, clips: Tensor, starts: Tensor, speeds: Tensor, share: Share) -> Streams:
        """The streams `audio` with targets of every answer; stream, answer and class of every clip that was set in."""
        ends = (torch.arange(self.n_samples // self.hop) + 1.0) * self.hop
        targets = torch.full((share.total, len(ends)), NO_KEYWORD)
        classes = torch.where(clips >= 0, self.classes[clips.clamp(min=0)], LABELS.index(SILENCE))
        words = self.spans.cpu()[clips.clamp(min=0)] / speeds[..., None] + starts[..., None]
        is_keyword = (classes > LABELS.index(UNKNOWN))[..., None]
        begin, end = words[..., 0:1], words[..., 1:2]
        partly = is_keyword & (ends > begin + 0.35 * (end - begin)) & (ends < end + 0.95 * SAMPLE_RATE)
        targets[: len(clips)][partly.any(1)] = IGNORED
        latest = torch.minimum(torch.maximum(begin + SAMPLE_RATE, end + 0.1 * SAMPLE_RATE), end + 0.5 * SAMPLE_RATE)
        whole = is_keyword & (ends >= end + self.recipe.latency_ms * SAMPLE_RATE / 1000) & (ends <= latest)
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
            n_heard=int((targets > LABELS.index(UNKNOWN)).sum()),
        )

    def _pick(self, cumulative: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` indices drawn by weight."""
        drawn = torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.searchsorted(cumulative, drawn).clamp(max=len(cumulative) - 1)

    def _gain(self, count: int, generator: torch.Generator) -> Tensor:
        return _from_db(self._uniform(*self.recipe.level_db, count, generator)).to(self.device)

    @staticmethod
    def _uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)


def _add(audio: Tensor, sound: Tensor, starts: Tensor) -> None:
    """Add `sound` (batch, length) into `audio` (batch, samples with margins), each row at its start."""
    index = (starts + MARGIN).to(audio.device)[:, None] + torch.arange(sound.shape[1], device=audio.device)
    audio.scatter_add_(1, index, sound)


def _at_speed(clips: Tensor, speeds: Tensor) -> Tensor:
    """Clips (batch, samples) played at `speeds` (batch,), by linear interpolation, padded to the slowest."""
    n_out = int(clips.shape[1] / float(speeds.min())) if len(speeds) else clips.shape[1]
    at = torch.arange(n_out, device=clips.device) * speeds.to(clips.device)[:, None]
    inside = at < clips.shape[1] - 1
    before = at.long().clamp(max=clips.shape[1] - 2)
    part = at - before
    return (clips.gather(1, before) * (1 - part) + clips.gather(1, before + 1) * part) * inside


def _active_rms(audio: Tensor) -> Tensor:
    """Level of the louder parts of streams (batch, samples): of frames of 20 ms within 30 dB of the loudest."""
    power = audio.unfold(1, SAMPLE_RATE // 50, SAMPLE_RATE // 50).square().mean(2)
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
    return int(2 ** np.ceil(np.log2(n_samples + ROOM_TAPS)))


def _balanced(words: list[str], rare: int) -> npt.NDArray[np.float64]:
    """Weights that draw every word alike; a word of under `rare` clips counts by its clips."""
    _, index, counts = np.unique(words, return_inverse=True, return_counts=True)
    weights: npt.NDArray[np.float64] = 1.0 / np.maximum(counts, rare)[index]
    return weights


def _cumulative(weights: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.cumsum(weights) / weights.sum())


def _from_db(level_db: Tensor) -> Tensor:
    return 10 ** (level_db / 20)
