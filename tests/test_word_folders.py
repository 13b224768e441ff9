"""Any folder of word folders is prepared as it is, divided by who speaks; what cannot be is refused in a clear line."""

from __future__ import annotations

import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tiny_kws.data.material import holds_word, list_clips
from tiny_kws.data.prepare import MADE_NOISE, prepare
from tiny_kws.data.prepared import EXTRA, NO_SPAN, PreparedData, to_float
from tiny_kws.data.spans import find_word
from tiny_kws.data.word_folders import BY_CLIPS, BY_LISTS, BY_SPEAKERS, list_recordings, parse_words
from tiny_kws.errors import DataError, KwsError, UsageError
from tiny_kws.training_config import PrepareConfig
from tiny_kws.words import SILENCE, UNKNOWN

from .helpers import run_cli

WORDS = ("computer", "lumière", "灯")
OTHERS = ("banana", "window")
SPEAKERS = tuple(f"speaker{i}" for i in range(6))
RATE = 22050


def say(path: Path, pitch_hz: float, seconds: float = 1.0, seed: int = 0) -> None:
    """Write a burst of a tone in the middle of a clip, with a little noise around it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n = round(seconds * RATE)
    time_s = np.arange(n) / RATE
    burst = np.exp(-(((time_s - seconds / 2) / 0.12) ** 2)) * np.sin(2 * np.pi * pitch_hz * time_s)
    noise = np.random.default_rng(seed).normal(0, 0.001, n)
    sf.write(path, 0.3 * burst + noise, RATE)


def write_words(folder: Path, named: str = "{speaker}_nohash_{n}.wav") -> Path:
    """Folders of three words and two others, two clips of each by six speakers."""
    for i, word in enumerate((*WORDS, *OTHERS)):
        for j, speaker in enumerate(SPEAKERS):
            for n in range(2):
                say(
                    folder / word / named.format(speaker=speaker, n=n), 300 + 150 * i + 7 * j, seed=100 * i + 10 * j + n
                )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return write_words(tmp_path_factory.mktemp("words") / "mine")


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy, one's own to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "mine"))


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    out = tmp_path_factory.mktemp("prepared") / "mine"
    return prepare(folder, out, PrepareConfig(window_ms=1500), words=WORDS)


def refused(source: Path, out: Path, words: tuple[str, ...] = WORDS, window_ms: float = 1000.0) -> str:
    """What is said of a folder that cannot be prepared; nothing is left of it."""
    with pytest.raises(KwsError) as raised:
        prepare(source, out, PrepareConfig(window_ms=window_ms), words=words)
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
    assert "\n" not in str(raised.value)
    return str(raised.value)


def speakers_of(data: PreparedData, *splits: str) -> set[str]:
    return {clip.speaker for clip in data.clips if clip.split in splits and clip.speaker}


def test_every_word_is_trained_and_validated(prepared: PreparedData) -> None:
    """Labels are the words in their order, whatever their script, and each has clips in training and in validation."""
    assert prepared.vocabulary.labels == (SILENCE, UNKNOWN, *WORDS)
    for split in ("training", "validation"):
        labels = {prepared.clips[row].label for row in prepared.rows(split)}
        assert labels == set(prepared.vocabulary.labels)


def test_no_speaker_is_on_two_sides(prepared: PreparedData) -> None:
    """Clips are split by speaker, other words' too."""
    assert prepared.manifest.division == BY_SPEAKERS
    training, validation, testing = (
        speakers_of(prepared, *splits) for splits in (("training", EXTRA), ("validation",), ("testing",))
    )
    assert not training & validation
    assert not (training | validation) & testing
    assert training | validation | testing == set(SPEAKERS)


def test_rows_are_as_long_as_the_window(prepared: PreparedData) -> None:
    """The bank's rows have the length asked for, which is what the window is."""
    assert prepared.window == prepared.bank.shape[1] == prepared.manifest.window == 24_000


def test_spans_are_where_the_words_are(prepared: PreparedData) -> None:
    """Where a word lies in each row is kept: what `find_word` says of it, and nothing where none is said."""
    for clip, row, span in zip(prepared.clips, prepared.bank, prepared.spans.tolist(), strict=True):
        expected = NO_SPAN if clip.label == SILENCE else find_word(to_float(row)) or NO_SPAN
        assert tuple(span) == expected
    assert sum(span[0] >= 0 for span in prepared.spans.tolist()) > len(WORDS) * len(SPEAKERS)


