"""Words of one's own, from a folder of recordings to a page that hears them, by the commands that users type."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tiny_kws import StreamModel
from tiny_kws.audio import read_mono

from .helpers import run_cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng, which speaks the words, is not installed"),
]

WORDS = ("computer", "lumière", "hey lamp")
OTHERS = ("window", "banana")
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en+f2", "en+f4", "en+m3", "en-us+f1", "en-us+m7")
PITCHES = (35, 60)
WINDOW_S = 1.5


def speak(text: str, voice: str, pitch: int, path: Path) -> None:
    """Have espeak-ng say a text into a WAV file, at its own 22.05 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["espeak-ng", "-v", voice, "-p", str(pitch), "-w", str(path), text], check=True, capture_output=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of word folders: three words of one's own and two others, each by eight voices, twice."""
    folder = tmp_path_factory.mktemp("recordings") / "mine"
    for word in (*WORDS, *OTHERS):
        for i, voice in enumerate(VOICES):
            for n, pitch in enumerate(PITCHES):
                speak(word, voice, pitch, folder / word / f"voice{i}_nohash_{n}.wav")
    noise = np.random.default_rng(0).normal(0, 0.02, 20 * 16000)
    (folder / "_background_noise_").mkdir()
    sf.write(folder / "_background_noise_" / "hiss.wav", noise, 16000)
    return folder


def tiny_kws(*args: object) -> str:
    """What `tiny-kws ARGS` prints; it must end well."""
    done = run_cli(*map(str, args))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands made of them: prepared data, a training of two epochs, artefacts."""
    folder = tmp_path_factory.mktemp("made")
    words = ",".join(WORDS)
    window = ["--window-ms", str(round(1000 * WINDOW_S))]
    said = tiny_kws("data", "prepare", recordings, "--words", words, *window, "--out", folder / "prepared")
    assert "banana" in said
    training = ["--model", "micro", "--epochs", 2, "--batch-size", 16, "--device", "cpu"]
    tiny_kws("train", folder / "prepared", *training, "--out", folder / "run")
    export = ["--out", folder / "mine.onnx", "--data", folder / "prepared", "--stream", 40]
    tiny_kws("export", folder / "run" / "best.pt", *export)
    return folder


@pytest.fixture(scope="module")
def long_recording(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three words one after another, with two seconds of faint noise around each."""
    rng = np.random.default_rng(1)
    pieces = []
    for word in WORDS:
        audio, rate = sf.read(recordings / word / "voice0_nohash_0.wav")
        pieces += [rng.normal(0, 0.001, 2 * rate), audio]
    path = tmp_path_factory.mktemp("long") / "three.wav"
    sf.write(path, np.concatenate([*pieces, rng.normal(0, 0.001, 2 * rate)]), rate)
    return path


def test_prepared_data_hold_the_words(made: Path) -> None:
    """The prepared data are of these words, in windows of the length asked for."""
    from tiny_kws.data.prepared import open_prepared

    data = open_prepared(made / "prepared")
    assert data.vocabulary.words == WORDS
    assert data.bank.shape[1] == data.window == round(16000 * WINDOW_S)
    speakers = {split: {data.clips[i].speaker for i in data.rows(split)} for split in ("training", "validation")}
    assert not (speakers["training"] & speakers["validation"]) - {""}


def test_info_tells_words_window_and_hop(made: Path) -> None:
    """`info` of both artefacts tells the words, the window and, of the stream's, the hop."""
    for name, hop in (("mine.onnx", 0), ("mine.stream.onnx", 640)):
        found = json.loads(tiny_kws("info", made / name, "--json"))
        assert set(found["labels"]) == {"silence", "unknown", *WORDS}
        assert (found["window"], found["hop"]) == (round(16000 * WINDOW_S), hop)


def test_classify_answers_in_these_words(made: Path, recordings: Path) -> None:
    """`classify` of a recording gives the probabilities of these words' labels."""
    lines = tiny_kws("classify", recordings / "computer", "--model", made / "mine.onnx", "--json", "--top", 5)
    for line in lines.splitlines():
        assert set(json.loads(line)["top"]) == {"silence", "unknown", *WORDS}


@pytest.mark.parametrize("artefact", ["mine.onnx", "mine.stream.onnx"])
def test_detect_finds_these_words(made: Path, long_recording: Path, artefact: str) -> None:
    """`detect` with a low threshold finds events of these words alone, no longer than the window."""
    options = ["--model", made / artefact, "--threshold", 0.05, "--json"]
    events = [json.loads(line) for line in tiny_kws("detect", long_recording, *options).splitlines()]
    assert events
    assert {event["label"] for event in events} <= set(WORDS)
    lengths_s = [event["end_s"] - event["start_s"] for event in events if event["start_s"] > 0]
    assert all(WINDOW_S / 3 - 1e-6 < length_s < WINDOW_S + 1e-6 for length_s in lengths_s)


