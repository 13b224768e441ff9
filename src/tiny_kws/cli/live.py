"""What `listen` shows: the microphones there are, words as they come, and the line that lives."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.cells import set_cell_size

from ..errors import KwsError
from ..listening.actions import utc_text
from ..listening.decoder import Detection
from ..listening.microphone import Device
from ..listening.session import Status
from .console import complain, padded, printable, width_of

REDRAW_S = 0.1
METER_DB, METER_WIDTH = 60.0, 20


def print_devices(devices: list[Device]) -> None:
    """Print what can be recorded from, the default with a star. Raises KwsError if there is nothing."""
    if not devices:
        raise KwsError(
            "found nothing to record from, expected a microphone; plug one in, or give this user access to it"
        )
    width = max(width_of(printable(device.name)) for device in devices)
    for device in devices:
        facts = f"{device.channels:2} channels  {device.rate:6.0f} Hz  {device.host}"
        print(f"{'*' if device.is_default else ' '} {device.number:2}  {padded(device.name, width)}  {facts}")


def print_event(event: Detection, heard: datetime, as_json: bool, label_width: int) -> None:
    """Print a word that was `heard` now, flushed, its label in `label_width` columns."""
    if as_json:
        print(event.to_json(time=utc_text(heard)), flush=True)
    else:
        local = heard.astimezone().isoformat(" ", "seconds")[:19]
        print(f"{local}  {padded(event.label, label_width)}  {event.confidence:.3f}  {event.end_s:10.2f} s", flush=True)


class LiveLine:
    """What is heard now, on one line of the terminal: level, likeliest label. Without a terminal only problems show."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._drawn_s = -math.inf
        self._level_db = -math.inf

    def begin(self, device: str, words: Sequence[str]) -> None:
        """Say which microphone is used, and what can be said to it."""
        self._say(f"Listening on {device}; say {', '.join(words)}. Ctrl-C ends.")

    def end(self, heard: Mapping[str, int], seconds: float) -> None:
        """Say how many words were heard in this time, the most frequent first."""
        self.clear()
        n_words, minutes = sum(heard.values()), divmod(round(seconds), 60)
        counts = ", ".join(f"{label} {n}" for label, n in sorted(heard.items(), key=lambda one: -one[1]))
        what = f"{n_words} word{'' if n_words == 1 else 's'}" if n_words else "no words"
        self._say(f"Heard {what} in {minutes[0]}:{minutes[1]:02} min{f': {counts}' if counts else ''}.")

    def _say(self, line: str) -> None:
        if self._is_shown:
            print(printable(line), file=sys.stderr, flush=True)

    def show(self, status: Status) -> None:
        """Draw the line anew if it is time to; print a problem."""
        if status.problem:
            self.complain(status.problem)
        self._level_db = max(self._level_db, status.level_db)
        if not self._is_shown or time.monotonic() - self._drawn_s < REDRAW_S:
            return
        bar = "#" * round(METER_WIDTH * max(0.0, 1 + self._level_db / METER_DB))
        line = f"{self._level_db:4.0f} dBFS [{bar:{METER_WIDTH}}] {printable(status.label)} {status.probability:.2f}"
        width = shutil.get_terminal_size().columns - 1
        shown = set_cell_size(line, width) if width_of(line) > width else line
        print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)
        self._drawn_s, self._level_db = time.monotonic(), -math.inf

    def clear(self) -> None:
        """Make room for another line."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def complain(self, problem: str) -> None:
        """Print a problem as a line of its own."""
        self.clear()
        complain(problem, 1)
