"""What sounds nearly like a word and is not it, said by synthetic voices: a model must not take it for the word."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ..errors import UsageError
from .say import Say, speakers, spoken
from .sounds import bare, lexicon, nearest, sounds_of
from .takes import Take

NEAREST = 16
"""How many phrases are said."""
LEAST_SOUNDS = 5
"""Of a word in a phrase that is exchanged: what is near a shorter one is often the same to the ear."""
LOOKED_AT = 80
"""Words of the lexicon that are considered for each word; many are the word with an ending."""


def near_phrases(word: str, say: Say, rng: np.random.Generator, silent: Collection[str] = ()) -> list[Take]:
    """Takes of phrases near `word` as it is spelt for the voices, each said once by every voice but the `silent` ones.

    In languages but English only parts of it. A phrase that no voice says is left out.
    """
    n_voices = len(speakers(say))
    spelt = say.texts(word)
    texts = [text for one in spelt for text in parts_of(one)]
    if say.language == "en":
        with suppress(UsageError):  # the lexicon comes with the extra `say`; a voice of one's own does not
            texts = [text for one in spelt for text in near_texts(one, NEAREST // len(spelt) or 1)]
    found: list[Take] = []
    for text in dict.fromkeys(text for text in texts if text not in spelt):
        with suppress(UsageError):
            found += spoken(text, replace(say, sounds_like=(), takes=n_voices), rng, silent)[0]
    return found


def parts_of(word: str) -> list[str]:
    """The words of a phrase; none of a single word.

    >>> parts_of("hey computer"), parts_of("computer")
    (['hey', 'computer'], [])
    """
    words = word.split()
    return words if len(words) > 1 else []


def near_texts(word: str, count: int = NEAREST) -> list[str]:
    """English phrases that sound like `word` without containing it: its parts, and `count` with a word near one."""
    words = word.split()
    sounds = [bare(sounds_of(one)) for one in words]
    exchanged = [i for i in range(len(words)) if len(words) == 1 or len(sounds[i]) >= LEAST_SOUNDS]
    texts = parts_of(word)
    for i in exchanged:
        near = _near_words(sounds[i], -(-count // len(exchanged)))
        texts += [" ".join((*words[:i], other, *words[i + 1 :])) for other in near]
    return texts


def _near_words(sounds: str, count: int) -> list[str]:
    """Words of the lexicon that sound most like bare `sounds`, but for those that contain them, as a plural does."""
    known = lexicon()
    return [text for text, _ in nearest(sounds, known, LOOKED_AT) if sounds not in known[text]][:count]
