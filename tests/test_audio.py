"""Sound of any container, depth, rate and channel count becomes one 16 kHz signal; all else is one clear line."""

import io
import os
import struct
import tempfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_kws import audio, containers, decoding
from tiny_kws.audio import (
    Converter,
    find_sound_files,
    from_array,
    most_energetic_window,
    name_of,
    one_second,
    read_mono,
    read_window,
    stream_mono,
    stream_pcm,
)
from tiny_kws.errors import AudioError

TONE_HZ, AMPLITUDE = 440.0, 0.5
MIB = 2**20
EXACT = {"PCM_U8": 6e-3, "PCM_16": 1e-4, "PCM_24": 1e-4, "PCM_32": 1e-4, "FLOAT": 1e-4, "DOUBLE": 1e-4}
LOSSY = {"VORBIS": 0.05, "OPUS": 0.05, "MPEG_LAYER_III": 0.05}
TOLERANCES = EXACT | LOSSY
KINDS = [
    *[("WAV", subtype) for subtype in EXACT],
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
COMPRESSED = [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
NO_CODEC = {("OPUS", 44_100), ("OPUS", 96_000), ("MPEG_LAYER_III", 96_000)}
TONES = [
    (kind, rate, channels)
    for kind in KINDS
    for rate in (8_000, 44_100, 48_000, 96_000)
    for channels in (1, 2)
    if (kind[1], rate) not in NO_CODEC
]
no_limits = settings(deadline=None)


def tone(n_samples: int, rate: int = 16_000) -> np.ndarray:
    return AMPLITUDE * np.sin(2 * np.pi * TONE_HZ / rate * np.arange(n_samples))


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


def assert_tone(samples: np.ndarray, tolerance: float) -> None:
    """The interior is the tone at its frequency and amplitude, and nothing else."""
    inside = samples[2000:-2000].astype(np.float64)
    phase = 2 * np.pi * TONE_HZ / 16_000 * np.arange(len(inside))
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, inside, rcond=None)
    assert np.hypot(*weights) == pytest.approx(AMPLITUDE, rel=tolerance)
    assert np.sqrt(np.mean((inside - basis @ weights) ** 2)) < tolerance


def encoded(values: np.ndarray, rate: int = 16_000, kind: tuple[str, str] = ("WAV", "PCM_16")) -> bytes:
    file = io.BytesIO()
    sf.write(file, values, rate, format=kind[0], subtype=kind[1])
    return file.getvalue()


def wav_bytes(
    payload: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = 16_000,
    bits: int = 16,
    align: int | None = None,
    data_size: int | None = None,
    riff_size: int | None = None,
    before: bytes = b"",
) -> bytes:
    """A WAV file whose header says what it is told to; `before` are chunks between `fmt ` and `data`."""
    align = channels * bits // 8 if align is None else align
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align % 2**16, bits)
    size = len(payload) if data_size is None else data_size
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + before + b"data" + struct.pack("<I", size) + payload
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def pcm16(values: np.ndarray) -> np.ndarray:
    return np.round(values * 32767).astype("<i2")


def error_of(source: audio.Source) -> str:
    """The message for a source that cannot be read: one line, its name, what was expected."""
    with pytest.raises(AudioError) as caught:
        read_mono(source)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"{name_of(source)}: ")
    assert "expected " in message
    return message


def read_or_error(content: bytes) -> np.ndarray | None:
    """The samples in `content`, or nothing if it is refused in the proper way."""
    try:
        return read_mono(io.BytesIO(content))
    except AudioError:
        error_of(io.BytesIO(content))
        return None


def finite_or_error(content: bytes) -> None:
    samples = read_or_error(content)
    if samples is not None:
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert np.isfinite(samples).all()
        assert len(samples) < 10**7


SOUNDS = {
    kind: encoded(noise(6_000) + tone(6_000), kind=kind) for kind in [("WAV", "PCM_16"), ("WAV", "FLOAT"), *COMPRESSED]
}


