"""Training in several processes, on one machine or more: who is who, whose rows are whose, sums over all of them.

Every process draws for whole batches and works on its share of their rows, so that any number of them trains as one
does. `torchrun` starts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import KwsError, UsageError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Share:
    """The rows of a batch of `total` that are a process's own: every `step`-th from `first` on; by default all.

    Every so-manieth and not a stretch, since what stands together in a batch is of a kind.

    >>> Share(7, first=1, step=3).of(torch.arange(7))
    tensor([1, 4])
    """

    total: int
    first: int = 0
    step: int = 1

    def __len__(self) -> int:  # noqa: D105
        return len(range(self.first, self.total, self.step))

    def of(self, rows: Tensor) -> Tensor:
        """What is its own of something that has a row for each of the batch."""
        assert len(rows) == self.total
        return rows[self.first :: self.step]

    def block(self, start: int, count: int) -> Share:
        """The same rows as a share of the `count` rows from `start` on.

        >>> Share(7, first=1, step=3).block(3, 4).of(torch.arange(3, 7))
        tensor([4])
        """
        return Share(count, (self.first - start) % self.step, self.step)

    def spread(self, own: Tensor) -> Tensor:
        """What is its own, set into a tensor for the whole batch that is zero in the others' rows.

        >>> Share(7, first=1, step=3).spread(torch.tensor([8, 9]))
        tensor([0, 8, 0, 0, 9, 0, 0])
        """
        whole = own.new_zeros(self.total, *own.shape[1:])
        whole[self.first :: self.step] = own
        return whole

    def positions(self, rows: Tensor) -> Tensor:
        """Where rows of the batch stand among its own; -1 for the others' rows.

        >>> Share(7, first=1, step=3).positions(torch.tensor([4, 5, 1]))
        tensor([ 1, -1,  0])
        """
        places = torch.full((self.total,), -1)
        places[self.first :: self.step] = torch.arange(len(self))
        return places[rows]


@dataclass(frozen=True)
class Ranks:
    """This process's number among `count` that train together; by default it trains alone."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that reports, writes files and holds the lock."""
        return self.rank == 0

    def share(self, total: int) -> Share:
        """This process's share of a batch of `total` rows."""
        return Share(total, self.rank, self.count)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, which are of one shape, on the device of the training."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def sum_numbers(self, *numbers: float) -> list[float]:
        """The sums of all processes' numbers, in double precision."""
        if self.count == 1:
            return list(numbers)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        summed: list[float] = self.sum(torch.tensor(numbers, dtype=torch.float64, device=device)).tolist()
        return summed

    def from_first(self, value: Value) -> Value:
        """The first process's `value`, whatever is given by the others."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def check_same(self, **values: Any) -> None:
        """Raise UsageError, in all processes, where they do not have the same `values`; it names the first."""
        every: list[Any] = [values] * self.count
        if self.count > 1:
            dist.all_gather_object(every, values)
        for name in values:
            odd = [rank for rank, others in enumerate(every) if others[name] != every[0][name]]
            if odd:
                raise UsageError(
                    f"the processes 0 and {odd[0]} were started with different {name}, expected the same; "
                    "give every machine the same command and the same data"
                )


@contextmanager
def together(device: str | None) -> Iterator[tuple[Ranks, str | None]]:
    """Join the processes that torchrun started with this one, if it did; who this one is, and on which device.

    On CUDA a process takes the GPU of its local number, and they talk by NCCL; otherwise by Gloo. Processes that are
    joined already stay joined, on the device that is asked for. Raises UsageError where there are fewer GPUs, and
    KwsError when another process ends before its time.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
        return
    if started_together() == 1:
        yield Ranks(), device
        return
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
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise KwsError(
                "another process of this training has ended; see what it says, and start all again"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def started_together() -> int:
    """How many processes torchrun started, this one among them; 1 where it did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one of those started together that reports."""
    return started_together() == 1 or os.environ.get("RANK", "0") == "0"


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors; what flows back is the sum of what flows back in all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class SharedBatchNorm(_BatchNorm):
    """Batch norm by the mean and variance of all processes' rows together; its state is that of the usual one.

    PyTorch's own, `SyncBatchNorm`, is for GPUs alone. A process may have no rows at all.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        over = [0, *range(2, x.ndim)]
        wide = x.float()
        own = [wide.sum(over), wide.square().sum(over), wide.new_full((1,), wide.numel() / self.num_features)]
        every: Tensor = _Sum.apply(torch.cat(own).double())  # type: ignore[no-untyped-call]
        total, squares, count = every[: self.num_features], every[self.num_features : -1], every[-1]
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0.0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            unbiased = variance * count / (count - 1.0).clamp(min=1.0)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        shape = [1, -1] + [1] * (x.ndim - 2)
        return torch.addcmul(shift.float().view(shape), wide, scale.float().view(shape)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Any number of dimensions will do."""


def share_batch_norm(module: nn.Module) -> None:
    """Put a SharedBatchNorm, of the same state, in the place of every batch norm within `module`."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared)
        else:
            share_batch_norm(child)
