"""The command that serves many streams: serve."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ..artefact.store import DEFAULT_MODELS
from ..errors import UsageError
from .console import app, complain, libraries_silenced


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help=f"Stream artefact or name of a bundled model (default: {DEFAULT_MODELS['stream']}); repeatable.",
        ),
    ] = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of stream artefacts; changes are picked up while serving.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to serve at; 0.0.0.0 lets other machines in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of Wyoming.")] = 10400,
    http: Annotated[
        int | None, typer.Option("--http", min=0, max=65535, help="Port of HTTP and WebSocket (default: off).")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="TINY_KWS_TOKEN", help="Secret that HTTP and WebSocket clients must send."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Another host name that browsers may use; repeatable."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="[WORD=]NUMBER", help="Threshold of a word, or of all words; repeatable."),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on", metavar="LABEL=COMMAND", help="Command to start, without a shell, when LABEL is heard; repeatable."
        ),
    ] = None,
    save_triggers: Annotated[
        Path | None, typer.Option("--save-triggers", help="Folder for the sound of each event.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option("--mqtt", help="Broker for events: mqtt://[USER:PASSWORD@]HOST[:PORT][/PREFIX].")
    ] = None,
    connections: Annotated[
        int, typer.Option("--connections", min=1, help="Largest number of connections at once.")
    ] = 1000,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=1, help="Longest sound on one connection (default: no limit).")
    ] = None,
    announce: Annotated[
        bool, typer.Option("--announce/--no-announce", help="Announce the server to Home Assistant by zeroconf.")
    ] = True,
) -> None:
    """Serve wake words to Home Assistant (Wyoming), WebSocket and HTTP clients, until Ctrl-C."""
    from ..listening.actions import Commands, Recordings
    from ..serving.library import Library
    from ..serving.run import Address, serve
    from ..serving.sessions import Core, Limits, Seldom

    def warn(problem: str) -> None:
        complain(problem, 0)

    tell = Seldom(warn)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with libraries_silenced():
        files = model or ([] if models else [DEFAULT_MODELS["stream"]])
        library = Library(files, models, _thresholds(threshold or []), tell)
        commands = Commands(on, list(library.words), tell, sys.stderr) if on else None
        recordings = Recordings(save_triggers, tell) if save_triggers else None
        core = Core(library, Limits(connections, stream_s=seconds or float("inf")), commands, recordings)
        publisher = None
        if mqtt:
            from ..serving.mqtt import Publisher

            publisher = Publisher(mqtt, tell)
            core.told.append(publisher)
        try:
            with suppress(KeyboardInterrupt):
                address = Address(host, port, http, tuple(name or ()), token, announce)
                _run(serve(core, address, tell, say))
        finally:
            if publisher is not None:
                publisher.close()


def _thresholds(texts: list[str]) -> dict[str, float]:
    """By word, "" for all. Raises UsageError for what is none."""
    found = {}
    for text in texts:
        word, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(f"--threshold: found {text!r}, expected a number or WORD=NUMBER") from error
        if not 0 < value <= 1:
            raise UsageError(f"--threshold: found {text!r}, expected a number above 0, at most 1")
        found[word] = value
    return found


def _run(job: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is installed, which takes less of a server's CPU."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(job)
    else:
        uvloop.run(job)
