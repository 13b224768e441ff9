"""How well words of one's own are heard, and whether what was told of them came.

    python benchmarks/own_words.py DATA OUT.json [--draws 5] [--typed] [--bank FILE] [--sounds-like WORD=TEXT]

DATA holds wake_words/ (a manifest.csv with file and label) and the folders of speech of `scripts/make_bank.py`. For
each word and draw, some recordings are drawn, a model is made of them, of synthetic voices or of both, and the word's
other recordings are heard, as they are and in noise at 10 dB. False alarms are counted in the speech of speakers that
neither trunk nor bank holds. With `--typed` all models are made of voices alone, and with `--sounds-like`, repeated, of
those words only, as the voices read these spellings. Draws that OUT.json holds already, of the same trunk, are not made
again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiny_kws.audio import AudioError, Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.held_out import noise_source, part_of
from tiny_kws.enrolment.bank import ENGLISH, Bank, Trunk, read_bank
from tiny_kws.enrolment.enroll import THOROUGH_TAKES, learn
from tiny_kws.enrolment.head import Head
from tiny_kws.enrolment.learn import Heard, hear, hear_clips, hear_variants, n_bins_for, voices_weight
from tiny_kws.enrolment.near import near_phrases
from tiny_kws.enrolment.predict import SETTLING_S, false_peaks, word_score
from tiny_kws.enrolment.say import Say, speakers, spoken
from tiny_kws.enrolment.takes import find_takes, read_takes
from tiny_kws.enrolment.thorough import ThoroughTeacher
from tiny_kws.enrolment.vary import Surroundings, as_it_is, in_noise
from tiny_kws.files import write_json
from tiny_kws.json_form import to_json

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from make_bank import SOURCES, grouped, sound_of

RATES = (10.0, 2.0, 0.5)
WAYS = (
    (10, False, False),
    (3, False, False),
    (0, True, False),
    (3, True, False),
    (10, True, False),
    (0, True, True),
    (10, True, True),
)
"""How many recordings, whether synthetic voices say the word too, and whether the model is thorough."""
THOROUGH_DRAWS = 1
"""Of a thorough model, at most: each takes minutes."""
SNR_DB = 10.0
WANTED = 0.5


@dataclass
class Speech:
    """Vectors of the speakers that were kept apart, by kind."""

    vectors: dict[str, list[np.ndarray]]
    hop: int

    def hours(self, kind: str) -> float:
        skipped = round(SETTLING_S * SAMPLE_RATE / self.hop)
        return sum(len(v) - skipped for v in self.vectors[kind]) * self.hop / SAMPLE_RATE / 3600

    def peaks(self, head: Any, kind: str) -> np.ndarray:
        return np.concatenate([false_peaks(head, v, self.hop)[0] for v in self.vectors[kind]])


def speech_apart(trunk: Trunk, data: Path) -> Speech:
    """What SOURCES hold of speakers that did not go in."""
    jobs = [(group.kind, group.files) for s in SOURCES for group in grouped(s, data, held_out=True)]
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        for (kind, _), vectors in zip(jobs, pool.map(lambda job: trunk.vectors(sound_of(job[1])), jobs), strict=True):
            found[kind].append(vectors)
    return Speech(dict(found), trunk.hop)


def noises_apart(folder: Path) -> list[Samples]:
    """Noises that went into neither trunk nor bank."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    return [read_mono(folder / name)[: 60 * SAMPLE_RATE] for name in names if part_of(noise_source(name)) == 0]


def word_recordings(folder: Path) -> dict[str, list[Path]]:
    """By word, those in which a single take is found."""
    found: dict[str, list[Path]] = defaultdict(list)
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = folder / row["file"]
            try:
                takes = find_takes(read_mono(path), path.name)
            except AudioError:
                continue
            if len(takes) == 1:
                found[row["label"]].append(path)
    return dict(found)


def heard_in(trunk: Trunk, paths: list[Path], noises: list[Samples]) -> tuple[list[Heard], list[Heard]]:
    """Recordings as they are and in noise."""
    rng = np.random.default_rng(11)
    takes = [find_takes(read_mono(path), path.name)[0] for path in paths]
    plain = hear_variants(trunk, [(i, as_it_is(take)) for i, take in enumerate(takes)])
    drawn = [noises[int(rng.integers(len(noises)))] for _ in takes]
    noisy = [(i, in_noise(take, noise, SNR_DB, rng)) for i, (take, noise) in enumerate(zip(takes, drawn, strict=True))]
    return plain, hear_variants(trunk, noisy)


