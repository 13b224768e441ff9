"""The notebook goes all the way, from the archives' folders to words found in a recording."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.speech_commands import KEYWORDS, TEST_FOLDER, WORDS_FOLDER

from .conftest import SPEAKERS
from .helpers import environment

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "train.ipynb"
pytestmark = pytest.mark.skipif(not NOTEBOOK.exists(), reason="needs the whole repository")

TRAIN = "--model micro --recipe clips --epochs 8 --batch-size 4 --learning-rate 0.005 --device cpu"

EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""
"""In a process of its own: the client's threads and warnings are not ours."""


def write_test_set(words: Path, folder: Path) -> None:
    """Write an official test set of the synthetic archive's testing clips into the new `folder`."""
    for word in (*KEYWORDS, "bed"):
        (folder / ("_unknown_" if word == "bed" else word)).mkdir(parents=True)
        for speaker in SPEAKERS["testing"]:
            to = f"_unknown_/bed_{speaker}" if word == "bed" else f"{word}/{speaker}"
            shutil.copy(words / word / f"{speaker}_nohash_0.wav", folder / f"{to}_nohash_0.wav")
    (folder / "_silence_").mkdir()
    sf.write(folder / "_silence_" / "0.wav", np.zeros(CLIP_SAMPLES), SAMPLE_RATE)


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("nbclient") and find_spec("ipykernel")), reason="needs nbclient and ipykernel")
def test_goes_all_the_way(speech_commands: Path, tmp_path: Path) -> None:
    """Every cell runs on a tiny archive, the network learns its made-up words, and the three in the recording are
    found in their order."""
    work = tmp_path / "work"
    shutil.copytree(speech_commands, work / "data" / WORDS_FOLDER)
    write_test_set(speech_commands, work / "data" / TEST_FOLDER)
    jupyter = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, NOTEBOOK, tmp_path / "executed.ipynb"],
        env={
            **environment(),
            **jupyter,
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "KWS_WORK": str(work),
            "KWS_TRAIN": TRAIN,
            "KWS_THRESHOLD": "0.6",  # label smoothing and few epochs keep probabilities low
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("my.onnx", "my.stream.onnx", "run/learning_curve.png", "run/validation/confusion_matrix.png"):
        assert (work / name).stat().st_size > 10_000, name
    for part, n_clips in (("validation", 36), ("test", 23)):
        metrics = json.loads((work / "run" / part / "metrics.json").read_text())
        assert metrics["data"]["clips"] == n_clips
        assert metrics["accuracy"] > 0.7
    lines = (work / "labels.txt").read_text().splitlines()
    assert [line.split("\t")[2] for line in lines] == ["yes", "stop", "left"]


def test_holds_no_outputs() -> None:
    """The notebook is kept without outputs and counts, so that a change of it can be read."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None and not cell["metadata"] for cell in code)
