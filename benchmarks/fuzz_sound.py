"""Give readers and detector damaged sound, and count what crashes, hangs or grows: `python benchmarks/fuzz_sound.py`.

Each case is a small WAV, FLAC, OGG or MP3 file, a pipe of raw samples or an array, whole at first, in which bytes are
changed, cut out, doubled or put in, mostly near the start, where headers are. It must end within five seconds, with
sound or with a KwsError. Anything else is a finding, and its number, of which the case follows, is printed. Cases run
in processes of their own, so that a crash of a library is a finding and not an end. `--case N` runs one again.

What was run is written after every batch, and where that file is there already, the run goes on behind it:
`nice python benchmarks/fuzz_sound.py --out benchmarks/results/fuzz_sound.json` may be stopped and started again.
"""

import argparse
import io
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import soundfile as sf

from tiny_kws import Detector, KwsError
from tiny_kws.audio import from_array, from_chunk, read_mono, stream_pcm
from tiny_kws.files import write_json

CASES = 1_000_000
HANG_S = 5.0
BATCH = 10_000  # cases that a process runs before another takes its place
IN_MEMORY = Path("/dev/shm")  # noqa: S108  (writing files over takes longer than reading them, elsewhere)
LIBRARIES = ("numpy", "soundfile", "soxr", "av", "onnxruntime")
MOST_GROWTH = 64 * 2**20  # bytes of memory that a process may take more at its end than a tenth on its way
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wavfloat": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
TYPES = ("<i2", ">i2", "i4", "u1", "i1", "f4", "f8", "f2", "u2", "c8", "?")


def whole_files() -> list[bytes]:
    """A fifth of a second of sound in each format, one and two channels, 16 and 44.1 kHz."""
    files = []
    for container, subtype in FORMATS.values():
        for rate, channels in ((16000, 1), (44100, 2)):
            if subtype == "OPUS" and rate == 44100:
                rate = 48000  # noqa: PLW2901  (the only high one it has)
            audio = np.random.default_rng(0).normal(0, 0.1, (rate // 5, channels)).clip(-1, 1)
            file = io.BytesIO()
            sf.write(file, audio, rate, format=container, subtype=subtype)
            files.append(file.getvalue())
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to six changes, most of them in the first hundred bytes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 7)):
        end = len(changed) if rng.random() < 0.3 else min(len(changed), 100)
        at = int(rng.integers(max(1, end)))
        length = int(rng.choice([1, 1, 2, 4, 8, 64]))
        kind = rng.integers(6)
        if kind == 0:
            changed[at : at + length] = rng.bytes(length)
        elif kind == 1:
            changed[at : at + length] = bytes([int(rng.choice([0, 0x7F, 0x80, 0xFF]))]) * length
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = rng.bytes(length)
        elif kind == 4:
            changed[at:at] = changed[at : at + 4 * length]
        else:
            del changed[int(rng.integers(len(changed) + 1)) :]
        if not changed:
            break
    return bytes(changed)


class Cases:
    """What each case is made from and given to."""

    def __init__(self, folder: Path) -> None:
        self.files = whole_files()
        self.path = folder / f"sound-{os.getpid()}"
        self.detector = Detector()

    def run(self, number: int) -> str:
        """Run case `number`: what it ended with, `sound` or the kind of error that is told."""
        rng = np.random.default_rng(number)
        kind = rng.integers(10)
        try:
            if kind < 7:
                self.path.write_bytes(damaged(self.files[rng.integers(len(self.files))], rng))
                audio = read_mono(self.path)
            elif kind == 7:
                raw = io.BufferedReader(io.BytesIO(rng.bytes(int(rng.integers(2000)))))
                rate, channels = int(rng.choice([8000, 16000, 44100])), int(rng.integers(1, 4))
                audio = np.concatenate([np.zeros(0, np.float32), *stream_pcm(raw, rate, channels)])
            elif kind == 8:
                audio = from_array(_array(rng), float(rng.choice([0, 1e3, 16e3, 44.1e3, 1e9, np.nan])))
            else:
                audio = from_chunk(_array(rng))
            assert audio.dtype == np.float32
            assert audio.ndim == 1
            assert np.isfinite(audio).all()
            self.detector.process(audio[:16000])
        except KwsError as error:
            told = str(error)
        else:
            return "sound"
        assert "\n" not in told
        return "error"


