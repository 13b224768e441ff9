"""HTTP and WebSocket: sound in binary messages, events as JSON, a page that shows them, metrics for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from ..artefact.runtime import Probabilities, StreamModel
from ..audio import Converter, stream_mono
from ..config import SAMPLE_RATE
from ..errors import KwsError, UsageError
from ..listening.actions import utc_text
from ..listening.decoder import Detection
from .page import PAGE
from .sessions import BusyError, Core, Heard, Hearing, RefusedError

ENCODINGS = ("s16le", "f32le")
FIRST_S = 30.0
"""How long a client may take to say what it will send."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CORE: web.AppKey[Core] = web.AppKey("core", Core)


def application(core: Core, hosts: frozenset[str], token: str | None) -> web.Application:
    """Make the application. Browsers may call it by `hosts`; all but the page and /healthz requires `token`."""
    app = web.Application(middlewares=[_guard(hosts, token)], client_max_size=core.limits.message_bytes)
    app[CORE] = core
    app.add_routes(
        [
            web.get("/", _page),
            web.get("/healthz", _health),
            web.get("/models", _models),
            web.get("/metrics", _metrics),
            web.get("/live", _live),
            web.get("/listen", _listen),
            web.post("/detect", _detect),
        ]
    )
    return app


def _guard(hosts: frozenset[str], token: str | None) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _name_of(request.host) not in hosts:
            raise _refusal(web.HTTPForbidden, f"found the host {request.host!r:.80}, expected this server's own name")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise _refusal(web.HTTPForbidden, f"found the origin {origin!r:.80}, expected this server's own page")
        if token and request.path not in ("/", "/healthz") and not _has_token(request, token):
            raise _refusal(web.HTTPUnauthorized, "found no valid token, expected the one given with --token")
        try:
            response = await handler(request)
        except BusyError as error:
            raise _refusal(web.HTTPServiceUnavailable, str(error)) from error
        except KwsError as error:
            raise _refusal(web.HTTPBadRequest, str(error)) from error
        if not response.prepared:
            response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return guard


