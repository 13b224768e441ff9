"""Which detector settings miss least: `detector_search.py MODEL MANIFEST... [--save FILE]`.

The model listens once to the recordings of each manifest (`tiny-kws make-stream`). Then the longest rise is tried,
next smoothing and duration in pairs, last refractory time and release, each with the best before. Settings are ranked
by their miss rate at 2 and 10 false alarms per hour, the mean over both and over the manifests: at 1 per hour a few
hours of sound hold a handful of alarms, too few to rank by. Settings whose latency (p95, from the end of the word) is
over the limit are out. With `--like FILE` there is no search: the settings are those in FILE, found for another model,
and only the threshold is chosen anew.

Last, a threshold for each label is compared with one for all: chosen on one half of the speakers for 10 false alarms an
hour, shifted together for 2, and counted on the other half, both ways.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from tiny_kws.artefact.runtime import open_model
from tiny_kws.config import DetectorConfig
from tiny_kws.evaluation.rates import split_speakers, threshold_for
from tiny_kws.evaluation.streams import (
    RULES,
    Posteriors,
    Score,
    posteriors_of,
    read_manifest,
    score,
    sweep,
    threshold_grid,
    with_threshold,
)
from tiny_kws.files import sha256_of
from tiny_kws.listening.detector import config_of, write_config
from tiny_kws.words import is_word

RANKED_RATES = (2.0, 10.0)
RISE_MS = (0, 280, 360, 440)
SMOOTHING_MS = (40, 120, 200, 280)
MIN_DURATION_MS = (40, 120)
REFRACTORY_MS = (700, 500, 900)
RELEASE = (0.5, 0.2, 0.8)
LATENCY_S = 0.4
MOST_PER_HOUR = 15.0
N_THRESHOLDS = 80


def main() -> None:
    """Print a table of settings, best last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--save", type=Path, help="write the best")
    parser.add_argument("--like", type=Path, help="take the settings in this file, written by --save")
    parser.add_argument("--rate", type=float, default=10.0, help="false alarms per hour over the first manifest")
    arguments = parser.parse_args()
    model = open_model(arguments.model)
    heard = []
    for manifest in arguments.manifests:
        recordings, problems = read_manifest(manifest, model.labels, config_of(model).words)
        assert not problems, problems
        heard.append(posteriors_of(model, recordings))
    best = searched(heard, config_of(model)) if arguments.like is None else settings_in(arguments.like)
    print(f"\nbest: {best}\n\n| manifest | thresholds | missed at 10, 2 an hour, held out | false alarms per hour |")
    print("|---|---|---|---|", flush=True)
    compare_thresholds(heard, best)
    if arguments.save is not None:
        points = sweep(heard[0], best, RULES["tiny-kws"], most_per_hour=2 * arguments.rate)
        counts = [sum(len(one.false_alarms) for one in point.scores) for point in points]
        index = threshold_for(counts, arguments.rate * hours(heard[0]))
        assert index is not None
        config = with_threshold(best, points[index].threshold)
        expected = {"false_alarms_per_hour": arguments.rate, "miss_rate": miss_rate(points[index].scores)}
        manifest = arguments.manifests[0]
        chosen_on = {"name": str(manifest), "sha256": sha256_of(manifest)}
        write_config(arguments.save, config, model, {"in_sample": expected, "chosen_on": chosen_on})
        print(f"{arguments.save}: threshold {config.threshold:.4f}")


def settings_in(path: Path) -> DetectorConfig:
    """Those that were found for another network, which `read_config` would refuse."""
    return DetectorConfig(**json.loads(path.read_text(encoding="utf-8"))["detector"])


def searched(heard: list[list[Posteriors]], start: DetectorConfig) -> DetectorConfig:
    """The best settings, with a table of all that were tried."""
    names = "rise, ms | smoothing, ms | duration, ms | refractory, ms | release"
    print(f"| {names} | missed at 10, 2, 1 an hour | latency p95, s |\n|---|---|---|---|---|---|---|", flush=True)
    best = search(heard, [replace(start, rise_ms=rise) for rise in RISE_MS])
    pairs = itertools.product(SMOOTHING_MS, MIN_DURATION_MS)
    best = search(heard, [replace(best, smoothing_ms=s, min_duration_ms=d) for s, d in pairs])
    pairs = itertools.product(REFRACTORY_MS, RELEASE)
    return search(heard, [replace(best, refractory_ms=r, release=x) for r, x in pairs])


def search(heard: list[list[Posteriors]], candidates: list[DetectorConfig]) -> DetectorConfig:
    """The best of `candidates`, each printed as a row; the first if all are too late."""
    ranks = []
    with ProcessPoolExecutor() as pool:
        for rank, row in pool.map(judge, itertools.repeat(heard), candidates):
            print(row, flush=True)
            ranks.append(rank)
    return candidates[int(np.argmin(ranks))]


