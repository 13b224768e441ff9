"""What is to be expected of a word before it is used: misses and false alarms, each on what the head was not made from.

The takes and the bank's speakers are divided over the same parts. The head of each part is trained without them: it is
asked about its takes, and every score of the bank's speech comes from the one head that did not know the speaker. Of
speakers whom the trunk was trained on nothing is told: it tells their words apart better than a stranger's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..config import SAMPLE_RATE
from ..evaluation.clips import wilson_interval
from ..evaluation.rates import poisson_interval
from .bank import ENGLISH, Bank
from .head import Head, Rows
from .learn import LAG, SETTLED, Heard, Teacher

PARTS = 5
"""Into which takes and bank are divided, at most; at least two."""
REFRACTORY_S = 0.7
"""Between two false alarms, at least."""
SETTLING_S = 1.0
"""The start of each speaker's sound, where nothing is counted: windows there reach back to another speaker."""
EARLY_S, LATE_S = 0.5, 0.5
"""How long before a word's end, and after it, an event is it."""
SUREST = 200
RATES = (0.1, 0.5, 2.0)
"""False alarms an hour at which a model's misses are told, beside those that were asked for."""


@dataclass(frozen=True)
class Misses:
    """Of so many takes, with a 95 % interval (Wilson)."""

    missed: int
    takes: int
    interval: tuple[float, float]

    @property
    def rate(self) -> float:
        """The share that was missed."""
        return self.missed / self.takes


@dataclass(frozen=True)
class Alarms:
    """False alarms in so many hours, with the 95 % interval of their rate an hour (Poisson)."""

    count: int
    hours: float
    interval: tuple[float, float]

    @property
    def rate(self) -> float:
        """False alarms an hour."""
        return self.count / self.hours


@dataclass(frozen=True)
class Expected:
    """What is to be expected at a threshold: misses as recorded and in noise at 10 dB, false alarms by who speaks."""

    threshold: float
    misses: Misses | None
    misses_in_noise: Misses | None
    alarms: Mapping[str, Alarms]

    @property
    def alarms_per_hour(self) -> float:
        """The mean of the rates of those who speak English in the bank."""
        rates = [self.alarms[kind].rate for kind in ENGLISH if kind in self.alarms]
        return sum(rates) / len(rates)


@dataclass(frozen=True)
class Evidence:
    """Logits from heads that did not know them: of every take, of every take in noise, of the bank's peaks by kind.

    `clean` (takes,), `noisy` (takes, draws), `peaks` sorted from the highest; `hours` are those of the peaks.
    """

    clean: npt.NDArray[np.float64]
    noisy: npt.NDArray[np.float64]
    peaks: Mapping[str, npt.NDArray[np.floating]]
    hours: Mapping[str, float]
    surest: tuple[int, ...] = ()
    """Rows of the bank's English in which the word seems to be said, the surest first."""
    clips: tuple[float, ...] = ()
    """The highest logits in clips that must not be taken for the word."""


