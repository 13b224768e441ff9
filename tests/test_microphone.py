"""Choosing, opening, losing and leaving a device, played by a module that stands for sounddevice."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tiny_kws
from tiny_kws import AudioError, Detection, DetectorConfig, KwsError, UsageError
from tiny_kws.audio import read_mono
from tiny_kws.listening import microphone
from tiny_kws.listening.microphone import Capture, Device, Listener, choose_device, list_devices
from tiny_kws.listening.session import Status

from .helpers import BLOCKER, environment
from .test_session import EXAMPLES

CONFIG = DetectorConfig(threshold=0.4)


class PortAudioError(Exception):
    """As sounddevice's own."""


class FakeStream:
    """A stream whose callback the test calls."""

    def __init__(self, module: FakeSoundDevice, callback: Callable[..., None], **options: Any) -> None:
        module.asked.append(options)
        if reason := module.refuses(options):
            raise PortAudioError(f"Error opening InputStream: {reason}")
        self.options, self._callback = options, callback
        self.active = False
        self.is_closed = False
        module.streams.append(self)

    def start(self) -> None:
        self.active = True

    def abort(self) -> None:
        self.active = False

    def close(self) -> None:
        self.is_closed = True

    def give(self, sound: np.ndarray, overflow: bool = False) -> None:
        """Call back with sound in blocks, (samples,), the same in every channel."""
        frames, channels = self.options["blocksize"], self.options["channels"]
        for i in range(0, len(sound), frames):
            block = np.tile(sound[i : i + frames, None], channels).astype(np.float32)
            self._callback(block, len(block), None, SimpleNamespace(input_overflow=overflow))
            block[:] = np.nan  # PortAudio uses its buffer again


class FakeSoundDevice:
    """Two microphones and a speaker, in the manner of sounddevice."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        self.microphones = [("Built-in", 2, 44100.0), ("USB mic", 1, 48000.0)]
        self.refuses: Callable[[dict[str, Any]], str] = lambda options: ""
        self.asked: list[dict[str, Any]] = []
        self.streams: list[FakeStream] = []
        self.n_starts, self.n_failures = 1, 0

    def query_devices(self, device: object = None, kind: str | None = None) -> Any:
        found = [("Speaker", 0, 48000.0), *self.microphones]
        rows = [
            {"index": i, "name": name, "max_input_channels": n, "default_samplerate": rate, "hostapi": 0}
            for i, (name, n, rate) in enumerate(found)
        ]
        if kind is None:
            return rows
        if len(rows) == 1:
            raise PortAudioError("Error querying device -1")
        return rows[1]

    def query_hostapis(self) -> list[dict[str, str]]:
        return [{"name": "ALSA"}]

    def InputStream(self, **options: Any) -> FakeStream:  # noqa: N802
        return FakeStream(self, **options)

    def _terminate(self) -> None:
        if self.n_starts == 0:
            raise PortAudioError("PortAudio not initialized")
        self.n_starts -= 1

    def _initialize(self) -> None:
        self.n_failures -= 1
        if self.n_failures >= 0:
            raise PortAudioError("Unanticipated host error")
        self.n_starts += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    module = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    for name, seconds in (("WAIT_S", 0.01), ("RETRY_S", 0.02), ("STALL_S", 0.2)):
        monkeypatch.setattr(microphone, name, seconds)
    return module


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """An example word with half a second of silence behind it, at 16 kHz."""
    return np.concatenate([read_mono(EXAMPLES / "go.wav"), np.zeros(8000, np.float32)])


@pytest.fixture(scope="module")
def model() -> tiny_kws.StreamModel:
    return tiny_kws.StreamModel("small")


class Statuses(list[Status]):
    """What was told; of the problems the text."""

    @property
    def problems(self) -> list[str]:
        return [status.problem for status in self if status.problem]


@pytest.fixture
def told() -> Statuses:
    return Statuses()


@pytest.fixture
def listener(fake: FakeSoundDevice, model: tiny_kws.StreamModel, told: Statuses) -> Iterator[Listener]:
    listener = Listener(model, CONFIG, None, told.append).open()
    yield listener
    listener.close()


def steps(listener: Listener, until: Callable[[], bool], seconds: float = 10.0) -> list[Detection]:
    """Step until something is true, and on until nothing waits; the events."""
    events, end = [], time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        events += listener.step()
    while listener._capture is not None and not listener._capture._blocks.empty():
        events += listener.step()
    return events


DEVICES = [
    Device(0, "USB Audio (hw:1,0)", 1, 48000.0, "ALSA", is_default=False),
    Device(2, "USB Audio (hw:2,0)", 2, 44100.0, "ALSA", is_default=False),
    Device(3, "default", 32, 44100.0, "ALSA", is_default=True),
    Device(5, "Headset", 1, 16000.0, "ALSA", is_default=False),
    Device(7, "Headset", 1, 16000.0, "OSS", is_default=False),
    Device(8, "Headset 2", 1, 16000.0, "OSS", is_default=False),
]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [(None, 3), (0, 0), ("2", 2), ("hw:2", 2), ("DEFAULT", 3), ("Headset", 5), ("headset 2", 8), ("Headset 2", 8)],
)
def test_a_device_is_chosen_by_number_or_name(wanted: int | str | None, number: int) -> None:
    """A number, a part of a name in any case, a whole name before longer ones; of two alike the default's kind."""
    assert choose_device(DEVICES, wanted).number == number


