"""Commands on single clips: classify, info, evaluate, compare, benchmark."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..artefact.format import Metadata, Validation
from ..artefact.store import DEFAULT_MODELS, bundled_files, find_model
from ..audio import name_of
from ..config import DetectorConfig, settings_of
from ..errors import KwsError, UsageError
from .console import (
    PROGRESS_FROM,
    ModelOption,
    app,
    complain,
    gather,
    libraries_silenced,
    print_blocks,
    printable,
    progress_bar,
)

if TYPE_CHECKING:
    from ..artefact.runtime import Classification
    from ..data.material import Material
    from ..evaluation.clips import ClipSet, Predictor
    from ..evaluation.metrics import ClipMetrics
    from ..evaluation.tables import Block


@app.command()
@libraries_silenced()
def classify(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Sound files or folders; - reads a WAV from standard input.")
    ],
    model: ModelOption = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of labels to print, the likeliest first.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Number of threads.")] = os.cpu_count() or 1,
) -> None:
    """Say which word is in each recording.

    If a recording is longer than the model's window, its loudest part is classified, and where that part begins is
    printed.
    """
    from ..artefact.runtime import Classifier

    classifier = Classifier(model, threads)
    failed = 0

    def report(_: str, error: KwsError) -> None:
        nonlocal failed
        failed += 1
        complain(str(error), 1)

    sources = gather(paths, report)
    width = max((len(name_of(source)) for source in sources), default=4)
    label_width = max(map(len, ("label   ", *map(printable, classifier.labels))))
    with progress_bar("classifying", len(sources) >= PROGRESS_FROM) as progress:
        for done, result in enumerate(classifier.classify_many(sources, on_error=report), 1):
            if as_json:
                print(json.dumps(_as_dict(result, top)), flush=True)
            else:
                if done == 1:
                    print(f"{'file':{width}}  {'label':{label_width}}  probability  from")
                rest = "".join(f"  {printable(label)} {probability:.3f}" for label, probability in result.top(top)[1:])
                heard = f"{printable(result.label):{label_width}}  {result.probability:11.3f}  {result.start_s:.2f} s"
                print(f"{result.source:{width}}  {heard}{rest}")
            progress(done + failed, len(sources))
    if failed:
        raise typer.Exit(1)


def _as_dict(result: Classification, top: int) -> dict[str, Any]:
    return {
        "file": result.source,
        "label": result.label,
        "probability": round(result.probability, 6),
        "top": {label: round(probability, 6) for label, probability in result.top(top)},
        "start_s": result.start_s,
    }


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(help="Artefact, checkpoint, name of a bundled model, or hf://USER/NAME.")
    ] = DEFAULT_MODELS["clip"],
    as_json: Annotated[bool, typer.Option("--json", help="Print all metadata as JSON.")] = False,
) -> None:
    """Describe a model: labels, size, cost, front end, training, accuracy."""
    is_hub = model.startswith("hf://")
    if is_hub:
        from ..artefact.hub import pin

        model = pin(model)
    metadata = _describe(find_model(model))
    if as_json:
        pinned = {"pinned": model} if is_hub else {}
        print(json.dumps({**metadata.to_dict(), **pinned}, indent=2))
        return
    rows = {
        "model": f"{metadata.name} ({metadata.architecture}, {metadata.kind}, {metadata.precision})",
        "labels": ", ".join(metadata.labels),
        "parameters": f"{metadata.parameters:,}",
        "multiply-accumulates": f"{metadata.macs:,} ({metadata.macs / 1e6:.1f} M) a clip",
        "audio": f"{metadata.rate} Hz mono, {metadata.window} samples ({metadata.window / metadata.rate:g} s)",
        **({"stream": _stream_facts(metadata)} if metadata.hop else {}),
        "front end": ", ".join(f"{key} {value}" for key, value in metadata.feature_config.items()),
        "normalisation": f"mean {metadata.stats.mean:.4f}, std {metadata.stats.std:.4f}",
        "detector": _detector_facts(metadata),
        **(_expectations(metadata) or {"validation": _accuracy(metadata.validation)}),
        "training data": metadata.source or "not stated",
        "licence of the weights": metadata.licence or "not stated",
        "tiny-kws": metadata.version,
        "SHA-256 of checkpoint": metadata.checkpoint_sha256,
        **({"pinned": model} if is_hub else {}),
    }
    for key, value in rows.items():
        print(f"{key:22}  {printable(value)}")


def _stream_facts(metadata: Metadata) -> str:
    hop_ms, look_back_ms = (1000 * samples / metadata.rate for samples in (metadata.hop, metadata.look_back))
    return f"hops of {hop_ms:.0f} ms ({metadata.hop} samples), looks {look_back_ms:.0f} ms behind its window"


def _detector_facts(metadata: Metadata) -> str:
    """By what the model's probabilities become events, if nothing else is asked for."""
    settings = {**settings_of(DetectorConfig()), **metadata.detector}
    if metadata.hop:
        del settings["hop_ms"]  # a stream has its own
    told = ", ".join(f"{name} {value:g}" for name, value in settings.items() if isinstance(value, (int, float)))
    own = "".join(f", {label} {value:g}" for label, value in settings["thresholds"].items())
    words = f", words {', '.join(settings['words'])}" if settings["words"] else ""
    return f"{told}{own}{words}" + ("" if metadata.detector else " (the package's defaults)")


