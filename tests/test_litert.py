"""LiteRT models and the C header say what the checkpoint says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tiny_kws.data.prepared import PreparedData
from tiny_kws.data.speech_commands import LABELS

from .helpers import environment, run_cli, trained_like

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("litert_torch") is None, reason="litert-torch is not installed"),
]

READ = """
import json, sys
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tiny_kws.export.litert import read_properties

model = Path(sys.argv[1]).read_bytes()
interpreter = Interpreter(model_content=model)
interpreter.allocate_tensors()
given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
print(json.dumps({
    "properties": read_properties(model),
    "input": [given["shape"].tolist(), np.dtype(given["dtype"]).name, given["quantization"]],
    "output": [answered["shape"].tolist(), np.dtype(answered["dtype"]).name, answered["quantization"]],
}))
"""


@pytest.fixture(scope="module")
def folder(checkpoint_path: Path, prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tiny-kws export --litert` writes. In a process of its own: the converter warns and sets things up."""
    folder = tmp_path_factory.mktemp("litert")
    code = (
        "import sys, tiny_kws.export.exporter as e; e.INT8_TOLERANCE = 1.0; e.CALIBRATION_CLIPS = 40; "
        "from tiny_kws.cli import main; main()"  # what is lost on made-up words with random weights says nothing
    )
    arguments = ["export", trained_like(checkpoint_path), "--out", folder / "m.onnx", "--data", prepared.folder]
    command = [sys.executable, "-c", code, *map(str, arguments), "--litert", "--licence", "CC0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.count("probabilities differ by up to") == 3
    assert f"{folder / 'm.h'}: {(folder / 'm.h').stat().st_size:,} bytes\n" in done.stdout
    return folder


def read(model: Path) -> dict[str, object]:
    """Input, output and metadata of a model."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(model)], capture_output=True, text=True, env=environment(), check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_float_model(folder: Path) -> None:
    """The float model takes the log-mel as floats, and its metadata name the labels and the licence."""
    found = read(folder / "m.tflite")
    assert found["input"][:2] == [[1, 64, 101, 1], "float32"]  # type: ignore[index]
    assert found["properties"]["labels"] == list(LABELS)  # type: ignore[index]
    assert found["properties"]["licence"] == "CC0"  # type: ignore[index]


def test_int8_model(folder: Path) -> None:
    """The int8 model is int8 from input to output, a third of the float one, and its metadata give its quantisation."""
    found = read(folder / "m.int8.tflite")
    quantization = found["properties"]["quantization"]  # type: ignore[index]
    assert found["input"] == [  # type: ignore[comparison-overlap]
        [1, 64, 101, 1],
        "int8",
        [pytest.approx(quantization["input_scale"]), quantization["input_zero_point"]],
    ]
    assert found["output"][:2] == [[1, 12], "int8"]  # type: ignore[index]
    assert found["properties"]["labels"] == list(LABELS)  # type: ignore[index]
    assert (folder / "m.int8.tflite").stat().st_size < 0.45 * (folder / "m.tflite").stat().st_size


def test_info(folder: Path) -> None:
    """`tiny-kws info` reads what a LiteRT model says of itself, and refuses another file in one line."""
    said = run_cli("info", folder / "m.int8.tflite")
    assert said.returncode == 0, said.stderr
    assert "ds-cnn, features, int8" in said.stdout
    (folder / "notes.tflite").write_text("no model")
    refused = run_cli("info", folder / "notes.tflite")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_header_holds_the_model(folder: Path) -> None:
    """The C header holds the int8 model's bytes, the labels, and the gain and offset of a log-mel value."""
    header = (folder / "m.h").read_text()
    assert "Weights: CC0." in header
    body = header.split("kws_model[]")[1]
    model = (folder / "m.int8.tflite").read_bytes()
    assert bytes(int(value, 16) for value in re.findall(r"0x([0-9a-f]{2})", body)) == model
    assert f"kws_model_len = {len(model)};" in header
    assert all(f'"{label}"' in header for label in LABELS)
    quantization = read(folder / "m.int8.tflite")["properties"]["quantization"]  # type: ignore[index]
    gain = float(re.search(r"KWS_INPUT_GAIN (\S+)f", header)[1])  # type: ignore[index]
    offset = float(re.search(r"KWS_INPUT_OFFSET (\S+)f", header)[1])  # type: ignore[index]
    np.testing.assert_allclose(
        [gain, offset], [quantization["log_mel_gain"], quantization["log_mel_offset"]], rtol=1e-6
    )


EXPORT_PHRASES = """
import sys
from pathlib import Path
import numpy as np
from tiny_kws.export.exporter import Exporter
from tiny_kws.export.litert import export_litert
from tiny_kws.training.checkpoint import load_checkpoint

checkpoint = load_checkpoint(sys.argv[1])
checkpoint.window = 24_000
checkpoint.labels = ('a "word" \\\\', *checkpoint.labels[1:])
sound = np.random.default_rng(0).normal(0, 0.1, (8, 24_000)).astype(np.float32)
print([path.name for path, _ in export_litert(Exporter(checkpoint, licence="mine */"), Path(sys.argv[2]), sound)])
"""


@pytest.fixture(scope="module")
def phrases(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a network over a second and a half, one of whose labels is no C."""
    folder = tmp_path_factory.mktemp("phrases")
    command = [sys.executable, "-c", EXPORT_PHRASES, str(trained_like(checkpoint_path)), str(folder / "m.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['m.tflite', 'm.int8.tflite']"
    return folder


@pytest.mark.parametrize("name", ["m.tflite", "m.int8.tflite"])
def test_a_window_of_another_length(phrases: Path, name: str) -> None:
    """Models of a network over a second and a half take that many frames, and say so."""
    found = read(phrases / name)
    assert found["input"][0] == [1, 64, 151, 1]  # type: ignore[index]
    assert found["properties"]["window"] == 24_000  # type: ignore[index]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_any_label_and_licence_in_a_header(phrases: Path, tmp_path: Path) -> None:
    """Quotes and backslashes in a label and the end of a comment in a licence do not break the header."""
    source = tmp_path / "main.c"
    source.write_text(
        '#include <stdio.h>\n#include "m.h"\nint main(void) { puts(kws_labels[0]); return kws_model[0] < 0; }\n'
    )
    command = ["cc", "-Wall", "-Wextra", f"-I{phrases}", str(source), "-o", str(tmp_path / "main")]
    subprocess.run(command, check=True)
    said = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True).stdout
    assert said == 'a "word" \\\n'
    assert "(1, 64, 151, 1)" in (phrases / "m.h").read_text()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_header_compiles(folder: Path, tmp_path: Path) -> None:
    """A C program that includes the header compiles without a warning and finds the model in it."""
    source = tmp_path / "main.c"
    source.write_text(
        '#include <stdio.h>\n#include "m.h"\n'
        "int main(void) { float x = -7.0f * KWS_INPUT_GAIN + KWS_INPUT_OFFSET;\n"
        '  printf("%u %d %s %d %d\\n", kws_model_len, KWS_N_LABELS, kws_labels[2], kws_model[4], x < 128.0f);\n'
        "  return 0; }\n"
    )
    program = tmp_path / "main"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", f"-I{folder}", str(source), "-o", str(program)], check=True)
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
    assert said == [str((folder / "m.int8.tflite").stat().st_size), "12", "yes", str(ord("T")), "1"]
