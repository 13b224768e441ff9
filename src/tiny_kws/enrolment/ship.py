"""Heads on a trunk, as an artefact like any other: one graph from sound to the probabilities of all its words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from .. import __version__
from ..artefact.ends import NEXT
from ..artefact.format import Metadata, Stats, artefact_bytes, parse_metadata, read_artefact
from ..config import SAMPLE_RATE, DetectorConfig, settings_of
from ..errors import ModelError, UsageError
from ..files import write_bytes
from ..words import UNKNOWN
from .bank import Bank, States, Trunk, size_of_trunk
from .head import THRESHOLD, Head, Hidden, OwnWord, Rows

ARCHITECTURE = "causal-cnn"
WEIGHTS, BIAS, STATE = "heads/weights", "heads/bias", "state_vectors"
HIDDEN_WEIGHTS, HIDDEN_BIASES, GAINS = "heads/hidden/weights", "heads/hidden/biases", "heads/hidden/gains"
LICENCE = "MIT"


def write_model(path: Path, bank: Bank, words: Sequence[OwnWord]) -> None:
    """Write an artefact that hears `words`; whole or not at all. Raises UsageError for two of one name."""
    names = [word.word for word in words]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path}: found the word {twice[0]!r} twice, expected different words; leave one out")
    metadata = _metadata(bank, words, path.name.removesuffix(".onnx").removesuffix(".stream"))
    write_bytes(path, artefact_bytes(_graph(bank, words), metadata))


def trunk_of(path: Path) -> str:
    """The checksum of the trunk of an artefact of `write_model`. Raises ModelError for any other."""
    return _trunk_sha256(_read(path)[1])


def names_of(path: Path) -> list[str]:
    """The words of an artefact of `write_model`, whatever its trunk. Raises ModelError for any other artefact."""
    return [facts["word"] for facts in _read(path)[1].own_words]


def read_words(path: Path, bank: Bank) -> list[OwnWord]:
    """The words of an artefact of `write_model`. Raises ModelError for any other, or one of another trunk."""
    model, metadata = _read(path)
    found = _trunk_sha256(metadata)
    if found != bank.trunk_sha256:
        raise ModelError(
            f"{path}: was made with another trunk ({_named(found)}), expected {_named(bank.trunk_sha256)}; enroll its "
            "words again"
        )
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    thresholds = metadata.detector["thresholds"]
    heads = _heads(metadata.own_words, tensors, int(bank.trunk_facts["size"]))
    return [
        OwnWord(facts["word"], head, thresholds[facts["word"]], facts)
        for facts, head in zip(metadata.own_words, heads, strict=True)
    ]


def _read(path: Path) -> tuple[onnx.ModelProto, Metadata]:
    model = onnx.load_model_from_string(read_artefact(path))
    metadata = parse_metadata({entry.key: entry.value for entry in model.metadata_props}, str(path))
    if not metadata.own_words:
        raise ModelError(f"{path}: has no words of your own, expected a file written by `tiny-kws enroll`")
    return model, metadata


def _trunk_sha256(metadata: Metadata) -> str:
    return str(metadata.own_words[0].get("trunk_sha256"))


def _named(trunk_sha256: str) -> str:
    """A trunk of the package by its size, another by the start of its checksum."""
    size = size_of_trunk(trunk_sha256)
    return f"--size {size}" if size else trunk_sha256[:12]


def _heads(words: Sequence[Mapping[str, Any]], tensors: Mapping[str, npt.NDArray[Any]], size: int) -> Iterator[Head]:
    """The heads of an artefact's words, without what `_graph` adds to each for the others' sake."""
    first = 0
    for facts, weights, bias in zip(words, tensors[WEIGHTS], tensors[BIAS], strict=True):
        n_bins, units = int(facts["bins"]), int(facts.get("units", 0))
        mine = slice(first, first + units)
        first += units
        hidden = None
        if units:
            kept = tensors[HIDDEN_WEIGHTS][-n_bins * size :, mine]
            hidden = Hidden(kept, tensors[HIDDEN_BIASES][mine], tensors[GAINS][mine].sum(1))
        yield Head(weights.reshape(-1, size)[-n_bins:], float(bias), hidden)


def _graph(bank: Bank, words: Sequence[OwnWord]) -> onnx.ModelProto:
    """The trunk's graph with the heads behind it: the latest vectors, a linear layer, softmax against a logit of 0."""
    model = onnx.load_model_from_string(bank.trunk)
    graph, size = model.graph, int(bank.trunk_facts["size"])
    states, silent_vector = Trunk(bank).silence()
    bins = max(len(word.head.weights) for word in words)
    heads = [word.head for word in words]
    hidden = joined_hidden(heads)
    constants: dict[str, npt.NDArray[Any]] = {
        WEIGHTS: joined_weights(heads),
        BIAS: np.array([word.head.bias for word in words], np.float32),
        "heads/first": np.array([1], np.int64),
        "heads/last": np.array([bins], np.int64),
        "heads/axis": np.array([1], np.int64),
        "heads/unknown": np.array([0, 1, 0, 0], np.int64),
        **hidden,
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["embedding", "heads/axis"], ["heads/new"]),
            helper.make_node("Concat", [STATE, "heads/new"], ["heads/latest"], axis=1),
            helper.make_node("Slice", ["heads/latest", "heads/first", "heads/last", "heads/axis"], [f"next_{STATE}"]),
            helper.make_node("Flatten", ["heads/latest"], ["heads/window"], axis=1),
            *_logits(has_units=bool(hidden)),
            helper.make_node("Pad", ["heads/logits", "heads/unknown"], ["heads/all"]),
            helper.make_node("Softmax", ["heads/all"], ["probabilities"], axis=-1),
        ]
    )
    first = next(value for value in graph.input if value.name == "audio").type.tensor_type.shape.dim[0]
    batch = first.dim_param or first.dim_value

    def value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

    graph.input.append(value(STATE, [bins - 1, size]))
    graph.output.append(value(f"next_{STATE}", [bins - 1, size]))
    _begin_with_silence(graph, {**states, STATE: np.tile(silent_vector, (bins - 1, 1))})
    graph.output.insert(0, value("probabilities", [len(words) + 1]))
    onnx.checker.check_model(model, full_check=True)
    return model


