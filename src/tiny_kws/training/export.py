"""Checkpoint to artefact: one ONNX file that takes audio samples, checked against the checkpoint before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from .._version import __version__
from ..artefact import METADATA_KEY, Metadata, parse_metadata, sign
from ..config import CLIP_SAMPLES
from ..errors import KwsError
from ..evaluation.clips import ClipSet, measure
from ..files import write_bytes
from ..runtime import open_session
from .checkpoint import Checkpoint, ClipNetwork
from .models import count_macs, count_parameters
from .onnx_graph import Graph, emit_front_end, emit_linear, emit_network

TOLERANCE = 1e-4
"""Largest difference of a probability, artefact against checkpoint, that a float32 export may show."""

LICENCE = "MIT"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Parity:
    """Artefact against checkpoint on the same clips. Accuracies are NaN where the clips have no labels."""

    clips: str
    n_clips: int
    largest_difference: float
    accuracy: float
    checkpoint_accuracy: float


class _Embedding(nn.Module):
    """The network up to its pooled vector."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.embed(features)  # type: ignore[no-any-return, operator]


def export(
    checkpoint: Checkpoint,
    out: Path,
    clips: ClipSet | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Parity:
    """Write the clip artefact: `audio` (batch, 16000) to `probabilities` (batch, classes), `embedding` (batch, width).

    It is compared with the checkpoint on `clips`, or on seeded synthetic sound if there are none, and written only if
    no probability differs by more than TOLERANCE; KwsError otherwise. The accuracy on `clips` goes into the metadata.
    """
    model = clip_graph(checkpoint)
    batches, labels, name = _sound(clips)
    network = ClipNetwork(checkpoint)
    session = open_session(model.SerializeToString(), torch.get_num_threads(), str(out))
    ours: list[Array] = []
    theirs: list[Array] = []
    for batch in batches:
        ours.append(session.run(["probabilities"], {"audio": batch})[0])
        with torch.inference_mode():
            theirs.append(network(torch.from_numpy(batch)).numpy())
        progress(sum(map(len, ours)), len(labels))
    got, expected = np.concatenate(ours), np.concatenate(theirs)
    difference = float(np.abs(got - expected).max())
    if not difference <= TOLERANCE:
        raise KwsError(
            f"{out}: not written, for its probabilities differ from the checkpoint's by {difference:.1e} on {name}, "
            f"expected at most {TOLERANCE:.0e}; please report this"
        )
    parity = Parity(name, len(got), difference, np.nan, np.nan)
    validation: dict[str, Any] = {}
    if clips is not None:
        targets = np.array([checkpoint.labels.index(label) for label in clips.labels])
        figures, reference = (measure(x, targets, checkpoint.labels) for x in (got, expected))
        parity = Parity(name, len(got), difference, figures["accuracy"], reference["accuracy"])
        validation = {
            "clips": len(targets),
            "clips_name": name,
            "clips_sha256": clips.sha256,
            **{key: figures[key] for key in ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval")},
        }
    set_metadata(model, describe(checkpoint, out.stem, validation))
    write_bytes(out, sign(model.SerializeToString()))
    return parity


def clip_graph(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Front end, normalisation, network and softmax over one second of audio as one ONNX graph."""
    config, n_classes = checkpoint.feature_config, len(checkpoint.labels)
    graph = Graph()
    graph.scope = "front_end"
    before, behind = _edges(checkpoint)
    padded = graph.add(
        "Pad", "audio", graph.constant([0, before, 0, behind]), mode="reflect" if config.centered else "constant"
    )
    features = emit_front_end(graph, padded, config, checkpoint.stats)
    pooled = emit_network(graph, features, _Embedding(checkpoint.model))
    embedding = graph.add("Identity", pooled, name="embedding")
    logits = emit_linear(graph, embedding, checkpoint.model.fc)
    graph.add("Softmax", logits, axis=-1, name="probabilities")
    width = checkpoint.model.fc.in_features
    return graph.finish(
        "clip",
        {"audio": ["batch", CLIP_SAMPLES]},
        {"probabilities": ["batch", n_classes], "embedding": ["batch", width]},
    )


def describe(checkpoint: Checkpoint, name: str, validation: dict[str, Any]) -> Metadata:
    """The metadata of an artefact made from `checkpoint`."""
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
        validation=validation,
        data=checkpoint.data,
        licence=LICENCE,
        version=__version__,
        checkpoint_sha256=checkpoint.sha256,
    )


def set_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Put `metadata` into the model's properties."""
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    assert parse_metadata({METADATA_KEY: model.metadata_props[0].value}, metadata.name) == metadata


def _edges(checkpoint: Checkpoint) -> tuple[int, int]:
    """Samples to put before and behind a clip, so that its frames are those of LogMel and blocks come out whole."""
    config = checkpoint.feature_config
    return (config.n_fft // 2, config.n_fft // 2) if config.centered else (config.n_fft - config.hop, 0)


def _sound(clips: ClipSet | None) -> tuple[Any, list[str], str]:
    """Batches of clips to compare on, a label for each, and what they are called."""
    if clips is not None:
        return clips.batches(), clips.labels, clips.name
    rng = np.random.default_rng(0)
    loudness = 10.0 ** rng.uniform(-5, 0, (64, 1))
    noise = (loudness * rng.uniform(-1, 1, (64, CLIP_SAMPLES))).astype(np.float32)
    return iter([noise]), [""] * len(noise), "synthetic noise"
