"""Training in several processes, on one machine or more, as `torchrun` starts them.

Each process draws and works on its own part of every batch, and DistributedDataParallel takes the mean of the
gradients. This module says which process is which, and exchanges the rest: numbers to report, and that all have the
same settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import KwsError, UsageError
from ..training_config import TrainConfig

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process's number, `rank`, among the `size` that train together; by default it trains alone."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reports, writes files and holds the lock."""
        return self.rank == 0

    def own_part(self, order: Tensor) -> Tensor:
        """This process's part of an epoch's items, as long as the others'; the first items come twice to fill it up.

        >>> World(1, 3).own_part(torch.arange(7))
        tensor([1, 4, 0])
        """
        filled = torch.cat([order, order[: -len(order) % self.size]])
        return filled[self.rank :: self.size]

    def own_config(self, config: TrainConfig) -> TrainConfig:
        """The settings of this process's part of each batch, and of its own search for hard negatives.

        Raises UsageError if batches cannot be divided evenly.
        """
        if config.batch_size % self.size:
            raise UsageError(
                f"found batches of {config.batch_size} for {self.size} processes, expected a multiple of {self.size}; "
                "add --batch-size, or start another number of processes"
            )
        streams = config.streams
        if streams is not None:
            candidates, kept = (-(-count // self.size) for count in (streams.candidates, streams.hard_negatives))
            streams = replace(streams, candidates=candidates, hard_negatives=kept)
        return replace(config, batch_size=config.batch_size // self.size, streams=streams)

    def sums(self, *numbers: float) -> list[float]:
        """The sum over all processes of each of the numbers, in double precision."""
        if self.size == 1:
            return list(numbers)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        values = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(values)
        summed: list[float] = values.tolist()
        return summed

    def means(self, *numbers: float, weight: float = 1.0) -> list[float]:
        """The mean of each number over all processes, in which this process's numbers have a weight of `weight`."""
        if self.size == 1:
            return list(numbers)
        *totals, whole = self.sums(*(number * weight for number in numbers), weight)
        return [total / whole for total in totals]

    def from_first(self, value: Value) -> Value:
        """The first process's `value`, whatever the others pass."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def copy_from_first(self, module: nn.Module) -> None:
        """Give `module` the first process's weights and batch norm statistics, in all processes."""
        if self.size > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)

    def check_same(self, **values: Any) -> None:
        """Raise UsageError, in all processes, if their `values` differ; it names the first that does."""
        every: list[Any] = [values] * self.size
        if self.size > 1:
            dist.all_gather_object(every, values)
        for name in values:
            odd = [rank for rank, others in enumerate(every) if others[name] != every[0][name]]
            if odd:
                raise UsageError(
                    f"the processes 0 and {odd[0]} were started with different {name}, expected the same; "
                    "give every machine the same command and the same data"
                )


@contextmanager
def join_world(device: str | None) -> Iterator[tuple[World, str | None]]:
    """Join the processes that torchrun started with this one, if any; returns this one's place and device.

    On CUDA a process takes the GPU of its local number, and they talk by NCCL; otherwise by Gloo. Processes that are
    joined already stay joined, on the device that is asked for. Raises UsageError where there are fewer GPUs, and
    KwsError when another process ends before its time.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size()), device
        return
    if n_started() == 1:
        yield World(), device
        return
    device = _own_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size()), device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise KwsError(
                "another process of this training has ended; read its messages, and start all of them again"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def _own_device(device: str | None) -> str:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        local, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= n_gpus:
            raise UsageError(f"found {n_gpus} GPUs for {local + 1} processes or more; start no more than one for each")
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    elif device != "cpu":
        raise UsageError(f"several processes train on cpu or cuda, not on {device!r}; leave --device out")
    return device


def n_started() -> int:
    """How many processes torchrun started, including this one; 1 if it did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def is_first_process() -> bool:
    """Whether this process is the one that reports."""
    return n_started() == 1 or os.environ.get("RANK", "0") == "0"
