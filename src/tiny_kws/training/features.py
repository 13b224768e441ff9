"""LogMel: the one definition of the front end. Everything else is exported from it or tested against it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..config import FeatureConfig
from .distributed import World
from .streaming import Extend, extend_by_zeros


def hz_to_mel(frequency_hz: Tensor) -> Tensor:
    """HTK mel scale: 2595 log10(1 + f / 700)."""
    return 2595.0 * torch.log10(1.0 + frequency_hz / 700.0)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def band_edges(config: FeatureConfig) -> Tensor:
    """Frequencies from `f_min` to `f_max`, evenly spaced in mel: float64 (n_mels + 2,), in Hz.

    Band i reaches from edge i to edge i + 2; its centre is the one between.
    """
    limits = hz_to_mel(torch.tensor([config.f_min, config.f_max], dtype=torch.float64))
    return mel_to_hz(torch.linspace(float(limits[0]), float(limits[1]), config.n_mels + 2, dtype=torch.float64))


def mel_filterbank(config: FeatureConfig) -> Tensor:
    """Triangular filters, each of peak height one, evenly spaced in mel between f_min and f_max.

    Returns float64 (n_fft // 2 + 1, n_mels). No area normalisation (librosa: htk=True, norm=None).

    >>> mel_filterbank(FeatureConfig()).shape
    torch.Size([201, 64])
    """
    edges = band_edges(config)
    bins = torch.linspace(0, config.rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0)


class LogMel(nn.Module):
    """Log-mel features of 16 kHz audio: float32 (batch, samples) or (samples,) to (batch, 1, n_mels, frames).

    25 ms periodic Hann window, 10 ms hop, power spectrum, natural log of (mel + log_offset). One second
    of audio in [-1, 1] gives (batch, 1, 64, 101) by default; see `FeatureConfig` for where frames lie.
    The transform runs in float64 where the device has it: beside a loud tone, float32 rounding alone
    moves the quiet bands by up to 4e-3. With `precision` float32 it takes less than half the time, which is for
    training, where sound is varied by far more than that.

    >>> LogMel()(torch.zeros(2, 16000)).shape
    torch.Size([2, 1, 64, 101])
    """

    filterbank: Tensor

    def __init__(self, config: FeatureConfig | None = None, precision: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.config = config or FeatureConfig()
        self.precision = precision
        self.register_buffer("filterbank", mel_filterbank(self.config).float(), persistent=False)

    def forward(self, audio: Tensor, extend: Extend = extend_by_zeros) -> Tensor:
        """Features of `audio`; raises ValueError unless it is (samples,) or (batch, samples).

        `extend` puts the past before a chunk of a stream; centred frames have no past.
        """
        if audio.dim() == 1:
            audio = audio[None]
        if audio.dim() != 2:
            raise ValueError(f"audio is {tuple(audio.shape)}, expected (samples,) or (batch, samples)")
        frames = self.frame(audio.float(), extend)
        precision = torch.float32 if audio.device.type == "mps" else self.precision  # MPS has no float64
        window = torch.hann_window(self.config.n_fft, periodic=True, dtype=precision, device=audio.device)
        spectrum = torch.fft.rfft(frames * window)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag).float()
        # A plain matrix product in float32, whatever autocast does around it.
        with torch.autocast(audio.device.type, enabled=False):
            mel = power @ self.filterbank
        return torch.log(mel + self.config.log_offset).transpose(1, 2).unsqueeze(1)

    def frame(self, audio: Tensor, extend: Extend = extend_by_zeros) -> Tensor:
        """(batch, samples) to overlapping frames (batch, frames, n_fft)."""
        n_fft, hop = self.config.n_fft, self.config.hop
        if self.config.centered:
            padded = nn.functional.pad(audio[:, None], (n_fft // 2, n_fft // 2), mode="reflect")[:, 0]
        else:
            padded = extend(audio, n_fft - hop)
        return padded.unfold(1, n_fft, hop)


def normalize(features: Tensor, stats: Mapping[str, float]) -> Tensor:
    """Shift and scale by the training set's one `mean` and one `std`; same shape."""
    return (features - stats["mean"]) / stats["std"]


def feature_stats(log_mel: LogMel, batches: Iterable[Tensor], world: World | None = None) -> dict[str, float]:
    """The mean and standard deviation over all features of all `batches`, in all processes together.

    A causal front end is shifted by digital silence instead of the mean: then zeros before a recording are silence.
    """
    count, total, squares = 0.0, 0.0, 0.0
    with torch.inference_mode():
        for audio in batches:
            features = log_mel(audio).cpu().double()
            count += features.numel()
            total += float(features.sum())
            squares += float(features.square().sum())
    count, total, squares = (world or World()).sums(count, total, squares)
    mean = total / count
    std = math.sqrt(squares / count - mean**2)
    return {"mean": mean if log_mel.config.centered else math.log(log_mel.config.log_offset), "std": std}
