# ruff: noqa: RUF001 (phonetic letters are what they look like)
"""Words by synthetic voices: the voices, programs that speak, how words sound, advice, and `enroll --say`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny_kws import AudioError, Detector, UsageError, enroll
from tiny_kws.audio import _warn_of_low_rate
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.enrolment import voices as voices_module
from tiny_kws.enrolment.bank import BANK
from tiny_kws.enrolment.say import Say, speakers, spoken
from tiny_kws.enrolment.voices import Voice, of_command, voices

from .helpers import run_cli

pytest.importorskip("hibari", reason="hibari-tts, which comes with the extra 'say', is not installed")
pytest.importorskip("py_nanotts", reason="py-nanotts, which comes with the extra 'say', is not installed")

from tiny_kws.enrolment.sounds import bare, lexicon, n_syllables, nearest, sounds_of

TONE_FROM_STDOUT = "sf.write(sys.stdout.buffer, tone, 8000, format='WAV')"
TONE = (0.3 * np.sin(2 * np.pi * 300 * np.arange(8000) / 16000)).astype(np.float32)


def program(tmp_path: Path, code: str) -> str:
    """The command of a program that runs `code`, which knows `tone`, half a second at 8 kHz, and it as `wav`."""
    path = tmp_path / "speaker.py"
    path.write_text(
        "import io, os, subprocess, sys, time\nimport numpy as np, soundfile as sf\n"
        "tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(4000) / 8000)\n"
        "sf.write(whole := io.BytesIO(), tone, 8000, format='WAV')\nwav = whole.getvalue()\n" + code
    )
    return f"{sys.executable} {path}"


# Voices


@pytest.mark.parametrize("voice", voices(), ids=lambda voice: voice.name)
def test_a_voice_says_a_word(voice: Voice) -> None:
    """At the pace that is asked for, loud, at 16 kHz; the same draws are the same sound but for faint noise."""
    usual, fast = voice.speak("computer", 1.0), voice.speak("computer", 1.25)
    assert 0.4 < len(usual) / SAMPLE_RATE < 1.6
    assert len(fast) < 0.92 * len(usual)
    assert 0.05 < np.abs(usual).max() <= 1.0
    once, again, other = (voice.say("computer", np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert once == pytest.approx(again, abs=0.005)
    assert len(once) != len(other)


def test_a_language_has_its_voices() -> None:
    """Spanish is said by a Spanish voice; a language without one is refused, and those that there are named."""
    assert [voice.name for voice in voices("es")] == ["pico es-ES"]
    with pytest.raises(UsageError, match="found the language 'tlh', expected one of en, de"):
        voices("tlh")


@pytest.mark.parametrize(
    "code",
    ["sf.write(sys.argv[1], tone, 8000)", "sf.write(sys.stdout.buffer, tone, 8000, format='WAV')"],
    ids=["into a file", "on standard output"],
)
def test_a_program_speaks(code: str, tmp_path: Path) -> None:
    """What it writes at 8 kHz is heard at 16, half a second long, whether into {out} or on standard output."""
    command = program(tmp_path, code) + (" {out}" if "argv" in code else "")
    sound = of_command(command).speak("computer", 1.0)
    assert len(sound) == pytest.approx(8000, abs=2)
    assert np.abs(np.fft.rfft(sound)[:8000]).argmax() * SAMPLE_RATE / len(sound) == pytest.approx(300, abs=5)


@pytest.mark.parametrize("placed", [True, False], ids=["as an argument", "on standard input"])
def test_a_program_is_told_the_text(placed: bool, tmp_path: Path) -> None:
    """{text} is one argument whatever is in it; without {text} it comes on standard input."""
    text = "it's; rm -rf $HOME"
    code = f"said = sys.argv[2] if {placed} else sys.stdin.readline().rstrip()\nassert said == {text!r}, said\n"
    command = program(tmp_path, code + "sf.write(sys.argv[1], tone, 8000)") + " {out}" + (" {text}" if placed else "")
    assert len(of_command(command).speak(text, 1.0)) > 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("time.sleep(60)", "asked to say 'computer', it did not end within 5 s"),
        ("subprocess.run(['sleep', '60'])", "did not end within 5 s"),
        ("print('no voice for you', file=sys.stderr); sys.exit(3)", "status 3: no voice for you"),
        ("print('garbage')", "it wrote what cannot be used: found no sound in it .*, expected a WAV.*try it in"),
        ("while True: sys.stdout.write('garbage' * 1000)", "it wrote more than 1 MB"),
        ("pass", "it wrote no sound, neither into {out} nor on its standard output"),
        ("open(sys.argv[1], 'w')", "it wrote no sound"),
        ("os.mkdir(sys.argv[1])", "it wrote no sound"),
        ("open(sys.argv[1], 'wb').write(wav[:3000])", "it wrote less sound than its WAV header promises"),
        ("open(sys.argv[1], 'wb').write(wav[:44])", "cannot be used: holds no samples"),
        ("sf.write(sys.stdout.buffer, np.zeros(8000 * 20), 8000, format='WAV')", "in 20 s, expected 12"),
    ],
    ids=[
        "hangs",
        "waits for another that hangs",
        "fails",
        "prints garbage",
        "prints garbage without end",
        "says nothing",
        "writes an empty file",
        "writes a folder",
        "writes half a file",
        "writes a header alone",
        "never stops",
    ],
)
def test_a_program_that_does_not_speak(code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that names it and says what it did; the voices beside it are used all the same."""
    monkeypatch.setattr(voices_module, "TIMEOUT_S", 5 if "60" in code else 60)
    monkeypatch.setattr(voices_module, "MOST_BYTES", 1_000_000)
    command = f"{program(tmp_path, code)} {{out}}"
    with pytest.raises(AudioError, match=reason):
        of_command(command).speak("computer", 1.0)
    takes, failed = spoken("computer", Say(commands=(command,), takes=24), np.random.default_rng(0))
    assert list(failed) == [Path(sys.executable).name]
    assert len({take.name for take in takes}) == len(voices())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no groups of processes")
