"""One writer at a time in a folder, by a lock that dies with the process that holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError
from .files import cannot_write

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


LOCK_FILE = ".lock"
"""The empty file that carries the lock. It stays behind: removing it would let two runs lock two different files."""


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
