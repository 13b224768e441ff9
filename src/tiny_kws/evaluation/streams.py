"""Compares events in long recordings with the words in them: manifest, posteriors, scores, sweep of thresholds."""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artefact.runtime import Classifier, Probabilities, StreamModel
from ..audio import stream_mono
from ..config import CLIP_SAMPLES, SAMPLE_RATE, DetectorConfig
from ..data.material import TRAITS, Traits, traits_of
from ..errors import AudioError, DataError, KwsError
from ..listening.decoder import Decoder, Detection
from ..listening.detector import Detector
from ..listening.pause import HopPowers, PauseGate, Powers
from ..words import SILENCE, UNKNOWN, is_word
from .metrics import Rule

N_THRESHOLDS = 160
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.05, 0.9999
END_SLACK_S = 0.05  # labels may end so much after their recording: coders round lengths
BORDER_S = 1e-6  # times are rounded to this


RULES = {rule.name: rule for rule in (Rule("tiny-kws", 0.5, 0.0), Rule("mlperf-tiny", 1.0, 1.0))}
"""The project's own rule, and that of MLPerf Tiny's streaming wake word (mlcommons/tiny, benchmark/runner)."""


@dataclass(frozen=True)
class Stretch:
    """A part of a recording: a keyword under its label, other speech as `unknown`, none as `silence`."""

    label: str
    start_s: float
    end_s: float
    speaker: str = ""
    """Empty if not known."""
    traits: Traits = ()
    """Pairs such as ("accent", "scotland"): what the manifest says of the speaker."""

    @property
    def is_word(self) -> bool:
        """Whether it is a keyword."""
        return is_word(self.label)


@dataclass(frozen=True)
class Recording:
    """A sound file and its labelled stretches, by their start; words do not overlap."""

    path: Path
    stretches: tuple[Stretch, ...] = ()

    @property
    def words(self) -> list[Stretch]:
        """The keywords in it."""
        return [stretch for stretch in self.stretches if stretch.is_word]

    @property
    def speakers(self) -> set[str]:
        """The known speakers in it."""
        return {stretch.speaker for stretch in self.stretches} - {""}

    @property
    def speech_s(self) -> float:
        """Seconds in which somebody speaks, whatever it is."""
        total = end = 0.0
        for stretch in self.stretches:
            if stretch.label != SILENCE:
                total += max(0.0, stretch.end_s - max(end, stretch.start_s))
                end = max(end, stretch.end_s)
        return total


@dataclass(frozen=True)
class Posteriors:
    """A model's answers for a recording of `seconds`: probabilities (rows, labels), one row every `hop_s`.

    The rows go on over the silence that a detector hears after the end. `cpu_s` is what model and decoder took,
    `window_s` the sound that a row is based on.
    """

    recording: Recording
    labels: tuple[str, ...]
    hop_s: float
    rows: Probabilities
    seconds: float
    cpu_s: float
    window_s: float = CLIP_SAMPLES / SAMPLE_RATE
    powers: Powers = field(default_factory=lambda: np.zeros(0))
    """The mean square of the hop before each row."""

    def events(self, config: DetectorConfig) -> list[Detection]:
        """The events that a detector with other settings would report; the hop of a sliding window stays."""
        events = Decoder(self.labels, self.hop_s, config, self.window_s).process(self.rows)
        if not config.pause_ms:
            return events
        return PauseGate(round(self.hop_s * SAMPLE_RATE), config.pause_ms).of_all(events, self.powers)


@dataclass(frozen=True)
class Score:
    """The events of one recording against its words."""

    words: tuple[Stretch, ...]
    hits: tuple[Detection | None, ...]
    """The event that claimed each word, or None for a missed one."""
    false_alarms: tuple[Detection, ...]
    confusions: tuple[tuple[str, str], ...]
    """Label said and label heard, of those false alarms that lie where a word of another label would be hit."""

    @property
    def missed(self) -> list[Stretch]:
        """The words that no event claimed."""
        return [word for word, hit in zip(self.words, self.hits, strict=True) if hit is None]


@dataclass(frozen=True)
class Point:
    """One threshold of a sweep, with the score of each recording."""

    threshold: float
    scores: tuple[Score, ...]


