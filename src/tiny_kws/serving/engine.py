"""Runs many streams at once: those that have a hop ready advance together, in one run of their model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artefact.ends import NEXT
from ..artefact.runtime import Probabilities, StreamModel
from ..audio import Samples
from ..config import DetectorConfig
from ..listening.decoder import Decoder, Detection
from ..listening.detector import config_of, tail_samples
from ..listening.pause import PauseGate

MAX_BATCH = 32
"""The most streams in one run; more would gain little, and other streams would wait."""
GATHER_S = 0.01
"""How long a ready hop waits for the hops of other streams."""
MORE_PLACES = 16
"""How many places for states are allocated at a time."""
OnStep = Callable[[Probabilities, list[Detection]], None]


class Lane:
    """One stream of sound through one model, with its own state.

    `on_step` is called with the probabilities (labels,) at the end of every hop, and with the events found there.
    """

    def __init__(self, model: StreamModel, config: DetectorConfig | None, on_step: OnStep) -> None:
        self.model = model
        self.on_step = on_step
        self.config = config or config_of(model)
        window_s = model.metadata.window / model.metadata.rate
        self.decoder = Decoder(model.labels, model.hop / model.metadata.rate, self.config, window_s)
        self._gate = PauseGate(model.hop, self.config.pause_ms) if self.config.pause_ms else None
        self._taken = np.zeros(0, np.float32)
        self.place: int | None = None  # of its states among those of other streams, from its first sound on
        self._sound = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> None:
        """Queue (samples,) at 16 kHz."""
        self._sound = np.concatenate([self._sound, samples]) if len(self._sound) else samples.copy()

    @property
    def tail(self) -> Samples:
        """The silence that follows a stream, so that its last word is still found, (samples,)."""
        return np.zeros(tail_samples(self.model.metadata, self.config, self.model.hop), np.float32)

    @property
    def n_waiting(self) -> int:
        """Samples that have not been heard yet."""
        return len(self._sound)

    @property
    def is_ready(self) -> bool:
        """Whether a whole hop waits."""
        return len(self._sound) >= self.model.hop

    def take(self) -> Samples:
        """The next hop."""
        self._taken, self._sound = self._sound[: self.model.hop], self._sound[self.model.hop :]
        return self._taken

    def hear(self, row: Probabilities) -> None:
        """Process the answer to the hop that was taken last."""
        events = self.decoder.process(row[None])
        if self._gate:
            events = self._gate.hear(events, self._taken)
        self.on_step(row, events)


class _Streams:
    """The states of all streams of one model, and memory for those that run together.

    This memory is bound once for every number of streams.
    """

    def __init__(self, model: StreamModel) -> None:
        self._session = model.session
        self.size = MAX_BATCH if model.has_batch else 1
        self._audio = np.zeros((self.size, model.hop), np.float32)
        self._read, self._written = model.states(self.size), model.states(self.size)
        self._probabilities = model.zeros("probabilities", self.size)
        self._embedding = model.zeros("embedding", self.size)
        self._has_batch = model.has_batch
        self._bindings: dict[int, Any] = {}
        self._kept = {name: self._rows(values)[:0] for name, values in self._read.items()}
        self._free: list[int] = []
        self.n_streams = 0

    def add(self) -> int:
        """Return a place for the states of one more stream, which begins with silence."""
        if not self._free:
            n = self.n_streams
            more = max(MORE_PLACES, n // 4)
            for name, values in self._kept.items():
                self._kept[name] = np.concatenate([values, np.zeros((more, *values.shape[1:]), np.float32)])
            self._free = list(range(n, n + more))
        self.n_streams += 1
        place = self._free.pop()
        for values in self._kept.values():
            values[place] = 0.0
        return place

    def remove(self, place: int) -> None:
        """Free the place of a stream that has ended."""
        self._free.append(place)
        self.n_streams -= 1

    def run(self, lanes: list[Lane]) -> None:
        """Run one hop of each lane, and give every lane its answer."""
        n = len(lanes)
        places = np.array([lane.place for lane in lanes])
        for i, lane in enumerate(lanes):
            self._audio[i] = lane.take()
        for name, kept in self._kept.items():
            np.take(kept, places, 0, self._rows(self._read[name])[:n], "clip")  # others would copy them once more
        self._session.run_with_iobinding(self._binding(n))
        for name, kept in self._kept.items():
            kept[places] = self._rows(self._written[name])[:n]
        for lane, row in zip(lanes, self._probabilities[:n].copy(), strict=True):
            lane.hear(row)

    def _rows(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`values` with an axis for streams."""
        return values if self._has_batch else values[None]

    def _binding(self, n: int) -> Any:
        if n not in self._bindings:
            binding = self._bindings[n] = self._session.io_binding()
            inputs = {"audio": self._audio, **self._read}
            outputs = {"probabilities": self._probabilities, "embedding": self._embedding}
            outputs |= {NEXT + name: values for name, values in self._written.items()}
            for bind, ends in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
                for name, values in ends.items():
                    used = values[:n] if self._has_batch else values
                    bind(name, "cpu", 0, np.float32, used.shape, used.ctypes.data)
        return self._bindings[n]


class Engine:
    """Runs the lanes of all streams, in the event loop's own thread: a run takes a millisecond or two.

    A lane that has sound waiting gets one hop per turn, however much is waiting, so a client that sends faster than
    real time does not hold up the others.
    """

    def __init__(self) -> None:
        self._ready: dict[Lane, None] = {}  # in the order of their turns
        self._streams: dict[StreamModel, _Streams] = {}
        self._is_scheduled = False

    def push(self, lane: Lane, samples: Samples) -> None:
        """Take sound for a lane; the lane gets its answers soon after."""
        if lane.place is None:
            if lane.model not in self._streams:
                self._streams[lane.model] = _Streams(lane.model)
            lane.place = self._streams[lane.model].add()
        lane.push(samples)
        if lane.is_ready:
            self._ready[lane] = None
            self._schedule(GATHER_S)

    def forget(self, lane: Lane) -> None:
        """Remove a lane whose stream has ended; with a model's last lane, its memory is freed."""
        self._ready.pop(lane, None)
        if lane.place is not None:
            streams = self._streams[lane.model]
            streams.remove(lane.place)
            lane.place = None
            if not streams.n_streams:
                del self._streams[lane.model]

    def _schedule(self, delay_s: float) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(delay_s, self._turn)

    def _turn(self) -> None:
        """Do one run, and schedule the next for when the input that arrived meanwhile has been read."""
        self._is_scheduled = False
        if self._ready:
            self._run_once()
        if self._ready:
            self._schedule(0.0)

    def _run_once(self) -> None:
        model = next(iter(self._ready)).model
        streams = self._streams[model]
        lanes = [lane for lane in self._ready if lane.model is model][: streams.size]
        for lane in lanes:
            del self._ready[lane]
        streams.run(lanes)
        self._ready.update(dict.fromkeys(lane for lane in lanes if lane.place is not None and lane.is_ready))
