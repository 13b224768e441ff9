"""Words in a stream of sound: probabilities over time in, events out. Numpy and the runtime alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .artefact import Metadata
from .audio import Samples, Source, from_array, is_source, stream_mono
from .config import CLIP_SAMPLES, SAMPLE_RATE, SILENCE, UNKNOWN, DetectorConfig, from_mapping
from .errors import AudioError, ModelError, UsageError
from .files import write_json
from .runtime import Classifier, SlidingWindow, Stream, StreamModel, open_model

Averages = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Watch = Callable[[Samples, Averages], None]

CONFIG_FORMAT = 1
BLOCK_ROWS = 4096  # rows of probabilities looked at together
TAIL_MS = 500  # of silence after a recording, so that a word at its very end is heard out


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
        self._columns = [i for i, label in enumerate(labels) if label not in (SILENCE, UNKNOWN)]
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
    words = [label for label in labels if label not in (SILENCE, UNKNOWN)]
    for label, value in config.thresholds.items():
        if label not in words:
            raise UsageError(f"found a threshold for {label!r}, expected one of {', '.join(words)}")
        _check_share(value, f"the detector's threshold for {label!r}")
    _check_share(config.threshold, "the detector's threshold")
    _check_share(config.release, "the detector's release, a part of the threshold,")
    if 0 < config.rise_ms < config.min_duration_ms:
        raise UsageError(
            f"the detector's rise_ms is {config.rise_ms!r}, expected 0 or no less than min_duration_ms, "
            f"{config.min_duration_ms!r}"
        )
    if config.hop_ms < 10 or config.hop_ms > 1000:
        raise UsageError(f"the detector's hop is {config.hop_ms} ms, expected 10 to 1000")


def _check_share(value: Any, name: str) -> None:
    if not (isinstance(value, (int, float)) and 0 < value <= 1):
        raise UsageError(f"{name} is {value!r}, expected over 0, up to 1")


class Detector:
    """Finds words in a stream of sound: chunks of any length in, events out.

    `model` is an artefact's path, the name of a bundled model (default: the package's streaming one), or a loaded
    StreamModel or Classifier; a clip artefact slides over the sound. `config` replaces the defaults that the artefact
    carries. The same samples give the same events, however they are divided into chunks and whenever they come.
    Raises ModelError as loading the artefact does, UsageError for settings that make no sense.

    >>> Detector().process(np.zeros(32000))
    []
    """

    def __init__(
        self,
        model: str | Path | StreamModel | Classifier | None = None,
        config: DetectorConfig | None = None,
        threads: int = 1,
    ) -> None:
        loaded = model if isinstance(model, (StreamModel, Classifier)) else open_model(model, threads)
        self.model = loaded
        self.config = config or config_of(loaded)
        self.posteriors: Stream | SlidingWindow = (
            loaded.stream() if isinstance(loaded, StreamModel) else SlidingWindow(loaded, self.config.hop_ms)
        )
        self.decoder = Decoder(loaded.labels, self.posteriors.hop / SAMPLE_RATE, self.config)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, silence and unknown among them."""
        return self.decoder.labels

    def process(self, chunk: npt.ArrayLike, rate: float = SAMPLE_RATE) -> list[Detection]:
        """Events found up to the end of `chunk`, (samples,) at 16 kHz in [-1, 1], of any length.

        Integers are scaled by their type's range. Raises AudioError, and stays as it was, for another shape, type or
        rate, or samples that are not numbers.
        """
        return self.decoder.process(self.posteriors.process(chunk, rate))

    def finish(self) -> list[Detection]:
        """The events that half a second of silence after the end brings about; then start anew."""
        events = self.process(np.zeros(SAMPLE_RATE * TAIL_MS // 1000, np.float32))
        self.reset()
        return events

    def reset(self) -> None:
        """Back to the start of a stream: silence before the next chunk."""
        self.posteriors.reset()
        self.decoder.reset()

    def detect(self, audio: Source | npt.ArrayLike, rate: float = SAMPLE_RATE) -> Iterator[Detection]:
        """Events of a whole recording, as they are found: a sound file of any length, or samples at `rate` Hz.

        Memory does not grow with the length of a file. Starts anew before and after.
        Raises AudioError if it cannot be read, after the events found until then.
        """
        return self.detect_blocks(stream_mono(audio) if is_source(audio) else [from_array(audio, rate)])  # type: ignore[arg-type]

    def detect_blocks(self, blocks: Iterable[Samples], watch: Watch | None = None) -> Iterator[Detection]:
        """Events of a recording that comes in blocks, each (samples,) float32 at 16 kHz, as they are found.

        `watch(block, averages)` is shown each block with the averages (hops, words) that its hops are judged by.
        Starts anew before and after. An AudioError of `blocks` is raised after the events found until then.
        """
        self.reset()
        failure = None
        try:
            for block in blocks:
                rows = self.posteriors.process(block)
                if watch is not None:
                    watch(block, self.decoder.smooth(rows))
                yield from self.decoder.process(rows)
        except AudioError as error:
            failure = error
        yield from self.finish()
        if failure is not None:
            raise failure


def config_of(model: StreamModel | Classifier) -> DetectorConfig:
    """The detector's defaults that an artefact carries, or those of the package.

    Raises ModelError if they make no sense.
    """
    try:
        return _to_config(model.metadata.detector, model.labels, str(model.path))
    except (TypeError, UsageError) as error:
        raise ModelError(f"{model.path}: holds unusable detector settings ({error}), export it again") from error


def write_config(
    path: Path, config: DetectorConfig, model: StreamModel | Classifier, expected: dict[str, Any] | None = None
) -> None:
    """Write a detector's settings for `model` to a small JSON file, with what is to be `expected` of them.

    Raises KwsError if it cannot be written.
    """
    metadata = model.metadata
    write_json(
        path,
        {
            "format": CONFIG_FORMAT,
            "model": metadata.name,
            "checkpoint_sha256": metadata.checkpoint_sha256,
            "detector": asdict(config),
            "expected": expected or {},
        },
    )


def read_config(path: Path, metadata: Metadata) -> DetectorConfig:
    """The settings in a file of `write_config` for the artefact that `metadata` are of, or another of its network.

    Raises UsageError if it is no such file, or was made for another network.
    """
    expected = "expected a file of `tiny-kws calibrate`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found_format, sha256, settings = content["format"], content["checkpoint_sha256"], content["detector"]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}), {expected}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: holds no detector settings ({error}), {expected}") from error
    if found_format != CONFIG_FORMAT:
        raise UsageError(f"{path}: has format {found_format}, expected {CONFIG_FORMAT}; calibrate again")
    if sha256 != metadata.checkpoint_sha256:
        raise UsageError(
            f"{path}: was made for the model {content.get('model')!r} and not for this {metadata.name!r}, whose "
            "thresholds differ; calibrate again or name that model"
        )
    try:
        return _to_config(settings, metadata.labels, str(path))
    except (ModelError, TypeError, UsageError) as error:
        raise UsageError(f"{path}: holds no detector settings for this model ({error}), {expected}") from error


def _to_config(settings: Any, labels: Sequence[str], where: str) -> DetectorConfig:
    config = from_mapping(DetectorConfig, settings, where)
    check_config(config, labels)
    return config
