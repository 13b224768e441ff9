"""Fetching and unpacking the archives, from a server on this machine that can be told to misbehave."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial as bind
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import tiny_kws.data.download as room
from tiny_kws.data.download import ARCHIVES, Archive, download
from tiny_kws.data.speech_commands import TEST_FOLDER, WORDS_FOLDER
from tiny_kws.errors import DataError, KwsError, UsageError
from tiny_kws.files import exclusive

NAME = "words_v1.tar.gz"
FOLDER = "words_v1"
FILES = {
    "./yes/0a7c2a8d_nohash_0.wav": np.random.default_rng(1).bytes(400_000),
    "./no/0a7c2a8d_nohash_0.wav": np.random.default_rng(2).bytes(300_000),
    "./validation_list.txt": b"yes/0a7c2a8d_nohash_0.wav\n",
}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits and devices")


@dataclass
class Site:
    """What the server serves, how it misbehaves, and what it was asked."""

    body: bytes = b""
    ranges: bool = True
    status: list[int] = field(default_factory=list)
    """Answers to give to the next requests in place of the file."""
    cut: list[int] = field(default_factory=list)
    """After how many bytes of the body to drop the connections of the next requests."""
    stall: threading.Event | None = None
    """With it, a connection is not dropped where it is cut, but says nothing until the event."""
    content_range: str | None = None
    """A Content-Range to send in place of the right one."""
    lengths: bool = True
    asked: list[str | None] = field(default_factory=list)
    """The Range headers that came."""
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """A static file server with ranges, as far as one file goes."""

    def __init__(self, *args: object, site: Site) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        site, wanted = self.site, self.headers["Range"]
        site.asked.append(wanted)
        if site.status:
            self.send_error(site.status.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else None
        if start is not None and start >= len(site.body):
            self.send_error(416)
            return
        body = site.body[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            actual = f"bytes {start}-{len(site.body) - 1}/{len(site.body)}"
            self.send_header("Content-Range", site.content_range or actual)
        if site.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if site.cut:
            self.wfile.write(body[: site.cut.pop(0)])
            if site.stall:
                site.stall.wait(10)
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Quiet about clients that go away."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of one good archive; attempts follow each other at once."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(room, "BACK_OFF_S", (0.01, 0.01, 0.01))
    site = Site(body=tar_of(FILES))
    server = Server(("127.0.0.1", 0), bind(Handler, site=site))
    site.url = f"http://127.0.0.1:{server.server_port}/data/{NAME}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        if site.stall:
            site.stall.set()
        server.shutdown()
        thread.join()
        server.server_close()


def tar_of(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A tar.gz of `files` at its top level, laid out like the official ones, and of `extra` members without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for folder in ("./", *sorted({f"{name.rsplit('/', 1)[0]}/" for name in files} - {"./"})):
            tar.addfile(entry(folder, tarfile.DIRTYPE))
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


def flipped(body: bytes) -> bytes:
    """`body` with every bit wrong in a stretch of it."""
    return body[:5000] + bytes(255 - byte for byte in body[5000:5100]) + body[5100:]


def with_invalid_block(plain: bytes) -> bytes:
    """A gzip stream of `plain` and then of a block of a type that does not exist."""
    stream = zlib.compressobj(1, wbits=31)
    return stream.compress(plain) + stream.flush(zlib.Z_FULL_FLUSH) + b"\x07"


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    """A member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, size, 0o755
    return info


def archive_of(site: Site, body: bytes | None = None) -> Archive:
    """The archive that the site should serve: `body`, or what it serves now."""
    body = site.body if body is None else body
    return Archive(site.url, len(body), hashlib.sha256(body).hexdigest(), FOLDER)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in(folder: Path) -> set[str]:
    """What lies in `folder`, but for the lock."""
    return {path.name for path in folder.iterdir()} - {".lock"}


