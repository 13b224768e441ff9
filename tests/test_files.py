"""Files and folders are whole or absent, whatever ends their writing."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tiny_kws.errors import KwsError
from tiny_kws.files import (
    ON_WINDOWS,
    cannot_write,
    check_writable,
    sha256_of,
    whole_file,
    whole_folder,
    write_bytes,
    write_json,
)

from .conftest import full_disk, kill_in_the_middle

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
ONE_LINE = r"^[^\n]+: cannot be written \([^\n]+\); ([a-z ]+, or |free space or |)choose another place, then try again$"

KILLED_FILE = """
import sys, time
from pathlib import Path
from tiny_kws.files import whole_file

with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half" * 10_000)
    file.flush()
    print("in the middle", flush=True)
    time.sleep(60)
"""

KILLED_FOLDER = """
import sys, time
from pathlib import Path
from tiny_kws.files import whole_folder

with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "part").write_bytes(b"half")
    print("in the middle", flush=True)
    time.sleep(60)
"""


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def break_off(path: Path, error: BaseException) -> None:
    """Begin to write a file and fail."""
    with whole_file(path) as file:
        file.write(b"half")
        raise error


def test_a_file_is_there_only_at_the_end(tmp_path: Path) -> None:
    """The name appears when the block ends, with all that was written and nothing beside it."""
    path = tmp_path / "file"
    with whole_file(path) as file:
        file.write(b"one ")
        assert not path.exists()
        file.write(b"two")
    assert path.read_bytes() == b"one two"
    assert list(tmp_path.iterdir()) == [path]


def test_the_folders_above_a_file_are_made(tmp_path: Path) -> None:
    """A file may be asked for in a folder that is not there yet."""
    write_bytes(tmp_path / "new" / "folder" / "file", b"data")
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == b"data"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failed_block_leaves_no_file(tmp_path: Path, error: BaseException) -> None:
    """Any exception passes through as it is and leaves the folder empty."""
    with pytest.raises(type(error)) as caught:
        break_off(tmp_path / "file", error)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_failed_block_leaves_the_earlier_file(tmp_path: Path) -> None:
    """A file that was there before is untouched by a write that fails."""
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with pytest.raises(ZeroDivisionError):
        break_off(path, ZeroDivisionError())
    assert path.read_bytes() == b"earlier"


def test_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    """A write that ends well takes the place of what was there."""
    path = tmp_path / "file"
    path.write_bytes(b"a longer one than the new")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_killed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    """SIGKILL in the middle leaves the earlier file whole, and beside it only a hidden leftover."""
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    kill_in_the_middle(KILLED_FILE, path)
    assert path.read_bytes() == b"earlier"
    assert visible(tmp_path) == ["file"]


@pytest.mark.skipif(ON_WINDOWS, reason="there a file cannot be locked and renamed")
def test_the_next_write_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """The hidden leftover goes; a file that another run is writing, another's, and a folder of such a name stay."""
    path = tmp_path / "file"
    kill_in_the_middle(KILLED_FILE, path)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".other.0a1b2c3d").touch()
    (tmp_path / ".file.0a1b2c3d").mkdir()
    with whole_file(path) as slow:
        slow.write(b"slow")
        write_bytes(path, b"quick")
        assert path.read_bytes() == b"quick"
    assert path.read_bytes() == b"slow"
    assert not left.exists()
    assert sorted(found.name for found in tmp_path.iterdir()) == [".file.0a1b2c3d", ".other.0a1b2c3d", "file"]


def test_a_killed_write_leaves_no_new_file(tmp_path: Path) -> None:
    """SIGKILL in the middle of a new file leaves nothing by its name."""
    kill_in_the_middle(KILLED_FILE, tmp_path / "file")
    assert visible(tmp_path) == []


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    """The next run that writes the folder removes what is there of it; what is others' stays."""
    path = tmp_path / "folder"
    kill_in_the_middle(KILLED_FOLDER, path)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".other.0a1b2c3d").mkdir()
    (tmp_path / ".folder.0a1b2c3d").mkdir()  # without a lock it may be anyone's
    with whole_folder(path) as folder:
        assert not left.exists()
        (folder / "part").write_bytes(b"whole")
    assert sorted(found.name for found in tmp_path.iterdir()) == [".folder.0a1b2c3d", ".other.0a1b2c3d", "folder"]
    assert [found.name for found in path.iterdir()] == ["part"]


