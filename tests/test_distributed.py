"""Several processes train together: each on its own part, to the same weights; the first alone writes."""

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

import numpy as np
import pytest
import torch

from tiny_kws.data.prepared import PreparedData
from tiny_kws.errors import UsageError
from tiny_kws.training.checkpoint import classifier_of, load_checkpoint, read_torch
from tiny_kws.training.distributed import World, join_world
from tiny_kws.training.settings import TrainSettings
from tiny_kws.training.trainer import Trainer, _epoch_seed
from tiny_kws.training_config import (
    STREAM_TRAINING,
    CausalCNNConfig,
    DSCNNConfig,
    StreamRecipe,
    TrainConfig,
    WindowRecipe,
)

from .helpers import environment

CLIPS = TrainConfig(
    epochs=4, batch_size=14, learning_rate=2e-2, label_smoothing=0.0, noise_volume=0.01, precision="float32"
)
STREAMS = replace(
    STREAM_TRAINING,
    epochs=3,
    batch_size=8,
    learning_rate=1e-2,
    precision="float32",
    warmup_steps=5,
    average_decay=0.9,
    streams=StreamRecipe(seconds=2.4, made_rooms=4, candidates=14, hard_negatives=5),
)
TINY = CausalCNNConfig(stem_channels=2, width=8, n_blocks=1)
TRAININGS = {
    "clips": TrainSettings(DSCNNConfig(width=16, dropout=0.0), CLIPS, "cpu"),
    "streams": TrainSettings(TINY, STREAMS, "cpu"),
    "mixed": TrainSettings(TINY, replace(STREAMS, windows=WindowRecipe(made_rooms=4)), "cpu"),
}
"""72 clips in batches of 14 leave the last batch 2, one for each process; 60 keywords divide otherwise."""

