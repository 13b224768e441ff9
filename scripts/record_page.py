"""Record docs/demo.webp, a moving picture of the page of `tiny-kws demo`, in Chromium with recordings for a microphone.

python scripts/record_page.py docs/demo.webp

The words are recordings under examples/. What moves is the real page: nothing is drawn here, and times are real.
"""

import argparse
import io
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile as sf
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tiny_kws.apps.server import PageServer
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = ("yes.wav", "left.wav", "on.wav", "no.wav", "stop.mp3")
LEAD_S, PAUSE_S, TAIL_S = 0.6, 0.7, 1.2
WIDTH, HEIGHT, SHOWN_WIDTH = 1180, 600, 885
EVERY_S = 0.16
QUALITY = 62
MOST_BYTES = 2_000_000


def main() -> None:
    """Play words to the page and keep what it shows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the WebP file to write")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "said.wav"
        seconds = say(sound)
        with listening_page(sound) as page:
            frames = recorded(page, seconds)
    write(frames, out)
    print(f"{out}: {len(frames)} frames, {out.stat().st_size / 1e6:.2f} MB")


def say(path: Path) -> float:
    """Write the words with quiet noise between them; how many seconds they are."""
    rng = np.random.default_rng(0)
    pieces = [np.zeros(round(LEAD_S * SAMPLE_RATE))]
    for name in WORDS:
        pieces += [read_mono(EXAMPLES / name), np.zeros(round(PAUSE_S * SAMPLE_RATE))]
    pieces.append(np.zeros(round(TAIL_S * SAMPLE_RATE)))
    sound = np.concatenate(pieces)
    sf.write(path, sound + rng.normal(0, 0.001, sound.shape), SAMPLE_RATE, subtype="PCM_16")
    return len(sound) / SAMPLE_RATE


@contextmanager
def listening_page(sound: Path) -> Iterator[Page]:
    """The page, ready, in a Chromium whose microphone plays a recording."""
    options = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}%noloop",
    )
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with PageServer(0, ()) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        browser = playwright.chromium.launch(
            executable_path=chromium, args=list(options), ignore_default_args=["--headless"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark")
        page.goto(server.url)
        page.wait_for_selector("html[data-state=ready]", state="attached")
        yield page
        browser.close()
        server.shutdown()


def recorded(page: Page, seconds: float) -> list[tuple[float, Image.Image]]:
    """Pictures of the page while it hears the words, each with the second it was taken at."""
    page.click("#listen")
    page.wait_for_selector("html[data-listening=microphone]", state="attached")
    started, frames = time.monotonic(), []
    while (now := time.monotonic() - started) < seconds:
        frames.append((now, Image.open(io.BytesIO(page.screenshot())).convert("RGB")))
        page.wait_for_timeout(max(0.0, 1000 * (EVERY_S - (time.monotonic() - started - now))))
    return frames


def write(frames: list[tuple[float, Image.Image]], out: Path) -> None:
    """Write the pictures as one that moves, each shown for as long as it was true."""
    times = [at for at, _ in frames]
    shown_ms = [round(1000 * (after - before)) for before, after in pairwise(times)] + [2000]
    size = (SHOWN_WIDTH, round(SHOWN_WIDTH * HEIGHT / WIDTH))
    pictures = [picture.resize(size, Image.Resampling.LANCZOS) for _, picture in frames]
    pictures[0].save(
        out, save_all=True, append_images=pictures[1:], duration=shown_ms, loop=0, quality=QUALITY, method=4
    )
    if out.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{out} takes {out.stat().st_size} bytes, expected {MOST_BYTES} at most")


if __name__ == "__main__":
    main()
