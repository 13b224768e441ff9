"""The material for streams: folders of clips, running speech, noises and rooms, and draws from them without repeats."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..audio import Samples, find_sound_files, read_mono
from ..errors import AudioError, DataError, UsageError
from .held_out import noise_source, part_of
from .speech_commands import words_folder
from .word_folders import SPLITS, composed, list_recordings

CLIP_SPLITS = (*SPLITS, "all")
HOMOPHONES = {"no": ("know",), "right": ("write", "rite")}
"""Words that sound like a keyword, which are left out of running speech too."""
TRAITS = ("age", "gender", "accent")
"""Columns of a folder's manifest.csv that say something about speakers."""
LETTERS = r"[^\W\d_]+"
"""A word in a transcript, in any script."""
Thing = TypeVar("Thing")
Traits = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sound:
    """A file. `group` is its speaker, its source or its room, `text` the word, the sentence or the kind of noise.

    `traits` holds pairs such as ("accent", "scotland"), as far as the folder's manifest knows them.
    """

    path: Path
    name: str
    group: str
    text: str = ""
    licence: str = ""
    traits: Traits = ()


@dataclass
class Material:
    """The files that may be used; `used` collects the names of those that were, `unreadable` the errors."""

    clips: list[Sound] = field(default_factory=list)
    speech: list[Sound] = field(default_factory=list)
    noises: list[Sound] = field(default_factory=list)
    rooms: list[Sound] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    wordless: list[str] = field(default_factory=list)

    def read(self, sound: Sound) -> Samples | None:
        """The samples of a file; None, and a line in `unreadable`, if it cannot be read."""
        try:
            return read_mono(sound.path)
        except AudioError as error:
            if str(error) not in self.unreadable:
                self.unreadable.append(str(error))
            return None


def list_clips(folder: Path, split: str) -> list[Sound]:
    """The clips of one split of a folder of word folders, or of one below it; `text` is the word.

    Splits are those of `data prepare`: by the lists beside the clips, by speaker, or clip by clip; `all` is everything.
    Raises DataError if the clips are missing, UsageError for another split.
    """
    if split not in CLIP_SPLITS:
        raise UsageError(f"found the split {split!r}, expected one of {', '.join(CLIP_SPLITS)}")
    folder = words_folder(folder)
    recordings = list_recordings(folder)
    found = [clip for name, clips in recordings.splits.items() if split in (name, "all") for clip in clips]
    if not found:
        raise DataError(
            f"{folder}: found no clips of the split {split!r}, expected files such as yes/0a7c2a8d_nohash_0.wav; name "
            "another folder or --split"
        )
    rows = _read_manifest(folder)
    return [
        Sound(
            folder / clip.file,
            clip.file,
            group=clip.speaker or clip.file,
            text=clip.word,
            licence=rows.get(clip.file, {}).get("licence", ""),
            traits=traits_of(rows.get(clip.file, {})),
        )
        for clip in sorted(found, key=lambda clip: clip.file)
    ]


def list_speech(folder: Path, keywords: Iterable[str], part: int | None, trusted: bool) -> list[Sound]:
    """Sentences without `keywords`, according to the transcripts in the column `label` of the folder's manifest.csv.

    The speaker is that of the manifest, or else the first folder below or the file's name. Sentences without a
    transcript are left out unless `trusted`. Raises DataError if none is left.
    """
    rows, words = _read_manifest(folder), tuple(keywords)
    paths = find_sound_files(folder)
    sentences = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        row = rows.get(name, {})
        text = row.get("label", "")
        speaker = row.get("speaker") or (name.partition("/")[0] if "/" in name else path.stem)
        if (text or trusted) and not holds_word(text, words):
            sentences.append(Sound(path, name, speaker, text, row.get("licence", ""), traits_of(row)))
    if not sentences:
        raise DataError(
            f"{folder}: found {len(paths)} recordings, none of them with a transcript that shows that no keyword is "
            "said, expected a manifest.csv with the columns file and label; write one, or --trust-speech"
        )
    return _of_part(sentences, part, folder)


def list_noises(folder: Path, part: int | None) -> list[Sound]:
    """Every noise below `folder`, grouped by the recording that it was cut from. Raises DataError if none is left.

    `text` is its kind: the manifest's label, or else the folder that it lies in.
    """
    rows = _read_manifest(folder)
    names = [path.relative_to(folder).as_posix() for path in find_sound_files(folder)]
    noises = []
    for name in names:
        row = rows.get(name, {})
        kind = row.get("label") or (folder / name).parent.name
        noises.append(Sound(folder / name, name, noise_source(name), kind, row.get("licence", "")))
    return _of_part(noises, part, folder)


def list_rooms(folder: Path, part: int | None) -> list[Sound]:
    """Every room response below `folder`, by the room: the manifest's label, or else the file's name.

    Raises DataError if none is left.
    """
    rows = _read_manifest(folder)
    rooms = []
    for path in find_sound_files(folder):
        name = path.relative_to(folder).as_posix()
        row = rows.get(name, {})
        rooms.append(Sound(path, name, row.get("label") or path.stem, licence=row.get("licence", "")))
    return _of_part(rooms, part, folder)


