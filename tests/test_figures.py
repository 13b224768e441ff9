"""Figures follow from committed files: documents, cards, the scripts that make the published models."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import allowed_numbers as numbers
from .test_docs import lines_in, parse

pytest.importorskip("huggingface_hub")  # the model cards are made with it
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "write_figures.py"
LOG = ROOT / "docs" / "LOG.md"
RUNS = sorted((ROOT / "runs").glob("*.sh"))
WRITTEN = re.compile(r"<!-- figures: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
TEST_CLIPS = {  # tests that run code on clips of the test archive, of no published model
    ("test_features.py", "test_librosa_agrees_on_recordings"),
    ("test_make_stream.py", "test_words_of_real_clips_are_of_a_words_length"),
    ("test_parity.py", "test_probabilities_are_the_checkpoints_on_real_clips"),
    ("test_streaming.py", "test_stream_equals_offline_on_real_sound"),
}

pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="needs the whole repository")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The script that writes figures, as a module."""
    return runpy.run_path(str(SCRIPT))


def pages() -> list[str]:
    """Every document in which numbers have to have a reason: all but cards, which are written whole, and the log."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "models" / "README.md", *(ROOT / "docs").glob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path != LOG)


def prose(text: str) -> str:
    """What a page says itself: without blocks that are written, code, targets of links, numbers of lists."""
    text = WRITTEN.sub("", text)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(?<!`)`[^`]+`(?!`)", "", text)
    text = re.sub(r"\]\([^)\s]+\)", "]", text)
    text = re.sub(r"^\d+\. ", "", text, flags=re.MULTILINE)
    for pattern in numbers.EVERYWHERE:
        text = re.sub(pattern, "", text)
    return " ".join(text.split())


def section(heading: str) -> str:
    """What the log says under a heading."""
    return re.split(r"^## ", LOG.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]


def test_documents_follow_from_the_files(script: dict[str, Any]) -> None:
    """README, pages and cards read as `scripts/write_figures.py` would write them now."""
    outdated = [
        path.relative_to(ROOT).as_posix()
        for path, text in script["documents"]().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert outdated == [], "run `make figures`"


def test_a_figure_follows_its_file(script: dict[str, Any], tmp_path: Path) -> None:
    """Where a metrics file says something else, so does the README."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    script["read"].__globals__["ROOT"] = tmp_path
    try:
        assert script["percent"](0.971234, 2) not in script["clips"]()
        path = tmp_path / "models" / "base" / "metrics.json"
        metrics = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**metrics, "accuracy": 0.971234}), encoding="utf-8")
        assert "| 97.12 %" in script["clips"]()
    finally:
        script["read"].__globals__["ROOT"] = ROOT


def test_every_block_is_in_a_document(script: dict[str, Any]) -> None:
    """Nothing is written that stands nowhere, and every mark has its end."""
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in pages()]
    found = [name for text in texts for name in WRITTEN.findall(text)]
    assert sorted(found) == sorted(script["BLOCKS"])
    assert sum(text.count("<!-- figures:") for text in texts) == len(found)


@pytest.mark.parametrize("page", pages())
def test_numbers_have_a_reason(page: str) -> None:
    """A number that no file gives is in the list of those that may stand there, and all in the list do."""
    text = prose((ROOT / page).read_text(encoding="utf-8"))
    for allowed in numbers.ON_PAGE.get(page, {}):
        phrase = prose(allowed)
        assert phrase in text, f"{page} no longer says {phrase!r}: take it out of tests/allowed_numbers.py"
        text = text.replace(phrase, "")
    left = [text[max(0, found.start() - 40) : found.end() + 30] for found in NUMBER.finditer(text)]
    assert left == [], "write them from a file (scripts/write_figures.py), or give a reason (tests/allowed_numbers.py)"


def logged() -> Iterator[tuple[str, str]]:
    """Every heading of the log that is named as the place of numbers, with what has to stand there."""
    for reasons in numbers.ON_PAGE.values():
        for phrase, reason in reasons.items():
            if isinstance(reason, numbers.Log):
                yield from ((reason.heading, number) for number in NUMBER.findall(prose(phrase)))
    for name, row in json.loads((ROOT / "models" / "seeds.json").read_text(encoding="utf-8")).items():
        if name != "about":
            yield from ((row["log"], f"{100 * share:.2f}") for share in row["accuracy"].values())
    for path in (ROOT / "models").glob("*/reproduce.json"):
        if reached := json.loads(path.read_text(encoding="utf-8")).get("reached"):
            yield reached["log"], f"{100 * reached['accuracy']:.2f}"
    page = json.loads((ROOT / "benchmarks" / "results" / "page.json").read_text(encoding="utf-8"))
    yield from ((page["log"], f"{page[key]:g}") for key in ("compressed_mb", "ready_warm_s", "answer_ms"))


@pytest.mark.parametrize(("heading", "number"), sorted(set(logged())) if LOG.is_file() else [])
def test_what_the_log_is_named_for_stands_there(heading: str, number: str) -> None:
    """A number for which the log is the only place is under that heading, to the digit."""
    assert number in NUMBER.findall(section(heading)), f"{heading!r} does not tell {number}"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_scripts_of_published_models_can_run(path: Path) -> None:
    """bash reads the script, it may be started, and every `tiny-kws` in it is a command with options that there are."""
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text(encoding="utf-8")
    commands = list(lines_in(text.replace(' "$@"', "")))
    assert commands
    for words in commands:
        parse([valued(word) for word in words])
    for file in re.findall(r"(?:python )?((?:scripts|benchmarks)/\w+\.py)", text):
        assert (ROOT / file).is_file()


def valued(word: str) -> str:
    """A word of a shell script with its variables at their defaults, or at values that loops and cases give them."""
    word = re.sub(r"\$\{\w+:-(.*)\}", r"\1", word)
    for name, value in {"seed": "0", "size": "base", "epochs": "28", "rate": "0.004"}.items():
        word = word.replace(f"${name}", value)
    return word


def test_every_published_model_has_a_script() -> None:
    """Each folder under models/ that holds weights has its script, and says whether it makes the same."""
    for checkpoint in sorted((ROOT / "models").glob("*/best.pt")):
        folder = checkpoint.parent
        told = json.loads((folder / "reproduce.json").read_text(encoding="utf-8"))
        text = (ROOT / told["script"]).read_text(encoding="utf-8")
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        for share in (metrics["accuracy"], *([] if told["same_weights"] else [told["reached"]["accuracy"]])):
            assert f"{100 * share:.2f} %" in text, f"{told['script']}: {share}"


def test_no_published_model_is_asked_about_clips_of_the_test_archive() -> None:
    """Where a test reads these clips, no published model could fail it, and so none is chosen by them."""
    found = set()
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                text = ast.unparse(function)
                if "TEST_SAMPLE" in text or "speech_commands-test-sample" in text:
                    found.add((path.name, function.name))
    assert (
        found - {(Path(__file__).name, "test_no_published_model_is_asked_about_clips_of_the_test_archive")}
        == TEST_CLIPS
    )
