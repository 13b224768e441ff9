"""Any folder of word folders: which clips of which words lie there, who speaks, and how they are divided into splits.

The folder of a word bears its name, in any script, and holds its clips, of any format and length. Names are compared in
Unicode's composed form (NFC). Clips are divided by lists (`validation_list.txt`, `testing_list.txt`) where they lie
there, else by speaker where file names (`SPEAKER_nohash_N.wav`) or a table tell who speaks, else clip by clip; by the
SHA-256 of the speaker's or the file's name, so that the same clips are always divided in the same way.
"""

from __future__ import annotations

import csv
import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ..audio import is_sound_name
from ..errors import DataError, UsageError
from ..words import SILENCE, UNKNOWN

SPLITS = ("training", "validation", "testing")
LISTED_SPLITS = ("validation", "testing")
NEEDED = ("training", "validation")
"""Splits in which every word must have clips."""
SHARES = {"training": 0.8, "validation": 0.1, "testing": 0.1}
"""Shares of the speakers, or of the clips if the speakers are unknown, before every word has some in each split."""

NOISE_FOLDER = "_background_noise_"
SPEAKER_TABLES = ("speakers.csv", "manifest.csv")
SPEAKER_MARK = "_nohash_"

BY_LISTS = "by the lists beside the clips"
BY_SPEAKERS = "by speaker"
BY_CLIPS = "clip by clip, because nothing says who speaks"


@dataclass(frozen=True)
class WordClip:
    """A clip of a word. `file` is its path in the folder; `speaker` is empty if unknown."""

    word: str
    speaker: str
    file: str


@dataclass(frozen=True)
class Recordings:
    """The clips of a folder by split, how they were divided, and remarks about them."""

    folder: Path
    splits: Mapping[str, Sequence[WordClip]]
    division: str
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """All words of which there are clips."""
        return sorted({clip.word for clips in self.splits.values() for clip in clips})


def parse_words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated list, composed. Raises UsageError for none, reserved labels and duplicates.

    >>> parse_words("computer, lumie\\u0300re")
    ('computer', 'lumière')
    """
    words = tuple(composed(word.strip()) for word in text.split(",") if word.strip())
    if not words:
        raise UsageError(f"found the words {text!r}, expected one or more, separated by commas: computer,lights")
    check_words(words)
    return words


def check_words(words: Sequence[str]) -> None:
    """Raise UsageError for words that cannot be folder names, are reserved labels, or differ only in case."""
    for word in words:
        if word.casefold() in (SILENCE, UNKNOWN):
            raise UsageError(f"found the word {word!r}, which is a label for other sound; rename its folder")
        if word.startswith(("_", ".")) or "/" in word or "\\" in word or not word.isprintable():
            raise UsageError(f"found the word {word!r}, expected the name of a folder, without a leading _ or .")
    twins = _twins(words)
    if twins:
        raise UsageError(f"found the words {' and '.join(twins)}, which differ only in case or form; use one of them")


def composed(text: str) -> str:
    """A text in Unicode's composed form, in which it is compared and stored."""
    return unicodedata.normalize("NFC", text)


def has_lists(folder: Path) -> bool:
    """Whether a folder has both lists of the Speech Commands layout."""
    return all((folder / f"{split}_list.txt").is_file() for split in LISTED_SPLITS)


def word_folders(folder: Path) -> dict[str, Path]:
    """The folders of words below `folder`, by word. Raises DataError if there is no such folder, or two for a word."""
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}), expected a folder of word folders") from error
    names = [composed(path.name) for path in found]
    twins = _twins(names)
    if twins:
        raise DataError(
            f"{folder}: the folders {'/ and '.join(twins)}/ differ only in case or form; put their clips in one"
        )
    return dict(zip(names, found, strict=True))


def _twins(names: Iterable[str]) -> list[str]:
    """The first names that differ only in case and Unicode form, if any."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[composed(name).casefold()].append(name)
    return next((group for group in alike.values() if len(group) > 1), [])


def clips_in(folder: Path) -> list[Path]:
    """The sound files below a word's folder, sorted, without hidden files."""
    return sorted(path for path in folder.rglob("*") if is_sound_name(path.name) and path.is_file())


