"""The microphone: events from a device as they happen. Needs sounddevice (the extra `mic`), imported on first use.

The device's own thread puts blocks into a bounded queue; `Listener.step` takes them out and processes them. Seconds
count from the first block. Where sound was lost, the time without it counts too, as far as it is known.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artefact.runtime import Classifier, StreamModel
from ..config import SAMPLE_RATE, DetectorConfig
from ..errors import AudioError, KwsError, UsageError
from .decoder import Detection
from .detector import Detector
from .session import Block, OnStatus, Session, Status

BLOCK_MS = 40
LATENCY_S = 0.1  # that the device may hold sound back, so that a busy computer loses none
QUEUE_S = 10.0  # sound that waits while events are dealt with; what does not fit is lost
WAIT_S = 0.25  # a step waits at most so long
STALL_S = 5.0  # without sound, and the device is opened anew; some take two seconds to start
RETRY_S = 1.0
# Clocks that go on while the computer sleeps: on Linux, then macOS, then Windows.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
clock: Callable[[], float] = time.monotonic if _CLOCK is None else partial(time.clock_gettime, _CLOCK)


@dataclass(frozen=True)
class Device:
    """A device to record from. `rate` is its own rate in Hz, `host` the sound system it was found in."""

    number: int
    name: str
    channels: int
    rate: float
    host: str
    is_default: bool


class Capture:
    """An open device, at 16 kHz mono if possible, else at its own rate; its blocks wait in a bounded queue.

    Raises AudioError if it cannot be opened.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._blocks: queue.Queue[Block] = queue.Queue(round(1000 * QUEUE_S / BLOCK_MS))
        self._dropped = 0
        self._stream, self.rate, self.channels = self._open()

    def _open(self) -> tuple[Any, int, int]:
        sd = sounddevice()
        own_rate = round(self.device.rate)
        reasons = []
        for rate, channels in dict.fromkeys([(SAMPLE_RATE, 1), (own_rate, 1), (own_rate, self.device.channels)]):
            stream = None
            try:
                stream = sd.InputStream(
                    device=self.device.number,
                    samplerate=rate,
                    channels=channels,
                    blocksize=rate * BLOCK_MS // 1000,
                    latency=LATENCY_S,
                    dtype="float32",
                    callback=self._take,
                )
                stream.start()
            except sd.PortAudioError as error:
                if stream is not None:
                    stream.close()
                reasons.append(_reason(error))
            else:
                return stream, rate, channels
        why = ", ".join(dict.fromkeys(reasons))
        raise AudioError(
            f"{self.device.name}: cannot be opened ({why}); free it or choose another of {_names(list_devices())}"
        )

    def _take(self, samples: npt.NDArray[np.float32], frames: int, _times: Any, status: Any) -> None:
        """Called by the device's thread."""
        try:
            self._blocks.put_nowait(Block(samples.copy(), clock(), self._dropped, bool(status.input_overflow)))
            self._dropped = 0
        except queue.Full:
            self._dropped += frames

    def read(self, timeout_s: float) -> Block | None:
        """The next block, or None if none comes in time."""
        try:
            return self._blocks.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def is_alive(self) -> bool:
        """Whether the device says that it still gives sound."""
        try:
            return bool(self._stream.active)
        except sounddevice().PortAudioError:
            return False

    def close(self) -> None:
        """Close the device."""
        self._stream.abort()
        self._stream.close()


class Listener:
    """Events from a microphone, a step at a time.

    `device` is a number, part of a name, or None for the default one; the rest is as for `Detector`. If a device
    disappears, it is looked for once a second until it is back. PortAudio finds it only after a restart, which ends
    everything else that this process plays or records with sounddevice.
    """

    def __init__(
        self,
        model: str | Path | StreamModel | Classifier | None = None,
        config: DetectorConfig | None = None,
        device: int | str | None = None,
        on_status: OnStatus | None = None,
    ) -> None:
        self._wanted = device
        self._model, self._config, self._on_status = model, config, on_status
        self._lock = threading.Lock()  # closing waits for a step in another thread
        self._capture: Capture | None = None
        self._is_closed = False
        self._is_reported = False

    def open(self) -> Listener:
        """Load the model and open the device.

        Raises AudioError if there is no such device or it cannot be opened, UsageError if several have such a name,
        KwsError without PortAudio, ModuleNotFoundError without sounddevice, and what `Detector` raises.
        """
        with self._lock:
            if not self._is_closed:
                self.session = Session(Detector(self._model, self._config), self._on_status)
                self._start(Capture(choose_device(list_devices(), self._wanted)))
        return self

    def _start(self, capture: Capture) -> None:
        self._capture, self.device = capture, capture.device
        self.session.begin(capture.rate)
        self._last_s = clock()

    def step(self) -> list[Detection]:
        """The events of the next block of sound; none if none comes within a quarter of a second, or it is closed."""
        with self._lock:
            if self._is_closed:
                return []
            if self._capture is None:
                self._reopen()
                return []
            block = self._capture.read(WAIT_S)
            if block is not None:
                self._last_s, self._is_reported = clock(), False
                return self.session.process(block)
            if not self._capture.is_alive:
                self._lose("is gone (unplugged?)")
            elif clock() - self._last_s > STALL_S:
                self._lose(f"has given no sound for {STALL_S:.0f} s")
            return []

    def _lose(self, what: str) -> None:
        assert self._capture is not None
        self._capture.close()
        self._capture, self._last_s = None, clock()
        if not self._is_reported:
            self.session.report(f"{self.device.name}: {what}; trying again every second until it is back")
        self._is_reported = True

    def _reopen(self) -> None:
        """Try to open the device again, if the last attempt was a second ago or more."""
        if clock() - self._last_s < RETRY_S:
            time.sleep(WAIT_S)
            return
        self._last_s = clock()
        # Numbers may have changed, the name has not.
        wanted = None if self._wanted is None else self.device.name
        with suppress(KwsError, sounddevice().PortAudioError):  # it was said when the device went
            _restart_portaudio()
            self._start(Capture(choose_device(list_devices(), wanted)))

    def close(self) -> None:
        """Close the device; may be called more than once."""
        with self._lock:
            self._is_closed = True
            if self._capture is not None:
                self._capture.close()
                self._capture = None


