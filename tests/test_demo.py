"""`tiny-kws demo`: what it serves, to whom, and what it says when it cannot."""

from __future__ import annotations

import gzip
import hashlib
import json
import runpy
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import Message
from pathlib import Path

import pytest

from tiny_kws.apps.server import HOST, PORT, PORTS_TRIED, TYPES, PageServer, page_items
from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.artefact.store import DEFAULT_MODELS, bundled_models, find_model
from tiny_kws.config import DetectorConfig, settings_of
from tiny_kws.errors import ModelError, UsageError
from tiny_kws.words import NOT_WORDS

from .helpers import changed_artefact, command_line, environment, run_cli
from .test_cli import unix_only
from .test_import_rules import EXTRA

WEB = Path(__file__).parents[1] / "web"
SOURCES = (
    "index.html",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "vite.config.ts",
    "mit.txt",
    "public",
    "src",
)
FIRST_LOAD_BYTES = 12e6


@contextmanager
def serving(port: int | None = 0, own: Sequence[Path] = ()) -> Iterator[PageServer]:
    """A server of the page with models of one's own, in a thread."""
    with PageServer(port, own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with serving() as running:
        yield running


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_every_file_of_the_page_is_served_with_its_type(server: PageServer) -> None:
    """Scripts, WebAssembly, models and recordings come whole and with the type that browsers insist on."""
    for name, read in page_items().items():
        status, headers, body = get(server.url + name)
        assert (status, body) == (200, read())
        assert headers["Content-Type"] == TYPES[Path(name).suffix]
    assert get(server.url)[2] == get(server.url + "index.html")[2]


def test_the_webassembly_is_packed_whatever_the_host_does(server: PageServer) -> None:
    """The page's WebAssembly is a gzip file, sent as it is: the page unpacks it, whatever the host packs."""
    status, headers, packed = get(server.url + "ort-wasm-simd-threaded.wasm.gz", Accept_Encoding="gzip, br")
    assert (status, headers["Content-Type"]) == (200, "application/gzip")
    assert "Content-Encoding" not in headers
    assert gzip.decompress(packed).startswith(b"\0asm")
    assert not any(name.endswith(".wasm") for name in page_items())


def test_all_files_are_listed_for_later(server: PageServer) -> None:
    """The service worker's list has every file of the page but itself and what is about the build."""
    listed = json.loads(get(server.url + "files.json")[2])
    pages = {name for name in page_items() if not name.startswith("models/")}
    assert set(listed) == pages - {"index.html", "sw.js", "files.json", "build.json"}


def test_what_a_browser_has_already_is_not_sent_again(server: PageServer) -> None:
    """A file's tag is answered with 304 and nothing else."""
    tag = get(server.url + "index.js")[1]["ETag"]
    status, _, body = get(server.url + "index.js", If_None_Match=tag)
    assert (status, body) == (304, b"")


@pytest.mark.parametrize("path", ["nothing.js", "../server.py", "%2e%2e/server.py", "web/../../cli/demo.py", "models/"])
def test_nothing_else_is_served(server: PageServer, path: str) -> None:
    """A path that is no file of the page, or leads out of it, is a 404."""
    with socket.create_connection((HOST, server.server_port)) as connection:
        connection.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        assert b" 404 " in connection.recv(4096).splitlines()[0]


def test_only_this_computer_can_reach_it(server: PageServer) -> None:
    """The server listens on the loopback address alone."""
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_the_page_is_told_the_models_and_the_defaults(server: PageServer) -> None:
    """`models/index.json` names every bundled stream model, and the detector's defaults as `config.py` has them."""
    index = json.loads(get(server.url + "models/index.json")[2])
    assert [model["name"] for model in index["models"]] == bundled_models("stream")
    assert index["default"] == DEFAULT_MODELS["stream"]
    assert index["detector"] == {**settings_of(DetectorConfig()), "words": []}
    assert index["not_words"] == list(NOT_WORDS)
    for model in index["models"]:
        path = find_model(model["name"], "stream")
        assert get(server.url + "models/" + model["file"])[2] == path.read_bytes()
        assert model["listens"] == bool(StreamModel(path).metadata.detector)


def test_the_page_links_to_what_the_package_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses of the installed package's metadata are in the index; a package without any has no links."""
    stated = Message()
    monkeypatch.setattr("tiny_kws.apps.server.metadata.metadata", lambda _: stated)
    assert json.loads(page_items()["models/index.json"]())["links"] == {}
    stated["Project-URL"] = "Documentation, https://example.org/docs, and more"
    links = json.loads(page_items()["models/index.json"]())["links"]
    assert links == {"Documentation": "https://example.org/docs, and more"}


def test_models_of_ones_own_come_first(tmp_path: Path) -> None:
    """Their names are those of their files, with a number where one is taken; the bundled ones keep theirs."""
    small = find_model("small", "stream")
    own = [tmp_path / name for name in ("a/lights.stream.onnx", "b/Lights.stream.onnx", "b/micro.onnx")]
    for i, path in enumerate(own):
        path.parent.mkdir(exist_ok=True)
        changed_artefact(small, path, version=str(i))
    with serving(own=[*own, small]) as server:
        index = json.loads(get(server.url + "models/index.json")[2])
        names = [model["name"] for model in index["models"]]
        assert names[:4] == ["lights", "Lights-2", "micro-2", "small"]
        assert sorted(names[3:]) == bundled_models("stream")
        assert index["default"] == "lights"
        for model, path in zip(index["models"], [*own, small], strict=False):
            assert get(server.url + "models/" + model["file"])[2] == path.read_bytes()


def test_a_model_that_is_gone_is_a_404(tmp_path: Path) -> None:
    """A model of one's own that was deleted while it was served is said not to be there, and the page goes on."""
    own = shutil.copy(find_model("small", "stream"), tmp_path / "mine.stream.onnx")
    with serving(own=[own]) as server:
        own.unlink()
        assert get(server.url + "models/mine.stream.onnx")[0] == 404
        assert get(server.url)[0] == 200


def test_a_model_that_is_none_for_streams_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    """A clip artefact, one with detector settings that make no sense and a file that is no artefact are refused."""
    clip, unusable, foreign = find_model("small", "clip"), tmp_path / "unusable.onnx", tmp_path / "foreign.onnx"
    changed_artefact(find_model("small", "stream"), unusable, detector={"threshold": 7})
    foreign.write_bytes(b"no model")
    for path, reason in (
        (clip, "expected one for streams"),
        (unusable, "detector settings"),
        (foreign, "not a tiny-kws"),
    ):
        with pytest.raises(ModelError, match=reason):
            PageServer(0, [path])
    done = run_cli("demo", "--export", tmp_path / "page", "--model", clip)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert not (tmp_path / "page").exists()


def test_the_first_load_is_small() -> None:
    """All that the page ever fetches is under 12 MB, compressed."""
    assert sum(len(gzip.compress(read())) for read in page_items().values()) < FIRST_LOAD_BYTES


def test_the_committed_page_is_built_from_the_committed_sources() -> None:
    """The built page says it was made of exactly what lies in web/ and examples/; if not, `make web` mends it.

    A hint that needs no npm: what was built could be changed and say so all the same. `make page` builds and compares.
    """
    if not WEB.is_dir():
        pytest.skip(f"no sources of the page in {WEB}")
    found = [path for name in (*SOURCES, "../examples") for path in (WEB / name, *(WEB / name).rglob("*"))]
    files = sorted(path.as_posix().removeprefix(f"{WEB.as_posix()}/") for path in found if path.is_file())
    digest = hashlib.sha256()
    for name in files:
        digest.update(name.encode() + b"\0" + (WEB / name).read_bytes() + b"\0")
    assert json.loads(page_items()["build.json"]())["sources_sha256"] == digest.hexdigest()


def test_the_comparison_of_pages_finds_every_difference(tmp_path: Path) -> None:
    """`scripts/check_page.py` compares contents, packed ones unpacked, and names what differs or lacks."""
    script = Path(__file__).parents[1] / "scripts" / "check_page.py"
    if not script.is_file():
        pytest.skip(f"{script} is not here")
    check = runpy.run_path(str(script))
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, level in ((one, 9), (other, 1)):
        (folder / "examples").mkdir(parents=True)
        (folder / "same.js").write_bytes(b"same")
        (folder / "packed.wasm.gz").write_bytes(gzip.compress(b"wasm" * 1000, level))
    pages = [check["files_of"](folder) for folder in (one, other)]
    assert check["differences"](*pages) == []
    (one / "packed.wasm.gz").write_bytes(gzip.compress(b"wasm" * 999))
    (one / "examples" / "more.wav").write_bytes(b"")
    (other / "same.js").write_bytes(b"sane")
    pages = [check["files_of"](folder) for folder in (one, other)]
    assert check["differences"](*pages) == ["examples/more.wav", "packed.wasm.gz", "same.js"]


def test_packages_are_named_and_not_their_mirrors() -> None:
    """The lock file of the page's packages names versions and checksums, and no address of a download."""
    if not WEB.is_dir():
        pytest.skip(f"no sources of the page in {WEB}")
    assert '"resolved"' not in (WEB / "package-lock.json").read_text(encoding="utf-8")


def test_a_port_in_use_is_an_error_that_says_what_to_do(server: PageServer) -> None:
    """A port that was asked for and is taken is a wrong use, in one line."""
    done = run_cli("demo", "--no-browser", "--port", str(server.server_port))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"found port {server.server_port} in use" in done.stderr
    assert "--port" in done.stderr


def test_without_a_port_the_next_free_one_is_taken() -> None:
    """Two at once get different ports."""
    with serving(None) as first, serving(None) as second:
        assert first.server_port != second.server_port
        assert {first.server_port, second.server_port} <= set(range(PORT, PORT + PORTS_TRIED))


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If every port that is tried is taken, the error names them."""
    with serving() as taken:
        monkeypatch.setattr("tiny_kws.apps.server.PORT", taken.server_port)
        monkeypatch.setattr("tiny_kws.apps.server.PORTS_TRIED", 1)
        with pytest.raises(UsageError, match=f"every port from {taken.server_port}"):
            PageServer()


@unix_only
def test_ctrl_c_ends_it_with_status_0() -> None:
    """`tiny-kws demo` prints where the page is, serves it, and ends without a word at Ctrl-C; torch is not needed."""
    command = command_line("demo", "--no-browser", "--port", "0", blocked=EXTRA)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        assert b"tiny-kws" in get(url)[2]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_export_writes_a_folder_that_needs_no_server_of_ours(tmp_path: Path) -> None:
    """`--export` writes every file of the page into a new folder."""
    folder = tmp_path / "page"
    done = run_cli("demo", "--export", folder, blocked=EXTRA)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n", "")
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert written == {name: read() for name, read in page_items().items()}


def test_export_takes_models_of_ones_own(tmp_path: Path) -> None:
    """`--export` with several `--model` writes these models too, and the page begins with the first."""
    own = [shutil.copy(find_model("small", "stream"), tmp_path / name) for name in ("左.stream.onnx", "b c.onnx")]
    folder = tmp_path / "page"
    done = run_cli("demo", "--export", folder, "--model", own[0], "--model", own[1], blocked=EXTRA)
    assert (done.returncode, done.stderr) == (0, "")
    index = json.loads((folder / "models" / "index.json").read_text(encoding="utf-8"))
    assert index["default"] == "左"
    for model, name in zip(index["models"], ("左", "b c"), strict=False):
        assert model["name"] == name
        assert (folder / "models" / model["file"]).read_bytes() == own[0].read_bytes()


def test_export_overwrites_nothing(tmp_path: Path) -> None:
    """A folder that exists is left as it is, and named in the error."""
    done = run_cli("demo", "--export", tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert str(tmp_path) in done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--gradio", "--export", "page"], "found --export with --gradio"),
        (["--gradio", "--model", "small"], "found --model with --gradio"),
        (["--host", "::"], "found --host without"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], reason: str, tmp_path: Path) -> None:
    """What only one of the two pages can do is refused for the other, status 2."""
    done = run_cli("demo", "--no-browser", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
