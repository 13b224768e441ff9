"""Events against words: what is a hit and what is not, manifests good and bad, rates that agree with counts by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.stats import chi2

from tiny_kws.artefact.runtime import Classifier, StreamModel
from tiny_kws.audio import read_mono
from tiny_kws.config import SAMPLE_RATE, DetectorConfig
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import DataError, KwsError
from tiny_kws.evaluation.figures import plot_det
from tiny_kws.evaluation.metrics import Artefact, Manifest, StreamMetrics, read_stream_metrics
from tiny_kws.evaluation.rates import (
    RATES_PER_HOUR,
    evaluate_streams,
    miss_interval,
    poisson_interval,
    split_speakers,
    threshold_for,
)
from tiny_kws.evaluation.streams import (
    RULES,
    Posteriors,
    Recording,
    Stretch,
    posteriors_of,
    read_manifest,
    score,
    sweep,
    threshold_grid,
    with_threshold,
)
from tiny_kws.evaluation.synthesis.build import origin_of
from tiny_kws.evaluation.tables import markdown, streams_table
from tiny_kws.files import sha256_of
from tiny_kws.json_form import to_json
from tiny_kws.listening.decoder import Detection
from tiny_kws.listening.detector import Detector, read_config
from tiny_kws.words import SILENCE, UNKNOWN

from .helpers import run_cli, write_sound

OWN, MLPERF = RULES["tiny-kws"], RULES["mlperf-tiny"]
EXAMPLES = Path(__file__).parents[1] / "examples"
MODELS = Path(__file__).parents[1] / "models"
WORDS = (SILENCE, UNKNOWN, "yes", "no")
HOP_S = 0.05
CONFIG = DetectorConfig(threshold=0.5, smoothing_ms=0, min_duration_ms=0, refractory_ms=200)


def event(label: str, end_s: float) -> Detection:
    return Detection(label, max(0.0, end_s - 1), end_s, 0.9)


def yes(start_s: float, end_s: float, speaker: str = "ann") -> Stretch:
    return Stretch("yes", start_s, end_s, speaker)


def heard(
    peaks: list[tuple[str, float, float]], stretches: tuple[Stretch, ...] = (), seconds: float = 60, name: str = "a"
) -> Posteriors:
    """A recording in which a label's probability is for 0.1 s, from a time on, of a height: (label, time, height).

    The silent rows at its end, in which nothing can happen, are left out.
    """
    last_s = max((time_s for _, time_s, _ in peaks), default=0.0)
    rows = np.zeros((round((last_s + 2) / HOP_S), len(WORDS)), np.float32)
    for label, time_s, height in peaks:
        first = round(time_s / HOP_S)
        rows[first : first + 2, WORDS.index(label)] = height
    return Posteriors(Recording(Path(name), stretches), WORDS, HOP_S, rows, seconds, cpu_s=seconds / 100)


# ---- scoring


@pytest.mark.parametrize(("rule", "last_s"), [(OWN, 2.5), (MLPERF, 3.0)])
def test_a_hit_lies_between_start_and_end_and_a_bit(rule: Any, last_s: float) -> None:
    """An event from the word's start to 0.5 s (MLPerf Tiny: 1 s) after its end is a hit, borders included."""
    for time_s in (1.0, 1.7, last_s):
        result = score([event("yes", time_s)], [yes(1.0, 2.0)], rule)
        assert (result.missed, result.false_alarms) == ([], ())


@pytest.mark.parametrize("time_s", [0.99, 2.51])
def test_an_event_outside_is_a_false_alarm_and_a_miss(time_s: float) -> None:
    """An event a hundredth of a second before or after the window is a false alarm, and the word is missed."""
    result = score([event("yes", time_s)], [yes(1.0, 2.0)], OWN)
    assert result.missed == [yes(1.0, 2.0)]
    assert [alarm.end_s for alarm in result.false_alarms] == [time_s]


def test_further_events_of_a_hit_word_are_ignored() -> None:
    """A second event of the label in the window is neither a hit nor a false alarm."""
    result = score([event("yes", 1.5), event("yes", 2.2)], [yes(1.0, 2.0)], OWN)
    assert result.hits == (event("yes", 1.5),)
    assert result.false_alarms == ()


def test_words_close_together_claim_an_event_each() -> None:
    """Of two words whose windows overlap each has its own event, whichever order events come in."""
    words = [yes(1.0, 1.4), yes(1.5, 1.9)]
    events = [event("yes", 1.6), event("yes", 1.8)]
    for order in (events, events[::-1]):
        assert score(order, words, OWN).hits == tuple(events)


def test_one_event_is_no_hit_of_two_words() -> None:
    """A single event where two windows overlap leaves one of the words missed."""
    assert len(score([event("yes", 1.6)], [yes(1.0, 1.4), yes(1.5, 1.9)], OWN).missed) == 1


