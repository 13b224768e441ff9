"""Find when each word and phone of transcribed recordings is said: writes alignments.jsonl into a folder.

    python scripts/align_speech.py FOLDER [--clips]       # needs pip install pocketsphinx==5.1.1, and espeak-ng

FOLDER has a manifest.csv with the columns file, label (what is said) and speaker. With `--clips` each recording is a
word said alone. Alignment is by pocketsphinx's acoustic model of English and its dictionary, an edition of CMUdict;
espeak-ng spells words that are not in it. Left out, and counted, are recordings without a transcript, those whose
transcript is not what is said, as far as the alignment tells, and those that cannot be read.
"""
# ruff: noqa: RUF001 (phonetic letters are what they look like)

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from tiny_kws.audio import read_mono
from tiny_kws.data.prepared import to_pcm
from tiny_kws.errors import AudioError, DataError, KwsError
from tiny_kws.files import write_bytes
from tiny_kws.training.running_speech import ALIGNMENTS, NO_WORD

# fmt: off
ARPABET = {
    "tʃ": "CH", "dʒ": "JH", "eɪ": "EY", "aɪ": "AY", "aʊ": "AW", "ɔɪ": "OY", "oʊ": "OW", "əʊ": "OW",
    "ɪɹ": "IH R", "ʊɹ": "UH R", "ɔːɹ": "AO R", "ɑːɹ": "AA R", "oːɹ": "AO R", "ɛɹ": "EH R", "ɜː": "ER",
    "ɚ": "ER", "iː": "IY", "uː": "UW", "ɑː": "AA", "ɔː": "AO", "æ": "AE", "ɛ": "EH", "ɪ": "IH", "ᵻ": "IH",
    "ʊ": "UH", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "a": "AA", "ɑ": "AA", "ɒ": "AA", "ɔ": "AO", "o": "OW",
    "e": "EH", "i": "IY", "u": "UW", "b": "B", "d": "D", "ð": "DH", "f": "F", "ɡ": "G", "h": "HH", "j": "Y",
    "k": "K", "l": "L", "m": "M", "n": "N", "ŋ": "NG", "p": "P", "ɹ": "R", "r": "R", "s": "S", "ʃ": "SH",
    "t": "T", "ɾ": "T", "θ": "TH", "v": "V", "w": "W", "z": "Z", "ʒ": "ZH", "x": "K",
}
# fmt: on
"""IPA, as espeak-ng writes American English, in the dictionary's letters."""
LEAST_SCORE = -36.0
"""Of pocketsphinx for the frames of words, on average: below it, other words are said.

Of 400 sentences of speechocean762, each with the transcript of another, 158 cannot be aligned and 146 of the other 242
are below; with their own transcript 2 cannot be aligned and 11 are below. Of 150 clips of words 6 are left out.
"""
NO_TRANSCRIPT, NOT_SAID, UNREADABLE = "no transcript", "not said as it is written", "cannot be read"
NAMED = 5
"""Recordings that are named of those left out for a reason."""


@cache
def _decoder() -> tuple[Any, set[str]]:
    """One for each process, and the words that it knows."""
    try:
        from pocketsphinx import Decoder, get_model_path  # noqa: PLC0415  (only this script needs it)
    except ImportError as error:
        raise DataError("pocketsphinx is not installed; install it with pip install pocketsphinx==5.1.1") from error

    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as lines:
        known = {line.split()[0] for line in lines}
    # With bestpath the limits of words move after the first pass, and the second fails for a third of all sentences.
    return Decoder(lm=None, bestpath=False, loglevel="FATAL"), known


def spelled(word: str) -> list[str]:
    """The phones of a word that is in no dictionary.

    >>> spelled("kws")  # doctest: +SKIP
    ['K', 'Z']
    """
    if shutil.which("espeak-ng") is None:
        raise DataError(f"espeak-ng, which spells {word!r}, is not installed; install it with apt install espeak-ng")
    done = subprocess.run(["espeak-ng", "-q", "-v", "en-us", "--ipa", word], capture_output=True, text=True, check=True)
    ipa, phones = re.sub("[ˈˌ\u0303\u0329\\s]", "", done.stdout), []
    while ipa:
        sign = next((ipa[:n] for n in (3, 2, 1) if ipa[:n] in ARPABET), None)
        phones += ARPABET[sign].split() if sign else []
        ipa = ipa[len(sign) if sign else 1 :]
    return phones