TOGETHER = """
import pickle, shutil, sys
from pathlib import Path
import torch.distributed as dist
from tiny_kws.data.prepared import open_prepared
from tiny_kws.training.checkpoint import save_torch
from tiny_kws.training.distributed import World
from tiny_kws.training.reports import Callbacks
from tiny_kws.training.trainer import Trainer

data, out = open_prepared(Path(sys.argv[1])), Path(sys.argv[2])
dist.init_process_group("gloo")
world = World(dist.get_rank(), dist.get_world_size())
for name, settings in pickle.loads((out / "asked").read_bytes()).items():
    own = out / str(world.rank)

    def keep(report):
        if report.epoch == 1:
            shutil.copytree(own / name, own / f"{name} resumed")

    for folder, callbacks in ((name, Callbacks(on_epoch=keep)), (f"{name} resumed", None)):
        trainer = Trainer(data, own / folder, settings, world)
        trainer.run(resume=True, callbacks=callbacks)
        ends = {"model": trainer.model.state_dict(), "validated": trainer.optimization.validated.state_dict()}
        save_torch(out / f"{folder} {world.rank}.pt", ends)
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
def pair(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each training by two processes, which write to folders of their own; not to be written to."""
    out = tmp_path_factory.mktemp("pair")
    (out / "asked").write_bytes(pickle.dumps(TRAININGS))
    for status, _, errors in start(2, "-c", TOGETHER, prepared.folder, out):
        assert (status, errors) == (0, "")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_all_end_with_the_same_weights(pair: Path, name: str) -> None:
    """Weights, and what batch norm has counted, are bit for bit the same in both processes and in the checkpoint."""
    first, second = (read_torch(pair / f"{name} {rank}.pt") for rank in range(2))
    saved = read_torch(pair / "0" / name / "last.pt")["model_state"]
    for kind in ("model", "validated"):
        for key, value in first[kind].items():
            assert torch.equal(value, second[kind][key]), (kind, key)
    assert all(torch.equal(value, saved[key]) for key, value in first["validated"].items())


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_the_loss_falls(pair: Path, name: str) -> None:
    """Together they learn."""
    history = json.loads((pair / "0" / name / "history.json").read_text())
    assert history[-1]["train_loss"] < 0.95 * history[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_resumed_together(pair: Path, name: str) -> None:
    """Gone on with after the first epoch, they end bit for bit with the weights of a training that ran through."""
    whole, resumed = (read_torch(pair / f"{folder} 0.pt") for folder in (name, f"{name} resumed"))
    for kind in ("model", "validated"):
        for key, value in whole[kind].items():
            assert torch.equal(value, resumed[kind][key]), (kind, key)


@pytest.mark.slow
def test_the_first_alone_writes(pair: Path) -> None:
    """The other process leaves no file."""
    assert (pair / "0" / "clips" / "best.pt").exists()
    assert not (pair / "1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_validation_is_of_all_clips(pair: Path, prepared: PreparedData, name: str) -> None:
    """The validation accuracy that two processes find, each on its half, is that of the checkpoint on all clips."""
    checkpoint = load_checkpoint(pair / "0" / name / "last.pt")
    rows = prepared.rows("validation")
    answers = classifier_of(checkpoint)(np.float32(prepared.bank[rows]) / 32768).argmax(1)
    assert checkpoint.val_acc == pytest.approx(float((answers == prepared.targets(rows)).mean()), abs=1e-6)


@pytest.mark.slow
def test_statistics_are_of_all_clips(pair: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """The feature statistics that two processes find are those that one finds."""
    alone = Trainer(prepared, tmp_path, TRAININGS["clips"])
    alone.begin()
    assert read_torch(pair / "0" / "clips" / "last.pt")["stats"] == pytest.approx(alone.stats, rel=1e-12)


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
    assert "already holds a training" in again[0][2]
    assert again[1][2].startswith("tiny-kws: another process of this training has ended")
    assert len(again[1][2].splitlines()) == 1


@pytest.mark.parametrize("n_items", [6, 7, 8])
def test_parts_make_up_the_epoch(n_items: int) -> None:
    """Each process has as many items of an epoch; together they have all, and none more than twice."""
    order = torch.randperm(n_items, generator=torch.Generator().manual_seed(0))
    parts = [World(rank, 3).own_part(order) for rank in range(3)]
    assert {len(part) for part in parts} == {-(-n_items // 3)}
    counts = torch.bincount(torch.cat(parts), minlength=n_items)
    assert (int(counts.min()), int(counts.sum())) == (1, 3 * -(-n_items // 3))
    assert torch.equal(World().own_part(order), order)


def test_each_draws_for_itself() -> None:
    """Seeds differ from process to process and epoch to epoch; the first's are those of one that trains alone."""
    seeds = {_epoch_seed(seed, epoch, rank) for seed in range(3) for epoch in range(3) for rank in range(3)}
    assert len(seeds) == 27
    alone = np.random.SeedSequence([5, 2]).generate_state(1, np.uint64)[0] >> np.uint64(1)
    assert _epoch_seed(5, 2, 0) == alone


def test_batches_are_divided() -> None:
    """Each process has its part of a batch and of the search for hard negatives; alone, it has all."""
    own = World(1, 4).own_config(STREAMS)
    assert own.batch_size == 2
    assert own.streams is not None
    assert (own.streams.candidates, own.streams.hard_negatives) == (4, 2)
    assert World().own_config(STREAMS) == STREAMS


def test_batches_that_cannot_be_divided(prepared: PreparedData, tmp_path: Path) -> None:
    """A batch that does not divide by the number of processes is refused, saying what would."""
    with pytest.raises(UsageError, match=r"^found batches of 14 for 3 processes, expected a multiple of 3; [^\n]+$"):
        World(0, 3).own_config(CLIPS)


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that torchrun did not start trains alone, on the device that is asked for."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world("mps") as joined:
        assert joined == (World(), "mps")


def test_a_device_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes on something else than CPU or CUDA are wrong use, in one line."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with (
        pytest.raises(UsageError, match=r"^several processes train on cpu or cuda, not on 'mps'[^\n]+$"),
        join_world("mps"),
    ):
        pass


def test_more_processes_than_clips(prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More processes than there are clips to validate on are refused."""
    monkeypatch.setattr(World, "check_same", lambda *_, **__: None)
    settings = replace(TRAININGS["clips"], config=replace(CLIPS, batch_size=40))
    with pytest.raises(UsageError, match=r"^found 40 processes for 36 clips [^\n]+ start fewer$"):
        Trainer(prepared, tmp_path, settings, World(0, 40))


@pytest.mark.slow
def test_two_that_were_started_differently(prepared: PreparedData, tmp_path: Path) -> None:
    """Processes with different settings end, each with a line that says so, and write nothing."""
    command = [prepared.folder, "--out", tmp_path / "run", "--device", "cpu", "--batch-size", "72", "--epochs"]
    code = "import os, runpy, sys; sys.argv = ['tiny-kws', *sys.argv[1:], str(1 + int(os.environ['RANK']))]; "
    ended = start(2, "-c", code + "runpy.run_module('tiny_kws', run_name='__main__')", "train", *command)
    for status, _, errors in ended:
        assert status == 2
        assert errors.startswith("tiny-kws: the processes 0 and 1 were started with different settings")
    assert not list((tmp_path / "run").glob("*.pt"))


def test_different_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that were started with different settings say so, all of them."""

    def gather(every: list[Any], own: Any) -> None:
        every[:] = [own, own, {**own, "data": "other"}]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(UsageError, match=r"^the processes 0 and 2 were started with different data[^\n]+$"):
        World(1, 3).check_same(settings=1, data="mine")
