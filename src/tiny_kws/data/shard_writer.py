"""Prepared data written as WebDataset tar shards."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import wave
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import SAMPLE_RATE
from ..errors import DataError, UsageError
from ..files import sha256_of, whole_folder, write_bytes
from ..training_config import CLIPS_PER_SHARD
from .shards import FORMAT, INDEX, WAV_HEADER, Pcm

if TYPE_CHECKING:
    from .prepared import PreparedData


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
