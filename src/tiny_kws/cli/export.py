"""Commands that make artefacts of a checkpoint, export, and of a model of own words, convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..artefact.store import bundled_files, find_model
from ..config import SAMPLE_RATE
from ..errors import UsageError
from ..files import check_writable
from ..listening.detector import read_config
from .console import app, complain, libraries_silenced, printable, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from ..export.exporter import Exporter, Parity
    from ..export.own_words import Hearing, Written


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint, such as best.pt, or hf://USER/NAME.")],
    out: Annotated[
        Path, typer.Option("--out", help="Clip artefact to write, NAME.onnx; others are written beside it.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help="Prepared data, whose validation clips the artefacts are checked on.")
    ] = None,
    stream: Annotated[
        int | None, typer.Option("--stream", help="Hop in ms (20, 40 or 80): also write NAME.stream.onnx.")
    ] = None,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Also write NAME.int8.onnx, and with --stream NAME.int8.stream.onnx; calibrated."),
    ] = False,
    litert: Annotated[
        bool, typer.Option("--litert", help="Also write NAME.tflite, NAME.int8.tflite and NAME.h.")
    ] = False,
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the weights, stated in the files (known for bundled models).")
    ] = "",
    detector: Annotated[
        Path | None, typer.Option("--detector", help="Detector settings to include, written by `evaluate-stream`.")
    ] = None,
) -> None:
    """Export a checkpoint to artefacts, and check each against the checkpoint."""
    from ..data.prepared import calibration_clips, open_prepared
    from ..evaluation.clip_sets import split_clips
    from ..export.exporter import CALIBRATION_CLIPS, Exporter, describe
    from ..export.onnx_models import stream_graph
    from ..training.checkpoint import load_checkpoint

    if out.suffix != ".onnx" or "." in out.stem:
        raise UsageError(f"{out}: expected a name of the form NAME.onnx")
    if (int8 or litert) and data is None:
        raise UsageError("int8 needs recordings to calibrate and to measure on; give --data PREPARED")
    path = find_model(checkpoint, "checkpoint") if checkpoint.startswith("hf://") else Path(checkpoint)
    loaded = load_checkpoint(path)
    hop = None if stream is None else stream * SAMPLE_RATE // 1000
    if hop is not None:
        stream_graph(loaded, hop)  # what cannot be is said before anything is written
    settings = None if detector is None else read_config(detector, describe(loaded, out.stem))
    if litert:
        from ..export.litert import export_litert, require_litert

        require_litert()
    prepared = None if data is None else open_prepared(data)

    with progress_bar("running the checkpoint") as progress:
        clips = None if prepared is None else split_clips(prepared, "validation")
        exporter = Exporter(loaded, clips, licence or _licence_of(loaded.sha256), progress, settings)
    calibration = None if prepared is None else calibration_clips(prepared, CALIBRATION_CLIPS)
    for path, parity in _exported(exporter, out, hop, calibration if int8 else None):
        _print_parity(path, parity)
    if calibration is None:
        print("Accuracy was not measured; add --data PREPARED to check on recordings.")
    elif litert:
        for path, parity in export_litert(exporter, out.with_suffix(".tflite"), calibration):
            _print_parity(path, parity)
        _print_size(out.with_suffix(".h"))


def _exported(
    exporter: Exporter, out: Path, hop: int | None, calibration: npt.NDArray[np.float32] | None
) -> Iterator[tuple[Path, Parity]]:
    """The artefacts for onnxruntime, one after another; those in int8 if there are clips for calibration."""
    yield out, exporter.clip(out)
    stream, int8, int8_stream = map(out.with_suffix, (".stream.onnx", ".int8.onnx", ".int8.stream.onnx"))
    if hop is not None:
        yield stream, exporter.stream(stream, hop)
    if calibration is not None:
        yield int8, exporter.int8(int8, calibration)
    if hop is not None and calibration is not None:
        yield int8_stream, exporter.stream_int8(int8_stream, hop, calibration)


def _licence_of(sha256: str) -> str:
    """That of a bundled model whose checkpoint this is; empty if it is none's."""
    from ..artefact.runtime import read_metadata

    about = map(read_metadata, bundled_files())
    return next((one.licence for one in about if one.checkpoint_sha256 == sha256), "")


def _print_size(path: Path) -> None:
    print(f"{path}: {path.stat().st_size:,} bytes", flush=True)


def _print_parity(path: Path, parity: Parity) -> None:
    _print_size(path)
    line = f"  probabilities differ by up to {parity.largest_difference:.1e} from the checkpoint's"
    if parity.accuracy is not None and parity.checkpoint_accuracy is not None:
        line += f"; accuracy {100 * parity.accuracy:.2f} %, the checkpoint's {100 * parity.checkpoint_accuracy:.2f} %"
    print(f"{line} ({parity.n_clips} clips, {parity.clips})", flush=True)


@app.command()
@libraries_silenced()
def convert(
    model: Annotated[str, typer.Argument(help="Model of `enroll`, computer.onnx.")],
    recordings: Annotated[
        list[Path] | None,
        typer.Option(
            "--recordings",
            help="Recordings of its words, for ranges of integers and a check; repeatable (default: synthetic voices).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Model to write, NAME.tflite; others are written beside it.")
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Bank of speech (default: the package's).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed for random draws.")] = 0,
) -> None:
    """Convert a model of your own words for a microcontroller: NAME.tflite, NAME.int8.tflite and NAME.h."""
    from ..export.litert import require_litert
    from ..export.own_words import Converter, takes_of

    require_litert()
    path = find_model(model, "stream")
    place = out or path.with_name(f"{path.name.removesuffix('.onnx').removesuffix('.stream')}.tflite")
    if place.suffix != ".tflite" or "." in place.stem:
        raise UsageError(f"{place}: expected a name of the form NAME.tflite")
    check_writable(place)
    takes, passed_over = takes_of(path, recordings or (), seed)
    for name, reason in passed_over.items():
        complain(f"{name}: not used: {reason}", 1)
    converter = Converter(path, takes, bank)
    for written in converter.write(place):
        _print_hearing(written)
    _print_size(place.with_suffix(".h"))
    print(f"{printable(str(path))} itself: {_hears(converter.expected)}")


def _print_hearing(written: Written) -> None:
    _print_size(written.path)
    print(f"  probabilities differ by up to {written.largest_difference:.1e}; {_hears(written.found)}", flush=True)


def _hears(found: Hearing) -> str:
    """What is heard, in words."""
    events = "1 false alarm" if found.events == 1 else f"{found.events} false alarms"
    return f"hears {found.heard} of {found.takes} takes, {events} in {found.seconds / 60:.0f} min without the word"
