"""A little of what training may use beside Speech Commands: words, noises, rooms, speech, the file that names them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile as sf

from tiny_kws.config import SAMPLE_RATE

FREE = "CC BY 4.0"
SENTENCE_LICENCE = "free for any purpose (a sentence in a repository)"

WORDS = (
    # file, word, speaker, heard, licence
    ("abbey/ann_1.wav", "abbey", "ann", "", FREE),
    ("bed/bob_1.wav", "bed", "bob", "bed", "MIT"),
    ("bed/bob_2.wav", "bed", "bob", "cat", "Apache-2.0 (voices)"),
    ("seven/cid_1.wav", "seven", "cid", "", "CC BY-SA 4.0"),
    ("seven/dan_1.wav", "seven", "dan", "", "CC BY-NC 4.0"),
    ("yes/eve_1.wav", "yes", "eve", "", FREE),
    ("knee/eve_1.wav", "knee", "eve", "no", "CC0 1.0"),
)
NOISES = (
    # file, licence; 100032 and 100033 are in the parts 2 and 1, rain and kitchen in 0, the part kept
    ("events/dog_bark-1-100032-A.wav", "CC0 1.0"),
    ("events/dog_bark-2-100032-B.wav", "CC BY 3.0"),
    ("events/clock-1-100033-A.wav", "CC BY-SA (version not stated)"),
    ("ambient/wind.wav", "Public Domain"),
    ("ambient/street.wav", "CC BY (version not stated)"),
    ("ambient/rain.wav", FREE),
    ("kitchen.wav", "CC0 1.0"),
)
ROOMS = (
    # file, room, licence; the live room is in the part kept
    ("near.wav", "surrey room a", "MIT"),
    ("far.wav", "surrey room a", "MIT"),
    ("live.wav", "genesis 6 studio live room", FREE),
)
SENTENCES = (
    # file, text, speaker, licence; 00005 is in part 2, 00007 in the part kept
    ("1.wav", "we call it bear", "00005", SENTENCE_LICENCE),
    ("2.wav", "he stopped to think", "00005", SENTENCE_LICENCE),
    ("3.wav", "i know that", "00005", SENTENCE_LICENCE),
    ("4.wav", "", "00005", SENTENCE_LICENCE),
    ("5.wav", "a bear it was", "00007", SENTENCE_LICENCE),
)
SOURCES = """
licences = ["CC0", "CC BY", "MIT", "Apache"]

[[source]]
name = "Commands"
folder = "speech_commands_v0.02"
use = "keywords"
attribution = "P. Warden"

[[source]]
name = "Some words"
folder = "words"
use = "other words"
attribution = "by many"
recordings = { "CC BY 4.0" = 2, "MIT" = 1, "Apache-2.0 (voices)" = 1 }

[[source]]
name = "Some noises"
folder = "noise"
use = "noise"
attribution = "by some"

[[source]]
name = "Some rooms"
folder = "rooms"
use = "rooms"
attribution = "by few"

[[source]]
name = "Some speech"
folder = "speech"
use = "speech"
attribution = "by one"
"""


def write_sources(root: Path) -> Path:
    """Write all this into `root`, as folders with a manifest each, and return the file that names them."""
    _write(root / "words", ("file", "word", "speaker", "heard", "licence"), WORDS, seconds=0.8)
    _write(root / "noise", ("file", "licence"), NOISES, seconds=1.5)
    _write(root / "rooms", ("file", "label", "licence"), ROOMS, seconds=0.3)
    _write(root / "speech", ("file", "label", "speaker", "licence"), SENTENCES, seconds=1.2)
    path = root / "sources.toml"
    path.write_text(SOURCES, encoding="utf-8")
    return path


def _write(folder: Path, columns: tuple[str, ...], lines: tuple[tuple[str, ...], ...], seconds: float) -> None:
    rng = np.random.default_rng(len(lines))
    n_samples = round(seconds * SAMPLE_RATE)
    fading = np.exp(-np.arange(n_samples) / 2000)  # words, noises and rooms alike: they must only be there
    for line in lines:
        path = folder / line[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, (0.2 * fading * rng.standard_normal(n_samples)).clip(-1, 1), SAMPLE_RATE, subtype="PCM_16")
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *lines])
