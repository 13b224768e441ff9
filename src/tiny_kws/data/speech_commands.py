"""The Speech Commands data set (Warden 2018, arXiv:1804.03209): its words, its layout, its official archives."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ..errors import DataError
from ..words import SILENCE, UNKNOWN
from .prepared import SPLITS

NOISE_FOLDER = "_background_noise_"

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


WORDS_FOLDER = "speech_commands_v0.02"
TEST_FOLDER = "speech_commands_test_set_v0.02"
OFFICIAL_CLIPS = {"training": 84_843, "validation": 9_981, "testing": 11_005}
"""Clips of the 35 words in the whole official archive, by split."""
SOURCE = "Google Speech Commands v0.02, P. Warden 2018 (arXiv:1804.03209), CC BY 4.0"
SOURCE_LICENCE = "CC BY 4.0"


def find_words_folder(source: Path) -> Path:
    """The folder with the lists: `source` itself or one below it. Raises DataError if neither has them."""
    for folder in (source, source / WORDS_FOLDER):
        if (folder / "validation_list.txt").is_file() and (folder / "testing_list.txt").is_file():
            return folder
    raise DataError(
        f"{source}: found no validation_list.txt and testing_list.txt, expected the Speech Commands layout; "
        "run `tiny-kws data download` or name the folder that holds the lists"
    )


def list_recordings(words: Path, lists: dict[str, list[str]]) -> dict[str, list[str]]:
    """Every clip of the 35 words by split, as sorted paths relative to `words`: by the lists, else training."""
    split_of = {file: split for split, files in lists.items() for file in files}
    recordings: dict[str, list[str]] = {split: [] for split in SPLITS}
    for word in sorted((*KEYWORDS, *OTHER_WORDS)):
        for path in sorted((words / word).glob("*.wav")):
            file = f"{word}/{path.name}"
            recordings[split_of.get(file, "training")].append(file)
    if not any(recordings.values()):
        raise DataError(f"{words}: holds the lists but no recordings, expected folders such as yes/ and no/")
    return recordings


def word_of(file: str) -> str:
    """The word said in `yes/0a7c2a8d_nohash_0.wav`: yes."""
    return file.partition("/")[0]


def speaker_of(file: str) -> str:
    """The speaker of `yes/0a7c2a8d_nohash_0.wav`: 0a7c2a8d."""
    return file.rpartition("/")[2].partition("_nohash_")[0]


def read_test_archive(folder: Path) -> list[tuple[Path, str]]:
    """The official test folder (`_silence_`, `_unknown_`, words) as sorted (file, label); DataError if foreign."""
    if not (folder / "_unknown_").is_dir() and (folder / TEST_FOLDER).is_dir():
        folder = folder / TEST_FOLDER
    found = [
        (path, label)
        for label in LABELS
        for path in sorted((folder / (f"_{label}_" if label in (SILENCE, UNKNOWN) else label)).glob("*.wav"))
    ]
    missing = sorted(set(LABELS) - {label for _, label in found})
    if missing:
        raise DataError(
            f"{folder}: found no clips of {', '.join(missing)}; expected the official test archive's folders"
        )
    return found


def said_in_test(name: str) -> str:
    """The word in `_unknown_/bed_0a7c2a8d_nohash_0.wav` or `yes/0a7c2a8d_nohash_0.wav`; empty if it is not named."""
    label, _, file = name.partition("/")
    if label == f"_{UNKNOWN}_":
        word, _, rest = file.partition("_")
        return word if "_nohash_" in rest else ""
    return "" if label == f"_{SILENCE}_" else label


def read_list(path: Path) -> list[str]:
    """The clips that a list names, as paths relative to the words' folder. Raises DataError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a path a line; fetch the archive again") from error


def check_speakers(words: Path, recordings: dict[str, list[str]]) -> None:
    """Raise DataError if a speaker is in more than one split."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split, files in recordings.items():
        for file in files:
            splits_of[speaker_of(file)].add(split)
    shared = sorted(speaker for speaker, splits in splits_of.items() if len(splits) > 1)
    if shared:
        raise DataError(
            f"{words}: {len(shared)} speakers are in more than one split ({shared[0]} for one), expected the official "
            "lists, which share none; put all clips of a speaker in one list"
        )