def test_a_confusion_is_a_false_alarm_and_claims_nothing() -> None:
    """Another label's event in a word's window is a false alarm and a confusion; the word is missed."""
    result = score([event("no", 1.5)], [yes(1.0, 2.0)], OWN)
    assert result.missed == [yes(1.0, 2.0)]
    assert (len(result.false_alarms), result.confusions) == (1, (("yes", "no"),))


def test_a_word_heard_right_after_a_confusion_is_a_hit() -> None:
    """A confusion does not use up the word."""
    result = score([event("no", 1.5), event("yes", 1.9)], [yes(1.0, 2.0)], OWN)
    assert (result.missed, len(result.false_alarms)) == ([], 1)


def test_a_false_alarm_far_from_words_is_no_confusion() -> None:
    """Confusions are only counted where a word would be hit."""
    assert score([event("no", 9.0)], [yes(1.0, 2.0)], OWN).confusions == ()


@pytest.mark.parametrize(("apart_s", "mlperf_alarms"), [(0.9, 1), (1.1, 2)])
def test_debounce_of_mlperf_tiny(apart_s: float, mlperf_alarms: int) -> None:
    """By MLPerf Tiny's rule a false alarm hides those of the second after it; by the project's own, none."""
    events = [event("yes", 5.0), event("no", 5.0 + apart_s)]
    assert len(score(events, [], MLPERF).false_alarms) == mlperf_alarms
    assert len(score(events, [], OWN).false_alarms) == 2


def test_debounce_counts_from_counted_false_alarms() -> None:
    """A hidden false alarm hides no further ones."""
    events = [event("yes", 5.0), event("yes", 5.8), event("yes", 6.5)]
    assert [alarm.end_s for alarm in score(events, [], MLPERF).false_alarms] == [5.0, 6.5]


def test_debounce_does_not_hide_hits() -> None:
    """A hit counts however soon it comes after a false alarm."""
    assert score([event("no", 0.8), event("yes", 1.2)], [yes(1.0, 1.4)], MLPERF).missed == []


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 8), st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=12),
)
def test_as_many_words_are_hit_as_can_be(lengths: list[tuple[int, int, bool]], times: list[tuple[int, bool]]) -> None:
    """The number of hits is that of a largest matching of events with windows; no event is used twice or lost."""
    words, now = [], 0.0
    for length, pause, is_yes in lengths:
        words.append(Stretch("yes" if is_yes else "no", now + pause / 10, now + (pause + length) / 10))
        now = words[-1].end_s
    events = [event("yes" if is_yes else "no", time / 10) for time, is_yes in times]
    result = score(events, words, OWN)
    fits = np.array(
        [
            [e.label == w.label and w.start_s - 1e-6 <= e.end_s <= w.end_s + 0.5 + 1e-6 for w in words] or [False]
            for e in events
        ]
        or [[False]]
    )
    hits = [hit for hit in result.hits if hit is not None]
    assert len(hits) == int((maximum_bipartite_matching(csr_array(fits)) >= 0).sum())
    used = sorted([*hits, *result.false_alarms], key=lambda e: (e.end_s, e.label))
    assert all(used.count(e) <= events.count(e) for e in used)
    assert len(result.false_alarms) == sum(not row.any() for row, _ in zip(fits, events, strict=False))


# ---- manifests


LINE = {"file": "a.wav", "label": "yes", "start_s": 0.2, "end_s": 0.7, "speaker": "ann"}


def write_manifest(path: Path, lines: list[dict[str, Any] | str]) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def test_a_manifest_is_read_by_recording(tmp_path: Path) -> None:
    """Lines are gathered by file, relative to the manifest, however it is spelled, and sorted by their start."""
    later = {**LINE, "start_s": 2, "end_s": 3, "file": "x/../a.wav"}
    known = {**LINE, "file": "c.wav", "word": "yes", "age": "", "accent": "us"}
    lines = [later, LINE, {**LINE, "file": "b.wav"}, "", known]
    recordings, problems = read_manifest(write_manifest(tmp_path / "m.jsonl", lines), LABELS)
    assert problems == []
    assert [recording.path.name for recording in recordings] == ["a.wav", "b.wav", "c.wav"]
    assert [word.start_s for word in recordings[0].words] == [0.2, 2]
    assert recordings[0].path == tmp_path / "a.wav"
    assert [recording.words[0].traits for recording in recordings] == [(), (), (("accent", "us"),)]


