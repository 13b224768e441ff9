"""Commands by computer voices: `computer_voices.py [--models NAME...] [--out FILE]`; needs espeak-ng.

Ten voices of espeak-ng, of which no network has heard a word in training, say the ten commands and ten other words. A
clip model hears each in a window of its own, as loud as a recording. Counted are commands that it takes for something
else, and other words that it takes for a command.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tiny_kws import Classifier
from tiny_kws.audio import Samples, read_mono
from tiny_kws.data.spans import find_word
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.evaluation.clips import rounded, wilson_interval
from tiny_kws.files import write_json
from tiny_kws.words import is_word

VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-us+f2", "en-gb+f3", "en-us+m3", "en-gb+m5",
          "en-us+f4")  # fmt: skip
OTHERS = ("bed", "bird", "cat", "happy", "house", "marvin", "seven", "tree", "wow", "zero")
PEAK = 0.3
RESULTS = Path(__file__).parent / "results" / "computer_voices.json"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ds-cnn", "base", "small", "micro"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    said = {word: [spoken(voice, word) for voice in VOICES] for word in (*KEYWORDS, *OTHERS)}
    result: dict[str, Any] = {"voices": list(VOICES), "others": list(OTHERS), "models": {}}
    for name in asked.models:
        classifier = Classifier(name)
        heard = {
            word: [classifier.classify(in_window(sound, classifier.window)).label for sound in sounds]
            for word, sounds in said.items()
        }
        wrong = {word: sum(label != word for label in heard[word]) for word in KEYWORDS}
        taken = sum(is_word(label) for word in OTHERS for label in heard[word])
        n = len(VOICES)
        result["models"][Path(name).name] = {
            "commands": {"wrong": sum(wrong.values()), "of": n * len(KEYWORDS),
                         "interval": interval(sum(wrong.values()), n * len(KEYWORDS)), "by_word": wrong},
            "others": {"wrong": taken, "of": n * len(OTHERS), "interval": interval(taken, n * len(OTHERS))},
        }  # fmt: skip
    write_json(asked.out, result)
    print(asked.out.read_text(encoding="utf-8"))


def spoken(voice: str, word: str) -> Samples:
    """A word by a voice of espeak-ng, cut to where it lies, (samples,) at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), word], check=True, capture_output=True)  # noqa: S603, S607
        audio = read_mono(path)
    span = find_word(audio)
    assert span is not None, f"{voice}: no word is found in {word!r}"
    return audio[slice(*span)] * np.float32(PEAK / np.abs(audio).max())


def in_window(sound: Samples, window: int) -> Samples:
    """A word in the middle of a window, in faint noise."""
    clip = np.random.default_rng(0).normal(0, 3e-4, window).astype(np.float32)
    sound = sound[:window]
    start = (window - len(sound)) // 2
    clip[start : start + len(sound)] += sound
    return clip


def interval(count: int, of: int) -> list[float]:
    """95 % interval of a share."""
    return [rounded(end) for end in wilson_interval(count, of)]


if __name__ == "__main__":
    main()
