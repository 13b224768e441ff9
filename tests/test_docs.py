"""What the documents say can be done: commands parse, links lead somewhere, code computes what it says."""

from __future__ import annotations

import csv
import io
import itertools
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import typer

from tiny_kws.audio import read_window
from tiny_kws.cli import app
from tiny_kws.config import SAMPLE_RATE, FeatureConfig
from tiny_kws.data.speech_commands import KEYWORDS, TEST_FOLDER, WORDS_FOLDER

from . import helpers
from .conftest import SPEAKERS, UNKNOWN_WORDS, word_sound
from .helpers import environment, run_cli, speech_like, write_sound
from .test_notebook import write_test_set

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = [page for page in PAGES if page.name != "LOG.md"]
"""All but the log, which tells of commands as they were."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
WITHOUT_COMMANDS = ("how-it-works.md", "results.md", "style.md", "compare.md")
MOST_FIGURE_BYTES = 150_000
MOST_README_WORDS = 1500

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs the whole repository")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
guides = pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def lines_of(page: Path) -> Iterator[list[str]]:
    """The words of every `tiny-kws ...` in the page's blocks, up to a pipe or the like."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if not language:
            yield from lines_in(block)


def lines_in(text: str) -> Iterator[list[str]]:
    """The words of every `tiny-kws ...` among lines of a shell, up to a pipe or the like."""
    for line in text.replace("\\\n", " ").splitlines():
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


NOT_RUN = {
    "tiny-kws listen": "a microphone",
    "--record ": "a microphone",
    "tiny-kws demo": "somebody who ends it",
    "tiny-kws data download": "the network",
    "tiny-kws push USER": "the network",
    "--model hf://": "the network",
    "tiny-kws sort": "somebody who answers; tests/test_sort_command.py does",
    "--improve": "what a microphone kept, sorted; tests/test_improve.py makes it",
    "--thorough": "minutes; tests/test_thorough.py runs it with shorter ones",
}
"""Parts of commands that cannot run here, and what they would need; what writes files only (WRITES_ONLY) can."""
WRITES_ONLY = ("--dry-run", "--export")
SHORTER = {
    "train": "--epochs 1 --batch-size 8",
    "benchmark": "--repeats 5",
    "make-stream": "--speech-hours 0.02 --noise-hours 0.01 --keywords 20 --others 6",
}
"""Options with which commands do the same for less long."""


def can_run(words: list[str]) -> bool:
    """Whether a command needs nothing but files, and what is installed."""
    text = shlex.join(words)
    if {"--litert", "convert"} & set(words) and not find_spec("litert_torch"):
        return False
    return any(option in words for option in WRITES_ONLY) or not any(part in text for part in NOT_RUN)


@pytest.mark.slow
@guides
def test_commands_run(page: Path, speech_commands: Path, tmp_path: Path) -> None:
    """Every command of a page, one after the other, does what it is there for, in a folder with what the page names."""
    pytest.importorskip("torch")
    commands = [words for words in lines_of(page) if can_run(words)]
    if commands:
        furnish(tmp_path, speech_commands)
    failed = {}
    for words in commands:
        out = tmp_path / words[words.index("--out") + 1] if "--out" in words else None
        made = out if words[1] in ("train", "data") else tmp_path / words[2] if words[1] == "make-stream" else None
        if made is not None and "--resume" not in words:
            shutil.rmtree(made, ignore_errors=True)  # as made before, by the command of another block
        if words[1] == "serve":
            serve_for_a_moment(words[1:], tmp_path)
            continue
        done = run_cli(*shortened(words)[1:], cwd=tmp_path, stdin=piped(words))
        if done.returncode != 0:
            failed[shlex.join(words)] = done.stderr[-2000:]
        elif not (done.stdout or words[1] in QUIET):
            failed[shlex.join(words)] = "printed nothing"
        elif out is not None and not out.exists():
            failed[shlex.join(words)] = f"wrote no {out}"
    assert failed == {}


def shortened(words: list[str]) -> list[str]:
    """The command with what makes it take less long; an option that it has already gives way."""
    options = shlex.split(SHORTER.get(words[1], ""))
    for name in options[::2]:
        if name in words:
            at = words.index(name)
            words = words[:at] + words[at + 2 :]
    return [*words, *options]


def serve_for_a_moment(words: list[str], folder: Path) -> None:
    """A server says where it listens, and ends when it is told to."""
    pytest.importorskip("wyoming", reason="needs the extra `serve`")
    (folder / "models").mkdir(exist_ok=True)
    command = helpers.command_line(*words, "--port", "0", "--no-announce")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment()) as server:
        assert server.stderr is not None
        said = server.stderr.readline()
        server.terminate()
        assert "Wyoming at " in said, said + server.stderr.read()
        assert server.wait(30) == 0


QUIET = ("detect",)
"""Commands that print nothing where nothing is heard."""


def piped(words: list[str]) -> bytes:
    """What comes through the pipe before a command: a WAV for `classify -`, raw samples for `detect -`."""
    sound = 0.1 * speech_like(np.random.default_rng(0))
    if words[1] != "classify":
        return (32767 * sound / np.abs(sound).max()).astype("<i2").tobytes()
    file = io.BytesIO()
    sf.write(file, sound / np.abs(sound).max(), SAMPLE_RATE, format="WAV")
    return file.getvalue()


