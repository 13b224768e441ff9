"""Rows of class probabilities over time to events; knows neither sound nor models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import CLIP_SAMPLES, SAMPLE_RATE, DetectorConfig
from ..errors import UsageError
from ..words import is_word

Averages = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
BLOCK_ROWS = 4096  # rows of probabilities looked at together


@dataclass(frozen=True)
class Detection:
    """A word that was heard. Seconds count from the start of the stream.

    `end_s` is the moment of the decision, `start_s` the start of the second of sound it rests on, `confidence` the
    smoothed probability of the label at the decision.
    """

    label: str
    start_s: float
    end_s: float
    confidence: float


class Decoder:
    """Rows of class probabilities to events; knows neither sound nor models.

    Each row is averaged with those of the last `smoothing_ms`. A label whose average stays at its threshold for
    `min_duration_ms` is an event, the likeliest if there are several. It is not reported again before its average fell
    below `release` times the threshold, nor, with `rise_ms`, once that was longer ago: a word comes at once, and what
    creeps up is none. No label is within `refractory_ms` of an event. How the rows are divided over calls changes
    nothing, to the last bit.

    `labels` name the columns, `words` those that can be events: all but `silence` and `unknown`. `hop_s` is the time
    from row to row.
    Raises UsageError for settings that make no sense or thresholds for labels that are not there.

    >>> rows = np.zeros((10, 3), np.float32)
    >>> rows[4:8, 2] = 1.0
    >>> config = DetectorConfig(threshold=0.9, smoothing_ms=200, min_duration_ms=0)
    >>> Decoder(("silence", "unknown", "yes"), 0.1, config).process(rows)
    [Detection(label='yes', start_s=0.0, end_s=0.6, confidence=1.0)]
    """

    def __init__(self, labels: Sequence[str], hop_s: float, config: DetectorConfig | None = None) -> None:
        self.config = config or DetectorConfig()
        self.labels = tuple(labels)
        self.hop_s = hop_s
        check_config(self.config, self.labels)
        self._columns = [i for i, label in enumerate(labels) if is_word(label)]
        self.words = tuple(labels[i] for i in self._columns)
        self._thresholds = np.array([self.config.thresholds.get(w, self.config.threshold) for w in self.words])
        self._releases = self._thresholds * self.config.release
        self._n_smoothed = self._rows(self.config.smoothing_ms)
        self._n_held = self._rows(self.config.min_duration_ms)
        self._n_rise = self._rows(self.config.rise_ms) if self.config.rise_ms else np.iinfo(np.int64).max
        self._n_refractory = self._rows(self.config.refractory_ms)
        self.reset()

    def _rows(self, ms: float) -> int:
        return max(1, round(ms / (1000.0 * self.hop_s)))

    def reset(self) -> None:
        """Back to the start of a stream, with silence before it."""
        n_words = len(self._columns)
        self._past: Averages = np.zeros((self._n_smoothed - 1, n_words))
        self._row = 0  # the next
        self._last_event = -self._n_refractory
        self._last_short: Rows = np.full(n_words, -1)  # the last row in which each word was below its threshold
        self._last_low: Rows = np.full(n_words, -1)  # in which it was below its release
        self._reported: Rows = np.full(n_words, -2)  # in which it was an event

    def process(self, rows: npt.ArrayLike) -> list[Detection]:
        """Events that `rows` (n, labels) bring about, in order of time.

        Raises UsageError for rows of another width.
        """
        values = np.asarray(rows)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise UsageError(f"probabilities have shape {values.shape}, expected (rows, {len(self.labels)})")
        events = []
        for start in range(0, len(values), BLOCK_ROWS):
            events += self._process_block(values[start : start + BLOCK_ROWS])
        return events

    def smooth(self, rows: npt.ArrayLike) -> Averages:
        """The averages (n, words) that the next `rows` are judged by; does not go on in the stream."""
        joined = np.concatenate([self._past, np.asarray(rows)[:, self._columns].astype(np.float64)])
        n_rows = len(joined) - len(self._past)
        # Summed in one order for every row, whatever the division into calls.
        total = np.zeros((n_rows, joined.shape[1]))
        for i in range(self._n_smoothed):
            total += joined[i : i + n_rows]
        return total / self._n_smoothed

    def _process_block(self, rows: npt.NDArray[np.floating]) -> list[Detection]:
        smoothed = self.smooth(rows)
        joined = np.concatenate([self._past, rows[:, self._columns].astype(np.float64)])
        self._past = joined[len(joined) - len(self._past) :]
        numbers = self._row + np.arange(len(rows))[:, None]
        last_short = _latest(numbers, smoothed < self._thresholds, self._last_short)
        last_low = _latest(numbers, smoothed < self._releases, self._last_low)
        due = (numbers - last_short >= self._n_held) & (numbers - last_low <= self._n_rise)
        events = []
        for i in np.flatnonzero(due.any(1)):
            row = self._row + int(i)
            if row - self._last_event < self._n_refractory:
                continue
            ready = due[i] & (last_low[i] > self._reported)
            if ready.any():
                word = int(np.where(ready, smoothed[i], -1.0).argmax())
                self._last_event = self._reported[word] = row
                events.append(self._event(word, row, float(smoothed[i, word])))
        self._last_short, self._last_low = last_short[-1], last_low[-1]
        self._row += len(rows)
        return events

    def _event(self, word: int, row: int, confidence: float) -> Detection:
        end_s = (row + 1) * self.hop_s
        start_s = max(0.0, end_s - CLIP_SAMPLES / SAMPLE_RATE)
        return Detection(self.words[word], round(start_s, 6), round(end_s, 6), round(confidence, 6))


def _latest(numbers: Rows, happened: npt.NDArray[np.bool_], before: Rows) -> Rows:
    """The number of the last row, this one included, in which it happened (rows, words); `before` these rows."""
    return np.maximum.accumulate(np.where(happened, numbers, before), axis=0)


def check_config(config: DetectorConfig, labels: Sequence[str]) -> None:
    """Raise UsageError for settings that make no sense with `labels`."""
    for name, value in vars(config).items():
        if name != "thresholds" and not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
            raise UsageError(f"the detector's {name} is {value!r}, expected a number from 0")
    if not isinstance(config.thresholds, Mapping):
        raise UsageError(f"the detector's thresholds are {config.thresholds!r}, expected numbers by label")
    words = [label for label in labels if is_word(label)]
    for label, value in config.thresholds.items():
        if label not in words:
            raise UsageError(f"found a threshold for {label!r}, expected one of {', '.join(words)}")
        check_share(value, f"the detector's threshold for {label!r}")
    check_share(config.threshold, "the detector's threshold")
    check_share(config.release, "the detector's release, a part of the threshold,")
    if 0 < config.rise_ms < config.min_duration_ms:
        raise UsageError(
            f"the detector's rise_ms is {config.rise_ms!r}, expected 0 or no less than min_duration_ms, "
            f"{config.min_duration_ms!r}"
        )
    if config.hop_ms < 10 or config.hop_ms > 1000:
        raise UsageError(f"the detector's hop is {config.hop_ms} ms, expected 10 to 1000")


def check_share(value: Any, name: str) -> None:
    """Raise UsageError, beginning with `name`, unless `value` is over 0 and at most 1."""
    if not (isinstance(value, (int, float)) and 0 < value <= 1):
        raise UsageError(f"{name} is {value!r}, expected over 0, up to 1")
