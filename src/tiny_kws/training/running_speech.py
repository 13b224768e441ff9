"""Running speech with the times of its phones and words, and batches of it to train a trunk on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..audio import read_mono
from ..config import SAMPLE_RATE
from ..data.held_out import part_of
from ..data.material import list_noises, list_rooms
from ..data.mixing import at_speed, room_response
from ..data.prepared import Pcm, to_pcm
from ..data.sources import read_sources
from ..data.spans import FRAME
from ..errors import DataError
from ..training_config import TrunkRecipe
from .composing.acoustics import active_rms, from_db, heard_in, rms_of, room_spectra

# fmt: off
PHONES = (
    "SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH",
    "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
"""The phones of American English in ARPABET; everything that is not speech is SIL."""
ALIGNMENTS = "alignments.jsonl"
NO_WORD = "<[+"
"""With which the names of silence, breath and noise begin in an alignment."""
UNHEARD = ("speech_libri", "speech")
"""Folders of which a third of the speakers are kept out of the trunk's training."""


@dataclass(frozen=True)
class Word:
    """A word of a recording. `start` and `stop` count frames of 10 ms."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class Recording:
    """16 kHz samples with the phone of each frame and the words, in order."""

    pcm: Pcm
    phones: npt.NDArray[np.int8]
    words: tuple[Word, ...]
    is_clip: bool


def read_aligned(folder: Path, parts: Sequence[int] = (1, 2)) -> list[Recording]:
    """The recordings that a folder's alignments.jsonl lists (`scripts/align_speech.py` writes it).

    Only speakers of `parts` (see `data.held_out`) count, except those of `UNHEARD`. Raises DataError for a folder
    without alignments.
    """
    return [_recording(folder, entry) for entry in _entries(folder, parts)]


def read_words(folder: Path, parts: Sequence[int] = (1, 2)) -> list[str]:
    """Every word in the recordings of `read_aligned`, as often as it is said."""
    return [word.text for entry in _entries(folder, parts) for word in words_of(entry)]


def words_of(entry: Mapping[str, Any]) -> list[Word]:
    """The words of a line of alignments, without the silence, breath and noise between them."""
    return [Word(text, start, start + n) for text, start, n, _ in entry["words"] if text[0] not in NO_WORD]


def read_entries(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's alignments. Raises DataError for a folder without alignments."""
    path = folder / ALIGNMENTS
    if not path.is_file():
        raise DataError(f"{folder}: found no {ALIGNMENTS}, expected one; make it by scripts/align_speech.py")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def is_unheard(folder: str, speaker: str) -> bool:
    """Whether the trunk never hears a speaker of the bank, so that the bank's figures hold for new speakers.

    >>> [is_unheard("speech_libri", name) for name in ("1088", "116")]
    [False, False]
    """
    return folder in UNHEARD and part_of(f"unheard {speaker}") == 0


def _entries(folder: Path, parts: Sequence[int]) -> list[dict[str, Any]]:
    named = [(entry, entry["speaker"] or entry["file"]) for entry in read_entries(folder)]
    return [e for e, speaker in named if part_of(speaker) in parts and not is_unheard(folder.name, speaker)]


