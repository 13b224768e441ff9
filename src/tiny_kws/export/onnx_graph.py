"""Turns a torch network into an ONNX graph: a small emitter, so that the artefact has few and simple operators.

The front end's Fourier transform of N = p * q samples is done in two small matrix products (Cooley and Tukey 1965):
with n = q a + b and k = k1 + p k2, the kernel W_N^(nk) is W_p^(a k1) * W_N^(b k1) * W_q^(b k2). The first two factors
and the window are one convolution, grouped by b, that cuts the frames as it goes; the third is a small matrix over b.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..config import FeatureConfig
from ..training.features import mel_filterbank

OPSET = 20
IR_VERSION = 9
BATCH = "batch"
"""Name of the axis of clips, or of streams that run together."""
FRONT_END = "front_end"
"""Names of the front end's nodes begin with this, so that quantisation can leave them in float."""
Array = npt.NDArray[Any]
Convolution = nn.Conv1d | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d


class Graph:
    """An ONNX graph being built; every value is a name."""

    def __init__(self, scope: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.scope = scope

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Append a node and return its output's name, or the names of its `outputs`; `name` names a single one."""
        base = f"{self.scope}/{op}_{len(self.nodes)}"
        names = [name or base] if outputs == 1 else [f"{base}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=base, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Array | list[int]) -> str:
        """Add an initializer; lists become int64, float64 becomes float32."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"{self.scope}/constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def finish(self, name: str, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> onnx.ModelProto:
        """The checked model; `inputs` and `outputs` give float32 shapes, dynamic axes by name."""

        def values(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()]

        graph = helper.make_graph(self.nodes, name, values(inputs), values(outputs), self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tiny-kws")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model


def emit_front_end(
    graph: Graph, audio: str, config: FeatureConfig, stats: dict[str, float], half_filters: bool = False
) -> str:
    """Audio (batch, samples), with what lies before and behind it, to normalised log-mel (batch, 1, n_mels, frames).

    The audio's length is n_fft and then a whole number of hops; frames are cut from its first sample on. With
    `half_filters` the mel filters are stored in float16, which moves the features by less than 1e-3.
    """
    graph.scope = FRONT_END
    p, q = factor_transform(config)
    first, second, mel = _transform_weights(config, p, q)
    # The mean is subtracted inside the logarithm: log(x + offset) - mean = log((x + offset) exp(-mean)).
    scale = np.exp(-stats["mean"])
    columns = graph.add("Reshape", audio, graph.constant([0, -1, q]))
    columns = graph.add("Transpose", columns, perm=[0, 2, 1])
    # (batch, q * 2 * n_k1, frames): for each b, real and imaginary part, all k1.
    spectra = graph.add("Conv", columns, graph.constant(first), group=q, strides=[config.hop // q])
    spectra = graph.add("Reshape", spectra, graph.constant([0, 2 * q, -1]))
    # (batch, 2 * q, n_k1 * frames): real and imaginary part, for each all k2.
    spectra = graph.add("Conv", spectra, graph.constant(second * np.sqrt(scale)))
    spectra = graph.add("Reshape", spectra, graph.constant([0, 2, -1]))
    power = graph.add("ReduceSumSquare", spectra, graph.constant([1]), keepdims=0)
    power = graph.add("Reshape", power, graph.constant([0, q * (p // 2 + 1), -1]))
    filters = graph.constant(mel.astype(np.float16) if half_filters else mel)
    if half_filters:
        filters = graph.add("Cast", filters, to=TensorProto.FLOAT)
    offset = graph.constant(np.full(config.n_mels, config.log_offset * scale))
    log_mel = graph.add("Log", graph.add("Conv", power, filters, offset))
    features = graph.add("Mul", log_mel, graph.constant(np.array(1.0 / stats["std"])))
    return str(graph.add("Unsqueeze", features, graph.constant([1])))


def factor_transform(config: FeatureConfig) -> tuple[int, int]:
    """(p, q) with p * q = n_fft, q a divisor of the hop, as near to square as can be.

    >>> factor_transform(FeatureConfig())
    (20, 20)
    """
    divisors = [q for q in range(1, config.n_fft + 1) if config.n_fft % q == 0 and config.hop % q == 0]
    q = min(divisors, key=lambda q: abs(q - config.n_fft / q))
    return config.n_fft // q, q


def _transform_weights(config: FeatureConfig, p: int, q: int) -> tuple[Array, Array, Array]:
    """Weights of the three convolutions: window and first stage, second stage, mel filters over (k2, k1)."""
    n = config.n_fft
    a, b, k1, k2 = np.arange(p), np.arange(q), np.arange(p // 2 + 1), np.arange(q)
    window = torch.hann_window(n, periodic=True, dtype=torch.float64).numpy().reshape(p, q)
    kernel = window.T[:, None] * np.exp(-2j * np.pi * (a * k1[:, None] / p + b[:, None, None] * k1[:, None] / n))
    first = np.stack([kernel.real, kernel.imag], 1).reshape(-1, 1, p)  # rows (b, part, k1), columns a

    turn = np.exp(-2j * np.pi * k2[:, None] * b / q)
    to_real = np.stack([turn.real, -turn.imag], -1)
    to_imag = np.stack([turn.imag, turn.real], -1)
    second = np.stack([to_real, to_imag]).reshape(2 * q, 2 * q, 1)  # rows (part, k2), columns (b, part)

    bins = (k1 + p * k2[:, None]).ravel()
    bins = np.where(bins > n // 2, n - bins, bins)
    once = np.zeros(len(bins))
    once[np.unique(bins, return_index=True)[1]] = 1.0  # a bin that is found twice counts once
    mel = mel_filterbank(config).numpy()[bins] * once[:, None]
    return first, second, mel.T[:, :, None]


@dataclass(frozen=True)
class Reach:
    """How far one layer of a stream looks back.

    A chunk has `shape`, time last; the layer's part of the tensor `state` holds `look_back` values of the past behind
    as many as the chunk is long, which have had their time.
    """

    state: str
    shape: tuple[int, ...]
    look_back: int

    @property
    def time_major(self) -> bool:
        """Whether activations (batch, channels, time) lie in the stream as (batch, time, channels)."""
        return len(self.shape) == 3

    @property
    def axis(self) -> int:
        """The dimension of time, in the stream."""
        return 1 if self.time_major else -1

    def state_shape(self, length: int) -> list[Any]:
        """Shape of a state tensor that is `length` long in time."""
        return [BATCH, length, self.shape[1]] if self.time_major else [BATCH, *self.shape[1:-1], length]


def plan_states(layers: list[tuple[tuple[int, ...], int]]) -> list[Reach]:
    """Lay out the states of a stream's layers, given (shape of the chunk at that layer, look-back) in order of use.

    Layers of the same shape share one tensor. It holds, one behind the other, what each layer saw at the last chunk,
    past and chunk together: so the next state is one concatenation, without a slice for every layer.
    """
    kinds = {2: "state_audio", 4: "state_features", 3: "state_frames"}
    names: dict[tuple[int, ...], str] = {}
    for shape, _ in layers:
        alike = sum(len(other) == len(shape) for other in names)
        names.setdefault(shape, kinds[len(shape)] + (f"_{alike + 1}" if alike else ""))
    return [Reach(names[shape], shape, look_back) for shape, look_back in layers]


class StreamPast:
    """The past of a stream's layers, in state tensors as `plan_states` lays them out."""

    def __init__(self, graph: Graph, plan: list[Reach]) -> None:
        self.graph, self.plan = graph, plan
        self.shapes: dict[str, list[Any]] = {}
        self._members: dict[str, list[str]] = {reach.state: [] for reach in plan}
        self._pasts: list[str] = [""] * len(plan)
        self._asked = 0
        graph.scope = "state"
        for name in self._members:
            mine = [i for i, reach in enumerate(plan) if reach.state == name]
            sizes = [size for i in mine for size in (plan[i].shape[-1], plan[i].look_back)]
            parts = graph.add("Split", name, graph.constant(sizes), outputs=len(sizes), axis=plan[mine[0]].axis)
            for part, i in zip(parts[1::2], mine, strict=True):
                self._pasts[i] = part
            self.shapes[name] = plan[mine[0]].state_shape(sum(sizes))

    def extend(self, x: str, look_back: int) -> str:
        """Put the next layer's past before its chunk; layers ask in the order of the plan."""
        reach, past = self.plan[self._asked], self._pasts[self._asked]
        assert reach.look_back == look_back
        self._asked += 1
        alone = sum(other.state == reach.state for other in self.plan) == 1
        joined = self.graph.add("Concat", past, x, axis=reach.axis, name=f"next_{reach.state}" if alone else "")
        self._members[reach.state].append(joined)
        return joined  # type: ignore[no-any-return]

    def finish(self) -> None:
        """Compose the next states."""
        assert self._asked == len(self.plan)
        axes = {reach.state: reach.axis for reach in self.plan}
        for state, members in self._members.items():
            if len(members) > 1:
                self.graph.add("Concat", *members, axis=axes[state], name=f"next_{state}")


def reaches_of(network: nn.Module, features: Tensor) -> list[tuple[tuple[int, ...], int]]:
    """For each layer of `network` that looks back: the shape of its chunk when `features` are given, and how far."""
    traced = _traced(network, features)
    return [
        (tuple(_input(node).meta["tensor_meta"].shape), _look_back(node))
        for node in traced.graph.nodes
        if node.target is nn.functional.pad
    ]


def emit_network(
    graph: Graph, features: str, network: nn.Module, example: Tensor, past: StreamPast | None = None
) -> str:
    """Translate `network`, traced with torch.fx, and return its output; batch norm is folded into the convolutions.

    `example` gives the features' shape. With `past`, what comes out is one step of a stream.
    """
    graph.scope = "network"
    traced = _traced(network, example)
    modules = dict(traced.named_modules())
    emitter = _ClipEmitter(graph, modules) if past is None else _StreamEmitter(graph, modules, past)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            emitter.values[node] = features
        elif node.op == "output":
            return emitter.finish(_input(node))
        else:
            emitter.values[node] = emitter.layer(node) if node.op == "call_module" else emitter.function(node)
    raise AssertionError("a traced graph ends in its output")


class _ClipEmitter:
    """Translates the nodes of a traced network one by one; a layer's past are zeros that its convolution pads with."""

    def __init__(self, graph: Graph, modules: dict[str, nn.Module]) -> None:
        self.graph, self.modules = graph, modules
        self.values: dict[fx.Node, str] = {}
        self._zeros: dict[fx.Node, int] = {}  # that the convolution behind this node puts before its input

    def layer(self, node: fx.Node) -> str:
        layer, before = self.modules[str(node.target)], _input(node)
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
            return self.convolution(before, layer, *folded(layer, self._following_norm(node)))
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and before.op == "call_module":
            return self.values[before]  # folded into the convolution before it
        if isinstance(layer, nn.ReLU):
            return self.add("Relu", before)
        raise NotImplementedError(f"no ONNX translation of the layer {type(layer).__name__}")

    def function(self, node: fx.Node) -> str:
        if node.target is nn.functional.pad:
            return self.look_back(node)
        if node.target in (torch.relu, torch.relu_, nn.functional.relu):
            return self.add("Relu", _input(node))
        if node.target in (operator.add, torch.add):
            return self.add("Add", *node.all_input_nodes)
        if node.target == "flatten" and node.args[1:] == (1, 2):
            return self.merge_rows(node)
        if node.target == "mean" and node.args[1] == (2, 3):
            return str(self.graph.add("Flatten", self.add("GlobalAveragePool", _input(node))))
        raise NotImplementedError(f"no ONNX translation of {node.target}")

    def finish(self, node: fx.Node) -> str:
        return self.values[node]

    def add(self, op: str, *inputs: fx.Node) -> str:
        return str(self.graph.add(op, *(self.values[node] for node in inputs)))

    def look_back(self, node: fx.Node) -> str:
        self._zeros[node] = _look_back(node)
        return self.values[_input(node)]

    def merge_rows(self, node: fx.Node) -> str:
        """(batch, channels, rows, time) to (batch, channels * rows, time)."""
        channels = node.meta["tensor_meta"].shape[1]
        return str(self.graph.add("Reshape", self.values[_input(node)], self.graph.constant([0, channels, -1])))

    def convolution(self, before: fx.Node, layer: Convolution, weight: Array, bias: Array) -> str:
        margins = [int(size) for size in layer.padding]
        starts = [*margins[:-1], margins[-1] + self._zeros.get(before, 0)]
        return str(
            self.graph.add(
                "Conv",
                self.values[before],
                self.graph.constant(weight),
                self.graph.constant(bias),
                group=layer.groups,
                strides=list(layer.stride),
                pads=[*starts, *margins],
            )
        )

    def _following_norm(self, node: fx.Node) -> Norm | None:
        users = list(node.users)
        if len(users) == 1 and users[0].op == "call_module":
            norm = self.modules[str(users[0].target)]
            return norm if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) else None
        return None


class _StreamEmitter(_ClipEmitter):
    """One step of streams: the past comes from state tensors, activations over time lie as (batch * time, channels).

    Only where the past is put before them they are (batch, time, channels). For the few frames of a hop, onnxruntime's
    convolutions cost more in starting than in computing; so those over time become a product with the frames they
    reach, and a sum.
    """

    def __init__(self, graph: Graph, modules: dict[str, nn.Module], past: StreamPast) -> None:
        super().__init__(graph, modules)
        self.past = past

    def look_back(self, node: fx.Node) -> str:
        before = _input(node)
        return self.past.extend(self.in_time(before), _look_back(node))

    def finish(self, node: fx.Node) -> str:
        return self.in_time(node)

    def in_time(self, node: fx.Node) -> str:
        """Activations over time as (batch, time, channels)."""
        shape = node.meta["tensor_meta"].shape
        if len(shape) != 3:
            return self.values[node]
        _, channels, n_frames = shape
        return str(self.graph.add("Reshape", self.values[node], self.graph.constant([-1, n_frames, channels])))

    def merge_rows(self, node: fx.Node) -> str:
        channels = node.meta["tensor_meta"].shape[1]
        turned = self.graph.add("Transpose", self.values[_input(node)], perm=[0, 3, 1, 2])
        return str(self.graph.add("Reshape", turned, self.graph.constant([-1, channels])))

    def convolution(self, before: fx.Node, layer: Convolution, weight: Array, bias: Array) -> str:
        if isinstance(layer, nn.Conv2d):
            return super().convolution(before, layer, weight, bias)
        x = self.values[before]
        if layer.kernel_size == layer.stride:
            rows = weight.transpose(0, 2, 1).reshape(len(weight), -1)
            if layer.kernel_size != (1,):
                x = self.graph.add("Reshape", x, self.graph.constant([-1, rows.shape[1]]))
            return str(self.graph.add("Gemm", x, *map(self.graph.constant, (rows, bias)), transB=1))
        assert layer.groups == layer.in_channels == layer.out_channels
        assert layer.stride == (1,)
        assert not bias.any()
        n_out = before.meta["tensor_meta"].shape[-1] - layer.kernel_size[0] + 1
        reached = self.graph.constant(np.arange(n_out)[:, None] + np.arange(layer.kernel_size[0]))
        frames = self.graph.add("Gather", x, reached, axis=1)  # (batch, time, kernel, channels)
        weighted = self.graph.add("Mul", frames, self.graph.constant(weight[:, 0].T))
        summed = self.graph.add("ReduceSum", weighted, self.graph.constant([2]), keepdims=0)
        return str(self.graph.add("Reshape", summed, self.graph.constant([-1, len(weight)])))


def emit_linear(graph: Graph, x: str, layer: nn.Linear) -> str:
    """(batch, in) to (batch, out)."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return str(graph.add("Gemm", x, graph.constant(weight), graph.constant(bias), transB=1))


def _traced(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The network's graph, with the shape of every value when it is given `example`."""
    traced = fx.symbolic_trace(network.eval())
    ShapeProp(traced).propagate(example)
    return traced


def _input(node: fx.Node) -> fx.Node:
    before = node.args[0]
    assert isinstance(before, fx.Node)
    return before


def _look_back(node: fx.Node) -> int:
    """The padding of a call of torch.nn.functional.pad, as `extend_by_zeros` makes it."""
    sizes = node.args[1]
    assert isinstance(sizes, (tuple, list))
    before, behind = sizes
    assert behind == 0
    return int(str(before))


def folded(conv: Convolution, norm: Norm | None) -> tuple[Array, Array]:
    """Weight and bias of a convolution with the batch norm behind it folded in, computed in float64."""
    weight, bias = conv.weight.detach().double(), conv.bias.detach().double() if conv.bias is not None else None
    if norm is None:
        return weight.numpy(), (np.zeros(len(weight)) if bias is None else bias.numpy())
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        weight,
        bias,
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        norm.weight.detach().double(),
        norm.bias.detach().double(),
    )
    return weight.detach().numpy(), bias.detach().numpy()
