"""Let synthetic voices say the words of aligned speech: a folder of clips to train the trunk on, see runs/trunk.sh.

    python scripts/speak_words.py OUT FOLDER:PARTS... [--times 4]        # needs pip install '.[say]', and flite

FOLDERs hold an alignments.jsonl; PARTS are digits, thirds of their speakers. Each word that they say is said so many
times, by voices, paces and pitches drawn. Writes FLAC files and a manifest.csv for `scripts/align_speech.py --clips`.
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


def say(job: tuple[Path, str, int, int]) -> list[dict[str, str]]:
    """The clips of one word, which has a number; the rows of the manifest."""
    out, word, number, times = job
    rng = np.random.default_rng((0, number))
    rows = []
    for i in range(times):
        voice = speakers()[int(rng.integers(len(speakers())))]
        sound = voice.say(word, rng)
        name = f"{word[0]}/{word}-{i}.flac"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(
            out / name, np.concatenate((QUIET, sound * min(1, 0.5 / (np.abs(sound).max() + 1e-6)), QUIET)), SAMPLE_RATE
        )
        rows.append({"file": name, "label": word, "speaker": voice.name, "licence": "CC0 1.0", "attribution": ""})
    return rows


def main() -> None:
    """Speak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--fewest", type=int, default=2, help="Words said less often in FOLDERs are left out.")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    for named in asked.folders:
        folder, _, parts = named.rpartition(":")
        counts.update(read_words(Path(folder), tuple(map(int, parts))))
    words = sorted(word for word, count in counts.items() if count >= asked.fewest and word.isalpha())
    jobs = [(asked.out, word, i, asked.times) for i, word in enumerate(words)]
    with ProcessPoolExecutor() as pool:
        rows = [row for found in pool.map(say, jobs, chunksize=32) for row in found]
    with (asked.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{asked.out}: {len(rows)} clips of {len(words)} words by {len(speakers())} voices")


if __name__ == "__main__":
    main()
