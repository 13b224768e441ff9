"""Every default of the project, once. Plain frozen dataclasses, carried in checkpoint and artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from .errors import ModelError

SAMPLE_RATE = 16_000
"""Rate of all audio inside tiny-kws, in Hz."""

CLIP_SAMPLES = SAMPLE_RATE
"""Samples of one clip: exactly one second."""

SILENCE = "silence"
UNKNOWN = "unknown"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
LABELS = (SILENCE, UNKNOWN, *KEYWORDS)
"""The twelve classes of the Speech Commands task (Warden 2018), in the order of the logits."""

OTHER_WORDS = (
    "backward",
    "bed",
    "bird",
    "cat",
    "dog",
    "eight",
    "five",
    "follow",
    "forward",
    "four",
    "happy",
    "house",
    "learn",
    "marvin",
    "nine",
    "one",
    "seven",
    "sheila",
    "six",
    "three",
    "tree",
    "two",
    "visual",
    "wow",
    "zero",
)
"""The 25 words of Speech Commands v0.02 that make up the class `unknown`."""


@dataclass(frozen=True)
class FeatureConfig:
    """The log-mel front end. Lengths in samples at `rate` Hz, frequencies in Hz.

    `centered` frames lie around their time, with reflected edges (clips only); otherwise a frame
    ends at its time and the sound before the start counts as digital silence (clips and streams).
    """

    rate: int = SAMPLE_RATE
    n_fft: int = 400
    hop: int = 160
    n_mels: int = 64
    f_min: float = 20.0
    f_max: float = 7600.0
    log_offset: float = 1e-6
    centered: bool = True

    def n_frames(self, n_samples: int) -> int:
        """Frames of a recording of `n_samples`.

        >>> FeatureConfig().n_frames(16000)
        101
        >>> FeatureConfig(centered=False).n_frames(16000)
        100
        """
        return n_samples // self.hop + (1 if self.centered else 0)


@dataclass(frozen=True)
class DSCNNConfig:
    """The depthwise-separable CNN of Zhang et al. 2017 (arXiv:1711.07128) in the reference's size."""

    n_classes: int = len(LABELS)
    width: int = 160
    n_blocks: int = 4
    dropout: float = 0.2


@dataclass(frozen=True)
class CausalCNNConfig:
    """The streaming network: a convolution over frequency and time, then depthwise-separable ones over time.

    After Choi et al. 2019 (TC-ResNet, arXiv:1904.03814) and Zhang et al. 2017, made causal. `kernel` counts frames of
    20 ms. Width 32 with 4 blocks and 8 channels has about 10,000 parameters, width 184 with 7 blocks 300,000.
    """

    n_classes: int = len(LABELS)
    n_mels: int = FeatureConfig.n_mels
    stem_channels: int = 16
    width: int = 112
    n_blocks: int = 6
    kernel: int = 9
    dropout: float = 0.1


@dataclass(frozen=True)
class TrainConfig:
    """The reference recipe: AdamW, cosine to zero, shift and background noise."""

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    shift_ms: float = 100.0
    noise_probability: float = 0.8
    noise_volume: float = 0.1
    seed: int = 0
    precision: str = "auto"
    """`float32`, `bfloat16` (autocast) or `auto`: bfloat16 where the processor multiplies in it."""


@dataclass(frozen=True)
class PrepareConfig:
    """How the twelve-class task is drawn from the recordings; shares are of a split's keyword clips."""

    unknown_share: float = 0.1
    silence_share: float = 0.1
    seed: int = 0


Config = TypeVar("Config")


def from_mapping(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Build the dataclass `kind` from `values` found in `where` (named in the error); missing ones take the default."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ModelError(
            f"{where}: found the settings {', '.join(unknown)}, expected only {', '.join(sorted(known))}; "
            "it was made by other code or a newer tiny-kws"
        )
    return kind(**values)
