"""Decides which speakers, noises and rooms are kept out of training: always the same third of each."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePath

PARTS = 3


def part_of(name: str) -> int:
    """The third, 0 to 2, of a group of recordings, by its name: a speaker, a noise's source, a room.

    Part 0 is kept for development measurements. It is computed by SHA-256, so that it depends only on the name.

    >>> [part_of(name) for name in ("genesis 6 studio live room", "surrey room a", "00001")]
    [0, 1, 2]
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % PARTS


def noise_source(file: str) -> str:
    """The recording that a noise was cut from: the freesound id in an ESC-10 name, else the file's name alone.

    >>> noise_source("events/dog_bark-1-100032-A.wav"), noise_source("ambient/rain.wav")
    ('100032', 'rain')
    """
    stem = PurePath(file).stem
    found = re.search(r"-\d-(\d+)-[A-Z]\b", stem)
    return found[1] if found else stem
