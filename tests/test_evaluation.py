"""Figures that agree with arithmetic by hand and with other programs, and reports that come out the same each time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tiny_kws.config import CLIP_SAMPLES, DetectorConfig
from tiny_kws.data.speech_commands import KEYWORDS, TEST_FOLDER
from tiny_kws.data.speech_commands import LABELS as SPEECH_COMMANDS_LABELS
from tiny_kws.errors import DataError, KwsError, ModelError
from tiny_kws.evaluation.clips import (
    BATCH_CLIPS,
    ClipSet,
    Predictor,
    batched,
    calibration_error,
    evaluate,
    measure,
    measure_latency,
    predict_all,
    processor_name,
    recall_of_unknown,
    wilson_interval,
)
from tiny_kws.evaluation.figures import plot_confusion_matrix
from tiny_kws.evaluation.metrics import ClipMetrics, read_clip_metrics
from tiny_kws.evaluation.tables import markdown, metrics_table, unknown_table
from tiny_kws.json_form import to_json
from tiny_kws.training.learning_curve import plot_learning_curve

from .helpers import changed_artefact, exported, trained_like, write_sound

if TYPE_CHECKING:
    from tiny_kws.data.prepared import PreparedData

Array = npt.NDArray[Any]
MODELS = Path(__file__).parents[1] / "models"
LABELS = ("cat", "dog", "owl")
SAID = np.array([0, 0, 0, 0, 1, 1, 2, 2])
HEARD = np.array([0, 0, 0, 1, 1, 0, 2, 0])


def sure(heard: Array, n_labels: int = 3, confidence: float = 0.8) -> Array:
    """Probabilities that name `heard`, each with the same confidence."""
    rest = (1 - confidence) / (n_labels - 1)
    return np.where(np.eye(n_labels)[heard] == 1, confidence, rest).astype(np.float32)


def predictor(labels: tuple[str, ...] = LABELS) -> Predictor:
    """Hears in a clip the label whose place in LABELS stands in its first sample."""

    def predict(audio: Array) -> Array:
        return sure(np.array([labels.index(LABELS[int(clip[0])]) for clip in audio]))

    return Predictor("parrot", predict, labels, parameters=7, weight_bytes=28, sha256="0" * 64)


def clip_set(said: Array = SAID, heard: Array = HEARD) -> ClipSet:
    """Clips in which LABELS[said] was said and `predictor` hears LABELS[heard]."""
    rows = np.zeros((len(heard), CLIP_SAMPLES), np.float32)
    rows[:, 0] = heard
    return ClipSet("the zoo", [LABELS[i] for i in said], "1" * 64, lambda: batched(rows, 3))


@pytest.fixture(scope="module")
def measured() -> ClipMetrics:
    return evaluate(predictor(), clip_set())


@pytest.fixture(scope="module")
def metrics(measured: ClipMetrics) -> dict[str, Any]:
    """As they stand in the file."""
    found: dict[str, Any] = to_json(measured)
    return found


def test_accuracy_by_hand(metrics: dict[str, Any]) -> None:
    """Five of eight clips right are an accuracy of 0.625."""
    assert metrics["accuracy"] == 0.625


def test_the_confusion_matrix_has_a_row_for_what_was_said(metrics: dict[str, Any]) -> None:
    """Rows are what was said, columns what was heard, both in the order of `labels`."""
    assert metrics["labels"] == list(LABELS)
    assert metrics["confusion_matrix"] == [[3, 1, 0], [1, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("label", "precision", "recall", "support"),
    [("cat", 3 / 5, 3 / 4, 4), ("dog", 1 / 2, 1 / 2, 2), ("owl", 1, 1 / 2, 2)],
)
def test_precision_recall_and_f1_by_hand(
    metrics: dict[str, Any], label: str, precision: float, recall: float, support: int
) -> None:
    """Precision is over a column, recall over a row, F1 their harmonic mean."""
    f1 = 2 * precision * recall / (precision + recall)
    expected = {"precision": precision, "recall": recall, "f1": f1, "support": support}
    assert metrics["per_class"][label] == pytest.approx(expected, abs=1e-6)


def test_macro_f1_is_the_mean_over_the_classes(metrics: dict[str, Any]) -> None:
    """Macro-F1 is the plain mean of the classes' F1."""
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3, abs=1e-6)


