"""Tools to mix sound in batches: speeds, places, levels, rooms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...config import SAMPLE_RATE
from ...data.mixing import ROOM_TAPS, made_room


def add_into(audio: Tensor, sound: Tensor, starts: Tensor) -> None:
    """Add `sound` (batch, ..., length) into `audio` (batch, samples), in place, each at its start (batch, ...)."""
    index = starts.to(audio.device)[..., None] + torch.arange(sound.shape[-1], device=audio.device)
    audio.scatter_add_(1, index.flatten(1), sound.flatten(1))


def clips_at_speeds(clips: Tensor, speeds: Tensor) -> Tensor:
    """Clips (batch, samples) played at `speeds` (batch,), by linear interpolation, padded to the slowest."""
    n_out = int(clips.shape[1] / float(speeds.min())) if len(speeds) else clips.shape[1]
    return resampled(clips, torch.zeros_like(speeds), speeds, n_out)


def resampled(clips: Tensor, starts: Tensor, speeds: Tensor, n_out: int) -> Tensor:
    """Clips (batch, samples) that begin at `starts` and are played at `speeds`, both (batch,); (batch, n_out).

    Linear interpolation; zero before and after.
    """
    scale = speeds * (2 / (clips.shape[1] - 1))
    first, scale = (values[:, None].to(clips.device) for values in (-1 - starts * scale, scale))
    grid = torch.zeros(len(clips), n_out, 2, device=clips.device)
    torch.addcmul(first, scale, torch.arange(n_out, device=clips.device, dtype=grid.dtype), out=grid[..., 0])
    # A picture one sample high: the fastest interpolation there is, by half.
    return nn.functional.grid_sample(clips[:, None, None], grid[:, None], align_corners=True)[:, 0, 0]


def rms_of(sound: Tensor) -> Tensor:
    """Root mean square over the last dimension, in one pass."""
    rms: Tensor = torch.linalg.vector_norm(sound, dim=-1) / sound.shape[-1] ** 0.5
    return rms


def active_rms(audio: Tensor) -> Tensor:
    """Level of the louder parts of streams (batch, samples): of frames of 20 ms within 30 dB of the loudest."""
    power = rms_of(audio.unfold(1, SAMPLE_RATE // 50, SAMPLE_RATE // 50)).square()
    active = (power > power.amax(1, keepdim=True) * 1e-3).float()
    return ((power * active).sum(1) / active.sum(1).clamp(min=1)).sqrt()


def room_spectra(measured: list[npt.NDArray[np.float32]], n_made: int, n_samples: int) -> Tensor:
    """Spectra of measured and synthetic room responses, to multiply the spectra of streams with."""
    rng = np.random.default_rng(0)
    rooms = [np.pad(room[:ROOM_TAPS], (0, max(0, ROOM_TAPS - len(room)))) for room in measured]
    rooms += [made_room(rng) for _ in range(n_made)]
    spectra: Tensor = torch.fft.rfft(torch.from_numpy(np.stack(rooms)), fast_length(n_samples))
    return spectra


def heard_in(audio: Tensor, rooms: Tensor) -> Tensor:
    """Rows (batch, samples) as heard in rooms, whose spectra (batch, bins) are from `room_spectra`."""
    n_fft = 2 * (rooms.shape[-1] - 1)
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(audio, n_fft) * rooms, n_fft)[:, : audio.shape[1]]
    return wet


def fast_length(n_samples: int) -> int:
    """A length that is fast to transform, for a stream and a room response after it: a power of two or three of one."""
    n_needed = n_samples + ROOM_TAPS
    power = int(2 ** np.ceil(np.log2(n_needed)))
    return power * 3 // 4 if power * 3 // 4 >= n_needed else power


def from_db(level_db: Tensor) -> Tensor:
    """Decibels to a factor of amplitudes."""
    return 10 ** (level_db / 20)
