"""Own words: takes, their variants, heads, what is told of them, and the model that comes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

import tiny_kws
from tiny_kws import DataError, ModelError, StreamModel, UsageError
from tiny_kws.enrolment.bank import (
    BANK,
    CHILDREN,
    ENGLISH,
    HOMES,
    LANGUAGES,
    READERS,
    Bank,
    Stretch,
    Trunk,
    read_bank,
    write_bank,
)
from tiny_kws.enrolment.enroll import _misfits, check_word, fires_at, study_of
from tiny_kws.enrolment.head import THRESHOLD, Head, Hidden, OwnWord, fit, windows
from tiny_kws.enrolment.predict import SETTLING_S, Evidence, alarms_at, expected, logit_for, peaks_of, word_score
from tiny_kws.enrolment.ship import read_words, write_model
from tiny_kws.enrolment.takes import find_takes, read_takes
from tiny_kws.enrolment.vary import Surroundings, as_it_is, in_noise, varied

RATE = 16000
Sound = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def bank() -> Bank:
    """The package's own."""
    return read_bank()


def word_like(seed: int, seconds: float = 0.6, level: float = 0.3) -> Sound:
    """A made-up word of three syllables: a glide of harmonics under three humps, different from seed to seed."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE)) / RATE
    pitch = 110 + 60 * rng.random() + 30 * np.sin(2 * np.pi * time_s / seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = sum(np.sin(n * phase) / n for n in range(1, 20)) * np.abs(np.sin(3 * np.pi * time_s / seconds))
    return (level * sound / np.abs(sound).max()).astype(np.float32)


def around(words: list[Sound], pause_s: float = 0.6, noise: float = 1e-4, seed: int = 0) -> Sound:
    """Words with pauses before, between and behind, over noise."""
    pause = np.zeros(round(pause_s * RATE), np.float32)
    track = np.concatenate([pause, *(part for word in words for part in (word, pause))])
    return (track + np.random.default_rng(seed).normal(0, noise, len(track))).astype(np.float32)


# Takes


@pytest.mark.parametrize("count", [1, 2, 10])
def test_takes_are_found_between_pauses(count: int) -> None:
    """As many takes as words, each where its word lies, within 60 ms."""
    takes = find_takes(around([word_like(i) for i in range(count)]), "words.wav")
    starts = [round((0.6 + i * 1.2) * RATE) for i in range(count)]
    assert len(takes) == count
    assert [abs(take.start - start) < 0.06 * RATE for take, start in zip(takes, starts, strict=True)] == [True] * count
    assert [abs(take.seconds - 0.6) < 0.1 for take in takes] == [True] * count


@pytest.mark.parametrize(
    "sound",
    [np.zeros(0, np.float32), np.zeros(RATE, np.float32), np.random.default_rng(0).normal(0, 0.05, 2 * RATE)],
    ids=["empty", "silence", "noise"],
)
def test_without_a_word_there_is_no_take(sound: Sound) -> None:
    """Nothing, silence and even noise hold no take."""
    assert find_takes(sound.astype(np.float32), "nothing.wav") == []


def test_a_click_is_no_take() -> None:
    """A loud click beside a word leaves one take, the word."""
    sound = around([word_like(0)])
    sound[1000:1100] = 0.9
    assert [take.start > 0.5 * RATE for take in find_takes(sound, "click.wav")] == [True]


def test_what_is_not_used_is_named_with_the_reason(tmp_path: Path) -> None:
    """Of a folder with a word, silence, a damaged file and a long sound the word is used, and the others are named."""
    sf.write(tmp_path / "a.wav", around([word_like(0)]), RATE)
    sf.write(tmp_path / "b.wav", np.zeros(RATE), RATE)
    (tmp_path / "c.wav").write_bytes(b"RIFF....nothing")
    sf.write(tmp_path / "d.wav", around([word_like(0, 3.0)]), RATE)
    found = read_takes([tmp_path])
    assert [take.name for take in found.takes] == ["a.wav"]
    assert sorted(found.passed_over) == ["b.wav", "c.wav", "d.wav"]
    assert "has no word: 3.0 s of speech or noise without a pause, expected 1.6 s" in found.passed_over["d.wav"]
    assert "has no word: nothing stands out" in found.passed_over["b.wav"]


def test_recordings_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    """A missing file and an empty folder are named."""
    with pytest.raises(UsageError, match=r"nowhere\.wav: found no such file"):
        read_takes([tmp_path / "nowhere.wav"])
    with pytest.raises(UsageError, match="found no sound files"):
        read_takes([tmp_path])


# What is said of takes


@pytest.mark.parametrize(
    ("n_takes", "n_misfits", "is_refused"),
    [(3, 3, False), (4, 2, False), (4, 3, True), (6, 2, False), (6, 3, True), (10, 4, False), (10, 5, True)],
)
def test_takes_half_of_which_do_not_fit_are_refused(n_takes: int, n_misfits: int, is_refused: bool) -> None:
    """Three or more misfits that are half of four or more takes are of other words; else they are named."""
    takes = [find_takes(around([word_like(0)]), f"{i}.wav")[0] for i in range(n_takes)]
    clean = np.where(np.arange(n_takes) < n_misfits, -1.0, 11.0)
    evidence = Evidence(clean, np.zeros((0, 1)), {READERS: np.arange(10.0, 0.0, -1.0)}, {READERS: 0.5})
    if is_refused:
        with pytest.raises(UsageError, match=f"{n_misfits} of {n_takes} recordings do not sound like the others"):
            _misfits(takes, evidence)
    else:
        assert _misfits(takes, evidence) == tuple(f"{i}.wav" for i in range(n_misfits))


# Variants


def test_a_variant_says_where_its_word_lies() -> None:
    """At every draw the loudest part of a noiseless variant lies between its start and stop."""
    take = find_takes(around([word_like(1)]), "")[0]
    quiet = Surroundings([np.full(RATE, 1e-6, np.float32)], [np.full(RATE, 1e-6, np.float32)])
    for seed in range(8):
        variant = varied(take, quiet, np.random.default_rng(seed))
        power = np.square(variant.audio)
        middle = float((power * np.arange(len(power))).sum() / power.sum())
        assert variant.start < middle < variant.stop + 0.3 * RATE


def test_noise_comes_at_its_ratio() -> None:
    """Noise at 10 dB has a tenth of the word's power, within 1 dB."""
    take = find_takes(around([word_like(2)], noise=1e-5), "")[0]
    plain, noise = as_it_is(take), np.random.default_rng(0).normal(0, 1, RATE).astype(np.float32)
    noisy = in_noise(take, noise, 10.0, np.random.default_rng(1))
    added = noisy.audio - plain.audio
    word = plain.audio[plain.start : plain.stop]
    active = word[np.abs(word) > 0.01]
    assert 10 * math.log10(np.square(active).mean() / np.square(added).mean()) == pytest.approx(10, abs=1.5)


