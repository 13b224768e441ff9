"""Runs artefacts, and is the only module that does; needs only numpy and onnxruntime."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ..audio import Samples, Window, from_array, from_chunk, is_source, name_of, stream_mono, windows_to_classify
from ..config import SAMPLE_RATE, DetectorConfig
from ..decoding import Source
from ..errors import AudioError, KwsError, ModelError, UsageError
from ..words import is_word
from .ends import NEXT, check_ends, ends_of, explained
from .format import Metadata, parse_metadata, read_artefact
from .store import find_model, lasting_name

if TYPE_CHECKING:
    from typing_extensions import Self

Probabilities = npt.NDArray[np.float32]
BATCH_CLIPS = 32
DECODE_AHEAD = BATCH_CLIPS
CERTAIN = 0.95  # of a word, to be heard elsewhere than in the most energetic window: at less, other words become one


@dataclass(frozen=True)
class Classification:
    """What was heard in one window of a recording.

    `probabilities` has the probability of every label; `start_s` is where in the recording the window begins.
    """

    source: str
    label: str
    probability: float
    probabilities: dict[str, float]
    start_s: float

    def top(self, n: int) -> list[tuple[str, float]]:
        """The `n` likeliest labels with their probabilities, likeliest first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:n]


class _Model:
    """An artefact of one `kind`: loaded, compared with its metadata and run once.

    It is pickled as its file's name and loaded from there again. A deep copy is the model itself, which never changes.
    """

    kind = ""

    def __init__(self, path: str | Path | None = None, threads: int = 1) -> None:
        self.path = find_model(path, self.kind)
        self.threads = threads
        self.session, self.metadata = _open(self.path, threads)
        self.labels = tuple(self.metadata.labels)
        if self.metadata.kind != self.kind:
            raise ModelError(f"{self.path}: is a {self.metadata.kind} artefact, expected one for {self.kind}s")
        self.ends = ends_of(self.session)
        check_ends(self.ends, self.metadata, str(self.path))
        with explained(str(self.path), "run"):
            self._try()

    def __reduce__(self) -> tuple[Any, ...]:
        checksum = self.metadata.artefact_sha256
        return _load_again, (type(self), lasting_name(self.path, self.kind), self.threads, checksum)

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    @property
    def window(self) -> int:
        """Number of samples that an answer is based on, at 16 kHz."""
        return self.metadata.window

    def _try(self) -> None:
        """Run the graph once, so that a fault inside it shows now."""
        raise NotImplementedError


def _load_again(kind: type[_Model], name: str, threads: int, checksum: str) -> _Model:
    """Load a pickled model. Raises ModelError if its file has changed, and as loading it does."""
    model = kind(name, threads)
    if model.metadata.artefact_sha256 != checksum:
        raise ModelError(
            f"{model.path}: holds a different model than when it was pickled, expected the same; load it again"
        )
    return model


