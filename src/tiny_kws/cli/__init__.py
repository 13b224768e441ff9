"""The command line: parsing, printing, progress and exit codes. The only room that prints.

Exit status: 0 all went well, 1 a job or one of its files failed, 2 the command was used wrongly.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer

from ..errors import KwsError, UsageError, install_hint
from ..files import cannot_write, is_full
from . import clips, data, demo, enrolling, export, listening, serving, sharing, sorting, streams, training
from .console import app, complain

EXTRAS = {
    "litert": "litert",
    "ai_edge": "litert",
    "sounddevice": "mic",
    "gradio": "demo",
    "huggingface_hub": "hub",
    "matplotlib": "plot",
    "wyoming": "serve",
    "aiohttp": "serve",
    "zeroconf": "serve",
    "paho": "mqtt",
}
"""Which extra brings a module, by how the module's name starts; any other comes with `train`."""


def main() -> None:
    """Run the command line and exit: an error is one line on standard error."""
    _print_any_name()
    try:
        with _warnings_told(), _endings_raised():
            status = _run()
    except KwsError as error:
        status = complain(str(error), 2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tiny_kws"):
            raise
        extra = next((extra for start, extra in EXTRAS.items() if error.name.startswith(start)), "train")
        status = complain(f"this command needs {error.name}, which is not installed; {install_hint(extra)}", 1)
    except (KeyboardInterrupt, typer.Abort):
        status = complain("interrupted", 130)
    except _Ended as ended:
        status = ended.explain()
    except BrokenPipeError:  # the reader, `head` for one, has had enough
        _end_output()
        status = 1
    except OSError as error:
        status = _explain_trouble(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
            raise
        status = complain(f"{error.format_message().splitlines()[0].rstrip('.')}. See `tiny-kws --help`.", 2)
    sys.exit(status)


class _Complaints(logging.Handler):
    """Prints what the rooms warn of, each as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage(), 0)


@contextmanager
def _warnings_told() -> Iterator[None]:
    logger, handler = logging.getLogger("tiny_kws"), _Complaints(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _explain_trouble(error: OSError) -> int:
    """What the system refuses: standard output on a full disk, a name too long, a folder that may not be entered."""
    _end_output()
    if error.filename is None and is_full(error):
        return complain(str(cannot_write("standard output", error)), 1)
    return complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)


class _Ended(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def explain(self) -> int:
        """Say so, where the terminal is not gone, and give the status."""
        with suppress(OSError):
            complain(f"ended by {self.number.name}", 128 + self.number)
        _end_output()
        return 128 + self.number


@contextmanager
def _endings_raised() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave no half-written file and no copy behind, as Ctrl-C does; a second one ends at once.

    Who had one of them ignored, as nohup does, keeps it so.
    """

    def end(number: int, _: Any) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise _Ended(signal.Signals(number))

    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


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


__all__ = [
    "app",
    "clips",
    "data",
    "demo",
    "enrolling",
    "export",
    "listening",
    "main",
    "serving",
    "sharing",
    "sorting",
    "streams",
    "training",
]
