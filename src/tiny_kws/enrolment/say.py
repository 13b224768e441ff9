"""Takes of a word by synthetic voices, where there are no recordings of it or few."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np

from ..audio import Samples
from ..config import SAMPLE_RATE
from ..errors import AudioError, UsageError
from .takes import Take, find_takes
from .voices import Voice, of_command, voices

TAKES = 140
"""The number of takes, of all voices together."""
QUIET = np.zeros(round(0.3 * SAMPLE_RATE), np.float32)
"""Before and behind what a voice says."""
PEAK = 0.5
LONGEST_S = 3.0
"""The longest take, in seconds."""


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
        """What is said. Raises UsageError for what the voices cannot read."""
        texts = self.sounds_like or (word,)
        for text in texts:
            check_readable(text)
        return texts


def speakers(say: Say) -> list[Voice]:
    """The voices that are to speak. Raises UsageError if there are none."""
    own = [of_command(command) for command in say.commands]
    try:
        return [*voices(say.language), *own]
    except UsageError:
        if own:
            return own
        raise


def spoken(word: str, say: Say, rng: np.random.Generator) -> tuple[list[Take], dict[str, str]]:
    """`word` said by every voice in turn, and what was not used, with the reason. A take is named after its voice.

    Raises UsageError for what the voices cannot read or none of them says.
    """
    texts = say.texts(word)
    found: list[Take] = []
    failed: dict[str, str] = {}
    speaking = speakers(say)
    for i in range(say.takes):
        voice = speaking[i % len(speaking)]
        if voice.name in failed:
            continue
        try:
            found.append(_take(voice.name, voice.say(texts[i // len(speaking) % len(texts)], rng)))
        except AudioError as error:
            failed[voice.name] = str(error)
    if not found:
        raise UsageError(f"no voice says {texts[0]!r}: {next(iter(failed.values()))}")
    return found, failed


def check_readable(text: str) -> None:
    """Raise UsageError for a text that is empty or in a script that no voice reads."""
    letters = [sign for sign in text if sign.isalnum()]
    if not letters:
        raise UsageError(f"found {text!r} to say, expected words")
    foreign = next((sign for sign in letters if not _is_latin(sign)), None)
    if foreign:
        raise UsageError(
            f"found {foreign!r} in {text!r}, which the voices cannot read, expected Latin letters; write how the word "
            "sounds with --sounds-like"
        )


def _is_latin(sign: str) -> bool:
    return sign.isdigit() or unicodedata.name(sign, "").startswith("LATIN ")


def _take(name: str, sound: Samples) -> Take:
    loudest = float(np.abs(sound).max(initial=0.0))
    if loudest < 1e-3:
        raise AudioError(f"{name}: says nothing of it")
    audio = np.concatenate((QUIET, sound * np.float32(PEAK / loudest), QUIET))
    parts = find_takes(audio, name)
    if not parts:
        raise AudioError(f"{name}: says nothing that is like a word")
    start, stop = parts[0].start, parts[-1].stop
    if stop - start > LONGEST_S * SAMPLE_RATE:
        raise AudioError(f"{name}: takes {(stop - start) / SAMPLE_RATE:.1f} s, expected {LONGEST_S:g} s at most")
    return Take(name, audio, start, stop)
