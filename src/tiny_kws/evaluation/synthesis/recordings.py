"""Long recordings with labelled words, built from clips, noises, rooms and running speech; seeded.

Two kinds of recordings of 5 to 10 minutes. Of speech: running speech in stretches of some sentences of one speaker,
and single words, keywords and others, with a pause before and behind each. Of noise: noises one after another, now and
then another over them, no speech. They are written once for each condition, clean or an SNR: the same words and speech
at the same places in the same rooms, and only the level of the noise under them differs, so that conditions can be
compared word by word. Recordings of noise are the same in each.

Keywords and sentences are not repeated, and each speaker is in one recording only, as far as there are enough; noises
are repeated, with other stretches, levels and neighbours. The level of speech is the active one
(`mixing.active_level_db`), drawn by recording and, a little, by item. The SNR of an item, a word or a stretch,
is its active level over the mean power of the noise under it; from item to item the noise's gain in dB goes in a
straight line. Where the noise has a gap, more than 12 dB below its mean, the gap stays, so that what follows it does
not grow out of bounds; there the SNR is higher than stated. Words are where energy says (`mixing.find_word`),
whatever the length of their clips, and keep their place in a room, since responses start with the direct sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...audio import Samples
from ...config import SAMPLE_RATE
from ...data.material import Material, Sound, SpeechDeck, Traits, deal_clips, draw_clips, shuffled
from ...data.mixing import active_level_db, add_at, at_level, faded, faint_noise, room_response
from ...data.spans import find_word, sounding_span
from ...errors import DataError
from ...words import SILENCE, UNKNOWN

RECORDING_S = 450.0  # the length that recordings come near to
LEVEL_DB = (-34.0, -18.0)  # of a recording's speech, active, dB of full scale
ITEM_DB = 3.0  # of an item over or under its recording's level
NOISE_LEVEL_DB = (-50.0, -20.0)  # of each noise in recordings of noise
LEAST_PAUSE_S, MEAN_PAUSE_S, LONGEST_PAUSE_S = 0.3, 0.9, 5.0  # between items; clips have some quiet of their own
SENTENCES = (3, 6)  # in a stretch
SENTENCE_PAUSE_S = (0.1, 0.6)
SENTENCE_RANGE_DB, SENTENCE_MARGIN_S = 35.0, 0.1  # how much of a sentence's own silence is kept
NOISE_S = (8.0, 40.0)  # of one noise at a time, where it lasts so long
SECOND_NOISE_S = 20.0  # mean time from one noise over another to the next
FADE_S, CLIP_FADE_S = 0.05, 0.01
TYPICAL_CLIP_S = 1.0  # of a word, to tell how many recordings there will be
SPEECH_PAUSES = 1.15  # how much longer stretches of speech are with the pauses between them
DEEPEST_GAP_DB = 12.0


@dataclass(frozen=True)
class Line:
    """What a manifest says about something in a recording, except the recording's name."""

    label: str
    start_s: float
    end_s: float
    speaker: str = ""
    word: str = ""
    source: str = ""
    traits: Traits = ()


@dataclass(frozen=True)
class StreamSettings:
    """What is to be built: `labels` are the keywords. A `part` of None takes every group, see `held_out.part_of`."""

    labels: tuple[str, ...]
    seed: int = 0
    preset: str = ""
    """Empty for the recipe of this room, or the name of another one, see `protocols`."""
    snrs_db: tuple[float | None, ...] = (None, 20.0, 10.0, 5.0, 0.0)
    """The conditions; None is clean."""
    speech_hours: float = 1.0
    noise_hours: float = 1.0
    keywords: int = 500
    others: int = 200
    room_share: float = 0.3
    split: str = "validation"
    part: int | None = None
    """The third of the noises' sources and of the rooms."""
    speech_part: int | None = None
    """The third of the speakers of running speech."""
    trust_speech: bool = False
    """Also take sentences without a transcript."""


@dataclass(frozen=True)
class Item:
    """Something said: a clip, or a stretch of sentences.

    `pieces` are a sound, the samples of it to take and the samples of pause behind. `start` and `end`, in samples from
    the beginning of the first piece, are what the manifest says of it.
    """

    label: str
    word: str
    speaker: str
    pieces: tuple[tuple[Sound, int, int, int], ...]
    start: int
    end: int

    @property
    def n_samples(self) -> int:
        """Length of all pieces and pauses."""
        return sum(stop - start + pause for _, start, stop, pause in self.pieces)


