"""The artefact: an ONNX file whose metadata, one JSON value, describes the model completely.

The value also holds a checksum: the SHA-256 of the file's own bytes, taken with the checksum's digits set to zero. It
lets us refuse a file that was cut, damaged or made by something else before it runs. Anyone can compute it, so it does
not show who made the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from ..config import SAMPLE_RATE, WINDOW_LIMITS
from ..errors import ModelError

FORMAT = 1
METADATA_KEY = "tiny_kws"
SUFFIXES = {"clip": ".onnx", "stream": ".stream.onnx"}
MAX_BYTES = 64 * 2**20  # far above any keyword model, far below what would fill a memory
NO_CHECKSUM = "0" * 64
"""The placeholder for an artefact's checksum while it is computed."""
_CHECKSUM = re.compile(rb'"artefact_sha256": ?"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Stats:
    """The mean and standard deviation by which log-mel features are normalised."""

    mean: float
    std: float


@dataclass(frozen=True)
class Validation:
    """How well a model did on the validation split, with 95 % intervals."""

    clips: int = 0
    """0 if only the accuracy is known, from the checkpoint."""
    clips_name: str = ""
    clips_sha256: str = ""
    accuracy: float = math.nan
    accuracy_interval: tuple[float, float] = (0.0, 1.0)
    macro_f1: float = math.nan
    macro_f1_interval: tuple[float, float] = (0.0, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The values as the file has them."""
        return asdict(self) if self.clips else {"accuracy": self.accuracy}


@dataclass(frozen=True)
class Metadata:
    """What an artefact says about itself. Lengths in samples at `rate` Hz."""

    name: str
    architecture: str
    labels: list[str]
    parameters: int
    macs: int
    """Multiply-accumulates of the network for one window of audio."""
    stats: Stats
    model_config: dict[str, Any]
    feature_config: dict[str, Any]
    kind: str = "clip"
    precision: str = "float32"
    rate: int = SAMPLE_RATE
    window: int = SAMPLE_RATE
    """Samples that the answer to a clip is based on."""
    hop: int = 0
    """Samples in a chunk of the stream; 0 for a clip artefact."""
    look_back: int = 0
    """Samples before the window that an answer of a stream also depends on; 0 for a clip artefact."""
    detector: dict[str, Any] = field(default_factory=dict)
    """Defaults for turning probabilities over time into events; empty until measured for this model."""
    calibration_clips: int = 0
    """Training clips that int8 ranges were taken from."""
    train_config: dict[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    """None if not measured."""
    data: dict[str, Any] = field(default_factory=dict)
    """What the training recorded about its data, as in the checkpoint."""
    own_words: list[dict[str, Any]] = field(default_factory=list)
    """For a model of `tiny-kws enroll`: what each word was made from, and its expected error rates."""
    licence: str = ""
    version: str = ""
    checkpoint_sha256: str = ""
    artefact_sha256: str = NO_CHECKSUM
    format: int = FORMAT

    @property
    def source(self) -> str:
        """Where the training data comes from; empty if that is not stated."""
        return str(self.data.get("source") or "")

    @property
    def left_out(self) -> tuple[str, ...]:
        """Words that were left out of the training."""
        return tuple(map(str, self.data.get("left_out") or ()))

    def to_dict(self) -> dict[str, Any]:
        """The values as the file has them, as plain types."""
        return {**asdict(self), "validation": self.validation.to_dict() if self.validation else {}}

    def to_json(self) -> str:
        """The JSON as the file has it."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def with_checksum(artefact: bytes) -> bytes:
    """Fill in the checksum of an artefact that was written with NO_CHECKSUM in its place."""
    assert len(_CHECKSUM.findall(artefact)) == 1
    digest = hashlib.sha256(artefact).hexdigest().encode()
    return _CHECKSUM.sub(lambda match: match[0].replace(NO_CHECKSUM.encode(), digest), artefact)


def artefact_bytes(model: Any, metadata: Metadata) -> bytes:
    """The bytes of an artefact: `model`, an onnx.ModelProto, with `metadata` and its checksum."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, metadata.to_json()
    return with_checksum(model.SerializeToString())


def read_artefact(path: Path) -> bytes:
    """The bytes of an artefact whose checksum fits. Raises ModelError if it is foreign, damaged or altered."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}), expected a model file") from error
    if size > MAX_BYTES:
        raise ModelError(f"{path}: has {size} bytes, expected a keyword model of at most {MAX_BYTES}")
    found = _CHECKSUM.findall(data)
    if len(found) != 1:
        raise ModelError(
            f"{path}: is not a tiny-kws artefact (it has no metadata), expected a file written by `tiny-kws export`"
        )
    if hashlib.sha256(data.replace(found[0], NO_CHECKSUM.encode())).hexdigest().encode() != found[0]:
        raise ModelError(f"{path}: was altered or damaged (its SHA-256 does not match), download or export it again")
    return data


def parse_metadata(values: Mapping[str, str], where: str) -> Metadata:
    """Metadata from the properties of an ONNX file. Raises ModelError, naming `where`, if they are not ours."""
    if METADATA_KEY not in values:
        raise ModelError(f"{where}: has no tiny-kws metadata, expected a file written by `tiny-kws export`")
    try:
        raw = json.loads(values[METADATA_KEY])
        found_format = raw.get("format")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{where}: its metadata is not a JSON object, export it again") from error
    if found_format != FORMAT:
        raise ModelError(f"{where}: has format version {found_format}, expected {FORMAT}; install a newer tiny-kws")
    try:
        validation = _from_json(Validation, raw["validation"]) if raw.get("validation") else None
        metadata = _from_json(Metadata, {**raw, "stats": _from_json(Stats, raw.get("stats")), "validation": validation})
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: its metadata is incomplete or unusable ({error}), export it again") from error
    _check(metadata, where)
    return metadata


def _check(metadata: Metadata, where: str) -> None:
    """Raise ModelError for metadata with which this version cannot run a model."""
    if metadata.rate != SAMPLE_RATE:
        raise ModelError(f"{where}: is for audio of {metadata.rate} Hz, expected {SAMPLE_RATE} Hz")
    shortest, longest = WINDOW_LIMITS
    if not shortest <= metadata.window <= longest:
        raise ModelError(
            f"{where}: has a window of {metadata.window} samples, expected {shortest} to {longest}; export it again"
        )
    if metadata.kind == "stream" and not 0 < metadata.hop <= metadata.window:
        raise ModelError(
            f"{where}: has a hop of {metadata.hop} samples, expected 1 to its window of {metadata.window}; export it "
            "again"
        )
    labels = metadata.labels
    if not (labels and all(isinstance(label, str) for label in labels)):
        raise ModelError(f"{where}: has the labels {labels}, expected a list of names; export it again")
    if len(set(labels)) != len(labels):
        raise ModelError(f"{where}: has the labels {', '.join(labels)}, expected different ones; export it again")


Known = TypeVar("Known", Metadata, Stats, Validation)


_IN_JSON: dict[Any, Any] = {str: str, int: int, float: (int, float), list: list, dict: dict, tuple: list}
"""The JSON types of the types that fields have."""


def _from_json(kind: type[Known], raw: Any) -> Known:
    """A dataclass from a JSON object; keys that a newer version may have added are ignored.

    Raises TypeError for a value that is missing or of another type.
    """
    if not isinstance(raw, Mapping):
        raise TypeError(f"found {raw!r:.40}, expected an object")
    hints = get_type_hints(kind)
    return kind(**{name: _from_value(name, raw[name], hint) for name, hint in hints.items() if name in raw})


def _from_value(name: str, value: Any, hint: Any) -> Any:
    wanted = get_origin(hint) or hint
    if not isinstance(value, _IN_JSON.get(wanted, object)):
        raise TypeError(f"{name} is {value!r:.40}, expected {wanted.__name__}")
    if wanted is tuple:
        low, high = map(float, value)
        return low, high
    return value