def test_a_class_without_clips_does_not_count_in_macro_f1() -> None:
    """Macro-F1 is over the classes that occur; one that never does has figures of zero, not NaN."""
    found = to_json(measure(sure(np.array([0, 1])), np.array([0, 1]), LABELS))
    assert found["macro_f1"] == 1.0
    assert found["per_class"]["owl"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_all_right_is_one_everywhere() -> None:
    """A model that is always right has accuracy, macro-F1 and the intervals' upper ends of one."""
    found = to_json(measure(sure(SAID), SAID, LABELS))
    assert found["accuracy"] == found["macro_f1"] == found["accuracy_interval"][1] == 1.0
    assert found["macro_f1_interval"] == [1.0, 1.0]


def test_all_wrong_is_zero_everywhere() -> None:
    """A model that is never right has accuracy and macro-F1 of zero."""
    found = to_json(measure(sure((SAID + 1) % 3), SAID, LABELS))
    assert found["accuracy"] == found["macro_f1"] == found["accuracy_interval"][0] == 0.0


@settings(deadline=None)
@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_is_scipys(case: tuple[int, int]) -> None:
    """The interval of a proportion agrees with scipy's Wilson interval."""
    successes, trials = case
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_intervals_hold_their_figures() -> None:
    """Accuracy and macro-F1 lie within their intervals, which are narrower with more clips."""
    widths = []
    for repeats in (20, 500):
        found = to_json(measure(sure(np.tile(HEARD, repeats)), np.tile(SAID, repeats), LABELS))
        for figure in ("accuracy", "macro_f1"):
            low, high = found[f"{figure}_interval"]
            assert low < found[figure] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_the_macro_f1_interval_is_that_of_resampled_clips() -> None:
    """The bootstrap interval agrees with one made by drawing the clips themselves anew."""
    said, heard = np.tile(SAID, 30), np.tile(HEARD, 30)
    low, high = measure(sure(heard), said, LABELS).macro_f1_interval
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, len(said), len(said))
        confusion = np.zeros((3, 3))
        np.add.at(confusion, (said[rows], heard[rows]), 1)
        drawn.append(np.mean(2 * np.diag(confusion) / (confusion.sum(0) + confusion.sum(1))))
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.015)


def test_measuring_twice_gives_the_same() -> None:
    """The bootstrap is seeded, and the global random state has no say in it."""
    np.random.seed(1)  # noqa: NPY002  (that of others)
    first = measure(sure(HEARD), SAID, LABELS)
    np.random.seed(2)  # noqa: NPY002
    assert measure(sure(HEARD), SAID, LABELS) == first


def test_calibration_by_hand() -> None:
    """Two bins: nine sure clips of which six are right, and three unsure ones of which two are."""
    probabilities = np.array([[0.95, 0.05]] * 9 + [[0.55, 0.45]] * 3)
    targets = np.array([0] * 6 + [1] * 3 + [0] * 2 + [1])
    expected = 9 / 12 * abs(0.95 - 6 / 9) + 3 / 12 * abs(0.55 - 2 / 3)
    assert calibration_error(probabilities, targets) == pytest.approx(expected, abs=1e-9)


