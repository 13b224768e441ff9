"""Windows of one second: what they hold, where in them, and what a network is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiny_kws.config import CLIP_SAMPLES
from tiny_kws.data.prepared import PreparedData
from tiny_kws.data.speech_commands import KEYWORDS, LABELS
from tiny_kws.errors import UsageError
from tiny_kws.training.checkpoint import CAUSAL_CNN, DS_CNN, Checkpoint, feature_config_of, load_checkpoint
from tiny_kws.training.composing.windows import WindowComposer
from tiny_kws.training.networks import DSCNN, CausalCNN
from tiny_kws.training.objectives import MixedObjective, StreamObjective, WindowObjective, divergence
from tiny_kws.training.reports import Callbacks, EpochReport
from tiny_kws.training.settings import TrainSettings
from tiny_kws.training.trainer import Trainer, train
from tiny_kws.training_config import (
    MIXED_TRAINING,
    WINDOW_TRAINING,
    CausalCNNConfig,
    StreamRecipe,
    TrainConfig,
    WindowRecipe,
)
from tiny_kws.words import SILENCE, UNKNOWN

from .tones import BEGIN, END, OTHERS_HZ, PLAIN_SOUND, hz_of, log_mels, rms_db, seeded, strength, write_data

CPU = torch.device("cpu")
HOP = 320
PLAIN = WindowRecipe(
    **PLAIN_SOUND,
    masked_bands=0,
    masked_frames=0,
    keyword_share=0.5,
    other_share=0.2,
    fluent_share=0.2,
)
"""Words alone, as they were recorded: of 20 windows 10 hold keywords, 4 other words, 4 fluent speech, 2 nothing."""

VARIED = replace(WindowRecipe(), made_rooms=4, keyword_share=0.5, other_share=0.2, fluent_share=0.2)
N = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A clip of each keyword, six of other words."""
    return write_data(tmp_path_factory.mktemp("tones"), [*KEYWORDS, *[UNKNOWN] * 6])


def composed(data: PreparedData, recipe: WindowRecipe, seed: int = 0) -> tuple[Tensor, Tensor]:
    composer = WindowComposer(data, recipe, CPU)
    return composer.compose(composer.keywords, N, seeded(seed))


def sounding(window: Tensor) -> tuple[int, int]:
    """First and last sample of a window that is not zero."""
    places = torch.nonzero(window.abs() > 1e-4)[:, 0]
    return int(places[0]), int(places[-1])


def test_windows_hold_what_they_are_said_to(data: PreparedData) -> None:
    """Every keyword once, under its own class; other words and fluent speech are unknown; the rest is silent."""
    audio, classes = composed(data, replace(PLAIN, pause_share=0.0), seed=3)
    assert audio.shape == (N, CLIP_SAMPLES)
    names = [LABELS[i] for i in classes.tolist()]
    assert sorted(names[:10]) == sorted(KEYWORDS)
    assert names[10:] == [UNKNOWN] * 8 + [SILENCE] * 2
    for row in range(14):
        assert float(strength(audio[row : row + 1], int(classes[row]))) == pytest.approx(1.0, abs=0.05)
    for row in range(14, 18):
        assert (audio[row].abs() > 1e-4).float().mean() > 0.5  # one word fills a quarter
        assert int(torch.fft.rfft(audio[row]).abs().argmax()) == pytest.approx(OTHERS_HZ, abs=8)
    assert not audio[18:].any()


@pytest.mark.parametrize("window", [8000, 24_000, 32_000])
def test_windows_are_as_long_as_clips(tmp_path: Path, window: int) -> None:
    """Prepared clips of another length make windows of that length, with every word whole at its place."""
    audio, classes = composed(write_data(tmp_path, [*KEYWORDS, *[UNKNOWN] * 6], window=window), PLAIN)
    assert audio.shape == (N, window)
    for row in range(14):
        assert float(strength(audio[row : row + 1], int(classes[row]))) == pytest.approx(1.0, abs=0.05)


