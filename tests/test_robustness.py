"""Clips in noise and rooms: the level is the one asked for, the draws are the same for all, the counts add up."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
from scipy.stats import binomtest

from tiny_kws import cli
from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE, DetectorConfig
from tiny_kws.data.held_out import noise_source, part_of
from tiny_kws.data.material import Material, Sound
from tiny_kws.data.mixing import active_level_db
from tiny_kws.data.spans import find_word
from tiny_kws.data.speech_commands import KEYWORDS, LABELS
from tiny_kws.errors import DataError
from tiny_kws.evaluation.clips import ClipSet, Predictor, batched, evaluate, predict_all
from tiny_kws.evaluation.compare import read_predictions
from tiny_kws.evaluation.figures import plot_robustness
from tiny_kws.evaluation.metrics import ClipMetrics, Robustness
from tiny_kws.evaluation.robustness import (
    HELD_OUT,
    HOP,
    TYPICAL_WORD_DB,
    Noise,
    called_keywords,
    drawn,
    evaluate_keyword_free,
    evaluate_robustness,
    in_noise,
    in_rooms,
    list_material,
    read_surroundings,
)
from tiny_kws.evaluation.tables import markdown, robustness_table, windows_table
from tiny_kws.json_form import to_json
from tiny_kws.words import SILENCE, UNKNOWN

from .conftest import word_sound
from .helpers import exported, run_cli, trained_like

if TYPE_CHECKING:
    from tiny_kws.data.prepared import PreparedData

Samples = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


def hiss(seconds: float, seed: int = 0, level: float = 0.05) -> Samples:
    return np.random.default_rng(seed).normal(0, level, round(seconds * SAMPLE_RATE)).astype(np.float32)


def named(stem: str, held_out: bool, group: Callable[[str], str] = noise_source) -> str:
    """A name beginning with `stem` whose group lies in the part that is held out, or does not."""
    return next(n for n in (f"{stem}{i}" for i in range(99)) if (part_of(group(n)) == HELD_OUT) == held_out)


def write_sounds(folder: Path, sounds: dict[str, Samples], rows: Sequence[dict[str, str]] = ()) -> Path:
    """Sound files by their name, as 32-bit floats, and a manifest with `rows` if there are any."""
    for name, audio in sounds.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / name, audio, SAMPLE_RATE, subtype="FLOAT")
    if rows:
        with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two noises that are held out, rain by the manifest and wind by its folder, and one that is not."""
    rain, wind, other = named("rain", True), named("wind", True), named("other", False)
    sounds = {f"x/{rain}.wav": hiss(5, 1), f"wind/{wind}.wav": hiss(3, 2), f"x/{other}.wav": hiss(3, 3)}
    rows = [{"file": f"x/{name}.wav", "label": name[:4]} for name in (rain, other)]
    return write_sounds(tmp_path_factory.mktemp("noise"), sounds, rows)


@pytest.fixture(scope="module")
def rooms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A room with two responses that is held out, and one that is not."""
    cave, hall = named("cave", True, str), named("hall", False, str)
    decay = np.exp(-np.arange(4000) / 800)
    sounds = {f"{i}.wav": (hiss(0.25, i) * decay).astype(np.float32) for i in range(3)}
    for i, sound in enumerate(sounds.values()):
        sound[:300] = 0.0  # the way of the direct sound
        sound[300] = 1.0 + i
    rows = [{"file": f"{i}.wav", "label": cave if i < 2 else hall} for i in range(3)]
    return write_sounds(tmp_path_factory.mktemp("rooms"), sounds, rows)


@pytest.fixture(scope="module")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of two speakers that are held out and of one that is not; one of them holds a keyword."""
    ann, bob, eve = named("ann", True, str), named("bob", True, str), named("eve", False, str)
    spoken = [("a", ann, "a cat"), ("b", ann, "it will stop"), ("c", bob, "some bread"), ("d", eve, "her hat")]
    sounds = {f"{name}.wav": hiss(2.0 + i, i) for i, (name, _, _) in enumerate(spoken)}
    rows = [{"file": f"{name}.wav", "label": text, "speaker": speaker} for name, speaker, text in spoken]
    return write_sounds(tmp_path_factory.mktemp("speech"), sounds, rows)


