"""From takes of a word, varied, and the bank: the word's head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..config import SAMPLE_RATE
from .bank import Bank, Trunk
from .head import Head, Rows, fit, windows
from .takes import Take
from .vary import Surroundings, Variant, as_it_is, varied

VARIANTS = 240
"""Of all takes together, at least; a take has no fewer than `LEAST_VARIANTS`."""
LEAST_VARIANTS = 20
LAG = (0.08, 0.24)
"""Seconds after its end in which a word is to be heard."""
BEFORE, BEHIND = 0.4, 0.6
"""Seconds before the end of a word up to which, and behind it from which on, its recording teaches what is no word."""
SETTLED = 13
"""Vectors after which the trunk's past is that of the recording."""
DECAY = 30.0
POSITIVE_WEIGHT = 0.05
"""Of all windows with the word together, against all without."""
DRAWN, HARD = 15_000, 15_000
"""Windows of the bank that a head is trained on: drawn, and, each round, those nearest to the word."""
ROUNDS = 3
BINS = (8, 18)
"""Vectors that a head looks at, at least and at most."""
MARGIN_S = 0.3
"""That it looks back beyond the length of the word."""


@dataclass(frozen=True)
class Heard:
    """A variant of a take as the trunk hears it: vectors (n, size), and the vector in which the word ends, a number."""

    take: int
    vectors: Rows
    end: float


def n_bins_for(takes: Sequence[Take], hop_s: float) -> int:
    """How many vectors a head for such takes looks at."""
    longest = float(np.percentile([take.seconds for take in takes], 80))
    return int(np.clip(round((longest + MARGIN_S) / hop_s), *BINS))


def hear(trunk: Trunk, takes: Sequence[Take], around: Surroundings, rng: np.random.Generator) -> list[Heard]:
    """Every take as it is and as it might be said another time."""
    each = max(LEAST_VARIANTS, -(-VARIANTS // len(takes)))
    jobs = [(i, as_it_is(take)) for i, take in enumerate(takes)]
    jobs += [(i, varied(take, around, rng)) for i, take in enumerate(takes) for _ in range(each - 1)]
    return hear_variants(trunk, jobs)


def hear_variants(trunk: Trunk, jobs: Iterable[tuple[int, Variant]]) -> list[Heard]:
    """Variants, each with the number of its take, as the trunk hears them."""

    def one(job: tuple[int, Variant]) -> Heard:
        return Heard(job[0], trunk.vectors(job[1].audio), job[1].stop / trunk.hop)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, jobs))


class Teacher:
    """Trains heads for one word against a bank. Examples are drawn once, hard windows found once."""

    def __init__(self, bank: Bank, n_bins: int, rng: np.random.Generator) -> None:
        self.bank, self.n_bins = bank, n_bins
        self.hop_s = bank.hop / SAMPLE_RATE
        self._part_of = np.full(len(bank.vectors), -1, np.int8)
        self._drawn = rng.integers(n_bins, len(bank.vectors), DRAWN)
        self._hard = np.zeros(0, np.intp)

    def divide(self, parts: int) -> None:
        """Divide the bank's speakers over `parts`."""
        for part in range(parts):
            for stretch in self.bank.part(part, parts):
                self._part_of[stretch.start : stretch.stop] = part

    def final(self, heard: Sequence[Heard]) -> Head:
        """The head of all examples and the whole bank; remembers which windows were hard to tell from the word."""
        head = self._fit(heard, self._drawn)
        for _ in range(ROUNDS - 1):
            scores = head.score(self.bank.vectors)
            hardest = np.argpartition(-scores, HARD)[:HARD]
            self._hard = np.union1d(self._hard, hardest)
            head = self._fit(heard, np.concatenate([self._drawn, self._hard]), head)
        return head

    def without(self, part: int, heard: Sequence[Heard]) -> Head:
        """The head of examples and the bank without one part of its speakers."""
        rows = np.concatenate([self._drawn, self._hard])
        return self._fit(heard, rows[self._part_of[rows] != part])

    def _fit(self, heard: Sequence[Heard], rows: np.ndarray, start: Head | None = None) -> Head:
        word = np.concatenate([windows(one.vectors, self._word_at(one), self.n_bins) for one in heard])
        no_word = [windows(one.vectors, self._no_word_at(one), self.n_bins) for one in heard]
        rows = rows[rows >= self.n_bins - 1]
        everything = np.concatenate([word, *no_word, windows(self.bank.vectors, rows, self.n_bins)])
        targets = np.zeros(len(everything), np.float32)
        targets[: len(word)] = 1.0
        weights = np.ones(len(everything), np.float32)
        weights[: len(word)] = POSITIVE_WEIGHT * (len(everything) - len(word)) / len(word)
        begin = None if start is None else np.append(start.weights.ravel(), start.bias)
        found = fit(everything, targets, weights, DECAY, begin)
        return Head(found[:-1].reshape(self.n_bins, -1), float(found[-1]))

    def _word_at(self, one: Heard) -> np.ndarray:
        ends = np.arange(1, len(one.vectors) + 1)
        low, high = (one.end + lag / self.hop_s for lag in LAG)
        return np.flatnonzero((ends >= low) & (ends <= high))

    def _no_word_at(self, one: Heard) -> np.ndarray:
        ends = np.arange(1, len(one.vectors) + 1)
        far = (ends < one.end - BEFORE / self.hop_s) | (ends > one.end + BEHIND / self.hop_s)
        return np.flatnonzero(far & (ends > SETTLED))
