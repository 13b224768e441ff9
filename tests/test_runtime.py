"""Sound in, answers out: one or many, in order, as they come, from any number of threads."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

from tiny_kws.artefact.runtime import BATCH_CLIPS, DECODE_AHEAD, Classifier, SlidingWindow, open_session
from tiny_kws.artefact.store import DEFAULT_MODELS, bundled_models
from tiny_kws.audio import from_array, read_window
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import AudioError, KwsError, ModelError, UsageError
from tiny_kws.words import SILENCE

from .helpers import exported, speech_like, trained_like, validation_sample, wav_bytes, write_sound

SAMPLE_ACCURACY = 0.85
PHRASE = 24_000


@pytest.fixture(scope="module")
def classifier(checkpoint_path: Path) -> Classifier:
    return Classifier(exported(trained_like(checkpoint_path)))


@pytest.fixture(scope="module")
def clips() -> npt.NDArray[np.float32]:
    """Twenty different seconds of sound, (20, 16000)."""
    rng = np.random.default_rng(0)
    voices = [level * speech_like(rng) for level in np.geomspace(0.01, 0.3, 20)]
    return np.stack(voices).clip(-1, 1).astype(np.float32)


def test_a_file_is_classified_by_its_window(classifier: Classifier, tmp_path: Path) -> None:
    """A file's distribution is what `probabilities` says of the second that `read_window` picks."""
    path = write_sound(tmp_path / "noise.wav", seconds=2.5)
    window = read_window(path)
    expected = classifier.probabilities(window.samples[None])[0]
    result = classifier.classify(path)
    assert list(result.probabilities) == list(LABELS)
    assert list(result.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert result.start_s == window.start_s


def test_the_label_is_the_likeliest(classifier: Classifier, clips: npt.NDArray[np.float32]) -> None:
    """`label` and `probability` are those of the largest probability, and all of them add up to one."""
    result = classifier.classify(clips[3])
    assert result.probabilities[result.label] == result.probability == max(result.probabilities.values())
    assert sum(result.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_path_array_and_file_object_agree(classifier: Classifier, tmp_path: Path) -> None:
    """The same sound as a path, as text, as an open file, as bytes and as samples gets the same answer."""
    path = write_sound(tmp_path / "noise.wav")
    samples, _ = sf.read(path, dtype="float32")
    with path.open("rb") as file:
        sources: list[Any] = [path, str(path), file, io.BytesIO(path.read_bytes()), samples, samples.tolist()]
        answers = [classifier.classify(source).probabilities for source in sources]
    assert all(answer == pytest.approx(answers[0], abs=1e-6) for answer in answers)


def test_samples_at_another_rate_are_resampled(classifier: Classifier, tmp_path: Path) -> None:
    """An array at 44.1 kHz gets the answer of the file it was read from."""
    path = write_sound(tmp_path / "noise.wav", rate=44_100)
    samples, rate = sf.read(path, dtype="float32")
    expected = classifier.classify(path).probabilities
    assert classifier.classify(samples, rate).probabilities == pytest.approx(expected, abs=1e-3)


def test_a_result_names_its_source(classifier: Classifier, tmp_path: Path) -> None:
    """`source` is the path as it was given, and `audio` for samples."""
    path = write_sound(tmp_path / "noise.wav")
    sources = [result.source for result in classifier.classify_many([path, np.zeros(CLIP_SAMPLES)])]
    assert sources == [str(path), "audio"]


def test_a_long_recording_says_where_its_word_begins(
    classifier: Classifier, clips: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    """Of four seconds with sound in the third, that second is classified, and its start is reported."""
    path = tmp_path / "long.wav"
    quiet = np.zeros(2 * SAMPLE_RATE, np.float32)
    sf.write(path, np.concatenate([quiet, clips[-1], quiet[:SAMPLE_RATE]]), SAMPLE_RATE, subtype="FLOAT")
    result = classifier.classify(path)
    assert abs(result.start_s - 2.0) < 0.7
    assert (result.start_s * 100) % 1 == pytest.approx(0, abs=1e-9)


def test_a_short_recording_is_filled_up_with_silence(classifier: Classifier) -> None:
    """A tenth of a second is classified as if digital silence followed."""
    short = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE // 10).astype(np.float32)
    padded = np.pad(short, (0, CLIP_SAMPLES - len(short)))
    assert classifier.classify(short).probabilities == classifier.classify(padded).probabilities


def test_top_gives_the_likeliest_in_order(classifier: Classifier, clips: npt.NDArray[np.float32]) -> None:
    """`top(3)` are the three likeliest labels, likeliest first; more than there are gives all."""
    result = classifier.classify(clips[0])
    ordered = sorted(result.probabilities.values(), reverse=True)
    assert [probability for _, probability in result.top(3)] == ordered[:3]
    assert result.top(1) == [(result.label, result.probability)]
    assert len(result.top(100)) == len(LABELS)


def test_many_are_answered_in_order(classifier: Classifier, clips: npt.NDArray[np.float32]) -> None:
    """More clips than one batch holds come back in the order they were given."""
    order = [i % len(clips) for i in range(2 * BATCH_CLIPS + 5)]
    expected = classifier.probabilities(clips)
    results = list(classifier.classify_many(clips[i] for i in order))
    assert len(results) == len(order)
    for i, result in zip(order, results, strict=True):
        assert list(result.probabilities.values()) == pytest.approx(expected[i].tolist(), abs=1e-5)


def test_nothing_in_gives_nothing_out(classifier: Classifier) -> None:
    """No recordings, no answers."""
    assert list(classifier.classify_many([])) == []


def test_answers_come_while_sound_still_arrives(classifier: Classifier) -> None:
    """The first answer needs no more than a bounded number of recordings, so an endless supply can be classified."""
    taken = 0

    def endless() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros(1600, np.float32)

    results = classifier.classify_many(endless())
    assert next(results).label in LABELS
    assert taken <= DECODE_AHEAD + BATCH_CLIPS
    results.close()


def test_closing_early_ends_the_work(classifier: Classifier) -> None:
    """A reader who stops after one answer is not kept waiting, and the supply is not drawn on any further."""
    supply = iter([np.zeros(1600, np.float32)] * 1000)
    results = classifier.classify_many(supply)
    next(results)
    results.close()
    assert len(list(supply)) >= 1000 - DECODE_AHEAD - BATCH_CLIPS


def test_bad_recordings_are_named_and_passed_over(classifier: Classifier, tmp_path: Path) -> None:
    """With `on_error` a bad file is told of by name, in order, and the good ones around it get their answers."""
    good = [write_sound(tmp_path / f"good{i}.wav", seed=i) for i in range(2)]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    missing = tmp_path / "missing.wav"
    told: list[tuple[str, KwsError]] = []
    results = classifier.classify_many(
        [good[0], bad, missing, good[1]], on_error=lambda source, error: told.append((source, error))
    )
    assert [result.source for result in results] == [str(path) for path in good]
    assert [source for source, _ in told] == [str(bad), str(missing)]
    assert all(isinstance(error, AudioError) and source in str(error) for source, error in told)


def test_a_bad_recording_raises_by_default(classifier: Classifier, tmp_path: Path) -> None:
    """Without `on_error` the first bad file raises."""
    with pytest.raises(AudioError, match=r"missing\.wav"):
        list(classifier.classify_many([np.zeros(CLIP_SAMPLES), tmp_path / "missing.wav"]))


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros((2, 3, 4)),
        np.zeros(0),
        np.float32(0.5),
        np.full(CLIP_SAMPLES, np.nan),
        np.full(CLIP_SAMPLES, np.inf),
        np.zeros(CLIP_SAMPLES, np.complex64),
        np.zeros((2, CLIP_SAMPLES)),
        np.full(CLIP_SAMPLES, 1000.0),
        ["no", "samples"],
        [[0.0, 1.0], [0.0]],
        None,
    ],
    ids=["three axes", "empty", "scalar", "NaN", "inf", "complex", "transposed", "loud", "text", "ragged", "None"],
)
def test_samples_that_make_no_sense_are_refused(classifier: Classifier, audio: Any) -> None:
    """Arrays of another shape, type or range than sound has raise an AudioError of one line."""
    with pytest.raises(AudioError) as caught:
        classifier.classify(audio)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -16000, 100, 10**9, float("nan")])
