"""`tiny-kws listen` as its user meets it, through a real capture path: played, recorded, heard."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from tiny_kws import Detector, DetectorConfig, cli
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE

from .helpers import command_line, run_cli
from .pulse import Pulse, running_pulse, wait_until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals as POSIX has them")

EXAMPLES = Path(__file__).parents[1] / "examples"
THRESHOLD = 0.4
WORDS = ("go.wav", "no.wav", "down.wav", "left.wav")
"""Examples that the bundled model hears well above the threshold."""

ONE_MODE = """
import sounddevice

class InputStream(sounddevice.InputStream):
    def __init__(self, samplerate, channels, **rest):
        if (samplerate, channels) != (RATE, CHANNELS):
            raise sounddevice.PortAudioError("Error opening InputStream: Invalid sample rate", -9997)
        super().__init__(samplerate=samplerate, channels=channels, **rest)

query_devices = sounddevice.query_devices

def changed(device):
    return {**device, "default_samplerate": RATE, "max_input_channels": CHANNELS}

def devices(device=None, kind=None):
    found = query_devices(device, kind)
    return changed(found) if isinstance(found, dict) else [changed(each) for each in found]

sounddevice.InputStream, sounddevice.query_devices = InputStream, devices
"""
"""What makes PulseAudio, which takes any rate, like a sound card that has one mode."""


class Listening:
    """A `listen` command that runs, and what it has said so far."""

    def __init__(
        self, pulse: Pulse, folder: Path, *options: str | Path, code: str = "", tty: int | None = None
    ) -> None:
        self._pulse = pulse
        self._paths = folder / "out.txt", folder / "err.txt"
        command = command_line("listen", "--threshold", str(THRESHOLD), *options)
        if code:
            command[3] = code + command[3]
        n_before = pulse.n_recording()
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self.process = subprocess.Popen(command, env=pulse.env, stdout=out, stderr=err if tty is None else tty)
        wait_until(lambda: pulse.n_recording() > n_before or self.process.poll() is not None, "the device is open")

    @property
    def out(self) -> str:
        return self._paths[0].read_text()

    @property
    def err(self) -> str:
        return self._paths[1].read_text()

    @property
    def complaints(self) -> list[str]:
        """What was said, but that a busy computer loses sound."""
        return [line for line in self.err.splitlines() if "overflows:" not in line]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def labels(self) -> list[str]:
        lines = self.out.splitlines()
        return [json.loads(line)["label"] if line.startswith("{") else line.split()[2] for line in lines]

    def hear(self, sound: Path, words: list[str]) -> None:
        """Play a recording until it is heard word for word, at most three times: a busy computer loses sound."""
        for _ in range(3):
            n_before, end = len(self.labels), time.monotonic() + 10
            self._pulse.play(sound)
            while self.labels[n_before:] != words and time.monotonic() < end:
                time.sleep(0.05)
            if self.labels[n_before:] == words:
                return
        assert self.labels[n_before:] == words, self.err

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


Listen = Callable[..., Listening]


@pytest.fixture(scope="module")
def pulse() -> Iterator[Pulse]:
    with running_pulse() as running:
        yield running


@pytest.fixture
def listen(pulse: Pulse, tmp_path: Path) -> Iterator[Listen]:
    """Start a `listen` that is ended with the test."""
    started: list[Listening] = []

    def start(*options: str | Path, **rest: Any) -> Listening:
        started.append(Listening(pulse, tmp_path, *options, **rest))
        return started[-1]

    yield start
    for listening in started:
        listening.process.kill()
        listening.process.wait()


def recording(folder: Path, names: Sequence[str]) -> tuple[Path, list[str]]:
    """A file with these examples one after the other, and the words that a detector finds in it."""
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    sound = np.concatenate([pause, *(part for name in names for part in (read_mono(EXAMPLES / name), pause))])
    sf.write(folder / "words.wav", sound, SAMPLE_RATE)
    detector = Detector(config=DetectorConfig(threshold=THRESHOLD))
    return folder / "words.wav", [event.label for event in detector.detect(sound)]


@pytest.mark.sound
def test_words_that_are_played_come_out_in_order(pulse: Pulse, listen: Listen, tmp_path: Path) -> None:
    """What is played is printed word for word, sets off its commands and is kept; Ctrl-C ends it with status 0."""
    sound, words = recording(tmp_path, WORDS)
    assert words == [Path(name).stem for name in WORDS]
    told = 'sh -c "echo $TINY_KWS_LABEL $TINY_KWS_CONFIDENCE $TINY_KWS_TIME >> told.txt"'.replace(
        "told.txt", str(tmp_path / "told.txt")
    )
    rules = ["--on", f"no={told}", "--on", f"go={told}", "--on", "go=sleep 30", "--on", "down=no-such-command"]
    listening = listen("--json", "--record-triggers", tmp_path / "kept", *rules, "--on", "left=false")
    listening.hear(sound, words)
    wait_until(lambda: "failed" in listening.err, "the last word's command has failed")
    assert listening.interrupt() == 0

    ends = [event["end_s"] for event in listening.events]
    assert ends == sorted(ends)
    ages = [datetime.now(timezone.utc) - datetime.fromisoformat(e["time"][:-1] + "+00:00") for e in listening.events]
    assert all(0 <= age.total_seconds() < 60 for age in ages)
    by_label = {event["label"]: event for event in listening.events}  # the latest of each
    told_lines = [f"{word} {by_label[word]['confidence']} {by_label[word]['time']}" for word in ("go", "no")]
    assert (tmp_path / "told.txt").read_text().splitlines()[-2:] == told_lines
    missing, failing = listening.complaints[-2:]
    assert "'down' (no-such-command)" in missing
    assert "'left' (false) failed with status 1" in failing
    kept = sorted((tmp_path / "kept").iterdir())[-len(words) :]
    assert [path.stem.split("_")[1] for path in kept] == words
    for path in kept:
        file = sf.info(path)
        assert (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE, 1, "PCM_16")
    assert sf.info(kept[-1]).duration == pytest.approx(2.0, abs=0.01)
    # The word is in it: a detector hears it there too.
    heard = Detector(config=DetectorConfig(threshold=THRESHOLD)).detect(kept[-1])
    assert words[-1] in [event.label for event in heard]


@pytest.mark.sound
def test_a_sound_system_that_dies_is_waited_for(pulse: Pulse, listen: Listen, tmp_path: Path) -> None:
    """When the device is gone that is said once, when it is back it is heard again; the clock went on meanwhile."""
    sound, words = recording(tmp_path, ["go.wav"])
    listening = listen("--json")
    listening.hear(sound, words)
    first, first_s = listening.events[-1], time.monotonic()
    pulse.kill()
    wait_until(lambda: "is gone" in listening.err, "the loss is reported")
    time.sleep(4)
    pulse.start()
    wait_until(lambda: "sound is back" in listening.err, "the return is reported")
    listening.hear(sound, words)
    second, passed_s = listening.events[-1], time.monotonic() - first_s
    assert listening.interrupt() == 0
    gone, back = listening.complaints
    assert re.fullmatch(r"tiny-kws: default: is gone \(unplugged\?\); .*", gone)
    assert re.fullmatch(r"tiny-kws: sound is back after \d+\.\d s", back)
    assert second["end_s"] - first["end_s"] == pytest.approx(passed_s, abs=2.0)


@pytest.mark.sound
@pytest.mark.parametrize(("rate", "channels"), [(44100, 1), (48000, 2)])
def test_a_device_of_another_rate_is_resampled(
    pulse: Pulse, listen: Listen, tmp_path: Path, rate: int, channels: int
) -> None:
    """Where 16 kHz is refused, a device's own rate and channels are heard as well."""
    sound, words = recording(tmp_path, WORDS[:1])
    code = ONE_MODE.replace("RATE", str(rate)).replace("CHANNELS", str(channels))
    listening = listen("--json", "--device", "pulse", code=code)
    listening.hear(sound, words)
    assert (listening.interrupt(), listening.complaints) == (0, [])


