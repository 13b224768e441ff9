"""A network that streams gives, chunk by chunk, what it gives on the whole recording."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiny_kws.artefact.runtime import Classifier, Stream, StreamModel
from tiny_kws.artefact.store import find_model
from tiny_kws.config import CLIP_SAMPLES, WINDOW_LIMITS, FeatureConfig
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import AudioError, KwsError, ModelError, UsageError
from tiny_kws.training_config import CAUSAL_SIZES, CausalCNNConfig

from .helpers import changed_artefact, edited_artefact, real_clips, speech_like

if TYPE_CHECKING:
    import onnx

    from tiny_kws.training.checkpoint import Checkpoint

HOPS_MS = (20, 40, 80)
STEP = 320
FEATURES = FeatureConfig(centered=False)
Audio = npt.NDArray[np.float32]


def causal_checkpoint(config: CausalCNNConfig | None = None, features: FeatureConfig = FEATURES) -> Checkpoint:
    """A causal network that was never trained, with batch-norm statistics and answers as varied as if it had been."""
    import torch

    from tiny_kws.training.checkpoint import Checkpoint
    from tiny_kws.training.networks import CausalCNN

    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = CausalCNN(config).eval()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.2, 1.0, generator=generator)
            module.bias.data.normal_(0.0, 0.2, generator=generator)
    model.fc.weight.data *= 20
    stats = {"mean": float(np.log(features.log_offset)), "std": 4.0}
    window = model.config.pooled_frames * model.frames_per_answer * features.hop
    return Checkpoint(model, LABELS, stats, features, window)


def recording(rng: np.random.Generator, n_samples: int) -> Audio:
    """Speech-like sound of any length with pauses of silence and noise between."""
    seconds = [speech_like(rng) * rng.choice([0.0, 0.05, 1.0]) for _ in range(n_samples // CLIP_SAMPLES + 1)]
    noise = rng.normal(0, 10 ** rng.uniform(-5, -1), n_samples)
    return (np.concatenate(seconds)[:n_samples] + noise).astype(np.float32)


def offline(checkpoint: Checkpoint, audio: Audio, hop: int) -> Audio:
    """Probabilities of the torch network on the whole recording, at the end of every whole hop."""
    import torch

    from tiny_kws.training.features import LogMel, normalize

    step = checkpoint.hop
    usable = len(audio) // step * step
    with torch.inference_mode():
        features = normalize(LogMel(checkpoint.feature_config)(torch.from_numpy(audio[:usable])), checkpoint.stats)
        logits = checkpoint.model.fc(checkpoint.model.embed_all(features))[0]
    return torch.softmax(logits, -1).numpy()[hop // step - 1 :: hop // step][: len(audio) // hop]


def in_chunks(stream: Stream, audio: Audio, sizes: list[int]) -> Audio:
    """Feed the stream in chunks of `sizes`, over and over, and put its answers together."""
    answers, start, turn = [], 0, 0
    while start < len(audio):
        size = sizes[turn % len(sizes)]
        answers.append(stream.process(audio[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate(answers) if answers else np.zeros((0, len(stream.labels)), np.float32)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """A causal network."""
    return causal_checkpoint()


@pytest.fixture(scope="module")
def models(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[int, StreamModel]:
    """Its stream artefacts, by hop in milliseconds."""
    from tiny_kws.export.exporter import Exporter

    folder = tmp_path_factory.mktemp("streams")
    exporter = Exporter(checkpoint)
    for hop_ms in HOPS_MS:
        exporter.stream(folder / f"m{hop_ms}.stream.onnx", 16 * hop_ms)
    return {hop_ms: StreamModel(folder / f"m{hop_ms}.stream.onnx") for hop_ms in HOPS_MS}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hop_ms=st.sampled_from(HOPS_MS),
    n_samples=st.integers(0, 60_000),
    sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
)
def test_stream_equals_offline(
    checkpoint: Checkpoint,
    models: dict[int, StreamModel],
    hop_ms: int,
    n_samples: int,
    sizes: list[int],
    seed: int,
) -> None:
    """In onnxruntime: any chunking of any recording, after a reset too, equals the whole, from the first hop on."""
    rng = np.random.default_rng(seed)
    stream = models[hop_ms].stream()
    in_chunks(stream, recording(rng, 5_000), sizes)
    stream.reset()
    audio = recording(rng, n_samples)
    answers = in_chunks(stream, audio, sizes)
    assert answers.shape == (n_samples // stream.model.hop, len(LABELS))
    if len(answers):
        np.testing.assert_allclose(answers, offline(checkpoint, audio, stream.model.hop), atol=1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 2**16))
def test_torch_streams_like_offline(checkpoint: Checkpoint, steps: list[int], seed: int) -> None:
    """In torch: chunks of any number of 20 ms steps through a Memory equal the whole recording, after a reset too."""
    import torch

    from tiny_kws.training.features import LogMel, normalize
    from tiny_kws.training.streaming import Memory

    log_mel, model, memory = LogMel(checkpoint.feature_config), checkpoint.model, Memory()
    audio = torch.from_numpy(recording(np.random.default_rng(seed), sum(steps) * STEP))[None]
    with torch.inference_mode():
        whole = model.embed_all(normalize(log_mel(audio), checkpoint.stats))
        for _ in range(2):
            memory.reset()
            parts = []
            for chunk in audio.split([step * STEP for step in steps], 1):
                memory.begin()
                features = normalize(log_mel(chunk, memory.extend), checkpoint.stats)
                parts.append(model.embed_all(features, memory.extend))
            torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=0)


def test_clip_and_stream_agree(checkpoint: Checkpoint, models: dict[int, StreamModel], tmp_path: Path) -> None:
    """The clip artefact on a second gives what the stream gives at that second's end."""
    from tiny_kws.export.exporter import Exporter

    Exporter(checkpoint).clip(tmp_path / "m.onnx")
    audio = recording(np.random.default_rng(3), CLIP_SAMPLES)
    clip = Classifier(tmp_path / "m.onnx").probabilities(audio[None])[0]
    np.testing.assert_allclose(models[40].stream().process(audio)[-1], clip, atol=1e-4)


