"""Listening to a device, block by block: gaps, overflow, level and silence, but not the device itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..audio import Converter, Samples
from ..config import SAMPLE_RATE
from ..errors import AudioError
from .decoder import Detection
from .detector import Detector
from .recent import Recent

GAP_S = 1.0  # without sound, and what follows is no longer the same piece of it
BRIDGED_S = 0.2  # of lost sound that the sound before it is repeated over; beyond, that helps no more than silence
REPEATED_S = 0.02  # of the sound before it
REPORT_S = 5.0  # a trouble that comes with every block is reported so often
SILENT_S = 10.0  # of digital silence from the start, and it is said
QUIET_DB = -120.0


@dataclass(frozen=True)
class Status:
    """The state of listening, `time_s` after its start; reported after every block of sound and for every `problem`.

    `level_db` is the block's RMS in dB under full scale, `label` the likeliest class, silence and unknown among them,
    `probability` its own. `problem` is one line, empty if there is none.
    """

    time_s: float
    level_db: float
    label: str
    probability: float
    problem: str = ""


@dataclass(frozen=True)
class Block:
    """A block of sound from a device, (frames, channels) float32, that arrived at `time_s` by `clock`.

    `dropped` frames before it did not fit into the queue; `overflow` says that the device itself lost some.
    """

    samples: npt.NDArray[np.float32]
    time_s: float
    dropped: int = 0
    overflow: bool = False


OnStatus = Callable[[Status], None]


class Session:
    """Turns blocks of sound from a device into events, without the device itself.

    `on_status` is called after every block and for every problem, at most every five seconds for a problem that lasts.
    If up to 0.2 s of sound were lost, the sound before the gap is repeated over it: most words in which every second 40
    ms are missing are then heard, and hardly any with silence in the gaps. If more sound was lost, if none came for a
    second or more, or if samples are not numbers, the detector is reset and time goes on.
    """

    def __init__(self, detector: Detector, on_status: OnStatus | None = None) -> None:
        self.detector = detector
        self.time_s = 0.0
        self._on_status = on_status or (lambda status: None)
        self._status = Status(0.0, QUIET_DB, "", 0.0)
        self._last_s: float | None = None  # when the last block came
        self._reported: dict[str, float] = {}
        self._overflows = 0
        self._lost_s = 0.0  # that nobody was told of yet
        self._is_silent = True
        self.begin(SAMPLE_RATE)

    def begin(self, rate: int) -> None:
        """Prepare for sound from a device that was opened at `rate` Hz."""
        self.rate = rate
        self._is_resumed = self._last_s is not None
        self._start_piece(0.0)

    def _start_piece(self, lost_s: float) -> None:
        self._piece_s = self.time_s = self.time_s + lost_s
        self._frames = 0
        self._converter: Converter | None = None
        self._recent = Recent(round(self.detector.window_s * SAMPLE_RATE))
        self._repeated: npt.NDArray[np.float32] | None = None  # (frames, channels), over what is lost next
        self.detector.reset()

    def process(self, block: Block) -> list[Detection]:
        """Events found up to the end of `block`."""
        n_bridged = self._account_for_gap(block)
        try:
            events = [] if n_bridged == 0 else self._hear(self._bridge(n_bridged))
            events += self._hear(block.samples)
        except AudioError as error:
            self._report_seldom("samples", str(error))
            self._start_piece(0.0)
            return []
        self._repeated = block.samples[-round(REPEATED_S * self.rate) :]
        self._on_status(self._status)
        self._report_losses(block)
        self._check_for_silence()
        return events

    def _bridge(self, n_frames: int) -> npt.NDArray[np.float32]:
        assert self._repeated is not None
        return np.resize(self._repeated, (n_frames, self._repeated.shape[1]))

    def _hear(self, samples: npt.NDArray[np.float32]) -> list[Detection]:
        self._frames += len(samples)
        self.time_s = self._piece_s + self._frames / self.rate
        return self._detect(samples)

    def _report_losses(self, block: Block) -> None:
        if block.overflow:
            self._overflows += 1
            lost = f"the device lost some sound (overflows: {self._overflows}); is the computer too busy?"
            if self._report_seldom("overflow", lost):
                self._overflows = 0
        if self._lost_s:
            found = f"{self._lost_s:.1f} s" if self._lost_s >= 1 else f"{self._lost_s:.2f} s"
            lost = f"{found} of sound were lost because the work on events takes too long; still listening"
            if self._report_seldom("lost", lost):
                self._lost_s = 0.0

    def sound_of(self, event: Detection) -> Samples:
        """The window that `event`, of the last block, is based on, and a second before it; 16 kHz mono."""
        return self._recent.sound_of(event.end_s - self._piece_s)

    def report(self, problem: str) -> None:
        """Report a problem."""
        self._on_status(replace(self._status, problem=problem))

    def _report_seldom(self, kind: str, problem: str) -> bool:
        if self.time_s - self._reported.get(kind, -math.inf) < REPORT_S:
            return False
        self._reported[kind] = self.time_s
        self.report(problem)
        return True

    def _account_for_gap(self, block: Block) -> int:
        """Begin a new piece of sound if this block does not follow the one before.

        If the gap is short, returns the frames to bridge instead.
        """
        gap_s = 0.0
        if self._last_s is not None:
            gap_s = max(0.0, block.time_s - self._last_s - len(block.samples) / self.rate)
        self._last_s = block.time_s
        if self._is_resumed:
            self._is_resumed = False
            self._start_piece(gap_s)
            self.report(f"sound is back after {gap_s:.1f} s")
        elif gap_s > GAP_S and not block.dropped:
            self._start_piece(gap_s)
            self._report_seldom("gap", f"no sound came for {gap_s:.1f} s (was the computer asleep?); still listening")
        elif block.dropped:
            lost_s = max(block.dropped / self.rate, gap_s if gap_s > GAP_S else 0.0)
            self._lost_s += lost_s
            if lost_s <= BRIDGED_S and self._repeated is not None:
                return block.dropped
            self._start_piece(lost_s)
        return 0

    def _detect(self, samples: npt.NDArray[np.float32]) -> list[Detection]:
        if self._converter is None:
            self._converter = Converter(self.rate, samples.shape[1], "the microphone")
        audio = self._converter.push(samples)
        level_db = self._status.level_db
        if len(audio):
            level_db = max(QUIET_DB, 10.0 * math.log10(np.square(audio, dtype=np.float64).mean() + 1e-30))
        self._recent.push(audio)
        step = self.detector.step(audio)
        label, probability = self._status.label, self._status.probability
        if len(step.rows):
            best = int(step.rows[-1].argmax())
            label, probability = self.detector.labels[best], float(step.rows[-1][best])
        self._status = Status(self.time_s, level_db, label, probability)
        return [self._in_session_time(event) for event in step.events]

    def _in_session_time(self, event: Detection) -> Detection:
        start_s, end_s = (round(self._piece_s + second, 6) for second in (event.start_s, event.end_s))
        return replace(event, start_s=start_s, end_s=end_s)

    def _check_for_silence(self) -> None:
        if not self._is_silent:
            return
        self._is_silent = self._status.level_db <= QUIET_DB
        if self._is_silent and self.time_s > SILENT_S:
            self._is_silent = False
            self.report(f"{SILENT_S:.0f} s of digital silence: is the microphone muted, or access to it denied?")
