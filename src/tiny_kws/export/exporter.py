"""Checkpoint to artefact: one ONNX file that takes audio samples, checked against the checkpoint before it is kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from .._version import __version__
from ..artefact.format import METADATA_KEY, Metadata, sign
from ..artefact.runtime import StreamModel, open_session
from ..config import CLIP_SAMPLES, DetectorConfig
from ..errors import KwsError, UsageError
from ..evaluation.clips import BATCH_CLIPS, ClipSet, measure
from ..files import write_bytes
from ..training.checkpoint import Checkpoint, ClipNetwork
from ..training.features import LogMel, normalize
from ..training.networks import CausalCNN, Network, count_macs, count_parameters
from .onnx_graph import FRONT_END, Graph, StreamPast, emit_front_end, emit_linear, emit_network, plan_states, reaches_of

TOLERANCE = 1e-4
"""Largest difference of a probability, artefact against checkpoint, that a float32 export may show."""
INT8_TOLERANCE = 0.003
"""Largest loss of accuracy against the checkpoint that an int8 export may show."""
CALIBRATION_CLIPS = 512
MAX_STATE_BYTES = 65_536
Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parity:
    """Artefact against checkpoint on the same clips; accuracies are None where the clips have no labels."""

    clips: str
    n_clips: int
    largest_difference: float
    accuracy: float | None
    checkpoint_accuracy: float | None


class _Body(nn.Module):
    """The part of a network that is traced: up to the pooled vector, or, of one that streams, up to the pooling."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.trunk(features) if isinstance(self.model, CausalCNN) else self.model.embed(features)


