"""What the page of `tiny-kws demo` costs: `page_listening.py [--seconds S] [--turns N]`.

Headless Chromium listens to a microphone that plays the recordings under examples/ over and over. Told are CPU seconds
for each second of listening, by thread (worker: resampling, model, detector; audio thread; all of Chromium, which draws
in software here), beside what the open page takes when it does not listen; the page's own figures; and how long it
takes to be ready with a warm cache, the median over turns. Needs Linux, Chromium and playwright.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from detect_speed import words_in_noise
from playwright.sync_api import sync_playwright

from tiny_kws.apps.server import PageServer
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.evaluation.clips import processor_name

OPTIONS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
THREADS = {"DedicatedWorker": "worker", "Realtime AudioW": "audio thread"}
TICKS = os.sysconf("SC_CLK_TCK")


def chromium_seconds(profile: str) -> Counter[str]:
    """CPU seconds so far of the threads of the Chromium that uses `profile`, by what they do."""
    stats = {int(folder.name): read(folder / "stat") for folder in Path("/proc").glob("[0-9]*")}
    parents = {pid: int(stat.rpartition(")")[2].split()[1]) for pid, stat in stats.items() if stat}
    roots = {pid for pid in parents if profile in read(Path(f"/proc/{pid}/cmdline"))}
    family = {pid for pid in parents if any(one in roots for one in ancestry(pid, parents))}
    seconds: Counter[str] = Counter()
    for pid in family:
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            name, _, rest = read(stat).partition("(")[2].rpartition(")")
            if not rest:
                continue
            spent = sum(map(int, rest.split()[11:13])) / TICKS
            seconds["all of Chromium"] += spent
            for start, kind in THREADS.items():
                if name.startswith(start[:15]):
                    seconds[kind] += spent
    return seconds


def read(path: Path) -> str:
    """A file of /proc; empty if its process has ended."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def ancestry(pid: int, parents: dict[int, int]) -> list[int]:
    """A process, its parent, and so on."""
    chain = []
    while pid in parents:
        chain.append(pid)
        pid = parents[pid]
    return chain


def rate(profile: str, seconds: float) -> Counter[str]:
    """CPU seconds a second, over `seconds`."""
    before, started = chromium_seconds(profile), time.perf_counter()
    time.sleep(seconds)
    after, passed = chromium_seconds(profile), time.perf_counter() - started
    return Counter({name: (after[name] - before[name]) / passed for name in after})


def ready_ms(page: Any, url: str) -> float:
    """From the navigation to the page saying that it is ready."""
    started = time.perf_counter()
    page.goto(url)
    page.wait_for_selector("html[data-state=ready]", state="attached")
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, PageServer(0) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        recording = Path(folder) / "words.wav"
        sf.write(recording, np.asarray(words_in_noise(60 * SAMPLE_RATE)), SAMPLE_RATE)
        profile = f"{folder}/profile"
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=shutil.which("chromium"),
            args=[*OPTIONS, f"--use-file-for-fake-audio-capture={recording}"],
            ignore_default_args=["--headless"],
        )
        page = context.new_page()
        cold = ready_ms(page, server.url)
        warm = [ready_ms(page, server.url) for _ in range(arguments.turns)]
        idle = rate(profile, arguments.seconds / 2)
        page.click("#listen")
        page.wait_for_selector("html[data-listening=microphone]", state="attached")
        time.sleep(3)
        listening = rate(profile, arguments.seconds)
        tiles = [f"{term.inner_text()} {term.locator('+ dd').inner_text()}" for term in page.locator("dt").all()]
        context.close()
        server.shutdown()
    print(f"{processor_name()}, load {os.getloadavg()[0]:.1f}")
    print(
        f"ready: {cold:.0f} ms at first, {statistics.median(warm):.0f} ms with a warm cache ({arguments.turns} turns)"
    )
    for name in ("worker", "audio thread", "all of Chromium"):
        print(f"{name}: {100 * listening[name]:.1f} % of a core listening, {100 * idle[name]:.1f} % open and idle")
    print(f"the page itself: {', '.join(tiles)}")


if __name__ == "__main__":
    main()
