"""Artefact in, answers out: the only room that runs a model, on numpy and onnxruntime alone."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from .artefact import find_model, parse_metadata, read_artefact
from .audio import Source, Window, from_array, most_energetic_second, name_of, read_window
from .config import CLIP_SAMPLES, SAMPLE_RATE
from .errors import AudioError, KwsError, ModelError

Probabilities = npt.NDArray[np.float32]

BATCH_CLIPS = 32
DECODE_AHEAD = 4 * BATCH_CLIPS


@dataclass(frozen=True)
class Classification:
    """What was heard in one second of a recording.

    `probabilities` is the whole distribution by label, `start_s` where in the recording that second begins.
    """

    source: str
    label: str
    probability: float
    probabilities: dict[str, float]
    start_s: float

    def top(self, n: int) -> list[tuple[str, float]]:
        """The `n` likeliest labels with their probabilities, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:n]


class Classifier:
    """Classifies one-second windows of sound with an artefact. Safe to share between threads.

    `path` is an artefact or the name of a bundled model (default: the package's own); `threads` are onnxruntime's.
    Raises ModelError if the artefact is missing, foreign, altered or of a newer format.
    """

    def __init__(self, path: str | Path | None = None, threads: int = 1) -> None:
        self.path = find_model(path)
        self.session = open_session(read_artefact(self.path), threads, str(self.path))
        self.metadata = parse_metadata(self.session.get_modelmeta().custom_metadata_map, str(self.path))
        self.labels = tuple(self.metadata.labels)
        shapes = {value.name: value.shape for value in self.session.get_outputs()}
        if shapes.get("probabilities", [None])[-1] != len(self.labels):
            raise ModelError(
                f"{self.path}: gives probabilities of shape {shapes.get('probabilities')}, "
                f"expected {len(self.labels)} as it has labels"
            )

    def probabilities(self, windows: npt.ArrayLike) -> Probabilities:
        """Class probabilities (batch, labels) of one-second windows (batch, 16000) at 16 kHz in [-1, 1].

        Raises AudioError for another shape or samples that are not numbers.
        """
        batch = np.ascontiguousarray(windows, np.float32)
        if batch.ndim != 2 or batch.shape[1] != CLIP_SAMPLES:
            raise AudioError(f"windows have shape {batch.shape}, expected (batch, {CLIP_SAMPLES})")
        if not np.isfinite(batch).all():
            raise AudioError("windows hold NaN or infinity, expected samples in [-1, 1]")
        return self.session.run(["probabilities"], {"audio": batch})[0]  # type: ignore[no-any-return]

    def classify(self, audio: Source | npt.ArrayLike, rate: int = SAMPLE_RATE) -> Classification:
        """Classify a sound file, or samples at `rate` Hz; of a longer recording its most energetic second.

        Raises AudioError if it cannot be read; see `tiny_kws.audio.from_array` for what arrays may hold.

        >>> import numpy as np
        >>> Classifier().classify(np.zeros(16000)).label
        'silence'
        """
        return next(self.classify_many([audio], rate))

    def classify_many(
        self,
        audios: Iterable[Source | npt.ArrayLike],
        rate: int = SAMPLE_RATE,
        on_error: Callable[[str, KwsError], None] | None = None,
    ) -> Iterator[Classification]:
        """Classify many, in order, as they are decoded; decoding runs in threads and inference in batches.

        `on_error(source, error)` is told of those that cannot be read, which are then skipped; without it they raise.
        """
        windows: list[tuple[str, Window]] = []
        for name, decoded in _decode_ahead(audios, rate):
            try:
                windows.append((name, decoded.result()))
            except KwsError as error:
                if on_error is None:
                    raise
                on_error(name, error)
            if len(windows) == BATCH_CLIPS:
                yield from self._classify_windows(windows)
                windows = []
        if windows:
            yield from self._classify_windows(windows)

    def _classify_windows(self, windows: list[tuple[str, Window]]) -> Iterator[Classification]:
        batch = self.probabilities(np.stack([window.samples for _, window in windows]))
        for (name, window), row in zip(windows, batch, strict=True):
            best = int(row.argmax())
            distribution = dict(zip(self.labels, row.tolist(), strict=True))
            yield Classification(name, self.labels[best], float(row[best]), distribution, window.start_s)


def open_session(model: bytes, threads: int, where: str) -> ort.InferenceSession:
    """An onnxruntime session on the CPU. Raises ModelError, naming `where`, if the model does not parse."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{where}: onnxruntime cannot load it ({reason}); export it again") from error


def _decode(audio: Any, rate: int) -> Window:
    if isinstance(audio, (str, os.PathLike)) or hasattr(audio, "read"):
        return read_window(audio)
    return most_energetic_second([from_array(audio, rate)])


def _decode_ahead(audios: Iterable[Any], rate: int) -> Iterator[tuple[str, Future[Window]]]:
    """Decode in threads, a bounded number ahead, and give the results in order."""
    pending: deque[tuple[str, Future[Window]]] = deque()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            for audio in audios:
                named = isinstance(audio, (str, os.PathLike)) or hasattr(audio, "read")
                pending.append((name_of(audio) if named else "audio", pool.submit(_decode, audio, rate)))
                if len(pending) >= DECODE_AHEAD:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for _, future in pending:
                future.cancel()
