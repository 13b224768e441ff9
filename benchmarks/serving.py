"""How many streams a server holds: CPU and memory for each, and from a chunk to its event.

    python benchmarks/serving.py OUT.json [--streams 50 ...] [--models listener micro] [--seconds 20]

The server runs on the first core, its clients on the second. Each client sends chunks of 64 ms over Wyoming as they
would be recorded, some of the examples in a loop; an event is timed from when its last chunk was sent. Where
pyopen-wakeword is installed, its CPU for one word is measured beside. The load of the machine by others is written too.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tiny_kws.audio import read_mono
from tiny_kws.files import write_json

EXAMPLES = Path(__file__).parents[1] / "examples"
CHUNK = 1024


@dataclass(frozen=True)
class Row:
    """One number of streams, held for some seconds."""

    model: str
    streams: int
    seconds: float
    cpu_ms_per_stream_second: float
    kb_per_stream: float
    events: int
    p50_ms: float
    p99_ms: float
    client_behind_ms: float
    """By how much the clients sent a chunk late, at worst: more, and it is they that are measured."""


def usage(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process; not by the ticks of `stat`, which are coarse."""
    on_cpu_ns = sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return on_cpu_ns / 1e9, pages * os.sysconf("SC_PAGE_SIZE")


def message(payload: bytes, timestamp: int) -> bytes:
    """A chunk of 16-bit samples at 16 kHz as Wyoming sends it."""
    data = {"rate": 16_000, "width": 2, "channels": 1, "timestamp": timestamp}
    header = {"type": "audio-chunk", "data": data, "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + payload


@contextmanager
def server(*options: str, core: int | None = None) -> Iterator[tuple[int, int]]:
    """A server of its own, on one core if that is named: its process and its port."""
    on_core = [] if core is None else ["/usr/bin/taskset", "-c", str(core)]
    command = [*on_core, sys.executable, "-m", "tiny_kws", "serve", "--port", "0", *options]
    with tempfile.NamedTemporaryFile("w+") as log:  # a pipe that nobody reads would stop the server
        process = subprocess.Popen(command, stderr=log.fileno())  # noqa: S603
        try:
            while not (line := Path(log.name).read_text().partition("\n"))[1]:
                time.sleep(0.1)
            yield process.pid, int(line[0].split(":")[1])
        finally:
            process.terminate()
            process.wait()


class Client:
    """One stream over a socket of its own, as cheap as can be: it is not the clients that are measured."""

    def __init__(self, port: int, data: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(5)
        self.first, self.n_sent, self._data = 0.0, 0, data
        self._sent: dict[int, float] = {}
        self._text = b""

    @property
    def due(self) -> float:
        """When its next chunk is recorded."""
        return self.first + self.n_sent * CHUNK / 16_000

    def send(self) -> None:
        i, self.n_sent = self.n_sent, self.n_sent + 1
        place = 2 * CHUNK * i % (len(self._data) - 2 * CHUNK)
        chunk = message(self._data[place : place + 2 * CHUNK], i)
        self._sent[i] = time.monotonic()
        self.socket.sendall(chunk)

    def receive(self) -> list[float]:
        """Seconds from sending a chunk to its event, of the events that came."""
        self._text += self.socket.recv(65536)
        found = [int(number) for number in re.findall(rb'"timestamp": (\d+)', self._text)]
        self._text = self._text[self._text.rfind(b"}") + 1 :]
        return [time.monotonic() - self._sent[i] for i in found]


def crowd(pid: int, port: int, model: str, n: int, seconds: float) -> Row:
    sound = np.concatenate([read_mono(EXAMPLES / f"{name}.wav") for name in ("yes", "silence", "go", "silence")])
    data = (sound * 32767).astype("<i2").tobytes()
    late: list[float] = []
    _, memory = usage(pid)
    clients = [Client(port, data) for _ in range(n)]
    time.sleep(1.0)
    cpu, _ = usage(pid)
    start = time.monotonic() + 0.1
    for client, turn in zip(clients, np.random.default_rng(0).uniform(0, 1, n), strict=True):
        client.first = start + float(turn)
    waiting, behind = selectors.DefaultSelector(), 0.0
    for client in clients:
        waiting.register(client.socket, selectors.EVENT_READ, client)
    queue = [(client.due, i) for i, client in enumerate(clients)]
    heapq.heapify(queue)
    end = start + seconds + 1.5
    while (now := time.monotonic()) < end:
        while queue and queue[0][0] <= now:
            due, i = heapq.heappop(queue)
            behind = max(behind, now - due)
            clients[i].send()
            if clients[i].due < clients[i].first + seconds:
                heapq.heappush(queue, (clients[i].due, i))
        pause = min(0.05, max(0.0, queue[0][0] - time.monotonic())) if queue else 0.05
        late += [one for key, _ in waiting.select(pause) for one in key.data.receive()]
    spent, held = usage(pid)[0] - cpu, usage(pid)[1]
    for client in clients:
        client.socket.close()
    p50, p99 = (round(1000 * float(np.percentile(late, q)), 1) if late else -1.0 for q in (50, 99))
    per_stream = (held - memory) / 1024 / n
    cpu_ms = 1000 * spent / (n * seconds)
    return Row(
        model, n, seconds, round(cpu_ms, 3), round(per_stream, 1), len(late), p50, p99, round(1000 * float(behind), 1)
    )


def measure(model: str, counts: list[int], seconds: float) -> list[Row]:
    with server("--model", model, "--connections", "100000", core=0) as (pid, port):
        rows = []
        for n in counts:
            rows.append(crowd(pid, port, model, n, seconds))
            print(rows[-1], flush=True)
        return rows


def other_engine(seconds: float) -> float | None:
    """CPU ms a stream-second of pyopen-wakeword, for one word; None where it is not installed."""
    try:
        from pyopen_wakeword import Model, OpenWakeWord, OpenWakeWordFeatures  # noqa: PLC0415
    except ImportError:
        return None
    features, word = OpenWakeWordFeatures.from_builtin(), OpenWakeWord.from_builtin(Model.OKAY_NABU)
    chunk = (np.random.default_rng(0).normal(0, 500, CHUNK)).astype("<i2").tobytes()
    begun = time.process_time()
    for _ in range(round(seconds * 16_000 / CHUNK)):
        for feature in features.process_streaming(chunk):
            list(word.process_streaming(feature))
    return round(1000 * (time.process_time() - begun) / seconds, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["listener", "micro"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 16, 50, 100, 250, 400, 500])
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    os.sched_setaffinity(0, {1})
    other = other_engine(asked.seconds)
    rows = [row for model in asked.models for row in measure(model, asked.streams, asked.seconds)]
    found = {"load_before": load, "pyopen_wakeword_cpu_ms_per_stream_second": other, "rows": [asdict(r) for r in rows]}
    write_json(asked.out, json.loads(json.dumps(found)))


if __name__ == "__main__":
    main()
