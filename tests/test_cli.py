"""The command line as its user meets it: answers, trouble in one line on standard error, an exit status."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import gettempdir
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import soundfile as sf
import typer

from tiny_kws import __version__, cli
from tiny_kws.artefact.runtime import Classifier
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.training_config import (
    CAUSAL_SIZES,
    MIXED_TRAINING,
    STREAM_TRAINING,
    WINDOW_TRAINING,
    TrainConfig,
)

from .helpers import command_line, environment, exported, run_cli, trained_like, wav_bytes, write_sound
from .material import write_sources

if TYPE_CHECKING:
    from tiny_kws.data.prepared import PreparedData

LONG_NAME = "x" * 300
unix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files, limits or signals")


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """What was said on standard error, line by line."""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert all(line.startswith("tiny-kws: ") for line in lines)
        return lines

    @property
    def complaint(self) -> str:
        """The only line on standard error."""
        (line,) = self.complaints
        return line


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def run_here(*args: str | Path, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tiny-kws", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert isinstance(exit_.value.code, int)
        return Outcome(exit_.value.code, *capsys.readouterr())

    return run_here


def run_apart(*args: str | Path, **options: Any) -> Outcome:
    """Run the command line in a process of its own."""
    done = run_cli(*args, **options)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def checkpoint(checkpoint_path: Path) -> Path:
    return trained_like(checkpoint_path)


@pytest.fixture(scope="module")
def artefact(checkpoint: Path) -> Path:
    return exported(checkpoint)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with three sounds, one in a folder of its own, and something else."""
    folder = tmp_path / "sounds"
    (folder / "deeper").mkdir(parents=True)
    write_sound(folder / "a.wav", seed=1)
    write_sound(folder / "b.flac", seconds=2.0, seed=2)
    write_sound(folder / "deeper" / "c.ogg", seed=3)
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def garbage(tmp_path: Path) -> Path:
    path = tmp_path / "garbage.wav"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    return path


@pytest.fixture(scope="module")
def test_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of the official test archive, two clips a label."""
    folder = tmp_path_factory.mktemp("test_archive")
    for i, label in enumerate(LABELS):
        place = folder / (f"_{label}_" if label in LABELS[:2] else label)
        place.mkdir()
        for j in range(2):
            write_sound(place / f"{j}.wav", seed=2 * i + j)
    return folder


# classify


def test_classify_prints_a_table(run: Run, artefact: Path, sounds: Path) -> None:
    """`classify` prints a head and one line a file: name, label, probability, start of the second."""
    paths = [sounds / "a.wav", sounds / "b.flac"]
    done = run("classify", *paths, "--model", artefact)
    head, *lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert head.split() == ["file", "label", "probability", "from"]
    for line, path, result in zip(lines, paths, Classifier(artefact).classify_many(paths), strict=True):
        assert line.split() == [str(path), result.label, f"{result.probability:.3f}", f"{result.start_s:.2f}", "s"]


def test_classify_writes_json_lines(run: Run, artefact: Path, sounds: Path) -> None:
    """With --json every file is one JSON object on one line, and nothing else is printed."""
    path = sounds / "b.flac"
    done = run("classify", path, sounds / "a.wav", "--model", artefact, "--json", "--top", "3")
    answers = [json.loads(line) for line in done.out.splitlines()]
    expected = Classifier(artefact).classify(path)
    assert len(answers) == 2
    assert answers[0]["file"] == str(path)
    assert answers[0]["label"] == expected.label
    assert answers[0]["start_s"] == expected.start_s
    assert answers[0]["top"] == pytest.approx(dict(expected.top(3)), abs=1e-5)


@pytest.mark.parametrize("top", [1, 3, 100])
def test_top_shows_more_labels(run: Run, artefact: Path, sounds: Path, top: int) -> None:
    """--top N shows the N likeliest labels with their probabilities, at most all."""
    done = run("classify", sounds / "a.wav", "--model", artefact, "--top", top)
    shown = [word for word in done.out.splitlines()[1].split() if word in LABELS]
    assert shown == [label for label, _ in Classifier(artefact).classify(sounds / "a.wav").top(top)]


def test_folders_are_walked(run: Run, artefact: Path, sounds: Path) -> None:
    """A folder stands for the sound files below it, sorted; other files are passed over."""
    done = run("classify", sounds, "--model", artefact, "--json")
    files = [json.loads(line)["file"] for line in done.out.splitlines()]
    assert files == [str(sounds / name) for name in ("a.wav", "b.flac", "deeper/c.ogg")]
    assert (done.status, done.err) == (0, "")


def test_a_dash_is_standard_input(run: Run, artefact: Path) -> None:
    """`-` classifies a sound piped in, and calls it standard input."""
    done = run("classify", "-", "--model", artefact, stdin=wav_bytes())
    assert done.status == 0
    assert done.out.splitlines()[1].startswith("standard input  ")


def test_standard_input_among_files(run: Run, artefact: Path, sounds: Path) -> None:
    """`-` may stand among files, and keeps its place."""
    done = run("classify", sounds / "a.wav", "-", sounds / "b.flac", "--model", artefact, "--json", stdin=wav_bytes())
    names = [json.loads(line)["file"] for line in done.out.splitlines()]
    assert names == [str(sounds / "a.wav"), "standard input", str(sounds / "b.flac")]


def test_standard_input_can_be_named_once(run: Run, artefact: Path) -> None:
    """`-` twice is wrong use."""
    done = run("classify", "-", "-", "--model", artefact, stdin=wav_bytes())
    assert (done.status, done.out) == (2, "")
    assert "named twice" in done.complaint


@pytest.mark.parametrize("stdin", [b"", b"no sound at all"], ids=["empty", "no sound"])
def test_standard_input_without_sound(run: Run, artefact: Path, stdin: bytes) -> None:
    """Nothing, or no sound, on standard input is one complaint and status 1."""
    done = run("classify", "-", "--model", artefact, stdin=stdin)
    assert done.status == 1
    assert "standard input" in done.complaint


def test_closed_standard_input(artefact: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` where standard input is closed is wrong use."""
    monkeypatch.setattr(io, "TextIOWrapper", lambda _: None)
    done = run("classify", "-", "--model", artefact)
    assert done.status == 2
    assert "closed" in done.complaint