def _name_of(host: str) -> str:
    """Without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _has_token(request: web.Request, token: str) -> bool:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.query.get("token", "")
    return hmac.compare_digest(given.encode(), token.encode())


def _refusal(kind: type[web.HTTPError], reason: str) -> web.HTTPError:
    return kind(text=json.dumps({"error": reason}), content_type="application/json")


async def _page(_: web.Request) -> web.Response:
    headers = {"Content-Security-Policy": "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"}
    return web.Response(text=PAGE, content_type="text/html", headers=headers)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _models(request: web.Request) -> web.Response:
    found = [
        {
            "name": m.metadata.name,
            "labels": list(m.labels),
            "version": m.metadata.version,
            "licence": m.metadata.licence,
        }
        for m in request.app[CORE].library.models
    ]
    return web.json_response({"models": found, "words": list(request.app[CORE].library.words)})


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(text=request.app[CORE].figures.to_prometheus(), content_type="text/plain")


async def _detect(request: web.Request) -> web.Response:
    """Events of a sound file of any format."""
    core = request.app[CORE]
    names = request.query.get("words")
    choices = core.library.choose(names.split(",") if names else None)
    with core.connection("http"):
        content = await request.read()
        if not content:
            raise UsageError("found no sound, expected a sound file as the body")
        events: list[Detection] = []
        hearing = Hearing(core, choices, f"http {request.remote}", events.append)
        try:
            blocks = stream_mono(BytesIO(content))
            while (block := await asyncio.to_thread(next, blocks, None)) is not None:
                await hearing.push(block)
            await hearing.finish()
        finally:
            hearing.close()
    return web.json_response([event.to_dict() for event in events])


async def _live(request: web.Request) -> web.WebSocketResponse:
    """Send events and counts to the page as they come."""
    core = request.app[CORE]
    socket = web.WebSocketResponse(heartbeat=30)
    await socket.prepare(request)
    queue: asyncio.Queue[Heard] = asyncio.Queue(100)

    def tell(heard: Heard) -> None:
        with suppress(asyncio.QueueFull):
            queue.put_nowait(heard)

    with core.connection("page"):
        core.told.append(tell)
        try:
            while not socket.closed:
                figures = core.figures
                await socket.send_json({"streams": figures.streams, "seconds": round(figures.seconds, 1)})
                with suppress(asyncio.TimeoutError):
                    heard = await asyncio.wait_for(queue.get(), 1.0)
                    event = heard.event.to_dict(time=utc_text(heard.time))
                    await socket.send_json({"client": heard.client, "event": event})
        except ConnectionError:
            pass
        finally:
            core.told.remove(tell)
    return socket


async def _listen(request: web.Request) -> web.WebSocketResponse:
    """Serve a stream: one JSON message that says what will come, then sound; events are sent back."""
    core = request.app[CORE]
    with core.connection("websocket"):
        socket = web.WebSocketResponse(heartbeat=30, max_msg_size=core.limits.message_bytes, compress=False)
        await socket.prepare(request)
        try:
            async with _opened(core, socket, f"websocket {request.remote}") as stream:
                await stream.run()
        except KwsError as error:
            core.figures.refused["messages"] += 1
            with suppress(ConnectionError):
                await socket.send_json({"error": str(error)})
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:120])
        except ConnectionError:
            pass
    return socket


@asynccontextmanager
async def _opened(core: Core, socket: web.WebSocketResponse, client: str) -> AsyncIterator[_Socket]:
    try:
        first = await socket.receive(FIRST_S)
    except asyncio.TimeoutError as error:
        raise RefusedError(
            f"found no message in {FIRST_S:g} s, expected one in JSON that describes the sound"
        ) from error
    asked = _object(first.data if first.type == WSMsgType.TEXT else "")
    stream = _Socket(core, socket, asked, client)
    try:
        yield stream
    finally:
        stream.hearing.close()


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RefusedError('found no JSON object, expected {"rate": 16000, ...} or {"eof": true}')
    return found


class _Socket:
    """One stream over a WebSocket."""

    def __init__(self, core: Core, socket: web.WebSocketResponse, asked: Mapping[str, Any], client: str) -> None:
        self._core, self._socket = core, socket
        rate, encoding = asked.get("rate", SAMPLE_RATE), asked.get("encoding", "s16le")
        words, thresholds = asked.get("words"), asked.get("thresholds") or {}
        if "threshold" in asked and isinstance(thresholds, dict):
            thresholds = {"": asked["threshold"], **thresholds}
        _check_asked(rate, encoding, words, thresholds)
        self._converter = Converter(rate, asked.get("channels", 1), "the stream", encoding)
        self._outgoing: list[str] = []
        on_row = self._row if asked.get("probabilities") else None
        choices = core.library.choose(words, thresholds)
        self.hearing = Hearing(core, choices, client, self._event, on_row)

    def _event(self, event: Detection) -> None:
        self._outgoing.append(event.to_json())

    def _row(self, model: StreamModel, row: Probabilities) -> None:
        found = dict(zip(model.labels, (round(float(value), 6) for value in row), strict=True))
        self._outgoing.append(json.dumps({"model": model.metadata.name, "probabilities": found}))

    async def run(self) -> None:
        """Serve until the client disconnects."""
        await self._socket.send_json({"words": sorted(self.words)})
        sending = asyncio.create_task(self._send())
        try:
            async for message in self._socket:
                if sending.done():
                    return
                if message.type == WSMsgType.BINARY:
                    await self.hearing.push(self._converter.push_bytes(message.data))
                elif message.type == WSMsgType.TEXT and _object(message.data).get("eof"):
                    await self._end()
                    return
                elif message.type == WSMsgType.TEXT:
                    raise RefusedError('found another message of text, expected sound or {"eof": true}')
        finally:
            sending.cancel()

    @property
    def words(self) -> set[str]:
        """The words that the client asked for."""
        return {word for lane in self.hearing.lanes for word in lane.decoder.words}

    async def _send(self) -> None:
        while True:
            await self.hearing.advance()
            await self._flush()

    async def _flush(self) -> None:
        while self._outgoing:
            text = self._outgoing.pop(0)
            await asyncio.wait_for(self._socket.send_str(text), self._core.limits.stalled_s)

    async def _end(self) -> None:
        await self.hearing.push(self._converter.finish())
        await self.hearing.finish()
        await self._flush()
        await self._socket.send_json({"eof": True, "seconds": round(self.hearing.n_samples / SAMPLE_RATE, 3)})
        await self._socket.close()


def _check_asked(rate: Any, encoding: Any, words: Any, thresholds: Any) -> None:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise RefusedError(f"found the rate {rate!r:.40}, expected a number in Hz")
    if encoding not in ENCODINGS:
        raise RefusedError(f"found the encoding {encoding!r:.40}, expected one of {', '.join(ENCODINGS)}")
    if not (words is None or (isinstance(words, list) and all(isinstance(word, str) for word in words))):
        raise RefusedError(f"found the words {words!r:.40}, expected a list of them")
    if not isinstance(thresholds, dict):
        raise RefusedError(f"found the thresholds {thresholds!r:.40}, expected numbers by word")


async def start(core: Core, host: str, port: int, names: frozenset[str], token: str | None) -> web.AppRunner:
    """Listen at an address. Raises UsageError if it is in use or not allowed."""
    runner = web.AppRunner(application(core, names, token), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise UsageError(
            f"found {host}:{port} in use or forbidden ({error.strerror or error}), expected a free port; name another "
            "with --http"
        ) from error
    return runner
