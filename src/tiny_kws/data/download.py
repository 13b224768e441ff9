"""Downloads, verifies and unpacks the official Speech Commands archives; a broken run continues where it stopped."""

from __future__ import annotations

import gzip
import http.client
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..errors import DataError
from ..files import cannot_write, exclusive, sha256_of, whole_folder
from .speech_commands import TEST_FOLDER, WORDS_FOLDER

Progress = Callable[[str, int, int], None]
BLOCK_BYTES = 2**16
TIMEOUT_S = 30.0
"""How long a server may take to send something."""
BACK_OFF_S = (1.0, 2.0, 4.0, 8.0)
"""Waits before each further attempt after a broken connection."""
PASSING_STATUS = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which it is worth asking again."""
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, KeyError)
"""What reading a damaged tar.gz raises: KeyError is a hard link to nothing, ValueError a name no system takes."""


@dataclass(frozen=True)
class Archive:
    """A tar.gz of `size` bytes whose members lie at its top level, and the folder it is unpacked into."""

    url: str
    size: int
    sha256: str
    folder: str

    @property
    def name(self) -> str:
        """The file's name, which is the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


ARCHIVES = (
    Archive(
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        2_428_923_189,
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        WORDS_FOLDER,
    ),
    Archive(
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_test_set_v0.02.tar.gz",
        112_563_277,
        "cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df",
        TEST_FOLDER,
    ),
)
"""All recordings of Speech Commands v0.02 and its official test set (Warden 2018, arXiv:1804.03209), CC BY 4.0."""


class _LostError(Exception):
    """The connection broke, or the answer was useless; asking again may help."""


def download(
    destination: Path,
    archives: tuple[Archive, ...] = ARCHIVES,
    progress: Progress = lambda name, done, total: None,
) -> list[Path]:
    """Fetch `archives`, unpack them into folders below `destination`, and return these folders.

    A folder that already exists counts as done. `progress(name, done, total)` counts bytes of the archive, first under
    the archive's name while it is fetched, then under the folder's while it is unpacked. If a run breaks off, what it
    fetched is kept in `NAME.partial`, and the next run continues from there.

    Raises DataError if an archive cannot be fetched or is not the official one, UsageError if another run is writing
    to `destination`, and KwsError if that cannot be written.
    """
    with exclusive(destination):
        try:
            return [_obtain(archive, destination, progress) for archive in archives]
        except OSError as error:
            raise cannot_write(destination, error) from error


def _obtain(archive: Archive, destination: Path, progress: Progress) -> Path:
    folder = destination / archive.folder
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{folder}: is a file, expected a folder or nothing; move it away and try again")
    file = destination / archive.name
    if file.exists():
        _verify(file, archive)
    else:
        partial = file.with_name(f"{file.name}.partial")
        _fetch(archive, partial, progress)
        _verify(partial, archive)
        partial.replace(file)
    _unpack(file, folder, progress)
    file.unlink()
    return folder


def _fetch(archive: Archive, partial: Path, progress: Progress) -> None:
    """Bring `partial` to its full size, continuing from what is there."""
    for wait_s in (0.0, *BACK_OFF_S):
        time.sleep(wait_s)
        try:
            _receive(archive, partial, progress)
        except _LostError as lost:
            reason = str(lost)
            if not wait_s and isinstance(lost.__cause__, urllib.error.URLError):
                break  # nobody there at the first call: no network or a wrong address, and waiting seldom helps
        else:
            return
    raise DataError(
        f"{archive.url}: {reason}; {_size_of(partial)} of {archive.size} bytes are here, "
        "check the network and run the same command again to resume"
    )


def _receive(archive: Archive, partial: Path, progress: Progress) -> None:
    """Ask once for the bytes missing from `partial` and write them. Raises _LostError if not all of them come."""
    have = _size_of(partial)
    if have == archive.size:
        return
    if have > archive.size:
        partial.unlink()
        have = 0
    with _ask(archive.url, have, partial) as response:
        have = _first_byte(response, archive, have, partial)
        # Unbuffered, so that what a killed run has received is on the disk.
        with partial.open("ab" if have else "wb", buffering=0) as file:
            progress(archive.name, have, archive.size)
            for block in _blocks(response, archive.size - have):
                view = memoryview(block)
                while view:
                    view = view[file.write(view) :]
                have += len(block)
                progress(archive.name, have, archive.size)


