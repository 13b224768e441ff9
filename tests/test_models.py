"""The network is the reference's: names, shapes, size and cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tiny_kws.training.networks import DSCNN, count_macs, count_parameters

NORM = {"weight": (160,), "bias": (160,), "running_mean": (160,), "running_var": (160,), "num_batches_tracked": ()}


@pytest.fixture(autouse=True)
def _same_weights() -> Iterator[None]:
    """Weights are drawn alike in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def reference_shapes() -> dict[str, tuple[int, ...]]:
    """Every name and shape of the reference's state dict."""
    shapes: dict[str, tuple[int, ...]] = {"stem.0.weight": (160, 1, 10, 4)}
    shapes |= {f"stem.1.{name}": shape for name, shape in NORM.items()}
    for block in range(4):
        shapes[f"blocks.{block}.depthwise.weight"] = (160, 1, 3, 3)
        shapes |= {f"blocks.{block}.bn1.{name}": shape for name, shape in NORM.items()}
        shapes[f"blocks.{block}.pointwise.weight"] = (160, 160, 1, 1)
        shapes |= {f"blocks.{block}.bn2.{name}": shape for name, shape in NORM.items()}
    return shapes | {"fc.weight": (12, 160), "fc.bias": (12,)}


def test_parameters() -> None:
    """The reference has 119,372 trainable parameters."""
    assert count_parameters(DSCNN()) == 119_372


def test_macs() -> None:
    """One second costs 58,997,366 multiply-accumulates."""
    assert count_macs(DSCNN(), torch.zeros(1, 1, 64, 101)) == 58_997_366


def test_state_dict() -> None:
    """The state dict has exactly the reference's names, in its order, and shapes."""
    found = {name: tuple(value.shape) for name, value in DSCNN().state_dict().items()}
    assert list(found.items()) == list(reference_shapes().items())


def test_convolutions_have_no_bias() -> None:
    """No convolution has a bias: the batch norm behind it has one."""
    assert all(module.bias is None for module in DSCNN().modules() if isinstance(module, torch.nn.Conv2d))


def test_strides_and_padding() -> None:
    """Stem and first block halve both axes, the others keep them: 64 x 101 to 33 x 51 to 17 x 26."""
    model = DSCNN().eval()
    stem = model.stem(torch.zeros(1, 1, 64, 101))
    assert stem.shape == (1, 160, 33, 51)
    sizes = []
    for block in model.blocks:
        stem = block(stem)
        sizes.append(tuple(stem.shape[2:]))
    assert sizes == [(17, 26)] * 4


@pytest.mark.parametrize("batch", [1, 5])
def test_logits(batch: int) -> None:
    """(batch, 1, 64, 101) gives (batch, 12) float32 logits, not probabilities."""
    logits = DSCNN().eval()(torch.randn(batch, 1, 64, 101, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (batch, 12)
    assert logits.dtype == torch.float32
    assert bool((logits < 0).any())


@pytest.mark.parametrize("width", [1, 8, 276])
@pytest.mark.parametrize("frames", [100, 101, 250])
def test_other_sizes(width: int, frames: int) -> None:
    """Width, number of blocks, classes and frames are free."""
    model = DSCNN(n_classes=5, width=width, n_blocks=2).eval()
    assert model(torch.zeros(2, 1, 64, frames)).shape == (2, 5)


def test_rows_do_not_mix() -> None:
    """In evaluation a clip's logits do not depend on the others of its batch."""
    model = DSCNN(width=8).eval()
    features = torch.randn(4, 1, 64, 101, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(features)[2:3], model(features[2:3]), rtol=1e-5, atol=1e-6)


def test_embedding_is_before_the_classifier() -> None:
    """The logits are the classifier's of the pooled vector, (batch, width)."""
    model = DSCNN(width=8).eval()
    features = torch.randn(2, 1, 64, 101, generator=torch.Generator().manual_seed(0))
    embedding = model.embed(features)
    assert embedding.shape == (2, 8)
    torch.testing.assert_close(model.fc(embedding), model(features))


def test_dropout_only_in_training() -> None:
    """Dropout of 0.2 stands before the classifier and is still in evaluation."""
    model = DSCNN(width=8)
    assert model.dropout.p == 0.2
    features = torch.ones(2, 1, 64, 101)
    model.eval()
    torch.testing.assert_close(model(features), model(features), rtol=0, atol=0)


def test_config_rebuilds_the_network() -> None:
    """What a network was built with stands in its config."""
    config = DSCNN(n_classes=5, width=8, n_blocks=2, dropout=0.5).config
    assert (config.n_classes, config.width, config.n_blocks, config.dropout) == (5, 8, 2, 0.5)


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_mode(training: bool) -> None:
    """Counting leaves training mode, statistics and hooks as they were."""
    model = DSCNN(width=8).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_macs(model, torch.ones(1, 1, 64, 101))
    assert all(module.training == training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_counting_survives_an_error() -> None:
    """A forward pass that fails while counting leaves no hooks and the mode as it was."""
    model = DSCNN(width=8)
    with pytest.raises(RuntimeError):
        count_macs(model, torch.ones(1, 3, 64, 101))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_macs_by_hand() -> None:
    """The count is half of two operations for each weight and one for the bias of every output value."""
    width, stem, block = 8, 33 * 51, 17 * 26
    twice = stem * width * (2 * 40 + 1) + 4 * block * width * ((2 * 9 + 1) + (2 * width + 1)) + 12 * (2 * width + 1)
    by_hand = twice // 2
    assert count_macs(DSCNN(width=width), torch.zeros(1, 1, 64, 101)) == by_hand
