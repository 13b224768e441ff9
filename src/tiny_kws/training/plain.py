"""Classification in plain PyTorch, which benchmarks compare artefacts with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..config import FeatureConfig
from .features import mel_filterbank
from .networks import DSCNN


class PlainLogMel(nn.Module):
    """The obvious front end: torch.stft in float32, faster than `LogMel` but less exact."""

    def __init__(self) -> None:
        super().__init__()
        self.config = FeatureConfig()
        self.window = torch.hann_window(self.config.n_fft)
        self.filterbank = mel_filterbank(self.config).float().T

    def forward(self, audio: Tensor) -> Tensor:
        config = self.config
        spectrum = torch.stft(audio, config.n_fft, config.hop, window=self.window, return_complex=True)
        mel = self.filterbank @ spectrum.abs().square()
        return ((mel + config.log_offset).log()[:, None] + 7.0) / 4.0


def plain_classifier() -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Front end and DS-CNN of the reference, layer by layer on one thread: audio (batch, 16000) to probabilities.

    Its weights are random, which costs the same.
    """
    torch.set_num_threads(1)
    network = nn.Sequential(PlainLogMel(), DSCNN(), nn.Softmax(-1)).eval()

    def classify(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(audio)).numpy()  # type: ignore[no-any-return]

    return classify
