"""A server of streams: the engine, Wyoming by its own client, WebSocket and HTTP, what is refused."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("wyoming", reason="needs the extra `serve`")
pytest.importorskip("aiohttp", reason="needs the extra `serve`")

from aiohttp import ClientSession, WSMsgType
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.wake import Detect, Detection, NotDetected

from tiny_kws import Detector, UsageError
from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.artefact.store import find_model
from tiny_kws.audio import read_mono
from tiny_kws.listening.actions import Commands, Recordings
from tiny_kws.listening.detector import config_of
from tiny_kws.serving import http, wyoming
from tiny_kws.serving.engine import Engine, Lane
from tiny_kws.serving.library import Library
from tiny_kws.serving.sessions import Core, Limits, Seldom

from .helpers import command_line, environment

EXAMPLES = Path(__file__).parents[1] / "examples"
CHUNK = 1024
Sound = npt.NDArray[np.float32]


def spoken(name: str, pause_s: float = 1.0) -> Sound:
    """A recording between pauses."""
    pause = np.zeros(round(16_000 * pause_s), np.float32)
    return np.concatenate([pause, read_mono(EXAMPLES / f"{name}.wav"), pause])


def pcm(sound: Sound) -> bytes:
    return (sound * 32767).astype("<i2").tobytes()


def core_of(limits: Limits | None = None, **more: Any) -> Core:
    return Core(Library(["listener"], None, {}, pytest.fail), limits, **more)


class Served:
    """A server in this process, on ports of its own."""

    def __init__(self, core: Core, port: int, http_port: int, problems: list[str]) -> None:
        self.core, self.port, self.problems = core, port, problems
        self.url = f"http://127.0.0.1:{http_port}"

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncTcpClient]:
        async with AsyncTcpClient("127.0.0.1", self.port) as client:
            yield client


@asynccontextmanager
async def served(core: Core, token: str | None = None) -> AsyncIterator[Served]:
    problems: list[str] = []
    server = await wyoming.start(core, "127.0.0.1", 0, problems.append)
    runner = await http.start(core, "127.0.0.1", 0, frozenset({"127.0.0.1"}), token)
    try:
        yield Served(core, server.sockets[0].getsockname()[1], runner.addresses[0][1], problems)
    finally:
        server.close()
        await runner.cleanup()
        await asyncio.sleep(0.05)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def send(client: AsyncTcpClient, sound: Sound, unit: int = 1000, rate: int = 16_000) -> None:
    """In chunks, with the time of each in so many parts of a second."""
    data = pcm(sound)
    for i in range(0, len(data), 2 * CHUNK):
        when = i // 2 * unit // rate
        await client.write_event(AudioChunk(rate, 2, 1, data[i : i + 2 * CHUNK], timestamp=when).event())


async def next_event(client: AsyncTcpClient) -> Event:
    event = await asyncio.wait_for(client.read_event(), 10)
    assert event is not None
    return event


def test_many_lanes_hear_what_each_hears_alone() -> None:
    """Rows within 1e-4 and the same events, though all come in different chunks at different times."""
    model = StreamModel("listener")
    sounds = [0.9 * spoken(name, 0.3 + 0.01 * i) for i, name in enumerate(["yes", "no", "go", "on", "off", "left"] * 6)]
    rows: list[list[Any]] = [[] for _ in sounds]
    events: list[list[Any]] = [[] for _ in sounds]

    async def play() -> None:
        engine = Engine()
        lanes = []
        for i in range(len(sounds)):

            def step(row: Any, found: Any, i: int = i) -> None:
                rows[i].append(row)
                events[i].extend(found)

            lanes.append(Lane(model, None, step))
        rng = np.random.default_rng(0)
        places = [0] * len(sounds)
        while any(place < len(sound) for place, sound in zip(places, sounds, strict=True)):
            for i, lane in enumerate(lanes):
                n = int(rng.integers(1, 3000))
                engine.push(lane, sounds[i][places[i] : places[i] + n])
                places[i] += n
            await asyncio.sleep(0.001)
        while any(lane.is_ready for lane in lanes):
            await asyncio.sleep(0.01)

    run(play)
    for sound, found_rows, found in zip(sounds, rows, events, strict=True):
        detector = Detector(model)
        step = detector.step(sound)
        np.testing.assert_allclose(np.array(found_rows), step.rows, atol=1e-4)
        assert [(e.label, e.start_s, e.end_s) for e in found] == [(e.label, e.start_s, e.end_s) for e in step.events]


def test_home_assistant_s_way() -> None:
    """A connection for each detection: info, detect, start, chunks with ms; the answer has the client's own time."""

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            await client.write_event(Describe().event())
            (program,) = Info.from_event(await next_event(client)).wake
            words = {model.name: model for model in program.models}
            assert words["yes"].phrase == "yes"
            assert words["yes"].languages == ["en"]
            assert words["yes"].attribution.name
            await client.write_event(Detect(["yes"]).event())
            await client.write_event(AudioStart(16_000, 2, 1, timestamp=0).event())
            await send(client, spoken("yes"))
            found = Detection.from_event(await next_event(client))
            assert found.name == "yes"
            assert found.timestamp is not None
            assert 1000 < found.timestamp < 2300

    run(talk)


