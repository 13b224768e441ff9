"""Files that say too little, too much or something else are heard whole, or it is said what was not heard."""

import errno
import io
import logging
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile as sf

from tiny_kws import containers, decoding, media
from tiny_kws.audio import read_mono, stream_mono
from tiny_kws.errors import AudioError

from .helpers import run_cli, silent_film, write_sound

RATE = 16_000
KINDS = {"m4a": ("ipod", "aac"), "mp4": ("mp4", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus")}
KINDS |= {"mka": ("matroska", "aac"), "3gp": ("3gp", "aac"), "wv": ("wv", "wavpack"), "ac3": ("ac3", "ac3")}
NAMES = {"m4a": "an MP4 or M4A file", "webm": "a WebM or Matroska file", "aac": "an AAC file", "mp4": "an MP4"}


def tone(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A tone whose loudness tells how far it is, (samples,)."""
    time_s = np.arange(round(seconds * rate)) / rate
    return 0.6 * time_s / seconds * np.sin(2 * np.pi * 440 * time_s)


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n_samples)


def encoded(values: np.ndarray, container: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    sf.write(file, values, rate, format=container, subtype=subtype)
    return file.getvalue()


def media_file(path: Path, container: str, codec: str, values: np.ndarray, rate: int = 48_000) -> Path:
    """Write sound as phones and browsers do."""
    av = pytest.importorskip("av", reason="the extra media is not installed")
    with av.open(str(path), "w", format=container) as out:
        track = out.add_stream(codec, rate=rate)
        track.layout = "mono"
        resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=rate)
        whole = av.AudioFrame.from_ndarray((values[None] * 32767).astype(np.int16), format="s16", layout="mono")
        whole.sample_rate = rate
        for frame in (*resampler.resample(whole), *resampler.resample(None), None):
            out.mux(track.encode(frame))
    return path


def assert_tone(found: np.ndarray, seconds: float = 3.0) -> None:
    """The whole of `tone`, within what an encoder adds at its ends."""
    assert len(found) == pytest.approx(seconds * RATE, abs=0.08 * RATE)
    for second in np.arange(0.5, seconds, 0.5):
        level = np.sqrt(2 * np.mean(np.square(found[int((second - 0.1) * RATE) : int((second + 0.1) * RATE)])))
        assert level == pytest.approx(0.6 * second / seconds, abs=0.04)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither PyAV nor ffmpeg."""
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setenv("PATH", str(tmp_path))


def error_of(source: Any) -> str:
    with pytest.raises(AudioError) as caught:
        read_mono(source)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestTags:
    @pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"TAG" + b"song" * 31 + b"\xff", b"APETAGEX" + b"\xff" * 400])
    @pytest.mark.parametrize("n_samples", [1_000, 40_000, 76_000])
    def test_behind_a_flac(self, tag: bytes, n_samples: int, tmp_path: Path, no_decoder: None) -> None:
        """A FLAC with a tag of another format at its end is whole, from a file and from a pipe."""
        content = encoded(noise(n_samples), "FLAC") + tag
        (tmp_path / "tagged.flac").write_bytes(content)
        expected, _ = sf.read(io.BytesIO(content[: -len(tag)]), dtype="float32")
        for source in (tmp_path / "tagged.flac", io.BytesIO(content)):
            np.testing.assert_array_equal(read_mono(source), expected)

    @pytest.mark.parametrize("kind", ["WAV", "MP3", "OGG", "AIFF"])
    def test_behind_another(self, kind: str) -> None:
        """So it is behind other kinds of files."""
        content = encoded(noise(40_000), kind)
        tagged = content + b"TAG" + b"song" * 31 + b"\xff"
        np.testing.assert_array_equal(read_mono(io.BytesIO(tagged)), read_mono(io.BytesIO(content)))

    def test_behind_a_flac_of_unknown_length(self) -> None:
        """A FLAC that does not say how long it is, and has a tag, is whole where there is another decoder."""
        pytest.importorskip("av", reason="the extra media is not installed")
        flac = bytearray(encoded(noise(50_000), "FLAC"))
        flac[21:26] = bytes([flac[21] & 0xF0, 0, 0, 0, 0])
        assert len(read_mono(io.BytesIO(bytes(flac) + b"TAG" + b"x" * 125))) == 50_000


@pytest.mark.usefixtures("no_decoder")
class TestMp3:
    @pytest.mark.parametrize("junk", [bytes(1), bytes(417), bytes(100_000), b"junk" * 50, noise(5_000).tobytes()])
    @pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 1)])
    @pytest.mark.parametrize("name", ["sound.mp3", "sound"])
    def test_begins_later(self, junk: bytes, rate: int, channels: int, name: str, tmp_path: Path) -> None:
        """An MP3 behind zeros or anything else is what it is without them, under any name."""
        content = encoded(np.stack([tone(2, rate)] * channels, axis=1), "MP3", rate=rate)
        (tmp_path / name).write_bytes(junk + content)
        np.testing.assert_array_equal(read_mono(tmp_path / name), read_mono(io.BytesIO(content)))

    @pytest.mark.parametrize("rate", [16_000, 44_100])
    @pytest.mark.parametrize("cut", [100, 333, 1_000])
    @pytest.mark.parametrize("name", ["sound.mp3", "sound"])
    def test_begins_amid_a_frame(self, cut: int, rate: int, name: str, tmp_path: Path) -> None:
        """An MP3 without its beginning, and so without its length, is heard to its end."""
        content = encoded(tone(3, rate), "MP3", rate=rate)
        (tmp_path / name).write_bytes(content[cut:])
        found = read_mono(tmp_path / name)
        whole = read_mono(io.BytesIO(content))
        assert len(whole) - 0.6 * RATE < len(found) < len(whole) + 0.2 * RATE
        assert np.abs(found[-RATE // 4 :]).max() == pytest.approx(0.6, abs=0.06)

    def test_of_varying_bit_rate_and_unknown_length(self, tmp_path: Path) -> None:
        """Libsndfile's guess of how long an MP3 is does not end it."""
        values = np.concatenate([noise(RATE * 3), 0.001 * noise(RATE * 20), tone(2)])
        content = encoded(values, "MP3")
        first = containers._mp3_frame_bytes(content[:4])
        assert b"Xing" in content[:first]
        for start in (values, values[::-1]):
            content = encoded(start, "MP3")[first:]
            assert len(read_mono(io.BytesIO(content))) >= len(values)

    def test_one_bit_rate_is_left_as_it_is(self, tmp_path: Path) -> None:
        """Where the bit rate does not vary the length is known, and nothing is copied."""
        file = io.BytesIO()
        with sf.SoundFile(file, "w", RATE, 1, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5) as out:
            out.write(tone())
        content = file.getvalue()
        (tmp_path / "sound").write_bytes(content[containers._mp3_frame_bytes(content[:4]) :])
        assert list(containers.recordings(tmp_path / "sound")) == [tmp_path / "sound"]
        assert len(read_mono(tmp_path / "sound")) == pytest.approx(3 * RATE, abs=0.15 * RATE)


class TestOtherDecoders:
    @pytest.mark.parametrize("suffix", KINDS)
    @pytest.mark.parametrize("name", ["sound.{}", "sound", "sound.wav"])
    def test_what_phones_and_browsers_record(self, suffix: str, name: str, tmp_path: Path) -> None:
        """M4A, WebM and others are heard, under any name, and from a pipe."""
        path = media_file(tmp_path / name.format(suffix), *KINDS[suffix], tone(3, 48_000))
        assert_tone(read_mono(path))
        assert_tone(read_mono(io.BytesIO(path.read_bytes())))

    def test_amr(self, tmp_path: Path) -> None:
        """So is AMR, which old phones record."""
        path = media_file(tmp_path / "a.amr", "amr", "libopencore_amrnb", tone(3, 8_000), 8_000)
        assert len(read_mono(path)) == pytest.approx(3 * RATE, abs=0.08 * RATE)

    @pytest.mark.parametrize("codec", ["pcm_s64le", "pcm_f64le", "pcm_s32le", "pcm_u8", "pcm_mulaw"])
    def test_every_width_of_wav(self, codec: str, tmp_path: Path) -> None:
        """Samples of 64 bits too, which libsndfile does not read and numpy has no frame format for."""
        assert_tone(read_mono(media_file(tmp_path / "a.wav", "wav", codec, tone(3, 48_000))))

    def test_what_libsndfile_gives_up_on(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Where libsndfile does not get on in a file that is whole, another decoder does, without a seam."""
        pytest.importorskip("av", reason="the extra media is not installed")
        (tmp_path / "a.flac").write_bytes(encoded(noise(76_000), "FLAC"))
        expected = read_mono(tmp_path / "a.flac")
        read = sf.SoundFile.read
        for n_good in (0, 1, 3):
            left = iter([True] * n_good)

            def failing(file: sf.SoundFile, *args: Any, left: Any = left, **options: Any) -> Any:
                if next(left, False):
                    return read(file, *args, **options)
                raise sf.LibsndfileError(5)

            with monkeypatch.context() as patched:
                patched.setattr(sf.SoundFile, "read", failing)
                np.testing.assert_array_equal(read_mono(tmp_path / "a.flac"), expected)

    @pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
    def test_a_damaged_flac_is_not_heard_as_noise(self, place: float) -> None:
        """What no decoder can read is said, as it was."""
        content = bytearray(encoded(noise(76_000), "FLAC"))
        content[int(place * len(content))] ^= 0x55
        for damaged in (bytes(content), bytes(content[: int(place * len(content))])):
            assert "damaged after" in error_of(io.BytesIO(damaged))

    @pytest.mark.parametrize("suffix", ["mp4", "webm", "mov"])
    def test_no_soundtrack(self, tmp_path: Path, suffix: str) -> None:
        """A film without sound is named, and what it lacks."""
        path = silent_film(tmp_path / f"a.{suffix}")
        assert f"{path}: found no sound in it (no soundtrack), expected" in error_of(path)

    def test_half_a_file(self, tmp_path: Path) -> None:
        """Half an M4A, whose table of contents stands at its end, holds no sound."""
        path = media_file(tmp_path / "a.m4a", "ipod", "aac", tone(1, 48_000))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert f"{path}: found no sound in it" in error_of(path)

    def test_a_playlist_opens_nothing(self, tmp_path: Path) -> None:
        """A list of addresses is no sound: what it names is not opened."""
        write_sound(tmp_path / "other.wav")
        path = tmp_path / "list.m3u8"
        path.write_text(f"#EXTM3U\n#EXTINF:10,\n{tmp_path}/other.wav\n#EXT-X-ENDLIST\n")
        assert "found no sound in it" in error_of(path)

    @pytest.mark.usefixtures("no_decoder")
    @pytest.mark.parametrize("suffix", NAMES)
    def test_without_one(self, suffix: str, tmp_path: Path) -> None:
        """Without another decoder it is said what the file is, how to convert it, and what would read it."""
        content = {"m4a": b"\0\0\0\x1cftypM4A ", "mp4": b"\0\0\0\x1cftypisom", "aac": b"\xff\xf1\x60\x40"}
        path = tmp_path / f"my memo.{suffix}"
        path.write_bytes(content.get(suffix, b"\x1aE\xdf\xa3\x9fB\x86\x81") + bytes(1_000))
        message = error_of(path)
        assert f"{path}: found {NAMES[suffix]}" in message
        assert f"ffmpeg -i 'my memo.{suffix}' sound.wav" in message
        assert "tiny-kws[media]" in message


FFMPEG = """#!{python}
import struct, sys
arguments = sys.argv[1:]
container, path = (arguments[arguments.index(name) + 1] for name in ("-f", "-i"))
if container != "mov" or not path.startswith("file:") or arguments[-1] != "-":
    sys.exit("wrong arguments")
content = open(path[5:], "rb").read()
sys.stdout.buffer.write(struct.pack(">4s5I", b".snd", 32, 0xFFFFFFFF, 6, 8000, 2) + bytes(8) + content[12:])
if content[8:12] == b"qt  ":
    sys.stdout.flush()
    sys.exit("moov: broken")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a program that is a script")
class TestFfmpeg:
    """Where PyAV is not installed ffmpeg is asked, whose place a script takes here."""

    @pytest.fixture(autouse=True)
    def _stand_in(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "bin" / "ffmpeg"
        program.parent.mkdir()
        program.write_text(FFMPEG.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(program.parent))
        monkeypatch.setitem(sys.modules, "av", None)

    def content(self, n_frames: int) -> bytes:
        return np.stack([noise(n_frames), noise(n_frames, 1)], axis=1).astype(">f4").tobytes()

    @pytest.mark.parametrize("n_frames", [1, 8_000, 300_000])
    def test_is_heard(self, n_frames: int, tmp_path: Path) -> None:
        """What it decodes is heard, at its own rate and with its channels."""
        (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + self.content(n_frames))
        blocks = list(decoding.decode(tmp_path / "a.m4a", "a.m4a"))
        assert {(rate, block.shape[1]) for rate, block in blocks} == {(8_000, 2)}
        expected = np.frombuffer(self.content(n_frames), ">f4").reshape(-1, 2)
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected)

    def test_complains(self, tmp_path: Path) -> None:
        """What it says is told, after what it could decode."""
        (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x1cftypqt  " + self.content(8_000))
        blocks = stream_mono(tmp_path / "a.m4a")
        assert len(next(blocks)) > 0.3 * RATE
        with pytest.raises(AudioError, match=r"damaged after 1.00 s \(moov: broken\)"):
            list(blocks)

    def test_is_left_early(self, tmp_path: Path) -> None:
        """Who wants no more ends it."""
        (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + self.content(3_000_000))
        blocks = media.decode(tmp_path / "a.m4a", "mov")
        next(blocks)
        blocks.close()  # type: ignore[attr-defined]


def wav(values: np.ndarray, data_size: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A WAV of 16 bits whose header says that its samples take `data_size` bytes."""
    samples = np.round(values * 32767).astype("<i2").tobytes()
    chunks = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16) + before
    body = b"WAVE" + chunks + b"data" + struct.pack("<I", data_size) + samples + after
    return b"RIFF" + struct.pack("<I", len(body) % 2**32) + body


@pytest.mark.usefixtures("no_decoder")
class TestWavSizes:
    @pytest.mark.parametrize("data_size", [0, 2, 64_000, 64_001, 95_000])
    @pytest.mark.parametrize("before", [b"", b"LIST\x04\0\0\0abcd"])
    def test_too_small(self, data_size: int, before: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A WAV whose samples are more than it says, as of over 4 GiB, is read to its end, silent beginning or not."""
        for values in (noise(50_000), np.concatenate([np.zeros(40_000), noise(10_000)])):
            content = wav(values, data_size, before)
            (tmp_path / "a.wav").write_bytes(content)
            expected = np.round(values * 32767).astype(np.float32) / 32768
            for source in (tmp_path / "a.wav", io.BytesIO(content)):
                np.testing.assert_array_equal(read_mono(source), expected)
            assert (tmp_path / "a.wav").read_bytes() == content
        assert caplog.messages == []

    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW", "MS_ADPCM"])
    def test_of_any_type(self, subtype: str) -> None:
        """So is one of other samples than of 16 bits."""
        content = bytearray(encoded(noise(50_000), "WAV", subtype))
        expected = read_mono(io.BytesIO(bytes(content)))
        data = content.index(b"data")
        content[data + 4 : data + 8] = struct.pack("<I", 8_192)
        del content[data + 8 + int.from_bytes(content[data + 4 : data + 8], "little") + len(content) :]
        np.testing.assert_array_equal(read_mono(io.BytesIO(bytes(content)))[: len(expected)], expected)

    def test_over_the_limit(self, tmp_path: Path) -> None:
        """What no plain WAV can express is read through a header that can."""
        (tmp_path / "a.wav").write_bytes(wav(noise(50_000), 20_000))
        with mock.patch.object(containers, "WAV_LIMIT", 60_000):
            (copy,) = (path.read_bytes() for path in containers.recordings(tmp_path / "a.wav"))
            assert copy[:4] == b"RF64"
            assert len(read_mono(tmp_path / "a.wav")) == 50_000

    @pytest.mark.parametrize(
        "after", [b"LIST\x04\0\0\0abcd", b"id3 \x08\x07\0\0" + bytes(1_800), b"\0\0\0", bytes(900)]
    )
    def test_right(self, after: bytes, tmp_path: Path) -> None:
        """Tags, and what is too little to be sound, are no samples that the header leaves out."""
        content = wav(noise(1_000), 2_000, after=after)
        (tmp_path / "a.wav").write_bytes(content)
        assert list(containers.recordings(tmp_path / "a.wav")) == [tmp_path / "a.wav"]
        assert len(read_mono(tmp_path / "a.wav")) == 1_000


@pytest.mark.usefixtures("no_decoder")
class TestCutShort:
    @pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64", "RF64", "MP3"])
    def test_is_said(self, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Of a recording that was cut short what is left is heard, and a warning says how much is missing."""
        content = encoded(noise(48_000), kind)
        (tmp_path / "a").write_bytes(content)
        assert len(read_mono(tmp_path / "a")) == 48_000
        assert caplog.messages == []
        (tmp_path / "a").write_bytes(content[: len(content) // 2])
        heard = len(read_mono(tmp_path / "a"))
        assert heard == pytest.approx(24_000, rel=0.1)
        (message,) = caplog.messages
        assert f"{tmp_path / 'a'}: cut short, holds {heard / RATE:.2f} s of the 3.0" in message

    @pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
    def test_an_unknown_size_promises_nothing(self, size: int, caplog: pytest.LogCaptureFixture) -> None:
        """A WAV from a pipe, whose size was not known when its header was written, is whole."""
        assert len(read_mono(io.BytesIO(wav(noise(16_000), size)))) == 16_000
        assert caplog.messages == []

    def test_on_the_command_line(self, tmp_path: Path) -> None:
        """A command answers, and the warning is one line on standard error."""
        path = tmp_path / "cut.wav"
        path.write_bytes(wav(noise(16_000), 64_000))
        done = run_cli("classify", path)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
        assert done.stderr.startswith(f"tiny-kws: {path}: cut short, holds 1.00 s of the 2.00 s ")
        assert len(done.stderr.splitlines()) == 1

    def test_in_python(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """In Python the logger of the package tells it."""
        read_mono(io.BytesIO(wav(noise(16_000), 64_000)))
        assert [(record.name, record.levelno) for record in caplog.records] == [("tiny_kws.decoding", logging.WARNING)]


class TestNoRoom:
    """A copy that does not fit is no fault of the recording: which folder is full, and what to do, is said."""

    FULL = OSError(errno.ENOSPC, "No space left on device")

    def test_for_standard_input(self):
        """A stream is copied as a whole."""
        with mock.patch.object(decoding.shutil, "copyfileobj", side_effect=self.FULL):
            self.check(io.BytesIO(encoded(tone(), "WAV")), "standard input")

    def test_for_a_part(self, tmp_path: Path):
        """Of recordings that are joined each is copied."""
        (tmp_path / "two.flac").write_bytes(2 * encoded(tone(), "FLAC"))
        with mock.patch.object(containers, "_write_piece", side_effect=self.FULL):
            self.check(tmp_path / "two.flac", str(tmp_path / "two.flac"))

    @staticmethod
    def check(source: Any, name: str) -> None:
        with pytest.raises(AudioError) as caught:
            read_mono(source)
        assert str(caught.value) == (
            f"{name}: no room for a copy of it in {gettempdir()} (No space left on device), expected enough; free "
            "space there, or set TMPDIR to a folder on another disk"
        )

    def test_in_any_folder(self):
        """Python finds no folder for temporary files where all disks are full."""
        with (
            mock.patch("tempfile.tempdir", None),
            mock.patch("tempfile._candidate_tempdir_list", return_value=[]),
            pytest.raises(AudioError, match=r"cannot be copied \(No usable .* TMPDIR to a folder on another disk$"),
        ):
            read_mono(io.BytesIO(encoded(tone(), "WAV")))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_a_cut_mp3_is_told_of_once(mode: str, tmp_path: Path) -> None:
    """Of an MP3 cut amid a frame what is left is heard, and nothing but one warning comes to standard error."""
    file = io.BytesIO()
    sf.write(file, noise(48_000), RATE, format="MP3", bitrate_mode=mode)
    path = tmp_path / "cut.mp3"
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2 + 100])
    code = f"from tiny_kws.audio import read_mono; print(len(read_mono({str(path)!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(24_000, abs=4_000)
    assert (done.stderr.count("\n"), "cut.mp3: cut short, holds" in done.stderr) == (1, True), done.stderr
