"""Make the bank of own words from a trained trunk and running speech; see docs/own-words.md and runs/trunk.sh.

    python scripts/make_bank.py TRUNK.pt DATA OUT.bank

DATA holds the folders of SOURCES. Only speakers of the parts named there go in (see tiny_kws.data.held_out); the others
are kept to measure with.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.held_out import part_of
from tiny_kws.data.spans import FRAME
from tiny_kws.enrolment.bank import (
    CHILDREN,
    HOMES,
    LANGUAGES,
    READERS,
    Bank,
    Origin,
    Stretch,
    Trunk,
    write_bank,
)
from tiny_kws.export.onnx_models import trunk_graph
from tiny_kws.training.networks import CausalCNN
from tiny_kws.training.running_speech import ALIGNMENTS, is_unheard, read_entries, read_free, words_of
from tiny_kws.training.trunk import FEATURES, read_trunk, trunk_facts

GAP = np.zeros(SAMPLE_RATE // 4, np.float32)
"""Between two recordings."""
TOGETHER = 40
"""Speakers of few recordings who make one stretch, at most."""
NOISE_S, SPEECH_S, PIECE_S = 300, 180, 6
LEAST_ALONE = 5
"""Recordings of a speaker who makes a stretch alone."""


@dataclass(frozen=True)
class Source:
    """A folder with a manifest.csv: who speaks in it, which speakers go in."""

    folder: str
    kind: str
    name: str
    licence: str
    attribution: str
    parts: tuple[int, ...] = (1, 2)
    heard: tuple[int, ...] = (1, 2)
    """Parts that the trunk was trained on, but for those of `running_speech.is_unheard`."""


SOURCES = (
    Source("speech_libri", READERS, "LibriSpeech", "CC BY 4.0", "Panayotov et al. 2015, readings from LibriVox"),
    Source("speech_cv", HOMES, "Common Voice 1", "CC0 1.0", "Mozilla Common Voice", heard=(2,)),
    Source("speech", CHILDREN, "speechocean762", "Apache-2.0", "Zhang et al. 2021 (arXiv:2104.01378)"),
    Source("speech_world", LANGUAGES, "Common Voice 6.1", "CC0 1.0", "Mozilla Common Voice, 59 languages", (2,), ()),
)
VOICES = "Common Voice 1"
"""Whose speech recordings of a word are put behind, a few minutes of it."""
NOISES = Origin("Noises of ESC-10", "CC0 1.0", "K. J. Piczak 2015, the data set CC BY 3.0; clips from freesound.org", 0)


@dataclass(frozen=True)
class Group:
    """The recordings of a speaker, or of some of whom there is little."""

    kind: str
    is_strange: bool
    files: tuple[Path, ...]


def grouped(source: Source, data: Path, held_out: bool = False) -> list[Group]:
    """The recordings of speakers that go in, or with `held_out` of those that do not."""
    folder = data / source.folder
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    recordings = Counter(row["speaker"] for row in rows)
    single = {name: i // TOGETHER for i, name in enumerate(sorted(n for n, c in recordings.items() if c < LEAST_ALONE))}
    files: dict[tuple[bool, str], list[Path]] = defaultdict(list)
    for row in rows:
        speaker = row["speaker"]
        if (part_of(speaker) in source.parts) != held_out:
            strange = part_of(speaker) not in source.heard or is_unheard(source.folder, speaker)
            key = row["language"] if source.kind == LANGUAGES else str(single.get(speaker, speaker))
            files[strange, key].append(folder / row["file"])
    return [Group(source.kind, strange, tuple(found)) for (strange, _), found in sorted(files.items())]


def words_in(folder: Path) -> dict[Path, list[tuple[int, str]]]:
    """Of each recording its words, with the sample in which each ends; empty for a folder that is not aligned."""
    if not (folder / ALIGNMENTS).is_file():
        print(f"{folder}: has no {ALIGNMENTS}, so the bank holds its sound and not its words", flush=True)
        return {}
    return {
        folder / entry["file"]: [(word.stop * FRAME, word.text) for word in words_of(entry)]
        for entry in read_entries(folder)
    }


def sound_of(files: Sequence[Path]) -> Samples:
    """Recordings one after another."""
    return np.concatenate([part for file in files for part in (read_mono(file), GAP)])


def said_in(files: Sequence[Path], words: Mapping[Path, list[tuple[int, str]]]) -> list[tuple[int, str]]:
    """The words in `sound_of`, with the sample in which each ends."""
    said, at = [], 0
    for file in files:
        said += [(at + end, word) for end, word in words.get(file, [])]
        at += sf.info(file).frames + len(GAP)
    return said


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


def normalised(network: CausalCNN, vectors_of: Sequence[np.ndarray]) -> None:
    """Change the network's last layer so that its numbers have a mean of 0 and a deviation of 1 over the vectors."""
    joined = np.concatenate(vectors_of)
    mean, deviation = (torch.from_numpy(values) for values in (joined.mean(0), joined.std(0)))
    with torch.no_grad():
        network.fc.weight.div_(deviation[:, None])
        network.fc.bias.sub_(mean).div_(deviation)


