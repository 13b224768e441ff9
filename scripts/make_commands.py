"""Put the ten commands on the trunk of own words: `make_commands.py DATA OUT.stream.onnx` (see runs/trunk.sh).

DATA holds Speech Commands. Of each command CLIPS training clips are taken, each of another speaker as far as there are.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tiny_kws.data.material import Sound, list_clips
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.enrolment.bank import read_bank
from tiny_kws.enrolment.enroll import learn
from tiny_kws.enrolment.ship import write_model

CLIPS = 150
ALARMS_PER_HOUR = 0.2
"""Of each command: two of all."""
SOURCE = {
    "recordings": CLIPS * len(KEYWORDS),
    "name": "Google Speech Commands v0.02",
    "licence": "CC BY 4.0",
    "attribution": "P. Warden 2018 (arXiv:1804.03209)",
}


def some_clips(clips: list[Sound], word: str) -> list[Path]:
    """Of a word, one of each speaker first, and then the others."""
    of_word = [clip for clip in clips if clip.text == word]
    firsts = {clip.group: clip for clip in reversed(of_word)}
    rest = [clip for clip in of_word if firsts[clip.group] is not clip]
    ordered = [*firsts.values(), *rest]
    return [clip.path for clip in ordered[:CLIPS]]


def main() -> None:
    """Make the artefact, and say what to expect of each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bank", type=Path)
    asked = parser.parse_args()
    bank, words = read_bank(asked.bank), []
    clips = list_clips(asked.data, "training")
    for word in KEYWORDS:
        made = learn(word, some_clips(clips, word), bank, ALARMS_PER_HOUR)
        words.append(replace(made.own_word, facts={**made.own_word.facts, "source": SOURCE}))
        misses = made.report.chosen.misses
        print(f"{word}: missed {misses.missed if misses else '?'} of {made.report.takes}", flush=True)
    write_model(asked.out, bank, words)


if __name__ == "__main__":
    main()