def clip_set(labels: Sequence[str], rows: Array) -> ClipSet:
    """Clips named after their number, handed out three at a time."""
    names = [f"{label}/{i}.wav" for i, label in enumerate(labels)]
    return ClipSet("made-up clips", list(labels), "0" * 64, lambda: batched(rows, 3), names, list(labels))


@pytest.fixture(scope="module")
def words() -> ClipSet:
    """Twelve keywords that are faint enough never to be clipped, and a second of faint hiss that is silence."""
    labels = [*KEYWORDS, "yes", "no", SILENCE]
    rows = [0.2 * word_sound(label, i) for i, label in enumerate(labels[:-1])]
    return clip_set(labels, np.stack([*rows, hiss(1, 9, 0.0002)]).astype(np.float32))


def all_of(clips: ClipSet) -> Array:
    return np.concatenate(list(clips.batches()))


def power_db(audio: Array) -> float:
    return float(10 * np.log10(np.square(audio, dtype=np.float64).mean()))


def predictor(answer: Callable[[Array], str], probability: float = 0.95, **changes: Any) -> Predictor:
    """Hears in a clip what `answer` says of it, always with the same probability."""

    def predict(audio: Array) -> Array:
        rows = np.full((len(audio), len(LABELS)), (1 - probability) / (len(LABELS) - 1), np.float32)
        for row, clip in zip(rows, audio, strict=True):
            row[LABELS.index(answer(clip))] = probability
        return rows

    return replace(Predictor("parrot", predict, LABELS, parameters=7, weight_bytes=28, sha256="0" * 64), **changes)


# What is drawn


def test_a_clips_draw_hangs_on_its_name_and_the_seed_alone() -> None:
    """Order, number and fellows of the clips change no clip's draw; another seed changes most."""
    things = {"rain": list(range(5)), "wind": list(range(7))}
    names = [f"yes/{i}.wav" for i in range(200)]
    draws = {name: drawn(things, name, 0) for name in names}
    shuffled = {name: drawn(dict(reversed(things.items())), name, 0) for name in names[150:40:-1]}
    assert all(draws[name] == found for name, found in shuffled.items())
    assert sum(drawn(things, name, 1) == draws[name] for name in names) == 0


def test_kinds_are_drawn_alike_and_then_their_things() -> None:
    """Of two kinds each gets half of the clips, however many things it has; places fill the range."""
    things = {"rain": list(range(9)), "wind": [0]}
    draws = [drawn(things, f"{i}", 0) for i in range(4000)]
    kinds = Counter(kind for kind, _, _ in draws)
    numbers = Counter(number for kind, number, _ in draws if kind == "rain")
    assert abs(kinds["rain"] - 2000) < 160
    assert len(numbers) == 9
    assert max(numbers.values()) < 2 * min(numbers.values())
    assert np.histogram([place for *_, place in draws], 10, (0, 1))[0].min() > 300


def test_the_same_model_or_another_hears_the_same(words: ClipSet, noise_folder: Path, rooms_folder: Path) -> None:
    """A clip in noise or in a room is the same sound, to the bit, whatever other clips are measured with it."""
    surroundings = read_surroundings(list_material(noise_folder, rooms_folder, None, LABELS, True))
    rows = all_of(words)
    order = [7, 2, 12]
    few = replace(
        words,
        labels=[words.labels[i] for i in order],
        names=[words.names[i] for i in order],
        batches=lambda: batched(rows[order], 2),
    )
    noises, rooms = surroundings.noises, surroundings.rooms
    assert np.array_equal(all_of(in_noise(words, noises, 5, 0))[order], all_of(in_noise(few, noises, 5, 0)))
    assert np.array_equal(all_of(in_rooms(words, rooms, 0))[order], all_of(in_rooms(few, rooms, 0)))


