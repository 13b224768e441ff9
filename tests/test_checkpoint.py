"""Checkpoints: exchanged with other code, and refused in one line where they are damaged."""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny_kws.config import FeatureConfig
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import KwsError, ModelError, UsageError
from tiny_kws.training.checkpoint import (
    Checkpoint,
    ClipNetwork,
    load_checkpoint,
    load_weights,
    read_torch,
    save_torch,
)
from tiny_kws.training.features import LogMel, normalize
from tiny_kws.training.networks import DSCNN, CausalCNN
from tiny_kws.training_config import CausalCNNConfig

from .conftest import full_disk, make_checkpoint

COMMON_KEYS = ("model_state", "model_config", "labels", "stats", "val_acc", "epoch", "history", "torch_version")


class OtherBlock(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.bn1(self.depthwise(x)))
        return nn.functional.relu(self.bn2(self.pointwise(x)))


class OtherDSCNN(nn.Module):
    """The reference network as other code writes it down."""

    def __init__(self, n_classes: int = 12, width: int = 160, n_blocks: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, kernel_size=(10, 4), stride=(2, 2), padding=(5, 2), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*[OtherBlock(width, 2 if i == 0 else 1) for i in range(n_blocks)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.pool(self.blocks(self.stem(x))).flatten(1)))


def other_checkpoint(seed: int = 3) -> tuple[OtherDSCNN, dict[str, Any]]:
    """A network of other code, some batches into its training, and what that code saves of it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OtherDSCNN()
        for _ in range(3):  # moves the batch-norm statistics
            model(torch.randn(4, 1, 64, 101) * 2)
    saved = {
        "model_state": model.eval().state_dict(),
        "model_config": {"n_classes": 12, "width": 160, "n_blocks": 4, "dropout": 0.2},
        "labels": list(LABELS),
        "stats": {"mean": -6.25, "std": 3.75},
        "val_acc": 0.9375,
        "epoch": 7,
        "history": [{"epoch": 1, "train_loss": 2.0, "val_acc": 0.5}],
        "torch_version": str(torch.__version__),
    }
    return model, saved


def features(batch: int = 3) -> Tensor:
    return torch.randn(batch, 1, 64, 101, generator=torch.Generator().manual_seed(1))


def refused(path: Path) -> str:
    """What is said when `path` is loaded: a ModelError of one line that names it."""
    with pytest.raises(ModelError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert len(message) < 500
    return message


def test_a_checkpoint_of_other_code_loads(tmp_path: Path) -> None:
    """One with only the common keys, written by torch.save, gives the network, its labels, stats and history."""
    _, saved = other_checkpoint()
    torch.save(saved, tmp_path / "best.pt")
    checkpoint = load_checkpoint(tmp_path / "best.pt")
    assert checkpoint.labels == LABELS
    assert checkpoint.stats == {"mean": -6.25, "std": 3.75}
    assert (checkpoint.val_acc, checkpoint.epoch) == (0.9375, 7)
    assert checkpoint.history == saved["history"]
    assert checkpoint.feature_config == FeatureConfig()
    assert checkpoint.train_config == {}
    assert not checkpoint.model.training


def test_weights_of_other_code_give_its_logits(tmp_path: Path) -> None:
    """Weights trained by other code give the logits that it computes with them."""
    model, saved = other_checkpoint()
    torch.save(saved, tmp_path / "best.pt")
    ours = load_checkpoint(tmp_path / "best.pt").model
    with torch.inference_mode():
        torch.testing.assert_close(ours(features()), model(features()), rtol=1e-5, atol=1e-6)


def test_other_code_loads_our_weights(checkpoint_path: Path) -> None:
    """Ours is read by torch.load(weights_only=True), loads strictly into other code's network, and gives our logits."""
    raw = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    model = OtherDSCNN(**raw["model_config"])
    model.load_state_dict(raw["model_state"], strict=True)
    with torch.inference_mode():
        expected = load_checkpoint(checkpoint_path).model(features())
        torch.testing.assert_close(model.eval()(features()), expected, rtol=1e-5, atol=1e-5)


def test_ours_has_the_common_keys(checkpoint_path: Path) -> None:
    """Every key that other code expects is there, in plain types."""
    raw = torch.load(checkpoint_path, weights_only=True)
    assert set(COMMON_KEYS) <= set(raw)
    assert type(raw["torch_version"]) is str
    assert type(raw["labels"]) is list
    assert type(raw["val_acc"]) is float
    assert set(raw["stats"]) == {"mean", "std"}
    assert set(raw["model_config"]) == {"n_classes", "width", "n_blocks", "dropout"}


