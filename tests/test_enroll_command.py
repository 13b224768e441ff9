"""`tiny-kws enroll` as its user meets it: from recordings to a model that hears the word, and what may go wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
import soxr

import tiny_kws
from tiny_kws import UsageError
from tiny_kws.artefact.runtime import read_metadata
from tiny_kws.audio import read_mono
from tiny_kws.enrolment.bank import BANK, ENGLISH, read_bank
from tiny_kws.enrolment.enroll import Request, check_request
from tiny_kws.enrolment.predict import Alarms, Expected, Misses
from tiny_kws.enrolment.takes import find_takes, read_takes
from tiny_kws.enrolment.told import Told, told_line, told_of, told_table
from tiny_kws.json_form import to_json

from .helpers import run_cli, write_sound

pytestmark = [
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng, which speaks the words, is not installed"),
    pytest.mark.skipif(not BANK.exists(), reason="the bank of speech is not here"),
]

RATE = 16000
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en+f2", "en+f4", "en+m3", "en-us+f1", "en-us+m7")
STRANGER = "en-us+f3"
"""None of VOICES."""
WITH, WITHOUT = "I asked the old computer for the way", "I asked the old man for the way to the station"


def speak(text: str, voice: str, path: Path, pitch: int = 50) -> Path:
    """Have espeak-ng say a text into a WAV file, at its own 22.05 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["espeak-ng", "-v", voice, "-p", str(pitch), "-w", str(path), text], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders *computer* and *window*, each word by eight voices, and a sentence with the first and one without."""
    folder = tmp_path_factory.mktemp("spoken")
    for word in ("computer", "window"):
        for i, voice in enumerate(VOICES):
            speak(word, voice, folder / word / f"{i}.wav", 40 + 5 * i)
    speak(WITH, STRANGER, folder / "with.wav")
    speak(WITHOUT, STRANGER, folder / "without.wav")
    return folder


def said(*args: str | Path) -> str:
    """What `tiny-kws ARGS` prints; it must end well."""
    done = run_cli(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model(spoken: Path) -> Path:
    """`computer.onnx`, of all voices; not to be written to."""
    said("enroll", "computer", spoken / "computer", "--out", spoken / "computer.onnx")
    return spoken / "computer.onnx"


def heard(model: Path, recording: Path) -> list[str]:
    """The labels that `detect` finds in a recording."""
    return [json.loads(line)["label"] for line in said("detect", recording, "--model", model, "--json").splitlines()]


def takes(spoken: Path) -> list[npt.NDArray[np.float32]]:
    return [read_mono(path) for path in sorted((spoken / "computer").iterdir())]


# A model, from recordings to events


@pytest.mark.slow
def test_a_stranger_is_heard(spoken: Path, model: Path) -> None:
    """The word in a sentence of a voice that was not recorded is one event; a like sentence without it is none."""
    assert heard(model, spoken / "with.wav") == ["computer"]
    assert heard(model, spoken / "without.wav") == []


@pytest.mark.slow
@pytest.mark.parametrize("voice", ["en-us+f3", "en-gb+m2", "en-us+m4"])
def test_a_word_at_the_very_end_is_heard(voice: str, model: Path, tmp_path: Path) -> None:
    """A recording that stops where the word does, or 30 ms before, is heard like one that goes on."""
    audio = read_mono(speak("computer", voice, tmp_path / "said.wav"))
    (take,) = find_takes(np.pad(audio, RATE // 2), "said")
    for early in (0, 480):
        sf.write(tmp_path / "cut.wav", np.pad(audio, RATE // 2)[: take.stop - early], RATE)
        assert heard(model, tmp_path / "cut.wav") == ["computer"]


@pytest.mark.slow
def test_a_word_that_is_all_of_a_recording_is_heard(spoken: Path, model: Path) -> None:
    """With nothing before the word and nothing behind it, it is the event that it is amid 4 s of silence."""
    assert heard(model, alone(spoken)) == ["computer"]
    detector, audio = tiny_kws.Detector(model), read_mono(alone(spoken))
    (found,), amid = detector.detect(audio), list(detector.detect(np.pad(audio, 4 * RATE)))
    assert [event.confidence for event in amid] == pytest.approx([found.confidence], abs=1e-4)


def alone(spoken: Path) -> Path:
    """A recording that begins and ends with the word."""
    take = read_takes([speak("computer", STRANGER, spoken / "stranger.wav")]).takes[0]
    sf.write(spoken / "alone.wav", take.audio[take.start : take.stop], RATE)
    return spoken / "alone.wav"


@pytest.mark.slow
def test_the_report_as_json(spoken: Path, model: Path, tmp_path: Path) -> None:
    """--json tells takes, threshold, misses and false alarms at the rate asked for; again gives the same file."""
    again = tmp_path / "computer.onnx"
    report = json.loads(said("enroll", "computer", spoken / "computer", "--out", again, "--json"))
    assert (report["word"], report["takes"], report["spoken"], report["path"]) == ("computer", 8, 0, str(again))
    assert report["chosen"]["threshold"] == 0.5
    assert report["chosen"]["misses"]["takes"] == 8
    english = [report["chosen"]["alarms"][kind] for kind in ENGLISH]
    assert sum(one["count"] / one["hours"] for one in english) / len(english) <= 0.5
    assert report["chosen"] in report["expected"]
    assert again.read_bytes() == model.read_bytes()


@pytest.mark.slow
def test_words_come_together(spoken: Path, model: Path, tmp_path: Path) -> None:
    """--add and `combine` give a model that hears both words, each as it was heard before."""
    shutil.copy(model, tmp_path / "both.onnx")
    options = ["--negatives", spoken / "without.wav", "--false-alarms-per-hour", "2"]
    said("enroll", "window", spoken / "window", "--add", tmp_path / "both.onnx", *options)
    speak("I asked for the window", STRANGER, tmp_path / "window.wav")
    said("enroll", "window", spoken / "window", "--out", tmp_path / "window.onnx")
    printed = said("combine", model, tmp_path / "window.onnx", "--out", tmp_path / "joined.onnx")
    assert printed == f"{tmp_path / 'joined.onnx'} hears computer, window.\n"
    for name in ("both.onnx", "joined.onnx"):
        assert read_metadata(tmp_path / name).labels == ["unknown", "computer", "window"]
        assert heard(tmp_path / name, spoken / "with.wav") == ["computer"]
        assert heard(tmp_path / name, tmp_path / "window.wav") == ["window"]
    rows = said("info", tmp_path / "both.onnx").splitlines()
    assert [row.split()[2] for row in rows if row.startswith("expect for")] == ["computer", "window"]


@pytest.mark.slow
def test_one_file_holds_ten_takes(spoken: Path, tmp_path: Path) -> None:
    """Ten takes with pauses between, at 8 kHz and clipped, are ten; that they are clipped is said."""
    pause = np.zeros(RATE, np.float32)
    sound = np.concatenate([pause, *(part for take in (takes(spoken) * 2)[:10] for part in (20 * take, pause))])
    sf.write(tmp_path / "ten.wav", soxr.resample(sound, RATE, 8000).clip(-1, 1), 8000)
    out = said("enroll", "computer", tmp_path / "ten.wav", "--out", tmp_path / "computer.onnx")
    assert "computer: 10 takes" in out
    assert "10 of 10 takes are clipped" in out
    sf.write(tmp_path / "one.wav", np.concatenate([pause, takes(spoken)[0], pause]), RATE)
    assert heard(tmp_path / "computer.onnx", tmp_path / "one.wav") == ["computer"]


@pytest.mark.slow
def test_one_recording_is_told_nothing_of(spoken: Path, tmp_path: Path) -> None:
    """Of a single take misses are not known, and more are asked for; own sound of seconds has no rate an hour."""
    negatives = ["--negatives", spoken / "without.wav"]
    out = said("enroll", "computer", spoken / "computer" / "0.wav", "--out", tmp_path / "computer.onnx", *negatives)
    assert "computer: 1 take," in out
    assert out.count("not known") == 2 * 3
    assert "ten or more are better" in out
    assert "your own" not in out


@pytest.mark.slow
def test_another_word_among_the_recordings_is_named(spoken: Path, tmp_path: Path) -> None:
    """One *window* among *computer* is named; what is not used, a damaged file and a copy, is too."""
    folder = shutil.copytree(spoken / "computer", tmp_path / "mixed")
    shutil.copy(spoken / "window" / "0.wav", folder / "wrong.wav")
    shutil.copy(folder / "0.wav", folder / "copy.wav")
    (folder / "damaged.wav").write_bytes(b"RIFF and no more")
    done = run_cli("enroll", "computer", folder, folder / "1.wav", "--out", tmp_path / "computer.onnx")
    assert done.returncode == 0, done.stderr
    assert "computer: 9 takes" in done.stdout
    lines = [line.removeprefix("tiny-kws: ").split(": ")[:2] for line in done.stderr.splitlines()]
    assert [line[0] for line in lines] == ["copy.wav", "damaged.wav", "wrong.wav"]
    assert lines[2][1].startswith("does not sound like the others")


@pytest.mark.slow
def test_the_other_commands_take_the_model(spoken: Path, model: Path, tmp_path: Path) -> None:
    """`push` writes its card with what to expect and no Space; `calibrate` finds its examples."""
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    (tmp_path / "model").mkdir()
    shutil.copy(model, tmp_path / "model")
    options = ["--folder", tmp_path / "model", "--model", "computer", "--dry-run", tmp_path / "out"]
    done = run_cli("push", "me/computer", *options)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "not pushing a Space" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    use, limits, told = (
        card.split(f"## {title}\n")[1].split("\n## ")[0] for title in ("Use", "Limits", "What to expect")
    )
    assert "tiny-kws listen --model hf://me/computer" in use
    assert "Detector(" in use
    assert "classif" not in use
    assert "other people's voices" in limits
    assert "*computer*, from 8 takes:" in told
    assert "(used by the model) | " in told
    sf.write(tmp_path / "room.wav", np.random.default_rng(0).normal(0, 0.003, 60 * RATE), RATE)
    shutil.copytree(spoken / "computer", tmp_path / "examples" / "computer")
    sounds = ["--room", tmp_path / "room.wav", "--examples", tmp_path / "examples"]
    said("calibrate", *sounds, "--model", model, "--out", tmp_path / "room.json")
    settings = ["--config", tmp_path / "room.json", "--json"]
    assert '"computer"' in said("detect", spoken / "with.wav", "--model", model, *settings)


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_hears_the_word(spoken: Path, model: Path) -> None:
    """A page served with the model finds Python's events in a file that is dropped onto it."""
    web = pytest.importorskip("tests.test_web", reason="needs playwright to drive a browser")
    if web.CHROMIUM is None:
        pytest.skip("needs Chromium")
    said = spoken / "with at 16 kHz.wav"  # another rate is converted otherwise there, a little
    sf.write(said, read_mono(spoken / "with.wav"), RATE)
    with web.sync_api.sync_playwright() as playwright, web.serving([model]) as address:
        options = {"executable_path": web.CHROMIUM, "args": list(web.OPTIONS), "ignore_default_args": ["--headless"]}
        browser = playwright.chromium.launch(**options)
        with web.opened(browser, address) as page:
            assert page.get_attribute("html", "data-model") == "computer"
            for recording in (said, alone(spoken)):
                web.drop(page, recording)
                assert web.assert_found_as_python_finds(page, model, recording) == ["computer"]
        browser.close()


