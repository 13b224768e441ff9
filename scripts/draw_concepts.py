"""Draw the figures of docs/how-it-works.md from recordings under examples/ and the bundled models: no data is needed.

python scripts/draw_concepts.py docs/figures
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE, FeatureConfig
from tiny_kws.listening.detector import Detector
from tiny_kws.plotting import save_figure
from tiny_kws.training.features import LogMel, band_edges

EXAMPLES = Path(__file__).parents[1] / "examples"
WORD = "yes.wav"
STREAM = ("yes.wav", "up.flac", "other_window.wav", "on.wav")
"""Said one after another in the figure of the detector."""

FRAME_S = 0.31
"""Where the frame begins that is looked at closely."""

PAUSE_S = 0.5
GREY, PALE, RED = "#57606a", "#d0d7de", "#d1242f"
BLUE = "#1f6feb"
COLOURS = (BLUE, "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4")
SHOWN = 0.3
"""The least probability at which a word's curve is drawn."""

LAYERS, KERNEL, STEPS = 3, 3, 15
"""Of the picture of a causal network, which is smaller than a real one."""


def main(out: Path) -> None:
    """Draw all."""
    word = read_mono(EXAMPLES / WORD)
    draw_frame(word, out / "frame.png")
    draw_log_mel(word, out / "log-mel.png")
    draw_causality(out / "causality.png")
    draw_detector(out / "detector.png")


def draw_frame(audio: Samples, out: Path) -> None:
    """A word's samples; 25 ms of them under the window; the power at each frequency."""
    config = FeatureConfig()
    start = round(FRAME_S * SAMPLE_RATE)
    frame = audio[start : start + config.n_fft]
    window = torch.hann_window(config.n_fft, periodic=True).numpy()
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    whole, close, spectrum = figure.subplots(1, 3)
    whole.plot(np.arange(len(audio)) / SAMPLE_RATE, audio, color=GREY, linewidth=0.4)
    whole.axvspan(FRAME_S, FRAME_S + config.n_fft / SAMPLE_RATE, color=RED, alpha=0.4)
    whole.set(title=f"a word, {len(audio):,} samples", xlabel="seconds", xlim=(0, len(audio) / SAMPLE_RATE))
    times_ms = 1000 * np.arange(config.n_fft) / SAMPLE_RATE
    peak = np.abs(frame).max()
    close.plot(times_ms, frame, color=PALE, linewidth=1, label="samples")
    close.plot(times_ms, frame * window, color=BLUE, linewidth=1.2, label="times the window")
    close.plot(times_ms, peak * window, color=RED, linewidth=1, linestyle="--", label="window")
    close.set(title=f"a frame, {config.n_fft} samples", xlabel="milliseconds", xlim=(0, times_ms[-1]))
    close.set_ylim(-1.9 * peak, 1.1 * peak)
    close.legend(frameon=False, fontsize=7, loc="lower center", ncols=3, columnspacing=1.2)
    power = np.abs(np.fft.rfft(frame * window)) ** 2
    bins_hz = np.fft.rfftfreq(config.n_fft, 1 / SAMPLE_RATE)
    spectrum.plot(bins_hz / 1000, 10 * np.log10(power + config.log_offset), color=BLUE, linewidth=1.2)
    spectrum.set(title=f"its power, {len(bins_hz)} frequencies", xlabel="kHz", ylabel="dB", xlim=(0, 8))
    for axes in (whole, close):
        axes.set_yticks([])
    finish(figure, (whole, close, spectrum), out)


