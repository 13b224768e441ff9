"""Wyoming, the protocol of Home Assistant's voice assistants: a wake word service over TCP.

Home Assistant connects anew for each detection: `detect`, `audio-start`, chunks with times in ms, no `audio-stop`; it
closes when `detection` comes. wyoming-satellite stays: `detect`, chunks at once with times in ns, and `detect` again
after each command. So a stream begins with the first chunk, and anew with each `detect`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.info import Attribution, Describe, Info, WakeModel, WakeProgram
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

from .. import __version__
from ..artefact.runtime import StreamModel
from ..audio import Converter
from ..config import SAMPLE_RATE
from ..errors import KwsError, UsageError
from ..listening.decoder import Detection as Heard
from .library import Choice, Library
from .sessions import BusyError, Core, Hearing, RefusedError

PORT = 10400
HEADER_BYTES = 2**16
DATA_BYTES = 2**20
TYPES = {1: "uint8", 2: "s16le", 3: "s24le", 4: "s32le"}
"""The types of samples, by their width in bytes."""
OnProblem = Callable[[str], None]


def info_of(library: Library) -> Info:
    """The server's description: every word is offered as a model of its own."""
    return Info(
        wake=[
            WakeProgram(
                name="tiny-kws",
                description="Words of any kind, in 3 ms of CPU a second of sound",
                attribution=Attribution("tiny-kws", ""),
                installed=True,
                version=__version__,
                models=[_model_of(word, model) for word, model in library.words.items()],
            )
        ]
    )


def _model_of(word: str, model: StreamModel) -> WakeModel:
    metadata = model.metadata
    own = next((facts for facts in metadata.own_words if facts.get("word") == word), None)
    return WakeModel(
        name=word,
        description=f"{word} ({metadata.name})",
        phrase=word,
        attribution=Attribution(metadata.source or "recordings of one's own", ""),
        installed=True,
        version=metadata.version or None,
        languages=["en"] if own is None else [],
    )


class _Clock:
    """Makes a reader raise RefusedError if a message stops half way; checked a few times per `stalled_s`.

    One timer per message would cost as much as reading it.
    """

    def __init__(self, reader: asyncio.StreamReader, stalled_s: float) -> None:
        self._reader, self._stalled_s = reader, stalled_s
        self._loop = asyncio.get_running_loop()
        self._begun_s: float | None = None
        self._wait()

    def _wait(self) -> None:
        self._handle = self._loop.call_later(self._stalled_s / 4, self._look)

    def _look(self) -> None:
        if self._begun_s is not None and self._loop.time() - self._begun_s > self._stalled_s:
            late = RefusedError(f"half a message came in {self._stalled_s:g} s, expected all of it")
            self._reader.set_exception(late)
        else:
            self._wait()

    def begin(self) -> None:
        """Note that a message has begun."""
        self._begun_s = self._loop.time()

    def end(self) -> None:
        """Note that the whole message has arrived."""
        self._begun_s = None

    def stop(self) -> None:
        """Stop checking."""
        self._handle.cancel()


async def read_event(reader: asyncio.StreamReader, limit: int, clock: _Clock) -> Event | None:
    """The next event, or None at the end. Raises RefusedError if it is malformed, too large, or stops half way."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise RefusedError("the connection ended in the middle of a message") from error
        return None
    except (asyncio.LimitOverrunError, ValueError) as error:
        raise RefusedError(f"found a header of over {HEADER_BYTES} bytes, expected a line of JSON") from error
    header = _object(line, "a header")
    data, kind = header.get("data") or {}, header.get("type")
    sizes = [_size(header, key, largest) for key, largest in (("data_length", DATA_BYTES), ("payload_length", limit))]
    if not isinstance(data, dict) or not isinstance(kind, str):
        raise RefusedError("found a header without type, expected a Wyoming event")
    clock.begin()
    try:
        more = await reader.readexactly(sum(sizes))
    except asyncio.IncompleteReadError as error:
        raise RefusedError("the connection ended in the middle of a message") from error
    clock.end()
    more, payload = more[: sizes[0]], more[sizes[0] :]
    return Event(kind, {**data, **(_object(more, "data") if more else {})}, payload or None)


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"found {what} that is not JSON, expected a Wyoming event") from error
    if not isinstance(found, dict):
        raise RefusedError(f"found {what} that is not a JSON object, expected a Wyoming event")
    return found


def _size(header: dict[str, Any], key: str, largest: int) -> int:
    size = header.get(key) or 0
    if not isinstance(size, int) or not 0 <= size <= largest:
        raise RefusedError(f"found a {key} of {size!r:.40}, expected 0 to {largest}")
    return size


@dataclass
class _Stream:
    """The stream since a `detect`."""

    hearing: Hearing
    converter: Converter
    format: tuple[int, int, int]
    times: deque[tuple[int, int | None]]
    """Where chunks start that are not fully processed, in samples at 16 kHz, and the client's own time for each."""
    n_events: int = 0

    def note(self, time: Any) -> None:
        """Note a new chunk and the client's time for it."""
        self.times.append((self.hearing.n_samples, time if isinstance(time, int) else None))
        while len(self.times) > 1 and self.times[1][0] < self.hearing.n_heard:
            self.times.popleft()

    def time_of(self, event: Heard) -> int | None:
        """The client's time of the chunk in which an event ends."""
        end = event.end_s * SAMPLE_RATE
        return next((time for start, time in reversed(self.times) if start < end), None)


