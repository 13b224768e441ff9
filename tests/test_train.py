"""The training loop learns, can be killed at any moment, and goes on as if it never had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_kws.data.prepare import prepare
from tiny_kws.data.prepared import EXTRA, PreparedData
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import KwsError, ModelError, UsageError
from tiny_kws.files import exclusive
from tiny_kws.training import trainer as room
from tiny_kws.training.bank import fetch, iterate_batches
from tiny_kws.training.checkpoint import load_checkpoint, read_torch, save_torch
from tiny_kws.training.devices import find_device, wants_bfloat16
from tiny_kws.training.features import LogMel, feature_stats
from tiny_kws.training.reports import Callbacks, EpochReport, StepReport
from tiny_kws.training.settings import TrainSettings
from tiny_kws.training.trainer import train
from tiny_kws.training_config import DSCNNConfig, PrepareConfig, StreamRecipe, TrainConfig, WindowRecipe
from tiny_kws.words import UNKNOWN, Vocabulary

from .conftest import full_disk

CONFIG = TrainConfig(epochs=3, batch_size=16, learning_rate=1e-2, precision="float32")
EASY = replace(
    CONFIG, epochs=6, batch_size=8, learning_rate=2e-2, label_smoothing=0.0, shift_ms=20.0, noise_volume=0.01
)
SMALL = {"width": 8}
STREAMS = replace(
    CONFIG,
    epochs=2,
    batch_size=8,
    warmup_steps=5,
    max_gradient_norm=1.0,
    average_decay=0.9,
    streams=StreamRecipe(seconds=2.4, made_rooms=4, candidates=16, hard_negatives=4),
)
CAUSAL = {"stem_channels": 2, "width": 8, "n_blocks": 1}
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")

KILLED_AGAIN_AND_AGAIN = """
import os, random, signal, sys, time
from pathlib import Path
from tiny_kws.training_config import TrainConfig
from tiny_kws.training.checkpoint import load_checkpoint
from tiny_kws.data.prepared import open_prepared
from tiny_kws.training.reports import Callbacks
from tiny_kws.training import trainer
from tiny_kws.training.trainer import train

data, out, precision, moment = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
trainer.SAVE_S = float(sys.argv[5])
config = TrainConfig(epochs=3, batch_size=16, learning_rate=1e-2, precision=precision)
rng = random.Random(0)

def killed_at(event):
    '''Train; kill this process at the so-manieth step or rename, counted before and after it.'''
    seen = 0
    rename = Path.replace

    def count(*_):
        nonlocal seen
        seen += 1
        if seen == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_rename(self, target):
        count()
        rename(self, target)
        count()

    Path.replace = counted_rename
    train(open_prepared(data), out, "ds-cnn", {"width": 8}, config, device="cpu", resume=True,
          callbacks=Callbacks(on_step=count))

def loads():
    for path in out.glob("*.pt"):
        load_checkpoint(path)

def in_a_process(job, *arguments, seconds=None):
    '''Whether `job` came to its end in a process of its own, which is killed after `seconds`.'''
    child = os.fork()
    if child == 0:
        try:
            job(*arguments)
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return not os.WIFSIGNALED(status)

kills = 0
while True:
    if moment == "never":
        done = in_a_process(killed_at, 0)
    elif moment == "event":
        done = in_a_process(killed_at, rng.randint(1, 16))
    else:
        done = in_a_process(killed_at, 0, seconds=rng.uniform(0.0, 0.15 * (kills + 1)))
    assert in_a_process(loads)
    if done:
        break
    kills += 1
print(kills)
"""


def run_killed(data: PreparedData, out: Path, precision: str, moment: str, save_s: float = 300.0) -> int:
    """Train in processes that are killed at drawn moments and resumed; how often one was killed.

    Amid an epoch it is saved every `save_s`.
    """
    script = [sys.executable, "-c", KILLED_AGAIN_AND_AGAIN]
    command = [*script, str(data.folder), str(out), precision, moment, str(save_s)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.splitlines()[-1])


def without_speed(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name != "clips_per_second"} for line in history]


def assert_equal(first: Any, second: Any) -> None:
    """Equal in structure, and bit for bit in every tensor and number."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def assert_same_training(first: Path, second: Path) -> None:
    """Two folders hold the same training: weights, optimizer, statistics, history (but for its speed), in all files."""
    for name in ("last.pt", "best.pt"):
        states = [read_torch(folder / name) for folder in (first, second)]
        for state in states:
            state["history"] = without_speed(state["history"])
        assert_equal(*states)
    histories = [json.loads((folder / "history.json").read_text()) for folder in (first, second)]
    assert_equal(*map(without_speed, histories))


class StopError(Exception):
    """Ends a training from its callbacks."""


def stop_after(epoch: int) -> Callbacks:
    """Callbacks that break a training off once `epoch` is saved."""

    def stop(report: EpochReport) -> None:
        if report.epoch == epoch:
            raise StopError

    return Callbacks(on_epoch=stop)