@pytest.mark.sound
def test_the_terminal_shows_level_and_label(pulse: Pulse, listen: Listen, tmp_path: Path) -> None:
    """A terminal says what to say, draws level and likeliest label on one line again and again, and counts words."""
    sound, words = recording(tmp_path, WORDS[:1])
    ours, theirs = os.openpty()
    listening = listen(tty=theirs)
    listening.hear(sound, words)
    assert listening.interrupt() == 0
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    os.close(theirs)
    draws = [draw for draw in shown.split("\r\x1b[K") if draw]
    draws = [draw for draw in draws if "overflows:" not in draw]
    first, *draws, last = draws
    assert re.fullmatch(r"Listening on default; say yes, no, .*\. Ctrl-C ends\.\s+", first)
    assert re.match(rf"Heard \d+ words? in \d+:\d\d min: {words[0]} \d", last)
    assert len(draws) > 10
    assert all(re.fullmatch(r" *-\d+ dBFS \[#* *\] \w+ \d\.\d\d", draw) for draw in draws), draws
    assert any(f"] {words[0]} " in draw for draw in draws)
    *_, line = listening.out.splitlines()
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  {words[0]} +0\.\d{{3}} +\d+\.\d\d s", line)


ASYNC = """
import asyncio, contextlib, sys, tiny_kws

async def main():
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.05)
            ticks += 1

    ticking = asyncio.create_task(tick())
    levels = []
    config = tiny_kws.DetectorConfig(threshold=float(sys.argv[1]))
    events = tiny_kws.listen_async(config=config, on_status=lambda status: levels.append(status.level_db))
    async with contextlib.aclosing(events):
        async for event in events:
            print(event.label, flush=True)
            if event.label == sys.argv[2]:
                break
    ticking.cancel()
    print(ticks > 5, len(levels) > 10, max(levels) > -60)

asyncio.run(main())
"""

