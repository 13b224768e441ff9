"""Sound in: files, byte streams and arrays to 16 kHz mono float32, and windows of it.

Integers are scaled to [-1, 1) first, channels averaged next, the mean resampled last (soxr, high quality).
Files are decoded in blocks, so their length does not matter to memory.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr

from .config import CLIP_SAMPLES, SAMPLE_RATE
from .errors import AudioError

Samples = npt.NDArray[np.float32]
Source = str | os.PathLike[str] | BinaryIO

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"}
"""What counts as a sound file when a folder is walked; a file named outright may have any suffix."""

MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_LEVEL = 100.0  # 40 dB over full scale: louder floats are on another scale, such as that of 16-bit integers
MAX_CHANNELS = 64  # of an array; more means that its axes are swapped
BLOCK_SECONDS = 1  # what is lost before a place where a file is damaged
BLOCK_VALUES = 2**22  # frames x channels read at once, at most: 16 MiB of float32
SEARCH_STEP = SAMPLE_RATE // 100  # the loudest window is looked for in steps of 10 ms
PIPE_BYTES = 2**16  # of raw samples taken at once, at most
NO_FRAME = 7  # SFE_BAD_FILE of libsndfile
SEARCH_BYTES = 2**20  # of a file searched at once
MAX_HEAD = 40  # bytes, over the length of what these two match
_OGG_PAGE = re.compile(rb"OggS\0(.)", re.DOTALL)
_MP3_HEAD = re.compile(rb"\xff[\xe2-\xff]..\0{9,32}(?:Xing|Info)", re.DOTALL)  # a frame that tells the file's length
_CONTAINER = re.compile(rb"RIFF|RF64|fLaC|OggS|ID3|FORM|\.snd|caff")


class Window(NamedTuple):
    """A window of sound, (samples,) float32, and where in the recording it starts."""

    samples: Samples
    start_s: float


def is_source(audio: Any) -> TypeGuard[Source]:
    """Whether `audio` is a file's path or a binary stream rather than samples."""
    return isinstance(audio, (str, os.PathLike)) or hasattr(audio, "read")


def name_of(source: Source) -> str:
    """How errors call the source, on one line whatever its name holds."""
    name = os.fsdecode(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    if not isinstance(name, str) or name == "<stdin>":
        return "standard input"
    return name if name and name.isprintable() else repr(name)


def stream_mono(source: Source) -> Iterator[Samples]:
    """Decode a sound file, or a binary stream from its start, to blocks of 16 kHz mono float32.

    WAV, FLAC, OGG, MP3 and whatever else libsndfile knows by its content, of any rate from 1 kHz, depth and channel
    count. A WAV whose header gives no length or a wrong one, as written to a pipe, is read to its end.
    Raises AudioError if it is missing, empty, not sound, damaged, or holds samples that are not numbers.
    """
    name = name_of(source)
    with _open(source, name) as file:
        check_rate(file.samplerate, name)
        resampler = None if file.samplerate == SAMPLE_RATE else soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1)
        n_frames = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
        position = 0
        while True:
            start_s = position / file.samplerate
            try:
                block = file.read(n_frames, dtype="float32", always_2d=True)
            except sf.LibsndfileError as error:
                raise AudioError(
                    f"{name}: damaged after {start_s:.2f} s ({_reason(error)}); "
                    "expected a whole sound file, so fetch or record it again"
                ) from error
            check_finite(block, name, start_s)
            mono = mix_down(block)
            position += len(mono)
            if resampler is None:
                yield mono
            else:
                yield resampler.resample_chunk(mono, last=len(mono) == 0)
            if len(mono) == 0:
                break
        joined = _starts_again(Path(os.fsdecode(file.name)), file.format)
    if position == 0:
        raise AudioError(f"{name}: holds no samples, expected some sound; fetch or record it again")
    if joined:
        raise AudioError(
            f"{name}: holds another recording after {position / file.samplerate:.2f} s (files joined end to end), "
            "expected one; only the first was heard, so split it or convert it to WAV"
        )