def some_vectors(network: CausalCNN, log_mel: Callable[[Tensor], Tensor], sound: Samples) -> np.ndarray:
    """Those of the first minute, as they come out of the training."""
    step = FEATURES.hop * network.config.window_frames
    whole = torch.from_numpy(sound[: min(len(sound), 60 * SAMPLE_RATE) // step * step])[None]
    with torch.inference_mode():
        found: np.ndarray = network.answer_all(log_mel(whole))[0].numpy()
    return found


def make(trunk_path: Path, data: Path) -> Bank:
    """The bank of a trunk and folders of speech and noise."""
    groups = {source: grouped(source, data) for source in SOURCES}
    jobs = [group for found in groups.values() for group in found]
    network, stats, log_mel = read_trunk(trunk_path)
    normalised(network, [some_vectors(network, log_mel, sound_of(group.files[:12])) for group in jobs[::3]])
    graph, facts = trunk_graph(network, FEATURES, stats).SerializeToString(), trunk_facts(network, stats)
    empty = Bank(graph, np.zeros((0, network.config.n_classes), np.float32), (), (), (), (), (), facts)
    trunk = Trunk(empty)
    with ThreadPoolExecutor(2) as pool:
        vectors = list(pool.map(lambda group: trunk.vectors(sound_of(group.files)), jobs))
    ends = np.cumsum([0, *map(len, vectors)]).tolist()
    ends_of_words = {path: said for source in SOURCES for path, said in words_in(data / source.folder).items()}
    words = [
        (ends[i] + end // trunk.hop, word)
        for i, group in enumerate(jobs)
        for end, word in said_in(group.files, ends_of_words)
    ]
    rng = np.random.default_rng(0)
    noises = pieces([noise / np.float32(32768) for noise in read_free(data / "noise", licences=("CC0",))], NOISE_S, rng)
    voices = next(group for source, found in groups.items() if source.name == VOICES for group in found)
    return replace(
        empty,
        vectors=np.concatenate(vectors),
        stretches=tuple(Stretch(g.kind, ends[i], ends[i + 1], g.is_strange) for i, g in enumerate(jobs)),
        words=tuple(words),
        noises=tuple(noises),
        speech=tuple(pieces([read_mono(file) for file in voices.files[:TOGETHER]], SPEECH_S, rng)),
        origins=(
            *(origin_of(source, found) for source, found in groups.items()),
            replace(NOISES, recordings=len(noises)),
        ),
    )


def origin_of(source: Source, groups: Sequence[Group]) -> Origin:
    """What the bank says of a source."""
    return Origin(source.name, source.licence, source.attribution, sum(len(group.files) for group in groups))


def main() -> None:
    """Read the command line, make the bank, say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trunk", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    bank = make(asked.trunk, asked.data)
    write_bank(asked.out, bank)
    print(f"{asked.out}: {asked.out.stat().st_size:,} bytes, {bank.hours():.1f} h, {len(bank.stretches)} stretches")


if __name__ == "__main__":
    main()
