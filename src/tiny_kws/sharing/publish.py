"""Pushes to the Hub: a model's artefacts, checkpoint, measurements and card, and a Space that runs it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..apps import space_folder
from ..artefact.hub import CHECKPOINT, PREFIX, SUMS, hub_errors, import_hub, parse_sums, sums_text
from ..artefact.runtime import read_metadata
from ..artefact.store import bundled_files
from ..errors import KwsError, ModelError, UsageError
from ..files import sha256_of, whole_folder, write_bytes
from .card import CardFacts, Described, Reproduction, model_card

METRICS = "metrics.json"
REPRODUCE = "reproduce.json"
"""Says whether the weights can be made again: `script`, `same_weights`, and if not, `why` and what was `reached`."""
KEPT = (CHECKPOINT, METRICS, REPRODUCE, "history.json", "detector.json", "credits.csv")
KEPT_SUFFIXES = (".onnx", ".tflite", ".h", ".png")
CARD = "README.md"
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Parts:
    """The files of a model by their names in its repository, and the content of its card."""

    files: dict[str, Path]
    facts: CardFacts


@dataclass(frozen=True)
class Pushed:
    """The result of a push: the model's pinned name on the Hub, and the addresses of both repositories."""

    name: str
    url: str
    space_url: str


def collect(model: str | None, folder: Path | None) -> Parts:
    """The files of a model: those in the `folder` of its training, and artefacts from there or from the package.

    `model` is the artefacts' name, by default the only one in `folder`, or else the folder's own.
    Raises KwsError if there are no artefacts, or they, the checkpoint and the measurements are not of one network.
    """
    files = _files_in(folder) if folder else {}
    own = {file for file in files if _is_artefact(file)}
    name = model or (_only_name(own, folder) if own and folder else folder.resolve().name if folder else None)
    if name is None:
        raise UsageError("found neither a model's name nor a folder, expected one of them")
    if own:
        files = {file: path for file, path in files.items() if not _is_exported(file) or _base(file) == name}
    else:
        files |= {path.name: path for path in bundled_files() if _base(path.name) == name}
    artefacts = [
        Described(file, path.stat().st_size, read_metadata(path)) for file, path in files.items() if _is_artefact(file)
    ]
    if not artefacts:
        raise ModelError(
            f"{folder or name}: found no artefact called {name}, expected {name}.onnx of `tiny-kws export`, or "
            "the name of a bundled model with --model"
        )
    artefacts.sort(key=lambda one: (one.metadata.kind != "clip", one.metadata.precision != "float32", one.file))
    _check_one_network(artefacts, files)
    clips, streams = _measurements(files)
    return Parts(files, CardFacts(name, artefacts, clips, streams, sorted(files), _reproduction(files)))


def can_be_shown(parts: Parts) -> bool:
    """Whether a Space can run the model: its app judges single recordings, which takes a clip artefact."""
    return any(artefact.metadata.kind == "clip" for artefact in parts.facts.artefacts)


def write_model(parts: Parts, repo: str, out: Path) -> None:
    """Write the model repository `repo` into the folder `out`: files, card, checksums. Raises KwsError if it cannot."""
    for file, path in parts.files.items():
        write_bytes(out / file, path.read_bytes())
    _write_sums(out)
    write_bytes(out / CARD, model_card(parts.facts, repo).encode())


def write_space(parts: Parts, repo: str, out: Path) -> None:
    """Write the Space that shows the model into the folder `out`: the app, and the artefacts it runs."""
    for path in sorted(space_folder().iterdir()):
        if path.is_file():
            write_bytes(out / path.name, path.read_bytes())
    for artefact in parts.facts.artefacts:
        write_bytes(out / artefact.file, parts.files[artefact.file].read_bytes())
    head, front, rest = (out / CARD).read_text(encoding="utf-8").split("---\n", 2)
    front = front.replace("title: tiny-kws", f"title: {parts.facts.name}", 1)
    write_bytes(out / CARD, f"{head}---\n{front}models:\n- {repo}\n---\n{rest}".encode())
    _write_sums(out)


def write_all(parts: Parts, repo: str, out: Path, space: bool = True) -> None:
    """Write what `push` would upload into the new folder `out`: `model` and `space`. Raises KwsError if it exists."""
    check_repo(repo)
    if out.exists():
        raise KwsError(f"{out}: is already there, expected a new folder; name another one")
    with whole_folder(out) as folder:
        write_model(parts, repo, folder / "model")
        if space:
            write_space(parts, repo, folder / "space")


def push(parts: Parts, repo: str, private: bool = False, space: bool = True) -> Pushed:
    """Upload the model to `repo`, USER/NAME, and a Space of the same name; both are made if they are not there.

    Each is one commit, which also removes the files of an earlier push that this one does not have; other files stay.
    The token is the one that huggingface_hub finds. Raises KwsError if the Hub refuses.
    """
    check_repo(repo)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        write_all(parts, repo, out, space)
        url, commit = _upload(out / "model", repo, "model", private)
        space_url = _upload(out / "space", repo, "space", private)[0] if space else ""
    return Pushed(f"{PREFIX}{repo}@{commit}", url, space_url)


def check_repo(repo: str) -> None:
    """Raise UsageError unless `repo` is USER/NAME."""
    if _REPO.fullmatch(repo) is None or ".." in repo or "--" in repo:
        raise UsageError(f"{repo}: is not a repository's name, expected USER/NAME")


