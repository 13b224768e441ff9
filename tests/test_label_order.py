"""Labels in another order change nothing but the order: what is trained, and what is heard, is the same by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.config import DetectorConfig
from tiny_kws.data.prepared import PreparedData
from tiny_kws.data.speech_commands import KEYWORDS, LABELS
from tiny_kws.export.exporter import Exporter
from tiny_kws.listening.detector import Detector
from tiny_kws.training.checkpoint import Checkpoint, classifier_of, feature_config_of, load_checkpoint
from tiny_kws.training.networks import Network, network_of
from tiny_kws.training.trainer import train
from tiny_kws.training_config import (
    MIXED_TRAINING,
    STREAM_TRAINING,
    WINDOW_TRAINING,
    CausalCNNConfig,
    DSCNNConfig,
    NetworkConfig,
    StreamRecipe,
    TrainConfig,
    WindowRecipe,
)
from tiny_kws.words import SILENCE, UNKNOWN, Vocabulary

ORDERS = {
    "at the end": (*KEYWORDS, SILENCE, UNKNOWN),
    "in the middle": ("go", "yes", UNKNOWN, "up", "left", SILENCE, "no", "down", "right", "on", "off", "stop"),
}
"""Where silence and unknown stand; in training they are the first two."""

NOISES = {"noise_speeds": (1.0,), "babble_share": 0.0}
WINDOWS = WindowRecipe(made_rooms=4, **NOISES)
STREAMS = StreamRecipe(made_rooms=4, seconds=2.4, candidates=16, hard_negatives=4, **NOISES)
DS_CNN, CAUSAL = DSCNNConfig(width=8, dropout=0.0), CausalCNNConfig(stem_channels=2, width=8, n_blocks=1)
SHORT = {"epochs": 2, "precision": "float32", "learning_rate": 1e-3}
TRAININGS: dict[str, tuple[NetworkConfig, TrainConfig]] = {
    "clips": (DS_CNN, TrainConfig(batch_size=16, **SHORT)),
    "windows": (CAUSAL, replace(WINDOW_TRAINING, batch_size=16, windows=WINDOWS, **SHORT)),
    "streams": (CAUSAL, replace(STREAM_TRAINING, batch_size=8, streams=STREAMS, **SHORT)),
    "mixed": (CAUSAL, replace(MIXED_TRAINING, batch_size=8, windows=WINDOWS, streams=STREAMS, **SHORT)),
}
EASY = StreamRecipe(
    made_rooms=4,
    **NOISES,
    spliced_share=0.0,
    warp=0.0,
    colour=0.0,
    limited_share=0.0,
    snr_db=(10.0, 30.0),
    room_share=0.1,
    speeds=(1.0, 1.0),
)
LISTENING = replace(
    STREAM_TRAINING,
    epochs=10,
    batch_size=8,
    learning_rate=0.02,
    warmup_steps=5,
    average_decay=0.0,
    precision="float32",
    streams=EASY,
)


def untrained(network: NetworkConfig, labels: tuple[str, ...]) -> Checkpoint:
    """A checkpoint to begin from: whatever the order of the labels, each has the same weights."""
    torch.manual_seed(0)
    model: Network = network_of(network)
    order = [LABELS.index(label) for label in labels]
    with torch.no_grad():
        model.fc.weight.copy_(model.fc.weight[order].clone())
        model.fc.bias.copy_(model.fc.bias[order].clone())
    architecture = "ds-cnn" if isinstance(network, DSCNNConfig) else "causal-cnn"
    return Checkpoint(model, labels, {"mean": -9.0, "std": 4.0}, feature_config_of(architecture), sha256="0" * 64)


def trained(
    data: PreparedData, labels: tuple[str, ...], out: Path, network: NetworkConfig, config: TrainConfig
) -> Path:
    first = untrained(network, labels)
    data = replace(data, vocabulary=Vocabulary(labels))
    settings = {name: value for name, value in vars(network).items() if name != "n_classes"}
    return train(data, out, first.architecture, settings, config, device="cpu", first=first)


def clips_of(data: PreparedData, split: str) -> npt.NDArray[np.float32]:
    return np.float32(data.bank[data.rows(split)]) / np.float32(32768)


@pytest.mark.parametrize("recipe", TRAININGS)
@pytest.mark.parametrize("place", ORDERS)
def test_training_goes_by_name(prepared: PreparedData, tmp_path: Path, recipe: str, place: str) -> None:
    """From the same weights by name, every recipe comes to the same losses, accuracies and answers by name."""
    labels = ORDERS[place]
    assert sorted(labels) == sorted(LABELS)
    usual, other = (
        load_checkpoint(trained(prepared, order, tmp_path / str(i), *TRAININGS[recipe]))
        for i, order in enumerate((LABELS, labels))
    )
    assert other.labels == labels
    for one, two in zip(usual.history, other.history, strict=True):
        for name in ("train_loss", "train_acc", "val_loss", "val_acc"):
            assert two[name] == pytest.approx(one[name], rel=1e-3), (name, one, two)
    sound = clips_of(prepared, "validation")
    answers = classifier_of(usual)(sound), classifier_of(other)(sound)
    columns = [labels.index(label) for label in LABELS]
    np.testing.assert_allclose(answers[1][:, columns], answers[0], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("place", ORDERS)
def test_listening_goes_by_name(prepared: PreparedData, tmp_path: Path, place: str) -> None:
    """A network whose labels are in another order is trained, exported, and reports the words that are said."""
    network = CausalCNNConfig(stem_channels=4, width=24, n_blocks=2)
    labels = ORDERS[place]
    best = load_checkpoint(trained(prepared, labels, tmp_path, network, LISTENING))
    assert best.val_acc > 0.9
    Exporter(best).stream(tmp_path / "model.onnx", 640)
    rows = {prepared.clips[row].word: row for row in prepared.rows("validation")}
    said = {word: np.float32(prepared.bank[row]) / 32768 for word, row in rows.items()}
    other = next(clip.word for clip in prepared.clips if clip.split == "validation" and clip.label == UNKNOWN)
    order = [word for keyword in KEYWORDS for word in (keyword, other)]
    sound = np.concatenate([said[word] for word in order])
    detector = Detector(StreamModel(tmp_path / "model.onnx"), DetectorConfig(threshold=0.5))
    events = list(detector.detect(sound))
    assert [event.label for event in events] == list(KEYWORDS)
    assert [event.end_s for event in events] == pytest.approx([2 * i + 1 for i in range(10)], abs=0.5)