def test_what_a_hanging_program_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is ended after a second, and so is the program in it that hangs."""
    monkeypatch.setattr(voices_module, "TIMEOUT_S", 5)
    code = "child = subprocess.Popen(['sleep', '60'])\nopen(sys.argv[2], 'w').write(str(child.pid))\nchild.wait()"
    with pytest.raises(AudioError, match="did not end"):
        of_command(f"{program(tmp_path, code)} {{out}} {tmp_path / 'pid'} {{text}}").speak("computer", 1.0)
    assert not is_running(int((tmp_path / "pid").read_text()))


def is_running(pid: int) -> bool:
    """Whether a process runs, and does not merely wait to be counted."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_a_program_does_not_wait_for_the_keyboard(tmp_path: Path) -> None:
    """One that is given the text and reads on finds its standard input at an end."""
    command = program(tmp_path, "assert sys.stdin.read() == ''\nsf.write(sys.argv[1], tone, 8000)")
    assert len(of_command(f"{command} {{out}} {{text}}").speak("computer", 1.0)) == pytest.approx(8000, abs=2)


def test_stereo_is_one_voice(tmp_path: Path) -> None:
    """Two channels are mixed down, and cancel nothing where one is the other inverted."""
    command = program(tmp_path, "sf.write(sys.argv[1], np.stack([tone, -tone], 1), 8000)")
    assert np.abs(of_command(f"{command} {{out}}").speak("computer", 1.0)).max() == pytest.approx(0.3, abs=0.01)


