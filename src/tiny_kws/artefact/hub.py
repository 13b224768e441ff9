"""Models on the Hugging Face Hub, named hf://USER/NAME[@REVISION][/FILE]: pins, fetches and checks them.

A revision becomes the hash of its commit before anything is fetched. Every file is checked against the SHA-256 in the
repository's SHA256SUMS and the one that the Hub gives; an artefact also carries its own. huggingface_hub, which the
extra `hub` installs, deals with tokens.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import KwsError, ModelError, UsageError, install_hint
from ..files import sha256_of
from .format import SUFFIXES, read_artefact

PREFIX = "hf://"
SUMS = "SHA256SUMS"
CHECKPOINT = "best.pt"
TIMEOUT_S = 20
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@dataclass(frozen=True)
class HubName:
    """The parts of a name: repository, revision (commit, branch or tag) and file, the last two possibly empty."""

    repo: str
    revision: str = ""
    file: str = ""

    def __str__(self) -> str:
        """The name as it is written."""
        revision, file = (f"{mark}{part}" if part else "" for mark, part in (("@", self.revision), ("/", self.file)))
        return f"{PREFIX}{self.repo}{revision}{file}"


def parse_name(name: str) -> HubName:
    """Read a name. Raises UsageError if it is malformed.

    >>> parse_name("hf://ada/words@v1/words.int8.onnx")
    HubName(repo='ada/words', revision='v1', file='words.int8.onnx')
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise UsageError(
            f"{name}: is not a name on the Hub, expected hf://USER/NAME, hf://USER/NAME@REVISION or either/FILE"
        )
    return HubName(*(part or "" for part in match.groups()))


def pin(name: str) -> str:
    """The name with the commit's hash as its revision, so that it always finds the same files.

    Raises KwsError as `fetch` does.
    """
    wanted = parse_name(name)
    return str(replace(wanted, revision=_list(wanted)[0]))


def fetch(name: str, *kinds: str) -> Path:
    """Fetch a model's file into huggingface_hub's cache, unless it is there; its folder is named by the commit.

    It is the file in the name, or else the artefact of the first of `kinds` that exists: clip, stream or checkpoint. If
    a repository has only a checkpoint, an artefact is made from it, which needs torch. Raises KwsError for a malformed
    name, an unknown or private repository, no network, nothing suitable, wrong sums.
    """
    wanted = parse_name(name)
    commit, sums = _list(wanted)
    file = wanted.file or _choose(wanted, sums, kinds)
    pinned = replace(wanted, revision=commit, file=file)
    path = _fetch(pinned, sums.get(file, ()))
    if file.endswith(".pt") and "checkpoint" not in kinds:
        return _converted(path, pinned)
    return path


def import_hub() -> Any:
    """Import huggingface_hub. Raises KwsError if it is not installed."""
    try:
        import huggingface_hub  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise KwsError(f"the Hub needs huggingface_hub, which is not installed; {install_hint('hub')}") from error
    return huggingface_hub


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Raise a KwsError that says in one line, beginning with `what`, what went wrong between here and the Hub."""
    import_hub()
    from huggingface_hub import errors  # noqa: PLC0415

    any_http_error: Any = errors.HfHubHTTPError.__bases__[0]  # of the client that this version of it is built on
    log_in = "check the name, or give a token that may read it (`hf auth login`)"
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise KwsError(_unreachable(what)) from error
    except errors.GatedRepoError as error:
        raise KwsError(f"{what}: is gated; accept its terms on its page, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise KwsError(f"{what}: there is no such repository, or it is private; {log_in}") from error
    except errors.RevisionNotFoundError as error:
        raise KwsError(f"{what}: the repository has no such revision, expected a branch, a tag or a commit") from error
    except errors.EntryNotFoundError as error:
        raise KwsError(f"{what}: the repository has no such file; look at its list of files") from error
    except (errors.HFValidationError, errors.LocalTokenNotFoundError) as error:
        raise KwsError(f"{what}: {error}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise KwsError(f"{what}: the Hub refuses it ({status}); {log_in.replace('read', 'do')}") from error
        raise KwsError(f"{what}: the Hub answered with status {status}, expected success; try again later") from error
    except (any_http_error, ConnectionError) as error:
        raise KwsError(_unreachable(what)) from error


def sums_text(sums: dict[str, str]) -> str:
    """The text of SHA256SUMS, in the form of coreutils."""
    return "".join(f"{digest}  {file}\n" for file, digest in sorted(sums.items()))


def parse_sums(text: str) -> dict[str, str] | None:
    """The checksum of each file that such a text lists; None if it is not such a text."""
    matches = [_SUM_LINE.fullmatch(line) for line in text.splitlines()]
    return {match[2]: match[1] for match in matches if match} if all(matches) else None


def _unreachable(what: str) -> str:
    return f"{what}: the Hub cannot be reached; check the network, or name a commit whose files are already here"


def _list(wanted: HubName) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The commit, and the known SHA-256 sums of each file in it; needs no network if everything is cached."""
    if _COMMIT.fullmatch(wanted.revision) and (sums := _sums_in_cache(wanted)):
        return wanted.revision, sums
    try:
        with hub_errors(str(wanted)):
            info = (
                import_hub()
                .HfApi()
                .model_info(wanted.repo, revision=wanted.revision or None, files_metadata=True, timeout=TIMEOUT_S)
            )
    except KwsError:
        if _COMMIT.fullmatch(wanted.revision) and _in_cache(wanted, CHECKPOINT):
            return wanted.revision, {CHECKPOINT: ()}
        raise
    told: dict[str, tuple[str, ...]] = {
        file.rfilename: (file.lfs.sha256,) if file.lfs else () for file in info.siblings
    }
    if SUMS not in told:
        return str(info.sha), told
    listed = _read_sums(_fetch(replace(wanted, revision=info.sha, file=SUMS), told[SUMS]), wanted)
    return str(info.sha), {file: (*told.get(file, ()), digest) for file, digest in listed.items()}


