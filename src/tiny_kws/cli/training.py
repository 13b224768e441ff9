"""Commands that make a model: data, train."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..training_config import (
    CAUSAL_SIZES,
    CLIPS_PER_SHARD,
    HARD_NEGATIVES,
    MIXED_TRAINING,
    STREAM_TRAINING,
    WINDOW_TRAINING,
    PrepareConfig,
    TrainConfig,
)
from .console import app, complain, data_app, progress_bar

if TYPE_CHECKING:
    from ..training.reports import Callbacks, EpochReport, StepReport


class Network(str, Enum):
    """The networks that can be trained; the last four are sizes of the causal one."""

    ds_cnn = "ds-cnn"
    causal_cnn = "causal-cnn"
    micro = "micro"
    small = "small"
    base = "base"
    large = "large"


class Recipe(str, Enum):
    """What a network can be trained on."""

    clips = "clips"
    windows = "windows"
    streams = "streams"
    mixed = "mixed"


RECIPES = {
    Recipe.clips: TrainConfig(),
    Recipe.windows: WINDOW_TRAINING,
    Recipe.streams: STREAM_TRAINING,
    Recipe.mixed: MIXED_TRAINING,
}


@data_app.command("download")
def data_download(
    destination: Annotated[Path, typer.Argument(help="Folder to put the two archives' recordings in.")],
) -> None:
    """Fetch the two official archives (2.5 GB); run it again to go on where it stopped."""
    from ..data.download import download

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
    sources: Annotated[
        Path | None,
        typer.Option(
            "--sources",
            help="Names what else to train on, beside speech_commands_v0.02 (default: the package's sources.toml).",
        ),
    ] = None,
    any_licence: Annotated[
        bool, typer.Option("--any-licence", help="Take recordings of any licence; the weights are then bound by it.")
    ] = False,
) -> None:
    """Build the twelve-class task: splits, unknown, silence, one bank of waveforms."""
    from ..data.prepare import prepare
    from ..data.sources import SOURCES, read_sources

    named = read_sources(sources or SOURCES)
    if any_licence:
        named = replace(named, licences=())
    with progress_bar("reading clips") as progress:
        prepared = prepare(source, out, PrepareConfig(seed=seed), progress, named)
    manifest = prepared.manifest
    for split, counts in manifest["clips"].items():
        print(f"{split:10}  {sum(counts.values()):6} clips  {manifest['speakers'][split]:5} speakers")
    for bill in manifest["sources"]:
        print(_source_line(bill))
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


@data_app.command("shard")
def data_shard(
    prepared: Annotated[Path, typer.Argument(help="Prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the shards; to be trained on as prepared data.")],
    clips_per_shard: Annotated[int, typer.Option(min=1, help="One clip is 33 kB.")] = CLIPS_PER_SHARD,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of clips.")] = 0,
) -> None:
    """Write prepared data as WebDataset tar shards, for data larger than memory; train on them as on prepared data."""
    from ..data.prepared import open_prepared
    from ..data.shard_writer import write_shards

    with progress_bar("writing shards") as progress:
        names = write_shards(open_prepared(prepared), out, clips_per_shard, seed, progress)
    print(f"{len(names)} shards in {out}")
    print(f"Next: tiny-kws train {out} --out runs/ds-cnn")


def _source_line(bill: dict[str, Any]) -> str:
    """What a source gave, and what was left out and why."""
    line = f"{bill['name']} ({bill['use']}): {sum(bill['used'].values())} used"
    left_out = [f"{count} ({reason})" for reason, count in bill["left_out"].items()]
    return f"{line}; left out: {', '.join(left_out)}" if left_out else line


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, curves and TensorBoard events.")],
    model: Annotated[Network, typer.Option("--model", help="The network; all but ds-cnn stream.")] = Network.ds_cnn,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole epoch, exactly.")] = False,
    recipe: Annotated[
        Recipe | None,
        typer.Option("--recipe", help="clips (for ds-cnn by default), windows (for the others), streams, or mixed."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"By default {', '.join(f'{its.epochs} by {kind.value}' for kind, its in RECIPES.items())}."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=2, help="Clips, windows or streams of a step; there are half as many streams beside windows."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="At its peak.")] = None,
    leave_out: Annotated[
        str, typer.Option("--leave-out", help="Other words to keep out of the training, by commas: bed,four.")
    ] = "",
    first: Annotated[
        Path | None, typer.Option("--from", help="Begin with the weights of this checkpoint, of the same network.")
    ] = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher", help="Of windows: learn also from this checkpoint's answers, or several's on average."
        ),
    ] = None,
    teacher_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help=f"Of a teacher's answers, against the labels; {TrainConfig.teacher_weight} by default.",
        ),
    ] = None,
    hard_negatives: Annotated[
        bool, typer.Option("--hard-negatives", help="Of streams: look for what fires wrongly before each epoch.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0)] = TrainConfig.seed,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = TrainConfig.precision,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; the best there is by default.")] = None,
) -> None:
    """Train a network; the best checkpoint by validation accuracy is OUT/best.pt, of a training on streams the last.

    Under torchrun its processes train together: torchrun --nproc-per-node 2 -m tiny_kws train DATA --out OUT.
    """
    from ..data.prepared import open_prepared
    from ..training.checkpoint import load_checkpoint
    from ..training.distributed import is_first_process
    from ..training.trainer import train as run

    if recipe is None:
        recipe = Recipe.clips if model == Network.ds_cnn else Recipe.windows
    asked = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "teacher_weight": teacher_weight,
    }
    config = replace(
        RECIPES[recipe],
        seed=seed,
        precision=precision,
        left_out=tuple(sorted({word.strip() for word in leave_out.split(",")} - {""})),
        **{name: value for name, value in asked.items() if value is not None},  # type: ignore[arg-type]
    )
    if hard_negatives:
        config = _with_hard_negatives(config)
    size = CAUSAL_SIZES.get(model.value)
    best = run(
        open_prepared(data),
        out,
        model.value if size is None else Network.causal_cnn.value,
        None if size is None else asdict(size),
        config=config,
        device=device,
        resume=resume,
        callbacks=_printed_progress(),
        first=None if first is None else load_checkpoint(first),
        teachers=[load_checkpoint(path) for path in teachers or ()],
    )
    if is_first_process():
        print(best)
        print(f"Next{_next_step(data, out, model, recipe, best)}")


def _with_hard_negatives(config: TrainConfig) -> TrainConfig:
    if config.streams is None:
        raise UsageError("found --hard-negatives without streams, expected a training on some; add --recipe mixed")
    return replace(config, streams=replace(config.streams, hard_negatives=HARD_NEGATIVES))


def _next_step(data: Path, out: Path, model: Network, recipe: Recipe, best: Path) -> str:
    """What to do with the best checkpoint."""
    if recipe == Recipe.windows and model != Network.ds_cnn:
        listen = f"tiny-kws train {data} --model {model.value} --recipe streams --hard-negatives --from {best}"
        return f", so that it listens: {listen} --out {out}-listening"
    return f": tiny-kws evaluate {best} --data {data} --out {out / 'validation'}"


def _printed_progress() -> Callbacks:
    """A line for each epoch, and in a terminal one that is written anew with the steps."""
    from ..training.reports import Callbacks

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

    return Callbacks(on_step, on_epoch)