SYNC = """
import sys, threading, tiny_kws

for event in tiny_kws.listen(config=tiny_kws.DetectorConfig(threshold=float(sys.argv[1]))):
    print(event.label, flush=True)
    if event.label == sys.argv[2]:
        break
import sounddevice
print(sounddevice._initialized, event.end_s > 0)
"""


@pytest.mark.sound
@pytest.mark.parametrize(("code", "last_line"), [(SYNC, "1 True"), (ASYNC, "True True True")], ids=["sync", "async"])
def test_listening_in_python(pulse: Pulse, tmp_path: Path, code: str, last_line: str) -> None:
    """Events come out of a for loop and its async twin, which ends when it is left; the event loop goes on."""
    sound, (word,) = recording(tmp_path, WORDS[:1])
    command = [sys.executable, "-c", code, str(THRESHOLD), word]
    with subprocess.Popen(command, env=pulse.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: pulse.n_recording() > 1, "the device is open")
        for _ in range(3):  # a busy computer loses sound
            if process.poll() is None:
                pulse.play(sound)
                time.sleep(0.5)
        out, err = process.communicate(timeout=60)
    assert (out.splitlines()[-2:], err) == ([word, last_line], "")
    assert pulse.n_recording() == 1


def run_with(pulse: Pulse, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `listen` to its end where this sound system is."""
    command = command_line("listen", *options)
    return subprocess.run(command, env=pulse.env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.sound
def test_the_devices_are_listed(pulse: Pulse) -> None:
    """--list-devices prints number, name, channels and rate of each, and marks the default one."""
    done = run_with(pulse, "--list-devices")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [re.fullmatch(r"([* ])  *\d+  (\w+) +\d+ channels +\d+ Hz  ALSA", row) for row in done.stdout.splitlines()]
    assert {row[2]: row[1] for row in rows if row} == {"pulse": " ", "default": "*"}


@pytest.mark.sound
def test_a_device_that_is_not_there_is_named(pulse: Pulse) -> None:
    """A name that no device has is one line with those that there are, and status 1."""
    done = run_with(pulse, "--device", "studio")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"tiny-kws: found no microphone 'studio', expected one of \d .*default\n", done.stderr)


@pytest.mark.sound
def test_listening_ends_after_the_seconds_asked_for(pulse: Pulse) -> None:
    """--seconds ends by itself with status 0; where nothing was heard nothing is printed."""
    done = run_with(pulse, "--seconds", "0.5", "--threshold", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_sounddevice_the_extra_is_named() -> None:
    """Where sounddevice is not installed, the line says which extra brings it."""
    done = run_cli("listen", blocked=["sounddevice"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install '.[mic]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--on", "maybe=ls"], "'maybe'"),
        (["--on", "yes"], "'yes'"),
        (["--on", "yes=echo 'open"], "No closing quotation"),
        (["--threshold", "2"], "threshold"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_opened(
    options: list[str], found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label the model does not know, a rule without a command or a threshold over 1 is one line and status 2."""
    monkeypatch.setattr(sys, "argv", ["tiny-kws", "listen", *options])
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # importing it would fail
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    out, err = capsys.readouterr()
    assert (exit_.value.code, out) == (2, "")
    assert found in err
    assert err.count("\n") == 1