@dataclass(frozen=True)
class Recording:
    """A recording's kind, `speech` or `noise`, its lines of the manifest, and its sound in each condition in turn."""

    kind: str
    lines: list[Line]
    sounds: Iterator[Samples]


def plan_recordings(material: Material, settings: StreamSettings) -> list[Callable[[], Recording]]:
    """Functions that make each recording in turn: the contents are drawn at once, the sound when a recording is made.

    Raises DataError if the material is too little.
    """
    rng = generator(settings.seed, "plan")
    recordings = _plan_speech(material, settings, rng)
    in_rooms = set(shuffled(range(len(recordings)), rng)[: round(settings.room_share * len(recordings))])
    plan: list[Callable[[], Recording]] = [
        partial(_render_speech, material, items, settings, i, i in in_rooms) for i, items in enumerate(recordings)
    ]
    noise_s = 3600 * settings.noise_hours
    n_noise = n_recordings(noise_s)
    n_samples = round(noise_s * SAMPLE_RATE / max(n_noise, 1))
    return plan + [partial(_render_noise, material, n_samples, settings, i) for i in range(n_noise)]


def _plan_speech(material: Material, settings: StreamSettings, rng: np.random.Generator) -> list[list[Item]]:
    """The items of every recording of speech, in order."""
    words_s = (TYPICAL_CLIP_S + MEAN_PAUSE_S) * (settings.keywords + settings.others)
    count = n_recordings(3600 * settings.speech_hours * SPEECH_PAUSES + words_s)
    items: list[list[Item]] = [[] for _ in range(count)]
    groups = deal_clips(material.clips, count, rng)
    for i, item in keyword_items(material, groups, settings, rng):
        items[i].append(item)
    others = sorted({clip.text for clip in material.clips} - set(settings.labels))
    for i, item in _clip_items(material, groups, others, UNKNOWN, settings.others, rng):
        items[i].append(item)
    _add_stretches(items, material, settings.speech_hours, rng)
    return [shuffled(found_items, rng) for found_items in items if found_items]


def _add_stretches(items: list[list[Item]], material: Material, hours: float, rng: np.random.Generator) -> None:
    """Distribute stretches of running speech evenly, `hours` of them in all."""
    deck = SpeechDeck(material.speech, rng)
    wanted = 3600 * hours * SAMPLE_RATE
    found = 0
    for i, of_recording in enumerate(items):
        while found < wanted * (i + 1) / len(items):
            stretch = draw_stretch(material, deck, rng)
            if stretch is None:
                raise too_little_speech(found, hours)
            of_recording.append(stretch)
            found += stretch.n_samples
        deck.next_recording()


def keyword_items(
    material: Material, groups: Sequence[Sequence[Sound]], settings: StreamSettings, rng: np.random.Generator
) -> Iterator[tuple[int, Item]]:
    """As many keywords as `settings` ask for, the labels equally often, as (group of its speaker, item).

    Raises DataError if there are too few.
    """
    n_labels = len(settings.labels)
    for i, label in enumerate(settings.labels):
        share = settings.keywords // n_labels + (i < settings.keywords % n_labels)
        yield from _clip_items(material, groups, [label], label, share, rng)


def _clip_items(
    material: Material,
    groups: Sequence[Sequence[Sound]],
    words: Sequence[str],
    label: str,
    count: int,
    rng: np.random.Generator,
) -> Iterator[tuple[int, Item]]:
    found = 0
    for i, clip in draw_clips(groups, words, rng) if count else ():
        audio = material.read(clip)
        span = None if audio is None else find_word(audio)
        if audio is not None and span is not None:
            yield i, Item(label, clip.text, clip.group, ((clip, 0, len(audio), 0),), *span)
            found += 1
        elif audio is not None:
            material.wordless.append(clip.name)
        if found == count:
            break
    if found < count:
        what = repr(label) if label != UNKNOWN else "other words"
        raise DataError(
            f"found {found} clips of {what} in which a word can be heard, expected {count} different ones; ask for "
            "fewer (--keywords, --others) or give more clips"
        )