class Classifier(_Model):
    """Classifies windows of sound with a clip artefact. It can be shared between threads, and pickled by its file.

    `path` is an artefact or the name of a bundled model (default: the package's own); `threads` is the number of
    threads of onnxruntime. Raises ModelError if the artefact is missing, of another kind, altered, of a newer format,
    or does not match its metadata.
    """

    kind = "clip"

    def _try(self) -> None:
        self._run(np.zeros((1, self.window), np.float32))

    def probabilities(self, windows: npt.ArrayLike) -> Probabilities:
        """Class probabilities (batch, labels) of windows (batch, `window`) at 16 kHz in [-1, 1].

        Raises AudioError for another shape or samples that are not numbers.
        """
        try:
            batch = np.ascontiguousarray(windows, np.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise AudioError(f"windows are not numbers in rows of equal length ({error})") from error
        if batch.ndim != 2 or batch.shape[1] != self.window:
            raise AudioError(f"windows have shape {batch.shape}, expected (batch, {self.window}) for {self.path}")
        if not np.isfinite(batch).all():
            raise AudioError("windows hold NaN or infinity, expected samples in [-1, 1]")
        if len(batch) == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        return self._run(batch)

    def _run(self, batch: Probabilities) -> Probabilities:
        return self.session.run(["probabilities"], {"audio": batch})[0]  # type: ignore[no-any-return]

    def classify(self, audio: Source | npt.ArrayLike, rate: int = SAMPLE_RATE) -> Classification:
        """Classify a sound file, or samples at `rate` Hz. If it is longer than a window, see `choose_window`.

        Raises AudioError if it cannot be read; see `tiny_kws.audio.from_array` for what arrays may hold.

        >>> import numpy as np
        >>> Classifier().classify(np.zeros(16000)).label
        'silence'
        """
        return next(self._classify_windows([(_name(audio), self._decode(rate, Event(), audio))]))

    def classify_many(
        self,
        audios: Iterable[Source | npt.ArrayLike],
        rate: int = SAMPLE_RATE,
        on_error: Callable[[str, KwsError], None] | None = None,
    ) -> Iterator[Classification]:
        """Classify many recordings, in order; decoding runs in threads and inference in batches of 32.

        Streams and pipes are read in the calling thread, so that Ctrl-C can interrupt the wait for them. If one cannot
        be read, `on_error(source, error)` is called and it is skipped; without `on_error` the error is raised.
        """
        windows: list[tuple[str, Window]] = []
        for name, decoded in _decode_ahead(audios, partial(self._decode, rate)):
            try:
                windows.append((name, decoded()))
            except KwsError as error:
                if on_error is None:
                    raise
                on_error(name, error)
            if len(windows) == BATCH_CLIPS:
                yield from self._classify_windows(windows)
                windows = []
        if windows:
            yield from self._classify_windows(windows)

    def choose_window(self, blocks: Iterable[Samples]) -> Window:
        """The window of a recording to classify; the recording comes in blocks, each (samples,) float32 at 16 kHz.

        It is the loudest window, unless the network hears no word there and is certain of one elsewhere, because a
        click may be louder than a word. At most 130 windows of a long recording are tried, to bound the cost.
        """
        windows = windows_to_classify(blocks, self.window)
        if len(windows) == 1:
            return windows[0]
        batches = (windows[i : i + BATCH_CLIPS] for i in range(0, len(windows), BATCH_CLIPS))
        rows = np.concatenate([self.probabilities(np.stack([one.samples for one in batch])) for batch in batches])
        certainty = np.where([is_word(self.labels[best]) for best in rows.argmax(axis=1)], rows.max(axis=1), 0.0)
        best = int(certainty.argmax())
        return windows[best] if certainty[0] == 0.0 and certainty[best] >= CERTAIN else windows[0]

    def _decode(self, rate: int, stopped: Event, audio: Any) -> Window:
        if not is_source(audio):
            return self.choose_window([from_array(audio, rate)])
        with closing(stream_mono(audio)) as blocks:
            return self.choose_window(takewhile(lambda _: not stopped.is_set(), blocks))

    def _classify_windows(self, windows: list[tuple[str, Window]]) -> Iterator[Classification]:
        batch = self.probabilities(np.stack([window.samples for _, window in windows]))
        for (name, window), row in zip(windows, batch, strict=True):
            best = int(row.argmax())
            distribution = dict(zip(self.labels, row.tolist(), strict=True))
            yield Classification(name, self.labels[best], float(row[best]), distribution, window.start_s)


class StreamModel(_Model):
    """A stream artefact, loaded once for any number of streams in any number of threads. Pickled like `Classifier`.

    `path` is an artefact of `tiny-kws export --stream`; `threads` is the number of threads of onnxruntime, of which one
    is fastest. Raises ModelError as `Classifier` does.
    """

    kind = "stream"

    def _try(self) -> None:
        self.stream().process(np.zeros(self.hop, np.float32))

    @property
    def hop(self) -> int:
        """Number of samples from one answer to the next, at 16 kHz."""
        return self.metadata.hop

    def stream(self) -> Stream:
        """A new stream, with silence before it."""
        return Stream(self)

    @property
    def has_batch(self) -> bool:
        """Whether one run can advance many streams; older artefacts take one at a time."""
        return self.ends.has_batch

    def zeros(self, output: str, size: int = 1) -> Probabilities:
        """An array for an output of the graph for `size` streams."""
        return np.zeros(self.ends.of_batch(self.ends.outputs[output], size), np.float32)

    def states(self, size: int = 1) -> dict[str, Probabilities]:
        """The initial states of `size` streams, which mean silence; each run replaces them."""
        return {name: self.zeros(NEXT + name, size) for name in self.ends.states}


class Stream:
    """One stream of sound: chunks of any length in, class probabilities out, one row for each whole hop.

    There is silence before its start. Only one thread at a time may use it. A copied or pickled stream continues from
    where it was.
    """

    def __init__(self, model: StreamModel) -> None:
        self.model = model
        self.labels = model.labels
        self.hop = model.hop
        self._hop = np.zeros((1, model.hop), np.float32)
        self._filled = 0
        self._probabilities = model.zeros("probabilities")
        self._embedding = model.zeros("embedding")
        # Two sets of states take turns as what is read and what is written, bound once: no call allocates or copies.
        self._states = [model.states() for _ in range(2)]
        self._bindings = [self._bind(read, written) for read, written in (self._states, self._states[::-1])]
        self._turn = 0

    def __getstate__(self) -> dict[str, Any]:
        """The state that the next answers depend on."""
        return {
            "model": self.model,
            "hop": self._hop[0, : self._filled],
            "states": self._states[self._turn],
            "embedding": self._embedding,
        }

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Continue from a state, in arrays of its own: those given may be read-only memory shared by processes."""
        self.__init__(kept["model"])  # type: ignore[misc]
        self._filled = len(kept["hop"])
        self._hop[0, : self._filled] = kept["hop"]
        self._embedding[:] = kept["embedding"]
        for name, values in kept["states"].items():
            self._states[self._turn][name][:] = values

    @property
    def embedding(self) -> npt.NDArray[np.float32]:
        """The pooled vector behind the latest answer, (width,)."""
        latest: Probabilities = self._embedding[0].copy()
        return latest

    def reset(self) -> None:
        """Go back to the start, with silence before the next chunk and no part of a hop waiting."""
        for states in self._states:
            for values in states.values():
                values.fill(0.0)
        self._embedding.fill(0.0)
        self._filled = 0

    def process(self, chunk: npt.ArrayLike, rate: float = SAMPLE_RATE) -> Probabilities:
        """Probabilities (hops, labels) at the end of every hop that `chunk` completes; the rest waits for the next.

        `chunk` is (samples,) at 16 kHz in [-1, 1], of any length; integers are scaled by the range of their type.
        Raises AudioError, without changing its state, for another shape, type or rate, or samples that are not numbers.
        """
        audio = from_chunk(chunk, rate)
        n_hops = (self._filled + len(audio)) // self.model.hop
        answers = np.empty((n_hops, len(self.labels)), np.float32)
        taken = 0
        for row in answers:
            needed = self.model.hop - self._filled
            self._hop[0, self._filled :] = audio[taken : taken + needed]
            taken, self._filled = taken + needed, 0
            self.model.session.run_with_iobinding(self._bindings[self._turn])
            self._turn = 1 - self._turn
            row[:] = self._probabilities[0]
        rest = len(audio) - taken
        self._hop[0, self._filled : self._filled + rest] = audio[taken:]
        self._filled += rest
        return answers

    def _bind(self, read: dict[str, Any], written: dict[str, Any]) -> Any:
        binding = self.model.session.io_binding()

        def bind(method: Callable[..., None], name: str, values: npt.NDArray[np.float32]) -> None:
            method(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)

        bind(binding.bind_input, "audio", self._hop)
        bind(binding.bind_output, "probabilities", self._probabilities)
        bind(binding.bind_output, "embedding", self._embedding)
        for name, values in read.items():
            bind(binding.bind_input, name, values)
            bind(binding.bind_output, NEXT + name, written[name])
        return binding


class SlidingWindow:
    """Slides a clip artefact over a stream: classifies the window at the end of every hop. Used like a `Stream`.

    There is silence before its start. Only one thread at a time may use it. Raises UsageError for a hop that is not
    above 0 and at most the window.
    """

    def __init__(self, model: Classifier, hop_ms: float = DetectorConfig.hop_ms) -> None:
        self.model = model
        self.labels = model.labels
        self.hop = round(hop_ms * SAMPLE_RATE / 1000)
        if not 0 < self.hop <= model.window:
            longest_ms = 1000 * model.window / SAMPLE_RATE
            raise UsageError(
                f"the hop of a sliding window is {hop_ms} ms, expected a number above 0, at most {longest_ms:g}, the "
                f"window of {model.path}"
            )
        self.reset()

    def reset(self) -> None:
        """Go back to the start, with silence before the next chunk."""
        self._held = np.zeros(self.model.window - self.hop, np.float32)

    def process(self, chunk: npt.ArrayLike, rate: float = SAMPLE_RATE) -> Probabilities:
        """Probabilities (hops, labels) at the end of every hop that `chunk` completes; as `Stream.process`."""
        held = np.concatenate([self._held, from_chunk(chunk, rate)])
        n_hops = max(0, (len(held) - self.model.window) // self.hop + 1)
        answers = np.empty((n_hops, len(self.labels)), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(held, self.model.window)[:: self.hop] if n_hops else held
        for i in range(n_hops):  # one by one: then an answer does not depend on what came with it
            answers[i] = self.model.probabilities(windows[i : i + 1])[0]
        self._held = held[n_hops * self.hop :].copy()
        return answers


def open_model(path: str | Path | None = None, threads: int = 1) -> StreamModel | Classifier:
    """A stream artefact, or else a clip artefact, by path or bundled name (default: the package's stream model).

    Raises ModelError if it cannot be loaded.
    """
    found = find_model(path, "stream", "clip")
    kind = StreamModel if read_metadata(found).kind == StreamModel.kind else Classifier
    return kind(found, threads)


def read_metadata(path: Path) -> Metadata:
    """The metadata of the artefact at `path`, of any kind. Raises ModelError if it cannot be loaded."""
    return _open(path, threads=1)[1]


def _open(path: Path, threads: int) -> tuple[ort.InferenceSession, Metadata]:
    session = open_session(read_artefact(path), threads, str(path))
    return session, parse_metadata(session.get_modelmeta().custom_metadata_map, str(path))


def open_session(model: bytes, threads: int, where: str) -> ort.InferenceSession:
    """An onnxruntime session on the CPU. Raises ModelError, naming `where`, if the model does not parse."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with explained(where, "load"):
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _name(audio: Any) -> str:
    return name_of(audio) if is_source(audio) else "audio"


def _decode_ahead(
    audios: Iterable[Any], decode: Callable[[Event, Any], Window]
) -> Iterator[tuple[str, Callable[[], Window]]]:
    """Decode in threads, a bounded number ahead; yields, in order, functions that return the window or raise the error.

    An event tells `decode` when nobody waits for it any more, because a recording may be long.
    """
    pending: deque[tuple[str, Callable[[], Window]]] = deque()
    stopped = Event()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            for audio in audios:
                job = partial(decode, stopped, audio)
                pending.append((_name(audio), job if _may_wait(audio) else pool.submit(job).result))
                if len(pending) >= DECODE_AHEAD:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _may_wait(audio: Any) -> bool:
    """Whether reading may wait for a writer, because a thread that waits cannot be interrupted."""
    if not isinstance(audio, (str, os.PathLike)):
        return is_source(audio)
    try:
        mode = Path(os.fsdecode(audio)).stat().st_mode
    except (OSError, ValueError):  # not there, no name at all: decoding says so
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
