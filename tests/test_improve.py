"""`tiny-kws enroll --improve`: a model learns from what went wrong with it, and is not replaced by a worse one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import tiny_kws
from tiny_kws import ModelError, UsageError
from tiny_kws.artefact.runtime import read_metadata
from tiny_kws.enrolment import enroll as enrolment
from tiny_kws.enrolment.bank import BANK, CHILDREN, HOMES, LANGUAGES, READERS, Bank, Stretch, read_bank, write_bank
from tiny_kws.enrolment.enroll import Report, check_request
from tiny_kws.enrolment.improve import Compared, Improvement, _worse, read_clips
from tiny_kws.enrolment.predict import Alarms, Expected, Misses
from tiny_kws.enrolment.ship import read_words
from tiny_kws.enrolment.told import point_of, told_of

from .helpers import run_cli, write_sound

pytestmark = pytest.mark.skipif(not BANK.exists(), reason="the bank of speech is not here")
speaks = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng, which speaks, is not installed")

VOICES = ("en-us", "en-gb", "en-gb-scotland", "en+f2", "en+f4", "en+m3", "en-us+f1", "en-us+m7")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of a few minutes, so that a model takes seconds."""
    whole, kept, vectors, at = read_bank(), [], [], 0
    for kind in (READERS, HOMES, CHILDREN, LANGUAGES):
        for stretch in [s for s in whole.stretches if s.kind == kind and s.is_strange][:4]:
            vectors.append(whole.vectors[stretch.start : stretch.stop][:600])
            kept.append(Stretch(kind, at, at + len(vectors[-1])))
            at += len(vectors[-1])
    small: Bank = replace(
        whole, vectors=np.concatenate(vectors), stretches=tuple(kept), words=(), noises=whole.noises[:3]
    )
    path = tmp_path_factory.mktemp("bank") / "small.bank"
    write_bank(path, small)
    return path


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """*computer* and *commuter* by eight voices, a folder each."""
    folder = tmp_path_factory.mktemp("spoken")
    for word in ("computer", "commuter"):
        (folder / word).mkdir()
        for i, voice in enumerate(VOICES):
            options = ["-v", voice, "-p", str(40 + 5 * i), "-w", str(folder / word / f"{word}-{i}.wav")]
            subprocess.run(["espeak-ng", *options, word], check=True, capture_output=True)
    return folder


def said(spoken: Path, word: str, numbers: Sequence[int]) -> list[Path]:
    return [spoken / word / f"{word}-{i}.wav" for i in numbers]


@pytest.fixture(scope="module")
def model(spoken: Path, bank: Path) -> Path:
    """`computer.onnx` of five voices, at two false alarms per hour; not to be written to."""
    path = spoken / "computer.onnx"
    tiny_kws.enroll("computer", said(spoken, "computer", range(5)), path, false_alarms_per_hour=2.0, bank=bank)
    return path


def improved(model: Path, spoken: Path, bank: Path, also: Sequence[Path], not_: Sequence[Path], out: Path) -> Report:
    takes = said(spoken, "computer", range(5))
    return tiny_kws.enroll("computer", takes, out, improve=model, also=also, not_=not_, bank=bank)


# With voices


@speaks
@pytest.mark.slow
def test_what_set_it_off_does_so_less(model: Path, spoken: Path, bank: Path, tmp_path: Path) -> None:
    """Five *commuter* set the old model off more than heads that learnt from the others; a damaged one is named."""
    (tmp_path / "bad.wav").write_bytes(b"RIFF and no more")
    clips = [*said(spoken, "commuter", range(5)), tmp_path / "bad.wav"]
    report = improved(model, spoken, bank, said(spoken, "computer", (5, 6)), clips, tmp_path / "new.onnx")
    found = report.improvement
    assert found is not None
    assert (found.also.of, found.not_.of, report.takes) == (2, 5, 7)
    assert found.not_.after < found.not_.before
    assert found.misses[1] is not None
    assert found.misses[1].takes == 5
    assert list(report.passed_over) == [str(tmp_path / "bad.wav")]
    assert found.told == enrolment_told(model)
    facts = read_metadata(tmp_path / "new.onnx").own_words[0]
    assert (facts["false_alarms_per_hour"], facts["improved"], found.may_know) == (2.0, True, False)


def enrolment_told(model: Path) -> Expected:
    """What a model told of itself when it was made."""

    return point_of(told_of(read_metadata(model).own_words)[0])


