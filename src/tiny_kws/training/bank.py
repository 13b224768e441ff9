"""Training clips in a memory-mapped array, in shards, or in a tensor on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.shards import ShardBank

Bank = npt.NDArray[np.int16] | ShardBank | Tensor


def on_device(bank: npt.NDArray[np.int16] | ShardBank, rows: npt.NDArray[np.intp] | None, device: torch.device) -> Bank:
    """Load the `rows` (default: all) of a bank onto a GPU; on a CPU and for shards, rows are read when they are needed.

    Shards may be larger than any memory.
    """
    if device.type == "cpu" or isinstance(bank, ShardBank):
        return bank
    return torch.from_numpy(np.array(bank if rows is None else bank[rows])).to(device)


def fetch(bank: Bank, rows: npt.NDArray[np.intp], device: torch.device) -> Tensor:
    """The clips at `rows` of an int16 bank as float32 audio in [-1, 1]; the bank may lie on the device already."""
    if isinstance(bank, Tensor):
        pcm = bank[torch.from_numpy(rows).to(bank.device)]
    else:
        pcm = torch.from_numpy(bank[rows]).to(device)
    return pcm.float().div_(32768.0)


def iterate_batches(bank: Bank, rows: npt.NDArray[np.intp], size: int, device: torch.device) -> Iterator[Tensor]:
    """Float32 audio (up to `size`, samples) in [-1, 1] on `device`, in the order of `rows`; bank int16."""
    for start in range(0, len(rows), size):
        yield fetch(bank, rows[start : start + size], device)
