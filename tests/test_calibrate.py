"""Thresholds for a room: moved by evidence only, and what is said of them holds on sound they were not chosen from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_kws.artefact.runtime import StreamModel
from tiny_kws.config import DetectorConfig
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import DataError
from tiny_kws.evaluation.calibration import LARGEST_STEP, MIN_EXAMPLES, Evidence, calibrate, choose, gather
from tiny_kws.evaluation.streams import Posteriors, Recording, Stretch, logit, threshold_grid
from tiny_kws.json_form import to_json
from tiny_kws.listening.detector import read_config
from tiny_kws.words import SILENCE, UNKNOWN

from .helpers import run_cli, write_sound

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = (SILENCE, UNKNOWN, "yes", "no")
HOP_S = 0.05
CONFIG = DetectorConfig(threshold=0.8, smoothing_ms=0, min_duration_ms=0, refractory_ms=200)
GRID = sorted({*threshold_grid().tolist(), 0.8})


def room_of(*peaks: tuple[str, float, float], seconds: float = 600.0) -> Posteriors:
    """A recording in which a label's probability is for 0.1 s, from a time on, of a height: (label, time, height)."""
    rows = np.zeros((round(seconds / HOP_S), len(WORDS)), np.float32)
    for label, time_s, height in peaks:
        first = round(time_s / HOP_S)
        rows[first : first + 2, WORDS.index(label)] = height
    return Posteriors(Recording(Path("room")), WORDS, HOP_S, rows, seconds, cpu_s=1.0)


def examples_of(label: str, *heights: float) -> list[Posteriors]:
    """One-second examples of a word, heard as high as `heights`."""
    return [
        replace(room_of((label, 0.5, height), seconds=1.0), recording=Recording(Path("a"), (Stretch(label, 0, 1),)))
        for height in heights
    ]


def evidence(alarms_up_to: float, scores: list[float], start: float = 0.8) -> Evidence:
    """A room with one false alarm of a height, and examples of scores."""
    return Evidence(GRID, [int(threshold <= alarms_up_to) for threshold in GRID], scores, start)


def test_nothing_moves_without_reason() -> None:
    """In a room without false alarms, with all examples found, the model's threshold stays."""
    assert choose(evidence(0.0, [0.9, 0.95, 0.99]), 0.02).threshold == 0.8
    assert choose(evidence(0.79, [0.9, 0.95, 0.99]), 0.02).threshold == 0.8


def test_a_false_alarm_raises_to_the_middle() -> None:
    """With a false alarm above the threshold it lies between that and the weakest example, in the middle in logit."""
    threshold = choose(evidence(0.85, [0.97, 0.98, 0.99]), 0.02).threshold
    lowest = next(value for value in GRID if value > 0.85)
    assert logit(threshold) == pytest.approx((logit(lowest) + logit(0.97)) / 2, abs=1e-4)


def test_the_room_comes_before_examples() -> None:
    """Examples weaker than a false alarm do not hold the threshold down."""
    choice = choose(evidence(0.97, [0.9, 0.92, 0.95]), 0.02)
    assert choice.threshold == next(value for value in GRID if value > 0.97)


def test_a_missed_example_lowers_a_little() -> None:
    """A missed example lowers the threshold below its score, in a quiet room, but no further than the largest step."""
    threshold = choose(evidence(0.0, [0.75, 0.9, 0.95]), 0.02).threshold
    assert threshold < 0.75
    assert logit(threshold) == pytest.approx((logit(0.75) + logit(0.8) - LARGEST_STEP) / 2, abs=1e-4)


def test_examples_out_of_reach_move_nothing() -> None:
    """Examples that no allowed threshold would find are given up, not paid for with false alarms."""
    choice = choose(evidence(0.0, [0.1, 0.9, 0.95]), 0.02)
    assert choice.threshold == 0.8
    assert "too weak" in choice.reason


def test_an_example_below_the_room_lowers_nothing() -> None:
    """A false alarm at the height of the missed example keeps the threshold where it is."""
    assert choose(evidence(0.78, [0.75, 0.9, 0.95]), 0.02).threshold == 0.8


@pytest.mark.parametrize("scores", [[], [0.7], [0.7] * (MIN_EXAMPLES - 1)])
def test_few_examples_move_nothing(scores: list[float]) -> None:
    """With fewer than three examples the model's threshold stays, and the reason says so."""
    choice = choose(evidence(0.0, scores), 0.02)
    assert choice.threshold == 0.8
    assert f"{len(scores)} examples, {MIN_EXAMPLES} needed" in choice.reason


def test_the_room_counts_without_examples() -> None:
    """A label that fires in the room is raised even without examples, just as far as the room asks for."""
    assert choose(evidence(0.9, []), 0.02).threshold == next(value for value in GRID if value > 0.9)


