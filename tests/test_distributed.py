"""Several processes train as one does: what they draw, what they share, what they write, how they end."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_kws.data.prepared import PreparedData
from tiny_kws.errors import UsageError
from tiny_kws.training.augment import augment, mask_bands
from tiny_kws.training.checkpoint import read_torch
from tiny_kws.training.composing.streams import Composer
from tiny_kws.training.distributed import Ranks, Share, SharedBatchNorm, share_batch_norm, together
from tiny_kws.training.trainer import _Run, train
from tiny_kws.training_config import StreamRecipe, TrainConfig, WindowRecipe

from .helpers import environment
from .tones import seeded

CPU = torch.device("cpu")
RECIPE = StreamRecipe(seconds=2.4, made_rooms=4, candidates=14, hard_negatives=5)
CLIPS = TrainConfig(epochs=3, batch_size=13, learning_rate=1e-3, precision="float32")
STREAMS = TrainConfig(
    epochs=3,
    batch_size=7,
    learning_rate=1e-3,
    precision="float32",
    warmup_steps=5,
    max_gradient_norm=1.0,
    average_decay=0.9,
    streams=RECIPE,
)
TRAININGS: dict[str, tuple[str, dict[str, Any], TrainConfig]] = {
    # Odd batches, so that shares are unequal; 72 clips in batches of 71, so that the last leaves one process nothing.
    "clips": ("ds-cnn", {"width": 8, "dropout": 0.0}, CLIPS),
    "one left": ("ds-cnn", {"width": 8, "dropout": 0.0}, replace(CLIPS, batch_size=71)),
    "streams": ("causal-cnn", {"stem_channels": 2, "width": 8, "n_blocks": 1, "dropout": 0.0}, STREAMS),
}
TRAININGS["windows"] = (*TRAININGS["streams"][:2], replace(STREAMS, streams=None, windows=WindowRecipe(made_rooms=4)))
TRAININGS["mixed"] = (*TRAININGS["streams"][:2], replace(TRAININGS["windows"][2], streams=RECIPE))
TOGETHER = """
import pickle, sys
from pathlib import Path
import torch.distributed as dist
from tiny_kws.data.prepared import open_prepared
from tiny_kws.training.trainer import train

data, out = open_prepared(Path(sys.argv[1])), Path(sys.argv[2])
dist.init_process_group("gloo")
for name, (architecture, model_config, config) in pickle.loads((out / "asked").read_bytes()).items():
    train(data, out / name, architecture, model_config, config, device="cpu", resume=True)
dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def start(n: int, *command: str | Path) -> list[tuple[int, str, str]]:
    """Run Python with `command` in `n` processes as torchrun starts them; status, output and errors of each."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-B", *map(os.fspath, command)],
            env={**environment(), **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def alone(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each training by one process; not to be written to."""
    out = tmp_path_factory.mktemp("alone")
    for name, (architecture, model_config, config) in TRAININGS.items():
        train(prepared, out / name, architecture, model_config, config, device="cpu")
    return out


