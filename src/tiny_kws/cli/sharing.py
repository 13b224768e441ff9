"""The command that shares a model: push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import app, complain


@app.command()
def push(
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the Hugging Face Hub.")],
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Folder of a training: best.pt, measurements, figures, artefacts if any."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Name of the artefacts, in the folder or bundled (default: the folder's, or NAME)."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    space: Annotated[
        bool, typer.Option("--space/--no-space", help="Also push a Space where the model can be tried.")
    ] = True,
    dry_run: Annotated[
        Path | None, typer.Option("--dry-run", help="New folder to write the upload to; nothing is uploaded.")
    ] = None,
) -> None:
    """Push a model to the Hugging Face Hub, with measurements, a card and a Space."""
    from ..sharing import publish

    publish.check_repo(repo)
    parts = publish.collect(model or (None if folder else repo.partition("/")[2]), folder)
    if space and not publish.can_be_shown(parts):
        complain("not pushing a Space, because its app needs a clip artefact and a stream artefact", 0)
        space = False
    if dry_run is not None:
        publish.write_all(parts, repo, dry_run, space)
        for path in sorted(path for path in dry_run.rglob("*") if path.is_file()):
            print(f"{path}: {path.stat().st_size:,} bytes")
        return
    pushed = publish.push(parts, repo, private, space)
    print(pushed.url)
    if pushed.space_url:
        print(pushed.space_url)
    print(f"Pinned: {pushed.name}")
