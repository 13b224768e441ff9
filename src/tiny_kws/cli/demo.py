"""The command that shows the page: demo."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from .console import app


@app.command()
def demo(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="To serve at; by default the first free from 8321.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the page to a new folder, for any static host, and end.")
    ] = None,
) -> None:
    """Listen in the browser: serve the page on this computer alone, until Ctrl-C (status 0)."""
    from ..apps.server import PageServer, export_page

    if export is not None:
        export_page(export)
        print(export)
        return
    with PageServer(port) as server, suppress(KeyboardInterrupt):
        print(f"{server.url}  (Ctrl-C ends)", flush=True)
        if browser:  # beside the server: a browser in the terminal comes back when it is closed
            threading.Thread(target=_open, args=(server.url,), daemon=True).start()
        server.serve_forever()


def _open(url: str) -> None:
    if not webbrowser.open(url):
        print("No browser could be opened: open that address in one.", flush=True)
