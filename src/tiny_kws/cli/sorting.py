"""The command that plays what set a model off and asks whether it was the word: sort."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..audio import Samples, is_sound_name, read_mono
from ..errors import AudioError, KwsError
from ..listening.sorting import RIGHT, WRONG, put, unsorted, word_of
from .console import app, complain, libraries_silenced, printable

FOLDERS = {"y": RIGHT, "n": WRONG}
QUESTION = "y (it was the word), n (it was not), r (again), s (skip), q (stop)? "


@app.command(name="sort")
@libraries_silenced()
def sort_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by `listen --record-triggers`.")],
) -> None:
    """Play each sound that set a model off, ask whether it was the word, and move it to DIR/right or DIR/wrong.

    Sounds that are sorted are not asked for again.
    """
    sounds = unsorted(folder)
    if not sounds:
        _say(f"nothing is left to sort in {folder}")
    player = _Player()
    for number, sound in enumerate(sounds, 1):
        if not _sort_one(sound, f"{number} of {len(sounds)}", player):
            break
    _print_next(folder)


def _sort_one(sound: Path, which: str, player: _Player) -> bool:
    """Ask about one sound until it is answered; whether to go on."""
    try:
        audio = read_mono(sound)
    except AudioError as error:
        complain(f"{error}; passed over", 1)
        return True
    _say(f"{which}: {sound}")
    answer = "r"
    while answer not in ("y", "n", "s", "q"):
        if answer == "r":
            player.play(audio)
        answer = _answer()
    if answer in FOLDERS:
        put(sound, FOLDERS[answer])
    return answer != "q"


def _answer() -> str:
    """The first letter of a line; q at the end of input."""
    print(QUESTION, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        print(file=sys.stderr, flush=True)
        return "q"
    return line.strip().lower()[:1]


NO_PLAYER = "sound cannot be played without sounddevice (the extra mic); open the files in a player and answer here"


class _Player:
    """Plays sounds, or says once that it cannot."""

    def __init__(self) -> None:
        self._is_mute = False

    def play(self, audio: Samples) -> None:
        """Play (samples,), to the end."""
        if self._is_mute:
            return
        from ..enrolment.record import play

        try:
            play(audio, "sound", "open the files in a player and answer here")
        except (KwsError, ModuleNotFoundError) as error:
            self._is_mute = True
            complain(str(error) if isinstance(error, KwsError) else NO_PLAYER, 1)


def _print_next(folder: Path) -> None:
    """How many sounds are sorted how, and what to do with them."""
    found = {name: _sounds(folder / name) for name in (RIGHT, WRONG)}
    left = len(unsorted(folder))
    print(f"{len(found[RIGHT])} of the word, {len(found[WRONG])} not, {left} not sorted.")
    words = sorted({word_of(sound) for sounds in found.values() for sound in sounds} - {""})
    if found[WRONG]:
        print("Next, with the recordings that the model was made from:")
        for word in [word for word in words if any(word_of(sound) == word for sound in found[WRONG])] or ["WORD"]:
            print(f"  {printable(_command(folder, word, is_only=len(words) < 2))}")


def _sounds(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if is_sound_name(path.name)] if folder.is_dir() else []


def _command(folder: Path, word: str, *, is_only: bool) -> str:
    """The command that teaches a model what set it off; of several words in a folder each has its own sounds."""
    name = word.replace(" ", "-")
    wrong = shlex.quote(str(folder / WRONG)) + ("" if is_only else f"/*Z_{word.replace(' ', '_')}.wav")
    return f"tiny-kws enroll {shlex.quote(word)} {name}-recordings --improve {name}.onnx --not {wrong}"


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