def draw_stretch(material: Material, deck: SpeechDeck, rng: np.random.Generator) -> Item | None:
    """Some sentences of one speaker, one after another, without the silence around them; None if all were used."""
    margin = round(SENTENCE_MARGIN_S * SAMPLE_RATE)
    pieces: list[tuple[Sound, int, int, int]] = []
    while not pieces:
        sentences = deck.take(int(rng.integers(SENTENCES[0], SENTENCES[1] + 1)))
        if not sentences:
            return None
        for sentence in sentences:
            audio = material.read(sentence)
            span = None if audio is None else sounding_span(audio, SENTENCE_RANGE_DB)
            if audio is not None and span is not None:
                pause = round(rng.uniform(*SENTENCE_PAUSE_S) * SAMPLE_RATE)
                pieces.append((sentence, max(0, span[0] - margin), min(len(audio), span[1] + margin), pause))
    pieces[-1] = (*pieces[-1][:3], 0)
    return Item(UNKNOWN, "", sentences[0].group, tuple(pieces), 0, sum(b - a + pause for _, a, b, pause in pieces))


def too_little_speech(n_samples: float, hours: float) -> DataError:
    """The error if all sentences are used and `hours` were wanted."""
    return DataError(
        f"found {n_samples / SAMPLE_RATE / 3600:.2f} h of running speech without keywords, expected {hours:.2f} h, as "
        "no sentence is repeated; ask for less (--speech-hours) or give more"
    )


def _render_speech(
    material: Material, items: list[Item], settings: StreamSettings, index: int, in_room: bool
) -> Recording:
    rng = generator(settings.seed, "speech", index)
    response = _drawn_room(material, rng) if in_room else None
    at = round(rng.uniform(1.0, 3.0) * SAMPLE_RATE)
    level_db = rng.uniform(*LEVEL_DB)
    placed, sounds = [], []
    for item in items:
        item_db = level_db + rng.uniform(-ITEM_DB, ITEM_DB)
        placed.append((item, at, item_db))
        sounds.append(_render_item(material, item, item_db, response))
        pause_s = LEAST_PAUSE_S + min(rng.exponential(MEAN_PAUSE_S - LEAST_PAUSE_S), LONGEST_PAUSE_S)
        at += item.n_samples + round(pause_s * SAMPLE_RATE)
    track = faint_noise(at + 2 * SAMPLE_RATE, rng)
    for (_, start, _), sound in zip(placed, sounds, strict=True):
        add_at(track, sound, start)

    def mixes() -> Iterator[Samples]:
        bed = None
        for snr_db in settings.snrs_db:
            if snr_db is None:
                yield track
                continue
            if bed is None:
                bed = _level_bed(_noise_bed(material, len(track), generator(settings.seed, "bed", index)), placed)
            yield track + bed * np.float32(10 ** (-snr_db / 20))

    return Recording("speech", [line_of(item, start) for item, start, _ in placed], mixes())


def _drawn_room(material: Material, rng: np.random.Generator) -> Samples:
    while material.rooms:
        room = material.rooms[rng.integers(len(material.rooms))]
        audio = material.read(room)
        if audio is not None and np.any(audio):
            material.used.add(room.path)
            return room_response(audio)
        material.rooms.remove(room)
    raise DataError("found no room response that can be used, expected one; give another folder (--rooms)")


def _render_item(material: Material, item: Item, level_db: float, response: Samples | None) -> Samples:
    """An item's sound at its level, with the room's reverberation after it."""
    dry = dry_sound(material, item)
    if response is None:
        return at_level(dry, level_db)
    wet = np.convolve(dry, response)
    return wet * np.float32(10 ** ((level_db - active_level_db(wet[: len(dry)])) / 20))


def dry_sound(material: Material, item: Item) -> Samples:
    """The pieces of an item and the pauses between as they are recorded, (item.n_samples,)."""
    parts = []
    for sound, start, stop, pause in item.pieces:
        audio = material.read(sound)
        if audio is None or len(audio) < stop:
            raise DataError(f"{sound.path}: changed while the set was made; leave the material alone and try again")
        material.used.add(sound.path)
        parts += [faded(audio[start:stop], CLIP_FADE_S), np.zeros(pause, np.float32)]
    return np.concatenate(parts)


