"""Speed: what an answer costs, of several models in one run, their turns interleaved so that noise meets all alike."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artefact.runtime import Classifier, StreamModel, read_metadata
from ..config import CLIP_SAMPLES, SAMPLE_RATE
from .clips import processor_name

Array = npt.NDArray[Any]

REPEATS = 200
BATCH_CLIPS = 32
STREAM_SECONDS = 4
WINDOW_STEP_S = 0.1
"""How often a one-second window is classified where a network does not stream."""

EAGER = "PyTorch, eager"


@dataclass(frozen=True)
class Contender:
    """Something to be timed. `clip` classifies audio (batch, 16000), `stream` goes through audio (samples,)."""

    name: str
    clip: Callable[[Array], Any] | None = None
    stream: Callable[[Array], Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def artefact_contender(path: Path) -> Contender:
    """A clip or a stream artefact on one thread, with its size, load time and peak memory.

    Raises ModelError as loading it does.
    """
    kind = read_metadata(path).kind
    facts = {"file_bytes": path.stat().st_size, **_load_cost(path, kind)}
    if kind == "stream":
        model = StreamModel(path)
        stream = model.stream()
        hop_ms = 1000 * model.hop // SAMPLE_RATE

        def run(audio: Array) -> None:
            for start in range(0, len(audio), model.hop):
                stream.process(audio[start : start + model.hop])

        return Contender(path.name, stream=run, facts={**facts, "hop_ms": hop_ms})
    classifier = Classifier(path)
    return Contender(path.name, clip=classifier.probabilities, facts=facts)


def sliding(clip: Callable[[Array], Any]) -> Callable[[Array], None]:
    """A stream out of a clip classifier: the last second, every WINDOW_STEP_S."""
    step = round(WINDOW_STEP_S * SAMPLE_RATE)

    def run(audio: Array) -> None:
        for end in range(step, len(audio) + 1, step):
            start = end - CLIP_SAMPLES
            window = audio[start:end] if start >= 0 else np.pad(audio[:end], (-start, 0))
            clip(window[None])

    return run


def benchmark(contenders: Sequence[Contender], repeats: int = REPEATS) -> dict[str, Any]:
    """Time all contenders in turns.

    For each: milliseconds of a clip (p50, p95), clips a second in batches, CPU milliseconds a second of streamed audio
    (median), and how many times faster the first two and the last are than the contender called EAGER, if it is there.
    """
    rng = np.random.default_rng(0)
    clip = rng.normal(0, 0.1, (1, CLIP_SAMPLES)).astype(np.float32)
    batch = rng.normal(0, 0.1, (BATCH_CLIPS, CLIP_SAMPLES)).astype(np.float32)
    audio = rng.normal(0, 0.1, STREAM_SECONDS * SAMPLE_RATE).astype(np.float32)
    clips = {c.name: c.clip for c in contenders if c.clip is not None}
    streams = {c.name: c.stream for c in contenders if c.stream is not None}
    turns = {"clip": repeats, "batch": max(5, repeats // 20), "stream": max(5, repeats // 10)}
    clip_s = _in_turns([partial(f, clip) for f in clips.values()], turns["clip"], time.perf_counter)
    batch_s = _in_turns([partial(f, batch) for f in clips.values()], turns["batch"], time.perf_counter)
    stream_s = _in_turns([partial(f, audio) for f in streams.values()], turns["stream"], time.process_time)
    rows: dict[str, dict[str, Any]] = {c.name: {"name": c.name, **c.facts} for c in contenders}
    for name, one, many in zip(clips, clip_s, batch_s, strict=True):
        p50, p95 = np.percentile(one, [50, 95])
        rows[name] |= {
            "clip_p50_ms": round(1e3 * float(p50), 4),
            "clip_p95_ms": round(1e3 * float(p95), 4),
            "clips_per_s": round(BATCH_CLIPS / float(np.median(many)), 1),
        }
    for name, seconds in zip(streams, stream_s, strict=True):
        rows[name]["stream_cpu_ms_per_s"] = round(1e3 * float(np.median(seconds)) / STREAM_SECONDS, 4)
    if EAGER in rows:
        for row in rows.values():
            for key, ratio in (("clip_p50_ms", "clip_times_faster"), ("stream_cpu_ms_per_s", "stream_times_faster")):
                if key in row:
                    row[ratio] = round(rows[EAGER][key] / row[key], 2)
    return {"processor": processor_name(), "threads": 1, "turns": turns, "models": list(rows.values())}


def speed_table(result: dict[str, Any]) -> str:
    """A benchmark as a Markdown table."""
    columns = {
        "model": "name",
        "file, kB": "file_bytes",
        "load, ms": "load_ms",
        "memory, MB": "peak_memory_mb",
        "clip p50, ms": "clip_p50_ms",
        "p95, ms": "clip_p95_ms",
        "clips/s": "clips_per_s",
        "hop, ms": "hop_ms",
        "stream, CPU ms/s": "stream_cpu_ms_per_s",
        "clip, times faster": "clip_times_faster",
        "stream, times faster": "stream_times_faster",
    }
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in result["models"]:
        cells = [_cell(key, row[key]) if key in row else "" for key in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    turns = result["turns"]
    return "\n".join(
        [
            *lines,
            "",
            f"One thread, {result['processor']}; medians of {turns['clip']} turns (clips), {turns['batch']} (batches "
            f"of {BATCH_CLIPS}) and {turns['stream']} (streams of {STREAM_SECONDS} s).",
        ]
    )


def _cell(key: str, value: Any) -> str:
    if key == "file_bytes":
        return f"{value / 1000:.0f}"
    if key in ("load_ms", "peak_memory_mb", "clips_per_s"):
        return f"{value:.0f}"
    return f"{value:.1f}" if "times" in key else f"{value:.2f}" if isinstance(value, float) else str(value)


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


def _load_cost(path: Path, kind: str) -> dict[str, float]:
    """Milliseconds to load an artefact and, on Linux, peak memory of a process that uses it, in one of its own."""
    command = [sys.executable, "-c", _LOAD, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    load_ms, *peak_kib = map(float, done.stdout.split())
    cost = {"load_ms": round(load_ms, 1)}
    if peak_kib:
        cost["peak_memory_mb"] = round(peak_kib[0] * 1024 / 1e6, 1)
    return cost
