"""The twelve-class Speech Commands task (Warden 2018, arXiv:1804.03209), drawn from the official layout.

A prepared folder holds `bank.npy` (every clip, int16), `clips.csv` (a line for each row of the bank),
`noise.npy` (background noise for training, int16) and `manifest.json` (counts, seeds, sources). Beside the task's own
clips the bank holds those of the split `extra`: other words that the task did not draw, and those of other sources.
`other_noise.npy`, `other_rooms.npy` and `other_speech.npy` (int16, end to end) are of other sources, listed in the
manifest; `credits.csv` says whom weights trained on all this are owed to.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..audio import Samples, one_second, read_mono
from ..config import CLIP_SAMPLES, KEYWORDS, LABELS, OTHER_WORDS, SAMPLE_RATE, SILENCE, UNKNOWN, PrepareConfig
from ..errors import DataError, KwsError, UsageError
from ..evaluation.clips import BATCH_CLIPS, ClipSet, batched
from ..files import whole_folder, write_bytes, write_json
from .shards import INDEX, ShardBank, open_shards
from .sources import Recording, Sources, credits_csv, gather, read_sources

Pcm = npt.NDArray[np.int16]

SPLITS = ("training", "validation", "testing")
NOISE_FOLDER = "_background_noise_"
WORDS_FOLDER = "speech_commands_v0.02"
TEST_FOLDER = "speech_commands_test_set_v0.02"
OFFICIAL_CLIPS = {"training": 84_843, "validation": 9_981, "testing": 11_005}
"""Clips of the 35 words in the whole official archive, by split."""

NOISE_STRETCHES = {"training": (0.0, 0.8), "validation": (0.8, 0.9), "testing": (0.9, 1.0)}
"""The part of every background recording that each split may use: no noise is heard in two splits."""

EXTRA = "extra"
"""The split of words beyond the task's draw, most of them `unknown`, for recipes that want more."""

LEFT_OUT = "left out"
"""The split of clips that `PreparedData.without` keeps from training; none lies in a prepared folder."""

MATERIAL = ("noise", "rooms", "speech")
"""Recordings of other sources, by their use; each in a file of its own."""

FORMAT = 2
SOURCE = "Google Speech Commands v0.02, P. Warden 2018 (arXiv:1804.03209), CC BY 4.0"
SOURCE_LICENCE = "CC BY 4.0"
CLIPS_AT_ONCE = 1024  # read and written together while preparing


@dataclass(frozen=True)
class Clip:
    """One row of the bank. `file` is relative to the words' folder; silence names the noise and where it starts."""

    split: str
    label: str
    word: str
    speaker: str
    file: str


