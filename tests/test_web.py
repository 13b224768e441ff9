"""The page in a real browser, with recordings for a microphone; Python's own answers say what is right."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
import soxr

from tiny_kws import Detector, DetectorConfig, StreamModel
from tiny_kws.apps.server import PageServer, _Handler, export_page
from tiny_kws.artefact.store import DEFAULT_MODELS, bundled_models, find_model
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE, settings_of
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.listening.decoder import Decoder, Detection
from tiny_kws.words import NOT_WORDS, is_word

from .helpers import changed_artefact, silent_film, write_sound
from .stream_models import noise_model, relabelled

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (on Debian: apt install chromium)"),
]

EXAMPLES = Path(__file__).parents[1] / "examples"
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
THRESHOLD = 0.5  # where the slider's position is 0
MAX_WORDS = 4
LATEST_MS = 150  # in the page after Python
TIMEOUT_MS = 60_000

Page = Any
Browser = Any
Samples = npt.NDArray[np.float32]
Launch = Callable[..., AbstractContextManager[Browser]]


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """A context manager that starts a Chromium of its own with further options."""
    with sync_api.sync_playwright() as playwright:

        @contextmanager
        def chromium(*options: str) -> Iterator[Browser]:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=[*OPTIONS, *options], ignore_default_args=["--headless"]
            )
            yield browser
            browser.close()

        yield chromium


def microphone_playing(recording: Path | str) -> list[str]:
    """Options for a microphone that plays a recording once; whoever asks may have it."""
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={recording}%noloop",
    ]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where the page is served."""
    with serving() as address:
        yield address


@contextmanager
def serving(own: Sequence[Path] = ()) -> Iterator[str]:
    """The address of a server of the page, with models of one's own."""
    with PageServer(0, own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser(launch: Launch, recording: Path) -> Iterator[Browser]:
    """A Chromium whose microphone plays `recording`; for tests that do not begin to listen twice."""
    with launch(*microphone_playing(recording)) as running:
        yield running


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The page, loaded and ready; no script of it may fail."""
    with opened(browser, url) as ready:
        yield ready


@pytest.fixture(scope="module")
def bare(browser: Browser, url: str) -> Iterator[Page]:
    """A page for tests that only use its module."""
    with opened(browser, url) as ready:
        yield ready


@contextmanager
def opened(browser: Browser, url: str, script: str = "", state: str = "ready", **options: Any) -> Iterator[Page]:
    """The page in a profile of its own, once its state is `state`, if any; `script` runs before its own."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    failures: list[str] = []
    if script:
        context.add_init_script(script)
    page = context.new_page()
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda message: failures.extend(errors_in(message)))
    page.goto(url)
    if state:
        page.wait_for_selector(f"html[data-state={state}]", state="attached")
    yield page
    context.close()
    assert failures == []


def errors_in(message: Any) -> list[str]:
    """What a line of the console says, if it is an error that no test brings about: a refused or missing file."""
    is_wanted = any(text in message.text for text in ("Failed to load resource", "Content Security Policy"))
    return [message.text] if message.type == "error" and not is_wanted else []


@pytest.fixture(scope="module")
def audio() -> Samples:
    """Words, each with a second of quiet noise behind it, that Python hears at any of several thresholds."""
    rng = np.random.default_rng(0)
    quiet = lambda: rng.normal(0, 1e-3, SAMPLE_RATE).astype(np.float32)  # noqa: E731
    parts = [quiet()]
    for path in sorted(EXAMPLES.iterdir()):
        clip = read_mono(path)
        found = {
            tuple(words_in(np.concatenate([quiet()[:n], clip, quiet()]), t)) for n in (8000, 8211) for t in (0.3, 0.7)
        }
        if len(found) == 1 and len(next(iter(found))) == 1 and len(parts) < 2 * MAX_WORDS:
            parts += [clip, quiet()]
    assert len(parts) > 2 * 2, "the model hears fewer than two of the examples"
    return np.round(np.concatenate(parts) * 32768).clip(-32768, 32767).astype(np.float32) / 32768


def words_in(audio: Samples, threshold: float = THRESHOLD) -> list[str]:
    """What Python's detector hears in it."""
    return [event.label for event in detector(threshold).detect(audio)]


def detector(threshold: float = THRESHOLD, model: str | None = None) -> Detector:
    own = Detector(model)
    return Detector(own.model, replace(own.config, threshold=threshold, thresholds={}))


