"""`tiny-kws sort` as its user meets it: sounds that set a model off, played, asked about and moved."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tiny_kws.listening.sorting import put, unsorted

from .helpers import command_line, environment, write_sound

NAMES = [f"2026050{day}T030201.000Z_computer.wav" for day in (1, 2, 3)]


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    """A folder with three sounds of *computer*; a note lies beside the first."""
    folder = tmp_path / "heard"
    folder.mkdir()
    for i, name in enumerate(NAMES):
        write_sound(folder / name, 0.2 + 0.1 * i)
    (folder / NAMES[0]).with_suffix(".json").write_text("{}")
    return folder


def sort(folder: Path, answers: str) -> tuple[int, str, list[str]]:
    """Status, standard output and lines on standard error of `tiny-kws sort`, without a device to play on."""
    done = subprocess.run(
        command_line("sort", folder, blocked=["sounddevice"]),
        input=answers,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_sounds_go_where_they_belong(heard: Path) -> None:
    """Yes and no move a sound and its note, skip leaves it; the next command is told, and once that nothing plays."""
    status, out, told = sort(heard, "y\nn\ns\n")
    assert status == 0
    assert files(heard) == sorted(
        [NAMES[2], f"right/{NAMES[0]}", f"right/{NAMES[0].removesuffix('.wav')}.json", f"wrong/{NAMES[1]}"]
    )
    assert out.splitlines() == [
        "1 of the word, 1 not, 1 not sorted.",
        "Next, with the recordings that the model was made from:",
        f"  tiny-kws enroll computer computer-recordings --improve computer.onnx --not {heard / 'wrong'}",
    ]
    assert sum("cannot be played" in line for line in told) == 1
    assert [str(heard / name) in "\n".join(told) for name in NAMES] == [True] * 3


def test_sorting_goes_on_where_it_stopped(heard: Path) -> None:
    """At the end of input, and at q, what was answered stays answered; only the rest is asked for."""
    assert sort(heard, "n\n")[1].startswith("0 of the word, 1 not, 2 not sorted.")
    _, out, told = sort(heard, "what\nr\ny\nq\n")
    assert out.startswith("1 of the word, 1 not, 1 not sorted.")
    assert NAMES[0] not in "\n".join(told)
    assert sum("not), r (again)" in line for line in told) >= 1
    assert (heard / "right" / NAMES[1]).exists()
    assert (heard / NAMES[2]).exists()
    assert sort(heard, "y\n")[1].startswith("2 of the word, 1 not, 0 not sorted.")
    assert "nothing is left to sort" in sort(heard, "")[2][0]


def test_words_have_their_own_commands(heard: Path) -> None:
    """Where two words set it off, each command names the sounds of its word."""
    (heard / NAMES[1]).rename(heard / "20260502T030201.000Z_lights_out.wav")
    lines = sort(heard, "n\nn\ny\n")[1].splitlines()
    assert [line.split(" --not ")[1] for line in lines[2:]] == [
        f"{heard / 'wrong'}/*Z_computer.wav",
        f"{heard / 'wrong'}/*Z_lights_out.wav",
    ]
    assert "enroll 'lights out' lights-out-recordings --improve lights-out.onnx" in lines[3]


def test_nothing_is_written_over(heard: Path) -> None:
    """A name that is taken there gets a number, and so does the note beside the sound."""
    first = (heard / NAMES[0]).read_bytes()
    (heard / "wrong").mkdir()
    (heard / "wrong" / NAMES[0]).write_bytes(b"before")
    there = put(heard / NAMES[0], "wrong")
    assert there.name == NAMES[0].replace(".wav", "-2.wav")
    assert there.read_bytes() == first
    assert there.with_suffix(".json").read_text() == "{}"
    assert (heard / "wrong" / NAMES[0]).read_bytes() == b"before"
    assert unsorted(heard) == [heard / name for name in NAMES[1:]]


def test_a_damaged_sound_is_named_and_stays(heard: Path) -> None:
    """It is passed over; the others are asked for."""
    (heard / NAMES[0]).write_bytes(b"RIFF and no more")
    status, out, told = sort(heard, "y\ny\n")
    assert (status, out.splitlines()[0]) == (0, "2 of the word, 0 not, 1 not sorted.")
    assert NAMES[0] in told[0]
    assert told[0].endswith("passed over")
    assert (heard / NAMES[0]).exists()


def test_what_is_no_folder_of_sounds_is_refused(tmp_path: Path) -> None:
    """A missing folder, a file, a folder without sounds: one line and status 2."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, found in (("no", "found no such folder"), ("file", "found no such folder"), ("empty", "no sound files")):
        status, out, told = sort(tmp_path / name, "")
        assert (status, out, len(told)) == (2, "", 1)
        assert found in told[0]
