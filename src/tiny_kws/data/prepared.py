"""Prepared data: what a network is trained and measured on, drawn once from recordings and kept in a folder.

It holds `bank.npy` (every clip, int16), `clips.csv` (a line for each row of the bank), `spans.npy` (where the word lies
in each row), `noise.npy` (background noise for training, int16) and `manifest.json` (labels, window, counts, sources).
Beside the task's own clips the bank holds those of the split `extra`: other words that the task did not draw, and those
of other sources. `other_noise.npy`, `other_rooms.npy` and `other_speech.npy` (int16, end to end) are of other sources,
listed in the manifest; `credits.csv` says whom to credit for weights trained on all this.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..errors import DataError, UsageError
from ..words import UNKNOWN, Vocabulary
from .manifest import Manifest
from .shards import INDEX, ShardBank, open_shards

Pcm = npt.NDArray[np.int16]
EXTRA = "extra"
"""The split of words beyond the task's draw, most of them `unknown`, for recipes that want more."""
LEFT_OUT = "left out"
"""The split of clips that `PreparedData.without` keeps from training; none lies in a prepared folder."""
MATERIAL = ("noise", "rooms", "speech")
"""Recordings of other sources, by their use; each in a file of its own."""
NO_SPAN = (-1, -1)
"""The span of a row without a word."""


@dataclass(frozen=True)
class Clip:
    """One row of the bank. `file` is relative to the words' folder; silence names the noise and where it starts."""

    split: str
    label: str
    word: str
    speaker: str
    file: str


@dataclass(frozen=True)
class PreparedData:
    """A prepared folder, opened.

    The bank is (clips, window) int16, memory-mapped or shards; `clips` names its rows, and `spans`, (clips, 2) int32,
    says where in each a word begins and ends, in samples, or NO_SPAN.
    """

    folder: Path
    bank: Pcm | ShardBank
    noise: Pcm
    clips: list[Clip]
    spans: npt.NDArray[np.int32]
    vocabulary: Vocabulary
    manifest: Manifest

    @property
    def window(self) -> int:
        """Samples of a row of the bank: what a network hears of one clip."""
        return int(self.bank.shape[1])

    def material(self, kind: str) -> list[Pcm]:
        """Recordings of other sources, each (samples,) int16, memory-mapped; of the kind noise, rooms or speech.

        Raises DataError if they are not there as the manifest says.
        """
        try:
            lengths = [excerpt.samples for excerpt in self.manifest.material[kind]]
            whole: Pcm = np.load(self.folder / material_file(kind), mmap_mode="r" if lengths else None)
        except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
            raise DataError(f"{self.folder}: its {kind} cannot be read ({error}), prepare the data again") from error
        if whole.shape != (sum(lengths),) or whole.dtype != np.int16:
            raise DataError(f"{self.folder}: its {kind} are {whole.shape} {whole.dtype}, not what the manifest says")
        return np.split(whole, np.cumsum(lengths)[:-1]) if lengths else []

    def rows(self, split: str) -> npt.NDArray[np.intp]:
        """Rows of the bank that belong to `split`. Raises DataError if there are none."""
        rows = np.array([i for i, clip in enumerate(self.clips) if clip.split == split], np.intp)
        if len(rows) == 0:
            have = ", ".join(sorted({clip.split for clip in self.clips}))
            raise DataError(f"{self.folder}: holds no clips of the split {split!r}, expected one of: {have}")
        return rows

    def without(self, words: Collection[str]) -> PreparedData:
        """The same data, but without `words` in training: these clips are put into the split `left out`.

        Raises UsageError for keywords, and for words that are not in the training anyway.
        """
        splits = ("training", EXTRA)
        heard = {clip.word for clip in self.clips if clip.split in splits and clip.label == UNKNOWN}
        for word in words:
            if word in self.vocabulary.words:
                raise UsageError(f"{word} is a keyword, expected other words to leave out of the training")
            if word not in heard:
                raise UsageError(f"{self.folder}: has no clip of {word} to train on, so none to leave out; check it")
        clips = [replace(c, split=LEFT_OUT) if c.word in words and c.split in splits else c for c in self.clips]
        return replace(self, clips=clips)

    def targets(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """The columns (rows,) of the clips' labels in the vocabulary."""
        column = {label: i for i, label in enumerate(self.vocabulary.labels)}
        return np.array([column[self.clips[i].label] for i in rows], np.int64)


def open_prepared(folder: Path) -> PreparedData:
    """Open what `prepare` wrote. Raises DataError if it is not there, or its parts do not belong together."""
    try:
        manifest = Manifest.from_json((folder / "manifest.json").read_text(encoding="utf-8"), str(folder))
        with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
            clips = [Clip(**line) for line in csv.DictReader(file)]
        vocabulary, window = Vocabulary(tuple(manifest.labels)), manifest.window
        sharded = (folder / INDEX).exists()
        bank = open_shards(folder, window) if sharded else np.load(folder / "bank.npy", mmap_mode="r")
        noise = np.load(folder / "noise.npy")
        spans = np.load(folder / "spans.npy")
    except (OSError, ValueError, LookupError, TypeError, EOFError, UsageError, csv.Error) as error:
        raise DataError(
            f"{folder}: is not prepared data ({error}); run `tiny-kws data prepare SOURCE --out {folder}` first"
        ) from error
    if bank.shape != (len(clips), window) or bank.dtype != np.int16:
        raise DataError(f"{folder}: the bank is {bank.shape} {bank.dtype}, expected {(len(clips), window)} int16")
    if spans.shape != (len(clips), 2) or spans.dtype != np.int32:
        raise DataError(f"{folder}: the spans are {spans.shape} {spans.dtype}, expected {(len(clips), 2)} int32")
    if noise.ndim != 1 or len(noise) < window or noise.dtype != np.int16:
        raise DataError(f"{folder}: the noise is {noise.shape} {noise.dtype}, expected {window} or more of int16")
    foreign = sorted({clip.label for clip in clips} - set(vocabulary.labels))
    if foreign:
        raise DataError(
            f"{folder}: clips.csv has the labels {', '.join(foreign)}, expected {', '.join(vocabulary.labels)}"
        )
    return PreparedData(folder, bank, noise, clips, spans, vocabulary, manifest)


def material_file(kind: str) -> str:
    """The file of a prepared folder that holds recordings of other sources, by kind."""
    return f"other_{kind}.npy"


def calibration_clips(data: PreparedData, count: int) -> Samples:
    """A seeded draw of training clips, (count, 16000), fewer if there are not so many."""
    chosen = np.random.default_rng(0).permutation(data.rows("training"))[:count]
    return to_float(data.bank[np.sort(chosen)])


def to_float(pcm: Pcm) -> Samples:
    """int16 samples to float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def clips_digest(names: Iterable[str]) -> str:
    """SHA-256 over a list of clips in order, one name per line, to check that two evaluations used the same clips."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def to_pcm(audio: Samples) -> Pcm:
    """Float samples in [-1, 1] to int16; exact for what was 16-bit before."""
    scaled: Samples = np.rint(audio * 32768.0)
    return np.clip(scaled, -32768, 32767).astype(np.int16)