def test_the_satellite_s_way() -> None:
    """Chunks without a start, times in ns, and on the same connection again after each `detect`."""

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            for word in ("yes", "no"):
                await client.write_event(Detect().event())
                await send(client, spoken(word), unit=10**9)
                found = Detection.from_event(await next_event(client))
                assert found.name == word
                assert found.timestamp is not None
                assert 10**9 < found.timestamp < 23 * 10**8

    run(talk)


def test_other_words_are_not_detected() -> None:
    """With `detect` of another word nothing comes but `not-detected` at the end."""

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            await client.write_event(Detect(["no"]).event())
            await send(client, spoken("yes"))
            await client.write_event(AudioStop().event())
            assert NotDetected.is_type((await next_event(client)).type)

    run(talk)


@pytest.mark.parametrize(("rate", "width", "channels"), [(48_000, 2, 2), (8000, 2, 1), (44_100, 4, 1), (22_050, 3, 2)])
def test_any_rate_and_width(rate: int, width: int, channels: int) -> None:
    """A word is heard in sound of other formats."""
    import soxr

    sound = soxr.resample(spoken("go"), 16_000, rate)
    whole = np.repeat((sound * (2 ** (8 * width - 1) - 1)).astype("<i4")[:, None], channels, 1)
    data = whole.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            await client.write_event(AudioChunk(rate, width, channels, data).event())
            await client.write_event(AudioStop().event())
            assert Detection.from_event(await next_event(client)).name == "go"

    run(talk)


GARBAGE = {
    "noise": bytes(range(1, 256)) * 8 + b"\n",
    "no object": b"[1]\n",
    "no type": b'{"a": 1}\n',
    "two gigabytes": b'{"type": "audio-chunk", "payload_length": 2147483648}\n',
    "less than nothing": b'{"type": "audio-chunk", "payload_length": -1}\n',
    "a long header": b"x" * 200_000,
    "no numbers": b'{"type": "audio-chunk", "data": {"rate": "a"}, "payload_length": 2}\nab',
    "a rate of nothing": b'{"type": "audio-chunk", "data": {"rate": 1, "width": 2, "channels": 1}}\n',
    "names": b'{"type": "detect", "data": {"names": 7}}\n',
    "deep": b"[" * 60_000 + b"\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_in_one_line(name: str) -> None:
    """The client is told without a traceback, the server says one line, and others go on."""

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(GARBAGE[name])
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
            assert answer["type"] == "error"
            rest = await asyncio.wait_for(reader.read(), 5)
            assert b"Traceback" not in rest
            writer.close()
            await client.write_event(Detect(["yes"]).event())
            await send(client, spoken("yes"))
            assert Detection.is_type((await next_event(client)).type)
            (problem,) = server.problems
            assert "\n" not in problem

    run(talk)


def test_half_a_message_is_given_up() -> None:
    """A message that does not come whole in time, or whose client goes, is told."""

    async def talk() -> None:
        async with served(core_of(Limits(stalled_s=0.2))) as server:
            half = (
                b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, "payload_length": 9}\nab'
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(half)
            assert b"half a message" in await asyncio.wait_for(reader.read(), 5)
            writer.close()
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(half)
            writer.close()
            await asyncio.sleep(0.1)
            assert "in the middle of a message" in server.problems[1]

    run(talk)


def test_clients_that_vanish_leave_nothing() -> None:
    """Amid their sound, with answers under way: no traceback, no line, no stream is left."""
    troubles: list[Any] = []

    async def talk() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: troubles.append(context))
        async with served(core_of()) as server:
            for _ in range(5):
                async with server.client() as client:
                    await send(client, np.tile(spoken("yes", 0.3), 3))
            await asyncio.sleep(2)
            assert server.core.figures.streams == 0
            assert server.problems == []

    run(talk)
    assert troubles == []


