"""What a sound file is by its first bytes, where the recordings in it begin, where a WAV's header says too little."""

from __future__ import annotations

import mmap as memory_map
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

COPY_BYTES = 2**20  # at once
SCANNED_BYTES = 2**20
HEAD_BYTES = 64  # enough to know a file by
MAX_CHUNKS = 64  # of a WAV that are looked at: there is a handful
TAG_BYTES = 1024  # behind a WAV's samples: a tag of a foreign kind, and not samples that its header leaves out
WAV_LIMIT = 2**32  # bytes that the sizes of a plain WAV can express
MP3_FRAMES = 3  # in a row: no other file holds them by chance
MP3_JUNK = 2**20  # bytes before the first frame, at most


class Kind(NamedTuple):
    """A kind of file: what people call it, and by which name ffmpeg's libraries read it."""

    name: str
    ffmpeg: str


_KINDS = {
    rb"RIFF....WAVE|RF64....WAVE": Kind("a WAV file", "wav"),
    rb"fLaC": Kind("a FLAC file", "flac"),
    rb"OggS": Kind("an Ogg file", "ogg"),
    rb"FORM....AIF": Kind("an AIFF file", "aiff"),
    rb"\.snd": Kind("an AU file", "au"),
    rb"caff": Kind("a CAF file", "caf"),
    rb"....ftyp": Kind("an MP4 or M4A file", "mov"),
    rb"\x1aE\xdf\xa3": Kind("a WebM or Matroska file", "matroska"),
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Kind("a WMA file", "asf"),
    rb"#!AMR": Kind("an AMR file", "amr"),
    rb"\xff[\xf0\xf1\xf8\xf9]": Kind("an AAC file", "aac"),
    rb"\xff[\xe2\xe3\xf2-\xf5\xfa-\xfd]": Kind("an MP3 file", "mp3"),
    rb"\x0bw": Kind("an AC-3 file", "ac3"),
    rb"wvpk": Kind("a WavPack file", "wv"),
    rb"MAC ": Kind("a Monkey's Audio file", "ape"),
    rb"TTA1": Kind("a True Audio file", "tta"),
    rb"FLV\x01": Kind("an FLV file", "flv"),
}
_PATTERNS = [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in _KINDS.items()]
_STARTS = {  # what a recording begins with, behind another too
    "wav": re.compile(rb"RIFF....WAVEfmt ", re.DOTALL),
    "flac": re.compile(rb"fLaC\0\0\0\x22"),
    "ogg": re.compile(rb"OggS\0(.)", re.DOTALL),
    "mp3": re.compile(rb"\xff[\xe2-\xff]..\0{9,32}(?:Xing|Info)", re.DOTALL),  # a frame that tells the file's length
}
_MP3_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
_MP3_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),  # of MPEG 2 and 2.5, by index
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),  # of MPEG 1
)
_MP3_RATES = (44_100, 48_000, 32_000, 0)


@contextmanager
def _mapped(path: Path) -> Iterator[mmap]:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def kind_of(path: Path) -> Kind | None:
    """What the file at `path` is by its first bytes, or by those behind an ID3 tag; None if nothing is known of it."""
    with _mapped(path) as data:
        return _kind_of(data)


def _kind_of(data: mmap) -> Kind | None:
    head = data[:HEAD_BYTES]
    is_tagged = head[:3] == b"ID3" and len(head) >= 10
    if is_tagged:
        position = 10 + sum(byte << 7 * i for i, byte in enumerate(head[9:5:-1]))
        head = data[position : position + HEAD_BYTES]
    known = next((kind for pattern, kind in _PATTERNS if pattern.match(head)), None)
    return Kind("an MP3 file", "mp3") if known is None and is_tagged else known