class Connection:
    """One client."""

    def __init__(self, core: Core, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.core, self._reader, self._writer = core, reader, writer
        peer = writer.get_extra_info("peername") or ("?",)
        self.client = f"wyoming {peer[0]}"
        self._names: list[str] | None = None
        self._choices: list[Choice] | None = None
        self._stream: _Stream | None = None
        self._answers: asyncio.Queue[Event] = asyncio.Queue(1000)

    async def serve(self) -> None:
        """Answer until the client disconnects. Raises RefusedError for a request that cannot be answered."""
        sending = asyncio.create_task(self._send())
        limits = self.core.limits
        clock = _Clock(self._reader, limits.stalled_s)
        try:
            while event := await read_event(self._reader, limits.message_bytes, clock):
                if sending.done():
                    return
                await self._answer(event)
        except KwsError as error:
            self._say(Error(str(error), "refused").event())
            raise
        finally:
            clock.stop()
            self._end_stream()
            with suppress(asyncio.TimeoutError, OSError):
                await asyncio.wait_for(self._answers.join(), 1.0)
            sending.cancel()

    async def _send(self) -> None:
        while True:
            event = await self._answers.get()
            try:
                await asyncio.wait_for(async_write_event(event, self._writer), self.core.limits.stalled_s)
            except (OSError, asyncio.TimeoutError):  # it is gone, or takes no answers
                self._writer.transport.abort()
                return
            finally:
                self._answers.task_done()

    def _say(self, event: Event) -> None:
        with suppress(asyncio.QueueFull):  # of a client that takes no answers
            self._answers.put_nowait(event)

    async def _answer(self, event: Event) -> None:
        if AudioChunk.is_type(event.type):
            await self._hear(event)
        elif Describe.is_type(event.type):
            self._say(info_of(self.core.library).event())
        elif Detect.is_type(event.type):
            self._end_stream()
            self._choose(event.data.get("names"))
        elif AudioStart.is_type(event.type):
            self._end_stream()
        elif AudioStop.is_type(event.type):
            await self._stop()
        elif Ping.is_type(event.type):
            self._say(Pong(text=event.data.get("text")).event())

    def _choose(self, names: Any) -> None:
        if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
            raise RefusedError(f"found the names {names!r:.40}, expected a list of words")
        try:
            self._choices = self.core.library.choose(names)
        except UsageError as error:
            self._choices = []
            self._say(Error(str(error), "unknown-word").event())

    async def _hear(self, event: Event) -> None:
        stream = self._stream_of(event.data)
        if stream is None:
            return
        stream.note(event.data.get("timestamp"))
        await stream.hearing.push(stream.converter.push_bytes(event.payload or b""))

    def _stream_of(self, data: dict[str, Any]) -> _Stream | None:
        """The current stream, or a new one if there is none or the sound's format has changed."""
        rate, width, channels = found = _format_of(data)
        if self._stream is not None and self._stream.format == found:
            return self._stream
        self._end_stream()
        if self._choices is None:
            self._choose(None)
        if not self._choices:
            return None
        converter = Converter(rate, channels, "the stream", TYPES[width])
        hearing = Hearing(self.core, self._choices, self.client, self._tell)
        self._stream = _Stream(hearing, converter, found, deque())
        return self._stream

    def _tell(self, event: Heard) -> None:
        assert self._stream is not None
        self._stream.n_events += 1
        self._say(Detection(name=event.label, timestamp=self._stream.time_of(event)).event())

    async def _stop(self) -> None:
        stream = self._stream
        if stream is not None:
            await stream.hearing.push(stream.converter.finish())
            await stream.hearing.finish()
        if stream is None or stream.n_events == 0:
            self._say(NotDetected().event())
        self._end_stream()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.hearing.close()
            self._stream = None


def _format_of(data: dict[str, Any]) -> tuple[int, int, int]:
    """Rate, width and channels of a chunk."""
    rate, width, channels = (data.get(key) for key in ("rate", "width", "channels"))
    if not (isinstance(rate, int) and isinstance(width, int) and isinstance(channels, int) and width in TYPES):
        found = f"{rate!r:.20}, {width!r:.20} and {channels!r:.20}"
        raise RefusedError(
            f"found a chunk of rate, width and channels {found}, expected whole numbers, a width of 1 to 4"
        )
    return rate, width, channels


async def start(core: Core, host: str, port: int, on_problem: OnProblem) -> asyncio.Server:
    """Listen at an address. Raises UsageError if it is in use or not allowed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with core.connection("wyoming"):
                await Connection(core, reader, writer).serve()
        except OSError:  # it has gone
            return
        except KwsError as error:
            core.figures.refused["messages"] += 1
            peer = writer.get_extra_info("peername") or ("?",)
            on_problem(f"a Wyoming client at {peer[0]} was let go: {error}")
            with suppress(OSError):
                if isinstance(error, BusyError):
                    await async_write_event(Error(str(error), "busy").event(), writer)
        finally:
            writer.close()

    try:
        return await asyncio.start_server(serve, host, port, limit=HEADER_BYTES, reuse_address=True)
    except OSError as error:
        raise UsageError(
            f"found {host}:{port} in use or forbidden ({error.strerror or error}), expected a free port; name another"
        ) from error
