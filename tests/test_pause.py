"""Events that a pause must follow: which are, in any division of the sound, here, in the server and in measurements."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tiny_kws import Detector
from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE, DetectorConfig, settings_of
from tiny_kws.evaluation.rates import evaluate_streams
from tiny_kws.evaluation.streams import RULES, Posteriors, Recording, Stretch, posteriors_of
from tiny_kws.listening import pause
from tiny_kws.listening.decoder import Detection
from tiny_kws.listening.detector import config_of, read_config, write_config
from tiny_kws.listening.pause import HopPowers, PauseGate
from tiny_kws.serving.engine import Lane

HOP = 640
HOP_S = HOP / SAMPLE_RATE
PAUSE_MS = 280.0
YES = Detection("yes", 1.0, 1.4, 0.9)
EXAMPLES = Path(__file__).parent.parent / "examples"


def powers(after_db: float, seconds: float = 3.0, begin_s: float = 1.48, end_s: float = 1.76) -> np.ndarray:
    """A word from 1.0 to 1.4 s, near silence around it, and sound of a level against the word's between two times."""
    found = np.full(round(seconds / HOP_S), 1e-8)
    found[25:35] = 0.01
    found[round(begin_s / HOP_S) : round(end_s / HOP_S)] = 0.01 * 10 ** (after_db / 10)
    return found


@pytest.mark.parametrize(
    ("sound", "is_followed"),
    [
        (powers(-60), True),
        (powers(-6.1), True),
        (powers(-5.9), False),
        (powers(0), False),
        (powers(0, begin_s=1.4, end_s=1.48), True),
        (powers(0, begin_s=1.76, end_s=3.0), True),
        (powers(0, begin_s=1.6, end_s=1.76), False),
    ],
    ids=["silence", "quieter", "hardly quieter", "as loud", "the end of the word", "speech later", "half"],
)
def test_what_follows_decides(sound: np.ndarray, is_followed: bool) -> None:
    """The mean from 0.08 to 0.36 s after the decision must be 6 dB below the loudest of the word."""
    gate = PauseGate(HOP, PAUSE_MS)
    assert gate.process([YES], sound) == [YES] * is_followed
    assert gate.of_all([YES], sound) == [YES] * is_followed


def test_what_is_before_the_word_does_not_count() -> None:
    """The pause is compared with the word, not with somebody who shouted before it."""
    sound = powers(-3)
    sound[:20] = 1.0
    gate = PauseGate(HOP, PAUSE_MS)
    assert gate.process([YES], sound) == gate.of_all([YES], sound) == []


def test_an_event_waits_for_its_pause() -> None:
    """It comes with the hop in which its pause ends, and none before that; after a reset it never comes."""
    sound = powers(-60)
    gate = PauseGate(HOP, PAUSE_MS)
    assert gate.process([YES], sound[:43]) == []
    assert gate.process([], sound[43:44]) == [YES]
    gate.reset()
    assert gate.process([YES], sound[:43]) == []
    gate.reset()
    assert gate.process([], sound) == []
    assert gate.of_all([YES], sound[:43]) == []


def test_several_events_wait_at_once() -> None:
    """Each is judged by its own word and its own pause, also an hour after the start."""
    rng = np.random.default_rng(0)
    sound = np.repeat(rng.choice([1e-6, 0.01], 20_000), 5)
    ends = np.sort(rng.choice(np.arange(30, 99_900), 3000, replace=False))
    events = [Detection("yes", round((n - 10) * HOP_S, 6), round(n * HOP_S, 6), 0.9) for n in ends.tolist()]
    wanted = PauseGate(HOP, PAUSE_MS).of_all(events, sound)
    assert 300 < len(wanted) < 2700
    gate, found, waiting = PauseGate(HOP, PAUSE_MS), [], list(events)
    for start in range(0, len(sound), 7):
        new = [event for event in waiting if round(event.end_s / HOP_S) <= start + 7]
        waiting = waiting[len(new) :]
        found += gate.process(new, sound[start : start + 7])
    assert found == wanted


def test_powers_are_of_whole_hops() -> None:
    """However the sound is divided: the mean square of each hop, and nothing of what is not a whole one."""
    sound = np.random.default_rng(0).normal(0, 0.1, 1000).astype(np.float32)
    hops = HopPowers(64)
    divided = np.concatenate([hops.process(piece) for piece in np.split(sound, [1, 64, 65, 400, 400, 999])])
    assert np.array_equal(divided, np.square(sound[:960].reshape(15, 64), dtype=np.float64).mean(1))
    hops.reset()
    assert len(hops.process(sound[:63])) == 0