def one_draw(
    word: str,
    paths: list[Path],
    way: tuple[int, bool, bool],
    draw: int,
    bank: Bank,
    speech: Speech,
    heard: tuple[list[Heard], ...],
    spellings: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Make a model of some recordings, of voices or of both, and try it on the other recordings."""
    count, say, thorough = way
    chosen = np.random.default_rng(1000 + draw).permutation(len(paths))[:count]
    began = time.perf_counter()
    files, told = [paths[i] for i in chosen], None
    if thorough:
        head, n_spoken = thorough_head(word, files, bank, draw, spellings)
    else:
        made = learn(word, files, bank, WANTED, Say(spellings) if say else None, seed=draw)
        head, n_spoken, told = made.own_word.head, made.report.spoken, made.report.chosen
    seconds = time.perf_counter() - began
    others = [i for i in range(len(paths)) if i not in set(chosen.tolist())]
    clean, noisy = (np.array([word_score(head.score(h[i].vectors), h[i].end, bank.hop) for i in others]) for h in heard)
    peaks = {kind: np.sort(speech.peaks(head, kind))[::-1] for kind in speech.vectors}
    english = np.sort(np.concatenate([peaks[kind] for kind in ENGLISH]))[::-1]
    hours = sum(map(speech.hours, ENGLISH))
    at = {rate: float(english[int(rate * hours)]) for rate in RATES}
    found = {
        "word": word,
        "recordings": count,
        "spoken": n_spoken,
        **({"thorough": True} if thorough else {}),
        **({"sounds_like": spellings} if spellings else {}),
        "draw": draw,
        "seconds": round(seconds, 2),
        "missed": {f"{rate:g}": round(float((clean < logit).mean()), 4) for rate, logit in at.items()},
        "missed_in_noise": {f"{rate:g}": round(float((noisy < logit).mean()), 4) for rate, logit in at.items()},
        "came": {"takes": len(others)},
    }
    if told is None:
        return found
    alarms = {
        kind: {"count": int((its >= 0).sum()), "hours": round(speech.hours(kind), 3)} for kind, its in peaks.items()
    }
    found["came"] |= {"missed": int((clean < 0).sum()), "missed_in_noise": int((noisy < 0).sum()), "alarms": alarms}
    return found | {"told": to_json(told)}


def thorough_head(
    word: str, paths: list[Path], bank: Bank, seed: int, spellings: tuple[str, ...] = ()
) -> tuple[Head, int]:
    """The head of `enroll --say --thorough` without the five that tell what to expect, which take most of the time."""
    rng, trunk = np.random.default_rng(seed), Trunk(bank)
    recorded = read_takes(paths).takes if paths else []
    say = Say(spellings, takes=round(THOROUGH_TAKES * voices_weight(len(recorded))))
    near = near_phrases(word, say, rng)
    voiced, _ = spoken(word, say, rng)
    around = Surroundings(bank.noises, bank.speech)
    heard = hear(trunk, recorded, voiced, around, rng, thorough=True)
    takes = [*recorded, *voiced]
    heard_near = hear_clips(trunk, near, len(takes), around, rng)
    teacher = ThoroughTeacher(bank, heard, n_bins_for(takes, bank.hop / SAMPLE_RATE), rng, near=heard_near)
    return teacher.learn(), len(voiced)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--typed", action="store_true")
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--sounds-like", action="append", default=[], metavar="WORD=TEXT")
    asked = parser.parse_args()
    spelt: dict[str, tuple[str, ...]] = {}
    for word, _, text in (named.partition("=") for named in asked.sounds_like):
        spelt[word] = (*spelt.get(word, ()), text)
    ways = [way for way in WAYS if not (asked.typed and way[0])]
    bank = read_bank(asked.bank)
    trunk = Trunk(bank)
    speech = speech_apart(trunk, asked.data)
    noises = noises_apart(asked.data / "noise")
    results = known(asked.out, bank)
    done = {(one["word"], *way_of(one), one["draw"]) for one in results}
    recordings = word_recordings(asked.data / "wake_words")
    for word, paths in sorted(item for item in recordings.items() if not spelt or item[0] in spelt):
        heard = heard_in(trunk, paths, noises)
        for way, draw in itertools.product(ways, range(asked.draws)):
            if (word, *way, draw) not in done and draw < (THOROUGH_DRAWS if way[2] else asked.draws):
                found = one_draw(word, paths, way, draw, bank, speech, heard, spelt.get(word, ()))
                results.append(found)
                print(word, *way, draw, found["missed"], found["missed_in_noise"], f"{found['seconds']} s", flush=True)
                save(asked.out, bank, speech, results)


def way_of(draw: dict[str, Any]) -> tuple[int, bool, bool]:
    return draw["recordings"], bool(draw["spoken"]), bool(draw.get("thorough"))


def known(out: Path, bank: Bank) -> list[dict[str, Any]]:
    """The draws of an earlier run on this trunk."""
    if not out.exists():
        return []
    before = json.loads(out.read_text(encoding="utf-8"))
    return list(before["draws"]) if before["trunk_sha256"] == bank.trunk_sha256 else []


def save(out: Path, bank: Bank, speech: Speech, draws: list[dict[str, Any]]) -> None:
    order = {way: i for i, way in enumerate(WAYS)}
    draws = sorted(draws, key=lambda one: (one["word"], order[way_of(one)], one["draw"]))
    facts = {
        "trunk_sha256": bank.trunk_sha256,
        "bank_hours": bank.hours(),
        "hours": {kind: round(speech.hours(kind), 2) for kind in speech.vectors},
        "voices": [voice.name for voice in speakers(Say())],
    }
    write_json(out, {**facts, "draws": draws})


if __name__ == "__main__":
    main()