# Noise


@pytest.mark.parametrize("snr_db", [20.0, 0.0, -5.0])
def test_noise_has_the_snr_that_was_asked_for(words: ClipSet, snr_db: float) -> None:
    """Mean noise while the word is said lies `snr_db` below the active level of the clip."""
    noises = {"hiss": [Noise(hiss(4))], "beat": [Noise(hiss(3) * np.tile([1, 0.1], 24_000).astype(np.float32))]}
    for dry, wet in list(zip(all_of(words), all_of(in_noise(words, noises, snr_db, 0)), strict=True))[:-1]:
        span = find_word(dry)
        assert span is not None
        noise = wet.astype(np.float64) - dry
        assert active_level_db(dry) - power_db(noise[slice(*span)]) == pytest.approx(snr_db, abs=0.02)


def test_silence_gets_noise_as_a_word_would(words: ClipSet) -> None:
    """In a clip of silence, however faint, noise is as loud as under the median word."""
    noises = {"hiss": [Noise(hiss(4))]}
    dry, wet = all_of(words)[-1], all_of(in_noise(words, noises, 10, 0))[-1]
    assert power_db(wet - dry) == pytest.approx(TYPICAL_WORD_DB - 10, abs=0.02)


def test_the_same_noise_lies_under_a_clip_at_each_snr(words: ClipSet) -> None:
    """Between SNRs only the level of a clip's noise differs."""
    noises = {kind: [Noise(hiss(4, seed))] for seed, kind in enumerate(("a", "b", "c"))}
    dry = all_of(words)
    loud, faint = (all_of(in_noise(words, noises, snr_db, 0)) - dry for snr_db in (0, 20))
    assert np.allclose(loud, 10 * faint, atol=1e-6)


def test_noise_is_there_while_the_word_is_said() -> None:
    """Of a minute with a tenth of a second of noise, the word is laid on that, at its SNR, not on a gap made loud."""
    audio = np.zeros(60 * SAMPLE_RATE, np.float32)
    audio[30 * SAMPLE_RATE :][:1600] = hiss(0.1)
    noise = Noise(audio)
    span = (4800, 9600)
    for place in np.linspace(0, 0.999, 20):
        bed = noise.under(span, -30.0, float(place))
        assert bed.shape == (CLIP_SAMPLES,)
        assert power_db(bed[slice(*span)]) == pytest.approx(-30, abs=0.01)
        assert np.abs(bed).max() < 1


def test_a_noise_that_never_lies_under_the_word_stays_faint() -> None:
    """Where all of a noise is out of the word's reach, it is not made loud to make up for it."""
    audio = np.full(CLIP_SAMPLES, 1e-6, np.float32)
    audio[:1600] = hiss(0.1)
    bed = Noise(audio).under((8000, 12800), -20.0, 0.5)
    assert power_db(bed[8000:12800]) < -60
    assert power_db(bed) == pytest.approx(-20 + 12, abs=0.1)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.0, 1.005, 1.7])
def test_short_noises_can_be_used(seconds: float) -> None:
    """A noise shorter than the clip, or hardly longer, gives a whole second at its level."""
    noise = Noise(hiss(seconds))
    for place in (0.0, 0.5, 0.999):
        bed = noise.under((3200, 9600), -25.0, place)
        assert bed.shape == (CLIP_SAMPLES,)
        assert power_db(bed[3200:9600]) == pytest.approx(-25, abs=0.01)


@pytest.mark.parametrize("window", [8_000, 24_000, 19_744])
def test_noises_are_as_long_as_the_clips(window: int) -> None:
    """Whatever the window, a noise gives a stretch of its length at its level."""
    noise = Noise(hiss(1.3), window)
    for place in (0.0, 0.5, 0.999):
        bed = noise.under((1600, 6400), -25.0, place)
        assert bed.shape == (window,)
        assert power_db(bed[1600:6400]) == pytest.approx(-25, abs=0.01)