def said(after: float) -> np.ndarray:
    """An example word after a second of near silence, and noise of a loudness behind it, (samples,)."""
    word = read_mono(EXAMPLES / "yes.wav")
    rng = np.random.default_rng(0)
    sound = np.concatenate([np.zeros(SAMPLE_RATE), word, np.zeros(2 * SAMPLE_RATE)])
    sound[SAMPLE_RATE + len(word) :] += rng.normal(0, after, 2 * SAMPLE_RATE)
    return (sound + rng.normal(0, 1e-4, len(sound))).astype(np.float32)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The listener, at a low threshold, so that what comes behind the word does not matter to it."""
    asked = Detector("listener")
    return Detector(asked.model, replace(asked.config, threshold=0.2, thresholds={}))


@pytest.mark.parametrize("size", [100, 640, 16_000, 10**9])
def test_a_detector_in_any_division(detector: Detector, size: int) -> None:
    """The same events for chunks of any length: the word before silence, none before sound as loud."""
    asked = Detector(detector.model, replace(detector.config, pause_ms=PAUSE_MS))
    for sound, expected in ((said(0.0), ["yes"]), (said(0.2), [])):
        assert "yes" in [event.label for event in detector.detect(sound)]
        pieces = np.split(sound, range(size, len(sound), size))
        found = [event for piece in pieces for event in asked.process(piece)] + asked.finish()
        assert [event.label for event in found] == expected
        assert found == [event for event in detector.detect(sound) if event.label in expected]


def test_a_word_at_the_very_end_is_followed_by_silence(detector: Detector) -> None:
    """The tail is long enough for its pause."""
    asked = Detector(detector.model, replace(detector.config, pause_ms=3000.0))
    sound = said(0.0)
    end = SAMPLE_RATE + round(0.8 * SAMPLE_RATE)
    assert [event.label for event in asked.detect(sound[:end])] == ["yes"]


def test_a_copy_goes_on_waiting(detector: Detector) -> None:
    """A detector that is copied or pickled between word and pause reports the word as the first one does."""
    asked = Detector(detector.model, replace(detector.config, pause_ms=PAUSE_MS))
    sound = said(0.0)
    (event,) = detector.detect(sound)
    between = round((event.end_s + 0.1) * SAMPLE_RATE)
    assert asked.process(sound[:between]) == []
    others = [copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))]
    for one in (asked, *others):
        assert one.process(sound[between:]) == [event]


def test_a_lane_of_the_server_waits_too(detector: Detector) -> None:
    """Hop by hop, the same events as a detector's."""
    config = replace(detector.config, pause_ms=PAUSE_MS)
    for sound, n_events in ((said(0.0), 1), (said(0.2), 0)):
        found = heard_by_a_lane(detector.model, config, sound)
        assert found == list(Detector(detector.model, config).detect(sound))
        assert len(found) == n_events


def heard_by_a_lane(model: StreamModel, config: DetectorConfig, sound: np.ndarray) -> list[Detection]:
    found: list[Detection] = []
    lane = Lane(model, config, lambda _, events: found.extend(events))
    lane.push(np.concatenate([sound, lane.tail]))
    stream = model.stream()
    while lane.is_ready:
        lane.hear(stream.process(lane.take())[0])
    return found


def test_measurements_know_pauses(detector: Detector, tmp_path: Path) -> None:
    """Posteriors give the events of a detector; what a pause takes is part of the latency."""
    config = replace(detector.config, pause_ms=PAUSE_MS)
    recordings = []
    for i, after in enumerate((0.0, 0.2)):
        sf.write(tmp_path / f"{i}.wav", said(after), SAMPLE_RATE, subtype="FLOAT")
        recordings.append(Recording(tmp_path / f"{i}.wav", (Stretch("yes", 1.2, 1.7, f"speaker {i}"),)))
    for one in posteriors_of(detector.model, recordings, detector.config):
        assert one.events(config) == list(Detector(detector.model, config).detect(one.recording.path))
        assert len(one.powers) == len(one.rows)
    heard = posteriors_of(detector.model, recordings[:1])
    plain, waited = (latency(heard, settings) for settings in (detector.config, config))
    assert waited == pytest.approx(plain + 0.36)


def latency(heard: list[Posteriors], config: DetectorConfig) -> float:
    details = evaluate_streams(heard, config, RULES["tiny-kws"]).operating_point.details
    assert details is not None
    assert details.latency_from_word_end_s is not None
    return float(details.latency_from_word_end_s.p50)


def test_files_without_pauses_stay_as_they_were(detector: Detector, tmp_path: Path) -> None:
    """What asks for no pause can be read by what knows none; what asks for one keeps it."""
    assert "pause_ms" not in settings_of(DetectorConfig())
    assert settings_of(DetectorConfig(pause_ms=280.0))["pause_ms"] == 280.0
    for settings in (config_of(detector.model), replace(detector.config, pause_ms=PAUSE_MS)):
        write_config(tmp_path / "settings.json", settings, detector.model)
        assert read_config(tmp_path / "settings.json", detector.model.metadata) == settings


def test_how_long_events_wait() -> None:
    """Nothing without a pause; with one, it and what lies between."""
    assert pause.waiting_ms(0.0) == 0.0
    assert pause.waiting_ms(280.0) == 360.0