@pytest.fixture(scope="module")
def pair(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each training by two processes; not to be written to."""
    out = tmp_path_factory.mktemp("pair")
    (out / "asked").write_bytes(pickle.dumps(TRAININGS))
    for status, _, said in start(2, "-c", TOGETHER, prepared.folder, out):
        assert (status, said) == (0, "")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_as_one(alone: Path, pair: Path, name: str) -> None:
    """Two processes give the loss curve of one with the same global batch, from the same draws.

    Sums are added in another order, which float32 rounds otherwise, by 1e-7 of a value in the first step. The steps of
    AdamW make more of it, up to 5e-4 here; from epoch to epoch these losses move by 1e-2 and more.
    """
    first, second = (json.loads((folder / name / "history.json").read_text()) for folder in (alone, pair))
    assert len(first) == len(second) == 3
    for one, two in zip(first, second, strict=True):
        for key in ("train_loss", "val_loss"):
            assert two[key] == pytest.approx(one[key], abs=2e-3), (key, first, second)
        assert two["learning_rate"] == one["learning_rate"]
    states = [read_torch(folder / name / "last.pt") for folder in (alone, pair)]
    assert states[0]["model_state"].keys() == states[1]["model_state"].keys()
    assert states[0]["stats"] == pytest.approx(states[1]["stats"], rel=1e-12)


@pytest.mark.slow
def test_torchrun(prepared: PreparedData, tmp_path: Path) -> None:
    """`torchrun -m tiny_kws train` trains with all its processes; the first alone prints, and a second go resumes."""
    command = ["-m", "tiny_kws", "train", prepared.folder, "--out", tmp_path / "run", "--batch-size", "72"]
    command += ["--device", "cpu", "--epochs", "1"]
    first, second = start(2, *command)
    assert (first[0], first[2], *second) == (0, "", 0, "", "")
    assert first[1].splitlines()[-2:] == [
        str(tmp_path / "run" / "best.pt"),
        f"Next: tiny-kws evaluate {tmp_path / 'run' / 'best.pt'} --data {prepared.folder} "
        f"--out {tmp_path / 'run' / 'validation'}",
    ]
    again = start(2, *command)
    assert [status for status, _, _ in again] == [2, 1]
    assert "holds a training already" in again[0][2]
    assert again[1][2].startswith("tiny-kws: another process of this training has ended")
    assert len(again[1][2].splitlines()) == 1


def test_shares_are_of_the_whole_draw() -> None:
    """What is drawn for a share of a batch is what is drawn for the same rows of the whole."""
    audio, noise, config = torch.zeros(7, 16000), torch.randn(20000, generator=seeded()), TrainConfig()
    whole = augment(audio, noise, config, seeded())
    masked = mask_bands(torch.ones(7, 1, 64, 3), 8, seeded())
    for rank in range(3):
        share = Share(7, rank, 3)
        assert torch.equal(augment(share.of(audio), noise, config, seeded(), share), share.of(whole))
        assert torch.equal(mask_bands(torch.ones(len(share), 1, 64, 3), 8, seeded(), share), share.of(masked))


def test_shares_of_composed_streams(prepared: PreparedData) -> None:
    """The shares of a composed batch, sound and what is to be heard, are the whole one's rows, and add up to it.

    Places between samples are rounded otherwise in batches of other sizes, by up to a thousandth of a sample.
    """
    rounding = {"atol": 5e-3, "rtol": 0.0}
    composer = Composer(prepared, RECIPE, 320, CPU)
    composer.hard = torch.ones(3, composer.n_samples, dtype=torch.int16)
    keywords = composer.keywords[:6]
    whole = composer.compose(keywords, 7, seeded())
    without = composer.negatives(7, seeded())
    n_clips = 0
    for rank in range(3):
        share = Share(7, rank, 3)
        own = composer.compose(keywords, 7, seeded(), share)
        torch.testing.assert_close(own.audio, share.of(whole.audio), **rounding)
        torch.testing.assert_close(composer.negatives(7, seeded(), share), share.of(without), **rounding)
        assert torch.equal(own.targets, share.of(whole.targets))
        mine = whole.rows % 3 == rank
        assert torch.equal(own.rows * 3 + rank, whole.rows[mine])
        assert torch.equal(own.answers, whole.answers[mine])
        assert torch.equal(own.classes, whole.classes[mine])
        assert (own.n_clips, own.n_heard) == (len(whole.classes), int((whole.targets > 1).sum()))
        n_clips += len(own.classes)
    assert n_clips == whole.n_clips


def test_shared_batch_norm_is_batch_norm(tmp_path: Path) -> None:
    """With one process, output, gradients and state are those of the usual batch norm."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        usual = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
        shared = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
        share_batch_norm(shared)
        assert isinstance(shared[0], SharedBatchNorm)
        x = (torch.randn(4, 3, 5, 6, generator=seeded()) * 3 + 2).requires_grad_()
        for module in (usual, shared):
            (module(x).square() * torch.arange(6)).mean().backward()
            module.seen, x.grad = x.grad, None
        torch.testing.assert_close(shared.seen, usual.seen, atol=1e-6, rtol=1e-5)
        for one, other in zip(shared.parameters(), usual.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
        for name, value in usual.state_dict().items():
            torch.testing.assert_close(shared.state_dict()[name], value)
        assert torch.equal(shared.eval()(x), torch.nn.Sequential(shared[0]).eval()(x))
        torch.testing.assert_close(shared.eval()(x), usual.eval()(x))
    finally:
        torch.distributed.destroy_process_group()


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that torchrun did not start trains alone, on the device that is asked for."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together("mps") as joined:
        assert joined == (Ranks(), "mps")


def test_a_device_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes on something else than CPU or CUDA are wrong use, in one line."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with (
        pytest.raises(UsageError, match=r"^several processes train on cpu or cuda, not on 'mps'[^\n]+$"),
        together("mps"),
    ):
        pass


def test_more_processes_than_rows(prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More processes than a batch has clips are refused."""
    monkeypatch.setattr(Ranks, "check_same", lambda *_, **__: None)
    with pytest.raises(UsageError, match=r"^found 14 processes for batches of 13 [^\n]+ start fewer$"):
        _Run(prepared, tmp_path, "ds-cnn", {"width": 8}, CLIPS, "cpu", Ranks(0, 14))


def test_different_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that were started with different settings say so, all of them."""

    def gather(every: list[Any], own: Any) -> None:
        every[:] = [own, own, {**own, "data": "other"}]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(UsageError, match=r"^the processes 0 and 2 were started with different data[^\n]+$"):
        Ranks(1, 3).check_same(settings=1, data="mine")
