"""The training loop: batches of waveforms, a checkpoint after each epoch, exact resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..config import FeatureConfig
from ..data.prepared import PreparedData
from ..errors import ModelError, UsageError
from ..plotting import require_matplotlib
from ..training_config import NetworkConfig, TrainConfig
from .bank import Bank, iterate_batches, on_device
from .checkpoint import DS_CNN, Checkpoint, architecture_of, feature_config_of, network_config_of
from .devices import find_device, keep_freed_memory, random_states, restore_random_states, wants_bfloat16
from .distributed import World, join_world
from .features import LogMel, feature_stats, normalize
from .networks import CausalCNN, Network, network_of
from .objectives import ClipObjective, MixedObjective, Objective, StreamObjective, WindowObjective, accuracy
from .optimization import Optimization, scheduled_learning_rate
from .reports import Callbacks, EpochReport, RunningMeans, StepReport
from .run_folder import RunFolder
from .settings import Identity, TrainSettings, begin_from, check_fits, fitted_network

EVAL_BATCH = 256
SAVE_S = 300.0  # an epoch may take hours: so often it is saved amid it
PROGRESS_STEPS = 5  # report a step in so many: on a GPU every report waits for the device


def train(
    data: PreparedData,
    out: str | Path,
    architecture: str = DS_CNN,
    model_config: Mapping[str, Any] | None = None,
    config: TrainConfig | None = None,
    *,
    device: str | None = None,
    resume: bool = False,
    callbacks: Callbacks | None = None,
    first: Checkpoint | None = None,
    teachers: Sequence[Checkpoint] = (),
) -> Path:
    """Train on `data` and return the path of the best checkpoint, `out`/best.pt.

    `model_config` holds settings of the network's dataclass; the others are as `TrainSettings` and `Trainer.run` say.
    Processes that torchrun started train together, each on its part of every batch. The first alone writes, reads
    `last.pt`, and calls back.
    Raises UsageError if `out` already holds a training that is not resumed, is another's, or is being written, and if
    processes do not train on the same.
    """
    network = network_config_of(architecture, model_config or {}, "the model asked for")
    with join_world(device) as (world, own_device):
        settings = TrainSettings(network, config or TrainConfig(), own_device, first, tuple(teachers))
        return Trainer(data, out, settings, world).run(resume, callbacks)


class Trainer:
    """One training of one network on prepared data, by this process or, with others, as part of a `world`."""

    def __init__(
        self,
        data: PreparedData,
        out: str | Path,
        settings: TrainSettings | None = None,
        world: World | None = None,
    ) -> None:
        require_matplotlib()
        settings, self.world = settings or TrainSettings(), world or World()
        self.config, self.folder = settings.config, RunFolder(Path(out))
        self.data = data.without(self.config.left_out)
        self.device = find_device(settings.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        architecture = architecture_of(settings.network)
        feature_config = feature_config_of(architecture)
        # Both pay for the DS-CNN's convolutions, on every device measured, and cost where they run over time alone.
        two_dimensional = architecture == DS_CNN
        self.bfloat16 = wants_bfloat16(self.config.precision, self.device, two_dimensional)
        self.memory_format = torch.channels_last if two_dimensional else torch.contiguous_format
        self.log_mel = LogMel(feature_config).to(self.device)
        self.quick_log_mel = LogMel(feature_config, torch.float32).to(self.device)
        self.stats: dict[str, float] = {}
        self.history: list[EpochReport] = []
        self._unfinished: dict[str, Any] | None = None
        self._saved_s = time.monotonic()
        self.first, self.teachers = settings.first, settings.teachers
        self.first_sha256 = "" if self.first is None else self.first.sha256
        self._prepare_teachers(feature_config)
        self.model = self._make_model(fitted_network(settings.network, self.data, feature_config))
        self.optimization = Optimization(self.model, self.config, self.device)
        self.rows = {split: self.data.rows(split) for split in ("training", "validation")}
        self._check_world()
        self.bank: Bank = on_device(self.data.bank, None, self.device)
        self.objective = self._make_objective(self.world.own_config(self.config))
        self.loss: nn.Module = _Loss(self.objective, self.model)
        if self.world.size > 1:
            self.loss = DistributedDataParallel(self.loss)

    def run(self, resume: bool = False, callbacks: Callbacks | None = None) -> Path:
        """Train to the last epoch and return the path of the best checkpoint, best.pt in the folder.

        That is the epoch with the highest validation accuracy, or the last, as the config says. Each epoch leaves
        `last.pt`, `best.pt`, `history.json` and `learning_curve.png`, each whole or absent, and adds to the TensorBoard
        events. A process that trains alone also saves `unfinished.pt` every five minutes amid an epoch. With `resume`,
        goes on from the latest; with as many processes, the weights end as if never interrupted.
        Raises UsageError if the folder holds a training that is not resumed, or another's, or is being written.
        """
        callbacks = callbacks if callbacks and self.world.is_first else Callbacks()
        # Deterministic, for exact resuming.
        deterministic = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
        with self.folder.lock() if self.world.is_first else nullcontext(), deterministic:
            self.begin(resume)
            if self.world.is_first:
                self.folder.report_anew(self._history_lines())
            for epoch in range(len(self.history), self.config.epochs):
                report = self._epoch(epoch, callbacks)
                self.history.append(report)
                if self.world.is_first:
                    self._save()
                    self.folder.report_last(self._history_lines())
                callbacks.on_epoch(report)
        return self.folder.best

    def begin(self, resume: bool = False) -> None:
        """Prepare for the next step: of a new training, or of the one in the folder, from its latest save."""
        last = self.world.from_first(self.folder.read_last(resume) if self.world.is_first else None)
        self._unfinished = self.folder.read_unfinished() if self.world.size == 1 else None
        if last is not None:
            self._restore(last, self.folder.last)
        elif self._unfinished is not None:
            self._restore(self._unfinished, self.folder.unfinished)
        elif self.first is not None:
            self.stats = dict(self.first.stats)  # the weights are made for features of this scale
        elif self.config.frozen_batch_norm:
            raise UsageError("found no weights to start from, expected the checkpoint of a first training; add --from")
        else:
            batches = iterate_batches(self.bank, self._own_rows("training"), EVAL_BATCH, self.device)
            self.stats = feature_stats(self.log_mel, batches, self.world)
        self._to_training()

    def step(self, items: Tensor, learning_rate: float, generator: torch.Generator) -> Tensor:
        """One step of the optimizer on the training clips `items`, numbers of them; its loss and accuracy, (2,)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss, accurate = self.loss(items, generator)
        self.optimization.step(loss, learning_rate)
        return torch.stack([loss.detach(), accurate])

    # Making

    def _make_model(self, network: NetworkConfig) -> Network:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            model = network_of(network)
        if self.first is not None:
            begin_from(self.first, model, self.data)
        if self.world.size > 1 and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return model.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def _prepare_teachers(self, feature_config: FeatureConfig) -> None:
        if self.teachers and self.config.windows is None:
            raise UsageError("found a teacher with another recipe, expected windows; add --recipe windows or mixed")
        for teacher in self.teachers:
            check_fits(teacher, f"the teacher ({teacher.sha256[:12]})", feature_config, self.data)
            teacher.model.to(self.device).eval().requires_grad_(False)

    def _make_objective(self, config: TrainConfig) -> Objective:
        """This process's objective; `config` is for its own part."""
        windows, streams = config.windows, config.streams
        if streams is not None and not isinstance(self.model, CausalCNN):
            raise UsageError("only the causal network can be trained on streams; train this one on clips")
        teacher = self._teacher_logits if self.teachers else None
        hop = self.log_mel.config.hop * self.model.frames_per_answer if isinstance(self.model, CausalCNN) else 0
        if windows is not None and streams is not None:
            return MixedObjective(self.data, windows, streams, config, self._features, hop, self.device, teacher)
        if windows is not None:
            return WindowObjective(self.data, windows, config, self._features, self.device, teacher)
        if streams is not None:
            return StreamObjective(self.data, streams, config, self._features, hop, self.device)
        return ClipObjective(self.data, self.bank, config, self._features, self.device)

    def _check_world(self) -> None:
        """Raise UsageError unless all processes train with the same settings, and each has something to do."""
        identity = self._identity()
        self.world.check_same(data=identity.clips_sha256, settings=(identity, self.first_sha256))
        fewest = min(map(len, self.rows.values()))
        if self.world.size > fewest:
            raise UsageError(
                f"found {self.world.size} processes for {fewest} clips to train or validate on, expected no more than "
                "one for each; start fewer"
            )

    # Epochs

    def _epoch(self, epoch: int, callbacks: Callbacks) -> EpochReport:
        """Pass over the training clips once. All random draws depend only on the seed, the epoch and the process."""
        seed = _epoch_seed(self.config.seed, epoch, self.world.rank)
        generator = torch.Generator().manual_seed(seed)
        if epoch:  # a network that has learnt nothing knows nothing hard
            self.objective.begin_epoch(self.optimization.validated.eval(), generator)
        self._to_training()
        order = torch.randperm(self.objective.n_items, generator=generator)
        batches = torch.split(self.world.own_part(self.world.from_first(order)), self.objective.per_step)
        means = RunningMeans(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # dropout draws from torch's own generator
            begun = self._take_up(generator, means)
            for step, items in enumerate(batches[begun:], begun):
                rate = scheduled_learning_rate(self.config, epoch, step, len(batches))
                means.add(self.step(items, rate, generator), len(items))
                if step % PROGRESS_STEPS == 0 or step + 1 == len(batches):
                    loss, accurate = self.world.means(*means.now())
                    done, left = step + 1, (self.config.epochs - epoch) * len(batches) - step - 1
                    seconds = means.seconds() / done * left
                    callbacks.on_step(
                        StepReport(epoch + 1, self.config.epochs, done, len(batches), loss, accurate, seconds)
                    )
                if step + 1 < len(batches):
                    self._save_now_and_then(step + 1, generator, means)
        if not math.isfinite(loss):
            raise ModelError(f"the training loss became {loss} in epoch {epoch + 1}; lower the learning rate")
        speed = len(order) / means.seconds()
        return EpochReport(epoch + 1, loss, accurate, *self._validate(), rate, round(speed, 1))

    def _to_training(self) -> None:
        self.model.train()
        if self.config.frozen_batch_norm:
            for layer in self.model.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()

    def _validate(self) -> tuple[float, float]:
        """Loss (without label smoothing) and accuracy on the validation split, in float32."""
        for model in (self.model, self.optimization.validated):
            self.world.copy_from_first(model)  # each has its own statistics of batch norm
        rows, model = self._own_rows("validation"), self.optimization.validated.eval()
        with torch.inference_mode():
            batches = iterate_batches(self.bank, rows, EVAL_BATCH, self.device)
            logits = torch.cat([model(self._features(audio)) for audio in batches])
            targets = torch.from_numpy(self.data.targets(rows)).to(self.device)
            found = nn.functional.cross_entropy(logits, targets).item(), accuracy(logits, targets).item()
        loss, accurate = self.world.means(*found, weight=len(rows))
        return loss, accurate

    def _features(self, audio: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            log_mel = self.quick_log_mel if self.model.training else self.log_mel
            return normalize(log_mel(audio), self.stats).contiguous(memory_format=self.memory_format)

    def _teacher_logits(self, features: Tensor) -> Tensor:
        """The mean of the teachers' logits, (batch, classes), for features that are normalised for the student."""
        with torch.no_grad():
            log_mels = features * self.stats["std"] + self.stats["mean"]
            logits = [teacher.model(normalize(log_mels, teacher.stats)) for teacher in self.teachers]
            return torch.stack(logits).mean(0)

    def _own_rows(self, split: str) -> npt.NDArray[np.intp]:
        """This process's part of the rows of a split."""
        return self.rows[split][self.world.rank :: self.world.size]

    # Checkpoints

    def _identity(self) -> Identity:
        return Identity(
            {**asdict(self.config), "bfloat16": self.bfloat16},
            self.model.config,
            self.data.manifest.clips_sha256,
            [teacher.sha256 for teacher in self.teachers],
        )

    def _history_lines(self) -> list[dict[str, float]]:
        return [asdict(report) for report in self.history]

    def _save_now_and_then(self, step: int, generator: torch.Generator, means: RunningMeans) -> None:
        """Save the state from which to resume with `step` of this epoch, if it is time; several processes do not."""
        if self.world.size > 1 or time.monotonic() - self._saved_s < SAVE_S:
            return
        self._saved_s = time.monotonic()
        draws = {"generator": generator.get_state(), "torch": random_states(self.device)}
        amid = {"step": step, "draws": draws, "means": means.state()}
        self.folder.save_unfinished({**self._checkpoint().to_dict(), **self.optimization.state(), "amid": amid})

    def _take_up(self, generator: torch.Generator, means: RunningMeans) -> int:
        """The step to continue with: the first, or the one saved within this epoch, whose state is restored."""
        saved, self._unfinished = self._unfinished, None
        if saved is None or saved.get("epoch") != len(self.history):  # killed before an earlier one was removed
            return 0
        self._restore(saved, self.folder.unfinished)
        try:
            amid = saved["amid"]
            generator.set_state(amid["draws"]["generator"])
            restore_random_states(amid["draws"]["torch"], self.device)
            means.restore(amid["means"])
            return int(amid["step"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self.folder.unfinished}: cannot be resumed ({error}); remove it to resume from the last epoch"
            ) from error

    def _checkpoint(self) -> Checkpoint:
        identity = self._identity()
        return Checkpoint(
            model=self.optimization.validated,
            labels=self.data.vocabulary.labels,
            stats=self.stats,
            feature_config=self.log_mel.config,
            window=self.data.window,
            val_acc=self.history[-1].val_acc if self.history else math.nan,
            epoch=len(self.history),
            history=self._history_lines(),
            train_config=identity.train_config,
            data={
                **self.data.manifest.of_training(),
                "left_out": list(self.config.left_out),
                "first_sha256": self.first_sha256,
                "teachers_sha256": identity.teachers_sha256,
            },
        )

    def _save(self) -> None:
        *earlier, now = (report.val_acc for report in self.history)
        is_best = self.config.keep_last or now > max(earlier, default=-1.0)
        self.folder.save(self._checkpoint().to_dict(), self.optimization.state(), is_best)

    def _restore(self, last: dict[str, Any], path: Path) -> None:
        """Resume from `path`. Raises UsageError if it is from another training, ModelError if it is damaged."""
        differing = self._identity().differences(last, str(path))
        if differing:
            raise UsageError(
                f"{path}: was started with other settings ({', '.join(differing)}), expected the same; "
                "resume with those or name another folder"
            )
        try:
            self.optimization.restore(last, str(path))
            self.history = [EpochReport(**line) for line in last["history"]]
            self.stats = last["stats"]
            self.first_sha256 = str(last["data"].get("first_sha256", ""))
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"{path}: is not a training that can be resumed ({error}); start again in another folder"
            ) from error


class _Loss(nn.Module):
    """The objective's loss for numbers of clips, as a module that DistributedDataParallel can wrap."""

    def __init__(self, objective: Objective, model: Network) -> None:
        super().__init__()
        self.objective, self.model = objective, model

    def forward(self, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.objective.loss(self.model, items, generator)


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """The generator for all draws of a process in an epoch."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