def test_clips_of_another_window_are_measured_in_noise_and_rooms(noise_folder: Path, rooms_folder: Path) -> None:
    """Clips of 1.5 s keep their length in every condition, and windows without keywords have it too."""
    rows = np.stack([np.pad(0.2 * word_sound(label, 0), (4000, 4000)) for label in KEYWORDS]).astype(np.float32)
    clips = replace(clip_set(KEYWORDS, rows), window=24_000)
    lengths = set()

    def answer(clip: Array) -> str:
        lengths.add(len(clip))
        return "yes"

    model = predictor(answer, window=24_000)
    material = list_material(noise_folder, rooms_folder, None, LABELS, True)
    surroundings = read_surroundings(material, clips.window)
    found, _ = evaluate_robustness(model, clips, predict_all(model, clips), surroundings, [10])
    assert [row.clips for row in found.conditions.values()] == [10, 10, 10]
    windows = evaluate_keyword_free(model, material).noise
    assert windows is not None
    assert windows.windows == 36 + 16
    assert lengths == {24_000}


def test_places_are_spread_over_a_noise() -> None:
    """Different places are different seconds of the noise, the first and the last among them."""
    audio = hiss(5)
    noise = Noise(audio)
    beds = [noise.under((0, CLIP_SAMPLES), power_db(audio), place) for place in np.linspace(0, 0.9999, 401)]
    starts = [int(np.argmax(np.correlate(audio, bed[:2000]))) for bed in (beds[0], beds[-1])]
    assert starts == [0, 4 * SAMPLE_RATE]
    assert len({bed.tobytes() for bed in beds}) == 401


def test_what_is_too_loud_is_clipped(words: ClipSet) -> None:
    """Clips in loud noise stay within full scale."""
    assert np.abs(all_of(in_noise(words, {"hiss": [Noise(hiss(4))]}, -60, 0))).max() == 1.0


# Rooms


def test_a_room_delays_nothing_and_keeps_the_level(rooms_folder: Path) -> None:
    """A click stays where it is, though the response begins with silence, and words keep their active level."""
    rooms = read_surroundings(list_material(None, rooms_folder, None, LABELS, True)).rooms
    click = np.zeros((1, CLIP_SAMPLES), np.float32)
    click[0, 5000] = 0.5
    wet = all_of(in_rooms(clip_set(["yes"], click), rooms, 0))[0]
    assert np.abs(wet).argmax() == 5000
    assert np.abs(wet[:5000]).max() < 1e-6
    assert np.abs(wet[5001:9000]).max() > 0.001
    dry = 0.2 * np.stack([word_sound(word, 0) for word in KEYWORDS]).astype(np.float32)
    for row, before in zip(all_of(in_rooms(clip_set(KEYWORDS, dry), rooms, 0)), dry, strict=True):
        assert active_level_db(row) == pytest.approx(active_level_db(before), abs=0.01)
        assert not np.allclose(row, before, atol=0.001)


# What is held out


def test_only_what_no_training_uses_is_taken(noise_folder: Path, rooms_folder: Path, speech_folder: Path) -> None:
    """By default noises, rooms and speakers are those of the part held out; all are taken when asked for."""
    few = list_material(noise_folder, rooms_folder, speech_folder, LABELS, held_out=True)
    everything = list_material(noise_folder, rooms_folder, speech_folder, LABELS, held_out=False)
    for kind, counts in {"noises": (2, 3), "rooms": (2, 3), "speech": (2, 3)}.items():
        sounds = [getattr(found, kind) for found in (few, everything)]
        assert tuple(map(len, sounds)) == counts
        assert {part_of(sound.group) for sound in sounds[0]} == {HELD_OUT}


