"""*alexa* as other projects publish it, and as it is enrolled here: `beside_others.py DATA [--out FILE]`.

    pip install pymicro-wakeword pyopen-wakeword

Their models and ours hear the same recordings, as they are and in noise at 10 dB, and the same hours of English by
speakers that ours never heard; what theirs heard in training is not known here. Each threshold is the lowest at which
the speech brings no more false alarms per hour than wanted. Ours are made of ten recordings, which are then left out
for all, or of none. *alexa* is one of the words that choices for enrolment were made on. Models that FILE holds already
are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.prepared import to_pcm
from tiny_kws.enrolment.bank import ENGLISH, Bank, Trunk, bank_of_size, read_bank
from tiny_kws.enrolment.enroll import learn
from tiny_kws.enrolment.head import Head
from tiny_kws.enrolment.predict import REFRACTORY_S, SETTLING_S, peaks_of, word_score
from tiny_kws.enrolment.say import Say
from tiny_kws.enrolment.takes import find_takes
from tiny_kws.enrolment.vary import Variant, as_it_is, under_noise
from tiny_kws.evaluation.clips import rounded, wilson_interval
from tiny_kws.files import write_json

sys.path.insert(0, str(Path(__file__).parent))
from own_words import SNR_DB, SOURCES, grouped, noises_apart, sound_of, thorough_head, word_recordings

WORD = "alexa"
SMALL = "micro"
"""The size of the network that is about as large as microWakeWord's."""
RATES = (10.0, 2.0, 0.5, 0.2)
RECORDINGS = 10
BEFORE_S, BEHIND = 4.0, SAMPLE_RATE // 2
"""Of silence before a recording, in seconds, and behind it, in samples: models need time to begin and to answer."""
RESULTS = Path(__file__).parent / "results" / "beside_others.json"
Scores = npt.NDArray[np.float32]


@cache
def micro_wake_word() -> tuple[Callable[[bytes], Scores], float]:
    """Scores of microWakeWord's model of 16 kHz PCM, and the seconds from one to the next."""
    from pymicro_wakeword import MicroWakeWord, MicroWakeWordFeatures, Model  # noqa: PLC0415

    model = MicroWakeWord.from_builtin(Model.ALEXA)

    def scores(pcm: bytes) -> Scores:
        model.reset()
        features = MicroWakeWordFeatures()
        found = [model.process_streaming_prob(one) for one in features.process_streaming(pcm)]
        return np.array(found[model.stride - 1 :: model.stride], np.float32)

    return scores, 0.01 * model.stride


@cache
def open_wake_word() -> tuple[Callable[[bytes], Scores], float]:
    """Scores of openWakeWord's model of 16 kHz PCM, and the seconds from one to the next."""
    from pyopen_wakeword import Model, OpenWakeWord, OpenWakeWordFeatures  # noqa: PLC0415

    model, features = OpenWakeWord.from_builtin(Model.ALEXA), OpenWakeWordFeatures.from_builtin()
    chunk = 2 * 1280

    def scores(pcm: bytes) -> Scores:
        model.reset()
        features.reset()
        found = []
        for start in range(0, len(pcm) - chunk + 1, chunk):
            given = [model.process_streaming(one) for one in features.process_streaming(pcm[start : start + chunk])]
            found.append(max((p for some in given for p in some), default=0.0))
        return np.array(found, np.float32)

    return scores, 0.08


THEIRS = {"microWakeWord": micro_wake_word, "openWakeWord": open_wake_word}


def peaks(scores: Scores, step_s: float) -> Scores:
    """The scores at which speech may be taken for the word, no two of them nearer than a model would say it twice."""
    apart = round(REFRACTORY_S / step_s)
    rows: list[int] = []
    for row in peaks_of(scores, apart):
        if not rows or row - rows[-1] > apart:  # of a plateau the first alone
            rows.append(int(row))
    return scores[rows]


def led_in(one: Variant) -> Variant:
    """With silence, and so with noise if it is added, for some seconds before: models adapt to what they hear."""
    silence = round(BEFORE_S * SAMPLE_RATE)
    audio = np.concatenate([np.zeros(silence, np.float32), one.audio, np.zeros(BEHIND, np.float32)])
    return Variant(audio, one.start + silence, one.stop + silence)


def in_noise(one: Variant, noise: Samples, rng: np.random.Generator) -> Variant:
    """A recording with noise under all of it."""
    return Variant(under_noise(one, noise, SNR_DB, rng), one.start, one.stop)


def heard_by(name: str, sounds: list[Samples]) -> list[float]:
    """The highest score that a model of others gives each recording."""
    scores, _ = THEIRS[name]()
    return [float(scores(to_pcm(one).tobytes()).max()) for one in sounds]


def alarms_by(name: str, files: list[Path]) -> tuple[Scores, float]:
    """The peaks of a model of others in recordings one after another, and their hours."""
    scores, step_s = THEIRS[name]()
    found = scores(to_pcm(sound_of(files)).tobytes())[round(SETTLING_S / step_s) :]
    return peaks(found, step_s), len(found) * step_s / 3600


