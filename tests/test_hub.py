"""Models on the Hub, against a stand-in of it: named, pinned, fetched, checked; and all that may be wrong with them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_kws
from tiny_kws.artefact.hub import HubName, parse_name, sums_text
from tiny_kws.artefact.store import find_model
from tiny_kws.errors import KwsError, UsageError, install_hint

from .helpers import BLOCKER, environment, run_cli, trained_like, write_sound
from .hub_stand_in import TOKEN, Hub, running_hub

pytest.importorskip("huggingface_hub")

SAY = """
import sys, tiny_kws
try:
    model = tiny_kws.load(sys.argv[1])
    print(model.path)
    print(model.classify(sys.argv[2]).label)
except tiny_kws.KwsError as error:
    print("KwsError:", error)
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in of the Hub, which processes started by the test take for the real one, without a token."""
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_ASSETS_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield server


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("sound") / "noise.wav")


def artefacts(*names: str) -> dict[str, bytes]:
    """Bundled artefacts by name, with their sums."""
    folder = find_model("ds-cnn", "clip").parent
    files = {name: (folder / name).read_bytes() for name in names}
    return with_sums(files)


def with_sums(files: dict[str, bytes]) -> dict[str, bytes]:
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, "SHA256SUMS": sums_text(sums).encode()}


def load(name: str, sound: Path, blocked: tuple[str, ...] = ()) -> list[str]:
    """What a process that loads the model prints: its path and a label, or the error."""
    code = (BLOCKER.format(blocked=blocked) if blocked else "") + SAY
    command = [sys.executable, "-c", code, name, str(sound)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://ada/words", HubName("ada/words")),
        ("hf://ada/wo.rds-1@v1.0", HubName("ada/wo.rds-1", "v1.0")),
        ("hf://ada/words/deep/er.onnx", HubName("ada/words", "", "deep/er.onnx")),
        ("hf://ada/words@0123/er.onnx", HubName("ada/words", "0123", "er.onnx")),
    ],
)
def test_names(name: str, expected: HubName) -> None:
    """A name has a repository, and may have a revision and a file; it is written as it was read."""
    assert parse_name(name) == expected
    assert str(expected) == name


@pytest.mark.parametrize(
    "name", ["hf://", "hf://words", "hf://ada/", "hf://ada/words@", "hf://ada/words/", "hf://ada/wo rds", "hf://a/../b"]
)
def test_malformed_names(name: str) -> None:
    """Anything else is wrong use, said before the network is asked."""
    with pytest.raises(UsageError, match="expected hf://USER/NAME"):
        tiny_kws.load(name)


def test_loads_pinned(hub: Hub, sound: Path) -> None:
    """The newest commit is loaded, its hash names the folder, and it answers as the bundled model does."""
    repository = hub.add("ada/words", artefacts("ds-cnn.onnx", "ds-cnn.int8.onnx"))
    path, label = load("hf://ada/words", sound, blocked=("torch", "onnx"))
    assert Path(path).name == "ds-cnn.onnx"
    assert Path(path).parent.name == repository.refs["main"]
    assert label == tiny_kws.load("ds-cnn").classify(sound).label


def test_a_revision_and_a_file(hub: Hub, sound: Path) -> None:
    """A tag, a commit and a file can be named; what came later does not matter to them."""
    repository = hub.add("ada/words", artefacts("ds-cnn.onnx"))
    first = repository.refs["v1"] = repository.refs["main"]
    repository.commit(artefacts("small.onnx", "ds-cnn.int8.onnx"))
    assert Path(load("hf://ada/words@v1", sound)[0]).parent.name == first
    assert Path(load(f"hf://ada/words@{first}", sound)[0]).parent.name == first
    assert Path(load("hf://ada/words/ds-cnn.int8.onnx", sound)[0]).parent.name == repository.refs["main"]


def test_a_pinned_model_needs_no_network_again(hub: Hub, sound: Path) -> None:
    """What was fetched of a commit is loaded by its hash without asking anyone; a branch needs the network."""
    commit = hub.add("ada/words", artefacts("ds-cnn.onnx")).refs["main"]
    first = load(f"hf://ada/words@{commit}", sound)
    hub.requests.clear()
    assert load(f"hf://ada/words@{commit}", sound) == first
    assert hub.requests == []


def test_no_network(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network it says so in one line."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (line,) = load("hf://ada/words", sound)
    assert line.startswith("KwsError: hf://ada/words: the Hub cannot be reached; check the network")


def test_switched_off(hub: Hub, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF_HUB_OFFLINE a commit that is here is loaded, a branch is not."""
    commit = hub.add("ada/words", artefacts("ds-cnn.onnx")).refs["main"]
    first = load("hf://ada/words", sound)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load(f"hf://ada/words@{commit}", sound) == first
    assert "cannot be reached" in load("hf://ada/words", sound)[0]