@dataclass(frozen=True)
class PreparedData:
    """A prepared folder, opened: the bank is (clips, 16000) int16, memory-mapped or shards; `clips` names its rows."""

    folder: Path
    bank: Pcm | ShardBank
    noise: Pcm
    clips: list[Clip]
    manifest: dict[str, Any]

    def material(self, kind: str) -> list[Pcm]:
        """Recordings of other sources, each (samples,) int16, memory-mapped; of the kind noise, rooms or speech.

        Raises DataError if they do not lie there as the manifest says.
        """
        try:
            lengths = [int(entry["samples"]) for entry in self.manifest["material"][kind]]
            whole: Pcm = np.load(self.folder / material_file(kind), mmap_mode="r" if lengths else None)
        except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
            raise DataError(f"{self.folder}: its {kind} cannot be read ({error}), prepare the data again") from error
        if whole.shape != (sum(lengths),) or whole.dtype != np.int16:
            raise DataError(f"{self.folder}: its {kind} are {whole.shape} {whole.dtype}, not what the manifest says")
        return np.split(whole, np.cumsum(lengths)[:-1]) if lengths else []

    def rows(self, split: str) -> npt.NDArray[np.intp]:
        """Rows of the bank that belong to `split`. Raises DataError if there are none."""
        rows = np.array([i for i, clip in enumerate(self.clips) if clip.split == split], np.intp)
        if len(rows) == 0:
            have = ", ".join(sorted({clip.split for clip in self.clips}))
            raise DataError(f"{self.folder}: holds no clips of the split {split!r}, expected one of: {have}")
        return rows

    def without(self, words: Collection[str]) -> PreparedData:
        """The same data, but training hears none of `words`: those of its clips are of the split `left out`.

        Raises UsageError for keywords, and for words that training does not hear anyway.
        """
        splits = ("training", EXTRA)
        heard = {clip.word for clip in self.clips if clip.split in splits and clip.label == UNKNOWN}
        for word in words:
            if word in KEYWORDS:
                raise UsageError(f"{word} is a keyword, expected other words to leave out of the training")
            if word not in heard:
                raise UsageError(f"{self.folder}: has no clip of {word} to train on, so none to leave out; check it")
        clips = [replace(c, split=LEFT_OUT) if c.word in words and c.split in splits else c for c in self.clips]
        return replace(self, clips=clips)

    def targets(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """Class indices (rows,) in the order of LABELS."""
        return np.array([LABELS.index(self.clips[i].label) for i in rows], np.int64)


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
    lists = {split: _read_list(words / f"{split}_list.txt") for split in ("validation", "testing")}
    recordings = list_recordings(words, lists)
    _check_speakers(words, recordings)
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
            kept = list(_write_words(words, task + extra, bank, unreadable, progress))
            for split in SPLITS:
                n_keywords = sum(clip.split == split and clip.label in KEYWORDS for clip in kept)
                kept += _write_silence(bank, noises, split, round(n_keywords * config.silence_share), config.seed)
            bank.seek(0)
            bank.write(_npy_header(len(kept)))
        np.save(folder / "noise.npy", np.concatenate([_stretch(noises[name], "training") for name in sorted(noises)]))
        material = {kind: _write_material(folder, kind, found[kind], unreadable) for kind in MATERIAL}
        write_bytes(folder / "clips.csv", _to_csv(kept))
        write_bytes(folder / "credits.csv", credits_csv(sources, found, own))
        manifest = _manifest(words, recordings, lists, noises, kept, unreadable, config)
        write_json(folder / "manifest.json", {**manifest, "sources": bills, "material": material})
    return open_prepared(destination)


def open_prepared(folder: Path) -> PreparedData:
    """Open what `prepare` wrote. Raises DataError if it is not there, or its parts do not belong together."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found = manifest.get("format")
        if found != FORMAT:
            raise DataError(f"{folder}: prepared in format {found}, expected {FORMAT}; prepare the data again")
        with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
            clips = [Clip(**line) for line in csv.DictReader(file)]
        sharded = (folder / INDEX).exists()
        bank = open_shards(folder) if sharded else np.load(folder / "bank.npy", mmap_mode="r")
        noise = np.load(folder / "noise.npy")
    except (OSError, ValueError, TypeError, AttributeError, EOFError, csv.Error) as error:
        raise DataError(
            f"{folder}: is no prepared data ({error}); run `tiny-kws data prepare SOURCE --out {folder}` first"
        ) from error
    if bank.shape != (len(clips), CLIP_SAMPLES) or bank.dtype != np.int16:
        raise DataError(f"{folder}: the bank is {bank.shape} {bank.dtype}, expected {(len(clips), CLIP_SAMPLES)} int16")
    if noise.ndim != 1 or len(noise) < CLIP_SAMPLES or noise.dtype != np.int16:
        raise DataError(f"{folder}: the noise is {noise.shape} {noise.dtype}, expected a second or more of int16")
    foreign = sorted({clip.label for clip in clips} - set(LABELS))
    if foreign:
        raise DataError(f"{folder}: clips.csv has the labels {', '.join(foreign)}, expected {', '.join(LABELS)}")
    return PreparedData(folder, bank, noise, clips, manifest)


def material_file(kind: str) -> str:
    """The file of a prepared folder that holds recordings of other sources, by kind."""
    return f"other_{kind}.npy"


def find_words_folder(source: Path) -> Path:
    """The folder with the lists: `source` itself or one below it. Raises DataError if neither has them."""
    for folder in (source, source / WORDS_FOLDER):
        if (folder / "validation_list.txt").is_file() and (folder / "testing_list.txt").is_file():
            return folder
    raise DataError(
        f"{source}: found no validation_list.txt and testing_list.txt, expected the Speech Commands layout; "
        "run `tiny-kws data download` or name the folder that holds the lists"
    )


def list_recordings(words: Path, lists: dict[str, list[str]]) -> dict[str, list[str]]:
    """Every clip of the 35 words by split, as sorted paths relative to `words`: by the lists, else training."""
    split_of = {file: split for split, files in lists.items() for file in files}
    recordings: dict[str, list[str]] = {split: [] for split in SPLITS}
    for word in sorted((*KEYWORDS, *OTHER_WORDS)):
        for path in sorted((words / word).glob("*.wav")):
            file = f"{word}/{path.name}"
            recordings[split_of.get(file, "training")].append(file)
    if not any(recordings.values()):
        raise DataError(f"{words}: holds the lists but no recordings, expected folders such as yes/ and no/")
    return recordings


def word_of(file: str) -> str:
    """The word said in `yes/0a7c2a8d_nohash_0.wav`: yes."""
    return file.partition("/")[0]


def speaker_of(file: str) -> str:
    """The speaker of `yes/0a7c2a8d_nohash_0.wav`: 0a7c2a8d."""
    return file.rpartition("/")[2].partition("_nohash_")[0]


def read_test_archive(folder: Path) -> list[tuple[Path, str]]:
    """The official test folder (`_silence_`, `_unknown_`, words) as sorted (file, label); DataError if foreign."""
    if not (folder / "_unknown_").is_dir() and (folder / TEST_FOLDER).is_dir():
        folder = folder / TEST_FOLDER
    found = [
        (path, label)
        for label in LABELS
        for path in sorted((folder / (f"_{label}_" if label in (SILENCE, UNKNOWN) else label)).glob("*.wav"))
    ]
    missing = sorted(set(LABELS) - {label for _, label in found})
    if missing:
        raise DataError(
            f"{folder}: found no clips of {', '.join(missing)}; expected the official test archive's folders"
        )
    return found


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
    words = [_said_in_test(name) for name in names]
    clips = ClipSet("the official test set", labels, clips_digest(names), lambda: batched(windows), names, words)
    return clips, unreadable


def _said_in_test(name: str) -> str:
    """The word in `_unknown_/bed_0a7c2a8d_nohash_0.wav` or `yes/0a7c2a8d_nohash_0.wav`; empty if it is not named."""
    label, _, file = name.partition("/")
    if label == f"_{UNKNOWN}_":
        word, _, rest = file.partition("_")
        return word if "_nohash_" in rest else ""
    return "" if label == f"_{SILENCE}_" else label


def calibration_clips(data: PreparedData, count: int) -> Samples:
    """A seeded draw of training clips, (count, 16000), fewer if there are not so many."""
    chosen = np.random.default_rng(0).permutation(data.rows("training"))[:count]
    return to_float(data.bank[np.sort(chosen)])


def to_float(pcm: Pcm) -> Samples:
    """int16 samples to float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def clips_digest(names: Iterable[str]) -> str:
    """SHA-256 over a list of clips in order, one name a line, so that two evaluations can be told to be of the same."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def to_pcm(audio: Samples) -> Pcm:
    """Float samples in [-1, 1] to int16; exact for what was 16-bit before."""
    scaled: Samples = np.rint(audio * 32768.0)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _read_list(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}), expected a path a line; fetch the archive again") from error


def _check_speakers(words: Path, recordings: dict[str, list[str]]) -> None:
    splits_of: dict[str, set[str]] = defaultdict(set)
    for split, files in recordings.items():
        for file in files:
            splits_of[speaker_of(file)].add(split)
    shared = sorted(speaker for speaker, splits in splits_of.items() if len(splits) > 1)
    if shared:
        raise DataError(
            f"{words}: {len(shared)} speakers are in more than one split ({shared[0]} for one), expected the official "
            "lists, which share none; put all clips of a speaker in one list"
        )


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
    words: Path, clips: list[Clip], bank: BinaryIO, unreadable: list[str], progress: Callable[[int, int], None]
) -> Iterator[Clip]:
    """Append every clip that can be read to `bank` and yield it; note the others in `unreadable`."""

    def read(clip: Clip) -> Pcm | str:
        try:
            return to_pcm(one_second(read_mono(_named(words, clip.file))))
        except KwsError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(clips), CLIPS_AT_ONCE):
            batch = clips[start : start + CLIPS_AT_ONCE]
            for clip, pcm in zip(batch, pool.map(read, batch), strict=True):
                if isinstance(pcm, str):
                    unreadable.append(pcm)
                    continue
                bank.write(pcm.tobytes())
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
