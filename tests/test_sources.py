"""One file names what training may use; what licences, keywords and measurements forbid is left out, and counted."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny_kws.data.held_out import part_of
from tiny_kws.data.manifest import Bill
from tiny_kws.data.sources import HELD_OUT, Recording, Source, Sources, credits_csv, gather, list_source, read_sources
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.errors import DataError

from .material import FREE, SENTENCE_LICENCE, SOURCES, write_sources

PUBLISHED = read_sources()
FREE_FOR_ANY_USE = "free for commercial and non-commercial use (repo README; no licence file in the repo)"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sources of `material`; not to be written to."""
    root = tmp_path_factory.mktemp("sources")
    write_sources(root)
    return root


@pytest.fixture
def sources(root: Path) -> Sources:
    return read_sources(root / "sources.toml")


def source(use: str, folder: str = "own") -> Source:
    return Source("Own", folder, use, "by me")


def of_use(root: Path, sources: Sources, use: str) -> tuple[list[Recording], Bill]:
    """What is used of the only source for `use`, and its line in the bill of materials."""
    (one,) = sources.of_use(use)
    return list_source(root, one, sources, KEYWORDS)


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    """What is said when `call` is refused: a DataError."""
    with pytest.raises(DataError) as caught:
        call(*arguments)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Licences


@pytest.mark.parametrize(
    "licence",
    [
        "CC0 1.0",
        "CC0 1.0 (ESC-10 data set CC BY 3.0)",
        "CC BY 3.0",
        "CC BY (version not stated)",
        "MIT",
        "Apache-2.0",
        FREE_FOR_ANY_USE,
    ],
)
def test_free_licences(licence: str) -> None:
    """The published weights may be trained on CC0, CC BY, MIT and Apache material, and on what is free for any use."""
    assert PUBLISHED.permits(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "CC BY-SA 3.0",
        "CC BY-SA (version not stated)",
        "CC BY ShareAlike 4.0",
        "CC BY-NC 4.0",
        "CC BY-ND 4.0",
        "CC BY-NC-SA 4.0",
        "Public Domain",
        "public domain (licenses/license-20201215-jarbas.txt)",
        "GPL-3.0",
        "not MIT",
        "",
    ],
)
def test_other_licences(licence: str) -> None:
    """They may not on what is share-alike, not for sale, not to be changed, or of a licence that is not named."""
    assert not PUBLISHED.permits(licence)


@pytest.mark.parametrize("licence", ["CC BY-SA 3.0", "Public Domain", ""])
def test_any_licence(licence: str) -> None:
    """Without a list of licences everything may be used."""
    assert replace(PUBLISHED, licences=()).permits(licence)


# What is used


def test_words(root: Path, sources: Sources) -> None:
    """Of other words, permitted licences that are no keyword nor were heard as one; the bill counts both."""
    used, bill = of_use(root, sources, "other words")
    assert [(r.file, r.word, r.speaker) for r in used] == [
        ("words/abbey/ann_1.wav", "abbey", "words:ann"),
        ("words/bed/bob_1.wav", "bed", "words:bob"),
        ("words/bed/bob_2.wav", "bed", "words:bob"),
    ]
    assert all(r.path.is_file() for r in used)
    assert bill == Bill(
        name="Some words",
        use="other words",
        attribution="by many",
        folder="words",
        used={"Apache-2.0 (voices)": 1, FREE: 1, "MIT": 1},
        left_out={"CC BY-NC 4.0": 1, "CC BY-SA 4.0": 1, "a keyword, or heard as one": 2},
    )


def test_words_with_keywords(root: Path, sources: Sources) -> None:
    """Of words, keywords too, but none that was heard as another where either is a keyword."""
    (source,) = sources.of_use("other words")
    used, bill = list_source(root, replace(source, use="words"), sources, KEYWORDS)
    assert [r.word for r in used] == ["abbey", "bed", "bed", "yes"]
    assert bill.left_out == {"CC BY-NC 4.0": 1, "CC BY-SA 4.0": 1, "heard as another word": 1}


def test_noises(root: Path, sources: Sources) -> None:
    """Of noises, permitted licences but for the third that is kept, by the recording that a noise was cut from."""
    used, bill = of_use(root, sources, "noise")
    assert [(r.path.name, r.group) for r in used] == [
        ("dog_bark-1-100032-A.wav", "100032"),
        ("dog_bark-2-100032-B.wav", "100032"),
        ("street.wav", "street"),
    ]
    assert bill.left_out == {"CC BY-SA (version not stated)": 1, "Public Domain": 1, "kept for measurements": 2}


