"""Misses against false alarms per hour, with intervals; thresholds chosen on some speakers, reported on others."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import DetectorConfig
from ..errors import DataError
from ..listening.decoder import Detection
from ..listening.pause import waiting_ms
from ..words import SILENCE, UNKNOWN
from .clips import rounded, wilson_interval
from .metrics import (
    AudioFacts,
    Confusion,
    Counts,
    ErrorTradeoff,
    FalseAlarms,
    HeldOut,
    InSample,
    LabelCounts,
    OperatingDetails,
    OperatingPoint,
    RatePoint,
    Rule,
    StreamScores,
    TraitCounts,
    WordLatency,
)
from .streams import Point, Posteriors, Score, Stretch, sweep

Array = npt.NDArray[Any]

RATES_PER_HOUR = (0.1, 0.5, 1.0, 2.0, 10.0)
REPORTED_RATE = 1.0
"""The rate of false alarms per hour at which labels, confusions and latency are reported."""

MOST_PER_HOUR = 1000.0
"""The false alarms per hour beyond which the curve ends."""

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class _Ways:
    """How thresholds are chosen: for each way, the recordings to choose on and those to count on.

    `in_sample` says that these are the same.
    """

    pairs: tuple[tuple[Sequence[int], Sequence[int]], ...]
    in_sample: bool


def evaluate_streams(
    heard: Sequence[Posteriors],
    config: DetectorConfig,
    rule: Rule,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> StreamScores:
    """All figures of a model on recordings.

    `det` is the whole curve and `everything` its points at RATES_PER_HOUR, on the very recordings that the thresholds
    come from. `held_out` has each rate's threshold chosen on one half of the speakers and counted on the other, both
    ways, so that every word counts once; `operating_point` looks closer at REPORTED_RATE. Where speakers do not fall
    into two halves, both are in-sample and say so. Raises DataError if there is no recording or no word in them.
    """
    if not any(one.recording.words for one in heard):
        raise DataError("found no keywords in the recordings, expected labelled ones to count misses")
    points = sweep(heard, config, rule, most_per_hour=MOST_PER_HOUR, progress=progress)
    halves = split_speakers(heard, seed)
    whole = list(range(len(heard)))
    all_at_once = _Ways(((whole, whole),), in_sample=True)
    ways = _Ways((halves, halves[::-1]), in_sample=False) if halves else all_at_once
    return StreamScores(
        rule=rule,
        detector=config,
        audio=audio_facts(heard),
        cpu_s_per_s=rounded(sum(one.cpu_s for one in heard) / sum(one.seconds for one in heard)),
        held_out=HeldOut(
            in_sample=ways.in_sample,
            seed=seed,
            halves=tuple(audio_facts([heard[i] for i in half]) for half in halves or ()),
            rates=tuple(_at_rate(points, heard, ways, rate) for rate in RATES_PER_HOUR),
        ),
        operating_point=_operating_point(points, heard, ways, rule, waiting_ms(config.pause_ms) / 1000),
        everything=InSample(True, tuple(_at_rate(points, heard, all_at_once, rate) for rate in RATES_PER_HOUR)),
        det=_error_tradeoff(points, heard),
    )


def audio_facts(heard: Sequence[Posteriors]) -> AudioFacts:
    """What the figures are based on: recordings, hours of speech and of noise, keywords, their speakers."""
    speech_s = sum(one.recording.speech_s for one in heard)
    total_s = sum(one.seconds for one in heard)
    words = [word for one in heard for word in one.recording.words]
    return AudioFacts(
        recordings=len(heard),
        hours=rounded(total_s / 3600),
        speech_hours=rounded(speech_s / 3600),
        noise_hours=rounded(max(0.0, total_s - speech_s) / 3600),
        keywords=len(words),
        speakers=len({word.speaker for word in words} - {""}),
    )


def split_speakers(heard: Sequence[Posteriors], seed: int = 0) -> tuple[list[int], list[int]] | None:
    """Indices of recordings in two halves that share no speaker, or None if that cannot be.

    Recordings linked by a speaker stay together. The groups are dealt out, largest first, each to where keywords and
    hours of speech and of noise then are most even; `seed` orders groups of one size.
    """
    groups = _linked(heard)
    if len(groups) < 2:
        return None
    loads = np.array([np.sum([_load(heard[i]) for i in group], axis=0) for group in groups])
    shares = loads / np.maximum(loads.sum(0), 1e-12)
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(-shares[order].sum(1), kind="stable")]
    halves: tuple[list[int], list[int]] = ([], [])
    balance = np.zeros(shares.shape[1])  # of the first half over the second
    for i in order:
        first = np.abs(balance + shares[i]).sum() <= np.abs(balance - shares[i]).sum()
        balance += shares[i] if first else -shares[i]
        halves[0 if first else 1].extend(groups[i])
    return sorted(halves[0]), sorted(halves[1])


def _load(one: Posteriors) -> tuple[float, float, float]:
    return len(one.recording.words), one.recording.speech_s, one.seconds - one.recording.speech_s


def _linked(heard: Sequence[Posteriors]) -> list[list[int]]:
    """Recordings that share speakers, directly or by way of others."""
    group_of = list(range(len(heard)))

    def root(i: int) -> int:
        while group_of[i] != i:
            i = group_of[i]
        return i

    first_with: dict[str, int] = {}
    for i, one in enumerate(heard):
        for speaker in sorted(one.recording.speakers):
            group_of[root(i)] = root(first_with.setdefault(speaker, i))
    groups: dict[int, list[int]] = {}
    for i in range(len(heard)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def threshold_for(false_alarms: npt.ArrayLike, allowed: float) -> int | None:
    """Index of the lowest threshold from which on upwards there are no more than `allowed` false alarms.

    `false_alarms` (thresholds,) are by rising threshold. None if the highest has more.
    """
    over = np.flatnonzero(np.asarray(false_alarms) > allowed)
    lowest = int(over[-1]) + 1 if len(over) else 0
    return lowest if lowest < len(np.asarray(false_alarms)) else None


def poisson_interval(count: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson variable (Garwood 1936), found by bisection.

    >>> low, high = poisson_interval(0)
    >>> low, round(high, 3)
    (0.0, 3.689)
    """
    tail = (1 - level) / 2
    highest = count + 10 * math.sqrt(count + 1) + 10
    upper = _bisect(lambda mean: _poisson_cdf(count, mean) - tail, highest)
    lower = 0.0 if count == 0 else _bisect(lambda mean: _poisson_cdf(count - 1, mean) - (1 - tail), highest)
    return lower, upper


