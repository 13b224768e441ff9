"""The training loop: batches of waveforms to weights, a checkpoint each epoch, exact resuming."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ..data.prepared import PreparedData
from ..errors import ModelError, UsageError
from ..files import exclusive, write_json
from ..plotting import require_matplotlib
from ..training_config import TrainConfig
from ..words import Vocabulary
from .bank import Bank, fetch, on_device
from .checkpoint import DS_CNN, Checkpoint, build_model, feature_config_of, load_weights, read_torch, save_torch
from .distributed import Ranks, share_batch_norm, together
from .features import LogMel, normalize
from .learning_curve import plot_learning_curve
from .networks import CausalCNN, Network, shape_of
from .objectives import ClipRecipe, MixedTraining, Recipe, StreamTraining, WindowTraining, accuracy, mean_loss
from .tensorboard import write_events

EVAL_BATCH = 256
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
DATA_KEYS = ("source", "licence", "prepare", "clips", "clips_sha256", "sources")  # of the manifest, in a checkpoint
PROGRESS_STEPS = 5  # report a step in so many: on a GPU every report waits for the device


@dataclass(frozen=True)
class StepReport:
    """Where a training stands: means over the epoch so far, and the seconds left of the whole training."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    seconds_left: float


@dataclass(frozen=True)
class EpochReport:
    """One line of the history."""

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float
    val_acc: float
    learning_rate: float
    clips_per_second: float


@dataclass
class Watcher:
    """What the caller wants to hear while a training runs; by default nothing."""

    on_step: Callable[[StepReport], None] = lambda report: None
    on_epoch: Callable[[EpochReport], None] = lambda report: None


def train(
    data: PreparedData,
    out: Path,
    architecture: str,
    model_config: dict[str, Any] | None = None,
    config: TrainConfig | None = None,
    *,
    device: str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    first: Checkpoint | None = None,
    teachers: Sequence[Checkpoint] = (),
) -> Path:
    """Train on `data` and return the path of the best checkpoint, `out`/best.pt.

    That is the epoch with the highest validation accuracy, or the last, as `config` says.

    Each epoch leaves `last.pt`, `best.pt`, `history.json` and `learning_curve.png` in `out`, each whole or absent, and
    appends to the TensorBoard events there. With `resume`, goes on from `last.pt`; on one machine the weights end as if
    never interrupted. With `first`, training begins from the weights of that checkpoint; with `teachers`, networks of
    the same front end, training on windows is also towards what they say, the mean of their logits.

    Processes that torchrun started train together, each on its share of every batch, to the loss curve of one but for
    rounding and dropout, which each draws for itself. The first alone writes, reads `last.pt`, and calls the watcher.
    Raises UsageError if `out` already holds a training that is not resumed, is another's, or is being written, and if
    processes do not train on the same.
    """
    require_matplotlib()
    with together(device) as (ranks, own_device), exclusive(out) if ranks.first else nullcontext():
        run = _Run(
            data, out, architecture, model_config or {}, config or TrainConfig(), own_device, ranks, first, teachers
        )
        run.start(resume)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):  # for exact resuming
            run.train(watcher if watcher and ranks.first else Watcher())
    return out / "best.pt"


def find_device(name: str | None = None) -> torch.device:
    """The device called `name`, or the best there is: CUDA, then MPS, then CPU. UsageError if it is not there."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"found no device {name!r}, expected cpu, cuda or mps; leave it out to take the best"
        ) from error
    return device


def wants_bfloat16(precision: str, device: torch.device, pays: bool = True) -> bool:
    """Whether to train in bfloat16: as asked, or, for `auto`, where it pays and the device multiplies in it."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"found the precision {precision!r}, expected auto, float32 or bfloat16")
    if precision != "auto":
        return precision == "bfloat16"
    if not pays:
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device.type == "cpu" and bool(amx())


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library can be told to (glibc).

    Otherwise every large tensor of every step is fetched from the system anew, page by page: a fifth of a step.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def iterate_batches(bank: Bank, rows: npt.NDArray[np.intp], size: int, device: torch.device) -> Iterator[Tensor]:
    """Float32 audio (up to `size`, samples) in [-1, 1] on `device`, in the order of `rows`; bank int16."""
    for start in range(0, len(rows), size):
        yield fetch(bank, rows[start : start + size], device)