def test_kinds_of_noise_come_from_manifest_or_folder(noise_folder: Path) -> None:
    """A noise is of the kind that its label says, or else its folder."""
    found = read_surroundings(list_material(noise_folder, None, None, LABELS, True))
    assert {kind: len(noises) for kind, noises in found.noises.items()} == {"rain": 1, "wind": 1}


def test_a_folder_without_anything_held_out_is_refused(tmp_path: Path) -> None:
    """Where no noise is of the part held out, a DataError says so."""
    folder = write_sounds(tmp_path, {f"{named('rain', False)}.wav": hiss(2)})
    with pytest.raises(DataError, match="none of its 1 recordings is in part 0"):
        list_material(folder, None, None, LABELS, held_out=True)


def test_files_that_cannot_be_used_are_named_and_left_out(tmp_path: Path) -> None:
    """Garbage and digital silence stand under `unreadable`; the noise that is left is used."""
    folder = write_sounds(tmp_path, {"good.wav": hiss(2), "silent.wav": np.zeros(32_000, np.float32)})
    (folder / "garbage.wav").write_bytes(b"no sound")
    material = list_material(folder, None, None, LABELS, held_out=False)
    found = read_surroundings(material)
    assert sum(map(len, found.noises.values())) == 1
    assert len(material.unreadable) == 2
    assert [name in " ".join(material.unreadable) for name in ("garbage.wav", "silent.wav")] == [True, True]


def test_a_folder_without_any_usable_file_is_refused(tmp_path: Path) -> None:
    """If no noise can be used, a DataError names the last of them."""
    folder = write_sounds(tmp_path, {"silent.wav": np.zeros(32_000, np.float32)})
    with pytest.raises(DataError, match=r"silent.wav.*none of 1 files"):
        read_surroundings(list_material(folder, None, None, LABELS, held_out=False))


# Figures


@pytest.fixture(scope="module")
def robust(words: ClipSet, noise_folder: Path, rooms_folder: Path) -> Robustness:
    """Figures of a model that hears `yes` in what is loud and `silence` in the rest, with noise at 30 and -10 dB."""
    model = predictor(lambda clip: "yes" if np.square(clip).mean() > 1e-6 else SILENCE)
    surroundings = read_surroundings(list_material(noise_folder, rooms_folder, None, LABELS, True))
    return evaluate_robustness(model, words, predict_all(model, words), surroundings, [30, -10])[0]


def test_accuracy_by_condition(robust: Robustness) -> None:
    """Clean, each SNR and rooms have their own accuracy, of all clips, with Wilson's interval."""
    conditions = to_json(robust)["conditions"]
    assert list(conditions) == ["clean", "snr30", "snr-10", "room"]
    assert {row["clips"] for row in conditions.values()} == {13}
    # two of `yes` and one of silence are right, but for silence in loud noise
    assert [round(13 * row["accuracy"]) for row in conditions.values()] == [3, 2, 2, 3]
    expected = binomtest(3, 13).proportion_ci(method="wilson")
    assert conditions["clean"]["accuracy_interval"] == pytest.approx([expected.low, expected.high], abs=1e-6)


def test_every_clip_counts_once_by_noise_and_by_room(robust: Robustness) -> None:
    """The clips of the kinds of noise, and their right ones, add up to those of each SNR, and so do rooms."""
    figures = to_json(robust)
    for name in ("snr30", "snr-10"):
        rows = [kind[name] for kind in figures["by_noise"].values()]
        assert sum(row["clips"] for row in rows) == 13
        total = sum(row["clips"] * row["accuracy"] for row in rows)
        assert total == pytest.approx(13 * figures["conditions"][name]["accuracy"], abs=1e-4)
    assert [row["clips"] for row in figures["by_room"].values()] == [13]
    assert list(figures["by_noise"]) == ["rain", "wind"]