def judge(heard: list[list[Posteriors]], config: DetectorConfig) -> tuple[float, str]:
    """Miss rate to rank by, infinite for settings that answer too late; and a row of the table."""
    missed = dict.fromkeys((10.0, 2.0, 1.0), 0.0)
    late: list[float] = []
    for part in heard:
        points = sweep(part, config, RULES["tiny-kws"], threshold_grid(N_THRESHOLDS), MOST_PER_HOUR)
        counts = [sum(len(one.false_alarms) for one in point.scores) for point in points]
        for rate in missed:
            index = threshold_for(counts, rate * hours(part))
            missed[rate] += (1.0 if index is None else miss_rate(points[index].scores)) / len(heard)
            if rate == RANKED_RATES[0] and index is not None:
                late.append(latency_p95(points[index].scores))
    rates = ", ".join(f"{100 * rate:.1f}" for rate in missed.values())
    shown = (config.rise_ms, config.smoothing_ms, config.min_duration_ms, config.refractory_ms, config.release)
    row = f"| {' | '.join(f'{value:g}' for value in shown)} | {rates} | {max(late, default=0):.3f} |"
    return mean(missed[rate] for rate in RANKED_RATES) if max(late, default=0) <= LATENCY_S else float("inf"), row


def miss_rate(scores: Sequence[Score]) -> float:
    """Of all words in recordings."""
    return sum(len(one.missed) for one in scores) / sum(len(one.words) for one in scores)


def latency_p95(scores: Sequence[Score]) -> float:
    """From the end of a word to its event, in seconds."""
    pairs = [pair for one in scores for pair in zip(one.words, one.hits, strict=True)]
    return float(np.percentile([hit.end_s - word.end_s for word, hit in pairs if hit is not None] or [0.0], 95))


def compare_thresholds(heard: list[list[Posteriors]], config: DetectorConfig) -> None:
    """Print what one threshold for all labels and one for each miss, held out, for each manifest."""
    for number, part in enumerate(heard):
        halves = split_speakers(part)
        assert halves is not None
        for name in ("one", "by label"):
            missed, alarms = [], []
            for rate in RANKED_RATES[::-1]:
                scores = []
                for choosing, reported in (halves, halves[::-1]):
                    own = label_thresholds(part, config, choosing) if name == "by label" else {}
                    base = replace(config, thresholds=own)
                    points = sweep(
                        [part[i] for i in choosing], base, RULES["tiny-kws"], most_per_hour=2 * MOST_PER_HOUR
                    )
                    counts = [sum(len(score.false_alarms) for score in point.scores) for point in points]
                    index = threshold_for(counts, rate * hours([part[i] for i in choosing]))
                    chosen = with_threshold(base, points[-1 if index is None else index].threshold)
                    scores += [
                        score(part[i].events(chosen), part[i].recording.words, RULES["tiny-kws"]) for i in reported
                    ]
                missed.append(miss_rate(scores))
                alarms.append(sum(len(one.false_alarms) for one in scores) / hours(part))
            cells = (", ".join(f"{100 * x:.1f} %" for x in missed), ", ".join(f"{x:.1f}" for x in alarms))
            print(f"| {number + 1} | {name} | {' | '.join(cells)} |", flush=True)


def label_thresholds(part: list[Posteriors], config: DetectorConfig, choosing: Sequence[int]) -> dict[str, float]:
    """For each label the threshold at which another miss costs as many false alarms as for the others.

    That cost is so that there are about 10 false alarms per hour in the recordings `choosing`.
    """
    chosen = [part[i] for i in choosing]
    points = sweep(chosen, replace(config, thresholds={}), RULES["tiny-kws"], most_per_hour=2 * MOST_PER_HOUR)
    words = [label for label in part[0].labels if is_word(label)]
    alarms, missed = np.zeros((2, len(points), len(words)))
    for i, point in enumerate(points):
        for one in point.scores:
            for event in one.false_alarms:
                alarms[i, words.index(event.label)] += 1
            for word in one.missed:
                missed[i, words.index(word.label)] += 1
    best = np.full(len(words), len(points) - 1)
    for price in np.geomspace(10, 0.01, 100):
        # of equal costs the highest threshold
        cost = (missed + price * alarms)[::-1]
        picked = len(points) - 1 - cost.argmin(0)
        if alarms[picked, np.arange(len(words))].sum() > 10.0 * hours(chosen):
            break
        best = picked
    return {word: points[i].threshold for word, i in zip(words, best, strict=True)}


def hours(part: Sequence[Posteriors]) -> float:
    """Length of recordings."""
    return sum(one.seconds for one in part) / 3600


if __name__ == "__main__":
    main()
