"""Files of people that went wrong once, as they are: `../shared/cases`, skipped where they are missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from tiny_kws import Classifier, Detector
from tiny_kws.audio import read_mono
from tiny_kws.errors import AudioError

from .helpers import run_cli

CASES = Path(__file__).parents[1].parent / "shared" / "cases"
HAS_DECODER = bool(importlib.util.find_spec("av") or shutil.which("ffmpeg"))
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no such files in {CASES}")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier()


@pytest.mark.parametrize(
    "name", ["inverted_stereo.wav", "mp3_after_zeros.mp3", "flac_with_id3v1_at_the_end.flac", "folder/caf.caf"]
)
def test_is_yes(classifier: Classifier, name: str) -> None:
    """A *yes* in a file that is odd is heard, on a clip and in a stream."""
    heard = classifier.classify(CASES / name)
    assert (heard.label, heard.probability > 0.99) == ("yes", True)
    assert [event.label for event in Detector().detect(CASES / name)] == ["yes"]


def test_a_tag_at_the_end_of_a_flac(classifier: Classifier) -> None:
    """All of its samples are heard, the last second too."""
    assert len(read_mono(CASES / "flac_with_id3v1_at_the_end.flac")) == 76_000
    heard = classifier.classify(CASES / "flac_with_id3v1_at_the_end.flac")
    assert heard.start_s == pytest.approx(3.75, abs=0.26)


@pytest.mark.parametrize(("name", "n_samples"), [("alexa-126.flac", 31_040), ("alexa-142.flac", 30_400)])
def test_a_flac_that_libsndfile_gives_up_on(name: str, n_samples: int) -> None:
    """It is whole where there is another decoder, and else it is said which to install."""
    if HAS_DECODER:
        assert len(read_mono(CASES / name)) == n_samples
    else:
        with pytest.raises(AudioError, match=r"damaged after .* tiny-kws\[media\]"):
            read_mono(CASES / name)


def test_a_folder() -> None:
    """Everything in a folder is answered, or it is named, how to convert it told, and the status 1."""
    done = run_cli("classify", CASES / "folder")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    answered = {Path(row[0]).name for row in rows if row[1] == "yes"}
    named = {name for name in ("m4a.m4a", "webm.webm") if f"{CASES / 'folder' / name}: found " in done.stderr}
    assert {"yes.wav", "w64.w64", "caf.caf"} <= answered
    assert answered | named == {path.name for path in (CASES / "folder").iterdir()}
    assert (done.returncode, done.stderr.count("ffmpeg -i")) == (1 if named else 0, len(named))
    assert not (HAS_DECODER and named)
