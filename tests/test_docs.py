"""What the documents say can be done: commands parse, links lead somewhere, code computes what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tiny_kws.cli import app
from tiny_kws.config import FeatureConfig

from .helpers import speech_like

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = [page for page in PAGES if page.name != "LOG.md"]
"""All but the log, which tells of commands as they were."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
MOST_FIGURE_BYTES = 150_000

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the whole repository")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
guides = pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def lines_of(page: Path) -> Iterator[list[str]]:
    """The words of every `tiny-kws ...` in the page's blocks, up to a pipe or the like."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines() if not language else ():
            words = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
            words.whitespace_split = True
            command: list[str] = []
            for word in [*words, "|"]:
                if set(word) <= set("|;&<>"):
                    if command[:1] == ["tiny-kws"]:
                        yield command
                    command = []
                else:
                    command.append(word)


def mentions_of(page: Path) -> Iterator[list[str]]:
    """The words of `tiny-kws ...`, `COMMAND ...` and `--option ...` in the page's text, none of them complete."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for code in INLINE.findall(prose):
        if re.match(rf"(tiny-kws|{'|'.join(command_line().commands)}) |--", code):
            yield shlex.split(code)


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` begin with, the command line itself if there is none, and the rest of them."""
    command, rest = command_line(), words
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def parse(words: list[str]) -> None:
    """Parse `tiny-kws ...`, but run nothing; raises AssertionError with what the command line says."""
    command, rest = resolve(words[1:])
    assert not hasattr(command, "commands"), f"{shlex.join(words)}: there is no such command"
    try:
        command.make_context("tiny-kws", rest).close()
    except Exception as error:
        message = getattr(error, "format_message", lambda: "")()
        raise AssertionError(f"{shlex.join(words)}: {message}") from error


def options_of(command: Any) -> set[str]:
    """All options of a command and those below it."""
    below = getattr(command, "commands", {}).values()
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options_of, below))


@guides
def test_commands_parse(page: Path) -> None:
    """Every command in a block is one that there is, whole, with options and values that it takes."""
    for words in lines_of(page):
        parse(words)


@guides
def test_options_exist(page: Path) -> None:
    """Every command and option that the text mentions is there."""
    for words in mentions_of(page):
        command, rest = resolve(words[words[0] == "tiny-kws" :])
        assert command is not command_line() or rest[0].startswith("--"), words
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - options_of(command)
        assert not unknown, f"{page.name}: {unknown}"


def test_pages_hold_commands() -> None:
    """The tests above have something to look at."""
    assert sum(1 for page in GUIDES for _ in lines_of(page)) > 50
    assert all(any(True for _ in lines_of(page)) for page in GUIDES if page.name != "how-it-works.md")


@pages
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture is there, and where it names a heading, the heading too."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), f"{page.name}: {link}"
        if heading:
            titles = HEADING.findall(FENCE.sub("", target.read_text(encoding="utf-8")))
            assert heading in {anchor(title) for title in titles}, f"{page.name}: {link}"


def anchor(title: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_figures_are_small_and_shown() -> None:
    """Every drawn figure is in a page, and light."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for figure in (ROOT / "docs" / "figures").iterdir():
        assert f"figures/{figure.name}" in text
        assert figure.stat().st_size < MOST_FIGURE_BYTES, figure


def test_readme_lists_every_page() -> None:
    """Every page can be found from the README."""
    readme = PAGES[0].read_text(encoding="utf-8")
    assert all(f"(docs/{page.name})" in readme for page in PAGES[1:])


@pytest.mark.parametrize("centered", [True, False])
def test_features_for_a_device(centered: bool) -> None:
    """The code in the page on devices computes what the networks are trained on."""
    torch = pytest.importorskip("torch")
    from tiny_kws.training.features import LogMel

    text = (ROOT / "docs" / "device.md").read_text(encoding="utf-8")
    code = next(block for language, block in FENCE.findall(text) if language == "python" and "def log_mel" in block)
    page: dict[str, Any] = {}
    exec(code, page)
    audio = speech_like(np.random.default_rng(0)).astype(np.float32)
    audio /= np.abs(audio).max()
    expected = LogMel(FeatureConfig(centered=centered))(torch.from_numpy(audio))[0, 0].numpy()
    found = page["log_mel"](audio.astype(np.float64), centered)
    assert found.shape == expected.shape == (64, 101 if centered else 100)
    np.testing.assert_allclose(found, expected, atol=1e-4)