@pytest.mark.parametrize("wanted", ["studio", 1, "99", -1])
def test_a_device_that_is_not_there_lists_those_that_are(wanted: int | str) -> None:
    """The error names what was wanted and every device with its number."""
    with pytest.raises(AudioError, match=r"expected one of 0 USB Audio.*, 3 default, ") as caught:
        choose_device(DEVICES, wanted)
    assert repr(str(wanted)) in str(caught.value)


def test_a_part_of_several_names_is_refused() -> None:
    """Where several devices fit, the error lists just these."""
    with pytest.raises(UsageError, match=r"several microphones 'usb': 0 USB Audio .*, 2 USB Audio [^,]*,0\); "):
        choose_device(DEVICES, "usb")


def test_no_device_and_no_default_device_are_errors() -> None:
    """Without any device, or with none that is the default and none named, there is an error that says so."""
    with pytest.raises(AudioError, match="found nothing to record from"):
        choose_device([], "usb")
    with pytest.raises(AudioError, match=r"no default microphone.*5 Headset"):
        choose_device([DEVICES[3]], None)


def test_only_what_records_is_listed(fake: FakeSoundDevice) -> None:
    """A speaker is no microphone; the default one is marked; without any the list is empty."""
    assert list_devices() == [
        Device(1, "Built-in", 2, 44100.0, "ALSA", is_default=True),
        Device(2, "USB mic", 1, 48000.0, "ALSA", is_default=False),
    ]
    fake.microphones = []
    assert list_devices() == []


def test_16_khz_mono_is_asked_for_first(fake: FakeSoundDevice) -> None:
    """A device that has it is opened at 16 kHz mono, in blocks of 40 ms of floats."""
    capture = Capture(choose_device(list_devices(), "USB"))
    assert (capture.rate, capture.channels, len(fake.asked)) == (16000, 1, 1)
    expected = {"device": 2, "samplerate": 16000, "channels": 1, "blocksize": 640, "dtype": "float32"}
    assert expected.items() <= fake.asked[0].items()


def test_a_device_that_refuses_is_asked_for_its_own_rate_and_channels(fake: FakeSoundDevice) -> None:
    """Where 16 kHz is refused, the own rate in mono comes next, then in all channels."""
    fake.refuses = lambda options: "" if options["channels"] == 2 else "Invalid number of channels"
    capture = Capture(choose_device(list_devices(), None))
    assert [(options["samplerate"], options["channels"]) for options in fake.asked] == [
        (16000, 1),
        (44100, 1),
        (44100, 2),
    ]
    assert (capture.rate, capture.channels) == (44100, 2)


def test_a_busy_device_is_an_error(fake: FakeSoundDevice) -> None:
    """A device that refuses everything is an error with PortAudio's reason, said once, and the others there are."""
    fake.refuses = lambda options: "Device unavailable [PaErrorCode -9985]"
    with pytest.raises(AudioError) as caught:
        Listener(device="USB").open()
    assert str(caught.value) == (
        "USB mic: cannot be opened (Device unavailable [PaErrorCode -9985]); "
        "free it or choose another of 1 Built-in, 2 USB mic"
    )


