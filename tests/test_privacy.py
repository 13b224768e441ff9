"""Nothing is written outside of what was asked for, and nobody is asked for anything: sound stays on its computer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .helpers import environment, write_sound

ROOT = Path(__file__).parents[1]
VARIABLES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
LIFE_S = 1.5  # onnxruntime sends what it has to report after a second

WATCHED = """
import atexit, json, sys, time

started, sockets = time.monotonic(), []


def watch(event, args):
    asked = str(args[1] if event in ("socket.bind", "socket.connect") else args[0] if args else "")
    is_here = "127.0.0.1" in asked or "localhost" in asked
    if event.startswith("socket.") and event != "socket.__new__" and not is_here:
        sockets.append([event, asked])


sys.addaudithook(watch)
atexit.register(lambda: (time.sleep(max(0.0, {life_s} - time.monotonic() + started)),
                         print(json.dumps(sockets), file=sys.stderr)))
"""
USES = {
    "import": "import tiny_kws",
    "onnxruntime": "import tiny_kws, onnxruntime",
    "Classifier": "import numpy, tiny_kws; tiny_kws.load().classify(numpy.zeros(16000))",
    "Detector": "import numpy, tiny_kws; tiny_kws.Detector().process(numpy.zeros(16000))",
    "classify": "import sys; sys.argv[1:] = ['classify', sys.argv[1]]; from tiny_kws.cli import main; main()",
    "page": "from tiny_kws.apps.server import PageServer; PageServer(0).server_close()",
    "info": "import sys; sys.argv[1:] = ['info']; from tiny_kws.cli import main; main()",
}
LIBRARIES = {
    "gradio": "from tiny_kws.apps.space import launch; launch('127.0.0.1', None, False)[0].close(verbose=False)",
    "huggingface_hub": "from tiny_kws.artefact.hub import import_hub; import_hub(); "
    "from huggingface_hub import constants; assert constants.HF_HUB_DISABLE_TELEMETRY",
}
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def fresh(home: Path) -> dict[str, str]:
    """The environment of a user who set nothing, with an empty home folder."""
    kept = {
        name: value for name, value in environment().items() if name not in VARIABLES and not name.startswith("XDG_")
    }
    return {**kept, "HOME": str(home), "USERPROFILE": str(home)}


def live(home: Path, use: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Run a use in a process that lives over a second; the audited socket events are the last line of its stderr."""
    sound = write_sound(home.parent / "noise.wav")
    command = [*before, sys.executable, "-B", "-c", WATCHED.format(life_s=LIFE_S) + USES[use], str(sound)]
    return subprocess.run(command, capture_output=True, text=True, env=fresh(home), timeout=120, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("use", USES)
def test_nothing_is_written_at_home_and_nobody_is_asked(home: Path, use: str) -> None:
    """A process that lives over a second leaves nothing under HOME, asks no other computer and resolves no name."""
    done = live(home, use)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_with_telemetry_ask_nobody(home: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Gradio app, which serves on this computer, and the Hub's library talk to no other one unasked."""
    pytest.importorskip(library)
    monkeypatch.setitem(USES, library, LIBRARIES[library])
    done = live(home, library)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert [path for path in home.rglob("*") if path.is_file()] == []


@needs_strace
def test_no_library_talks_to_the_network(home: Path) -> None:
    """Nor does code below Python: the system is asked for no socket of a network, and for no name."""
    log = home.parent / "calls"
    done = live(home, "Classifier", "strace", "-f", "-e", "trace=socket,connect,sendto,openat", "-o", str(log))
    if "ptrace" in done.stderr or not log.exists():
        pytest.skip("this system lets no process be traced")
    assert done.returncode == 0, done.stderr
    calls = log.read_text(errors="replace")
    assert "libonnxruntime" in calls or "onnxruntime_pybind" in calls
    assert re.findall(r".*(?:AF_INET6?|/etc/resolv\.conf|/etc/hosts|libnss_dns).*", calls) == []


@pytest.mark.parametrize("variable", VARIABLES)
def test_who_set_the_variable_keeps_it(variable: str) -> None:
    """A user who wants to report may: what the environment says is left alone."""
    code = f"import os, tiny_kws; print(os.environ[{variable!r}])"
    for value in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**environment(), variable: value},
            check=True,
        )
        assert done.stdout.strip() == value


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("benchmarks", "scripts", "apps", "notebooks")
        for path in sorted((ROOT / folder).rglob("*.*"))
    ],
    ids=lambda path: path.name,
)
def test_only_the_package_imports_onnxruntime(path: Path) -> None:
    """No script, app or notebook imports onnxruntime by itself, without the package that quiets it."""
    assert not re.search(r"^\W*(?:import|from) onnxruntime", path.read_text(encoding="utf-8"), re.MULTILINE)
