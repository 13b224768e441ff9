"""What happens when a word is heard: commands are started, recordings are kept."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

import soundfile as sf

from ..audio import Samples
from ..config import SAMPLE_RATE
from ..errors import KwsError, UsageError
from ..files import cannot_write, check_writable, write_bytes
from ..words import label_of
from .decoder import Detection

MAX_RUNNING = 32
"""The most commands that run at the same time, so that commands that hang do not pile up."""
OnProblem = Callable[[str], None]


class Commands:
    """Starts a command when a word is heard, without a shell and without waiting for it.

    `rules` are texts `LABEL=COMMAND`, split as a shell would; a label may have several. A command finds the event in
    the environment: TINY_KWS_LABEL, TINY_KWS_CONFIDENCE, and TINY_KWS_TIME in UTC. Everything it prints goes to
    `stderr`, because the standard output of this process is for events only. `on_problem` is called with one line if a
    command cannot be started or fails. Raises UsageError for a malformed rule, or a label that is not among `words`.
    """

    def __init__(
        self, rules: Sequence[str], words: Sequence[str], on_problem: OnProblem, stderr: IO[str] | None = None
    ) -> None:
        self._commands: dict[str, list[list[str]]] = {}
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._on_problem = on_problem
        self._output = 2 if stderr is None else stderr
        for rule in rules:
            label, command = parse_rule(rule, words)
            self._commands.setdefault(label, []).append(command)

    def run(self, event: Detection, heard: datetime) -> None:
        """Start the commands of the event's label."""
        for command in self._commands.get(event.label, []):
            name = f"the command for {event.label!r} ({shlex.join(command)})"
            if len(self._running) >= MAX_RUNNING:
                self._on_problem(f"{name} was not started: {MAX_RUNNING} are still running; end them")
                continue
            try:
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    env=environment(event, heard),
                )
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                self._on_problem(f"{name} cannot be started ({reason}); check its name and path")
            else:
                self._running.append((name, process))

    @property
    def n_running(self) -> int:
        """The commands that were still running at the last check."""
        return len(self._running)

    def reap(self) -> None:
        """Collect the commands that have ended; never waits."""
        for name, process in self._running:
            if process.poll():
                self._on_problem(f"{name} failed with status {process.returncode}")
        self._running = [(name, process) for name, process in self._running if process.returncode is None]


def parse_rule(rule: str, words: Sequence[str], on_windows: bool = os.name == "nt") -> tuple[str, list[str]]:
    """The label and the command's parts of `LABEL=COMMAND`.

    On Windows a backslash is part of a path and only double quotes count as quotes, as is usual there; elsewhere both
    mean what they mean in a shell.

    >>> parse_rule("yes=notify-send 'I heard yes'", ["yes", "no"])
    ('yes', ['notify-send', 'I heard yes'])
    >>> parse_rule(r'yes="C:\\My Tools\\lamp.exe" on', ["yes", "no"], on_windows=True)
    ('yes', ['C:\\\\My Tools\\\\lamp.exe', 'on'])
    """
    written, _, text = rule.partition("=")
    try:
        command = _split(text, on_windows)
    except ValueError as error:
        raise UsageError(f"found {rule!r} ({error}), expected LABEL=COMMAND with its quotes closed") from error
    if not command:
        raise UsageError(f"found {rule!r}, expected LABEL=COMMAND")
    label = label_of(written, words)
    if label is None:
        raise UsageError(f"found a command for {written!r}, expected one of {', '.join(words)}")
    return label, command


def _split(text: str, on_windows: bool) -> list[str]:
    """A command's parts, split as a shell would."""
    words = shlex.shlex(text, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, ""
    if on_windows:
        words.escape, words.quotes = "", '"'
    return list(words)


def environment(event: Detection, heard: datetime) -> dict[str, str]:
    """The environment variables that a command gets."""
    return {
        **os.environ,
        "TINY_KWS_LABEL": event.label,
        "TINY_KWS_CONFIDENCE": str(event.confidence),
        "TINY_KWS_TIME": utc_text(heard),
    }


class Recordings:
    """A folder with the sound of each event, WAV of 16 kHz and 16 bit, named by time (UTC) and label.

    `on_problem` is called with one line if a recording cannot be written; nothing is left of that recording. Raises
    KwsError if the folder cannot be made, or nothing can be written to it.
    """

    def __init__(self, folder: Path, on_problem: OnProblem) -> None:
        self.folder = folder
        self._on_problem = on_problem
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        check_writable(folder / "event.wav")

    def keep(self, event: Detection, heard: datetime, sound: Samples) -> None:
        """Write `sound`, (samples,) at 16 kHz."""
        label = re.sub(r"[^-.\w]", "_", event.label)[:50]  # letters of any script, and no part of a path
        file = io.BytesIO()
        sf.write(file, sound, SAMPLE_RATE, subtype="PCM_16", format="WAV")
        try:
            write_bytes(self.folder / f"{re.sub('[-:]', '', utc_text(heard))}_{label}.wav", file.getvalue())
        except KwsError as error:
            self._on_problem(str(error))


def utc_text(moment: datetime) -> str:
    """A moment in UTC, to the millisecond.

    >>> from datetime import timezone
    >>> utc_text(datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone.utc))
    '2026-05-04T03:02:01.000Z'
    """
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
