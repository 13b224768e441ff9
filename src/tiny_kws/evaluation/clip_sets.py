"""Clips to measure on: a split of prepared data, a test archive in the official layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..audio import Samples, one_second, read_mono
from ..data.prepared import PreparedData, clips_digest, to_float
from ..data.speech_commands import OFFICIAL_TEST_CLIPS, is_official_source, read_test_archive, said_in_test
from ..errors import DataError, KwsError
from .clips import BATCH_CLIPS, ClipSet, batched


def split_clips(data: PreparedData, split: str) -> ClipSet:
    """A split of prepared data, to measure on."""
    rows = data.rows(split)
    clips = [data.clips[i] for i in rows]
    return ClipSet(
        name=_split_name(data, split),
        labels=[clip.label for clip in clips],
        sha256=clips_digest(clip.file for clip in clips),
        batches=lambda: (
            to_float(data.bank[part]) for part in np.split(rows, range(BATCH_CLIPS, len(rows), BATCH_CLIPS))
        ),
        names=[clip.file for clip in clips],
        words=[clip.word for clip in clips],
        window=int(data.bank.shape[1]),
    )


def _split_name(data: PreparedData, split: str) -> str:
    """What a split is to be called: Speech Commands, or what the recordings were."""
    source = data.manifest.source
    return f"Speech Commands v0.02 {split}" if is_official_source(source) else f"{source}, {split}"


def test_archive_clips(folder: Path) -> tuple[ClipSet, list[str]]:
    """A folder in the layout of the official test set, to measure on, and what is to be said of unreadable clips in it.

    It is called the official test set only if all clips of that are there.
    """
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
    is_whole = len(windows) == OFFICIAL_TEST_CLIPS and not unreadable
    layout = f"{len(windows)} clips of {folder.resolve().name} in the layout of the official test set"
    name = "the official test set" if is_whole else layout
    clips = ClipSet(name, labels, clips_digest(names), lambda: batched(windows), names, words)
    return clips, unreadable