def _bisect(falling: Callable[[float], float], high: float) -> float:
    """Where a function that falls from above 0 at 0 to below 0 at `high` is 0."""
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _poisson_cdf(count: int, mean: float) -> float:
    if mean == 0:
        return 1.0
    k = np.arange(1, count + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(mean) - np.log(k))]) - mean
    return float(np.exp(logs).sum())


def miss_interval(units: Sequence[tuple[str, int, int]], seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of a miss rate from (speaker, words, misses): bootstrap over speakers, seeded.

    If no word or every word was missed resamples are all alike, so it is Wilson's interval over the words, which takes
    them as independent. None with fewer than two speakers, of whom nothing can be said about others.
    """
    by_speaker: dict[str, Array] = {}
    for speaker, words, misses in units:
        by_speaker[speaker] = by_speaker.get(speaker, np.zeros(2, np.int64)) + np.array([words, misses])
    counts = np.array([row for row in by_speaker.values() if row[0] > 0])
    if len(counts) < 2:
        return None
    words, misses = map(int, counts.sum(0))
    if misses in (0, words):
        return wilson_interval(misses, words)
    rng = np.random.default_rng(seed)
    draws = counts[rng.integers(0, len(counts), (RESAMPLES, len(counts)))].sum(1)
    low, high = np.percentile(draws[:, 1] / draws[:, 0], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def count(scores: Sequence[Score], heard: Sequence[Posteriors]) -> Counts:
    """Misses and false alarms of `scores`, one for each recording of `heard`, as counts, rates and 95 % intervals."""
    units = [unit for result, one in zip(scores, heard, strict=True) for _, unit in _units(result, one)]
    return _counts(units, false_alarms(sum(len(one.false_alarms) for one in scores), _hours(heard)))


def _units(result: Score, one: Posteriors) -> list[tuple[Stretch, tuple[str, int, int]]]:
    """Each word of a recording, and what it is to `miss_interval`."""
    name = str(one.recording.path)
    return [(w, (w.speaker or name, 1, int(hit is None))) for w, hit in zip(result.words, result.hits, strict=True)]


def _counts(units: Sequence[tuple[str, int, int]], alarms: FalseAlarms) -> Counts:
    words, misses = len(units), sum(missed for *_, missed in units)
    interval = miss_interval(units)
    return Counts(
        words=words,
        misses=misses,
        miss_rate=rounded(misses / words) if words else None,
        miss_rate_interval=interval and (rounded(interval[0]), rounded(interval[1])),
        alarms=alarms,
    )


def false_alarms(count: int, hours: float) -> FalseAlarms:
    """The rate of this many false alarms in this many hours, with its interval."""
    if hours <= 0:
        return FalseAlarms(count, None, None)
    low, high = poisson_interval(count)
    return FalseAlarms(count, rounded(count / hours), (rounded(low / hours), rounded(high / hours)))


def _hours(heard: Sequence[Posteriors]) -> float:
    return sum(one.seconds for one in heard) / 3600


def _chosen(points: Sequence[Point], heard: Sequence[Posteriors], ways: _Ways, rate: float) -> list[Point | None]:
    """The point that each way chooses; None if no threshold gives the rate."""
    chosen: list[Point | None] = []
    for choosing, _ in ways.pairs:
        alarms = [sum(len(point.scores[i].false_alarms) for i in choosing) for point in points]
        index = threshold_for(alarms, rate * sum(heard[i].seconds for i in choosing) / 3600)
        chosen.append(None if index is None else points[index])
    return chosen


def _at_rate(points: Sequence[Point], heard: Sequence[Posteriors], ways: _Ways, rate: float) -> RatePoint:
    chosen = _chosen(points, heard, ways, rate)
    hours = min(_hours([heard[i] for i in choosing]) for choosing, _ in ways.pairs)
    pooled = _pooled(heard, ways, chosen)
    return RatePoint(
        rate_per_hour=rate,
        thresholds=tuple(None if point is None else rounded(point.threshold) for point in chosen),
        resolvable=rate * hours >= 1,
        reached=pooled is not None,
        counts=None if pooled is None else count(*pooled),
    )


def _pooled(
    heard: Sequence[Posteriors], ways: _Ways, chosen: Sequence[Point | None]
) -> tuple[list[Score], list[Posteriors]] | None:
    """Every recording's score at the threshold that was chosen for it; None if one way has none."""
    scores, ordered = [], []
    for (_, reported), point in zip(ways.pairs, chosen, strict=True):
        if point is None:
            return None
        scores += [point.scores[i] for i in reported]
        ordered += [heard[i] for i in reported]
    return scores, ordered


def _operating_point(
    points: Sequence[Point], heard: Sequence[Posteriors], ways: _Ways, rule: Rule, waiting_s: float
) -> OperatingPoint:
    """By label, in speech and in noise, confusions and latency at REPORTED_RATE; events wait so long for a pause."""
    chosen = _chosen(points, heard, ways, REPORTED_RATE)
    pooled = _pooled(heard, ways, chosen)
    if pooled is None:
        return OperatingPoint(REPORTED_RATE, reached=False, details=None)
    scores, ordered = pooled
    facts = audio_facts(ordered)
    total = sum(len(one.false_alarms) for one in scores)
    in_speech = sum(
        _is_in_speech(event, one.recording.stretches, rule)
        for result, one in zip(scores, ordered, strict=True)
        for event in result.false_alarms
    )
    details = OperatingDetails(
        in_sample=ways.in_sample,
        thresholds=tuple(rounded(point.threshold) for point in chosen if point is not None),
        counts=count(scores, ordered),
        by_label=_by_label(scores),
        in_speech=false_alarms(in_speech, facts.speech_hours),
        in_noise=false_alarms(total - in_speech, facts.noise_hours),
        confusions=_confusions(scores),
        latency_from_word_end_s=_latency(scores, waiting_s),
        by_trait=_by_trait(scores, ordered, rule) or None,
    )
    return OperatingPoint(REPORTED_RATE, reached=True, details=details)


def _by_label(scores: Sequence[Score]) -> dict[str, LabelCounts]:
    words = Counter(word.label for one in scores for word in one.words)
    missed = Counter(word.label for one in scores for word in one.missed)
    alarms = Counter(event.label for one in scores for event in one.false_alarms)
    return {label: LabelCounts(words[label], missed[label], alarms[label]) for label in sorted(words | alarms)}


def _by_trait(scores: Sequence[Score], heard: Sequence[Posteriors], rule: Rule) -> dict[str, dict[str, TraitCounts]]:
    """Counts by what the manifest says of speakers; a false alarm is of those whose speech could have caused it."""
    units: dict[tuple[str, str], list[tuple[str, int, int]]] = defaultdict(list)
    seconds: Counter[tuple[str, str]] = Counter()
    alarms: Counter[tuple[str, str]] = Counter()
    for result, one in zip(scores, heard, strict=True):
        for word, unit in _units(result, one):
            for trait in word.traits:
                units[trait].append(unit)
        others = [stretch for stretch in one.recording.stretches if stretch.label == UNKNOWN]
        for stretch in others:
            seconds.update(dict.fromkeys(stretch.traits, stretch.end_s - stretch.start_s))
        for event in result.false_alarms:
            causes = [stretch for stretch in others if _could_cause(stretch, event, rule)]
            alarms.update(causes[-1].traits if causes else ())
    found: dict[str, dict[str, TraitCounts]] = defaultdict(dict)
    for name, value in sorted(units.keys() | seconds.keys()):
        hours = seconds[name, value] / 3600
        counts = _counts(units[name, value], false_alarms(alarms[name, value], hours))
        found[name][value] = TraitCounts(rounded(hours), counts)
    return dict(found)


def _confusions(scores: Sequence[Score]) -> tuple[Confusion, ...]:
    found = Counter(pair for one in scores for pair in one.confusions)
    return tuple(Confusion(said, answer, n) for (said, answer), n in found.most_common())


def _is_in_speech(event: Detection, stretches: Sequence[Stretch], rule: Rule) -> bool:
    """Whether speech could have caused an event, by its time."""
    return any(stretch.label != SILENCE and _could_cause(stretch, event, rule) for stretch in stretches)


def _could_cause(stretch: Stretch, event: Detection, rule: Rule) -> bool:
    return stretch.start_s <= event.end_s <= stretch.end_s + rule.after_s


def _latency(scores: Sequence[Score], waiting_s: float) -> WordLatency | None:
    late = [
        hit.end_s + waiting_s - word.end_s
        for one in scores
        for word, hit in zip(one.words, one.hits, strict=True)
        if hit is not None
    ]
    if not late:
        return None
    p50, p95 = np.percentile(late, [50, 95])
    return WordLatency(rounded(p50), rounded(p95), len(late))


def _error_tradeoff(points: Sequence[Point], heard: Sequence[Posteriors]) -> ErrorTradeoff:
    hours = _hours(heard)
    words = sum(len(one.recording.words) for one in heard)
    alarms = [sum(len(one.false_alarms) for one in point.scores) for point in points]
    misses = [sum(len(one.missed) for one in point.scores) for point in points]
    return ErrorTradeoff(
        threshold=tuple(rounded(point.threshold) for point in points),
        false_alarms=tuple(alarms),
        misses=tuple(misses),
        false_alarms_per_hour=tuple(rounded(n / hours) for n in alarms),
        miss_rate=tuple(rounded(n / words) for n in misses),
    )