def test_speech_is_counted_once() -> None:
    """Seconds of speech are the union of words and other speech; silence is none."""
    stretches = (
        Stretch(UNKNOWN, 1, 5),
        Stretch("yes", 2, 3),
        Stretch(UNKNOWN, 4, 6),
        Stretch(SILENCE, 6, 9),
        Stretch("no", 8, 8.5),
    )
    assert Recording(Path("a"), stretches).speech_s == 5.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": "banana"}, "'banana'"),
        ({"label": None}, "None"),
        ({"label": ["yes"]}, "['yes']"),
        ({"start_s": 3}, "3 s to 0.7 s"),
        ({"start_s": 0.7}, "0.7 s to 0.7 s"),
        ({"start_s": -1}, "-1 s"),
        ({"end_s": math.nan}, "nan"),
        ({"end_s": math.inf}, "inf"),
        ({"end_s": "1"}, "'1'"),
        ({"end_s": True}, "True"),
        ({"speaker": 7}, "7"),
        ({"accent": ["us"]}, "accent ['us']"),
        ({"start_s": 2.5, "end_s": 3.5}, "lines 1 and 2: their words overlap"),
    ],
)
def test_a_bad_line_costs_its_recording_only(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A bad line is named with its number and file; that recording is left out whole, the others go on."""
    lines: list[dict[str, Any] | str] = [
        {**LINE, "start_s": 2, "end_s": 3},
        {**LINE, **change},
        {**LINE, "file": "good.wav"},
    ]
    path = write_manifest(tmp_path / "m.jsonl", lines)
    recordings, problems = read_manifest(path, LABELS)
    assert [recording.path.name for recording in recordings] == ["good.wav"]
    assert len(problems) == 1
    assert all(part in problems[0] for part in (str(path), "2", "a.wav", said))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (json.dumps(LINE) + "\n{broken\n", "line 2: is not JSON"),
        (json.dumps(LINE) + "\n[1]\n", "line 2: names no file"),
        ('{"file": 3}\n', "line 1: names no file"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_manifest_that_does_not_say_what_it_labels_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Where a line could belong to any recording nothing can be counted, and the line is named."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=said):
        read_manifest(path, LABELS)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_manifest_that_is_not_there(tmp_path: Path, kind: str) -> None:
    """A missing manifest, or a folder in its place, is named."""
    path = tmp_path if kind == "folder" else tmp_path / "no.jsonl"
    with pytest.raises(DataError, match=str(path)):
        read_manifest(path, LABELS)


# ---- posteriors and sweeps


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the package's example words with pauses between: yes at 1.0, left at 3.0, stop at 5.0 s."""
    path = tmp_path_factory.mktemp("long") / "words.flac"
    audio = np.random.default_rng(0).normal(0, 1e-4, 8 * SAMPLE_RATE).astype(np.float32)
    for start_s, name in ((1, "yes.wav"), (3, "left.wav"), (5, "stop.mp3")):
        clip = read_mono(EXAMPLES / name)[:SAMPLE_RATE]
        audio[start_s * SAMPLE_RATE : start_s * SAMPLE_RATE + len(clip)] += clip
    sf.write(path, audio.clip(-1, 1), SAMPLE_RATE)
    return path


@pytest.mark.parametrize(("kind", "name"), [(StreamModel, "small"), (Classifier, "ds-cnn")])
def test_kept_posteriors_give_the_detectors_events(
    kind: type[StreamModel] | type[Classifier], name: str, long_recording: Path
) -> None:
    """Decoding kept posteriors gives the very events that a detector finds in the recording."""
    model = kind(name)
    config = DetectorConfig(threshold=0.6)
    kept = posteriors_of(model, [Recording(long_recording)], config)[0]
    expected = list(Detector(model, config).detect(long_recording))
    assert kept.events(config) == expected
    assert [e.label for e in expected] == ["yes", "left", "stop"]
    assert kept.seconds == 8.0
    assert kept.cpu_s > 0


def test_recordings_do_not_touch_each_other(long_recording: Path) -> None:
    """Each recording starts from silence, whatever was heard before."""
    model = StreamModel()
    one, two = posteriors_of(model, [Recording(long_recording), Recording(long_recording)])
    np.testing.assert_array_equal(one.rows, two.rows)


def test_recordings_that_cannot_be_used_are_named(tmp_path: Path, long_recording: Path) -> None:
    """A missing file, NaN and labels beyond the end are told of one by one; the rest is heard."""
    nan = tmp_path / "nan.wav"
    sf.write(nan, np.full(SAMPLE_RATE, np.nan, np.float32), SAMPLE_RATE, subtype="FLOAT")
    short = Recording(write_sound(tmp_path / "short.wav", 2.0), (yes(1.0, 2.5),))
    recordings = [Recording(tmp_path / "no.wav"), Recording(nan), short, Recording(long_recording)]
    errors: list[KwsError] = []
    kept = posteriors_of(StreamModel(), recordings, on_error=errors.append)
    assert [one.recording.path for one in kept] == [long_recording]
    assert [Path(str(error).partition(":")[0]).name for error in errors] == ["no.wav", "nan.wav", "short.wav"]
    assert "2.00 s long" in str(errors[2])
    with pytest.raises(DataError, match=r"short\.wav"):
        posteriors_of(StreamModel(), [short])


def test_labels_may_end_a_coders_frame_late(tmp_path: Path) -> None:
    """A label that ends 20 ms after the sound is no reason to leave a recording out."""
    recording = Recording(write_sound(tmp_path / "a.wav", 2.0), (yes(1.0, 2.02),))
    assert len(posteriors_of(StreamModel(), [recording])) == 1


def test_a_sweep_counts_by_hand() -> None:
    """Peaks of known heights are hits and false alarms below their height, and neither above."""
    one = heard([("yes", 1.5, 0.7), ("no", 20.0, 0.4), ("yes", 30.0, 0.9)], (yes(1.2, 1.6),))
    points = sweep([one], CONFIG, thresholds=[0.95, 0.3, 0.5, 0.8])
    assert [point.threshold for point in points] == [0.3, 0.5, 0.8, 0.95]
    assert [len(point.scores[0].missed) for point in points] == [0, 0, 1, 1]
    assert [len(point.scores[0].false_alarms) for point in points] == [2, 1, 1, 0]


def test_a_sweep_stops_where_it_is_of_no_use() -> None:
    """Below a threshold with too many false alarms no other is tried; those above are as without a limit."""
    one = heard([("yes", 10.0 * i, 0.6) for i in range(1, 5)] + [("yes", 55.0, 0.9)])
    grid = [0.2, 0.3, 0.5, 0.7]
    points = sweep([one], CONFIG, thresholds=grid, most_per_hour=100)
    assert [point.threshold for point in points] == [0.5, 0.7]
    assert points == sweep([one], CONFIG, thresholds=grid)[2:]


def test_thresholds_are_dense_near_one() -> None:
    """The grid rises from 0.05 to 0.9999 in equal steps of logit."""
    grid = threshold_grid()
    steps = np.diff(np.log(grid / (1 - grid)))
    assert (grid[0], grid[-1]) == (0.05, 0.9999)
    np.testing.assert_allclose(steps, steps[0], atol=0.01)


def test_own_thresholds_move_along() -> None:
    """Labels with thresholds of their own move by the same step in logit, and not at all at the settings' own."""
    config = replace(CONFIG, threshold=0.8, thresholds={"yes": 0.9})
    assert with_threshold(config, 0.8).thresholds["yes"] == pytest.approx(0.9)
    moved = with_threshold(config, 0.5).thresholds["yes"]
    assert math.log(9) - math.log(moved / (1 - moved)) == pytest.approx(math.log(4))


# ---- intervals and halves


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 57, 400, 5000])
def test_poisson_intervals_are_exact(count: int) -> None:
    """Garwood's interval agrees with quantiles of chi-square as scipy has them."""
    expected = (chi2.ppf(0.025, 2 * count) / 2 if count else 0.0, chi2.ppf(0.975, 2 * count + 2) / 2)
    assert poisson_interval(count) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("alarms", "allowed", "index"),
    [([5, 3, 1, 0], 1.7, 2), ([5, 3, 1, 0], 0.3, 3), ([0, 2, 1, 0], 0.5, 3), ([5, 3], 1, None), ([0, 0], 0, 0)],
)
def test_a_threshold_keeps_the_budget_from_there_upwards(alarms: list[int], allowed: float, index: int | None) -> None:
    """The lowest threshold is taken above which none has too many; few false alarms further down do not count."""
    assert threshold_for(alarms, allowed) == index