def furnish(folder: Path, speech_commands: Path) -> None:
    """Lay out what the pages' commands name: the archives, noise, rooms, speech, recordings, trained models."""
    rng = np.random.default_rng(0)
    shutil.copytree(speech_commands, folder / "data" / WORDS_FOLDER)
    shutil.copytree(speech_commands / "zero", folder / "data" / WORDS_FOLDER / "four")
    for split in ("validation", "testing"):
        path = folder / "data" / WORDS_FOLDER / f"{split}_list.txt"
        listed = path.read_text(encoding="utf-8")
        path.write_text(
            listed + "".join(re.findall(r"^four.*\n", listed.replace("zero/", "four/"), re.MULTILINE)), "utf-8"
        )
    for word, speaker in itertools.product(KEYWORDS, itertools.chain(*SPEAKERS.values())):  # words that a model hears
        spoken = read_window(next((ROOT / "examples").glob(f"{word}.*"))).samples
        file = folder / "data" / WORDS_FOLDER / word / f"{speaker}_nohash_0.wav"
        sf.write(file, spoken + 0.001 * rng.normal(size=spoken.shape), SAMPLE_RATE)
    write_test_set(speech_commands, folder / "data" / TEST_FOLDER)
    for name in ("noise", "rooms", "speech"):
        (folder / name).mkdir()
    for i in range(8):  # of which a third is in the part that is kept for measurements
        write_sound(folder / "noise" / f"wind{i}.wav", 12.0, seed=i)
        response = rng.normal(0, 0.1, 4000) * np.exp(-np.arange(4000) / 500)
        sf.write(folder / "rooms" / f"hall{i}.wav", np.concatenate([[0.9], response]).clip(-1, 1), SAMPLE_RATE)
    rows = []
    for i in range(60):
        sentence = np.concatenate([0.2 * speech_like(rng) for _ in range(3)])
        sf.write(folder / "speech" / f"{i}.wav", sentence / np.abs(sentence).max() / 2, SAMPLE_RATE)
        rows.append((f"{i}.wav", "the cat sat there", f"reader{i % 12}", "CC0 1.0"))
    with (folder / "speech" / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "speaker", "licence"), *rows])
    write_sound(folder / "recording.wav", 2.0)
    write_sound(folder / "evening.wav", 30.0)
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "examples", folder / "folder")
    shutil.copy(ROOT / "examples" / "stop.mp3", folder / "meeting.mp3")
    for word, file in (("stop", "stop.mp3"), ("go", "go.wav")):
        (folder / "my-words" / word).mkdir(parents=True)
        shutil.copy(ROOT / "examples" / file, folder / "my-words" / word)
    write_own_words(folder / "mine")
    write_takes(folder, {"recordings": "stop", "more": "right", "lamp": "yes"}, rng)
    # As `micro` one that is sure of the examples, so that int8 loses none of so few clips.
    published = {"ds-cnn": "ds-cnn", "base": "listener", "small": "small", "micro": "small"}
    for name, its in published.items():  # as `base` one that listens, so that thresholds are found
        (folder / "runs" / name).mkdir(parents=True)
        shutil.copy(ROOT / "models" / its / "best.pt", folder / "runs" / name)
    shutil.copytree(ROOT / "models" / "listener", folder / "models" / "listener")
    for kind in ("", ".stream"):
        shutil.copy(ROOT / "src" / "tiny_kws" / "assets" / f"listener{kind}.onnx", folder / f"my{kind}.onnx")
    small = folder / "runs" / "small"
    for command in (
        ("data", "prepare", folder / "data", "--out", folder / "prepared"),
        ("evaluate", small / "best.pt", "--data", folder / "prepared", "--out", small / "validation"),
    ):
        done = run_cli(*command)
        assert done.returncode == 0, done.stderr


def write_takes(folder: Path, words: dict[str, str], rng: np.random.Generator) -> None:
    """Folders, each with five recordings of a word of the examples."""
    for name, word in words.items():
        (folder / name).mkdir()
        spoken = read_window(next((ROOT / "examples").glob(f"{word}.*"))).samples
        take = np.concatenate([np.zeros(8000), spoken, np.zeros(8000)])
        for i in range(5):
            sf.write(folder / name / f"{i}.wav", take + 0.0005 * rng.normal(size=take.shape), SAMPLE_RATE)


def write_own_words(folder: Path) -> None:
    """Two words of one's own and another, each by six speakers."""
    for i, word in enumerate(("computer", "lights", "other")):
        (folder / word).mkdir(parents=True)
        for seed, speaker in enumerate(SPEAKERS["training"]):
            sf.write(folder / word / f"{speaker}_nohash_0.wav", word_sound(UNKNOWN_WORDS[i], seed), SAMPLE_RATE)


@guides
def test_options_exist(page: Path) -> None:
    """Every command and option that the text mentions is there."""
    for words in mentions_of(page):
        command, rest = resolve(words[words[0] == "tiny-kws" :])
        assert command is not command_line() or rest[0].startswith("--"), words
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")}
        unknown -= options_of(command) | {"--help"}
        assert not unknown, f"{page.name}: {unknown}"


def test_pages_hold_commands() -> None:
    """The tests above have something to look at."""
    assert sum(1 for page in GUIDES for _ in lines_of(page)) > 50
    assert all(any(True for _ in lines_of(page)) for page in GUIDES if page.name not in WITHOUT_COMMANDS)


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


def test_readme_is_a_page() -> None:
    """The README is short, and shows the two commands that do all the set-up before anything else can be run."""
    readme = PAGES[0].read_text(encoding="utf-8")
    assert len(readme.split()) <= MOST_README_WORDS
    commands = [line for _, block in FENCE.findall(readme) for line in block.splitlines()]
    assert [line.partition("#")[0].strip() for line in commands[:2]] == ["make demo", "make test"]


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