# Heads


def test_a_fit_is_the_optimum() -> None:
    """The slope of the loss at the coefficients found is nearly zero, and they tell rows apart as drawn."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 20)).astype(np.float32)
    truth = rng.normal(size=20)
    targets = (rows @ truth + rng.normal(size=3000) > 0).astype(np.float32)
    found = fit(rows, targets, np.ones(3000, np.float32), 1.0, steps=200).astype(np.float64)
    errors = 1 / (1 + np.exp(-(rows @ found[:-1] + found[-1]))) - targets
    assert np.abs(rows.T @ errors + found[:-1]).max() < 2.0
    assert np.corrcoef(found[:-1], truth)[0, 1] > 0.99


def test_a_head_scores_what_windows_hold() -> None:
    """The score at a row is the product with the window that ends there, zeros before the first row."""
    rng = np.random.default_rng(1)
    head = Head(rng.normal(size=(5, 3)).astype(np.float32), 0.7)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    rows = windows(vectors, np.arange(40), 5)
    assert np.allclose(head.score(vectors), rows @ head.weights.ravel() + 0.7, atol=1e-5)


# What is told


def test_peaks_are_counted_once() -> None:
    """Two crossings within the refractory time are one false alarm."""
    scores = np.array([0, 5, 4, 0, 0, 0, 0, 6, 0], np.float32)
    assert peaks_of(scores, 3).tolist() == [1, 7]
    assert peaks_of(scores, 6).tolist() == [7]


def evidence_of(adults: list[float], clean: list[float]) -> Evidence:
    peaks = {READERS: np.sort(adults)[::-1], HOMES: np.array([3.0]), LANGUAGES: np.array([99.0])}
    hours = {READERS: 8.0, HOMES: 2.0, LANGUAGES: 1.0}
    return Evidence(np.array(clean), np.array([[x, x - 4] for x in clean]), peaks, hours)


def test_the_threshold_gives_the_rate() -> None:
    """At a mean of 0.5 an hour eight of readers' false alarms in eight hours are let through, with none of homes'."""
    evidence = evidence_of([float(i) for i in range(20)], [30.0])
    logit = logit_for(evidence, 0.5)
    assert 11 < logit < 12
    told = expected(evidence, logit)
    assert (told.alarms[READERS].count, told.alarms[HOMES].count, told.alarms_per_hour) == (8, 0, 0.5)
    low, high = told.alarms[READERS].interval
    assert (round(low * 8, 2), round(high * 8, 2)) == (3.45, 15.76)


def test_false_alarms_of_several_kinds_together() -> None:
    """Of readers and homes eight and none in ten hours; other languages are not asked for."""
    told = alarms_at(evidence_of([float(i) for i in range(20)], [30.0]), 11.5, (READERS, HOMES, CHILDREN))
    assert (told.count, told.hours) == (8, 10.0)


def test_only_strangers_to_the_trunk_are_counted(bank: Bank) -> None:
    """False alarms are told of speakers whom the trunk was not trained on; of all, where the word seems to be."""
    known = replace(small_bank(bank), trunk=bank.trunk)
    halves = tuple(replace(s, is_strange=i % 2 == 0) for i, s in enumerate(known.stretches))
    known = replace(known, stretches=halves)
    rng = np.random.default_rng(0)
    takes = find_takes(around([word_like(3, seconds) for seconds in (0.5, 0.55, 0.6, 0.65)]), "takes")
    study = study_of(known, Trunk(known), takes, [], rng)
    settling = SETTLING_S / 3600
    for kind in ENGLISH:
        rows = [s.stop - s.start for s in halves if s.kind == kind and s.is_strange]
        hours = sum(rows) * known.hop / RATE / 3600 - len(rows) * settling
        assert study.evidence.hours[kind] == pytest.approx(hours, rel=0.02)
    strange = {s.start: s.is_strange for s in halves}
    starts = sorted(strange)
    found = {strange[max(start for start in starts if start <= row)] for row in study.evidence.surest}
    assert found == {True, False}


def test_phrases_that_fire_are_those_before_the_peak(bank: Bank) -> None:
    """The last two words that end within 0.8 s before a row are said there, each phrase once."""
    known = replace(bank, words=((90, "the"), (95, "old"), (99, "commuter"), (101, "came"), (300, "compute")))
    evidence = replace(evidence_of([1.0], [2.0]), surest=(100, 302, 100, 700))
    assert fires_at(known, evidence) == ("old commuter", "compute")


def test_misses_are_told_with_wilsons_interval() -> None:
    """Of ten takes two are missed: 2 of 10, 5.7 to 51 %."""
    told = expected(evidence_of([0.0], [1.0, 1.0, *[5.0] * 8]), 2.0)
    assert told.misses is not None
    assert (told.misses.missed, told.misses.takes) == (2, 10)
    assert told.misses.interval == pytest.approx((0.0567, 0.5098), abs=1e-3)
    assert told.misses_in_noise is not None
    assert told.misses_in_noise.missed == 6


def test_a_word_is_looked_for_about_its_end() -> None:
    """A high score before the word or long after it is no hit."""
    scores = np.full(60, -5, np.float32)
    scores[[5, 55]] = 9
    assert word_score(scores, 30.0, 1280) == -5
    scores[32] = 4
    assert word_score(scores, 30.0, 1280) == 4


# The bank


def test_parts_of_the_bank_share_no_speaker(bank: Bank) -> None:
    """Ten parts hold every stretch once, each with readers and children in about equal measure."""
    parts = [bank.part(part, 10) for part in range(10)]
    assert sorted(s.start for part in parts for s in part) == sorted(s.start for s in bank.stretches)
    for kind in (READERS, CHILDREN):
        rows = [sum(s.stop - s.start for s in part if s.kind == kind) for part in parts]
        assert max(rows) < 2 * min(rows)


def test_the_bank_says_where_it_comes_from(bank: Bank) -> None:
    """Over ten hours of English, every origin with a licence that lets anyone use what is made of it."""
    assert sum(map(bank.hours, ENGLISH)) > 10
    assert all(origin.recordings for origin in bank.origins)
    for kind in (*ENGLISH, LANGUAGES):
        assert sum(s.stop - s.start for s in bank.stretches if s.kind == kind and s.is_strange) > 20_000
    assert len(bank.words) > 50_000
    assert bank.words_per_hour["the"] > 300
    assert {origin.licence for origin in bank.origins} <= {"CC0 1.0", "CC BY 4.0", "Apache-2.0", "CC0, CC BY"}
    assert bank.vectors.std(0) == pytest.approx(np.ones(bank.vectors.shape[1]), abs=0.25)


def small_bank(bank: Bank) -> Bank:
    """The first few stretches of each kind."""
    kept, vectors, at = [], [], 0
    for kind in (*ENGLISH, LANGUAGES):
        for stretch in [s for s in bank.stretches if s.kind == kind][:4]:
            rows = bank.vectors[stretch.start : stretch.stop][:600]
            kept.append(Stretch(kind, at, at + len(rows)))
            vectors.append(rows)
            at += len(rows)
    return replace(
        bank, vectors=np.concatenate(vectors), stretches=tuple(kept), words=bank.words[:9], noises=bank.noises[:3]
    )


def test_a_bank_is_read_as_it_was_written(bank: Bank, tmp_path: Path) -> None:
    """Vectors, which are rounded already, come back to the bit; so do stretches, words and origins."""
    small = small_bank(bank)
    write_bank(tmp_path / "small.bank", small)
    again = read_bank(tmp_path / "small.bank")
    assert np.array_equal(again.vectors, small.vectors)
    assert (again.stretches, again.origins, again.trunk) == (small.stretches, small.origins, small.trunk)
    assert again.words == small.words
    assert [len(noise) for noise in again.noises] == [len(noise) for noise in small.noises]


@pytest.mark.parametrize("harm", ["missing", "cut", "foreign", "altered"])
def test_a_damaged_bank_is_an_error(harm: str, tmp_path: Path) -> None:
    """A bank that is missing, cut short, something else, or altered inside is refused in one line."""
    path = tmp_path / "own-words.bank"
    data = bytearray(BANK.read_bytes())
    if harm == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "foreign":
        path.write_bytes(b"a letter to a friend")
    elif harm == "altered":
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    with pytest.raises(DataError, match=r"own-words\.bank: .*expected"):
        read_bank(path)


# The model


def a_word(bank: Bank, name: str, seed: int, bins: int = 10, units: int = 0) -> OwnWord:
    """A word with a head of random numbers; with `units`, a thorough one."""
    rng, size = np.random.default_rng(seed), int(bank.trunk_facts["size"])

    def drawn(*shape: int) -> Sound:
        return (0.05 * rng.normal(size=shape)).astype(np.float32)

    hidden = Hidden(drawn(bins * size, units), 10 * drawn(units), 40 * drawn(units)) if units else None
    facts = {"word": name, "bins": bins, "trunk_sha256": bank.trunk_sha256} | ({"units": units} if units else {})
    return OwnWord(name, Head(drawn(bins, size), -1.0, hidden), THRESHOLD, facts)


@pytest.mark.parametrize("units", [(0, 0), (5, 0), (0, 7), (5, 7)], ids=str)
def test_the_model_gives_what_its_heads_give(units: tuple[int, int], bank: Bank, tmp_path: Path) -> None:
    """A stream's probabilities are the softmax of the heads' logits against 0, within 1e-4, in chunks of any length.

    They are those after silence, from the first on: 4 s of it are put before for the heads.
    """
    words = [a_word(bank, "computer", 0, units=units[0]), a_word(bank, "lights out", 1, bins=14, units=units[1])]
    write_model(tmp_path / "two.onnx", bank, words)
    sound = around([word_like(3), word_like(4)], noise=0.01)
    n_before = 50
    vectors = Trunk(bank).vectors(np.concatenate([np.zeros(n_before * bank.hop, np.float32), sound]))
    logits = np.stack([np.zeros(len(vectors)), *(word.head.score(vectors) for word in words)], 1)[n_before:]
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    stream = StreamModel(tmp_path / "two.onnx").stream()
    found = np.concatenate([stream.process(sound[i : i + 777]) for i in range(0, len(sound), 777)])
    assert stream.labels == ("unknown", "computer", "lights out")
    assert np.abs(found - wanted).max() < 1e-4


def test_words_come_back_from_a_model(bank: Bank, tmp_path: Path) -> None:
    """What was written is read: weights, bias, threshold; so models are combined without loss."""
    first, second = a_word(bank, "computer", 0, units=5), a_word(bank, "lights out", 1, bins=14)
    third = a_word(bank, "lamp", 2, units=7)
    write_model(tmp_path / "a.onnx", bank, [first])
    write_model(tmp_path / "b.onnx", bank, [second, third])
    joined = tiny_kws.combine([tmp_path / "a.onnx", tmp_path / "b.onnx"], tmp_path / "all.onnx")
    assert joined == ["computer", "lights out", "lamp"]
    for word, again in zip([first, second, third], read_words(tmp_path / "all.onnx", bank), strict=True):
        assert np.array_equal(word.head.weights, again.head.weights)
        assert (word.head.hidden is None) == (again.head.hidden is None)
        if word.head.hidden and again.head.hidden:
            pairs = zip(vars(word.head.hidden).values(), vars(again.head.hidden).values(), strict=True)
            assert all(np.array_equal(one, other) for one, other in pairs)
        assert (word.word, word.head.bias, word.threshold) == (again.word, again.head.bias, again.threshold)


def test_a_model_of_another_kind_or_trunk_takes_no_word(bank: Bank, tmp_path: Path) -> None:
    """A bundled model, or one of another trunk, is named, and nothing is written."""
    write_model(
        tmp_path / "a.onnx",
        bank,
        [replace(a_word(bank, "a word", 0), facts={"word": "a word", "bins": 10, "trunk_sha256": "0" * 64})],
    )
    with pytest.raises(ModelError, match="another trunk"):
        tiny_kws.combine([tmp_path / "a.onnx", tmp_path / "a.onnx"], tmp_path / "out.onnx")
    listener = Path(tiny_kws.__file__).parent / "assets" / "listener.stream.onnx"
    with pytest.raises(ModelError, match="has no words of your own"):
        tiny_kws.combine([listener, listener], tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_one_name_twice_is_an_error(bank: Bank, tmp_path: Path) -> None:
    """Two words of one name cannot be in one model; the model that was there stays."""
    write_model(tmp_path / "a.onnx", bank, [a_word(bank, "computer", 0)])
    before = (tmp_path / "a.onnx").read_bytes()
    with pytest.raises(UsageError, match="'computer' twice"):
        tiny_kws.combine([tmp_path / "a.onnx", tmp_path / "a.onnx"], tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == before


@pytest.mark.parametrize("word", ["", "  ", "x", "unknown", "silence", "a,b", "../up", "?"])
def test_what_is_no_word_is_refused(word: str) -> None:
    """Nothing, one letter, the names of what is no word, and what would break names are refused."""
    with pytest.raises(UsageError, match="found the word"):
        check_word(word)


@pytest.mark.parametrize("word", ["computer", "hey computer", "lumière", "компьютер", "コンピューター"])
def test_any_script_is_a_word(word: str) -> None:
    """Words and phrases in any script."""
    assert check_word(word) == word
