"""The files that a training writes and resumes from: checkpoints, history, learning curve, TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import exclusive, write_json
from .checkpoint import read_torch, save_torch
from .learning_curve import plot_learning_curve
from .tensorboard import append_scalars, write_scalars


class RunFolder:
    """The folder of one training; every file in it is complete or missing."""

    def __init__(self, path: Path) -> None:
        self.path, self.best, self.last = path, path / "best.pt", path / "last.pt"
        self.unfinished = path / "unfinished.pt"
        self._tensorboard = path / "tensorboard" / "events.out.tfevents"

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder for the duration of a block. Raises UsageError if another run has locked it."""
        return exclusive(self.path)

    def read_last(self, resume: bool) -> dict[str, Any] | None:
        """The last checkpoint, if there is one, to resume from. Raises UsageError unless `resume` is set."""
        if not resume and (self.last.exists() or self.unfinished.exists()):
            raise UsageError(f"{self.path}: already holds a training; continue with --resume or name another folder")
        return read_torch(self.last) if self.last.exists() else None

    def read_unfinished(self) -> dict[str, Any] | None:
        """The state that was saved in the middle of an epoch, if any."""
        return read_torch(self.unfinished) if self.unfinished.exists() else None

    def save_unfinished(self, state: Mapping[str, Any]) -> None:
        """Save the state in the middle of an epoch."""
        save_torch(self.unfinished, state)

    def save(self, checkpoint: Mapping[str, Any], to_go_on: Mapping[str, Any], is_best: bool) -> None:
        """Save the best before the last: if killed between the two, a run repeats the epoch and saves both.

        The state from the middle of the epoch is no longer needed.
        """
        if is_best:
            save_torch(self.best, checkpoint)
        save_torch(self.last, {**checkpoint, **to_go_on})
        self.unfinished.unlink(missing_ok=True)

    def report_anew(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write everything known about the epochs of `history`, because a run that was killed may not have done so."""
        write_scalars(history, self._tensorboard)
        self._report(history)

    def report_last(self, history: Sequence[Mapping[str, float]]) -> None:
        """Add the last epoch of `history`."""
        append_scalars(history[-1:], self._tensorboard)
        self._report(history)

    def _report(self, history: Sequence[Mapping[str, float]]) -> None:
        if history:
            write_json(self.path / "history.json", history)
            plot_learning_curve(history, self.path / "learning_curve.png")
