"""Let synthetic voices say the words of aligned speech, and others: a folder of clips to train on.

    python scripts/speak_words.py OUT FOLDER:PARTS... [--times 4]        # needs pip install '.[say]', and flite
    python scripts/speak_words.py OUT FOLDER:PARTS... --times 1 --also yes,no --also-times 100

FOLDERs hold an alignments.jsonl; PARTS are digits, thirds of their speakers. Each word that they say is said so many
times, by voices, paces and pitches drawn, and each word of `--also` so many more times. `--voice-command` names a
program that speaks, as for `enroll`, `--licence` that of what such programs say, and `--without` a voice that is to say
nothing; programs and voices can be several. Writes FLAC files and a manifest.csv, for `scripts/align_speech.py --clips`
(the trunk, see runs/trunk.sh) and `tiny-kws data prepare`, which uses no recordings without a licence.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf

from tiny_kws.config import SAMPLE_RATE
from tiny_kws.enrolment.say import Say, speakers
from tiny_kws.enrolment.voices import Voice
from tiny_kws.training.running_speech import read_words

QUIET = np.zeros(SAMPLE_RATE // 5, np.float32)


@cache
def speaking(commands: tuple[str, ...], without: tuple[str, ...]) -> list[Voice]:
    """The voices that are installed, those of programs, and none of `without`."""
    return [voice for voice in speakers(Say(commands=commands)) if voice.name not in without]


@dataclass(frozen=True)
class Job:
    """A word to say, which has a number, by which voices, and the numbers of its clips."""

    out: Path
    word: str
    number: int
    numbers: range
    commands: tuple[str, ...]
    without: tuple[str, ...]
    licence: str


def say(job: Job) -> list[dict[str, str]]:
    """The clips of one word; the rows of the manifest."""
    voices, known = speaking(job.commands, job.without), [voice.name for voice in speaking((), ())]
    rng = np.random.default_rng((0, job.number))
    rows = []
    for i in job.numbers:
        voice = voices[int(rng.integers(len(voices)))]
        sound = voice.say(job.word, rng)
        name = f"{job.word[0]}/{job.word}-{i}.flac"
        (job.out / name).parent.mkdir(parents=True, exist_ok=True)
        louder = min(1, 0.5 / (np.abs(sound).max() + 1e-6))
        sf.write(job.out / name, np.concatenate((QUIET, sound * louder, QUIET)), SAMPLE_RATE)
        licence = "CC0 1.0" if voice.name in known else job.licence
        facts = {"speaker": voice.name, "licence": licence, "attribution": ""}
        rows.append({"file": name, "label": job.word, "word": job.word, **facts})
    return rows


def main() -> None:
    """Speak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--also", default="", help="Further words, separated by commas.")
    parser.add_argument("--also-times", type=int, default=100)
    parser.add_argument("--fewest", type=int, default=2, help="Words said less often in FOLDERs are left out.")
    parser.add_argument("--voice-command", action="append", default=[], help="A program that speaks.")
    parser.add_argument("--licence", default="", help="Of what these programs say.")
    parser.add_argument("--without", action="append", default=[], help="A voice that is to say nothing.")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    for named in asked.folders:
        folder, _, parts = named.rpartition(":")
        counts.update(read_words(Path(folder), tuple(map(int, parts))))
    words = sorted(word for word, count in counts.items() if count >= asked.fewest and word.isalpha())
    wanted = [(word, range(asked.times)) for word in words]
    also = range(asked.times, asked.times + asked.also_times)
    wanted += [(word, also) for word in filter(None, asked.also.split(","))]
    by = (tuple(asked.voice_command), tuple(asked.without))
    jobs = [Job(asked.out, word, number, numbers, *by, asked.licence) for number, (word, numbers) in enumerate(wanted)]
    with ProcessPoolExecutor() as pool:
        rows = [row for found in pool.map(say, jobs, chunksize=32) for row in found]
    with (asked.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    said = len({row["word"] for row in rows})
    print(f"{asked.out}: {len(rows)} clips of {said} words by {len(speaking(*by))} voices")


if __name__ == "__main__":
    main()
