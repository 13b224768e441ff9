"""Build the wheel, and run the run-time tests on it in new environments of the oldest and the newest Python there is.

What is tested is what users install: the tests run where the repository's `src` is not, on the plain install with the
extra `plot`. Tests that need torch skip there, and say so. Other Pythons may be named: check_wheel.py python3.12
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST = (3, 10)
TESTS = (
    "test_actions.py",
    "test_audio.py",
    "test_demo.py",
    "test_detect.py",
    "test_detect_command.py",
    "test_examples.py",
    "test_files.py",
    "test_locks.py",
    "test_runtime.py",
    "test_session.py",
    "test_words.py",
)
"""Of the rooms that a plain install uses."""

NEEDED = ("tests", "docs", "examples", "scripts", "web", "README.md", "pyproject.toml")
"""Files of the repository that these tests look at."""

IN_THE_WHEEL = (
    "assets/base.onnx",
    "assets/listener.stream.onnx",
    "assets/own-words.bank",
    "assets/own-words-micro.bank",
    "apps/web/index.html",
    "apps/space_files/app.py",
)


def main() -> None:
    """Build, look into, install and test the wheel; the exit status is pytest's."""
    pythons = [Path(name) for name in sys.argv[1:]] or oldest_and_newest()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        look_into(wheel)
        checkout = folder / "checkout"
        for needed in NEEDED:
            copy(ROOT / needed, checkout / needed)
        for number, python in enumerate(pythons):
            test(wheel, python, folder / f"environment{number}", checkout)


def oldest_and_newest() -> list[Path]:
    """The oldest Python from 3.10 on and the newest that are on this machine, one if they are the same."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted((Path.home() / ".pyenv" / "versions").glob("*/bin"))
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.*")):
            match = re.fullmatch(r"python3\.(\d+)", path.name)
            version = (3, int(match[1])) if match else (0, 0)
            if version >= OLDEST and version not in found and runs(path):
                found[version] = path
    return [found[version] for version in sorted({min(found), max(found)})]


def runs(python: Path) -> bool:
    """Whether it is a Python that makes environments, and not a stand-in for one that is not there."""
    return subprocess.run([python, "-c", "import venv, ssl"], capture_output=True, check=False).returncode == 0


def build(folder: Path) -> Path:
    """The wheel, built into `folder`."""
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def look_into(wheel: Path) -> None:
    """Exit unless the wheel holds models, page and Space, and nothing but the package."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    lacking = [name for name in IN_THE_WHEEL if f"tiny_kws/{name}" not in names]
    foreign = [name for name in names if not re.match(r"tiny_kws(-[\w.]+\.dist-info)?/", name)]
    if lacking or foreign:
        sys.exit(f"{wheel.name}: lacks {lacking or 'nothing'}, and has {foreign or 'nothing'} that is not its own")


def copy(source: Path, destination: Path) -> None:
    """Copy a file, or a folder without what was built or installed in it."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    else:
        shutil.copyfile(source, destination)


def test(wheel: Path, python: Path, environment: Path, checkout: Path) -> None:
    """Install the wheel into a new environment of `python` and run the tests there; exit if one fails."""
    print(f"The wheel on {python}:", flush=True)
    subprocess.run([python, "-m", "venv", environment], check=True)
    own = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"{wheel}[plot]", "pytest", "hypothesis"], check=True)
    tests = [f"tests/{name}" for name in TESTS]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not browser and not data"]
    done = subprocess.run([own, "-m", "pytest", *options, *tests], cwd=checkout, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
