"""The server with the programs it is made for, each in an environment of its own: `make peers` makes them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

pytest.importorskip("wyoming", reason="needs the extra `serve`")

from wyoming.client import AsyncTcpClient
from wyoming.event import Event

from tiny_kws.audio import read_mono

from .helpers import command_line, environment

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.slow


def python_of(peer: str) -> Path:
    """The Python of a peer's environment, or the test is skipped."""
    path = ROOT / ".peers" / peer / "bin" / "python"
    if not path.exists():
        pytest.skip(f"there is no {peer} here; make it with `make peers`")
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """*yes* between pauses."""
    path = tmp_path_factory.mktemp("sound") / "yes.wav"
    pause = np.zeros(16_000, np.float32)
    sf.write(path, np.concatenate([pause, read_mono(EXAMPLES / "yes.wav"), pause]), 16_000, subtype="PCM_16")
    return path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing answers at port {port}")


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment())
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@contextmanager
def server(*options: str) -> Iterator[int]:
    port = free_port()
    with running(*command_line("serve", "--port", str(port), *options)):
        wait_for(port)
        yield port


def test_home_assistant(sound: Path) -> None:
    """Its config flow sets the server up, lists the words, and its wake word entity hears one in real sound."""
    python = python_of("home-assistant")
    with server() as port:
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto", "--rootdir", sound.parent,
             "-c", os.devnull, shutil.copy(ROOT / "tests" / "peers" / "home_assistant.py", sound.parent)],
            env={**os.environ, "TINY_KWS_PORT": str(port), "TINY_KWS_SOUND": str(sound)},
            cwd=sound.parent, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


MICROPHONE = """
import sys, time
data = open(sys.argv[1], "rb").read()[44:]
while True:
    for i in range(0, len(data), 2048):
        sys.stdout.buffer.write(data[i : i + 2048])
        sys.stdout.buffer.flush()
        time.sleep(0.064)
"""


def test_wyoming_satellite(sound: Path, tmp_path: Path) -> None:
    """A satellite whose microphone plays a file tells its Home Assistant of the word, twice on one connection."""
    python = python_of("satellite")
    microphone, port = tmp_path / "microphone.py", free_port()
    microphone.write_text(MICROPHONE)

    async def listen() -> None:
        n_heard = 0
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Event("run-satellite"))
            while n_heard < 2:
                event = await client.read_event()
                assert event is not None
                if event.type == "run-pipeline":  # the word was heard: what follows is the command
                    n_heard += 1
                    await client.write_event(Event("transcript", {"text": "switch on the lamp"}))

    with (
        server() as wake,
        running(
            python, "-m", "wyoming_satellite", "--name", "test", "--uri", f"tcp://127.0.0.1:{port}", "--no-zeroconf",
            "--wake-uri", f"tcp://127.0.0.1:{wake}", "--wake-word-name", "yes",
            "--mic-command", f"{sys.executable} {microphone} {sound}",
        ),
    ):  # fmt: skip
        wait_for(port)
        asyncio.run(asyncio.wait_for(listen(), 40))


def test_mosquitto(sound: Path) -> None:
    """Events go to a real broker, as does that the server is there."""
    mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if mosquitto is None:
        pytest.skip("there is no mosquitto here; install it (apt install mosquitto)")
    paho = pytest.importorskip("paho.mqtt.client", reason="needs the extra `mqtt`")
    from paho.mqtt.enums import CallbackAPIVersion

    broker, found = free_port(), {}
    with running(mosquitto, "-p", str(broker)):
        wait_for(broker)
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda c, u, message: found.update({message.topic: message.payload.decode()})
        client.connect("127.0.0.1", broker)
        client.subscribe("home/#")
        client.loop_start()
        with server("--mqtt", f"mqtt://127.0.0.1:{broker}/home") as port:

            async def play() -> None:
                from .test_serving import send

                async with AsyncTcpClient("127.0.0.1", port) as wake:
                    await send(wake, read_mono(sound))
                    await wake.read_event()

            asyncio.run(asyncio.wait_for(play(), 30))
            end = time.monotonic() + 10
            while "home/yes" not in found and time.monotonic() < end:
                time.sleep(0.1)
            assert found["home/status"] == "online"
        assert '"label": "yes"' in found["home/yes"]
        end = time.monotonic() + 5
        while found["home/status"] != "offline" and time.monotonic() < end:
            time.sleep(0.1)
        assert found["home/status"] == "offline"
        client.disconnect()
        client.loop_stop()


@pytest.mark.browser
def test_the_page_in_a_browser() -> None:
    """It shows the streams that there are, and an event as it comes."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium here; install it (apt install chromium)")
    http = free_port()
    with server("--http", str(http)) as port, sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{http}/")
        page.wait_for_function("document.getElementById('state').textContent.includes('streams now')")
        speak(port)
        page.wait_for_selector("#events tr")
        assert "yes" in page.inner_text("#events")
        browser.close()


def speak(port: int) -> None:
    """A client in a process of its own says *yes*."""
    code = (
        "import asyncio, sys\nfrom tests.test_serving import send, spoken\nfrom wyoming.client import AsyncTcpClient\n"
        "async def main():\n    async with AsyncTcpClient('127.0.0.1', int(sys.argv[1])) as client:\n"
        "        await send(client, spoken('yes'))\n        await client.read_event()\nasyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(port)], check=True, cwd=ROOT, env=environment(), timeout=30)