def test_a_long_room_may_hold_its_share() -> None:
    """False alarms within what the rate allows in so long a recording raise nothing."""
    assert choose(evidence(0.95, [0.99] * 3), 1.2).threshold == 0.8


def test_a_room_that_fires_at_any_threshold() -> None:
    """The threshold goes as high as it can, and the reason says that it is not enough."""
    choice = choose(evidence(1.0, [0.99] * 3), 0.02)
    assert choice.threshold == GRID[-1]
    assert "still" in choice.reason


@given(
    st.floats(0, 0.99995),
    st.lists(st.sampled_from([0.0, *GRID]), max_size=8),
    st.sampled_from([0.5, 0.8, 0.95]),
    st.floats(0, 2),
)
def test_what_holds_of_every_choice(alarm: float, scores: list[float], start: float, allowed: float) -> None:
    """No choice has more false alarms in the room than allowed, or lies more than the largest step below the model's,
    or above the weakest example that the room leaves within reach."""
    grid = sorted({*GRID, start})
    known = Evidence(grid, [int(threshold <= alarm) for threshold in grid], scores, start)
    threshold = choose(known, allowed).threshold
    if allowed < 1 and alarm < grid[-1]:
        assert threshold > alarm
    assert logit(threshold) >= logit(start) - LARGEST_STEP - 1e-4
    reached = [s for s in scores if s >= threshold]
    lost = [s for s in scores if max(alarm, start) < s < threshold]
    assert lost == [] or len(scores) < MIN_EXAMPLES or min(lost) < next((g for g in grid if g > alarm), 1.0)
    assert threshold <= max([start, *reached]) or threshold <= next(g for g in [*grid, 1.0] if g > alarm)


def test_labels_are_counted_alone() -> None:
    """A label's false alarms count even where another label's event, just before, would hide them."""
    room = [room_of(("yes", 10.0, 0.95), ("no", 10.15, 0.9))]
    known = gather("no", room, examples_of("no", 0.85, 0.97), CONFIG)
    alarms = dict(zip(known.thresholds, known.room_alarms, strict=True))
    assert alarms[0.8] == 1
    assert known.example_scores == pytest.approx([0.85, 0.97], abs=0.02)


def test_calibration_by_hand() -> None:
    """A false alarm of yes raises yes alone; expected figures are counted on what was left out."""
    room = [room_of(("yes", 100.0, 0.9))]
    examples = examples_of("yes", 0.97, 0.98, 0.99, 0.99) + examples_of("no", 0.9, 0.9)
    config, found = calibrate(WORDS, room, examples, CONFIG, rate_per_hour=1.0)
    expected = to_json(found)
    assert 0.9 < config.thresholds["yes"] < 0.97
    assert config.thresholds["no"] == 0.8
    assert expected["by_label"]["yes"]["model_threshold"] == 0.8
    # thresholds of the quiet half let the false alarm of the other through: one in ten minutes
    assert (expected["false_alarms"], expected["false_alarms_per_hour"]) == (1, pytest.approx(6.0))
    low, high = expected["false_alarms_per_hour_interval"]
    assert (low, high) == (pytest.approx(0.152, abs=1e-3), pytest.approx(33.43, abs=1e-2))
    assert (expected["examples"], expected["misses"]) == (6, 0)


def test_ten_quiet_minutes_promise_little() -> None:
    """No false alarm in ten minutes is reported as up to 22 an hour."""
    expected = to_json(calibrate(WORDS, [room_of()], examples_of("yes", 0.9), CONFIG)[1])
    assert expected["false_alarms_per_hour_interval"] == [0.0, pytest.approx(22.1, abs=0.1)]


def test_expected_misses_are_not_in_sample() -> None:
    """The weakest example, found with a threshold it lowered itself, counts as missed."""
    examples = examples_of("yes", 0.76, 0.9, 0.9, 0.9)
    config, found = calibrate(WORDS, [room_of()], examples, CONFIG)
    expected = to_json(found)
    assert config.thresholds["yes"] < 0.76
    assert expected["by_label"]["yes"]["misses"] == 1
    assert expected["miss_rate"] == 0.25
    low, high = expected["miss_rate_interval"]
    assert low < 0.1
    assert high > 0.6


def test_a_label_heard_as_another_is_missed() -> None:
    """Expected misses are counted with all labels listening: an example that another label takes is a miss."""
    one = examples_of("no", 0.9)[0]
    one.rows[8:10, WORDS.index("yes")] = 0.95
    config = replace(CONFIG, refractory_ms=700)
    assert calibrate(WORDS, [room_of()], [one], config)[1].misses == 1


def test_no_sound_of_the_room_is_an_error() -> None:
    """Without any room there is nothing to calibrate to."""
    with pytest.raises(DataError, match="the room"):
        calibrate(WORDS, [], examples_of("yes", 0.9), CONFIG)


