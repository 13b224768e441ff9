"""Takes of a word from the microphone, one after another, each looked at before the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from ..audio import Converter, Samples
from ..config import SAMPLE_RATE
from ..data.mixing import active_level_db
from ..errors import AudioError
from ..files import whole_file
from ..listening.microphone import STALL_S, WAIT_S, Capture, choose_device, list_devices, sounddevice
from .takes import find_takes

LONGEST_S = 6.0
"""That a take is waited for."""
BEHIND_S = 0.7
"""The silence that ends a take, in seconds."""
QUIET_DB = -45.0
SILENT = 1e-5
SILENCE = "only silence: is the microphone switched off or muted?"


@dataclass(frozen=True)
class Judged:
    """What was recorded, (samples,), and what is wrong with it; empty if nothing is."""

    audio: Samples
    problem: str


class Recorder:
    """A microphone that stays open from take to take, so that no take loses its start.

    Raises AudioError if it cannot be opened; see `listening.microphone.Listener` for `device`.
    """

    def __init__(self, device: int | str | None = None) -> None:
        self._capture = Capture(choose_device(list_devices(), device))

    def take(self, sign: Callable[[], None]) -> Judged:
        """Call `sign`, which asks for the word, and record until it is over, or for six seconds.

        What was said before the sign is not in it. Raises AudioError if the device is gone.
        """
        while self._capture.read(0) is not None:
            pass
        sign()
        audio = self._until_said()
        return Judged(audio, problem_of(audio))

    def close(self) -> None:
        """Give the device back."""
        self._capture.close()

    def _until_said(self) -> Samples:
        converter = Converter(self._capture.rate, self._capture.channels, self._capture.device.name)
        audio = np.zeros(0, np.float32)
        began = last = time.monotonic()
        while time.monotonic() - began < LONGEST_S:
            block = self._capture.read(WAIT_S)
            if block is None:
                if not self._capture.is_alive or time.monotonic() - last > STALL_S:
                    raise AudioError(f"{self._capture.device.name}: has stopped giving sound; plug it in again")
                continue
            last = time.monotonic()
            audio = np.concatenate([audio, converter.push(block.samples)])
            takes = find_takes(audio, "")
            if takes and takes[-1].stop < len(audio) - BEHIND_S * SAMPLE_RATE:
                break
        return audio


def problem_of(audio: Samples) -> str:
    """What is wrong with a take, (samples,), in words; empty if nothing is."""
    takes = find_takes(audio, "")
    if not takes:
        is_silent = not len(audio) or float(np.abs(audio).max()) < SILENT
        return SILENCE if is_silent else "no word stands out from the noise: say it louder or come closer"
    if len(takes) > 1:
        return f"{len(takes)} words with pauses between: say it once"
    take = takes[0]
    if take.is_clipped:
        return "too loud, the take is clipped: move away or turn the microphone down"
    if active_level_db(audio[take.start : take.stop]) < QUIET_DB:
        return "too quiet: come closer or turn the microphone up"
    if take.start < SAMPLE_RATE // 50:
        return "the word began before the recording: wait for the prompt"
    return ""


def keep(folder: Path, word: str, audio: Samples) -> Path:
    """Write a take into `folder` under the first free number; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (path := folder / f"{word.replace(' ', '-')}-{number:02}.wav").exists():
        number += 1
    with whole_file(path) as file:
        sf.write(file, audio, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return path


def play(audio: Samples, what: str = "the take", advice: str = "leave out --play") -> None:
    """Play (samples,), to the end. Raises AudioError if there is nothing to play it with."""
    sd = sounddevice()
    try:
        sd.play(audio, SAMPLE_RATE)
        sd.wait()
    except sd.PortAudioError as error:
        raise AudioError(f"{what} cannot be played ({error}); {advice}") from error
