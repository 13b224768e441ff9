"""Commands that make a model for words of one's own: enroll, combine."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import KwsError, UsageError
from .console import app, complain, libraries_silenced, print_blocks, printable

if TYPE_CHECKING:
    from ..audio import Samples
    from ..enrolment.enroll import Report
    from ..enrolment.record import Recorder

TRIES = 5
"""At one take, before recording is given up."""


@app.command()
def enroll(
    word: Annotated[str, typer.Argument(help="The word or phrase, as it is to be called.")],
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[RECORDING...]", help="Sound files or folders in which it is said.")
    ] = None,
    recordings: Annotated[
        list[Path] | None, typer.Option("--recordings", help="The same, as an option; may be repeated.")
    ] = None,
    record: Annotated[
        int | None, typer.Option("--record", min=1, max=100, help="Record so many from the microphone first.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play each take of --record back.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="Number of a microphone, or part of its name.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Artefact to write (default: WORD.onnx).")] = None,
    false_alarms: Annotated[
        float, typer.Option("--false-alarms-per-hour", help="Rate in speech that the threshold is chosen for.")
    ] = 0.5,
    negatives: Annotated[
        list[Path] | None,
        typer.Option("--negatives", help="Sound in which the word is not said, beside the package's; may be repeated."),
    ] = None,
    add: Annotated[
        Path | None, typer.Option("--add", metavar="MODEL", help="Model of enroll whose words the new one joins.")
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Another bank of speech than the package's.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Make a model that hears a word of your own from a few recordings, and tell its error rates."""
    from ..enrolment.enroll import check_request, fulfil

    sources = [*(files or []), *(recordings or [])]
    if record is None and not sources:
        raise UsageError("found no recordings, expected files or folders of them, or --record 10")
    if record is None and (play or device is not None):
        raise UsageError("found --play or --device without --record, expected them with it; add --record 10")
    asked = check_request(word, add if out is None else out, false_alarms, add, bank)
    if record is not None:
        sources += _record(asked.word, record, device, play)
    report = fulfil(asked, sources, negatives or (), seed)
    if as_json:
        print(json.dumps(asdict(report), indent=2, default=str))
    else:
        print_report(report)


@app.command()
def combine(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Artefacts of enroll.")],
    out: Annotated[Path, typer.Option("--out", help="Artefact to write.")],
    bank: Annotated[Path | None, typer.Option("--bank", help="Another bank of speech than the package's.")] = None,
) -> None:
    """Put the words of several models of enroll into one, which costs hardly more than one of them."""
    from ..enrolment.enroll import combine as join

    words = join(models, out, bank)
    print(f"{printable(str(out))} hears {', '.join(map(printable, words))}.")


def print_report(report: Report) -> None:
    """What was found and what to expect, as paragraphs and a table."""
    from ..enrolment.told import EXPLANATION, n_takes, told_table

    for name, reason in report.passed_over.items():
        complain(f"{name}: not used: {reason}", 1)
    for name in report.misfits:
        complain(f"{name}: does not sound like the others; listen to it, and leave it out if it is another word", 1)
    length = f"{n_takes(report.takes)}, {report.seconds:.1f} s long"
    table = told_table(report.expected, report.chosen.threshold)
    notes = [f"Note: {note}." for note in report.notes]
    print_blocks([f"{report.word}: {length}", table, EXPLANATION, *notes])
    print(f"\nWritten: {printable(str(report.path))}\nTry it:  tiny-kws listen --model {printable(str(report.path))}")


def _record(word: str, count: int, device: str | None, playback: bool) -> list[Path]:
    """Record takes of `word` and keep them, asking for each until it is good."""
    from ..enrolment.record import Recorder, keep, play
    from ..enrolment.told import n_takes

    folder = Path(f"{word.replace(' ', '-')}-recordings")
    kept: list[Path] = []
    try:
        with libraries_silenced(), closing(Recorder(device)) as recorder:
            for number in range(1, count + 1):
                audio = _good_take(recorder, f"{number} of {count}", word)
                kept.append(keep(folder, word, audio))
                if playback:
                    play(audio)
    finally:
        if kept:
            print(f"Recorded {n_takes(len(kept))} into {printable(str(folder))}", file=sys.stderr, flush=True)
    return kept


def _good_take(recorder: Recorder, which: str, word: str) -> Samples:
    for _ in range(TRIES):
        take = recorder.take(lambda: print(f"{which}: say {printable(word)!r} now", file=sys.stderr, flush=True))
        if not take.problem:
            return take.audio
        complain(take.problem, 1)
    raise KwsError(f"{which}: gave up after {TRIES} tries, expected a take that can be used; see to the microphone")