def test_material_has_a_sum(noise_folder: Path, rooms_folder: Path) -> None:
    """The sum of noises says whether two measurements had the same ones, kinds included."""
    few = list_material(noise_folder, rooms_folder, None, LABELS, True)
    sums = read_surroundings(few).sha256
    assert set(sums) == {"noises", "rooms"}
    assert read_surroundings(list_material(noise_folder, None, None, LABELS, True)).sha256 == {"noises": sums["noises"]}
    renamed = Material(noises=[replace(sound, text="storm") for sound in few.noises])
    assert read_surroundings(renamed).sha256["noises"] != sums["noises"]


def test_progress_counts_every_condition(words: ClipSet, noise_folder: Path) -> None:
    """Progress ends at clips times conditions."""
    told: list[tuple[int, int]] = []
    model = predictor(lambda clip: "yes")
    surroundings = read_surroundings(list_material(noise_folder, None, None, LABELS, True))
    clean = predict_all(model, words)
    evaluate_robustness(model, words, clean, surroundings, [9, 0], progress=lambda *counts: told.append(counts))
    assert told[0] == (3, 26)
    assert told[-1] == (26, 26)
    assert told == sorted(told)


def report_of(robust: Robustness, words: ClipSet) -> ClipMetrics:
    return replace(evaluate(predictor(lambda clip: "yes"), words), robustness=robust)


def test_the_table_has_conditions_rooms_and_noises(robust: Robustness) -> None:
    """A line for each condition and room with its interval, and one for each kind of noise with all SNRs."""
    lines = markdown(robustness_table(robust)).splitlines()
    assert lines[2] == "| clean | 23.08 % | 8.18 to 50.26 | 13 |"
    assert [line.split(" | ")[0] for line in lines[3:6]] == ["| 30 dB", "| -10 dB", "| in rooms"]
    assert lines[6].startswith("| room: cave")
    assert lines[8].startswith("| accuracy in | 30 dB | -10 dB | mean |")
    assert {line.split(" | ")[0] for line in lines[10:]} == {"| rain", "| wind"}


def test_the_figure_is_a_picture(robust: Robustness, words: ClipSet, tmp_path: Path) -> None:
    """robustness.png is a picture of a sensible size, the same each time, with or without noises."""
    metrics = report_of(robust, words)
    without = report_of(replace(robust, by_noise={}), words)
    for name, content in (("a.png", metrics), ("b.png", metrics), ("c.png", without)):
        plot_robustness(content, tmp_path / name)
        pixels = matplotlib.image.imread(tmp_path / name)
        assert all(400 <= side <= 2000 for side in pixels.shape[:2])
        assert pixels[..., :3].std() > 0.01
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# Sound without keywords


def spoken(tmp_path: Path, levels: dict[str, list[float]]) -> tuple[Material, list[Sound]]:
    """A recording for each group, in which every tenth of a second has its level."""
    sounds = []
    for group, values in levels.items():
        write_sounds(tmp_path, {f"{group}.wav": np.repeat(np.float32(values), HOP)})
        sounds.append(Sound(tmp_path / f"{group}.wav", f"{group}.wav", group))
    return Material(speech=sounds), sounds


def test_windows_are_counted_by_hand(tmp_path: Path) -> None:
    """There is a window every 100 ms that lies within its recording; those called a keyword are counted."""
    material, sounds = spoken(tmp_path, {"ann": [0.0] * 4 + [0.5] + [0.0] * 15, "bob": [0.0] * 10})
    found = to_json(called_keywords(predictor(lambda clip: "stop" if clip[0] > 0.1 else UNKNOWN), material, sounds))
    assert (found["windows"], found["recordings"], found["groups"]) == (11 + 1, 2, 2)
    assert {name: row["windows"] for name, row in found["called_keyword"].items()} == {
        "0.5": 1,
        "0.8": 1,
        "0.9": 1,
        "detector": 1,
    }
    assert found["called_keyword"]["0.5"]["share"] == pytest.approx(1 / 12, abs=1e-6)