def _ask(url: str, start: int, partial: Path) -> http.client.HTTPResponse:
    """Send the request for the bytes from `start` on. Raises DataError if asking again will not help."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 - our own URL
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - our own URL
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answered {error.code} {_one_line(error.reason)}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink(missing_ok=True)
        elif error.code not in PASSING_STATUS:
            raise DataError(f"{url}: {answer}, expected the archive; check the network or try again later") from error
        raise _LostError(answer) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _LostError(f"cannot be reached ({_one_line(reason)})") from error
    return response


def _first_byte(response: http.client.HTTPResponse, archive: Archive, asked: int, partial: Path) -> int:
    """Where in the archive the body starts: at `asked`, or at 0 if the server does not support ranges.

    Raises DataError if the server has a file of another size.
    """
    first, offered = 0, response.headers.get("Content-Length")
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != asked:
            partial.unlink(missing_ok=True)
            raise _LostError("the server sent different bytes from those requested")
        first, offered = asked, found[2]
    if offered is not None and offered != str(archive.size):
        raise DataError(
            f"{archive.url}: the server has {offered} bytes, expected {archive.size}; "
            "that is not the official archive, check the network (a login page?) and try again"
        )
    return first


def _blocks(response: http.client.HTTPResponse, wanted: int) -> Iterator[bytes]:
    """The next `wanted` bytes of the body, as they come. Raises _LostError if the connection breaks before."""
    while wanted:
        try:
            block = response.read(min(BLOCK_BYTES, wanted))
        except (OSError, http.client.HTTPException) as error:
            raise _LostError(f"the connection broke ({_one_line(error)})") from error
        if not block:
            raise _LostError("the connection broke before the end")
        wanted -= len(block)
        yield block


def _verify(file: Path, archive: Archive) -> None:
    """Raise DataError, and remove `file`, unless it is identical to `archive`."""
    found, expected = f"{_size_of(file)} bytes", f"{archive.size} bytes"
    if found == expected:
        found, expected = (f"SHA-256 {digest[:12]}..." for digest in (sha256_of(file), archive.sha256))
    if found != expected:
        file.unlink()
        raise DataError(
            f"{file}: has {found}, expected {expected}; it was damaged in transit and has been removed, try again"
        )


def _unpack(file: Path, folder: Path, progress: Progress) -> None:
    """Unpack `file` into the new `folder`, or leave nothing. Raises DataError if it is damaged or would escape."""
    for left_by_killed_run in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left_by_killed_run, ignore_errors=True)
    size = _size_of(file)
    with whole_folder(folder) as beside:
        try:
            with file.open("rb") as raw, gzip.open(raw) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
                if hasattr(tarfile, "data_filter"):  # from Python 3.10.12 and 3.11.4 on
                    tar.extraction_filter = tarfile.data_filter
                for member in tar:
                    _check_member(member, file)
                    tar.extract(member, beside)
                    progress(folder.name, raw.tell(), size)
                while plain.read(BLOCK_BYTES):  # gzip looks at its checksum only at the very end
                    pass
        except DAMAGE as error:
            raise DataError(
                f"{file}: is not a complete tar.gz ({_one_line(error)}), expected one; remove it and try again"
            ) from error
    progress(folder.name, size, size)


def _check_member(member: tarfile.TarInfo, file: Path) -> None:
    """Raise DataError unless `member` is a file or folder that stays inside.

    Symbolic links are refused wherever they point, so that no later name can lead through one.
    """
    plain = member.isfile() or member.isdir() or member.islnk()
    if not plain or not _stays_inside(member.name) or (member.islnk() and not _stays_inside(member.linkname)):
        raise DataError(
            f"{file}: holds {member.name!r}, expected only files and folders that stay inside; "
            "nothing was unpacked, remove it and try again"
        )


def _stays_inside(name: str) -> bool:
    path = PureWindowsPath(name)  # knows drives and both kinds of slash
    return not path.anchor and ".." not in path.parts


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
