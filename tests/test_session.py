"""Blocks of sound as a device gives them, with gaps, overflow and worse, to events: no device needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from tiny_kws import Detection, Detector, DetectorConfig
from tiny_kws.artefact.runtime import Stream
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.listening.decoder import Decoder
from tiny_kws.listening.session import QUIET_DB, Block, Session, Status
from tiny_kws.words import is_word

from .helpers import validation_sample

EXAMPLES = Path(__file__).parents[1] / "examples"
LABELS = ("silence", "unknown", "beep")
HOP = 640
CONFIG = DetectorConfig(threshold=0.8, smoothing_ms=120, min_duration_ms=0)
FRAMES = 1600


class Loudness:
    """Stands for a model: a hop whose RMS is over 0.1 is a beep."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def process(self, audio: npt.NDArray[np.float32], rate: float = SAMPLE_RATE) -> npt.NDArray[np.float32]:
        joined = np.concatenate([self._rest, audio])
        n_hops = len(joined) // HOP
        self._rest = joined[n_hops * HOP :]
        rms = np.sqrt(np.square(joined[: n_hops * HOP].reshape(n_hops, HOP)).mean(1))
        return np.where(rms[:, None] > 0.1, [[0.0, 0.1, 0.9]], [[0.8, 0.2, 0.0]]).astype(np.float32)


class BeepDetector(Detector):
    """A detector of beeps, with the real decoder: one event at the third loud hop in a row."""

    def __init__(self) -> None:
        self.window_s = 1.0
        self._posteriors = cast(Stream, Loudness())
        self._decoder = Decoder(LABELS, HOP / SAMPLE_RATE, CONFIG)
        self._gate = None


class Listened:
    """A Session, with what it told and the clock of a device that gives blocks without a gap."""

    def __init__(self, rate: int = SAMPLE_RATE) -> None:
        self.told: list[Status] = []
        self.session = Session(BeepDetector(), self.told.append)
        self.session.begin(rate)
        self.rate = rate
        self.now_s = 1000.0

    @property
    def problems(self) -> list[str]:
        return [status.problem for status in self.told if status.problem]

    def give(self, sound: npt.NDArray[np.floating], frames: int = FRAMES, **first: Any) -> list[Detection]:
        """Sound in blocks, the first of which came with something special; the events."""
        events = []
        for i in range(0, len(sound), frames):
            piece = sound[i : i + frames].astype(np.float32)
            self.now_s += len(piece) / self.rate
            events += self.session.process(Block(piece.reshape(len(piece), -1), self.now_s, **first))
            first = {}
        return events