def _logits(*, has_units: bool) -> list[onnx.NodeProto]:
    """From the window to the logits of all words: the linear layer, and what hidden units add."""
    linear = "heads/linear" if has_units else "heads/logits"
    nodes = [helper.make_node("Gemm", ["heads/window", WEIGHTS, BIAS], [linear], transB=1)]
    if has_units:
        nodes += [
            helper.make_node("Gemm", ["heads/window", HIDDEN_WEIGHTS, HIDDEN_BIASES], ["heads/units"]),
            helper.make_node("Relu", ["heads/units"], ["heads/active"]),
            helper.make_node("Gemm", ["heads/active", GAINS, linear], ["heads/logits"]),
        ]
    return nodes


def joined_weights(heads: Sequence[Head]) -> Rows:
    """The linear layers of heads as one, (heads, bins * size), with zeros for what is longer ago than one looks."""
    bins = max(len(head.weights) for head in heads)
    return np.stack([np.pad(head.weights, ((bins - len(head.weights), 0), (0, 0))).ravel() for head in heads])


def joined_hidden(heads: Sequence[Head]) -> dict[str, npt.NDArray[Any]]:
    """The hidden layers of heads as one: each unit has a gain for its own word alone. Nothing if there are none."""
    found = [(i, head.hidden) for i, head in enumerate(heads) if head.hidden]
    if not found:
        return {}
    window = max(head.weights.size for head in heads)
    gains = [np.outer(hidden.gains, np.eye(len(heads), dtype=np.float32)[i]) for i, hidden in found]
    weights = [np.pad(hidden.weights, ((window - len(hidden.weights), 0), (0, 0))) for _, hidden in found]
    return {
        HIDDEN_WEIGHTS: np.concatenate(weights, 1),
        HIDDEN_BIASES: np.concatenate([hidden.biases for _, hidden in found]),
        GAINS: np.concatenate(gains),
    }


def _begin_with_silence(graph: onnx.GraphProto, silence: States) -> None:
    """Have a graph take and give its states less what they are in silence.

    Streams begin with zeros. To a network they mean sound that there is not, and a word at the start of a recording
    would be missed.
    """
    silence = {name: values for name, values in silence.items() if values.any()}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}/whole" if name.removeprefix(NEXT) in silence else name for name in names]
    before, behind = [], []
    for name, values in silence.items():
        graph.initializer.append(numpy_helper.from_array(values, f"{name}/silence"))
        before.append(helper.make_node("Add", [name, f"{name}/silence"], [f"{name}/whole"]))
        behind.append(helper.make_node("Sub", [f"{NEXT}{name}/whole", f"{name}/silence"], [f"{NEXT}{name}"]))
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)


def _metadata(bank: Bank, words: Sequence[OwnWord], name: str) -> Metadata:
    facts = bank.trunk_facts
    bins = max(len(word.head.weights) for word in words)
    window = bins * int(facts["size"])
    units = sum(len(word.head.hidden.gains) for word in words if word.head.hidden)
    weights = len(words) * (window + 1) + units * (window + 2)
    detector = DetectorConfig(
        threshold=THRESHOLD,
        thresholds={word.word: word.threshold for word in words},
        smoothing_ms=0,
        min_duration_ms=0,
    )
    heads = b"".join(_content(word.head) for word in words)
    return Metadata(
        name=name,
        architecture=ARCHITECTURE,
        labels=[UNKNOWN, *(word.word for word in words)],
        parameters=int(facts["parameters"]) + weights,
        macs=int(facts["macs"]) + round(weights * SAMPLE_RATE / bank.hop),
        stats=Stats(**facts["stats"]),
        model_config=dict(facts["model_config"]),
        feature_config=dict(facts["feature_config"]),
        kind="stream",
        window=bins * bank.hop,
        hop=bank.hop,
        look_back=int(facts["look_back"]),
        detector=settings_of(detector),
        data=_sources(bank, words),
        licence=LICENCE,
        version=__version__,
        checkpoint_sha256=hashlib.sha256(bank.trunk + heads).hexdigest(),
        own_words=[dict(word.facts) for word in words],
    )


def _content(head: Head) -> bytes:
    hidden = [] if head.hidden is None else [head.hidden.weights, head.hidden.biases, head.hidden.gains]
    return b"".join(part.tobytes() for part in (head.weights, np.float32(head.bias), *hidden))


def _sources(bank: Bank, words: Sequence[OwnWord]) -> dict[str, Any]:
    """Whom to credit, as it stands in other artefacts: the bank's origins, and where published recordings are from."""
    of_words = {word.facts["source"]["name"]: word.facts["source"] for word in words if "source" in word.facts}
    entries = [
        {"name": o.name, "use": "what is no word", "used": {o.licence: o.recordings}, "attribution": o.attribution}
        for o in bank.origins
    ]
    entries += [
        {
            "name": name,
            "use": "words",
            "used": {source["licence"]: source["recordings"]},
            "attribution": source["attribution"],
        }
        for name, source in of_words.items()
    ]
    return {"source": "; ".join(str(entry["name"]) for entry in entries), "sources": entries}
