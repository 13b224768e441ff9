"""Recordings to prepared data: read, draw, write."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ..audio import one_second, read_mono
from ..config import CLIP_SAMPLES, SAMPLE_RATE
from ..errors import DataError, KwsError
from ..files import whole_folder, write_bytes, write_json
from ..training_config import PrepareConfig
from ..words import SILENCE, UNKNOWN
from .prepared import (
    EXTRA,
    FORMAT,
    MATERIAL,
    SPLITS,
    Clip,
    Pcm,
    PreparedData,
    clips_digest,
    material_file,
    open_prepared,
    to_float,
    to_pcm,
)
from .sources import Recording, Sources, credits_csv, gather, read_sources
from .spans import find_word
from .speech_commands import (
    KEYWORDS,
    LABELS,
    NOISE_FOLDER,
    OFFICIAL_CLIPS,
    SOURCE,
    SOURCE_LICENCE,
    check_speakers,
    find_words_folder,
    list_recordings,
    read_list,
    speaker_of,
    word_of,
)

NOISE_STRETCHES = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "testing": (0.9, 1.0)}
"""The part of every background recording that each split may use: no noise is heard in two splits."""
Span = tuple[int, int]
NO_SPAN = (-1, -1)
"""Stands where no word was found."""
CLIPS_AT_ONCE = 1024  # read and written together while preparing


def prepare(
    source: Path,
    destination: Path,
    config: PrepareConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    sources: Sources | None = None,
) -> PreparedData:
    """Build the twelve-class task from the official folder layout and open it.

    `source` is the words' folder or the one above it; `progress(done, total)` counts clips. Splits follow the official
    lists; unknown and silence are seeded draws. An incomplete archive is accepted, what it lacks stands in the manifest
    under `missing`, and clips that cannot be read under `unreadable`. `sources` (default: the package's own file) names
    what lies beside the words' folder to train against; what is not there is left out, and stands under `sources`.
    Raises DataError if the layout is not there.
    """
    config = config or PrepareConfig()
    sources = sources or read_sources()
    words = find_words_folder(source)
    if destination.exists():
        raise DataError(f"{destination}: already exists, expected a new folder; remove it or name another")
    lists = {split: read_list(words / f"{split}_list.txt") for split in ("validation", "testing")}
    recordings = list_recordings(words, lists)
    check_speakers(words, recordings)
    noises = _read_noises(words)
    task = [clip for split in SPLITS for clip in _draw_words(recordings[split], split, config)]
    own = {SOURCE_LICENCE: len(recordings["training"])}
    found, bills = gather(_named(words, ".."), sources, own)
    others = [*found["other words"], *found["words"]]
    extra = _undrawn(recordings["training"], task) + [_extra_clip(recording) for recording in others]
    unreadable: list[str] = []
    with whole_folder(destination) as folder:
        # Written row by row: on a full disk, writing through a memory map kills the process.
        with (folder / "bank.npy").open("wb") as bank:
            bank.write(_npy_header(0))
            spans: list[Span] = []
            kept = list(_write_words(words, task + extra, bank, spans, unreadable, progress))
            for split in SPLITS:
                n_keywords = sum(clip.split == split and clip.label in KEYWORDS for clip in kept)
                kept += _write_silence(bank, noises, split, round(n_keywords * config.silence_share), config.seed)
            bank.seek(0)
            bank.write(_npy_header(len(kept)))
        spans += [NO_SPAN] * (len(kept) - len(spans))
        np.save(folder / "spans.npy", np.array(spans, np.int32).reshape(-1, 2))
        np.save(folder / "noise.npy", np.concatenate([_stretch(noises[name], "training") for name in sorted(noises)]))
        material = {kind: _write_material(folder, kind, found[kind], unreadable) for kind in MATERIAL}
        write_bytes(folder / "clips.csv", _to_csv(kept))
        write_bytes(folder / "credits.csv", credits_csv(sources, found, own))
        manifest = _manifest(words, recordings, lists, noises, kept, unreadable, config)
        write_json(folder / "manifest.json", {**manifest, "sources": bills, "material": material})
    return open_prepared(destination)


def _draw_words(files: list[str], split: str, config: PrepareConfig) -> list[Clip]:
    """All keyword clips of a split and the seeded share of the other words' clips."""
    keywords = [file for file in files if word_of(file) in KEYWORDS]
    others = [file for file in files if word_of(file) not in KEYWORDS]
    rng = _rng(config.seed, split, "unknown")
    count = min(len(others), round(len(keywords) * config.unknown_share))
    drawn = sorted(rng.choice(len(others), count, replace=False)) if count else []
    clips = [Clip(split, word_of(file), word_of(file), speaker_of(file), file) for file in keywords]
    unknown = [others[i] for i in drawn]
    return clips + [Clip(split, UNKNOWN, word_of(file), speaker_of(file), file) for file in unknown]


def _undrawn(files: list[str], task: list[Clip]) -> list[Clip]:
    """The other words of the training split that the task did not draw."""
    drawn = {clip.file for clip in task}
    others = [file for file in files if word_of(file) not in KEYWORDS and file not in drawn]
    return [Clip(EXTRA, UNKNOWN, word_of(file), speaker_of(file), file) for file in others]


def _extra_clip(recording: Recording) -> Clip:
    file = str(PurePosixPath("..", recording.file))  # a source's folder may also be named from the root
    label = recording.word if recording.word in KEYWORDS else UNKNOWN
    return Clip(EXTRA, label, recording.word, recording.speaker, file)


def _named(words: Path, file: str) -> Path:
    """A file as it is named from the words' folder: where that is a link, `..` is beside the link."""
    return Path(os.path.normpath(words / file))


def _write_material(folder: Path, kind: str, found: list[Recording], unreadable: list[str]) -> list[dict[str, Any]]:
    """Write recordings end to end to the file of `kind`, note the unreadable, and say what each is and how long."""
    sounds, entries = [], []
    for recording in found:
        try:
            pcm = to_pcm(read_mono(recording.path))
        except KwsError as error:
            unreadable.append(str(error))
            continue
        if not pcm.any():  # a room response of it would have no level to be brought to
            unreadable.append(f"{recording.path}: holds nothing but digital silence, expected sound")
            continue
        sounds.append(pcm)
        entries.append({"file": recording.file, "group": recording.group, "samples": len(pcm)})
    np.save(folder / material_file(kind), np.concatenate(sounds) if sounds else np.zeros(0, np.int16))
    return entries


def _write_words(
    words: Path,
    clips: list[Clip],
    bank: BinaryIO,
    spans: list[Span],
    unreadable: list[str],
    progress: Callable[[int, int], None],
) -> Iterator[Clip]:
    """Append every clip that can be read to `bank` and `spans` and yield it; note the others in `unreadable`."""

    def read(clip: Clip) -> tuple[Pcm, Span] | str:
        try:
            pcm = to_pcm(one_second(read_mono(_named(words, clip.file))))
        except KwsError as error:
            return str(error)
        return pcm, find_word(to_float(pcm)) or NO_SPAN

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(clips), CLIPS_AT_ONCE):
            batch = clips[start : start + CLIPS_AT_ONCE]
            for clip, found in zip(batch, pool.map(read, batch), strict=True):
                if isinstance(found, str):
                    unreadable.append(found)
                    continue
                bank.write(found[0].tobytes())
                spans.append(found[1])
                yield clip
            progress(start + len(batch), len(clips))


