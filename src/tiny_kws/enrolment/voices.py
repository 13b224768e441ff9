"""Voices that say a word: synthetic speakers of two packages and of programs, each with speed and pitch drawn.

Pico (py-nanotts) and Hibari (hibari-tts) come with the extra `say`, both under Apache-2.0; Flite is used where it is
installed. Any program that speaks can be named by its command.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from ..audio import Samples, read_mono
from ..config import SAMPLE_RATE
from ..data.mixing import at_speed
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
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "spoken.wav"
        command = [word.replace("{text}", text).replace("{out}", str(out)) for word in words]
        given = None if any("{text}" in word for word in words) else f"{text}\n".encode()
        try:
            done = subprocess.run(command, input=given, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise AudioError(f"{words[0]}: said nothing of {text!r} within {TIMEOUT_S} s") from None
        except OSError as error:
            raise AudioError(f"{words[0]}: cannot be started ({error})") from None
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines()
            raise AudioError(f"{words[0]}: ended with status {done.returncode}: {told[-1] if told else 'no message'}")
        if not out.is_file():
            out.write_bytes(done.stdout)
        sound = read_mono(out)
    if len(sound) > LONGEST_S * SAMPLE_RATE:
        raise AudioError(
            f"{words[0]}: said {text!r} in {len(sound) / SAMPLE_RATE:.0f} s, expected {LONGEST_S:g} at most"
        )
    return at_speed(sound, pace)
