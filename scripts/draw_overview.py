"""Draw docs/overview.png: a recording, its log-mel, and what the bundled stream model hears in it, hop by hop."""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE, FeatureConfig
from tiny_kws.plotting import save_figure
from tiny_kws.training.features import LogMel
from tiny_kws.words import SILENCE, UNKNOWN

PAUSE_S = 0.7
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989")


def main(out: Path, recordings: list[Path]) -> None:
    """Put the recordings one behind the other, with pauses between, and draw."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    parts = [read_mono(path) for path in recordings]
    audio = np.concatenate([pause, *(samples for part in parts for samples in (part, pause))])
    model = StreamModel()
    answers = model.stream().process(audio)
    features = LogMel(FeatureConfig(centered=False))(torch.from_numpy(audio))[0, 0].numpy()
    length_s = len(audio) / SAMPLE_RATE
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    wave, mel, heard = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.6, 1.6))
    wave.plot(np.arange(len(audio)) / SAMPLE_RATE, audio, color="#57606a", linewidth=0.4)
    wave.set(ylabel="samples", yticks=[], xlim=(0, length_s), ylim=(-0.7, 0.85))
    end_s = 0.0
    for path, part in zip(recordings, parts, strict=True):
        word = path.stem.removeprefix("other_")
        wave.text(end_s + PAUSE_S + len(part) / SAMPLE_RATE / 2, 0.62, word, ha="center")
        end_s += PAUSE_S + len(part) / SAMPLE_RATE
    mel.imshow(features, origin="lower", aspect="auto", extent=(0, length_s, 0, len(features)), cmap="magma")
    mel.set(ylabel="log-mel band")
    times = (1 + np.arange(len(answers))) * model.hop / SAMPLE_RATE
    colours = iter(COLOURS)
    for label, curve in zip(model.labels, answers.T, strict=True):
        if label in (SILENCE, UNKNOWN):
            style = {"color": "#8c959f" if label == UNKNOWN else "#d0d7de", "linewidth": 1.0}
        elif curve.max() > 0.5:
            style = {"color": next(colours), "linewidth": 2.0}
        else:
            continue
        heard.plot(times, curve, label=label, **style)
    heard.set(ylabel="probability", xlabel="seconds", ylim=(0, 1.02))
    heard.legend(frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axes in (wave, heard):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
