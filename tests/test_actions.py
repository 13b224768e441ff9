"""Commands that words start and recordings that they leave."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tiny_kws import Detection, KwsError, UsageError
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.listening.actions import MAX_RUNNING, Commands, Recordings, parse_rule

from .conftest import full_disk

EVENT = Detection("yes", 1.5, 2.5, 0.875)
HEARD = datetime(2026, 5, 4, 3, 2, 1, 250_000, tzinfo=timezone.utc)
WORDS = ("yes", "no")


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


class Started:
    """Commands, and the problems they had."""

    def __init__(self, *rules: str) -> None:
        self.problems: list[str] = []
        self.commands = Commands(rules, WORDS, self.problems.append)

    def finish(self) -> list[str]:
        """Wait for all and give the problems."""
        end = time.monotonic() + 30
        while self.commands._running and time.monotonic() < end:
            self.commands.reap()
            time.sleep(0.02)
        assert self.commands._running == []
        return self.problems

    def kill(self) -> None:
        for _, process in self.commands._running:
            process.kill()
            process.wait()


@pytest.fixture
def sleeping() -> Iterator[Started]:
    started = Started(f"yes={python('import time; time.sleep(60)')}")
    yield started
    started.kill()


def test_a_command_is_told_the_event(tmp_path: Path) -> None:
    """A command finds label, confidence and time in its environment, beside what was there."""
    names = "TINY_KWS_LABEL", "TINY_KWS_CONFIDENCE", "TINY_KWS_TIME", "PATH"
    code = f"import os; open('{tmp_path / 'told'}', 'w').write('|'.join(os.environ[n] for n in {names}))"
    started = Started(f"yes={python(code)}", f"no={python('raise SystemExit(3)')}")
    started.commands.run(EVENT, HEARD)
    assert started.finish() == []
    assert (tmp_path / "told").read_text() == f"yes|0.875|2026-05-04T03:02:01.250Z|{os.environ['PATH']}"


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    """What a shell would expand or chain reaches the command as it stands."""
    code = f"import sys; open('{tmp_path / 'args'}', 'w').write(repr(sys.argv[1:]))"
    started = Started(f"yes={python(code)} $HOME '*' ; touch > {tmp_path / 'no'}")
    started.commands.run(EVENT, HEARD)
    assert started.finish() == []
    assert (tmp_path / "args").read_text() == repr(["$HOME", "*", ";", "touch", ">", str(tmp_path / "no")])
    assert not (tmp_path / "no").exists()


def test_every_command_of_a_label_is_started(tmp_path: Path) -> None:
    """A label may have several commands; one that fails does not keep the others from running."""
    touch = [python(f"open('{tmp_path / name}', 'w')") for name in "ab"]
    started = Started(f"yes={touch[0]}", "yes=no-such-command-anywhere", f"yes={touch[1]}")
    started.commands.run(EVENT, HEARD)
    (problem,) = started.finish()
    assert problem.startswith("the command for 'yes' (no-such-command-anywhere) cannot be started (No such file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_a_command_prints_is_no_output_of_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Both outputs of a command go to standard error, or where that goes: standard output is for events alone."""
    both = python("import sys; print('out'); print('err', file=sys.stderr)")
    started = Started(f"yes={both}")
    started.commands.run(EVENT, HEARD)
    assert started.finish() == []
    out, err = capfd.readouterr()
    assert (out, sorted(err.split())) == ("", ["err", "out"])
    with (tmp_path / "said").open("w") as stderr:
        started.commands = Commands([f"yes={both}"], WORDS, started.problems.append, stderr)
        started.commands.run(EVENT, HEARD)
        assert started.finish() == []
    assert sorted((tmp_path / "said").read_text().split()) == ["err", "out"]
    assert capfd.readouterr() == ("", "")


def test_a_command_that_fails_is_told() -> None:
    """A status other than 0 is one problem that names the command."""
    started = Started(f"yes={sys.executable} -c 'raise SystemExit(3)'")
    started.commands.run(EVENT, HEARD)
    (problem,) = started.finish()
    assert problem.endswith("failed with status 3")
    assert "'yes'" in problem


def test_nobody_waits_for_a_command(sleeping: Started) -> None:
    """Starting and looking after a command that takes a minute takes no time."""
    before_s = time.monotonic()
    sleeping.commands.run(EVENT, HEARD)
    sleeping.commands.reap()
    assert time.monotonic() - before_s < 5
    assert len(sleeping.commands._running) == 1


