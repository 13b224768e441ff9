"""The trunk of own words: recordings with phones and words, batches of them, its training, its graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import soundfile as sf
import torch

from tiny_kws import DataError
from tiny_kws.export.onnx_models import trunk_graph
from tiny_kws.training.features import LogMel, normalize
from tiny_kws.training.networks import CausalCNN, count_macs, count_parameters
from tiny_kws.training.running_speech import PHONES, SpeechComposer, read_aligned, read_free, words_to_tell
from tiny_kws.training.trunk import FEATURES, LAST, TrunkTrainer, read_trunk, save_trunk
from tiny_kws.training_config import CAUSAL_SIZES, TRUNK, TrunkRecipe

RATE = 16000
SMALL = replace(TRUNK, stem_channels=4, band_channels=4, width=16, n_blocks=2, n_band_blocks=1, n_classes=8)
RECIPE = replace(
    TrunkRecipe(), epochs=2, batch_size=4, seconds=2.0, made_rooms=2, fewest=1, warmup_steps=1, word_size=8
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine recordings of a second by nine speakers: a tone for the word low and one for high, aligned."""
    lines = []
    for i in range(9):
        time_s = np.arange(RATE) / RATE
        tone = np.sin(2 * np.pi * np.where(time_s < 0.5, 300, 1200) * time_s) * (np.abs(time_s - 0.5) > 0.1)
        sf.write(tmp_path / f"{i}.wav", 0.3 * tone, RATE)
        low = ["low", 0, 40, [["L", 0, 20], ["OW", 20, 20]]]
        high = ["high", 60, 40, [["HH", 60, 10], ["AY", 70, 30]]]
        silence = ["<sil>", 40, 20, [["SIL", 40, 20]]]
        entry = {"file": f"{i}.wav", "speaker": f"speaker {i}", "clip": i > 6, "words": [low, silence, high]}
        lines.append(json.dumps(entry))
    (tmp_path / "alignments.jsonl").write_text("\n".join(lines))
    return tmp_path


def composer(folder: Path) -> SpeechComposer:
    recordings = read_aligned(folder, (0, 1, 2))
    noise = (3000 * np.random.default_rng(0).normal(size=RATE)).astype(np.int16)
    room = np.eye(1, 100, dtype=np.float32)[0]
    return SpeechComposer(recordings, words_to_tell(recordings, 1), [noise], [room], RECIPE)


def test_recordings_come_with_phones_and_words(folder: Path) -> None:
    """The phone of each frame of 10 ms, silence where nothing is said, and the words without the pauses."""
    first = read_aligned(folder, (0, 1, 2))[0]
    assert [PHONES[first.phones[at]] for at in (5, 25, 50, 65, 99)] == ["L", "OW", "SIL", "HH", "AY"]
    assert [(word.text, word.start, word.stop) for word in first.words] == [("low", 0, 40), ("high", 60, 100)]


def test_speakers_are_kept_apart(folder: Path) -> None:
    """Each recording is of one of three parts, by its speaker."""
    parts = [len(read_aligned(folder, (part,))) for part in range(3)]
    assert sum(parts) == 9
    assert all(parts)


def test_a_folder_without_alignments_is_named(tmp_path: Path) -> None:
    """It says what makes them."""
    with pytest.raises(DataError, match=r"found no alignments\.jsonl"):
        read_aligned(tmp_path)


def test_words_end_where_the_batch_says(folder: Path) -> None:
    """Where a word of a batch ends, the phone before is its last one."""
    batch = composer(folder).compose(np.random.default_rng(3))
    last = {"low": PHONES.index("OW"), "high": PHONES.index("AY")}
    names = sorted(last)
    assert len(batch.words) > 4
    for row, stop, word in zip(batch.rows, batch.stops, batch.words, strict=True):
        assert int(batch.phones[row, int(stop) - 2]) == last[names[int(word)]]


