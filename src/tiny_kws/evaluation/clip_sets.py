"""Clips to measure on: a split of prepared data, the official test archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..audio import Samples, one_second, read_mono
from ..data.prepared import PreparedData, clips_digest, to_float
from ..data.speech_commands import read_test_archive, said_in_test
from ..errors import DataError, KwsError
from .clips import BATCH_CLIPS, ClipSet, batched


def split_clips(data: PreparedData, split: str) -> ClipSet:
    """A split of prepared data, to measure on."""
    rows = data.rows(split)
    clips = [data.clips[i] for i in rows]
    return ClipSet(
        name=f"Speech Commands v0.02 {split}",
        labels=[clip.label for clip in clips],
        sha256=clips_digest(clip.file for clip in clips),
        batches=lambda: (
            to_float(data.bank[part]) for part in np.split(rows, range(BATCH_CLIPS, len(rows), BATCH_CLIPS))
        ),
        names=[clip.file for clip in clips],
        words=[clip.word for clip in clips],
        window=int(data.bank.shape[1]),
    )


def test_archive_clips(folder: Path) -> tuple[ClipSet, list[str]]:
    """The official test folder, to measure on, and what is to be said of clips in it that cannot be read."""
    windows: list[Samples] = []
    labels, names, unreadable = [], [], []
    for path, label in read_test_archive(folder):
        try:
            windows.append(one_second(read_mono(path)))
        except KwsError as error:
            unreadable.append(str(error))
            continue
        labels.append(label)
        names.append(f"{path.parent.name}/{path.name}")
    if not windows:
        raise DataError(f"{folder}: none of its {len(unreadable)} clips can be read")
    words = [said_in_test(name) for name in names]
    clips = ClipSet("the official test set", labels, clips_digest(names), lambda: batched(windows), names, words)
    return clips, unreadable
