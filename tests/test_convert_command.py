"""`tiny-kws convert`: words of `enroll` for a microcontroller; and the sizes of the network under them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

import tiny_kws
from tiny_kws import ModelError, UsageError
from tiny_kws.artefact.runtime import StreamModel, read_metadata
from tiny_kws.config import FeatureConfig
from tiny_kws.enrolment.bank import BANKS, Bank, read_bank, size_of_trunk
from tiny_kws.enrolment.enroll import check_request, ground_of
from tiny_kws.enrolment.head import THRESHOLD, Head, Hidden, OwnWord
from tiny_kws.enrolment.learn import BINS
from tiny_kws.enrolment.ship import write_model
from tiny_kws.enrolment.takes import Take
from tiny_kws.export import own_words
from tiny_kws.export.own_words import Converter, OwnWords, network_of
from tiny_kws.training.features import LogMel, normalize

from .helpers import environment, run_cli

RATE = 16000
SIZES = pytest.mark.parametrize("size", BANKS)


def bank_of(size: str) -> Bank:
    return read_bank(BANKS[size])


def a_word(bank: Bank, name: str, seed: int, bins: int, units: int = 0) -> OwnWord:
    """A word with a head of random numbers; with `units`, a thorough one."""
    rng, size = np.random.default_rng(seed), int(bank.trunk_facts["size"])

    def drawn(*shape: int) -> np.ndarray:
        return (0.05 * rng.normal(size=shape)).astype(np.float32)

    hidden = Hidden(drawn(bins * size, units), drawn(units), 4 * drawn(units)) if units else None
    facts = {"word": name, "bins": bins, "trunk_sha256": bank.trunk_sha256} | ({"units": units} if units else {})
    return OwnWord(name, Head(drawn(bins, size), 0.0, hidden), THRESHOLD, facts)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose level rises and falls three times a second."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.1, len(time_s))
    return (noise * (1.1 + np.sin(6 * np.pi * time_s))).astype(np.float32)


# Sizes


@SIZES
def test_a_model_is_known_by_the_size_of_its_trunk(size: str, tmp_path: Path) -> None:
    """What a word is added to has a size, and the bank of that size is taken; so are those of models to combine."""
    bank = bank_of(size)
    assert size_of_trunk(bank.trunk_sha256) == size
    for name in ("computer", "lamp"):
        write_model(tmp_path / f"{name}.onnx", bank, [a_word(bank, name, 0, 10)])
    assert tiny_kws.combine([tmp_path / "computer.onnx", tmp_path / "lamp.onnx"], tmp_path / "both.onnx")
    asked = check_request("window", tmp_path / "more.onnx", add_to=tmp_path / "both.onnx")
    assert (asked.bank.trunk_sha256, len(asked.others)) == (bank.trunk_sha256, 2)
    assert check_request("window", tmp_path / "new.onnx", size=size).bank.trunk_sha256 == bank.trunk_sha256
    assert size_of_trunk("0" * 64) is None


def test_the_small_trunk_is_small() -> None:
    """A tenth of the other's parameters, an eighth of its arithmetic; as many frames as the documents say."""
    bank, usual = bank_of("micro"), bank_of("base").trunk_facts
    small = bank.trunk_facts
    assert (round(small["parameters"], -3), round(usual["parameters"], -3)) == (23_000, 276_000)
    assert round(usual["macs"] / small["macs"]) == 8
    words = (a_word(bank, "computer", 0, bins).head for bins in BINS)
    assert [OwnWords(network_of(bank), [head]).n_frames for head in words] == [192, 272]


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """An unknown size; a size beside a model that has one; models of two sizes."""
    with pytest.raises(UsageError, match="found the size 'nano', expected base or micro"):
        check_request("window", tmp_path / "new.onnx", size="nano")
    paths = [tmp_path / f"{size}.onnx" for size in BANKS]
    for size, path in zip(BANKS, paths, strict=True):
        write_model(path, bank_of(size), [a_word(bank_of(size), size, 0, 10)])
    with pytest.raises(UsageError, match="found --size with"):
        check_request("window", tmp_path / "new.onnx", add_to=paths[0], size="micro")
    with pytest.raises(ModelError, match=r"made with another trunk \(--size micro\), expected --size base"):
        tiny_kws.combine(paths, tmp_path / "both.onnx")


# The network behind a graph


