"""How often a keyword inside a sentence is heard: `inside_sentences.py DATA [--model NAME] [--out FILE]`.

DATA holds folders of sentences with alignments (`scripts/align_speech.py`). Of speakers that no training hears, every
sentence with one of the model's words is heard from its start. A word counts as heard if there is an event of its label
from its start to half a second after its end. Whether that is wanted is for the user to say: sentences with keywords
are left out of training and of all other measures.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiny_kws import Detector
from tiny_kws.artefact.runtime import open_model
from tiny_kws.config import SAMPLE_RATE
from tiny_kws.data.held_out import part_of
from tiny_kws.data.spans import FRAME
from tiny_kws.evaluation.clips import rounded, wilson_interval
from tiny_kws.evaluation.streams import RULES, Recording, Stretch, posteriors_of, score
from tiny_kws.files import write_json
from tiny_kws.listening.detector import config_of
from tiny_kws.training.running_speech import read_entries, words_of

FOLDERS = {"speech_libri": "readers", "speech_cv": "homes", "speech": "children"}
RESULTS = Path(__file__).parent / "results" / "inside_sentences.json"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model = open_model(arguments.model)
    said: Counter[tuple[str, str]] = Counter()
    heard: Counter[tuple[str, str]] = Counter()
    hours: Counter[str] = Counter()
    sentences: Counter[str] = Counter()
    config, words = config_of(model), Detector(model).words
    for folder, kind in FOLDERS.items():
        for one in posteriors_of(model, sentences_with(arguments.data / folder, words)):
            found = score(one.events(config), one.recording.words, RULES["tiny-kws"])
            sentences[kind] += 1
            hours[kind] += one.seconds / 3600
            said.update((kind, word.label) for word in found.words)
            heard.update((kind, word.label) for word, hit in zip(found.words, found.hits, strict=True) if hit)
    result = {
        "model": model.metadata.name,
        "threshold": config.threshold,
        "by_kind": {
            kind: {
                "sentences": sentences[kind],
                "hours": rounded(hours[kind]),
                **rate(sum(heard[kind, word] for word in words), sum(said[kind, word] for word in words)),
            }
            for kind in FOLDERS.values()
        },
        "by_word": {
            word: rate(*(sum(found[kind, word] for kind in FOLDERS.values()) for found in (heard, said)))
            for word in words
        },
        **rate(heard.total(), said.total()),
    }
    write_json(arguments.out, result)
    print(arguments.out.read_text(encoding="utf-8"))


def sentences_with(folder: Path, words: tuple[str, ...]) -> Iterator[Recording]:
    """The sentences of speakers kept out of training in which one of the words is said, with the words' times."""
    step = FRAME / SAMPLE_RATE
    for entry in read_entries(folder):
        if part_of(entry["speaker"] or entry["file"]) == 0:
            found = [word for word in words_of(entry) if word.text in words]
            stretches = tuple(Stretch(word.text, word.start * step, word.stop * step) for word in found)
            if stretches:
                yield Recording(folder / entry["file"], stretches)


def rate(heard: int, said: int) -> dict[str, Any]:
    """How many of the words that were said were heard, and the 95 % interval of the share."""
    return {"heard": heard, "said": said, "interval": [rounded(x) for x in wilson_interval(heard, said)]}


if __name__ == "__main__":
    main()