def test_what_was_saved_is_loaded(tmp_path: Path, untrained_checkpoint: Checkpoint) -> None:
    """A checkpoint comes back as it was saved, weights bit for bit."""
    untrained_checkpoint.feature_config = FeatureConfig(centered=False)
    untrained_checkpoint.train_config = {"seed": 7}
    untrained_checkpoint.data = {"source": "synthetic"}
    save_torch(tmp_path / "best.pt", untrained_checkpoint.to_dict())
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert len(loaded.sha256) == 64
    first, second = untrained_checkpoint.to_dict(), loaded.to_dict()
    states = first.pop("model_state"), second.pop("model_state")
    assert first == second
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_checkpoint_of_another_size_loads(tmp_path: Path) -> None:
    """The network is rebuilt from its own config, not from a default."""
    save_torch(tmp_path / "best.pt", make_checkpoint(width=8).to_dict())
    assert load_checkpoint(tmp_path / "best.pt").model.config.width == 8


def test_a_path_may_be_text(tmp_path: Path) -> None:
    """Checkpoints are saved to and loaded from a path given as a string."""
    path = str(tmp_path / "best.pt")
    save_torch(path, make_checkpoint(width=8).to_dict())
    assert load_checkpoint(path).labels == LABELS
    with pytest.raises(ModelError, match=r"other\.pt: not found"):
        load_checkpoint(str(tmp_path / "other.pt"))


# Window, hop and look-back


def causal_checkpoint(pooled_frames: int, window: int, features: FeatureConfig) -> Checkpoint:
    network = CausalCNNConfig(stem_channels=2, width=8, n_blocks=2, n_band_blocks=1, pooled_frames=pooled_frames)
    return Checkpoint(CausalCNN(network), LABELS, {"mean": -13.8, "std": 4.0}, features, window=window)


def test_the_window_is_kept(tmp_path: Path) -> None:
    """A checkpoint of windows of a second and a half is one when it is loaded again."""
    save_torch(tmp_path / "best.pt", causal_checkpoint(75, 24_000, FeatureConfig(centered=False)).to_dict())
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert (loaded.window, loaded.model.config.pooled_frames) == (24_000, 75)


def test_checkpoints_without_a_window(tmp_path: Path) -> None:
    """One written before there were other windows has that of a second."""
    saved = causal_checkpoint(50, 16_000, FeatureConfig(centered=False)).to_dict()
    del saved["window"], saved["model_config"]["pooled_frames"]
    torch.save(saved, tmp_path / "best.pt")
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert (loaded.window, loaded.model.config.pooled_frames, loaded.hop) == (16_000, 50, 320)


@pytest.mark.parametrize(("window", "expected"), [(24_320, "24000"), (7999, "8000 to 32000"), (10**9, "8000")])
def test_a_window_that_is_not_the_networks(tmp_path: Path, window: int, expected: str) -> None:
    """A window that its network does not average over, or one out of bounds, is refused."""
    save_torch(tmp_path / "best.pt", causal_checkpoint(75, window, FeatureConfig(centered=False)).to_dict())
    assert f"found a window of {window} samples, expected {expected}" in refused(tmp_path / "best.pt")


def test_hop_and_look_back_go_by_the_checkpoints_front_end() -> None:
    """An answer depends on the window and on as many samples before it as the checkpoint says, and on no more."""
    features = FeatureConfig(centered=False, hop=200, n_fft=500)
    checkpoint = causal_checkpoint(40, 16_000, features)
    torch.nn.init.constant_(checkpoint.model.stem_bn.bias, 1.0)  # so that no path is dead
    assert checkpoint.hop == 400
    n_samples = 32_000
    audio = torch.rand(n_samples, generator=torch.Generator().manual_seed(0)) - 0.5
    network = ClipNetwork(checkpoint)
    reach = checkpoint.window + checkpoint.look_back
    with torch.inference_mode():
        answer = network(audio)
        for at, changes in ((n_samples - reach - 1, False), (n_samples - reach + checkpoint.hop, True)):
            changed = audio.clone()
            changed[: at + 1] = 1e4
            assert torch.equal(network(changed), answer) is not changes


def test_only_a_network_that_streams_has_a_hop(untrained_checkpoint: Checkpoint) -> None:
    """A DS-CNN has neither hop nor look-back, and says so."""
    for name in ("hop", "look_back"):
        with pytest.raises(UsageError, match=r"found the network ds-cnn, which looks ahead"):
            getattr(untrained_checkpoint, name)


