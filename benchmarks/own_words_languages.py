"""What typed words of other languages do in speech of their own language: `own_words_languages.py DATA [--out FILE]`.

Ten words of each language are said by its synthetic voice and made into models. Their thresholds come from the English
speech of the bank, as always. False alarms are counted in sentences in the word's own language, in other languages and
in English, by speakers that neither trunk nor bank holds (DATA/speech_world, 59 languages, some minutes of each). There
are no recordings of people saying these words, so misses are not measured.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tiny_kws.enrolment.bank import LANGUAGES, Trunk, read_bank
from tiny_kws.enrolment.enroll import learn
from tiny_kws.enrolment.predict import false_peaks
from tiny_kws.enrolment.say import Say
from tiny_kws.evaluation.clips import rounded
from tiny_kws.evaluation.rates import poisson_interval
from tiny_kws.files import write_json

from own_words import SOURCES, grouped, sound_of  # isort: skip  (own_words finds the scripts' folder)

RATES = (10.0, 2.0)
WORDS = {
    "de": "computer lampe küche fernseher musik rolladen heizung erinnerung kalender licht an",
    "es": "ordenador lámpara cocina televisor música persiana calefacción recordatorio calendario enciende la luz",
    "fr": "ordinateur lampe cuisine télévision musique volets chauffage rappel calendrier allume la lumière",
    "it": "computer lampada cucina televisore musica tapparella riscaldamento promemoria calendario accendi la luce",
}
"""Ten of each: nine words, and then a phrase."""
RESULTS = Path(__file__).parent / "results" / "own_words_languages.json"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    bank = read_bank()
    trunk = Trunk(bank)
    (world,) = (source for source in SOURCES if source.kind == LANGUAGES)
    speech: dict[str, list[np.ndarray]] = {}
    for group in grouped(world, asked.data, held_out=True):
        language = group.files[0].name.split("_")[2]  # common_voice_de_17298952.flac
        speech.setdefault(language, []).append(trunk.vectors(sound_of(group.files)))
    alarms: Counter[tuple[str, str, float]] = Counter()
    hours: Counter[tuple[str, str]] = Counter()
    for language, line in WORDS.items():
        for word in words_of(line):
            learnt = learn(word, [], bank, max(RATES), Say(language=language))
            points = {rate: logit_at(learnt.report, rate) for rate in RATES}
            for spoken, vectors in speech.items():
                where = "own" if spoken == language else "English" if spoken == "en" else "others"
                for one in vectors:
                    peaks, _, heard = false_peaks(learnt.own_word.head, one, bank.hop)
                    hours[language, where] += heard
                    alarms.update({(language, where, rate): int((peaks >= at).sum()) for rate, at in points.items()})
            print(language, word, {rate: alarms[language, "own", rate] for rate in RATES}, flush=True)
    result = {
        language: {
            "words": words_of(line),
            **{
                where: {
                    "hours": rounded(hours[language, where] / len(words_of(line))),
                    **{f"{rate:g}": told(alarms[language, where, rate], hours[language, where]) for rate in RATES},
                }
                for where in ("own", "others", "English")
            },
        }
        for language, line in WORDS.items()
    }
    write_json(asked.out, result)


def words_of(line: str) -> list[str]:
    """Nine words and the phrase behind them."""
    words = line.split()
    return [*words[:9], " ".join(words[9:])]


def logit_at(report: Any, rate: float) -> float:
    """Where a threshold for so many false alarms per hour lies, against the one that was asked for."""
    point = min(report.expected, key=lambda one: abs(one.alarms_per_hour - rate))
    return float(np.log(point.threshold / (1 - point.threshold)))


def told(count: int, hours: float) -> dict[str, Any]:
    """Alarms, their rate per hour and word, and its interval."""
    low, high = poisson_interval(count)
    return {
        "alarms": count,
        "per_hour": rounded(count / hours),
        "interval": [rounded(low / hours), rounded(high / hours)],
    }


if __name__ == "__main__":
    main()
