"""Probabilities over time become events, each word once, whatever the chunks they come in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_kws.artefact.runtime import Classifier, SlidingWindow, Stream, StreamModel, open_model
from tiny_kws.artefact.store import find_model
from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE, DetectorConfig
from tiny_kws.data.spans import find_word
from tiny_kws.data.speech_commands import KEYWORDS, LABELS
from tiny_kws.errors import AudioError, KwsError, ModelError, UsageError
from tiny_kws.listening import decoder
from tiny_kws.listening.decoder import Decoder, Detection, check_config
from tiny_kws.listening.detector import Detector, config_of, read_config, write_config

from .helpers import changed_artefact, speech_like, validation_sample

Rows = npt.NDArray[np.float32]

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = ("silence", "unknown", "yes", "no")
YES, NO = 2, 3
HOP_S = 0.1
PLAIN = DetectorConfig(
    hop_ms=100, smoothing_ms=0, threshold=0.8, thresholds={}, min_duration_ms=0, release=0.5, refractory_ms=0
)
"""Every setting given, and every stage of the decoder but threshold and hysteresis without effect."""

HEARING = DetectorConfig(
    hop_ms=100, smoothing_ms=200, threshold=0.4, thresholds={}, min_duration_ms=0, release=0.5, refractory_ms=700
)
"""For trained models: so low a threshold that some events are sure to come."""

any_model = pytest.mark.parametrize("name", ["small", "ds-cnn"])


def track(*values: float, column: int = YES) -> Rows:
    """Rows of probabilities in which one label takes `values` in turn and `unknown` the rest."""
    rows = np.zeros((len(values), len(WORDS)), np.float32)
    rows[:, column] = values
    rows[:, 1] += 1 - rows[:, column]
    return rows


def decoded(rows: Rows, **changes: Any) -> list[tuple[str, float]]:
    """Label and row of decision of the events in `rows`."""
    events = Decoder(WORDS, HOP_S, replace(PLAIN, **changes)).process(rows)
    return [(event.label, round(event.end_s / HOP_S - 1)) for event in events]


def pieces(values: npt.NDArray[Any], sizes: list[int]) -> Iterator[npt.NDArray[Any]]:
    """`values` in pieces of `sizes`, over and over."""
    start, turn = 0, 0
    while start < len(values):
        size = sizes[turn % len(sizes)]
        yield values[start : start + size]
        start, turn = start + size, turn + 1


def spoken(names: list[str], pause_s: float = 1.0) -> Samples:
    """The examples of `names`, each with a pause of quiet noise behind it."""
    rng = np.random.default_rng(0)
    paths = {path.stem: path for path in EXAMPLES.iterdir()}
    parts = []
    for name in names:
        parts += [read_mono(paths[name]), rng.normal(0, 1e-3, round(pause_s * SAMPLE_RATE)).astype(np.float32)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def models() -> dict[str, StreamModel | Classifier]:
    """The bundled models: one that streams, one that slides."""
    return {name: open_model(name) for name in ("small", "ds-cnn")}


# Decoder: what is an event


def test_a_word_is_an_event_once() -> None:
    """A label at its threshold is an event in the first row of it, and not again while it stays there."""
    assert decoded(track(0.1, 0.79, 0.8, 0.9, 1.0, 0.9, 0.1)) == [("yes", 2)]


def test_fields_of_an_event() -> None:
    """An event says when it was decided, where the word began by its rise, and how sure the average was."""
    rows = track(*[0.0] * 30, 0.5, 1.0, 1.0)
    (event,) = Decoder(WORDS, HOP_S, replace(PLAIN, smoothing_ms=200, threshold=0.7)).process(rows)
    assert event == Detection("yes", start_s=2.866667, end_s=3.2, confidence=0.75)


def test_nothing_starts_before_the_stream() -> None:
    """An event in the first second starts at 0."""
    (event,) = Decoder(WORDS, HOP_S, PLAIN).process(track(0.0, 1.0))
    assert (event.start_s, event.end_s) == (0.0, 0.2)


@pytest.mark.parametrize("n_smoothed", [1, 2, 3, 7])
def test_smoothing_is_the_mean_of_the_past(n_smoothed: int) -> None:
    """Averages are means over the rows of `smoothing_ms`, with silence before the first."""
    rows = np.random.default_rng(0).dirichlet(np.ones(len(WORDS)), 50).astype(np.float32)
    averages = Decoder(WORDS, HOP_S, replace(PLAIN, smoothing_ms=100 * n_smoothed)).step(rows)[0]
    for column, found in zip((YES, NO), averages.T, strict=True):
        expected = np.convolve(rows[:, column].astype(float), np.full(n_smoothed, 1 / n_smoothed))[: len(rows)]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_smoothing_passes_over_a_spike() -> None:
    """One high row among low ones is no event when averaged over three, three are one."""
    assert decoded(track(0.0, 0.0, 1.0, 0.0, 0.0), smoothing_ms=300) == []
    assert decoded(track(0.0, 1.0, 1.0, 1.0, 0.0), smoothing_ms=300) == [("yes", 3)]


def test_minimum_duration() -> None:
    """A label is an event in the row in which it has been at its threshold for `min_duration_ms` without a break."""
    rows = track(0.9, 0.9, 0.7, 0.9, 0.9, 0.9, 0.9)
    assert decoded(rows, min_duration_ms=300) == [("yes", 5)]
    assert decoded(rows, min_duration_ms=400) == [("yes", 6)]
    assert decoded(rows, min_duration_ms=500) == []


def test_minimum_duration_is_broken_between_words() -> None:
    """Rows in which no label reaches its threshold end the duration too, however few they are."""
    rows = np.concatenate([track(0.9), track(0.1), track(0.9)])
    assert decoded(rows, min_duration_ms=200) == []


def test_hysteresis() -> None:
    """Between the threshold and `release` times it, a word that was reported is still the same word."""
    assert decoded(track(0.9, 0.41, 0.9, 0.5, 0.9)) == [("yes", 0)]
    assert decoded(track(0.9, 0.39, 0.9)) == [("yes", 0), ("yes", 2)]
    assert decoded(track(0.5, 0.25, 0.5), threshold=0.5) == [("yes", 0)]
    assert decoded(track(0.9, 0.79, 0.9), release=1.0) == [("yes", 0), ("yes", 2)]


def test_rise() -> None:
    """A label that takes longer than `rise_ms` from its release to its event is none until it fell below that again."""
    slow = track(0.1, 0.5, 0.6, 0.9, 0.9)
    assert decoded(slow, rise_ms=300) == [("yes", 3)]
    assert decoded(slow, rise_ms=200) == []
    assert decoded(np.concatenate([slow, track(0.1, 0.5, 0.9)]), rise_ms=200) == [("yes", 7)]
    assert decoded(track(0.1, 0.9, 0.9, 0.9), rise_ms=200, min_duration_ms=200) == [("yes", 2)]
    assert decoded(track(0.5, 0.9), rise_ms=100) == []


def test_another_label_does_not_wait_for_the_release() -> None:
    """Hysteresis of one label does not hold back another."""
    rows = np.zeros((3, 4), np.float32)
    rows[:, YES], rows[2, NO] = 0.5, 0.9
    rows[0, YES] = 0.9
    assert decoded(rows) == [("yes", 0), ("no", 2)]


@pytest.mark.parametrize("column", [YES, NO])
def test_refractory_time(column: int) -> None:
    """Within `refractory_ms` of an event no label is one, not even another; after it the same words are."""
    second = track(0.9, column=column)
    for gap in range(1, 6):
        rows = np.concatenate([track(0.9, *[0.0] * gap), second])
        expected = [("yes", 0)] + [(WORDS[column], gap + 1)] * (gap + 1 >= 4)
        assert decoded(rows, refractory_ms=400) == expected


def test_a_word_that_outlasts_the_refractory_time_is_heard_then() -> None:
    """A label that came amid the refractory time and is still there at its end is an event at its end."""
    rows = np.concatenate([track(0.9, 0.0), track(*[0.9] * 4, column=NO)])
    assert decoded(rows, refractory_ms=400) == [("yes", 0), ("no", 4)]


def test_the_likeliest_of_several() -> None:
    """Of labels at their thresholds in one row the likeliest is the event."""
    rows = np.array([[0, 0, 0.3, 0.4], [0, 0, 0.0, 0.0], [0, 0, 0.4, 0.3]], np.float32)
    assert decoded(rows, threshold=0.2, refractory_ms=200) == [("no", 0), ("yes", 2)]


def test_thresholds_of_their_own() -> None:
    """A label's own threshold, lower or higher, stands in for the common one, for the release too."""
    rows = np.concatenate([track(0.6, 0.0), track(0.6, 0.0, column=NO)])
    assert decoded(rows, thresholds={"no": 0.5}) == [("no", 2)]
    assert decoded(rows, threshold=0.5, thresholds={"no": 0.7}) == [("yes", 0)]
    assert decoded(track(0.6, 0.3, 0.6), thresholds={"yes": 0.5}) == [("yes", 0)]


