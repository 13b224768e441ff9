"""Where a word is said in recordings of it: silence around it, several takes in one file with pauses between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..audio import Samples, find_sound_files, read_mono
from ..config import SAMPLE_RATE
from ..data.spans import FRAME, loudness_db
from ..errors import AudioError, KwsError, UsageError

PAUSE = 35
"""Frames of 10 ms of silence that part two takes."""
SHORTEST, LONGEST = 12, 160
"""Frames of a take."""
RANGE_DB = 32.0
"""A take's frames below its loudest one."""
FLOOR_MARGIN_DB, FLOOR_SHARE = 6.0, 0.3
"""How far over the noise a take's frames are: so many decibels, and so much of the way to the loudest."""
QUIETEST_DB = -65.0
LEAST_RANGE_DB = 12.0
"""Between the noise and the loudest frame of a take."""
CLIPPED = 0.985
CLIPPED_SHARE = 0.002
"""Of a take's samples at full scale; above it is called clipped."""


@dataclass(frozen=True)
class Take:
    """A word said once. `audio` is the recording it is part of, (samples,); `start` and `stop` count samples in it.

    `name` is the recording's, and where it holds several takes, the second.
    """

    name: str
    audio: Samples
    start: int
    stop: int

    @property
    def seconds(self) -> float:
        """How long the word lasts."""
        return (self.stop - self.start) / SAMPLE_RATE

    @property
    def is_clipped(self) -> bool:
        """Whether more than two in a thousand of its samples are at full scale."""
        return bool(np.mean(np.abs(self.audio[self.start : self.stop]) >= CLIPPED) > CLIPPED_SHARE)


@dataclass(frozen=True)
class Takes:
    """What was found in recordings, and why nothing was found in some: their names with a reason."""

    takes: tuple[Take, ...]
    passed_over: dict[str, str]


def read_takes(recordings: Sequence[str | Path]) -> Takes:
    """The takes in files, and in all sound files of folders.

    Raises UsageError if there is nothing to read; a file that cannot be read, in which no word is found, or whose sound
    was in one before, is passed over with the reason: a take that is there twice would be asked for by a model that
    knows it.
    """
    takes: list[Take] = []
    passed_over: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    files = sound_files(recordings, "recordings of the word", passed_over)
    if not files:
        raise UsageError("found no recordings, expected files or folders of them")
    for name, path in _named(files).items():
        try:
            audio = read_mono(path)
        except AudioError as error:
            passed_over[name] = str(error)
            continue
        found = find_takes(audio, name)
        first = seen.setdefault(sha256(audio.tobytes()).digest(), name)
        if not found:
            passed_over[name] = _why_none(audio)
        elif first != name:
            passed_over[name] = f"is the same recording as {first}"
        else:
            takes += found
    return Takes(tuple(takes), passed_over)


def _why_none(audio: Samples) -> str:
    span = said_span(audio)
    if span is None:
        return "has no word: nothing stands out from the silence or the noise"
    seconds = (span[1] - span[0]) / SAMPLE_RATE
    return f"has no word: {seconds:.1f} s of speech or noise without a pause, expected {LONGEST / 100:g} s at most"


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """Each file once, by its name, or by its path where others are called so."""
    once = list({file.resolve(): file for file in files}.values())
    counts = Counter(file.name for file in once)
    return {file.name if counts[file.name] == 1 else str(file): file for file in once}


def sound_files(paths: Sequence[str | Path], expected: str, passed_over: dict[str, str]) -> list[Path]:
    """The files in files and folders; what is no sound in a folder goes into `passed_over`, with the reason.

    Raises UsageError for what is not there, and folders without any.
    """
    files: list[Path] = []

    def report(name: str, error: KwsError) -> None:
        passed_over[name] = str(error)

    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f"{path}: found no such file or folder, expected {expected}")
        try:
            files += find_sound_files(path, report) if path.is_dir() else [path]
        except AudioError as error:
            raise UsageError(str(error)) from error
    return files


def find_takes(audio: Samples, name: str) -> list[Take]:
    """The takes in one recording (samples,), in order of time.

    A frame of 10 ms is loud if it is within 32 dB of the loudest near it and stands out of the noise (the quietest
    tenth of the frames). Loud frames with less than 350 ms between them are one take; what is shorter than 120 ms is a
    click. A single stretch that is longer than 1.6 s is searched again with shorter pauses.
    """
    words = [(a, b) for a, b in _loud_stretches(audio) if b - a <= LONGEST]
    names = [name if len(words) == 1 else f"{name} at {a * FRAME / SAMPLE_RATE:.1f} s" for a, _ in words]
    return [
        Take(each, audio, max(0, a - 2) * FRAME, min(len(audio), (b + 2) * FRAME))
        for each, (a, b) in zip(names, words, strict=True)
    ]


def said_span(audio: Samples) -> tuple[int, int] | None:
    """From the first to the last sound in (samples,) that may be a take or is too long for one, as samples."""
    stretches = _loud_stretches(audio)
    if not stretches:
        return None
    return max(0, stretches[0][0] - 2) * FRAME, min(len(audio), (stretches[-1][1] + 2) * FRAME)


def _loud_stretches(audio: Samples) -> list[tuple[int, int]]:
    """As described in `find_takes`, in frames, and also those that are too long for a take."""
    level_db = loudness_db(audio)
    if len(level_db) < SHORTEST or level_db.max() < QUIETEST_DB:
        return []
    floor = float(np.percentile(level_db, 10))
    if level_db.max() - floor < LEAST_RANGE_DB:
        return []
    groups = _groups(level_db, floor, PAUSE)
    loudest = max((float(level_db[a:b].max()) for a, b in groups), default=0.0)
    least = max(loudest - 25, floor + LEAST_RANGE_DB)
    return [(a, b) for a, b in groups if b - a >= SHORTEST and level_db[a:b].max() > least]


def _groups(level_db: npt.NDArray[np.float64], floor: float, pause: int) -> list[tuple[int, int]]:
    """Stretches of loud frames, (first, behind the last)."""
    peak = float(level_db.max())
    threshold = max(peak - RANGE_DB, floor + max(FLOOR_MARGIN_DB, FLOOR_SHARE * (peak - floor)))
    loud = np.flatnonzero(level_db > threshold)
    parts = np.split(loud, np.flatnonzero(np.diff(loud) > pause) + 1)
    groups: list[tuple[int, int]] = []
    for part in parts:
        first, behind = int(part[0]), int(part[-1]) + 1
        if behind - first > LONGEST and pause > 12:
            groups += [(first + a, first + b) for a, b in _groups(level_db[first:behind], floor, pause - 8)]
        else:
            groups.append((first, behind))
    return groups
