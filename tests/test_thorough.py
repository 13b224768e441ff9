"""Thorough heads: what their hidden layer can tell, how a killed training goes on, what sounds near a word."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tiny_kws import cli
from tiny_kws.artefact.runtime import read_metadata
from tiny_kws.enrolment import enroll, learn, near, say, thorough
from tiny_kws.enrolment.bank import READERS, Bank, Stretch
from tiny_kws.enrolment.head import Head, Hidden, OwnWord, windows
from tiny_kws.enrolment.improve import Compared, Improvement
from tiny_kws.enrolment.learn import NEAR_WEIGHT, Heard, Teacher
from tiny_kws.enrolment.predict import Expected, Misses
from tiny_kws.enrolment.say import Say
from tiny_kws.enrolment.takes import Take
from tiny_kws.enrolment.thorough import Progress, ThoroughTeacher
from tiny_kws.enrolment.voices import Voice
from tiny_kws.errors import UsageError

SIZE, BINS = 4, 2
HOP = 1280


class KilledError(Exception):
    """A process that ends in the middle."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small steps."""
    for name, value in {"EPOCHS": 3, "STEPS": 60, "UNITS": 8, "NOISE": 0.05, "DROPPED": 0.0}.items():
        monkeypatch.setattr(thorough, name, value)
    monkeypatch.setattr(thorough, "LEARNING_RATE", 0.02)


def corners(rng: np.random.Generator, n: int, *, are_alike: bool) -> np.ndarray:
    """Vectors near (1, 1) and (-1, -1), or near the other two corners, which no straight line parts from these."""
    first = rng.choice([-1.0, 1.0], n)
    found = 0.1 * rng.normal(size=(n, SIZE))
    found[:, 0] += first
    found[:, 1] += first if are_alike else -first
    return found.astype(np.float32)


def a_bank(seed: int = 0) -> Bank:
    rng = np.random.default_rng(seed)
    facts = {"hop": HOP, "size": SIZE}
    vectors = corners(rng, 12_000, are_alike=False)
    stretches = tuple(Stretch(READERS, at, at + 6000) for at in (0, 6000))
    return Bank(b"", vectors, stretches, (), (), (), (), facts)


def takes(seed: int = 1, count: int = 40) -> list[Heard]:
    """Recordings in which the last vectors are the word's."""
    rng = np.random.default_rng(seed)
    lead = [corners(rng, 20, are_alike=False) for _ in range(count)]
    word = [corners(rng, 5, are_alike=True) for _ in range(count)]
    return [Heard(i, np.concatenate([lead[i], word[i]]), 20.0) for i in range(count)]


def teacher(path: Path | None = None, tell: object = None) -> ThoroughTeacher:
    progress = Progress(path, tell) if callable(tell) else Progress(path)
    return ThoroughTeacher(a_bank(), takes(), BINS, np.random.default_rng(3), progress=progress, n_heads=2)


def share_above_zero(head: Head, *, are_alike: bool) -> float:
    return float((head.score(corners(np.random.default_rng(9), 500, are_alike=are_alike))[1:] > 0).mean())


def same(first: Head, second: Head) -> bool:
    assert first.hidden is not None
    assert second.hidden is not None
    pairs = [(first.weights, second.weights), (first.hidden.weights, second.hidden.weights)]
    pairs += [(first.hidden.biases, second.hidden.biases), (first.hidden.gains, second.hidden.gains)]
    return first.bias == second.bias and all(np.array_equal(a, b) for a, b in pairs)


def test_units_give_what_they_say() -> None:
    """A head's score is the linear layer's and the sum of its units, each zero below zero; in blocks of any size."""
    rng = np.random.default_rng(0)
    hidden = Hidden(*(rng.normal(size=s).astype(np.float32) for s in ((BINS * SIZE, 3), (3,), (3,))))
    head = Head(rng.normal(size=(BINS, SIZE)).astype(np.float32), 0.5, hidden)
    vectors = rng.normal(size=(9000, SIZE)).astype(np.float32)
    rows = windows(vectors, np.arange(9000), BINS)
    units = np.maximum(0, rows @ hidden.weights + hidden.biases)
    wanted = rows @ head.weights.ravel() + 0.5 + units @ hidden.gains
    assert np.allclose(head.score(vectors), wanted, atol=1e-4)