def test_silence_and_unknown_are_never_events() -> None:
    """However likely silence or something unknown is, nothing is reported."""
    rows = np.zeros((20, 4), np.float32)
    rows[:10, 0], rows[10:, 1] = 1.0, 1.0
    assert decoded(rows, threshold=0.01) == []


def test_rows_of_another_width_are_refused() -> None:
    """Rows that do not have one column a label are refused."""
    decoder = Decoder(WORDS, HOP_S, PLAIN)
    for rows in (np.zeros((3, 5)), np.zeros(4), np.zeros((1, 3, 4))):
        with pytest.raises(UsageError, match=r"expected \(rows, 4\)"):
            decoder.process(rows)


def test_the_json_form_of_an_event() -> None:
    """An event is one line of JSON with its keys in one order, where it was heard first; all of it is ASCII."""
    event = Detection("g\u00f6\x9b2J\u202e\n", 1.0, 2.5, 0.875)
    line = event.to_json(file="b\u00e4r.mp3")
    assert list(json.loads(line).items()) == [
        ("file", "b\u00e4r.mp3"),
        ("time", None),
        ("label", event.label),
        ("start_s", 1.0),
        ("end_s", 2.5),
        ("confidence", 0.875),
    ]
    assert line.isascii()
    assert line.isprintable()
    heard_live = json.loads(event.to_json(time="2026-05-04T03:02:01.000Z"))
    assert (heard_live["file"], heard_live["time"]) == (None, "2026-05-04T03:02:01.000Z")


