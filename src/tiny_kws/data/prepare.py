"""Makes prepared data from recordings in three steps: read what there is, draw the task, write it."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ..audio import Samples, most_energetic_window, read_mono
from ..config import SAMPLE_RATE
from ..errors import AudioError, DataError, KwsError, UsageError
from ..files import whole_folder, write_bytes
from ..training_config import PrepareConfig
from ..words import SILENCE, UNKNOWN, Vocabulary
from . import speech_commands
from .manifest import Bill, Excerpt, Manifest, Missing
from .prepared import (
    EXTRA,
    MATERIAL,
    NO_SPAN,
    Clip,
    Pcm,
    PreparedData,
    clips_digest,
    material_file,
    open_prepared,
    to_float,
    to_pcm,
)
from .sources import Recording, Source, Sources, credits_csv, gather, read_sources
from .spans import find_word
from .word_folders import (
    NOISE_FOLDER,
    SPLITS,
    Recordings,
    WordClip,
    clips_in,
    list_recordings,
    word_folders,
)

NOISE_STRETCHES = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "testing": (0.9, 1.0)}
"""The part of every background recording that each split may use: no noise is heard in two splits."""

CLIPS_AT_ONCE = 1024  # read and written together while preparing
WINDOW_MS = (500.0, 2000.0)
SHORTEST_MS = 100  # of a clip of one's own words
SHORTEST_NOISE_S = 10
LONGEST_S = 600  # of a clip of one's own words: what is longer is no clip of a word
MADE_NOISE_S = 60
MADE_NOISE = "made_up_noise"
BACKWARDS = "#backwards"
"""Added to the name of a clip that is played backwards, in place of other words if there are none."""


@dataclass(frozen=True)
class Material:
    """The material for a task: clips of its words and others, background noise, and recordings from other sources.

    `own` counts the training clips by licence, `named` is how the recordings are cited, `notes` are to be told.
    """

    words: tuple[str, ...]
    recordings: Recordings
    noises: Mapping[str, Pcm]
    sources: Sources
    found: Mapping[str, Sequence[Recording]]
    bills: Sequence[Bill]
    own: Mapping[str, int]
    named: str
    licence: str
    missing: Missing
    notes: tuple[str, ...]
    is_own: bool
    """Whether these are clips of own words, which may have any length, and not Speech Commands."""

    @property
    def folder(self) -> Path:
        """Where the words lie."""
        return self.recordings.folder

    @property
    def vocabulary(self) -> Vocabulary:
        """The labels of the task."""
        return Vocabulary.of_words(self.words)


def prepare(
    source: Path,
    destination: Path,
    config: PrepareConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    sources: Sources | None = None,
    words: Sequence[str] | None = None,
    speakers: Path | None = None,
) -> PreparedData:
    """Draw a task from recordings, write it to the new folder `destination`, and open it.

    Without `words` it is the twelve-class task of Speech Commands (Warden 2018), whose official layout `source` or a
    folder below it has. With `words`, `source` is any folder of word folders (see `word_folders`), and `speakers` a
    table of who speaks. `progress(done, total)` counts clips. Unknown and silence are seeded draws. An incomplete
    archive is accepted: the manifest lists missing clips under `missing` and unreadable ones under `unreadable`.
    `sources` (default: the package's own file) names what lies beside the words' folder to train against; what is not
    there is left out, and stands under `sources`.
    Raises DataError, and leaves nothing behind, if a word is missing or has too few clips, and UsageError for invalid
    words or an invalid window.
    """
    config = config or PrepareConfig()
    window = _window_of(config)
    if destination.exists():
        raise DataError(f"{destination}: already exists, expected a new folder; remove it or name another")
    sources = sources or read_sources()
    material = (
        _read_speech_commands(source, sources) if words is None else _read_words(source, words, speakers, sources)
    )
    config = _with_shares(config, len(material.words))
    clips = _draw(material, config)
    with whole_folder(destination) as folder:
        _write(folder, material, clips, config, window, progress)
    return open_prepared(destination)


def _with_shares(config: PrepareConfig, n_words: int) -> PrepareConfig:
    """The config with numbers for the shares that give as many clips as a word has on average."""
    unknown, silence = (1 / n_words if s is None else s for s in (config.unknown_share, config.silence_share))
    return replace(config, unknown_share=unknown, silence_share=silence)


def _window_of(config: PrepareConfig) -> int:
    """The samples of a row: a whole number of 20 ms, the step of networks that stream."""
    low, high = WINDOW_MS
    if not low <= config.window_ms <= high or config.window_ms % 20:
        raise UsageError(
            f"found a window of {config.window_ms:g} ms, expected {low:g} to {high:g} in steps of 20; a word fits in "
            "1000, a phrase in 1500"
        )
    return round(config.window_ms * SAMPLE_RATE / 1000)


def _read_speech_commands(source: Path, sources: Sources) -> Material:
    """The ten words, the other 25 and the noise of the official layout."""
    if not speech_commands.is_speech_commands(source):
        _explain_other_folder(source)
    archive = speech_commands.read_archive(source)
    recordings, words = archive.recordings, archive.words
    own = {speech_commands.SOURCE_LICENCE: len(recordings.splits["training"])}
    found, bills = gather(_named(recordings.folder, ".."), sources, own, words)
    return Material(
        words=words,
        recordings=recordings,
        noises=_read_noises(recordings.folder, speech_commands.NOISE_PATTERN),
        sources=sources,
        found=found,
        bills=bills,
        own=own,
        named=speech_commands.SOURCE,
        licence=speech_commands.SOURCE_LICENCE,
        missing=archive.missing,
        notes=tuple(_unused_note(word, count, words, "so not used") for word, count in archive.strange.items()),
        is_own=False,
    )


def _explain_other_folder(source: Path) -> None:
    """Say what to type if a folder has words, but not those of Speech Commands."""
    found = [word for word, path in word_folders(source).items() if clips_in(path)] if source.is_dir() else []
    if found:
        raise DataError(
            f"{source}: is not the Speech Commands layout, but has folders of the words {', '.join(found)}; name those "
            f"to hear: --words {','.join(found[:3])}"
        )


def _read_words(source: Path, words: Sequence[str], speakers: Path | None, sources: Sources) -> Material:
    """Your own words, with the other folders as other words."""
    folder = speech_commands.words_folder(source)
    if not folder.is_dir():
        raise DataError(f"{folder}: not found, expected a folder of word folders; check the path")
    recordings = list_recordings(folder, words, speakers)
    credited = speech_commands.is_speech_commands(folder)
    licence = speech_commands.SOURCE_LICENCE if credited else "not stated"
    own = {licence: len(recordings.splits["training"])}
    named = sources if credited else _own_sources(folder, sources)
    found, bills = gather(_named(folder, ".."), named, own, words)
    counts = Counter(clip.word for clips in recordings.splits.values() for clip in clips)
    notes = [] if credited else _unlisted_notes(folder, sources)
    notes += [_unused_note(word, counts[word], words, "so labelled unknown") for word in counts if word not in words]
    noises = _read_noises(folder, "*") if (folder / NOISE_FOLDER).is_dir() else {}
    if not noises:
        noises = {MADE_NOISE: _made_noise()}
        notes.append(
            f"there is no {NOISE_FOLDER}/ with sound, so silence is synthetic noise; put recordings of rooms there"
        )
    if all(word in words for word in counts):
        notes.append("there are no folders of other words, so unknown is your words played backwards; add some")
    return Material(
        words=tuple(words),
        recordings=recordings,
        noises=noises,
        sources=named,
        found=found,
        bills=bills,
        own=own,
        named=speech_commands.SOURCE if credited else f"the recordings in {folder.resolve().name}",
        licence=licence,
        missing=Missing(),
        notes=(*recordings.notes, *notes),
        is_own=True,
    )


def _own_sources(folder: Path, sources: Sources) -> Sources:
    """The sources for your own words, with their folder in place of Speech Commands.

    A folder beside it may happen to have the name of a source, `words` or `noise`. It is left out if it has no
    manifest, or if it is the folder of the words itself.
    """
    name = folder.resolve().name
    mine = Source(name, name, "keywords", "whoever recorded them")
    others = [source for source, path in _beside(folder, sources) if (path / "manifest.csv").is_file()]
    return replace(sources, sources=(mine, *others))


def _beside(folder: Path, sources: Sources) -> list[tuple[Source, Path]]:
    """The sources whose folder is there, beside that of your own words."""
    root = _named(folder, "..")
    named = [(source, root / source.folder) for source in sources.sources if source.use != "keywords"]
    return [(source, path) for source, path in named if path.is_dir() and path.resolve() != folder.resolve()]


def _unlisted_notes(folder: Path, sources: Sources) -> list[str]:
    """A note for each folder of sound that would be used if a manifest told its licences."""
    return [
        f"{path}/: has no manifest.csv, so not used; if it is to be trained on, list its files and licences there"
        for _, path in _beside(folder, sources)
        if not (path / "manifest.csv").is_file() and any(path.iterdir())
    ]


def _unused_note(word: str, count: int, words: Sequence[str], therefore: str) -> str:
    clips = f"{count} clip{'' if count == 1 else 's'}"
    return (
        f"{word}/: {clips}, not among the words, {therefore}; to hear it as a word: --words {','.join([*words, word])}"
    )


def _draw(material: Material, config: PrepareConfig) -> list[Clip]:
    """The clips of the task: words, a share of the others as unknown, and for training all the rest as extra."""
    task = [clip for split in SPLITS for clip in _draw_split(material, split, config)]
    drawn = {clip.file for clip in task}
    rest = [_clip(EXTRA, UNKNOWN, clip) for clip in _others(material, "training") if clip.file not in drawn]
    others = [*material.found["other words"], *material.found["words"]]
    return [*task, *rest, *(_extra_clip(recording, material.words) for recording in others)]


def _draw_split(material: Material, split: str, config: PrepareConfig) -> list[Clip]:
    """All clips of a split's words and the seeded share of the others."""
    spoken = [clip for clip in material.recordings.splits[split] if clip.word in material.words]
    others = _others(material, split)
    rng = _rng(config.seed, split, "unknown")
    count = min(len(others), _share(len(spoken), config.unknown_share))
    drawn = sorted(rng.choice(len(others), count, replace=False)) if count else []
    return [_clip(split, clip.word, clip) for clip in spoken] + [_clip(split, UNKNOWN, others[i]) for i in drawn]


def _others(material: Material, split: str) -> list[WordClip]:
    """The clips of other words in a split or, if there are none at all, the words played backwards."""
    clips = material.recordings.splits[split]
    if any(word not in material.words for word in material.recordings.words):
        return [clip for clip in clips if clip.word not in material.words]
    return [WordClip(f"{clip.word} backwards", clip.speaker, clip.file + BACKWARDS) for clip in clips]


def _share(count: int, share: float | None) -> int:
    """A share of a count, but at least one unless the count is 0."""
    return max(min(1, count), round(count * share)) if share else 0


def _clip(split: str, label: str, clip: WordClip) -> Clip:
    return Clip(split, label, clip.word, clip.speaker, clip.file)


def _extra_clip(recording: Recording, words: Sequence[str]) -> Clip:
    file = str(PurePosixPath("..", recording.file))  # a source's folder may also be named from the root
    label = recording.word if recording.word in words else UNKNOWN
    return Clip(EXTRA, label, recording.word, recording.speaker, file)


def _write(
    folder: Path,
    material: Material,
    clips: list[Clip],
    config: PrepareConfig,
    window: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write all files of prepared data into `folder`. Raises DataError if too few clips of a word can be read."""
    unreadable: list[str] = []
    kept: list[Clip] = []
    spans: list[tuple[int, int]] = []
    # Written row by row: on a full disk, writing through a memory map kills the process.
    with (folder / "bank.npy").open("wb") as bank:
        bank.write(_npy_header(0, window))
        for clip, span in _write_words(material, clips, window, bank, unreadable, progress):
            kept.append(clip)
            spans.append(span)
        _check_readable(material, kept, unreadable)
        for split in SPLITS:
            n_words = sum(clip.split == split and clip.label in material.words for clip in kept)
            silent = _write_silence(
                bank, material.noises, split, _share(n_words, config.silence_share), config.seed, window
            )
            kept += silent
            spans += [NO_SPAN] * len(silent)
        bank.seek(0)
        bank.write(_npy_header(len(kept), window))
    np.save(folder / "spans.npy", np.array(spans, np.int32).reshape(-1, 2))
    noises = [_stretch(material.noises[name], "training") for name in sorted(material.noises)]
    np.save(folder / "noise.npy", np.concatenate(noises))
    excerpts = {kind: _write_material(folder, kind, material.found[kind], unreadable) for kind in MATERIAL}
    write_bytes(folder / "clips.csv", _to_csv(kept))
    write_bytes(folder / "credits.csv", credits_csv(material.sources, material.found, material.own))
    manifest = _manifest(material, kept, unreadable, excerpts, config, window)
    write_bytes(folder / "manifest.json", manifest.to_json().encode())


def _check_readable(material: Material, kept: Sequence[Clip], unreadable: Sequence[str]) -> None:
    """Raise DataError if one of your own words has no readable clip to train or to validate on."""
    if not material.is_own:
        return
    for word in material.words:
        for split in ("training", "validation"):
            if not any(clip.split == split and clip.label == word for clip in kept):
                reason = next((line for line in unreadable if f"/{word}/" in line), "")
                raise DataError(
                    f"{material.folder / word}: none of its clips for {split} can be read, expected one or more "
                    f"({reason or 'see its files'}); record the word again"
                )


def _write_material(folder: Path, kind: str, found: Sequence[Recording], unreadable: list[str]) -> list[Excerpt]:
    """Write recordings end to end to the file of `kind`; returns what each is and its length."""
    sounds, excerpts = [], []
    for recording in found:
        try:
            pcm = to_pcm(read_mono(recording.path))
        except KwsError as error:
            unreadable.append(str(error))
            continue
        if not pcm.any():  # a room response of it would have no level to be brought to
            unreadable.append(f"{recording.path}: holds only digital silence, expected sound")
            continue
        sounds.append(pcm)
        excerpts.append(Excerpt(recording.file, recording.group, len(pcm)))
    np.save(folder / material_file(kind), np.concatenate(sounds) if sounds else np.zeros(0, np.int16))
    return excerpts


def _write_words(
    material: Material,
    clips: list[Clip],
    window: int,
    bank: BinaryIO,
    unreadable: list[str],
    progress: Callable[[int, int], None],
) -> Iterator[tuple[Clip, tuple[int, int]]]:
    """Append every clip that can be read to `bank`, and give it with where its word lies; note the others."""

    def read(clip: Clip) -> tuple[Pcm, tuple[int, int]] | str:
        try:
            audio = read_mono(_named(material.folder, clip.file.removesuffix(BACKWARDS)))
            pcm = to_pcm(_fitted(audio, window, material.is_own and not clip.file.startswith(".."), clip.file))
        except KwsError as error:
            return str(error)
        if clip.file.endswith(BACKWARDS):
            pcm = pcm[::-1].copy()
        return pcm, find_word(to_float(pcm)) or NO_SPAN

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(clips), CLIPS_AT_ONCE):
            batch = clips[start : start + CLIPS_AT_ONCE]
            for clip, found in zip(batch, pool.map(read, batch), strict=True):
                if isinstance(found, str):
                    unreadable.append(found)
                    continue
                bank.write(found[0].tobytes())
                yield clip, found[1]
            progress(start + len(batch), len(clips))


def _fitted(audio: Samples, window: int, is_own: bool, file: str) -> Samples:
    """A clip as a row of `window` samples: followed by silence, or cut.

    If a clip of your own words is longer, the window around the word is taken, or else the loudest; other clips, which
    are already cut, keep their beginning. Raises AudioError for a clip of your own that cannot contain a word.
    """
    n_least = SHORTEST_MS * SAMPLE_RATE // 1000
    if is_own and not n_least <= len(audio) <= LONGEST_S * SAMPLE_RATE:
        raise AudioError(
            f"{file}: lasts {1000 * len(audio) / SAMPLE_RATE:.0f} ms, expected a clip of a word, {SHORTEST_MS} ms to "
            f"{LONGEST_S // 60} minutes; it is left out"
        )
    if len(audio) <= window:
        return np.pad(audio, (0, window - len(audio)))
    if not is_own:
        return audio[:window]
    span = find_word(audio)
    if span is None:
        return most_energetic_window([audio], window).samples
    start = (span[0] + span[1] - window) // 2
    start = min(max(start, 0), len(audio) - window)
    return audio[start : start + window]


def _read_noises(folder: Path, pattern: str) -> dict[str, Pcm]:
    """The recordings of background noise. Raises DataError if there are none, or one is too short to be divided."""
    wanted = set(clips_in(folder / NOISE_FOLDER)) if (folder / NOISE_FOLDER).is_dir() else set()
    paths = sorted(path for path in (folder / NOISE_FOLDER).glob(pattern) if path in wanted)
    noises = {path.name: to_pcm(read_mono(path)) for path in paths}
    if not noises and pattern == "*":
        return {}
    shortest = min((len(noise) for noise in noises.values()), default=0)
    if shortest < SHORTEST_NOISE_S * SAMPLE_RATE:
        raise DataError(
            f"{folder / NOISE_FOLDER}: found {len(noises)} recordings, the shortest of {shortest / SAMPLE_RATE:.1f} s, "
            f"expected background noise of at least {SHORTEST_NOISE_S} s each"
        )
    return noises


def _made_noise() -> Pcm:
    """A minute of noise that falls off towards high frequencies as rooms do: white noise summed up with a leak."""
    white = np.random.default_rng(0).standard_normal(MADE_NOISE_S * SAMPLE_RATE)
    kernel = 0.97 ** np.arange(400)
    coloured = np.convolve(white, kernel)[: len(white)]
    return to_pcm((0.1 * coloured / np.abs(coloured).max()).astype(np.float32))


def _stretch(noise: Pcm, split: str) -> Pcm:
    start, end = NOISE_STRETCHES[split]
    return noise[round(start * len(noise)) : round(end * len(noise))]


def _write_silence(
    bank: BinaryIO, noises: Mapping[str, Pcm], split: str, count: int, seed: int, window: int
) -> list[Clip]:
    """Append `count` windows of background noise, each at a volume from U(0, 1), to `bank`."""
    rng = _rng(seed, split, "silence")
    names = sorted(noises)
    clips = []
    for _ in range(count):
        name = names[rng.integers(len(names))]
        stretch = _stretch(noises[name], split)
        long_enough = np.resize(stretch, max(len(stretch), window))
        start = int(rng.integers(len(long_enough) - window + 1))
        volume = rng.random()
        bank.write(np.rint(long_enough[start : start + window] * volume).astype(np.int16).tobytes())
        where = round(NOISE_STRETCHES[split][0] * len(noises[name])) + start
        clips.append(Clip(split, SILENCE, "", "", f"{NOISE_FOLDER}/{name}@{where}*{volume:.6f}"))
    return clips


def _npy_header(n_rows: int, window: int) -> bytes:
    """The head of bank.npy; numpy leaves room in it for the row count to grow, so its length is always the same."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": (n_rows, window)})
    return header.getvalue()