def words_in(text: str) -> list[str]:
    """The words of a transcript, in the letters of the dictionary.

    >>> words_in("Don't stop - now!")
    ["don't", 'stop', 'now']
    """
    return re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'")).split()


def align(path: Path, text: str) -> list[Any] | None:
    """Each word as [word, start, length, [[phone, start, length], ...]] in frames of 10 ms; None if it does not fit."""
    decoder, known = _decoder()
    words = words_in(text)
    for word in set(words) - known:
        phones = spelled(word)
        if not phones:
            return None
        decoder.add_word(word, " ".join(phones))
        known.add(word)
    sound = to_pcm(read_mono(path)).tobytes()
    try:
        decoder.set_align_text(" ".join(words))
        _decode(decoder, sound)
        decoder.set_alignment()  # a second pass: phones within the words of the first
        _decode(decoder, sound)
        # in one go: pocketsphinx frees the phones of a word when it gives the next
        found = [
            (word.name, word.start, word.duration, word.score, [[p.name, p.start, p.duration] for p in word])
            for word in decoder.get_alignment()
        ]
    except RuntimeError:  # of pocketsphinx, for what is not said as it is written
        return None
    if not fits([(name, frames, score) for name, _, frames, score, _ in found]):
        return None
    return [[re.sub(r"\(\d+\)$", "", name), start, frames, phones] for name, start, frames, _, phones in found]


def fits(aligned: Sequence[tuple[str, int, float]]) -> bool:
    """Whether the words of an alignment, each with frames and score, are said: not silence alone, nor other words."""
    words = [(frames, score) for name, frames, score in aligned if name[0] not in NO_WORD]
    n_frames = sum(frames for frames, _ in words)
    return n_frames > 0 and sum(score for _, score in words) / n_frames >= LEAST_SCORE


def _decode(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()


def _align_row(job: tuple[Path, dict[str, str], bool]) -> tuple[str, str]:
    """A line of the alignments, or nothing and why."""
    folder, row, is_clip = job
    if not words_in(row["label"]):
        return "", NO_TRANSCRIPT
    try:
        words = align(folder / row["file"], row["label"])
    except AudioError:
        return "", UNREADABLE
    entry = {"file": row["file"], "speaker": row.get("speaker", ""), "clip": is_clip, "words": words}
    return (json.dumps(entry), "") if words else ("", NOT_SAID)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The lines of a folder's manifest. Raises DataError for one without a column of files or of transcripts."""
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a line for each recording") from error
    missing = [name for name in ("file", "label") if not rows or name not in rows[0]]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}, expected file, and label with what is said")
    return rows


def left_out(rows: Sequence[dict[str, str]], reasons: Sequence[str]) -> list[str]:
    """A line for each reason, with how many recordings were left out for it, and the names of the first."""
    files: dict[str, list[str]] = {}
    for row, reason in zip(rows, reasons, strict=True):
        files.setdefault(reason, []).append(row["file"])
    return [
        f"left out: {len(names)} ({reason}): {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
        for reason, names in files.items()
        if reason
    ]


def align_folder(folder: Path, is_clips: bool) -> None:
    """Write a folder's alignments, and print how many there are. Raises DataError if there would be none."""
    rows = rows_of(folder)
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(_align_row, [(folder, row, is_clips) for row in rows], chunksize=16))
    lines = [line for line, _ in found if line]
    told = left_out(rows, [reason for _, reason in found])
    if not lines:
        raise DataError(f"{folder}: no recording can be aligned, expected English with transcripts; {'; '.join(told)}")
    write_bytes(folder / ALIGNMENTS, "".join(line + "\n" for line in lines).encode())
    print(f"{folder}: {len(lines)} recordings aligned, {len(rows) - len(lines)} left out")
    print(*told, sep="\n", end="\n" if told else "")


def main() -> None:
    """Align a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", action="store_true")
    asked = parser.parse_args()
    try:
        align_folder(asked.folder, asked.clips)
    except KwsError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
