"""From takes of a word, varied, and the bank: the word's head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..config import SAMPLE_RATE
from .bank import Bank, Stretch, Trunk
from .head import Head, Rows, fit, windows
from .takes import Take
from .vary import Surroundings, Variant, as_it_is, varied

VARIANTS = 400
"""Of all takes together, at least; a take has MOST_VARIANTS at most."""
MOST_VARIANTS = 100
THOROUGH_VARIANTS, MOST_THOROUGH_VARIANTS = 3000, 150
"""The same for a thorough head."""
VOICES_WORTH = 4
"""Recordings for which takes by synthetic voices stand, together."""
LAG = (0.08, 0.24)
"""Seconds after its end in which a word is to be heard."""
REALIGNED_WITHIN = (0.6, 0.4)
"""Seconds before and behind what seemed its end, in which the end of a word is looked for."""
BEFORE, BEHIND = 0.4, 0.6
"""Seconds before the end of a word up to which, and behind it from which on, its recording teaches what is no word."""
SETTLED = 13
"""Vectors after which the trunk's past is that of the recording."""
DECAY = 100.0
POSITIVE_WEIGHT = 0.03
"""Of all windows with the word together, against all without."""
DRAWN, HARD = 10_000, 10_000
"""Windows of the bank that a head is trained on: drawn, and, each round, those nearest to the word."""
ROUNDS = 3
CLIP_VARIANTS = 200
"""Of all clips together that must not be taken for the word, at least; a clip has MOST_VARIANTS at most."""
CLIP_WEIGHT = 0.03
"""Of the windows of clips together, against all without the word: a few seconds among hours would not be minded."""
NEAR_WEIGHT = 1 / 32
"""What windows of phrases near the word count, against those of clips that set it off.

As much as clips, they cost a third more misses (docs/LOG.md): voices alone teach too well what tells the two apart.
"""
BINS = (10, 20)
"""Vectors that a head looks at, at least and at most."""
MARGIN_S = 0.7
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


def voices_weight(n_recorded: int) -> float:
    """What voices count beside recordings: the less, the more of these there are."""
    return min(1.0, VOICES_WORTH / n_recorded) if n_recorded else 1.0


def hear(
    trunk: Trunk,
    recorded: Sequence[Take],
    voiced: Sequence[Take],
    around: Surroundings,
    rng: np.random.Generator,
    *,
    thorough: bool = False,
) -> list[Heard]:
    """Every take as it is, recorded ones and then those of voices, and as it might be said another time."""
    together, most = (THOROUGH_VARIANTS, MOST_THOROUGH_VARIANTS) if thorough else (VARIANTS, MOST_VARIANTS)
    each = [_n_variants(together, recorded, most)] * len(recorded)
    each += [_n_variants(together * voices_weight(len(recorded)), voiced, most)] * len(voiced)
    takes = [*recorded, *voiced]
    jobs = [(i, as_it_is(take)) for i, take in enumerate(takes)]
    jobs += [(i, varied(take, around, rng)) for i, take in enumerate(takes) for _ in range(each[i] - 1)]
    return hear_variants(trunk, jobs)


def hear_clips(
    trunk: Trunk, clips: Sequence[Take], first: int, around: Surroundings, rng: np.random.Generator
) -> list[Heard]:
    """Clips that are not the word, numbered from `first` on: each as it is, and then as it might sound another time."""
    each = _n_variants(CLIP_VARIANTS, clips, MOST_VARIANTS) - 1
    jobs = [(first + i, as_it_is(clip)) for i, clip in enumerate(clips)]
    jobs += [(first + i, varied(clip, around, rng)) for i, clip in enumerate(clips) for _ in range(each)]
    return hear_variants(trunk, jobs)


def _n_variants(together: float, takes: Sequence[Take], most: int) -> int:
    return int(np.clip(math.ceil(together / max(1, len(takes))), 1, most))


def hear_variants(trunk: Trunk, jobs: Iterable[tuple[int, Variant]]) -> list[Heard]:
    """Variants, each with the number of its take, as the trunk hears them."""

    def one(job: tuple[int, Variant]) -> Heard:
        return Heard(job[0], trunk.vectors(job[1].audio), job[1].stop / trunk.hop)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, jobs))


def realigned(heard: Sequence[Heard], head: Head, hop_s: float) -> list[Heard]:
    """The same with the end of each take's word moved to where a first head hears it, as against the other takes.

    A breath or a click behind a word is easily taken for a part of it.
    """
    early, late = (round(seconds / hop_s) for seconds in REALIGNED_WITHIN)
    after: dict[int, list[float]] = {}
    for one in heard:
        first = max(0, int(one.end) - early)
        found = first + int(head.score(one.vectors)[first : int(one.end) + late].argmax())
        after.setdefault(one.take, []).append(found + 1 - one.end)
    offset = {take: float(np.median(values)) for take, values in after.items()}
    usual = float(np.median(list(offset.values())))
    return [replace(one, end=one.end + min(0.0, offset[one.take] - usual + 1.0)) for one in heard]


