"""`tiny-kws detect` as its user meets it: events as they come, a label track, a picture, trouble in one line."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
from matplotlib.image import imread
from rich.cells import cell_len

from tiny_kws import Detector, DetectorConfig
from tiny_kws.audio import read_mono
from tiny_kws.cli import listening
from tiny_kws.cli.live import LiveLine, print_event
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.evaluation.timeline import PLOT_BINS, DetectionPlot, Peaks
from tiny_kws.listening.decoder import Decoder, Detection
from tiny_kws.listening.detector import Step, write_config
from tiny_kws.listening.session import Status

from . import test_cli
from .conftest import full_disk
from .helpers import command_line, environment, write_sound
from .test_cli import Outcome, Run, run_apart, unix_only
from .test_console import steers

run = test_cli.run
EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = DetectorConfig(
    hop_ms=100, smoothing_ms=120, threshold=0.3, thresholds={}, min_duration_ms=40, release=0.5, refractory_ms=700
)
"""Every setting given; so low a threshold that some of the examples are sure to be heard, whatever model is bundled."""

SAID = ("go.wav", "no.wav", "down.wav")
PAUSE = 2 * SAMPLE_RATE


@pytest.fixture(scope="module")
def audio() -> npt.NDArray[np.float32]:
    """Three words, each with two seconds of quiet noise behind it."""
    rng = np.random.default_rng(0)
    parts = []
    for name in SAID:
        parts += [read_mono(EXAMPLES / name), rng.normal(0, 1e-3, PAUSE)]
    return np.round(np.concatenate(parts) * 32768).clip(-32768, 32767).astype(np.float32) / 32768


@pytest.fixture(scope="module")
def recording(audio: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a WAV of 16 bits; not to be written to."""
    path = tmp_path_factory.mktemp("said") / "said.wav"
    sf.write(path, audio, SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def expected(audio: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    """What is to be heard in it, by the detector's own answer; two events at least."""
    found = events_in(audio)
    assert len(found) >= 2
    return found


def events_in(audio: npt.NDArray[np.float32] | Path) -> list[dict[str, Any]]:
    """The events that the default model finds."""
    return [asdict(event) for event in Detector(config=CONFIG).detect(audio)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that set a detector to CONFIG."""
    path = tmp_path_factory.mktemp("settings") / "room.json"
    write_config(path, CONFIG, Detector().model)
    return ["--config", str(path)]


def heard(done: Outcome) -> list[dict[str, Any]]:
    """The events of --json, without file and time, which is for microphones."""
    events = [json.loads(line) for line in done.out.splitlines()]
    return [{key: value for key, value in event.items() if key not in ("file", "time")} for event in events]


def pcm(audio: npt.NDArray[np.float32]) -> bytes:
    return (audio * 32768).astype("<i2").tobytes()


# What is printed


def test_a_table(run: Run, recording: Path, expected: list[dict[str, Any]], settings: list[str]) -> None:
    """Events are rows under a head: file, label, start, end, confidence."""
    done = run("detect", recording, *settings)
    head, *lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert head.split() == ["file", "label", "start", "end", "confidence"]
    for line, event in zip(lines, expected, strict=True):
        times = [f"{event['start_s']:.2f}", "s", f"{event['end_s']:.2f}", "s"]
        assert line.split() == [str(recording), event["label"], *times, f"{event['confidence']:.3f}"]
        assert len(line) == len(head)


def test_json_lines(run: Run, recording: Path, expected: list[dict[str, Any]], settings: list[str]) -> None:
    """With --json every event is one object on one line, with the file's name, and nothing else is printed."""
    done = run("detect", recording, "--json", *settings)
    assert (done.status, done.err) == (0, "")
    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"file": str(recording), "time": None, **e} for e in expected
    ]


def test_many_files(
    run: Run, recording: Path, tmp_path: Path, expected: list[dict[str, Any]], settings: list[str]
) -> None:
    """Files and walked folders are each named, in order; one without words says so, and starts anew after another."""
    folder = tmp_path / "more" / "deeper"
    folder.mkdir(parents=True)
    (folder / "said.wav").write_bytes(recording.read_bytes())
    sf.write(folder / "quiet.flac", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    done = run("detect", recording, tmp_path / "more", recording, *settings)
    rows = [(line.split()[0], line.split()[1:3]) for line in done.out.splitlines()[1:]]
    paths = [recording, folder / "quiet.flac", folder / "said.wav", recording]
    words = [[event["label"], f"{event['start_s']:.2f}"] for event in expected]
    assert done.status == 0
    assert rows == [(str(p), row) for p in paths for row in ([["no", "words"]] if p.suffix == ".flac" else words)]


def test_no_words_as_json(run: Run, tmp_path: Path) -> None:
    """With --json a recording without words prints nothing."""
    sf.write(tmp_path / "quiet.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    assert run("detect", tmp_path / "quiet.wav", "--json") == (0, "", "")


def test_a_clip_artefact_slides(run: Run, recording: Path, tmp_path: Path, audio: npt.NDArray[np.float32]) -> None:
    """--model may name a clip artefact; its window slides over the recording."""
    detector = Detector("ds-cnn", CONFIG)
    write_config(tmp_path / "room.json", CONFIG, detector.model)
    done = run("detect", recording, "--json", "--config", tmp_path / "room.json", "--model", "ds-cnn")
    assert heard(done) == [asdict(event) for event in detector.detect(audio)]
    assert heard(done)


def test_settings_from_a_file(run: Run, recording: Path, tmp_path: Path, audio: npt.NDArray[np.float32]) -> None:
    """--config takes the settings of a file; --threshold changes the thresholds in it, those of labels too."""
    config = replace(CONFIG, thresholds={"no": 1.0}, smoothing_ms=320.0)
    detector = Detector(config=config)
    write_config(tmp_path / "room.json", config, detector.model)
    done = run("detect", recording, "--json", "--config", tmp_path / "room.json")
    assert heard(done) == [asdict(event) for event in detector.detect(audio)]
    assert heard(done)
    changed = Detector(config=replace(config, threshold=0.2, thresholds={}))
    done = run("detect", recording, "--json", "--config", tmp_path / "room.json", "--threshold", 0.2)
    assert heard(done) == [asdict(event) for event in changed.detect(audio)]


# Label track and picture


def test_a_label_track(
    run: Run, recording: Path, tmp_path: Path, expected: list[dict[str, Any]], settings: list[str]
) -> None:
    """--labels writes what Audacity imports: start, end and label, tab-separated; events are printed all the same."""
    done = run("detect", recording, *settings, "--labels", tmp_path / "new" / "words.txt")
    rows = [line.split("\t") for line in (tmp_path / "new" / "words.txt").read_text().splitlines()]
    assert (done.status, len(done.out.splitlines())) == (0, 1 + len(expected))
    assert [(float(start), float(end), label) for start, end, label in rows] == [
        (event["start_s"], event["end_s"], event["label"]) for event in expected
    ]


def test_a_label_track_without_labels(run: Run, tmp_path: Path) -> None:
    """A recording without words has an empty track."""
    sf.write(tmp_path / "quiet.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    assert run("detect", tmp_path / "quiet.wav", "--labels", tmp_path / "words.txt").status == 0
    assert (tmp_path / "words.txt").read_bytes() == b""


def red(picture: Path) -> npt.NDArray[np.bool_]:
    """Where a picture has the colour of events."""
    pixels = imread(picture)
    return pixels[..., 0] - pixels[..., 1:3].max(-1) > 0.15  # type: ignore[no-any-return]


@pytest.mark.parametrize("seconds", [0.01, 1.0, 200.0])
def test_a_picture(run: Run, tmp_path: Path, seconds: float) -> None:
    """--plot draws a recording of any length, the shortest too; without events there is no mark in it."""
    sound = write_sound(tmp_path / "noise.wav", seconds)
    done = run("detect", sound, "--threshold", 1, "--plot", tmp_path / "noise.png")
    assert (done.status, done.err) == (0, "")
    pixels = imread(tmp_path / "noise.png")
    assert pixels.shape[1] == 1800
    assert (pixels[..., :3].sum(-1) < 1.5).mean() > 0.02  # the waveform
    assert not red(tmp_path / "noise.png").any()


def test_events_are_marked(tmp_path: Path) -> None:
    """Each event is a mark at its time: their distances in the picture are those in the recording."""
    at_s = [1.0, 2.5, 6.0, 40.0]
    picture = DetectionPlot(Decoder(LABELS, 0.04, CONFIG))
    for _ in range(42):
        picture.add(np.zeros(SAMPLE_RATE, np.float32), np.zeros((25, len(picture.words))))
    picture.save("話す $words_", [Detection("yes", end_s - 1, end_s, 0.9) for end_s in at_s], tmp_path / "said.png")
    full = np.flatnonzero(red(tmp_path / "said.png").sum(0) > 100)
    centres = [group.mean() for group in np.split(full, np.flatnonzero(np.diff(full) > 3) + 1)]
    assert len(centres) == len(at_s)
    np.testing.assert_allclose(np.diff(centres) / (centres[-1] - centres[0]), np.diff(at_s) / 39, atol=1e-3)


@pytest.mark.parametrize("n_rows", [1, 2, PLOT_BINS, 2 * PLOT_BINS, 2 * PLOT_BINS + 1, 123_457])
@pytest.mark.parametrize("n_at_once", [1_000, 200_000])
def test_peaks(n_rows: int, n_at_once: int) -> None:
    """Peaks are the maxima of equal bins, whatever the division; their number is bounded."""
    rows = np.random.default_rng(0).normal(size=(n_rows, 2)).astype(np.float32)
    peaks = Peaks(2)
    for start in range(0, n_rows, n_at_once):
        peaks.add(rows[start : start + n_at_once])
        peaks.add(rows[:0])
    expected = [rows[start : start + peaks.width].max(0) for start in range(0, n_rows, peaks.width)]
    np.testing.assert_array_equal(peaks.bins, expected)
    assert min(n_rows, PLOT_BINS) <= len(peaks.bins) <= 2 * PLOT_BINS


@pytest.mark.parametrize("option", ["--labels", "--plot"])
def test_one_recording_at_a_time(run: Run, recording: Path, tmp_path: Path, option: str) -> None:
    """A label track or picture of several recordings is wrong use, and none of them is heard."""
    done = run("detect", recording, recording, option, tmp_path / "out")
    assert (done.status, done.out) == (2, "")
    assert "found 2 recordings, expected one" in done.complaint
    assert not (tmp_path / "out").exists()


@unix_only
@pytest.mark.parametrize(("option", "free_bytes"), [("--labels", 10), ("--plot", 1_000)])
def test_a_full_disk(
    run: Run,
    recording: Path,
    tmp_path: Path,
    expected: list[dict[str, Any]],
    option: str,
    free_bytes: int,
    settings: list[str],
) -> None:
    """Where track or picture cannot be written that is one line, after the events, and nothing of it is left."""
    with full_disk(free_bytes):
        done = run("detect", recording, *settings, option, tmp_path / "out")
    assert (done.status, len(done.out.splitlines())) == (1, 1 + len(expected))
    assert "out: cannot be written" in done.complaint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--labels", "--plot"])
def test_no_sound_no_output(run: Run, tmp_path: Path, option: str) -> None:
    """Of a recording without any sound no track and no picture is written."""
    sf.write(tmp_path / "none.wav", np.zeros(0), SAMPLE_RATE)
    done = run("detect", tmp_path / "none.wav", option, tmp_path / "out")
    assert (done.status, done.out) == (1, "")
    assert "holds no samples" in done.complaint
    assert not (tmp_path / "out").exists()


def test_the_picture_needs_matplotlib(recording: Path, tmp_path: Path, settings: list[str]) -> None:
    """Without matplotlib everything but --plot works; it says what to install before any sound is heard."""
    done = run_apart("detect", recording, *settings, blocked=("matplotlib", "torch"))
    assert (done.status, done.err) == (0, "")
    done = run_apart("detect", recording, "--plot", tmp_path / "out.png", blocked=("matplotlib", "torch"))
    assert (done.status, done.out) == (1, "")
    assert "needs matplotlib" in done.complaint
    assert "[plot]" in done.complaint


# Raw samples on standard input


def test_raw_samples(
    run: Run, audio: npt.NDArray[np.float32], expected: list[dict[str, Any]], settings: list[str]
) -> None:
    """`-` hears raw samples just as a file of them."""
    done = run("detect", "-", "--json", *settings, stdin=pcm(audio))
    assert (done.status, done.err) == (0, "")
    assert heard(done) == expected
    assert json.loads(done.out.splitlines()[0])["file"] == "standard input"


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 1)])
def test_raw_samples_of_any_rate(
    run: Run, audio: npt.NDArray[np.float32], tmp_path: Path, rate: int, channels: int, settings: list[str]
) -> None:
    """--rate and --channels say what the samples are; a WAV of the same has the same events."""
    import soxr

    values = np.stack([soxr.resample(audio, SAMPLE_RATE, rate).clip(-1, 0.999)] * channels, axis=1)
    sf.write(tmp_path / "said.wav", values, rate, subtype="PCM_16")
    raw = sf.read(tmp_path / "said.wav", dtype="int16")[0].tobytes()
    options = ["--json", *settings]
    done = run("detect", "-", "--rate", rate, "--channels", channels, *options, stdin=raw)
    assert (done.status, done.err) == (0, "")
    assert heard(done) == heard(run("detect", tmp_path / "said.wav", *options))
    assert heard(done)


def test_a_pipe_that_ends_amid_a_sample(
    run: Run, audio: npt.NDArray[np.float32], expected: list[dict[str, Any]], tmp_path: Path, settings: list[str]
) -> None:
    """The events until then are printed and written, then a complaint; status 1."""
    track = tmp_path / "words.txt"
    done = run("detect", "-", "--json", *settings, "--labels", track, stdin=pcm(audio) + b"x")
    assert done.status == 1
    assert heard(done) == expected
    assert "standard input: ends in the middle of a sample" in done.complaint
    assert len(track.read_text().splitlines()) == len(expected)


@pytest.mark.parametrize("name", ["f32be", "F32_BE"])
def test_raw_samples_of_another_format(run: Run, name: str) -> None:
    """`--format` says what the raw samples are, as ffmpeg or ALSA call it."""
    raw = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(">f4").tobytes()
    done = run("detect", "-", "--format", name, "--rate", "8000", stdin=raw)
    assert (done.status, done.err) == (0, "")
    done = run("detect", "-", "--format", name, stdin=raw[:-1])
    assert (done.status, "32 bits for each of 1 channels" in done.err) == (1, True)


def test_a_format_that_there_is_not(run: Run) -> None:
    """Another format is a wrong use, and those that there are are named."""
    done = run("detect", "-", "--format", "mp3", stdin=b"")
    assert done.status == 2
    assert "--format: found 'mp3', expected one of s8, u8, s16le" in done.err


@pytest.mark.parametrize(
    ("stdin", "reason"), [(b"", "standard input: is empty"), (test_cli.wav_bytes(), "found a sound file")]
)
def test_a_pipe_without_raw_samples(run: Run, stdin: bytes, reason: str) -> None:
    """A pipe with nothing, or with a file's header, in it is one complaint and status 1."""
    done = run("detect", "-", stdin=stdin)
    assert (done.status, done.out) == (1, "")
    assert reason in done.complaint


@pytest.mark.parametrize("options", [["--rate", 999], ["--rate", "fast"], ["--channels", 0], ["--channels", 65]])
def test_rates_and_channels_out_of_range(run: Run, options: list[str]) -> None:
    """A rate or number of channels that no sound has is wrong use."""
    done = run("detect", "-", *options, stdin=b"\0\0")
    assert (done.status, done.out) == (2, "")
    assert str(options[0]) in done.complaint


class Live:
    """`tiny-kws detect -` that runs, its standard input open, its lines with the time at which they came."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[tuple[float, str]] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.decode()))

    def send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def wait_for(self, n_lines: int) -> None:
        """Until so many lines came, a minute at most."""
        until = time.monotonic() + 60
        while len(self.lines) < n_lines and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.lines) >= n_lines

    def end(self) -> Outcome:
        _, err = self.process.communicate(timeout=60)
        self.reader.join(60)
        return Outcome(self.process.returncode, "".join(line for _, line in self.lines), err.decode())


@contextmanager
def live(*options: Any) -> Iterator[Live]:
    """Run `detect -` in a process of its own."""
    command = command_line("detect", "-", "--json", *map(str, options))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, env=environment()) as process:  # type: ignore[call-overload]
        try:
            yield Live(process)
        finally:
            process.kill()


def test_events_come_while_the_pipe_is_open(
    audio: npt.NDArray[np.float32], expected: list[dict[str, Any]], settings: list[str]
) -> None:
    """An event is printed as soon as its last sample was sent, though the pipe stays open and half a block is full."""
    with live(*settings) as process:
        for n, event in enumerate(expected, 1):
            start = 0 if n == 1 else round(expected[n - 2]["end_s"] * SAMPLE_RATE)
            for piece in np.array_split(audio[start : round(event["end_s"] * SAMPLE_RATE)], 20):
                process.send(pcm(piece))
            process.wait_for(n)
            assert json.loads(process.lines[-1][1])["end_s"] == event["end_s"]
        process.send(pcm(audio[round(expected[-1]["end_s"] * SAMPLE_RATE) :]))
        done = process.end()
    assert (done.status, done.err) == (0, "")
    assert heard(done) == expected


@unix_only
def test_interrupting_a_pipe(
    audio: npt.NDArray[np.float32], tmp_path: Path, expected: list[dict[str, Any]], settings: list[str]
) -> None:
    """Ctrl-C while the pipe is open ends with one line and status 130; the track of what was heard is whole."""
    with live(*settings, "--labels", tmp_path / "words.txt") as process:
        process.send(pcm(audio))
        process.wait_for(len(expected))
        process.process.send_signal(signal.SIGINT)
        done = process.end()
    assert (done.status, done.complaint) == (130, "tiny-kws: interrupted")
    assert len((tmp_path / "words.txt").read_text().splitlines()) == len(expected)


@unix_only
def test_a_reader_that_goes(recording: Path, settings: list[str]) -> None:
    """Where nobody reads the events, as behind `head -1`, the command ends without a word."""
    command = command_line("detect", recording, *settings)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
    assert (process.returncode, err) == (1, b"")


@unix_only
def test_a_full_disk_behind_standard_output(recording: Path, settings: list[str]) -> None:
    """Events that cannot be printed are one line, status 1."""
    with Path("/dev/full").open("wb") as full:
        done = run_apart("detect", recording, *settings, stdout=full)
    assert done.status == 1
    assert "No space left" in done.complaint


# Bad input


def wav_of(values: npt.NDArray[Any], rate: int = SAMPLE_RATE, **options: Any) -> bytes:
    file = io.BytesIO()
    sf.write(file, values, rate, format=options.pop("format", "WAV"), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".wav", {"subtype": "PCM_U8"}),
        (".wav", {"subtype": "PCM_24"}),
        (".wav", {"subtype": "FLOAT"}),
        (".flac", {"format": "FLAC"}),
        (".ogg", {"format": "OGG", "subtype": "VORBIS"}),
        (".opus", {"format": "OGG", "subtype": "OPUS"}),
        (".mp3", {"format": "MP3"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_any_format(
    run: Run,
    audio: npt.NDArray[np.float32],
    tmp_path: Path,
    suffix: str,
    options: dict[str, str],
    rate: int,
    settings: list[str],
) -> None:
    """Whatever the container, depth, rate and channels, the file is heard as its samples are."""
    import soxr

    rate = 48_000 if suffix == ".opus" and rate == 44_100 else rate
    mono = soxr.resample(audio, SAMPLE_RATE, rate)
    path = tmp_path / f"said{suffix}"
    path.write_bytes(wav_of(np.stack([mono, mono], axis=1).clip(-1, 1), rate, **options))
    done = run("detect", path, "--json", *settings)
    assert (done.status, done.err) == (0, "")
    assert heard(done) == events_in(read_mono(path))
    assert heard(done)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\0" * 1000, "found no sound"),
        (b"RIFF", "found no sound"),
        (wav_of(np.zeros(0)), "holds no samples"),
        (wav_of(np.full(100, np.nan), subtype="FLOAT"), "NaN"),
        (wav_of(np.full(100, 20_000.0), subtype="FLOAT"), "values up to 20000"),
        (wav_of(np.zeros(100), 500), "sample rate is 500"),
    ],
    ids=["empty", "garbage", "cut", "no samples", "NaN", "another scale", "no rate"],
)
def test_a_bad_file_among_good_ones(
    run: Run,
    recording: Path,
    tmp_path: Path,
    expected: list[dict[str, Any]],
    content: bytes,
    reason: str,
    settings: list[str],
) -> None:
    """A bad file, a missing one and a folder without sound are each named; the others are heard; status 1."""
    (tmp_path / "bad.wav").write_bytes(content)
    (tmp_path / "empty").mkdir()
    bad = [tmp_path / "bad.wav", tmp_path / "missing.wav", tmp_path / "empty"]
    done = run("detect", recording, *bad, recording, "--json", *settings)
    assert done.status == 1
    assert heard(done) == 2 * expected
    complaints = "\n".join(done.complaints)
    assert len(done.complaints) == 3
    assert all(str(path) in complaints for path in bad)
    assert reason in complaints


@pytest.mark.parametrize("where", ["nan", "flac"])
def test_trouble_after_some_words(
    run: Run,
    audio: npt.NDArray[np.float32],
    tmp_path: Path,
    expected: list[dict[str, Any]],
    where: str,
    settings: list[str],
) -> None:
    """Of a recording that turns bad later the events until then are printed, drawn and written; then a complaint."""
    path = tmp_path / "turns.bad"
    if where == "nan":
        path.write_bytes(wav_of(np.concatenate([audio, np.full(40_000, np.nan)]), subtype="FLOAT"))
    else:
        noise = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE)
        content = bytearray(wav_of(np.concatenate([audio, noise]), format="FLAC"))
        content[-40_000:-30_000] = bytes(10_000)
        path.write_bytes(content)
    done = run("detect", path, *settings, "--labels", tmp_path / "l.txt", "--plot", tmp_path / "p.png")
    labels = [line.split("\t")[2] for line in (tmp_path / "l.txt").read_text().splitlines()]
    assert done.status == 1
    assert str(path) in done.complaint
    assert labels == [line.split()[1] for line in done.out.splitlines()[1:]]
    assert labels[: len(expected)] == [event["label"] for event in expected] != []
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_clipping(run: Run, audio: npt.NDArray[np.float32], tmp_path: Path) -> None:
    """A recording clipped all over is heard like any."""
    sf.write(tmp_path / "loud.wav", np.sign(audio) * (np.abs(audio) > 0.01), SAMPLE_RATE)
    done = run("detect", tmp_path / "loud.wav", "--json", "--threshold", 0.9)
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["detect"], "Missing argument"),
        (["detect", "a.wav", "--threshold", "0"], "threshold is 0.0"),
        (["detect", "a.wav", "--threshold", "1.5"], "threshold is 1.5"),
        (["detect", "a.wav", "--threshold", "high"], "--threshold"),
        (["detect", "a.wav", "--config", "none.json"], "none.json: cannot be read"),
        (["detect", "-", "-"], "named twice"),
    ],
    ids=" ".join,
)
def test_wrong_use(run: Run, args: Any, reason: str) -> None:
    """A command used wrongly says why in one line; the status is 2."""
    done = run(*args)
    assert (done.status, done.out) == (2, "")
    assert reason in done.complaint


def test_a_missing_model(run: Run, recording: Path) -> None:
    """A model that is not there is named, with those that are, of both kinds."""
    done = run("detect", recording, "--model", "nothing.onnx")
    assert (done.status, done.out) == (1, "")
    assert "small" in done.complaint
    assert "ds-cnn" in done.complaint


# Length


@unix_only
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("options", [[], ["--labels"], ["--plot"]], ids=str)
def test_memory_does_not_grow(tmp_path: Path, audio: npt.NDArray[np.float32], options: list[str]) -> None:
    """A recording six times as long takes no more memory, with track and picture neither."""
    peaks_mb = []
    for n_times in (5, 30):
        path = tmp_path / f"{n_times}.wav"
        sf.write(path, np.tile(audio, n_times), SAMPLE_RATE, subtype="PCM_16")
        written = [str(tmp_path / "out")] if options else []
        code = (
            "import re, sys; from pathlib import Path; from tiny_kws import cli\n"
            "try: cli.main()\n"
            "finally: print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1], file=sys.stderr)"
        )
        command = [sys.executable, "-c", code, "detect", str(path), *options, *written]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=True)
        peaks_mb.append(int(done.stderr) / 1024)
    assert peaks_mb[1] < peaks_mb[0] + 5
    assert max(peaks_mb) < 300


@pytest.mark.slow
def test_an_hour_of_nothing(run: Run, tmp_path: Path, settings: list[str]) -> None:
    """An hour of digital zero has no event, and takes well under the 36 seconds of a hundredth of its time."""
    sf.write(tmp_path / "nothing.flac", np.zeros(3600 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    started = time.process_time()
    done = run("detect", tmp_path / "nothing.flac", *settings)
    assert done.out.split()[-2:] == ["no", "words"]
    assert time.process_time() - started < 36


def test_words_alone(run: Run, recording: Path, settings: list[str]) -> None:
    """With --words only those are found, in the order of time, and everything else is as without."""
    every = heard(run("detect", recording, "--json", *settings))
    found = heard(run("detect", recording, "--json", *settings, "--words", "go, stop"))
    assert found
    assert {event["label"] for event in found} <= {"go", "stop"} < {event["label"] for event in every} | {"go", "stop"}


@pytest.mark.parametrize("words", ["maybe", "yes,unknown", "", " , "])
def test_words_that_the_model_does_not_have(run: Run, recording: Path, words: str) -> None:
    """A word that is none of the model's, or no word at all, is one line that names those there are."""
    done = run("detect", recording, "--words", words)
    assert (done.status, done.out) == (2, "")
    assert "expected one or more of yes, no, up, down" in done.complaint


@pytest.mark.parametrize("option", ["--labels", "--plot"])
def test_what_cannot_be_written_is_said_before_listening(
    run: Run, recording: Path, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label track or picture that cannot be written is an error before any sound is heard, and no trace is left."""

    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(Detector, "step", never)
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "out"):
        done = run("detect", recording, option, path)
        assert (done.status, done.out) == (1, "")
        assert str(path) in done.complaint
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_labels_of_a_foreign_model_obey_no_terminal(
    run: Run, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label that steers terminals or hides in them is printed escaped, as text, as JSON and in a label track."""
    event = Detection("go\x1b[2J\x9b1m\u202e\tx\n", 0.0, 1.0, 0.9)
    monkeypatch.setattr(Detector, "step", lambda *_: Step(np.zeros((0, 12)), np.zeros((0, 10)), [event]))
    for form in ([], ["--json"], ["--labels", tmp_path / "track.txt"]):
        done = run("detect", recording, *form)
        assert not steers(done.out)
        assert "go\\" in done.out
    lines = (tmp_path / "track.txt").read_text(encoding="utf-8").splitlines()
    assert {len(line.split("\t")) for line in lines} == {3}
    assert not steers("".join(lines))


def test_columns_fit_wide_labels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Long labels, and those of wide letters, leave the columns after them in line."""
    labels = ["stop", "\u706f\u3092\u3064\u3051\u3066", "a rather long label"]
    show = listening._table(["a.wav"], labels)
    heard = datetime(2026, 5, 4, tzinfo=timezone.utc)
    for label in labels:
        show("a.wav", Detection(label, 0.0, 1.0, 0.9))
        print_event(Detection(label, 0.0, 1.0, 0.9), heard, False, 19)
    head, *rows = capsys.readouterr().out.splitlines()
    assert {cell_len(row) for row in rows[::2]} == {len(head)}
    assert {cell_len(row.partition("0.00 s")[0]) for row in rows[::2]} == {len(head.partition("start")[0]) - 1}
    assert {cell_len(row.partition("0.9")[0]) for row in rows[1::2]} == {21 + 19 + 2}


def test_the_line_of_a_terminal_is_cut_by_its_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that shows the likeliest label stays on one line of the terminal, though its letters are wide."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    LiveLine().show(Status(1.0, -20.0, "\u706f" * 40, 0.9))
    shown = capsys.readouterr().err.removeprefix("\r\x1b[K")
    assert cell_len(shown) <= 59
    assert "\u706f" in shown


def test_listening_says_where_it_begins_and_what_it_heard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal `listen` names the microphone and the words, and at the end counts what it heard."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    live = LiveLine()
    live.begin("USB \x1b mic", ["yes", "no"])
    live.end({"no": 1, "yes": 2}, 62.4)
    live.end({}, 3.0)
    lines = [line.rpartition("\x1b[K")[2] for line in capsys.readouterr().err.strip("\n").split("\n")]
    assert lines == [
        "Listening on USB \\x1b mic; say yes, no. Ctrl-C ends.",
        "Heard 3 words in 1:02 min: yes 2, no 1.",
        "Heard no words in 0:03 min.",
    ]


def test_listening_elsewhere_than_in_a_terminal_says_problems_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard error of a service holds no greeting."""
    live = LiveLine()
    live.begin("mic", ["yes"])
    live.end({"yes": 1}, 2.0)
    assert capsys.readouterr() == ("", "")