def test_a_folder_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """Two runs that write the same folder do not take it from each other; the second to end fails."""
    path = tmp_path / "folder"
    with ExitStack() as slower:
        first = slower.enter_context(whole_folder(path))
        (first / "part").write_bytes(b"first")
        with whole_folder(path) as second:
            (second / "part").write_bytes(b"second")
        assert (first / "part").read_bytes() == b"first"
        with pytest.raises(KwsError, match="cannot be written"):
            slower.close()
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]
    assert (path / "part").read_bytes() == b"second"


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    """A disk that fills up is a KwsError in one line; the earlier file stays and no part of the new one does."""
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with pytest.raises(KwsError, match=ONE_LINE), full_disk(4096):
        write_bytes(path, bytes(100_000))
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_full_at_the_last_flush_leaves_no_file(tmp_path: Path) -> None:
    """What only the closing flush cannot write counts as well."""
    with pytest.raises(KwsError, match=ONE_LINE), full_disk(4), whole_file(tmp_path / "file") as file:
        file.write(b"buffered")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_of_a_file(tmp_path: Path) -> None:
    """A file cannot take the place of a folder; the folder keeps what it holds."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(KwsError, match=ONE_LINE):
        write_bytes(tmp_path / "taken", b"data")
    assert visible(tmp_path) == ["taken"]
    assert visible(tmp_path / "taken") == ["inside"]


def test_a_file_in_the_way_of_a_parent(tmp_path: Path) -> None:
    """A file where a parent folder should be is a KwsError in one line, for files and folders alike."""
    (tmp_path / "file").touch()
    with pytest.raises(KwsError, match=ONE_LINE):
        write_bytes(tmp_path / "file" / "below", b"data")
    with pytest.raises(KwsError, match=ONE_LINE), whole_folder(tmp_path / "file" / "below"):
        pass


@POSIX
def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """Permissions are those that the umask gives any new file, not those of a private temporary one."""
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"data")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


@POSIX
def test_the_umask_stays(tmp_path: Path) -> None:
    """Writing leaves the process's umask as it was."""
    before = os.umask(0o077)
    try:
        write_bytes(tmp_path / "file", b"data")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_forbidden_folder(tmp_path: Path) -> None:
    """A folder that may not be written to is a KwsError in one line."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(KwsError, match=ONE_LINE):
            write_bytes(tmp_path / "file", b"data")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_is_there_only_at_the_end(tmp_path: Path) -> None:
    """The folder appears when the block ends, with all that was written and nothing beside it."""
    path = tmp_path / "folder"
    with whole_folder(path) as folder:
        (folder / "a").write_bytes(b"one")
        assert not path.exists()
        (folder / "b").mkdir()
    assert visible(path) == ["a", "b"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failed_block_leaves_no_folder(tmp_path: Path, error: BaseException) -> None:
    """Any exception passes through and leaves no folder, however deep it was filled."""

    def fill_and_fail() -> None:
        with whole_folder(tmp_path / "folder") as folder:
            (folder / "deep" / "deeper").mkdir(parents=True)
            (folder / "deep" / "file").touch()
            raise error

    with pytest.raises(type(error)):
        fill_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_block_leaves_no_folder(tmp_path: Path) -> None:
    """SIGKILL in the middle leaves only a hidden folder."""
    kill_in_the_middle(KILLED_FOLDER, tmp_path / "folder")
    assert visible(tmp_path) == []


def test_a_full_disk_leaves_no_folder(tmp_path: Path) -> None:
    """A disk that fills up is a KwsError in one line and leaves no trace of the folder."""
    with pytest.raises(KwsError, match=ONE_LINE), full_disk(4096), whole_folder(tmp_path / "folder") as folder:
        (folder / "large").write_bytes(bytes(100_000))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    """A folder that came to be there in the meantime keeps what it holds, and the new one is refused."""
    path = tmp_path / "folder"

    def write_while_another_comes() -> None:
        with whole_folder(path) as folder:
            (folder / "new").touch()
            path.mkdir()
            (path / "earlier").touch()

    with pytest.raises(KwsError, match=ONE_LINE):
        write_while_another_comes()
    assert visible(path) == ["earlier"]
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable(tmp_path: Path) -> None:
    """JSON is indented UTF-8 that ends in a newline."""
    write_json(tmp_path / "file", {"word": "où"})
    assert (tmp_path / "file").read_text(encoding="utf-8") == '{\n  "word": "où"\n}\n'


def test_values_json_cannot_hold_leave_no_file(tmp_path: Path) -> None:
    """A value that JSON cannot hold fails before anything is written."""
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 3 * 2**20 + 17])
def test_sha256(tmp_path: Path, size: int) -> None:
    """The digest is SHA-256 over all bytes, with or without the standard library's help for files."""
    data = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    assert sha256_of(path) == hashlib.sha256(data[:size]).hexdigest()


