"""The app of a Hugging Face Space, in Gradio: takes a recording and shows its words, its log-mel and its events.

It runs the artefacts. Recordings go only to the machine that runs the app, and are deleted there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile as sf

from ..artefact.format import SUFFIXES
from ..artefact.runtime import Classifier, StreamModel
from ..artefact.store import DEFAULT_MODELS, bundled_models, find_model
from ..audio import Samples, read_mono, stream_mono
from ..config import SAMPLE_RATE
from ..errors import KwsError
from ..evaluation.timeline import DetectionPlot
from ..listening.decoder import Detection
from ..listening.detector import Detector, config_of
from ..words import is_word
from . import EXAMPLES_FOLDER
from .picture import draw_close_up

if TYPE_CHECKING:
    import gradio as gr

MAX_S = 3600  # of a recording that are heard
AROUND_S = 5.0  # before and after the second that is classified, what the log-mel shows
TOP = 5
SHOWN_WORDS = 8  # in the headline; all stand in the table
KEPT_S = 3600  # a recording is deleted so long after it came
MAX_FILE_BYTES = 2**30
EXAMPLES = ("yes.wav", "right.ogg", "stop.mp3", "up.flac", "other_music.wav")
COLUMNS = ("word", "start (s)", "end (s)", "confidence")
SPOKEN = ("yes", "left", "other_window", "go", "down", "other_seven", "no", "off")
"""The recordings that the longer example is put together from."""

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """A network twice: for clips, and for streams (a clip artefact slides where there is no stream artefact)."""

    classifier: Classifier
    listener: StreamModel | Classifier

    @property
    def span(self) -> str:
        """How much of a recording the clip network judges, in words: `second` or `1.5 seconds`."""
        seconds = self.classifier.window / SAMPLE_RATE
        return "second" if seconds == 1 else f"{seconds:g} seconds"

    @property
    def threshold(self) -> float:
        """The detector's threshold in the artefact."""
        return config_of(self.listener).threshold


@dataclass(frozen=True)
class Analysis:
    """What is in a recording: the likeliest labels of one second, the words in all of it, pictures (PNG).

    `Classifier.choose_window` chooses that second; `span` is its length, if it is not a second.
    """

    top: dict[str, float]
    start_s: float
    span: str
    events: list[Detection]
    close_up: Path
    timeline: Path


def load_models(folder: Path | None = None) -> dict[str, Model]:
    """The models of the artefacts in `folder`, or else those that come with the package, the default one first.

    Raises ModelError as loading them does.
    """
    clip, stream = SUFFIXES["clip"], SUFFIXES["stream"]
    own = sorted(folder.glob(f"*{clip}")) if folder else []
    paths = {path.name.removesuffix(clip): path for path in own if not path.name.endswith(stream)}
    paths = paths or {name: find_model(name, "clip") for name in bundled_models("clip")}
    models = {}
    for name in sorted(paths, key=lambda name: (name != DEFAULT_MODELS["stream"], name)):
        classifier, beside = Classifier(paths[name]), paths[name].with_name(f"{name}{stream}")
        models[name] = Model(classifier, StreamModel(beside) if beside.is_file() else classifier)
    return models


def analyse(
    recording: Path, model: Model, threshold: float, folder: Path, notify: Notify, progress: Notify
) -> Analysis:
    """Everything there is to say about a recording; pictures go to `folder`.

    `notify` is called with messages for the visitor, `progress` with how far the work is.
    Raises AudioError if the recording cannot be read.
    """
    detector = Detector(model.listener, replace(config_of(model.listener), threshold=threshold, thresholds={}))
    plot = DetectionPlot(detector)
    heard_s, events = 0.0, []
    for block, step in detector.steps(first_hour(stream_mono(recording), notify)):
        if len(block):
            plot.add(block, step.averages)
        events += step.events
        heard_s += len(block) / SAMPLE_RATE
        progress(f"heard {heard_s // 60:.0f}:{heard_s % 60:02.0f}")
    n_window = model.classifier.window
    chosen = model.classifier.choose_window(first_hour(stream_mono(recording)))
    result = model.classifier.classify(chosen.samples)
    timeline, close_up = folder / "timeline.png", folder / "log_mel.png"
    plot.save(recording.name, events, timeline)
    shown_s = max(0.0, chosen.start_s - AROUND_S)
    shown = part_of(stream_mono(recording), shown_s, chosen.start_s + n_window / SAMPLE_RATE + AROUND_S)
    marked_s = (chosen.start_s, chosen.start_s + min(len(shown), n_window) / SAMPLE_RATE)
    draw_close_up(shown, shown_s, marked_s, close_up)
    return Analysis(dict(result.top(TOP)), chosen.start_s, model.span, events, close_up, timeline)


def first_hour(blocks: Iterable[Samples], notify: Notify = lambda message: None) -> Iterator[Samples]:
    """The blocks of a recording up to MAX_S; `notify` is called if there are more."""
    left = MAX_S * SAMPLE_RATE
    for block in blocks:
        if len(block) > left:
            yield block[:left]
            notify(f"The recording is longer than {MAX_S // 60} minutes: only its beginning was processed.")
            return
        left -= len(block)
        yield block


def part_of(blocks: Iterable[Samples], start_s: float, end_s: float) -> Samples:
    """The samples between two times of a recording that comes in blocks."""
    first, last, position, kept = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE), 0, []
    for block in blocks:
        kept.append(block[max(0, first - position) : max(0, last - position)])
        position += len(block)
        if position >= last:
            break
    return np.concatenate(kept)


