"""The artefact is the checkpoint: the same features, the same probabilities, on sound of every level."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch

from tiny_kws.artefact.runtime import Classifier
from tiny_kws.config import CLIP_SAMPLES, WINDOW_LIMITS, FeatureConfig
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import KwsError, UsageError
from tiny_kws.evaluation.clips import ClipSet, wilson_interval
from tiny_kws.export import exporter as export_room
from tiny_kws.export.exporter import Exporter, describe
from tiny_kws.export.onnx_graph import Graph, emit_front_end
from tiny_kws.training.checkpoint import Checkpoint, ClipNetwork, load_checkpoint
from tiny_kws.training.features import LogMel, normalize

from .helpers import TEST_SAMPLE, exported, real_clips, sounds_of_many_levels, speech_like, trained_like

Sounds = npt.NDArray[np.float32]
TOLERANCE = 1e-4
FEATURE_TOLERANCE = 1e-3
STATS = {"mean": -6.5, "std": 4.0}
PLAIN_OPERATORS = {
    *("Pad", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Concat", "Slice", "Split"),
    *("Conv", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Log", "Relu", "Softmax"),
    *("ReduceSum", "ReduceSumSquare", "ReduceMean", "GlobalAveragePool", "AveragePool"),
}
CONFIGS = [
    FeatureConfig(),
    FeatureConfig(centered=False),
    FeatureConfig(n_fft=512, n_mels=40),
    FeatureConfig(n_fft=512, hop=320, n_mels=40, f_min=60.0, f_max=4000.0, centered=False),
    FeatureConfig(n_fft=480, hop=200, n_mels=80, log_offset=1e-5),
    FeatureConfig(n_fft=256, hop=128, n_mels=20),
    FeatureConfig(n_fft=300, hop=160, n_mels=32, centered=False),
]


@pytest.fixture(scope="module")
def checkpoint(checkpoint_path: Path) -> Checkpoint:
    return load_checkpoint(trained_like(checkpoint_path))


@pytest.fixture
def own_checkpoint(checkpoint_path: Path) -> Checkpoint:
    """The same, one's own to change."""
    return load_checkpoint(trained_like(checkpoint_path))


@pytest.fixture(scope="module")
def artefact_path(checkpoint_path: Path) -> Path:
    return exported(trained_like(checkpoint_path))


@pytest.fixture(scope="module")
def classifier(artefact_path: Path) -> Classifier:
    return Classifier(artefact_path)


@pytest.fixture(scope="module")
def model(artefact_path: Path) -> onnx.ModelProto:
    return onnx.load(artefact_path)


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    return sounds_of_many_levels()


@pytest.fixture(scope="module")
def ordinary_sounds() -> Sounds:
    """Noise and speech-like sound at ordinary and low levels, (16, 16000), with digital silence."""
    rng = np.random.default_rng(1)
    noises = [level * rng.uniform(-1, 1, CLIP_SAMPLES) for level in (0.5, 0.1, 1e-2, 1e-3, 1e-4)]
    voices = [level * speech_like(rng) for level in (0.3, 0.3, 0.1, 0.1, 0.03, 0.03, 0.01, 0.01, 1e-3, 1e-4)]
    return np.stack([*noises, *voices, np.zeros(CLIP_SAMPLES)]).clip(-1, 1).astype(np.float32)


def front_end(config: FeatureConfig) -> ort.InferenceSession:
    """The front end alone as an ONNX graph."""
    graph = Graph()
    before = config.n_fft // 2 if config.centered else config.n_fft - config.hop
    pads = graph.constant([0, before, 0, before if config.centered else 0])
    padded = graph.add("Pad", "audio", pads, mode="reflect" if config.centered else "constant")
    features = emit_front_end(graph, padded, config, STATS)
    built = graph.finish(
        "front_end",
        {"audio": ["batch", CLIP_SAMPLES]},
        {features: ["batch", 1, config.n_mels, config.n_frames(CLIP_SAMPLES)]},
    )
    return ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])


def expected_probabilities(checkpoint: Checkpoint, sounds: Sounds) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        return ClipNetwork(checkpoint)(torch.from_numpy(sounds)).numpy()


def clip_set(sounds: Sounds) -> ClipSet:
    labels = [LABELS[i % len(LABELS)] for i in range(len(sounds))]
    return ClipSet("made-up clips", labels, "0" * 64, lambda: iter([sounds[:20], sounds[20:]]))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.n_fft}-{c.hop}-{c.n_mels}-{c.centered}")