@pytest.mark.data
def test_stream_equals_offline_on_real_sound(
    checkpoint: Checkpoint, models: dict[int, StreamModel], shared_data: Path
) -> None:
    """Forty recorded words in a row, in chunks of 37 ms, equal the whole within 1e-4."""
    clips = real_clips(shared_data / "speech_commands-test-sample.zip", limit=40)
    audio = np.concatenate([audio for _, audio in clips])
    answers = in_chunks(models[40].stream(), audio, [592])
    np.testing.assert_allclose(answers, offline(checkpoint, audio, 640), atol=1e-4)


def test_embedding_follows(models: dict[int, StreamModel]) -> None:
    """The embedding is the latest hop's."""
    stream = models[40].stream()
    stream.process(recording(np.random.default_rng(0), 640))
    first = stream.embedding
    stream.process(recording(np.random.default_rng(1), 640))
    assert first.shape == (CausalCNNConfig.width,)
    assert not np.allclose(first, stream.embedding)


def test_many_streams_share_a_session(models: dict[int, StreamModel]) -> None:
    """Streams of one model, fed in turns and from threads, do not disturb each other."""
    recordings = [recording(np.random.default_rng(seed), 16_000) for seed in range(6)]
    alone = [models[40].stream().process(audio) for audio in recordings]
    streams = [models[40].stream() for _ in recordings]
    turns: list[list[npt.NDArray[np.float32]]] = [[] for _ in recordings]
    for start in range(0, 16_000, 1_000):
        for stream, audio, taken in zip(streams, recordings, turns, strict=True):
            taken.append(stream.process(audio[start : start + 1_000]))
    for answers, expected in zip(turns, alone, strict=True):
        np.testing.assert_array_equal(np.concatenate(answers), expected)
    results: dict[int, npt.NDArray[np.float32]] = {}

    def work(index: int) -> None:
        results[index] = models[40].stream().process(recordings[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[i], alone[i]) for i in range(6))


