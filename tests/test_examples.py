"""The recordings under examples/: all can be classified, and the script that makes them knows each."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import soundfile as sf

from tiny_kws.artefact.runtime import Classifier
from tiny_kws.audio import find_sound_files
from tiny_kws.data.speech_commands import KEYWORDS, LABELS

from .helpers import exported, trained_like

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPT = ROOT / "scripts" / "make_examples.py"
FILES = sorted(path for path in EXAMPLES.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def classifier(checkpoint_path: Path) -> Classifier:
    return Classifier(exported(trained_like(checkpoint_path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_example_can_be_classified(classifier: Classifier, path: Path) -> None:
    """Every example is a sound that gets an answer."""
    assert classifier.classify(path).label in LABELS


def test_walking_the_folder_finds_every_example() -> None:
    """No example is passed over when the folder is classified."""
    assert find_sound_files(EXAMPLES) == FILES


def test_every_keyword_has_an_example() -> None:
    """There is an example of each of the ten keywords, named after it."""
    assert {path.stem for path in FILES} >= set(KEYWORDS)


def test_the_longer_example_is_heard_at_its_word(classifier: Classifier) -> None:
    """In the four-second example the second that is classified is the one with the word, near 2.2 s."""
    path = EXAMPLES / "stop_within_four_seconds.wav"
    assert sf.info(path).duration > 3.5
    assert classifier.classify(path).start_s == pytest.approx(2.2, abs=0.7)


def test_the_script_makes_every_example() -> None:
    """Every file under examples/ is named in the script, and every one that it makes is there."""
    made = {row[0] for row in runpy.run_path(str(SCRIPT))["EXAMPLES"]} | {"silence.wav"}
    assert '"silence.wav"' in SCRIPT.read_text(encoding="utf-8")
    assert {path.name for path in FILES} == made
