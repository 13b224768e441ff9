"""Sharing a model: what is written, what the card says and does not say, and the way to a stand-in of the Hub."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import pytest

import tiny_kws
from tiny_kws.artefact.format import Metadata, Stats
from tiny_kws.artefact.runtime import read_metadata
from tiny_kws.artefact.store import find_model
from tiny_kws.errors import KwsError, ModelError, UsageError
from tiny_kws.sharing import publish
from tiny_kws.sharing.card import CardFacts, Described, model_card

from .helpers import SOURCE, changed_artefact, exported, run_cli, trained_like, write_sound
from .hub_stand_in import TOKEN, Hub
from .test_hub import hub  # noqa: F401  (a fixture)

pytest.importorskip("huggingface_hub")
MODELS = SOURCE.parent / "models"
SPACE = ["README.md", "SHA256SUMS", "app.py", "requirements.txt"]


def own_model(checkpoint: Path, folder: Path) -> Path:
    """A folder of a training: checkpoint and artefact of the same network, nothing measured."""
    folder.mkdir()
    shutil.copy(trained_like(checkpoint), folder / "best.pt")
    shutil.copy(exported(trained_like(checkpoint)), folder / "mine.onnx")
    (folder / "last.pt").write_bytes(b"not to be shared")
    (folder / ".hidden.png").write_bytes(b"not to be shared")
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def facts_of(name: str = "ds-cnn", **changes: Any) -> CardFacts:
    metadata = replace(read_metadata(find_model(name, "clip")), **changes)
    return CardFacts(name, [Described(f"{name}.onnx", 577_000, metadata)], {}, {}, [f"{name}.onnx"])


def test_dry_run_writes_what_would_be_uploaded(tmp_path: Path) -> None:
    """Artefacts of the package and all of a training's folder, with sums that fit and the Space beside it."""
    out = tmp_path / "out"
    publish.write_all(publish.collect(None, MODELS / "ds-cnn"), "ada/ds-cnn", out)
    artefacts = ["ds-cnn.int8.onnx", "ds-cnn.onnx"]
    others = ["README.md", "SHA256SUMS", "best.pt", "confusion_matrix.png", "history.json", "learning_curve.png"]
    measured = ["metrics.json", "reproduce.json", "robustness.png"]
    streams = [f"streams/{path}" for path in names_in(MODELS / "ds-cnn" / "streams")]
    assert len(streams) > 2
    assert names_in(out / "model") == sorted([*artefacts, *others, *measured, *streams])
    assert names_in(out / "space") == sorted([*artefacts, *SPACE])
    for folder in (out / "model", out / "space"):
        lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
        sums = dict(reversed(line.split("  ")) for line in lines)
        assert sorted(sums) == [name for name in names_in(folder) if name not in ("README.md", "SHA256SUMS")]
        assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == sums[name] for name in sums)
    assert "models:\n- ada/ds-cnn\n---\n" in (out / "space" / "README.md").read_text(encoding="utf-8")