def test_the_documented_form_is_the_form() -> None:
    """The example and the table of the document have the keys of an event, in their order."""
    text = (EXAMPLES.parent / "docs" / "first-voice-command.md").read_text(encoding="utf-8")
    keys = list(json.loads(Detection("stop", 0.0, 1.0, 0.9).to_json()))
    (example,) = [line for line in text.splitlines() if line.startswith('{"file"')]
    assert list(json.loads(example)) == keys
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == keys


# Decoder: the division into calls


def wandering(rng: np.random.Generator, n_rows: int) -> Rows:
    """Rows that wander between the labels, with long words and short ones."""
    logits = np.cumsum(rng.normal(0, 1.5, (n_rows, len(WORDS))), axis=0)
    logits -= logits.mean(0)
    likelihoods = np.exp(logits - logits.max(1, keepdims=True))
    return (likelihoods / likelihoods.sum(1, keepdims=True)).astype(np.float32)


configs = st.builds(
    DetectorConfig,
    hop_ms=st.just(100.0),
    smoothing_ms=st.integers(0, 600),
    threshold=st.floats(0.2, 0.95),
    thresholds=st.sampled_from([{}, {"no": 0.5}]),
    min_duration_ms=st.integers(0, 500),
    release=st.floats(0.1, 1.0),
    rise_ms=st.just(0) | st.integers(500, 1500),
    refractory_ms=st.integers(0, 1500),
)


@settings(max_examples=150, deadline=None)
@given(
    config=configs,
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any),
    seed=st.integers(0, 2**16),
    block_rows=st.sampled_from([1, 2, 7, decoder.BLOCK_ROWS]),
)
def test_any_division_gives_the_same(config: DetectorConfig, sizes: list[int], seed: int, block_rows: int) -> None:
    """However rows are divided over calls and blocks, averages and events are the same to the last bit."""
    rows = wandering(np.random.default_rng(seed), 300)
    expected_averages, expected = Decoder(WORDS, HOP_S, config).step(rows)
    for each in (sizes, [1]):
        divided = Decoder(WORDS, HOP_S, config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoder, "BLOCK_ROWS", block_rows)
            steps = [divided.step(piece) for piece in pieces(rows, each)]
        np.testing.assert_array_equal(np.concatenate([averages for averages, _ in steps]), expected_averages)
        assert [event for _, events in steps for event in events] == expected


def test_words_are_the_only_ones() -> None:
    """Only words that the settings name are events, whatever the order of the columns."""
    rows = np.zeros((40, 4), np.float32)
    rows[10:14, 0] = rows[30:34, 2] = 1.0
    labels = ("no", "unknown", "yes", "silence")
    assert [event.label for event in Decoder(labels, HOP_S, PLAIN).process(rows)] == ["no", "yes"]
    only = Decoder(labels, HOP_S, replace(PLAIN, words=("yes",)))
    assert only.words == ("yes",)
    assert [event.label for event in only.process(rows)] == ["yes"]


@pytest.mark.parametrize("config", [PLAIN, replace(PLAIN, smoothing_ms=300, words=("no",))], ids=["plain", "words"])
def test_no_order_of_the_labels_matters(config: DetectorConfig) -> None:
    """Columns in another order, or without silence and unknown, give the same events."""
    rows = np.concatenate([wandering(np.random.default_rng(seed), 300) for seed in range(10)])
    expected = Decoder(WORDS, HOP_S, config).process(rows)
    assert len(expected) > 10
    for order in ([3, 1, 0, 2], [1, 2, 3, 0], [NO, YES], [YES, NO]):
        labels = [WORDS[i] for i in order]
        assert Decoder(labels, HOP_S, config).process(rows[:, order]) == expected


