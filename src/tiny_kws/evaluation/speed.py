"""Speed: what an answer costs, of several models in one run, their turns interleaved so that noise meets all alike."""

from __future__ import annotations

import os
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

from ..config import CLIP_SAMPLES, SAMPLE_RATE
from ..runtime import Classifier, StreamModel
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
    """A clip or a stream artefact on one thread, with its size, load time and peak memory."""
    facts = {"file_bytes": path.stat().st_size, **_load_cost(path)}
    if path.name.endswith(".stream.onnx"):
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
    clip_s = _in_turns([partial(f, clip) for f in clips.values()], repeats, time.perf_counter)
    batch_s = _in_turns([partial(f, batch) for f in clips.values()], max(5, repeats // 20), time.perf_counter)
    stream_s = _in_turns([partial(f, audio) for f in streams.values()], max(5, repeats // 10), time.process_time)
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
    return {"processor": processor_name(), "threads": 1, "repeats": repeats, "models": list(rows.values())}


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
        "stream, CPU ms/s": "stream_cpu_ms_per_s",
        "clip, times faster": "clip_times_faster",
        "stream, times faster": "stream_times_faster",
    }
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in result["models"]:
        cells = [_cell(key, row[key]) if key in row else "" for key in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"One thread, {result['processor']}, medians of {result['repeats']} turns."])


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
import resource, sys, time
from tiny_kws.runtime import Classifier, StreamModel
started = time.perf_counter()
kind = StreamModel if sys.argv[1].endswith(".stream.onnx") else Classifier
model = kind(sys.argv[1])
loaded = time.perf_counter()
import numpy
if kind is Classifier:
    model.classify(numpy.zeros(16000))
else:
    model.stream().process(numpy.zeros(16000))
print(1e3 * (loaded - started), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _load_cost(path: Path) -> dict[str, float]:
    """Milliseconds to load an artefact and peak memory of a process that uses it, measured in one of its own."""
    if sys.platform == "win32":
        return {}
    done = subprocess.run([sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True)  # noqa: S603
    load_ms, peak = map(float, done.stdout.split())
    unit = 1e6 if sys.platform == "darwin" else 1e3  # macOS counts bytes, Linux kilobytes
    return {"load_ms": round(load_ms, 1), "peak_memory_mb": round(peak / unit, 1)}


def default_models() -> list[Path]:
    """The artefacts that come with the package."""
    assets = Path(__file__).parents[1] / "assets"
    return sorted(assets.glob("*.onnx"), key=os.fspath)