def _array(rng: np.random.Generator) -> np.ndarray:
    """Bytes of any value as samples of any type, in one or two dimensions."""
    dtype = np.dtype(str(rng.choice(TYPES)))
    shape = (int(rng.integers(0, 500)),) if rng.random() < 0.7 else (int(rng.integers(0, 50)), int(rng.integers(0, 80)))
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


def work(first: int, count: int, folder: Path, parent: Connection) -> None:
    """Run cases from `first` on, telling the parent of each before it begins and of what each ended with."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # libraries write there by themselves
    tempfile.tempdir = str(folder)
    cases, ended, before = Cases(folder), Counter[str](), 0
    for number in range(first, first + count):
        parent.send(("begins", number))
        try:
            ended[cases.run(number)] += 1
        except Exception:  # noqa: BLE001  (whatever it is, it is a finding)
            parent.send(("error", (number, traceback.format_exc(limit=3))))
        if number == first + count // 10:
            before = memory()
    parent.send(("ended", (dict(ended), memory() - before)))


def memory() -> int:
    """Bytes that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


@dataclass
class Found:
    """What came of the cases from 0 to `cases`, how they ended, and what must not be."""

    cases: int = 0
    seconds: float = 0.0
    ended: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    libraries: dict[str, str] = field(default_factory=lambda: {"libsndfile": sf.__libsndfile_version__})

    def add(self, ended: dict[str, int]) -> None:
        """Count what a process of cases tells."""
        self.ended = dict(sorted((Counter(self.ended) + Counter(ended)).items()))


def watch(count: int, folder: Path, found: Found) -> None:
    """Run a process of the next `count` cases, and note what came of them; fewer if it ends before."""
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    first = found.cases
    process = get_context("spawn").Process(target=work, args=(first, count, folder, sender))
    process.start()
    sender.close()
    number = first - 1
    try:
        while True:
            if not receiver.poll(HANG_S if number >= first else 60.0):
                found.findings.append(f"case {number}: hangs")
                process.kill()
                break
            what, told = receiver.recv()
            if what == "begins":
                number = told
            elif what == "error":
                found.findings.append(f"case {told[0]}: {told[1]}")
            else:
                found.add(told[0])
                if told[1] > MOST_GROWTH:
                    cases = f"cases {first} to {first + count - 1}"
                    found.findings.append(f"{cases}: memory grew by {told[1] / 2**20:.0f} MiB")
                break
    except EOFError:
        process.join()
        found.findings.append(f"case {number}: the process ended with {process.exitcode}")
    process.join()
    found.cases = number + 1


def main() -> int:
    """Run all cases, or one; the exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--out", type=Path, help="JSON file of what was found, to go on with if it is there")
    parser.add_argument("--case", type=int, help="run this one again, here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as name:
        folder = Path(name)
        if arguments.case is not None:
            print(Cases(folder).run(arguments.case))
            return 0
        found = run_all(arguments.cases, folder, arguments.out)
    print(f"{found.cases} cases in {found.seconds:.0f} s: {found.ended}")
    print("\n".join(found.findings) or "nothing crashed, hung or grew")
    return 1 if found.findings else 0


def run_all(n_cases: int, folder: Path, out: Path | None) -> Found:
    """Run what is left of all cases, and keep what came of them in `out`."""
    found = Found(**json.loads(out.read_text(encoding="utf-8"))) if out and out.exists() else Found()
    found.libraries |= {name: version(name) for name in LIBRARIES}
    while found.cases < n_cases:
        started = time.monotonic()
        watch(min(BATCH, n_cases - found.cases), folder, found)
        found.seconds = round(found.seconds + time.monotonic() - started, 1)
        if out:
            write_json(out, asdict(found))
        if sys.stderr.isatty():
            print(f"\r{found.cases}  {len(found.findings)} findings", end="", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
