"""The networks: log-mel features in, logits out."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from ..training_config import FRAMES_OF_STEM, CausalCNNConfig, DSCNNConfig, NetworkConfig
from .streaming import Extend, extend_by_zeros


class SeparableBlock(nn.Module):
    """3x3 depthwise and 1x1 pointwise convolution, each with batch norm and ReLU."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.depthwise(x)))
        return torch.relu_(self.bn2(self.pointwise(x)))


class DSCNN(nn.Module):
    """Depthwise-separable CNN (Zhang et al. 2017, arXiv:1711.07128).

    Takes (batch, 1, mels, frames) to logits (batch, classes).

    >>> sum(p.numel() for p in DSCNN().parameters())
    119372
    >>> DSCNN()(torch.zeros(2, 1, 64, 101)).shape
    torch.Size([2, 12])
    """

    def __init__(
        self,
        n_classes: int = DSCNNConfig.n_classes,
        width: int = DSCNNConfig.width,
        n_blocks: int = DSCNNConfig.n_blocks,
        dropout: float = DSCNNConfig.dropout,
    ) -> None:
        super().__init__()
        self.config = DSCNNConfig(n_classes, width, n_blocks, dropout)
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, (10, 4), stride=2, padding=(5, 2), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*(SeparableBlock(width, stride=2 if i == 0 else 1) for i in range(n_blocks)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, n_classes)

    def embed(self, features: Tensor) -> Tensor:
        """The pooled vector before the classifier, (batch, width)."""
        return self.blocks(self.stem(features)).mean((2, 3))  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(self.dropout(self.embed(features)))  # type: ignore[no-any-return]