class Converter:
    """A stream of sound in chunks, of any rate, channels and sample type, to 16 kHz mono float32.

    For what comes as it is recorded: microphones, pipes, connections. However the sound is divided into chunks, the
    samples that come out are the same. `name` is what errors call the stream, `sample_type` says what raw bytes hold:
    int8, int16, int32, uint8 or a type of float.
    Raises AudioError for a rate, a number of channels or a type that nothing is recorded with.

    >>> converter = Converter(rate=48000, channels=2)
    >>> len(converter.push(np.zeros((4800, 2), np.int16))) + len(converter.finish())
    1600
    """

    def __init__(
        self,
        rate: float = SAMPLE_RATE,
        channels: int = 1,
        name: str = "the stream",
        sample_type: npt.DTypeLike = np.int16,
    ) -> None:
        check_rate(rate, name)
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioError(f"{name}: has {channels} channels, expected 1 to {MAX_CHANNELS}")
        self.rate, self.channels, self.name = rate, channels, name
        self._sample_type = _sample_type(sample_type, name)
        self._frame_bytes = channels * self._sample_type.itemsize
        self.reset()

    def reset(self) -> None:
        """Begin a new stream of the same kind."""
        self._n_frames, self._rest = 0, b""
        self._resampler = None if self.rate == SAMPLE_RATE else soxr.ResampleStream(self.rate, SAMPLE_RATE, 1)

    def push(self, chunk: npt.ArrayLike) -> Samples:
        """What of the stream is ready with `chunk`, (frames,) or (frames, channels); types as in `from_array`.

        At another rate up to 0.1 s stays in the resampler. Raises AudioError, and leaves the stream as it was, for
        another shape or type, or samples that are not numbers.
        """
        values = _as_array(chunk)
        if values.ndim == 1 and self.channels == 1:
            values = values[:, None]
        if values.ndim != 2 or values.shape[1] != self.channels:
            raise AudioError(f"{self.name}: a chunk has shape {values.shape}, expected (frames, {self.channels})")
        scaled = _scale(values)
        check_finite(scaled, self.name, self._n_frames / self.rate)
        self._n_frames += len(scaled)
        mono = mix_down(scaled)
        return mono if self._resampler is None else self._resampler.resample_chunk(mono)

    def push_bytes(self, data: bytes) -> Samples:
        """The same of raw bytes: little-endian samples of `sample_type`, channels interleaved; part of one may wait."""
        data = self._rest + data
        n_whole = len(data) - len(data) % self._frame_bytes
        samples = np.frombuffer(data[:n_whole], self._sample_type.newbyteorder("<")).astype(self._sample_type)
        ready = self.push(samples.reshape(-1, self.channels))
        self._rest = data[n_whole:]
        return ready

    @property
    def n_waiting_bytes(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._rest)

    def finish(self) -> Samples:
        """What is left at the end of the stream; then a new one may begin."""
        none = np.zeros(0, np.float32)
        left = none if self._resampler is None else self._resampler.resample_chunk(none, last=True)
        self.reset()
        return left


def stream_pcm(stream: BufferedIOBase, rate: int = SAMPLE_RATE, channels: int = 1) -> Iterator[Samples]:
    """Raw 16-bit little-endian samples, channels interleaved, to blocks of 16 kHz mono float32 as they come.

    What a pipe holds is given at once, without waiting for more; another rate costs up to 0.1 s in the resampler.
    Raises AudioError for a rate out of range or a sound file in place of raw samples, and at the end, after all the
    sound, if there was none or the last sample is not whole.
    """
    name = name_of(stream)  # type: ignore[arg-type]
    converter, n_bytes = Converter(rate, channels, name), 0
    while data := stream.read1(PIPE_BYTES):
        if n_bytes == 0 and _CONTAINER.match(data):
            raise AudioError(f"{name}: found a sound file, expected raw samples; name the file, or pipe its samples")
        n_bytes += len(data)
        yield converter.push_bytes(data)
    rest, left = converter.n_waiting_bytes, converter.finish()
    if len(left):
        yield left
    if rest:
        frame_bytes = 2 * channels
        raise AudioError(
            f"{name}: ends amid a sample ({n_bytes} bytes), expected a multiple of {frame_bytes}, 16 bits for each of "
            f"{channels} channels; check the program that wrote it"
        )
    if n_bytes == 0:
        raise AudioError(f"{name}: is empty (0 bytes), expected raw samples; check the program that writes them")


