"""Speak the recordings under examples/: `make_examples.py FOLDER`. Needs espeak-ng, flite and sox.

Ten keywords and a few other words by different voices, in the rates, depths and formats that people have, a longer
recording with one word in it, and one of silence.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ESPEAK = ("en-us", "en-gb", "en-gb-scotland")
# name, voice (one of ESPEAK or one of flite's), word, options of sox for the written file, effects of sox
EXAMPLES = [
    ("yes.wav", "slt", "yes", [], []),
    ("no.wav", "rms", "no", [], []),
    ("up.flac", "slt", "up", ["-r", "44100"], []),
    ("down.wav", "slt", "down", ["-b", "24"], []),
    ("left.wav", "rms", "left", ["-r", "48000", "-c", "2"], []),
    ("right.ogg", "slt", "right", [], []),
    ("on.wav", "awb", "on", ["-r", "8000"], []),
    ("off.wav", "awb", "off", ["-b", "8"], []),
    ("stop.mp3", "awb", "stop", ["-r", "44100"], []),
    ("go.wav", "en-us", "go", ["-e", "float"], []),
    ("stop_within_four_seconds.wav", "awb", "stop", [], ["pad", "2.2", "1.2"]),
    ("other_window.wav", "slt", "window", [], []),
    ("other_music.wav", "rms", "music", [], []),
    ("other_seven.wav", "en-gb", "seven", [], []),
]


def speak(voice: str, word: str, path: Path) -> None:
    """Let espeak-ng or flite say one word into a WAV."""
    if voice in ESPEAK:
        subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "-w", str(path), word], check=True)
    else:
        subprocess.run(["flite", "-voice", voice, "-t", word, "-o", str(path)], check=True)


def main(folder: Path) -> None:
    """Write every example."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        spoken = Path(scratch) / "spoken.wav"
        for name, voice, word, options, effects in EXAMPLES:
            speak(voice, word, spoken)
            rate = [] if "-r" in options else ["-r", "16000"]
            # No dither (-D): the same file every time.
            command = ["sox", "-D", str(spoken), *rate, *options, str(folder / name), "norm", "-6", *effects]
            subprocess.run(command, check=True)
    quiet = ["synth", "1", "pinknoise", "vol", "0.02"]
    subprocess.run(
        ["sox", "-R", "-D", "-n", "-r", "16000", "-b", "16", str(folder / "silence.wav"), *quiet], check=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
