"""What a step of training does: streams are learned from at every answer that counts, and at no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_kws.data.prepared import PreparedData
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.training.augment import augment
from tiny_kws.training.bank import fetch
from tiny_kws.training.composing.streams import IGNORED, NO_KEYWORD, Streams
from tiny_kws.training.features import LogMel, normalize
from tiny_kws.training.networks import CausalCNN
from tiny_kws.training.objectives import ClipObjective, StreamObjective
from tiny_kws.training_config import STREAM_TRAINING, CausalCNNConfig, StreamRecipe, TrainConfig
from tiny_kws.words import UNKNOWN

from .tones import log_mels, seeded

CPU = torch.device("cpu")
HOP = 320
RECIPE = StreamRecipe(seconds=2.4, made_rooms=4)
CONFIG = replace(STREAM_TRAINING, batch_size=8, streams=RECIPE)
TINY = CausalCNNConfig(stem_channels=2, width=8, n_blocks=2, dropout=0.0)
SURE = 20.0
"""A logit of one class, with zeros for the others, that leaves next to no doubt."""


class FixedLogits(CausalCNN):
    """A network that answers what it is given, (batch, answers, classes) logits, whatever it hears."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(TINY)
        self.logits = logits

    def answer_all(self, features: Tensor) -> Tensor:
        assert features.shape[0] == len(self.logits)
        return self.logits


@pytest.fixture(scope="module")
def training(prepared: PreparedData) -> StreamObjective:
    return StreamObjective(prepared, RECIPE, CONFIG, log_mels, HOP, CPU)


@pytest.fixture(scope="module")
def streams(training: StreamObjective) -> Streams:
    """What a step with the seed 0 and the first keywords composes."""
    return training.composer.compose(training.composer.keywords[: training.per_step], 8, seeded())


def loss_of(training: StreamObjective, logits: Tensor, **changes: Any) -> float:
    """The loss, in the step that composes `streams`, of a network that answers `logits`."""
    training.config = replace(CONFIG, **changes)
    loss, _ = training.loss(FixedLogits(logits), torch.arange(training.per_step), seeded())
    return loss.item()


def right_answers(streams: Streams) -> Tensor:
    """Logits (batch, answers, classes) of a network that makes no mistake; unknown where nothing is asked."""
    classes = streams.targets.clone()
    classes[classes < 0] = LABELS.index(UNKNOWN)
    classes[streams.rows, streams.answers] = streams.classes
    return SURE * nn.functional.one_hot(classes, len(LABELS)).float()


def not_at_clips(streams: Streams, target: int) -> Tensor:
    """Where the target is `target` and no clip ends, (batch, answers)."""
    mask = streams.targets == target
    mask[streams.rows, streams.answers] = False
    return mask


def test_no_mistakes_no_loss(training: StreamObjective, streams: Streams) -> None:
    """A network that hears all as it is has no loss, and all clips right."""
    assert loss_of(training, right_answers(streams)) < 1e-5
    assert (
        float(training.loss(FixedLogits(right_answers(streams)), torch.arange(training.per_step), seeded())[1]) == 1.0
    )


def test_the_accuracy(training: StreamObjective, streams: Streams) -> None:
    """The accuracy is the share of clips that are right at their end."""
    logits = right_answers(streams)
    logits[streams.rows[:3], streams.answers[:3]] = 0.0
    logits[streams.rows[:3], streams.answers[:3], (streams.classes[:3] + 1) % 12] = SURE
    _, accuracy = training.loss(FixedLogits(logits), torch.arange(training.per_step), seeded())
    assert float(accuracy) == pytest.approx(1 - 3 / len(streams.rows))