def test_other_folders_are_unknown_and_said_so(prepared: PreparedData) -> None:
    """Folders that are not among the words are heard as unknown, and named with what would take them."""
    unknown = {clip.word for clip in prepared.clips if clip.label == UNKNOWN}
    assert unknown == set(OTHERS)
    told = "not among the words, so labelled unknown; to hear it as a word"
    line = f"banana/: 12 clips, {told}: --words {','.join(WORDS)},banana"
    assert line in prepared.manifest.notes


def test_without_other_words_they_are_made(folder: Path, tmp_path: Path) -> None:
    """Where every folder is a word, unknown is the words backwards, which is said."""
    data = prepare(folder, tmp_path / "out", words=(*WORDS, *OTHERS))
    backwards = [i for i, clip in enumerate(data.clips) if clip.label == UNKNOWN]
    assert {data.clips[i].split for i in backwards} >= {"training", "validation", EXTRA}
    row = next(i for i in backwards if data.clips[i].split == EXTRA)
    file = data.clips[row].file.removesuffix("#backwards")
    forwards = next(i for i, clip in enumerate(data.clips) if clip.file == file)
    np.testing.assert_array_equal(data.bank[row], data.bank[forwards][::-1])
    assert any("played backwards" in note for note in data.manifest.notes)


def test_silence_is_made_up_where_there_is_no_noise(prepared: PreparedData) -> None:
    """Without a folder of noise, silence is made-up noise, which is said."""
    silent = [clip for clip in prepared.clips if clip.label == SILENCE]
    assert silent
    assert all(MADE_NOISE in clip.file for clip in silent)
    assert any("synthetic noise" in note for note in prepared.manifest.notes)


