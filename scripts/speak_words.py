"""Let synthetic voices say the words of aligned speech, and others: a folder of clips to train on.

    python scripts/speak_words.py OUT FOLDER:PARTS... [--times 4]        # needs pip install '.[say]', and flite
    python scripts/speak_words.py OUT FOLDER:PARTS... --times 1 --also yes,no --also-times 100

FOLDERs hold an alignments.jsonl; PARTS are digits, thirds of their speakers. Each word that they say is said so many
times, by voices, paces and pitches drawn, and each word of `--also` so many more times. Writes FLAC files and a
manifest.csv, for `scripts/align_speech.py --clips` (the trunk, see runs/trunk.sh) and `tiny-kws data prepare`.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf

from tiny_kws.config import SAMPLE_RATE
from tiny_kws.enrolment.voices import Voice, voices
from tiny_kws.training.running_speech import read_words

QUIET = np.zeros(SAMPLE_RATE // 5, np.float32)


@cache
def speakers() -> list[Voice]:
    """The voices that are installed."""
    return voices()


def say(job: tuple[Path, str, int, range]) -> list[dict[str, str]]:
    """The clips of one word, which has a number, with their own numbers; the rows of the manifest."""
    out, word, number, numbers = job
    rng = np.random.default_rng((0, number))
    rows = []
    for i in numbers:
        voice = speakers()[int(rng.integers(len(speakers())))]
        sound = voice.say(word, rng)
        name = f"{word[0]}/{word}-{i}.flac"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(
            out / name, np.concatenate((QUIET, sound * min(1, 0.5 / (np.abs(sound).max() + 1e-6)), QUIET)), SAMPLE_RATE
        )
        facts = {"speaker": voice.name, "licence": "CC0 1.0", "attribution": ""}
        rows.append({"file": name, "label": word, "word": word, **facts})
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
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    for named in asked.folders:
        folder, _, parts = named.rpartition(":")
        counts.update(read_words(Path(folder), tuple(map(int, parts))))
    words = sorted(word for word, count in counts.items() if count >= asked.fewest and word.isalpha())
    jobs = [(asked.out, word, i, range(asked.times)) for i, word in enumerate(words)]
    also = range(asked.times, asked.times + asked.also_times)
    jobs += [(asked.out, word, len(words) + i, also) for i, word in enumerate(filter(None, asked.also.split(",")))]
    with ProcessPoolExecutor() as pool:
        rows = [row for found in pool.map(say, jobs, chunksize=32) for row in found]
    with (asked.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    said = len({row["word"] for row in rows})
    print(f"{asked.out}: {len(rows)} clips of {said} words by {len(speakers())} voices")


if __name__ == "__main__":
    main()
