"""Takes of a word from the microphone, one after another, each looked at before the next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from ..audio import Converter, Samples
from ..config import SAMPLE_RATE
from ..data.mixing import active_level_db
from ..errors import AudioError
from ..files import whole_file
from ..listening.microphone import Capture, choose_device, list_devices, sounddevice
from .takes import find_takes

LONGEST_S = 6.0
"""That a take is waited for."""
BEHIND_S = 0.5
"""Of silence after a word, and it is over."""
QUIET_DB = -45.0
SILENT = 1e-5
SILENCE = "nothing but silence: is the microphone switched off or muted?"
LOST_S = 2.0
"""Without sound from the device, and it is given up."""


@dataclass(frozen=True)
class Judged:
    """What was recorded, (samples,), and what is wrong with it; empty if nothing is."""

    audio: Samples
    problem: str


def record(device: int | str | None = None) -> Iterator[Judged]:
    """Takes, as often as asked for the next; each ends half a second after a word, or after six seconds.

    Raises AudioError if the device cannot be opened or is gone; see `listening.microphone.Listener` for `device`.
    """
    chosen = choose_device(list_devices(), device)
    while True:
        with closing(Capture(chosen)) as capture:
            audio = _take_from(capture)
        yield Judged(audio, problem_of(audio))


def problem_of(audio: Samples) -> str:
    """What is wrong with a take, (samples,), in words; empty if nothing is."""
    takes = find_takes(audio, "")
    if not takes:
        is_silent = not len(audio) or float(np.abs(audio).max()) < SILENT
        return SILENCE if is_silent else "no word stands out of the noise: say it louder or nearer"
    if len(takes) > 1:
        return f"{len(takes)} words with pauses between: say it once"
    take = takes[0]
    if take.is_clipped:
        return "too loud, it is clipped: go farther away or turn the microphone down"
    if active_level_db(audio[take.start : take.stop]) < QUIET_DB:
        return "too quiet: go nearer or turn the microphone up"
    if take.start < SAMPLE_RATE // 50:
        return "it began before the recording did: wait for the sign"
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


def play(audio: Samples) -> None:
    """Play a take, to its end. Raises AudioError if there is nothing to play it with."""
    sd = sounddevice()
    try:
        sd.play(audio, SAMPLE_RATE)
        sd.wait()
    except sd.PortAudioError as error:
        raise AudioError(f"the take cannot be played ({error}); leave out --play") from error


def _take_from(capture: Capture) -> Samples:
    converter = Converter(capture.rate, capture.channels)
    heard: list[Samples] = []
    began = last = time.monotonic()
    while time.monotonic() - began < LONGEST_S:
        block = capture.read(0.25)
        if block is None:
            if time.monotonic() - last > LOST_S:
                raise AudioError(f"{capture.device.name}: gives no sound, expected some; plug it in again")
            continue
        last = time.monotonic()
        heard.append(converter.push(block.samples))
        audio = np.concatenate(heard)
        takes = find_takes(audio, "")
        if takes and takes[-1].stop < len(audio) - BEHIND_S * SAMPLE_RATE:
            break
    return np.concatenate(heard) if heard else np.zeros(0, np.float32)