def gather(
    bank: Bank,
    teacher: Teacher,
    plain: Sequence[Heard],
    noisy: Sequence[Heard],
    speakers: Sequence[str],
    clips: Sequence[Heard] = (),
) -> Evidence:
    """Train a head for each part and ask it about what it did not know.

    `plain` holds each take as it was recorded, `noisy` takes in noise, `speakers` who said each: those with one name
    are left out together. With a single speaker there is none to leave out, and only the bank is divided. Clips that
    must not be taken for the word, as they were recorded, are divided too.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(speakers))}
    parts = n_parts(speakers, len(clips))
    part_of = np.array([numbers[name] % parts for name in speakers]) if len(numbers) > 1 else np.full(len(plain), -1)
    clean, fired = np.full(len(plain), np.nan), np.full(len(clips), np.nan)
    in_noise: list[list[float]] = [[] for _ in plain]
    peaks: dict[str, list[Rows]] = {kind: [] for kind in bank.kinds}
    at: list[tuple[float, int]] = []
    hours = dict.fromkeys(bank.kinds, 0.0)
    for part in range(parts):
        left_out = set(np.flatnonzero(part_of == part).tolist())
        stretches = bank.part(part, parts)
        clips_out = range(part, len(clips), parts)
        head = teacher.without([*sorted(left_out), *(clips[i].take for i in clips_out)], stretches)
        for one in (one for one in plain if one.take in left_out):
            clean[one.take] = word_score(head.score(one.vectors), one.end, bank.hop)
        for one in (one for one in noisy if one.take in left_out):
            in_noise[one.take].append(word_score(head.score(one.vectors), one.end, bank.hop))
        for i in clips_out:
            fired[i] = clip_score(head.score(clips[i].vectors))
        for stretch in stretches:
            scores, rows, counted = false_peaks(head, bank.vectors[stretch.start : stretch.stop], bank.hop)
            if stretch.kind in ENGLISH:
                at += zip(scores.tolist(), (stretch.start + rows).tolist(), strict=True)
            if stretch.is_strange:
                peaks[stretch.kind].append(scores)
                hours[stretch.kind] += counted
    return Evidence(
        clean,
        np.array([row for row in in_noise if row]),
        {kind: np.sort(np.concatenate(found))[::-1] for kind, found in peaks.items() if found},
        hours,
        tuple(row for _, row in sorted(at, reverse=True)[:SUREST]),
        tuple(fired.tolist()),
    )


def n_parts(speakers: Sequence[str], n_clips: int) -> int:
    """Into how many parts `gather` divides what it is given."""
    return int(np.clip(max(len(set(speakers)), n_clips), 2, PARTS))


def word_score(scores: Rows, end: float, hop: int) -> float:
    """The highest logit about the end of a word; scores by hops, `end` in hops."""
    first = max(0, int(end - EARLY_S * SAMPLE_RATE / hop))
    last = int(end + (LAG[1] + LATE_S) * SAMPLE_RATE / hop) + 1
    return float(scores[first:last].max(initial=-np.inf))


def clip_score(scores: Rows) -> float:
    """The highest logit in a clip, once the trunk's past is the clip's."""
    return float(scores[SETTLED:].max(initial=-np.inf))


def false_peaks(head: Head, vectors: Rows, hop: int) -> tuple[Rows, npt.NDArray[np.intp], float]:
    """The logits at which speech without the word may be taken for it, their rows, and the hours that they are of."""
    settling = _hops(SETTLING_S, hop)
    scores = head.score(vectors)[settling:]
    rows = peaks_of(scores, _hops(REFRACTORY_S, hop))
    return scores[rows], settling + rows, len(scores) * hop / SAMPLE_RATE / 3600


def peaks_of(scores: Rows, apart: int) -> npt.NDArray[np.intp]:
    """Where there are scores (n,) that none within `apart` hops is above.

    >>> peaks_of(np.array([0, 3, 1, 2, 0, 5], np.float32), 2)
    array([1, 5])
    """
    if not len(scores):
        return np.zeros(0, np.intp)
    padded = np.pad(scores, apart, constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * apart + 1).max(1)
    return np.flatnonzero(scores == around)


def logit_for(evidence: Evidence, alarms_per_hour: float) -> float:
    """The lowest logit at which the bank's English speech brings no more false alarms per hour than asked for.

    That is the mean of the rates of those who speak English in it, so that none counts for more because there is more.
    """
    kinds = [kind for kind in ENGLISH if evidence.hours.get(kind)]
    candidates = np.sort(np.concatenate([evidence.peaks[kind] for kind in kinds]))
    below = {kind: np.searchsorted(evidence.peaks[kind][::-1], candidates) for kind in kinds}
    rates = [(len(evidence.peaks[kind]) - below[kind]) / evidence.hours[kind] for kind in kinds]
    over = np.flatnonzero(np.mean(rates, axis=0) > alarms_per_hour)
    return float(candidates[over[-1]]) + 1e-6 if len(over) else float(candidates[0])


def expected(evidence: Evidence, logit: float, chosen: float = 0.0) -> Expected:
    """What is to be expected where an event takes this logit; the model's bias is such that `chosen` becomes 0."""
    noisy = (evidence.noisy < logit).mean(1) if len(evidence.noisy) else np.zeros(0)
    return Expected(
        round(float(1 / (1 + np.exp(chosen - logit))), 6),
        misses_of(evidence.clean, logit),
        _misses(round(float(noisy.sum())), len(noisy)),
        {
            kind: _alarms(int((found >= logit).sum()), evidence.hours[kind])
            for kind, found in evidence.peaks.items()
            if evidence.hours[kind]
        },
    )


def misses_of(logits: npt.NDArray[np.float64], logit: float) -> Misses | None:
    """Of takes that heads without them were asked about."""
    known = logits[np.isfinite(logits)]
    return _misses(int((known < logit).sum()), len(known))


def _misses(missed: int, takes: int) -> Misses | None:
    return Misses(missed, takes, wilson_interval(missed, takes)) if takes else None


def alarms_at(evidence: Evidence, logit: float, kinds: Sequence[str]) -> Alarms:
    """False alarms in the speech of some kinds together, where an event takes this logit."""
    known = [kind for kind in kinds if evidence.hours.get(kind)]
    count = sum(int((evidence.peaks[kind] >= logit).sum()) for kind in known)
    return _alarms(count, sum(evidence.hours[kind] for kind in known))


def _alarms(count: int, hours: float) -> Alarms:
    low, high = poisson_interval(count)
    return Alarms(count, hours, (low / hours, high / hours))


def _hops(seconds: float, hop: int) -> int:
    return round(seconds * SAMPLE_RATE / hop)