def list_recordings(folder: Path, words: Sequence[str] = (), speakers: Path | None = None) -> Recordings:
    """All clips of a folder of word folders, divided so that each word has clips in training and in validation.

    The same clips are always divided alike, whatever `words` are asked for: where it cannot be done for a word, it is
    left as it fell, unless it is among `words`. `speakers` is a table (CSV) with the columns file and speaker; one that
    lies in the folder is found by itself. Raises DataError, naming the word, if of one of `words` there is no folder,
    too few clips, or clips by too few speakers, and UsageError for words that cannot be.
    """
    check_words(words)
    folders = word_folders(folder)
    missing = [word for word in words if word not in folders]
    if missing:
        known = ", ".join(folders) or "no folders at all"
        raise DataError(f"{folder}: found no folder {missing[0]}/, expected one for each word; there are {known}")
    table = read_speakers(folder, speakers)
    listed = has_lists(folder)
    clips, notes = [], []
    for word, path in folders.items():
        if word == SILENCE:
            notes.append(f"{word}/: not used; silence is drawn from {NOISE_FOLDER}/")
            continue
        # Where lists divide the clips, a copy is where they put it, unless it is of words that are trained on.
        files, note = (clips_in(path), []) if listed and not words else _different(word, clips_in(path))
        if word in words and len(files) < 2:
            raise DataError(
                f"{path}: holds {len(files) or 'no'} clip{'' if len(files) == 1 else 's'}, expected two or more: one "
                "to train on, one to validate; ten by different people are a start"
            )
        notes += note
        for file in files:
            name = file.relative_to(folder).as_posix()
            clips.append(WordClip(word, table.get(composed(name), "") or speaker_of(name), name))
    _check_one_word(folder, clips, words)
    divide = _by_lists if listed else _by_hash
    return divide(folder, clips, words, notes)


def _check_one_word(folder: Path, clips: Sequence[WordClip], words: Sequence[str]) -> None:
    """Raise DataError if a recording of one of `words` is identical to a recording of another word."""
    if not words:
        return
    sizes = {clip.file: (folder / clip.file).stat().st_size for clip in clips}
    words_of_size: dict[int, set[str]] = defaultdict(set)
    for clip in clips:
        words_of_size[sizes[clip.file]].add(clip.word)
    first: dict[bytes, WordClip] = {}
    for clip in clips:
        if sizes[clip.file] == 0 or len(words_of_size[sizes[clip.file]]) == 1:  # empty ones are damaged, not copies
            continue
        other = first.setdefault(hashlib.sha256((folder / clip.file).read_bytes()).digest(), clip)
        if other.word != clip.word and {other.word, clip.word} & set(words):
            raise DataError(
                f"{folder}: {other.file} and {clip.file} are the same recording under two words; remove one of them"
            )