def _expectations(metadata: Metadata) -> dict[str, str]:
    """A row for each word of an enrolled model."""
    if not metadata.own_words:
        return {}
    from ..enrolment.told import told_line, told_of

    return {f"expect for {printable(told.word)}": told_line(told) for told in told_of(metadata.own_words)}


def _accuracy(validation: Validation | None) -> str:
    if validation is None:
        return "not measured"
    accuracy = f"{100 * validation.accuracy:.2f} %"
    if not validation.clips:
        return f"{accuracy}, as the checkpoint says"
    low, high = validation.accuracy_interval
    return f"{accuracy} of {validation.clips} clips (95 % interval {100 * low:.2f} to {100 * high:.2f})"


def _describe(path: Path) -> Metadata:
    if path.suffix == ".onnx":
        from ..artefact.runtime import read_metadata

        return read_metadata(path)
    if path.suffix == ".tflite":
        from ..export.litert import read_metadata as read_litert_metadata

        return read_litert_metadata(path)
    from ..export.exporter import describe
    from ..training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    validation = None if math.isnan(checkpoint.val_acc) else Validation(accuracy=checkpoint.val_acc)
    return describe(checkpoint, path.stem, validation=validation)


@app.command()
@libraries_silenced()
def evaluate(
    model: Annotated[str, typer.Argument(help="Artefact, checkpoint, name of a bundled model, or hf://USER/NAME.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics.json, predictions.csv and figures.")],
    data: Annotated[Path | None, typer.Option("--data", help="Prepared data.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the prepared data to measure on.")] = "validation",
    test: Annotated[
        Path | None,
        typer.Option("--test", help="Folder of test clips instead of --data, such as Speech Commands' test archive."),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option("--noise", help="Folder of noises: also measure clips in noise, and noise alone."),
    ] = None,
    snr: Annotated[str | None, typer.Option("--snr", help="Signal-to-noise ratios in dB (default: 20,10,5,0).")] = None,
    rooms: Annotated[
        Path | None, typer.Option("--rooms", help="Folder of room impulse responses: also measure clips in rooms.")
    ] = None,
    speech: Annotated[
        Path | None,
        typer.Option("--speech", help="Folder of sentences with a manifest.csv: also count false keywords in speech."),
    ] = None,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out/--all", help="Use the third of noises, rooms and speakers kept out of training, or all."
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed for the noise and room of each clip.")] = 0,
) -> None:
    """Measure the accuracy of a model on clips, in quiet, in noise and in rooms."""
    from ..evaluation import figures, robustness
    from ..evaluation.clips import check_clips
    from ..evaluation.compare import PREDICTIONS, write_predictions
    from ..evaluation.metrics import METRICS
    from ..files import check_writable, write_json
    from ..json_form import to_json
    from ..plotting import require_matplotlib

    if (data is None) == (test is None):
        raise UsageError("expected either --data PREPARED or --test FOLDER, found both or none")
    require_matplotlib()
    snrs_db = _snrs(snr, noise)
    pictures = {"confusion_matrix.png": figures.plot_confusion_matrix}
    if noise or rooms:
        pictures["robustness.png"] = figures.plot_robustness
    written = [out / name for name in (METRICS, PREDICTIONS, *pictures)]
    for path in written:
        check_writable(path)
    predictor = _open_predictor(find_model(model, "clip"))
    clips, unreadable = _open_clips(data, split, test, predictor)
    check_clips(predictor, clips)
    material = robustness.list_material(noise, rooms, speech, predictor.labels, held_out)
    metrics, answers = _measure(predictor, clips, material, snrs_db, seed)
    if noise or rooms or speech:
        metrics = replace(metrics, held_out=held_out)
    write_json(out / METRICS, to_json(metrics))
    write_predictions(out / PREDICTIONS, clips, predictor.labels, answers)
    for name, plot in pictures.items():
        plot(metrics, out / name)
    print_blocks(_blocks(metrics))
    print("", *written, sep="\n")
    unreadable += material.unreadable
    for message in unreadable:
        complain(message, 1)
    if unreadable:
        raise typer.Exit(1)


def _blocks(metrics: ClipMetrics) -> list[Block]:
    """An evaluation to read."""
    from ..evaluation import tables

    blocks = tables.metrics_table(metrics)
    if metrics.unknown:
        blocks += tables.unknown_table(metrics.unknown)
    if metrics.robustness:
        blocks += tables.robustness_table(metrics.robustness)
    if metrics.keyword_free:
        blocks += tables.windows_table(metrics.keyword_free)
    return blocks