def test_honest_confidence_is_calibrated() -> None:
    """Clips that are right as often as their confidence says have a calibration error near zero."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 50_000)
    targets = (rng.random(50_000) > confidence).astype(int)
    assert calibration_error(np.stack([confidence, 1 - confidence], 1), targets) < 0.01


def test_full_confidence_has_a_bin() -> None:
    """A probability of exactly one falls in the last bin."""
    assert calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])) == 0.5


def test_labels_are_matched_by_name() -> None:
    """A model whose labels stand in another order gets the same accuracy and figures by class."""
    usual, turned = (to_json(evaluate(predictor(labels), clip_set())) for labels in (LABELS, ("owl", "cat", "dog")))
    assert turned["per_class"] == usual["per_class"]
    assert turned["accuracy"] == usual["accuracy"]
    assert turned["confusion_matrix"] == [[1, 1, 0], [0, 3, 1], [0, 1, 1]]


def test_labels_that_the_model_does_not_know_are_refused() -> None:
    """Clips of a label that the model lacks are a ModelError that names it."""
    foreign = replace(clip_set(), labels=["cat", "dog", "yak", "gnu", "cat", "cat", "cat", "cat"])
    with pytest.raises(ModelError, match="gnu, yak"):
        evaluate(predictor(), foreign)


def test_recall_of_unknown_by_word() -> None:
    """Clips of unknown count by their word; words kept from training also stand apart; other labels do not count."""
    words = ["bed", "bed", "owl", "owl", "owl", "yes", "", "bed"]
    labels = [*["unknown"] * 5, "yes", "unknown", "silence"]
    heard = ["unknown", "yes", "unknown", "unknown", "yes", "unknown", "unknown", "unknown"]
    clips = replace(clip_set(), labels=labels, words=words)
    found = to_json(recall_of_unknown(heard, clips, ("owl", "yak")))
    assert {word: (row["clips"], row["recall"]) for word, row in found["by_word"].items()} == {
        "bed": (2, 0.5),
        "owl": (3, pytest.approx(2 / 3, abs=1e-6)),
    }
    assert found["by_word"]["bed"]["recall_interval"] == pytest.approx(wilson_interval(1, 2), abs=1e-6)
    assert (found["heard"]["clips"], found["never_heard"]["clips"]) == (2, 3)
    assert found["never_heard"]["recall"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["left_out"] == ["owl", "yak"]


def test_words_that_were_all_heard_leave_nothing_never_heard() -> None:
    """Without words kept from training the share of those never heard is none, not zero."""
    clips = replace(clip_set(), labels=["unknown"] * 8, words=["bed"] * 8)
    found = to_json(recall_of_unknown(["unknown"] * 8, clips))
    assert found["never_heard"] == {"clips": 0, "recall": None, "recall_interval": None}
    assert found["heard"]["recall"] == 1.0


def test_recall_of_unknown_needs_words() -> None:
    """Clips whose words are not known, or of which none is unknown, give no such figures."""
    assert recall_of_unknown(["cat"] * 8, clip_set()) is None
    assert recall_of_unknown(["cat"] * 8, replace(clip_set(), words=["cat"] * 8)) is None


def test_the_table_of_unknown_puts_words_never_heard_last() -> None:
    """Words by the alphabet, those never heard last and marked, then both kinds together."""
    clips = replace(clip_set(), labels=["unknown"] * 8, words=["bed", "cat", "dog", "bed", "cat", "dog", "bed", "cat"])
    found = recall_of_unknown(["unknown"] * 4 + ["cat"] * 4, clips, ["bed"])
    assert found is not None
    lines = markdown(unknown_table(found)).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| cat",
        "| dog",
        "| bed (never heard)",
        "| all words heard in training",
        "| all words never heard",
    ]
    assert lines[4].startswith("| bed (never heard) | 66.67 % |")


@pytest.mark.parametrize("words", [["bed", "four"], []])
def test_words_kept_from_training_are_read_from_the_model(
    checkpoint_path: Path, tmp_path: Path, words: list[str]
) -> None:
    """Checkpoint and artefact alike say which words their training never heard."""
    from tiny_kws.cli.clips import _open_predictor
    from tiny_kws.training.checkpoint import load_checkpoint, save_torch

    loaded = load_checkpoint(checkpoint_path)
    loaded.data["left_out"] = words
    save_torch(tmp_path / "best.pt", loaded.to_dict())
    artefact = changed_artefact(
        exported(trained_like(checkpoint_path)), tmp_path / "model.onnx", data={"left_out": words}
    )
    assert _open_predictor(tmp_path / "best.pt").left_out == tuple(words)
    assert _open_predictor(artefact).left_out == tuple(words)


def test_an_artefacts_detector_settings_are_read(checkpoint_path: Path, tmp_path: Path) -> None:
    """The threshold that an artefact carries is that by which windows are counted."""
    from tiny_kws.cli.clips import _open_predictor

    model = exported(trained_like(checkpoint_path))
    changed = changed_artefact(model, tmp_path / "model.onnx", detector={"threshold": 0.61})
    assert _open_predictor(changed).detector.threshold == 0.61
    assert _open_predictor(model).detector == DetectorConfig()


def test_clips_of_a_split_have_names_and_words(prepared: PreparedData) -> None:
    """Each clip of a split has its file's name and the word said in it, silence none."""
    from tiny_kws.evaluation.clip_sets import split_clips

    clips = split_clips(prepared, "validation")
    assert len(set(clips.names)) == len(clips.names) == len(clips.words) == len(clips.labels)
    for name, word, label in zip(clips.names, clips.words, clips.labels, strict=True):
        assert word == ("" if label == "silence" else name.partition("/")[0])


