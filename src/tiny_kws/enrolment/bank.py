"""The bank: the trunk, and what a new word must not be mistaken for, as the trunk hears it.

One file, made by `scripts/make_bank.py`: the trunk's graph, its vectors of hours of speech in four bits each, minutes
of noise and of speech to vary recordings with, which words are said when, and where all of it comes from.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile as sf

from ..artefact.ends import NEXT, ends_of
from ..artefact.runtime import open_session
from ..audio import Samples
from ..config import SAMPLE_RATE
from ..errors import DataError, UsageError
from ..files import write_bytes
from .head import Rows

ASSETS = Path(__file__).parent.parent / "assets"
BANK = ASSETS / "own-words.bank"
BANKS = {"base": BANK, "micro": ASSETS / "own-words-micro.bank"}
"""The package's banks, by the size of their trunk."""
FORMAT = 2
PARTS = ("trunk.onnx", "vectors.u4", "words.json", "noises.ogg", "speech.ogg")
LEVELS = np.array(
    [-2.73, -2.07, -1.62, -1.26, -0.94, -0.66, -0.39, -0.13, 0.13, 0.39, 0.66, 0.94, 1.26, 1.62, 2.07, 2.73]
)
"""What four bits of a vector, which has a mean of 0 and a deviation of 1, stand for (Max 1960)."""
READERS, HOMES, CHILDREN, LANGUAGES, OWN = "readers", "homes", "children", "languages", "yours"
KINDS = (READERS, HOMES, CHILDREN, LANGUAGES, OWN)
"""The kinds of speakers.

In English adults who read books aloud, adults at microphones of their own, children and learners; then people in other
languages, and what a user adds.
"""
ENGLISH = (READERS, HOMES, CHILDREN)
MOST_SILENT_HOPS = 200
"""Within which silence is all that a trunk knows: those of six seconds and more."""
States = dict[str, npt.NDArray[np.float32]]
"""What a graph hands on from hop to hop, by the names of its inputs."""


@dataclass(frozen=True)
class Stretch:
    """One speaker, or a few, one after another: rows `start` to `stop` of the bank's vectors.

    `is_strange` is one whom the trunk was not trained on: as it hears those, it will hear others.
    """

    kind: str
    start: int
    stop: int
    is_strange: bool = True


@dataclass(frozen=True)
class Origin:
    """Where a part of the bank comes from."""

    name: str
    licence: str
    attribution: str
    recordings: int


@dataclass(frozen=True)
class Bank:
    """`vectors` (rows, size) follow each other in steps of `hop` samples; `stretches` says who speaks when.

    `trunk` holds the bytes of an ONNX graph, `words` what is said in the bank's English, with the row in which each
    word ends.
    """

    trunk: bytes
    vectors: Rows
    stretches: tuple[Stretch, ...]
    noises: tuple[Samples, ...]
    speech: tuple[Samples, ...]
    words: tuple[tuple[int, str], ...]
    origins: tuple[Origin, ...]
    trunk_facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hop(self) -> int:
        """Samples from one vector to the next."""
        return int(self.trunk_facts["hop"])

    @cached_property
    def trunk_sha256(self) -> str:
        """By which heads know the trunk they were made for."""
        return hashlib.sha256(self.trunk).hexdigest()

    @cached_property
    def words_per_hour(self) -> Mapping[str, float]:
        """How often each word is said in an hour of the bank's English."""
        hours = sum(map(self.hours, ENGLISH))
        return {word: count / hours for word, count in Counter(word for _, word in self.words).items()}

    def hours(self, kind: str | None = None) -> float:
        """Hours of speech, of one kind or all."""
        rows = sum(s.stop - s.start for s in self.stretches if kind in (None, s.kind))
        return rows * self.hop / SAMPLE_RATE / 3600

    @property
    def kinds(self) -> list[str]:
        """Those of KINDS that there are."""
        return [kind for kind in KINDS if any(s.kind == kind for s in self.stretches)]

    def part(self, part: int, parts: int) -> list[Stretch]:
        """One of `parts` parts of about one size, each with its share of every kind; no speaker is in two."""
        chosen: list[Stretch] = []
        for kind in self.kinds:
            loads = [0] * parts
            for stretch in sorted((s for s in self.stretches if s.kind == kind), key=lambda s: s.start - s.stop):
                lightest = loads.index(min(loads))
                loads[lightest] += stretch.stop - stretch.start
                if lightest == part:
                    chosen.append(stretch)
        return chosen


def bank_of_size(size: str) -> Path:
    """The package's bank whose trunk has that size. Raises UsageError for a size that there is not."""
    if size not in BANKS:
        raise UsageError(f"found the size {size!r}, expected {' or '.join(BANKS)}")
    return BANKS[size]


def size_of_trunk(sha256: str) -> str | None:
    """The size of the package's trunk with this checksum; None if it is none of them."""
    return next((size for size, path in BANKS.items() if path.exists() and _trunk_sha256(path) == sha256), None)