@pytest.mark.parametrize("probability", [0.45, 0.7, 0.85, 0.92])
def test_a_window_counts_above_a_threshold_only(tmp_path: Path, probability: float) -> None:
    """The likeliest label must be above the threshold."""
    material, sounds = spoken(tmp_path, {"ann": [0.0] * 12})
    found = to_json(called_keywords(predictor(lambda clip: "go", probability), material, sounds))["called_keyword"]
    assert {name: row["share"] for name, row in found.items() if name != "detector"} == {
        f"{threshold:g}": float(probability > threshold) for threshold in (0.5, 0.8, 0.9)
    }


@pytest.mark.parametrize("label", [SILENCE, UNKNOWN])
def test_silence_and_unknown_are_no_keywords(tmp_path: Path, label: str) -> None:
    """However sure, they do not count."""
    material, sounds = spoken(tmp_path, {"ann": [0.0] * 12, "bob": [0.0] * 12})
    found = to_json(called_keywords(predictor(lambda clip: label), material, sounds))["called_keyword"]
    assert {row["windows"] for row in found.values()} == {0}


def test_the_detectors_thresholds_are_the_models_own(tmp_path: Path) -> None:
    """The model's threshold counts, a label's own one before it."""
    material, sounds = spoken(tmp_path, {"ann": [0.0] * 12})
    config = DetectorConfig(threshold=0.6, thresholds={"go": 0.8})
    for label, share in (("go", 0.0), ("stop", 1.0)):
        model = predictor(lambda clip, label=label: label, 0.7, detector=config)
        found = to_json(called_keywords(model, material, sounds))
        assert found["called_keyword"]["detector"]["share"] == share
    assert found["detector"] == {"threshold": 0.6, "thresholds": {"go": 0.8}}


def test_the_interval_is_over_speakers(tmp_path: Path) -> None:
    """One speaker of two whose every window is called a keyword leaves the share open from none to all."""
    material, sounds = spoken(tmp_path, {"ann": [0.5] * 30, "bob": [0.0] * 30})
    model = predictor(lambda clip: "up" if clip[0] > 0.1 else UNKNOWN)
    found = to_json(called_keywords(model, material, sounds))["called_keyword"]["0.5"]
    assert (found["share"], found["share_interval"]) == (0.5, [0.0, 1.0])
    alone = to_json(called_keywords(model, material, sounds[:1]))["called_keyword"]["0.5"]
    assert (alone["share"], alone["share_interval"]) == (1.0, None)


def test_nothing_found_in_seconds_is_not_nothing_for_ever(tmp_path: Path) -> None:
    """Without any window the interval is that of as many tries as there are seconds, as windows overlap."""
    material, sounds = spoken(tmp_path, {"ann": [0.0] * 59, "bob": [0.0] * 59})
    found = to_json(called_keywords(predictor(lambda clip: UNKNOWN), material, sounds))["called_keyword"]["0.5"]
    assert found["share_interval"] == pytest.approx([0.0, 1.96**2 / (10 + 1.96**2)], abs=1e-4)


def test_short_and_unreadable_recordings_are_left_out(tmp_path: Path) -> None:
    """Recordings of under a second are counted, unreadable ones named; if none is left it is a DataError."""
    material, sounds = spoken(tmp_path, {"ann": [0.0] * 12, "bob": [0.0] * 9})
    (tmp_path / "eve.wav").write_bytes(b"no sound")
    sounds.append(Sound(tmp_path / "eve.wav", "eve.wav", "eve"))
    found = to_json(called_keywords(predictor(lambda clip: "go"), material, sounds))
    assert (found["windows"], found["too_short"], found["recordings"]) == (3, 1, 1)
    assert "eve.wav" in material.unreadable[0]
    with pytest.raises(DataError, match="none of 2 recordings holds a whole window of 1 s"):
        called_keywords(predictor(lambda clip: "go"), material, sounds[1:])


