"""Commands on recordings: data download, prepare, shard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.word_folders import parse_words
from ..training_config import CLIPS_PER_SHARD, PrepareConfig
from .console import complain, data_app, libraries_silenced, printable, progress_bar

if TYPE_CHECKING:
    from ..data.manifest import Bill


@data_app.command("download")
def data_download(
    destination: Annotated[Path, typer.Argument(help="Folder for the recordings of both archives.")],
) -> None:
    """Download Speech Commands (2.5 GB); run it again to resume."""
    from ..data.download import download

    with progress_bar("downloading") as bar:
        for folder in download(destination, progress=lambda _name, done, total: bar(done, total)):
            print(folder)
    print(f"Next: tiny-kws data prepare {destination} --out prepared")


@data_app.command("prepare")
@libraries_silenced()
def data_prepare(
    source: Annotated[
        Path, typer.Argument(help="Folder of Speech Commands; with --words, any folder of word folders.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the prepared data.")],
    words: Annotated[
        str | None,
        typer.Option(
            "--words",
            metavar="WORD,...",
            help="Words to hear, each a folder of clips (default: the ten of Speech Commands).",
        ),
    ] = None,
    window_ms: Annotated[
        float, typer.Option("--window-ms", help="Length of sound that the network hears at once, 500 to 2000 ms.")
    ] = PrepareConfig.window_ms,
    speakers: Annotated[
        Path | None, typer.Option("--speakers", help="CSV table of speakers, with the columns file and speaker.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed for the draws of unknown and silence.")
    ] = PrepareConfig.seed,
    sources: Annotated[
        Path | None,
        typer.Option(
            "--sources",
            help="TOML list of further training sound (default: the package's sources.toml).",
        ),
    ] = None,
    any_licence: Annotated[
        bool, typer.Option("--any-licence", help="Use recordings under any licence; the weights are then bound by it.")
    ] = False,
) -> None:
    """Prepare recordings for training: splits without shared speakers, unknown, silence."""
    from ..data.prepare import prepare
    from ..data.sources import SOURCES, read_sources

    named = read_sources(sources or SOURCES)
    if any_licence:
        named = replace(named, licences=())
    with progress_bar("reading clips") as progress:
        chosen = None if words is None else parse_words(words)
        config = PrepareConfig(seed=seed, window_ms=window_ms)
        prepared = prepare(source, out, config, progress, named, chosen, speakers)
    manifest = prepared.manifest
    for split, counts in manifest.clips.items():
        print(f"{split:10}  {sum(counts.values()):6} clips  {manifest.speakers[split]:5} speakers")
    for bill in manifest.sources:
        print(_source_line(bill))
    print(f"split {manifest.division}")
    for note in manifest.notes:
        print(printable(note))
    for split, count in manifest.missing.clips.items():
        print(f"incomplete: {split} lacks {count} clips of the official archive")
    for split, count in manifest.missing.listed.items():
        if count:
            print(f"incomplete: {count} clips of {split}_list.txt are missing")
    print(_next_step(out, words))
    for message in manifest.unreadable:
        complain(message, 1)
    if manifest.unreadable:
        raise typer.Exit(1)


@data_app.command("shard")
def data_shard(
    prepared: Annotated[Path, typer.Argument(help="Prepared data.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the shards.")],
    clips_per_shard: Annotated[
        int, typer.Option(min=1, help="Clips in each shard; one clip takes 33 kB.")
    ] = CLIPS_PER_SHARD,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the order of clips.")] = 0,
) -> None:
    """Write prepared data as WebDataset tar archives.

    `train` reads them like prepared data, even if they are larger than memory.
    """
    from ..data.prepared import open_prepared
    from ..data.shard_writer import write_shards

    with progress_bar("writing shards") as progress:
        names = write_shards(open_prepared(prepared), out, clips_per_shard, seed, progress)
    print(f"{len(names)} shards in {out}")
    print(f"Next: tiny-kws train {out} --out runs/ds-cnn")


def _source_line(bill: Bill) -> str:
    """What a source gave, and what was left out and why."""
    line = f"{bill.name} ({bill.use}): {sum(bill.used.values())} used"
    left_out = [f"{count} ({reason})" for reason, count in bill.left_out.items()]
    return f"{line}; left out: {', '.join(left_out)}" if left_out else line


def _next_step(out: Path, words: str | None) -> str:
    """The command to go on with: the reference for Speech Commands, for one's own words a network that listens."""
    options = "--out runs/ds-cnn" if words is None else "--model base --out runs/mine"
    return f"Next: tiny-kws train {out} {options}"
