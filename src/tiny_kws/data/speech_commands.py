"""The Speech Commands data set (Warden 2018, arXiv:1804.03209): its words, its layout, its official archives."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..words import SILENCE, UNKNOWN, is_word
from .manifest import Missing
from .word_folders import (
    BY_LISTS,
    LISTED_SPLITS,
    SPEAKER_MARK,
    SPLITS,
    Recordings,
    WordClip,
    check_speakers,
    clips_in,
    has_lists,
    read_list,
    word_folders,
)

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
LABELS = (SILENCE, UNKNOWN, *KEYWORDS)
"""The twelve classes of the Speech Commands task (Warden 2018), in the order of the logits."""
OTHER_WORDS = (
    "backward",
    "bed",
    "bird",
    "cat",
    "dog",
    "eight",
    "five",
    "follow",
    "forward",
    "four",
    "happy",
    "house",
    "learn",
    "marvin",
    "nine",
    "one",
    "seven",
    "sheila",
    "six",
    "three",
    "tree",
    "two",
    "visual",
    "wow",
    "zero",
)
"""The 25 words of Speech Commands v0.02 that make up the class `unknown`."""


NOISE_PATTERN = "*.wav"
"""File names of the recordings of background noise; a README lies beside them."""

WORDS_FOLDER = "speech_commands_v0.02"
TEST_FOLDER = "speech_commands_test_set_v0.02"
OFFICIAL_TEST_CLIPS = 4_890
"""Clips of the official test archive, silence and unknown among them."""
OFFICIAL_CLIPS = {"training": 84_843, "validation": 9_981, "testing": 11_005}
"""Clips of the 35 words in the whole official archive, by split."""
SOURCE = "Google Speech Commands v0.02, P. Warden 2018 (arXiv:1804.03209), CC BY 4.0"
SOURCE_LICENCE = "CC BY 4.0"


def words_folder(source: Path) -> Path:
    """The folder with the archive's name below `source` if only that one has the lists, else `source` itself."""
    below = source / WORDS_FOLDER
    return below if has_lists(below) and not has_lists(source) else source


def find_words_folder(source: Path) -> Path:
    """The folder with the lists: `source` itself or one below it. Raises DataError if neither has them."""
    folder = words_folder(source)
    if has_lists(folder):
        return folder
    raise DataError(
        f"{source}: found no validation_list.txt and testing_list.txt, expected the Speech Commands layout; "
        "run `tiny-kws data download` or name the folder that holds the lists"
    )


def is_speech_commands(source: Path) -> bool:
    """Whether a folder, or the one below it, has the lists and folders of the ten words."""
    try:
        folder = find_words_folder(source)
    except DataError:
        return False
    return any((folder / word).is_dir() for word in KEYWORDS)


@dataclass(frozen=True)
class Archive:
    """The archive on disk: the words of the task, all clips by split, and what is missing.

    `strange` counts the clips of words that are not in the archive.
    """

    words: tuple[str, ...]
    recordings: Recordings
    missing: Missing
    strange: dict[str, int]


def read_archive(source: Path) -> Archive:
    """Read the words' folder or the one above it. Raises DataError if the layout or the clips are not there."""
    folder = find_words_folder(source)
    recordings = list_recordings(folder)
    counts = {word: len(clips_in(path)) for word, path in word_folders(folder).items()}
    known = {*KEYWORDS, *OTHER_WORDS}
    strange = {word: count for word, count in counts.items() if count and word not in known}
    return Archive(KEYWORDS, recordings, missing_clips(recordings), strange)


def list_recordings(words: Path) -> Recordings:
    """Every clip of the 35 words, divided by the official lists. Raises DataError if there are none or speakers mix."""
    split_of = {file: split for split in LISTED_SPLITS for file in read_list(words / f"{split}_list.txt")}
    splits: dict[str, list[WordClip]] = {split: [] for split in SPLITS}
    for word in sorted((*KEYWORDS, *OTHER_WORDS)):
        for path in sorted((words / word).glob("*.wav")):
            file = f"{word}/{path.name}"
            splits[split_of.get(file, "training")].append(WordClip(word, _speaker_of(file), file))
    if not any(splits.values()):
        raise DataError(f"{words}: holds the lists but no recordings, expected folders such as yes/ and no/")
    check_speakers(words, splits)
    return Recordings(words, splits, BY_LISTS)


def missing_clips(recordings: Recordings) -> Missing:
    """How many clips of the official archive, and of those that the lists name, are not there, by split."""
    present = {clip.file for clips in recordings.splits.values() for clip in clips}
    found = {split: len(clips) for split, clips in recordings.splits.items()}
    lists = {split: read_list(recordings.folder / f"{split}_list.txt") for split in LISTED_SPLITS}
    return Missing(
        clips={split: OFFICIAL_CLIPS[split] - n for split, n in found.items() if n < OFFICIAL_CLIPS[split]},
        listed={split: sum(file not in present for file in files) for split, files in lists.items()},
    )


def task_words(folder: Path) -> tuple[str, ...]:
    """The ten words of the task if `folder`, or the one below it, has a folder for each; else none."""
    sources = (folder, folder / WORDS_FOLDER)
    return KEYWORDS if any(all((source / word).is_dir() for word in KEYWORDS) for source in sources) else ()


def _speaker_of(file: str) -> str:
    """The speaker of `yes/0a7c2a8d_nohash_0.wav`: 0a7c2a8d."""
    return file.rpartition("/")[2].partition(SPEAKER_MARK)[0]


def read_test_archive(folder: Path, labels: Collection[str] = LABELS) -> list[tuple[Path, str]]:
    """The clips of a folder laid out as the official test archive (`_silence_`, `_unknown_`, words) with their labels.

    They are sorted, and do not depend on the order of `labels`. Raises DataError if one of these has no clips.
    """
    if not (folder / "_unknown_").is_dir() and (folder / TEST_FOLDER).is_dir():
        folder = folder / TEST_FOLDER
    ordered = [label for label in LABELS if label in labels] + sorted(set(labels) - set(LABELS))
    found = [
        (path, label) for label in ordered for path in clips_in(folder / (label if is_word(label) else f"_{label}_"))
    ]
    missing = sorted(set(labels) - {label for _, label in found})
    if missing:
        raise DataError(
            f"{folder}: found no clips of {', '.join(missing)}; expected the official test archive's folders, or "
            "others so named: one for each word of the model, _silence_ and _unknown_"
        )
    return found


def said_in_test(name: str) -> str:
    """The word in `_unknown_/bed_0a7c2a8d_nohash_0.wav` or `yes/0a7c2a8d_nohash_0.wav`; empty if it is not named."""
    label, _, file = name.partition("/")
    if label == f"_{UNKNOWN}_":
        word, _, rest = file.partition("_")
        return word if "_nohash_" in rest else ""
    return "" if label == f"_{SILENCE}_" else label