class Teacher:
    """Trains heads for one word against a bank.

    Examples and windows of the bank are drawn and gathered once. A head that must not know some of them is trained on
    the same rows, with weights of zero for those. `clips` are sounds that must not be taken for the word, and `near`
    phrases near it; their numbers go on from those of the takes.
    """

    def __init__(
        self,
        bank: Bank,
        heard: Sequence[Heard],
        n_bins: int,
        rng: np.random.Generator,
        clips: Sequence[Heard] = (),
        near: Sequence[Heard] = (),
    ) -> None:
        self.bank, self.n_bins, self.hop_s = bank, n_bins, bank.hop / SAMPLE_RATE
        self._heard, self._clips, self._near = list(heard), list(clips), list(near)
        self._bank_rows = np.unique(rng.integers(n_bins - 1, len(bank.vectors), DRAWN))
        self._gather()

    def learn(self) -> Head:
        """The head of all examples and the whole bank; windows that are hard to tell from the word stay gathered."""
        head = self._fit(np.ones(len(self._rows), bool))
        self._heard = realigned(self._heard, head, self.hop_s)
        for _ in range(ROUNDS - 1):
            scores = head.score(self.bank.vectors)
            scores[: self.n_bins - 1] = -np.inf
            hardest = np.argpartition(-scores, min(HARD, len(scores) - 1))[:HARD]
            self._bank_rows = np.union1d(self._bank_rows, hardest)
            self._gather()
            head = self._fit(np.ones(len(self._rows), bool), head)
        return head

    def without(self, takes: Sequence[int], stretches: Sequence[Stretch]) -> Head:
        """The head that knows neither some takes or clips, by number, nor some stretches of the bank."""
        spoken = np.zeros(len(self.bank.vectors), bool)
        for stretch in stretches:
            spoken[stretch.start : stretch.stop] = True
        kept = [~np.isin(self._take_of, list(takes)), ~spoken[self._bank_rows]]
        return self._fit(np.concatenate(kept))

    def _gather(self) -> None:
        word = [windows(one.vectors, self._word_at(one), self.n_bins) for one in self._heard]
        no_word = [windows(one.vectors, self._no_word_at(one), self.n_bins) for one in self._heard]
        clips, near = (
            [windows(one.vectors, np.arange(SETTLED, len(one.vectors)), self.n_bins) for one in group]
            for group in (self._clips, self._near)
        )
        takes = [one.take for one in (*self._heard, *self._heard, *self._clips, *self._near)]
        self._take_of = np.repeat(takes, [len(rows) for rows in (*word, *no_word, *clips, *near)])
        self._n_word, self._n_clips, self._n_near = (sum(map(len, group)) for group in (word, clips, near))
        of_bank = windows(self.bank.vectors, self._bank_rows, self.n_bins)
        self._rows = np.concatenate([*word, *no_word, *clips, *near, of_bank])

    def _fit(self, kept: npt.NDArray[np.bool_], start: Head | None = None) -> Head:
        targets = np.zeros(len(self._rows), np.float32)
        targets[: self._n_word] = 1.0
        weights = kept.astype(np.float32)
        behind = len(self._take_of)
        first_near = behind - self._n_near
        first_clip = first_near - self._n_clips
        of_all = CLIP_WEIGHT * (len(self._rows) - self._n_word - (behind - first_clip))
        weights[first_clip:first_near] *= of_all / max(1, self._n_clips)
        weights[first_near:behind] *= NEAR_WEIGHT * of_all / max(1, self._n_near)
        n_word = float(weights[: self._n_word].sum())
        weights[: self._n_word] *= POSITIVE_WEIGHT * (float(weights.sum()) - n_word) / n_word
        begin = None if start is None else np.append(start.weights.ravel(), start.bias)
        found = fit(self._rows, targets, weights, DECAY, begin)
        return Head(found[:-1].reshape(self.n_bins, -1), float(found[-1]))

    def _word_at(self, one: Heard) -> npt.NDArray[np.intp]:
        ends = np.arange(1, len(one.vectors) + 1)
        low, high = (one.end + lag / self.hop_s for lag in LAG)
        return np.flatnonzero((ends >= low) & (ends <= high))

    def _no_word_at(self, one: Heard) -> npt.NDArray[np.intp]:
        ends = np.arange(1, len(one.vectors) + 1)
        far = (ends < one.end - BEFORE / self.hop_s) | (ends > one.end + BEHIND / self.hop_s)
        return np.flatnonzero(far & (ends > SETTLED))
