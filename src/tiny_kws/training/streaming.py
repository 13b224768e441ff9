"""Makes a network stream: every layer that looks back asks for its past through one function.

Over a whole recording that function puts zeros before the start (`extend_by_zeros`); over a chunk of a stream it puts
what came before (`Memory.extend`). The network is written once; how far each layer looks back stands where it asks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Extend = Callable[[Tensor, int], Tensor]
"""(values (..., time), look_back) to values (..., look_back + time)."""


def extend_by_zeros(x: Tensor, look_back: int) -> Tensor:
    """Zeros before the start of a recording: in audio and in features of a causal front end they are silence."""
    return torch.nn.functional.pad(x, (look_back, 0))


class Memory:
    """The past of every layer of a streaming network; empty at first, which stands for zeros.

    Call `begin()` before each chunk, then pass `extend` to the network; its layers ask in the same order every time.
    """

    def __init__(self) -> None:
        self.past: list[Tensor] = []
        self._asked = 0

    def begin(self) -> None:
        """Begin a new chunk."""
        self._asked = 0

    def reset(self) -> None:
        """Forget the past: the next chunk is the first."""
        self.past.clear()
        self._asked = 0

    def extend(self, x: Tensor, look_back: int) -> Tensor:
        """Put this layer's past before the chunk's values `x` (..., time), and keep the end for the next chunk."""
        if self._asked == len(self.past):
            self.past.append(x.new_zeros(*x.shape[:-1], look_back))
        joined = torch.cat([self.past[self._asked], x], -1)
        self.past[self._asked] = joined[..., joined.shape[-1] - look_back :]
        self._asked += 1
        return joined
