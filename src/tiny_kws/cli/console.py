"""What all commands share: the app, options, a line for an error, a bar for progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.cells import cell_len
from typer.core import TyperGroup

from .. import __version__
from ..artefact.store import DEFAULT_MODELS
from ..audio import find_sound_files
from ..decoding import Source
from ..errors import KwsError, UsageError
from ..words import is_word, label_of

if TYPE_CHECKING:
    from ..evaluation.tables import Block

LONGEST_SENTENCE = 200
"""Characters of a command's help in the list of commands."""


class Group(TyperGroup):
    """Commands whose list shows the first sentence of each help whole, however narrow the terminal is."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  (as it is called)
        """List the commands."""
        rows = [(name, command.get_short_help_str(LONGEST_SENTENCE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    cls=Group,
    context_settings=HELP_OPTIONS,
    help="Hear a few chosen words: listen, make a model for your own word, train and measure.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(cls=Group, help="Download and prepare training data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

PROGRESS_FROM = 20
"""Files from which on a progress bar is worth its line."""

JOINERS = "\u200c\u200d"
"""Marks that some scripts write their words with."""

Progress = Callable[[int, int], None]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"Artefact (.onnx), name of a bundled model (default: {DEFAULT_MODELS['clip']}), or hf://USER/NAME.",
    ),
]


def printable(text: str) -> str:
    r"""`text` with whatever could steer a terminal or hide in it escaped: a model's labels are anyone's.

    >>> print(printable("stop \x1b[2J"), printable("توقف"))
    stop \x1b[2J توقف
    """
    return "".join(c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode() for c in text)


def complain(message: str, status: int) -> int:
    """Print an error as one line and give the status back."""
    print(f"tiny-kws: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return status


def width_of(text: str) -> int:
    """Columns that a text takes in a terminal: two for a wide letter, none for an accent of its own.

    >>> width_of("stop"), width_of("灯")
    (4, 2)
    """
    return cell_len(text)


def padded(text: str, width: int) -> str:
    """A text, printable, with blanks behind it up to `width` columns."""
    shown = printable(text)
    return shown + " " * (width - width_of(shown))


def print_blocks(blocks: Iterable[Block]) -> None:
    """Print paragraphs and tables with an empty line between them, the columns of a table in line."""
    print(
        "\n\n".join(_lines(block) if isinstance(block, str) else aligned(block.columns, block.rows) for block in blocks)
    )


def _lines(paragraph: str) -> str:
    return "\n".join(map(printable, paragraph.splitlines()))


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: columns of numbers end in line, others begin so.

    >>> print(aligned(("word", "clips"), [("stop", "30"), ("go", "4")]))
    word  clips
    stop     30
    go        4
    """
    shown = [[printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(width_of, column)) for column in zip(*shown, strict=True)]
    numeric = [all(cell[:1] in "-0123456789" for cell in column) for column in zip(*shown[1:], strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, numeric or [False] * len(row), strict=True)
        return "  ".join(
            " " * (width - width_of(cell)) + cell if right else padded(cell, width) for cell, width, right in cells
        ).rstrip()

    return "\n".join(map(line, shown))


def parse_words(text: str | None, labels: Sequence[str]) -> tuple[str, ...]:
    """The words of `--words`, by commas, or none. Raises UsageError for one that is not among the model's `labels`."""
    known = [label for label in labels if is_word(label)]
    asked = [word.strip() for word in (text or "").split(",") if word.strip()]
    words = {word: label_of(word, known) for word in asked}
    strange = [word for word, label in words.items() if label is None]
    if strange or (text is not None and not words):
        found = repr(strange[0]) if strange else "no word"
        raise UsageError(f"--words: found {found}, expected one or more of {', '.join(map(printable, known))}")
    return tuple(dict.fromkeys(label for label in words.values() if label is not None))


def gather(paths: list[str], report: Callable[[str, KwsError], None]) -> list[Source]:
    """The sources that the arguments name, folders walked; `report` is told of those that cannot be read."""
    sources: list[Source] = []
    for path in paths:
        if not path:
            raise UsageError("found an empty name, expected a sound file or a folder; is a variable not set?")
        if path == "-":
            if sys.stdin is None:
                raise UsageError("standard input (-) is closed, expected a sound on it")
            if sys.stdin.buffer in sources:
                raise UsageError("standard input (-) was named twice, expected once")
            sources.append(sys.stdin.buffer)
        elif os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises on a name too long)
            try:
                sources += find_sound_files(Path(path), report)
            except KwsError as error:
                report(path, error)
        else:
            sources.append(Path(path))
    return sources


@contextmanager
def progress_bar(what: str, shown: bool = True) -> Iterator[Progress]:
    """A callback `(done, total)` that moves a bar on standard error; on anything but a terminal it shows nothing."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """Keep libraries that write there by themselves from standard error; what Python prints gets there.

    ALSA and PortAudio do, and libmpg123 of every damaged MP3. For commands alone, whose process is their own: around a
    single call it would also take from other threads what they print meanwhile.
    """
    before: TextIO | None = sys.stderr
    is_replaced = before is not sys.__stderr__
    if before is None or is_replaced:
        yield
        return
    with ExitStack() as stack:
        kept = os.dup(2)
        stack.callback(os.close, kept)
        sys.stderr = stack.enter_context(os.fdopen(os.dup(kept), "w", 1, before.encoding, before.errors))
        stack.callback(setattr, sys, "stderr", before)
        nothing = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nothing)
        os.dup2(nothing, 2)
        stack.callback(os.dup2, kept, 2)
        yield


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tiny-kws {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Hear a few chosen words: listen, make a model for your own word, train and measure."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