def read_mono(source: Source) -> Samples:
    """The whole of a sound file as 16 kHz mono float32, (samples,). Raises AudioError as `stream_mono` does."""
    return np.concatenate(list(stream_mono(source)))


def read_window(source: Source, n_samples: int = CLIP_SAMPLES) -> Window:
    """The window of a sound file to classify; see `most_energetic_window`. Raises AudioError as `stream_mono` does."""
    return most_energetic_window(stream_mono(source), n_samples)


def from_array(audio: npt.ArrayLike, rate: float) -> Samples:
    """Samples in memory to 16 kHz mono float32, (samples,); may be `audio` itself if it is that already.

    `audio` is (samples,) or (samples, channels); integers of 8, 16 or 32 bits span their type's range (uint8 lies
    around 128), floats [-1, 1]. Raises AudioError for any other shape or type, a rate out of range, no samples or NaN.
    """
    check_rate(rate, "audio")
    values = _as_array(audio)
    if values.ndim not in (1, 2) or (values.ndim == 2 and not 1 <= values.shape[1] <= MAX_CHANNELS):
        raise AudioError(f"audio has shape {values.shape}, expected (samples,) or (samples, channels); transpose it")
    if values.shape[0] == 0:
        raise AudioError("audio holds no samples, expected some sound")
    scaled = _scale(values)
    check_finite(scaled, "audio", 0.0)
    mono = mix_down(scaled)
    return mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)


def from_chunk(chunk: npt.ArrayLike, rate: float = SAMPLE_RATE) -> Samples:
    """A piece of a 16 kHz stream in memory, (samples,) of any number, to float32; types as in `from_array`.

    Raises AudioError for any other shape, type or rate, or samples that are not numbers.
    """
    values = _as_array(chunk)
    if values.ndim != 1:
        raise AudioError(f"a chunk has shape {values.shape}, expected (samples,); average its channels first")
    if rate != SAMPLE_RATE:
        raise AudioError(f"a chunk has a rate of {rate} Hz, expected {SAMPLE_RATE} Hz; resample the stream first")
    scaled = _scale(values)
    check_finite(scaled, "a chunk", 0.0)
    return np.ascontiguousarray(scaled, dtype=np.float32)


def mix_down(audio: npt.NDArray[np.floating]) -> Samples:
    """(samples,) or (samples, channels) to the mean over the channels, (samples,) float32."""
    if audio.ndim == 2:
        audio = audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1, dtype=np.float64)
    return np.ascontiguousarray(audio, dtype=np.float32)


def one_second(audio: Samples) -> Samples:
    """Exactly 16,000 samples: the beginning of `audio`, or all of it followed by digital silence."""
    if len(audio) >= CLIP_SAMPLES:
        return audio[:CLIP_SAMPLES]
    return np.pad(audio, (0, CLIP_SAMPLES - len(audio)))


def most_energetic_window(blocks: Iterable[Samples], n_samples: int = CLIP_SAMPLES) -> Window:
    """The loudest `n_samples` of a recording that comes in blocks, searched in steps of 10 ms; the first of equals.

    A shorter recording is padded with digital silence behind. The result does not depend on the division into blocks.
    """
    held = np.zeros(0, np.float32)
    held_start = 0
    best, best_start, best_energy = held, 0, -1.0
    n_steps = n_samples // SEARCH_STEP
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) < n_samples:
            continue
        n_windows = (len(held) - n_samples) // SEARCH_STEP + 1
        steps = held[: (n_windows - 1 + n_steps) * SEARCH_STEP].reshape(-1, SEARCH_STEP)
        # whole numbers, so that sums are exact in any order and equal windows compare as equal
        power = np.rint(np.square(steps, dtype=np.float64).sum(axis=1) * 2**24)
        energy = np.lib.stride_tricks.sliding_window_view(power, n_steps).sum(axis=1)
        loudest = int(energy.argmax())
        if energy[loudest] > best_energy:
            start = loudest * SEARCH_STEP
            window = held[start : start + n_samples].copy()  # or it would hold the whole block
            best, best_start, best_energy = window, held_start + start, energy[loudest]
        held = held[n_windows * SEARCH_STEP :]
        held_start += n_windows * SEARCH_STEP
    if best_energy < 0:
        return Window(np.pad(held, (0, n_samples - len(held))), 0.0)
    return Window(best, best_start / SAMPLE_RATE)


