"""Accuracy on isolated clips: the figures, each with the number of clips and an interval."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import CLIP_SAMPLES, SAMPLE_RATE, DetectorConfig
from ..errors import ModelError
from ..words import UNKNOWN
from .metrics import (
    Accuracy,
    ClipFacts,
    ClipMetrics,
    ClipScores,
    Interval,
    LabelScores,
    Latency,
    ModelFacts,
    Recall,
    UnknownRecall,
)

Array = npt.NDArray[Any]

CALIBRATION_BINS = 15
RESAMPLES = 2000
LATENCY_RUNS = 200
BATCH_CLIPS = 128
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Predictor:
    """A model to be measured. `predict` takes (batch, window) float32 audio to (batch, labels) probabilities.

    It runs on one thread, or as many as `set_threads` says. `detector` is what it carries for listening, `left_out`
    the words that were kept from its training, `window` the samples of a clip.
    """

    name: str
    predict: Callable[[Array], Array]
    labels: tuple[str, ...]
    parameters: int
    weight_bytes: int
    sha256: str
    set_threads: Callable[[int], None] = lambda threads: None
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    left_out: tuple[str, ...] = ()
    window: int = CLIP_SAMPLES


@dataclass(frozen=True)
class ClipSet:
    """Clips to measure on. `batches()` gives (batch, window) float32 audio in the order of `labels`.

    `names` tell the clips from each other, `words` say what is said in them (empty: nothing, or not known); both are as
    many as `labels`, or none. `window` is the samples of each clip.
    """

    name: str
    labels: list[str]
    sha256: str
    batches: Callable[[], Iterator[Array]]
    names: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    window: int = CLIP_SAMPLES


def evaluate(
    predictor: Predictor, clips: ClipSet, progress: Callable[[int, int], None] = lambda done, total: None
) -> ClipMetrics:
    """All figures of `predictor` on `clips`, except its latency.

    Raises ModelError if the clips have labels that the model does not know, or another length.
    """
    check_clips(predictor, clips)
    return metrics_of(predictor, clips, predict_all(predictor, clips, progress))


def check_clips(predictor: Predictor, clips: ClipSet) -> None:
    """Raise ModelError if the clips have labels that the model does not know, or another length than it takes."""
    foreign = sorted(set(clips.labels) - set(predictor.labels))
    if foreign:
        raise ModelError(f"{predictor.name}: does not know the labels {', '.join(foreign)} of {clips.name}")
    if clips.window != predictor.window:
        ours, theirs = (f"{window / SAMPLE_RATE:g} s" for window in (predictor.window, clips.window))
        raise ModelError(
            f"{predictor.name}: takes clips of {ours}, {clips.name} has clips of {theirs}; prepare the data with "
            f"--window-ms {1000 * predictor.window / SAMPLE_RATE:g}"
        )


def metrics_of(predictor: Predictor, clips: ClipSet, probabilities: Array) -> ClipMetrics:
    """All figures of `predictor` from its `probabilities` (clips, labels) on `clips`, except its latency."""
    targets = np.array([predictor.labels.index(label) for label in clips.labels])
    answers = [predictor.labels[i] for i in probabilities.argmax(1)]
    return ClipMetrics(
        ModelFacts(predictor.name, predictor.sha256, predictor.parameters, predictor.weight_bytes),
        ClipFacts(clips.name, len(targets), clips.sha256),
        measure(probabilities, targets, predictor.labels),
        recall_of_unknown(answers, clips, predictor.left_out),
    )


def predict_all(
    predictor: Predictor, clips: ClipSet, progress: Callable[[int, int], None] = lambda done, total: None
) -> Array:
    """Probabilities (clips, labels) of every clip."""
    rows: list[Array] = []
    for batch in clips.batches():
        rows.append(predictor.predict(batch))
        progress(sum(map(len, rows)), len(clips.labels))
    return np.concatenate(rows)


def measure(probabilities: Array, targets: Array, labels: Sequence[str]) -> ClipScores:
    """Figures from probabilities (clips, labels) and true class indices (clips,).

    Accuracy has a Wilson interval, macro-F1 a bootstrap one (over clips, seeded); both 95 %.
    """
    predicted = probabilities.argmax(1)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    precision, recall, f1 = _precision_recall_f1(confusion)
    total = accuracy_of(predicted == targets)
    return ClipScores(
        accuracy=total.accuracy,
        accuracy_interval=total.accuracy_interval,
        macro_f1=rounded(_macro_f1(confusion[None])[0]),
        macro_f1_interval=_macro_f1_interval(confusion),
        calibration_error=rounded(calibration_error(probabilities, targets)),
        per_class={
            label: LabelScores(rounded(precision[i]), rounded(recall[i]), rounded(f1[i]), int(confusion[i].sum()))
            for i, label in enumerate(labels)
        },
        labels=tuple(labels),
        confusion_matrix=tuple(tuple(row) for row in confusion.tolist()),
    )


def recall_of_unknown(answers: Sequence[str], clips: ClipSet, left_out: Sequence[str] = ()) -> UnknownRecall | None:
    """How much of `unknown` is recognised as such, by word, and apart for `left_out`, the words not trained on.

    `answers` has a label for each clip. None if the clips' words are not known, or none is unknown.
    """
    rows = [
        (word, answer == UNKNOWN)
        for word, label, answer in zip(clips.words, clips.labels, answers, strict=False)
        if label == UNKNOWN and word
    ]
    if not rows:
        return None

    def recall(words: set[str]) -> Recall:
        found = [right for word, right in rows if word in words]
        if not found:
            return Recall(0, None, None)
        return Recall(len(found), rounded(sum(found) / len(found)), share_interval(sum(found), len(found)))

    words, never = {word for word, _ in rows}, set(left_out)
    return UnknownRecall(
        left_out=tuple(sorted(never)),
        heard=recall(words - never),
        never_heard=recall(words & never),
        by_word={word: recall({word}) for word in sorted(words)},
    )


def accuracy_of(right: Array) -> Accuracy:
    """The accuracy over clips, (clips,) of truth values, of which there is one or more.

    >>> accuracy_of(np.array([True, True, True, False]))
    Accuracy(clips=4, accuracy=0.75, accuracy_interval=(0.300642, 0.954413))
    """
    n_right, n_clips = int(np.sum(right)), len(right)
    return Accuracy(n_clips, rounded(n_right / n_clips), share_interval(n_right, n_clips))


def share_interval(successes: int, trials: int) -> Interval:
    """The 95 % interval of a proportion (Wilson 1927), rounded as figures are."""
    low, high = wilson_interval(successes, trials)
    return rounded(low), rounded(high)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927).

    >>> low, high = wilson_interval(95, 100)
    >>> round(low, 3), round(high, 3)
    (0.888, 0.978)
    """
    share = successes / trials
    centre = share + Z_95**2 / (2 * trials)
    spread = Z_95 * math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2))
    scale = 1 + Z_95**2 / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def calibration_error(probabilities: Array, targets: Array, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599): mean gap of confidence and accuracy over bins.

    >>> calibration_error(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]))
    0.3
    """
    confidence = probabilities.max(1).astype(np.float64)
    correct = probabilities.argmax(1) == targets
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, confidence - correct, bins)
    return round(float(np.abs(gaps).sum() / len(targets)), 9)


def measure_latency(predictor: Predictor, runs: int = LATENCY_RUNS) -> Latency:
    """Milliseconds from the samples of one clip to its probabilities, with the processor's name.

    The first tenth of the runs warms up and does not count.
    """
    predictor.set_threads(1)
    audio = np.random.default_rng(0).normal(0, 0.1, (1, predictor.window)).astype(np.float32)
    times_ms = []
    for _ in range(runs + runs // 10):
        started = time.perf_counter()
        predictor.predict(audio)
        times_ms.append(1e3 * (time.perf_counter() - started))
    counted = np.array(times_ms[runs // 10 :])
    mean, p50, p95 = (round(float(x), 3) for x in (counted.mean(), *np.percentile(counted, [50, 95])))
    return Latency(mean, p50, p95, runs, threads=1, processor=processor_name())


def processor_name() -> str:
    """The processor as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def batched(rows: Iterable[Array], size: int = BATCH_CLIPS) -> Iterator[Array]:
    """Stack single clips (samples,) into batches (up to `size`, samples)."""
    held: list[Array] = []
    for row in rows:
        held.append(row)
        if len(held) == size:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def _precision_recall_f1(confusion: Array) -> tuple[Array, Array, Array]:
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    predicted, actual = confusion.sum(-2), confusion.sum(-1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    return precision, recall, f1


def _macro_f1(confusions: Array) -> Array:
    """Mean F1 over the classes that occur, for each of (resamples, labels, labels)."""
    occurs = confusions.sum(-1) > 0
    return (_precision_recall_f1(confusions)[2] * occurs).sum(-1) / occurs.sum(-1)  # type: ignore[no-any-return]


def _macro_f1_interval(confusion: Array) -> Interval:
    """Resampling clips with replacement is drawing the confusion matrix from a multinomial distribution."""
    total = int(confusion.sum())
    draws = np.random.default_rng(0).multinomial(total, confusion.ravel() / total, RESAMPLES)
    low, high = np.percentile(_macro_f1(draws.reshape(-1, *confusion.shape)), [2.5, 97.5])
    return rounded(low), rounded(high)


def rounded(value: float) -> float:
    """Round a figure for a file."""
    return round(float(value), 6)
