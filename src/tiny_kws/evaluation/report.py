"""Figures and tables of what was measured."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..config import SAMPLE_RATE
from ..detect import Decoder, Detection
from ..files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure of a `size` in inches. Only this needs matplotlib; the tables do without."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=size, layout="constrained")


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError before the work for a figure begins, not after it, if matplotlib is not installed."""
    import matplotlib.figure  # noqa: F401, PLC0415


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def plot_learning_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and accuracy over the epochs of a training's `history`, as a PNG."""
    epochs = [line["epoch"] for line in history]
    figure = new_figure((9, 3.6))
    loss, accuracy = figure.subplots(1, 2)
    for axes, name, scale in ((loss, "loss", 1.0), (accuracy, "acc", 100.0)):
        for split, colour in (("train", "#9aa5b1"), ("val", "#1f6feb")):
            values = [line[f"{split}_{name}"] * scale for line in history]
            label = "training (augmented)" if split == "train" else "validation"
            axes.plot(epochs, values, color=colour, label=label, marker="." if len(epochs) < 40 else None)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    loss.set_ylabel("cross-entropy")
    loss.legend(frameon=False)
    accuracy.set_ylabel("accuracy (%)")
    best = max(history, key=lambda line: line["val_acc"])
    accuracy.set_title(
        f"best validation accuracy {100 * best['val_acc']:.2f} % in epoch {best['epoch']:.0f}", fontsize=10
    )
    save_figure(figure, path)


def plot_confusion_matrix(metrics: Mapping[str, Any], path: Path) -> None:
    """The confusion matrix of an evaluation as a PNG: counts, shaded by the share of the true class."""
    counts = np.array(metrics["confusion_matrix"])
    labels = metrics["labels"]
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
    low, high = metrics["accuracy_interval"]
    axes.set_title(
        f"{metrics['data']['name']}: {100 * metrics['accuracy']:.2f} % of {metrics['data']['clips']} clips right "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f})",
        fontsize=10,
    )
    save_figure(figure, path)


PLOT_BINS = 700  # a long recording has at least so many in a picture, and under twice as many: a pixel or two each
MINUTES_FROM_S = 120  # from so long a time axis counts minutes
TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)


