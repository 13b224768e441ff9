"""Find when each word and phone of transcribed recordings is said: writes alignments.jsonl into a folder.

    python scripts/align_speech.py FOLDER [--clips]       # needs pip install pocketsphinx==5.1.1, and espeak-ng

FOLDER has a manifest.csv with the columns file, label (what is said) and speaker. With `--clips` each recording is a
word said alone. Alignment is by pocketsphinx's acoustic model of English and its dictionary, an edition of CMUdict;
espeak-ng spells words that are not in it. Recordings that cannot be aligned are left out, and counted.
"""
# ruff: noqa: RUF001 (phonetic letters are what they look like)

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
from collections import Counter
from functools import cache
from multiprocessing import Pool
from pathlib import Path
from typing import Any

from tiny_kws.audio import read_mono
from tiny_kws.data.prepared import to_pcm
from tiny_kws.files import write_bytes
from tiny_kws.training.running_speech import ALIGNMENTS

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


@cache
def _decoder() -> tuple[Any, set[str]]:
    """One for each process, and the words that it knows."""
    from pocketsphinx import Decoder, get_model_path  # noqa: PLC0415  (only this script needs it)

    with Path(get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as lines:
        known = {line.split()[0] for line in lines}
    return Decoder(lm=None, loglevel="FATAL"), known


def spelled(word: str) -> list[str]:
    """The phones of a word that is in no dictionary.

    >>> spelled("kws")  # doctest: +SKIP
    ['K', 'Z']
    """
    done = subprocess.run(["espeak-ng", "-q", "-v", "en-us", "--ipa", word], capture_output=True, text=True, check=True)
    ipa, phones = re.sub("[ˈˌ\u0303\u0329\\s]", "", done.stdout), []
    while ipa:
        sign = next((ipa[:n] for n in (3, 2, 1) if ipa[:n] in ARPABET), None)
        phones += ARPABET[sign].split() if sign else []
        ipa = ipa[len(sign) if sign else 1 :]
    return phones


def align(path: Path, text: str) -> list[Any] | None:
    """Each word as [word, start, length, [[phone, start, length], ...]] in frames of 10 ms; None if it does not fit."""
    decoder, known = _decoder()
    words = re.sub(r"[^a-z' ]+", " ", text.lower().replace("’", "'")).split()
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
        found = decoder.get_alignment()
    except RuntimeError:  # of pocketsphinx, for what is not said as it is written
        return None
    return [
        [re.sub(r"\(\d+\)$", "", word.name), word.start, word.duration, [[p.name, p.start, p.duration] for p in word]]
        for word in found
    ]


def _decode(decoder: Any, sound: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(sound, full_utt=True)
    decoder.end_utt()


def _align_row(job: tuple[Path, dict[str, str], bool]) -> str:
    folder, row, is_clip = job
    words = align(folder / row["file"], row["label"]) if row["label"].strip() else None
    entry = {"file": row["file"], "speaker": row.get("speaker", ""), "clip": is_clip, "words": words}
    return json.dumps(entry) if words else ""


def main() -> None:
    """Align a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", action="store_true")
    asked = parser.parse_args()
    with (asked.folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        jobs = [(asked.folder, row, asked.clips) for row in csv.DictReader(file)]
    with Pool() as pool:
        lines = pool.map(_align_row, jobs, chunksize=16)
    write_bytes(asked.folder / ALIGNMENTS, "".join(line + "\n" for line in lines if line).encode())
    counts = Counter(bool(line) for line in lines)
    print(f"{asked.folder}: {counts[True]} recordings aligned, {counts[False]} left out")


if __name__ == "__main__":
    main()
