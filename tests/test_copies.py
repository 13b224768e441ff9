"""Models and detectors go into other processes, and copies go on alone."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tiny_kws import Classifier, Detector, ModelError, StreamModel
from tiny_kws.artefact.store import find_model
from tiny_kws.audio import read_mono

EXAMPLES = Path(__file__).parents[1] / "examples"
AMID = 4_000  # of a second: amid the word, and amid a hop


@pytest.fixture(scope="module")
def go() -> npt.NDArray[np.float32]:
    """A second with a word, and one of silence."""
    return np.concatenate([read_mono(EXAMPLES / "go.wav"), np.zeros(16_000, np.float32)])


def read_only(thing: Any) -> Any:
    """`thing`, pickled and back, its arrays in memory that nobody may write to, as Ray gives them."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def answers(model: Classifier | StreamModel, sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a model says of a second."""
    if isinstance(model, StreamModel):
        return model.stream().process(sound)
    return model.probabilities(sound[None, :16_000])


def hear(detector: Detector, sound: npt.NDArray[np.float32]) -> list[Any]:
    """The events of the rest of a recording."""
    return detector.process(sound)


@pytest.mark.parametrize("kind", [Classifier, StreamModel])
@pytest.mark.parametrize("again", [read_only, copy.copy, copy.deepcopy])
def test_a_copy_of_a_model_answers_alike(kind: Any, again: Any, go: npt.NDArray[np.float32]) -> None:
    """To the last bit, with as many threads."""
    model = kind("small", threads=2)
    other = again(model)
    assert (type(other), other.path, other.threads) == (kind, model.path, 2)
    np.testing.assert_array_equal(answers(other, go), answers(model, go))


@pytest.mark.parametrize("kind", ["stream", "clip"])
@pytest.mark.parametrize("again", [read_only, copy.deepcopy])
def test_a_copy_of_a_detector_goes_on_alone(kind: str, again: Any, go: npt.NDArray[np.float32]) -> None:
    """Amid a word both hear the rest, and neither hears what the other was given."""
    model = (StreamModel if kind == "stream" else Classifier)("small")
    detector = Detector(model)
    expected = Detector(model).step(go).rows
    assert len(detector.process(go[:AMID])) == 0
    first = len(Detector(model).step(go[:AMID]).rows)
    other = again(detector)
    other.process(np.ones(5_000, np.float32))
    again_from_there = again(detector)
    np.testing.assert_array_equal(detector.step(go[AMID:]).rows, expected[first:])
    np.testing.assert_array_equal(again_from_there.step(go[AMID:]).rows, expected[first:])


def test_a_copy_keeps_the_embedding(go: npt.NDArray[np.float32]) -> None:
    """The vector behind the latest answer goes with the stream."""
    stream = StreamModel("small").stream()
    stream.process(go[:AMID])
    assert stream.embedding.any()
    np.testing.assert_array_equal(read_only(stream).embedding, stream.embedding)


def test_another_process_goes_on(go: npt.NDArray[np.float32]) -> None:
    """A process that shares nothing with this one hears the rest of the word."""
    detector = Detector("small")
    detector.process(go[:AMID])
    expected = copy.deepcopy(detector).process(go[AMID:])
    assert [event.label for event in expected] == ["go"]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(hear, detector, go[AMID:]).result(timeout=120) == expected


def test_a_bundled_model_goes_by_its_name() -> None:
    """Another computer has the package elsewhere."""
    assert str(find_model("small", "stream").parent).encode() not in pickle.dumps(StreamModel("small"))


def test_a_model_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go: npt.NDArray[np.float32]
) -> None:
    """A path that was relative leads to the same file."""
    shutil.copy(find_model("small", "clip"), tmp_path / "mine.onnx")
    monkeypatch.chdir(tmp_path)
    model = Classifier("mine.onnx")
    data = pickle.dumps(model)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(answers(pickle.loads(data), go), answers(model, go))


def test_a_model_that_was_replaced_is_refused(tmp_path: Path) -> None:
    """Half of the workers with another model than the rest would not be noticed."""
    path = tmp_path / "mine.onnx"
    shutil.copy(find_model("small", "clip"), path)
    data = pickle.dumps(Classifier(path))
    shutil.copy(find_model("micro", "clip"), path)
    with pytest.raises(ModelError, match=r"mine\.onnx: holds a different model than when it was pickled"):
        pickle.loads(data)
