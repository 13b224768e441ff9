"""Whether `enroll` tells recordings of one word from those of several: `one_word.py WORDS WAKE_WORDS [--out FILE]`.

WORDS and WAKE_WORDS hold a folder of recordings for each word. Sets are drawn of three to ten recordings of one word by
different people, and of six recordings of six words; told is which are refused. A set takes some twenty seconds.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from tiny_kws import UsageError
from tiny_kws.enrolment.bank import Bank, read_bank
from tiny_kws.enrolment.enroll import learn
from tiny_kws.files import write_json

OF_ONE, OF_SEVERAL = 60, 30
COUNTS = (3, 10)
SEVERAL = 6
RESULTS = Path(__file__).parent / "results" / "one_word.json"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", type=Path)
    parser.add_argument("wake_words", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    folders = [below for parent in (arguments.words, arguments.wake_words) for below in sorted(parent.iterdir())]
    words = [sorted(folder.iterdir()) for folder in folders if folder.is_dir() and not folder.name.startswith("_")]
    rng = np.random.default_rng(0)
    sets = [*(one_word(words, rng) for _ in range(OF_ONE)), *(several_words(words, rng) for _ in range(OF_SEVERAL))]
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        found = list(pool.map(heard, sets))
    write_json(arguments.out, {"of_one_word": summed(found[:OF_ONE]), "of_several": summed(found[OF_ONE:])})
    print(arguments.out.read_text(encoding="utf-8"))


def one_word(words: Sequence[Sequence[Path]], rng: np.random.Generator) -> list[Path]:
    """Recordings of a word by different people, whom their names tell apart."""
    files = words[int(rng.integers(len(words)))]
    by_speaker = {files[i].name.partition("_nohash")[0]: files[i] for i in rng.permutation(len(files))}
    return list(by_speaker.values())[: int(rng.integers(COUNTS[0], COUNTS[1] + 1))]


def several_words(words: Sequence[Sequence[Path]], rng: np.random.Generator) -> list[Path]:
    """One recording each of several words."""
    chosen = (words[i] for i in rng.permutation(len(words))[:SEVERAL])
    return [files[int(rng.integers(len(files)))] for files in chosen]


def heard(files: Sequence[Path]) -> dict[str, Any]:
    """What becomes of a set; `reason` is empty if a model was made of it."""
    row = {"first": "/".join(files[0].parts[-2:]), "recordings": len(files)}
    try:
        report = learn("the word", files, bank(), 0.5).report
    except UsageError as error:
        return {**row, "reason": str(error)}
    return {**row, "takes": report.takes, "misfits": len(report.misfits), "reason": ""}


@cache
def bank() -> Bank:
    """The package's, read once in a process."""
    return read_bank()


def summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many sets are refused, and all of them."""
    return {"sets": len(rows), "refused": sum(bool(row["reason"]) for row in rows), "each": list(rows)}


if __name__ == "__main__":
    main()
