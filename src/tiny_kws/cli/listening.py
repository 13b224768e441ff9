"""Commands that find words in sound that goes on: detect, listen."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from io import BufferedIOBase
from pathlib import Path
from typing import Annotated

import typer

from ..artefact.runtime import Classifier, StreamModel, open_model
from ..artefact.store import DEFAULT_MODELS
from ..audio import MAX_CHANNELS, MAX_RATE, MIN_RATE, RAW_FORMATS, Samples, name_of, stream_mono, stream_pcm
from ..config import SAMPLE_RATE, DetectorConfig
from ..errors import KwsError, UsageError
from ..files import check_writable, write_bytes
from ..listening.decoder import Detection
from ..listening.detector import Detector, Step, config_of, read_config
from ..words import is_word
from .console import app, complain, gather, libraries_silenced, padded, parse_words, printable, width_of

StreamModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"Artefact (.onnx), name of a bundled model (default: {DEFAULT_MODELS['stream']}), or hf://USER/NAME.",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="File of detector settings, written by `calibrate`.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", help="Threshold for every word, 0 to 1; replaces the model's or --config's."),
]


WordsOption = Annotated[
    str | None,
    typer.Option("--words", metavar="WORD,...", help="Words to detect (default: all)."),
]
PauseOption = Annotated[
    float | None,
    typer.Option(
        "--pause",
        min=0.0,
        metavar="MS",
        help="Report a word only if a pause of so many milliseconds, such as 280, follows it.",
    ),
]


def detector_config(
    model: StreamModel | Classifier,
    path: Path | None,
    threshold: float | None = None,
    words: str | None = None,
    pause_ms: float | None = None,
) -> DetectorConfig:
    """The settings that options ask for: those that the model carries, or a file's, with what else was asked for."""
    config = config_of(model) if path is None else read_config(path, model.metadata)
    if threshold is not None:
        config = replace(config, threshold=threshold, thresholds={})
    if pause_ms is not None:
        config = replace(config, pause_ms=pause_ms)
    return config if words is None else replace(config, words=parse_words(words, model.labels))


@app.command()
@libraries_silenced()
def detect(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Sound files or folders; - reads raw samples from standard input."),
    ],
    model: StreamModelOption = None,
    config: ConfigOption = None,
    threshold: ThresholdOption = None,
    words: WordsOption = None,
    pause: PauseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="File for the events of one recording, as an Audacity label track.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="PNG file for a plot of one recording: waveform, probabilities, events."),
    ] = None,
    raw_format: Annotated[
        str,
        typer.Option(
            "--format", help="Sample type on standard input: u8, s16le, s16be, s24le, s32le, f32le, f64le, ..."
        ),
    ] = "s16le",
    rate: Annotated[
        int, typer.Option("--rate", min=MIN_RATE, max=MAX_RATE, help="Sample rate on standard input, in Hz.")
    ] = SAMPLE_RATE,
    channels: Annotated[
        int,
        typer.Option("--channels", min=1, max=MAX_CHANNELS, help="Number of interleaved channels on standard input."),
    ] = 1,
) -> None:
    """Find words in recordings of any length.

    Each word is printed as soon as it is heard, with its start, end and confidence.
    """
    sample_type = _sample_type(raw_format)
    loaded = open_model(model)
    detector = Detector(loaded, detector_config(loaded, config, threshold, words, pause))
    failed = False

    def report(_: str, error: KwsError) -> None:
        nonlocal failed
        failed = True
        complain(str(error), 1)

    sources = gather(paths, report)
    if len(sources) > 1 and not (labels is None and plot is None):
        raise UsageError(f"found {len(sources)} recordings, expected one with --labels or --plot")
    outputs = _Outputs(detector, labels, plot)
    show = _show_json if as_json else _table([name_of(source) for source in sources], detector.words)
    for source in sources:
        name, n_events = name_of(source), 0
        if isinstance(source, BufferedIOBase):
            blocks = stream_pcm(source, rate, channels, sample_type)
        else:
            blocks = stream_mono(source)
        try:
            for block, step in detector.steps(blocks):
                outputs.add(block, step)
                n_events += len(step.events)
                for event in step.events:
                    show(name, event)
            if n_events == 0:
                show(name, None)
        except KwsError as error:
            report(name, error)
        finally:
            outputs.save(name)
    if failed:
        raise typer.Exit(1)


def _sample_type(name: str) -> str:
    """A name of `RAW_FORMATS`, also as ALSA writes it. Raises UsageError for another."""
    found = name.lower().replace("_", "")
    if found not in RAW_FORMATS:
        raise UsageError(f"--format: found {name!r}, expected one of {', '.join(RAW_FORMATS)}")
    return found


