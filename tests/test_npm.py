"""The npm package in web/npm, packed and installed in an empty project, hears what Python hears."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_kws import Detector, __version__
from tiny_kws.artefact.store import find_model
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE, DetectorConfig, settings_of
from tiny_kws.words import NOT_WORDS

ROOT = Path(__file__).parents[1]
WEB = ROOT / "web"
NPM, NODE = shutil.which("npm"), shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEAR = """
    const detector = await Detector.load(artefact);
    const found = [];
    for (let at = 0; at < audio.length; at += 999) found.push(...await detector.process(audio.subarray(at, at + 999)));
    found.push(...await detector.finish());
    const again = [...await detector.process(audio), ...await detector.finish()];
    let refusal = "";
    await Detector.load(artefact.slice(0, 999), { name: "cut.onnx" }).catch((error) => { refusal = error.message; });
    return { words: detector.words, found, again, refusal };
"""
pytestmark = pytest.mark.skipif(not WEB.is_dir(), reason="needs the sources of the page")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project with the packed package installed, an artefact and recordings as raw samples."""
    if not NPM or not NODE:
        pytest.skip("needs Node 20 or newer with npm")
    if not (WEB / "node_modules").is_dir():
        pytest.skip("needs the page's packages: run npm ci in web/")
    folder = tmp_path_factory.mktemp("project")
    run("npm", "run", "library", folder=WEB)
    packed = json.loads(run("npm", "pack", "--json", "--pack-destination", str(folder), folder=WEB / "npm"))
    (folder / "package.json").write_text('{"name": "empty", "private": true, "type": "module"}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", packed[0]["filename"], folder=folder)
    shutil.copy(find_model(None, "stream"), folder / "model.onnx")
    quiet = np.random.default_rng(0).normal(0, 1e-3, SAMPLE_RATE).astype(np.float32)
    clips = [read_mono(ROOT / "examples" / name) for name in ("left.wav", "stop.mp3", "yes.wav")]
    parts = [quiet, *(part for clip in clips for part in (clip, quiet))]
    np.concatenate(parts).astype("<f4").tofile(folder / "audio.f32")
    return folder


def run(*command: str, folder: Path) -> str:
    """What a command prints."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    """Where the project's files are served."""
    imports = {"imports": {"tiny-kws": "./node_modules/tiny-kws/dist/library.js"}}
    (project / "index.html").write_text(f'<!doctype html><script type="importmap">{json.dumps(imports)}</script>')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(project))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


class QuietFiles(SimpleHTTPRequestHandler):
    """A host of static files that says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def assert_heard(answer: dict[str, Any], project: Path) -> None:
    """The answer holds Python's words and events, twice, and a refusal that says what was found."""
    audio = np.fromfile(project / "audio.f32", "<f4")
    detector = Detector()
    expected = [(event.label, event.start_s, event.end_s) for event in detector.detect(audio)]
    assert len(expected) == 3
    assert answer["words"] == [label for label in detector.model.metadata.labels if label not in NOT_WORDS]
    for found in (answer["found"], answer["again"]):
        assert [(event["label"], event["start_s"], event["end_s"]) for event in found] == expected
    assert answer["refusal"].startswith("cut.onnx: is not an ONNX file or was cut short")


def test_the_package_hears_in_node(project: Path) -> None:
    """Installed in an empty project, the package finds Python's events in Node."""
    script = project / "hear.mjs"
    script.write_text(
        f"""import {{ readFile }} from "node:fs/promises";
        import {{ Detector }} from "tiny-kws";
        const artefact = new Uint8Array(await readFile("model.onnx"));
        const audio = new Float32Array(new Uint8Array(await readFile("audio.f32")).buffer);
        const hear = async () => {{ {HEAR} }};
        console.log(JSON.stringify(await hear()));"""
    )
    assert_heard(json.loads(run("node", str(script), folder=project)), project)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (on Debian: apt install chromium)")
def test_the_package_hears_in_chromium(project: Path, address: str) -> None:
    """The same package finds Python's events in a browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(address)
        answer = page.evaluate(
            f"""async () => {{
                const {{ Detector }} = await import("tiny-kws");
                const bytes = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());
                const artefact = await bytes("model.onnx");
                const audio = new Float32Array((await bytes("audio.f32")).buffer);
                {HEAR}
            }}"""
        )
        browser.close()
    assert_heard(answer, project)


def test_the_package_has_types(project: Path) -> None:
    """A strict TypeScript program that uses the package compiles against its types alone, and a wrong one does not."""
    compiler = WEB / "node_modules" / "typescript" / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022", "--types", ""]
    head = 'import { Detector, type Detection } from "tiny-kws";\nconst d = await Detector.load(new Uint8Array(1));\n'
    for rest, is_right in (
        ("const found: Detection[] = await d.process(new Float32Array(1)); found[0]?.label.length;", True),
        ('await d.process("sound");', False),
    ):
        (project / "uses.mts").write_text(head + rest)
        done = subprocess.run(
            ["node", str(compiler), *options, "uses.mts"], cwd=project, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == is_right, done.stdout


def test_the_package_has_pythons_version_and_defaults() -> None:
    """What stands in web/ again is what the Python package says: its version, and the settings of the detector."""
    assert json.loads((WEB / "npm" / "package.json").read_text(encoding="utf-8"))["version"] == __version__
    defaults = json.loads((WEB / "src" / "defaults.json").read_text(encoding="utf-8"))
    config = {**settings_of(DetectorConfig()), "words": []}
    assert defaults == {"detector": config, "not_words": list(NOT_WORDS)}
