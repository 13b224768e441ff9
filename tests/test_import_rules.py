"""Which room needs what, and that none does anything when it is merely imported."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny_kws.data.speech_commands import KEYWORDS

from .helpers import BLOCKER, SOURCE, environment, exported, run_cli, trained_like, write_sound

PACKAGE = SOURCE / "tiny_kws"
ROOMS = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("training", "export")
"""Packages whose rooms need torch."""

SHIP = PACKAGE / "enrolment" / "ship.py"
"""The room that writes artefacts of own words, which needs onnx."""

SERVING = [PACKAGE / "serving" / f"{name}.py" for name in ("wyoming", "http", "mqtt", "run")]
"""Rooms that need the extras `serve` and `mqtt`."""

PLAIN = [path for path in ROOMS if path.relative_to(PACKAGE).parts[0] not in HEAVY and path not in (SHIP, *SERVING)]
EXTRA = (
    "aiohttp",
    "av",
    "filelock",
    "gradio",
    "huggingface_hub",
    "librosa",
    "matplotlib",
    "onnx",
    "paho",
    "scipy",
    "tensorboard",
    "torch",
    "wyoming",
    "zeroconf",
)
"""What the plain install lacks."""

SPECTRUM = {"fft", "rfft", "stft", "istft", "mel", "mfcc", "dct", "hann", "hanning", "hamming", "spectrogram"}

MEASURED_IMPORT = """
import importlib, io, json, random, socket, sys, contextlib
import numpy, torch

random.seed(7); numpy.random.seed(7); torch.manual_seed(7)
torch.set_num_threads(1)

def state():
    return [str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist(),
            torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype().__str__(),
            torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()]

called = []
sys.addaudithook(lambda event, args: called.append(event) if event.startswith("socket.") else None)
printed = io.StringIO()
before = state()
with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    for name in sys.argv[1:]:
        importlib.import_module(name)
print(json.dumps({
    "printed": printed.getvalue(),
    "same state": state() == before,
    "sockets": called,
    "devices": [name for name in ("sounddevice", "pyaudio") if name in sys.modules],
    "cuda": torch.cuda.is_initialized(),
}))
"""


def rooms(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def module_of(path: Path) -> str:
    parts = ["tiny_kws", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, types: bool = True) -> Iterator[tuple[str, bool]]:
    """Absolute names of what a room imports, and whether that happens when it is imported itself.

    Without `types` what is imported for the type checker alone does not count.
    """

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_once) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = ""
                if child.level:
                    package = [*path.relative_to(SOURCE).parent.parts]
                    base = ".".join(package[: len(package) - child.level + 1])
                base = ".".join(filter(None, [base, child.module]))
                yield base, at_once
                yield from ((f"{base}.{alias.name}", at_once) for alias in child.names)
            elif is_type_checking(child):
                yield from walk(child, at_once=False) if types else ()
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                yield from walk(child, at_once=False)
            else:
                yield from walk(child, at_once)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), at_once=True)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)


@pytest.fixture(scope="module")
def measured_import() -> dict[str, Any]:
    """What importing every room at once did in a process of its own."""
    names = [module_of(path) for path in ROOMS if path.name != "__main__.py"]
    done = python(MEASURED_IMPORT, *names)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def artefact_path(checkpoint_path: Path) -> Path:
    return exported(trained_like(checkpoint_path))


def imported_rooms(path: Path) -> set[str]:
    """The package's own rooms that a room imports, at once or when a function is called, but not for types alone."""
    names = {name for name, _ in imports(path, types=False)}
    return {room for room in map(module_of, ROOMS) if room in names} - {module_of(path)}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles of a graph: sets of nodes that all lead to each other."""
    reached = {node: set(others) for node, others in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in reached[node]:
                reached[node] |= reached[middle]
    tied = {node: {other for other in reached[node] if node in reached[other]} for node in graph}
    return sorted({tuple(sorted(others | {node})) for node, others in tied.items() if others})


def test_a_circle_is_found() -> None:
    """What is to find circles finds one of two rooms, one of three, and none in a chain."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [("a", "b")]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [("a", "b", "c")]


def test_no_room_imports_itself_through_others() -> None:
    """No room needs one that needs it, not even inside a function."""
    graph = {module_of(path): imported_rooms(path) for path in ROOMS if path.name != "__init__.py"}
    assert circles({room: others & graph.keys() for room, others in graph.items()}) == []


def test_no_package_imports_itself_through_others() -> None:
    """No package of rooms needs one that needs it; a room beside the packages counts as one."""

    def package(room: str) -> str:
        return ".".join(room.split(".")[:2])

    graph: dict[str, set[str]] = {}
    for path in ROOMS:
        if path.parent != PACKAGE or not path.name.startswith("__"):
            graph.setdefault(package(module_of(path)), set()).update(map(package, imported_rooms(path)))
    assert circles({name: (others & graph.keys()) - {name} for name, others in graph.items()}) == []


