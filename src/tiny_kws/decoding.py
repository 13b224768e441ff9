"""Sound files and byte streams to blocks of samples as they were recorded, of any rate and number of channels."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import BinaryIO

import soundfile as sf

from . import containers, media
from .errors import AudioError, install_hint
from .files import is_full
from .media import Block

Source = str | os.PathLike[str] | BinaryIO

BLOCK_SECONDS = 1  # what is lost before a place where a file is damaged
BLOCK_VALUES = 2**22  # frames x channels read at once, at most: 16 MiB of float32
SHORT_SECONDS = 0.05  # that a recording may lack of what its header promises: some encoders count what they pad with
NOT_RECOGNISED, NO_FRAME = 1, 7  # SF_ERR_UNRECOGNISED_FORMAT and SFE_BAD_FILE of libsndfile
MOST_FRAMES = 2**62  # a length above is one that libsndfile does not know
UNKNOWN_SIZE = 0x7FFF0000  # bytes: above lies what is written where the size is not known yet
# what libsndfile tells of sizes in headers: of WAV, AIFF, AU, W64, RF64
_SIZES = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)$", re.MULTILINE)
_log = logging.getLogger(__name__)


def decode(source: Source, name: str) -> Generator[Block, None, None]:
    """Blocks of a sound file, or of a binary stream from its start, each with its rate.

    Raises AudioError, in which the source is called `name`, if it is missing, empty, not sound or damaged.
    """
    with ExitStack() as stack:
        path = _on_disk(source, name, stack)
        for piece in _recordings(path, name):
            yield from _Recording(piece, name).blocks()


def is_cut_short(path: Path) -> bool:
    """Whether a file lacks sound that its header promises, as far as a WAV, AIFF, AU, W64 or RF64 tells."""
    try:
        with sf.SoundFile(os.fsencode(path) if os.name != "nt" else path) as file:
            return _is_short(file.frames, _promised_frames(file, path), file.samplerate)
    except sf.LibsndfileError:
        return False


def _is_short(n_frames: int, n_promised: int, rate: int) -> bool:
    return n_frames < n_promised - SHORT_SECONDS * rate


class _Recording:
    """A file of one recording, decoded by libsndfile, or from where that fails on, by another decoder."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.rate = 0  # until it was opened
        self.n_frames = 0  # that were decoded
        self.n_promised = 0  # by its header, as far as that tells

    def blocks(self) -> Iterator[Block]:
        """All that can be decoded. Raises AudioError, after what comes before, where it is damaged."""
        try:
            yield from self._through_libsndfile()
        except sf.LibsndfileError as error:
            failure = error
        else:
            self._warn_if_short()
            return
        yield from self._otherwise(failure)

    def _through_libsndfile(self) -> Iterator[Block]:
        # bytes, as soundfile cannot encode names that are not Unicode; on Windows all are
        with _ForwardFile(self.path if os.name == "nt" else os.fsencode(self.path)) as file:
            if _is_guess(file.format, self.path):
                raise sf.LibsndfileError(NOT_RECOGNISED)
            self.rate, self.n_promised = file.samplerate, _promised_frames(file, self.path)
            n_block = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
            # Behind a FLAC's last frame tags may lie, which libsndfile would take for a damaged frame.
            end = file.frames if file.format == "FLAC" else MOST_FRAMES
            while len(block := file.read(min(n_block, end - self.n_frames), dtype="float32", always_2d=True)):
                self.n_frames += len(block)
                yield file.samplerate, block

    def _otherwise(self, failure: sf.LibsndfileError) -> Iterator[Block]:
        """What libsndfile did not decode, through another decoder."""
        kind = containers.kind_of(self.path)
        if kind is None:
            raise self._error(_reason(failure)) from failure
        known, n_decoded = self.n_frames, 0
        try:
            for rate, block in media.decode(self.path, kind.ffmpeg):
                n_decoded += len(block)
                new = block[max(0, len(block) - (n_decoded - known)) :] if n_decoded > known else block[:0]
                self.rate, self.n_frames = rate, max(known, n_decoded)
                yield rate, new
        except media.NoDecoderError:
            raise self._error_without_decoder(kind.name, _reason(failure)) from failure
        except media.DecodingError as error:
            raise self._error(_reason(error if failure.code == NOT_RECOGNISED else failure)) from error
        if n_decoded < max(1, known, self.n_promised):
            raise self._error(_reason(failure)) from failure

    def _warn_if_short(self) -> None:
        if _is_short(self.n_frames, self.n_promised, self.rate):
            _log.warning(
                "%s: cut short, holds %.2f s of the %.2f s that its header promises, expected all of them; only these "
                "are used, so download or record it again",
                self.name,
                self.n_frames / self.rate,
                self.n_promised / self.rate,
            )

    def _error(self, reason: str) -> AudioError:
        if not self.rate:
            return AudioError(f"{self.name}: found no sound in it ({reason}), expected a WAV, FLAC, OGG or MP3 file")
        return AudioError(
            f"{self.name}: damaged after {self.n_frames / self.rate:.2f} s ({reason}); "
            "expected a complete sound file, so download or record it again"
        )

    def _error_without_decoder(self, kind: str, reason: str) -> AudioError:
        """The same, and how to convert it or have it read."""
        hint = f"or let PyAV read it: {install_hint('media')}"
        if self.rate:
            return AudioError(f"{self._error(reason)}, {hint}")
        return AudioError(
            f"{self.name}: found {kind} ({reason}), expected a WAV, FLAC, OGG or MP3 file; convert it "
            f"(ffmpeg -i {shlex.quote(Path(self.name).name)} sound.wav), {hint}"
        )