def test_a_device_that_opens_but_does_not_start_is_closed(
    fake: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure to start counts as refusal, and leaves no stream open."""

    def fail(self: FakeStream) -> None:
        raise PortAudioError("Error starting stream: busy")

    monkeypatch.setattr(FakeStream, "start", fail)
    with pytest.raises(AudioError, match=r"\(Error starting stream: busy\)"):
        Listener().open()
    assert fake.streams
    assert all(stream.is_closed for stream in fake.streams)


def test_what_the_device_gives_is_heard(
    fake: FakeSoundDevice, listener: Listener, model: tiny_kws.StreamModel, sound: np.ndarray
) -> None:
    """Blocks that the device's thread brings give the events of the sound as a whole."""
    threading.Thread(target=fake.streams[0].give, args=(sound,)).start()
    events = steps(listener, lambda: listener.session.time_s >= len(sound) / 16000)
    assert events == tiny_kws.Detector(model, CONFIG).process(sound)
    assert [event.label for event in events] == ["go"]


def test_a_full_queue_loses_the_newest_and_says_how_much(
    fake: FakeSoundDevice, listener: Listener, told: Statuses, sound: np.ndarray
) -> None:
    """Ten seconds wait; three more are dropped, told, and counted in the time of what follows."""
    stream = fake.streams[0]
    stream.give(np.full(13 * 16000, 0.001))
    waiting = 10 * 16000
    steps(listener, lambda: listener.session.time_s >= 10.0)
    assert listener.session.time_s == pytest.approx(waiting / 16000)
    stream.give(sound)
    (event,) = steps(listener, lambda: False if listener._capture is None else listener._capture._blocks.empty())
    assert told.problems == ["3.0 s of sound were lost because the work on events takes too long; still listening"]
    (alone,) = tiny_kws.Detector(listener.session.detector.model, CONFIG).process(sound)
    assert event.end_s == pytest.approx(13.0 + alone.end_s)


def test_overflow_of_the_device_is_told(fake: FakeSoundDevice, listener: Listener, told: Statuses) -> None:
    """A block that comes with PortAudio's overflow flag is told as a problem."""
    fake.streams[0].give(np.full(640, 0.001), overflow=True)
    steps(listener, lambda: bool(told))
    assert "lost some sound" in told.problems[0]


def test_a_device_that_vanishes_is_opened_again(
    fake: FakeSoundDevice, listener: Listener, told: Statuses, sound: np.ndarray
) -> None:
    """It is told once, looked for with PortAudio started anew until it is there, and heard as before."""
    fake.streams[0].give(sound)
    there, fake.microphones = fake.microphones, []
    fake.streams[0].active = False
    before = steps(listener, lambda: len(told.problems) == 1)
    assert [event.label for event in before] == ["go"], "what came before the loss is heard"
    assert "Built-in: is gone (unplugged?)" in told.problems[0]
    assert fake.streams[0].is_closed
    end = time.monotonic() + 0.2
    steps(listener, lambda: time.monotonic() > end)
    assert (len(fake.streams), len(told.problems), fake.n_starts) == (1, 1, 1)
    fake.microphones = there
    steps(listener, lambda: len(fake.streams) == 2)
    fake.streams[1].give(sound)
    (event,) = steps(listener, lambda: len(told.problems) == 2)
    assert event.label == "go"
    assert event.end_s > before[0].end_s + 0.2
    assert told.problems[1].startswith("sound is back after ")


def test_portaudio_that_does_not_start_is_tried_again(
    fake: FakeSoundDevice, listener: Listener, told: Statuses
) -> None:
    """Where the sound system itself is away, PortAudio fails to start; that ends nothing."""
    fake.n_failures = 2
    fake.streams[0].active = False
    steps(listener, lambda: len(fake.streams) == 2)
    assert (fake.n_starts, fake.n_failures, len(told.problems)) == (1, -1, 1)


def test_a_named_device_is_looked_for_by_its_name(
    fake: FakeSoundDevice, model: tiny_kws.StreamModel, told: Statuses
) -> None:
    """One that was chosen by number may have another when it is back."""
    listener = Listener(model, CONFIG, 2, told.append).open()
    fake.streams[0].active = False
    fake.microphones.insert(0, ("Webcam", 1, 32000.0))
    steps(listener, lambda: len(fake.streams) == 2)
    assert fake.streams[1].options["device"] == 3
    assert listener.device.name == "USB mic"
    listener.close()


def test_a_device_that_falls_silent_is_opened_anew(fake: FakeSoundDevice, listener: Listener, told: Statuses) -> None:
    """One that says it is active but gives nothing is closed and opened until it gives something; told once."""
    steps(listener, lambda: len(fake.streams) == 3)
    assert fake.streams[0].is_closed
    assert fake.streams[1].is_closed
    (problem,) = told.problems
    assert problem.startswith("Built-in: has given no sound for ")
    fake.streams[2].give(np.full(640, 0.001))
    steps(listener, lambda: listener.session.time_s > 0)
    assert len(told.problems) == 1, "nothing was lost, as nothing came before"
    assert not fake.streams[2].is_closed


@pytest.mark.parametrize("leave", ["break", "raise", "close"])
def test_the_device_is_given_back_when_the_loop_is_left(
    fake: FakeSoundDevice, model: tiny_kws.StreamModel, sound: np.ndarray, leave: str
) -> None:
    """Leaving the loop by break, by an error, or closing the iterator closes the stream."""

    def run() -> None:
        events = tiny_kws.listen(model, CONFIG)
        assert fake.streams == [], "nothing is opened before the loop starts"
        threading.Timer(0.1, lambda: fake.streams[0].give(sound)).start()
        for event in events:
            assert event.label == "go"
            assert fake.streams[0].active
            if leave == "break":
                return
            if leave == "raise":
                raise ZeroDivisionError
            events.close()

    if leave == "raise":
        with pytest.raises(ZeroDivisionError):
            run()
    else:
        run()
    assert [stream.is_closed for stream in fake.streams] == [True]


def test_the_async_twin_lets_the_event_loop_go_on(
    fake: FakeSoundDevice, model: tiny_kws.StreamModel, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks run while it waits, its statuses come in the loop's thread, and cancelling closes the device."""
    monkeypatch.setattr(microphone, "STALL_S", 60.0)  # on a busy computer the sound may come late
    heard: list[str] = []
    threads: set[int] = set()

    async def hear() -> None:
        def tell(_: Status) -> None:
            threads.add(threading.get_ident())

        async for event in tiny_kws.listen_async(model, CONFIG, on_status=tell):
            heard.append(event.label)  # noqa: PERF401

    async def main() -> int:
        task = asyncio.create_task(hear())
        ticks = 0
        while not heard:
            await asyncio.sleep(0.005)
            ticks += 1
            if ticks == 20:
                fake.streams[0].give(sound)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ticks

    assert asyncio.run(asyncio.wait_for(main(), 20)) >= 20
    assert (heard, threads) == (["go"], {threading.get_ident()})
    assert [stream.is_closed for stream in fake.streams] == [True]


def test_closing_while_opening_leaves_nothing_open(fake: FakeSoundDevice, model: tiny_kws.StreamModel) -> None:
    """A listener that was closed does not open a device any more, and steps without events."""
    listener = Listener(model, CONFIG)
    listener.close()
    assert listener.open().step() == []
    assert fake.streams == []


def test_without_portaudio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sounddevice finds no PortAudio the error names the library's package."""

    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(KwsError, match=r"PortAudio library not found.*libportaudio2"):
        list_devices()


def test_the_package_imports_without_sounddevice() -> None:
    """Naming `tiny_kws.listen` needs no sounddevice; it is a function, and its twin an async generator's."""
    assert inspect.isgeneratorfunction(tiny_kws.listen)
    assert inspect.isasyncgenfunction(tiny_kws.listen_async)
    code = BLOCKER.format(blocked=("sounddevice",)) + "import tiny_kws; tiny_kws.listen(); print('fine')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
