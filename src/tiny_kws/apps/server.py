"""The page that listens in a browser: serves its files and the bundled models over HTTP, or writes them to a folder.

The page runs the models in the browser; this only serves files.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata, resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..artefact.format import SUFFIXES
from ..artefact.runtime import StreamModel, read_metadata
from ..artefact.store import DEFAULT_MODELS, bundled_models, find_model
from ..config import DetectorConfig, settings_of
from ..errors import KwsError, UsageError
from ..files import whole_folder
from ..listening.detector import config_of
from ..words import NOT_WORDS

HOST = "127.0.0.1"  # a browser gives the microphone to pages from this computer itself, and no other can reach it
PORT = 8321
PORTS_TRIED = 20
DISTRIBUTION = "tiny-kws"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".gz": "application/gzip",
    ".onnx": "application/octet-stream",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".mp3": "audio/mpeg",
}
"""Content types by suffix; the system's own table cannot be relied on."""


def page_items(own: Sequence[Path] = ()) -> dict[str, Callable[[], bytes]]:
    """Functions that read each file of the page, by its path (`models/x.stream.onnx`), with your `own` artefacts.

    Your own come before the bundled ones. Raises KwsError if the built page is missing from this installation,
    ModelError if one of them is not a stream artefact.
    """
    folder = Path(str(resources.files(__package__) / "web"))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if folder / "index.html" not in files:
        raise KwsError(f"{folder}: holds no built page, expected index.html there; build it with `make web`")
    items = {path.relative_to(folder).as_posix(): path.read_bytes for path in files}
    models = _offered(own)
    items |= {f"models/{_file_of(name)}": path.read_bytes for name, path in models.items()}
    index = json.dumps(_index(models, len(own) > 0), indent=2, ensure_ascii=False).encode()
    items["models/index.json"] = lambda: index
    return items


def _offered(own: Sequence[Path]) -> dict[str, Path]:
    """The artefacts that the page offers, by their names on it, your own first.

    A bundled model keeps its name; your own is named after its file, with a number added if that name is taken.
    """
    bundled = {find_model(name, "stream"): name for name in bundled_models("stream")}
    taken = {name.casefold() for name in bundled.values()}
    names: dict[Path, str] = {}
    for path in dict.fromkeys(own):
        config_of(StreamModel(path))  # raises where it, or what it says of the detector, is of no use
        names[path] = bundled.get(path) or _free_name(_stem(path), taken)
        taken.add(names[path].casefold())
    return {name: path for path, name in {**names, **bundled}.items()}


def _stem(path: Path) -> str:
    return path.name.removesuffix(SUFFIXES["stream"]).removesuffix(SUFFIXES["clip"])


def _free_name(name: str, taken: Collection[str]) -> str:
    numbered = (f"{name}-{n}" for n in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free.casefold() not in taken)


def _file_of(name: str) -> str:
    return name + SUFFIXES["stream"]


def _index(models: Mapping[str, Path], is_first_default: bool) -> dict[str, Any]:
    """What the page needs besides the models: the package's defaults, each of which is defined in one place only."""
    return {
        "detector": settings_of(DetectorConfig()),
        "not_words": NOT_WORDS,
        "default": next(iter(models)) if is_first_default else DEFAULT_MODELS["stream"],
        "models": [
            {
                "name": name,
                "file": _file_of(name),
                "bytes": path.stat().st_size,
                "listens": bool(read_metadata(path).detector),
            }
            for name, path in models.items()
        ],
        "links": _links(),
    }


def _links() -> dict[str, str]:
    """The project's links by name, as the installed package states them."""
    try:
        stated = metadata.metadata(DISTRIBUTION).get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return {}
    return dict(link.split(", ", 1) for link in stated)


def export_page(folder: Path, own: Sequence[Path] = ()) -> None:
    """Write the page into a new `folder` that any host of static files can serve.

    Raises KwsError if it exists or cannot be written, and as `page_items` does.
    """
    if folder.exists():
        raise UsageError(f"{folder}: already exists, expected a new folder; name another one")
    items = page_items(own)
    with whole_folder(folder) as beside:
        for name, read in items.items():
            path = beside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read())


class PageServer(ThreadingHTTPServer):
    """Serves the page's files, and nothing else, to this computer only.

    `port` None means the first free one from PORT on, 0 any free one. Raises UsageError if the port is in use, and as
    `page_items` does.
    """

    daemon_threads = True

    def __init__(self, port: int | None = None, own: Sequence[Path] = ()) -> None:
        self.items: Mapping[str, Callable[[], bytes]] = page_items(own)
        for tried in range(PORT, PORT + PORTS_TRIED) if port is None else [port]:
            try:
                super().__init__((HOST, tried), _Handler)
            except OSError as error:  # noqa: PERF203
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                return
        found = f"port {port}" if port is not None else f"every port from {PORT} to {PORT + PORTS_TRIED - 1}"
        raise UsageError(f"found {found} in use or forbidden, expected a free one; name another with --port")

    def server_bind(self) -> None:
        """Bind without asking a name server for this computer's name."""
        if os.name == "posix":  # elsewhere this would share a port that is taken
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "tiny-kws"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        name = unquote(urlsplit(self.path).path).removeprefix("/") or "index.html"
        read = self.server.items.get(name)
        try:
            body = read() if read else None
        except OSError:  # a model of one's own may be gone by now
            body = None
        if body is None:
            self._send(HTTPStatus.NOT_FOUND, {"Content-Type": TYPES[".txt"]}, b"Not a file of this page.\n", with_body)
            return
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {
            "Content-Type": TYPES.get(Path(name).suffix, "application/octet-stream"),
            "Cache-Control": "no-cache",  # keep it, and ask each time whether it is still right
            "ETag": tag,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if tag in self.headers.get("If-None-Match", ""):
            self._send(HTTPStatus.NOT_MODIFIED, headers, b"", with_body=False)
        else:
            self._send(HTTPStatus.OK, headers, body, with_body)

    def _send(self, status: HTTPStatus, headers: dict[str, str], body: bytes, with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: only the command line prints."""