class _ForwardFile(sf.SoundFile):  # type: ignore[misc]
    """A sound file read from start to end: soundfile's seek after each read has libmpg123 complain on stderr."""

    def seekable(self) -> bool:
        return False


def _promised_frames(file: sf.SoundFile, path: Path) -> int:
    """How many frames a file says that it holds, 0 if it does not say it."""
    if file.format == "FLAC" or (file.format == "MP3" and containers.tells_length(path)):
        return int(file.frames) if file.frames < MOST_FRAMES else 0
    sizes = [(int(claimed), int(found)) for claimed, found in _SIZES.findall(file.extra_info)]
    known = [(claimed, found) for claimed, found in sizes if found > 0 and claimed < UNKNOWN_SIZE]
    return max((file.frames * claimed // found for claimed, found in known), default=0)


def _recordings(path: Path, name: str) -> Iterator[Path]:
    """As `containers.recordings`. Raises AudioError if a copy cannot be made."""
    if path.stat().st_size == 0:
        raise AudioError(f"{name}: is empty (0 bytes), expected a sound file; download or record it again")
    try:
        yield from containers.recordings(path)
    except OSError as error:
        raise _unreadable(name, error) from error


def _on_disk(source: Source, name: str, stack: ExitStack) -> Path:
    """A source as a path, since libsndfile would swallow a Ctrl-C when it calls back into Python for bytes.

    The path of a copy that goes with `stack` if the source has none, or cannot be decoded as it lies there.
    """
    try:
        if isinstance(source, (str, os.PathLike)):
            path = Path(os.fsdecode(source))
            stream: BinaryIO = stack.enter_context(_open_bytes(path, name))
            if stream.seekable() and path.suffix.lower() != ".raw":  # by which libsndfile takes anything for samples
                return path
        else:
            stream = source
        return _copy(stream, stack.enter_context(TemporaryDirectory(prefix="tiny-kws-")))
    except (OSError, TypeError, ValueError) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> AudioError:
    """What to say of a source that cannot be read, or copied to where it can be."""
    if isinstance(error, OSError) and is_full(error):
        return AudioError(
            f"{name}: no room for a copy of it in {gettempdir()} ({_reason(error)}), expected enough; "
            "free space there, or set TMPDIR to a folder on another disk"
        )
    if isinstance(error, FileNotFoundError) and error.filename is None:  # no folder that tempfile can write to
        return AudioError(
            f"{name}: cannot be copied ({_reason(error)}), expected a folder with room for a copy of it; "
            "free space, or set TMPDIR to a folder on another disk"
        )
    return AudioError(f"{name}: cannot be read ({_reason(error)}), expected a readable sound file")


def _open_bytes(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise AudioError(f"{name}: not found, expected a sound file; check the path") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a folder, expected a sound file") from error


def _copy(stream: BinaryIO, folder: str) -> Path:
    if stream.seekable():
        stream.seek(0)
    path = Path(folder, "sound")
    with path.open("wb") as copy:
        shutil.copyfileobj(stream, copy)
    return path


def _is_guess(sound_format: str, path: Path) -> bool:
    """Whether libsndfile did not know the content, went by the suffix and will decode anything."""
    with path.open("rb") as file:
        head = file.read(3)
    is_mp3 = head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    return sound_format == "RAW" or (sound_format == "MP3" and not is_mp3)


def _reason(error: Exception) -> str:
    """What a library says went wrong, on one line."""
    if isinstance(error, sf.LibsndfileError):
        # of an MP3 without a whole frame libsndfile says, beside the point, that the file does not exist
        text = "no whole frame" if error.code == NO_FRAME else error.error_string
    else:
        text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".")
