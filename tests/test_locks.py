"""One writer at a time, across processes, and none locked out by a dead one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tiny_kws.errors import KwsError, UsageError
from tiny_kws.files import exclusive

HOLDER = """
import sys
from pathlib import Path
from tiny_kws.files import exclusive

with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `folder` until its input ends or it is killed."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While one process holds a folder, another gets a UsageError that names it and says what to do."""
    with holder(tmp_path), pytest.raises(UsageError) as caught, exclusive(tmp_path):
        pass
    assert str(caught.value) == f"{tmp_path}: another run is writing there; wait for it or name another folder"


def test_an_ended_holder_lets_go(tmp_path: Path) -> None:
    """A process that leaves its block frees the folder."""
    with holder(tmp_path) as process:
        process.communicate()
        with exclusive(tmp_path):
            pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    """A process that is killed while it holds a folder frees it."""
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        with exclusive(tmp_path):
            pass


def test_a_failed_block_lets_go(tmp_path: Path) -> None:
    """An error inside the block passes through and frees the folder."""
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    with exclusive(tmp_path):
        pass


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    """A folder cannot be held twice by one process either."""
    with exclusive(tmp_path), pytest.raises(UsageError), exclusive(tmp_path):
        pass


def test_two_folders_are_independent(tmp_path: Path) -> None:
    """Holding one folder leaves another free."""
    with exclusive(tmp_path / "one"), exclusive(tmp_path / "two"):
        pass


def test_the_folder_is_made(tmp_path: Path) -> None:
    """A folder that is not there yet is made."""
    with exclusive(tmp_path / "new" / "folder"):
        assert (tmp_path / "new" / "folder").is_dir()


def test_a_file_in_the_way_is_an_error_in_one_line(tmp_path: Path) -> None:
    """A file where the folder should be is a KwsError, not a traceback."""
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(KwsError, match=r"file: cannot be written \([^\n]+$"), exclusive(path):
        pass
