"""Commands that make a model for words of one's own: enroll, combine."""

from __future__ import annotations

import json
import sys
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import KwsError, UsageError
from .console import app, complain, libraries_silenced, print_blocks, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..audio import Samples
    from ..enrolment.advise import Advice
    from ..enrolment.enroll import Report
    from ..enrolment.improve import Improvement
    from ..enrolment.record import Recorder
    from ..enrolment.say import Say
    from ..evaluation.tables import Block

TRIES = 5
"""At one take, before recording is given up."""


@app.command()
@libraries_silenced()
def enroll(
    word: Annotated[str, typer.Argument(help="Word or phrase to hear.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RECORDING...]", help="Sound files or folders in which the word is said."),
    ] = None,
    recordings: Annotated[
        list[Path] | None,
        typer.Option("--recordings", help="Sound file or folder in which the word is said; repeatable."),
    ] = None,
    record: Annotated[
        int | None,
        typer.Option("--record", min=1, max=100, help="Number of takes to record from the microphone first."),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play back each take of --record.")] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="Number of the microphone, or part of its name.")
    ] = None,
    say: Annotated[bool, typer.Option("--say", help="Let synthetic voices say the word, too or alone.")] = False,
    sounds_like: Annotated[
        list[str] | None,
        typer.Option(
            "--sounds-like", help="Spelling for the voices to read instead of the word; repeatable.", metavar="TEXT"
        ),
    ] = None,
    voice: Annotated[str, typer.Option("--voice", help="Language of the voices: en, de, es, fr or it.")] = "en",
    voice_command: Annotated[
        list[str] | None,
        typer.Option(
            "--voice-command",
            metavar="COMMAND",
            help="Program that speaks: {text} is what to say, {out} the WAV file to write; repeatable.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Artefact to write (default: WORD.onnx).")] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            "--false-alarms-per-hour",
            help="False alarms per hour of speech at which the threshold is set (default: 0.5, or --improve's).",
        ),
    ] = None,
    negatives: Annotated[
        list[Path] | None,
        typer.Option("--negatives", help="More sound in which the word is not said; repeatable."),
    ] = None,
    add: Annotated[
        Path | None, typer.Option("--add", metavar="MODEL", help="Model of `enroll` to add the word to.")
    ] = None,
    improve: Annotated[
        Path | None,
        typer.Option(
            "--improve",
            metavar="MODEL",
            help="Model of `enroll` to make better with --also and --not; it is replaced if the new one is not worse.",
        ),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="File or folder of takes that --improve's model should hear; repeatable."),
    ] = None,
    not_: Annotated[
        list[Path] | None,
        typer.Option("--not", help="File or folder of sounds that set off --improve's model wrongly; repeatable."),
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="Train for minutes, on thousands of variants, to hear more in noise; a killed run goes on.",
        ),
    ] = False,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Network under the word: base, or micro, a tenth of it, which hears less."),
    ] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="Bank of speech (default: the package's).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed for random draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Make a model for your own word, and print its expected error rates."""
    from ..enrolment.enroll import check_request, fulfil, partly
    from ..enrolment.say import Say
    from ..enrolment.thorough import Progress

    sources = [*(files or []), *(recordings or [])]
    if record is None and not sources and not say and improve is None:
        raise UsageError("found no recordings, expected files or folders of them, --record 10, or --say")
    if not say and (sounds_like or voice_command or voice != "en"):
        raise UsageError(
            "found --sounds-like, --voice or --voice-command without --say, expected them with it; add --say"
        )
    if record is None and (play or device is not None):
        raise UsageError("found --play or --device without --record, expected them with it; add --record 10")
    place = add if out is None else out
    asked = check_request(word, place, false_alarms, add, bank, improve, also or (), not_ or (), size)
    if record is not None:
        sources += _record(asked.word, record, device, play)
    voices = Say(tuple(sounds_like or ()), voice, tuple(voice_command or ())) if say else None
    if voices and not as_json:
        _print_sounds(asked.word, voices)
    progress = Progress(partly(asked.path), lambda told: complain(told, 1)) if thorough else None
    report = fulfil(asked, sources, voices, negatives or (), seed, progress)
    _name_unfit(report)
    if as_json:
        print(json.dumps(asdict(report), indent=2, default=str))
    else:
        print_report(report)
    if report.path is None and report.improvement:
        raise KwsError(_kept(report.improvement, str(improve)))


