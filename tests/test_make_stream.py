"""Long recordings with labelled words: what is in them, where, how loud, and whose voice."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

from tiny_kws.artefact.store import find_model
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.held_out import PARTS, noise_source, part_of
from tiny_kws.data.material import SpeechDeck, holds_word, list_clips, list_noises, list_speech, shuffled
from tiny_kws.data.mixing import active_level_db, room_response
from tiny_kws.data.spans import find_word
from tiny_kws.data.speech_commands import KEYWORDS
from tiny_kws.errors import DataError, KwsError, UsageError
from tiny_kws.evaluation.synthesis import protocols, recordings
from tiny_kws.evaluation.synthesis.build import conditions_of, make_stream, parse_snrs
from tiny_kws.evaluation.synthesis.protocols import preset_settings
from tiny_kws.evaluation.synthesis.recordings import StreamSettings

from .conftest import full_disk
from .helpers import changed_artefact, run_cli, speech_like, write_sound

Samples = npt.NDArray[np.float32]

CLIP_SPEAKERS = tuple(f"{i:08x}" for i in range(0x40A0, 0x40AC))
READERS = ("reader1", "reader2", "reader3", "reader4", "reader5", "reader6")
ACCENTS = {"reader1": "scotland", "reader2": "indian", "reader4": "us"}
SETTINGS = StreamSettings(
    KEYWORDS, snrs_db=(None, 10.0, 0.0), speech_hours=0.02, noise_hours=0.01, keywords=40, others=12, split="all"
)
"""Four short recordings of speech and two of noise, with recordings of 30 s (`short_recordings`)."""


class Folders(NamedTuple):
    """Folders of material, in the order in which `make_stream` takes them."""

    clips: Path
    noise: Path
    rooms: Path
    speech: Path


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_clips(folder: Path, voices: Samples) -> Path:
    """A clip of every keyword and two other words by each of twelve speakers: a voice of 0.4 s in faint noise."""
    rng = np.random.default_rng(1)
    for word in (*KEYWORDS, "cat", "dog"):
        (folder / word).mkdir(parents=True)
        for speaker in CLIP_SPEAKERS:
            clip = rng.normal(0, 0.0005, CLIP_SAMPLES)
            clip[5000:11400] += 0.2 * np.roll(voices[rng.integers(len(voices))], rng.integers(CLIP_SAMPLES))[:6400]
            sf.write(folder / word / f"{speaker}_nohash_0.wav", clip, SAMPLE_RATE)
    return folder


def some_voices(rng: np.random.Generator) -> Samples:
    """Eight voices without pauses, a second of each, as loud as can be."""
    voices = np.stack([speech_like(rng) + speech_like(rng) + speech_like(rng) for _ in range(8)])
    return (voices / np.abs(voices).max(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Material of synthetic sound, not to be written to."""
    top = tmp_path_factory.mktemp("material")
    rng = np.random.default_rng(0)
    for name in ("noise", "rooms", "speech"):
        (top / name).mkdir()
    for name in ("hiss", "hum", "wind"):
        write_sound(top / "noise" / f"{name}.wav", 12.0, seed=len(name))
    for name in ("hall", "hut"):
        response = np.concatenate([np.zeros(40), rng.normal(0, 0.1, 4000) * np.exp(-np.arange(4000) / 500)])
        response[40] = 0.9
        sf.write(top / "rooms" / f"{name}.wav", response, SAMPLE_RATE)
    voices = some_voices(rng)
    rows = []
    for reader in READERS:
        for i in range(8):
            said = 0.3 * np.concatenate(shuffled(voices, rng)[:3])
            sentence = np.pad(np.roll(said, rng.integers(len(said))), 4000)
            sf.write(top / "speech" / f"{reader}-{i}.wav", sentence, SAMPLE_RATE)
            text = "please stop that" if i == 0 else "the cat sat there"
            rows.append({"file": f"{reader}-{i}.wav", "label": text, "speaker": reader, "licence": "CC0 1.0"})
            rows[-1] |= {"age": "", "accent": ACCENTS.get(reader, "")}
    write_manifest(top / "speech", rows)
    return Folders(write_clips(top / "clips", voices), top / "noise", top / "rooms", top / "speech")


@pytest.fixture(scope="module")
def short_recordings() -> Any:
    """Recordings of about 30 s, so that there are several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recordings, "RECORDING_S", 30.0)
        yield


@pytest.fixture(scope="module")
def built(folders: Folders, short_recordings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set that SETTINGS describe, not to be written to."""
    out = tmp_path_factory.mktemp("built") / "set"
    make_stream(out, *folders, settings=SETTINGS)
    return out