def test_clips_of_the_test_archive_have_words_where_names_tell(tmp_path: Path) -> None:
    """In the official test folder an unknown word stands in the file's name; other names tell none."""
    from tiny_kws.evaluation.clip_sets import folder_clips

    files = [f"{label}/0a7c2a8d_nohash_0.wav" for label in KEYWORDS]
    files += ["_silence_/1131.wav", "_unknown_/bed_cfbedff9_nohash_0.wav", "_unknown_/0.wav", "_unknown_/a_b.wav"]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        write_sound(tmp_path / file)
    clips, _ = folder_clips(tmp_path, SPEECH_COMMANDS_LABELS[::-1], CLIP_SAMPLES)
    words = dict(zip(clips.names, clips.words, strict=True))
    assert [words[file] for file in files[len(KEYWORDS) :]] == ["", "bed", "", ""]
    assert words["yes/0a7c2a8d_nohash_0.wav"] == "yes"
    assert clips.names == [*files[len(KEYWORDS) : len(KEYWORDS) + 1], *sorted(files[-3:]), *files[: len(KEYWORDS)]]


def test_only_the_whole_test_archive_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with another number of clips than the official archive is named by its folder and number."""
    from tiny_kws.evaluation import clip_sets

    for folder in ("computer", "_silence_", "_unknown_"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        write_sound(tmp_path / "mine" / folder / "a.wav", 2.0)
    labels = ("unknown", "computer", "silence")
    clips, unreadable = clip_sets.folder_clips(tmp_path / "mine", labels, window=24_000)
    assert (clips.name, clips.window, unreadable) == ("3 test clips in mine", 24_000, [])
    assert [batch.shape for batch in clips.batches()] == [(3, 24_000)]
    (tmp_path / "mine").rename(tmp_path / TEST_FOLDER)
    clips, _ = clip_sets.folder_clips(tmp_path, labels, window=24_000)
    assert clips.name == "3 of the 4890 clips of the official test set"
    (tmp_path / TEST_FOLDER).rename(tmp_path / "mine")
    monkeypatch.setattr(clip_sets, "OFFICIAL_TEST_CLIPS", 3)
    assert clip_sets.folder_clips(tmp_path / "mine", labels, CLIP_SAMPLES)[0].name == "the official test set"


def test_a_split_is_called_after_its_recordings(prepared: PreparedData) -> None:
    """Data of Speech Commands is called so, any other after its folder."""
    from tiny_kws.evaluation.clip_sets import split_clips

    assert split_clips(prepared, "validation").name == "Speech Commands v0.02 validation"
    own = replace(prepared, manifest=replace(prepared.manifest, source="the recordings in mine", folder="mine"))
    assert split_clips(own, "validation").name == "mine validation"


def test_clips_of_another_length_are_refused() -> None:
    """A model that takes 1.5 s and clips of 1 s do not fit; the error says both and what to do."""
    with pytest.raises(ModelError, match=r"takes clips of 1\.5 s, the zoo has clips of 1 s; .* --window-ms 1500"):
        evaluate(replace(predictor(), window=24_000), clip_set())


def test_latency_is_of_the_models_window() -> None:
    """The clip that is timed is as long as the model's window."""
    shapes = set()

    def predict(audio: Array) -> Array:
        shapes.add(audio.shape)
        return np.zeros((1, 3))

    measure_latency(replace(predictor(), predict=predict, window=8_000), runs=10)
    assert shapes == {(1, 8_000)}


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/metrics.json")), ids=lambda path: path.parent.name)
def test_published_metrics_can_be_read(path: Path) -> None:
    """Every committed evaluation on clips comes back as it was written."""
    assert to_json(read_clip_metrics(path)) == json.loads(path.read_text())


def test_metrics_that_are_something_else_are_refused(tmp_path: Path, metrics: dict[str, Any]) -> None:
    """What is missing or of another type is named, with the command that writes such files."""
    for changed, said in (
        ({**metrics, "labels": "cat"}, "labels: found 'cat', expected"),
        ({**metrics, "per_class": {"cat": {"precision": True}}}, "per_class: cat: precision: found True"),
        ({key: value for key, value in metrics.items() if key != "accuracy"}, "found no accuracy"),
        ({**metrics, "accuracy_interval": [0.5]}, "accuracy_interval: found 1 values, expected 2"),
    ):
        (tmp_path / "m.json").write_text(json.dumps(changed))
        with pytest.raises(DataError, match=f"is something else .*{said}.*`tiny-kws evaluate`"):
            read_clip_metrics(tmp_path / "m.json")