def test_integers_are_scaled(models: dict[int, StreamModel]) -> None:
    """16-bit chunks give what the same sound as floats gives."""
    pcm = np.random.default_rng(0).integers(-3000, 3000, 16_000).astype(np.int16)
    as_floats = models[40].stream().process(pcm / 32768.0)
    np.testing.assert_array_equal(models[40].stream().process(pcm), as_floats)


def test_answers_are_ones_own(models: dict[int, StreamModel]) -> None:
    """What process returned is not changed by the next call."""
    stream = models[20].stream()
    first = stream.process(recording(np.random.default_rng(0), 3_200))
    before = first.copy()
    stream.process(recording(np.random.default_rng(1), 3_200))
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize(
    "chunk",
    [np.zeros((2, 100)), np.array([0.0, np.nan]), np.array([np.inf]), np.array(["a"]), np.zeros(3, complex), 0.5],
    ids=["two channels", "NaN", "infinity", "text", "complex", "a scalar"],
)
def test_bad_chunks(models: dict[int, StreamModel], chunk: npt.ArrayLike) -> None:
    """A chunk of a wrong shape, type or with NaN is an AudioError of one line and leaves the stream as it was."""
    audio = recording(np.random.default_rng(0), 4_000)
    stream, undisturbed = models[40].stream(), models[40].stream()
    stream.process(audio[:1_000])
    with pytest.raises(AudioError) as caught:
        stream.process(chunk)
    assert "\n" not in str(caught.value)
    undisturbed.process(audio[:1_000])
    np.testing.assert_array_equal(stream.process(audio[1_000:]), undisturbed.process(audio[1_000:]))


def test_wrong_rate(models: dict[int, StreamModel]) -> None:
    """A chunk at another rate is refused."""
    with pytest.raises(AudioError, match="44100 Hz, expected 16000 Hz"):
        models[40].stream().process(np.zeros(100), rate=44_100)


def test_state_is_small(models: dict[int, StreamModel]) -> None:
    """The state of a stream is at most 64 KB at every hop."""
    for model in models.values():
        shapes = [value.shape for value in model.session.get_inputs() if value.name.startswith("state_")]
        assert 1 <= len(shapes) <= 3
        assert 4 * sum(int(np.prod(shape[1:])) for shape in shapes) <= 64_000