def test_what_is_said_of_a_failed_write() -> None:
    """The message names the file, the system's reason and what to do, on one line."""
    error = cannot_write(Path("model.onnx"), OSError(28, "No space left on device"))
    assert str(error) == (
        "model.onnx: cannot be written (No space left on device); free space or choose another place, then try again"
    )


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space or choose another place"),
        (errno.EFBIG, "free space or choose another place"),
        (errno.EACCES, "let this user write there, or choose another place"),
        (errno.EROFS, "let this user write there, or choose another place"),
        (errno.ENOTDIR, "choose another place"),
    ],
)
def test_what_to_do_about_a_failed_write(number: int, advice: str) -> None:
    """Space helps a full disk, permission where it is missing, and neither elsewhere."""
    reason = os.strerror(number)
    assert str(cannot_write("here", OSError(number, reason))) == (
        f"here: cannot be written ({reason}); {advice}, then try again"
    )


def test_the_umask_is_never_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask for the umask is to set it, for every thread: files and folders are written without."""

    def never(_: int) -> int:
        raise AssertionError

    monkeypatch.setattr(os, "umask", never)
    write_bytes(tmp_path / "file", b"1")
    with whole_folder(tmp_path / "folder"):
        pass


def test_check_writable_leaves_no_trace(tmp_path: Path) -> None:
    """A file that can be written, in a folder that is there or not yet, passes, and nothing is made."""
    for path in (tmp_path / "out.png", tmp_path / "new" / "folder" / "out.png"):
        check_writable(path)
    assert list(tmp_path.iterdir()) == []


def test_check_writable_refuses_what_cannot_be(tmp_path: Path) -> None:
    """A folder in the file's place, or a file in a folder's, is an error that names the path."""
    (tmp_path / "file").write_bytes(b"old")
    for path in (tmp_path, tmp_path / "file" / "out.png"):
        with pytest.raises(KwsError, match=str(path)):
            check_writable(path)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_check_writable_says_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is too long, or a folder that takes no new files, is an error before the work, without a trace."""
    for path in (tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "out.png"):
        with pytest.raises(KwsError, match="too long"):
            check_writable(path)

    def read_only(path: Path, *_: int) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(KwsError, match=r"out\.png: cannot be written \(Read-only file system\); let this user write"):
        check_writable(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    """A name of as many bytes as the system takes, in letters of one byte or three, is a name of a file or a folder."""
    for name in ("x" * 255, "\u706f" * 85):
        check_writable(tmp_path / name)
        write_bytes(tmp_path / name, b"data")
        with whole_folder(tmp_path / "folder" / name):
            pass
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("write", [check_writable, lambda path: write_bytes(path, b"x")], ids=["check", "write"])
def test_a_pipe_is_not_replaced(write: Callable[[Path], None], tmp_path: Path) -> None:
    """What is neither file nor folder, as a named pipe or /dev/null to root, is refused and stays what it is."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KwsError, match="is a device or a pipe"):
        write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1
