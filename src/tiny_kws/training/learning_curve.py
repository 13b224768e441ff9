"""The picture of a training's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..plotting import new_figure, save_figure


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