def _show_json(name: str, event: Detection | None) -> None:
    if event is not None:
        print(event.to_json(file=name), flush=True)


def _table(names: Sequence[str], words: Sequence[str]) -> Callable[[str, Detection | None], None]:
    """What prints an event, or that there was none, as a row; the head comes with the first."""
    name_width = max(map(width_of, ["file", *names]))
    label_width = max(width_of("label"), _width_of_words(words))
    head = f"{padded('file', name_width)}  {padded('label', label_width)}  {'start':>11}  {'end':>11}  confidence"

    def show(name: str, event: Detection | None) -> None:
        nonlocal head
        if head:
            print(head)
            head = ""
        if event is None:
            print(f"{padded(name, name_width)}  no words", flush=True)
        else:
            times = f"{event.start_s:9.2f} s  {event.end_s:9.2f} s"
            label = padded(event.label, label_width)
            print(f"{padded(name, name_width)}  {label}  {times}  {event.confidence:10.3f}", flush=True)

    return show


def _width_of_words(words: Sequence[str]) -> int:
    """Columns that the widest of them takes."""
    return max((width_of(printable(word)) for word in words), default=0)


class _Outputs:
    """A label track and a picture of a recording, if they were asked for.

    Raises KwsError if one of them cannot be written, before the recording is heard.
    """

    def __init__(self, detector: Detector, labels: Path | None, plot: Path | None) -> None:
        self._events: list[Detection] = []
        self._labels, self._plot = labels, plot
        self._n_samples = 0
        self._picture = None
        if plot is not None:
            from ..evaluation.timeline import DetectionPlot

            self._picture = DetectionPlot(detector)
        for path in (labels, plot):
            if path is not None:
                check_writable(path)

    def add(self, block: Samples, step: Step) -> None:
        """Go on with a block of the recording and what the detector made of it."""
        self._n_samples += len(block)
        if self._labels is not None or self._plot is not None:  # or they would fill the memory in days
            self._events += step.events
        if self._picture is not None and len(block):
            self._picture.add(block, step.averages)

    def save(self, name: str) -> None:
        """Write both, of what was heard until the end or until the trouble; nothing if there was no sound."""
        if self._n_samples and self._labels is not None:
            lines = (f"{event.start_s:.6f}\t{event.end_s:.6f}\t{printable(event.label)}\n" for event in self._events)
            write_bytes(self._labels, "".join(lines).encode())
        if self._n_samples and self._picture is not None and self._plot is not None:
            self._picture.save(name, self._events, self._plot)


@app.command()
def listen(
    model: StreamModelOption = None,
    config: ConfigOption = None,
    threshold: ThresholdOption = None,
    words: WordsOption = None,
    pause: PauseOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Number of the microphone, or part of its name.")
    ] = None,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="List the microphones and exit.")] = False,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on", metavar="LABEL=COMMAND", help="Command to start, without a shell, when LABEL is heard; repeatable."
        ),
    ] = None,
    record_triggers: Annotated[
        Path | None, typer.Option("--record-triggers", help="Folder for the sound of each event.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, help="Seconds to listen (default: until Ctrl-C).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Listen to the microphone and print each word as it is heard, until Ctrl-C."""
    from ..listening.actions import Commands, Recordings
    from ..listening.microphone import Listener
    from ..listening.microphone import list_devices as find_devices
    from .live import LiveLine, print_devices, print_event

    if list_devices:
        print_devices(find_devices())
        return
    loaded = open_model(model)
    settings = detector_config(loaded, config, threshold, words, pause)
    names = settings.words or [label for label in loaded.labels if is_word(label)]
    with libraries_silenced():
        live = LiveLine()
        commands = Commands(on or [], names, live.complain, sys.stderr)
        recordings = Recordings(record_triggers, live.complain) if record_triggers else None
        started, counts = time.monotonic(), Counter[str]()
        with suppress(KeyboardInterrupt), closing(Listener(loaded, settings, device, live.show).open()) as listener:
            live.begin(listener.device.name, names)
            while seconds is None or time.monotonic() - started < seconds:
                for event in listener.step():
                    counts[event.label] += 1
                    heard = datetime.now(timezone.utc)
                    live.clear()
                    print_event(event, heard, as_json, _width_of_words(names))
                    commands.run(event, heard)
                    if recordings is not None:
                        recordings.keep(event, heard, listener.session.sound_of(event))
                commands.reap()
        live.end(counts, time.monotonic() - started)
