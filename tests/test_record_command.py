"""`tiny-kws enroll --record` as its user meets it: takes that are asked for, spoken, looked at and kept."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

from tiny_kws import AudioError
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.enrolment import record
from tiny_kws.enrolment.bank import BANK
from tiny_kws.enrolment.record import Recorder, keep, problem_of
from tiny_kws.listening.microphone import Device
from tiny_kws.listening.session import Block

from .helpers import command_line, run_cli
from .pulse import Pulse, running_pulse

EXAMPLES = Path(__file__).parents[1] / "examples"
Sound = npt.NDArray[np.float32]
PAUSE = np.zeros(round(0.4 * SAMPLE_RATE), np.float32)


def word() -> Sound:
    """*window*, said once, between pauses."""
    return np.concatenate([PAUSE, read_mono(EXAMPLES / "other_window.wav"), PAUSE])


def clipped() -> Sound:
    return (30 * word()).clip(-1, 1)


def quiet() -> Sound:
    return np.float32(0.006) * word()


def twice() -> Sound:
    audio = read_mono(EXAMPLES / "other_window.wav")[3000:11700]
    return np.concatenate([PAUSE, audio, PAUSE, audio, PAUSE])


def noise() -> Sound:
    return np.random.default_rng(0).normal(0, 0.05, 2 * SAMPLE_RATE).astype(np.float32)


PROBLEMS = {
    "silence": (lambda: np.zeros(SAMPLE_RATE, np.float32), "only silence"),
    "nothing": (lambda: np.zeros(0, np.float32), "only silence"),
    "noise": (noise, "no word stands out"),
    "clipped": (clipped, "too loud"),
    "quiet": (quiet, "too quiet"),
    "twice": (twice, "2 words"),
    "cut": (lambda: word()[round(0.7 * SAMPLE_RATE) :], "the word began before"),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_take_that_cannot_be_used_is_told_why(kind: str) -> None:
    """Silence, noise, a word that is clipped, too quiet, said twice or cut off: each has its own reason."""
    make, reason = PROBLEMS[kind]
    assert problem_of(make()).startswith(reason)


@pytest.mark.parametrize("gain", [0.1, 0.3, 1.0])
def test_a_good_take_has_no_problem(gain: float) -> None:
    """A word said once is fine, from near and from far."""
    assert problem_of(np.float32(gain) * word()) == ""


def test_takes_are_numbered_and_none_is_written_over(tmp_path: Path) -> None:
    """A take gets the first free number of its word; what is there stays."""
    names = [keep(tmp_path / "r", "lights out", np.full(160, level, np.float32)).name for level in (0.1, 0.2)]
    (tmp_path / "r" / names[0]).unlink()
    names.append(keep(tmp_path / "r", "lights out", np.full(160, 0.3, np.float32)).name)
    assert names == ["lights-out-01.wav", "lights-out-02.wav", "lights-out-01.wav"]
    assert sf.read(tmp_path / "r" / "lights-out-02.wav")[0][0] == pytest.approx(0.2, abs=1e-4)
    file = sf.info(tmp_path / "r" / "lights-out-01.wav")
    assert (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE, 1, "PCM_16")


class FakeCapture:
    """A device whose blocks are handed in; `opened` counts how often one was."""

    opened = 0

    def __init__(self, device: Device) -> None:
        FakeCapture.opened += 1
        self.device, self.rate, self.channels = device, SAMPLE_RATE, 1
        self.blocks: list[Sound] = []
        self.is_alive = True

    def hear(self, sound: Sound) -> None:
        self.blocks += [sound[i : i + 640] for i in range(0, len(sound), 640)]

    def read(self, _timeout_s: float) -> Block | None:
        return Block(self.blocks.pop(0)[:, None], 0.0) if self.blocks else None


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """On a device that says what the test lets it."""
    monkeypatch.setattr(FakeCapture, "opened", 0)
    monkeypatch.setattr(record, "Capture", FakeCapture)
    monkeypatch.setattr(record, "list_devices", lambda: [Device(0, "fake", 1, SAMPLE_RATE, "none", True)])
    return Recorder()


def test_a_take_is_what_was_said_after_the_sign(recorder: Recorder) -> None:
    """Talk before the sign is not in the take, whose sound is whole from the sign on; the device was opened once."""
    capture = recorder._capture
    assert isinstance(capture, FakeCapture)
    for _ in range(3):
        capture.hear(clipped())
        take = recorder.take(lambda: capture.hear(np.concatenate([word(), PAUSE, PAUSE])))
        assert take.problem == ""
        assert np.array_equal(take.audio, np.concatenate([word(), PAUSE, PAUSE])[: len(take.audio)])
    assert FakeCapture.opened == 1


def test_a_device_that_goes_is_named(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A microphone that is unplugged while it is waited for ends the take at once, with its name."""
    monkeypatch.setattr(record, "STALL_S", np.inf)
    recorder._capture.is_alive = False  # type: ignore[misc]
    with pytest.raises(AudioError, match="fake: has stopped giving sound"):
        recorder.take(lambda: None)


# With a microphone


@pytest.fixture(scope="module")
def pulse() -> Iterator[Pulse]:
    with running_pulse() as running:
        yield running


