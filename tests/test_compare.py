"""Two evaluations clip by clip: the test is McNemar's, the counts are those by hand, and only like is compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tiny_kws.errors import DataError
from tiny_kws.evaluation.clips import ClipSet
from tiny_kws.evaluation.compare import compare, mcnemar, read_predictions, write_predictions
from tiny_kws.evaluation.json_form import to_json
from tiny_kws.evaluation.tables import comparison_table, markdown

from .helpers import run_cli

LABELS = ("cat", "dog")
SAID = [0, 0, 0, 0, 1, 1, 1, 1]
FIRST = [0, 0, 1, 1, 1, 1, 0, 0]
SECOND = [0, 0, 0, 1, 1, 1, 1, 0]
"""Wrong in two clips of eight, both of which FIRST, wrong in four, also has wrong."""
BOTH = {"clean": FIRST, "snr10": FIRST}
STRANGE = {"model": {"name": "a"}, "data": {"name": "b", "clips_sha256": "c"}, "robustness": 3}


def write_evaluation(folder: Path, answers: dict[str, Sequence[int]], **changes: Any) -> Path:
    """What `evaluate` leaves in a folder, as far as it is compared: answers by condition as places in LABELS."""
    names = [f"{i}.wav" for i in range(len(SAID))]
    clips = ClipSet("the zoo", [LABELS[i] for i in SAID], "1" * 64, lambda: iter(()), names)
    rows = {name: np.where(np.eye(2)[list(heard)] == 1, 0.9, 0.1) for name, heard in answers.items()}
    metrics = {
        "model": {"name": folder.name},
        "data": {"name": "the zoo", "clips": len(SAID), "clips_sha256": "1" * 64},
        "robustness": {"seed": 0, "material_sha256": {"noises": "a"}},
        **changes,
    }
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_predictions(folder / "predictions.csv", clips, LABELS, rows)
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_evaluation(tmp_path / "first", BOTH)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_scipys_binomial_test(only_a: int, only_b: int) -> None:
    """The p agrees with scipy's exact two-sided binomial test of a half."""
    n = only_a + only_b
    expected = binomtest(min(only_a, only_b), n, 0.5).pvalue if n else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 3000), (4000, 5000), (7000, 7000)])
def test_mcnemar_stands_large_counts(only_a: int, only_b: int) -> None:
    """Counts whose binomial coefficients no float holds give a probability, the same both ways."""
    p = mcnemar(only_a, only_b)
    assert 0.0 <= p <= 1.0
    assert p == mcnemar(only_b, only_a)
    assert p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue, rel=1e-6, abs=1e-300)


def test_a_comparison_by_hand(first: Path, tmp_path: Path) -> None:
    """B with two errors beside A's four, both shared, has half the errors and a p of one half; the same has one."""
    second = write_evaluation(tmp_path / "second", {"clean": SECOND, "snr10": FIRST})
    found = to_json(compare(first, second))
    assert (found["a"], found["b"]) == ("first", "second")
    clean, noisy = found["conditions"]["clean"], found["conditions"]["snr10"]
    assert (clean["clips"], clean["a"]["accuracy"], clean["b"]["accuracy"]) == (8, 0.5, 0.75)
    assert (clean["only_a_right"], clean["only_b_right"], clean["error_ratio"], clean["p"]) == (0, 2, 0.5, 0.5)
    assert (noisy["only_a_right"], noisy["only_b_right"], noisy["error_ratio"], noisy["p"]) == (0, 0, 1.0, 1.0)


def test_turned_round_it_says_the_same(first: Path, tmp_path: Path) -> None:
    """B against A has the counts and the ratio turned round, and the same p."""
    second = write_evaluation(tmp_path / "second", {"clean": SECOND, "snr10": SECOND})
    there, back = (to_json(compare(*pair))["conditions"]["clean"] for pair in ((first, second), (second, first)))
    assert (there["only_a_right"], there["only_b_right"]) == (back["only_b_right"], back["only_a_right"])
    assert there["error_ratio"] * back["error_ratio"] == pytest.approx(1)
    assert there["p"] == back["p"]


def test_no_errors_have_no_ratio(tmp_path: Path) -> None:
    """Where A makes no error there is no ratio, and the table says so."""
    folders = [write_evaluation(tmp_path / name, {"clean": SAID}) for name in "ab"]
    found = compare(*folders)
    assert found.conditions["clean"].error_ratio is None
    assert "| none by A |" in markdown(comparison_table(found))


