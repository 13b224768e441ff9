"""The command that lets the models be seen at work: demo."""

from __future__ import annotations

import threading
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ..artefact.store import find_model
from ..errors import UsageError
from .console import app


@app.command()
def demo(
    gradio: Annotated[bool, typer.Option("--gradio", help="Serve the app of a Hugging Face Space instead.")] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to serve at, with --gradio; 0.0.0.0 lets others in.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Stream model to offer first: artefact, name of a bundled model, or hf://USER/NAME; repeatable.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port to serve at (default: the first free one).")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    export: Annotated[
        Path | None, typer.Option("--export", help="New folder for the page, for any static host; nothing is served.")
    ] = None,
) -> None:
    """Listen in the browser: serve a page to this computer only, until Ctrl-C."""
    if gradio and export is not None:
        raise UsageError("found --export with --gradio, expected one of them: only the page is static")
    if host is not None and not gradio:
        raise UsageError(
            "found --host without --gradio; the page is served to this computer only; for others use --export"
        )
    if gradio and model:
        raise UsageError("found --model with --gradio, expected one of them: the Space uses the models beside it")
    own = [find_model(name, "stream") for name in model or ()]
    if gradio:
        _serve_app(host or "127.0.0.1", port or None, browser)
    elif export is not None:
        from ..apps.server import export_page

        export_page(export, own)
        print(export)
    else:
        _serve_page(port, browser, own)


def _serve_page(port: int | None, browser: bool, own: list[Path]) -> None:
    from ..apps.server import PageServer

    with PageServer(port, own) as server, suppress(KeyboardInterrupt):
        print(f"{server.url}  (Ctrl-C ends)", flush=True)
        if browser:  # beside the server: a browser in the terminal comes back when it is closed
            threading.Thread(target=_open, args=(server.url,), daemon=True).start()
        server.serve_forever()


def _serve_app(host: str, port: int | None, browser: bool) -> None:
    from ..apps.space import launch

    running, url = launch(host, port, browser)
    with suppress(KeyboardInterrupt):
        print(f"{url}  (Ctrl-C ends)", flush=True)
        while True:
            time.sleep(1)
    running.close(verbose=False)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        print("No browser could be opened. Open this address in one.", flush=True)