def assert_unpacked(destination: Path) -> None:
    """Assert that the good archive is unpacked in `destination` and that nothing else is there."""
    assert left_in(destination) == {FOLDER}
    assert contents(destination / FOLDER) == {name.removeprefix("./"): content for name, content in FILES.items()}


def one_line(caught: pytest.ExceptionInfo[KwsError]) -> str:
    """The message, which is a single line."""
    message = str(caught.value)
    assert "\n" not in message
    return message


def start_of_partial(destination: Path, content: bytes) -> Path:
    """What an earlier run left in `destination`."""
    file = destination / f"{NAME}.partial"
    file.write_bytes(content)
    return file


CHILD = """
import sys
from pathlib import Path
import tiny_kws.data.download as room
from tiny_kws.errors import KwsError

url, size, sha256, destination, limit = sys.argv[1:]
if int(limit):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    room.download(Path(destination), (room.Archive(url, int(size), sha256, "words_v1"),))
except KwsError as error:
    sys.exit(f"{type(error).__name__} {error}")
"""


def child(archive: Archive, destination: Path, limit_bytes: int = 0) -> subprocess.Popen[str]:
    """Another process that downloads `archive` and cannot write files larger than `limit_bytes` if that is given."""
    values = (archive.url, archive.size, archive.sha256, destination, limit_bytes)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, values)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_official_archives() -> None:
    """The official archives carry the addresses, sizes, sums and folders that are known of them."""
    words, test = ARCHIVES
    assert (words.name, words.size, words.folder) == ("speech_commands_v0.02.tar.gz", 2_428_923_189, WORDS_FOLDER)
    assert (test.name, test.size, test.folder) == ("speech_commands_test_set_v0.02.tar.gz", 112_563_277, TEST_FOLDER)
    assert all(archive.url.startswith("https://") for archive in ARCHIVES)
    assert all(re.fullmatch(r"[0-9a-f]{64}", archive.sha256) for archive in ARCHIVES)


def test_torch_is_not_needed() -> None:
    """Importing the room does not import torch."""
    code = "import sys, tiny_kws.data.download; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fetch_and_unpack(site: Site, tmp_path: Path) -> None:
    """An archive ends as its folder, named in the answer; archive and partial file are gone."""
    assert download(tmp_path, (archive_of(site),)) == [tmp_path / FOLDER]
    assert_unpacked(tmp_path)
    assert site.asked == [None]


def test_the_destination_is_made(site: Site, tmp_path: Path) -> None:
    """A destination that is not there yet is made, with those above it."""
    download(tmp_path / "new" / "data", (archive_of(site),))
    assert_unpacked(tmp_path / "new" / "data")


def test_a_second_call_is_free(site: Site, tmp_path: Path) -> None:
    """A folder that is already there is taken as done, without asking the server."""
    first = download(tmp_path, (archive_of(site),))
    assert download(tmp_path, (archive_of(site),)) == first
    assert len(site.asked) == 1


def test_several_archives(site: Site, tmp_path: Path) -> None:
    """Each archive gets a folder of its own, and only the missing ones are fetched."""
    one = archive_of(site)
    two = Archive(f"{one.url}?2", one.size, one.sha256, "other")
    download(tmp_path, (one,))
    assert download(tmp_path, (one, two)) == [tmp_path / FOLDER, tmp_path / "other"]
    assert contents(tmp_path / "other") == contents(tmp_path / FOLDER)
    assert len(site.asked) == 2


def test_a_file_in_place_of_the_folder(site: Site, tmp_path: Path) -> None:
    """A file where the folder should be is told before anything is fetched."""
    (tmp_path / FOLDER).touch()
    with pytest.raises(DataError, match="is a file, expected a folder") as caught:
        download(tmp_path, (archive_of(site),))
    one_line(caught)
    assert site.asked == []