def test_the_same_twice(tmp_path: Path) -> None:
    """Two runs write the same bytes."""
    parts = publish.collect("listener", MODELS / "listener")
    for name in ("a", "b"):
        publish.write_all(parts, "ada/listener", tmp_path / name)
    assert names_in(tmp_path / "a") == names_in(tmp_path / "b")
    for name in names_in(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_of_ones_own(checkpoint_path: Path, tmp_path: Path) -> None:
    """A folder with an artefact gives its own name and nothing but what is worth sharing; the card says what lacks."""
    parts = publish.collect(None, own_model(checkpoint_path, tmp_path / "training"))
    publish.write_all(parts, "ada/mine", tmp_path / "out", space=False)
    assert names_in(tmp_path / "out") == [
        f"model/{name}" for name in ("README.md", "SHA256SUMS", "best.pt", "mine.onnx")
    ]
    card = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    for text in ("# mine", "| not measured |", "on single clips were not measured", "in noise was not measured"):
        assert text in card
    assert "Licence of the weights: not stated." in card
    assert "model-index" not in card


@pytest.mark.parametrize("name", ["ds-cnn", "small", "listener"])
def test_no_number_on_the_card_that_was_not_measured(name: str) -> None:
    """Where every number of metadata, sizes and measurements is another, so is every number of the card, few apart."""
    facts = publish.collect(name, MODELS / name).facts
    ours, theirs = (model_card(given, "ada/words") for given in (facts, with_other_numbers(facts)))
    assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    same = {one for one, other in zip(numbers(ours), numbers(theirs), strict=True) if one == other}
    assert same <= STANDING | set(numbers_in_strings(facts)), "they stand in the text of the card, and in no file"


NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
WANTED = re.compile(r"^\| [\d.]+ (\* )?\||(At|for|as few as) [\d.]+ (false alarms )?per hour", re.MULTILINE)
STANDING = {"95", "256"}
"""The level of intervals, and SHA-256; all other numbers of a card are measured, or part of a name in a file."""


def numbers(text: str) -> list[str]:
    """The numbers in a text but for SHA-256 sums and the rates of false alarms that were wanted."""
    return [found.replace(",", "") for found in NUMBER.findall(WANTED.sub("", re.sub(r"\b[0-9a-f]{64}\b", "", text)))]


def with_other_numbers(value: Any, key: str = "") -> Any:
    """The same with other numbers, in the same order of size; only the rates aimed at and formats stay."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: with_other_numbers(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, Mapping):
        return {name: with_other_numbers(item, name) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_other_numbers(item, key) for item in value]
    if isinstance(value, (bool, str, NoneType)) or key in ("rate_per_hour", "format"):
        return value
    return 5 * value + 1013 if isinstance(value, int) else 1.37 * value + 0.0813


def numbers_in_strings(value: Any) -> Iterator[str]:
    """The numbers in every name and text: versions, years, conditions, licences."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        yield from (found for name in value for found in numbers(re.sub("snr", "snr ", str(name))))
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        yield from (found for item in value for found in numbers_in_strings(item))
    elif isinstance(value, str):
        yield from numbers(value)


@pytest.mark.parametrize(
    ("name", "heard"), [("ds-cnn", "single clips"), ("base", "composed windows"), ("listener", "composed streams")]
)
def test_the_card_says_how_a_model_was_made(name: str, heard: str) -> None:
    """What it was trained on, the settings of that recipe in a line of their own, and whose weights it began with."""
    parts = publish.collect(name, MODELS / name)
    made = model_card(parts.facts, f"ada/{name}").partition("## How it was made")[2]
    assert f"- training on {heard}: epochs" in made
    kind = heard.removeprefix("composed ")
    assert re.findall(r"^- (windows|streams): [a-z]", made, re.MULTILINE) == [kind] * heard.startswith("comp")
    first = parts.facts.artefacts[0].metadata.data.get("first_sha256")
    assert (f"another training, the checkpoint with SHA-256 `{first}`" in made) == bool(first)
    assert ("- weights: the mean of several checkpoints" in made) == (name == "base")


def test_the_card_of_streams() -> None:
    """The listener's card tells misses by condition, with intervals and the rates that came; sources with licence."""
    card = model_card(publish.collect("listener", MODELS / "listener").facts, "ada/listener")
    fresh, rest = card.partition("## Words in streams of sound")[2].split("### Adults")
    adults, chosen_on = rest.split("### On the recordings on which settings")
    for text in (fresh, adults):
        assert "No setting of the detector was chosen on these recordings." in text
    assert "Settings of the detector were chosen on these recordings, which favours it" in chosen_on
    levels = {
        "streams": "clean | 20 dB SNR | 10 dB SNR | 5 dB SNR | 0 dB SNR",
        "streams/adults": "clean | 10 dB SNR",
        "streams/chosen_on": "clean | 10 dB SNR",
    }
    for text, folder in ((fresh, "streams"), (adults, "streams/adults"), (chosen_on, "streams/chosen_on")):
        metrics = json.loads((MODELS / "listener" / folder / "clean" / "metrics.json").read_text(encoding="utf-8"))
        point = next(point for point in metrics["held_out"]["rates"] if point["rate_per_hour"] == 10)
        low, high = (100 * end for end in point["miss_rate_interval"])
        came = f"{100 * point['miss_rate']:.1f} % ({low:.0f} to {high:.0f}) at {point['false_alarms_per_hour']:.1f}"
        assert f"| false alarms per hour aimed at | {levels[folder]} |" in text
        assert f"\n| 10 | {came} |" in text
        late = metrics["operating_point"]["latency_from_word_end_s"]["p50"]
        assert f"latency from the end of the word: p50 {1000 * late:.0f} ms" in text
    assert "| Room responses | rooms | CC BY 4.0 (12); MIT (37) |" in card
    assert "(credits.csv)" in card
    assert 'tiny_kws.Detector("hf://ada/listener")' in card


def test_the_card_says_whether_the_weights_can_be_made_again(tmp_path: Path) -> None:
    """Of the reference that they can, of `micro` why not, and what was reached; no word where nothing is known."""
    cards = {name: model_card(publish.collect(name, MODELS / name).facts, "ada/words") for name in ("ds-cnn", "micro")}
    assert "`runs/ds-cnn.sh` of tiny-kws reproduces these weights, except for rounding." in cards["ds-cnn"]
    assert "These weights cannot be reproduced: they come from a GPU training loop" in cards["micro"]
    assert "`runs/micro.sh` of tiny-kws reached 94.97 % on the validation clips" in cards["micro"]
    assert "reproduce" not in model_card(facts_of(), "ada/words")


@pytest.mark.parametrize("told", ["5", "{}", '{"script": "a.sh", "same_weights": false}', "{"])
def test_a_reproduction_that_says_nothing(checkpoint_path: Path, tmp_path: Path, told: str) -> None:
    """A reproduce.json that does not say how, or why not, is refused by name."""
    folder = own_model(checkpoint_path, tmp_path / "training")
    (folder / "reproduce.json").write_text(told, encoding="utf-8")
    with pytest.raises(ModelError, match=r"reproduce.json: does not say how the weights can be reproduced"):
        publish.collect(None, folder)


def test_the_card_of_clips() -> None:
    """The reference's card has the table by class and the model index that the Hub shows, and offers no detector."""
    card = model_card(publish.collect(None, MODELS / "ds-cnn").facts, "ada/ds-cnn")
    assert "| unknown | 95.6 | 86.0 | 90.5 | 278 |" in card
    assert "value: 0.952395" in card
    assert "pipeline_tag: audio-classification" in card
    assert "*unknown* (86.0 %)" in card
    assert "Detector(" not in card


def test_a_card_says_what_was_not_measured() -> None:
    """Without a measurement on streams the card says that there is none."""
    facts = replace(publish.collect(None, MODELS / "ds-cnn").facts, streams={})
    assert "false alarms per hour on streams were not measured" in model_card(facts, "ada/ds-cnn")


def test_a_card_claims_no_more_than_the_artefact() -> None:
    """Of another data set neither language nor a place among the Speech Commands results is claimed."""
    card = model_card(facts_of(data={"source": "my kitchen"}, licence="", validation=None), "ada/ds-cnn")
    front = card.split("---\n")[1]
    assert all(text not in front for text in ("language", "license", "google/speech_commands", "model-index"))
    assert "not measured" in card
    assert "English" not in card


@pytest.mark.parametrize(
    "repo", ["ada", "ada/", "/words", "ada/words/more", "ada/words@v1", "hf://ada/words", "a/b--c"]
)
def test_malformed_repositories(repo: str) -> None:
    """Only USER/NAME can be pushed to."""
    with pytest.raises(UsageError, match="expected USER/NAME"):
        publish.check_repo(repo)


def test_parts_that_do_not_belong_together(checkpoint_path: Path, tmp_path: Path) -> None:
    """Another checkpoint, other artefacts or measurements of another model are refused by name."""
    folder = own_model(checkpoint_path, tmp_path / "training")
    measured = folder / "metrics.json"
    measured.write_text('{"model": {"sha256": "abc"}, "per_class": {}}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"metrics.json: was measured on another model \(SHA-256 abc"):
        publish.collect(None, folder)
    measured.write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"metrics.json: is not a measurement"):
        publish.collect(None, folder)
    measured.unlink()
    changed_artefact(folder / "mine.onnx", folder / "mine.int8.onnx", checkpoint_sha256="0" * 64)
    with pytest.raises(ModelError, match="was made from another checkpoint"):
        publish.collect(None, folder)
    (folder / "mine.int8.onnx").unlink()
    shutil.copy(find_model("ds-cnn", "clip"), folder / "ds-cnn.onnx")
    with pytest.raises(ModelError, match=r"best.pt: is not the checkpoint that ds-cnn.onnx was made from"):
        publish.collect("ds-cnn", folder)
    with pytest.raises(UsageError, match="found the models ds-cnn, mine, expected one"):
        publish.collect(None, folder)


def test_nothing_to_push(tmp_path: Path) -> None:
    """An empty folder, a missing one, an unknown name: each is said."""
    with pytest.raises(ModelError, match="found no artefact called words"):
        publish.collect("words", None)
    with pytest.raises(ModelError, match="found no artefact called"):
        publish.collect(None, tmp_path)
    with pytest.raises(UsageError, match="expected the folder of a training"):
        publish.collect(None, tmp_path / "nothing")
    (tmp_path / "words.onnx").write_bytes(b"no artefact")
    with pytest.raises(ModelError, match="is not a tiny-kws artefact"):
        publish.collect(None, tmp_path)


def test_a_dry_run_replaces_nothing(tmp_path: Path) -> None:
    """A folder that is there already is left as it is."""
    with pytest.raises(KwsError, match="is already there"):
        publish.write_all(publish.collect("ds-cnn", None), "ada/words", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_there_and_back(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What is pushed arrives whole, in a repository and a Space, and loads by the pinned name that is printed."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = run_cli("push", "ada/words", "--folder", MODELS / "ds-cnn")
    assert done.returncode == 0, done.stderr
    model_url, space_url, pinned = done.stdout.splitlines()
    assert (model_url, space_url) == (f"{hub.url}/ada/words", f"{hub.url}/spaces/ada/words")
    model, space = (hub.repositories[kind, "ada/words"] for kind in ("model", "space"))
    assert pinned == f"Pinned: hf://ada/words@{model.refs['main']}"
    publish.write_all(publish.collect(None, MODELS / "ds-cnn"), "ada/words", tmp_path / "dry")
    for folder, repository in (("model", model), ("space", space)):
        files = repository.commits[repository.refs["main"]]
        assert sorted(set(files) - {".gitattributes"}) == names_in(tmp_path / "dry" / folder)
        assert all(
            (tmp_path / "dry" / folder / name).read_bytes() == files[name] for name in set(files) - {".gitattributes"}
        )
    done = run_cli("classify", write_sound(tmp_path / "noise.wav"), "--model", pinned.removeprefix("Pinned: "))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Authorization" not in done.stdout + done.stderr


def test_pushed_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A second push to the same repository is a further commit; --private and --no-space are heeded."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for model in ("ds-cnn", "small"):
        done = run_cli("push", "ada/words", "--model", model, "--private", "--no-space")
        assert done.returncode == 0, done.stderr
    assert list(hub.repositories) == [("model", "ada/words")]
    repository = hub.repositories["model", "ada/words"]
    assert repository.private
    assert len(repository.commits) == 3  # with the one that made it
    assert b"small.onnx" in repository.commits[repository.refs["main"]]["SHA256SUMS"]


def test_what_a_push_no_longer_brings_is_removed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """In both repositories; what their owner put there by hand stays."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert run_cli("push", "ada/words", "--model", "ds-cnn").returncode == 0
    by_hand = {"notes.txt": b"by hand", "ds-cnn[1].onnx": b"by hand"}
    for repository in hub.repositories.values():
        repository.commit(by_hand)
    done = run_cli("push", "ada/words", "--model", "small")
    assert done.returncode == 0, done.stderr
    for (kind, _), repository in hub.repositories.items():
        files = repository.commits[repository.refs["main"]]
        listed = {line.split("  ")[1] for line in files["SHA256SUMS"].decode().splitlines()}
        assert not any(name.startswith("ds-cnn.") for name in files), kind
        assert set(files) == {*listed, *by_hand, "SHA256SUMS", "README.md", ".gitattributes"}


def test_pushing_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """No token, a wrong one, someone else's name, a Hub in trouble: one line and status 1 each."""
    push = ("push", "ada/words", "--model", "ds-cnn", "--no-space")
    assert_refused(run_cli(*push), "ada/words (model): the Hub refuses it (401)")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert_refused(run_cli(*push), "the Hub refuses it (401)")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_refused(run_cli("push", "grace/words", "--model", "ds-cnn"), "grace/words (model): the Hub refuses it (403)")
    hub.refuses_writing = True
    assert_refused(run_cli(*push), "the Hub answered with status 500")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert_refused(run_cli(*push), "the Hub cannot be reached")


def assert_refused(done: subprocess.CompletedProcess[str], expected: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert "hf_" not in done.stderr


def test_the_command_line_dry(tmp_path: Path) -> None:
    """--dry-run asks nobody, prints what it wrote and needs no token; what is wrong is status 2."""
    done = run_cli("push", "ada/small", "--dry-run", tmp_path / "out", "--no-space")
    assert (done.returncode, done.stderr) == (0, "")
    written = tmp_path / "out" / "model" / "small.stream.onnx"
    assert written.read_bytes() == find_model("small", "stream").read_bytes()
    assert f"{written}: {written.stat().st_size:,} bytes\n" in done.stdout
    assert tiny_kws.load(tmp_path / "out" / "model" / "small.onnx").labels
    assert run_cli("push", "small", "--dry-run", tmp_path / "out2").returncode == 2
    assert run_cli("push", "ada/words", "--dry-run", tmp_path / "out3").returncode == 1


def test_metadata_of_no_sources() -> None:
    """An artefact that says next to nothing of itself still gets a card."""
    metadata = Metadata("tiny", "ds-cnn", ["yes"], 1, 1, Stats(0.0, 1.0), {}, {})
    card = model_card(CardFacts("tiny", [Described("tiny.onnx", 1000, metadata)], {}, {}, ["tiny.onnx"]), "ada/tiny")
    assert "it has no label for anything else" in card
    assert "Training data: not stated." in card
