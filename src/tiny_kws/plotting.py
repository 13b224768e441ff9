"""What every figure needs: matplotlib when it is asked for, and a PNG that is whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_bytes

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