def run_together(model: StreamModel, hops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows (hops, streams, labels) of hops (hops, streams, samples), all streams of a hop in one run."""
    names = [value.name for value in model.session.get_outputs()]
    states, rows = model.states(hops.shape[1]), []
    for hop in hops:
        answers = dict(zip(names, model.session.run(None, {"audio": hop, **states}), strict=True))
        states = {name: answers[f"next_{name}"] for name in states}
        rows.append(answers["probabilities"])
    return np.array(rows)


@pytest.mark.parametrize("name", ["base", "small", "micro", "listener", "listener-small", "listener-micro", "commands"])
def test_many_streams_in_one_run(name: str) -> None:
    """Each gives within 1e-4 what it gives alone."""
    model = StreamModel(name)
    assert model.has_batch
    rng = np.random.default_rng(0)
    loudness = 10.0 ** rng.uniform(-4, 0, (5, 1))
    sounds = (loudness * rng.uniform(-1, 1, (5, 40 * model.hop))).astype(np.float32)
    together = run_together(model, sounds.reshape(5, 40, model.hop).swapaxes(0, 1))
    for sound, rows in zip(sounds, together.swapaxes(0, 1), strict=True):
        np.testing.assert_allclose(rows, model.stream().process(sound), atol=1e-4)


def one_stream_at_a_time(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def test_a_graph_for_one_stream_runs_alone(models: dict[int, StreamModel], tmp_path: Path) -> None:
    """An artefact without a batch is opened, and answers as one with it."""
    alone = StreamModel(edited_artefact(models[40].path, tmp_path / "m.stream.onnx", one_stream_at_a_time))
    assert not alone.has_batch
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 8000).astype(np.float32)
    np.testing.assert_allclose(alone.stream().process(sound), models[40].stream().process(sound), atol=1e-6)


def test_network_is_within_its_budget() -> None:
    """The default has at most 119,372 parameters and 20 M multiply-accumulates; width and depth give up to 300 k."""
    import torch

    from tiny_kws.training.networks import CausalCNN, count_macs, count_parameters

    for config in (CausalCNNConfig(), CAUSAL_SIZES["base"]):
        network = CausalCNN(config)
        assert count_parameters(network) <= 119_372
        assert count_macs(network, torch.zeros(1, 1, 64, 100)) <= 20e6
    large = CausalCNN(CausalCNNConfig(width=184, n_blocks=7))
    assert count_parameters(large) > 290_000


def test_sizes() -> None:
    """Micro has about 10,000 parameters, small about 50,000, large about 350,000; each is smaller than the next."""
    from tiny_kws.training.networks import CausalCNN, count_parameters

    counts = {name: count_parameters(CausalCNN(config)) for name, config in CAUSAL_SIZES.items()}
    assert counts["micro"] == pytest.approx(10_000, rel=0.1)
    assert counts["small"] == pytest.approx(50_000, rel=0.1)
    assert counts["large"] == pytest.approx(350_000, rel=0.1)
    assert counts["micro"] < counts["small"] < counts["base"] < counts["large"]


@pytest.mark.parametrize(
    "config",
    [CausalCNNConfig(stem_channels=8, width=24, n_blocks=3, kernel=5), CAUSAL_SIZES["micro"], CAUSAL_SIZES["base"]],
    ids=["narrow", "micro", "base"],
)
@pytest.mark.parametrize("hop", [320, 640])
def test_other_sizes_stream(config: CausalCNNConfig, hop: int, tmp_path: Path) -> None:
    """Networks of other widths, depths, kernels and band blocks stream as exactly, clips too, in state of 64 kB."""
    from tiny_kws.export.exporter import Exporter

    checkpoint = causal_checkpoint(config)
    exporter = Exporter(checkpoint)
    exporter.clip(tmp_path / "other.onnx")
    exporter.stream(tmp_path / "other.stream.onnx", hop)
    audio = recording(np.random.default_rng(0), 40_000)
    model = StreamModel(tmp_path / "other.stream.onnx")
    np.testing.assert_allclose(model.stream().process(audio), offline(checkpoint, audio, hop), atol=1e-4)
    clip = Classifier(tmp_path / "other.onnx").probabilities(audio[None, :CLIP_SAMPLES])
    np.testing.assert_allclose(clip, offline(checkpoint, audio[:CLIP_SAMPLES], 320)[-1:], atol=1e-4)


@pytest.mark.parametrize(
    ("pooled_frames", "features", "hops"),
    [
        (25, FEATURES, (320, 8_000)),
        (75, FEATURES, (640,)),
        (100, FEATURES, (320, 1280)),
        (30, FeatureConfig(centered=False, n_fft=480, hop=200), (400, 1200)),
    ],
    ids=["half a second", "one and a half", "two seconds", "frames of 25 ms"],
)
def test_other_windows_stream(
    pooled_frames: int, features: FeatureConfig, hops: tuple[int, ...], tmp_path: Path
) -> None:
    """Networks over another window or at another step stream as exactly, and so do clips; their artefacts say both."""
    from tiny_kws.export.exporter import Exporter

    config = replace(CAUSAL_SIZES["micro"], pooled_frames=pooled_frames)
    checkpoint = causal_checkpoint(config, features)
    exporter = Exporter(checkpoint)
    exporter.clip(tmp_path / "m.onnx")
    audio = recording(np.random.default_rng(0), 50_000)
    clip = Classifier(tmp_path / "m.onnx")
    assert clip.window == clip.metadata.window == checkpoint.window == pooled_frames * 2 * features.hop
    for hop in hops:
        exporter.stream(tmp_path / "m.stream.onnx", hop)
        model = StreamModel(tmp_path / "m.stream.onnx")
        assert (model.hop, model.window) == (hop, checkpoint.window)
        answers = in_chunks(model.stream(), audio, [999])
        np.testing.assert_allclose(answers, offline(checkpoint, audio, hop), atol=1e-4)
    expected = clip.probabilities(audio[None, : clip.window])
    np.testing.assert_allclose(offline(checkpoint, audio[: clip.window], checkpoint.hop)[-1:], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["micro", "small", "base"])
def test_the_longest_window_streams(name: str) -> None:
    """Every published size over two seconds can stream in hops of 80 ms: its state is not too large."""
    from tiny_kws.export.onnx_models import stream_graph

    checkpoint = causal_checkpoint(replace(CAUSAL_SIZES[name], pooled_frames=100))
    assert checkpoint.window == WINDOW_LIMITS[1]
    stream_graph(checkpoint, 1280)


@pytest.mark.parametrize("config", [CausalCNNConfig(), CAUSAL_SIZES["micro"]], ids=["plain", "bands"])
def test_pooling_behind_the_classifier_changes_nothing(config: CausalCNNConfig) -> None:
    """What training answers everywhere is what classifying every pooled vector gives, and the last what clips give."""
    import torch

    model = causal_checkpoint(config).model
    features = torch.randn(2, 1, 64, 240, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = model.answer_all(features)
        torch.testing.assert_close(answers, model.fc(model.embed_all(features)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answers[:, -1], model(features), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [CausalCNNConfig(), CAUSAL_SIZES["micro"]], ids=["plain", "bands"])
def test_network_is_causal(config: CausalCNNConfig) -> None:
    """What comes later does not change what was answered before, and the look-back is as far as the network says."""
    import torch

    model = causal_checkpoint(config).model
    features = torch.randn(1, 1, 64, 600, generator=torch.Generator().manual_seed(0))
    reach = model.config.pooled_frames * model.frames_per_answer + model.look_back_frames
    with torch.inference_mode():
        before = model.embed_all(features)[0]
        later, earlier = features.clone(), features.clone()
        later[..., 400:] += 1
        earlier[..., : 600 - reach] += 1
        assert torch.equal(model.embed_all(later)[0, :200], before[:200])
        assert torch.equal(model.embed_all(earlier)[0, -1], before[-1])
        # So far back the way leads through the oldest tap of every layer, so only a large change is felt.
        reached = []
        for change in (-1e6, 1e6):
            earlier = features.clone()
            earlier[..., 600 - reach] += change
            reached.append(not torch.equal(model.embed_all(earlier)[0, -1], before[-1]))
        assert any(reached)


def test_metadata(models: dict[int, StreamModel]) -> None:
    """A stream artefact says its kind, hop and look-back."""
    metadata = models[80].metadata
    assert (metadata.kind, metadata.hop, metadata.architecture) == ("stream", 1280, "causal-cnn")
    assert metadata.look_back > 0


@pytest.mark.parametrize("hop", [0, -640, 100, 300, 17_000, 32_000])
def test_impossible_hops(checkpoint: Checkpoint, tmp_path: Path, hop: int) -> None:
    """A hop that is no multiple of 20 ms up to a second is refused, and nothing is written."""
    from tiny_kws.export.exporter import Exporter

    with pytest.raises(UsageError, match="hop"):
        Exporter(checkpoint).stream(tmp_path / "m.stream.onnx", hop)
    assert not list(tmp_path.iterdir())


def test_ds_cnn_does_not_stream(untrained_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Export of a network that looks ahead to a stream is refused."""
    from tiny_kws.export.exporter import Exporter

    with pytest.raises(UsageError, match="looks ahead"):
        Exporter(untrained_checkpoint).stream(tmp_path / "m.stream.onnx", 640)


def test_a_stream_that_parts_is_not_written(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artefact whose answers part from the checkpoint's is refused with the difference, and nothing is written."""
    from tiny_kws.export import exporter as export
    from tiny_kws.export.onnx_models import stream_graph

    whole = stream_graph(checkpoint, 640)
    for initializer in whole.graph.initializer:
        if initializer.name.startswith("network") and len(initializer.dims) == 2:
            values = np.frombuffer(initializer.raw_data, np.float32) * 1.05
            initializer.raw_data = values.astype(np.float32).tobytes()
            break
    monkeypatch.setattr(export, "stream_graph", lambda *_: whole)
    with pytest.raises(KwsError, match="not written"):
        export.Exporter(checkpoint).stream(tmp_path / "m.stream.onnx", 640)
    assert not list(tmp_path.iterdir())


def test_kinds_are_not_confused(models: dict[int, StreamModel], checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A clip artefact is refused as a stream and a stream artefact as a classifier."""
    from tiny_kws.export.exporter import Exporter

    Exporter(checkpoint).clip(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is a clip artefact, expected one for streams"):
        StreamModel(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is a stream artefact, expected one for clips"):
        Classifier(models[40].path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hop": 320}, "takes audio of shape (batch, 640), expected (batch, 320) by the hop"),
        ({"hop": 0}, "has a hop of 0 samples, expected 1 to its window of 16000"),
        ({"hop": -640}, "has a hop of -640 samples"),
        ({"hop": 16_001}, "has a hop of 16001 samples"),
        ({"labels": ["a", "b"]}, "gives probabilities of shape (batch, 12), expected (batch, 2) by the labels"),
        ({"window": 7}, "has a window of 7 samples"),
    ],
    ids=str,
)
def test_altered_metadata(
    models: dict[int, StreamModel], tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    """A stream artefact whose hop or labels are not its graph's is refused by its name, with what was expected."""
    path = changed_artefact(models[40].path, tmp_path / "m.stream.onnx", **changes)
    with pytest.raises(ModelError, match=re.escape(reason)) as caught:
        StreamModel(path)
    assert str(path) in str(caught.value)


def state_of_another_length(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value += 1


def state_of_any_length(model: onnx.ModelProto) -> None:
    for value in (model.graph.input[1], next(v for v in model.graph.output if v.name.startswith("next_"))):
        value.type.tensor_type.shape.dim[1].dim_param = "any"


def state_that_does_not_go_on(model: onnx.ModelProto) -> None:
    model.graph.output.remove(next(value for value in model.graph.output if value.name.startswith("next_")))


def no_embedding(model: onnx.ModelProto) -> None:
    model.graph.output.remove(next(value for value in model.graph.output if value.name == "embedding"))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (state_of_another_length, "onnxruntime cannot load it"),
        (state_of_any_length, "state_audio has shape (batch, any)"),
        (state_that_does_not_go_on, "its graph takes audio (batch, 640), state_"),
        (no_embedding, "embedding has shape none, expected numbers behind the batch"),
    ],
    ids=["another length", "any length", "a state that ends", "no embedding"],
)
def test_a_graph_that_is_no_stream(
    models: dict[int, StreamModel], tmp_path: Path, edit: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    """A stream artefact whose states do not fit together, or without its embedding, is refused when it is opened."""
    path = edited_artefact(models[40].path, tmp_path / "m.stream.onnx", edit)
    with pytest.raises(ModelError, match=re.escape(reason)) as caught:
        StreamModel(path)
    assert str(path) in str(caught.value)


def test_bundled_stream() -> None:
    """The package brings a stream model of the twelve labels, and silence sounds like silence to it."""
    model = StreamModel()
    assert model.labels == LABELS
    assert model.path == find_model(None, "stream")
    answers = model.stream().process(np.zeros(3 * CLIP_SAMPLES))
    assert LABELS[int(answers[-1].argmax())] == "silence"