def lines_of(out: Path, condition: str = "clean") -> dict[str, list[dict[str, Any]]]:
    """The lines of a manifest by their file."""
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for text in (out / condition / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        lines[line["file"]].append(line)
    return lines


def sound_of(out: Path, condition: str, file: str) -> Samples:
    audio, rate = sf.read(out / condition / file, dtype="float32")
    assert rate == SAMPLE_RATE
    return audio


def span_of(line: dict[str, Any]) -> slice:
    return slice(round(line["start_s"] * SAMPLE_RATE), round(line["end_s"] * SAMPLE_RATE))


def power_db(audio: Samples) -> float:
    return float(10 * np.log10(np.square(audio, dtype=np.float64).mean() + 1e-20))


def snapshot(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


# Where a word is


def burst(start_s: float, end_s: float, level: float = 0.3) -> Samples:
    """A clip of one second with a tone of 600 Hz from `start_s` to `end_s`, in faint noise."""
    time_s = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    tone = level * np.sin(2 * np.pi * 600 * time_s) * ((time_s >= start_s) & (time_s < end_s))
    return (tone + np.random.default_rng(0).normal(0, 1e-4, CLIP_SAMPLES)).astype(np.float32)


@pytest.mark.parametrize(("start_s", "end_s"), [(0.3, 0.7), (0.0, 0.2), (0.855, 1.0)])
def test_a_word_is_found_with_20_ms_around_it(start_s: float, end_s: float) -> None:
    """Start and end lie 20 ms outside the sound, to a frame of 10 ms, and never outside the clip."""
    found = find_word(burst(start_s, end_s))
    assert found is not None
    assert found[0] / SAMPLE_RATE == pytest.approx(max(0, start_s - 0.02), abs=0.0101)
    assert found[1] / SAMPLE_RATE == pytest.approx(min(1, end_s + 0.02), abs=0.0101)


def test_rumble_and_an_offset_are_no_part_of_a_word() -> None:
    """A hum of 20 Hz that is as strong as the word, and a constant, leave its ends where they are."""
    clean = burst(0.3, 0.7)
    rumble = 0.3 * np.sin(2 * np.pi * 20 * np.arange(CLIP_SAMPLES) / SAMPLE_RATE) + 0.1
    clean_ends, found = find_word(clean), find_word((clean + rumble).astype(np.float32))
    assert clean_ends is not None
    assert found is not None
    assert np.abs(np.subtract(found, clean_ends)).max() <= 160


def test_a_stop_behind_a_closure_belongs_to_the_word() -> None:
    """A short burst 120 ms behind the voice ends the word; one 250 ms behind does not."""
    for gap_s, end_s in ((0.12, 0.65), (0.25, 0.5)):
        clip = burst(0.2, 0.5)
        at = round((0.5 + gap_s) * SAMPLE_RATE)
        clip[at : at + 480] += np.random.default_rng(1).normal(0, 0.05, 480).astype(np.float32)
        found = find_word(clip)
        assert found is not None
        assert found[1] / SAMPLE_RATE == pytest.approx(end_s + 0.02, abs=0.0101)


def test_a_click_louder_than_the_word_is_not_the_word() -> None:
    """Of two sounds the longer one is the word, though the shorter has the larger peak."""
    clip = burst(0.5, 0.8, level=0.2)
    clip[1000:1160] += np.random.default_rng(1).normal(0, 0.3, 160).astype(np.float32)
    found = find_word(clip)
    assert found is not None
    assert found[0] > 0.4 * SAMPLE_RATE


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros(CLIP_SAMPLES, np.float32),
        np.zeros(0, np.float32),
        np.random.default_rng(0).normal(0, 0.1, CLIP_SAMPLES).astype(np.float32),
        burst(0.5, 0.53),
        burst(0.3, 0.7, level=1e-5),
    ],
    ids=["silence", "nothing", "noise", "a click", "too faint"],
)
def test_where_nothing_is_said_there_is_no_word(clip: Samples) -> None:
    """Silence, noise alone, a click and what is too faint hold no word."""
    assert find_word(clip) is None


@pytest.mark.data
def test_words_of_real_clips_are_of_a_words_length(shared_data: Path) -> None:
    """Nine in ten words of real keyword clips last 0.15 to 0.8 s, and hardly any clip is without one."""
    from .helpers import TEST_SAMPLE, real_clips

    clips = [audio for label, audio in real_clips(shared_data / TEST_SAMPLE) if label in KEYWORDS]
    found = [ends for ends in map(find_word, clips) if ends is not None]
    seconds = np.array([(end - start) / SAMPLE_RATE for start, end in found])
    assert len(found) >= 0.97 * len(clips) >= 90
    assert np.mean((seconds > 0.15) & (seconds < 0.8)) >= 0.9