def feature_stats(log_mel: LogMel, batches: Iterator[Tensor], ranks: Ranks | None = None) -> dict[str, float]:
    """The one mean and standard deviation over all features of all `batches`, those of all `ranks` together.

    A causal front end is shifted by digital silence instead of the mean: then zeros before a recording are silence.
    """
    count, total, squares = 0.0, 0.0, 0.0
    with torch.inference_mode():
        for audio in batches:
            features = log_mel(audio).cpu().double()
            count += features.numel()
            total += float(features.sum())
            squares += float(features.square().sum())
    count, total, squares = (ranks or Ranks()).sum_numbers(count, total, squares)
    mean = total / count
    std = math.sqrt(squares / count - mean**2)
    return {"mean": mean if log_mel.config.centered else math.log(log_mel.config.log_offset), "std": std}


class _Loss(nn.Module):
    """What the gradient is taken of, as a module that can be wrapped: numbers of clips to the recipe's loss."""

    def __init__(self, recipe: Recipe, model: Network) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model

    def forward(self, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.recipe.loss(self.model, items, generator)


class _Run:
    """One training: what stays the same over its epochs."""

    def __init__(
        self,
        data: PreparedData,
        out: Path,
        architecture: str,
        model_config: dict[str, Any],
        config: TrainConfig,
        device: str | None,
        ranks: Ranks | None = None,
        first: Checkpoint | None = None,
        teachers: Sequence[Checkpoint] = (),
    ) -> None:
        data = data.without(config.left_out)
        self.data, self.out, self.config, self.ranks = data, out, config, ranks or Ranks()
        self.device = find_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        # Both pay for the DS-CNN's convolutions, on every device measured, and cost where they run over time alone.
        two_dimensional = architecture == DS_CNN
        self.bfloat16 = wants_bfloat16(config.precision, self.device, two_dimensional)
        self.memory_format = torch.channels_last if two_dimensional else torch.contiguous_format
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = build_model(
                architecture, {"n_classes": len(data.vocabulary), **model_config}, "the model asked for"
            )
        self.first, self.first_sha256 = first, "" if first is None else first.sha256
        if first is not None:
            _begin_from(first, model, data.vocabulary)
        self.teachers = teachers
        for teacher in teachers:
            _check_teacher(teacher, architecture, config, data.vocabulary)
            teacher.model.to(self.device).eval().requires_grad_(False)
        if self.ranks.count > 1:
            share_batch_norm(model)
        self.model = model.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.average: AveragedModel | None = None
        if config.average_decay:
            # Young averages forget faster: then the first, bad weights do not linger.
            self.average = AveragedModel(self.model, multi_avg_fn=_average(config.average_decay), use_buffers=True)
        self.log_mel = LogMel(feature_config_of(architecture)).to(self.device)
        self.quick_log_mel = LogMel(feature_config_of(architecture), torch.float32).to(self.device)
        self.rows = {split: data.rows(split) for split in ("training", "validation")}
        self.ranks.check_same(
            data=self.data.manifest["clips_sha256"],
            settings=(asdict(config), self.bfloat16, architecture, asdict(self.model.config), *self._others().values()),
        )
        if self.ranks.count > min(config.batch_size, len(self.rows["validation"])):
            raise UsageError(
                f"found {self.ranks.count} processes for batches of {config.batch_size} and "
                f"{len(self.rows['validation'])} validation clips, expected no more than one for each; start fewer"
            )
        self.bank: Bank = on_device(data.bank, None, self.device)
        self.recipe = self._make_recipe()
        self.loss: nn.Module = _Loss(self.recipe, self.model)
        if self.ranks.count > 1:
            self.loss = DistributedDataParallel(self.loss)
        self.steps = math.ceil(self.recipe.n_items / self.recipe.per_step)
        self.history: list[dict[str, float]] = []
        self.stats: dict[str, float] = {}

    def _make_recipe(self) -> Recipe:
        windows, streams = self.config.windows, self.config.streams
        if streams is not None and not isinstance(self.model, CausalCNN):
            raise UsageError("only the causal network can be trained on streams; train this one on clips")
        common = (self.config, self._features, self.device, self.ranks)
        said = self._said if self.teachers else None
        if windows is not None and streams is not None:
            return MixedTraining(self.data, windows, streams, *common, said)
        if windows is not None:
            return WindowTraining(self.data, windows, *common, said)
        if streams is None:
            return ClipRecipe(self.data, self.bank, *common)
        return StreamTraining(self.data, streams, *common)

    def start(self, resume: bool) -> None:
        """Begin afresh, or go on from the last whole epoch."""
        path = self.out / "last.pt"
        exists = self.ranks.first and path.exists()
        if exists and not resume:
            raise UsageError(f"{self.out}: holds a training already; go on with --resume or name another folder")
        last = self.ranks.from_first(read_torch(path) if exists else None)
        if last is not None:
            self._restore(last, path)
        elif self.first is not None:
            self.stats = dict(self.first.stats)  # the weights are made for features of this scale
        elif self.config.frozen_batch_norm:
            raise UsageError("found no weights to go on from, expected the checkpoint of a first training; add --from")
        else:
            batches = iterate_batches(self.bank, self._own("training"), EVAL_BATCH, self.device)
            self.stats = feature_stats(self.log_mel, batches, self.ranks)

    def train(self, watcher: Watcher) -> None:
        """The epochs that are left."""
        # A run that was killed between its last checkpoint and its reports did not write these.
        self._report(self.history, append=False)
        for epoch in range(len(self.history), self.config.epochs):
            report = self._epoch(epoch, watcher)
            self.history.append(asdict(report))
            self._save()
            self._report(self.history[-1:], append=True)
            watcher.on_epoch(report)

    def _epoch(self, epoch: int, watcher: Watcher) -> EpochReport:
        """One pass over the training clips. All its draws follow from the seed and the epoch alone."""
        order_generator = torch.Generator().manual_seed(_epoch_seed(self.config.seed, epoch))
        if epoch:  # a network that has learnt nothing knows nothing hard
            self.recipe.begin_epoch(self._kept().eval(), order_generator)
        self._to_training()
        order = torch.randperm(self.recipe.n_items, generator=order_generator)
        total = torch.zeros(2, device=self.device)
        started, seen = time.perf_counter(), 0
        with torch.random.fork_rng():
            # Dropout draws from torch's own generator.
            torch.manual_seed(_epoch_seed(self.config.seed, epoch) + self.ranks.rank)
            for step, batch in enumerate(torch.split(order, self.recipe.per_step)):
                rate = _cosine(self.config.learning_rate, epoch + step / self.steps, self.config.epochs)
                rate *= min(1.0, (epoch * self.steps + step + 1) / max(1, self.config.warmup_steps))
                total += self._step(batch, rate, order_generator) * len(batch)
                seen += len(batch)
                if step % PROGRESS_STEPS == 0 or step + 1 == self.steps:
                    loss, accurate = (self.ranks.sum(total) / seen).tolist()
                    speed = (time.perf_counter() - started) / (step + 1)
                    left = speed * ((self.config.epochs - epoch) * self.steps - step - 1)
                    watcher.on_step(
                        StepReport(epoch + 1, self.config.epochs, step + 1, self.steps, loss, accurate, left)
                    )
        loss, accurate = (self.ranks.sum(total) / seen).tolist()
        if not math.isfinite(loss):
            raise ModelError(f"the training loss became {loss} in epoch {epoch + 1}; lower the learning rate")
        speed = seen / (time.perf_counter() - started)
        val_loss, val_acc = self._validate()
        return EpochReport(epoch + 1, loss, accurate, val_loss, val_acc, rate, round(speed, 1))

    def _to_training(self) -> None:
        self.model.train()
        if self.config.frozen_batch_norm:
            for layer in self.model.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()

    def _step(self, items: Tensor, learning_rate: float, generator: torch.Generator) -> Tensor:
        """One step of the optimizer on the training clips `items`; this process's part of loss and accuracy (2,)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss, accurate = self.loss(items, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        (loss * self.ranks.count).backward()  # of the gradients of several processes the mean is taken
        if self.config.max_gradient_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return torch.stack([loss.detach(), accurate])

    def _features(self, audio: Tensor) -> Tensor:
        if len(audio) == 0:  # the share of a process in a last batch; no Fourier transform takes it
            config = self.log_mel.config
            return torch.zeros(0, 1, config.n_mels, config.n_frames(audio.shape[1]), device=self.device)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            log_mel = self.quick_log_mel if self.model.training else self.log_mel
            return normalize(log_mel(audio), self.stats).contiguous(memory_format=self.memory_format)

    def _said(self, features: Tensor) -> Tensor:
        """What the teachers say, on average, to features that are scaled for the network that learns."""
        with torch.no_grad():
            log_mels = features * self.stats["std"] + self.stats["mean"]
            logits = [teacher.model(normalize(log_mels, teacher.stats)) for teacher in self.teachers]
            return torch.stack(logits).mean(0)

    def _others(self) -> dict[str, Any]:
        """The checkpoints that this training begins from and learns from."""
        return {
            "first_sha256": self.first_sha256,
            "teachers_sha256": [teacher.sha256 for teacher in self.teachers],
        }

    def _validate(self) -> tuple[float, float]:
        """Loss (without label smoothing) and accuracy on the validation split, in float32."""
        model, total, rows = self._kept().eval(), len(self.rows["validation"]), self._own("validation")
        with torch.inference_mode():
            batches = iterate_batches(self.bank, rows, EVAL_BATCH, self.device)
            logits = torch.cat([model(self._features(audio)) for audio in batches])
            targets = torch.from_numpy(self.data.targets(rows)).to(self.device)
            found = torch.stack([mean_loss(logits, targets, total), accuracy(logits, targets, total)])
            loss, accurate = self.ranks.sum(found).tolist()
            return loss, accurate

    def _own(self, split: str) -> npt.NDArray[np.intp]:
        """This process's share of the rows of a split."""
        return self.rows[split][self.ranks.rank :: self.ranks.count]

    def _kept(self) -> Network:
        """What is validated and saved: the average of the weights, if there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def _checkpoint(self) -> Checkpoint:
        manifest = self.data.manifest
        return Checkpoint(
            model=self._kept(),
            labels=self.data.vocabulary.labels,
            stats=self.stats,
            feature_config=self.log_mel.config,
            val_acc=self.history[-1]["val_acc"],
            epoch=len(self.history),
            history=self.history,
            train_config={**asdict(self.config), "bfloat16": self.bfloat16},
            data={
                **{key: manifest.get(key) for key in DATA_KEYS},
                "left_out": list(self.config.left_out),
                **self._others(),
            },
        )

    def _save(self) -> None:
        """Best before last: if killed between the two, the epoch is run again and the best written as before."""
        if not self.ranks.first:
            return
        checkpoint = self._checkpoint().to_dict()
        accuracies = [line["val_acc"] for line in self.history]
        if self.config.keep_last or accuracies[-1] > max(accuracies[:-1], default=-1.0):
            save_torch(self.out / "best.pt", checkpoint)
        last = {**checkpoint, "optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            last |= {"trained_state": self.model.state_dict(), "n_averaged": self.average.n_averaged}
        save_torch(self.out / "last.pt", last)

    def _report(self, events: list[dict[str, float]], append: bool) -> None:
        if not self.ranks.first:
            return
        write_events(events, self.out / "tensorboard" / "events.out.tfevents", append)
        if self.history:
            write_json(self.out / "history.json", self.history)
            plot_learning_curve(self.history, self.out / "learning_curve.png")

    def _restore(self, last: dict[str, Any], path: Path) -> None:
        expected = {**asdict(self.config), "bfloat16": self.bfloat16}
        found, data = (value if isinstance(value := last.get(key), dict) else {} for key in ("train_config", "data"))
        found = {**asdict(TrainConfig()), **found}  # settings that it does not know were at their defaults
        differing = [name for name in expected if found.get(name) != expected[name]]
        if data.get("clips_sha256") != self.data.manifest["clips_sha256"]:
            differing.append("the list of clips")
        if last.get("model_config") != asdict(self.model.config):
            differing.append("the network")
        if data.get("teachers_sha256", []) != self._others()["teachers_sha256"]:
            differing.append("the teachers")
        if differing:
            raise UsageError(
                f"{path}: was started with other settings ({', '.join(differing)}), expected the same; "
                "resume with those or name another folder"
            )
        try:
            load_weights(self._kept(), last["model_state"], str(path))
            if self.average is not None:
                load_weights(self.model, last["trained_state"], str(path))
                self.average.n_averaged.copy_(last["n_averaged"])
            self.optimizer.load_state_dict(last["optimizer"])
            self.history, self.stats = last["history"], last["stats"]
            self.first_sha256 = str(data.get("first_sha256", ""))
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"{path}: is no training to go on with ({error}); start again in another folder"
            ) from error


def _check_teacher(teacher: Checkpoint, architecture: str, config: TrainConfig, vocabulary: Vocabulary) -> None:
    """Raise UsageError unless the network that is trained on windows can learn from the teacher."""
    if config.windows is None:
        raise UsageError("found a teacher with another recipe, expected windows; add --recipe windows or mixed")
    if teacher.feature_config != feature_config_of(architecture) or teacher.labels != vocabulary.labels:
        raise UsageError(
            f"the teacher ({teacher.sha256[:12]}) has another front end or other labels, expected those of the network "
            "that is to learn"
        )


def _begin_from(first: Checkpoint, model: Network, vocabulary: Vocabulary) -> None:
    """Take over the weights of a checkpoint. Raises UsageError if it is of another network or front end."""
    name = first.sha256[:12]
    if shape_of(first.model) != shape_of(model):
        raise UsageError(f"the first checkpoint ({name}) is of another network, expected one of the size asked for")
    if first.feature_config != feature_config_of(first.architecture) or first.labels != vocabulary.labels:
        raise UsageError(
            f"the first checkpoint ({name}) has another front end or other labels, expected this project's"
        )
    load_weights(model, first.model.state_dict(), f"the first checkpoint ({name})")


def _average(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Exponential moving average of the weights whose decay grows from 2/21, in the second step, to `decay`."""

    def average(averaged: Sequence[Tensor], new: Sequence[Tensor], n_averaged: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            n = int(n_averaged)
            torch._foreach_lerp_(list(averaged), list(new), 1.0 - min(decay, (n + 1) / (n + 20)))
        else:  # batch norm's count of batches
            torch._foreach_copy_(list(averaged), list(new))

    return average


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _cosine(peak: float, epochs_done: float, epochs: int) -> float:
    """Learning rate after `epochs_done` of `epochs`: from `peak` down half a cosine to zero."""
    return peak * 0.5 * (1.0 + math.cos(math.pi * epochs_done / epochs))