def beep(rate: int = SAMPLE_RATE, before_s: float = 0.4, after_s: float = 0.4) -> npt.NDArray[np.float64]:
    """0.4 s of 1 kHz with a little noise around it."""
    time_s = np.arange(round(0.4 * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.001, round((before_s + 0.4 + after_s) * rate))
    start = round(before_s * rate)
    noise[start : start + len(time_s)] += 0.5 * np.sin(2 * np.pi * 1000 * time_s)
    return noise


@pytest.mark.parametrize("frames", [160, 641, 16000])
def test_events_are_those_of_the_recording(frames: int) -> None:
    """Blocks of any length at 16 kHz mono give the events that the detector finds in the whole recording."""
    sound = np.concatenate([read_mono(EXAMPLES / "go.wav"), np.zeros(8000), read_mono(EXAMPLES / "no.wav")])
    config = DetectorConfig(threshold=0.4)
    session = Session(Detector("small", config))
    blocks = [sound[i : i + frames, None].astype(np.float32) for i in range(0, len(sound), frames)]
    found = [
        event for i, block in enumerate(blocks) for event in session.process(Block(block, i * frames / SAMPLE_RATE))
    ]
    assert found == Detector("small", config).process(sound.astype(np.float32))
    assert len(found) > 1
    assert session.time_s == pytest.approx(len(sound) / SAMPLE_RATE)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_any_rate_and_number_of_channels_is_heard(rate: int) -> None:
    """A beep in one of three channels at another rate is the same event, within a hop and the resampler's delay."""
    sound = np.stack([3 * beep(rate), np.zeros(round(1.2 * rate)), np.zeros(round(1.2 * rate))], axis=1)
    (event,) = Listened(rate).give(sound, frames=rate // 25)
    assert (event.label, event.end_s) == ("beep", pytest.approx(0.52, abs=0.05))


def test_the_resampled_sound_is_that_of_soxr() -> None:
    """What is kept of an event is the mean of the channels, resampled as a whole would be."""
    listened = Listened(48000)
    sound = np.stack([beep(48000), 0.5 * beep(48000)], axis=1)
    events = listened.give(sound[: round(0.7 * 48000)], frames=1920)
    kept = listened.session.sound_of(events[0])
    whole = soxr.resample(sound.mean(axis=1), 48000, SAMPLE_RATE)
    assert len(kept) == round(events[0].end_s * SAMPLE_RATE)
    np.testing.assert_allclose(kept, whole[: len(kept)], atol=1e-4)


def test_time_goes_on_where_sound_was_lost() -> None:
    """Frames that did not fit in the queue are told, count as time, and set the detector back to its start."""
    listened = Listened()
    (first,) = listened.give(beep())
    (second,) = listened.give(beep(), dropped=5 * SAMPLE_RATE)
    assert second.end_s - first.end_s == pytest.approx(1.2 + 5.0)
    assert listened.problems == ["5.0 s of sound were lost because the work on events takes too long; still listening"]
    assert listened.session.time_s == pytest.approx(2 * 1.2 + 5.0)


def test_what_follows_lost_sound_is_heard_from_silence() -> None:
    """Halves of a beep on both sides of a gap of over 0.2 s make no event: each is too short."""
    half = beep(before_s=0.0, after_s=0.0)[: 2 * HOP]
    together, apart = Listened(), Listened()
    assert len(together.give(half, HOP) + together.give(half, HOP)) == 1
    assert apart.give(half, HOP) + apart.give(half, HOP, dropped=3201) == []


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 48000])
def test_what_was_heard_goes_on_over_a_short_gap(rate: int) -> None:
    """A hop of a beep, a gap of two, another hop: an event at its time, as if nothing were lost."""
    hop = HOP * rate // SAMPLE_RATE
    sound = np.stack([beep(rate, before_s=0.0, after_s=0.5)] * 2, axis=1)
    whole, holed = Listened(rate), Listened(rate)
    (expected,) = whole.give(sound, hop)
    (event,) = holed.give(sound[:hop], hop) + holed.give(sound[3 * hop :], hop, dropped=2 * hop)
    assert event == expected
    assert holed.session.time_s == pytest.approx(whole.session.time_s)
    assert holed.problems == ["0.08 s of sound were lost because the work on events takes too long; still listening"]


def test_a_computer_that_is_too_slow_is_told_every_five_seconds() -> None:
    """Half a minute of which every second block is lost: some lines, which together tell all that was lost."""
    listened = Listened()
    for _ in range(750):
        listened.give(np.full(320, 0.01), 320, dropped=320)
    listened.give(np.full(6 * SAMPLE_RATE, 0.01))
    times = [status.time_s for status in listened.told if status.problem]
    assert min(np.diff(times)) >= 5.0
    assert sum(float(problem.split()[0]) for problem in listened.problems) == pytest.approx(15.0, abs=0.2)