def figures(clean: np.ndarray, noisy: np.ndarray, alarms: np.ndarray, hours: float) -> dict[str, Any]:
    """What is missed at each rate of false alarms."""
    alarms = np.sort(alarms)[::-1]
    over = {rate: float(alarms[int(rate * hours)]) for rate in RATES}  # of these there would be one too many
    return {
        key: {f"{rate:g}": share_of(int((scores <= last).sum()), len(scores)) for rate, last in over.items()}
        for key, scores in (("as_recorded", clean), ("in_noise", noisy))
    }


def share_of(missed: int, of: int) -> dict[str, Any]:
    """So many missed, their share, and its 95 % interval."""
    interval = [rounded(end) for end in wilson_interval(missed, of)]
    return {"missed": missed, "share": rounded(missed / of), "interval": interval}


def main() -> None:
    """Measure all, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    paths = word_recordings(asked.data / "wake_words")[WORD]
    order = np.random.default_rng(1000).permutation(len(paths))
    given, others = ([paths[i] for i in some] for some in (order[:RECORDINGS], order[RECORDINGS:]))
    takes = [find_takes(read_mono(path), path.name)[0] for path in others]
    rng, noises = np.random.default_rng(11), noises_apart(asked.data / "noise")
    clean = [led_in(as_it_is(take)) for take in takes]
    noisy = [in_noise(one, noises[int(rng.integers(len(noises)))], rng) for one in clean]
    groups = [g.files for s in SOURCES for g in grouped(s, asked.data, held_out=True) if g.kind in ENGLISH]
    result: dict[str, Any] = {"word": WORD, "recordings": len(others), "hours": 0.0, "models": {}}
    if asked.out.exists():
        result = json.loads(asked.out.read_text(encoding="utf-8"))
    for name in [*ways_of_ours(given), *THEIRS]:
        if name not in result["models"]:
            measure = measure_theirs if name in THEIRS else measure_ours
            result["models"][name], result["hours"] = measure(name, given, (clean, noisy), groups)
            write_json(asked.out, result)
            print(name, json.dumps(result["models"][name]), flush=True)


Measured = tuple[dict[str, Any], float]


def measure_theirs(
    name: str, _: list[Path], tried: tuple[list[Variant], ...], groups: list[tuple[Path, ...]]
) -> Measured:
    """Figures of a model of others, and the hours of speech."""
    with ProcessPoolExecutor() as pool:
        scores = [
            np.array(found) for found in pool.map(heard_by, [name] * 2, [[v.audio for v in some] for some in tried])
        ]
        alarms, hours = zip(*pool.map(alarms_by, [name] * len(groups), groups), strict=True)
    return figures(*scores, np.concatenate(alarms), sum(hours)), round(sum(hours), 2)


def measure_ours(
    name: str, given: list[Path], tried: tuple[list[Variant], ...], groups: list[tuple[Path, ...]]
) -> Measured:
    """The same of a model made here."""
    bank, trunk = loaded(SMALL if SMALL in name else "base")
    head, step_s = ways_of_ours(given)[name](), bank.hop / SAMPLE_RATE
    scores = [
        np.array([word_score(head.score(trunk.vectors(v.audio)), v.stop / bank.hop, bank.hop) for v in some])
        for some in tried
    ]
    skipped = round(SETTLING_S / step_s)
    found = [head.score(trunk.vectors(sound_of(files)))[skipped:] for files in groups]
    hours = sum(map(len, found)) * step_s / 3600
    return figures(*scores, np.concatenate([peaks(one, step_s) for one in found]), hours), round(hours, 2)


def ways_of_ours(given: list[Path]) -> dict[str, Callable[[], Head]]:
    """How the models are made that are compared with those of others."""
    bank, _ = loaded("base")
    small, _ = loaded(SMALL)
    return {
        "ten recordings": lambda: learn(WORD, given, bank, 0.5).own_word.head,
        "ten recordings and voices": lambda: learn(WORD, given, bank, 0.5, Say()).own_word.head,
        "ten recordings and voices, thorough": lambda: thorough_head(WORD, given, bank, 0)[0],
        "voices": lambda: learn(WORD, [], bank, 0.5, Say()).own_word.head,
        "voices, thorough": lambda: thorough_head(WORD, [], bank, 0)[0],
        f"ten recordings, {SMALL}": lambda: learn(WORD, given, small, 0.5).own_word.head,
        f"ten recordings and voices, thorough, {SMALL}": lambda: thorough_head(WORD, given, small, 0)[0],
        f"voices, thorough, {SMALL}": lambda: thorough_head(WORD, [], small, 0)[0],
    }


@cache
def loaded(size: str) -> tuple[Bank, Trunk]:
    """The bundled bank whose trunk has that size, and the trunk."""
    bank = read_bank(bank_of_size(size))
    return bank, Trunk(bank)


if __name__ == "__main__":
    main()