@speaks
@pytest.mark.slow
def test_folders_the_wrong_way_round_are_refused(model: Path, spoken: Path, bank: Path, tmp_path: Path) -> None:
    """Where --not holds the word and --also another one, it is said, and nothing is written."""
    right, wrong = said(spoken, "computer", (5, 6, 7)), [write_tone(tmp_path / f"{i}.wav", i) for i in range(3)]
    with pytest.raises(UsageError, match=r"3 of 3 sounds of --not sound like the word, and 0 of 3 .*wrong way round"):
        improved(model, spoken, bank, wrong, right, tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()


@speaks
@pytest.mark.slow
def test_the_word_among_what_is_not_it_is_noted(model: Path, spoken: Path, bank: Path, tmp_path: Path) -> None:
    """Recordings of the word given as --not alone are named, in the report or where it leaves nothing of the word."""
    right, wrong = said(spoken, "computer", (5, 6, 7)), [write_tone(tmp_path / f"{i}.wav", i) for i in range(3)]
    with pytest.raises(UsageError, match="3 of 3 sounds of --not sound like the word: play them"):
        improved(model, spoken, bank, (), right, tmp_path / "new.onnx")
    other = improved(model, spoken, bank, (), wrong, tmp_path / "new.onnx")
    assert not any("--not" in note for note in other.notes)


@speaks
@pytest.mark.slow
def test_a_model_stays_where_the_word_is_among_what_is_not_it(
    model: Path, spoken: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where --not seems to hold the word, that is in what the new model is worse; the old one stays byte for byte."""
    shutil.copy(model, tmp_path / "old.onnx")
    monkeypatch.setattr(enrolment, "check_not_mixed_up", lambda *_: ["3 of 3 sounds of --not sound like the word"])
    clips = [write_tone(tmp_path / f"{i}.wav", i) for i in range(3)]
    takes = said(spoken, "computer", range(5))
    report = tiny_kws.enroll("computer", takes, improve=tmp_path / "old.onnx", not_=clips, bank=bank)
    assert report.path is None
    assert report.improvement is not None
    assert report.improvement.worse[-1] == "was taught that sounds of --not that sound like the word are not it"
    assert (tmp_path / "old.onnx").read_bytes() == model.read_bytes()


def write_tone(path: Path, number: int) -> Path:
    """Something that is said, but not the word."""
    text = ("banana", "saturday", "elephant")[number]
    subprocess.run(["espeak-ng", "-v", VOICES[5 + number], "-w", str(path), text], check=True, capture_output=True)
    return path


@speaks
@pytest.mark.slow
@pytest.mark.parametrize("is_worse", [True, False])
def test_a_worse_model_does_not_replace_it(
    is_worse: bool, model: Path, spoken: Path, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old model stays byte for byte, and there is no path; at another --out the new one is written, and so it is
    where it is no worse; the other words stay in their order."""
    tiny_kws.enroll("window", said(spoken, "commuter", range(3)), tmp_path / "two.onnx", add_to=model, bank=bank)
    before = (tmp_path / "two.onnx").read_bytes()
    compare = enrolment.compare
    worse = ("hears less",) if is_worse else ()
    monkeypatch.setattr(enrolment, "compare", lambda *given: replace(compare(*given), worse=worse))
    options = {"improve": tmp_path / "two.onnx", "also": said(spoken, "computer", (5,)), "bank": bank}
    report = tiny_kws.enroll("computer", said(spoken, "computer", range(5)), None, **options)  # type: ignore[arg-type]
    assert report.path == (None if is_worse else tmp_path / "two.onnx")
    assert ((tmp_path / "two.onnx").read_bytes() == before) == is_worse
    out = tmp_path / "other.onnx"
    assert tiny_kws.enroll("computer", said(spoken, "computer", range(5)), out, **options).path == out  # type: ignore[arg-type]
    assert [word.word for word in read_words(out, read_bank(bank))] == ["computer", "window"]


# What goes wrong, said before anything is learnt


@speaks
@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], "found --improve alone"),
        (["--also", "empty"], "found no sound files"),
        (["--not", "missing"], "missing: found no such file or folder"),
        (["--also", "sound.wav", "--add", "model"], "found --improve and --add"),
    ],
)
def test_what_is_missing_is_told(options: list[str], found: str, model: Path, bank: Path, tmp_path: Path) -> None:
    """Nothing to learn from, an empty folder, a missing one, two things at once: one line and status 2."""
    (tmp_path / "empty").mkdir()
    write_sound(tmp_path / "sound.wav")
    done = run_cli("enroll", "computer", "a", "--improve", model, "--bank", bank, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert found in done.stderr


@speaks
def test_a_model_without_the_word_is_refused(model: Path, bank: Path, tmp_path: Path) -> None:
    """Another word is named with those that there are; a bundled model has none; the takes are needed again."""
    sound = write_sound(tmp_path / "sound.wav")
    with pytest.raises(UsageError, match="does not hear 'lamp', expected one of its words: computer"):
        check_request("lamp", None, bank=bank, improve=model, not_=[sound])
    listener = BANK.parent / "listener.stream.onnx"
    with pytest.raises(ModelError, match="has no words of your own"):
        check_request("yes", tmp_path / "new.onnx", bank=bank, improve=listener, not_=[sound])
    with pytest.raises(UsageError, match="a model does not contain them"):
        tiny_kws.enroll("computer", improve=model, not_=[sound], bank=bank)
    with pytest.raises(UsageError, match="without --improve"):
        check_request("lamp", None, bank=bank, not_=[sound])


@speaks
def test_the_rate_is_that_of_the_old_model(model: Path, bank: Path, tmp_path: Path) -> None:
    """Unless another is asked for; the place is the old model's too, which stays if it is better."""
    sounds = [write_sound(tmp_path / "sound.wav")]
    request = check_request("computer", None, bank=bank, improve=model, not_=sounds)
    assert (request.false_alarms_per_hour, request.path, request.keeps_better) == (2.0, model, True)
    request = check_request("computer", tmp_path / "new.onnx", 1.0, bank=bank, improve=model, not_=sounds)
    assert (request.false_alarms_per_hour, request.keeps_better) == (1.0, False)
    assert check_request("lamp", tmp_path / "new.onnx", bank=bank).false_alarms_per_hour == 0.5


def test_clips_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A copy, one that is silent, one that is long: each with the reason; none at all is an error, and so is a take."""
    sound = write_sound(tmp_path / "a.wav", 2.0)
    shutil.copy(sound, tmp_path / "b.wav")
    write_sound(tmp_path / "c.wav", 11.0)

    sf.write(tmp_path / "d.wav", np.zeros(16000), 16000)
    passed_over: dict[str, str] = {}
    clips = read_clips([tmp_path], [], passed_over)
    assert [(clip.name, clip.seconds) for clip in clips] == [(str(sound), 2.0)]
    reasons = [
        f"is the same sound as {sound}",
        "lasts 11 s, expected 10 s at most; name it with --negatives",
        "is silent",
    ]
    assert list(passed_over.values()) == reasons
    with pytest.raises(UsageError, match=r"found no sound in --not that can be used .*d\.wav: is silent"):
        read_clips([tmp_path / "d.wav"], [], {})
    with pytest.raises(UsageError, match=r"a\.wav: is among the recordings of the word too"):
        read_clips([sound], clips, {})


# What is worse


def point(rate: float) -> Expected:
    alarms = {READERS: Alarms(round(4 * rate), 4.0, (0.0, rate + 1))}
    return Expected(0.5, None, None, alarms)


@pytest.mark.parametrize(
    ("also", "not_", "after", "rate", "worse"),
    [
        ((1, 3), (5, 0), 1, 0.5, []),
        ((3, 2), (5, 0), 1, 0.5, ["hears 2 of 5 takes of --also, and the old one 3"]),
        ((1, 3), (2, 4), 1, 0.5, ["is set off by 4 of 5 sounds of --not, and the old one by 2"]),
        ((1, 3), (5, 0), 4, 0.5, ["misses 4 of the other 10 takes, and the old one 1 of 10"]),
        ((1, 3), (5, 0), 1, 2.0, ["has 2.0 false alarms per hour, and the old one 0.5"]),
    ],
)
def test_what_is_worse_is_told(
    also: tuple[int, int], not_: tuple[int, int], after: int, rate: float, worse: list[str]
) -> None:
    """By count on the same recordings; misses and false alarms beyond the interval of the old ones."""
    misses = (Misses(1, 10, (0.0, 0.3)), Misses(after, 10, (0.0, 0.9)))
    found = Improvement(Compared(*also, 5), Compared(*not_, 5), misses, point(0.5), point(rate), (), False)
    assert _worse(found) == worse
