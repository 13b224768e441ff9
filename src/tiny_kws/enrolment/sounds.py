"""How words sound, in the letters of the lexicon that hibari-tts brings: which words are near to another."""
# ruff: noqa: RUF001, RUF002 (phonetic letters are what they look like)

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import UsageError, install_hint
from .say import check_readable
from .voices import hibari

VOWELS = frozenset("AIOWYQaeiouæɑɒɐɔəɚɛɜɪʊʌɨᵊᵻ")
BARE = str.maketrans("Tɾᵻ", "ttɪ", "ˈˌː ")
"""Without stress, length and gaps; what is a t in slow speech, and an unstressed i, as such."""
LEXICONS = ("lexicon_us_gold.json.gz", "lexicon_us_silver.json.gz")


def sounds_of(text: str) -> str:
    """What a text sounds like, in one letter for each sound, with marks of stress.

    Raises UsageError without the extra `say`, and for what is not written in Latin letters.
    """
    check_readable(text)
    spoken: list[str] = _speller().phonemize(text)
    return " ".join(spoken)


def bare(sounds: str) -> str:
    """Sounds without stress, length and gaps.

    >>> bare("hˈA kəmpjˈuTəɹ")
    'hAkəmpjutəɹ'
    """
    return sounds.translate(BARE)


def n_syllables(sounds: str) -> int:
    """Vowels in sounds.

    >>> n_syllables("hˈA kəmpjˈuTəɹ")
    4
    """
    return sum(sign in VOWELS for sign in sounds)


def nearest(sounds: str, among: Mapping[str, str], count: int = 20) -> list[tuple[str, float]]:
    """The texts that sound most like `sounds`, out of texts with their bare sounds, the nearest first.

    Beside each how far it is (Levenshtein 1966, as a share of the longer one): 0 is the same, 1 has nothing in common.
    """
    process, distance = _matcher()
    found = process.extract(bare(sounds), among, scorer=distance, limit=count)
    return [(text, float(far)) for _, far, text in found]


@cache
def lexicon() -> dict[str, str]:
    """Words of English with their bare sounds."""
    _speller()
    folder = files("hibari") / "assets"
    table: dict[str, str] = {}
    for name in reversed(LEXICONS):
        entries = json.loads(gzip.decompress((folder / name).read_bytes()))
        table |= {
            word.lower(): bare(spoken if isinstance(spoken, str) else spoken["DEFAULT"])
            for word, spoken in entries.items()
            if len(word) > 1 and word.isalpha() and word.isascii()
        }
    return table


def _matcher() -> tuple[Any, Any]:
    from rapidfuzz import process  # noqa: PLC0415  (an extra)
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415

    return process, Levenshtein.normalized_distance


def _speller() -> Any:
    engine = hibari()
    if engine is None:
        raise UsageError(f"pronunciations are not installed; {install_hint('say')}")
    return engine