# ---- the command


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Four copies of one example of yes and one of down, in folders."""
    folder = tmp_path / "spoken"
    for label, count in (("yes", 4), ("down", 1)):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            shutil.copy(EXAMPLES / f"{label}.wav", folder / label / f"{i}.wav")
    return folder


def test_the_command_writes_settings_that_others_read(spoken: Path, tmp_path: Path) -> None:
    """`calibrate` prints thresholds with what to expect, and writes a file that --config takes."""
    room, out = write_sound(tmp_path / "room.wav", 60.0), tmp_path / "my-room.json"
    done = run_cli("calibrate", "--room", room, "--examples", spoken, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "missed: 0 of 5 examples" in done.stdout
    config = read_config(out, StreamModel().metadata)
    assert set(config.thresholds) == set(LABELS) - {SILENCE, UNKNOWN}
    written: dict[str, Any] = json.loads(out.read_text())
    assert written["expected"]["room_hours"] == pytest.approx(1 / 60, abs=1e-4)
    assert "too short to show 1 per hour" in done.stdout


def test_only_chosen_words_are_calibrated(spoken: Path, tmp_path: Path) -> None:
    """With `--words yes,stop` examples of down are passed over, and the settings listen for yes and stop alone."""
    room, out = write_sound(tmp_path / "room.wav", 60.0), tmp_path / "my-room.json"
    done = run_cli("calibrate", "--room", room, "--examples", spoken, "--out", out, "--words", "yes,stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert "missed: 0 of 4 examples" in done.stdout
    config = read_config(out, StreamModel().metadata)
    assert (set(config.thresholds), config.words) == ({"yes", "stop"}, ("yes", "stop"))


def test_false_alarms_of_words_that_do_not_count_are_none() -> None:
    """A room in which another word is heard moves nothing, and all false alarms may fall to the chosen word."""
    config = replace(CONFIG, words=("no",))
    room = [room_of(("yes", 100.0, 0.9))]
    settings, expected = calibrate(WORDS, room, examples_of("no", 0.9) + examples_of("yes", 0.9), config)
    assert settings.thresholds == {"no": 0.8}
    assert (expected.alarms.false_alarms, expected.examples) == (0, 1)
    assert list(expected.by_label) == ["no"]


def test_an_unwritable_place_is_said_before_the_work(spoken: Path, tmp_path: Path) -> None:
    """A folder where the settings are to be is an error before the room, which is not even there, is heard."""
    done = run_cli("calibrate", "--room", tmp_path / "gone.wav", "--examples", spoken, "--out", tmp_path)
    assert done.returncode == 1
    assert "is a folder" in done.stderr
    assert "gone" not in done.stderr


def test_examples_may_be_a_manifest(tmp_path: Path) -> None:
    """Examples can be labelled words in longer recordings."""
    line = {"file": str(EXAMPLES / "yes.wav"), "label": "yes", "start_s": 0.0, "end_s": 0.5, "speaker": "a"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    room = write_sound(tmp_path / "room.wav", 5.0)
    done = run_cli("calibrate", "--room", room, "--examples", tmp_path / "m.jsonl", "--out", tmp_path / "o.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "of 1 examples" in done.stdout


def test_what_cannot_be_used_is_named_and_the_rest_goes_on(spoken: Path, tmp_path: Path) -> None:
    """A folder of no keyword, an empty one, a broken example and a missing room file are a line each; status 1."""
    shutil.copytree(spoken / "yes", spoken / "banana")
    (spoken / "stop").mkdir()
    (spoken / "yes" / "broken.wav").write_bytes(b"RIFF")
    shutil.copy(EXAMPLES / "go.wav", spoken / "loose.wav")
    room = write_sound(tmp_path / "room.wav", 5.0)
    out = tmp_path / "o.json"
    done = run_cli("calibrate", "--room", room, "--room", tmp_path / "gone.wav", "--examples", spoken, "--out", out)
    assert done.returncode == 1
    complaints = done.stderr.splitlines()
    assert len(complaints) == 5
    for name in ("gone.wav", "loose.wav", "banana", "stop", "broken.wav"):
        assert sum(f"{name}:" in line for line in complaints) == 1
    assert out.exists()


@pytest.mark.parametrize("missing", ["room", "examples"])
def test_nothing_is_written_without_evidence(spoken: Path, tmp_path: Path, missing: str) -> None:
    """Where no file of the room, or no example, can be used, the job fails and writes nothing."""
    room = tmp_path / "gone.wav" if missing == "room" else write_sound(tmp_path / "room.wav", 5.0)
    examples = tmp_path / "gone" if missing == "examples" else spoken
    done = run_cli("calibrate", "--room", room, "--examples", examples, "--out", tmp_path / "o.json")
    assert done.returncode == 1
    assert "gone" in done.stderr
    assert not (tmp_path / "o.json").exists()