# The material


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("Stop", True),
        ("he stopped it", True),
        ("STOPPING", True),
        ("non-stop", True),
        ("that's a 'go'", True),
        ("she goes", True),
        ("I know", True),
        ("write to me", True),
        ("rights", True),
        ("the top shop", False),
        ("it's going", True),
        ("not now, nothing on offer", True),
        ("not now, nothing, upper, offer, one, ones, god, good, lefty", False),
        ("", False),
    ],
)
def test_what_sounds_like_a_keyword_is_told_from_what_is_spelt_like_one(text: str, held: bool) -> None:
    """Inflexions and homophones count, longer words that begin alike do not."""
    assert holds_word(text, KEYWORDS) is held


def test_splits_follow_the_official_lists(speech_commands: Path) -> None:
    """Each list names its split, training is the rest, and `all` is everything but the noise."""
    clips = {split: {clip.name for clip in list_clips(speech_commands, split)} for split in ("all", *SPLIT_SIZES)}
    assert {split: len(names) for split, names in clips.items()} == {"all": 176, **SPLIT_SIZES}
    assert set.union(*(clips[split] for split in SPLIT_SIZES)) == clips["all"]


SPLIT_SIZES = {"validation": 48, "testing": 32, "training": 96}


def test_a_split_that_is_none_is_refused(speech_commands: Path) -> None:
    """The error names the splits there are."""
    with pytest.raises(UsageError, match="'test', expected one of training, validation, testing, all"):
        list_clips(speech_commands, "test")


def test_clips_without_lists_are_divided_by_speaker(folders: Folders) -> None:
    """Where there are no lists every clip is in one split, and no speaker in two; `all` is everything."""
    splits = {
        split: list_clips(folders.clips, split)
        for split in ("training", "validation", "testing", "all")
        if split in ("training", "all")
    }
    assert len(splits["all"]) == 12 * len(CLIP_SPEAKERS)
    speakers = {sound.group for sound in splits["training"]}
    assert all((sound in splits["training"]) == (sound.group in speakers) for sound in splits["all"])


def test_sentences_with_a_keyword_are_left_out(folders: Folders) -> None:
    """Of each reader's eight sentences the one that says stop is not listed; where it is no keyword it is."""
    assert len(list_speech(folders.speech, KEYWORDS, None, trusted=False)) == 7 * len(READERS)
    assert len(list_speech(folders.speech, ["yes"], None, trusted=False)) == 8 * len(READERS)


def test_speech_without_transcripts_is_refused_unless_trusted(tmp_path: Path) -> None:
    """Without a manifest nothing shows that no keyword is said; the folder then stands for the speaker."""
    (tmp_path / "anna").mkdir()
    write_sound(tmp_path / "anna" / "one.wav")
    with pytest.raises(DataError, match=r"1 recordings, none of them with a transcript .* --trust-speech"):
        list_speech(tmp_path, KEYWORDS, None, trusted=False)
    assert [sound.group for sound in list_speech(tmp_path, KEYWORDS, None, trusted=True)] == ["anna"]


def test_sentences_are_dealt_once_and_readers_to_one_recording(folders: Folders) -> None:
    """Until all have begun no reader comes back in the next recording, and no sentence twice at all."""
    sentences = list_speech(folders.speech, KEYWORDS, None, trusted=False)
    deck = SpeechDeck(sentences, np.random.default_rng(0))
    heard: list[set[str]] = []
    dealt = []
    for _ in range(3):
        taken = [sentence for _ in range(4) for sentence in deck.take(3)]
        heard.append({sentence.group for sentence in taken})
        dealt += taken
        deck.next_recording()
    assert not heard[0] & heard[1]
    assert not (heard[0] | heard[1]) & heard[2]
    while taken := deck.take(5):
        assert len({sentence.group for sentence in taken}) == 1
        dealt += taken
    assert sorted(sentence.name for sentence in dealt) == sorted(sentence.name for sentence in sentences)


def test_parts_are_thirds_and_stay_as_they_are() -> None:
    """Names fall evenly into three parts, and a few known ones where they always fell."""
    counts = Counter(part_of(f"speaker {i}") for i in range(3000))
    assert sorted(counts) == list(range(PARTS))
    assert min(counts.values()) > 900
    assert [part_of(name) for name in ("genesis 6 studio live room", "surrey room a", "00001")] == [0, 1, 2]