@pytest.mark.parametrize(
    "name", ["gehört.wav", "話す.wav", "two words.wav", "-dash.wav", "*?[a].wav", "'\".wav", "no suffix"]
)
def test_odd_names(run: Run, artefact: Path, tmp_path: Path, name: str) -> None:
    """Whatever a file is called, it is classified under its name."""
    path = tmp_path / name
    path.write_bytes(wav_bytes())
    done = run("classify", path, "--model", artefact, "--json")
    assert (done.status, json.loads(done.out)["file"]) == (0, str(path))


def test_a_name_that_looks_like_an_option(
    run: Run, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `--` a name may begin with a dash."""
    (tmp_path / "--json").write_bytes(wav_bytes())
    monkeypatch.chdir(tmp_path)
    done = run("classify", "--model", artefact, "--", "--json")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1].startswith("--json  ")


@unix_only
def test_names_that_are_not_unicode(artefact: Path, tmp_path: Path) -> None:
    """A name that is no valid UTF-8, or holds a line break, is printed on one line without failing."""
    for name in (os.fsdecode(b"\xff\xfe.wav"), "line\nbreak.wav"):
        (tmp_path / name).write_bytes(wav_bytes())
    done = run_apart("classify", tmp_path, "--model", artefact)
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == 3


def test_good_files_are_answered_and_bad_ones_named(run: Run, artefact: Path, sounds: Path, garbage: Path) -> None:
    """Among good files each bad one is named in one line, the good ones get their answers, and the status is 1."""
    bad = [garbage, sounds / "missing.wav", sounds / LONG_NAME]
    done = run("classify", sounds / "a.wav", *bad, sounds / "b.flac", "--model", artefact, "--json")
    answered = [json.loads(line)["file"] for line in done.out.splitlines()]
    assert done.status == 1
    assert answered == [str(sounds / "a.wav"), str(sounds / "b.flac")]
    assert len(done.complaints) == 3
    assert all(str(path) in line for path, line in zip(bad, done.complaints, strict=True))


def test_bad_files_in_a_folder_are_named(run: Run, artefact: Path, sounds: Path) -> None:
    """A damaged file in a folder does not keep the others from their answers."""
    (sounds / "a.wav").write_bytes(b"RIFF")
    done = run("classify", sounds, "--model", artefact, "--json")
    assert (done.status, len(done.out.splitlines())) == (1, 2)
    assert str(sounds / "a.wav") in done.complaint


def test_a_folder_without_sound(run: Run, artefact: Path, tmp_path: Path, sounds: Path) -> None:
    """A folder that holds no sound files is named, and other arguments still get their answers."""
    (tmp_path / "empty").mkdir()
    done = run("classify", tmp_path / "empty", sounds / "a.wav", "--model", artefact, "--json")
    assert (done.status, len(done.out.splitlines())) == (1, 1)
    assert "no sound files" in done.complaint


def test_a_missing_model(run: Run, sounds: Path) -> None:
    """A model that is not there is named, with those that are."""
    done = run("classify", sounds / "a.wav", "--model", "nothing.onnx")
    assert (done.status, done.out) == (1, "")
    assert "nothing.onnx: not found" in done.complaint


def test_a_model_that_is_none(run: Run, sounds: Path, garbage: Path) -> None:
    """A file that is no model is refused before any sound is read."""
    done = run("classify", sounds / "a.wav", "--model", garbage)
    assert (done.status, done.out) == (1, "")
    assert "is not a tiny-kws artefact" in done.complaint


# Wrong use


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["classify"], "Missing argument"),
        (["classify", "a.wav", "--colour"], "No such option: --colour."),
        (["classify", "a.wav", "--top", "0"], "--top"),
        (["classify", "a.wav", "--top", "many"], "--top"),
        (["classify", "a.wav", "--threads", "0"], "--threads"),
        (["classify", "a.wav", "--model"], "--model"),
        (["hear"], "No such command 'hear'."),
        (["data", "hear"], "No such command 'hear'."),
        (["data", "prepare", "."], "Missing option '--out'"),
        (["evaluate", "model.onnx", "--out", "o"], "expected either --data PREPARED or --test FOLDER"),
        (["evaluate", "m.onnx", "--out", "o", "--data", "d", "--test", "t"], "expected either --data"),
        (["export", "best.pt", "--out", "model.tflite"], "expected a name of the form NAME.onnx"),
        (["export", "best.pt", "--out", "model.int8.onnx"], "expected a name of the form NAME.onnx"),
        (["export", "best.pt", "--out", "model.onnx", "--int8"], "give --data PREPARED"),
        (["export", "best.pt"], "Missing option '--out'"),
        (["train", "d", "--out", "o", "--model", "hmm"], "--model"),
        (["train", "d", "--out", "o", "--epochs", "0"], "--epochs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_status_two(run: Run, args: list[str], reason: str) -> None:
    """A command used wrongly says why in one line on standard error; the status is 2."""
    done = run(*args)
    assert (done.status, done.out) == (2, "")
    assert reason in done.complaint


@pytest.mark.parametrize("args", [[], ["data"]])
def test_nothing_to_do_is_wrong_use(run: Run, args: list[str]) -> None:
    """Without a command the way to help is shown; the status is 2."""
    done = run(*args)
    assert done.status == 2
    assert "--help" in done.out + done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "command", ["classify", "info", "train", "evaluate", "export", "data prepare", "data download"]
)
def test_help_explains_each_command(run: Run, command: str) -> None:
    """Every command has help, on standard output."""
    done = run(*command.split(), "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Usage: ")
    assert "--help" in done.out


def command_names(group: Any, before: str = "") -> Iterator[str]:
    """Every command below a group, and the group itself."""
    yield before
    for name, command in group.commands.items():
        inside = f"{before} {name}".strip()
        if hasattr(command, "commands"):
            yield from command_names(command, inside)
        else:
            yield inside


ALL_COMMANDS = sorted(command_names(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_h_is_help(run: Run, command: str) -> None:
    """-h is --help of every command."""
    assert run(*command.split(), "-h") == run(*command.split(), "--help")


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_help_is_whole(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """On 80 columns no line is too long, no sentence ends amid it, and every option says what it is."""
    monkeypatch.setenv("COLUMNS", "80")
    _, *lines = run(*command.split(), "--help").out.splitlines()
    assert [line for line in lines if len(line) > 80 or line.endswith("...")] == []
    options = "\n".join(lines).partition("\nOptions:\n")[2].partition("\n\n")[0]
    explained = re.split(r"^  (?=-)", options, flags=re.MULTILINE)[1:]
    assert explained
    assert [text for text in explained if not re.search(r"  +[A-Z{].*?\.( |$)", " ".join(text.split("\n")))] == []


def test_a_shell_completes_commands(tmp_path: Path) -> None:
    """What typer asks of a program that completes: the commands that begin so."""
    asked = {"_TINY_KWS_COMPLETE": "complete_bash", "COMP_WORDS": "tiny-kws li", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['tiny-kws']; from tiny_kws.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment(), **asked}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["listen"])


def test_version(run: Run) -> None:
    """--version prints name and version."""
    assert run("--version") == (0, f"tiny-kws {__version__}\n", "")


# info


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("base", "0.8"),
        ("ds-cnn", "0.8"),
        ("listener", "0.791906"),
        ("listener-micro", "0.751592"),
        ("listener-small", "0.804223"),
        ("micro", "0.8"),
        ("small", "0.8"),
    ],
)
def test_info_of_bundled_models(run: Run, name: str, threshold: str) -> None:
    """Each says at which threshold it reports a word, by which rules, and how it did on the validation clips."""
    rows = dict(line.split("  ", 1) for line in run("info", name).out.splitlines())
    for text in (f"threshold {threshold}, ", "smoothing_ms 120", "release 0.5", "refractory_ms 700", "rise_ms "):
        assert text in rows["detector"]
    assert ("the package's defaults" in rows["detector"]) == (not name.startswith("listener"))
    assert re.search(r"\d\d\.\d\d % of 3340 clips \(95 % interval", rows["validation"])


def test_info_of_an_artefact(run: Run, artefact: Path) -> None:
    """`info` names labels, parameters, multiply-accumulates and front end of an artefact."""
    done = run("info", artefact)
    assert (done.status, done.err) == (0, "")
    for part in (", ".join(LABELS), "119,372", "58,997,366", "n_mels 64", "16000 Hz", "not measured"):
        assert part in done.out


def test_info_of_a_checkpoint(run: Run, checkpoint: Path) -> None:
    """`info` of a checkpoint says what its artefact would say, and the accuracy that the checkpoint claims."""
    done = run("info", checkpoint)
    assert (done.status, done.err) == (0, "")
    for part in (", ".join(LABELS), "119,372", "40.00 %, as the checkpoint says"):
        assert part in done.out


def test_info_as_json(run: Run, artefact: Path) -> None:
    """`info --json` is the artefact's metadata, whole."""
    done = run("info", artefact, "--json")
    found = json.loads(done.out)
    assert found["labels"] == list(LABELS)
    assert found["artefact_sha256"] == Classifier(artefact).metadata.artefact_sha256


@pytest.mark.parametrize("suffix", [".onnx", ".pt", ""])
@pytest.mark.parametrize("size", [0, 1000])
def test_info_of_garbage(run: Run, tmp_path: Path, suffix: str, size: int) -> None:
    """`info` of an empty or foreign file, whatever it is called, is one line."""
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(size))
    done = run("info", path)
    assert (done.status, done.out) == (1, "")
    assert str(path) in done.complaint


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("command", ["info", "export", "evaluate"])
def test_a_truncated_checkpoint(
    run: Run, checkpoint: Path, prepared: PreparedData, tmp_path: Path, share: float, command: str
) -> None:
    """A checkpoint cut anywhere is refused in one line by every command that reads one, and nothing is written."""
    data = checkpoint.read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(data[: int(share * len(data))])
    out = tmp_path / "out.onnx"
    options = {"info": [], "export": ["--out", out], "evaluate": ["--data", prepared.folder, "--out", out]}
    done = run(command, path, *options[command])
    assert (done.status, done.out) == (1, "")
    assert str(path) in done.complaint
    assert not out.exists()


