"""What libsndfile cannot read: through PyAV (the extra `media`), or else through ffmpeg, if it is on the PATH."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Block = tuple[int, npt.NDArray[Any]]
"""The rate in Hz and samples, (frames, channels), integers or floats."""

BLOCK_BYTES = 2**18  # of what ffmpeg gives, taken at once
# of the decoder of FLAC, which else gives noise for what is damaged
STRICT = {"flac": {"err_detect": "crccheck+explode"}}


class NoDecoderError(Exception):
    """There is neither PyAV nor ffmpeg."""


class DecodingError(Exception):
    """Such a decoder cannot read a file, or no further; says why."""


def decode(path: Path, container: str) -> Iterator[Block]:
    """The first soundtrack of a file, in blocks, each with its rate; `container` is how ffmpeg calls its format.

    Nothing is guessed: some formats are lists of other files and addresses, which would be opened.
    Raises NoDecoderError, and after what could be decoded, DecodingError.
    """
    try:
        av = import_module("av")
    except ImportError:
        program = shutil.which("ffmpeg")
        if program is None:
            raise NoDecoderError from None
        return _through_ffmpeg(program, path, container)
    return _through_pyav(av, path, container)


def _through_pyav(av: Any, path: Path, container: str) -> Iterator[Block]:
    try:
        with path.open("rb") as file, av.open(file, format=container) as opened:
            track = next((track for track in opened.streams.audio if track.codec_context), None)
            if track is None:
                raise DecodingError("no soundtrack")
            track.codec_context.options = STRICT.get(container, {})
            for frame in opened.decode(track):
                for part in _in_known_format(av, frame):
                    samples = part.to_ndarray()
                    n_channels = part.layout.nb_channels
                    yield part.sample_rate, samples.T if part.format.is_planar else samples.reshape(-1, n_channels)
    except av.FFmpegError as error:
        raise DecodingError(error.strerror or str(error)) from error


def _in_known_format(av: Any, frame: Any) -> list[Any]:
    """A frame as it is, but for 64-bit integers, which numpy arrays are not made of: as floats."""
    if not frame.format.name.startswith("s64"):
        return [frame]
    return av.AudioResampler(format="dbl").resample(frame)  # type: ignore[no-any-return]


def _through_ffmpeg(program: str, path: Path, container: str) -> Iterator[Block]:
    strict = [part for name, value in STRICT.get(container, {}).items() for part in (f"-{name}", value)]
    source = [*strict, "-protocol_whitelist", "file,pipe", "-f", container, "-i", f"file:{path}"]
    command = [program, "-nostdin", "-v", "error", "-xerror", *source, "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au"]
    with (
        TemporaryFile() as complaints,
        subprocess.Popen([*command, "-"], stdout=subprocess.PIPE, stderr=complaints) as process,  # noqa: S603
    ):
        assert process.stdout is not None
        try:
            yield from _au_blocks(process.stdout)
        finally:
            process.stdout.close()  # it ends, if more was to come
        if process.wait():
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().splitlines()
            raise DecodingError(said[-1] if said else f"ffmpeg ended with status {process.returncode}")


def _au_blocks(stream: IO[bytes]) -> Iterator[Block]:
    head = stream.read(24)
    if len(head) < 24:
        return
    _, n_head, _, _, rate, channels = struct.unpack(">4s5I", head)
    stream.read(n_head - len(head))
    n_bytes = max(1, BLOCK_BYTES // (4 * channels)) * 4 * channels
    while data := stream.read(n_bytes):
        whole = data[: len(data) - len(data) % (4 * channels)]
        yield rate, np.frombuffer(whole, ">f4").reshape(-1, channels)
