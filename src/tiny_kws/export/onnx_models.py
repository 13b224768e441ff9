"""The ONNX graphs of a checkpoint: over a clip, over a step of a stream, in int8; and their bytes as an artefact."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from ..artefact.runtime import open_session
from ..config import FeatureConfig
from ..errors import UsageError
from ..training.checkpoint import Checkpoint
from ..training.networks import CausalCNN, Network
from .onnx_graph import (
    BATCH,
    FRONT_END,
    Graph,
    StreamPast,
    emit_front_end,
    emit_linear,
    emit_network,
    factor_transform,
    plan_states,
    reaches_of,
)

MAX_STATE_BYTES = 2**17
"""The most state that a stream may carry: twice that of `base` with a window of a second."""
LAYERS = ("Conv", "MatMul", "Gemm")
"""The nodes of a stream's graph that have weights."""
HALVED_FROM = 1000
"""The size from which on a trunk stores a weight in float16."""
Array = npt.NDArray[Any]


class _Body(nn.Module):
    """The part of a network that is traced: up to the pooled vector, or, of one that streams, up to the pooling."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.trunk(features) if isinstance(self.model, CausalCNN) else self.model.embed(features)


def clip_graph(checkpoint: Checkpoint, half_filters: bool = False) -> onnx.ModelProto:
    """Front end, normalisation, network and softmax over a window of audio as one ONNX graph."""
    config, model = checkpoint.feature_config, checkpoint.model
    _check_window(checkpoint)
    graph = Graph(FRONT_END)
    if config.centered:
        edges, mode = [0, config.n_fft // 2, 0, config.n_fft // 2], "reflect"
    else:
        edges, mode = [0, config.n_fft - config.hop, 0, 0], "constant"
    padded = graph.add("Pad", "audio", graph.constant(edges), mode=mode)
    features = emit_front_end(graph, padded, config, checkpoint.stats, half_filters)
    example = torch.zeros(1, 1, config.n_mels, config.n_frames(checkpoint.window))
    pooled = emit_network(graph, features, _Body(model), example)
    if isinstance(model, CausalCNN):
        pooled = graph.add("ReduceMean", pooled, graph.constant([-1]), keepdims=0)
    _emit_head(graph, pooled, model.fc)
    return graph.finish("clip", {"audio": [BATCH, checkpoint.window]}, _outputs(checkpoint))


def stream_graph(checkpoint: Checkpoint, hop: int, half_filters: bool = False) -> onnx.ModelProto:
    """The same for one step: a chunk of `hop` samples for each of a batch of streams, and the states before it.

    Raises UsageError if the network does not stream, or in chunks of another length only.
    """
    config, model, step = checkpoint.feature_config, checkpoint.model, checkpoint.hop
    assert isinstance(model, CausalCNN)
    if hop <= 0 or hop % step or hop > checkpoint.window:
        short, medium, long = (f"{1000 * times * step / config.rate:g}" for times in (1, 2, 4))
        raise UsageError(
            f"a hop of {hop} samples is not a whole multiple of {step} up to the window of {checkpoint.window}; take "
            f"{short}, {medium} or {long} ms"
        )
    fresh = hop // step
    before = model.config.pooled_frames - fresh
    graph = Graph()
    behind = [((1, model.config.width, fresh), before)]
    past, frames = _emit_stream(graph, model, config, checkpoint.stats, hop, behind, half_filters)
    window = past.extend(frames, before)
    _emit_head(graph, graph.add("ReduceMean", window, graph.constant([1]), keepdims=0), model.fc)
    past.finish()
    _check_state_size(past, hop)
    outputs = {**_outputs(checkpoint), **{f"next_{name}": shape for name, shape in past.shapes.items()}}
    return graph.finish("stream", {"audio": [BATCH, hop], **past.shapes}, outputs)


def trunk_graph(network: CausalCNN, config: FeatureConfig, stats: dict[str, float]) -> onnx.ModelProto:
    """A trunk as one step of streams: `audio` (batch, hop), as long as its vectors' mean, to `embedding` (batch, size).

    A head is added to it when a word is enrolled (`enrolment.ship`). Large weights are stored in float16.
    """
    hop = network.config.window_frames * config.hop
    graph = Graph()
    past, frames = _emit_stream(graph, network, config, stats, hop)
    mean = graph.add("ReduceMean", frames, graph.constant([1]), keepdims=0)
    graph.add("Identity", emit_linear(graph, mean, network.fc), name="embedding")
    past.finish()
    outputs = {"embedding": [BATCH, network.config.n_classes], **{f"next_{k}": v for k, v in past.shapes.items()}}
    return halved(graph.finish("stream", {"audio": [BATCH, hop], **past.shapes}, outputs))


def _emit_stream(
    graph: Graph,
    network: CausalCNN,
    config: FeatureConfig,
    stats: dict[str, float],
    hop: int,
    behind: Sequence[tuple[tuple[int, ...], int]] = (),
    half_filters: bool = False,
) -> tuple[StreamPast, str]:
    """Front end and network over a chunk of `hop` samples: the past of their layers, and the frames that come out.

    `behind` are further layers that look back: the shape of their chunk, and how far.
    """
    example = torch.zeros(1, 1, config.n_mels, hop // config.hop)
    body = _Body(network)
    reach = config.n_fft - config.hop
    past = StreamPast(graph, plan_states([((1, hop), reach), *reaches_of(body, example), *behind]))
    features = emit_front_end(graph, past.extend("audio", reach), config, stats, half_filters)
    return past, emit_network(graph, features, body, example, past)


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, whose weights of over `HALVED_FROM` numbers become float16, and are cast when it is loaded."""
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    casts = []
    for tensor in (weight for weight in weights if math.prod(weight.dims) > HALVED_FROM):
        name = tensor.name
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}/half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_window(checkpoint: Checkpoint) -> None:
    """Raise UsageError for a window that the front end cannot cut into frames."""
    columns = factor_transform(checkpoint.feature_config)[1]
    if checkpoint.window % columns:
        raise UsageError(f"found a window of {checkpoint.window} samples, expected a multiple of {columns}")


