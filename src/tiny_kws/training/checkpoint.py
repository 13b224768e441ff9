"""Checkpoints: the weights with all that is needed to rebuild the network and its front end.

A checkpoint is a plain dict of tensors and simple values that `torch.load(weights_only=True)` reads. The keys
`model_state`, `model_config`, `labels`, `stats`, `val_acc`, `epoch`, `history` and `torch_version` are common to other
implementations of the reference; `architecture`, `feature_config`, `window`, `train_config` and `data` are ours, and
may be missing.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..config import CLIP_SAMPLES, WINDOW_LIMITS, FeatureConfig, from_mapping
from ..errors import ModelError, UsageError
from ..files import sha256_of, whole_file
from ..training_config import CausalCNNConfig, DSCNNConfig, NetworkConfig
from .features import LogMel, normalize
from .networks import CausalCNN, Network, network_of

DS_CNN = "ds-cnn"
CAUSAL_CNN = "causal-cnn"
ARCHITECTURES = (DS_CNN, CAUSAL_CNN)


@dataclass
class Checkpoint:
    """A network with its front end, labels and history. `stats` holds the features' `mean` and `std`.

    `window` is the length of sound that a clip answer is based on, in samples.
    """

    model: Network
    labels: tuple[str, ...]
    stats: dict[str, float]
    feature_config: FeatureConfig = field(default_factory=FeatureConfig)
    window: int = CLIP_SAMPLES
    val_acc: float = math.nan
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    train_config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def architecture(self) -> str:
        """The name of the network's class, for `network_config_of`."""
        return architecture_of(self.model.config)

    @property
    def hop(self) -> int:
        """Samples from one answer of a stream to the next. Raises UsageError for a network that does not stream."""
        return self.feature_config.hop * self._streaming_model().frames_per_answer

    @property
    def look_back(self) -> int:
        """Samples before the window that an answer also depends on, the front end's included.

        Raises UsageError for a network that does not stream.
        """
        config = self.feature_config
        return self._streaming_model().look_back_frames * config.hop + config.n_fft - config.hop

    def _streaming_model(self) -> CausalCNN:
        if not isinstance(self.model, CausalCNN):
            raise UsageError(f"found the network {self.architecture}, which looks ahead; only {CAUSAL_CNN} streams")
        return self.model

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that is saved."""
        return {
            "model_state": {name: value.detach().cpu() for name, value in self.model.state_dict().items()},
            "model_config": asdict(self.model.config),
            "labels": list(self.labels),
            "stats": dict(self.stats),
            "val_acc": self.val_acc,
            "epoch": self.epoch,
            "history": self.history,
            "torch_version": str(torch.__version__),
            "architecture": self.architecture,
            "feature_config": asdict(self.feature_config),
            "window": self.window,
            "train_config": self.train_config,
            "data": self.data,
        }


class ClipNetwork(nn.Module):
    """Front end, normalisation, network and softmax as one module: (batch, samples) to (batch, classes)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.log_mel = LogMel(checkpoint.feature_config)
        self.stats = checkpoint.stats
        self.model = checkpoint.model.eval()

    def forward(self, audio: Tensor) -> Tensor:
        return torch.softmax(self.model(normalize(self.log_mel(audio), self.stats)), -1)


def feature_config_of(architecture: str) -> FeatureConfig:
    """The front end for an architecture: frames of a network that streams end at the present."""
    return FeatureConfig(centered=architecture != CAUSAL_CNN)


def architecture_of(config: NetworkConfig) -> str:
    """The name of the network that `config` describes."""
    return DS_CNN if isinstance(config, DSCNNConfig) else CAUSAL_CNN


def network_config_of(architecture: str, settings: Mapping[str, Any], where: str) -> NetworkConfig:
    """The config of a network from a checkpoint or a command; missing `settings` take their defaults.

    Raises ModelError, which names `where`, for an unknown architecture, unknown settings and values that are too small.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{where}: found the architecture {architecture!r}, expected one of {', '.join(ARCHITECTURES)}"
        )
    least = {"dropout": 0, "n_band_blocks": 0}
    for name, value in settings.items():
        if value < least.get(name, 1):
            raise ModelError(f"{where}: found {name} = {value}, expected at least {least.get(name, 1)}")
    if architecture == DS_CNN:
        return from_mapping(DSCNNConfig, settings, where)
    return from_mapping(CausalCNNConfig, settings, where)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of ours, or one in the reference's form that other code wrote.

    Raises ModelError, saying what is wrong, if it is missing, truncated, foreign or inconsistent.
    """
    path = Path(path)
    raw = read_torch(path)
    missing = [key for key in ("model_state", "model_config", "labels", "stats") if key not in raw]
    if missing:
        raise ModelError(f"{path}: found no {', '.join(missing)} in it, expected a checkpoint of tiny-kws")
    try:
        return _from_dict(raw, path)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: its parts do not fit together ({reason}); expected a checkpoint of tiny-kws"
        ) from error