@pytest.fixture(scope="module")
def begun(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training broken off after its first epoch; not to be written to."""
    out = tmp_path_factory.mktemp("begun")
    with pytest.raises(StopError):
        train(prepared, out, "ds-cnn", SMALL, CONFIG, device="cpu", callbacks=stop_after(1))
    return out


@pytest.fixture(scope="module")
def trained(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole training of a small network; not to be written to."""
    out = tmp_path_factory.mktemp("trained") / "small"
    assert train(prepared, out, "ds-cnn", SMALL, CONFIG, device="cpu") == out / "best.pt"
    return out


@pytest.fixture(scope="module")
def on_streams(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole training of a tiny causal network on streams, its weights averaged; not to be written to."""
    out = tmp_path_factory.mktemp("streams") / "causal"
    train(prepared, out, "causal-cnn", CAUSAL, STREAMS, device="cpu")
    return out


@pytest.fixture
def own_begun(begun: Path, tmp_path: Path) -> Path:
    """A copy of the training broken off, one's own to go on with."""
    out = tmp_path / "own"
    out.mkdir()
    for name in ("last.pt", "best.pt", "history.json", "learning_curve.png"):
        (out / name).write_bytes((begun / name).read_bytes())
    return out


def test_the_loss_falls(prepared: PreparedData, tmp_path: Path) -> None:
    """On a dozen words anyone can tell apart, the loss falls and most are learned in a few epochs."""
    train(prepared, tmp_path, "ds-cnn", {"width": 32, "dropout": 0.0}, EASY, device="cpu")
    history = json.loads((tmp_path / "history.json").read_text())
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert max(line["val_acc"] for line in history) > 0.5


def test_what_a_training_leaves(trained: Path) -> None:
    """Last and best checkpoint, history, learning curve and TensorBoard events are there, and no leftovers."""
    names = sorted(path.name for path in trained.iterdir() if path.name != ".lock")
    assert names == ["best.pt", "history.json", "last.pt", "learning_curve.png", "tensorboard"]
    assert (trained / "learning_curve.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_tensorboard_events(trained: Path) -> None:
    """Every figure of the history stands in the events, epoch by epoch."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(trained / "tensorboard")).Reload()
    history = json.loads((trained / "history.json").read_text())
    for name in ("train_loss", "val_loss", "val_acc", "learning_rate"):
        found = events.Scalars(name)
        assert [event.step for event in found] == [1, 2, 3]
        assert [event.value for event in found] == pytest.approx([line[name] for line in history], rel=1e-6)


def test_the_history(trained: Path) -> None:
    """The history has a line an epoch, the same in every file, with a learning rate that falls towards zero."""
    history = json.loads((trained / "history.json").read_text())
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history == read_torch(trained / "last.pt")["history"]
    rates = [line["learning_rate"] for line in history]
    assert 1e-2 > rates[0] > rates[1] > rates[2] > 0
    assert rates[2] < 1e-3


def test_the_checkpoint(trained: Path, prepared: PreparedData) -> None:
    """The best checkpoint says what it was trained on and how."""
    checkpoint = load_checkpoint(trained / "best.pt")
    assert checkpoint.labels == LABELS
    assert checkpoint.model.config.width == 8
    assert checkpoint.train_config["learning_rate"] == 1e-2
    assert checkpoint.data["clips_sha256"] == prepared.manifest.clips_sha256


def test_best_is_the_first_of_the_most_accurate(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best.pt is the epoch of the highest validation accuracy, the earliest if several reach it."""
    accuracies = iter([0.2, 0.6, 0.4, 0.6, 0.5])
    monkeypatch.setattr(room.Trainer, "_validate", lambda run: (1.0, next(accuracies)))
    train(prepared, tmp_path, "ds-cnn", SMALL, replace(CONFIG, epochs=5), device="cpu")
    best, last = (load_checkpoint(tmp_path / name) for name in ("best.pt", "last.pt"))
    assert (best.epoch, best.val_acc) == (2, 0.6)
    assert (last.epoch, last.val_acc) == (5, 0.5)


def test_validation_accuracy_is_the_checkpoints(trained: Path, prepared: PreparedData) -> None:
    """The validation accuracy in a checkpoint is what its network gets right of the validation clips."""
    from tiny_kws.training.checkpoint import classifier_of, load_checkpoint

    rows = prepared.rows("validation")
    probabilities = classifier_of(load_checkpoint(trained / "best.pt"))(np.float32(prepared.bank[rows]) / 32768)
    accuracy = float((probabilities.argmax(1) == prepared.targets(rows)).mean())
    assert accuracy == pytest.approx(load_checkpoint(trained / "best.pt").val_acc, abs=1e-6)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "moment"), [("float32", "event"), ("auto", "time")])
def test_killed_and_resumed(prepared: PreparedData, tmp_path: Path, precision: str, moment: str) -> None:
    """Killed again and again, at any step, before and after any rename or at any time, and resumed: checkpoints always
    load, and weights, optimizer and history end bit for bit as those of a training that was never killed."""
    assert run_killed(prepared, tmp_path / "never", precision, "never") == 0
    assert run_killed(prepared, tmp_path / "often", precision, moment) >= 2
    assert_same_training(tmp_path / "never", tmp_path / "often")


@POSIX
def test_killed_amid_epochs_and_resumed(prepared: PreparedData, tmp_path: Path) -> None:
    """Saved after every step and killed again and again, a training ends bit for bit as one that was never killed."""
    assert run_killed(prepared, tmp_path / "never", "float32", "never") == 0
    assert run_killed(prepared, tmp_path / "often", "float32", "event", save_s=0.0) >= 2
    assert_same_training(tmp_path / "never", tmp_path / "often")
    assert not (tmp_path / "often" / "unfinished.pt").exists()


@pytest.mark.parametrize("broken_off", [(1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["clips", "streams"])
def test_resumed_amid_an_epoch(
    prepared: PreparedData,
    trained: Path,
    on_streams: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    broken_off: tuple[int, int],
) -> None:
    """Broken off at a step of an epoch, with averages and hard negatives too, it goes on from the step before."""
    monkeypatch.setattr(room, "SAVE_S", 0.0)
    monkeypatch.setattr(room, "PROGRESS_STEPS", 1)
    network, config, whole = ("ds-cnn", CONFIG, trained) if kind == "clips" else ("causal-cnn", STREAMS, on_streams)
    settings = SMALL if kind == "clips" else CAUSAL
    seen: list[tuple[int, int]] = []

    def stop(report: StepReport) -> None:
        if (report.epoch, report.step) == broken_off:
            raise StopError

    def see(report: StepReport) -> None:
        seen.append((report.epoch, report.step))

    with pytest.raises(StopError):
        train(prepared, tmp_path, network, settings, config, device="cpu", callbacks=Callbacks(on_step=stop))
    if broken_off != (1, 1):
        with pytest.raises(UsageError, match="already holds a training"):
            train(prepared, tmp_path, network, settings, config, device="cpu")
    train(prepared, tmp_path, network, settings, config, device="cpu", resume=True, callbacks=Callbacks(on_step=see))
    assert seen[0] == broken_off
    assert_same_training(whole, tmp_path)


def test_other_settings_are_refused_amid_an_epoch(
    prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved amid the first epoch is not gone on with by other settings."""
    monkeypatch.setattr(room, "SAVE_S", 0.0)

    def stop(report: StepReport) -> None:
        if report.step > 1:
            raise StopError

    with pytest.raises(StopError):
        train(prepared, tmp_path, "ds-cnn", SMALL, CONFIG, device="cpu", callbacks=Callbacks(on_step=stop))
    other = replace(CONFIG, seed=5)
    with pytest.raises(UsageError, match=r"unfinished\.pt: was started with other settings \(seed\)"):
        train(prepared, tmp_path, "ds-cnn", SMALL, other, device="cpu", resume=True)


def test_resumed_in_the_same_process(prepared: PreparedData, own_begun: Path, trained: Path) -> None:
    """A training broken off after an epoch and resumed ends like the one that ran through."""
    train(prepared, own_begun, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True)
    assert_same_training(own_begun, trained)


@pytest.mark.parametrize("lost", ["history.json", "learning_curve.png"])
def test_killed_before_the_last_report(prepared: PreparedData, trained: Path, tmp_path: Path, lost: str) -> None:
    """A training killed after its last checkpoint but before its last report is made whole by resuming."""
    for path in trained.iterdir():
        if path.is_file() and path.name not in {lost, ".lock"}:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    train(prepared, tmp_path, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True)
    assert (tmp_path / lost).read_bytes() == (trained / lost).read_bytes()


def test_resuming_what_is_done(prepared: PreparedData, trained: Path, tmp_path: Path) -> None:
    """Resuming a finished training trains no further."""
    for name in ("last.pt", "best.pt"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    seen: list[StepReport] = []
    best = train(
        prepared, tmp_path, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True, callbacks=Callbacks(on_step=seen.append)
    )
    assert best.read_bytes() == (trained / "best.pt").read_bytes()
    assert seen == []


def test_resuming_what_never_began(prepared: PreparedData, tmp_path: Path) -> None:
    """Resuming an empty folder starts a training."""
    train(prepared, tmp_path / "new", "ds-cnn", SMALL, replace(CONFIG, epochs=1), device="cpu", resume=True)
    assert load_checkpoint(tmp_path / "new" / "last.pt").epoch == 1


def test_same_seed_same_weights(prepared: PreparedData, trained: Path, tmp_path: Path) -> None:
    """Trained again with the same seed, everything is the same; torch's own generator does not matter nor move."""
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    train(prepared, tmp_path, "ds-cnn", SMALL, CONFIG, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same_training(tmp_path, trained)


def test_another_seed_other_weights(prepared: PreparedData, begun: Path, tmp_path: Path) -> None:
    """Another seed trains another network."""
    with pytest.raises(StopError):
        train(prepared, tmp_path, "ds-cnn", SMALL, replace(CONFIG, seed=1), device="cpu", callbacks=stop_after(1))
    first, second = (read_torch(out / "last.pt")["model_state"]["fc.weight"] for out in (begun, tmp_path))
    assert not torch.equal(first, second)


def test_an_existing_training_is_not_overwritten(prepared: PreparedData, own_begun: Path) -> None:
    """Without resuming, a folder that holds a training is refused and left as it is."""
    earlier = (own_begun / "last.pt").read_bytes()
    with pytest.raises(UsageError, match=r"^[^\n]+: already holds a training; continue with --resume [^\n]+$"):
        train(prepared, own_begun, "ds-cnn", SMALL, CONFIG, device="cpu")
    assert (own_begun / "last.pt").read_bytes() == earlier


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"epochs": 4}, "epochs"),
        ({"batch_size": 8, "learning_rate": 1e-3}, "batch_size, learning_rate"),
        ({"precision": "bfloat16"}, "precision, bfloat16"),
    ],
)
def test_other_settings_are_refused(
    prepared: PreparedData, own_begun: Path, changes: dict[str, Any], named: str
) -> None:
    """Resuming with other settings is refused, naming those that differ."""
    with pytest.raises(UsageError, match=rf"^[^\n]+: was started with other settings \({named}\)[^\n]+$"):
        train(prepared, own_begun, "ds-cnn", SMALL, replace(CONFIG, **changes), device="cpu", resume=True)


def test_another_network_is_refused(prepared: PreparedData, own_begun: Path) -> None:
    """Resuming with a network of another size is refused."""
    with pytest.raises(UsageError, match=r"other settings \(the network\)"):
        train(prepared, own_begun, "ds-cnn", {"width": 9}, CONFIG, device="cpu", resume=True)


def test_other_clips_are_refused(speech_commands: Path, own_begun: Path, tmp_path: Path) -> None:
    """Resuming on another draw of the task is refused."""
    other = prepare(speech_commands, tmp_path / "other", PrepareConfig(seed=1))
    with pytest.raises(UsageError, match=r"other settings \(the list of clips\)"):
        train(other, own_begun, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True)


@pytest.mark.parametrize("damage", ["truncated", "no optimizer", "no history", "wrong optimizer", "no weights"])
def test_a_damaged_training_is_refused(prepared: PreparedData, own_begun: Path, damage: str) -> None:
    """Resuming from a damaged checkpoint is an error in one line."""
    path = own_begun / "last.pt"
    last = read_torch(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "wrong optimizer":
        save_torch(path, {**last, "optimizer": {"state": 3}})
    else:
        del last[{"no optimizer": "optimizer", "no history": "history", "no weights": "model_state"}[damage]]
        save_torch(path, last)
    with pytest.raises(ModelError, match=r"^[^\n]*last\.pt: [^\n]+$"):
        train(prepared, own_begun, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True)


def test_two_at_once(prepared: PreparedData, tmp_path: Path) -> None:
    """A folder that another training is writing is refused."""
    with exclusive(tmp_path), pytest.raises(UsageError, match=r"another run is writing there"):
        train(prepared, tmp_path, "ds-cnn", SMALL, CONFIG, device="cpu")


@pytest.mark.parametrize("free_bytes", [0, 4096, 20_000])
def test_a_full_disk(prepared: PreparedData, own_begun: Path, free_bytes: int) -> None:
    """A disk that fills up while saving is a KwsError in one line, and the earlier checkpoint can be gone on with."""
    earlier = {name: (own_begun / name).read_bytes() for name in ("last.pt", "best.pt")}
    with pytest.raises(KwsError, match=r"^[^\n]+ cannot be written \([^\n]+$"), full_disk(free_bytes):
        train(prepared, own_begun, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True)
    assert {name: (own_begun / name).read_bytes() for name in earlier} == earlier
    assert [path.name for path in own_begun.glob(".*")] == [".lock"]


def test_a_loss_that_explodes(prepared: PreparedData, tmp_path: Path) -> None:
    """A loss that is no number ends the training in one line that says what to change, and saves nothing."""
    with pytest.raises(ModelError, match=r"^the training loss became [^\n]+ lower the learning rate$"):
        train(prepared, tmp_path, "ds-cnn", SMALL, replace(CONFIG, learning_rate=1e30), device="cpu")
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("device", ["tpu", "warp", "", "cuda:99"])
def test_an_unknown_device(prepared: PreparedData, tmp_path: Path, device: str) -> None:
    """A device that is not there is refused, naming it and those that are known."""
    with pytest.raises(UsageError, match=rf"^found no device '{device}', expected cpu, cuda or mps[^\n]+$"):
        train(prepared, tmp_path, "ds-cnn", SMALL, CONFIG, device=device)


def test_the_best_device() -> None:
    """Without a name the best device there is is taken."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert find_device().type == best
    assert find_device("cpu") == torch.device("cpu")


def test_an_unknown_precision(prepared: PreparedData, tmp_path: Path) -> None:
    """A precision that is not known is refused, naming those that are."""
    with pytest.raises(UsageError, match=r"^found the precision 'float16', expected auto, float32 or bfloat16$"):
        train(prepared, tmp_path, "ds-cnn", SMALL, replace(CONFIG, precision="float16"), device="cpu")


def test_precision_as_asked() -> None:
    """float32 and bfloat16 are taken as asked, whatever the processor."""
    cpu = torch.device("cpu")
    assert not wants_bfloat16("float32", cpu)
    assert wants_bfloat16("bfloat16", cpu)
    assert isinstance(wants_bfloat16("auto", cpu), bool)


def test_bfloat16_trains(prepared: PreparedData, tmp_path: Path) -> None:
    """Training in bfloat16 keeps float32 weights and comes close to the float32 loss."""
    config = replace(CONFIG, epochs=1)
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        train(prepared, out, "ds-cnn", SMALL, replace(config, precision=precision), device="cpu")
    states = [read_torch(tmp_path / precision / "last.pt") for precision in ("float32", "bfloat16")]
    assert all(value.dtype != torch.bfloat16 for value in states[1]["model_state"].values())
    losses = [state["history"][0]["train_loss"] for state in states]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_progress(prepared: PreparedData, tmp_path: Path) -> None:
    """Callbacks are told of steps and epochs, with loss, accuracy and the time that is left."""
    steps: list[StepReport] = []
    epochs: list[EpochReport] = []
    callbacks = Callbacks(on_step=steps.append, on_epoch=epochs.append)
    train(prepared, tmp_path, "ds-cnn", SMALL, replace(CONFIG, epochs=2), device="cpu", callbacks=callbacks)
    assert [report.epoch for report in epochs] == [1, 2]
    assert (steps[-1].epoch, steps[-1].epochs, steps[-1].step, steps[-1].steps) == (2, 2, 5, 5)
    assert steps[0].seconds_left > steps[-1].seconds_left == 0.0
    assert (steps[-1].loss, steps[-1].accuracy) == (epochs[-1].train_loss, epochs[-1].train_acc)


def test_the_bank_may_lie_on_the_device(prepared: PreparedData) -> None:
    """Clips come out the same whether the bank is memory-mapped or a tensor on the device."""
    rows = prepared.rows("training")[[5, 1, 1, 70]]
    cpu = torch.device("cpu")
    mapped = fetch(prepared.bank, rows, cpu)
    moved = fetch(torch.from_numpy(np.array(prepared.bank)), rows, cpu)
    assert mapped.dtype == torch.float32
    assert torch.equal(mapped, moved)
    np.testing.assert_array_equal(mapped.numpy() * 32768, prepared.bank[rows])


def test_batches_keep_the_order(prepared: PreparedData) -> None:
    """Batches hold the rows in order, the last one what is left."""
    rows = prepared.rows("validation")[::-1].copy()
    batches = list(iterate_batches(prepared.bank, rows, 16, torch.device("cpu")))
    assert [len(batch) for batch in batches] == [16, 16, 4]
    np.testing.assert_array_equal(torch.cat(batches).numpy() * 32768, prepared.bank[rows])


def test_statistics_are_of_all_training_clips(prepared: PreparedData, trained: Path) -> None:
    """The stats in a checkpoint are mean and standard deviation over all features of all training clips."""
    rows = prepared.rows("training")
    features = LogMel()(torch.from_numpy(np.float32(prepared.bank[rows]) / 32768)).double()
    stats = read_torch(trained / "last.pt")["stats"]
    assert stats["mean"] == pytest.approx(float(features.mean()), abs=1e-6)
    assert stats["std"] == pytest.approx(float(features.std(correction=0)), abs=1e-6)


def test_statistics_do_not_depend_on_batches() -> None:
    """However clips are divided into batches, the statistics are the same."""
    audio = torch.rand(6, 16_000, generator=torch.Generator().manual_seed(0)) - 0.5
    whole = feature_stats(LogMel(), iter([audio]))
    parts = feature_stats(LogMel(), iter([audio[:1], audio[1:]]))
    assert whole == pytest.approx(parts, rel=1e-9)


# Streams, averaged weights


@dataclass
class Step:
    """What a step of the optimizer was given and left."""

    learning_rate: float
    gradient_norm: float
    weights: dict[str, torch.Tensor]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Filled with every step of the trainings to come."""
    seen: list[Step] = []
    step = room.Trainer.step

    def noted(run: room.Trainer, items: torch.Tensor, learning_rate: float, generator: torch.Generator) -> torch.Tensor:
        result = step(run, items, learning_rate, generator)
        norm = torch.stack([weight.grad.norm() for weight in run.model.parameters()]).norm()
        weights = {name: value.clone() for name, value in run.model.state_dict().items()}
        seen.append(Step(learning_rate, float(norm), weights))
        return result

    monkeypatch.setattr(room.Trainer, "step", noted)
    return seen


def test_averaged_streams_resumed(prepared: PreparedData, on_streams: Path, tmp_path: Path) -> None:
    """A training on streams with averaged weights, broken off and resumed, ends bit for bit like the one that ran
    through: the average, the weights themselves, the optimizer and the history."""
    with pytest.raises(StopError):
        train(prepared, tmp_path, "causal-cnn", CAUSAL, STREAMS, device="cpu", callbacks=stop_after(1))
    train(prepared, tmp_path, "causal-cnn", CAUSAL, STREAMS, device="cpu", resume=True)
    assert "trained_state" in read_torch(tmp_path / "last.pt")
    assert_same_training(tmp_path, on_streams)


def test_the_average_is_kept(prepared: PreparedData, tmp_path: Path, steps: list[Step]) -> None:
    """What is saved is the moving average of the weights over all steps, whose decay grows to the one asked for."""
    config = replace(CONFIG, epochs=2, average_decay=0.2)
    train(prepared, tmp_path, "ds-cnn", SMALL, config, device="cpu")
    averages: dict[str, torch.Tensor] = dict(steps[0].weights)
    for n, step in enumerate(steps[1:], 1):
        decay = min(0.2, (n + 1) / (n + 20))
        for name, value in step.weights.items():
            averages[name] = decay * averages[name] + (1 - decay) * value if value.is_floating_point() else value
    last = read_torch(tmp_path / "last.pt")
    for name, value in averages.items():
        torch.testing.assert_close(last["model_state"][name], value)
    assert_equal(dict(last["trained_state"]), steps[-1].weights)
    assert not torch.equal(last["trained_state"]["fc.weight"], last["model_state"]["fc.weight"])


def test_the_average_is_validated(on_streams: Path, prepared: PreparedData) -> None:
    """The validation accuracy in a checkpoint is that of the average it holds."""
    from tiny_kws.training.checkpoint import classifier_of, load_checkpoint

    rows = prepared.rows("validation")
    probabilities = classifier_of(load_checkpoint(on_streams / "last.pt"))(np.float32(prepared.bank[rows]) / 32768)
    accuracy = float((probabilities.argmax(1) == prepared.targets(rows)).mean())
    assert accuracy == pytest.approx(load_checkpoint(on_streams / "last.pt").val_acc, abs=1e-6)


def test_warm_up(prepared: PreparedData, tmp_path: Path, steps: list[Step]) -> None:
    """The learning rate grows over the first steps in equal parts, across epochs, to where it is without."""
    for out, warmup in (("cold", 0), ("warm", 8)):
        train(prepared, tmp_path / out, "ds-cnn", SMALL, replace(CONFIG, epochs=2, warmup_steps=warmup), device="cpu")
    n_steps = len(steps) // 2
    ratios = [steps[n_steps + i].learning_rate / steps[i].learning_rate for i in range(n_steps)]
    assert n_steps == 10
    assert ratios == pytest.approx([*[(i + 1) / 8 for i in range(8)], 1.0, 1.0])


def test_long_gradients_are_shortened(prepared: PreparedData, tmp_path: Path, steps: list[Step]) -> None:
    """No step is taken along a gradient longer than asked; without that, some are."""
    for out, most in (("free", 0.0), ("short", 0.5)):
        train(
            prepared, tmp_path / out, "ds-cnn", SMALL, replace(CONFIG, epochs=1, max_gradient_norm=most), device="cpu"
        )
    free, short = ([step.gradient_norm for step in steps[part]] for part in (slice(5), slice(5, 10)))
    assert max(free) > 0.6
    assert max(short) == pytest.approx(0.5, abs=1e-4)


def test_only_the_causal_network_hears_streams(prepared: PreparedData, tmp_path: Path) -> None:
    """A network that cannot stream cannot be trained on streams."""
    with pytest.raises(UsageError, match=r"^only the causal network can be trained on streams"):
        train(prepared, tmp_path, "ds-cnn", SMALL, STREAMS, device="cpu")
    assert not (tmp_path / "last.pt").exists()


def test_an_average_cannot_be_dropped(prepared: PreparedData, on_streams: Path, tmp_path: Path) -> None:
    """A checkpoint that lacks the weights behind the average cannot be gone on with."""
    last = read_torch(on_streams / "last.pt")
    del last["trained_state"]
    save_torch(tmp_path / "last.pt", last)
    with pytest.raises(ModelError, match=r"is not a training that can be resumed"):
        train(prepared, tmp_path, "causal-cnn", CAUSAL, STREAMS, device="cpu", resume=True)


# What was trained on


def test_an_older_training_goes_on(prepared: PreparedData, own_begun: Path, trained: Path) -> None:
    """A training begun before there were streams, averages or words left out goes on, and ends the same."""
    last = read_torch(own_begun / "last.pt")
    for name in ("warmup_steps", "max_gradient_norm", "average_decay", "streams", "left_out"):
        del last["train_config"][name]
    save_torch(own_begun / "last.pt", last)
    train(prepared, own_begun, "ds-cnn", SMALL, CONFIG, device="cpu", resume=True)
    assert_equal(*(read_torch(out / "last.pt")["model_state"] for out in (own_begun, trained)))


def test_words_left_out_are_not_heard(prepared: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words left out are neither trained on nor in the statistics; validation hears them; the checkpoint names them."""
    seen: list[np.ndarray] = []

    def noted(bank: Any, rows: np.ndarray, device: torch.device) -> torch.Tensor:
        seen.append(rows)
        return fetch(bank, rows, device)

    monkeypatch.setattr("tiny_kws.training.bank.fetch", noted)
    monkeypatch.setattr("tiny_kws.training.objectives.fetch", noted)
    words = tuple(sorted({clip.word for clip in prepared.clips if clip.split == "training" and clip.label == UNKNOWN}))
    config = replace(CONFIG, epochs=1, left_out=words[:2])
    train(prepared, tmp_path, "ds-cnn", SMALL, config, device="cpu")
    heard = [prepared.clips[row] for row in np.concatenate(seen)]
    assert not {clip.word for clip in heard if clip.split in ("training", EXTRA)} & set(words[:2])
    expected = {row for row in prepared.rows("training") if prepared.clips[row].word not in words[:2]}
    assert {row for row in np.concatenate(seen) if prepared.clips[row].split == "training"} == expected
    assert {row for row in np.concatenate(seen) if prepared.clips[row].split != "training"} == set(
        prepared.rows("validation")
    )
    assert load_checkpoint(tmp_path / "last.pt").data["left_out"] == list(words[:2])


def test_words_left_out_are_part_of_the_settings(prepared: PreparedData, own_begun: Path) -> None:
    """A training cannot be resumed with other words left out."""
    with pytest.raises(UsageError, match=r"other settings \(left_out\)"):
        train(prepared, own_begun, "ds-cnn", SMALL, replace(CONFIG, left_out=("bed",)), device="cpu", resume=True)


def test_the_bill_of_materials(prepared: PreparedData, trained: Path, tmp_path: Path) -> None:
    """The sources, and the words left out, travel from the prepared data to the checkpoint and into the artefact."""
    from tiny_kws.artefact.runtime import Classifier
    from tiny_kws.export.exporter import Exporter

    checkpoint = load_checkpoint(trained / "best.pt")
    sources = json.loads(prepared.manifest.to_json())["sources"]
    assert checkpoint.data["sources"] == sources
    assert checkpoint.data["sources"][0]["used"] == {"CC BY 4.0": 96}
    Exporter(checkpoint).clip(tmp_path / "model.onnx")
    data = Classifier(tmp_path / "model.onnx").metadata.data
    assert (data["sources"], data["left_out"]) == (sources, [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")
def test_trains_on_a_gpu(prepared: PreparedData, tmp_path: Path) -> None:
    """On a GPU the loss falls too, and the checkpoint is one for any machine."""
    config = replace(EASY, precision="auto")
    train(prepared, tmp_path, "ds-cnn", {"width": 32, "dropout": 0.0}, config, device="cuda")
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert last["history"][-1]["train_loss"] < 0.7 * last["history"][0]["train_loss"]
    assert last["model_state"]["fc.weight"].device.type == "cpu"
    assert load_checkpoint(tmp_path / "best.pt").model.fc.weight.device.type == "cpu"


def test_from_a_checkpoint(on_streams: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """A training may begin with the weights and the feature scale of a checkpoint, which it names; resumed too."""
    first = load_checkpoint(on_streams / "best.pt")
    still = replace(STREAMS, epochs=1, learning_rate=0.0, seed=9)
    train(prepared, tmp_path / "run", "causal-cnn", CAUSAL, still, device="cpu", first=first)
    found = load_checkpoint(tmp_path / "run" / "last.pt")
    assert found.stats == first.stats
    assert found.data["first_sha256"] == first.sha256
    weights = dict(first.model.named_parameters())
    for name, value in found.model.named_parameters():
        torch.testing.assert_close(value, weights[name])
    train(prepared, tmp_path / "run", "causal-cnn", CAUSAL, still, device="cpu", resume=True)
    assert load_checkpoint(tmp_path / "run" / "last.pt").data["first_sha256"] == first.sha256


def test_from_a_checkpoint_of_another_network(on_streams: Path, prepared: PreparedData, tmp_path: Path) -> None:
    """Weights of another network or of another size are refused before anything is written."""
    first = load_checkpoint(on_streams / "best.pt")
    for architecture, size in (("causal-cnn", {**CAUSAL, "width": 9}), ("ds-cnn", SMALL)):
        with pytest.raises(UsageError, match="is a different network"):
            train(prepared, tmp_path / "run", architecture, size, CONFIG, device="cpu", first=first)
    assert not (tmp_path / "run" / "last.pt").exists()


def test_hard_negatives_do_not_hinder_resuming(prepared: PreparedData, tmp_path: Path) -> None:
    """What is looked for in an epoch follows from the checkpoint before it: resumed, the weights are the same."""
    config = replace(STREAMS, epochs=3)
    train(prepared, tmp_path / "whole", "causal-cnn", CAUSAL, config, device="cpu")

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            prepared, tmp_path / "parts", "causal-cnn", CAUSAL, config, device="cpu", callbacks=Callbacks(on_epoch=stop)
        )
    train(prepared, tmp_path / "parts", "causal-cnn", CAUSAL, config, device="cpu", resume=True)
    states = [load_checkpoint(tmp_path / name / "last.pt").model.state_dict() for name in ("whole", "parts")]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


# Windows of another length


def of_window(data: PreparedData, window: int) -> PreparedData:
    """The same clips, cut or with silence behind them, as data prepared with such a window."""
    bank = np.pad(data.bank[:], ((0, 0), (0, max(0, window - data.window))))[:, :window]
    return replace(data, bank=bank, spans=np.minimum(data.spans, window))


SHORT_STREAMS = StreamRecipe(made_rooms=4, seconds=2.4, noise_speeds=(1.0,), babble_share=0.0)
SHORT_WINDOWS = WindowRecipe(made_rooms=4, noise_speeds=(1.0,), babble_share=0.0)
RECIPES = {
    "clips": replace(CONFIG, epochs=1),
    "windows": replace(CONFIG, epochs=1, windows=SHORT_WINDOWS),
    "streams": replace(CONFIG, epochs=1, batch_size=8, streams=SHORT_STREAMS),
}


@pytest.mark.parametrize(("window", "pooled_frames"), [(9600, 30), (32_000, 100)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_window_comes_from_the_data(
    prepared: PreparedData, tmp_path: Path, recipe: str, window: int, pooled_frames: int
) -> None:
    """Trained on data of another window, by any recipe, a network has that window, and so has its checkpoint."""
    from tiny_kws.training.checkpoint import classifier_of

    data = of_window(prepared, window)
    found = load_checkpoint(train(data, tmp_path, "causal-cnn", CAUSAL, RECIPES[recipe], device="cpu"))
    assert (found.window, found.model.config.pooled_frames) == (window, pooled_frames)
    rows = data.rows("validation")
    probabilities = classifier_of(found)(np.float32(data.bank[rows]) / 32768)
    assert float((probabilities.argmax(1) == data.targets(rows)).mean()) == pytest.approx(found.val_acc, abs=1e-6)


def test_the_reference_takes_any_window(prepared: PreparedData, tmp_path: Path) -> None:
    """The DS-CNN is trained on windows that are no whole number of hops."""
    found = load_checkpoint(
        train(of_window(prepared, 12_345), tmp_path, "ds-cnn", SMALL, RECIPES["clips"], device="cpu")
    )
    assert found.window == 12_345


def test_a_window_that_the_network_cannot_take(prepared: PreparedData, tmp_path: Path) -> None:
    """A network that streams needs whole hops; it says so, and nothing is written."""
    with pytest.raises(
        UsageError, match=r"^[^\n]+: found a window of 12345 samples, expected a multiple of 320 [^\n]+$"
    ):
        train(of_window(prepared, 12_345), tmp_path / "run", "causal-cnn", CAUSAL, CONFIG, device="cpu")
    assert not (tmp_path / "run").exists()


def test_weights_of_another_window(prepared: PreparedData, on_streams: Path, tmp_path: Path) -> None:
    """A training does not begin with a checkpoint of another window, and does not go on with other data."""
    first = load_checkpoint(on_streams / "best.pt")
    with pytest.raises(UsageError, match=r"has a window of 16000 samples, expected 9600 as the data has$"):
        train(of_window(prepared, 9600), tmp_path / "run", "causal-cnn", CAUSAL, STREAMS, device="cpu", first=first)


def test_the_classes_come_from_the_data(prepared: PreparedData, tmp_path: Path) -> None:
    """A network has a class for each label of the data, whatever its settings say."""
    kept = ("silence", "unknown", "yes", "no", "stop")
    rows = [i for i, clip in enumerate(prepared.clips) if clip.label in kept]
    few = replace(
        prepared,
        bank=np.array(prepared.bank[rows]),
        spans=prepared.spans[rows],
        clips=[prepared.clips[i] for i in rows],
        vocabulary=Vocabulary(kept),
    )
    found = load_checkpoint(train(few, tmp_path, "ds-cnn", {"n_classes": 12, **SMALL}, RECIPES["clips"], device="cpu"))
    assert (found.labels, found.model.config.n_classes) == (kept, 5)


def test_an_older_network_goes_on(prepared: PreparedData, tmp_path: Path) -> None:
    """A training of a causal network begun before there were other windows goes on."""
    config = replace(STREAMS, streams=SHORT_STREAMS)
    with pytest.raises(StopError):
        train(prepared, tmp_path, "causal-cnn", CAUSAL, config, device="cpu", callbacks=stop_after(1))
    last = read_torch(tmp_path / "last.pt")
    del last["window"], last["model_config"]["pooled_frames"]
    save_torch(tmp_path / "last.pt", last)
    train(prepared, tmp_path, "causal-cnn", CAUSAL, config, device="cpu", resume=True)
    assert load_checkpoint(tmp_path / "last.pt").epoch == 2


def test_paths_may_be_text(prepared: PreparedData, tmp_path: Path) -> None:
    """The folder of a training may be given as a string."""
    best = train(prepared, str(tmp_path / "run"), "ds-cnn", SMALL, RECIPES["clips"], device="cpu")
    assert best == tmp_path / "run" / "best.pt"


def test_a_trainer_takes_single_steps(prepared: PreparedData, tmp_path: Path) -> None:
    """Code of one's own can take the steps: after `begin`, each gives its loss and changes the weights."""
    trainer = room.Trainer(prepared, tmp_path, TrainSettings(DSCNNConfig(width=8), CONFIG, "cpu"))
    trainer.begin()
    before = trainer.model.fc.weight.detach().clone()
    found = trainer.step(torch.arange(16), 1e-2, torch.Generator().manual_seed(0))
    assert (found.shape, bool(found.isfinite().all())) == ((2,), True)
    assert not torch.equal(trainer.model.fc.weight, before)