def recordings(path: Path) -> Iterator[Path]:
    """The recordings in the file at `path`, in their order, each as a file that a decoder reads to its end.

    Nearly always that is the file itself. Else it is a copy, gone when the next is asked for: of each of several
    joined end to end; of an MP3 without what lies before its first frame, or with its length; of a WAV whose header
    says too little.
    """
    with _mapped(path) as data:
        pieces = list(_pieces(data))
        n_bytes = len(data)
    for start, end, head in pieces:
        if (start, end, head) == (0, n_bytes, b""):
            yield path
        else:
            with TemporaryDirectory(prefix="tiny-kws-") as folder:
                copy = Path(folder, "recording")
                _write_piece(path, start, end, copy, head)
                yield copy


def _write_piece(path: Path, start: int, end: int, to: Path, head: bytes) -> None:
    """Write the bytes from `start` to `end` of a file behind `head`."""
    with path.open("rb") as file, to.open("wb") as copy:
        copy.write(head)
        file.seek(start)
        while start < end and (block := file.read(min(end - start, COPY_BYTES))):
            copy.write(block)
            start += len(block)


def _pieces(data: mmap) -> Iterator[tuple[int, int, bytes]]:
    """Where each recording begins and ends, and what is to be written before it."""
    kind = _kind_of(data)
    starts = [_first_mp3_frame(data)] if kind is None else _starts(data, kind.ffmpeg)
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        if data[start : start + 4] == b"RIFF":
            begin, head = _wav_head(data, start, end)
            yield begin, end, head
        elif start or (kind and kind.ffmpeg == "mp3"):
            begin, head = _mp3_head(data, start, end)
            yield begin, end, head
        else:
            yield start, end, b""


def _starts(data: mmap, container: str) -> list[int]:
    """Where recordings of one kind begin in a file: at 0, and wherever others are joined to it."""
    begins = _STARTS.get(container)
    found: list[int] = []
    is_open = False  # an Ogg file may begin with several streams at once
    for match in _matches(begins, data) if begins else ():
        is_first = container != "ogg" or match[1][0] & 2  # the flag of the first page of a stream
        if is_first and (not found or is_open):
            found.append(match.start())
        is_open = container != "ogg" or not is_first
    return [0, *found[1:]]


def _matches(pattern: re.Pattern[bytes], data: mmap) -> Iterator[re.Match[bytes]]:
    """Every match in a file; what was looked at is let go, so that long files take no more memory."""
    for start in range(0, len(data), SCANNED_BYTES):
        end = start + SCANNED_BYTES
        for match in pattern.finditer(data, start, min(len(data), end + HEAD_BYTES)):
            if match.start() < end:
                yield match
        if hasattr(data, "madvise"):
            data.madvise(memory_map.MADV_DONTNEED, start, min(SCANNED_BYTES, len(data) - start))


def tells_length(path: Path) -> bool:
    """Whether an MP3 begins with a frame that tells how long it is."""
    with _mapped(path) as data:
        return _STARTS["mp3"].search(data) is not None


def _first_mp3_frame(data: mmap) -> int:
    """Where the first of several MP3 frames in a row begins, near a file's start; 0 if there are none."""
    return next((position for position, _ in _mp3_frames(data, 0, MP3_JUNK)), 0)


