"""Augmentation of whole batches of waveforms and features; every draw comes from the generator passed in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import SAMPLE_RATE, FeatureConfig
from ..training_config import SoundRecipe, TrainConfig
from .features import band_edges, hz_to_mel


def random_shift(audio: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Shift each row of (batch, samples) by -max_shift to max_shift samples, filling with zeros."""
    if max_shift == 0:
        return audio
    n_samples = audio.shape[1]
    starts = _randint(2 * max_shift + 1, len(audio), generator, audio.device)
    padded = torch.nn.functional.pad(audio, (max_shift, max_shift))
    rows = torch.arange(len(audio), device=audio.device)
    return padded.unfold(1, n_samples, 1)[rows, starts]


def add_noise(
    audio: Tensor,
    noise: Tensor,
    probability: float,
    max_volume: float,
    generator: torch.Generator,
) -> Tensor:
    """Add to each row, with `probability`, a random stretch of `noise` (samples,) times a volume from U(0, max_volume).

    `noise` holds at least as many samples as a row, float32 in [-1, 1]. The sum is clipped to [-1, 1].
    """
    starts = _randint(len(noise) - audio.shape[1] + 1, len(audio), generator, audio.device)
    volumes, chances = torch.rand(2, len(audio), 1, generator=generator).to(audio.device)
    volume = volumes * max_volume * (chances < probability)
    return torch.clamp(audio + volume * noise.unfold(0, audio.shape[1], 1)[starts], -1.0, 1.0)


def augment(audio: Tensor, noise: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """The reference recipe on (batch, samples): shift, then background noise."""
    shifted = random_shift(audio, round(config.shift_ms * SAMPLE_RATE / 1000), generator)
    return add_noise(shifted, noise, config.noise_probability, config.noise_volume, generator)


def mask_bands(features: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Set a stretch of mel bands of half of the rows of (batch, 1, mels, frames) to zero; widths from 1 to `most`.

    The frequency masks of SpecAugment (Park et al. 2019, arXiv:1904.08779). With `most` 0 nothing is masked.
    """
    return _mask(features, 2, most, generator)


def mask_frames(features: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """The time masks of SpecAugment: as `mask_bands`, but a stretch of frames."""
    return _mask(features, 3, most, generator)


def augment_features(features: Tensor, recipe: SoundRecipe, generator: torch.Generator) -> Tensor:
    """Normalised features (batch, 1, mels, frames), changed as by another speaker and microphone, and partly masked."""
    features = warp_bands(features, recipe.warp, generator)
    features = colour_bands(features, recipe.colour, generator)
    features = limit_bands(features, recipe.limited_share, generator)
    features = mask_bands(features, recipe.masked_bands, generator)
    return mask_frames(features, recipe.masked_frames, generator)


def warp_bands(features: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Shift (batch, 1, mels, frames) up or down in frequency, by a factor from 1 - `most` to 1 + `most`.

    This imitates a vocal tract of another length (Jaitly and Hinton 2013). Values between mel bands are interpolated;
    beyond the last band, the last band is repeated. With `most` 0 nothing is shifted.
    """
    if most == 0:
        return features
    n_mels = features.shape[2]
    edges = band_edges(FeatureConfig(n_mels=n_mels))
    first, second = hz_to_mel(edges[:2])
    factors = 1 + most * (2 * torch.rand(len(features), 1, generator=generator) - 1)
    heard = (hz_to_mel(edges[1:-1] * factors) - first) / (second - first) - 1
    heard = heard.clamp(0, n_mels - 1).float().to(features.device)
    weights = (1 - (heard[:, :, None] - torch.arange(n_mels, device=features.device)).abs_()).clamp_(min=0)
    warped: Tensor = weights[:, None] @ features
    return warped


def colour_bands(features: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """Raise and lower mel bands of normalised (batch, 1, mels, frames) along a drawn curve, as another microphone does.

    This changes half of the rows. The curve is straight between six points of standard deviation `spread` (Nam et al.
    2022, arXiv:2110.03282). Silence, at 0, stays silence. With `spread` 0 nothing is done.
    """
    if spread == 0:
        return features
    points = spread * torch.randn(len(features), 1, 6, generator=generator)
    points *= torch.rand(len(features), 1, 1, generator=generator) < 0.5
    curves = nn.functional.interpolate(points, features.shape[2], mode="linear", align_corners=True)[:, :, :, None]
    return features + curves.to(features.device) * features.clamp(0.0, 1.0)


def limit_bands(features: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Weaken high or low mel bands, or both, in rows of (batch, 1, mels, frames), as a narrow-band line does.

    High bands are weakened with probability `chance`, low ones with half of it. From a drawn band on, each band is
    weaker than the one before, by a drawn slope down to a drawn depth. Values at 0 or below, which are silence, stay.
    With `chance` 0 nothing is done.
    """
    if chance == 0:
        return features
    bands = torch.arange(features.shape[2])
    high_from, steep, deep, kind, low_from = torch.rand(5, len(features), 1, generator=generator)
    high = (bands - 16 - 48 * high_from).clamp(min=0) * (0.01 + 0.12 * steep.square())
    low = (16 * low_from - bands).clamp(min=0) * (0.02 + 0.2 * steep.square())
    most = 0.4 + 2 * deep
    high = high.minimum(most) * (kind < chance)
    low = low.minimum(most) * ((kind > 0.75 * chance) & (kind < 1.25 * chance))
    lost = (high + low).to(features.device)[:, None, :, None]
    return torch.maximum(features - lost, features.clamp(max=0))


def _mask(features: Tensor, dim: int, most: int, generator: torch.Generator) -> Tensor:
    if most == 0:
        return features
    size = features.shape[dim]
    widths = 1 + torch.randint(most, (len(features),), generator=generator)
    starts = torch.randint(size, (len(features),), generator=generator)
    widths *= torch.rand(len(features), generator=generator) < 0.5
    places = torch.arange(size)
    masked = ((places >= starts[:, None]) & (places < (starts + widths)[:, None])).to(features.device)
    return features.masked_fill(masked[:, None, :, None] if dim == 2 else masked[:, None, None], 0.0)


def _randint(high: int, count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device."""
    return torch.randint(high, (count,), generator=generator).to(device)
