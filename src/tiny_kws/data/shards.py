"""Prepared data as WebDataset tar shards, for data that is larger than memory or has to be moved.

Each sample is a `.wav` and a `.json` of one name, as WebDataset has it, so that its loaders read these shards; the
samples of a split lie in its shards in a seeded random order. This project's own training reads recordings where they
lie in the archives, by the row that each had in the bank: every recipe works on shards as it does on the bank, and
gives the same weights. Where several processes train together, each reads its own share of the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

if TYPE_CHECKING:
    pass

Pcm = npt.NDArray[np.int16]
INDEX = "shards.json"
FORMAT = 1
WAV_HEADER = 44


class ShardBank:
    """The bank of prepared data, (clips, window) int16, read from shards when it is needed.

    Takes a row number or an array of them, like an array. Raises DataError for a shard that is missing or not as long
    as when it was written.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, folder: Path, shards: Sequence[dict[str, Any]], window: int) -> None:
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
            raise DataError(
                f"{folder / INDEX}: does not cover the bank, expected every row once; write the shards again"
            )
        self._places = np.array([places[row] for row in range(len(places))], np.int64).reshape(-1, 2)
        self.shape = (len(places), window)

    def __len__(self) -> int:  # noqa: D105
        return self.shape[0]

    def __getitem__(self, rows: int | Sequence[int] | npt.NDArray[np.integer[Any]]) -> Pcm:  # noqa: D105
        if isinstance(rows, (int, np.integer)):
            return self._clip(int(rows))
        return np.stack([self._clip(int(row)) for row in rows]) if len(rows) else np.zeros((0, self.shape[1]), np.int16)

    def _clip(self, row: int) -> Pcm:
        number, start = self._places[row]
        pcm: Pcm = self._files[number][start : start + 2 * self.shape[1]].view("<i2").astype(np.int16)
        return pcm


def open_shards(folder: Path, window: int) -> ShardBank:
    """The bank of a folder that `write_shards` wrote, in clips of `window` samples.

    Raises DataError if it is damaged or of another version.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise DataError(f"{folder / INDEX}: of format {index['format']}, expected {FORMAT}; write the shards again")
        return ShardBank(folder, index["shards"], window)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder / INDEX}: cannot be read ({error}); write the shards again") from error