def test_rooms(root: Path, sources: Sources) -> None:
    """Of rooms, all responses of a room or none."""
    used, bill = of_use(root, sources, "rooms")
    assert {(r.path.name, r.group) for r in used} == {("near.wav", "surrey room a"), ("far.wav", "surrey room a")}
    assert (bill.used, bill.left_out) == ({"MIT": 2}, {"kept for measurements": 1})


def test_speech_by_its_licence(root: Path, sources: Sources) -> None:
    """Speech whose licence is not permitted is left out under that licence's name."""
    used, bill = of_use(root, sources, "speech")
    assert (used, bill.left_out) == ([], {SENTENCE_LICENCE: 5})


def test_speech_without_keywords(root: Path, sources: Sources) -> None:
    """Of speech, sentences whose transcript shows no keyword: no inflexion of one, and nothing that sounds like one."""
    used, bill = of_use(root, replace(sources, licences=()), "speech")
    assert [(r.text, r.group) for r in used] == [("we call it bear", "00005")]
    assert bill.left_out == {"holds a keyword": 2, "kept for measurements": 1, "no transcript": 1}


@pytest.mark.parametrize("licence", ["", " "])
def test_what_has_no_licence_is_left_out(licence: str, tmp_path: Path, sources: Sources) -> None:
    """A recording whose licence is not stated is not used, and counted; with any licence it is."""
    write(tmp_path / "own" / "manifest.csv", f"file,word,licence\na.wav,bed,MIT\nb.wav,bed,{licence}\n")
    used, bill = list_source(tmp_path, source("words"), sources, KEYWORDS)
    assert ([r.path.name for r in used], bill.left_out) == (["a.wav"], {"no licence": 1})
    used, _ = list_source(tmp_path, source("words"), replace(sources, licences=()), KEYWORDS)
    assert len(used) == 2


def test_speech_without_transcripts_is_left_out(tmp_path: Path, sources: Sources) -> None:
    """A manifest without the column of transcripts is none that is wrong: each sentence may hold a keyword."""
    write(tmp_path / "own" / "manifest.csv", "file,speaker,licence\na.wav,00005,MIT\nb.wav,00005,MIT\n")
    used, bill = list_source(tmp_path, source("speech"), sources, KEYWORDS)
    assert (used, bill.left_out) == ([], {"no transcript": 2})


def test_a_folder_that_is_missing(tmp_path: Path, sources: Sources) -> None:
    """A source whose folder is not there gives nothing and says so, with all that it would have."""
    used, bill = of_use(tmp_path, sources, "other words")
    assert (used, bill.used, bill.left_out) == ([], {}, {"the folder is missing": 4})


def test_the_bill_of_materials(root: Path, sources: Sources) -> None:
    """The bill has a line a source, the task's own recordings among them; what is used comes by its use."""
    found, bills = gather(root, sources, {FREE: 60}, KEYWORDS)
    assert [(bill.name, sum(bill.used.values())) for bill in bills] == [
        ("Commands", 60),
        ("Some words", 3),
        ("Some noises", 3),
        ("Some rooms", 2),
        ("Some speech", 0),
    ]
    assert bills[0].used == {FREE: 60}
    counts = {"keywords": 0, "other words": 3, "words": 0, "noise": 3, "rooms": 2, "speech": 0}
    assert {use: len(recordings) for use, recordings in found.items()} == counts