def _check_state_size(past: StreamPast, hop: int) -> None:
    state_bytes = 4 * sum(math.prod(shape[1:]) for shape in past.shapes.values())
    if state_bytes > MAX_STATE_BYTES:
        raise UsageError(
            f"a stream in hops of {hop} samples would carry {state_bytes:,} bytes of state, expected at most "
            f"{MAX_STATE_BYTES:,}; take a shorter hop or a narrower network"
        )


def _emit_head(graph: Graph, pooled: str, classifier: nn.Linear) -> None:
    embedding = graph.add("Identity", pooled, name="embedding")
    graph.add("Softmax", emit_linear(graph, embedding, classifier), axis=-1, name="probabilities")


def _outputs(checkpoint: Checkpoint) -> dict[str, list[Any]]:
    width = checkpoint.model.fc.in_features
    return {"probabilities": [BATCH, len(checkpoint.labels)], "embedding": [BATCH, width]}


def quantized_clip(model: onnx.ModelProto, calibration: Array) -> onnx.ModelProto:
    """A clip graph with its network's weights and activations in int8, ranges taken from audio (clips, window)."""
    return _quantized(model, ({"audio": batch} for batch in _batches(calibration)))


def quantized_stream(model: onnx.ModelProto, calibration: Array) -> onnx.ModelProto:
    """A stream's graph with the weights and inputs of its layers in int8, ranges taken from audio (clips, samples).

    What is between the layers, the states among it, stays in float: rounded at each step it would drift.
    """
    session = open_session(model.SerializeToString(), 1, "the stream to be quantised")
    return _quantized(model, _steps(session, calibration), LAYERS)


def _batches(calibration: Array) -> list[Array]:
    return np.array_split(calibration, max(1, len(calibration) // 32))


def _steps(session: Any, calibration: Array) -> Iterator[dict[str, Array]]:
    """What a stream's graph is given, step by step, while it hears clips (clips, samples) from their start."""
    shapes = {value.name: value.shape[1:] for value in session.get_inputs()}
    (hop,) = shapes.pop("audio")
    for batch in _batches(calibration):
        states = {name: np.zeros((len(batch), *shape), np.float32) for name, shape in shapes.items()}
        for start in range(0, batch.shape[1] - hop + 1, hop):
            given = {"audio": batch[:, start : start + hop], **states}
            yield given
            states = dict(zip(shapes, session.run([f"next_{name}" for name in shapes], given), strict=True))


def _quantized(
    model: onnx.ModelProto, given: Iterator[dict[str, Array]], kinds: Sequence[str] | None = None
) -> onnx.ModelProto:
    """`model` in int8, but for its front end: all of its network, or nodes of some kinds; ranges are those of inputs.

    `model` is used up.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(given, None)

    kept_in_float = [node.name for node in model.graph.node if node.name.startswith(FRONT_END)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        logging.disable(logging.WARNING)  # it recommends a preparation that this graph does not need
        try:
            quantize_static(
                model,
                path,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept_in_float,
                op_types_to_quantize=kinds,
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(path)
