"""An artefact is taken whole and unaltered or refused in one line; the metadata in it are what the program expects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_kws.artefact import store
from tiny_kws.artefact.format import (
    FORMAT,
    MAX_BYTES,
    METADATA_KEY,
    NO_CHECKSUM,
    parse_metadata,
    read_artefact,
    with_checksum,
)
from tiny_kws.artefact.runtime import Classifier
from tiny_kws.artefact.store import find_model
from tiny_kws.data.speech_commands import LABELS
from tiny_kws.errors import ModelError

from .helpers import changed_artefact, edited_artefact, exported, trained_like

CHECKSUM_ENTRY = f'"artefact_sha256": "{NO_CHECKSUM}"'


@pytest.fixture(scope="module")
def artefact_path(checkpoint_path: Path) -> Path:
    return exported(trained_like(checkpoint_path))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "model.onnx"


def refusal(path: Path) -> str:
    """What is said when a model is refused: one line that names the file."""
    with pytest.raises(ModelError) as caught:
        Classifier(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_whole_artefact_is_read(artefact_path: Path) -> None:
    """What `export` wrote is read back byte for byte."""
    assert read_artefact(artefact_path) == artefact_path.read_bytes()


@given(where=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
@settings(max_examples=25, deadline=None)
def test_one_altered_byte_is_noticed(artefact_path: Path, scratch: Path, where: float, change: int) -> None:
    """An artefact with any one byte altered is refused."""
    data = bytearray(artefact_path.read_bytes())
    data[int(where * len(data))] ^= change
    scratch.write_bytes(data)
    refusal(scratch)


@pytest.mark.parametrize("digit", [0, 31, 63])
def test_an_altered_sum_is_noticed(artefact_path: Path, tmp_path: Path, digit: int) -> None:
    """An artefact with one digit of its own sum altered is refused."""
    data = bytearray(artefact_path.read_bytes())
    start = data.index(b'"artefact_sha256": "') + len(b'"artefact_sha256": "')
    data[start + digit] = ord("1") if data[start + digit] == ord("0") else ord("0")
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert "was altered or damaged" in refusal(path)


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.99, 0.999999])
def test_a_truncated_artefact_is_refused(artefact_path: Path, tmp_path: Path, share: float) -> None:
    """An artefact cut anywhere is refused."""
    data = artefact_path.read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(share * len(data))])
    refusal(path)


def test_an_artefact_with_something_behind_it_is_refused(artefact_path: Path, tmp_path: Path) -> None:
    """An artefact with bytes appended, even those that an ONNX reader would pass over, is refused."""
    path = tmp_path / "model.onnx"
    path.write_bytes(artefact_path.read_bytes() + b"\x9a\x06\x00")
    assert "was altered or damaged" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [b"", np.random.default_rng(0).bytes(100_000), b"#!/bin/sh\necho no model\n", b"RIFF\x00\x00\x00\x00WAVE"],
    ids=["empty", "random bytes", "text", "sound"],
)
def test_what_is_no_artefact_is_refused(tmp_path: Path, data: bytes) -> None:
    """A file that never was an artefact is called that."""
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert "is not a tiny-kws artefact" in refusal(path)


def test_a_foreign_onnx_file_is_refused(artefact_path: Path, tmp_path: Path) -> None:
    """A sound ONNX file without our metadata is refused."""
    model = onnx.load(artefact_path)
    del model.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)
    assert "is not a tiny-kws artefact" in refusal(path)


def test_a_file_with_a_right_checksum_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    """A right checksum does not make a model: what onnxruntime cannot parse is refused."""
    path = tmp_path / "model.onnx"
    path.write_bytes(with_checksum(f"no protocol buffer {CHECKSUM_ENTRY}".encode()))
    assert "onnxruntime cannot load it" in refusal(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A file far larger than any keyword model is refused by its size."""
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert f"has {MAX_BYTES + 1} bytes" in refusal(path)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    """A folder named like a model is refused."""
    path = tmp_path / "model.onnx"
    path.mkdir()
    assert "not found" in refusal(path)


