"""Speak phrases of words that sound like the keywords, for training: `near_speech.py DATA/near_speech`.

Words cut out and set end to end are not how people speak: sounds run into one another, and most words between two
others are short and weak. Running speech under a licence that published weights may have is scarce, so the voices of
flite say phrases of words near the keywords (`near_words.py`), of other words, and of the small words that stand
between them; no keyword, nor what sounds like one, is among them. DATA is the folder beside `speech_commands_v0.02`.

Needs what `near_words.py` needs. Takes a minute or two.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import soundfile
from near_words import (
    ATTRIBUTION,
    LICENCE,
    PEAK,
    VOICES,
    WORD_LIST,
    dictionary,
    flite,
    listed,
    near_words,
    said_like_a_keyword,
    speak_all,
)

from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.material import holds_word
from tiny_kws.data.speech_commands import KEYWORDS

BETWEEN = """
    a after all an and are as at be been but by can for from had has have he her him his how i if in into is it its just
    me more my not of one only or other our over own she so some than that the their them then there they this to
    under us was we were what when where who will with you your
"""
SMALL_WORDS = BETWEEN.split()
PHRASES = 1600
WORDS = (4, 9)
"""In a phrase, at least and at most."""
SHARES = {"small": 0.4, "near": 0.35, "other": 1 - 0.4 - 0.35}
"""Of the words; the near ones are as often near one keyword as another."""
PAUSE_SHARE = 0.12
"""Of the words that a comma follows."""


def main() -> None:
    """Write the recordings, a folder for each voice, and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--words", type=Path, default=WORD_LIST)
    given = parser.parse_args()
    rows = speak_all(given.out, speak, enumerate(phrases(listed(given.words), PHRASES)))
    print(f"{given.out}: {len(rows)} phrases, {sum(float(row['seconds']) for row in rows) / 60:.0f} minutes")


def phrases(words: list[str], count: int) -> list[str]:
    """`count` phrases of listed words, the same for the same list; none holds a keyword or sounds like one."""
    rng = random.Random(0)
    others = [word for word in words if word in dictionary() and not said_like_a_keyword(word)]
    nearest = near_words(words)
    near = [[word for word, (keyword, _) in nearest.items() if keyword == wanted] for wanted in KEYWORDS]
    near = [alike for alike in near if alike]
    draw = {
        "small": lambda: rng.choice(SMALL_WORDS),
        "near": lambda: rng.choice(rng.choice(near)),
        "other": lambda: rng.choice(others),
    }
    found: list[str] = []
    while len(found) < count:
        kinds = rng.choices(list(SHARES), list(SHARES.values()), k=rng.randint(*WORDS))
        drawn = [draw[kind]() for kind in kinds]
        phrase = " ".join(word + "," * (rng.random() < PAUSE_SHARE) for word in drawn)
        if not holds_word(phrase, KEYWORDS):
            found.append(phrase)
    return found


def speak(out: Path, number: int, phrase: str) -> dict[str, str]:
    """Write a phrase, and return its line of the manifest."""
    voice = VOICES[number % len(VOICES)]
    audio = flite(phrase, voice, key=str(number))
    path = out / voice / f"{number:04}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (PEAK * audio / np.abs(audio).max()).astype(np.float32), SAMPLE_RATE)
    return {
        "file": path.relative_to(out).as_posix(),
        "seconds": f"{len(audio) / SAMPLE_RATE:.3f}",
        "label": phrase,
        "speaker": voice,
        "licence": LICENCE,
        "attribution": ATTRIBUTION.format(voice=voice),
    }


if __name__ == "__main__":
    main()