def read_manifest(path: Path, labels: Sequence[str], words: Sequence[str] = ()) -> tuple[list[Recording], list[str]]:
    """Recordings of a JSON-lines manifest, in its order, and what is wrong with those that are left out.

    A line holds `file` (relative to the manifest), `label` (one of `labels`, silence or unknown), `start_s`, `end_s`
    and, if known, `speaker`, `age`, `gender` and `accent`; whatever else it holds is ignored. With `words` these alone
    are keywords, and any other word counts as other speech. A recording with a bad line is left out whole, since a word
    without its label would count as a false alarm. Raises DataError if the manifest cannot be read, or a line of it
    does not say which recording it labels.
    """
    stretches: dict[Path, list[tuple[int, Stretch]]] = {}
    problems: dict[Path, str] = {}
    for number, line in _manifest_lines(path):
        file = Path(os.path.normpath(path.parent / line["file"]))
        stretches.setdefault(file, [])
        try:
            stretches[file].append((number, _stretch(line, labels, words)))
        except ValueError as error:
            problems.setdefault(file, f"{path}, line {number}: {error}; {file} is left out")
    recordings = []
    for file, found in stretches.items():
        found.sort(key=lambda item: item[1].start_s)
        spoken = [(number, stretch) for number, stretch in found if stretch.is_word]
        for (first, before), (number, word) in pairwise(spoken):
            if word.start_s < before.end_s:
                problems.setdefault(
                    file,
                    f"{path}, lines {first} and {number}: their words overlap, expected one at a time; "
                    f"{file} is left out",
                )
        if file not in problems:
            recordings.append(Recording(file, tuple(stretch for _, stretch in found)))
    return recordings, list(problems.values())


def _manifest_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    expected = 'expected lines like {"file": "a.flac", "label": "yes", "start_s": 1.0, "end_s": 1.5, "speaker": "b"}'
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}), {expected}") from error
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: is empty, {expected}")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: is not JSON ({error}), {expected}") from error
        if not (isinstance(content, dict) and isinstance(content.get("file"), str) and content["file"]):
            raise DataError(f"{path}, line {number}: names no file, {expected}")
        yield number, content


def _stretch(line: dict[str, Any], labels: Sequence[str], words: Sequence[str]) -> Stretch:
    """A line of a manifest. Raises ValueError, saying what was found and expected."""
    label, speaker = line.get("label"), line.get("speaker", "")
    if isinstance(label, str) and words and is_word(label) and label not in words:
        label = UNKNOWN
    if label not in (SILENCE, UNKNOWN, *labels):
        raise ValueError(
            f"found the label {label!r}, expected one of {', '.join(labels)}; with --words other words are other speech"
        )
    known = {"speaker": speaker, **{name: line.get(name, "") for name in TRAITS}}
    for name, value in known.items():
        if not isinstance(value, str):
            raise ValueError(f"found the {name} {value!r}, expected a text")  # noqa: TRY004  (one kind of bad line)
    times = [line.get(name) for name in ("start_s", "end_s")]
    if not all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in times):
        raise ValueError(f"found start_s {times[0]!r} and end_s {times[1]!r}, expected seconds")
    start_s, end_s = map(float, times)  # type: ignore[arg-type]
    if not 0 <= start_s < end_s:
        raise ValueError(f"is from {start_s:g} s to {end_s:g} s, expected a start from 0 and an end after it")
    return Stretch(str(label), start_s, end_s, speaker, traits_of(known))


def posteriors_of(
    model: StreamModel | Classifier,
    recordings: Iterable[Recording],
    config: DetectorConfig | None = None,
    on_error: Callable[[KwsError], None] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Posteriors]:
    """Run a model over recordings, each streamed from its start; of `config` only `hop_ms` changes the result.

    `on_error` is called for recordings that cannot be read or are shorter than their labels, which are then left out;
    without it, an AudioError or DataError is raised.
    """
    detector = Detector(model, config)
    heard = []
    for done, recording in enumerate(recordings, 1):
        try:
            heard.append(_listen(detector, recording))
        except (AudioError, DataError) as error:
            if on_error is None:
                raise
            on_error(error)
        progress(done)
    return heard