def test_a_rate_that_makes_no_sense_is_refused(classifier: Classifier, rate: float) -> None:
    """A sample rate that no sound is recorded at raises an AudioError."""
    with pytest.raises(AudioError, match="sample rate"):
        classifier.classify(np.zeros(CLIP_SAMPLES), rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(CLIP_SAMPLES,), (2, CLIP_SAMPLES - 1), (1, 1, CLIP_SAMPLES), (1, 0)])
def test_windows_have_one_shape(classifier: Classifier, shape: tuple[int, ...]) -> None:
    """`probabilities` takes (batch, 16000) and nothing else."""
    with pytest.raises(AudioError, match="shape"):
        classifier.probabilities(np.zeros(shape))


@pytest.fixture(scope="module")
def phrases(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A model of windows of a second and a half, its labels in another order than usual and none of them silence."""
    from tiny_kws.export.exporter import Exporter
    from tiny_kws.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(trained_like(checkpoint_path))
    checkpoint.window = PHRASE
    checkpoint.labels = tuple(label for label in ("hey computer", *LABELS[::-1]) if label != SILENCE)
    path = tmp_path_factory.mktemp("phrases") / "phrases.onnx"
    Exporter(checkpoint).clip(path)
    return Classifier(path)


def test_the_window_is_the_models(phrases: Classifier, tmp_path: Path) -> None:
    """Of a longer recording the loudest part, as long as the model's window, is classified and its start told."""
    audio = np.random.default_rng(0).normal(0, 0.001, 4 * SAMPLE_RATE).astype(np.float32)
    audio[SAMPLE_RATE : SAMPLE_RATE + PHRASE] *= 100
    expected = phrases.probabilities(audio[None, SAMPLE_RATE : SAMPLE_RATE + PHRASE])[0]
    sf.write(tmp_path / "long.wav", audio, SAMPLE_RATE, subtype="FLOAT")
    for source in (audio, tmp_path / "long.wav"):
        result = phrases.classify(source)
        assert result.start_s == pytest.approx(1.0, abs=0.01)
        assert list(result.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-3)
        assert tuple(result.probabilities) == phrases.labels
        assert phrases.labels[int(expected.argmax())] == result.label


@pytest.mark.parametrize("later_s", [0.3, 1.2, 3.0])
@pytest.mark.parametrize("padding_s", [1, 40])
def test_a_click_is_not_louder_than_a_word(later_s: float, padding_s: int) -> None:
    """A burst of 25 ms, louder than the word before it, does not have the word missed, in a long recording either."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 1e-4, (2 * padding_s + 4) * SAMPLE_RATE)
    word, _ = sf.read(Path(__file__).parents[1] / "examples" / "yes.wav")
    begin = padding_s * SAMPLE_RATE
    sound[begin : begin + len(word)] += 0.3 * word
    burst = begin + len(word) + round(later_s * SAMPLE_RATE)
    sound[burst : burst + SAMPLE_RATE // 40] = rng.uniform(-1, 1, SAMPLE_RATE // 40)
    heard = Classifier().classify(sound)
    assert (heard.label, heard.probability > 0.95) == ("yes", True)
    assert padding_s - 1 < heard.start_s < padding_s + 1


def test_the_most_energetic_window_stays_where_it_holds_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another window counts only if no word is heard in the most energetic one, and over 0.95 in the other."""
    classifier = Classifier()
    sound = np.random.default_rng(0).normal(0, 0.01, 4 * SAMPLE_RATE)
    sound[2 * SAMPLE_RATE + 800 : 3 * SAMPLE_RATE + 800] *= 10
    yes, silence = (classifier.labels.index(label) for label in ("yes", "silence"))

    def answering(first: int, p_word: float) -> Any:
        def probabilities(windows: npt.ArrayLike) -> npt.NDArray[np.float32]:
            rows = np.zeros((len(np.asarray(windows)), len(classifier.labels)), np.float32)
            rows[:, silence], rows[-1, yes] = 0.1, p_word
            rows[0, first] = 0.8 if len(rows) > 1 else 1.0
            return rows

        return probabilities

    for first, p_word, start_s in ((yes, 0.99, 2.05), (silence, 0.94, 2.05), (silence, 0.96, 3.0)):
        monkeypatch.setattr(classifier, "probabilities", answering(first, p_word))
        assert classifier.choose_window([from_array(sound, SAMPLE_RATE)]).start_s == pytest.approx(start_s)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.1, 7.3, 60.0, 600.0])