class Exporter:
    """Writes artefacts of one checkpoint, each only if it answers as the checkpoint does.

    They are compared on `clips`, whose accuracy goes into the metadata, or on seeded synthetic sound if there are none.
    An artefact that differs by more than it may is not written; KwsError says by how much. `licence` is the weights',
    `detector` holds the settings for listening that the artefacts are to carry.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        clips: ClipSet | None = None,
        licence: str = "",
        progress: Progress = lambda done, total: None,
        detector: DetectorConfig | None = None,
    ) -> None:
        self.checkpoint, self.licence = checkpoint, licence
        self.detector = {} if detector is None else asdict(detector)
        self.name = clips.name if clips else "synthetic noise"
        self.clips = clips
        self.audio = np.concatenate(list(clips.batches())) if clips else _synthetic_sound()
        self.expected = self._predict(progress)

    def clip(self, out: Path) -> Parity:
        """`audio` (batch, 16000) to `probabilities` (batch, classes) and `embedding` (batch, width), in float32."""
        model = clip_graph(self.checkpoint)
        got = self._run_clips(model, out)
        return self.keep(out, got, describe(self.checkpoint, base_name(out)), partial(finished, model))

    def stream(self, out: Path, hop: int) -> Parity:
        """A step of a stream: `audio` (1, hop) and states to the same outputs and the next states.

        Compared at every hop of every clip. Raises UsageError if the network does not stream in such hops.
        """
        model = stream_graph(self.checkpoint, hop)
        metadata = replace(
            describe(self.checkpoint, base_name(out)), kind="stream", hop=hop, look_back=self.checkpoint.look_back
        )
        with TemporaryDirectory() as folder:
            path = Path(folder) / out.name
            write_bytes(path, finished(model, metadata))
            stream = StreamModel(path).stream()
        got = []
        for audio in self.audio:
            stream.reset()
            got.append(stream.process(audio))
        return self.keep(out, np.stack(got), metadata, partial(finished, model), self._predict_stream(hop))

    def int8(self, out: Path, calibration: Array) -> Parity:
        """The clip artefact with the network in int8, per channel, calibrated on audio (clips, 16000).

        The front end stays in float, its mel filters stored in half precision.

        What it may lose is accuracy, INT8_TOLERANCE of it; without clips nothing can be said of that (UsageError).
        """
        if self.clips is None:
            raise UsageError("int8 needs recordings to calibrate and to measure on; give --data PREPARED")
        model = quantized(clip_graph(self.checkpoint, half_filters=True), calibration)
        metadata = replace(
            describe(self.checkpoint, base_name(out)), precision="int8", calibration_clips=len(calibration)
        )
        return self.keep(out, self._run_clips(model, out), metadata, partial(finished, model))

    def keep(
        self,
        out: Path,
        got: Array,
        metadata: Metadata,
        finish: Callable[[Metadata], bytes],
        expected: Array | None = None,
    ) -> Parity:
        """Write the bytes that `finish` makes of the metadata, with the accuracy of `got`, if `got` is as `expected`.

        Both are probabilities (clips, classes) or (clips, hops, classes); expected are the checkpoint's by default.
        """
        expected = self.expected if expected is None else expected
        difference = float(np.abs(got - expected).max())
        parity = Parity(self.name, len(got), difference, None, None)
        loss = 0.0
        if self.clips is not None:
            last, expected_last = (x if x.ndim == 2 else x[:, -1] for x in (got, expected))
            targets = np.array([self.checkpoint.labels.index(label) for label in self.clips.labels])
            figures, reference = (measure(x, targets, self.checkpoint.labels) for x in (last, expected_last))
            parity = replace(parity, accuracy=figures["accuracy"], checkpoint_accuracy=reference["accuracy"])
            loss = reference["accuracy"] - figures["accuracy"]
            metadata = replace(metadata, validation=_validation(self.clips, figures))
        metadata = replace(metadata, licence=self.licence, detector=self.detector)
        if metadata.precision == "float32" and not difference <= TOLERANCE:
            raise KwsError(
                f"{out}: not written, for its probabilities differ from the checkpoint's by {difference:.1e} on "
                f"{self.name}, expected at most {TOLERANCE:.0e}; please report this"
            )
        if not loss <= INT8_TOLERANCE:
            raise KwsError(
                f"{out}: not written, for it loses {100 * loss:.2f} points of accuracy on {self.name}, expected at "
                f"most {100 * INT8_TOLERANCE:.1f}; calibrate on more clips or keep it in float32"
            )
        write_bytes(out, finish(metadata))
        return parity

    def _predict(self, progress: Progress) -> Array:
        """The checkpoint's probabilities (clips, classes)."""
        network = ClipNetwork(self.checkpoint)
        rows = []
        with torch.inference_mode():
            for audio in torch.split(torch.from_numpy(self.audio), BATCH_CLIPS):
                rows.append(network(audio).numpy())
                progress(sum(map(len, rows)), len(self.audio))
        return np.concatenate(rows)

    def _predict_stream(self, hop: int) -> Array:
        """The checkpoint's probabilities (clips, hops, classes) at the end of every whole hop."""
        model = self.checkpoint.model
        assert isinstance(model, CausalCNN)
        log_mel, stride = LogMel(self.checkpoint.feature_config), model.STEM_STRIDE[1]
        per_hop = hop // (self.checkpoint.feature_config.hop * stride)
        rows = []
        with torch.inference_mode():
            for audio in torch.split(torch.from_numpy(self.audio), BATCH_CLIPS):
                pooled = model.embed_all(normalize(log_mel(audio), self.checkpoint.stats))
                rows.append(torch.softmax(model.fc(pooled[:, per_hop - 1 :: per_hop]), -1).numpy())
        return np.concatenate(rows)

    def _run_clips(self, model: onnx.ModelProto, out: Path) -> Array:
        session = open_session(model.SerializeToString(), torch.get_num_threads(), str(out))
        starts = range(0, len(self.audio), BATCH_CLIPS)
        return np.concatenate(
            [session.run(["probabilities"], {"audio": self.audio[i : i + BATCH_CLIPS]})[0] for i in starts]
        )


