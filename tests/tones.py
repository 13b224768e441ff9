"""Prepared data in which every class is a tone of its own, so that what composed sound holds can be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE, FeatureConfig
from tiny_kws.data.manifest import Excerpt, Manifest, Missing
from tiny_kws.data.prepared import EXTRA, NO_SPAN, Clip, PreparedData, material_file, to_float
from tiny_kws.data.spans import find_word
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.training.features import LogMel, normalize
from tiny_kws.training_config import PrepareConfig
from tiny_kws.words import UNKNOWN, Vocabulary

BEGIN, END = 4000, 8000
"""Of the tone in each clip, in samples."""

LEVEL = 0.2
OTHERS_HZ = 400


PLAIN_SOUND: dict[str, Any] = {
    "speeds": (1.0, 1.0),
    "fluent_speeds": (1.0, 1.0),
    "level_db": (0.0, 0.0),
    "room_share": 0.0,
    "made_rooms": 4,
    "clean_share": 1.0,
    "spliced_share": 0.0,
    "noise_speeds": (1.0,),
    "babble_share": 0.0,
    "warp": 0.0,
    "colour": 0.0,
}
"""Of a recipe: words as they were recorded."""


def hz_of(label: int) -> int:
    """The tone of a class."""
    return OTHERS_HZ if label == LABELS.index(UNKNOWN) else 1000 + 200 * label


def tone(label: int, window: int = CLIP_SAMPLES) -> npt.NDArray[np.int16]:
    time_s = np.arange(window) / SAMPLE_RATE
    sound = LEVEL * np.sin(2 * np.pi * hz_of(label) * time_s)
    sound[:BEGIN] = sound[END:] = 0
    return np.rint(32768 * sound).astype(np.int16)


NO_SPEECH = np.zeros(0, np.int16)


def write_data(
    folder: Path, labels: list[str], speech: npt.NDArray[np.int16] = NO_SPEECH, window: int = CLIP_SAMPLES
) -> PreparedData:
    """Prepared data of one tone for each of `labels`, with white noise, a noise of a second and a measured room."""
    rng = np.random.default_rng(0)
    clips = [
        Clip("training" if i % 2 else EXTRA, label, f"word {i % 3}" if label == UNKNOWN else label, "", f"{i}")
        for i, label in enumerate(labels)
    ]
    bank = np.stack([tone(LABELS.index(label), window) for label in labels])
    noise, short = (np.rint(3000 * rng.standard_normal(n)).astype(np.int16) for n in (50_000, 16_000))
    response = 20_000 * np.exp(-np.arange(4000) / 400) * rng.standard_normal(4000)
    response[:51] = [*[0.0] * 50, 32_000]
    room = np.rint(response).clip(-32_768, 32_767).astype(np.int16)
    material = {"noise": short, "rooms": room, "speech": speech}
    for kind, pcm in material.items():
        np.save(folder / material_file(kind), pcm)
    excerpts = {kind: [Excerpt(kind, kind, len(pcm))] if len(pcm) else [] for kind, pcm in material.items()}
    spans = np.array([find_word(to_float(clip)) or NO_SPAN for clip in bank], np.int32)
    return PreparedData(folder, bank, noise, clips, spans, Vocabulary(LABELS), _manifest(window, excerpts))


def _manifest(window: int, excerpts: Mapping[str, Sequence[Excerpt]]) -> Manifest:
    """A manifest that says nothing but the labels, the window and what other sources bring."""
    return Manifest(
        source="",
        licence="",
        folder="",
        labels=LABELS,
        window=window,
        prepare=PrepareConfig(),
        division="",
        recordings={},
        missing=Missing(),
        notes=(),
        unreadable=(),
        clips={},
        unknown_words={},
        speakers={},
        noise_seconds={},
        noise_stretches={},
        clips_sha256={},
        sources=(),
        material=excerpts,
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def strength(audio: Tensor, label: int) -> Tensor:
    """How often the tone of a class is in streams (batch, samples): 1 for one clip of it."""
    time_s = torch.arange(audio.shape[1], dtype=torch.float64) / SAMPLE_RATE
    wave = 2 * torch.pi * hz_of(label) * time_s
    energy = (audio.double() @ torch.stack([wave.cos(), wave.sin()], 1)).square().sum(1)
    return energy / (LEVEL * (END - BEGIN) / 2) ** 2


def rms_db(audio: Tensor) -> Tensor:
    """Level of each row, dB of full scale."""
    return 10 * torch.log10(audio.double().square().mean(1))


def log_mels(audio: Tensor) -> Tensor:
    """Normalised features of a network that streams."""
    with torch.no_grad():
        return normalize(LogMel(FeatureConfig(centered=False))(audio), {"mean": -13.8, "std": 5.0})