# data prepare


def test_prepare_counts_clips_and_what_lacks(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """`data prepare` prints clips and speakers of each split, and what the archive lacks of the official one."""
    done = run("data", "prepare", speech_commands, "--out", tmp_path / "task")
    manifest = json.loads((tmp_path / "task" / "manifest.json").read_text())
    lines = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    for line, (split, counts) in zip(lines, manifest["clips"].items(), strict=False):
        expected = [split, str(sum(counts.values())), "clips", str(manifest["speakers"][split]), "speakers"]
        assert line.split() == expected
    lacking = manifest["missing"]["clips"]["training"]
    assert f"incomplete: training lacks {lacking} clips of the official archive" in lines
    assert lines[-1].startswith("Next: tiny-kws train")


def test_prepare_tells_what_each_source_gave(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """`data prepare` prints a line for each source: what is used of it, and what was left out and why."""
    (tmp_path / speech_commands.name).symlink_to(speech_commands)
    sources = write_sources(tmp_path)
    shutil.rmtree(tmp_path / "rooms")
    done = run("data", "prepare", tmp_path, "--out", tmp_path / "task", "--sources", sources)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[4:9] == [
        "Commands (keywords): 96 used",
        "Some words (other words): 3 used; left out: 1 (CC BY-NC 4.0), 1 (CC BY-SA 4.0), "
        "2 (a keyword, or heard as one)",
        "Some noises (noise): 3 used; left out: 1 (CC BY-SA (version not stated)), 1 (Public Domain), "
        "2 (kept for measurements)",
        "Some rooms (rooms): 0 used; left out: 0 (the folder is missing)",
        "Some speech (speech): 0 used; left out: 5 (free for any purpose (a sentence in a repository))",
    ]


def test_prepare_with_any_licence(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """With --any-licence no recording is left out for its licence."""
    (tmp_path / speech_commands.name).symlink_to(speech_commands)
    sources = write_sources(tmp_path)
    done = run("data", "prepare", tmp_path, "--out", tmp_path / "task", "--sources", sources, "--any-licence")
    assert done.status == 0
    assert "Some words (other words): 5 used; left out: 2 (a keyword, or heard as one)" in done.out.splitlines()
    assert "CC BY-SA" not in done.out


def test_prepare_with_sources_that_are_wrong(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """A file that names no sources is refused in one line, before anything is written."""
    done = run("data", "prepare", speech_commands, "--out", tmp_path / "task", "--sources", tmp_path / "none.toml")
    assert (done.status, done.out) == (1, "")
    assert "none.toml: names no sources" in done.complaint
    assert list(tmp_path.iterdir()) == []


def test_prepare_names_clips_that_cannot_be_read(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """A damaged clip is named and left out; the rest is prepared, and the status is 1."""
    archive = tmp_path / "archive"
    shutil.copytree(speech_commands, archive)
    bad = min((archive / "yes").glob("*.wav"))
    bad.write_bytes(b"no sound")
    done = run("data", "prepare", archive, "--out", tmp_path / "task")
    assert done.status == 1
    assert str(bad) in done.complaint
    assert (tmp_path / "task" / "bank.npy").is_file()


def test_prepare_tells_of_listed_clips_that_are_not_there(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """Clips that the lists name but the archive lacks are counted."""
    archive = tmp_path / "archive"
    shutil.copytree(speech_commands, archive)
    (archive / (archive / "validation_list.txt").read_text().split()[0]).unlink()
    done = run("data", "prepare", archive, "--out", tmp_path / "task")
    assert done.status == 0
    assert "incomplete: 1 clips of validation_list.txt are missing" in done.out


def test_prepare_leaves_what_is_there(run: Run, speech_commands: Path, tmp_path: Path) -> None:
    """`data prepare` does not write over anything."""
    (tmp_path / "task").mkdir()
    done = run("data", "prepare", speech_commands, "--out", tmp_path / "task")
    assert done.status == 1
    assert "already exists" in done.complaint
    assert list((tmp_path / "task").iterdir()) == []


@pytest.mark.parametrize("source", [".", "nowhere", LONG_NAME])
def test_prepare_without_an_archive(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """A folder without the lists, or none at all, is refused in one line."""
    monkeypatch.chdir(tmp_path)
    done = run("data", "prepare", source, "--out", "task")
    assert (done.status, done.out) == (1, "")
    assert source in done.complaint
    assert list(tmp_path.iterdir()) == []


# train


class StopError(Exception):
    """Ends a command before it does its work."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], TrainConfig()),
        (["--model", "causal-cnn"], WINDOW_TRAINING),
        (["--model", "base", "--recipe", "mixed"], MIXED_TRAINING),
        (["--model", "causal-cnn", "--recipe", "clips", "--epochs", "3"], TrainConfig(epochs=3)),
        (
            ["--recipe", "streams", "--batch-size", "8", "--learning-rate", "0.1", "--seed", "2"],
            replace(STREAM_TRAINING, batch_size=8, learning_rate=0.1, seed=2),
        ),
        (["--model", "small", "--recipe", "windows", "--epochs", "2"], replace(WINDOW_TRAINING, epochs=2)),
        (["--recipe", "windows", "--teacher-weight", "0.7"], replace(WINDOW_TRAINING, teacher_weight=0.7)),
        (["--leave-out", "zero, bed,,zero"], TrainConfig(left_out=("bed", "zero"))),
        (
            ["--model", "base", "--recipe", "streams", "--hard-negatives"],
            replace(STREAM_TRAINING, streams=replace(STREAM_TRAINING.streams, hard_negatives=384)),
        ),
    ],
)
def test_train_takes_the_recipe_and_what_is_asked(
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: TrainConfig,
) -> None:
    """The causal network is trained on windows unless asked otherwise; options change the recipe's own settings."""
    from tiny_kws.training import trainer as room

    def stop(*_: Any, config: TrainConfig, **__: Any) -> Path:
        assert config == expected
        raise StopError

    monkeypatch.setattr(room, "train", stop)
    monkeypatch.setattr(sys, "argv", ["tiny-kws", "train", str(prepared.folder), "--out", str(tmp_path), *options])
    with pytest.raises(StopError):
        cli.main()


@pytest.mark.parametrize(
    ("name", "architecture", "model_config"),
    [
        ("ds-cnn", "ds-cnn", None),
        ("causal-cnn", "causal-cnn", None),
        *((name, "causal-cnn", asdict(config)) for name, config in CAUSAL_SIZES.items()),
    ],
)
def test_train_takes_a_network_by_name(
    prepared: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    architecture: str,
    model_config: dict[str, Any] | None,
) -> None:
    """Each name stands for an architecture, and the sizes for settings of it."""
    from tiny_kws.training import trainer as room

    def stop(*given: Any, **_: Any) -> Path:
        assert given[2:] == (architecture, model_config)
        raise StopError

    monkeypatch.setattr(room, "train", stop)
    monkeypatch.setattr(
        sys, "argv", ["tiny-kws", "train", str(prepared.folder), "--out", str(tmp_path), "--model", name]
    )
    with pytest.raises(StopError):
        cli.main()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--recipe", "streams"], "only the causal network can be trained on streams"),
        (["--hard-negatives"], "found --hard-negatives without streams"),
        (["--leave-out", "bed,yes"], "yes is a keyword"),
        (["--leave-out", "bed,bird"], "has no clip of bird to train on"),
    ],
)
def test_train_refuses_what_cannot_be(
    run: Run, prepared: PreparedData, tmp_path: Path, options: list[str], reason: str
) -> None:
    """A recipe that does not fit the network, or words that cannot be left out, are wrong use, in one line."""
    done = run("train", prepared.folder, "--out", tmp_path / "out", *options)
    assert (done.status, done.out) == (2, "")
    assert reason in done.complaint


# evaluate and export


@pytest.mark.parametrize("kind", ["artefact", "checkpoint"])
def test_evaluate_writes_and_prints(
    run: Run, request: pytest.FixtureRequest, prepared: PreparedData, tmp_path: Path, kind: str
) -> None:
    """`evaluate` leaves metrics, predictions and confusion_matrix.png, and prints the tables."""
    done = run("evaluate", request.getfixturevalue(kind), "--data", prepared.folder, "--out", tmp_path / "report")
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert (done.status, done.err) == (0, "")
    written = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert written == ["confusion_matrix.png", "metrics.json", "predictions.csv"]
    assert metrics["data"]["clips"] == len(prepared.rows("validation"))
    assert metrics["latency"]["p95_ms"] > 0
    assert f"accuracy {100 * metrics['accuracy']:.2f} %" in done.out
    _, by_label, by_word, _ = (block.splitlines() for block in done.out.split("\n\n"))
    assert [line.split()[0] for line in by_label] == ["label", *LABELS]
    assert [line.split()[0] for line in by_word] == ["word", *metrics["unknown"]["by_word"], "all"]


def test_evaluating_twice_gives_the_same(run: Run, artefact: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """Two evaluations of one model on one split differ in nothing but latency."""
    found = []
    for name in ("first", "second"):
        run("evaluate", artefact, "--data", prepared.folder, "--out", tmp_path / name)
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        del metrics["latency"]
        found.append((json.dumps(metrics), (tmp_path / name / "confusion_matrix.png").read_bytes()))
    assert found[0] == found[1]


def test_artefact_and_checkpoint_are_as_good(
    run: Run, artefact: Path, checkpoint: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    """Both forms of one model hear the same in every clip, but for one at most whose likeliest labels are a tie."""
    found = []
    for model in (artefact, checkpoint):
        run("evaluate", model, "--data", prepared.folder, "--split", "testing", "--out", tmp_path / model.name)
        found.append(json.loads((tmp_path / model.name / "metrics.json").read_text())["confusion_matrix"])
    assert np.abs(np.subtract(*found)).sum() <= 2


def test_evaluate_on_the_test_folder(run: Run, artefact: Path, test_folder: Path, tmp_path: Path) -> None:
    """`evaluate --test` measures on a folder in the test archive's layout, and does not call a part of it the whole."""
    done = run("evaluate", artefact, "--test", test_folder, "--out", tmp_path)
    assert (done.status, done.err) == (0, "")
    assert f"on 24 test clips in {test_folder.name}" in done.out
    assert "official" not in done.out


def test_evaluate_names_clips_that_cannot_be_read(run: Run, artefact: Path, test_folder: Path, tmp_path: Path) -> None:
    """A damaged clip of the test folder is named, the rest measured, and the status is 1."""
    folder = tmp_path / "archive"
    shutil.copytree(test_folder, folder)
    (folder / "yes" / "0.wav").write_bytes(b"no sound")
    done = run("evaluate", artefact, "--test", folder, "--out", tmp_path / "report")
    assert done.status == 1
    assert str(folder / "yes" / "0.wav") in done.complaint
    assert "23 clips" in done.out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--data", "nowhere"], "is not prepared data"),
        (["--data", LONG_NAME], "is not prepared data"),
        (["--test", "."], "found no clips of"),
        (["--test", LONG_NAME], "too long"),
    ],
    ids=["no data", "long name of data", "no test folder", "long name of a test folder"],
)
def test_evaluate_without_clips(
    run: Run, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], reason: str
) -> None:
    """Data that are not there are refused in one line, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = run("evaluate", artefact, "--out", "report", *options)
    assert (done.status, done.out) == (1, "")
    assert reason in done.complaint
    assert list(tmp_path.iterdir()) == []


def test_evaluate_on_a_split_that_is_not_there(
    run: Run, artefact: Path, prepared: PreparedData, tmp_path: Path
) -> None:
    """An unknown split is refused with the names of those there are."""
    done = run("evaluate", artefact, "--data", prepared.folder, "--split", "tuesday", "--out", tmp_path)
    assert done.status == 1
    assert "testing, training, validation" in done.complaint


def test_export_tells_how_near_it_is(run: Run, checkpoint: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """`export` writes the artefact and prints its size, the largest difference and both accuracies."""
    out = tmp_path / "new" / "model.onnx"
    done = run("export", checkpoint, "--out", out, "--data", prepared.folder)
    assert (done.status, done.err) == (0, "")
    assert f"{out}: {out.stat().st_size:,} bytes" in done.out
    assert "probabilities differ by up to" in done.out
    assert f"({len(prepared.rows('validation'))} clips, Speech Commands v0.02 validation)" in done.out
    assert Classifier(out).metadata.validation.clips == len(prepared.rows("validation"))


def test_export_of_an_artefact_is_refused(run: Run, artefact: Path, tmp_path: Path) -> None:
    """What is no checkpoint is not exported."""
    done = run("export", artefact, "--out", tmp_path / "model.onnx")
    assert (done.status, done.out) == (1, "")
    assert "is not a complete checkpoint" in done.complaint
    assert list(tmp_path.iterdir()) == []


# Where nothing can be written


@pytest.mark.parametrize("command", ["evaluate", "export", "data prepare"])
def test_an_unwritable_place(
    run: Run, checkpoint: Path, prepared: PreparedData, speech_commands: Path, tmp_path: Path, command: str
) -> None:
    """Output that would lie below a file is refused in one line."""
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "report" / "model.onnx"
    inputs = {
        "evaluate": [checkpoint, "--data", prepared.folder],
        "export": [checkpoint],
        "data prepare": [speech_commands],
    }
    done = run(*command.split(), *inputs[command], "--out", out)
    assert (done.status, done.out) == (1, "")
    assert "cannot be written" in done.complaint
    assert (tmp_path / "file").read_text() == "in the way"


@unix_only
@pytest.mark.parametrize("command", ["evaluate", "export", "data prepare"])
def test_a_full_disk(
    checkpoint: Path, prepared: PreparedData, speech_commands: Path, tmp_path: Path, command: str
) -> None:
    """Where files cannot grow, one line says so, and nothing half written is left."""
    out = tmp_path / "model.onnx"
    inputs = {
        "evaluate": [checkpoint, "--data", prepared.folder],
        "export": [checkpoint],
        "data prepare": [speech_commands],
    }
    done = run_apart(*command.split(), *inputs[command], "--out", out, file_limit=1000)
    assert (done.status, done.out) == (1, "")
    assert "cannot be written" in done.complaint
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@unix_only
def test_standard_input_on_a_full_disk(artefact: Path) -> None:
    """Standard input that does not fit on the disk is one line."""
    done = run_apart("classify", "-", "--model", artefact, stdin=wav_bytes(), file_limit=1000)
    assert done.status == 1
    assert f"standard input: no room for a copy of it in {gettempdir()} (File too large)" in done.complaint


@unix_only
@pytest.mark.parametrize("args", [["--version"], ["info"], ["info", "--json"]])
def test_a_full_disk_behind_standard_output(artefact: Path, args: list[str]) -> None:
    """Output that cannot be written is one line and status 1."""
    with Path("/dev/full").open("wb") as full:
        done = run_apart(args[0], *([artefact] if args[0] == "info" else []), *args[1:], stdout=full)
    assert (done.status, done.complaint) == (
        1,
        "tiny-kws: standard output: cannot be written (No space left on device); free space or choose another place, "
        "then try again",
    )


@pytest.mark.parametrize(
    "args", [["classify", ""], ["detect", ""], ["info", ""], ["classify", "examples", "--model", ""]]
)
def test_an_empty_name(run: Run, args: list[str]) -> None:
    """What an unset variable leaves is no name of anything, and least of all the default."""
    done = run(*args)
    assert (done.status, done.out) == (2, "")
    assert "found an empty name, expected a" in done.complaint


def test_a_damaged_mp3(artefact: Path, tmp_path: Path) -> None:
    """What the decoder prints by itself about damage does not stand among the errors."""
    sound = (Path(__file__).parents[1] / "examples" / "stop.mp3").read_bytes()
    half = len(sound) // 2
    (tmp_path / "some.mp3").write_bytes(sound[:half] + bytes(300) + sound[half + 100 :])
    (tmp_path / "all.mp3").write_bytes(sound[:half] + b"RIFF" * 1200)
    done = run_apart("classify", tmp_path / "some.mp3", tmp_path / "all.mp3", "--model", artefact)
    assert (done.status, len(done.out.splitlines())) == (1, 2)
    assert "all.mp3: damaged" in done.complaint


@pytest.mark.parametrize(
    ("command", "how"), [("classify", "by name"), ("classify", "standard input"), ("detect", "by name")]
)
def test_an_mp3_cut_amid_a_frame(tmp_path: Path, command: str, how: str) -> None:
    """It is answered, and the only line beside the answer is ours."""
    cut = tmp_path / "cut.mp3"
    sf.write(cut, np.random.default_rng(0).uniform(-0.1, 0.1, 96_000), 16_000)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3 + 11])
    is_named = how == "by name"
    done = run_apart(command, cut if is_named else "-", stdin=b"" if is_named else cut.read_bytes())
    assert (done.status, len(done.out.splitlines())) == (0, 2)
    assert f"{cut if is_named else how}: cut short, holds " in done.complaint


# Interruptions


@unix_only
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_had_enough(artefact: Path, sounds: Path, options: list[str]) -> None:
    """Where nobody reads the answers, as behind `head -1`, the command ends without a word."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = run_apart("classify", sounds, "--model", artefact, *options, stdout=pipe)
    assert (done.status, done.err) == (1, "")


@contextmanager
def copying(artefact: Path, folder: Path, is_named: bool) -> Iterator[subprocess.Popen[bytes]]:
    """`tiny-kws classify` amid the copying of an open pipe, by its name or as standard input, to a file in `folder`."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    command = command_line("classify", pipe if is_named else "-", "--model", artefact)
    scratch = folder / "scratch"
    scratch.mkdir()
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, env={**environment(), "TMPDIR": str(scratch)}) as process:  # type: ignore[call-overload]
        try:
            with pipe.open("wb") if is_named else nullcontext(process.stdin) as sink:
                sink.write(bytes(2**20))  # more than a pipe holds: once it is gone, the command is reading
                sink.flush()
                yield process
        finally:
            process.kill()
    assert list(scratch.iterdir()) == []


@unix_only
@pytest.mark.parametrize("is_named", [True, False], ids=["pipe", "stdin"])
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "tiny-kws: interrupted"),
        (signal.SIGTERM, 143, "tiny-kws: ended by SIGTERM"),
        (getattr(signal, "SIGHUP", signal.SIGTERM), 129, "tiny-kws: ended by SIGHUP"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_ending_while_sound_is_awaited(
    artefact: Path, tmp_path: Path, is_named: bool, number: int, status: int, said: str
) -> None:
    """One signal ends a command whose pipe stays open: one line, its status, and no copy of the recording left."""
    with copying(artefact, tmp_path, is_named) as process:
        process.send_signal(number)
        assert process.wait(timeout=60) == status
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read().decode().strip()) == (b"", said)


@unix_only
def test_a_signal_that_is_ignored_stays_so(artefact: Path, tmp_path: Path) -> None:
    """Under `nohup`, where SIGHUP is ignored, it does not end the command."""
    with ignoring(signal.SIGHUP), copying(artefact, tmp_path, is_named=False) as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143


@contextmanager
def ignoring(number: int) -> Iterator[None]:
    """What is started meanwhile ignores a signal."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_ctrl_c_amid_long_recordings(artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves the answers waits for a block of a recording that is being decoded, not for its end."""
    path = tmp_path / "long.wav"
    sf.write(path, np.zeros(16_000), 16_000)
    began, blocks = Event(), []

    def endless(_: Any) -> Iterator[Any]:
        while True:
            began.set()
            blocks.append(None)
            yield np.zeros(160, np.float32)

    monkeypatch.setattr("tiny_kws.artefact.runtime.stream_mono", endless)

    def leave() -> Iterator[Path]:
        yield path
        began.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(Classifier(artefact).classify_many(leave()))
    assert blocks


def test_interrupting_a_classification(run: Run, artefact: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two files ends with status 130; the answers so far stay."""
    answer = Classifier.classify_many

    def interrupted(*args: Any, **options: Any) -> Any:
        yield next(answer(*args, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "classify_many", interrupted)
    done = run("classify", sounds, "--model", artefact, "--json")
    assert (done.status, len(done.out.splitlines())) == (130, 1)
    assert done.err.strip() == "tiny-kws: interrupted"


# train


@pytest.mark.parametrize(("seconds", "left"), [(0.2, "0:01 h"), (61.0, "0:02 h"), (9 * 3600.0, "9:00 h")])
def test_where_a_training_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, left: str
) -> None:
    """What is no terminal gets a line a minute, with the hours and minutes left."""
    pytest.importorskip("torch")
    from tiny_kws.training.reports import StepReport

    now_s = 1000.0
    monkeypatch.setattr("tiny_kws.cli.training.time.monotonic", lambda: now_s)
    callbacks = cli.training._printed_progress()
    for _ in range(125):
        now_s += 1.0
        callbacks.on_step(StepReport(2, 30, 7, 90, 0.5, 0.875, seconds))
    line = f"epoch 2/30  step 7/90  loss 0.500  accuracy 87.5 %  {left} left"
    assert capsys.readouterr().err.splitlines() == [line] * 2


# Without the training extra


@pytest.mark.parametrize(
    ("command", "lacking", "extra"),
    [
        ("info", "torch", "train"),
        ("export", "torch", "train"),
        ("export", "onnx", "train"),
        ("evaluate", "matplotlib", "plot"),
        ("train", "torch", "train"),
        ("train", "tensorboard", "train"),
    ],
)
def test_a_missing_extra_is_named(
    checkpoint: Path, prepared: PreparedData, tmp_path: Path, command: str, lacking: str, extra: str
) -> None:
    """A command that needs what the plain install lacks says in one line what to install."""
    out = tmp_path / "model.onnx"
    args = {
        "info": [checkpoint],
        "export": [checkpoint, "--out", out],
        "evaluate": [checkpoint, "--data", prepared.folder, "--out", out],
        "train": [prepared.folder, "--out", out],
    }
    done = run_apart(command, *args[command], blocked=[lacking])
    assert (done.status, done.out) == (1, "")
    assert lacking in done.complaint
    assert f"pip install '.[{extra}]'" in done.complaint
    assert not out.exists()


def test_the_module_is_the_command(artefact: Path, sounds: Path) -> None:
    """`python -m tiny_kws` does what `tiny-kws` does, in an ordinary process."""
    path = sounds / "a.wav"
    command = [sys.executable, "-m", "tiny_kws", "classify", str(path), "--model", str(artefact), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["label"] == Classifier(artefact).classify(path).label


def test_a_recording_of_several_minutes(run: Run, tmp_path: Path) -> None:
    """A long recording without a word is answered with where its loudest second begins."""
    path = tmp_path / "long.flac"
    quiet = np.zeros(180 * 16_000)
    quiet[100 * 16_000 : 101 * 16_000] = np.random.default_rng(0).normal(0, 0.2, 16_000)
    sf.write(path, quiet, 16_000)
    done = run("classify", path, "--json")
    assert json.loads(done.out)["start_s"] == pytest.approx(100, abs=0.02)