def _mp3_frames(data: mmap, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Where MP3 frames begin, with their headers of four bytes; what is none is passed over."""
    position = start
    for match in _MP3_FRAME.finditer(data, start, end):
        if match.start() >= position and _is_mp3(data, match.start()):
            position = match.start()
            while position < end and (n_bytes := _mp3_frame_bytes(data[position : position + 4])):
                yield position, data[position : position + 4]
                position += n_bytes


def _is_mp3(data: mmap, position: int) -> bool:
    """Whether several frames of one kind in a row begin here."""
    kind = data[position : position + 2]
    for _ in range(MP3_FRAMES):
        n_bytes = _mp3_frame_bytes(data[position : position + 4])
        if not n_bytes or data[position : position + 2] != kind:
            return False
        position += n_bytes
    return True


def _mp3_frame_bytes(header: bytes) -> int:
    """The length of the MP3 frame that begins with these four bytes, 0 if none does."""
    if len(header) < 4 or not _MP3_FRAME.match(header):
        return 0
    version = header[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    is_first = version == 3
    rate = _MP3_RATES[header[2] >> 2 & 3] >> {3: 0, 2: 1}.get(version, 2)
    kbits, padding = _MP3_KBITS[is_first][header[2] >> 4], header[2] >> 1 & 1
    return (144_000 if is_first else 72_000) * kbits // rate + padding if kbits and rate else 0


def _mp3_head(data: mmap, start: int, end: int) -> tuple[int, bytes]:
    """Where an MP3 begins behind a frame that tells its length, by which libsndfile goes, and that frame.

    `start` and nothing where there is such a frame and it is right, or the bit rate stays the same.
    """
    if tag := _STARTS["mp3"].search(data, start, end):
        return _mp3_head_of_true_size(data, tag, end) or (start, b"")
    headers = [header for _, header in _mp3_frames(data, start, end)]
    if len({header[2] >> 4 for header in headers}) < 2:
        return start, b""
    _, version, rate, mode = headers[0]
    header = bytes([0xFF, version | 1, rate & 0x0C | 0x90, mode])  # no checksum, no padding, a middling bit rate
    is_mono, is_first = mode >> 6 == 3, version & 8
    n_side = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    of_length = bytes(n_side) + b"Xing" + struct.pack(">II", 1, len(headers))
    return start, (header + of_length).ljust(_mp3_frame_bytes(header), b"\0")


def _mp3_head_of_true_size(data: mmap, tag: re.Match[bytes], end: int) -> tuple[int, bytes] | None:
    """The same of an MP3 that was cut short: libmpg123 complains by itself, on standard error, of a false size."""
    start, flags = tag.start(), int.from_bytes(data[tag.end() : tag.end() + 4], "big")
    frame = bytearray(data[start : start + _mp3_frame_bytes(data[start : start + 4])])
    at = tag.end() - start + 4 + (4 if flags & 1 else 0)  # the number of frames comes before that of bytes
    if not flags & 2 or at + 4 > len(frame):
        return None
    told = int.from_bytes(frame[at : at + 4], "big")
    if abs(told - (end - start)) <= told / 100:
        return None
    frame[at : at + 4] = (end - start).to_bytes(4, "big")
    return start + len(frame), bytes(frame)


def _wav_head(data: mmap, start: int, end: int) -> tuple[int, bytes]:
    """Where the samples of a WAV begin, and what is to be written before them; `start` and nothing if it is right.

    Its header says too little if it says 0, in a file that was piped or cut short, or what is left of over 4 GiB.
    """
    position, size = _find_data(data, start + 12)
    begin = position + 8
    n_behind = end - begin - size
    if not position or n_behind <= (TAG_BYTES if size else 0) or _is_chunk(data, begin + size, size % 2, end):
        return start, b""
    chunks, n_bytes = data[start + 12 : position], end - begin
    if n_bytes + len(chunks) + TAG_BYTES < WAV_LIMIT:
        return begin, b"RIFF\xff\xff\xff\xffWAVE" + chunks + b"data\xff\xff\xff\xff"
    sizes = struct.pack("<IQQQI", 28, 4 + 36 + len(chunks) + 8 + n_bytes, n_bytes, 0, 0)
    return begin, b"RF64\xff\xff\xff\xffWAVEds64" + sizes + chunks + b"data\xff\xff\xff\xff"


def _find_data(data: mmap, position: int) -> tuple[int, int]:
    """Where a WAV's data chunk begins, looked for from its first chunk on, and how long it says it is; 0 for none."""
    for _ in range(MAX_CHUNKS):
        chunk, size = _chunk_at(data, position)
        if chunk == b"data":
            return position, size
        position += 8 + size + size % 2
    return 0, 0


def _chunk_at(data: mmap, position: int) -> tuple[bytes, int]:
    return data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")


def _is_chunk(data: mmap, position: int, padding: int, end: int) -> bool:
    """Whether a chunk follows, which samples are not likely to look like."""
    for begin in (position, position + padding):
        chunk, size = _chunk_at(data, begin)
        if re.fullmatch(rb"[ -~]{4}", chunk) and begin + 8 + size <= end:
            return True
    return False