def _trunk_sha256(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        return str(json.loads(archive.read("bank.json"))["sha256"]["trunk.onnx"])


def read_bank(path: Path | None = None) -> Bank:
    """The bank at `path`, or else the package's own.

    Raises DataError if it is missing, damaged or of another format.
    """
    path = path or BANK
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the bank of speech cannot be read ({error.strerror}), expected the one in the package; install "
            "tiny-kws again or name another with --bank"
        ) from error
    try:
        facts, parts = _parts(data)
        return Bank(
            parts["trunk.onnx"],
            _unpacked(parts["vectors.u4"], int(facts["trunk"]["size"])),
            tuple(Stretch(*stretch) for stretch in facts["stretches"]),
            _sounds(parts["noises.ogg"], facts["noises"]),
            _sounds(parts["speech.ogg"], facts["speech"]),
            tuple((row, word) for row, word in json.loads(parts["words.json"])),
            tuple(Origin(**origin) for origin in facts["origins"]),
            facts["trunk"],
        )
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, sf.LibsndfileError) as error:
        raise DataError(
            f"{path}: is not a bank of speech or is damaged ({error}), expected the one in the package; install "
            "tiny-kws again"
        ) from error


def _parts(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What bank.json says and the other files. Raises ValueError where a checksum or the format does not fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        facts = json.loads(archive.read("bank.json"))
        parts = {name: archive.read(name) for name in PARTS}
    if facts["format"] != FORMAT:
        raise ValueError(f"its format is {facts['format']}, expected {FORMAT}")
    for name, content in parts.items():
        if hashlib.sha256(content).hexdigest() != facts["sha256"][name]:
            raise ValueError(f"the checksum of {name} does not fit")
    return facts, parts


def write_bank(path: Path, bank: Bank) -> None:
    """Write `bank`, whole or not at all; its vectors are rounded to four bits, its sounds coded in Opus."""
    parts = {
        "trunk.onnx": bank.trunk,
        "vectors.u4": _packed(bank.vectors),
        "words.json": json.dumps(bank.words).encode(),
        "noises.ogg": _coded(bank.noises),
        "speech.ogg": _coded(bank.speech),
    }
    facts = {
        "format": FORMAT,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()},
        "trunk": dict(bank.trunk_facts),
        "stretches": [[s.kind, s.start, s.stop, s.is_strange] for s in bank.stretches],
        "noises": [len(sound) for sound in bank.noises],
        "speech": [len(sound) for sound in bank.speech],
        "origins": [asdict(origin) for origin in bank.origins],
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in {"bank.json": json.dumps(facts, indent=1).encode(), **parts}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    write_bytes(path, content.getvalue())


def _packed(vectors: Rows) -> bytes:
    """Four bits a number: the nearest of LEVELS, two to a byte, number by number: so it packs better."""
    codes = np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, vectors).astype(np.uint8)
    return np.ascontiguousarray((codes[:, ::2] << 4 | codes[:, 1::2]).T).tobytes()


def _unpacked(data: bytes, size: int) -> Rows:
    pairs = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(size // 2, -1).T)
    meant = LEVELS.astype(np.float32)[np.stack([np.arange(256) >> 4, np.arange(256) & 15], 1)]
    return meant.take(pairs, axis=0).reshape(len(pairs), size)


def _coded(sounds: Sequence[Samples]) -> bytes:
    content = io.BytesIO()
    sf.write(content, np.concatenate(sounds), SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=0.95)
    return content.getvalue()


def _sounds(data: bytes, lengths: Sequence[int]) -> tuple[Samples, ...]:
    audio, _ = sf.read(io.BytesIO(data), dtype="float32")
    return tuple(np.split(audio, np.cumsum(lengths)[:-1]))


class Trunk:
    """The trunk of a bank, which turns sound into vectors."""

    def __init__(self, bank: Bank) -> None:
        self.hop = bank.hop
        self.session = open_session(bank.trunk, 1, "the bank's trunk")
        self._outputs = [value.name for value in self.session.get_outputs()]
        ends = ends_of(self.session)
        self._states = {name: ends.of_batch(shape, 1) for name, shape in ends.states.items()}

    def vectors(self, audio: Samples) -> npt.NDArray[np.float32]:
        """One for every whole hop of (samples,), after zeros as states: (hops, size)."""
        hops = audio[: len(audio) // self.hop * self.hop].reshape(-1, 1, self.hop)
        states = self._zeros()
        found = []
        for hop in hops:
            vector, states = self._hear(hop, states)
            found.append(vector)
        return np.array(found, np.float32).reshape(len(found), -1)

    def silence(self) -> tuple[States, npt.NDArray[np.float32]]:
        """The states, and the vector (size,), that go on as they are while there is digital silence."""
        states, silent = self._zeros(), np.zeros((1, self.hop), np.float32)
        for _ in range(MOST_SILENT_HOPS):
            before = states
            vector, states = self._hear(silent, states)
            if all(np.array_equal(states[name], before[name]) for name in states):
                break
        return states, vector

    def _zeros(self) -> States:
        return {name: np.zeros(shape, np.float32) for name, shape in self._states.items()}

    def _hear(self, hop: Samples, states: States) -> tuple[npt.NDArray[np.float32], States]:
        """The vector after one hop, and the states for the next."""
        answers = dict(zip(self._outputs, self.session.run(None, {"audio": hop, **states}), strict=True))
        return answers["embedding"][0], {name: answers[NEXT + name] for name in states}