def save_torch(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write `value` with torch.save, completely or not at all."""
    # Through memory: torch's own zip writer turns a full disk into an error that says nothing of it.
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with whole_file(Path(path)) as file:
        file.write(buffer.getbuffer())


def read_torch(path: str | Path) -> dict[str, Any]:
    """Read a dict with torch.load(weights_only=True). Raises ModelError if it is missing, damaged or something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of foreign pickles before it refuses them
            value = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: not found, expected a checkpoint; check the path") from error
    except Exception as error:  # on damaged bytes torch raises whatever it trips over, IndexError for one
        raise ModelError(
            f"{path}: is not a complete checkpoint ({type(error).__name__}), expected a file of torch.save with plain "
            "values; download or train it again"
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds a {type(value).__name__}, expected a checkpoint's dict")
    return value


def _from_dict(raw: dict[str, Any], path: Path) -> Checkpoint:
    where = str(path)
    model = network_of(network_config_of(raw.get("architecture", DS_CNN), raw["model_config"], where))
    labels = tuple(str(label) for label in raw["labels"])
    if len(labels) != model.config.n_classes or len(set(labels)) != len(labels):
        raise ModelError(
            f"{path}: found {len(set(labels))} different labels, expected {model.config.n_classes} as the weights have"
        )
    feature_config = from_mapping(FeatureConfig, raw.get("feature_config", {}), where)
    window = _window_of(raw, model, feature_config, where)
    LogMel(feature_config)(torch.zeros(window))  # raises on settings of which no front end can be made
    load_weights(model, raw["model_state"], where)
    stats = {name: float(raw["stats"][name]) for name in ("mean", "std")}  # other code may note more
    if not (math.isfinite(stats["mean"]) and 0 < stats["std"] < math.inf):
        raise ModelError(f"{path}: found stats {stats}, expected a finite mean and a positive std")
    return Checkpoint(
        model=model.eval(),
        labels=labels,
        stats=stats,
        feature_config=feature_config,
        window=window,
        val_acc=float(raw.get("val_acc", math.nan)),
        epoch=int(raw.get("epoch", 0)),
        history=list(raw.get("history", [])),
        train_config=dict(raw.get("train_config", {})),
        data=dict(raw.get("data", {})),
        sha256=sha256_of(path),
    )


def _window_of(raw: Mapping[str, Any], model: Network, feature_config: FeatureConfig, where: str) -> int:
    """The window in samples, a second if the checkpoint has none. Raises ModelError if it is not the network's."""
    window = int(raw.get("window", CLIP_SAMPLES))
    shortest, longest = WINDOW_LIMITS
    if not shortest <= window <= longest:
        raise ModelError(f"{where}: found a window of {window} samples, expected {shortest} to {longest}")
    if "window" in raw and isinstance(model, CausalCNN):
        pooled = model.config.window_frames * feature_config.hop
        if window != pooled:
            raise ModelError(f"{where}: found a window of {window} samples, expected {pooled} as its network has")
    return window


def load_weights(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load all of `state` into `model` or nothing. Raises ModelError with the first name or shape that is wrong."""
    expected = model.state_dict()
    odd = sorted(set(expected) ^ set(state))
    wrong = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    if odd:
        side = "lacks" if odd[0] in expected else "has an unexpected"
        raise ModelError(
            f"{where}: {side} weight {odd[0]} ({len(odd)} names differ); expected those of its model_config"
        )
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"{where}: the weight {name} is {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"
        )
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ModelError(f"{where}: the weight {bad[0]} holds NaN or infinity, expected numbers; train it again")
    model.load_state_dict(dict(state))


def classifier_of(checkpoint: Checkpoint) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """A function from audio (batch, samples) in [-1, 1] to the checkpoint's probabilities (batch, classes)."""
    network = ClipNetwork(checkpoint)

    def classify(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(audio)).numpy()  # type: ignore[no-any-return]

    return classify


def set_threads(threads: int) -> None:
    """Let torch compute with this many threads."""
    torch.set_num_threads(threads)