# Files that are wrong


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no sources ('source')"),
        ("this is no TOML", "names no sources"),
        ("source = 3", "names no sources"),
        (SOURCES.replace('folder = "words"', ""), "names no sources"),
        (SOURCES.replace('use = "noise"', 'use = "fun"'), "Some noises has the use 'fun', expected one of keywords"),
        (SOURCES.replace('folder = "words"', "folder = 3"), "of 'Some words' is not text"),
        (SOURCES.replace('"MIT" = 1', '"MIT" = "one"'), "Some words has the recordings"),
        (SOURCES.replace("licences", "licenses", 1), "found the settings licenses, expected licences"),
        (SOURCES + 'licences = ["CC0"]', "names no sources"),
        (SOURCES.replace('["CC0", "CC BY", "MIT", "Apache"]', '"CC0"'), "found the licences 'CC0', expected a list"),
        (SOURCES.replace('"CC0", ', "0, "), "expected a list of strings"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    """A file that is no list of sources, or has a setting misspelt or out of place, is refused by name."""
    path = write(tmp_path / "own.toml", text)
    message = refused(read_sources, path)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be read is refused."""
    assert "own.toml: names no sources" in refused(read_sources, tmp_path / "own.toml")


@pytest.mark.parametrize(
    ("use", "manifest", "said"),
    [
        ("noise", "", "has no column file, licence"),
        ("noise", "file,seconds\na.wav,3\n", "has no column licence, expected file, licence"),
        ("other words", "file,licence\na.wav,MIT\n", "has no column word"),
        ("rooms", "file,licence\na.wav,MIT\n", "has no column label"),
        ("speech", "file,label,licence\na.wav,it is,MIT\n", "has no column speaker"),
        ("noise", "file,seconds,licence\na.wav,MIT\n", "the line of a.wav has more or fewer values"),
        ("noise", "file,licence\na.wav,CC BY, 3.0\n", "the line of a.wav has more or fewer values"),
    ],
)
def test_a_manifest_that_is_wrong(tmp_path: Path, use: str, manifest: str, said: str) -> None:
    """A manifest that lacks what its use needs, or whose lines do not fit, is refused by name."""
    path = write(tmp_path / "own" / "manifest.csv", manifest)
    message = refused(list_source, tmp_path, source(use), Sources(()), KEYWORDS)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    """A folder whose files' licences are not stated is refused."""
    (tmp_path / "own").mkdir()
    assert "manifest.csv: cannot be read" in refused(list_source, tmp_path, source("noise"), Sources(()), KEYWORDS)


# The package's own file against the recordings that it names


def manifest_of(shared: Path, folder: str) -> list[dict[str, str]]:
    with zipfile.ZipFile(shared / f"{folder}.zip") as packed:
        return list(csv.DictReader(io.StringIO(packed.read(f"{folder}/manifest.csv").decode())))


@pytest.mark.data
@pytest.mark.parametrize("folder", ["words", "synthetic", "noise", "rooms", "speech"])
def test_counts_of_the_published_sources(shared_data: Path, folder: str) -> None:
    """The package's file counts the recordings by licence as their manifest does."""
    (one,) = (one for one in PUBLISHED.sources if one.folder == folder)
    assert dict(one.recordings) == Counter(line["licence"] for line in manifest_of(shared_data, folder))


@pytest.mark.data
def test_counts_of_the_published_task(shared_data: Path) -> None:
    """The package's file counts the training clips of Speech Commands as there are."""
    (one,) = PUBLISHED.of_use("keywords")
    names = [
        name
        for pack in sorted(shared_data.glob("speech_commands-training-*.zip"))
        for name in zipfile.ZipFile(pack).namelist()
        if not name.endswith((".csv", "/"))
    ]
    assert dict(one.recordings) == {FREE: len(names)}
    assert sum(name.partition("/")[0] in KEYWORDS for name in names) == 20_510


@pytest.mark.data
def test_what_the_published_weights_take(shared_data: Path, tmp_path: Path) -> None:
    """Of the real manifests nothing share-alike is used, no kept noise, room or speaker, and no keyword."""
    folders = ("words", "synthetic", "noise", "rooms", "speech")
    for folder in folders:
        with zipfile.ZipFile(shared_data / f"{folder}.zip") as packed:
            write(tmp_path / folder / "manifest.csv", packed.read(f"{folder}/manifest.csv").decode())
    found, bills = gather(tmp_path, PUBLISHED, {}, KEYWORDS)
    used = [recording for recordings in found.values() for recording in recordings]
    licences = {recording.licence.split(" (")[0] for recording in used}
    kinds = {"CC BY 4.0", "CC BY 3.0", "CC BY", "CC0 1.0", "MIT", "Apache-2.0", FREE_FOR_ANY_USE.partition(" (")[0]}
    assert licences == kinds
    assert all(part_of(recording.group) != HELD_OUT for use in ("noise", "rooms", "speech") for recording in found[use])
    assert not {recording.word for recording in found["other words"]} & set(KEYWORDS)
    assert len(found["speech"]) == 1310
    by_folder = {bill.folder: bill for bill in bills[1:]}
    for folder, count in (("near", 6668), ("near_speech", 1600), ("speech_libri", 5267), ("speech_cv", 4076)):
        assert by_folder.pop(folder).left_out == {"the folder is missing": count}
    assert set(by_folder) == set(folders)
    for folder, bill in by_folder.items():
        listed = len(manifest_of(shared_data, folder))
        assert sum(bill.used.values()) + sum(bill.left_out.values()) == listed


def test_the_credits(root: Path, sources: Sources) -> None:
    """Every recording that is used is credited, with its licence; none that is left out."""
    found, _ = gather(root, sources, {FREE: 60}, KEYWORDS)
    lines = list(csv.DictReader(io.StringIO(credits_csv(sources, found, {FREE: 60}).decode())))
    assert {line["source"] for line in lines} == {"Commands", "Some words", "Some noises", "Some rooms"}
    assert sum(int(line["recordings"]) for line in lines) == 60 + 3 + 3 + 2
    assert all(sources.permits(line["licence"]) for line in lines)