# What goes wrong: one line, and the model that was there stays


def refused(status: int, found: str, *args: str | Path, file_limit: int | None = None) -> None:
    """`tiny-kws enroll ARGS` must say `found` in one line and end with this status."""
    done = run_cli("enroll", *args, file_limit=file_limit)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done.stderr
    assert found in done.stderr


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The file that was there before, which the tests write to; alone in its folder."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "there.onnx").write_bytes(b"of before")
    return tmp_path / "models" / "there.onnx"


def is_as_before(there: Path) -> bool:
    return there.read_bytes() == b"of before" and list(there.parent.iterdir()) == [there]


@pytest.mark.parametrize(
    ("word", "found"),
    [("", "found the word ''"), ("x", "more than one letter"), ("unknown", "everything else"), ("a,b", "no commas")],
)
def test_a_word_that_is_none_is_refused(word: str, found: str, spoken: Path, there: Path) -> None:
    """Nothing, a letter, the name of what is no word, a comma."""
    refused(2, found, word, spoken / "computer", "--out", there)
    assert is_as_before(there)


def test_silence_is_refused(tmp_path: Path, there: Path) -> None:
    """Twenty recordings of silence hold no take."""
    for i in range(20):
        sf.write(tmp_path / f"{i:02}.wav", np.zeros(RATE), RATE)
    refused(2, "found no take of 'computer' (00.wav: has no word", "computer", tmp_path, "--out", there)
    assert is_as_before(there)


