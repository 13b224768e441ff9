"""The script that finds when words are said, with a stand-in for pocketsphinx: what is left out, and what is told."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile as sf

from tiny_kws.config import SAMPLE_RATE

pytest.importorskip("torch", reason="the script reads what training reads")

SAID = {"a.wav": "hello", "b.wav": "world", "c.wav": "stop"}
"""Recordings, and the words that are said in them."""


@dataclass(frozen=True)
class Part:
    """A word or a phone of an alignment."""

    name: str
    start: int
    duration: int
    score: int = 0
    phones: tuple[Part, ...] = ()

    def __iter__(self) -> Iterator[Part]:
        return iter(self.phones)


class Aligner:
    """A decoder that knows by the level of a recording what is said in it: a hundredth for each letter of the word.

    Another word of one letter less gets a low score, one of one more silence alone; what is far from it fails. So do
    phones within words whose limits were smoothed (`bestpath`), as a third of all sentences does in pocketsphinx.
    """

    def __init__(self, *, bestpath: bool = True, **_: object) -> None:
        self._text, self._level, self._is_smoothed = "", 0, bestpath

    def set_align_text(self, text: str) -> None:
        self._text = text

    def set_alignment(self) -> None:
        if self._is_smoothed:
            raise RuntimeError("Failed to stop utterance processing")

    def start_utt(self) -> None:
        pass

    end_utt = start_utt

    def process_raw(self, sound: bytes, **_: object) -> None:
        self._level = round(100 * int(np.frombuffer(sound, "<i2").max()) / 32768)

    def add_word(self, word: str, phones: str) -> None:
        pass

    def get_alignment(self) -> list[Part]:
        more = len(self._text) - self._level
        if abs(more) > 1:
            raise RuntimeError("no alignment")
        silence = Part("<sil>", 0, 20, -2000)
        score = {0: -10, -1: -50, 1: 0}[more]
        word = Part(f"{self._text}(2)", 20, 30, 30 * score, (Part("AH", 20, 10), Part("T", 30, 20)))
        return [silence] if more == 1 else [silence, word]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, with threads for processes."""
    dictionary = tmp_path / "words.dict"
    dictionary.write_text("hello HH AH L OW\nworld W ER L D\nstop S T AA P\nsto S T\nstops S\n")
    stand_in = SimpleNamespace(Decoder=Aligner, get_model_path=lambda _: str(dictionary))
    monkeypatch.setitem(sys.modules, "pocketsphinx", stand_in)
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    monkeypatch.delitem(sys.modules, "align_speech", raising=False)
    module = importlib.import_module("align_speech")
    monkeypatch.setattr(module, "ProcessPoolExecutor", ThreadPoolExecutor)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of SAID; there is no manifest yet."""
    (tmp_path / "speech").mkdir()
    for name, word in SAID.items():
        sf.write(tmp_path / "speech" / name, np.full(SAMPLE_RATE, len(word) / 100), SAMPLE_RATE)
    return tmp_path / "speech"


def run(script: ModuleType, folder: Path, manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script on a folder with this manifest."""
    (folder / "manifest.csv").write_text(manifest, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["align_speech.py", str(folder)])
    script.main()


def test_what_does_not_fit_is_left_out_and_counted(
    script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A transcript that cannot be aligned, one that fits badly or to silence alone, none, and no recording."""
    lines = ["a.wav,Hello!,ann", "b.wav,stop,bob", "c.wav,stops,cid", "c.wav,world wide,cid", "c.wav,sto,cid"]
    lines += ["b.wav,,bob", "b.wav,\u043c\u0438\u0440,bob", "gone.wav,hello,eve"]
    run(script, folder, "\n".join(["file,label,speaker", *lines]), monkeypatch)
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 1 recordings aligned, 7 left out",
        "left out: 4 (not said as it is written): b.wav, c.wav, c.wav, c.wav",
        "left out: 2 (no transcript): b.wav, b.wav",
        "left out: 1 (cannot be read): gone.wav",
    ]
    (line,) = (folder / "alignments.jsonl").read_text().splitlines()
    words = [["<sil>", 0, 20, []], ["hello", 20, 30, [["AH", 20, 10], ["T", 30, 20]]]]
    assert json.loads(line) == {"file": "a.wav", "speaker": "ann", "clip": False, "words": words}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("file,licence\na.wav,MIT\n", "manifest.csv: has no column label, expected file, and label"),
        ("", "manifest.csv: has no column file, label"),
        ("file,label\na.wav,\n", "no recording can be aligned, expected English with transcripts; left out: 1 (no tr"),
    ],
)
def test_a_folder_that_cannot_be_aligned_is_refused(
    manifest: str,
    said: str,
    script: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without transcripts there is one line, and no file that would count as done."""
    with pytest.raises(SystemExit, match="2"):
        run(script, folder, manifest, monkeypatch)
    assert said in capsys.readouterr().err
    assert not (folder / "alignments.jsonl").exists()


@pytest.mark.parametrize("missing", ["pocketsphinx", "espeak-ng"])
def test_what_is_not_installed_is_named(
    missing: str,
    script: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With how to install it."""
    if missing == "pocketsphinx":
        monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    else:
        monkeypatch.setattr(script.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="2"):
        run(script, folder, "file,label\na.wav,hallo\n", monkeypatch)
    assert f"install {missing}" in capsys.readouterr().err