class Speaker:
    """Who says one sound after another, each when `enroll --record` asks for it."""

    def __init__(self, pulse: Pulse, folder: Path) -> None:
        self.pulse, self.folder = pulse, folder
        self.recordings = folder / "window-recordings"

    def answer(self, sounds: Sequence[Sound | None], *options: str | Path, stop: bool = False) -> tuple[int, list[str]]:
        """Say `sounds`, nothing for None; status and lines on standard error. With `stop`, Ctrl-C comes after them."""
        command = command_line("enroll", "window", *options)
        files = [self._written(i, sound) for i, sound in enumerate(sounds)]
        lines = []
        with (
            (self.folder / "out.txt").open("w") as out,
            subprocess.Popen(
                command, env=self.pulse.env, cwd=self.folder, stdout=out, stderr=subprocess.PIPE, text=True
            ) as process,
        ):
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line.rstrip("\n"))
                if " now" not in line:
                    continue
                if files and (file := files.pop(0)):
                    self.pulse.play(file)
                elif stop and not files:
                    process.send_signal(signal.SIGINT)
        return process.returncode, lines

    def _written(self, number: int, sound: Sound | None) -> Path | None:
        if sound is None:
            return None
        path = self.folder / f"said-{number}.wav"
        sf.write(path, sound, SAMPLE_RATE)
        return path

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in self.recordings.glob("*"))


@pytest.fixture
def speaker(pulse: Pulse, tmp_path: Path) -> Speaker:
    """Recordings and models of it go into a folder of the test's own."""
    if not BANK.exists():
        pytest.skip("the bank of speech is not here")
    return Speaker(pulse, tmp_path)


def asked(lines: Sequence[str]) -> list[str]:
    """What was asked for and complained of, in few letters."""
    return [line.removeprefix("tiny-kws: ").split(":")[0].split(",")[0] for line in lines]


@pytest.mark.sound
@pytest.mark.slow
def test_takes_are_asked_for_until_they_are_good(speaker: Speaker) -> None:
    """Of six things said the two good ones are kept, the others refused with the reason; then there is a model."""
    status, lines = speaker.answer([None, quiet(), clipped(), twice(), word(), word()], "--record", "2", "--play")
    assert status == 0, lines
    reasons = ["only silence", "too quiet", "too loud", "2 words with pauses between"]
    wanted = [part for reason in reasons for part in ("1 of 2", reason)]
    assert asked(lines) == [*wanted, "1 of 2", "2 of 2", "Recorded 2 takes into window-recordings"]
    assert speaker.kept == ["window-01.wav", "window-02.wav"]
    for name in speaker.kept:
        assert problem_of(read_mono(speaker.recordings / name)) == ""
    assert "window: 2 takes, 0.5 s long" in (speaker.folder / "out.txt").read_text()
    assert (speaker.folder / "window.onnx").stat().st_size > 100_000


@pytest.mark.sound
@pytest.mark.slow
def test_recording_is_given_up_after_five_tries(speaker: Speaker) -> None:
    """Five takes that are too loud end it with status 1 and one line; what was kept before stays, no model comes."""
    status, lines = speaker.answer([word(), *[clipped()] * 5], "--record", "2")
    assert status == 1
    assert asked(lines)[-2:] == ["Recorded 1 take into window-recordings", "2 of 2"]
    assert "gave up after 5 tries" in lines[-1]
    assert sum("too loud" in line for line in lines) == 5
    assert speaker.kept == ["window-01.wav"]
    assert not list(speaker.folder.glob("*.onnx"))


@pytest.mark.sound
def test_ctrl_c_keeps_the_takes(speaker: Speaker) -> None:
    """Interrupted at the second take it ends with status 130, and the first one is there."""
    status, lines = speaker.answer([word()], "--record", "3", stop=True)
    assert (status, lines[-2:]) == (
        130,
        ["Recorded 1 take into window-recordings", "tiny-kws: interrupted"],
    )
    assert speaker.kept == ["window-01.wav"]


@pytest.mark.sound
def test_what_would_fail_afterwards_fails_before_recording(speaker: Speaker) -> None:
    """A missing bank, a place that is a folder, a model that takes no words: said before anybody speaks."""
    (speaker.folder / "folder").mkdir()
    listener = Path(BANK).parent / "listener.stream.onnx"
    for options in (["--bank", "no.bank"], ["--out", "folder"], ["--add", listener, "--out", "new.onnx"]):
        status, lines = speaker.answer([], "--record", "2", *options)
        assert (status, len(lines)) == (1, 1), lines
        assert " now" not in lines[0]


# Without one


def test_without_sounddevice_the_extra_is_named(tmp_path: Path) -> None:
    """Where sounddevice is not installed, the line says which extra brings it."""
    if not BANK.exists():
        pytest.skip("the bank of speech is not here")
    done = run_cli("enroll", "window", "--record", "2", blocked=["sounddevice"], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"tiny-kws: [^\n]*pip install '\.\[mic\]'\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--play"], ["--device", "pulse"], ["--record", "0"], []])
def test_options_of_recording_need_it(options: list[str], tmp_path: Path) -> None:
    """--play and --device without --record, and no recordings at all, are one line and status 2."""
    done = run_cli("enroll", "window", *options, *(["a.wav"] if options else []), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--record" in done.stderr
