"""The command line: parsing, printing, progress and exit codes. The only room that prints.

Exit status: 0 all went well, 1 a job or one of its files failed, 2 the command was used wrongly.
"""

# ruff: noqa: T201, PLC0415  (it prints; and what needs torch is imported by the command that needs it)
from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .artefact import Metadata, bundled_files, find_model
from .audio import Source, find_sound_files, name_of
from .config import SAMPLE_RATE, PrepareConfig, TrainConfig
from .errors import KwsError, UsageError

if TYPE_CHECKING:
    from .evaluation.clips import Predictor
    from .runtime import Classification
    from .training.export import Parity

app = typer.Typer(
    help="Hear a few chosen words: classify recordings, train, evaluate and export keyword models.",
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetch and prepare Speech Commands.", no_args_is_help=True)
app.add_typer(data_app, name="data")

PROGRESS_FROM = 20
"""Files from which on a progress bar is worth its line."""

Progress = Callable[[int, int], None]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="An .onnx artefact, or the name of a bundled model (default: ds-cnn).")
]


class Architecture(str, Enum):
    """The networks that can be trained."""

    ds_cnn = "ds-cnn"
    causal_cnn = "causal-cnn"


def main() -> None:
    """Run the command line and exit: an error is one line on standard error."""
    _print_any_name()
    try:
        status = _run()
    except UsageError as error:
        status = complain(str(error), 2)
    except KwsError as error:
        status = complain(str(error), 1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tiny_kws"):
            raise
        extra = "litert" if error.name.startswith(("litert", "ai_edge")) else "train"
        status = complain(
            f"this command needs {error.name}, which is not installed; pip install 'tiny-kws[{extra}]'", 1
        )
    except (KeyboardInterrupt, typer.Abort):
        status = complain("interrupted", 130)
    except BrokenPipeError:  # the reader, `head` for one, has had enough
        _end_output()
        status = 1
    except OSError as error:  # a full disk behind standard output, a name too long, a folder that may not be entered
        _end_output()
        status = complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
            raise
        status = complain(f"{error.format_message().splitlines()[0].rstrip('.')}. See `tiny-kws --help`.", 2)
    sys.exit(status)


def _print_any_name() -> None:
    """A file's name may hold what the terminal cannot show: let it be escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _run() -> int:
    status = app(standalone_mode=False)
    if status == 130:  # what newer versions of typer make of Ctrl-C
        raise KeyboardInterrupt
    print(end="", flush=True)  # while what may go wrong with it can still be said
    return status if isinstance(status, int) else 0


def _end_output() -> None:
    """Print what is still to be printed; where that cannot be, let it go, or Python would fail over it at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str, status: int) -> int:
    """Print an error as one line and give the status back."""
    print(f"tiny-kws: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return status


@contextmanager
def progress_bar(what: str, shown: bool = True) -> Iterator[Progress]:
    """A callback `(done, total)` that moves a bar on standard error; on anything but a terminal it shows nothing."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tiny-kws {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Hear a few chosen words: classify recordings, train, evaluate and export keyword models."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


@app.command()
def classify(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Sound files or folders; - is a WAV on stdin.")],
    model: ModelOption = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Print so many of the likeliest labels.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of inference.")] = os.cpu_count() or 1,
) -> None:
    """Say which word is in each recording: label, probability, and where its loudest second begins."""
    from .runtime import Classifier

    classifier = Classifier(model, threads)
    failed = 0

    def report(_: str, error: KwsError) -> None:
        nonlocal failed
        failed += 1
        complain(str(error), 1)

    sources = _gather(paths, report)
    width = max((len(name_of(source)) for source in sources), default=4)
    with progress_bar("classifying", len(sources) >= PROGRESS_FROM) as progress:
        for done, result in enumerate(classifier.classify_many(sources, on_error=report), 1):
            if as_json:
                print(json.dumps(_as_dict(result, top)), flush=True)
            else:
                if done == 1:
                    print(f"{'file':{width}}  {'label':8}  probability  from")
                rest = "".join(f"  {label} {probability:.3f}" for label, probability in result.top(top)[1:])
                heard = f"{result.label:8}  {result.probability:11.3f}  {result.start_s:.2f} s"
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


def _gather(paths: list[str], report: Callable[[str, KwsError], None]) -> list[Source]:
    """The sources that the arguments name, folders walked."""
    sources: list[Source] = []
    for path in paths:
        if path == "-":
            if sys.stdin is None:
                raise UsageError("standard input (-) is closed, expected a sound on it")
            if sys.stdin.buffer in sources:
                raise UsageError("standard input (-) was named twice, expected once")
            sources.append(sys.stdin.buffer)
        elif os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises on a name too long)
            try:
                sources += find_sound_files(Path(path))
            except KwsError as error:
                report(path, error)
        else:
            sources.append(Path(path))
    return sources


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="An artefact, a checkpoint, or the name of a bundled model.")] = "ds-cnn",
    as_json: Annotated[bool, typer.Option("--json", help="All there is to know, as JSON.")] = False,
) -> None:
    """Say what a model is: labels, size, multiply-accumulates, front end, training, validation."""
    metadata = _describe(find_model(model))
    if as_json:
        print(json.dumps(asdict(metadata), indent=2, ensure_ascii=False))
        return
    rows = {
        "model": f"{metadata.name} ({metadata.architecture}, {metadata.kind}, {metadata.precision})",
        "labels": ", ".join(metadata.labels),
        "parameters": f"{metadata.parameters:,}",
        "multiply-accumulates": f"{metadata.macs:,} ({metadata.macs / 1e6:.1f} M) a clip",
        "audio": f"{metadata.rate} Hz mono, {metadata.window} samples",
        **({"stream": _stream_facts(metadata)} if metadata.hop else {}),
        "front end": ", ".join(f"{key} {value}" for key, value in metadata.feature_config.items()),
        "normalisation": ", ".join(f"{key} {value:.4f}" for key, value in metadata.stats.items()),
        "validation": _accuracy(metadata.validation),
        "training data": metadata.data.get("source", "not stated"),
        "licence of the weights": metadata.licence or "not stated",
        "tiny-kws": metadata.version,
        "SHA-256 of checkpoint": metadata.checkpoint_sha256,
    }
    for key, value in rows.items():
        print(f"{key:22}  {value}")


def _stream_facts(metadata: Metadata) -> str:
    hop_ms, look_back_ms = (1000 * samples / metadata.rate for samples in (metadata.hop, metadata.look_back))
    return f"hops of {hop_ms:.0f} ms ({metadata.hop} samples), looks {look_back_ms:.0f} ms behind its window"


def _accuracy(validation: dict[str, Any]) -> str:
    if not validation:
        return "not measured"
    accuracy = f"{100 * validation['accuracy']:.2f} %"
    if "clips" not in validation:
        return f"{accuracy}, as the checkpoint says"
    low, high = validation["accuracy_interval"]
    return f"{accuracy} of {validation['clips']} clips (95 % interval {100 * low:.2f} to {100 * high:.2f})"


def _describe(path: Path) -> Metadata:
    if path.suffix == ".onnx":
        from .runtime import read_metadata

        return read_metadata(path)
    if path.suffix == ".tflite":
        from .training.litert import read_metadata as read_litert_metadata

        return read_litert_metadata(path)
    from .training.checkpoint import load_checkpoint
    from .training.export import describe

    checkpoint = load_checkpoint(path)
    validation = {} if math.isnan(checkpoint.val_acc) else {"accuracy": checkpoint.val_acc}
    return replace(describe(checkpoint, path.stem), validation=validation)


@data_app.command("download")
def data_download(
    destination: Annotated[Path, typer.Argument(help="Folder to put the two archives' recordings in.")],
) -> None:
    """Fetch the two official archives (2.5 GB); run it again to go on where it stopped."""
    from .training.download import download

    with progress_bar("downloading") as bar:
        for folder in download(destination, progress=lambda _name, done, total: bar(done, total)):
            print(folder)
    print(f"Next: tiny-kws data prepare {destination} --out prepared")


@data_app.command("prepare")
def data_prepare(
    source: Annotated[Path, typer.Argument(help="Folder that holds speech_commands_v0.02, or that folder itself.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the prepared data.")],
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the draws of unknown and silence.")
    ] = PrepareConfig.seed,
) -> None:
    """Build the twelve-class task: splits, unknown, silence, one bank of waveforms."""
    from .training.dataset import prepare

    with progress_bar("reading clips") as progress:
        prepared = prepare(source, out, PrepareConfig(seed=seed), progress)
    manifest = prepared.manifest
    for split, counts in manifest["clips"].items():
        print(f"{split:10}  {sum(counts.values()):6} clips  {manifest['speakers'][split]:5} speakers")
    for split, count in manifest["missing"]["clips"].items():
        print(f"incomplete: {split} lacks {count} clips of the official archive")
    for split, count in manifest["missing"]["listed"].items():
        if count:
            print(f"incomplete: {count} clips of {split}_list.txt are not there")
    print(f"Next: tiny-kws train {out} --out runs/ds-cnn")
    if manifest["unreadable"]:
        for message in manifest["unreadable"]:
            complain(message, 1)
        raise typer.Exit(1)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, curves and TensorBoard events.")],
    model: Annotated[Architecture, typer.Option("--model", help="The network.")] = Architecture.ds_cnn,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole epoch, exactly.")] = False,
    epochs: Annotated[int, typer.Option(min=1)] = TrainConfig.epochs,
    batch_size: Annotated[int, typer.Option(min=2)] = TrainConfig.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = TrainConfig.learning_rate,
    seed: Annotated[int, typer.Option(min=0)] = TrainConfig.seed,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = TrainConfig.precision,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; the best there is by default.")] = None,
) -> None:
    """Train a network by the reference recipe; the best checkpoint by validation accuracy is OUT/best.pt."""
    from .training.dataset import open_prepared
    from .training.train import EpochReport, StepReport, Watcher
    from .training.train import train as run

    live = sys.stderr.isatty()

    def on_step(report: StepReport) -> None:
        if live:
            minutes, seconds = divmod(round(report.seconds_left), 60)
            line = (
                f"epoch {report.epoch}/{report.epochs}  step {report.step}/{report.steps}  loss {report.loss:.3f}  "
                f"accuracy {100 * report.accuracy:.1f} %  {minutes}:{seconds:02} left"
            )
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def on_epoch(report: EpochReport) -> None:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr)
        print(
            f"epoch {report.epoch:3}  loss {report.train_loss:.4f}  accuracy {100 * report.train_acc:.2f} %  "
            f"validation loss {report.val_loss:.4f}  accuracy {100 * report.val_acc:.2f} %  "
            f"{report.clips_per_second:.0f} clips/s",
            flush=True,
        )

    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, precision=precision
    )
    best = run(
        open_prepared(data),
        out,
        model.value,
        config=config,
        device=device,
        resume=resume,
        watcher=Watcher(on_step, on_epoch),
    )
    print(f"{best}\nNext: tiny-kws evaluate {best} --data {data} --out {out / 'validation'}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="An artefact, a checkpoint, or the name of a bundled model.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and confusion_matrix.png.")],
    data: Annotated[Path | None, typer.Option("--data", help="Prepared data.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the prepared data.")] = "validation",
    test: Annotated[Path | None, typer.Option("--test", help="The official test archive's folder, instead.")] = None,
) -> None:
    """Measure a model on a split or on the official test folder."""
    from .evaluation import clips as measurement
    from .evaluation.report import metrics_table, plot_confusion_matrix
    from .files import write_json
    from .training.dataset import open_prepared, split_clips, test_archive_clips

    if (data is None) == (test is None):
        raise UsageError("expected either --data PREPARED or --test FOLDER, found both or none")
    predictor = _open_predictor(find_model(model, "clip"))
    if test is not None:
        clips, unreadable = test_archive_clips(test)
    else:
        assert data is not None
        clips, unreadable = split_clips(open_prepared(data), split), []
    with progress_bar("evaluating") as progress:
        metrics = measurement.evaluate(predictor, clips, progress)
    metrics["latency"] = measurement.measure_latency(predictor)
    write_json(out / "metrics.json", metrics)
    plot_confusion_matrix(metrics, out / "confusion_matrix.png")
    print(metrics_table(metrics))
    print(f"\n{out / 'metrics.json'}\n{out / 'confusion_matrix.png'}")
    for message in unreadable:
        complain(message, 1)
    if unreadable:
        raise typer.Exit(1)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, best.pt for one.")],
    out: Annotated[Path, typer.Option("--out", help="The clip artefact to write, NAME.onnx; others lie beside it.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Prepared data, whose validation clips the artefacts are checked on.")
    ] = None,
    stream: Annotated[
        int | None, typer.Option("--stream", help="Also NAME.stream.onnx, in hops of 20, 40 or 80 ms.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also NAME.int8.onnx, calibrated on training clips.")] = False,
    litert: Annotated[bool, typer.Option("--litert", help="Also NAME.tflite, NAME.int8.tflite and NAME.h.")] = False,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights, to be stated in the files.")] = "",
) -> None:
    """Turn a checkpoint into ONNX files that take audio samples, each checked against it before it is kept."""
    from .training.checkpoint import load_checkpoint
    from .training.dataset import calibration_clips, open_prepared, split_clips
    from .training.export import CALIBRATION_CLIPS, Exporter, stream_graph

    if out.suffix != ".onnx" or "." in out.stem:
        raise UsageError(f"{out}: expected a name of the form NAME.onnx")
    if (int8 or litert) and data is None:
        raise UsageError("int8 needs recordings to calibrate and to measure on; give --data PREPARED")
    loaded = load_checkpoint(checkpoint)
    hop = None if stream is None else stream * SAMPLE_RATE // 1000
    if hop is not None:
        stream_graph(loaded, hop)  # what cannot be is said before anything is written
    if litert:
        from .training.litert import export_litert, require_litert

        require_litert()
    prepared = None if data is None else open_prepared(data)

    with progress_bar("running the checkpoint") as progress:
        clips = None if prepared is None else split_clips(prepared, "validation")
        exporter = Exporter(loaded, clips, licence, progress)
    _report(out, exporter.clip(out))
    if hop is not None:
        path = out.with_suffix(".stream.onnx")
        _report(path, exporter.stream(path, hop))
    if prepared is None:
        print("Accuracy was not measured: give --data PREPARED to check on recordings.")
        return
    calibration = calibration_clips(prepared, CALIBRATION_CLIPS)
    if int8:
        path = out.with_suffix(".int8.onnx")
        _report(path, exporter.int8(path, calibration))
    if litert:
        export_litert(exporter, out.with_suffix(".tflite"), calibration, _report)


def _report(path: Path, parity: Parity) -> None:
    print(f"{path}: {path.stat().st_size:,} bytes")
    line = f"  probabilities differ by up to {parity.largest_difference:.1e} from the checkpoint's"
    if parity.accuracy is not None and parity.checkpoint_accuracy is not None:
        line += f"; accuracy {100 * parity.accuracy:.2f} %, the checkpoint's {100 * parity.checkpoint_accuracy:.2f} %"
    print(f"{line} ({parity.n_clips} clips, {parity.clips})", flush=True)


@app.command()
def benchmark(
    models: Annotated[
        list[str] | None, typer.Argument(help="Artefacts, or names of bundled models; all by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=5, help="Turns that medians are taken over.")] = 200,
) -> None:
    """Time models on one thread, in turns; beside them the plain PyTorch way, where torch is installed."""
    from importlib.util import find_spec

    from .evaluation import speed

    paths = [find_model(model) for model in models] if models else bundled_files()
    contenders = [speed.artefact_contender(path) for path in paths]
    if find_spec("torch"):
        from .training.eager import eager_contender

        contenders.append(eager_contender())
    result = speed.benchmark(contenders, repeats)
    print(json.dumps(result, indent=2) if as_json else speed.speed_table(result))


def _open_predictor(path: Path) -> Predictor:
    """A model to be measured, on one thread."""
    if path.suffix != ".onnx":
        from .training.checkpoint import open_predictor

        return open_predictor(path)
    from .evaluation.clips import Predictor
    from .files import sha256_of
    from .runtime import Classifier

    classifier = Classifier(path)
    return Predictor(
        name=path.stem,
        predict=classifier.probabilities,
        labels=classifier.labels,
        parameters=classifier.metadata.parameters,
        weight_bytes=path.stat().st_size,
        sha256=sha256_of(path),
    )


__all__ = ["app", "main"]
