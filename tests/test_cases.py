"""Files of people that went wrong once, as they are: `../shared/cases`, skipped where they are missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from unittest import mock

import pytest
import soundfile as sf

from tiny_kws import Classifier, Detector, media
from tiny_kws.audio import read_mono
from tiny_kws.errors import AudioError

from .helpers import run_cli

CASES = Path(__file__).parents[1].parent / "shared" / "cases"
HAS_FFMPEG = bool(shutil.which("ffmpeg"))
HAS_DECODER = bool(importlib.util.find_spec("av") or HAS_FFMPEG)
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no such files in {CASES}")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier()


@pytest.mark.parametrize(
    "name",
    [
        "inverted_stereo.wav",
        "mp3_after_zeros.mp3",
        "flac_with_id3v1_at_the_end.flac",
        "folder/yes.wav",
        "folder/w64.w64",
        "folder/caf.caf",
    ],
)
def test_is_yes(classifier: Classifier, name: str) -> None:
    """A *yes* in a file that is odd is heard, on a clip and in a stream."""
    heard = classifier.classify(CASES / name)
    assert (heard.label, heard.probability > 0.99) == ("yes", True)
    assert [event.label for event in Detector().detect(CASES / name)] == ["yes"]


@pytest.mark.parametrize("channel", [0, 1])
def test_a_channel_of_the_inverted_ones(classifier: Classifier, channel: int) -> None:
    """Either channel alone holds the word, as surely as both of them."""
    audio, rate = sf.read(CASES / "inverted_stereo.wav", dtype="float32")
    alone, both = classifier.classify(audio[:, channel], rate), classifier.classify(CASES / "inverted_stereo.wav")
    assert (alone.label, round(alone.probability, 3)) == ("yes", 1.0)
    assert both.probability == pytest.approx(alone.probability, abs=1e-3)


def test_a_tag_at_the_end_of_a_flac(classifier: Classifier) -> None:
    """All of its samples are heard, the last second too."""
    assert len(read_mono(CASES / "flac_with_id3v1_at_the_end.flac")) == 76_000
    heard = classifier.classify(CASES / "flac_with_id3v1_at_the_end.flac")
    assert heard.start_s == pytest.approx(3.75, abs=0.26)


ALEXA = [("alexa-126.flac", 31_040), ("alexa-142.flac", 30_400)]


@pytest.mark.skipif(not HAS_DECODER, reason="neither PyAV nor ffmpeg is installed")
@pytest.mark.parametrize(("name", "n_samples"), ALEXA)
def test_a_flac_that_libsndfile_gives_up_on(name: str, n_samples: int) -> None:
    """It is whole where there is another decoder."""
    assert len(read_mono(CASES / name)) == n_samples


@pytest.mark.parametrize("name", [name for name, _ in ALEXA])
def test_a_flac_without_another_decoder(name: str) -> None:
    """It is said where it ends for libsndfile, and which decoder to install."""
    with (
        mock.patch.object(media, "decode", side_effect=media.NoDecoderError),
        pytest.raises(AudioError, match=r": damaged after 0\.00 s .* pip install 'tiny-kws\[media\]'"),
    ):
        read_mono(CASES / name)


@pytest.mark.parametrize("blocked", [[], ["av"]], ids=["", "without PyAV"])
def test_a_folder(blocked: list[str]) -> None:
    """Everything in a folder is answered, or it is named, how to convert it told, and the status 1."""
    done = run_cli("classify", CASES / "folder", blocked=blocked)
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    answered = {Path(row[0]).name for row in rows if row[1] == "yes"}
    is_decoded = HAS_FFMPEG or (HAS_DECODER and not blocked)
    named = set() if is_decoded else {"m4a.m4a", "webm.webm"}
    assert answered == {path.name for path in (CASES / "folder").iterdir()} - named
    assert all(f"{CASES / 'folder' / name}: found " in done.stderr for name in named)
    assert (done.returncode, done.stderr.count("ffmpeg -i")) == (1 if named else 0, len(named))
