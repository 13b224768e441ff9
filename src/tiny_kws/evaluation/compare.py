"""Compares two models clip by clip: keeps their answers in files, and tests whether chance explains the difference."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..files import write_bytes
from .clips import ClipSet, accuracy_of, rounded
from .metrics import METRICS, Accuracy, ClipFacts, read_result

PREDICTIONS = "predictions.csv"


class Prediction(NamedTuple):
    """What a model heard in a clip under a condition, `clean` or `snr10` for two; `clip` is its name."""

    condition: str
    clip: str
    label: str
    predicted: str
    probability: float


def write_predictions(
    path: Path, clips: ClipSet, labels: Sequence[str], probabilities: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write a line for each clip and condition, from probabilities (clips, labels) by condition, as CSV.

    Raises KwsError if it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Prediction._fields)
    for condition, rows in probabilities.items():
        for name, label, best, top in zip(clips.names, clips.labels, rows.argmax(1), rows.max(1), strict=True):
            writer.writerow((condition, name, label, labels[best], f"{top:.6f}"))
    write_bytes(path, text.getvalue().encode())


def read_predictions(path: Path) -> dict[str, list[Prediction]]:
    """What `write_predictions` wrote, by condition. Raises DataError if it is not there or something else."""
    expected = "expected a file of `tiny-kws evaluate`; run it again"
    found: dict[str, list[Prediction]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file, strict=True)
            if tuple(next(lines, ())) != Prediction._fields:
                raise DataError(f"{path}: does not begin with the columns {', '.join(Prediction._fields)}, {expected}")
            for condition, clip, label, predicted, probability in lines:
                line = Prediction(condition, clip, label, predicted, float(probability))
                found.setdefault(condition, []).append(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), {expected}") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: is damaged ({error}), {expected}") from error
    if not found:
        raise DataError(f"{path}: holds no clips, {expected}")
    return found


@dataclass(frozen=True)
class Pair:
    """Two models on the same clips: `error_ratio` is B's errors by A's (None if A has none), `p` McNemar's test."""

    clips: int
    a: Accuracy
    b: Accuracy
    error_ratio: float | None
    only_a_right: int
    only_b_right: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """The names of two models, and the comparison in each condition.

    Each condition is a test of its own, so among several some have a p below 0.05 by chance.
    """

    a: str
    b: str
    conditions: dict[str, Pair]


def compare(a: Path, b: Path) -> Comparison:
    """Compare the folders of two evaluations, condition by condition.

    Raises DataError if a folder holds no evaluation, or they are not of the same clips under the same conditions.
    """
    metrics = [read_result(_Evaluation, folder / METRICS, "evaluate") for folder in (a, b)]
    predictions = [read_predictions(folder / PREDICTIONS) for folder in (a, b)]
    _check_same(a, b, metrics, predictions)
    pairs = {name: _pair(predictions[0][name], predictions[1][name]) for name in predictions[0]}
    return Comparison(metrics[0].model.name, metrics[1].model.name, pairs)


def _pair(a: Sequence[Prediction], b: Sequence[Prediction]) -> Pair:
    right_a, right_b = (np.array([line.predicted == line.label for line in lines], bool) for lines in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    errors_a, errors_b = int((~right_a).sum()), int((~right_b).sum())
    return Pair(
        clips=len(right_a),
        a=accuracy_of(right_a),
        b=accuracy_of(right_b),
        error_ratio=rounded(errors_b / errors_a) if errors_a else None,
        only_a_right=only_a,
        only_b_right=only_b,
        p=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947) from the clips that one model alone has right.

    If both were equally good, a coin toss would decide which has such a clip right: a binomial test with 1/2.

    >>> mcnemar(1, 6), mcnemar(3, 3)
    (0.125, 1.0)
    """
    n = only_a + only_b
    total = term = 1  # of outcomes: the ways to pick 0 of n, then 1, and so on
    for i in range(min(only_a, only_b)):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, float(2 * total / 2**n))


@dataclass(frozen=True)
class _Model:
    name: str


@dataclass(frozen=True)
class _Draws:
    seed: int = 0
    material_sha256: dict[str, str] | None = None


@dataclass(frozen=True)
class _Evaluation:
    """The parts of an evaluation's metrics that must be equal for a comparison."""

    model: _Model
    data: ClipFacts
    robustness: _Draws | None = None


def _check_same(
    a: Path, b: Path, metrics: Sequence[_Evaluation], predictions: Sequence[Mapping[str, Sequence[Prediction]]]
) -> None:
    """Raise DataError, saying what differs, unless two evaluations are of the same clips under the same conditions."""
    differing = _difference(metrics, predictions)
    if differing:
        raise DataError(f"{a} and {b}: {differing}; expected two evaluations with the same options")


def _difference(
    metrics: Sequence[_Evaluation], predictions: Sequence[Mapping[str, Sequence[Prediction]]]
) -> str | None:
    clips = [one.data for one in metrics]
    if clips[0].clips_sha256 != clips[1].clips_sha256:
        sides = (f"{one.name}, {one.clips} clips ({one.clips_sha256[:8]})" for one in clips)
        return f"their clips differ, {' and '.join(sides)}"
    names = [list(found) for found in predictions]
    if names[0] != names[1]:
        return f"their conditions differ, {', '.join(names[0])} and {', '.join(names[1])}"
    draws = [one.robustness or _Draws() for one in metrics]
    if draws[0].seed != draws[1].seed:
        return "the seeds of their draws differ"
    if draws[0].material_sha256 != draws[1].material_sha256:
        return "the noises or rooms differ"
    for name in names[0]:
        first, second = ([(line.clip, line.label) for line in found[name]] for found in predictions)
        if first != second:
            return f"the clips or labels of the condition {name} differ"
    return None