def line_of(item: Item, at: int) -> Line:
    """The manifest's line of an item that begins at sample `at`."""
    return Line(
        label=item.label,
        start_s=round((at + item.start) / SAMPLE_RATE, 5),
        end_s=round((at + item.end) / SAMPLE_RATE, 5),
        speaker=item.speaker,
        word=item.word,
        source=" ".join(sound.name for sound, *_ in item.pieces),
        traits=item.pieces[0][0].traits,
    )


def _level_bed(bed: Samples, placed: Sequence[tuple[Item, int, float]]) -> Samples:
    """`bed` with a gain that gives each item, which has its start and its level beside it, an SNR of 0 dB."""
    times: list[int] = []
    gains_db: list[float] = []
    least = float(np.square(bed, dtype=np.float64).mean()) * 10 ** (-DEEPEST_GAP_DB / 10)
    for item, at, level_db in placed:
        start, stop = at + item.start, at + item.end
        power = float(np.square(bed[start:stop], dtype=np.float64).mean())
        times += [start, stop]
        gains_db += [level_db - 10 * float(np.log10(max(power, least)))] * 2
    gain_db = np.interp(np.arange(len(bed)), times, gains_db).astype(np.float32)
    return bed * np.float32(10) ** (gain_db / np.float32(20))


def _render_noise(material: Material, n_samples: int, settings: StreamSettings, index: int) -> Recording:
    rng = generator(settings.seed, "noise", index)
    track = faint_noise(n_samples, rng) + _noise_layer(material, n_samples, rng, NOISE_LEVEL_DB)
    at = 0
    while True:
        at += round(rng.exponential(SECOND_NOISE_S) * SAMPLE_RATE)
        if at >= n_samples:
            break
        sound = _leveled_noise(material, rng, NOISE_LEVEL_DB)
        add_at(track, sound, at)
        at += len(sound)
    line = Line(SILENCE, 0.0, n_samples / SAMPLE_RATE)
    return Recording("noise", [line], iter([track] * len(settings.snrs_db)))


def _noise_bed(material: Material, n_samples: int, rng: np.random.Generator) -> Samples:
    """Noise with few gaps: two at one level at any time, each followed by others."""
    level_db = (-30.0, -30.0)
    return _noise_layer(material, n_samples, rng, level_db) + _noise_layer(material, n_samples, rng, level_db)


def _noise_layer(
    material: Material, n_samples: int, rng: np.random.Generator, level_db: tuple[float, float]
) -> Samples:
    """Noises one after another, faded over into each other."""
    track = np.zeros(n_samples, np.float32)
    at = 0
    while at < n_samples:
        sound = _leveled_noise(material, rng, level_db)
        add_at(track, sound, at)
        at += len(sound) - min(round(FADE_S * SAMPLE_RATE), len(sound) // 2)
    return track


def _leveled_noise(material: Material, rng: np.random.Generator, level_db: tuple[float, float]) -> Samples:
    """A noise, or a stretch of a long one, at a drawn active level."""
    audio = drawn_noise(material, rng)
    n_samples = round(rng.uniform(*NOISE_S) * SAMPLE_RATE)
    start = int(rng.integers(max(0, len(audio) - n_samples) + 1))
    return faded(at_level(audio[start : start + n_samples], rng.uniform(*level_db)), FADE_S)


def drawn_noise(material: Material, rng: np.random.Generator) -> Samples:
    """A noise as it is recorded, without digital silence around it. Raises DataError if none can be used."""
    while material.noises:
        noise = material.noises[rng.integers(len(material.noises))]
        audio = material.read(noise)
        span = None if audio is None else sounding_span(audio, 60.0)
        if audio is not None and span is not None:
            material.used.add(noise.path)
            return audio[slice(*span)]
        material.noises.remove(noise)
    raise DataError("found no noise that can be used, expected one; give another folder (--noise)")


def n_recordings(seconds: float) -> int:
    """How many recordings of 5 to 10 minutes make up so many seconds, at least one unless there are none."""
    return max(1, round(seconds / RECORDING_S)) if seconds else 0


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A generator for each purpose and recording, so that none depends on what another drew."""
    return np.random.default_rng([seed, index, *purpose.encode()])