def _kept(found: Improvement, model: str) -> str:
    """Why an old model was not replaced."""
    reasons = "; it ".join(found.worse)
    return f"{model}: left as it was, because the new model {reasons}; to have it anyway, name another file with --out"


@app.command()
def combine(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Artefacts written by `enroll`.")],
    out: Annotated[Path, typer.Option("--out", help="Artefact to write.")],
    bank: Annotated[Path | None, typer.Option("--bank", help="Bank of speech (default: the package's).")] = None,
) -> None:
    """Combine the words of several models of `enroll` in one model."""
    from ..enrolment.enroll import combine as join

    words = join(models, out, bank)
    print(f"{printable(str(out))} hears {', '.join(map(printable, words))}.")


@app.command()
def advise(
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="Words or phrases to choose from.")],
    bank: Annotated[Path | None, typer.Option("--bank", help="Bank of speech (default: the package's).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed for random draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as JSON.")] = False,
) -> None:
    """Compare words before you choose one: similar words, expected false alarms."""
    from ..enrolment.advise import advise as compare

    found = compare(words, bank, seed)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print_advice(found)


def print_advice(found: Sequence[Advice]) -> None:
    """A table of the candidates, the best first, and a paragraph on each."""
    from ..enrolment.told import advice_table

    print_blocks(
        [
            advice_table(found),
            "False alarms are those per hour of English speech, at a threshold at which nine out of ten synthetic "
            "voices are heard in noise at 10 dB. Brackets hold 95 % intervals.",
            *(_advice_lines(one) for one in found),
        ]
    )


def _advice_lines(one: Advice) -> str:
    near = ", ".join(f"{near.text} ({near.per_hour:.1f} per hour)" for near in one.near) or "no common word"
    fires_at = ", ".join(one.fires_at) or "nothing"
    hints = "; ".join(one.hints) or "no objections"
    return f"{one.word}: {hints}.\nSounds like: {near}.\nFires at: {fires_at}."


def _name_unfit(report: Report) -> None:
    """Tell of each recording that was not used, or is not like the others."""
    for name, reason in report.passed_over.items():
        complain(f"{name}: not used: {reason}", 1)
    for name in report.misfits:
        complain(f"{name}: does not sound like the others; listen to it, and leave it out if it is a different word", 1)


def print_report(report: Report) -> None:
    """What was found and what to expect, as paragraphs and a table."""
    from ..enrolment.told import EXPLANATION, made_of, told_table

    length = f"{made_of(report.takes, report.spoken)}, {report.seconds:.1f} s long"
    table = told_table(report.expected, report.chosen.threshold, voices=not report.takes)
    fires_at = [f"Nearest to it in speech: {', '.join(report.fires_at)}."] if report.fires_at else []
    notes = [f"Note: {note}." for note in report.notes]
    improvement = _improvement_blocks(report.improvement) if report.improvement else []
    print_blocks([f"{report.word}: {length}", table, EXPLANATION, *fires_at, *improvement, *notes])
    if report.path is not None:
        _print_path(report.path)


def _improvement_blocks(found: Improvement) -> list[Block]:
    from ..enrolment.told import OLD_AND_NEW, improvement_table

    known = "Note: the old model was improved before; if it was by these recordings, it knew them."
    return [
        improvement_table(found),
        OLD_AND_NEW,
        *([known] if found.may_know else []),
        *(f"Note: the new model {worse}." for worse in found.worse),
    ]


def _print_path(path: Path) -> None:
    print(f"\nWritten: {printable(str(path))}\nTry it:  tiny-kws listen --model {printable(str(path))}")


def _print_sounds(word: str, say: Say) -> None:
    """Say how the voices will read a word, where that is known, and who they are."""
    from ..enrolment.say import speakers
    from ..enrolment.sounds import sounds_of

    texts = say.texts(word)
    if say.language == "en":
        with suppress(UsageError):
            read = ", ".join(f"{printable(text)} as {sounds_of(text)}" for text in texts)
            complain(f"read {read}; write how it sounds with --sounds-like if that is not it", 1)
    complain(f"said by {', '.join(voice.name for voice in speakers(say, texts))}", 1)


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
    raise KwsError(f"{which}: gave up after {TRIES} tries, expected a usable take; check the microphone")