def test_progress_counts_bytes(site: Site, tmp_path: Path) -> None:
    """Progress grows from 0 to the archive's size, first for fetching, then for unpacking."""
    calls: list[tuple[str, int, int]] = []
    download(tmp_path, (archive_of(site),), lambda *call: calls.append(call))
    assert list(dict.fromkeys(name for name, _, _ in calls)) == [NAME, FOLDER]
    assert {total for _, _, total in calls} == {len(site.body)}
    for part in (NAME, FOLDER):
        done = [done for name, done, _ in calls if name == part]
        assert done == sorted(done)
        assert done[-1] == len(site.body)
    assert calls[0][1] == 0


def test_a_partial_file_is_continued(site: Site, tmp_path: Path) -> None:
    """What an earlier run fetched is not fetched again, and counts as done."""
    start_of_partial(tmp_path, site.body[:300_001])
    calls: list[tuple[str, int, int]] = []
    download(tmp_path, (archive_of(site),), lambda *call: calls.append(call))
    assert site.asked == ["bytes=300001-"]
    assert calls[0] == (NAME, 300_001, len(site.body))
    assert_unpacked(tmp_path)


def test_a_complete_partial_file_is_not_fetched(site: Site, tmp_path: Path) -> None:
    """A run that died between the last byte and the renaming leaves nothing to fetch."""
    start_of_partial(tmp_path, site.body)
    download(tmp_path, (archive_of(site),))
    assert site.asked == []
    assert_unpacked(tmp_path)


def test_a_finished_archive_is_not_fetched(site: Site, tmp_path: Path) -> None:
    """A run that died while unpacking leaves nothing to fetch."""
    (tmp_path / NAME).write_bytes(site.body)
    download(tmp_path, (archive_of(site),))
    assert site.asked == []
    assert_unpacked(tmp_path)


def test_a_server_without_ranges(site: Site, tmp_path: Path) -> None:
    """A server that answers 200 to a range request sends everything, and the partial file starts over."""
    site.ranges = False
    start_of_partial(tmp_path, b"x" * 300_001)
    download(tmp_path, (archive_of(site),))
    assert site.asked == ["bytes=300001-"]
    assert_unpacked(tmp_path)


def test_a_range_that_cannot_be_satisfied(site: Site, tmp_path: Path) -> None:
    """A server that answers 416 makes the partial file start over."""
    site.status = [416]
    start_of_partial(tmp_path, site.body[:1000])
    download(tmp_path, (archive_of(site),))
    assert site.asked == ["bytes=1000-", None]
    assert_unpacked(tmp_path)


@pytest.mark.parametrize("answer", ["bytes 0-9/10", "bytes 999-1001/*", "nonsense"])
def test_an_answer_with_another_range(site: Site, tmp_path: Path, answer: str) -> None:
    """A server that sends another range than asked for is not believed: the partial file starts over."""
    site.content_range = answer
    start_of_partial(tmp_path, site.body[:1000])
    download(tmp_path, (archive_of(site),))
    assert site.asked == ["bytes=1000-", None]
    assert_unpacked(tmp_path)


def test_a_partial_file_that_is_too_large(site: Site, tmp_path: Path) -> None:
    """A partial file larger than the archive is none of it: it starts over."""
    start_of_partial(tmp_path, site.body + b"x")
    download(tmp_path, (archive_of(site),))
    assert site.asked == [None]
    assert_unpacked(tmp_path)


def test_a_dropped_connection_is_taken_up_again(site: Site, tmp_path: Path) -> None:
    """A connection that drops mid-body is tried again from where it stopped, more than once."""
    site.cut = [200_000, 100_000]
    download(tmp_path, (archive_of(site),))
    assert site.asked == [None, "bytes=200000-", "bytes=300000-"]
    assert_unpacked(tmp_path)


