"""A pause after a word: what is said on is no command. Holds events back until it is known whether one follows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..config import SAMPLE_RATE
from .decoder import Detection

Powers = npt.NDArray[np.float64]
SETTLING_MS = 80.0
"""From an event's decision to where its pause begins: some of the word may still be heard."""
PAUSE_DB = 6.0
"""How much quieter a pause is, on average, than the loudest hop of the word."""
REMEMBERED_S = 4.0
"""Of the past: longer than any word."""


class HopPowers:
    """The mean square of each hop of a stream, however it is divided into chunks."""

    def __init__(self, hop: int) -> None:
        self.hop = hop
        self._rest = np.zeros(0, np.float32)

    def process(self, samples: Samples) -> Powers:
        """Those of the hops that `samples` (n,) complete, (hops,)."""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // self.hop * self.hop
        self._rest = joined[whole:]
        found: Powers = np.square(joined[:whole].reshape(-1, self.hop), dtype=np.float64).mean(1)
        return found

    def reset(self) -> None:
        """Go back to the start of a stream."""
        self._rest = self._rest[:0]


class PauseGate:
    """Lets through the events that a pause of `pause_ms` follows, as soon as it is over, and no others.

    The pause begins SETTLING_MS after an event's decision. Its sound must be PAUSE_DB quieter, on average, than the
    loudest hop between the event's start and its decision. `hop` is from row to row, in samples. How a stream is
    divided changes nothing.
    """

    def __init__(self, hop: int, pause_ms: float) -> None:
        self._hop_s = hop_s = hop / SAMPLE_RATE
        self._powers = HopPowers(hop)
        self._first = max(1, round(SETTLING_MS / 1000 / hop_s))
        self._behind = self._first + max(1, round(pause_ms / 1000 / hop_s))
        self._past: deque[float] = deque(maxlen=self._behind + round(REMEMBERED_S / hop_s))
        self.reset()

    def reset(self) -> None:
        """Go back to the start of a stream."""
        self._powers.reset()
        self._past.clear()
        self._row = 0
        self._waiting: list[Detection] = []

    def hear(self, events: Sequence[Detection], samples: Samples) -> list[Detection]:
        """Hear sound, (n,), in which `events` were found: those that a pause has followed by now."""
        return self.process(events, self._powers.process(samples))

    def process(self, events: Sequence[Detection], powers: Powers) -> list[Detection]:
        """The same of hops whose mean squares are known, (hops,)."""
        self._waiting += events
        found = []
        for power in powers.tolist():
            self._past.append(power)
            self._row += 1
            while self._waiting and self._row >= self._end(self._waiting[0]) + self._behind:
                event = self._waiting.pop(0)
                if self._is_followed(event, np.array(self._past), self._row - len(self._past)):
                    found.append(event)
        return found

    def of_all(self, events: Sequence[Detection], powers: Powers) -> list[Detection]:
        """The same of a whole recording and the silence after it, (hops,), at once."""
        heard = [event for event in events if self._end(event) + self._behind <= len(powers)]
        return [event for event in heard if self._is_followed(event, powers, 0)]

    def _end(self, event: Detection) -> int:
        """How many rows there were at its decision."""
        return round(event.end_s / self._hop_s)

    def _is_followed(self, event: Detection, powers: Powers, first: int) -> bool:
        """Whether a pause follows, by the powers of the rows from `first` on."""
        end = self._end(event) - first
        begin = max(0, int(event.start_s / self._hop_s) - first)
        after = powers[end + self._first : end + self._behind]
        return bool(after.mean() <= powers[begin:end].max() * 10 ** (-PAUSE_DB / 10))


def waiting_ms(pause_ms: float) -> float:
    """How much later than without a pause an event is reported."""
    return SETTLING_MS + pause_ms if pause_ms else 0.0