@pytest.fixture(scope="module")
def recording(audio: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a WAV of 16 bits; not to be written to."""
    path = tmp_path_factory.mktemp("said") / "said.wav"
    sf.write(path, audio, SAMPLE_RATE, subtype="PCM_16")
    return path


def packed(values: npt.NDArray[Any]) -> str:
    """Float32 values for the page."""
    return base64.b64encode(np.ascontiguousarray(values, np.float32).tobytes()).decode()


def called(page: Page, body: str, *arguments: Any) -> Any:
    """What the body of an async function gives; `kws` is the page's own module, `args` what follows here."""
    script = """async (args) => {
        const kws = await import('./kws.js');
        const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
        %s
    }"""
    return page.evaluate(script % body, list(arguments))


def rows_in_page(page: Page, file: str, audio: Samples) -> npt.NDArray[np.float64]:
    """What a served model gives in the page of samples in chunks of any size: probabilities (hops, labels)."""
    sizes = np.random.default_rng(2).integers(1, 3000, 100).tolist()
    rows = called(
        page,
        """const bytes = new Uint8Array(await (await fetch('models/' + encodeURIComponent(args[0]))).arrayBuffer());
        const stream = (await kws.StreamModel.load(bytes, args[0])).stream();
        const audio = floats(args[1]), rows = [];
        for (let at = 0, i = 0; at < audio.length; i++) {
            const size = args[2][i % args[2].length];
            for (const row of await stream.process(audio.subarray(at, at + size))) rows.push([...row]);
            at += size;
        }
        return rows;""",
        file,
        packed(audio),
        sizes,
    )
    return np.array(rows)


def set_threshold(page: Page, position: float = 0) -> float:
    """Move the slider, further to the right to be less strict; the threshold it stands for."""
    page.eval_on_selector(
        "#threshold", "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')) }", position
    )
    return float(page.get_attribute("#threshold", "data-value"))


def heard(page: Page) -> list[dict[str, str]]:
    """Words heard live, first ones first."""
    found: list[dict[str, str]] = page.eval_on_selector_all("#heard li", "all => all.map((li) => ({ ...li.dataset }))")
    return found[::-1]


def found_in_file(page: Page) -> list[dict[str, Any]]:
    """Words found in the dropped recording, once it was heard out."""
    page.wait_for_selector("#recording[data-state=done]")
    items = page.eval_on_selector_all("#found li", "all => all.map((li) => ({ ...li.dataset }))")
    return [
        {name: item[name] if name == "label" else float(item[name]) for name in ("label", "start", "end", "confidence")}
        for item in items
    ]


def notice(page: Page) -> str:
    """What the page says went wrong, once it says something."""
    page.wait_for_selector("#notice:not([hidden])")
    return str(page.inner_text("#notice p"))


def listen(page: Page) -> None:
    page.click("#listen")
    page.wait_for_selector("html[data-listening=microphone]", state="attached")


def wait_for_words(page: Page, n: int) -> None:
    page.wait_for_selector(f"#heard li:nth-child({n})")
    page.wait_for_timeout(1500)  # and none besides


# ---- the parts that need no page


@pytest.mark.parametrize("name", bundled_models("stream"))
def test_posteriors_are_those_of_python(bare: Page, name: str, audio: Samples) -> None:
    """Browser and Python give the same probabilities of the same samples, within 1e-3, whatever the chunks."""
    noisy = (audio + np.random.default_rng(1).normal(0, 0.01, len(audio))).astype(np.float32)
    rows = rows_in_page(bare, find_model(name, "stream").name, noisy)
    expected = StreamModel(name).stream().process(noisy)
    assert rows.shape == expected.shape
    assert np.abs(rows - expected).max() < 1e-3


def test_events_are_those_of_python(bare: Page) -> None:
    """The page's decoder makes Python's events, to the last digit, of random probabilities under random settings."""
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(40):
        walk = np.cumsum(rng.normal(0, 0.6, (600, len(LABELS))), 0)
        rows = np.exp(3 * np.sin(walk))
        rows = (rows / rows.sum(1, keepdims=True)).astype(np.float32)
        words = rng.permutation([label for label in LABELS if is_word(label)]).tolist()
        config = DetectorConfig(
            smoothing_ms=float(rng.choice([1, 40, 100, 120, 300])),
            threshold=rng.uniform(0.2, 0.7),
            thresholds={word: rng.uniform(0.2, 0.9) for word in words[:3]},
            words=words[2:9] if rng.random() < 0.3 else [],
            min_duration_ms=float(rng.choice([0, 40, 60, 120])),
            release=float(rng.choice([0.3, 0.5, 1.0])),
            rise_ms=float(rng.choice([0, 200, 500])),
            refractory_ms=float(rng.choice([0, 100, 700, 701])),
        )
        labels = rng.permutation(LABELS).tolist()
        hop_s = int(rng.choice([320, 441, 625, 640, 1280])) / SAMPLE_RATE
        window_s = float(rng.choice([0.5, 1.0, 1.5, 2.0]))
        expected = [asdict(event) for event in Decoder(labels, hop_s, config, window_s).process(rows)]
        cases.append((packed(rows), labels, hop_s, window_s, settings_of(config), expected))
    assert sum(len(expected) for *_, expected in cases) > 200
    found = called(
        bare,
        """const [notWords, cases] = args;
        return cases.map(([packed, labels, hop, window, config]) => {
            const decoder = new kws.Decoder(labels, notWords, hop, window, config);
            const rows = floats(packed), events = [];
            for (let at = 0; at < rows.length; at += labels.length) {
                const event = decoder.process(rows.subarray(at, at + labels.length));
                if (event) events.push(event);
            }
            return events;
        });""",
        list(NOT_WORDS),
        [case[:-1] for case in cases],
    )
    assert found == [expected for *_, expected in cases]


def test_an_event_is_written_as_python_writes_it(bare: Page) -> None:
    """The JSON of an event is letter by letter that of Python, whatever the word, the file and the numbers."""
    rng = np.random.default_rng(0)
    words = ["stop", "tænd lyset", "左", 'say "go"\\', "two\nlines", "توقف", "🎵"]
    times = [[0.0, 1.0], [2.5, 3.5], [1e5, 1e5 + 1], *np.round(rng.uniform(0, 7200, (20, 2)), 6).tolist()]
    events = [Detection(words[i % len(words)], *times[i], round(rng.uniform(0.1, 1), 6)) for i in range(len(times))]
    cases = [(asdict(event), file, None) for event in events for file in ("a.mp3", "Übung 1.wav")]
    cases += [(asdict(event), None, "2026-05-04T03:02:01.000Z") for event in events]
    found = called(bare, "return args[0].map(([event, file, time]) => kws.eventJson(event, file, time));", cases)
    assert found == [Detection(**event).to_json(file, time) for event, file, time in cases]


@pytest.mark.parametrize("withheld", [False, True])
def test_the_checksum_is_sha256_everywhere(bare: Page, withheld: bool) -> None:
    """The sum of bytes is that of hashlib, also where the browser withholds its own, as on pages over plain http."""
    cases = [bytes(range(251)) * 4000, *(b"x" * n for n in (0, 1, 55, 56, 63, 64, 65, 119, 120))]
    found = called(
        bare,
        """const own = Object.getOwnPropertyDescriptor(Crypto.prototype, 'subtle');
        if (args[1]) Object.defineProperty(Crypto.prototype, 'subtle', { get: () => undefined, configurable: true });
        const sums = [];
        for (const text of args[0]) sums.push(await kws.sha256(Uint8Array.from(atob(text), (c) => c.charCodeAt(0))));
        Object.defineProperty(Crypto.prototype, 'subtle', own);
        return sums;""",
        [base64.b64encode(case).decode() for case in cases],
        withheld,
    )
    assert found == [hashlib.sha256(case).hexdigest() for case in cases]


RESAMPLE = """const [rate, packed, sizes] = args;
const resampler = new kws.Resampler(rate, 16000), audio = floats(packed), parts = [];
for (let at = 0, i = 0; at < audio.length; i++) {
    parts.push(...resampler.process(audio.subarray(at, at + sizes[i % sizes.length])));
    at += sizes[i % sizes.length];
}
return [...parts, ...resampler.finish()];"""
RATES = [8000, 11025, 22050, 32000, 44100, 48000, 96000, 44056, 192000]


@pytest.mark.parametrize("rate", RATES)
def test_any_rate_is_resampled_without_aliases(bare: Page, rate: int) -> None:
    """Tones below 7 kHz come through to -75 dB at their time; those that 16 kHz cannot hold are down by 75 dB."""
    time_s = np.arange(rate) / rate
    at_s = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    inner = slice(1600, -1600)
    for tone_hz in (440, 3111, 6900, 9000, 15000):
        if tone_hz > 0.43 * rate:
            continue
        found = np.array(called(bare, RESAMPLE, rate, packed(np.sin(2 * np.pi * tone_hz * time_s)), [1024]))
        expected = np.sin(2 * np.pi * tone_hz * at_s) if tone_hz < 8000 else np.zeros(SAMPLE_RATE)
        assert len(found) == SAMPLE_RATE
        assert np.abs(found - expected)[inner].max() < 10 ** (-75 / 20), tone_hz


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 44056])
def test_chunks_do_not_matter_to_the_resampler(bare: Page, rate: int) -> None:
    """The same samples give the same output, to the last bit, however they are divided."""
    noise = packed(np.random.default_rng(0).normal(0, 0.1, rate // 2))
    sizes = np.random.default_rng(1).integers(1, 2000, 50).tolist()
    whole = called(bare, RESAMPLE, rate, noise, [rate])
    assert called(bare, RESAMPLE, rate, noise, sizes) == whole
    assert len(whole) == SAMPLE_RATE // 2


def test_the_resampler_agrees_with_pythons(bare: Page, audio: Samples) -> None:
    """Speech at 48 kHz becomes what soxr makes of it, but for the last tenth of the band."""
    at_48k = soxr.resample(audio[: 2 * SAMPLE_RATE], SAMPLE_RATE, 48000)
    found = np.array(called(bare, RESAMPLE, 48000, packed(at_48k), [480]))
    expected = soxr.resample(at_48k, 48000, SAMPLE_RATE)
    assert len(found) == len(expected)
    assert np.square(found - expected).mean() < 1e-4 * np.square(expected).mean()


# ---- the microphone


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_words_at_the_microphone_come_in_order(
    launch: Launch, recording: Path, audio: Samples, url: str, rate: int
) -> None:
    """A device of any rate: the words of the recording, in order, none besides, soon after they were said."""
    device = f"""const Own = AudioContext;
        AudioContext = class extends Own {{ constructor(o) {{ super({{ ...o, sampleRate: {rate} }}) }} }}"""
    expected = list(detector().detect(audio))
    with launch(*microphone_playing(recording)) as browser, opened(browser, url, device) as page:
        assert set_threshold(page) == THRESHOLD
        listen(page)
        wait_for_words(page, len(expected))
        words = heard(page)
        assert [word["label"] for word in words] == [event.label for event in expected]
        # Where the recording lies in the stream is the browser's affair; that it is the same for all words is not.
        offsets = [float(word["end"]) - event.end_s for word, event in zip(words, expected, strict=True)]
        assert 1000 * (max(offsets) - min(offsets)) <= LATEST_MS
        assert float(page.get_attribute("#delay", "data-ms")) <= LATEST_MS
        assert f"{rate / 1000:g} →" in page.text_content("#device")
        page.click("#listen")
        page.wait_for_selector("html[data-listening=off]", state="attached")


def test_a_tab_in_the_background_listens_on(launch: Launch, recording: Path, audio: Samples, url: str) -> None:
    """What is said while another tab is in front, frames stand still and timers are slow is in the list."""
    hidden = """requestAnimationFrame = () => 0;
        const own = setTimeout; setTimeout = (what, ms) => own(what, Math.max(1000, ms));"""
    with launch(*microphone_playing(recording)) as browser, opened(browser, url, hidden) as page:
        set_threshold(page)
        listen(page)
        other = page.context.new_page()
        other.goto("about:blank")
        other.bring_to_front()
        other.wait_for_timeout(1000 * len(audio) / SAMPLE_RATE + 1000)
        words = [word["label"] for word in heard(page)]
        assert words == words_in(audio)


def test_a_denied_microphone_is_explained(launch: Launch, url: str) -> None:
    """Denied, the page says so and what else there is, and plays a recording at once."""
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny"]
    with launch(*options) as browser, opened(browser, url) as page:
        page.click("#listen")
        assert "denied" in notice(page)
        assert "recording" in notice(page)
        page.click("#examples button >> nth=0")
        page.wait_for_selector("html[data-listening=recording]", state="attached")


def test_no_microphone_is_explained(launch: Launch, url: str) -> None:
    """Where there is none, the page says to plug one in."""
    missing = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('none', 'NotFoundError') }"
    with launch() as browser, opened(browser, url, missing) as page:
        page.click("#listen")
        assert "Plug one in" in notice(page)
        assert page.is_enabled("#listen")


def test_an_unplugged_microphone_is_told(browser: Browser, url: str) -> None:
    """When the device goes away, listening ends, the page says why, and can listen again."""
    keep = """const own = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (what) => window.stream = await own(what);"""
    with opened(browser, url, keep) as page:
        listen(page)
        page.evaluate("window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
        assert "unplugged" in notice(page)
        page.wait_for_selector("html[data-listening=off]", state="attached")
        listen(page)


@pytest.mark.slow
def test_a_silent_microphone_is_told(launch: Launch, tmp_path: Path, url: str) -> None:
    """Ten seconds of digital silence, and the page asks whether the microphone is muted."""
    silence = tmp_path / "silence.wav"
    sf.write(silence, np.zeros(SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    with launch(*microphone_playing(silence)) as browser, opened(browser, url) as page:
        listen(page)
        assert "muted" in notice(page)
        assert page.get_attribute("html", "data-listening") == "microphone"


def test_one_tab_listens_at_a_time(browser: Browser, url: str) -> None:
    """When a second tab begins, the first stops and says so."""
    with opened(browser, url) as first:
        listen(first)
        second = first.context.new_page()
        second.goto(url)
        second.wait_for_selector("html[data-state=ready]", state="attached")
        listen(second)
        assert "Another tab" in notice(first)
        assert first.get_attribute("html", "data-listening") == "off"
        assert second.get_attribute("html", "data-listening") == "microphone"


# ---- recordings


def test_a_played_example_is_heard(page: Page, audio: Samples) -> None:
    """A recording that is clicked is heard as from a microphone, and the page is ready for the next."""
    sure = [path for path in sorted(EXAMPLES.iterdir()) if len(words_in(read_mono(path), 0.7)) == 1]
    set_threshold(page)
    page.click(f"[data-example='{sure[0].name}']")
    page.wait_for_selector("#heard li")
    page.wait_for_selector("html[data-listening=off]", state="attached")
    page.wait_for_timeout(500)
    assert [word["label"] for word in heard(page)] == words_in(read_mono(sure[0]))


def test_a_dropped_file_is_heard_as_python_hears_it(page: Page, recording: Path, audio: Samples) -> None:
    """The same samples give the same words at the same times."""
    set_threshold(page)
    page.set_input_files("#file", recording)
    found = found_in_file(page)
    expected = list(detector().detect(audio))
    assert [(e["label"], e["start"], e["end"]) for e in found] == [(e.label, e.start_s, e.end_s) for e in expected]
    assert np.abs([e["confidence"] - x.confidence for e, x in zip(found, expected, strict=True)]).max() < 1e-3


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"), [("wav", 44100, 2), ("flac", 48000, 1), ("mp3", 44100, 2), ("ogg", 22050, 1)]
)
def test_files_of_any_kind(page: Page, audio: Samples, tmp_path: Path, suffix: str, rate: int, channels: int) -> None:
    """Other formats, rates and channels: the words that Python hears in them, within 150 ms."""
    path = tmp_path / f"said.{suffix}"
    sounds = soxr.resample(audio, SAMPLE_RATE, rate)
    sf.write(path, np.stack([sounds] * channels, 1), rate)
    set_threshold(page)
    page.set_input_files("#file", path)
    found = found_in_file(page)
    expected = list(detector().detect(path))
    assert [e["label"] for e in found] == [e.label for e in expected]
    assert 1000 * max(abs(e["end"] - x.end_s) for e, x in zip(found, expected, strict=True)) <= LATEST_MS


def test_another_threshold_decides_a_file_anew(page: Page, recording: Path, audio: Samples) -> None:
    """Moving the slider, or taking the model's own threshold, gives what Python gives with it."""
    page.set_input_files("#file", recording)
    found_in_file(page)
    for position in (-3.5, 0.5):
        threshold = set_threshold(page, position)
        page.wait_for_timeout(500)
        assert [e["label"] for e in found_in_file(page)] == words_in(audio, threshold)
    page.click("#threshold-own")
    page.wait_for_timeout(500)
    assert [e["label"] for e in found_in_file(page)] == [e.label for e in Detector().detect(audio)]


def test_a_file_of_two_hours_is_taken(page: Page, recording: Path, tmp_path: Path) -> None:
    """Two hours begin at once, can be stopped, and leave the page as it was."""
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(120, 136, 2 * 3600 * 8000, np.uint8).tobytes())
    page.set_input_files("#file", path)
    page.wait_for_function("() => /of 2:00:00/.test(document.querySelector('#recording-state').textContent)")
    page.click("#cancel")
    assert "Stopped" in page.inner_text("#recording-state")
    page.set_input_files("#file", recording)
    assert "words" in page.inner_text("#recording-state") or found_in_file(page) is not None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"not a sound at all, but words " * 50, "found no sound in it"),
        ("empty.wav", b"", "is empty"),
        ("samples.wav", None, "holds no samples"),
    ],
)
def test_a_file_that_is_no_sound_is_explained(
    page: Page, recording: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    """What is no sound, or holds none, is named, and the next file is heard."""
    path = tmp_path / name
    if content is None:
        sf.write(path, np.zeros(0), SAMPLE_RATE)
    else:
        path.write_bytes(content)
    page.set_input_files("#file", path)
    assert f"{name}: {said}" in notice(page)
    page.set_input_files("#file", recording)
    found_in_file(page)


@pytest.mark.parametrize("container", ["mp4", "webm", "mov"])
def test_a_film_without_sound_is_explained(page: Page, tmp_path: Path, container: str) -> None:
    """A film that has no soundtrack is named, and what it lacks."""
    path = silent_film(tmp_path / f"silent film.{container}")
    drop(page, path)
    assert f"{path.name}: found no sound in it (no soundtrack)" in notice(page)
    assert "Could not be read" in page.inner_text("#recording-state")


@pytest.mark.parametrize(("seconds", "said"), [(0.8, "no words in 0:00"), (3, "no words in 0:03")])
def test_short_and_silent_files_are_taken(page: Page, tmp_path: Path, seconds: float, said: str) -> None:
    """A recording shorter than the model's window, and one of digital silence, are read to their end without a word."""
    path = tmp_path / "silent.wav"
    sf.write(path, np.zeros(int(seconds * SAMPLE_RATE)), SAMPLE_RATE, subtype="PCM_16")
    page.set_input_files("#file", path)
    assert found_in_file(page) == []
    assert page.inner_text("#recording-state").startswith(said)
    assert page.is_hidden("#notice")


def test_a_file_that_holds_nothing_leaves_an_empty_panel(page: Page, tmp_path: Path, recording: Path) -> None:
    """Of an empty file only its name and what became of it are shown; the next file has its waveform again."""
    (tmp_path / "empty.wav").write_bytes(b"")
    page.set_input_files("#file", tmp_path / "empty.wav")
    assert "is empty" in notice(page)
    assert page.is_hidden("#wave")
    assert page.is_hidden("#player")
    page.set_input_files("#file", recording)
    found_in_file(page)
    assert page.is_visible("#wave")
    assert page.is_visible("#player")


def test_the_label_track_is_that_of_the_command_line(page: Page, recording: Path, audio: Samples) -> None:
    """Saved as Audacity labels, the words are what `tiny-kws detect --labels` writes."""
    set_threshold(page)
    page.set_input_files("#file", recording)
    found_in_file(page)
    with page.expect_download() as download:
        page.click("#save-labels")
    lines = [f"{e.start_s:.6f}\t{e.end_s:.6f}\t{e.label}\n" for e in detector().detect(audio)]
    assert Path(download.value.path()).read_text(encoding="utf-8") == "".join(lines)


def test_saved_json_is_that_of_the_command_line(page: Page, recording: Path, audio: Samples) -> None:
    """Saved as JSON, the words are one event per line, in the form and with the times of `tiny-kws detect --json`."""
    set_threshold(page)
    page.set_input_files("#file", recording)
    found_in_file(page)
    with page.expect_download() as download:
        page.click("#save-json")
    assert download.value.suggested_filename == f"{recording.stem}.jsonl"
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    expected = list(detector().detect(audio))
    assert len(lines) == len(expected) > 0
    for line, event in zip(lines, expected, strict=True):
        confidence = json.loads(line)["confidence"]
        assert abs(confidence - event.confidence) < 1e-3
        assert line == replace(event, confidence=confidence).to_json(file=recording.name)


# ---- what a recording's panel offers


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_result_of_a_file_is_in_sight(browser: Browser, url: str, recording: Path, width: int, height: int) -> None:
    """After a file is chosen its panel is scrolled to: name, waveform and words are seen, the drop box is one line."""
    with opened(browser, url, viewport={"width": width, "height": height}) as page:
        page.set_input_files("#file", recording)
        found_in_file(page)
        page.wait_for_function(
            """() => ['#recording-name', '#wave', '#found li'].every((selector) => {
                const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
                return top >= 0 && bottom <= innerHeight;
            })"""
        )
        assert page.locator("#drop").bounding_box()["height"] < 50


def test_words_are_counted_and_filtered(page: Page, recording: Path, audio: Samples, tmp_path: Path) -> None:
    """Each word has its count; a click on it leaves that word alone, in the list and in what is saved."""
    path = tmp_path / "twice.wav"
    sf.write(path, np.concatenate([audio, audio[: len(audio) // 2]]), SAMPLE_RATE, subtype="PCM_16")
    set_threshold(page)
    page.set_input_files("#file", path)
    words = [event["label"] for event in found_in_file(page)]
    counts = page.locator("#counts button small").all_inner_texts()
    assert [int(count) for count in counts] == [len(words), *(n for _, n in Counter(words).most_common())]
    assert int(counts[1]) > int(counts[-1])
    page.click(f"[data-count='{words[0]}']")
    left = [event for event in found_in_file(page) if event["label"] == words[0]]
    assert len(left) == words.count(words[0])
    assert page.locator("#found li").count() == len(left)
    assert page.evaluate("document.activeElement.dataset.count") == words[0]
    with page.expect_download() as download:
        page.click("#save-csv")
    assert download.value.suggested_filename == "twice.csv"
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "label,start_s,end_s,confidence"
    assert [[label, float(start), float(end)] for label, start, end, _ in (line.split(",") for line in lines[1:])] == [
        [event["label"], event["start"], event["end"]] for event in left
    ]


def test_a_word_is_played_alone(page: Page, recording: Path) -> None:
    """A click on a word found plays from just before it to just after it, and no further."""
    page.set_input_files("#file", recording)
    event = found_in_file(page)[1]
    page.evaluate("document.querySelector('#player').muted = true")
    page.click("#found li:nth-child(2) button")
    page.wait_for_function("() => !document.querySelector('#player').paused")
    page.wait_for_function("() => document.querySelector('#player').paused")
    stopped = page.evaluate("document.querySelector('#player').currentTime")
    assert event["end"] <= stopped <= event["end"] + 0.5


def test_the_waveform_is_zoomed_and_scrolled(page: Page, tmp_path: Path) -> None:
    """Zoomed four times and scrolled to its end, the picture shows the last quarter; a click there plays from it."""
    path = write_sound(tmp_path / "noise.wav", seconds=40)
    page.set_input_files("#file", path)
    found_in_file(page)
    assert page.is_disabled("#zoom-out")
    page.click("#zoom-in")
    page.focus("#wave-scroll")
    page.keyboard.press("+")
    page.evaluate("document.querySelector('#wave-scroll').scrollTo({ left: 1e6, behavior: 'instant' })")
    page.evaluate("document.querySelector('#player').muted = true")
    box = page.locator("#wave-scroll").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
    page.wait_for_function("() => document.querySelector('#player').currentTime > 0")
    assert abs(page.evaluate("document.querySelector('#player').currentTime") - 35) < 1.5
    page.click("#zoom-whole")
    assert page.evaluate("document.querySelector('#wave-room').style.width") == "100%"


def test_many_words_are_shown_when_asked_for(page: Page, tmp_path: Path) -> None:
    """Of hundreds of words the first are listed, none of them cut, and all at a click."""
    words = [f"w{i}" for i in range(200)]
    model = noise_model(
        tmp_path / "any.stream.onnx", words, 1280, 16000, detector={"threshold": 0.3, "smoothing_ms": 0}
    )
    open_model(page, model)
    page.set_input_files("#file", write_sound(tmp_path / "noise.wav", seconds=80))
    shown = len(found_in_file(page))
    expected = len(list(Detector(model).detect(tmp_path / "noise.wav")))
    assert shown < expected
    page.click("#show-all")
    assert len(found_in_file(page)) == expected
    assert page.evaluate(
        "(({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight)(document.querySelector('#found'))"
    )


def test_an_example_keeps_the_words_heard_before(page: Page) -> None:
    """The list grows from recording to recording, and Clear empties it."""
    set_threshold(page)
    for n in (1, 2):
        page.click("[data-example='stop.mp3']")
        page.wait_for_selector(f"#heard li:nth-child({n})")
        page.wait_for_selector("html[data-listening=off]", state="attached")
    assert page.is_enabled("#clear")
    page.click("#clear")
    assert heard(page) == []
    assert page.is_disabled("#clear")


# ---- before and while it listens


def test_an_idle_page_says_the_words_and_moves(page: Page) -> None:
    """Before listening the words stand there, and the picture moves; none counts as heard, and all that ends."""
    assert page.locator("#say li").all_inner_texts() == [label for label in LABELS if is_word(label)]
    picture = "document.querySelector('#scene').toDataURL()"
    page.wait_for_function("() => [...document.querySelectorAll('#bars output')].some((e) => Number(e.value) > 0.5)")
    before = page.evaluate(picture)
    page.wait_for_timeout(500)
    assert page.evaluate(picture) != before
    assert heard(page) == []
    listen(page)
    page.wait_for_selector("#idle", state="hidden")


def test_bars_are_true(page: Page) -> None:
    """While a word is heard, bars and numbers are the probabilities of one moment: equal, and one in sum."""
    page.click("[data-example='left.wav']")
    page.wait_for_selector("html[data-listening=recording]", state="attached")
    moments = page.evaluate(
        """async () => {
            const moments = [];
            for (let i = 0; i < 100; i++) {
                await new Promise(requestAnimationFrame);
                moments.push([...document.querySelectorAll('#bars li')].map((bar) => [
                    Number(bar.querySelector('output').value),
                    Number(bar.querySelector('.fill').style.transform.slice(7, -1) || 0),
                    parseFloat(bar.querySelector('.peak').style.left || 0) / 100,
                ]));
            }
            return moments;
        }"""
    )
    numbers, bars, peaks = np.moveaxis(np.array(moments), 2, 0)
    assert numbers.max() > 0.9
    np.testing.assert_allclose(numbers, bars, atol=1e-9)
    sums = numbers.sum(1)
    np.testing.assert_allclose(sums[sums > 0], 1, atol=0.06)
    assert (peaks >= numbers - 0.011).all()


def test_the_big_word_leaves_the_newest_sound_free(page: Page, url: str) -> None:
    """The word that was heard ends before the newest third of the picture."""
    page.click("[data-example='stop.mp3']")
    page.wait_for_selector("#word.fresh")
    word, scene = (page.locator(selector).bounding_box() for selector in ("#word", ".scene"))
    assert word["x"] + word["width"] <= scene["x"] + 0.67 * scene["width"]


def test_the_menu_says_what_models_are_for(page: Page) -> None:
    """A model that was never tuned for listening stands apart in the menu, and is warned of when it is chosen."""
    untuned = {name for name in bundled_models("stream") if not StreamModel(name).metadata.detector}
    assert 0 < len(untuned) < len(bundled_models("stream"))
    group = page.locator("#model optgroup[label*='false alarms']")
    assert set(group.locator("option").all_inner_texts()) == untuned
    assert "tuned for listening" in page.inner_text("#model-note")
    page.select_option("#model", min(untuned))
    page.wait_for_selector("#model-note.careful")
    assert f"choose {DEFAULT_MODELS['stream']}" in page.inner_text("#model-note")


def test_a_microphone_can_be_chosen(launch: Launch, url: str, recording: Path) -> None:
    """Once one was allowed they have names, and the one that is chosen is the one that is opened."""
    asked = """const own = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (what) => (window.asked = what.audio, own(what));"""
    with launch(*microphone_playing(recording)) as browser, opened(browser, url, asked) as page:
        listen(page)
        page.wait_for_function("() => document.querySelectorAll('#microphone option').length > 2")
        other = page.locator("#microphone option").last.get_attribute("value")
        page.select_option("#microphone", other)
        page.wait_for_function("(id) => window.asked.deviceId?.exact === id", arg=other)
        page.wait_for_selector("html[data-listening=microphone]", state="attached")
        assert page.input_value("#microphone") == other


def test_screen_readers_are_told(page: Page) -> None:
    """What begins, what is heard and what ends is written into the log region, a line each."""
    set_threshold(page)
    page.click("[data-example='stop.mp3']")
    page.wait_for_selector("html[data-listening=off]", state="attached")
    page.wait_for_selector("#heard li")
    first, *lines = page.locator("#log[role=log] p").all_text_contents()
    assert first == "Playing a recording."
    assert sorted(line[:11] for line in lines) == ["Stopped.", "stop, at 0:"]


@pytest.mark.parametrize("refused", [False, True])
def test_light_or_dark_can_be_chosen(browser: Browser, url: str, refused: bool) -> None:
    """The choice overrules the system's and is remembered; where storage is refused it holds all the same."""
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError'); } })"
    with opened(browser, url, refuse if refused else "", color_scheme="dark") as page:
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.select_option("#theme", "light")
        light = page.evaluate(background)
        assert light != dark
        page.reload()
        page.wait_for_selector("html[data-state=ready]", state="attached")
        assert page.evaluate(background) == (dark if refused else light)


# ---- models


def test_another_model_can_be_chosen(page: Page, recording: Path, audio: Samples) -> None:
    """Every bundled stream model can be chosen, and hears the file anew as Python does with it."""
    page.set_input_files("#file", recording)
    for name in bundled_models("stream"):
        page.select_option("#model", name)
        page.wait_for_selector(f"html[data-model={name}]", state="attached")
        page.wait_for_timeout(300)
        assert [e["label"] for e in found_in_file(page)] == [e.label for e in Detector(name).detect(audio)]


def test_a_missing_model_is_told(browser: Browser, url: str) -> None:
    """If the model cannot be fetched the page says so, and another can be chosen."""
    default, *others = sorted(bundled_models("stream"), key=lambda name: name != DEFAULT_MODELS["stream"])
    missing = (
        f"""const own = fetch; fetch = (what, how) => /{default}/.test(what) ? own('nothing-here') : own(what, how);"""
    )
    with opened(browser, url, missing, state="failed") as page:
        assert f"models/{default}.stream.onnx: could not be fetched (status 404)" in notice(page)
        page.select_option("#model", others[0])
        page.wait_for_selector("html[data-state=ready]", state="attached")
        assert page.is_enabled("#listen")
    with opened(browser, url, missing, state="failed") as page:
        open_model(page, find_model(others[0], "stream"))
        assert page.is_enabled("#listen")


def test_a_model_that_does_not_parse_is_told(page: Page, recording: Path, tmp_path: Path) -> None:
    """Garbage, an altered artefact and one for clips are refused, each with its reason; the page goes on."""
    stream = find_model(None, "stream").read_bytes()
    middle = len(stream) // 2
    wrong = {
        "garbage.onnx": (b"\x07garbage" * 100, "is not an ONNX file"),
        "cut.onnx": (stream[:middle], "is not an ONNX file or was cut short"),
        "altered.onnx": (
            stream[:middle] + bytes([stream[middle] ^ 1]) + stream[middle + 1 :],
            "was altered or damaged",
        ),
        "clip.onnx": (find_model(None, "clip").read_bytes(), "is a clip artefact"),
        "empty.onnx": (b"", "has no tiny-kws metadata"),
    }
    for name, (content, said) in wrong.items():
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", tmp_path / name)
        page.wait_for_function(
            "([name]) => document.querySelector('#notice p').textContent.startsWith(name)", arg=[name]
        )
        assert said in notice(page)
        assert f"Going on with {DEFAULT_MODELS['stream']}" in notice(page)
    page.set_input_files("#file", recording)
    found_in_file(page)


OWN_WORDS = {"tænd lyset": "stop", "unknown": "unknown", "左": "left", "silence": "silence", "constructor": "go"}
"""Labels of one's own, in their own order, by what the bundled model calls them; JavaScript knows the last."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream artefact of three words of one's own and a window of 1.5 s; not to be written to."""
    settings = {"threshold": 0.5, "thresholds": {"左": 0.6, "tænd lyset": 0.55}, "smoothing_ms": 120, "rise_ms": 280}
    path = tmp_path_factory.mktemp("own") / "kitchen lights #1.stream.onnx"
    return relabelled(path, OWN_WORDS, window=24000, detector=settings)


@pytest.fixture(scope="module")
def own_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those words, with quiet noise around them; not to be written to."""
    rng = np.random.default_rng(0)
    quiet = [rng.normal(0, 1e-3, 2 * SAMPLE_RATE).astype(np.float32) for _ in range(4)]
    said = [read_mono(EXAMPLES / name) for name in ("stop.mp3", "left.wav", "go.wav")]
    parts = [quiet[0], *(part for pair in zip(said, quiet[1:], strict=True) for part in pair)]
    path = tmp_path_factory.mktemp("said") / "own.wav"
    sf.write(path, np.concatenate(parts), SAMPLE_RATE, subtype="PCM_16")
    return path


def assert_found_as_python_finds(page: Page, model: Path, recording: Path) -> list[str]:
    """The page finds Python's events of `recording` with this model; their words."""
    expected = list(Detector(model).detect(recording))
    found = found_in_file(page)
    assert [(e["label"], e["start"], e["end"]) for e in found] == [(e.label, e.start_s, e.end_s) for e in expected]
    assert all(abs(e["confidence"] - x.confidence) < 1e-3 for e, x in zip(found, expected, strict=True))
    return [event.label for event in expected]


def open_model(page: Page, path: Path) -> None:
    """Choose a model's file beside the menu."""
    with page.expect_file_chooser() as chooser:
        page.click("#open-model")
    chooser.value.set_files(path)
    page.wait_for_function("(name) => document.documentElement.dataset.model === name", arg=path.name)


def drop(page: Page, path: Path) -> None:
    """Drop a file onto the page."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([name, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
            document.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [path.name, content],
    )


def test_words_of_ones_own_are_found_as_python_finds_them(
    browser: Browser, url: str, own: Path, own_recording: Path
) -> None:
    """Dropped without a network, a model of other words, order and window gives Python's events and is shown so."""
    with opened(browser, url) as page:
        page.wait_for_load_state("networkidle")
        page.context.set_offline(True)
        drop(page, own)
        page.wait_for_function("(name) => document.documentElement.dataset.model === name", arg=own.name)
        page.set_input_files("#file", own_recording)
        words = assert_found_as_python_finds(page, own, own_recording)
        assert words == ["tænd lyset", "左", "constructor"]
        lengths_s = [event["end"] - event["start"] for event in found_in_file(page)]
        assert all(0.5 - 1e-6 < length_s < 1.5 + 1e-6 for length_s in lengths_s)
        assert page.locator("#bars li > span:first-child").all_inner_texts() == list(OWN_WORDS)
        ticks = page.locator("#bars .tick").evaluate_all("all => all.map((tick) => tick.hidden)")
        assert ticks == [label in NOT_WORDS for label in OWN_WORDS]
        assert page.is_hidden("#notice")


def test_words_of_ones_own_come_from_the_microphone(launch: Launch, own: Path, own_recording: Path) -> None:
    """A page that is served with a model of one's own begins with it, and hears its words live, in order."""
    microphone = microphone_playing(own_recording)
    with serving([own]) as address, launch(*microphone) as browser, opened(browser, address) as page:
        assert page.get_attribute("html", "data-model") == "kitchen lights #1"
        listen(page)
        wait_for_words(page, 3)
        assert [word["label"] for word in heard(page)] == ["tænd lyset", "左", "constructor"]


@pytest.mark.parametrize(
    ("labels", "hop", "window"),
    [
        (["λέξη"], 625, 8000),
        (["b", "silence", "__proto__", "a"], 400, 24000),
        ([f"w {i}" for i in range(200)], 1280, 32000),
    ],
)
def test_any_number_of_labels_any_hop_and_any_window(
    page: Page, tmp_path: Path, labels: list[str], hop: int, window: int
) -> None:
    """1 to 200 labels, hops of 25 to 80 ms, windows of half a second to two: Python's events."""
    settings = {"threshold": 0.3, "smoothing_ms": 0, "refractory_ms": 200}
    model = noise_model(tmp_path / "any.stream.onnx", labels, hop, window, detector=settings)
    recording = write_sound(tmp_path / "noise.wav", seconds=8)
    open_model(page, model)
    page.set_input_files("#file", recording)
    words = set(assert_found_as_python_finds(page, model, recording))
    assert len(words) >= min(len(set(labels) - set(NOT_WORDS)), 20)


def test_a_model_of_ones_own_stays_in_the_menu(page: Page, own: Path, own_recording: Path, tmp_path: Path) -> None:
    """One can go to another model and come back, also after a damaged file of the same name was refused."""
    page.set_input_files("#file", own_recording)
    for _ in range(2):
        open_model(page, own)
        assert page.input_value("#model") == own.name
    damaged = tmp_path / own.name
    damaged.write_bytes(own.read_bytes()[:-100])
    drop(page, damaged)
    assert f"Going on with {own.name}" in notice(page)
    for name in (DEFAULT_MODELS["stream"], own.name):
        page.select_option("#model", name)
        page.wait_for_function("(name) => document.documentElement.dataset.model === name", arg=name)
    page.wait_for_timeout(300)
    assert_found_as_python_finds(page, own, own_recording)
    assert page.locator("#model option").count() == len(bundled_models("stream")) + 1


def test_a_graph_unlike_its_metadata_is_refused(page: Page, own: Path, tmp_path: Path) -> None:
    """A model that gives more probabilities than it names labels is refused, with both numbers."""
    changed_artefact(own, tmp_path / "short.onnx", labels=["a", "b"], detector={})
    drop(page, tmp_path / "short.onnx")
    assert "gives 5 probabilities, expected a hop of 640 and 2 labels" in notice(page)


def test_examples_of_its_words_stand_out(page: Page, tmp_path: Path) -> None:
    """The recordings that say one of the model's words are marked; with none of them, the page says so."""
    marked = "#examples button[style*='--word']"
    assert page.locator(marked).count() == sum(
        not path.name.startswith(("other", "sil")) for path in EXAMPLES.iterdir()
    )
    open_model(page, relabelled(tmp_path / "one.onnx", {"silence": "silence", "seven": "yes"}))
    assert page.locator(marked).all_inner_texts() == ["seven"]
    open_model(page, relabelled(tmp_path / "none.onnx", {"silence": "silence", "sept": "yes"}))
    assert page.locator(marked).count() == 0
    assert "None of them" in page.inner_text("#examples-note")


def test_a_browser_without_simd_is_told(browser: Browser, url: str) -> None:
    """Where WebAssembly has no SIMD, the page says what to update."""
    with opened(browser, url, "WebAssembly.validate = () => false", state="failed") as page:
        assert "SIMD" in notice(page)


# ---- the page itself


def test_everything_works_without_a_network(browser: Browser, url: str, recording: Path) -> None:
    """Once loaded, listening, recordings, files and other models need no network."""
    with opened(browser, url) as page:
        page.wait_for_load_state("networkidle")
        page.context.set_offline(True)
        for name in bundled_models("stream"):
            page.select_option("#model", name)
            page.wait_for_selector(f"html[data-model={name}]", state="attached")
        page.click("#examples button >> nth=0")
        page.wait_for_selector("html[data-listening=recording]", state="attached")
        page.set_input_files("#file", recording)
        found_in_file(page)
        listen(page)
        page.wait_for_function("() => document.querySelector('#delay').dataset.ms")
        assert page.is_hidden("#notice")


@pytest.mark.parametrize("path", ["", "deep/down/"])
def test_it_opens_again_without_a_network(browser: Browser, tmp_path: Path, recording: Path, path: str) -> None:
    """After one visit the page opens where no server answers, also under a sub-path, and finds words."""
    export_page(tmp_path / path / "page")
    handler = partial(QuietFiles, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/{path}page/"
        with opened(browser, address) as page:
            page.wait_for_selector("html[data-offline=ready]", state="attached")
            assert "without a network" in page.inner_text("#offline")
            server.shutdown()
            server.server_close()
            thread.join()
            page.reload()
            page.wait_for_selector("html[data-state=ready]", state="attached")
            page.set_input_files("#file", recording)
            assert found_in_file(page)
            for name in bundled_models("stream"):
                page.select_option("#model", name)
                page.wait_for_selector(f"html[data-model={name}]", state="attached")
            assert page.is_hidden("#notice")


class QuietFiles(SimpleHTTPRequestHandler):
    """Any host of static files: it packs nothing and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_no_sound_can_leave(page: Page) -> None:
    """The page may fetch nothing but files of its own folder."""
    refused = "fetch('http://127.0.0.1:9/', { method: 'POST', body: 'sound' }).then(() => 'sent', (e) => e.message)"
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        assert page.evaluate(refused) == "Failed to fetch"


def test_it_works_by_keyboard(browser: Browser, url: str) -> None:
    """Tab reaches every control in order, Enter begins to listen, arrows change the sensitivity."""
    with opened(browser, url) as page:
        order = []
        for _ in range(40):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.example || ''"))
        wanted = ["theme", "listen", "microphone", "model", "threshold", "file"]
        assert [name for name in order if name in wanted][: len(wanted)] == wanted
        assert sum(name.endswith((".wav", ".flac", ".mp3", ".ogg")) for name in order) >= len(list(EXAMPLES.iterdir()))
        before = float(page.get_attribute("#threshold", "data-value"))
        page.focus("#threshold")
        page.keyboard.press("ArrowRight")
        assert float(page.get_attribute("#threshold", "data-value")) < before
        page.focus("#listen")
        page.keyboard.press("Enter")
        page.wait_for_selector("html[data-listening=microphone]", state="attached")
        assert page.get_attribute("#listen", "aria-pressed") == "true"


def test_every_control_has_a_name(page: Page) -> None:
    """Buttons, inputs, pictures and meters say what they are to those who do not see them."""
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
            'button, input, select, canvas, progress, [role=meter]'
        )].filter((e) => !(
            e.textContent.trim() || e.ariaLabel || e.getAttribute('aria-labelledby') || (e.labels && e.labels.length)
        )).map((e) => e.id || e.outerHTML)"""
    )
    assert nameless == []


CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const parsed = (colour, over) => {
        canvas.fillStyle = over ?? '#000';
        canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
        return `rgb(${r} ${g} ${b})`;
    };
    const behind = (e) => {
        const under = e.parentElement ? behind(e.parentElement) : '#fff';
        return parsed(getComputedStyle(e).backgroundColor, under);
    };
    const light = (rgb) => {
        const part = rgb.match(/[\\d.]+/g).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
    };
    const low = [];
    for (const e of document.querySelectorAll('body *')) {
        const has = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!has || !e.checkVisibility({ opacityProperty: true })) continue;
        if (e.matches(':disabled, noscript, option, .hidden, .skip')) continue;
        const under = behind(e);
        const [a, b] = [light(parsed(getComputedStyle(e).color, under)), light(under)].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) low.push([e.textContent.trim().slice(0, 30), (a + 0.05) / (b + 0.05)]);
    }
    return low;
}"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_can_be_read(browser: Browser, url: str, recording: Path, scheme: str) -> None:
    """All text has a contrast of 4.5 and more with what is behind it (WCAG 2.2, AA), in dark and in light."""
    with opened(browser, url, color_scheme=scheme) as page:
        page.set_input_files("#file", recording)
        found_in_file(page)
        assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize(
    ("width", "height"), [(320, 640), (390, 844), (768, 1024), (844, 390), (1280, 800), (1920, 1080)]
)
def test_it_fits_any_size(browser: Browser, url: str, recording: Path, width: int, height: int) -> None:
    """Nothing sticks out to the side or is cut, down to the smallest phone; Listen and the words are in sight."""
    with opened(browser, url, viewport={"width": width, "height": height}) as page:
        for selector in ("#listen", "#say"):
            box = page.locator(selector).bounding_box()
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height
        for selector in ("#idle", "#bars"):
            assert page.eval_on_selector(selector, "({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight")
        page.click("summary")
        page.set_input_files("#file", recording)
        found_in_file(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == []


LONG_WORDS = {
    "turn on the lights please": "stop",
    "silence": "silence",
    "Donaudampfschifffahrtsgesellschaftskapitän": "left",
    "توقف": "go",
    "안녕 컴퓨터": "right",
    "हे बत्ती": "up",
    **{f"kitchen lamp number {i}": "no" for i in range(100)},
}
CUT = """() => [
    ...document.querySelectorAll('#bars li > span, #bars output, .chip, .choice, .controls button, #origin, ' +
    '#say li, .row, dd, header > *')
].filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')
    .map((e) => e.textContent)"""
OVERLAPPING = """() => [...document.querySelectorAll('#bars li')].flatMap((row) => {
    const [name, bar, number] = [...row.children].map((e) => e.getBoundingClientRect());
    const text = document.createRange();
    text.selectNodeContents(row.firstElementChild);
    const { right } = text.getBoundingClientRect();
    return right > bar.left || bar.right > number.left || bar.width < 24 ? [row.textContent] : [];
})"""


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_long_and_many_words_have_room(
    browser: Browser, url: str, own_recording: Path, tmp_path: Path, width: int
) -> None:
    """With a hundred labels, long ones and ones of other scripts among them, nothing is cut and nothing overlaps."""
    model = relabelled(
        tmp_path / "a model with quite a long name of its own.onnx", LONG_WORDS, detector={"threshold": 0.5}
    )
    with opened(browser, url, viewport={"width": width, "height": 800}) as page:
        page.set_input_files("#file", own_recording)
        open_model(page, model)
        page.wait_for_function("() => document.querySelector('#found').textContent.includes('turn on')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == []
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate("document.querySelector('.stage').clientHeight") < 1000


def test_the_bar_of_a_word_that_was_heard_is_in_sight(
    launch: Launch, url: str, own_recording: Path, tmp_path: Path
) -> None:
    """Where there are more labels than there is room for, the list goes to the word that was heard."""
    columns = {**{f"lamp {i}": "silence" for i in range(60)}, "halt": "stop"}
    settings = {"threshold": 0.5, "thresholds": {f"lamp {i}": 1.0 for i in range(60)}}
    model = relabelled(tmp_path / "many.onnx", columns, detector=settings)
    with launch(*microphone_playing(own_recording)) as browser, opened(browser, url) as page:
        open_model(page, model)
        seen = """() => {
            const [list, bar] = [document.querySelector('#bars'), document.querySelector('#bars li:last-child')];
            return bar.getBoundingClientRect().bottom <= list.getBoundingClientRect().bottom + 1;
        }"""
        assert not page.evaluate(seen)
        listen(page)
        page.wait_for_selector("#heard li[data-label=halt]")
        assert page.evaluate(seen)


def test_reduced_motion_moves_nothing(browser: Browser, url: str) -> None:
    """With reduced motion asked for, nothing is animated, and words come all the same."""
    with opened(browser, url, reduced_motion="reduce") as page:
        set_threshold(page, 0.9)
        listen(page)
        page.wait_for_selector("#heard li")
        assert page.evaluate("document.getAnimations().length") == 0


def test_a_warm_start_fetches_nothing_again(browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded a second time, the page gets no file again, and is ready all the same."""
    with opened(browser, url) as page:
        page.wait_for_selector("html[data-offline=ready]", state="attached")
        page.wait_for_load_state("networkidle")
        statuses = []
        send = _Handler._send

        def noted(handler: _Handler, status: HTTPStatus, *rest: Any, **options: Any) -> None:
            statuses.append((handler.path, int(status)))
            send(handler, status, *rest, **options)

        monkeypatch.setattr(_Handler, "_send", noted)
        page.reload()
        page.wait_for_selector("html[data-state=ready]", state="attached")
        page.wait_for_load_state("networkidle")
        assert statuses
        assert {status for _, status in statuses} == {304}
        assert float(page.get_attribute("html", "data-ready-ms")) > 0


def test_full_storage_is_survived(browser: Browser, url: str, recording: Path) -> None:
    """Where the browser may store nothing the page works, and does not say that it opens without a network."""
    full = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }"
    with opened(browser, "about:blank", full, state="") as page:
        session = page.context.new_cdp_session(page)
        session.send("Storage.overrideQuotaForOrigin", {"origin": url.rstrip("/"), "quotaSize": 1000})
        page.goto(url)
        page.wait_for_selector("html[data-state=ready]", state="attached")
        page.select_option("#theme", "light")
        page.set_input_files("#file", recording)
        assert found_in_file(page)
        page.wait_for_timeout(2000)
        assert page.get_attribute("html", "data-offline") is None
        assert page.inner_text("#offline") == ""
        assert page.is_hidden("#notice")


AXE = Path(__file__).parents[1] / "web" / "node_modules" / "axe-core" / "axe.min.js"
VIOLATIONS = """async () => (await axe.run()).violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])"""


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: run npm ci in web/")
@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 320)])
def test_axe_finds_nothing(browser: Browser, url: str, recording: Path, scheme: str, width: int) -> None:
    """axe-core finds no violation on the page as it opens, nor with a warning, details, a recording and words heard."""
    with opened(browser, url, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert page.evaluate(VIOLATIONS) == []
        page.click("summary")
        page.select_option("#model", min(set(bundled_models("stream")) - {DEFAULT_MODELS["stream"], "commands"}))
        page.wait_for_selector("#model-note.careful")
        page.set_input_files("#file", recording)
        found_in_file(page)
        page.click("[data-example='stop.mp3']")
        page.wait_for_selector("#heard li")
        page.set_input_files("#file", AXE)
        notice(page)
        page.set_input_files("#file", recording)
        found_in_file(page)
        page.click("#zoom-in")
        assert page.evaluate(VIOLATIONS) == []