def test_words_are_shifted_and_stay_whole(data: PreparedData) -> None:
    """Words lie where they were recorded give or take the shift, differently in each window."""
    audio, _ = composed(data, PLAIN)
    shifts = np.array([sounding(window)[0] - BEGIN for window in audio[:14]])
    assert np.abs(shifts).max() <= 2400 + 20
    assert np.ptp(shifts) > 2400
    far, _ = composed(data, replace(PLAIN, shift_ms=2000.0))
    for window in far[:14]:
        first, last = sounding(window)
        assert last - first == pytest.approx(END - BEGIN, abs=40)  # not cut by the window's ends
    at_ends = [sounding(window) for window in far[:14]]
    assert any(first < 800 for first, _ in at_ends)
    assert any(last > CLIP_SAMPLES - 800 for _, last in at_ends)


def test_speed(data: PreparedData) -> None:
    """At twice the speed a word lasts half as long and is an octave higher."""
    audio, classes = composed(data, replace(PLAIN, speeds=(2.0, 2.0)))
    for window, label in zip(audio[:10], classes[:10].tolist(), strict=True):
        first, last = sounding(window)
        assert last - first == pytest.approx((END - BEGIN) / 2, abs=40)
        peak = int(torch.fft.rfft(window).abs().argmax())
        assert peak == pytest.approx(2 * hz_of(label), abs=4)


def test_noise_rooms_and_levels_vary(data: PreparedData) -> None:
    """With all that varies, windows stay in range, no two are alike, and only few are without any sound."""
    audio, _ = composed(data, VARIED)
    assert audio.isfinite().all()
    assert audio.abs().max() <= 1.0
    assert len({window.numpy().tobytes() for window in audio}) >= N - 2
    assert np.ptp(rms_db(audio[:10]).numpy()) > 6