class TestFormats:
    @pytest.mark.parametrize(("kind", "rate", "channels"), TONES)
    def test_same_tone(self, kind, rate, channels, tmp_path):
        """A tone in any container, rate and channel count keeps its frequency, amplitude and length at 16 kHz."""
        one = tone(rate * 3 // 2, rate)
        path = tmp_path / f"tone.{kind[0].lower()}"
        sf.write(path, np.stack([one * 1.6, one * 0.4], axis=1) if channels == 2 else one, rate, kind[1])
        samples = read_mono(path)
        assert samples.dtype == np.float32
        assert abs(len(samples) - 24_000) <= 1
        assert_tone(samples, TOLERANCES[kind[1]])

    def test_exact(self, tmp_path):
        """16-bit 16 kHz mono comes out as its integers over 32768, to the bit."""
        values = np.arange(-32768, 32768, 3).astype("<i2")
        sf.write(tmp_path / "ramp.wav", values, 16_000)
        np.testing.assert_array_equal(read_mono(tmp_path / "ramp.wav"), values.astype(np.float32) / 32768)

    @pytest.mark.parametrize("bits", [8, 16, 24, 32])
    def test_no_wrap(self, bits, tmp_path):
        """Integers are scaled before channels are averaged: the largest beside the largest or smallest do not wrap."""
        top = 2 ** (bits - 1) - 1
        frames = np.array([[top, top], [top, -top - 1], [-top - 1, -top - 1]], np.int32)
        subtype = "PCM_U8" if bits == 8 else f"PCM_{bits}"
        sf.write(tmp_path / "extremes.wav", frames << (32 - bits), 16_000, subtype)
        np.testing.assert_allclose(
            read_mono(tmp_path / "extremes.wav"), [top / (top + 1), -0.5 / (top + 1), -1], atol=1e-7
        )

    @pytest.mark.parametrize("suffix", [".txt", ".raw", ".RAW", ".mp3", ".flac", ""])
    def test_any_suffix(self, suffix, tmp_path):
        """A WAV is read under any suffix."""
        path = tmp_path / f"sound{suffix}"
        path.write_bytes(encoded(tone(16_000)))
        assert_tone(read_mono(path), 1e-4)

    def test_overshoot(self, tmp_path):
        """A float recording that runs past full scale is not clipped."""
        sf.write(tmp_path / "hot.wav", np.array([1.5, -1.5, 0.0]), 16_000, "FLOAT")
        np.testing.assert_array_equal(read_mono(tmp_path / "hot.wav"), [1.5, -1.5, 0.0])


class TestStreaming:
    @pytest.mark.parametrize("rate", [16_000, 44_100])
    @pytest.mark.parametrize("kind", [("WAV", "PCM_16"), *COMPRESSED], ids="-".join)
    def test_blocks_equal_whole(self, kind, rate, tmp_path):
        """Reading in blocks of any size gives what reading at once gives."""
        rate = 48_000 if (kind[1], rate) in NO_CODEC else rate
        path = tmp_path / "sound"
        path.write_bytes(encoded(np.stack([noise(rate), noise(rate, seed=1)], axis=1), rate, kind))
        values, _ = sf.read(path, dtype="float32")
        whole = soxr.resample(values.mean(axis=1), rate, 16_000)
        for block_frames in (997, 16_000, 10**6):
            with mock.patch.object(decoding, "BLOCK_VALUES", 2 * block_frames):
                blocks = list(stream_mono(path))
            assert len(blocks) > rate / block_frames
            np.testing.assert_allclose(np.concatenate(blocks), whole, atol=2e-6)

    def test_flat_memory(self, tmp_path):
        """Twenty minutes of 48 kHz stereo pass through in a few megabytes."""
        n_bytes = 20 * 60 * 48_000 * 4
        path = tmp_path / "long.wav"
        with path.open("wb") as file:
            file.write(wav_bytes(b"", channels=2, rate=48_000, data_size=n_bytes, riff_size=n_bytes + 36))
            file.truncate(44 + n_bytes)  # sparse: silence that takes no room on disk
        tracemalloc.start()
        try:
            n_samples = sum(len(block) for block in stream_mono(path))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert n_samples == 20 * 60 * 16_000
        assert peak < 32 * MIB

    @pytest.mark.parametrize("channels", [1, 1024])
    def test_header_promises(self, channels, tmp_path):
        """A header that promises billions of samples takes no memory for what the file does not hold."""
        flac = bytearray(encoded(tone(16_000), kind=("FLAC", "PCM_16")))
        flac[21:26] = bytes([flac[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # total samples, 36 bits
        wav = wav_bytes(bytes(64 * channels), channels=channels, data_size=2**32 - 2)
        for content in (wav, bytes(flac)):
            (tmp_path / "promise").write_bytes(content)
            tracemalloc.start()
            try:
                finite_or_error(content)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 64 * MIB

    def test_flac_of_unknown_length(self):
        """A FLAC written to a pipe, whose header gives no length, is read to its end."""
        flac = bytearray(encoded(tone(50_000), kind=("FLAC", "PCM_16")))
        flac[21:26] = bytes([flac[21] & 0xF0, 0, 0, 0, 0])
        assert len(read_mono(io.BytesIO(bytes(flac)))) == 50_000

    def test_silent_about_sound_files(self, capfd):
        """Nothing is printed while a long MP3 is decoded, by no library either."""
        n_samples = 16_000 * 25
        content = encoded(noise(n_samples) + tone(n_samples), kind=("MP3", "MPEG_LAYER_III"))
        with mock.patch.object(decoding, "BLOCK_SECONDS", 1):
            assert len(read_mono(io.BytesIO(content))) == n_samples
        assert capfd.readouterr() == ("", "")


class TestStreams:
    def test_binary_streams(self, tmp_path):
        """Memory, an open file and a temporary file are read from their start, wherever they stand."""
        content = encoded(tone(16_000))
        (tmp_path / "sound.wav").write_bytes(content)
        expected = read_mono(tmp_path / "sound.wav")
        with tempfile.TemporaryFile() as temporary, (tmp_path / "sound.wav").open("rb") as file:
            temporary.write(content)
            file.read(100)
            for stream in (io.BytesIO(content), temporary, file):
                np.testing.assert_array_equal(read_mono(stream), expected)
                assert not stream.closed

    @pytest.mark.parametrize("kind", [("WAV", "PCM_16"), *COMPRESSED], ids="-".join)
    def test_pipe(self, kind):
        """A pipe, which cannot be rewound, is read like a file."""
        content = encoded(tone(16_000), kind=kind)
        reading, writing = os.pipe()
        with open(writing, "wb") as end:  # noqa: PTH123
            end.write(content)
        with open(reading, "rb") as pipe:  # noqa: PTH123
            assert_tone(read_mono(pipe), TOLERANCES[kind[1]])

    @pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no process substitution here")
    def test_process_substitution(self):
        """A pipe given by its path, as a shell's <(command) does, is read like a file."""
        reading, writing = os.pipe()
        with open(writing, "wb") as end:  # noqa: PTH123
            end.write(wav_bytes(pcm16(tone(16_000)).tobytes(), data_size=0, riff_size=0))
        try:
            assert_tone(read_mono(f"/dev/fd/{reading}"), 1e-4)
        finally:
            os.close(reading)

    def test_no_leftovers(self, tmp_path, monkeypatch):
        """Temporary copies go away after reading, after an error, and when the reader stops early."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        read_mono(io.BytesIO(encoded(tone(16_000))))
        error_of(io.BytesIO(b"text"))
        blocks = stream_mono(io.BytesIO(encoded(tone(16_000))))
        next(blocks)
        assert list(tmp_path.iterdir())
        blocks.close()
        assert not list(tmp_path.iterdir())

    def test_text_stream(self):
        """A stream of text is refused."""
        assert "cannot be read" in error_of(io.StringIO("RIFF"))

    def test_no_room_for_a_copy(self, monkeypatch, tmp_path):
        """A stream that finds no temporary folder is refused, and not called missing."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        assert "not found" not in error_of(io.BytesIO(encoded(tone(16_000))))


class TestUnfinishedWav:
    @pytest.mark.parametrize("riff_size", [0, 4, 36, 0x7FFFF024, 0xFFFFFFFF, None])
    @pytest.mark.parametrize("data_size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
    @pytest.mark.parametrize("before", [b"", b"LIST\x03\0\0\0abc\0"], ids=["bare", "tagged"])
    def test_piped(self, data_size, riff_size, before, tmp_path):
        """A WAV streamed to a pipe, its sizes unknown when its header was written, is read to its end."""
        values = pcm16(tone(8_000))
        content = wav_bytes(values.tobytes(), data_size=data_size, riff_size=riff_size, before=before)
        (tmp_path / "piped.wav").write_bytes(content)
        for source in (tmp_path / "piped.wav", io.BytesIO(content)):
            np.testing.assert_array_equal(read_mono(source), values.astype(np.float32) / 32768)
        assert (tmp_path / "piped.wav").read_bytes() == content

    @pytest.mark.parametrize("n_bytes", [44 + 2, 44 + 1001, 44 + 15_999])
    def test_truncated(self, n_bytes, tmp_path):
        """A WAV cut short gives the whole samples that are left."""
        values = pcm16(tone(8_000))
        (tmp_path / "cut.wav").write_bytes(wav_bytes(values.tobytes())[:n_bytes])
        left = values[: (n_bytes - 44) // 2].astype(np.float32) / 32768
        np.testing.assert_array_equal(read_mono(tmp_path / "cut.wav"), left)

    def test_chunk_after_empty_data(self):
        """An empty data chunk followed by tags is an empty recording; the tags are not sound."""
        content = wav_bytes(b"LIST\x04\0\0\0abcd", data_size=0)
        assert "no samples" in error_of(io.BytesIO(content))

    def test_chunk_after_data(self):
        """Tags behind the samples are not sound."""
        values = pcm16(tone(1000))
        content = wav_bytes(values.tobytes() + b"LIST\x04\0\0\0abcd", data_size=2000)
        assert len(read_mono(io.BytesIO(content))) == 1000


class TestRefusals:
    def test_missing(self, tmp_path):
        """A file that is not there is said not to be found."""
        assert "not found" in error_of(tmp_path / "nothing.wav")

    def test_folder(self, tmp_path):
        """A folder is not a sound file."""
        assert "is a folder" in error_of(tmp_path)

    def test_empty(self, tmp_path):
        """A file or stream of 0 bytes is empty."""
        (tmp_path / "empty.wav").touch()
        assert "0 bytes" in error_of(tmp_path / "empty.wav")
        assert "0 bytes" in error_of(io.BytesIO())

    @pytest.mark.parametrize("kind", [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")], ids="-".join)
    def test_no_samples(self, kind, tmp_path):
        """A header with 0 samples holds no samples, at any rate."""
        for rate in (16_000, 44_100):
            sf.write(tmp_path / "none.wav", np.zeros(0), rate, kind[1], format=kind[0])
            error_of(tmp_path / "none.wav")

    @pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".au", ".snd", ".vox", ".gsm", ".raw", ".txt"])
    @pytest.mark.parametrize(
        "content",
        [b"a shopping list\n" * 500, np.random.default_rng(0).bytes(8_000), bytes(8_000), b"R"],
        ids=["text", "random", "zeros", "one byte"],
    )
    def test_no_sound(self, content, suffix, tmp_path):
        """Text, random bytes and zeros are not sound under any suffix."""
        (tmp_path / f"no{suffix}").write_bytes(content)
        assert "no sound" in error_of(tmp_path / f"no{suffix}")

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the permissions of POSIX")
    def test_unreadable(self, tmp_path):
        """A file without the permission to read it says so."""
        path = tmp_path / "secret.wav"
        path.write_bytes(encoded(tone(100)))
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # root reads everything
            os.seteuid(65_534)
        try:
            message = error_of(path)
        finally:
            if user == 0:
                os.seteuid(0)
        assert "Permission denied" in message

    def test_path_that_cannot_be(self, tmp_path):
        """Names too long, below a file, or with a null byte are refused, not crashed on."""
        (tmp_path / "file").write_bytes(b"x")
        for path in ("a" * 5000, tmp_path / "file" / "below.wav", "a\0b.wav", ""):
            error_of(path)

    @pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 10_000_000, 2**31, 2**32 - 1])
    def test_impossible_rate(self, rate):
        """Rates that no sound is recorded at are refused."""
        error_of(io.BytesIO(wav_bytes(pcm16(tone(1000)).tobytes(), rate=rate)))

    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("rate", [16_000, 44_100])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -30_000.0])
    def test_impossible_samples(self, value, rate, channels, tmp_path):
        """NaN, infinity and floats on the scale of integers are refused, and where they are is said."""
        values = np.zeros((rate * 21, channels), np.float32)
        values[rate * 20 + 5] = value
        if channels == 2:
            values[rate * 20 + 5, 1] = -value
        sf.write(tmp_path / "bad.wav", values, rate, "FLOAT")
        message = error_of(tmp_path / "bad.wav")
        assert ("values up to" if np.isfinite(value) else "NaN or infinity") in message
        assert "after 20.00 s" in message

    @pytest.mark.parametrize("kind", COMPRESSED, ids="-".join)
    def test_truncated(self, kind):
        """Compressed sound cut short gives its beginning as it was, or one clear error; never anything else."""
        content = encoded(noise(48_000) + tone(48_000), kind=kind)
        whole = read_mono(io.BytesIO(content))
        for n_bytes in (1, 4, 30, 100, 300, 2000, len(content) // 2, len(content) * 9 // 10, len(content) - 1):
            left = read_or_error(content[:n_bytes])
            if left is not None:
                assert 0 < len(left) <= len(whole)
                np.testing.assert_allclose(left, whole[: len(left)], atol=1e-6)

    def test_mp3_without_a_frame(self):
        """An MP3 cut within its first frame is not said to be missing."""
        content = encoded(tone(16_000), kind=("MP3", "MPEG_LAYER_III"))
        assert "no whole frame" in error_of(io.BytesIO(content[:60]))


class TestNames:
    NAMES = ("größe 声音 🎤.wav", "a b  c.wav", "-rf.wav", "--help", "a\nb\t.wav", "'\"$(x)`.wav", "%s{0}.wav")

    @pytest.mark.parametrize("name", NAMES)
    def test_any_name(self, name, tmp_path, monkeypatch):
        """Any name a file can have is read, and named on one line."""
        monkeypatch.chdir(tmp_path)
        error_of(name)
        Path(name).write_bytes(b"no sound")
        error_of(name)
        Path(name).write_bytes(encoded(tone(16_000)))
        assert_tone(read_mono(name), 1e-4)
        assert_tone(read_mono(tmp_path / name), 1e-4)

    @pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names are Unicode here")
    def test_bytes_in_name(self, tmp_path):
        """A name that is not valid UTF-8 is read, and named on one line that can be printed."""
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav"))
        error_of(path).encode("utf-8")
        path.write_bytes(encoded(tone(16_000)))
        assert_tone(read_mono(path), 1e-4)

    def test_directory_entry(self, tmp_path):
        """Anything that stands for a path is called by that path."""
        (tmp_path / "sound.wav").write_bytes(encoded(tone(16_000)))
        with os.scandir(tmp_path) as entries:
            entry = next(entries)
        assert name_of(entry) == str(tmp_path / "sound.wav")
        assert_tone(read_mono(entry), 1e-4)

    def test_stream(self, tmp_path):
        """A stream is called by its name if it has one, and standard input if not."""
        (tmp_path / "sound.wav").write_bytes(b"")
        with (tmp_path / "sound.wav").open("rb") as file, tempfile.TemporaryFile() as nameless:
            assert name_of(file) == str(tmp_path / "sound.wav")
            assert name_of(nameless) == name_of(io.BytesIO()) == "standard input"


class TestFromArray:
    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, ">i2", ">i4", "<i2"])
    def test_integers(self, dtype):
        """Signed integers span [-1, 1)."""
        limits = np.iinfo(dtype)
        samples = from_array(np.array([limits.min, 0, limits.max], dtype), 16_000)
        np.testing.assert_array_equal(samples, np.array([-1, 0, limits.max / -limits.min], np.float32))

    def test_unsigned(self):
        """8-bit unsigned integers lie around 128."""
        np.testing.assert_array_equal(from_array(np.array([0, 128, 255], np.uint8), 16_000), [-1, 0, 127 / 128])

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
    def test_floats(self, dtype):
        """Floats of any width keep their values."""
        samples = from_array(np.array([-1, 0.25, 1.5], dtype), 16_000)
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, [-1, 0.25, 1.5])

    def test_list(self):
        """A list of floats is as good as an array."""
        np.testing.assert_array_equal(from_array([0.0, 0.5], 16_000), [0, 0.5])

    def test_stereo(self):
        """Channels are averaged without wrapping, whatever the memory layout."""
        frames = np.array([[32767, 32767], [-32768, -32768], [32767, -32768]], np.int16)
        expected = np.array([32767 / 32768, -1, -0.5 / 32768], np.float32)
        for values in (frames, np.asfortranarray(frames), np.repeat(frames, 2, axis=1)[:, ::2]):
            np.testing.assert_array_equal(from_array(values, 16_000), expected)

    @pytest.mark.parametrize("rate", [8_000, 44_100, 44_100.0, np.int64(48_000), 96_000])
    def test_resampled(self, rate):
        """Any rate, an integral float too, becomes 16 kHz: same tone, same length in seconds."""
        samples = from_array(tone(int(rate), int(rate)), rate)
        assert samples.dtype == np.float32
        assert len(samples) == 16_000
        assert_tone(samples, 1e-4)

    def test_same_as_file(self, tmp_path):
        """An array and a file of the same samples give the same sound."""
        frames = pcm16(np.stack([noise(44_100), noise(44_100, seed=1)], axis=1))
        sf.write(tmp_path / "noise.wav", frames, 44_100)
        np.testing.assert_allclose(from_array(frames, 44_100), read_mono(tmp_path / "noise.wav"), atol=1e-6)

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            (np.float32(0.5), "shape ()"),
            (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
            (np.zeros((2, 16_000)), "shape (2, 16000)"),
            (np.zeros((10, 0)), "shape (10, 0)"),
            (np.zeros(0), "no samples"),
            (np.zeros((0, 2)), "no samples"),
            ([[0.0], [0.0, 1.0]], "ragged"),
            (np.zeros(10, bool), "type bool"),
            (np.zeros(10, np.uint16), "type uint16"),
            ([0, 1000, -1000], "type int64"),
            (np.zeros(10, complex), "type complex128"),
            (np.zeros(10, object), "type object"),
            ("sound.wav", "shape ()"),
            (["0.1"], "type <U3"),
            (None, "shape ()"),
            ([0.0, np.nan], "NaN or infinity"),
            ([[np.inf, -np.inf]], "NaN or infinity"),
            ([0.0, 1e300], "values up to 1e+300"),
            ([0.0, -30_000.0], "values up to 30000"),
        ],
        ids=repr,
    )
    def test_refused(self, values, found):
        """What cannot be sound is refused in one line that says what it is and what it should be."""
        with pytest.raises(AudioError, match=r"^audio.* expected ") as caught:
            from_array(values, 16_000)
        assert found in str(caught.value)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize("take", [lambda x: from_array(x, 16_000), audio.from_chunk, lambda x: Converter().push(x)])
    def test_bytes(self, kind, take):
        """Bytes may be anything: it is said how to say what they are."""
        wanted = r'audio is \w+, which does not say what it holds, expected .*np.frombuffer\(data, "<i2"\)'
        with pytest.raises(AudioError, match=wanted):
            take(kind(pcm16(tone(1_000)).tobytes()))

    def test_a_view_that_knows_its_type(self):
        """A view of numbers is as good as an array of them."""
        values = pcm16(tone(1_000))
        np.testing.assert_array_equal(from_array(memoryview(values), 16_000), from_array(values, 16_000))

    @pytest.mark.parametrize("take", [lambda x: from_array(x, 16_000), audio.from_chunk, lambda x: Converter().push(x)])
    def test_tensors(self, take):
        """A tensor is as good as an array, or it is said how to make one of it."""
        torch = pytest.importorskip("torch", reason="the plain install has no torch")
        plain = torch.from_numpy(noise(1_000))
        np.testing.assert_array_equal(take(plain), plain.numpy())
        for tensor in (plain.clone().requires_grad_(), plain.bfloat16(), plain.to("meta")):
            with pytest.raises(AudioError, match=r"audio is Tensor .* pass tensor.detach\(\)"):
                take(tensor)

    @pytest.mark.parametrize("rate", [0, -16_000, 999, 10**9, float("nan"), float("inf"), True])
    def test_impossible_rate(self, rate):
        """A rate no sound is recorded at is refused."""
        with pytest.raises(AudioError, match=f"sample rate is {rate} Hz, expected 1000 to 768000 Hz"):
            from_array(np.zeros(10), rate)