def test_a_dropped_connection_without_lengths(site: Site, tmp_path: Path) -> None:
    """A body of no declared length that ends too early counts as dropped too."""
    site.lengths, site.cut = False, [200_000]
    download(tmp_path, (archive_of(site),))
    assert site.asked == [None, "bytes=200000-"]
    assert_unpacked(tmp_path)


def test_a_silent_server_is_given_up_and_asked_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says nothing for too long counts as dropped."""
    monkeypatch.setattr(room, "TIMEOUT_S", 0.1)
    site.stall, site.cut = threading.Event(), [room.BLOCK_BYTES]
    began = time.monotonic()
    download(tmp_path, (archive_of(site),))
    assert time.monotonic() - began < 5
    assert site.asked == [None, f"bytes={room.BLOCK_BYTES}-"]
    assert_unpacked(tmp_path)


def test_a_passing_server_error_is_tried_again(site: Site, tmp_path: Path) -> None:
    """An overloaded server is asked again."""
    site.status = [503, 429]
    download(tmp_path, (archive_of(site),))
    assert_unpacked(tmp_path)


def test_a_connection_that_keeps_dropping(site: Site, tmp_path: Path) -> None:
    """After a few attempts the error says how far it came and that running again goes on from there, which it does."""
    site.cut = [1000] * 4
    with pytest.raises(KwsError, match=r"4000 of \d+ bytes are here.* run the same command again") as caught:
        download(tmp_path, (archive_of(site),))
    assert site.url in one_line(caught)
    assert left_in(tmp_path) == {f"{NAME}.partial"}
    download(tmp_path, (archive_of(site),))
    assert site.asked[-1] == "bytes=4000-"
    assert_unpacked(tmp_path)


def test_back_off_grows_and_is_short() -> None:
    """The waits between attempts grow, and end within half a minute."""
    assert list(room.BACK_OFF_S) == sorted(room.BACK_OFF_S)
    assert sum(room.BACK_OFF_S) < 30


@pytest.mark.parametrize("status", [403, 404])
def test_a_missing_file_on_the_server(site: Site, tmp_path: Path, status: int) -> None:
    """A refusal is told at once, in one line that names the address and the status."""
    site.status = [status] * 4
    with pytest.raises(DataError, match=f"answered {status} ") as caught:
        download(tmp_path, (archive_of(site),))
    assert site.url in one_line(caught)
    assert len(site.asked) == 1


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nobody answers is told at once, in one line that names it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{NAME}"
        began = time.monotonic()
        with pytest.raises(DataError, match="cannot be reached") as caught:
            download(tmp_path, (Archive(url, 10, "0" * 64, FOLDER),))
    assert url in one_line(caught)
    assert time.monotonic() - began < room.BACK_OFF_S[0]


def test_a_reason_of_two_lines_becomes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the system words its reason, the error stays one line."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route\n to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match="no route to host") as caught:
        download(tmp_path, (Archive(f"http://127.0.0.1/{NAME}", 10, "0" * 64, FOLDER),))
    one_line(caught)


@pytest.mark.parametrize("have", [0, 1000])
def test_a_file_of_another_size_on_the_server(site: Site, tmp_path: Path, have: int) -> None:
    """A server whose file has another size is told before the body is read, and costs nothing of the partial file."""
    archive = archive_of(site)
    before = start_of_partial(tmp_path, site.body[:have])
    site.body = site.body[:-10]
    with pytest.raises(DataError, match=rf"has {len(site.body)} bytes, expected {archive.size}") as caught:
        download(tmp_path, (archive,))
    one_line(caught)
    assert before.stat().st_size == have


def test_corrupted_bytes(site: Site, tmp_path: Path) -> None:
    """Bytes with a wrong sum are removed; the error names both sums in brief and says to try again, which works."""
    archive, good = archive_of(site), site.body
    site.body = flipped(good)
    with pytest.raises(DataError, match="try again") as caught:
        download(tmp_path, (archive,))
    message = one_line(caught)
    assert hashlib.sha256(site.body).hexdigest()[:12] in message
    assert archive.sha256[:12] in message
    assert left_in(tmp_path) == set()
    site.body = good
    download(tmp_path, (archive,))
    assert_unpacked(tmp_path)


@pytest.mark.parametrize("content", [b"short", b""])
def test_a_finished_archive_that_is_damaged(site: Site, tmp_path: Path, content: bytes) -> None:
    """A damaged file under the archive's own name is told and removed like a damaged download."""
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(DataError, match=f"has {len(content)} bytes, expected {len(site.body)} bytes"):
        download(tmp_path, (archive_of(site),))
    assert left_in(tmp_path) == set()


