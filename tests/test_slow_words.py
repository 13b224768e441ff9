"""The script that draws recorded words out: which recordings it takes, and what becomes of them."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from tiny_kws.audio import Samples
from tiny_kws.config import CLIP_SAMPLES, KEYWORDS, SAMPLE_RATE

LINE = {"word": "all", "speaker": "words:a", "licence": "MIT", "attribution": "somebody"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    for name in ("near_words", "slow_words"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("slow_words")


def buzz(seconds: float, pitch_hz: float = 120.0) -> Samples:
    """A second of faint noise with a buzzing voice in its middle."""
    audio = np.random.default_rng(0).normal(0, 1e-4, CLIP_SAMPLES)
    n_samples = round(seconds * SAMPLE_RATE)
    first = (CLIP_SAMPLES - n_samples) // 2
    time_s = np.arange(n_samples) / SAMPLE_RATE
    audio[first : first + n_samples] += 0.1 * sum(np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 30))
    return audio.astype(np.float32)


def sounding(audio: Samples) -> float:
    """Seconds from the first to the last loud sample."""
    loud = np.flatnonzero(np.abs(audio) > 0.1 * np.abs(audio).max())
    return float(loud[-1] - loud[0]) / SAMPLE_RATE


def pitch(audio: Samples) -> float:
    """Of a voice, by the autocorrelation of what sounds, in Hz."""
    loud = np.flatnonzero(np.abs(audio) > 0.1 * np.abs(audio).max())
    middle = audio[loud[0] : loud[-1]]
    correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    return SAMPLE_RATE / (60 + int(correlation[60:300].argmax()))


@pytest.mark.skipif(shutil.which("sox") is None, reason="needs sox")
@pytest.mark.parametrize(
    ("draw", "factor", "longer"), [((0, 0, 0), 0.9, 1.0), ((0, 1, 1), 1.35, 2.0), ((0, 1, 0), 1.35, 1.0)]
)
def test_a_word_is_drawn_out(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    draw: tuple[float, ...],
    factor: float,
    longer: float,
) -> None:
    """It lasts as much longer, and is as much higher, as was drawn; in the middle of a second, with its licence."""
    monkeypatch.setattr(script, "drawn", lambda key: draw)
    soundfile.write(tmp_path / "a.wav", buzz(0.3), SAMPLE_RATE)
    line = script.draw_out(tmp_path / "slow", tmp_path / "a.wav", LINE, 0)
    assert LINE.items() <= line.items()
    audio, rate = soundfile.read(tmp_path / "slow" / line["file"], dtype="float32")
    assert (rate, audio.shape) == (SAMPLE_RATE, (CLIP_SAMPLES,))
    assert sounding(audio) == pytest.approx(0.3 * longer, abs=0.05)
    assert pitch(audio) == pytest.approx(120.0 * factor, rel=0.03)
    assert 0.2 < np.abs(audio).max() < 0.6


@pytest.mark.skipif(shutil.which("sox") is None, reason="needs sox")
def test_takes_differ_and_come_again(script: ModuleType, tmp_path: Path) -> None:
    """Every take of a recording is another, and the same when made again; stereo and silence are no trouble."""
    soundfile.write(tmp_path / "a.wav", np.stack([buzz(0.3)] * 2, 1), SAMPLE_RATE)
    soundfile.write(tmp_path / "b.wav", np.zeros(8000), SAMPLE_RATE)
    made = [
        soundfile.read(tmp_path / out / script.draw_out(tmp_path / out, tmp_path / file, LINE, take)["file"])[0]
        for out, file, take in (("x", "a.wav", 0), ("x", "a.wav", 1), ("y", "a.wav", 0), ("x", "b.wav", 0))
    ]
    assert not np.allclose(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])
    assert np.abs(made[3]).max() == 0


def test_a_long_word_stays_whole(script: ModuleType) -> None:
    """The word is cut out with a little around it, at one level."""
    found = script.cut(buzz(0.5))
    assert len(found) / SAMPLE_RATE == pytest.approx(0.6, abs=0.1)
    assert np.abs(found).max() == pytest.approx(script.LEVEL)


def test_recordings_that_are_taken(script: ModuleType, tmp_path: Path) -> None:
    """Training recordings alone: every other word, a share of the keywords."""
    folder = tmp_path / script.SPEECH_COMMANDS
    for word in ("bed", "yes", "_background_noise_"):
        (folder / word).mkdir(parents=True)
        for number in range(100):
            (folder / word / f"{number:08x}_nohash_0.wav").touch()
    (folder / "validation_list.txt").write_text("bed/00000000_nohash_0.wav\nyes/00000001_nohash_0.wav\n")
    (folder / "testing_list.txt").write_text("bed/00000002_nohash_0.wav\n")
    taken = list(script.from_speech_commands(tmp_path))
    others = [path.name[:8] for path, line, _ in taken if line["word"] == "bed"]
    assert others == [f"{number:08x}" for number in range(100) if number not in (0, 2)]
    keywords = [path for path, line, _ in taken if line["word"] in KEYWORDS]
    assert len(taken) == len(others) + len(keywords)
    assert 5 < len(keywords) < 30
    assert {line["licence"] for _, line, _ in taken} == {"CC BY 4.0"}
