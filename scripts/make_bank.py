"""Make the bank of own words from a trained trunk and running speech; see docs/own-words.md and runs/trunk.sh.

    python scripts/make_bank.py TRUNK.pt DATA OUT.bank

DATA holds the folders of SOURCES. Only speakers of the parts named there go in (see tiny_kws.data.held_out); the others
are kept to measure with.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.held_out import part_of
from tiny_kws.enrolment.bank import ADULTS, CHILDREN, LANGUAGES, Bank, Origin, Stretch, Trunk, write_bank
from tiny_kws.export.onnx_models import trunk_graph
from tiny_kws.training.running_speech import read_free
from tiny_kws.training.trunk import FEATURES, read_trunk, trunk_facts

GAP = np.zeros(SAMPLE_RATE // 4, np.float32)
"""Between two recordings."""
TOGETHER = 40
"""Speakers of one recording each who make one stretch."""
NOISE_S, SPEECH_S, PIECE_S = 300, 180, 6
LEAST_PER_HOUR = 0.5
HALF = 2000
"""Stretches are heard in chunks of so many hops to find the vectors' means by."""


@dataclass(frozen=True)
class Source:
    """A folder with a manifest.csv: who speaks in it, which speakers go in."""

    folder: str
    kind: str
    name: str
    licence: str
    attribution: str
    parts: tuple[int, ...] = (1, 2)


SOURCES = (
    Source("speech_libri", ADULTS, "LibriSpeech", "CC BY 4.0", "Panayotov et al. 2015, readings from LibriVox"),
    Source("speech_cv", ADULTS, "Common Voice 1", "CC0 1.0", "Mozilla Common Voice", (2,)),
    Source("speech", CHILDREN, "speechocean762", "Apache-2.0", "Zhang et al. 2021 (arXiv:2104.01378)"),
    Source("speech_world", LANGUAGES, "Common Voice 6.1", "CC0 1.0", "Mozilla Common Voice, 59 languages"),
)


def grouped(source: Source, data: Path, held_out: bool = False) -> tuple[dict[str, list[Path]], list[str]]:
    """The recordings of speakers that go in, or with `held_out` of those that do not, by stretch; their sentences."""
    folder = data / source.folder
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, list[Path]] = defaultdict(list)
    texts = []
    recordings = Counter(row["speaker"] for row in rows)
    single = [name for name, count in recordings.items() if count < 5]
    number = {name: i // TOGETHER for i, name in enumerate(sorted(single))}
    for row in rows:
        speaker = row["speaker"]
        if (part_of(speaker) in source.parts) != held_out:
            key = f"{row.get('language', '')} {number[speaker]}" if speaker in number else speaker
            groups[key if source.kind != LANGUAGES else row["language"]].append(folder / row["file"])
            texts.append(row["label"])
    return dict(sorted(groups.items())), texts


def sound_of(files: list[Path]) -> Samples:
    """Recordings one after another."""
    return np.concatenate([part for file in files for part in (read_mono(file), GAP)])


def centre(trunk_path: Path, sounds: Iterator[Samples]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each number of the vectors."""
    network, _, log_mel = read_trunk(trunk_path)
    vectors = []
    with torch.inference_mode():
        for sound in sounds:
            step = FEATURES.hop * network.frames_per_answer * network.config.pooled_frames
            whole = torch.from_numpy(sound[: min(len(sound), 60 * SAMPLE_RATE) // step * step])[None]
            vectors.append(network.answer_all(log_mel(whole))[0].numpy())
    joined = np.concatenate(vectors)
    return joined.mean(0), joined.std(0)


def main() -> None:
    """Read the command line, make the bank, say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trunk", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    jobs = []
    origins, words, hours = [], Counter[str](), 0.0
    for source in SOURCES:
        groups, texts = grouped(source, asked.data)
        jobs += [(source.kind, files) for files in groups.values()]
        if source.kind != LANGUAGES:
            words.update(word for text in texts for word in text.lower().split())
    network, stats, _ = read_trunk(asked.trunk)
    mean, deviation = centre(asked.trunk, (sound_of(files[:12]) for _, files in jobs[::3]))
    with torch.no_grad():
        network.fc.weight.div_(torch.from_numpy(deviation)[:, None])
        network.fc.bias.sub_(torch.from_numpy(mean)).div_(torch.from_numpy(deviation))
    graph = trunk_graph(network, FEATURES, stats).SerializeToString()
    facts = trunk_facts(network, stats)
    empty = np.zeros((0, network.config.n_classes), np.float32)
    trunk = Trunk(Bank(graph, empty, (), (), (), {}, (), facts))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda job: trunk.vectors(sound_of(job[1])), jobs))
    stretches, at = [], 0
    seconds_of: Counter[str] = Counter()
    for (kind, files), vectors in zip(jobs, found, strict=True):
        stretches.append(Stretch(kind, at, at + len(vectors)))
        at += len(vectors)
        seconds_of[files[0].parent.name] += len(vectors) * trunk.hop / SAMPLE_RATE
        hours += len(vectors) * trunk.hop / SAMPLE_RATE / 3600 if kind != LANGUAGES else 0
    origins = [Origin(s.name, s.licence, s.attribution, round(seconds_of[s.folder] / 3600, 2)) for s in SOURCES]
    rng = np.random.default_rng(0)
    noises = pieces([noise / np.float32(32768) for noise in read_free(asked.data / "noise")], NOISE_S, rng)
    origins.append(
        Origin(
            "ESC-10 and others", "CC0, CC BY", "K. J. Piczak 2015; by file in THIRD_PARTY.md", round(NOISE_S / 3600, 2)
        )
    )
    voices = [files[int(rng.integers(len(files)))] for kind, files in jobs if kind == ADULTS]
    speech = pieces([read_mono(file) for file in voices], SPEECH_S, rng)
    per_hour = {word: round(n / hours, 2) for word, n in sorted(words.items()) if n / hours >= LEAST_PER_HOUR}
    bank = Bank(
        graph, np.concatenate(found), tuple(stretches), tuple(noises), tuple(speech), per_hour, tuple(origins), facts
    )
    write_bank(asked.out, bank)
    print(f"{asked.out}: {asked.out.stat().st_size:,} bytes, {bank.hours():.1f} hours, {len(stretches)} stretches")


def pieces(sounds: list[Samples], seconds: float, rng: np.random.Generator) -> list[Samples]:
    """Stretches of a few seconds of `sounds` in drawn order, `seconds` together."""
    found, left = [], seconds * SAMPLE_RATE
    length = PIECE_S * SAMPLE_RATE
    for i in rng.permutation(len(sounds)):
        sound = sounds[i]
        start = int(rng.integers(0, max(1, len(sound) - length)))
        found.append(sound[start : start + length].astype(np.float32))
        left -= len(found[-1])
        if left <= 0:
            break
    return found


if __name__ == "__main__":
    main()
