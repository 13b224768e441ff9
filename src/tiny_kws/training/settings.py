"""What to train: a network, a recipe, initial weights, teachers; checks whether they fit the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..config import SAMPLE_RATE, FeatureConfig
from ..data.prepared import PreparedData
from ..errors import UsageError
from ..training_config import DSCNNConfig, NetworkConfig, TrainConfig
from .checkpoint import DS_CNN, Checkpoint, feature_config_of, load_weights, network_config_of
from .networks import Network, shape_of


@dataclass(frozen=True)
class TrainSettings:
    """What to train and how. The network's classes and window come from the data, whatever `network` says.

    With `first`, training begins from the weights of that checkpoint; with `teachers`, networks of the same front end,
    training on windows is also towards their logits, the mean of them. `device` is cpu, cuda or mps, the best there is
    by default.
    """

    network: NetworkConfig = field(default_factory=DSCNNConfig)
    config: TrainConfig = field(default_factory=TrainConfig)
    device: str | None = None
    first: Checkpoint | None = None
    teachers: tuple[Checkpoint, ...] = ()


@dataclass(frozen=True)
class Identity:
    """What has to be the same for processes to train together, and for a training to be resumed."""

    train_config: dict[str, Any]
    """The settings, and whether bfloat16 is used."""
    network: NetworkConfig
    clips_sha256: Mapping[str, str]
    teachers_sha256: list[str]

    def differences(self, last: Mapping[str, Any], where: str) -> list[str]:
        """What differs from the settings of the training in a checkpoint's dict; `where` is named in errors."""
        found, data, network = (
            value if isinstance(value := last.get(key), dict) else {}
            for key in ("train_config", "data", "model_config")
        )
        found = {**asdict(TrainConfig()), **found}  # settings that it does not know were at their defaults
        differing = [name for name, value in self.train_config.items() if found.get(name) != value]
        if data.get("clips_sha256") != self.clips_sha256:
            differing.append("the list of clips")
        if network_config_of(last.get("architecture", DS_CNN), network, where) != self.network:
            differing.append("the network")
        if data.get("teachers_sha256", []) != self.teachers_sha256:
            differing.append("the teachers")
        return differing


def fitted_network(network: NetworkConfig, data: PreparedData, feature_config: FeatureConfig) -> NetworkConfig:
    """The network for the data's classes and window. Raises UsageError if it cannot take such a window."""
    if isinstance(network, DSCNNConfig):
        return replace(network, n_classes=len(data.vocabulary))
    hop = feature_config.hop * network.frames_per_answer
    if data.window % hop:
        raise UsageError(
            f"{data.folder}: found a window of {data.window} samples, expected a multiple of {hop} "
            f"({1000 * hop // SAMPLE_RATE} ms) for a network that streams; prepare the data with another --window-ms, "
            "or train ds-cnn"
        )
    return replace(network, n_classes=len(data.vocabulary), pooled_frames=data.window // hop)


def begin_from(first: Checkpoint, model: Network, data: PreparedData) -> None:
    """Take over the weights of a checkpoint. Raises UsageError if it is of another network, front end or task."""
    name = f"the first checkpoint ({first.sha256[:12]})"
    check_fits(first, name, feature_config_of(first.architecture), data)
    if shape_of(first.model) != shape_of(model):
        raise UsageError(f"{name} is a different network, expected one of the size asked for")
    load_weights(model, first.model.state_dict(), name)


def check_fits(checkpoint: Checkpoint, name: str, feature_config: FeatureConfig, data: PreparedData) -> None:
    """Raise UsageError unless a checkpoint takes and gives what the network that is trained takes and gives."""
    if checkpoint.feature_config != feature_config:
        raise UsageError(f"{name} has a different front end, expected that of the network to be trained")
    if checkpoint.labels != data.vocabulary.labels:
        raise UsageError(
            f"{name} has the labels {', '.join(checkpoint.labels)}, expected those of the data in their order: "
            f"{', '.join(data.vocabulary.labels)}"
        )
    if checkpoint.window != data.window:
        raise UsageError(f"{name} has a window of {checkpoint.window} samples, expected {data.window} as the data has")