def test_misses_of_few_speakers_are_less_certain() -> None:
    """Misses that lump together in speakers give a wider interval than the same number spread out."""
    lumped = miss_interval([(str(i), 10, 10 if i < 2 else 0) for i in range(10)])
    spread = miss_interval([(str(i), 10, 2) for i in range(10)])
    assert lumped is not None
    assert spread is not None
    assert lumped[0] < 0.05
    assert lumped[1] > 0.4
    assert spread == (0.2, 0.2)


def test_miss_intervals_are_seeded() -> None:
    """The same counts give the same interval."""
    units = [(str(i), 5, i % 4) for i in range(20)]
    assert miss_interval(units) == miss_interval(units)


def test_a_bootstrap_interval_by_hand() -> None:
    """Two speakers, one all missed and one none: resamples are 0, 1/2 or 1, and the interval spans them."""
    assert miss_interval([("a", 4, 4), ("b", 4, 0)]) == (0.0, 1.0)


def test_one_speaker_says_nothing_of_others() -> None:
    """There is no interval over speakers with a single one."""
    assert miss_interval([("ann", 5, 1), ("ann", 7, 0)]) is None


def test_no_miss_at_all_is_no_certainty() -> None:
    """Where nothing was missed, the interval over words stands in and does not end at 0."""
    interval = miss_interval([("ann", 20, 0), ("bob", 20, 0)])
    assert interval is not None
    assert interval[0] == 0
    assert 0.05 < interval[1] < 0.15


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcdefghij"), max_size=3), st.integers(10, 90)), min_size=1, max_size=12
    )
)
def test_halves_share_no_speaker(layout: list[tuple[list[str], int]]) -> None:
    """Every recording is in one half, and no speaker in both; there are none only if all hang together."""
    recordings = [
        heard([], tuple(yes(i * 2 + 1, i * 2 + 2, speaker) for i, speaker in enumerate(speakers)), seconds)
        for speakers, seconds in layout
    ]
    halves = split_speakers(recordings)
    if halves is None:
        linked, rest = set(layout[0][0]), list(range(1, len(layout)))
        while found := [i for i in rest if linked & set(layout[i][0])]:
            linked |= {speaker for i in found for speaker in layout[i][0]}
            rest = [i for i in rest if i not in found]
        assert rest == []
        return
    assert sorted(halves[0] + halves[1]) == list(range(len(layout)))
    assert all(halves)
    first, second = ({speaker for i in half for speaker in layout[i][0]} for half in halves)
    assert first & second == set()