@pytest.mark.slow
def test_recordings_of_all_sorts_are_refused(tmp_path: Path, there: Path) -> None:
    """Where most recordings are of other words than the rest, nothing is made of them."""
    for i, word in enumerate(("computer", "window", "banana", "elephant", "saturday", "lemonade", "fire engine")):
        speak(word, VOICES[i], tmp_path / "all" / f"{word}.wav")
    refused(2, "do not sound like the others", "computer", tmp_path / "all", "--out", there)
    assert is_as_before(there)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "what"), [("house", "is a common word, said"), ("window", "is said"), ("xylophone", "")]
)
def test_a_word_that_is_often_said_is_told(word: str, what: str, spoken: Path, tmp_path: Path) -> None:
    """How often it is said stands in a note, and that it is common from three times an hour on."""
    per_hour = read_bank().words_per_hour.get(word, 0.0)
    printed = said("enroll", word, spoken / "window", "--out", tmp_path / "model.onnx")
    note = f"{word!r} {what} {per_hour:.1f} times per hour of speech, and the model will fire each time"
    assert (note in printed, "per hour of speech" in printed) == (bool(what), bool(what)), printed


def test_mp3s_cut_amid_a_frame_are_refused(tmp_path: Path, there: Path) -> None:
    """What the decoder prints by itself about them does not stand beside what is said of them."""
    for name in ("a", "b"):
        whole = tmp_path / f"{name}.mp3"
        sf.write(whole, np.zeros(2 * RATE), RATE)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3 + 11])
    done = run_cli("enroll", "computer", tmp_path / "a.mp3", tmp_path / "b.mp3", "--out", there)
    *warned, refusal = done.stderr.splitlines()
    assert ["cut short" in line for line in warned] == [True, True]
    assert "found no take of 'computer'" in refusal
    assert is_as_before(there)


