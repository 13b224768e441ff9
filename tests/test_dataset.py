"""The twelve-class task is drawn as it says, from any archive, and lies on the disk whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.prepare import NOISE_STRETCHES, prepare
from tiny_kws.data.prepared import (
    EXTRA,
    LEFT_OUT,
    MATERIAL,
    PreparedData,
    clips_digest,
    material_file,
    open_prepared,
    to_pcm,
)
from tiny_kws.data.sources import read_sources
from tiny_kws.data.speech_commands import (
    KEYWORDS,
    LABELS,
    OFFICIAL_CLIPS,
    find_words_folder,
    read_test_archive,
)
from tiny_kws.data.word_folders import speaker_of
from tiny_kws.errors import DataError, KwsError, UsageError
from tiny_kws.training_config import PrepareConfig
from tiny_kws.words import SILENCE, UNKNOWN

from .conftest import NOISE_SECONDS, SPEAKERS, UNKNOWN_WORDS, WORDS_FOLDER, full_disk, kill_in_the_middle
from .material import write_sources

KILLED = """
import sys, time
from pathlib import Path
from tiny_kws.data import prepare

prepare.CLIPS_AT_ONCE = 16

def pause(done, total):
    if done >= 64:
        print("in the middle", flush=True)
        time.sleep(60)

prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]), progress=pause)
"""


@pytest.fixture
def own_archive(speech_commands: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic archive, one's own to damage."""
    return Path(shutil.copytree(speech_commands, tmp_path / "archive"))


@pytest.fixture
def own_prepared(prepared: PreparedData, tmp_path: Path) -> Path:
    """A copy of the prepared folder, one's own to damage."""
    return Path(shutil.copytree(prepared.folder, tmp_path / "own"))