@SIZES
@pytest.mark.parametrize("units", [0, 6])
def test_the_network_answers_as_the_artefact_does(size: str, units: int, tmp_path: Path) -> None:
    """From the frames that an answer depends on, and no others, at every hop; words of two lengths in one model."""
    bank = bank_of(size)
    words = [a_word(bank, "computer", 0, 10), a_word(bank, "lights out", 1, 14, units)]
    write_model(tmp_path / "two.onnx", bank, words)
    model = StreamModel(tmp_path / "two.onnx")
    network = OwnWords(network_of(bank), [word.head for word in words]).eval()
    audio = sound(5.0)
    expected, config = model.stream().process(audio), FeatureConfig(**model.metadata.feature_config)
    features = normalize(LogMel(config)(torch.from_numpy(audio)), bank.trunk_facts["stats"])[0, 0]
    per_hop = bank.hop // config.hop
    for hop in range(network.n_frames // per_hop + 1, len(expected)):
        window = features[:, (hop + 1) * per_hop - network.n_frames : (hop + 1) * per_hop]
        with torch.inference_mode():
            found = network(window[None, :, :, None])[0].numpy()
        assert np.abs(found - expected[hop]).max() < 2e-3  # its mel filters are in half precision
    assert np.ptp(expected[-20:], axis=0).min() > 0.01


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `enroll` with the word *computer*, made from what espeak-ng says, and three of these takes."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng, which speaks the word, is not installed")
    folder = tmp_path_factory.mktemp("convert")
    (folder / "takes").mkdir()
    for i, voice in enumerate(("en-us", "en-gb", "en+f2", "en+f4", "en+m3", "en-us+m7")):
        command = ["espeak-ng", "-v", voice, "-w", str(folder / "takes" / f"{i}.wav"), "computer"]
        subprocess.run(command, check=True, capture_output=True)
    tiny_kws.enroll("computer", folder / "takes", folder / "computer.onnx", size="micro")
    return folder


READ = """
import json, sys
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(model_content=Path(sys.argv[1]).read_bytes())
interpreter.allocate_tensors()
given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
print(json.dumps([given["shape"].tolist(), np.dtype(given["dtype"]).name, answered["shape"].tolist()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("litert_torch") is None, reason="litert-torch is not installed")
def test_a_word_for_a_microcontroller(folder: Path) -> None:
    """Both models hear what the artefact hears; the integers are in the header, and `info` tells of the word."""
    done = run_cli("convert", "computer.onnx", "--recordings", "takes", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    heard = {line.partition("hears ")[2] for line in lines if "hears " in line}
    assert heard == {"12 of 12 takes, 0 false alarms in 6 min without the word"}
    assert (
        (folder / "computer.int8.tflite").stat().st_size < 0.65 * (folder / "computer.tflite").stat().st_size < 85_000
    )
    about = json.loads(run_cli("info", "computer.int8.tflite", "--json", cwd=folder).stdout)
    assert (about["labels"], about["kind"], about["precision"]) == (["unknown", "computer"], "features", "int8")
    assert about["own_words"] == read_metadata(folder / "computer.onnx").own_words
    frames = (about["window"] + about["look_back"]) // 160
    read = [sys.executable, "-c", READ, str(folder / "computer.int8.tflite")]
    said = subprocess.run(read, capture_output=True, text=True, env=environment(), check=True)
    assert json.loads(said.stdout) == [[1, 64, frames, 1], "int8", [1, 2]]
    header = (folder / "computer.h").read_text()
    assert '{"unknown", "computer"}' in header
    assert f"Input: int8 (1, 64, {frames}, 1)" in header


def test_what_cannot_be_converted_is_refused(folder: Path, tmp_path: Path) -> None:
    """A bundled model, a name of another form, recordings without a take: one line, and nothing is written."""
    with pytest.raises(ModelError, match="has no words of your own"):
        ground_of(None, models=["listener"])
    shutil.copy(folder / "computer.onnx", tmp_path)
    (tmp_path / "silent").mkdir()
    sf.write(tmp_path / "silent" / "a.wav", np.zeros(RATE), RATE)
    for args, status, said in (
        (["listener"], 1, "has no words of your own"),
        (["computer.onnx", "--out", "computer.int8.tflite"], 2, "expected a name of the form NAME.tflite"),
        (["computer.onnx", "--recordings", "silent"], 2, "found no take of the words"),
    ):
        done = run_cli("convert", *args, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (status, "")
        assert said in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["computer.onnx", "silent"]


def test_more_takes_than_are_needed_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are used, and it is said how many are not."""
    monkeypatch.setattr(own_words, "MOST_TAKES", 4)
    takes, passed_over = own_words.takes_of(folder / "computer.onnx", [folder / "takes"])
    assert [take.name for take in takes] == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert passed_over == {"2 of 6 takes": "4 are enough"}


def test_a_model_that_hears_nothing_is_not_converted(folder: Path) -> None:
    """Ranges of integers from takes that it does not hear would be of no use."""
    noise = sound(2.0)
    takes = [Take(f"{i}", np.roll(noise, i), RATE // 2, RATE) for i in range(3)]
    with pytest.raises(UsageError, match=r"hears 0 of 6 takes, .* give recordings of its words with --recordings"):
        Converter(folder / "computer.onnx", takes)