def test_a_bank_that_cannot_be_used_is_named(spoken: Path, tmp_path: Path, there: Path) -> None:
    """One that is missing, cut short, or a folder."""
    (tmp_path / "cut.bank").write_bytes(BANK.read_bytes()[:1_000_000])
    for name in ("no.bank", "cut.bank", "models"):
        refused(1, f"{name}: ", "computer", spoken / "computer", "--bank", tmp_path / name, "--out", there)
    assert is_as_before(there)


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_model(spoken: Path, there: Path) -> None:
    """Where the model does not fit, there is one line, and what was there before is."""
    refused(1, "cannot be written", "computer", spoken / "computer", "--out", there, file_limit=100_000)
    assert is_as_before(there)


def test_what_is_no_file_is_not_written_over(spoken: Path, there: Path) -> None:
    """A folder and a device are refused, and stay."""
    refused(1, "is a folder", "computer", spoken / "computer", "--out", there.parent)
    if Path("/dev/null").is_char_device():
        refused(1, "is a device", "computer", spoken / "computer", "--out", "/dev/null")
        assert Path("/dev/null").is_char_device()
    assert is_as_before(there)


@pytest.mark.slow
def test_a_word_is_not_added_twice(spoken: Path, model: Path) -> None:
    """A label that the model has already is refused, and the model stays byte for byte."""
    before = model.read_bytes()
    refused(2, "already hears 'computer'", "computer", spoken / "computer", "--add", model)
    assert model.read_bytes() == before


def test_negatives_that_cannot_be_used_are_named(spoken: Path, tmp_path: Path, there: Path) -> None:
    """A missing file is refused before anything is learnt."""
    options = ["--negatives", tmp_path / "no.wav", "--out", there]
    refused(2, "no.wav: found no such file", "computer", spoken / "computer", *options)
    assert is_as_before(there)