def test_a_flood_of_problems_is_told_seldom() -> None:
    """Twenty lines a minute."""
    told: list[str] = []
    seldom = Seldom(told.append)
    for i in range(1000):
        seldom(str(i))
    assert len(told) == 20


def test_a_word_that_is_not_there() -> None:
    """It is told, with the words there are."""

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            await client.write_event(Detect(["abracadabra"]).event())
            error = Error.from_event(await next_event(client))
            assert "abracadabra" in error.text
            assert "yes" in error.text

    run(talk)


def test_chunks_of_one_sample() -> None:
    """Are heard like others; the answer has the time of the sample it came with."""
    sound = spoken("yes", 0.4)
    data = pcm(sound)

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            answer = asyncio.create_task(next_event(client))
            for i in range(len(sound)):
                await client.write_event(AudioChunk(16_000, 2, 1, data[2 * i : 2 * i + 2], timestamp=i).event())
            found = Detection.from_event(await answer)
            (event,) = Detector().detect(sound)
            assert (found.name, found.timestamp) == ("yes", round(event.end_s * 16_000) - 1)

    run(talk)


@pytest.mark.parametrize("jump", [-5_000_000, 10**15])
def test_a_clock_that_jumps(jump: int) -> None:
    """Times are the client's own: whatever they say, sound goes on, and the answer has the time of its chunk."""
    data = pcm(spoken("yes"))

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as client:
            sent = []
            for i in range(0, len(data), 2 * CHUNK):
                sent.append(i + jump * (i > len(data) // 2))
                await client.write_event(AudioChunk(16_000, 2, 1, data[i : i + 2 * CHUNK], timestamp=sent[-1]).event())
            found = Detection.from_event(await next_event(client))
            (event,) = Detector().detect(spoken("yes"))
            assert (found.name, found.timestamp) == ("yes", sent[int((event.end_s * 16_000 - 1) // CHUNK)])

    run(talk)


def test_a_word_starts_a_command(tmp_path: Path) -> None:
    """Of `--on`, with the event in its environment."""
    script = f"import os, pathlib; pathlib.Path({str(tmp_path / 'heard')!r}).write_text(os.environ['TINY_KWS_LABEL'])"
    commands = Commands([f"yes={shlex.join([sys.executable, '-c', script])}"], ["yes"], pytest.fail)

    async def talk() -> None:
        async with served(core_of(commands=commands)) as server, server.client() as client:
            await send(client, spoken("yes"))
            await next_event(client)

    run(talk)
    until = time.monotonic() + 20
    while commands.n_running and time.monotonic() < until:
        time.sleep(0.05)
        commands.reap()
    assert (tmp_path / "heard").read_text() == "yes"


def test_too_many_connections() -> None:
    """One more than there may be is told so; when another has gone, it gets in."""

    async def talk() -> None:
        async with served(core_of(Limits(connections=1))) as server:
            async with server.client() as first:
                await first.write_event(Describe().event())
                await next_event(first)
                async with server.client() as second:
                    assert "expected fewer" in Error.from_event(await next_event(second)).text
            await asyncio.sleep(0.05)
            async with server.client() as third:
                await third.write_event(Describe().event())
                assert Info.is_type((await next_event(third)).type)

    run(talk)


def test_one_who_sends_a_minute_at_once_blocks_nobody() -> None:
    """While a client's minutes are heard, another's word is answered at once."""

    async def talk() -> None:
        async with served(core_of()) as server, server.client() as greedy, server.client() as client:
            minute = pcm(np.zeros(16_000 * 120, np.float32))
            await greedy.write_event(AudioChunk(16_000, 2, 1, minute).event())
            await send(client, spoken("yes"))
            assert Detection.from_event(await next_event(client)).name == "yes"
            assert server.core.figures.seconds < 60

    run(talk)


def test_what_is_kept_of_an_event(tmp_path: Path) -> None:
    """The word and at least a second before it."""

    async def talk() -> None:
        core = core_of(recordings=Recordings(tmp_path, pytest.fail))
        async with served(core) as server, server.client() as client:
            await send(client, np.concatenate([np.zeros(80_000, np.float32), spoken("yes")]))
            await next_event(client)

    run(talk)
    (file,) = tmp_path.glob("*_yes.wav")
    sound = read_mono(file)
    assert 1.5 <= len(sound) / 16_000 <= 3.0
    assert {event.label for event in Detector().detect(file)} == {"yes"}


def test_websocket() -> None:
    """JSON first, then sound: events and, on request, probabilities; `eof` answers what the tail brings."""

    async def talk() -> None:
        async with served(core_of()) as server, ClientSession() as session:
            async with session.ws_connect(f"{server.url}/listen") as socket:
                await socket.send_json({"rate": 16_000, "words": ["yes"], "encoding": "f32le", "probabilities": True})
                assert await socket.receive_json() == {"words": ["yes"]}
                await socket.send_bytes(spoken("yes", 0.5)[:-8000].tobytes())
                await socket.send_json({"eof": True})
                found = [json.loads(m.data) async for m in socket if m.type == WSMsgType.TEXT]
            assert found[-1]["eof"] is True
            assert [one["label"] for one in found if "label" in one] == ["yes"]
            rows = [one["probabilities"] for one in found if "probabilities" in one]
            assert max(row["yes"] for row in rows) > 0.8
            assert all(set(row) == set(StreamModel("listener").labels) for row in rows)

    run(talk)


def test_websockets_library() -> None:
    """A client that is not aiohttp's: the library that most programs in Python use."""
    websockets = pytest.importorskip("websockets.asyncio.client", reason="websockets is not installed")

    async def talk() -> None:
        async with served(core_of()) as server:
            address = server.url.replace("http", "ws")
            async with websockets.connect(f"{address}/listen", proxy=None) as socket:
                await socket.send(json.dumps({"rate": 16_000, "words": ["yes"]}))
                for start in range(0, 32_000, CHUNK):
                    await socket.send(pcm(spoken("yes", 0.5))[2 * start : 2 * (start + CHUNK)])
                await socket.send(json.dumps({"eof": True}))
                found = [json.loads(message) async for message in socket]
            assert [one["label"] for one in found if "label" in one] == ["yes"]
            assert found[-1]["eof"] is True

    run(talk)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("hello", "expected {"),
        ({"rate": "fast"}, "rate 'fast'"),
        ({"rate": 5}, "5"),
        ({"words": ["abracadabra"]}, "abracadabra"),
        ({"threshold": 7}, "threshold"),
        ({"encoding": "mp3"}, "mp3"),
    ],
    ids=str,
)
def test_what_a_websocket_refuses(first: Any, reason: str) -> None:
    """In one line of JSON, and the end."""

    async def talk() -> None:
        async with (
            served(core_of()) as server,
            ClientSession() as session,
            session.ws_connect(f"{server.url}/listen") as socket,
        ):
            await socket.send_str(first if isinstance(first, str) else json.dumps(first))
            assert reason in (await socket.receive_json())["error"]
            assert (await socket.receive()).type == WSMsgType.CLOSE

    run(talk)


def test_http() -> None:
    """A file's events, the models, health, figures and the page."""

    async def talk() -> None:
        async with served(core_of()) as server, ClientSession(server.url) as session:
            async with session.post("/detect", data=(EXAMPLES / "stop_within_four_seconds.wav").read_bytes()) as answer:
                expected = [
                    json.loads(e.to_json()) for e in Detector().detect(EXAMPLES / "stop_within_four_seconds.wav")
                ]
                found = await answer.json()
                assert [one["label"] for one in found] == [one["label"] for one in expected] == ["stop"]
                assert [one["end_s"] for one in found] == [one["end_s"] for one in expected]
            async with session.post("/detect", data=b"no sound") as answer:
                assert answer.status == 400
                assert "error" in await answer.json()
            async with session.get("/models") as answer:
                assert "yes" in (await answer.json())["words"]
            async with session.get("/healthz") as answer:
                assert await answer.json() == {"status": "ok"}
            async with session.get("/metrics") as answer:
                text = await answer.text()
                assert 'tiny_kws_events_total{word="stop"} 1' in text
                assert "tiny_kws_streams 0" in text
            async with session.get("/") as answer:
                assert "<table>" in await answer.text()

    run(talk)


def test_foreign_pages_are_refused() -> None:
    """By Host and Origin, and who has no token."""

    async def talk() -> None:
        async with served(core_of(), token="secret") as server, ClientSession(server.url) as session:
            for headers, status in (
                ({"Host": "evil.example"}, 403),
                ({"Origin": "http://evil.example"}, 403),
                ({}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({"Authorization": "Bearer secret"}, 200),
            ):
                async with session.get("/models", headers=headers) as answer:
                    assert answer.status == status
            async with session.get("/../../etc/passwd", headers={"Authorization": "Bearer secret"}) as answer:
                assert answer.status == 404

    run(talk)


def test_the_folder_is_looked_at_again(tmp_path: Path) -> None:
    """A file that comes is heard, a broken one is named and the old one stays, one that goes is let go."""
    problems: list[str] = []
    library = Library([], tmp_path, {}, problems.append)
    assert not library.words
    file = tmp_path / "a.stream.onnx"
    shutil.copy(find_model("micro", "stream"), file)
    library.look()
    assert "yes" in library.words
    before = library.words["yes"]
    library.look()
    assert library.words["yes"] is before
    file.write_bytes(b"broken")
    library.look()
    assert library.words["yes"] is before
    assert len(problems) == 1
    assert "a.stream.onnx" in problems[0]
    assert "the previous version is kept" in problems[0]
    shutil.copy(find_model("small", "stream"), file)
    library.look()
    assert library.words["yes"].metadata.name == "small"
    file.unlink()
    library.look()
    assert not library.words


def test_thresholds() -> None:
    """Of all words, of one, and a stream's own, which goes before the server's."""
    library = Library(["listener"], None, {"": 0.9, "yes": 0.7}, pytest.fail)
    (choice,) = library.choose(["yes", "no"])
    assert choice.config.thresholds["yes"] == 0.7
    assert choice.config.thresholds["no"] == 0.9
    assert set(choice.config.words) == {"yes", "no"}
    (choice,) = library.choose(["yes"], {"yes": 0.5})
    assert choice.config.thresholds["yes"] == 0.5
    (plain,) = Library(["listener"], None, {}, pytest.fail).choose(None)
    assert plain.config.threshold == config_of(plain.model).threshold
    with pytest.raises(UsageError, match="expected a number above 0"):
        library.choose(["yes"], {"yes": 2})
    with pytest.raises(UsageError, match="abracadabra"):
        Library(["listener"], None, {"abracadabra": 0.5}, pytest.fail)


def test_the_command(tmp_path: Path) -> None:
    """It answers within seconds, refuses a second on its port in one line, and ends on SIGTERM with status 0."""
    command = command_line("serve", "--port", "0", "--http", "0")
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert "Wyoming at 127.0.0.1:" in line, line
        port = line.split(":")[1].split()[0].rstrip(":")
        second = subprocess.run(
            command_line("serve", "--port", port),
            check=False,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=30,
        )
        assert second.returncode == 2
        assert "in use" in second.stderr
        assert second.stderr.count("\n") == 1
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert time.monotonic() - begun < 3
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()
