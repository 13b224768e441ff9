"""Times real time at which recordings are searched: `detect_speed.py [RECORDING] [--turns N] [--models NAME...]`.

Each turn is a `tiny-kws detect` of its own on one thread, from its start to its end, so that loading counts; the
models take turns. CPU seconds count, so that other work on the machine does not; wall seconds are given beside them.
Without a recording one is made: ten minutes of the words under examples/ in quiet noise.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.evaluation.clips import processor_name

EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = ("listener", "base", "small", "micro", "ds-cnn", "ds-cnn.int8")


def words_in_noise(n_samples: int) -> Samples:
    """The ten examples over and over, each followed by half a second to three of pause, in quiet noise."""
    rng = np.random.default_rng(0)
    words = [read_mono(next(EXAMPLES.glob(f"{word}.*"))) for word in KEYWORDS]
    audio = rng.normal(0, 1e-3, n_samples).astype(np.float32)
    position = SAMPLE_RATE
    while position < n_samples - 3 * SAMPLE_RATE:
        word = words[rng.integers(len(words))]
        audio[position : position + len(word)] += word
        position += len(word) + int(rng.uniform(0.5, 3) * SAMPLE_RATE)
    return audio.clip(-1, 1)


def seconds_taken(model: str, recording: Path) -> tuple[float, float, int]:
    """CPU and wall seconds of one search, and how many events it found."""
    command = [sys.executable, "-m", "tiny_kws", "detect", str(recording), "--model", model, "--json"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)  # noqa: S603
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, wall_s, done.stdout.count(b"\n")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, nargs="?")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording = arguments.recording
        if recording is None:
            recording = Path(folder, "words.wav")
            sf.write(recording, words_in_noise(600 * SAMPLE_RATE), SAMPLE_RATE)
        seconds = sf.info(recording).duration
        taken: dict[str, list[tuple[float, float, int]]] = {model: [] for model in arguments.models}
        for _ in range(arguments.turns):
            for model, turns in taken.items():
                turns.append(seconds_taken(model, recording))
    print("| model | CPU s | times real time | by the wall clock | events |\n|---|---|---|---|---|")
    for model, turns in taken.items():
        cpu_s, wall_s = (statistics.median(turn[i] for turn in turns) for i in range(2))
        print(f"| {model} | {cpu_s:.2f} | {seconds / cpu_s:.0f} | {seconds / wall_s:.0f} | {turns[0][2]} |")
    print(f"\n{seconds:.0f} s of sound, one thread, {processor_name()}, medians of {arguments.turns} turns.")


if __name__ == "__main__":
    main()