def quantized(model: onnx.ModelProto, calibration: Array) -> onnx.ModelProto:
    """`model` with its network's weights and activations in int8, ranges taken from audio (clips, 16000)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(calibration, max(1, len(calibration) // 32)))

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"audio": batch}

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
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(path)


def clip_graph(checkpoint: Checkpoint, half_filters: bool = False) -> onnx.ModelProto:
    """Front end, normalisation, network and softmax over one second of audio as one ONNX graph."""
    config, model = checkpoint.feature_config, checkpoint.model
    graph = Graph(FRONT_END)
    if config.centered:
        edges, mode = [0, config.n_fft // 2, 0, config.n_fft // 2], "reflect"
    else:
        edges, mode = [0, config.n_fft - config.hop, 0, 0], "constant"
    padded = graph.add("Pad", "audio", graph.constant(edges), mode=mode)
    features = emit_front_end(graph, padded, config, checkpoint.stats, half_filters)
    example = torch.zeros(1, 1, config.n_mels, config.n_frames(CLIP_SAMPLES))
    pooled = emit_network(graph, features, _Body(model), example)
    if isinstance(model, CausalCNN):
        pooled = graph.add("ReduceMean", pooled, graph.constant([-1]), keepdims=0)
    _emit_head(graph, pooled, model.fc)
    return graph.finish("clip", {"audio": ["batch", CLIP_SAMPLES]}, _outputs("batch", checkpoint))


def stream_graph(checkpoint: Checkpoint, hop: int) -> onnx.ModelProto:
    """The same over a chunk of `hop` samples and the states that the chunks before it left.

    Raises UsageError if the network does not stream, or in chunks of another length only.
    """
    config, model = checkpoint.feature_config, checkpoint.model
    if not isinstance(model, CausalCNN):
        raise UsageError(f"found the network {checkpoint.architecture}, which looks ahead; only causal-cnn streams")
    step = config.hop * model.STEM_STRIDE[1]  # samples of a frame of the trunk
    if hop <= 0 or hop % step or hop > CLIP_SAMPLES:
        raise UsageError(f"a hop of {hop} samples is no whole multiple of {step} up to a second; take 20, 40 or 80 ms")
    example = torch.zeros(1, 1, config.n_mels, hop // config.hop)
    body, fresh = _Body(model), hop // step
    layers = [((1, hop), config.n_fft - config.hop), *reaches_of(body, example)]
    layers.append(((1, model.config.width, fresh), model.config.pooled_frames - fresh))
    graph = Graph()
    past = StreamPast(graph, plan_states(layers))
    audio = past.extend("audio", config.n_fft - config.hop)
    features = emit_front_end(graph, audio, config, checkpoint.stats)
    frames = emit_network(graph, features, body, example, past)
    second = past.extend(frames, model.config.pooled_frames - fresh)
    _emit_head(graph, graph.add("ReduceMean", second, graph.constant([0])), model.fc)
    past.finish()
    state_bytes = 4 * sum(math.prod(shape) for shape in past.shapes.values())
    if state_bytes > MAX_STATE_BYTES:
        raise UsageError(
            f"a stream in hops of {hop} samples would carry {state_bytes:,} bytes of state, expected at most "
            f"{MAX_STATE_BYTES:,}; take a shorter hop or a narrower network"
        )
    outputs = {**_outputs(1, checkpoint), **{f"next_{name}": shape for name, shape in past.shapes.items()}}
    return graph.finish("stream", {"audio": [1, hop], **past.shapes}, outputs)


def _emit_head(graph: Graph, pooled: str, classifier: nn.Linear) -> None:
    embedding = graph.add("Identity", pooled, name="embedding")
    graph.add("Softmax", emit_linear(graph, embedding, classifier), axis=-1, name="probabilities")


def _outputs(batch: str | int, checkpoint: Checkpoint) -> dict[str, list[Any]]:
    width = checkpoint.model.fc.in_features
    return {"probabilities": [batch, len(checkpoint.labels)], "embedding": [batch, width]}


def describe(checkpoint: Checkpoint, name: str) -> Metadata:
    """The metadata of a float32 clip artefact made from `checkpoint`, nothing measured yet."""
    config = checkpoint.feature_config
    features = torch.zeros(1, 1, config.n_mels, config.n_frames(CLIP_SAMPLES))
    return Metadata(
        name=name,
        architecture=checkpoint.architecture,
        labels=list(checkpoint.labels),
        parameters=count_parameters(checkpoint.model),
        macs=count_macs(checkpoint.model, features),
        stats=checkpoint.stats,
        model_config=asdict(checkpoint.model.config),
        feature_config=asdict(config),
        train_config=checkpoint.train_config,
        data=checkpoint.data,
        version=__version__,
        checkpoint_sha256=checkpoint.sha256,
    )


def finished(model: onnx.ModelProto, metadata: Metadata) -> bytes:
    """The bytes of an artefact: `model` with `metadata`, signed."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    return sign(model.SerializeToString())


def _validation(clips: ClipSet, figures: dict[str, Any]) -> dict[str, Any]:
    measured = ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval")
    return {
        "clips": len(clips.labels),
        "clips_name": clips.name,
        "clips_sha256": clips.sha256,
        **{key: figures[key] for key in measured},
    }


def base_name(out: Path) -> str:
    """base of base.int8.onnx."""
    return out.name.split(".")[0]


def _synthetic_sound() -> Array:
    rng = np.random.default_rng(0)
    loudness = 10.0 ** rng.uniform(-5, 0, (64, 1))
    return (loudness * rng.uniform(-1, 1, (64, CLIP_SAMPLES))).astype(np.float32)