def test_a_model_of_words_alone(tmp_path: Path) -> None:
    """A model without silence and unknown is heard; each of its labels is a word."""
    names = {"silence": "quiet", "unknown": "other"}
    labels = [names.get(label, label) for label in LABELS]
    path = changed_artefact(find_model("small", "stream"), tmp_path / "own.stream.onnx", labels=labels)
    detector = Detector(path, HEARING)
    assert detector.words == detector.labels == tuple(labels)
    assert [event.label for event in detector.detect(np.zeros(SAMPLE_RATE))] == ["quiet"]


def test_words_that_are_not_there_are_refused() -> None:
    """A word that no label is, or that is no word, is an error that names those there are."""
    for word in ("maybe", "silence"):
        with pytest.raises(UsageError, match=f"found the word '{word}' to listen for, expected one or more of yes, no"):
            Decoder(WORDS, HOP_S, replace(PLAIN, words=("yes", word)))


@pytest.mark.parametrize("n_risen", [1, 2, 9])
def test_an_event_starts_before_its_rise(n_risen: int) -> None:
    """An event starts a third of a window before its label was no longer low, whatever the length of the window."""
    rows = track(*[0.0] * 30, *[0.5] * (n_risen - 1), 1.0)
    (event,) = Decoder(WORDS, HOP_S, PLAIN, window_s=1.5).process(rows)
    assert (event.start_s, event.end_s) == pytest.approx((3.1 - 0.5, 3.0 + 0.1 * n_risen))


def test_an_event_is_no_longer_than_the_window() -> None:
    """A label that was never low before its event starts a window before that."""
    rows = track(*[0.0] * 5, *[0.5] * 60, 1.0)
    (event,) = Decoder(WORDS, HOP_S, PLAIN, window_s=1.5).process(rows)
    assert (event.start_s, event.end_s) == pytest.approx((6.6 - 1.5, 6.6))


@pytest.mark.data
def test_events_lie_where_words_do(shared_data: Path) -> None:
    """Half of the words that are heard start within 0.06 s of where their sound does, nine tenths within 0.2 s."""
    detector, errors_s = Detector(), []
    rng = np.random.default_rng(0)
    for label, clip in validation_sample(shared_data):
        span = find_word(clip)
        if label not in detector.words or span is None:
            continue
        sound = np.pad(clip, SAMPLE_RATE) + rng.normal(0, 1e-3, 3 * SAMPLE_RATE)
        word_s = 1 + span[0] / SAMPLE_RATE
        heard = detector.detect(sound.astype(np.float32))
        errors_s += [abs(event.start_s - word_s) for event in heard if event.label == label]
    assert len(errors_s) > 50
    assert np.percentile(errors_s, 50) < 0.06
    assert np.percentile(errors_s, 90) < 0.2


@settings(max_examples=100, deadline=None)
@given(config=configs, seed=st.integers(0, 2**16))
def test_the_rules_hold_for_any_rows(config: DetectorConfig, seed: int) -> None:
    """Events follow the rules, told row by row: at the threshold for long enough, released, in time, not refractory."""
    rows = wandering(np.random.default_rng(seed), 300)
    decoder = Decoder(WORDS, HOP_S, config)
    averages, found = decoder.step(rows)
    n_held, n_rise, n_refractory = (
        max(1, round(ms / 100)) for ms in (config.min_duration_ms, config.rise_ms, config.refractory_ms)
    )
    expected: list[tuple[str, int]] = []
    released, lows = dict.fromkeys(decoder.words, True), dict.fromkeys(decoder.words, -1)
    for i, average in enumerate(averages):
        ready = []
        for j, word in enumerate(decoder.words):
            threshold = config.thresholds.get(word, config.threshold)
            if average[j] < config.release * threshold:
                released[word], lows[word] = True, i
            if config.rise_ms and i - lows[word] > n_rise:
                continue
            if released[word] and i + 1 >= n_held and (averages[i + 1 - n_held : i + 1, j] >= threshold).all():
                ready.append((average[j], word))
        if ready and (not expected or i - expected[-1][1] >= n_refractory):
            expected.append((max(ready)[1], i))
            released[expected[-1][0]] = False
    assert [(event.label, round(event.end_s / HOP_S) - 1) for event in found] == expected


@pytest.mark.parametrize("before", range(7))
def test_a_word_across_the_border_of_a_block(before: int) -> None:
    """A word that straddles the border of a block is one event, in its place, for each place it can have there."""
    n_rows = decoder.BLOCK_ROWS + 20
    start = decoder.BLOCK_ROWS - before
    values = np.zeros(n_rows)
    values[start : start + 6] = 0.9
    assert decoded(track(*values), smoothing_ms=200, min_duration_ms=300, threshold=0.85) == [("yes", start + 3)]


