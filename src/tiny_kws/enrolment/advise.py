"""Advice on words before one is chosen: how long they are, what sounds like them, how often they will fire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from .bank import ENGLISH, Bank, Trunk, read_bank
from .enroll import COMMON_PER_HOUR, check_word, fires_at, study_of
from .predict import Alarms, alarms_at
from .say import Say, spoken
from .sounds import bare, lexicon, n_syllables, nearest, sounds_of

HEARD_IN_NOISE = 0.9
"""The share of the voices' takes at 10 dB that are heard when candidates are compared by false alarms."""
NEAREST = 6
"""How many similar words are listed."""
NEAR = 0.45
"""How far what sounds alike may be."""
FEW_SYLLABLES, FEW_SOUNDS = 3, 5
TAKES = 70


@dataclass(frozen=True)
class Near:
    """A word or two that sound like a candidate, and how often they are said in an hour of speech."""

    text: str
    distance: float
    per_hour: float


@dataclass(frozen=True)
class Advice:
    """What is known of a word before it is made.

    `alarms` are false alarms in the bank's English where the word is still heard in noise nine times of ten when
    synthetic voices say it; `fires_at` is what is said there. `hints` are sentences.
    """

    word: str
    sounds: str
    syllables: int
    distinct_sounds: int
    per_hour: float
    near: tuple[Near, ...]
    alarms: Alarms
    fires_at: tuple[str, ...]
    hints: tuple[str, ...]


def advise(words: Sequence[str], bank: str | Path | None = None, seed: int = 0) -> list[Advice]:
    """Compare candidates, the one with the fewest false alarms first.

    Each is said by the synthetic voices that are installed, and tried on the package's bank of speech, or `bank`.
    Raises UsageError for a word that cannot be one or that the voices cannot say.
    """
    names = list(dict.fromkeys(check_word(word) for word in words))
    ground = read_bank(Path(bank) if bank else None)
    trunk = Trunk(ground)
    per_hour = _per_hour(ground)
    sounds = {text: heard for text in per_hour if (heard := _known_sounds(text))}
    found = [_advice(name, ground, trunk, per_hour, sounds, seed) for name in names]
    return sorted(found, key=lambda one: (one.alarms.rate, -one.syllables))


def _advice(
    word: str, bank: Bank, trunk: Trunk, said: Mapping[str, float], known: Mapping[str, str], seed: int
) -> Advice:
    rng = np.random.default_rng(seed)
    takes, _ = spoken(word, Say(takes=TAKES), rng)
    evidence = study_of(bank, trunk, [], takes, rng).evidence
    sounds = sounds_of(word)
    found = [(text, far) for text, far in nearest(sounds, known, NEAREST + 1) if text != word.casefold()]
    near = tuple(Near(text, round(far, 2), round(said[text], 2)) for text, far in found[:NEAREST] if far <= NEAR)
    heard = float(np.quantile(evidence.noisy, 1 - HEARD_IN_NOISE))
    per_hour = said.get(word.casefold(), 0.0)
    return Advice(
        word,
        sounds,
        n_syllables(sounds),
        len(set(bare(sounds))),
        per_hour,
        near,
        alarms_at(evidence, heard, ENGLISH),
        fires_at(bank, evidence),
        tuple(_hints(sounds, per_hour, near)),
    )


def _per_hour(bank: Bank) -> dict[str, float]:
    """How often words, and two that follow each other, are said in an hour of the bank's English."""
    words = [word for _, word in bank.words]
    counts = Counter(words) + Counter(f"{first} {second}" for first, second in pairwise(words))
    hours = sum(map(bank.hours, ENGLISH))
    return {text: count / hours for text, count in counts.items()}


def _known_sounds(text: str) -> str:
    """What a text sounds like word by word, or nothing if one is in no lexicon."""
    found = [lexicon().get(word) for word in text.split()]
    return "".join(map(str, found)) if all(found) else ""


def _hints(sounds: str, per_hour: float, near: Sequence[Near]) -> list[str]:
    hints = []
    if n_syllables(sounds) < FEW_SYLLABLES:
        hints.append("it is short: three syllables or more, or a phrase, are recognised far better")
    elif len(set(bare(sounds))) < FEW_SOUNDS:
        hints.append("it has few different sounds: a word with more of them is recognised better")
    if per_hour >= COMMON_PER_HOUR:
        hints.append(f"it is said {per_hour:.1f} times per hour of speech, and fires each time")
    common = [one for one in near if one.per_hour >= COMMON_PER_HOUR]
    if common:
        hints.append(f"{common[0].text!r} sounds like it and is said {common[0].per_hour:.1f} times per hour")
    return hints
