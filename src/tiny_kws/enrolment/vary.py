"""Takes of a word as they might be said another time: faster, in another room, under noise, farther away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..audio import Samples
from ..config import SAMPLE_RATE
from ..data.mixing import active_level_db, add_at, at_speed, faded, faint_noise, in_room, made_room
from .takes import Take

SPEEDS = (0.86, 1.16)
ROOM_SHARE = 0.4
NOISE_SHARE = 0.7
SNR_DB = (2.0, 30.0)
LEVEL_DB = (-42.0, -14.0)
SPEECH_SHARE = 0.4
"""The share of variants that come right after other speech."""
LEAD_S, TAIL_S = 1.2, 0.6
"""Sound before the word and after it, at least."""
AROUND_S = 0.15
"""How much of the recording around a word is kept, faded."""


@dataclass(frozen=True)
class Variant:
    """A word in its surroundings, (samples,); it lasts from `start` to `stop`, in samples."""

    audio: Samples
    start: int
    stop: int


@dataclass(frozen=True)
class Surroundings:
    """What a word is varied with: noises and speech of others, each (samples,)."""

    noises: Sequence[Samples]
    speech: Sequence[Samples]


def as_it_is(take: Take) -> Variant:
    """The take after a second of near silence, and before a little more."""
    return _placed(take, 1.0, np.random.default_rng(0), None)


def in_noise(take: Take, noise: Samples, snr_db: float, rng: np.random.Generator) -> Variant:
    """The take as it is, with a stretch of `noise` at a signal-to-noise ratio."""
    plain = as_it_is(take)
    return Variant(under_noise(plain, noise, snr_db, rng), plain.start, plain.stop)


def varied(take: Take, around: Surroundings, rng: np.random.Generator) -> Variant:
    """A draw: speed, room, level, noise, and what comes before."""
    before = around.speech[int(rng.integers(len(around.speech)))] if rng.random() < SPEECH_SHARE else None
    variant = _placed(take, float(rng.uniform(*SPEEDS)), rng, before)
    audio = variant.audio
    if rng.random() < ROOM_SHARE:
        audio = in_room(audio, made_room(rng))
    level = float(rng.uniform(*LEVEL_DB)) - active_level_db(audio[variant.start : variant.stop])
    audio = audio * np.float32(10 ** (level / 20))
    variant = Variant(audio, variant.start, variant.stop)
    if rng.random() < NOISE_SHARE:
        noise = around.noises[int(rng.integers(len(around.noises)))]
        audio = under_noise(variant, noise, float(rng.uniform(*SNR_DB)), rng)
    return Variant(np.clip(audio, -1, 1), variant.start, variant.stop)


def _placed(take: Take, speed: float, rng: np.random.Generator, before: Samples | None) -> Variant:
    around = round(AROUND_S * SAMPLE_RATE)
    first, last = max(0, take.start - around), min(len(take.audio), take.stop + around)
    word = at_speed(faded(take.audio[first:last], 0.03), speed)
    lead = round((LEAD_S + 0.08 * rng.random()) * SAMPLE_RATE)
    audio = faint_noise(lead + len(word) + round(TAIL_S * SAMPLE_RATE), rng)
    if before is not None:
        gap = round(rng.uniform(0.02, 0.3) * SAMPLE_RATE)
        start = int(rng.integers(0, max(1, len(before) - lead)))
        speech = faded(before[start : start + lead - gap], 0.03)
        gain = active_level_db(take.audio[take.start : take.stop]) - active_level_db(speech)
        add_at(audio, speech * np.float32(10 ** (np.clip(gain, -40, 40) / 20)), lead - gap - len(speech))
    add_at(audio, word, lead)
    start = lead + round((take.start - first) / speed)
    return Variant(audio, start, start + round((take.stop - take.start) / speed))


def under_noise(variant: Variant, noise: Samples, snr_db: float, rng: np.random.Generator) -> Samples:
    """The sound of a variant with a stretch of `noise`, drawn, at a signal-to-noise ratio of its word."""
    start = int(rng.integers(0, len(noise)))
    stretch = np.take(noise, np.arange(start, start + len(variant.audio)), mode="wrap")
    power = float(np.square(stretch, dtype=np.float64).mean())
    wanted = active_level_db(variant.audio[variant.start : variant.stop]) - snr_db
    return variant.audio + stretch * np.float32(10 ** (wanted / 20) / np.sqrt(power + 1e-20))