@pytest.fixture(scope="module")
def with_sources(tmp_path_factory: pytest.TempPathFactory, speech_commands: Path) -> PreparedData:
    """The synthetic archive prepared with the sources of `material` beside it; not to be written to."""
    root = tmp_path_factory.mktemp("beside")
    (root / WORDS_FOLDER).symlink_to(speech_commands)
    return prepare(root, root / "task", sources=read_sources(write_sources(root)))


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    """What is said when `call` is refused: a DataError of one line."""
    with pytest.raises(DataError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wav(folder: Path, file: str) -> np.ndarray:
    return sf.read(folder / file, dtype="int16")[0]


def silences(data: PreparedData, split: str) -> list[tuple[int, str, int, float]]:
    """Row, recording, first sample and volume of every silence of a split."""
    found = []
    for row in data.rows(split):
        clip = data.clips[row]
        if clip.label == SILENCE:
            name, _, rest = clip.file.rpartition("@")
            start, _, volume = rest.partition("*")
            found.append((int(row), name, int(start), float(volume)))
    return found


def test_splits_follow_the_lists(prepared: PreparedData, speech_commands: Path) -> None:
    """A recording is in the split that lists it, and else in training or, if not drawn for the task, extra."""
    listed = {split: set((speech_commands / f"{split}_list.txt").read_text().split()) for split in list(SPEAKERS)[1:]}
    for clip in prepared.clips:
        if clip.label == SILENCE:
            continue
        expected = next(([split] for split, files in listed.items() if clip.file in files), ["training", EXTRA])
        assert clip.split in expected


def test_every_keyword_recording_is_in(prepared: PreparedData, speech_commands: Path) -> None:
    """All recordings of the ten keywords are there, once each."""
    expected = {f"{word}/{path.name}" for word in KEYWORDS for path in (speech_commands / word).glob("*.wav")}
    found = [clip.file for clip in prepared.clips if clip.label in KEYWORDS]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_labels_words_and_speakers(prepared: PreparedData) -> None:
    """A clip's word is its folder, its label the word or `unknown`, its speaker the name before `_nohash_`."""
    for clip in prepared.clips:
        if clip.label == SILENCE:
            assert (clip.word, clip.speaker) == ("", "")
        else:
            assert clip.file == f"{clip.word}/{clip.speaker}_nohash_0.wav"
            assert clip.label == (clip.word if clip.word in KEYWORDS else UNKNOWN)


def test_speakers_are_disjoint(prepared: PreparedData) -> None:
    """No speaker is heard in two splits."""
    for split, speakers in SPEAKERS.items():
        found = {prepared.clips[row].speaker for row in prepared.rows(split)} - {""}
        assert found == set(speakers)


def test_overlapping_lists_are_refused(own_archive: Path, tmp_path: Path) -> None:
    """Lists that put a speaker into two splits are refused, naming the speaker."""
    listed = (own_archive / "validation_list.txt").read_text().splitlines()
    (own_archive / "validation_list.txt").write_text("\n".join(listed[1:]))
    said = refused(prepare, own_archive, tmp_path / "out")
    assert "1 speakers are in more than one split (20b00001 for one)" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_shares(speech_commands: Path, tmp_path: Path, share: float) -> None:
    """Unknown and silence are the asked shares of each split's keyword clips."""
    config = PrepareConfig(unknown_share=share, silence_share=2 * share)
    data = prepare(speech_commands, tmp_path / "out", config)
    for split, speakers in SPEAKERS.items():
        counts = Counter(data.clips[row].label for row in data.rows(split))
        keywords = 10 * len(speakers)
        assert counts[UNKNOWN] == round(share * keywords)
        assert counts[SILENCE] == round(2 * share * keywords)
        assert data.manifest.clips[split] == counts


def test_no_more_unknowns_than_there_are(speech_commands: Path, tmp_path: Path) -> None:
    """A share beyond all other recordings takes each of them once."""
    data = prepare(speech_commands, tmp_path / "out", PrepareConfig(unknown_share=5.0))
    found = [clip.file for clip in data.clips if clip.label == UNKNOWN]
    assert len(found) == len(set(found)) == len(UNKNOWN_WORDS) * sum(map(len, SPEAKERS.values()))


def test_silence_is_of_its_own_stretch(speech_commands: Path, tmp_path: Path) -> None:
    """The silence of a split is a second of that split's stretch of a recording, at the volume in its name."""
    data = prepare(speech_commands, tmp_path / "out", PrepareConfig(silence_share=1.0))
    for split, (start_share, end_share) in NOISE_STRETCHES.items():
        found = silences(data, split)
        assert len(found) == 10 * len(SPEAKERS[split])
        for row, name, start, volume in found:
            assert start >= round(start_share * NOISE_SECONDS * SAMPLE_RATE)
            assert start + CLIP_SAMPLES <= round(end_share * NOISE_SECONDS * SAMPLE_RATE)
            expected = wav(speech_commands, name)[start : start + CLIP_SAMPLES] * volume
            np.testing.assert_allclose(data.bank[row], expected, atol=0.6)


def test_training_noise_is_of_the_training_stretch(prepared: PreparedData, speech_commands: Path) -> None:
    """The noise to train against is the training stretch of every recording, one after the other."""
    paths = sorted((speech_commands / "_background_noise_").glob("*.wav"))
    end = round(NOISE_STRETCHES["training"][1] * NOISE_SECONDS * SAMPLE_RATE)
    expected = np.concatenate([sf.read(path, dtype="int16")[0][:end] for path in paths])
    np.testing.assert_array_equal(prepared.noise, expected)


def test_same_seed_same_files(prepared: PreparedData, speech_commands: Path, tmp_path: Path) -> None:
    """Prepared again with the same seed, every file is the same bit for bit."""
    again = prepare(speech_commands, tmp_path / "out")
    names = sorted(path.name for path in again.folder.iterdir())
    parts = ["bank.npy", "clips.csv", "credits.csv", "manifest.json", "noise.npy"]
    assert names == [*parts, "other_noise.npy", "other_rooms.npy", "other_speech.npy", "spans.npy"]
    for name in names:
        assert (again.folder / name).read_bytes() == (prepared.folder / name).read_bytes(), name


def test_another_seed_another_draw(prepared: PreparedData, speech_commands: Path, tmp_path: Path) -> None:
    """Another seed draws other unknowns and silences, and keeps the keywords."""
    other = prepare(speech_commands, tmp_path / "out", PrepareConfig(seed=1))
    for label in (UNKNOWN, SILENCE):
        first, second = ({clip.file for clip in data.clips if clip.label == label} for data in (prepared, other))
        assert first != second
    first, second = ([clip for clip in data.clips if clip.label in KEYWORDS] for data in (prepared, other))
    assert first == second


def test_one_draw_does_not_move_another(prepared: PreparedData, speech_commands: Path, tmp_path: Path) -> None:
    """More silence leaves the unknowns as they were."""
    other = prepare(speech_commands, tmp_path / "out", PrepareConfig(silence_share=0.5))
    first, second = ([clip for clip in data.clips if clip.label == UNKNOWN] for data in (prepared, other))
    assert first == second


def test_the_bank_holds_the_recordings(prepared: PreparedData, speech_commands: Path) -> None:
    """Each row of the bank is its recording bit for bit."""
    for row, clip in enumerate(prepared.clips):
        if clip.label != SILENCE:
            np.testing.assert_array_equal(prepared.bank[row], wav(speech_commands, clip.file))


def test_clips_of_other_lengths(own_archive: Path, tmp_path: Path) -> None:
    """A short recording is followed by digital silence, a long one cut after a second."""
    rng = np.random.default_rng(0)
    short, long = (rng.integers(-9000, 9000, n).astype(np.int16) for n in (7000, 30_000))
    files = [f"yes/{SPEAKERS['training'][i]}_nohash_0.wav" for i in (0, 1)]
    for file, pcm in zip(files, (short, long), strict=True):
        sf.write(own_archive / file, pcm, SAMPLE_RATE)
    data = prepare(own_archive, tmp_path / "out")
    rows = {clip.file: row for row, clip in enumerate(data.clips)}
    np.testing.assert_array_equal(data.bank[rows[files[0]]], np.pad(short, (0, CLIP_SAMPLES - 7000)))
    np.testing.assert_array_equal(data.bank[rows[files[1]]], long[:CLIP_SAMPLES])


@pytest.mark.parametrize("value", [-32768, -32767, -1, 0, 1, 12_345, 32_767])
def test_sixteen_bits_survive(value: int) -> None:
    """16-bit samples come back exactly from floats."""
    assert int(to_pcm(np.float32([value / 32768]))[0]) == value


def test_beyond_full_scale() -> None:
    """Floats beyond full scale are clipped, not wrapped around."""
    np.testing.assert_array_equal(to_pcm(np.float32([1.0, 1.5, -1.0, -1.5])), [32767, 32767, -32768, -32768])


def test_an_incomplete_archive_is_reported(own_archive: Path, tmp_path: Path) -> None:
    """What the official archive has more, and what is listed but not there, stands in the manifest."""
    shutil.rmtree(own_archive / "bed")
    (own_archive / "go" / "20b00001_nohash_0.wav").unlink()
    manifest = prepare(own_archive, tmp_path / "out").manifest
    assert manifest.missing.listed == {"validation": 4, "testing": 2}
    assert manifest.recordings == {"training": 90, "validation": 44, "testing": 30}
    for split, found in manifest.recordings.items():
        assert manifest.missing.clips[split] == OFFICIAL_CLIPS[split] - found


def test_the_manifest_on_the_disk(prepared: PreparedData) -> None:
    """manifest.json says where the clips come from, how they were drawn, and how many there are."""
    manifest = json.loads((prepared.folder / "manifest.json").read_text())
    assert manifest == json.loads(prepared.manifest.to_json())
    assert manifest["prepare"] == {"unknown_share": 0.1, "silence_share": 0.1, "seed": 0, "window_ms": 1000.0}
    assert manifest["labels"] == list(LABELS)
    speakers = {split: len(speakers) for split, speakers in SPEAKERS.items()}
    assert manifest["speakers"] == {**speakers, EXTRA: speakers["training"]}
    assert sum(manifest["unknown_words"]["training"].values()) == manifest["clips"]["training"][UNKNOWN]
    files = [prepared.clips[row].file for row in prepared.rows("validation")]
    assert manifest["clips_sha256"]["validation"] == clips_digest(files)


def test_the_digest_depends_on_names_and_order() -> None:
    """Lists of clips that differ in a name, in their order or in where a name ends have different digests."""
    assert len({clips_digest(names) for names in (["a", "b"], ["b", "a"], ["a"], ["ab"], ["a", "c"], [])}) == 6


def test_a_new_clips_digest_for_another_draw(prepared: PreparedData, speech_commands: Path, tmp_path: Path) -> None:
    """Two draws can be told apart by the manifest's digests."""
    other = prepare(speech_commands, tmp_path / "out", PrepareConfig(seed=1))
    assert other.manifest.clips_sha256 != prepared.manifest.clips_sha256


def test_targets(prepared: PreparedData) -> None:
    """Targets are the labels' places in LABELS, row by row."""
    rows = prepared.rows("training")
    assert [LABELS[target] for target in prepared.targets(rows)] == [prepared.clips[row].label for row in rows]


def test_a_split_without_clips(own_archive: Path, tmp_path: Path) -> None:
    """An archive without testing clips can be prepared; asking for them says what there is."""
    for file in (own_archive / "testing_list.txt").read_text().split():
        (own_archive / file).unlink()
    (own_archive / "testing_list.txt").write_text("")
    data = prepare(own_archive, tmp_path / "out")
    assert data.manifest.clips["testing"] == {}
    assert "holds no clips of the split 'testing', expected one of: extra, training, validation" in refused(
        data.rows, "testing"
    )


def test_progress_counts_to_the_end(speech_commands: Path, tmp_path: Path) -> None:
    """Progress counts the recordings, up to all of them."""
    seen: list[tuple[int, int]] = []
    prepare(speech_commands, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (151, 151)


def test_the_folder_above_will_do(speech_commands: Path) -> None:
    """The words' folder is found from itself and from the one above."""
    assert find_words_folder(speech_commands) == find_words_folder(speech_commands.parent) == speech_commands


def test_missing_lists(own_archive: Path, tmp_path: Path) -> None:
    """A folder without both lists is refused."""
    (own_archive / "testing_list.txt").unlink()
    assert "is not the Speech Commands layout, but has folders of the words" in refused(
        prepare, own_archive, tmp_path / "out"
    )


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    """A folder that does not exist is refused the same way."""
    assert "expected the Speech Commands layout" in refused(prepare, tmp_path / "none", tmp_path / "out")


def test_no_recordings(tmp_path: Path) -> None:
    """Lists without recordings are refused."""
    for split in ("validation", "testing"):
        (tmp_path / f"{split}_list.txt").write_text("yes/0_nohash_0.wav\n")
    assert "holds the lists but no recordings" in refused(prepare, tmp_path, tmp_path / "out")


def test_lists_that_are_not_text(own_archive: Path, tmp_path: Path) -> None:
    """A list of random bytes is refused."""
    (own_archive / "testing_list.txt").write_bytes(b"\xff\xfe\x00\x81" * 50)
    assert "testing_list.txt" in refused(prepare, own_archive, tmp_path / "out")


@pytest.mark.parametrize("seconds", [None, 5])
def test_too_little_noise(own_archive: Path, tmp_path: Path, seconds: int | None) -> None:
    """No background recordings, or short ones, are refused."""
    shutil.rmtree(own_archive / "_background_noise_")
    if seconds:
        (own_archive / "_background_noise_").mkdir()
        sf.write(own_archive / "_background_noise_" / "tap.wav", np.zeros(seconds * SAMPLE_RATE), SAMPLE_RATE)
    said = refused(prepare, own_archive, tmp_path / "out")
    assert "expected background noise of at least 10 s each" in said


def test_an_existing_destination(speech_commands: Path, tmp_path: Path) -> None:
    """A folder that is already there is refused and left as it is, before any clip is read."""
    (tmp_path / "file").touch()
    seen: list[int] = []
    with pytest.raises(DataError, match=r"already exists, expected a new folder"):
        prepare(speech_commands, tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unreadable_clip_is_named_and_skipped(own_archive: Path, tmp_path: Path) -> None:
    """A damaged or empty recording is named in the manifest, and the others are all there."""
    damaged = own_archive / "yes" / f"{SPEAKERS['training'][0]}_nohash_0.wav"
    empty = own_archive / "no" / f"{SPEAKERS['training'][0]}_nohash_0.wav"
    damaged.write_bytes(b"no sound in here")
    empty.write_bytes(b"")
    data = prepare(own_archive, tmp_path / "out")
    assert sorted(line.partition(":")[0] for line in data.manifest.unreadable) == sorted(map(str, (damaged, empty)))
    assert data.manifest.clips["training"]["yes"] == 5
    assert len(data.bank) == len(data.clips)
    rows = {clip.file: row for row, clip in enumerate(data.clips)}
    file = f"yes/{SPEAKERS['training'][1]}_nohash_0.wav"
    np.testing.assert_array_equal(data.bank[rows[file]], wav(own_archive, file))


def test_killed_in_the_middle(speech_commands: Path, tmp_path: Path) -> None:
    """A run that is killed leaves no destination, and the next one works."""
    kill_in_the_middle(KILLED, speech_commands, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    assert len(prepare(speech_commands, tmp_path / "out").clips) == 162


@pytest.mark.parametrize("free_bytes", [100, 1_000_000, 4_000_000])
def test_a_full_disk(speech_commands: Path, tmp_path: Path, free_bytes: int) -> None:
    """A disk that fills up at any point is a KwsError in one line, and nothing is left."""
    with pytest.raises(KwsError, match=r"^[^\n]*out: cannot be written \([^\n]+$"), full_disk(free_bytes):
        prepare(speech_commands, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_prepared_data_opens_again(prepared: PreparedData) -> None:
    """What was prepared opens as it was."""
    again = open_prepared(prepared.folder)
    assert again.clips == prepared.clips
    np.testing.assert_array_equal(again.bank, prepared.bank)


@pytest.mark.parametrize("name", ["manifest.json", "clips.csv", "bank.npy", "noise.npy"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "random", "halved"])
def test_damaged_parts(own_prepared: Path, name: str, damage: str) -> None:
    """A prepared folder of which any part is missing or damaged is refused in one line that names the folder."""
    path = own_prepared / name
    data = path.read_bytes()
    path.unlink()
    if damage != "removed":
        changed = {"emptied": b"", "random": np.random.default_rng(0).bytes(3000), "halved": data[: len(data) // 2]}
        path.write_bytes(changed[damage])
    assert str(own_prepared) in refused(open_prepared, own_prepared)


@pytest.mark.parametrize("folder", ["none", "."])
def test_a_foreign_folder(tmp_path: Path, folder: str) -> None:
    """A folder that is not there or was not prepared is refused, saying what to run."""
    assert "run `tiny-kws data prepare SOURCE" in refused(open_prepared, tmp_path / folder)


@pytest.mark.parametrize("found", [0, 1, 2, 4, None, "3"])
def test_another_format(own_prepared: Path, found: object) -> None:
    """A folder prepared in another format is refused."""
    manifest = json.loads((own_prepared / "manifest.json").read_text())
    (own_prepared / "manifest.json").write_text(json.dumps({**manifest, "format": found}))
    assert f"prepared in format {found}, expected 3" in refused(open_prepared, own_prepared)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_a_manifest_of_another_kind(own_prepared: Path, text: str) -> None:
    """A manifest that is JSON but no object is refused."""
    (own_prepared / "manifest.json").write_text(text)
    refused(open_prepared, own_prepared)


def test_fewer_clips_than_rows(own_prepared: Path) -> None:
    """A list of clips that is shorter than the bank is refused, with both sizes."""
    lines = (own_prepared / "clips.csv").read_text().splitlines(keepends=True)
    (own_prepared / "clips.csv").write_text("".join(lines[:-1]))
    assert "the bank is (162, 16000) int16, expected (161, 16000) int16" in refused(open_prepared, own_prepared)


def test_other_columns(own_prepared: Path) -> None:
    """A list of clips with other columns is refused."""
    text = (own_prepared / "clips.csv").read_text()
    (own_prepared / "clips.csv").write_text(text.replace("speaker", "voice", 1))
    refused(open_prepared, own_prepared)


def test_a_bank_of_code(own_prepared: Path, tmp_path: Path) -> None:
    """Arrays of Python objects, which may hold code, are refused."""
    np.save(own_prepared / "noise.npy", np.array([print, {}], dtype=object))
    refused(open_prepared, own_prepared)


def test_noise_of_another_kind(own_prepared: Path) -> None:
    """Noise that is no row of 16-bit samples of at least a second is refused."""
    np.save(own_prepared / "noise.npy", np.zeros((3, 4)))
    assert "noise" in refused(open_prepared, own_prepared)


def test_a_foreign_label(own_prepared: Path) -> None:
    """A label outside the twelve is refused."""
    text = (own_prepared / "clips.csv").read_text()
    (own_prepared / "clips.csv").write_text(text.replace("training,yes,", "training,yeah,", 1))
    assert "yeah" in refused(open_prepared, own_prepared)


# More to train on


def test_other_words_that_the_task_did_not_draw(prepared: PreparedData, speech_commands: Path) -> None:
    """The split `extra` holds every training recording of another word that the task did not draw, and no other."""
    task, extra = ({prepared.clips[row].file for row in prepared.rows(split)} for split in ("training", EXTRA))
    every = {
        f"{word}/{path.name}"
        for word in UNKNOWN_WORDS
        for path in (speech_commands / word).glob("*.wav")
        if path.name.partition("_")[0] in SPEAKERS["training"]
    }
    assert task & extra == set()
    assert {file for file in task | extra if file.partition("/")[0] in UNKNOWN_WORDS} == every
    assert {prepared.clips[row].label for row in prepared.rows(EXTRA)} == {UNKNOWN}


def test_words_of_other_sources(with_sources: PreparedData, prepared: PreparedData) -> None:
    """Words of other sources join `extra` with their word and speaker, a second of each; the task stays as it was."""
    others = {row: clip for row, clip in enumerate(with_sources.clips) if clip.file.startswith("../")}
    assert [(clip.file, clip.split, clip.label, clip.word, clip.speaker) for clip in others.values()] == [
        ("../words/abbey/ann_1.wav", EXTRA, UNKNOWN, "abbey", "words:ann"),
        ("../words/bed/bob_1.wav", EXTRA, UNKNOWN, "bed", "words:bob"),
        ("../words/bed/bob_2.wav", EXTRA, UNKNOWN, "bed", "words:bob"),
    ]
    for row, clip in others.items():
        pcm = wav(with_sources.folder.parent, clip.file.removeprefix("../"))
        np.testing.assert_array_equal(with_sources.bank[row], np.pad(pcm, (0, CLIP_SAMPLES - len(pcm))))
    assert [clip for clip in with_sources.clips if not clip.file.startswith("../")] == prepared.clips


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("noise", ["events/dog_bark-1-100032-A.wav", "events/dog_bark-2-100032-B.wav", "ambient/street.wav"]),
        ("rooms", ["near.wav", "far.wav"]),
        ("speech", []),
    ],
)
def test_material(with_sources: PreparedData, kind: str, files: list[str]) -> None:
    """Noises, rooms and speech of other sources come back bit for bit, and the manifest says what they are."""
    found = with_sources.material(kind)
    assert [excerpt.file for excerpt in with_sources.manifest.material[kind]] == [f"{kind}/{file}" for file in files]
    for pcm, file in zip(found, files, strict=True):
        np.testing.assert_array_equal(pcm, wav(with_sources.folder.parent / kind, file))


def test_no_other_sources(prepared: PreparedData) -> None:
    """Without anything beside the archive there is no material, and the manifest says what is missing."""
    assert [prepared.material(kind) for kind in MATERIAL] == [[], [], []]
    missing = {bill.folder for bill in prepared.manifest.sources if "the folder is missing" in bill.left_out}
    speech = {"near_speech", "speech", "speech_libri", "speech_cv"}
    assert missing == speech | {"words", "synthetic", "near", "noise", "rooms"}


def test_the_task_in_the_bill_of_materials(with_sources: PreparedData) -> None:
    """The manifest's bill of materials counts the task's own training recordings, silence aside."""
    own = [clip for clip in with_sources.clips if clip.split in ("training", EXTRA) and clip.label != SILENCE]
    n_own = sum(not clip.file.startswith("../") for clip in own)
    assert with_sources.manifest.sources[0].used == {"CC BY 4.0": n_own}
    assert n_own == 96


def test_a_source_named_from_the_root(own_archive: Path, tmp_path: Path) -> None:
    """A source's folder may lie anywhere."""
    path = write_sources(tmp_path / "elsewhere")
    path.write_text(path.read_text().replace('folder = "words"', f'folder = "{tmp_path}/elsewhere/words"'))
    data = prepare(own_archive, tmp_path / "out", sources=read_sources(path))
    assert list(data.manifest.unreadable) == []
    assert str(tmp_path / "elsewhere" / "words" / "abbey" / "ann_1.wav") in {clip.file for clip in data.clips}


def test_prepared_from_within(with_sources: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are found beside the words' folder from wherever and however that folder is named."""
    root = with_sources.folder.parent
    shutil.copytree(root / WORDS_FOLDER, tmp_path / "task" / WORDS_FOLDER)
    write_sources(tmp_path / "task")
    monkeypatch.chdir(tmp_path / "task" / WORDS_FOLDER)
    data = prepare(Path(), tmp_path / "out", sources=read_sources(root / "sources.toml"))
    assert data.clips == with_sources.clips


def test_keywords_of_other_sources(own_archive: Path, tmp_path: Path) -> None:
    """Of a source of words the keywords are clips of their own label, in the split of further words."""
    path = write_sources(tmp_path)
    path.write_text(path.read_text().replace('use = "other words"', 'use = "words"'), encoding="utf-8")
    data = prepare(own_archive, tmp_path / "out", sources=read_sources(path))
    labels = {clip.word: (clip.split, clip.label) for clip in data.clips if "words/" in clip.file}
    assert labels == {"abbey": (EXTRA, UNKNOWN), "bed": (EXTRA, UNKNOWN), "yes": (EXTRA, "yes")}


def test_material_that_cannot_be_used(own_archive: Path, tmp_path: Path) -> None:
    """Recordings of other sources that are damaged or silent are named and left out, the others kept."""
    path = write_sources(tmp_path)
    (tmp_path / "noise" / "ambient" / "street.wav").write_bytes(b"no sound in here")
    sf.write(tmp_path / "rooms" / "near.wav", np.zeros(4000), SAMPLE_RATE)
    (tmp_path / "words" / "abbey" / "ann_1.wav").unlink()
    data = prepare(own_archive, tmp_path / "out", sources=read_sources(path))
    named = [Path(line.partition(": ")[0]).name for line in data.manifest.unreadable]
    assert sorted(named) == ["ann_1.wav", "near.wav", "street.wav"]
    assert (len(data.material("noise")), len(data.material("rooms"))) == (2, 1)
    assert "abbey" not in {clip.word for clip in data.clips}


@pytest.mark.parametrize("damage", ["removed", "emptied", "halved", "other", "not listed"])
def test_damaged_material(with_sources: PreparedData, tmp_path: Path, damage: str) -> None:
    """Material that is missing, damaged or not what the manifest says is refused, naming the folder."""
    folder = Path(shutil.copytree(with_sources.folder, tmp_path / "own"))
    path = folder / material_file("noise")
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "other":
        np.save(path, np.zeros(24_000, np.float32))
    elif damage == "not listed":
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["material"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    else:
        path.write_bytes({"emptied": b"", "halved": data[: len(data) // 2]}[damage])
    assert str(folder) in refused(lambda: open_prepared(folder).material("noise"))


def test_words_left_out(prepared: PreparedData) -> None:
    """Clips of a word left out are of no split that is trained on; those to measure on, and all others, stay."""
    without = prepared.without(["bed", "zero"])
    for before, after in zip(prepared.clips, without.clips, strict=True):
        trained = before.split in ("training", EXTRA) and before.word in ("bed", "zero")
        assert after == (replace(before, split=LEFT_OUT) if trained else before)
    assert len(without.rows(LEFT_OUT)) == 2 * len(SPEAKERS["training"])


def test_nothing_left_out(prepared: PreparedData) -> None:
    """Without words to leave out, the data are what they were."""
    assert prepared.without(()).clips == prepared.clips


@pytest.mark.parametrize(
    ("word", "said"), [("yes", "yes is a keyword, expected other words"), ("bird", "has no clip of bird to train on")]
)
def test_words_that_cannot_be_left_out(prepared: PreparedData, word: str, said: str) -> None:
    """A keyword, or a word of which there is nothing to train on, cannot be left out."""
    with pytest.raises(UsageError, match=said):
        prepared.without(["bed", word])


@pytest.mark.parametrize(
    ("file", "word", "speaker"),
    [("yes/0a7c2a8d_nohash_0.wav", "yes", "0a7c2a8d"), ("no/b_nohash_1_v2.wav", "no", "b")],
)
def test_names(file: str, word: str, speaker: str) -> None:
    """Word and speaker stand in a recording's path."""
    assert (file.partition("/")[0], speaker_of(file)) == (word, speaker)


def write_test_archive(folder: Path) -> Path:
    for label in LABELS:
        sub = folder / (f"_{label}_" if label in (SILENCE, UNKNOWN) else label)
        sub.mkdir(parents=True)
        for name in ("b", "a"):
            sf.write(sub / f"{name}.wav", np.zeros(CLIP_SAMPLES), SAMPLE_RATE)
    return folder


def test_the_test_archive(tmp_path: Path) -> None:
    """Folders `_silence_` and `_unknown_` and the words give sorted files with their labels."""
    folder = write_test_archive(tmp_path / "speech_commands_test_set_v0.02")
    expected = [
        (folder / (f"_{label}_" if label in (SILENCE, UNKNOWN) else label) / name, label)
        for label in LABELS
        for name in ("a.wav", "b.wav")
    ]
    assert read_test_archive(folder) == expected


def test_the_folder_above_the_test_archive(tmp_path: Path) -> None:
    """The test archive is found from the folder above as well."""
    write_test_archive(tmp_path / "speech_commands_test_set_v0.02")
    assert len(read_test_archive(tmp_path)) == 24


def test_a_test_archive_that_lacks_labels(tmp_path: Path) -> None:
    """A test archive without some label is refused, naming it."""
    folder = write_test_archive(tmp_path / "test")
    shutil.rmtree(folder / "go")
    shutil.rmtree(folder / "_silence_")
    assert "found no clips of go, silence" in refused(read_test_archive, folder)


def test_a_foreign_test_archive(tmp_path: Path) -> None:
    """Any other folder is no test archive."""
    assert "expected the official test archive's folders" in refused(read_test_archive, tmp_path)
