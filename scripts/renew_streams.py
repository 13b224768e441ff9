"""Write the graphs of the bundled stream artefacts anew, after a change of how graphs are written.

Weights come from models/*/best.pt and models/trunk/trunk.pt, the heads of `commands` and all metadata from the
artefacts themselves. One is written only if its answers to noise and to the examples are the same to the last bit; what
was measured on it then holds for the new one as well. The files of the measurements say so: `sha256` becomes the new
artefact's, `measured_sha256` is that of the one that was measured.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
import torch

from tiny_kws.artefact.format import NO_CHECKSUM, artefact_bytes
from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.enrolment.bank import Bank, read_bank
from tiny_kws.enrolment.ship import read_words, write_model
from tiny_kws.export.onnx_models import stream_graph, trunk_graph
from tiny_kws.files import sha256_of, write_bytes, write_json
from tiny_kws.training.checkpoint import load_checkpoint
from tiny_kws.training.trunk import FEATURES, read_trunk

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ASSETS = ROOT / "src" / "tiny_kws" / "assets"


def answers(path: Path) -> npt.NDArray[np.float32]:
    """To ten seconds of noise that grows, and the examples."""
    rng = np.random.default_rng(0)
    noise = np.geomspace(1e-4, 0.5, 10 * SAMPLE_RATE) * rng.uniform(-1, 1, 10 * SAMPLE_RATE)
    sounds = [noise.astype(np.float32), *map(read_mono, sorted(EXAMPLES.glob("*.wav")))]
    return StreamModel(path).stream().process(np.concatenate(sounds))


def trunk_anew(bank: Bank) -> onnx.ModelProto:
    """The graph of the bank's trunk, whose last layer was fitted when the bank was made."""
    network, stats, _ = read_trunk(ROOT / "models" / "trunk" / "trunk.pt")
    fitted = onnx.load_model_from_string(bank.trunk).graph.initializer
    weights = [onnx.numpy_helper.to_array(tensor).astype(np.float32) for tensor in fitted if tensor.data_type in FLOATS]
    with torch.no_grad():
        for parameter in (network.fc.weight, network.fc.bias):
            (found,) = (one for one in weights[-2:] if one.shape == parameter.shape)
            parameter.copy_(torch.from_numpy(found))
    return trunk_graph(network, FEATURES, stats)


def write_anew(path: Path, to: Path) -> None:
    """The artefact at `path`, its graph as graphs are written now."""
    name = path.name.removesuffix(".stream.onnx")
    metadata = StreamModel(path).metadata
    if metadata.own_words:
        bank = read_bank()
        trunk = trunk_anew(bank).SerializeToString()
        write_model(to, replace(bank, trunk=trunk), read_words(path, bank))
        return
    graph = stream_graph(load_checkpoint(ROOT / "models" / name / "best.pt"), metadata.hop)
    write_bytes(to, artefact_bytes(graph, replace(metadata, artefact_sha256=NO_CHECKSUM)))


def carry_over(before: str, after: str) -> None:
    """Let what was measured on one artefact hold for another that answers the same."""
    for file in (ROOT / "models").rglob("metrics.json"):
        metrics = json.loads(file.read_text(encoding="utf-8"))
        model = metrics["model"]
        if before != after and model["sha256"] == before:
            metrics["model"] = {**model, "sha256": after, "measured_sha256": model.get("measured_sha256", before)}
            write_json(file, metrics)


def main() -> None:
    """Write those that agree; say how far apart the answers are."""
    for path in sorted(ASSETS.glob("*.stream.onnx")):
        with TemporaryDirectory() as folder:
            new = Path(folder) / path.name
            write_anew(path, new)
            is_same = np.array_equal(answers(new), answers(path))
            print(f"{path.name}: {'the same answers' if is_same else 'other answers, not written'}")
            if is_same:
                before, after = sha256_of(path), sha256_of(new)
                write_bytes(path, new.read_bytes())
                carry_over(before, after)


if __name__ == "__main__":
    main()