def test_a_folder_cannot_be_read_as_an_artefact(tmp_path: Path) -> None:
    """Reading a folder as an artefact is a ModelError with the system's reason."""
    with pytest.raises(ModelError, match="cannot be read"):
        read_artefact(tmp_path)


@pytest.mark.parametrize("name", ["nothing.onnx", "no/such/folder/model.onnx", "x" * 300, "a\0b", "wörter\n.onnx"])
def test_a_missing_model_is_named(tmp_path: Path, name: str) -> None:
    """A model that is not there is a ModelError, however odd its name."""
    with pytest.raises(ModelError, match="not found"):
        find_model(tmp_path / name)


def test_a_newer_format_asks_for_a_newer_program(artefact_path: Path, tmp_path: Path) -> None:
    """An artefact of a later format version is refused with the advice to update."""
    path = changed_artefact(artefact_path, tmp_path / "model.onnx", format=FORMAT + 1)
    assert f"has format version {FORMAT + 1}" in refusal(path)


def test_what_a_newer_program_adds_is_passed_over(artefact_path: Path, tmp_path: Path) -> None:
    """Unknown keys in metadata of the same format version do no harm."""
    text = json.loads(onnx.load(artefact_path).metadata_props[0].value)
    text = json.dumps({**text, "artefact_sha256": NO_CHECKSUM, "colour": "blue"})
    assert Classifier(changed_artefact(artefact_path, tmp_path / "model.onnx", json=text)).labels == LABELS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"not JSON, though {CHECKSUM_ENTRY}", "not a JSON object"),
        (f"[{{{CHECKSUM_ENTRY}}}]", "not a JSON object"),
        (f"{{{CHECKSUM_ENTRY}}}", "format version None"),
        (f'{{"format": {FORMAT}, {CHECKSUM_ENTRY}}}', "incomplete"),
    ],
    ids=["text", "list", "no format", "no labels"],
)
def test_broken_metadata_are_refused(artefact_path: Path, tmp_path: Path, text: str, reason: str) -> None:
    """Metadata that are not a JSON object or lack what is needed are refused, though the sum fits."""
    path = changed_artefact(artefact_path, tmp_path / "model.onnx", json=text)
    assert reason in refusal(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 8000},
        {"labels": []},
        {"labels": 5},
        {"labels": [1] * len(LABELS)},
        {"labels": ["yes"] * len(LABELS)},
        {"labels": list(LABELS[:-1])},
        {"labels": [*LABELS, "more"]},
        {"window": 24_000},
        {"window": 100},
        {"window": 16_000_000},
        {"window": "16000"},
        {"name": None},
        {"detector": []},
        {"feature_config": "as ever"},
        {"kind": "stream", "hop": 640},
        {"kind": "features"},
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_are_refused(artefact_path: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Metadata of another kind, rate or window, of wrong types, or labels not one to an output, are refused."""
    refusal(changed_artefact(artefact_path, tmp_path / "model.onnx", **changes))


@pytest.mark.parametrize("part", ["stats", "validation"])
@pytest.mark.parametrize("value", ["much", [1], {"mean": "low", "accuracy": "high"}, {"accuracy_interval": [0.5]}])
def test_parts_of_metadata_that_make_no_sense_are_refused(
    artefact_path: Path, tmp_path: Path, part: str, value: object
) -> None:
    """Stats and validation that are no objects, or hold no numbers, are refused."""
    text = json.loads(onnx.load(artefact_path).metadata_props[0].value)
    text = json.dumps({**text, "artefact_sha256": NO_CHECKSUM, part: value})
    assert "unusable" in refusal(changed_artefact(artefact_path, tmp_path / "model.onnx", json=text))


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (32_000, "takes audio of shape (batch, 16000), expected (batch, 32000) by the window in its metadata"),
        (7_999, "has a window of 7999 samples, expected 8000 to 32000"),
        (32_001, "has a window of 32001 samples, expected 8000 to 32000"),
    ],
)
def test_a_window_that_is_not_the_graphs_is_told(artefact_path: Path, tmp_path: Path, window: int, reason: str) -> None:
    """A window that is not the graph's, or is none of half a second to two, is refused with what was expected."""
    assert reason in refusal(changed_artefact(artefact_path, tmp_path / "model.onnx", window=window))


@pytest.mark.parametrize(("old", "new"), [("audio", "sound"), ("probabilities", "likelihoods")])
def test_a_graph_with_other_ends_is_refused(artefact_path: Path, tmp_path: Path, old: str, new: str) -> None:
    """A model whose graph does not take `audio` to `probabilities` is refused, for all its right checksum."""

    def rename(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    refusal(edited_artefact(artefact_path, tmp_path / "model.onnx", rename))


def takes_more(model: onnx.ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("volume", onnx.TensorProto.FLOAT, [1]))


def takes_one_clip(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def takes_integers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT16
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["audio"], ["floats"], to=onnx.TensorProto.FLOAT))
    model.graph.node[1].input[0] = "floats"


def breaks_inside(model: onnx.ModelProto) -> None:
    for name, shape in (("thirds", [3, -1]), ("seconds", [-1, 16_000])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    model.graph.node[0].input[0] = "whole"
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["cut", "seconds"], ["whole"]))
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["audio", "thirds"], ["cut"]))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (takes_more, "takes audio (batch, 16000), volume (1), expected audio (batch, 16000)"),
        (takes_one_clip, "takes audio of shape (1, 16000), expected (batch, 16000)"),
        (takes_integers, "takes audio of shape none, expected (batch, 16000)"),
        (breaks_inside, "onnxruntime cannot run it"),
    ],
    ids=["more", "one clip", "integers", "broken"],
)
def test_a_graph_that_cannot_run_is_refused(
    artefact_path: Path, tmp_path: Path, edit: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    """A graph that wants more, or another batch or type, or fails inside, is refused when it is opened."""
    assert reason in refusal(edited_artefact(artefact_path, tmp_path / "model.onnx", edit))


def test_metadata_survive_the_file(artefact_path: Path) -> None:
    """The metadata read from a file, written as JSON and parsed again are the same."""
    metadata = Classifier(artefact_path).metadata
    assert parse_metadata({METADATA_KEY: metadata.to_json()}, "here") == metadata


def test_the_same_checkpoint_gives_the_same_bytes(artefact_path: Path) -> None:
    """Taking the checksum anew, with the first taken out, gives the file again: nothing in it depends on the time."""
    data = artefact_path.read_bytes()
    digest = Classifier(artefact_path).metadata.artefact_sha256.encode()
    assert with_checksum(data.replace(digest, NO_CHECKSUM.encode())) == data


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, artefact_path: Path) -> Path:
    """A folder of bundled models: the default clip and stream models, and a clip model called other."""
    folder = tmp_path / "assets"
    folder.mkdir()
    for name in ("base.onnx", "other.onnx", "listener.stream.onnx"):
        (folder / name).write_bytes(artefact_path.read_bytes())
    (folder / "notes.txt").write_text("no model")
    monkeypatch.setattr(store, "_assets", lambda: folder)
    return folder


def test_bundled_models_have_names(assets: Path) -> None:
    """The bundled models of a kind are the artefacts of that kind among the assets, by name."""
    assert store.bundled_models() == ["base", "other"]
    assert store.bundled_models("stream") == ["listener"]


def test_the_default_model_needs_no_name(assets: Path) -> None:
    """No name at all means the package's own model of the kind that is wanted."""
    assert find_model(None) == assets / "base.onnx"
    assert find_model(None, "stream") == assets / "listener.stream.onnx"


def test_a_bundled_model_is_found_by_name(assets: Path) -> None:
    """A bundled model's name finds it."""
    assert find_model("other") == assets / "other.onnx"


def test_a_model_is_found_by_path(assets: Path, artefact_path: Path) -> None:
    """A path, as text or as Path, finds its file."""
    assert find_model(str(artefact_path)) == find_model(artefact_path) == artefact_path


def test_a_missing_model_error_lists_the_bundled_ones(assets: Path) -> None:
    """Who asks for a model that is not there hears which there are."""
    with pytest.raises(ModelError, match=r"bundled one \(base, other\)"):
        find_model("nothing", "clip")
