"""What a server does for each client, in any protocol: process its sound and start the actions for its events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial

import numpy as np

from ..artefact.runtime import Probabilities, StreamModel
from ..audio import Samples
from ..config import SAMPLE_RATE
from ..errors import KwsError
from ..listening.actions import Commands, Recordings
from ..listening.decoder import Detection
from ..listening.recent import Recent
from .engine import Engine, Lane
from .library import Choice, Library

WAITING = 2 * SAMPLE_RATE
"""The most samples of a client that may wait; beyond that its connection is not read until they are processed."""
PIECE = SAMPLE_RATE // 2
"""Samples that are processed together."""
OnEvent = Callable[[Detection], None]
OnRow = Callable[[StreamModel, Probabilities], None]


class RefusedError(KwsError):
    """A client asks for more than the server gives."""


class BusyError(RefusedError):
    """The limit of connections has been reached."""


@dataclass(frozen=True)
class Limits:
    """Limits for one client and for all together."""

    connections: int = 1000
    message_bytes: int = 16 * 2**20
    stalled_s: float = 60.0
    """How long a message may take to arrive once it has begun, and an answer to be read."""
    stream_s: float = float("inf")
    """The longest sound on one connection, in seconds."""


@dataclass
class Figures:
    """Counts, kept while the server runs."""

    started: float = field(default_factory=time.time)
    connections: Counter[str] = field(default_factory=Counter)
    """Open connections by protocol."""
    streams: int = 0
    seconds: float = 0.0
    """Seconds of sound that were processed."""
    events: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Refused connections and messages by reason."""

    def to_prometheus(self) -> str:
        """The counts in the text format of Prometheus."""
        lines = [
            "# TYPE tiny_kws_connections gauge",
            *(f'tiny_kws_connections{{protocol="{key}"}} {n}' for key, n in sorted(self.connections.items())),
            "# TYPE tiny_kws_streams gauge",
            f"tiny_kws_streams {self.streams}",
            "# TYPE tiny_kws_seconds_total counter",
            f"tiny_kws_seconds_total {self.seconds:.3f}",
            "# TYPE tiny_kws_events_total counter",
            *(f'tiny_kws_events_total{{word="{_escaped(word)}"}} {n}' for word, n in sorted(self.events.items())),
            "# TYPE tiny_kws_dropped_total counter",
            *(f'tiny_kws_dropped_total{{reason="{key}"}} {n}' for key, n in sorted(self.refused.items())),
            "# TYPE process_cpu_seconds_total counter",
            f"process_cpu_seconds_total {time.process_time():.3f}",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self.started:.3f}",
        ]
        return "\n".join(lines) + "\n"


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Seldom:
    """Passes on lines, up to `most` per minute, and then says how many more there were.

    So a flood of bad clients cannot fill a disk, or a pipe that would stop the server once it is full.
    """

    def __init__(self, tell: Callable[[str], None], most: int = 20) -> None:
        self._tell, self._most = tell, most
        self._begun, self._n = -60.0, 0

    def __call__(self, problem: str) -> None:
        """Report a problem, or count it."""
        now = time.monotonic()
        if now - self._begun >= 60:
            if self._n > self._most:
                self._tell(f"{self._n - self._most} more problems within a minute were not shown")
            self._begun, self._n = now, 0
        self._n += 1
        if self._n <= self._most:
            self._tell(problem)


@dataclass(frozen=True)
class Heard:
    """An event, when it was heard, and by whose sound."""

    event: Detection
    time: datetime
    client: str


