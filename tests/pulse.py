"""A sound system of the tests' own: PulseAudio with a speaker into nothing, whose monitor is the microphone."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .helpers import environment

PROGRAMS = ("pulseaudio", "pactl", "paplay", "parec")

ALSA = """
</usr/share/alsa/alsa.conf>
pcm.!default { type pulse }
ctl.!default { type pulse }
"""
"""What programs that record through ALSA, as PortAudio does, find."""


class Pulse:
    """One PulseAudio daemon, of a runtime folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "client.conf").write_text("autospawn = no\n")
        (folder / "asound.conf").write_text(ALSA)
        self.env = {
            **environment(),
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder / "pulse"),
            "PULSE_CLIENTCONFIG": str(folder / "client.conf"),
            "ALSA_CONFIG_PATH": str(folder / "asound.conf"),
        }
        for name in ("PULSE_SERVER", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY"):
            self.env.pop(name, None)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        modules = ("module-native-protocol-unix", "module-null-sink sink_name=speaker")
        options = ["-n", "--system=false", "--daemonize=no", "--exit-idle-time=-1", *(f"--load={m}" for m in modules)]
        self.daemon = self._popen("pulseaudio", *options)
        wait_until(lambda: self.run("pactl", "info").returncode == 0, "PulseAudio answers")
        # With nobody in a hurry the speaker plays two seconds at a time, and whoever comes misses as much.
        self.hurry = self._popen("parec", "--device=speaker.monitor", "--latency-msec=100")
        wait_until(lambda: self.n_recording() == 1, "somebody records")

    def kill(self) -> None:
        """End the daemon without warning."""
        for process in (self.hurry, self.daemon):
            process.kill()
            process.wait()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program that talks to the daemon."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def n_recording(self) -> int:
        """How many programs record now."""
        return len(self.run("pactl", "list", "short", "source-outputs").stdout.splitlines())

    def play(self, path: Path) -> None:
        """Play a sound file to its end."""
        done = self.run("paplay", "--device=speaker", "--latency-msec=100", path)
        assert done.returncode == 0, done.stderr

    def _popen(self, *command: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, env=self.env, stdin=quiet, stdout=quiet, stderr=quiet)


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    """Wait for something that has to come true."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(0.05)


def missing() -> str:
    """What is not installed that a capture path needs, or nothing."""
    found = [name for name in PROGRAMS if shutil.which(name) is None]
    if importlib.util.find_spec("sounddevice") is None:
        found.append("sounddevice")
    if ctypes.util.find_library("portaudio") is None:
        found.append("libportaudio2")
    if not list(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        found.append("libasound2-plugins")
    return ", ".join(found)


@contextmanager
def running_pulse() -> Iterator[Pulse]:
    """A daemon that runs during this block; skips the test where it cannot."""
    if os.name == "nt" or missing():
        pytest.skip(f"no capture path to test with: without {missing() or 'PulseAudio'}")
    # not under pytest's folder: a socket's path may have 107 characters
    with tempfile.TemporaryDirectory(prefix="kws-") as folder:
        pulse = Pulse(Path(folder))
        pulse.start()
        try:
            yield pulse
        finally:
            pulse.kill()
