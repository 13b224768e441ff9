"""Measures a model on clips in noise and in rooms, and on sound without keywords, none of which it was trained on.

Every clip has its noise, the place in it and its room by the SHA-256 of a seed and the clip's name alone, so that all
models hear the same and can be compared clip by clip.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..audio import Samples
from ..config import CLIP_SAMPLES, SAMPLE_RATE
from ..data.material import Material, Sound, list_noises, list_rooms, list_speech
from ..data.mixing import active_level_db, at_level, room_response
from ..data.spans import FRAME, find_word, sounding_span
from ..errors import DataError
from ..words import SILENCE, is_word
from .clips import ClipSet, Predictor, accuracy_of, batched, predict_all, rounded, share_interval
from .metrics import CalledKeywords, CalledShare, KeywordFree, Robustness, Thresholds
from .rates import miss_interval

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Thing = TypeVar("Thing")

CLEAN, ROOM = "clean", "room"
HELD_OUT = 0
"""The third of noises, rooms and speakers that is not used for training, see `held_out.part_of`."""

TYPICAL_WORD_DB = -21.0
"""Active level of the median word of the validation split, dB of full scale; sets the noise in clips of silence."""

LEAST_DB = -12.0  # of a noise under a word, below its mean: gaps are not made loud
SOUNDING_DB = 60.0  # a noise begins and ends where it is at most so far below its loudest
HOP = SAMPLE_RATE // 10  # from window to window of sound without keywords
THRESHOLDS = (0.5, 0.8, 0.9)


class Noise:
    """A noise to mix under clips of `window` samples: (samples,), without silence at its ends."""

    def __init__(self, audio: Samples, window: int = CLIP_SAMPLES) -> None:
        if len(audio) < window:
            audio = np.pad(audio, window)
        self.window = window
        self.audio = audio[: len(audio) // FRAME * FRAME]
        power = np.square(self.audio, dtype=np.float64).reshape(-1, FRAME).mean(1)
        self._sums = np.concatenate([[0.0], np.cumsum(power)])
        self._least = power[power > 0].mean() * 10 ** (LEAST_DB / 10)

    def under(self, span: tuple[int, int], level_db: float, place: float) -> Samples:
        """A stretch of it, (window,), with a mean power of `level_db` (dB of full scale) over `span` (samples).

        Of all the stretches, 10 ms apart, in which it is there at most 12 dB fainter than on average, it is the one at
        `place`, from 0 to under 1. If there is none, it is the loudest, and fainter than asked for.
        """
        first, last = span[0] // FRAME, -(-span[1] // FRAME)
        n_starts = len(self._sums) + -self.window // FRAME
        power = (self._sums[last : last + n_starts] - self._sums[first : first + n_starts]) / (last - first)
        loud = np.flatnonzero(power >= self._least)
        start = int(loud[int(place * len(loud))] if len(loud) else power.argmax())
        gain_db = level_db - 10 * np.log10(max(power[start], self._least))
        return self.audio[start * FRAME :][: self.window] * np.float32(10 ** (gain_db / 20))


@dataclass(frozen=True)
class Surroundings:
    """Noises by their kind and responses by their room, read; `sha256` of either, by name, where there are any."""

    noises: dict[str, list[Noise]]
    rooms: dict[str, list[Samples]]
    sha256: dict[str, str]


def list_material(
    noise: Path | None, rooms: Path | None, speech: Path | None, labels: Sequence[str], held_out: bool
) -> Material:
    """The material to measure in: noises, room responses, and sentences without the keywords of `labels`.

    With `held_out`, only the third of each that is not used for training. Raises DataError if a folder has none of it.
    """
    part = HELD_OUT if held_out else None
    keywords = [label for label in labels if is_word(label)]
    return Material(
        noises=list_noises(noise, part) if noise else [],
        rooms=list_rooms(rooms, part) if rooms else [],
        speech=list_speech(speech, keywords, part, trusted=False) if speech else [],
    )


def read_surroundings(material: Material, window: int = CLIP_SAMPLES) -> Surroundings:
    """Read noises and rooms for clips of `window` samples; what cannot be used stands under `unreadable` of `material`.

    Raises DataError if noises or rooms were listed and none can be used.
    """
    noises, noises_sha256 = _read(material, material.noises, lambda sound: sound.text, partial(_noise, window))
    rooms, rooms_sha256 = _read(material, material.rooms, lambda sound: sound.group, _response)
    sums = {"noises": noises_sha256, "rooms": rooms_sha256}
    return Surroundings(noises, rooms, {name: value for name, value in sums.items() if value})


def _read(
    material: Material,
    sounds: Sequence[Sound],
    kind_of: Callable[[Sound], str],
    made_of: Callable[[Samples], Thing | None],
) -> tuple[dict[str, list[Thing]], str]:
    """What is made of sounds, by kind, and a checksum over it; empty if there are no sounds."""
    found: dict[str, list[Thing]] = {}
    digest = hashlib.sha256()
    for sound in sounds:
        audio = material.read(sound)
        if audio is None:
            continue
        thing = made_of(audio)
        if thing is None:
            material.unreadable.append(f"{sound.path}: holds nothing but silence, expected sound; it is left out")
            continue
        found.setdefault(kind_of(sound), []).append(thing)
        digest.update(f"{kind_of(sound)}\n{sound.name}\n".encode() + audio.tobytes())
    if sounds and not found:
        raise DataError(f"{material.unreadable[-1]} (none of {len(sounds)} files can be used)")
    return found, digest.hexdigest() if found else ""


def _noise(window: int, audio: Samples) -> Noise | None:
    span = sounding_span(audio, SOUNDING_DB)
    return None if span is None else Noise(audio[slice(*span)], window)


def _response(audio: Samples) -> Samples | None:
    return room_response(audio) if np.any(audio) else None


def drawn(things: Mapping[str, Sequence[Thing]], name: str, seed: int) -> tuple[str, int, float]:
    """Kind, number among those of that kind, and a place from 0 to under 1 for the clip `name`.

    All kinds are equally likely, and then all things of a kind.

    >>> drawn({"rain": [1, 2], "wind": [3]}, "yes/0a7c2a8d_nohash_0.wav", 0)[:2]
    ('wind', 0)
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    kind, number, place = (int.from_bytes(digest[i : i + 6], "big") for i in (0, 6, 12))
    kinds = sorted(things)
    chosen = kinds[kind % len(kinds)]
    return chosen, number % len(things[chosen]), place / 2**48