def test_the_same_folder_is_divided_alike(folder: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """Prepared again, every file is the same bit for bit."""
    again = prepare(folder, tmp_path / "out", PrepareConfig(window_ms=1500), words=WORDS)
    for path in sorted(prepared.folder.iterdir()):
        assert (again.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_table_tells_who_speaks(tmp_path: Path) -> None:
    """Where names tell nothing, a table of speakers divides the clips; without it they are divided one by one."""
    folder = write_words(tmp_path / "mine", "take {speaker} {n}.wav")
    assert list_recordings(folder, WORDS).division == BY_CLIPS
    lines = [
        f"{word}/take {speaker} {n}.wav,{speaker}\n"
        for word in (*WORDS, *OTHERS)
        for speaker in SPEAKERS
        for n in range(2)
    ]
    (tmp_path / "who.csv").write_text("file,speaker\n" + "".join(lines), encoding="utf-8")
    recordings = list_recordings(folder, WORDS, tmp_path / "who.csv")
    assert recordings.division == BY_SPEAKERS
    found = [{clip.speaker for clip in clips} for clips in recordings.splits.values()]
    assert sum(map(len, found)) == len(set().union(*found)) == len(SPEAKERS)
    (tmp_path / "who.csv").rename(folder / "speakers.csv")
    assert list_recordings(folder, WORDS) == recordings


def test_a_table_that_tells_nothing(folder: Path, tmp_path: Path) -> None:
    """A table without the columns, or none at all, is refused."""
    (tmp_path / "who.csv").write_text("path,voice\n")
    for table in (tmp_path / "who.csv", tmp_path / "none.csv"):
        with pytest.raises(DataError, match="columns file and speaker"):
            list_recordings(folder, WORDS, table)


def test_lists_divide_where_they_lie(own: Path) -> None:
    """The lists of the Speech Commands layout are followed; what they do not name is for training."""
    for split, speaker in (("validation", SPEAKERS[0]), ("testing", SPEAKERS[1])):
        files = [path.relative_to(own).as_posix() for path in sorted(own.rglob(f"{speaker}_*"))]
        (own / f"{split}_list.txt").write_text("\n".join(files), encoding="utf-8")
    recordings = list_recordings(own, WORDS)
    assert recordings.division == BY_LISTS
    assert {clip.speaker for clip in recordings.splits["validation"]} == {SPEAKERS[0]}
    assert {clip.speaker for clip in recordings.splits["training"]} == set(SPEAKERS[2:])


def test_a_long_clip_is_cut_around_its_word(own: Path, tmp_path: Path) -> None:
    """Of a clip of ten minutes the window in which the word is said is taken."""
    path = own / "computer" / f"{SPEAKERS[2]}_nohash_0.wav"
    say(path, 440, seconds=4.0)
    data = prepare(own, tmp_path / "out", words=WORDS)
    row = next(i for i, clip in enumerate(data.clips) if clip.file == f"computer/{path.name}")
    begin, end = data.spans[row]
    assert 0 < begin < 8000 < end < 16_000


def test_names_are_compared_composed(own: Path, tmp_path: Path) -> None:
    """A folder whose name is decomposed, as macOS writes it, is found by the composed word, and the other way round."""
    (own / "lumière").rename(own / unicodedata.normalize("NFD", "lumière"))
    data = prepare(own, tmp_path / "out", words=parse_words(unicodedata.normalize("NFD", "lumière")))
    assert data.vocabulary.words == (unicodedata.normalize("NFC", "lumière"),)


def test_the_same_clip_twice_is_used_once(own: Path, tmp_path: Path) -> None:
    """A clip that holds the same bytes as another of its word is left out, which is said."""
    first = own / "computer" / f"{SPEAKERS[0]}_nohash_0.wav"
    shutil.copy(first, own / "computer" / f"{SPEAKERS[0]}_nohash_7.wav")
    data = prepare(own, tmp_path / "out", words=WORDS)
    assert sum(clip.label == "computer" for clip in data.clips) == 2 * len(SPEAKERS)
    assert "computer/: 1 of 13 clips are copies of another, and are left out" in data.manifest.notes


def test_a_folder_that_is_empty_or_holds_one_clip(own: Path, tmp_path: Path) -> None:
    """A word without clips, or with one, is refused, and what is needed is said."""
    (own / "empty").mkdir()
    say(own / "single" / "one.wav", 500)
    for word, found in (("empty", "holds no clips"), ("single", "holds 1 clip,")):
        message = refused(own, tmp_path / "out", ("computer", word))
        assert f"{own / word}: {found}" in message
        assert "expected two or more" in message


def test_a_word_by_one_speaker(own: Path, tmp_path: Path) -> None:
    """A word that one speaker alone says cannot be both trained and validated."""
    for n in range(3):
        say(own / "alone" / f"anna_nohash_{n}.wav", 500, seed=n)
    assert "all clips of alone are by one speaker" in refused(own, tmp_path / "out", ("computer", "alone"))


def test_a_word_without_a_folder(folder: Path, tmp_path: Path) -> None:
    """A word that is not there is refused, and those that are there are named."""
    message = refused(folder, tmp_path / "out", ("computer", "lights"))
    assert "found no folder lights/" in message
    assert "banana, computer" in message


@pytest.mark.parametrize("words", ["silence", "Unknown", "stop,Stop", "café,cafe\u0301", ",", "_noise", "a/b"])
def test_words_that_cannot_be(words: str) -> None:
    """Labels that mean something else, twins in case or Unicode form, and what names no folder are wrong use."""
    with pytest.raises(UsageError):
        parse_words(words)


def test_folders_that_are_one_word(own: Path, tmp_path: Path) -> None:
    """Two folders whose names differ in case alone are refused."""
    say(own / "Computer" / "x_nohash_0.wav", 500)
    if len(list(own.iterdir())) == len((*WORDS, *OTHERS)):
        pytest.skip("this file system does not tell case apart")
    assert "differ only in case or form" in refused(own, tmp_path / "out")


def test_one_word_and_two_hundred(tmp_path: Path) -> None:
    """One word alone, and two hundred of them, are prepared like three."""
    words = [f"word{i}" for i in range(200)]
    for i, word in enumerate(words):
        for n in range(2):
            say(tmp_path / "many" / word / f"speaker{n}_nohash_0.wav", 200 + 20 * i, 0.5, seed=2 * i + n)
    for chosen in (words[:1], words):
        data = prepare(tmp_path / "many", tmp_path / f"out{len(chosen)}", words=chosen)
        assert data.vocabulary.words == tuple(chosen)
        for split in ("training", "validation"):
            assert {data.clips[i].label for i in data.rows(split)} >= set(chosen)


def test_clips_too_short_or_damaged_are_left_out(own: Path, tmp_path: Path) -> None:
    """A clip of ten milliseconds, or one that is no sound, is left out with a line; the others are used."""
    short, broken = (own / "computer" / f"{SPEAKERS[i]}_nohash_0.wav" for i in range(2))
    sf.write(short, np.full(RATE // 100, 0.1), RATE)
    broken.write_bytes(b"no sound")
    data = prepare(own, tmp_path / "out", words=WORDS)
    assert len(data.manifest.unreadable) == 2
    assert any("lasts 10 ms, expected a clip of a word" in line for line in data.manifest.unreadable)
    assert sum(clip.label == "computer" for clip in data.clips) == 2 * len(SPEAKERS) - 2


def test_a_word_whose_clips_are_all_damaged(own: Path, tmp_path: Path) -> None:
    """A word of which nothing can be read is an error that names it, and nothing is written."""
    for path in (own / "computer").iterdir():
        path.write_bytes(f"no sound {path.name}".encode())
    message = refused(own, tmp_path / "out")
    assert f"{own / 'computer'}: none of its clips for training can be read" in message


@pytest.mark.parametrize("window_ms", [0, 499, 510, 2020, float("nan")])
def test_windows_that_cannot_be(folder: Path, tmp_path: Path, window_ms: float) -> None:
    """A window out of range, or that is no whole step of 20 ms, is wrong use."""
    assert "expected 500 to 2000 in steps of 20" in refused(folder, tmp_path / "out", window_ms=window_ms)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A missing folder is refused."""
    assert "not found" in refused(tmp_path / "none", tmp_path / "out")


def test_words_must_be_named(folder: Path, tmp_path: Path) -> None:
    """A folder of other words, without --words, is refused with what to type; one of none with what is expected."""
    done = run_cli("data", "prepare", folder, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "name those to hear: --words banana,computer" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_made_of_the_folder(folder: Path, tmp_path: Path) -> None:
    """`data prepare --words` tells splits, how they were divided, what is not used as a word, and what to do next."""
    done = run_cli("data", "prepare", folder, "--words", "computer,灯", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "split by speaker" in done.stdout
    assert "lumière/: 12 clips, not among the words" in done.stdout
    assert f"Next: tiny-kws train {tmp_path / 'out'} --model base" in done.stdout


# Splits that all commands share


def test_a_clip_is_in_the_same_split_whatever_words_are_asked_for(folder: Path, tmp_path: Path) -> None:
    """Which words are asked for moves no speaker, so that no model is measured on what another trained on."""
    split_of: list[dict[str, str]] = [{}, {}]
    for found, words in zip(split_of, (WORDS[:1], WORDS), strict=True):
        data = prepare(folder, tmp_path / f"of {len(words)}", words=words)
        found.update({clip.file: clip.split for clip in data.clips if clip.label == WORDS[0]})
    assert split_of[0] == split_of[1]


@pytest.mark.parametrize("speakers", [2, 3, 4])
def test_clips_for_streams_are_split_as_prepared_data_is(tmp_path: Path, speakers: int) -> None:
    """`make-stream` draws from the very split that `data prepare` made, also where speakers had to move."""
    for i in range(12):
        for n in range(speakers):
            say(tmp_path / "mine" / f"word{i}" / f"w{i}s{n}_nohash_0.wav", 300, seed=10 * i + n)
    words = [f"word{i}" for i in range(11)]
    data = prepare(tmp_path / "mine", tmp_path / "out", words=words)
    for split in ("training", "validation"):
        drawn = {clip.file for clip in data.clips if clip.split == split and clip.label in words}
        assert {clip.name for clip in list_clips(tmp_path / "mine", split) if clip.text in words} == drawn
        assert {word_of_file.partition("/")[0] for word_of_file in drawn} == set(words)


def test_speakers_of_several_words_move_together(tmp_path: Path) -> None:
    """Speakers who share words are moved so that no word loses its only other speaker, and nobody is on two sides."""
    for word, who in {"a": "xy", "b": "yz", "c": "xyz", "d": "zw", "e": "wx"}.items():
        for i, name in enumerate(who):
            say(tmp_path / word / f"{name}_nohash_0.wav", 300, seed=7 * ord(word) + i)
    splits = list_recordings(tmp_path, "abcde").splits
    for split in ("training", "validation"):
        assert {clip.word for clip in splits[split]} == set("abcde")
    heard = [{clip.speaker for clip in clips} for clips in splits.values()]
    assert sum(map(len, heard)) == len(set.union(*heard)) == 4


def test_clips_by_nobody_known_are_groups_of_their_own(tmp_path: Path) -> None:
    """Where nothing tells who speaks, two clips of one name are not taken for one speaker's."""
    for word in ("свет", "стоп"):
        say(tmp_path / word / "1.wav", 300)
    assert [(clip.text, clip.group) for clip in list_clips(tmp_path, "all")] == [
        ("свет", "свет/1.wav"),
        ("стоп", "стоп/1.wav"),
    ]


def test_the_same_clip_under_two_words(own: Path, tmp_path: Path) -> None:
    """A recording that lies under two words is refused, as one of them is wrong."""
    shutil.copy(own / "computer" / f"{SPEAKERS[0]}_nohash_0.wav", own / "banana" / f"{SPEAKERS[0]}_nohash_7.wav")
    assert "are the same recording under two words; remove one of them" in refused(own, tmp_path / "out")


def test_a_folder_of_silence_is_no_word(own: Path, tmp_path: Path) -> None:
    """A folder called silence is not taken for other words, and is named."""
    say(own / "silence" / "x_nohash_0.wav", 300)
    data = prepare(own, tmp_path / "out", words=WORDS)
    assert "silence" not in {clip.word for clip in data.clips}
    assert any(note.startswith("silence/: not used") for note in data.manifest.notes)


def test_unknown_and_silence_are_as_many_as_a_word(prepared: PreparedData) -> None:
    """However few the words, training has about as many clips of silence and of unknown as of a word on average."""
    counts = Counter(prepared.clips[row].label for row in prepared.rows("training"))
    mean = sum(counts[word] for word in WORDS) / len(WORDS)
    assert counts[UNKNOWN] == counts[SILENCE] == round(mean)


# Sources and credit


def test_what_lies_beside_is_no_source_by_its_name_alone(tmp_path: Path) -> None:
    """A folder of words that is called `words`, and one called `noise` beside it, are no sources of the package.

    If there is something in it, it is told that it is not used; an empty folder is not worth a line.
    """
    write_words(tmp_path / "words")
    (tmp_path / "rooms").mkdir()
    say(tmp_path / "noise" / "street.wav", 300)
    data = prepare(tmp_path / "words", tmp_path / "out", words=WORDS)
    assert [bill.name for bill in data.manifest.sources] == ["words"]
    told = [note for note in data.manifest.notes if "manifest.csv" in note]
    assert [note.partition(":")[0] for note in told] == [f"{tmp_path / 'noise'}/"]
    assert "has no manifest.csv, so not used; if it is to be trained on, list its files and licences there" in told[0]


def test_other_words_of_speech_commands(speech_commands: Path, tmp_path: Path) -> None:
    """Words may be asked of Speech Commands: its lists divide them, and it is credited under its licence."""
    data = prepare(speech_commands.parent, tmp_path / "out", words=["bed", "cat"])
    assert "Speech Commands" in data.manifest.source
    assert data.manifest.licence == "CC BY 4.0"
    listed = (speech_commands / "validation_list.txt").read_text().split()
    validated = {clip.file for clip in data.clips if clip.split == "validation" and clip.label in ("bed", "cat")}
    assert validated == {file for file in listed if file.startswith(("bed/", "cat/"))}
    assert "yes" in {clip.word for clip in data.clips if clip.label == UNKNOWN}


@pytest.mark.parametrize(
    ("text", "word", "held"),
    [
        ("Hey, Computer!", "hey computer", True),
        ("hey there computer", "hey computer", False),
        ("Включи свет", "свет", True),
        ("打开电视机", "电视", True),
        ("Ein Cafe\u0301, bitte", "café", True),
        ("Включи радио", "свет", False),
    ],
)
def test_transcripts_in_any_script(text: str, word: str, held: bool) -> None:
    """A phrase, or a word in any script, is found in a transcript that holds it."""
    assert holds_word(text, [word]) is held