def holds_word(text: str, words: Iterable[str]) -> bool:
    """Whether `text` contains one of `words`, an obvious inflexion of it, or a word that sounds like it.

    A phrase, or a word of other letters than a to z, is looked for as it is spelt, also within other words: many
    scripts put no space between them.

    >>> [holds_word(text, ["stop", "no"]) for text in ("He stopped.", "Non-stop!", "I know", "it is not now")]
    [True, True, True, False]
    >>> holds_word("Hey, Computer!", ["hey computer"]), holds_word("Включи свет!", ["свет"])
    (True, True)
    """
    spoken = re.findall(LETTERS, composed(text).lower())
    return any(_is_spoken(form, spoken) for word in words for form in (word, *HOMOPHONES.get(word, ())))


def _is_spoken(word: str, spoken: Sequence[str]) -> bool:
    parts = re.findall(LETTERS, composed(word).lower())
    if len(parts) == 1 and parts[0].isascii():
        return not _inflexions(parts[0]).isdisjoint(spoken)
    return bool(parts) and " ".join(parts) in " ".join(spoken)


@cache
def _inflexions(word: str) -> frozenset[str]:
    plurals = {word + "s", word + "es"} if word[-1] in "os" else {word + "s"}
    stems = {word, word + word[-1]} if word[-1] not in "aeiou" else {word}
    return frozenset({word} | plurals | {stem + ending for stem in stems for ending in ("ed", "ing")})


def deal_clips(clips: Sequence[Sound], n_groups: int, rng: np.random.Generator) -> list[list[Sound]]:
    """Clips in groups of about the same size; all clips of a speaker are in one group."""
    by_speaker = _by_group(clips)
    groups: list[list[Sound]] = [[] for _ in range(n_groups)]
    for speaker in sorted(shuffled(sorted(by_speaker), rng), key=lambda name: -len(by_speaker[name])):
        min(groups, key=len).extend(by_speaker[speaker])
    return groups


def draw_clips(
    groups: Sequence[Sequence[Sound]], words: Sequence[str], rng: np.random.Generator
) -> Iterator[tuple[int, Sound]]:
    """All clips of `words` as (group, clip): groups take turns, the speaker and word drawn least come first."""
    left = [shuffled([clip for clip in group if clip.text in words], rng) for group in groups]
    used: Counter[tuple[str, str]] = Counter()
    turn = [int(i) for i in rng.permutation(len(groups))]
    while any(left):
        for i in turn:
            if left[i]:
                clip = min(left[i], key=lambda clip: (used["speaker", clip.group], used["word", clip.text]))
                left[i].remove(clip)
                used.update([("speaker", clip.group), ("word", clip.text)])
                yield i, clip


class SpeechDeck:
    """Hands out sentences, none twice, with each speaker in one recording only as long as there are unused speakers."""

    def __init__(self, sentences: Sequence[Sound], rng: np.random.Generator) -> None:
        by_speaker = _by_group(sentences)
        self._fresh = [shuffled(by_speaker[speaker], rng) for speaker in shuffled(sorted(by_speaker), rng)]
        self._begun: list[list[Sound]] = []

    def next_recording(self) -> None:
        """From here on, speakers that were heard before come last."""
        if self._fresh:
            self._begun.append(self._fresh.pop(0))

    def take(self, count: int) -> list[Sound]:
        """Up to `count` sentences of one speaker, the same as before while any is left; none if all are gone."""
        while not (self._fresh and self._fresh[0]):
            if self._fresh:
                self._fresh.pop(0)
            elif any(self._begun):
                self._fresh, self._begun = self._begun, []
            else:
                return []
        return [self._fresh[0].pop() for _ in range(min(count, len(self._fresh[0])))]


def shuffled(things: Sequence[Thing], rng: np.random.Generator) -> list[Thing]:
    """A copy in drawn order."""
    return [things[i] for i in rng.permutation(len(things))]


def _by_group(sounds: Iterable[Sound]) -> dict[str, list[Sound]]:
    groups: dict[str, list[Sound]] = defaultdict(list)
    for sound in sounds:
        groups[sound.group].append(sound)
    return groups


def _of_part(sounds: list[Sound], part: int | None, folder: Path) -> list[Sound]:
    kept = [sound for sound in sounds if part is None or part_of(sound.group) == part]
    if not kept:
        raise DataError(f"{folder}: none of its {len(sounds)} recordings is in part {part}; use another part or all")
    return kept


def traits_of(row: Mapping[str, str]) -> Traits:
    """The traits in a row of a manifest, by their names.

    >>> traits_of({"file": "a.wav", "age": "", "accent": "scotland"})
    (('accent', 'scotland'),)
    """
    return tuple((name, row[name]) for name in TRAITS if row.get(name))


def _read_manifest(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a folder's manifest.csv by their file; empty if there is no manifest."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["file"]: {name: value or "" for name, value in row.items() if name} for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a table with a column file") from error