def test_the_table_has_a_line_for_each_condition(first: Path, tmp_path: Path) -> None:
    """Names of both, then accuracy, ratio, counts and p of each condition."""
    second = write_evaluation(tmp_path / "second", {"clean": SECOND, "snr10": FIRST})
    lines = markdown(comparison_table(compare(first, second))).splitlines()
    assert lines[:2] == ["A: first", "B: second"]
    assert lines[5] == "| clean | 8 | 50.00 | 75.00 | 0.500 | 0 | 2 | 0.500 |"
    assert lines[6].startswith("| snr10 | 8 | 50.00 | 50.00 | 1.000 | 0 | 0 | 1.000 |")


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    """Names with commas, quotes and line ends survive the file; probabilities to six places."""
    names = ["a,b.wav", 'quo"te.wav', "line\nend.wav"]
    clips = ClipSet("odd", ["cat", "dog", "cat"], "", lambda: iter(()), names)
    probabilities = {"clean": np.array([[0.75, 0.25], [0.1, 0.9], [0.3, 0.7]])}
    write_predictions(tmp_path / "p.csv", clips, LABELS, probabilities)
    lines = read_predictions(tmp_path / "p.csv")["clean"]
    assert [line.clip for line in lines] == names
    assert [line[2:] for line in lines] == [("cat", "cat", 0.75), ("dog", "dog", 0.9), ("cat", "dog", 0.7)]


@pytest.mark.parametrize(
    ("answers", "changes", "said"),
    [
        (BOTH, {"data": {"name": "the farm", "clips": 8, "clips_sha256": "2" * 64}}, "the farm"),
        ({"clean": FIRST}, {}, "conditions differ, clean, snr10 and clean"),
        (BOTH, {"robustness": {"seed": 1, "material_sha256": {"noises": "a"}}}, "seeds"),
        (BOTH, {"robustness": {"seed": 0, "material_sha256": {"noises": "b"}}}, "noises or rooms"),
    ],
)
def test_only_like_is_compared(
    first: Path, tmp_path: Path, answers: dict[str, list[int]], changes: dict[str, Any], said: str
) -> None:
    """Other clips, conditions, draws or noises are refused, naming both folders and what differs."""
    second = write_evaluation(tmp_path / "second", answers, **changes)
    with pytest.raises(DataError, match=said) as error:
        compare(first, second)
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)


def test_predictions_of_other_clips_are_refused(first: Path, tmp_path: Path) -> None:
    """Predictions that were exchanged under the metrics do not pass: each clip is checked."""
    second = write_evaluation(tmp_path / "second", {"clean": SECOND, "snr10": FIRST})
    path = second / "predictions.csv"
    path.write_text(path.read_text().replace("snr10,3.wav,cat", "snr10,9.wav,cat"))
    with pytest.raises(DataError, match="condition snr10 differ"):
        compare(first, second)


BROKEN = {
    "no such folder": ("predictions.csv", None, "cannot be read"),
    "empty": ("predictions.csv", "", "does not begin with the columns"),
    "another table": ("predictions.csv", "a,b\n1,2\n", "does not begin with the columns"),
    "head alone": ("predictions.csv", "condition,clip,label,predicted,probability\n", "holds no clips"),
    "a short line": ("predictions.csv", "condition,clip,label,predicted,probability\nclean,a\n", "is damaged"),
    "no number": ("predictions.csv", "condition,clip,label,predicted,probability\nc,a,b,b,x\n", "is damaged"),
    "no text": ("predictions.csv", "\udcff", "is damaged"),
    "no JSON": ("metrics.json", "{", "is something else"),
    "no metrics": ("metrics.json", '{"accuracy": 1}', "is something else"),
    "a list": ("metrics.json", "[]", "is something else"),
    "odd settings": ("metrics.json", json.dumps(STRANGE), "is something else"),
}


@pytest.mark.parametrize(("file", "text", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_evaluation_is_refused(first: Path, tmp_path: Path, file: str, text: str | None, said: str) -> None:
    """A file that is missing, damaged or something else is named, with what to do."""
    second = write_evaluation(tmp_path / "second", {"clean": SECOND, "snr10": FIRST})
    if text is None:
        (second / file).unlink()
    else:
        (second / file).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=said) as error:
        compare(first, second)
    assert str(second / file) in str(error.value)
    assert "tiny-kws evaluate" in str(error.value)


def test_the_command_prints_a_table_or_json(first: Path, tmp_path: Path) -> None:
    """`compare A B` prints the table, `--json` the figures, on the plain install."""
    second = write_evaluation(tmp_path / "second", {"clean": SECOND, "snr10": FIRST})
    done = run_cli("compare", first, second, blocked=["torch", "matplotlib", "scipy"])
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()[3:]
    assert head.split() == [
        "condition",
        "clips",
        "A",
        "%",
        "B",
        "%",
        "B's",
        "errors",
        "by",
        "A's",
        "only",
        "A",
        "right",
        "only",
        "B",
        "right",
        "p",
        "(McNemar)",
    ]
    assert rows[0].split() == ["clean", "8", "50.00", "75.00", "0.500", "0", "2", "0.500"]
    assert "|" not in done.stdout
    done = run_cli("compare", first, second, "--json")
    assert json.loads(done.stdout) == to_json(compare(first, second))


def test_the_command_refuses_in_one_line(first: Path, tmp_path: Path) -> None:
    """Folders that do not fit are one line on standard error, status 1."""
    done = run_cli("compare", first, tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "nowhere" in done.stderr
