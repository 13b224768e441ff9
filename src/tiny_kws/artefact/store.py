"""Finds the file of a model: a bundled one, a path, or one on the Hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError
from .format import SUFFIXES
from .hub import fetch

DEFAULT_MODELS = {"clip": "base", "stream": "listener"}


def bundled_models(kind: str = "clip") -> list[str]:
    """Names of the models of one kind that come with the package."""
    suffix = SUFFIXES[kind]
    names = [path.name for path in bundled_files() if path.name.endswith(suffix)]
    return sorted(
        name.removesuffix(suffix) for name in names if kind == "stream" or not name.endswith(SUFFIXES["stream"])
    )


def bundled_files() -> list[Path]:
    """The artefacts that come with the package."""
    return sorted(Path(str(p)) for p in _assets().iterdir() if p.name.endswith(".onnx"))


def find_model(name_or_path: str | Path | None, *kinds: str) -> Path:
    """The file of a model: the default of the first of `kinds`, a bundled one by name, one on the Hub, or a path.

    Raises ModelError if there is none, UsageError for an empty name, KwsError as `tiny_kws.artefact.hub.fetch` does.
    """
    kinds = kinds or tuple(SUFFIXES)
    if name_or_path == "":
        raise UsageError("found an empty name, expected a model's; is a variable not set?")
    name = str(name_or_path or DEFAULT_MODELS[kinds[0]])
    if name.startswith("hf://"):
        return fetch(name, *kinds)
    for kind in kinds:
        if name in bundled_models(kind):
            return Path(str(_assets() / f"{name}{SUFFIXES[kind]}"))
    path = Path(name)
    if not _is_file(path):
        known = ", ".join(dict.fromkeys(n for kind in kinds for n in bundled_models(kind))) or "none"
        raise ModelError(f"{path}: not found, expected a model file or the name of a bundled one ({known})")
    return path


def lasting_name(path: Path, kind: str) -> str:
    """A name by which `find_model` finds a file from any folder and, if it is bundled, in another installation."""
    is_bundled = path.resolve().parent == Path(str(_assets())).resolve()
    return path.name.removesuffix(SUFFIXES[kind]) if is_bundled else str(path.resolve())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _assets() -> Any:
    return resources.files("tiny_kws") / "assets"