@pytest.mark.parametrize("n_before", [0, 5])
def test_reset(n_before: int) -> None:
    """After a reset in the middle of a word nothing of it is left: averages, durations, refractory time, clock."""
    config = replace(PLAIN, smoothing_ms=300, min_duration_ms=200, refractory_ms=1000)
    rows = track(*[0.0] * n_before, *[1.0] * 8)
    expected = Decoder(WORDS, HOP_S, config).process(rows)
    decoder = Decoder(WORDS, HOP_S, config)
    for n_rows in (3, 8, len(rows)):
        decoder.process(rows[:n_rows])
        decoder.reset()
        assert decoder.process(rows) == expected
        decoder.reset()
    assert len(expected) == 1


# Settings


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"threshold": 1.01}, "threshold is 1.01"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": "high"}, "threshold is 'high'"),
        ({"threshold": None}, "threshold is None"),
        ({"thresholds": {"yes": 2}}, "threshold for 'yes' is 2"),
        ({"thresholds": {"maybe": 0.5}}, "threshold for 'maybe', expected one of yes, no"),
        ({"thresholds": {"unknown": 0.5}}, "threshold for 'unknown'"),
        ({"thresholds": [0.5]}, r"thresholds are \[0.5\]"),
        ({"release": 0.0}, "release.* is 0.0"),
        ({"release": 1.1}, "release.* is 1.1"),
        ({"smoothing_ms": -1}, "smoothing_ms is -1"),
        ({"min_duration_ms": float("inf")}, "min_duration_ms is inf"),
        ({"refractory_ms": "long"}, "refractory_ms is 'long'"),
        ({"rise_ms": 100, "min_duration_ms": 200}, "rise_ms is 100, expected 0 or no less than min_duration_ms, 200"),
        ({"hop_ms": 0}, "hop is 0"),
        ({"hop_ms": 1001}, "hop is 1001"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(changes: dict[str, Any], reason: str) -> None:
    """A setting out of range, of another type or for a label that is not there is refused, and named."""
    config = replace(PLAIN, **changes)
    with pytest.raises(UsageError, match=reason):
        check_config(config, WORDS)
    with pytest.raises(UsageError, match=reason):
        Decoder(WORDS, HOP_S, config)


def test_the_defaults_make_sense() -> None:
    """The package's own settings pass."""
    check_config(DetectorConfig(), LABELS)


def test_a_settings_file_comes_back(models: dict[str, StreamModel | Classifier], tmp_path: Path) -> None:
    """What `write_config` writes, `read_config` reads, for the same network however it was exported."""
    config = DetectorConfig(80.0, 160.0, 0.7, {"yes": 0.6, "go": 0.95}, 60.0, 0.4, 900.0, words=("yes", "go"))
    write_config(tmp_path / "room.json", config, models["small"], {"misses": 0.05})
    assert read_config(tmp_path / "room.json", models["small"].metadata) == config
    assert read_config(tmp_path / "room.json", Classifier("small").metadata) == config
    assert json.loads((tmp_path / "room.json").read_text())["expected"] == {"misses": 0.05}


def test_a_settings_file_of_another_model(models: dict[str, StreamModel | Classifier], tmp_path: Path) -> None:
    """Settings made for one network are refused for another, and both are named."""
    write_config(tmp_path / "room.json", PLAIN, models["ds-cnn"])
    with pytest.raises(UsageError, match="made for the model 'ds-cnn' and not for this 'small'"):
        read_config(tmp_path / "room.json", models["small"].metadata)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: b"\xff\xfe no text", "holds no detector settings"),
        (lambda content: b"[]", "holds no detector settings"),
        (lambda content: b"", "holds no detector settings"),
        (lambda content: content.replace(b'"format": 1', b'"format": 2'), "format 2, expected 1"),
        (lambda content: content.replace(b'"detector"', b'"settings"'), "holds no detector settings"),
        (lambda content: content.replace(b'"smoothing_ms"', b'"smooth"'), "found the settings smooth"),
        (lambda content: content.replace(b'"threshold": 0.8', b'"threshold": 8'), "threshold is 8"),
        (lambda content: content.replace(b'"thresholds": {}', b'"thresholds": {"hey": 0.5}'), "for 'hey'"),
        (lambda content: content.replace(b'"thresholds": {}', b'"thresholds": 5'), "thresholds are 5"),
        (lambda content: json.dumps({**json.loads(content), "detector": 5}).encode(), "holds no detector settings"),
    ],
)
def test_a_settings_file_that_is_none(
    models: dict[str, StreamModel | Classifier], tmp_path: Path, change: Any, reason: str
) -> None:
    """A file with anything else in it is refused, and says what is wrong."""
    path = tmp_path / "room.json"
    write_config(path, PLAIN, models["ds-cnn"])
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(UsageError, match=reason) as caught:
        read_config(path, models["ds-cnn"].metadata)
    assert str(path) in str(caught.value)