def test_what_was_measured_is_told(metrics: dict[str, Any]) -> None:
    """Model and data are named in the metrics, with their sums."""
    assert metrics["model"] == {"name": "parrot", "sha256": "0" * 64, "parameters": 7, "weight_bytes": 28}
    assert metrics["data"] == {"name": "the zoo", "clips": 8, "clips_sha256": "1" * 64}


def test_metrics_are_plain_json(metrics: dict[str, Any]) -> None:
    """The metrics survive JSON as they are."""
    assert json.loads(json.dumps(metrics)) == metrics


def test_progress_counts_clips() -> None:
    """Progress is told after each batch, up to the number of clips."""
    told: list[tuple[int, int]] = []
    predict_all(predictor(), clip_set(), lambda done, total: told.append((done, total)))
    assert told == [(3, 8), (6, 8), (8, 8)]


@pytest.mark.parametrize("n", [0, 1, BATCH_CLIPS, BATCH_CLIPS + 1])
def test_batches_hold_every_row_once(n: int) -> None:
    """Batching loses no row, keeps the order and makes no batch too large or empty."""
    rows = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    batches = list(batched(rows))
    assert all(1 <= len(batch) <= BATCH_CLIPS for batch in batches)
    assert np.array_equal(np.concatenate([*batches, np.zeros((0, 4))]), rows)


def test_latency_is_measured_one_clip_at_a_time() -> None:
    """Latency is over single clips; its figures are ordered, and the processor is named."""
    shapes: list[tuple[int, ...]] = []

    def predict(audio: Array) -> Array:
        shapes.append(audio.shape)
        time.sleep(0.001)
        return np.zeros((1, 3))

    found = measure_latency(replace(predictor(), predict=predict), runs=20)
    assert set(shapes) == {(1, CLIP_SAMPLES)}
    assert len(shapes) == 22
    assert 1 <= found.p50_ms <= found.p95_ms
    assert found.processor == processor_name() != ""


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": i, "train_loss": 2 / i, "train_acc": 1 - 0.9 / i, "val_loss": 2.1 / i, "val_acc": 1 - 1 / i}
        for i in range(1, epochs + 1)
    ]


PLOTS: dict[str, Callable[[ClipMetrics, Path], None]] = {
    "confusion matrix": plot_confusion_matrix,
    "learning curve": lambda _, path: plot_learning_curve(history(30), path),
    "learning curve of one epoch": lambda _, path: plot_learning_curve(history(1), path),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_figures_are_pictures_of_a_sensible_size(
    measured: ClipMetrics, tmp_path: Path, plot: Callable[[ClipMetrics, Path], None]
) -> None:
    """A figure is a PNG of a size that fits a page, with something drawn on it."""
    path = tmp_path / "figure.png"
    plot(measured, path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(path)
    assert 400 <= pixels.shape[0] <= 2000
    assert 400 <= pixels.shape[1] <= 2000
    assert pixels[..., :3].std() > 0.01


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_the_same_figure_has_the_same_bytes(
    measured: ClipMetrics, tmp_path: Path, plot: Callable[[ClipMetrics, Path], None]
) -> None:
    """Drawing twice gives the same bytes."""
    for name in ("first.png", "second.png"):
        plot(measured, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_drawing_needs_no_display_and_touches_no_settings(measured: ClipMetrics, tmp_path: Path) -> None:
    """Figures are drawn without pyplot, so the user's backend and settings stay as they are."""
    before = dict(mpl.rcParams)
    plot_confusion_matrix(measured, tmp_path / "figure.png")
    assert dict(mpl.rcParams) == before


def test_a_figure_that_cannot_be_written_is_explained(measured: ClipMetrics, tmp_path: Path) -> None:
    """Where a figure cannot be put, a KwsError says so."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KwsError, match="cannot be written"):
        plot_confusion_matrix(measured, tmp_path / "file" / "figure.png")


def test_the_table_has_a_line_for_each_class(measured: ClipMetrics) -> None:
    """The Markdown table shows the totals with intervals, and every class with its number of clips."""
    lines = markdown(metrics_table(measured)).splitlines()
    assert lines[0] == "parrot on the zoo, 8 clips:"
    assert "accuracy 62.50 % (95 % interval 30.57 to 86.32)" in lines[1]
    assert lines[5:] == [
        "| cat | 60.0 | 75.0 | 66.7 | 4 |",
        "| dog | 50.0 | 50.0 | 50.0 | 2 |",
        "| owl | 100.0 | 50.0 | 66.7 | 2 |",
    ]