def test_an_empty_file(tmp_path: Path) -> None:
    """An empty file is no checkpoint."""
    (tmp_path / "best.pt").touch()
    assert "not a complete checkpoint" in refused(tmp_path / "best.pt")


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there is said not to be."""
    assert "not found" in refused(tmp_path / "best.pt")


def test_a_folder(tmp_path: Path) -> None:
    """A folder is no checkpoint."""
    assert "not a complete checkpoint" in refused(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_file(tmp_path: Path, checkpoint_path: Path, share: float) -> None:
    """A checkpoint cut short anywhere is refused."""
    whole = checkpoint_path.read_bytes()
    (tmp_path / "best.pt").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "best.pt")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04\x95"])
def test_random_bytes(tmp_path: Path, head: bytes, seed: int) -> None:
    """Random bytes are refused, also where they begin like a zip or a pickle."""
    (tmp_path / "best.pt").write_bytes(head + np.random.default_rng(seed).bytes(5000))
    refused(tmp_path / "best.pt")


@pytest.mark.parametrize("text", ["", "hello\n", "I" * 100, "(lp0\n.", "{}", "RIFF....WAVE"])
def test_text(tmp_path: Path, text: str) -> None:
    """A text file is refused."""
    (tmp_path / "best.pt").write_text(text)
    refused(tmp_path / "best.pt")


def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    """With bytes overwritten at any place, loading ends in a checkpoint or in a ModelError, never in another error."""
    save_torch(tmp_path / "best.pt", make_checkpoint(width=4).to_dict())
    whole = (tmp_path / "best.pt").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        start = int(rng.integers(len(whole) - 16))
        damaged[start : start + 16] = rng.bytes(16)
        (tmp_path / "best.pt").write_bytes(damaged)
        with contextlib.suppress(ModelError):
            load_checkpoint(tmp_path / "best.pt")


class Code:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [lambda value, path: path.write_bytes(pickle.dumps(value)), torch.save])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    """A pickle with code in it is refused, and the code does not run."""
    save({"model_state": Code(tmp_path / "trap")}, tmp_path / "best.pt")
    refused(tmp_path / "best.pt")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, torch.zeros(3)])
def test_another_value_than_a_dict(tmp_path: Path, value: object) -> None:
    """A file of torch.save that holds no dict is refused, saying what it holds."""
    torch.save(value, tmp_path / "best.pt")
    assert f"holds a {type(value).__name__}" in refused(tmp_path / "best.pt")


def test_a_whole_module(tmp_path: Path) -> None:
    """A pickled network is refused: it would need its code."""
    torch.save(OtherDSCNN(width=4), tmp_path / "best.pt")
    refused(tmp_path / "best.pt")


def test_a_bare_state_dict(tmp_path: Path) -> None:
    """A state dict alone is refused, saying what it lacks."""
    torch.save(DSCNN().state_dict(), tmp_path / "best.pt")
    assert "found no model_state, model_config, labels, stats" in refused(tmp_path / "best.pt")


@pytest.mark.parametrize("key", ["model_state", "model_config", "labels", "stats"])
def test_a_missing_key(tmp_path: Path, key: str) -> None:
    """Each key that is needed is named where it lacks."""
    _, saved = other_checkpoint()
    del saved[key]
    torch.save(saved, tmp_path / "best.pt")
    assert f"found no {key} " in refused(tmp_path / "best.pt")


def _state(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda saved: change(saved["model_state"])


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "too few labels": (lambda saved: saved["labels"].pop(), "11 different labels, expected 12"),
    "a label twice": (lambda saved: saved["labels"].__setitem__(0, "yes"), "11 different labels, expected 12"),
    "labels are a number": (lambda saved: saved.update(labels=3), ""),
    "labels are missing": (lambda saved: saved.update(labels=None), ""),
    "no mean": (lambda saved: saved["stats"].pop("mean"), "mean"),
    "no std": (lambda saved: saved["stats"].pop("std"), "std"),
    "std is zero": (lambda saved: saved["stats"].update(std=0.0), "positive std"),
    "std is negative": (lambda saved: saved["stats"].update(std=-1.0), "positive std"),
    "std is NaN": (lambda saved: saved["stats"].update(std=math.nan), "positive std"),
    "std is infinite": (lambda saved: saved["stats"].update(std=math.inf), "positive std"),
    "mean is NaN": (lambda saved: saved["stats"].update(mean=math.nan), "finite mean"),
    "mean is text": (lambda saved: saved["stats"].update(mean="loud"), ""),
    "stats are a list": (lambda saved: saved.update(stats=[1, 2]), ""),
    "unknown setting": (lambda saved: saved["model_config"].update(depth=3), "found the settings depth"),
    "config is a list": (lambda saved: saved.update(model_config=[160]), ""),
    "config is nothing": (lambda saved: saved.update(model_config=None), ""),
    "config of another size": (lambda saved: saved["model_config"].update(width=64), "(160, 1, 10, 4), expected (64"),
    "config of another depth": (lambda saved: saved["model_config"].update(n_blocks=5), "lacks weight blocks.4"),
    "width is text": (lambda saved: saved["model_config"].update(width="wide"), ""),
    "width is zero": (lambda saved: saved["model_config"].update(width=0), ""),
    "width is negative": (lambda saved: saved["model_config"].update(width=-1), ""),
    "classes are none": (lambda saved: saved["model_config"].update(n_classes=0), ""),
    "dropout is two": (lambda saved: saved["model_config"].update(dropout=2.0), ""),
    "weight is missing": (_state(lambda state: state.pop("fc.bias")), "lacks weight fc.bias"),
    "weight too many": (_state(lambda state: state.update(extra=torch.zeros(1))), "has an unexpected weight extra"),
    "weight of wrong shape": (
        _state(lambda state: state.update({"fc.weight": torch.zeros(12, 8)})),
        "fc.weight is (12, 8), expected (12, 160)",
    ),
    "weight is NaN": (_state(lambda state: state["fc.weight"].fill_(math.nan)), "fc.weight holds NaN or infinity"),
    "variance is infinite": (_state(lambda state: state["stem.1.running_var"].fill_(math.inf)), "stem.1.running_var"),
    "weight is a number": (_state(lambda state: state.update({"fc.bias": 3.0})), ""),
    "weight is text": (_state(lambda state: state.update({"fc.bias": "heavy"})), ""),
    "weights are a list": (lambda saved: saved.update(model_state=[1]), ""),
    "weights are nothing": (lambda saved: saved.update(model_state=None), ""),
    "names are numbers": (_state(lambda state: state.update({3: torch.zeros(1)})), ""),
    "another architecture": (lambda saved: saved.update(architecture="transformer"), "transformer"),
    "unknown front end": (lambda saved: saved.update(feature_config={"window": 3}), "found the settings window"),
    "hop is zero": (lambda saved: saved.update(feature_config={"hop": 0}), ""),
    "hop is text": (lambda saved: saved.update(feature_config={"hop": "short"}), ""),
    "window longer than a clip": (lambda saved: saved.update(feature_config={"n_fft": 10**6}), ""),
    "rate is nothing": (lambda saved: saved.update(feature_config={"rate": None}), ""),
    "front end is a list": (lambda saved: saved.update(feature_config=[1]), ""),
    "accuracy is text": (lambda saved: saved.update(val_acc="good"), ""),
    "epoch is nothing": (lambda saved: saved.update(epoch=None), ""),
    "history is a number": (lambda saved: saved.update(history=3), ""),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_parts_that_do_not_fit(tmp_path: Path, name: str) -> None:
    """A checkpoint whose parts do not fit together is refused in one line that says which."""
    _, saved = other_checkpoint()
    change, expected = DAMAGES[name]
    change(saved)
    torch.save(saved, tmp_path / "best.pt")
    assert expected in refused(tmp_path / "best.pt")


def test_weights_load_all_or_none() -> None:
    """Weights of which one is wrong leave the network as it was."""
    model = make_checkpoint(width=8).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state["fc.bias"] = torch.zeros(3)
    with pytest.raises(ModelError):
        load_weights(model, state, "here")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path: Path) -> None:
    """A disk that fills up while a checkpoint is saved is a KwsError in one line, and the earlier one still loads."""
    path = tmp_path / "best.pt"
    save_torch(path, make_checkpoint(width=8, seed=1).to_dict())
    earlier = path.read_bytes()
    with pytest.raises(KwsError, match=r"^[^\n]*best\.pt: cannot be written \([^\n]+$"), full_disk(8192):
        save_torch(path, make_checkpoint(width=160).to_dict())
    assert path.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [path]


def test_reading_gives_the_plain_dict(checkpoint_path: Path) -> None:
    """read_torch gives what was saved, with tensors on the CPU."""
    raw = read_torch(checkpoint_path)
    assert raw["labels"] == list(LABELS)
    assert raw["model_state"]["fc.weight"].device.type == "cpu"


def test_clip_network(untrained_checkpoint: Checkpoint) -> None:
    """Front end, normalisation, network and softmax in one are those four, one after the other."""
    audio = torch.rand(2, 16_000, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.inference_mode():
        found = ClipNetwork(untrained_checkpoint)(audio)
        logits = untrained_checkpoint.model(normalize(LogMel()(audio), untrained_checkpoint.stats))
    torch.testing.assert_close(found, torch.softmax(logits, 1))
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_predictor(checkpoint_path: Path) -> None:
    """A checkpoint to be measured knows its labels, size and digest, and predicts what the network does."""
    from tiny_kws.cli.clips import _open_predictor

    predictor = _open_predictor(checkpoint_path)
    assert predictor.name == "model/best.pt"
    assert predictor.labels == LABELS
    assert predictor.parameters == 119_372
    assert len(predictor.sha256) == 64
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 16_000)).astype(np.float32)
    with torch.inference_mode():
        expected = ClipNetwork(load_checkpoint(checkpoint_path))(torch.from_numpy(audio)).numpy()
    np.testing.assert_array_equal(predictor.predict(audio), expected)
