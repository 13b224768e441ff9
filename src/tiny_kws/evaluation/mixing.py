"""Sound put together: where a word is in its clip, how loud it is, a room around it, noise under it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..config import SAMPLE_RATE

FRAME = SAMPLE_RATE // 100  # 10 ms, to look for a word's ends in
LEVEL_FRAME = SAMPLE_RATE // 50  # 20 ms, to measure active levels in
ACTIVE_DB = 20.0  # below the loudest frame: still active
FLOOR_DB = -80.0
DIRECT = 10 ** (-10 / 20)  # the direct sound is what first comes within 10 dB of a response's largest sample
QUIETEST_DB = -60.0  # of a word's loudest frame, dB of full scale
WORD_RANGE_DB = 28.0  # a word's frames below its loudest one
FLOOR_SHARE, FLOOR_MARGIN_DB = 0.4, 8.0  # how far over the noise floor a word's frames are
BRIDGED = 15  # frames of silence inside a word, as before its stop
MARGIN = 2  # frames added before and behind
SHORTEST = 8  # frames of a word
RUMBLE = 81  # samples of the running mean


def find_word(audio: Samples) -> tuple[int, int] | None:
    """Start and end of the word in a clip, (samples,), as samples; None if nothing stands out of the noise.

    Levels are those of 10 ms frames without what is below about 100 Hz (a running mean of 5 ms is taken off) and with a
    little pre-emphasis (each sample less half of the last), so that neither rumble nor an offset counts and a final s
    does. A frame is loud if it is at most 28 dB below the loudest one, and over the noise floor (the quietest tenth) by
    at least 8 dB and four tenths of the way to the loudest. Loud frames up to 150 ms apart (the closure before a final
    t or p) belong together. The word is the group with the largest sum of decibels over that threshold, so that a word
    counts for more than a click, and lasts 80 ms or more. 20 ms are added on both sides.
    """
    level_db = 10 * np.log10(_frame_power(_without_rumble(audio), FRAME) + 1e-10)
    if len(level_db) < 10:
        return None
    floor, peak = float(np.percentile(level_db, 10)), float(level_db.max())
    if peak < QUIETEST_DB or peak - floor < 10:
        return None
    threshold = max(peak - WORD_RANGE_DB, floor + max(FLOOR_MARGIN_DB, FLOOR_SHARE * (peak - floor)))
    loud = np.flatnonzero(level_db > threshold)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > BRIDGED) + 1)
    word = max(groups, key=lambda frames: float((level_db[frames] - threshold).sum()))
    if word[-1] + 1 - word[0] < SHORTEST:
        return None
    return max(0, (int(word[0]) - MARGIN) * FRAME), min(len(audio), (int(word[-1]) + 1 + MARGIN) * FRAME)


def _without_rumble(audio: Samples) -> Samples:
    if len(audio) < FRAME:
        return audio
    passed = audio - np.convolve(np.pad(audio, RUMBLE // 2, mode="edge"), np.full(RUMBLE, 1 / RUMBLE), mode="valid")
    return (passed - 0.5 * np.concatenate([passed[:1], passed[:-1]])).astype(np.float32)


def sounding_span(audio: Samples, below_loudest_db: float) -> tuple[int, int] | None:
    """From the first to the last 10 ms frame of (samples,) within `below_loudest_db` of the loudest, as samples.

    None for digital silence, or less than a tenth of a second.
    """
    power = _frame_power(audio, FRAME)
    if len(power) < 10 or power.max() < 1e-9:
        return None
    loud = np.flatnonzero(power >= power.max() * 10 ** (-below_loudest_db / 10))
    return int(loud[0]) * FRAME, (int(loud[-1]) + 1) * FRAME


def active_level_db(audio: Samples) -> float:
    """Mean power of the active frames of (samples,): those of 20 ms at most 20 dB below the loudest; dB of full scale.

    >>> round(active_level_db(np.concatenate([np.full(16000, 0.1), np.zeros(16000)])), 3)
    -20.0
    """
    power = _frame_power(audio, min(LEVEL_FRAME, len(audio)))
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
    """Add `sound` to `track`, in place, from sample `at` on; what lies outside is dropped."""
    start, stop = max(0, at), min(len(track), at + len(sound))
    if stop > start:
        track[start:stop] += sound[start - at : stop - at]


def _frame_power(audio: Samples, n_samples: int) -> npt.NDArray[np.float64]:
    n_frames = len(audio) // n_samples
    frames = audio[: n_frames * n_samples].reshape(n_frames, n_samples)
    power: npt.NDArray[np.float64] = np.square(frames, dtype=np.float64).mean(1)
    return power
