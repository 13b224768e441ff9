"""Keeps the latest sound of a stream, so that the sound of an event can be saved."""

from __future__ import annotations

from collections import deque

import numpy as np

from ..audio import Samples
from ..config import SAMPLE_RATE

BEFORE = SAMPLE_RATE
"""Samples that are kept before the sound that an event is based on."""


class Recent:
    """The latest 16 kHz sound, as far back as an event needs; an event is based on `window` samples.

    An event is reported with the piece in which it ends, or up to `late` samples later.
    """

    def __init__(self, window: int, late: int = 0) -> None:
        self._n_kept = window + BEFORE
        self._late = late
        self._pieces: deque[Samples] = deque()
        self._n_held = self._n_samples = 0

    def push(self, piece: Samples) -> None:
        """Add a piece of sound, (samples,)."""
        self._pieces.append(piece.copy())
        self._n_held += len(piece)
        self._n_samples += len(piece)
        while self._n_held - len(self._pieces[0]) - len(piece) >= self._n_kept + self._late:
            self._n_held -= len(self._pieces.popleft())

    def sound_of(self, end_s: float) -> Samples:
        """The sound that an event ending at this time is based on, and a second before it; less at the start."""
        last = round(end_s * SAMPLE_RATE) - (self._n_samples - self._n_held)
        recent = np.concatenate([*self._pieces, np.zeros(0, np.float32)])
        return recent[max(0, last - self._n_kept) : max(0, last)].copy()
