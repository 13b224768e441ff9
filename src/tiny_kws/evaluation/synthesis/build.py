"""A folder of long recordings with labelled words, to measure listening on: what `tiny-kws make-stream` builds."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from ...audio import Samples
from ...config import SAMPLE_RATE
from ...data.material import Material, Sound, list_clips, list_noises, list_rooms, list_speech
from ...errors import DataError, UsageError
from ...files import sha256_of, whole_folder, write_bytes, write_json
from ...words import SILENCE, UNKNOWN
from ..metrics import Origin
from .protocols import MLPERF_TINY, plan_preset
from .recordings import Line, Recording, StreamSettings, plan_recordings

FORMAT = 1
SUMMARY = "stream.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Hours:
    """Hours of recordings with speech, of running speech in them, and of recordings of noise."""

    recordings_of_speech: float
    running_speech: float
    recordings_of_noise: float


@dataclass(frozen=True)
class Source:
    """What of a folder of material was used; `groups` are speakers, sources of noise, or rooms."""

    files: int
    groups: int
    licences: dict[str, int]


@dataclass(frozen=True)
class StreamSummary:
    """What was built, and of what: the content of stream.json.

    `lines` counts the manifest's lines by label, `other_words` the words that are no keywords; `recordings_sha256` is
    over a listing of all recordings.
    """

    format: int
    settings: StreamSettings
    hours: Hours
    lines: dict[str, int]
    other_words: dict[str, int]
    speakers: int
    speakers_in_several_recordings: tuple[str, ...]
    sources: dict[str, Source]
    unreadable: tuple[str, ...]
    clips_without_a_word: tuple[str, ...]
    clipped_samples: dict[str, int]
    recordings: int
    recordings_sha256: str
    manifest_sha256: str


@dataclass(frozen=True)
class _Written:
    """The recordings of a set on disk: the lines of each by its name, and the clipped samples by condition."""

    lines: dict[str, list[Line]]
    clipped: dict[str, int]

    @property
    def manifest(self) -> bytes:
        """As it stands in the file."""
        rows = ({"file": name, **_fields(line)} for name, lines in self.lines.items() for line in lines)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _fields(line: Line) -> dict[str, Any]:
    """A line's fields, traits of its speaker among them under their names."""
    fields = asdict(line)
    traits = dict(fields.pop("traits"))
    return fields | traits


def make_stream(
    out: Path,
    clips: Path,
    noise: Path | None = None,
    rooms: Path | None = None,
    speech: Path | None = None,
    *,
    settings: StreamSettings,
    progress: Progress = lambda done, total: None,
) -> StreamSummary:
    """Build a set in the new folder `out` from folders of material; return what stands in its stream.json.

    OUT/CONDITION/001-speech.flac and so on (16 kHz, 16 bits), OUT/CONDITION/manifest.jsonl and OUT/stream.json, where
    CONDITION is `clean`, `snr10` and so on. A line of a manifest is {"file", "label", "start_s", "end_s", "speaker",
    "word", "source"}: `label` is a keyword, "unknown" for other words and stretches of running speech (whose `word` is
    empty), or "silence" for a whole recording of noise; "age", "gender" and "accent" stand in it where the material's
    manifest.csv has them. The same settings and files give the same set.
    `progress(done, total)` counts recordings. Files that cannot be read stand under `unreadable`, others take their
    place. Raises UsageError for settings that make no sense, DataError if the material is missing or too little,
    KwsError if the set cannot be written.
    """
    conditions = conditions_of(settings)
    if out.exists():
        raise DataError(f"{out}: already exists, expected a new folder; remove it or name another")
    material = _list_material(clips, noise, rooms, speech, settings)
    plan = plan_preset(material, settings) if settings.preset else plan_recordings(material, settings)
    with whole_folder(out) as folder:
        written = _write_recordings(folder, conditions, plan, progress)
        for condition in conditions:
            write_bytes(folder / condition / "manifest.jsonl", written.manifest)
        summary = _summary(folder, material, settings, written)
        write_json(folder / SUMMARY, asdict(summary))
    return summary


def _write_recordings(
    folder: Path, conditions: Sequence[str], plan: Sequence[Callable[[], Recording]], progress: Progress
) -> _Written:
    """Make each recording of a plan, and write it in every condition."""
    lines: dict[str, list[Line]] = {}
    clipped = Counter(dict.fromkeys(conditions, 0))
    for condition in conditions:
        (folder / condition).mkdir()
    for i, render in enumerate(plan):
        recording = render()
        name = f"{i + 1:03}-{recording.kind}.flac"
        for condition, sound in zip(conditions, recording.sounds, strict=True):
            clipped[condition] += _write_flac(folder / condition / name, sound)
        lines[name] = recording.lines
        progress(i + 1, len(plan))
    return _Written(lines, dict(clipped))


