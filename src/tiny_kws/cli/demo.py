"""The command that lets the models be seen at work: demo."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Annotated

import typer

from ..errors import UsageError
from .console import app


@app.command()
def demo(
    gradio: Annotated[bool, typer.Option("--gradio", help="The app of a Hugging Face Space.")] = False,
    host: Annotated[str, typer.Option("--host", help="Address to serve at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="The first free one by default.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in the browser.")] = True,
) -> None:
    """Serve an app to try the models with, until Ctrl-C (status 0)."""
    if not gradio:
        raise UsageError("found no kind of app, expected --gradio")
    from ..apps.space import launch

    running, url = launch(host, port, browser)
    with suppress(KeyboardInterrupt):
        print(f"{url}\nCtrl-C ends it.", flush=True)
        while True:
            time.sleep(1)
    running.close(verbose=False)
