"""Commands that make a model: data, train."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..training_config import (
    CAUSAL_SIZES,
    HARD_NEGATIVES,
    MIXED_TRAINING,
    STREAM_TRAINING,
    WINDOW_TRAINING,
    TrainConfig,
)
from .console import app

if TYPE_CHECKING:
    from ..training.reports import Callbacks, EpochReport, StepReport

TELL_S = 60.0
"""How often a training says where it stands to what is no terminal."""


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


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, curves and TensorBoard events.")],
    model: Annotated[Network, typer.Option("--model", help="Network; all except ds-cnn can stream.")] = Network.ds_cnn,
    resume: Annotated[bool, typer.Option("--resume", help="Resume exactly where the training was last saved.")] = False,
    recipe: Annotated[
        Recipe | None,
        typer.Option(
            "--recipe",
            help="Training material: clips (default for ds-cnn), windows (default for others), streams or mixed.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Epochs (default: {', '.join(f'{kind.value} {its.epochs}' for kind, its in RECIPES.items())}).",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=2, help="Clips, windows or streams in each step; mixed takes half as many streams."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    leave_out: Annotated[
        str, typer.Option("--leave-out", help="Other words to keep out of the training, such as bed,four.")
    ] = "",
    first: Annotated[Path | None, typer.Option("--from", help="Checkpoint of the same network to start from.")] = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option("--teacher", help="Checkpoint whose answers are learnt too, on windows; repeatable."),
    ] = None,
    teacher_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help=f"Weight of the teachers' answers against the labels (default: {TrainConfig.teacher_weight}).",
        ),
    ] = None,
    hard_negatives: Annotated[
        bool,
        typer.Option(
            "--hard-negatives", help="Search for sounds that cause false alarms before each epoch, on streams."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed for weights and draws.")] = TrainConfig.seed,
    precision: Annotated[str, typer.Option(help="Precision: auto, float32 or bfloat16.")] = TrainConfig.precision,
    device: Annotated[str | None, typer.Option(help="Device: cpu, cuda or mps (default: the best available).")] = None,
) -> None:
    """Train a network on prepared data.

    OUT/best.pt is the checkpoint with the best validation accuracy, or the last one if the recipe is streams. On a
    server's CPU a training takes about an hour (docs/train.md), on other computers many; the time left is shown. To
    train in several processes: torchrun --nproc-per-node 2 -m tiny_kws train DATA --out OUT.
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
        raise UsageError(
            "found --hard-negatives without streams, expected a training on streams; add --recipe streams or mixed"
        )
    return replace(config, streams=replace(config.streams, hard_negatives=HARD_NEGATIVES))


def _next_step(data: Path, out: Path, model: Network, recipe: Recipe, best: Path) -> str:
    """What to do with the best checkpoint."""
    if recipe == Recipe.windows and model != Network.ds_cnn:
        listen = f"tiny-kws train {data} --model {model.value} --recipe streams --hard-negatives --from {best}"
        return f", so that it listens: {listen} --out {out}-listening"
    return f": tiny-kws evaluate {best} --data {data} --out {out / 'validation'}"


def _step_line(report: StepReport) -> str:
    """Where a training stands, with the hours and minutes that are left."""
    hours, minutes = divmod(math.ceil(report.seconds_left / 60), 60)
    return (
        f"epoch {report.epoch}/{report.epochs}  step {report.step}/{report.steps}  loss {report.loss:.3f}  "
        f"accuracy {100 * report.accuracy:.1f} %  {hours}:{minutes:02} h left"
    )


def _printed_progress() -> Callbacks:
    """A line for each epoch, and in a terminal one that is written anew with the steps; elsewhere one a minute."""
    from ..training.reports import Callbacks

    live = sys.stderr.isatty()
    told_s = time.monotonic()

    def on_step(report: StepReport) -> None:
        nonlocal told_s
        if live:
            print(f"\r\x1b[K{_step_line(report)}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - told_s >= TELL_S:
            told_s = time.monotonic()
            print(_step_line(report), file=sys.stderr, flush=True)

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
