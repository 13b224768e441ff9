"""The networks: log-mel features in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import DSCNNConfig


class SeparableBlock(nn.Module):
    """3x3 depthwise and 1x1 pointwise convolution, each with batch norm and ReLU."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


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
            nn.Conv2d(1, width, (10, 4), stride=2, padding=(5, 2), bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(SeparableBlock(width, stride=2 if i == 0 else 1) for i in range(n_blocks)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, n_classes)

    def embed(self, features: Tensor) -> Tensor:
        """The pooled vector before the classifier, (batch, width)."""
        return self.blocks(self.stem(features)).mean((2, 3))  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(self.dropout(self.embed(features)))  # type: ignore[no-any-return]


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters; batch norm's running statistics do not count."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, features: Tensor) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one forward pass of `features` (batch of one).

    Batch norm counts as nothing, since it folds into the convolution before it; so does pooling.

    >>> count_macs(DSCNN(), torch.zeros(1, 1, 64, 101))
    58579840
    """
    total = 0

    def add(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight: Tensor = layer.weight  # type: ignore[assignment]
        total += output.numel() * weight[0].numel()

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
    return total