def _sums_in_cache(wanted: HubName) -> dict[str, tuple[str, ...]] | None:
    path = _in_cache(wanted, SUMS)
    return None if path is None else {file: (digest,) for file, digest in _read_sums(path, wanted).items()}


def _in_cache(wanted: HubName, file: str) -> Path | None:
    path = import_hub().try_to_load_from_cache(wanted.repo, file, revision=wanted.revision)
    return Path(path) if isinstance(path, str) else None


def _read_sums(path: Path, wanted: HubName) -> dict[str, str]:
    sums = parse_sums(path.read_text(encoding="utf-8", errors="replace"))
    if sums is None:
        raise ModelError(f"{wanted}: its {SUMS} is damaged, expected lines of a SHA-256 and a file; tell its owner")
    return sums


def _choose(wanted: HubName, files: dict[str, Any], kinds: tuple[str, ...]) -> str:
    """The file of the first kind that exists; an artefact named like the repository comes before others."""
    for kind in kinds:
        found = [file for file in files if _is_of(kind, file)]
        named = [file for file in found if file == f"{wanted.repo.partition('/')[2]}{SUFFIXES.get(kind)}"]
        plain = [file for file in found if ".int8." not in file]
        for some in (named, plain, found):
            if len(some) == 1:
                return some[0]
        if found:
            raise ModelError(f"{wanted}: holds {', '.join(sorted(found))}; name one of them: {wanted}/{found[0]}")
    if CHECKPOINT in files:
        return CHECKPOINT
    shown = ", ".join(sorted(files)[:5]) or "nothing"
    wanted_kinds = " or ".join(f"a {kind} artefact" for kind in kinds if kind in SUFFIXES) or "a checkpoint"
    raise ModelError(f"{wanted}: found {shown}, expected {wanted_kinds} of tiny-kws or {CHECKPOINT}; name another one")


def _is_of(kind: str, file: str) -> bool:
    if "/" in file or kind not in SUFFIXES:
        return False
    return file.endswith(SUFFIXES[kind]) and (kind == "stream" or not file.endswith(SUFFIXES["stream"]))


def _fetch(pinned: HubName, sums: tuple[str, ...]) -> Path:
    """Fetch a commit's file and compare its SHA-256 with all of `sums`; if it differs, remove it from the cache."""
    path = _in_cache(pinned, pinned.file)
    if path is None:
        with hub_errors(str(pinned)):
            path = Path(import_hub().hf_hub_download(pinned.repo, pinned.file, revision=pinned.revision))
    found = sha256_of(path)
    for expected in sums:
        if found != expected:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise ModelError(
                f"{pinned}: its SHA-256 is {found[:12]}…, expected {expected[:12]}…; it was altered or damaged, so "
                "fetch it again, and if that does not help, tell its owner"
            )
    return path


def _converted(checkpoint: Path, pinned: HubName) -> Path:
    """The clip artefact of a checkpoint, made once for each commit and version of tiny-kws."""
    folder = import_hub().cached_assets_path(
        "tiny-kws", namespace=pinned.repo, subfolder=f"{pinned.revision}-{__version__}"
    )
    path: Path = folder / f"{pinned.repo.partition('/')[2].replace('.', '-')}{SUFFIXES['clip']}"
    if _is_whole(path):
        return path
    try:
        has_torch = find_spec("torch") is not None
    except ModuleNotFoundError:
        has_torch = False
    if not has_torch:
        raise KwsError(f"{pinned}: holds a checkpoint and no artefact, so it needs torch; {install_hint('train')}")
    # In a process of its own: this one runs artefacts, and stays without torch.
    command = [sys.executable, "-m", "tiny_kws", "export", os.fspath(checkpoint), "--out", os.fspath(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("tiny-kws: ")
        raise ModelError(f"{pinned}: no artefact can be made from its checkpoint ({reason or done.returncode})")
    return path


def _is_whole(path: Path) -> bool:
    try:
        read_artefact(path)
    except ModelError:
        return False
    return True
