"""Takes of a word by synthetic voices, where there are no recordings of it or few."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..audio import Samples
from ..config import SAMPLE_RATE
from ..errors import AudioError, UsageError
from .takes import Take, said_span
from .voices import LANGUAGES, Voice, of_command, voices

TAKES = 140
"""The number of takes, of all voices together."""
QUIET = np.zeros(round(0.3 * SAMPLE_RATE), np.float32)
"""Before and behind what a voice says."""
PEAK = 0.5
LONGEST_S = 3.0
"""The longest take, in seconds."""
LONGEST_TEXT = 80
"""In characters: what is longer no voice says in that time."""


@dataclass(frozen=True)
class Say:
    """That a word is to be said by synthetic voices.

    `sounds_like` are spellings to say in its place, by turns; `language` is that of the voices, `commands` programs
    that speak (`voices.of_command`), beside those voices that are installed.
    """

    sounds_like: tuple[str, ...] = ()
    language: str = "en"
    commands: tuple[str, ...] = ()
    takes: int = TAKES

    def texts(self, word: str) -> tuple[str, ...]:
        """What is said. Raises UsageError for what no voice can read: programs may read any script."""
        texts = self.sounds_like or (word,)
        for text in texts:
            check_words(text)
            if not self.commands:
                check_readable(text)
        return texts


def speakers(say: Say, texts: Sequence[str] = ()) -> list[Voice]:
    """The voices that are to say texts: programs alone what is not in Latin letters. Raises UsageError for none."""
    own = _own_voices(say.commands)
    if own and not all(map(is_readable, texts)):
        return own
    try:
        return [*voices(say.language), *own]
    except UsageError:
        if own and say.language in LANGUAGES:
            return own
        raise


def _own_voices(commands: Sequence[str]) -> list[Voice]:
    """A voice for each command; where several run one program, they are numbered."""
    found: list[Voice] = []
    names: Counter[str] = Counter()
    for voice in map(of_command, dict.fromkeys(commands)):
        names[voice.name] += 1
        found.append(replace(voice, name=f"{voice.name} {names[voice.name]}") if names[voice.name] > 1 else voice)
    return found


def spoken(
    word: str, say: Say, rng: np.random.Generator, silent: Collection[str] = ()
) -> tuple[list[Take], dict[str, str]]:
    """`word` said by every voice in turn, and what was not used, with the reason. A take is named after its voice.

    Voices in `silent` are not asked. Raises UsageError for what the voices cannot read or none of them says.
    """
    texts = say.texts(word)
    found: list[Take] = []
    failed: dict[str, str] = {}
    speaking = speakers(say, texts)
    for i in range(say.takes):
        voice = speaking[i % len(speaking)]
        if voice.name in silent or voice.name in failed:
            continue
        try:
            found.append(_take(voice.name, voice.say(texts[i // len(speaking) % len(texts)], rng)))
        except AudioError as error:
            failed[voice.name] = str(error)
    if not found:
        raise UsageError(f"no voice says {texts[0]!r}: {next(iter(failed.values()), 'none was asked')}")
    return found, failed


def check_words(text: str) -> None:
    """Raise UsageError for a text without words, or longer than any voice says in time."""
    if not any(sign.isalnum() for sign in text):
        raise UsageError(f"found {text!r} to say, expected words")
    if len(text) > LONGEST_TEXT:
        raise UsageError(f"found a text of {len(text)} characters to say, expected {LONGEST_TEXT} at most; shorten it")


def check_readable(text: str) -> None:
    """Raise UsageError for a text in a script that the packages' voices do not read."""
    foreign = next((sign for sign in text if not _is_readable(sign)), None)
    if foreign:
        raise UsageError(
            f"found {foreign!r} in {text!r}, which the voices cannot read, expected Latin letters and digits; write in "
            "these how it sounds (`enroll`: with --sounds-like), or name a program that reads it (`enroll`: with "
            "--voice-command)"
        )


def is_readable(text: str) -> bool:
    """Whether the packages' voices can read all letters and digits of a text."""
    return all(map(_is_readable, text))


def _is_readable(sign: str) -> bool:
    if not sign.isalnum():
        return True
    return sign in string.digits or unicodedata.name(sign, "").startswith("LATIN ")


def _take(name: str, sound: Samples) -> Take:
    loudest = float(np.abs(sound).max(initial=0.0))
    if loudest < 1e-3:
        raise AudioError(f"{name}: says nothing of it")
    audio = np.concatenate((QUIET, sound * np.float32(PEAK / loudest), QUIET))
    span = said_span(audio)
    if span is None:
        raise AudioError(f"{name}: says nothing that is like a word")
    start, stop = span
    if stop - start > LONGEST_S * SAMPLE_RATE:
        raise AudioError(f"{name}: takes {(stop - start) / SAMPLE_RATE:.1f} s, expected {LONGEST_S:g} s at most")
    return Take(name, audio, start, stop)