def test_halves_are_even() -> None:
    """Words and hours of speech and of noise are dealt out evenly."""
    recordings = [
        heard([], tuple(yes(t, t + 1, str(i)) for t in range(1, 20, 2)) if i % 2 else (), 60) for i in range(16)
    ]
    halves = split_speakers(recordings, seed=3)
    assert halves is not None
    for half in halves:
        assert sum(bool(recordings[i].recording.words) for i in half) == 4
        assert len(half) == 8


def test_the_seed_decides_between_equals() -> None:
    """The same seed gives the same halves; another one gives others."""
    recordings = [heard([], (yes(1, 2, str(i)),)) for i in range(12)]
    assert split_speakers(recordings, 1) == split_speakers(recordings, 1)
    assert len({str(split_speakers(recordings, seed)) for seed in range(5)}) > 1


# ---- the whole evaluation


def two_halves() -> list[Posteriors]:
    """Two speakers, two hours each: in ann's false alarms peak at 0.6 (once 0.7), in bob's at 0.8.

    Each speaks ten words, of peaks 0.65, 0.75, 0.9 and more.
    """
    found = []
    for speaker, alarm in (("ann", 0.6), ("bob", 0.8)):
        heights = [0.65, 0.75, *[0.9] * 8]
        words = tuple(yes(100.0 * i, 100.0 * i + 0.5, speaker) for i in range(1, 11))
        peaks = [("yes", word.end_s - 0.2, height) for word, height in zip(words, heights, strict=True)]
        peaks += [("no", 2000.0 + 100 * i, alarm) for i in range(20)]
        peaks += [("no", 1500.0, 0.7)] if speaker == "ann" else []
        found.append(heard(peaks, (*words, Stretch(UNKNOWN, 2000.0, 2950.0, speaker + "'s friend")), 7200, speaker))
    return found


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    found: dict[str, Any] = to_json(report(two_halves()))
    return found


def report(recordings: list[Posteriors]) -> StreamMetrics:
    """What `evaluate-stream` would write of a model called m."""
    scores = evaluate_streams(recordings, CONFIG, OWN)
    return StreamMetrics(Artefact("m", "0" * 64), Manifest("m.jsonl", "1" * 64), scores)


def at(metrics: dict[str, Any], part: str, rate: float) -> dict[str, Any]:
    found: dict[str, Any] = next(point for point in metrics[part]["rates"] if point["rate_per_hour"] == rate)
    return found


def test_thresholds_come_from_the_other_half(metrics: dict[str, Any]) -> None:
    """At 1 an hour ann's two hours allow a threshold over 0.6, which on bob's gives 20 false alarms and no miss, and
    bob's one over 0.8, which on ann's gives none and 2 misses."""
    point = at(metrics, "held_out", 1.0)
    low, high = sorted(point["thresholds"])
    assert 0.6 < low < 0.65
    assert 0.8 < high < 0.83
    assert (point["false_alarms"], point["misses"], point["words"]) == (20, 2, 20)
    assert point["false_alarms_per_hour"] == 5.0


def test_in_sample_figures_are_marked(metrics: dict[str, Any]) -> None:
    """Figures over everything say that they are in-sample; at 1 an hour in four hours the threshold is over 0.8."""
    point = at(metrics, "everything", 1.0)
    assert metrics["everything"]["in_sample"]
    assert not metrics["held_out"]["in_sample"]
    assert (point["false_alarms"], point["misses"]) == (0, 4)


def test_what_the_figures_rest_on(metrics: dict[str, Any]) -> None:
    """Hours of speech and of noise are apart, keywords and speakers counted."""
    facts = metrics["audio"]
    assert (facts["recordings"], facts["keywords"], facts["speakers"]) == (2, 20, 2)
    assert facts["hours"] == pytest.approx(4.0)
    assert facts["speech_hours"] == pytest.approx(2 * (950 + 5) / 3600, abs=1e-6)
    assert facts["speech_hours"] + facts["noise_hours"] == pytest.approx(4.0, abs=1e-6)
    assert metrics["cpu_s_per_s"] == 0.01