def test_a_missing_settings_file(models: dict[str, StreamModel | Classifier], tmp_path: Path) -> None:
    """A settings file that is not there, or is a folder, is named."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_config(path, models["ds-cnn"].metadata)


def test_an_artefact_carries_its_settings(tmp_path: Path) -> None:
    """A detector takes the settings that its artefact carries, and the package's for what it does not carry."""
    carried = {"threshold": 0.31, "thresholds": {"yes": 0.5}}
    path = changed_artefact(find_model("small", "stream"), tmp_path / "own.stream.onnx", detector=carried)
    expected = DetectorConfig(threshold=0.31, thresholds={"yes": 0.5})
    assert Detector(path).config == config_of(StreamModel(path)) == expected
    assert Detector(path, PLAIN).config == PLAIN


@pytest.mark.parametrize(
    "carried",
    [{"threshold": 7}, {"thresholds": {"maybe": 0.5}}, {"colour": "red"}, {"thresholds": []}, [1], 5],
    ids=str,
)
def test_an_artefact_with_foreign_settings(tmp_path: Path, carried: Any) -> None:
    """Settings in an artefact that make no sense are the artefact's fault, and say so."""
    path = changed_artefact(find_model("small", "stream"), tmp_path / "own.stream.onnx", detector=carried)
    with pytest.raises(ModelError, match=r"own\.stream\.onnx"):
        Detector(path)


# A clip artefact over a stream


def test_a_sliding_window_is_the_classifier_on_each_second(models: dict[str, StreamModel | Classifier]) -> None:
    """A sliding window gives what the clip artefact gives on the second before each hop, with silence at first."""
    model = models["ds-cnn"]
    assert isinstance(model, Classifier)
    rng = np.random.default_rng(0)
    audio = np.concatenate([speech_like(rng), speech_like(rng)])[:29_000].astype(np.float32)
    window = SlidingWindow(model, 250)
    answers = window.process(audio)
    padded = np.pad(audio, (CLIP_SAMPLES, 0))
    ends = range(window.hop, len(audio) + 1, window.hop)
    expected = model.probabilities(np.stack([padded[end : end + CLIP_SAMPLES] for end in ends]))
    assert answers.shape == (7, len(LABELS))
    np.testing.assert_allclose(answers, expected, atol=1e-6)


@pytest.mark.parametrize("hop_ms", [100, 333, 1000])
def test_a_sliding_window_does_not_mind_the_chunks(models: dict[str, StreamModel | Classifier], hop_ms: float) -> None:
    """Any chunks, empty ones too, give the same rows to the last bit, after a reset again."""
    model = models["ds-cnn"]
    assert isinstance(model, Classifier)
    audio = speech_like(np.random.default_rng(1)).astype(np.float32)
    whole = SlidingWindow(model, hop_ms).process(audio)
    window = SlidingWindow(model, hop_ms)
    for sizes in ([1, 0, 4_000], [333, 7_001], [16_000]):
        rows = np.concatenate([window.process(piece) for piece in pieces(audio, sizes)])
        np.testing.assert_array_equal(rows, whole)
        window.process(audio[:5])
        window.reset()


@pytest.mark.parametrize("hop_ms", [0, -100, 1001])
def test_the_hop_of_a_sliding_window(models: dict[str, StreamModel | Classifier], hop_ms: float) -> None:
    """A hop that is no time at all, or leaves sound out, is refused."""
    model = models["ds-cnn"]
    assert isinstance(model, Classifier)
    with pytest.raises(UsageError, match="expected a number above 0, at most 1000"):
        SlidingWindow(model, hop_ms)


# Detector