def test_a_wrong_clip_costs(training: StreamObjective, streams: Streams) -> None:
    """A clip taken for another costs its share of the clips' mean."""
    logits, row, answer = right_answers(streams), streams.rows[0], streams.answers[0]
    assert streams.targets[row, answer] == NO_KEYWORD or streams.targets[row, answer] == streams.classes[0]
    heard_before = streams.classes[0] > LABELS.index(UNKNOWN)
    logits[row, answer] = 0.0
    logits[row, answer, 0 if heard_before or streams.classes[0] == 1 else 1] = SURE
    share = SURE / len(streams.rows) + (SURE / int((streams.targets > 1).sum()) if heard_before else 0)
    assert loss_of(training, logits) == pytest.approx(share, rel=1e-3)


def test_a_keyword_unheard_costs(training: StreamObjective, streams: Streams) -> None:
    """Each answer at which a keyword is whole in the last second counts, not only the clip's end."""
    logits = right_answers(streams)
    rows, answers = torch.nonzero(not_at_clips(streams, int(streams.classes.max())))[:4].T
    logits[rows, answers] = 0.0
    logits[rows, answers, LABELS.index(UNKNOWN)] = SURE
    assert len(rows) == 4
    assert loss_of(training, logits) == pytest.approx(4 * SURE / int((streams.targets > 1).sum()), rel=1e-3)


def test_a_keyword_heard_in_part_costs_nothing(training: StreamObjective, streams: Streams) -> None:
    """While a keyword is heard in part, whatever is answered costs nothing."""
    logits = right_answers(streams)
    partly = not_at_clips(streams, IGNORED)
    assert int(partly.sum()) > 50
    logits[partly] = 10 * torch.randn(int(partly.sum()), 12, generator=seeded())
    assert loss_of(training, logits) < 1e-5


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_keyword_heard_in_nothing_costs(training: StreamObjective, streams: Streams, weight: float) -> None:
    """An answer of a keyword where there is none costs, by the recipe's weight, among the hardest of its stream."""
    logits = right_answers(streams)
    row, answer = torch.nonzero(not_at_clips(streams, NO_KEYWORD))[0]
    logits[row, answer] = 0.0
    logits[row, answer, 5] = SURE
    training.recipe = replace(RECIPE, no_keyword_weight=weight)
    n_hardest = 6  # of 120 answers, a twentieth
    none = SURE - torch.log(torch.tensor(2.0))  # either of silence and unknown would have been right
    try:
        assert loss_of(training, logits) == pytest.approx(weight * float(none) / (8 * n_hardest), rel=1e-3, abs=1e-5)
    finally:
        training.recipe = RECIPE


def test_silence_or_unknown_is_all_one_where_no_keyword_is(training: StreamObjective, streams: Streams) -> None:
    """Between clips either of silence and unknown will do."""
    logits = right_answers(streams)
    logits[not_at_clips(streams, NO_KEYWORD)] = SURE * nn.functional.one_hot(torch.tensor(0), 12).float()
    assert loss_of(training, logits) < 1e-5


def test_label_smoothing(training: StreamObjective, streams: Streams) -> None:
    """With label smoothing, being sure costs."""
    assert loss_of(training, right_answers(streams), label_smoothing=0.1) > 1.0


def test_a_step_without_a_whole_keyword(prepared: PreparedData) -> None:
    """A step in which no keyword is ever whole, as the last of an epoch may be, has a loss that is a number."""
    never = replace(RECIPE, latency_ms=3000.0)
    training = StreamObjective(prepared, never, CONFIG, log_mels, HOP, CPU)
    assert int(training.composer.compose(training.composer.keywords[:1], 8, seeded()).targets.max()) < 0
    loss, _ = training.loss(CausalCNN(TINY), torch.tensor([0]), seeded())
    assert bool(loss.isfinite())


