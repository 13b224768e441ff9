"""Train the trunk of own words on running speech whose phones are known; see runs/trunk.sh.

    python scripts/train_trunk.py RUN FOLDER:PARTS... --noise FOLDER --rooms FOLDER --out TRUNK.pt [--size micro]

Each FOLDER holds an alignments.jsonl of `scripts/align_speech.py`; PARTS are digits, the thirds of its speakers to
train on (see tiny_kws.data.held_out). RUN keeps the state after each epoch: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiny_kws.training.running_speech import SpeechComposer, read_aligned, read_free, words_to_tell
from tiny_kws.training.trunk import LAST, TrunkTrainer, save_trunk
from tiny_kws.training_config import TRUNK_SIZES, TrunkRecipe


def main() -> None:
    """Train to the last epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--rooms", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=TRUNK_SIZES, default="base")
    parser.add_argument("--epochs", type=int, default=TrunkRecipe.epochs)
    asked = parser.parse_args()
    recordings = []
    for named in asked.folders:
        folder, _, parts = named.rpartition(":")
        found = read_aligned(Path(folder), tuple(map(int, parts)))
        hours = sum(len(recording.pcm) for recording in found) / 16000 / 3600
        print(f"{folder}: {len(found)} recordings, {hours:.2f} h", flush=True)
        recordings += found
    recipe = replace(TrunkRecipe(), epochs=asked.epochs)
    rooms = [room.astype(np.float32) / 32768 for room in read_free(asked.rooms)]
    composer = SpeechComposer(
        recordings, words_to_tell(recordings, recipe.fewest), read_free(asked.noise), rooms, recipe
    )
    trainer = TrunkTrainer(composer, recipe, asked.run, TRUNK_SIZES[asked.size])
    trainer.train(lambda figures: print(json.dumps(figures), flush=True))
    save_trunk(asked.run / LAST, asked.out)


if __name__ == "__main__":
    main()