class Core:
    """The models, the engine and the actions for events; shared by all protocols.

    The functions in `told` are called with every event, for example for a live view or MQTT.
    """

    def __init__(
        self,
        library: Library,
        limits: Limits | None = None,
        commands: Commands | None = None,
        recordings: Recordings | None = None,
    ) -> None:
        self.library, self.limits = library, limits or Limits()
        self.commands, self.recordings = commands, recordings
        self.engine, self.figures = Engine(), Figures()
        self.told: list[Callable[[Heard], None]] = []

    def look(self) -> None:
        """Check the folder of models again."""
        self.library.look()
        if self.commands is not None:
            self.commands.reap()

    @contextmanager
    def connection(self, protocol: str) -> Iterator[None]:
        """Count a connection while it lasts. Raises BusyError if there are too many."""
        if self.figures.connections.total() >= self.limits.connections:
            self.figures.refused["connections"] += 1
            raise BusyError(
                f"found {self.limits.connections} connections, expected fewer; try again later or raise --connections"
            )
        self.figures.connections[protocol] += 1
        try:
            yield
        finally:
            self.figures.connections[protocol] -= 1

    def heard(self, hearing: Hearing, event: Detection) -> None:
        """Start the actions for an event."""
        self.figures.events[event.label] += 1
        heard = Heard(event, datetime.now(timezone.utc), hearing.client)
        if self.commands is not None:
            self.commands.run(event, heard.time)
        if self.recordings is not None:
            self.recordings.keep(event, heard.time, hearing.sound_of(event))
        for tell in self.told:
            tell(heard)


class Hearing:
    """Runs the sound of one client, 16 kHz mono, through the models for its words.

    `on_event` is called with events, `on_row` with the probabilities at every hop. Close it at the end.
    """

    def __init__(
        self, core: Core, choices: Sequence[Choice], client: str, on_event: OnEvent, on_row: OnRow | None = None
    ) -> None:
        self.core, self.client = core, client
        self._on_event, self._on_row = on_event, on_row
        self.lanes = [Lane(one.model, one.config, partial(self._step, one.model)) for one in choices]
        self._advanced, self._moved = asyncio.Event(), asyncio.Event()
        self.n_samples = 0
        longest = max((choice.model.window for choice in choices), default=0)
        self._recent = None if core.recordings is None else Recent(longest, WAITING + PIECE)
        core.figures.streams += 1
        self._is_open = True

    def _step(self, model: StreamModel, row: Probabilities, events: list[Detection]) -> None:
        self._advanced.set()
        self._moved.set()
        if self._on_row is not None:
            self._on_row(model, row)
        for event in events:
            self._on_event(event)
            self.core.heard(self, event)

    async def push(self, samples: Samples) -> None:
        """Take (samples,); returns when little enough sound is waiting.

        Raises RefusedError if one connection sends more sound than allowed.
        """
        for start in range(0, len(samples), PIECE):
            piece = samples[start : start + PIECE]
            self.n_samples += len(piece)
            self.core.figures.seconds += len(piece) / SAMPLE_RATE
            if self.n_samples > self.core.limits.stream_s * SAMPLE_RATE:
                self.core.figures.refused["seconds"] += 1
                raise RefusedError(
                    f"found over {self.core.limits.stream_s:g} s of sound on one connection; connect again"
                )
            if self._recent is not None:
                self._recent.push(piece)
            for lane in self.lanes:
                self.core.engine.push(lane, piece)
            await self._until(lambda: all(lane.n_waiting <= WAITING for lane in self.lanes))

    @property
    def n_heard(self) -> int:
        """Samples that all of its models have processed."""
        return self.n_samples - max((lane.n_waiting for lane in self.lanes), default=0)

    async def advance(self) -> None:
        """Wait until the next hop has been processed."""
        await self._advanced.wait()
        self._advanced.clear()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._moved.clear()
            await self._moved.wait()

    def sound_of(self, event: Detection) -> Samples:
        """The sound that `event` is based on, and a second before it; empty if no sound is kept."""
        return np.zeros(0, np.float32) if self._recent is None else self._recent.sound_of(event.end_s)

    async def finish(self) -> None:
        """Process the silence after the end, so that the last word is found."""
        for lane in self.lanes:
            self.core.engine.push(lane, lane.tail)
        await self._until(lambda: not any(lane.is_ready for lane in self.lanes))

    def close(self) -> None:
        """Close the session; sound that still waits is dropped."""
        if self._is_open:
            self._is_open = False
            self.core.figures.streams -= 1
            for lane in self.lanes:
                self.core.engine.forget(lane)
