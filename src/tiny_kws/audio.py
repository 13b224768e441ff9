"""Sound in: files, byte streams and arrays to 16 kHz mono float32, and windows of it.

Integers are scaled to [-1, 1) first, channels mixed next, the mix resampled last (soxr, high quality).
Files are decoded in blocks, so their length does not matter to memory.
"""

from __future__ import annotations

import heapq
import logging
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import cache
from io import BufferedIOBase
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt
import soxr

from .config import CLIP_SAMPLES, SAMPLE_RATE
from .decoding import Source, decode
from .errors import AudioError, KwsError
from .media import Block

Samples = npt.NDArray[np.float32]

SOUND_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".w64", ".rf64"),
    *(".caf", ".m4a", ".m4b", ".mp4", ".mov", ".aac", ".3gp", ".webm", ".weba", ".mka", ".mkv", ".amr", ".wma", ".wmv"),
    *(".ac3", ".wv", ".ape", ".tta", ".spx", ".flv"),
}
"""What counts as a sound file when a folder is walked; a file named outright may have any suffix."""

OTHER_SUFFIXES = {".avi", ".dff", ".dsf", ".dss", ".ds2", ".mpc", ".mpeg", ".mpg", ".qcp", ".ra", ".rm", ".ts", ".vob"}
"""What holds sound that is not read: to be counted when a folder is walked, and converted."""

MIN_RATE, MAX_RATE = 1_000, 768_000
LOW_RATE = 11_000  # at which more words are missed than at 16 kHz, below it: docs/measure.md
MAX_LEVEL = 100.0  # 40 dB over full scale: louder floats are on another scale, such as that of 16-bit integers
MAX_CHANNELS = 64  # of an array; more means that its axes are swapped
MIX_FRAMES = 64  # for which it is decided together how channels are mixed
MIX_MEMORY = 64  # times as many frames before, by which it is decided
CANCELLED = 0.25  # of what the mean of channels that have nothing in common would hold: less, and they cancel
MIX_BLOCK = 2**16  # frames of an array that are mixed at once
SEARCH_STEP = SAMPLE_RATE // 100  # the loudest window is looked for in steps of 10 ms
HOP = SAMPLE_RATE // 4  # from one window to be classified to the next
MAX_WINDOWS = 128  # of a recording that are classified: those of half a minute, or the loudest of a longer one
PIPE_BYTES = 2**16  # of raw samples taken at once, at most
RAW_FORMATS = {
    "s8": "i1",
    "u8": "u1",
    "s16le": "<i2",
    "s16be": ">i2",
    "s24le": "<i4",
    "s24be": ">i4",
    "s32le": "<i4",
    "s32be": ">i4",
    "f32le": "<f4",
    "f32be": ">f4",
    "f64le": "<f8",
    "f64be": ">f8",
}
"""How ffmpeg and others call raw samples, and as what they are taken; those of 24 bits fill three bytes."""
_log = logging.getLogger(__name__)
_CONTAINER = re.compile(rb"RIFF|RF64|fLaC|OggS|ID3|FORM|\.snd|caff|....ftyp|\x1aE\xdf\xa3|#!AMR", re.DOTALL)


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


def stream_mono(source: Source) -> Generator[Samples, None, None]:
    """Decode a sound file, or a binary stream from its start, to blocks of 16 kHz mono float32.

    WAV, FLAC, OGG, MP3 and whatever else libsndfile knows by its content, of any rate from 1 kHz, depth and channel
    count; through PyAV or ffmpeg, where there is one, also M4A, WebM, AMR and what else phones and browsers record. A
    WAV whose header gives no length or a wrong one, as written to a pipe, is read to its end; files joined end to end
    are heard one after the other. Of one that was cut short what is left is heard, and a warning logged.
    Raises AudioError if it is missing, empty, not sound, damaged, or holds samples that are not numbers.
    """
    name = name_of(source)
    with closing(decode(source, name)) as blocks:
        yield from _to_mono(blocks, name)