def test_rates_that_cannot_be_told_are_marked(metrics: dict[str, Any]) -> None:
    """In halves of two hours 0.1 an hour cannot be told from none, 0.5 can."""
    assert [at(metrics, "held_out", rate)["resolvable"] for rate in RATES_PER_HOUR] == [False, True, True, True, True]
    assert "0.1 *" in markdown(streams_table(report(two_halves())))


def test_the_operating_point_by_hand(metrics: dict[str, Any]) -> None:
    """By label, in speech and in noise, at 1 false alarm per hour, held out."""
    point = metrics["operating_point"]
    assert point["by_label"] == {
        "no": {"words": 0, "misses": 0, "false_alarms": 20},
        "yes": {"words": 20, "misses": 2, "false_alarms": 0},
    }
    assert (point["in_speech"]["false_alarms"], point["in_noise"]["false_alarms"]) == (10, 10)
    assert point["confusions"] == []


def test_the_operating_point_says_what_came_and_of_what(metrics: dict[str, Any]) -> None:
    """Beside the rate that was wanted stand the one that came, the thresholds, and that they are held out."""
    wanted, point = at(metrics, "held_out", 1.0), metrics["operating_point"]
    assert not point["in_sample"]
    for key in ("thresholds", "misses", "miss_rate_interval", "false_alarms_per_hour"):
        assert point[key] == wanted[key]


def test_latency_counts_from_the_end_of_the_word(metrics: dict[str, Any]) -> None:
    """Peaks that start 0.2 s before the end of the word are decided 0.15 s before it, at the end of a hop."""
    late = metrics["operating_point"]["latency_from_word_end_s"]
    assert (late["p50"], late["p95"], late["hits"]) == (pytest.approx(-0.15), pytest.approx(-0.15), 18)


def test_speakers_are_told_apart_by_what_the_manifest_says_of_them() -> None:
    """Bob's friend is Scottish and causes the ten alarms heard while he speaks; those outside are nobody's."""
    traits = {"ann": (("age", "child"),), "bob": (("age", "adult"),), "bob's friend": (("accent", "scotland"),)}
    recordings = [
        replace(
            one,
            recording=replace(
                one.recording,
                stretches=tuple(replace(s, traits=traits.get(s.speaker, ())) for s in one.recording.stretches),
            ),
        )
        for one in two_halves()
    ]
    found = report(recordings)
    by_trait = to_json(found)["operating_point"]["by_trait"]
    scots = by_trait["accent"]["scotland"]
    assert (scots["words"], scots["false_alarms"], scots["hours"]) == (0, 10, pytest.approx(950 / 3600, abs=1e-6))
    assert scots["false_alarms_per_hour"] == pytest.approx(10 * 3600 / 950, abs=1e-4)
    assert {age: (found["words"], found["misses"]) for age, found in by_trait["age"].items()} == {
        "adult": (10, 0),
        "child": (10, 2),
    }
    assert by_trait["age"]["child"]["false_alarms_per_hour"] is None
    assert "| scotland | 0 |  |  | 0.26 | 10 | 37.89 | 18.17 to 69.69 |" in markdown(streams_table(found))
    assert "by_trait" not in to_json(report(two_halves()))["operating_point"]


def test_the_curve_agrees_with_the_counts(metrics: dict[str, Any]) -> None:
    """The curve has a point for each threshold, rising, with all words missed at its end."""
    det = metrics["det"]
    assert det["threshold"] == sorted(det["threshold"])
    assert (det["miss_rate"][-1], det["false_alarms"][-1]) == (1.0, 0)
    np.testing.assert_allclose(np.array(det["false_alarms"]) / 4, det["false_alarms_per_hour"])


def test_one_group_of_speakers_is_reported_in_sample() -> None:
    """Where a speaker is in every recording, thresholds are in-sample, and the table says so."""
    recordings = [replace(one, recording=replace(one.recording, stretches=(yes(1, 2),))) for one in two_halves()]
    found = report(recordings)
    assert found.scores.held_out.in_sample
    assert found.scores.held_out.halves == ()
    assert found.scores.operating_point.details is not None
    assert found.scores.operating_point.details.in_sample
    assert "chosen on the same recordings" in markdown(streams_table(found))


def test_a_rate_that_no_threshold_gives() -> None:
    """A label that fires at certainty leaves rates unreached: no figures are made up for them."""
    peaks = [("no", 2.0 * i, 1.0) for i in range(1, 25)]
    metrics = report([heard(peaks, (yes(55, 56),))])
    found = to_json(metrics)
    assert not any(point["reached"] for point in found["held_out"]["rates"])
    assert found["operating_point"] == {"rate_per_hour": 1.0, "reached": False}
    assert "not reached" in markdown(streams_table(metrics))


def test_confusions_are_paired() -> None:
    """What was said and what was heard instead are counted together."""
    words = tuple(yes(10.0 * i, 10.0 * i + 1) for i in range(1, 4))
    peaks = [("no", word.start_s + 0.5, 0.9) for word in words]
    long = heard([*peaks, ("yes", 100.0, 0.99)], words, 4 * 3600)
    found = to_json(evaluate_streams([long], CONFIG, OWN))
    assert found["operating_point"]["confusions"] == [{"said": "yes", "heard": "no", "count": 3}]


