"""A day of a server: `serving_day.py OUT.json [--hours 24] [--streams 50]`.

So many clients play tapes of the examples as fast as the server takes them, over Wyoming. The answers to each tape have
to be those of a Detector, in order, none lost or doubled. Between tapes clients stall amid a message, send garbage, or
vanish amid their sound. Hours are those of sound for each client; the server's memory is noted as they go by, and what
came of it is written each time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from serving import CHUNK, EXAMPLES, message, server, usage

from tiny_kws import Detector
from tiny_kws.audio import read_mono
from tiny_kws.files import write_json

TAPE_S, N_TAPES = 60, 8
WAYS = ("tape",) * 12 + ("stall", "garbage", "vanish", "vanish at once")
MODEL = "micro"


class Tape:
    """A minute of the examples amid noise, and what is to be heard in it."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sound = rng.normal(0, 0.001, TAPE_S * 16_000).astype(np.float32)
        names = sorted(EXAMPLES.glob("*.wav"))
        for place in range(1, TAPE_S - 2, 3):
            word = read_mono(names[int(rng.integers(len(names)))])[: 2 * 16_000]
            sound[place * 16_000 : place * 16_000 + len(word)] += word
        pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2")
        self.chunks = [message(pcm[i : i + CHUNK].tobytes(), i) for i in range(0, len(pcm), CHUNK)]
        events = Detector(MODEL).detect(pcm)
        self.expected = [(event.label, round(event.end_s * 16_000 - 1) // CHUNK * CHUNK) for event in events]


async def play(tape: Tape, port: int) -> str:
    """All of it, and what comes of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = []
    try:
        listening = asyncio.create_task(answers(reader, heard))
        for i, chunk in enumerate(tape.chunks):
            writer.write(chunk)
            if i % 16 == 0:
                await writer.drain()
        writer.write(b'{"type": "audio-stop", "data": {}}\n{"type": "ping", "data": {}}\n')
        await asyncio.wait_for(listening, 600)
    finally:
        writer.close()
    return "right" if heard == tape.expected else f"wrong: {heard} instead of {tape.expected}"


async def answers(reader: asyncio.StreamReader, heard: list[tuple[str, int]]) -> None:
    """Words and their times, up to the answer to a ping."""
    while line := await reader.readline():
        header = json.loads(line)
        data = dict(header.get("data") or {})
        if header.get("data_length"):
            data |= json.loads(await reader.readexactly(header["data_length"]))
        if header["type"] == "pong":
            return
        if header["type"] == "detection":
            heard.append((data["name"], data["timestamp"]))


async def misbehave(way: str, tape: Tape, port: int) -> str:
    """Do what no client should, and go."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(OSError):
        if way == "garbage":
            writer.write(os.urandom(3000) + b"\n")
        elif way == "stall":
            writer.write(tape.chunks[0][:-5])
            await asyncio.sleep(1.0)
        elif way == "vanish":
            for chunk in tape.chunks[:200]:
                writer.write(chunk)
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.01)
        writer.transport.abort()
    return way


async def day(pid: int, port: int, hours: float, n_streams: int, out: Path) -> None:
    """All clients at once, until each has played so many hours."""
    tapes = [Tape(seed) for seed in range(N_TAPES)]
    found: Counter[str] = Counter()
    memory: list[int] = []
    n_tapes = round(hours * 3600 / TAPE_S)
    words = sum(len(tape.expected) for tape in tapes) / N_TAPES

    async def client(number: int) -> None:
        rng = np.random.default_rng(number)
        n_played = 0
        while n_played < n_tapes:
            way, tape = WAYS[int(rng.integers(len(WAYS)))], tapes[int(rng.integers(N_TAPES))]
            if way == "tape":
                n_played += 1
                found[await play(tape, port)] += 1
                if number == 0 and n_played % max(1, n_tapes // 24) == 0:
                    memory.append(usage(pid)[1] // 1024)
                    print(f"{n_played} of {n_tapes} minutes, {memory[-1]} kB, {dict(found)}", flush=True)
                    of_day = {"hours": n_played * TAPE_S / 3600, "streams": n_streams, "model": MODEL}
                    write_json(out, {"clients": dict(found), "resident_kb": memory, "words_in_a_tape": words, **of_day})
            else:
                found[await misbehave(way, tape, port)] += 1

    await asyncio.gather(*(client(number) for number in range(n_streams)))


def main() -> None:
    """Run it, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--streams", type=int, default=50)
    asked = parser.parse_args()
    with server("--model", MODEL, "--connections", "1000") as (pid, port):
        asyncio.run(day(pid, port, asked.hours, asked.streams, asked.out))


if __name__ == "__main__":
    main()