def _to_mono(blocks: Iterable[Block], name: str) -> Iterator[Samples]:
    """Blocks of any rate and number of channels, which may change on the way, to 16 kHz mono."""
    converter, start_s = None, 0.0
    for rate, values in blocks:
        if converter is None or (converter.rate, converter.channels) != (rate, values.shape[1]):
            check_rate(rate, name)
            if converter is not None:
                yield converter.finish()
            converter = _MonoConverter(rate, values.shape[1])
        scaled = _scale(values)
        check_finite(scaled, name, start_s)
        start_s += len(scaled) / rate
        yield converter.push(scaled)
    if converter is None or start_s == 0:
        raise AudioError(f"{name}: holds no samples, expected some sound; download or record it again")
    yield converter.finish()


class _Mixer:
    """Channels of a stream, (frames, channels), to one: their mean, or one of them where they cancel in the mean.

    They do so where one is the other inverted, as of a balanced microphone at a stereo input. Every 64 frames it is
    decided anew, by those before, so that nothing waits and how the stream is divided into chunks makes no difference.
    """

    def __init__(self, channels: int) -> None:
        self._unfinished = np.zeros((0, channels + 1))  # the channels and their mean since the last decision
        self._energies = np.zeros((MIX_MEMORY, channels + 1))

    def push(self, values: npt.NDArray[np.floating]) -> Samples:
        """The mix of these frames."""
        if values.shape[1] == 1:
            return np.ascontiguousarray(values[:, 0], dtype=np.float32)
        mean = values.mean(axis=1, dtype=np.float64)
        held = np.concatenate([self._unfinished, np.column_stack([values, mean])])
        n_steps = len(held) // MIX_FRAMES
        steps = held[: n_steps * MIX_FRAMES].reshape(n_steps, MIX_FRAMES, held.shape[1])
        energies = np.concatenate([self._energies, np.einsum("sfc,sfc->sc", steps, steps)])
        recent = np.lib.stride_tricks.sliding_window_view(energies, MIX_MEMORY, axis=0).sum(axis=-1)
        n_before = len(self._unfinished)
        chosen = np.repeat(_choose(recent), MIX_FRAMES)[n_before : len(held)]
        self._unfinished, self._energies = held[n_steps * MIX_FRAMES :].copy(), energies[-MIX_MEMORY:].copy()
        mixed = mean if (chosen == values.shape[1]).all() else held[n_before + np.arange(len(chosen)), chosen]
        return np.ascontiguousarray(mixed, dtype=np.float32)