class Peaks:
    """The peaks of rows (n, columns) of any number in bins of equal width, in bounded memory.

    A bin holds the greatest of `width` rows, for each column; the width doubles when there are too many bins.

    >>> peaks = Peaks(1)
    >>> peaks.add(np.arange(2801.0)[:, None])
    >>> peaks.width, len(peaks.bins), peaks.bins[-1]
    (4, 701, array([2800.], dtype=float32))
    """

    def __init__(self, n_columns: int) -> None:
        self.width = 1
        self._n_rows = 0
        self._bins = np.full((2 * PLOT_BINS, n_columns), -np.inf, np.float32)

    @property
    def bins(self) -> npt.NDArray[np.float32]:
        """The peaks so far, (bins, columns)."""
        return self._bins[: -(-self._n_rows // self.width)]

    def add(self, rows: npt.NDArray[np.floating]) -> None:
        """Go on with `rows`, (n, columns)."""
        if len(rows) == 0:
            return
        while (self._n_rows + len(rows) - 1) // self.width >= 2 * PLOT_BINS:
            pairs = self._bins.reshape(PLOT_BINS, 2, -1).max(1)
            self._bins = np.concatenate([pairs, np.full_like(pairs, -np.inf)])
            self.width *= 2
        index = (self._n_rows + np.arange(len(rows))) // self.width
        starts = np.flatnonzero(np.diff(index, prepend=-1))
        touched = index[starts]
        self._bins[touched] = np.maximum(self._bins[touched], np.maximum.reduceat(rows, starts))
        self._n_rows += len(rows)


class DetectionPlot:
    """A recording of any length in one picture, gathered block by block: waveform, probabilities of `words`, events."""

    def __init__(self, decoder: Decoder) -> None:
        require_matplotlib()
        self.words, self._hop_s = decoder.words, decoder.hop_s
        self._wave, self._averages = Peaks(2), Peaks(len(decoder.words))
        self._duration_s = 0.0

    def add(self, block: npt.NDArray[np.float32], averages: npt.NDArray[np.float64]) -> None:
        """Go on with a block of sound, (samples,) at 16 kHz, and the smoothed probabilities (hops, words) over it."""
        self._wave.add(np.stack([block, -block], 1))
        self._averages.add(averages)
        self._duration_s += len(block) / SAMPLE_RATE

    def save(self, name: str, events: Sequence[Detection], path: Path) -> None:
        """Write the picture of the recording `name` as PNG. Raises KwsError if it cannot be written."""
        figure = new_figure((12, 5.2))
        wave, words = figure.subplots(2, sharex=True, height_ratios=(2, 3))
        right_s = max([self._duration_s, *(event.end_s for event in events)])
        wave.set_xlim(0, max(right_s, 1 / SAMPLE_RATE))
        self._draw_wave(wave)
        shades = self._draw_words(words)
        _draw_events(wave, words, events, self.words)
        step_s = next((s for s in TICK_STEPS_S if right_s <= 12 * s), 3600 * math.ceil(right_s / 12 / 3600))
        words.set_xticks(np.arange(0, right_s + 1e-9, step_s))
        words.xaxis.set_major_formatter(lambda seconds, _: _clock(seconds, right_s))
        words.set_xlabel("time (s)" if right_s < MINUTES_FROM_S else "time (min)" if right_s < 3600 else "time (h)")
        figure.colorbar(shades, ax=words, label="probability, smoothed", aspect=12, pad=0.01)
        found = f"{len(events)} event{'' if len(events) == 1 else 's'}"
        figure.suptitle(f"{name}: {found}", fontsize=10, parse_math=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the font lacks a letter of the file's name
            save_figure(figure, path)

    def _draw_wave(self, axes: Any) -> None:
        bins = self._wave.bins
        edges_s = np.arange(len(bins)) * self._wave.width / SAMPLE_RATE
        axes.fill_between(edges_s, -bins[:, 1], bins[:, 0], step="post", color="#57606a", linewidth=0.3)
        level = max(float(bins.max(initial=0.0)), 0.01)  # a quiet recording is drawn larger, silence is not
        axes.set_ylim(-1.05 * level, 1.05 * level)
        axes.set_ylabel("amplitude")

    def _draw_words(self, axes: Any) -> Any:
        bins = self._averages.bins
        end_s = len(bins) * self._averages.width * self._hop_s
        extent = (0, max(end_s, self._hop_s), len(self.words) - 0.5, -0.5)
        shown = bins.T if len(bins) else np.zeros((len(self.words), 1))
        image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest", extent=extent)
        axes.set_yticks(range(len(self.words)), self.words)
        return image


def _draw_events(wave: Any, words: Any, events: Sequence[Detection], names: Sequence[str]) -> None:
    """A mark at each event's decision, and its label above where there is room."""
    left, right = wave.get_xlim()
    words.set_xlim(left, right)
    times_s = [event.end_s for event in events]
    across = wave.get_xaxis_transform()
    width = min(0.8, 100 / max(1, len(events)))  # many are faint, or the sound would drown in them
    wave.vlines(times_s, 0, 1, transform=across, color="#d1242f", lw=width, alpha=0.6, zorder=0)
    rows = [names.index(event.label) for event in events]
    words.plot(times_s, rows, "|", color="#d1242f", ms=12, mew=1.5)
    last_s = -math.inf
    for event in events:
        if event.end_s - last_s > 0.012 * (right - left):
            style = {"color": "#d1242f", "fontsize": 8, "rotation": 90, "ha": "center", "va": "bottom"}
            wave.text(event.end_s, 1.02, event.label, transform=across, parse_math=False, **style)
            last_s = event.end_s


def _clock(seconds: float, longest_s: float) -> str:
    """A time on an axis that goes up to `longest_s`: seconds, or minutes, or hours too."""
    if longest_s < MINUTES_FROM_S:
        return f"{seconds:g}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if longest_s < 3600 else f"{minutes // 60}:{minutes % 60:02}"


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """An evaluation as Markdown: a line of totals and a table by class."""

    def percent(key: str) -> str:
        low, high = metrics[f"{key}_interval"]
        return f"{100 * metrics[key]:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"

    lines = [
        f"{metrics['model']['name']} on {metrics['data']['name']}, {metrics['data']['clips']} clips:",
        f"accuracy {percent('accuracy')}, macro-F1 {percent('macro_f1')}, "
        f"expected calibration error {metrics['calibration_error']:.3f}",
        "",
        "| label | precision | recall | F1 | clips |",
        "|---|---|---|---|---|",
    ]
    for label, row in metrics["per_class"].items():
        shares = " | ".join(f"{100 * row[key]:.1f}" for key in ("precision", "recall", "f1"))
        lines.append(f"| {label} | {shares} | {row['support']} |")
    return "\n".join(lines)


def unknown_table(metrics: Mapping[str, Any]) -> str:
    """Recall of unknown by word as Markdown; words that no training heard come last and say so."""
    unknown = metrics["unknown"]
    never = set(unknown["left_out"])
    lines = ["| word of unknown | recall | 95 % | clips |", "|---|---|---|---|"]
    for word, row in sorted(unknown["by_word"].items(), key=lambda item: (item[0] in never, item[0])):
        lines.append(_share_line(f"{word} (never heard)" if word in never else word, row, "recall"))
    for name, key in (("all heard in training", "heard"), ("all never heard", "never_heard")):
        if unknown[key]["clips"]:
            lines.append(_share_line(name, unknown[key], "recall"))
    return "\n".join(lines)


def robustness_table(metrics: Mapping[str, Any]) -> str:
    """Accuracy by condition, by room, and by kind of noise at each SNR, as Markdown."""
    found = metrics["robustness"]
    lines = ["| condition | accuracy | 95 % | clips |", "|---|---|---|---|"]
    for name, row in found["conditions"].items():
        lines.append(_share_line(_condition_name(name), row, "accuracy"))
    lines += [_share_line(f"room: {room}", row, "accuracy") for room, row in found["by_room"].items()]
    if found["by_noise"]:
        names = list(next(iter(found["by_noise"].values())))
        lines += ["", f"| accuracy in | {' | '.join(map(_condition_name, names))} | mean | clips each |"]
        lines.append("|---" * (len(names) + 3) + "|")
    for kind, row in _by_accuracy(found["by_noise"]):
        shares = [100 * one["accuracy"] for one in row.values()]
        clips = next(iter(row.values()))["clips"]
        lines.append(f"| {kind} | {' | '.join(f'{x:.1f}' for x in shares)} | {np.mean(shares):.1f} | {clips} |")
    return "\n".join(lines)


def windows_table(metrics: Mapping[str, Any]) -> str:
    """How many windows without keywords are called one, by threshold, as Markdown."""
    lines = ["| windows called a keyword | above | share | 95 % | of |", "|---|---|---|---|---|"]
    for name, title, groups in (("speech", "speech without keywords", "speakers"), ("noise", "noise", "sources")):
        found = metrics["keyword_free"].get(name)
        for key, row in found["called_keyword"].items() if found else ():
            level = f"detector's {found['detector']['threshold']:g}" if key == "detector" else key
            interval = row["share_interval"]
            spread = f"{100 * interval[0]:.3f} to {100 * interval[1]:.3f}" if interval else f"one of the {groups}"
            of = f"{found['windows']} of {found['groups']} {groups}"
            lines.append(f"| {title} | {level} | {100 * row['share']:.3f} % | {spread} | {of} |")
    return "\n".join(lines)


def plot_robustness(metrics: Mapping[str, Any], path: Path) -> None:
    """Accuracy by SNR and room, with 95 % intervals, and by kind of noise at each SNR, as a PNG."""
    found = metrics["robustness"]
    kinds = _by_accuracy(found["by_noise"])
    height = max(3.6, 1.2 + 0.24 * max(len(kinds), 2 * len(found["by_room"])))
    figure = new_figure((10 if kinds else 5, height))
    left, *right = figure.subplots(1, 2 if kinds else 1, squeeze=False)[0]
    rows = {_condition_name(name): row for name, row in found["conditions"].items()}
    rows |= {f"room: {room}": row for room, row in found["by_room"].items()}
    _draw_shares(left, rows)
    if kinds:
        _draw_kinds(right[0], kinds)
    facts = f"{found['noises']} noises, {found['room_responses']} room responses"
    name = f"{metrics['model']['name']}: {metrics['data']['name']}, {metrics['data']['clips']} clips"
    figure.suptitle(f"{name}, {facts}" if kinds else f"{name},\n{facts}", fontsize=10)
    save_figure(figure, path)


def _draw_shares(axes: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Accuracy of named conditions, one below the other, each with its interval."""
    for place, row in enumerate(rows.values()):
        share, (low, high) = 100 * row["accuracy"], (100 * x for x in row["accuracy_interval"])
        across = [[max(0.0, share - low)], [max(0.0, high - share)]]
        axes.errorbar(share, place, xerr=across, fmt="o", ms=4, lw=1.2, capsize=2, color="#1f6feb")
        axes.annotate(f"{share:.1f}", (share, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel("accuracy (%), 95 % interval", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.3, axis="x")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_kinds(axes: Any, kinds: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> None:
    """Accuracy in each kind of noise (rows) at each SNR (columns), shaded."""
    names = list(kinds[0][1])
    shares = np.array([[100 * row[name]["accuracy"] for name in names] for _, row in kinds])
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=100.0, aspect="auto")
    for place in np.ndindex(shares.shape):
        colour = "white" if shares[place] > 50 else "black"
        axes.text(place[1], place[0], f"{shares[place]:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), [_condition_name(name) for name in names], fontsize=8)
    axes.set_yticks(range(len(kinds)), [kind for kind, _ in kinds], fontsize=8)
    axes.set_title(
        f"accuracy (%) by noise, about {np.mean([row[names[0]]['clips'] for _, row in kinds]):.0f} clips each",
        fontsize=9,
    )


def _by_accuracy(by_noise: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Kinds of noise, the easiest first."""
    return sorted(by_noise.items(), key=lambda item: (-sum(row["accuracy"] for row in item[1].values()), item[0]))


def _condition_name(name: str) -> str:
    """How a condition is called in tables and figures."""
    if name.startswith("snr"):
        return f"{name.removeprefix('snr')} dB"
    return {"room": "in rooms"}.get(name, name)


def _share_line(name: str, row: Mapping[str, Any], what: str) -> str:
    low, high = (100 * x for x in row[f"{what}_interval"])
    return f"| {name} | {100 * row[what]:.2f} % | {low:.2f} to {high:.2f} | {row['clips']} |"


def plot_det(metrics: Mapping[str, Any], path: Path) -> None:
    """Misses against false alarms an hour of an `evaluate_streams` as a PNG: the whole curve, and held-out points.

    Left of one false alarm in all the recordings nothing can be seen, so that part is shaded.
    """
    det, hours = metrics["det"], metrics["audio"]["hours"]
    alarms, misses = np.array(det["false_alarms"]), 100 * np.array(det["miss_rate"])
    noisiest = int(alarms.argmax())  # below its threshold a label hardly ever comes free again
    alarms, misses = alarms[noisiest:], misses[noisiest:]
    seen = alarms > 0
    figure = new_figure((7, 5))
    axes = figure.subplots()
    axes.plot(alarms[seen] / hours, misses[seen], color="#1f6feb", label="all recordings, each threshold (in-sample)")
    left = min(0.05, 0.3 / hours)
    if not seen.all():
        axes.plot(left, misses[~seen].min(), "<", color="#1f6feb", label="no false alarm at all", clip_on=False)
    points = [] if metrics["held_out"]["in_sample"] else metrics["held_out"]["rates"]
    for i, point in enumerate(point for point in points if point["reached"] and point["false_alarms"] > 0):
        _det_point(axes, point, left, "thresholds from the other half of the speakers, 95 %" if i == 0 else None)
    axes.axvspan(left, 1 / hours, color="#9aa5b1", alpha=0.25, lw=0, label=f"not to be seen in {hours:.2f} hours")
    axes.set_xscale("log")
    axes.set_xlim(left, 1000)
    axes.set_ylim(0, 100)
    axes.set_xlabel("false alarms an hour")
    axes.set_ylabel("words missed (%)")
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    facts = metrics["audio"]
    axes.set_title(
        f"{metrics['model']['name']}: {facts['keywords']} keywords, {facts['speech_hours']:.2f} hours of speech, "
        f"{facts['noise_hours']:.2f} of noise",
        fontsize=10,
    )
    save_figure(figure, path)


def _det_point(axes: Any, point: Mapping[str, Any], left: float, label: str | None) -> None:
    x, y = point["false_alarms_per_hour"], 100 * point["miss_rate"]
    low, high = point["false_alarms_per_hour_interval"]
    across = [[x - max(low, left)], [high - x]]
    down = None
    if point["miss_rate_interval"]:
        low, high = point["miss_rate_interval"]
        down = [[max(0.0, y - 100 * low)], [max(0.0, 100 * high - y)]]
    axes.errorbar(x, y, xerr=across, yerr=down, fmt="o", ms=4, lw=1, color="#d1242f", label=label)


def streams_table(metrics: Mapping[str, Any]) -> str:
    """An `evaluate_streams` as Markdown: what it rests on, misses by rate of false alarms, and a table by label."""
    facts, held_out = metrics["audio"], metrics["held_out"]
    lines = [
        f"{metrics['model']['name']}, rule {metrics['rule']['name']}: {facts['keywords']} keywords of "
        f"{facts['speakers']} speakers in {facts['recordings']} recordings, {facts['speech_hours']:.2f} hours of "
        f"speech and {facts['noise_hours']:.2f} of noise; {metrics['cpu_s_per_s']:.5f} s of CPU a second",
        "",
    ]
    if held_out["in_sample"]:
        lines.append("All recordings share speakers, so thresholds come from the very recordings they are reported on:")
    else:
        lines.append("Thresholds chosen on one half of the speakers, reported on the other, both ways:")
    lines += _rates_table(held_out["rates"])
    if not held_out["in_sample"]:
        lines += ["", "Thresholds from the very recordings they are reported on (in-sample):"]
        lines += _rates_table(metrics["everything"]["rates"])
    return "\n".join(lines + _operating_lines(metrics["operating_point"]))


def _rates_table(rates: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "",
        "| wanted an hour | threshold | missed | 95 % | false alarms | an hour | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in rates:
        wanted = f"{point['rate_per_hour']:g}{'' if point['resolvable'] else ' *'}"
        if not point["reached"]:
            lines.append(f"| {wanted} | not reached | | | | | |")
            continue
        thresholds = ", ".join(f"{t:.4f}" for t in point["thresholds"])
        low, high = point["false_alarms_per_hour_interval"]
        alarms = f"{point['false_alarms']} | {point['false_alarms_per_hour']:.2f} | {low:.2f} to {high:.2f}"
        missed = f"{100 * point['miss_rate']:.1f} %" if point["words"] else ""
        spread = point["miss_rate_interval"]
        interval = f"{100 * spread[0]:.1f} to {100 * spread[1]:.1f}" if spread else "one speaker"
        lines.append(f"| {wanted} | {thresholds} | {missed} | {interval} | {alarms} |")
    if not all(point["resolvable"] for point in rates):
        lines += [
            "",
            "\\* too little sound to tell it from a lower rate: no false alarm at all where the threshold was chosen",
        ]
    return lines


def _operating_lines(point: Mapping[str, Any]) -> list[str]:
    if not point["reached"]:
        return ["", f"No threshold gives as few as {point['rate_per_hour']:g} false alarms an hour."]
    lines = [
        "",
        f"At {point['rate_per_hour']:g} an hour, with the thresholds of the first table:",
        "",
        "| label | words | missed | false alarms |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {label} | {row['words']} | {row['misses']} | {row['false_alarms']} |"
        for label, row in point["by_label"].items()
    ]
    lines.append("")
    for where in ("speech", "noise"):
        row = point[f"in_{where}"]
        if row["false_alarms_per_hour"] is not None:
            low, high = row["false_alarms_per_hour_interval"]
            lines.append(
                f"false alarms in {where}: {row['false_alarms']}, {row['false_alarms_per_hour']:.2f} an hour of it "
                f"(95 % interval {low:.2f} to {high:.2f})"
            )
    if point["confusions"]:
        pairs = (f"{pair['said']} heard as {pair['heard']} {pair['count']}" for pair in point["confusions"])
        lines.append(f"confusions: {', '.join(pairs)}")
    if late := point["latency_from_word_end_s"]:
        lines.append(
            f"latency from the end of the word: p50 {1000 * late['p50']:.0f} ms, p95 {1000 * late['p95']:.0f} ms "
            f"({late['hits']} hits)"
        )
    return lines