def in_noise(clips: ClipSet, noises: Mapping[str, Sequence[Noise]], snr_db: float, seed: int) -> ClipSet:
    """The same clips, each with its noise at an SNR: active level of the clip to mean noise while the word is said.

    If no word is found, the noise is measured over the whole clip. Clips of silence get noise at the level that it
    would have under a typical word. Noise in the clip itself does not count. The sum is clipped to [-1, 1].
    """

    def batches() -> Iterator[Array]:
        for numbers, batch in _numbered(clips):
            rows = []
            for i, audio in zip(numbers, batch, strict=True):
                kind, number, place = drawn(noises, clips.names[i], seed)
                silent = clips.labels[i] == SILENCE
                span = None if silent else find_word(audio)
                level_db = TYPICAL_WORD_DB if silent else active_level_db(audio)
                bed = noises[kind][number].under(span or (0, len(audio)), level_db - snr_db, place)
                rows.append(np.clip(audio + bed, -1.0, 1.0))
            yield np.stack(rows)

    return replace(clips, batches=batches)


def in_rooms(clips: ClipSet, rooms: Mapping[str, Sequence[Samples]], seed: int) -> ClipSet:
    """The same clips, each in its room: nothing is delayed, and the active level stays."""

    def batches() -> Iterator[Array]:
        for numbers, batch in _numbered(clips):
            rows = []
            for i, dry in zip(numbers, batch, strict=True):
                room, number, _ = drawn(rooms, clips.names[i], seed)
                wet = np.convolve(dry, rooms[room][number])[: len(dry)]
                rows.append(np.clip(at_level(wet, active_level_db(dry)), -1.0, 1.0))
            yield np.stack(rows)

    return replace(clips, batches=batches)


def _numbered(clips: ClipSet) -> Iterator[tuple[range, Array]]:
    done = 0
    for batch in clips.batches():
        yield range(done, done + len(batch)), batch
        done += len(batch)


def surrounded(clips: ClipSet, surroundings: Surroundings, snrs_db: Sequence[float], seed: int) -> dict[str, ClipSet]:
    """The clips in each condition, by its name: in noise at each SNR, and in rooms, as far as there are any."""
    found = {}
    if surroundings.noises:
        found = {f"snr{snr_db:g}": in_noise(clips, surroundings.noises, snr_db, seed) for snr_db in snrs_db}
    if surroundings.rooms:
        found[ROOM] = in_rooms(clips, surroundings.rooms, seed)
    return found


