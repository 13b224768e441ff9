"""Streams after the recipes of two published benchmarks, from one's own material: what is taken over and what is not.

`picovoice`, after `mixer.py` of github.com/Picovoice/wake-word-benchmark. Taken over: keywords in drawn order with
spaces between of the stream's length over their number and one; a space is filled with whole utterances, each spoken
with a probability of 0.2 and otherwise silence of the length of one; noises whole and one after another, each with a
peak of 1; each utterance and keyword at 10 dB over the noise under it, both measured as the energy of the loudest of
their frames of 512 samples; the whole with a peak of 1. Not taken over: LibriSpeech, DEMAND and the crowd's recordings
of one wake word; 24 hours (`speech_hours` is the length of the stream); one file (here one for every 450 s or so, each
with speakers of its own); utterances drawn with replacement (here none is spoken twice). There a hit lies between the
start of a keyword's recording and 0.5 s after its end, here the manifest has the word within, as ever.

`mlperf-tiny`, after `build_long_wav_spec.py`, `build_long_wav.py` and `long_wav_spec.json` of the streaming wake-word
benchmark in github.com/mlcommons/tiny. Taken over: 20 minutes, 50 words in the first half only, the times between them
drawn as 3 s and an exponential part of 7 s and then stretched so that the last is at 570 s; clips trimmed where they
rise over 5 % of their peak and set over whatever is there, with an RMS of 0.5 to 0.75; the backgrounds' times and RMS:
nothing at first, eight voices at once, music, one voice, one voice under music, seven voices at once; the whole with a
peak of 1. Not taken over: "marvin" and MUSAN: words are the keywords, noise stands for music, and a voice is several
speakers in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ...audio import Samples
from ...config import SAMPLE_RATE
from ...data.material import Material, SpeechDeck, deal_clips, shuffled
from ...data.mixing import add_at
from ...errors import DataError, UsageError
from ...words import UNKNOWN
from .recordings import (
    Item,
    Line,
    Recording,
    StreamSettings,
    draw_stretch,
    drawn_noise,
    dry_sound,
    generator,
    keyword_items,
    line_of,
    n_recordings,
    too_little_speech,
)

Placed = list[tuple[Item, int]]
"""Items, each with the sample that it begins at."""
Voice = tuple[Placed, int, float]
"""An utterance, the sample where it ends, and its RMS."""
PICOVOICE = "picovoice"
MLPERF_TINY = "mlperf-tiny"
SPOKEN_SHARE = 0.2
ENERGY_FRAME = 512
LEAST_ENERGY = ENERGY_FRAME * 1e-6  # of noise: -60 dB of full scale, or a gap in it would leave no word
STREAM_S = 1200
LAST_WORD_S = 0.475 * STREAM_S
LEAST_SPACE_S, MEAN_FURTHER_S = 3.0, 7.0
TRIM = 0.05
WORD_RMS = (0.5, 0.75)
VOICES = ((100, 300, 0.05, 8), (600, 900, 0.5, 1), (900, 1200, 0.1, 7))
"""Start and end in seconds, RMS of each, how many at once."""
MUSIC = ((300, 450, 0.5), (450, 600, 0.5), (750, 900, 0.5))
"""Start and end in seconds, RMS."""
VOICE_HOURS = sum((stop - start) * count for start, stop, _, count in VOICES) / 3600
MOST_WORDS = 150  # more would lie over each other


def preset_settings(preset: str, labels: tuple[str, ...]) -> StreamSettings:
    """The settings of a recipe for the keywords `labels`, of "" this project's own recipe.

    Raises UsageError for an unknown name.
    """
    if preset not in ("", PICOVOICE, MLPERF_TINY):
        raise UsageError(f"found the preset {preset!r}, expected {PICOVOICE} or {MLPERF_TINY}")
    if not preset:
        return StreamSettings(labels)
    published = StreamSettings(labels, preset=preset, noise_hours=0.0, others=0, room_share=0.0)
    if preset == PICOVOICE:
        return replace(published, snrs_db=(10.0,))
    return replace(published, snrs_db=(), speech_hours=VOICE_HOURS, keywords=50)


def plan_preset(material: Material, settings: StreamSettings) -> list[Callable[[], Recording]]:
    """What makes each recording of `settings.preset` in turn.

    Raises UsageError for settings that the recipe does not have, DataError if the material is too little.
    """
    published = preset_settings(settings.preset, settings.labels)
    fixed = ["noise_hours", "others", "room_share"]
    fixed += ["speech_hours", "snrs_db"] if settings.preset == MLPERF_TINY else []
    changed = [name for name in fixed if getattr(settings, name) != getattr(published, name)]
    if changed:
        raise UsageError(f"the preset {settings.preset} has its own {', '.join(changed)}; leave that out")
    rng = generator(settings.seed, settings.preset)
    if settings.preset == MLPERF_TINY:
        return [_plan_mlperf_tiny(material, settings, rng)]
    return _plan_picovoice(material, settings, rng)


def _plan_picovoice(
    material: Material, settings: StreamSettings, rng: np.random.Generator
) -> list[Callable[[], Recording]]:
    if None in settings.snrs_db:
        raise UsageError(f"the preset {PICOVOICE} is never clean, expected numbers of dB for --snr")
    length = 3600 * settings.speech_hours * SAMPLE_RATE
    count = n_recordings(3600 * settings.speech_hours)
    keywords: list[list[Item]] = [[] for _ in range(count)]
    for i, item in keyword_items(material, deal_clips(material.clips, count, rng), settings, rng):
        keywords[i].append(item)
    deck = SpeechDeck(material.speech, rng)
    plan: list[Callable[[], Recording]] = []
    for i, words in enumerate(keywords):
        space = round(length / count / (len(words) + 1))
        placed, at = _background(material, deck, 0, space, rng)
        for word in shuffled(words, rng):
            placed.append((word, at))
            background, at = _background(material, deck, at + word.n_samples, space, rng)
            placed += background
        plan.append(partial(_render_picovoice, material, placed, at, settings, i))
        deck.next_recording()
    return plan


def _background(
    material: Material, deck: SpeechDeck, at: int, space: int, rng: np.random.Generator
) -> tuple[Placed, int]:
    """Utterances, or silence of their length, from sample `at` on, and where they end: when `space` is filled."""
    placed: Placed = []
    end = at + space
    while at < end:
        spoken = rng.random() < SPOKEN_SHARE
        sentences = deck.take(1) if spoken else [material.speech[rng.integers(len(material.speech))]]
        if not sentences:
            raise DataError(
                f"found {len(material.speech)} sentences without keywords, too few for the preset {PICOVOICE}, which "
                "speaks a fifth of the time; ask for less (--speech-hours) or give more"
            )
        audio = material.read(sentences[0])
        if audio is None:
            material.speech.remove(sentences[0])
            continue
        if spoken:
            sentence = sentences[0]
            placed.append((Item(UNKNOWN, "", sentence.group, ((sentence, 0, len(audio), 0),), 0, len(audio)), at))
        at += len(audio)
    return placed, at


def _render_picovoice(
    material: Material, placed: Placed, n_samples: int, settings: StreamSettings, index: int
) -> Recording:
    noise = _noises(material, n_samples, generator(settings.seed, "picovoice noise", index))
    speech = np.zeros(n_samples, np.float32)
    for item, at in placed:
        sound = dry_sound(material, item)
        under = max(_peak_energy(noise[at : at + len(sound)]), LEAST_ENERGY)
        speech[at : at + len(sound)] = sound * np.float32(np.sqrt(under / max(_peak_energy(sound), 1e-20)))

    def mixes() -> Iterator[Samples]:
        for snr_db in settings.snrs_db:
            yield _with_peak(noise + speech * np.float32(10 ** ((snr_db or 0.0) / 20)))

    return Recording("speech", [line_of(item, at) for item, at in placed], mixes())


def _plan_mlperf_tiny(
    material: Material, settings: StreamSettings, rng: np.random.Generator
) -> Callable[[], Recording]:
    if not 0 < settings.keywords <= MOST_WORDS:
        raise UsageError(f"found {settings.keywords} keywords, expected 1 to {MOST_WORDS} for {MLPERF_TINY}")
    words = [item for _, item in keyword_items(material, [material.clips], settings, rng)]
    deck = SpeechDeck(material.speech, rng)
    voices: list[Voice] = []
    found = 0
    for start, stop, rms, count in VOICES:
        for _ in range(count):
            at, placed = start * SAMPLE_RATE, []
            while at < stop * SAMPLE_RATE:
                stretch = draw_stretch(material, deck, rng)
                if stretch is None:
                    raise too_little_speech(found, VOICE_HOURS)
                placed.append((stretch, at))
                at += stretch.n_samples
                found += stretch.n_samples
            voices.append((placed, stop * SAMPLE_RATE, rms))
    return partial(_render_mlperf_tiny, material, shuffled(words, rng), voices, rng)


def _render_mlperf_tiny(
    material: Material, words: Sequence[Item], voices: Sequence[Voice], rng: np.random.Generator
) -> Recording:
    track = np.zeros(STREAM_S * SAMPLE_RATE, np.float32)
    lines: list[Line] = []
    for placed, stop, rms in voices:
        start = placed[0][1]
        voice = np.concatenate([dry_sound(material, item) for item, _ in placed])[: stop - start]
        add_at(track, _with_rms(voice, rms), start)
        lines += [line_of(replace(item, end=min(item.end, stop - at)), at) for item, at in placed]
    for start_s, stop_s, rms in MUSIC:
        noise = _noises(material, (stop_s - start_s) * SAMPLE_RATE, rng)
        add_at(track, _with_rms(noise, rms), start_s * SAMPLE_RATE)
    times = np.cumsum(LEAST_SPACE_S + rng.exponential(MEAN_FURTHER_S, len(words)))
    for word, time_s in zip(words, times * LAST_WORD_S / times[-1], strict=True):
        sound = dry_sound(material, word)
        loud = np.flatnonzero(sound > TRIM * sound.max())
        trimmed = sound[loud[0] : loud[-1] + 1]
        at = round(time_s * SAMPLE_RATE)
        add_at(track, _with_rms(trimmed, rng.uniform(*WORD_RMS)), at)
        lines.append(line_of(replace(word, start=0, end=len(trimmed)), at))
    return Recording("speech", sorted(lines, key=lambda line: line.start_s), iter([_with_peak(track)]))


def _noises(material: Material, n_samples: int, rng: np.random.Generator) -> Samples:
    """Whole noises one after another, each with a peak of 1, (n_samples,)."""
    parts: list[Samples] = []
    while sum(map(len, parts)) < n_samples:
        parts.append(_with_peak(drawn_noise(material, rng)))
    return np.concatenate(parts)[:n_samples]


def _peak_energy(audio: Samples) -> float:
    """Energy of the loudest of the frames of 512 samples, or of all if there is none."""
    n_frames = len(audio) // ENERGY_FRAME
    frames = audio[: n_frames * ENERGY_FRAME].reshape(-1, ENERGY_FRAME) if n_frames else audio[None]
    return float(np.square(frames, dtype=np.float64).sum(1).max())


def _with_peak(audio: Samples) -> Samples:
    return audio / max(float(np.abs(audio).max()), 1e-6)


def _with_rms(audio: Samples, rms: float) -> Samples:
    return audio * np.float32(rms / max(float(audio.std()), 1e-6))