def _named(words: Path, file: str) -> Path:
    """A file's path relative to the words' folder; if that is a link, `..` is the folder with the link."""
    return Path(os.path.normpath(words / file))


def _to_csv(clips: Sequence[Clip]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Clip.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(clip) for clip in clips)
    return text.getvalue().encode()


def _manifest(
    material: Material,
    clips: Sequence[Clip],
    unreadable: Sequence[str],
    excerpts: Mapping[str, Sequence[Excerpt]],
    config: PrepareConfig,
    window: int,
) -> Manifest:
    by_split = {split: [clip for clip in clips if clip.split == split] for split in (*SPLITS, EXTRA)}
    unknown = {split: Counter(clip.word for clip in part if clip.label == UNKNOWN) for split, part in by_split.items()}
    return Manifest(
        source=material.named,
        licence=material.licence,
        folder=material.folder.name,
        labels=material.vocabulary.labels,
        window=window,
        prepare=config,
        division=material.recordings.division,
        recordings={split: len(found) for split, found in material.recordings.splits.items()},
        missing=material.missing,
        notes=material.notes,
        unreadable=unreadable,
        clips={split: Counter(clip.label for clip in part) for split, part in by_split.items()},
        unknown_words={split: dict(sorted(counts.items())) for split, counts in unknown.items()},
        speakers={split: len({clip.speaker for clip in part if clip.speaker}) for split, part in by_split.items()},
        noise_seconds={name: round(len(noise) / SAMPLE_RATE, 3) for name, noise in material.noises.items()},
        noise_stretches=NOISE_STRETCHES,
        clips_sha256={split: clips_digest(clip.file for clip in part) for split, part in by_split.items()},
        sources=material.bills,
        material=excerpts,
    )


def _rng(seed: int, *purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that drawing more for one leaves the others as they were."""
    return np.random.default_rng([seed, *hashlib.sha256("/".join(purpose).encode()).digest()])