def evaluate_robustness(
    predictor: Predictor,
    clips: ClipSet,
    clean: Array,
    surroundings: Surroundings,
    snrs_db: Sequence[float],
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> tuple[Robustness, dict[str, Array]]:
    """Accuracy by SNR, kind of noise and room; and the probabilities (clips, labels) by condition.

    `clean` are the probabilities on the clips as they are. Every clip is classified in each condition, with the same
    noise at each SNR. `progress(done, total)` counts clips.
    """
    conditions = surrounded(clips, surroundings, snrs_db, seed)
    n_clips = len(clips.labels)
    probabilities = {CLEAN: clean}
    for i, (name, condition) in enumerate(conditions.items()):
        count = _counting(progress, i * n_clips, len(conditions) * n_clips)
        probabilities[name] = predict_all(predictor, condition, count)
    targets = np.array([predictor.labels.index(label) for label in clips.labels])
    right = {name: rows.argmax(1) == targets for name, rows in probabilities.items()}
    noisy = {name: rows for name, rows in right.items() if name not in (CLEAN, ROOM)}
    figures = Robustness(
        seed=seed,
        material_sha256=surroundings.sha256,
        noises=sum(map(len, surroundings.noises.values())),
        room_responses=sum(map(len, surroundings.rooms.values())),
        conditions={name: accuracy_of(rows) for name, rows in right.items()},
        by_noise={
            kind: {name: accuracy_of(rows[drawn_here]) for name, rows in noisy.items()}
            for kind, drawn_here in _by_kind(surroundings.noises, clips.names, seed).items()
        },
        by_room={
            room: accuracy_of(right[ROOM][drawn_here])
            for room, drawn_here in _by_kind(surroundings.rooms, clips.names, seed).items()
        },
    )
    return figures, probabilities


def _by_kind(things: Mapping[str, Sequence[Thing]], names: Sequence[str], seed: int) -> dict[str, Array]:
    """For each kind that is drawn, which clips have it, (clips,) of truth values; nothing if there are no things."""
    kinds = np.array([drawn(things, name, seed)[0] for name in names if things])
    return {str(kind): kinds == kind for kind in np.unique(kinds)}


def _counting(progress: Progress, before: int, total: int) -> Progress:
    """Reports the progress of a part of a job, of which `before` of `total` is done already."""
    return lambda done, _: progress(before + done, total)


def evaluate_keyword_free(
    predictor: Predictor, material: Material, progress: Progress = lambda done, total: None
) -> KeywordFree:
    """How much of the `speech` and the `noise` of `material` is taken for a keyword, as in `called_keywords`."""
    speech, noises = material.speech, material.noises
    total = len(speech) + len(noises)
    after_speech = _counting(progress, len(speech), total)
    return KeywordFree(
        speech=called_keywords(predictor, material, speech, _counting(progress, 0, total)) if speech else None,
        noise=called_keywords(predictor, material, noises, after_speech) if noises else None,
    )


@dataclass(frozen=True)
class _Windows:
    """The windows of a recording of `group`: how many, and how many of them are taken for a keyword, by limit."""

    group: str
    count: int
    called: dict[str, int]


def called_keywords(
    predictor: Predictor, material: Material, sounds: Sequence[Sound], progress: Progress = lambda done, total: None
) -> CalledKeywords:
    """How many windows of sound without keywords, one every 100 ms, are taken for a keyword.

    A window, as long as the model's clips, counts at a threshold if its likeliest label is a keyword of a probability
    above it; `detector` is what the model carries for listening. Windows lie within a recording whole, shorter ones are
    counted. 95 % intervals are by bootstrap over the groups of `sounds` (speakers, sources of noise), or if no window
    counts Wilson's over as many windows as do not overlap; None with fewer than two groups. Raises DataError if no
    recording is long enough.
    """
    own = predictor.detector
    limits = {f"{threshold:g}": np.full(len(predictor.labels), threshold) for threshold in THRESHOLDS}
    limits["detector"] = np.array([own.thresholds.get(label, own.threshold) for label in predictor.labels])
    units: list[_Windows] = []
    too_short = 0
    for done, sound in enumerate(sounds, 1):
        audio = material.read(sound)
        if audio is not None and len(audio) < predictor.window:
            too_short += 1
        elif audio is not None:
            windows = np.lib.stride_tricks.sliding_window_view(audio, predictor.window)[::HOP]
            rows = np.concatenate([predictor.predict(batch) for batch in batched(windows)])
            units.append(_Windows(sound.group, len(rows), _called(rows, predictor.labels, limits)))
        progress(done, len(sounds))
    if not units:
        window_s = predictor.window / SAMPLE_RATE
        raise DataError(
            f"{sounds[0].path}: none of {len(sounds)} recordings holds a whole window of {window_s:g} s, expected "
            "longer ones"
        )
    return CalledKeywords(
        recordings=len(units),
        too_short=too_short,
        groups=len({unit.group for unit in units}),
        windows=sum(unit.count for unit in units),
        detector=Thresholds(own.threshold, dict(own.thresholds)),
        called_keyword={name: _share(units, name, predictor.window) for name in limits},
    )


def _called(rows: Array, labels: Sequence[str], limits: Mapping[str, Array]) -> dict[str, int]:
    """Rows of probabilities (windows, labels) whose likeliest label is a keyword above its limit, by set of limits."""
    best, top = rows.argmax(1), rows.max(1)
    named_a_word = np.array([is_word(label) for label in labels])[best]
    return {name: int((named_a_word & (top > limit[best])).sum()) for name, limit in limits.items()}


def _share(units: Sequence[_Windows], limit: str, window: int) -> CalledShare:
    total = sum(unit.count for unit in units)
    called = sum(unit.called[limit] for unit in units)
    interval = miss_interval([(unit.group, unit.count, unit.called[limit]) for unit in units])
    if interval and called == 0:  # windows overlap: no more is known than by those that do not
        interval = share_interval(0, max(1, total * HOP // window))
    return CalledShare(
        called, rounded(called / total), None if interval is None else (rounded(interval[0]), rounded(interval[1]))
    )
