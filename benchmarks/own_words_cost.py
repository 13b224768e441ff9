"""CPU per second of sound of a model of own words against `listener`: `own_words_cost.py MODEL... [--turns N]`.

The models take turns over the same sound, on one thread, in one process; medians over the turns, in milliseconds, and
each one's ratio to `listener`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from tiny_kws import StreamModel
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.evaluation.clips import processor_name

EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--turns", type=int, default=40)
    asked = parser.parse_args()
    audio = np.concatenate([read_mono(path) for path in sorted(EXAMPLES.iterdir())])
    streams = {name: StreamModel(name).stream() for name in ("listener", *asked.models)}
    spent: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(asked.turns):
        for name, stream in streams.items():
            began = time.process_time()
            stream.process(audio)
            spent[name].append(1000 * (time.process_time() - began) / (len(audio) / SAMPLE_RATE))
    reference = statistics.median(spent["listener"])
    print(processor_name())
    for name, times in spent.items():
        median = statistics.median(times)
        print(f"{name}: {median:.2f} ms a second, {median / reference:.2f} times listener")


if __name__ == "__main__":
    main()