class TestOneSecond:
    def test_padded_or_cut(self):
        """Exactly 16,000 samples: the beginning, with silence behind if it is shorter."""
        for n in (0, 1, 15_999, 16_000, 16_001):
            samples = one_second(np.ones(n, np.float32))
            assert samples.shape == (16_000,)
            assert samples.dtype == np.float32
            assert samples.sum() == min(n, 16_000)


class TestMostEnergeticSecond:
    @settings(no_limits, max_examples=60)
    @given(
        start=st.integers(0, 64_000),
        n_burst=st.integers(1_000, 16_000),
        cuts=st.lists(st.integers(0, 80_000), max_size=8),
    )
    def test_finds_burst(self, start, n_burst, cuts):
        """A burst placed anywhere lies within the second, to within 10 ms, in whatever blocks it comes."""
        sound = 0.001 * noise(80_000, seed=1)
        sound[start : start + n_burst] += noise(n_burst, seed=2)
        window = most_energetic_window(np.split(sound, sorted(cuts)))
        first = round(window.start_s * 16_000)
        np.testing.assert_array_equal(window.samples, sound[first : first + 16_000])
        assert first <= start + 160
        assert min(start + n_burst, 80_000) <= first + 16_000 + 160
        assert window.start_s == most_energetic_window([sound]).start_s

    @settings(no_limits, max_examples=60)
    @given(
        period=st.sampled_from([160, 800, 16_000, 17_600]),
        cuts=st.lists(st.integers(0, 60_000), max_size=40),
        block=st.sampled_from([160, 1_000, 16_000]),
    )
    def test_first_of_equals(self, period, cuts, block):
        """Of seconds that are equally loud the first is taken, in whatever blocks they come."""
        sound = np.resize(noise(period), 60_000)
        expected = most_energetic_window([sound])
        if period <= 16_000:
            assert expected.start_s == 0.0
        for blocks in (np.split(sound, sorted(cuts)), np.split(sound, range(block, 60_000, block))):
            window = most_energetic_window(blocks)
            assert window.start_s == expected.start_s
            np.testing.assert_array_equal(window.samples, expected.samples)

    def test_equal_bursts(self):
        """Of two equal bursts, some steps of 10 ms apart, the first is taken."""
        sound = np.zeros(100_000, np.float32)
        sound[20_013:28_013] = sound[70_093:78_093] = noise(8_000)
        assert most_energetic_window([sound]).start_s < 1.3

    @settings(no_limits, max_examples=40)
    @given(n_samples=st.integers(0, 40_000), block=st.integers(500, 20_000))
    def test_always_one_second(self, n_samples, block):
        """Exactly 16,000 float32 samples come out, a shorter recording padded with silence behind."""
        sound = noise(n_samples)
        window = most_energetic_window(np.split(sound, range(block, n_samples, block)))
        assert window.samples.shape == (16_000,)
        assert window.samples.dtype == np.float32
        if n_samples <= 16_000:
            np.testing.assert_array_equal(window.samples, one_second(sound))
            assert window.start_s == 0.0

    def test_silence(self):
        """Digital silence gives its first second."""
        assert most_energetic_window([np.zeros(40_000, np.float32)]).start_s == 0.0

    def test_file(self, tmp_path):
        """The loudest second of a file is found across its blocks."""
        sound = 0.001 * noise(44_100 * 24)
        sound[44_100 * 21 : 44_100 * 22] = tone(44_100, 44_100)
        sf.write(tmp_path / "long.flac", sound, 44_100)
        window = read_window(tmp_path / "long.flac")
        assert window.start_s == pytest.approx(21, abs=0.01)
        assert_tone(window.samples, 2e-3)