def build(folder: Path | None = None) -> Any:
    """The app, not started yet, with the artefacts in `folder` or those that come with the package.

    Raises ModelError as loading them does.
    """
    gradio = _import_gradio()
    models = load_models(folder)
    first = next(iter(models.values()))
    words = ", ".join(label for label in first.classifier.labels if is_word(label))
    shown, zoom = {"interactive": False}, ["fullscreen"]
    run, run_if_any = _event_handlers(gradio, models)

    with gradio.Blocks(title="tiny-kws", analytics_enabled=False, delete_cache=(KEPT_S, KEPT_S)) as app:
        gradio.Markdown(
            f"# tiny-kws\nHears {words}. Record one of them, or upload a recording of any length to find them in it."
        )
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=2):
                recording = gradio.Audio(
                    sources=["microphone", "upload"], type="filepath", label="Recording", buttons=[]
                )
                button = gradio.Button("Listen", variant="primary")
                name = gradio.Dropdown(list(models), value=next(iter(models)), label="Model")
                threshold = gradio.Slider(
                    0.05,
                    0.999,
                    first.threshold,
                    step=0.001,
                    label="Threshold",
                    info="Higher: fewer false alarms, more misses.",
                )
                gradio.Examples([[str(path)] for path in _examples()], [recording], cache_examples=False)
            with gradio.Column(scale=3):
                label = gradio.Label(num_top_classes=TOP, label=f"The {first.span} with the word")
                close_up = gradio.Image(
                    label="Log-mel around the word", show_label=False, format="png", buttons=[], **shown
                )
        summary = gradio.Markdown()
        timeline = gradio.Image(
            label="Words in the whole recording", show_label=False, format="png", buttons=zoom, **shown
        )
        table = gradio.Dataframe(headers=list(COLUMNS), label="Detections", **shown)
        gradio.Markdown(
            "Recordings are processed on the computer that runs this app, are sent nowhere else, and are\n"
            "deleted within two hours."
        )
        inputs, outputs = [recording, name, threshold], [label, close_up, timeline, table, summary]
        button.click(run, inputs, outputs, api_name="hear", show_progress_on=label)
        recording.change(run_if_any, inputs, outputs, api_name=False, show_progress_on=label)
        name.change(lambda name: models[name].threshold, name, threshold, api_name=False)
    return app


def launch(
    host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False, folder: Path | None = None
) -> tuple[Any, str]:
    """Start `build(folder)` in threads of its own; returns the app, to be closed, and its address.

    `port` is the first free one from 7860 by default. No other computer is contacted. Raises KwsError if the port is in
    use.
    """
    app = build(folder)
    gradio = _import_gradio()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    try:
        _, url, _ = app.queue(default_concurrency_limit=os.cpu_count()).launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            theme=gradio.themes.Default(primary_hue="blue", **fonts),
            footer_links=["api"],
            max_file_size=MAX_FILE_BYTES,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
        )
    except OSError as error:
        raise KwsError(f"port {port} of {host} cannot be used ({error}); choose another one") from error
    return app, url


def _event_handlers(gradio: Any, models: dict[str, Model]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Functions that return the values of all outputs: for a recording, and empty ones if there is none."""
    shown_how: dict[str, Any] = {"duration": None, "print_exception": False}
    waiting = gradio.Progress()

    def run(recording: str | None, name: str, threshold: float, progress: gr.Progress = waiting) -> list[Any]:
        if not recording:
            raise gradio.Error("There is no recording: record or upload one, or choose an example.", **shown_how)
        path = Path(recording)
        with TemporaryDirectory() as pictures:
            try:
                heard = analyse(
                    path, models[name], threshold, Path(pictures), gradio.Warning, lambda text: progress(0, text)
                )
            except KwsError as error:
                raise gradio.Error(str(error).replace(str(path), path.name), **shown_how) from error
            return [heard.top, _picture(heard.close_up), _picture(heard.timeline), _rows(heard), _summary(heard)]

    def run_if_any(recording: str | None, name: str, threshold: float, progress: gr.Progress = waiting) -> list[Any]:
        return run(recording, name, threshold, progress) if recording else [None, None, None, [], ""]

    return run, run_if_any


def _import_gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported, or it would ask for its newest version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it is built on
        import gradio  # noqa: PLC0415
    return gradio


def _picture(path: Path) -> Any:
    from PIL import Image  # noqa: PLC0415

    with Image.open(path) as image:
        return image.copy()


def _rows(heard: Analysis) -> list[list[Any]]:
    return [[e.label, round(e.start_s, 2), round(e.end_s, 2), round(e.confidence, 3)] for e in heard.events]


def _summary(heard: Analysis) -> str:
    """The words that were found, which come first, because the second that is classified may lie between them."""
    label, probability = next(iter(heard.top.items()))
    classified = f"in the {heard.span} from {heard.start_s:.2f} s: {label} ({probability:.2f})"
    words = [event.label for event in heard.events]
    if not words:
        return f"No word was detected; {classified}."
    shown = ", ".join(words[:SHOWN_WORDS]) + (", …" if len(words) > SHOWN_WORDS else "")
    return f"{len(words)} detection{'' if len(words) == 1 else 's'}: **{shown}**; {classified}."


def _examples() -> list[Path]:
    """Recordings to try, and a longer one of several words put together from them."""
    folder = EXAMPLES_FOLDER
    pause = np.zeros(round(0.7 * SAMPLE_RATE), np.float32)
    files = {path.stem: path for path in folder.iterdir()}
    parts = [part for stem in SPOKEN for part in (pause, read_mono(files[stem]))]
    longer = Path(mkdtemp(prefix="tiny-kws-")) / "several_words.wav"
    sf.write(longer, np.concatenate([*parts, pause]), SAMPLE_RATE)
    return [*(folder / name for name in EXAMPLES), longer]