def test_a_thorough_head_tells_what_no_linear_one_can() -> None:
    """Corners of a square: a linear head takes half of both for the word, a thorough one most and nearly none."""
    linear = Teacher(a_bank(), takes(), BINS, np.random.default_rng(3)).learn()
    head = teacher().learn()
    both = [share_above_zero(linear, are_alike=alike) for alike in (True, False)]
    assert both[0] - both[1] < 0.3
    assert share_above_zero(head, are_alike=True) > 0.8
    assert share_above_zero(head, are_alike=False) < 0.02


def test_a_thorough_logit_is_the_mean_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the linear head's that it began with, and of what it has learnt since."""
    both: list[Head] = []
    halfway = thorough._halfway

    def kept(linear: Head, trained: Head) -> Head:
        both.extend((linear, trained))
        return halfway(linear, trained)

    monkeypatch.setattr(thorough, "_halfway", kept)
    head = teacher().learn()
    linear, trained = both
    start = Teacher(a_bank(), takes(), BINS, np.random.default_rng(3)).learn()
    assert linear.hidden is None
    assert np.array_equal(linear.weights, start.weights)
    vectors = corners(np.random.default_rng(9), 500, are_alike=True)
    assert np.allclose(head.score(vectors), (linear.score(vectors) + trained.score(vectors)) / 2, atol=1e-4)
    assert np.abs(linear.score(vectors) - trained.score(vectors)).max() > 1
    assert share_above_zero(trained, are_alike=True) > 0.9
    assert share_above_zero(trained, are_alike=False) < 0.02


def near_sounds(count: int = 20) -> list[Heard]:
    """Sounds that are not the word, numbered behind the takes; no other vector has sevens."""
    return [Heard(40 + i, np.full((20, SIZE), 7, np.float32), 15.0) for i in range(count)]


def test_near_phrases_count_less_than_what_set_a_word_off() -> None:
    """In the linear head, NEAR_WEIGHT of what clips weigh; with both, clips weigh what they do alone."""
    sevens = np.full((1, SIZE), 7, np.float32).repeat(BINS, 0)

    def score(**kinds: list[Heard]) -> float:
        head = Teacher(a_bank(), takes(), BINS, np.random.default_rng(3), **kinds).learn()
        return float(head.score(sevens)[-1])

    alone, near, clips = score(), score(near=near_sounds()), score(clips=near_sounds())
    assert clips < near - 0.5 < alone - 1


def test_recordings_with_nothing_around_the_word() -> None:
    """Where nothing can be learnt from before and behind the words, the windows of a step are the others alone."""
    short = [Heard(one.take, one.vectors[12:], 8.0) for one in takes()]
    asked = ThoroughTeacher(a_bank(), short, BINS, np.random.default_rng(3))
    asked.learn()
    assert asked._n_word == len(asked._take_of) > 0
    rows = asked._drawn(np.random.default_rng(0), np.arange(9), np.arange(9), np.arange(9), np.arange(0))
    assert len(rows) == sum(thorough.BATCH[:3])


def test_near_phrases_are_drawn_less_often() -> None:
    """Of the windows of a step that are around the word, NEAR_WEIGHT of what each other one is."""
    asked = ThoroughTeacher(a_bank(), takes(), BINS, np.random.default_rng(3), near=near_sounds(30))
    Teacher.learn(asked)
    n_near = asked._n_near
    around = np.arange(asked._n_word, len(asked._take_of))
    of_bank = asked._bank_without([])
    rng = np.random.default_rng(0)
    steps = [asked._drawn(rng, np.arange(asked._n_word), of_bank, of_bank, around) for _ in range(100)]
    drawn = np.mean([(rows == 7).all(1).sum() for rows in steps]) / thorough.BATCH[3]
    wanted = n_near * NEAR_WEIGHT / (len(around) - n_near + n_near * NEAR_WEIGHT)
    assert 0.05 < wanted < 0.5
    assert drawn == pytest.approx(wanted, rel=0.1)