@pytest.mark.data
def test_words_are_heard_though_every_second_block_is_lost(shared_data: Path) -> None:
    """Where a computer is half as fast as the sound, half of the words that the whole holds are heard, or more."""
    clips = [clip for label, clip in validation_sample(shared_data) if is_word(label)]
    sound = np.concatenate([np.pad(clip, (0, SAMPLE_RATE // 2)) for clip in clips])
    sound += np.random.default_rng(0).normal(0, 1e-3, len(sound)).astype(np.float32)
    detector = Detector()
    expected = list(detector.detect(sound))
    session, heard = Session(detector), []
    for start in range(HOP, len(sound), 2 * HOP):
        heard += session.process(Block(sound[start : start + HOP, None], start / SAMPLE_RATE, dropped=HOP))
    again = [
        event
        for event in expected
        if any(one.label == event.label and abs(one.end_s - event.end_s) < 0.5 for one in heard)
    ]
    assert len(again) > len(expected) / 2 > 25


def test_a_suspended_computer_is_noticed() -> None:
    """A minute between two blocks is told, and the time of the next event counts it."""
    listened = Listened()
    (first,) = listened.give(beep())
    listened.now_s += 60.0
    (second,) = listened.give(beep())
    assert second.end_s - first.end_s == pytest.approx(61.2)
    assert listened.problems == ["no sound came for 60.0 s (was the computer asleep?); still listening"]


def test_blocks_that_come_in_bursts_are_no_gap() -> None:
    """Half a second late, or too early, says nothing: the samples count."""
    listened = Listened()
    listened.give(beep())
    listened.now_s += 0.5
    listened.give(beep())
    listened.now_s -= 0.9
    (event,) = listened.give(beep())
    assert listened.problems == []
    assert event.end_s == pytest.approx(2 * 1.2 + 0.52)


def test_a_device_that_is_back_is_heard_at_its_new_rate() -> None:
    """After a loss the device may have another rate; the time without is told and counted."""
    listened = Listened()
    listened.give(beep())
    listened.session.begin(44100)
    listened.rate = 44100
    listened.now_s += 7.0
    (event,) = listened.give(beep(44100), frames=1764)
    assert event.end_s == pytest.approx(1.2 + 7.0 + 0.52, abs=0.05)
    assert listened.problems == ["sound is back after 7.0 s"]


def test_overflow_is_told_now_and_then() -> None:
    """A device that loses sound all the time is reported every five seconds, with how often; events go on."""
    listened = Listened()
    for _ in range(5):
        assert len(listened.give(beep(), frames=round(1.2 * SAMPLE_RATE), overflow=True)) == 1
    assert [problem.split(";")[0] for problem in listened.problems] == ["the device lost some sound (overflows: 1)"]
    listened.give(beep(), frames=round(1.2 * SAMPLE_RATE), overflow=True)
    assert [problem.split(";")[0] for problem in listened.problems[1:]] == ["the device lost some sound (overflows: 5)"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
@pytest.mark.parametrize("rate", [SAMPLE_RATE, 48000])
def test_samples_that_are_not_numbers_are_told_and_survived(bad: float, rate: int) -> None:
    """A block of NaN, infinity or a wild value is one problem, and the next beep is heard at its time."""
    listened = Listened(rate)
    listened.give(beep(rate), frames=rate // 10)
    broken = beep(rate)
    broken[::700] = bad
    assert listened.give(broken, frames=rate // 10) == []
    (event,) = listened.give(beep(rate), frames=rate // 10)
    assert event.end_s == pytest.approx(2 * 1.2 + 0.52, abs=0.05)
    (problem,) = listened.problems
    assert problem.startswith("the microphone: holds ")


def test_the_level_is_in_decibels_under_full_scale() -> None:
    """A sine of full scale has -3 dB, one of a tenth -23 dB, nothing the lowest level there is."""
    listened = Listened()
    sine = np.sin(2 * np.pi * np.arange(FRAMES) / 16)
    for sound in (sine, sine / 10, 0 * sine):
        listened.give(sound)
    assert [status.level_db for status in listened.told] == pytest.approx([-3.01, -23.01, QUIET_DB], abs=0.01)


def test_the_likeliest_class_is_told() -> None:
    """Each block tells its time and the likeliest class, silence among them; before the first hop there is none."""
    listened = Listened()
    listened.give(beep(before_s=0.0, after_s=0.5), frames=HOP // 2)
    times = [status.time_s for status in listened.told]
    assert times == pytest.approx([0.02 * (i + 1) for i in range(len(times))])
    seen = [(status.label, round(status.probability, 3)) for status in listened.told]
    assert (seen[0], seen[1], seen[-1]) == (("", 0.0), ("beep", 0.9), ("silence", 0.8))


def test_digital_silence_is_told_once() -> None:
    """Ten seconds of zeros from the start are told once; a microphone that has given any sound may fall silent."""
    mute, live = Listened(), Listened()
    mute.give(np.zeros(25 * SAMPLE_RATE))
    live.give(beep())
    live.give(np.zeros(25 * SAMPLE_RATE))
    assert len(mute.problems) == 1
    assert "muted" in mute.problems[0]
    assert live.problems == []


def test_the_sound_of_an_event_begins_a_second_before_it() -> None:
    """What is kept is the event's second and one before, to the sample; nothing from before a start is in it."""
    listened = Listened()
    sound = beep(before_s=3.0, after_s=0.0).astype(np.float32)
    for i in range(0, len(sound), FRAMES):
        events = listened.give(sound[i : i + FRAMES])
        if events:
            break
    (event,) = events
    end = round(event.end_s * SAMPLE_RATE)
    np.testing.assert_array_equal(listened.session.sound_of(event), sound[end - 2 * SAMPLE_RATE : end])
    early = Listened()
    (event,) = early.give(beep(before_s=0.1, after_s=0.0))
    assert len(early.session.sound_of(event)) == round(event.end_s * SAMPLE_RATE)