def find_sound_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The sound files below `folder`, sorted. Raises AudioError if there are none."""
    name, folder = name_of(folder), Path(folder)
    if not folder.is_dir():
        raise AudioError(f"{name}: not found, expected a folder of sound files; check the path")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SOUND_SUFFIXES and p.is_file())
    if not found:
        raise AudioError(f"{name}: found no sound files in this folder, expected {' '.join(sorted(SOUND_SUFFIXES))}")
    return found


def check_rate(rate: float, name: str) -> None:
    """Raise AudioError unless `rate` is one that sound is recorded at."""
    if not (isinstance(rate, Real) and MIN_RATE <= rate <= MAX_RATE):
        raise AudioError(f"{name}: sample rate is {rate!r} Hz, expected {MIN_RATE} to {MAX_RATE} Hz")


def check_finite(audio: npt.NDArray[np.floating], name: str, start_s: float) -> None:
    """Raise AudioError if `audio`, any shape, holds NaN, infinity or values far beyond [-1, 1]."""
    peak = max(audio.max(initial=0.0), -audio.min(initial=0.0))
    if not peak <= MAX_LEVEL:  # NaN is not
        found = f"values up to {peak:g}" if np.isfinite(peak) else "NaN or infinity"
        raise AudioError(
            f"{name}: holds {found} after {start_s:.2f} s, expected samples in [-1, 1]; check the program that wrote it"
        )


def _as_array(audio: npt.ArrayLike) -> npt.NDArray[Any]:
    try:
        return np.asarray(audio)
    except ValueError as error:
        raise AudioError("audio is ragged, expected an array of (samples,) or (samples, channels)") from error


def _sample_type(name: npt.DTypeLike, stream: str) -> np.dtype[Any]:
    """The type of samples that `name` is. Raises AudioError, naming the `stream`, if sound does not come in it."""
    try:
        sample_type = np.dtype(name)
        _scale(np.zeros(0, sample_type))
    except (TypeError, AudioError) as error:
        raise AudioError(
            f"{stream}: has samples of type {name!r}, expected int8, int16, int32, uint8 or floats"
        ) from error
    return sample_type


def _scale(values: npt.NDArray[Any]) -> npt.NDArray[np.floating]:
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128.0) / 128.0
    if values.dtype in (np.int8, np.int16, np.int32):
        return values.astype(np.float64) / 2.0 ** (8 * values.itemsize - 1)
    if np.issubdtype(values.dtype, np.floating):
        return values
    raise AudioError(f"audio has type {values.dtype}, expected int8, int16, int32, uint8 or floats; convert it")


class _ForwardFile(sf.SoundFile):  # type: ignore[misc]
    """A sound file read from start to end: soundfile's seek after each read has libmpg123 complain on stderr."""

    def seekable(self) -> bool:
        return False


@contextmanager
def _open(source: Source, name: str) -> Iterator[sf.SoundFile]:
    with ExitStack() as stack:
        path = _on_disk(source, name, stack)
        if path.stat().st_size == 0:
            raise AudioError(f"{name}: is empty (0 bytes), expected a sound file; fetch or record it again")
        expected = "expected a WAV, FLAC, OGG or MP3 file"
        try:
            # bytes, as soundfile cannot encode names that are not Unicode; on Windows all are
            file = stack.enter_context(_ForwardFile(path if os.name == "nt" else os.fsencode(path)))
        except sf.LibsndfileError as error:
            raise AudioError(f"{name}: found no sound in it ({_reason(error)}), {expected}") from error
        if _is_guess(file.format, path):
            raise AudioError(f"{name}: found no sound in it (Format not recognised), {expected}")
        yield file