class CausalBlock(nn.Module):
    """A depthwise-separable convolution over time that only looks back, batch norm, ReLU and a residual connection.

    There is nothing between the depthwise and the pointwise convolution, as in Xception (Chollet 2017,
    arXiv:1610.02357).
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.look_back = kernel - 1
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.pointwise = nn.Conv1d(width, width, 1, bias=False)
        self.bn = nn.BatchNorm1d(width)

    def forward(self, x: Tensor, extend: Extend) -> Tensor:
        y = self.pointwise(self.depthwise(extend(x, self.look_back)))
        return x + torch.relu_(self.bn(y))


class BandBlock(nn.Module):
    """A 3 x 3 convolution over frequency and time that only looks back, batch norm, ReLU and a residual connection.

    The residual connection exists if the shape does not change; with `stride` the bands are halved.
    """

    LOOK_BACK = 2

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, (stride, 1), padding=(1, 0), bias=False)
        self.bn = nn.BatchNorm2d(n_out)
        self.keeps_shape = n_in == n_out and stride == 1

    def forward(self, x: Tensor, extend: Extend) -> Tensor:
        y = torch.relu_(self.bn(self.conv(extend(x, self.LOOK_BACK))))
        return x + y if self.keeps_shape else y


class CausalCNN(nn.Module):
    """A network that streams: the same weights run on whole clips and chunk by chunk.

    Takes log-mel features of frames that end at the present (`FeatureConfig(centered=False)`), (batch, 1, mels,
    frames), to logits (batch, classes) from the mean over the window, the last `pooled_frames` of the config. Every
    layer reaches back through `extend`, which puts zeros before a recording, or the past before a chunk of a stream
    (see `streaming.Memory`).

    >>> CausalCNN()(torch.zeros(2, 1, 64, 100)).shape
    torch.Size([2, 12])
    """

    STEM_KERNEL = (8, 5)
    STEM_STRIDE = (4, FRAMES_OF_STEM)

    def __init__(self, config: CausalCNNConfig | None = None) -> None:
        super().__init__()
        self.config = config or CausalCNNConfig()
        channels, width = self.config.stem_channels, self.config.width
        rows = self.config.n_mels // self.STEM_STRIDE[0]
        margin = (self.STEM_KERNEL[0] - self.STEM_STRIDE[0]) // 2
        self.stem = nn.Conv2d(1, channels, self.STEM_KERNEL, self.STEM_STRIDE, padding=(margin, 0), bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        self.bands = nn.ModuleList()
        for i in range(self.config.n_band_blocks):
            self.bands.append(BandBlock(channels, self.config.band_channels, stride=2 if i == 0 else 1))
            channels, rows = self.config.band_channels, rows // 2 if i == 0 else rows
        mixed = self.config.mixed_frames
        self.mix = nn.Conv1d(channels * rows, width, mixed, mixed, bias=False)
        self.mix_bn = nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(CausalBlock(width, self.config.kernel) for _ in range(self.config.n_blocks))
        self.dropout = nn.Dropout(self.config.dropout)
        self.fc = nn.Linear(width, self.config.n_classes)

    @property
    def frames_per_answer(self) -> int:
        """Frames of features from one answer of `embed_all` to the next."""
        return self.config.frames_per_answer

    @property
    def look_back_frames(self) -> int:
        """How many frames of features before the window an answer also depends on."""
        of_blocks = sum(self.config.kernel - 1 for _ in self.blocks) * self.frames_per_answer
        of_bands = sum(BandBlock.LOOK_BACK for _ in self.bands) * self.STEM_STRIDE[1]
        return of_blocks + of_bands + self.STEM_KERNEL[1] - self.STEM_STRIDE[1]

    def trunk(self, features: Tensor, extend: Extend = extend_by_zeros) -> Tensor:
        """Activations (batch, width, answers); the number of frames is a multiple of `frames_per_answer`."""
        x = extend(features, self.STEM_KERNEL[1] - self.STEM_STRIDE[1])
        x = torch.relu_(self.stem_bn(self.stem(x)))
        for block in self.bands:
            x = block(x, extend)
        x = torch.relu_(self.mix_bn(self.mix(x.flatten(1, 2))))
        for block in self.blocks:
            x = block(x, extend)
        return x

    def embed(self, features: Tensor) -> Tensor:
        """The pooled vector before the classifier at the end of `features`, (batch, width)."""
        n_pooled = self.config.pooled_frames
        return self.trunk(features)[..., -n_pooled:].sum(-1) / n_pooled

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(self.dropout(self.embed(features)))  # type: ignore[no-any-return]

    def embed_all(self, features: Tensor, extend: Extend = extend_by_zeros) -> Tensor:
        """The pooled vector at every answer of a recording or a chunk of a stream, (batch, answers, width)."""
        n_pooled = self.config.pooled_frames
        past = extend(self.trunk(features, extend), n_pooled - 1)
        return nn.functional.avg_pool1d(past, n_pooled, stride=1).transpose(1, 2)

    def answer_all(self, features: Tensor) -> Tensor:
        """Logits at every answer of a recording, (batch, answers, classes).

        The same as classifying `embed_all`, but pooled behind the classifier, which costs less. In training a channel
        that dropout drops is dropped throughout the recording.
        """
        frames = nn.functional.dropout1d(self.trunk(features), self.config.dropout, self.training)
        n_pooled = self.config.pooled_frames
        logits = nn.functional.pad(self.fc(frames.transpose(1, 2)) - self.fc.bias, (0, 0, n_pooled - 1, 0))
        return nn.functional.avg_pool1d(logits.transpose(1, 2), n_pooled, stride=1).transpose(1, 2) + self.fc.bias


Network = DSCNN | CausalCNN


def network_of(config: NetworkConfig) -> Network:
    """The network that `config` describes, with weights drawn from torch's own generator."""
    return DSCNN(**asdict(config)) if isinstance(config, DSCNNConfig) else CausalCNN(config)


def shape_of(model: Network) -> tuple[type[Network], dict[str, float]]:
    """What two networks must have in common to share weights: class and settings, except for dropout."""
    return type(model), {**asdict(model.config), "dropout": 0}


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters; batch norm's running statistics do not count."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, features: Tensor) -> int:
    """Multiply-accumulates of one forward pass of `features` (batch of one), counted as LiteRT's converter does.

    That is half the arithmetic operations of the convolutions and linear layers: two for each product and sum, one for
    each bias added, which every layer has once batch norm is folded into it. Pooling counts as nothing.

    >>> count_macs(DSCNN(), torch.zeros(1, 1, 64, 101))
    58997366
    """
    operations = 0

    def add(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal operations
        weight: Tensor = layer.weight  # type: ignore[assignment]
        operations += output.numel() * (2 * weight[0].numel() + 1)

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(features)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return operations // 2