def _open_clips(data: Path | None, split: str, test: Path | None, predictor: Predictor) -> tuple[ClipSet, list[str]]:
    """The clips to measure on, and what is to be said of those that cannot be read."""
    from ..data.prepared import open_prepared
    from ..evaluation.clip_sets import folder_clips, split_clips

    if test is not None:
        return folder_clips(test, predictor.labels, predictor.window)
    assert data is not None
    return split_clips(open_prepared(data), split), []


def _measure(
    predictor: Predictor, clips: ClipSet, material: Material, snrs_db: list[float], seed: int
) -> tuple[ClipMetrics, dict[str, Any]]:
    """All figures of a model, and its probabilities by condition."""
    from ..evaluation import clips as measurement
    from ..evaluation import robustness

    surroundings = robustness.read_surroundings(material, clips.window)
    with progress_bar("evaluating") as progress:
        answers = {robustness.CLEAN: measurement.predict_all(predictor, clips, progress)}
    metrics = measurement.metrics_of(predictor, clips, answers[robustness.CLEAN])
    if material.noises or material.rooms:
        with progress_bar("in noise and rooms") as progress:
            found, answers = robustness.evaluate_robustness(
                predictor, clips, answers[robustness.CLEAN], surroundings, snrs_db, seed, progress
            )
        metrics = replace(metrics, robustness=found)
    if material.noises or material.speech:
        with progress_bar("without keywords") as progress:
            keyword_free = robustness.evaluate_keyword_free(predictor, material, progress)
        metrics = replace(metrics, keyword_free=keyword_free)
    return replace(metrics, latency=measurement.measure_latency(predictor)), answers


def _snrs(text: str | None, noise: Path | None) -> list[float]:
    """The levels that clips are to be measured at. Raises UsageError for others than different numbers of dB."""
    from ..evaluation.synthesis.build import parse_snrs

    if noise is None and text is not None:
        raise UsageError("found --snr without --noise FOLDER, expected noises to mix with the clips")
    snrs_db = [snr_db for snr_db in parse_snrs(text or "20,10,5,0") if snr_db is not None]
    if not snrs_db or len(set(snrs_db)) < len(snrs_db):
        raise UsageError(
            f"found the levels {text!r}, expected one or more numbers of dB, each once; clean is always measured"
        )
    return snrs_db


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder written by `evaluate`.")],
    second: Annotated[
        Path, typer.Argument(metavar="B", help="Folder of another model, with the same clips and options.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two models clip by clip: accuracy, ratio of errors, McNemar's test."""
    from ..evaluation.compare import compare as run
    from ..evaluation.tables import comparison_table

    comparison = run(first, second)
    if as_json:
        _print_json(comparison)
    else:
        print_blocks(comparison_table(comparison))


def _print_json(result: Any) -> None:
    from ..json_form import to_json

    print(json.dumps(to_json(result), indent=2, ensure_ascii=False))


@app.command()
def benchmark(
    models: Annotated[
        list[str] | None, typer.Argument(help="Artefacts or names of bundled models (default: all bundled models).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=5, help="Number of turns; medians are reported.")] = 200,
) -> None:
    """Measure the speed of models on one thread, next to plain PyTorch if it is installed."""
    from importlib.util import find_spec

    from ..evaluation import speed

    paths = [find_model(model) for model in models] if models else bundled_files()
    contenders = [speed.artefact_contender(path) for path in paths]
    if find_spec("torch"):
        from ..training.plain import plain_classifier

        classify = plain_classifier()
        known = speed.Timing(speed.PLAIN_PYTORCH)
        contenders.append(speed.Contender(known, classify, speed.sliding(classify)))
    result = speed.benchmark(contenders, repeats)
    if as_json:
        _print_json(result)
    else:
        print_blocks(speed.speed_table(result))


def _open_predictor(path: Path) -> Predictor:
    """A model to be measured, on one thread."""
    if path.suffix != ".onnx":
        return _checkpoint_predictor(path)
    from ..artefact.runtime import Classifier
    from ..evaluation.clips import Predictor
    from ..files import sha256_of
    from ..listening.detector import config_of

    classifier = Classifier(path)
    return Predictor(
        name=path.stem,
        predict=classifier.probabilities,
        labels=classifier.labels,
        parameters=classifier.metadata.parameters,
        weight_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        detector=config_of(classifier),
        left_out=classifier.metadata.left_out,
        window=classifier.window,
    )


def _checkpoint_predictor(path: Path) -> Predictor:
    from ..evaluation.clips import Predictor
    from ..training.checkpoint import classifier_of, load_checkpoint, set_threads
    from ..training.networks import count_parameters

    checkpoint = load_checkpoint(path)
    state = checkpoint.model.state_dict().values()
    return Predictor(
        name=f"{path.parent.name}/{path.name}",
        predict=classifier_of(checkpoint),
        labels=checkpoint.labels,
        parameters=count_parameters(checkpoint.model),
        weight_bytes=sum(value.numel() * value.element_size() for value in state),
        sha256=checkpoint.sha256,
        set_threads=set_threads,
        left_out=tuple(map(str, checkpoint.data.get("left_out", ()))),
        window=checkpoint.window,
    )