def test_the_front_end_of_the_graph_is_logmel(config: FeatureConfig, ordinary_sounds: Sounds) -> None:
    """The graph's normalised features are those of LogMel, frame by frame, for this configuration."""
    with torch.inference_mode():
        expected = normalize(LogMel(config)(torch.from_numpy(ordinary_sounds)), STATS).numpy()
    found = front_end(config).run(None, {"audio": ordinary_sounds})[0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < FEATURE_TOLERANCE


def test_probabilities_are_the_checkpoints(classifier: Classifier, checkpoint: Checkpoint, sounds: Sounds) -> None:
    """On 128 synthetic sounds from digital silence to full scale no probability is off by more than 1e-4."""
    assert len(sounds) >= 100
    found, expected = classifier.probabilities(sounds), expected_probabilities(checkpoint, sounds)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_the_comparison_would_notice(classifier: Classifier, sounds: Sounds) -> None:
    """The synthetic sounds call forth many different and many sure answers, so that parity on them means something."""
    probabilities = classifier.probabilities(sounds)
    assert len(set(probabilities.argmax(1))) >= 4
    assert (probabilities.max(1) > 0.9).sum() >= 10


@pytest.mark.data
@pytest.mark.parametrize("archive", [TEST_SAMPLE, "speech_commands-validation-1.zip"])
def test_probabilities_are_the_checkpoints_on_real_clips(
    classifier: Classifier, checkpoint: Checkpoint, shared_data: Path, archive: str
) -> None:
    """On real recordings, too, no probability is off by more than 1e-4."""
    clips = np.stack([audio for _, audio in real_clips(shared_data / archive, limit=120)])
    assert np.abs(classifier.probabilities(clips) - expected_probabilities(checkpoint, clips)).max() <= TOLERANCE


def test_the_embedding_is_the_networks(classifier: Classifier, checkpoint: Checkpoint, sounds: Sounds) -> None:
    """The `embedding` output is the pooled vector of the network."""
    found = classifier.session.run(["embedding"], {"audio": sounds})[0]
    with torch.inference_mode():
        features = normalize(LogMel(checkpoint.feature_config)(torch.from_numpy(sounds)), checkpoint.stats)
        expected = checkpoint.model.eval().embed(features).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_batch_size_gives_the_same(classifier: Classifier, sounds: Sounds, size: int) -> None:
    """A clip's probabilities do not depend on how many others are in its batch."""
    whole = classifier.probabilities(sounds[:14])
    parts = np.concatenate([classifier.probabilities(sounds[i : i + size]) for i in range(0, 14, size)])
    assert np.abs(whole - parts).max() <= 1e-5


def test_the_batch_axis_is_dynamic(model: onnx.ModelProto) -> None:
    """The first axis of the input and of both outputs has a name instead of a size."""
    ends = [*model.graph.input, *model.graph.output]
    assert [value.name for value in ends] == ["audio", "probabilities", "embedding"]
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in ends)


def test_the_graph_has_only_plain_operators(model: onnx.ModelProto) -> None:
    """Every node is an ordinary operator of the standard domain."""
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert {node.op_type for node in model.graph.node} <= PLAIN_OPERATORS


def test_the_opset_is_not_too_new(model: onnx.ModelProto) -> None:
    """The graph needs the standard domain alone, at version 20 or older."""
    assert [opset.domain for opset in model.opset_import] == [""]
    assert model.opset_import[0].version <= 20


def test_the_graph_is_small(model: onnx.ModelProto) -> None:
    """Front end, network and softmax are fewer than 45 nodes, without functions or subgraphs."""
    assert len(model.graph.node) < 45
    assert not model.functions
    assert not [a for node in model.graph.node for a in node.attribute if a.HasField("g")]


def test_all_weights_are_in_the_file(model: onnx.ModelProto) -> None:
    """No weight lies in another file."""
    assert not [value.name for value in model.graph.initializer if value.external_data]


def test_the_metadata_are_the_checkpoints(classifier: Classifier, checkpoint: Checkpoint) -> None:
    """Labels, stats, and the sum of the checkpoint stand in the artefact."""
    metadata = classifier.metadata
    found = (tuple(metadata.labels), asdict(metadata.stats), metadata.checkpoint_sha256)
    assert found == (checkpoint.labels, checkpoint.stats, checkpoint.sha256)