class Echo:
    """A network in whose place the samples speak: a mean of 0.9 is yes, 0.8 no; each row tells of 0.3 s before."""

    hop = SAMPLE_RATE // 10

    def __init__(self, delay_s: float = 0.3) -> None:
        self.delay = round(delay_s * SAMPLE_RATE)
        self.reset()

    def reset(self) -> None:
        self.held = np.zeros(self.delay, np.float32)

    def process(self, chunk: Samples, rate: float = SAMPLE_RATE) -> Rows:
        self.held = np.concatenate([self.held, chunk])
        n_hops = max(0, (len(self.held) - self.delay) // self.hop)
        levels = self.held[: n_hops * self.hop].reshape(n_hops, self.hop).mean(1)
        self.held = self.held[n_hops * self.hop :]
        rows = np.zeros((n_hops, len(LABELS)), np.float32)
        rows[levels > 0.85, LABELS.index("yes")] = 1.0
        rows[(levels > 0.75) & (levels < 0.85), LABELS.index("no")] = 1.0
        return rows


@pytest.fixture
def echo(models: dict[str, StreamModel | Classifier], monkeypatch: pytest.MonkeyPatch) -> Detector:
    """A detector whose network is an Echo."""
    detector = Detector(models["small"], replace(PLAIN, threshold=0.9))
    monkeypatch.setattr(detector, "_posteriors", Echo())
    monkeypatch.setattr(detector, "_decoder", Decoder(LABELS, HOP_S, detector.config))
    return detector


def levels(*pairs: tuple[float, float]) -> Samples:
    """Sound of seconds and levels."""
    return np.concatenate([np.full(round(seconds * SAMPLE_RATE), level, np.float32) for seconds, level in pairs])


SAID = levels((1.0, 0.0), (0.5, 0.9), (1.0, 0.0), (0.5, 0.8), (1.0, 0.0))
HEARD = [("yes", 1.4), ("no", 2.9)]


def brief(events: Any) -> list[tuple[str, float]]:
    return [(event.label, event.end_s) for event in events]


def test_a_recording_is_heard_out(echo: Detector) -> None:
    """A word at the very end of a recording, which the network tells only later, is reported."""
    cut = SAID[: round(2.7 * SAMPLE_RATE)]
    assert brief(echo.process(cut)) == HEARD[:1]
    assert brief(echo.finish()) == HEARD[1:]
    assert brief(echo.detect(cut)) == HEARD


def test_a_network_that_tells_late_is_heard_out(echo: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word at the very end is reported though the network tells it only when it is about to leave its window."""
    monkeypatch.setattr(echo, "_posteriors", Echo(delay_s=0.9))
    assert brief(echo.detect(SAID[: round(2.7 * SAMPLE_RATE)])) == [("yes", 2.0), ("no", 3.5)]


@pytest.mark.parametrize(("smoothing_ms", "min_duration_ms", "tail_s"), [(0, 0, 1.0), (120, 40, 1.2), (300, 100, 1.4)])
def test_the_tail_is_what_sound_before_it_can_bring_about(
    models: dict[str, StreamModel | Classifier], smoothing_ms: float, min_duration_ms: float, tail_s: float
) -> None:
    """It is as long as the window, the smoothing and the least duration together, in whole hops of 100 ms."""
    config = DetectorConfig(hop_ms=100, smoothing_ms=smoothing_ms, min_duration_ms=min_duration_ms)
    clip = next(model for model in models.values() if isinstance(model, Classifier))
    assert len(Detector(clip, config).tail) == round(tail_s * SAMPLE_RATE)


def test_each_recording_starts_anew(echo: Detector) -> None:
    """Neither sound fed before nor a recording left in the middle moves the events of the next."""
    echo.process(SAID[:30_000])
    assert brief(echo.detect(SAID)) == HEARD
    left = echo.detect(SAID)
    assert next(left).label == "yes"
    assert brief(echo.detect(SAID)) == HEARD
    assert brief(echo.process(SAID)) == HEARD


def test_files_and_samples_of_any_rate(echo: Detector, tmp_path: Path) -> None:
    """A path, an open file, samples of another rate and integers all give the same events."""
    sf.write(tmp_path / "said.wav", SAID, SAMPLE_RATE, subtype="PCM_16")
    assert brief(echo.detect(tmp_path / "said.wav")) == HEARD
    with (tmp_path / "said.wav").open("rb") as file:
        assert brief(echo.detect(file)) == HEARD
    assert brief(echo.detect(np.repeat(SAID, 3), 48_000)) == HEARD
    assert brief(echo.detect((SAID * 32767).astype(np.int16))) == HEARD


def test_trouble_comes_after_the_events_before_it(echo: Detector) -> None:
    """Where sound breaks off damaged, the events until there are given, the last word's too, then the error."""

    def breaking() -> Iterator[Samples]:
        yield SAID[:20_000]
        yield SAID[20_000 : round(2.7 * SAMPLE_RATE)]
        raise AudioError("damaged")

    events = echo.detect_blocks(breaking())
    assert [next(events).label for _ in HEARD] == ["yes", "no"]
    with pytest.raises(AudioError, match="damaged"):
        next(events)
    assert brief(echo.detect(SAID)) == HEARD


def test_events_come_with_their_block(echo: Detector) -> None:
    """An event is given before the next block is asked for."""
    asked = []

    def asking() -> Iterator[Samples]:
        for i, block in enumerate(pieces(SAID, [8_000])):
            asked.append(i)
            yield block

    events = echo.detect_blocks(asking())
    assert (next(events).label, asked[-1]) == ("yes", 2)
    assert (next(events).label, asked[-1]) == ("no", 5)


def test_steps(models: dict[str, StreamModel | Classifier]) -> None:
    """Every block comes back with what was made of it: probabilities, the averages that events go by, the events."""
    detector = Detector(models["small"], HEARING)
    audio = spoken(["yes", "go"])
    blocks, steps = zip(*detector.steps(pieces(audio, [5_000, 1, 12_345])), strict=True)
    np.testing.assert_array_equal(np.concatenate(blocks), audio)
    rows = models["small"].stream().process(np.concatenate([audio, detector.tail]))  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.concatenate([step.rows for step in steps]), rows)
    averages, events = Decoder(LABELS, detector.hop_s, HEARING).step(rows)
    np.testing.assert_array_equal(np.concatenate([step.averages for step in steps]), averages)
    assert [event for step in steps for event in step.events] == events == list(detector.detect(audio))


@any_model
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=5).filter(any))
def test_any_chunks_give_the_same_events(
    models: dict[str, StreamModel | Classifier], name: str, sizes: list[int]
) -> None:
    """With a real model too, the same samples in any chunks are the same events, to the last bit."""
    detector = Detector(models[name], HEARING)
    audio = spoken(["no", "left"], 0.5)
    expected = list(detector.detect(audio))
    found = [event for piece in pieces(audio, [max(size, 1) for size in sizes]) for event in detector.process(piece)]
    assert found + detector.finish() == expected
    assert expected


