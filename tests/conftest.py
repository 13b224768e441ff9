"""What several rooms' tests share: a tiny Speech Commands of synthetic sound, its prepared form, a checkpoint."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

from tiny_kws.audio import _warn_of_low_rate
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.speech_commands import KEYWORDS, LABELS

if TYPE_CHECKING:
    from tiny_kws.data.prepared import PreparedData
    from tiny_kws.training.checkpoint import Checkpoint

collect_ignore = ["peers"]
"""What other programs' own environments run."""
WORDS_FOLDER = "speech_commands_v0.02"
SPEAKERS = {
    "training": tuple(f"{i:08x}" for i in range(0x10A0, 0x10A6)),
    "validation": ("20b00001", "20b00002", "20b00003"),
    "testing": ("30c00001", "30c00002"),
}
"""Speakers of the synthetic archive by split; none is in two."""

UNKNOWN_WORDS = ("bed", "cat", "dog", "house", "seven", "zero")
"""The words of the synthetic archive that are no keywords."""

NOISE_SECONDS = 20


@pytest.fixture(autouse=True)
def the_same_beginning() -> None:
    """Each test begins with the same random numbers, and with a low rate warned of, whatever ran before it."""
    _warn_of_low_rate()
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def word_sound(word: str, seed: int) -> npt.NDArray[np.float32]:
    """One second of a made-up word, (16000,) float32: two tones of its own in a burst, a little noise."""
    rng = np.random.default_rng(seed)
    index = (*KEYWORDS, *UNKNOWN_WORDS).index(word)
    time_s = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    low_hz, high_hz = 300 * 1.09**index, 1500 * 1.1**index
    burst = np.exp(-(((time_s - 0.5 - rng.uniform(-0.1, 0.1)) / 0.15) ** 2))
    tones = 0.3 * np.sin(2 * np.pi * low_hz * time_s) + 0.2 * np.sin(2 * np.pi * high_hz * time_s)
    return (burst * tones + rng.normal(0, 0.002, CLIP_SAMPLES)).astype(np.float32)


def write_speech_commands(folder: Path) -> Path:
    """Write a tiny archive in the official layout into `folder`/speech_commands_v0.02 and return that path.

    Ten keywords and six other words, one clip of each by each of eleven speakers, two 20-second recordings of noise.
    """
    words = folder / WORDS_FOLDER
    listed: dict[str, list[str]] = {split: [] for split in SPEAKERS}
    seed = 0
    for word in (*KEYWORDS, *UNKNOWN_WORDS):
        (words / word).mkdir(parents=True)
        for split, speakers in SPEAKERS.items():
            for speaker in speakers:
                seed += 1
                file = f"{word}/{speaker}_nohash_0.wav"
                sf.write(words / file, word_sound(word, seed), SAMPLE_RATE, subtype="PCM_16")
                listed[split].append(file)
    for split in ("validation", "testing"):
        (words / f"{split}_list.txt").write_text("\n".join(listed[split]) + "\n", encoding="utf-8")
    (words / "_background_noise_").mkdir()
    for seed, name in enumerate(("running_tap", "white_noise")):
        noise = np.random.default_rng(seed).normal(0, 0.1, NOISE_SECONDS * SAMPLE_RATE).clip(-1, 1)
        sf.write(words / "_background_noise_" / f"{name}.wav", noise, SAMPLE_RATE, subtype="PCM_16")
    return words


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """A disk on which no file may grow beyond `free_bytes` during this block; the system refuses the write itself."""
    resource = pytest.importorskip("resource", reason="needs POSIX resource limits")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def kill_in_the_middle(code: str, *arguments: object) -> None:
    """Run Python `code` with `arguments` in a process of its own and kill it (SIGKILL) once it prints a line."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
        finally:
            process.kill()
    assert process.returncode != 0


def make_checkpoint(width: int = 160, seed: int = 0) -> Checkpoint:
    """A DS-CNN that was never trained, but with batch-norm statistics and logits as varied as if it had been."""
    torch = pytest.importorskip("torch", reason="the plain install has no torch")

    from tiny_kws.training.checkpoint import Checkpoint
    from tiny_kws.training.features import LogMel, normalize
    from tiny_kws.training.networks import DSCNN

    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DSCNN(width=width).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.2, 1.0, generator=generator)
            module.weight.data.uniform_(0.8, 1.6, generator=generator)
            module.bias.data.normal_(0.0, 0.2, generator=generator)
    stats = {"mean": -6.5, "std": 4.0}
    sounds = np.stack([word_sound(word, seed) for word in (*KEYWORDS, *UNKNOWN_WORDS)])
    with torch.no_grad():
        pooled = model.embed(normalize(LogMel()(torch.from_numpy(sounds)), stats))
        weight = torch.randn(model.fc.weight.shape, generator=generator)
        logits = pooled @ weight.T
        model.fc.weight.copy_(weight * 2.0 / logits.std(0)[:, None])
        model.fc.bias.copy_(-2.0 * logits.mean(0) / logits.std(0))
    history = [
        {
            "epoch": 1,
            "train_loss": 2.0,
            "train_acc": 0.3,
            "val_loss": 1.9,
            "val_acc": 0.4,
            "learning_rate": 3e-3,
            "clips_per_second": 100.0,
        }
    ]
    return Checkpoint(model, LABELS, stats, val_acc=0.4, epoch=1, history=history)


@pytest.fixture(scope="session")
def speech_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The words' folder of a tiny synthetic archive (`write_speech_commands`); not to be written to."""
    return write_speech_commands(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def prepared(speech_commands: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The synthetic archive, prepared: 60 training, 30 validation and 20 testing clips of keywords, 10 % each of
    unknown and silence; `.folder` is where it lies. Not to be written to."""
    from tiny_kws.data.prepare import prepare

    return prepare(speech_commands, tmp_path_factory.mktemp("prepared") / "task")


@pytest.fixture
def untrained_checkpoint() -> Checkpoint:
    """A full-size DS-CNN in memory, one's own to change."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as a file, `model/best.pt`; not to be written to."""
    pytest.importorskip("torch", reason="the plain install has no torch")
    from tiny_kws.training.checkpoint import save_torch

    path = tmp_path_factory.mktemp("training") / "model" / "best.pt"
    save_torch(path, make_checkpoint().to_dict())
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the repository; skips the test where there is none."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real recordings in {folder}")
    return folder
