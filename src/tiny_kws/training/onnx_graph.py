"""From a torch network to an ONNX graph: a small emitter, so that the artefact holds few and plain operators.

The front end's Fourier transform of N = p * q samples is done in two small matrix products (Cooley and Tukey 1965):
with n = q a + b and k = k1 + p k2, the kernel W_N^(nk) is W_p^(a k1) * W_N^(b k1) * W_q^(b k2). The first two factors
and the window are one convolution, grouped by b, that cuts the frames as it goes; the third is a small matrix over b.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..config import FeatureConfig
from .features import mel_filterbank

OPSET = 20
IR_VERSION = 9
FRONT_END = "front_end"
"""Names of the front end's nodes begin with this, so that quantisation can leave them in float."""

Array = npt.NDArray[Any]


class Graph:
    """An ONNX graph being built; every value is a name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.scope = ""

    def add(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Append a node and return its output's name, or the names of its `outputs`; `name` names a single one."""
        base = f"{self.scope}/{op}_{len(self.nodes)}"
        names = [name or base] if outputs == 1 else [f"{base}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=base, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Array | list[int]) -> str:
        """Add an initializer; lists become int64, floats float32."""
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
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


def emit_front_end(graph: Graph, audio: str, config: FeatureConfig, stats: dict[str, float]) -> str:
    """Audio (batch, samples), with what lies before and behind it, to normalised log-mel (batch, 1, n_mels, frames).

    The audio's length is n_fft and then a whole number of hops; frames are cut from its first sample on.
    """
    graph.scope = FRONT_END
    p, q = factor_transform(config)
    first, second, mel = _transform_weights(config, p, q)
    columns = graph.add("Reshape", audio, graph.constant([0, -1, q]))
    columns = graph.add("Transpose", columns, perm=[0, 2, 1])
    # (batch, q * 2 * n_k1, frames): for each b, real and imaginary part, all k1.
    spectra = graph.add("Conv", columns, graph.constant(first), group=q, strides=[config.hop // q])
    spectra = graph.add("Reshape", spectra, graph.constant([0, 2 * q, -1]))
    # (batch, 2 * q, n_k1 * frames): real and imaginary part, for each all k2.
    spectra = graph.add("Conv", spectra, graph.constant(second))
    spectra = graph.add("Reshape", spectra, graph.constant([0, 2, -1]))
    power = graph.add("ReduceSumSquare", spectra, graph.constant([1]), keepdims=0)
    power = graph.add("Reshape", power, graph.constant([0, q * (p // 2 + 1), -1]))
    offset = np.full(config.n_mels, config.log_offset)
    log_mel = graph.add("Log", graph.add("Conv", power, graph.constant(mel), graph.constant(offset)))
    shifted = graph.add("Sub", log_mel, graph.constant(np.array(stats["mean"])))
    features = graph.add("Mul", shifted, graph.constant(np.array(1.0 / stats["std"])))
    return graph.add("Unsqueeze", features, graph.constant([1]))  # type: ignore[no-any-return]


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


def emit_network(graph: Graph, features: str, network: nn.Module) -> str:
    """Translate `network`, traced with torch.fx, and return its output; batch norm is folded into the convolutions."""
    graph.scope = "network"
    traced = fx.symbolic_trace(network.eval())
    modules = dict(traced.named_modules())
    values: dict[fx.Node, str] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            values[node] = features
        elif node.op == "output":
            return values[node.args[0]]
        elif node.op == "call_module":
            values[node] = _emit_layer(graph, node, modules, values)
        else:
            values[node] = _emit_function(graph, node, values)
    raise AssertionError("a traced graph ends in its output")


def _emit_layer(graph: Graph, node: fx.Node, modules: dict[str, nn.Module], values: dict[fx.Node, str]) -> str:
    layer, before = modules[str(node.target)], node.args[0]
    assert isinstance(before, fx.Node)
    x = values[before]
    if isinstance(layer, nn.Conv2d):
        weight, bias = folded(layer, _following_norm(node, modules))
        top, left = map(int, layer.padding)
        return graph.add(  # type: ignore[no-any-return]
            "Conv",
            x,
            graph.constant(weight.numpy()),
            graph.constant(bias.numpy()),
            group=layer.groups,
            strides=list(layer.stride),
            pads=[top, left, top, left],
        )
    if isinstance(layer, nn.BatchNorm2d) and before.op == "call_module":
        return x  # folded into the convolution before it
    if isinstance(layer, nn.ReLU):
        return graph.add("Relu", x)  # type: ignore[no-any-return]
    if isinstance(layer, nn.Dropout):
        return x
    if isinstance(layer, nn.Linear):
        return emit_linear(graph, x, layer)
    raise NotImplementedError(f"no ONNX translation of the layer {type(layer).__name__}")


def _emit_function(graph: Graph, node: fx.Node, values: dict[fx.Node, str]) -> str:
    inputs = [values[arg] for arg in node.args if isinstance(arg, fx.Node)]
    if node.target in (torch.relu, nn.functional.relu):
        return graph.add("Relu", *inputs)  # type: ignore[no-any-return]
    if node.target in (operator.add, torch.add):
        return graph.add("Add", *inputs)  # type: ignore[no-any-return]
    if node.target == "mean" and node.args[1] == (2, 3):
        return graph.add("Flatten", graph.add("GlobalAveragePool", *inputs))  # type: ignore[no-any-return]
    raise NotImplementedError(f"no ONNX translation of {node.target}")


def emit_linear(graph: Graph, x: str, layer: nn.Linear, name: str = "") -> str:
    """(batch, in) to (batch, out)."""
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return graph.add("Gemm", x, graph.constant(weight), graph.constant(bias), transB=1, name=name)  # type: ignore[no-any-return]


def _following_norm(node: fx.Node, modules: dict[str, nn.Module]) -> nn.BatchNorm2d | None:
    users = list(node.users)
    if len(users) == 1 and users[0].op == "call_module":
        norm = modules[str(users[0].target)]
        return norm if isinstance(norm, nn.BatchNorm2d) else None
    return None


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm behind it folded in, computed in float64."""
    weight, bias = conv.weight.detach().double(), conv.bias.detach().double() if conv.bias is not None else None
    if norm is None:
        return weight.float(), (torch.zeros(len(weight)) if bias is None else bias.float())
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
    return weight.detach().float(), bias.detach().float()