def _recording(folder: Path, entry: dict[str, Any]) -> Recording:
    pcm = to_pcm(read_mono(folder / entry["file"]))
    phones = np.zeros(len(pcm) // FRAME + 1, np.int8)
    for *_, parts in entry["words"]:
        for phone, at, size in parts:
            phones[at : at + size] = PHONES.index(phone) if phone in PHONES else 0
    return Recording(pcm, phones, tuple(words_of(entry)), bool(entry.get("clip")))


def words_to_tell(recordings: Iterable[Recording], fewest: int) -> list[str]:
    """The words that are said at least `fewest` times, in alphabetical order."""
    counts = Counter(word.text for recording in recordings for word in recording.words)
    return sorted(word for word, count in counts.items() if count >= fewest)


@dataclass(frozen=True)
class Batch:
    """`audio` (rows, samples); `phones` (rows, frames of 10 ms); the row, last frame and number of every word."""

    audio: Tensor
    phones: Tensor
    rows: Tensor
    stops: Tensor
    words: Tensor


class SpeechComposer:
    """Composes rows of running speech and of single words, in rooms and noise. Every draw comes from `rng`."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        vocabulary: Sequence[str],
        noises: Sequence[Pcm],
        rooms: Sequence[npt.NDArray[np.float32]],
        recipe: TrunkRecipe,
    ) -> None:
        self.recipe = recipe
        self.number = {word: i for i, word in enumerate(vocabulary)}
        self.sentences = [recording for recording in recordings if not recording.is_clip]
        self.clips = [recording for recording in recordings if recording.is_clip]
        self.n_samples = round(recipe.seconds * SAMPLE_RATE)
        lengths = np.array([len(recording.pcm) for recording in self.sentences], float)
        self._by_length = np.cumsum(lengths) / lengths.sum()
        self._noises = [np.resize(noise, max(len(noise), self.n_samples)) for noise in noises]
        lengths = np.array([len(noise) for noise in self._noises], float)
        self._by_noise = np.cumsum(np.sqrt(lengths)) / np.sqrt(lengths).sum()
        self._rooms = room_spectra([room_response(room) for room in rooms], recipe.made_rooms, self.n_samples)

    def steps(self) -> int:
        """The number of batches in an epoch, which has about as much sound as there is."""
        seconds = sum(len(recording.pcm) for recording in (*self.sentences, *self.clips)) / SAMPLE_RATE
        return max(1, round(seconds / self.recipe.seconds / self.recipe.batch_size))

    def compose(self, rng: np.random.Generator) -> Batch:
        """Compose a batch by the recipe."""
        rows = [self._row(rng) for _ in range(self.recipe.batch_size)]
        audio = torch.from_numpy(np.stack([samples for samples, _, _ in rows])).float() / 32768
        words = np.array([(i, *word) for i, (_, _, words) in enumerate(rows) for word in words], np.int64)
        table = torch.from_numpy(words.reshape(-1, 3))
        phones = torch.from_numpy(np.stack([phones for _, phones, _ in rows])).long()
        return Batch(self._in_a_room(audio, rng), phones, table[:, 0], table[:, 1], table[:, 2])

    def _row(self, rng: np.random.Generator) -> tuple[Pcm, npt.NDArray[np.int8], list[tuple[int, int]]]:
        samples = np.zeros(self.n_samples, np.int16)
        phones = np.zeros(self.n_samples // FRAME, np.int8)
        words: list[tuple[int, int]] = []
        of_clips = bool(self.clips) and rng.random() < self.recipe.clip_share
        at = int(rng.integers(0, 30))
        while at < len(phones) - 30:
            pool = self.clips if of_clips else self.sentences
            pick = int(rng.integers(len(pool))) if of_clips else int(np.searchsorted(self._by_length, rng.random()))
            taken = self._lay(pool[min(pick, len(pool) - 1)], at, samples, phones, words, rng)
            at += taken + int(rng.integers(5, 60))
        return samples, phones, words

    def _lay(
        self,
        recording: Recording,
        at: int,
        samples: Pcm,
        phones: npt.NDArray[np.int8],
        words: list[tuple[int, int]],
        rng: np.random.Generator,
    ) -> int:
        """Put a recording, or a stretch of it, into a row from frame `at` on; returns how many frames it took."""
        speed = float(rng.uniform(*self.recipe.speeds))
        room = len(phones) - at
        needed = int(room * speed) + 1
        longest = len(recording.pcm) // FRAME
        first = int(rng.integers(0, max(1, longest - min(longest, needed) + 1)))
        last = min(longest, first + needed)
        sound = at_speed(recording.pcm[first * FRAME : last * FRAME], speed)
        n = min(room, len(sound) // FRAME)
        gain = 10 ** (float(rng.uniform(-6, 6)) / 20)
        sound = np.clip(sound[: n * FRAME] * gain, -32768, 32767).astype(np.int16)
        samples[at * FRAME : (at + n) * FRAME] = sound
        phones[at : at + n] = recording.phones[first + (np.arange(n) * speed).astype(int)]
        for word in recording.words:
            stop = int((word.stop - first) / speed)
            if word.start >= first and stop <= n and word.text in self.number:
                words.append((at + stop, self.number[word.text]))
        return n

    def _in_a_room(self, audio: Tensor, rng: np.random.Generator) -> Tensor:
        """Rows as they sound in rooms, at drawn levels, with noise."""
        n, recipe = len(audio), self.recipe
        chosen = np.flatnonzero(rng.random(n) < recipe.room_share)
        if len(chosen):
            audio[chosen] = heard_in(audio[chosen], self._rooms[rng.integers(0, len(self._rooms), len(chosen))])
        level = torch.from_numpy(rng.uniform(-40, -14, (n, 1)).astype(np.float32))
        audio = audio * (from_db(level) / (active_rms(audio)[:, None] + 1e-5))
        noise = torch.from_numpy(np.stack([self._noise(rng) for _ in range(n)])).float() / 32768
        snr = torch.from_numpy(
            np.where(rng.random((n, 1)) < recipe.noise_share, rng.uniform(*recipe.snr_db, (n, 1)), 60).astype(
                np.float32
            )
        )
        noise *= from_db(level - snr) / (rms_of(noise)[:, None] + 1e-5)
        return (audio + noise).clamp_(-1, 1)

    def _noise(self, rng: np.random.Generator) -> Pcm:
        noise = self._noises[min(int(np.searchsorted(self._by_noise, rng.random())), len(self._noises) - 1)]
        start = int(rng.integers(0, len(noise) - self.n_samples + 1))
        return noise[start : start + self.n_samples]


def read_free(folder: Path, licences: tuple[str, ...] = ()) -> list[Pcm]:
    """The noises or rooms of a folder that weights may be trained on, except those kept for measurements.

    With `licences` only those whose licence begins with one of them.
    """
    sources = read_sources()
    return [
        to_pcm(read_mono(sound.path))
        for sound in (list_rooms if folder.name == "rooms" else list_noises)(folder, None)
        if sources.permits(sound.licence) and sound.licence.startswith(licences or "") and part_of(sound.group) != 0
    ]