def test_noises_cut_from_one_recording_fall_in_one_part(tmp_path: Path) -> None:
    """Clips of one freesound recording are in the same third; those of others may not be."""
    names = ["rain-1-100032-A", "rain-1-100032-B", *(f"rain-1-{i}-A" for i in range(200000, 200012))]
    for name in names:
        write_sound(tmp_path / f"{name}.wav", 0.1)
    parts = [{sound.path.stem for sound in list_noises(tmp_path, part)} for part in range(PARTS)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert any({"rain-1-100032-A", "rain-1-100032-B"} <= part for part in parts)
    assert noise_source("events/rain-1-100032-B.wav") == "100032"


# The set


def test_every_condition_has_the_same_words_at_the_same_places(built: Path) -> None:
    """The manifests are equal, and the files are 16-bit FLAC of 16 kHz and equal length."""
    conditions = ["clean", "snr10", "snr0"]
    assert len({(built / condition / "manifest.jsonl").read_bytes() for condition in conditions}) == 1
    files = sorted(lines_of(built))
    assert [file.partition("-")[2] for file in files] == ["speech.flac"] * (len(files) - 1) + ["noise.flac"]
    for file in files:
        infos = [sf.info(built / condition / file) for condition in conditions]
        assert {(info.format, info.subtype, info.samplerate, info.channels) for info in infos} == {
            ("FLAC", "PCM_16", SAMPLE_RATE, 1)
        }
        assert len({info.frames for info in infos}) == 1
        assert max(line["end_s"] for line in lines_of(built)[file]) <= infos[0].duration


def test_as_many_words_as_asked_for_and_none_twice(built: Path) -> None:
    """Forty keywords, four of each label; twelve other words; every clip and sentence at most once."""
    lines = [line for several in lines_of(built).values() for line in several]
    counts = Counter(line["label"] for line in lines)
    assert {label: counts[label] for label in KEYWORDS} == dict.fromkeys(KEYWORDS, 4)
    assert Counter(line["word"] for line in lines if line["label"] == "unknown" and line["word"]) == {
        "cat": 6,
        "dog": 6,
    }
    sources = [source for line in lines for source in line["source"].split()]
    assert len(sources) == len(set(sources)) > 60
    assert all(line["word"] == line["label"] for line in lines if line["label"] in KEYWORDS)


def test_what_the_material_says_of_speakers_stands_in_the_manifest(built: Path) -> None:
    """The accent of a reader is in each of their lines; of others, and of what the table leaves empty, nothing is."""
    lines = [line for lines in lines_of(built).values() for line in lines]
    told = {line["speaker"]: line["accent"] for line in lines if "accent" in line}
    assert told == {line["speaker"]: ACCENTS[line["speaker"]] for line in lines if line["speaker"] in ACCENTS}
    assert told
    assert not any("age" in line or "traits" in line for line in lines)


def test_no_voice_is_in_two_recordings(built: Path) -> None:
    """Speakers of words and readers are divided over the recordings."""
    recordings_of: dict[str, set[str]] = defaultdict(set)
    for file, lines in lines_of(built).items():
        for line in lines:
            recordings_of[line["speaker"]].add(file)
    recordings_of.pop("")  # of the noise
    assert len(recordings_of) > 12
    assert {len(files) for files in recordings_of.values()} == {1}
    assert json.loads((built / "stream.json").read_text())["speakers_in_several_recordings"] == []


def test_words_stand_where_the_manifest_says(folders: Folders, short_recordings: None, tmp_path: Path) -> None:
    """What is heard from start to end is, but for its level, the word of the clip that is named."""
    settings = replace(SETTINGS, snrs_db=(None,), room_share=0.0, noise_hours=0.0)
    make_stream(tmp_path / "set", *folders, settings=settings)
    n_words = 0
    for file, lines in lines_of(tmp_path / "set").items():
        sound = sound_of(tmp_path / "set", "clean", file)
        for line in lines:
            if line["word"]:
                clip, _ = sf.read(folders.clips / line["source"], dtype="float32")
                ends = find_word(clip)
                assert ends is not None
                heard, said = sound[span_of(line)], clip[slice(*ends)]
                assert np.corrcoef(heard, said)[0, 1] > 0.99
                n_words += 1
    assert n_words == 52


def test_items_have_quiet_on_both_sides(folders: Folders, short_recordings: None, tmp_path: Path) -> None:
    """From each item to the next are at least 0.3 s, in which nothing but the faint floor is to be heard."""
    settings = replace(SETTINGS, snrs_db=(None,), room_share=0.0, noise_hours=0.0)
    make_stream(tmp_path / "set", *folders, settings=settings)
    for file, lines in lines_of(tmp_path / "set").items():
        sound = sound_of(tmp_path / "set", "clean", file)
        ends = [0.0, *(line["end_s"] for line in lines)]
        starts = [*(line["start_s"] for line in lines), len(sound) / SAMPLE_RATE]
        for end_s, start_s in zip(ends, starts, strict=True):
            assert start_s - end_s >= 0.3
            quiet = sound[round(end_s * SAMPLE_RATE) : round(start_s * SAMPLE_RATE)]
            windows = np.lib.stride_tricks.sliding_window_view(quiet, 4800)[::160]
            faintest = min(power_db(window) for window in windows)
            assert -82 < faintest < -77


def test_noise_lies_at_the_stated_snr_under_every_item(built: Path) -> None:
    """An item's active level is 10 or 0 dB over the mean power of what the condition adds under it."""
    for file, lines in lines_of(built).items():
        if "noise" in file:
            continue
        clean = sound_of(built, "clean", file)
        for condition, snr_db in (("snr10", 10.0), ("snr0", 0.0)):
            added = sound_of(built, condition, file) - clean
            for line in lines:
                span = span_of(line)
                # the level is that of the whole clip, of which the word is the active part
                assert active_level_db(clean[span]) - power_db(added[span]) == pytest.approx(snr_db, abs=1.0)


def test_conditions_differ_by_the_level_of_the_noise_alone(built: Path) -> None:
    """What is added at 0 dB is what is added at 10 dB, 10 dB stronger."""
    clean, snr10, snr0 = (sound_of(built, name, "001-speech.flac") for name in ("clean", "snr10", "snr0"))
    unclipped = np.abs(snr0) < 0.99
    difference = (snr0 - clean) - 10**0.5 * (snr10 - clean)
    assert np.abs(difference[unclipped]).max() < 4 / 32768


def test_recordings_of_noise_are_the_same_everywhere_and_listed_whole(built: Path) -> None:
    """One line `silence` covers such a recording, which no condition changes."""
    (file, lines), *others = [(file, lines) for file, lines in lines_of(built).items() if "noise" in file]
    assert others == []
    assert [(line["label"], line["start_s"], line["speaker"]) for line in lines] == [("silence", 0.0, "")]
    assert lines[0]["end_s"] == pytest.approx(36.0)
    assert len({(built / condition / file).read_bytes() for condition in ("clean", "snr10", "snr0")}) == 1
    assert power_db(sound_of(built, "clean", file)) > -60


def test_speech_lies_within_the_plausible_levels(built: Path) -> None:
    """Active levels are between -37 and -15 dB of full scale, those of one recording within 6 dB."""
    for file, lines in lines_of(built).items():
        if "noise" not in file:
            sound = sound_of(built, "clean", file)
            levels = [active_level_db(sound[span_of(line)]) for line in lines]
            assert -38 < min(levels) <= max(levels) < -14
            assert max(levels) - min(levels) < 7


def test_a_room_keeps_time_and_energy() -> None:
    """A response begins with its direct sound, the first near its peak, and has an energy of 1."""
    response = np.zeros(2000, np.float32)
    response[100:110] = 0.01  # before the direct sound
    response[300], response[700] = 0.5, -0.9
    taken = room_response(response)
    assert len(taken) == 1700
    assert taken[0] > 0
    assert np.square(taken).sum() == pytest.approx(1.0)


def test_a_share_of_the_recordings_is_in_rooms(folders: Folders, short_recordings: None, tmp_path: Path) -> None:
    """With a share of 1 words have a tail behind them that they have not with 0, and begin where they are said to."""
    tails, onsets = {}, {}
    for share in (0.0, 1.0):
        out = tmp_path / f"{share}"
        settings = replace(SETTINGS, snrs_db=(None,), room_share=share, noise_hours=0.0)
        summary = make_stream(out, *folders, settings=settings)
        assert bool(summary.sources["rooms"].files) is (share == 1.0)
        tail_db, onset_db = [], []
        for file, lines in lines_of(out).items():
            sound = sound_of(out, "clean", file)
            for line in lines:
                if line["word"]:
                    span = span_of(line)
                    level_db = active_level_db(sound[span])
                    tail_db.append(power_db(sound[span.stop : span.stop + 800]) - level_db)
                    onset_db.append(power_db(sound[span.start + 320 : span.start + 960]) - level_db)  # of the voice
        tails[share], onsets[share] = np.median(tail_db), np.median(onset_db)
    assert tails[1.0] > tails[0.0] + 10
    assert abs(onsets[1.0] - onsets[0.0]) < 3


def test_the_same_seed_gives_the_same_set_and_another_another(
    built: Path, folders: Folders, short_recordings: None, tmp_path: Path
) -> None:
    """Every byte of every file depends on material and settings alone."""
    make_stream(tmp_path / "again", *folders, settings=SETTINGS)
    assert snapshot(tmp_path / "again") == snapshot(built)
    other = make_stream(tmp_path / "other", *folders, settings=replace(SETTINGS, seed=1))
    assert other.recordings_sha256 != json.loads((built / "stream.json").read_text())["recordings_sha256"]
    assert lines_of(tmp_path / "other") != lines_of(built)


def test_the_summary_counts_what_was_built(built: Path) -> None:
    """stream.json holds settings, hours as the files have them, sources with licences, and lines by label."""
    summary = json.loads((built / "stream.json").read_text())
    lines = [line for several in lines_of(built).values() for line in several]
    seconds = {file: sf.info(built / "clean" / file).duration for file in lines_of(built)}
    running_s = sum(
        line["end_s"] - line["start_s"] for line in lines if line["label"] == "unknown" and not line["word"]
    )
    assert summary["settings"] == json.loads(json.dumps(asdict(SETTINGS)))
    assert summary["hours"]["running_speech"] == pytest.approx(running_s / 3600, abs=1e-4)
    assert summary["hours"]["running_speech"] >= SETTINGS.speech_hours
    total_s = 3600 * (summary["hours"]["recordings_of_speech"] + summary["hours"]["recordings_of_noise"])
    assert total_s == pytest.approx(sum(seconds.values()), abs=1.0)
    assert summary["lines"] == Counter(line["label"] for line in lines)
    assert summary["sources"]["clips"] == {"files": 52, "groups": 12, "licences": {"not stated": 52}}
    assert list(summary["sources"]["speech"]["licences"]) == ["CC0 1.0"]
    assert summary["sources"]["noises"]["files"] == 3
    assert summary["recordings"] == 3 * len(seconds)


# What is too little, or broken


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keywords": 200}, r"found 12 clips of 'yes' in which a word can be heard, expected 20 .*--keywords"),
        ({"others": 25}, r"found 24 clips of other words in which a word can be heard, expected 25"),
        ({"speech_hours": 0.1}, r"found 0\.0\d h of running speech without keywords, expected 0\.10 h, as no sentence"),
        ({"speech_part": 0, "speech_hours": 0.04}, r"none of its 42 recordings is of part 0|found 0\.0\d h of running"),
    ],
)
def test_too_little_material_is_said_with_both_numbers(
    folders: Folders, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """The error says what was found and what was needed, and nothing is left behind."""
    with pytest.raises(DataError, match=message):
        make_stream(tmp_path / "set", *folders, settings=replace(SETTINGS, **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"snrs_db": ()}, "conditions none"),
        ({"snrs_db": (10.0, 10.0)}, "each once"),
        ({"labels": ("yes", "unknown")}, "keywords yes, unknown, expected words"),
        ({"speech_hours": 0.0, "noise_hours": 0.0, "keywords": 0, "others": 0}, "above 0"),
        ({"room_share": 1.5}, "share of rooms from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each is named before anything is read."""
    with pytest.raises(UsageError, match=message):
        conditions_of(replace(SETTINGS, **changes))


@pytest.mark.parametrize("text", ["clean,loud", "", "10,nan", "1e9"])
def test_conditions_that_are_no_numbers_are_refused(text: str) -> None:
    """Only `clean` and decibels within reason are conditions."""
    with pytest.raises(UsageError, match="found the conditions"):
        parse_snrs(text)


def test_a_folder_that_is_needed_must_be_named(folders: Folders, tmp_path: Path) -> None:
    """Without rooms the error names the option, unless no room is asked for."""
    with pytest.raises(UsageError, match="--rooms FOLDER"):
        make_stream(tmp_path / "set", folders.clips, folders.noise, None, folders.speech, settings=SETTINGS)


def test_a_set_is_not_written_over(folders: Folders, tmp_path: Path) -> None:
    """An existing folder stays as it is."""
    with pytest.raises(DataError, match="already exists"):
        make_stream(tmp_path, *folders, settings=SETTINGS)


def test_a_full_disk_leaves_nothing(folders: Folders, short_recordings: None, tmp_path: Path) -> None:
    """A set that cannot be written whole is not there at all, and the error says why."""
    with full_disk(2**19), pytest.raises(KwsError, match="cannot be written"):
        make_stream(tmp_path / "set", *folders, settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


# Published recipes


def test_picovoice_spaces_keywords_and_mixes_at_the_loudest_frames(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keywords are at least a space apart; each is 10 dB over the noise under it, by frames of 512 samples."""
    monkeypatch.setattr(recordings, "RECORDING_S", 450.0)
    settings = replace(
        preset_settings("picovoice", KEYWORDS), speech_hours=0.03, keywords=10, snrs_db=(10.0, 20.0), split="all"
    )
    summary = make_stream(tmp_path / "set", *folders, settings=settings)
    (file, lines), *others = lines_of(tmp_path / "set", "snr10").items()
    assert others == []
    words = [line for line in lines if line["word"]]
    starts = [line["start_s"] for line in words]
    assert min(np.diff([0.0, *starts])) > 108 / 11
    assert 0 < summary.hours.running_speech < 0.5 * settings.speech_hours
    assert summary.clipped_samples == {"snr10": 0, "snr20": 0}
    snr10, snr20 = (sound_of(tmp_path / "set", condition, file) for condition in ("snr10", "snr20"))
    assert np.abs(snr10).max() == pytest.approx(1.0, abs=1e-4)
    # Both are noise + gain * speech, each scaled to its peak: without speech the scale is to be seen.
    silent = np.ones(len(snr10), bool)
    for line in lines:
        silent[max(0, span_of(line).start - CLIP_SAMPLES) : span_of(line).stop + CLIP_SAMPLES] = False
    scale = float(snr10[silent] @ snr20[silent] / np.square(snr20[silent]).sum())
    speech = (scale * snr20 - snr10) / (10**0.5 - 1)
    noise = snr10 - speech
    for line in words:
        clip, _ = sf.read(folders.clips / line["source"], dtype="float32")
        ends = find_word(clip)
        assert ends is not None
        at = span_of(line).start - ends[0]
        energies = [
            max(float(np.square(frame).sum()) for frame in sound[at : at + CLIP_SAMPLES // 512 * 512].reshape(-1, 512))
            for sound in (speech, noise)
        ]
        assert 10 * np.log10(energies[0] / energies[1]) == pytest.approx(10.0, abs=0.2)


def test_mlperf_tiny_sets_words_and_voices_where_the_recipe_has_them(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are over by a set time, at which the last one begins; voices lie where the recipe has them."""
    monkeypatch.setattr(protocols, "STREAM_S", 80)
    monkeypatch.setattr(protocols, "LAST_WORD_S", 19.0)
    monkeypatch.setattr(protocols, "VOICES", ((5, 10, 0.05, 2), (20, 80, 0.5, 1)))
    monkeypatch.setattr(protocols, "MUSIC", ((10, 20, 0.5),))
    settings = replace(preset_settings("mlperf-tiny", KEYWORDS), keywords=5, split="all")
    summary = make_stream(tmp_path / "set", folders.clips, folders.noise, None, folders.speech, settings=settings)
    assert summary.clipped_samples == {"mlperf-tiny": 0}
    ((file, lines),) = lines_of(tmp_path / "set", "mlperf-tiny").items()
    words = [line for line in lines if line["word"]]
    spoken = [line for line in lines if not line["word"]]
    sound = sound_of(tmp_path / "set", "mlperf-tiny", file)
    assert len(sound) == 80 * SAMPLE_RATE
    assert np.abs(sound).max() == pytest.approx(1.0, abs=1e-4)
    assert len(words) == 5
    assert words[-1]["start_s"] == pytest.approx(19.0, abs=0.001)
    assert all(5 <= line["start_s"] < line["end_s"] <= 10 or line["start_s"] >= 20 for line in spoken)
    assert max(line["end_s"] for line in spoken) == 80.0
    alone = [line for line in spoken if line["start_s"] >= 20]
    assert len(alone) > 1
    assert [line["start_s"] for line in alone] == [20.0, *(line["end_s"] for line in alone[:-1])]
    # What is before the first voice and no word is silence; a word of RMS 0.5 stands over a voice of RMS 0.05.
    early = [line for line in words if line["end_s"] < 5]
    assert early
    quiet = sound[: 5 * SAMPLE_RATE].copy()
    for line in early:
        quiet[span_of(line)] = 0
    assert np.abs(quiet).max() == 0
    over_voices = sound[5 * SAMPLE_RATE : 10 * SAMPLE_RATE]
    assert power_db(sound[span_of(early[0])]) > power_db(over_voices[-8000:]) + 10


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("picovoice", {"others": 5, "room_share": 0.3}, "has its own others, room_share"),
        ("picovoice", {"snrs_db": (None,)}, "never clean"),
        ("mlperf-tiny", {"speech_hours": 2.0}, "has its own speech_hours"),
        ("mlperf-tiny", {"keywords": 400}, "400 keywords, expected 1 to 150"),
    ],
)
def test_a_recipe_keeps_what_is_its_own(
    folders: Folders, tmp_path: Path, preset: str, changes: dict[str, Any], message: str
) -> None:
    """Settings that the recipe does not have are refused, by name."""
    settings = replace(preset_settings(preset, KEYWORDS), split="all", **changes)
    with pytest.raises(UsageError, match=message):
        make_stream(tmp_path / "set", *folders, settings=settings)


# The command


def command(folders: Folders, out: Path, *options: str) -> list[str | Path]:
    return [
        *("make-stream", out, "--clips", folders.clips, "--noise", folders.noise, "--rooms", folders.rooms),
        *("--speech", folders.speech, "--split", "all", "--speech-hours", "0.01", "--noise-hours", "0.002"),
        *("--keywords", "10", "--others", "2", *options),
    ]


def test_the_command_builds_a_set(folders: Folders, tmp_path: Path) -> None:
    """It says what was built and names the manifests, without any extra."""
    blocked = ("torch", "matplotlib", "scipy")
    done = run_cli(*command(folders, tmp_path / "set", "--snr", "clean,5", "--words", "yes,no"), blocked=blocked)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("10 keywords, 2 other words, ")
    assert done.stdout.splitlines()[2:] == [str(tmp_path / "set" / c / "manifest.jsonl") for c in ("clean", "snr5")]
    labels = Counter(line["label"] for several in lines_of(tmp_path / "set").values() for line in several)
    assert (labels["yes"], labels["no"], labels["up"]) == (5, 5, 0)


def test_the_keywords_may_be_a_models(folders: Folders, tmp_path: Path) -> None:
    """With --model its words are the keywords, whatever the order of its labels."""
    labels = ["unknown", "dog", "silence", "yes"]
    model = changed_artefact(find_model("small", "clip"), tmp_path / "m.onnx", labels=labels)
    done = run_cli(*command(folders, tmp_path / "set", "--snr", "clean", "--model", str(model)))
    assert (done.returncode, done.stderr) == (0, "")
    settings = json.loads((tmp_path / "set" / "stream.json").read_text())["settings"]
    assert settings["labels"] == ["dog", "yes"]
    counts = Counter(line["label"] for several in lines_of(tmp_path / "set").values() for line in several)
    assert (counts["dog"], counts["yes"], counts["stop"]) == (5, 5, 0)


def test_words_of_ones_own_must_be_named(folders: Folders, tmp_path: Path) -> None:
    """Where the folder is not that of Speech Commands nobody knows the keywords: the error lists what there is."""
    own = replace_words(folders, tmp_path / "own", {"cat": "computer", "dog": "lights"})
    done = run_cli(*command(own, tmp_path / "set"))
    assert done.returncode == 2
    assert "found the folders computer, lights); say with --words or --model" in done.stderr
    assert not (tmp_path / "set").exists()
    done = run_cli(*command(own, tmp_path / "set", "--words", "computer", "--snr", "clean"))
    assert (done.returncode, done.stderr) == (0, "")
    labels = Counter(line["label"] for several in lines_of(tmp_path / "set").values() for line in several)
    assert labels["computer"] == 10


def replace_words(folders: Folders, clips: Path, names: dict[str, str]) -> Folders:
    """The same material with some of the clips alone, under other words."""
    import shutil

    for old, new in names.items():
        shutil.copytree(folders.clips / old, clips / new)
    return folders._replace(clips=clips)


def test_words_and_a_model_at_once_are_refused(folders: Folders, tmp_path: Path) -> None:
    """Only one of both says the keywords."""
    done = run_cli(*command(folders, tmp_path / "set", "--words", "yes", "--model", "small"))
    assert done.returncode == 2
    assert "found --words and --model, expected one" in done.stderr


def test_files_that_cannot_be_read_are_named_and_the_rest_goes_on(folders: Folders, tmp_path: Path) -> None:
    """A broken clip, noise, room and sentence cost a line each and status 1; the set is as large as asked for."""
    import shutil

    copies = Folders(*(tmp_path / folder.name for folder in folders))
    for folder, copy in zip(folders, copies, strict=True):
        shutil.copytree(folder, copy)
    for path in (copies.noise / "broken.wav", copies.rooms / "broken.wav", copies.speech / "reader1-3.wav"):
        path.write_bytes(b"no sound")
    for speaker in CLIP_SPEAKERS[:11]:
        (copies.clips / "yes" / f"{speaker}_nohash_0.wav").write_bytes(b"no sound")
    options = ("--speech-hours", "0.03", "--room-share", "1", "--seed", "3")
    done = run_cli(*command(copies, tmp_path / "set", *options))
    assert done.returncode == 1
    assert any("yes" in line and "found no sound in it" in line for line in done.stderr.splitlines())
    assert all(line.startswith("tiny-kws: ") for line in done.stderr.splitlines())
    summary = json.loads((tmp_path / "set" / "stream.json").read_text())
    assert {summary["lines"][label] for label in KEYWORDS} == {1}
    assert len(done.stderr.splitlines()) == len(summary["unreadable"]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--snr", "loud"], "expected clean or numbers of dB"),
        (["--preset", "mlperf-tiny"], "the preset mlperf-tiny has its own noise_hours, others, speech_hours"),
        (["--split", "test"], "expected one of training"),
        (["--part", "3"], "--part"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(folders: Folders, tmp_path: Path, options: list[str], message: str) -> None:
    """Nothing is written."""
    done = run_cli(*command(folders, tmp_path / "set", *options))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (tmp_path / "set").exists()
