"""Where a word or a sound lies in a recording."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..config import SAMPLE_RATE

FRAME = SAMPLE_RATE // 100  # 10 ms, to look for a word's ends in
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
    level_db = loudness_db(audio)
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


def loudness_db(audio: Samples) -> npt.NDArray[np.float64]:
    """Level of the frames of 10 ms of (samples,), dB of full scale, without rumble and with a little pre-emphasis."""
    level_db: npt.NDArray[np.float64] = 10 * np.log10(frame_power(_without_rumble(audio), FRAME) + 1e-10)
    return level_db


def _without_rumble(audio: Samples) -> Samples:
    if len(audio) < FRAME:
        return audio
    passed = audio - np.convolve(np.pad(audio, RUMBLE // 2, mode="edge"), np.full(RUMBLE, 1 / RUMBLE), mode="valid")
    return (passed - 0.5 * np.concatenate([passed[:1], passed[:-1]])).astype(np.float32)


def sounding_span(audio: Samples, below_loudest_db: float) -> tuple[int, int] | None:
    """From the first to the last 10 ms frame of (samples,) within `below_loudest_db` of the loudest, as samples.

    None for digital silence, or less than a tenth of a second.
    """
    power = frame_power(audio, FRAME)
    if len(power) < 10 or power.max() < 1e-9:
        return None
    loud = np.flatnonzero(power >= power.max() * 10 ** (-below_loudest_db / 10))
    return int(loud[0]) * FRAME, (int(loud[-1]) + 1) * FRAME


def frame_power(audio: Samples, n_samples: int) -> npt.NDArray[np.float64]:
    """Mean power of the whole frames of `n_samples` in (samples,), (frames,)."""
    n_frames = len(audio) // n_samples
    frames = audio[: n_frames * n_samples].reshape(n_frames, n_samples)
    power: npt.NDArray[np.float64] = np.square(frames, dtype=np.float64).mean(1)
    return power
