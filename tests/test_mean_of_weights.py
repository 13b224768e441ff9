"""The script that takes the mean of trainings' weights."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tiny_kws.data.speech_commands import LABELS
from tiny_kws.training.checkpoint import Checkpoint, feature_config_of, load_checkpoint, save_torch
from tiny_kws.training.networks import CausalCNN
from tiny_kws.training_config import CausalCNNConfig

STATS = {"mean": -13.8, "std": 4.5}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    return importlib.import_module("mean_of_weights")


def saved(path: Path, seed: int, width: int = 8, **changes: float) -> Path:
    torch.manual_seed(seed)
    model = CausalCNN(CausalCNNConfig(stem_channels=2, width=width, n_blocks=1, dropout=0.1 * seed))
    model.stem_bn.running_mean += seed
    checkpoint = Checkpoint(model, LABELS, {**STATS, **changes}, feature_config_of("causal-cnn"), val_acc=0.9)
    save_torch(path, checkpoint.to_dict())
    return path


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *paths: Path) -> Checkpoint:
    monkeypatch.setattr(sys, "argv", ["mean_of_weights.py", *map(str, paths)])
    script.main()
    return load_checkpoint(paths[-1])


def test_the_mean_of_weights(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of weights and of what batch norm has counted; where it comes from is kept, an accuracy is not claimed."""
    paths = [saved(tmp_path / f"{seed}.pt", seed) for seed in range(3)]
    mean = run(script, monkeypatch, *paths, tmp_path / "mean.pt")
    parts = [load_checkpoint(path) for path in paths]
    for name, value in mean.model.state_dict().items():
        of = torch.stack([part.model.state_dict()[name].float() for part in parts]).mean(0)
        assert torch.allclose(value.float(), of, atol=1e-7), name
    assert mean.data["mean_of_sha256"] == [part.sha256 for part in parts]
    assert math.isnan(mean.val_acc)
    assert mean.stats == STATS
    assert mean.model.config == parts[-1].model.config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"width": 16}, "different networks"), ({"std": 4.0}, "different networks"), (None, "at least two")],
)
def test_of_what_there_is_no_mean(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    changes: dict[str, float] | None,
    expected: str,
) -> None:
    """Networks of other shapes or front ends, and one alone; nothing is written."""
    paths = [saved(tmp_path / "0.pt", 0)]
    if changes is not None:
        paths.append(saved(tmp_path / "1.pt", 1, **changes))  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        run(script, monkeypatch, *paths, tmp_path / "mean.pt")
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "mean.pt").exists()