def draw_log_mel(audio: Samples, out: Path) -> None:
    """The mel filters; the mel power of a word; its logarithm."""
    config = FeatureConfig(centered=False)
    log_mel = LogMel(config)(torch.from_numpy(audio))[0, 0].numpy()
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    bank, power, logarithm = figure.subplots(1, 3)
    edges_khz = band_edges(config).numpy() / 1000
    for number in range(config.n_mels):
        marked = number % 8 == 0
        bank.plot(edges_khz[number : number + 3], (0, 1, 0), color=BLUE if marked else PALE, linewidth=1, zorder=marked)
    bank.set(title=f"{config.n_mels} filters (every eighth in blue)", xlabel="kHz", xlim=(0, 8), yticks=[0, 1])
    bank.spines[["top", "right"]].set_visible(False)
    extent = (0, len(audio) / SAMPLE_RATE, 0, config.n_mels)
    for axes, values, title in ((power, np.exp(log_mel), "mel power"), (logarithm, log_mel, "its logarithm")):
        axes.imshow(values, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
        axes.set(title=title, xlabel="seconds", ylabel="band")
    finish(figure, (bank,), out)


def draw_causality(out: Path) -> None:
    """What one answer depends on, with convolutions that look both ways and with those that look back only."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    now = STEPS - 1 - LAYERS * (KERNEL // 2)
    for axes, back, title in zip(
        figure.subplots(1, 2),
        (KERNEL // 2, KERNEL - 1),
        ("looks both ways: the answer has to wait", "looks back only: the answer comes at once"),
        strict=True,
    ):
        needed = {now}
        axes.axvline(now + 0.5, color=RED, linestyle="--", linewidth=1)
        axes.text(now + 0.6, LAYERS + 0.35, "not yet heard", color=RED, fontsize=8)
        for layer in range(LAYERS, -1, -1):
            for step in range(STEPS):
                colour = BLUE if step in needed else PALE
                axes.plot(step, layer, "o", color=colour, markersize=7 if step in needed else 5, zorder=2)
            if layer:
                reached = {(step, step - back + i) for step in needed for i in range(KERNEL)}
                for step, below in reached:
                    axes.plot((step, below), (layer, layer - 1), color=BLUE, linewidth=0.8, alpha=0.6, zorder=1)
                needed = {below for _, below in reached}
        axes.set(title=title, xlim=(-0.5, STEPS + 0.5), ylim=(-0.4, LAYERS + 0.7), xticks=[], xlabel="time")
        axes.set_yticks(range(LAYERS + 1), ["frames", *(f"layer {i + 1}" for i in range(LAYERS))])
        axes.tick_params(length=0)
    finish(figure, figure.axes, out)


def draw_detector(out: Path) -> None:
    """Probabilities over time, their average, threshold and release, and the events that come of them."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    words = [read_mono(EXAMPLES / name) for name in STREAM]
    audio = np.concatenate([pause, *(samples for word in words for samples in (word, pause))])
    detector = Detector(StreamModel())
    step = detector.step(audio)
    rows, averages, events = step.rows, step.averages, step.events
    times_s = (1 + np.arange(len(rows))) * detector.hop_s
    figure = Figure(figsize=(10, 4.0), layout="constrained")
    wave, heard = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.2))
    wave.plot(np.arange(len(audio)) / SAMPLE_RATE, audio, color=GREY, linewidth=0.4)
    wave.set(yticks=[], ylabel="samples", xlim=(0, len(audio) / SAMPLE_RATE), ylim=(-0.8, 1.05))
    start_s = PAUSE_S
    for name, word in zip(STREAM, words, strict=True):
        length_s = len(word) / SAMPLE_RATE
        said = name.partition(".")[0].removeprefix("other_")
        wave.text(start_s + length_s / 2, 0.8, f"“{said}”", ha="center", fontsize=9)
        start_s += length_s + PAUSE_S
    colours = iter(COLOURS)
    for word, average in zip(detector.words, averages.T, strict=True):
        if average.max() > SHOWN:
            colour = next(colours)
            heard.plot(times_s, rows[:, detector.labels.index(word)], color=colour, linewidth=0.8, alpha=0.5)
            heard.plot(times_s, average, color=colour, linewidth=2, label=word)
    draw_rules(heard, detector, events)
    heard.set(ylabel="probability", xlabel="seconds", ylim=(0, 1.12), yticks=np.linspace(0, 1, 5))
    heard.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    finish(figure, (wave, heard), out)


def draw_rules(axes: Any, detector: Detector, events: list[Any]) -> None:
    """Threshold and release as lines, each event as a mark and the time after it in which there is no other."""
    config = detector.config
    axes.axhline(config.threshold, color=RED, linestyle="--", linewidth=1, label="threshold")
    axes.axhline(config.threshold * config.release, color=RED, linestyle=":", linewidth=1, label="release")
    for number, event in enumerate(events):
        axes.plot(event.end_s, event.confidence, "v", color=RED, markersize=9, label=None if number else "event")
        until_s = event.end_s + config.refractory_ms / 1000
        axes.axvspan(event.end_s, until_s, color=RED, alpha=0.08, label=None if number else "refractory time")


def finish(figure: Figure, framed: Any, out: Path) -> None:
    """Take away the frames that say nothing, and save."""
    for axes in figure.axes:
        axes.title.set_fontsize(10)
        axes.tick_params(labelsize=8)
    for axes in framed:
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