def test_export_measures_both_on_the_clips_it_is_given(checkpoint: Checkpoint, sounds: Sounds, tmp_path: Path) -> None:
    """With labelled clips, export tells both accuracies; the artefact's is in the metadata with its interval."""
    clips = clip_set(sounds[:36])
    parity = Exporter(checkpoint, clips).clip(tmp_path / "model.onnx")
    right = sum(
        LABELS[row.argmax()] == label
        for row, label in zip(expected_probabilities(checkpoint, sounds[:36]), clips.labels, strict=True)
    )
    validation = Classifier(tmp_path / "model.onnx").metadata.validation
    assert parity.accuracy == parity.checkpoint_accuracy == pytest.approx(right / 36, abs=1e-6)
    assert parity.validation == validation
    assert validation is not None
    assert parity.n_clips == validation.clips == 36
    assert validation.accuracy_interval == pytest.approx(wilson_interval(right, 36), abs=1e-6)


@pytest.mark.parametrize("window", [WINDOW_LIMITS[0], 12_000, 24_000, WINDOW_LIMITS[1]])
def test_a_network_of_another_window(own_checkpoint: Checkpoint, tmp_path: Path, window: int) -> None:
    """A checkpoint of another window gives an artefact of that window, which says so and answers as it does."""
    own_checkpoint.window = window
    Exporter(own_checkpoint).clip(tmp_path / "model.onnx")
    sounds = np.random.default_rng(0).normal(0, 0.1, (9, window)).astype(np.float32)
    classifier = Classifier(tmp_path / "model.onnx")
    assert classifier.window == classifier.metadata.window == window
    found, expected = classifier.probabilities(sounds), expected_probabilities(own_checkpoint, sounds)
    assert np.abs(found - expected).max() <= TOLERANCE


def test_multiply_accumulates_grow_with_the_window(own_checkpoint: Checkpoint) -> None:
    """What a model is said to cost is for one window: twice the window costs about twice as much."""
    once = describe(own_checkpoint, "model").macs
    own_checkpoint.window = 2 * CLIP_SAMPLES
    assert describe(own_checkpoint, "model").macs == pytest.approx(2 * once, rel=0.03)


def test_clips_of_another_length_are_refused(own_checkpoint: Checkpoint, sounds: Sounds) -> None:
    """Data of one second cannot check a checkpoint of a second and a half; the error says how to prepare some."""
    own_checkpoint.window = 24_000
    with pytest.raises(UsageError, match=r"found clips of 1000 ms, expected 1500 ms.*--window-ms 1500"):
        Exporter(own_checkpoint, clip_set(sounds[:36]))


def test_a_window_that_no_frames_fit_in_is_refused(own_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A window that the front end cannot cut into frames is refused in a line, and nothing is written."""
    own_checkpoint.window = 16_001
    with pytest.raises(UsageError, match="expected a multiple of 20"):
        Exporter(own_checkpoint).clip(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_exporting_twice_gives_the_same_bytes(checkpoint: Checkpoint, artefact_path: Path, tmp_path: Path) -> None:
    """The same checkpoint under the same name gives the same file."""
    again = tmp_path / artefact_path.name
    Exporter(checkpoint).clip(again)
    assert again.read_bytes() == artefact_path.read_bytes()


@pytest.mark.parametrize("value", [10.0, np.nan], ids=["another weight", "NaN"])
def test_export_refuses_what_is_not_the_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """If the graph's probabilities are not the checkpoint's, export raises and leaves an earlier file as it was."""
    build = export_room.clip_graph

    def build_wrongly(*args: object, **options: object) -> onnx.ModelProto:
        model = build(*args, **options)  # type: ignore[arg-type]
        bias = [tensor for tensor in model.graph.initializer if tensor.dims == [len(LABELS)]][-1]
        values = np.array(onnx.numpy_helper.to_array(bias))
        values[3] += value
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    out = tmp_path / "model.onnx"
    out.write_bytes(b"an earlier one")
    exporter = Exporter(checkpoint)
    monkeypatch.setattr(export_room, "clip_graph", build_wrongly)
    with pytest.raises(KwsError, match="not written"):
        exporter.clip(out)
    assert out.read_bytes() == b"an earlier one"
    assert list(tmp_path.iterdir()) == [out]