ESCAPES = {
    "parent": entry("../escaped", size=4),
    "parent further in": entry("yes/../../escaped", size=4),
    "parent on Windows": entry("yes\\..\\..\\escaped", size=4),
    "absolute": entry("/tiny-kws-escaped", size=4),
    "drive": entry("C:escaped", size=4),
    "symbolic link": entry("link", tarfile.SYMTYPE, "../escaped"),
    "absolute symbolic link": entry("link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": entry("link", tarfile.LNKTYPE, "../escaped"),
    "absolute hard link": entry("link", tarfile.LNKTYPE, "/etc/passwd"),
    "device": entry("device", tarfile.CHRTYPE),
    "block device": entry("device", tarfile.BLKTYPE),
    "pipe": entry("pipe", tarfile.FIFOTYPE),
    "newline": entry("../esc\naped", size=4),
}


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("member", ESCAPES.values(), ids=ESCAPES)
def test_a_hostile_archive(
    site: Site, tmp_path: Path, member: tarfile.TarInfo, filtered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that would escape stops everything, with Python's own filter and without: nothing is unpacked."""
    if not filtered:
        monkeypatch.setattr(tarfile, "data_filter", lambda member, _: member, raising=False)
    (tmp_path / "escaped").write_bytes(b"untouched")
    site.body = tar_of(FILES, member)
    destination = tmp_path / "data"
    with pytest.raises(DataError, match="expected only files and folders that stay inside") as caught:
        download(destination, (archive_of(site),))
    assert repr(member.name) in one_line(caught)
    assert left_in(destination) == {NAME}
    assert left_in(tmp_path) == {"data", "escaped"}
    assert (tmp_path / "escaped").read_bytes() == b"untouched"


def test_a_hard_link_inside(site: Site, tmp_path: Path) -> None:
    """A hard link to another member, which tar makes of twins, is a file like others."""
    site.body = tar_of(FILES, entry("./twin.txt", tarfile.LNKTYPE, "./validation_list.txt"))
    download(tmp_path, (archive_of(site),))
    assert contents(tmp_path / FOLDER)["twin.txt"] == FILES["./validation_list.txt"]


DAMAGED = {
    "truncated": lambda body: body[:-1000],
    "no gzip": lambda _: b"<html>Please log in</html>",
    "no tar": lambda _: gzip.compress(b"no tar at all" * 100),
    "flipped bits": flipped,
    "broken compression": lambda body: with_invalid_block(gzip.decompress(body)[:300_000]),
    "wrong gzip checksum": lambda body: body[:-8] + b"\0\0\0\0" + body[-4:],
    "truncated tar": lambda body: gzip.compress(gzip.decompress(body)[:300_000], 1),
    "link to nothing": lambda _: tar_of({}, entry("twin", tarfile.LNKTYPE, "nothing")),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive(site: Site, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """An archive that is damaged under a right checksum is told in one line, and nothing is unpacked."""
    site.body = damage(site.body)
    with pytest.raises(DataError, match=r"is not a complete tar\.gz \(.+\), expected one") as caught:
        download(tmp_path, (archive_of(site),))
    assert NAME in one_line(caught)
    assert left_in(tmp_path) == {NAME}


def test_leftovers_of_a_killed_unpacking_are_removed(site: Site, tmp_path: Path) -> None:
    """The half-unpacked folder of a run that was killed does not stay behind; other folders do."""
    (tmp_path / f".{FOLDER}.abcd1234" / "yes").mkdir(parents=True)
    (tmp_path / ".other").mkdir()
    download(tmp_path, (archive_of(site),))
    assert left_in(tmp_path) == {FOLDER, ".other"}


def test_an_interrupted_unpacking_leaves_no_folder(site: Site, tmp_path: Path) -> None:
    """Ctrl-C while unpacking leaves the archive and no folder, and the next run fetches nothing."""

    def interrupt(name: str, *_: int) -> None:
        if name == FOLDER:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(tmp_path, (archive_of(site),), interrupt)
    assert left_in(tmp_path) == {NAME}
    download(tmp_path, (archive_of(site),))
    assert len(site.asked) == 1
    assert_unpacked(tmp_path)


def test_a_killed_run_is_continued(site: Site, tmp_path: Path) -> None:
    """A process killed while it downloads leaves what it received, and the next run asks only for the rest."""
    site.stall, site.cut = threading.Event(), [400_000]
    archive, partial = archive_of(site), tmp_path / f"{NAME}.partial"
    whole_blocks = 400_000 // room.BLOCK_BYTES * room.BLOCK_BYTES
    with child(archive, tmp_path) as process:
        try:
            wait_until(lambda: partial.exists() and partial.stat().st_size >= whole_blocks)
        finally:
            process.kill()
    assert left_in(tmp_path) == {f"{NAME}.partial"}
    download(tmp_path, (archive,))
    assert site.asked == [None, f"bytes={whole_blocks}-"]
    assert_unpacked(tmp_path)


def test_two_runs_at_once(site: Site, tmp_path: Path) -> None:
    """While one run writes to a destination, another process is refused with a UsageError and fetches nothing."""
    with exclusive(tmp_path), child(archive_of(site), tmp_path) as process:
        _, message = process.communicate()
    assert message.startswith(f"UsageError {tmp_path}: another run is writing there")
    assert site.asked == []
    with exclusive(tmp_path), pytest.raises(UsageError):
        download(tmp_path, ())


@POSIX
def test_a_full_disk(site: Site, tmp_path: Path) -> None:
    """A device without space is told in one line that says so and what to do."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / f"{NAME}.partial").symlink_to("/dev/full")
    with pytest.raises(KwsError, match=r"cannot be written \(No space left on device\); free space") as caught:
        download(tmp_path, (archive_of(site),))
    assert str(tmp_path) in one_line(caught)
    assert len(site.asked) == 1


@POSIX
def test_what_was_written_before_the_disk_was_full_is_kept(site: Site, tmp_path: Path) -> None:
    """A write that fails half way keeps all that was written, and a run with more room goes on from there."""
    archive = archive_of(site)
    with child(archive, tmp_path, limit_bytes=300_001) as process:
        _, message = process.communicate()
    assert re.fullmatch(r"KwsError [^\n]+ cannot be written \([^\n]+\); free space [^\n]+\n", message)
    assert (tmp_path / f"{NAME}.partial").read_bytes() == site.body[:300_001]
    download(tmp_path, (archive,))
    assert site.asked == [None, "bytes=300001-"]
    assert_unpacked(tmp_path)


@POSIX
def test_a_disk_that_is_full_while_unpacking(site: Site, tmp_path: Path) -> None:
    """Without room for the unpacked files there is no folder, and the archive is kept for the next run."""
    site.body = tar_of({"./zeros.wav": bytes(1_000_000)})
    with child(archive_of(site), tmp_path, limit_bytes=300_001) as process:
        _, message = process.communicate()
    assert re.fullmatch(r"KwsError [^\n]+ cannot be written \([^\n]+\); free space [^\n]+\n", message)
    assert left_in(tmp_path) == {NAME}