def test_a_head_without_some_takes_is_another() -> None:
    """What is left out changes the head; with nothing left out and the same numbers drawn it is the same."""
    assert same(teacher().without([], []), teacher().without([], []))
    assert not same(teacher().without([], []), teacher().without([0, 1, 2], []))
    assert not same(teacher().without([], []), teacher().without([], [a_bank().stretches[0]]))
    assert teacher()._bank_without([a_bank().stretches[0]]).tolist() == list(range(6000, 12_000))
    assert teacher()._bank_without([]).tolist() == list(range(BINS - 1, 12_000))


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_a_killed_training_goes_on_exactly(epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after so many epochs of two heads, it does the others alone, and both heads are as if it had not been."""
    path, taken = tmp_path / "word.onnx.partly.npz", []
    wanted = teacher()
    both = [wanted.learn(), wanted.without([0], [])]
    keep = thorough._Saved.keep

    def killed(self: thorough._Saved, number: int, training: thorough._Training) -> None:
        keep(self, number, training)
        taken.append(number)
        if len(taken) == epochs:
            raise KilledError

    monkeypatch.setattr(thorough._Saved, "keep", killed)
    first = teacher(path)
    with pytest.raises(KilledError):
        _ = first.learn(), first.without([0], [])
    again = teacher(path)
    found = [again.learn(), again.without([0], [])]
    assert len(taken) == 6
    assert [same(a, b) for a, b in zip(found, both, strict=True)] == [True, True]


def array_file() -> bytes:
    np.save(file := io.BytesIO(), np.arange(5))
    return file.getvalue()


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:2000],
    "one byte less": lambda data: data[:-1],
    "empty": lambda _: b"",
    "a letter": lambda _: b"a letter",
    "an array": lambda _: array_file(),
    "one bit": lambda data: data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
    "another compression": lambda data: data.replace(b"PK\1\2\x14\0\x14\0\0\0\0\0", b"PK\1\2\x14\0\x14\0\0\0\x63\0"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_is_not_gone_on_with(harm: str, tmp_path: Path) -> None:
    """Half a file, another file, other bytes in it: the training begins anew and ends as it should."""
    path = tmp_path / "word.onnx.partly.npz"
    teacher(path).learn()
    path.write_bytes(HARMS[harm](path.read_bytes()))
    assert same(teacher(path).learn(), teacher().learn())


@pytest.mark.parametrize("other", ["bank", "takes", "seed", "steps"])
def test_another_request_is_not_gone_on_with(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept of another bank, other takes, another seed or a shorter training does not count."""
    path = tmp_path / "word.onnx.partly.npz"
    with monkeypatch.context() as patched:
        if other == "steps":
            patched.setattr(thorough, "STEPS", 30)
        ThoroughTeacher(
            a_bank(5 if other == "bank" else 0),
            takes(),
            BINS,
            np.random.default_rng(4 if other == "seed" else 3),
            progress=Progress(path),
            fingerprint="others" if other == "takes" else "",
        ).learn()
    assert same(teacher(path).learn(), teacher().learn())


def test_takes_are_told_apart() -> None:
    """Recordings by their sound, what voices say by speaker and length: a little noise in it makes no difference."""
    audio = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    take, noisy = (Take("pico", sound, 4000, 12_000) for sound in (audio, audio + np.float32(1e-4)))
    longer, other = Take("pico", np.append(audio, audio), 4000, 12_000), Take("flite", audio, 4000, 12_000)
    assert thorough.fingerprint_of([take], [take]) == thorough.fingerprint_of([take], [noisy])
    found = [([take], [take]), ([noisy], [take]), ([take], [longer]), ([take], [other]), ([take], []), ([], [take])]
    assert len({thorough.fingerprint_of(*both) for both in found}) == len(found)


def test_the_time_is_told() -> None:
    """Once for each network, with how many there are."""
    told: list[str] = []
    asked = teacher(tell=told.append)
    _ = asked.learn(), asked.without([0], [])
    assert told == ["network 1 of 2, about 1 min left", "network 2 of 2, about 1 min left"]


def test_what_is_near_a_word() -> None:
    """Words that sound like it, not those that contain it; a phrase's parts, and it with its long words exchanged."""
    pytest.importorskip("hibari", reason="needs the extra `say`")
    words = near.near_texts("computer")
    assert "commuter" in words
    assert not {"computer", "computers", "microcomputer"} & set(words)
    phrase = near.near_texts("hey computer")
    assert phrase[:3] == ["hey", "computer", "hey commuter"]
    assert all(text.startswith("hey ") for text in phrase[2:])


def test_what_is_near_a_word_is_near_its_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that is spelt otherwise for the voices is not what they say; no spelling is near another."""
    pytest.importorskip("hibari", reason="needs the extra `say`")
    said: list[str] = []
    monkeypatch.setattr(near, "speakers", lambda say: [None])
    monkeypatch.setattr(near, "spoken", lambda text, say, rng, silent: (said.append(text) or [], {}))
    near.near_phrases("tiny-kws", Say(("computer", "commuter")), np.random.default_rng(0))
    assert said[:7] == [text for text in near.near_texts("computer", 8) if text != "commuter"]
    assert len(said) == len(set(said)) > 7
    assert not {"computer", "commuter"} & set(said)


def test_a_voice_that_does_not_say_the_word_is_not_asked_for_phrases_near_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs would cost its time limit for each of them."""
    asked: list[str] = []

    def voice(name: str) -> Voice:
        def speak(text: str, _: float) -> np.ndarray:
            asked.append(f"{name}: {text}")
            return a_tone()

        return Voice(name, speak)

    monkeypatch.setattr(say, "voices", lambda language: [voice("speaks"), voice("hangs")])
    found = near.near_phrases("hey computer", Say(language="de"), np.random.default_rng(0), {"hangs": "20 s"})
    assert asked == ["speaks: hey", "speaks: computer"]
    assert [take.name for take in found] == ["speaks", "speaks"]
    with pytest.raises(UsageError, match="none was asked"):
        say.spoken("hey", Say(), np.random.default_rng(0), ["speaks", "hangs"])


def a_tone() -> np.ndarray:
    """Half a second between two pauses."""
    tone = 0.3 * np.sin(np.arange(8000) * 0.2)
    return np.pad(tone, 4000).astype(np.float32)


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few takes, and networks that are hardly trained."""
    for room, name, value in (
        (thorough, "EPOCHS", 1),
        (thorough, "STEPS", 25),
        (enroll, "THOROUGH_TAKES", 30),
        (learn, "THOROUGH_VARIANTS", 60),
        (near, "NEAREST", 2),
    ):
        monkeypatch.setattr(room, name, value)


@pytest.mark.slow
def test_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says how long it takes, writes a model with hidden units and leaves nothing else beside it."""
    pytest.importorskip("hibari", reason="needs the extra `say`")
    quicken(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["tiny-kws", "enroll", "computer", "--say", "--thorough", "--out", "c.onnx"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    assert "network 1 of" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.onnx"]
    (facts,) = read_metadata(tmp_path / "c.onnx").own_words
    assert (facts["word"], facts["units"]) == ("computer", thorough.UNITS)


@pytest.mark.slow
def test_a_killed_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in its third network it goes on there, though not every voice says the word alike to the last bit."""
    pytest.importorskip("hibari", reason="needs the extra `say`")
    quicken(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["tiny-kws", "enroll", "computer", "--say", "--thorough", "--out", "c.onnx"])
    monkeypatch.chdir(tmp_path)
    keep = thorough._Saved.keep

    def killed(self: thorough._Saved, number: int, training: thorough._Training) -> None:
        if number == 3:
            raise KilledError
        keep(self, number, training)

    with monkeypatch.context() as patched:
        patched.setattr(thorough._Saved, "keep", killed)
        with pytest.raises(KilledError):
            cli.main()
    assert "network 3 of 6" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert not exit_.value.code
    assert re.findall("network [0-9]", capsys.readouterr().err) == [f"network {i}" for i in (3, 4, 5, 6)]
    assert [path.name for path in tmp_path.iterdir()] == ["c.onnx"]


@pytest.mark.parametrize("worse", [(), ("hears less",)])
def test_nothing_is_left_of_a_training_that_ended(
    worse: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept of it goes when the model is written, and when the old model stays since it is better."""
    kept, model = tmp_path / "c.onnx.partly.npz", tmp_path / "c.onnx"
    kept.write_bytes(b"a state")
    (tmp_path / f".{kept.name}.0a1b2c3d").write_bytes(b"half a state")
    told = Misses(0, 1, (0.0, 1.0))
    chosen = Expected(0.5, told, told, {})
    counts = Compared(1, 0, 1)
    improvement = Improvement(counts, counts, (told, told), None, chosen, worse, may_know=False)
    report = enroll.Report("word", 1, 0, 0.5, chosen, (), {}, (), (), (), improvement=improvement)
    own_word = OwnWord("word", Head(np.zeros((BINS, SIZE), np.float32), 0.0), 0.5, {})
    monkeypatch.setattr(enroll, "learn", lambda *_: enroll.Enrolled(own_word, report))
    monkeypatch.setattr(enroll, "_ship", lambda: SimpleNamespace(write_model=lambda path, *_: path.write_bytes(b"new")))
    asked = enroll.Request("word", model, a_bank(), (), 0.5, keeps_better=True)
    found = enroll.fulfil(asked, ["a.wav"], thorough=Progress(kept))
    assert not any("partly" in path.name for path in tmp_path.iterdir())
    assert (found.path, model.exists()) == ((None, False) if worse else (model, True))
