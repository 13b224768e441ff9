"""Figures of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..plotting import new_figure, save_figure
from .metrics import Accuracy, ClipMetrics, Counts, StreamMetrics
from .tables import by_accuracy, condition_name


def plot_confusion_matrix(metrics: ClipMetrics, path: Path) -> None:
    """The confusion matrix of an evaluation as a PNG: counts, shaded by the share of the true class."""
    scores = metrics.scores
    counts, labels = np.array(scores.confusion_matrix), scores.labels
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = new_figure((7.5, 6.8))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("heard")
    axes.set_ylabel("said")
    low, high = scores.accuracy_interval
    axes.set_title(
        f"{metrics.data.name}: {100 * scores.accuracy:.2f} % of {metrics.data.clips} clips right "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f})",
        fontsize=10,
    )
    save_figure(figure, path)


def plot_robustness(metrics: ClipMetrics, path: Path) -> None:
    """Accuracy by SNR and room, with 95 % intervals, and by kind of noise at each SNR, as a PNG."""
    found = metrics.robustness
    assert found is not None
    kinds = by_accuracy(found.by_noise)
    height = max(3.6, 1.2 + 0.24 * max(len(kinds), 2 * len(found.by_room)))
    figure = new_figure((10 if kinds else 5, height))
    left, *right = figure.subplots(1, 2 if kinds else 1, squeeze=False)[0]
    rows = {condition_name(name): row for name, row in found.conditions.items()}
    rows |= {f"room: {room}": row for room, row in found.by_room.items()}
    _draw_shares(left, rows)
    if kinds:
        _draw_kinds(right[0], kinds)
    facts = f"{found.noises} noises, {found.room_responses} room responses"
    name = f"{metrics.model.name}: {metrics.data.name}, {metrics.data.clips} clips"
    figure.suptitle(f"{name}, {facts}" if kinds else f"{name},\n{facts}", fontsize=10)
    save_figure(figure, path)


def _draw_shares(axes: Any, rows: Mapping[str, Accuracy]) -> None:
    """Accuracy of named conditions, one below the other, each with its interval."""
    for place, row in enumerate(rows.values()):
        share, (low, high) = 100 * row.accuracy, (100 * x for x in row.accuracy_interval)
        across = [[max(0.0, share - low)], [max(0.0, high - share)]]
        axes.errorbar(share, place, xerr=across, fmt="o", ms=4, lw=1.2, capsize=2, color="#1f6feb")
        axes.annotate(f"{share:.1f}", (share, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel("accuracy (%), 95 % interval", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.3, axis="x")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_kinds(axes: Any, kinds: Sequence[tuple[str, Mapping[str, Accuracy]]]) -> None:
    """Accuracy in each kind of noise (rows) at each SNR (columns), shaded."""
    names = list(kinds[0][1])
    shares = np.array([[100 * row[name].accuracy for name in names] for _, row in kinds])
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=100.0, aspect="auto")
    for place in np.ndindex(shares.shape):
        colour = "white" if shares[place] > 50 else "black"
        axes.text(place[1], place[0], f"{shares[place]:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), [condition_name(name) for name in names], fontsize=8)
    axes.set_yticks(range(len(kinds)), [kind for kind, _ in kinds], fontsize=8)
    axes.set_title(
        f"accuracy (%) by noise, about {np.mean([row[names[0]].clips for _, row in kinds]):.0f} clips each",
        fontsize=9,
    )


def plot_det(metrics: StreamMetrics, path: Path) -> None:
    """Misses against false alarms per hour as a PNG (detection error tradeoff): the whole curve, and held-out points.

    Left of one false alarm in all the recordings nothing can be seen, so that part is shaded.
    """
    scores = metrics.scores
    facts, hours = scores.audio, scores.audio.hours
    alarms, misses = np.array(scores.det.false_alarms), 100 * np.array(scores.det.miss_rate)
    noisiest = int(alarms.argmax())  # below its threshold a label hardly ever comes free again
    alarms, misses = alarms[noisiest:], misses[noisiest:]
    seen = alarms > 0
    figure = new_figure((7, 5))
    axes = figure.subplots()
    axes.plot(alarms[seen] / hours, misses[seen], color="#1f6feb", label="all recordings, each threshold (in-sample)")
    left = min(0.05, 0.3 / hours)
    if not seen.all():
        axes.plot(left, misses[~seen].min(), "<", color="#1f6feb", label="no false alarm at all", clip_on=False)
    reached = [point.counts for point in scores.held_out.rates if point.counts and point.counts.alarms.false_alarms]
    for i, counts in enumerate([] if scores.held_out.in_sample else reached):
        _det_point(axes, counts, left, "thresholds from the other half of the speakers, 95 %" if i == 0 else None)
    axes.axvspan(left, 1 / hours, color="#9aa5b1", alpha=0.25, lw=0, label=f"not to be seen in {hours:.2f} hours")
    axes.set_xscale("log")
    axes.set_xlim(left, 1000)
    axes.set_ylim(0, 100)
    axes.set_xlabel("false alarms per hour")
    axes.set_ylabel("words missed (%)")
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    axes.set_title(
        f"{metrics.model.name}: {facts.keywords} keywords, {facts.speech_hours:.2f} hours of speech, "
        f"{facts.noise_hours:.2f} of noise",
        fontsize=10,
    )
    save_figure(figure, path)


def _det_point(axes: Any, counts: Counts, left: float, label: str | None) -> None:
    alarms = counts.alarms
    if (
        counts.miss_rate is None
        or alarms.false_alarms_per_hour is None
        or alarms.false_alarms_per_hour_interval is None
    ):
        return
    x, y = alarms.false_alarms_per_hour, 100 * counts.miss_rate
    low, high = alarms.false_alarms_per_hour_interval
    across = [[x - max(low, left)], [high - x]]
    down = None
    if counts.miss_rate_interval:
        low, high = counts.miss_rate_interval
        down = [[max(0.0, y - 100 * low)], [max(0.0, 100 * high - y)]]
    axes.errorbar(x, y, xerr=across, yerr=down, fmt="o", ms=4, lw=1, color="#d1242f", label=label)
