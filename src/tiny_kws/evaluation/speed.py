"""Speed: what an answer costs, for several models that take turns, so that disturbances affect all alike."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artefact.runtime import Classifier, StreamModel, read_metadata
from ..config import CLIP_SAMPLES, SAMPLE_RATE
from .clips import processor_name
from .tables import Block, Table

Array = npt.NDArray[Any]

REPEATS = 200
BATCH_CLIPS = 32
STREAM_SECONDS = 4
WINDOW_STEP_S = 0.1
"""How often a window is classified if a network does not stream."""

PLAIN_PYTORCH = "plain PyTorch"
"""The contender that the others are compared with."""


@dataclass(frozen=True)
class Timing:
    """What a model costs; None if it was not measured or does not apply."""

    name: str
    file_bytes: int | None = None
    load_ms: float | None = None
    peak_memory_mb: float | None = None
    hop_ms: int | None = None
    clip_p50_ms: float | None = None
    clip_p95_ms: float | None = None
    clips_per_s: float | None = None
    stream_cpu_ms_per_s: float | None = None
    clip_times_faster: float | None = None
    stream_times_faster: float | None = None


@dataclass(frozen=True)
class Turns:
    """The number of times that each was timed."""

    clip: int
    batch: int
    stream: int


@dataclass(frozen=True)
class Benchmark:
    """What several models cost on the same processor."""

    processor: str
    threads: int
    turns: Turns
    models: tuple[Timing, ...]


@dataclass(frozen=True)
class Contender:
    """Something to be timed. `clip` classifies audio (batch, window), `stream` goes through audio (samples,).

    `known` is what is already known about it.
    """

    known: Timing
    clip: Callable[[Array], Any] | None = None
    stream: Callable[[Array], Any] | None = None
    window: int = CLIP_SAMPLES


def artefact_contender(path: Path) -> Contender:
    """A clip or a stream artefact on one thread, with its size, load time and peak memory.

    Raises ModelError as loading it does.
    """
    metadata = read_metadata(path)
    known = _load_cost(path, metadata.kind)
    if metadata.kind != "stream":
        return Contender(known, clip=Classifier(path).probabilities, window=metadata.window)
    model = StreamModel(path)
    stream = model.stream()

    def run(audio: Array) -> None:
        for start in range(0, len(audio), model.hop):
            stream.process(audio[start : start + model.hop])

    return Contender(replace(known, hop_ms=1000 * model.hop // SAMPLE_RATE), stream=run, window=metadata.window)


def sliding(clip: Callable[[Array], Any], window: int = CLIP_SAMPLES) -> Callable[[Array], None]:
    """A stream from a clip classifier: the last `window` samples, every WINDOW_STEP_S."""
    step = round(WINDOW_STEP_S * SAMPLE_RATE)

    def run(audio: Array) -> None:
        for end in range(step, len(audio) + 1, step):
            start = end - window
            clip((audio[start:end] if start >= 0 else np.pad(audio[:end], (-start, 0)))[None])

    return run


def benchmark(contenders: Sequence[Contender], repeats: int = REPEATS) -> Benchmark:
    """Time all contenders in turns.

    For each: milliseconds of a clip (p50, p95), clips a second in batches, CPU milliseconds a second of streamed audio
    (median), and how many times faster the first and the last are than those of PLAIN_PYTORCH, if it is there.
    """
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, STREAM_SECONDS * SAMPLE_RATE).astype(np.float32)
    turns = Turns(clip=repeats, batch=max(5, repeats // 20), stream=max(5, repeats // 10))
    clips = {i: (c.clip, c.window) for i, c in enumerate(contenders) if c.clip is not None}
    streams = {i: c.stream for i, c in enumerate(contenders) if c.stream is not None}

    def classify(batch: int) -> list[Callable[[], Any]]:
        return [partial(f, rng.normal(0, 0.1, (batch, n)).astype(np.float32)) for f, n in clips.values()]

    clip_s = _in_turns(classify(1), turns.clip, time.perf_counter)
    batch_s = _in_turns(classify(BATCH_CLIPS), turns.batch, time.perf_counter)
    stream_s = _in_turns([partial(f, audio) for f in streams.values()], turns.stream, time.process_time)
    timings = [contender.known for contender in contenders]
    for i, one, many in zip(clips, clip_s, batch_s, strict=True):
        p50, p95 = (round(1e3 * float(x), 4) for x in np.percentile(one, [50, 95]))
        per_s = round(BATCH_CLIPS / float(np.median(many)), 1)
        timings[i] = replace(timings[i], clip_p50_ms=p50, clip_p95_ms=p95, clips_per_s=per_s)
    for i, seconds in zip(streams, stream_s, strict=True):
        timings[i] = replace(timings[i], stream_cpu_ms_per_s=round(1e3 * float(np.median(seconds)) / STREAM_SECONDS, 4))
    return Benchmark(processor_name(), 1, turns, tuple(_compared(timings)))


def _compared(timings: Sequence[Timing]) -> Sequence[Timing]:
    """The timings beside that of PLAIN_PYTORCH, if it is there."""
    plain = next((timing for timing in timings if timing.name == PLAIN_PYTORCH), None)
    if plain is None:
        return timings

    def ratio(theirs: float | None, ours: float | None) -> float | None:
        return None if theirs is None or ours is None else round(theirs / ours, 2)

    return [
        replace(
            timing,
            clip_times_faster=ratio(plain.clip_p50_ms, timing.clip_p50_ms),
            stream_times_faster=ratio(plain.stream_cpu_ms_per_s, timing.stream_cpu_ms_per_s),
        )
        for timing in timings
    ]


def speed_table(result: Benchmark) -> list[Block]:
    """A benchmark as a table, and a line on how it was measured."""
    columns: dict[str, Callable[[Timing], str]] = {
        "model": lambda timing: timing.name,
        "file, kB": lambda timing: _cell(timing.file_bytes and timing.file_bytes / 1000, 0),
        "load, ms": lambda timing: _cell(timing.load_ms, 0),
        "memory, MB": lambda timing: _cell(timing.peak_memory_mb, 0),
        "clip p50, ms": lambda timing: _cell(timing.clip_p50_ms, 2),
        "p95, ms": lambda timing: _cell(timing.clip_p95_ms, 2),
        "clips/s": lambda timing: _cell(timing.clips_per_s, 0),
        "hop, ms": lambda timing: _cell(timing.hop_ms, 0),
        "stream, CPU ms/s": lambda timing: _cell(timing.stream_cpu_ms_per_s, 2),
        "clip, times faster": lambda timing: _cell(timing.clip_times_faster, 1),
        "stream, times faster": lambda timing: _cell(timing.stream_times_faster, 1),
    }
    turns = result.turns
    return [
        Table(tuple(columns), [tuple(text(timing) for text in columns.values()) for timing in result.models]),
        f"One thread, {result.processor}; medians of {turns.clip} turns (clips), {turns.batch} (batches of "
        f"{BATCH_CLIPS}) and {turns.stream} (streams of {STREAM_SECONDS} s).",
    ]


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _in_turns(tasks: Sequence[Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds of every task in every round; a tenth of the rounds, at least two, warms up first."""
    seconds: list[list[float]] = [[] for _ in tasks]
    warm_up = max(2, rounds // 10)
    for turn in range(warm_up + rounds):
        for task, taken in zip(tasks, seconds, strict=True):
            started = clock()
            task()
            if turn >= warm_up:
                taken.append(clock() - started)
    return seconds


_LOAD = """
import sys, time
from pathlib import Path
import numpy
from tiny_kws.artefact.runtime import Classifier, StreamModel
started = time.perf_counter()
if sys.argv[2] == "stream":
    model = StreamModel(sys.argv[1])
    loaded = time.perf_counter()
    model.stream().process(numpy.zeros(16000))
else:
    model = Classifier(sys.argv[1])
    loaded = time.perf_counter()
    model.classify(numpy.zeros(16000))
# Not getrusage: a child's peak begins with that of the process that started it.
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
print(1e3 * (loaded - started), *(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""


def _load_cost(path: Path, kind: str) -> Timing:
    """Milliseconds to load an artefact and, on Linux, peak memory of a process that uses it, in one of its own."""
    command = [sys.executable, "-c", _LOAD, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    load_ms, *peak_kib = map(float, done.stdout.split())
    peak_mb = round(peak_kib[0] * 1024 / 1e6, 1) if peak_kib else None
    return Timing(path.name, path.stat().st_size, round(load_ms, 1), peak_mb)