class TestFindSoundFiles:
    def test_sorted(self, tmp_path):
        """Sound files are found at any depth, in order, by their suffix in any case; other files are ignored."""
        names = ["a.wav", "b/c/d.FLAC", "b/e.mp3", "b/x.wav/y.ogg", "z.Opus"]
        for name in [*names, "notes.txt", "b/raw", "b/c/LICENSE", "wav"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert find_sound_files(tmp_path) == sorted(tmp_path / name for name in names)

    def test_hidden(self, tmp_path):
        """Hidden files and folders, such as a Mac leaves behind, hold no sound."""
        names = ["a.wav", "._a.wav", ".b.flac", ".trash/c.wav", "d/.git/e.wav", "d/f.wav"]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert find_sound_files(tmp_path) == [tmp_path / "a.wav", tmp_path / "d" / "f.wav"]

    @pytest.mark.parametrize("kind", ["W64", "CAF", "RF64", "AIFF", "AU", "WAV"])
    def test_what_is_read_when_it_is_named(self, kind, tmp_path):
        """What a name alone says to be sound, is found in a folder."""
        path = tmp_path / f"sound.{kind.lower()}"
        sf.write(path, noise(100), 16_000, format=kind)
        assert find_sound_files(tmp_path) == [path]

    def test_a_folder_that_cannot_be_read(self, tmp_path, monkeypatch):
        """A folder below that cannot be read is told of, and the others are walked; or it raises."""
        for name in ("a/b.wav", "locked/c.wav", "z.wav"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        scandir = os.scandir

        def refusing(path: Any) -> Any:
            if os.fspath(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)
        told: list[str] = []
        found = find_sound_files(tmp_path, lambda folder, error: told.append(f"{folder} {error}"))
        assert found == [tmp_path / "a" / "b.wav", tmp_path / "z.wav"]
        locked = tmp_path / "locked"
        assert len(told) == 1
        assert told[0].startswith(f"{locked} {locked}: cannot be read (Permission denied), passed over")
        with pytest.raises(AudioError, match="Permission denied"):
            find_sound_files(tmp_path)

    def test_other_formats_are_counted(self, tmp_path):
        """What holds sound that nothing here reads is counted, and texts are not."""
        for name in ("a.wav", "b.dss", "c/d.RM", "c/e.dss", "._f.dss", "g.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        told: list[str] = []
        assert find_sound_files(tmp_path, lambda _, error: told.append(str(error))) == [tmp_path / "a.wav"]
        assert told == [f"{tmp_path}: passed over 3 files of other formats (.dss .rm); convert them"]
        assert find_sound_files(tmp_path) == [tmp_path / "a.wav"]

    def test_none(self, tmp_path):
        """A folder without sound files, or that is not one, is named."""
        (tmp_path / "notes.txt").touch()
        for folder in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
            with pytest.raises(AudioError, match="expected") as caught:
                find_sound_files(folder)
            assert str(caught.value).startswith(f"{folder}: ")
            assert str(caught.value).isprintable()


class TestAnything:
    """Whatever the bytes are, finite float32 samples or an AudioError come out."""

    @settings(no_limits, max_examples=150)
    @given(
        head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb", b"FORM", b".snd", b"caff"]),
        rest=st.binary(max_size=600),
    )
    def test_random_bytes(self, head, rest):
        """Random bytes, alone or behind a format's first bytes."""
        finite_or_error(head + rest)

    @settings(no_limits, max_examples=300)
    @given(
        tag=st.sampled_from([1, 1, 3, 2, 6, 7, 0x11, 0x31, 0x55, 0xFFFE]) | st.integers(0, 2**16 - 1),
        channels=st.integers(0, 8) | st.integers(0, 2**16 - 1),
        rate=st.sampled_from([8_000, 16_000, 44_100]) | st.integers(0, 2**32 - 1),
        bits=st.sampled_from([8, 16, 24, 32, 64]) | st.integers(0, 2**16 - 1),
        align=st.none() | st.integers(0, 2**16 - 1),
        data_size=st.none() | st.integers(0, 2**32 - 1),
        riff_size=st.none() | st.integers(0, 2**32 - 1),
        payload=st.binary(max_size=2000),
    )
    def test_random_wav_headers(self, payload, **fields):
        """A WAV whose header fields are drawn at random."""
        finite_or_error(wav_bytes(payload, **fields))

    @settings(no_limits, max_examples=200)
    @given(
        kind=st.sampled_from(sorted(SOUNDS)),
        edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5),
        cut=st.none() | st.floats(0, 1),
    )
    def test_damaged_files(self, kind, edits, cut):
        """A sound file with bytes changed and its end cut off."""
        content = bytearray(SOUNDS[kind])
        for place, value in edits:
            content[int(place**3 * (len(content) - 1))] = value  # headers more often
        finite_or_error(bytes(content[: len(content) if cut is None else int(cut * len(content))]))


class Trickle(io.BytesIO):
    """A pipe that holds `sizes` bytes in turn whenever it is read."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        super().__init__(content)
        self.sizes, self.turn = sizes, 0

    def read1(self, size: int | None = -1) -> bytes:
        self.turn += 1
        held = self.sizes[self.turn % len(self.sizes)]
        return super().read1(held if size is None or size < 0 else min(held, size))


def until_error(blocks: Iterable[np.ndarray]) -> tuple[int, str]:
    """How many samples came, and the error after them."""
    n_samples = 0
    try:
        for block in blocks:
            n_samples += len(block)
    except AudioError as error:
        return n_samples, str(error)
    pytest.fail("no error came")


class TestRawSamples:
    @pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
    @pytest.mark.parametrize("channels", [1, 2, 5])
    def test_rates_and_channels(self, rate, channels):
        """Raw samples of any rate and number of channels are the same sound as a WAV of them, to the last bit."""
        values = pcm16(np.stack([noise(3 * rate + 17, seed) for seed in range(channels)], axis=1))
        expected = read_mono(io.BytesIO(encoded(values, rate)))
        found = np.concatenate(list(stream_pcm(io.BytesIO(values.tobytes()), rate, channels)))
        np.testing.assert_array_equal(found, expected)

    @no_limits
    @given(
        sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=5),
        rate=st.sampled_from([8_000, 16_000, 44_100]),
        channels=st.integers(1, 3),
    )
    def test_any_division(self, sizes, rate, channels):
        """However the bytes come, amid samples too, the sound is the same to the last bit."""
        content = pcm16(np.stack([noise(5_000, seed) for seed in range(channels)], axis=1)).tobytes()
        expected = np.concatenate(list(stream_pcm(io.BytesIO(content), rate, channels)))
        found = np.concatenate(list(stream_pcm(Trickle(content, sizes), rate, channels)))
        np.testing.assert_array_equal(found, expected)

    def test_does_not_wait(self):
        """What a pipe holds is given before more is asked for, less what the resampler holds back."""
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb", buffering=0) as out:
            blocks = stream_pcm(file, 48_000)
            heard = 0
            for n_sent in (8_000, 16_000, 24_000):
                out.write(pcm16(noise(24_000)).tobytes())
                heard += len(next(blocks))
                assert heard >= n_sent - 1_600

    @pytest.mark.parametrize("order", ["le", "be"])
    @pytest.mark.parametrize("kind", ["s8", "u8", "s16", "s24", "s32", "f32", "f64"])
    def test_formats(self, kind, order):
        """Raw samples of each format, however the bytes come, are the sound that they were made of."""
        values = np.round(noise(3_000) * 127) / 128
        bits = int(kind[1:])
        if kind[0] == "f":
            content = values.astype(f">f{bits // 8}" if order == "be" else f"<f{bits // 8}").tobytes()
        else:
            whole = (values * 2.0 ** (bits - 1)).astype(np.int64) + (128 if kind == "u8" else 0)
            little = order == "le"
            content = b"".join(int(x).to_bytes(bits // 8, "little" if little else "big", signed=x < 0) for x in whole)
        name = kind if bits == 8 else kind + order
        for sizes in ([1], [3, 1_000], [10**6]):
            found = np.concatenate(list(stream_pcm(Trickle(content, sizes), sample_type=name)))
            np.testing.assert_array_equal(found, values.astype(np.float32))

    def test_silent_half_channels(self):
        """Channels are averaged."""
        values = np.stack([np.full(100, 0.5), np.zeros(100)], axis=1)
        (block,) = stream_pcm(io.BytesIO(pcm16(values).tobytes()), 16_000, 2)
        np.testing.assert_array_equal(block, np.full(100, 16384 / 2 / 32768, np.float32))

    @pytest.mark.parametrize(("n_bytes", "channels"), [(32_001, 1), (1, 1), (32_002, 2), (32_003, 2)])
    def test_ends_amid_a_sample(self, n_bytes, channels):
        """All whole samples come first, then a complaint that counts the bytes."""
        heard, error = until_error(stream_pcm(io.BytesIO(bytes(n_bytes)), 16_000, channels))
        assert error.startswith(f"standard input: ends in the middle of a sample ({n_bytes} bytes)")
        assert heard == n_bytes // (2 * channels)

    def test_empty(self):
        """A pipe with nothing in it is an error."""
        with pytest.raises(AudioError, match="is empty"):
            list(stream_pcm(io.BytesIO()))

    @pytest.mark.parametrize(
        "kind", [("WAV", "PCM_16"), *COMPRESSED, ("AIFF", "PCM_16"), ("AU", "PCM_16")], ids="-".join
    )
    def test_a_sound_file_is_no_raw_sound(self, kind):
        """A file with a header in the place of raw samples is refused, and not heard as noise."""
        content = encoded(tone(16_000), kind=kind)
        if kind[0] == "MP3":
            content = b"ID3" + content
        with pytest.raises(AudioError, match="found a sound file, expected raw samples"):
            list(stream_pcm(io.BytesIO(content)))

    @pytest.mark.parametrize("rate", [0, 999, 10**6])
    def test_rates_out_of_range(self, rate):
        """A rate at which nothing is recorded is refused."""
        with pytest.raises(AudioError, match="sample rate"):
            list(stream_pcm(io.BytesIO(pcm16(noise(100)).tobytes()), rate))


class TestJoinedFiles:
    @pytest.mark.parametrize("kind", [("WAV", "PCM_16"), *COMPRESSED], ids="-".join)
    @pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 1), (16_000, 2)])
    def test_all_are_heard(self, kind, rate, channels, tmp_path):
        """Of three recordings in one file, of equal or of different rate, each is heard, the same as by itself."""
        first = encoded(tone(32_000), kind=kind)
        second = encoded(np.stack([noise(rate)] * channels, axis=1), rate, kind)
        (tmp_path / "all").write_bytes(first + second + first)
        expected = np.concatenate([read_mono(io.BytesIO(part)) for part in (first, second, first)])
        for source in (tmp_path / "all", io.BytesIO(first + second + first)):
            found = read_mono(source)
            assert abs(len(found) - len(expected)) <= 1
            if rate == 16_000:
                np.testing.assert_array_equal(found, expected)

    def test_one_that_is_damaged(self, tmp_path):
        """What comes before a damaged one is heard, and then of that one said."""
        whole = encoded(noise(16_000), kind=("OGG", "VORBIS"))
        (tmp_path / "both").write_bytes(whole + whole[:200])
        heard, error = until_error(stream_mono(tmp_path / "both"))
        assert heard == 16_000
        assert "both: " in error

    @pytest.mark.parametrize("kind", [("WAV", "PCM_16"), *COMPRESSED], ids="-".join)
    def test_one_long_recording(self, kind, tmp_path):
        """One recording of many pages or frames is not taken for several."""
        (tmp_path / "long").write_bytes(encoded(noise(16_000 * 20), kind=kind))
        assert list(containers.recordings(tmp_path / "long")) == [tmp_path / "long"]
        assert len(read_mono(tmp_path / "long")) == 16_000 * 20


SAMPLE_TYPES = (np.int16, np.int32, np.uint8, np.float32, np.float64)


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    channels=st.integers(1, 3),
    kind=st.sampled_from(SAMPLE_TYPES),
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=5).filter(any),
)
def test_a_converter_gives_what_the_whole_gives(rate: int, channels: int, kind: Any, sizes: list[int]) -> None:
    """A stream of any rate, channels and type, in chunks of any length, is what the whole recording is converted to."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, (rate // 4, channels)).clip(-1, 1)
    if np.issubdtype(kind, np.integer):
        sound = np.rint(sound * 100 + (128 if kind == np.uint8 else 0))
    sound = sound.astype(kind)
    converter, pieces, at = Converter(rate, channels), [], 0
    while at < len(sound):
        for size in sizes:
            pieces.append(converter.push(sound[at : at + size]))
            at += size
    found = np.concatenate([*pieces, converter.finish()])
    expected = from_array(sound, rate)
    assert found.dtype == np.float32
    assert abs(len(found) - len(expected)) <= 1
    n = min(len(found), len(expected))
    np.testing.assert_allclose(found[:n], expected[:n], atol=1e-6)


def test_a_converter_takes_bytes_that_end_amid_a_frame() -> None:
    """Raw bytes may be divided anywhere; those of an unfinished frame wait, and are counted."""
    frames = np.arange(-300, 300, dtype=np.int16).reshape(-1, 2)
    data = frames.astype("<i2").tobytes()
    converter = Converter(channels=2)
    found = [converter.push_bytes(data[i : i + 7]) for i in range(0, len(data) - 3, 7)]
    assert converter.n_waiting_bytes == min(len(data), 7 * len(found)) % 4
    whole = np.concatenate(found)
    np.testing.assert_array_equal(whole, from_array(frames, 16000)[: len(whole)])


@pytest.mark.parametrize("kind", SAMPLE_TYPES)
def test_a_converter_takes_bytes_of_any_type(kind: Any) -> None:
    """Raw bytes of other types of samples, divided anywhere, are what arrays of them are."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, (500, 2)) if np.issubdtype(kind, np.floating) else rng.integers(0, 250, (500, 2))
    sound = sound.astype(kind)
    data = sound.astype(sound.dtype.newbyteorder("<")).tobytes()
    converter = Converter(channels=2, sample_type=kind)
    found = [converter.push_bytes(data[i : i + 7]) for i in range(0, len(data), 7)]
    np.testing.assert_array_equal(np.concatenate(found), from_array(sound, 16000))
    assert converter.n_waiting_bytes == 0


def test_bytes_that_are_no_numbers_leave_a_converter_as_it_was() -> None:
    """Floats that are no numbers are an error, and what waited for the rest of its frame still does."""
    converter = Converter(channels=1, sample_type="float32")
    half = np.float32(0.5).astype("<f4").tobytes()
    assert len(converter.push_bytes(half[:3])) == 0
    with pytest.raises(AudioError, match="NaN"):
        converter.push_bytes(half[3:] + np.float32(np.nan).astype("<f4").tobytes())
    np.testing.assert_array_equal(converter.push_bytes(half[3:]), np.float32([0.5]))


@pytest.mark.parametrize("kind", ["int64", "complex64", "U3", "no type"])
def test_a_converter_of_no_samples(kind: str) -> None:
    """A type that sound does not come in is an error at once, which names it."""
    with pytest.raises(AudioError, match=f"type '{kind}', expected int8"):
        Converter(sample_type=kind)


@pytest.mark.parametrize("chunk", [np.zeros((5, 3)), np.zeros(6), np.full((4, 2), np.nan), np.full((4, 2), 1e6)])
def test_a_converter_refuses_a_chunk_and_stays_as_it_was(chunk: Any) -> None:
    """A chunk of other channels, or one that holds no numbers, is an error, after which the stream goes on."""
    good = np.random.default_rng(0).normal(0, 0.1, (9000, 2))
    spoilt, whole = Converter(44100, 2), Converter(44100, 2)
    first = spoilt.push(good[:4000])
    with pytest.raises(AudioError):
        spoilt.push(chunk)
    found = np.concatenate([first, spoilt.push(good[4000:]), spoilt.finish()])
    expected = [whole.push(good[:4000]), whole.push(good[4000:]), whole.finish()]
    np.testing.assert_array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize(("rate", "channels"), [(0, 1), (10**7, 1), (16000, 0), (16000, 65)])
def test_a_converter_of_no_stream(rate: int, channels: int) -> None:
    """A rate or a number of channels that nothing is recorded with is an error at once."""
    with pytest.raises(AudioError):
        Converter(rate, channels)


def speechlike(n_samples: int, seed: int = 0) -> np.ndarray:
    """Bursts and pauses, (samples,)."""
    bursts = np.sin(2 * np.pi * np.arange(n_samples) / 9_000).clip(0, None) ** 2
    return 5 * noise(n_samples, seed) * bursts


class TestChannelsThatCancel:
    """Of a balanced microphone at a stereo input one channel is the other inverted: their mean is silence."""

    SOUND = speechlike(60_000)
    HISS = 0.001 * np.stack([noise(60_000, 1), noise(60_000, 2)], axis=1)

    def assert_heard(self, found: np.ndarray, expected: np.ndarray, lost: int = 200) -> None:
        """All but what comes before the first decision, either way up."""
        n = min(len(found), len(expected))
        assert abs(len(found) - len(expected)) <= 1
        same = np.sign(np.dot(found[:n], expected[:n])) * found[lost:n]
        assert np.sqrt(np.mean(np.square(same - expected[lost:n]))) < 0.02 * np.sqrt(np.mean(np.square(expected)))

    @pytest.mark.parametrize("second", [-1.0, -0.9, -0.7, -1.3])
    @pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
    def test_inverted(self, second, rate, tmp_path):
        """What one channel holds is heard: of an array, a file, and raw samples."""
        values = np.stack([self.SOUND, second * self.SOUND], axis=1) + self.HISS
        values /= np.abs(values).max()
        expected = from_array(values[:, 0], rate)
        sf.write(tmp_path / "a.wav", values, rate, "FLOAT")
        self.assert_heard(from_array(values, rate), expected)
        self.assert_heard(read_mono(tmp_path / "a.wav"), expected)
        raw = np.concatenate(list(stream_pcm(io.BytesIO(pcm16(values).tobytes()), rate, 2)))
        self.assert_heard(raw, expected)

    @pytest.mark.parametrize("channels", [2, 4])
    @settings(no_limits, max_examples=30)
    @given(sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=6))
    def test_any_division(self, channels, sizes):
        """However a stream is divided into chunks the mix is the same to the last bit, and none of it waits."""
        signs = np.tile([1.0, -1.0], channels // 2)
        values = self.SOUND[:, None] * signs + np.tile(self.HISS, channels // 2)
        values[20_000:40_000] = noise(20_000 * channels).reshape(-1, channels)
        converter, found, at = Converter(channels=channels), [], 0
        while at < len(values):
            for size in sizes:
                found.append(converter.push(values[at : at + size]))
                assert len(found[-1]) == len(values[at : at + size])
                at += size
        np.testing.assert_array_equal(np.concatenate(found), from_array(values, 16_000))

    @pytest.mark.parametrize("second", [1.0, 0.5, 0.0, -0.3])
    def test_others_are_averaged(self, second):
        """Channels that do not cancel are averaged, one that is silent or of the other polarity but fainter too."""
        values = np.stack([self.SOUND, second * self.SOUND], axis=1).astype(np.float32)
        np.testing.assert_allclose(from_array(values, 16_000), values.mean(axis=1), atol=1e-7)

    @pytest.mark.parametrize("channels", [2, 3, 8])
    def test_strangers_are_averaged(self, channels):
        """So are channels that have nothing in common, faint beginning or not."""
        values = np.stack([speechlike(60_000, seed) for seed in range(channels)], axis=1).astype(np.float32)
        values[:30_000] *= 0.001
        np.testing.assert_allclose(from_array(values, 16_000), values.mean(axis=1), atol=1e-7)

    def test_that_begin_to_cancel(self):
        """Where channels begin to cancel, or end to, is found within half a second."""
        values = np.stack([self.SOUND, self.SOUND], axis=1)
        values[20_000:40_000, 1] *= -1
        found = from_array(values, 16_000)
        for start, end in ((0, 20_000), (28_000, 40_000), (48_000, 60_000)):
            np.testing.assert_allclose(found[start:end], self.SOUND[start:end], atol=1e-3)


def test_a_low_rate_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of sound below 11 kHz it is logged once that more words are missed; of other sound nothing."""
    audio._warn_of_low_rate.cache_clear()
    for rate in (48_000, 16_000, 11_025):
        from_array(np.zeros(rate), rate)
    assert caplog.records == []
    for rate in (8_000, 8_000, 6_000):
        from_array(np.zeros(rate), rate)
    Converter(8_000)
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "some sound was recorded at under 11000 Hz"
    ]
