"""The artefact: an ONNX file whose metadata, one JSON value, says all there is to know about the model.

The value also holds a SHA-256 of the file's own bytes, taken with that sum's digits set to zero, so that a file that
was altered, cut or never ours is refused before it runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..config import SAMPLE_RATE
from ..errors import ModelError

FORMAT = 1
METADATA_KEY = "tiny_kws"
SUFFIXES = {"clip": ".onnx", "stream": ".stream.onnx"}
MAX_BYTES = 64 * 2**20  # far above any keyword model, far below what would fill a memory
UNSIGNED = "0" * 64
_SUM = re.compile(rb'"artefact_sha256": ?"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Metadata:
    """What an artefact says of itself. Lengths in samples at `rate` Hz."""

    name: str
    architecture: str
    labels: list[str]
    parameters: int
    macs: int
    """Multiply-accumulates of the network for one second of audio."""
    stats: dict[str, float]
    model_config: dict[str, Any]
    feature_config: dict[str, Any]
    kind: str = "clip"
    precision: str = "float32"
    rate: int = SAMPLE_RATE
    window: int = SAMPLE_RATE
    hop: int = 0
    """Samples of a chunk of the stream; 0 for a clip artefact."""
    look_back: int = 0
    """Samples before the window that an answer of a stream also depends on; 0 for a clip artefact."""
    detector: dict[str, Any] = field(default_factory=dict)
    """Defaults for turning probabilities over time into events; empty until measured for this model."""
    calibration_clips: int = 0
    """Training clips that int8 ranges were taken from."""
    train_config: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    """Accuracy on the validation split with its 95 % interval and number of clips; empty if not measured."""
    data: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    version: str = ""
    checkpoint_sha256: str = ""
    artefact_sha256: str = UNSIGNED
    format: int = FORMAT

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self), ensure_ascii=False)


def sign(unsigned: bytes) -> bytes:
    """Fill in the sum of an artefact that was written with UNSIGNED in its place."""
    assert len(_SUM.findall(unsigned)) == 1
    digest = hashlib.sha256(unsigned).hexdigest().encode()
    return _SUM.sub(lambda match: match[0].replace(UNSIGNED.encode(), digest), unsigned)


def read_artefact(path: Path) -> bytes:
    """The bytes of an artefact whose sum is right. Raises ModelError if it is foreign, damaged or altered."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}), expected a model file") from error
    if size > MAX_BYTES:
        raise ModelError(f"{path}: has {size} bytes, expected a keyword model of at most {MAX_BYTES}")
    found = _SUM.findall(data)
    if len(found) != 1:
        raise ModelError(
            f"{path}: is no tiny-kws artefact (its metadata are missing), expected a file of `tiny-kws export`"
        )
    if hashlib.sha256(data.replace(found[0], UNSIGNED.encode())).hexdigest().encode() != found[0]:
        raise ModelError(f"{path}: was altered or damaged (its SHA-256 does not fit), fetch or export it again")
    return data


def parse_metadata(values: dict[str, str], where: str) -> Metadata:
    """Metadata from the properties of an ONNX file. Raises ModelError, naming `where`, if they are not ours."""
    if METADATA_KEY not in values:
        raise ModelError(f"{where}: holds no tiny-kws metadata, expected a file of `tiny-kws export`")
    try:
        raw = json.loads(values[METADATA_KEY])
        found_format = raw.get("format")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{where}: its metadata are no JSON object, export it again") from error
    if found_format != FORMAT:
        raise ModelError(f"{where}: has format version {found_format}, expected {FORMAT}; install a newer tiny-kws")
    known = {f.name for f in fields(Metadata)}
    try:
        metadata = Metadata(**{key: value for key, value in raw.items() if key in known})
    except TypeError as error:
        raise ModelError(f"{where}: its metadata are incomplete ({error}), export it again") from error
    if metadata.rate != SAMPLE_RATE:
        raise ModelError(f"{where}: is for audio of {metadata.rate} Hz, expected {SAMPLE_RATE} Hz")
    labels = metadata.labels
    if not (isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels)):
        raise ModelError(f"{where}: has the labels {labels}, expected a list of names; export it again")
    if len(set(labels)) != len(labels):
        raise ModelError(f"{where}: has the labels {', '.join(labels)}, expected different ones; export it again")
    return metadata