@any_model
def test_words_are_heard_in_their_order(models: dict[str, StreamModel | Classifier], name: str) -> None:
    """Of the examples one after another, each is heard at its place, and little else."""
    words = [word for word in KEYWORDS if word != "up"]  # which lasts longer than the others
    events = list(Detector(models[name], HEARING).detect(spoken(words)))
    at_s = {word: sum(len(spoken([before])) for before in words[:i]) / SAMPLE_RATE for i, word in enumerate(words)}
    hits = {e.label for e in events if e.label in at_s and at_s[e.label] < e.end_s < at_s[e.label] + 2}
    assert len(hits) >= len(words) - 1
    assert len(events) <= len(words) + 2


def test_both_kinds_of_artefact(models: dict[str, StreamModel | Classifier]) -> None:
    """A stream artefact goes by its own hop, a clip artefact slides by the one of the settings."""
    stream, clip = (Detector(models[name], replace(HEARING, hop_ms=250)) for name in ("small", "ds-cnn"))
    assert isinstance(stream._posteriors, Stream)
    assert isinstance(clip._posteriors, SlidingWindow)
    assert stream.hop_s == models["small"].metadata.hop / SAMPLE_RATE
    assert clip.hop_s == 0.25
    assert stream.labels == clip.labels == LABELS


@pytest.mark.parametrize(
    "bad", [np.full(10, np.nan, np.float32), np.zeros((10, 2)), np.array(["a"]), np.full(10, 30_000.0)], ids=str
)
def test_bad_chunks_change_nothing(models: dict[str, StreamModel | Classifier], bad: npt.NDArray[Any]) -> None:
    """A chunk that is no sound, or of another rate, is refused; the stream goes on as if it had not come."""
    detector, audio = Detector(models["small"], HEARING), spoken(["stop"])
    expected = list(detector.detect(audio))
    events = detector.process(audio[:12_345])
    with pytest.raises(AudioError):
        detector.process(bad)
    with pytest.raises(AudioError, match="44100"):
        detector.process(audio, 44_100)
    assert events + detector.process(audio[12_345:]) + detector.finish() == expected
    assert expected


@any_model
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_no_sound_and_too_loud_a_sound(models: dict[str, StreamModel | Classifier], name: str, level: float) -> None:
    """Digital zero, and a square wave at full scale, have probabilities like any sound; zero has no events."""
    detector = Detector(models[name], HEARING)
    square = np.sign(np.sin(np.arange(5 * SAMPLE_RATE) / 20)).astype(np.float32)
    rows = detector._posteriors.process(level * square)
    np.testing.assert_allclose(rows.sum(1), 1.0, atol=1e-4)
    if level == 0:
        assert list(detector.detect(0 * square)) == []


def test_a_model_that_is_not_there() -> None:
    """A detector for a model that cannot be found says so."""
    with pytest.raises(KwsError, match="not found"):
        Detector("nothing.onnx")


@pytest.mark.data
@any_model
def test_real_keywords_in_silence(models: dict[str, StreamModel | Classifier], name: str, shared_data: Path) -> None:
    """Of validation clips a second apart at least four in five keywords are heard, and few others make an event."""
    clips = validation_sample(shared_data)
    rng = np.random.default_rng(0)
    pause = rng.normal(0, 1e-3, CLIP_SAMPLES).astype(np.float32)
    audio = np.concatenate([part for _, clip in clips for part in (clip, pause)])
    events = list(Detector(models[name], replace(HEARING, threshold=0.5)).detect(audio))
    heard: dict[int, set[str]] = {}
    for event in events:
        heard.setdefault(int(event.end_s / 2), set()).add(event.label)
    keywords = [i for i, (label, _) in enumerate(clips) if label in KEYWORDS]
    others = [i for i, (label, _) in enumerate(clips) if label not in KEYWORDS]
    assert (len(keywords), len(others)) == (100, 20)
    assert sum(clips[i][0] in heard.get(i, ()) for i in keywords) >= 80
    assert sum(i in heard for i in others) <= 6
