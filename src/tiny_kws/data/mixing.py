"""Tools to mix sound: levels, rooms, speeds, fades."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..config import SAMPLE_RATE
from .spans import frame_power

LEVEL_FRAME = SAMPLE_RATE // 50  # 20 ms, to measure active levels in
ACTIVE_DB = 20.0  # below the loudest frame: still active
FLOOR_DB = -80.0
Sound = TypeVar("Sound", npt.NDArray[np.int16], npt.NDArray[np.float32])
ROOM_TAPS = SAMPLE_RATE // 2
DIRECT = 10 ** (-10 / 20)  # the direct sound is what first comes within 10 dB of a response's largest sample


def active_level_db(audio: Samples) -> float:
    """Mean power of the active frames of (samples,): those of 20 ms at most 20 dB below the loudest; dB of full scale.

    >>> round(active_level_db(np.concatenate([np.full(16000, 0.1), np.zeros(16000)])), 3)
    -20.0
    """
    power = frame_power(audio, min(LEVEL_FRAME, len(audio)))
    active = power[power >= power.max() * 10 ** (-ACTIVE_DB / 10)]
    return float(10 * np.log10(active.mean() + 1e-20))


def at_level(audio: Samples, level_db: float) -> Samples:
    """A copy with an active level of `level_db`."""
    return audio * np.float32(10 ** ((level_db - active_level_db(audio)) / 20))


def room_response(audio: Samples) -> Samples:
    """A measured response from its direct sound on, so that nothing is delayed, with an energy of 1."""
    size = np.abs(audio)
    response = audio[int(np.argmax(size >= DIRECT * size.max())) :].astype(np.float64)
    scaled: Samples = (response / np.sqrt(np.square(response).sum())).astype(np.float32)
    return scaled


def made_room(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A synthetic room response, (8000,) with energy 1: direct sound, then noise that decays exponentially.

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


def in_room(audio: Samples, response: Samples) -> Samples:
    """(samples,) as heard in a room with this `response`, of the same length."""
    length = 1 << (len(audio) + len(response) - 1).bit_length()
    product = np.fft.rfft(audio, length) * np.fft.rfft(response, length)
    wet: Samples = np.fft.irfft(product, length)[: len(audio)].astype(np.float32)
    return wet


def at_speed(audio: Sound, speed: float) -> Sound:
    """(samples,), integers or floats, played at `speed`, by linear interpolation."""
    if speed == 1.0:
        return audio
    at = np.arange(0, len(audio) - 1, speed)
    sped = np.interp(at, np.arange(len(audio)), audio)
    found: Sound = (sped.round() if np.issubdtype(audio.dtype, np.integer) else sped).astype(audio.dtype)
    return found


def faded(audio: Samples, fade_s: float) -> Samples:
    """A copy with straight fades in and out."""
    n_samples = min(round(fade_s * SAMPLE_RATE), len(audio) // 2)
    ramp = np.linspace(0, 1, n_samples, endpoint=False, dtype=np.float32)
    copy = audio.copy()
    copy[:n_samples] *= ramp
    copy[len(copy) - n_samples :] *= ramp[::-1]
    return copy


def faint_noise(n_samples: int, rng: np.random.Generator) -> Samples:
    """White noise at -80 dB of full scale, so that nothing is digital zero."""
    return rng.standard_normal(n_samples, np.float32) * np.float32(10 ** (FLOOR_DB / 20))


def add_at(track: Samples, sound: Samples, at: int) -> None:
    """Add `sound` to `track`, in place, from sample `at` on; anything outside is dropped."""
    start, stop = max(0, at), min(len(track), at + len(sound))
    if stop > start:
        track[start:stop] += sound[start - at : stop - at]
