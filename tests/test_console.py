"""What a stranger's model says of itself steers nobody's terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tiny_kws.artefact.format import Validation
from tiny_kws.cli.console import complain, parse_words, printable
from tiny_kws.data.speech_commands import LABELS

from .helpers import changed_artefact, exported, run_cli, trained_like, write_sound

STEERING = "stop\x1b]0;mine\x07\x1b[2J"
HIDDEN = "go\u202etfel\x9b1m"
NASTY = [STEERING, HIDDEN, *LABELS[2:]]


@pytest.fixture(scope="module")
def foreign(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole artefact whose labels, name, licence and source hold what steers a terminal."""
    return changed_artefact(
        exported(trained_like(checkpoint_path)),
        tmp_path_factory.mktemp("foreign") / "foreign.onnx",
        labels=NASTY,
        name=STEERING,
        licence=STEERING,
        data={"source": HIDDEN},
        validation=Validation(clips=4, accuracy=0.75, accuracy_interval=(0.3, 0.954)),
    )


def steers(text: str) -> bool:
    """Whether a text holds a control character but line ends and tabs, or a mark that turns the reading order."""
    return any(not (c.isprintable() or c in "\n\t") for c in text)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "JSON"])
def test_info_escapes_what_a_model_says(foreign: Path, options: list[str]) -> None:
    """`info` prints no control character of a foreign model, and its labels all the same."""
    done = run_cli("info", foreign, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert not steers(done.stdout)
    assert "yes" in done.stdout
    if options:
        assert json.loads(done.stdout)["labels"] == NASTY
    else:
        assert "stop\\x1b]0;mine\\x07\\x1b[2J, go\\u202etfel\\x9b1m, yes" in done.stdout
        assert "75.00 % of 4 clips (95 % interval 30.00 to 95.40)" in done.stdout


@pytest.mark.parametrize("options", [["--top", "12"], ["--top", "12", "--json"]], ids=["text", "JSON"])
def test_classify_escapes_labels(foreign: Path, tmp_path: Path, options: list[str]) -> None:
    """`classify` prints no control character of a foreign model's labels."""
    done = run_cli("classify", write_sound(tmp_path / "noise.wav"), "--model", foreign, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert not steers(done.stdout)
    assert ("\\u001b" if "--json" in options else "\\x1b") in done.stdout


def test_errors_escape_labels(foreign: Path, tmp_path: Path) -> None:
    """Nor does an error that names labels."""
    twice = changed_artefact(foreign, tmp_path / "twice.onnx", labels=[STEERING] * len(LABELS))
    done = run_cli("classify", write_sound(tmp_path / "noise.wav"), "--model", twice)
    assert done.returncode == 1
    assert "expected different ones" in done.stderr
    assert not steers(done.stderr)


def test_complaints_stay_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A complaint is one line without control characters, whatever it tells of."""
    assert complain(f"a\nb {STEERING}\r\x85c", 2) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not steers(said)


@pytest.mark.parametrize("text", ["stop", "größer", "توقف", "می\u200cروم", "止まれ", "🛑", "two words"])
def test_words_of_any_script_are_shown_as_they_are(text: str) -> None:
    """What is a word in some script is not escaped, its joiners included."""
    assert printable(text) == text


def test_columns_fit_long_labels(checkpoint_path: Path, tmp_path: Path) -> None:
    """The columns of `classify` stand below their heads for labels of any length."""
    labels = [f"a rather long label {i}" for i in range(len(LABELS))]
    model = changed_artefact(exported(trained_like(checkpoint_path)), tmp_path / "long.onnx", labels=labels)
    sf.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    head, row = run_cli("classify", tmp_path / "silence.wav", "--model", model).stdout.splitlines()
    assert row[head.index("label") :].startswith("a rather long label")
    assert float(row[head.index("probability") :].split()[0]) > 0


def test_words_are_found_in_any_form_of_unicode() -> None:
    """`--words` takes a letter with an accent in one character or in two, and each word once."""
    labels = ["silence", "unknown", "tea", "caf\u00e9"]
    assert parse_words(" cafe\u0301, tea,caf\u00e9", labels) == ("caf\u00e9", "tea")
