"""Prepared data as WebDataset tar shards, for data that is larger than memory or has to travel.

Each sample is a `.wav` and a `.json` of one name, as WebDataset has it, so that its loaders read these shards; the
samples of a split lie in its shards in a seeded random order. This project's own training reads recordings where they
lie in the archives, by the row that each had in the bank: every recipe works on shards as it does on the bank, and
gives the same weights. Where several processes train together, each reads its own share of the rows.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..config import CLIP_SAMPLES, CLIPS_PER_SHARD, SAMPLE_RATE
from ..errors import DataError, UsageError
from ..files import sha256_of, whole_folder, write_bytes

if TYPE_CHECKING:
    from .dataset import PreparedData

Pcm = npt.NDArray[np.int16]

INDEX = "shards.json"
FORMAT = 1
WAV_HEADER = 44


class ShardBank:
    """The bank of prepared data, (clips, 16000) int16, read from shards when it is asked for.

    Takes a row number or an array of them, as the array that it stands for. Raises DataError for a shard that is
    missing or not as long as when it was written.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]]) -> None:
        self._files = []
        places: dict[int, tuple[int, int]] = {}
        for number, shard in enumerate(shards):
            path = folder / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
                raise DataError(f"{path}: found {found}, expected {shard['bytes']}; copy or write the shards again")
            self._files.append(np.memmap(path, np.uint8, "r"))
            places |= {row: (number, start) for row, start in zip(shard["rows"], shard["starts"], strict=True)}
        if sorted(places) != list(range(len(places))):
            raise DataError(f"{folder / INDEX}: names no whole bank, expected every row once; write the shards again")
        self._places = np.array([places[row] for row in range(len(places))], np.int64).reshape(-1, 2)
        self.shape = (len(places), CLIP_SAMPLES)

    def __len__(self) -> int:  # noqa: D105
        return self.shape[0]

    def __getitem__(self, rows: int | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Pcm:  # noqa: D105
        if isinstance(rows, (int, np.integer)):
            return self._clip(int(rows))
        return np.stack([self._clip(int(row)) for row in rows]) if len(rows) else np.zeros((0, CLIP_SAMPLES), np.int16)

    def _clip(self, row: int) -> Pcm:
        number, start = self._places[row]
        pcm: Pcm = self._files[number][start : start + 2 * CLIP_SAMPLES].view("<i2").astype(np.int16)
        return pcm


def write_shards(
    data: PreparedData,
    destination: Path,
    clips_per_shard: int = CLIPS_PER_SHARD,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write prepared `data` as shards into the new folder `destination`; the names of the shards.

    The folder is prepared data of its own, with tar archives in place of `bank.npy`. The same data, size and seed give
    the same bytes. Raises DataError if `destination` exists, KwsError if it cannot be written.
    """
    if clips_per_shard < 1:
        raise UsageError(f"found {clips_per_shard} clips for a shard, expected 1 or more")
    if destination.exists():
        raise DataError(f"{destination}: already exists, expected a new folder; remove it or name another")
    order = np.random.default_rng(seed).permutation(len(data.clips))
    splits = [data.clips[row].split for row in order]
    shards: list[dict[str, Any]] = []
    done = 0
    with whole_folder(destination) as folder:
        for split in sorted(set(splits)):
            rows = [int(row) for row, its_split in zip(order, splits, strict=True) if its_split == split]
            for number, start in enumerate(range(0, len(rows), clips_per_shard)):
                part = rows[start : start + clips_per_shard]
                name = f"{split}-{number:06}.tar"
                starts = _write_shard(folder / name, part, data)
                size, digest = (folder / name).stat().st_size, sha256_of(folder / name)
                shards.append(
                    {"name": name, "split": split, "clips": len(part), "bytes": size, "sha256": digest}
                    | {"rows": part, "starts": starts}
                )
                done += len(part)
                progress(done, len(data.clips))
        for path in sorted(data.folder.iterdir()):
            if path.is_file() and path.name not in ("bank.npy", INDEX) and path.suffix != ".tar":
                shutil.copyfile(path, folder / path.name)
        # A line for each shard: the rows are many.
        lines = ",\n".join(json.dumps(shard) for shard in shards)
        write_bytes(folder / INDEX, f'{{"format": {FORMAT}, "seed": {seed}, "shards": [\n{lines}\n]}}\n'.encode())
    return [shard["name"] for shard in shards]


def open_shards(folder: Path) -> ShardBank:
    """The bank of a folder that `write_shards` wrote. Raises DataError if it is damaged or of another version."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise DataError(f"{folder / INDEX}: of format {index['format']}, expected {FORMAT}; write the shards again")
        return ShardBank(folder, index["shards"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder / INDEX}: cannot be read ({error}); write the shards again") from error


def _write_shard(path: Path, rows: list[int], data: PreparedData) -> list[int]:
    """Write the clips at `rows`; where the samples of each begin, in bytes."""
    starts = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            name, clip = f"{row:08}", data.clips[row]
            starts.append(tar.offset + tarfile.BLOCKSIZE + WAV_HEADER)
            _add(tar, f"{name}.wav", _wav(data.bank[row]))
            described = json.dumps({"row": row, **asdict(clip)}, ensure_ascii=False).encode()
            _add(tar, f"{name}.json", described)
    return starts


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def _wav(pcm: Pcm) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(pcm.astype("<i2").tobytes())
    return file.getvalue()