def test_a_step_lowers_the_loss(prepared: PreparedData) -> None:
    """A step down the gradient lowers the loss of the batch that it was taken on; every weight has a gradient."""
    training = StreamObjective(prepared, RECIPE, CONFIG, log_mels, HOP, CPU)
    torch.manual_seed(0)
    model, items = CausalCNN(TINY), torch.arange(training.per_step)
    before, _ = training.loss(model, items, seeded(1))
    before.backward()
    with torch.no_grad():
        for weight in model.parameters():
            assert float(weight.grad.abs().max()) > 0
            weight.sub_(0.01 * weight.grad)
        after, _ = training.loss(model, items, seeded(1))
    assert after.item() < before.item() - 0.01


def test_steps_follow_from_the_generator(training: StreamObjective) -> None:
    """Equal seeds give equal losses, another seed another; bands are masked by the same generator."""
    model, items = CausalCNN(TINY).eval(), torch.arange(training.per_step)
    training.config = CONFIG
    first, again, other = (training.loss(model, items, seeded(seed))[0].item() for seed in (1, 1, 2))
    assert first == again != other


def test_an_epoch_is_a_pass_over_the_keywords(prepared: PreparedData) -> None:
    """Items are the training keywords; a step takes as many as its streams have room for."""
    training = StreamObjective(prepared, RECIPE, CONFIG, log_mels, HOP, CPU)
    assert training.n_items == 60
    assert training.per_step == round(6 * 2 * RECIPE.keyword_share)


def test_a_step_on_clips(prepared: PreparedData) -> None:
    """A step on clips is the cross-entropy of augmented training clips, by their numbers in the split."""
    config = TrainConfig(label_smoothing=0.0)

    def model(features: Tensor) -> Tensor:
        return features.mean((1, 3))[:, : len(LABELS)]

    def features(audio: Tensor) -> Tensor:
        return normalize(LogMel()(audio), {"mean": -6.0, "std": 4.0})

    recipe = ClipObjective(prepared, prepared.bank, config, features, CPU)
    items = torch.tensor([3, 70, 1])
    loss, accuracy = recipe.loss(model, items, seeded())
    rows = prepared.rows("training")[items.numpy()]
    audio = augment(fetch(prepared.bank, rows, CPU), torch.from_numpy(prepared.noise) / 32768.0, config, seeded())
    logits, targets = model(features(audio)), torch.from_numpy(prepared.targets(rows))
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), rel=1e-6)
    assert float(accuracy) == pytest.approx(float((logits.argmax(1) == targets).float().mean()))
    assert (recipe.n_items, recipe.per_step) == (72, 128)


def test_hard_negatives_are_what_the_network_fires_at(prepared: PreparedData) -> None:
    """Of the candidates those are kept in which the network as it is comes nearest to hearing a keyword."""
    recipe = replace(RECIPE, candidates=32, hard_negatives=4)
    training = StreamObjective(prepared, recipe, replace(CONFIG, streams=recipe), log_mels, HOP, CPU)
    model = CausalCNN(TINY).eval()
    training.begin_epoch(model, seeded())
    assert training.composer.hard_negatives is not None
    assert len(training.composer.hard_negatives) == 4

    def fires(audio: Tensor) -> Tensor:
        logits = model.answer_all(log_mels(audio)).log_softmax(-1)[..., : LABELS.index(UNKNOWN) + 1]
        return (-torch.logsumexp(logits, -1)).topk(round(0.05 * logits.shape[1]), 1).values.mean(1)

    generator = seeded()
    with torch.inference_mode():
        candidates = torch.cat([fires(training.composer.negatives(8, generator)) for _ in range(4)])
        kept = fires(training.composer.hard_negatives.float() / 32768)
    torch.testing.assert_close(kept, candidates.topk(4).values, atol=1e-2, rtol=1e-2)


def test_without_hard_negatives(prepared: PreparedData) -> None:
    """With none asked for, none are looked for."""
    training = StreamObjective(prepared, RECIPE, CONFIG, log_mels, HOP, CPU)
    training.begin_epoch(CausalCNN(TINY).eval(), seeded())
    assert training.composer.hard_negatives is None
