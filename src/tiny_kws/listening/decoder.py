"""Turns rows of class probabilities into events, without sound or models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import CLIP_SAMPLES, SAMPLE_RATE, DetectorConfig
from ..errors import UsageError
from ..words import is_word

Averages = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
BLOCK_ROWS = 4096  # rows of probabilities looked at together
ONSET_SHARE = 1 / 3  # of a window: from a word's start to when its probability rises
FEW_ROWS = 6  # up to so many are looked at one by one, which is faster than together


@dataclass(frozen=True)
class Detection:
    """A word that was heard. Seconds count from the start of the stream.

    `start_s` and `end_s` say where the word lies, as far as its probabilities show: `end_s` is the moment of the
    decision, which is about when the word ends, and `start_s` is a third of the model's window before the label's
    probability rose. docs/measure.md says how accurate both are. `confidence` is the smoothed probability of the label
    at the decision.
    """

    label: str
    start_s: float
    end_s: float
    confidence: float

    def to_json(self, file: str | None = None, time: str | None = None) -> str:
        """The event as one JSON object on one line: the form that commands and the page write.

        `file` is the recording it was heard in, `time` when a microphone heard it, in UTC. All but ASCII is escaped, so
        that it passes through every terminal and encoding.

        >>> Detection("stop", 1.0, 2.0, 0.9).to_json(file="meeting.mp3")
        '{"file": "meeting.mp3", "time": null, "label": "stop", "start_s": 1.0, "end_s": 2.0, "confidence": 0.9}'
        """
        return json.dumps(self.to_dict(file, time))

    def to_dict(self, file: str | None = None, time: str | None = None) -> dict[str, Any]:
        """The same object as a dictionary."""
        return {"file": file, "time": time, **asdict(self)}


class Decoder:
    """Turns rows of class probabilities into events.

    Each row is averaged with those of the last `smoothing_ms`. If the average of a label stays at its threshold for
    `min_duration_ms`, that is an event; of several labels the likeliest wins. A label is not reported again until its
    average has fallen below `release` times the threshold, its release level. With `rise_ms`, an event must come within
    that time after the average was last below the release level: the probability of a word rises quickly, and a slow
    rise is not a word. There is no other event, of any label, within `refractory_ms` of one. How the rows are divided
    among calls changes nothing, to the last bit.

    An event ends at its decision. It starts a third of a window before the average rose above the release level,
    because a network must hear about that much of a word to believe in it.

    `labels` name the columns. `words` are the labels that can be events: those that the settings name, or else all
    except `silence` and `unknown`. `hop_s` is the time from row to row, `window_s` the length of sound that a row is
    based on. Raises UsageError for settings that make no sense, or that name unknown labels.

    >>> rows = np.zeros((20, 3), np.float32)
    >>> rows[14:18, 2] = 1.0
    >>> config = DetectorConfig(threshold=0.9, smoothing_ms=200, min_duration_ms=0)
    >>> Decoder(("silence", "unknown", "yes"), 0.1, config).process(rows)
    [Detection(label='yes', start_s=1.166667, end_s=1.6, confidence=1.0)]
    """

    def __init__(
        self,
        labels: Sequence[str],
        hop_s: float,
        config: DetectorConfig | None = None,
        window_s: float = CLIP_SAMPLES / SAMPLE_RATE,
    ) -> None:
        self.config = config or DetectorConfig()
        self.labels = tuple(labels)
        self.hop_s, self.window_s = hop_s, window_s
        check_config(self.config, self.labels)
        chosen = self.config.words or tuple(filter(is_word, labels))
        self._columns = [i for i, label in enumerate(labels) if label in chosen]
        self.words = tuple(labels[i] for i in self._columns)
        self._thresholds = [self.config.thresholds.get(word, self.config.threshold) for word in self.words]
        self._releases = [threshold * self.config.release for threshold in self._thresholds]
        self._lowest_release = min(self._releases, default=0.0)
        self._near_release = 0.999 * self._lowest_release  # less than by how much a mean can be rounded up
        self._n_smoothed = self._rows(self.config.smoothing_ms)
        self._n_held = self._rows(self.config.min_duration_ms)
        self._n_rise = self._rows(self.config.rise_ms) if self.config.rise_ms else np.iinfo(np.int64).max
        self._n_refractory = self._rows(self.config.refractory_ms)
        self.reset()

    def _rows(self, ms: float) -> int:
        return max(1, round(ms / (1000.0 * self.hop_s)))

    def reset(self) -> None:
        """Go back to the start of a stream, with silence before it."""
        n_words = len(self.words)
        # Lists: most calls bring one row, for which they are several times as fast as arrays.
        self._past = [[0.0] * n_words for _ in range(self._n_smoothed - 1)]
        self._row = 0  # the next
        self._last_near = -self._n_smoothed  # the last row in which a word was near its release
        self._last_event = -self._n_refractory
        self._last_short = [-1] * n_words  # the last row in which each word was below its threshold
        self._last_low = [-1] * n_words  # in which it was below its release
        self._reported = [-2] * n_words  # in which it was an event

    def process(self, rows: npt.ArrayLike) -> list[Detection]:
        """The events in `rows` (n, labels), in order of time.

        Raises UsageError for rows of another width.
        """
        events: list[Detection] = []
        self._advance(rows, events, False)
        return events

    def step(self, rows: npt.ArrayLike) -> tuple[Averages, list[Detection]]:
        """The averages (n, words) of `rows` (n, labels), and their events in order of time.

        Raises UsageError for rows of another width.
        """
        events: list[Detection] = []
        averages = self._advance(rows, events, True)
        return np.array(averages, np.float64).reshape(len(averages), len(self.words)), events

    def _advance(
        self, rows: npt.ArrayLike, events: list[Detection], has_averages: bool
    ) -> list[list[float]] | Averages:
        """Process `rows`: return their averages, if asked for, and append their events to `events`."""
        values = np.asarray(rows)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise UsageError(f"probabilities have shape {values.shape}, expected (rows, {len(self.labels)})")
        if len(values) <= FEW_ROWS:
            return [self._step_row(row, events, has_averages) for row in values.tolist()]
        averages = self._smooth(values)
        self._last_near = self._row + len(values)  # or before
        for start in range(0, len(averages), BLOCK_ROWS):
            self._decide_block(averages[start : start + BLOCK_ROWS], events)
        return averages

    def _step_row(self, row: list[float], events: list[Detection], has_averages: bool) -> list[float]:
        """Process one row, as a block of one; returns its averages, if asked for."""
        values = [row[column] for column in self._columns]
        rows = [*self._past, values]
        self._past = rows[1:]
        number = self._row
        self._row += 1
        if max(values, default=0.0) >= self._near_release:
            self._last_near = number
        is_quiet = number - self._last_near >= self._n_smoothed  # as most often: no average can be near a release
        averages = [] if is_quiet and not has_averages else self._means(rows)
        if is_quiet or max(averages, default=0.0) < self._lowest_release:
            self._last_short, self._last_low = [number] * len(values), [number] * len(values)
            return averages
        due = []
        for word, average in enumerate(averages):
            if average < self._releases[word]:
                self._last_low[word] = number
            if average < self._thresholds[word]:
                self._last_short[word] = number
            elif number - self._last_short[word] >= self._n_held and number - self._last_low[word] <= self._n_rise:
                due.append(word)
        self._decide(number, averages, due, self._last_low, events)
        return averages

    def _means(self, rows: list[list[float]]) -> list[float]:
        """The mean of each word over `rows`, added up in their order."""
        total = rows[0]
        for values in rows[1:]:
            total = list(map(add, total, values))
        return [value / self._n_smoothed for value in total]

    def _smooth(self, rows: npt.NDArray[Any]) -> Averages:
        """The means of each row and those before it, added up in the same order however rows come."""
        values = rows[:, self._columns].astype(np.float64)
        if not self._past:
            return values
        joined = np.concatenate([self._past, values])
        totals = joined[: len(values)].copy()
        for i in range(1, self._n_smoothed):
            totals += joined[i : i + len(values)]
        self._past = joined[len(values) :].tolist()
        return totals / self._n_smoothed

    def _decide_block(self, averages: Averages, events: list[Detection]) -> None:
        """Process many rows at once."""
        numbers = self._row + np.arange(len(averages))[:, None]
        last_short = _latest(numbers, averages < self._thresholds, self._last_short)
        last_low = _latest(numbers, averages < self._releases, self._last_low)
        due = (numbers - last_short >= self._n_held) & (numbers - last_low <= self._n_rise)
        due &= last_low > self._reported  # those that this block reports are left to _decide
        for i in np.flatnonzero(due.any(1)).tolist():
            self._decide(self._row + i, averages[i], np.flatnonzero(due[i]), last_low[i], events)
        self._last_short, self._last_low = last_short[-1].tolist(), last_low[-1].tolist()
        self._row += len(averages)

    def _decide(
        self,
        number: int,
        averages: Sequence[float] | Averages,
        due: Iterable[int],
        last_low: Sequence[int] | Rows,
        events: list[Detection],
    ) -> None:
        """Report the likeliest of the words that are `due` in a row and were released, unless an event was just before.

        If several are equally likely, the first wins.
        """
        if number - self._last_event < self._n_refractory:
            return
        ready = [word for word in due if last_low[word] > self._reported[word]]
        if ready:
            word = max(ready, key=averages.__getitem__)
            self._last_event = self._reported[word] = number
            events.append(self._event(word, number, int(last_low[word]) + 1, float(averages[word])))

    def _event(self, word: int, row: int, risen: int, confidence: float) -> Detection:
        end_s = (row + 1) * self.hop_s
        start_s = max(0.0, end_s - self.window_s, (risen + 1) * self.hop_s - self.window_s * ONSET_SHARE)
        return Detection(self.words[word], round(start_s, 6), round(end_s, 6), round(confidence, 6))


def _latest(numbers: Rows, happened: npt.NDArray[np.bool_], before: list[int]) -> Rows:
    """For each row and word, the last row so far in which it happened; `before` is that of earlier calls."""
    return np.maximum.accumulate(np.where(happened, numbers, before), axis=0)


def check_config(config: DetectorConfig, labels: Sequence[str]) -> None:
    """Raise UsageError for settings that make no sense with `labels`."""
    for name, value in vars(config).items():
        if name not in ("thresholds", "words") and not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
            raise UsageError(f"the detector's {name} is {value!r}, expected a number from 0")
    if not isinstance(config.thresholds, Mapping):
        raise UsageError(f"the detector's thresholds are {config.thresholds!r}, expected numbers by label")
    words = [label for label in labels if is_word(label)]
    if isinstance(config.words, str) or not isinstance(config.words, Sequence):
        raise UsageError(f"the detector's words are {config.words!r}, expected a list of them")
    strange = [word for word in config.words if word not in words]
    if strange:
        raise UsageError(f"found the word {strange[0]!r} to listen for, expected one or more of {', '.join(words)}")
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
    """Raise UsageError, beginning with `name`, unless `value` is above 0 and at most 1."""
    if not (isinstance(value, (int, float)) and 0 < value <= 1):
        raise UsageError(f"{name} is {value!r}, expected a number above 0, at most 1")