@pytest.mark.slow
def test_sound_that_cannot_be_read_is_named_and_the_rest_learnt_from(spoken: Path, tmp_path: Path) -> None:
    """Of two negatives the damaged one is named; alone it is refused."""
    (tmp_path / "bad.wav").write_bytes(b"RIFF and no more")
    write_sound(tmp_path / "good.wav", 5.0)
    report = tiny_kws.enroll(
        "computer", spoken / "computer", tmp_path / "c.onnx", negatives=[tmp_path / "bad.wav", tmp_path / "good.wav"]
    )
    assert list(report.passed_over) == [str(tmp_path / "bad.wav")]
    with pytest.raises(UsageError, match=r"bad\.wav: cannot be learnt from"):
        tiny_kws.enroll("computer", spoken / "computer", tmp_path / "c.onnx", negatives=[tmp_path / "bad.wav"])


def test_a_request_is_looked_at_before_recordings(tmp_path: Path) -> None:
    """Word, rate, bank, place and model are checked without a recording; the word comes back as it is written."""
    request = check_request("  lights   out ", tmp_path / "m.onnx")
    assert isinstance(request, Request)
    assert (request.word, request.path, request.others) == ("lights out", tmp_path / "m.onnx", ())
    with pytest.raises(UsageError, match="false alarms per hour"):
        check_request("lights out", tmp_path / "m.onnx", 0)


# Takes by name


def test_a_recording_counts_once(spoken: Path, tmp_path: Path) -> None:
    """A file that is named twice, and a copy of it, is one take; two files of one name are told apart by folder."""
    folders = [tmp_path / name for name in ("anna", "bob")]
    for i, folder in enumerate(folders):
        folder.mkdir()
        shutil.copy(spoken / "computer" / f"{i}.wav", folder / "1.wav")
    shutil.copy(folders[0] / "1.wav", folders[0] / "copy.wav")
    found = read_takes([*folders, folders[1] / "1.wav", folders[0]])
    assert [take.name for take in found.takes] == [str(folder / "1.wav") for folder in folders]
    assert found.passed_over == {"copy.wav": f"is the same recording as {folders[0] / '1.wav'}"}


def test_takes_of_one_file_have_their_seconds(spoken: Path, tmp_path: Path) -> None:
    """Where a file holds several takes, each is called by the file and the second in which it begins."""
    pause = np.zeros(RATE, np.float32)
    both = np.concatenate([pause, takes(spoken)[0], pause, takes(spoken)[1], pause])
    sf.write(tmp_path / "two.wav", both, RATE)
    starts = [float(take.name.removeprefix("two.wav at ").removesuffix(" s")) for take in read_takes([tmp_path]).takes]
    second = (2 * RATE + len(takes(spoken)[0])) / RATE
    assert starts == pytest.approx([1.0, second], abs=0.2)


# What is told


def told(hours_of_ones_own: float) -> Told:
    alarms = {
        "adults": Alarms(5, 10.0, (0.16, 1.17)),
        "yours": Alarms(0, hours_of_ones_own, (0.0, 3.7 / hours_of_ones_own)),
    }
    points = [
        Expected(threshold, Misses(missed, 10, (0.0, 0.28)), None, alarms) for threshold, missed in ((0.3, 0), (0.5, 2))
    ]
    return Told("computer", 10, 0.5, tuple(points))


def test_what_is_told_comes_back_from_an_artefact() -> None:
    """A line tells the misses at the model's threshold and the false alarms; what cannot be read is left out."""
    facts = to_json(told(1.0))
    found = told_of([facts, {"word": "half"}, "nothing", {**facts, "expected": []}])
    assert found == [told(1.0)]
    wanted = (
        "10 takes; missed 2 of 10 (0 to 28 %), at 10 dB SNR not known; "
        "false alarms per hour: adults 0.5 (0.2 to 1.2), your own 0.0 (0.0 to 3.7)"
    )
    assert told_line(found[0]) == wanted


def test_seconds_of_sound_have_no_rate_an_hour() -> None:
    """Of 36 seconds of one's own no rate is told, neither in the line nor in the table."""
    short = told(0.01)
    assert "your own" not in told_line(short)
    assert told_table(short.expected, short.threshold).columns[3:] == ("adults (10.0 h)",)
    assert told_table(short.expected, short.threshold, voices=True).columns[1] == "voices missed"