def test_draws_follow_from_the_seed(data: PreparedData) -> None:
    """Equal seeds give equal windows, another seed others; torch's own generator is left alone."""
    state = torch.random.get_rng_state()
    first, again, other = composed(data, VARIED, 1), composed(data, VARIED, 1), composed(data, VARIED, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_a_last_batch_of_few_keywords(data: PreparedData) -> None:
    """An epoch ends with a batch that is as large as the others; what keywords it lacks are windows without words."""
    composer = WindowComposer(data, PLAIN, CPU)
    audio, classes = composer.compose(composer.keywords[:3], N, seeded())
    assert len(audio) == len(classes) == N
    assert (classes > LABELS.index(UNKNOWN)).sum() == 3


@pytest.mark.parametrize("n_windows", range(1, 9))
def test_small_batches(data: PreparedData, n_windows: int) -> None:
    """However few windows a batch has, each has a class, though it may have no room for fluent speech or silence."""
    composer = WindowComposer(data, replace(WindowRecipe(), made_rooms=4, babble_share=0.0), CPU)
    audio, classes = composer.compose(composer.keywords[: composer.n_keywords(n_windows)], n_windows, seeded())
    assert len(audio) == n_windows
    assert (classes.shape, classes.dtype) == ((n_windows,), torch.int64)


# Training


class FixedLogits(CausalCNN):
    """A network that answers what it is given, (batch, classes) logits, whatever it hears."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(CausalCNNConfig(stem_channels=2, width=8, n_blocks=1))
        self.logits = logits

    def forward(self, features: Tensor) -> Tensor:
        return self.logits


def features_of(audio: Tensor) -> Tensor:
    return torch.ones(len(audio), 1, 64, 100)


def config_of(**changes: object) -> TrainConfig:
    return replace(WINDOW_TRAINING, batch_size=N, windows=PLAIN, label_smoothing=0.0, **changes)  # type: ignore[arg-type]


def test_the_loss_is_the_cross_entropy(data: PreparedData) -> None:
    """Of windows and their classes, in the order in which they are composed."""
    training = WindowObjective(data, PLAIN, config_of(), features_of, CPU)
    assert (training.n_items, training.per_step) == (10, 10)
    _, classes = training.composer.compose(training.composer.keywords, N, seeded())
    logits = torch.randn(N, len(LABELS), generator=seeded(1))
    loss, accurate = training.loss(FixedLogits(logits), torch.arange(10), seeded())
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(logits, classes).item())
    assert accurate.item() == pytest.approx((logits.argmax(1) == classes).float().mean().item())


def test_the_teacher_has_its_part_of_the_loss(data: PreparedData) -> None:
    """Weight 1: the divergence from the teacher alone, none where both say the same; weight 0: the labels alone."""
    own, other = (torch.randn(N, len(LABELS), generator=seeded(seed)) for seed in (1, 2))

    def loss(weight: float, teacher_logits: Tensor) -> float:
        config = config_of(teacher_weight=weight)
        training = WindowObjective(data, PLAIN, config, features_of, CPU, teacher=lambda features: teacher_logits)
        return training.loss(FixedLogits(own), torch.arange(10), seeded())[0].item()

    plain = WindowObjective(data, PLAIN, config_of(), features_of, CPU)
    labels = plain.loss(FixedLogits(own), torch.arange(10), seeded())[0].item()
    assert loss(1.0, own + 3.0) == pytest.approx(0.0, abs=1e-5)
    assert loss(0.0, other) == pytest.approx(labels)
    assert loss(0.25, other) == pytest.approx(0.75 * labels + 0.25 * loss(1.0, other))


def test_the_divergence() -> None:
    """That of Kullback and Leibler between the softened distributions, times the temperature squared, a mean."""
    own, other = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    p, q = torch.softmax(other / 2, -1), torch.softmax(own / 2, -1)
    assert divergence(own, other, 2.0).item() == pytest.approx(4 * float((p * (p / q).log()).sum()) / 2)


def test_the_teacher_hears_what_is_masked(data: PreparedData) -> None:
    """Masks are for the network that learns."""
    heard = []

    def teacher(features: Tensor) -> Tensor:
        heard.append(features)
        return torch.zeros(len(features), len(LABELS))

    class Student(FixedLogits):
        def forward(self, features: Tensor) -> Tensor:
            heard.append(features)
            return self.logits

    recipe = replace(PLAIN, masked_bands=8, masked_frames=10)
    training = WindowObjective(data, recipe, config_of(), features_of, CPU, teacher=teacher)
    training.loss(Student(torch.zeros(N, len(LABELS))), torch.arange(10), seeded())
    masked, whole = heard
    assert (whole == 1).all()
    assert 0 < (masked == 0).float().mean() < 0.5
    assert (masked == 0).all(2).any()  # frames, in all bands
    assert (masked == 0).all(3).any()  # bands, in all frames


TINY = {"stem_channels": 2, "width": 8, "n_blocks": 1}
SHORT = replace(WINDOW_TRAINING, epochs=2, batch_size=N, windows=replace(PLAIN, masked_bands=4), precision="float32")


def teacher_of(model: CausalCNN | DSCNN) -> Checkpoint:
    name = CAUSAL_CNN if isinstance(model, CausalCNN) else DS_CNN
    return Checkpoint(model, LABELS, {"mean": -13.8, "std": 4.0}, feature_config_of(name), sha256="0123456789abcdef")


def test_a_teacher_changes_what_is_learnt_and_stands_in_the_checkpoint(prepared: PreparedData, tmp_path: Path) -> None:
    """The same training with a teacher ends elsewhere; it cannot be resumed without the teacher."""
    torch.manual_seed(0)
    teacher = teacher_of(CausalCNN(CausalCNNConfig(stem_channels=2, width=16, n_blocks=1)))
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    alone = load_checkpoint(train(prepared, tmp_path / "alone", "causal-cnn", TINY, SHORT, device="cpu"))
    taught = load_checkpoint(
        train(prepared, tmp_path / "taught", "causal-cnn", TINY, SHORT, device="cpu", teachers=[teacher])
    )
    assert taught.data["teachers_sha256"] == [teacher.sha256]
    assert alone.data["teachers_sha256"] == []
    assert alone.history[0]["train_loss"] != taught.history[0]["train_loss"]
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    with pytest.raises(UsageError, match="teacher"):
        train(prepared, tmp_path / "taught", "causal-cnn", TINY, SHORT, device="cpu", resume=True)


def test_several_teachers_are_averaged(prepared: PreparedData, tmp_path: Path) -> None:
    """Two that say the opposite, on the whole, say nothing."""
    model = CausalCNN(CausalCNNConfig(stem_channels=2, width=8, n_blocks=1))
    opposite = CausalCNN(model.config)
    opposite.load_state_dict({
        name: -value if name.startswith("fc.") else value for name, value in model.state_dict().items()
    })  # fmt: skip
    teachers = [teacher_of(model), teacher_of(opposite)]
    settings = TrainSettings(CausalCNNConfig(**TINY), SHORT, "cpu", teachers=tuple(teachers))
    trainer = Trainer(prepared, tmp_path, settings)
    trainer.begin()
    features = torch.randn(3, 1, 64, 100, generator=seeded())
    assert trainer._teacher_logits(features).abs().max() < 1e-5
    assert teachers[0].model(features).abs().max() > 1e-3


def test_teachers_that_cannot_teach(prepared: PreparedData, tmp_path: Path) -> None:
    """One with another front end, and one for a recipe without windows, are refused before anything is written."""
    with pytest.raises(UsageError, match="front end"):
        train(prepared, tmp_path / "a", "causal-cnn", TINY, SHORT, device="cpu", teachers=[teacher_of(DSCNN(width=8))])
    causal = teacher_of(CausalCNN(CausalCNNConfig(stem_channels=2, width=8, n_blocks=1)))
    with pytest.raises(UsageError, match="windows"):
        train(prepared, tmp_path / "b", "causal-cnn", TINY, TrainConfig(epochs=1), device="cpu", teachers=[causal])
    assert not (tmp_path / "a" / "last.pt").exists()


def test_a_training_by_windows_is_resumed_exactly(prepared: PreparedData, tmp_path: Path) -> None:
    """Broken off after an epoch and gone on with, it ends with the weights of one that was not."""

    class BrokenOffError(Exception):
        pass

    def stop(report: EpochReport) -> None:
        raise BrokenOffError

    whole = load_checkpoint(train(prepared, tmp_path / "whole", "causal-cnn", TINY, SHORT, device="cpu"))
    with pytest.raises(BrokenOffError):
        train(
            prepared, tmp_path / "halves", "causal-cnn", TINY, SHORT, device="cpu", callbacks=Callbacks(on_epoch=stop)
        )
    train(prepared, tmp_path / "halves", "causal-cnn", TINY, SHORT, device="cpu", resume=True)
    halves = load_checkpoint(tmp_path / "halves" / "best.pt")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, halves.model.state_dict()[name]), name


# Windows and streams together

STREAMS = StreamRecipe(seconds=2.4, made_rooms=4)
MIXED = replace(MIXED_TRAINING, epochs=2, batch_size=8, windows=PLAIN, streams=STREAMS, precision="float32")


def test_a_mixed_step_is_both(data: PreparedData) -> None:
    """Its loss is that of the windows of some keywords and of the streams of the others, drawn one after the other."""
    config = replace(MIXED, batch_size=8, label_smoothing=0.1)
    mixed = MixedObjective(data, PLAIN, STREAMS, config, log_mels, HOP, CPU)
    assert mixed.n_items == 10
    assert mixed.per_step == mixed.windows.per_step + mixed.streams.per_step == 4 + 3
    torch.manual_seed(0)
    model = CausalCNN(CausalCNNConfig(stem_channels=2, width=8, n_blocks=1)).eval()
    items = torch.arange(7)
    loss, accurate = mixed.loss(model, items, seeded())
    generator = seeded()
    of_windows = WindowObjective(data, PLAIN, config, log_mels, CPU).loss(model, items[:4], generator)
    without = replace(config, batch_size=4, label_smoothing=0.0)
    of_streams = StreamObjective(data, STREAMS, without, log_mels, HOP, CPU).loss(model, items[4:], generator)
    assert loss.item() == pytest.approx(of_windows[0].item() + of_streams[0].item(), rel=1e-5)
    assert accurate.item() == of_windows[1].item()


def test_mixed_training_goes_on_from_weights(prepared: PreparedData, tmp_path: Path) -> None:
    """It changes the weights and leaves the statistics of batch norm, as they came; dropout may differ."""
    first = load_checkpoint(train(prepared, tmp_path / "first", "causal-cnn", TINY, SHORT, device="cpu"))
    before = {name: value.clone() for name, value in first.model.state_dict().items()}
    dropping = {**TINY, "dropout": 0.2}
    last = load_checkpoint(
        train(prepared, tmp_path / "mixed", "causal-cnn", dropping, MIXED, device="cpu", first=first)
    )
    changed = {name for name, value in last.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "fc.weight" in changed
    assert not {name for name in changed if "running" in name}
    assert last.data["first_sha256"] == first.sha256


def test_mixed_training_is_resumed_exactly(prepared: PreparedData, tmp_path: Path) -> None:
    """Broken off and gone on with, without the first checkpoint, it ends with the weights of one that was not."""
    first = load_checkpoint(train(prepared, tmp_path / "first", "causal-cnn", TINY, SHORT, device="cpu"))
    whole = load_checkpoint(train(prepared, tmp_path / "whole", "causal-cnn", TINY, MIXED, device="cpu", first=first))

    def stop(report: EpochReport) -> None:
        raise KeyboardInterrupt

    out, callbacks = tmp_path / "halves", Callbacks(on_epoch=stop)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, out, "causal-cnn", TINY, MIXED, device="cpu", first=first, callbacks=callbacks)
    train(prepared, out, "causal-cnn", TINY, MIXED, device="cpu", resume=True)
    halves = load_checkpoint(out / "best.pt")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, halves.model.state_dict()[name]), name
    assert halves.data["first_sha256"] == first.sha256


def test_mixed_training_needs_weights_to_go_on_from(prepared: PreparedData, tmp_path: Path) -> None:
    """From scratch there are no statistics of batch norm that could be left as they came."""
    with pytest.raises(UsageError, match="--from"):
        train(prepared, tmp_path / "mixed", "causal-cnn", TINY, MIXED, device="cpu")


def test_the_last_epoch_can_be_kept(prepared: PreparedData, tmp_path: Path) -> None:
    """Whatever the validation accuracy; otherwise the best of them is kept."""
    config = replace(SHORT, epochs=4, learning_rate=0.2)
    trained = {}
    for keep in (False, True):
        best = train(prepared, tmp_path / str(keep), "causal-cnn", TINY, replace(config, keep_last=keep), device="cpu")
        trained[keep] = load_checkpoint(best)
    accuracies = [line["val_acc"] for line in load_checkpoint(tmp_path / "True" / "best.pt").history]
    assert trained[True].epoch == 4
    assert trained[False].epoch == 1 + int(np.argmax(accuracies))


def test_the_reference_can_be_trained_on_windows(prepared: PreparedData, tmp_path: Path) -> None:
    """Windows are clips to a network: any can be trained on them."""
    best = load_checkpoint(train(prepared, tmp_path / "a", "ds-cnn", {"width": 8}, SHORT, device="cpu"))
    assert isinstance(best.model, DSCNN)
    assert [round(line["epoch"]) for line in best.history] == [1, 2][: len(best.history)]
    assert best.train_config["windows"]["keyword_share"] == PLAIN.keyword_share


def test_only_the_causal_network_hears_streams(prepared: PreparedData, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="causal"):
        train(prepared, tmp_path / "a", "ds-cnn", {"width": 8}, MIXED, device="cpu")