def test_a_narrow_voice_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sound at 8 kHz is used, and there is a line about it."""
    _warn_of_low_rate.cache_clear()
    assert len(of_command(program(tmp_path, TONE_FROM_STDOUT)).speak("computer", 1.0)) > 0
    assert "recorded at under 11000 Hz" in caplog.text


@pytest.mark.parametrize("command", ["", "no-such-program-here {out}", "'unclosed"])
def test_a_command_that_is_none(command: str) -> None:
    """An empty command, a program that is not there and an open quote are refused before anything is said."""
    with pytest.raises(UsageError, match="found the voice command"):
        of_command(command)


# Takes


def test_every_voice_says_every_spelling() -> None:
    """Takes come from all voices in turn, of all spellings, with silence around the word."""
    said: list[str] = []

    def speak(text: str, pace: float) -> np.ndarray:
        said.append(text)
        return TONE

    every = [Voice(name, speak) for name in ("one", "two")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tiny_kws.enrolment.say.speakers", lambda *_: every)
        takes, failed = spoken("x", Say(("tomayto", "tomahto"), takes=8), np.random.default_rng(0))
    assert [take.name for take in takes] == ["one", "two"] * 4
    assert said == ["tomayto", "tomayto", "tomahto", "tomahto"] * 2
    assert not failed
    assert all(take.start > 3000 and take.stop < len(take.audio) - 3000 for take in takes)


@pytest.mark.parametrize(
    ("word", "say", "reason"),
    [
        ("привет", Say(), "found 'п' in 'привет', which the voices cannot read, expected Latin letters"),
        ("hola 你好 привет", Say(), "found '你'"),
        ("hey компьютер", Say(), "found 'к' in 'hey компьютер'"),
        ("٣٤", Say(), "found '٣' in '٣٤'.*expected Latin letters and digits"),
        ("10⁴", Say(), "found '⁴'"),
        ("hey", Say(("",)), "found '' to say, expected words"),
        ("hey", Say((" ! ",)), "found ' ! ' to say, expected words"),
        ("hey", Say(("привет",)), "found 'п' in 'привет'.*--voice-command"),
        ("computer " * 100, Say(), "found a text of 900 characters to say, expected 80 at most"),
        ("hey", Say(language="xx", commands=("true",)), "found the language 'xx'"),
        ("hey", Say(language="xx"), "found the language 'xx'"),
    ],
)
def test_what_no_voice_can_say(word: str, say: Say, reason: str) -> None:
    """Another script, three languages mixed, an empty spelling, a language without voices: refused in a sentence."""
    with pytest.raises(UsageError, match=reason):
        spoken(word, say, np.random.default_rng(0))


def test_a_foreign_word_is_said_as_it_sounds() -> None:
    """With a spelling that voices can read, a word in any script is said."""
    takes, _ = spoken("привет", Say(("preevyet",), takes=7), np.random.default_rng(0))
    assert len(takes) == 7


def test_programs_alone_say_what_only_they_can_read(tmp_path: Path) -> None:
    """Another script is given to programs as it is, one name for each of them, and not to the packages' voices."""
    command = program(tmp_path, f"assert sys.argv[1] == 'привет'\n{TONE_FROM_STDOUT}")
    say = Say(commands=(f"{command} {{text}}", f"{command} {{text}} 2", f"{command} {{text}}"), takes=4)
    takes, failed = spoken("привет", say, np.random.default_rng(0))
    name = Path(sys.executable).name
    assert ([take.name for take in takes], failed) == ([name, f"{name} 2"] * 2, {})
    with pytest.raises(UsageError, match="found 'п'"):
        sounds_of("привет")


