"""Sounds of events, sorted by hand: those of the word into one folder, those that set it off wrongly into another."""

from __future__ import annotations

from pathlib import Path

from ..audio import find_sound_files, is_sound_name
from ..errors import AudioError, UsageError
from ..files import cannot_write

RIGHT, WRONG = "right", "wrong"


def unsorted(folder: Path) -> list[Path]:
    """The sounds in `folder` itself, sorted by name: those below it are sorted.

    Raises UsageError if it is no folder, or if neither it nor the folders of sorted sounds hold any.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: found no such folder, expected one written by `listen --record-triggers`")
    try:
        find_sound_files(folder)
    except AudioError as error:
        raise UsageError(str(error)) from error
    return sorted(path for path in folder.iterdir() if is_sound_name(path.name) and path.is_file())


def put(sound: Path, name: str) -> Path:
    """Move a sound, and files that belong to it, into the folder `name` beside it; where it is now.

    Nothing is written over: a name that is taken gets a number.
    """
    folder = sound.parent / name
    beside = [path for path in sound.parent.iterdir() if _belongs(path, sound)]
    try:
        folder.mkdir(exist_ok=True)
        stem = _free_stem(folder, sound.stem)
        there = sound.rename(folder / f"{stem}{sound.suffix}")
        for path in beside:
            path.rename(folder / f"{stem}{path.name.removeprefix(sound.stem)}")
    except OSError as error:
        raise cannot_write(folder, error) from error
    return there


def word_of(sound: Path) -> str:
    """The word in a name that `listen --record-triggers` gave, or nothing.

    >>> word_of(Path("20260504T030201.000Z_lights_out.wav"))
    'lights out'
    """
    stamp, _, label = sound.stem.partition("Z_")
    return label.replace("_", " ") if stamp[:8].isdigit() else ""


def _belongs(path: Path, sound: Path) -> bool:
    """Whether a file is about a sound: one of the same name with another ending, which is no sound itself."""
    is_of_it = path.stem == sound.stem or path.name.startswith(f"{sound.name}.")
    return is_of_it and path != sound and path.is_file() and not is_sound_name(path.name)


def _free_stem(folder: Path, stem: str) -> str:
    taken = {path.name for path in folder.iterdir()}
    number, free = 1, stem
    while any(name.startswith(f"{free}.") for name in taken):
        number += 1
        free = f"{stem}-{number}"
    return free