def _different(word: str, files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The files without duplicates of earlier ones, and a remark about the duplicates."""
    by_size = Counter(path.stat().st_size for path in files)
    kept: dict[bytes, Path] = {}
    for path in files:
        alone = by_size[path.stat().st_size] == 1
        kept.setdefault(str(path).encode() if alone else hashlib.sha256(path.read_bytes()).digest(), path)
    n_twice = len(files) - len(kept)
    note = f"{word}/: {n_twice} of {len(files)} clips are copies of another, and are left out"
    return list(kept.values()), [note] if n_twice else []


def speaker_of(file: str) -> str:
    """The speaker in a file's name, or nothing.

    >>> speaker_of("yes/0a7c2a8d_nohash_0.wav"), speaker_of("yes/take 1.wav")
    ('0a7c2a8d', '')
    """
    speaker, mark, _ = file.rpartition("/")[2].partition(SPEAKER_MARK)
    return speaker if mark else ""


def read_speakers(folder: Path, table: Path | None) -> dict[str, str]:
    """Who speaks in which file, by its path in `folder`: from the table named, or one in the folder, or nothing.

    Raises DataError if the table cannot be read or lacks the columns file and speaker.
    """
    found = table or next((folder / name for name in SPEAKER_TABLES if (folder / name).is_file()), None)
    if found is None:
        return {}
    try:
        with found.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{found}: cannot be read ({error}), expected a table with the columns file and speaker"
        ) from error
    if not lines or not {"file", "speaker"} <= set(lines[0]):
        if table is None:  # some other manifest
            return {}
        raise DataError(f"{found}: lacks the columns file and speaker, expected one line per clip with both")
    return {composed(line["file"] or ""): line["speaker"] or "" for line in lines}


def read_list(path: Path) -> list[str]:
    """The clips that a list names, as paths relative to its folder. Raises DataError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}), expected one path per line; download the archive again"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def check_speakers(folder: Path, splits: Mapping[str, Sequence[WordClip]]) -> None:
    """Raise DataError if a speaker is in more than one split."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split, clips in splits.items():
        for clip in clips:
            splits_of[clip.speaker].add(split)
    shared = sorted(speaker for speaker, found in splits_of.items() if speaker and len(found) > 1)
    if shared:
        raise DataError(
            f"{folder}: {len(shared)} speakers are in more than one split ({shared[0]} for one), expected the official "
            "lists, which share none; put all clips of a speaker in one list"
        )


def _by_lists(folder: Path, clips: list[WordClip], words: Sequence[str], notes: list[str]) -> Recordings:
    split_of = {composed(file): split for split in LISTED_SPLITS for file in read_list(folder / f"{split}_list.txt")}
    splits: dict[str, list[WordClip]] = {split: [] for split in SPLITS}
    for clip in clips:
        splits[split_of.get(composed(clip.file), "training")].append(clip)
    check_speakers(folder, splits)
    for word in words:
        for split in ("training", "validation"):
            if not any(clip.word == word for clip in splits[split]):
                raise DataError(
                    f"{folder}: its lists leave no clip of {word} for {split}, expected some; change the lists, or "
                    "remove them to have the clips divided"
                )
    return Recordings(folder, splits, BY_LISTS, tuple(notes))


def _by_hash(folder: Path, clips: list[WordClip], words: Sequence[str], notes: list[str]) -> Recordings:
    """Divide by speakers, as far as they are known, so that each of `words` is in training and in validation."""
    groups: dict[str, list[WordClip]] = defaultdict(list)
    for clip in clips:
        groups[clip.speaker or f"/{clip.file}"].append(clip)
    split_of = {group: split_by_hash(group) for group in groups}
    _move_groups(groups, split_of)
    for word in words:
        found = {split_of[group] for group, members in groups.items() if any(clip.word == word for clip in members)}
        if not {"training", "validation"} <= found:
            raise DataError(
                f"{folder}: all clips of {word} are by one speaker, or by speakers whom other words need elsewhere; "
                "expected two speakers or more for each word, one to train on, one to validate"
            )
    splits: dict[str, list[WordClip]] = {split: [] for split in SPLITS}
    for group, members in groups.items():
        splits[split_of[group]] += members
    known = any(clip.speaker for clip in clips)
    ordered = {split: sorted(members, key=lambda clip: clip.file) for split, members in splits.items()}
    return Recordings(folder, ordered, BY_SPEAKERS if known else BY_CLIPS, tuple(notes))


def split_by_hash(group: str) -> str:
    """The split of a speaker or a file, by its name alone, in the proportions of SHARES.

    >>> [split_by_hash(name) for name in ("anna", "ben", "zoe")]
    ['training', 'training', 'training']
    """
    place = int.from_bytes(hashlib.sha256(composed(group).encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return SPLITS[0]


def _move_groups(groups: Mapping[str, Sequence[WordClip]], split_of: dict[str, str]) -> None:
    """Move groups until each word is in training and in validation, or no move improves that."""
    words_of = {group: {clip.word for clip in members} for group, members in groups.items()}
    groups_of: dict[str, list[str]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: hashlib.sha256(composed(group).encode()).digest()):
        for word in words_of[group]:
            groups_of[word].append(group)
    heard = Counter((word, split_of[group]) for group, words in words_of.items() for word in words)

    def gain(group: str, to: str) -> int:
        """By how much a move changes the number of words that are in every split they must be in."""
        left, words = split_of[group], words_of[group]
        lost = sum(heard[word, left] == 1 for word in words) if left in NEEDED else 0
        return sum(heard[word, to] == 0 for word in words) - lost

    moved = True
    while moved:  # each move brings the words nearer, so there is an end
        moved = False
        for word, to in product(sorted(groups_of), NEEDED):
            if heard[word, to]:
                continue
            gains = {group: gain(group, to) for group in groups_of[word]}
            best = max(gains, key=lambda group: gains[group])
            if gains[best] > 0:
                heard.subtract((other, split_of[best]) for other in words_of[best])
                heard.update((other, to) for other in words_of[best])
                split_of[best], moved = to, True
