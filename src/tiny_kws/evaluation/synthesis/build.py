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
from .protocols import MLPERF_TINY, plan_preset
from .recordings import Line, StreamSettings, plan_recordings

FORMAT = 1
SUMMARY = "stream.json"
Progress = Callable[[int, int], None]


def make_stream(
    out: Path,
    clips: Path,
    noise: Path | None = None,
    rooms: Path | None = None,
    speech: Path | None = None,
    settings: StreamSettings | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Build a set in the new folder `out` from folders of material; return what stands in its stream.json.

    OUT/CONDITION/001-speech.flac and so on (16 kHz, 16 bits), OUT/CONDITION/manifest.jsonl and OUT/stream.json, where
    CONDITION is `clean`, `snr10` and so on. A line of a manifest is {"file", "label", "start_s", "end_s", "speaker",
    "word", "source"}: `label` is a keyword, "unknown" for other words and stretches of running speech (whose `word` is
    empty), or "silence" for a whole recording of noise. The same settings and files give the same set.
    `progress(done, total)` counts recordings. Files that cannot be read stand under `unreadable`, others take their
    place. Raises UsageError for settings that make no sense, DataError if the material is missing or too little,
    KwsError if the set cannot be written.
    """
    settings = settings or StreamSettings()
    conditions = conditions_of(settings)
    if out.exists():
        raise DataError(f"{out}: already exists, expected a new folder; remove it or name another")
    material = _list_material(clips, noise, rooms, speech, settings)
    plan = plan_preset(material, settings) if settings.preset else plan_recordings(material, settings)
    manifest: list[Line] = []
    clipped: Counter[str] = Counter()
    with whole_folder(out) as folder:
        for condition in conditions:
            (folder / condition).mkdir()
        for i, render in enumerate(plan):
            recording = render()
            name = f"{i + 1:03}-{recording.kind}.flac"
            for condition, sound in zip(conditions, recording.sounds, strict=True):
                clipped[condition] += _write_flac(folder / condition / name, sound)
            manifest += [{"file": name, **line} for line in recording.lines]
            progress(i + 1, len(plan))
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in manifest).encode()
        for condition in conditions:
            write_bytes(folder / condition / "manifest.jsonl", text)
        summary = _summary(folder, material, settings, manifest, clipped)
        summary["manifest_sha256"] = hashlib.sha256(text).hexdigest()
        write_json(folder / SUMMARY, summary)
    return summary


@dataclass(frozen=True)
class Origin:
    """How the streams of a manifest were made, by the `stream.json` of `make_stream`.

    `settings` are those that it was told, the seed among them; `recordings_sha256` is a sum over all its recordings.
    """

    condition: str
    settings: dict[str, Any]
    recordings_sha256: str


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

    >>> conditions_of(StreamSettings(snrs_db=(None, 10.0, 2.5)))
    ['clean', 'snr10', 'snr2.5']
    """
    if settings.preset == MLPERF_TINY:
        return [MLPERF_TINY]
    names = ["clean" if snr_db is None else f"snr{snr_db:g}" for snr_db in settings.snrs_db]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"found the conditions {', '.join(names) or 'none'}, expected one or more, none of them twice")
    if not settings.labels or {SILENCE, UNKNOWN} & set(settings.labels):
        raise UsageError(f"found the keywords {', '.join(settings.labels) or 'none'}, expected words to listen for")
    sizes = (settings.speech_hours, settings.noise_hours, settings.keywords, settings.others)
    if min(sizes) < 0 or max(sizes) == 0 or not 0 <= settings.room_share <= 1:
        raise UsageError("expected hours, keywords or others over 0, none below, and a share of rooms from 0 to 1")
    return names


def parse_snrs(text: str) -> tuple[float | None, ...]:
    """The conditions that a list names. Raises UsageError for anything but `clean` and numbers.

    >>> parse_snrs("clean,20,-5")
    (None, 20.0, -5.0)
    """
    try:
        snrs_db = tuple(None if name.strip() == "clean" else float(name) for name in text.split(","))
    except ValueError as error:
        raise UsageError(f"found the conditions {text!r}, expected clean or numbers of dB, as clean,20,10") from error
    if not all(snr_db is None or abs(snr_db) <= 100 for snr_db in snrs_db):
        raise UsageError(f"found the conditions {text!r}, expected SNRs from -100 to 100 dB")
    return snrs_db


def summary_text(summary: dict[str, Any]) -> str:
    """What was built, in two lines to read."""
    hours, lines = summary["hours"], summary["lines"]
    labels = summary["settings"]["labels"]
    return (
        f"{sum(lines.get(label, 0) for label in labels)} keywords, {sum(summary['other_words'].values())} other words, "
        f"{summary['speakers']} speakers; {len(summary['clips_without_a_word'])} clips without a word left out\n"
        f"{hours['recordings_of_speech']:.2f} h with speech, {hours['running_speech']:.2f} h of it running speech "
        f"without keywords; {hours['recordings_of_noise']:.2f} h of noise"
    )


def _list_material(
    clips: Path, noise: Path | None, rooms: Path | None, speech: Path | None, settings: StreamSettings
) -> Material:
    def wanted(folder: Path | None, is_needed: bool, option: str) -> Path | None:
        if is_needed and folder is None:
            raise UsageError(f"found no {option} FOLDER, expected one for what is to be built; see --help")
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


def _summary(
    folder: Path, material: Material, settings: StreamSettings, manifest: list[Line], clipped: Counter[str]
) -> dict[str, Any]:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.flac"))
    listing = "".join(f"{sha256_of(folder / file)}  {file}\n" for file in files)
    first = conditions_of(settings)[0]
    seconds = {file: sf.info(folder / file).duration for file in files if file.startswith(f"{first}/")}
    said = [line for line in manifest if line["label"] != SILENCE]
    running_s = sum(line["end_s"] - line["start_s"] for line in said if not line["word"])
    heard_in = Counter(speaker for speaker, _ in {(line["speaker"], line["file"]) for line in said})
    return {
        "format": FORMAT,
        "settings": asdict(settings),
        "hours": {
            "recordings_of_speech": round(sum(s for file, s in seconds.items() if "-speech" in file) / 3600, 4),
            "running_speech": round(running_s / 3600, 4),
            "recordings_of_noise": round(sum(s for file, s in seconds.items() if "-noise" in file) / 3600, 4),
        },
        "lines": dict(Counter(line["label"] for line in manifest)),
        "other_words": dict(
            sorted(Counter(ln["word"] for ln in said if ln["label"] == UNKNOWN and ln["word"]).items())
        ),
        "speakers": len(heard_in),
        "speakers_in_several_recordings": sorted(speaker for speaker, count in heard_in.items() if count > 1),
        "sources": {
            name: _source([sound for sound in getattr(material, name) if sound.path in material.used])
            for name in ("clips", "speech", "noises", "rooms")
        },
        "unreadable": material.unreadable,
        "clips_without_a_word": material.wordless,
        "clipped_samples": dict(clipped),
        "recordings": len(files),
        "recordings_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _source(sounds: Sequence[Sound]) -> dict[str, Any]:
    return {
        "files": len(sounds),
        "groups": len({sound.group for sound in sounds}),
        "licences": dict(sorted(Counter(sound.licence or "not stated" for sound in sounds).items())),
    }