def _read_noises(words: Path) -> dict[str, Pcm]:
    noises = {path.name: to_pcm(read_mono(path)) for path in sorted((words / NOISE_FOLDER).glob("*.wav"))}
    shortest = min((len(noise) for noise in noises.values()), default=0)
    if shortest < 10 * CLIP_SAMPLES:
        raise DataError(
            f"{words / NOISE_FOLDER}: found {len(noises)} recordings, the shortest of {shortest / SAMPLE_RATE:.1f} s, "
            "expected background noise of at least 10 s each"
        )
    return noises


def _stretch(noise: Pcm, split: str) -> Pcm:
    start, end = NOISE_STRETCHES[split]
    return noise[round(start * len(noise)) : round(end * len(noise))]


def _write_silence(bank: BinaryIO, noises: dict[str, Pcm], split: str, count: int, seed: int) -> list[Clip]:
    """Append `count` seconds of background noise, each at a volume from U(0, 1), to `bank`."""
    rng = _rng(seed, split, "silence")
    names = sorted(noises)
    clips = []
    for _ in range(count):
        name = names[rng.integers(len(names))]
        stretch = _stretch(noises[name], split)
        start = int(rng.integers(len(stretch) - CLIP_SAMPLES + 1))
        volume = rng.random()
        bank.write(np.rint(stretch[start : start + CLIP_SAMPLES] * volume).astype(np.int16).tobytes())
        where = round(NOISE_STRETCHES[split][0] * len(noises[name])) + start
        clips.append(Clip(split, SILENCE, "", "", f"{NOISE_FOLDER}/{name}@{where}*{volume:.6f}"))
    return clips


def _npy_header(n_rows: int) -> bytes:
    """The head of bank.npy; numpy leaves room in it for the row count to grow, so its length is always the same."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i2", "fortran_order": False, "shape": (n_rows, CLIP_SAMPLES)}
    )
    return header.getvalue()


def _to_csv(clips: Sequence[Clip]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Clip.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(clip) for clip in clips)
    return text.getvalue().encode()


def _manifest(
    words: Path,
    recordings: dict[str, list[str]],
    lists: dict[str, list[str]],
    noises: dict[str, Pcm],
    clips: list[Clip],
    unreadable: list[str],
    config: PrepareConfig,
) -> dict[str, Any]:
    found = {split: len(files) for split, files in recordings.items()}
    present = set().union(*recordings.values())
    by_split = {split: [clip for clip in clips if clip.split == split] for split in (*SPLITS, EXTRA)}
    return {
        "format": FORMAT,
        "source": SOURCE,
        "licence": SOURCE_LICENCE,
        "folder": words.name,
        "window": CLIP_SAMPLES,
        "labels": list(LABELS),
        "prepare": asdict(config),
        "recordings": found,
        "missing": {
            "clips": {split: OFFICIAL_CLIPS[split] - n for split, n in found.items() if n < OFFICIAL_CLIPS[split]},
            "listed": {split: sum(file not in present for file in files) for split, files in lists.items()},
        },
        "unreadable": unreadable,
        "clips": {split: dict(Counter(clip.label for clip in part)) for split, part in by_split.items()},
        "unknown_words": {
            split: dict(sorted(Counter(clip.word for clip in part if clip.label == UNKNOWN).items()))
            for split, part in by_split.items()
        },
        "speakers": {split: len({clip.speaker for clip in part if clip.speaker}) for split, part in by_split.items()},
        "noise_seconds": {name: round(len(noise) / SAMPLE_RATE, 3) for name, noise in noises.items()},
        "noise_stretches": NOISE_STRETCHES,
        "clips_sha256": {split: clips_digest(clip.file for clip in part) for split, part in by_split.items()},
    }


def _rng(seed: int, *purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that drawing more for one leaves the others as they were."""
    return np.random.default_rng([seed, *hashlib.sha256("/".join(purpose).encode()).digest()])