def test_what_is_not_there(hub: Hub, sound: Path) -> None:
    """An unknown repository, revision or file, a private and a gated repository: a line for each."""
    hub.add("ada/words", artefacts("ds-cnn.onnx"))
    hub.add("ada/secret", artefacts("ds-cnn.onnx"), private=True)
    hub.add("ada/gated", artefacts("ds-cnn.onnx"), gated=True)
    private = "there is no such repository, or it is private; check the name, or give a token that may read it"
    for name, expected in {
        "hf://ada/nothing": private,
        "hf://ada/secret": private,
        "hf://ada/gated": "is gated; accept its terms",
        "hf://ada/words@v9": "the repository has no such revision",
        "hf://ada/words/other.onnx": "the repository has no such file",
    }.items():
        (line,) = load(name, sound)
        assert line.startswith(f"KwsError: {name.removesuffix('/other.onnx')}")
        assert expected in line


def test_a_token_opens_a_private_repository(hub: Hub, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that huggingface_hub finds is used, and is not in what is said."""
    hub.add("ada/secret", artefacts("ds-cnn.onnx"), private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(load("hf://ada/secret", sound)) == 2
    assert TOKEN not in " ".join(load("hf://ada/nothing", sound))


def test_nothing_suitable(hub: Hub, sound: Path) -> None:
    """A repository without artefact says what it holds; one with several says how to name one."""
    hub.add("ada/text", {"README.md": b"hello", "model.bin": b"x"})
    (line,) = load("hf://ada/text", sound)
    assert "found README.md, model.bin, expected a clip artefact of tiny-kws or best.pt" in line
    hub.add("ada/two", artefacts("ds-cnn.onnx", "small.onnx"))
    (line,) = load("hf://ada/two", sound)
    assert "holds ds-cnn.onnx, small.onnx; name one of them: hf://ada/two/" in line
    hub.add("ada/ds-cnn", artefacts("ds-cnn.onnx", "small.onnx"))
    assert Path(load("hf://ada/ds-cnn", sound)[0]).name == "ds-cnn.onnx"


def test_wrong_sums(hub: Hub, sound: Path) -> None:
    """A file that is not as SHA256SUMS says is refused and does not stay; mended, it loads."""
    files = artefacts("ds-cnn.onnx")
    repository = hub.add("ada/words", {**files, "SHA256SUMS": f"{'0' * 64}  ds-cnn.onnx\n".encode()})
    (line,) = load("hf://ada/words", sound)
    assert "/ds-cnn.onnx: its SHA-256 is " in line
    assert "expected 000000000000…" in line
    repository.commit(files)
    assert len(load("hf://ada/words", sound)) == 2
    repository.commit({"SHA256SUMS": b"what is this\n"})
    assert "its SHA256SUMS is damaged" in load("hf://ada/words", sound)[0]


def test_damaged_on_the_way(hub: Hub, sound: Path) -> None:
    """A file whose bytes are not those that the Hub tells the sum of is refused, with no SHA256SUMS at all."""
    data = artefacts("ds-cnn.onnx")["ds-cnn.onnx"]
    hub.add("ada/words", {"ds-cnn.onnx": data})
    hub.objects[hashlib.sha256(data).hexdigest()] = data[:-1] + b"?"
    (line,) = load("hf://ada/words", sound)
    assert "it was altered or damaged" in line
    hub.objects.clear()
    assert len(load("hf://ada/words", sound)) == 2


def test_a_foreign_artefact(hub: Hub, sound: Path) -> None:
    """An .onnx file of other origin is refused as a local one is."""
    hub.add("ada/words", with_sums({"words.onnx": b"no artefact"}))
    assert "is not a tiny-kws artefact" in load("hf://ada/words", sound)[0]


def test_a_checkpoint_alone(hub: Hub, sound: Path, checkpoint_path: Path) -> None:
    """best.pt alone, with the reference's keys only, becomes an artefact once and answers as the checkpoint does."""
    import torch

    from tiny_kws.training.checkpoint import classifier_of, load_checkpoint, read_torch

    raw = read_torch(trained_like(checkpoint_path))
    kept = ("model_state", "model_config", "labels", "stats", "val_acc", "epoch", "history", "torch_version")
    path = sound.parent / "best.pt"
    torch.save({key: raw[key] for key in kept}, path)
    commit = hub.add("grace/reference.v2", {"best.pt": path.read_bytes(), "README.md": b""}).refs["main"]
    artefact, label = load("hf://grace/reference.v2", sound)
    written_ns = Path(artefact).stat().st_mtime_ns
    assert commit in artefact
    classify = classifier_of(load_checkpoint(path))
    window = tiny_kws.audio.read_window(sound).samples[None]
    assert load_checkpoint(path).labels[int(classify(window)[0].argmax())] == label
    assert load("hf://grace/reference.v2", sound, blocked=("torch", "onnx")) == [artefact, label]
    assert Path(artefact).stat().st_mtime_ns == written_ns


def test_a_checkpoint_without_torch(hub: Hub, sound: Path, checkpoint_path: Path) -> None:
    """Without torch a repository that holds only a checkpoint says what to install."""
    hub.add("grace/reference", {"best.pt": checkpoint_path.read_bytes()})
    (line,) = load("hf://grace/reference", sound, blocked=("torch", "onnx"))
    assert "so it needs torch; install it with pip install 'tiny-kws[train]'" in line


def test_without_huggingface_hub(sound: Path) -> None:
    """Without the extra it says which to install."""
    (line,) = load("hf://ada/words", sound, blocked=("huggingface_hub",))
    assert line == "KwsError: the Hub needs huggingface_hub, which is not installed; " + install_hint("hub")


def test_the_command_line_takes_names(hub: Hub, sound: Path) -> None:
    """classify, detect and info take a name of the Hub; info says how to pin it."""
    commit = hub.add("ada/listener", artefacts("listener.onnx", "listener.stream.onnx")).refs["main"]
    done = run_cli("classify", sound, "--model", "hf://ada/listener", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_cli("detect", sound, "--model", "hf://ada/listener")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(run_cli("info", "hf://ada/listener", "--json").stdout)
    assert (told["pinned"], told["kind"]) == (f"hf://ada/listener@{commit}", "clip")
    assert f"pinned                  hf://ada/listener@{commit}" in run_cli("info", "hf://ada/listener").stdout
    done = run_cli("classify", sound, "--model", "hf://ada/other")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert run_cli("classify", sound, "--model", "hf://listener").returncode == 2


def test_streams_come_first_for_detecting(hub: Hub, sound: Path) -> None:
    """A detector takes the stream artefact of a repository that has both."""
    hub.add("ada/listener", artefacts("listener.onnx", "listener.stream.onnx"))
    code = "import sys, tiny_kws; print(tiny_kws.Detector(sys.argv[1]).model.path.name)"
    command = [sys.executable, "-c", code, "hf://ada/listener"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=True)
    assert done.stdout == "listener.stream.onnx\n"


def test_export_takes_a_checkpoint_from_the_hub(hub: Hub, checkpoint_path: Path, tmp_path: Path) -> None:
    """`export` makes an artefact of a checkpoint on the Hub."""
    hub.add("grace/reference", {"best.pt": trained_like(checkpoint_path).read_bytes()})
    done = run_cli("export", "hf://grace/reference", "--out", tmp_path / "mine.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert tiny_kws.load(tmp_path / "mine.onnx").metadata.name == "mine"


def test_plain_names_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundled names and paths never come near the Hub."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert tiny_kws.load("ds-cnn").labels
    with pytest.raises(KwsError, match="not found, expected a model file"):
        tiny_kws.load("ada/words")
