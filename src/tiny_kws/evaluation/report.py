"""Figures and tables of what was measured."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..files import write_bytes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def plot_learning_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and accuracy over the epochs of a training's `history`, as a PNG."""
    epochs = [line["epoch"] for line in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
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
    figure = Figure(figsize=(7.5, 6.8), layout="constrained")
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
