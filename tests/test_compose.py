"""Composed streams hold what they say: which keyword is heard when, in what room, under how much noise.

The clips are tones, one for each keyword and one for all other words, so that what is in a stream can be seen.
"""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny_kws.config import CLIP_SAMPLES, SAMPLE_RATE
from tiny_kws.data.manifest import Excerpt
from tiny_kws.data.prepared import PreparedData, material_file
from tiny_kws.data.speech_commands import KEYWORDS, LABELS
from tiny_kws.errors import DataError
from tiny_kws.training.composing import composer as room
from tiny_kws.training.composing.acoustics import made_room
from tiny_kws.training.composing.streams import IGNORED, NO_KEYWORD, StreamComposer, Streams
from tiny_kws.training_config import StreamRecipe
from tiny_kws.words import SILENCE, UNKNOWN

from .tones import BEGIN, END, LEVEL, OTHERS_HZ, PLAIN_SOUND, rms_db, seeded, strength, write_data

HOP = 320
CPU = torch.device("cpu")
PLAIN = StreamRecipe(
    empty_share=1.0,
    fluent_share=0.0,
    **PLAIN_SOUND,
)
"""Keywords alone, as they were recorded."""

VARIED = replace(StreamRecipe(), made_rooms=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A clip of each keyword, six of other words."""
    return write_data(tmp_path_factory.mktemp("tones"), [*KEYWORDS, *[UNKNOWN] * 6])


def composed(data: PreparedData, recipe: StreamRecipe, n_streams: int = 8, seed: int = 0) -> Streams:
    """Streams that hold all keywords of `data`."""
    composer = StreamComposer(data, recipe, HOP, CPU)
    return composer.compose(composer.keywords, n_streams, seeded(seed))


def of_one_keyword(streams: Streams) -> list[tuple[Tensor, Tensor, int]]:
    """Audio, targets and class of the streams that hold a single keyword and nothing else."""
    found = []
    for row in range(len(streams.audio)):
        held = [label for label in streams.classes[streams.rows == row].tolist() if label != LABELS.index(SILENCE)]
        if len(held) == 1 and held[0] > LABELS.index(UNKNOWN):
            found.append((streams.audio[row], streams.targets[row], held[0]))
    assert len(found) >= 3
    return found


def ends(streams: Streams) -> Tensor:
    """When each answer is given, in samples."""
    return HOP * (1 + torch.arange(streams.targets.shape[1]))


# Draws


def test_every_draw_comes_from_the_generator(data: PreparedData) -> None:
    """Equal seeds give equal batches in every part, whatever other generators do; another seed gives others."""
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = composed(data, VARIED, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = composed(data, VARIED, seed=3), composed(data, VARIED, seed=4)
    for part in (field.name for field in fields(Streams)):
        assert torch.equal(*(torch.as_tensor(getattr(streams, part)) for streams in (first, again))), part
    assert not torch.equal(first.audio, other.audio)
    assert not torch.equal(first.targets, other.targets)


def test_each_keyword_once(data: PreparedData) -> None:
    """Every keyword asked for is set in once: there is one clip of its class, and its sound is there once."""
    streams = composed(data, PLAIN)
    keywords = [LABELS.index(word) for word in KEYWORDS]
    assert sorted(streams.classes[streams.classes > LABELS.index(UNKNOWN)].tolist()) == keywords
    for label in keywords:
        assert float(strength(streams.audio, label).sum()) == pytest.approx(1.0, abs=0.05)


def test_few_keywords(data: PreparedData) -> None:
    """A batch may hold fewer keywords than it has room for: one, or none."""
    composer = StreamComposer(data, replace(VARIED, fluent_share=0.0), HOP, CPU)
    for n in (0, 1):
        streams = composer.compose(composer.keywords[:n], 4, seeded())
        assert int((streams.classes > LABELS.index(UNKNOWN)).sum()) == n


def test_how_many_keywords(data: PreparedData) -> None:
    """The asked share of the slots of the streams that are no fluent speech is for keywords."""
    composer = StreamComposer(data, replace(VARIED, keyword_share=0.5), HOP, CPU)
    assert composer.n_slots == 3
    assert composer.n_keywords(64) == 48 * 3 // 2


def test_other_words_fill_the_rest(data: PreparedData) -> None:
    """Of the slots without a keyword, the asked share is empty and the others hold other words."""
    composer = StreamComposer(data, replace(PLAIN, empty_share=0.4), HOP, CPU)
    streams = composer.compose(composer.keywords, 60, seeded())
    counts = torch.bincount(streams.classes, minlength=12)
    assert counts[2:].tolist() == [1] * 10
    assert int(counts.sum()) == 180
    assert float(counts[LABELS.index(SILENCE)] / 170) == pytest.approx(0.4, abs=0.1)


def test_words_are_drawn_alike() -> None:
    """Other words are drawn alike however many clips they have, but for one of few clips, which counts by its clips."""
    weights = room._balanced(["often"] * 30 + ["seldom"] * 10 + ["rare"], rare=10)
    by_word = [weights[:30].sum(), weights[30:40].sum(), weights[40:].sum()]
    np.testing.assert_allclose(np.array(by_word) / by_word[0], [1.0, 1.0, 0.1])


def test_draws_follow_the_weights(data: PreparedData) -> None:
    """Indices are drawn as often as their weights say; none of weight zero."""
    cumulative = room._cumulative(np.array([1.0, 0.0, 3.0]))
    drawn = torch.bincount(
        StreamComposer(data, PLAIN, HOP, CPU)._draw_weighted(cumulative, 4000, seeded()), minlength=3
    )
    assert drawn.tolist() == pytest.approx([1000, 0, 3000], abs=100)


# What is heard when


@pytest.mark.parametrize(("speed", "window_s"), [(0.8, 1.0), (1.0, 1.0), (1.25, 1.0), (1.0, 0.6), (1.0, 2.0)])
def test_targets_follow_the_sound(tmp_path: Path, speed: float, window_s: float) -> None:
    """Around a keyword, at any speed, the targets say what its sound does: none up to its beginning; nothing counts
    while it is heard in part; its class while it is whole in the window, for half a second at most; nothing counts
    until it has left the window; none when it is gone."""
    window = round(window_s * SAMPLE_RATE)
    data = write_data(tmp_path, [*KEYWORDS, *[UNKNOWN] * 6], window=window)
    streams = composed(data, replace(PLAIN, speeds=(speed, speed)), n_streams=24)
    t, seen = ends(streams), np.zeros(5, int)
    for audio, targets, label in of_one_keyword(streams):
        sounding = torch.nonzero(audio.abs() > 1e-3)[:, 0]
        begin, end = int(sounding[0]), int(sounding[-1]) + 1
        assert end - begin == pytest.approx((END - BEGIN) / speed, abs=20)
        half, margin = SAMPLE_RATE // 2, SAMPLE_RATE // 20  # the word is taken to be 20 ms longer on both sides
        stages = [
            (t <= begin, NO_KEYWORD),
            ((t >= (begin + end) / 2) & (t <= end), IGNORED),
            ((t >= end + 3 * margin) & (t <= min(begin + window, end + half) - margin), label),
            ((t >= min(begin + window, end + half) + margin) & (t <= end + 0.95 * window - margin), IGNORED),
            (t >= end + window, NO_KEYWORD),
        ]
        for stage, (answers, expected) in enumerate(stages):
            assert bool((targets[answers] == expected).all()), (stage, targets.tolist())
            seen[stage] += int(answers.sum())
    assert (seen > 20).all()


def test_the_next_keyword_takes_over(data: PreparedData) -> None:
    """Where a keyword is whole while another leaves the second, its class is the target."""
    streams = composed(data, replace(PLAIN, empty_share=0.0), n_streams=4)  # 10 keywords in 12 slots
    found = 0
    for row, answer, label in zip(streams.rows, streams.answers, streams.classes, strict=True):
        if label > LABELS.index(UNKNOWN):
            assert streams.targets[row, answer - (CLIP_SAMPLES - END) // HOP + 6] == label
            found += 1
    assert found == len(KEYWORDS)


def test_clips_are_classified_at_their_end(data: PreparedData) -> None:
    """The second before a clip's answer is that clip: its keyword, another word, or nothing in an empty slot."""
    streams = composed(data, replace(PLAIN, empty_share=0.5))
    assert set(streams.classes.tolist()) == set(range(12))
    padded = torch.nn.functional.pad(streams.audio, (CLIP_SAMPLES, 0))
    for row, end, label in zip(streams.rows, ends(streams)[streams.answers], streams.classes, strict=True):
        second = padded[row, end : end + CLIP_SAMPLES]
        if label == LABELS.index(SILENCE):
            assert float(second.abs().max()) == 0.0
        else:
            assert float(strength(second[None], int(label))) == pytest.approx(1.0, abs=0.05)
            assert int(torch.nonzero(second.abs() > 1e-3)[0]) == pytest.approx(BEGIN, abs=HOP // 2 + 8)


def test_an_answer_every_hop(data: PreparedData) -> None:
    """Streams are as long as asked, a whole number of hops, with a target for each."""
    streams = composed(data, replace(PLAIN, seconds=2.5))
    assert streams.audio.shape == (8, 40_000)
    assert streams.targets.shape == (8, 125)
    assert streams.audio.dtype == torch.float32


def test_fluent_speech_holds_no_keyword(data: PreparedData) -> None:
    """Fluent streams are other words end to end: no keyword sounds, none is a target, no clip is classified."""
    streams = composed(data, replace(PLAIN, fluent_share=0.5, pause_share=0.0))
    assert int(streams.rows.max()) == 3
    fluent = streams.audio[4:]
    assert bool((streams.targets[4:] == NO_KEYWORD).all())
    words = strength(fluent, LABELS.index(UNKNOWN))
    for word in KEYWORDS:
        assert bool((strength(fluent, LABELS.index(word)) < 0.02).all())
    assert bool((words > 0).all())
    frames = fluent.unfold(1, 320, 320).abs().amax(2)
    assert float((frames > 0.01).float().mean()) > 0.8


def test_words_that_begin_as_keywords_do(data: PreparedData) -> None:
    """Half of a keyword or more, but never all of it, goes over into another word; no keyword is a target there."""
    recipe = replace(PLAIN, fluent_share=0.5, pause_share=1.0, spliced_share=1.0)
    streams = composed(data, recipe, n_streams=24)
    assert bool((streams.targets[12:] == NO_KEYWORD).all())
    frame = SAMPLE_RATE // 100
    spectra = torch.fft.rfft(streams.audio[12:].unfold(1, 2 * frame, frame)).abs()
    hz = torch.fft.rfftfreq(2 * frame, 1 / SAMPLE_RATE)
    low, high = (spectra[..., where].amax(2) for where in (hz < 800, hz > 1200))
    lengths, followed = [], []
    for row in range(len(high)):
        kinds = torch.where(high[row] > 2 * low[row], 2, torch.where(low[row] > 0.1, 1, 0)).tolist()
        runs = [(kind, len(list(run))) for kind, run in itertools.groupby(kinds)]
        for (kind, length), (after, _) in itertools.pairwise(runs[1:]):
            if kind == 2:
                lengths.append(length / 100)
                followed.append(after == 1)
    assert len(lengths) > 20
    word = (END - BEGIN) / SAMPLE_RATE
    assert 0.4 * word < min(lengths) < 0.7 * word
    assert 0.75 * word < max(lengths) < word + 0.02
    assert all(followed)


def test_pauses_in_fluent_speech(data: PreparedData) -> None:
    """The asked share of the words in fluent speech is followed by a pause of a tenth of a second or more."""
    silent = []
    for share in (0.0, 1.0):
        fluent = composed(data, replace(PLAIN, fluent_share=0.5, pause_share=share), n_streams=12).audio[6:]
        silent.append(float((fluent.unfold(1, 1280, 1280).abs().amax(2) == 0).float().mean()))
    assert silent[0] < 0.08
    assert silent[1] > 0.2


# Rooms and noise


def test_rooms_keep_the_level(data: PreparedData) -> None:
    """In a room, measured or made up, white noise is as loud as without."""
    composer = StreamComposer(data, replace(PLAIN, room_share=1.0, made_rooms=8), HOP, CPU)
    audio = 0.1 * torch.randn(40, composer.n_samples, generator=seeded())
    heard = composer._in_rooms(audio, seeded(1))
    assert not any(torch.allclose(heard[i], audio[i], atol=1e-3) for i in range(40))
    change_db = rms_db(heard[:, 8000:]) - rms_db(audio[:, 8000:])
    assert float(change_db.abs().max()) < 0.6


def test_rooms_are_causal(data: PreparedData) -> None:
    """Nothing is heard before it sounds, and its direct sound when it does: rooms delay nothing."""
    composer = StreamComposer(data, replace(PLAIN, room_share=1.0, made_rooms=8), HOP, CPU)
    audio = torch.zeros(40, composer.n_samples)
    audio[:, -5000] = 1.0
    heard = composer._in_rooms(audio, seeded())
    assert float(heard[:, :-5000].abs().max()) < 1e-5
    assert float(heard[:, -5000].abs().min()) > 0.1


def test_a_share_is_in_rooms(data: PreparedData) -> None:
    """The asked share of the streams is in a room, the others are as they were."""
    composer = StreamComposer(data, replace(PLAIN, seconds=1.2, room_share=0.35), HOP, CPU)
    audio = 0.1 * torch.randn(300, composer.n_samples, generator=seeded())
    changed = (composer._in_rooms(audio, seeded(1)) != audio).any(1)
    assert float(changed.float().mean()) == pytest.approx(0.35, abs=0.08)


def test_half_of_the_rooms_are_measured(data: PreparedData) -> None:
    """Of the streams in a room, half are in one that was measured; without measured ones, all in made up ones."""
    composer = StreamComposer(data, replace(PLAIN, seconds=1.2, room_share=1.0), HOP, CPU)
    impulses = torch.zeros(200, composer.n_samples)
    impulses[:, 0] = 1.0
    measured = torch.fft.irfft(composer.rooms[0])[: composer.n_samples]
    heard = composer._in_rooms(impulses, seeded())
    assert float(torch.isclose(heard, measured, atol=1e-5).all(1).float().mean()) == pytest.approx(0.5, abs=0.12)
    composer._n_measured = 0
    different = {tuple(row[:4].tolist()) for row in composer._in_rooms(impulses, seeded())}
    assert len(different) == len(composer.rooms)


def test_made_rooms() -> None:
    """A made-up response has an energy of 1 and begins with its direct sound; each is another."""
    rng = np.random.default_rng(0)
    rooms = [made_room(rng) for _ in range(20)]
    for response in rooms:
        assert response.shape == (8000,)
        assert float(np.square(response, dtype=np.float64).sum()) == pytest.approx(1.0, abs=1e-4)
        assert response[0] > 0.1
        early, late = np.square(response[:4000]).sum(), np.square(response[4000:]).sum()
        assert late < 0.2 * early
    assert len({response.tobytes() for response in rooms}) == 20


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_at_the_asked_snr(data: PreparedData, snr_db: float) -> None:
    """Noise lies below the active parts of a stream by the asked number of decibels."""
    recipe = replace(PLAIN, noise_share=1.0, snr_db=(snr_db, snr_db))
    clean, noisy = (composed(data, replace(recipe, clean_share=share)).audio for share in (1.0, 0.0))
    noise_db = rms_db(noisy - clean)
    speaking = clean.abs().amax(1) > 0
    assert int(speaking.sum()) >= 5
    speech_db = 20 * np.log10(LEVEL / np.sqrt(2))
    assert float((speech_db - noise_db[speaking] - snr_db).abs().max()) < 0.5


def test_noise_kinds(data: PreparedData) -> None:
    """Streams have noise at an SNR, faint noise or none, each as often as asked."""
    recipe = replace(PLAIN, noise_share=0.5, clean_share=0.2, snr_db=(0.0, 0.0))
    composer = StreamComposer(data, recipe, HOP, CPU)
    speech = torch.zeros(400, 1600)
    speech[:, ::2] = 0.2
    composer.n_samples = 1600
    added = (composer._add_noise(speech, seeded()) - speech).square().mean(1).sqrt()
    assert float((added == 0).float().mean()) == pytest.approx(0.2, abs=0.06)
    assert float((added > 0.05).float().mean()) == pytest.approx(0.5, abs=0.08)


def test_which_noise(data: PreparedData, tmp_path: Path) -> None:
    """A quarter of the noise is the task's own, the rest of other sources by their length; a short noise counts too."""
    lengths = [30 * SAMPLE_RATE, 55 * SAMPLE_RATE, SAMPLE_RATE, SAMPLE_RATE // 2]
    np.save(tmp_path / material_file("noise"), np.ones(sum(lengths), np.int16))
    excerpts = {"noise": [Excerpt("", "", n) for n in lengths], "rooms": [], "speech": []}
    for kind in ("rooms", "speech"):
        np.save(tmp_path / material_file(kind), np.zeros(0, np.int16))
    manifest = replace(data.manifest, material=excerpts)
    composer = StreamComposer(replace(data, folder=tmp_path, manifest=manifest), PLAIN, HOP, CPU)
    shares = torch.diff(composer._by_noise, prepend=torch.zeros(1))
    assert shares.tolist() == pytest.approx([0.25, *[0.75 * weight / 19 for weight in (6, 11, 1, 1)]])


def test_a_stream_of_nothing_has_noise(data: PreparedData) -> None:
    """Where nothing is said, there is noise between -60 and -12 dB of full scale."""
    composer = StreamComposer(data, replace(PLAIN, clean_share=0.0), HOP, CPU)
    level_db = rms_db(composer.compose(composer.keywords[:0], 12, seeded()).audio)
    assert bool(((level_db > -60.1) & (level_db < -11.9)).all())
    assert float(level_db.max() - level_db.min()) > 15


def test_the_level_is_drawn(data: PreparedData) -> None:
    """Each clip has a level of its own, within the asked decibels."""
    peaks_db = [
        20 * np.log10(float(audio.abs().max()) / LEVEL)
        for audio, _, _ in of_one_keyword(composed(data, replace(PLAIN, level_db=(-12.0, 6.0)), n_streams=24))
    ]
    assert all(-12.1 < peak < 6.1 for peak in peaks_db)
    assert max(peaks_db) - min(peaks_db) > 4


def test_nothing_beyond_full_scale(data: PreparedData) -> None:
    """However loud speech, noise and rooms are, no sample is beyond [-1, 1], and none is no number."""
    loud = replace(VARIED, level_db=(30.0, 30.0), snr_db=(-10.0, -10.0), noise_share=1.0, room_share=0.5)
    assert float(composed(data, loud).audio.abs().max()) == 1.0


# What streams are composed of


def test_where_words_are(data: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip's span is its sound, with 20 to 30 ms on both sides; it comes with the data, not from another look."""
    monkeypatch.setattr("tiny_kws.data.spans.find_word", None)
    composer = StreamComposer(data, PLAIN, HOP, CPU)
    assert len(composer.spans) == 16
    for begin, end in composer.spans.tolist():
        assert BEGIN - 480 <= begin <= BEGIN - 320
        assert END + 320 <= end <= END + 480
    moved = StreamComposer(replace(data, spans=data.spans + np.int32(7)), PLAIN, HOP, CPU)
    assert torch.equal(moved.spans, composer.spans + 7)


def test_clips_without_a_word_are_not_used(data: PreparedData) -> None:
    """Of the training and extra clips, those in which no word can be found are left out, as are other splits."""
    spans = np.array(data.spans)
    spans[0] = -1
    clips = [replace(clip, split="validation") if i == 1 else clip for i, clip in enumerate(data.clips)]
    composer = StreamComposer(replace(data, spans=spans, clips=clips), PLAIN, HOP, CPU)
    assert composer.classes[composer.keywords].tolist() == [LABELS.index(word) for word in KEYWORDS[2:]]
    assert torch.equal(composer._recorded(composer.keywords[:1])[0], torch.from_numpy(data.bank[2]) / 32768.0)
    assert len(composer.others) == 6


def test_words_left_out_are_not_heard(data: PreparedData) -> None:
    """Words that are left out of the data are in no stream."""
    composer = StreamComposer(data.without(["word 0"]), PLAIN, HOP, CPU)
    assert len(composer.others) == sum(clip.label == UNKNOWN and clip.word != "word 0" for clip in data.clips)


@pytest.mark.parametrize("labels", [[*KEYWORDS], [UNKNOWN] * 4])
def test_too_little_to_compose_of(tmp_path: Path, labels: list[str]) -> None:
    """Without keywords, or without other words, streams are refused, saying what there is."""
    with pytest.raises(DataError, match=rf"found a word in {len(labels)} of {len(labels)} training clips, expected"):
        StreamComposer(write_data(tmp_path, labels), PLAIN, HOP, CPU)


def test_short_noise_goes_round(data: PreparedData) -> None:
    """A noise shorter than a stream is repeated without a gap, from a drawn place on."""
    composer = StreamComposer(
        replace(data, noise=np.array(data.noise[:4000])), replace(PLAIN, clean_share=0.0), HOP, CPU
    )
    composer._by_noise = room._cumulative(np.array([1.0, 0.0]))
    first, second = composer.compose(composer.keywords[:0], 2, seeded()).audio
    for audio in (first, second):
        assert torch.allclose(audio[4000:], audio[:-4000], rtol=0, atol=1e-6)
    assert not torch.allclose(first / first.abs().max(), second / second.abs().max(), atol=1e-2)


def test_noises_at_other_speeds(data: PreparedData) -> None:
    """Every noise is there at each speed, drawn as often as at the others; a hum is heard as much higher or lower."""
    hum = np.rint(8000 * np.sin(2 * np.pi * 1000 * np.arange(50_000) / SAMPLE_RATE)).astype(np.int16)
    speeds = (1.0, 0.5, 2.0)
    composer = StreamComposer(replace(data, noise=hum), replace(PLAIN, noise_speeds=speeds), HOP, CPU)
    noises = composer._weighted_noises(replace(data, noise=hum))
    assert len(noises) == 6
    assert [weight for _, weight in noises[:2]] * 3 == [weight for _, weight in noises]
    for (noise, _), speed in zip(noises[::2], speeds, strict=True):
        assert abs(len(noise) - 50_000 / speed) <= 2
        loudest = np.abs(np.fft.rfft(noise[:16_000])).argmax()
        assert loudest == 1000 * speed


def test_babble_among_the_noises(data: PreparedData) -> None:
    """It holds other words alone, of several voices at once, and is drawn as often as its share says."""
    composer = StreamComposer(data, replace(PLAIN, babble_share=0.25), HOP, CPU)
    *others, (babble, weight) = composer._weighted_noises(data)
    assert weight / (weight + sum(weight for _, weight in others)) == pytest.approx(0.25)
    rows = torch.from_numpy(babble.reshape(-1, composer.n_samples) / 32768.0)
    assert len(rows) == 120 * SAMPLE_RATE // composer.n_samples
    spectrum = torch.fft.rfft(rows).abs().square()
    at = round(OTHERS_HZ * composer.n_samples / SAMPLE_RATE)
    assert float((spectrum[:, at - 60 : at + 60].sum(1) / spectrum.sum(1)).min()) > 0.95
    assert len({float(row.square().sum()) for row in rows}) == len(rows)
    alone = composer._words_end_to_end(20, seeded())
    assert float((rows.abs() > 1e-3).float().mean()) > 1.2 * float((alone.abs() > 1e-3).float().mean())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")
def test_the_same_streams_on_a_gpu(data: PreparedData) -> None:
    """A seed means the same streams on every device."""
    on_cpu, on_gpu = (
        composer.compose(composer.keywords, 8, seeded())
        for composer in (StreamComposer(data, VARIED, HOP, torch.device(name)) for name in ("cpu", "cuda"))
    )
    assert torch.allclose(on_cpu.audio, on_gpu.audio.cpu(), atol=1e-4)
    for part in ("targets", "rows", "answers", "classes"):
        assert torch.equal(getattr(on_cpu, part), getattr(on_gpu, part).cpu())


# Running speech and hard negatives


@pytest.mark.parametrize(("share", "running"), [(None, 4), (0.75, 6), (0.0, 0)])
def test_a_share_of_fluent_streams_is_running_speech(share: float | None, running: int, tmp_path: Path) -> None:
    """Where there is running speech, half of the fluent streams, or another share, are stretches of it alone."""
    wave = np.rint(8000 * np.sin(2 * np.pi * 3000 * np.arange(SAMPLE_RATE * 5) / SAMPLE_RATE)).astype(np.int16)
    data = write_data(tmp_path, [*KEYWORDS, *[UNKNOWN] * 6], wave)
    recipe = replace(PLAIN, fluent_share=0.5, **({} if share is None else {"running_share": share}))
    streams = composed(data, recipe, n_streams=16)
    spectrum = torch.fft.rfft(streams.audio[8:]).abs().square()
    low, high = (round(hz * streams.audio.shape[1] / SAMPLE_RATE) for hz in (2900, 3100))
    within = spectrum[:, low:high].sum(1) / spectrum.sum(1)
    assert int((within > 0.9).sum()) == running
    assert (streams.targets[8:] == NO_KEYWORD).all()


def test_negatives_hold_no_keyword(data: PreparedData) -> None:
    """Of the streams that hard negatives are looked for in none holds the tone of a keyword, some that of others."""
    audio = StreamComposer(data, PLAIN, HOP, CPU).negatives(16, seeded())
    assert audio.shape == composed(data, PLAIN, 16).audio.shape
    for keyword in KEYWORDS:
        assert strength(audio, LABELS.index(keyword)).max() < 0.05
    assert strength(audio, LABELS.index(UNKNOWN)).max() > 0.5


def test_the_hardest_are_kept_and_come_again(data: PreparedData) -> None:
    """The streams with the highest scores, and no others, take the places of some of the fluent ones."""
    recipe = replace(PLAIN, fluent_share=0.5, hard_negatives=2, hard_negative_share=0.5)
    composer = StreamComposer(data, recipe, HOP, CPU)
    marks = torch.linspace(-0.5, 0.5, 8)[:, None].expand(8, composer.n_samples)
    composer.keep_hardest(marks, torch.tensor([0.0, 5.0, 1.0, 2.0, 9.0, 3.0, 0.5, 0.1]))
    streams = composer.compose(composer.keywords, 16, seeded())
    again = streams.audio[12:]
    assert (again == again[:, :1]).all()
    shares = again[:, 0, None] / marks[[1, 4], 0]
    assert ((shares > 0).sum(1) == 1).all()  # one of the two, at some level
    assert (streams.targets[8:] == NO_KEYWORD).all()


def test_no_candidates_no_hard_negatives(data: PreparedData) -> None:
    """Before any were looked for, all fluent streams are fluent speech."""
    composer = StreamComposer(data, replace(PLAIN, fluent_share=0.5), HOP, CPU)
    assert composer.hard_negatives is None
    assert len(composer.compose(composer.keywords, 16, seeded()).audio) == 16