@rooms([path for path in ROOMS if path.relative_to(PACKAGE).parts[0] == "training"])
def test_training_takes_nothing_from_evaluation(path: Path) -> None:
    """No room of training imports one that measures."""
    assert [name for name, _ in imports(path) if name.startswith("tiny_kws.evaluation")] == []


@rooms([path for path in ROOMS if path.name != "speech_commands.py"])
def test_only_one_room_knows_the_ten_words(path: Path) -> None:
    """No room but that of Speech Commands names its keywords, its labels or its other words, or writes them out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not names & {"KEYWORDS", "LABELS", "OTHER_WORDS"}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert len(texts & set(KEYWORDS)) < len(KEYWORDS) - 2


@rooms(PLAIN)
def test_only_training_and_export_import_torch(path: Path) -> None:
    """No room outside them imports torch or onnx anywhere, not even inside a function."""
    assert not {name.partition(".")[0] for name, _ in imports(path)} & {"torch", "onnx"}


@rooms(PLAIN)
def test_what_needs_torch_is_entered_lazily(path: Path) -> None:
    """No room outside training and export imports one of theirs when it is itself imported."""
    entered = [name for name, at_once in imports(path) if at_once]
    assert [name for name in entered if name.split(".")[1:2] and name.split(".")[1] in HEAVY] == []


@rooms([path for path in ROOMS if "cli" not in path.relative_to(PACKAGE).parts])
def test_only_the_command_line_prints(path: Path) -> None:
    """No room but the command line's calls print or names sys.stdout or sys.stderr."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    named = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "print" not in called
    assert not named & {"sys.stdout", "sys.stderr"}


@rooms([path for path in PLAIN if path.name not in ("picture.py", "mixing.py")])
def test_only_training_computes_a_spectrogram(path: Path) -> None:
    """No room outside training/ uses a Fourier transform, a window function or a mel scale.

    But the one that draws a picture for the eye, and the one that puts sound into rooms: neither feeds a network.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    used += [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert [name for name in used if SPECTRUM & {part.lower() for part in re.findall("[A-Z]?[a-z]+", name)}] == []


@rooms(ROOMS)
def test_everything_public_has_a_docstring(path: Path) -> None:
    """Every module and every public function and class of it says what it is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert ast.get_docstring(tree)
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", ["tiny_kws", "tiny_kws.cli"])
def test_the_plain_install_is_enough_to_import(name: str) -> None:
    """Importing the package or its command line loads nothing that only training needs."""
    done = python(f"import sys, {name}; print([m for m in {EXTRA!r} if m in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_plain_room_imports_without_the_training_extra(tmp_path: Path) -> None:
    """Every room outside training/ but the figures can be imported where torch, onnx and matplotlib are not there."""
    names = [module_of(path) for path in PLAIN if path.name != "__main__.py"]
    code = BLOCKER.format(blocked=EXTRA) + f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_classify_needs_only_the_plain_install(artefact_path: Path, tmp_path: Path) -> None:
    """`classify` answers where nothing of the training extra can be imported."""
    sound = write_sound(tmp_path / "noise.wav")
    done = run_cli("classify", sound, "--model", artefact_path, blocked=EXTRA)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(sound) in done.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_info_of_an_artefact_needs_only_the_plain_install(artefact_path: Path, options: list[str]) -> None:
    """`info` of an artefact answers where nothing of the training extra can be imported."""
    done = run_cli("info", artefact_path, *options, blocked=EXTRA)
    assert (done.returncode, done.stderr) == (0, "")
    assert "unknown" in done.stdout


def test_importing_prints_nothing(measured_import: dict[str, Any]) -> None:
    """No room prints when it is imported."""
    assert measured_import["printed"] == ""


def test_importing_sets_no_seeds_and_no_threads(measured_import: dict[str, Any]) -> None:
    """Importing leaves random states, threads and torch's settings as they were."""
    assert measured_import["same state"]


def test_importing_opens_no_device_and_no_connection(measured_import: dict[str, Any]) -> None:
    """Importing opens no sound device, no GPU and no network connection."""
    assert (measured_import["sockets"], measured_import["devices"], measured_import["cuda"]) == ([], [], False)


def test_torch_names_are_there_when_asked_for() -> None:
    """`tiny_kws.LogMel` and its like load torch on first use, and any other name is an AttributeError."""
    code = "import sys, tiny_kws; tiny_kws.LogMel; print('torch' in sys.modules, hasattr(tiny_kws, 'nothing'))"
    assert python(code).stdout == "True False\n"


def test_the_package_shows_what_it_offers() -> None:
    """Every public name is in `dir(tiny_kws)` and can be imported; to be listed it needs no torch."""
    code = "import sys, tiny_kws; print({*tiny_kws.__all__} <= {*dir(tiny_kws)}, 'torch' in sys.modules); "
    assert python(code).stdout == "True False\n"
    assert python("from tiny_kws import *; print(CausalCNN.__name__, DSCNN.__name__)").stdout == "CausalCNN DSCNN\n"