def origin_of(manifest: Path) -> Origin | None:
    """How the streams of a manifest were made; None if no `stream.json` lies in the folder above, or it is of others.

    >>> origin_of(Path("meeting/manifest.jsonl")) is None
    True
    """
    path = manifest.parent.parent / SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary.get("manifest_sha256", sha256_of(manifest)) != sha256_of(manifest):
            return None
        return Origin(manifest.parent.name, dict(summary["settings"]), str(summary["recordings_sha256"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def conditions_of(settings: StreamSettings) -> list[str]:
    """The names of the conditions' folders. Raises UsageError for settings that make no sense.

    >>> conditions_of(StreamSettings(("stop",), snrs_db=(None, 10.0, 2.5)))
    ['clean', 'snr10', 'snr2.5']
    """
    if settings.preset == MLPERF_TINY:
        return [MLPERF_TINY]
    names = ["clean" if snr_db is None else f"snr{snr_db:g}" for snr_db in settings.snrs_db]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"found the conditions {', '.join(names) or 'none'}, expected one or more, each once")
    if not settings.labels or {SILENCE, UNKNOWN} & set(settings.labels):
        raise UsageError(f"found the keywords {', '.join(settings.labels) or 'none'}, expected words to listen for")
    sizes = (settings.speech_hours, settings.noise_hours, settings.keywords, settings.others)
    if min(sizes) < 0 or max(sizes) == 0 or not 0 <= settings.room_share <= 1:
        raise UsageError("expected hours, keywords or others above 0, none negative, and a share of rooms from 0 to 1")
    return names


def parse_snrs(text: str) -> tuple[float | None, ...]:
    """The conditions that a list names. Raises UsageError for anything but `clean` and numbers.

    >>> parse_snrs("clean,20,-5")
    (None, 20.0, -5.0)
    """
    try:
        snrs_db = tuple(None if name.strip() == "clean" else float(name) for name in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"found the conditions {text!r}, expected clean or numbers of dB, such as clean,20,10"
        ) from error
    if not all(snr_db is None or abs(snr_db) <= 100 for snr_db in snrs_db):
        raise UsageError(f"found the conditions {text!r}, expected SNRs from -100 to 100 dB")
    return snrs_db


def summary_text(summary: StreamSummary) -> str:
    """What was built, in two lines to read."""
    hours = summary.hours
    keywords = sum(summary.lines.get(label, 0) for label in summary.settings.labels)
    return (
        f"{keywords} keywords, {sum(summary.other_words.values())} other words, {summary.speakers} speakers; "
        f"{len(summary.clips_without_a_word)} clips without a word left out\n"
        f"{hours.recordings_of_speech:.2f} h with speech, {hours.running_speech:.2f} h of it running speech without "
        f"keywords; {hours.recordings_of_noise:.2f} h of noise"
    )


def _list_material(
    clips: Path, noise: Path | None, rooms: Path | None, speech: Path | None, settings: StreamSettings
) -> Material:
    def wanted(folder: Path | None, is_needed: bool, option: str) -> Path | None:
        if is_needed and folder is None:
            raise UsageError(f"found no {option} FOLDER, expected one for these settings; see --help")
        return folder if is_needed else None

    speech = wanted(speech, settings.speech_hours > 0, "--speech")
    noisy = settings.preset or settings.noise_hours or any(snr_db is not None for snr_db in settings.snrs_db)
    noise = wanted(noise, bool(noisy), "--noise")
    rooms = wanted(rooms, settings.room_share > 0, "--rooms")
    return Material(
        clips=list_clips(clips, settings.split),
        speech=list_speech(speech, settings.labels, settings.speech_part, settings.trust_speech) if speech else [],
        noises=list_noises(noise, settings.part) if noise else [],
        rooms=list_rooms(rooms, settings.part) if rooms else [],
    )


def _write_flac(path: Path, audio: Samples) -> int:
    """Write 16 bits at 16 kHz and return how many samples were clipped."""
    file = io.BytesIO()  # as libsndfile does not say what was wrong with a disk
    sf.write(file, np.clip(audio, -1.0, 1.0), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    path.write_bytes(file.getvalue())
    return int(np.count_nonzero(np.abs(audio) > 1.0))


def _summary(folder: Path, material: Material, settings: StreamSettings, written: _Written) -> StreamSummary:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.flac"))
    listing = "".join(f"{sha256_of(folder / file)}  {file}\n" for file in files)
    lines = [line for found in written.lines.values() for line in found]
    others = Counter(line.word for line in lines if line.label == UNKNOWN and line.word)
    recordings_with = Counter(
        speaker for found in written.lines.values() for speaker in {ln.speaker for ln in found if ln.label != SILENCE}
    )
    return StreamSummary(
        format=FORMAT,
        settings=settings,
        hours=_hours(folder / conditions_of(settings)[0], lines),
        lines=dict(Counter(line.label for line in lines)),
        other_words=dict(sorted(others.items())),
        speakers=len(recordings_with),
        speakers_in_several_recordings=tuple(sorted(name for name, count in recordings_with.items() if count > 1)),
        sources={
            name: _source([sound for sound in getattr(material, name) if sound.path in material.used])
            for name in ("clips", "speech", "noises", "rooms")
        },
        unreadable=tuple(material.unreadable),
        clips_without_a_word=tuple(material.wordless),
        clipped_samples=written.clipped,
        recordings=len(files),
        recordings_sha256=hashlib.sha256(listing.encode()).hexdigest(),
        manifest_sha256=hashlib.sha256(written.manifest).hexdigest(),
    )


def _hours(condition: Path, lines: Sequence[Line]) -> Hours:
    """The hours of one condition; all conditions have the same length."""
    running_s = sum(line.end_s - line.start_s for line in lines if line.label != SILENCE and not line.word)

    def hours_of(kind: str) -> float:
        seconds = [float(sf.info(path).duration) for path in sorted(condition.glob(f"*-{kind}.flac"))]
        return round(sum(seconds) / 3600, 4)

    return Hours(hours_of("speech"), round(running_s / 3600, 4), hours_of("noise"))


def _source(sounds: Sequence[Sound]) -> Source:
    return Source(
        files=len(sounds),
        groups=len({sound.group for sound in sounds}),
        licences=dict(sorted(Counter(sound.licence or "not stated" for sound in sounds).items())),
    )
