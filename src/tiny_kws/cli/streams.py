"""Commands that measure listening: make-stream, evaluate-stream, calibrate."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..artefact.runtime import Classifier, StreamModel, open_model
from ..config import DetectorConfig
from ..errors import KwsError
from ..listening.detector import write_config
from .console import app, complain, progress_bar
from .listening import ConfigOption, StreamModelOption, detector_config


class PresetName(str, Enum):
    """Published recipes that streams can be built by."""

    picovoice = "picovoice"
    mlperf_tiny = "mlperf-tiny"


@app.command("make-stream")
def make_stream(
    out: Annotated[Path, typer.Argument(help="New folder for recordings, manifests and stream.json.")],
    clips: Annotated[Path, typer.Option("--clips", help="Words, as Speech Commands: WORD/SPEAKER_nohash_0.wav.")],
    noise: Annotated[Path | None, typer.Option("--noise", help="Folder of noises without speech.")] = None,
    rooms: Annotated[Path | None, typer.Option("--rooms", help="Folder of room impulse responses.")] = None,
    speech: Annotated[
        Path | None, typer.Option("--speech", help="Folder of sentences; its manifest.csv has columns file and label.")
    ] = None,
    preset: Annotated[PresetName | None, typer.Option("--preset", help="A published recipe instead.")] = None,
    snr: Annotated[str | None, typer.Option("--snr", help="Conditions: clean,20,10,5,0 by default.")] = None,
    speech_hours: Annotated[float | None, typer.Option(min=0.0, help="Of running speech (1).")] = None,
    noise_hours: Annotated[float | None, typer.Option(min=0.0, help="Of noise without speech (1).")] = None,
    keywords: Annotated[int | None, typer.Option(min=0, help="Of all labels together (500).")] = None,
    others: Annotated[int | None, typer.Option(min=0, help="Words that are no keywords (200).")] = None,
    room_share: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Recordings in a room (0.3).")] = None,
    labels: Annotated[str | None, typer.Option(help="The keywords, instead of the ten: yes,no,up.")] = None,
    split: Annotated[str, typer.Option(help="Of the clips: validation, testing, training or all.")] = "validation",
    part: Annotated[int | None, typer.Option(min=0, max=2, help="Third of noises and rooms; all by default.")] = None,
    speech_part: Annotated[int | None, typer.Option(min=0, max=2, help="Third of the speakers of speech.")] = None,
    trust_speech: Annotated[bool, typer.Option("--trust-speech", help="Take sentences without transcript.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Build long recordings with labelled words, in several levels of noise, to measure listening on."""
    from ..evaluation.synthesis import build as room
    from ..evaluation.synthesis.protocols import preset_settings

    options: dict[str, Any] = {
        "snrs_db": None if snr is None else room.parse_snrs(snr),
        "speech_hours": speech_hours,
        "noise_hours": noise_hours,
        "keywords": keywords,
        "others": others,
        "room_share": room_share,
        "labels": None if labels is None else tuple(label.strip() for label in labels.split(",") if label.strip()),
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = replace(
        preset_settings(preset.value if preset else ""),
        seed=seed,
        split=split,
        part=part,
        speech_part=speech_part,
        trust_speech=trust_speech,
        **given,
    )
    with progress_bar("building") as progress:
        summary = room.make_stream(out, clips, noise, rooms, speech, settings, progress)
    print(room.summary_text(summary))
    for condition in room.conditions_of(settings):
        print(out / condition / "manifest.jsonl")
    for message in summary["unreadable"]:
        complain(message, 1)
    if summary["unreadable"]:
        raise typer.Exit(1)


class RuleName(str, Enum):
    """The rules that events can be scored by."""

    tiny_kws = "tiny-kws"
    mlperf_tiny = "mlperf-tiny"


@app.command("evaluate-stream")
def evaluate_stream(
    model: Annotated[str, typer.Argument(help="An .onnx artefact, or the name of a bundled model.")],
    manifest: Annotated[Path, typer.Option("--manifest", help="Labelled words, JSON lines; as of `make-stream`.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and det.png.")],
    rule: Annotated[
        RuleName, typer.Option("--rule", help="What counts as a hit; MLPerf Tiny's gives a word 1 s after its end.")
    ] = RuleName.tiny_kws,
    config: ConfigOption = None,
    save_config: Annotated[
        Path | None, typer.Option("--save-config", help="Settings that give 1 false alarm an hour, for `detect`.")
    ] = None,
) -> None:
    """Count misses and false alarms an hour over long recordings with labelled words."""
    from ..evaluation import rates, streams
    from ..evaluation.figures import plot_det
    from ..evaluation.synthesis.build import origin_of
    from ..evaluation.tables import streams_table
    from ..files import check_writable, sha256_of, write_json
    from ..plotting import require_matplotlib

    require_matplotlib()
    for path in (out / "metrics.json", out / "det.png", *([save_config] if save_config else [])):
        check_writable(path)
    loaded = open_model(model)
    settings = detector_config(loaded, config)
    recordings, problems = streams.read_manifest(manifest, loaded.labels)
    with progress_bar("listening") as progress:
        heard = streams.posteriors_of(
            loaded,
            recordings,
            settings,
            on_error=lambda error: problems.append(str(error)),
            progress=lambda done: progress(done, len(recordings)),
        )
    for problem in problems:
        complain(problem, 1)
    with progress_bar("trying thresholds") as progress:
        metrics = rates.evaluate_streams(
            heard,
            settings,
            streams.RULES[rule.value],
            progress=lambda done: progress(done, streams.N_THRESHOLDS),
        )
    origin = origin_of(manifest)
    chosen_on = _chosen_on(config)
    sha256 = sha256_of(manifest)
    metrics = {
        "model": {"name": loaded.path.name, "sha256": sha256_of(loaded.path)},
        "manifest": {
            "name": str(manifest),
            "sha256": sha256,
            "left_out": problems,
            **({"origin": asdict(origin)} if origin else {}),
        },
        "settings": {
            "config": str(config) if config else None,
            "chosen_on": chosen_on,
            "chosen_here": chosen_on["sha256"] == sha256 if chosen_on else None,
        },
        **metrics,
    }
    write_json(out / "metrics.json", metrics)
    plot_det(metrics, out / "det.png")
    print(streams_table(metrics))
    print(f"\n{out / 'metrics.json'}\n{out / 'det.png'}")
    if save_config is not None:
        _save_config(save_config, loaded, settings, metrics)
        print(save_config)
    if problems:
        raise typer.Exit(1)


def _save_config(
    path: Path, model: StreamModel | Classifier, settings: DetectorConfig, metrics: dict[str, Any]
) -> None:
    """Write the settings that reach one false alarm an hour over everything, with what was measured held out."""
    from ..evaluation.rates import REPORTED_RATE
    from ..evaluation.streams import with_threshold

    point, held_out = (
        next(point for point in metrics[part]["rates"] if point["rate_per_hour"] == REPORTED_RATE)
        for part in ("everything", "held_out")
    )
    if not point["reached"]:
        raise KwsError(f"{path}: not written, no threshold gives as few as {REPORTED_RATE:g} false alarms an hour")
    expected = {"in_sample": point} if metrics["held_out"]["in_sample"] else {"held_out": held_out}
    expected["chosen_on"] = {name: metrics["manifest"][name] for name in ("name", "sha256")}
    write_config(path, with_threshold(settings, point["thresholds"][0]), model, expected)


def _chosen_on(config: Path | None) -> dict[str, Any] | None:
    """The manifest that the settings in a file were chosen on, None where nothing says it."""
    if config is None:
        return None
    expected = json.loads(config.read_text(encoding="utf-8")).get("expected", {})
    return expected.get("chosen_on") if isinstance(expected, dict) else None


@app.command("calibrate")
def calibrate_room(
    room: Annotated[
        list[Path],
        typer.Option("--room", help="Sound of the room without keywords, ten minutes or more; file or folder, repeat."),
    ],
    examples: Annotated[
        Path, typer.Option("--examples", help="Spoken examples: folder of LABEL/*.wav, or a manifest.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Settings to write, a JSON file for --config.")],
    model: StreamModelOption = None,
    rate_per_hour: Annotated[
        float, typer.Option("--rate-per-hour", min=0.0, help="False alarms an hour to aim at, of all labels together.")
    ] = 1.0,
) -> None:
    """Fit each label's threshold to a room and a voice, and say what to expect of it."""
    from ..audio import find_sound_files
    from ..evaluation import calibration, streams

    loaded = open_model(model)
    settings = detector_config(loaded, None, None)
    failed = 0

    def report(error: KwsError) -> None:
        nonlocal failed
        failed += 1
        complain(str(error), 1)

    files = [file for path in room for file in (find_sound_files(path) if path.is_dir() else [path])]
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
    write_config(out, chosen, loaded, expected)
    _print_calibration(expected)
    print(f"\n{out}")
    if failed:
        raise typer.Exit(1)


def _print_calibration(expected: dict[str, Any]) -> None:
    print("| label | threshold | the model's | examples | missed | |\n|---|---|---|---|---|---|")
    for label, row in expected["by_label"].items():
        numbers = f"{row['threshold']:.4f} | {row['model_threshold']:.4f} | {row['examples']} | {row['misses']}"
        print(f"| {label} | {numbers} | {row['reason']} |")
    low, high = (100 * x for x in expected["miss_rate_interval"])
    print(
        f"\nmissed: {expected['misses']} of {expected['examples']} examples, {100 * expected['miss_rate']:.1f} % "
        f"(95 % interval {low:.1f} to {high:.1f}), each with thresholds from the others"
    )
    low, high = expected["false_alarms_per_hour_interval"]
    print(
        f"false alarms: {expected['false_alarms']} in {60 * expected['room_hours']:.1f} minutes, {low:.2f} to "
        f"{high:.2f} an hour (95 % interval), each half of the room with thresholds from the other"
    )
    if high > expected["rate_per_hour_asked"]:
        print(f"So short a recording cannot show {expected['rate_per_hour_asked']:g} an hour: a longer one can.")