def _listen(detector: Detector, recording: Recording) -> Posteriors:
    detector.reset()
    rows, n_samples, cpu_s = [], 0, 0.0
    powers, of_hops = HopPowers(round(detector.hop_s * SAMPLE_RATE)), []
    for block in chain(stream_mono(recording.path), [detector.tail]):
        n_samples += len(block)
        started = time.process_time()
        rows.append(detector.step(block).rows)
        cpu_s += time.process_time() - started
        of_hops.append(powers.process(block))
    n_samples -= len(detector.tail)
    seconds = n_samples / SAMPLE_RATE
    last_s = max((stretch.end_s for stretch in recording.stretches), default=0.0)
    if last_s > seconds + END_SLACK_S:
        raise DataError(
            f"{recording.path}: is {seconds:.2f} s long, expected {last_s:.2f} s or more by its labels; left out"
        )
    return Posteriors(
        recording,
        detector.labels,
        detector.hop_s,
        np.concatenate(rows),
        seconds,
        cpu_s,
        detector.window_s,
        np.concatenate(of_hops),
    )


def score(events: Iterable[Detection], words: Iterable[Stretch], rule: Rule) -> Score:
    """Match events with words, which do not overlap.

    An event lies at its `end_s`, the moment of its decision. It claims the first word of its label, not yet claimed,
    that began before it and ended no more than `rule.after_s` before it; one event claims one word at most. If there is
    only a claimed word, the event is ignored. Every other event is a false alarm: also one where a word of another
    label would be hit, which besides is a confusion, and does not claim that word.
    """
    said = sorted(words, key=lambda word: word.start_s)
    starts, ends = [word.start_s for word in said], [word.end_s for word in said]
    hits: list[Detection | None] = [None] * len(said)
    false_alarms: list[Detection] = []
    confusions = []
    for event in sorted(events, key=lambda event: event.end_s):
        first = bisect_left(ends, event.end_s - rule.after_s - BORDER_S)
        open_words = range(first, bisect_right(starts, event.end_s + BORDER_S))
        same = [i for i in open_words if said[i].label == event.label]
        free = [i for i in same if hits[i] is None]
        if free:
            hits[free[0]] = event
        elif not same and not _debounced(event, false_alarms, rule):
            false_alarms.append(event)
            confusions += [(said[i].label, event.label) for i in open_words[-1:]]
    return Score(tuple(said), tuple(hits), tuple(false_alarms), tuple(confusions))


def _debounced(event: Detection, false_alarms: list[Detection], rule: Rule) -> bool:
    since = event.end_s - false_alarms[-1].end_s if false_alarms else math.inf
    return since <= rule.debounce_s + BORDER_S and rule.debounce_s > 0


def threshold_grid(n: int = N_THRESHOLDS) -> npt.NDArray[np.float64]:
    """`n` rising thresholds, equally far apart in logit, so that they are dense near 1."""
    low, high = logit(LOWEST_THRESHOLD), logit(HIGHEST_THRESHOLD)
    grid: npt.NDArray[np.float64] = np.round(sigmoid(np.linspace(low, high, n)), 6)
    return grid


def with_threshold(config: DetectorConfig, threshold: float) -> DetectorConfig:
    """The same settings at another threshold; labels with a threshold of their own move as far in logit.

    >>> moved = with_threshold(DetectorConfig(threshold=0.5, thresholds={"yes": 0.8}), 0.8)
    >>> moved.threshold, round(moved.thresholds["yes"], 4)
    (0.8, 0.9412)
    """
    offset = logit(threshold) - logit(config.threshold)
    own = {label: float(sigmoid(logit(value) + offset)) for label, value in config.thresholds.items()}
    return replace(config, threshold=float(threshold), thresholds=own)


def sweep(
    heard: Sequence[Posteriors],
    config: DetectorConfig,
    rule: Rule = RULES["tiny-kws"],
    thresholds: Iterable[float] | None = None,
    most_per_hour: float = math.inf,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Point]:
    """Score recordings at each threshold, rising; `thresholds` are those of `threshold_grid` by default.

    Thresholds below one with more than `most_per_hour` false alarms, which take longest, are left out.
    """
    most = most_per_hour * sum(one.seconds for one in heard) / 3600
    points: list[Point] = []
    for threshold in sorted(threshold_grid() if thresholds is None else thresholds, reverse=True):
        settings = with_threshold(config, float(threshold))
        scores = tuple(score(one.events(settings), one.recording.words, rule) for one in heard)
        points.append(Point(float(threshold), scores))
        progress(len(points))
        if sum(len(one.false_alarms) for one in scores) > most:
            break
    return points[::-1]


def logit(probability: Any) -> Any:
    """Log odds of probabilities, any shape; 0 and 1 count as 1e-9 from them."""
    clipped = np.clip(probability, 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))


def sigmoid(value: Any) -> Any:
    """The probabilities of log odds, any shape."""
    return 1 / (1 + np.exp(-value))
