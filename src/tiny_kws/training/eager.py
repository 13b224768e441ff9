"""The plain PyTorch way of classifying, as contender of the artefact in benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..config import LABELS
from ..evaluation.speed import EAGER, Contender, sliding
from .checkpoint import DS_CNN, Checkpoint, ClipNetwork, build_model


def eager_contender() -> Contender:
    """Front end and DS-CNN of the reference, eager on one thread: clips whole, streams by a sliding window.

    Its weights are random, which costs the same.
    """
    torch.set_num_threads(1)
    model = build_model(DS_CNN, {}, "the reference")
    network = ClipNetwork(Checkpoint(model, LABELS, {"mean": -7.0, "std": 4.0}))

    def clip(audio: npt.NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(audio)).numpy()

    return Contender(EAGER, clip, sliding(clip))
