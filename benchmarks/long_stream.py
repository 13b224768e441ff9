"""A day of listening at full speed: `long_stream.py [RECORDING] [--hours H] [--model NAME] [--threshold T]`.

One recording is repeated without a pause, in chunks of random length (1 sample to 2 seconds). Told at the end: resident
memory after the first minute of sound and at the end; and whether every repetition gave the same events, at their
places and with their confidence, as the recording heard twice in one piece (the second time, so that the same lies
before it), none missed or doubled at the border of a chunk. Exit status 1 if an event differs or memory grew by more
than 5 MB. Without a recording one of ten minutes is made, as in `detect_speed.py`; a multiple of the hop is used.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from detect_speed import words_in_noise

from tiny_kws import Detection, Detector
from tiny_kws.artefact.runtime import open_model
from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.evaluation.clips import processor_name
from tiny_kws.listening.detector import config_of

MAX_GROWTH_MB = 5.0
MAX_CHUNK = 2 * SAMPLE_RATE
WARM_UP = 60 * SAMPLE_RATE

Places = list[tuple[str, float, float]]


def resident_mb() -> float:
    """Resident memory of this process; Linux."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024 / 1e6


def random_chunks(audio: Samples, n_samples: int) -> Iterator[Samples]:
    """`audio` over and over, `n_samples` in all; chunks of some ten samples are as likely as of some thousand."""
    rng = np.random.default_rng(0)
    position = 0
    while position < n_samples:
        size = min(int(np.exp(rng.uniform(0, np.log(MAX_CHUNK)))), n_samples - position)
        yield np.take(audio, np.arange(position, position + size), mode="wrap")
        position += size


def by_repetition(events: list[Detection], length_s: float) -> dict[int, Places]:
    """Label, place and confidence of events, by the repetition that they were decided in."""
    found: dict[int, Places] = {}
    for event in events:
        turn = int((event.end_s - 1e-4) / length_s)
        found.setdefault(turn, []).append((event.label, round(event.end_s - turn * length_s, 4), event.confidence))
    return found


def n_differences(found: Places, expected: Places) -> int:
    """Events of one that are not in the other, one that is there twice counted too."""
    missed, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    return missed.total() + extra.total()


def main() -> None:
    """Run the day and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--model")
    parser.add_argument("--threshold", type=float, default=0.5)
    arguments = parser.parse_args()
    model = open_model(arguments.model)
    detector = Detector(model, replace(config_of(model), threshold=arguments.threshold, thresholds={}))
    audio = read_mono(arguments.recording) if arguments.recording else words_in_noise(600 * SAMPLE_RATE)
    hop = round(detector.hop_s * SAMPLE_RATE)
    audio = audio[: len(audio) // hop * hop]
    length_s = len(audio) / SAMPLE_RATE
    expected = by_repetition(detector.process(np.tile(audio, 2)), length_s)
    detector.reset()

    n_turns = max(2, round(arguments.hours * 3600 / length_s))
    found: dict[int, Places] = {}
    n_heard = n_chunks = n_events = n_different = done = 0
    first_mb = 0.0
    started = time.process_time(), time.perf_counter()
    for chunk in random_chunks(audio, n_turns * len(audio)):
        for turn, places in by_repetition(detector.process(chunk), length_s).items():
            found.setdefault(turn, []).extend(places)
        n_heard, n_chunks = n_heard + len(chunk), n_chunks + 1
        if not first_mb and n_heard >= WARM_UP:
            first_mb = resident_mb()
        while done < n_heard // len(audio):  # a whole repetition: compare, and keep nothing of it
            places = found.pop(done, [])
            n_events += len(places)
            n_different += n_differences(places, expected.get(min(done, 1), []))
            done += 1
    cpu_s, wall_s = time.process_time() - started[0], time.perf_counter() - started[1]
    last_mb = resident_mb()
    hours = n_heard / SAMPLE_RATE / 3600
    print(
        f"{model.metadata.name} ({model.metadata.kind}): {hours:.2f} hours in {n_chunks} chunks, {n_turns} repetitions "
        f"of {length_s:.2f} s, {n_events} events ({len(expected.get(1, []))} a repetition), {n_different} of them "
        f"missed, doubled or moved\n"
        f"resident memory: {first_mb:.1f} MB after the first minute of sound, {last_mb:.1f} MB at the end\n"
        f"{cpu_s:.0f} CPU seconds, {3600 * hours / cpu_s:.0f} times real time ({3600 * hours / wall_s:.0f} by the wall "
        f"clock), {processor_name()}"
    )
    sys.exit(int(n_different > 0 or n_events == 0 or last_mb > first_mb + MAX_GROWTH_MB))


if __name__ == "__main__":
    main()