def test_batches_follow_from_the_draw(folder: Path) -> None:
    """The same generator gives the same batch, finite and within full scale."""
    one, two = (composer(folder).compose(np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(one.audio, two.audio)
    assert float(one.audio.abs().max()) <= 1.0


def test_a_training_goes_on_exactly(folder: Path, tmp_path: Path) -> None:
    """Two epochs at once and one after the other, in another process's place, give the same weights."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    TrunkTrainer(composer(folder), RECIPE, whole, SMALL).train(lambda _: None)
    stopped = TrunkTrainer(composer(folder), RECIPE, parts, SMALL)
    with pytest.raises(KeyboardInterrupt):
        stopped.train(lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    TrunkTrainer(composer(folder), RECIPE, parts, SMALL).train(lambda _: None)
    a, b = (torch.load(run / LAST, weights_only=True) for run in (whole, parts))
    assert a["epoch"] == b["epoch"] == 2
    assert all(torch.equal(a["task"][name], b["task"][name]) for name in a["task"])


def test_a_trunk_is_kept_and_read(folder: Path, tmp_path: Path) -> None:
    """The network and its statistics, without what only training needs."""
    trainer = TrunkTrainer(composer(folder), RECIPE, tmp_path / "run", SMALL)
    trainer.train(lambda _: None)
    save_trunk(tmp_path / "run" / LAST, tmp_path / "trunk.pt")
    network, stats, _ = read_trunk(tmp_path / "trunk.pt")
    assert stats == trainer.stats
    expected = trainer.task.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_the_graph_gives_what_the_network_gives() -> None:
    """Hop by hop within 1e-3 of the whole recording at once: weights are stored in float16."""
    torch.manual_seed(0)
    network, stats = CausalCNN(TRUNK).eval(), {"mean": -13.8, "std": 4.2}
    session = ort.InferenceSession(trunk_graph(network, FEATURES, stats).SerializeToString())
    audio = (0.1 * np.random.default_rng(0).normal(size=1280 * 30)).astype(np.float32)
    states = {v.name: np.zeros((1, *v.shape[1:]), np.float32) for v in session.get_inputs() if v.name != "audio"}
    names, found = [v.name for v in session.get_outputs()], []
    for hop in audio.reshape(-1, 1, 1280):
        answers = dict(zip(names, session.run(None, {"audio": hop, **states}), strict=True))
        states = {name: answers[f"next_{name}"] for name in states}
        found.append(answers["embedding"][0])
    with torch.inference_mode():
        vectors = network.fc(network.trunk(normalize(LogMel(FEATURES)(torch.from_numpy(audio)), stats)).transpose(1, 2))
    expected = vectors[0].unflatten(0, (-1, TRUNK.pooled_frames)).mean(1).numpy()
    assert np.abs(np.array(found) - expected).max() < 1e-3


def test_the_trunk_is_as_large_as_it_may_be() -> None:
    """At most 300,000 parameters, which is 300 kB in int8, and twice the arithmetic of `base`."""
    features = torch.zeros(1, 1, 64, 100)
    assert count_parameters(CausalCNN(TRUNK)) <= 300_000
    assert count_macs(CausalCNN(TRUNK), features) <= 2 * count_macs(CausalCNN(CAUSAL_SIZES["base"]), features)


def test_noises_that_may_not_be_published_are_left_out(tmp_path: Path) -> None:
    """Share-alike recordings are passed over, and with `licences` all others than those."""
    (tmp_path / "manifest.csv").write_text(
        "file,licence\na.wav,CC0 1.0\nb.wav,CC BY-SA 3.0\nc.wav,CC BY 4.0\nd.wav,CC0 1.0\n"
    )
    for i, name in enumerate("abcd"):
        sf.write(tmp_path / f"{name}.wav", np.full(100, 0.1 * (i + 1)), RATE)
    levels = [round(float(noise[0]) / 32768, 1) for noise in read_free(tmp_path)]
    assert 0.2 not in levels
    assert set(levels) >= {round(float(noise[0]) / 32768, 1) for noise in read_free(tmp_path, ("CC0",))}
    assert 0.3 not in {round(float(noise[0]) / 32768, 1) for noise in read_free(tmp_path, ("CC0",))}
