"""Files that are whole or absent, written beside their place and renamed; folders with one writer at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import KwsError, UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends well, and leaves no trace when it does not.

    What a killed run left of it, under a hidden name, is removed first.
    Raises KwsError if it cannot be written (full disk, no permission, no such folder).
    """
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned_files(path)
        beside, descriptor = _open_beside(path)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not ON_WINDOWS:  # it keeps its lock up to here: nobody takes it for abandoned
                beside.replace(path)
        if ON_WINDOWS:
            beside.replace(path)
    except BaseException as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path`, which must not exist, when the block ends well; otherwise no trace of it.

    What a killed run left of it, under a hidden name, is removed first.
    Raises KwsError if it cannot be written or something is already there.
    """
    beside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_folders(path)
        beside = _name_beside(path)
        beside.mkdir()
        lock = beside / LOCK_FILE
        with _held(lock):
            yield beside
            with suppress(PermissionError):  # Windows removes nothing that is open
                lock.unlink()
        lock.unlink(missing_ok=True)
        beside.rename(path)
    except BaseException as error:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


ON_WINDOWS = sys.platform == "win32"
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no EDQUOT
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def is_full(error: OSError) -> bool:
    """Whether a write failed for lack of space, or for a limit on it."""
    return error.errno in _FULL


def cannot_write(path: Path | str, error: OSError) -> KwsError:
    """What to say of a write that failed: whether there is no space, no permission, or something else is wrong."""
    advice = "choose another place, then try again"
    if is_full(error):
        advice = f"free space or {advice}"
    elif error.errno in _FORBIDDEN:
        advice = f"let this user write there, or {advice}"
    return KwsError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def check_writable(path: Path) -> None:
    """Raise KwsError, before the work whose result is to go to `path`, if that file cannot be written; leaves no trace.

    A folder above it that is not there yet is made when the file is written: here the nearest that is there counts.
    """
    beside: Path | None = None
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(path.stat().st_mode):
                raise KwsError(f"{path}: is a folder, expected a file to write")
        folder = next((folder for folder in path.parents if folder.exists()), Path())
        beside, descriptor = _open_beside(folder / path.name)
        os.close(descriptor)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _open_beside(path: Path) -> tuple[Path, int]:
    """A new file beside `path` and its descriptor; the system gives it the modes that the user wants of new files.

    Raises KwsError where a device or a pipe would be replaced by it, as root may.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise KwsError(f"{path}: is a device or a pipe, expected a file to write; choose another place")
    while True:
        beside = _name_beside(path)
        descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o666)
        if ON_WINDOWS or _is_ours(descriptor, beside):
            return beside, descriptor
        os.close(descriptor)


def _is_ours(descriptor: int, beside: Path) -> bool:
    """Lock a new file, unless another run took it for abandoned before it was locked."""
    try:
        _take(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return True  # the file system has no locks, and nobody removes anything
    return beside.exists()


def _name_beside(path: Path) -> Path:
    """A hidden name beside `path` that nobody else takes; short, as its letters may have four bytes each."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}")


def _is_beside(name: str, path: Path) -> bool:
    """Whether `name` is one of those that `_name_beside` gives."""
    return re.fullmatch(re.escape(f".{path.name[:50]}.") + "[0-9a-f]{8}", name) is not None


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK_FILE = ".lock"
"""The empty file that carries the lock of a folder.

In one that is held again and again it stays behind: removing it would let two runs lock two different files."""


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Show by a lock that somebody works here, while the process lives; where the file system has none, nothing."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):
            _take(descriptor)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned_files(path: Path) -> None:
    """Remove what killed runs left of the file `path`: hidden files beside it that nobody writes any more.

    On Windows they stay, as there a file cannot be locked and renamed.
    """
    if ON_WINDOWS:
        return
    with suppress(OSError):  # a folder may be written to and not read
        for beside in path.parent.iterdir():
            if _is_beside(beside.name, path) and beside.is_file() and not beside.is_symlink():
                _remove_unlocked(beside)


def _remove_unlocked(beside: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(beside, os.O_RDWR)
        try:
            _take(descriptor)
            beside.unlink()
        finally:
            os.close(descriptor)


def _remove_abandoned_folders(path: Path) -> None:
    """Remove the hidden folders beside `path` that nobody works in any more."""
    with suppress(PermissionError):  # a folder may be written to and not read
        for beside in path.parent.iterdir():
            if _is_beside(beside.name, path) and _is_abandoned(beside / LOCK_FILE):
                shutil.rmtree(beside, ignore_errors=True)


def _is_abandoned(lock: Path) -> bool:
    """Whether there is a lock, and nobody holds it."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        _take(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if it is not there, for this block alone; a killed holder lets go at once.

    Raises UsageError if another run holds it, or this one already does, and KwsError if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        _take_or_explain(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take_or_explain(descriptor: int, folder: Path) -> None:
    try:
        _take(descriptor)
    except (BlockingIOError, PermissionError) as error:
        raise UsageError(f"{folder}: another run is writing there; wait for it or name another folder") from error
    except OSError as error:
        raise cannot_write(folder, error) from error