def test_nothing_to_count_is_an_error() -> None:
    """Recordings without a keyword have no miss rate."""
    with pytest.raises(DataError, match="no keywords"):
        evaluate_streams([heard([])], CONFIG, OWN)
    with pytest.raises(DataError, match="no keywords"):
        evaluate_streams([], CONFIG, OWN)


def test_the_same_recordings_give_the_same_report(tmp_path: Path, metrics: dict[str, Any]) -> None:
    """Figures and picture come out alike to the last byte."""
    again = report(two_halves())
    assert json.dumps(to_json(again)) == json.dumps(metrics)
    for name in ("a.png", "b.png"):
        plot_det(again, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert matplotlib.image.imread(tmp_path / "a.png").std() > 0.05


# ---- the command


@pytest.fixture(scope="module")
def stream_set(tmp_path_factory: pytest.TempPathFactory, long_recording: Path) -> Path:
    """A manifest of two speakers' recordings of three words each, one of noise, and a missing one."""
    folder = tmp_path_factory.mktemp("set")
    lines: list[dict[str, Any] | str] = []
    for speaker in ("ann", "bob"):
        (folder / f"{speaker}.flac").write_bytes(long_recording.read_bytes())
        for start_s, label in ((1.0, "yes"), (3.0, "left"), (5.0, "stop")):
            lines.append(
                {
                    "file": f"{speaker}.flac",
                    "label": label,
                    "start_s": start_s,
                    "end_s": start_s + 1,
                    "speaker": speaker,
                }
            )
    write_sound(folder / "noise.wav", 5.0)
    lines.append({"file": "noise.wav", "label": "silence", "start_s": 0, "end_s": 5, "speaker": ""})
    return write_manifest(folder / "manifest.jsonl", lines)


@pytest.fixture(scope="module")
def evaluated(stream_set: Path) -> tuple[Any, Path]:
    out = stream_set.parent / "out"
    options = ["--manifest", stream_set, "--out", out, "--save-config", out / "c.json"]
    return run_cli("evaluate-stream", "small", *options), out


def test_the_command_reports(evaluated: tuple[Any, Path]) -> None:
    """`evaluate-stream` prints the tables and writes metrics.json and det.png."""
    done, out = evaluated
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 keywords of 2 speakers in 3 recordings" in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert at(metrics, "everything", 1.0)["misses"] == 0
    assert metrics["manifest"]["left_out"] == []
    assert (out / "det.png").read_bytes()[:4] == b"\x89PNG"


def test_saved_settings_can_be_used(evaluated: tuple[Any, Path], stream_set: Path, tmp_path: Path) -> None:
    """What --save-config wrote is read by --config and moves the threshold."""
    out = evaluated[1]
    metrics = json.loads((out / "metrics.json").read_text())
    config = read_config(out / "c.json", StreamModel("small").metadata)
    assert config.threshold == at(metrics, "everything", 1.0)["thresholds"][0]
    again = run_cli("evaluate-stream", "small", "--manifest", stream_set, "--out", tmp_path, "--config", out / "c.json")
    assert again.returncode == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["detector"]["threshold"] == config.threshold


def test_the_metrics_say_where_settings_were_chosen(
    evaluated: tuple[Any, Path], stream_set: Path, tmp_path: Path
) -> None:
    """Settings of --save-config know their recordings: on these they were chosen here, on others not; nothing is known
    of the model's own."""
    config = ["--config", evaluated[1] / "c.json"]
    other = stream_set.parent / "other.jsonl"
    other.write_text(stream_set.read_text() + "\n")
    found = []
    for manifest, options in ((stream_set, []), (stream_set, config), (other, config)):
        done = run_cli("evaluate-stream", "small", "--manifest", manifest, "--out", tmp_path, *options)
        assert done.returncode == 0
        found.append(json.loads((tmp_path / "metrics.json").read_text())["settings"]["chosen_here"])
    assert found == [None, True, False]


def test_the_metrics_say_how_the_streams_were_made(stream_set: Path, tmp_path: Path) -> None:
    """With the stream.json of `make-stream` in the folder above, its settings are kept, unless it is of others."""
    condition = tmp_path / "snr10"
    condition.mkdir()
    for file in stream_set.parent.iterdir():
        if file.is_file():
            (condition / file.name).write_bytes(file.read_bytes())
    for sha256, expected in ((sha256_of(stream_set), 7), ("0" * 64, None)):
        summary = {"settings": {"seed": 7}, "recordings_sha256": "abc", "manifest_sha256": sha256}
        (tmp_path / "stream.json").write_text(json.dumps(summary))
        origin = origin_of(condition / stream_set.name)
        assert (origin and origin.settings["seed"]) == expected
    (tmp_path / "stream.json").write_text(json.dumps({**summary, "manifest_sha256": sha256_of(stream_set)}))
    done = run_cli("evaluate-stream", "small", "--manifest", condition / stream_set.name, "--out", tmp_path / "out")
    assert done.returncode == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["manifest"]["origin"]
    assert found == {"condition": "snr10", "settings": {"seed": 7}, "recordings_sha256": "abc"}


def test_a_place_that_cannot_be_written_is_said_before_the_work(stream_set: Path, tmp_path: Path) -> None:
    """With a folder where metrics.json is to be, nothing is listened to, and the folder stays empty."""
    (tmp_path / "metrics.json").mkdir()
    done = run_cli("evaluate-stream", "small", "--manifest", stream_set, "--out", tmp_path)
    assert done.returncode == 1
    assert "is a folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_a_bad_recording_is_named_and_the_rest_evaluated(stream_set: Path, tmp_path: Path) -> None:
    """A missing file and an unknown label are a line each on stderr; the others are evaluated, the status is 1."""
    bad = [{**LINE, "file": "gone.wav"}, {**LINE, "file": "b.wav", "label": "banana"}]
    manifest = stream_set.parent / "bad.jsonl"
    manifest.write_text(stream_set.read_text() + "".join(json.dumps(line) + "\n" for line in bad))
    done = run_cli("evaluate-stream", "small", "--manifest", manifest, "--out", tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert "gone.wav" in done.stderr
    assert "line 9: found the label 'banana'" in done.stderr
    assert "6 keywords" in done.stdout
    assert len(json.loads((tmp_path / "metrics.json").read_text())["manifest"]["left_out"]) == 2


def test_words_that_do_not_count_are_other_speech(stream_set: Path) -> None:
    """With words chosen, any other word of the manifest is other speech, known to the model or not."""
    lines = [{**LINE, "file": "a.wav", "label": label, "start_s": t, "end_s": t + 1} for t, label in enumerate(WORDS)]
    lines.append({**LINE, "file": "a.wav", "label": "banana", "start_s": 9, "end_s": 10})
    manifest = write_manifest(stream_set.parent / "some.jsonl", lines)
    (recording,), problems = read_manifest(manifest, WORDS, ("no",))
    assert problems == []
    assert [stretch.label for stretch in recording.stretches] == [SILENCE, UNKNOWN, UNKNOWN, "no", UNKNOWN]
    assert read_manifest(manifest, WORDS)[0] == []


def test_only_chosen_words_are_events_and_counted(stream_set: Path, tmp_path: Path) -> None:
    """With `--words stop,yes` the word left is neither missed nor a false alarm, and the settings say so."""
    options = ["--manifest", stream_set, "--out", tmp_path, "--words", "stop,yes"]
    done = run_cli("evaluate-stream", "small", *options)
    assert (done.returncode, done.stderr) == (0, "")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["audio"]["keywords"] == 4
    assert set(metrics["operating_point"]["by_label"]) == {"stop", "yes"}
    assert metrics["detector"]["words"] == ["stop", "yes"]
    assert metrics["audio"]["speech_hours"] == pytest.approx(6 / 3600, abs=1e-6)


def test_a_word_that_the_model_does_not_know_cannot_be_chosen(stream_set: Path, tmp_path: Path) -> None:
    """`--words` with another word is a wrong use, and nothing is listened to."""
    done = run_cli("evaluate-stream", "small", "--manifest", stream_set, "--out", tmp_path, "--words", "banana")
    assert done.returncode == 2
    assert "--words: found 'banana'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/streams/**/metrics.json")), ids=str)
def test_published_measures_of_streams_can_be_read(path: Path) -> None:
    """Every committed evaluation in streams comes back as it was written, but for settings that are newer than it."""
    written, read = json.loads(path.read_text()), to_json(read_stream_metrics(path))
    assert read == {**written, "detector": {**to_json(DetectorConfig()), **written["detector"]}}


def test_the_tables_in_the_terminal_are_in_line(evaluated: tuple[Any, Path]) -> None:
    """Columns of numbers end in line, and no Markdown is among them."""
    lines = evaluated[0].stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split() == ["label", "words", "missed", "false", "alarms"])
    assert {len(line) for line in lines[head : head + 4]} == {len(lines[head])}
    assert "|" not in evaluated[0].stdout


@pytest.mark.parametrize(
    ("options", "status"),
    [(["--manifest", "no.jsonl"], 1), (["--manifest", "no.jsonl", "--rule", "best"], 2), ([], 2)],
)
def test_wrong_use_of_the_command_is_one_line(tmp_path: Path, options: list[str], status: int) -> None:
    """A missing manifest is a failed job, an unknown rule or no manifest a wrong use."""
    done = run_cli("evaluate-stream", "small", *options, "--out", tmp_path / "out", cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)
    assert not (tmp_path / "out").exists()