def _choose(energies: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Which column to take, by the energies (steps, channels and mean): the mean, or else the first loud channel."""
    channels, mean = energies[:, :-1], energies[:, -1]
    n_channels = channels.shape[1]
    first_loud: npt.NDArray[np.intp] = (channels >= channels.max(axis=1, keepdims=True) / 2).argmax(axis=1)
    return np.where(mean * n_channels < CANCELLED * channels.mean(axis=1), first_loud, n_channels)


class _MonoConverter:
    """A stream of scaled samples, (frames, channels) at `rate` Hz, to 16 kHz mono."""

    def __init__(self, rate: float, channels: int) -> None:
        self.rate, self.channels = rate, channels
        self._mixer = _Mixer(channels)
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1)

    def push(self, values: npt.NDArray[np.floating]) -> Samples:
        """What is ready with these."""
        mono = self._mixer.push(values)
        return mono if self._resampler is None else self._resampler.resample_chunk(mono)

    def finish(self) -> Samples:
        """What is left at the end."""
        none = np.zeros(0, np.float32)
        return none if self._resampler is None else self._resampler.resample_chunk(none, last=True)


class Converter:
    """A stream of sound in chunks, of any rate, channels and sample type, to 16 kHz mono float32.

    For what comes as it is recorded: microphones, pipes, connections. However the sound is divided into chunks, the
    samples that come out are the same. `name` is what errors call the stream, `sample_type` says what raw bytes hold:
    int8, int16, int32, uint8 or a type of float, little-endian unless it is big-endian, or a name of `RAW_FORMATS`.
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
        self._sample_bytes = 3 if str(sample_type) in ("s24le", "s24be") else self._sample_type.itemsize
        self.frame_bytes = channels * self._sample_bytes
        self.reset()

    def reset(self) -> None:
        """Begin a new stream of the same kind."""
        self._n_frames, self._rest = 0, b""
        self._mono = _MonoConverter(self.rate, self.channels)

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
        return self._mono.push(scaled)

    def push_bytes(self, data: bytes) -> Samples:
        """The same of raw bytes: samples of `sample_type`, channels interleaved; part of one may wait."""
        data = self._rest + data
        n_whole = len(data) - len(data) % self.frame_bytes
        ready = self.push(self._samples(data[:n_whole]).reshape(-1, self.channels))
        self._rest = data[n_whole:]
        return ready

    def _samples(self, data: bytes) -> npt.NDArray[Any]:
        full, used = self._sample_type.itemsize, self._sample_bytes
        if used == full:
            return np.frombuffer(data, self._sample_type)
        samples = np.zeros((len(data) // used, full), np.uint8)
        first = 0 if self._sample_type.str[0] == ">" else full - used  # the lowest bits are missing
        samples[:, first : first + used] = np.frombuffer(data, np.uint8).reshape(-1, used)
        return samples.view(self._sample_type)

    @property
    def n_waiting_bytes(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._rest)

    def finish(self) -> Samples:
        """What is left at the end of the stream; then a new one may begin."""
        left = self._mono.finish()
        self.reset()
        return left


def stream_pcm(
    stream: BufferedIOBase, rate: int = SAMPLE_RATE, channels: int = 1, sample_type: npt.DTypeLike = "s16le"
) -> Iterator[Samples]:
    """Raw samples, channels interleaved, to blocks of 16 kHz mono float32 as they come.

    What a pipe holds is given at once, without waiting for more; another rate costs up to 0.1 s in the resampler.
    `sample_type` is as for `Converter`. Raises AudioError for a rate or type out of range, or a sound file in place of
    raw samples, and at the end, after all the sound, if there was none or the last sample is not whole.
    """
    name = name_of(stream)  # type: ignore[arg-type]
    converter, n_bytes = Converter(rate, channels, name, sample_type), 0
    while data := stream.read1(PIPE_BYTES):
        if n_bytes == 0 and _CONTAINER.match(data):
            raise AudioError(f"{name}: found a sound file, expected raw samples; name the file, or pipe its samples")
        n_bytes += len(data)
        yield converter.push_bytes(data)
    rest, left = converter.n_waiting_bytes, converter.finish()
    if len(left):
        yield left
    if rest:
        raise AudioError(
            f"{name}: ends in the middle of a sample ({n_bytes} bytes), expected a multiple of "
            f"{converter.frame_bytes}, {8 * converter.frame_bytes // channels} bits for each of {channels} channels; "
            "check the program that wrote it"
        )
    if n_bytes == 0:
        raise AudioError(f"{name}: is empty (0 bytes), expected raw samples; check the program that writes them")


def read_mono(source: Source) -> Samples:
    """The whole of a sound file as 16 kHz mono float32, (samples,). Raises AudioError as `stream_mono` does."""
    return np.concatenate(list(stream_mono(source)))


def windows_to_classify(blocks: Iterable[Samples], n_samples: int = CLIP_SAMPLES) -> list[Window]:
    """The windows of a recording in which its word may be, the most energetic one first; just that if it is no longer.

    They begin every quarter of a second, and one ends with the recording. Of a long one the 128 loudest are kept, by
    the mean amplitude, in which a click counts little.
    """
    pool = _LoudWindows(n_samples)
    return [most_energetic_window(pool.passing(blocks), n_samples), *pool.windows()]


class _LoudWindows:
    def __init__(self, n_samples: int) -> None:
        self._n_samples = n_samples
        self._held = self._last = np.zeros(0, np.float32)
        self._start = self._n_heard = 0
        self._kept: list[tuple[float, int, Samples]] = []

    def passing(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Give the blocks on as they are."""
        for block in blocks:
            self._held = np.concatenate([self._held, block])
            self._last = np.concatenate([self._last, block])[-self._n_samples :].copy()
            self._n_heard += len(block)
            while len(self._held) >= self._n_samples:
                self._keep(self._start, self._held[: self._n_samples])
                self._held = self._held[HOP:]
                self._start += HOP
            yield block

    def _keep(self, start: int, window: Samples) -> None:
        steps = window[: len(window) // SEARCH_STEP * SEARCH_STEP].reshape(-1, SEARCH_STEP)
        loudness = float(np.sqrt(np.square(steps, dtype=np.float64).mean(axis=1)).mean())
        entry = (loudness, -start, window.copy())
        heapq.heappush(self._kept, entry) if len(self._kept) < MAX_WINDOWS else heapq.heappushpop(self._kept, entry)

    def windows(self) -> list[Window]:
        """Those that are kept, in the order of time; none of a recording that is no longer than one."""
        if self._n_heard <= self._n_samples:
            return []
        last = Window(self._last, (self._n_heard - self._n_samples) / SAMPLE_RATE)
        return [
            *(Window(samples, -start / SAMPLE_RATE) for _, start, samples in sorted(self._kept, key=_by_time)),
            last,
        ]


def _by_time(entry: tuple[float, int, Samples]) -> int:
    return -entry[1]


def read_window(source: Source, n_samples: int = CLIP_SAMPLES) -> Window:
    """The most energetic window of a sound file. Raises AudioError as `stream_mono` does."""
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
    """(samples,) or (samples, channels) to one channel, (samples,) float32: the mean, unless the channels cancel."""
    if audio.ndim == 1:
        return np.ascontiguousarray(audio, dtype=np.float32)
    mixer = _Mixer(audio.shape[1])
    return np.concatenate([mixer.push(audio[i : i + MIX_BLOCK]) for i in range(0, len(audio), MIX_BLOCK)])


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


def is_sound_name(name: str) -> bool:
    """Whether a file of this name counts as sound when a folder is walked: by its suffix, and if it is not hidden.

    >>> [is_sound_name(name) for name in ("a.WAV", "memo.m4a", "._a.wav", "notes.txt")]
    [True, True, False, False]
    """
    return _suffix(name) in SOUND_SUFFIXES


def _suffix(name: str) -> str:
    """In small letters; empty of a hidden file."""
    return "" if name.startswith(".") else Path(name).suffix.lower()


def find_sound_files(
    folder: str | os.PathLike[str], on_error: Callable[[str, KwsError], None] | None = None
) -> list[Path]:
    """The sound files below `folder`, sorted; hidden files and folders hold none.

    `on_error(folder, error)` is told of folders below that cannot be read, which raise without it, and of how many
    files of formats that are not read there are. Raises AudioError if there are no sound files.
    """
    name, folder = name_of(folder), Path(folder)
    if not folder.is_dir():
        raise AudioError(f"{name}: not found, expected a folder of sound files; check the path")
    unreadable: list[OSError] = []
    found: list[Path] = []
    others: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = [below for below in folders if not below.startswith(".")]
        found += [path for path in (Path(parent, file) for file in files if is_sound_name(file)) if path.is_file()]
        others += [suffix for file in files if (suffix := _suffix(file)) in OTHER_SUFFIXES]
    for error in unreadable:
        below = name_of(error.filename)
        problem = AudioError(f"{below}: cannot be read ({error.strerror}), passed over with all that is in it")
        if on_error is None:
            raise problem from error
        on_error(below, problem)
    if others and on_error is not None:
        kinds = " ".join(sorted(set(others)))
        on_error(name, AudioError(f"{name}: passed over {len(others)} files of other formats ({kinds}); convert them"))
    if not found:
        raise AudioError(f"{name}: found no sound files in this folder, expected {' '.join(sorted(SOUND_SUFFIXES))}")
    return sorted(found)


def check_rate(rate: float, name: str) -> None:
    """Raise AudioError unless `rate` is one that sound is recorded at; a low one is warned of, once."""
    if not (isinstance(rate, Real) and MIN_RATE <= rate <= MAX_RATE):
        raise AudioError(f"{name}: sample rate is {rate!r} Hz, expected {MIN_RATE} to {MAX_RATE} Hz")
    if rate < LOW_RATE:
        _warn_of_low_rate()


@cache
def _warn_of_low_rate() -> None:
    """Log it; kept in a cache, so that it is said once a process."""
    _log.warning(
        "some sound was recorded at under %d Hz, expected %d Hz: more of its words are missed; record at a higher rate",
        LOW_RATE,
        SAMPLE_RATE,
    )


def check_finite(audio: npt.NDArray[np.floating], name: str, start_s: float) -> None:
    """Raise AudioError if `audio`, any shape, holds NaN, infinity or values far beyond [-1, 1]."""
    peak = max(audio.max(initial=0.0), -audio.min(initial=0.0))
    if not peak <= MAX_LEVEL:  # NaN is not
        found = f"values up to {peak:g}" if np.isfinite(peak) else "NaN or infinity"
        raise AudioError(
            f"{name}: holds {found} after {start_s:.2f} s, expected samples in [-1, 1]; check the program that wrote it"
        )


def _as_array(audio: npt.ArrayLike) -> npt.NDArray[Any]:
    if isinstance(audio, (bytes, bytearray)) or (isinstance(audio, memoryview) and audio.itemsize == 1):
        raise AudioError(
            f"audio is {type(audio).__name__}, which does not say what it holds, expected an array of samples; for raw "
            '16-bit samples pass np.frombuffer(data, "<i2"), for a sound file io.BytesIO(data)'
        )
    try:
        return np.asarray(audio)
    except ValueError as error:
        raise AudioError("audio is ragged, expected an array of (samples,) or (samples, channels)") from error
    except (TypeError, RuntimeError) as error:  # tensors with gradients, on a GPU, or of types that numpy has not
        reason = " ".join(str(error).split())
        raise AudioError(
            f"audio is {type(audio).__name__} and not an array ({reason}), expected one; for a tensor pass "
            "tensor.detach().cpu().float().numpy()"
        ) from error


def _sample_type(name: npt.DTypeLike, stream: str) -> np.dtype[Any]:
    """The type of samples that `name` is. Raises AudioError, naming the `stream`, if sound does not come in it."""
    try:
        sample_type = np.dtype(RAW_FORMATS.get(name, name) if isinstance(name, str) else name)
        sample_type = sample_type if sample_type.str[0] == ">" else sample_type.newbyteorder("<")
        _scale(np.zeros(0, sample_type))
    except (TypeError, AudioError) as error:
        raise AudioError(
            f"{stream}: has samples of type {name!r}, expected int8, int16, int32, uint8 or floats, or one of "
            f"{', '.join(RAW_FORMATS)}"
        ) from error
    return sample_type


def _scale(values: npt.NDArray[Any]) -> npt.NDArray[np.floating]:
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128.0) / 128.0
    if values.dtype.newbyteorder("=") in (np.int8, np.int16, np.int32):
        return values.astype(np.float64) / 2.0 ** (8 * values.itemsize - 1)
    if np.issubdtype(values.dtype, np.floating):
        return values
    raise AudioError(f"audio has type {values.dtype}, expected int8, int16, int32, uint8 or floats; convert it")