def _upload(folder: Path, repo: str, kind: str, private: bool) -> tuple[str, str]:
    api = import_hub().HfApi()
    what = f"{repo} ({kind})"
    sdk = {"space_sdk": "gradio"} if kind == "space" else {}
    with hub_errors(what):
        try:
            url = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, **sdk)
            done = api.upload_folder(
                repo_id=repo,
                repo_type=kind,
                folder_path=folder,
                commit_message=f"Push {folder.name} of tiny-kws",
                delete_patterns=[escape(file) for file in _no_longer_listed(folder, repo, kind)] or None,
            )
        except (ValueError, RuntimeError) as error:  # a file among many that did not arrive
            if isinstance(error, OSError):  # the Hub's answer, which `hub_errors` knows
                raise
            reason = " ".join(str(error).split())[:160]
            raise KwsError(
                f"{what}: could not be pushed ({reason}), expected everything to arrive; try again"
            ) from error
    return str(url), str(done.oid)


def _no_longer_listed(folder: Path, repo: str, kind: str) -> list[str]:
    """The files that the repository lists in its checksums but that are not in `folder`."""
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    with TemporaryDirectory() as cache:
        try:
            path = import_hub().hf_hub_download(repo, SUMS, repo_type=kind, cache_dir=cache)
        except EntryNotFoundError:  # a new one
            return []
        listed = parse_sums(Path(path).read_text(encoding="utf-8", errors="replace")) or {}
    return sorted(file for file in listed if not (folder / file).is_file())


def _files_in(folder: Path) -> dict[str, Path]:
    """The files of a training's folder that are worth sharing, by their names below it."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: not found, expected the folder of a training")
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return {
        name: path
        for name, path in names.items()
        if (path.name in KEPT or path.suffix in KEPT_SUFFIXES) and not any(part[0] == "." for part in name.split("/"))
    }


def _is_artefact(file: str) -> bool:
    return file.endswith(".onnx") and "/" not in file


def _is_exported(file: str) -> bool:
    return file.endswith((".onnx", ".tflite", ".h")) and "/" not in file


def _base(file: str) -> str:
    """The model's name, `base` for base.stream.onnx, of a file at the top of the folder; empty for deeper files."""
    return "" if "/" in file else file.partition(".")[0]


def _only_name(artefacts: set[str], folder: Path) -> str:
    names = sorted({_base(file) for file in artefacts})
    if len(names) > 1:
        raise UsageError(f"{folder}: found the models {', '.join(names)}, expected one; name it with --model")
    return names[0]


def _check_one_network(artefacts: list[Described], files: dict[str, Path]) -> None:
    """Raise ModelError unless all artefacts come from one checkpoint, the one beside them."""
    expected = artefacts[0].metadata.checkpoint_sha256
    for artefact in artefacts:
        if artefact.metadata.checkpoint_sha256 != expected:
            raise ModelError(
                f"{files[artefact.file]}: was made from another checkpoint than {artefacts[0].file}, expected the "
                "same; export them together"
            )
    checkpoint = files.get(CHECKPOINT)
    if checkpoint is not None and sha256_of(checkpoint) != expected:
        raise ModelError(
            f"{checkpoint}: is not the checkpoint that {artefacts[0].file} was made from; export it again, or name "
            "the folder of that training"
        )
    known = {expected} | {sha256_of(files[artefact.file]) for artefact in artefacts}
    for file, path in files.items():
        if file.endswith(METRICS) and (found := _read_metrics(path)["model"]["sha256"]) not in known:
            raise ModelError(
                f"{path}: was measured on another model (SHA-256 {found[:12]}…), expected one of those pushed; measure "
                "again, or leave it out of the folder"
            )


def _measurements(files: dict[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measurements on clips and those on streams, each by its folder.

    Streams on which nothing was chosen come first, and of each kind the clean one.
    """
    clips: dict[str, Any] = {}
    streams: dict[str, Any] = {}
    for file, path in files.items():
        if file.rpartition("/")[2] == METRICS:
            metrics, where = _read_metrics(path), file.rpartition("/")[0].removeprefix("streams/")
            (clips if "per_class" in metrics else streams)[where] = metrics
    order = sorted(streams, key=_place_of_streams)
    return clips, {name: streams[name] for name in order}


def _place_of_streams(name: str) -> tuple[str, bool, float, str]:
    chosen_on, _, condition = name.rpartition("/")
    return chosen_on, condition != "clean", -_snr_db(condition), condition


def _snr_db(condition: str) -> float:
    digits = condition.removeprefix("snr")
    return float(digits) if digits.lstrip("-").isdigit() else 0.0


def _reproduction(files: dict[str, Path]) -> Reproduction | None:
    """What the folder says about making its weights again; None if it says nothing."""
    if REPRODUCE not in files:
        return None
    path = files[REPRODUCE]
    try:
        return Reproduction.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path}: does not say how the weights can be reproduced ({error}), expected script, same_weights, and "
            "why and reached where they are not the same"
        ) from error


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(metrics["model"]["sha256"], str) and ("per_class" in metrics or "held_out" in metrics)):
            raise ValueError("it does not say how any model did")  # noqa: TRY301
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path}: is not a measurement ({error}), expected one written by `tiny-kws evaluate`"
        ) from error
    return metrics


def _write_sums(folder: Path) -> None:
    """Write SHA256SUMS of all files in `folder` but the card, which its owner may edit on the Hub."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    sums = {file: sha256_of(path) for file, path in files.items() if file != CARD}
    write_bytes(folder / SUMS, sums_text(sums).encode())
