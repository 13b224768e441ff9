"""What a `Detector` costs on top of its network, in chunks of 40 ms: `detector_cost.py [--model NAME] [--turns N]`.

The network alone (`Stream`) and the detector take turns over the same sound, on one thread; medians over the turns, in
milliseconds of CPU a second of sound. The sound is speech of the examples, so that words come near their thresholds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiny_kws import Detector, StreamModel
from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.evaluation.clips import processor_name

EXAMPLES = Path(__file__).parents[1] / "examples"
CHUNK = SAMPLE_RATE * 40 // 1000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--turns", type=int, default=40)
    arguments = parser.parse_args()
    model = StreamModel(arguments.model)
    stream, detector = model.stream(), Detector(model)
    audio = np.concatenate([read_mono(path) for path in sorted(EXAMPLES.iterdir())])
    chunks = [audio[i : i + CHUNK] for i in range(0, len(audio) - CHUNK, CHUNK)]
    alone, together = [], []
    for _ in range(arguments.turns):
        alone.append(cpu_ms(stream.process, chunks))
        together.append(cpu_ms(detector.process, chunks))
    seconds = len(chunks) * CHUNK / SAMPLE_RATE
    network, both = statistics.median(alone) / seconds, statistics.median(together) / seconds
    extra = statistics.median(b - a for a, b in zip(alone, together, strict=True)) / seconds
    print(
        f"network {network:.3f}, detector {both:.3f}, on top {extra:.3f} ms of CPU a second of sound, "
        f"{100 * extra / network:.1f} % of the network"
    )
    print(f"{arguments.turns} turns of {seconds:.0f} s in chunks of 40 ms, one thread, {processor_name()}")


def cpu_ms(process: Callable[[npt.ArrayLike], object], chunks: list[Samples]) -> float:
    """Milliseconds of CPU for all chunks."""
    started = time.process_time()
    for chunk in chunks:
        process(chunk)
    return 1e3 * (time.process_time() - started)


if __name__ == "__main__":
    main()
