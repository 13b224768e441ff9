"""Commands that measure listening: make-stream, evaluate-stream, calibrate."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..artefact.runtime import Classifier, StreamModel, open_model, read_metadata
from ..artefact.store import find_model
from ..config import DetectorConfig
from ..errors import KwsError, UsageError
from ..files import check_writable, sha256_of, write_json
from ..listening.detector import write_config
from ..words import is_word
from .console import app, complain, libraries_silenced, print_blocks, progress_bar
from .listening import ConfigOption, PauseOption, StreamModelOption, WordsOption, detector_config

if TYPE_CHECKING:
    from ..evaluation.calibration import Expectation
    from ..evaluation.metrics import ChosenOn, SettingsFacts, StreamMetrics
    from ..evaluation.streams import Posteriors


class PresetName(str, Enum):
    """Published recipes that streams can be built by."""

    picovoice = "picovoice"
    mlperf_tiny = "mlperf-tiny"


@app.command("make-stream")
@libraries_silenced()
def make_stream(
    out: Annotated[Path, typer.Argument(help="New folder for recordings, manifests and stream.json.")],
    clips: Annotated[
        Path, typer.Option("--clips", help="Folder of word folders, with files such as WORD/SPEAKER_nohash_0.wav.")
    ],
    words: Annotated[
        str | None,
        typer.Option("--words", "--labels", metavar="WORD,...", help="Keywords (default: the ten of Speech Commands)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model whose words are the keywords, instead of --words.")
    ] = None,
    noise: Annotated[Path | None, typer.Option("--noise", help="Folder of noises without speech.")] = None,
    rooms: Annotated[Path | None, typer.Option("--rooms", help="Folder of room impulse responses.")] = None,
    speech: Annotated[
        Path | None, typer.Option("--speech", help="Folder of sentences with a manifest.csv (columns file and label).")
    ] = None,
    preset: Annotated[PresetName | None, typer.Option("--preset", help="Published recipe to follow instead.")] = None,
    snr: Annotated[
        str | None, typer.Option("--snr", help="Conditions, in dB or clean (default: clean,20,10,5,0).")
    ] = None,
    speech_hours: Annotated[float | None, typer.Option(min=0.0, help="Hours of running speech (default: 1).")] = None,
    noise_hours: Annotated[
        float | None, typer.Option(min=0.0, help="Hours of noise without speech (default: 1).")
    ] = None,
    keywords: Annotated[
        int | None, typer.Option(min=0, help="Number of keywords, all together (default: 500).")
    ] = None,
    others: Annotated[int | None, typer.Option(min=0, help="Number of other words (default: 200).")] = None,
    room_share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the recordings that are in a room (default: 0.3).")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split of the clips: validation, testing, training or all.")
    ] = "validation",
    part: Annotated[
        int | None, typer.Option(min=0, max=2, help="Third of the noises and rooms to use (default: all).")
    ] = None,
    speech_part: Annotated[
        int | None, typer.Option(min=0, max=2, help="Third of the speakers of sentences to use (default: all).")
    ] = None,
    trust_speech: Annotated[bool, typer.Option("--trust-speech", help="Use sentences without a transcript.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed for all draws.")] = 0,
) -> None:
    """Build long recordings with labelled words, in several levels of noise."""
    from ..evaluation.synthesis import build
    from ..evaluation.synthesis.protocols import preset_settings

    options: dict[str, Any] = {
        "snrs_db": None if snr is None else build.parse_snrs(snr),
        "speech_hours": speech_hours,
        "noise_hours": noise_hours,
        "keywords": keywords,
        "others": others,
        "room_share": room_share,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = replace(
        preset_settings(preset.value if preset else "", _keywords(clips, words, model)),
        seed=seed,
        split=split,
        part=part,
        speech_part=speech_part,
        trust_speech=trust_speech,
        **given,
    )
    with progress_bar("building") as progress:
        summary = build.make_stream(out, clips, noise, rooms, speech, settings=settings, progress=progress)
    print(build.summary_text(summary))
    for condition in build.conditions_of(settings):
        print(out / condition / "manifest.jsonl")
    for message in summary.unreadable:
        complain(message, 1)
    if summary.unreadable:
        raise typer.Exit(1)


def _keywords(clips: Path, words: str | None, model: str | None) -> tuple[str, ...]:
    """The keywords that options name, or those of the Speech Commands task where `clips` is its archive."""
    from ..data.speech_commands import task_words
    from ..data.word_folders import parse_words

    if words is not None and model is not None:
        raise UsageError("found --words and --model, expected one of them to name the keywords")
    if words is not None:
        return parse_words(words)
    if model is not None:
        return tuple(filter(is_word, read_metadata(find_model(model, "stream", "clip")).labels))
    found = task_words(clips)
    if not found:
        folders = sorted(path.name for path in clips.iterdir() if path.is_dir()) if clips.is_dir() else []
        raise UsageError(
            f"{clips}: is not the Speech Commands archive (found the folders {', '.join(folders[:12]) or 'none'}); say "
            "with --words or --model which words are the keywords"
        )
    return found


class RuleName(str, Enum):
    """The rules that events can be scored by."""

    tiny_kws = "tiny-kws"
    mlperf_tiny = "mlperf-tiny"


@app.command("evaluate-stream")
@libraries_silenced()
def evaluate_stream(
    model: Annotated[str, typer.Argument(help="Artefact (.onnx) or name of a bundled model.")],
    manifest: Annotated[
        Path, typer.Option("--manifest", help="JSON lines of labelled words, as written by `make-stream`.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and det.png.")],
    rule: Annotated[
        RuleName, typer.Option("--rule", help="Rule for hits; mlperf-tiny accepts an event up to 1 s after the word.")
    ] = RuleName.tiny_kws,
    config: ConfigOption = None,
    words: WordsOption = None,
    pause: PauseOption = None,
    save_config: Annotated[
        Path | None, typer.Option("--save-config", help="File for the settings that give 1 false alarm per hour.")
    ] = None,
) -> None:
    """Measure the miss rate and false alarms per hour on labelled recordings."""
    from ..evaluation.figures import plot_det
    from ..evaluation.metrics import METRICS, Artefact, Manifest, StreamMetrics
    from ..evaluation.rates import evaluate_streams
    from ..evaluation.streams import N_THRESHOLDS, RULES
    from ..evaluation.synthesis.build import origin_of
    from ..evaluation.tables import streams_table
    from ..json_form import to_json
    from ..plotting import require_matplotlib

    require_matplotlib()
    written = [out / METRICS, out / "det.png"]
    for path in (*written, *([save_config] if save_config else [])):
        check_writable(path)
    loaded = open_model(model)
    settings = detector_config(loaded, config, words=words, pause_ms=pause)
    heard, problems = _hear_recordings(loaded, settings, manifest)
    with progress_bar("trying thresholds") as progress:
        scores = evaluate_streams(
            heard, settings, RULES[rule.value], progress=lambda done: progress(done, N_THRESHOLDS)
        )
    sha256 = sha256_of(manifest)
    metrics = StreamMetrics(
        Artefact(loaded.path.name, sha256_of(loaded.path)),
        Manifest(str(manifest), sha256, tuple(problems), origin_of(manifest)),
        scores,
        _settings_facts(config, sha256),
    )
    write_json(out / METRICS, to_json(metrics))
    plot_det(metrics, out / "det.png")
    if save_config is not None:
        _save_config(save_config, loaded, settings, metrics)
        written.append(save_config)
    print_blocks(streams_table(metrics))
    print("", *written, sep="\n")
    if problems:
        raise typer.Exit(1)


def _hear_recordings(
    model: StreamModel | Classifier, settings: DetectorConfig, manifest: Path
) -> tuple[list[Posteriors], list[str]]:
    """What a model makes of the recordings of a manifest, and what is wrong with those that are left out."""
    from ..evaluation import streams

    recordings, problems = streams.read_manifest(manifest, model.labels, settings.words)
    with progress_bar("listening") as progress:
        heard = streams.posteriors_of(
            model,
            recordings,
            settings,
            on_error=lambda error: problems.append(str(error)),
            progress=lambda done: progress(done, len(recordings)),
        )
    for problem in problems:
        complain(problem, 1)
    return heard, problems


def _settings_facts(config: Path | None, manifest_sha256: str) -> SettingsFacts:
    """Where settings come from, and whether they were chosen on the recordings of a manifest."""
    from ..evaluation.metrics import SettingsFacts

    if config is None:
        return SettingsFacts(None, None, None)
    chosen_on = _chosen_on(config)
    return SettingsFacts(str(config), chosen_on, chosen_on.sha256 == manifest_sha256 if chosen_on else None)


def _chosen_on(config: Path) -> ChosenOn | None:
    """The manifest that the settings in a file were chosen on, None where the file does not say it."""
    from ..evaluation.metrics import ChosenOn
    from ..json_form import from_json

    try:
        return from_json(ChosenOn, json.loads(config.read_text(encoding="utf-8"))["expected"]["chosen_on"])
    except (ValueError, LookupError, TypeError):
        return None


def _save_config(path: Path, model: StreamModel | Classifier, settings: DetectorConfig, metrics: StreamMetrics) -> None:
    """Write the settings that reach one false alarm per hour over everything, with what was measured held out."""
    from ..evaluation.metrics import ChosenOn
    from ..evaluation.rates import REPORTED_RATE
    from ..evaluation.streams import with_threshold
    from ..json_form import to_json

    scores = metrics.scores
    point, held_out = (
        next(point for point in part.rates if point.rate_per_hour == REPORTED_RATE)
        for part in (scores.everything, scores.held_out)
    )
    threshold = point.thresholds[0]
    if threshold is None:
        raise KwsError(f"{path}: not written, no threshold gives as few as {REPORTED_RATE:g} false alarms per hour")
    measured = {"in_sample": point} if scores.held_out.in_sample else {"held_out": held_out}
    chosen_on = ChosenOn(metrics.manifest.name, metrics.manifest.sha256)
    expected = to_json({**measured, "chosen_on": chosen_on})
    write_config(path, with_threshold(settings, threshold), model, expected)


@app.command("calibrate")
@libraries_silenced()
def calibrate_room(
    room: Annotated[
        list[Path],
        typer.Option(
            "--room", help="Recording of the room without keywords, ten minutes or more; file or folder; repeatable."
        ),
    ],
    examples: Annotated[
        Path, typer.Option("--examples", help="Examples of each word: folder of LABEL/*.wav, or a manifest.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Settings file to write, for --config.")],
    model: StreamModelOption = None,
    words: WordsOption = None,
    pause: PauseOption = None,
    rate_per_hour: Annotated[
        float, typer.Option("--rate-per-hour", min=0.0, help="False alarms per hour to aim at, for all words together.")
    ] = 1.0,
) -> None:
    """Fit thresholds to your room and voice, and print what to expect."""
    from ..audio import find_sound_files
    from ..evaluation import calibration, streams
    from ..json_form import to_json

    check_writable(out)
    loaded = open_model(model)
    settings = detector_config(loaded, None, words=words, pause_ms=pause)
    failed = 0

    def report(error: KwsError) -> None:
        nonlocal failed
        failed += 1
        complain(str(error), 1)

    def report_below(_: str, error: KwsError) -> None:
        report(error)

    files = [file for path in room for file in (find_sound_files(path, report_below) if path.is_dir() else [path])]
    with progress_bar("listening to the room") as progress:
        quiet = streams.posteriors_of(
            loaded,
            [streams.Recording(file) for file in files],
            settings,
            on_error=report,
            progress=lambda done: progress(done, len(files)),
        )
    spoken = calibration.read_examples(examples, loaded, settings, report)
    chosen, expected = calibration.calibrate(loaded.labels, quiet, spoken, settings, rate_per_hour)
    write_config(out, chosen, loaded, to_json(expected))
    _print_calibration(expected)
    print(f"\n{out}")
    if failed:
        raise typer.Exit(1)


def _print_calibration(expected: Expectation) -> None:
    from ..evaluation.tables import Table

    rows = [
        (label, f"{row.threshold:.4f}", f"{row.model_threshold:.4f}", str(row.examples), str(row.misses), row.reason)
        for label, row in expected.by_label.items()
    ]
    lines = []
    if expected.miss_rate is not None and expected.miss_rate_interval is not None:
        low, high = (100 * x for x in expected.miss_rate_interval)
        lines.append(
            f"missed: {expected.misses} of {expected.examples} examples, {100 * expected.miss_rate:.1f} % "
            f"(95 % interval {low:.1f} to {high:.1f}), each with thresholds chosen on the others"
        )
    low, high = expected.alarms.false_alarms_per_hour_interval or (0.0, 0.0)
    lines.append(
        f"false alarms: {expected.alarms.false_alarms} in {60 * expected.room_hours:.1f} minutes, {low:.2f} to "
        f"{high:.2f} per hour (95 % interval), each half of the room with thresholds chosen on the other"
    )
    if high > expected.rate_per_hour_asked:
        lines.append(f"The recording is too short to show {expected.rate_per_hour_asked:g} per hour; a longer one can.")
    columns = ("label", "threshold", "the model's", "examples", "missed", "why")
    print_blocks([Table(columns, rows), "\n".join(lines)])
