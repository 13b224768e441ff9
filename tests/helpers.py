"""What several rooms' tests share beside the fixtures: artefacts, sounds of many levels, the command line run apart."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

import tiny_kws
from tiny_kws.artefact.format import METADATA_KEY, NO_CHECKSUM, with_checksum
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.words import SILENCE, UNKNOWN

if TYPE_CHECKING:
    import onnx

SOURCE = Path(tiny_kws.__file__).parents[1]
TEST_SAMPLE = "speech_commands-test-sample.zip"
"""Of the official test archive: for code to be run on. What a published model has to reach is asked of
`validation_sample`, since a test that it could fail would choose it by these clips."""

BLOCKER = """
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Blocker())
"""

FILE_LIMIT = """
import resource

resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))
"""

COMMAND_LINE = """
import runpy, sys

sys.argv[0] = "tiny-kws"
runpy.run_module("tiny_kws", run_name="__main__")
"""


def trained_like(checkpoint: Path) -> Path:
    """A copy of the shared checkpoint whose logits are of the size that training gives, about 10; not to be changed."""
    from tiny_kws.training.checkpoint import load_checkpoint, save_torch

    path = checkpoint.parents[1] / "trained" / "best.pt"
    if not path.exists():
        loaded = load_checkpoint(checkpoint)
        loaded.model.fc.weight.data /= 10
        loaded.model.fc.bias.data /= 10
        save_torch(path, loaded.to_dict())
    return path


def exported(checkpoint: Path) -> Path:
    """The artefact of a checkpoint, beside it; not to be changed."""
    from tiny_kws.export.exporter import Exporter
    from tiny_kws.training.checkpoint import load_checkpoint

    path = checkpoint.with_suffix(".onnx")
    if not path.exists():
        Exporter(load_checkpoint(checkpoint)).clip(path)
    return path


def changed_artefact(artefact: Path, to: Path, **changes: Any) -> Path:
    """A copy of an artefact, its checksum right, whose metadata say something else; `json` replaces the whole text."""
    onnx = pytest.importorskip("onnx", reason="the plain install has no onnx")

    from tiny_kws.artefact.format import parse_metadata

    model = onnx.load(artefact)
    where = next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    metadata = parse_metadata({METADATA_KEY: where.value}, str(artefact))
    text = changes.pop("json", None)
    where.value = text or replace(metadata, artefact_sha256=NO_CHECKSUM, **changes).to_json()
    to.write_bytes(with_checksum(model.SerializeToString()))
    return to


def edited_artefact(artefact: Path, to: Path, edit: Callable[[onnx.ModelProto], object], **changes: Any) -> Path:
    """A copy of an artefact, its checksum right, whose graph `edit` has changed, and its metadata as `changes` say."""
    import onnx

    model = onnx.load(artefact)
    edit(model)
    edited = to.with_suffix(".edited")
    onnx.save(model, edited)
    try:
        return changed_artefact(edited, to, **changes)
    finally:
        edited.unlink()


def write_sound(path: Path, seconds: float = 1.0, seed: int = 0, rate: int = SAMPLE_RATE) -> Path:
    """A sound file of seeded noise; the suffix names the format."""
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).clip(-1, 1)
    sf.write(path, noise, rate)
    return path


def silent_film(path: Path) -> Path:
    """Write a film of one second without a soundtrack; its suffix says of which kind."""
    av = pytest.importorskip("av", reason="the extra media is not installed")
    with av.open(str(path), "w") as film:
        track = film.add_stream("libvpx-vp9" if path.suffix == ".webm" else "mpeg4", rate=5)
        track.width = track.height = 32
        for _ in range(5):
            film.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        film.mux(track.encode())
    return path


def wav_bytes(seed: int = 0) -> bytes:
    """One second of seeded noise as the bytes of a WAV."""
    file = io.BytesIO()
    sf.write(file, np.random.default_rng(seed).normal(0, 0.1, CLIP_SAMPLES).clip(-1, 1), SAMPLE_RATE, format="WAV")
    return file.getvalue()


def sounds_of_many_levels() -> npt.NDArray[np.float32]:
    """128 one-second clips, (128, 16000): noise, speech-like sound, tones, a click; from nothing to full scale."""
    rng = np.random.default_rng(0)
    time_s = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    clips = [np.zeros(CLIP_SAMPLES), np.full(CLIP_SAMPLES, 0.5), np.sign(np.sin(2 * np.pi * 200 * time_s))]
    clips.append(np.eye(1, CLIP_SAMPLES, 8000)[0])
    for i in range(124):
        level = 10.0 ** rng.uniform(-5, 0)
        if i % 3 == 0:
            clip = rng.uniform(-1, 1, CLIP_SAMPLES)
        elif i % 3 == 1:
            clip = speech_like(rng)
        else:
            clip = np.sin(2 * np.pi * rng.uniform(20, 7900) * time_s + rng.uniform(0, 6))
        clips.append(level * clip / np.abs(clip).max())
    return np.stack(clips).astype(np.float32)


def speech_like(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """One second of a voice that says nothing: harmonics of a gliding pitch under two formants, in syllables."""
    time_s = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    pitch_hz = rng.uniform(80, 250) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    formants_hz = rng.uniform(300, 900), rng.uniform(1000, 3000)
    voice = np.zeros(CLIP_SAMPLES)
    for harmonic in range(1, 25):
        gain = sum(np.exp(-(((harmonic * pitch_hz - formant) / 150) ** 2)) for formant in formants_hz) + 0.02
        voice += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(1, 4) * time_s + rng.uniform(0, 6)), 0, None)
    return syllables * voice + rng.normal(0, 0.003, CLIP_SAMPLES)


def real_clips(archive: Path, limit: int | None = None) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Label and one second (16000,) of each member of a packed archive, whose names end in `.<samples>.<codec>`."""
    with zipfile.ZipFile(archive) as packed:
        members = _recordings_in(packed)
        kept = members[:: max(1, len(members) // (limit or len(members)))]
        return [(name.partition("/")[0].strip("_"), _second_of(packed, name)) for name in kept]


def validation_sample(folder: Path, each: int = 10) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Label and one second (16000,) of `each` validation clips of every label, as models may be chosen by.

    *unknown* is of other words, each as often as it occurs; *silence* is seconds of the background noise.
    """
    found: dict[str, list[tuple[Path, str]]] = {label: [] for label in (*KEYWORDS, UNKNOWN)}
    for archive in sorted(folder.glob("speech_commands-validation-*.zip")):
        with zipfile.ZipFile(archive) as packed:
            for name in _recordings_in(packed):
                word = name.partition("/")[0]
                found[word if word in KEYWORDS else UNKNOWN].append((archive, name))
    clips = []
    for label, members in found.items():
        for archive, name in (members[i * len(members) // each] for i in range(each)):
            with zipfile.ZipFile(archive) as packed:
                clips.append((label, _second_of(packed, name)))
    with zipfile.ZipFile(folder / "speech_commands-noise.zip") as packed:
        noises = [_sound_of(packed, name) for name in _recordings_in(packed)]
    for i in range(each):
        second = i // len(noises) * 7 * SAMPLE_RATE
        clips.append((SILENCE, noises[i % len(noises)][second : second + CLIP_SAMPLES]))
    return clips


def _recordings_in(packed: zipfile.ZipFile) -> list[str]:
    return [name for name in packed.namelist() if not name.endswith((".csv", "/"))]


def _sound_of(packed: zipfile.ZipFile, name: str) -> npt.NDArray[np.float32]:
    audio, rate = sf.read(io.BytesIO(packed.read(name)), dtype="float32")
    assert rate == SAMPLE_RATE
    whole: npt.NDArray[np.float32] = audio[: int(name.rsplit(".", 2)[1])]
    return whole


def _second_of(packed: zipfile.ZipFile, name: str) -> npt.NDArray[np.float32]:
    audio = _sound_of(packed, name)[:CLIP_SAMPLES]
    return np.pad(audio, (0, CLIP_SAMPLES - len(audio)))


def run_cli(
    *args: str | Path,
    blocked: Iterable[str] = (),
    file_limit: int | None = None,
    stdin: bytes = b"",
    stdout: int | IO[bytes] = subprocess.PIPE,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """`tiny-kws ARGS` in its own process; modules `blocked` cannot be imported, files end at `file_limit` bytes."""
    done = subprocess.run(
        command_line(*args, blocked=blocked, file_limit=file_limit),
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(),
        timeout=300,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def command_line(*args: str | Path, blocked: Iterable[str] = (), file_limit: int | None = None) -> list[str]:
    """What to start for `tiny-kws ARGS`."""
    code = BLOCKER.format(blocked=tuple(blocked)) if blocked else ""
    if file_limit is not None:
        code += FILE_LIMIT.format(n_bytes=file_limit)
    return [sys.executable, "-B", "-c", code + COMMAND_LINE, *map(os.fspath, args)]


def environment() -> dict[str, str]:
    """This process's environment, in which tiny_kws can be imported and torch keeps to one thread."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
