"""How many words are missed in sound of lower rates, as of telephones.

    python benchmarks/narrow_band.py SPEECH_COMMANDS WAKE_WORDS OUT.json

Each model listens to validation clips of the ten words, or to recordings of words enrolled from ten others, with half a
second of faint noise before and behind: at 16 kHz, and brought to lower rates and back.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soxr

from tiny_kws import Detector, enroll
from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.material import list_clips
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.evaluation.clips import wilson_interval
from tiny_kws.files import write_json

sys.path.insert(0, str(Path(__file__).parent))
from own_words import word_recordings

RATES = (16000, 11025, 8000)
MODELS = ("listener", "base", "commands")
CLIPS_PER_WORD = 60
RECORDINGS = 10


def through(audio: Samples, rate: int) -> Samples:
    """As it comes from a recording at `rate`, between pauses."""
    if rate != SAMPLE_RATE:
        audio = soxr.resample(soxr.resample(audio, SAMPLE_RATE, rate), rate, SAMPLE_RATE)
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    track = np.concatenate([pause, audio, pause])
    return (track + np.random.default_rng(0).normal(0, 1e-4, len(track))).astype(np.float32)


def clips(folder: Path) -> list[tuple[str, Path]]:
    """Validation clips of the ten words, drawn."""
    listed = list_clips(folder, "validation")
    found = []
    for word in KEYWORDS:
        of_word = [clip.path for clip in listed if clip.text == word]
        found += [(word, of_word[i]) for i in drawn(len(of_word))[:CLIPS_PER_WORD]]
    return found


def drawn(count: int) -> list[int]:
    """Numbers below `count` in an order that is always the same."""
    return np.random.default_rng(0).permutation(count).tolist()  # type: ignore[no-any-return]


def missed(detector: Detector, said: Iterable[tuple[str, Path]], rate: int) -> dict[str, object]:
    """Of recordings of words, how many bring no event of their word."""
    counts: Counter[bool] = Counter()
    for word, path in said:
        heard = {event.label for event in detector.detect(through(read_mono(path), rate))}
        counts[word not in heard] += 1
    total = counts.total()
    return {"missed": counts[True], "recordings": total, "interval": wilson_interval(counts[True], total)}


def by_rate(model: str | Path, said: list[tuple[str, Path]], report: Callable[[object], None]) -> dict[str, object]:
    detector = Detector(model)
    found = {str(rate): missed(detector, said, rate) for rate in RATES}
    report(found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech_commands", type=Path)
    parser.add_argument("wake_words", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    said = clips(asked.speech_commands)
    results = {model: by_rate(model, said, lambda found, m=model: print(m, found, flush=True)) for model in MODELS}
    with TemporaryDirectory() as folder:
        for word, paths in sorted(word_recordings(asked.wake_words).items()):
            order = drawn(len(paths))
            model = Path(folder) / f"{word}.onnx"
            enroll(word, [paths[i] for i in order[:RECORDINGS]], model)
            rest = [(word, paths[i]) for i in order[RECORDINGS:]]
            results[word] = by_rate(model, rest, lambda found, w=word: print(w, found, flush=True))
    write_json(asked.out, {"clips_per_word": CLIPS_PER_WORD, "recordings": RECORDINGS, "missed": results})


if __name__ == "__main__":
    main()