def test_speech_and_noise_are_told_apart(noise_folder: Path, speech_folder: Path) -> None:
    """Both have their figures and their lines in the table; sentences with a keyword are left out."""
    material = list_material(noise_folder, None, speech_folder, LABELS, held_out=True)
    measured = evaluate_keyword_free(predictor(lambda clip: "go"), material)
    found = to_json(measured)
    assert (found["speech"]["windows"], found["speech"]["groups"]) == (11 + 31, 2)
    assert (found["noise"]["windows"], found["noise"]["groups"]) == (41 + 21, 2)
    lines = markdown(windows_table(measured)).splitlines()
    assert len(lines) == 2 + 2 * 4
    assert lines[2].startswith("| speech without keywords | 0.5 | 100.000 % |")
    assert "detector's 0.8" in lines[-1] or f"detector's {DetectorConfig().threshold:g}" in lines[-1]


# The command


@pytest.fixture(scope="module")
def measured(
    checkpoint_path: Path,
    prepared: PreparedData,
    noise_folder: Path,
    rooms_folder: Path,
    speech_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, Path]:
    """`evaluate` with everything, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("measured") / "out"
    options = ["--noise", noise_folder, "--snr", "10,-5", "--rooms", rooms_folder, "--speech", speech_folder]
    model = exported(trained_like(checkpoint_path))
    return run_cli("evaluate", model, "--data", prepared.folder, *options, "--out", out), out


def test_evaluate_measures_everything(measured: tuple[Any, Path], prepared: PreparedData) -> None:
    """`evaluate --noise --rooms --speech` ends well, and writes figures, table, picture and every prediction."""
    done, out = measured
    assert (done.returncode, done.stderr) == (0, "")
    names = ["confusion_matrix.png", "metrics.json", "predictions.csv", "robustness.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["held_out"] is True
    assert list(metrics["robustness"]["conditions"]) == ["clean", "snr10", "snr-5", "room"]
    assert set(metrics["keyword_free"]) == {"speech", "noise"}
    for head in ("condition ", "accuracy in ", "windows mistaken for a keyword ", "word of unknown "):
        assert any(line.startswith(head) for line in done.stdout.splitlines())
    assert "|" not in done.stdout
    predictions = read_predictions(out / "predictions.csv")
    rows = prepared.rows("validation")
    for name, row in metrics["robustness"]["conditions"].items():
        assert [line.clip for line in predictions[name]] == [prepared.clips[i].file for i in rows]
        right = np.mean([line.predicted == line.label for line in predictions[name]])
        assert right == pytest.approx(row["accuracy"], abs=1e-6)


def test_noise_alone_can_be_measured(
    checkpoint_path: Path, prepared: PreparedData, noise_folder: Path, tmp_path: Path
) -> None:
    """Without rooms and speech there is neither of them; `--all` takes every noise, garbage is named, status 1."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for path in noise_folder.rglob("*.wav"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "garbage.wav").write_bytes(b"no sound")
    args = ["--data", prepared.folder, "--noise", folder, "--snr", "10", "--all", "--out", tmp_path / "out"]
    done = run_cli("evaluate", exported(trained_like(checkpoint_path)), *args)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "garbage.wav" in done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["robustness"]["noises"] == 3
    assert metrics["robustness"]["by_room"] == {}
    assert list(metrics["keyword_free"]) == ["noise"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--snr", "10"], "found --snr without --noise"),
        (["--noise", "n", "--snr", "loud"], "expected clean or numbers"),
        (["--noise", "n", "--snr", "10,10"], "each once"),
        (["--noise", "n", "--snr", "clean"], "one or more"),
    ],
)
def test_levels_that_make_no_sense_are_wrong_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    """SNRs without noises, that are no numbers, or stand twice: one line, status 2, nothing written."""
    command = ["tiny-kws", "evaluate", "ds-cnn", "--data", "d", "--out", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    printed = capsys.readouterr()
    assert (exit_.value.code, printed.out) == (2, "")
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