def test_words_narrow_what_is_found(made: Path, long_recording: Path) -> None:
    """With `--words` only those can be events."""
    options = ["--model", made / "mine.stream.onnx", "--threshold", 0.05, "--json", "--words", "hey lamp"]
    events = [json.loads(line) for line in tiny_kws("detect", long_recording, *options).splitlines()]
    assert {event["label"] for event in events} <= {"hey lamp"}


def test_evaluate_and_compare(made: Path, tmp_path: Path) -> None:
    """`evaluate` measures both checkpoint and artefact, and `compare` finds no difference."""
    for model, out in ((made / "run" / "best.pt", "a"), (made / "mine.onnx", "b")):
        tiny_kws("evaluate", model, "--data", made / "prepared", "--out", tmp_path / out)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["per_class"]) == {"silence", "unknown", *WORDS}
    clean = json.loads(tiny_kws("compare", tmp_path / "a", tmp_path / "b", "--json"))["conditions"]["clean"]
    assert (clean["only_a_right"], clean["only_b_right"]) == (0, 0)


def test_streams_are_made_measured_and_calibrated(made: Path, recordings: Path, tmp_path: Path) -> None:
    """`make-stream`, `evaluate-stream` and `calibrate` take these words."""
    stream = ["--clips", recordings, "--labels", ",".join(WORDS), "--split", "all", "--snr", "clean"]
    amounts = ["--speech-hours", 0, "--noise-hours", 0, "--keywords", 20, "--others", 10, "--room-share", 0]
    tiny_kws("make-stream", tmp_path / "streams", *stream, *amounts)
    manifest = tmp_path / "streams" / "clean" / "manifest.jsonl"
    labels = {json.loads(line)["label"] for line in manifest.read_text(encoding="utf-8").splitlines()}
    assert set(WORDS) < labels
    tiny_kws("evaluate-stream", made / "mine.stream.onnx", "--manifest", manifest, "--out", tmp_path / "measured")
    room = tmp_path / "room.wav"
    sf.write(room, np.random.default_rng(2).normal(0, 0.01, 60 * 16000), 16000)
    examples = tmp_path / "examples"
    for word in WORDS:
        shutil.copytree(recordings / word, examples / word)
    calibrated = ["--room", room, "--examples", examples, "--out", tmp_path / "room.json"]
    tiny_kws("calibrate", *calibrated, "--model", made / "mine.stream.onnx")
    assert set(json.loads((tmp_path / "room.json").read_text(encoding="utf-8"))["detector"]["thresholds"]) <= set(WORDS)


def test_push_describes_them(made: Path, tmp_path: Path) -> None:
    """The model card that `push` writes names these words and none of others."""
    pytest.importorskip("huggingface_hub")
    folder = shutil.copytree(made / "run", tmp_path / "mine")
    for artefact in made.glob("mine*.onnx"):
        shutil.copy(artefact, folder)
    tiny_kws("push", "ada/mine", "--folder", folder, "--model", "mine", "--dry-run", tmp_path / "dry")
    card = next((tmp_path / "dry").rglob("README.md")).read_text(encoding="utf-8")
    assert all(word in card for word in WORDS)
    assert "yes" not in card.split()


@pytest.mark.browser
def test_the_page_finds_what_python_finds(made: Path, long_recording: Path) -> None:
    """The page of `demo --model` shows these labels, and gives Python's probabilities and events of a recording."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    from . import test_web as web

    if web.CHROMIUM is None:
        pytest.skip("needs Chromium (on Debian: apt install chromium)")
    model = made / "mine.stream.onnx"
    with web.serving([model]) as url, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=web.CHROMIUM, args=list(web.OPTIONS), ignore_default_args=["--headless"]
        )
        with web.opened(browser, url) as page:
            assert page.input_value("#model") == "mine"
            assert set(page.locator("#bars li > span:first-child").all_inner_texts()) == {"silence", "unknown", *WORDS}
            audio = read_mono(long_recording)
            expected = StreamModel(model).stream().process(audio)
            assert np.abs(web.rows_in_page(page, model.name, audio) - expected).max() < 1e-3
            threshold = web.set_threshold(page, -0.95)
            sf.write(long_recording.with_name("16k.wav"), audio, 16000, subtype="FLOAT")
            page.set_input_files("#file", long_recording.with_name("16k.wav"))
            events = list(web.detector(threshold, str(model)).detect(audio))
            found = [(event["label"], event["start"], event["end"]) for event in web.found_in_file(page)]
            assert found == [(event.label, event.start_s, event.end_s) for event in events]
        browser.close()
