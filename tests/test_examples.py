"""The recordings under examples/: every bundled model hears them, and the script that makes them knows each."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path

import pytest
import soundfile as sf

from tiny_kws.artefact.runtime import Classification, Classifier
from tiny_kws.artefact.store import bundled_files
from tiny_kws.audio import find_sound_files
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.listening.detector import Detector
from tiny_kws.words import SILENCE, UNKNOWN

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT = ROOT / "scripts" / "make_examples.py"
FILES = sorted(path for path in EXAMPLES.iterdir() if not path.name.startswith("."))
CLIP_MODELS = [path.name for path in bundled_files() if not path.name.endswith(".stream.onnx")]
ENOUGH_WORDS = {
    "ds-cnn": 8,
    "base": 10,
    "small": 10,
    "micro": 10,
    "listener": 7,
    "listener-small": 7,
    "listener-micro": 7,
}
"""Of the ten keywords and the stop within four seconds: so many are events at a model's own threshold, at least."""

clip_models = pytest.mark.parametrize("name", CLIP_MODELS)


@cache
def answers(name: str) -> dict[str, Classification]:
    """What a bundled artefact makes of each example, by the example's name."""
    path = next(path for path in bundled_files() if path.name == name)
    classifier = Classifier(path)
    return {example.stem: classifier.classify(example) for example in FILES}


def said(example: str) -> str:
    """What an example holds: its name begins with it."""
    first = example.partition("_")[0]
    return UNKNOWN if first == "other" else first


@clip_models
def test_a_model_hears_the_spoken_keywords(name: str) -> None:
    """Of the ten examples that are named after a keyword, a bundled model takes nine or more for it."""
    wrong = {word: answers(name)[word].label for word in KEYWORDS if answers(name)[word].label != word}
    assert len(wrong) <= 1, wrong


@clip_models
def test_a_model_tells_other_sounds_from_keywords(name: str) -> None:
    """Of the other words, music and silence among the examples at most one is called a keyword, and silence is none."""
    others = {example: heard.label for example, heard in answers(name).items() if said(example) not in KEYWORDS}
    assert len(others) == 4
    assert sum(label in KEYWORDS for label in others.values()) <= 1, others
    assert others[SILENCE] == SILENCE


@pytest.mark.parametrize(("name", "enough"), ENOUGH_WORDS.items())
def test_a_detector_hears_the_spoken_keywords(name: str, enough: int) -> None:
    """As events too, at the model's own settings, and nothing is heard where something else or nothing is said."""
    detector = Detector(name)
    heard = {path.stem: {event.label for event in detector.detect(path)} for path in FILES}
    assert sum(said(example) in labels for example, labels in heard.items()) >= enough, heard
    assert all(labels <= {said(example)} for example, labels in heard.items()), heard


def test_every_bundled_model_is_asked() -> None:
    """No model that comes with the package is left out of the tests above."""
    bundled = {path.name.partition(".")[0] for path in bundled_files()}
    assert bundled - {"commands"} == set(ENOUGH_WORDS)


def test_walking_the_folder_finds_every_example() -> None:
    """No example is passed over when the folder is classified."""
    assert find_sound_files(EXAMPLES) == FILES


def test_every_keyword_has_an_example() -> None:
    """There is an example of each of the ten keywords, named after it."""
    assert {path.stem for path in FILES} >= set(KEYWORDS)


def test_the_longer_example_is_heard_at_its_word() -> None:
    """In the four-second example the second that is classified is the one with the word, near 2.2 s."""
    assert sf.info(EXAMPLES / "stop_within_four_seconds.wav").duration > 3.5
    assert answers("base.onnx")["stop_within_four_seconds"].start_s == pytest.approx(2.2, abs=0.7)


def test_the_script_makes_every_example() -> None:
    """Every file under examples/ is named in the script, and every one that it makes is there."""
    made = {row[0] for row in runpy.run_path(str(SCRIPT))["EXAMPLES"]} | {"silence.wav"}
    assert '"silence.wav"' in SCRIPT.read_text(encoding="utf-8")
    assert {path.name for path in FILES} == made
