"""Clips to measure on: a split of prepared data, or a folder of test clips."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from ..audio import Samples, most_energetic_window, read_mono
from ..data.prepared import PreparedData, clips_digest, to_float
from ..data.speech_commands import OFFICIAL_TEST_CLIPS, SOURCE, TEST_FOLDER, read_test_archive, said_in_test
from ..errors import DataError, KwsError
from .clips import BATCH_CLIPS, ClipSet, batched


def split_clips(data: PreparedData, split: str) -> ClipSet:
    """A split of prepared data, to measure on."""
    rows = data.rows(split)
    clips = [data.clips[i] for i in rows]
    return ClipSet(
        name=f"{_name_of(data)} {split}",
        labels=[clip.label for clip in clips],
        sha256=clips_digest(clip.file for clip in clips),
        batches=lambda: (
            to_float(data.bank[part]) for part in np.split(rows, range(BATCH_CLIPS, len(rows), BATCH_CLIPS))
        ),
        names=[clip.file for clip in clips],
        words=[clip.word for clip in clips],
        window=data.window,
    )


def _name_of(data: PreparedData) -> str:
    """The name of the recordings: Speech Commands, or their folder's."""
    manifest = data.manifest
    return "Speech Commands v0.02" if manifest.source == SOURCE else manifest.folder


def folder_clips(folder: Path, labels: Collection[str], window: int) -> tuple[ClipSet, list[str]]:
    """A folder laid out as the official test archive, to measure on, and remarks about unreadable clips in it.

    If a clip is longer than `window` samples, its loudest part counts, the same for every model. Raises DataError if a
    label has no clips, or none can be read.
    """
    windows: list[Samples] = []
    found, names, unreadable = [], [], []
    clips = read_test_archive(folder, labels)
    for path, label in clips:
        try:
            windows.append(most_energetic_window([read_mono(path)], window).samples)
        except KwsError as error:
            unreadable.append(str(error))
            continue
        found.append(label)
        names.append(f"{path.parent.name}/{path.name}")
    if not windows:
        raise DataError(f"{folder}: none of its {len(unreadable)} clips can be read")
    words = [said_in_test(name) for name in names]
    name = _name_of_test(clips[0][0].parents[1], len(clips))
    return ClipSet(name, found, clips_digest(names), lambda: batched(windows), names, words, window), unreadable


def _name_of_test(folder: Path, n_clips: int) -> str:
    """The name of test clips: the official set only if they are complete, or else how many of them there are."""
    if n_clips == OFFICIAL_TEST_CLIPS:
        return "the official test set"
    if folder.name == TEST_FOLDER:
        return f"{n_clips} of the {OFFICIAL_TEST_CLIPS} clips of the official test set"
    return f"{n_clips} test clips in {folder.name}"
