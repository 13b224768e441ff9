"""Say recorded words again as a slow reader does, or a child: `slow_words.py DATA DATA/slow`.

Corpora of other words are cut from fluent speech or are commands, most of grown-ups; what sets a network off most in
running speech is read slowly, word by word, by children (*awful*, *want*, *all*). So the other words of Speech Commands
and of the sources that the package names are drawn out, up to twice as long, and raised or lowered in pitch and
formants, by factors drawn from the file and the take. So is a part of the keywords: else a network learns that words
changed so are none. DATA is the folder that holds `speech_commands_v0.02`; `tiny-kws data prepare DATA` then finds the
words as it finds other sources.

Needs sox (Debian: `apt install sox`). Takes some minutes.
"""

import argparse
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from near_words import speak_all

from tiny_kws.audio import Samples
from tiny_kws.config import CLIP_SAMPLES, KEYWORDS, SAMPLE_RATE
from tiny_kws.evaluation.mixing import find_word
from tiny_kws.training.sources import list_source, read_sources

SPEECH_COMMANDS = "speech_commands_v0.02"
TAKES = {"words": 3}
"""Of each recording of a source; of Speech Commands' other words one."""
KEYWORD_SHARE = 0.15
"""Of the keywords' recordings, once each."""
FACTORS, LENGTHS = (0.9, 1.35), (1.0, 2.0)
"""Of pitch and formants, and of duration."""
LONGEST = 15000
"""Samples that a word may last."""
AROUND = 800
"""Samples that stay before and after it, where the recording has them."""
LEVEL = 0.3


def main() -> None:
    """Write the recordings, a folder for each word, and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    rows = speak_all(given.out, draw_out, [*from_sources(given.data), *from_speech_commands(given.data)])
    print(f"{given.out}: {len(rows)} recordings")


def from_sources(data: Path) -> Iterator[tuple[Path, dict[str, str], int]]:
    """The recordings of the other words' sources, each with its line of the manifest and the number of the take."""
    sources = read_sources()
    for source in sources.of_use("other words"):
        for recording in list_source(data, source, sources)[0]:
            line = {
                "word": recording.word,
                "speaker": recording.speaker,
                "licence": recording.licence,
                "attribution": recording.attribution,
            }
            for take in range(TAKES.get(source.folder, 0)):
                yield recording.path, line, take


def from_speech_commands(data: Path) -> Iterator[tuple[Path, dict[str, str], int]]:
    """The training recordings of Speech Commands: all of the other words, and a share of the keywords."""
    folder = data / SPEECH_COMMANDS
    kept = {
        name for listed in ("validation", "testing") for name in (folder / f"{listed}_list.txt").read_text().split()
    }
    for path in sorted(folder.glob("[a-z]*/*.wav")):
        name = path.relative_to(folder).as_posix()
        if name in kept or (path.parent.name in KEYWORDS and drawn(name)[0] > KEYWORD_SHARE):
            continue
        speaker = path.name.split("_nohash_")[0]
        attribution = "Google Speech Commands, P. Warden 2018 (arXiv:1804.03209)"
        yield (
            path,
            {"word": path.parent.name, "speaker": speaker, "licence": "CC BY 4.0", "attribution": attribution},
            0,
        )


def draw_out(out: Path, path: Path, line: dict[str, str], take: int) -> dict[str, str]:
    """Write a word drawn out in the middle of a second, and return its line of the manifest."""
    file = Path(line["word"]) / f"{path.stem}_slow{take}.flac"
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    audio = cut(soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1))
    _, first, second = drawn(f"{path.parent.name}/{path.name}/{take}")
    factor = FACTORS[0] * (FACTORS[1] / FACTORS[0]) ** first
    longer = min(LENGTHS[0] * (LENGTHS[1] / LENGTHS[0]) ** second, max(1.0, LONGEST / len(audio)))
    raw = ["-t", "raw", "-r", str(SAMPLE_RATE), "-e", "floating-point", "-b", "32", "-c", "1"]
    effects = ["speed", f"{factor:.4f}", "rate", str(SAMPLE_RATE), "tempo", "-s", f"{1 / (longer * factor):.4f}"]
    said = subprocess.run(
        ["sox", *raw, "-", *raw, "-", *effects], input=audio.tobytes(), capture_output=True, check=True
    )
    soundfile.write(out / file, centred(np.frombuffer(said.stdout, np.float32)), SAMPLE_RATE)
    return {"file": file.as_posix(), **line, "kind": "drawn out", "heard": ""}


def drawn(key: str) -> np.ndarray:
    """Three numbers from 0 to 1."""
    return np.frombuffer(hashlib.sha256(key.encode()).digest(), np.uint8)[:3] / 255


def cut(audio: Samples) -> Samples:
    """The word in a recording (samples,), with a little around it, at one level; all of it, if there is none found."""
    padded = np.pad(audio, (0, max(0, CLIP_SAMPLES - len(audio))))
    begin, end = find_word(padded) or (0, len(audio))
    sound = padded[max(0, begin - AROUND) : end + AROUND]
    return (LEVEL / max(1e-4, float(np.abs(sound).max())) * sound).astype(np.float32)


def centred(sound: Samples) -> Samples:
    """A sound (samples,) in the middle of a second, faded in and out over 10 ms."""
    sound = sound[:CLIP_SAMPLES].copy()
    fade = np.linspace(0, 1, min(160, len(sound)), dtype=np.float32)
    sound[: len(fade)] *= fade
    sound[len(sound) - len(fade) :] *= fade[::-1]
    before = (CLIP_SAMPLES - len(sound)) // 2
    return np.clip(np.pad(sound, (before, CLIP_SAMPLES - len(sound) - before)), -1, 1)


if __name__ == "__main__":
    main()