def test_the_cost_is_bounded(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording up to a second costs one window, a longer one four a second, a long one no more than 130."""
    classifier = Classifier()
    batches: list[int] = []

    def counting(windows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        batches.append(len(np.asarray(windows)))
        return np.zeros((batches[-1], len(classifier.labels)), np.float32)

    monkeypatch.setattr(classifier, "probabilities", counting)
    sound = np.random.default_rng(0).normal(0, 0.01, round(seconds * SAMPLE_RATE)).astype(np.float32)
    blocks = np.split(sound, range(10_000, len(sound), 10_000))
    window = classifier.choose_window(blocks)
    whole = classifier.choose_window([sound])
    assert window.start_s == whole.start_s
    assert max(batches, default=0) <= 32
    expected = 0 if seconds <= 1 else min(130, 2 + int((seconds - 1) / 0.25) + 1)
    assert sum(batches) == 2 * expected


def test_a_short_recording_is_filled_up_to_the_window(phrases: Classifier) -> None:
    """A second is classified by a model of longer windows as if silence followed."""
    second = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    padded = np.pad(second, (0, PHRASE - SAMPLE_RATE))
    assert phrases.classify(second).probabilities == phrases.classify(padded).probabilities


def test_a_window_of_another_model_is_refused(phrases: Classifier) -> None:
    """A second for a model of longer windows is an AudioError that names the model and the length it takes."""
    with pytest.raises(AudioError, match=rf"\(1, 16000\), expected \(batch, {PHRASE}\) for .*phrases\.onnx"):
        phrases.probabilities(np.zeros((1, CLIP_SAMPLES)))


@pytest.mark.parametrize("sizes", [[100_000], [999], [1, 30_000]], ids=str)
def test_a_window_of_any_length_slides(phrases: Classifier, sizes: list[int]) -> None:
    """A model slides over a stream by windows of its own length, silence before the start, in any chunks."""
    audio = np.random.default_rng(0).normal(0, 0.1, 50_000).astype(np.float32)
    sliding = SlidingWindow(phrases, 200.0)
    rows, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(audio):
            break
        rows.append(sliding.process(audio[start : start + size]))
        start += size
    ends = range(3200, len(audio) + 1, 3200)
    before = np.concatenate([np.zeros(PHRASE, np.float32), audio])
    windows = np.stack([before[end : end + PHRASE] for end in ends])
    np.testing.assert_allclose(np.concatenate(rows), phrases.probabilities(windows), atol=1e-5)


def test_the_hop_of_a_sliding_window_is_at_most_the_window(phrases: Classifier) -> None:
    """A hop of the window is taken, a longer one refused in a line that names the model."""
    assert SlidingWindow(phrases, 1500.0).hop == PHRASE
    with pytest.raises(
        UsageError, match=r"1510\.0 ms, expected a number above 0, at most 1500, the window of .*phrases\.onnx"
    ):
        SlidingWindow(phrases, 1510.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_windows_hold_numbers(classifier: Classifier, value: float) -> None:
    """`probabilities` refuses NaN and infinity."""
    windows = np.zeros((2, CLIP_SAMPLES), np.float32)
    windows[1, 77] = value
    with pytest.raises(AudioError, match="NaN or infinity"):
        classifier.probabilities(windows)


def test_no_windows_give_no_probabilities(classifier: Classifier) -> None:
    """An empty batch gives an empty answer of the right width."""
    assert classifier.probabilities(np.zeros((0, CLIP_SAMPLES))).shape == (0, len(LABELS))


def test_threads_share_a_classifier(classifier: Classifier, clips: npt.NDArray[np.float32]) -> None:
    """Eight threads at once get what one gets."""
    expected = [classifier.classify(clip) for clip in clips]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: [classifier.classify(clip) for clip in clips], range(8)))
    assert all(results == expected for results in rounds)


def test_reading_a_stream_leaves_it_open(classifier: Classifier) -> None:
    """A file object that was classified still belongs to its owner."""
    stream = io.BytesIO(wav_bytes())
    classifier.classify(stream)
    assert not stream.closed


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file names that are not Unicode")
def test_names_that_are_not_unicode(classifier: Classifier, tmp_path: Path) -> None:
    """A file whose name is no valid UTF-8 is classified like any other."""
    path = tmp_path / os.fsdecode(b"\xff\xfe.wav")
    path.write_bytes(wav_bytes())
    assert classifier.classify(path).label in LABELS


def test_a_model_that_does_not_parse_is_named() -> None:
    """What onnxruntime cannot load is a ModelError that names where it came from."""
    with pytest.raises(ModelError, match="here: onnxruntime cannot load it"):
        open_session(b"garbage", 1, "here")


@pytest.mark.data
def test_the_bundled_model_hears_real_words(shared_data: Path) -> None:
    """The package's own model is right on more than 85 % of 120 validation clips, ten of each label."""
    if DEFAULT_MODELS["clip"] not in bundled_models():
        pytest.skip(f"no bundled model {DEFAULT_MODELS['clip']}")
    clips = validation_sample(shared_data)
    assert len(clips) == 120
    results = Classifier().classify_many(audio for _, audio in clips)
    right = sum(result.label == label for result, (label, _) in zip(results, clips, strict=True))
    assert right / len(clips) > SAMPLE_ACCURACY
