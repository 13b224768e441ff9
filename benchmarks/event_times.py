"""When words are said to be: `event_times.py STREAMS WORDS [--model NAME] [--out FILE]`.

STREAMS is a folder of `tiny-kws make-stream`: of each word that is hit, clean and at 10 dB, start and end are compared
with the label's. WORDS is the words' folder of Speech Commands: validation clips of the model's words, cut to the word,
are said twice with a pause between, in faint noise; told is how many of those that are heard at all are heard as two.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiny_kws import Detection, Detector
from tiny_kws.artefact.runtime import open_model
from tiny_kws.audio import Samples, read_mono
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.spans import find_word
from tiny_kws.evaluation.streams import RULES, Stretch, posteriors_of, read_manifest, score
from tiny_kws.files import sha256_of, write_json
from tiny_kws.listening.detector import config_of

CONDITIONS = ("clean", "snr10")
PAUSES_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
CLIPS_OF_A_WORD = 12
NOISE_LEVEL = 5e-4
RESULTS = Path(__file__).parent / "results" / "event_times.json"


def main() -> None:
    """Measure both, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=Path)
    parser.add_argument("words", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    detector = Detector(open_model(arguments.model))
    result = {
        "model": detector.model.metadata.name,
        "refractory_ms": detector.config.refractory_ms,
        "bounds": {name: bounds(detector, arguments.streams / name / "manifest.jsonl") for name in CONDITIONS},
        "repeated": repeated(detector, list(cut_words(arguments.words, detector.words))),
    }
    write_json(arguments.out, result)
    print(arguments.out.read_text(encoding="utf-8"))


def bounds(detector: Detector, manifest: Path) -> dict[str, Any]:
    """Errors of start and end over the words of a manifest that are hit."""
    recordings, _ = read_manifest(manifest, detector.labels)
    config = config_of(detector.model)
    pairs: list[tuple[Stretch, Detection]] = []
    for heard in posteriors_of(detector.model, [one for one in recordings if one.words], config):
        found = score(heard.events(config), heard.recording.words, RULES["tiny-kws"])
        pairs += [(word, hit) for word, hit in zip(found.words, found.hits, strict=True) if hit is not None]
    return {
        "manifest_sha256": sha256_of(manifest),
        "words": len(pairs),
        "start_s": errors([hit.start_s - word.start_s for word, hit in pairs]),
        "end_s": errors([hit.end_s - word.end_s for word, hit in pairs]),
    }


def errors(values: list[float]) -> dict[str, float]:
    """The median of differences, and the median and nine tenths of their sizes."""
    sizes = np.abs(values)
    ways = {"median": np.median(values), "median_size": np.median(sizes), "size_90": np.percentile(sizes, 90)}
    return {name: round(float(value), 3) for name, value in ways.items()}


def cut_words(folder: Path, words: tuple[str, ...]) -> list[tuple[str, Samples]]:
    """Of each word some validation clips, cut to where the word lies."""
    listed = sorted((folder / "validation_list.txt").read_text(encoding="utf-8").split())
    found: list[tuple[str, Samples]] = []
    for word in words:
        clips = [read_mono(folder / name) for name in listed if name.startswith(f"{word}/")]
        spans = ((clip, find_word(clip)) for clip in clips)
        found += [(word, clip[slice(*span)]) for clip, span in spans if span][:CLIPS_OF_A_WORD]
    return found


def repeated(detector: Detector, words: list[tuple[str, Samples]]) -> list[dict[str, float]]:
    """For each pause, how many of the words are heard once and twice."""
    rows = []
    for pause_s in PAUSES_S:
        counts = [sum(event.label == word for event in detector.detect(twice(cut, pause_s))) for word, cut in words]
        rows.append({"pause_s": pause_s, "once": counts.count(1), "twice": counts.count(2)})
    return rows


def twice(word: Samples, pause_s: float) -> npt.NDArray[np.float32]:
    """A second of quiet, the word, the pause, the word, and quiet."""
    quiet, pause = (np.zeros(round(seconds * SAMPLE_RATE), np.float32) for seconds in (1.0, pause_s))
    sound = np.concatenate([quiet, word, pause, word, quiet])
    return sound + np.random.default_rng(0).normal(0, NOISE_LEVEL, len(sound)).astype(np.float32)


if __name__ == "__main__":
    main()
