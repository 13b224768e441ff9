"""Time this checkout against another one, in turns: `python benchmarks/against.py ../before`.

Both answer the same: one clip (`Classifier.classify`), a second of a stream in chunks of 40 ms (`Stream`, `Detector`),
and an epoch of training of the reference on clips and of `micro` on windows, through the command line. Each turn is a
process of its own, one thread, and the two take turns, so that what else the machine does meets both alike. Medians,
and the ratio of this one to the other: under 1 is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf

ROOT = Path(__file__).parents[1]
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed", "cat", "dog")
LISTENING = """
import json, statistics, time
import numpy as np
import tiny_kws

audio = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
chunks = np.split(audio, 25)

def median_ms(call, repeats):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[repeats // 5:])

classifier, stream, detector = tiny_kws.Classifier(), tiny_kws.StreamModel().stream(), tiny_kws.Detector()
print(json.dumps({
    "classify, ms a clip": median_ms(lambda: classifier.classify(audio), 200),
    "stream, ms a second": median_ms(lambda: [stream.process(chunk) for chunk in chunks], 100),
    "detector, ms a second": median_ms(lambda: [detector.process(chunk) for chunk in chunks], 100),
}))
"""


def main() -> None:
    """Measure both in turns and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--turns", type=int, default=10, help="of clips and streams")
    parser.add_argument("--trainings", type=int, default=3, help="turns of training; 0 for none")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT, "other": arguments.other.resolve()}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    for _ in range(arguments.turns):
        for name, checkout in checkouts.items():
            note(found[name], json.loads(run(checkout, "-c", LISTENING)))
    with tempfile.TemporaryDirectory() as folder:
        write_recordings(Path(folder) / "speech_commands_v0.02")
        for turn in range(arguments.trainings):
            for name, checkout in checkouts.items():
                note(found[name], train(checkout, Path(folder), name, turn))
    print(f"{'':32}  {'this':>9}  {'other':>9}  ratio")
    for what in found["this"]:
        this, other = (statistics.median(found[name][what]) for name in checkouts)
        print(f"{what:32}  {this:9.3f}  {other:9.3f}  {this / other:5.3f}")


def note(found: dict[str, list[float]], figures: dict[str, float]) -> None:
    """Add one turn's figures."""
    for what, value in figures.items():
        found.setdefault(what, []).append(value)


def run(checkout: Path, *command: str) -> str:
    """What a Python with the package of a checkout prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, check=True, text=True, stdout=subprocess.PIPE)  # noqa: S603
    return done.stdout


def train(checkout: Path, folder: Path, name: str, turn: int) -> dict[str, float]:
    """Milliseconds of training for each clip, by recipe; each checkout trains on data that it prepared itself."""
    prepared = folder / f"prepared-{name}"
    if not prepared.exists():
        run(checkout, "-m", "tiny_kws", "data", "prepare", str(folder), "--out", str(prepared))
    figures = {}
    for model, what in (("ds-cnn", "ds-cnn on clips, ms a clip"), ("micro", "micro on windows, ms a keyword")):
        out = folder / f"{name}-{model}-{turn}"
        options = ["--model", model, "--epochs", "2", "--batch-size", "32", "--precision", "float32", "--device", "cpu"]
        run(checkout, "-m", "tiny_kws", "train", str(prepared), "--out", str(out), *options)
        history = json.loads((out / "history.json").read_text(encoding="utf-8"))
        figures[what] = 1e3 / history[-1]["clips_per_second"]
    return figures


def write_recordings(words: Path) -> None:
    """A small archive in the layout of Speech Commands: bursts of noise in place of words."""
    rng = np.random.default_rng(0)
    envelope = np.exp(-(((np.arange(16000) - 8000) / 2500) ** 2))
    listed: dict[str, list[str]] = {"validation": [], "testing": []}
    for word in WORDS:
        (words / word).mkdir(parents=True)
        for speaker in range(24):
            file = f"{word}/{speaker:08x}_nohash_0.wav"
            sf.write(words / file, 0.2 * envelope * rng.standard_normal(16000), 16000)
            if speaker < 6:
                listed["validation" if speaker < 4 else "testing"].append(file)
    for split, files in listed.items():
        (words / f"{split}_list.txt").write_text("\n".join(files) + "\n", encoding="utf-8")
    (words / "_background_noise_").mkdir()
    sf.write(words / "_background_noise_" / "noise.wav", 0.1 * rng.standard_normal(20 * 16000).clip(-5, 5), 16000)


if __name__ == "__main__":
    main()
