"""A log-mel to look at, in numpy alone. No network uses it: artefacts take samples and have their own front end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..config import SAMPLE_RATE, FeatureConfig
from ..plotting import new_figure, save_figure

CONFIG = FeatureConfig(centered=False)
RANGE = 12.0  # natural logs of power under the loudest that are shown, 52 dB


def log_mel(audio: Samples) -> npt.NDArray[np.float64]:
    """Log power (64 bands, frames) of audio (samples,) at 16 kHz; a frame of 25 ms ends every 10 ms.

    >>> log_mel(np.zeros(16000, np.float32)).shape
    (64, 100)
    """
    padded = np.pad(audio.astype(np.float64), (CONFIG.n_fft - CONFIG.hop, max(0, CONFIG.hop - len(audio))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, CONFIG.n_fft)[:: CONFIG.hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(CONFIG.n_fft) / CONFIG.n_fft)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    return np.log(power @ _mel_filters() + CONFIG.log_offset).T


def draw_close_up(audio: Samples, start_s: float, marked_s: tuple[float, float], path: Path) -> None:
    """Draw audio (samples,) at 16 kHz, `start_s` into its recording, as PNG, with what lies between `marked_s` framed.

    Raises KwsError if it cannot be written.
    """
    values = log_mel(audio)
    end_s = start_s + len(audio) / SAMPLE_RATE
    figure = new_figure((8, 2.8))
    axes = figure.subplots()
    top = float(values.max())
    extent = (start_s, end_s, -0.5, CONFIG.n_mels - 0.5)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "cmap": "magma", "interpolation": "nearest"}
    axes.imshow(values, extent=extent, vmin=max(top - RANGE, float(values.min())), vmax=top, **style)
    if end_s - start_s > marked_s[1] - marked_s[0] + 0.05:
        for edge_s in marked_s:
            axes.axvline(edge_s, color="white", lw=1.2, ls="--")
    centres_hz = _mel_edges_hz()[1:-1]
    shown_hz = (250, 500, 1000, 2000, 4000, 7000)
    axes.set_yticks(np.interp(shown_hz, centres_hz, np.arange(CONFIG.n_mels)), [f"{hz:,}" for hz in shown_hz])
    axes.set_ylabel("Hz, mel scale")
    axes.set_xlabel("time (s)")
    axes.set_xlim(start_s, end_s)
    save_figure(figure, path)


def _mel_filters() -> npt.NDArray[np.float64]:
    """Triangles of the HTK scale, (bins, n_mels)."""
    edges_hz = _mel_edges_hz()
    bins_hz = np.linspace(0, CONFIG.rate / 2, CONFIG.n_fft // 2 + 1)[:, None]
    rising = (bins_hz - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
    falling = (edges_hz[2:] - bins_hz) / np.diff(edges_hz)[1:]
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel_edges_hz() -> npt.NDArray[np.float64]:
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (CONFIG.f_min, CONFIG.f_max))
    edges: npt.NDArray[np.float64] = 700.0 * (10.0 ** (np.linspace(low, high, CONFIG.n_mels + 2) / 2595.0) - 1.0)
    return edges
