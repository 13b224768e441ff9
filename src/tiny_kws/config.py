"""Every default of the project, once. Plain frozen dataclasses, carried in checkpoint and artefact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from .errors import ModelError

SAMPLE_RATE = 16_000
"""Rate of all audio inside tiny-kws, in Hz."""
CLIP_SAMPLES = SAMPLE_RATE
"""Samples of the default window, the length of sound that a clip answer rests on: exactly one second."""
WINDOW_LIMITS = (SAMPLE_RATE // 2, 2 * SAMPLE_RATE)
"""The shortest and the longest window, in samples."""


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
class DetectorConfig:
    """How probabilities over time become events; see `tiny_kws.listening.decoder.Decoder`.

    Thresholds are probabilities. The defaults were chosen by `benchmarks/detector_search.py`; an artefact may carry its
    own in its metadata.
    """

    hop_ms: float = 100.0
    """From one answer to the next where a clip artefact slides over the sound; a stream artefact has its own hop."""
    smoothing_ms: float = 120.0
    """Probabilities are averaged over so much of the past."""
    threshold: float = 0.8
    """What the smoothed probability of a label must reach, unless the label has its own in `thresholds`."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    min_duration_ms: float = 40.0
    """A label must stay at its threshold so long."""
    release: float = 0.5
    """Hysteresis: a label that was reported is not again before it fell below this part of its threshold."""
    refractory_ms: float = 700.0
    """After an event no other is reported for so long. The same word takes longer, as its average has to fall first."""
    rise_ms: float = 0.0
    """From when a label was last below its release, no more than so long may pass to its event; 0 for any time."""
    words: Sequence[str] = ()
    """The only words that can be events; none stands for all of them."""


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
