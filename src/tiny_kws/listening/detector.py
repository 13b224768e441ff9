"""Words in a stream of sound: sound in, events out. Needs only numpy and the runtime."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artefact.format import Metadata
from ..artefact.runtime import Classifier, Probabilities, SlidingWindow, Stream, StreamModel, open_model
from ..audio import Samples, from_array, from_chunk, is_source, stream_mono
from ..config import SAMPLE_RATE, DetectorConfig, from_mapping, settings_of
from ..decoding import Source
from ..errors import AudioError, ModelError, UsageError
from ..files import write_json
from .decoder import Averages, Decoder, Detection, check_config
from .pause import PauseGate, waiting_ms

CONFIG_FORMAT = 1


@dataclass(frozen=True)
class Step:
    """What a detector found in a chunk of sound.

    `rows` are the probabilities (hops, labels) at the end of each hop that the chunk completes. `averages`
    (hops, words) are the smoothed probabilities that decide on events, and `events` are the words found.
    """

    rows: Probabilities
    averages: Averages
    events: list[Detection]


class Detector:
    """Finds words in a stream of sound: chunks of any length in, events out.

    `model` is an artefact's path, the name of a bundled model (default: the package's streaming one), or a loaded
    StreamModel or Classifier; a clip artefact is slid over the sound. `config` replaces the default settings in the
    artefact. The same samples give the same events, however they are divided into chunks and whenever they arrive.
    A detector can be copied and pickled, for other processes too, and continues there from where it was. The model is
    then read from its file again; a deep copy shares it.
    Raises ModelError if the artefact cannot be loaded, UsageError for settings that make no sense.

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
        self._posteriors: Stream | SlidingWindow = (
            loaded.stream() if isinstance(loaded, StreamModel) else SlidingWindow(loaded, self.config.hop_ms)
        )
        self.hop_s = self._posteriors.hop / SAMPLE_RATE
        """Seconds from one row to the next."""
        self.window_s = loaded.metadata.window / SAMPLE_RATE
        """Seconds of sound that a row is based on."""
        self._decoder = Decoder(loaded.labels, self.hop_s, self.config, self.window_s)
        self._gate = PauseGate(self._posteriors.hop, self.config.pause_ms) if self.config.pause_ms else None
        self.tail = np.zeros(tail_samples(loaded.metadata, self.config, self._posteriors.hop), np.float32)
        """The silence that follows a recording, so that a word at its very end is still found, (samples,)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of `rows`, silence and unknown among them if the model has them."""
        return self._decoder.labels

    @property
    def words(self) -> tuple[str, ...]:
        """The words that can be events, the labels of `averages`."""
        return self._decoder.words

    def step(self, chunk: npt.ArrayLike, rate: float = SAMPLE_RATE) -> Step:
        """Process `chunk`, (samples,) at 16 kHz in [-1, 1], of any length.

        Integers are scaled by the range of their type. Raises AudioError, without changing its state, for another
        shape, type or rate, or samples that are not numbers.
        """
        rows = self._posteriors.process(chunk, rate)
        averages, events = self._decoder.step(rows)
        return Step(rows, averages, self._followed(events, chunk, rate))

    def process(self, chunk: npt.ArrayLike, rate: float = SAMPLE_RATE) -> list[Detection]:
        """The events found up to the end of `chunk`; see `step`."""
        return self._followed(self._decoder.process(self._posteriors.process(chunk, rate)), chunk, rate)

    def _followed(self, events: list[Detection], chunk: npt.ArrayLike, rate: float) -> list[Detection]:
        """Where a pause must follow: those of these events and of earlier ones that one has followed by now."""
        return self._gate.hear(events, from_chunk(chunk, rate)) if self._gate else events

    def finish(self) -> list[Detection]:
        """Feed the silence that follows the end, return the events that it brings, and reset."""
        events = self.process(self.tail)
        self.reset()
        return events

    def reset(self) -> None:
        """Go back to the start of a stream, with silence before the next chunk."""
        self._posteriors.reset()
        self._decoder.reset()
        if self._gate:
            self._gate.reset()

    def detect(self, audio: Source | npt.ArrayLike, rate: float = SAMPLE_RATE) -> Iterator[Detection]:
        """Events of a whole recording, as they are found: a sound file of any length, or samples at `rate` Hz.

        Memory does not grow with the length of a file. The detector is reset before and after.
        Raises AudioError if the file cannot be read, after the events found until then.
        """
        return self.detect_blocks(stream_mono(audio) if is_source(audio) else [from_array(audio, rate)])  # type: ignore[arg-type]

    def detect_blocks(self, blocks: Iterable[Samples]) -> Iterator[Detection]:
        """Events of a recording that comes in blocks, each (samples,) float32 at 16 kHz, as they are found.

        The detector is reset before and after. An AudioError from `blocks` is raised after the events found until then.
        """
        for _, step in self.steps(blocks):
            yield from step.events

    def steps(self, blocks: Iterable[Samples]) -> Iterator[tuple[Samples, Step]]:
        """The blocks of a recording, each with its `Step`, and at the end one more step for a word that is cut off.

        That last step is of silence after the recording, so its block is empty. The detector is reset before and
        after. An AudioError from `blocks` is raised after everything that came before it.
        """
        self.reset()
        failure = None
        try:
            for block in blocks:
                yield block, self.step(block)
        except AudioError as error:
            failure = error
        yield np.zeros(0, np.float32), self.step(self.tail)
        self.reset()
        if failure is not None:
            raise failure


def tail_samples(metadata: Metadata, config: DetectorConfig, hop: int) -> int:
    """How much silence, in whole hops, is needed until the sound before it can cause no more events.

    No answer depends on sound older than a window, and no event waits longer than the smoothing, the minimum duration
    and the pause after it.
    """
    longest_ms = config.smoothing_ms + config.min_duration_ms + waiting_ms(config.pause_ms)
    samples = metadata.window + math.ceil(longest_ms * SAMPLE_RATE / 1000)
    return -(-samples // hop) * hop


def config_of(model: StreamModel | Classifier) -> DetectorConfig:
    """The default settings of the detector in an artefact, or else those of the package.

    Raises ModelError if they make no sense.
    """
    try:
        return _to_config(model.metadata.detector, model.labels, str(model.path))
    except (TypeError, UsageError) as error:
        raise ModelError(f"{model.path}: holds unusable detector settings ({error}), export it again") from error


def write_config(
    path: Path, config: DetectorConfig, model: StreamModel | Classifier, expected: dict[str, Any] | None = None
) -> None:
    """Write detector settings for `model` and the `expected` error rates to a small JSON file.

    Raises KwsError if it cannot be written.
    """
    metadata = model.metadata
    write_json(
        path,
        {
            "format": CONFIG_FORMAT,
            "model": metadata.name,
            "checkpoint_sha256": metadata.checkpoint_sha256,
            "detector": settings_of(config),
            "expected": expected or {},
        },
    )


def read_config(path: Path, metadata: Metadata) -> DetectorConfig:
    """Read the settings that `write_config` wrote, for the artefact with `metadata` or another of the same network.

    Raises UsageError if it is not such a file, or was made for another network.
    """
    expected = "expected a file written by `tiny-kws calibrate`"
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
    return replace(config, words=tuple(config.words))  # a list in JSON
