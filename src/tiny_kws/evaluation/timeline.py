"""A recording of any length in one picture: waveform, probabilities, events."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import SAMPLE_RATE
from ..listening.decoder import Detection
from ..listening.detector import Detector
from ..plotting import new_figure, require_matplotlib, save_figure

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
        """Add `rows`, (n, columns)."""
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

    def __init__(self, detector: Detector) -> None:
        require_matplotlib()
        self.words, self._hop_s = detector.words, detector.hop_s
        self._wave, self._averages = Peaks(2), Peaks(len(detector.words))
        self._duration_s = 0.0

    def add(self, block: npt.NDArray[np.float32], averages: npt.NDArray[np.float64]) -> None:
        """Add a block of sound, (samples,) at 16 kHz, and the smoothed probabilities (hops, words) over it."""
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