def said_as(sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds of the take of a voice that says a text as `sound`."""
    monkeypatch.setattr("tiny_kws.enrolment.say.speakers", lambda *_: [Voice("one", lambda *_: sound)])
    monkeypatch.setattr(voices_module, "PITCHES", (1.0, 1.0))
    (take,), _ = spoken("x y", Say(takes=1), np.random.default_rng(0))
    return take.seconds


@pytest.mark.parametrize("parts", [[0.5], [2.0], [0.5, 2.0], [2.0, 0.5]])
def test_a_phrase_counts_as_a_whole(parts: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said without a pause, however long, is part of the take, and so is what comes after a pause of 0.3 s."""
    sounds = [np.pad(np.resize(TONE, round(part * SAMPLE_RATE)), (0, 4800)) for part in parts]
    seconds = sum(parts) + 0.3 * (len(parts) - 1)
    assert said_as(np.concatenate(sounds), monkeypatch) == pytest.approx(seconds, abs=0.1)


def test_a_phrase_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three and a half seconds are told, with the length that may be."""
    with pytest.raises(UsageError, match=r"no voice says 'x y': one: takes 3\.\d s, expected 3 s at most"):
        said_as(np.resize(TONE, round(3.5 * SAMPLE_RATE)), monkeypatch)


def test_own_voices_do_without_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no package is installed a program's voice is enough; with neither, how to install them is said."""
    for name in ("_pico", "_flite"):
        monkeypatch.setattr(voices_module, name, lambda language="en": [])
    monkeypatch.setattr(voices_module, "_hibari", list)
    command = program(tmp_path, "sf.write(sys.stdout.buffer, tone, 8000, format='WAV')")
    assert [voice.name for voice in speakers(Say(commands=(command,)))] == [Path(sys.executable).name]
    with pytest.raises(UsageError, match=r"expected one; install it with pip install 'tiny-kws\[say\]'"):
        speakers(Say())


# How words sound


def test_words_that_sound_alike() -> None:
    """*commuter* is among the nearest to *computer*, which is nearest to itself, however its t is said."""
    near = nearest(sounds_of("computer"), lexicon(), 8)
    assert near[0] == ("computer", 0.0)
    assert "commuter" in dict(near)
    assert n_syllables(sounds_of("hey computer")) == 4
    assert bare(sounds_of("Lumos")) == "lumOz"


# From a typed word to a model


needs_bank = pytest.mark.skipif(not BANK.exists(), reason="the bank of speech is not here")


@needs_bank
@pytest.mark.slow
def test_a_typed_word_is_heard(tmp_path: Path) -> None:
    """Said by a voice that the model was not made from, the word is heard once; other words are not, nor a sentence."""
    others = [voice for voice in voices() if voice.name != "pico en-GB"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tiny_kws.enrolment.say.speakers", lambda *_: others)
        report = enroll("computer", (), tmp_path / "computer.onnx", say=True)
    assert (report.takes, report.spoken) == (0, 140)
    assert any("synthetic voices" in note for note in report.notes)
    stranger = next(voice for voice in voices() if voice.name == "pico en-GB")
    detector = Detector(tmp_path / "computer.onnx")
    found = {
        text: [event.label for event in detector.detect(np.pad(stranger.speak(text, 1.0), SAMPLE_RATE // 2))]
        for text in ("computer", "window", "the weather in the morning")
    }
    assert found == {"computer": ["computer"], "window": [], "the weather in the morning": []}


@needs_bank
@pytest.mark.slow
def test_say_at_the_command_line(tmp_path: Path) -> None:
    """--say shows how the word is read and who says it; the report says what it was made of."""
    done = run_cli("enroll", "lumos", "--say", "--sounds-like", "loomoss", "--out", tmp_path / "lumos.onnx")
    assert done.returncode == 0, done.stderr
    assert f"read loomoss as {sounds_of('loomoss')}" in done.stderr
    assert "said by pico en-GB, pico en-US, hibari heart" in done.stderr
    assert "lumos: 140 takes by synthetic voices" in done.stdout
    assert "Nearest to it in speech: " in done.stdout


@pytest.mark.parametrize("option", [("--sounds-like", "x"), ("--voice", "es"), ("--voice-command", "true")])
def test_options_of_say_alone(option: tuple[str, str], tmp_path: Path) -> None:
    """What says how to speak is refused where nothing is to be spoken."""
    done = run_cli("enroll", "lumos", tmp_path, *option)
    assert done.returncode != 0
    assert "without --say" in done.stderr


@needs_bank
@pytest.mark.slow
def test_advice(tmp_path: Path) -> None:
    """Of two candidates the longer one stands first; the short one is told to be short and how often it is said."""
    done = run_cli("advise", "up", "hey computer", "--json")
    assert done.returncode == 0, done.stderr
    best, other = json.loads(done.stdout)
    assert (best["word"], best["syllables"], best["sounds"]) == ("hey computer", 4, "hˈA kəmpjˈuTəɹ")
    assert other["alarms"]["count"] > best["alarms"]["count"]
    assert other["per_hour"] > 1
    assert any("three syllables" in hint for hint in other["hints"])
    assert "cup" in [near["text"] for near in other["near"]]
    assert other["fires_at"]
    table = run_cli("advise", "up").stdout
    assert "false alarms per hour" in table
    assert "Sounds like: " in table