def test_commands_that_hang_do_not_pile_up(sleeping: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """When as many run as may, another is not started, and that is told."""
    monkeypatch.setattr("tiny_kws.listening.actions.MAX_RUNNING", 2)
    assert MAX_RUNNING > 2
    for _ in range(3):
        sleeping.commands.run(EVENT, HEARD)
    assert len(sleeping.commands._running) == 2
    (problem,) = sleeping.problems
    assert "was not started: 2 are still running" in problem


@pytest.mark.parametrize("rule", ["yes", "yes=", "=ls", "maybe=ls", "silence=ls", "yes='open", ""])
def test_a_rule_that_makes_no_sense_is_refused(rule: str) -> None:
    """A rule without a command, with an open quote or for a label that is no word is a UsageError that quotes it."""
    with pytest.raises(UsageError, match=r"^found "):
        parse_rule(rule, WORDS)


def test_a_label_may_be_written_in_any_form_of_unicode() -> None:
    """A letter and its accent are the same label in one character and in two."""
    assert parse_rule("cafe\u0301=ls", ["tea", "caf\u00e9"]) == ("caf\u00e9", ["ls"])


def test_a_label_of_any_length_names_a_file(tmp_path: Path) -> None:
    """The sound of an event with a very long label is kept."""
    problems: list[str] = []
    Recordings(tmp_path, problems.append).keep(Detection("\u706f" * 500, 0.0, 1.0, 0.9), HEARD, np.zeros(9, np.float32))
    assert (len(list(tmp_path.iterdir())), problems) == (1, [])


def test_a_command_may_hold_an_equals_sign() -> None:
    """Only the first equals sign parts label and command."""
    assert parse_rule("yes=env A=b ls", WORDS) == ("yes", ["env", "A=b", "ls"])


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (r"C:\Tools\lamp.exe on", [r"C:\Tools\lamp.exe", "on"]),
        (r'"C:\My Tools\lamp.exe" "a b"', [r"C:\My Tools\lamp.exe", "a b"]),
        (r"C:\Users\O'Brien\lamp.exe # 'x", [r"C:\Users\O'Brien\lamp.exe", "#", "'x"]),
        (r"\\server\share\new.exe", [r"\\server\share\new.exe"]),
    ],
)
def test_a_path_of_windows_is_left_whole(command: str, parts: list[str]) -> None:
    """On Windows backslashes and apostrophes are letters of a path, and double quotes keep it together."""
    assert parse_rule(f"yes={command}", WORDS, on_windows=True) == ("yes", parts)


def test_a_rule_is_read_as_a_shell_would_elsewhere() -> None:
    """Anywhere else both quotes and the backslash mean what they mean in a shell."""
    rule = r"""yes=say 'I heard' "it's" a\ b"""
    assert parse_rule(rule, WORDS, on_windows=False) == ("yes", ["say", "I heard", "it's", "a b"])


def test_an_events_sound_is_kept(tmp_path: Path) -> None:
    """The recording is a 16-bit WAV at 16 kHz, named by time and label, in a folder that is made."""
    problems: list[str] = []
    sound = np.linspace(-1, 1, 8000, dtype=np.float32)
    Recordings(tmp_path / "a" / "b", problems.append).keep(EVENT, HEARD, sound)
    path = tmp_path / "a" / "b" / "20260504T030201.250Z_yes.wav"
    kept, rate = sf.read(path)
    assert (problems, rate, sf.info(path).subtype) == ([], SAMPLE_RATE, "PCM_16")
    np.testing.assert_allclose(kept, sound, atol=2**-14)


def test_a_label_is_no_path(tmp_path: Path) -> None:
    """A label with a slash in it stays in the folder; letters of any script stay themselves."""
    Recordings(tmp_path / "kept", print).keep(
        Detection("../o\u00f9 \u706f", 0.0, 1.0, 0.9), HEARD, np.zeros(100, np.float32)
    )
    assert [path.name for path in tmp_path.rglob("*.wav")] == ["20260504T030201.250Z_.._o\u00f9_\u706f.wav"]
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A recording that does not fit is one problem and leaves nothing; the next is kept again."""
    problems: list[str] = []
    recordings = Recordings(tmp_path / "kept", problems.append)
    with full_disk(1000):
        recordings.keep(EVENT, HEARD, np.zeros(32000, np.float32))
    assert list(recordings.folder.iterdir()) == []
    (problem,) = problems
    assert "cannot be written (File too large)" in problem
    recordings.keep(EVENT, HEARD, np.zeros(32000, np.float32))
    assert len(list(recordings.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where a file lies in the way, that is said at once."""
    (tmp_path / "file").write_text("")
    with pytest.raises(KwsError, match="cannot be written"):
        Recordings(tmp_path / "file", print)


def test_a_folder_that_takes_no_files_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where recordings cannot be written that is said at the start, not at the first event."""

    def read_only(path: Path, *_: int) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(KwsError, match="cannot be written"):
        Recordings(tmp_path, print)
