"""Stream artefacts with labels, hop and window of any kind, made in a moment from a bundled one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tiny_kws.artefact.runtime import read_metadata
from tiny_kws.artefact.store import find_model

from .helpers import edited_artefact


def relabelled(to: Path, columns: Mapping[str, str], name: str | None = None, **changes: Any) -> Path:
    """A bundled stream model (default: the default) with other labels: the keys, in their order, for its own labels."""
    source = find_model(name, "stream")
    labels = read_metadata(source).labels

    def edit(model: onnx.ModelProto) -> None:
        chosen = np.array([labels.index(label) for label in columns.values()])
        for node in model.graph.node:
            node.output[:] = ["before" if output == "probabilities" else output for output in node.output]
        model.graph.initializer.append(onnx.numpy_helper.from_array(chosen, "chosen"))
        model.graph.node.append(onnx.helper.make_node("Gather", ["before", "chosen"], ["probabilities"], axis=1))
        output = next(value for value in model.graph.output if value.name == "probabilities")
        output.type.tensor_type.shape.dim[1].dim_value = len(columns)

    return edited_artefact(source, to, edit, labels=list(columns), **changes)


def noise_model(to: Path, labels: Sequence[str], hop: int, window: int, **changes: Any) -> Path:
    """A stream artefact that knows nothing: a label's score leaks from hop to hop and takes in a random projection."""
    source = find_model(None, "stream")
    weights = np.random.default_rng(0).normal(0, 1, (hop, len(labels))).astype(np.float32)

    def edit(model: onnx.ModelProto) -> None:
        node, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
        shapes = {name: [1, len(labels)] for name in ("scores", "next_scores", "probabilities", "embedding")}
        values = {
            name: onnx.helper.make_tensor_value_info(name, floats, shape)
            for name, shape in {**shapes, "audio": [1, hop]}.items()
        }
        nodes = [
            node("MatMul", ["audio", "weights"], ["new"]),
            node("Mul", ["scores", "leak"], ["old"]),
            node("Add", ["old", "new"], ["next_scores"]),
            node("Softmax", ["next_scores"], ["probabilities"], axis=1),
            node("Identity", ["next_scores"], ["embedding"]),
        ]
        graph = onnx.helper.make_graph(
            nodes,
            "noise",
            [values["audio"], values["scores"]],
            [values["probabilities"], values["embedding"], values["next_scores"]],
            [
                onnx.numpy_helper.from_array(weights, "weights"),
                onnx.numpy_helper.from_array(np.array(0.8, np.float32), "leak"),
            ],
        )
        model.graph.CopyFrom(graph)

    return edited_artefact(source, to, edit, labels=list(labels), hop=hop, window=window, **changes)
