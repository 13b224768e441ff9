"""Two models clip by clip: what each evaluation heard, kept in a file, and whether chance explains the difference."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..files import write_bytes
from .clips import ClipSet, share

PREDICTIONS = "predictions.csv"
METRICS = "metrics.json"


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


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Two evaluations' folders against each other, for JSON: the figures of each condition.

    `only_a_right` and `only_b_right` count the clips that one model alone has right, `p` is McNemar's test of them,
    `error_ratio` B's errors by A's (None if A has none). Each condition is a test of its own: with several, some are
    below 0.05 by chance. Raises DataError if a folder holds no evaluation, or they are not of the same clips under the
    same conditions.
    """
    metrics = [_read_metrics(folder / METRICS) for folder in (a, b)]
    predictions = [read_predictions(folder / PREDICTIONS) for folder in (a, b)]
    _check_same(a, b, metrics, predictions)
    conditions = {}
    for name in predictions[0]:
        right_a, right_b = (
            np.array([line.predicted == line.label for line in found[name]], bool) for found in predictions
        )
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        errors_a, errors_b = int((~right_a).sum()), int((~right_b).sum())
        conditions[name] = {
            "clips": len(right_a),
            "a": share(int(right_a.sum()), len(right_a), "accuracy"),
            "b": share(int(right_b.sum()), len(right_b), "accuracy"),
            "error_ratio": round(errors_b / errors_a, 6) if errors_a else None,
            "only_a_right": only_a,
            "only_b_right": only_b,
            "p": mcnemar(only_a, only_b),
        }
    return {"a": metrics[0]["model"]["name"], "b": metrics[1]["model"]["name"], "conditions": conditions}


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of McNemar's exact test (McNemar 1947) from the clips that one model alone has right.

    If both were as good, each such clip would fall to either by the toss of a coin: a binomial test with 1/2.

    >>> mcnemar(1, 6), mcnemar(3, 3)
    (0.125, 1.0)
    """
    n = only_a + only_b
    total = term = 1  # of outcomes: the ways to pick 0 of n, then 1, and so on
    for i in range(min(only_a, only_b)):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, float(2 * total / 2**n))


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """A comparison as Markdown, a line for each condition."""
    lines = [
        f"A: {comparison['a']}\nB: {comparison['b']}\n",
        "| condition | clips | A % | B % | B's errors by A's | only A right | only B right | p (McNemar) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in comparison["conditions"].items():
        shares = " | ".join(f"{100 * row[model]['accuracy']:.2f}" for model in "ab")
        ratio = "none by A" if row["error_ratio"] is None else f"{row['error_ratio']:.3f}"
        counts = f"{row['only_a_right']} | {row['only_b_right']}"
        p = f"{row['p']:.3f}" if row["p"] >= 0.001 else f"{row['p']:.1e}"
        lines.append(f"| {name} | {row['clips']} | {shares} | {ratio} | {counts} | {p} |")
    return "\n".join(lines)


def _read_metrics(path: Path) -> dict[str, Any]:
    expected = "expected the metrics of `tiny-kws evaluate`; run it again"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        str(metrics["model"]["name"] + metrics["data"]["name"] + metrics["data"]["clips_sha256"])
        metrics["robustness"] = dict(metrics.get("robustness", {}))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), {expected}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is something else ({type(error).__name__}: {error}), {expected}") from error
    return metrics  # type: ignore[no-any-return]


def _check_same(
    a: Path, b: Path, metrics: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Sequence[Prediction]]]
) -> None:
    """Raise DataError, saying what differs, unless two evaluations are of the same clips under the same conditions."""
    advice = "expected two evaluations with the same options"
    sums = [one["data"]["clips_sha256"] for one in metrics]
    if sums[0] != sums[1]:
        sides = (
            f"{one['data']['name']}, {one['data'].get('clips')} clips ({one['data']['clips_sha256'][:8]})"
            for one in metrics
        )
        raise DataError(f"{a} and {b}: their clips differ, {' and '.join(sides)}; {advice}")
    names = [list(found) for found in predictions]
    if names[0] != names[1]:
        raise DataError(
            f"{a} and {b}: their conditions differ, {', '.join(names[0])} and {', '.join(names[1])}; {advice}"
        )
    for name, what in (("seed", "seeds of their draws"), ("material_sha256", "noises or rooms")):
        if metrics[0]["robustness"].get(name) != metrics[1]["robustness"].get(name):
            raise DataError(f"{a} and {b}: the {what} differ; {advice}")
    for name in names[0]:
        pairs = ([(line.clip, line.label) for line in found[name]] for found in predictions)
        if next(pairs) != next(pairs):
            raise DataError(f"{a} and {b}: the clips or labels of the condition {name} differ; {advice}")
