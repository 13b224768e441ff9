"""Prepared data as tar shards: every loader of WebDataset reads them, and training on them is training on the bank."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tiny_kws.data.prepared import PreparedData, open_prepared
from tiny_kws.data.shard_writer import write_shards
from tiny_kws.data.shards import INDEX, ShardBank
from tiny_kws.errors import DataError, KwsError, UsageError
from tiny_kws.evaluation.clip_sets import split_clips
from tiny_kws.training.trainer import train
from tiny_kws.training_config import TrainConfig, WindowRecipe

from .conftest import full_disk

PER_SHARD = 30


@pytest.fixture(scope="module")
def shards(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic archive in shards; not to be written to."""
    folder = tmp_path_factory.mktemp("shards") / "task"
    write_shards(prepared, folder, PER_SHARD)
    return folder


@pytest.fixture
def own(shards: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def test_they_stand_for_the_bank(prepared: PreparedData, shards: Path) -> None:
    """Opened, they are the data that they were written from, clip by clip; nothing is left of the bank itself."""
    found = open_prepared(shards)
    assert isinstance(found.bank, ShardBank)
    assert not (shards / "bank.npy").exists()
    assert (found.bank.shape, found.bank.dtype, len(found.bank)) == (prepared.bank.shape, np.int16, len(prepared.bank))
    assert found.clips == prepared.clips
    assert found.manifest == prepared.manifest
    assert np.array_equal(found.spans, prepared.spans)
    rows = np.random.default_rng(0).permutation(len(found.bank))
    assert np.array_equal(found.bank[rows], prepared.bank[rows])
    assert np.array_equal(found.bank[3], prepared.bank[3])
    assert found.bank[[]].shape == (0, 16000)
    for own_part, part in zip(
        split_clips(found, "validation").batches(), split_clips(prepared, "validation").batches(), strict=True
    ):
        assert np.array_equal(own_part, part)


def test_they_are_plain_tar_files_of_wav_and_json(prepared: PreparedData, shards: Path) -> None:
    """As WebDataset has it: a sample is the files of one name, side by side; each split has shards of its own."""
    seen: list[int] = []
    for shard in json.loads((shards / INDEX).read_text())["shards"]:
        with tarfile.open(shards / shard["name"]) as tar:
            names = tar.getnames()
            assert len(names) == 2 * shard["clips"] <= 2 * PER_SHARD
            for wav, described in zip(names[::2], names[1::2], strict=True):
                assert (Path(wav).suffix, Path(described).suffix) == (".wav", ".json")
                assert Path(wav).stem == Path(described).stem
                said: dict[str, Any] = json.load(tar.extractfile(described))  # type: ignore[arg-type]
                row = said.pop("row")
                assert said == vars(prepared.clips[row])
                assert said["split"] == shard["split"]
                pcm, rate = soundfile.read(io.BytesIO(tar.extractfile(wav).read()), dtype="int16")  # type: ignore[union-attr]
                assert rate == 16000
                assert np.array_equal(pcm, prepared.bank[row])
                seen.append(row)
    assert sorted(seen) == list(range(len(prepared.clips)))
    assert seen != sorted(seen)


def test_webdataset_reads_them(shards: Path) -> None:
    """Its own loader groups them into samples."""
    names = [str(path) for path in sorted(shards.glob("training-*.tar"))]
    code = (
        "import sys, webdataset\n"
        "samples = list(webdataset.WebDataset(sys.argv[1:], shardshuffle=False))\n"
        "print(len(samples), all({'wav', 'json'} <= sample.keys() for sample in samples))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(open_prepared(shards).rows("training"))), "True"]


@pytest.mark.parametrize("recipe", ["clips", "windows"])
def test_training_on_them_is_training_on_the_bank(
    prepared: PreparedData, shards: Path, tmp_path: Path, recipe: str
) -> None:
    """The same history and the same weights, bit for bit."""
    windows = WindowRecipe(made_rooms=4) if recipe == "windows" else None
    config = TrainConfig(epochs=2, batch_size=16, learning_rate=1e-2, precision="float32", windows=windows)
    model = {"stem_channels": 2, "width": 8, "n_blocks": 1}
    states = []
    for data in (prepared, open_prepared(shards)):
        out = tmp_path / str(len(states))
        train(data, out, "causal-cnn", model, config, device="cpu")
        states.append(torch.load(out / "last.pt", weights_only=True))
    for name, value in states[0]["model_state"].items():
        assert torch.equal(value, states[1]["model_state"][name]), name
    assert [line["val_loss"] for line in states[0]["history"]] == [line["val_loss"] for line in states[1]["history"]]


def test_they_follow_from_data_and_seed(prepared: PreparedData, shards: Path, tmp_path: Path) -> None:
    """Written again they are the same bytes; another seed has another order."""
    write_shards(prepared, tmp_path / "again", PER_SHARD)
    write_shards(prepared, tmp_path / "other", PER_SHARD, seed=1)
    for path in sorted(shards.iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    assert (shards / INDEX).read_bytes() != (tmp_path / "other" / INDEX).read_bytes()


def test_shards_of_shards(prepared: PreparedData, shards: Path, tmp_path: Path) -> None:
    """Shards can be written anew, in another size, from shards."""
    write_shards(open_prepared(shards), tmp_path / "larger", 1000)
    found = open_prepared(tmp_path / "larger")
    assert np.array_equal(found.bank[np.arange(len(found.bank))], prepared.bank)
    names = {shard["name"] for shard in json.loads((tmp_path / "larger" / INDEX).read_text())["shards"]}
    assert {path.name for path in (tmp_path / "larger").glob("*.tar")} == names


def a_tar(folder: Path) -> Path:
    return min(folder.glob("*.tar"))


def test_a_missing_shard(own: Path) -> None:
    a_tar(own).unlink()
    with pytest.raises(DataError, match="no file"):
        open_prepared(own)


def test_a_shard_cut_short(own: Path) -> None:
    path = a_tar(own)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match=path.name):
        open_prepared(own)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "shards": []}', '{"format": 1, "shards": [{}]}'])
def test_a_damaged_index(own: Path, text: str) -> None:
    (own / INDEX).write_text(text)
    with pytest.raises(DataError, match=INDEX):
        open_prepared(own)


def test_an_index_that_lacks_rows(own: Path) -> None:
    index = json.loads((own / INDEX).read_text())
    index["shards"] = index["shards"][1:]
    (own / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match="every row"):
        open_prepared(own)


def test_nothing_is_overwritten(prepared: PreparedData, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="already exists"):
        write_shards(prepared, tmp_path / "there")
    with pytest.raises(UsageError, match="1 or more"):
        write_shards(prepared, tmp_path / "new", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_full_disk_leaves_nothing(prepared: PreparedData, tmp_path: Path) -> None:
    """The folder appears whole or not at all."""
    with full_disk(100_000), pytest.raises(KwsError, match="cannot be written"):
        write_shards(prepared, tmp_path / "task", PER_SHARD)
    assert list(tmp_path.iterdir()) == []
