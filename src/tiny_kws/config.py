"""Every default of the project, once. Plain frozen dataclasses, carried in checkpoint and artefact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
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
    """The log-mel front end. Lengths are in samples at `rate` Hz, frequencies in Hz.

    If `centered`, frames lie around their time, with reflected edges (clips only). Otherwise a frame ends at its time,
    and the sound before the start counts as digital silence (clips and streams).
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

    Thresholds are probabilities. The defaults were chosen by `benchmarks/detector_search.py`; an artefact may have its
    own in its metadata.
    """

    hop_ms: float = 100.0
    """From one answer to the next if a clip artefact is slid over the sound; a stream artefact has its own hop."""
    smoothing_ms: float = 120.0
    """Probabilities are averaged over this much of the past."""
    threshold: float = 0.8
    """The smoothed probability that a label must reach, unless it has its own in `thresholds`."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    min_duration_ms: float = 40.0
    """A label must stay at its threshold for this long."""
    release: float = 0.5
    """Hysteresis: a label is not reported again until it has fallen below this share of its threshold."""
    refractory_ms: float = 700.0
    """No other event follows an event for this long. The same word takes longer: its average must fall first."""
    rise_ms: float = 0.0
    """The longest time from when a label was last below its release level to its event; 0 for no limit."""
    words: Sequence[str] = ()
    """The only words that can be events; empty for all of them."""
    pause_ms: float = 0.0
    """The pause that must follow an event, which is reported after it (`listening.pause`); 0 asks for none."""


def settings_of(config: DetectorConfig) -> dict[str, Any]:
    """What files hold of it: no pause where none is asked for, so that what knows no pauses can read them."""
    return {name: value for name, value in asdict(config).items() if name != "pause_ms" or value}


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
