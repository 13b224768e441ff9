"""Voices that say a word: synthetic speakers of two packages and of programs, each with speed and pitch drawn.

Pico (py-nanotts) and Hibari (hibari-tts) come with the extra `say`, both under Apache-2.0; Flite is used where it is
installed. Any program that speaks can be named by its command.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from ..audio import Samples, read_mono
from ..config import SAMPLE_RATE
from ..data.mixing import at_speed
from ..decoding import is_cut_short
from ..errors import AudioError, UsageError, install_hint

PACES = (0.8, 1.25)
"""How fast a voice speaks, against its usual pace."""
PITCHES = (0.82, 1.22)
"""By which a voice and its vocal tract are moved, by resampling."""
INTONED = (0.75, 1.35)
"""By which Pico's pitch alone is moved."""
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
PICO_VOICES = {"en": ("en-GB", "en-US"), "de": ("de-DE",), "es": ("es-ES",), "fr": ("fr-FR",), "it": ("it-IT",)}
LANGUAGES = tuple(PICO_VOICES)
TIMEOUT_S = 20
LONGEST_S = 12.0
"""Of what a program says of one text."""
MOST_BYTES = 100_000_000
"""That a program may write."""
WAIT_S = 0.05
"""After which it is looked whether a program hangs or writes without end."""
GIVEN, PRINTED, TOLD = "given", "printed", "told"
"""Files of what a program reads, what it prints, and of its messages, of which the end is looked at."""
LONGEST_TOLD = 10_000


@dataclass(frozen=True)
class Voice:
    """A synthetic speaker. `speak` takes a text and a pace, and gives (samples,) at 16 kHz."""

    name: str
    speak: Callable[[str, float], Samples]

    def say(self, text: str, rng: np.random.Generator) -> Samples:
        """The text at a pace and a pitch drawn from `rng`."""
        pitch = float(np.exp(rng.uniform(*np.log(PITCHES))))
        pace = float(np.exp(rng.uniform(*np.log(PACES))))
        return at_speed(self.speak(text, pace / pitch), pitch)


def voices(language: str = "en") -> list[Voice]:
    """Those that are installed and speak a language. Raises UsageError if there are none."""
    if language not in LANGUAGES:
        raise UsageError(f"found the language {language!r}, expected one of {', '.join(LANGUAGES)}")
    found = [*_pico(language), *(_hibari() if language == "en" else []), *(_flite() if language == "en" else [])]
    if not found:
        raise UsageError(f"found no voice to say it with, expected one; {install_hint('say')}")
    return found


def of_command(command: str) -> Voice:
    """The voice of a program: {text} in its command is what to say, {out} the WAV file to write (else its output is).

    Without {text} the program reads the text from its standard input. Raises UsageError for a command that is none.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"found the voice command {command!r} ({error}), expected a program and its options") from None
    if not words or shutil.which(words[0]) is None:
        raise UsageError(
            f"found the voice command {command!r}, but no program {words[0] if words else ''!r}; install it"
        )
    return Voice(Path(words[0]).name, partial(_run, words))


def _pico(language: str) -> list[Voice]:
    try:
        from py_nanotts import NanoTTS  # noqa: PLC0415  (an extra)
    except ImportError:
        return []
    engine = NanoTTS()

    def speak(name: str, text: str, pace: float) -> Samples:
        pcm = engine.speak(text, voice=name, speed=pace)
        return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)

    return [Voice(f"pico {name}", partial(speak, name)) for name in PICO_VOICES[language]]


def _hibari() -> list[Voice]:
    engine = hibari()
    if engine is None:
        return []

    def speak(text: str, pace: float) -> Samples:
        spoken = np.asarray(engine(text, speed=pace, seed=0), np.float32).ravel()
        sound: Samples = soxr.resample(spoken, engine.sample_rate, SAMPLE_RATE)
        return sound

    return [Voice("hibari heart", speak)]


@cache
def hibari() -> Any:
    """The synthesizer of hibari-tts, which spells words in sounds too; None where it is not installed."""
    try:
        from hibari.tts import Hibari  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    return Hibari()


def _flite() -> list[Voice]:
    program = shutil.which("flite")
    if program is None:
        return []

    def speak(name: str, text: str, pace: float) -> Samples:
        words = [program, "-voice", name, "--setf", f"duration_stretch={1 / pace:.3f}", "-t", "{text}", "-o", "{out}"]
        return _run(words, text, 1.0)

    return [Voice(f"flite {name}", partial(speak, name)) for name in FLITE_VOICES]


def _run(words: Sequence[str], text: str, pace: float) -> Samples:
    """What a program says, by time alone at another pace. Raises AudioError where it says nothing that can be used."""
    program = words[0]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        out = folder / "spoken.wav"
        command = [word.replace("{text}", text).replace("{out}", str(out)) for word in words]
        (folder / GIVEN).write_bytes(b"" if any("{text}" in word for word in words) else f"{text}\n".encode())
        try:
            _finish(command, folder)
            sound = _whole(out if out.exists() else folder / PRINTED)
        except AudioError as error:
            raise AudioError(f"{program}: asked to say {text!r}, it {error}") from error
    if len(sound) > LONGEST_S * SAMPLE_RATE:
        raise AudioError(
            f"{program}: said {text!r} in {len(sound) / SAMPLE_RATE:.0f} s, expected {LONGEST_S:g} at most"
        )
    return at_speed(sound, pace)


def _finish(command: Sequence[str], folder: Path) -> None:
    """Run a program to its end, with files of `folder` for what it reads and prints. Raises AudioError if it fails.

    Files, not pipes: a server that the program leaves running would hold a pipe open.
    """
    given, printed, told = (folder / name for name in (GIVEN, PRINTED, TOLD))
    with given.open("rb") as stdin, printed.open("wb") as stdout, told.open("wb") as stderr:
        try:
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)  # noqa: S603
        except OSError as error:
            raise AudioError(f"cannot be started ({error.strerror})") from None
        try:
            _wait(process, folder)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        lines = told.read_bytes()[-LONGEST_TOLD:].decode(errors="replace").strip().splitlines()
        raise AudioError(f"ended with status {process.returncode}: {lines[-1] if lines else 'no message'}")


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a program, but not for one that hangs, nor for one that writes without end."""
    until = time.monotonic() + TIMEOUT_S
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(WAIT_S)
            return
        if time.monotonic() > until:
            raise AudioError(f"did not end within {TIMEOUT_S} s")
        if sum(file.stat().st_size for file in folder.iterdir()) > MOST_BYTES:
            raise AudioError(f"wrote more than {MOST_BYTES // 10**6} MB")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started, where the system has groups of processes."""
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _whole(file: Path) -> Samples:
    """The sound that a program wrote. Raises AudioError if it is none, or was not written to its end."""
    if not file.is_file() or not file.stat().st_size:
        raise AudioError("wrote no sound, neither into {out} nor on its standard output; try it in a terminal")
    if is_cut_short(file):
        raise AudioError("wrote less sound than its WAV header promises; try it in a terminal")
    try:
        return read_mono(file)
    except AudioError as error:
        reason = str(error).removeprefix(f"{file}: ").partition("; ")[0]
        raise AudioError(f"wrote what cannot be used: {reason}; try it in a terminal") from error