def listen(
    model: str | Path | StreamModel | Classifier | None = None,
    config: DetectorConfig | None = None,
    device: int | str | None = None,
    on_status: OnStatus | None = None,
) -> Generator[Detection, None, None]:
    """Words from a microphone, as they are heard, until the caller stops iterating.

    `model` and `config` are as for `Detector`; `device` is a number, part of a name, or None for the default one.
    `on_status` is called with a `Status` about 25 times a second, and for each problem: overflow, unplugging and
    suspend are reported, and listening continues. While the body of the loop works, up to ten seconds of sound wait;
    what comes later is lost. The device is opened when the loop starts, and closed when the iterator is no longer
    used; `contextlib.closing` closes it for certain.
    Raises AudioError if there is no such device or it cannot be opened, ModuleNotFoundError without sounddevice.

        for event in tiny_kws.listen():
            print(event.label)
            if event.label == "stop":
                break
    """
    with closing(Listener(model, config, device, on_status).open()) as listener:
        while True:
            yield from listener.step()


async def listen_async(
    model: str | Path | StreamModel | Classifier | None = None,
    config: DetectorConfig | None = None,
    device: int | str | None = None,
    on_status: OnStatus | None = None,
) -> AsyncGenerator[Detection, None]:
    """Do the same for `async for`: listen in a thread and call `on_status` in the event loop, which is never blocked.

    The device is closed when the task is cancelled, or soon after the loop ends; `contextlib.aclosing` waits for it.
    """
    import asyncio  # noqa: PLC0415

    loop = asyncio.get_running_loop()

    def tell(status: Status) -> None:
        if on_status is not None:
            loop.call_soon_threadsafe(on_status, status)

    listener = Listener(model, config, device, tell)
    try:
        await asyncio.to_thread(listener.open)
        while True:
            for event in await asyncio.to_thread(listener.step):
                yield event
    finally:
        await asyncio.to_thread(listener.close)


def list_devices() -> list[Device]:
    """The devices to record from. Raises KwsError without PortAudio, ModuleNotFoundError without sounddevice."""
    sd = sounddevice()
    hosts = [host["name"] for host in sd.query_hostapis()]
    try:
        default = sd.query_devices(kind="input")["index"]
    except (sd.PortAudioError, ValueError):
        default = None
    return [
        Device(
            found["index"],
            found["name"],
            found["max_input_channels"],
            found["default_samplerate"],
            hosts[found["hostapi"]],
            found["index"] == default,
        )
        for found in sd.query_devices()
        if found["max_input_channels"] > 0
    ]


def choose_device(devices: Sequence[Device], wanted: int | str | None) -> Device:
    """Find a device in `devices` by its number, or by part of its name in any case; by default the default device.

    If several sound systems have a device of that name, the default device's system wins. Raises AudioError if there is
    no such device, UsageError if there are several.
    """
    if not devices:
        raise AudioError(
            "found nothing to record from, expected a microphone; plug one in, or give this user access to it"
        )
    default = next((device for device in devices if device.is_default), None)
    if wanted is None:
        if default is None:
            raise AudioError(f"found no default microphone, expected one; name one of {_names(devices)}")
        return default
    if isinstance(wanted, int) or wanted.isdecimal():
        found = [device for device in devices if device.number == int(wanted)]
    else:
        found = [device for device in devices if device.name == wanted]
        found = found or [device for device in devices if wanted.lower() in device.name.lower()]
    if not found:
        raise AudioError(f"found no microphone {str(wanted)!r}, expected one of {_names(devices)}")
    if len(found) > 1 and default is not None:
        found = [device for device in found if device.host == default.host] or found
    if len(found) > 1:
        raise UsageError(f"found several microphones {str(wanted)!r}: {_names(found)}; give a number")
    return found[0]


def sounddevice() -> Any:
    """Import sounddevice. Raises KwsError if it finds no PortAudio, ModuleNotFoundError if it is not installed."""
    try:
        import sounddevice as module  # noqa: PLC0415
    except OSError as error:
        raise KwsError(
            f"sounddevice cannot load PortAudio ({error}), expected its library; install it (Debian: libportaudio2)"
        ) from error
    return module


def _restart_portaudio() -> None:
    """Restart PortAudio, because it looks for devices only when it starts."""
    sd = sounddevice()
    with suppress(sd.PortAudioError):  # it may not be running since the last time
        sd._terminate()  # noqa: SLF001
    sd._initialize()  # noqa: SLF001


def _names(devices: Sequence[Device]) -> str:
    return ", ".join(f"{device.number} {device.name}" for device in devices) or "none"


def _reason(error: Exception) -> str:
    """PortAudio's message, without the part that says what was being done."""
    return str(error).rpartition("Error opening InputStream: ")[2]
