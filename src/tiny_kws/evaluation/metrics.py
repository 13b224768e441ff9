"""The content of `metrics.json`: what was measured of a model on clips and in streams."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import DetectorConfig
from ..errors import DataError
from ..json_form import INLINE, Result, from_json

METRICS = "metrics.json"
Interval = tuple[float, float]
"""A 95 % interval."""


@dataclass(frozen=True)
class Accuracy:
    """How many of some clips were right."""

    clips: int
    accuracy: float
    accuracy_interval: Interval


@dataclass(frozen=True)
class Recall:
    """How many of some clips were recognised; None of none."""

    clips: int
    recall: float | None
    recall_interval: Interval | None


# ---- on clips


@dataclass(frozen=True)
class ModelFacts:
    """Which model was measured."""

    name: str
    sha256: str
    parameters: int
    weight_bytes: int


@dataclass(frozen=True)
class ClipFacts:
    """Which clips it was measured on; `clips_sha256` is over their names in order."""

    name: str
    clips: int
    clips_sha256: str


@dataclass(frozen=True)
class LabelScores:
    """The scores of one label; `support` is the number of its clips."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ClipScores:
    """How well clips were classified; `confusion_matrix` has a row for what was said, a column for what was heard."""

    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    calibration_error: float
    per_class: dict[str, LabelScores]
    labels: tuple[str, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class UnknownRecall:
    """How much of `unknown` was recognised as such, by word; `left_out` are the words that no training heard."""

    left_out: tuple[str, ...]
    heard: Recall
    never_heard: Recall
    by_word: dict[str, Recall]


@dataclass(frozen=True)
class Robustness:
    """Accuracy in noise and in rooms: by condition, and by kind of noise (at each SNR) and room."""

    seed: int
    material_sha256: dict[str, str]
    noises: int
    room_responses: int
    conditions: dict[str, Accuracy]
    by_noise: dict[str, dict[str, Accuracy]]
    by_room: dict[str, Accuracy]


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a detector."""

    threshold: float
    thresholds: dict[str, float]


@dataclass(frozen=True)
class CalledShare:
    """How many windows were called a keyword above a threshold; no interval with one group."""

    windows: int
    share: float
    share_interval: Interval | None


@dataclass(frozen=True)
class CalledKeywords:
    """How much sound without keywords was taken for one; `groups` are speakers, or sources of noise."""

    recordings: int
    too_short: int
    groups: int
    windows: int
    detector: Thresholds
    called_keyword: dict[str, CalledShare]


@dataclass(frozen=True)
class KeywordFree:
    """Sound without keywords, if there was any."""

    speech: CalledKeywords | None = None
    noise: CalledKeywords | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the samples of one clip to its probabilities."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    runs: int
    threads: int
    processor: str


@dataclass(frozen=True)
class ClipMetrics:
    """An evaluation on clips. `held_out` says whether noises, rooms and speakers are those that no training uses."""

    model: ModelFacts
    data: ClipFacts
    scores: ClipScores = field(metadata=INLINE)
    unknown: UnknownRecall | None = None
    robustness: Robustness | None = None
    keyword_free: KeywordFree | None = None
    latency: Latency | None = None
    held_out: bool | None = None


# ---- in streams


@dataclass(frozen=True)
class Rule:
    """What counts as a hit: an event from a word's start to `after_s` after its end.

    A false alarm silences those of the `debounce_s` after it.
    """

    name: str
    after_s: float
    debounce_s: float


@dataclass(frozen=True)
class AudioFacts:
    """What the figures are based on: recordings, hours of speech and of noise, keywords, their speakers."""

    recordings: int
    hours: float
    speech_hours: float
    noise_hours: float
    keywords: int
    speakers: int


@dataclass(frozen=True)
class FalseAlarms:
    """The number of false alarms, and the rate per hour; None without sound."""

    false_alarms: int
    false_alarms_per_hour: float | None
    false_alarms_per_hour_interval: Interval | None


@dataclass(frozen=True)
class Counts:
    """Misses and false alarms as counts and rates; no interval of misses with fewer than two speakers."""

    words: int
    misses: int
    miss_rate: float | None
    miss_rate_interval: Interval | None
    alarms: FalseAlarms = field(metadata=INLINE)


@dataclass(frozen=True)
class RatePoint:
    """What came where `rate_per_hour` false alarms per hour were wanted; `counts` is None where no threshold gives it.

    `thresholds` are those of each way of choosing, `resolvable` whether there was sound enough to tell the rate from a
    lower one.
    """

    rate_per_hour: float
    thresholds: tuple[float | None, ...]
    resolvable: bool
    reached: bool
    counts: Counts | None = field(metadata=INLINE)


@dataclass(frozen=True)
class HeldOut:
    """Each rate's threshold chosen on one half of the speakers and counted on the other, both ways.

    With `in_sample` speakers do not fall into two halves, and thresholds come from the recordings they are counted on.
    """

    in_sample: bool
    seed: int
    halves: tuple[AudioFacts, ...]
    rates: tuple[RatePoint, ...]


@dataclass(frozen=True)
class InSample:
    """Each rate's threshold chosen on the very recordings that it is counted on."""

    in_sample: bool
    rates: tuple[RatePoint, ...]


@dataclass(frozen=True)
class LabelCounts:
    """Counts of one label."""

    words: int
    misses: int
    false_alarms: int


@dataclass(frozen=True)
class TraitCounts:
    """Counts of speakers with one trait: of their keywords, and of false alarms in `hours` of their other speech."""

    hours: float
    counts: Counts = field(metadata=INLINE)


@dataclass(frozen=True)
class Confusion:
    """How often one word was said and another heard."""

    said: str
    heard: str
    count: int


@dataclass(frozen=True)
class WordLatency:
    """Seconds from the end of a word to its event, of so many hits."""

    p50: float
    p95: float
    hits: int


@dataclass(frozen=True)
class OperatingDetails:
    """By label, in speech and in noise; `counts`, `thresholds` and `in_sample` are those of the rate in `HeldOut`.

    `by_trait` is of the speakers of whom the manifest says something, such as their accent: by trait, and by its value.
    """

    by_label: dict[str, LabelCounts]
    in_speech: FalseAlarms
    in_noise: FalseAlarms
    confusions: tuple[Confusion, ...]
    latency_from_word_end_s: WordLatency | None
    in_sample: bool | None = None
    thresholds: tuple[float, ...] | None = None
    counts: Counts | None = field(default=None, metadata=INLINE)
    by_trait: dict[str, dict[str, TraitCounts]] | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """A closer look at one rate; `details` is None where no threshold gives it."""

    rate_per_hour: float
    reached: bool
    details: OperatingDetails | None = field(metadata=INLINE)


@dataclass(frozen=True)
class ErrorTradeoff:
    """Misses against false alarms over all recordings at each threshold, by rising threshold (in-sample)."""

    threshold: tuple[float, ...]
    false_alarms: tuple[int, ...]
    misses: tuple[int, ...]
    false_alarms_per_hour: tuple[float, ...]
    miss_rate: tuple[float, ...]


@dataclass(frozen=True)
class StreamScores:
    """All figures of a model on recordings: `held_out` to report, `everything` and `det` in-sample."""

    rule: Rule
    detector: DetectorConfig
    audio: AudioFacts
    cpu_s_per_s: float
    held_out: HeldOut
    operating_point: OperatingPoint
    everything: InSample
    det: ErrorTradeoff


@dataclass(frozen=True)
class Artefact:
    """The artefact that was measured.

    `measured_sha256` is of the file that was measured, where `sha256` is of one written later that answers the same.
    """

    name: str
    sha256: str
    measured_sha256: str | None = None


@dataclass(frozen=True)
class Origin:
    """How streams were made, by the `stream.json` of `make-stream`: its settings, the seed among them."""

    condition: str
    settings: dict[str, Any]
    recordings_sha256: str


@dataclass(frozen=True)
class Manifest:
    """Which recordings it was measured on, what of them was left out, and how they were made if that is known."""

    name: str
    sha256: str
    left_out: tuple[str, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True)
class ChosenOn:
    """The manifest of the recordings that settings were chosen on."""

    name: str
    sha256: str


@dataclass(frozen=True)
class SettingsFacts:
    """Where the detector's settings come from: a file, or with None the model.

    `chosen_here` says whether they were chosen on the very recordings that were measured; None where nothing tells.
    """

    config: str | None
    chosen_on: ChosenOn | None
    chosen_here: bool | None


@dataclass(frozen=True)
class StreamMetrics:
    """An evaluation in streams of sound."""

    model: Artefact
    manifest: Manifest
    scores: StreamScores = field(metadata=INLINE)
    settings: SettingsFacts | None = None


def read_clip_metrics(path: Path) -> ClipMetrics:
    """What `tiny-kws evaluate` wrote. Raises DataError if it is something else."""
    return read_result(ClipMetrics, path, "evaluate")


def read_stream_metrics(path: Path) -> StreamMetrics:
    """What `tiny-kws evaluate-stream` wrote. Raises DataError if it is something else."""
    return read_result(StreamMetrics, path, "evaluate-stream")


def read_result(kind: type[Result], path: Path, command: str) -> Result:
    """The result that a command wrote. Raises DataError, naming the command, if the file is something else."""
    expected = f"expected the metrics of `tiny-kws {command}`; run it again"
    try:
        return from_json(kind, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), {expected}") from error
    except ValueError as error:
        raise DataError(f"{path}: is something else ({error}), {expected}") from error