def _on_disk(source: Source, name: str, stack: ExitStack) -> Path:
    """A source as a path, since libsndfile would swallow a Ctrl-C when it calls back into Python for bytes.

    The path of a copy that goes with `stack` if the source has none, or cannot be decoded as it lies there.
    """
    try:
        if isinstance(source, (str, os.PathLike)):
            path = Path(os.fsdecode(source))
            stream: BinaryIO = stack.enter_context(_open_bytes(path, name))
            if stream.seekable() and path.suffix.lower() != ".raw" and not _unfinished_size(stream):
                return path
        else:
            stream = source
        return _copy(stream, stack.enter_context(TemporaryDirectory(prefix="tiny-kws-")))
    except (OSError, TypeError, ValueError) as error:
        raise AudioError(f"{name}: cannot be read ({_reason(error)}), expected a readable sound file") from error


def _open_bytes(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise AudioError(f"{name}: not found, expected a sound file; check the path") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a folder, expected a sound file") from error


def _copy(stream: BinaryIO, folder: str) -> Path:
    """Copy a stream into `folder`; a WAV whose data size was left at 0 gets the one that stands for unknown."""
    if stream.seekable():
        stream.seek(0)
    path = Path(folder, "sound")
    with path.open("w+b") as copy:
        shutil.copyfileobj(stream, copy)
        if position := _unfinished_size(copy):
            copy.seek(position)
            copy.write(b"\xff\xff\xff\xff")
    return path


def _unfinished_size(stream: BinaryIO) -> int:
    """Where a WAV's data size stands if it is 0 although sound follows, as in one piped or cut short; 0 if not."""
    n_bytes = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if not re.fullmatch(rb"RIFF....WAVE", stream.read(12), re.DOTALL):
        return 0
    position = 12
    for _ in range(64):  # chunks before the data: a handful
        stream.seek(position)
        chunk, size = _chunk_header(stream)
        if chunk == b"data":
            following, following_size = _chunk_header(stream)
            is_chunk = re.fullmatch(rb"[ -~]{4}", following) and position + 16 + following_size <= n_bytes
            return position + 4 if size == 0 and following and not is_chunk else 0
        position += 8 + size + size % 2
    return 0


def _chunk_header(stream: BinaryIO) -> tuple[bytes, int]:
    return stream.read(4), int.from_bytes(stream.read(4), "little")


def _is_guess(sound_format: str, path: Path) -> bool:
    """Whether libsndfile did not know the content, went by the suffix and will decode anything."""
    with path.open("rb") as file:
        head = file.read(3)
    is_mp3 = head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    return sound_format == "RAW" or (sound_format == "MP3" and not is_mp3)


def _starts_again(path: Path, sound_format: str) -> bool:
    """Whether an Ogg or MP3 file is several, joined end to end; libsndfile reads the first and does not say so."""
    pattern = {"OGG": _OGG_PAGE, "MP3": _MP3_HEAD}.get(sound_format)
    begun, rest = False, b""
    with path.open("rb") as file:
        while pattern and (block := file.read(SEARCH_BYTES)):
            block = rest + block
            end = 0
            for match in pattern.finditer(block):
                is_first = sound_format == "MP3" or match[1][0] & 2  # the flag of the first page of a stream
                if is_first and begun:
                    return True
                begun = begun or sound_format == "MP3" or not is_first  # an Ogg may begin with several streams at once
                end = match.end()
            rest = block[max(end, len(block) - MAX_HEAD) :]
    return False


def _reason(error: Exception) -> str:
    """What a library says went wrong, on one line."""
    if isinstance(error, sf.LibsndfileError):
        # of an MP3 without a whole frame libsndfile says, beside the point, that the file does not exist
        text = "no whole frame" if error.code == NO_FRAME else error.error_string
    else:
        text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".")
