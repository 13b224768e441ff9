"""The device that a training computes on: its precision and its memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import UsageError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def find_device(name: str | None = None) -> torch.device:
    """The device `name`, or the best one: CUDA, then MPS, then CPU. Raises UsageError if there is no such device."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"found no device {name!r}, expected cpu, cuda or mps; leave it out to use the best"
        ) from error
    return device


def wants_bfloat16(precision: str, device: torch.device, pays: bool = True) -> bool:
    """Whether to train in bfloat16: as asked, or, for `auto`, if it pays and the device multiplies in it."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"found the precision {precision!r}, expected auto, float32 or bfloat16")
    if precision != "auto":
        return precision == "bfloat16"
    if not pays:
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(amx())


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library can be told to (glibc).

    Otherwise every large tensor of every step is fetched from the system anew, page by page: a fifth of a step.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's own generators, from which dropout draws on `device`."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set them to a saved state, if it is from the same kind of device."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
