"""Write a checkpoint of the mean of several trainings' weights: `mean_of_weights.py A.pt B.pt [...] OUT.pt`.

Where a training began from another's weights, the mean of before and after is often better than both (Wortsman et al.
2022, arXiv:2109.01903). Network, front end, labels and history are those of the last checkpoint named; the accuracy on
validation clips is not known until it is measured (`tiny-kws evaluate`).
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from tiny_kws.errors import KwsError, UsageError
from tiny_kws.training.checkpoint import Checkpoint, load_checkpoint, save_torch
from tiny_kws.training.networks import shape_of


def main() -> None:
    """Read, average, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT", help="Two or more.")
    parser.add_argument("out", type=Path, metavar="OUT")
    given = parser.parse_args()
    try:
        mean = mean_of([load_checkpoint(path) for path in given.checkpoints])
    except KwsError as error:
        parser.error(str(error))
    save_torch(given.out, mean.to_dict())
    print(given.out)


def mean_of(checkpoints: list[Checkpoint]) -> Checkpoint:
    """The mean of networks of one shape and one front end; raises UsageError if there are not several of these."""
    last = checkpoints[-1]
    if len(checkpoints) < 2:
        raise UsageError(f"found {len(checkpoints)} checkpoint, expected at least two to take the mean of")
    for one in checkpoints:
        if _kind(one) != _kind(last):
            raise UsageError(
                f"the checkpoints {one.sha256[:12]} and {last.sha256[:12]} are of different networks or front ends, "
                "expected the same"
            )
    states = [one.model.state_dict() for one in checkpoints]
    state = {
        name: torch.stack([state[name] for state in states]).mean(0) if value.is_floating_point() else value
        for name, value in states[-1].items()
    }
    last.model.load_state_dict(state)
    data = {**last.data, "mean_of_sha256": [one.sha256 for one in checkpoints]}
    return replace(last, val_acc=math.nan, data=data)


def _kind(checkpoint: Checkpoint) -> tuple[object, ...]:
    return shape_of(checkpoint.model), checkpoint.feature_config, checkpoint.labels, checkpoint.stats


if __name__ == "__main__":
    main()
